/* SPDX-License-Identifier: MIT */
/*
 * uv_file.c - random reads of 4 KiB of one file on libuv, DEPTH at a time
 *
 *      UV_THREADPOOL_SIZE=n uv_file FILE DEPTH SECONDS cached|direct
 */
#include "../io.h"

#include <fcntl.h>
#include <uv.h>

enum { BLOCK = 4096 };

struct reader {
    uv_fs_t req;
    uv_buf_t buf;
};

static uv_loop_t *loop;
static int fd;
static uint64_t n_blocks, n_reads, random_state = 0x9e3779b97f4a7c15u;
static int64_t begin, end;

static void done(uv_fs_t *req);

static void read_one(struct reader *r)
{
    int64_t at = (int64_t)(random_next(&random_state) % n_blocks) * BLOCK;

    uv_fs_read(loop, &r->req, fd, &r->buf, 1, at, done);
}

static void done(uv_fs_t *req)
{
    int64_t now = now_ns();

    if (req->result != BLOCK)
        die("a read was short");
    uv_fs_req_cleanup(req);
    n_reads += now >= begin && now < end;
    if (now < end)
        read_one((struct reader *)req);
}

int main(int argc, char **argv)
{
    const char *path = argument(argc, argv, 1, "/dev/null");
    int depth = atoi(argument(argc, argv, 2, "1"));
    double seconds = atof(argument(argc, argv, 3, "1"));
    bool is_direct = strcmp(argument(argc, argv, 4, "cached"), "direct") == 0;
    struct reader *readers = calloc((size_t)depth, sizeof *readers);

    loop = uv_default_loop();
    fd = checked(open(path, O_RDONLY | (is_direct ? O_DIRECT : 0)), path);
    n_blocks = file_bytes(path) / BLOCK;
    begin = now_ns() + (int64_t)(seconds * 0.2e9);
    end = begin + (int64_t)(seconds * 1e9);
    for (int i = 0; i < depth; i++) {
        readers[i].buf = uv_buf_init(aligned_alloc(BLOCK, BLOCK), BLOCK);
        read_one(&readers[i]);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    printf("{\"rate\":%.0f}\n", (double)n_reads / seconds);
    return 0;
}
