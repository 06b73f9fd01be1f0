/* SPDX-License-Identifier: MIT */
/*
 * stack.c - are stacks apart from each other, guarded, reused, given back, and is an
 * overflow reported in one line?
 *
 * What must kill a process is done in a forked child, whose standard error is read.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "context.h"
#include "mem.h"
#include "stack.h"
#include "sys.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(stack);

enum {
    KIB = 1024,
    MANY = MAG_ASAN || MAG_TSAN ? 5000 : 100 * 1000,
    TRIMMED = 5000, /* more than the 4096 warm stacks that are kept */
    NEVER = 1 << 30,
};

static struct mag_stacks stacks;
static struct mag_stack many[100 * 1000];
static char text[4096]; /* what the last child said */

static void setup(void)
{
    cr_assert(mag_stacks_init(&stacks, false) == 0);
}

static void teardown(void)
{
    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
    mag_stacks_fini(&stacks);
}

static struct mag_stack get(size_t bytes)
{
    struct mag_stack st;

    cr_assert(mag_stack_get(&stacks, bytes, &st) == 0, "%s", mag_stack_why(&stacks));
    return st;
}

/* Runs fn in a child; its wait status.  What it wrote to standard error is in text. */
static int in_child(void (*fn)(void *arg), void *arg)
{
    int fds[2], status;
    size_t used = 0;
    ssize_t got;
    pid_t pid;

    cr_assert(pipe(fds) == 0);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        dup2(fds[1], 2);
        fn(arg);
        _exit(0);
    }
    close(fds[1]);
    while (used + 1 < sizeof text && (got = read(fds[0], text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = 0;
    close(fds[0]);
    cr_assert(waitpid(pid, &status, 0) == pid);
    return status;
}

static void write_byte(void *p)
{
    *(volatile char *)p = 1;
}

static bool faults(char *p)
{
    int status = in_child(write_byte, p);

    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

/* ---- sizes and places ----------------------------------------------------------------- */

Test(stack, sizes_are_rounded_up, .init = setup, .fini = teardown)
{
    static const struct {
        size_t asked, got;
    } cases[] = {
        { 0, 16 * KIB },         { 1, 16 * KIB },
        { 16 * KIB, 16 * KIB },  { 16 * KIB + 1, 32 * KIB },
        { 64 * KIB, 64 * KIB },  { 100 * KIB, 128 * KIB },
        { 1024 * KIB, 1024 * KIB }, { MAG_STACK_BYTES_MAX, MAG_STACK_BYTES_MAX },
    };
    struct mag_stack st;

    for (size_t i = 0; i < MAG_ARRAY_SIZE(cases); i++) {
        st = get(cases[i].asked);
        cr_assert(st.bytes <= cases[i].got && st.bytes + 1024 > cases[i].got, "%zu", st.bytes);
        cr_assert((uintptr_t)st.lo % MAG_PAGE_BYTES == 0);
        cr_assert((uintptr_t)(st.lo + st.bytes) % MAG_CACHE_BYTES == 0);
        st.lo[0] = st.lo[st.bytes - 1] = 1;
        mag_stack_put(&stacks, &st);
    }
    cr_assert(mag_stack_get(&stacks, (size_t)MAG_STACK_BYTES_MAX + 1, &st) == -EINVAL);
    cr_assert(strlen(mag_stack_why(&stacks)) > 0);
}

Test(stack, they_do_not_overlap_and_tops_differ_in_colour, .init = setup, .fini = teardown)
{
    unsigned seen = 0;

    for (int i = 0; i < 300; i++) {
        many[i] = get(16 * KIB);
        memset(many[i].lo, i & 0xff, many[i].bytes);
        seen |= 1u << ((uintptr_t)(many[i].lo + many[i].bytes) / 128 % 32);
    }
    for (int i = 0; i < 300; i++) {
        cr_assert((unsigned char)many[i].lo[0] == (i & 0xff));
        cr_assert((unsigned char)many[i].lo[many[i].bytes - 1] == (i & 0xff));
        mag_stack_put(&stacks, &many[i]);
    }
    cr_assert(__builtin_popcount(seen) == 8, "%d colours", __builtin_popcount(seen));
}

Test(stack, the_last_put_is_the_next_got, .init = setup, .fini = teardown)
{
    struct mag_stack a = get(64 * KIB), b = get(64 * KIB), other = get(32 * KIB);
    char *lo_a = a.lo, *lo_b = b.lo;

    mag_stack_put(&stacks, &b);
    mag_stack_put(&stacks, &a);
    a = get(64 * KIB);
    b = get(64 * KIB);
    cr_assert(a.lo == lo_a && b.lo == lo_b);
    mag_stack_put(&stacks, &a);
    mag_stack_put(&stacks, &b);
    mag_stack_put(&stacks, &other);
}

static void put_twice(void *arg)
{
    struct mag_stack st = *(struct mag_stack *)arg, again = st;

    mag_stack_put(&stacks, &st);
    mag_stack_put(&stacks, &again);
}

Test(stack, put_twice_is_a_broken_invariant, .init = setup, .fini = teardown)
{
    struct mag_stack st = get(64 * KIB);
    int status = in_child(put_twice, &st);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    cr_assert(strstr(text, "check failed") != NULL, "%s", text);
    mag_stack_put(&stacks, &st);
}

/* ---- guards --------------------------------------------------------------------------- */

Test(stack, all_of_the_guard_faults_and_names_its_stack, .init = setup, .fini = teardown)
{
    struct mag_stack st = get(64 * KIB), next = get(64 * KIB), hit;

    for (int i = 1; i <= 16 * KIB; i += 4095) {
        cr_assert(faults(next.lo - i), "%d below", i);
        cr_assert(mag_stack_guard_hit(next.lo - i, &hit));
        cr_assert(hit.lo == next.lo && hit.bytes == next.bytes && hit.slab == next.slab);
    }
    cr_assert(!faults(next.lo) && !faults(st.lo + st.bytes - 1));
    cr_assert(!mag_stack_guard_hit(next.lo, &hit));
    cr_assert(!mag_stack_guard_hit(&st, &hit) && !mag_stack_guard_hit(NULL, &hit));
    mag_stack_put(&stacks, &next);
    cr_assert(!mag_stack_guard_hit(next.slab ? st.lo + 80 * KIB - 1 : NULL, &hit),
              "a stack that is not out has no name");
    mag_stack_put(&stacks, &st);
}

Test(stack, many_are_guarded, .init = setup, .fini = teardown, .timeout = 60)
{
    struct mag_stack hit;
    int n = 0;

    while (n < MANY && mag_stack_get(&stacks, 64 * KIB, &many[n]) == 0)
        n++;
    /* Before Linux 6.13 (and in qemu-user) there are fewer, and the library says so. */
    cr_assert(n == MANY || (n == 16 * KIB && strstr(mag_stack_why(&stacks), "6.13")), "%d", n);
    for (int i = 0; i < n; i += n / 7) {
        cr_assert(faults(many[i].lo - 1), "stack %d", i);
        cr_assert(mag_stack_guard_hit(many[i].lo - 1, &hit) && hit.lo == many[i].lo);
    }
    while (n > 0)
        mag_stack_put(&stacks, &many[--n]);
}

Test(stack, an_old_kernel_gets_mprotect_up_to_a_limit, .init = setup, .fini = teardown,
     .timeout = 60)
{
    int n = 0, rc;

    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, EINVAL, true);
    while ((rc = mag_stack_get(&stacks, 16 * KIB, &many[n])) == 0)
        n++;
    cr_assert(rc == -ENOMEM && n == 16 * KIB, "%d after %d stacks", rc, n);
    cr_assert(strstr(mag_stack_why(&stacks), "6.13") != NULL);
    cr_assert(faults(many[0].lo - 1) && faults(many[n - 1].lo - 16 * KIB));
    mag_stack_put(&stacks, &many[--n]);
    many[n] = get(16 * KIB);
    for (; n >= 0; n--)
        mag_stack_put(&stacks, &many[n]);
    mag_stacks_fini(&stacks);
    /* fini gave the guards back to the process's account. */
    setup();
    many[0] = get(16 * KIB);
    mag_stack_put(&stacks, &many[0]);
}

Test(stack, unguarded_where_that_is_allowed)
{
    struct mag_stack st;

    cr_assert(mag_stacks_init(&stacks, true) == 0);
    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, EINVAL, true);
    mag_sys_fail_nth(MAG_SYS_MPROTECT, 1, ENOMEM, true);
    st = get(64 * KIB);
    cr_assert(!faults(st.lo - 1));
    mag_stack_put(&stacks, &st);
    mag_sys_fail_none();
    st = get(64 * KIB);
    cr_assert(faults(st.lo - 1), "the next use tries again");
    mag_stack_put(&stacks, &st);
    mag_stacks_fini(&stacks);
}

/* ---- no memory ------------------------------------------------------------------------ */

Test(stack, each_failure_is_enomem_and_loses_nothing, .init = setup)
{
    int64_t live = mag_mem_live();
    struct mag_stack st;

    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, true);
    cr_assert(mag_stack_get(&stacks, 64 * KIB, &st) == -ENOMEM);
    cr_assert(strstr(mag_stack_why(&stacks), "address space") != NULL);
    mag_sys_fail_none();
    cr_assert(mag_mem_live() == live, "the slab's record leaked");

    mag_mem_fail_nth(1, false);
    cr_assert(mag_stack_get(&stacks, 64 * KIB, &st) == -ENOMEM);
    mag_mem_fail_nth(0, false);

    /* 1 is NOHUGEPAGE, which may fail; 2 is the guard. */
    mag_sys_fail_nth(MAG_SYS_MADVISE, 2, ENOMEM, false);
    cr_assert(mag_stack_get(&stacks, 64 * KIB, &st) == -ENOMEM);
    cr_assert(strstr(mag_stack_why(&stacks), "guard") != NULL);
    mag_sys_fail_none();

    st = get(64 * KIB);
    cr_assert(faults(st.lo - 1));
    mag_stack_put(&stacks, &st);
    mag_stacks_fini(&stacks);
    cr_assert(mag_mem_live() == live);
}

