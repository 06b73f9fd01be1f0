/* SPDX-License-Identifier: MIT */
/*
 * deque.pml - the split deque: an owner, a thief who steals, asks and forces, another
 * who asks
 *
 * Mirrors runtime/deque.c (labels C, D and E; push, expose, pop_at, pop_slow,
 * pop_oldest, steal_half, request, force), whose inlined half is in
 * include/magpie/fork.h.  Left out: a full deque, works taken from the middle (under
 * the lock), and who is hungry (whoever is asked answers as it likes).
 *
 * Memory is x86's: every store of the owner goes through a FIFO store buffer, from
 * which its own loads are served first and which drains at any time; a fence or a
 * locked instruction waits until it is empty.  membarrier waits, at the thief's end,
 * for an instant at which the owner's buffer is empty: all that a fence on the owner's
 * processor does, as its loads are in order anyway.  The thieves' stores are not
 * buffered: a thief never reads, outside the lock, what it wrote before, but for hints.
 *
 * The owner pushes NJ works and pops up to NP times, in any order; the thieves do K
 * things each, in any order, without heeding the hints that in the code tell them
 * which makes sense: safety must not hang on hints.  In the end a thief takes what is
 * public and the owner the rest.
 *
 * Properties: no work is taken twice, none is lost, and no deadlock.
 *
 * GEN counts how often the owner has reset guard.  A forcing thief takes its value
 * before the membarrier; if it and guard are the same under the lock, guard has been
 * "asked" all the time since, so every pop after the membarrier takes the lock.  That
 * stands on three orders: whoever stores guard counts, and after the store; and bot
 * is read before the two are compared.
 *
 *   OLDEST            with pop_oldest as well; passes
 *
 * Mutations, each of which must fail
 *   NO_MEMBARRIER     force without the fence on the owner's processor
 *   NO_GUARD          pop never looks at guard
 *   GUARD_BEFORE_BOT  pop loads guard before it stores bot
 *   NO_LOCK           pop_slow without the lock
 *   NO_GEN            force does not look whether guard was reset since its membarrier
 *   GEN_FIRST         expose counts before it resets guard, not after
 *   SLOW_UNCOUNTED    pop_slow resets guard without counting
 *   OLDEST_UNCOUNTED  so does pop_oldest
 *   BOT_LATE          force reads bot after it compared, not before
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
    assert(work != 0 && ran[work] == 0);     /* not taken before */
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

/* As a thief would, from the lower end. */
inline pop_oldest() {
    atomic { n_buf == 0 && mem[LOCK] == 0 -> mem[LOCK] = 1 }
    load(TOP, x);
    if
    :: x < bot ->
        w = mem[SLOT + x];
        x++;
        store(TOP, x);
        if
        :: mem[SPLIT] < x -> store(SPLIT, x)
        :: else
        fi;
        load(GUARD, g);
        if
        :: g < x -> store(GUARD, x);
#ifndef OLDEST_UNCOUNTED
            count()
#endif
        :: else
        fi;
        store(LOCK, 0);
        atomic { take(w); w = 0; g = 0 }
    :: else -> store(LOCK, 0)
    fi;
    x = 0
}

proctype owner() {
    byte bot, gen, g, k, w, x, n_pushed, n_popped;
    bool mine;

    do
    :: n_pushed < NJ -> push()
    :: n_popped < NP && bot > 0 -> n_popped++; pop()
#ifdef OLDEST
    :: n_popped < NP && bot > 0 -> n_popped++; pop_oldest()
#endif
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
        is_asked = (mem[GUARD] == ASKED);
#ifndef NO_GEN
        is_asked = is_asked && mem[GEN] == gen;
#endif
#ifdef BOT_LATE
        bot = mem[BOT];
#endif
        if
        :: is_asked && bot > mem[SPLIT] -> mem[SPLIT] = bot
        :: else
        fi;
        atomic { bot = 0; is_asked = 0; mem[LOCK] = 0 }
    fi;
    gen = 0
}

proctype thief() {
    byte bot, gen, i, n;
    bool is_asked;

    do
    :: i == K -> break
    :: i < K -> i++; steal()
    :: i < K -> i++; request()
    :: i < K -> i++; force()
    od;
    atomic { i = 0; n_finished++ }
}

/* Another thief, who never gets further than to ask. */
proctype asker() {
    byte i;

    do
    :: i == K -> break
    :: i < K -> i++; request()
    od;
    atomic { i = 0; n_finished++ }
}

init {
    byte i = 1;

    atomic { mem[LIM] = 1; run owner(); run thief(); run asker(); run drain() }
    n_finished == 3;
    d_step {
        assert(mem[LOCK] == 0);
        i = mem[TOP];       /* a thief would take up to split, the owner up to bot */
        do
        :: i < mem[SPLIT] || i < mem[BOT] -> take(mem[SLOT + i]); i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= NJ -> assert(ran[i] == 1); i++
        :: else -> break
        od
    }
}
