/* SPDX-License-Identifier: MIT */
/*
 * cp.c - copies a file, several pieces at a time
 *
 *      cp [-j N] [--verify] FROM TO
 *      cp --help
 *
 * A regular file is cut into pieces of 1 MiB, and N tasks (8) take piece after piece off
 * a shared cursor; each reads at an offset and writes at the same offset.  What has no
 * size or no positions (a pipe, a terminal, most of /proc) is copied by one task from the
 * beginning to the end.  TO is on the disk when the program ends well.  Permissions and
 * times are not copied.
 *
 *      cursor: 0 1 2 3 4 5 ...
 *                  | |  `-- task 3: pread, pwrite
 *                  |  `---- task 2: pread, pwrite       a handle belongs to one task, so
 *                   `------ task 1: pread, pwrite       each opens both files itself
 *
 * EXIT STATUS
 *     0; 1 if the file could not be copied, or differs; 2 for wrong usage.
 */
#include <magpie/async.h>

#include <getopt.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PIECE_BYTES = 1024 * 1024,
    JOBS = 8,
    JOBS_MAX = 256,
    EXIT_USAGE = 2,
};

struct copy {
    const char   *from, *to;
    long          n_jobs;
    bool          verify;
    uint64_t      size;   /* of a regular file */
    atomic_ullong cursor; /* first byte that nobody has taken */
    atomic_ullong bytes;  /* written */
};

/* ---- two files and a buffer -------------------------------------------------------------- */

/* What each task has for itself; async_with opens and closes it. */
struct pair {
    struct mag_file from, to;
    char           *buf;
};

static int pair_enter(struct pair *p, const struct copy *c, const char *to_mode)
{
    int rc;

    p->buf = malloc(PIECE_BYTES);
    if (p->buf == NULL)
        return -ENOMEM;
    rc = mag_file_enter(&p->from, c->from, "r");
    if (rc < 0)
        goto no_from;
    rc = mag_file_enter(&p->to, c->to, to_mode);
    if (rc < 0)
        goto no_to;
    return 0;
no_to:
    mag_file_exit(&p->from);
no_from:
    free(p->buf);
    return rc;
}

static void pair_exit(struct pair *p)
{
    mag_file_exit(&p->to);
    mag_file_exit(&p->from);
    free(p->buf);
}

async_resource(pair)

/* ---- copying --------------------------------------------------------------------------------- */

/* A write of fewer bytes than asked for met an error after some; the next call says which. */
static int write_at(struct mag_file *f, const char *buf, size_t n, int64_t offset)
{
    size_t done = 0;

    while (done < n) {
        int rc = mag_file_pwrite(f, buf + done, n - done, offset + (int64_t)done);

        if (rc <= 0)
            return rc < 0 ? rc : -EIO;
        done += (size_t)rc;
    }
    return 0;
}

static int write_next(struct mag_file *f, const char *buf, size_t n)
{
    while (n > 0) {
        int rc = mag_file_write(f, buf, n);

        if (rc <= 0)
            return rc < 0 ? rc : -EIO;
        buf += rc;
        n -= (size_t)rc;
    }
    return 0;
}

/* One of the N tasks. */
async(void, copy_pieces, (struct copy *, c))
{
    async_with(pair, p, c, "r+") {
        uint64_t offset;

        while ((offset = atomic_fetch_add(&c->cursor, PIECE_BYTES)) < c->size) {
            int n = await(mag_file_pread(&p->from, p->buf, PIECE_BYTES, (int64_t)offset));

            await(write_at(&p->to, p->buf, (size_t)n, (int64_t)offset));
            atomic_fetch_add(&c->bytes, (unsigned)n);
        }
    }
    return 0;
}

/* From the beginning to the end. */
async(void, copy_stream, (struct copy *, c))
{
    async_with(pair, p, c, "w") {
        int n;

        while ((n = await(mag_file_read(&p->from, p->buf, PIECE_BYTES))) > 0) {
            await(write_next(&p->to, p->buf, (size_t)n));
            atomic_fetch_add(&c->bytes, (unsigned)n);
        }
    }
    return 0;
}

