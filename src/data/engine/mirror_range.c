/* mirror_range.c: see mirror_range.h. */
#include "data/engine/mirror_range.h"

#define SLOT_SHIFT 17 /* 128 KiB: what clients ask for at once lies in two at most */

void mirror_ranges_init(struct ranges *rs)
{
	*rs = (struct ranges){.came = 0};
	list_init(&rs->narrow);
	list_init(&rs->wide);
	for (uint32_t i = 0; i < RANGE_BUCKETS; i++)
		list_init(&rs->buckets[i]);
}

static struct list *bucket_of(struct ranges *rs, uint64_t slot)
{
	return &rs->buckets[slot % RANGE_BUCKETS];
}

static void range_put(struct ranges *rs, struct range *r)
{
	uint64_t first = r->begin >> SLOT_SHIFT,
		 last = (r->end > r->begin ? r->end - 1 : r->begin) >> SLOT_SHIFT;
	r->came = ++rs->came;
	r->place_count = last - first > 1 ? 0 : (uint32_t)(last - first + 1);
	list_add_tail(r->place_count ? &rs->narrow : &rs->wide, &r->link);
	for (uint32_t i = 0; i < r->place_count; i++) {
		r->places[i].range = r;
		list_add_tail(bucket_of(rs, first + i), &r->places[i].link);
	}
}

static void range_take(struct range *r)
{
	list_del(&r->link);
	for (uint32_t i = 0; i < r->place_count; i++)
		list_del(&r->places[i].link);
}

static bool in_the_way(const struct range *first, const struct range *second)
{
	return first->begin < second->end && second->begin < first->end &&
	       (first->changes || second->changes);
}

static bool came_first(const struct list *line, const struct range *r)
{
	const struct range *other;
	list_for_each (other, line, link) {
		if (other->came >= r->came)
			return false;
		if (in_the_way(other, r))
			return true;
	}
	return false;
}

static bool came_first_there(const struct list *bucket, const struct range *r)
{
	const struct range_place *p;
	list_for_each (p, bucket, link) {
		if (p->range->came >= r->came)
			return false;
		if (in_the_way(p->range, r))
			return true;
	}
	return false;
}

static bool must_wait(struct ranges *rs, const struct range *r)
{
	uint64_t first = r->begin >> SLOT_SHIFT;
	if (came_first(&rs->wide, r))
		return true;
	for (uint32_t i = 0; i < r->place_count; i++)
		if (came_first_there(bucket_of(rs, first + i), r))
			return true;
	return !r->place_count && came_first(&rs->narrow, r);
}

void mirror_range_lock(struct ranges *rs, struct range *r, uint64_t begin, uint64_t end, bool changes)
{
	*r = (struct range){.begin = begin, .end = end, .changes = changes};
	range_put(rs, r);
	while (must_wait(rs, r)) {
		r->waiter = fiber_current();
		fiber_park();
	}
}

static void wake(struct ranges *rs, const struct range *gone, struct range *other)
{
	if (!other->waiter || !in_the_way(gone, other) || must_wait(rs, other))
		return;
	struct fiber *waiter = other->waiter;
	other->waiter = NULL;
	fiber_ready(waiter);
}

static void wake_line(struct ranges *rs, const struct range *gone, struct list *line)
{
	struct range *other;
	list_for_each (other, line, link)
		wake(rs, gone, other);
}

void mirror_range_unlock(struct ranges *rs, struct range *r)
{
	uint64_t first = r->begin >> SLOT_SHIFT;
	struct range_place *p;
	range_take(r);
	wake_line(rs, r, &rs->wide);
	for (uint32_t i = 0; i < r->place_count; i++)
		list_for_each (p, bucket_of(rs, first + i), link)
			wake(rs, r, p->range);
	if (!r->place_count)
		wake_line(rs, r, &rs->narrow);
}
