/*
 * Depthwise 3x3 convolution of 8 bits, channels last, for AVX-512 VNNI: libraries spend most of
 * their time there on bringing bytes into place.
 *
 * A register holds 16 channels of one column of the window: in each 32-bit lane the bytes of three
 * rows, and a zero. One vpdpbusd multiplies it with that column's weights, so that an output of 16
 * channels takes three of them; with stride 1 a column is made once and serves three outputs. Rows
 * and columns outside the picture hold the input's zero point.
 *
 * Where channels are a multiple of 64, four registers are made at once by interleaving the bytes of
 * the rows, and packing the results undoes that order, in which weights and scales lie (place_of).
 */
#include <math.h>
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/nn/step_direct.h"
#include "shared/nn/step_direct_priv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

struct depthwise {
    struct direct d; /* scales, biases, bounds, threads; zero */
    int64_t n, channels, height, width, out_height, out_width, stride;
    int64_t above, left;   /* padding */
    int64_t lanes;         /* channels at once: 64 or 16 */
    int32_t *weights;      /* [3 columns, channels]: three rows in the bytes, and 0 */
    float *scale, *bias;   /* [channels]; these three in the order of place_of */
    const uint8_t *beyond; /* a row of zero points */
};

/* The output row of one block of channels. */
struct row {
    const uint8_t *in[3];
    const int32_t *weights; /* of the first column */
    const float *scale, *bias;
    uint8_t *out;
};

/* Where channel c of a block stands. */
static int64_t place_of(const struct depthwise *k, int64_t c)
{
    return k->lanes == 16 ? c : c % 16 / 4 * 16 + c / 16 * 4 + c % 4;
}

/* ---- plain C ---- */

static int32_t sum_plain(const struct depthwise *k, const struct row *row, int64_t x, int c)
{
    int32_t sum = 0;
    for (int column = 0; column < 3; column++) {
        const int64_t at = x * k->stride + column - k->left;
        const uint32_t w = (uint32_t)row->weights[column * k->channels + place_of(k, c)];
        for (int r = 0; r < 3; r++) {
            const int32_t pixel = at < 0 || at >= k->width ? (int32_t)(k->d.zero & 255)
                                                           : row->in[r][at * k->channels + c];
            sum += pixel * (int8_t)(w >> 8 * r & 255);
        }
    }
    return sum;
}

static void row_plain(const struct depthwise *k, const struct row *row)
{
    for (int64_t x = 0; x < k->out_width; x++)
        for (int c = 0; c < k->lanes; c++) {
            const int64_t at = place_of(k, c);
            float y = (float)sum_plain(k, row, x, c) * row->scale[at] + row->bias[at];
            y = y > k->d.low ? y : k->d.low;
            y = y < k->d.high ? y : k->d.high;
            row->out[x * k->channels + c] = (uint8_t)rintf(y);
        }
}

/* ---- AVX-512 VNNI ---- */

#if defined(__x86_64__)
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

VNNI KERNEL_INLINE __m512i widen(const uint8_t *from)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
}

VNNI KERNEL_INLINE __m512i column_of(const struct depthwise *k, const struct row *row, int64_t x)
{
    if (x < 0 || x >= k->width)
        return _mm512_set1_epi32((int32_t)(k->d.zero & 0xffffff));
    const int64_t at = x * k->channels;
    const __m512i second = _mm512_slli_epi32(widen(row->in[1] + at), 8);
    const __m512i third = _mm512_slli_epi32(widen(row->in[2] + at), 16);
    return _mm512_ternarylogic_epi32(widen(row->in[0] + at), second, third, 0xfe);
}

struct block {
    __m512i weights[3];
    __m512 scale, bias, low, high;
};

