/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_HTTP_BAD_H
#define MAG_TESTS_HTTP_BAD_H
/*
 * http_bad.h - requests that have to be refused, and with which status
 *
 * Where a proxy and a server read such bytes differently, requests are smuggled; so all of them
 * end the connection.
 */
#include <stddef.h>

struct http_bad {
    const char *what;
    int status;
    const char *bytes;
    size_t n;
};

#define BAD(what, status, bytes) \
    { \
        what, status, bytes, sizeof(bytes) - 1 \
    }
#define GET_11  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST_11 "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST_11 "Transfer-Encoding: chunked\r\n\r\n"

static const struct http_bad http_bad[] __attribute__((unused)) = {
    /* the request line */
    BAD("two spaces before the target", 400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("two spaces before the version", 400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a space at the end of the line", 400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    BAD("a space before the method", 400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a tab for a space", 400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a space in the target", 400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("no version (HTTP/0.9)", 400, "GET /\r\n\r\n"),
    BAD("no target", 400, "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("only a method", 400, "GET\r\n\r\n"),
    BAD("HTTP/0.9 by name", 505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    BAD("HTTP/1.2", 505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    BAD("HTTP/2.0", 505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    BAD("HTTP/2's preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    BAD("HTTP/1.10", 400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    BAD("HTTP/01.1", 400, "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    BAD("HTTP/1", 400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    BAD("http/1.1 in lower case", 400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    BAD("RTSP", 400, "DESCRIBE / RTSP/1.0\r\nHost: a\r\n\r\n"),
    BAD("ICE", 400, "SOURCE / ICE/1.0\r\nHost: a\r\n\r\n"),
    BAD("a method of RTSP", 501, "DESCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a method that nobody knows", 501, "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a method in lower case", 501, "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a method that is no token", 400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("CONNECT", 501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    /* targets */
    BAD("a target without a slash", 400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("an asterisk for GET", 400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a fragment", 400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("absolute form without a host", 400, "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("absolute form with a user", 400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("absolute form of another scheme", 400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("bytes that are not ASCII", 400, "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a quote in the target", 400, "GET /\" HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a backslash in the target", 400, "GET /\\.. HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("above the root", 400, "GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("above the root, escaped", 400, "GET /a/%2e%2E/%2e%2e%2fetc HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a zero, escaped", 400, "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("half an escape", 400, "GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("an escape of no digits", 400, "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
    /* line ends and controls */
    BAD("LF after the request line", 400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    BAD("LF after a field", 400, "GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    BAD("LF as the empty line", 400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    BAD("LF everywhere", 400, "GET / HTTP/1.1\nHost: a\n\n"),
    BAD("CR in a value", 400, GET_11 "A: b\rc\r\n\r\n"),
    BAD("CR in a name", 400, GET_11 "A\rB: c\r\n\r\n"),
    BAD("CR CR LF", 400, GET_11 "A: b\r\r\n\r\n"),
    BAD("CR in the request line", 400, "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("LF before the request", 400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("two empty lines before the request", 400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a zero in a value", 400, GET_11 "A: b\0c\r\n\r\n"),
    BAD("a zero in a name", 400, GET_11 "A\0: b\r\n\r\n"),
    BAD("a zero in the target", 400, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a control in a value", 400, GET_11 "A: b\x01\r\n\r\n"),
    BAD("DEL in a value", 400, GET_11 "A: b\x7f\r\n\r\n"),
    BAD("escape sequences", 400, GET_11 "A: \x1b[2J\r\n\r\n"),
    BAD("TLS to a plain port", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    /* fields */
    BAD("a folded line", 400, GET_11 "A: b\r\n c\r\n\r\n"),
    BAD("a line folded by a tab", 400, GET_11 "A: b\r\n\tc\r\n\r\n"),
    BAD("a blank before the first field", 400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    BAD("a space before the colon", 400, GET_11 "A : b\r\n\r\n"),
    BAD("a tab before the colon", 400, GET_11 "A\t: b\r\n\r\n"),
    BAD("an empty name", 400, GET_11 ": b\r\n\r\n"),
    BAD("no colon", 400, GET_11 "Ab\r\n\r\n"),
    BAD("a space in a name", 400, GET_11 "A b: c\r\n\r\n"),
    BAD("a bracket in a name", 400, GET_11 "A(b): c\r\n\r\n"),
    BAD("a byte that is not ASCII in a name", 400, GET_11 "\xc3\xa4: c\r\n\r\n"),
    BAD("no Host", 400, "GET / HTTP/1.1\r\n\r\n"),
    BAD("two Hosts", 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    BAD("two Hosts, HTTP/1.0", 400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
    BAD("a Host with a path", 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    BAD("a Host with a user", 400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    BAD("a Host with a space", 400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    BAD("an expectation that nobody knows", 417, POST_11 "Content-Length: 1\r\nExpect: x\r\n\r\na"),
    /* lengths */
    BAD("length and coding", 400,
        POST_11 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("coding and length", 400,
        POST_11 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    BAD("two lengths", 400, POST_11 "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
    BAD("the same length twice", 400,
        POST_11 "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
    BAD("a list of lengths", 400, POST_11 "Content-Length: 5, 5\r\n\r\nabcde"),
    BAD("an empty length", 400, POST_11 "Content-Length:\r\n\r\n"),
    BAD("a length with a plus", 400, POST_11 "Content-Length: +5\r\n\r\nabcde"),
    BAD("a negative length", 400, POST_11 "Content-Length: -5\r\n\r\nabcde"),
    BAD("a length with a space in it", 400, POST_11 "Content-Length: 5 5\r\n\r\nabcde"),
    BAD("a length in hex", 400, POST_11 "Content-Length: 0x5\r\n\r\nabcde"),
    BAD("a length with a point", 400, POST_11 "Content-Length: 5.0\r\n\r\nabcde"),
    BAD("a length of 64 bits and one", 400,
        POST_11 "Content-Length: 18446744073709551621\r\n\r\nabcde"),
    BAD("a length of 63 bits and one", 400,
        POST_11 "Content-Length: 9223372036854775808\r\n\r\nabcde"),
    BAD("a length beyond the limit", 413, POST_11 "Content-Length: 1048577\r\n\r\nabcde"),
    /* codings */
    BAD("an unknown coding", 400, POST_11 "Transfer-Encoding: gzip\r\n\r\n"),
    BAD("identity", 400, POST_11 "Transfer-Encoding: identity\r\n\r\n"),
    BAD("almost chunked", 400, POST_11 "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked and more", 400, POST_11 "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n"),
    BAD("chunked with a vertical tab", 400,
        POST_11 "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked in quotes", 400, POST_11 "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    BAD("chunked not last", 400, POST_11 "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    BAD("chunked twice", 400, POST_11 "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    BAD("gzip and chunked", 501, POST_11 "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    BAD("two codings", 400,
        POST_11 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("a coding and identity", 400,
        POST_11 "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("an empty coding", 400, POST_11 "Transfer-Encoding:\r\n\r\n"),
    BAD("a coding in HTTP/1.0", 400,
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("a folded coding", 400, POST_11 "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    /* chunks */
    BAD("no size", 400, CHUNKED "\r\n\r\n"),
    BAD("a size that is none", 400, CHUNKED "x\r\n\r\n"),
    BAD("a size with a sign", 400, CHUNKED "+5\r\nabcde\r\n0\r\n\r\n"),
    BAD("a size with 0x", 400, CHUNKED "0x5\r\nabcde\r\n0\r\n\r\n"),
    BAD("a space before the size", 400, CHUNKED " 5\r\nabcde\r\n0\r\n\r\n"),
    BAD("a space behind the size", 400, CHUNKED "5 \r\nabcde\r\n0\r\n\r\n"),
    BAD("a size of 65 bits", 400, CHUNKED "10000000000000005\r\nabcde\r\n0\r\n\r\n"),
    BAD("a size of 64 bits", 400, CHUNKED "ffffffffffffffff\r\nabcde\r\n0\r\n\r\n"),
    BAD("LF behind the size", 400, CHUNKED "5\nabcde\r\n0\r\n\r\n"),
    BAD("CR behind the size", 400, CHUNKED "5\rabcde\r\n0\r\n\r\n"),
    BAD("LF behind an extension", 400, CHUNKED "5;a\nabcde\r\n0\r\n\r\n"),
    BAD("CR in an extension", 400, CHUNKED "5;a\rb\r\nabcde\r\n0\r\n\r\n"),
    BAD("an extension without a name", 400, CHUNKED "5;\r\nabcde\r\n0\r\n\r\n"),
    BAD("a blank in an extension", 400, CHUNKED "5; a\r\nabcde\r\n0\r\n\r\n"),
    BAD("an extension whose quotes do not end", 400, CHUNKED "5;a=\"\r\nabcde\r\n0\r\n\r\n"),
    BAD("a zero in an extension", 400, CHUNKED "5;a\0\r\nabcde\r\n0\r\n\r\n"),
    BAD("other bytes behind the content", 400, CHUNKED "5\r\nabcdeXX0\r\n\r\n"),
    BAD("CR without LF behind the content", 400, CHUNKED "5\r\nabcde\rX0\r\n\r\n"),
    BAD("LF behind the content", 400, CHUNKED "5\r\nabcde\n0\r\n\r\n"),
    BAD("more content than the size", 400, CHUNKED "5\r\nabcdef\r\n0\r\n\r\n"),
    BAD("LF behind the last chunk", 400, CHUNKED "0\n\r\n"),
    BAD("LF at the end", 400, CHUNKED "0\r\n\n"),
    BAD("a trailer without a colon", 400, CHUNKED "0\r\nab\r\n\r\n"),
    BAD("a trailer without a name", 400, CHUNKED "0\r\n: b\r\n\r\n"),
    BAD("a folded trailer", 400, CHUNKED "0\r\na: b\r\n c\r\n\r\n"),
    BAD("LF behind a trailer", 400, CHUNKED "0\r\na: b\n\r\n"),
    BAD("a zero in a trailer", 400, CHUNKED "0\r\na: \0\r\n\r\n"),
};

enum { N_HTTP_BAD = sizeof http_bad / sizeof *http_bad };

/* Requests that are all right, one or several behind each other. */
static const struct http_bad http_good[] __attribute__((unused)) = {
    BAD("get", 1, GET_11 "\r\n"),
    BAD("an empty line before it", 1, "\r\n" GET_11 "\r\n"),
    BAD("blanks around a value", 1, GET_11 "A: \t b c \t\r\nB:\r\nC:d\r\n\r\n"),
    BAD("bytes above ASCII in a value", 1, GET_11 "A: \xc3\xa4\xff\r\n\r\n"),
    BAD("HTTP/1.0 without a Host", 1, "GET / HTTP/1.0\r\n\r\n"),
    BAD("an empty Host", 1, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    BAD("an IPv6 Host", 1, "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
    BAD("absolute form", 1, "GET http://b:80/c?d HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("absolute form without a path", 1, "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("options of the server", 1, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("a query", 1, "GET /a%20b/./c/../d?e=%zz|{f} HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("an upgrade", 1, GET_11 "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    BAD("a length", 1, POST_11 "Content-Length: 5\r\n\r\nabcde"),
    BAD("a length of nothing", 1, POST_11 "Content-Length: 0\r\n\r\n"),
    BAD("a length with zeros", 1, POST_11 "Content-Length: 0005\r\n\r\nabcde"),
    BAD("chunks", 1, CHUNKED "5\r\nabcde\r\n00000000000A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n"),
    BAD("no chunks", 1, CHUNKED "0\r\n\r\n"),
    BAD("chunks, and a trailer", 1, CHUNKED "1;x=y;z\r\na\r\n000\r\nT: u\r\nV:\r\n\r\n"),
    BAD("CHUNKED", 1, POST_11 "TRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    BAD("three", 3, GET_11 "\r\n" CHUNKED "2\r\nab\r\n0\r\n\r\n" GET_11 "\r\n"),
    BAD("three, with lengths", 3,
        POST_11 "Content-Length: 2\r\n\r\nab" POST_11 "Content-Length: 1\r\n\r\nc" GET_11 "\r\n"),
    BAD("a browser's", 1,
        "GET /a/b.html HTTP/1.1\r\nHost: www.example.org:8080\r\nConnection: keep-alive\r\n"
        "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nCookie: a=b; c=\"d\"\r\nDNT: 1\r\n\r\n"),
};

enum { N_HTTP_GOOD = sizeof http_good / sizeof *http_good };

#endif
