/* SPDX-License-Identifier: MIT */
/*
 * magpie_file.c - ours: random reads of 4 KiB of one file, DEPTH at a time
 *
 *      magpie_file FILE DEPTH SECONDS WORKERS cached|direct
 *
 * As many tasks as the depth, each with a handle of its own and one read on its way.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/file.h>

enum { BLOCK = 4096, PER_LOOK = 16 };

static const char *path, *mode = "r";
static int64_t begin, end;
static uint64_t n_blocks, n_reads;

async(void, reader, (uint64_t, seed))
{
    char *buf = NULL;
    uint64_t random = seed * 0x9e3779b97f4a7c15u | 1, n = 0;
    int rc = posix_memalign((void **)&buf, BLOCK, BLOCK);

    if (rc != 0)
        return -rc;
    async_with(mag_file, f, path, mode) {
        for (int64_t now = now_ns(); now < end; now = now_ns()) {
            for (int i = 0; i < PER_LOOK; i++) {
                int64_t at = (int64_t)(random_next(&random) % n_blocks) * BLOCK;
                if (await(mag_file_pread(f, buf, BLOCK, at)) != BLOCK)
                    return -EIO;
            }
            n += now >= begin ? PER_LOOK : 0;
        }
    }
    __atomic_fetch_add(&n_reads, n, __ATOMIC_RELAXED);
    free(buf);
    return 0;
}

async(void, all, (unsigned, depth))
{
    void **readers = calloc(depth, sizeof *readers);

    for (unsigned i = 0; readers && i < depth; i++)
        readers[i] = reader(i + 1);
    int rc = readers ? mag_gather(NULL, 0, readers, depth, NULL) : -ENOMEM;
    free(readers);
    return rc;
}

int main(int argc, char **argv)
{
    double seconds = atof(argument(argc, argv, 3, "1"));

    path = argument(argc, argv, 1, "/dev/null");
    n_blocks = file_bytes(path) / BLOCK;
    if (strcmp(argument(argc, argv, 5, "cached"), "direct") == 0)
        mode = "rd";
    begin = now_ns() + (int64_t)(seconds * 0.2e9);
    end = begin + (int64_t)(seconds * 1e9);
    checked(mag_run_with(all((unsigned)atoi(argument(argc, argv, 2, "1"))), NULL,
                         &(struct mag_rt_options){
                             .workers = (unsigned)atoi(argument(argc, argv, 4, "1")) }),
            path);
    printf("{\"rate\":%.0f}\n", (double)n_reads / seconds);
    return 0;
}
