/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_ASYNC_H
#define MAGPIE_ASYNC_H
/*
 * async.h - the keywords: async, await, gather, async_with, async_for, task_group, ...
 * (GNU C, opt-in)
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
 * attributes and the blocks below run; there is no setjmp.  So these words may stand in a
 * coroutine's body and in any C function that returns int.
 *
 * Words that open a block (async_with, async_for, task_group, with_timeout, timeout_at,
 * with_shield) are loops to the compiler: in them break leaves the block, and so does
 * continue, except in async_for, where it goes on with the next item.  They contain an
 * else: as the body of an if they need braces around them.  Each does what belongs to its
 * end on every way out: the closing brace, break, continue, return, goto, an error that a
 * word in it passes on.
 *
 * Who explains an error: where a word passes -ECANCELED on because a with_timeout or a
 * task_group that was opened in this very function has fired, the function returns that
 * one's reason instead: -ETIMEDOUT, or the first error of a child.
 *
 * Raw words: async, await, await_rc, async_return, async_decl, async_def, spawn,
 * spawn_opts, gather, gather_rc, gather_n, async_future, future_set, future_fail,
 * async_with, async_resource, async_gen, yield, async_for, async_iter, anext, task_group,
 * group_spawn, group_task, with_timeout, timeout_at, with_shield, wait_for, as_completed,
 * race, async_queue, queue_put, queue_get, queue_put_rc, queue_get_rc, queue_items.
 * Everything else begins with mag_ or MAG_.
 *
 * The HTTP client of the tutorial is in <magpie/http_client.h>, a library of its own.
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
    MAG_FUNCTION_(linkage, name, value, mag_co_new, MAG_PLACE_(T) *mag_out_, __VA_ARGS__)

/* The body, what calls it, and the constructor, which gets its object from `make'. */
#define MAG_FUNCTION_(linkage, name, place, make, out_param, ...) \
    MAG_BODY_ATTRIBUTES_ static int name##__body( \
        out_param __attribute__((unused)) MAG_EACH_(MAG_MORE_PARAM_, MAG_MORE_PARAM_, , __VA_ARGS__)); \
    static int name##__thunk(void *frame, void *out) \
    { \
        struct name *mag_frame_ __attribute__((unused)) = (struct name *)frame; \
        return name##__body(out MAG_EACH_(MAG_MORE_ARG_, MAG_MORE_ARG_, , __VA_ARGS__)); \
    } \
    MAG_TYPE_(name, name##__thunk, place); \
    linkage struct name *name(MAG_PARAMS_(__VA_ARGS__)) \
    { \
        struct name *mag_frame_ = \
            (struct name *)make(&name##__type, __builtin_return_address(0)); \
        if (mag_frame_ != NULL) { \
            __VA_OPT__(__typeof__(mag_frame_->args) mag_args_ = { \
                MAG_EACH_(MAG_INIT_, MAG_INIT_, , __VA_ARGS__) }; \
            __builtin_memcpy(&mag_frame_->args, &mag_args_, sizeof mag_args_);) \
        } \
        return mag_frame_; \
    } \
    static int name##__body( \
        out_param __attribute__((unused)) MAG_EACH_(MAG_MORE_PARAM_, MAG_MORE_PARAM_, , __VA_ARGS__))

#define MAG_TYPE_(name, thunk, place) \
    static const struct mag_co_type name##__type = { \
        #name, \
        thunk, \
        sizeof(struct name), \
        __builtin_offsetof(struct name, place), \
        sizeof(((struct name *)0)->place), \
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
 * error's trace (mag_raise).  -ENOMEM for NULL, otherwise as mag_await.  Suspends; cancellation
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
        return mag_raise(mag_rc_##id, &mag_site_##id); \
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
        return mag_raise(mag_rc_##id, &mag_site_##id); \
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
    MAG_TYPE_(name, NULL, value); \
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
 * async_resource(name, .grace = 5 * MAG_SECOND)
 *
 * Makes struct name usable in async_with.  Before it must stand
 *
 *      int  name_enter(struct name *r, args...);   < 0: nothing to exit from
 *      void name_exit(struct name *r);
 *
 * Both may suspend.  Cancellation and deadlines do not reach name_exit; with .grace they
 * do after that time.
 */
#define async_resource(name, ...) \
    struct name##__scope { \
        struct name object; \
        int         is_entered; \
    }; \
    static inline __attribute__((unused)) void name##__leave(struct name##__scope *scope) \
    { \
        static const struct mag_resource_options options = { __VA_ARGS__ }; \
        struct mag_scope shield; \
        int              is_shielded; \
        if (!scope->is_entered) \
            return; \
        is_shielded = mag_shield_enter_(&shield, options.grace); \
        name##_exit(&scope->object); \
        if (is_shielded) \
            mag_scope_leave(&shield, 0); \
    }

struct mag_resource_options {
    mag_time grace; /* 0: for ever */
};

/* Whether there is a task, and so something to shield from. */
static inline int mag_shield_enter_(struct mag_scope *shield, mag_time grace)
{
    return mag_self() != NULL && mag_shield_enter(shield, grace ? grace : MAG_NEVER, NULL) == 0;
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

/* async_with(mag_temp_file, t, prefix or NULL); async_with(mag_temp_dir, d, prefix or NULL);
 * async_with(mag_replacing, r, path, mode) { ... await(mag_replacing_commit(r)); } */
async_resource(mag_temp_file)
async_resource(mag_temp_dir)
async_resource(mag_replacing)

/* async_with(mag_process, p, &options); async_with(mag_signals, s, MAG_SIGNAL(SIGHUP)) */
async_resource(mag_process)
async_resource(mag_signals)

/* async_with(mag_stream, s, host, port).  A task that is cancelled sends nothing more at the end:
 * hence the grace, which is over at once. */
async_resource(mag_stream, .grace = 1)

/* async_with(mag_udp, u, host, port) */
async_resource(mag_udp)

/* async_with(mag_exit_stack, st) { mag_exit_stack_push(st, fn, arg); } */
async_resource(mag_exit_stack)

/* ---- timeouts and shields ---------------------------------------------------------------- */

/*
 * with_timeout (duration) { ... }
 * with_timeout (duration, &scope) { ... }
 *
 * Every suspension in the block, in whatever it calls too, ends with -ECANCELED once the
 * duration is over; where a word passes that on out of this function, it is -ETIMEDOUT.  (One
 * that is caught in the block is -ECANCELED; and the block that then comes to its end has not
 * failed.)  A result that has come is never replaced.  With a struct mag_scope of the
 * caller's, which must outlive the block, mag_scope_reschedule(&scope, deadline),
 * mag_scope_when and, also afterwards, mag_scope_expired can be asked.  -EINVAL for a negative
 * duration, -ENXIO outside a task: these leave the function.  Never suspends itself.
 *
 * timeout_at (deadline) { ... }
 * timeout_at (deadline, &scope) { ... }
 *
 * The same with a point in time; one in the past fires at once.
 */
#define with_timeout(...) MAG_CALL_(MAG_SCOPE_, __COUNTER__, mag_timeout_enter, __VA_ARGS__)
#define timeout_at(...)   MAG_CALL_(MAG_SCOPE_, __COUNTER__, mag_scope_enter, __VA_ARGS__)

/*
 * with_shield (grace) { ... }
 *
 * Cancellation and deadlines from outside are not seen in the block, until it has lasted for
 * `grace' (MAG_NEVER: for ever).  For cleanups; what is to go on after the caller has gone is
 * a task, and mag_shield waits for that.  Errors as with_timeout.  Never suspends itself.
 */
#define with_shield(...) MAG_CALL_(MAG_SCOPE_, __COUNTER__, mag_shield_enter, __VA_ARGS__)

#define MAG_SCOPE_(id, enter, time, ...) \
    for (struct mag_scope mag_own_##id, \
             *mag_in_##id __attribute__((cleanup(mag_scope_left_))) = NULL, \
             *mag_at_##id = ({ \
                 struct mag_scope *mag_use_##id = \
                     MAG_FIRST_(__VA_ARGS__ __VA_OPT__(,) &mag_own_##id); \
                 MAG_SITE_(id) \
                 int mag_rc_##id = enter(mag_use_##id, (time), &mag_site_##id); \
                 MAG_LEAVE_(id); \
                 mag_in_##id = mag_use_##id; \
             }); ; ({ goto mag_left_##id; })) \
        if (0) { \
            (void)&mag_own_##id; \
            (void)mag_at_##id; \
            mag_left_##id: \
            break; \
        } else


static inline void mag_scope_left_(struct mag_scope **in)
{
    if (*in != NULL)
        mag_scope_leave(*in, 0);
}

/*
 * wait_for(x, timeout, &v)
 *
 * await_rc with a limit: after `timeout' a coroutine, task or future is cancelled and waited
 * for, and the value is -ETIMEDOUT, unless it has a result all the same.  Errors as
 * mag_wait_for; they count as caught.  Suspends; cancellation point.
 */
#define wait_for(x, timeout, out) MAG_CALL_(MAG_WAIT_FOR_, __COUNTER__, x, timeout, out)
#define MAG_WAIT_FOR_(id, x, timeout, out) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_x_##id = (x); \
        __typeof__(mag_x_##id->value) *mag_out_##id = (out); \
        mag_caught_(mag_wait_for(mag_x_##id, (timeout), mag_out_##id, sizeof *mag_out_##id), \
                    &mag_site_##id); \
    })

/* ---- task groups -------------------------------------------------------------------------- */

/*
 * task_group (g) { ... }
 * task_group (g, .limit = 10, .errors = &errors) { ... }
 *
 * Tasks that do not outlive the block: `struct mag_group *g'.  At its end (and by continue) it
 * waits for all of them, and their first error leaves the enclosing function.  An error that
 * leaves the block, return and goto cancel them and wait for them; so does break, which then
 * goes on after the block, without an error.  The first child that fails cancels the others
 * and the block.  mag_group_cancel(g) does that without an error: the block's end is then
 * no error, but a word in it that passes the -ECANCELED on is, so use await_rc there.
 * Options and errors are those of mag_group_enter.  Suspends at the end; no cancellation
 * point: the children are.
 */
#define task_group(...) MAG_CALL_(MAG_GROUP_, __COUNTER__, __VA_ARGS__)
#define MAG_GROUP_(id, g, ...) \
    for (struct mag_group mag_group_##id, \
             *mag_in_##id __attribute__((cleanup(mag_group_left_))) = NULL, \
             *g = ({ \
                 MAG_SITE_(id) \
                 int mag_rc_##id = mag_group_enter(&mag_group_##id, &(struct mag_group_options){ \
                     .site = &mag_site_##id __VA_OPT__(, ) __VA_ARGS__ }); \
                 MAG_LEAVE_(id); \
                 mag_in_##id = &mag_group_##id; \
             }); ; ({ \
                 mag_in_##id = NULL; \
                 int mag_rc_##id = mag_group_leave(&mag_group_##id, 0); \
                 MAG_RAISE_(id) \
                 goto mag_left_##id; \
             })) \
        if (0) { \
            (void)g; \
            mag_left_##id: \
            break; \
        } else

/* Left before its end. */
static inline void mag_group_left_(struct mag_group **in)
{
    if (*in != NULL)
        mag_group_leave(*in, -ECANCELED);
}

/*
 * group_spawn(g, co)
 * group_spawn(g, co, &v)
 *
 * Starts a coroutine in the group of the pointer g; its result goes to v, which may be read
 * after the block.  What mag_group_spawn refuses leaves the enclosing function.  Suspends,
 * and is a cancellation point, only in a group with a limit.
 *
 * group_task(g, co)
 *
 * The same; the value is the same pointer, a task that may be awaited, once, in the block or
 * by another child.
 */
#define group_spawn(...) MAG_CALL_(MAG_GROUP_SPAWN_, __COUNTER__, __VA_ARGS__)
#define MAG_GROUP_SPAWN_(id, g, co, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_co_##id = (co); \
        __typeof__(mag_co_##id->value) *mag_out_##id = \
            MAG_FIRST_(__VA_ARGS__ __VA_OPT__(,) NULL); \
        int mag_rc_##id = mag_group_spawn((g), mag_co_##id, mag_out_##id, \
                                          &(struct mag_spawn_options){ .site = &mag_site_##id }); \
        MAG_LEAVE_(id); \
    })

#define group_task(g, co) MAG_CALL_(MAG_GROUP_TASK_, __COUNTER__, g, co)
#define MAG_GROUP_TASK_(id, g, co) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_co_##id = (co); \
        (void)sizeof(__typeof__(mag_co_##id->value) *); \
        int mag_rc_##id = mag_group_task((g), mag_co_##id, \
                                         &(struct mag_spawn_options){ .site = &mag_site_##id }); \
        MAG_LEAVE_(id); \
        mag_co_##id; \
    })

/* ---- generators and iterators -------------------------------------------------------------- */

/*
 * async_gen(T, name, (type, arg)...) { body }
 *
 * Defines a generator function, at file scope and private to the file: name(args) makes one
 * and runs nothing; async_for iterates it.  Its body hands its items out by yield(v), ends by
 * `return 0', and raises an error by `return -EIO'.  It runs on a stack of its own, on its
 * consumer's behalf (iter.h).  T is not void.
 */
#define async_gen(T, name, ...) \
    struct name { \
        struct mag_gen gen; \
        MAG_ITEMS_(T) \
        T item; \
        struct { \
            MAG_EACH_(MAG_FIELD_, MAG_FIELD_, , __VA_ARGS__) \
        } args; \
    }; \
    static __attribute__((unused, noinline)) MAG_MUST_USE struct name *name( \
        MAG_PARAMS_(__VA_ARGS__)); \
    MAG_FUNCTION_(static __attribute__((unused)), name, item, mag_gen_new, \
                  T *yield_stands_only_in_async_gen, __VA_ARGS__)

/*
 * yield(v)
 *
 * Hands v to the consumer, and goes on when that asks for more.  When the generator is closed
 * instead, or cancelled, it leaves the body with -ECANCELED, so that cleanups run.  In the
 * body of an async_gen only; a function that it calls may use mag_yield_value.  Suspends;
 * cancellation point.
 */
#define yield(...) MAG_CALL_(MAG_YIELD_, __COUNTER__, __VA_ARGS__)
#define MAG_YIELD_(id, ...) \
    __extension__({ \
        __typeof__(*yield_stands_only_in_async_gen) mag_item_##id = (__VA_ARGS__); \
        int mag_rc_##id = mag_yield_value(&mag_item_##id, sizeof mag_item_##id); \
        MAG_RAISE_(id) \
        (void)0; \
    })

/*
 * async_for(T, v, iterable) { ... }
 *
 * Runs the block with each item in `T v'.  Iterables are: a generator, a struct mag_iter,
 * and what async_iter, as_completed and queue_items give.  T must be the type of the items (of a
 * struct mag_iter it is not known).  Takes the iterable: it is closed where the loop is left, in
 * whatever way, before what comes after the loop runs.  An error of the iterator leaves the
 * enclosing function as from await.  break leaves the loop, continue goes on with the next
 * item.  Suspends, and is a cancellation point, if the iterator is.
 */
#define async_for(T, v, ...) MAG_CALL_(MAG_FOR_, __COUNTER__, T, v, __VA_ARGS__)
#define MAG_FOR_(id, T, v, ...) \
    for (__auto_type mag_from_##id = (__VA_ARGS__); ; ({ goto mag_left_##id; })) \
        if (0) { \
            mag_left_##id: \
            break; \
        } else \
            for (struct mag_iter mag_iter_##id __attribute__((cleanup(mag_iter_close))) = \
                     MAG_ITER_(mag_from_##id); ; ({ goto mag_done_##id; })) \
                if (0) { \
                    mag_done_##id: \
                    break; \
                } else \
                    for (T v; ({ \
                             _Static_assert(MAG_YIELDS_(T, mag_from_##id), \
                                            "async_for: the items have another type"); \
                             int mag_rc_##id = \
                                 mag_iter_##id.next(mag_iter_##id.self, &v); \
                             MAG_RAISE_(id) \
                             mag_rc_##id; \
                         }); )

/*
 * async_iter(next, self)
 *
 * An iterable of a function, int next(S *self, T *out), which returns 1 and an item, 0 at the
 * end, or an error, and what it works on, a pointer.  Nothing is closed.
 */
#define async_iter(next, ...) \
    ((struct { \
        struct mag_iter iter; \
        __typeof__(&*(next)) mag_each[0]; \
        __typeof__(1 ? (__VA_ARGS__) : (__VA_ARGS__)) mag_self[0]; \
    }){ .iter = { (int (*)(void *, void *))(next), NULL, (void *)(__VA_ARGS__) } })

/*
 * anext(iterable, &v)
 *
 * The next item of a generator or a struct mag_iter that is in a variable: 1, and v is it; 0
 * at the end; or the error.  Its owner closes it, by mag_gen_close or mag_iter_close.  Suspends,
 * and is a cancellation point, if the iterator is.
 */
#define anext(iterable, out) MAG_CALL_(MAG_ANEXT_, __COUNTER__, iterable, out)
#define MAG_ANEXT_(id, iterable, out) \
    __extension__({ \
        __auto_type mag_out_##id = (out); \
        _Static_assert(MAG_YIELDS_(__typeof__(*mag_out_##id), iterable), \
                       "anext: the items have another type"); \
        __builtin_choose_expr(MAG_IS_POINTER_(iterable), mag_gen_next, mag_iter_next_)( \
            MAG_OBJECT_(iterable), mag_out_##id); \
    })

/*
 * What is known of an iterable: a pointer is a generator, everything else a struct that
 * begins with a struct mag_iter; and both have two members without bytes, which say what its
 * next function would look like.
 */
#define MAG_ITEMS_(T) \
    int (*mag_each[0])(void *self, T *item); \
    void *mag_self[0];

struct mag_any_items {
    MAG_ITEMS_(void)
};

#define MAG_IS_POINTER_(x) (__builtin_classify_type(x) == 5)
#define MAG_OBJECT_(x)     __builtin_choose_expr(MAG_IS_POINTER_(x), (x), &(x))
#define MAG_ITER_(x) \
    __builtin_choose_expr(MAG_IS_POINTER_(x), mag_gen_iter, mag_iter_at_)(MAG_OBJECT_(x))

#define MAG_YIELDS_(T, x) MAG_YIELDS1_(T, MAG_NEXT_(x)->mag_each[0], MAG_NEXT_(x)->mag_self[0])
#define MAG_NEXT_(x) \
    _Generic((x), struct mag_iter: (struct mag_any_items *)0, default: MAG_OBJECT_(x))
#define MAG_YIELDS1_(T, next, self) \
    (MAG_SAME_(__typeof__(next), int (*)(__typeof__(self), T *)) || \
     MAG_SAME_(__typeof__(next), int (*)(void *, T *)) || \
     MAG_SAME_(__typeof__(next), int (*)(void *, void *)))

/* iter.self of a struct that is what its next function works on, wherever it is. */
#define MAG_ITSELF_ ((void *)-1)

static inline struct mag_iter mag_iter_at_(void *object)
{
    struct mag_iter it = *(struct mag_iter *)object;

    if (it.self == MAG_ITSELF_)
        it.self = object;
    return it;
}

static inline int mag_iter_next_(void *object, void *out)
{
    struct mag_iter it = mag_iter_at_(object);

    return mag_iter_next(&it, out);
}

/* ---- several tasks --------------------------------------------------------------------------- */

/*
 * as_completed(tasks, n)
 *
 * An iterable of the n typed pointers of an array, in the order in which the tasks end;
 * each is still to be awaited.  Coroutines among them are started.  Those that a loop which is
 * left early has not come to go on, and are the caller's.  Errors as of mag_completed_begin come
 * out of the loop.
 */
#define as_completed(tasks, n) \
    ((struct { \
        struct mag_completed_iter iter; \
        MAG_ITEMS_(__typeof__(1 ? (tasks)[0] : (tasks)[0])) \
    }){ .iter = mag_completed_iter_((void *const *)&(tasks)[0], (n)) })

struct mag_completed_iter {
    struct mag_iter iter;
    struct mag_completed completed;
};

static inline int mag_completed_next_(void *self, void *out)
{
    return mag_completed_next(&((struct mag_completed_iter *)self)->completed, (void **)out);
}

static inline void mag_completed_close_(void *self)
{
    mag_completed_end(&((struct mag_completed_iter *)self)->completed);
}

/* An error of begin is repeated by next. */
static inline struct mag_completed_iter mag_completed_iter_(void *const *tasks, size_t n)
{
    struct mag_completed_iter it = { .iter = { mag_completed_next_, mag_completed_close_,
                                               MAG_ITSELF_ } };

    mag_completed_begin(&it.completed, tasks, n);
    return it;
}

/*
 * race(&v, a, b, ...)
 *
 * Runs all, which must have one type of result: that of the first that ends well goes to v
 * (NULL: dropped), the others are cancelled and waited for.  The value is the winner's
 * index.  If all fail, the first error leaves the enclosing function.  Suspends; cancellation
 * point.
 */
#define race(result, ...) MAG_CALL_(MAG_RACE_, __COUNTER__, result, __VA_ARGS__)
#define MAG_RACE_(id, result, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        MAG_EACH_(MAG_CHILD_, MAG_CHILD_, id, __VA_ARGS__) \
        void *mag_all_##id[] = { MAG_EACH_(MAG_CHILD_NAME_, MAG_CHILD_NAME_, id, __VA_ARGS__) }; \
        MAG_RESULTS_(result) mag_results_##id = (result); \
        MAG_EACH_(MAG_RACER_CHECK_, MAG_RACER_CHECK_, id, __VA_ARGS__) \
        size_t mag_winner_##id = 0; \
        int mag_rc_##id = mag_race(mag_results_##id, sizeof mag_1_of_##id->value, mag_all_##id, \
                                   sizeof mag_all_##id / sizeof(void *), &mag_winner_##id); \
        MAG_LEAVE_(id); \
        mag_winner_##id; \
    })
#define MAG_RACER_CHECK_(id, k, x) \
    _Static_assert(MAG_SAME_(__typeof__(mag_##k##_of_##id->value), \
                             __typeof__(mag_1_of_##id->value)) && \
                       (MAG_SAME_(__typeof__(*mag_results_##id), \
                                  __typeof__(mag_##k##_of_##id->value)) || \
                        MAG_SAME_(__typeof__(*mag_results_##id), struct mag_nothing)), \
                   "race: result type differs");

/* ---- queues ---------------------------------------------------------------------------------- */

/*
 * async_queue(T, name);
 *
 * Defines, at file scope, struct name, a typed reference to a queue (queue.h), and
 *
 *      struct name name(size_t capacity, const struct mag_queue_options *options);
 *
 * which makes one as mag_queue_new does; options may be NULL.  Its member `queue' is the
 * struct mag_queue, for the functions of queue.h (mag_queue_free among them), and NULL if it
 * could not be made: then everything answers -EINVAL.
 */
#define async_queue(T, name) \
    struct name { \
        struct mag_queue *queue; \
        MAG_ITEMS_(T) \
        T *item[0]; \
    }; \
    static MAG_MUST_USE __attribute__((unused)) struct name name( \
        size_t capacity, const struct mag_queue_options *options) \
    { \
        struct name q = { .queue = NULL }; \
        (void)mag_queue_new(&q.queue, sizeof(T), capacity, options); \
        return q; \
    } \
    struct name

/*
 * queue_put(q, v)          puts an item; waits while the queue is full
 * queue_get(q)             its value is an item; waits while the queue is empty
 * queue_put_rc(q, v)       the same, and the value is 0 or the error, which counts as
 * queue_get_rc(q, &v)      caught
 *
 * q is a struct of async_queue.  Errors are those of mag_queue_put and mag_queue_get: -EPIPE
 * after a shutdown.  Suspend; cancellation points.
 */
#define queue_put(q, ...)    MAG_CALL_(MAG_PUT_, __COUNTER__, MAG_LEAVE_, q, __VA_ARGS__)
#define queue_put_rc(q, ...) MAG_CALL_(MAG_PUT_, __COUNTER__, MAG_CATCH_, q, __VA_ARGS__)
#define MAG_PUT_(id, then, q, ...) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_q_##id = (q); \
        __typeof__(*mag_q_##id.item[0]) mag_item_##id = (__VA_ARGS__); \
        int mag_rc_##id = mag_queue_put(mag_q_##id.queue, &mag_item_##id); \
        then(id); \
    })

#define queue_get(q) MAG_CALL_(MAG_GET_, __COUNTER__, q)
#define MAG_GET_(id, q) \
    __extension__({ \
        __auto_type mag_q_##id = (q); \
        __typeof__(*mag_q_##id.item[0]) mag_item_##id; \
        int mag_rc_##id = mag_queue_get(mag_q_##id.queue, &mag_item_##id); \
        MAG_RAISE_(id) \
        mag_item_##id; \
    })

#define queue_get_rc(q, out) MAG_CALL_(MAG_GET_RC_, __COUNTER__, q, out)
#define MAG_GET_RC_(id, q, out) \
    __extension__({ \
        MAG_SITE_(id) \
        __auto_type mag_q_##id = (q); \
        __typeof__(*mag_q_##id.item[0]) *mag_item_##id = (out); \
        mag_caught_(mag_queue_get(mag_q_##id.queue, mag_item_##id), &mag_site_##id); \
    })

/*
 * queue_items(q)
 *
 * An iterable of what comes out of a queue, until it has been shut down and is empty.
 */
#define queue_items(q) \
    ((struct { \
        struct mag_iter iter; \
        MAG_ITEMS_(__typeof__(*(q).item[0])) \
    }){ .iter = { mag_queue_items_next_, NULL, (q).queue } })

static inline int mag_queue_items_next_(void *self, void *out)
{
    int rc = mag_queue_get((struct mag_queue *)self, out);

    return rc == -EPIPE ? 0 : rc < 0 ? rc : 1;
}

#endif
