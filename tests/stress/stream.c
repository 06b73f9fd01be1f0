/* SPDX-License-Identifier: MIT */
/*
 * stream.c - streams that several tasks use at once, on several workers
 *
 *   asks    one task writes a question, and reads: what it wrote must be sent by that read, even
 *           if another task has just begun to send something else (stream.c: FLUSH)
 *   pumps   one task writes much while another reads as much from the same stream, through a
 *           peer that echoes
 *   ends    a third task closes or aborts a stream that others read and write; afterwards its
 *           storage is somebody else's
 *   owners  the storage is the reader's, who closes, too, when its read has been ended
 *
 * A lost wake-up, or a flush that nobody makes, is a hang.
 */
#include "stress.h"

#include <magpie/stream.h>

#include <sys/socket.h>

enum {
    N_WORKERS = 4,
    N_PAIRS = 4,
    N_QUESTIONS = STRESS_SCALE(2500, 400),
    N_PUMPED = STRESS_SCALE(8000000, 800000),
    N_ENDS = STRESS_SCALE(4000, 400),
};

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes:
 * who gets such a number next seems to race with its former user. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:open_pair\nrace:owned_one\n";
}
#endif

struct pair {
    struct mag_stream a, b;
};

static void open_pair(struct pair *p, const struct mag_stream_options *options)
{
    int fds[2] = { -1, -1 };

    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    EXPECT(mag_stream_of_fd(&p->a, fds[0], options) == 0);
    EXPECT(mag_stream_of_fd(&p->b, fds[1], options) == 0);
}

static void close_pair(struct pair *p)
{
    (void)mag_stream_close(&p->a);
    (void)mag_stream_close(&p->b);
    memset(p, 0x55, sizeof *p); /* nobody looks at it any more */
}

/* ---- asks ------------------------------------------------------------------------------- */

/* Answers each question; drops the rest. */
async(void, answers, (struct mag_stream *, s))
{
    struct mag_str line;
    int rc;

    while ((rc = mag_stream_readline(s, &line)) > 0)
        if (strcmp(line.ptr, "ping\n") == 0)
            await(mag_stream_puts(s, "pong\n"));
    return rc;
}

/* Writes beside the one who asks: large pieces, so that the copying takes some time, in which the
 * other one's read finds that somebody has the write side. */
async(void, chatters, (struct mag_stream *, s), (uint64_t, who), (uint32_t *, is_over))
{
    struct mag_rand r = stress_rand(who);
    char noise[12000];

    memset(noise, 'x', sizeof noise);
    noise[sizeof noise - 1] = '\n';
    while (!mag_load_acquire(is_over)) {
        size_t n = 1 + mag_rand_below(&r, sizeof noise);
        await(mag_stream_write(s, noise + sizeof noise - n, n, NULL));
        if (mag_rand_below(&r, 100) == 0)
            await(mag_stream_drain(s));
        if (mag_rand_below(&r, 4) == 0)
            await(mag_yield());
        stress_spin((mag_time)mag_rand_below(&r, 5000));
    }
    return 0;
}

async(void, asks, (uint64_t, who))
{
    struct pair p;
    struct mag_str line;
    uint32_t is_over = 0;

    open_pair(&p, &(struct mag_stream_options){ .high_water = 1000000 });
    task_group(g)
    {
        group_spawn(g, answers(&p.b));
        __auto_type chatter = group_task(g, chatters(&p.a, who, &is_over));
        for (int i = 0; i < N_QUESTIONS; i++) {
            await(mag_stream_puts(&p.a, "ping\n"));
            EXPECT(mag_stream_readline(&p.a, &line) == 5 && strcmp(line.ptr, "pong\n") == 0);
            stress_beat();
        }
        mag_store_release(&is_over, 1);
        await(chatter); /* or it would write after the end */
        await(mag_stream_write_eof(&p.a));
    }
    close_pair(&p);
    return 0;
}

/* ---- pumps ------------------------------------------------------------------------------- */

async(void, echoes, (struct mag_stream *, s))
{
    const char *bytes;
    int n;

    while ((n = mag_stream_fill(s)) > 0) {
        size_t got = mag_stream_peek(s, &bytes);
        await(mag_stream_write(s, bytes, got, NULL));
        mag_stream_consume(s, got);
        stress_beat();
    }
    await(mag_stream_write_eof(s));
    return n;
}

/* In pieces of all sizes; byte i is a function of i. */
async(void, writes, (struct mag_stream *, s), (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    size_t at = 0;

    while (at < N_PUMPED) {
        char piece[3000];
        size_t n = 1 + mag_rand_below(&r, sizeof piece);
        n = n < N_PUMPED - at ? n : N_PUMPED - at;
        for (size_t i = 0; i < n; i++)
            piece[i] = (char)((at + i) * 7 / 3);
        await(mag_stream_write(s, piece, n, NULL));
        at += n;
    }
    await(mag_stream_write_eof(s));
    return 0;
}

async(void, pumps, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who + 100);
    struct pair p;

    open_pair(&p, &(struct mag_stream_options){ .high_water = 5000, .limit = 9000 });
    task_group(g)
    {
        size_t at = 0;
        int rc = 1;
        group_spawn(g, echoes(&p.b));
        group_spawn(g, writes(&p.a, who));
        while (rc > 0) {
            char piece[4000];
            rc = mag_stream_read(&p.a, piece, 1 + mag_rand_below(&r, sizeof piece));
            EXPECT(rc >= 0);
            for (int i = 0; i < rc; i++, at++)
                if (piece[i] != (char)(at * 7 / 3))
                    EXPECT(!"a byte is another");
            stress_beat();
        }
        EXPECT(at == N_PUMPED);
    }
    close_pair(&p);
    return 0;
}

