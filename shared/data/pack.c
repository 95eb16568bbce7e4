#include "shared/data/pack.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

int pack_warn(struct pack *p, struct err *err, const char *fmt, ...)
{
    struct dataset_report *report = p->report;
    va_list args;
    va_start(args, fmt);
    char *text = NULL;
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        return err_oom(err, "a warning");
    char **grown = mem_realloc(report->warnings, (size_t)report->n_warnings + 1, sizeof(*grown));
    if (!grown) {
        free(text);
        return err_oom(err, "a warning");
    }
    report->warnings = grown;
    report->warnings[report->n_warnings++] = text;
    return 0;
}

int pack_add(struct pack *p, char *name, struct err *err)
{
    if (p->n >= p->limits.max_samples) {
        free(name);
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%s: more than the limit of %lld samples",
                       p->path, (long long)p->limits.max_samples);
    }
    if (p->n == p->capacity) {
        size_t more = p->capacity ? (size_t)p->capacity * 2 : 4096;
        struct sample *grown = mem_realloc(p->samples, more, sizeof(*grown));
        if (!grown) {
            free(name);
            return err_oom(err, "a list of samples");
        }
        p->samples = grown;
        p->capacity = (int64_t)more;
    }
    p->samples[p->n++] =
        (struct sample){.name = name, .slot = p->n_slots++, .label = -1, .part = -1, .twin_of = -1};
    return 0;
}

int pack_progress(struct pack *p, int64_t done, int64_t total, struct err *err)
{
    const struct dataset_pack_options *o = p->options;
    return o->progress ? o->progress(o->progress_ctx, done, total, err) : 0;
}

int pack_open_writer(struct pack *p, enum packed_kind kind, struct err *err)
{
    int64_t bytes = p->shape[0] * p->shape[1] * p->shape[2] * (kind == PACKED_F32 ? 4 : 1);
    p->kind = kind;
    return packed_writer_open(&p->writer, p->out, bytes, p->limits.max_bytes, err);
}

/* Two lanes of multiply and fold; equal hashes are compared byte by byte afterwards. */
uint64_t pack_hash(const void *data, size_t bytes)
{
    const unsigned char *in = data;
    uint64_t a = 0x9e3779b97f4a7c15u ^ bytes, b = 0xd1b54a32d192ed03u;
    while (bytes) {
        uint64_t word[2] = {0};
        size_t n = bytes < sizeof(word) ? bytes : sizeof(word);
        memcpy(word, in, n);
        unsigned __int128 x = (unsigned __int128)(a ^ word[0]) * 0xa0761d6478bd642fu;
        unsigned __int128 y = (unsigned __int128)(b ^ word[1]) * 0xe7037ed1a0b428dbu;
        a = (uint64_t)x ^ (uint64_t)(y >> 64);
        b = (uint64_t)y ^ (uint64_t)(x >> 64);
        in += n;
        bytes -= n;
    }
    return a ^ (b << 32 | b >> 32);
}

static void pack_release(struct pack *p)
{
    packed_writer_release(&p->writer);
    for (int64_t i = 0; i < p->n; i++) {
        free(p->samples[i].name);
        free(p->samples[i].problem);
    }
    free(p->samples);
    free(p->settings.preprocess);
}

static int check_options(struct pack *p, struct err *err)
{
    const struct dataset_pack_options *o = p->options;
    p->limits = o->limits ? *o->limits : dataset_default_limits;
    if (o->sample_rank < 1 || o->sample_rank > 3)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the network's input has %d axes besides the batch; 1 to 3 are supported",
                       o->sample_rank);
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - o->sample_rank);
        p->shape[i] = from < 0 ? 1 : o->sample_shape[from];
        if (p->shape[i] < 1 || p->shape[i] > PACKED_MAX_DIM)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "samples with an axis of %lld are not supported",
                           (long long)p->shape[i]);
    }
    if (p->shape[0] * p->shape[1] * p->shape[2] > 1LL << 30)
        return err_set(err, ERR_INVALID_ARGUMENT, "samples of more than 2^30 numbers");
    if (p->limits.max_samples > UINT32_MAX)
        p->limits.max_samples = UINT32_MAX; /* indices are 32 bits */
    if (!(o->search_fraction >= 0 && o->search_fraction < 1) || o->search_max < 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "search_fraction must be in [0, 1)");
    return 0;
}

