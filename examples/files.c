/* SPDX-License-Identifier: MIT */
/*
 * files.c - a tour of files, names and directories, in a temporary directory
 *
 *      files [SECTION]         lines, whole, positions, names, trees, plain; or all of them
 *      files count [FILE]      lines and bytes of a file, or of standard input
 *      files --help
 *
 * Each section is a coroutine and can be read alone.
 *
 * EXIT STATUS
 *     0; 1 if something failed; 2 for wrong usage.
 */
#include <magpie/async.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, PATH_ROOM = 512 };

static char dir[PATH_ROOM]; /* where the tour takes place */

/* A path in it, written to a buffer of PATH_ROOM bytes. */
static const char *in_dir(char *path, const char *name)
{
    snprintf(path, PATH_ROOM, "%.200s/%.200s", dir, name);
    return path;
}

/* ---- lines ------------------------------------------------------------------------------- */

/* async for line in file */
async(void, count, (struct mag_file *, f), (const char *, name))
{
    size_t n_lines = 0, n_bytes = 0;
    char   text[PATH_ROOM];

    await(mag_file_set_limit(f, 1024 * 1024)); /* a line longer than that is an error */
    async_for(struct mag_str, line, mag_file_lines(f)) {
        n_lines++;
        n_bytes += line.len;
    }
    snprintf(text, sizeof text, "%zu lines, %zu bytes in them, in %s\n", n_lines, n_bytes, name);
    struct mag_file out;
    await(mag_stdout(&out));
    int rc = mag_file_write_all(&out, text, strlen(text), NULL);
    mag_file_close(&out); /* which leaves standard output open */
    return rc;
}

async(void, count_path, (const char *, path))
{
    if (path) {
        async_with(mag_file, f, path, "r")
            await(count(f, path));
        return 0;
    }
    struct mag_file in;
    await(mag_stdin(&in));
    const char *name = mag_file_isatty(&in) ? "what you typed" : "standard input";
    int rc = await_rc(count(&in, name), NULL);
    mag_file_close(&in);
    return rc;
}

async(void, lines)
{
    char path[PATH_ROOM];

    await(mag_write_file(in_dir(path, "poem"), "one\ntwo\nthree", 13, 0644));
    async_with(mag_file, f, path, "r") {
        async_for(struct mag_str, line, mag_file_lines(f)) {
            printf("first: %s\n", line.ptr);
            break; /* the rest stays to be read */
        }
        struct mag_str line;
        while (await(mag_file_readline(f, &line)) > 0) /* with its newline, as in Python */
            printf("then: %zu bytes\n", line.len);
    }
    return 0;
}

/* ---- whole files -------------------------------------------------------------------------- */

async(void, whole)
{
    char path[PATH_ROOM];
    struct mag_str s;

    await(mag_write_file(in_dir(path, "settings"), "colour = blue\n", 14, 0644));
    await(mag_read_file(path, &s, 64 * 1024)); /* at most that much */
    printf("settings: %s", s.ptr);
    mag_str_free(&s);
    printf("with a limit of 4 bytes: %s\n", mag_err_name(mag_read_file(path, &s, 4)));

    /* Whoever opens it sees the old settings or the new ones, also after a crash. */
    await(mag_replace_file(path, "colour = red\n", 13, 0644));
    async_with(mag_replacing, r, path, 0644) {
        await(mag_file_write_all(&r->file, "colour", 6, NULL));
        await(mag_file_write_all(&r->file, " = green\n", 9, NULL));
        await(mag_replacing_commit(r));
    }
    async_with(mag_replacing, r, path, 0644)
        break; /* without a commit nothing changes */
    await(mag_read_file(path, &s, 0));
    printf("replaced: %s", s.ptr);
    mag_str_free(&s);

    async_with(mag_temp_file, t, NULL) { /* it has no name, and is gone after the block */
        await(mag_file_write_all(&t->file, "scratch", 7, NULL));
        printf("a temporary file of %lld bytes, %s\n", (long long)mag_file_tell(&t->file),
               t->path ? t->path : "without a name");
    }
    return 0;
}

