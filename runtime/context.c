/* SPDX-License-Identifier: MIT */
/*
 * context.c - how a context begins and ends
 *
 * The switch is inline (context.h); here is the first frame of a fiber, which is made by
 * hand so that the first switch to it is like any other:
 *
 *      stack_lo + bytes, rounded down to 16 -> +----------------+
 *                                              | arg            |
 *      sp of a context that has not run ------>| entry          |  struct first
 *                                              +----------------+
 *      ip = mag_context_first, which calls begin(sp), which calls entry(arg)
 *
 * mag_context_first is the outermost frame.  It declares its return address undefined
 * and clears the frame pointer, so unwinders by tables and by frame pointers both stop
 * there.  It calls instead of jumping, so the stack has the alignment of any function.
 *
 * The floating-point control words start as the process's did (MXCSR 0x1f80, x87 0x37f,
 * FPCR 0) and not as the maker's are: who makes a stack is often another task, whose
 * rounding mode must not leak into this one.
 *
 * Who may call: see context.h.  Nothing here allocates or makes a system call, but for
 * the ucontext back-end (sigprocmask inside glibc's getcontext) and, under ASan, glibc's
 * pthread_getattr_np.
 *
 * Shadow stacks: user code runs with them only if every object of the program claims
 * SHSTK.  This one does not, so mag_context_check() says no only where somebody forced
 * them on (glibc.cpu.x86_shstk=on, or a late dlopen in a permissive process).
 *
 * Sources: psABI x86-64 3.4.1 (initial MXCSR and x87 CW); Intel SDM on RDSSP, which is a
 * nop where there is no shadow stack; Arm ARM on CHKFEAT.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "context.h"

#include <errno.h>
#include <ucontext.h>

#if MAG_ASAN
#include <pthread.h>
#endif
#if !MAG_CONTEXT_UCONTEXT && defined(__x86_64__)
#include <cpuid.h>
#endif

enum {
    ENTRY_ALIGN = 16,
    MXCSR_START = 0x1f80,
    X87_START = 0x37f,
};

/* The topmost words of a stack; two pointers, so that what is below stays aligned. */
struct first {
    void (*entry)(void *arg); /* [const] */
    void *arg;                /* [const] */
};

void mag_context_begin(const struct first *f) __attribute__((used, noreturn));

/* The first C on a new stack; the assembly calls it by name. */
void mag_context_begin(const struct first *f)
{
#if MAG_ASAN
    /* NULL: this context has no fake stack to come back to yet. */
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    f->entry(f->arg);
    __builtin_trap();
}

static struct first *push_first(void *stack_lo, size_t bytes, void (*entry)(void *), void *arg)
{
    uintptr_t top = ((uintptr_t)stack_lo + bytes) & ~(uintptr_t)(ENTRY_ALIGN - 1);
    struct first *f = (struct first *)top - 1;

    f->entry = entry;
    f->arg = arg;
    return f;
}

/* ---- the back-ends ------------------------------------------------------------------ */

#if MAG_CONTEXT_UCONTEXT

/* makecontext passes ints only. */
static void begin_halves(unsigned hi, unsigned lo)
{
    mag_context_begin((const struct first *)(uintptr_t)((uint64_t)hi << 32 | lo));
}

static void prepare(struct mag_context *c, void *stack_lo, struct first *f)
{
    uint64_t word = (uintptr_t)f;

    (void)getcontext(&c->uc);
    c->uc.uc_link = NULL;
    c->uc.uc_stack.ss_sp = stack_lo;
    c->uc.uc_stack.ss_size = (size_t)((char *)f - (char *)stack_lo);
#if defined(__x86_64__) && defined(__linux__)
    c->uc.uc_mcontext.fpregs->mxcsr = MXCSR_START;
    c->uc.uc_mcontext.fpregs->cwd = X87_START;
#endif
    makecontext(&c->uc, (void (*)(void))begin_halves, 2, (unsigned)(word >> 32), (unsigned)word);
}

int mag_context_check(void)
{
    return 0;
}

const char *mag_context_name(void)
{
    return "ucontext";
}

#elif defined(__x86_64__)

__asm__(".pushsection .text\n"
        ".globl mag_context_first\n"
        ".hidden mag_context_first\n"
        ".type mag_context_first, @function\n"
        "mag_context_first:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n"
        "    endbr64\n"
        "    movq %rsp, %rdi\n"
        "    xorl %ebp, %ebp\n"
        "    call mag_context_begin\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size mag_context_first, . - mag_context_first\n"
        ".popsection\n");

