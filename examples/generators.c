/* SPDX-License-Identifier: MIT */
/*
 * generators.c - items one by one: generators, iterators, and what closes them
 *
 *      generators [DIRECTORY]      the file names under it, in order, until it is bored
 *
 * A program in four steps, each of which takes its items from the one before and asks for no
 * more than it needs:
 *
 *      walk: entries of a tree -> files: the regular ones -> numbered -> the loop that prints
 *
 * When the loop has seen enough it breaks, and all of them are closed there and then, the
 * directory included.
 */
#include <magpie/async.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- a generator over a resource ------------------------------------------------------ */

/* The walk as a resource: async_with closes it on every way out. */
struct tree {
    struct mag_walk *walk;
};

static int tree_enter(struct tree *t, const char *path)
{
    return mag_walk_open(&t->walk, path);
}

static void tree_exit(struct tree *t)
{
    mag_walk_close(t->walk);
    puts("(the directory is closed)");
}

async_resource(tree, .grace = 5 * MAG_SECOND)

async_gen(struct mag_walk_entry, walk, (const char *, path))
{
    async_with(tree, t, path) {
        struct mag_walk_entry e;
        while (await(mag_walk_next(t->walk, &e)) > 0) {
            await(e.rc); /* what cannot be read is an error, which comes out of the loop */
            yield(e);    /* valid until the next one is asked for                        */
        }
    }
    return 0;
}

/* ---- generators of generators ------------------------------------------------------------ */

async_gen(const char *, files, (const char *, path))
{
    async_for(struct mag_walk_entry, e, walk(path)) {
        if (S_ISREG(e.mode))
            yield(e.path);
    }
    return 0;
}

struct line {
    int number;
    const char *text;
};

async_gen(struct line, numbered, (const char *, path))
{
    int n = 0;

    async_for(const char *, name, files(path))
        yield((struct line){ ++n, name });
    return 0;
}

async(int, shows, (const char *, path), (int, most))
{
    int n = 0;

    async_for(struct line, l, numbered(path)) {
        printf("%3d %s\n", l.number, l.text);
        n = l.number;
        if (n == most)
            break;
    }
    async_return(n);
}

/* ---- yield from a function ------------------------------------------------------------------ */

/* A recursion that hands out the moves of the towers of Hanoi; it needs no generator of its
 * own, since a function that the body calls may yield on its behalf. */
struct move {
    char from, to;
};

static int hanoi_moves(int n, char from, char to, char by)
{
    struct move m = { from, to };

    if (n == 0)
        return 0;
    await(hanoi_moves(n - 1, from, by, to));
    await(mag_yield_value(&m, sizeof m));
    return hanoi_moves(n - 1, by, to, from);
}

async_gen(struct move, hanoi, (int, n))
{
    return hanoi_moves(n, 'A', 'C', 'B');
}

async(void, towers)
{
    int n = 0;

    async_for(struct move, m, hanoi(3))
        printf("%c%c ", m.from, m.to);
    puts("");
    async_for(struct move, m, hanoi(20)) { /* a million moves, of which one is wanted */
        if (++n < 1000)
            continue;
        printf("the %dth move: %c to %c\n", n, m.from, m.to);
        break;
    }
    return 0;
}

/* ---- by hand ---------------------------------------------------------------------------------- */

/* Two generators in step: zip(). */
async_gen(int, count)
{
    for (int i = 1;; i++)
        yield(i);
}

async(void, in_step)
{
    struct count *numbers = count();
    struct hanoi *moves = hanoi(2);
    struct move m;
    int i;

    while (await(anext(moves, &m)) > 0 && await(anext(numbers, &i)) > 0)
        printf("%d: %c%c\n", i, m.from, m.to);
    await(mag_gen_close(numbers)); /* it would go on for ever */
    return mag_gen_close(moves);
}

/* An iterator of plain functions, for who has no keywords. */
struct words {
    char *text, *at;
};

static int words_next(void *self, void *out)
{
    struct words *w = self;
    char *word = strsep(&w->at, " ");

    *(char **)out = word;
    return word != NULL;
}

static void words_close(void *self)
{
    struct words *w = self;

    free(w->text);
}

static struct mag_iter words(struct words *w, const char *text)
{
    w->text = w->at = strdup(text);
    return (struct mag_iter){ words_next, words_close, w };
}

