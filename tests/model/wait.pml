/* SPDX-License-Identifier: MIT */
/*
 * wait.pml - waiters that are woken, time out and are cancelled, all at the same moment
 *
 * Mirrors runtime/waitq.c (join, push, pop, wake, cancel) and what it stands on: a wake-up is
 * a message to the waiter's home (mag_worker_ready), which reads it when the task is off its
 * stack; deadlines and cancels are delivered there, too (scope.c, cancel.c).
 *
 * Two waiters, each on a worker of its own, want one thing each of one queue.  A waker gives
 * two things, one after the other, to whoever has waited longest, or keeps one, if nobody
 * does, for who comes later.  Waiter 0 is under a deadline and is cancelled besides; waiter 1
 * waits for ever, so if anything is lost it never ends, which Spin reports as an invalid end
 * state.
 *
 *      waiter     cancelled? leave.  lock; kept? take, unlock; or push, unlock; suspend
 *      waker      lock, pop or keep, unlock; write what the wait returns; message to the home
 *      timer,     on the home: lock, still queued? remove, unlock; write -ECANCELED; message
 *      cancel
 *
 * Under a lock is one atomic step.  A waiter's record is on its stack: once it has returned,
 * to touch it is an error.
 *
 * Claims: exactly one of waker, timer and cancel wins, so a waiter is made ready once, off
 * its stack, and returns what the winner said; nobody touches it after it has returned;
 * nothing is kept while somebody waits; what was given is taken, by somebody who says so.
 * With -DLIVE, under weak fairness: every wait ends.
 *
 * Mutations, each of which must fail
 *   TWO_WINNERS       a cancel does not look whether the waiter is still queued
 *   TWO_POPS          a pop leaves the waiter in the queue
 *   DROP_ON_CANCEL    who has been given something, but sees that it is cancelled, leaves
 *                     with -ECANCELED and without it
 *   TOUCH_AFTER_LOSE  who has handed a waiter back writes to it once more
 *   LOOK_THEN_LOCK    the waiter looks for what is kept before it takes the lock to queue
 *   READY_ON_STACK    a wake-up resumes the waiter there and then, not by way of its home
 */
#define NW 2 /* waiters, things */

mtype = { NONE, GIVEN, CANCELED };

byte kept;                      /* things that nobody has waited for          */
byte oldest, newest;            /* the queue: waiter + 1; 0: nobody           */
bool is_queued[NW];

mtype said[NW] = NONE;          /* the record: what the winner wrote          */
bool is_suspended[NW];          /* off its stack                              */
bool has_returned[NW];          /* the record is gone                         */
byte n_ready[NW];               /* messages that its home has not read        */
bool is_cancelled, is_sent;     /* waiter 0: the flag; a message is under way */
mtype got[NW] = NONE;           /* what its wait returned                     */
byte n_ended;
bool has_given;                 /* the waker is done                          */

/* ---- under the lock ---- */

inline push(w) {
    is_queued[w] = 1;
    if
    :: oldest == 0 -> oldest = w + 1
    :: else -> newest = w + 1
    fi;
    assert(kept == 0)           /* or it would wait for what is there */
}

inline remove(w) {
    is_queued[w] = 0;
    if
    :: oldest == w + 1 -> oldest = newest; newest = 0
    :: newest == w + 1 -> newest = 0
    :: else
    fi
}

/* ---- with no lock ---- */

inline wake(w, what) {
    assert(!has_returned[w]);
    said[w] = what;
    assert(!has_returned[w]);
#ifdef READY_ON_STACK
    assert(is_suspended[w]);
#endif
    atomic { n_ready[w]++; assert(n_ready[w] == 1) }    /* its last touch */
#ifdef TOUCH_AFTER_LOSE
    assert(!has_returned[w])
#endif
}

proctype waker() {
    byte n, w;

    do
    :: n < NW ->
        atomic {
            if
            :: oldest == 0 -> kept++; w = 0
            :: else -> w = oldest;
#ifndef TWO_POPS
                remove(w - 1)
#endif
            fi
        }
        if
        :: w > 0 -> wake(w - 1, GIVEN)
        :: else
        fi;
        n++
    :: else -> break
    od;
    n = 0; w = 0;
    has_given = 1
}

proctype canceller() {
    is_cancelled = 1;
    is_sent = 1
}

/* On the home, while the waiter is suspended there. */
inline cancel_wait() {
    atomic {
#ifdef TWO_WINNERS
        is_winner = 1;
#else
        is_winner = is_queued[id];
#endif
        remove(id)
    }
    if
    :: is_winner -> wake(id, CANCELED)
    :: else
    fi;
    is_winner = 0
}

/* A waiter, and then its home's loop. */
proctype waiter(byte id) {
    bool is_winner, has_fired;

    if
    :: id == 0 && is_cancelled -> got[id] = CANCELED; goto over
    :: else
    fi;
#ifdef LOOK_THEN_LOCK
    if
    :: atomic { kept > 0 -> kept--; got[id] = GIVEN } goto over
    :: kept == 0
    fi;
    atomic { push(id) }
#else
    if
    :: atomic { kept > 0 -> kept--; got[id] = GIVEN } goto over
    :: atomic { kept == 0 -> push(id) }
    fi;
#endif
    is_suspended[id] = 1;
    do
    :: atomic { n_ready[id] > 0 -> n_ready[id]--; is_suspended[id] = 0 } break
    :: id == 0 && !has_fired -> has_fired = 1; cancel_wait()
    :: id == 0 && is_sent -> is_sent = 0; cancel_wait()
    od;
    got[id] = said[id];
#ifdef DROP_ON_CANCEL
    if
    :: id == 0 && is_cancelled -> got[id] = CANCELED
    :: else
    fi;
#endif
over:
    has_returned[id] = 1;
    assert(got[id] == GIVEN || (got[id] == CANCELED && id == 0));
    n_ended++;
    is_winner = 0; has_fired = 0
}

proctype auditor() {
    has_given && n_ended == NW;
    assert(oldest == 0 && newest == 0);
    assert(kept + (got[0] == GIVEN) + (got[1] == GIVEN) == NW)
}

init {
    atomic { run waker(); run canceller(); run waiter(0); run waiter(1); run auditor() }
}

#ifdef LIVE
ltl everybody_ends { <> (n_ended == NW) }
#endif
