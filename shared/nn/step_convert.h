#pragma once
/* Conversions between types, layouts and quantizations of the same numbers. */
#include "shared/nn/plan_priv.h"

/* One end of a conversion. */
struct form {
    enum dtype dtype;
    enum layout layout;
    bool quantized; /* real = scale * (q - zero) */
    float scale;
    int32_t zero;
};

/* A step from argument 0 to argument 1. */
int convert_make(struct maker *m, struct step *step, const struct shape *shape,
                 const struct form *from, const struct form *to, struct err *err);
/* The same for conversions from or to 8 bits that loops of our own do well: 1 made, 0 not among
 * them. */
int narrow_convert_make(struct maker *m, struct step *step, const struct shape *shape,
                        const struct form *from, const struct form *to, struct err *err);
/* What QuantizeLinear makes of n numbers, bit for bit as every conversion to 8 bits does. */
void narrow_quantize(const float *from, const struct form *to, uint8_t *ret, int64_t n);
/* Whether one step does it well; what comes from or goes to C4 may have to pass through LAST in its
 * own type, which is direct. */
bool convert_is_direct(const struct shape *shape, const struct form *from, const struct form *to);
/* About how long it takes, in ns. */
double convert_estimate(const struct shape *shape, const struct form *from, const struct form *to);
enum precision precision_of(enum dtype dtype);

/* LAYER_CONVERT: QuantizeLinear. */
extern const struct implementation convert_layer;
