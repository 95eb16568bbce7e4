#include "shared/train/kernel_conv3.h"

#include "shared/train/kernel_vec.h"
#include "shared/train/net_priv.h"

enum {
    TAPS = 9,
    PAIRS = 2 * VEC,                 /* elements of a vector of pairs */
    BLOCK_WEIGHTS = VEC / 2 * PAIRS, /* of one tap: 16 by 16 channels */
    MAX_PIXELS = 16,
    MAX_VECS = 4,
    PRODUCT_CHANNELS = 8,
    COPY_BYTES = 96 << 10,  /* of scratch memory for an input */
    PAIR_BYTES = 256 << 10, /* for interleaved input and gradient */
    PRODUCT_PIXELS = 256,   /* so many at least before sums go back to memory, if there are */
};

/* Part of a picture in scratch memory: [channels / 16][rows][stride][columns][16] (or pairs). */
struct picture {
    int64_t first_row, rows; /* of the source; rows and columns outside of it are zeros */
    int64_t left;            /* columns before the source */
    int64_t columns;         /* of one parity */
    int64_t stride;
    int64_t row, block; /* pitches in elements */
};

/* One pass over outputs: out[r, q] = sum over taps of in[r, q + tap's offset]. */
struct sweep {
    int64_t blocks, block, row; /* of the input: blocks of 16 channels, pitches */
    int n_taps, begin, end;     /* all, by their rows; those of the row in hand */
    int64_t offset[TAPS], tap[TAPS];
    int64_t line[TAPS], line_step, lines; /* source row of the first output row, of how many */
    int64_t vector; /* from the weights of 16 output channels to the next ones' */
    int64_t rows, columns, channels;
    int64_t to_row, to_pixel;
};

struct product {
    int64_t pairs, rows, columns;
    int64_t x_pair, x_row, x_tap, dy_pair;
    int64_t line, line_step, lines; /* source row of the first tap and output row, of how many */
    int64_t to_tap, to_channel;
};

typedef void tile_fn(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                     uint16_t *to);

struct conv3_loops {
    tile_fn *tile[4];
    void (*product)(const struct product *j, const uint16_t *x, const uint16_t *dy, float *to);
    void (*gather)(const uint16_t *from, int64_t step, int64_t n, uint16_t *to);
    void (*gather_pairs)(const uint16_t *a, const uint16_t *b, int64_t step, int64_t n,
                         uint16_t *to);
};

#define KERNEL_BODY "shared/train/kernel_conv3_body.h"
#define KERNEL_LOOPS struct conv3_loops
#include "shared/train/kernel_each_body.h"

/* ---- tiles ---- */

/* Enough sums for the latency of the products, and few loads for each of them. */
static const struct {
    int64_t pixels, vecs;
} tiles[] = {{16, 1}, {8, 2}, {4, 4}};

