/* SPDX-License-Identifier: MIT */
/*
 * uv_files.c - many small files, read or written whole on libuv: 64 chains of requests
 *
 *      UV_THREADPOOL_SIZE=n uv_files DIR N BYTES SECONDS - read|write
 *
 *      read   open -> fstat -> read -> close       write   open -> write -> close
 */
#include "../io.h"

#include <fcntl.h>
#include <uv.h>

enum { CHAINS = 64 };

struct chain {
    uv_fs_t req;
    uv_buf_t buf;
    uv_file fd;
};

static struct files files;
static unsigned next;

static void begin(struct chain *c);

/* The result of a step, and the request is free for the next one. */
static ssize_t step(struct chain *c)
{
    ssize_t result = c->req.result;

    checked((int)result, "a request");
    uv_fs_req_cleanup(&c->req);
    return result;
}

static void closed(uv_fs_t *req)
{
    struct chain *c = (struct chain *)req;

    step(c);
    if (!files.is_write)
        free(c->buf.base);
    begin(c);
}

static void transferred(uv_fs_t *req)
{
    struct chain *c = (struct chain *)req;

    if (step(c) != (ssize_t)files.bytes)
        die("a transfer was short");
    uv_fs_close(uv_default_loop(), &c->req, c->fd, closed);
}

static void measured(uv_fs_t *req)
{
    struct chain *c = (struct chain *)req;
    size_t size = req->statbuf.st_size;

    step(c);
    c->buf = uv_buf_init(malloc(size + 1), (unsigned)size);
    uv_fs_read(uv_default_loop(), &c->req, c->fd, &c->buf, 1, 0, transferred);
}

static void opened(uv_fs_t *req)
{
    struct chain *c = (struct chain *)req;

    c->fd = (uv_file)step(c);
    if (!files.is_write) {
        uv_fs_fstat(uv_default_loop(), &c->req, c->fd, measured);
        return;
    }
    c->buf = uv_buf_init(files.content, (unsigned)files.bytes);
    uv_fs_write(uv_default_loop(), &c->req, c->fd, &c->buf, 1, 0, transferred);
}

static void begin(struct chain *c)
{
    char path[FILES_PATH];

    if (next >= files.n)
        return;
    files_path(&files, next++, path);
    uv_fs_open(uv_default_loop(), &c->req, path,
               files.is_write ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0644, opened);
}

int main(int argc, char **argv)
{
    struct chain *chains = calloc(CHAINS, sizeof *chains);

    files = files_of(argc, argv);
    while (files_begin(&files)) {
        next = 0;
        for (int i = 0; i < CHAINS; i++)
            begin(&chains[i]);
        uv_run(uv_default_loop(), UV_RUN_DEFAULT);
        files_end(&files);
    }
    return files_print(&files);
}
