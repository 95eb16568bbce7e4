/* From numbers to ranges: histograms, and the 8-bit range with the least squared error. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/nn/quantize_priv.h"

/* ---- histograms ---- */

int histogram_init(struct histogram *h, struct err *err)
{
    *h = (struct histogram){.min = INFINITY, .max = -INFINITY};
    h->bins = mem_calloc(HISTOGRAM_BINS, sizeof(*h->bins));
    return h->bins ? 0 : err_oom(err, "a histogram");
}

void histogram_release(struct histogram *h)
{
    free(h->bins);
    h->bins = NULL;
}

struct extent {
    float min, max;
    bool finite;
};

/* In lanes, so that compilers can keep them in a vector without reordering comparisons. */
static struct extent extent_of(const float *x, int64_t n)
{
    enum { LANES = 8 };
    float low[LANES], high[LANES];
    int strange[LANES] = {0};
    for (int k = 0; k < LANES; k++)
        low[k] = high[k] = x[0];
    for (int64_t i = 0; i < n; i += LANES) {
        const int count = n - i < LANES ? (int)(n - i) : LANES;
        for (int k = 0; k < count; k++) {
            const float v = x[i + k];
            low[k] = v < low[k] ? v : low[k];
            high[k] = v > high[k] ? v : high[k];
            strange[k] |= !(fabsf(v) <= 3.4028234e38f);
        }
    }
    struct extent e = {.min = low[0], .max = high[0], .finite = true};
    for (int k = 0; k < LANES; k++) {
        e.min = low[k] < e.min ? low[k] : e.min;
        e.max = high[k] > e.max ? high[k] : e.max;
        e.finite = e.finite && !strange[k];
    }
    return e;
}

/* Bin i of the doubled width holds what 2i and 2i + 1 held. */
static void histogram_double(struct histogram *h)
{
    uint64_t *mid = h->bins + HISTOGRAM_HALF;
    for (int i = 0; i < HISTOGRAM_HALF; i++)
        mid[i] = i < HISTOGRAM_HALF / 2 ? mid[2 * i] + mid[2 * i + 1] : 0;
    for (int i = -1; i >= -HISTOGRAM_HALF; i--)
        mid[i] = i >= -HISTOGRAM_HALF / 2 ? mid[2 * i] + mid[2 * i + 1] : 0;
    h->width *= 2;
}

/* The smallest power of two whose bins hold `most`: most < HALF * width. */
static double width_for(double most)
{
    int exponent;
    frexp(most, &exponent); /* most < 2^exponent */
    if (exponent < -100)
        exponent = -100; /* what is smaller is as good as zero, and 1 / width stays a float */
    return ldexp(1.0, exponent) / HISTOGRAM_HALF;
}

static void histogram_widen(struct histogram *h, double most)
{
    double width = width_for(most);
    if (h->width == 0)
        h->width = width;
    while (h->width < width)
        histogram_double(h);
}

static uint64_t histogram_count(struct histogram *h, const float *x, int64_t n)
{
    enum { CHUNK = 1024 };
    int32_t at[CHUNK];
    uint64_t zeros = 0;
    const float inverse = (float)(1.0 / h->width);
    for (int64_t from = 0; from < n; from += CHUNK) {
        const int count = (int)(n - from < CHUNK ? n - from : CHUNK);
        const float *chunk = x + from;
        int32_t none = 0;
#pragma omp simd reduction(+ : none)
        for (int i = 0; i < count; i++) {
            const float x_in_bins = chunk[i] * inverse; /* exact: the width is a power of two */
            const int32_t cut = (int32_t)x_in_bins;
            at[i] = HISTOGRAM_HALF + cut - (x_in_bins < (float)cut);
            none += chunk[i] == 0.0f;
        }
        for (int i = 0; i < count; i++)
            h->bins[at[i]]++;
        zeros += (uint64_t)none;
    }
    return zeros;
}

int histogram_add(struct histogram *h, const float *x, int64_t n, struct err *err)
{
    if (n <= 0)
        return 0;
    const struct extent e = extent_of(x, n);
    if (!e.finite)
        return err_set(err, ERR_OUT_OF_RANGE, "a number is not finite");
    h->min = e.min < h->min ? e.min : h->min;
    h->max = e.max > h->max ? e.max : h->max;
    h->count += (uint64_t)n;
    const double most = fmax(fabs((double)e.min), fabs((double)e.max));
    if (most == 0) {
        h->zeros += (uint64_t)n;
        return 0;
    }
    histogram_widen(h, most);
    const uint64_t zeros = histogram_count(h, x, n);
    h->bins[HISTOGRAM_HALF] -= zeros;
    h->zeros += zeros;
    return 0;
}

/* ---- scales ---- */

struct quant_scale quant_scale_of(double low, double high)
{
    low = low < 0 ? low : 0;
    high = high > 0 ? high : 0;
    double scale = (high - low) / 255;
    /* Products with weights' scales must stay normal floats, too. */
    if (!(scale > 0))
        return (struct quant_scale){.scale = 1.0f, .zero = 0};
    scale = fmin(fmax(scale, 1e-12), 1e30);
    const double zero = fmin(fmax(nearbyint(-low / scale), 0), 255);
    return (struct quant_scale){.scale = (float)scale, .zero = (uint8_t)zero};
}

/* ---- the least squared error ---- */

/* Sums over the bins before i of 1, x and x^2 (each bin's numbers evenly spread in it). */
struct moments {
    double *s0, *s1, *s2; /* [HISTOGRAM_BINS + 1] */
    double width;
};

