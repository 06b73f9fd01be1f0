/* SPDX-License-Identifier: MIT */
/*
 * http_client_setup.c - a request, as options of an easy handle
 *
 * Handles are used again: most requests are GETs with nothing of their own, and for these only the
 * URL is set anew.  Any other request begins with a reset.
 *
 * What is checked here and not by libcurl: that no field, method or content type contains a line
 * break, so that no value can become a field of its own.
 *
 * Methods.  libcurl knows by itself what becomes of GET, HEAD, POST and PUT when they are
 * redirected (a 303 is fetched by GET); other methods keep their name.
 */
#include "http_client_parts.h"

#include "mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- fields --------------------------------------------------------------------------- */

static int bad(struct mag_transfer *t, const char *what, const char *text)
{
    return mag_http_fail(&t->error, MAG_HTTP_BAD_REQUEST, -EINVAL, "%s is not well formed: '%s'",
                         what, text);
}

static int no_memory(struct mag_transfer *t)
{
    return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for the request");
}

/* No control characters, tab apart. */
static bool is_clean(const char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < ' ' && *text != '\t') || *text == 127)
            return false;
    return true;
}

static bool is_token(const char *text)
{
    static const char *const others = "!#$%&'*+-.^_`|~";
    const char *c = text;

    for (; *c; c++)
        if (!((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
              strchr(others, *c)))
            return false;
    return c != text;
}

static bool has(const struct mag_http_field *fields, const char *name)
{
    for (; fields && fields->name; fields++)
        if (strcasecmp(fields->name, name) == 0)
            return true;
    return false;
}

/* "Name: value"; "Name;" for an empty one; "Name:" has libcurl leave its own out. */
static int add_header(struct mag_transfer *t, const char *name, const char *value)
{
    struct curl_slist *list;
    size_t n = strlen(name) + (value ? strlen(value) : 0) + 3;
    char *line;

    if (!is_token(name) || (value && !is_clean(value)))
        return bad(t, "a header field", name);
    line = mag_mem_alloc(n);
    if (line == NULL)
        return no_memory(t);
    if (value == NULL)
        snprintf(line, n, "%s:", name);
    else if (*value == '\0')
        snprintf(line, n, "%s;", name);
    else
        snprintf(line, n, "%s: %s", name, value);
    list = curl_slist_append(t->easy->headers, line);
    mag_mem_free(line);
    if (list == NULL)
        return no_memory(t);
    t->easy->headers = list;
    return 0;
}

/* Those of the list that are not in `instead', which come later. */
static int add_headers(struct mag_transfer *t, const struct mag_http_field *fields,
                       const struct mag_http_field *instead)
{
    int rc = 0;

    for (; fields && fields->name && rc == 0; fields++)
        if (!has(instead, fields->name))
            rc = add_header(t, fields->name, fields->value);
    return rc;
}

static int set_headers(struct mag_transfer *t)
{
    const struct mag_http_field *own = t->request.headers, *all = t->pool->o.headers;
    const char *type = t->request.content_type;
    int rc = add_headers(t, all, own);

    if (rc == 0)
        rc = add_headers(t, own, NULL);
    if (rc == 0 && t->has_body && !has(own, "Expect") && !has(all, "Expect"))
        rc = add_header(t, "Expect", NULL);
    if (rc == 0 && t->has_body && t->request.parts == NULL && !has(own, "Content-Type"))
        rc = add_header(t, "Content-Type",
                        type              ? type
                        : t->request.form ? "application/x-www-form-urlencoded"
                                          : NULL);
    if (rc == 0 && t->request.body_read && t->request.body_length == 0)
        rc = add_header(t, "Transfer-Encoding", "chunked");
    if (rc == 0 &&
        curl_easy_setopt(t->easy->curl, CURLOPT_HTTPHEADER, t->easy->headers) != CURLE_OK)
        rc = no_memory(t);
    return rc;
}

/* ---- the URL -------------------------------------------------------------------------- */

static int fail_url(struct mag_transfer *t, CURLUcode code)
{
    if (code == CURLUE_OUT_OF_MEMORY)
        return no_memory(t);
    if (code == CURLUE_UNSUPPORTED_SCHEME)
        return mag_http_fail(&t->error, MAG_HTTP_UNSUPPORTED_SCHEME, -EPROTONOSUPPORT,
                             "neither http: nor https: '%s'", t->request.url);
    return mag_http_fail(&t->error, MAG_HTTP_BAD_REQUEST, -EINVAL, "%s: '%s'",
                         curl_url_strerror(code), t->request.url);
}

/* "name=value", which is encoded; in CURLU's hands '=' stays. */
static CURLUcode add_query(CURLU *url, const struct mag_http_field *field)
{
    const char *value = field->value ? field->value : "";
    size_t n = strlen(field->name) + strlen(value) + 2;
    char *text = mag_mem_alloc(n);
    CURLUcode code;

    if (text == NULL)
        return CURLUE_OUT_OF_MEMORY;
    snprintf(text, n, "%s=%s", field->name, value);
    code = curl_url_set(url, CURLUPART_QUERY, text, CURLU_APPENDQUERY | CURLU_URLENCODE);
    mag_mem_free(text);
    return code;
}

static int set_url(struct mag_transfer *t)
{
    const char *base = t->pool->o.base_url;
    CURLU *url = curl_url();
    CURLUcode code = CURLUE_OK;

    if (url == NULL)
        return no_memory(t);
    t->easy->url = url;
    if (base)
        code = curl_url_set(url, CURLUPART_URL, base, 0);
    if (code == CURLUE_OK)
        code = curl_url_set(url, CURLUPART_URL, t->request.url, 0);
    for (const struct mag_http_field *f = t->request.query; f && f->name && code == CURLUE_OK; f++)
        code = add_query(url, f);
    if (code != CURLUE_OK)
        return fail_url(t, code);
    return curl_easy_setopt(t->easy->curl, CURLOPT_CURLU, url) == CURLE_OK ? 0 : no_memory(t);
}

/* ---- the body ------------------------------------------------------------------------- */

static bool is_unreserved(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("-._~", c));
}

