/* SPDX-License-Identifier: MIT */
#ifndef MAG_CONTEXT_H
#define MAG_CONTEXT_H
/*
 * context.h - one saved point of execution on one stack, and the switch between two
 *
 * A context is where a fiber goes on: stack pointer, frame pointer, address.  The
 * switch is inline assembly that tells the compiler "every register is lost", so the
 * compiler itself saves exactly what is live, in the frame of the function that
 * switches; three words are stored, three loaded, and a jump ends it.
 *
 *      from's stack                         to's stack
 *      mag_task_suspend()                   mag_task_suspend()
 *        spills what is live                  ... some time ago
 *        from = {sp, fp, &1f}
 *        {sp, fp, ip} = to   ------------->   1: finds its spills below sp
 *
 * Invariants: (1) a context is made (make, thread) before it is switched to; (2) it is
 * resumed at most once per switch out of it; (3) it does not move in memory while it
 * lives (ucontext_t points into itself).
 *
 * Who may call: a switch belongs in a MAG_SUSPENDS function of this library and
 * nowhere else: inlined into hot code it would force all callee-saved registers to the
 * stack there.  What comes after it may run on another thread than what came before,
 * so no address of a thread-local may be live across it.
 *
 * A file that switches must not claim shadow-stack support, which jumping between
 * stacks breaks: build it with -fcf-protection=branch or none (checked below).  Where
 * the process runs with shadow stacks all the same, mag_context_check() refuses.
 *
 * The floating-point control words (MXCSR, x87; FPCR) belong to a fiber: they are
 * stored at the switch and loaded where their control bits differ.  That costs 1 to 5 ns
 * a switch; on an EPYC stmxcsr alone takes 3.5.  -DMAG_CONTEXT_FPENV=0 leaves it out: then
 * all fibers of a thread share them.
 *
 * A loop that resumes fibers should inline its switch, not call a function that does: its
 * return would be mispredicted (30 ns instead of 15 for suspend and resume).
 *
 * Rejected: an out-of-line switch that ends in ret (33 ns for suspend and resume
 * against 6.5: every return is mispredicted) or in a jump (42 ns: the calls without a
 * return shift the processor's return stack); pushes (they would overwrite the red
 * zone); swapcontext (224 ns: two system calls), which stays as the back-end for other
 * processors and as a cross-check: -DMAG_CONTEXT_UCONTEXT=1.
 *
 * Sources: prototypes.md A; System V x86-64 psABI 3.2.1; AAPCS64 6.1.
 */
#include "base.h"

#ifndef MAG_CONTEXT_UCONTEXT
#if defined(__linux__) && defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
#define MAG_CONTEXT_UCONTEXT 0
#else
#define MAG_CONTEXT_UCONTEXT 1
#endif
#endif

#ifndef MAG_CONTEXT_FPENV
#define MAG_CONTEXT_FPENV 1
#endif

#if MAG_CONTEXT_UCONTEXT
#include <ucontext.h>
#elif defined(__CET__)
#if __CET__ & 2
#error "context.h: build with -fcf-protection=branch (or none), not =return or =full"
#endif
#endif

#if MAG_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if MAG_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* [owner] all fields: the thread that runs the context, or that which is to run it. */
struct mag_context {
#if MAG_CONTEXT_UCONTEXT
    ucontext_t uc;
#else
    void *sp; /* the assembly knows these by their offsets: 0 */
    void *fp; /* 8 */
    void *ip; /* 16 */
    union {
        struct {
            uint32_t mxcsr; /* 24 */
            uint16_t x87;   /* 28 */
        };
        uint64_t fpcr; /* 24 */
    };
#endif
#if MAG_ASAN
    void *fake_stack;     /* its frames that ASan keeps on the heap */
    const void *stack_lo; /* [const] what ASan must know of the stack */
    size_t stack_bytes;   /* [const] */
#endif
#if MAG_TSAN
    void *tsan_fiber;    /* TSan's record of this context; NULL once destroyed */
    bool tsan_is_thread; /* [const] the record is the thread's own */
#endif
};

/* A hint: c is switched to soon. */
static inline void mag_context_prefetch(const struct mag_context *c)
{
#if MAG_CONTEXT_UCONTEXT
    __builtin_prefetch(c);
#else
    __builtin_prefetch(c->sp);
#endif
}

/*
 * 0, or -ENOTSUP where this process runs with shadow stacks and this build switches by
 * assembly.  Any thread; ask once, before the first make.
 */
int mag_context_check(void);

/* "x86-64", "aarch64" or "ucontext". */
const char *mag_context_name(void);

/*
 * The first switch to c calls entry(arg) on this stack, with the floating-point control
 * words a process starts with.  entry never returns; its last act is a leave.  Touches
 * the topmost words of the stack.  A debugger's backtrace ends at entry.
 */
void mag_context_make(struct mag_context *c, void *stack_lo, size_t bytes, void (*entry)(void *arg),
                      void *arg);

/* c stands for the calling thread's own stack, which it leaves by a switch from c. */
void mag_context_thread(struct mag_context *c);

/* After a leave, or where it never ran or is a thread's; never the current context. */
void mag_context_destroy(struct mag_context *c);

/* ---- what the sanitizers are told --------------------------------------------------- */

/*
 * Always inlined: as functions of their own they would be entered on one stack and left
 * on another, which is what they are there to explain (Tencent/flare#197).
 */