/* ---- pages ---------------------------------------------------------------------------- */

Test(stack, high_water, .init = setup, .fini = teardown)
{
    struct mag_stack st = get(1024 * KIB);
    char *top = st.lo + st.bytes;

    cr_assert(mag_stack_high_water(&st) == 0);
    cr_assert(mag_stack_high_water(&st) == 0, "asking touches nothing");
    top[-100] = 1;
    cr_assert(mag_stack_high_water(&st) == 104, "%zu", mag_stack_high_water(&st));
    top[-700 * KIB] = 1;
    cr_assert(mag_stack_high_water(&st) == 700 * KIB);
    st.lo[0] = 1;
    cr_assert(mag_stack_high_water(&st) == st.bytes);
    mag_stack_put(&stacks, &st);
}

Test(stack, pages_go_back_in_bulk, .init = setup, .fini = teardown, .timeout = 60)
{
    int n_fresh = 0;
    uint64_t calls;

    for (int i = 0; i < TRIMMED; i++) {
        many[i] = get(16 * KIB);
        many[i].lo[0] = 1;
    }
    mag_sys_fail_nth(MAG_SYS_MADVISE, NEVER, EINVAL, false);
    for (int i = 0; i < TRIMMED; i++)
        mag_stack_put(&stacks, &many[i]);
    calls = mag_sys_count(MAG_SYS_MADVISE);
    cr_assert(calls >= 1 && calls <= 20, "%d calls", (int)calls);
    mag_sys_fail_nth(MAG_SYS_MADVISE, NEVER, EINVAL, false);
    for (int i = 0; i < TRIMMED; i++) {
        many[i] = get(16 * KIB);
        n_fresh += mag_stack_high_water(&many[i]) == 0;
    }
    cr_assert(mag_sys_count(MAG_SYS_MADVISE) == 0, "none was lost, so none was carved");
    cr_assert(n_fresh >= 2048 && n_fresh < TRIMMED, "%d fresh", n_fresh);
    for (int i = 0; i < TRIMMED; i += TRIMMED / 7)
        cr_assert(faults(many[i].lo - 1), "a guard was given back too");
    for (int i = 0; i < TRIMMED; i++)
        mag_stack_put(&stacks, &many[i]);
}

