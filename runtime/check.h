/* SPDX-License-Identifier: MIT */
#ifndef MAG_CHECK_H
#define MAG_CHECK_H
/*
 * check.h - assertions that stay on, and the last sentence of a process
 *
 * MAG_CHECK() states what must hold whatever the user does.  It is compiled into
 * every build, release included: a broken invariant in a scheduler loses tasks or
 * memory silently, and the branch costs a fraction of a nanosecond.  A mistake of
 * the user (a bad argument, no memory) is not checked here: it is answered with
 * -errno.
 *
 * All of it may be called from a signal handler and on a very small stack.
 */
#include "base.h"

#include <stdarg.h>

/* Prints "magpie: check failed: <expr> at file:line in <func>" and aborts. */
#define MAG_CHECK(cond) \
    (MAG_LIKELY(cond) ? (void)0 : mag_check_failed(#cond, __FILE__, __LINE__, __func__))

/* Prints "magpie: <the message>" and aborts. */
#define MAG_PANIC(...) mag_check_panic(__VA_ARGS__)

void mag_check_failed(const char *expr, const char *file, int line, const char *func)
    __attribute__((noreturn, cold));
void mag_check_panic(const char *fmt, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

/* One line "magpie: <the message>\n" on standard error, in one write(2). */
void mag_check_print(const char *fmt, ...) __attribute__((cold, format(printf, 1, 2)));

/* The same as mag_check_format, with the arguments in place. */
size_t mag_check_text(char *buf, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Formats into buf, always terminated, and returns the length that is there (less
 * than n).  Understands %s %c %d %i %u %x %p %% with l, ll or z before them, and
 * a decimal width, padded with spaces; nothing else.
 */
size_t mag_check_format(char *buf, size_t n, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

#endif
