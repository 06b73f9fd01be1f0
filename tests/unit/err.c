/* SPDX-License-Identifier: MIT */
/* err.c - unit tests of runtime/err.c */
#include <criterion/criterion.h>

#include <errno.h>
#include <limits.h>
#include <magpie/base.h>

TestSuite(err);

Test(err, names)
{
    cr_assert_str_eq(mag_err_name(-EIO), "EIO");
    cr_assert_str_eq(mag_err_name(EIO), "EIO");
    cr_assert_str_eq(mag_err_name(-ECANCELED), "ECANCELED");
    cr_assert_str_eq(mag_err_name(-EALREADY), "EALREADY");
    cr_assert_str_eq(mag_err_name(0), "OK");
    cr_assert_str_eq(mag_err_name(1000000), "OK");
}

Test(err, no_error)
{
    cr_assert_str_eq(mag_err_name(-1000000), "E?");
    cr_assert_str_eq(mag_err_name(INT_MIN), "E?");
    cr_assert_str_eq(mag_err_text(-1000000), "Unknown error");
    cr_assert_str_eq(mag_err_text(INT_MIN), "Unknown error");
}

Test(err, texts)
{
    cr_assert_str_eq(mag_err_text(-ENOENT), "No such file or directory");
    cr_assert_str_eq(mag_err_text(0), "Success");
    cr_assert_str_eq(mag_err_text(1000000), "Success");
}

Test(err, static_storage)
{
    const char *name = mag_err_name(-EPERM);

    (void)mag_err_name(-EBADF);
    cr_assert_str_eq(name, "EPERM");
    cr_assert_eq(name, mag_err_name(-EPERM));
}

Test(err, version)
{
    cr_assert_eq(mag_version(),
                 MAGPIE_VERSION_MAJOR << 16 | MAGPIE_VERSION_MINOR << 8 | MAGPIE_VERSION_PATCH);
}
