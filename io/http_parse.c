/* SPDX-License-Identifier: MIT */
/*
 * http_parse.c - bytes into requests, and everything else refused
 *
 *      bytes --plain?---------------------------------------------------------> request
 *         `----scan--> a head of n bytes --llhttp--> its fields --> what they say --^
 *                      (CRLF, no controls)
 *
 * What a proxy in front and this server behind understand differently is how requests are
 * smuggled, so nothing is repaired: RFC 9112's grammar, or 400 and the end of the connection.
 *
 * The scan finds the end of the head, and on its way refuses each byte that has no place in
 * any head: bare CR, bare LF, NUL and other controls, and lines that are folded.  It looks at each
 * byte once, however slowly they come, eight at a time.
 *
 * llhttp (strict, no lenient flag) reads the whole head in one call; so each of its spans is
 * whole, too.  It knows tokens, methods and lengths.  What it lets pass was found
 * by trying, and is checked here: several spaces in the request line, HTTP/0.9, RTSP, ICE,
 * fragments, empty field names, folded lines, transfer codings that it does not know, Host missing
 * or twice.
 *
 * Most heads are plain: they came in one piece, with a well-known method, a path, a few fields,
 * and none of those that say where a body ends.  Such a head is read here, in one pass that looks at
 * each byte once, by a sixth of the instructions.  That pass refuses nothing: whatever is not
 * plain, or not right, or not there yet, is for the scan and llhttp.  So what smuggling is made of,
 * Content-Length and Transfer-Encoding, is judged by the parser that the world has attacked.  The
 * fuzzer and a test hold the two against each other, field by field.
 *
 * Chunked bodies have a machine of their own.  llhttp 8.1 lets folded and nameless trailers pass,
 * refuses several extensions, which are legal, and limits neither; and it would hand out the
 * content by callbacks, where a reader wants to pull it.  The fuzzer (tests/fuzz) holds both
 * against each other: what is let pass here, llhttp reads the same.
 *
 * Invariants
 *   1. The answer to n bytes is the same however they were cut on their way.
 *   2. Nothing outside of the n bytes is read.
 *
 * Rejected: a parser of our own for all heads; vectors (there would be two of the scan, one for
 * some machines only).
 *
 * Sources: RFC 9110, 9112, 3986; https://llhttp.org.
 */
#include "http_parse.h"

#include <llhttp.h>
#include <string.h>

enum {
    BAD = -400,
    LINE_TOO_LONG = -414,
    HEAD_TOO_LONG = -431,
    NOT_IMPLEMENTED = -501,
    BAD_VERSION = -505,

    SIZE_LINE_MAX = 256,     /* bytes of a chunk's size and extension */
    TRAILERS_MAX = 8 * 1024, /* bytes of all trailers */
    EXCESS_MAX = 16 * 1024,  /* bytes of framing beyond what the content pays for */
    SIZE_BITS_MAX = 60,
};

/* ---- characters --------------------------------------------------------------------------- */

#define T_ MAG_HTTP_TOKEN
#define U_ MAG_HTTP_TARGET
#define A_ (MAG_HTTP_TOKEN | MAG_HTTP_TARGET | MAG_HTTP_HOST)
#define B_ (MAG_HTTP_TOKEN | MAG_HTTP_TARGET)
#define C_ (MAG_HTTP_TARGET | MAG_HTTP_HOST)

