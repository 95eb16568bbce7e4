#pragma once
/* Seeded random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. The same
 * seed gives the same numbers everywhere. Not for secrets. */
#include <stdint.h>

struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *rng, uint64_t seed);
/* An independent generator for (seed, stream): one for each thread, epoch or sample. */
void rng_seed2(struct rng *rng, uint64_t seed, uint64_t stream);
uint64_t rng_u64(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t n); /* 0..n-1, unbiased; n > 0 */
double rng_f64(struct rng *rng);                 /* [0, 1) */
double rng_normal(struct rng *rng);              /* mean 0, deviation 1 */
/* Fisher-Yates over n indices. */
void rng_shuffle_u32(struct rng *rng, uint32_t *items, uint64_t n);
