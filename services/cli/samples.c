#include "services/cli/samples.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "services/cli/network.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/detect.h"

#define MEASURE_SAMPLES 5000

void samples_release(struct samples *s)
{
    dataset_close(s->ds);
    dataset_report_release(&s->report);
    if (s->folder)
        fs_remove_tree(s->folder, NULL);
    free(s->folder);
    free(s->pre_text);
    *s = (struct samples){0};
}

int samples_open(struct samples *s, const char *path, const struct graph *g, const char *model,
                 int threads, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    const struct value *in = NULL;
    struct dataset_pack_options options = {.threads = threads, .seed = s->seed};
    int r = network_input(g, &in, err);
    if (r < 0)
        return err_wrap(err, "%s", model);
    options.sample_rank = in->shape.rank - 1;
    for (int i = 0; i < 3; i++)
        options.sample_shape[i] = 1;
    for (int i = 1; i < in->shape.rank; i++)
        options.sample_shape[3 - in->shape.rank + i] = in->shape.dim[i];
    s->folder = str_printf("%s/hone-data-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!s->folder)
        return err_oom(err, "data");
    if (!mkdtemp(s->folder)) {
        r = err_set(err, ERR_PERMISSION_DENIED, "%s: cannot be made (set TMPDIR)", s->folder);
        free(TAKE_PTR(s->folder));
        return r;
    }
    _cleanup_(freep) char *packed = str_printf("%s/data", s->folder);
    r = packed ? dataset_pack(path, &options, packed, &s->report, err) : err_oom(err, "data");
    if (r == 0)
        r = dataset_open(packed, &s->ds, err);
    if (r == 0 && s->hash)
        r = hash_file(packed, s->hash, err);
    if (r == 0) { /* a command that is interrupted later leaves nothing */
        fs_remove_tree(s->folder, NULL);
        free(TAKE_PTR(s->folder));
    }
    return r;
}

int64_t samples_classes(const struct samples *s, int64_t width)
{
    return dataset_classes(s->ds) <= width ? dataset_classes(s->ds) : 0;
}

int samples_run(const struct graph *g, const struct infer_options *options,
                const struct sample_view *view, float **ret_logits, int64_t *ret_width,
                struct err *err)
{
    int r = infer_output_width(g, ret_width, err);
    if (r < 0)
        return r;
    _cleanup_(freep) float *logits =
        mem_calloc((size_t)view->n, (size_t)*ret_width * sizeof(float));
    if (!logits)
        return err_oom(err, "outputs");
    r = infer_run(g, options, view->n, sample_view_fill, (void *)view, logits, err);
    if (r == 0)
        *ret_logits = TAKE_PTR(logits);
    return r;
}

/* ---- preprocessing ---- */

struct detecting {
    const struct graph *g;
    const struct infer_options *options;
};

static int run_convention(void *ctx, struct sample_view *view, float *ret_logits, struct err *err)
{
    const struct detecting *d = ctx;
    return infer_run(d->g, d->options, view->n, sample_view_fill, view, ret_logits, err);
}

static int detect(struct samples *s, const struct graph *g, const struct infer_options *options,
                  int64_t width, struct err *err)
{
    struct detecting detecting = {g, options};
    const struct detect_network network = {
        .width = width, .run = run_convention, .ctx = &detecting};
    struct detection found;
    int r = detect_preprocess(s->ds, &network, dataset_classes(s->ds) == width, &found, err);
    if (r == 0)
        s->pre = found.pre;
    return r;
}

/* Mean and deviation of each channel, in the units of the samples; of all channels together where
 * there are more than preprocessing can name. */
static int measure(struct samples *s, struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    int64_t shape[3];
    double sum[4] = {0}, square[4] = {0};
    dataset_sample_shape(s->ds, shape);
    const int64_t plane = shape[1] * shape[2], width = shape[0] * plane;
    _cleanup_(freep) float *x = mem_calloc((size_t)width, sizeof(*x));
    int r = x ? sample_view_init(&view, s->ds, PART_TRAIN, NULL, MEASURE_SAMPLES, 1, err)
              : err_oom(err, "samples");
    for (int64_t i = 0; i < view.n && r == 0; i++) {
        r = sample_view_fill(&view, i, 1, x, err);
        for (int64_t k = 0; k < width && r == 0; k++) {
            const int64_t c = shape[0] <= 4 ? k / plane : 0;
            sum[c] += (double)x[k];
            square[c] += (double)x[k] * (double)x[k];
        }
    }
    const double n = (double)view.n * (double)(shape[0] <= 4 ? plane : width);
    s->pre = preprocess_identity;
    for (int64_t c = 0; c < 4 && r == 0; c++) {
        const int64_t from = c < shape[0] && shape[0] <= 4 ? c : 0;
        const double variance = square[from] / n - sum[from] / n * (sum[from] / n);
        s->pre.mean[c] = round(sum[from] / n * 1000) / 1000; /* readable */
        s->pre.std[c] = variance > 1e-6 ? round(sqrt(variance) * 1000) / 1000 : 1;
    }
    return r;
}

/* What was given, or stands in the data or the network; *ret_text NULL where nothing does. */
static void find_text(struct samples *s, const struct graph *g, const char *given,
                      const char **ret_text)
{
    const char *of_network = graph_metadata(g, "hone.preprocess");
    *ret_text = given ? given : s->report.preprocess ? s->report.preprocess : of_network;
    s->pre_how = given ? "given" : s->report.preprocess ? "dataset.json" : "of the network";
}

static int keep_text(struct samples *s, int r, struct err *err)
{
    if (r < 0)
        return err_wrap(err, "preprocessing");
    free(s->pre_text);
    s->pre_text = preprocess_text(&s->pre);
    return s->pre_text ? 0 : err_oom(err, "preprocessing");
}

int samples_preprocess(struct samples *s, const struct graph *g,
                       const struct infer_options *options, const char *given, struct err *err)
{
    const char *text = NULL;
    int64_t width = 0;
    int r = infer_output_width(g, &width, err);
    s->pre = preprocess_identity;
    if (r < 0)
        return r;
    find_text(s, g, given, &text);
    if (text) {
        r = preprocess_parse(text, &s->pre, err);
    } else if (!dataset_is_picture(s->ds)) {
        s->pre_how = "none";
    } else {
        s->pre_how = "detected";
        r = detect(s, g, options, width, err);
    }
    return keep_text(s, r, err);
}

int samples_preprocess_new(struct samples *s, const struct graph *g, const char *given,
                           struct err *err)
{
    const char *text = NULL;
    int r = 0;
    find_text(s, g, given, &text);
    if (text) {
        r = preprocess_parse(text, &s->pre, err);
    } else {
        s->pre_how = "mean and deviation of the training part";
        r = measure(s, err);
    }
    return keep_text(s, r, err);
}
