/*
 * pool_model.h: what a pool promised, in plain arrays, and the check of a recovered pool against it.
 *
 * The workload tells the model of each call before and after it is made; the model therefore knows at any moment what a crash
 * may leave: objects whose call was answered, objects whose call was not (they may be whole or absent), and for each sector
 * the values allowed (pool_content.h). Control calls are made one at a time, data calls in any number.
 */
#ifndef OXBOW_SIM_POOL_MODEL_H
#define OXBOW_SIM_POOL_MODEL_H

#include "base/prng.h"
#include "data/store/pool.h"
#include "sim/pool_content.h"
#include "sim/pool_damage.h"

#define MODEL_VOLUMES	8u
#define MODEL_SNAPSHOTS 10u

/* What a crash may find of an object: absent, there, or either because the call that makes or deletes it is under way. */
enum presence { ABSENT, PRESENT, APPEARING, VANISHING };

struct model_snapshot {
	enum presence presence;
	struct uuid id;
	char name[POOL_NAME_MAX + 1], new_name[POOL_NAME_MAX + 1]; /* new_name: a rename is under way */
	uint64_t size_bytes;
	struct content *content; /* NULL while APPEARING: then the head's, since `begin` */
	uint64_t begin;
	uint32_t ancestors; /* snapshots of the volume below it, as bits by index */
	uint32_t users;	    /* for the workload: calls that need it */
};

struct model_volume {
	enum presence presence;
	bool is_fresh; /* to be grafted upon another: the content says where nothing was said */
	struct uuid id;
	char name[POOL_NAME_MAX + 1], new_name[POOL_NAME_MAX + 1];
	uint64_t serial, size_bytes, new_size_bytes; /* new_size: growing or reverting; else 0 */
	uint32_t lba_bytes;
	struct content *content;
	struct model_snapshot snapshots[MODEL_SNAPSHOTS];
	uint64_t notes[POOL_NOTE_KINDS]; /* the version of each; 0: none */
	uint64_t new_note;		 /* being set under new_note_kind */
	int new_note_kind;		 /* -1: none is being set */
	uint32_t ancestors;		 /* snapshots that the head stands on, as bits by index */
	int reverting_to;		 /* index of a snapshot; -1: no revert is under way */
	struct uuid reverting_head;
	struct content *grafted; /* what it has when the graft under way has happened; NULL: none is */
	/* The fresh volume, and its head: of the graft under way, or of the last one that happened. */
	struct uuid grafted_id, grafted_head;
	/* For the workload, nothing to do with what is promised. */
	struct vol *handle;
	uint32_t users;
	bool closing; /* a call that needs it closed waits or runs */
};

struct model {
	struct model_volume volumes[MODEL_VOLUMES];
	uint64_t clock, version, serial;
	uint64_t pool_bytes, new_pool_bytes; /* new: the pool is growing; else 0 */
	bool flattened; /* a clone was copied, or was to be: equal data of two volumes may be two copies */
};

void model_init(struct model *m);
void model_fini(struct model *m);
struct model *model_copy(const struct model *m); /* without handles */
void model_free(struct model *m);
static inline uint64_t model_tick(struct model *m)
{
	return ++m->clock;
}

struct model_volume *model_volume_free_slot(struct model *m);
struct model_snapshot *model_snapshot_free_slot(struct model_volume *v);
void model_volume_drop(struct model_volume *v);
void model_snapshot_drop(struct model_snapshot *s);

/* What the workload notes as `version`: it says so itself. Returns the length; 0 for version 0. */
uint32_t model_note_fill(uint8_t data[POOL_NOTE_BYTES_MAX], uint64_t version);

void model_snapshot_taken(struct model_volume *v, const struct model_snapshot *s);
void model_snapshot_gone(struct model_volume *v, struct model_snapshot *s);

/* The graft under way upon `v` has happened, or it has not and never will. */
void model_graft_end(struct model *m, struct model_volume *v, bool happened);
/* A start decides for good what a crash left open (S5): `v`, which could be opened, has what was grafted upon it, or has not. */
void model_graft_decide(struct model *m, struct model_volume *v, const struct pool *pool);

/* What snapshot_usage may say of a snapshot, in blocks of 4 KiB. Clients may write meanwhile, so the least is counted before the
 * call and the most after it. */
struct model_usage {
	uint64_t referenced_min, exclusive_min; /* model_usage_least */
	uint64_t referenced_max, exclusive_max; /* model_usage_most */
};
void model_usage_least(const struct model *m, const struct model_snapshot *s, struct model_usage *out);
void model_usage_most(const struct model *m, const struct model_volume *v, const struct model_snapshot *s,
		      struct model_usage *out);

struct model_check {
	bool power_cut; /* else only kills happened */
	bool full; /* read everything, rather than what is open, what was touched lately and a few others */
	struct prng *rng;
	struct model *learned; /* NULL, or an empty model to fill with what was found; needs `full` */
	struct damage *damage; /* NULL, or what may be missing because of it; notes what it shows */
};

/* Compare the pool with what is allowed; runs pool_check too. False with a sentence in `why`. Suspends. */
bool model_check_pool(const struct model *m, struct pool *pool, const struct model_check *check, char *why,
		      size_t why_size);

#endif
