#include "shared/data/augment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/base/str.h"

/* gcc turns loops of unknown length into vectors from -O3 on; clang from -O2. */
#ifndef __clang__
#pragma GCC optimize("O3")
#endif

/* Streams of the seed: each kind of choice draws from its own, so that turning one on or off leaves
 * the others as they were. */
enum stream { STREAM_FLIP = 1, STREAM_CROP, STREAM_COLOUR, STREAM_CUTOUT, STREAM_TIME, STREAM_MIX };

static void seed_choice(struct rng *rng, uint64_t seed, enum stream stream, uint64_t view,
                        uint64_t i)
{
    rng_seed2(rng, seed, (uint64_t)stream << 56 ^ view << 32 ^ i);
}

/* -n .. n */
static int64_t draw_around(struct rng *rng, int64_t n)
{
    return (int64_t)rng_below(rng, (uint64_t)(2 * n + 1)) - n;
}

static double draw_factor(struct rng *rng, double width)
{
    return 1 + width * (2 * rng_f64(rng) - 1);
}

/* ---- what is done to one sample ---- */

struct blank {
    int64_t y, x, height, width;
};

struct choice {
    int64_t dy, dx; /* out[y][x] = in[y + dy][x + dx] */
    bool flip;
    bool colours;
    double brightness, contrast, saturation;
    int n_blanks;
    struct blank blanks[3];
};

static bool draw_flip(const struct augmenter *a, uint64_t view, uint32_t i)
{
    struct rng rng;
    if (a->how.flip == FLIP_NONE)
        return false;
    bool alternating = a->how.flip == FLIP_ALTERNATING;
    seed_choice(&rng, a->seed, STREAM_FLIP, alternating ? 0 : view, i);
    return (rng_u64(&rng) >> 63) ^ (alternating ? view & 1 : 0);
}

static void draw_colours(const struct augmenter *a, uint64_t view, uint32_t i, struct choice *c)
{
    const struct augment *how = &a->how;
    struct rng rng;
    c->colours = how->brightness > 0 || how->contrast > 0 || how->saturation > 0;
    if (!c->colours)
        return;
    seed_choice(&rng, a->seed, STREAM_COLOUR, view, i);
    c->brightness = draw_factor(&rng, how->brightness);
    c->contrast = draw_factor(&rng, how->contrast);
    c->saturation = draw_factor(&rng, how->saturation);
}

static void draw_times(const struct augmenter *a, uint64_t view, uint32_t i, const int64_t shape[3],
                       struct choice *c)
{
    const struct augment *how = &a->how;
    struct rng rng;
    seed_choice(&rng, a->seed, STREAM_TIME, view, i);
    c->dy += draw_around(&rng, how->time_shift);
    int64_t rows = (int64_t)rng_below(&rng, (uint64_t)how->time_mask + 1);
    int64_t columns = (int64_t)rng_below(&rng, (uint64_t)how->frequency_mask + 1);
    int64_t y = (int64_t)rng_below(&rng, (uint64_t)(shape[1] - rows) + 1);
    int64_t x = (int64_t)rng_below(&rng, (uint64_t)(shape[2] - columns) + 1);
    if (rows)
        c->blanks[c->n_blanks++] = (struct blank){y, 0, rows, shape[2]};
    if (columns)
        c->blanks[c->n_blanks++] = (struct blank){0, x, shape[1], columns};
}

static struct choice draw(const struct augmenter *a, uint64_t view, uint32_t i,
                          const int64_t shape[3])
{
    const struct augment *how = &a->how;
    struct choice c = {.flip = draw_flip(a, view, i)};
    struct rng rng;
    if (how->crop) {
        seed_choice(&rng, a->seed, STREAM_CROP, view, i);
        c.dy = draw_around(&rng, how->crop);
        c.dx = draw_around(&rng, how->crop);
    }
    draw_colours(a, view, i, &c);
    if (how->cutout) {
        seed_choice(&rng, a->seed, STREAM_CUTOUT, view, i);
        int64_t y = (int64_t)rng_below(&rng, (uint64_t)shape[1]) - how->cutout / 2;
        int64_t x = (int64_t)rng_below(&rng, (uint64_t)shape[2]) - how->cutout / 2;
        c.blanks[c.n_blanks++] = (struct blank){y, x, how->cutout, how->cutout};
    }
    if (how->time_mask || how->frequency_mask || how->time_shift)
        draw_times(a, view, i, shape, &c);
    return c;
}

/* ---- rows ---- */

static void scale_u8(const uint8_t *restrict in, int64_t n, float a, float b, float *restrict out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)in[i] * a + b;
}

static void scale_f32(const float *restrict in, int64_t n, float a, float b, float *restrict out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = in[i] * a + b;
}

/* One plane of a sample, stored or coloured. */
struct plane {
    const uint8_t *u8; /* one of the two */
    const float *f32;
    int64_t height, width;
    float a, b; /* normalised = a * x + b */
};

