/* SPDX-License-Identifier: MIT */
/*
 * queues.c - bounded queues, and waiting for several things at once
 *
 *      queues [pipeline | orders | select]      all three without an argument
 *      queues --help
 *
 * pipeline  three workers crawl a list of pages that a reader puts into a queue of four.  The
 *           reader cannot run ahead of them by more than that: this is what a bound is for.
 *           join waits until every page has been dealt with; the shutdown then tells the
 *           workers that nothing comes any more, so they need no "end" item.
 * orders    the same items through a queue of each order.
 * select    a dispatcher that takes jobs from two queues, answers into a third, and keeps an
 *           eye on a stop event, the clock, and a task, all in one place.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/queue.h>
#include <magpie/select.h>
#include <magpie/sync.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- pipeline ------------------------------------------------------------------------- */

enum { N_PAGES = 12, N_WORKERS = 3, ROOM = 4 };

struct page {
    int number;
};

async(int, crawl, (struct mag_queue *, pages))
{
    struct page page;
    int n = 0, rc;

    while ((rc = mag_queue_get(pages, &page)) == 0) {
        await(mag_sleep(2 * MAG_MS)); /* the network */
        mag_queue_task_done(pages);
        n++;
    }
    if (rc != -EPIPE) /* -EPIPE: it was shut down, and nothing is left */
        return rc;
    async_return(n);
}

async(void, read_list, (struct mag_queue *, pages))
{
    size_t longest = 0;

    for (int i = 1; i <= N_PAGES; i++) {
        await(mag_queue_put(pages, &(struct page){ i })); /* waits while it is full */
        if (mag_queue_len(pages) > longest)
            longest = mag_queue_len(pages);
    }
    printf("read %d pages, never more than %zu ahead\n", N_PAGES,
           longest < mag_queue_capacity(pages) ? longest : mag_queue_capacity(pages));
    return 0;
}

async(void, pipeline)
{
    struct crawl *workers[N_WORKERS];
    struct mag_queue *pages;
    int crawled[N_WORKERS], sum = 0;

    await(mag_queue_new(&pages, sizeof(struct page), ROOM,
                        &(struct mag_queue_options){ .name = "pages" }));
    for (int i = 0; i < N_WORKERS; i++)
        workers[i] = spawn(crawl(pages));
    await(read_list(pages));
    await(mag_queue_join(pages));
    mag_queue_shutdown(pages, false);
    gather_n(crawled, workers, N_WORKERS);
    for (int i = 0; i < N_WORKERS; i++)
        sum += crawled[i];
    printf("%d workers crawled %d %s\n", N_WORKERS, sum, mag_queue_name(pages));
    mag_queue_free(pages);
    return 0;
}

/* ---- orders ------------------------------------------------------------------------------ */

struct letter {
    int urgency; /* the least first */
    const char *text;
};

static int compare_urgency(const void *a, const void *b)
{
    return ((const struct letter *)a)->urgency - ((const struct letter *)b)->urgency;
}

async(void, show_order, (const char *, name), (enum mag_queue_order, order))
{
    static const struct letter letters[] = { { 2, "b" }, { 1, "a" }, { 2, "c" }, { 9, "z" } };
    struct letter letter;
    struct mag_queue *q;

    await(mag_queue_new(&q, sizeof letter, 4,
                        &(struct mag_queue_options){ .order = order, .compare = compare_urgency }));
    for (int i = 0; !mag_queue_is_full(q); i++)
        mag_queue_try_put(q, &letters[i]); /* does not wait: -EAGAIN if it were full */
    printf("%s:", name);
    while (!mag_queue_is_empty(q)) {
        mag_queue_try_get(q, &letter);
        printf(" %s", letter.text);
    }
    putchar('\n');
    mag_queue_free(q);
    return 0;
}

async(void, orders)
{
    await(show_order("fifo", MAG_FIFO));
    await(show_order("lifo", MAG_LIFO));
    await(show_order("priority", MAG_PRIORITY));
    return 0;
}

/* ---- select ------------------------------------------------------------------------------ */

struct office {
    struct mag_queue *urgent, *usual, *answers;
    struct mag_event closed;
};

async(void, clients, (struct office *, o))
{
    for (int i = 1; i <= 5; i++) {
        await(mag_queue_put(i % 2 ? o->usual : o->urgent, &i));
        await(mag_sleep(1 * MAG_MS));
    }
    return 0;
}

async(void, close_later, (struct office *, o))
{
    await(mag_sleep(40 * MAG_MS));
    return mag_event_set(&o->closed);
}

/* One place for everything that can happen. */
async(void, dispatcher, (struct office *, o), (struct clients *, visit))
{
    struct mag_case never = mag_case_at(MAG_NEVER); /* one that takes no part just now */
    int job, answer, n_jobs = 0, n_told = 0;
    bool is_over = false;

    for (;;) {
        bool owes = n_jobs > n_told; /* an answer: first that, then the next job */
        struct mag_case cases[] = {
            mag_case_event(&o->closed),
            owes ? mag_case_put(o->answers, &answer) : never,
            owes ? never : mag_case_get(o->urgent, &job),
            owes ? never : mag_case_get(o->usual, &job),
            is_over ? never : mag_case_done(visit),
            mag_case_at(mag_now() + MAG_SECOND),
        };
        switch (await(mag_select(cases, 6))) {
        case 0:
            printf("closed after %d jobs and %d answers\n", n_jobs, n_told);
            return 0;
        case 1:
            n_told++; /* the answer is in the queue */
            break;
        case 2:
        case 3:
            answer = 10 * job;
            n_jobs++;
            break;
        case 4:
            puts("the last client has gone");
            is_over = true;
            break;
        default:
            puts("nothing happened for a second");
            return -ETIMEDOUT;
        }
    }
}

async(void, select_demo)
{
    struct office o = { 0 };
    int answer, n = 0;

    await(mag_queue_new(&o.urgent, sizeof(int), 2, NULL));
    await(mag_queue_new(&o.usual, sizeof(int), 2, NULL));
    await(mag_queue_new(&o.answers, sizeof(int), 8, NULL));
    struct clients *visit = spawn(clients(&o));
    struct close_later *closing = spawn(close_later(&o));
    int rc = await_rc(dispatcher(&o, visit), NULL);
    await(visit);
    await(closing);

    struct mag_case any = mag_case_get(o.answers, &answer);
    while (mag_select_nowait(&any, 1) == 0) /* -EAGAIN: none is left */
        n++;
    printf("%d answers were waiting\n", n);
    mag_queue_free(o.urgent);
    mag_queue_free(o.usual);
    mag_queue_free(o.answers);
    return rc;
}

/* ---- main ---------------------------------------------------------------------------------- */

async(void, all)
{
    await(pipeline());
    await(orders());
    await(select_demo());
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (argc == 1)
        return mag_run(all(), NULL) < 0;
    if (strcmp(what, "pipeline") == 0)
        return mag_run(pipeline(), NULL) < 0;
    if (strcmp(what, "orders") == 0)
        return mag_run(orders(), NULL) < 0;
    if (strcmp(what, "select") == 0)
        return mag_run(select_demo(), NULL) < 0;
    fputs("usage: queues [pipeline | orders | select]\n", stdout);
    return strcmp(what, "--help") == 0 ? 0 : 2;
}
