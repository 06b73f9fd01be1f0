/* SPDX-License-Identifier: MIT */
/*
 * timeouts.c - deadlines, cancellation and shields, with and without the words
 *
 *      timeouts          all sections, one after the other
 *      timeouts --help
 *
 * limits           with_timeout, wait_for, and how the words look underneath
 * adjusting        a limit that moves while work is under way; one that is called off
 * cleaning up      a cancelled task that takes its time to leave things in order
 * going on         a result that is too precious to be cancelled with who waits for it
 * computing        code that never suspends, and yet stops when it is told
 */
#include <magpie/async.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

async(int, answer, (mag_time, after)) {
    await(mag_sleep(after));
    async_return(42);
}

/* ---- limits --------------------------------------------------------------------------- */

/* -ETIMEDOUT leaves this function, because the block is in it. */
async(void, impatient) {
    with_timeout (10 * MAG_MS) {
        await(answer(MAG_MINUTE));
    }
    return 0;
}

/* The same in plain C, for any language: a scope is a bracket around some calls. */
static int ask_plainly(mag_time limit)
{
    struct mag_scope scope;
    int rc = mag_scope_enter(&scope, mag_now() + limit, NULL);

    if (rc == 0)
        rc = mag_scope_leave(&scope, mag_await(answer(MAG_MINUTE), NULL, 0));
    return rc;
}

async(void, limits) {
    int value = 0;

    printf("with_timeout: %s\n", mag_err_name(await_rc(impatient(), NULL)));
    printf("mag_scope_enter: %s\n", mag_err_name(ask_plainly(10 * MAG_MS)));
    printf("mag_wait_for: %s\n",
           mag_err_name(mag_wait_for(answer(MAG_MINUTE), 10 * MAG_MS, NULL, 0)));
    await(mag_wait_for(answer(MAG_MS), MAG_MINUTE, &value, sizeof value));
    printf("in time: %d\n", value);
    return 0;
}

/* ---- adjusting ------------------------------------------------------------------------- */

async(void, adjusting) {
    static const struct mag_site here = { __FILE__, __LINE__, "adjusting" };
    mag_time begun = mag_now();
    struct mag_scope scope;
    int rc;

    await(mag_scope_enter(&scope, begun + 5 * MAG_MS, &here));
    await(mag_scope_reschedule(&scope, begun + 20 * MAG_MS));
    rc = mag_sleep(MAG_MINUTE);
    printf("fired: %s, at the later time: %s\n", mag_scope_expired(&scope) ? "yes" : "no",
           mag_now() >= mag_scope_when(&scope) ? "yes" : "no");
    rc = mag_scope_leave(&scope, rc);
    printf("it ends with %s\n", mag_err_name(rc));

    await(mag_scope_enter(&scope, MAG_NEVER, &here));
    await(mag_scope_cancel(&scope)); /* "stop what is inside", by what is inside */
    rc = mag_scope_leave(&scope, mag_sleep(MAG_MINUTE));
    printf("called off: %s, fired by time: %s\n", mag_err_name(rc),
           mag_scope_expired(&scope) ? "yes" : "no");
    return 0;
}

/* ---- cleaning up -------------------------------------------------------------------------- */

async(void, worker) {
    struct mag_scope shield;
    int rc = mag_sleep(MAG_MINUTE);

    /* Every suspension fails now, but for those in a shield: here for a second at most. */
    await(mag_shield_enter(&shield, MAG_SECOND, NULL));
    printf("asked to stop: %s; in the shield: %s\n", mag_err_name(rc),
           mag_err_name(mag_sleep(5 * MAG_MS)));
    (void)mag_scope_leave(&shield, 0);
    printf("after it: %s\n", mag_cancelled() ? "still cancelled" : "as if nothing had been");
    return rc;
}

async(void, cleaning_up) {
    struct worker *task = spawn(worker());

    await(mag_sleep(5 * MAG_MS));
    await(mag_cancel(task));
    printf("the worker ended with %s\n", mag_err_name(await_rc(task, NULL)));
    return 0;
}

/* ---- going on ------------------------------------------------------------------------------- */

static int n_written;

async(void, write_it_down) {
    await(mag_sleep(20 * MAG_MS));
    n_written++;
    return 0;
}

async(void, client) {
    await(mag_shield(write_it_down(), NULL, 0));
    return 0;
}

async(void, going_on) {
    printf("the client: %s\n", mag_err_name(mag_wait_for(client(), 5 * MAG_MS, NULL, 0)));
    await(mag_sleep(60 * MAG_MS));
    printf("written all the same: %d\n", n_written);
    return 0;
}

/* ---- computing --------------------------------------------------------------------------------- */

/* A plain function that raises as `await' does: with its place, and the scope's reason. */
static int search(void)
{
    static const struct mag_site here = { __FILE__, __LINE__, "search" };

    for (;;) {
        int rc = mag_checkpoint();
        if (rc < 0)
            return mag_raise(rc, &here);
    }
}

async(void, computing) {
    struct mag_scope scope;
    int rc;

    await(mag_timeout_enter(&scope, 10 * MAG_MS, NULL));
    rc = mag_scope_leave(&scope, search());
    printf("the search: %s\n", mag_err_name(rc));
    mag_trace_caught();
    return 0;
}

async(void, all) {
    await(limits());
    await(adjusting());
    await(cleaning_up());
    await(going_on());
    await(computing());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        int is_help = strcmp(argv[1], "--help") == 0;
        fputs("usage: timeouts\nShows deadlines, cancellation and shields.\n",
              is_help ? stdout : stderr);
        return is_help ? 0 : 2;
    }
    return mag_run(all(), NULL) < 0;
}
