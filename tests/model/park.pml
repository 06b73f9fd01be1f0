/* SPDX-License-Identifier: MIT */
/*
 * park.pml - who sleeps, who searches, and who wakes whom
 *
 * Mirrors runtime/idle.c (labels A and B; notify, notify_one, claim_searcher,
 * search_begin, search_end, search_again, park, unpark), its use in runtime/loop.c
 * (loop, idle, park, sees_public_work, sees_own_work) and in runtime/worker.c (post,
 * send, stop), and the sticky wake of ring.h.
 *
 * Producers publish work for anybody (a deque's public part, or the inject queue) and
 * work for one worker (its inbox).  Each side writes one word and then reads the
 * other's: without a full fence on both sides the two stores may sit in the two store
 * buffers and the wake-up is lost.  One buffered store for each process is enough, as
 * each has one racing store; it reaches memory at any moment, at a fence at the latest.
 * Under the lock of idle.c is one atomic step.
 *
 * No work ends until NB works run at the same time, each on a worker of its own: so
 * whatever leaves a worker asleep while work waits is a deadlock, which Spin reports as
 * an invalid end state.  That covers lost wake-ups, lost parallelism, and a stop that
 * does not stop; -DLIVE claims, under weak fairness, that everybody ends, so that nobody
 * runs in circles either.  NB is what can always be had: worker 0 may be occupied by its
 * own work, which then is one of the NB, or by work for anybody, while its own waits.
 *
 * Own work must occupy its worker like any other.  A worker's search may have kept a
 * producer from ringing although it ended too early to find the work; if the worker then
 * runs something of its own, the work is left to sleepers whom nobody wakes.
 *
 * Mutations, each of which must fail
 *   NO_PFENCE        a producer does not fence (A) after it published
 *   NO_WFENCE        a worker does not fence (B) after it announced that it sleeps
 *   NO_STOPCHK       the last look ignores `stop' (ClickHouse/silk#152)
 *   NO_INBOXCHK      the last look ignores the worker's own inbox
 *   LAST_SEARCHER    the last searcher, having found something, does not wake the next
 *   RUN_SEARCHING    a worker that was woken to search runs what it finds at its first
 *                    look while it still counts as searching
 *   NO_SEARCH_AGAIN  a worker that sees work for anybody in its last look does not become
 *                    a searcher again before it runs something
 *   NOT_STICKY       a bell rung while the worker is awake is lost
 *   STEAL_BELL       a parked worker that finds something does not look whether it was
 *                    claimed, and leaves the search to others
 */
#ifndef NW
#define NW 2    /* workers */
#endif
#ifndef NB
#define NB 2    /* works for anybody; at most NW, as each needs a worker */
#endif
#ifndef NI
#define NI 1    /* works for worker 0 alone */
#endif

byte public;                    /* works for anybody that nobody has taken   */
byte inbox;                     /* works for worker 0 that it has not taken  */
byte n_searching, n_parked;
bool is_parked[NW], is_searching[NW];
bool bell[NW];                  /* the ring's wake word                      */
bool stop;
byte n_running, n_done, n_ended;

/* ---- idle.c ---- */

inline claim_searcher(w) {
    atomic {
        do
        :: w < NW && !is_parked[w] -> w++
        :: else -> break
        od;
        if
        :: n_searching != 0 -> w = NW
        :: else
        fi;
        if
        :: w < NW -> is_parked[w] = 0; n_parked--; is_searching[w] = 1; n_searching++
        :: else
        fi
    }
}

inline notify(w) {
    if
    :: n_searching != 0
    :: else ->
        if
        :: n_parked == 0
        :: else ->
            claim_searcher(w);
            if
            :: w < NW -> bell[w] = 1
            :: else
            fi;
            w = 0
        fi
    fi
}

inline notify_one(who) {
    if
    :: !is_parked[who]
    :: else ->
        if
        :: atomic { is_parked[who] -> is_parked[who] = 0; n_parked-- }
            bell[who] = 1
        :: !is_parked[who]
        fi
    fi
}

inline search_end(has_found, w) {
    is_searching[id] = 0;
    if
    :: atomic { n_searching == 1 -> n_searching = 0 }
#ifndef LAST_SEARCHER
        if
        :: has_found -> notify(w)       /* fenced by the decrement */
        :: else
        fi
#endif
    :: atomic { n_searching > 1 -> n_searching-- }
    fi
}

