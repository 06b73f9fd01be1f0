/* SPDX-License-Identifier: MIT */
/*
 * context.c - does a switch keep what the ABI says a call keeps, and start a fiber right?
 *
 * The switch is inline C, so its promise is tested from outside: a small assembly
 * function fills every callee-saved register, calls a function that switches away, and
 * compares when that returns.  Two fibers with different contents take turns, so that
 * whatever is not saved comes back with the other's value.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "context.h"
#include "stack.h"

#include <criterion/criterion.h>
#include <execinfo.h>
#include <string.h>

TestSuite(context);

enum {
    SWITCHES = 1000 * 1000,
    FIBERS_MAX = 128,
};

struct fiber {
    struct mag_context ctx;
    struct mag_stack stack;
    struct mag_context *back;   /* who resumed it */
    void (*body)(struct fiber *f);
    struct fiber *next;         /* nested(): the one to resume */
    uint64_t seed;
    uint64_t wrong;             /* bits that differed */
    bool is_done;
};

static struct mag_stacks stacks;

MAG_SUSPENDS static void yield(struct fiber *f)
{
    mag_context_switch(&f->ctx, f->back);
}

MAG_SUSPENDS static void resume(struct fiber *f, struct mag_context *self)
{
    f->back = self;
    mag_context_switch(self, &f->ctx);
}

static void enter(void *arg)
{
    struct fiber *f = arg;

    f->body(f);
    f->is_done = true;
    mag_context_leave(&f->ctx, f->back);
}

static void start(struct fiber *f, void (*body)(struct fiber *f), uint64_t seed)
{
    memset(f, 0, sizeof *f);
    f->body = body;
    f->seed = seed;
    cr_assert(mag_stack_get(&stacks, MAG_STACK_BYTES_DEFAULT, &f->stack) == 0);
    mag_context_make(&f->ctx, f->stack.lo, f->stack.bytes, enter, f);
}

static void finish(struct fiber *f)
{
    mag_context_destroy(&f->ctx);
    mag_stack_put(&stacks, &f->stack);
}

/* Resumes all in turn until each is done. */
static void run(struct fiber *fibers, size_t n)
{
    static struct mag_context self;
    size_t n_done = 0;

    mag_context_thread(&self);
    while (n_done < n) {
        n_done = 0;
        for (size_t i = 0; i < n; i++) {
            if (!fibers[i].is_done)
                resume(&fibers[i], &self);
            n_done += fibers[i].is_done;
        }
    }
    mag_context_destroy(&self);
}

static void setup(void)
{
    cr_assert(mag_stacks_init(&stacks, false) == 0);
}

static void teardown(void)
{
    mag_stacks_fini(&stacks);
}

/* ---- registers -------------------------------------------------------------------------- */

/* Fills the callee-saved registers with seed + 1 ..., calls fn(arg), ors the differences. */
uint64_t registers_across(void (*fn)(struct fiber *), struct fiber *arg, uint64_t seed);

#if defined(__x86_64__)
__asm__(".pushsection .text\n.type registers_across, @function\nregisters_across:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nsub $24, %rsp\n"
        "mov %rdx, (%rsp)\n"
        "lea 1(%rdx), %rbx\nlea 2(%rdx), %rbp\nlea 3(%rdx), %r12\n"
        "lea 4(%rdx), %r13\nlea 5(%rdx), %r14\nlea 6(%rdx), %r15\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\ncall *%rax\n"
        "mov (%rsp), %rdx\nxor %eax, %eax\n"
        "sub %rdx, %rbx\nxor $1, %rbx\nor %rbx, %rax\nsub %rdx, %rbp\nxor $2, %rbp\n"
        "or %rbp, %rax\nsub %rdx, %r12\nxor $3, %r12\nor %r12, %rax\n"
        "sub %rdx, %r13\nxor $4, %r13\nor %r13, %rax\nsub %rdx, %r14\nxor $5, %r14\n"
        "or %r14, %rax\nsub %rdx, %r15\nxor $6, %r15\nor %r15, %rax\n"
        "add $24, %rsp\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size registers_across, . - registers_across\n.popsection\n");
