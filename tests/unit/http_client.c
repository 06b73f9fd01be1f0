/* SPDX-License-Identifier: MIT */
/*
 * http_client.c - tests of the HTTP client, against a server of canned answers in the same process
 *
 * After each test no descriptor and no memory is left.
 */
#include <magpie/http_client.h>

#include "canned_http.h"
#include "children.h"

#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

/* libcurl's, too: a name that is looked up until the test lets it go, and one that is not there. */
static int may_answer; /* by atomic builtins */

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    for (int i = 0; name && strcmp(name, "slow.invalid") == 0; i++) {
        if (i == 4000 || __atomic_load_n(&may_answer, __ATOMIC_SEQ_CST))
            return EAI_NONAME;
        usleep(10000);
    }
    if (name && strcmp(name, "no-such-host.invalid") == 0)
        return EAI_NONAME; /* no name server may make us wait */
    return real(name, service, hints, out);
}

static void reset(void)
{
    mag_mem_fail_nth(0, false);
}

static void init(void)
{
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
}

TestSuite(http_client, .timeout = 60, .init = init, .fini = reset);

#define GET(path, r) mag_http_get(client, canned_url(server, url, (path)), (r))
#define REQUEST(path, r, ...) \
    mag_http_request(client, \
                     &(struct mag_http_request){ \
                         .url = canned_url(server, url, (path)), .error = &error, __VA_ARGS__ }, \
                     (r))
#define FIELDS(...) ((struct mag_http_field[]){ __VA_ARGS__, { NULL, NULL } })

/* What each test has at hand. */
#define WITH_CLIENT(...) \
    char url[URL_BYTES] __attribute__((unused)); \
    struct mag_http_error error __attribute__((unused)) = { .kind = MAG_HTTP_OK }; \
    struct mag_http_response *r __attribute__((unused)) = NULL; \
    async_with(canned, server) async_with(mag_http_client, client, __VA_ARGS__)

static bool has_body(const struct mag_http_response *r, const char *text)
{
    return is_str(r->body, text);
}

static bool says(const struct mag_http_response *r, const char *text)
{
    return strstr(r->body.ptr, text) != NULL;
}

/* ---- what a response has -------------------------------------------------------------- */

async(void, gets)
{
    WITH_CLIENT(.timeout = 30 * MAG_SECOND)
    {
        struct mag_http_response *again =
            await(mag_http_get_co(client, canned_url(server, url, "/hello")));

        await(GET("/hello", &r));
        SHOULD(r->status == 200 && r->version == 11 && has_body(r, "hello"));
        SHOULD(r != again && has_body(again, "hello"));
        SHOULD(r->elapsed > 0 && r->n_redirects == 0 && strcmp(r->url, url) == 0);
        SHOULD(strcmp(mag_http_response_header(r, "content-TYPE"), "text/plain") == 0);
        SHOULD(strcmp(mag_http_response_header(r, "X-One"), "1") == 0);
        SHOULD(strcmp(mag_http_response_header(r, "X-Empty"), "") == 0);
        SHOULD(mag_http_response_header(r, "X-Two") == NULL);
        SHOULD(r->n_headers == 4 && r->headers[4].name == NULL);
        SHOULD(strcmp(r->headers[0].name, "Content-Length") == 0);
        mag_http_response_free(r);
        mag_http_response_free(NULL);
    }
    return 0;
}

Test(http_client, gets)
{
    RUN_CLEAN(gets(), 0);
}

async(void, heads)
{
    WITH_CLIENT()
    {
        await(GET("/hints", &r));
        SHOULD(r->status == 200 && r->n_headers == 4 && has_body(r, "hello"));
        SHOULD(mag_http_response_header(r, "X-Hint") == NULL);
        await(GET("/folded", &r));
        SHOULD(strcmp(mag_http_response_header(r, "X-Folded"), "one two") == 0);
        SHOULD(strcmp(mag_http_response_header(r, "X-Twice"), "a") == 0 && r->n_headers == 4);
        await(GET("/chunked", &r));
        SHOULD(has_body(r, "hello, world") && mag_http_response_header(r, "X-Trailer") == NULL);
        await(GET("/gzip", &r));
        SHOULD(has_body(r, "hello, compressed world"));
        await(GET("/big/300000", &r));
        SHOULD(r->body.len == 300000);
        for (size_t i = 0; i < r->body.len; i++)
            SHOULD(r->body.ptr[i] == (char)(i * 7 >> 3));
        SHOULD(GET("/endless-head", &r) == -EFBIG && r == NULL);
    }
    return 0;
}

Test(http_client, heads_and_bodies)
{
    RUN_CLEAN(heads(), 0);
}

