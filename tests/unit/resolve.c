/* SPDX-License-Identifier: MIT */
/*
 * resolve.c - tests of looking up names
 *
 * The program has a getaddrinfo of its own, which comes before the C library's: it counts,
 * and answers for names that are made up here: "hangs" until it is let go, "eai-N" with the
 * code -N.  Everything else is the C library's own, from /etc/hosts.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "atomic.h"
#include "children.h"
#include "sys.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <time.h>

static int n_asked, n_hanging, n_given, n_freed, is_let_go;
static pthread_t asked_by;

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    int rc;

    mag_fetch_add(&n_asked, 1);
    asked_by = pthread_self();
    if (host && strncmp(host, "eai-", 4) == 0) {
        errno = ENETDOWN;
        return -atoi(host + 4);
    }
    if (host && strcmp(host, "hangs") == 0) {
        mag_fetch_add(&n_hanging, 1);
        while (!mag_load_acquire(&is_let_go))
            nap();
        mag_fetch_sub(&n_hanging, 1);
        host = "127.0.0.1";
    }
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    rc = real(host, service, hints, out);
    if (rc == 0)
        mag_fetch_add(&n_given, 1);
    return rc;
}

void freeaddrinfo(struct addrinfo *list)
{
    static void (*real)(struct addrinfo *);

    mag_fetch_add(&n_freed, 1);
    *(void **)&real = dlsym(RTLD_NEXT, "freeaddrinfo");
    real(list);
}

static void check_lists(void)
{
    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
    cr_assert_eq(n_given, n_freed, "%d lists, %d freed", n_given, n_freed);
}

TestSuite(resolve, .timeout = 60, .fini = check_lists);

/* ---- what is found ------------------------------------------------------------------------ */

/* The port of a list with 127.0.0.1 in it, or the error; -1: without. */
static int port_of(const char *host, const char *service, const struct addrinfo *hints)
{
    struct addrinfo *list = (void *)1;
    int rc = mag_getaddrinfo(host, service, hints, &list), port = -1;

    if (rc < 0)
        return list == NULL ? rc : -2;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)a->ai_addr;
        if (a->ai_family == AF_INET && in->sin_addr.s_addr == htonl(INADDR_LOOPBACK))
            port = ntohs(in->sin_port);
    }
    mag_freeaddrinfo(list);
    return port;
}

static int names(void)
{
    const struct addrinfo stream = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
    const struct addrinfo numeric = { .ai_flags = AI_NUMERICHOST };
    const struct addrinfo bad = { .ai_family = 999 }, bad_flags = { .ai_flags = 1 << 30 };

    SHOULD(port_of("127.0.0.1", "80", &stream) == 80);
    SHOULD(port_of("127.0.0.1", NULL, NULL) == 0);
    SHOULD(port_of("localhost", "443", &stream) == 443);
    SHOULD(port_of("localhost", NULL, &stream) == 0);
    SHOULD(port_of(NULL, "99", &stream) == 99);
    SHOULD(port_of("localhost", "no-such-service", &stream) == -EPROTONOSUPPORT);
    SHOULD(port_of("localhost", NULL, &numeric) == -ENOENT);
    SHOULD(port_of(NULL, NULL, NULL) == -ENOENT);
    SHOULD(port_of("127.0.0.1", NULL, &bad) == -EAFNOSUPPORT);
    SHOULD(port_of("localhost", NULL, &bad) == -EAFNOSUPPORT);
    SHOULD(port_of("localhost", NULL, &bad_flags) == -EINVAL);
    mag_freeaddrinfo(NULL);
    return 0;
}

async(void, names_task)
{
    return names();
}

Test(resolve, names)
{
    cr_assert_eq(names(), 0, "line %d: %s", broken_line, broken_claim);
    RUN_CLEAN(names_task(), 0);
}

/* .invalid is nobody's name, ever (RFC 6761); without a network the answer may be "later". */
async(void, missing)
{
    int rc = port_of("no-such-host.invalid", NULL, NULL);

    SHOULD(rc == -ENOENT || rc == -EAGAIN || rc == -ENODATA || rc == -EREMOTEIO);
    return 0;
}

Test(resolve, a_name_that_does_not_exist)
{
    RUN_CLEAN(missing(), 0);
}

async(void, on_the_spot)
{
    struct addrinfo hints = { .ai_flags = AI_CANONNAME };

    SHOULD(port_of("127.0.0.1", "1", NULL) == 1 && pthread_equal(asked_by, pthread_self()));
    SHOULD(port_of("::1", "1", NULL) == -1 && pthread_equal(asked_by, pthread_self()));
    SHOULD(port_of("127.0.0.1", "1", &hints) == 1 && !pthread_equal(asked_by, pthread_self()));
    SHOULD(port_of("127.0.0.1", "domain", NULL) == 53 && !pthread_equal(asked_by, pthread_self()));
    SHOULD(port_of("localhost", "1", NULL) == 1 && !pthread_equal(asked_by, pthread_self()));
    return 0;
}