/* Of a target, all that RFC 3986 allows, and `{|}^ that browsers send; not "<>\# */
const uint8_t mag_http_class_of[256] = {
    ['0' ... '9'] = A_, ['A' ... 'Z'] = A_, ['a' ... 'z'] = A_, ['!'] = A_, ['$'] = A_, ['%'] = A_,
    ['&'] = A_,         ['\''] = A_,        ['*'] = A_,         ['+'] = A_, ['-'] = A_, ['.'] = A_,
    ['_'] = A_,         ['~'] = A_,         ['^'] = B_,         ['`'] = B_, ['|'] = B_, ['#'] = T_,
    ['('] = C_,         [')'] = C_,         [','] = C_,         [';'] = C_, ['='] = C_, [':'] = C_,
    ['['] = C_,         [']'] = C_,         ['/'] = U_,         ['?'] = U_, ['@'] = U_, ['{'] = U_,
    ['}'] = U_,
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- the scan ------------------------------------------------------------------------------ */

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Eight bytes, the first one lowest. */
static uint64_t word_at(const char *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

/* The highest bit of each control byte; of several bits only the lowest can be trusted: a borrow
 * goes upwards. */
static uint64_t controls_of(uint64_t w)
{
    uint64_t del = w ^ EACH(0x7f);

    return (((w - EACH(0x20)) & ~w) | ((del - EACH(0x01)) & ~del)) & EACH(0x80);
}

size_t mag_http_next_control(const char *buf, size_t i, size_t n)
{
    uint64_t found;

    for (; n - i >= 8; i += 8) {
        found = controls_of(word_at(buf + i));
        if (found)
            return i + (size_t)__builtin_ctzll(found) / 8;
    }
    if (i < n && n >= 8) { /* the last eight without those that were seen: then zeros follow */
        found = controls_of(word_at(buf + n - 8) >> 8 * (8 - (n - i)));
        return i + (size_t)__builtin_ctzll(found) / 8;
    }
    while (i < n && (unsigned char)buf[i] >= 0x20 && buf[i] != 0x7f)
        i++;
    return i;
}

/* A line of the head has ended behind its CRLF at i: 1 if that was the last; < 0: a status. */
static int end_line(struct mag_http_head *h, const char *buf, size_t i,
                    const struct mag_http_limits *limits)
{
    size_t at = h->line_at, n = i - 2 - at;

    h->line_at = (uint32_t)i;
    if (n == 0 && h->line_end != 0)
        return 1;
    if (n == 0) { /* one empty line may come before a request: clients that sent one too many */
        if (at != 0)
            return BAD;
        h->start = (uint32_t)i;
        return 0;
    }
    if (is_blank(buf[at]))
        return BAD;
    if (h->line_end != 0)
        return ++h->n_lines > limits->n_fields ? HEAD_TOO_LONG : 0;
    if (n > limits->line_bytes)
        return LINE_TOO_LONG;
    h->line_end = (uint32_t)i;
    return 0;
}

/* A byte at i is refused, or there is none: by what comes first. */
static int too_long(const struct mag_http_head *h, size_t i, const struct mag_http_limits *limits)
{
    if (h->line_end == 0 && i - h->line_at > limits->line_bytes)
        return LINE_TOO_LONG;
    return i >= limits->head_bytes ? HEAD_TOO_LONG : 0;
}

static int refuse(const struct mag_http_head *h, size_t i, const struct mag_http_limits *limits)
{
    int rc = too_long(h, i, limits);

    return rc < 0 ? rc : BAD;
}

static int scan(struct mag_http_head *h, const char *buf, size_t n,
                const struct mag_http_limits *limits)
{
    size_t i = h->scanned;
    int rc;

    for (;;) {
        i = mag_http_next_control(buf, i, n);
        h->scanned = (uint32_t)i;
        if (i == n || (buf[i] == '\r' && i + 1 == n))
            return too_long(h, n, limits);
        if (buf[i] == '\t' && h->line_end != 0) {
            i++;
            continue;
        }
        if (buf[i] != '\r' || buf[i + 1] != '\n')
            return refuse(h, i, limits);
        i += 2;
        rc = end_line(h, buf, i, limits);
        if (rc != 0)
            return rc < 0 ? rc : (int)i;
    }
}

/* ---- the request line ------------------------------------------------------------------------ */

static struct mag_http_span span_of(size_t at, size_t end)
{
    return (struct mag_http_span){ (uint32_t)at, (uint32_t)(end - at) };
}

static int read_version(struct mag_http_head *h, const char *p, size_t n)
{
    if (n != 8 || memcmp(p, "HTTP/", 5) != 0 || p[5] < '0' || p[5] > '9' || p[6] != '.' ||
        p[7] < '0' || p[7] > '9')
        return BAD;
    if (p[5] != '1' || p[7] > '1')
        return BAD_VERSION;
    h->minor = (uint8_t)(p[7] - '0');
    return 0;
}

/* Of the four forms of a target, those that a server gets which is no proxy. */
static int check_target(const char *method, size_t n_method, const char *t, size_t n)
{
    if (!mag_http_all_are(t, n, MAG_HTTP_TARGET))
        return BAD;
    if (t[0] == '/')
        return 0;
    if (n_method == 7 && memcmp(method, "CONNECT", 7) == 0)
        return NOT_IMPLEMENTED;
    if (n == 1 && t[0] == '*')
        return n_method == 7 && memcmp(method, "OPTIONS", 7) == 0 ? 0 : BAD;
    if ((n > 7 && MAG_HTTP_IS(t, 7, "http://")) || (n > 8 && MAG_HTTP_IS(t, 8, "https://")))
        return 0; /* the rest is mag_http_split_target's */
    return BAD;
}

static int read_request_line(struct mag_http_head *h, const char *buf)
{
    size_t at = h->start, end = h->line_end - 2u, i = at;
    int rc;

    while (i < end && mag_http_is_token_char(buf[i]))
        i++;
    if (i == at || i == end || buf[i] != ' ')
        return BAD;
    h->method = span_of(at, i);
    at = ++i;
    while (i < end && buf[i] != ' ')
        i++;
    if (i == at || i == end)
        return BAD;
    h->target = span_of(at, i);
    rc = read_version(h, buf + i + 1, end - i - 1);
    return rc < 0 ? rc : check_target(buf + h->method.at, h->method.len, buf + at, i - at);
}

/* ---- the fields ----------------------------------------------------------------------------- */

/* What llhttp's callbacks work on. */
struct reader {
    struct mag_http_head *h;
    const char *buf;
};

static int on_name(llhttp_t *parser, const char *at, size_t n)
{
    struct reader *r = parser->data;
    size_t i = (size_t)(at - r->buf);

    if (r->h->n_fields == r->h->n_lines)
        return -1;
    r->h->fields[r->h->n_fields++] =
        (struct mag_http_entry){ span_of(i, i + n), span_of(i + n + 1, i + n + 1) };
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct reader *r = parser->data;
    size_t i = (size_t)(at - r->buf);

    if (r->h->n_fields == 0)
        return -1;
    while (n > 0 && is_blank(at[n - 1]))
        n--;
    r->h->fields[r->h->n_fields - 1].value = span_of(i, i + n);
    return 0;
}

static int on_end(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_end,
};

/* The version is known to be good, so what llhttp misses there is a method of another protocol. */
static int status_of(llhttp_errno_t error)
{
    switch (error) {
    case HPE_PAUSED:
        return 0;
    case HPE_INVALID_METHOD:
    case HPE_INVALID_CONSTANT:
        return NOT_IMPLEMENTED;
    default:
        return BAD;
    }
}

static int run_llhttp(struct mag_http_head *h, const char *buf, size_t length)
{
    struct reader r = { h, buf };
    llhttp_t parser;

    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &r;
    return status_of(llhttp_execute(&parser, buf + h->start, length - h->start));
}

/* ---- what the fields say -------------------------------------------------------------------- */

static int read_host(struct mag_http_head *h, struct mag_http_span v, const char *p)
{
    if (h->host.at != 0 || !mag_http_all_are(p, v.len, MAG_HTTP_HOST))
        return BAD;
    h->host = v;
    return 0;
}

/* Digits only; what does not fit in 63 bits is nobody's length. */
static int read_length(struct mag_http_head *h, const char *p, size_t n)
{
    uint64_t length = 0;

    if (h->has_length || n == 0)
        return BAD;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || length > (INT64_MAX - 9) / 10)
            return BAD;
        length = length * 10 + (uint64_t)(p[i] - '0');
    }
    h->has_length = true;
    h->length = length;
    return 0;
}

