/* regions.h: sets of a volume's regions (data/replica/replica.h), word by word. */
#ifndef OXBOW_DATA_ENGINE_REGIONS_H
#define OXBOW_DATA_ENGINE_REGIONS_H

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

/* The first at or after `region`; REPLICA_REGIONS if there is none. */
static inline uint32_t regions_next(const struct replica_regions *r, uint32_t region)
{
	for (; region < REPLICA_REGIONS; region++) {
		if (region % 8 == 0 && r->bits[region / 8] == 0)
			region += 7;
		else if (regions_has(r, region))
			return region;
	}
	return REPLICA_REGIONS;
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