static bool has_shadow_stack(void)
{
    unsigned a, b, c, d;
    uint64_t ssp = 0;

    /* The processor is asked first because valgrind does not know the instruction. */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(c & (1u << 7)))
        return false;
    __asm__ volatile("rdsspq %0" : "+r"(ssp));
    return ssp != 0;
}

const char *mag_context_name(void)
{
    return "x86-64";
}

#else /* aarch64 */

__asm__(".pushsection .text\n"
        ".globl mag_context_first\n"
        ".hidden mag_context_first\n"
        ".type mag_context_first, %function\n"
        "mag_context_first:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined x30\n"
        "    hint #36\n"
        "    mov x0, sp\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    bl mag_context_begin\n"
        "    brk #1\n"
        "    .cfi_endproc\n"
        ".size mag_context_first, . - mag_context_first\n"
        ".popsection\n");

/* CHKFEAT (hint 40) clears bit 0 of x16 where the guarded control stack is on. */
static bool has_shadow_stack(void)
{
    register uint64_t x16 __asm__("x16") = 1;
    __asm__ volatile("hint #40" : "+r"(x16));
    return x16 == 0;
}

const char *mag_context_name(void)
{
    return "aarch64";
}

#endif

#if !MAG_CONTEXT_UCONTEXT

MAG_STATIC_ASSERT(offsetof(struct mag_context, sp) == 0);
MAG_STATIC_ASSERT(offsetof(struct mag_context, fp) == 8);
MAG_STATIC_ASSERT(offsetof(struct mag_context, ip) == 16);
MAG_STATIC_ASSERT(offsetof(struct mag_context, mxcsr) == 24);
MAG_STATIC_ASSERT(offsetof(struct mag_context, x87) == 28);
MAG_STATIC_ASSERT(offsetof(struct mag_context, fpcr) == 24);
MAG_STATIC_ASSERT(sizeof(struct first) == ENTRY_ALIGN);

void mag_context_first(void) __attribute__((visibility("hidden")));

static void prepare(struct mag_context *c, void *stack_lo, struct first *f)
{
    (void)stack_lo;
    c->sp = f;
    c->fp = NULL;
    c->ip = (void *)mag_context_first;
    c->fpcr = 0;
#if defined(__x86_64__)
    c->mxcsr = MXCSR_START;
    c->x87 = X87_START;
#endif
}

int mag_context_check(void)
{
    return has_shadow_stack() ? -ENOTSUP : 0;
}

#endif

/* ---- the life of a context ---------------------------------------------------------- */

void mag_context_make(struct mag_context *c, void *stack_lo, size_t bytes, void (*entry)(void *arg),
                      void *arg)
{
    prepare(c, stack_lo, push_first(stack_lo, bytes, entry, arg));
#if MAG_ASAN
    c->fake_stack = NULL;
    c->stack_lo = stack_lo;
    c->stack_bytes = bytes;
#endif
#if MAG_TSAN
    c->tsan_fiber = __tsan_create_fiber(0);
    c->tsan_is_thread = false;
#endif
}

void mag_context_thread(struct mag_context *c)
{
#if MAG_ASAN
    pthread_attr_t attr;
    void *lo = NULL;

    c->fake_stack = NULL;
    c->stack_bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        (void)pthread_attr_getstack(&attr, &lo, &c->stack_bytes);
        (void)pthread_attr_destroy(&attr);
    }
    c->stack_lo = lo;
#endif
#if MAG_TSAN
    c->tsan_fiber = __tsan_get_current_fiber();
    c->tsan_is_thread = true;
#endif
    (void)c;
}

void mag_context_destroy(struct mag_context *c)
{
#if MAG_TSAN
    if (!c->tsan_is_thread && c->tsan_fiber)
        __tsan_destroy_fiber(c->tsan_fiber);
    c->tsan_fiber = NULL;
#endif
    (void)c;
}

void *mag_context_interrupted_at(const void *ucontext)
{
    const ucontext_t *uc = ucontext;
#if defined(__x86_64__)
    return (void *)uc->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (void *)uc->uc_mcontext.pc;
#else
    (void)uc;
    return NULL;
#endif
}
