/* SPDX-License-Identifier: MIT */
/* consumer.c - the least a C program does with an installed magpie */
#include <magpie/base.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    unsigned v = mag_version();

    if (mag_now() <= 0 || strcmp(mag_err_name(-5), "EIO") != 0)
        return 1;
    printf("magpie %u.%u.%u\n", v >> 16, v >> 8 & 255, v & 255);
    return 0;
}
