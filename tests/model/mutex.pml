/* SPDX-License-Identifier: MIT */
/*
 * mutex.pml - a mutex that may be taken out of turn, and whose wake-ups must not be lost
 *
 * Mirrors runtime/mutex.c on top of waitq.c (wait.pml has that): the word with HELD, QUEUED
 * and AWAKE, try_take, take_or_announce (A), next_turn, unlock (B).  Each CAS of the word is
 * one atomic step; what is done under q.lock is interleaved with the CASes of others, as the
 * lock keeps only each other's sections apart.
 *
 * NT tasks lock and unlock.  Task 0 is cancelled at some moment: asleep, it leaves the queue;
 * woken to try, it may find the mutex held and is then refused by its next sleep.  A waiter
 * that was woken in vain may be impatient.  A wake-up that is lost leaves somebody asleep for
 * ever, which Spin reports as an invalid end state.
 *
 * Claims: never two inside; everybody ends, and the word is 0 then (but for QUEUED, which the
 * last cancel may leave).  -DLIVE: the same under weak fairness.
 *
 * Mutations, each of which must fail
 *   KEEP_TOKEN     who was woken to try, and is cancelled, leaves with AWAKE still set
 *   LATE_TOKEN     AWAKE goes in a step of its own, after (A)
 *   NO_LOOK        (A) says QUEUED whether or not the mutex is held by then
 *   ALWAYS_STORE   (B) does not look at QUEUED in the step that frees the mutex
 *   STORE_LATE     next_turn says what is in the queue after it has freed q.lock
 */
#ifndef NT
#define NT 3
#endif

bool held, queued, awake;       /* the word */
bool locked;                    /* q.lock   */
byte queue[NT], n;              /* oldest first */
bool is_queued[NT], is_impatient[NT];
byte woken[NT];                 /* 1: to try, 2: it owns the mutex, 3: cancelled */
bool is_cancelled;
byte n_inside, n_ended;

#define LOCK atomic { !locked -> locked = 1 }
#define UNLOCK locked = 0

inline push_last(w) { queue[n] = w; n++; is_queued[w] = 1 }

inline push_first(w) {
    i = n;
    do
    :: i > 0 -> queue[i] = queue[i - 1]; i--
    :: else -> break
    od;
    queue[0] = w; n++; is_queued[w] = 1
}

inline remove(w) {
    i = 0;
    do
    :: queue[i] != w -> i++
    :: else -> break
    od;
    n--;
    do
    :: i < n -> queue[i] = queue[i + 1]; i++
    :: else -> break
    od;
    queue[n] = 0; i = 0; is_queued[w] = 0
}

inline unlock_mutex() {
    do
#ifdef ALWAYS_STORE
    :: !queued || awake -> held = 0; break
#else
    :: atomic { (!queued || awake) -> held = 0 } break      /* (B) */
#endif
    :: queued && !awake ->
        LOCK;
        d_step {
            w = NT;
            if
            :: n > 0 -> w = queue[0]; remove(w)
            :: else
            fi
        }
        is_given = (w < NT && is_impatient[w]);
        next_queued = (n > 0);
#ifdef STORE_LATE
        UNLOCK;
#endif
        d_step {                /* a store of the whole word */
            queued = next_queued;
            held = (w == NT || is_given);
            awake = !held
        }
#ifndef STORE_LATE
        UNLOCK;
#endif
        if
        :: w < NT -> woken[w] = 1 + is_given; break
        :: else
        fi
    od;
    w = 0; is_given = 0; next_queued = 0
}

proctype task(byte id) {
    byte i, w;
    bool is_given, next_queued, has_token, has_it;

again:
    if                          /* try_take, and the looks */
    :: atomic { !held -> held = 1; awake = awake && !has_token } goto inside
    :: held
    fi;
    is_impatient[id] = 0;
    if
    :: has_token -> is_impatient[id] = 1
    :: true
    fi;
    LOCK;
#ifdef LATE_TOKEN
    atomic {
        has_it = !held;
        if
        :: held -> queued = 1
        :: else -> held = 1
        fi
    }
    if
    :: has_token -> awake = 0
    :: else
    fi;
#else
    atomic {                    /* (A) */
#ifdef NO_LOOK
        has_it = 0; queued = 1;
#else
        has_it = !held;
        if
        :: held -> queued = 1
        :: else -> held = 1
        fi;
#endif
        if
#ifdef KEEP_TOKEN
        :: has_token && (id != 0 || !is_cancelled || has_it) -> awake = 0
#else
        :: has_token -> awake = 0
#endif
        :: else
        fi
    }
#endif
    if
    :: has_it -> UNLOCK; goto inside
    :: !has_it && id == 0 && is_cancelled -> UNLOCK; goto over
    :: else
    fi;
    d_step {
        if
        :: has_token -> push_first(id)
        :: else -> push_last(id)
        fi
    }
    UNLOCK;
    do
    :: woken[id] -> break
    :: id == 0 && is_cancelled && is_queued[id] && woken[id] == 0 ->
        LOCK;
        if
        :: is_queued[id] -> d_step { remove(id); woken[id] = 3 }
        :: else
        fi;
        UNLOCK
    od;
    has_token = (woken[id] == 1);
    if
    :: woken[id] == 1 -> woken[id] = 0; goto again
    :: woken[id] == 2 -> woken[id] = 0
    :: woken[id] == 3 -> woken[id] = 0; goto over
    fi;
inside:
    n_inside++;
    assert(n_inside == 1);
    n_inside--;
    unlock_mutex();
over:
    has_it = 0; has_token = 0;
    n_ended++
}

proctype canceller() { is_cancelled = 1 }

proctype auditor() {
    n_ended == NT;
    assert(!held && !awake && n == 0)
}

init {
    byte t;

    atomic {
        run canceller();
        run auditor();
        do
        :: t < NT -> run task(t); t++
        :: else -> break
        od
    }
}

#ifdef LIVE
ltl everybody_ends { <> (n_ended == NT) }
#endif
