#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/network.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/graph/onnx.h"
#include "shared/nn/bench.h"
#include "shared/nn/plan_buffers.h"

struct bench {
    struct plan *plan;
    struct plan_buffers buffers;
};

static void bench_release(struct bench *b)
{
    plan_buffers_release(&b->buffers);
    plan_free(b->plan);
}

static int run_once(void *ctx, struct err *err)
{
    struct bench *b = ctx;
    return plan_buffers_run(b->plan, &b->buffers, err);
}

/* "int8" when most of the arithmetic is, and so on. */
static const char *main_precision(const struct plan *plan)
{
    int64_t macs[4] = {0};
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *step = plan_step(plan, i);
        if (step->kind == STEP_COMPUTE && step->precision <= PRECISION_INT8)
            macs[step->precision] += step->macs;
    }
    int64_t all = macs[0] + macs[1] + macs[2] + macs[3];
    for (int p = PRECISION_FP32; p <= PRECISION_INT8; p++)
        if (macs[p] == all)
            return precision_name((enum precision)p);
    return "mixed";
}

static void print_layers(struct bench *b, struct err *err)
{
    int n = plan_n_steps(b->plan);
    int64_t *ns = mem_calloc((size_t)n, sizeof(*ns)), *best = mem_calloc((size_t)n, sizeof(*best));
    for (int run = 0; ns && best && run < 30; run++) {
        if (plan_run_timed(b->plan, (const void *const *)b->buffers.in, b->buffers.out, ns, err) <
            0)
            break;
        for (int i = 0; i < n; i++)
            if (run == 0 || ns[i] < best[i])
                best[i] = ns[i];
    }
    printf("\n%10s  %-5s %-16s %-24s %s\n", "us", "", "operator", "layer", "implementation");
    for (int i = 0; best && i < n; i++) {
        const struct plan_step *s = plan_step(b->plan, i);
        printf("%10.2f  %-5s %-16s %-24s %s%s%s\n", (double)best[i] / 1000,
               s->kind == STEP_CONVERT ? "" : precision_name(s->precision), s->op, s->layer,
               s->implementation, *s->fused ? " + " : "", s->fused);
    }
    free(ns);
    free(best);
}

static int print_json(const struct bench *b, const char *scenario, const struct bench_result *t,
                      int64_t threads, int64_t batch)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "scenario", scenario);
    yyjson_mut_obj_add_real(doc, root, "p50_us", t->p50_us);
    yyjson_mut_obj_add_real(doc, root, "p90_us", t->p90_us);
    if (isfinite(t->p90_bound_us))
        yyjson_mut_obj_add_real(doc, root, "p90_early_stopping_us", t->p90_bound_us);
    yyjson_mut_obj_add_real(doc, root, "images_per_s", 1e6 * (double)batch / t->p50_us);
    yyjson_mut_obj_add_sint(doc, root, "threads", threads);
    yyjson_mut_obj_add_sint(doc, root, "batch", batch);
    yyjson_mut_obj_add_str(doc, root, "precision", main_precision(b->plan));
    yyjson_mut_obj_add_str(doc, root, "isa", nn_isa());
    yyjson_mut_obj_add_str(doc, root, "cpu", nn_cpu());
    yyjson_mut_obj_add_sint(doc, root, "runs", t->runs);
    yyjson_mut_obj_add_bool(doc, root, "noisy", t->noisy);
    char *text = yyjson_mut_write(doc, 0, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(doc);
    return code;
}

static int write_network(const struct graph *g, const char *path, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = onnx_write_bytes(g, &data, &bytes, err);
    return r < 0 ? r : fs_write_atomic(path, data, bytes, err);
}

/* Bytes in rows of pixels instead of floats; what becomes of them costs the same for all numbers.
 */
static const struct plan_pictures *pictures_for(const struct graph *g, struct plan_pictures *ret)
{
    static const float zeros[4 * 256];
    const struct shape *in = g->n_inputs > 0 ? &g->values[g->inputs[0]]->shape : NULL;
    *ret = (struct plan_pictures){.last = true, .real = zeros, .from = {0, 1, 2, 3}};
    ret->channels = in && in->rank == 4 ? (int)in->dim[1] : 0;
    return ret;
}