async(void, plain)
{
    struct words w;
    struct mag_iter it = words(&w, "plain functions do it too"), twice;
    char *word;

    await(mag_iter_next(&it, &word));
    printf("%s:", word);
    async_for(char *, rest, it) /* takes it over, and closes it */
        printf(" %s", rest);
    puts("");

    twice = mag_gen_iter(hanoi(1)); /* a generator where an iterator is wanted */
    struct move m;
    await(mag_iter_next(&twice, &m));
    mag_iter_close(&twice);
    it = mag_iter_of(words_next, &(struct words){ .at = (char[]){ "nothing to close" } });
    async_for(char *, next, it)
        printf("%s. ", next);
    puts("");
    return 0;
}

/* A generator without keywords: a type, and a frame that begins with a struct mag_gen. */
struct squares {
    struct mag_gen gen;
    long n, item;
};

static int squares_body(void *frame, void *item)
{
    struct squares *s = frame;
    int rc = 0;

    (void)item;
    for (long i = 1; i <= s->n && rc == 0; i++)
        rc = mag_yield_value(&(long){ i * i }, sizeof(long));
    return rc;
}

static const struct mag_co_type squares_type = {
    .name = "squares",
    .body = squares_body,
    .frame_bytes = sizeof(struct squares),
    .result_offset = offsetof(struct squares, item),
    .result_bytes = sizeof(long),
};

async(void, without_keywords)
{
    struct squares *s = mag_gen_new(&squares_type, __builtin_return_address(0));
    long v;
    int rc;

    if (s == NULL)
        return -ENOMEM;
    s->n = 5;
    while ((rc = mag_gen_next(s, &v)) > 0)
        printf("%ld ", v);
    puts("");
    mag_gen_close(s);
    return rc;
}

/* ---- as many resources as it takes ---------------------------------------------------------------- */

static void puts_of(void *text)
{
    puts(text);
}

/* All are undone in reverse if one fails; kept, and undone later, if none does. */
static int acquire(int n, struct mag_exit_stack *kept)
{
    static char *const names[] = { "release a", "release b", "release c" };

    async_with(mag_exit_stack, st) {
        for (int i = 0; i < n; i++) {
            if (i == 2)
                return -ENOSPC;
            await(mag_exit_stack_push(st, puts_of, names[i]));
        }
        await(mag_exit_stack_pop_all(st, kept));
    }
    return 0;
}

async(void, exits)
{
    struct mag_exit_stack kept;

    await(mag_exit_stack_enter(&kept));
    printf("three: %s\n", mag_err_name(acquire(3, &kept)));
    printf("two: %s\n", mag_err_name(acquire(2, &kept)));
    mag_exit_stack_exit(&kept);
    return 0;
}

/* ---- queues as iterables ---------------------------------------------------------------------------- */

async_queue(int, numbers);

async(void, produce, (struct numbers, q), (int, n))
{
    for (int i = 1; i <= n; i++)
        queue_put(q, i); /* waits while the queue is full */
    await(mag_queue_shutdown(q.queue, false));
    printf("then: %s\n", mag_err_name(queue_put_rc(q, 0)));
    return 0;
}

async(int, consume, (struct numbers, q))
{
    int sum = queue_get(q), first;

    if (queue_get_rc(q, &first) == 0)
        sum += first;
    async_for(int, i, queue_items(q)) /* until it is shut down and empty */
        sum += i;
    async_return(sum);
}

async(void, queues)
{
    struct numbers q = numbers(4, NULL);
    int sum = 0;

    task_group (g) {
        group_spawn(g, produce(q, 100));
        group_spawn(g, consume(q), &sum);
    }
    printf("1 + ... + 100 = %d\n", sum);
    mag_queue_free(q.queue);
    return 0;
}

/* ---- the program --------------------------------------------------------------------------------------- */

async(void, demo, (const char *, path))
{
    int n = await(shows(path, 5));

    printf("%d files were enough\n\n", n);
    await(towers());
    await(in_step());
    await(plain());
    await(without_keywords());
    await(exits());
    await(queues());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2) {
        fputs("usage: generators [DIRECTORY]\n", stderr);
        return 2;
    }
    return mag_run(demo(argc == 2 ? argv[1] : "."), NULL) < 0;
}
