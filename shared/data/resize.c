#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/data/picture.h"

#define WEIGHT_BITS 15
#define WEIGHT_ONE (1 << WEIGHT_BITS)
#define MAX_SCALED (1LL << 30) /* keeps every product below 2^63 */

/* One axis: output i is the sum of weight[first[i] .. ] over inputs begin[i], begin[i] + 1, ... */
struct axis {
    int64_t in, scaled, out; /* sizes: of the picture, resized, cropped */
    int64_t *begin;          /* [out] first input */
    int32_t *count;          /* [out] */
    int64_t *first;          /* [out] into weight */
    int32_t *weight;         /* sums to WEIGHT_ONE for each output */
    size_t n_weights, weight_capacity;
};

struct resizer {
    int64_t channels;
    struct axis x, y;
    uint16_t *rows; /* [height of the picture][out width][3], 8.8 fixed point */
    size_t row_capacity;
    uint8_t *rgb; /* [out height][out width][3] */
};

static void axis_release(struct axis *a)
{
    free(a->begin);
    free(a->count);
    free(a->first);
    free(a->weight);
}

void resizer_freep(struct resizer **r)
{
    if (!*r)
        return;
    axis_release(&(*r)->x);
    axis_release(&(*r)->y);
    free((*r)->rows);
    free((*r)->rgb);
    free(*r);
    *r = NULL;
}

static bool axis_init(struct axis *a, int64_t out)
{
    size_t n = (size_t)out;
    a->out = out;
    a->begin = mem_calloc(n, sizeof(*a->begin));
    a->count = mem_calloc(n, sizeof(*a->count));
    a->first = mem_calloc(n, sizeof(*a->first));
    return a->begin && a->count && a->first;
}

struct resizer *resizer_new(int64_t channels, int64_t height, int64_t width)
{
    _cleanup_(resizer_freep) struct resizer *r = mem_calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->channels = channels;
    r->rgb = mem_calloc((size_t)(height * width), 3);
    if (!r->rgb || !axis_init(&r->x, width) || !axis_init(&r->y, height))
        return NULL;
    return TAKE_PTR(r);
}

static int add_weight(struct axis *a, int32_t weight, struct err *err)
{
    if (a->n_weights == a->weight_capacity) {
        size_t more = a->weight_capacity ? a->weight_capacity * 2 : 256;
        int32_t *grown = mem_realloc(a->weight, more, sizeof(*grown));
        if (!grown)
            return err_oom(err, "resizing");
        a->weight = grown;
        a->weight_capacity = more;
    }
    a->weight[a->n_weights++] = weight;
    return 0;
}

/* Output o covers [o * in, (o + 1) * in) in units of 1/scaled inputs: each input weighs as it is
 * covered. Rounding is carried on, so that the sum is exact. */
static int area_weights(struct axis *a, int64_t i, int64_t o, struct err *err)
{
    int64_t from = o * a->in, to = from + a->in;
    a->begin[i] = from / a->scaled;
    int64_t covered = 0;
    int32_t given = 0;
    for (int64_t k = a->begin[i]; k * a->scaled < to; k++) {
        int64_t low = k * a->scaled > from ? k * a->scaled : from;
        int64_t high = (k + 1) * a->scaled < to ? (k + 1) * a->scaled : to;
        covered += high - low;
        int32_t total = (int32_t)((covered * WEIGHT_ONE + a->in / 2) / a->in);
        int r = add_weight(a, total - given, err);
        if (r < 0)
            return r;
        given = total;
        a->count[i]++;
    }
    return 0;
}

/* The middle of output o lies at ((2 o + 1) * in - scaled) / (2 scaled), between two inputs. */
static int bilinear_weights(struct axis *a, int64_t i, int64_t o, struct err *err)
{
    int64_t at = (2 * o + 1) * a->in - a->scaled, unit = 2 * a->scaled;
    if (at < 0)
        at = 0;
    if (at > (a->in - 1) * unit)
        at = (a->in - 1) * unit;
    a->begin[i] = at / unit;
    int32_t right = (int32_t)((at % unit * WEIGHT_ONE + unit / 2) / unit);
    a->count[i] = right ? 2 : 1;
    int r = add_weight(a, WEIGHT_ONE - right, err);
    return r < 0 || !right ? r : add_weight(a, right, err);
}

static int axis_prepare(struct axis *a, int64_t in, int64_t scaled, struct err *err)
{
    if (a->in == in && a->scaled == scaled)
        return 0;
    a->in = in;
    a->scaled = scaled;
    a->n_weights = 0;
    int64_t crop = (scaled - a->out) / 2;
    for (int64_t i = 0; i < a->out; i++) {
        a->first[i] = (int64_t)a->n_weights;
        a->count[i] = 0;
        int r =
            scaled < in ? area_weights(a, i, crop + i, err) : bilinear_weights(a, i, crop + i, err);
        if (r < 0) {
            a->in = 0; /* the tables are not complete */
            return r;
        }
    }
    return 0;
}