static int tile_of(int64_t channels, int64_t columns)
{
    if (channels % 32 == 0 && columns >= 8)
        return 1;
    if (channels % 64 == 0 && columns >= 4)
        return 2;
    return columns >= 16 ? 0 : -1;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool conv3_fits(const struct conv3 *c)
{
    return (c->stride == 1 || c->stride == 2) && c->n > 0 && c->ic > 0 && c->oc > 0 &&
           c->ic % VEC == 0 && c->oc % VEC == 0 && c->top >= 0 && c->top <= 2 && c->left >= 0 &&
           c->left <= 2 && tile_of(c->oc, c->ow) >= 0 && tile_of(c->ic, c->w / c->stride) >= 0;
}

/* Leaves out the taps that find nothing but the border in output row r. */
static void choose_taps(struct sweep *s, int64_t r)
{
    s->begin = 0;
    s->end = s->n_taps;
    for (; s->begin < s->end; s->begin++) {
        const int64_t line = s->line[s->begin] + r * s->line_step;
        if (line >= 0 && line < s->lines)
            break;
    }
    for (; s->end > s->begin; s->end--) {
        const int64_t line = s->line[s->end - 1] + r * s->line_step;
        if (line >= 0 && line < s->lines)
            break;
    }
}

/* A row's last tile overlaps the one before it where the width is no multiple: the same sums. */
static void sweep_run(const struct conv3_loops *l, struct sweep *s, const uint16_t *from,
                      const uint16_t *weights, uint16_t *to)
{
    const int tile = tile_of(s->channels, s->columns);
    tile_fn *run = l->tile[tile == 0 && s->n_taps == TAPS ? 3 : tile];
    const int64_t pixels = tiles[tile].pixels;
    for (int64_t c = 0; c < s->channels; c += tiles[tile].vecs * VEC)
        for (int64_t r = 0; r < s->rows; r++) {
            choose_taps(s, r);
            for (int64_t i = 0; i < s->columns; i += pixels) {
                const int64_t q = least(i, s->columns - pixels);
                run(s, from + r * s->row + q * VEC, weights + c / VEC * s->vector,
                    to + r * s->to_row + q * s->to_pixel + c);
            }
        }
}

/* ---- pictures in scratch memory ---- */

static struct picture picture(int64_t rows, int64_t columns, int64_t left, int64_t stride,
                              int64_t element)
{
    const int64_t each = (columns + stride - 1) / stride;
    return (struct picture){.rows = rows,
                            .left = left,
                            .columns = each,
                            .stride = stride,
                            .row = stride * each * element,
                            .block = rows * stride * each * element};
}

/* Columns `phase`, phase + stride, ... of a row of 16 channels. */
static void fill_phase(const struct conv3_loops *l, const struct picture *p, int64_t phase,
                       const uint16_t *a, const uint16_t *b, int64_t w, int64_t c, int64_t element,
                       uint16_t *to)
{
    const int64_t s = p->stride;
    const int64_t begin = least((p->left - phase + s - 1) / s, p->columns);
    const int64_t end = least((w + p->left - phase + s - 1) / s, p->columns);
    const int64_t at = (begin * s + phase - p->left) * c;
    memset(to, 0, (size_t)(begin * element) * sizeof(*to));
    if (element == VEC)
        l->gather(a + at, s * c, end - begin, to + begin * element);
    else
        l->gather_pairs(a + at, b ? b + at : NULL, s * c, end - begin, to + begin * element);
    memset(to + end * element, 0, (size_t)((p->columns - end) * element) * sizeof(*to));
}

/* a, b: [h, w, c]; b: the other sample where elements are PAIRS (NULL: none). */
static void fill(const struct conv3_loops *l, const struct picture *p, const uint16_t *a,
                 const uint16_t *b, int64_t h, int64_t w, int64_t c, int64_t element, uint16_t *to)
{
    for (int64_t r = 0; r < p->rows; r++) {
        const int64_t y = p->first_row + r;
        for (int64_t k = 0; k < c; k += VEC) {
            uint16_t *row = to + k / VEC * p->block + r * p->row;
            if (y < 0 || y >= h) {
                memset(row, 0, (size_t)p->row * sizeof(*row));
                continue;
            }
            const int64_t at = y * w * c + k;
            for (int64_t f = 0; f < p->stride; f++)
                fill_phase(l, p, f, a + at, b ? b + at : NULL, w, c, element,
                           row + f * p->columns * element);
        }
    }
}

/* ---- forward ---- */

/* As many rows of `row` bytes as fit; `more` come on top of them. */
static int64_t rows_in(int64_t limit, int64_t row, int64_t more, int64_t all)
{
    const int64_t rows = limit / row - more;
    return rows < 1 ? 1 : least(rows, all);
}

static struct picture forward_picture(const struct conv3 *c, int64_t rows)
{
    return picture((rows - 1) * c->stride + 3, (c->ow - 1) * c->stride + 3, c->left, c->stride,
                   VEC);
}

static int64_t forward_rows(const struct conv3 *c)
{
    const int64_t row = forward_picture(c, 1).row * c->ic / VEC * (int64_t)sizeof(uint16_t);
    return rows_in(COPY_BYTES, row * c->stride, 2, c->oh);
}

void conv3_forward(const struct conv3 *c, const uint16_t *x, const uint16_t *weights, uint16_t *y,
                   void *scratch)
{
    const struct conv3_loops *l = loops(); /* costs: once */
    const int64_t most = forward_rows(c);
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t r = 0; r < c->oh; r += most) {
            const int64_t rows = least(most, c->oh - r);
            struct picture p = forward_picture(c, rows);
            p.first_row = r * c->stride - c->top;
            fill(l, &p, x + n * c->h * c->w * c->ic, NULL, c->h, c->w, c->ic, VEC, scratch);
            struct sweep s = {.blocks = c->ic / VEC,
                              .block = p.block,
                              .row = c->stride * p.row,
                              .n_taps = TAPS,
                              .vector = TAPS * c->ic * VEC,
                              .rows = rows,
                              .columns = c->ow,
                              .channels = c->oc,
                              .to_row = c->ow * c->oc,
                              .to_pixel = c->oc,
                              .line_step = c->stride,
                              .lines = c->h};
            for (int t = 0; t < TAPS; t++) {
                const int64_t kx = t % 3;
                s.tap[t] = t;
                s.line[t] = p.first_row + t / 3;
                s.offset[t] = t / 3 * p.row + (kx % c->stride * p.columns + kx / c->stride) * VEC;
            }
            sweep_run(l, &s, scratch, weights, y + (n * c->oh + r) * c->ow * c->oc);
        }
}