static void scale_run(const struct plane *p, int64_t at, int64_t n, float *out)
{
    if (p->u8)
        scale_u8(p->u8 + at, n, p->a, p->b, out);
    else
        scale_f32(p->f32 + at, n, p->a, p->b, out);
}

static int64_t reflect(int64_t i, int64_t n)
{
    if (i < 0)
        i = -i;
    return i < n ? i : 2 * (n - 1) - i;
}

static void reverse(float *x, int64_t n)
{
    for (int64_t i = 0; i < n / 2; i++) {
        float t = x[i];
        x[i] = x[n - 1 - i];
        x[n - 1 - i] = t;
    }
}

static void fill_row(const struct plane *p, const struct choice *c, enum augment_border border,
                     int64_t y, float *out)
{
    int64_t from = y + c->dy, w = p->width;
    int64_t first = c->dx < 0 ? -c->dx : 0, end = c->dx > 0 ? w - c->dx : w;
    if (border == BORDER_REFLECT)
        from = reflect(from, p->height);
    if (from < 0 || from >= p->height || first >= end) {
        memset(out, 0, (size_t)w * sizeof(*out));
        return;
    }
    scale_run(p, from * w + first + c->dx, end - first, out + first);
    for (int64_t x = 0; x < first; x++)
        out[x] = 0;
    for (int64_t x = end; x < w; x++)
        out[x] = 0;
    if (border == BORDER_REFLECT) {
        for (int64_t x = 0; x < first; x++)
            scale_run(p, from * w + reflect(x + c->dx, w), 1, out + x);
        for (int64_t x = end; x < w; x++)
            scale_run(p, from * w + reflect(x + c->dx, w), 1, out + x);
    }
    if (c->flip)
        reverse(out, w);
}

static void blank_out(const struct blank *b, const int64_t shape[3], float *out)
{
    int64_t top = b->y > 0 ? b->y : 0, left = b->x > 0 ? b->x : 0;
    int64_t bottom = b->y + b->height < shape[1] ? b->y + b->height : shape[1];
    int64_t right = b->x + b->width < shape[2] ? b->x + b->width : shape[2];
    for (int64_t c = 0; c < shape[0] && right > left; c++)
        for (int64_t y = top; y < bottom; y++)
            memset(out + (c * shape[1] + y) * shape[2] + left, 0,
                   (size_t)(right - left) * sizeof(*out));
}

/* ---- colours ---- */

/* Brightness, then contrast around the picture's mean grey, then saturation around each pixel's
 * grey: all linear, so together out = a * x + b * grey(x) + c. Cut to 0..255 at the end. */
static void colour(const uint8_t *restrict in, int64_t n, const struct choice *choice,
                   float *restrict out)
{
    const float red = 0.299f, green = 0.587f, blue = 0.114f;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum +=
            (double)(red * (float)in[i] + green * (float)in[n + i] + blue * (float)in[2 * n + i]);
    const float own = (float)(choice->saturation * choice->contrast * choice->brightness);
    const float grey = (float)((1 - choice->saturation) * choice->contrast * choice->brightness);
    const float flat = (float)((1 - choice->contrast) * choice->brightness * sum / (double)n);
    for (int64_t i = 0; i < n; i++) {
        const float r = in[i], g = in[n + i], b = in[2 * n + i];
        const float base = grey * (red * r + green * g + blue * b) + flat;
        const float x = own * r + base, y = own * g + base, z = own * b + base;
        out[i] = x < 0 ? 0 : x > 255 ? 255 : x;
        out[n + i] = y < 0 ? 0 : y > 255 ? 255 : y;
        out[2 * n + i] = z < 0 ? 0 : z > 255 ? 255 : z;
    }
}

/* ---- samples ---- */

static void fill_sample(const struct augmenter *a, uint64_t view, uint32_t i,
                        const int64_t shape[3], float *coloured, float *out)
{
    const struct choice c = draw(a, view, i, shape);
    const struct preprocess *pre = &a->pre;
    const int64_t plane = shape[1] * shape[2];
    const bool picture = dataset_is_picture(a->ds);
    const uint8_t *u8 = picture ? dataset_u8(a->ds, a->part, i) : NULL;
    const float *f32 = picture ? NULL : dataset_f32(a->ds, a->part, i);
    if (c.colours) {
        colour(u8, plane, &c, coloured);
        f32 = coloured;
        u8 = NULL;
    }
    for (int64_t ch = 0; ch < shape[0]; ch++) {
        const int64_t from = preprocess_channel(pre, ch, shape[0]) * plane;
        struct plane p = {.u8 = u8 ? u8 + from : NULL,
                          .f32 = u8 ? NULL : f32 + from,
                          .height = shape[1],
                          .width = shape[2]};
        preprocess_affine(pre, ch, &p.a, &p.b);
        for (int64_t y = 0; y < shape[1]; y++)
            fill_row(&p, &c, a->how.border, y, out + ch * plane + y * shape[2]);
    }
    for (int b = 0; b < c.n_blanks; b++)
        blank_out(&c.blanks[b], shape, out);
}

