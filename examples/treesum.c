/* SPDX-License-Identifier: MIT */
/*
 * treesum - SHA-256 of every file below some directories, on all cores
 *
 * SYNOPSIS
 *     treesum [-j N] PATH...
 *
 * DESCRIPTION
 *     Hashes every regular file at or below each PATH and writes a line for each to
 *     standard output, in the form of sha256sum(1), so that `sha256sum -c' can check
 *     it.  The lines come in the order of the walk, whatever is finished first.
 *     Symbolic links are not followed, except a PATH that is one.
 *
 *     -j N   Hash N files at a time; 8 for each worker by default.
 *     --help, --version
 *
 *     A progress bar is shown while standard error is a terminal.  At the end, files,
 *     bytes, seconds and GB/s go to standard error.
 *
 * EXIT STATUS
 *     0; 1 if anything could not be read (each is reported, the others are hashed)
 *     or written; 2 for wrong usage.
 *
 * ENVIRONMENT
 *     MAGPIE_WORKERS   Worker threads; as many as there are processors by default.
 *
 * How it works: one task walks the trees and notes every file.  Then N tasks take the
 * files one after the other off a shared cursor; each has one buffer, and reading
 * suspends it unless the page cache has the data.  The digest is kept with the file
 * until all files before it are done.  So memory is N buffers and a record a file.
 */
#include <magpie/async.h>

#include <errno.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = 256 * 1024, /* of one read */
    OUT_BYTES = 64 * 1024,    /* of standard output at a time; a line is shorter */
    DIGEST_BYTES = 32,
    PER_WORKER = 8,           /* files at a time, by default */
    JOBS_MAX = 4096,
    BAR_INTERVAL_MS = 100,
    EXIT_USAGE = 2,
};

struct file {
    char         *path;
    uint64_t      size; /* when it was found */
    int           rc;   /* < 0: it could not be read */
    bool          is_done;
    unsigned char digest[DIGEST_BYTES];
};

/* One run of the program. */
struct job {
    char **paths;
    int    n_paths;
    size_t n_jobs; /* files at a time */

    struct file *files; /* in the order of the walk */
    size_t       n, room;
    uint64_t     bytes_total;
    EVP_MD      *sha256;

    atomic_size_t    cursor; /* next file to hash */
    atomic_size_t    n_found, n_done; /* n_found: what n is, for the bar */
    atomic_ullong    bytes_done;
    atomic_llong     start; /* of hashing; 0: still walking */

    /* The lock is never held across a suspension. */
    pthread_mutex_t lock;
    size_t          printed; /* files before it have been written out */
    bool            has_failed;
    bool            has_bar; /* the cursor is on the line of a bar */
    int             write_error;
    size_t          out_len;
    char            out[OUT_BYTES];
};

/* ---- what is written ------------------------------------------------------------- */

/* Not inline: a task may change threads between two calls, and errno with it. */
static __attribute__((noinline)) int write_all(const char *bytes, size_t n)
{
    while (n) {
        ssize_t written = write(STDOUT_FILENO, bytes, n);

        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            bytes += written;
            n -= (size_t)written;
        }
    }
    return 0;
}

static void out_flush(struct job *job)
{
    if (!job->write_error)
        job->write_error = write_all(job->out, job->out_len);
    job->out_len = 0;
}

/* As sha256sum: a name with one of these is escaped, and a backslash precedes the line. */
static const char *escape_of(char c)
{
    switch (c) {
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    default:
        return NULL;
    }
}

static size_t put_name(char *to, const char *name)
{
    size_t n = 0;

    for (; *name; name++) {
        const char *escape = escape_of(*name);

        to[n++] = escape ? escape[0] : *name;
        if (escape)
            to[n++] = escape[1];
    }
    return n;
}

static void put_line(struct job *job, const struct file *file)
{
    static const char digits[] = "0123456789abcdef";
    char *to;

    /* Whole lines leave together, so that a reader of a pipe never sees half a one. */
    if (job->out_len + 2 * DIGEST_BYTES + 2 * strlen(file->path) + 4 > OUT_BYTES)
        out_flush(job);
    to = job->out + job->out_len;
    if (strpbrk(file->path, "\\\n\r"))
        *to++ = '\\';
    for (int i = 0; i < DIGEST_BYTES; i++) {
        *to++ = digits[file->digest[i] >> 4];
        *to++ = digits[file->digest[i] & 15];
    }
    *to++ = ' ';
    *to++ = ' ';
    to += put_name(to, file->path);
    *to++ = '\n';
    job->out_len = (size_t)(to - job->out);
}

static void complain(struct job *job, const char *path, int rc)
{
    if (job->has_bar)
        fputs("\r\033[K", stderr);
    job->has_bar = false;
    job->has_failed = true;
    fprintf(stderr, "treesum: %s: %s\n", path, mag_err_text(rc));
}

