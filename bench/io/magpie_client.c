/* SPDX-License-Identifier: MIT */
/*
 * magpie_client.c - ours: so many GETs at a time, of one URL, by the HTTP client
 *
 *      magpie_client URL CONCURRENT SECONDS WORKERS
 *
 * A task for each of them makes one request after the other, and looks at the status.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/http_client.h>

static int64_t begin, end;
static uint64_t n_requests;
static const char *url;

async(void, getter, (struct mag_http_client *, client))
{
    uint64_t n = 0;

    for (int64_t now = now_ns(); now < end; now = now_ns()) {
        struct mag_http_response *r;
        await(mag_http_get(client, url, &r));
        int status = r->status;
        mag_http_response_free(r);
        if (status != 200)
            return -EPROTO;
        n += now >= begin;
    }
    __atomic_fetch_add(&n_requests, n, __ATOMIC_RELAXED);
    return 0;
}

async(void, all, (unsigned, n))
{
    void **getters = calloc(n, sizeof *getters);
    struct mag_http_client client;
    struct mag_http_client_options options = { .max_connections = n,
                                               .max_keepalive = n,
                                               .timeout = 30 * MAG_SECOND };
    int rc = getters ? mag_http_client_open(&client, &options) : -ENOMEM;

    if (rc == 0) {
        for (unsigned i = 0; i < n; i++)
            getters[i] = getter(&client);
        rc = mag_gather(NULL, 0, getters, n, NULL);
        mag_http_client_close(&client);
    }
    free(getters);
    return rc;
}

int main(int argc, char **argv)
{
    double seconds = atof(argument(argc, argv, 3, "1"));

    url = argument(argc, argv, 1, "http://127.0.0.1:8080/");
    begin = now_ns() + (int64_t)(seconds * 0.5e9);
    end = begin + (int64_t)(seconds * 1e9);
    checked(mag_run_with(all((unsigned)atoi(argument(argc, argv, 2, "1000"))), NULL,
                         &(struct mag_rt_options){
                             .workers = (unsigned)atoi(argument(argc, argv, 4, "1")) }),
            url);
    printf("{\"rate\":%.0f}\n", (double)n_requests / seconds);
    return 0;
}
