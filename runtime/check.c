/* SPDX-License-Identifier: MIT */
/*
 * check.c - assertions that stay on, and the last sentence of a process
 *
 * When an invariant is broken, the state of the process can no longer be trusted:
 * the heap may be damaged, the stack may be the guard page of a fiber, a lock of
 * stdio may be held by this very thread.  So the message is put together in a
 * small buffer on the stack by a formatter of our own, and leaves in one write(2).
 * Then abort(3), so that a debugger or a core file shows the place.
 *
 * Invariants
 *   1. Nothing here allocates, locks or calls stdio; it is async-signal-safe.
 *   2. A message is one line, written by one call, so that those of two threads
 *      do not mix; what does not fit in LINE_BYTES is cut.
 *
 * Who may call: any thread, any task, any signal handler.
 *
 * Rejected
 *   - assert(3): goes with NDEBUG, which is where the bugs are met;
 *   - vsnprintf(3): may allocate and take locale locks, and needs 2 KiB of stack
 *     where the overflow handler has little.
 */
#include "check.h"

#include "sys.h"

#include <stdlib.h>
#include <string.h>

enum {
    LINE_BYTES = 512,
    DIGITS_MAX = 24, /* a 64 bit number in decimal, a sign, and the end */
};

struct out {
    char *buf;   /* [owner] where the text goes */
    size_t room; /* [owner] bytes in buf, including the terminator */
    size_t used; /* [owner] bytes written, always < room */
};

static void put_char(struct out *o, char c)
{
    if (o->used + 1 < o->room)
        o->buf[o->used++] = c;
}

static void put_padded(struct out *o, const char *s, size_t width)
{
    for (size_t len = strlen(s); len < width; len++)
        put_char(o, ' ');
    while (*s)
        put_char(o, *s++);
}

static void put_number(struct out *o, unsigned long long v, unsigned base, bool negative,
                       size_t width)
{
    char digits[DIGITS_MAX];
    char *p = digits + sizeof digits;

    *--p = '\0';
    do {
        *--p = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (negative)
        *--p = '-';
    put_padded(o, p, width);
}

/* ---- one conversion of a format ------------------------------------------------ */

struct spec {
    size_t width; /* [owner] least number of characters */
    int longs;    /* [owner] 0 int, 1 long or size_t, 2 long long */
    char verb;    /* [owner] the letter at the end; '\0' where the format ends */
};

static const char *parse_spec(const char *fmt, struct spec *s)
{
    *s = (struct spec){ 0 };
    while (*fmt >= '0' && *fmt <= '9')
        s->width = s->width * 10 + (size_t)(*fmt++ - '0');
    for (; *fmt == 'l' || *fmt == 'z'; fmt++)
        s->longs++;
    s->verb = *fmt;
    return *fmt ? fmt + 1 : fmt;
}

static long long take_signed(int longs, va_list *args)
{
    if (longs == 0)
        return va_arg(*args, int);
    return longs == 1 ? va_arg(*args, long) : va_arg(*args, long long);
}

static unsigned long long take_unsigned(int longs, va_list *args)
{
    if (longs == 0)
        return va_arg(*args, unsigned);
    return longs == 1 ? va_arg(*args, unsigned long) : va_arg(*args, unsigned long long);
}

static void put_signed(struct out *o, long long v, size_t width)
{
    put_number(o, v < 0 ? -(unsigned long long)v : (unsigned long long)v, 10, v < 0, width);
}

static void put_string(struct out *o, const char *s, size_t width)
{
    put_padded(o, s ? s : "(null)", width);
}

static void put_spec(struct out *o, const struct spec *s, va_list *args)
{
    switch (s->verb) {
    case 's':
        put_string(o, va_arg(*args, const char *), s->width);
        break;
    case 'c':
        put_char(o, (char)va_arg(*args, int));
        break;
    case 'd':
    case 'i':
        put_signed(o, take_signed(s->longs, args), s->width);
        break;
    case 'u':
        put_number(o, take_unsigned(s->longs, args), 10, false, s->width);
        break;
    case 'x':
        put_number(o, take_unsigned(s->longs, args), 16, false, s->width);
        break;
    case 'p':
        put_padded(o, "0x", 0);
        put_number(o, (uintptr_t)va_arg(*args, void *), 16, false, 0);
        break;
    default:
        put_char(o, s->verb ? s->verb : '%');
        break;
    }
}

size_t mag_check_format(char *buf, size_t n, const char *fmt, va_list args)
{
    struct out o = { .buf = buf, .room = n };
    struct spec s;
    va_list rest;

    if (n == 0)
        return 0;
    va_copy(rest, args);
    while (*fmt) {
        if (*fmt != '%') {
            put_char(&o, *fmt++);
            continue;
        }
        fmt = parse_spec(fmt + 1, &s);
        put_spec(&o, &s, &rest);
    }
    va_end(rest);
    buf[o.used] = '\0';
    return o.used;
}

/* ---- the last sentence --------------------------------------------------------- */

static void print_line(const char *fmt, va_list args)
{
    static const char prefix[] = "magpie: ";
    char line[LINE_BYTES];
    size_t len = sizeof prefix - 1;

    memcpy(line, prefix, len);
    /* The newline takes the terminator's place. */
    len += mag_check_format(line + len, sizeof line - len, fmt, args);
    line[len++] = '\n';
    /* Nobody is left to tell if standard error is closed. */
    (void)mag_sys_write(2, line, len);
}

void mag_check_print(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_line(fmt, args);
    va_end(args);
}

void mag_check_panic(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_line(fmt, args);
    va_end(args);
    abort();
}

void mag_check_failed(const char *expr, const char *file, int line, const char *func)
{
    mag_check_panic("check failed: %s at %s:%d in %s", expr, file, line, func);
}

size_t mag_check_text(char *buf, size_t n, const char *fmt, ...)
{
    va_list args;
    size_t len;

    va_start(args, fmt);
    len = mag_check_format(buf, n, fmt, args);
    va_end(args);
    return len;
}