VNNI KERNEL_INLINE void output_of(const struct block *b, __m512i left, __m512i middle,
                                  __m512i right, uint8_t *to)
{
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), left, b->weights[0]);
    sum = _mm512_dpbusd_epi32(sum, middle, b->weights[1]);
    sum = _mm512_dpbusd_epi32(sum, right, b->weights[2]);
    __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), b->scale, b->bias);
    y = _mm512_min_ps(_mm512_max_ps(y, b->low), b->high);
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(y)));
}

VNNI static void row_16(const struct depthwise *k, const struct row *row)
{
    struct block b = {.scale = _mm512_loadu_ps(row->scale),
                      .bias = _mm512_loadu_ps(row->bias),
                      .low = _mm512_set1_ps(k->d.low),
                      .high = _mm512_set1_ps(k->d.high)};
    for (int i = 0; i < 3; i++)
        b.weights[i] = _mm512_loadu_si512(row->weights + i * k->channels);
    uint8_t *to = row->out;
    int64_t at = -k->left;
    __m512i left = column_of(k, row, at);
    if (k->stride == 2) {
        for (int64_t x = 0; x < k->out_width; x++, at += 2, to += k->channels) {
            const __m512i middle = column_of(k, row, at + 1), right = column_of(k, row, at + 2);
            output_of(&b, left, middle, right, to);
            left = right;
        }
        return;
    }
    __m512i middle = column_of(k, row, at + 1);
    for (int64_t x = 0; x < k->out_width; x++, at++, to += k->channels) {
        const __m512i right = column_of(k, row, at + 2);
        output_of(&b, left, middle, right, to);
        left = middle;
        middle = right;
    }
}

/* 64 channels of a column. */
struct wide {
    __m512i part[4];
};

VNNI KERNEL_INLINE struct wide wide_column(const struct depthwise *k, const struct row *row,
                                           int64_t x)
{
    const __m512i beyond = _mm512_set1_epi32((int32_t)(k->d.zero & 0xffffff));
    if (x < 0 || x >= k->width)
        return (struct wide){{beyond, beyond, beyond, beyond}};
    const int64_t at = x * k->channels;
    const __m512i a = _mm512_loadu_si512(row->in[0] + at), b = _mm512_loadu_si512(row->in[1] + at),
                  c = _mm512_loadu_si512(row->in[2] + at), zero = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(a, b), low_c = _mm512_unpacklo_epi8(c, zero);
    const __m512i high = _mm512_unpackhi_epi8(a, b), high_c = _mm512_unpackhi_epi8(c, zero);
    return (struct wide){{_mm512_unpacklo_epi16(low, low_c), _mm512_unpackhi_epi16(low, low_c),
                          _mm512_unpacklo_epi16(high, high_c),
                          _mm512_unpackhi_epi16(high, high_c)}};
}

VNNI KERNEL_INLINE __m512i wide_part(const struct depthwise *k, const struct row *row, int i,
                                     __m512i left, __m512i middle, __m512i right)
{
    const int32_t *w = row->weights + (ptrdiff_t)16 * i;
    const ptrdiff_t column = k->channels;
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), left, _mm512_loadu_si512(w));
    sum = _mm512_dpbusd_epi32(sum, middle, _mm512_loadu_si512(w + column));
    sum = _mm512_dpbusd_epi32(sum, right, _mm512_loadu_si512(w + 2 * column));
    __m512 y =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(row->scale + (ptrdiff_t)16 * i),
                        _mm512_loadu_ps(row->bias + (ptrdiff_t)16 * i));
    if (k->d.bounds)
        y = _mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(k->d.low)), _mm512_set1_ps(k->d.high));
    return _mm512_cvtps_epi32(y);
}