/*
 * One coding, chunked.  A list that ends with it is of codings that are not known here (501);
 * of one that does not, nobody knows the length.
 */
static int read_encoding(struct mag_http_head *h, const char *p, size_t n)
{
    if (h->has_encoding_line || h->minor == 0)
        return BAD;
    h->has_encoding_line = true;
    h->is_chunked = MAG_HTTP_IS(p, n, "chunked");
    if (h->is_chunked)
        return 0;
    if (n < 8 || !MAG_HTTP_IS(p + n - 7, 7, "chunked") || (p[n - 8] != ',' && p[n - 8] != ' '))
        return BAD;
    for (size_t i = 0; i + 7 < n; i++)
        if (MAG_HTTP_IS(p + i, 7, "chunked"))
            return BAD; /* twice */
    return memchr(p, ',', n) ? NOT_IMPLEMENTED : BAD;
}

static void read_connection(struct mag_http_head *h, const char *p, size_t n, bool *closes)
{
    size_t i = 0, end, last;

    for (; i < n; i = end + 1) {
        while (i < n && is_blank(p[i]))
            i++;
        for (end = i; end < n && p[end] != ',';)
            end++;
        for (last = end; last > i && is_blank(p[last - 1]);)
            last--;
        if (MAG_HTTP_IS(p + i, last - i, "close"))
            *closes = true;
        else if (MAG_HTTP_IS(p + i, last - i, "keep-alive"))
            h->is_kept_alive = true;
    }
}