Test(stack, scattered_stacks_stay_warm, .init = setup, .fini = teardown, .timeout = 60)
{
    uint64_t calls;

    for (int i = 0; i < 3 * TRIMMED; i++)
        many[i] = get(16 * KIB);
    mag_sys_fail_nth(MAG_SYS_MADVISE, NEVER, EINVAL, false);
    for (int i = 0; i < 3 * TRIMMED; i += 2)
        mag_stack_put(&stacks, &many[i]);
    calls = mag_sys_count(MAG_SYS_MADVISE);
    cr_assert(calls == 0, "%d calls, never one per stack", (int)calls);
    for (int i = 1; i < 3 * TRIMMED; i += 2)
        mag_stack_put(&stacks, &many[i]);
    calls = mag_sys_count(MAG_SYS_MADVISE);
    cr_assert(calls >= 1 && calls <= 3 * TRIMMED / 20, "%d calls", (int)calls);
}

/* ---- the report ----------------------------------------------------------------------- */

static struct mag_context main_ctx, deep_ctx;

/* Exported, so that dladdr would know its name in an executable linked with -rdynamic. */
int descend(volatile char *above);

MAG_NOINLINE int descend(volatile char *above)
{
    volatile char frame[512];

    frame[0] = *above;
    return *above < 99 ? descend(frame) + frame[0] : 0;
}

