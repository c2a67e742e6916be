/*
 * rt_platform.h: the other side of the door: what host/ and sim/ supply, and what the core in rt/ gives them.
 *
 * Only rt/, host/ and sim/ include this. A platform embeds `struct rt` first in its own reactor, fills the ops, calls
 * rt_core_init, and then loops:
 *
 *     host:  set now -> rt_core_run -> submit and wait for completions until rt_core_next_deadline_ns
 *     sim:   rt_core_run -> pop the earliest event -> advance the virtual clock
 *
 * The core never blocks, makes no syscall and reads no clock: `nm` over librt.a proves it in the test run.
 */
#ifndef OXBOW_RT_RT_PLATFORM_H
#define OXBOW_RT_RT_PLATFORM_H

#include "rt/rt.h"

/* Block devices that we serve; see rt.h. */
struct rt_blk_ops {
	int (*probe)(struct rt *rt, bool *can_grow);
	int (*list)(struct rt *rt, struct rt_blk_info *infos, size_t max, size_t *count);
	int (*make)(struct rt *rt, const struct rt_blk_spec *spec, struct rt_blk **out);
	int (*recover)(struct rt *rt, uint32_t number, uint64_t deadline_ns, struct rt_blk **out);
	int (*start)(struct rt_blk *blk);
	int (*grow)(struct rt_blk *blk, uint64_t size_bytes);
	int (*next)(struct rt_blk *blk, struct rt_blk_request *out);
	int (*payload_get)(struct rt_blk *blk, const struct rt_blk_request *r, void *data);
	int (*payload_put)(struct rt_blk *blk, const struct rt_blk_request *r, const void *data);
	void (*done)(struct rt_blk *blk, const struct rt_blk_request *r, int err);
	int (*held)(struct rt *rt, uint32_t number);
	int (*stop)(struct rt_blk *blk);
	void (*close)(struct rt_blk *blk);
	int (*remove)(struct rt *rt, uint32_t number);
};

struct rt_ops {
	uint64_t (*now_exact_ns)(struct rt *rt);
	uint64_t (*wall_ns)(struct rt *rt);
	void (*random)(struct rt *rt, void *data, size_t len_bytes);

	/* A stack with an unmapped guard page below it; returns its lowest usable address, or NULL. */
	void *(*stack_map)(struct rt *rt, size_t size_bytes);
	void (*stack_unmap)(struct rt *rt, void *low, size_t size_bytes);
	/* Whole pages that stay mapped and whose content nobody needs: give the memory behind them back. Or NULL. */
	void (*memory_unneeded)(struct rt *rt, void *low, size_t size_bytes);

	void (*post)(struct rt *target, void (*fn)(void *arg), void *arg);
	void (*offload)(struct rt *rt, void (*fn)(void *arg), void *arg);

	int (*disk_open)(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes,
			 struct rt_disk **out);
	void (*disk_close)(struct rt_disk *disk);
	int (*disk_grow)(struct rt_disk *disk, uint64_t size_bytes);
	void (*disk_expect)(struct rt_disk *disk, uint64_t len_bytes, uint64_t offset_bytes); /* or NULL */
	int (*disk_probe)(struct rt *rt, const char *path, char *what, size_t what_size_bytes);
	void (*io_submit)(struct rt_io *io);

	int (*listen)(struct rt *rt, const char *address, struct rt_listener **out);
	const char *(*listener_address)(const struct rt_listener *l);
	int (*accept)(struct rt_listener *l, struct rt_conn **out);
	void (*listener_close)(struct rt_listener *l);
	int (*connect)(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out);
	int (*recv)(struct rt_conn *c, void *data, size_t len_bytes, size_t *got_bytes);
	int (*send)(struct rt_conn *c, const struct rt_iovec *parts, size_t part_count);
	void (*conn_shutdown)(struct rt_conn *c);
	void (*conn_close)(struct rt_conn *c);
	const char *(*conn_peer)(const struct rt_conn *c);
	const char *(*conn_local)(const struct rt_conn *c);

	const struct rt_blk_ops *blk; /* or NULL: not here */
};

#define RT_STACK_BYTES	   (64 * 1024)
#define RT_BIG_STACK_BYTES (256 * 1024)

/* The common head of a reactor. The fields are the core's; a platform sets now_ns and reads the rest. */
struct rt {
	const struct rt_ops *ops;
	uint64_t now_ns;
	struct list run_queue;	    /* fibers that are ready, in order */
	struct list fibers;	    /* all that have not ended, for rt_core_abandon */
	struct list free_stacks[2]; /* pooled: normal, big */
	uint32_t free_stack_count[2];
	struct fiber *current;	  /* NULL on the loop's stack */
	struct rt_timer **timers; /* binary heap by deadline, from index 1 */
	size_t timer_count, timer_capacity;
	uint64_t timer_order;		/* of the last one armed */
	uint64_t fibers_live, switches; /* for metrics and leak checks */
	void *loop_context[8];		/* where the loop's own registers rest, and sanitizer handles */
};

/* Common heads, embedded first by the platform's own structs. */
struct rt_disk {
	struct rt *rt;
	struct rt_disk_info info;
};
struct rt_conn {
	struct rt *rt;
};
struct rt_listener {
	struct rt *rt;
};
struct rt_blk {
	struct rt *rt;
	struct rt_blk_spec spec;
};

void rt_core_init(struct rt *rt, const struct rt_ops *ops);
/* Frees pooled stacks. Fibers still alive are a bug in the caller's shutdown: asserts fibers_live == 0, except that a
 * simulated crash first calls rt_core_abandon. */
void rt_core_fini(struct rt *rt);
/* A crash: forget every fiber where it stands (its stack is reclaimed, nothing on it is run or freed) and every timer. */
void rt_core_abandon(struct rt *rt);

/* Fire due timers, then run fibers until none is ready or `max_switches` have run (0: no limit). True if some are still
 * ready. Sets rt_current() for the duration. */
bool rt_core_run(struct rt *rt, uint64_t max_switches);
/* When the next timer is due; UINT64_MAX if none is armed. */
uint64_t rt_core_next_deadline_ns(const struct rt *rt);
/* Set rt_current() around a completion callback run outside rt_core_run. Pass NULL to unset. */
void rt_core_enter(struct rt *rt);

#endif
