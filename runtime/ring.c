/* SPDX-License-Identifier: MIT */
/*
 * ring.c - choose a back-end, and say clearly why there is none
 *
 * A back-end is a row in a table: a name and an open function, best first.  Who
 * names one (in the options, else in MAGPIE_BACKEND) gets that one or an error;
 * who names none gets the first that opens.
 *
 * When io_uring is missing it is seldom the program's fault and never obvious:
 * container run-times forbid it by seccomp, distributions by a sysctl, and the
 * limit on locked memory makes the fifth worker fail where four worked.  So
 * each refusal is turned into one sentence that names the cause and the remedy.
 *
 * The sentence is kept for the process, because the thread that fails (a worker) is
 * not the one that reports (who called mag_rt_new).  Sentences rotate through a few
 * buffers, so that one which is being read stays whole while the next is written;
 * only after SLOTS more failures could a reader see two mixed, and none crash.
 *
 * Also here, since every back-end needs it: marking lent buffers for the tools.
 *
 * Who may call: open any thread, which becomes the owner; why any thread.
 *
 * Ordering: a sentence is written, then published (A); mag_ring_why (B) reads.
 *
 * Rejected: falling back from a back-end that the user named (the measurement that
 * follows would be of something else); a thread-local sentence (see above).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include "check.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#if MAG_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif
#endif
#ifndef VALGRIND_MAKE_MEM_DEFINED
#define VALGRIND_MAKE_MEM_DEFINED(p, n) ((void)(p), (void)(n))
#endif

/* ---- why not --------------------------------------------------------------- */

enum {
    SLOTS = 8, /* a power of two */
    WHY_BYTES = 240,
};

static struct {
    mag_atomic(uint32_t) n_taken;    /* [any] sentences begun */
    mag_atomic(const char *) latest; /* [any] the last one finished */
    char text[SLOTS][WHY_BYTES];     /* [any] each by who took it */
} why;

void mag_ring_set_why(const char *format, ...)
{
    char *text = why.text[mag_fetch_add(&why.n_taken, 1) % SLOTS];
    va_list args;
    va_start(args, format);
    mag_check_format(text, WHY_BYTES, format, args);
    va_end(args);
    mag_store_release(&why.latest, text); /* (A) pairs with ring.c (B) */
}

const char *mag_ring_why(void)
{
    const char *text = mag_load_acquire(&why.latest); /* (B) pairs with ring.c (A) */
    return text ? text : "";
}

/* ---- lent memory ----------------------------------------------------------- */

/* The bytes into which the kernel may write; len 0 if none. */
static void lent_bytes(const struct mag_op *op, void **p, size_t *len)
{
    *p = NULL;
    *len = 0;
    if (op->code == MAG_OP_READ) {
        *p = op->addr;
        *len = op->len;
    } else if (op->code == MAG_OP_STATX) {
        *p = (void *)(uintptr_t)op->offset;
        *len = sizeof(struct statx);
    }
}

#if MAG_ASAN
void mag_ring_lend(const struct mag_op *op)
{
    void *p;
    size_t len;
    lent_bytes(op, &p, &len);
    if (len)
        __asan_poison_memory_region(p, len);
}
#else
void mag_ring_lend(const struct mag_op *op)
{
    (void)op;
}
#endif

void mag_ring_give_back(const struct mag_op *op, int32_t result)
{
    void *p;
    size_t len;
    lent_bytes(op, &p, &len);
    if (len == 0)
        return;
#if MAG_ASAN
    __asan_unpoison_memory_region(p, len);
#endif
    if (result >= 0)
        VALGRIND_MAKE_MEM_DEFINED(p, op->code == MAG_OP_READ ? (size_t)result : len);
}

/* ---- choosing -------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*open)(struct mag_ring **out, unsigned entries);
} backends[] = {
    { "io_uring", mag_ring_uring_open },
};

static int open_named(struct mag_ring **out, const char *name, unsigned entries)
{
    for (size_t i = 0; i < MAG_ARRAY_SIZE(backends); i++)
        if (strcmp(backends[i].name, name) == 0)
            return backends[i].open(out, entries);
    mag_ring_set_why("back-end \"%s\" (from MAGPIE_BACKEND or the options) is unknown; "
                     "this build has: io_uring",
                     name);
    return -EINVAL;
}

int mag_ring_open(struct mag_ring **out, const struct mag_ring_options *options)
{
    unsigned entries = options && options->entries ? options->entries : MAG_RING_ENTRIES;
    const char *name = options ? options->backend : NULL;
    if (!name)
        name = mag_sys_getenv("MAGPIE_BACKEND");
    if (name && *name)
        return open_named(out, name, entries);

    int rc = -ENOSYS;
    for (size_t i = 0; i < MAG_ARRAY_SIZE(backends); i++) {
        rc = backends[i].open(out, entries);
        if (rc == 0)
            break;
    }
    return rc;
}

void mag_ring_close(struct mag_ring *r)
{
    MAG_CHECK(r->n_in_flight == 0);
    r->ops->close(r);
}
