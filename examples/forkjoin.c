/* SPDX-License-Identifier: MIT */
/*
 * forkjoin.c - sorts and adds on all cores, with fork and join
 *
 *      forkjoin [N]       N numbers (2000000)
 *      forkjoin --help
 *
 * mag_fork offers a part of the work to other workers, mag_join takes it back and calls
 * it, or waits if somebody has taken it.  Where nobody has, that costs little more than
 * the call, so the program forks wherever it can and leaves the rest to the workers.
 *
 *      sort(a, n):   fork sort(left)     sort(right)     join     merge
 *
 * Merge sort, because its depth is log2 n for every input, and a task's stack is small.
 * Outside a task a fork runs its part at once: the same function is the sequential one,
 * and main uses that to compare.
 */
#include <magpie/async.h>
#include <magpie/fork.h>

#include <stdlib.h>
#include <string.h>

enum { SMALL = 32 }; /* below, insertion sort */

/* ---- sorting ------------------------------------------------------------------------- */

/* The record comes first, so that a pointer to it is one to the part. */
struct sort {
    struct mag_fork fork;
    uint32_t       *a, *scratch;
    size_t          n;
};

static void sort(uint32_t *a, uint32_t *scratch, size_t n);

static void sort_part(struct mag_fork *fork)
{
    struct sort *part = (struct sort *)fork;

    sort(part->a, part->scratch, part->n);
}

static void insertion_sort(uint32_t *a, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint32_t x = a[i];
        size_t   k = i;

        for (; k > 0 && a[k - 1] > x; k--)
            a[k] = a[k - 1];
        a[k] = x;
    }
}

static void merge(uint32_t *a, uint32_t *scratch, size_t half, size_t n)
{
    size_t left = 0, right = half, to = 0;

    memcpy(scratch, a, half * sizeof *a);
    while (left < half && right < n)
        a[to++] = a[right] < scratch[left] ? a[right++] : scratch[left++];
    memcpy(a + to, scratch + left, (half - left) * sizeof *a);
}

static void sort(uint32_t *a, uint32_t *scratch, size_t n)
{
    size_t      half = n / 2;
    struct sort left = { .a = a, .scratch = scratch, .n = half };

    if (n < SMALL) {
        insertion_sort(a, n);
        return;
    }
    mag_fork(&left.fork, sort_part);
    sort(a + half, scratch + half, n - half);
    mag_join_call(&left.fork, sort_part); /* mag_join(&left.fork) does the same */
    merge(a, scratch, half, n);
}

/* ---- adding ---------------------------------------------------------------------------- */

struct sum {
    struct mag_fork fork;
    const uint32_t *a;
    size_t          n;
    uint64_t        value;
};

static void sum_part(struct mag_fork *fork);

/* With mag_fork and mag_join. */
static uint64_t sum(const uint32_t *a, size_t n)
{
    struct sum part = { .a = a, .n = n / 2 };
    uint64_t   rest = 0;

    if (n <= 1024) {
        for (size_t i = 0; i < n; i++)
            rest += a[i];
        return rest;
    }
    mag_fork(&part.fork, sum_part);
    rest = sum(a + n / 2, n - n / 2);
    mag_join(&part.fork);
    return part.value + rest;
}

static void sum_part(struct mag_fork *fork)
{
    struct sum *part = (struct sum *)fork;

    part->value = sum(part->a, part->n);
}

/* With the exported functions, as a binding for another language has to. */
static uint64_t sum_in_halves(const uint32_t *a, size_t n)
{
    struct sum part = { .a = a, .n = n / 2 };
    uint64_t   rest;

    mag_fork_begin(&part.fork, sum_part);
    rest = sum(a + n / 2, n - n / 2);
    mag_fork_end(&part.fork);
    return part.value + rest;
}

/* ---- the program ------------------------------------------------------------------------- */

static void fill(uint32_t *a, size_t n)
{
    uint32_t x = 2463534242u; /* xorshift32, Marsaglia 2003 */

    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        a[i] = x;
    }
}

static bool is_sorted(const uint32_t *a, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (a[i - 1] > a[i])
            return false;
    return true;
}

/* Both at once, too: a task's code may fork and join as it likes. */
async(uint64_t, sort_and_add, (uint32_t *, a), (uint32_t *, scratch), (size_t, n))
{
    sort(a, scratch, n);
    async_return(sum_in_halves(a, n));
}

static int compare(uint32_t *a, uint32_t *scratch, size_t n)
{
    uint64_t alone, together = 0;
    mag_time start;
    double   t1, tn;
    int      rc;

    fill(a, n);
    start = mag_now();
    sort(a, scratch, n); /* outside a task: sequential */
    alone = sum_in_halves(a, n);
    t1 = mag_seconds(mag_now() - start);
    if (!is_sorted(a, n))
        return -EPROTO;

    fill(a, n);
    start = mag_now();
    rc = mag_run(sort_and_add(a, scratch, n), &together);
    tn = mag_seconds(mag_now() - start);
    if (rc < 0)
        return rc;
    if (!is_sorted(a, n) || alone != together)
        return -EPROTO;
    printf("%zu numbers sorted, sum %llu\n", n, (unsigned long long)together);
    printf("alone %.3f s, on all workers %.3f s, %.1fx\n", t1, tn, t1 / tn);
    return 0;
}

static int usage(FILE *to)
{
    fputs("usage: forkjoin [N]\n\n"
          "Sorts and adds N numbers (2000000), alone and on all workers.\n"
          "MAGPIE_WORKERS sets their number.\n",
          to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    char     *end = "";
    long      n = argc > 1 ? strtol(argv[1], &end, 10) : 2000000;
    uint32_t *a;
    int       rc;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc > 2 || *end || n < 1 || n > 1000000000)
        return usage(stderr);
    a = malloc(2 * (size_t)n * sizeof *a);
    rc = a ? compare(a, a + n, (size_t)n) : -ENOMEM;
    if (rc < 0)
        fprintf(stderr, "forkjoin: %s\n", mag_err_text(rc));
    free(a);
    return rc < 0;
}
