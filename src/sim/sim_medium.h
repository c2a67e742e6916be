/*
 * sim_medium.h: what a disk remembers, and what of it a crash may take.
 *
 *     durable    survives a power cut
 *     done       writes whose `done` ran since the last flush, in order: the volatile cache
 *     current    durable with all of `done`: what a read finds
 *     flying     writes submitted and not done, in order of submission
 *
 * A write with FUA is made durable alone, before earlier writes that are still in the cache. It stays in `done` marked
 * `firm` until everything before it is durable too, so that an earlier write to the same place cannot come out on top.
 */
#ifndef OXBOW_SIM_SIM_MEDIUM_H
#define OXBOW_SIM_SIM_MEDIUM_H

#include "base/prng.h"
#include "sim/sim.h"
#include "sim/sim_image.h"

/* The sectors of a page that a write carries. */
struct sim_piece {
	struct sim_page *page;
	uint8_t sectors;
};

struct sim_write {
	uint32_t refs;
	bool firm;
	uint64_t done_order; /* 0 while in flight */
	uint64_t offset_bytes, len_bytes, first_page;
	size_t piece_count;
	struct sim_piece pieces[];
};

struct write_list {
	struct sim_write **items;
	size_t count, capacity;
};

struct sim_range {
	uint64_t offset_bytes, len_bytes;
};

struct sim_medium {
	struct sim_image durable, current;
	struct write_list done, flying;
	uint64_t last_order;
	struct sim_range *unreadable;
	size_t unreadable_count;
	uint32_t torn_bytes;
};

/* A write of `data`; NULL makes one whose pages all are `page` (taken over). Offset and length in whole sectors. */
struct sim_write *write_new(const void *data, struct sim_page *page, uint64_t offset_bytes,
			    uint64_t len_bytes);
void write_unref(struct sim_write *w);

void medium_init(struct sim_medium *m, uint64_t size_bytes, uint64_t fill_seed);
void medium_copy(struct sim_medium *to, const struct sim_medium *from);
void medium_fini(struct sim_medium *m);

void medium_fly(struct sim_medium *m, struct sim_write *w); /* submitted; keeps a reference */
/* Leaves flight without effect. */
void medium_drop(struct sim_medium *m, struct sim_write *w);
/* Done: visible to reads. `firm`: durable too. */
void medium_land(struct sim_medium *m, struct sim_write *w, bool firm);
/* Everything done up to `order` is durable. */
void medium_flush(struct sim_medium *m, uint64_t order);
void medium_set_unreadable(struct sim_medium *m, uint64_t offset_bytes, uint64_t len_bytes);
bool medium_is_readable(const struct sim_medium *m, uint64_t offset_bytes, uint64_t len_bytes);

size_t medium_unflushed(const struct sim_medium *m);
/* The index-th write a power cut may lose, done ones first. */
struct sim_write *medium_unflushed_at(const struct sim_medium *m, size_t index);
/* fates[i] for the i-th unflushed write; NULL: drawn. */
void medium_power_cut(struct sim_medium *m, const uint8_t *fates, struct prng *rng);
void medium_kill(struct sim_medium *m, struct prng *rng);

#endif
