#include "services/cli/submit.h"

#include <stdio.h>

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

void submit_ask(const struct submit_options *options, Hone__V1__JobSpec *spec)
{
    spec->version = 1;
    spec->budget_s = (double)options->budget_s;
    spec->space = (char *)(options->space ? options->space : "");
    spec->confidence = options->confidence / 100;
    spec->max_us = options->max_us;
    spec->max_bytes = options->max_bytes;
    spec->has_max_drop = options->max_drop >= 0;
    spec->max_drop = spec->has_max_drop ? options->max_drop : 0;
}

int submit_and_deliver(struct session *session, Hone__V1__JobSpec *spec, const char *what,
                       const struct submit_options *options, struct outdir *out)
{
    struct screen screen;
    char job[16] = "", state[16] = "";
    struct err err = {0};
    screen_init(&screen, stdout, options->json);
    if (submit(session, spec, job, &err) < 0)
        return cli_fail(&err);
    say_submitted(what, options->json, job);
    int r = outdir_note(out, job, &err);
    if (r == 0)
        r = follow_job(session, job, &screen, state, &err);
    if (r == -ERR_CANCELLED)
        return follow_say_interrupted(session, options->home, job);
    return r < 0 ? cli_fail(&err) : deliver(session, job, out, options->json);
}
