/* SPDX-License-Identifier: MIT */
/*
 * magpie_files.c - ours: many small files, read or written whole
 *
 *      magpie_files DIR N BYTES SECONDS WORKERS read|write
 *
 * 64 tasks share the files DIR/00000 ...; a pass is all of them once.  Files are written to
 * where there are none.  The first pass is not counted.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/file.h>

enum { TASKS = 64 };

static unsigned next;

async(void, worker, (const struct files *, files))
{
    char path[FILES_PATH];

    for (unsigned i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < files->n;) {
        files_path(files, i, path);
        if (files->is_write) {
            await(mag_write_file(path, files->content, files->bytes, 0644));
            continue;
        }
        struct mag_str s;
        await(mag_read_file(path, &s, 0));
        size_t length = s.len;
        mag_str_free(&s);
        if (length != files->bytes)
            return -EIO;
    }
    return 0;
}

async(void, all, (struct files *, files))
{
    void *workers[TASKS];

    while (files_begin(files)) {
        next = 0;
        for (int i = 0; i < TASKS; i++)
            workers[i] = worker(files);
        await(mag_gather(NULL, 0, workers, TASKS, NULL));
        files_end(files);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct files files = files_of(argc, argv);
    struct mag_rt_options options = {
        .workers = (unsigned)atoi(argument(argc, argv, 5, "1")),
        .slow_ns = MAG_NEVER, /* files are removed between the passes */
    };

    checked(mag_run_with(all(&files), NULL, &options), files.dir);
    return files_print(&files);
}