static int prepare(struct resizer *r, const struct picture *pic, struct err *err)
{
    int64_t w = r->x.out, h = r->y.out, scaled_w = w, scaled_h = h;
    /* sizes are below 2^31, so that products of two fit */
    if (w * pic->height >= h * pic->width) /* the width is what is short */
        scaled_h = (pic->height * w + pic->width / 2) / pic->width;
    else
        scaled_w = (pic->width * h + pic->height / 2) / pic->height;
    scaled_w = scaled_w < w ? w : scaled_w;
    scaled_h = scaled_h < h ? h : scaled_h;
    if (scaled_w > MAX_SCALED || scaled_h > MAX_SCALED)
        return err_set(err, ERR_INVALID_ARGUMENT, "%lld x %lld pixels are too long and thin",
                       (long long)pic->width, (long long)pic->height);
    int e = axis_prepare(&r->x, pic->width, scaled_w, err);
    if (e == 0)
        e = axis_prepare(&r->y, pic->height, scaled_h, err);
    size_t need;
    if (e < 0 || mem_mul((size_t)pic->height, (size_t)w * 3, &need) < 0)
        return e < 0 ? e : err_oom(err, "resizing");
    if (need > r->row_capacity) {
        uint16_t *grown = mem_realloc(r->rows, need, sizeof(*grown));
        if (!grown)
            return err_oom(err, "resizing");
        r->rows = grown;
        r->row_capacity = need;
    }
    return 0;
}

/* Rows that the crop needs: -> 8.8 fixed point. */
static void run_x(struct resizer *r, const struct picture *pic)
{
    const struct axis *x = &r->x, *y = &r->y;
    int64_t y0 = y->begin[0], y1 = y->begin[y->out - 1] + y->count[y->out - 1];
    for (int64_t row = y0; row < y1; row++) {
        const uint8_t *in = pic->rgb + row * pic->width * 3;
        uint16_t *out = r->rows + row * x->out * 3;
        for (int64_t i = 0; i < x->out; i++) {
            const uint8_t *p = in + x->begin[i] * 3;
            const int32_t *weight = x->weight + x->first[i];
            int32_t sum[3] = {64, 64, 64};
            for (int32_t k = 0; k < x->count[i]; k++)
                for (int c = 0; c < 3; c++)
                    sum[c] += weight[k] * p[k * 3 + c];
            for (int c = 0; c < 3; c++)
                out[i * 3 + c] = (uint16_t)(sum[c] >> (WEIGHT_BITS - 8));
        }
    }
}

static void run_y(struct resizer *r)
{
    const struct axis *y = &r->y;
    int64_t width = r->x.out * 3;
    for (int64_t i = 0; i < y->out; i++) {
        const uint16_t *in = r->rows + y->begin[i] * width;
        const int32_t *weight = y->weight + y->first[i];
        uint8_t *out = r->rgb + i * width;
        for (int64_t j = 0; j < width; j++) {
            uint32_t sum = 1u << (WEIGHT_BITS + 7); /* at most 65280 * 2^15 + this: fits */
            for (int32_t k = 0; k < y->count[i]; k++)
                sum += (uint32_t)weight[k] * in[k * width + j];
            out[j] = (uint8_t)(sum >> (WEIGHT_BITS + 8));
        }
    }
}

static void to_planes(const uint8_t *rgb, int64_t pixels, int64_t channels, uint8_t *out)
{
    if (channels == 1) {
        for (int64_t i = 0; i < pixels; i++)
            out[i] = (uint8_t)((rgb[i * 3] * 19595u + rgb[i * 3 + 1] * 38470u +
                                rgb[i * 3 + 2] * 7471u + 0x8000u) >>
                               16);
        return;
    }
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t c = 0; c < 3; c++)
            out[c * pixels + i] = rgb[i * 3 + c];
}

int resizer_run(struct resizer *r, const struct picture *pic, uint8_t *out, bool *ret_resized,
                struct err *err)
{
    int64_t pixels = r->x.out * r->y.out;
    bool other = pic->width != r->x.out || pic->height != r->y.out;
    if (other) {
        int e = prepare(r, pic, err);
        if (e < 0)
            return e;
        run_x(r, pic);
        run_y(r);
    }
    to_planes(other ? r->rgb : pic->rgb, pixels, r->channels, out);
    *ret_resized = other;
    return 0;
}
