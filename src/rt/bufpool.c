/*
 * bufpool.c: payload buffers under one budget.
 *
 * Buffers come in powers of two and are kept for the next asker. The budget covers all memory held, lent or kept: when it
 * is used up by kept buffers of other sizes, those are given back to the system; when it is lent out, askers queue. The
 * first in the queue is served first, even if a later one would fit already, so a large request cannot starve.
 *
 * Buffers that lay unused give the memory behind them back: once a second the pool looks how few were ever kept at a time since
 * the last look. So many were not needed, and they are the ones at the bottom: the last one put away is the next to be given
 * out. When nothing is left to give back the pool looks no more: idle is idle.
 */
#include "rt/rt_internal.h"

#include "rt/rt_sanitize.h"

#define CLASS_MIN_SHIFT 12
#define CLASS_COUNT	28 /* up to 512 GiB */

#define LOOK_NS	       NS_PER_S
#define LOOK_AGAIN_NS  NS_PER_MS
#define LOOK_BYTES_MAX (4 * MiB) /* given back at a time: others wait for the reactor */

/* The kept buffers of one size, poisoned. The first `cold` have no memory behind them. */
struct shelf {
	void **bufs;
	size_t count, capacity, cold;
	size_t least; /* count at its lowest since the last look */
};

struct rt_bufpool {
	struct rt *rt;
	uint64_t budget_bytes, held_bytes, lent_bytes;
	struct shelf shelves[CLASS_COUNT];
	struct rt_timer look;
	bool looking; /* the timer is armed */
	struct list waiters;
};

struct buf_waiter {
	struct list link;
	struct fiber *fiber;
	size_t len_bytes;
	void *buf;
};

static unsigned class_of(size_t len_bytes)
{
	size_t pages = u64_div_up(len_bytes, RT_IO_ALIGN);
	return pages <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(pages - 1);
}

static uint64_t class_bytes(unsigned class)
{
	return (uint64_t)1 << (CLASS_MIN_SHIFT + class);
}

/* A request whose class would not fit the whole budget gets exactly what it asks for, and is not kept. */
static uint64_t charge_bytes(const struct rt_bufpool *p, size_t len_bytes)
{
	uint64_t bytes = class_bytes(class_of(len_bytes));
	return bytes <= p->budget_bytes ? bytes : u64_align_up(len_bytes, RT_IO_ALIGN);
}

/* ---- keeping --------------------------------------------------------------------------------------------------------- */

static void *kept_take(struct rt_bufpool *p, unsigned class)
{
	struct shelf *s = &p->shelves[class];
	if (s->count == 0)
		return NULL;
	void *buf = s->bufs[--s->count];
	s->least = u64_min(s->least, s->count);
	s->cold = u64_min(s->cold, s->count);
	san_unpoison(buf, class_bytes(class));
	return buf;
}

static void look_in(struct rt_bufpool *p, uint64_t delay_ns)
{
	p->looking = true;
	timer_arm(p->rt, &p->look, rt_now_ns(p->rt) + delay_ns);
}

static void kept_add(struct rt_bufpool *p, unsigned class, void *buf)
{
	struct shelf *s = &p->shelves[class];
	if (s->count == s->capacity) {
		s->capacity = s->capacity ? s->capacity * 2 : 16;
		s->bufs = mem_realloc(s->bufs, s->capacity * sizeof(*s->bufs));
	}
	s->bufs[s->count++] = buf;
	san_poison(buf, class_bytes(class));
	if (!p->looking && p->rt->ops->memory_unneeded)
		look_in(p, LOOK_NS);
}

/* What nobody needed since the last look, up to *bytes of it. True if that was all. */
static bool shelf_cool(struct rt_bufpool *p, unsigned class, uint64_t *bytes)
{
	struct shelf *s = &p->shelves[class];
	for (; s->cold<s->least && * bytes> 0; s->cold++) {
		p->rt->ops->memory_unneeded(p->rt, s->bufs[s->cold], class_bytes(class));
		*bytes -= u64_min(*bytes, class_bytes(class));
	}
	if (s->cold < s->least)
		return false;
	s->least = s->count;
	return true;
}

