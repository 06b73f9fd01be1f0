/* SPDX-License-Identifier: MIT */
/*
 * tls.c - tests of TLS: handshakes, refusals, resumption, and what can happen to a connection
 *
 * Client and server are two tasks of the test, at the two ends of a socketpair(2) or of a TCP
 * connection.  The certificates are made by tls_cert.h when the test begins.
 */
#include "mem.h"
#include "pair.h"
#include "tls_cert.h"

#include <magpie/server.h>
#include <magpie/tls.h>

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>

static struct tls_certs certs;

static void begin(void)
{
    tls_certs_make(&certs);
    n_descriptors_before = n_descriptors();
}

static void end(void)
{
    mag_mem_fail_nth(0, false);
    tls_certs_free(&certs);
    cr_assert_eq(n_descriptors(), n_descriptors_before);
}

TestSuite(tls, .init = begin, .fini = end, .timeout = 110);

/* ---- two ends --------------------------------------------------------------------- */

static struct mag_tls *client_of(struct mag_tls_options o)
{
    struct mag_tls *tls = NULL;

    if (o.ca_pem == NULL && !o.ca_file && !o.ca_dir)
        o.ca_pem = certs.ca;
    return mag_tls_client_new(&tls, &o) < 0 ? NULL : tls;
}

static struct mag_tls *server_with(const struct tls_cert *c, struct mag_tls_options o)
{
    struct mag_tls *tls = NULL;

    o.cert_pem = c->cert;
    o.key_pem = c->key;
    return mag_tls_server_new(&tls, &o) < 0 ? NULL : tls;
}

#define CLIENT(...)      client_of((struct mag_tls_options){ __VA_ARGS__ })
#define SERVER(...)      server_with(&certs.good, (struct mag_tls_options){ __VA_ARGS__ })
#define SERVER_OF(which) server_with(&certs.which, (struct mag_tls_options){ .why = NULL })

/* A connection and its two contexts. */
struct link {
    struct pair p;
    struct mag_tls *client, *server;
    int client_rc, server_rc;
};

static int shut(struct mag_stream *s)
{
    return mag_shutdown(mag_stream_fd(s), SHUT_WR);
}

async(void, accept_tls, (struct link *, l))
{
    l->server_rc = mag_stream_start_tls(&l->p.b, l->server, NULL);
    if (l->server_rc < 0) /* the other one need not wait for more */
        shut(&l->p.b);
    return 0;
}

/* Both handshakes; then client_rc and server_rc say how they ended. */
static int shake(struct link *l, const char *name)
{
    struct accept_tls *task = accept_tls(l);
    int rc = mag_start(task, NULL);

    if (rc < 0 || !l->client || !l->server)
        return -ENOMEM;
    l->client_rc = mag_stream_start_tls(&l->p.a, l->client, name);
    if (l->client_rc < 0)
        shut(&l->p.a);
    return mag_await(task, NULL, 0);
}

static int connect_link(struct link *l, struct mag_tls *client, struct mag_tls *server,
                        const char *name)
{
    l->client = client;
    l->server = server;
    int rc = open_pair(&l->p);

    return rc < 0 ? rc : shake(l, name);
}

static void end_link(struct link *l)
{
    close_pair(&l->p);
    mag_tls_free(l->client);
    mag_tls_free(l->server);
}

/* A line there and one back. */
static int talk(struct link *l)
{
    struct mag_str line;

    SHOULD(mag_stream_puts(&l->p.a, "question\n") == 0 && mag_stream_drain(&l->p.a) == 0);
    SHOULD(mag_stream_readline(&l->p.b, &line) == 9 && is_text(line, "question\n"));
    SHOULD(mag_stream_puts(&l->p.b, "an answer\n") == 0 && mag_stream_drain(&l->p.b) == 0);
    SHOULD(mag_stream_readline(&l->p.a, &line) == 10 && is_text(line, "an answer\n"));
    return 0;
}

/* As a statement in a test's body. */
#define OK(call) \
    do { \
        int ok_rc = (call); \
        if (ok_rc < 0) \
            return broken_line ? ok_rc : (broken_line = __LINE__, ok_rc); \
    } while (0)

/* ---- handshakes ------------------------------------------------------------------- */