/* ---- the gradient of the data ----
 *
 * x[i] has a part in y[o] by the tap k where i + top = stride * o + k. So with i + top =
 * stride * q + a, 0 <= a < stride: k = a + stride * m and o = q - m. For each a, rows of q are the
 * outputs of a convolution of dy with those taps; columns likewise. */

static int64_t behind(const struct conv3 *c) /* the largest m */
{
    return 2 / c->stride;
}

/* The first and the number of q that put i into [0, size). */
static int64_t first_q(const struct conv3 *c, int64_t before, int64_t a)
{
    return (before - a + c->stride - 1) / c->stride;
}
static int64_t end_q(const struct conv3 *c, int64_t before, int64_t a, int64_t size)
{
    return (size - 1 + before - a) / c->stride + 1;
}

static struct picture data_picture(const struct conv3 *c, int64_t rows)
{
    const int64_t columns = (c->w - 1 + c->left) / c->stride + 1;
    return picture(rows + behind(c), columns + behind(c), behind(c), 1, VEC);
}

static int64_t data_rows(const struct conv3 *c)
{
    const int64_t row = data_picture(c, 1).row * c->oc / VEC * (int64_t)sizeof(uint16_t);
    return rows_in(COPY_BYTES, row, behind(c), (c->h - 1 + c->top) / c->stride + 1);
}

/* Rows q to q + rows of one (a, b); the picture begins `behind` rows before q. */
static void data_class(const struct conv3_loops *l, const struct conv3 *c, const struct picture *p,
                       int64_t q, int64_t a, int64_t b, const uint16_t *from,
                       const uint16_t *weights, uint16_t *dx)
{
    const int64_t m = behind(c), q_first = first_q(c, c->top, a), first = q > q_first ? q : q_first,
                  end = least(q + p->rows - m, end_q(c, c->top, a, c->h)),
                  left = first_q(c, c->left, b);
    struct sweep s = {.blocks = c->oc / VEC,
                      .block = p->block,
                      .row = p->row,
                      .vector = TAPS * c->oc * VEC,
                      .rows = end - first,
                      .columns = end_q(c, c->left, b, c->w) - left,
                      .channels = c->ic,
                      .to_row = c->stride * c->w * c->ic,
                      .to_pixel = c->stride * c->ic,
                      .line_step = 1,
                      .lines = c->oh};
    for (int64_t ky = a; ky < 3; ky += c->stride)
        for (int64_t kx = b + (2 - b) / c->stride * c->stride; kx >= b; kx -= c->stride) {
            s.tap[s.n_taps] = ky * 3 + kx;
            s.line[s.n_taps] = first - ky / c->stride;
            s.offset[s.n_taps++] = (m - ky / c->stride) * p->row + (m - kx / c->stride) * VEC;
        }
    const int64_t y = c->stride * first + a - c->top, x = c->stride * left + b - c->left;
    sweep_run(l, &s, from + (first - q) * p->row + left * VEC, weights,
              dx + (y * c->w + x) * c->ic);
}

