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
static mag_atomic(int) is_on; /* relaxed: the same */

bool mag_debug(void)
{
    int value = mag_load_relaxed(&known);

    if (value == 0) {
        const char *text = mag_sys_getenv("MAGPIE_DEBUG");
        value = text && *text && strcmp(text, "0") != 0 ? 1 : -1;
        mag_store_relaxed(&known, value);
    }
    return value > 0;
}

void mag_debug_on(void)
{
    mag_store_relaxed(&is_on, 1);
}

int mag_misuse(int rc, const char *format, ...)
{
    char line[256];
    va_list args;

    if (!mag_load_relaxed(&is_on) && !mag_debug())
        return rc;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mag_check_print("%s", line);
    return rc;
}
