/* wait.c: fibers waiting for each other and for the clock; everything here is fiber_park() and fiber_ready(). */
#include "rt/rt_internal.h"

void waitq_init(struct waitq *q)
{
	list_init(&q->waiters);
}

bool waitq_empty(const struct waitq *q)
{
	return list_empty(&q->waiters);
}

/* A parked fiber is on no run queue, so its link is free for the queue it waits on. */
static struct fiber *waitq_join(struct waitq *q)
{
	struct fiber *f = fiber_current();
	if (!f)
		rt_panic("waiting on the loop's stack, where no fiber runs");
	list_add_tail(&q->waiters, &f->link);
	return f;
}

void waitq_wait(struct waitq *q)
{
	waitq_join(q);
	fiber_park();
}

struct wait_limit {
	struct rt_timer timer;
	struct fiber *fiber;
	bool expired;
};

static void wait_expired(struct rt_timer *timer)
{
	struct wait_limit *limit = container_of(timer, struct wait_limit, timer);
	if (limit->fiber->state != FIBER_PARKED)
		return; /* woken already, and about to run */
	list_del(&limit->fiber->link);
	limit->expired = true;
	fiber_ready(limit->fiber);
}

bool waitq_wait_until(struct waitq *q, uint64_t deadline_ns)
{
	struct wait_limit limit = {.fiber = waitq_join(q)};
	struct rt *rt = limit.fiber->rt;
	timer_init(&limit.timer, wait_expired);
	timer_arm(rt, &limit.timer, deadline_ns);
	fiber_park();
	timer_cancel(rt, &limit.timer);
	return !limit.expired;
}

void waitq_wake_one(struct waitq *q)
{
	struct fiber *f = list_pop(&q->waiters, struct fiber, link);
	if (f)
		fiber_ready(f);
}

void waitq_wake_all(struct waitq *q)
{
	while (!waitq_empty(q))
		waitq_wake_one(q);
}

void fmutex_init(struct fmutex *m)
{
	m->holder = NULL;
	waitq_init(&m->waiters);
}

void fmutex_lock(struct fmutex *m)
{
	struct fiber *self = fiber_current();
	assert(self && m->holder != self);
	if (!m->holder)
		m->holder = self;
	else
		waitq_wait(&m->waiters); /* unlock hands it over */
	assert(m->holder == self);
}

void fmutex_unlock(struct fmutex *m)
{
	assert(m->holder && m->holder == fiber_current());
	m->holder = list_pop(&m->waiters.waiters, struct fiber, link);
	if (m->holder)
		fiber_ready(m->holder);
}

void group_init(struct rt_group *g)
{
	g->pending = 0;
	waitq_init(&g->waiters);
}

void group_add(struct rt_group *g, uint32_t count)
{
	assert(g->pending + count >= count);
	g->pending += count;
}

void group_done(struct rt_group *g)
{
	assert(g->pending > 0);
	if (--g->pending == 0)
		waitq_wake_all(&g->waiters);
}

void group_wait(struct rt_group *g)
{
	while (g->pending)
		waitq_wait(&g->waiters);
}

static void sleep_over(struct rt_timer *timer)
{
	fiber_ready(container_of(timer, struct wait_limit, timer)->fiber);
}

/* The turn's clock may be behind by a turn, and a sleep is never short: measure from the exact one. */
void fiber_sleep(uint64_t ns)
{
	struct wait_limit sleep = {.fiber = fiber_current()};
	uint64_t deadline_ns;
	if (!sleep.fiber)
		rt_panic("fiber_sleep() on the loop's stack");
	if (!u64_add_checked(rt_now_exact_ns(sleep.fiber->rt), ns, &deadline_ns))
		deadline_ns = UINT64_MAX;
	timer_init(&sleep.timer, sleep_over);
	timer_arm(sleep.fiber->rt, &sleep.timer, deadline_ns);
	fiber_park();
}
