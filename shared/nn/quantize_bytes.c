/* How layers are told, and how much room they take. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shared/nn/quantize_priv.h"

#define SCALE_BYTES 2.0 /* as they are packed, with what is not told twice */
#define BIAS_BYTES 2.2

int quant_choice_parse(const char *text, struct quant_choice *ret, struct err *err)
{
    enum precision precision = PRECISION_INT8;
    int bits = 0;
    int rc = 0;
    if (strlen(text) == 4 && strncmp(text, "int", 3) == 0 && text[3] >= '0' + QUANT_BITS_LEAST &&
        text[3] < '8')
        bits = text[3] - '0';
    else
        rc = precision_parse(text, &precision, err);
    if (rc < 0)
        return rc;
    ret->precision = precision;
    ret->weight_bits = bits;
    return 0;
}

const char *quant_choice_name(const struct quant_choice *choice, char text[8])
{
    const bool few = choice->precision == PRECISION_INT8 && choice->weight_bits > 0;
    if (few && choice->weight_bits < 8)
        snprintf(text, 8, "int%d", choice->weight_bits);
    else
        snprintf(text, 8, "%s", precision_name(choice->precision));
    return text;
}

static double entropy_bytes(const int8_t *q, int64_t n)
{
    int64_t counts[256] = {0};
    double bits = 0;
    for (int64_t i = 0; i < n; i++)
        counts[q[i] + 128]++;
    for (int i = 0; i < 256; i++)
        if (counts[i])
            bits -= (double)counts[i] * log2((double)counts[i] / (double)n);
    return bits / 8;
}

double quant_packed_bytes(const struct graph *q, const char *layer)
{
    const int n = quant_find_node(q, layer);
    const struct value *w = n < 0 ? NULL : graph_input_of(q, q->nodes[n], 1);
    const struct node *dq = w && w->producer >= 0 ? q->nodes[w->producer] : NULL;
    if (!dq || dq->op != OP_DEQUANTIZE_LINEAR)
        return 0;
    const struct value *x = graph_input_of(q, dq, 0), *scale = graph_input_of(q, dq, 1);
    if (!x->constant || x->dtype != DTYPE_S8)
        return 0;
    return entropy_bytes(x->constant->data, shape_elements(&x->shape)) +
           (double)shape_elements(&scale->shape) * (SCALE_BYTES + BIAS_BYTES);
}