static char *encode(char *to, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (is_unreserved(*text)) {
            *to++ = *text;
        } else if (c == ' ') {
            *to++ = '+';
        } else {
            *to++ = '%';
            *to++ = digits[c >> 4];
            *to++ = digits[c & 15];
        }
    }
    return to;
}

/* The form becomes the body. */
static int set_form(struct mag_transfer *t)
{
    const struct mag_http_field *f;
    size_t n = 1;
    char *at;

    for (f = t->request.form; f->name; f++)
        n += 3 * (strlen(f->name) + strlen(f->value ? f->value : "")) + 2;
    at = t->easy->form = mag_mem_alloc(n);
    if (at == NULL)
        return no_memory(t);
    for (f = t->request.form; f->name; f++) {
        if (f != t->request.form)
            *at++ = '&';
        at = encode(at, f->name);
        *at++ = '=';
        at = encode(at, f->value ? f->value : "");
    }
    *at = '\0';
    t->request.body = t->easy->form;
    t->request.body_len = (size_t)(at - t->easy->form);
    return 0;
}

static CURLcode add_part(curl_mime *mime, const struct mag_http_part *p)
{
    curl_mimepart *part = curl_mime_addpart(mime);
    CURLcode code = part ? curl_mime_name(part, p->name) : CURLE_OUT_OF_MEMORY;

    if (code == CURLE_OK)
        code = curl_mime_data(part, p->data ? p->data : "",
                              p->len    ? p->len
                              : p->data ? CURL_ZERO_TERMINATED
                                        : 0);
    if (code == CURLE_OK && p->file_name)
        code = curl_mime_filename(part, p->file_name);
    if (code == CURLE_OK && p->type)
        code = curl_mime_type(part, p->type);
    return code;
}

static int set_parts(struct mag_transfer *t)
{
    struct mag_http_easy *e = t->easy;
    CURLcode code = CURLE_OK;

    e->mime = curl_mime_init(e->curl);
    if (e->mime == NULL)
        return no_memory(t);
    for (const struct mag_http_part *p = t->request.parts; p->name && code == CURLE_OK; p++) {
        if (p->type && !is_clean(p->type))
            return bad(t, "a part's type", p->name);
        code = add_part(e->mime, p);
    }
    return code == CURLE_OK && curl_easy_setopt(e->curl, CURLOPT_MIMEPOST, e->mime) == CURLE_OK
               ? 0
               : no_memory(t);
}

static void set_callbacks_of_body(struct mag_transfer *t)
{
    CURL *curl = t->easy->curl;

    curl_easy_setopt(curl, CURLOPT_READFUNCTION, mag_transfer_on_upload);
    curl_easy_setopt(curl, CURLOPT_READDATA, t->easy);
    curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, mag_transfer_on_seek);
    curl_easy_setopt(curl, CURLOPT_SEEKDATA, t->easy);
}

