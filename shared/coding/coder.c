#include "shared/coding/coder.h"

#include <string.h>

/* ---- the interval [low, high] ---- */

void coder_begin_writing(struct coder *c)
{
    *c = (struct coder){.high = UINT32_MAX};
}

static uint8_t next_byte(struct coder *c)
{
    const uint8_t byte = c->at < c->bytes ? c->from[c->at] : 0;
    c->at++;
    return byte;
}

void coder_begin_reading(struct coder *c, const void *from, size_t bytes)
{
    *c = (struct coder){.reads = true, .high = UINT32_MAX, .from = from, .bytes = bytes};
    for (int i = 0; i < 4; i++)
        c->code = c->code << 8 | next_byte(c);
}

static void put_byte(struct coder *c, uint32_t byte)
{
    const uint8_t b = (uint8_t)byte;
    strbuf_add_bytes(&c->to, &b, 1);
}

/* One number of the interval in as few bytes as name it; zeroes follow what was written. */
void coder_end(struct coder *c)
{
    for (int bytes = 1; bytes <= 4; bytes++) {
        const uint32_t rest = bytes < 4 ? UINT32_MAX >> (8 * bytes) : 0;
        const uint32_t x = (uint32_t)(((uint64_t)c->low + rest) & ~(uint64_t)rest);
        if (x < c->low || x > c->high)
            continue;
        for (int i = 0; i < bytes; i++)
            put_byte(c, x >> (24 - 8 * i));
        return;
    }
}

bool coder_is_over(const struct coder *c)
{
    return c->at > c->bytes + 4;
}

int coder_bit(struct coder *c, int bit, uint32_t p)
{
    const uint32_t mid = c->low + (uint32_t)(((uint64_t)(c->high - c->low) * p) >> 16);
    if (c->reads)
        bit = c->code <= mid;
    if (bit)
        c->high = mid;
    else
        c->low = mid + 1;
    while ((c->low ^ c->high) >> 24 == 0) {
        if (c->reads)
            c->code = c->code << 8 | next_byte(c);
        else
            put_byte(c, c->high >> 24);
        c->low <<= 8;
        c->high = c->high << 8 | 0xff;
    }
    return bit;
}

/* ---- adaptive ---- */

void chance_learn(struct chance *c, int bit, int limit)
{
    const int target = bit ? 32767 : -32768;
    c->bias = (int16_t)(c->bias + (target - c->bias) * 2 / (2 * c->seen + 3));
    if (c->seen < limit)
        c->seen++;
}

int coder_adaptive(struct coder *c, struct chance *chance, int bit)
{
    bit = coder_bit(c, bit, chance_of(chance));
    chance_learn(chance, bit, CHANCE_MOST);
    return bit;
}

static int width_of(uint64_t x)
{
    return 64 - __builtin_clzll(x);
}

/* x + 1 as its width in ones and a zero, then its bits below the highest. */
uint32_t coder_number(struct coder *c, struct number *n, uint32_t x)
{
    const uint64_t y = (uint64_t)x + 1;
    const int wanted = c->reads ? 0 : width_of(y);
    int width = 1;
    while (width < 33 && coder_adaptive(c, &n->width[width - 1], wanted > width))
        width++;
    uint64_t read = 1;
    for (int i = width - 2; i >= 0; i--) {
        const int bit = (int)(y >> i & 1), depth = width - 2 - i;
        struct chance *high = depth == 0   ? &n->high[width - 1][1]
                              : depth == 1 ? &n->high[width - 1][2 + (read & 1)]
                              : depth == 2 ? &n->high[width - 1][4 + (read & 3)]
                                           : NULL;
        read =
            read << 1 | (uint64_t)(high ? coder_adaptive(c, high, bit) : coder_bit(c, bit, 32768));
    }
    return (uint32_t)(read - 1);
}
