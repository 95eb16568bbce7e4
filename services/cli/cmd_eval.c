#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/network.h"
#include "services/cli/samples.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/nn/infer.h"

struct request {
    const char *model, *data, *split, *preprocess, *precision, *reference;
    int64_t limit, batch, threads;
    bool json;
};

struct evaluation {
    const struct request *request;
    struct graph *g, *reference;
    struct samples samples;
    struct sample_view view;
    struct infer_metrics metrics;
    struct paired_drop drop; /* against the reference */
    bool labelled;
};

static void evaluation_release(struct evaluation *e)
{
    sample_view_release(&e->view);
    samples_release(&e->samples);
    graph_free(e->g);
    graph_free(e->reference);
}

static struct infer_options how_to_run(const struct evaluation *e)
{
    struct infer_options options = {.threads = (int)e->request->threads,
                                    .batch = e->request->batch};
    precision_parse(e->request->precision, &options.precision, NULL); /* one of the choices */
    return options;
}

static int run_network(const struct evaluation *e, const struct graph *g, float **ret_logits,
                       int64_t *ret_width, struct err *err)
{
    const struct infer_options options = how_to_run(e);
    return samples_run(g, &options, &e->view, ret_logits, ret_width, err);
}

/* ---- the score ---- */

static int score(struct evaluation *e, struct err *err)
{
    enum part part = PART_TEST;
    _cleanup_(freep) int32_t *labels = NULL;
    _cleanup_(freep) float *logits = NULL;
    _cleanup_(freep) float *reference = NULL;
    int64_t width = 0, reference_width = 0;
    int r = part_parse(e->request->split, &part, err);
    if (r < 0)
        return r;
    int64_t n = dataset_count(e->samples.ds, part);
    if (e->request->limit > 0 && e->request->limit < n)
        n = e->request->limit;
    if (n == 0)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s: the %s part is empty", e->request->data,
                       e->request->split);
    r = sample_view_init(&e->view, e->samples.ds, part, &e->samples.pre, n, 0, err);
    if (r == 0)
        r = run_network(e, e->g, &logits, &width, err);
    if (r == 0 && samples_classes(&e->samples, width))
        r = sample_view_labels(&e->view, &labels, err);
    if (r == 0 && e->reference)
        r = run_network(e, e->reference, &reference, &reference_width, err);
    if (r < 0)
        return r;
    e->labelled = labels != NULL;
    if (reference && reference_width != width)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s has %lld outputs, %s %lld", e->request->model,
                       (long long)width, e->request->reference, (long long)reference_width);
    if (!labels && !reference)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "%s has no labels for the network's %lld outputs; --reference MODEL scores "
                       "fidelity to another network",
                       e->request->data, (long long)width);
    infer_metrics(logits, reference, labels, e->view.n, width, &e->metrics);
    if (reference)
        infer_paired_drop(logits, reference, labels, e->view.n, width, &e->drop);
    return 0;
}

/* ---- printing ---- */

static void add_real(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *key, double value)
{
    if (isfinite(value))
        yyjson_mut_obj_add_real(doc, root, key, value);
}

static int print_json(const struct evaluation *e)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "metric", e->labelled ? "top1" : "agreement");
    add_real(doc, root, "value", e->labelled ? e->metrics.top1 : e->metrics.agreement);
    yyjson_mut_obj_add_sint(doc, root, "n", e->metrics.n);
    yyjson_mut_obj_add_str(doc, root, "part", e->request->split);
    yyjson_mut_obj_add_str(doc, root, "preprocess", e->samples.pre_text);
    yyjson_mut_obj_add_str(doc, root, "preprocess_source", e->samples.pre_how);
    if (e->reference) {
        add_real(doc, root, "agreement", e->metrics.agreement);
        add_real(doc, root, "kl", e->metrics.kl);
        add_real(doc, root, "drop_points", e->drop.points);
        add_real(doc, root, "drop_upper95_points", e->drop.upper95_points);
    }
    char *text = yyjson_mut_write(doc, 0, NULL);
    int code = text && puts(text) >= 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(doc);
    return code;
}

