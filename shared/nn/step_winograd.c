/*
 * 3x3 convolutions of stride 1 in floats by Winograd's minimal filtering F(4x4, 3x3) (Lavin and
 * Gray 2015): a quarter of the multiplications. Libraries leave it out where they must hold for any
 * numbers; rounding errors are some ten times those of the direct sum, about 1e-6 relative.
 *
 * The output is cut into tiles of 4x4 pixels, each made from 6x6 pixels of input. Input tiles are
 * transformed into 36 matrices [tiles, input channels], multiplied by 36 matrices of transformed
 * weights, and the 36 products [tiles, output channels] transformed back, with bias, residual and
 * activation. Tiles of all samples are numbered through and go in chunks whose matrices stay in the
 * second-level cache. Layouts are C16, or C8 without AVX-512; a vector is one block of channels.
 */
#include "shared/nn/step_winograd.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "shared/nn/kernel.h"

KERNEL_FILE

enum { MOST_ADDS = 4, POINTS = 36 };
#define CHUNK_BYTES (256 << 10) /* of the 36 + 36 matrices of a chunk */

struct winograd;
typedef void chunk_fn(const struct winograd *w, int64_t first, int64_t tiles, const float *in,
                      const float *const *adds, float *out, float *scratch);

struct winograd {
    int64_t in_blocks, out_blocks; /* of channels */
    int64_t in_h, in_w, out_h, out_w, pad_y, pad_x;
    int64_t tiles_y, tiles_x;
    int64_t tiles, chunk;   /* of all samples; of a chunk: a multiple of 4 */
    int64_t v_step, m_step; /* floats from one matrix to the next; no multiple of a page, so that
                               the 36 values of a tile lie in different sets of the cache */
    int64_t scratch_floats; /* of a thread */
    float *weights;         /* [36, out_blocks, in_blocks * lanes, lanes] */
    float *bias;            /* [out_blocks * lanes] */
    float low, high;
    bool bounds;
    int n_adds, adds[MOST_ADDS]; /* operands */
    int threads;
    chunk_fn *run;
};

/* ---- kernels ---- */

#define EACH4(X) X(0) X(1) X(2) X(3)
#define EACH8(X) EACH4(X) X(4) X(5) X(6) X(7)

/* Vectors wider than the registers of the plain twin never cross a call. */
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__x86_64__)
#define LANES 16
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include "shared/nn/winograd_kernel.inc"

#define LANES 8
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#include "shared/nn/winograd_kernel.inc"
#endif

#define LANES 16
#define NAME(x) x##_plain16
#define TARGET
#include "shared/nn/winograd_kernel.inc"

#define LANES 8
#define NAME(x) x##_plain8
#define TARGET
#include "shared/nn/winograd_kernel.inc"

/* ---- the step ---- */

static void run_chunk(const struct step *step, int64_t index, int thread)
{
    const struct winograd *w = step->state;
    const float *adds[MOST_ADDS];
    for (int i = 0; i < w->n_adds; i++)
        adds[i] = step->data[w->adds[i]];
    const int64_t first = index * w->chunk, left = w->tiles - first;
    w->run(w, first, left < w->chunk ? left : w->chunk, step->data[0], adds,
           step->data[step->n_args - 1], (float *)step->scratch + thread * w->scratch_floats);
}

static int run_winograd(struct step *step, struct err *err)
{
    (void)err;
    const struct winograd *w = step->state;
    const int64_t chunks = (w->tiles + w->chunk - 1) / w->chunk;
    if (w->threads == 1) {
        for (int64_t i = 0; i < chunks; i++)
            run_chunk(step, i, 0);
        return 0;
    }
#pragma omp parallel for schedule(static) num_threads(w->threads)
    for (int64_t i = 0; i < chunks; i++)
        run_chunk(step, i, omp_get_thread_num());
    return 0;
}

/* ---- what it can run ---- */

