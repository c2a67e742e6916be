/*
 * mirror_double.h: a mirrored volume for the tests of the rooms that serve it: a machine of the simulator with three disks, a pool on each,
 * and a copy of the volume "disk" in each of the first of them; each copy can be cut off and come back. Not part of any product binary.
 *
 * Run under each of a few seeds; the body is a fiber of that machine, and gives back what it has opened.
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_DOUBLE_H
#define OXBOW_DATA_ENGINE_MIRROR_DOUBLE_H

#include "base/test.h"
#include "data/engine/engine.h"
#include "sim/sim.h"

#define MIRROR_DOUBLE_POOLS 3u
#define MIRROR_DOUBLE_BYTES (4 * MiB) /* of the volume */

struct mirror_double {
	uint64_t seed;
	struct sim *sim;
	struct sim_node *node;
	struct rt *rt;
	struct pool *pools[MIRROR_DOUBLE_POOLS]; /* "p0", "p1" ..., served by `engines`, too */
	struct replica_door *doors[MIRROR_DOUBLE_POOLS];
	struct uuid pool_ids[MIRROR_DOUBLE_POOLS], volume;
	bool is_cut[MIRROR_DOUBLE_POOLS], is_far[MIRROR_DOUBLE_POOLS]; /* copies; far: not called local */
	struct view view;
	uint64_t revision;
	struct view_store views;
	bool views_away;
	struct mirror *mirror;
	struct engines *engines; /* serve the mirror as "disk" */
	struct engine_notes notes;
	uint8_t note[POOL_NOTE_KINDS][POOL_NOTE_BYTES_MAX];
	uint32_t note_bytes[POOL_NOTE_KINDS];
	int notes_err;
	uint64_t
		durable; /* calls so far of copies that asked for durability: flushes, and what had VOL_FUA */
	void (*body)(void);
	bool is_done;
};

extern struct mirror_double mirrored;

/* Run `body` under `seeds` seeds, with so many copies. */
void mirror_double_run(unsigned seeds, unsigned copies, void (*body)(void));

/* Another engine takes the volume: the mirror finds itself fenced as soon as it looks. */
void mirror_double_usurp(void);
/* Take the mirror away as a node does, whose frontends evict in `evict` (may be NULL). */
void mirror_double_down(void (*evict)(void));
/* A new one in its place. */
void mirror_double_up(void);
/* Suspends until all copies are members. */
void mirror_double_whole(void);

#define WITH_COPIES(test_name, copies)                                                                       \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		mirror_double_run(3, copies, test_name##_body);                                              \
	}                                                                                                    \
	static void test_name##_body(void)

#endif
