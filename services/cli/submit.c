#include "services/cli/submit.h"

#include <stdio.h>

#include "services/cli/cli.h"
#include "services/cli/deliver.h"
#include "services/cli/follow.h"
#include "shared/base/mem.h"

static int submit(struct session *session, Hone__V1__JobSpec *spec, char job[16], struct err *err)
{
    Hone__V1__SubmitRequest request = HONE__V1__SUBMIT_REQUEST__INIT;
    int r = session_new_job_id(job, err);
    if (r < 0)
        return r;
    request.spec = spec;
    request.job_id = job;
    _cleanup_(rpc_message_freep) Hone__V1__SubmitResponse *reply = NULL;
    return session_call(session, "Submit", &request.base, 0, &reply, err);
}

static void say_submitted(const char *what, bool json, const char *job)
{
    if (json)
        printf("{\"type\":\"submitted\",\"job\":\"%s\"}\n", job);
    else
        printf("Job %s: %s\n", job, what);
    fflush(stdout);
}

int submit_and_deliver(struct session *session, Hone__V1__JobSpec *spec, const char *what,
                       const char *home_flag, struct outdir *out, bool json)
{
    struct screen screen;
    char job[16] = "", state[16] = "";
    struct err err = {0};
    screen_init(&screen, stdout, json);
    if (submit(session, spec, job, &err) < 0)
        return cli_fail(&err);
    say_submitted(what, json, job);
    int r = outdir_note(out, job, &err);
    if (r == 0)
        r = follow_job(session, job, &screen, state, &err);
    if (r == -ERR_CANCELLED)
        return follow_say_interrupted(session, home_flag, job);
    return r < 0 ? cli_fail(&err) : deliver(session, job, out, json);
}