void conv3_data(const struct conv3 *c, const uint16_t *dy, const uint16_t *weights, uint16_t *dx,
                void *scratch)
{
    const struct conv3_loops *l = loops();
    const int64_t most = data_rows(c), all = (c->h - 1 + c->top) / c->stride + 1;
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t q = 0; q < all; q += most) {
            struct picture p = data_picture(c, least(most, all - q));
            p.first_row = q - behind(c);
            fill(l, &p, dy + n * c->oh * c->ow * c->oc, NULL, c->oh, c->ow, c->oc, VEC, scratch);
            for (int64_t a = 0; a < c->stride; a++)
                for (int64_t b = 0; b < c->stride; b++)
                    data_class(l, c, &p, q, a, b, scratch, weights, dx + n * c->h * c->w * c->ic);
        }
}

/* ---- the gradient of the weights ---- */

struct group { /* what lies in scratch memory together */
    int64_t pairs, rows;
    struct picture x, dy;
    int64_t x_pair, dy_pair; /* elements */
};

static struct group group_of(const struct conv3 *c, int64_t pairs, int64_t rows)
{
    struct group g = {
        .pairs = pairs,
        .rows = rows,
        .x = picture((rows - 1) * c->stride + 3, (c->ow - 1) * c->stride + 3, c->left, c->stride,
                     PAIRS),
        .dy = picture(rows, c->ow, 0, 1, PAIRS),
    };
    g.x_pair = g.x.block * c->ic / VEC;
    g.dy_pair = g.dy.block * c->oc / VEC;
    return g;
}

static int64_t group_bytes(const struct group *g)
{
    return g->pairs * (g->x_pair + g->dy_pair) * (int64_t)sizeof(uint16_t);
}

static struct group largest_group(const struct conv3 *c)
{
    struct group g = group_of(c, 1, 1), two = group_of(c, 1, 2);
    const int64_t row = group_bytes(&two) - group_bytes(&g);
    g = group_of(c, 1, rows_in(PAIR_BYTES, row, 2, c->oh));
    if (g.rows < c->oh)
        return g;
    int64_t pairs = least(PRODUCT_PIXELS / (c->oh * c->ow), PAIR_BYTES / group_bytes(&g));
    pairs = least(pairs, (c->n + 1) / 2);
    return group_of(c, pairs < 1 ? 1 : pairs, c->oh);
}

static void fill_group(const struct conv3_loops *l, const struct conv3 *c, struct group *g,
                       int64_t sample, int64_t row, const uint16_t *x, const uint16_t *dy,
                       uint16_t *to_x, uint16_t *to_dy)
{
    const int64_t x_size = c->h * c->w * c->ic, dy_size = c->oh * c->ow * c->oc;
    g->x.first_row = row * c->stride - c->top;
    g->dy.first_row = row;
    for (int64_t i = 0; i < g->pairs; i++) {
        const int64_t n = sample + 2 * i;
        const bool two = n + 1 < c->n;
        const uint16_t *a = x + n * x_size, *b = dy + n * dy_size;
        fill(l, &g->x, a, two ? a + x_size : NULL, c->h, c->w, c->ic, PAIRS, to_x + i * g->x_pair);
        fill(l, &g->dy, b, two ? b + dy_size : NULL, c->oh, c->ow, c->oc, PAIRS,
             to_dy + i * g->dy_pair);
    }
}

