#include "services/cli/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/lower.h"
#include "shared/base/mem.h"
#include "shared/design/student.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "shared/nn/runner.h"

#define DEPTHS 3
#define SLACK 0.9 /* times from here to the winner's are equal enough to ask for products */
#define LEAST_S 0.05
#define STRIDE_SIDE 64
#define SLOWER 3 /* in a row: widths that fill the vectors may be faster than the one before */

static const int64_t widths[] = {4,  6,  8,  10, 12, 14, 16, 20,  24, 28,
                                 32, 40, 48, 56, 64, 80, 96, 112, 128};
#define WIDTHS ((int)(sizeof(widths) / sizeof(widths[0])))

void control_release(struct control *c)
{
    graph_free(c->run.g);
    free(c->onnx);
}

/* ---- the design ---- */

void control_design(int64_t width, int depth, int64_t side, char text[96])
{
    const long long w = width;
    snprintf(text, 96, "conv:%lld%s residual:%lld*%d residual:%lld:s2*%d residual:%lld:s2*%d head",
             w, side >= STRIDE_SIDE ? ":s2" : "", w, depth, 2 * w, depth, 4 * w, depth);
}

int control_choose(const double *ratios, const int64_t *macs, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (!(ratios[i] <= 1))
            continue;
        if (best < 0) {
            best = i;
            continue;
        }
        const bool near = ratios[i] >= SLACK, best_near = ratios[best] >= SLACK;
        if (near && best_near ? macs[i] > macs[best] : ratios[i] > ratios[best])
            best = i;
    }
    return best;
}

struct trial {
    char design[96];
    double ratio; /* of its time to the winner's */
    int64_t macs;
};

/* How the job measured. */
static struct runner_options runner_options_of(const struct reproduce *r)
{
    yyjson_val *settings = yyjson_obj_get(r->manifest.root, "settings");
    const double batch = manifest_number(settings, "batch");
    const double threads = manifest_number(settings, "threads");
    return (struct runner_options){.batch = batch >= 1 ? (int64_t)batch : 1,
                                   .threads = threads >= 1 ? (int)threads : 1,
                                   .precision = PRECISION_AUTO};
}

/* The medians of some files' networks, in turns. */
static int measure(const struct reproduce *r, const void *const *onnx, const size_t *bytes, int n,
                   double seconds, double *us, struct err *err)
{
    struct runner *runners[3] = {NULL};
    struct bench_item items[3];
    struct bench_result results[3];
    const struct runner_options options = runner_options_of(r);
    const struct bench_options how = {.seconds = fmax(seconds, LEAST_S)};
    int rc = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = runner_open(onnx[i], bytes[i], &options, &runners[i], err);
        if (rc == 0)
            items[i] = runner_item(runners[i]);
    }
    if (rc == 0)
        rc = bench_run(items, n, &how, results, err);
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            us[i] = results[i].p50_us;
        runner_free(runners[i]);
    }
    return rc;
}

/* With ranges from noise: its speed is right. */
static int quantize_for_speed(const struct reproduce *r, const char *design, void **ret_onnx,
                              size_t *ret_bytes, int64_t *ret_macs, struct err *err)
{
    const struct graph *original = r->networks[0].g;
    _cleanup_(graph_freep) struct graph *g = NULL, *quantized = NULL;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct design_ends ends;
    int rc = student_ends(original, r->samples.seed, &ends, err);
    if (rc == 0)
        rc = student_build(design, original, &ends, &g, err);
    if (rc == 0)
        rc = pass_simplify(g, err);
    if (rc >= 0)
        rc = quant_calibrate_noise(g, 1, &ranges, err);
    if (rc >= 0)
        rc = quant_rewrite_all(g, &ranges, NULL, &quantized, err);
    if (rc < 0)
        return rc;
    *ret_macs = graph_cost(g).macs;
    return onnx_write_bytes(quantized, ret_onnx, ret_bytes, err);
}