async(void, statuses)
{
    static const int list[] = { 200, 201, 204, 304, 302, 400, 404, 418, 500, 503, 599 };

    WITH_CLIENT()
    {
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
            char path[40];
            snprintf(path, sizeof path, "/status/%d", list[i]);
            await(GET(path, &r));
            SHOULD(r->status == list[i]);
            SHOULD(mag_http_response_ok(r) == (list[i] < 400 ? 0 : -EREMOTEIO));
        }
        await(GET("/nowhere", &r));
        SHOULD(r->status == 404 && r->body.len == 0 && *r->body.ptr == '\0');
    }
    return 0;
}

Test(http_client, statuses)
{
    RUN_CLEAN(statuses(), 0);
}

/* ---- what a request has --------------------------------------------------------------- */

async(void, methods)
{
    WITH_CLIENT()
    {
        canned_url(server, url, "/echo");
        await(mag_http_post(client, url, "abc", 3, "text/x", &r));
        SHOULD(says(r, "POST /echo HTTP/1.1\r\n") && says(r, "Content-Type: text/x\r\n") &&
               says(r, "\r\n\r\nabc"));
        await(mag_http_put(client, url, "abc", 3, NULL, &r));
        SHOULD(says(r, "PUT /echo") && says(r, "Content-Length: 3\r\n") && says(r, "\r\n\r\nabc"));
        SHOULD(!says(r, "Content-Type") && !says(r, "Expect"));
        await(mag_http_patch(client, url, "abc", 3, NULL, &r));
        SHOULD(says(r, "PATCH /echo") && says(r, "\r\n\r\nabc"));
        await(mag_http_post(client, url, NULL, 0, NULL, &r));
        SHOULD(says(r, "POST /echo") && says(r, "Content-Length: 0\r\n"));
        await(mag_http_delete(client, url, &r));
        SHOULD(says(r, "DELETE /echo"));
        await(mag_http_head(client, url, &r));
        SHOULD(r->status == 200 && r->body.len == 0);
        await(REQUEST("/echo", &r, .method = "OPTIONS"));
        SHOULD(says(r, "OPTIONS /echo"));
        await(REQUEST("/echo", &r));
        SHOULD(says(r, "GET /echo") && says(r, "User-Agent: magpie/") && !says(r, "Content-"));
    }
    return 0;
}

Test(http_client, methods)
{
    RUN_CLEAN(methods(), 0);
}

async(void, fields)
{
    WITH_CLIENT(.headers = FIELDS({ "X-Client", "c" }, { "X-Both", "client" }), .user_agent = "me")
    {
        await(REQUEST("/echo?a=b", &r,
                      .headers = FIELDS({ "X-Own", "o" }, { "x-both", "own" }, { "X-Nil", "" },
                                        { "Accept", NULL }),
                      .query = FIELDS({ "q", "a b&c" }, { "d", NULL })));
        SHOULD(says(r, "GET /echo?a=b&q=a%20b%26c&d= ") || says(r, "GET /echo?a=b&q=a+b%26c&d= "));
        SHOULD(says(r, "X-Client: c\r\n") && says(r, "X-Own: o\r\n") && says(r, "x-both: own\r\n"));
        SHOULD(!says(r, "X-Both: client") && says(r, "X-Nil:\r\n") &&
               says(r, "User-Agent: me\r\n"));
        SHOULD(!says(r, "Accept: "));
        await(REQUEST("/echo", &r, .form = FIELDS({ "name", "A & B" }, { "x", "\xc3\xa4/" })));
        SHOULD(says(r, "Content-Type: application/x-www-form-urlencoded\r\n"));
        SHOULD(says(r, "\r\n\r\nname=A+%26+B&x=%C3%A4%2F"));
        await(REQUEST("/echo", &r,
                      .parts = (struct mag_http_part[]){ { .name = "one", .data = "first" },
                                                         { .name = "f",
                                                           .data = "a\0b",
                                                           .len = 3,
                                                           .file_name = "x.bin",
                                                           .type = "application/x" },
                                                         { .name = NULL } }));
        SHOULD(says(r, "Content-Type: multipart/form-data; boundary=") &&
               says(r, "name=\"one\"\r\n\r\nfirst\r\n"));
        SHOULD(says(r, "name=\"f\"; filename=\"x.bin\"\r\nContent-Type: application/x\r\n\r\na"));
    }
    return 0;
}

Test(http_client, fields_forms_parts)
{
    RUN_CLEAN(fields(), 0);
}