static int read_field(struct mag_http_head *h, const char *buf, const struct mag_http_entry *f,
                      bool *closes)
{
    const char *name = buf + f->name.at, *value = buf + f->value.at;
    size_t n = f->value.len;

    switch (f->name.len) {
    case 0:
        return BAD;
    case 4:
        return MAG_HTTP_IS(name, 4, "host") ? read_host(h, f->value, value) : 0;
    case 6:
        if (!MAG_HTTP_IS(name, 6, "expect"))
            return 0;
        h->expects_continue = MAG_HTTP_IS(value, n, "100-continue");
        return h->expects_continue ? 0 : -417;
    case 10:
        if (MAG_HTTP_IS(name, 10, "connection"))
            read_connection(h, value, n, closes);
        return 0;
    case 14:
        return MAG_HTTP_IS(name, 14, "content-length") ? read_length(h, value, n) : 0;
    case 17:
        return MAG_HTTP_IS(name, 17, "transfer-encoding") ? read_encoding(h, value, n) : 0;
    default:
        return 0;
    }
}

/* What is so of all of them together. */
static int conclude(struct mag_http_head *h, bool closes)
{
    h->is_kept_alive = (h->is_kept_alive || h->minor > 0) && !closes;
    h->expects_continue = h->expects_continue && h->minor > 0;
    if (h->has_encoding_line && h->has_length)
        return BAD;
    return h->minor > 0 && h->host.at == 0 ? BAD : 0;
}

int mag_http_head_read(struct mag_http_head *h, const char *buf, size_t length)
{
    bool closes = false;
    int rc = h->is_read ? 0 : read_request_line(h, buf);

    if (rc < 0 || h->is_read)
        return rc;
    rc = run_llhttp(h, buf, length);
    for (uint32_t i = 0; rc == 0 && i < h->n_fields; i++)
        rc = read_field(h, buf, &h->fields[i], &closes);
    return rc < 0 ? rc : conclude(h, closes);
}

/* ---- plain heads ---------------------------------------------------------------------------- */

/* The first byte from the i-th on that is not of the class, or n. */
static size_t skip_class(const char *buf, size_t i, size_t n, unsigned class)
{
    const unsigned char *p = (const unsigned char *)buf;
    const uint8_t *of = mag_http_class_of;

    while (n - i >= 4 && (of[p[i]] & of[p[i + 1]] & of[p[i + 2]] & of[p[i + 3]] & class))
        i += 4;
    while (i < n && (of[p[i]] & class))
        i++;
    return i;
}

/* The length of a well-known method, which a blank and a path follow; 0: something else. */
static size_t plain_method(const char *p)
{
    if (memcmp(p, "GET /", 5) == 0 || memcmp(p, "PUT /", 5) == 0)
        return 3;
    if (memcmp(p, "POST /", 6) == 0 || memcmp(p, "HEAD /", 6) == 0)
        return 4;
    return memcmp(p, "DELETE /", 8) == 0 ? 6 : 0;
}