Test(resolve, numbers_need_no_thread)
{
    RUN_CLEAN(on_the_spot(), 0);
}

/* ---- errors --------------------------------------------------------------------------------- */

static const struct {
    int eai, rc;
} codes[] = {
    { EAI_NONAME, -ENOENT },
    { EAI_AGAIN, -EAGAIN },
    { EAI_NODATA, -ENODATA },
    { EAI_FAIL, -EREMOTEIO },
    { EAI_ADDRFAMILY, -EADDRNOTAVAIL },
    { EAI_FAMILY, -EAFNOSUPPORT },
    { EAI_SERVICE, -EPROTONOSUPPORT },
    { EAI_SOCKTYPE, -ESOCKTNOSUPPORT },
    { EAI_BADFLAGS, -EINVAL },
    { EAI_OVERFLOW, -EOVERFLOW },
    { EAI_MEMORY, -ENOMEM },
    { EAI_IDN_ENCODE, -EILSEQ },
    { EAI_SYSTEM, -ENETDOWN },
    { -99, -EIO },
};

async(void, errors)
{
    char name[16];

    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        snprintf(name, sizeof name, "eai-%d", -codes[i].eai);
        SHOULD(port_of(name, NULL, NULL) == codes[i].rc);
        SHOULD(mag_err_name(codes[i].rc)[0] == 'E' && mag_err_name(codes[i].rc)[1] != '?');
        if (codes[i].eai != EAI_SYSTEM && codes[i].eai != -99)
            SHOULD(strcmp(mag_gai_text(codes[i].rc), gai_strerror(codes[i].eai)) == 0);
    }
    SHOULD(strcmp(mag_gai_text(-ENETDOWN), mag_err_text(-ENETDOWN)) == 0);
    SHOULD(strcmp(mag_gai_text(-ECANCELED), mag_err_text(-ECANCELED)) == 0);
    return 0;
}

Test(resolve, errors)
{
    RUN_CLEAN(errors(), 0);
}

/* The one fault may be another thread's, which allocates or reads at this moment: then again. */
async(void, no_memory)
{
    int rc = 0;

    for (int i = 0; i < 100 && rc == 0; i++) {
        mag_mem_fail_nth(1, false);
        rc = port_of("localhost", NULL, NULL);
        mag_mem_fail_nth(0, false);
    }
    SHOULD(rc == -ENOMEM);
    rc = 0;
    for (int i = 0; i < 100 && rc == 0; i++) {
        mag_sys_fail_nth(MAG_SYS_READ, 1, EMFILE, false);
        rc = port_of("localhost", NULL, NULL);
        mag_sys_fail_none();
    }
    SHOULD(rc == -EMFILE);
    return 0;
}

Test(resolve, without_memory)
{
    RUN_CLEAN(no_memory(), 0);
}

async(void, no_thread)
{
    mag_sys_fail_nth(MAG_SYS_THREAD_START, 1, EAGAIN, true);
    SHOULD(port_of("localhost", NULL, NULL) == -EAGAIN);
    mag_sys_fail_none();
    SHOULD(port_of("localhost", NULL, NULL) == 0);
    return 0;
}

Test(resolve, without_a_thread)
{
    RUN_CLEAN(no_thread(), 0);
}

/* ---- look-ups that hang ------------------------------------------------------------------------- */

async(void, ask, (const char *, host))
{
    int rc = port_of(host, "7", NULL);

    return rc == 7 ? 0 : rc == -1 ? -ERANGE : rc;
}

/* One that is not answered before let_go. */
static struct ask *hanging(void)
{
    mag_store_release(&is_let_go, 0);
    return spawn(ask("hangs"));
}

static int until_hanging(int n)
{
    int rc = 0;

    while (rc == 0 && mag_load_acquire(&n_hanging) < n)
        rc = mag_sleep(50 * MAG_US);
    return rc;
}

static void let_go(void *arg)
{
    (void)arg;
    mag_store_release(&is_let_go, 1);
}