int augment_fill(const struct augmenter *a, uint64_t view, const uint32_t *index, int64_t count,
                 float *out, struct err *err)
{
    int64_t shape[3], total = dataset_count(a->ds, a->part);
    dataset_sample_shape(a->ds, shape);
    const int64_t width = shape[0] * shape[1] * shape[2];
    const bool colours = a->how.brightness > 0 || a->how.contrast > 0 || a->how.saturation > 0;
    _cleanup_(freep) float *coloured = NULL;
    if (colours) {
        coloured = mem_aligned((size_t)width * sizeof(*coloured));
        if (!coloured)
            return err_oom(err, "augmentation");
    }
    for (int64_t k = 0; k < count; k++) {
        if (index[k] >= total)
            return err_set(err, ERR_OUT_OF_RANGE, "sample %u of %lld", index[k], (long long)total);
        fill_sample(a, view, index[k], shape, coloured, out + k * width);
    }
    return 0;
}

/* ---- settings ---- */

static int check_factors(const struct augment *how, bool rgb, struct err *err)
{
    const double factors[] = {how->brightness, how->contrast, how->saturation};
    static const char *const names[] = {"brightness", "contrast", "saturation"};
    for (int i = 0; i < 3; i++) {
        if (!(factors[i] >= 0 && factors[i] <= 1))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s varies by 0 to 1, not %g", names[i],
                           factors[i]);
        if (factors[i] > 0 && !rgb)
            return err_set(err, ERR_INVALID_ARGUMENT, "%s can be changed in RGB pictures only",
                           names[i]);
    }
    return 0;
}

int augment_check(const struct augment *how, const struct dataset *ds, struct err *err)
{
    int64_t shape[3];
    dataset_sample_shape(ds, shape);
    const int64_t least = shape[1] < shape[2] ? shape[1] : shape[2];
    const struct {
        const char *name;
        int value;
        int64_t most;
    } lengths[] = {{"crop", how->crop, how->border == BORDER_REFLECT ? least - 1 : least},
                   {"cutout", how->cutout, least},
                   {"a time mask", how->time_mask, shape[1]},
                   {"a frequency mask", how->frequency_mask, shape[2]},
                   {"a shift of time", how->time_shift, shape[1]}};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
        if (lengths[i].value < 0 || lengths[i].value > lengths[i].most)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "%s of %d; samples of %lldx%lld allow 0 to %lld", lengths[i].name,
                           lengths[i].value, (long long)shape[1], (long long)shape[2],
                           (long long)(lengths[i].most > 0 ? lengths[i].most : 0));
    if (how->time_shift && how->border == BORDER_REFLECT)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s",
                       "time that is shifted has no mirrored border");
    return check_factors(how, dataset_is_picture(ds) && shape[0] == 3, err);
}

char *augment_text(const struct augment *how)
{
    static const char *const flips[] = {"none", "random", "alternating"};
    return str_printf("crop=%d border=%s flip=%s cutout=%d brightness=%.17g contrast=%.17g "
                      "saturation=%.17g time_mask=%d frequency_mask=%d time_shift=%d",
                      how->crop, how->border == BORDER_REFLECT ? "reflect" : "zero",
                      flips[how->flip], how->cutout, how->brightness, how->contrast,
                      how->saturation, how->time_mask, how->frequency_mask, how->time_shift);
}

/* ---- mixup ---- */

/* Gamma(a, 1) by Marsaglia and Tsang (2000); below 1 through a + 1. */
static double draw_gamma(struct rng *rng, double a)
{
    if (a < 1)
        return draw_gamma(rng, a + 1) * pow(1 - rng_f64(rng), 1 / a);
    const double d = a - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = rng_normal(rng), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(1 - rng_f64(rng)) < x * x / 2 + d - d * v + d * log(v))
            return d * v;
    }
}

double augment_mix_share(double alpha, uint64_t seed, uint64_t epoch, uint32_t i)
{
    struct rng rng;
    if (!(alpha > 0))
        return 1;
    seed_choice(&rng, seed, STREAM_MIX, epoch, i);
    const double x = draw_gamma(&rng, alpha), y = draw_gamma(&rng, alpha);
    const double b = x + y > 0 ? x / (x + y) : 1; /* both vanish for tiny alpha only */
    return b > 0.5 ? b : 1 - b;
}

void augment_mix(float *x, int64_t n, int64_t width, const float *share, float *spare)
{
    if (n < 1)
        return;
    memcpy(spare, x, (size_t)width * sizeof(*spare));
    for (int64_t k = 0; k < n; k++) {
        float *restrict row = x + k * width;
        const float *restrict next = k + 1 < n ? x + (k + 1) * width : spare;
        const float own = share[k], other = 1 - share[k];
        for (int64_t i = 0; own < 1 && i < width; i++)
            row[i] = own * row[i] + other * next[i];
    }
}