/* Where the first field begins; 0: it is not plain. */
static size_t read_plain_line(struct mag_http_head *h, const char *buf, size_t n,
                              const struct mag_http_limits *limits)
{
    enum { LEAST = sizeof "GET / HTTP/1.0\r\n\r\n" - 1, REST = sizeof " HTTP/1.0\r\n" - 1 };
    size_t n_method = n >= LEAST ? plain_method(buf) : 0, at = n_method + 1, i;

    if (n_method == 0)
        return 0;
    i = skip_class(buf, at, n, MAG_HTTP_TARGET);
    if (n - i < REST || memcmp(buf + i, " HTTP/1.", 8) != 0 || (buf[i + 8] & ~1) != '0' ||
        memcmp(buf + i + 9, "\r\n", 2) != 0 || i + 9 > limits->line_bytes)
        return 0;
    h->method = span_of(0, n_method);
    h->target = span_of(at, i);
    h->minor = (uint8_t)(buf[i + 8] - '0');
    return i + REST;
}

/* What a plain field says; false: it is none. */
static bool read_plain_meaning(struct mag_http_head *h, const char *buf,
                               const struct mag_http_entry *f, bool *closes)
{
    const char *name = buf + f->name.at;

    switch (f->name.len) {
    case 0:
        return false;
    case 4:
        return !MAG_HTTP_IS(name, 4, "host") || read_host(h, f->value, buf + f->value.at) == 0;
    case 6:
        return !MAG_HTTP_IS(name, 6, "expect");
    case 10:
        if (MAG_HTTP_IS(name, 10, "connection"))
            read_connection(h, buf + f->value.at, f->value.len, closes);
        return true;
    case 14:
        return !MAG_HTTP_IS(name, 14, "content-length");
    case 17:
        return !MAG_HTTP_IS(name, 17, "transfer-encoding");
    default:
        return true;
    }
}

/* The field line at `at': where the next one begins; 0: it is not plain. */
static size_t read_plain_field(struct mag_http_entry *f, const char *buf, size_t at, size_t n)
{
    size_t i = skip_class(buf, at, n, MAG_HTTP_TOKEN), end, next;

    if (i == n || buf[i] != ':')
        return 0;
    f->name = span_of(at, i);
    for (i++; i < n && is_blank(buf[i]);)
        i++;
    end = mag_http_next_control(buf, i, n);
    while (end < n && buf[end] == '\t')
        end = mag_http_next_control(buf, end + 1, n);
    if (n - end < 2 || memcmp(buf + end, "\r\n", 2) != 0)
        return 0;
    next = end + 2;
    while (end > i && is_blank(buf[end - 1]))
        end--;
    f->value = span_of(i, end);
    return next;
}

/* The length of a plain head, which is read then; 0: it is none, and *h may be anything. */
static size_t read_plain(struct mag_http_head *h, const char *buf, size_t n,
                         const struct mag_http_limits *limits)
{
    uint32_t room = h->room < limits->n_fields ? h->room : limits->n_fields;
    size_t at = read_plain_line(h, buf, n, limits);
    bool closes = false;

    while (at > 0 && n - at >= 2 && buf[at] != '\r') {
        struct mag_http_entry *f = &h->fields[h->n_fields];

        if (h->n_fields++ == room)
            return 0;
        at = read_plain_field(f, buf, at, n);
        if (at == 0 || !read_plain_meaning(h, buf, f, &closes))
            return 0;
    }
    if (at == 0 || n - at < 2 || memcmp(buf + at, "\r\n", 2) != 0 || conclude(h, closes) < 0)
        return 0;
    h->is_read = true;
    return at + 2;
}

/* ---- the head ---------------------------------------------------------------------------------- */