async(void, auths)
{
    WITH_CLIENT(.auth = { MAG_HTTP_BASIC, "user", "pass" })
    {
        await(GET("/basic", &r));
        SHOULD(has_body(r, "hello"));
        await(REQUEST("/basic", &r, .auth = { MAG_HTTP_BASIC, "user", "wrong" }));
        SHOULD(r->status == 401);
        await(REQUEST("/bearer", &r, .auth = { MAG_HTTP_BEARER, NULL, "t0ken" }));
        SHOULD(has_body(r, "hello"));
        await(REQUEST("/digest", &r, .auth = { MAG_HTTP_DIGEST, "user", "pass" }));
        SHOULD(r->status == 200 && has_body(r, "hello"));
        await(GET("/basic", &r));
        SHOULD(has_body(r, "hello"));
    }
    return 0;
}

Test(http_client, auths)
{
    RUN_CLEAN(auths(), 0);
}

async(void, redirects)
{
    WITH_CLIENT(.max_redirects = 5)
    {
        await(GET("/redirect/3", &r));
        SHOULD(r->status == 302 &&
               strcmp(mag_http_response_header(r, "Location"), "/redirect/2") == 0);
        SHOULD(has_body(r, "not here"));
        await(REQUEST("/redirect/3", &r, .follow_redirects = 1));
        SHOULD(r->status == 200 && r->n_redirects == 3 && has_body(r, "hello"));
        SHOULD(strcmp(r->url, canned_url(server, url, "/hello")) == 0);
        SHOULD(mag_http_response_header(r, "Location") == NULL);
        SHOULD(REQUEST("/redirect/6", &r, .follow_redirects = 1) == -ELOOP);
        SHOULD(error.kind == MAG_HTTP_TOO_MANY_REDIRECTS);
        await(REQUEST("/see-other", &r, .follow_redirects = 1, .method = "PUT", .body = "x",
                      .body_len = 1));
        SHOULD(says(r, "GET /echo"));
        await(REQUEST("/again", &r, .follow_redirects = 1, .method = "PUT", .body = "xyz",
                      .body_len = 3));
        SHOULD(says(r, "PUT /echo") && says(r, "\r\n\r\nxyz"));
        await(REQUEST("/again", &r, .follow_redirects = 1, .body = "xyz", .body_len = 3));
        SHOULD(says(r, "POST /echo") && says(r, "\r\n\r\nxyz"));
    }
    return 0;
}

Test(http_client, redirects)
{
    RUN_CLEAN(redirects(), 0);
}

static int n_cookies;
static void count_cookie(void *arg, const char *line)
{
    n_cookies += strstr(line, arg) != NULL;
}

async(void, cookies)
{
    WITH_CLIENT()
    {
        char line[100];

        await(GET("/cookie", &r));
        await(GET("/echo", &r));
        SHOULD(says(r, "Cookie: flavour=oat\r\n"));
        snprintf(line, sizeof line, "Set-Cookie: more=1; domain=127.0.0.1; path=/");
        await(mag_http_client_set_cookie(client, line));
        for (int i = 0; i < 5; i++) /* whoever makes it */
            await(GET("/echo", &r));
        SHOULD(says(r, "more=1") && says(r, "flavour=oat"));
        n_cookies = 0;
        await(mag_http_client_cookies(client, count_cookie, "oat"));
        SHOULD(n_cookies == 1);
        SHOULD(mag_http_client_set_cookie(client, "a=b\r\nc") == -EINVAL);
        await(mag_http_client_set_cookie(client, "ALL"));
        await(GET("/echo", &r));
        SHOULD(!says(r, "Cookie:"));
        async_with(mag_http_client, without, .no_cookies = true)
        {
            await(mag_http_get(without, canned_url(server, url, "/cookie"), &r));
            await(mag_http_get(without, canned_url(server, url, "/echo"), &r));
            SHOULD(!says(r, "Cookie:"));
            SHOULD(mag_http_client_set_cookie(without, line) == -EINVAL);
        }
    }
    return 0;
}

Test(http_client, cookies)
{
    RUN_CLEAN(cookies(), 0);
}

async(void, relative)
{
    char base[URL_BYTES];

    async_with(canned, server)
    {
        canned_url(server, base, "/status/");
        async_with(mag_http_client, client, .base_url = base)
        {
            struct mag_http_response *r = await(mag_http_get_co(client, "201"));
            SHOULD(r->status == 201);
            r = await(mag_http_get_co(client, "/hello"));
            SHOULD(r->status == 200 && has_body(r, "hello"));
        }
    }
    return 0;
}

Test(http_client, base_url)
{
    RUN_CLEAN(relative(), 0);
}

/* ---- what goes wrong ------------------------------------------------------------------ */

#define FAILS(path, expected_rc, expected_kind, ...) \
    do { \
        error.kind = MAG_HTTP_OK; \
        SHOULD(REQUEST(path, &r, __VA_ARGS__) == (expected_rc)); \
        SHOULD(r == NULL && error.rc == (expected_rc)); \
        SHOULD(error.kind == (expected_kind) && error.text[0]); \
    } while (0)

