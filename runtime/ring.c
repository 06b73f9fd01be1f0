/* SPDX-License-Identifier: MIT */
/*
 * ring.c - choose a back-end, and say clearly why there is none
 *
 * Who names a back-end (in the options, else in MAGPIE_BACKEND) gets that one or an
 * error.  Who names none gets io_uring; or epoll, if io_uring is refused and no ring of
 * the process uses it: rings of one runtime must not differ, so what the first was
 * refused the next ones do not ask for.
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
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

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

#if MAG_ASAN
#define NO_ASAN __attribute__((no_sanitize_address, noinline))
#else
#define NO_ASAN
#endif

/* A stretch of memory into which the kernel may write. */
struct lent {
    void *p;
    size_t len;
    bool is_counted; /* it is filled from its beginning, by as much as the result says */
};

typedef void lent_fn(const struct lent *lent, int32_t result);

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The vectors are filled one after the other. */
static void each_vector(const struct iovec *v, size_t n, int32_t result, lent_fn *fn)
{
    size_t left = result > 0 ? (size_t)result : 0;

    for (size_t i = 0; i < n; i++) {
        size_t here = least(left, v[i].iov_len);
        struct lent lent = { v[i].iov_base, v[i].iov_len, true };
        if (lent.len)
            fn(&lent, result < 0 ? result : (int32_t)here);
        left -= here;
    }
}

/* What is there at all, and all of it if anything came. */
static void each_whole(void *p, uint64_t len, int32_t result, lent_fn *fn)
{
    struct lent lent = { p, (size_t)len, false };

    if (p && len)
        fn(&lent, result);
}

/* The kernel changes the lengths in the message: those before are taken from the operation.
 * The message itself is lent, too, and read here all the same. */
static NO_ASAN void each_of_message(const struct mag_op *op, int32_t result, lent_fn *fn)
{
    const struct msghdr *m = op->addr;

    each_whole(op->addr, sizeof *m, result, fn);
    each_vector(m->msg_iov, m->msg_iovlen, result, fn);
    each_whole(m->msg_name, op->len, result, fn);
    each_whole(m->msg_control, op->offset, result, fn);
}

static void each_of_address(const struct mag_op *op, int32_t result, lent_fn *fn)
{
    each_whole(op->addr, op->len, result, fn);
    if (op->addr)
        each_whole((void *)(uintptr_t)op->offset, sizeof(socklen_t), result, fn);
}

/* Calls fn for each stretch. */
static void each_lent(const struct mag_op *op, int32_t result, lent_fn *fn)
{
    struct iovec one = { op->addr, op->len };

    if (op->code == MAG_OP_READ || op->code == MAG_OP_RECV)
        each_vector(&one, 1, result, fn);
    else if (op->code == MAG_OP_READV)
        each_vector(op->addr, op->len, result, fn);
    else if (op->code == MAG_OP_RECVMSG)
        each_of_message(op, result, fn);
    else if (op->code == MAG_OP_ACCEPT)
        each_of_address(op, result, fn);
    else if (op->code == MAG_OP_STATX)
        each_whole((void *)(uintptr_t)op->offset, sizeof(struct statx), result, fn);
}

#if MAG_ASAN
static void poison(const struct lent *lent, int32_t result)
{
    (void)result;
    __asan_poison_memory_region(lent->p, lent->len);
}

/* A touch of what is not there makes a report, which names who submitted or reaped. */
static void touch(const struct lent *lent, int32_t result)
{
    const volatile char *bad = __asan_region_is_poisoned(lent->p, lent->len);

    (void)result;
    if (bad)
        (void)*bad;
}

/* Memory that the kernel only reads: others may read it too, so it is not poisoned; but it
 * must be there when the operation begins, and still when it ends. */
