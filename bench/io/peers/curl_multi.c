/* SPDX-License-Identifier: MIT */
/*
 * curl_multi.c - so many GETs at a time, of one URL, by one libcurl multi handle: one thread
 *
 *      curl_multi URL CONCURRENT SECONDS
 */
#include "../io.h"

#include <curl/curl.h>

static size_t dropped(char *p, size_t size, size_t n, void *arg)
{
    (void)p, (void)arg;
    return size * n;
}

int main(int argc, char **argv)
{
    const char *url = argument(argc, argv, 1, "http://127.0.0.1:8080/");
    int n = atoi(argument(argc, argv, 2, "1000")), running, left;
    double seconds = atof(argument(argc, argv, 3, "1"));
    int64_t begin = now_ns() + (int64_t)(seconds * 0.5e9), end = begin + (int64_t)(seconds * 1e9);
    uint64_t n_requests = 0;

    curl_global_init(CURL_GLOBAL_ALL);
    CURLM *multi = curl_multi_init();
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)n);
    for (int i = 0; i < n; i++) {
        CURL *easy = curl_easy_init();
        curl_easy_setopt(easy, CURLOPT_URL, url);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, dropped);
        curl_multi_add_handle(multi, easy);
    }
    for (int64_t now = now_ns(); now < end; now = now_ns()) {
        CURLMsg *m;
        curl_multi_perform(multi, &running);
        while ((m = curl_multi_info_read(multi, &left)) != NULL) {
            CURL *easy = m->easy_handle;
            long status = 0;
            curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
            if (m->data.result != CURLE_OK || status != 200) {
                fprintf(stderr, "%s, %ld\n", curl_easy_strerror(m->data.result), status);
                return 1;
            }
            n_requests += now >= begin;
            curl_multi_remove_handle(multi, easy);
            curl_multi_add_handle(multi, easy);
        }
        curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    printf("{\"rate\":%.0f}\n", (double)n_requests / seconds);
    return 0;
}