static int measure(struct bench *b, const char *model, const struct plan_options *options,
                   double seconds, bool pictures, const char *write, struct bench_result *ret,
                   struct err *err)
{
    struct plan_pictures bytes;
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct plan_options compile = *options;
    int r = network_read(model, options->precision, &g, err);
    if (r == 0 && write)
        r = write_network(g, write, err);
    if (compile.precision == PRECISION_INT8)
        compile.precision = PRECISION_AUTO; /* the network says where */
    if (r == 0 && pictures)
        compile.pictures = pictures_for(g, &bytes);
    if (r == 0)
        r = plan_compile(g, &compile, &b->plan, err);
    if (r == 0)
        r = plan_buffers_make(b->plan, 1, &b->buffers, err);
    struct bench_item item = {run_once, b};
    struct bench_options how = {.seconds = seconds};
    return r < 0 ? r : bench_run(&item, 1, &how, ret, err);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *precision = "auto", *write = NULL, *scenario = "single-stream", *args[1] = {NULL};
    int64_t threads = 0, batch = 0;
    double seconds = 3;
    bool json = false, layers = false, pictures = false;
    const struct cli_option options[] = {
        {.name = "scenario",
         .value = "S",
         .kind = CLI_CHOICE,
         .to = &scenario,
         .choices = "single-stream|offline",
         .help = "as in MLPerf (default: single-stream)"},
        {.name = "precision",
         .value = "P",
         .kind = CLI_CHOICE,
         .to = &precision,
         .choices = "fp32|bf16|int8|auto",
         .help = "arithmetic (default: auto, as the file says)"},
        {.name = "threads",
         .value = "N",
         .kind = CLI_INT,
         .to = &threads,
         .min = 1,
         .max = 1024,
         .help = "threads of one inference (default: 1; offline: all processors)"},
        {.name = "batch",
         .value = "N",
         .kind = CLI_INT,
         .to = &batch,
         .min = 1,
         .max = 65536,
         .help = "samples in one inference (default: 1; offline: 64 for each thread)"},
        {.name = "seconds",
         .value = "S",
         .kind = CLI_REAL,
         .to = &seconds,
         .min = 0.01,
         .max = 3600,
         .help = "how long to measure (default: 3)"},
        {.name = "pictures",
         .kind = CLI_FLAG,
         .to = &pictures,
         .help = "the input is bytes in rows of pixels (NHWC), as decoders give them"},
        {.name = "write",
         .value = "FILE",
         .kind = CLI_TEXT,
         .to = &write,
         .help = "also write the network that was measured (with int8 for its speed only)"},
        {.name = "layers",
         .kind = CLI_FLAG,
         .to = &layers,
         .help = "also print the time of each layer"},
        CLI_OPTION_JSON(&json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    const bool offline = strcmp(scenario, "offline") == 0;
    if (threads == 0)
        threads = offline ? pool_cpus() : 1;
    if (batch == 0)
        batch = offline ? 64 * threads : 1;
    _cleanup_(bench_release) struct bench b = {0};
    struct plan_options how = {.batch = batch, .threads = (int)threads};
    struct bench_result t;
    struct err err = {0};
    if (precision_parse(precision, &how.precision, &err) < 0 ||
        measure(&b, args[0], &how, seconds, pictures, write, &t, &err) < 0)
        return cli_fail(&err);
    if (json)
        return print_json(&b, scenario, &t, threads, batch);
    printf("p50 %.1f us   p90 %.1f us   %.0f images/s   ", t.p50_us, t.p90_us,
           1e6 * (double)batch / t.p50_us);
    printf("(%s, %lld thread%s, batch %lld, %lld runs%s)\n", main_precision(b.plan),
           (long long)threads, threads == 1 ? "" : "s", (long long)batch, (long long)t.runs,
           t.noisy ? "; noisy: something else was running" : "");
    printf("%s, %s, %s\n", nn_cpu(), nn_isa(), nn_version());
    if (!offline && isfinite(t.p90_bound_us))
        printf("90th percentile at most %.1f us (MLPerf's early-stopping estimate, 99 %%)\n",
               t.p90_bound_us);
    if (layers)
        print_layers(&b, &err);
    return err.code ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .usage = "MODEL [OPTION]...",
    .summary = "measure how fast a network runs here",
    .details =
        "Median and 90th percentile of the time of one inference, input conversion included, on\n"
        "Hone's own kernels, after a warm-up. The scenarios are MLPerf Inference's: single-stream\n"
        "(latency of one query after the other) and offline (throughput of one large batch, each\n"
        "thread with its share of the samples). With --precision int8 a network that is not\n"
        "quantized runs in plain int8 with ranges from noise: right for its speed, not for its\n"
        "answers.",
    .examples = "  hone bench resnet56.onnx\n  hone bench resnet56.onnx --precision int8 --json\n"
                "  hone bench faster/model.onnx --layers\n",
    .run = run,
};