/* ---- ends --------------------------------------------------------------------------------- */

async(void, reads_until_closed, (struct mag_stream *, s))
{
    char buf[2000];
    int rc;

    while ((rc = mag_stream_read(s, buf, sizeof buf)) > 0)
        ;
    EXPECT(rc == 0 || rc == -EBADF || rc == -ECONNRESET);
    return 0;
}

async(void, writes_until_closed, (struct mag_stream *, s), (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    char buf[20000] = { 0 };
    int rc = 0;

    while (rc == 0) {
        rc = mag_stream_write(s, buf, mag_rand_below(&r, sizeof buf), NULL);
        if (rc == 0 && mag_rand_below(&r, 2))
            rc = mag_stream_drain(s);
    }
    EXPECT(rc == -EBADF || rc == -EPIPE || rc == -ECONNRESET);
    return 0;
}

/* The tasks are awaited after the close: that waits for them only to leave the stream. */
async(void, ends_one, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    struct pair *p = malloc(sizeof *p);

    open_pair(p, NULL);
    __auto_type reader = spawn(reads_until_closed(&p->a));
    __auto_type writer = spawn(writes_until_closed(&p->a, who + 1));
    __auto_type second = spawn(writes_until_closed(&p->a, who + 2));
    __auto_type peer = spawn(echoes(&p->b));
    for (uint32_t i = mag_rand_below(&r, 6); i > 0; i--)
        await(mag_yield());
    stress_spin((mag_time)mag_rand_below(&r, 60000));
    /* a task that has not begun would come to a stream that is gone */
    while (!mag_load_acquire(&p->a.state) || mag_rand_below(&r, 3))
        await(mag_yield());
    if (mag_rand_below(&r, 2))
        mag_stream_abort(&p->a);
    else
        (void)mag_stream_close(&p->a);
    await(reader);
    await(writer);
    await(second);
    (void)await_rc(peer, NULL);
    (void)mag_stream_close(&p->b);
    memset(p, 0x55, sizeof *p);
    free(p);
    stress_beat();
    return 0;
}

async(void, ends, (uint64_t, who))
{
    for (uint64_t i = 0; i < N_ENDS / N_PAIRS; i++)
        await(ends_one(who + 10 * i));
    return 0;
}

/* ---- owners ------------------------------------------------------------------------------- */

/* Ends only because another task ends it.  What it has written no peer reads. */
async(void, owns, (struct mag_stream *, s), (uint64_t, who), (uint32_t *, has_begun))
{
    static const char noise[60000];
    struct mag_rand r = stress_rand(who);
    char buf[100];

    if (mag_rand_below(&r, 2))
        (void)mag_stream_write(s, noise, mag_rand_below(&r, sizeof noise), NULL);
    mag_store_release(has_begun, 1);
    EXPECT(mag_stream_read(s, buf, sizeof buf) == -EBADF);
    EXPECT(mag_stream_fd(s) == -1);
    (void)mag_stream_close(s);
    memset(s, 0x55, sizeof *s);
    free(s);
    return 0;
}

async(void, owned_one, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    struct mag_stream *s = malloc(sizeof *s);
    uint32_t has_begun = 0;
    struct mag_stream peer;
    int fds[2] = { -1, -1 };

    EXPECT(s && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    EXPECT(mag_stream_of_fd(s, fds[0], NULL) == 0 && mag_stream_of_fd(&peer, fds[1], NULL) == 0);
    __auto_type owner = spawn(owns(s, who + 1, &has_begun));
    while (!mag_load_acquire(&has_begun))
        await(mag_yield());
    stress_spin((mag_time)mag_rand_below(&r, 20000));
    if (mag_rand_below(&r, 2))
        mag_stream_abort(s);
    else
        (void)mag_stream_close(s);
    await(owner);
    (void)mag_stream_close(&peer);
    stress_beat();
    return 0;
}

async(void, owners, (uint64_t, who))
{
    for (uint64_t i = 0; i < N_ENDS / N_PAIRS; i++)
        await(owned_one(who + 10 * i));
    return 0;
}

async(void, all)
{
    task_group(g)
    {
        for (uint64_t i = 0; i < N_PAIRS; i++) {
            group_spawn(g, asks(1000 + i));
            group_spawn(g, pumps(2000 + i));
            group_spawn(g, ends(100000 * (i + 1)));
            group_spawn(g, owners(1000000 * (i + 1)));
        }
    }
    return 0;
}

int main(void)
{
    int before = stress_n_descriptors();

    stress_begin("stream", NULL);
    EXPECT(mag_run_with(all(), NULL, &(struct mag_rt_options){ .workers = N_WORKERS }) == 0);
    EXPECT(stress_n_descriptors() == before);
    EXPECT(mag_mem_live() == 0);
    return stress_end();
}
