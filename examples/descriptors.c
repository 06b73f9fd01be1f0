/* SPDX-License-Identifier: MIT */
/*
 * descriptors.c - the calls of POSIX, in tasks: what else there is besides streams of bytes
 *
 *      descriptors [vectors | splice | messages | datagrams | poll | close]     all without one
 *      descriptors --help
 *
 * vectors    a header and a body in one write, and read back into two places.
 * splice     a file goes through a pipe into a socket; none of it passes through the program.
 * messages   an open file is handed over a unix socket (SCM_RIGHTS).
 * datagrams  a question by UDP, an answer to whoever asked, and a multicast group.
 * poll       for a library that does its own input and output, and only must not block.
 * close      a task reads where nothing comes; another closes the descriptor under it.
 *
 * EXIT STATUS
 *     0; 1 if a call failed; 2 for wrong usage.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif
#include <magpie/async.h>
#include <magpie/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The calls that cannot wait are the C library's.  Nothing suspends before errno is read. */
#define OR_ERRNO(call) ((call) < 0 ? -errno : 0)

/* ---- vectors ---------------------------------------------------------------------------- */

async(void, vectors)
{
    char head[5] = "", body[16] = "";
    struct iovec out[] = { { "0005", 4 }, { "hello", 5 } };
    struct iovec in[] = { { head, 4 }, { body, sizeof body - 1 } };
    int ends[2];

    await(OR_ERRNO(pipe2(ends, O_CLOEXEC)));
    await(mag_writev(ends[1], out, 2));
    await(mag_readv(ends[0], in, 2));
    await(mag_write_all(ends[1], "and more", 8, NULL));
    int n = await(mag_read(ends[0], body + 5, 8));
    printf("head %s, body %s, of which %d later\n", head, body, n);
    mag_close_fd(ends[0]);
    int rc = mag_write(ends[1], "x", 1); /* no SIGPIPE */
    printf("to nobody: %s\n", mag_err_name(rc));
    return mag_close_fd(ends[1]);
}

/* ---- splice ------------------------------------------------------------------------------- */

async(void, splice_file)
{
    int pipe_ends[2], ends[2], moved;
    char buf[4];
    long total = 0, received = 0;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    await(OR_ERRNO(fd));
    await(OR_ERRNO(pipe2(pipe_ends, O_CLOEXEC)));
    await(OR_ERRNO(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)));
    for (int64_t at = 0; at < 64 * 1024; total += moved) {
        moved = await(mag_splice(fd, &at, pipe_ends[1], NULL, 16 * 1024, 0));
        for (int left = moved; left > 0;)
            left -= await(mag_splice(pipe_ends[0], NULL, ends[0], NULL, (size_t)left, 0));
    }
    await(mag_shutdown(ends[0], SHUT_WR));
    await(mag_recv(ends[1], buf, 4, MSG_PEEK));
    for (char chunk[4096]; (moved = await(mag_recv(ends[1], chunk, sizeof chunk, 0))) > 0;)
        received += moved;
    printf("spliced %ld bytes, %ld have come; an ELF file: %s\n", total, received,
           memcmp(buf, "\177ELF", 4) ? "no" : "yes");
    for (int i = 0; i < 2; i++)
        mag_close_fd(ends[i]), mag_close_fd(pipe_ends[i]);
    return mag_close_fd(fd);
}

/* ---- messages -------------------------------------------------------------------------------- */

union rights { /* for its alignment */
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static struct msghdr message_of(struct iovec *text, union rights *r)
{
    return (struct msghdr){
        .msg_iov = text, .msg_iovlen = 1, .msg_control = r, .msg_controllen = sizeof *r
    };
}

async(void, send_file, (int, to), (int, fd))
{
    union rights r = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)),
                                   .cmsg_level = SOL_SOCKET,
                                   .cmsg_type = SCM_RIGHTS } };
    struct iovec text = { "a file", 6 };
    struct msghdr m = message_of(&text, &r);

    memcpy(CMSG_DATA(&r.header), &fd, sizeof fd);
    await(mag_sendmsg(to, &m, 0));
    return 0;
}

async(void, messages)
{
    union rights r;
    char buf[8] = "", content[8] = "";
    struct iovec text = { buf, sizeof buf - 1 };
    struct msghdr m = message_of(&text, &r);
    int ends[2], file[2], fd;

    await(OR_ERRNO(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)));
    await(OR_ERRNO(pipe2(file, O_CLOEXEC)));
    struct send_file *sender = send_file(ends[0], file[0]);
    await(mag_start(sender, NULL));
    await(mag_recvmsg(ends[1], &m, MSG_CMSG_CLOEXEC));
    await(sender);
    memcpy(&fd, CMSG_DATA(&r.header), sizeof fd);
    await(mag_write(file[1], "content", 7));
    await(mag_read(fd, content, 7));
    printf("got %s with: %s\n", buf, content);
    for (int i = 0; i < 2; i++)
        mag_close_fd(ends[i]), mag_close_fd(file[i]);
    return mag_close_fd(fd);
}

/* ---- datagrams -------------------------------------------------------------------------------- */