static int try_design(struct reproduce *r, const struct control *c, struct trial *t,
                      struct err *err)
{
    _cleanup_(freep) void *onnx = NULL;
    size_t bytes = 0;
    double us[2];
    int rc = quantize_for_speed(r, t->design, &onnx, &bytes, &t->macs, err);
    const void *const files[] = {onnx, c->winner->onnx};
    const size_t sizes[] = {bytes, c->winner->bytes};
    if (rc == 0)
        rc = measure(r, files, sizes, 2, r->q->seconds / 4, us, err);
    t->ratio = rc == 0 ? us[0] / us[1] : NAN;
    return rc < 0 ? err_wrap(err, "%s", t->design) : 0;
}

static int find_design(struct reproduce *r, struct control *c, struct err *err)
{
    struct trial trials[DEPTHS * WIDTHS];
    double ratios[DEPTHS * WIDTHS];
    int64_t macs[DEPTHS * WIDTHS], shape[3];
    int n = 0;
    dataset_sample_shape(r->samples.ds, shape);
    for (int depth = 1; depth <= DEPTHS; depth++)
        for (int w = 0, slower = 0; w < WIDTHS && slower < SLOWER; w++) {
            struct trial *t = &trials[n];
            control_design(widths[w], depth, shape[1] < shape[2] ? shape[1] : shape[2], t->design);
            int rc = try_design(r, c, t, err);
            if (rc < 0)
                return rc;
            ratios[n] = t->ratio;
            macs[n++] = t->macs;
            slower = t->ratio > 1 ? slower + 1 : 0;
        }
    const int best = control_choose(ratios, macs, n);
    c->measured = n;
    if (best < 0)
        return err_set(err, ERR_NOT_FOUND, "no plain network is as fast as %s", c->winner->name);
    memcpy(c->design, trials[best].design, sizeof(c->design));
    return 0;
}

/* ---- as a job makes it ---- */

static int quantize(struct reproduce *r, struct control *c, struct err *err)
{
    const struct lower_request q = {.parent = c->run.g, .name = "control", .design = c->design};
    return lower_build(r, &q, &c->onnx, &c->bytes, err);
}

/* What the file says, not what it was written from. */
static int compare(struct reproduce *r, struct control *c, struct err *err)
{
    _cleanup_(graph_freep) struct graph *file = NULL;
    const void *const files[] = {c->onnx, c->winner->onnx, r->networks[0].onnx};
    const size_t sizes[] = {c->bytes, c->winner->bytes, r->networks[0].bytes};
    double us[3];
    int rc = onnx_read_bytes(c->onnx, c->bytes, NULL, NULL, &file, err);
    if (rc == 0)
        rc = reproduce_score(r, file, PART_TEST, &c->metrics, &c->drop, err);
    if (rc == 0)
        rc = measure(r, files, sizes, 3, r->q->seconds, us, err);
    if (rc < 0)
        return rc;
    c->us = us[0];
    c->winner_us = us[1];
    c->original_us = us[2];
    return 0;
}

static int find_winner(struct reproduce *r, struct control *c, struct err *err)
{
    const char *objective = manifest_text(yyjson_obj_get(r->manifest.root, "limit"), "objective");
    if (strcmp(objective, "size") == 0)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "the job's objective was size: a control has the winner's latency");
    c->winner = reproduce_chosen(r);
    const char *design = c->winner ? manifest_text(c->winner->entry, "design") : "";
    if (!*design)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "no student was chosen: there is nothing to set a plain network beside");
    if (!c->winner->onnx)
        return err_set(err, ERR_FAILED_PRECONDITION, "the file of %s is not here", c->winner->name);
    c->student = manifest_find(yyjson_obj_get(r->manifest.root, "students"), "design", design);
    if (!c->student)
        return err_set(err, ERR_DATA_LOSS, "the manifest has no student '%s'", design);
    int64_t width = 0;
    int rc = infer_output_width(r->networks[0].g, &width, err);
    if (rc == 0 && samples_classes(&r->samples, width) != width)
        rc = err_set(err, ERR_FAILED_PRECONDITION,
                     "a plain network learns from labels, and the data have none for the "
                     "original's answers");
    return rc;
}