static int fails_to(struct mag_http_client *client, const char *url, enum mag_http_kind kind)
{
    struct mag_http_error error = { .kind = MAG_HTTP_OK }, last;
    struct mag_http_response *r;
    int rc =
        mag_http_request(client, &(struct mag_http_request){ .url = url, .error = &error }, &r);

    SHOULD(error.kind == kind && rc == error.rc && rc < 0);
    mag_http_client_error(client, &last);
    SHOULD(last.kind == kind && strcmp(last.text, error.text) == 0);
    return rc;
}

async(void, wrongs)
{
    WITH_CLIENT(.max_body = 1000)
    {
        unsigned port = server->port;

        FAILS("/close", -ECONNRESET, MAG_HTTP_DISCONNECTED);
        FAILS("/partial", -ECONNRESET, MAG_HTTP_DISCONNECTED);
        FAILS("/bad-gzip", -EBADMSG, MAG_HTTP_DECODING);
        FAILS("/big/1001", -EFBIG, MAG_HTTP_TOO_BIG);
        FAILS("/endless-head", -EFBIG, MAG_HTTP_TOO_BIG);
        FAILS("/big/11", -EFBIG, MAG_HTTP_TOO_BIG, .max_body = 10);
        FAILS("/garbage", error.rc, error.kind);
        SHOULD(error.kind == MAG_HTTP_PROTOCOL || error.kind == MAG_HTTP_UNSUPPORTED_SCHEME);
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .headers = FIELDS({ "X", "a\r\nY: b" }));
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .headers = FIELDS({ "X Y", "a" }));
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .method = "GET /x");
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .body = "", .content_type = "a\nb");
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .body = "", .form = FIELDS({ "a", "b" }));
        FAILS("/echo", -EINVAL, MAG_HTTP_BAD_REQUEST, .total_timeout = -1);
        SHOULD(fails_to(client, "ftp://127.0.0.1/", MAG_HTTP_UNSUPPORTED_SCHEME) ==
               -EPROTONOSUPPORT);
        SHOULD(fails_to(client, "http://a b/", MAG_HTTP_BAD_REQUEST) == -EINVAL);
        SHOULD(fails_to(client, "", MAG_HTTP_BAD_REQUEST) == -EINVAL);
        SHOULD(fails_to(client, NULL, MAG_HTTP_BAD_REQUEST) == -EINVAL);
        SHOULD(fails_to(client, "http://no-such-host.invalid/", MAG_HTTP_RESOLVE) == -ENOENT);
        snprintf(url, sizeof url, "https://127.0.0.1:%u/", port);
        SHOULD(fails_to(client, url, MAG_HTTP_TLS) == -EPROTO);
        await(GET("/hello", &r));
        SHOULD(has_body(r, "hello"));
    }
    return 0;
}

Test(http_client, wrongs)
{
    RUN_CLEAN(wrongs(), 0);
}

async(void, nobody_there)
{
    unsigned port = 0;
    int fd = canned_listen(&port, 1);
    char url[URL_BYTES];

    mag_close_fd(fd);
    async_with(mag_http_client, client, .connect_retries = 1)
    {
        snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
        SHOULD(fails_to(client, url, MAG_HTTP_CONNECT) == -ECONNREFUSED);
    }
    async_with(mag_http_client, client, .proxy = url)
    {
        int rc = fails_to(client, "http://example.invalid/", MAG_HTTP_CONNECT);
        SHOULD(rc == -ECONNREFUSED);
    }
    return 0;
}

Test(http_client, connection_refused)
{
    RUN_CLEAN(nobody_there(), 0);
}

Test(http_client, kinds_have_names)
{
    for (int i = 0; i <= MAG_HTTP_OTHER; i++)
        cr_assert_str_neq(mag_http_kind_name((enum mag_http_kind)i), "?");
    cr_assert_str_eq(mag_http_kind_name((enum mag_http_kind)99), "?");
}

Test(http_client, outside_a_task)
{
    struct mag_http_client client;
    struct mag_http_response *r;

    cr_assert_eq(mag_http_client_open(&client, NULL), -ENXIO);
    cr_assert_eq(mag_http_get(&client, "http://127.0.0.1/", &r), -EINVAL);
    cr_assert_eq(mag_http_client_close(&client), 0);
}

/* ---- limits of time ------------------------------------------------------------------- */

