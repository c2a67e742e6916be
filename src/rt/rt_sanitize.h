/*
 * rt_sanitize.h: what the tools must be told about fibers and pooled memory; nothing in a plain build.
 *
 *   ASan, LSan   each switch of stacks; stale red zones on a stack that is used again; stacks as places where pointers live;
 *                pooled buffers nobody holds
 *   TSan         a logical thread for each fiber
 *   valgrind     where a stack lies (a few no-op instructions in a plain build, when its header was there)
 */
#ifndef OXBOW_RT_RT_SANITIZE_H
#define OXBOW_RT_RT_SANITIZE_H

#include "base/base.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define OX_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#else
#define OX_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define OX_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define OX_TSAN 0
#endif

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(low, high) ((void)(low), (void)(high), 0)
#define VALGRIND_STACK_DEREGISTER(id)	   ((void)(id))
#endif

/* Before a switch: where this stack's state is kept, and where the next stack lies. */
static inline void san_switch_start(void **own_state, const void *next_low, size_t next_bytes)
{
#if OX_ASAN
	__sanitizer_start_switch_fiber(own_state, next_low, next_bytes);
#else
	(void)own_state, (void)next_low, (void)next_bytes;
#endif
}

/* After a switch, on the new stack: its state, and where the old stack lay (both may be NULL). */
static inline void san_switch_finish(void *own_state, void **old_low, void **old_bytes)
{
#if OX_ASAN
	const void *low = NULL;
	size_t size_bytes = 0;
	__sanitizer_finish_switch_fiber(own_state, &low, &size_bytes);
	if (old_low) {
		*old_low = (void *)(uintptr_t)low;
		*old_bytes = (void *)size_bytes;
	}
#else
	(void)own_state, (void)old_low, (void)old_bytes;
#endif
}

static inline void san_poison(const void *data, size_t len_bytes)
{
#if OX_ASAN
	__asan_poison_memory_region(data, len_bytes);
#else
	(void)data, (void)len_bytes;
#endif
}

static inline void san_unpoison(const void *data, size_t len_bytes)
{
#if OX_ASAN
	__asan_unpoison_memory_region(data, len_bytes);
#else
	(void)data, (void)len_bytes;
#endif
}

/* Pointers on this stack keep what they point to from being called a leak. */
static inline void san_stack_add(const void *low, size_t size_bytes)
{
#if OX_ASAN
	__lsan_register_root_region(low, size_bytes);
#else
	(void)low, (void)size_bytes;
#endif
}

static inline void san_stack_remove(const void *low, size_t size_bytes)
{
#if OX_ASAN
	__lsan_unregister_root_region(low, size_bytes);
	__asan_unpoison_memory_region(low, size_bytes);
#else
	(void)low, (void)size_bytes;
#endif
}

static inline void *san_thread_current(void)
{
#if OX_TSAN
	return __tsan_get_current_fiber();
#else
	return NULL;
#endif
}

static inline void *san_thread_new(void)
{
#if OX_TSAN
	return __tsan_create_fiber(0);
#else
	return NULL;
#endif
}

static inline void san_thread_free(void *thread)
{
#if OX_TSAN
	if (thread)
		__tsan_destroy_fiber(thread);
#else
	(void)thread;
#endif
}

/* Immediately before a switch to the stack of `thread`. */
static inline void san_thread_enter(void *thread)
{
#if OX_TSAN
	__tsan_switch_to_fiber(thread, 0);
#else
	(void)thread;
#endif
}

#endif