#elif defined(__aarch64__)
__asm__(".pushsection .text\n.type registers_across, %function\nregisters_across:\n"
        "stp x29, x30, [sp, #-176]!\nstp x19, x20, [sp, #16]\nstp x21, x22, [sp, #32]\n"
        "stp x23, x24, [sp, #48]\nstp x25, x26, [sp, #64]\nstp x27, x28, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\n"
        "stp d14, d15, [sp, #144]\nstr x2, [sp, #160]\n"
        ".irp n, 19,20,21,22,23,24,25,26,27,28,29\nadd x\\n, x2, #\\n\n.endr\n"
        ".irp n, 8,9,10,11,12,13,14,15\nadd x9, x2, #\\n\nfmov d\\n, x9\n.endr\n"
        "mov x9, x0\nmov x0, x1\nblr x9\n"
        "ldr x2, [sp, #160]\nmov x0, #0\n"
        ".irp n, 19,20,21,22,23,24,25,26,27,28,29\n"
        "sub x9, x\\n, x2\nsub x9, x9, #\\n\norr x0, x0, x9\n.endr\n"
        ".irp n, 8,9,10,11,12,13,14,15\n"
        "fmov x9, d\\n\nsub x9, x9, x2\nsub x9, x9, #\\n\norr x0, x0, x9\n.endr\n"
        "ldp x19, x20, [sp, #16]\nldp x21, x22, [sp, #32]\nldp x23, x24, [sp, #48]\n"
        "ldp x25, x26, [sp, #64]\nldp x27, x28, [sp, #80]\nldp d8, d9, [sp, #96]\n"
        "ldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
        "ldp x29, x30, [sp], #176\nret\n"
        ".size registers_across, . - registers_across\n.popsection\n");
#else
uint64_t registers_across(void (*fn)(struct fiber *), struct fiber *arg, uint64_t seed)
{
    fn(arg);
    return seed - seed;
}
#endif

/* ---- control words: four rounding modes, by number ---------------------------------------- */

#if defined(__x86_64__)
static void control_set(unsigned mode)
{
    uint32_t mxcsr = 0x1f80 | (mode & 3) << 13;
    uint16_t x87 = (uint16_t)(0x37f | (mode & 3) << 10);

    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87));
}

static unsigned control_get(void)
{
    uint32_t mxcsr;
    uint16_t x87;

    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87));
    return (mxcsr & 0xffc0) == (0x1f80 | (x87 >> 10 & 3) << 13) ? x87 >> 10 & 3 : 99;
}
#elif defined(__aarch64__)
static void control_set(unsigned mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)(mode & 3) << 22));
}

static unsigned control_get(void)
{
    uint64_t fpcr;

    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (unsigned)(fpcr >> 22 & 3);
}
#else
static void control_set(unsigned mode)
{
    (void)mode;
}

static unsigned control_get(void)
{
    return 0;
}
#endif

static const bool has_control = (MAG_CONTEXT_FPENV || MAG_CONTEXT_UCONTEXT) &&
#if defined(__x86_64__) || defined(__aarch64__)
                                true;
#else
                                false;
#endif

/* ---- the tests ---------------------------------------------------------------------------- */

static void registers_body(struct fiber *f)
{
    unsigned mode = (unsigned)f->seed & 3;

    if (has_control)
        control_set(mode);
    for (int i = 0; i < SWITCHES / 4; i++) {
        f->wrong |= registers_across(yield, f, f->seed * 1000003u + (uint64_t)i * 4096);
        if (has_control)
            f->wrong |= control_get() ^ mode;
    }
}

Test(context, registers_and_control_words_survive, .init = setup, .fini = teardown,
     .timeout = 60)
{
    static struct fiber fibers[2];

    start(&fibers[0], registers_body, 0x1234567890abcde1);
    start(&fibers[1], registers_body, 0x0fedcba987654322);
    run(fibers, 2);
    for (int i = 0; i < 2; i++) {
        cr_assert(fibers[i].wrong == 0, "fiber %d: bits %llx", i,
                  (unsigned long long)fibers[i].wrong);
        finish(&fibers[i]);
    }
    cr_assert(!has_control || control_get() == 0, "the loop's own control words changed");
}

static void control_body(struct fiber *f)
{
    f->wrong = control_get();
}

Test(context, a_new_fiber_has_default_control_words, .init = setup, .fini = teardown)
{
    static struct fiber f;

    if (!has_control)
        cr_skip("fibers share the control words in this build");
    control_set(3);
    start(&f, control_body, 0);
    run(&f, 1);
    cr_assert(f.wrong == 0, "the maker's rounding mode leaked: %u", (unsigned)f.wrong);
    cr_assert(control_get() == 3, "the maker lost its own");
    control_set(0);
    finish(&f);
}