/* A listening socket whose backlog is full: who connects waits. */
static int full_listener(unsigned *port, int clients[4])
{
    int fd = canned_listen(port, 0);
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_port = htons((uint16_t)*port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    for (int i = 0; i < 4; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(clients[i], (struct sockaddr *)&addr, sizeof addr);
    }
    return fd;
}

async(void, connect_timeout)
{
    char url[URL_BYTES];
    int clients[4];
    unsigned port = 0;
    int fd = full_listener(&port, clients), rc;

    snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
    async_with(mag_http_client, client, .connect_timeout = 30 * MAG_MS) rc =
        fails_to(client, url, MAG_HTTP_CONNECT_TIMEOUT);
    for (int i = 0; i < 4; i++)
        close(clients[i]);
    close(fd);
    SHOULD(rc == -ETIMEDOUT);
    return 0;
}

Test(http_client, connect_timeout)
{
    RUN_CLEAN(connect_timeout(), 0);
}

async(void, scoped, (struct mag_http_client *, client), (const char *, url))
{
    with_timeout(20 * MAG_MS) await(mag_http_get_co(client, url));
    return 0;
}

/* Neither the limit of time nor the end of the client waits for a name that is still looked up. */
async(void, slow_name)
{
    WITH_CLIENT(.connect_timeout = 30 * MAG_MS)
    {
        SHOULD(fails_to(client, "http://slow.invalid/", MAG_HTTP_CONNECT_TIMEOUT) == -ETIMEDOUT);
        await(REQUEST("/hello", &r, .connect_timeout = 20 * MAG_SECOND));
        SHOULD(await_rc(scoped(client, "http://slow.invalid/"), NULL) == -ETIMEDOUT);
    }
    return 0;
}

Test(http_client, names_are_not_waited_for)
{
    int before = n_descriptors();

    RUN_ON_BOTH(slow_name(), 0, "");
    __atomic_store_n(&may_answer, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 400 && n_descriptors() != before; i++)
        usleep(50000); /* the threads that look it up */
    cr_assert_eq(n_descriptors(), before);
}

/* Bytes for ever. */
static int read_zeros(void *arg, void *buf, size_t n)
{
    (void)arg;
    memset(buf, 'z', n);
    return (int)n;
}

async(void, timeouts)
{
    WITH_CLIENT(.max_connections = 1)
    {
        FAILS("/slow-head", -ETIMEDOUT, MAG_HTTP_READ_TIMEOUT, .read_timeout = 30 * MAG_MS);
        FAILS("/slow-body", -ETIMEDOUT, MAG_HTTP_READ_TIMEOUT, .read_timeout = 30 * MAG_MS);
        FAILS("/drip", -ETIMEDOUT, MAG_HTTP_TOTAL_TIMEOUT, .total_timeout = 50 * MAG_MS);
        FAILS("/sink", -ETIMEDOUT, MAG_HTTP_WRITE_TIMEOUT, .write_timeout = 50 * MAG_MS,
              .body_read = read_zeros);
        await(REQUEST("/drip", &r, .read_timeout = 20 * MAG_SECOND));
        SHOULD(has_body(r, "01234567"));
        struct mag_http_request slow = { .url = canned_url(server, url, "/hold"),
                                         .read_timeout = MAG_NEVER };
        char other[URL_BYTES];
        struct mag_http_request_co *busy = spawn(mag_http_request_co(client, &slow));
        while (__atomic_load_n(&server->n_held, __ATOMIC_SEQ_CST) < 1)
            await(mag_sleep(MAG_MS));
        struct mag_http_request hello = { .url = canned_url(server, other, "/hello"),
                                          .pool_timeout = 20 * MAG_MS,
                                          .error = &error };
        SHOULD(mag_http_request(client, &hello, &r) == -ETIMEDOUT &&
               error.kind == MAG_HTTP_POOL_TIMEOUT);
        mag_cancel(busy);
        SHOULD(await_rc(busy, NULL) == -ECANCELED);
        hello.pool_timeout = 20 * MAG_SECOND;
        await(mag_http_request(client, &hello, &r));
        SHOULD(has_body(r, "hello"));
    }
    return 0;
}

Test(http_client, timeouts)
{
    RUN_CLEAN(timeouts(), 0);
}

async(void, scopes)
{
    WITH_CLIENT()
    {
        SHOULD(await_rc(scoped(client, canned_url(server, url, "/slow-head")), NULL) == -ETIMEDOUT);
        SHOULD(await_rc(scoped(client, canned_url(server, url, "/slow-body")), NULL) == -ETIMEDOUT);
        await(GET("/hello", &r));
    }
    return 0;
}

Test(http_client, scopes_around)
{
    RUN_CLEAN(scopes(), 0);
}

/* ---- streams -------------------------------------------------------------------------- */

/* 1 MB of a pattern, in pieces of odd sizes, with a pause now and then. */
struct pattern {
    size_t at, n;
    int rc_at_end;
};

static int read_pattern(void *arg, void *buf, size_t n)
{
    struct pattern *p = arg;
    size_t m = 777 + p->at % 3000;
    int rc = p->at % 5 == 0 ? mag_sleep(100 * MAG_US) : mag_yield();

    if (rc < 0)
        return rc;
    m = m < n ? m : n;
    m = m < p->n - p->at ? m : p->n - p->at;
    for (size_t i = 0; i < m; i++)
        ((char *)buf)[i] = (char)('a' + (p->at + i) % 26);
    p->at += m;
    return m == 0 && p->rc_at_end ? p->rc_at_end : (int)m;
}

static int check_pattern(const struct mag_http_response *r, size_t n)
{
    const char *body = strstr(r->body.ptr, "\r\n\r\n");

    SHOULD(body && r->body.len - (size_t)(body + 4 - r->body.ptr) == n);
    for (size_t i = 0; i < n; i++)
        SHOULD(body[4 + i] == (char)('a' + i % 26));
    return 0;
}

async(void, uploads)
{
    WITH_CLIENT()
    {
        struct pattern p = { .n = 300000 };

        await(REQUEST("/echo", &r, .body_read = read_pattern, .body_arg = &p));
        SHOULD(says(r, "POST /echo") && says(r, "Transfer-Encoding: chunked\r\n"));
        await(check_pattern(r, 300000));
        p = (struct pattern){ .n = 200000 };
        await(REQUEST("/echo", &r, .method = "PUT", .body_read = read_pattern, .body_arg = &p,
                      .body_length = 200000));
        SHOULD(says(r, "PUT /echo") && says(r, "Content-Length: 200000\r\n"));
        await(check_pattern(r, 200000));
        p = (struct pattern){ .n = 0 };
        await(REQUEST("/echo", &r, .body_read = read_pattern, .body_arg = &p));
        await(check_pattern(r, 0));
        p = (struct pattern){ .n = 5000, .rc_at_end = -EBADF };
        FAILS("/echo", -EBADF, MAG_HTTP_BODY, .body_read = read_pattern, .body_arg = &p);
        p = (struct pattern){ .n = 5000 };
        FAILS("/again", -ESPIPE, MAG_HTTP_REWIND, .body_read = read_pattern, .body_arg = &p,
              .follow_redirects = 1);
    }
    return 0;
}

Test(http_client, streamed_uploads)
{
    RUN_CLEAN(uploads(), 0);
}

async(void, downloads)
{
    enum { BYTES = 3000000 };

    WITH_CLIENT()
    {
        struct mag_http_stream *s;
        char buf[5000];
        size_t at = 0;
        int n;

        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/big/3000000") }));
        SHOULD(mag_http_stream_response(s)->status == 200);
        SHOULD(strcmp(mag_http_response_header(mag_http_stream_response(s), "Content-Length"),
                      "3000000") == 0);
        await(mag_sleep(30 * MAG_MS)); /* the server gets far ahead, if nothing holds it */
        while ((n = mag_http_stream_read(s, buf, sizeof buf)) > 0) {
            for (int i = 0; i < n; i++, at++)
                SHOULD(buf[i] == (char)(at * 7 >> 3));
        }
        SHOULD(n == 0 && at == BYTES && mag_http_stream_read(s, buf, 1) == 0);
        mag_http_stream_close(s);
        mag_http_stream_close(NULL);

        mag_time patience = 15 * MAG_MS;
        do { /* again with more, if a busy machine was late with the beginning */
            patience *= 2;
            n = mag_http_stream_open(
                &s, client,
                &(struct mag_http_request){ .url = canned_url(server, url, "/slow-body"),
                                            .read_timeout = patience });
            if (n == 0 && (n = mag_http_stream_read(s, buf, sizeof buf)) < 0)
                mag_http_stream_close(s);
        } while (n == -ETIMEDOUT && patience < 30 * MAG_SECOND);
        SHOULD(n == 10 && memcmp(buf, "0123456789", 10) == 0);
        SHOULD(mag_http_stream_read(s, buf, sizeof buf) == -ETIMEDOUT);
        mag_http_stream_error(s, &error);
        SHOULD(error.kind == MAG_HTTP_READ_TIMEOUT);
        mag_http_stream_close(s);

        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/slow-body") }));
        mag_http_stream_close(s); /* in the middle */
        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/redirect/2"),
                                        .follow_redirects = 1 }));
        SHOULD(mag_http_stream_response(s)->status == 200);
        SHOULD(mag_http_stream_read(s, buf, sizeof buf) == 5);
        mag_http_stream_close(s);
        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/status/204") }));
        SHOULD(mag_http_stream_read(s, buf, sizeof buf) == 0);
        mag_http_stream_close(s);
        s = NULL;
        SHOULD(mag_http_stream_open(
                   &s, client,
                   &(struct mag_http_request){ .url = canned_url(server, url, "/close"),
                                               .error = &error }) == -ECONNRESET);
        SHOULD(s == NULL && error.kind == MAG_HTTP_DISCONNECTED);
    }
    return 0;
}

