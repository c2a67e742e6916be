/* fiber.c: fibers: their stacks, the run queue, and the turn of the loop that runs them. */
#include "rt/rt_internal.h"

#include "base/prng.h"
#include "rt/fiber_switch.h"
#include "rt/rt_sanitize.h"

#include <stdio.h>

static _Thread_local struct rt *current_rt;

/* Idle stacks kept; more are unmapped. An idle 64 KiB stack holds a page or two of real memory. */
static const struct {
	size_t stack_bytes;
	uint32_t idle_max;
} kinds[] = {{RT_STACK_BYTES, 1024}, {RT_BIG_STACK_BYTES, 32}};

_Noreturn void rt_panic(const char *what)
{
	fprintf(stderr, "oxbow: %s\n", what);
	abort();
}

struct rt *rt_current(void)
{
	return current_rt;
}

struct fiber *fiber_current(void)
{
	return current_rt ? current_rt->current : NULL;
}

void rt_core_enter(struct rt *rt)
{
	current_rt = rt;
}

/* ---- switching --------------------------------------------------------------------------------------------------- */

static void fiber_to_loop(struct fiber *f)
{
	void **loop = f->rt->loop_context;
	san_switch_start(&f->asan_state, loop[LOOP_STACK_LOW], (size_t)loop[LOOP_STACK_BYTES]);
	san_thread_enter(loop[LOOP_TSAN_THREAD]);
	fiber_switch(&f->sp, loop[LOOP_SP]);
	san_switch_finish(f->asan_state, &loop[LOOP_STACK_LOW], &loop[LOOP_STACK_BYTES]);
}

/* The body of every fiber: one function after another, with a rest in the pool between them. */
static void fiber_main(void *arg)
{
	struct fiber *f = arg;
	void **loop = f->rt->loop_context;
	san_switch_finish(NULL, &loop[LOOP_STACK_LOW], &loop[LOOP_STACK_BYTES]);
	for (;;) {
		f->fn(f->arg);
		f->state = FIBER_IDLE;
		fiber_to_loop(f);
	}
}

static void loop_to_fiber(struct rt *rt, struct fiber *f)
{
	void **loop = rt->loop_context;
	loop[LOOP_TSAN_THREAD] = san_thread_current();
	san_switch_start(&loop[LOOP_ASAN_STATE], f->stack_low, kinds[f->kind].stack_bytes);
	san_thread_enter(f->tsan_thread);
	fiber_switch(&loop[LOOP_SP], f->sp);
	san_switch_finish(loop[LOOP_ASAN_STATE], NULL, NULL);
}

/* ---- stacks ------------------------------------------------------------------------------------------------------ */

static struct fiber *fiber_map(struct rt *rt, unsigned kind)
{
	size_t stack_bytes = kinds[kind].stack_bytes;
	char *low = rt->ops->stack_map(rt, stack_bytes);
	if (!low)
		rt_panic("out of memory for a fiber's stack");
	/* Stacks lie a multiple of a page apart. Without a stagger the hot words of all of them share one cache set. */
	size_t stagger = (hash_u64((uintptr_t)low) & 15) * 128;
	struct fiber *f = (struct fiber *)(low + stack_bytes - stagger - u64_align_up(sizeof(*f), 64));
	*f = (struct fiber){.rt = rt, .kind = kind, .stack_low = low};
	list_init(&f->link);
	list_init(&f->alive);
	f->valgrind_id = VALGRIND_STACK_REGISTER(low, low + stack_bytes);
	san_stack_add(low, stack_bytes);
	return f;
}

static void fiber_unmap(struct fiber *f)
{
	struct rt *rt = f->rt;
	void *low = f->stack_low;
	size_t stack_bytes = kinds[f->kind].stack_bytes;
	san_thread_free(f->tsan_thread);
	san_stack_remove(low, stack_bytes);
	VALGRIND_STACK_DEREGISTER(f->valgrind_id);
	rt->ops->stack_unmap(rt, low, stack_bytes);
}

/* Give a stack that holds no suspended fiber_main() a first frame. */
static void fiber_prepare(struct fiber *f)
{
	san_unpoison(f->stack_low, (size_t)((char *)f - (char *)f->stack_low));
	san_thread_free(f->tsan_thread);
	f->tsan_thread = san_thread_new();
	f->asan_state = NULL;
	f->sp = fiber_frame_make(f, fiber_main, f);
	f->entered = true;
}

