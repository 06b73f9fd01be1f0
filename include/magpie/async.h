/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_ASYNC_H
#define MAGPIE_ASYNC_H
/*
 * async.h - the keywords: async, await, spawn, gather, async_with (GNU C, opt-in)
 *
 *      async(int, step, (int, n)) {
 *          await(mag_sleep(1 * MAG_SECOND));
 *          async_return(n);
 *      }
 *
 *      async(void, demo) {
 *          int r[2];
 *          gather(r, step(1), step(2));
 *          return 0;
 *      }
 *
 * One macro, async(), defines things; what it makes of `step' is
 *
 *      struct step             the object: the frame that mag_co_new returns
 *        .value                the result's place, first, of the result's type
 *        .args                 a copy of the arguments
 *      struct step *step(n)    the constructor; runs nothing; must be used
 *      step__body(out, n)      the code in braces, an ordinary C function, which
 *                              debuggers and profilers show under this name
 *      step__thunk, step__type what the core (task.h) calls and refers to
 *
 * so arguments are converted and diagnosed as those of any C function.  The other
 * words are expressions that know the result's type from `.value'; a coroutine, a
 * task (the same pointer, after spawn) and a future all have one.  A void result is
 * an empty struct: no bytes, and an error to use.  What the words do is done by
 * functions of task.h, which can be mixed with them freely.
 *
 * An error leaves the enclosing function by an ordinary `return rc', so cleanup
 * attributes and async_with run; there is no setjmp.  So these words may stand in a
 * coroutine's body and in any C function that returns int.
 *
 * Raw words: async, await, await_rc, async_return, async_decl, async_def, spawn,
 * spawn_opts, gather, gather_rc, gather_n, async_future, future_set, future_fail,
 * async_with, async_resource.  Everything else begins with mag_ or MAG_.
 *
 * Not here yet: generators (async_gen, yield, async_for, async_iter), task_group,
 * with_timeout, wait_for, as_completed, and the HTTP client of the tutorial.
 *
 * Limits: the type of an argument or a result must be writable in front of a name
 * and without a comma at top level (typedef function pointers; no arrays), and 16
 * arguments or children are the most.
 *
 * Rejected: `gather(r, a, b, .rcs = rcs)'.  A preprocessor cannot tell an argument
 * that begins with a dot from an expression, and C gives such an argument a meaning
 * only in an initializer, where the child's type is lost and so is its check.
 * Hence the parentheses: gather(r, a, b, (.rcs = rcs)).
 */
#ifdef __cplusplus
#error "<magpie/async.h> is for C. In C++ include <magpie.h>: mag_spawn and mag_await do the same."
#endif
#ifndef __GNUC__
#error "<magpie/async.h> needs gcc or clang. Elsewhere include <magpie.h> and use mag_spawn."
#endif

#include <errno.h>
#include <magpie.h>

/* clang-format off: it has no notion of statements in macros */

/* ---- private: the preprocessor -------------------------------------------------- */

#define MAG_CAT_(a, b)  MAG_CAT1_(a, b)
#define MAG_CAT1_(a, b) a##b

/*
 * m(id, ...) with a number for __COUNTER__: names that end in it are of one use of a
 * macro, so nested uses do not shadow each other.
 */
#define MAG_CALL_(m, ...) m(__VA_ARGS__)

#define MAG_FIRST_(...)         MAG_FIRST1_(__VA_ARGS__)
#define MAG_FIRST1_(first, ...) first
#define MAG_INSIDE_(...)        __VA_ARGS__
#define MAG_NOTHING_(...)