static MAG_ALWAYS_INLINE void mag_context_announce(struct mag_context *from, struct mag_context *to,
                                                   bool leaves)
{
#if MAG_ASAN
    /* NULL: ASan frees the fake stack of a context that never resumes. */
    __sanitizer_start_switch_fiber(leaves ? NULL : &from->fake_stack, to->stack_lo,
                                   to->stack_bytes);
#endif
#if MAG_TSAN
    /* 0: what came before the switch happens before what comes after it.  One thread
     * does both, and the queues of a worker rely on just that. */
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
    (void)from, (void)to, (void)leaves;
}

static MAG_ALWAYS_INLINE void mag_context_arrived(struct mag_context *self)
{
#if MAG_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, NULL, NULL);
#endif
    (void)self;
}

/* ---- the switch itself -------------------------------------------------------------- */

#if MAG_CONTEXT_UCONTEXT

static MAG_ALWAYS_INLINE void mag_context_jump(struct mag_context *from, struct mag_context *to)
{
    /* It can fail only where the first argument or the signal mask cannot be written. */
    (void)swapcontext(&from->uc, &to->uc);
}

#elif defined(__x86_64__)

/* 0xffc0: MXCSR's control bits; its flags below are not preserved across calls. */
#if MAG_CONTEXT_FPENV
#define MAG_CONTEXT_FPENV_ASM \
    "stmxcsr 24(%%rdi)\n\t" \
    "fnstcw 28(%%rdi)\n\t" \
    "movl 24(%%rsi), %%eax\n\t" \
    "xorl 24(%%rdi), %%eax\n\t" \
    "testl $0xffc0, %%eax\n\t" \
    "jz 2f\n\t" \
    "ldmxcsr 24(%%rsi)\n" \
    "2:\n\t" \
    "movzwl 28(%%rsi), %%eax\n\t" \
    "cmpw 28(%%rdi), %%ax\n\t" \
    "je 3f\n\t" \
    "fldcw 28(%%rsi)\n" \
    "3:\n\t"
#else
#define MAG_CONTEXT_FPENV_ASM ""
#endif

#if defined(__AVX512F__)
#define MAG_CONTEXT_AVX512 \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", \
        "k6", "k7"
#else
#define MAG_CONTEXT_AVX512
#endif

/*
 * rbp is saved by hand, because with frame pointers it cannot be a clobber.  The stack
 * pointer goes last, so that an unwinder that interrupts this finds either stack.
 */
static MAG_ALWAYS_INLINE void mag_context_jump(struct mag_context *from, struct mag_context *to)
{
    __asm__ volatile(MAG_CONTEXT_FPENV_ASM "leaq 1f(%%rip), %%rax\n\t"
                                           "movq %%rsp, 0(%%rdi)\n\t"
                                           "movq %%rbp, 8(%%rdi)\n\t"
                                           "movq %%rax, 16(%%rdi)\n\t"
                                           "movq 16(%%rsi), %%rax\n\t"
                                           "movq 8(%%rsi), %%rbp\n\t"
                                           "movq 0(%%rsi), %%rsp\n\t"
                                           "jmp *%%rax\n"
                                           "1:\n\t"
                                           "endbr64\n"
                     : "+D"(from), "+S"(to)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st",
                       "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "memory",
                       "cc" MAG_CONTEXT_AVX512);
}

#else /* aarch64 */

#if MAG_CONTEXT_FPENV
#define MAG_CONTEXT_FPENV_ASM \
    "mrs x9, fpcr\n\t" \
    "ldr x10, [x1, #24]\n\t" \
    "str x9, [x0, #24]\n\t" \
    "cmp x9, x10\n\t" \
    "b.eq 2f\n\t" \
    "msr fpcr, x10\n" \
    "2:\n\t"
#else
#define MAG_CONTEXT_FPENV_ASM ""
#endif

#if defined(__ARM_FEATURE_SVE)
#define MAG_CONTEXT_SVE \
    , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", \
        "p14", "p15"
#else
#define MAG_CONTEXT_SVE
#endif

/* x29 is saved by hand, as rbp above.  hint #36 is "bti j", a nop on older processors. */
static MAG_ALWAYS_INLINE void mag_context_jump(struct mag_context *from, struct mag_context *to)
{
    register struct mag_context *x0 __asm__("x0") = from;
    register struct mag_context *x1 __asm__("x1") = to;
    __asm__ volatile(MAG_CONTEXT_FPENV_ASM "adr x9, 1f\n\t"
                                           "mov x10, sp\n\t"
                                           "stp x10, x29, [x0]\n\t"
                                           "str x9, [x0, #16]\n\t"
                                           "ldr x9, [x1, #16]\n\t"
                                           "ldp x10, x29, [x1]\n\t"
                                           "mov sp, x10\n\t"
                                           "br x9\n"
                                           "1:\n\t"
                                           "hint #36\n"
                     : "+r"(x0), "+r"(x1)
                     :
                     : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                       "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24",
                       "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
                       "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17",
                       "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",
                       "v29", "v30", "v31", "memory", "cc" MAG_CONTEXT_SVE);
}

#endif

/* From the current context `from' to `to'; returns when somebody switches to `from'. */
static MAG_ALWAYS_INLINE void mag_context_switch(struct mag_context *from, struct mag_context *to)
{
    mag_context_announce(from, to, false);
    mag_context_jump(from, to);
    mag_context_arrived(from);
}

/* The last switch out of `from', whose stack and context are then free for reuse. */
static MAG_ALWAYS_INLINE void mag_context_leave(struct mag_context *from, struct mag_context *to)
{
    mag_context_announce(from, to, true);
    mag_context_jump(from, to);
    __builtin_unreachable();
}

/* Where a signal has interrupted the code: of a handler's third argument; NULL if that is not
 * known here.  Async-signal-safe. */
void *mag_context_interrupted_at(const void *ucontext);

#endif