/* A file is done: writes it, and those behind it that waited for it. */
static void finish(struct job *job, struct file *file)
{
    pthread_mutex_lock(&job->lock);
    file->is_done = true;
    for (; job->printed < job->n && job->files[job->printed].is_done; job->printed++) {
        struct file *next = &job->files[job->printed];

        if (next->rc < 0)
            complain(job, next->path, next->rc);
        else
            put_line(job, next);
        free(next->path);
        next->path = NULL;
    }
    pthread_mutex_unlock(&job->lock);
    atomic_fetch_add(&job->n_done, 1);
}

/* ---- the bar ---------------------------------------------------------------------- */

static int terminal_columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void bar_text(struct job *job, char *text, size_t n)
{
    double done = (double)atomic_load(&job->bytes_done);
    double total = (double)job->bytes_total;
    double seconds = mag_seconds(mag_now() - job->start);
    double rate = seconds > 0 ? done / seconds : 0;
    double left = rate > 0 && total > done ? (total - done) / rate : 0;

    snprintf(text, n, " %.2f/%.2f GB  %zu/%zu files  %.2f GB/s  ETA %d:%02d", done / 1e9,
             total / 1e9, atomic_load(&job->n_done), job->n, rate / 1e9, (int)left / 60,
             (int)left % 60);
}

/* [=====>     ] text */
static void bar_draw(struct job *job)
{
    char text[160], bar[64];
    double total = (double)job->bytes_total;
    double part = total > 0 ? (double)atomic_load(&job->bytes_done) / total : 0;
    int columns = terminal_columns(), width;

    if (job->start)
        bar_text(job, text, sizeof text);
    else
        snprintf(text, sizeof text, "looking: %zu files", atomic_load(&job->n_found));
    width = columns - (int)strlen(text) - 3;
    width = width > (int)sizeof bar - 1 ? (int)sizeof bar - 1 : width;
    if (!job->start || width < 4) {
        fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
        return;
    }
    for (int i = 0; i < width; i++)
        bar[i] = i < part * width ? '=' : ' ';
    fprintf(stderr, "\r[%.*s]%s\033[K", width, bar, text);
}

async(void, show_progress, (struct job *, job)) {
    for (;;) {
        await(mag_sleep(BAR_INTERVAL_MS * MAG_MS));
        pthread_mutex_lock(&job->lock);
        bar_draw(job);
        job->has_bar = true;
        pthread_mutex_unlock(&job->lock);
    }
}

/* ---- the walk --------------------------------------------------------------------- */

static int add_file(struct job *job, const struct mag_walk_entry *entry)
{
    struct file *file;

    if (job->n == job->room) {
        size_t       room = job->room ? 2 * job->room : 1024;
        struct file *files = realloc(job->files, room * sizeof *files);

        if (!files)
            return -ENOMEM;
        job->files = files;
        job->room = room;
    }
    file = &job->files[job->n];
    *file = (struct file){ .path = strdup(entry->path), .size = entry->size, .rc = entry->rc };
    if (!file->path)
        return -ENOMEM;
    job->n++;
    job->bytes_total += file->size;
    atomic_store(&job->n_found, job->n);
    return 0;
}

/* What cannot be read takes its place among the files, to be reported in order. */
static int find_files(struct job *job, const char *path)
{
    struct mag_walk      *walk;
    struct mag_walk_entry entry;
    int                   rc = mag_walk_open(&walk, path);

    if (rc < 0)
        return rc;
    while ((rc = mag_walk_next(walk, &entry)) > 0) {
        if (entry.rc == 0 && !S_ISREG(entry.mode))
            continue;
        rc = add_file(job, &entry);
        if (rc < 0)
            break;
    }
    mag_walk_close(walk);
    return rc;
}

/* ---- hashing ---------------------------------------------------------------------- */

/* What one of the N tasks has for itself. */
struct hasher {
    EVP_MD_CTX    *context;
    unsigned char *buf;
};

static int hasher_enter(struct hasher *h)
{
    *h = (struct hasher){ .context = EVP_MD_CTX_new(), .buf = malloc(CHUNK_BYTES) };
    if (h->context && h->buf)
        return 0;
    EVP_MD_CTX_free(h->context);
    free(h->buf);
    return -ENOMEM;
}

static void hasher_exit(struct hasher *h)
{
    EVP_MD_CTX_free(h->context);
    free(h->buf);
}

async_resource(hasher)

async(void, hash_file, (struct job *, job), (struct file *, file), (struct hasher *, h)) {
    async_with(mag_file, f, file->path, "r") {
        int n;

        if (!EVP_DigestInit_ex2(h->context, job->sha256, NULL))
            return -ENOMEM;
        while ((n = await(mag_file_read(f, h->buf, CHUNK_BYTES))) > 0) {
            EVP_DigestUpdate(h->context, h->buf, (size_t)n);
            atomic_fetch_add(&job->bytes_done, (unsigned)n);
        }
        EVP_DigestFinal_ex(h->context, file->digest, NULL);
    }
    return 0;
}