#define MAG_COUNT_(...) \
    MAG_COUNT1_(__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
#define MAG_COUNT1_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, count, ...) count

/* m(id, k, x) for each argument but the last one, then last(id, 1, x). */
#define MAG_EACH_(m, last, id, ...) \
    __VA_OPT__(MAG_CAT_(MAG_EACH_, MAG_COUNT_(__VA_ARGS__))(m, last, id, __VA_ARGS__))
#define MAG_EACH_1(m, last, id, x)       last(id, 1, x)
#define MAG_EACH_2(m, last, id, x, ...)  m(id, 2, x) MAG_EACH_1(m, last, id, __VA_ARGS__)
#define MAG_EACH_3(m, last, id, x, ...)  m(id, 3, x) MAG_EACH_2(m, last, id, __VA_ARGS__)
#define MAG_EACH_4(m, last, id, x, ...)  m(id, 4, x) MAG_EACH_3(m, last, id, __VA_ARGS__)
#define MAG_EACH_5(m, last, id, x, ...)  m(id, 5, x) MAG_EACH_4(m, last, id, __VA_ARGS__)
#define MAG_EACH_6(m, last, id, x, ...)  m(id, 6, x) MAG_EACH_5(m, last, id, __VA_ARGS__)
#define MAG_EACH_7(m, last, id, x, ...)  m(id, 7, x) MAG_EACH_6(m, last, id, __VA_ARGS__)
#define MAG_EACH_8(m, last, id, x, ...)  m(id, 8, x) MAG_EACH_7(m, last, id, __VA_ARGS__)
#define MAG_EACH_9(m, last, id, x, ...)  m(id, 9, x) MAG_EACH_8(m, last, id, __VA_ARGS__)
#define MAG_EACH_10(m, last, id, x, ...) m(id, 10, x) MAG_EACH_9(m, last, id, __VA_ARGS__)
#define MAG_EACH_11(m, last, id, x, ...) m(id, 11, x) MAG_EACH_10(m, last, id, __VA_ARGS__)
#define MAG_EACH_12(m, last, id, x, ...) m(id, 12, x) MAG_EACH_11(m, last, id, __VA_ARGS__)
#define MAG_EACH_13(m, last, id, x, ...) m(id, 13, x) MAG_EACH_12(m, last, id, __VA_ARGS__)
#define MAG_EACH_14(m, last, id, x, ...) m(id, 14, x) MAG_EACH_13(m, last, id, __VA_ARGS__)
#define MAG_EACH_15(m, last, id, x, ...) m(id, 15, x) MAG_EACH_14(m, last, id, __VA_ARGS__)
#define MAG_EACH_16(m, last, id, x, ...) m(id, 16, x) MAG_EACH_15(m, last, id, __VA_ARGS__)

/* 1 if x is something in parentheses and nothing else, 0 otherwise. */
#define MAG_IN_PARENS_(x)  MAG_IS_NONE_(MAG_NOTHING_ x)
#define MAG_IS_NONE_(...)  MAG_IS_NONE1_(__VA_ARGS__)
#define MAG_IS_NONE1_(...) MAG_FIRST_(__VA_OPT__(0,) 1)

/* ---- private: types --------------------------------------------------------------- */

/* The value of a coroutine that has none. */
struct mag_nothing {
};

/* What await sees in an int. */
struct mag_plain {
    int value;
};

/* The type of the result's place for a result type that may be void. */
#define MAG_PLACE_(T) \
    __typeof__(*__builtin_choose_expr(__builtin_types_compatible_p(T, void), \
                                      (struct mag_nothing *)0, (T *)0))

/* The value type of an awaitable, or int for an int. */
#define MAG_VALUE_(x) __typeof__(_Generic((x), int: (struct mag_plain *)0, default: (x))->value)

#define MAG_SAME_(T, U) __builtin_types_compatible_p(T, U)

#define MAG_SITE_(id) \
    static const struct mag_site mag_site_##id = { __FILE__, __LINE__, __func__ };

/* Frames of the core's coroutines as far as they are public: the value is first. */
struct mag_sleep_co {
    struct mag_nothing value;
};
struct mag_file_read_all_co {
    struct mag_str value;
};

/* await of what a plain function has returned; like mag_await. */
static inline int mag_await_plain_(int rc, void *out, size_t bytes)
{
    (void)bytes;
    if (out != NULL && rc >= 0)
        *(int *)out = rc;
    return rc;
}

/* An error that is handed to the user as a number ends its trace. */
static inline int mag_caught_(int rc, const struct mag_site *site)
{
    if (__builtin_expect(rc < 0, 0)) {
        mag_trace(rc, site);
        mag_trace_caught();
    }
    return rc;
}

/* ---- async ------------------------------------------------------------------------- */

/*
 * async(T, name, (type, arg)...) { body }
 *
 * Defines a coroutine function, at file scope and private to the file, as a static
 * function is.  T may be void.  name(args) makes an object and runs nothing; NULL:
 * out of memory, which its await reports as -ENOMEM.  The body returns 0 by
 * async_return(value) (or `return 0' for void) and raises an error by `return
 * -EIO'.  It runs when the object is awaited, spawned or gathered, once.
 */
#define async(T, name, ...) \
    MAG_DECLARE_(static __attribute__((unused)), T, name, __VA_ARGS__); \
    MAG_DEFINE_(static __attribute__((unused)), T, name, __VA_ARGS__)

/*
 * async_decl(T, name, (type, arg)...);       in a header
 * async_def(T, name, (type, arg)...) { }     in one file that includes it
 *
 * async for a coroutine that other files use too.
 */
#define async_decl(T, name, ...) MAG_DECLARE_(extern, T, name, __VA_ARGS__)
#define async_def(T, name, ...)  MAG_DEFINE_(, T, name, __VA_ARGS__)

/*
 * async_return(v) stores the result and returns 0; async_return() is for void.  The
 * value may be a compound literal with commas.
 */
#define async_return(...) \
    do { \
        __VA_OPT__(*mag_out_ = (__VA_ARGS__);) \
        return 0; \
    } while (0)

#define MAG_DECLARE_(linkage, T, name, ...) \
    struct name { \
        MAG_PLACE_(T) value; \
        struct { \
            MAG_EACH_(MAG_FIELD_, MAG_FIELD_, , __VA_ARGS__) \
        } args; \
    }; \
    linkage MAG_MUST_USE __attribute__((noinline)) struct name *name(MAG_PARAMS_(__VA_ARGS__))

#define MAG_DEFINE_(linkage, T, name, ...) \
    _Static_assert(MAG_SAME_(MAG_PLACE_(T), __typeof__(((struct name *)0)->value)), \
                   "async_def: result type differs from async_decl"); \
    MAG_BODY_ATTRIBUTES_ static int name##__body( \
        MAG_PLACE_(T) *mag_out_ __attribute__((unused)) \
            MAG_EACH_(MAG_MORE_PARAM_, MAG_MORE_PARAM_, , __VA_ARGS__)); \
    static int name##__thunk(void *frame, void *out) \
    { \
        struct name *mag_frame_ __attribute__((unused)) = (struct name *)frame; \
        return name##__body(out MAG_EACH_(MAG_MORE_ARG_, MAG_MORE_ARG_, , __VA_ARGS__)); \
    } \
    MAG_TYPE_(name, name##__thunk); \
    linkage struct name *name(MAG_PARAMS_(__VA_ARGS__)) \
    { \
        struct name *mag_frame_ = \
            (struct name *)mag_co_new(&name##__type, __builtin_return_address(0)); \
        if (mag_frame_ != NULL) { \
            __VA_OPT__(__typeof__(mag_frame_->args) mag_args_ = { \
                MAG_EACH_(MAG_INIT_, MAG_INIT_, , __VA_ARGS__) }; \
            __builtin_memcpy(&mag_frame_->args, &mag_args_, sizeof mag_args_);) \
        } \
        return mag_frame_; \
    } \
    static int name##__body( \
        MAG_PLACE_(T) *mag_out_ __attribute__((unused)) \
            MAG_EACH_(MAG_MORE_PARAM_, MAG_MORE_PARAM_, , __VA_ARGS__))

#define MAG_TYPE_(name, thunk) \
    static const struct mag_co_type name##__type = { \
        #name, \
        thunk, \
        sizeof(struct name), \
        __builtin_offsetof(struct name, value), \
        sizeof(((struct name *)0)->value), \
        0, \
        { __FILE__, __LINE__, #name } \
    }

/* A body keeps its name and is one function in profiles and backtraces. */
#ifdef __clang__
#define MAG_BODY_ATTRIBUTES_ __attribute__((noinline))
#else
#define MAG_BODY_ATTRIBUTES_ __attribute__((noipa))
#endif

#define MAG_FIELD_(id, k, pair)       MAG_FIELD1_ pair
#define MAG_FIELD1_(type, arg)        type arg;
#define MAG_PARAM_(id, k, pair)       MAG_PARAM1_ pair,
#define MAG_LAST_PARAM_(id, k, pair)  MAG_PARAM1_ pair
#define MAG_PARAM1_(type, arg)        type arg
#define MAG_MORE_PARAM_(id, k, pair)  , MAG_PARAM1_ pair
#define MAG_MORE_ARG_(id, k, pair)    , MAG_MORE_ARG1_ pair
#define MAG_MORE_ARG1_(type, arg)     mag_frame_->args.arg
#define MAG_INIT_(id, k, pair)        MAG_INIT1_ pair,
#define MAG_INIT1_(type, arg)         .arg = arg
#define MAG_PARAMS_(...) \
    MAG_EACH_(MAG_PARAM_, MAG_LAST_PARAM_, , __VA_ARGS__) MAG_FIRST_(__VA_OPT__(,) void)

/* ---- await ------------------------------------------------------------------------- */

/*
 * await(x)
 *
 * Waits for a coroutine (which runs in place), a task or a future; the value is its
 * result.  For the int of a plain function the value is that int.  An error (< 0)
 * returns from the enclosing function, after this place has been added to the
 * error's trace.  -ENOMEM for NULL, otherwise as mag_await.  Suspends; cancellation
 * point.
 */
#define await(x) MAG_CALL_(MAG_AWAIT_, __COUNTER__, x)
#define MAG_AWAIT_(id, x) \
    __extension__({ \
        __auto_type mag_x_##id = (x); \
        MAG_VALUE_(mag_x_##id) mag_value_##id; \
        int mag_rc_##id = _Generic(mag_x_##id, int: mag_await_plain_, default: mag_await)( \
            mag_x_##id, &mag_value_##id, sizeof mag_value_##id); \
        MAG_RAISE_(id) \
        mag_value_##id; \
    })

/* Leaves the enclosing function if mag_rc_<id> is an error. */
#define MAG_RAISE_(id) \
    if (__builtin_expect(mag_rc_##id < 0, 0)) { \
        MAG_SITE_(id) \
        return mag_trace(mag_rc_##id, &mag_site_##id); \
    }

/*
 * await_rc(x, &v)
 *
 * await without hidden control flow: the value is 0, the count of a plain function,
 * or the error, and the result goes to v (`NULL': dropped; untouched after an
 * error).  The error counts as caught: mag_trace_print still shows where it came
 * from, and the next error begins a new trace.  Suspends; cancellation point.
 */
#define await_rc(x, out) MAG_CALL_(MAG_AWAIT_RC_, __COUNTER__, x, out)
#define MAG_AWAIT_RC_(id, x, out) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_x_##id = (x); \
        MAG_VALUE_(mag_x_##id) *mag_out_##id = (out); \
        mag_caught_( \
            _Generic(mag_x_##id, int: mag_await_plain_, default: mag_await)( \
                mag_x_##id, mag_out_##id, sizeof(MAG_VALUE_(mag_x_##id))), \
            &mag_site_##id); \
    })

/* ---- spawn ------------------------------------------------------------------------- */

/*
 * spawn(co)
 *
 * Schedules a coroutine as a task that runs concurrently; the value is the same
 * pointer, still to be awaited, or detached, or else waited for by the runtime.
 * Where it cannot be started (outside a task, used before, NULL) its await says so.
 * Never suspends.
 *
 * spawn_opts(co, .name = "x", .pin = true)
 *
 * The same with fields of struct mag_spawn_options.
 */
#define spawn(co)           MAG_CALL_(MAG_SPAWN_, __COUNTER__, co)
#define spawn_opts(co, ...) MAG_CALL_(MAG_SPAWN_, __COUNTER__, co, __VA_ARGS__)
#define MAG_SPAWN_(id, co, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_co_##id = (co); \
        (void)sizeof(__typeof__(mag_co_##id->value) *); \
        (void)mag_start(mag_co_##id, &(struct mag_spawn_options){ \
                            .site = &mag_site_##id __VA_OPT__(, ) __VA_ARGS__ }); \
        mag_co_##id; \
    })

/* ---- gather ------------------------------------------------------------------------ */

/*
 * gather(results, a, b, ...)
 * gather(results, a, b, ..., (.limit = n, .rcs = rcs))
 *
 * Runs coroutines (or waits for tasks and futures) concurrently, and returns when
 * all have ended; results[i] is the i-th one's.  Their value types must be that of
 * `results', which is NULL where values are not wanted or void.  The first error
 * cancels the others and leaves the enclosing function, as from await; with .rcs
 * (an array, one for each) errors are stored there instead.  At most .limit run at a
 * time.  The options stand in parentheses at the end, and so a child that is the
 * last argument must not be an expression in parentheses.  -ENOMEM if one is NULL.
 * Suspends; cancellation point.
 *
 * gather_rc(...)
 *
 * The same; its value is 0 or the error, which counts as caught.
 */
#define gather(results, ...) \
    MAG_CALL_(MAG_GATHER_, __COUNTER__, MAG_LEAVE_, results, __VA_ARGS__)
#define gather_rc(results, ...) \
    MAG_CALL_(MAG_GATHER_, __COUNTER__, MAG_CATCH_, results, __VA_ARGS__)
#define MAG_GATHER_(id, then, results, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        MAG_EACH_(MAG_CHILD_, MAG_LAST_CHILD_, id, __VA_ARGS__) \
        void *mag_all_##id[] = { \
            MAG_EACH_(MAG_CHILD_NAME_, MAG_LAST_CHILD_NAME_, id, __VA_ARGS__) }; \
        MAG_RESULTS_(results) mag_results_##id = (results); \
        MAG_EACH_(MAG_CHILD_CHECK_, MAG_LAST_CHILD_CHECK_, id, __VA_ARGS__) \
        _Static_assert(MAG_ROOM_(results) + 1 > sizeof mag_all_##id / sizeof(void *) * \
                                                    sizeof *mag_results_##id, \
                       "gather: fewer results than coroutines"); \
        int mag_rc_##id = \
            mag_gather(mag_results_##id, sizeof *mag_results_##id, mag_all_##id, \
                       sizeof mag_all_##id / sizeof(void *), \
                       &(struct mag_gather_options){ .site = &mag_site_##id \
                           MAG_EACH_(MAG_NO_OPTIONS_, MAG_OPTIONS_, , __VA_ARGS__) }); \
        then(id); \
    })

/*
 * gather_n(results, coroutines, n, .limit = n, .rcs = rcs)
 *
 * gather for an array of n pointers of one type, which become NULL.
 */
#define gather_n(results, cos, n, ...) \
    MAG_CALL_(MAG_GATHER_N_, __COUNTER__, results, cos, n __VA_OPT__(, ) __VA_ARGS__)
#define MAG_GATHER_N_(id, results, cos, n, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_first_##id = &(cos)[0]; \
        MAG_RESULTS_(results) mag_results_##id = (results); \
        MAG_CHECK_(id, (*mag_first_##id)->value); \
        int mag_rc_##id = \
            mag_gather(mag_results_##id, sizeof *mag_results_##id, \
                       (void **)mag_first_##id, (n), \
                       &(struct mag_gather_options){ \
                           .site = &mag_site_##id __VA_OPT__(, ) __VA_ARGS__ }); \
        MAG_LEAVE_(id); \
    })

/* What a gather ends with: the error leaves, or is the value. */
#define MAG_LEAVE_(id) \
    if (__builtin_expect(mag_rc_##id < 0, 0)) { \
        return mag_trace(mag_rc_##id, &mag_site_##id); \
    } \
    (void)0
#define MAG_CATCH_(id) mag_caught_(mag_rc_##id, &mag_site_##id)

/* The type of a pointer to the results; NULL points to nothing. */
#define MAG_RESULTS_(r) \
    __typeof__(&_Generic((r), void *: (struct mag_nothing *)0, default: (r))[0])

/* How many bytes `r' is known to have: those of an array, no limit for a pointer. */
#define MAG_ROOM_(r) \
    __builtin_choose_expr(MAG_SAME_(__typeof__(r), MAG_RESULTS_(r)) || \
                              MAG_SAME_(__typeof__(r), void *) || \
                              !__builtin_constant_p(sizeof(r)), \
                          SIZE_MAX / 2, sizeof(r))

#define MAG_CHECK_(id, value) \
    _Static_assert(MAG_SAME_(__typeof__(*mag_results_##id), __typeof__(value)) || \
                       MAG_SAME_(__typeof__(*mag_results_##id), struct mag_nothing), \
                   "gather: result type differs")

/* Each child is evaluated once, in order, into a variable of its own type. */
#define MAG_CHILD_(id, k, x)            __auto_type mag_##k##_of_##id = (x);
#define MAG_CHILD_NAME_(id, k, x)       mag_##k##_of_##id,
#define MAG_CHILD_CHECK_(id, k, x)      MAG_CHECK_(id, mag_##k##_of_##id->value);
#define MAG_NO_OPTIONS_(id, k, x)
#define MAG_OPTIONS_IN_(id, k, x)       , MAG_INSIDE_ x

/*
 * The last argument is a child, or options if it is in parentheses.  Statement
 * expressions begin with __extension__ so that spawn(x) is not taken for options.
 */
#define MAG_LAST_(child, options, id, k, x) \
    MAG_CAT_(MAG_LAST_, MAG_IN_PARENS_(x))(child, options)(id, k, x)
#define MAG_LAST_0(child, options)      child
#define MAG_LAST_1(child, options)      options
#define MAG_LAST_CHILD_(id, k, x)       MAG_LAST_(MAG_CHILD_, MAG_NOTHING_, id, k, x)
#define MAG_LAST_CHILD_NAME_(id, k, x)  MAG_LAST_(MAG_CHILD_NAME_, MAG_NOTHING_, id, k, x)
#define MAG_LAST_CHILD_CHECK_(id, k, x) MAG_LAST_(MAG_CHILD_CHECK_, MAG_NOTHING_, id, k, x)
#define MAG_OPTIONS_(id, k, x)          MAG_LAST_(MAG_NOTHING_, MAG_OPTIONS_IN_, id, k, x)

/* ---- futures ------------------------------------------------------------------------- */

/*
 * async_future(T, name);
 *
 * Defines, at file scope, struct name and its constructor name(): a future, which
 * somebody sets, once, and somebody awaits, once; both must happen.  NULL: out of
 * memory.  T may be void.
 */
#define async_future(T, name) \
    struct name { \
        MAG_PLACE_(T) value; \
    }; \
    MAG_TYPE_(name, NULL); \
    static MAG_MUST_USE __attribute__((noinline, unused)) struct name *name(void) \
    { \
        return (struct name *)mag_future_new(&name##__type, __builtin_return_address(0)); \
    } \
    struct name

/*
 * future_set(f, v), or future_set(f) for void, sets the result and wakes who awaits
 * it; future_fail(f, rc) makes the await fail with rc (< 0).  The value is an rc, as
 * of mag_future_set.  Any thread; never suspends.
 */
#define future_set(f, ...) MAG_CALL_(MAG_FUTURE_SET_, __COUNTER__, f __VA_OPT__(, ) __VA_ARGS__)
#define MAG_FUTURE_SET_(id, f, ...) \
    __extension__({ \
        __auto_type mag_f_##id = (f); \
        __typeof__(mag_f_##id->value) mag_value_##id = MAG_FIRST_VALUE_(__VA_ARGS__); \
        mag_future_set(mag_f_##id, &mag_value_##id, sizeof mag_value_##id); \
    })
#define MAG_FIRST_VALUE_(...) MAG_CAT_(MAG_SET_, MAG_IS_NONE_(__VA_ARGS__))(__VA_ARGS__)
#define MAG_SET_0(...)        (__VA_ARGS__)
#define MAG_SET_1(...)        { }

#define future_fail(f, rc) MAG_CALL_(MAG_FUTURE_FAIL_, __COUNTER__, f, rc)
#define MAG_FUTURE_FAIL_(id, f, rc) \
    __extension__({ \
        __auto_type mag_f_##id = (f); \
        (void)sizeof(__typeof__(mag_f_##id->value) *); \
        mag_future_fail(mag_f_##id, (rc)); \
    })

/* ---- async with ------------------------------------------------------------------------ */

/*
 * async_resource(name)
 *
 * Makes struct name usable in async_with.  Before it must stand
 *
 *      int  name_enter(struct name *r, args...);   < 0: nothing to exit from
 *      void name_exit(struct name *r);
 *
 * Both may suspend.
 */
#define async_resource(name) \
    struct name##__scope { \
        struct name object; \
        int         is_entered; \
    }; \
    static inline __attribute__((unused)) void name##__leave(struct name##__scope *scope) \
    { \
        if (scope->is_entered) \
            name##_exit(&scope->object); \
    }

/*
 * async_with(name, var, args...) { ... }
 *
 * Calls name_enter(var, args...) on a zeroed struct name in the current frame, runs
 * the block with `struct name *var', and calls name_exit(var) on every way out: the
 * end, break (which leaves the block, as continue does), return, goto, an error that
 * an await in it passes on.  If name_enter fails, the error leaves the enclosing
 * function as from await.  A cancellation point if name_enter is one.  It contains
 * an else: as the body of an if it needs braces around it.
 */
#define async_with(name, var, ...) \
    MAG_CALL_(MAG_WITH_, __COUNTER__, name, var __VA_OPT__(, ) __VA_ARGS__)
#define MAG_WITH_(id, name, var, ...) \
    for (struct name##__scope mag_scope_##id __attribute__((cleanup(name##__leave))) = \
             { .is_entered = 0 }; ; ({ goto mag_left_##id; })) \
        if (0) { \
            mag_left_##id: \
            break; \
        } else \
            for (struct name *var = ({ \
                     int mag_rc_##id = \
                         name##_enter(&mag_scope_##id.object __VA_OPT__(, ) __VA_ARGS__); \
                     MAG_RAISE_(id) \
                     mag_scope_##id.is_entered = 1; \
                     &mag_scope_##id.object; \
                 }); ; ({ goto mag_done_##id; })) \
                if (0) { \
                    (void)var; \
                    mag_done_##id: \
                    break; \
                } else

/* async_with(mag_file, f, path, mode) */
async_resource(mag_file)

#endif
