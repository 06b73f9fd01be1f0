/* SPDX-License-Identifier: MIT */
#ifndef MAG_INFLIGHT_H
#define MAG_INFLIGHT_H
/*
 * inflight.h - which operations use a descriptor, so that a close can end them first
 *
 * A call notes itself before its first attempt (begin), says before each other one what it is
 * about to submit (enter), and signs off (end).  inflight.c tells how a close finds it.
 *
 * The structs are on their caller's stack; the fields are inflight.c's, under its lock.
 */
#include "ring.h"
#include "worker.h"

/* Who sleeps: a fiber, or a thread at the futex. */
struct mag_inflight_sleeper {
    struct mag_inflight_sleeper *next;
    struct mag_fiber *fiber; /* NULL: a thread */
    mag_atomic(uint32_t) is_woken;
};

struct mag_inflight;

/* A close. */
struct mag_closer {
    struct mag_closer *next;
    struct mag_inflight *target;         /* whose home the message is on its way to */
    struct mag_inflight_sleeper *behind; /* who wants the descriptor after this */
    struct mag_inflight_sleeper self;
    struct mag_message msg;
    unsigned n_left; /* calls that have not signed off */
    int fd;
    bool is_asleep;
};

/* A call. */
struct mag_inflight {
    struct mag_inflight *next, **link;
    struct mag_closer *closer; /* NULL: nobody closes it */
    struct mag_worker *home;   /* whose ring has op; NULL: none yet */
    struct mag_op *op;         /* the current attempt */
    struct mag_fiber *fiber;   /* whose call it is, while it is detained */
    int fd;
    bool is_asked;    /* the closer's message has been there */
    bool is_detained; /* at its end, suspended until the closer's message has come */
};

/* In a task.  While the descriptor is being closed this waits (no cancellation point): then the
 * number is nobody's, or another's.  Who needs two begins with the lower one.  With an op it is
 * the first enter, too; it may be NULL. */
void mag_inflight_begin(struct mag_inflight *f, int fd, struct mag_op *op);

/* Just before op is submitted, without a suspension between: 0; -EBADF: do not, it is being
 * closed. */
int mag_inflight_enter(struct mag_inflight *f, struct mag_op *op);

/* Whether it is being closed.  Suspends if the closer's message is under way. */
bool mag_inflight_end(struct mag_inflight *f);

/*
 * Around a close(2): _close ends everything in flight on the descriptor, and returns when
 * nothing is and nothing begins; _closed lets others have the number.  In a task they suspend
 * (not cancellation points), outside they block; not in a callback.
 */
void mag_inflight_close(struct mag_closer *c, int fd);
void mag_inflight_closed(struct mag_closer *c);

#endif
