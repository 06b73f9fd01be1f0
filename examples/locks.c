/* SPDX-License-Identifier: MIT */
/*
 * locks.c - what tasks agree with each other by
 *
 *      locks           all sections, one after the other
 *      locks --help
 *
 * mutex, condition     a kitchen whose counter has room for two plates
 * event, barrier       three runners warm up, meet at the line, and wait for the shot
 * semaphore            a car park with two places; somebody loses patience; and a library that
 *                      may be called by two threads at a time
 * read-write lock      a catalogue that many read and one keeps up to date
 * once                 the catalogue is loaded by whoever needs it first
 *
 * Storage is the program's: zero is ready for use, a number to begin with needs an _init.
 */
#include <magpie.h>
#include <magpie/async.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- mutex, condition ------------------------------------------------------------------- */

enum { ROOM = 2, MEALS = 5 };

struct counter {
    struct mag_mutex mutex;
    struct mag_cond changed;
    int n_plates, n_served; /* by who holds the mutex */
};

/* A mutex as a block: async_with (held, h, &mutex) { ... } gives it back on every way out. */
struct held {
    struct mag_mutex *mutex;
};
static int held_enter(struct held *h, struct mag_mutex *mutex)
{
    h->mutex = mutex;
    return mag_mutex_lock(mutex);
}
static void held_exit(struct held *h)
{
    mag_mutex_unlock(h->mutex);
}
async_resource(held)

async(void, cook, (struct counter *, c))
{
    for (int i = 0; i < MEALS; i++) {
        async_with (held, h, &c->mutex) {
            while (c->n_plates == ROOM)
                await(mag_cond_wait(&c->changed, h->mutex)); /* gives it back meanwhile */
            c->n_plates++;
            mag_cond_notify_all(&c->changed);
        }
    }
    return 0;
}

static bool has_plate(void *c)
{
    return ((struct counter *)c)->n_plates > 0;
}

async(void, serve, (struct counter *, c))
{
    for (int i = 0; i < MEALS; i++) {
        async_with (held, h, &c->mutex) {
            await(mag_cond_wait_until_true(&c->changed, h->mutex, has_plate, c));
            c->n_plates--;
            c->n_served++;
            mag_cond_notify(&c->changed, 1);
        }
    }
    return 0;
}

async(void, run_a_kitchen)
{
    struct counter c = { .n_plates = 0 };

    gather(NULL, cook(&c), serve(&c));
    printf("%d meals served, %d left, the counter is %s\n", c.n_served, c.n_plates,
           mag_mutex_locked(&c.mutex) ? "taken" : "free");
    if (mag_mutex_trylock(&c.mutex) == 0)
        mag_mutex_unlock(&c.mutex);
    printf("to give back what nobody has: %s\n", mag_err_name(mag_mutex_unlock(&c.mutex)));
    return 0;
}

/* ---- event, barrier --------------------------------------------------------------------- */

enum { N_RUNNERS = 3 };

struct race {
    struct mag_barrier line;
    struct mag_event shot;
};

async(int, runner, (struct race *, race), (int, number))
{
    await(mag_sleep(number * MAG_MS));                  /* to warm up takes each its time */
    int place = await(mag_barrier_wait(&race->line));   /* 0 .. 3, in the order of arrival */
    await(mag_event_wait(&race->shot));
    async_return(place);
}

async(void, run_a_race)
{
    struct race race = { .shot = { { 0 } } };
    struct runner *runners[N_RUNNERS];

    await(mag_barrier_init(&race.line, N_RUNNERS + 1)); /* the starter waits there, too */
    for (int i = 0; i < N_RUNNERS; i++)
        runners[i] = spawn(runner(&race, i));
    int places = await(mag_barrier_wait(&race.line));
    printf("the shot has been heard: %s; waiting at the line: %u of %u\n",
           mag_event_is_set(&race.shot) ? "yes" : "no", mag_barrier_n_waiting(&race.line),
           mag_barrier_parties(&race.line));
    await(mag_event_set(&race.shot));
    for (int i = 0; i < N_RUNNERS; i++)
        places += await(runners[i]);
    printf("all have started, their places add up to %d\n", places);
    await(mag_event_clear(&race.shot)); /* for the next race */
    return 0;
}

