/* SPDX-License-Identifier: MIT */
#ifndef MAG_STACK_H
#define MAG_STACK_H
/*
 * stack.h - guarded stacks for fibers, many and cheap
 *
 * A stack is a slot of a slab, and a slab is one large reservation of address space
 * for stacks of one size.  Pages come when they are touched, so a fiber that needs
 * little costs one page; below each stack lies a guard of 16 KiB that faults.  A
 * stack that is put back is the next one handed out, still warm.
 *
 *      slab  |guard| stack 0  |guard| stack 1  |guard| stack 2  | not yet carved ...
 *                  lo         top            one slot = guard + 2^n bytes
 *
 * Stacks are sized in powers of two from MAG_STACK_BYTES_MIN to _MAX.  The top of a
 * stack is lowered by 0 to 896 bytes by turns ("colour"), because tops at equal
 * distances from page boundaries would share a few cache sets; so `bytes' may be that
 * much less than what was asked for.
 *
 * Who may call: any thread, also at once; nothing here suspends.  get may make a system
 * call (a new stack), put now and then makes some (memory given back in bulk); a small
 * lock is held meanwhile only for the book-keeping.  guard_hit is async-signal-safe.
 */
#include "atomic.h"

struct mag_stack_slab;
struct mag_stack_slot;

/* [owner] whoever got it.  A plain value: copy it freely, put it back once. */
struct mag_stack {
    char *lo; /* usable: [lo, lo + bytes), top 64-byte aligned; guard below */
    size_t bytes;
    struct mag_stack_slab *slab; /* where it belongs */
    struct mag_stack_slot *slot; /* which one of the slab's */
    unsigned valgrind_id;        /* valgrind's name of it, else 0 */
};

enum {
    MAG_STACK_CLASSES = 13, /* 16 KiB, 32 KiB ... 64 MiB */
};

/* Stacks of one size. */
struct mag_stack_class {
    struct mag_spin lock;
    bool is_trimming;             /* [lock] a thread is giving pages back */
    unsigned bytes_log2;          /* [const] */
    struct mag_stack_slab *slabs; /* [lock] newest first; only the first has uncarved slots */
    struct mag_stack_slot *warm;  /* [lock] free, with pages, last used first */
    struct mag_stack_slot *cold;  /* [lock] free, without pages */
    size_t n_warm;                /* [lock] length of that list */
    size_t n_used;                /* [lock] stacks that are out */
    size_t trim_at;               /* [lock] n_warm at which pages are given back */
};

/* All stacks of one runtime. */
struct mag_stacks {
    struct mag_stack_class classes[MAG_STACK_CLASSES];
    bool unguarded_ok;            /* [const] hand out unguarded stacks at the guard limit */
    mag_atomic(const char *) why; /* [any] the last failure in a sentence */
};

/* Makes no system call yet; 0. */
int mag_stacks_init(struct mag_stacks *s, bool unguarded_ok);
/* Every stack must have been put back. */
void mag_stacks_fini(struct mag_stacks *s);

/*
 * A stack of at least `bytes' (less its colour).  -EINVAL above MAG_STACK_BYTES_MAX;
 * -ENOMEM where there is no memory or address space, or where the kernel (before 6.13)
 * allows no more guards and unguarded stacks were not allowed: mag_stack_why() tells
 * which.  On failure *out is unchanged and nothing is lost.
 */
int mag_stack_get(struct mag_stacks *s, size_t bytes, struct mag_stack *out) MAG_MUST_USE;
/* No code may run on it any more. */
void mag_stack_put(struct mag_stacks *s, struct mag_stack *st);
/* Why the last get failed, as a sentence without a stop; "" if none did. */
const char *mag_stack_why(struct mag_stacks *s);

/*
 * Bytes from the top down to the deepest word ever written since the pages of this stack
 * were fresh; earlier users of the stack count too.  Touches no page.  The stack is the
 * caller's or suspended.
 */
size_t mag_stack_high_water(const struct mag_stack *st);

/*
 * Is addr in the guard of a stack that is out, of any runtime of this process, and which?
 * valgrind_id of the answer is 0.  Async-signal-safe.
 */
bool mag_stack_guard_hit(const void *addr, struct mag_stack *out);

/* ---- the report of an overflow -------------------------------------------------------- */

typedef void mag_stack_describe_fn(const struct mag_stack *st, char *buf, size_t n);

/*
 * From now on, whoever runs into a guard ends the process with one line on standard error,
 *
 *   magpie: <described> overflowed its 64 KiB stack at <function>; raise .stack_bytes
 *
 * and then SIGSEGV, so that there is still a core.  `describe' (NULL: "a task") writes what
 * names the task and where it was spawned; it runs in the signal handler.  Faults that are
 * not ours go to whatever handler was there before.  The first call installs the handler,
 * later ones change `describe' only.  -errno of sigaction.
 */
int mag_stack_watch(mag_stack_describe_fn *describe);

/* The stack that a thread's signal handlers run on. */
struct mag_stack_alt {
    void *lo;     /* [owner] NULL: the thread had one already (ASan's), which is kept */
    size_t bytes; /* [owner] */
};

/* For the calling thread, and by it.  Without one an overflow is a bare SIGSEGV. */
int mag_stack_altstack_init(struct mag_stack_alt *a);
void mag_stack_altstack_fini(struct mag_stack_alt *a);

#endif