int control_make(struct reproduce *r, struct control *ret, struct err *err)
{
    int rc = find_winner(r, ret, err);
    if (rc == 0)
        rc = find_design(r, ret, err);
    if (rc == 0)
        rc = reproduce_train_plain(r, ret->design, ret->student, &ret->run, err);
    if (rc == 0)
        rc = quantize(r, ret, err);
    return rc < 0 ? err_wrap(err, "control") : compare(r, ret, err);
}

/* ---- what is said of it ---- */

static void add_real(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, double value)
{
    if (isfinite(value))
        yyjson_mut_obj_add_real(doc, o, key, value);
}

static void add_winner(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct control *c)
{
    static const char *const numbers[] = {"macs", "parameters", "bytes", "drop_bound_points"};
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(doc, root, "winner");
    yyjson_val *a = manifest_accuracy(c->winner->entry, "test", "hone");
    yyjson_mut_obj_add_strcpy(doc, o, "name", c->winner->name);
    yyjson_mut_obj_add_strcpy(doc, o, "design", manifest_text(c->winner->entry, "design"));
    add_real(doc, o, "p50_us", c->winner_us);
    add_real(doc, o, "value", manifest_number(a, "value"));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        add_real(doc, o, numbers[i], manifest_number(c->winner->entry, numbers[i]));
    add_real(doc, o, "drop_points", manifest_number(a, "drop_points"));
    add_real(doc, o, "drop_upper95_points", manifest_number(a, "drop_upper95_points"));
    add_real(doc, o, "seconds", manifest_number(c->student, "seconds"));
}

char *control_json(const struct reproduce *r, const struct control *c)
{
    const struct cost cost = graph_cost(c->run.g);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "schema", "hone.control/1");
    yyjson_mut_obj_add_strcpy(doc, root, "job", manifest_text(r->manifest.root, "job"));
    yyjson_mut_obj_add_str(doc, root, "design", c->design);
    yyjson_mut_obj_add_int(doc, root, "designs_measured", c->measured);
    yyjson_mut_obj_add_int(doc, root, "epochs", c->run.epochs);
    add_real(doc, root, "seconds", c->run.seconds);
    add_real(doc, root, "search_value", c->run.search_accuracy);
    yyjson_mut_obj_add_str(doc, root, "metric", "top1");
    add_real(doc, root, "value", c->metrics.top1);
    yyjson_mut_obj_add_sint(doc, root, "n", c->metrics.n);
    add_real(doc, root, "drop_points", c->drop.points);
    add_real(doc, root, "drop_upper95_points", c->drop.upper95_points);
    add_real(doc, root, "p50_us", c->us);
    add_real(doc, root, "speedup_fp32", c->original_us / c->us);
    yyjson_mut_obj_add_sint(doc, root, "macs", cost.macs);
    yyjson_mut_obj_add_sint(doc, root, "parameters", cost.parameters);
    yyjson_mut_obj_add_uint(doc, root, "bytes", c->bytes);
    add_winner(doc, root, c);
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
    yyjson_mut_doc_free(doc);
    return text;
}

static void print_row(const char *name, double us, double speedup, double value, double drop,
                      double most, double macs, double parameters)
{
    printf("  %-18s %8.1f us %7.2fx %8.2f %% %7.2f %7.2f %9.2f M %9.1f K\n", name, us, speedup,
           100 * value, drop, most, macs * 1e-6, parameters * 1e-3);
}

void control_print(const struct control *c)
{
    const struct cost cost = graph_cost(c->run.g);
    yyjson_val *e = c->winner->entry, *a = manifest_accuracy(e, "test", "hone");
    printf("\ncontrol: a plain network of equal latency, %d epochs from labels (%s)\n\n"
           "  %-18s %11s %8s %10s %7s %7s %11s %11s\n",
           c->run.epochs, c->design, "network", "p50", "vs fp32", "top1", "drop", "at most", "MACs",
           "parameters");
    print_row(c->winner->name, c->winner_us, c->original_us / c->winner_us,
              manifest_number(a, "value"), manifest_number(a, "drop_points"),
              manifest_number(a, "drop_upper95_points"), manifest_number(e, "macs"),
              manifest_number(e, "parameters"));
    print_row("control", c->us, c->original_us / c->us, c->metrics.top1, c->drop.points,
              c->drop.upper95_points, (double)cost.macs, (double)cost.parameters);
}