/* The channels that pad a block stay zero, so bounds must hold zero. */
static bool simple_posts(const struct layer *layer)
{
    int adds = 0;
    for (int i = 0; i < layer->n_posts; i++) {
        const struct post *post = &layer->posts[i];
        const bool last = i == layer->n_posts - 1;
        if (post->kind == POST_ADD && ++adds <= MOST_ADDS)
            continue;
        if (post->kind != POST_UNARY || !last)
            return false;
        if (!(post->alg == dnnl_eltwise_relu && post->alpha == 0) &&
            !(post->alg == dnnl_eltwise_clip && post->alpha <= 0 && post->beta >= 0))
            return false;
    }
    return true;
}

static bool can_run(const struct maker *m, const struct layer *layer)
{
    const struct conv *c = &layer->conv;
    const struct window *w = &c->w;
    if (layer->precision != PRECISION_FP32 || c->transposed || w->rank != 2 || w->group != 1 ||
        layer->in[0].dtype != DTYPE_F32 || m->plan->wires[layer->out[0]].dtype != DTYPE_F32)
        return false;
    for (int i = 1; i < layer->n_in; i++)
        if (layer->in[i].dtype != DTYPE_F32)
            return false;
    for (int d = 0; d < 2; d++)
        if (w->kernel[d] != 3 || w->stride[d] != 1 || w->dilation[d] != 1 || w->pad_begin[d] > 2 ||
            w->pad_end[d] > 2)
            return false;
    return simple_posts(layer);
}

static int list(const struct implementation *by, const struct maker *m, const struct layer *layer,
                enum layout in, enum layout out, struct choices *choices, struct err *err)
{
    const enum layout blocked = kernel_level() == KERNEL_AVX512 ? LAYOUT_C16 : LAYOUT_C8;
    if (in != blocked || out != blocked || !can_run(m, layer))
        return 0;
    const struct choice choice = {.by = by, .in = in, .out = out};
    return choices_add(choices, &choice, err);
}

static int list_vectors(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                        struct choices *choices, struct err *err)
{
    if (kernel_level() == KERNEL_PLAIN)
        return 0;
    return list(&winograd_vectors, m, layer, in, out, choices, err);
}

static int list_plain(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    const char *forced = m->options->implementation; /* too slow to be tried */
    if (!forced || !strstr(winograd_plain.name, forced))
        return 0;
    return list(&winograd_plain, m, layer, in, out, choices, err);
}

/* ---- building ---- */