static void look(struct rt_timer *timer)
{
	struct rt_bufpool *p = container_of(timer, struct rt_bufpool, look);
	uint64_t bytes = LOOK_BYTES_MAX;
	bool all = true, is_warm = false;
	for (unsigned class = 0; class < CLASS_COUNT; class ++) {
		all = shelf_cool(p, class, &bytes) && all;
		is_warm = is_warm || p->shelves[class].cold < p->shelves[class].count;
	}
	p->looking = false;
	if (is_warm)
		look_in(p, all ? LOOK_NS : LOOK_AGAIN_NS);
}

/* ---- lending --------------------------------------------------------------------------------------------------------- */

/* Give kept buffers back, the largest first, until `bytes` more fit the budget. */
static void kept_release(struct rt_bufpool *p, uint64_t bytes)
{
	for (unsigned class = CLASS_COUNT; class -- > 0 && p->held_bytes + bytes > p->budget_bytes;) {
		void *buf;
		while (p->held_bytes + bytes > p->budget_bytes && (buf = kept_take(p, class))) {
			p->held_bytes -= class_bytes(class);
			free(buf);
		}
	}
}

static void *buf_alloc(struct rt_bufpool *p, uint64_t bytes)
{
	kept_release(p, bytes);
	void *buf = aligned_alloc(RT_IO_ALIGN, bytes);
	if (!buf)
		rt_panic("out of memory for payload buffers");
	p->held_bytes += bytes;
	return buf;
}

/* A buffer if the budget has room for it, whoever waits. */
static void *buf_take(struct rt_bufpool *p, size_t len_bytes)
{
	uint64_t bytes = charge_bytes(p, len_bytes);
	if (p->lent_bytes + bytes > p->budget_bytes)
		return NULL;
	unsigned class = class_of(len_bytes);
	void *buf = bytes == class_bytes(class) ? kept_take(p, class) : NULL;
	if (!buf)
		buf = buf_alloc(p, bytes);
	p->lent_bytes += bytes;
	return buf;
}

static void waiters_serve(struct rt_bufpool *p)
{
	while (!list_empty(&p->waiters)) {
		struct buf_waiter *w = list_first(&p->waiters, struct buf_waiter, link);
		w->buf = buf_take(p, w->len_bytes);
		if (!w->buf)
			return;
		list_del(&w->link);
		fiber_ready(w->fiber);
	}
}

struct rt_bufpool *rt_bufpool_new(struct rt *rt, uint64_t budget_bytes)
{
	struct rt_bufpool *p = mem_zalloc(sizeof(*p));
	p->rt = rt;
	timer_init(&p->look, look);
	p->budget_bytes = u64_align_up(budget_bytes, RT_IO_ALIGN);
	list_init(&p->waiters);
	return p;
}

void rt_bufpool_free(struct rt_bufpool *p)
{
	if (!p)
		return;
	assert(p->lent_bytes == 0 && list_empty(&p->waiters));
	kept_release(p, p->budget_bytes);
	assert(p->held_bytes == 0);
	timer_cancel(p->rt, &p->look);
	for (unsigned class = 0; class < CLASS_COUNT; class ++)
		free(p->shelves[class].bufs);
	free(p);
}

void *rt_buf_try(struct rt_bufpool *p, size_t len_bytes)
{
	assert(len_bytes <= p->budget_bytes);
	return list_empty(&p->waiters) ? buf_take(p, len_bytes) : NULL;
}

void *rt_buf_get(struct rt_bufpool *p, size_t len_bytes)
{
	void *buf = rt_buf_try(p, len_bytes);
	if (buf)
		return buf;
	struct buf_waiter w = {.fiber = fiber_current(), .len_bytes = len_bytes};
	list_add_tail(&p->waiters, &w.link);
	fiber_park();
	return w.buf;
}

void rt_buf_put(struct rt_bufpool *p, void *buf, size_t len_bytes)
{
	uint64_t bytes = charge_bytes(p, len_bytes);
	unsigned class = class_of(len_bytes);
	assert(p->lent_bytes >= bytes);
	p->lent_bytes -= bytes;
	if (bytes == class_bytes(class)) {
		kept_add(p, class, buf);
	} else {
		p->held_bytes -= bytes;
		free(buf);
	}
	waiters_serve(p);
}