/* ---- positions, vectors, lengths -------------------------------------------------------------- */

async(void, positions)
{
    char path[PATH_ROOM], head[4], rest[16];
    struct iovec out[] = { { "head", 4 }, { ", body", 6 } };
    struct iovec in[] = { { head, sizeof head }, { rest, sizeof rest } };

    async_with(mag_file, f, in_dir(path, "record"), "w+") {
        await(mag_file_advise(f, 0, 0, POSIX_FADV_SEQUENTIAL));
        int rc = mag_file_allocate(f, 0, 0, 4096); /* room on the disk, if it can do that */
        if (rc < 0 && rc != -EOPNOTSUPP)
            return rc;
        await(mag_file_truncate(f, 0));
        await(mag_file_writev(f, out, 2));
        await(mag_file_pwritev(f, out, 1, 20));
        printf("after the write: %lld\n", (long long)mag_file_tell(f));
        if (mag_file_seek(f, 0, SEEK_SET) != 0)
            return -EIO;
        int n = await(mag_file_readv(f, in, 2));
        printf("read %d: '%.4s' and '%.6s'\n", n, head, rest);
        n = await(mag_file_preadv(f, in, 1, 20));
        printf("at 20: '%.*s'\n", n, head);
        await(mag_file_fsync(f, true));
        printf("descriptor %s, %s positions\n", mag_file_fileno(f) >= 0 ? "open" : "closed",
               mag_file_seekable(f) ? "with" : "without");
    }

    int ends[2]; /* a descriptor of one's own becomes a file, and back */
    if (pipe(ends) < 0)
        return -EMFILE;
    struct mag_file in_end;
    await(mag_file_from_fd(&in_end, ends[0]));
    await(mag_write_all(ends[1], "through a pipe", 14, NULL));
    int n = await(mag_file_read(&in_end, rest, sizeof rest));
    printf("%.*s, %s positions\n", n, rest, mag_file_seekable(&in_end) ? "with" : "without");
    close(mag_file_detach(&in_end));
    close(ends[1]);
    return 0;
}

/* ---- names ---------------------------------------------------------------------------------------- */

async(void, names)
{
    char a[PATH_ROOM], b[PATH_ROOM], says[32];
    struct mag_file_stat st;
    struct mag_volume v;

    await(mag_makedirs(in_dir(a, "x/y/z"), 0755));
    await(mag_removedirs(a)); /* x as well, and the tour's directory is not empty */
    await(mag_write_file(in_dir(a, "old"), "text", 4, 0644));
    await(mag_rename(a, in_dir(b, "new")));
    printf("old: %d, new: %d\n", await(mag_exists(a)), await(mag_exists(b)));
    await(mag_link(b, a));
    printf("a second name: %s\n", mag_err_name(mag_rename_new(a, b)));
    await(mag_unlink(a));
    await(mag_symlink("new", a));
    await(mag_readlink(a, says, sizeof says));
    await(mag_lstat(a, &st));
    printf("old is a link: %s, to %s\n", S_ISLNK(st.mode) ? "yes" : "no", says);
    await(mag_chmod(b, 0600));
    printf("readable: %s\n", mag_access(b, R_OK) == 0 ? "yes" : "no");
    await(mag_mkdir(in_dir(a, "empty"), 0755));
    await(mag_rmdir(a));
    await(mag_statvfs(dir, &v));
    printf("room is left: %s\n", v.size >= v.free && v.free >= v.available ? "yes" : "no");
    return 0;
}

/* ---- directories, copies ----------------------------------------------------------------------------- */

static int tell(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    printf("copied %llu of %llu\n", (unsigned long long)done, (unsigned long long)total);
    return 0;
}