Test(http_client, streamed_downloads)
{
    RUN_CLEAN(downloads(), 0);
}

/* Both ways at once. */
async(void, both_ways)
{
    WITH_CLIENT()
    {
        struct pattern p = { .n = 400000 };
        struct mag_http_stream *s;
        char buf[3000], last[4] = "";
        size_t n_all = 0;
        int n;

        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/echo"),
                                        .body_read = read_pattern,
                                        .body_arg = &p }));
        while ((n = mag_http_stream_read(s, buf, sizeof buf)) > 0) {
            n_all += (size_t)n;
            last[0] = buf[n - 1];
        }
        SHOULD(n == 0 && n_all > 400000 && last[0] == (char)('a' + 399999 % 26));
        mag_http_stream_close(s);
    }
    return 0;
}

Test(http_client, streams_both_ways)
{
    RUN_CLEAN(both_ways(), 0);
}

/* The server is held back: it cannot have sent much more than buffers hold. */
async(void, backpressure)
{
    WITH_CLIENT(.timeout = 60 * MAG_SECOND)
    {
        struct mag_http_stream *s;
        char buf[100];
        int64_t live;

        await(mag_http_stream_open(
            &s, client,
            &(struct mag_http_request){ .url = canned_url(server, url, "/big/200000000") }));
        do { /* until it has taken what it wants to */
            live = mag_mem_live();
            await(mag_sleep(100 * MAG_MS));
        } while (mag_mem_live() != live);
        for (int i = 0; i < 50; i++) {
            SHOULD(mag_http_stream_read(s, buf, sizeof buf) == sizeof buf);
            await(mag_sleep(100 * MAG_US));
        }
        SHOULD(mag_mem_live() - live < 20);
        mag_http_stream_close(s);
    }
    return 0;
}