/* Makes TO, empty, and has N tasks fill it. */
async(void, copy_regular, (struct copy *, c))
{
    struct copy_pieces *jobs[JOBS_MAX];
    struct mag_file     to;
    int                 rc, closed;

    await(mag_file_open(&to, c->to, "w"));
    for (long i = 0; i < c->n_jobs; i++)
        jobs[i] = copy_pieces(c);
    rc = mag_gather(NULL, 0, (void **)jobs, (size_t)c->n_jobs, NULL);
    if (rc == 0)
        rc = mag_file_fsync(&to, false);
    closed = mag_file_close(&to); /* in any case */
    return rc < 0 ? rc : closed;
}

/* ---- checking ------------------------------------------------------------------------------------ */

/* Whether TO holds what FROM holds; needs memory for both. */
async(int, is_equal, (struct copy *, c))
{
    int equal = 0;

    async_with(pair, p, c, "r") {
        struct mag_str a, b;

        await(mag_file_read_all(&p->from, &a));
        await(mag_file_read_all(&p->to, &b));
        equal = a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
    }
    async_return(equal);
}

/* -EINVAL if both are one file: opening TO would empty FROM. */
static int check_paths(struct copy *c, bool *is_regular)
{
    struct mag_file_stat from, to;
    struct mag_file      f;
    int                  rc = mag_file_open(&f, c->from, "r");

    if (rc < 0)
        return rc;
    rc = mag_file_stat(&f, &from);
    mag_file_close(&f);
    if (rc < 0)
        return rc;
    *is_regular = S_ISREG(from.mode) && from.size > 0; /* files of /proc say 0 */
    c->size = from.size;
    rc = mag_stat(c->to, &to);
    if (rc == 0 && to.inode == from.inode && to.device == from.device)
        return -EINVAL;
    return rc == -ENOENT ? 0 : rc;
}

async(void, copy_file, (struct copy *, c))
{
    bool is_regular;

    await(check_paths(c, &is_regular));
    if (is_regular)
        await(copy_regular(c));
    else
        await(copy_stream(c));
    if (c->verify && !await(is_equal(c)))
        return -EBADMSG;
    return 0;
}

/* ---- the command ------------------------------------------------------------------------------------ */

static int usage(FILE *to)
{
    fputs("usage: cp [-j N] [--verify] FROM TO\n\n"
          "Copies a file, several pieces at a time.\n\n"
          "  -j N        N pieces at a time, 1 to 256 (8)\n"
          "  --verify    read both again and compare\n"
          "  --help      this text\n",
          to);
    return to == stdout ? 0 : EXIT_USAGE;
}

/* -1, or the exit status of a run that ends here. */
static int parse(struct copy *c, int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "verify", no_argument, NULL, 'v' },
                                             { NULL, 0, NULL, 0 } };
    int o;

    while ((o = getopt_long(argc, argv, "j:", options, NULL)) >= 0) {
        char *end;

        if (o == 'h')
            return usage(stdout);
        if (o == 'v') {
            c->verify = true;
            continue;
        }
        if (o != 'j')
            return usage(stderr);
        c->n_jobs = strtol(optarg, &end, 10);
        if (end == optarg || *end || c->n_jobs < 1 || c->n_jobs > JOBS_MAX)
            return usage(stderr);
    }
    if (argc - optind != 2)
        return usage(stderr);
    c->from = argv[optind];
    c->to = argv[optind + 1];
    return -1;
}

int main(int argc, char **argv)
{
    struct copy c = { .n_jobs = JOBS };
    mag_time    start = mag_now();
    int         rc = parse(&c, argc, argv);

    if (rc >= 0)
        return rc;
    rc = mag_run(copy_file(&c), NULL); /* prints an error and where it came from */
    if (rc == 0)
        printf("%llu bytes in %.3f s%s\n", (unsigned long long)c.bytes,
               mag_seconds(mag_now() - start), c.verify ? ", compared" : "");
    return rc < 0;
}
