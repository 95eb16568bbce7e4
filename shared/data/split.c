/* Samples that are equal, and the parts that are drawn by seed. */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/data/pack.h"

#define TEST_FRACTION 0.2
#define SEARCH_FRACTION 0.1
#define SEARCH_MAX 5000
/* Streams of the seed; each class draws from its own. */
#define STREAM_SEARCH 0x100000000u
#define STREAM_TEST 0x200000000u

/* ---- twins ---- */

static int by_hash(const void *a, const void *b)
{
    const struct sample *x = *(struct sample *const *)a, *y = *(struct sample *const *)b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (x > y) - (x < y);
}

static void count_group(struct pack *p, struct sample **group, int64_t n)
{
    struct dataset_report *report = p->report;
    const struct sample *first = NULL; /* of the training part */
    int64_t train = 0, test = 0;
    bool conflict = false;
    for (int64_t i = 0; i < n; i++) {
        conflict |= group[i]->label != group[0]->label;
        if (group[i]->part == PART_TEST) {
            test++;
            continue;
        }
        train++;
        if (first)
            group[i]->twin_of = first - p->samples;
        else
            first = group[i];
    }
    report->duplicates += train ? test : 0;
    report->duplicates_within += train > 1 ? train - 1 : 0;
    report->conflicting += conflict ? n : 0;
}

/* Of n samples with one hash, keeps those in group[] whose bytes are those of the first. */
static int keep_equal(const struct pack *p, struct sample **group, int64_t *n, uint8_t *bytes,
                      struct err *err)
{
    size_t size = (size_t)p->writer.sample_bytes;
    int64_t kept = 1;
    int r = packed_writer_get(&p->writer, group[0]->slot, bytes, err);
    for (int64_t i = 1; i < *n && r == 0; i++) {
        r = packed_writer_get(&p->writer, group[i]->slot, bytes + size, err);
        if (r == 0 && memcmp(bytes, bytes + size, size) == 0)
            group[kept++] = group[i];
    }
    *n = kept;
    return r;
}

static int report_twins(struct pack *p, struct err *err)
{
    const struct dataset_report *report = p->report;
    int r = 0;
    if (report->duplicates)
        r = pack_warn(p, err, "%lld test samples are also in the training part",
                      (long long)report->duplicates);
    if (r == 0 && report->conflicting)
        r = pack_warn(p, err, "%lld samples are equal to one with another label",
                      (long long)report->conflicting);
    return r;
}

int split_find_twins(struct pack *p, struct err *err)
{
    int64_t n = 0;
    _cleanup_(freep) struct sample **sorted = mem_calloc((size_t)p->n + 1, sizeof(*sorted));
    _cleanup_(freep) uint8_t *bytes = malloc((size_t)p->writer.sample_bytes * 2);
    if (!sorted || !bytes)
        return err_oom(err, "looking for equal samples");
    for (int64_t i = 0; i < p->n; i++)
        if (p->samples[i].part >= 0)
            sorted[n++] = &p->samples[i];
    qsort(sorted, (size_t)n, sizeof(*sorted), by_hash);
    for (int64_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && sorted[next]->hash == sorted[i]->hash;)
            next++;
        int64_t same = next - i;
        if (same == 1)
            continue;
        int r = keep_equal(p, sorted + i, &same, bytes, err);
        if (r < 0)
            return r;
        count_group(p, sorted + i, same);
    }
    return report_twins(p, err);
}

/* ---- drawing ---- */

struct rest {
    double part;
    int64_t group;
};

