/* SPDX-License-Identifier: MIT */
/*
 * thread_files.c - many small files, read or written whole by threads and plain system calls
 *
 *      thread_files DIR N BYTES SECONDS THREADS read|write
 */
#include "../io.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

enum { THREADS_MAX = 256 };

static unsigned next;
static struct files files;

static void write_one(const char *path)
{
    int fd = checked(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), path);

    if (write(fd, files.content, files.bytes) != (ssize_t)files.bytes)
        die("write");
    close(fd);
}

static void read_one(const char *path)
{
    int fd = checked(open(path, O_RDONLY | O_CLOEXEC), path);
    struct stat st;

    checked(fstat(fd, &st), "fstat");
    char *buf = malloc((size_t)st.st_size + 1);
    if (!buf || read(fd, buf, (size_t)st.st_size) != (ssize_t)files.bytes)
        die("read");
    free(buf);
    close(fd);
}

static void *work(void *arg)
{
    char path[FILES_PATH];

    (void)arg;
    for (unsigned i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < files.n;) {
        files_path(&files, i, path);
        if (files.is_write)
            write_one(path);
        else
            read_one(path);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int n_threads = atoi(argument(argc, argv, 5, "1"));
    pthread_t thread[THREADS_MAX];

    files = files_of(argc, argv);
    if (n_threads < 1 || n_threads > THREADS_MAX)
        return 2;
    while (files_begin(&files)) {
        next = 0;
        for (int i = 0; i < n_threads; i++)
            pthread_create(&thread[i], NULL, work, NULL);
        for (int i = 0; i < n_threads; i++)
            pthread_join(thread[i], NULL);
        files_end(&files);
    }
    return files_print(&files);
}
