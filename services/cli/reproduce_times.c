/* Times are measured again, all in turns, and judged by their ratio to the original's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/reproduce.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/nn/runner.h"

#define TOLERANCE 0.25 /* of a ratio: machines are never quite as quiet twice */

static const char *const engines[] = {"hone", "onnxruntime"};

/* A network in an engine, with what was reported. */
struct turn {
    const struct reproduced *network;
    const char *engine;
    yyjson_val *reported;
    struct runner *runner;
    struct bench_result times;
};
struct turns {
    struct turn *list;
    struct bench_item *items;
    struct bench_result *results;
    int n;
};

static void turns_release(struct turns *t)
{
    for (int i = 0; i < t->n; i++)
        runner_free(t->list[i].runner);
    free(t->list);
    free(t->items);
    free(t->results);
}

static struct runner_options options_of(const struct reproduce *r)
{
    yyjson_val *settings = yyjson_obj_get(r->manifest.root, "settings");
    const double batch = manifest_number(settings, "batch");
    const double threads = manifest_number(settings, "threads");
    return (struct runner_options){.batch = batch >= 1 ? (int64_t)batch : 1,
                                   .threads = threads >= 1 ? (int)threads : 1};
}

static int add_turn(struct reproduce *r, struct turns *t, const struct reproduced *network,
                    const char *engine, struct err *err)
{
    yyjson_val *reported = manifest_timing(network->entry, engine);
    if (!reported || !network->g)
        return 0;
    struct turn turn = {.network = network, .engine = engine, .reported = reported};
    struct runner_options options = options_of(r);
    options.peer = strcmp(engine, "onnxruntime") == 0;
    struct err why = {0};
    int rc = precision_parse(manifest_text(reported, "precision"), &options.precision, &why);
    if (rc == 0)
        rc = runner_open(network->onnx, network->bytes, &options, &turn.runner, &why);
    if (rc < 0 && options.peer) /* another version of it than the job's may not run the file */
        return findings_leave(&r->findings, network->name, "p50 us, onnxruntime", why.message, err);
    if (rc < 0)
        return err_set(err, why.code, "%s: %s", network->name, why.message);
    t->items[t->n] = runner_item(turn.runner);
    t->list[t->n++] = turn;
    return 0;
}

static int open_turns(struct reproduce *r, struct turns *t, struct err *err)
{
    const size_t most = 2 * (size_t)r->n + 1;
    int rc = 0;
    t->list = mem_calloc(most, sizeof(*t->list));
    t->items = mem_calloc(most, sizeof(*t->items));
    t->results = mem_calloc(most, sizeof(*t->results));
    if (!t->list || !t->items || !t->results)
        return err_oom(err, "times");
    for (int i = 0; rc == 0 && i < r->n; i++)
        for (int e = 0; rc == 0 && e < 2; e++)
            rc = add_turn(r, t, &r->networks[i], engines[e], err);
    return rc;
}

/* On another CPU times say nothing; a ratio that is off while something else runs neither. */
static enum verdict judge(const struct reproduce *r, bool noisy, double was, double is,
                          const char **ret_note)
{
    *ret_note = "";
    if (fabs(is / was - 1) <= TOLERANCE)
        return CLOSE;
    *ret_note = !r->same_machine ? "another CPU or version"
                : noisy          ? "something else was running"
                                 : "more than a quarter apart";
    return r->same_machine && !noisy ? DIFFERS : ELSEWHERE;
}

static int add_time(struct reproduce *r, const struct turn *turn, const struct turn *original,
                    struct err *err)
{
    const double was = manifest_number(turn->reported, "p50_us");
    const double was_original = manifest_number(original->reported, "p50_us");
    const double is_of = turn->times.p50_us / original->times.p50_us, was_of = was / was_original;
    char reported[48], reproduced[48];
    const char *note;
    _cleanup_(freep) char *number = str_printf("p50 us, %s", turn->engine);
    if (!number)
        return err_oom(err, "times");
    snprintf(reported, sizeof(reported), "%.1f (%.3f)", was, was_of);
    snprintf(reproduced, sizeof(reproduced), "%.1f (%.3f)", turn->times.p50_us, is_of);
    struct finding finding = {.subject = (char *)turn->network->name,
                              .number = number,
                              .reported = reported,
                              .reproduced = reproduced};
    const bool noisy = turn->times.noisy || original->times.noisy;
    finding.verdict = judge(r, noisy, was_of, is_of, &note);
    finding.note = (char *)note;
    return findings_add(&r->findings, &finding, err);
}

int reproduce_times(struct reproduce *r, struct err *err)
{
    _cleanup_(turns_release) struct turns t = {0};
    const struct bench_options options = {.seconds = r->q->seconds};
    int rc = open_turns(r, &t, err);
    if (rc < 0 || t.n == 0)
        return rc;
    rc = bench_run(t.items, t.n, &options, t.results, err);
    for (int i = 0; rc == 0 && i < t.n; i++)
        t.list[i].times = t.results[i];
    for (int i = 0; rc == 0 && i < t.n; i++) /* the original on our kernels is the first */
        rc = add_time(r, &t.list[i], &t.list[0], err);
    return rc;
}
