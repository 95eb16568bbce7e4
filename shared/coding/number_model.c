/*
 * Scales and biases. In a quantized network a bias's scales are the products of its input's scale
 * and of its weights' scales: which scale that is says it all. Other floats are a sign, an exponent
 * that is near the last one, and bits; integers a sign and a size.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/coding/models.h"

#define MANTISSA 23
#define HIGH 3 /* bits of a mantissa that are told apart by those before */

struct number_model {
    struct chance product, float_sign, exponent[256], mantissa[MANTISSA][1 << HIGH], negative;
    struct number step;      /* to the scale of the next product */
    struct number sizes[34]; /* of integers, by the size of the last one */
    struct chance lone[256]; /* exponents of floats that are alone in their tensor */
    uint32_t *singles;       /* floats of tensors with one element */
    uint32_t n_singles, cap_singles, last;
    uint32_t *row; /* the last tensor of several floats that was no product */
    int64_t n_row;
};

void number_model_freep(struct number_model **m)
{
    if (!*m)
        return;
    free((*m)->singles);
    free((*m)->row);
    free(*m);
}

int number_model_new(struct number_model **ret, struct err *err)
{
    *ret = mem_calloc(1, sizeof(**ret));
    return *ret ? 0 : err_oom(err, "coding");
}

/* ---- products ---- */

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static uint32_t product_at(const struct number_model *m, uint32_t single, int64_t i)
{
    const double x = (double)float_of(m->singles[single]) * (double)float_of(m->row[i % m->n_row]);
    return bits_of((float)x);
}

static bool is_product(const struct number_model *m, uint32_t single, const uint32_t *bits,
                       int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (bits[i] != product_at(m, single, i))
            return false;
    return true;
}

/* The single that explains the tensor, as a distance from the one after the last used; n_singles:
 * there is none. */
static uint32_t find_product(const struct number_model *m, const uint32_t *bits, int64_t n)
{
    uint32_t step = 0;
    while (step < m->n_singles && !is_product(m, (m->last + 1 + step) % m->n_singles, bits, n))
        step++;
    return step;
}

static int code_product(struct number_model *m, struct coder *c, uint32_t *bits, int64_t n,
                        uint32_t step, struct err *err)
{
    step = coder_number(c, &m->step, step);
    if (step >= m->n_singles)
        return err_set(err, ERR_DATA_LOSS, "the packed file is damaged");
    m->last = (m->last + 1 + step) % m->n_singles;
    for (int64_t i = 0; c->reads && i < n; i++)
        bits[i] = product_at(m, m->last, i);
    return 0;
}

/* ---- floats ---- */

static uint32_t code_tree(struct coder *c, struct chance *tree, int depth, uint32_t x)
{
    uint32_t read = 1;
    for (int i = depth - 1; i >= 0; i--)
        read = read << 1 | (uint32_t)coder_adaptive(c, &tree[read], (int)(x >> i & 1));
    return read & ((1u << depth) - 1);
}

static uint32_t code_float(struct number_model *m, struct coder *c, struct chance *exponents,
                           uint32_t bits)
{
    const uint32_t sign = (uint32_t)coder_adaptive(c, &m->float_sign, (int)(bits >> 31));
    const uint32_t exponent = code_tree(c, exponents, 8, bits >> MANTISSA & 255);
    uint32_t read = 1;
    for (int i = MANTISSA - 1; i >= 0; i--) {
        const uint32_t before = MANTISSA - 1 - i < HIGH ? read : 0;
        read =
            read << 1 | (uint32_t)coder_adaptive(c, &m->mantissa[i][before], (int)(bits >> i & 1));
    }
    return sign << 31 | exponent << MANTISSA | (read & ((1u << MANTISSA) - 1));
}

static int keep_single(struct number_model *m, uint32_t bits, struct err *err)
{
    if (m->n_singles == m->cap_singles) {
        const uint32_t cap = m->cap_singles ? 2 * m->cap_singles : 64;
        uint32_t *more = mem_realloc(m->singles, cap, sizeof(*more));
        if (!more)
            return err_oom(err, "coding");
        m->singles = more;
        m->cap_singles = cap;
    }
    m->singles[m->n_singles++] = bits;
    return 0;
}

static int keep_row(struct number_model *m, const uint32_t *bits, int64_t n, struct err *err)
{
    uint32_t *row = mem_realloc(m->row, (size_t)n, sizeof(*row));
    if (!row)
        return err_oom(err, "coding");
    memcpy(row, bits, (size_t)n * sizeof(*row));
    m->row = row;
    m->n_row = n;
    return 0;
}

int float_tensor(struct number_model *m, struct coder *c, uint32_t *bits, int64_t n,
                 struct err *err)
{
    const bool possible = m->n_singles > 0 && m->n_row > 0 && n % m->n_row == 0;
    uint32_t step = m->n_singles;
    if (possible && !c->reads)
        step = find_product(m, bits, n);
    if (possible && coder_adaptive(c, &m->product, step < m->n_singles))
        return code_product(m, c, bits, n, step, err);
    for (int64_t i = 0; i < n && !coder_is_over(c); i++)
        bits[i] = code_float(m, c, n == 1 ? m->lone : m->exponent, bits[i]);
    return n == 1 ? keep_single(m, bits[0], err) : keep_row(m, bits, n, err);
}

/* ---- integers ---- */

void integer_tensor(struct number_model *m, struct coder *c, int32_t *x, int64_t n)
{
    int last = 33;
    for (int64_t i = 0; i < n && !coder_is_over(c); i++) {
        /* 0, -1, 1, ...: a size and a sign, of which there is none for 0 */
        const uint32_t size = x[i] < 0 ? 0u - (uint32_t)x[i] : (uint32_t)x[i];
        const uint32_t read = coder_number(c, &m->sizes[last], size);
        const bool negative = read && coder_adaptive(c, &m->negative, x[i] < 0);
        x[i] = (int32_t)(negative ? 0u - read : read);
        last = read ? 32 - __builtin_clz(read) : 0;
    }
}