static void print_text(const struct evaluation *e)
{
    for (int i = 0; i < e->samples.report.n_warnings; i++)
        fprintf(stderr, "hone: %s\n", e->samples.report.warnings[i]);
    printf("preprocessing  %s (%s)\n", e->samples.pre_text, e->samples.pre_how);
    if (e->labelled)
        printf("top1           %.2f %% of %lld samples (%s part)\n", 100 * e->metrics.top1,
               (long long)e->metrics.n, e->request->split);
    if (e->reference)
        printf("agreement      %.2f %% of %lld samples, KL %.4f nats\n"
               "drop           %.2f points, at most %.2f (paired, one-sided 95 %%)\n",
               100 * e->metrics.agreement, (long long)e->metrics.n, e->metrics.kl, e->drop.points,
               e->drop.upper95_points);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct request q = {.split = "test", .precision = "auto", .threads = pool_cpus()};
    const struct cli_option options[] = {
        {.name = "data",
         .value = "DATA",
         .kind = CLI_TEXT,
         .to = &q.data,
         .help = "folder, tar, npz or npy with the data (required)"},
        {.name = "split",
         .value = "PART",
         .kind = CLI_CHOICE,
         .to = &q.split,
         .choices = "test|search|train",
         .help = "which part (default: test)"},
        {.name = "preprocess",
         .value = "TEXT",
         .kind = CLI_TEXT,
         .to = &q.preprocess,
         .help = "how pixels become inputs (default: dataset.json, the network's own, or found)"},
        {.name = "reference",
         .value = "MODEL",
         .kind = CLI_TEXT,
         .to = &q.reference,
         .help = "also compare with this network: agreement, KL, paired drop"},
        {.name = "precision",
         .value = "P",
         .kind = CLI_CHOICE,
         .to = &q.precision,
         .choices = "auto|fp32|bf16",
         .help = "arithmetic (default: auto, as the file says)"},
        {.name = "limit",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.limit,
         .max = 1e12,
         .help = "only so many samples, of each class its share (default: all)"},
        {.name = "batch",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.batch,
         .max = 4096,
         .help = "samples in one inference (default: chosen)"},
        {.name = "threads",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.threads,
         .min = 1,
         .max = 1024,
         .help = "threads (default: all processors)"},
        CLI_OPTION_JSON(&q.json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, &q.model);
    if (code >= 0)
        return code;
    if (!q.data)
        return cli_usage_error(self, "--data is missing: hone eval %s", self->usage);
    _cleanup_(evaluation_release) struct evaluation e = {.request = &q};
    struct err err = {0};
    int r = network_read(q.model, PRECISION_AUTO, &e.g, &err);
    if (r == 0 && q.reference)
        r = network_read(q.reference, PRECISION_AUTO, &e.reference, &err);
    if (r == 0)
        r = samples_open(&e.samples, q.data, e.g, q.model, (int)q.threads, &err);
    if (r == 0) {
        const struct infer_options how = how_to_run(&e);
        r = samples_preprocess(&e.samples, e.g, &how, q.preprocess, &err);
    }
    if (r == 0)
        r = score(&e, &err);
    if (r < 0)
        return cli_fail(&err);
    if (q.json)
        return print_json(&e);
    print_text(&e);
    return CLI_OK;
}

const struct cli_command cmd_eval = {
    .name = "eval",
    .usage = "MODEL --data DATA [OPTION]...",
    .summary = "score a network on data",
    .details =
        "Accuracy (top1) where the data have labels for the network's outputs. With --reference,\n"
        "fidelity to another network as well: the share of equal answers, the mean KL, and the\n"
        "paired drop with the upper end of its one-sided 95 % interval.",
    .examples =
        "  hone eval resnet56.onnx --data cifar10.tar\n"
        "  hone eval faster/model.onnx --data cifar10.tar --reference resnet56.onnx --json\n",
    .run = run,
};
