/* SPDX-License-Identifier: MIT */
/*
 * misuse.c - one sentence on a mistake of the caller, in debug mode
 */
#include "misuse.h"

#include "atomic.h"
#include "check.h"
#include "sys.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* 0 until it is known; every thread finds the same. */
static mag_atomic(int) known; /* relaxed: a value of its own */

bool mag_debug(void)
{
    int is_on = mag_load_relaxed(&known);

    if (is_on == 0) {
        const char *text = mag_sys_getenv("MAGPIE_DEBUG");
        is_on = text && *text && strcmp(text, "0") != 0 ? 1 : -1;
        mag_store_relaxed(&known, is_on);
    }
    return is_on > 0;
}

int mag_misuse(int rc, const char *format, ...)
{
    char line[256];
    va_list args;

    if (!mag_debug())
        return rc;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mag_check_print("%s", line);
    return rc;
}
