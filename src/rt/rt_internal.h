/* rt_internal.h: what the core's own files share. */
#ifndef OXBOW_RT_RT_INTERNAL_H
#define OXBOW_RT_RT_INTERNAL_H

#include "rt/rt_platform.h"

enum fiber_state { FIBER_IDLE, FIBER_READY, FIBER_RUNNING, FIBER_PARKED };

/*
 * A fiber lives at the high end of its own stack and stays there when its function has returned: the pool keeps whole
 * idle fibers, and the next spawn hands one a new function.
 */
struct fiber {
	struct list link;  /* run queue, a waitq, or the pool */
	struct list alive; /* rt->fibers */
	struct rt *rt;
	void *sp; /* while not running */
	void (*fn)(void *arg);
	void *arg;
	const char *name;
	enum fiber_state state;
	bool entered; /* has a frame to return to; false for a new or abandoned stack */
	unsigned kind;
	void *stack_low;
	void *asan_state, *tsan_thread;
	unsigned valgrind_id;
};

/* Slots of rt->loop_context. */
enum { LOOP_SP, LOOP_ASAN_STATE, LOOP_STACK_LOW, LOOP_STACK_BYTES, LOOP_TSAN_THREAD };

/* Says what went wrong and stops: for misuse of the door that would otherwise hang or corrupt. */
_Noreturn void rt_panic(const char *what);

/* Run the timers that were due when the turn began. */
void timers_fire(struct rt *rt);

#endif