static struct fiber *fiber_take(struct rt *rt, unsigned kind)
{
	struct fiber *f = list_pop(&rt->free_stacks[kind], struct fiber, link);
	if (f)
		rt->free_stack_count[kind]--;
	else
		f = fiber_map(rt, kind);
	if (!f->entered)
		fiber_prepare(f);
	return f;
}

/* The last used stack is the warmest: it is used next. */
static void fiber_recycle(struct rt *rt, struct fiber *f)
{
	list_del(&f->alive);
	rt->fibers_live--;
	if (rt->free_stack_count[f->kind] >= kinds[f->kind].idle_max) {
		fiber_unmap(f);
		return;
	}
	rt->free_stack_count[f->kind]++;
	list_add_head(&rt->free_stacks[f->kind], &f->link);
}

/* ---- the door's verbs --------------------------------------------------------------------------------------------- */

static void fiber_start(struct rt *rt, unsigned kind, const char *name, void (*fn)(void *arg), void *arg)
{
	struct fiber *f = fiber_take(rt, kind);
	f->name = name;
	f->fn = fn;
	f->arg = arg;
	f->state = FIBER_READY;
	rt->fibers_live++;
	list_add_tail(&rt->fibers, &f->alive);
	list_add_tail(&rt->run_queue, &f->link);
}

void fiber_spawn(struct rt *rt, const char *name, void (*fn)(void *arg), void *arg)
{
	fiber_start(rt, 0, name, fn, arg);
}

void fiber_spawn_big(struct rt *rt, const char *name, void (*fn)(void *arg), void *arg)
{
	fiber_start(rt, 1, name, fn, arg);
}

void fiber_park(void)
{
	struct fiber *f = fiber_current();
	if (!f)
		rt_panic("something that suspends was called on the loop's stack (from a `done` or a timer), "
			 "where "
			 "no fiber runs");
	f->state = FIBER_PARKED;
	fiber_to_loop(f);
}

void fiber_ready(struct fiber *f)
{
	if (f->state != FIBER_PARKED)
		rt_panic(
			"fiber_ready() of a fiber that is not parked: it was made ready twice, or has ended");
	f->state = FIBER_READY;
	list_add_tail(&f->rt->run_queue, &f->link);
}

void fiber_yield(void)
{
	struct fiber *f = fiber_current();
	if (!f)
		rt_panic("fiber_yield() on the loop's stack");
	f->state = FIBER_READY;
	list_add_tail(&f->rt->run_queue, &f->link);
	fiber_to_loop(f);
}

/* ---- the loop's side ------------------------------------------------------------------------------------------------ */

void rt_core_init(struct rt *rt, const struct rt_ops *ops)
{
	*rt = (struct rt){.ops = ops};
	list_init(&rt->run_queue);
	list_init(&rt->fibers);
	list_init(&rt->free_stacks[0]);
	list_init(&rt->free_stacks[1]);
}

void rt_core_fini(struct rt *rt)
{
	assert(rt->fibers_live == 0);
	for (unsigned kind = 0; kind < ARRAY_COUNT(kinds); kind++) {
		struct fiber *f;
		while ((f = list_pop(&rt->free_stacks[kind], struct fiber, link)))
			fiber_unmap(f);
		rt->free_stack_count[kind] = 0;
	}
	free(rt->timers);
	rt->timers = NULL;
	rt->timer_count = rt->timer_capacity = 0;
}

void rt_core_abandon(struct rt *rt)
{
	assert(!rt->current);
	struct fiber *f, *tmp;
	list_for_each_safe (f, tmp, &rt->fibers, alive) {
		list_init(&f->link); /* whatever queue it was on is forgotten too */
		f->state = FIBER_IDLE;
		f->entered = false;
		fiber_recycle(rt, f);
	}
	list_init(&rt->run_queue);
	rt->timer_count = 0;
}

static void fiber_run(struct rt *rt, struct fiber *f)
{
	f->state = FIBER_RUNNING;
	rt->current = f;
	rt->switches++;
	loop_to_fiber(rt, f);
	rt->current = NULL;
	if (f->state == FIBER_IDLE)
		fiber_recycle(rt, f);
}

bool rt_core_run(struct rt *rt, uint64_t max_switches)
{
	assert(!rt->current);
	struct rt *outer = current_rt;
	current_rt = rt;
	timers_fire(rt);
	uint64_t end = max_switches ? rt->switches + max_switches : UINT64_MAX;
	while (rt->switches < end) {
		struct fiber *f = list_pop(&rt->run_queue, struct fiber, link);
		if (!f)
			break;
		fiber_run(rt, f);
	}
	current_rt = outer;
	return !list_empty(&rt->run_queue);
}
