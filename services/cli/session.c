#include "services/cli/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "services/cli/supervisor.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define IDLE_EXIT_S 20
#define CALL_MS 15000
#define RESTART_MS 10000
#define READY_MS 30000

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Why there is no supervisor any more, when it said so. */
static int went_down(const struct session *s, struct err *err)
{
    _cleanup_(freep) void *why = NULL;
    size_t bytes = 0;
    if (fs_read(s->home.failure, 1 << 16, &why, &bytes, NULL) == 0)
        return err_set(err, ERR_UNAVAILABLE, "Hone went down: %s", (char *)why);
    return err_set(err, ERR_UNAVAILABLE, "Hone went down (%s/logs says why); 'hone up' starts it",
                   s->home.dir);
}

static int ensure_up(const struct session *s, struct err *err)
{
    int64_t limit = clock_now_ns(NULL) + (int64_t)READY_MS * 1000000;
    /* One that has given up is of no use any more; the next one starts when it has ended. */
    while (home_supervisor(&s->home) && fs_exists(s->home.failure) && clock_now_ns(NULL) < limit)
        clock_sleep_ms(50);
    if (home_supervisor(&s->home))
        return 0;
    int r = supervisor_launch(&s->home, IDLE_EXIT_S, err);
    if (r < 0 && home_supervisor(&s->home))
        return 0; /* another client was faster */
    return r;
}

/* Waits until ingest answers. */
static int wait_ready(struct session *s, struct err *err)
{
    Hone__V1__HealthRequest request = HONE__V1__HEALTH_REQUEST__INIT;
    int64_t limit = clock_now_ns(NULL) + (int64_t)READY_MS * 1000000;
    for (;;) {
        _cleanup_(rpc_message_freep) ProtobufCMessage *reply = NULL;
        int r = rpc_call(s->client, "Health", &request.base, 2000, &reply, err);
        if (r == 0 || (r != -ERR_UNAVAILABLE && r != -ERR_DEADLINE_EXCEEDED))
            return r;
        if (!s->remote && home_supervisor(&s->home) == 0)
            return went_down(s, err);
        if (s->remote || clock_now_ns(NULL) > limit)
            return r;
    }
}

static int open_local(struct session *s, const char *home_flag, struct err *err)
{
    int r = home_open(home_flag, &s->home, err);
    if (r == 0)
        r = home_attach(&s->home, &s->attach_fd, err);
    if (r == 0)
        r = ensure_up(s, err);
    if (r < 0)
        return r;
    s->store_url = strdup(s->home.store_url);
    return rpc_client_open(s->home.ingest_address, &hone__v1__ingest__descriptor, NULL, &s->client,
                           err);
}

int session_open(const char *home_flag, struct session *ret, struct err *err)
{
    _cleanup_(session_release) struct session s = {.attach_fd = -1};
    const char *address = home_flag ? NULL : setting("HONE_INGEST");
    s.remote = address != NULL;
    int r;
    if (s.remote) {
        s.store_url = setting("HONE_STORE") ? strdup(setting("HONE_STORE")) : NULL;
        r = rpc_client_open(address, &hone__v1__ingest__descriptor, setting("HONE_TOKEN"),
                            &s.client, err);
    } else {
        r = open_local(&s, home_flag, err);
    }
    if (r == 0)
        r = wait_ready(&s, err);
    if (r < 0)
        return r;
    *ret = s;
    s = (struct session){.attach_fd = -1};
    return 0;
}

void session_release(struct session *s)
{
    rpc_client_closep(&s->client);
    fs_closep(&s->attach_fd);
    free(s->store_url);
    home_release(&s->home);
    *s = (struct session){.attach_fd = -1};
}

int session_call(struct session *s, const char *method, const ProtobufCMessage *request,
                 int64_t timeout_ms, void *ret_reply, struct err *err)
{
    int64_t limit = clock_now_ns(NULL) + (int64_t)RESTART_MS * 1000000;
    for (;;) {
        int r = rpc_call(s->client, method, request, timeout_ms ? timeout_ms : CALL_MS,
                         (ProtobufCMessage **)ret_reply, err);
        if (r != -ERR_UNAVAILABLE)
            return r;
        /* it says why it gives up before it ends what still runs, which may take a while */
        if (!s->remote && (home_supervisor(&s->home) == 0 || fs_exists(s->home.failure)))
            return went_down(s, err);
        if (clock_now_ns(NULL) > limit)
            return r;
        clock_sleep_ms(200);
    }
}

int session_get(struct session *s, const char *job, Hone__V1__JobView **ret, struct err *err)
{
    Hone__V1__GetRequest request = HONE__V1__GET_REQUEST__INIT;
    request.job_id = (char *)job;
    return session_call(s, "Get", &request.base, 0, ret, err);
}

int session_new_job_id(char ret_id[16], struct err *err)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint64_t time = (uint64_t)clock_wall_ms();
    uint16_t chance = 0;
    if (getrandom(&chance, sizeof(chance), 0) != (ssize_t)sizeof(chance))
        return err_set(err, ERR_INTERNAL, "%s", "no random numbers from the system");
    for (int i = 8; i >= 0; i--, time >>= 5)
        ret_id[i] = digits[time & 31];
    for (int i = 9; i < 12; i++, chance = (uint16_t)(chance >> 5))
        ret_id[i] = digits[chance & 31];
    ret_id[12] = 0;
    return 0;
}
