/* regions.h: sets of a volume's regions (data/replica/replica.h), word by word. */
#ifndef OXBOW_DATA_ENGINE_REGIONS_H
#define OXBOW_DATA_ENGINE_REGIONS_H

#include "base/bytes.h"
#include "data/replica/replica.h"

static inline bool regions_has(const struct replica_regions *r, uint32_t region)
{
	return r->bits[region / 8] >> (region % 8) & 1;
}

static inline void regions_add(struct replica_regions *r, uint32_t region)
{
	r->bits[region / 8] |= (uint8_t)(1u << (region % 8));
}

static inline void regions_remove(struct replica_regions *r, uint32_t region)
{
	r->bits[region / 8] &= (uint8_t) ~(1u << (region % 8));
}

static inline void regions_or(struct replica_regions *r, const struct replica_regions *other)
{
	for (size_t i = 0; i < sizeof(r->bits); i++)
		r->bits[i] |= other->bits[i];
}

static inline void regions_subtract(struct replica_regions *r, const struct replica_regions *other)
{
	for (size_t i = 0; i < sizeof(r->bits); i++)
		r->bits[i] &= (uint8_t)~other->bits[i];
}

#define REGIONS_WORD 64u

static_assert(REPLICA_REGIONS % REGIONS_WORD == 0, "words are whole");

/* Bit n is region `word * REGIONS_WORD + n`. */
static inline uint64_t regions_word(const struct replica_regions *r, uint32_t word)
{
	le64 w;
	memcpy(&w, r->bits + word * sizeof(w), sizeof(w));
	return le64_get(w);
}

/* The first at or after `region`; REPLICA_REGIONS if there is none. */
static inline uint32_t regions_next(const struct replica_regions *r, uint32_t region)
{
	uint32_t word = region / REGIONS_WORD;
	if (region >= REPLICA_REGIONS)
		return REPLICA_REGIONS;
	uint64_t bits = regions_word(r, word) & (UINT64_MAX << (region % REGIONS_WORD));
	while (bits == 0 && ++word < REPLICA_REGIONS / REGIONS_WORD)
		bits = regions_word(r, word);
	return bits == 0 ? REPLICA_REGIONS : word * REGIONS_WORD + (uint32_t)__builtin_ctzll(bits);
}

/* Is there one from `first` to `last`? Looks no further: for what is asked with every request. */
static inline bool regions_any(const struct replica_regions *r, uint32_t first, uint32_t last)
{
	uint32_t word = first / REGIONS_WORD, end = last / REGIONS_WORD;
	uint64_t bits = regions_word(r, word) & (UINT64_MAX << (first % REGIONS_WORD));
	while (bits == 0 && ++word <= end)
		bits = regions_word(r, word);
	return bits != 0 && word * REGIONS_WORD + (uint32_t)__builtin_ctzll(bits) <= last;
}

static inline bool regions_empty(const struct replica_regions *r)
{
	return regions_next(r, 0) == REPLICA_REGIONS;
}

static inline uint32_t regions_count(const struct replica_regions *r)
{
	uint32_t count = 0;
	for (size_t i = 0; i < sizeof(r->bits); i++)
		count += (uint32_t)__builtin_popcount(r->bits[i]);
	return count;
}

#endif
