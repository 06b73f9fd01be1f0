/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_PARSE_H
#define MAG_HTTP_PARSE_H
/*
 * http_parse.h - bytes into requests: pure functions, no I/O, no memory
 *
 *      mag_http_head_scan     where does the head end? (goes on where it stopped before)
 *      mag_http_head_read     what does it say? (what the scan has not read already)
 *      mag_http_chunk         what do these bytes of a chunked body say?
 *      mag_http_decode_path   "/a%20b/../c" -> "/c"
 *
 * Each answers an HTTP status, negated, for what has to be refused: -400, -414, ...
 */
#include "base.h"

/* A piece of the buffer that was parsed; offsets, so that the buffer may move. */
struct mag_http_span {
    uint32_t at, len;
};

struct mag_http_entry {
    struct mag_http_span name, value;
};

struct mag_http_limits {
    uint32_t line_bytes; /* of the request line: else 414 */
    uint32_t head_bytes; /* of the whole head: else 431   */
    uint32_t n_fields;   /* else 431                      */
};

struct mag_http_head {
    /* How far the scan has come; zero begins. */
    uint32_t scanned;  /* bytes that need not be looked at again             */
    uint32_t line_at;  /* where the line that is being scanned begins        */
    uint32_t start;    /* the request line: after an empty line              */
    uint32_t line_end; /* behind its CRLF; 0: it has not ended yet           */
    uint32_t n_lines;  /* field lines                                        */

    /* What was read. */
    struct mag_http_entry *fields; /* the caller's                       */
    uint32_t room;                 /* how many there is room for; 0: none yet */
    uint32_t n_fields;
    bool is_read; /* by the scan: all of it, there is nothing left to do */
    struct mag_http_span method, target;
    struct mag_http_span host; /* the value of Host; at == 0: none                   */
    uint64_t length;           /* Content-Length, or 0                               */
    uint8_t minor;             /* HTTP/1.minor                                       */
    bool is_chunked;
    bool has_length;
    bool is_kept_alive;     /* the client will send more on the connection        */
    bool expects_continue;  /* and waits for it before it sends the body          */
    bool has_encoding_line; /* a Transfer-Encoding was seen                       */
};

/*
 * Looks for the end of the head in the n bytes at buf, which begin as in the call before.
 * Its length; 0: it has not come yet; < 0: a status.  The answer does not depend on how the
 * bytes came in.  If it is all there at the first look, is a plain one, and h->fields has room for
 * it, then it is read at once (h->is_read).
 */
int mag_http_head_scan(struct mag_http_head *h, const char *buf, size_t n,
                       const struct mag_http_limits *limits);

/* Reads a head of that length, which the scan has found, unless that has read it; h->fields has
 * room for h->n_lines.  0, or a status < 0. */
int mag_http_head_read(struct mag_http_head *h, const char *buf, size_t length);

/* The first control byte (< 0x20, or 0x7f) of the n at buf from the i-th on, or n. */
size_t mag_http_next_control(const char *buf, size_t i, size_t n);

/* A chunked body, as far as it has been read; zero begins. */
struct mag_http_chunked {
    uint64_t left;   /* bytes of the chunk that have not come          */
    uint32_t line;   /* of the size line, or of all trailers           */
    uint32_t excess; /* framing that was not paid for by content       */
    uint8_t state;
};

enum mag_http_chunk_event {
    MAG_HTTP_CHUNK_MORE, /* `used' bytes were framing, the rest has yet to come */
    MAG_HTTP_CHUNK_DATA, /* behind `used' bytes of framing are `n_data' of content */
    MAG_HTTP_CHUNK_END,  /* `used' bytes end the body, with its trailers */
};

/* Takes framing, and then content, from the n bytes at buf: an event; < 0: a status.  `n_data'
 * counts as read.  Trailers are checked and dropped. */
int mag_http_chunk(struct mag_http_chunked *c, const char *buf, size_t n, size_t *used,
                   size_t *n_data);

/* The parts of a target that mag_http_head_read has let pass. */
struct mag_http_target {
    struct mag_http_span authority;   /* of http://authority/path?query; else empty */
    struct mag_http_span path, query; /* the path may be empty: it is "/" then       */
    bool has_query;
    bool is_plain; /* the path is what mag_http_decode_path would make of it */
};

/* 0; -400 for an authority that is none, or has a user in it. */
int mag_http_split_target(const char *t, size_t n, struct mag_http_target *out);

/*
 * Decodes the percent signs of a path of n bytes into out (n + 1 bytes; may be the same place),
 * removes dot segments and makes one slash of several.  The length; -400 for a percent sign without
 * two digits, a byte 0, or a path that leads above its root.  The result begins with a slash and
 * ends with a byte 0.
 */
int mag_http_decode_path(char *out, const char *path, size_t n);

/* Whether the n bytes are that word, of lower-case letters, signs and digits, in any case. */
static inline bool mag_http_is(const char *bytes, size_t n, const char *word, size_t n_word)
{
    if (n != n_word)
        return false;
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != word[i] && ((bytes[i] | 0x20) != word[i] || word[i] < 'a' || word[i] > 'z'))
            return false;
    return true;
}
#define MAG_HTTP_IS(bytes, n, literal) mag_http_is((bytes), (n), (literal), sizeof(literal) - 1)

/* What each byte may be part of. */
enum {
    MAG_HTTP_TOKEN = 1, /* a method, a field's name */
    MAG_HTTP_TARGET = 2,
    MAG_HTTP_HOST = 4,
};
extern const uint8_t mag_http_class_of[256];

static inline bool mag_http_all_are(const char *text, size_t n, unsigned class)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    const uint8_t *of = mag_http_class_of;
    unsigned all = class;

    for (; end - p >= 4; p += 4)
        all &= of[p[0]] & of[p[1]] & of[p[2]] & of[p[3]];
    for (; p < end; p++)
        all &= of[*p];
    return all != 0;
}

static inline bool mag_http_is_token_char(char c)
{
    return mag_http_class_of[(unsigned char)c] & MAG_HTTP_TOKEN;
}

#endif