static int by_rest(const void *a, const void *b)
{
    const struct rest *x = a, *y = b;
    if (x->part != y->part)
        return x->part > y->part ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

int split_shares(const int64_t *sizes, int64_t n_groups, int64_t n, int64_t *ret_shares,
                 struct err *err)
{
    int64_t total = 0, given = 0;
    _cleanup_(freep) struct rest *rests = mem_calloc((size_t)n_groups + 1, sizeof(*rests));
    if (!rests)
        return err_oom(err, "splitting the data");
    for (int64_t g = 0; g < n_groups; g++)
        total += sizes[g];
    if (n > total)
        n = total;
    for (int64_t g = 0; g < n_groups; g++) {
        double exact = total ? (double)n * (double)sizes[g] / (double)total : 0;
        ret_shares[g] = (int64_t)exact;
        given += ret_shares[g];
        rests[g] = (struct rest){exact - (double)ret_shares[g], g};
    }
    qsort(rests, (size_t)n_groups, sizeof(*rests), by_rest);
    for (int64_t i = 0; given < n; i = (i + 1) % n_groups) {
        int64_t g = rests[i].group;
        if (ret_shares[g] < sizes[g]) {
            ret_shares[g]++;
            given++;
        }
    }
    return 0;
}

static bool is_candidate(const struct sample *s)
{
    return s->part == PART_TRAIN && s->twin_of < 0;
}

/* Samples go where the first of their twins went, so that no picture is on both sides. */
static void follow_twins(struct pack *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        struct sample *s = &p->samples[i];
        if (s->part == PART_TRAIN && s->twin_of >= 0)
            s->part = p->samples[s->twin_of].part;
    }
}

/* Moves n different samples of the train part to `part`, by seed, each class in proportion. */
static int draw(struct pack *p, enum part part, int64_t n, uint64_t stream, struct err *err)
{
    int64_t classes = p->report->labelled ? p->report->n_classes : 1, from = 0;
    _cleanup_(freep) int64_t *sizes = mem_calloc((size_t)classes, 3 * sizeof(*sizes));
    _cleanup_(freep) uint32_t *members = mem_calloc((size_t)p->n + 1, sizeof(*members));
    if (!sizes || !members)
        return err_oom(err, "splitting the data");
    int64_t *shares = sizes + classes, *end = shares + classes; /* end: of each class in members */
    for (int64_t i = 0; i < p->n; i++)
        if (is_candidate(&p->samples[i]))
            sizes[p->report->labelled ? p->samples[i].label : 0]++;
    for (int64_t c = 0; c < classes; from += sizes[c++])
        end[c] = from;
    for (int64_t i = 0; i < p->n; i++)
        if (is_candidate(&p->samples[i]))
            members[end[p->report->labelled ? p->samples[i].label : 0]++] = (uint32_t)i;
    int r = split_shares(sizes, classes, n, shares, err);
    for (int64_t c = 0; c < classes && r == 0; c++) {
        uint32_t *group = members + end[c] - sizes[c];
        struct rng rng;
        rng_seed2(&rng, p->options->seed, stream + (uint64_t)c);
        rng_shuffle_u32(&rng, group, (uint64_t)sizes[c]);
        for (int64_t i = 0; i < shares[c]; i++)
            p->samples[group[i]].part = (int8_t)part;
    }
    follow_twins(p);
    return r;
}

static int64_t count(const struct pack *p, enum part part)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++)
        n += p->samples[i].part == (int)part;
    return n;
}

static int draw_fraction(struct pack *p, enum part part, double fraction, int64_t most,
                         uint64_t stream, struct err *err)
{
    int64_t candidates = 0;
    for (int64_t i = 0; i < p->n; i++)
        candidates += is_candidate(&p->samples[i]);
    int64_t n = (int64_t)(fraction * (double)candidates + 0.5);
    n = n < 1 ? 1 : n > most ? most : n;
    return draw(p, part, n, stream, err);
}

int split_parts(struct pack *p, struct err *err)
{
    const struct dataset_pack_options *o = p->options;
    int r = 0;
    if (count(p, PART_TEST) == 0) {
        r = draw_fraction(p, PART_TEST, TEST_FRACTION, INT64_MAX, STREAM_TEST, err);
        if (r == 0)
            r = pack_warn(p, err,
                          "there is no test part: %lld samples, %.0f %% of the training part, "
                          "were split off by seed",
                          (long long)count(p, PART_TEST), TEST_FRACTION * 100);
    }
    if (r < 0 || count(p, PART_SEARCH))
        return r;
    double fraction =
        p->settings.search_fraction > 0 ? p->settings.search_fraction : SEARCH_FRACTION;
    if (o->search_fraction > 0)
        fraction = o->search_fraction;
    return draw_fraction(p, PART_SEARCH, fraction, o->search_max ? o->search_max : SEARCH_MAX,
                         STREAM_SEARCH, err);
}
