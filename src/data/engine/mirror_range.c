/* mirror_range.c: see mirror_range.h. */
#include "data/engine/mirror_range.h"

void mirror_ranges_init(struct ranges *rs)
{
	list_init(&rs->all);
}

static bool in_the_way(const struct range *first, const struct range *second)
{
	return first->begin < second->end && second->begin < first->end &&
	       (first->changes || second->changes);
}

static bool must_wait(const struct ranges *rs, const struct range *r)
{
	const struct range *other;
	list_for_each (other, &rs->all, link) {
		if (other == r)
			return false;
		if (in_the_way(other, r))
			return true;
	}
	return false;
}

void mirror_range_lock(struct ranges *rs, struct range *r, uint64_t begin, uint64_t end, bool changes)
{
	*r = (struct range){.begin = begin, .end = end, .changes = changes};
	list_add_tail(&rs->all, &r->link);
	while (must_wait(rs, r)) {
		r->waiter = fiber_current();
		fiber_park();
	}
}

void mirror_range_unlock(struct ranges *rs, struct range *r)
{
	struct range *other;
	list_del(&r->link);
	list_for_each (other, &rs->all, link) {
		if (!other->waiter || !in_the_way(r, other) || must_wait(rs, other))
			continue;
		struct fiber *waiter = other->waiter;
		other->waiter = NULL;
		fiber_ready(waiter);
	}
}
