/* SPDX-License-Identifier: MIT */
/*
 * stack_watch.c - one readable line when a task overflows its stack
 *
 * A write below a stack faults in its guard.  The kernel can deliver that signal only on
 * another stack, as this one has no room left, so each worker thread has an alternate
 * stack.  The handler asks stack.c whose guard the address is in, the task layer for the
 * name, writes one line, and gives the signal its default action: the instruction faults
 * again, and the process ends with a core that shows the place.
 *
 *   SIGSEGV, si_addr --> guard of ours? -- no --> the handler that was there before
 *                             | yes
 *                             v
 *       "magpie: task 'fetch' (spawned at a.c:7) overflowed its 64 KiB stack at walk;
 *        raise .stack_bytes"  --> default action --> the same fault --> core
 *
 * Who may call: watch and altstack any thread; the handler runs anywhere, and uses only
 * what is async-signal-safe, with the one exception stated at name_pc().
 *
 * Rejected: recovering from the fault (the task may hold locks and its frames cannot be
 * unwound with nothing left to run on); exit() in the handler (no core, and atexit
 * handlers would run in an unknown state).
 *
 * Sources: sigaltstack(2); sigaction(2) on si_code.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stack.h"

#include "check.h"
#include "context.h"
#include "sys.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <ucontext.h>

enum {
    ALT_BYTES = 64 * 1024, /* only what is touched costs memory */
};

static const int fault_signals[] = { SIGSEGV, SIGBUS };

static struct {
    struct mag_spin lock;                                   /* of the first call */
    bool is_installed;                                      /* [lock] */
    mag_atomic(mag_stack_describe_fn *) describe;           /* [any] the task layer's, or NULL */
    struct sigaction before[MAG_ARRAY_SIZE(fault_signals)]; /* [const once installed] */
} watch;

__attribute__((format(printf, 3, 4))) static void format(char *buf, size_t n, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    mag_check_format(buf, n, fmt, args);
    va_end(args);
}

/*
 * dladdr may wait for the dynamic linker's lock, which is not async-signal-safe.  It is
 * worth it: the process ends anyway, and a fiber overflows in user code, not in there.
 */
static void name_pc(void *pc, char *buf, size_t n)
{
    Dl_info info;

    if (!dladdr(pc, &info) || !info.dli_fname)
        format(buf, n, "%p", pc);
    else if (info.dli_sname)
        format(buf, n, "%s", info.dli_sname);
    else
        format(buf, n, "%s+0x%zx", info.dli_fname, (size_t)((char *)pc - (char *)info.dli_fbase));
}

/* bytes is the size less the colour, which is much less than half. */
static size_t size_asked(const struct mag_stack *st)
{
    size_t size = MAG_STACK_BYTES_MIN;

    while (size < st->bytes)
        size *= 2;
    return size;
}

static void report(const struct mag_stack *st, void *pc)
{
    /* relaxed: a function pointer, set before any task runs. */
    mag_stack_describe_fn *describe = mag_load_relaxed(&watch.describe);
    char who[256] = "a task", where[160];

    if (describe)
        describe(st, who, sizeof who);
    name_pc(pc, where, sizeof where);
    mag_check_print("%s overflowed its %zu KiB stack at %s; raise .stack_bytes", who,
                    size_asked(st) / 1024, where);
}

static void set_default(int sig)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };

    (void)mag_sys_sigaction(sig, &dfl, NULL);
}

/* To the handler before ours; where there was none, the fault happens again and kills. */
static void pass_on(int sig, siginfo_t *info, void *uc)
{
    const struct sigaction *old = &watch.before[sig == SIGSEGV ? 0 : 1];

    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(sig, info, uc);
    } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(sig);
    } else if (info->si_code > 0) {
        set_default(sig);
    } else if (old->sa_handler == SIG_DFL) {
        /* Sent by kill(2): no instruction would fault again. */
        set_default(sig);
        (void)mag_sys_tgkill(mag_sys_gettid(), sig);
    }
}

/* A return to the faulting instruction faults again, so the core shows that place. */
static void on_fault(int sig, siginfo_t *info, void *uc)
{
    struct mag_stack st;

    if (info->si_code > 0 && mag_stack_guard_hit(info->si_addr, &st)) {
        report(&st, mag_context_interrupted_at(uc));
        set_default(sig);
        return;
    }
    pass_on(sig, info, uc);
}

static int watch_install(void)
{
    struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    int rc = 0;

    for (size_t i = 0; i < MAG_ARRAY_SIZE(fault_signals) && rc == 0; i++)
        rc = mag_sys_sigaction(fault_signals[i], NULL, &watch.before[i]);
    for (size_t i = 0; i < MAG_ARRAY_SIZE(fault_signals) && rc == 0; i++)
        rc = mag_sys_sigaction(fault_signals[i], &act, NULL);
    return rc;
}

int mag_stack_watch(mag_stack_describe_fn *describe)
{
    int rc = 0;

    mag_store_relaxed(&watch.describe, describe);
    mag_spin_lock(&watch.lock);
    if (!watch.is_installed) {
        rc = watch_install();
        watch.is_installed = rc == 0;
    }
    mag_spin_unlock(&watch.lock);
    return rc;
}

int mag_stack_altstack_init(struct mag_stack_alt *a)
{
    stack_t st;
    int rc;

    *a = (struct mag_stack_alt){ 0 };
    if ((rc = mag_sys_sigaltstack(NULL, &st)) < 0)
        return rc;
    if (!(st.ss_flags & SS_DISABLE))
        return 0;
    if ((rc = mag_sys_mmap(NULL, ALT_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0,
                           &a->lo)) < 0)
        return rc;
    st = (stack_t){ .ss_sp = a->lo, .ss_size = ALT_BYTES };
    if ((rc = mag_sys_sigaltstack(&st, NULL)) < 0) {
        (void)mag_sys_munmap(a->lo, ALT_BYTES);
        a->lo = NULL;
        return rc;
    }
    a->bytes = ALT_BYTES;
    return 0;
}

void mag_stack_altstack_fini(struct mag_stack_alt *a)
{
    stack_t off = { .ss_flags = SS_DISABLE };

    if (!a->lo)
        return;
    (void)mag_sys_sigaltstack(&off, NULL);
    (void)mag_sys_munmap(a->lo, a->bytes);
    *a = (struct mag_stack_alt){ 0 };
}
