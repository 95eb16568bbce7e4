#include <stdio.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/session.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static int print_json(const Hone__V1__ListResponse *list)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *jobs = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, jobs);
    for (size_t i = 0; i < list->n_jobs; i++) {
        const Hone__V1__JobView *job = list->jobs[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, jobs);
        yyjson_mut_obj_add_str(doc, o, "job", job->job_id);
        yyjson_mut_obj_add_str(doc, o, "state", job->state);
        yyjson_mut_obj_add_str(doc, o, "title", job->title);
        yyjson_mut_obj_add_sint(doc, o, "created_ms", job->created_ms);
        if (job->ended_ms)
            yyjson_mut_obj_add_sint(doc, o, "ended_ms", job->ended_ms);
        if (job->away_ms)
            yyjson_mut_obj_add_sint(doc, o, "away_ms", job->away_ms);
        if (*job->error)
            yyjson_mut_obj_add_str(doc, o, "error", job->error);
    }
    char *text =
        yyjson_mut_write(doc, YYJSON_WRITE_PRETTY | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    freep(&text);
    yyjson_mut_doc_free(doc);
    return code;
}

static void print_table(const Hone__V1__ListResponse *list)
{
    if (list->n_jobs == 0) {
        printf("No jobs yet. 'hone optimize MODEL --data DATA' starts one.\n");
        return;
    }
    printf("%-13s %-10s %-21s %-9s %s\n", "JOB", "STATE", "STARTED (UTC)", "TIME", "MODEL");
    for (size_t i = 0; i < list->n_jobs; i++) {
        const Hone__V1__JobView *job = list->jobs[i];
        char when[32], took[32];
        int64_t end = job->ended_ms ? job->ended_ms : clock_wall_ms();
        printf("%-13s %-10s %-21s %-9s %s\n", job->job_id, job->state,
               clock_iso8601(job->created_ms, when),
               str_seconds((double)(end - job->created_ms - job->away_ms) / 1000, took),
               job->title);
        if (*job->error)
            printf("              %s\n", job->error);
    }
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL;
    bool json = false;
    int64_t max = 20;
    const struct cli_option options[] = {
        {.name = "max",
         .value = "N",
         .kind = CLI_INT,
         .to = &max,
         .min = 1,
         .max = 1000,
         .help = "how many, newest first (default: 20)"},
        CLI_OPTION_JSON(&json),
        CLI_OPTION_HOME(&home_flag),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 0, 0, NULL);
    if (code >= 0)
        return code;
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    _cleanup_(rpc_message_freep) Hone__V1__ListResponse *list = NULL;
    Hone__V1__ListRequest request = HONE__V1__LIST_REQUEST__INIT;
    struct err err = {0};
    request.max = (uint32_t)max;
    if (session_open(home_flag, &session, &err) < 0 ||
        session_call(&session, "List", &request.base, 0, &list, &err) < 0)
        return cli_fail(&err);
    if (json)
        return print_json(list);
    print_table(list);
    return CLI_OK;
}

const struct cli_command cmd_jobs = {
    .name = "jobs",
    .usage = "[--json]",
    .summary = "list the jobs, newest first",
    .examples = "  hone jobs\n  hone jobs --json | jq '.[0].job'\n",
    .run = run,
};
