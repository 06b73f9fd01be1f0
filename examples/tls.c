/* SPDX-License-Identifier: MIT */
/*
 * tls.c - encrypted connections: a small https client, a small https server, and a tour
 *
 *      tls                                         the tour: client and server in one process
 *      tls get [-c CA] [-e CERT] [-k] [-2] HOST PORT PATH
 *      tls serve [-p PORT] [-c CA] CERT KEY
 *      tls --help
 *
 * get    prints what https://HOST:PORT/PATH has to say, and on standard error how the connection is
 *        protected.  -c: authorities to believe, instead of the system's; -k: believes everybody;
 *        -e: a client's certificate and key, in one file; -2: no TLS 1.3.
 * serve  answers GET / with what it knows of the connection, and GET /bytes/N with N bytes, until
 *        it is interrupted.  -p: 8443 if not given, 0: the kernel chooses; -c: clients may show a
 *        certificate by these authorities, and must show none else.
 *
 * The tour makes a certificate of its own, and shows that a wrong name is refused and why, that
 * sessions are resumed, how both agree on a protocol (ALPN), and STARTTLS.
 *
 * EXIT STATUS
 *     0; 1 if the connection failed or was cut short; 2 for wrong usage; serve: 0 when interrupted.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/async.h>
#include <magpie/server.h>
#include <magpie/tls.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- get -------------------------------------------------------------------------- */

struct settings {
    const char *host, *path;
    uint16_t port;
    struct mag_tls_options tls;
};

static void print_protection(const struct mag_stream *s)
{
    char peer[200];

    mag_stream_tls_peer(s, peer, sizeof peer);
    fprintf(stderr, "%s, %s, the peer is %s%s\n", mag_stream_tls_version(s),
            mag_stream_tls_cipher(s), peer[0] ? peer : "nobody",
            mag_stream_tls_reused(s) ? ", resumed" : "");
}

static int ask(struct mag_stream *s, const char *host, const char *path)
{
    char request[1000];

    snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
    return mag_stream_puts(s, request);
}

/* Copies the answer, without its head. */
static int copy_body(struct mag_stream *s, FILE *to)
{
    char buf[16384];
    struct mag_str head;
    int n = await(mag_stream_read_until(s, "\r\n\r\n", &head));

    while ((n = await(mag_stream_read(s, buf, sizeof buf))) > 0)
        fwrite(buf, 1, (size_t)n, to);
    return 0;
}

static int talk(struct mag_stream *s, const struct settings *x)
{
    int rc = ask(s, x->host, x->path);

    print_protection(s);
    if (rc == 0)
        rc = copy_body(s, stdout);
    if (rc < 0)
        fprintf(stderr, "tls: %s: %s\n", mag_err_text(rc), mag_stream_tls_error(s));
    return rc;
}

async(void, get, (const struct settings *, x))
{
    struct mag_connect_options o = { 0 };
    struct mag_stream s;
    char why[300];

    await(mag_tls_client_new(&o.tls, &x->tls));
    int rc = mag_connect(&s, x->host, x->port, &o);
    if (rc < 0) {
        mag_tls_error(o.tls, why, sizeof why);
        fprintf(stderr, "tls: %s port %u: %s\n", x->host, x->port, *why ? why : mag_err_text(rc));
    } else {
        rc = talk(&s, x);
        mag_stream_close(&s);
    }
    mag_tls_free(o.tls);
    return rc;
}

/* ---- serve ------------------------------------------------------------------------ */

static int say_who_is_there(struct mag_stream *s)
{
    char text[800], peer[200] = "";
    const char *name = mag_stream_tls_server_name(s), *protocol = mag_stream_alpn(s);

    mag_stream_tls_peer(s, peer, sizeof peer);
    snprintf(text, sizeof text,
             "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
             "%s %s\nyou asked for: %s\nwe speak: %s\nyou are: %s\nresumed: %s\n",
             mag_stream_tls_version(s), mag_stream_tls_cipher(s), name ? name : "nobody",
             protocol ? protocol : "anything", peer[0] ? peer : "nobody",
             mag_stream_tls_reused(s) ? "yes" : "no");
    return mag_stream_puts(s, text);
}

static int send_bytes(struct mag_stream *s, long n)
{
    char buf[10000], head[100];

    memset(buf, '.', sizeof buf);
    snprintf(head, sizeof head, "HTTP/1.0 200 OK\r\nContent-Length: %ld\r\n\r\n", n);
    await(mag_stream_puts(s, head));
    for (long left = n; left > 0; left -= (long)sizeof buf) {
        size_t some = left < (long)sizeof buf ? (size_t)left : sizeof buf;
        await(mag_stream_write(s, buf, some, NULL));
    }
    return 0;
}

