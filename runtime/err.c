/* SPDX-License-Identifier: MIT */
/*
 * err.c - names of errors, and the library's version
 *
 * magpie answers -errno everywhere, so a number must be readable at once: -125 is
 * "ECANCELED".  glibc knows all names (strerrorname_np, strerrordesc_np, since
 * 2.32), takes no lock and answers from static storage, so a table of our own would
 * only be one that grows old.  strerror(3) would not do: it may translate, and it
 * formats unknown numbers into a buffer.
 *
 * Both signs are taken for the same error; 0 is "OK".  A positive number that is no
 * error, such as a count, has no name: the public header says what is answered.
 *
 * Who may call: any thread, any task, any signal handler; never suspends.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/base.h>

#include <limits.h>
#include <string.h>

/* -INT_MIN does not exist, and is no error either. */
static int positive(int rc)
{
    if (rc == INT_MIN)
        return INT_MAX;
    return rc < 0 ? -rc : rc;
}

unsigned mag_version(void)
{
    return MAGPIE_VERSION_MAJOR << 16 | MAGPIE_VERSION_MINOR << 8 | MAGPIE_VERSION_PATCH;
}

const char *mag_err_name(int rc)
{
    const char *name = rc == 0 ? "OK" : strerrorname_np(positive(rc));

    if (name)
        return name;
    return rc > 0 ? "OK" : "E?";
}

const char *mag_err_text(int rc)
{
    const char *text = rc == 0 ? "Success" : strerrordesc_np(positive(rc));

    if (text)
        return text;
    return rc > 0 ? "Success" : "Unknown error";
}
