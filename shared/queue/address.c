/* unix:/path/of/socket, redis://[[user]:password@]host[:port][/db] */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/queue/internal.h"

void address_release(struct address *a)
{
    free(a->shown);
    free(a->socket);
    free(a->host);
    free(a->user);
    free(a->password);
    *a = (struct address){0};
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* %41 is A: passwords may hold any character. */
static char *decode(const char *text, size_t n)
{
    char *out = malloc(n + 1);
    size_t to = 0;
    for (size_t i = 0; out && i < n; i++) {
        if (text[i] == '%' && i + 2 < n && hex_digit(text[i + 1]) >= 0 &&
            hex_digit(text[i + 2]) >= 0) {
            out[to++] = (char)(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        } else {
            out[to++] = text[i];
        }
    }
    if (out)
        out[to] = 0;
    return out;
}

/* "user:password", with either part empty. */
static int parse_login(const char *login, size_t n, struct address *a)
{
    const char *colon = memchr(login, ':', n);
    size_t user = colon ? (size_t)(colon - login) : n;
    a->user = decode(login, user);
    a->password = colon ? decode(colon + 1, n - user - 1) : strdup("");
    return a->user && a->password ? 0 : -1;
}

/* host[:port][/db]; an IPv6 address stands in brackets. */
static int parse_host(const char *text, struct address *a, struct err *err)
{
    int64_t port = 6379, db = 0;
    const char *host = text, *end;
    if (*text == '[') {
        host++;
        end = strchr(host, ']');
        text = end ? end + 1 : host;
    } else {
        end = host + strcspn(host, ":/");
        text = end;
    }
    if (!end || end == host || (*text && *text != ':' && *text != '/'))
        return err_set(err, ERR_INVALID_ARGUMENT, "no host is named");
    _cleanup_(freep) char *tail = strdup(text);
    a->host = strndup(host, (size_t)(end - host));
    if (!tail || !a->host)
        return err_oom(err, "an address");
    char *slash = strchr(tail, '/');
    if (slash)
        *slash++ = 0;
    if (*tail == ':' && str_parse_i64(tail + 1, 1, 65535, &port, err) < 0)
        return err_wrap(err, "port");
    if (slash && *slash && str_parse_i64(slash, 0, 1 << 20, &db, err) < 0)
        return err_wrap(err, "database");
    a->port = (int)port;
    a->db = (int)db;
    return 0;
}

static int parse(const char *url, struct address *a, struct err *err)
{
    if (str_starts_with(url, "unix:/")) {
        a->socket = strdup(url + strlen("unix:"));
        a->shown = strdup(url);
        return a->socket && a->shown ? 0 : err_oom(err, "an address");
    }
    if (!str_starts_with(url, "redis://"))
        return err_set(err, ERR_INVALID_ARGUMENT, "it is neither unix:/PATH nor redis://HOST:PORT");
    const char *rest = url + strlen("redis://");
    const char *at = strrchr(rest, '@');
    if (at && parse_login(rest, (size_t)(at - rest), a) < 0)
        return err_oom(err, "an address");
    int r = parse_host(at ? at + 1 : rest, a, err);
    if (r < 0)
        return r;
    a->shown = str_printf("redis://%s:%d/%d", a->host, a->port, a->db);
    return a->shown ? 0 : err_oom(err, "an address");
}

int address_parse(const char *url, struct address *ret, struct err *err)
{
    struct address a = {0};
    int r = parse(url, &a, err);
    if (r < 0) {
        address_release(&a);
        /* the URL itself may hold a password: it is not repeated */
        return err_wrap(err, "the address of Redis");
    }
    *ret = a;
    return 0;
}
