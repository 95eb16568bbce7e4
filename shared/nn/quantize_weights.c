/* Weights in 8 bits or fewer: symmetric, a scale for each output channel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/nn/quantize_priv.h"

/* Rounds to nearest even for |x| < 2^22, in the default rounding mode, without a call. */
static inline float round_even(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    return (x + magic) - magic;
}

static inline float clamp(float x, float most)
{
    return x > most ? most : x < -most ? -most : x;
}

/* Squared error of n weights in `scale`. */
static double channel_error(const float *w, int64_t n, float scale, float most)
{
    const float inverse = 1.0f / scale;
    double sum = 0;
    for (int64_t from = 0; from < n; from += 4096) { /* floats add up exactly enough in pieces */
        const int64_t to = from + 4096 < n ? from + 4096 : n;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = from; i < to; i++) {
            const float error = w[i] * inverse - round_even(clamp(w[i] * inverse, most));
            part += error * error;
        }
        sum += (double)part;
    }
    return sum * (double)scale * (double)scale;
}

/* Max-abs, or a smaller scale where clipping the largest weights costs less than it gains for the
 * others. */
static float channel_scale(const float *w, int64_t n, float most)
{
    float largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fabsf(w[i]) > largest ? fabsf(w[i]) : largest;
    const float full = largest / most;
    if (!(full > 1e-30f))
        return 0; /* nothing but zeros: any scale will do */
    float best = full;
    double least = channel_error(w, n, full, most);
    for (int i = 1; i <= 40; i++) {
        const float scale = full * (1.0f - 0.0125f * (float)i);
        const double error = channel_error(w, n, scale, most);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

/* Up to the next with 8 digits, which take less room in a file; weights of few bits do not mind. */
static float short_scale(float scale)
{
    uint32_t bits;
    memcpy(&bits, &scale, sizeof(bits));
    bits = (bits + 0xffff) & 0xffff0000;
    memcpy(&scale, &bits, sizeof(bits));
    return scale;
}

static void gather(const struct quant_layer *layer, const float *weights, int64_t channel,
                   float *out)
{
    for (int64_t o = 0; o < layer->outer; o++)
        for (int64_t i = 0; i < layer->inner; i++)
            out[o * layer->inner + i] = weights[(o * layer->channels + channel) * layer->inner + i];
}

static void scatter(const struct quant_layer *layer, const float *w, int64_t channel, float scale,
                    float most, int8_t *q)
{
    for (int64_t o = 0; o < layer->outer; o++)
        for (int64_t i = 0; i < layer->inner; i++)
            q[(o * layer->channels + channel) * layer->inner + i] =
                (int8_t)round_even(clamp(w[o * layer->inner + i] / scale, most));
}

int quant_weights(const struct quant_layer *layer, const float *weights, int bits,
                  const float *least, float *scales, int8_t *q, struct err *err)
{
    const float most = (float)((1 << (bits - 1)) - 1);
    const int64_t n = layer->outer * layer->inner;
    _cleanup_(freep) float *w = mem_calloc((size_t)n, sizeof(*w));
    if (!w)
        return err_oom(err, "quantized weights");
    for (int64_t c = 0; c < layer->channels; c++) {
        gather(layer, weights, c, w);
        scales[c] = channel_scale(w, n, most);
        if (least && scales[c] < least[c])
            scales[c] = least[c];
        if (!(scales[c] > 0))
            scales[c] = 1e-6f;
        if (bits < 7)
            scales[c] = short_scale(scales[c]);
        scatter(layer, w, c, scales[c], most, q);
    }
    return 0;
}
