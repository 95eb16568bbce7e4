#pragma once
/* Inside of shared/rpc: addresses, the table of recent calls. */
#include <nng/nng.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

#define RPC_VERSION 1
#define CALL_ID_BYTES 16

/* An error for a failed NNG call; `what` names address and action. Returns the negative code. */
int nng_fail(struct err *err, int nng_error, const char *what);

/* ipc, tcp or inproc, and an ipc path that fits a socket address. */
int address_check(const char *address, struct err *err);
/* Before listening on an ipc address: takes the lock beside it (path + ".lock", held while *ret_fd
 * is open) and removes the socket of a dead process. ALREADY_EXISTS when a live one listens, or
 * when something that is no socket lies there. Other transports: *ret_fd stays -1. */
int address_claim(const char *address, int *ret_fd, struct err *err);

/* Replies to recent calls, by call id. Thread-safe. Bounded by `max_entries` and by `max_bytes` of
 * replies: the oldest are forgotten first. */
struct recent;
struct recent *recent_new(int max_entries, size_t max_bytes, int max_waiters);
struct recent *recent_free(struct recent *recent);

enum recent_state {
    RECENT_NEW,     /* not seen: recent_begin has noted it, and recent_end must follow */
    RECENT_REPEAT,  /* *ret_reply is a malloc'ed copy of the reply that was given */
    RECENT_MISUSED, /* the id belongs to a call with another method or payload */
    RECENT_DROP,    /* still being answered and no room to wait, or memory is out */
};
/* A repeat of a call that is being answered right now waits for it until deadline_ns. */
enum recent_state recent_begin(struct recent *recent, const uint8_t id[CALL_ID_BYTES],
                               uint64_t fingerprint, int64_t deadline_ns, void **ret_reply,
                               size_t *ret_bytes);
void recent_end(struct recent *recent, const uint8_t id[CALL_ID_BYTES], const void *reply,
                size_t bytes);