static void add_group(const struct conv3_loops *l, const struct conv3 *c, const struct group *g,
                      const uint16_t *x, const uint16_t *dy, float *sum)
{
    const struct product j = {.pairs = g->pairs,
                              .rows = g->rows,
                              .columns = c->ow,
                              .x_pair = g->x_pair,
                              .x_row = c->stride * g->x.row,
                              .x_tap = g->x.row,
                              .dy_pair = g->dy_pair,
                              .line = g->x.first_row,
                              .line_step = c->stride,
                              .lines = c->h,
                              .to_tap = c->ic,
                              .to_channel = TAPS * c->ic};
    for (int64_t i = 0; i < c->ic; i += VEC)
        for (int64_t kx = 0; kx < 3; kx++) {
            const uint16_t *from =
                x + i / VEC * g->x.block + (kx % c->stride * g->x.columns + kx / c->stride) * PAIRS;
            for (int64_t o = 0; o < c->oc; o += PRODUCT_CHANNELS)
                l->product(&j, from, dy + o / VEC * g->dy.block + o % VEC * 2,
                           sum + (o * 3 + kx) * 3 * c->ic + i);
        }
}

void conv3_weights(const struct conv3 *c, const uint16_t *x, const uint16_t *dy, float *sum,
                   void *scratch)
{
    const struct conv3_loops *l = loops();
    const struct group most = largest_group(c);
    uint16_t *to_x = scratch, *to_dy = to_x + most.pairs * most.x_pair;
    for (int64_t n = 0; n < c->n; n += 2 * most.pairs)
        for (int64_t r = 0; r < c->oh; r += most.rows) {
            struct group g =
                group_of(c, least(most.pairs, (c->n - n + 1) / 2), least(most.rows, c->oh - r));
            fill_group(l, c, &g, n, r, x, dy, to_x, to_dy);
            add_group(l, c, &g, to_x, to_dy, sum);
        }
}

/* ---- weights ---- */

/* Pairs of neighbours of the second dimension, 16 of the first, side by side: a, b are [9] of the
 * two, to those of tap 0. */
static void pack_pair(const uint16_t *a, const uint16_t *b, int64_t tap, uint16_t *to)
{
    for (int t = 0; t < TAPS; t++) {
        to[t * tap] = a[t];
        to[t * tap + 1] = b[t];
    }
}

void conv3_pack(const struct conv3 *c, const float *from, uint16_t *forward, uint16_t *data,
                void *scratch)
{
    uint16_t *half = scratch; /* [16, ic, 9] */
    const int64_t row = c->ic * TAPS;
    for (int64_t o = 0; o < c->oc; o += VEC) {
        kernel_store(half, from + o * row, DTYPE_BF16, VEC * row);
        for (int64_t k = 0; k < VEC; k++)
            for (int64_t i = 0; i < c->ic; i += 2)
                pack_pair(half + k * row + i * TAPS, half + k * row + (i + 1) * TAPS, c->ic * VEC,
                          forward + o * row + i * VEC + 2 * k);
        for (int64_t k = 0; data && k < VEC; k += 2)
            for (int64_t i = 0; i < c->ic; i++)
                pack_pair(half + k * row + i * TAPS, half + (k + 1) * row + i * TAPS, c->oc * VEC,
                          data + i / VEC * TAPS * c->oc * VEC + (o + k) * VEC + i % VEC * 2);
    }
}

void conv3_unpack(const struct conv3 *c, const float *sum, float *to)
{
    for (int64_t o = 0; o < c->oc; o++, sum += TAPS * c->ic, to += TAPS * c->ic)
        for (int64_t i = 0; i < c->ic; i++)
            for (int t = 0; t < TAPS; t++)
                to[i * TAPS + t] = sum[(t % 3 * 3 + t / 3) * c->ic + i];
}

size_t conv3_scratch(const struct conv3 *c)
{
    const struct picture forward = forward_picture(c, forward_rows(c)),
                         data = data_picture(c, data_rows(c));
    const struct group g = largest_group(c);
    int64_t most = forward.block * c->ic / VEC * (int64_t)sizeof(uint16_t);
    const int64_t others[] = {data.block * c->oc / VEC * (int64_t)sizeof(uint16_t), group_bytes(&g),
                              TAPS * VEC * c->ic * (int64_t)sizeof(uint16_t)};
    for (int i = 0; i < 3; i++)
        most = others[i] > most ? others[i] : most;
    return (size_t)most;
}
