/* SPDX-License-Identifier: MIT */
/*
 * deque.pml - the split deque: owner, two thieves, requests and forced steals
 *
 * Mirrors runtime/deque.c (labels C and D; push, expose, pop_at, pop_slow, steal_half,
 * request, force), whose inlined half is in include/magpie/fork.h.
 *
 * Memory is x86's: every store of the owner goes through a FIFO store buffer, from
 * which its own loads are served first and which drains at any time; a fence or a
 * locked instruction waits until it is empty.  membarrier waits, at the thief's end,
 * for an instant at which the owner's buffer is empty: all that a fence on the owner's
 * processor does, as its loads are in order anyway.  The thieves' stores are not
 * buffered: a thief never reads, outside the lock, what it wrote before, but for hints.
 *
 * The owner pushes NJ works and pops up to NP times, in any order; each thief steals,
 * requests or forces K times, in any order, without heeding the hints that in the code
 * tell it which makes sense: safety must not hang on hints.  Whoever is asked by the
 * hungry may answer "still hungry" or not.
 *
 * Properties: no work is taken twice; none is lost (at the end what nobody took is in
 * the deque); top <= split <= bot and no deadlock.
 *
 * Mutations, each of which must fail
 *   NO_MEMBARRIER     force without the fence on the owner's processor
 *   NO_GUARD          pop never looks at guard
 *   GUARD_BEFORE_BOT  pop loads guard before it stores bot
 *   NO_LOCK           pop_slow without the lock
 *   NO_GEN            force does not look whether guard was reset since its membarrier
 *   GEN_FIRST         expose counts before it resets guard, not after
 *   SLOW_UNCOUNTED    pop_slow resets guard without counting
 *   BOT_LATE          force reads bot after the checks, not before
 */
#ifndef NJ
#define NJ 3
#endif
#ifndef NP
#define NP 2
#endif
#ifndef K
#define K 2
#endif
#define SB 4    /* depth of the store buffer */
#define ASKED 255

/* Addresses. */
#define BOT 0
#define GUARD 1
#define LIM 2   /* 1: far away; 0: the next push is to look */
#define SPLIT 3
#define GEN 4
#define LOCK 5
#define TOP 6
#define SLOT 7

byte mem[SLOT + NJ];
byte buf_address[SB], buf_value[SB], n_buf;
byte ran[NJ + 1];
byte n_finished;

inline take(work) {
    assert(work != 0 && ran[work] == 0);
    ran[work] = 1
}

/* ---- the owner's memory ---- */

inline store(address, value) {
    atomic { n_buf < SB -> buf_address[n_buf] = address; buf_value[n_buf] = value; n_buf++ }
}

inline load_(address, value) {
    value = mem[address]; k = 0;
    do
    :: k < n_buf ->
        if
        :: buf_address[k] == address -> value = buf_value[k]
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0
}

inline load(address, value) {
    d_step { load_(address, value) }
}

inline fence() { n_buf == 0 }

proctype drain() {
    byte k;
end:
    do
    :: atomic { n_buf > 0 ->
        mem[buf_address[0]] = buf_value[0];
        n_buf--; k = 0;
        do
        :: k < n_buf -> buf_address[k] = buf_address[k + 1]; buf_value[k] = buf_value[k + 1]; k++
        :: else -> break
        od;
        buf_address[n_buf] = 0; buf_value[n_buf] = 0; k = 0 }
    od
}

/* ---- the owner ---- */

inline count() { gen++; store(GEN, gen) }

inline expose() {
#ifdef GEN_FIRST
    count();
#endif
    store(SPLIT, bot);
    store(GUARD, bot);
#ifndef GEN_FIRST
    count();
#endif
    store(LIM, 1);
    fence();                            /* (E) */
    if
    :: store(LIM, 0)                    /* somebody is hungry */
    :: skip
    fi
}

inline push() {
    store(SLOT + bot, n_pushed + 1);
    d_step { n_pushed++; bot++ }
    store(BOT, bot);
    load(LIM, x);
    if
    :: x == 0 -> expose()
    :: else -> x = 0
    fi
}