static void deep_entry(void *arg)
{
    volatile char c = 0;

    (void)arg;
    descend(&c);
    mag_context_leave(&deep_ctx, &main_ctx);
}

static void describe(const struct mag_stack *st, char *buf, size_t n)
{
    snprintf(buf, n, "task 'deep' (spawned at a.c:7, %s)", st->lo == many[0].lo ? "its own" : "?");
}

MAG_SUSPENDS static void overflow(void *arg)
{
    struct mag_stack_alt alt;

    (void)arg;
    many[0] = get(64 * KIB);
    cr_assert(mag_stack_altstack_init(&alt) == 0);
    cr_assert(mag_stack_watch(describe) == 0);
    mag_context_thread(&main_ctx);
    mag_context_make(&deep_ctx, many[0].lo, many[0].bytes, deep_entry, NULL);
    mag_context_switch(&main_ctx, &deep_ctx);
}

Test(stack, an_overflow_is_one_line_and_a_core, .init = setup, .fini = teardown)
{
    static const char begin[] =
        "magpie: task 'deep' (spawned at a.c:7, its own) overflowed its 64 KiB stack at ";
    static const char end[] = "; raise .stack_bytes\n";
    const char *line;
    int status = in_child(overflow, NULL);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x: %s", status, text);
    /* A sanitizer may have said something before. */
    line = strstr(text, begin);
    cr_assert(line != NULL && (line == text || line[-1] == '\n'), "%s", text);
    line = strchr(line, '\n');
    cr_assert(line && line - text > (ptrdiff_t)strlen(end), "%s", text);
    cr_assert(strncmp(line + 1 - strlen(end), end, strlen(end)) == 0, "%s", text);
    cr_assert(strstr(line, "magpie") == NULL, "more than a line: %s", text);
}

static void *volatile nowhere = (void *)16;

static void not_ours(void *arg)
{
    if (arg)
        signal(SIGSEGV, (void (*)(int))arg);
    cr_assert(mag_stack_watch(NULL) == 0);
    cr_assert(mag_stack_watch(describe) == 0);
    write_byte(nowhere);
}

static void theirs(int sig)
{
    _exit(sig == SIGSEGV ? 42 : 1);
}

static void killed(void *arg)
{
    (void)arg;
    cr_assert(mag_stack_watch(NULL) == 0);
    kill(getpid(), SIGSEGV);
}

static void ignored(void *arg)
{
    signal(SIGSEGV, SIG_IGN);
    killed(arg);
    _exit(43);
}

Test(stack, other_faults_go_where_they_went_before)
{
    int status = in_child(not_ours, NULL);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    cr_assert(strstr(text, "overflowed") == NULL, "%s", text);
    status = in_child(not_ours, (void *)theirs);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %x: %s", status, text);
    status = in_child(killed, NULL);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = in_child(ignored, NULL);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 43, "status %x: %s", status, text);
}

Test(stack, an_altstack_that_is_there_is_kept)
{
    static char mine[64 * KIB];
    stack_t st = { .ss_sp = mine, .ss_size = sizeof mine }, now, off = { .ss_flags = SS_DISABLE };
    struct mag_stack_alt alt;

    cr_assert(sigaltstack(&off, NULL) == 0);
    cr_assert(mag_stack_altstack_init(&alt) == 0 && alt.lo != NULL);
    cr_assert(sigaltstack(NULL, &now) == 0 && now.ss_sp == alt.lo);
    mag_stack_altstack_fini(&alt);
    cr_assert(sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE));

    cr_assert(sigaltstack(&st, NULL) == 0);
    cr_assert(mag_stack_altstack_init(&alt) == 0 && alt.lo == NULL);
    mag_stack_altstack_fini(&alt);
    cr_assert(sigaltstack(NULL, &now) == 0 && now.ss_sp == mine);
    cr_assert(sigaltstack(&off, NULL) == 0);

    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, false);
    cr_assert(mag_stack_altstack_init(&alt) == -ENOMEM && alt.lo == NULL);
    mag_sys_fail_none();
}
