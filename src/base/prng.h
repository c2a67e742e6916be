/* prng.h: xoshiro256** (Blackman and Vigna, public domain algorithm), seeded by splitmix64: simulation and jitter, not secrets. */
#ifndef OXBOW_BASE_PRNG_H
#define OXBOW_BASE_PRNG_H

#include "base/base.h"

struct prng {
	uint64_t s[4];
};

void prng_seed(struct prng *rng, uint64_t seed);
uint64_t prng_u64(struct prng *rng);
/* Uniform in [0, bound); bound > 0. */
uint64_t prng_below(struct prng *rng, uint64_t bound);
/* True once in `n` on average; n > 0. */
bool prng_one_in(struct prng *rng, uint64_t n);
void prng_fill(struct prng *rng, void *data, size_t len_bytes);

/* A good 64-bit mix of one word; also the hash for integer keys. */
static inline uint64_t hash_u64(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ (x >> 33);
}

/* FNV-1a with a final mix, for names; tables are not exposed to hostile key choice beyond their bounds. */
uint64_t hash_bytes(const void *data, size_t len_bytes);

#endif
