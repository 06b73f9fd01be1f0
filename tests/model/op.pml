/* SPDX-License-Identifier: MIT */
/*
 * op.pml - life of an operation whose record lies on the stack of the task that waits
 *
 * Mirrors runtime/ring_uring.c (submit, cancel, fill, finish, forget_cancel; the states
 * of op->state) and the rule of io/op.c and runtime/wait.c that nobody leaves before
 * the operation's own completion.
 *
 *      NONE -> BACKLOG -> SUBMITTED -> NONE          cancelled in the backlog: STILLBORN
 *                             `-> CANCEL_WANTED -> CANCEL_SENT -> NONE
 *
 * Two tasks, each with a record at an address of its own, which it uses N_OPS times;
 * one submission queue of SQ_ENTRIES, so that backlog and wanted cancels happen; a
 * kernel that completes, cancels, or is too late to cancel, as it likes.  A cancel may
 * be asked for at any time, also by the stop of the runtime, which waits for what is in
 * flight and then frees the stacks.
 *
 *   LATE_CANCEL       the kernel looks at a cancel when it likes, not in order; passes
 *
 * Properties: whenever the kernel writes a buffer its record is in scope, and still of
 * this operation; a cancel hits the operation that it was meant for; the ring reads no
 * record that is gone; everybody ends.
 *
 * Mutations, each of which must fail
 *   EARLY_LEAVE       the task returns on the cancel's completion (liburing#733)
 *   NO_GEN            (with LATE_CANCEL) a cancel matches by address alone (libxev#233)
 *   NO_FORGET         an operation that completed leaves its unsent cancel queued
 *   LOST_STILLBORN    an operation cancelled in the backlog is dropped, not completed
 *   ABANDON_ON_EXIT   the runtime frees stacks with operations in flight
 */
#ifndef N_OPS
#define N_OPS 2
#endif
#define N_TASKS 2
#define SQ_ENTRIES 1

#define NONE 0
#define BACKLOG 1
#define STILLBORN 2
#define SUBMITTED 3
#define CANCEL_WANTED 4
#define CANCEL_SENT 5

mtype = { OP, NOP, CANCEL };

chan sq = [SQ_ENTRIES] of { mtype, byte, byte };    /* what, address, generation */
chan cq = [4] of { mtype, byte, byte };

/* The records, one for each address; a user's buffer is part of it. */
bool in_scope[N_TASKS];
byte state[N_TASKS];
byte generation[N_TASKS];

/* The ring's queue of cancels for which there was no room: address and generation. */
bool wanted[N_TASKS];
byte n_in_flight;

bool is_nop_sent[N_TASKS];       /* a stillborn one has its SQE */

/* The kernel's. */
bool in_kernel[N_TASKS];
byte kernel_generation[N_TASKS];
bool late[N_TASKS];
byte late_generation[N_TASKS];

bool is_done[N_TASKS];          /* the task has been made ready */
bool is_stopping, is_stopped;
byte n_ended;

/* ---- the kernel ---- */

inline kernel_write(a) {
    assert(in_scope[a] && generation[a] == kernel_generation[a]);
    in_kernel[a] = 0;
    cq!OP, a, kernel_generation[a]
}

#ifndef NO_GEN
#define matches(a, g) (in_kernel[a] && kernel_generation[a] == g)
#else
#define matches(a, g) (in_kernel[a])
#endif

inline kernel_cancel(a, g) {
    if
    :: matches(a, g) ->
        assert(kernel_generation[a] == g);          /* the one that was meant */
        if
        :: kernel_write(a)                          /* is_stopped: -ECANCELED */
        :: skip                                     /* it runs: -EALREADY */
        fi
    :: else                                         /* -ENOENT */
    fi;
    cq!CANCEL, a, g
}

