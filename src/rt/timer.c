/* timer.c: the timer heap: binary, by deadline and then by the order of arming, from index 1 so that 0 means "not armed". */
#include "rt/rt_internal.h"

static bool timer_before(const struct rt_timer *a, const struct rt_timer *b)
{
	return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void heap_set(struct rt *rt, size_t index, struct rt_timer *t)
{
	rt->timers[index] = t;
	t->heap_index = index;
}

/* Move `t` from the hole at `index` towards the top until its parent is earlier. */
static void heap_rise(struct rt *rt, size_t index, struct rt_timer *t)
{
	for (; index > 1 && timer_before(t, rt->timers[index / 2]); index /= 2)
		heap_set(rt, index, rt->timers[index / 2]);
	heap_set(rt, index, t);
}

/* Move `t` from the hole at `index` towards the leaves until both children are later. */
static void heap_sink(struct rt *rt, size_t index, struct rt_timer *t)
{
	for (size_t child; (child = index * 2) <= rt->timer_count; index = child) {
		if (child < rt->timer_count && timer_before(rt->timers[child + 1], rt->timers[child]))
			child++;
		if (!timer_before(rt->timers[child], t))
			break;
		heap_set(rt, index, rt->timers[child]);
	}
	heap_set(rt, index, t);
}

static void heap_reserve(struct rt *rt)
{
	if (rt->timer_count + 1 < rt->timer_capacity)
		return;
	rt->timer_capacity = rt->timer_capacity ? rt->timer_capacity * 2 : 64;
	rt->timers = mem_realloc(rt->timers, rt->timer_capacity * sizeof(*rt->timers));
}

void timer_init(struct rt_timer *t, void (*fn)(struct rt_timer *timer))
{
	*t = (struct rt_timer){.fn = fn};
}

void timer_arm(struct rt *rt, struct rt_timer *t, uint64_t deadline_ns)
{
	timer_cancel(rt, t);
	heap_reserve(rt);
	t->deadline_ns = deadline_ns;
	t->order = ++rt->timer_order;
	heap_rise(rt, ++rt->timer_count, t);
}

void timer_cancel(struct rt *rt, struct rt_timer *t)
{
	size_t hole = t->heap_index;
	if (!hole)
		return;
	assert(hole <= rt->timer_count && rt->timers[hole] == t);
	t->heap_index = 0;
	struct rt_timer *last = rt->timers[rt->timer_count--];
	if (last == t)
		return;
	if (hole > 1 && timer_before(last, rt->timers[hole / 2]))
		heap_rise(rt, hole, last);
	else
		heap_sink(rt, hole, last);
}

uint64_t rt_core_next_deadline_ns(const struct rt *rt)
{
	return rt->timer_count ? rt->timers[1]->deadline_ns : UINT64_MAX;
}

/* Bounded by the timers there were, so that one that re-arms itself in the past does not keep the fibers waiting. */
void timers_fire(struct rt *rt)
{
	for (size_t budget = rt->timer_count; budget && rt_core_next_deadline_ns(rt) <= rt->now_ns;
	     budget--) {
		struct rt_timer *t = rt->timers[1];
		timer_cancel(rt, t);
		t->fn(t);
	}
}
