/* SPDX-License-Identifier: MIT */
/*
 * inbox.c - several producers and several takers at once
 *
 * Every node must arrive exactly once, whole, and each producer's nodes in their
 * order as seen by one taker.  The takers hand every node back to its producer by
 * a flag, so nodes are pushed again at the same address, as tasks are.
 */
#include "clock.h"
#include "inbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

enum {
    PRODUCERS = 3,
    TAKERS = 2,
    NODES = 64,
    ROUNDS = MAG_TSAN || MAG_ASAN ? 500 : 4000,
    TOTAL = PRODUCERS * NODES * ROUNDS,
    LIMIT_S = 20,
};

struct item {
    struct mag_inbox_node node;
    mag_atomic(uint32_t) is_out; /* pushed and not yet taken */
    uint32_t producer;           /* plain: the push must publish it */
    uint64_t number;
};

static struct item items[PRODUCERS][NODES];
static struct mag_inbox inbox;
static mag_atomic(uint64_t) n_taken;
static mag_atomic(uint32_t) n_errors;

static void *produce(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    uint64_t number = 0;
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < NODES; i++) {
            struct item *it = &items[me][i];
            while (mag_load_acquire(&it->is_out))
                sched_yield(); /* there may be fewer processors than threads */
            it->producer = me;
            it->number = ++number;
            mag_store_relaxed(&it->is_out, 1);
            mag_inbox_push(&inbox, &it->node);
        }
    }
    return NULL;
}

static void *consume(void *arg)
{
    uint64_t last[PRODUCERS] = {0};
    (void)arg;
    while (mag_load_relaxed(&n_taken) < TOTAL) {
        struct mag_inbox_node *n = mag_inbox_empty(&inbox) ? NULL : mag_inbox_take(&inbox);
        if (n == NULL)
            sched_yield();
        while (n) {
            struct mag_inbox_node *next = n->next;
            struct item *it = mag_container_of(n, struct item, node);
            if (it->producer >= PRODUCERS || it->number <= last[it->producer] ||
                !mag_load_relaxed(&it->is_out))
                mag_fetch_add(&n_errors, 1);
            else
                last[it->producer] = it->number;
            mag_store_release(&it->is_out, 0);
            mag_fetch_add(&n_taken, 1);
            n = next;
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[PRODUCERS + TAKERS];
    mag_inbox_init(&inbox);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&threads[i], NULL, produce, (void *)i);
    for (int i = 0; i < TAKERS; i++)
        pthread_create(&threads[PRODUCERS + i], NULL, consume, NULL);
    mag_time limit = 0;
    for (uint64_t last = 0, now = 1; now < TOTAL && (last != now || mag_clock_now() < limit);) {
        if (last != now) /* it gets on */
            limit = mag_clock_now() + LIMIT_S * MAG_SECOND;
        last = now;
        usleep(1000);
        now = mag_load_relaxed(&n_taken);
    }
    if (mag_load_relaxed(&n_taken) < TOTAL || mag_load_relaxed(&n_errors)) {
        fprintf(stderr, "inbox: nodes were lost, or came twice\n");
        _exit(1);
    }
    for (int i = 0; i < PRODUCERS + TAKERS; i++)
        pthread_join(threads[i], NULL);
    printf("inbox: %llu nodes, %u errors\n", (unsigned long long)n_taken, n_errors);
    return n_errors || !mag_inbox_empty(&inbox);
}
