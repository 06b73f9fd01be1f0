/* SPDX-License-Identifier: MIT */
/* correct.h - coroutines that two files use */
#ifndef CORRECT_H
#define CORRECT_H
#include <magpie/async.h>

struct pair {
    int a, b;
};

async_decl(struct pair, swap, (struct pair, p));
async_decl(void, say_nothing);

#endif