static void moments_release(struct moments *m)
{
    free(m->s0);
}

static int moments_make(const struct histogram *h, struct moments *m, struct err *err)
{
    const size_t n = HISTOGRAM_BINS + 1;
    m->s0 = mem_calloc(3 * n, sizeof(double));
    if (!m->s0)
        return err_oom(err, "a histogram's moments");
    m->s1 = m->s0 + n;
    m->s2 = m->s1 + n;
    m->width = h->width;
    for (int i = 0; i < HISTOGRAM_BINS; i++) {
        const double c = (double)h->bins[i];
        const double x = (i - HISTOGRAM_HALF + 0.5) * h->width;
        m->s0[i + 1] = m->s0[i] + c;
        m->s1[i + 1] = m->s1[i] + c * x;
        m->s2[i + 1] = m->s2[i] + c * (x * x + h->width * h->width / 12);
    }
    return 0;
}

/* Sum of (x - Q(x))^2: each of the 256 levels takes what lies within half a step of it, the first
 * and the last all beyond. */
static double squared_error(const struct moments *m, double low, double high)
{
    const struct quant_scale q = quant_scale_of(low, high);
    const double scale = (double)q.scale;
    double sum = 0;
    int from = 0;
    for (int level = 0; level < 256; level++) {
        const double x = (level - q.zero) * scale;
        const double edge = (x + scale / 2) / m->width + HISTOGRAM_HALF;
        int to = edge < from ? from : edge > HISTOGRAM_BINS ? HISTOGRAM_BINS : (int)lround(edge);
        if (level == 255)
            to = HISTOGRAM_BINS;
        sum += (m->s2[to] - m->s2[from]) - 2 * x * (m->s1[to] - m->s1[from]) +
               x * x * (m->s0[to] - m->s0[from]);
        from = to;
    }
    return sum > 0 ? sum : 0;
}

struct search {
    const struct moments *m;
    double low, high, error;
};

static void consider(struct search *s, double low, double high)
{
    const double error = squared_error(s->m, low, high);
    if (error < s->error)
        *s = (struct search){.m = s->m, .low = low, .high = high, .error = error};
}

enum side { SIDE_BOTH, SIDE_LOW, SIDE_HIGH };

static void search_side(struct search *s, enum side side, double low, double high, double factor,
                        int steps)
{
    double f = 1;
    for (int i = 0; i < steps; i++, f *= factor)
        consider(s, side == SIDE_HIGH ? s->low : low * f, side == SIDE_LOW ? s->high : high * f);
}

int histogram_range(const struct histogram *h, struct quant_range *ret, struct err *err)
{
    if (h->count == 0)
        return err_set(err, ERR_FAILED_PRECONDITION, "no numbers to take a range from");
    ret->min = h->min;
    ret->max = h->max;
    ret->low = ret->high = ret->mse = 0;
    if (h->width == 0)
        return 0;
    _cleanup_(moments_release) struct moments m = {0};
    int rc = moments_make(h, &m, err);
    if (rc < 0)
        return rc;
    const double low = fmin(h->min, 0), high = fmax(h->max, 0);
    struct search s = {.m = &m, .error = INFINITY};
    search_side(&s, SIDE_BOTH, low, high, 0.97, 140);
    for (int round = 0; round < 3 && low < 0 && high > 0; round++) {
        search_side(&s, SIDE_HIGH, low, high, 0.97, 140);
        search_side(&s, SIDE_LOW, low, high, 0.97, 140);
    }
    /* Finer, around the best. */
    const double near_low = s.low * 1.03, near_high = s.high * 1.03;
    search_side(&s, SIDE_BOTH, fmax(near_low, low), fmin(near_high, high), 0.9975, 24);
    const struct quant_scale q = quant_scale_of(s.low, s.high);
    ret->low = (0.0 - q.zero) * (double)q.scale;
    ret->high = (255.0 - q.zero) * (double)q.scale;
    ret->mse = s.error / (double)h->count;
    return 0;
}

/* ---- lists of ranges ---- */

void quant_ranges_release(struct quant_ranges *ranges)
{
    arena_freep(&ranges->arena);
    *ranges = (struct quant_ranges){0};
}

const struct quant_range *quant_range_find(const struct quant_ranges *ranges, const char *value)
{
    for (int i = 0; ranges && i < ranges->n; i++)
        if (strcmp(ranges->ranges[i].value, value) == 0)
            return &ranges->ranges[i];
    return NULL;
}

int quant_ranges_add(struct quant_ranges *ranges, const struct quant_range *range, struct err *err)
{
    if (!range->value || !isfinite(range->low) || !isfinite(range->high) || range->low > 0 ||
        range->high < 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the range [%g, %g] of value '%s' is none that holds 0", range->low,
                       range->high, range->value ? range->value : "");
    if (!ranges->arena)
        ranges->arena = arena_new();
    if (!ranges->arena)
        return err_oom(err, "ranges");
    if ((ranges->n & (ranges->n - 1)) == 0) { /* full at powers of two */
        const size_t room = ranges->n ? 2 * (size_t)ranges->n : 1;
        struct quant_range *more = arena_alloc(ranges->arena, room, sizeof(*more));
        if (!more)
            return err_oom(err, "ranges");
        if (ranges->n)
            memcpy(more, ranges->ranges, (size_t)ranges->n * sizeof(*more));
        ranges->ranges = more;
    }
    struct quant_range copy = *range;
    copy.value = arena_strdup(ranges->arena, range->value);
    if (!copy.value)
        return err_oom(err, "ranges");
    ranges->ranges[ranges->n++] = copy;
    return 0;
}