VNNI KERNEL_INLINE void wide_output(const struct depthwise *k, const struct row *row,
                                    const struct wide *left, const struct wide *middle,
                                    const struct wide *right, uint8_t *to)
{
    __m512i y[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        y[i] = wide_part(k, row, i, left->part[i], middle->part[i], right->part[i]);
    _mm512_storeu_si512(
        to, _mm512_packus_epi16(_mm512_packs_epi32(y[0], y[1]), _mm512_packs_epi32(y[2], y[3])));
}

VNNI static void row_64(const struct depthwise *k, const struct row *row)
{
    uint8_t *to = row->out;
    int64_t at = -k->left;
    struct wide left = wide_column(k, row, at);
    if (k->stride == 2) {
        for (int64_t x = 0; x < k->out_width; x++, at += 2, to += k->channels) {
            const struct wide middle = wide_column(k, row, at + 1),
                              right = wide_column(k, row, at + 2);
            wide_output(k, row, &left, &middle, &right, to);
            left = right;
        }
        return;
    }
    struct wide middle = wide_column(k, row, at + 1);
    for (int64_t x = 0; x < k->out_width; x++, at++, to += k->channels) {
        const struct wide right = wide_column(k, row, at + 2);
        wide_output(k, row, &left, &middle, &right, to);
        left = middle;
        middle = right;
    }
}
#endif

/* ---- the step ---- */

typedef void row_fn(const struct depthwise *k, const struct row *row);

/* Rows `first` to `last` - 1 of all samples' outputs. */
static void run_range(const struct step *step, row_fn *run, int64_t first, int64_t last)
{
    const struct depthwise *k = step->state;
    for (int64_t i = first; i < last; i++) {
        const int64_t n = i / k->out_height, top = i % k->out_height * k->stride - k->above;
        const uint8_t *in = (const uint8_t *)step->data[0] + n * k->height * k->width * k->channels;
        for (int64_t c = 0; c < k->channels; c += k->lanes) {
            struct row row = {.weights = k->weights + c,
                              .scale = k->scale + c,
                              .bias = k->bias + c,
                              .out = (uint8_t *)step->data[1] + i * k->out_width * k->channels + c};
            for (int r = 0; r < 3; r++)
                row.in[r] = top + r < 0 || top + r >= k->height
                                ? k->beyond + c
                                : in + (top + r) * k->width * k->channels + c;
            run(k, &row);
        }
    }
}

static void run_rows(const struct step *step, row_fn *run)
{
    const struct depthwise *k = step->state;
    const int64_t total = k->n * k->out_height;
    if (k->d.threads == 1) {
        run_range(step, run, 0, total);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(k->d.threads)
    for (int i = 0; i < k->d.threads; i++)
        run_range(step, run, total * i / k->d.threads, total * (i + 1) / k->d.threads);
}

static int run_plain(struct step *step, struct err *err)
{
    (void)err;
    run_rows(step, row_plain);
    return 0;
}

#if defined(__x86_64__)
static int run_vnni(struct step *step, struct err *err)
{
    (void)err;
    const struct depthwise *k = step->state;
    run_rows(step, k->lanes == 64 ? row_64 : row_16);
    return 0;
}
#endif

/* ---- what it can run ---- */

static bool can_run(const struct maker *m, const struct layer *layer)
{
    const struct conv *c = &layer->conv;
    const struct window *w = &c->w;
    const struct wire *out = &m->plan->wires[layer->out[0]];
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    return layer->precision == PRECISION_INT8 && !c->transposed && in->dtype == DTYPE_U8 &&
           out->quantized && out->dtype == DTYPE_U8 && layer->n_in == 1 &&
           direct_simple_posts(layer) && w->rank == 2 && w->group == c->ic && c->oc == c->ic &&
           c->ic % LANES == 0 && w->kernel[0] == 3 && w->kernel[1] == 3 && w->dilation[0] == 1 &&
           w->dilation[1] == 1 && w->stride[0] == w->stride[1] && w->stride[0] <= 2 &&
           w->in[0] * w->in[1] * c->ic < (int64_t)1 << 30;
}

static int list(const struct implementation *by, struct maker *m, const struct layer *layer,
                enum layout in, enum layout out, struct choices *choices, struct err *err)
{
    if (in != LAYOUT_LAST || out != LAYOUT_LAST || !can_run(m, layer))
        return 0;
    const struct choice choice = {.by = by, .in = in, .out = out};
    return choices_add(choices, &choice, err);
}

static int list_vnni(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    if (kernel_level() != KERNEL_AVX512 || !nn_has_int8())
        return 0;
    return list(&depthwise_vnni, m, layer, in, out, choices, err);
}

static int list_plain(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    const char *forced = m->options->implementation; /* too slow to be tried */
    if (!forced || !strstr(depthwise_plain.name, forced))
        return 0;
    return list(&depthwise_plain, m, layer, in, out, choices, err);
}

/* ---- building ---- */

static int make_tables(struct maker *m, const struct conv *c, struct depthwise *k, struct err *err)
{
    const size_t row = (size_t)(k->width * k->channels), n = (size_t)k->channels;
    uint8_t *beyond = arena_alloc(m->arena, row, 1);
    k->weights = arena_alloc(m->arena, 3 * n, sizeof(*k->weights));
    k->scale = arena_alloc(m->arena, n, sizeof(*k->scale));
    k->bias = arena_alloc(m->arena, n, sizeof(*k->bias));
    if (!beyond || !k->weights || !k->scale || !k->bias)
        return err_oom(err, "a convolution");
    memset(beyond, (int)(k->d.zero & 255), row);
    k->beyond = beyond;
    m->plan->packed_bytes += 3 * n * sizeof(*k->weights);
    const uint8_t *from = c->weights->data; /* [channels, 3 rows, 3 columns] */
    for (int64_t o = 0; o < k->channels; o++) {
        const int64_t to = o / k->lanes * k->lanes + place_of(k, o % k->lanes);
        k->scale[to] = k->d.scale[o];
        k->bias[to] = k->d.bias[o];
        for (int column = 0; column < 3; column++) {
            const uint8_t *w = from + 9 * o + column;
            k->weights[column * k->channels + to] =
                (int32_t)(w[0] | (uint32_t)w[3] << 8 | (uint32_t)w[6] << 16);
        }
    }
    return 0;
}

static int make_depthwise(struct maker *m, const struct layer *layer, struct step *step,
                          struct err *err)
{
    const struct conv *c = &layer->conv;
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    struct depthwise *k = arena_alloc(m->arena, 1, sizeof(*k));
    if (!k)
        return err_oom(err, "a convolution");
    *k = (struct depthwise){.n = c->n,
                            .channels = c->ic,
                            .height = c->w.in[0],
                            .width = c->w.in[1],
                            .out_height = c->w.out[0],
                            .out_width = c->w.out[1],
                            .stride = c->w.stride[0],
                            .above = c->w.pad_begin[0],
                            .left = c->w.pad_begin[1]};
    k->d.n_taps = 9;
    k->d.outputs = LANES;
    k->d.out_tiles = c->oc / LANES;
    k->d.threads = m->options->threads;
    k->d.zero = (uint32_t)in->zero * 0x01010101u;
    step->state = k;
    k->lanes = c->ic % 64 == 0 ? 64 : 16;
    int rc = direct_scales(m, layer, &k->d, err);
    return rc == 0 ? make_tables(m, c, k, err) : rc;
}

static int make_plain(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    (void)choice;
    step->run = run_plain;
    step->info.implementation = depthwise_plain.name;
    return make_depthwise(m, layer, step, err);
}

static int make_vnni(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
#if defined(__x86_64__)
    (void)choice;
    step->run = run_vnni;
    step->info.implementation = depthwise_vnni.name;
    return make_depthwise(m, layer, step, err);
#else
    (void)m, (void)layer, (void)choice, (void)step, (void)err;
    return -ERR_UNIMPLEMENTED;
#endif
}

const struct implementation depthwise_vnni = {
    .name = "depthwise:avx512_core_vnni", .list = list_vnni, .make = make_vnni};
const struct implementation depthwise_plain = {
    .name = "depthwise:plain", .list = list_plain, .make = make_plain};