async(void, cancelled)
{
    struct ask *t = hanging();

    await(until_hanging(1));
    mag_cancel(t);
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    SHOULD(wait_for(ask("hangs"), 10 * MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(mag_load_acquire(&n_hanging) >= 1); /* nobody has waited for it */
    await(ask("localhost")); /* another thread of the lane */
    let_go(NULL);
    return 0; /* the runtime waits for the threads */
}

Test(resolve, cancelled_while_it_hangs)
{
    RUN_CLEAN(cancelled(), 0);
}

/* One that is cancelled before a thread has begun it never runs. */
async(void, cancelled_in_the_queue)
{
    struct ask *hangs = hanging(), *queued;
    int before;

    await(until_hanging(1));
    before = mag_load_acquire(&n_asked);
    queued = spawn(ask("localhost"));
    await(mag_sleep(5 * MAG_MS));
    SHOULD(!mag_done(queued));
    mag_cancel(queued);
    SHOULD(await_rc(queued, NULL) == -ECANCELED);
    let_go(NULL);
    await(hangs);
    SHOULD(mag_load_acquire(&n_asked) == before);
    return 0;
}

Test(resolve, cancelled_in_the_queue)
{
    int before = n_descriptors();
    int64_t live = mag_mem_live();

    for (unsigned n = 1; n <= 4; n += 3)
        cr_assert_eq(mag_run_with(cancelled_in_the_queue(), NULL,
                                  &(struct mag_rt_options){ .workers = n, .offload_threads = 1 }),
                     0, "line %d: %s", broken_line, broken_claim);
    cr_assert_eq(n_descriptors(), before);
    cr_assert_eq(mag_mem_live(), live);
}

async(void, cancelled_before)
{
    int before = mag_load_acquire(&n_asked);

    mag_cancel(mag_self());
    SHOULD(port_of("localhost", NULL, NULL) == -ECANCELED);
    SHOULD(port_of("127.0.0.1", NULL, NULL) == -ECANCELED);
    SHOULD(mag_load_acquire(&n_asked) == before);
    return 0;
}

Test(resolve, cancelled_before)
{
    RUN_CLEAN(cancelled_before(), 0);
}

/* The answer and the cancel at one moment: one of them, and no list is lost. */
async(void, at_one_moment, (int, i))
{
    struct ask *t = hanging();
    int rc;

    await(until_hanging(1));
    let_go(NULL);
    for (mag_time end = mag_now() + i * 3 * MAG_US; mag_now() < end;)
        continue;
    mag_cancel(t);
    rc = await_rc(t, NULL);
    SHOULD(rc == 0 || rc == -ECANCELED);
    while (mag_load_acquire(&n_hanging) > 0)
        await(mag_yield());
    return 0;
}

async(void, moments)
{
    for (int i = 0; i < 100; i++)
        await(at_one_moment(i));
    return 0;
}

Test(resolve, answer_and_cancel_at_one_moment)
{
    RUN_CLEAN(moments(), 0);
}

/* ---- names of addresses ---------------------------------------------------------------------------- */

static int reversed(void)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons(53),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const struct sockaddr *addr = (const struct sockaddr *)&in;
    const int numbers = NI_NUMERICHOST | NI_NUMERICSERV;
    char host[64] = "", service[32] = "", tiny[4] = "abc";

    SHOULD(mag_getnameinfo(addr, sizeof in, host, sizeof host, service, sizeof service, numbers) ==
           0);
    SHOULD(strcmp(host, "127.0.0.1") == 0 && strcmp(service, "53") == 0);
    SHOULD(mag_getnameinfo(addr, sizeof in, host, sizeof host, service, sizeof service, 0) == 0);
    SHOULD(strcmp(host, "localhost") == 0 && strcmp(service, "domain") == 0);
    SHOULD(mag_getnameinfo(addr, sizeof in, NULL, 0, service, sizeof service, NI_NUMERICSERV) == 0);
    SHOULD(mag_getnameinfo(addr, sizeof in, tiny, sizeof tiny, NULL, 0, 0) == -EOVERFLOW);
    SHOULD(mag_getnameinfo(addr, sizeof in, tiny, sizeof tiny, NULL, 0, numbers) == -EOVERFLOW);
    SHOULD(strcmp(tiny, "abc") == 0);
    SHOULD(mag_getnameinfo(addr, 3, host, sizeof host, NULL, 0, 0) == -EAFNOSUPPORT);
    SHOULD(mag_getnameinfo(addr, 5000, host, sizeof host, NULL, 0, 0) == -EINVAL);
    SHOULD(mag_getnameinfo(NULL, 0, host, sizeof host, NULL, 0, 0) == -EINVAL);
    return 0;
}

async(void, reversed_task)
{
    return reversed();
}

Test(resolve, names_of_addresses)
{
    cr_assert_eq(reversed(), 0, "line %d: %s", broken_line, broken_claim);
    RUN_CLEAN(reversed_task(), 0);
}
