/* prng.c: see prng.h. */
#include "base/prng.h"

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void prng_seed(struct prng *rng, uint64_t seed)
{
	for (size_t i = 0; i < ARRAY_COUNT(rng->s); i++)
		rng->s[i] = splitmix64(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

uint64_t prng_u64(struct prng *rng)
{
	uint64_t *s = rng->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t prng_below(struct prng *rng, uint64_t bound)
{
	assert(bound > 0);
	return (uint64_t)(((unsigned __int128)prng_u64(rng) * bound) >> 64);
}

bool prng_one_in(struct prng *rng, uint64_t n)
{
	return prng_below(rng, n) == 0;
}

void prng_fill(struct prng *rng, void *data, size_t len_bytes)
{
	uint8_t *p = data;
	while (len_bytes > 0) {
		uint64_t word = prng_u64(rng);
		size_t step = len_bytes < sizeof(word) ? len_bytes : sizeof(word);
		memcpy(p, &word, step);
		p += step;
		len_bytes -= step;
	}
}

uint64_t hash_bytes(const void *data, size_t len_bytes)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ULL;
	for (size_t i = 0; i < len_bytes; i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return hash_u64(h);
}