static void set_progress(struct mag_transfer *t)
{
    CURL *curl = t->easy->curl;

    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, mag_transfer_on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t->easy);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
}

static void set_put(struct mag_transfer *t, curl_off_t size)
{
    curl_easy_setopt(t->easy->curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(t->easy->curl, CURLOPT_INFILESIZE_LARGE, size);
    set_callbacks_of_body(t);
}

static void set_post(struct mag_transfer *t, curl_off_t size)
{
    CURL *curl = t->easy->curl;

    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, size);
    if (t->request.body_read)
        set_callbacks_of_body(t);
    else
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, t->request.body ? t->request.body : "");
}

static int set_method(struct mag_transfer *t)
{
    const struct mag_http_request *r = &t->request;
    const char *method = r->method ? r->method : t->has_body ? "POST" : "GET";
    bool is_get = strcmp(method, "GET") == 0, is_head = strcmp(method, "HEAD") == 0;
    bool is_post = strcmp(method, "POST") == 0, is_put = strcmp(method, "PUT") == 0;
    curl_off_t size;
    int rc = 0;

    if (!is_token(method))
        return bad(t, "the method", method);
    if (r->form && (rc = set_form(t)) < 0)
        return rc;
    size =
        r->body_read ? (r->body_length ? (curl_off_t)r->body_length : -1) : (curl_off_t)r->body_len;
    if (r->parts)
        rc = set_parts(t);
    else if (is_put)
        set_put(t, size);
    else if (t->has_body || is_post)
        set_post(t, size);
    else if (is_head)
        curl_easy_setopt(t->easy->curl, CURLOPT_NOBODY, 1L);
    if (rc == 0 && !(is_get && !t->has_body) && !is_head && !is_post && !is_put &&
        curl_easy_setopt(t->easy->curl, CURLOPT_CUSTOMREQUEST, method) != CURLE_OK)
        rc = no_memory(t);
    if (rc == 0 && is_head && t->has_body)
        rc = bad(t, "HEAD with a body", method);
    if (rc == 0 && t->has_body)
        set_progress(t);
    return rc;
}

/* ---- the rest ------------------------------------------------------------------------- */

static long in_ms(mag_time t)
{
    const mag_time most = 20 * 24 * 60 * MAG_MINUTE; /* what libcurl's timers can hold */

    return (long)(((t < most ? t : most) + MAG_MS - 1) / MAG_MS);
}

static long in_seconds(mag_time t)
{
    return in_ms(t) < 1000 ? 1 : in_ms(t) / 1000;
}

static CURLcode set_auth(CURL *curl, const struct mag_http_auth *a)
{
    CURLcode code = CURLE_OK;

    if (a->kind == MAG_HTTP_NO_AUTH)
        return code;
    curl_easy_setopt(curl, CURLOPT_HTTPAUTH,
                     (long)(a->kind == MAG_HTTP_BASIC    ? CURLAUTH_BASIC
                            : a->kind == MAG_HTTP_DIGEST ? CURLAUTH_DIGEST
                                                         : CURLAUTH_BEARER));
    if (a->kind == MAG_HTTP_BEARER)
        return curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, a->password ? a->password : "");
    code = curl_easy_setopt(curl, CURLOPT_USERNAME, a->user ? a->user : "");
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_PASSWORD, a->password ? a->password : "");
    return code;
}

static void set_protocols(CURL *curl)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static void set_http_version(CURL *curl, const struct mag_http_client_options *o)
{
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
                     (long)(o->http2_prior_knowledge ? CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                            : o->http2               ? CURL_HTTP_VERSION_2TLS
                                                     : CURL_HTTP_VERSION_1_1));
    if (o->http2 || o->http2_prior_knowledge)
        curl_easy_setopt(curl, CURLOPT_PIPEWAIT, 1L);
}

/* Texts that libcurl copies; the first that fails. */
static CURLcode set_texts(CURL *curl, const struct mag_http_client_options *o)
{
    const struct {
        CURLoption option;
        const char *text;
    } texts[] = {
        { CURLOPT_USERAGENT, o->user_agent },
        { CURLOPT_CAINFO, o->ca_file },
        { CURLOPT_SSLCERT, o->cert_file },
        { CURLOPT_SSLKEY, o->key_file },
        { CURLOPT_COOKIEFILE, o->no_cookies ? NULL : "" }, /* wakes what is shared */
        { CURLOPT_PROXY, o->proxy },
        { CURLOPT_ACCEPT_ENCODING, o->no_decoding ? NULL : "" },
    };
    CURLcode code = CURLE_OK;

    for (size_t i = 0; i < MAG_ARRAY_SIZE(texts) && code == CURLE_OK; i++)
        if (texts[i].text)
            code = curl_easy_setopt(curl, texts[i].option, texts[i].text);
    return code;
}