int mag_http_head_scan(struct mag_http_head *h, const char *buf, size_t n,
                       const struct mag_http_limits *limits)
{
    const struct mag_http_head fresh = { .fields = h->fields, .room = h->room };
    size_t length;

    if (n > limits->head_bytes)
        n = limits->head_bytes;
    if (h->scanned == 0) {
        length = read_plain(h, buf, n, limits);
        if (MAG_LIKELY(length > 0))
            return (int)length;
        *h = fresh;
    }
    return scan(h, buf, n, limits);
}

/* ---- chunked bodies ------------------------------------------------------------------------- */

enum {
    SIZE_FIRST,
    SIZE,
    NAME_FIRST, /* ;name, ;name=value, ;name="value": extensions */
    NAME,
    VALUE_FIRST,
    VALUE,
    QUOTED,
    QUOTE_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    OVER,
};

static bool is_text(char c)
{
    return c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7f);
}

/* `then' if the byte is the one that must come. */
static int must_be(char c, char expected, int then)
{
    return c == expected ? then : BAD;
}

static int next_of_size(struct mag_http_chunked *c, char byte, bool is_first)
{
    int digit = digit_of(byte);

    if (digit >= 0) {
        if (c->left >> (SIZE_BITS_MAX - 4))
            return BAD;
        c->left = c->left * 16 + (uint64_t)digit;
        return SIZE;
    }
    if (is_first)
        return BAD;
    return byte == ';' ? NAME_FIRST : must_be(byte, '\r', SIZE_LF);
}

/* Extensions say nothing to us, but what has not their form is refused; so is a backslash. */
static int next_of_extension(int state, char byte)
{
    switch (state) {
    case NAME_FIRST:
        return mag_http_is_token_char(byte) ? NAME : BAD;
    case VALUE_FIRST:
        return mag_http_is_token_char(byte) ? VALUE : must_be(byte, '"', QUOTED);
    case QUOTED:
        return byte == '"' ? QUOTE_END : is_text(byte) && byte != '\\' ? QUOTED : BAD;
    default: /* NAME, VALUE, QUOTE_END */
        if (state != QUOTE_END && mag_http_is_token_char(byte))
            return state;
        if (byte == '=' && state == NAME)
            return VALUE_FIRST;
        return byte == ';' ? NAME_FIRST : must_be(byte, '\r', SIZE_LF);
    }
}

/* A byte of framing: the next state, or a status. */
static int next_state(struct mag_http_chunked *c, char byte)
{
    switch (c->state) {
    case SIZE_FIRST:
    case SIZE:
        return next_of_size(c, byte, c->state == SIZE_FIRST);
    case NAME_FIRST:
    case NAME:
    case VALUE_FIRST:
    case VALUE:
    case QUOTED:
    case QUOTE_END:
        return next_of_extension(c->state, byte);
    case SIZE_LF:
        return must_be(byte, '\n', c->left > 0 ? DATA : TRAILER_FIRST);
    case DATA_CR:
        return must_be(byte, '\r', DATA_LF);
    case DATA_LF:
        return must_be(byte, '\n', SIZE_FIRST);
    case TRAILER_FIRST:
        return mag_http_is_token_char(byte) ? TRAILER_NAME : must_be(byte, '\r', LAST_LF);
    case TRAILER_NAME:
        return mag_http_is_token_char(byte) ? TRAILER_NAME : must_be(byte, ':', TRAILER_VALUE);
    case TRAILER_VALUE:
        return is_text(byte) ? TRAILER_VALUE : must_be(byte, '\r', TRAILER_LF);
    case TRAILER_LF:
        return must_be(byte, '\n', TRAILER_FIRST);
    case LAST_LF:
        return must_be(byte, '\n', OVER);
    default:
        return BAD;
    }
}

/* Long lines, and many chunks of hardly anything, cost more than they bring. */
static int check_excess(struct mag_http_chunked *c)
{
    if (c->state >= TRAILER_FIRST)
        return ++c->line > TRAILERS_MAX ? -1 : 0;
    return ++c->line > SIZE_LINE_MAX || ++c->excess > EXCESS_MAX ? -1 : 0;
}

