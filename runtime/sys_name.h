/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_NAME_H
#define MAG_SYS_NAME_H
/*
 * sys_name.h - the door for system calls: names of hosts and services
 *
 * Both answer 0, or an EAI_ code of netdb.h; with EAI_SYSTEM *sys_rc is -errno.  They block,
 * for a minute if it comes to that.  A fault armed for MAG_SYS_READ fails them.
 */
#include "sys.h"

struct addrinfo;
struct sockaddr;

int mag_sys_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                        struct addrinfo **out, int *sys_rc);
int mag_sys_getnameinfo(const struct sockaddr *addr, unsigned addr_bytes, char *host,
                        unsigned host_bytes, char *service, unsigned service_bytes, int flags,
                        int *sys_rc);

#endif
