/*
 * mirror_range.h: who is at which bytes (V7): requests that overlap, one of them changing something, take turns in the order they came.
 * One reactor; lock suspends.
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_RANGE_H
#define OXBOW_DATA_ENGINE_MIRROR_RANGE_H

#include "rt/rt.h"

struct range {
	struct list link;
	uint64_t begin, end;
	bool changes;
	struct fiber *waiter;
};

struct ranges {
	struct list all; /* held and waiting, in the order they came */
};

void mirror_ranges_init(struct ranges *rs);
void mirror_range_lock(struct ranges *rs, struct range *r, uint64_t begin, uint64_t end, bool changes);
void mirror_range_unlock(struct ranges *rs, struct range *r);

#endif