async(void, oracle, (int, fd), (int, n))
{
    struct sockaddr_in from;
    char question[100];

    while (n-- > 0) {
        socklen_t len = sizeof from;
        await(mag_recvfrom(fd, question, sizeof question, 0, (struct sockaddr *)&from, &len));
        await(mag_sendto(fd, "42", 2, 0, (struct sockaddr *)&from, len));
    }
    return 0;
}

async(void, datagrams)
{
    struct sockaddr_in at = { .sin_family = AF_INET }, group = { .sin_family = AF_INET };
    struct ip_mreqn way = { .imr_ifindex = (int)if_nametoindex("lo") };
    socklen_t len = sizeof at;
    char answer[8] = "";
    int here = await(mag_socket(AF_INET, SOCK_DGRAM, 0));
    int there = await(mag_socket(AF_INET, SOCK_DGRAM, 0));

    await(OR_ERRNO(bind(there, (struct sockaddr *)&at, sizeof at)));
    await(OR_ERRNO(getsockname(there, (struct sockaddr *)&at, &len)));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    group.sin_port = at.sin_port;
    group.sin_addr.s_addr = inet_addr("239.7.7.7");
    await(mag_multicast_join(there, (struct sockaddr *)&group, (unsigned)way.imr_ifindex));
    await(OR_ERRNO(setsockopt(here, IPPROTO_IP, IP_MULTICAST_IF, &way, sizeof way)));

    struct oracle *o = oracle(there, 2);
    await(mag_start(o, NULL));
    await(mag_sendto(here, "what?", 5, 0, (struct sockaddr *)&at, sizeof at));
    await(mag_recv(here, answer, sizeof answer, 0));
    printf("the answer: %s\n", answer);
    await(mag_sendto(here, "anybody?", 8, 0, (struct sockaddr *)&group, sizeof group));
    await(mag_recv(here, answer, sizeof answer, 0));
    printf("the group's answer: %s\n", answer);
    await(o);
    await(mag_multicast_leave(there, (struct sockaddr *)&group, (unsigned)way.imr_ifindex));
    mag_close_fd(here);
    return mag_close_fd(there);
}

/* ---- poll -------------------------------------------------------------------------------------- */

async(void, writer, (int, fd))
{
    await(mag_sleep(5 * MAG_MS));
    await(mag_send(fd, "line\n", 5, 0));
    return 0;
}

async(void, poll_first)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    char line[16];
    int door = await(mag_socket(AF_INET, SOCK_STREAM, 0));
    int near = await(mag_socket(AF_INET, SOCK_STREAM, 0));

    await(OR_ERRNO(bind(door, (struct sockaddr *)&at, sizeof at)));
    await(OR_ERRNO(listen(door, 1)));
    await(OR_ERRNO(getsockname(door, (struct sockaddr *)&at, &len)));
    await(mag_connect_fd(near, (struct sockaddr *)&at, sizeof at));
    int far = await(mag_accept(door, NULL, NULL, 0));
    struct writer *w = writer(far);
    await(mag_start(w, NULL));
    with_timeout(MAG_SECOND)
    {
        int events = await(mag_poll_fd(near, POLLIN));
        printf("readable: %s\n", events & POLLIN ? "yes" : "no");
    }
    FILE *library = fdopen(near, "r"); /* which would have blocked this worker */
    printf("a library reads: %s",
           library && fgets(line, sizeof line, library) ? line : "nothing\n");
    await(w);
    if (library)
        fclose(library);
    await(mag_send_all(far, "to nobody", 9, 0, NULL));
    mag_close_fd(far);
    return mag_close_fd(door);
}

/* ---- close --------------------------------------------------------------------------------------- */

async(void, reader, (int, fd))
{
    char c;

    return mag_read(fd, &c, 1);
}

async(void, close_under)
{
    int ends[2];

    await(OR_ERRNO(pipe2(ends, O_CLOEXEC)));
    struct reader *r = reader(ends[0]);
    await(mag_start(r, NULL));
    await(mag_sleep(2 * MAG_MS));
    await(mag_close_fd(ends[0])); /* close(2) would leave it there for ever */
    int rc = await_rc(r, NULL);
    printf("the reader: %s\n", mag_err_name(rc));
    return mag_close_fd(ends[1]);
}

/* ---- main ------------------------------------------------------------------------------------------ */

static const char *const names[] = {
    "vectors", "splice", "messages", "datagrams", "poll", "close"
};
enum { SECTIONS = sizeof names / sizeof names[0] };

static int run_section(int i)
{
    switch (i) {
    case 0:
        return mag_run(vectors(), NULL);
    case 1:
        return mag_run(splice_file(), NULL);
    case 2:
        return mag_run(messages(), NULL);
    case 3:
        return mag_run(datagrams(), NULL);
    case 4:
        return mag_run(poll_first(), NULL);
    default:
        return mag_run(close_under(), NULL);
    }
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "usage: descriptors [vectors | splice | messages | datagrams | poll | close]\n";
    int failed = 0, found = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    for (int i = 0; argc <= 2 && i < SECTIONS; i++) {
        if (argc == 2 && strcmp(argv[1], names[i]) != 0)
            continue;
        found = 1;
        failed |= run_section(i) < 0;
    }
    if (!found)
        fputs(usage, stderr);
    return found ? failed : 2;
}