/* A chunk's content begins: 16 bytes of framing are its right, and as many as it has. */
static void pay(struct mag_http_chunked *c)
{
    uint64_t paid = 16 + c->left;

    c->line = 0;
    c->excess = paid < c->excess ? c->excess - (uint32_t)paid : 0;
}

int mag_http_chunk(struct mag_http_chunked *c, const char *buf, size_t n, size_t *used,
                   size_t *n_data)
{
    size_t i = 0;
    int rc;

    *n_data = 0;
    for (; c->state != DATA; i++) {
        *used = i;
        if (c->state == OVER)
            return MAG_HTTP_CHUNK_END;
        if (i == n)
            return MAG_HTTP_CHUNK_MORE;
        rc = next_state(c, buf[i]);
        if (rc < 0)
            return rc;
        if (check_excess(c) < 0)
            return c->state >= TRAILER_FIRST ? HEAD_TOO_LONG : BAD;
        if (c->state == SIZE_LF)
            pay(c);
        c->state = (uint8_t)rc;
    }
    *used = i;
    *n_data = c->left < n - i ? (size_t)c->left : n - i;
    c->left -= *n_data;
    if (c->left == 0)
        c->state = DATA_CR;
    return *n_data > 0 ? MAG_HTTP_CHUNK_DATA : MAG_HTTP_CHUNK_MORE;
}

/* ---- targets and paths ---------------------------------------------------------------------- */

/* Up to where the path goes; *is_plain: nothing in it has to be decoded. */
static size_t end_of_path(const char *t, size_t at, size_t n, bool *is_plain)
{
    size_t i = at;

    *is_plain = at < n && t[at] == '/';
    for (; i < n && t[i] != '?'; i++)
        if (t[i] == '%' || (t[i] == '/' && i + 1 < n && (t[i + 1] == '.' || t[i + 1] == '/')))
            *is_plain = false;
    return i;
}

int mag_http_split_target(const char *t, size_t n, struct mag_http_target *out)
{
    size_t at = 0, end;

    *out = (struct mag_http_target){ .has_query = false };
    if (t[0] != '/' && t[0] != '*') {
        at = (size_t)((const char *)memchr(t, ':', n) - t) + 3;
        for (end = at; end < n && t[end] != '/' && t[end] != '?';)
            end++;
        if (end == at || !mag_http_all_are(t + at, end - at, MAG_HTTP_HOST))
            return BAD;
        out->authority = span_of(at, end);
        at = end;
    }
    end = end_of_path(t, at, n, &out->is_plain);
    out->path = span_of(at, end);
    out->has_query = end < n;
    if (end < n)
        out->query = span_of(end + 1, n);
    return 0;
}

static int unescape(const char *p, const char *end)
{
    int high, low;

    if (end - p < 3)
        return -1;
    high = digit_of(p[1]);
    low = digit_of(p[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A segment has ended at *end, where a slash or the path's end follows: takes away what . and ..
 * say. -1: above the root. */
static int end_segment(char *out, size_t *end)
{
    size_t at = *end;

    while (out[at - 1] != '/')
        at--;
    if (*end - at == 1 && out[at] == '.') {
        *end = at;
    } else if (*end - at == 2 && out[at] == '.' && out[at + 1] == '.') {
        if (at == 1)
            return -1;
        for (at--; out[at - 1] != '/';)
            at--;
        *end = at;
    }
    return 0;
}

int mag_http_decode_path(char *out, const char *path, size_t n)
{
    const char *end = path + n;
    size_t len = 1;
    int byte;

    if (n == 0 || *path != '/')
        return BAD;
    out[0] = '/';
    for (path++; path < end; path++) {
        byte = (unsigned char)*path;
        if (byte == '%') {
            byte = unescape(path, end);
            if (byte <= 0)
                return BAD;
            path += 2;
        }
        if (byte != '/') {
            out[len++] = (char)byte;
            continue;
        }
        if (end_segment(out, &len) < 0)
            return BAD;
        if (out[len - 1] != '/')
            out[len++] = '/';
    }
    if (end_segment(out, &len) < 0)
        return BAD;
    out[len] = '\0';
    return (int)len;
}