/* A connection: one request. */
static int answer(struct mag_stream *s, void *arg)
{
    struct mag_str head;
    long n = -1;

    (void)arg;
    await(mag_stream_read_until(s, "\r\n\r\n", &head));
    if (sscanf(head.ptr, "GET /bytes/%ld", &n) == 1 && n >= 0)
        await(send_bytes(s, n));
    else if (strncmp(head.ptr, "GET / ", 6) == 0)
        await(say_who_is_there(s));
    else
        await(mag_stream_puts(s, "HTTP/1.0 404 Not Found\r\n\r\nthere is / and /bytes/N\n"));
    return mag_stream_write_eof(s);
}

static void tell_failure(int rc, const char *peer, void *arg)
{
    char why[300] = "";

    mag_tls_error(arg, why, sizeof why);
    fprintf(stderr, "%s: %s%s%s\n", peer, mag_err_text(rc), *why ? ", lately: " : "", why);
}

async(void, serve, (const struct settings *, x))
{
    char why[300] = "";
    struct mag_tls_options o = x->tls;
    struct mag_server *server;
    struct mag_tls *tls;

    o.why = why;
    o.why_bytes = sizeof why;
    int rc = mag_tls_server_new(&tls, &o);
    if (rc < 0)
        fprintf(stderr, "tls: %s\n", why);
    await(rc);
    struct mag_serve_options how = {
        .host = "127.0.0.1", .port = x->port, .tls = tls, .on_error = tell_failure
    };
    rc = mag_server_start(&server, answer, tls, &how);
    if (rc == 0) {
        printf("https://localhost:%u/\n", mag_server_port(server));
        fflush(stdout);
        rc = mag_server_wait(server);
        mag_server_free(server);
    } else {
        fprintf(stderr, "tls: port %u: %s\n", x->port, mag_err_text(rc));
    }
    mag_tls_free(tls);
    return rc;
}

/* ---- the tour --------------------------------------------------------------------- */

static char certificate[4000], key[2000]; /* PEM */

static void text_of(BIO *b, char *to, int room)
{
    int n = BIO_read(b, to, room - 1);

    to[n > 0 ? n : 0] = '\0';
    BIO_free(b);
}

static void name_it(X509 *x, const char *names)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);

    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

/* Signed by itself, for a day: whoever believes it believes it only. */
static void make_certificate(void)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *cert_text = BIO_new(BIO_s_mem()), *key_text = BIO_new(BIO_s_mem());

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 24 * 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)"the tour", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, pkey);
    name_it(x, "DNS:localhost,IP:127.0.0.1");
    X509_sign(x, pkey, EVP_sha256());
    PEM_write_bio_X509(cert_text, x);
    PEM_write_bio_PrivateKey(key_text, pkey, NULL, NULL, 0, NULL, NULL);
    text_of(cert_text, certificate, sizeof certificate);
    text_of(key_text, key, sizeof key);
    X509_free(x);
    EVP_PKEY_free(pkey);
}

/* Shows the lines of what the server says, each after a bar. */
static int visit(struct mag_tls *tls, uint16_t port, const char *name)
{
    struct mag_connect_options o = { .tls = tls, .tls_name = name };
    struct mag_stream s;
    char why[300];
    int rc = mag_connect(&s, "127.0.0.1", port, &o);

    if (rc < 0) {
        mag_tls_error(tls, why, sizeof why);
        printf("as %s: %s: %s\n", name, mag_err_name(rc), why);
        return 0;
    }
    printf("as %s: over %s\n", name, mag_stream_alpn(&s) ? mag_stream_alpn(&s) : "anything");
    rc = ask(&s, name, "/");
    if (rc == 0) {
        async_for(struct mag_str, line,
                  mag_stream_lines(&s)) if (strchr(line.ptr, ':') && line.ptr[0] != 'C')
            printf("    %s\n", line.ptr);
    }
    return mag_stream_close(&s);
}

/* STARTTLS: a server that speaks plainly until it is asked not to. */
static int mail(struct mag_stream *s, void *arg)
{
    struct mag_str line;

    await(mag_stream_readline(s, &line));
    await(mag_stream_puts(s, "220 go ahead\r\n"));
    await(mag_stream_drain(s));
    await(mag_stream_start_tls(s, arg, NULL));
    await(mag_stream_readline(s, &line));
    await(mag_stream_puts(s, "250 and now nobody listens\r\n"));
    return 0;
}