async(void, trees)
{
    char path[PATH_ROOM], sub[PATH_ROOM];
    int  n = 0;

    async_with(mag_temp_dir, d, in_dir(path, "work-")) { /* removed with all that is in it */
        snprintf(path, sizeof path, "%.200s/file", d->path);
        await(mag_write_file(path, "1234567890", 10, 0640));
        snprintf(sub, sizeof sub, "%.200s/copy", d->path);
        await(mag_copy_file(path, sub, &(struct mag_copy_options){ .progress = tell }));
        snprintf(path, sizeof path, "%.200s/moved", d->path);
        await(mag_move(sub, path));
        async_for(struct mag_dir_entry, e, mag_dir_entries(d->path)) {
            printf("  %s%s\n", e.name, S_ISDIR(e.type) ? "/" : "");
            n++;
        }
        async_with(mag_file, f, path, "r") { /* a file into a pipe or a socket */
            int64_t offset = 4;
            fflush(stdout);
            await(mag_sendfile(STDOUT_FILENO, f->fd, &offset, 3));
            puts(" was sent");
        }
    }
    printf("%d entries\n", n);

    struct mag_dir      *d; /* the same without a loop of async_for's */
    struct mag_dir_entry e;
    await(mag_makedirs(in_dir(path, "deep/er"), 0755));
    await(mag_dir_open(&d, in_dir(path, "deep")));
    int rc = mag_dir_next(d, &e);
    if (rc > 0)
        printf("in deep: %s\n", e.name);
    mag_dir_close(d);
    await(mag_remove_tree(path));
    return rc < 0 ? rc : 0;
}

/* ---- without the keywords ------------------------------------------------------------------------------ */

async(void, plain)
{
    struct mag_temp_file t;
    struct mag_temp_dir d;
    struct mag_replacing r;
    char path[PATH_ROOM];

    int rc = mag_temp_file_enter(&t, "note-");
    if (rc < 0)
        return rc;
    mag_temp_file_exit(&t);
    rc = mag_temp_dir_enter(&d, NULL);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%.200s/result", d.path);
    rc = mag_replacing_enter(&r, path, 0644);
    if (rc == 0) {
        rc = mag_file_write_all(&r.file, "42", 2, NULL);
        if (rc == 0)
            rc = mag_replacing_commit(&r);
        mag_replacing_exit(&r);
    }
    mag_temp_dir_exit(&d);
    struct mag_file err;
    if (rc == 0 && mag_stderr(&err) == 0) {
        rc = mag_file_write_all(&err, "done, without a trace\n", 22, NULL);
        mag_file_close(&err);
    }
    return rc;
}

/* ---- the program --------------------------------------------------------------------------------------- */

static const char *const section_names[] = { "lines", "whole", "positions", "names", "trees", "plain" };
enum { N_SECTIONS = sizeof section_names / sizeof *section_names };

async(void, section, (int, i))
{
    switch (i) {
    case 0:  await(lines()); break;
    case 1:  await(whole()); break;
    case 2:  await(positions()); break;
    case 3:  await(names()); break;
    case 4:  await(trees()); break;
    default: await(plain()); break;
    }
    return 0;
}

async(void, tour, (const char *, only))
{
    async_with(mag_temp_dir, d, "magpie-tour-") {
        snprintf(dir, sizeof dir, "%.200s", d->path);
        for (int i = 0; i < N_SECTIONS; i++)
            if (!only || strcmp(only, section_names[i]) == 0) {
                await(section(i));
                fflush(stdout); /* the standard streams of C and ours are two */
            }
    }
    return 0;
}

static int usage(FILE *to)
{
    fputs("usage: files [lines | whole | positions | names | trees | plain]\n"
          "       files count [FILE]\n\n"
          "A tour of files, names and directories; or counts lines.\n",
          to);
    return to == stdout ? 0 : EXIT_USAGE;
}

static int finish(int rc)
{
    if (rc < 0)
        fprintf(stderr, "files: %s\n", strerror(-rc));
    return rc < 0;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && argc <= 3 && strcmp(argv[1], "count") == 0)
        return finish(mag_run(count_path(argc == 3 ? argv[2] : NULL), NULL));
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    bool is_known = argc == 1;
    for (int i = 0; argc == 2 && i < N_SECTIONS; i++)
        is_known |= strcmp(argv[1], section_names[i]) == 0;
    return is_known ? finish(mag_run(tour(argc == 2 ? argv[1] : NULL), NULL)) : usage(stderr);
}
