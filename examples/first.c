/* SPDX-License-Identifier: MIT */
/*
 * first.c - the first of many files that contains a text
 *
 *      first TEXT FILE...     prints the name of a file that contains TEXT
 *      first --help
 *
 * The files are searched at once, up to 64 at a time.  Whoever finds the text sets a
 * future.  The main task awaits it and cancels the rest, which stop at their next
 * suspension.  If all have ended and none has found it, the future fails.
 *
 *      search(a) --.                               main: await(found)
 *      search(b) ---- text: future_set ----------------> print, cancel the task `all'
 *      search(c) --'
 *      all: gather_n(search...), then future_fail -----> "not found"
 *
 * A file that cannot be read is told, and the search goes on.
 *
 * EXIT STATUS
 *     0; 1 if no file contains the text; 2 for wrong usage.
 */
#define _GNU_SOURCE /* memmem */
#include <magpie/async.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_AT_ONCE = 64 };

async_future(const char *, found_path);

struct hunt {
    const char        *text;
    char             **paths;
    size_t             n_paths;
    struct found_path *found;
    atomic_flag        is_told; /* a future is set once */
};

/* As in a header, where other files use it; here, to read the program from the top. */
async_decl(void, search, (struct hunt *, hunt), (const char *, path));

/* Searches all, and says so if nobody has found it. */
async(void, search_all, (struct hunt *, hunt), (struct search **, searches), (int *, rcs))
{
    for (size_t i = 0; i < hunt->n_paths; i++)
        searches[i] = search(hunt, hunt->paths[i]);
    gather_n(NULL, searches, hunt->n_paths, .limit = FILES_AT_ONCE, .rcs = rcs);
    for (size_t i = 0; i < hunt->n_paths; i++)
        if (rcs[i] < 0 && rcs[i] != -ECANCELED)
            fprintf(stderr, "first: %s: %s\n", hunt->paths[i], mag_err_text(rcs[i]));
    if (!atomic_flag_test_and_set(&hunt->is_told))
        future_fail(hunt->found, -ENOENT);
    return 0;
}

async_def(void, search, (struct hunt *, hunt), (const char *, path))
{
    async_with(mag_file, f, path, "r") {
        struct mag_str content = await(mag_file_read_all_co(f));

        if (memmem(content.ptr, content.len, hunt->text, strlen(hunt->text)) &&
            !atomic_flag_test_and_set(&hunt->is_told))
            future_set(hunt->found, path);
    }
    return 0;
}

/* The value is 1 if a file contains the text. */
async(int, first, (struct hunt *, hunt), (struct search **, searches), (int *, rcs))
{
    struct search_all *all;
    const char        *path;
    int                rc;

    hunt->found = found_path();
    if (hunt->found == NULL)
        return -ENOMEM;
    all = spawn_opts(search_all(hunt, searches, rcs), .name = "all");
    if (all == NULL)
        future_fail(hunt->found, -ENOMEM); /* nobody else will set it */
    rc = await_rc(hunt->found, &path);
    if (rc == 0)
        puts(path);
    mag_cancel(all);
    await_rc(all, NULL);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    async_return(rc == 0);
}

static int usage(FILE *to)
{
    fputs("usage: first TEXT FILE...\n\nPrints the name of a file that contains TEXT.\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct hunt     hunt = { .is_told = ATOMIC_FLAG_INIT };
    struct search **searches;
    int            *rcs, rc, is_found = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc < 3)
        return usage(stderr);
    hunt.text = argv[1];
    hunt.paths = argv + 2;
    hunt.n_paths = (size_t)argc - 2;
    searches = calloc(hunt.n_paths, sizeof *searches);
    rcs = calloc(hunt.n_paths, sizeof *rcs);
    rc = searches && rcs ? mag_run(first(&hunt, searches, rcs), &is_found) : -ENOMEM;
    free(searches);
    free(rcs);
    if (rc == 0 && !is_found)
        fputs("first: no file contains it\n", stderr);
    return !is_found;
}
