/* SPDX-License-Identifier: MIT */
/* symbol.c - unit tests of runtime/symbol.[ch] */
#include <criterion/criterion.h>

#include "symbol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(symbol);

static char text[256];

static MAG_NOINLINE int named_function(int n)
{
    return n * 3 + 1;
}

static void *return_address;
static int call_line;

static MAG_NOINLINE void remember_caller(void)
{
    return_address = __builtin_extract_return_addr(__builtin_return_address(0));
}

static MAG_NOINLINE int caller(void)
{
    call_line = __LINE__ + 1;
    remember_caller();
    return named_function(2);
}

static bool have_addr2line(void)
{
    return system("addr2line --version >/dev/null 2>&1") == 0;
}

Test(symbol, a_static_function_by_its_entry)
{
    mag_symbol_name((void *)(uintptr_t)named_function, text, sizeof text);
    if (!have_addr2line())
        cr_skip("no addr2line");
    cr_assert_eq(strncmp(text, "named_function at symbol.c:", 27), 0, "%s", text);
}

Test(symbol, a_return_address_is_the_caller)
{
    int line = 0;

    cr_assert_eq(caller(), 7);
    mag_symbol_name(return_address, text, sizeof text);
    if (!have_addr2line())
        cr_skip("no addr2line");
    cr_assert_eq(sscanf(text, "caller at symbol.c:%d", &line), 1, "%s", text);
    cr_assert_eq(line, call_line, "%s", text);
}

Test(symbol, a_function_of_a_library)
{
    mag_symbol_name((void *)(uintptr_t)qsort, text, sizeof text);
    cr_assert_not_null(strstr(text, "qsort"), "%s", text);
}

Test(symbol, what_is_no_code_is_a_number)
{
    mag_symbol_name((void *)(uintptr_t)0x10, text, sizeof text);
    cr_assert_str_eq(text, "0x10");
    mag_symbol_name(NULL, text, sizeof text);
    cr_assert_str_eq(text, "0x0");
}

Test(symbol, a_short_buffer_is_terminated)
{
    char tiny[5] = { 'x', 'x', 'x', 'x', 'x' };

    mag_symbol_name((void *)(uintptr_t)qsort, tiny, 4);
    cr_assert_eq(strlen(tiny), 3);
    cr_assert_eq(tiny[4], 'x');
}
