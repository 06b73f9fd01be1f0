/* SPDX-License-Identifier: MIT */
/*
 * tls_load.c - the load of the echo benchmark once more, over TLS 1.3
 *
 *      tls_load PORT CONNECTIONS THREADS SECONDS [BYTES]
 *
 * It accepts any certificate, and only one cipher (TLS_AES_256_GCM_SHA384), so that all servers
 * have the same to compute.
 */
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define LOAD_TLS 1
#include "echo_load.c"