static void float_body(struct fiber *f)
{
    double sum = (double)f->seed, step = 0.5;
    long double exact = (long double)f->seed;

    for (int i = 0; i < 1000; i++) {
        sum += step;
        exact += 0.25L;
        yield(f);
    }
    f->wrong = sum != (double)f->seed + 500.0 || exact != (long double)f->seed + 250.0L;
}

Test(context, floating_point_values_survive, .init = setup, .fini = teardown)
{
    static struct fiber fibers[4];

    for (unsigned i = 0; i < 4; i++)
        start(&fibers[i], float_body, i * 1000);
    run(fibers, 4);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert(fibers[i].wrong == 0);
        finish(&fibers[i]);
    }
}

static void alignment_body(struct fiber *f)
{
    f->wrong = (uintptr_t)__builtin_frame_address(0) & 15;
}

Test(context, the_entry_is_called_with_an_aligned_stack, .init = setup, .fini = teardown)
{
    static char storage[64 * 1024] MAG_CACHELINE;
    static struct fiber f;

    /* Any bounds, not only those of stack.c. */
    for (size_t less = 0; less < 64; less++) {
        memset(&f, 0, sizeof f);
        f.body = alignment_body;
        mag_context_make(&f.ctx, storage, sizeof storage - less, enter, &f);
        run(&f, 1);
        cr_assert(f.wrong == 0, "%u bytes off for size - %zu", (unsigned)f.wrong, less);
        mag_context_destroy(&f.ctx);
    }
}

static void nested_body(struct fiber *f)
{
    for (int i = 0; i < 3; i++) {
        if (f->next)
            resume(f->next, &f->ctx);
        f->seed++;
        yield(f);
    }
    if (f->next)
        resume(f->next, &f->ctx);
}

Test(context, fibers_resume_fibers, .init = setup, .fini = teardown)
{
    static struct fiber fibers[FIBERS_MAX];

    for (int i = 0; i < FIBERS_MAX; i++)
        start(&fibers[i], nested_body, 0);
    for (int i = 0; i < FIBERS_MAX - 1; i++)
        fibers[i].next = &fibers[i + 1];
    run(fibers, 1);
    for (int i = 0; i < FIBERS_MAX; i++) {
        cr_assert(fibers[i].seed == 3 && fibers[i].is_done, "fiber %d", i);
        finish(&fibers[i]);
    }
}

static void *frames[64];

static void backtrace_body(struct fiber *f)
{
    f->wrong = (uint64_t)backtrace(frames, MAG_ARRAY_SIZE(frames));
}

#if !MAG_CONTEXT_UCONTEXT
void mag_context_first(void); /* context.c's */
#endif

Test(context, a_backtrace_ends_at_the_entry, .init = setup, .fini = teardown)
{
    static struct fiber f;

    start(&f, backtrace_body, 0);
    run(&f, 1);
    /* body, enter, begin, first; the sanitizer's own frame; makecontext's start. */
    cr_assert(f.wrong >= 2 && f.wrong <= 7, "%u frames", (unsigned)f.wrong);
#if !MAG_CONTEXT_UCONTEXT
    cr_assert((uintptr_t)frames[f.wrong - 1] - (uintptr_t)mag_context_first < 64,
              "the outermost frame is another: %p", frames[f.wrong - 1]);
#endif
    finish(&f);
}

static void nothing_body(struct fiber *f)
{
    f->seed = 77;
}

Test(context, a_stack_is_used_again_and_again, .init = setup, .fini = teardown)
{
    static struct fiber f;
    char *lo = NULL;

    for (int i = 0; i < 10000; i++) {
        start(&f, nothing_body, 0);
        cr_assert(lo == NULL || lo == f.stack.lo);
        lo = f.stack.lo;
        run(&f, 1);
        cr_assert(f.seed == 77);
        finish(&f);
    }
}

Test(context, one_that_never_ran_can_be_destroyed, .init = setup, .fini = teardown)
{
    static struct fiber f;

    start(&f, nothing_body, 1);
    finish(&f);
    cr_assert(f.seed == 1);
}

Test(context, says_what_it_is)
{
    cr_assert(mag_context_check() == 0);
#if MAG_CONTEXT_UCONTEXT
    cr_assert(strcmp(mag_context_name(), "ucontext") == 0);
#elif defined(__x86_64__)
    cr_assert(strcmp(mag_context_name(), "x86-64") == 0);
#else
    cr_assert(strcmp(mag_context_name(), "aarch64") == 0);
#endif
}