/* G g G^T of one 3x3 kernel, in double. */
static void transform_weights(const float *g, double u[POINTS])
{
    static const double G[6][3] = {{1.0 / 4, 0, 0},
                                   {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                   {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                   {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                   {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                   {0, 0, 1}};
    double t[6][3];
    for (int y = 0; y < 6; y++)
        for (int x = 0; x < 3; x++)
            t[y][x] =
                G[y][0] * (double)g[x] + G[y][1] * (double)g[3 + x] + G[y][2] * (double)g[6 + x];
    for (int y = 0; y < 6; y++)
        for (int x = 0; x < 6; x++)
            u[6 * y + x] = t[y][0] * G[x][0] + t[y][1] * G[x][1] + t[y][2] * G[x][2];
}

static int pack_weights(struct maker *m, const struct conv *c, int64_t lanes, struct winograd *w,
                        struct err *err)
{
    const int64_t channels = w->in_blocks * lanes, matrix = w->out_blocks * channels * lanes;
    w->weights = arena_alloc(m->arena, (size_t)(POINTS * matrix), sizeof(float));
    w->bias = arena_alloc(m->arena, (size_t)(w->out_blocks * lanes), sizeof(float));
    if (!w->weights || !w->bias)
        return err_oom(err, "weights");
    m->plan->packed_bytes += (size_t)(POINTS * matrix) * sizeof(float);
    for (int64_t o = 0; o < c->oc && !m->tuning; o++)
        for (int64_t i = 0; i < c->ic; i++) {
            double u[POINTS];
            transform_weights((const float *)c->weights->data + (o * c->ic + i) * 9, u);
            float *to = w->weights + (o / lanes * channels + i) * lanes + o % lanes;
            for (int p = 0; p < POINTS; p++)
                to[p * matrix] = (float)u[p];
        }
    for (int64_t o = 0; c->bias && o < c->oc; o++)
        w->bias[o] = c->bias[o];
    return 0;
}

static void take_posts(const struct layer *layer, struct winograd *w)
{
    w->low = -INFINITY;
    w->high = INFINITY;
    for (int i = 0; i < layer->n_posts; i++) {
        const struct post *post = &layer->posts[i];
        if (post->kind == POST_ADD) {
            w->adds[w->n_adds++] = post->operand;
            continue;
        }
        const bool relu = post->alg == dnnl_eltwise_relu;
        w->bounds = true;
        w->low = relu ? 0 : post->alpha;
        w->high = relu ? INFINITY : post->beta;
    }
}

/* A line of the cache more than a whole number of tiles. */
static int64_t apart(int64_t floats)
{
    return floats + 16;
}

static int make(struct maker *m, const struct layer *layer, chunk_fn *run, int64_t lanes,
                struct step *step, struct err *err)
{
    const struct conv *c = &layer->conv;
    struct winograd *w = arena_alloc(m->arena, 1, sizeof(*w));
    if (!w)
        return err_oom(err, "a convolution");
    *w = (struct winograd){.in_blocks = (c->ic + lanes - 1) / lanes,
                           .out_blocks = (c->oc + lanes - 1) / lanes,
                           .in_h = c->w.in[0],
                           .in_w = c->w.in[1],
                           .out_h = c->w.out[0],
                           .out_w = c->w.out[1],
                           .pad_y = c->w.pad_begin[0],
                           .pad_x = c->w.pad_begin[1],
                           .tiles_y = (c->w.out[0] + 3) / 4,
                           .tiles_x = (c->w.out[1] + 3) / 4,
                           .threads = m->options->threads > 1 ? m->options->threads : 1,
                           .run = run};
    w->tiles = c->n * w->tiles_y * w->tiles_x;
    const int64_t per_tile = POINTS * (w->in_blocks + w->out_blocks) * lanes;
    const int64_t share = (w->tiles + w->threads - 1) / w->threads;
    int64_t chunk = CHUNK_BYTES / (int64_t)sizeof(float) / per_tile;
    chunk = chunk < share ? chunk / 8 * 8 : (share + 3) / 4 * 4;
    w->chunk = chunk < 8 ? (share < 8 ? (share + 3) / 4 * 4 : 8) : chunk;
    w->v_step = apart(w->chunk * w->in_blocks * lanes);
    w->m_step = apart(w->chunk * w->out_blocks * lanes);
    w->scratch_floats = POINTS * (w->v_step + w->m_step);
    step->scratch_bytes = (size_t)(w->scratch_floats * w->threads) * sizeof(float);
    take_posts(layer, w);
    step->state = w;
    step->run = run_winograd;
    return pack_weights(m, c, lanes, w, err);
}

static int make_plain(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    step->info.implementation = winograd_plain.name;
    return choice->in == LAYOUT_C16 ? make(m, layer, chunk_plain16, 16, step, err)
                                    : make(m, layer, chunk_plain8, 8, step, err);
}

static int make_vectors(struct maker *m, const struct layer *layer, const struct choice *choice,
                        struct step *step, struct err *err)
{
#if defined(__x86_64__)
    step->info.implementation = winograd_vectors.name;
    return choice->in == LAYOUT_C16 ? make(m, layer, chunk_avx512, 16, step, err)
                                    : make(m, layer, chunk_avx2, 8, step, err);
#else
    return make_plain(m, layer, choice, step, err);
#endif
}

const struct implementation winograd_vectors = {
    .name = "winograd:vectors", .list = list_vectors, .make = make_vectors};
const struct implementation winograd_plain = {
    .name = "winograd:plain", .list = list_plain, .make = make_plain};
