/* SPDX-License-Identifier: MIT */
/*
 * sys_name.c - the door for system calls: names of hosts and services
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody can
 * suspend, and nothing of this file is inlined elsewhere.  The EAI_ codes are negative numbers
 * too, and mean something else: so errors of the system come by another way.
 *
 * Invariant: each asks mag_sys_fault() first, so that tests can make it fail.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_name.h"

#include <errno.h>
#include <netdb.h>

static MAG_NOINLINE int answer(int eai, int *sys_rc)
{
    *sys_rc = eai == EAI_SYSTEM ? -errno : 0;
    return eai;
}

int mag_sys_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                        struct addrinfo **out, int *sys_rc)
{
    *sys_rc = mag_sys_fault(MAG_SYS_READ);
    if (*sys_rc < 0)
        return EAI_SYSTEM;
    return answer(getaddrinfo(host, service, hints, out), sys_rc);
}

int mag_sys_getnameinfo(const struct sockaddr *addr, unsigned addr_bytes, char *host,
                        unsigned host_bytes, char *service, unsigned service_bytes, int flags,
                        int *sys_rc)
{
    *sys_rc = mag_sys_fault(MAG_SYS_READ);
    if (*sys_rc < 0)
        return EAI_SYSTEM;
    return answer(getnameinfo(addr, addr_bytes, host, host_bytes, service, service_bytes, flags),
                  sys_rc);
}
