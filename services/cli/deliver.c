#include "services/cli/deliver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/results.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static int fetch_files(struct session *session, const Hone__V1__JobView *view, struct outdir *out,
                       struct err *err)
{
    _cleanup_(store_closep) struct store *store = NULL;
    if (!session->store_url)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s",
                       "HONE_STORE must name the store that the results are in");
    int r = store_open(session->store_url, &store, err);
    if (r == 0)
        r = outdir_fill(out, store, view->result, err);
    return r == 0 ? outdir_note(out, view->job_id, err) : r;
}

static void print_files(const Hone__V1__JobView *view, const struct outdir *out)
{
    char size[32];
    printf("\nfiles in %s:\n", out->path);
    for (size_t i = 0; i < view->result->n_files; i++)
        printf("  %-32s %s\n", view->result->files[i]->name,
               str_bytes((double)view->result->files[i]->bytes, size));
}

/* {"type":"result","job":...,"final":...,"out":...,"files":[...],"result":{result.json}} */
static int print_json(const Hone__V1__JobView *view, const struct outdir *out,
                      const struct results *results)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    _cleanup_(freep) char *result = results ? results_line(results) : NULL;
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "type", "result");
    yyjson_mut_obj_add_str(doc, root, "job", view->job_id);
    yyjson_mut_obj_add_bool(doc, root, "final", strcmp(view->state, "succeeded") == 0);
    yyjson_mut_obj_add_str(doc, root, "state", view->state);
    yyjson_mut_obj_add_str(doc, root, "verdict", view->result->verdict);
    yyjson_mut_obj_add_str(doc, root, "out", out->path);
    yyjson_mut_val *files = yyjson_mut_obj_add_arr(doc, root, "files");
    for (size_t i = 0; i < view->result->n_files; i++)
        yyjson_mut_arr_add_str(doc, files, view->result->files[i]->name);
    if (result)
        yyjson_mut_obj_add_val(doc, root, "result", yyjson_mut_raw(doc, result));
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(doc);
    return code;
}

static int print_result(const Hone__V1__JobView *view, const struct outdir *out, bool json)
{
    _cleanup_(results_freep) struct results *results = NULL;
    _cleanup_(freep) char *path = str_printf("%s/result.json", out->path);
    struct err err = {0};
    if (!path || (fs_exists(path) && results_read(path, &results, &err) < 0))
        return cli_fail(&err);
    if (json && print_json(view, out, results) != CLI_OK)
        return CLI_FAILED;
    if (!json) {
        printf("\n");
        if (results)
            results_print(results, stdout);
        else
            printf("%s\n", view->result->verdict);
        print_files(view, out);
    }
    return results && !results_has_gain(results) ? CLI_NO_GAIN : CLI_OK;
}

static int refuse(const Hone__V1__JobView *view)
{
    struct err err = {0};
    const char *job = view->job_id;
    if (strcmp(view->state, "running") == 0)
        err_set(&err, ERR_FAILED_PRECONDITION,
                "job %s is still running and has no result yet; 'hone watch %s' shows it", job,
                job);
    else if (strcmp(view->state, "failed") == 0)
        err_set(&err, ERR_ABORTED, "job %s failed: %s", job, view->error);
    else
        err_set(&err, ERR_ABORTED, "job %s was %s before it had a result", job, view->state);
    return cli_fail(&err);
}

/* That it is not the end, for people. */
static void say_so_far(const Hone__V1__JobView *view)
{
    const char *job = view->job_id;
    if (strcmp(view->state, "running") == 0)
        fprintf(stderr, "\nhone: this is the best so far: job %s is still running\n", job);
    else if (strcmp(view->state, "failed") == 0)
        fprintf(stderr, "\nhone: this is the best that job %s reached; it failed: %s\n", job,
                view->error);
    else
        fprintf(stderr, "\nhone: this is the best that job %s reached; it was %s\n", job,
                view->state);
}

int deliver(struct session *session, const char *job, struct outdir *out, bool json)
{
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    struct err err = {0};
    if (session_get(session, job, &view, &err) < 0)
        return cli_fail(&err);
    const bool succeeded = strcmp(view->state, "succeeded") == 0;
    const bool failed = strcmp(view->state, "failed") == 0;
    if (!view->result)
        return refuse(view);
    if (fetch_files(session, view, out, &err) < 0)
        return cli_fail(&err);
    int code = print_result(view, out, json);
    if (!succeeded)
        say_so_far(view);
    return failed ? CLI_FAILED : code;
}