static int speaks(int version, const char *called)
{
    struct link l;
    char peer[100];

    OK(connect_link(&l, CLIENT(.max_version = version), SERVER(), "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    SHOULD(strcmp(mag_stream_tls_version(&l.p.a), called) == 0);
    SHOULD(strcmp(mag_stream_tls_version(&l.p.b), called) == 0);
    SHOULD(strcmp(mag_stream_tls_cipher(&l.p.a), mag_stream_tls_cipher(&l.p.b)) == 0);
    SHOULD(mag_stream_alpn(&l.p.a) == NULL && mag_stream_alpn(&l.p.b) == NULL);
    SHOULD(!mag_stream_tls_reused(&l.p.a) && strcmp(mag_stream_tls_error(&l.p.a), "") == 0);
    SHOULD(strcmp(mag_stream_tls_server_name(&l.p.b), "localhost") == 0);
    SHOULD(mag_stream_tls_peer(&l.p.a, peer, sizeof peer) == 12 && !strcmp(peer, "CN=localhost"));
    SHOULD(mag_stream_tls_peer(&l.p.a, peer, 5) == 4 && !strcmp(peer, "CN=l"));
    SHOULD(mag_stream_tls_peer(&l.p.b, peer, sizeof peer) == 0 && peer[0] == '\0');
    OK(talk(&l));
    OK(talk(&l));
    end_link(&l);
    return 0;
}

ON_1_AND_4(tls, both_versions_are_spoken)
{
    OK(speaks(MAG_TLS_1_2, "TLSv1.2"));
    OK(speaks(MAG_TLS_1_3, "TLSv1.3"));
    OK(speaks(0, "TLSv1.3"));
    return 0;
}

ON_1(tls, a_stream_without_tls_has_nothing_to_say)
{
    struct pair p;
    char peer[10] = "x";

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_tls_error(&p.a) == NULL && mag_stream_tls_version(&p.a) == NULL);
    SHOULD(mag_stream_tls_cipher(&p.a) == NULL && mag_stream_alpn(&p.a) == NULL);
    SHOULD(mag_stream_tls_server_name(&p.a) == NULL && !mag_stream_tls_reused(&p.a));
    SHOULD(mag_stream_tls_peer(&p.a, peer, sizeof peer) == -ENOTCONN && peer[0] == '\0');
    close_pair(&p);
    SHOULD(mag_stream_tls_version(&p.a) == NULL);
    return 0;
}

ON_1(tls, versions_without_a_common_one_fail)
{
    struct link l;
    char text[200];

    OK(connect_link(&l, CLIENT(.max_version = MAG_TLS_1_2), SERVER(.min_version = MAG_TLS_1_3),
                    "localhost"));
    SHOULD(l.client_rc == -EPROTO && l.server_rc == -EPROTO);
    SHOULD(strcmp(mag_stream_tls_error(&l.p.a), "the peer says: protocol version") == 0);
    SHOULD(strcmp(mag_stream_tls_error(&l.p.b), "unsupported protocol") == 0);
    SHOULD(mag_tls_error(l.server, text, sizeof text) == 20 &&
           !strcmp(text, "unsupported protocol"));
    SHOULD(mag_stream_tls_version(&l.p.a) == NULL);
    end_link(&l);
    return 0;
}

/* ---- names and certificates ------------------------------------------------------- */

ON_1(tls, names_and_addresses_that_fit)
{
    static const char *const names[] = { "localhost", "LOCALHOST",      "127.0.0.1", "::1",
                                         "[::1]",     "a.good.example", "localhost." };

    for (size_t i = 0; i < MAG_ARRAY_SIZE(names); i++) {
        struct link l;
        OK(connect_link(&l, CLIENT(), SERVER(), names[i]));
        SHOULD(l.client_rc == 0 && l.server_rc == 0);
        bool is_address = strpbrk(names[i], ":1") != NULL;
        SHOULD(is_address == (mag_stream_tls_server_name(&l.p.b) == NULL));
        end_link(&l);
    }
    return 0;
}

/* Refused by a careful client with that sentence, not by a careless one. */
static int refused(const struct tls_cert *c, const char *name, const char *why)
{
    struct mag_tls_options none = { 0 };
    struct link l;
    char text[300];

    OK(connect_link(&l, CLIENT(), server_with(c, none), name));
    SHOULD(l.client_rc == -EKEYREJECTED && l.server_rc == -EKEYREJECTED);
    broken_claim = mag_stream_tls_error(&l.p.a);
    if (strcmp(mag_stream_tls_error(&l.p.a), why) != 0)
        return fprintf(stderr, "'%s' instead of '%s'\n", broken_claim, why), -EINVAL;
    SHOULD(strncmp(mag_stream_tls_error(&l.p.b), "the peer says: ", 15) == 0);
    SHOULD(mag_tls_error(l.client, text, sizeof text) == (int)strlen(why) && !strcmp(text, why));
    SHOULD(mag_stream_puts(&l.p.a, "x") == 0 && mag_stream_drain(&l.p.a) == -EKEYREJECTED);
    SHOULD(mag_stream_read(&l.p.a, text, 1) == -EKEYREJECTED);
    end_link(&l);

    OK(connect_link(&l, CLIENT(.insecure = true), server_with(c, none), name));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    OK(talk(&l));
    end_link(&l);
    return 0;
}

ON_1(tls, bad_certificates_are_refused)
{
    OK(refused(&certs.expired, "localhost", "certificate has expired"));
    OK(refused(&certs.early, "localhost", "certificate is not yet valid"));
    OK(refused(&certs.stranger, "localhost", "unable to get local issuer certificate"));
    OK(refused(&certs.stranger_root, "localhost", "self-signed certificate"));
    OK(refused(&certs.other, "localhost",
               "host name mismatch: 'localhost' was wanted, the certificate is for other.example"));
    OK(refused(&certs.good, "good.example",
               "host name mismatch: 'good.example' was wanted, the certificate is for localhost, "
               "*.good.example"));
    OK(refused(&certs.client, "localhost",
               "host name mismatch: 'localhost' was wanted, the certificate is for CN=a client"));
    OK(refused(&certs.good, "127.0.0.2",
               "IP address mismatch: '127.0.0.2' was wanted, the certificate is for localhost, "
               "*.good.example"));
    return 0;
}

ON_1(tls, the_systems_authorities_know_none_of_ours)
{
    struct mag_tls *client = NULL;
    struct link l;

    SHOULD(mag_tls_client_new(&client, NULL) == 0);
    OK(connect_link(&l, client, SERVER(), "localhost"));
    SHOULD(l.client_rc == -EKEYREJECTED);
    end_link(&l);
    return 0;
}

static int take_nothing(void *self, const struct iovec *iov, int n_iov)
{
    (void)self, (void)iov, (void)n_iov;
    return 0;
}

ON_1(tls, a_transport_below_that_takes_nothing_has_failed)
{
    struct mag_transport idle = script_transport;
    struct mag_tls *client = CLIENT();
    struct script x = SCRIPT("");
    struct mag_stream s;

    idle.write = take_nothing;
    SHOULD(mag_stream_of_transport(&s, &idle, &x, NULL) == 0);
    SHOULD(mag_stream_start_tls(&s, client, "localhost") == -EIO);
    mag_stream_close(&s);
    SHOULD(x.n_closed == 1);
    mag_tls_free(client);
    return 0;
}

ON_1(tls, a_client_must_know_whom_it_wants)
{
    struct mag_tls *tls = CLIENT(), *insecure = CLIENT(.insecure = true);
    char long_name[400];
    struct pair p;

    memset(long_name, 'a', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_start_tls(&p.a, tls, NULL) == -EINVAL);
    SHOULD(mag_stream_start_tls(&p.a, tls, "") == -EINVAL);
    SHOULD(mag_stream_start_tls(&p.a, tls, long_name) == -EINVAL);
    SHOULD(mag_stream_write_all(&p.a, "plain", 5, NULL) == 0); /* nothing has happened to it */
    mag_stream_write_eof(&p.b);
    SHOULD(mag_stream_start_tls(&p.a, insecure, NULL) == -ECONNABORTED);
    close_pair(&p);
    mag_tls_free(tls);
    mag_tls_free(insecure);
    mag_tls_free(NULL);
    return 0;
}

/* ---- clients' certificates -------------------------------------------------------- */

#define WITH(which) .cert_pem = certs.which.cert, .key_pem = certs.which.key

ON_1(tls, a_server_may_want_a_clients_certificate)
{
    struct link l;
    char peer[100];

    OK(connect_link(&l, CLIENT(WITH(client)),
                    SERVER(.client_cert = MAG_TLS_CERT_REQUIRED, .ca_pem = certs.ca), "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    SHOULD(mag_stream_tls_peer(&l.p.b, peer, sizeof peer) > 0 && !strcmp(peer, "CN=a client"));
    OK(talk(&l));
    end_link(&l);

    OK(connect_link(&l, CLIENT(), SERVER(.client_cert = MAG_TLS_CERT_OPTIONAL, .ca_pem = certs.ca),
                    "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    SHOULD(mag_stream_tls_peer(&l.p.b, peer, sizeof peer) == 0);
    end_link(&l);
    return 0;
}

/* In TLS 1.3 the client's handshake is over before the server looks at its certificate. */
static int client_refused(struct mag_tls *client, const char *server_says, const char *client_hears,
                          bool is_old)
{
    struct link l;
    char c;

    OK(connect_link(&l, client, SERVER(.client_cert = MAG_TLS_CERT_REQUIRED, .ca_pem = certs.ca),
                    "localhost"));
    SHOULD(l.server_rc == -EKEYREJECTED);
    SHOULD(strcmp(mag_stream_tls_error(&l.p.b), server_says) == 0);
    SHOULD(l.client_rc == (is_old ? -EKEYREJECTED : 0));
    SHOULD(mag_stream_read(&l.p.a, &c, 1) == -EKEYREJECTED);
    broken_claim = mag_stream_tls_error(&l.p.a);
    if (strcmp(mag_stream_tls_error(&l.p.a), client_hears) != 0)
        return fprintf(stderr, "'%s'\n", broken_claim), -EINVAL;
    end_link(&l);
    return 0;
}

ON_1(tls, a_server_refuses_clients)
{
    OK(client_refused(CLIENT(), "the peer has shown no certificate",
                      "the peer says: certificate required", false));
    OK(client_refused(CLIENT(WITH(expired)), "certificate has expired",
                      "the peer says: certificate expired", false));
    OK(client_refused(CLIENT(WITH(stranger), .max_version = MAG_TLS_1_2),
                      "unable to get local issuer certificate", "the peer says: unknown CA", true));
    return 0;
}

/* ---- ALPN and SNI ----------------------------------------------------------------- */

#define NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })

ON_1(tls, alpn_takes_what_the_server_likes_best)
{
    struct link l;

    OK(connect_link(&l, CLIENT(.alpn = NAMES("http/1.1", "h2")),
                    SERVER(.alpn = NAMES("h2", "http/1.1")), "localhost"));
    SHOULD(l.client_rc == 0 && strcmp(mag_stream_alpn(&l.p.a), "h2") == 0);
    SHOULD(strcmp(mag_stream_alpn(&l.p.b), "h2") == 0);
    end_link(&l);

    OK(connect_link(&l, CLIENT(.alpn = NAMES("http/1.1")), SERVER(), "localhost"));
    SHOULD(l.client_rc == 0 && mag_stream_alpn(&l.p.a) == NULL && mag_stream_alpn(&l.p.b) == NULL);
    end_link(&l);

    OK(connect_link(&l, CLIENT(), SERVER(.alpn = NAMES("h2")), "localhost"));
    SHOULD(l.client_rc == 0 && mag_stream_alpn(&l.p.b) == NULL);
    end_link(&l);

    OK(connect_link(&l, CLIENT(.alpn = NAMES("imap")), SERVER(.alpn = NAMES("h2")), "localhost"));
    SHOULD(l.client_rc == -EPROTO && l.server_rc == -EPROTO);
    SHOULD(strcmp(mag_stream_tls_error(&l.p.a), "the peer says: no application protocol") == 0);
    end_link(&l);
    return 0;
}

ON_1(tls, a_server_may_have_several_certificates)
{
    struct mag_tls_identity more[] = {
        { .cert_pem = certs.client.cert, .key_pem = certs.client.key },
        { .cert_pem = certs.other.cert, .key_pem = certs.other.key },
    };
    static const char *const names[] = { "other.example", "localhost", "127.0.0.1" };

    for (size_t i = 0; i < MAG_ARRAY_SIZE(names); i++) {
        struct link l;
        OK(connect_link(&l, CLIENT(), SERVER(.more = more, .n_more = 2), names[i]));
        SHOULD(l.client_rc == 0 && l.server_rc == 0);
        OK(talk(&l));
        end_link(&l);
    }
    return 0;
}

/* ---- resumption ------------------------------------------------------------------- */

/* A connection with contexts that live on; whether it was resumed. */
static int again(struct mag_tls *client, struct mag_tls *server, const char *name)
{
    struct link l;
    bool is_reused;

    OK(connect_link(&l, client, server, name));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    OK(talk(&l)); /* the tickets of TLS 1.3 come with the first answer */
    is_reused = mag_stream_tls_reused(&l.p.a);
    SHOULD(is_reused == mag_stream_tls_reused(&l.p.b));
    close_pair(&l.p);
    return is_reused;
}

static int resumes(int version)
{
    struct mag_tls *client = CLIENT(.max_version = version), *server = SERVER(), *later = SERVER();

    SHOULD(again(client, server, "localhost") == 0);
    SHOULD(again(client, server, "localhost") == 1);
    SHOULD(again(client, server, "localhost") == 1);
    SHOULD(again(client, server, "127.0.0.1") == 0); /* another name: not the same peer */
    SHOULD(again(client, server, "127.0.0.1") == 1);
    SHOULD(again(client, later, "localhost") == 0); /* which does not know its tickets */
    SHOULD(again(client, later, "localhost") == 1);
    mag_tls_free(client);
    mag_tls_free(server);
    mag_tls_free(later);
    return 0;
}

ON_1(tls, sessions_are_resumed)
{
    OK(resumes(MAG_TLS_1_2));
    OK(resumes(MAG_TLS_1_3));
    return 0;
}

/* A server gives two; a client that reads nothing gets none. */
ON_1(tls, a_ticket_is_used_once)
{
    struct mag_tls *client = CLIENT(), *server = SERVER();

    SHOULD(again(client, server, "localhost") == 0);
    for (int i = 0; i < 3; i++) {
        struct link l;
        OK(connect_link(&l, client, server, "localhost"));
        SHOULD(mag_stream_tls_reused(&l.p.a) == (i < 2));
        close_pair(&l.p);
    }
    mag_tls_free(client);
    mag_tls_free(server);
    return 0;
}

ON_1(tls, sessions_are_kept_within_limits)
{
    struct mag_tls *client = CLIENT(.n_sessions = 2), *server = SERVER();

    SHOULD(again(client, server, "localhost") == 0);
    SHOULD(again(client, server, "127.0.0.1") == 0); /* two tickets: there is room for no more */
    SHOULD(again(client, server, "localhost") == 0);
    SHOULD(again(client, server, "localhost") == 1);
    mag_tls_free(client);
    mag_tls_free(server);
    return 0;
}

ON_1(tls, resumption_can_be_forbidden)
{
    for (int version = MAG_TLS_1_2; version <= MAG_TLS_1_3; version++) {
        struct mag_tls *client = CLIENT(.no_resumption = true, .max_version = version);
        struct mag_tls *other = CLIENT(.max_version = version);
        struct mag_tls *server = SERVER(), *strict = SERVER(.no_resumption = true);

        SHOULD(again(client, server, "localhost") == 0 && again(client, server, "localhost") == 0);
        SHOULD(again(other, strict, "localhost") == 0 && again(other, strict, "localhost") == 0);
        mag_tls_free(client);
        mag_tls_free(other);
        mag_tls_free(server);
        mag_tls_free(strict);
    }
    return 0;
}

/* ---- much ------------------------------------------------------------------------- */

enum { MUCH = 3000 * 1000 + 17 };

async(void, send_much, (struct mag_stream *, s), (const char *, text))
{
    size_t done = 0;

    for (size_t at = 0, n = 1; at < MUCH; at += n, n = n * 3 % 150001) {
        n = n < MUCH - at ? n : MUCH - at;
        await(mag_stream_write(s, text + at, n, NULL));
    }
    await(mag_stream_drain(s));
    await(mag_stream_write_eof(s));
    return mag_stream_write_all(s, "x", 1, &done) == -EPIPE ? 0 : -EPROTO;
}

async(void, receive_much, (struct mag_stream *, s), (const char *, text))
{
    struct mag_str all;

    await(mag_stream_read_all(s, &all, 0));
    return all.len == MUCH && memcmp(all.ptr, text, MUCH) == 0 ? 0 : -EBADMSG;
}

static int much(int version)
{
    char *text = bytes_of(MUCH);
    struct link l;
    int rc;

    OK(connect_link(&l, CLIENT(.max_version = version), SERVER(), "localhost"));
    SHOULD(l.client_rc == 0);
    narrow(&l.p.a);
    gather(NULL, send_much(&l.p.a, text), receive_much(&l.p.a, text), send_much(&l.p.b, text),
           receive_much(&l.p.b, text));
    rc = mag_stream_read(&l.p.a, text, 1);
    SHOULD(rc == 0 && mag_stream_at_eof(&l.p.a));
    end_link(&l);
    free(text);
    return 0;
}

ON_1_AND_4(tls, much_goes_both_ways_at_once)
{
    OK(much(MAG_TLS_1_3));
    OK(much(MAG_TLS_1_2));
    return 0;
}

/* ---- ends ------------------------------------------------------------------------- */

ON_1(tls, an_end_without_a_word_is_an_error)
{
    struct link l;
    char buf[10];

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    SHOULD(mag_stream_write_all(&l.p.b, "part", 4, NULL) == 0 && shut(&l.p.b) == 0);
    SHOULD(mag_stream_read(&l.p.a, buf, sizeof buf) == 4);
    SHOULD(mag_stream_read(&l.p.a, buf, sizeof buf) == -ECONNABORTED);
    SHOULD(mag_stream_read(&l.p.a, buf, sizeof buf) == -ECONNABORTED);
    SHOULD(strstr(mag_stream_tls_error(&l.p.a), "without a close_notify"));
    end_link(&l);

    /* In the middle of a record: its header, and a bit of it. */
    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    SHOULD(mag_send_all(mag_stream_fd(&l.p.b), "\x17\3\3\1\0abc", 8, 0, NULL) == 0);
    SHOULD(shut(&l.p.b) == 0);
    SHOULD(mag_stream_read(&l.p.a, buf, sizeof buf) == -ECONNABORTED);
    end_link(&l);
    return 0;
}

static int half_closed(int version)
{
    struct mag_str all;
    struct link l;
    char c;

    OK(connect_link(&l, CLIENT(.max_version = version), SERVER(), "localhost"));
    SHOULD(mag_stream_puts(&l.p.a, "the question") == 0);
    SHOULD(mag_stream_write_eof(&l.p.a) == 0 && mag_stream_write_eof(&l.p.a) == 0);
    SHOULD(mag_stream_puts(&l.p.a, "more") == -EPIPE);
    SHOULD(mag_stream_read_all(&l.p.b, &all, 0) == 0 && is_text(all, "the question"));
    SHOULD(mag_stream_read(&l.p.b, &c, 1) == 0 && mag_stream_at_eof(&l.p.b));
    SHOULD(mag_stream_puts(&l.p.b, "the answer") == 0 && mag_stream_close(&l.p.b) == 0);
    SHOULD(mag_stream_read_all(&l.p.a, &all, 0) == 0 && is_text(all, "the answer"));
    end_link(&l);
    return 0;
}

ON_1(tls, one_half_can_be_closed)
{
    OK(half_closed(MAG_TLS_1_2));
    OK(half_closed(MAG_TLS_1_3));
    return 0;
}

enum { LAST_WORDS = 2000 * 1000 };

async(void, leaves, (struct mag_tls *, tls), (uint16_t, port), (const char *, text))
{
    struct mag_connect_options o = { .tls = tls };
    struct mag_stream s;

    await(mag_connect(&s, "127.0.0.1", port, &o));
    int rc = mag_stream_write(&s, text, LAST_WORDS, NULL);
    int close_rc = mag_stream_close(&s);
    return rc < 0 ? rc : close_rc;
}

/* Who sends, closes and has never read: the tickets that wait for it must not cost the peer its
 * bytes, by a reset. */
ON_1_AND_4(tls, a_close_loses_nothing)
{
    char *text = bytes_of(LAST_WORDS);
    struct link l = { .client = CLIENT(), .server = SERVER() };
    struct mag_str all;
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), fd;

    struct leaves *task = leaves(l.client, port, text);
    SHOULD(mag_start(task, NULL) == 0);
    fd = mag_accept(listener, NULL, NULL, 0);
    SHOULD(mag_stream_of_fd(&l.p.b, fd, NULL) == 0);
    SHOULD(mag_stream_start_tls(&l.p.b, l.server, NULL) == 0);
    mag_sleep(20 * MAG_MS);
    SHOULD(mag_stream_read_all(&l.p.b, &all, 0) == 0 && all.len == LAST_WORDS);
    SHOULD(memcmp(all.ptr, text, LAST_WORDS) == 0);
    SHOULD(await_rc(task, NULL) == 0);
    close(listener);
    mag_stream_close(&l.p.b);
    mag_tls_free(l.client);
    mag_tls_free(l.server);
    free(text);
    return 0;
}

ON_1(tls, abort_says_nothing)
{
    struct link l;
    char c;
    int rc;

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    mag_stream_abort(&l.p.b);
    rc = mag_stream_read(&l.p.a, &c, 1);
    SHOULD(rc == -ECONNABORTED || rc == -ECONNRESET);
    end_link(&l);
    return 0;
}

async(int, reads_one, (struct mag_stream *, s))
{
    char c;

    async_return(mag_stream_read(s, &c, 1));
}

async(int, writes_much, (struct mag_stream *, s), (const char *, text))
{
    size_t done;

    async_return(mag_stream_write_all(s, text, MUCH, &done));
}

ON_1_AND_4(tls, a_close_ends_who_is_at_it)
{
    char *text = bytes_of(MUCH);
    struct link l;
    int r[2];

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    narrow(&l.p.a);
    struct reads_one *reader = reads_one(&l.p.a);
    struct writes_much *writer = writes_much(&l.p.a, text);
    SHOULD(mag_start(reader, NULL) == 0 && mag_start(writer, NULL) == 0);
    let_run();
    mag_stream_close(&l.p.a);
    SHOULD(await_rc(reader, &r[0]) == 0 && await_rc(writer, &r[1]) == 0);
    SHOULD(r[0] == -EBADF && r[1] == -EBADF);
    end_link(&l);
    free(text);
    return 0;
}

/* ---- what is no TLS --------------------------------------------------------------- */

static int garbage(const char *text, size_t n, int expected, const char *why)
{
    struct mag_tls *client = CLIENT(), *server = SERVER();

    for (int i = 0; i < 2; i++) {
        struct pair p;
        int rc;
        SHOULD(open_pair(&p) == 0);
        SHOULD(mag_stream_write_all(&p.a, text, n, NULL) == 0 && shut(&p.a) == 0);
        rc = mag_stream_start_tls(&p.b, i ? client : server, i ? "localhost" : NULL);
        SHOULD(rc == expected);
        SHOULD(why == NULL || strcmp(mag_stream_tls_error(&p.b), why) == 0);
        SHOULD(mag_stream_tls_error(&p.b)[0] != '\0');
        close_pair(&p);
    }
    mag_tls_free(client);
    mag_tls_free(server);
    return 0;
}

ON_1(tls, garbage_instead_of_a_handshake)
{
    static const char no_tls[] = "what the peer sends is not TLS";
    char noise[600];

    OK(garbage("", 0, -ECONNABORTED, "the peer has closed during the handshake"));
    OK(garbage("\x16\3\1\2", 4, -ECONNABORTED, NULL));
    OK(garbage("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, -EPROTO, no_tls));
    OK(garbage("SSH-2.0-OpenSSH_9.2p1\r\n", 23, -EPROTO, no_tls));
    OK(garbage("\x15\3\1\0\2\2\x28", 7, -EPROTO, NULL));   /* an alert, handshake failure */
    OK(garbage("\x16\3\1\0\4\1\0\0\0", 9, -EPROTO, NULL)); /* a hello of no length */
    OK(garbage("\x16\3\1\377\377", 5, -EPROTO, NULL));
    for (int i = 0; i < 20; i++) { /* a hello full of noise */
        memcpy(noise, "\x16\3\1\2\x50\1\0\2\x4c\3\3", 11);
        for (size_t k = 11; k < sizeof noise; k++)
            noise[k] = (char)(k * k * 31 + (size_t)i * k + (size_t)i);
        OK(garbage(noise, sizeof noise, -EPROTO, NULL));
    }
    return 0;
}

ON_1(tls, garbage_later)
{
    struct link l;
    char c;

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    OK(talk(&l));
    SHOULD(mag_send_all(mag_stream_fd(&l.p.a), "\x17\3\3\0\24aaaaaaaaaaaaaaaaaaaa", 25, 0, NULL) ==
           0);
    SHOULD(mag_stream_read(&l.p.b, &c, 1) == -EPROTO);
    SHOULD(strstr(mag_stream_tls_error(&l.p.b), "bad record mac") != NULL);
    SHOULD(mag_stream_puts(&l.p.b, "x") == 0 && mag_stream_drain(&l.p.b) == -EPROTO);
    end_link(&l);
    return 0;
}

ON_1(tls, a_peer_that_says_nothing_can_be_left)
{
    struct mag_tls *client = CLIENT(), *server = SERVER();

    for (int i = 0; i < 2; i++) {
        struct pair p;
        struct mag_scope scope;
        char c;
        int rc;
        SHOULD(open_pair(&p) == 0 && mag_timeout_enter(&scope, 10 * MAG_MS, NULL) == 0);
        rc = mag_stream_start_tls(&p.b, i ? client : server, i ? "localhost" : NULL);
        SHOULD(mag_scope_leave(&scope, rc) == -ETIMEDOUT);
        SHOULD(mag_stream_read(&p.b, &c, 1) == -ECONNABORTED);
        SHOULD(mag_stream_write_all(&p.b, "x", 1, NULL) == -ECONNABORTED);
        SHOULD(mag_stream_close(&p.b) == -ECONNABORTED); /* of the write */
        mag_stream_close(&p.a);
    }
    mag_tls_free(client);
    mag_tls_free(server);
    return 0;
}

/* ---- cancellation ----------------------------------------------------------------- */

/* The whole life of a client; the server goes on as long as it can. */
struct life {
    struct mag_tls *client, *server;
    char *text;
    int n_full;
};

enum { LIFE_BYTES = 200 * 1000 };

async(void, echo_life, (struct mag_stream *, s), (struct mag_tls *, tls))
{
    char buf[3000];
    int n;

    await(mag_stream_start_tls(s, tls, NULL));
    while ((n = await(mag_stream_read(s, buf, sizeof buf))) > 0)
        await(mag_stream_write(s, buf, (size_t)n, NULL));
    return 0;
}

static int live(struct life *x, struct pair *p)
{
    char buf[5000];
    int rc;

    nth_point();
    rc = mag_stream_start_tls(&p->a, x->client, "localhost");
    for (size_t at = 0; rc >= 0 && at < LIFE_BYTES; at += sizeof buf) {
        nth_point();
        rc = mag_stream_write_all(&p->a, x->text + at, sizeof buf, NULL);
        if (rc < 0)
            break;
        nth_point();
        rc = mag_stream_read_exact(&p->a, buf, sizeof buf, NULL);
        if (rc == 0 && memcmp(buf, x->text + at, sizeof buf) != 0)
            rc = -EBADMSG;
    }
    nth_point();
    return rc < 0 ? rc : mag_stream_write_eof(&p->a);
}

static int one_life(void *arg, long *value)
{
    struct life *x = arg;
    struct pair p;
    int rc = open_pair(&p);

    (void)value;
    struct echo_life *task = echo_life(&p.b, x->server);
    if (rc < 0 || mag_start(task, NULL) < 0)
        return -EBADMSG;
    rc = live(x, &p);
    mag_stream_close(&p.a);
    int echo_rc = await_rc(task, NULL);
    mag_stream_close(&p.b);
    return rc == 0 && echo_rc != 0 ? -EBADMSG : rc;
}

static int life_holds(void *arg, int rc)
{
    struct life *x = arg;

    SHOULD(rc == 0 || rc == -ECANCELED || rc == -ECONNABORTED);
    x->n_full += rc == 0;
    return 0;
}

ON_1(tls, may_be_cancelled_at_any_point)
{
    struct life x = { .client = CLIENT(), .server = SERVER(), .text = bytes_of(LIFE_BYTES) };

    OK(nth_cancel(one_life, &x, life_holds));
    SHOULD(x.n_full > 0);
    mag_tls_free(x.client);
    mag_tls_free(x.server);
    free(x.text);
    return 0;
}

/* What a cancelled write has taken comes, and nothing twice. */
ON_1(tls, a_cancelled_write_loses_nothing)
{
    char *text = bytes_of(MUCH), *got = malloc(MUCH);
    size_t taken = 0, read = 0, done;
    struct link l;

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    for (int turn = 0; turn < 40; turn++) {
        struct mag_scope scope;
        SHOULD(mag_timeout_enter(&scope, 300 * MAG_US, NULL) == 0);
        int rc = mag_stream_write_all(&l.p.a, text + taken, 70000, &done);
        rc = mag_scope_leave(&scope, rc);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        SHOULD(done <= 70000);
        taken += done;
        if (turn % 3 == 0) {
            rc = mag_stream_read(&l.p.b, got + read, 30000);
            SHOULD(rc > 0);
            read += (size_t)rc;
        }
    }
    SHOULD(taken > read);
    struct reads_one *reader = reads_one(&l.p.a); /* a read that waits sends what is there */
    SHOULD(mag_start(reader, NULL) == 0);
    SHOULD(mag_stream_read_exact(&l.p.b, got + read, taken - read, NULL) == 0);
    SHOULD(memcmp(got, text, taken) == 0);
    SHOULD(mag_stream_write_all(&l.p.b, "x", 1, NULL) == 0);
    SHOULD(await(reader) == 1);
    OK(talk(&l));
    end_link(&l);
    free(text);
    free(got);
    return 0;
}

/* ---- other ways to it ------------------------------------------------------------- */

async(void, upgrade, (struct mag_stream *, s), (struct mag_tls *, tls))
{
    struct mag_str line;

    SHOULD(await(mag_stream_readline(s, &line)) > 0 && is_text(line, "STARTTLS\n"));
    await(mag_stream_puts(s, "go ahead\n"));
    await(mag_stream_drain(s));
    await(mag_stream_start_tls(s, tls, NULL));
    SHOULD(await(mag_stream_readline(s, &line)) > 0 && is_text(line, "secret\n"));
    return 0;
}

ON_1(tls, after_plain_text)
{
    struct mag_tls *client = CLIENT(), *server = SERVER();
    struct mag_str line;
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    struct upgrade *task = upgrade(&p.b, server);
    SHOULD(mag_start(task, NULL) == 0);
    SHOULD(mag_stream_puts(&p.a, "STARTTLS\n") == 0);
    SHOULD(mag_stream_start_tls(&p.a, client, "localhost") == -EBUSY); /* it was not sent */
    SHOULD(mag_stream_readline(&p.a, &line) > 0 && is_text(line, "go ahead\n"));
    SHOULD(mag_stream_start_tls(&p.a, client, "localhost") == 0);
    SHOULD(mag_stream_puts(&p.a, "secret\n") == 0 && mag_stream_drain(&p.a) == 0);
    SHOULD(await_rc(task, NULL) == 0);
    close_pair(&p);
    mag_tls_free(client);
    mag_tls_free(server);
    return 0;
}

/* TLS in TLS, as through a proxy. */
ON_1(tls, within_tls)
{
    char *text = bytes_of(MUCH);
    struct link l;

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    OK(shake(&l, "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    OK(talk(&l));
    gather(NULL, send_much(&l.p.a, text), receive_much(&l.p.b, text));
    end_link(&l);
    free(text);
    return 0;
}

static int echo_lines(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc;

    (void)arg;
    while ((rc = mag_stream_readline(s, &line)) > 0)
        if ((rc = mag_stream_write(s, line.ptr, line.len, NULL)) < 0)
            break;
    return rc;
}

ON_1_AND_4(tls, by_connect_and_serve)
{
    struct mag_tls *client = CLIENT(), *server_tls = SERVER();
    struct mag_serve_options o = { .host = "127.0.0.1", .tls = server_tls };
    struct mag_connect_options c = { .tls = client };
    struct mag_server *server;
    struct mag_stream s;
    struct mag_str line;
    char why[200];

    SHOULD(mag_server_start(&server, echo_lines, NULL, &o) == 0);
    uint16_t port = mag_server_port(server);
    SHOULD(mag_connect(&s, "127.0.0.1", port, &c) == 0);
    SHOULD(mag_stream_puts(&s, "hello\n") == 0);
    SHOULD(mag_stream_readline(&s, &line) == 6 && is_text(line, "hello\n"));
    SHOULD(mag_stream_tls_version(&s) != NULL);
    c.tls_name = "wrong.example";
    struct mag_stream other;
    SHOULD(mag_connect(&other, "127.0.0.1", port, &c) == -EKEYREJECTED);
    SHOULD(mag_tls_error(client, why, sizeof why) > 0 && strstr(why, "'wrong.example' was wanted"));
    SHOULD(mag_tls_error(client, why, 5) > 4 && strcmp(why, "host") == 0);
    SHOULD(mag_stream_close(&s) == 0);
    mag_server_free(server);
    mag_tls_free(client);
    mag_tls_free(server_tls);
    return 0;
}

async(void, stop_server, (struct mag_server *, server))
{
    return mag_server_stop(server);
}

/* A server that drains ends its connections' reading, which is no attack. */
static int n_failed_handlers;

static void count_failed(int rc, const char *peer, void *arg)
{
    (void)rc, (void)peer, (void)arg;
    __atomic_add_fetch(&n_failed_handlers, 1, __ATOMIC_SEQ_CST);
}

ON_1(tls, a_server_drains_without_errors)
{
    struct mag_tls *client = CLIENT(), *server_tls = SERVER();
    struct mag_serve_options o = { .host = "127.0.0.1",
                                   .tls = server_tls,
                                   .on_error = count_failed };
    struct mag_connect_options c = { .tls = client };
    struct mag_server *server;
    struct mag_stream s;
    struct mag_str line;

    n_failed_handlers = 0;
    SHOULD(mag_server_start(&server, echo_lines, NULL, &o) == 0);
    SHOULD(mag_connect(&s, "127.0.0.1", mag_server_port(server), &c) == 0);
    SHOULD(mag_stream_puts(&s, "hello\n") == 0 && mag_stream_readline(&s, &line) == 6);
    struct stop_server *task = stop_server(server);
    SHOULD(mag_start(task, NULL) == 0);
    SHOULD(mag_stream_readline(&s, &line) == 0); /* with close_notify */
    SHOULD(await_rc(task, NULL) == 0 && n_failed_handlers == 0);
    mag_stream_close(&s);
    mag_server_free(server);
    mag_tls_free(client);
    mag_tls_free(server_tls);
    return 0;
}

/* ---- contexts --------------------------------------------------------------------- */

static int wrong(bool is_server, int expected, const char *why, struct mag_tls_options o)
{
    struct mag_tls *tls = (void *)&o;
    char text[200] = "";
    int rc;

    o.why = text;
    o.why_bytes = sizeof text;
    rc = is_server ? mag_tls_server_new(&tls, &o) : mag_tls_client_new(&tls, &o);
    SHOULD(tls == NULL);
    broken_claim = mag_err_name(rc);
    if (rc != expected || strstr(text, why) == NULL)
        return fprintf(stderr, "%s, '%s'\n", mag_err_name(rc), text), -EINVAL;
    return 0;
}
#define WRONG_SERVER(rc, why, ...) OK(wrong(true, rc, why, (struct mag_tls_options){ __VA_ARGS__ }))
#define WRONG_CLIENT(rc, why, ...) \
    OK(wrong(false, rc, why, (struct mag_tls_options){ __VA_ARGS__ }))

ON_1(tls, wrong_options_are_told)
{
    WRONG_SERVER(-EINVAL, "a key without a certificate, or neither", 0);
    WRONG_SERVER(-EINVAL, "a key without a certificate", .key_pem = certs.good.key);
    WRONG_SERVER(-ENOENT, "/no/such: No such file", .cert_file = "/no/such");
    WRONG_SERVER(-ENOENT, "/no/key: No such file", .cert_pem = certs.good.cert,
                 .key_file = "/no/key");
    WRONG_SERVER(-EINVAL, "/etc/passwd: no start line", .cert_file = "/etc/passwd");
    WRONG_SERVER(-EINVAL, "the certificate in memory: no start line", .cert_pem = "nonsense");
    WRONG_SERVER(-EINVAL, "the key in memory", .cert_pem = certs.good.cert);
    WRONG_SERVER(-EKEYREJECTED, "key values mismatch", .cert_pem = certs.good.cert,
                 .key_pem = certs.other.key);
    WRONG_SERVER(-EINVAL, "no such versions", WITH(good), .min_version = 77);
    WRONG_SERVER(-EINVAL, "no such versions", WITH(good), .min_version = MAG_TLS_1_3,
                 .max_version = MAG_TLS_1_2);
    WRONG_SERVER(-EINVAL, "no authority is given", WITH(good),
                 .client_cert = MAG_TLS_CERT_REQUIRED);
    WRONG_SERVER(-EINVAL, ".alpn", WITH(good), .alpn = NAMES("ok", ""));
    WRONG_SERVER(-EINVAL, "a key without", WITH(good), .n_more = 1,
                 .more = &(struct mag_tls_identity){ 0 });
    WRONG_CLIENT(-ENOENT, "/no/such: No such file", .ca_file = "/no/such");
    WRONG_CLIENT(-EINVAL, "the authorities in memory", .ca_pem = "nonsense");
    return 0;
}

/* An encrypted key, as text. */
static char *locked_key(const char *password)
{
    BIO *b = BIO_new(BIO_s_mem());

    PEM_write_bio_PKCS8PrivateKey(b, certs.good.pkey, EVP_aes_128_cbc(), password,
                                  (int)strlen(password), NULL, NULL);
    return tls_text_of(b);
}

ON_1(tls, nobody_is_asked_for_a_password)
{
    char *key = locked_key("sesame");
    struct mag_tls *tls;

    WRONG_SERVER(-EINVAL, "the key in memory", .cert_pem = certs.good.cert, .key_pem = key);
    WRONG_SERVER(-EINVAL, "the key in memory", .cert_pem = certs.good.cert, .key_pem = key,
                 .password = "simsim");
    SHOULD(mag_tls_server_new(&tls, &(struct mag_tls_options){ .cert_pem = certs.good.cert,
                                                               .key_pem = key,
                                                               .password = "sesame" }) == 0);
    mag_tls_free(tls);
    free(key);
    return 0;
}

ON_1(tls, certificates_from_files)
{
    char dir[] = "/tmp/mag-tls-XXXXXX", cert[60], both[60], key[60], ca[60], text[5000];
    struct mag_tls *server, *joint, *client;
    struct link l;

    SHOULD(mkdtemp(dir) != NULL);
    snprintf(cert, sizeof cert, "%s/cert", dir);
    snprintf(key, sizeof key, "%s/key", dir);
    snprintf(both, sizeof both, "%s/both", dir);
    snprintf(ca, sizeof ca, "%s/ca", dir);
    snprintf(text, sizeof text, "%s%s%s", certs.good.cert, certs.ca, certs.good.key);
    SHOULD(tls_write_file(dir, "cert", certs.good.cert) && tls_write_file(dir, "both", text));
    SHOULD(tls_write_file(dir, "key", certs.good.key) && tls_write_file(dir, "ca", certs.ca));
    SHOULD(mag_tls_server_new(
               &server, &(struct mag_tls_options){ .cert_file = cert,
                                                   .key_file = key,
                                                   .ca_file = ca,
                                                   .client_cert = MAG_TLS_CERT_OPTIONAL }) == 0);
    SHOULD(mag_tls_server_new(&joint, &(struct mag_tls_options){ .cert_file = both }) == 0);
    SHOULD(mag_tls_client_new(&client, &(struct mag_tls_options){ .ca_file = ca }) == 0);
    OK(connect_link(&l, client, server, "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    close_pair(&l.p);
    OK(connect_link(&l, client, joint, "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    end_link(&l);
    mag_tls_free(server);
    SHOULD(unlink(cert) == 0 && unlink(key) == 0 && unlink(both) == 0 && unlink(ca) == 0);
    SHOULD(rmdir(dir) == 0);
    return 0;
}

/* A connection keeps its context. */
ON_1(tls, a_context_may_be_given_up_early)
{
    struct link l;

    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    mag_tls_free(l.client);
    mag_tls_free(l.server);
    OK(talk(&l));
    close_pair(&l.p);
    return 0;
}

/* Small stacks: as deep as OpenSSL goes. */
static int shake_once(void *arg, long *value)
{
    struct link l;

    (void)arg, (void)value;
    OK(connect_link(&l, CLIENT(), SERVER(), "localhost"));
    SHOULD(l.client_rc == 0 && l.server_rc == 0);
    OK(talk(&l));
    end_link(&l);
    return 0;
}

Test(tls, does_with_half_of_a_stack)
{
    struct mag_rt_options o = { .workers = 1, .stack_bytes = 32 * 1024 };

    cr_assert_eq(mag_run_with(co(shake_once, NULL), NULL, &o), 0);
}

/* Outside of a task, each end in a thread of its own. */
static void *shake_outside(void *arg)
{
    struct link *l = arg;

    l->server_rc = mag_stream_start_tls(&l->p.b, l->server, NULL);
    return NULL;
}

Test(tls, works_outside_a_task)
{
    struct link l = { .client = CLIENT(), .server = SERVER() };
    pthread_t thread;

    cr_assert_eq(open_pair(&l.p), 0);
    cr_assert_eq(pthread_create(&thread, NULL, shake_outside, &l), 0);
    cr_assert_eq(mag_stream_start_tls(&l.p.a, l.client, "localhost"), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(l.server_rc, 0);
    cr_assert_eq(talk(&l), 0);
    end_link(&l);
}

/* ---- without memory --------------------------------------------------------------- */

/* Contexts, a handshake, a talk: 0, or the first error. */
static int all_of_it(void)
{
    struct link l = { .client = CLIENT(), .server = SERVER() };
    int rc = l.client && l.server ? open_pair(&l.p) : -ENOMEM;

    if (rc < 0) {
        mag_tls_free(l.client);
        mag_tls_free(l.server);
        return rc;
    }
    rc = shake(&l, "localhost");
    if (rc == 0)
        rc = l.client_rc < 0 ? l.client_rc : l.server_rc;
    broken_line = 0;
    if (rc == 0)
        rc = talk(&l);
    end_link(&l);
    return rc;
}

ON_1(tls, fails_cleanly_without_memory)
{
    uint64_t n_asked = 1;
    int n_failed = 0, rc = 0;

    for (uint64_t n = 1; n_asked >= n - 1 && n < 500; n++) { /* one has failed */
        struct mag_scope scope; /* one end may fail, and the other wait for it */
        SHOULD(mag_timeout_enter(&scope, 10 * MAG_SECOND, NULL) == 0);
        mag_mem_fail_nth(n, false);
        rc = mag_scope_leave(&scope, all_of_it());
        n_asked = mag_mem_count();
        mag_mem_fail_nth(0, false);
        SHOULD(rc == 0 || rc == -ENOMEM || rc == -EPROTO || rc == -ECONNABORTED ||
               rc == -ENOTRECOVERABLE);
        n_failed += rc < 0;
    }
    SHOULD(rc == 0 && n_failed > 10);
    return 0;
}
