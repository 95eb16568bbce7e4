#pragma once
/*
 * Errors. A fallible function returns 0, or a negative status code, and then describes the failure
 * in the caller's `struct err`: no allocation, untouched on success. Codes are gRPC's, so that an
 * error keeps its meaning across an RPC. Messages are for the person who must fix it and name the
 * place: file, node, field, byte.
 *
 *     struct err err = {0};
 *     if (thing_open(&thing, path, &err) < 0)
 *         return err_wrap(&err, "model %s", name);
 *
 * `err` may be NULL where the caller wants the code only.
 */

enum err_code {
    ERR_OK = 0,
    ERR_CANCELLED = 1,
    ERR_UNKNOWN = 2,
    ERR_INVALID_ARGUMENT = 3,
    ERR_DEADLINE_EXCEEDED = 4,
    ERR_NOT_FOUND = 5,
    ERR_ALREADY_EXISTS = 6,
    ERR_PERMISSION_DENIED = 7,
    ERR_RESOURCE_EXHAUSTED = 8,
    ERR_FAILED_PRECONDITION = 9,
    ERR_ABORTED = 10,
    ERR_OUT_OF_RANGE = 11,
    ERR_UNIMPLEMENTED = 12,
    ERR_INTERNAL = 13,
    ERR_UNAVAILABLE = 14,
    ERR_DATA_LOSS = 15,
    ERR_UNAUTHENTICATED = 16,
};

#define ERR_MESSAGE_MAX 1024

struct err {
    enum err_code code;
    char message[ERR_MESSAGE_MAX];
};

/* Sets code and message; returns -code. Longer messages are cut. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set with ": " and the text of errno `errnum` added. The code follows from errnum
 * (ENOENT: NOT_FOUND, ENOSPC and ENOMEM: RESOURCE_EXHAUSTED, EACCES: PERMISSION_DENIED, ...). */
int err_errno(struct err *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "place: " before the message; returns -code. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory, for `what`. Returns -ERR_RESOURCE_EXHAUSTED. */
int err_oom(struct err *err, const char *what);

/* "INVALID_ARGUMENT" and so on; "UNKNOWN" for what is no code. */
const char *err_code_name(int code);