inline search_again() {
    if
    :: is_searching[id]         /* claimed: its waker has counted it */
    :: !is_searching[id] -> n_searching++; is_searching[id] = 1
    fi
}

/* ---- who adds work ---- */

#define PUBLISH(what) atomic { what++; pending = 0 }

#ifndef NO_PFENCE
#define publish(what) PUBLISH(what)     /* (A) */
#define drain(what) skip
#else
inline publish(what) {
    pending = 1;
    if
    :: PUBLISH(what)
    :: skip
    fi
}

inline drain(what) {
    if
    :: pending -> PUBLISH(what)
    :: else
    fi
}
#endif

proctype producer() {
    byte i, w;
    bool pending;

    do
    :: i < NB -> publish(public); notify(w); drain(public); i++
    :: else -> break
    od;
    i = 0
}

proctype sender() {
    byte i;
    bool pending;

    do
    :: i < NI -> publish(inbox); notify_one(0); drain(inbox); i++
    :: else -> break
    od;
    i = 0
}

proctype stopper() {
    byte w;

    n_done == NB + NI;
    stop = 1;
    do
    :: w < NW -> notify_one(w); w++
    :: else -> break
    od;
    w = 0
}

/* ---- a worker ---- */

/* Waits for the others: NB works occupy NB workers, or this never ends. */
inline work() {
    n_running++;
    n_running >= NB;
    n_done++
}

inline enter_parked() { atomic { is_parked[id] = 1; n_parked++; pending = 0 } }

#ifndef NO_WFENCE
#define announce() enter_parked()       /* (B) */
#define maybe_drain() skip
#define drain_parked() skip
#else
inline maybe_drain() {
    if
    :: pending -> enter_parked()
    :: skip
    fi
}

inline announce() { pending = 1; maybe_drain() }

inline drain_parked() {
    if
    :: pending -> enter_parked()
    :: else
    fi
}
#endif

proctype worker(byte id) {
    byte w;
    bool found, pending, sees_public, sees_own;

begin:
    if
    :: stop -> goto end_worker
    :: !stop
    fi;
    found = 0;
    if
    :: atomic { id == 0 && inbox > 0 -> inbox-- }
        if
        :: is_searching[id] -> search_end(true, w)
        :: else
        fi;
        work();
        goto begin
#ifdef RUN_SEARCHING
    :: atomic { is_searching[id] && public > 0 -> public-- }
        work();
        goto begin
#endif
    :: id != 0 || inbox == 0
    fi;

    /* search, if not half of the workers do */
    if
    :: is_searching[id]
    :: !is_searching[id] && 2 * n_searching < NW ->
        n_searching++; is_searching[id] = 1
    :: !is_searching[id] && 2 * n_searching >= NW -> goto park
    fi;
    if
    :: atomic { public > 0 -> public--; found = 1 }
    :: public == 0
    fi;
    search_end(found, w);
    if
    :: found -> found = 0; work(); goto begin
    :: else
    fi;

park:
    announce();
    sees_public = (public > 0);
    maybe_drain();
#ifndef NO_INBOXCHK
    if
    :: !sees_public && id == 0 -> sees_own = (inbox > 0); maybe_drain()
    :: else
    fi;
#endif
#ifndef NO_STOPCHK
    if
    :: !sees_public && !sees_own -> sees_own = stop
    :: else
    fi;
#endif
    drain_parked();
    if
    :: !sees_public && !sees_own -> atomic { bell[id] -> bell[id] = 0 }
#ifdef NOT_STICKY
    :: !sees_public && !sees_own -> bell[id] = 0; atomic { bell[id] -> bell[id] = 0 }
#endif
    :: sees_public || sees_own
    fi;
    sees_own = 0;
#ifdef STEAL_BELL
    atomic { is_searching[id] = 0; is_parked[id] = 0; n_parked-- }
#else
    atomic {
        if
        :: is_parked[id] -> is_parked[id] = 0; n_parked--
        :: else         /* claimed: the bell has come, or will, and ends some sleep */
        fi
    }
#endif
#ifndef NO_SEARCH_AGAIN
    if
    :: sees_public -> search_again()
    :: else
    fi;
#endif
    sees_public = 0;
    goto begin;

end_worker:
    n_ended++
}

init {
    atomic {
        run producer(); run sender(); run stopper();
        run worker(0); run worker(1);
#if NW > 2
        run worker(2)
#endif
    }
}

#ifdef LIVE
ltl everybody_ends { <> (n_ended == NW) }
#endif
