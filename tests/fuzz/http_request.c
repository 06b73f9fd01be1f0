/* SPDX-License-Identifier: MIT */
/*
 * http_request.c - fuzzing of the HTTP parser
 *
 * Three claims for any bytes:
 *
 *   1. nothing outside of them is read (each piece is a heap block of its own, under ASan);
 *   2. what is made of them does not depend on how they were cut;
 *   3. whatever is let pass, llhttp reads the same: as many messages, with as much body, and the
 *      same fields.
 *
 * With WRITE_SEEDS it is a program that writes the tables of http_bad.h into a directory.
 */
#include "http_bad.h"
#include "http_messages.h"

#include <llhttp.h>

#ifdef WRITE_SEEDS

static void write_seeds(const char *dir, const char *kind, const struct http_bad *b, int n)
{
    char path[1000];

    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s-%d", dir, kind, i);
        FILE *f = fopen(path, "w");
        if (f == NULL || fputc(i, f) < 0 || fwrite(b[i].bytes, 1, b[i].n, f) != b[i].n)
            abort();
        fclose(f);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    write_seeds(argv[1], "bad", http_bad, N_HTTP_BAD);
    write_seeds(argv[1], "good", http_good, N_HTTP_GOOD);
    return 0;
}

#else

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct messages whole, cut;

static void must(bool claim, const char *what)
{
    if (claim)
        return;
    fprintf(stderr, "%s\nwhole: \"%s\"\ncut:   \"%s\"\n", what, whole.text, cut.text);
    abort();
}

/* What llhttp reads. */
struct oracle {
    int n_messages;
    size_t n_body; /* of all */
    bool is_in_trailers;
    struct messages_fields fields;
};

static int on_name(llhttp_t *p, const char *at, size_t n)
{
    struct oracle *o = p->data;

    if (!(p->flags & F_TRAILING))
        messages_add_field(&o->fields, at, n, '=');
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct oracle *o = p->data;

    while (n > 0 && (at[n - 1] == ' ' || at[n - 1] == '\t'))
        n--;
    if (!(p->flags & F_TRAILING))
        messages_add_field(&o->fields, at, n, '|');
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    (void)at;
    ((struct oracle *)p->data)->n_body += n;
    return 0;
}

static int on_complete(llhttp_t *p)
{
    ((struct oracle *)p->data)->n_messages++;
    return 0;
}

static int ask(struct oracle *o, const char *bytes, size_t n)
{
    static const llhttp_settings_t settings = { .on_header_field = on_name,
                                                .on_header_value = on_value,
                                                .on_body = on_body,
                                                .on_message_complete = on_complete };
    const char *end = bytes + n;
    llhttp_t p;
    int rc;

    *o = (struct oracle){ 0 };
    llhttp_init(&p, HTTP_REQUEST, &settings);
    llhttp_set_lenient_keep_alive(&p, 1);
    p.data = o;
    while ((rc = llhttp_execute(&p, bytes, (size_t)(end - bytes))) == HPE_PAUSED_UPGRADE) {
        bytes = llhttp_get_error_pos(&p);
        llhttp_resume_after_upgrade(&p);
    }
    o->is_in_trailers = p.flags & F_TRAILING;
    return rc;
}

/* The same of the messages that are whole; what it says of the rest is its own business. */
static void compare_with_llhttp(const char *bytes)
{
    static struct oracle o;
    int rc;

    rc = ask(&o, bytes, whole.n_done);
    /* llhttp 8.1 does not know several extensions (";a=b;c"), which RFC 9112 allows, and lets a
     * trailer say what the next message would be: here trailers are dropped, whatever they say. */
    if ((rc == HPE_INVALID_CHUNK_SIZE && memchr(bytes, ';', whole.n_done)) ||
        (rc != HPE_OK && o.is_in_trailers))
        return;
    if (rc != HPE_OK)
        fprintf(stderr, "llhttp: %s\n", llhttp_errno_name(rc));
    must(rc == HPE_OK, "llhttp refuses what we let pass");
    must(o.n_messages == whole.n, "llhttp counts other messages");
    must(o.n_body == whole.n_body_done, "llhttp reads other bodies");
    must(o.fields.n == whole.n_fields_done &&
             memcmp(o.fields.text, whole.fields.text, o.fields.n) == 0,
         "llhttp reads other fields");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *bytes = (const char *)data + 1;
    size_t first;

    if (n-- < 1)
        return 0;
    first = n ? (size_t)*data * 131 % (n + 1) : 0;
    messages_of(&whole, bytes, n, n, 0);
    messages_of(&cut, bytes, n, first, 0);
    must(strcmp(whole.text, cut.text) == 0 && whole.status == cut.status, "a cut matters");
    messages_of(&cut, bytes, n, 1 + *data % 7, 1 + *data % 7);
    must(strcmp(whole.text, cut.text) == 0 && whole.status == cut.status, "pieces matter");
    compare_with_llhttp(bytes);
    return 0;
}

#endif
