/* SPDX-License-Identifier: MIT */
/*
 * file.c - files from all workers at once, with cancels at random moments
 *
 * Each task takes one of some files, and reads it, replaces it, writes another, copies, lists,
 * reads lines, or makes and removes a tree; and is perhaps cancelled, or under a deadline.  A
 * file that is replaced is always one of the contents that it may have, whole.  At the end there is
 * nothing in the directory that should not be, no descriptor, and no memory.  Once on a disk, and
 * once in memory, where most of it is done on the spot.
 */
#include "stress.h"

#include <magpie/dir.h>
#include <magpie/file.h>
#include <magpie/scope.h>

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { TASKS = STRESS_SCALE(4000, 600), AT_A_TIME = 32, FILES = 8, WAYS = 7, LINE = 10 };

static char dir[] = "/dev/shm/mag-stress-XXXXXX"; /* or one below /tmp */
static mag_atomic(uint32_t) n_ended, n_stopped;

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes:
 * who gets such a number next, by open(2), seems to race with its former user. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\n";
}
#endif

/* Whole contents: n equal lines "xxxxxxxxx\n", of one letter. */
static bool is_whole(struct mag_str s)
{
    if (s.len == 0 || s.len % LINE != 0)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != (i % LINE == LINE - 1 ? '\n' : s.ptr[0]))
            return false;
    return true;
}

static size_t fill(char *buf, unsigned n_lines, char letter)
{
    for (unsigned i = 0; i < n_lines * LINE; i++)
        buf[i] = i % LINE == LINE - 1 ? '\n' : letter;
    return (size_t)n_lines * LINE;
}

static int read_it(const char *path)
{
    struct mag_str s;
    int rc = mag_read_file(path, &s, 0);

    EXPECT(rc < 0 || is_whole(s));
    mag_str_free(&s);
    return rc;
}

async(void, read_lines, (const char *, path))
{
    char letter = 0;

    async_with(mag_file, f, path, "r")
        async_for(struct mag_str, line, mag_file_lines(f)) {
            letter = letter ? letter : line.ptr[0];
            EXPECT(line.len == LINE - 1 && line.ptr[0] == letter);
        }
    return 0;
}

async(void, use_tree, (const char *, from))
{
    char path[256];

    async_with(mag_temp_dir, d, from) {
        snprintf(path, sizeof path, "%s/a/b/c", d->path);
        await(mag_makedirs(path, 0700));
        snprintf(path, sizeof path, "%s/a/copy", d->path);
        await(mag_copy_file(from, path, NULL));
        await(read_it(path));
        int n = 0;
        snprintf(path, sizeof path, "%s/a", d->path);
        async_for(struct mag_dir_entry, e, mag_dir_entries(path))
            n += e.len > 0;
        EXPECT(n == 2);
    }
    return 0;
}

async(void, use_temp, (const char *, prefix))
{
    char buf[200 * LINE], back[200 * LINE];

    async_with(mag_temp_file, t, prefix) {
        size_t n = fill(buf, 200, 't');
        await(mag_file_write_all(&t->file, buf, n, NULL));
        EXPECT(await(mag_file_pread(&t->file, back, n, 0)) == (int)n);
        EXPECT(memcmp(buf, back, n) == 0);
    }
    return 0;
}

async(void, one, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    unsigned way = mag_rand_below(&r, WAYS);
    char path[128], own[128], buf[300 * LINE];
    size_t n = fill(buf, 1 + mag_rand_below(&r, 299), (char)('a' + mag_rand_below(&r, 26)));

    snprintf(path, sizeof path, "%s/f%u", dir, mag_rand_below(&r, FILES));
    snprintf(own, sizeof own, "%s/own-%lx", dir, (unsigned long)seed);
    switch (way) {
    case 0:
    case 1:
        await(read_it(path));
        break;
    case 2:
        await(mag_replace_file(path, buf, n, 0600));
        break;
    case 3:
        await(read_lines(path));
        break;
    case 4:
        await(use_tree(path));
        break;
    case 5:
        await(use_temp(seed % 2 ? NULL : path));
        break;
    default:
        (void)mag_write_file(own, buf, n, 0600);
        with_shield (MAG_NEVER) {
            int rc = mag_unlink(own);
            EXPECT(rc == 0 || rc == -ENOENT);
        }
        break;
    }
    mag_fetch_add(&n_ended, 1);
    return 0;
}

async(void, meddled_with, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed + 1);
    struct one *t = one(seed);
    int rc;

    switch (mag_rand_below(&r, 3)) {
    case 0:
        rc = wait_for(t, mag_rand_below(&r, 2000) * MAG_US, NULL);
        break;
    case 1:
        (void)spawn(t);
        await(mag_sleep(mag_rand_below(&r, 1000) * MAG_US));
        mag_cancel(t);
        rc = await_rc(t, NULL);
        break;
    default:
        rc = await_rc(t, NULL);
        EXPECT(rc == 0);
        break;
    }
    EXPECT(rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT);
    if (rc < 0)
        mag_fetch_add(&n_stopped, 1);
    stress_beat();
    return 0;
}

async(void, everything)
{
    static struct meddled_with *all[TASKS];
    char path[128], buf[10 * LINE];

    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/f%d", dir, i);
        await(mag_write_file(path, buf, fill(buf, 10, 'z'), 0600));
    }
    for (int i = 0; i < TASKS; i++)
        all[i] = meddled_with((uint64_t)i * 77 + 5);
    gather_n(NULL, all, TASKS, .limit = AT_A_TIME);
    return 0;
}

async(void, nothing)
{
    return 0;
}

static int n_entries(void)
{
    DIR *d = opendir(dir);
    int n = -2;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void run_there(const struct mag_rt_options *o)
{
    mag_store_relaxed(&n_ended, 0);
    mag_store_relaxed(&n_stopped, 0);
    EXPECT(mag_run_with(everything(), NULL, o) == 0);
    EXPECT(n_entries() == FILES);
    EXPECT(n_ended + n_stopped >= TASKS && n_ended > 0 && n_stopped > 0);
    EXPECT(mag_remove_tree(dir) == 0);
    printf("file: %s: %u ended, %u stopped\n", dir, n_ended, n_stopped);
}

int main(void)
{
    static const char *const places[] = { "/tmp", "/dev/shm" };
    struct mag_rt_options o = { .workers = 4 };
    int n_fds;
    int64_t n_blocks;

    stress_begin("file", NULL);
    mag_run_with(nothing(), NULL, &o);
    n_fds = stress_n_descriptors();
    n_blocks = mag_mem_live();
    for (size_t i = 0; i < MAG_ARRAY_SIZE(places); i++) {
        snprintf(dir, sizeof dir, "%s/mag-stress-XXXXXX", places[i]);
        if (!mkdtemp(dir) && i > 0)
            continue; /* no /dev/shm */
        run_there(&o);
        EXPECT(stress_n_descriptors() == n_fds);
        EXPECT(mag_mem_live() == n_blocks);
    }
    return stress_end();
}