/* One of the N tasks: takes file after file until there is none. */
async(void, hash_files, (struct job *, job)) {
    async_with(hasher, h) {
        size_t i;

        while ((i = atomic_fetch_add(&job->cursor, 1)) < job->n) {
            struct file *file = &job->files[i];

            if (file->rc == 0)
                file->rc = await_rc(hash_file(job, file, h), NULL);
            finish(job, file);
        }
    }
    return 0;
}

async(void, treesum, (struct job *, job)) {
    struct show_progress *bar = isatty(STDERR_FILENO) ? spawn(show_progress(job)) : NULL;
    struct hash_files   **hashers;

    for (int i = 0; i < job->n_paths; i++)
        await(find_files(job, job->paths[i]));
    atomic_store(&job->start, mag_now());

    if (!job->n_jobs)
        job->n_jobs = PER_WORKER * mag_rt_workers(mag_rt_self());
    if (job->n_jobs > job->n)
        job->n_jobs = job->n;
    hashers = calloc(job->n_jobs + 1, sizeof *hashers);
    if (!hashers)
        return -ENOMEM;
    for (size_t i = 0; i < job->n_jobs; i++)
        hashers[i] = hash_files(job);
    int rc = mag_gather(NULL, 0, (void **)hashers, job->n_jobs, NULL);
    free(hashers);

    if (bar) {
        mag_cancel(bar);
        await_rc(bar, NULL);
    }
    return rc;
}

/* ---- the command ------------------------------------------------------------------- */

static const char usage_text[] = "usage: treesum [-j N] PATH...\n";

static int help(void)
{
    fputs(usage_text, stdout);
    puts("Writes the SHA-256 of every regular file at or below each PATH, as sha256sum does.\n"
         "\n"
         "  -j N        hash N files at a time (default: 8 for each worker)\n"
         "  --help      this text\n"
         "  --version   the version\n"
         "\n"
         "MAGPIE_WORKERS sets the number of worker threads.  Exit status: 0, 1 if anything\n"
         "could not be read or written, 2 for wrong usage.");
    return 0;
}

static int version(void)
{
    unsigned v = mag_version();

    printf("treesum (magpie) %u.%u.%u\n", v >> 16, v >> 8 & 255, v & 255);
    return 0;
}

static int wrong_usage(const char *problem, const char *what)
{
    if (problem)
        fprintf(stderr, "treesum: %s%s\n", problem, what);
    fputs(usage_text, stderr);
    return EXIT_USAGE;
}

/* Fills the job; -1, or the exit status of a run that ends here. */
static int parse(struct job *job, int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "version", no_argument, NULL, 'V' },
                                             { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "j:", options, NULL)) >= 0) {
        char *end;
        long  n;

        if (c == 'h')
            return help();
        if (c == 'V')
            return version();
        if (c != 'j')
            return wrong_usage(NULL, NULL);
        n = strtol(optarg, &end, 10);
        if (end == optarg || *end || n < 1 || n > JOBS_MAX)
            return wrong_usage("-j wants a number from 1 to 4096, not ", optarg);
        job->n_jobs = (size_t)n;
    }
    job->paths = argv + optind;
    job->n_paths = argc - optind;
    return job->n_paths ? -1 : wrong_usage("which PATH?", "");
}

static void summary(const struct job *job, mag_time duration)
{
    double             seconds = mag_seconds(duration);
    unsigned long long bytes = atomic_load(&job->bytes_done);
    size_t             n = 0;

    for (size_t i = 0; i < job->n; i++)
        n += job->files[i].is_done && job->files[i].rc == 0;
    fprintf(stderr, "%s%zu files, %llu bytes, %.3f s, %.2f GB/s\n",
            job->has_bar ? "\r\033[K" : "", n, bytes, seconds,
            seconds > 0 ? (double)bytes / seconds / 1e9 : 0);
}

int main(int argc, char **argv)
{
    static struct job job = { .lock = PTHREAD_MUTEX_INITIALIZER };
    mag_time          begun = mag_now();
    int               rc = parse(&job, argc, argv);

    if (rc >= 0)
        return rc;
    job.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!job.sha256) {
        fputs("treesum: libcrypto has no SHA-256\n", stderr);
        return 1;
    }
    rc = mag_run(treesum(&job), NULL);
    out_flush(&job);
    summary(&job, mag_now() - begun);
    if (job.write_error)
        fprintf(stderr, "treesum: standard output: %s\n", mag_err_text(job.write_error));
    EVP_MD_free(job.sha256);
    free(job.files);
    return rc < 0 || job.has_failed || job.write_error;
}
