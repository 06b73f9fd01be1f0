/* SPDX-License-Identifier: MIT */
/*
 * requests.c - a tour of the HTTP client
 *
 *      requests [URL]
 *      requests --help
 *
 * Makes requests of every kind to URL, and says what came back.  Without one it brings a server
 * of its own, which answers with what it was asked.
 *
 * EXIT STATUS
 *     0; 1 if a request failed; 2 for wrong usage.
 */
#include <magpie/async.h>
#include <magpie/http_client.h>
#include <magpie/server.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- a server: "GET / with 0 bytes" --------------------------------------------------- */

static int answer(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    char method[8] = "?", path[200] = "?", body[4096], said[300], head[100];

    (void)arg;
    while (mag_stream_readline(s, &line) > 0) {
        size_t n = 0;
        sscanf(line.ptr, "%7s %199s", method, path);
        while (await(mag_stream_readline(s, &line)) > 2)
            if (strncasecmp(line.ptr, "content-length:", 15) == 0)
                n = strtoul(line.ptr + 15, NULL, 10);
        if (n > sizeof body)
            return -EFBIG;
        await(mag_stream_read_exact(s, body, n, NULL));
        int len = snprintf(said, sizeof said, "%s %s with %zu bytes", method, path, n);
        snprintf(head, sizeof head,
                 "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nSet-Cookie: seen=1\r\n\r\n", len);
        await(mag_stream_puts(s, head));
        if (strcmp(method, "HEAD") != 0)
            await(mag_stream_puts(s, said));
        await(mag_stream_drain(s));
    }
    return 0;
}

/* ---- the tour ------------------------------------------------------------------------- */

static void show(const char *what, const struct mag_http_response *r)
{
    printf("%s: %d, %.*s\n", what, r->status, (int)(r->body.len < 60 ? r->body.len : 60),
           r->body.ptr);
}

async(void, plain, (struct mag_http_client *, client), (const char *, url))
{
    struct mag_http_response *r = await(mag_http_get_co(client, url)), *all[2];

    show("get", r);
    await(mag_http_response_ok(r)); /* a status of 400 and more is an error from here on */
    const char *length = mag_http_response_header(r, "content-length");
    printf("%zu header fields, length %s\n", r->n_headers, length ? length : "not known");
    mag_http_response_free(r); /* or the client does, at its end */

    gather(all, mag_http_get_co(client, url), mag_http_get_co(client, url));
    printf("two at once: %d, %d\n", all[0]->status, all[1]->status);
    await(mag_http_get(client, url, &r));
    await(mag_http_head(client, url, &r));
    show("head", r);
    await(mag_http_post(client, url, "abc", 3, "text/plain", &r));
    show("post", r);
    await(mag_http_put(client, url, "abcd", 4, NULL, &r));
    show("put", r);
    await(mag_http_patch(client, url, "ab", 2, NULL, &r));
    show("patch", r);
    await(mag_http_delete(client, url, &r));
    show("delete", r);
    return 0;
}

/* "0 1 2 3 4 ", as a body that is made while it is sent; it might wait for each piece. */
static int count_up(void *arg, void *buf, size_t n)
{
    int *i = arg;

    return *i < 5 ? snprintf(buf, n, "%d ", (*i)++) : 0;
}

async(void, special, (struct mag_http_client *, client), (const char *, url))
{
    int i = 0;
    struct mag_http_response *r;
    struct mag_http_request form = {
        .url = url,
        .query = (struct mag_http_field[]){ { "page", "1" }, { NULL, NULL } },
        .form = (struct mag_http_field[]){ { "name", "A & B" }, { "size", "7" }, { NULL, NULL } },
        .headers = (struct mag_http_field[]){ { "X-Mine", "yes" }, { NULL, NULL } },
        .auth = { MAG_HTTP_BASIC, "user", "password" },
        .read_timeout = 10 * MAG_SECOND,
    };
    struct mag_http_request upload = {
        .url = url, .method = "PUT", .body_read = count_up, .body_arg = &i, .body_length = 10
    };

    show("form", await(mag_http_request_co(client, &form)));
    await(mag_http_request(client, &upload, &r));
    show("upload", r);
    return 0;
}

async(void, piece_by_piece, (struct mag_http_client *, client), (const char *, url))
{
    struct mag_http_stream *s;
    struct mag_http_error error;
    char piece[16];
    int n, n_pieces = 0;

    await(mag_http_stream_open(&s, client, &(struct mag_http_request){ .url = url }));
    printf("a stream begins: %d\n", mag_http_stream_response(s)->status);
    while ((n = mag_http_stream_read(s, piece, sizeof piece)) > 0)
        n_pieces++;
    mag_http_stream_error(s, &error);
    printf("its end after several pieces: %s, %s\n", n_pieces > 1 ? "yes" : "no",
           mag_http_kind_name(error.kind));
    mag_http_stream_close(s);
    return n;
}

static void show_cookie(void *arg, const char *line)
{
    (void)arg;
    printf("cookie: %s\n", strrchr(line, '\t') ? strrchr(line, '\t') + 1 : line);
}

async(void, tour, (const char *, url))
{
    async_with(mag_http_client, client, .timeout = 5 * MAG_SECOND, .follow_redirects = true)
    {
        struct mag_http_error error;
        struct mag_http_response *r;

        await(plain(client, url));
        await(special(client, url));
        await(piece_by_piece(client, url));
        await(mag_http_client_cookies(client, show_cookie, NULL));
        await(mag_http_client_set_cookie(client, "ALL")); /* forget them */
        int rc = mag_http_get(client, "gopher://127.0.0.1/", &r);
        mag_http_client_error(client, &error);
        printf("%s: %s\n", mag_err_name(rc), mag_http_kind_name(error.kind));
    }
    struct mag_http_client other; /* async_with in two words */
    await(mag_http_client_open(&other, NULL));
    mag_http_client_exit(&other);
    return 0;
}

async(void, with_server)
{
    struct mag_server *server;
    char url[60];

    await(mag_server_start(&server, answer, NULL,
                           &(struct mag_serve_options){ .host = "127.0.0.1" }));
    snprintf(url, sizeof url, "http://127.0.0.1:%u/echo", mag_server_port(server));
    int rc = await_rc(tour(url), NULL);
    mag_server_abort_clients(server);
    mag_server_free(server);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && *argv[1] == '-')) {
        bool is_help = argc == 2 && strcmp(argv[1], "--help") == 0;
        fputs("usage: requests [URL]\n", is_help ? stdout : stderr);
        return is_help ? 0 : 2;
    }
    return mag_run(argc == 2 ? (void *)tour(argv[1]) : with_server(), NULL) < 0;
}
