/*
 * mirror_range.h: who is at which bytes (V7): requests that overlap, one of them changing something, take turns in the order they came.
 * One reactor; lock suspends.
 *
 * Ranges are found by where they lie: the volume is cut into slots, which share buckets; a range is in the buckets of the one or two slots
 * it touches, and one that touches more is among the wide ones, which everybody looks through. So beside a thousand others a turn costs as much as
 * there are others nearby. A wide one looks through all.
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_RANGE_H
#define OXBOW_DATA_ENGINE_MIRROR_RANGE_H

#include "rt/rt.h"

#define RANGE_BUCKETS 256u

struct range_place {
	struct list link;
	struct range *range;
};

struct range {
	struct list link; /* of all, or of the wide */
	struct range_place places[2];
	uint32_t place_count; /* 0: it is wide */
	uint64_t begin, end, came;
	bool changes;
	struct fiber *waiter;
};

struct ranges {
	struct list narrow, wide; /* held and waiting, in the order they came */
	struct list buckets[RANGE_BUCKETS];
	uint64_t came;
};

void mirror_ranges_init(struct ranges *rs);
void mirror_range_lock(struct ranges *rs, struct range *r, uint64_t begin, uint64_t end, bool changes);
void mirror_range_unlock(struct ranges *rs, struct range *r);

#endif