/* libcurl's reset forgets to free the list of cookie files; clearing that gives the shared cookies up,
 * too, which is why they are set again. */
static void reset(struct mag_http_easy *e)
{
    curl_easy_setopt(e->curl, CURLOPT_COOKIEFILE, NULL);
    curl_easy_reset(e->curl);
}

/* What is the client's. */
static CURLcode set_common(struct mag_http_easy *e, const struct mag_http_pool *pool)
{
    const struct mag_http_client_options *o = &pool->o;
    CURL *curl = e->curl;

    reset(e);
    curl_easy_setopt(curl, CURLOPT_SHARE, pool->share);
    curl_easy_setopt(curl, CURLOPT_PRIVATE, e);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, e->error);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, mag_transfer_on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, mag_transfer_on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, mag_transfer_on_connected);
    curl_easy_setopt(curl, CURLOPT_PREREQDATA, e);
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)o->max_redirects);
    curl_easy_setopt(curl, CURLOPT_MAXAGE_CONN, in_seconds(o->keepalive_expiry));
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, o->insecure ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, o->insecure ? 0L : 2L);
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else to end a request that is looking a name up would block until that is over. */
    curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
#endif
    set_protocols(curl);
    set_http_version(curl, o);
    return set_texts(curl, o);
}

static void set_own(struct mag_http_easy *e, const struct mag_transfer *t)
{
    curl_easy_setopt(e->curl, CURLOPT_FOLLOWLOCATION, t->is_following ? 1L : 0L);
    curl_easy_setopt(e->curl, CURLOPT_CONNECTTIMEOUT_MS, in_ms(t->times.connect));
}

static bool is_plain(const struct mag_transfer *t)
{
    const struct mag_http_request *r = &t->request;

    return r->method == NULL && !t->has_body && r->query == NULL && r->headers == NULL &&
           r->auth.kind == MAG_HTTP_NO_AUTH && t->pool->o.base_url == NULL &&
           t->pool->o.headers == NULL && t->pool->o.auth.kind == MAG_HTTP_NO_AUTH &&
           r->connect_timeout == 0 && r->follow_redirects == 0;
}

static int setup_plain(struct mag_http_easy *e, struct mag_transfer *t)
{
    if (!e->is_plain) {
        if (set_common(e, t->pool) != CURLE_OK)
            return no_memory(t);
        set_own(e, t);
        e->is_plain = true;
    }
    return curl_easy_setopt(e->curl, CURLOPT_URL, t->request.url) == CURLE_OK ? 0 : no_memory(t);
}

int mag_http_easy_setup(struct mag_http_easy *e, struct mag_transfer *t)
{
    const struct mag_http_auth *auth = t->request.auth.kind ? &t->request.auth : &t->pool->o.auth;
    int rc;

    e->error[0] = '\0';
    if (is_plain(t))
        return setup_plain(e, t);
    e->is_plain = false;
    if (set_common(e, t->pool) != CURLE_OK || set_auth(e->curl, auth) != CURLE_OK)
        return no_memory(t);
    set_own(e, t);
    rc = set_url(t);
    if (rc == 0)
        rc = set_method(t);
    return rc == 0 ? set_headers(t) : rc;
}

void mag_http_easy_clear(struct mag_http_easy *e)
{
    e->transfer = NULL;
    if (e->is_plain)
        return;
    reset(e); /* nothing in it refers to what goes now */
    curl_slist_free_all(e->headers);
    curl_mime_free(e->mime);
    if (e->url)
        curl_url_cleanup(e->url);
    mag_mem_free(e->form);
    e->headers = NULL;
    e->mime = NULL;
    e->url = NULL;
    e->form = NULL;
}

struct mag_http_easy *mag_http_easy_new(void)
{
    struct mag_http_easy *e = mag_mem_zalloc(sizeof *e);

    if (e == NULL)
        return NULL;
    e->curl = curl_easy_init();
    if (e->curl)
        return e;
    mag_mem_free(e);
    return NULL;
}

void mag_http_easy_free(struct mag_http_easy *e)
{
    mag_http_easy_clear(e);
    curl_easy_cleanup(e->curl);
    mag_mem_free(e);
}