/* What could not be read: an error if it is too much, else a warning; both name the first ones. */
static int judge_unreadable(struct pack *p, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const struct sample *s = &p->samples[i];
        if (!s->problem)
            continue;
        if (n++ < 3)
            strbuf_printf(&text, "%s%.200s: %.200s", n > 1 ? "; " : "", s->name, s->problem);
    }
    p->report->unreadable = n;
    if (n == 0)
        return 0;
    if (n > 3)
        strbuf_add(&text, "; ...");
    if (text.failed)
        return err_oom(err, "a warning");
    if (n * 10 > p->n)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: %lld of %lld pictures cannot be read (%s)",
                       p->path, (long long)n, (long long)p->n, text.data);
    return pack_warn(p, err, "%lld of %lld pictures could not be read and are left out (%s)",
                     (long long)n, (long long)p->n, text.data);
}

static int check_labels(struct pack *p, struct err *err)
{
    int32_t first = -1;
    for (int64_t i = 0; i < p->n && p->report->labelled; i++) {
        const struct sample *s = &p->samples[i];
        if (s->part < 0)
            continue;
        if (first < 0)
            first = s->label;
        if (s->label != first)
            return 0;
    }
    if (first < 0)
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "%s: all samples belong to one class, '%.100s'; at least two are needed (or "
                   "\"labels\": false in dataset.json, to go without)",
                   p->path, p->report->classes[first]);
}

static int count_parts(struct pack *p, struct err *err)
{
    struct dataset_report *report = p->report;
    for (int64_t i = 0; i < p->n; i++) {
        if (p->samples[i].part < 0)
            continue;
        report->n[p->samples[i].part]++;
        report->resized += p->samples[i].resized;
    }
    for (int part = 0; part < PART_COUNT; part++)
        if (report->n[part] == 0)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "%s: the %s part is empty (train %lld, search "
                           "%lld, test %lld samples)",
                           p->path, part_name((enum part)part), (long long)report->n[PART_TRAIN],
                           (long long)report->n[PART_SEARCH], (long long)report->n[PART_TEST]);
    return 0;
}

static int write_out(struct pack *p, struct err *err)
{
    const struct dataset_report *report = p->report;
    int64_t total = report->n[0] + report->n[1] + report->n[2], at = 0;
    _cleanup_(freep) int64_t *order = mem_calloc((size_t)total, sizeof(*order));
    _cleanup_(freep) int32_t *labels = mem_calloc((size_t)total, sizeof(*labels));
    if (!order || !labels)
        return err_oom(err, "ordering the samples");
    for (int part = 0; part < PART_COUNT; part++) {
        for (int64_t i = 0; i < p->n; i++) {
            if (p->samples[i].part != part)
                continue;
            order[at] = p->samples[i].slot;
            labels[at++] = p->samples[i].label;
        }
    }
    struct packed_header header = {.kind = p->kind,
                                   .n_classes = report->labelled ? report->n_classes : 0};
    memcpy(header.shape, p->shape, sizeof(header.shape));
    memcpy(header.n, report->n, sizeof(header.n));
    int r = packed_writer_arrange(&p->writer, order, total, p->n_slots, err);
    if (r == 0)
        r = packed_writer_finish(&p->writer, &header, labels, report->classes, p->out, err);
    return r;
}

static int pack_run(struct pack *p, struct err *err)
{
    bool arrays = pack_is_arrays(p->path);
    int r = check_options(p, err);
    if (r == 0)
        r = settings_read_beside(p, err);
    if (r == 0)
        r = arrays ? pack_arrays(p, err) : pack_pictures(p, err);
    if (r == 0 && !arrays)
        r = layout_sort(p, err);
    if (r == 0 && !arrays)
        r = judge_unreadable(p, err);
    if (r == 0 && !arrays)
        r = layout_assign(p, err);
    if (r == 0)
        r = check_labels(p, err);
    if (r == 0)
        r = split_find_twins(p, err);
    if (r == 0)
        r = split_parts(p, err);
    if (r == 0)
        r = count_parts(p, err);
    if (r == 0)
        r = write_out(p, err);
    if (r < 0)
        return r;
    p->report->preprocess = TAKE_PTR(p->settings.preprocess);
    return 0;
}

int dataset_pack(const char *path, const struct dataset_pack_options *options, const char *out,
                 struct dataset_report *report, struct err *err)
{
    struct dataset_report found = {0};
    _cleanup_(pack_release) struct pack p = {
        .path = path, .options = options, .out = out, .report = &found, .writer.fd = -1};
    int r = pack_run(&p, err);
    if (r < 0 || !report)
        dataset_report_release(&found);
    else
        *report = found;
    return r;
}
