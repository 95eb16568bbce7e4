#pragma once
/*
 * A binary arithmetic coder whose two directions are one: a model codes its bits by calls that take
 * the bit and give it back. While writing it is the caller's; while reading what is given is
 * ignored, and what comes back was read. So a model is written once, and cannot differ between the
 * two. Only integers, so that every machine reads what another one wrote.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/str.h"

struct coder {
    bool reads;
    uint32_t low, high, code;
    const uint8_t *from; /* reading: [bytes] */
    size_t bytes, at;
    struct strbuf to; /* writing */
};

void coder_begin_writing(struct coder *c);
void coder_begin_reading(struct coder *c, const void *from, size_t bytes);
/* Ends writing: what is left goes to c->to, which the caller takes or releases (to.failed: out of
 * memory). */
void coder_end(struct coder *c);
/* Whether more was read than there is: damaged, or cut off. Loops over what a file claims ask it.
 */
bool coder_is_over(const struct coder *c);

/* p: how likely a 1 is, 1 to 65535 of 65536. */
int coder_bit(struct coder *c, int bit, uint32_t p);

/* ---- adaptive ---- */

/* What was seen of a bit so far. Zeroes: nothing. */
struct chance {
    int16_t bias; /* how likely a 1 is, of 65536, less a half */
    uint8_t seen; /* at most CHANCE_MOST */
    uint8_t key;  /* of tables that share slots: whose it is */
};
#define CHANCE_MOST 250
static inline uint32_t chance_of(const struct chance *c)
{
    const int p = c->bias + 32768;
    return p < 32 ? 32 : p > 65504 ? 65504 : (uint32_t)p;
}
/* limit: after so many bits old ones are forgotten as fast as new ones come. */
void chance_learn(struct chance *c, int bit, int limit);

/* A bit by its own chance alone. */
int coder_adaptive(struct coder *c, struct chance *chance, int bit);

/* Whole numbers, small ones shortest (Exp-Golomb, all of whose bits but the lowest are adaptive).
 */
struct number {
    struct chance width[33], high[33][8];
};
uint32_t coder_number(struct coder *c, struct number *n, uint32_t x);