static void look_at_sources(const struct mag_op *op)
{
    struct iovec one = { op->addr, op->len };
    const struct msghdr *m = op->addr;

    if (op->code == MAG_OP_WRITE || op->code == MAG_OP_SEND || op->code == MAG_OP_CONNECT)
        each_vector(&one, 1, 0, touch);
    else if (op->code == MAG_OP_WRITEV)
        each_vector(op->addr, op->len, 0, touch);
    else if (op->code == MAG_OP_SENDMSG) {
        each_vector(m->msg_iov, m->msg_iovlen, 0, touch);
        each_whole(m->msg_name, m->msg_namelen, 0, touch);
        each_whole(m->msg_control, m->msg_controllen, 0, touch);
    }
}

void mag_ring_lend(const struct mag_op *op)
{
    look_at_sources(op);
    each_lent(op, 0, poison);
}
#else
static void look_at_sources(const struct mag_op *op)
{
    (void)op;
}

void mag_ring_lend(const struct mag_op *op)
{
    (void)op;
}
#endif

static void unpoison(const struct lent *lent, int32_t result)
{
#if MAG_ASAN
    __asan_unpoison_memory_region(lent->p, lent->len);
#endif
    if (result >= 0)
        VALGRIND_MAKE_MEM_DEFINED(lent->p,
                                  lent->is_counted ? least((size_t)result, lent->len) : lent->len);
}

void mag_ring_give_back(const struct mag_op *op, int32_t result)
{
    look_at_sources(op);
    each_lent(op, result, unpoison);
}

/* ---- choosing -------------------------------------------------------------- */

/* Open rings of one runtime must be of one kind, and workers open theirs at once. */
static struct {
    pthread_mutex_t lock;
    bool is_refused;     /* [lock] io_uring, so epoll it is */
    unsigned n_io_uring; /* [lock] open ones */
} choice = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool is_refusal(int rc)
{
    return rc == -EPERM || rc == -EACCES || rc == -ENOSYS || rc == -EINVAL;
}

static void say_refused(void)
{
    const char *why_not = mag_ring_why(), *colon = strchr(why_not, ' ');

    mag_check_print("io_uring is not available (%s): using epoll", colon ? colon + 1 : why_not);
}

/* With the choice locked. */
static int open_uring(struct mag_ring **out, unsigned entries)
{
    int rc = mag_ring_uring_open(out, entries);

    if (rc == 0)
        choice.n_io_uring++;
    return rc;
}

static int open_best(struct mag_ring **out, unsigned entries)
{
    int rc = choice.is_refused ? 0 : open_uring(out, entries);

    if (rc < 0 && (choice.n_io_uring > 0 || !is_refusal(rc)))
        return rc;
    if (rc < 0) {
        choice.is_refused = true;
        say_refused();
    }
    return choice.is_refused ? mag_ring_epoll_open(out, entries) : 0;
}

static int open_named(struct mag_ring **out, const char *name, unsigned entries)
{
    if (strcmp(name, "io_uring") == 0)
        return open_uring(out, entries);
    if (strcmp(name, "epoll") == 0)
        return mag_ring_epoll_open(out, entries);
    mag_ring_set_why("back-end \"%s\" (from MAGPIE_BACKEND or the options) is unknown; "
                     "this build has: io_uring, epoll",
                     name);
    return -EINVAL;
}

int mag_ring_open(struct mag_ring **out, const struct mag_ring_options *options)
{
    unsigned entries = options && options->entries ? options->entries : MAG_RING_ENTRIES;
    const char *name = options ? options->backend : NULL;
    int rc;

    if (!name)
        name = mag_sys_getenv("MAGPIE_BACKEND");
    pthread_mutex_lock(&choice.lock);
    rc = name && *name ? open_named(out, name, entries) : open_best(out, entries);
    pthread_mutex_unlock(&choice.lock);
    return rc;
}

void mag_ring_close(struct mag_ring *r)
{
    bool is_io_uring = strcmp(mag_ring_backend(r), "io_uring") == 0;

    MAG_CHECK(r->n_in_flight == 0);
    r->ops->close(r);
    pthread_mutex_lock(&choice.lock);
    choice.n_io_uring -= is_io_uring;
    pthread_mutex_unlock(&choice.lock);
}