Test(http_client, a_slow_reader_holds_the_server_back)
{
    RUN_CLEAN(backpressure(), 0);
}

/* ---- many, and cancellation ----------------------------------------------------------- */

async(void, one_of_many, (struct mag_http_client *, client), (struct canned *, server), (int, i))
{
    char url[URL_BYTES];
    struct mag_http_response *r;

    await(mag_http_get(client, canned_url(server, url, i % 2 ? "/hello" : "/big/5000"), &r));
    if (r->status != 200 || r->body.len != (i % 2 ? 5 : 5000))
        return -EBADMSG;
    if (i % 3)
        mag_http_response_free(r);
    return 0;
}

async(void, many)
{
    WITH_CLIENT(.max_connections = 60, .timeout = MAG_NEVER)
    {
        task_group(g)
        {
            for (int i = 0; i < 500; i++)
                group_spawn(g, one_of_many(client, server, i));
        }
        SHOULD(__atomic_load_n(&server->n_requests, __ATOMIC_SEQ_CST) == 500);
        SHOULD(__atomic_load_n(&server->n_connections, __ATOMIC_SEQ_CST) <= 500);
    }
    return 0;
}

Test(http_client, five_hundred_at_once)
{
    RUN_CLEAN(many(), 0);
}

/* A connection is used again. */
async(void, reuse)
{
    WITH_CLIENT()
    {
        for (int i = 0; i < 20; i++) {
            await(GET("/hello", &r));
            mag_http_response_free(r);
        }
        SHOULD(__atomic_load_n(&server->n_connections, __ATOMIC_SEQ_CST) <=
               4); /* one for a worker */
    }
    return 0;
}

Test(http_client, connections_are_kept)
{
    RUN_CLEAN(reuse(), 0);
}

async(void, kept)
{
    WITH_CLIENT(.max_kept = 20000)
    {
        struct mag_http_response *first;
        await(GET("/big/9000", &first));
        await(GET("/big/9000", &r));
        FAILS("/big/9000", -ENOBUFS, MAG_HTTP_KEPT);
        mag_http_response_free(first);
        await(GET("/big/9000", &r));
    }
    return 0;
}

Test(http_client, what_is_kept_is_bounded)
{
    RUN_CLEAN(kept(), 0);
}

async(void, wait_long, (struct mag_http_client *, client), (struct canned *, server), (int, i))
{
    static const char *const paths[] = { "/slow-head", "/slow-body", "/hello", "/big/100000" };
    struct mag_http_stream *s;
    char url[URL_BYTES], buf[100];
    struct mag_http_request q = { .url = canned_url(server, url, paths[i % 4]) };
    int rc;

    if (i % 8 < 4) {
        struct mag_http_response *r;
        await(mag_http_request(client, &q, &r));
        return 0;
    }
    await(mag_http_stream_open(&s, client, &q));
    while ((rc = mag_http_stream_read(s, buf, sizeof buf)) > 0)
        continue;
    mag_http_stream_close(s);
    return rc;
}