/* Somebody does not come: the others are told. */
async(void, call_a_race_off)
{
    struct race race = { .shot = { { 0 } } };

    await(mag_barrier_init(&race.line, N_RUNNERS));
    struct runner *first = spawn(runner(&race, 1));
    await(mag_sleep(3 * MAG_MS));
    await(mag_barrier_abort(&race.line));
    int rc = await_rc(first, NULL);
    printf("called off: %s, broken: %s\n", mag_err_name(rc),
           mag_barrier_is_broken(&race.line) ? "yes" : "no");
    await(mag_barrier_reset(&race.line)); /* whole again */
    return 0;
}

/* ---- semaphore ----------------------------------------------------------------------------- */

async(void, car, (struct mag_sem *, places), (mag_time, patience))
{
    with_timeout (patience) {
        await(mag_sem_acquire(places)); /* in the order in which they came */
    }
    int rc = mag_sleep(40 * MAG_MS);
    mag_sem_release(places); /* whatever happened meanwhile */
    return rc;
}

static int call_old_library(void *n_calls)
{
    return ++*(int *)n_calls;
}

async(void, park_cars)
{
    struct mag_sem places, one_at_a_time;
    int rcs[4], n_left = 0, n_calls = 0;

    await(mag_sem_init_bounded(&places, 2));
    gather(NULL, car(&places, MAG_SECOND), car(&places, MAG_SECOND), car(&places, MAG_SECOND),
           car(&places, 5 * MAG_MS), (.rcs = rcs));
    for (int i = 0; i < 4; i++)
        n_left += rcs[i] == -ETIMEDOUT;
    printf("%d lost patience, %lld places are free\n", n_left, (long long)mag_sem_value(&places));
    printf("one release too many: %s\n", mag_err_name(mag_sem_release(&places)));
    while (mag_sem_try_acquire(&places) == 0) /* -EAGAIN: none is left */
        continue;
    printf("full: %s\n", mag_sem_locked(&places) ? "yes" : "no");

    await(mag_sem_init(&one_at_a_time, 1));
    await(mag_to_thread_limited(&one_at_a_time, call_old_library, &n_calls));
    await(mag_to_thread_limited(&one_at_a_time, call_old_library, &n_calls));
    printf("the library was called %d times\n", n_calls);
    return 0;
}

/* ---- read-write lock, once ------------------------------------------------------------------ */

static struct {
    struct mag_once loaded;
    struct mag_rwlock lock;
    int n_loads, n_books, edition;
} catalogue;

static int load(void *unused)
{
    (void)unused;
    catalogue.n_loads++;
    catalogue.n_books = 1000;
    return mag_sleep(2 * MAG_MS); /* from a disc, say; who comes meanwhile waits */
}

async(int, look_up)
{
    await(mag_once(&catalogue.loaded, load, NULL));
    await(mag_rwlock_rdlock(&catalogue.lock)); /* beside other readers */
    int n = catalogue.n_books;
    mag_rwlock_rdunlock(&catalogue.lock);
    async_return(n);
}

async(int, add_books, (int, n))
{
    await(mag_once(&catalogue.loaded, load, NULL));
    await(mag_rwlock_wrlock(&catalogue.lock)); /* alone */
    catalogue.n_books += n;
    catalogue.edition++;
    int now = catalogue.n_books;
    mag_rwlock_wrunlock(&catalogue.lock);
    async_return(now);
}

async(void, use_catalogue)
{
    int n[5];

    gather(n, look_up(), add_books(20), look_up(), add_books(3), look_up());
    printf("%d books, edition %d, loaded %d time\n", catalogue.n_books, catalogue.edition,
           catalogue.n_loads);
    if (mag_rwlock_trywrlock(&catalogue.lock) == 0) {
        printf("while one writes, to read: %s\n",
               mag_err_name(mag_rwlock_tryrdlock(&catalogue.lock)));
        mag_rwlock_wrunlock(&catalogue.lock);
    }
    return 0;
}

/* ---- main -------------------------------------------------------------------------------------- */

async(void, all)
{
    await(run_a_kitchen());
    await(run_a_race());
    await(call_a_race_off());
    await(park_cars());
    await(use_catalogue());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        bool is_help = strcmp(argv[1], "--help") == 0;
        fputs("usage: locks\n", is_help ? stdout : stderr);
        return is_help ? 0 : 2;
    }
    return mag_run(all(), NULL) < 0;
}
