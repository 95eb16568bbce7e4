/*
 * Quantized weights: how large a weight is, is foretold by its neighbours, by its filter and by its
 * input channel; its sign is not. A weight is zero or not, its sign, the width of its magnitude,
 * and the bits below the highest.
 */
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/coding/models.h"

#define TREE 256   /* one chance for each bit of a magnitude, by the bits before */
#define LEVELS 48  /* of mean magnitudes */
#define PLACES 128 /* in a kernel */
#define LIMIT CHANCE_MOST
#define OPINIONS 7
#define CHANNELS_MOST (1 << 16) /* input channels that are told apart */

struct weight_model {
    struct chance all[TREE], tensor[TREE], around[LEVELS][TREE], filter[LEVELS][TREE],
        input[LEVELS][TREE], place[PLACES][TREE], both[LEVELS / 4][LEVELS / 4][TREE];
    struct mixer mixer;
    uint32_t *sums; /* [CHANNELS_MOST]: of magnitudes, over the filters so far */
};

void weight_model_freep(struct weight_model **m)
{
    if (!*m)
        return;
    mixer_release(&(*m)->mixer);
    free((*m)->sums);
    free(*m);
}

int weight_model_new(struct weight_model **ret, struct err *err)
{
    _cleanup_(weight_model_freep) struct weight_model *m = mem_calloc(1, sizeof(*m));
    if (!m)
        return err_oom(err, "coding");
    m->sums = mem_calloc(CHANNELS_MOST, sizeof(*m->sums));
    int rc =
        m->sums ? mixer_init(&m->mixer, OPINIONS, 32, 2, 1 << 14, err) : err_oom(err, "coding");
    if (rc == 0)
        *ret = TAKE_PTR(m);
    return rc;
}

/* ---- what is known before a weight ---- */

struct surrounding {
    int64_t area, inputs; /* of a kernel; kernels of a filter */
    int64_t filter_sum, filter_n;
    struct chance *trees[OPINIONS];
};

static int64_t magnitude(const int8_t *q, int64_t i)
{
    return i < 0 ? 0 : q[i] < 0 ? -(int64_t)q[i] : q[i];
}

/* sum / n, on a scale of four levels for each octave. */
static int level_of(int64_t sum, int64_t n)
{
    if (n <= 0 || sum <= 0)
        return 0;
    const uint64_t x = (uint64_t)sum * 16 / (uint64_t)n;
    if (x < 4)
        return (int)x;
    const int width = 63 - __builtin_clzll(x);
    const int level = 4 * (width - 1) + (int)(x >> (width - 2) & 3);
    return level < LEVELS ? level : LEVELS - 1;
}

static void look_around(struct weight_model *m, struct surrounding *s, const int8_t *q, int64_t i)
{
    const int64_t inner = s->area * s->inputs, filter = i / inner, in = i % inner;
    const int64_t input = in / s->area, place = in % s->area;
    int64_t sum = 0, n = 0;
    if (in >= 1) {
        sum += 2 * magnitude(q, i - 1);
        n += 2;
    }
    if (s->area > 1 && in >= s->area) {
        sum += magnitude(q, i - s->area);
        n++;
    }
    if (filter >= 1) {
        sum += 2 * magnitude(q, i - inner);
        n += 2;
    }
    if (in >= 2) {
        sum += magnitude(q, i - 2);
        n++;
    }
    const int by_filter = level_of(s->filter_sum, s->filter_n);
    const int by_input =
        input < CHANNELS_MOST ? level_of(m->sums[input], filter * s->area + place) : 0;
    s->trees[0] = m->all;
    s->trees[1] = m->tensor;
    s->trees[2] = m->around[level_of(sum, n)];
    s->trees[3] = m->filter[by_filter];
    s->trees[4] = m->input[by_input];
    s->trees[5] = m->place[s->area <= PLACES ? place : 0];
    s->trees[6] = m->both[by_filter / 4][by_input / 4];
}

static void take_down(struct weight_model *m, struct surrounding *s, const int8_t *q, int64_t i)
{
    const int64_t inner = s->area * s->inputs, input = i % inner / s->area;
    s->filter_sum += magnitude(q, i);
    s->filter_n++;
    if (input < CHANNELS_MOST)
        m->sums[input] += (uint32_t)magnitude(q, i);
    if ((i + 1) % inner == 0)
        s->filter_sum = s->filter_n = 0;
}

/* ---- a weight ---- */

static int code_bit(struct weight_model *m, struct coder *c, const struct surrounding *s, int node,
                    int set, int bit)
{
    struct chance *opinions[OPINIONS];
    for (int k = 0; k < OPINIONS; k++)
        opinions[k] = &s->trees[k][node];
    return mixer_bit(&m->mixer, c, opinions, set, LIMIT, bit);
}

/* Nodes of the tree: 0 to 7 widths so far (0: nothing or something), then 8 + the leading one and
 * the bits behind it, which are below 128 + 8. */
static int code_magnitude(struct weight_model *m, struct coder *c, const struct surrounding *s,
                          int x)
{
    const int wanted = x > 0 ? 32 - __builtin_clz((unsigned)x) : 0;
    int width = 0;
    while (width < 8 && code_bit(m, c, s, width, width, wanted > width))
        width++;
    if (width <= 1)
        return width;
    int read = 1;
    for (int i = width - 2; i >= 0; i--)
        read = read << 1 | code_bit(m, c, s, 8 + read, 8 + width, x >> i & 1);
    return read;
}

static int code_weight(struct weight_model *m, struct coder *c, const struct surrounding *s, int q)
{
    const int size = code_magnitude(m, c, s, q < 0 ? -q : q);
    const bool negative = size && coder_bit(c, q < 0, 32768);
    return negative ? -size : size;
}

int weight_tensor(struct weight_model *m, struct coder *c, const struct wire_tensor *t, int8_t *q,
                  int64_t n, struct err *err)
{
    struct surrounding s = {.area = 1, .inputs = 1};
    int64_t whole = 1;
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] <= 0 || __builtin_mul_overflow(whole, t->dim[i], &whole))
            whole = -1, i = t->rank;
    for (int i = 2; i < t->rank && whole == n; i++)
        s.area *= t->dim[i];
    s.inputs = whole == n && t->rank >= 2 ? t->dim[1] : 1;
    for (int64_t i = 0; i < s.inputs && i < CHANNELS_MOST; i++)
        m->sums[i] = 0;
    for (int i = 0; i < TREE; i++) { /* like those before, until it is known better */
        m->tensor[i] = m->all[i];
        m->tensor[i].seen = m->all[i].seen < 6 ? m->all[i].seen : 6;
    }
    for (int64_t i = 0; i < n; i++) {
        look_around(m, &s, q, i);
        const int x = code_weight(m, c, &s, q[i]);
        if (x > 127 || x < -128 || coder_is_over(c))
            return err_set(err, ERR_DATA_LOSS, "the packed file is cut off or damaged");
        q[i] = (int8_t)x;
        take_down(m, &s, q, i);
    }
    return 0;
}