static int start_tls(struct mag_stream *s, struct mag_tls *tls)
{
    struct mag_str line;

    await(mag_stream_puts(s, "STARTTLS\r\n"));
    await(mag_stream_readline(s, &line));
    printf("plain: %s", line.ptr);
    await(mag_stream_start_tls(s, tls, "localhost"));
    await(mag_stream_puts(s, "EHLO\r\n"));
    await(mag_stream_readline(s, &line));
    printf("%s: %s", mag_stream_tls_version(s), line.ptr);
    return 0;
}

static int tour(struct mag_tls *client, struct mag_tls *server)
{
    struct mag_serve_options https = { .host = "127.0.0.1", .tls = server };
    struct mag_serve_options plain = { .host = "127.0.0.1" };
    struct mag_server *web, *post;

    await(mag_server_start(&web, answer, server, &https));
    await(mag_server_start(&post, mail, server, &plain));
    int rc = visit(client, mag_server_port(web), "localhost");
    if (rc == 0)
        rc = visit(client, mag_server_port(web), "localhost");
    if (rc == 0)
        rc = visit(client, mag_server_port(web), "example.org");
    struct mag_stream s;
    int opened = rc == 0 ? mag_connect(&s, "127.0.0.1", mag_server_port(post), NULL) : rc;
    if (opened == 0) {
        rc = start_tls(&s, client);
        mag_stream_close(&s);
    }
    mag_server_free(web);
    mag_server_free(post);
    return opened < 0 ? opened : rc;
}

async(void, show)
{
    const char *const protocols[] = { "http/1.0", NULL };
    struct mag_tls_options of_server = { .cert_pem = certificate,
                                         .key_pem = key,
                                         .alpn = protocols };
    struct mag_tls_options of_client = { .ca_pem = certificate, .alpn = protocols };
    struct mag_tls *client, *server;

    make_certificate();
    await(mag_tls_server_new(&server, &of_server));
    await(mag_tls_client_new(&client, &of_client));
    int rc = tour(client, server);
    mag_tls_free(client);
    mag_tls_free(server);
    return rc;
}

/* ---- main ------------------------------------------------------------------------- */

static const char usage[] = "usage: tls\n"
                            "       tls get [-c CA] [-e CERT] [-k] [-2] HOST PORT PATH\n"
                            "       tls serve [-p PORT] [-c CA] CERT KEY\n";

static int port_of(const char *text, uint16_t *port)
{
    char *end;
    long n = strtol(text, &end, 10);

    *port = (uint16_t)n;
    return *text && !*end && n >= 0 && n <= 65535 ? 0 : -1;
}

static int parse_options(int argc, char **argv, struct settings *x)
{
    int c;

    while ((c = getopt(argc, argv, "c:e:k2p:")) != -1)
        switch (c) {
        case 'c':
            x->tls.ca_file = optarg;
            x->tls.client_cert = MAG_TLS_CERT_OPTIONAL;
            break;
        case 'e':
            x->tls.cert_file = optarg;
            break;
        case 'k':
            x->tls.insecure = true;
            break;
        case '2':
            x->tls.max_version = MAG_TLS_1_2;
            break;
        case 'p':
            if (port_of(optarg, &x->port) < 0)
                return -1;
            break;
        default:
            return -1;
        }
    return optind;
}

static int run_get(int n, char **argv, struct settings *x)
{
    if (n != 3 || port_of(argv[1], &x->port) < 0)
        return 2;
    x->host = argv[0];
    x->path = argv[2];
    return mag_run(get(x), NULL) < 0;
}

static int run_serve(int n, char **argv, struct settings *x)
{
    if (n != 2)
        return 2;
    x->tls.cert_file = argv[0];
    x->tls.key_file = argv[1];
    int rc = mag_run(serve(x), NULL);
    return rc < 0 && rc != -ECANCELED;
}

int main(int argc, char **argv)
{
    struct settings x = { .port = 8443 };
    int first, status = 2;

    if (argc == 1)
        return mag_run(show(), NULL) < 0;
    if (strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    first = parse_options(argc - 1, argv + 1, &x) + 1;
    if (first > 0 && strcmp(argv[1], "get") == 0)
        status = run_get(argc - first, argv + first, &x);
    else if (first > 0 && strcmp(argv[1], "serve") == 0)
        status = run_serve(argc - first, argv + first, &x);
    if (status == 2)
        fputs(usage, stderr);
    return status;
}
