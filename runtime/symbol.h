/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYMBOL_H
#define MAG_SYMBOL_H
/*
 * symbol.h - from an address in code to a name, for reports
 */
#include "base.h"

/*
 * Writes "function at file.c:31" into buf, or as much of it as can be found out:
 * "function+0x1f (binary)", "0x7f.. (binary)", "0x7f..".  Takes a function pointer,
 * a program counter or a return address.  Always succeeds and always terminates
 * buf (n > 0).  Runs a program and waits for it: milliseconds, so for reports only.
 */
void mag_symbol_name(const void *addr, char *buf, size_t n);

#endif
