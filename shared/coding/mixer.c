#include "shared/coding/mixer.h"

#include <stdlib.h>

#include "shared/base/mem.h"

/* Log-odds are in units of 1/256. */
#define ODDS_MOST 3071
#define KNOT 128

/* 65536 / (1 + exp(-x / 256)) at x = -3072, -2944, ..., 3072. */
static const uint16_t knots[] = {
    1,     1,     1,     2,     3,     5,     8,     13,    22,    36,    60,    98,    162,
    267,   439,   720,   1179,  1921,  3108,  4971,  7812,  11955, 17625, 24743, 32768, 40793,
    47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476,
    65500, 65514, 65523, 65528, 65531, 65533, 65534, 65535, 65535, 65535};

static uint32_t chance_at(int odds)
{
    const int x = odds + KNOT * ((int)(sizeof(knots) / sizeof(*knots)) / 2);
    const int i = x / KNOT, part = x % KNOT;
    return (uint32_t)((knots[i] * (KNOT - part) + knots[i + 1] * part + KNOT / 2) / KNOT);
}

/* The inverse, by bisection; asked for once for each step of the table. */
static int odds_at(uint32_t p)
{
    int low = -ODDS_MOST, high = ODDS_MOST;
    while (low < high) {
        const int mid = low + (high - low) / 2;
        if (chance_at(mid) < p)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

#define STEPS 4096 /* of chances */
static int16_t odds_table[STEPS];

__attribute__((constructor)) static void fill_table(void)
{
    for (uint32_t i = 0; i < STEPS; i++)
        odds_table[i] = (int16_t)odds_at(i * (65536 / STEPS) + 65536 / STEPS / 2);
}

static int clamp(int64_t x, int most)
{
    return x > most ? most : x < -most ? -most : (int)x;
}

int mixer_init(struct mixer *m, int n, int sets, int rate, int32_t weight, struct err *err)
{
    *m = (struct mixer){.n = n, .sets = sets, .rate = rate};
    m->weights = mem_calloc((size_t)n * (size_t)sets, sizeof(*m->weights));
    if (!m->weights)
        return err_oom(err, "coding");
    for (int i = 0; i < n * sets; i++)
        m->weights[i] = weight;
    return 0;
}

void mixer_release(struct mixer *m)
{
    free(m->weights);
}

/* Of a chance that knows nothing: nothing. */
static int odds_of(const struct chance *c)
{
    return c->seen ? odds_table[chance_of(c) / (65536 / STEPS)] : 0;
}

int mixer_bit(struct mixer *m, struct coder *c, struct chance *const *opinions, int set, int limit,
              int bit)
{
    int32_t *weights = m->weights + (size_t)set * (size_t)m->n;
    int odds[MIXER_MOST];
    int64_t sum = 0;
    for (int i = 0; i < m->n; i++) {
        odds[i] = odds_of(opinions[i]);
        sum += (int64_t)odds[i] * weights[i];
    }
    uint32_t p = chance_at(clamp(sum >> 16, ODDS_MOST));
    p = p < 1 ? 1 : p > 65535 ? 65535 : p;
    bit = coder_bit(c, bit, p);
    const int error = (bit << 16) - (int)p;
    for (int i = 0; i < m->n; i++) {
        weights[i] += (int32_t)(((int64_t)odds[i] * error * m->rate + (1 << 15)) >> 16);
        weights[i] = clamp(weights[i], 1 << 20);
        chance_learn(opinions[i], bit, limit);
    }
    return bit;
}