active proctype kernel() {
    byte a, g;

end:
    do
    :: atomic { len(cq) < 3 && sq?[OP, _, _] -> sq?OP, a, g;
        assert(!in_kernel[a]);
        in_kernel[a] = 1; kernel_generation[a] = g; a = 0; g = 0 }
    :: atomic { len(cq) < 3 && sq?[NOP, _, _] -> sq?NOP, a, g; cq!OP, a, g; a = 0; g = 0 }
    :: atomic { len(cq) < 3 && in_kernel[0] -> kernel_write(0) }
    :: atomic { len(cq) < 3 && in_kernel[1] -> kernel_write(1) }
#ifndef LATE_CANCEL
    :: atomic { len(cq) < 3 && sq?[CANCEL, _, _] -> sq?CANCEL, a, g; kernel_cancel(a, g);
        a = 0; g = 0 }
#else
    :: atomic { sq?[CANCEL, _, _] -> sq?CANCEL, a, g;
        if
        :: late[a] -> kernel_cancel(a, g)
        :: !late[a] -> late[a] = 1; late_generation[a] = g
        fi;
        a = 0; g = 0 }
    :: atomic { len(cq) < 3 && late[0] -> late[0] = 0; kernel_cancel(0, late_generation[0]);
        late_generation[0] = 0 }
    :: atomic { len(cq) < 3 && late[1] -> late[1] = 0; kernel_cancel(1, late_generation[1]);
        late_generation[1] = 0 }
#endif
    od
}

/* ---- the ring; everything here runs on one thread ---- */

inline submit(a) {
    generation[a]++;
    n_in_flight++;
    if
    :: nfull(sq) -> sq!OP, a, generation[a]; state[a] = SUBMITTED
    :: full(sq) -> state[a] = BACKLOG
    fi
}

inline cancel(a) {
    if
    :: state[a] == BACKLOG -> state[a] = STILLBORN
    :: state[a] == SUBMITTED && nfull(sq) ->
        sq!CANCEL, a, generation[a]; state[a] = CANCEL_SENT
    :: state[a] == SUBMITTED && full(sq) -> state[a] = CANCEL_WANTED; wanted[a] = 1
    fi
}

/* Moves one thing to the SQ; reads the record. */
inline fill(a) {
    assert(in_scope[a]);
    if
    :: wanted[a] -> wanted[a] = 0;
        assert(state[a] == CANCEL_WANTED);
        sq!CANCEL, a, generation[a]; state[a] = CANCEL_SENT
    :: else ->
        if
        :: state[a] == BACKLOG -> sq!OP, a, generation[a]; state[a] = SUBMITTED
        :: state[a] == STILLBORN -> sq!NOP, a, generation[a]
        fi
    fi
}

#ifdef LOST_STILLBORN
#define to_fill(a) (wanted[a] || state[a] == BACKLOG)
#else
#define to_fill(a) (wanted[a] || state[a] == BACKLOG || \
                    (state[a] == STILLBORN && !is_nop_sent[a]))
#endif

inline finish(a, g) {
    assert(in_scope[a] && generation[a] == g && state[a] != NONE);
#ifndef NO_FORGET
    wanted[a] = 0;
#endif
    state[a] = NONE;
    is_nop_sent[a] = 0;
    n_in_flight--;
    is_done[a] = 1
}

active proctype ring() {
    byte a, g;

    do
    :: atomic { nfull(sq) && to_fill(0) -> is_nop_sent[0] = (state[0] == STILLBORN); fill(0) }
    :: atomic { nfull(sq) && to_fill(1) -> is_nop_sent[1] = (state[1] == STILLBORN); fill(1) }
    :: atomic { cq?[OP, _, _] -> cq?OP, a, g; finish(a, g); a = 0; g = 0 }
    :: atomic { cq?[CANCEL, _, _] -> cq?CANCEL, a, g;
#ifdef EARLY_LEAVE
        is_done[a] = 1;
#endif
        a = 0; g = 0 }
    :: atomic { n_ended == N_TASKS && empty(sq) && empty(cq) && !late[0] && !late[1] -> break }
    od
}

/* ---- the tasks ---- */

proctype task(byte a) {
    byte n;

    do
    :: atomic { n < N_OPS && !is_stopping -> n++; in_scope[a] = 1; is_done[a] = 0; submit(a) }
        do
        :: atomic { !is_done[a] && (state[a] == BACKLOG || state[a] == SUBMITTED) -> cancel(a) }
        :: atomic { is_done[a] -> is_done[a] = 0; in_scope[a] = 0; break }
#ifdef ABANDON_ON_EXIT
        :: is_stopped -> break
#endif
        od
    :: n == N_OPS || is_stopping -> break
    od;
    atomic { n = 0; n_ended++ }
}

proctype stop() {
    is_stopping = 1;
#ifndef ABANDON_ON_EXIT
    n_ended == N_TASKS;
#endif
    atomic { is_stopped = 1; in_scope[0] = 0; in_scope[1] = 0 }
}

init {
    atomic { run task(0); run task(1); run stop() }
}