/* Cancelled after some turns, on one worker at each of its suspensions. */
async(void, cancels)
{
    WITH_CLIENT()
    {
        for (int turns = 0; turns < 60; turns++) {
            struct wait_long *tasks[8];
            for (int i = 0; i < 8; i++)
                tasks[i] = spawn(wait_long(client, server, i));
            for (int i = 0; i < turns; i++)
                await(mag_yield());
            for (int i = 0; i < 8; i++)
                mag_cancel(tasks[i]);
            for (int i = 0; i < 8; i++) {
                int rc = await_rc(tasks[i], NULL);
                SHOULD(rc == -ECANCELED || (rc == 0 && i % 4 >= 2));
            }
        }
        await(GET("/hello", &r));
    }
    return 0;
}

Test(http_client, cancelled_anywhere)
{
    RUN_CLEAN(cancels(), 0);
}

/* Closed while requests are under way. */
async(void, close_early)
{
    async_with(canned, server)
    {
        struct mag_http_client client;
        struct wait_long *tasks[12];
        await(mag_http_client_open(&client,
                                   &(struct mag_http_client_options){ .max_connections = 9,
                                                                      .timeout = MAG_NEVER }));
        for (int i = 0; i < 12; i++)
            tasks[i] = spawn(wait_long(&client, server, i / 2 * 8 % 16));
        while (__atomic_load_n(&server->n_requests, __ATOMIC_SEQ_CST) < 9)
            await(mag_sleep(MAG_MS));
        await(mag_http_client_close(&client));
        mag_http_client_exit(&client);
        int n_cancelled = 0;
        for (int i = 0; i < 12; i++) {
            int rc = await_rc(tasks[i], NULL);
            SHOULD(rc == -ECANCELED || rc == -EINVAL); /* this: it came to a closed one */
            n_cancelled += rc == -ECANCELED;
        }
        SHOULD(n_cancelled >= 9);
    }
    return 0;
}

Test(http_client, closed_with_requests_under_way)
{
    RUN_CLEAN(close_early(), 0);
}

/* ---- the runtime stops ---------------------------------------------------------------- */

static int is_up;

async(void, until_stopped)
{
    WITH_CLIENT(.timeout = MAG_NEVER)
    {
        task_group(g)
        {
            for (int i = 0; i < 8; i++)
                group_spawn(g, wait_long(client, server, i / 2 * 4));
            while (__atomic_load_n(&server->n_requests, __ATOMIC_SEQ_CST) < 8)
                await(mag_sleep(MAG_MS));
            __atomic_store_n(&is_up, 1, __ATOMIC_SEQ_CST);
        }
    }
    return 0;
}

Test(http_client, the_runtime_stops)
{
    int64_t live = mag_mem_live();
    int before = n_descriptors();

    for (unsigned workers = 1; workers <= 4; workers += 3) {
        struct mag_rt *rt;
        struct until_stopped *task = until_stopped();
        is_up = 0;
        cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = workers }), 0);
        cr_assert_eq(mag_submit(rt, task, NULL), 0);
        while (!__atomic_load_n(&is_up, __ATOMIC_SEQ_CST))
            usleep(1000);
        cr_assert_eq(mag_rt_stop(rt, 20 * MAG_SECOND), 0);
        cr_assert_lt(mag_await(task, NULL, 0), 0); /* the server, which stops too, may be quicker */
        mag_rt_free(rt);
    }
    cr_assert_eq(mag_mem_live(), live);
    cr_assert_eq(n_descriptors(), before);
}

/* ---- out of memory -------------------------------------------------------------------- */

/* Whatever allocation fails: an error that says so, or all is well. */
async(void, no_memory)
{
    async_with(canned, server)
    {
        for (uint64_t n = 1; n < 80; n++) {
            struct mag_http_client client = { NULL };
            struct mag_http_response *r = NULL;
            char url[URL_BYTES];
            mag_mem_fail_nth(n, false);
            int rc = mag_http_client_open(&client, NULL);
            if (rc == 0)
                rc = mag_http_get(&client, canned_url(server, url, "/hello"), &r);
            mag_mem_fail_nth(0, false);
            mag_http_client_close(&client);
            SHOULD(rc == 0 || rc == -ENOMEM || rc == -ECANCELED || rc == -ECONNRESET);
        }
    }
    return 0;
}

Test(http_client, out_of_memory)
{
    RUN_CLEAN(no_memory(), 0);
}
