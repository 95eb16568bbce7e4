#pragma once
/*
 * A connection to a running Hone: this machine's (started when it is not up), or the one that
 * HONE_INGEST names (with HONE_TOKEN, and HONE_STORE for results).
 */
#include "hone/v1/ingest.pb-c.h"
#include "services/cli/home.h"
#include "shared/rpc/rpc.h"
#include "shared/store/store.h"

struct session {
    struct home home; /* of this machine's; zero for a remote one */
    bool remote;
    int attach_fd;
    char *store_url;
    struct rpc_client *client;
};
int session_open(const char *home_flag, struct session *ret, struct err *err);
void session_release(struct session *session); /* for _cleanup_ */

/* Calls; replies are freed with rpc_message_freep. Calls that change nothing twice are repeated
 * while ingest restarts, for up to ten seconds; when Hone went down for good the reason is in err.
 */
int session_call(struct session *session, const char *method, const ProtobufCMessage *request,
                 int64_t timeout_ms, void *ret_reply, struct err *err);
int session_get(struct session *session, const char *job, Hone__V1__JobView **ret, struct err *err);

/* A fresh job id: sortable by time, twelve characters of base 32. */
int session_new_job_id(char ret_id[16], struct err *err);
