/* SPDX-License-Identifier: MIT */
/*
 * resolve.c - looks up many names at once
 *
 *      resolve [-t SECONDS] NAME...
 *      resolve --help
 *
 * Prints the addresses of each NAME (or the name of each address), all looked up at the same
 * time, in the order of the arguments:
 *
 *      $ resolve localhost 127.0.0.1 no-such-host.invalid
 *      localhost: ::1 127.0.0.1
 *      127.0.0.1: localhost
 *      no-such-host.invalid: Name or service not known (ENOENT)
 *
 * After SECONDS (5) it waits no longer for those that have not been answered; the C library's
 * thread, which cannot be stopped, holds up the end of the program all the same.
 *
 * EXIT STATUS
 *     0; 1 if one was not found; 2 for wrong usage.
 */
#include <magpie/async.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct answer {
    char text[1200];
};

/* The numbers of a list, each once, with a blank before each. */
static int numbers(struct answer *a, const struct addrinfo *list)
{
    char host[INET6_ADDRSTRLEN];
    size_t len = 0;

    for (; list && len + sizeof host + 2 < sizeof a->text; list = list->ai_next) {
        int rc = mag_getnameinfo(list->ai_addr, list->ai_addrlen, host, sizeof host, NULL, 0,
                                 NI_NUMERICHOST | NI_NUMERICSERV);
        if (rc < 0)
            return rc;
        len += (size_t)sprintf(a->text + len, " %s", host);
    }
    return 0;
}

async(struct answer, addresses_of, (const char *, name))
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list;
    struct answer a = { "" };

    await(mag_getaddrinfo(name, NULL, &hints, &list));
    int rc = numbers(&a, list);
    mag_freeaddrinfo(list);
    if (rc < 0)
        return rc;
    async_return(a);
}

async(struct answer, name_of, (struct in_addr, addr))
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = addr };
    struct answer a = { " " };

    await(mag_getnameinfo((struct sockaddr *)&in, sizeof in, a.text + 1, sizeof a.text - 1, NULL, 0,
                          NI_NAMEREQD));
    async_return(a);
}

async(struct answer, ask, (const char *, name), (mag_time, limit))
{
    struct in_addr addr;
    struct answer a;

    with_timeout(limit)
    {
        if (inet_pton(AF_INET, name, &addr) == 1)
            a = await(name_of(addr));
        else
            a = await(addresses_of(name));
    }
    async_return(a);
}

async(int, ask_all, (char **, names), (int, n), (mag_time, limit))
{
    struct ask **all = calloc((size_t)n, sizeof *all);
    struct answer *answers = calloc((size_t)n, sizeof *answers);
    int *rcs = calloc((size_t)n, sizeof *rcs), n_missing = 0, rc = -ENOMEM;

    if (all && answers && rcs) {
        for (int i = 0; i < n; i++)
            all[i] = ask(names[i], limit);
        rc = mag_gather(answers, sizeof *answers, (void **)all, (size_t)n,
                        &(struct mag_gather_options){ .rcs = rcs });
    }
    for (int i = 0; rc == 0 && i < n; i++) {
        n_missing += rcs[i] < 0;
        if (rcs[i] < 0)
            printf("%s: %s (%s)\n", names[i], mag_gai_text(rcs[i]), mag_err_name(rcs[i]));
        else
            printf("%s:%s\n", names[i], answers[i].text);
    }
    free(all);
    free(answers);
    free(rcs);
    if (rc < 0)
        return rc;
    async_return(n_missing);
}

static int usage(FILE *to)
{
    fputs("usage: resolve [-t SECONDS] NAME...\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    double seconds = 5;
    int first = 1, n_missing = 0;

    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc > 2 && strcmp(argv[1], "-t") == 0) {
        seconds = strtod(argv[2], NULL);
        first = 3;
    }
    if (first >= argc || !(seconds > 0) || argv[first][0] == '-')
        return usage(stderr);
    int rc =
        mag_run(ask_all(argv + first, argc - first, (mag_time)(seconds * MAG_SECOND)), &n_missing);
    if (rc < 0)
        fprintf(stderr, "resolve: %s\n", mag_err_text(rc));
    return rc < 0 || n_missing > 0;
}