/* bot was lowered; mine says whether what was above is the owner's. */
inline pop_slow() {
#ifndef NO_LOCK
    atomic { n_buf == 0 && mem[LOCK] == 0 -> mem[LOCK] = 1 }
#endif
    load(GUARD, g);
    d_step { mine = (bot >= mem[TOP]); load_(SPLIT, x) }
    if
    :: !mine -> bot++; store(BOT, bot)
    :: mine && bot < x -> store(SPLIT, bot); x = bot
    :: else
    fi;
    store(GUARD, x);
    x = 0;
#ifndef SLOW_UNCOUNTED
    count();
#endif
#ifndef NO_LOCK
    store(LOCK, 0);
#endif
    if
    :: g == ASKED -> g = 0; expose()
    :: else -> g = 0
    fi
}

inline pop() {
    d_step { bot--; load_(SLOT + bot, w) }
#ifdef GUARD_BEFORE_BOT
    load(GUARD, g);
    store(BOT, bot);
#else
    store(BOT, bot);
    load(GUARD, g);                     /* (C) */
#endif
    mine = true;
#ifndef NO_GUARD
    if
    :: bot < g -> g = 0; pop_slow()
    :: else -> g = 0
    fi;
#endif
    atomic {
        if
        :: mine -> take(w)
        :: else
        fi;
        w = 0; g = 0; mine = 0
    }
}

proctype owner() {
    byte bot, gen, g, k, w, x, n_pushed, n_popped;
    bool mine;

    do
    :: n_pushed < NJ -> push()
    :: n_popped < NP && bot > 0 -> n_popped++; pop()
    :: n_pushed == NJ -> break
    od;
    fence();
    atomic { bot = 0; gen = 0; n_pushed = 0; n_popped = 0; n_finished++ }
}

/* ---- a thief ---- */

/* A try that fails has no effect, so it is enough to model one that waits. */
inline lock() { atomic { mem[LOCK] == 0 -> mem[LOCK] = 1 } }

inline steal() {
    lock();
    d_step {
        n = (mem[SPLIT] > mem[TOP] -> (mem[SPLIT] - mem[TOP] + 1) / 2 : 0);
        do
        :: n > 0 -> take(mem[SLOT + mem[TOP]]); mem[TOP]++; n--
        :: else -> break
        od;
        mem[LOCK] = 0
    }
}

inline request() {
    mem[GUARD] = ASKED;
    mem[LIM] = 0
}

inline force() {
    gen = mem[GEN];
    if
    :: mem[GUARD] != ASKED -> request()
    :: else ->
#ifndef NO_MEMBARRIER
        n_buf == 0;                     /* (D) */
#endif
        lock();
#ifndef BOT_LATE
        bot = mem[BOT];
#endif
        if
#ifndef NO_GEN
        :: mem[GEN] != gen
#endif
        :: mem[GUARD] != ASKED
        :: else ->
#ifdef BOT_LATE
            bot = mem[BOT];
#endif
            if
            :: bot > mem[SPLIT] -> mem[SPLIT] = bot
            :: else
            fi
        fi;
        atomic { bot = 0; mem[LOCK] = 0 }
    fi;
    gen = 0
}

proctype thief(bool may_force) {
    byte bot, gen, i, n;

    do
    :: i == K -> break
    :: i < K -> i++; steal()
    :: i < K -> i++; request()
    :: i < K && may_force -> i++; force()
    od;
    atomic { i = 0; may_force = 0; n_finished++ }
}

init {
    byte i = 1;

    atomic { mem[LIM] = 1; run owner(); run thief(true); run thief(false); run drain() }
    n_finished == 3;
    d_step {
        assert(mem[TOP] <= mem[SPLIT] && mem[SPLIT] <= mem[BOT] && mem[LOCK] == 0);
        i = mem[TOP];
        do
        :: i < mem[BOT] -> take(mem[SLOT + i]); i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= NJ -> assert(ran[i] == 1); i++
        :: else -> break
        od
    }
}
