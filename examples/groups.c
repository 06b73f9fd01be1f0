/* SPDX-License-Identifier: MIT */
/*
 * groups.c - task groups: tasks that end with the block that began them
 *
 *      groups [fetch | service | crawl | limit | plain]     all of them without an argument
 *      groups --help
 *
 * fetch     three pages at once, then a round in which one of them fails: the other two are
 *           cancelled, and the list of errors says who it was.
 * service   a server that has to be up before its client begins (mag_group_start), and is
 *           stopped, without an error, when the client has what it wants.
 * crawl     tasks that begin tasks: a page's links are fetched by children of the same group,
 *           so the one block waits for all of them.
 * limit     twenty downloads, four at a time.
 * plain     a group without the keywords, for other languages and careful C.
 */
#include <magpie/async.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* ---- fetch --------------------------------------------------------------------------- */

async(int, fetch, (const char *, page), (mag_time, takes))
{
    await(mag_sleep(takes));
    if (strcmp(page, "/missing") == 0)
        return -ENOENT;
    async_return((int)strlen(page));
}

async(void, fetch_three, (const char *, third), (struct mag_group_errors *, errors))
{
    int bytes[3];

    task_group (g, .errors = errors) {
        struct fetch *first = group_task(g, fetch("/index", 2 * MAG_MS));
        group_spawn(g, fetch("/about", 4 * MAG_MS), &bytes[1]);
        group_spawn(g, fetch(third, 3 * MAG_MS), &bytes[2]);
        bytes[0] = await(first); /* a handle: its result is there before the block's end */
        printf("/index has come: %d bytes\n", bytes[0]);
    }
    printf("all have come: %d bytes\n", bytes[0] + bytes[1] + bytes[2]);
    return 0;
}

async(void, fetch_demo)
{
    struct mag_group_errors errors;

    await(fetch_three("/contact", &errors));
    int rc = await_rc(fetch_three("/missing", &errors), NULL);
    printf("the second time: %s\n", mag_err_name(rc));
    for (size_t i = 0; i < errors.n; i++)
        printf("  %s: %s, spawned at groups.c:%d\n", errors.list[i].name,
               mag_err_text(errors.list[i].rc), errors.list[i].site->line);
    return 0;
}

/* ---- service ----------------------------------------------------------------------------- */

async(void, serve)
{
    int port = 8080;

    await(mag_sleep(1 * MAG_MS)); /* binds, listens */
    await(mag_started(&port, sizeof port));
    for (;;)
        await(mag_sleep(1 * MAG_MS));
}

async(void, client, (int, port), (struct mag_group *, g))
{
    await(mag_sleep(2 * MAG_MS));
    printf("the client has its answer from port %d\n", port);
    await(mag_group_cancel(g)); /* nobody needs the server any more */
    return 0;
}

async(void, service_demo)
{
    task_group (g) {
        int port;
        await(mag_group_start(g, serve(), &port, sizeof port, NULL));
        printf("the server listens on port %d\n", port);
        group_spawn(g, client(port, g));
    }
    puts("both have ended");
    return 0;
}

/* ---- crawl --------------------------------------------------------------------------------- */

enum { N_PAGES = 31 };

async_decl(void, visit, (struct mag_group *, g), (int, page), (atomic_int *, n_pages));

async_def(void, visit, (struct mag_group *, g), (int, page), (atomic_int *, n_pages))
{
    await(mag_sleep(MAG_MS / 4)); /* the page, with its two links */
    atomic_fetch_add(n_pages, 1);
    for (int link = 2 * page + 1; link <= 2 * page + 2 && link < N_PAGES; link++)
        group_spawn(g, visit(g, link, n_pages));
    return 0;
}

async(void, crawl_demo)
{
    atomic_int n_pages = 0;

    task_group (g) {
        group_spawn(g, visit(g, 0, &n_pages));
    }
    printf("%d pages\n", n_pages);
    return 0;
}

/* ---- limit --------------------------------------------------------------------------------- */

async(void, download, (atomic_int *, n_now), (atomic_int *, n_most))
{
    int now = atomic_fetch_add(n_now, 1) + 1, most = atomic_load(n_most);

    while (now > most && !atomic_compare_exchange_weak(n_most, &most, now))
        ;
    int rc = mag_sleep(MAG_MS / 2);
    atomic_fetch_sub(n_now, 1);
    return rc;
}

async(void, limit_demo)
{
    atomic_int n_now = 0, n_most = 0;

    task_group (g, .limit = 4) {
        for (int i = 0; i < 20; i++)
            group_spawn(g, download(&n_now, &n_most)); /* waits for its turn */
    }
    printf("20 downloads, never more than %d at a time\n", n_most);
    return 0;
}

/* ---- plain --------------------------------------------------------------------------------- */

/* The block is a function of its own: whatever it returns, the group is left. */
static int plain_block(struct mag_group *g, int *bytes)
{
    struct mag_spawn_options here = { .name = "the slow one" };
    struct fetch            *slow = fetch("/slow", MAG_SECOND);
    int                      rc;

    rc = mag_group_spawn(g, fetch("/", 1 * MAG_MS), bytes, NULL);
    if (rc == 0)
        rc = mag_group_task(g, slow, &here);
    if (rc == 0)
        rc = mag_sleep(2 * MAG_MS);
    if (rc == 0)
        rc = mag_cancel(slow); /* one child: no error, and the group goes on */
    printf("errors so far: %d\n", mag_group_errors(g, NULL, 0));
    return rc;
}

async(void, plain_demo)
{
    struct mag_group g;
    int              bytes = 0;
    int              rc = mag_group_enter(&g, NULL);

    if (rc == 0)
        rc = mag_group_leave(&g, plain_block(&g, &bytes));
    printf("plain: %d byte, rc %d\n", bytes, rc);
    return rc;
}

/* ---------------------------------------------------------------------------------------------- */

async(void, demos, (const char *, which))
{
    bool all = which == NULL;

    if (all || strcmp(which, "fetch") == 0)
        await(fetch_demo());
    if (all || strcmp(which, "service") == 0)
        await(service_demo());
    if (all || strcmp(which, "crawl") == 0)
        await(crawl_demo());
    if (all || strcmp(which, "limit") == 0)
        await(limit_demo());
    if (all || strcmp(which, "plain") == 0)
        await(plain_demo());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        FILE *to = argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr;
        fputs("Usage: groups [fetch | service | crawl | limit | plain]\n", to);
        return to == stdout ? 0 : 2;
    }
    return mag_run(demos(argv[1]), NULL) < 0;
}
