// SPDX-License-Identifier: MIT
// consumer.cpp - magpie.h is clean in C++11, and links
#include <magpie.h>

int main()
{
    return mag_now() > 0 && mag_version() > 0 && mag_err_name(-5)[0] == 'E' ? 0 : 1;
}
