#include "shared/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err) {
        char text[ERR_MESSAGE_MAX];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        err->code = code;
        memcpy(err->message, text, sizeof(text));
    }
    return -(int)code;
}

static enum err_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EFBIG:
        return ERR_RESOURCE_EXHAUSTED;
    case EINVAL:
    case EISDIR:
    case ENAMETOOLONG:
        return ERR_INVALID_ARGUMENT;
    case EAGAIN:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return ERR_UNAVAILABLE;
    case ETIMEDOUT:
        return ERR_DEADLINE_EXCEEDED;
    default:
        return ERR_INTERNAL;
    }
}

int err_errno(struct err *err, int errnum, const char *fmt, ...)
{
    enum err_code code = code_of_errno(errnum);
    char text[ERR_MESSAGE_MAX], reason[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, code, "%s: %s", text, strerror_r(errnum, reason, sizeof(reason)));
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (!err)
        return -ERR_UNKNOWN;
    char place[ERR_MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(place, sizeof(place), fmt, ap);
    va_end(ap);
    char text[ERR_MESSAGE_MAX];
    memcpy(text, err->message, sizeof(text));
    enum err_code code = err->code ? err->code : ERR_UNKNOWN;
    return err_set(err, code, "%s: %s", place, text);
}

int err_oom(struct err *err, const char *what)
{
    return err_set(err, ERR_RESOURCE_EXHAUSTED, "out of memory for %s", what);
}

const char *err_code_name(int code)
{
    static const char *const names[] = {
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    };
    if (code < 0)
        code = -code;
    return code < (int)(sizeof(names) / sizeof(names[0])) ? names[code] : "UNKNOWN";
}
