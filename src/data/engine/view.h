/*
 * view.h: which copies of a volume are in sync: one record, changed by compare-and-swap alone (design idea 3, V1-V3).
 *
 *     epoch      only grows: every change of the record by an engine that matters to others is a higher one
 *     engine     who has the volume; nil: nobody ever had
 *     replicas   every copy the volume is known to have, in no order that means anything, each in one of three roles:
 *
 *                              join: the change, then a new head on it
 *                    ABSENT ------------------------------------------> JOINING
 *                      ^  ^                                                |  |
 *                      |  +------------------------------------------------+  | the chain below its head is whole
 *                      |            lost, or failed: the change, then         v
 *                      +------------------------------------------------- MEMBER
 *                                   the others seal their heads
 *
 *     MEMBER     has every acknowledged write, and is read
 *     JOINING    gets every write, and is not read: what is below its head is being copied
 *     ABSENT     gets nothing. seal_id is the layer that the others sealed when it left, so that its head and that layer
 *                differ in the regions `missed` alone; nil: nobody knows, and everything since the newest layer both have is compared.
 *                With all regions in `missed`, of VIEW_DOUBT_SHIFT, it is doubted: another copy was salvaged, so that even layers that both have may differ.
 *                Then seal_id is no layer's, and each layer that it is given is compared whole
 *
 * A change that moves a copy names a layer in `seals`. No write is accepted under such a view until the members have sealed
 * their heads as these layers, in their order, and a joining copy has begun its new head upon the one named join_id. Whoever
 * finds such a record, after a crash, does it before anything else; doing it again is no harm.
 *
 * `revert_layer_id`: the members are going back to that layer, and some may have and others not. Nothing is read, written or sealed until
 * all have, and the view says so by forgetting it. Copies that are not members cannot follow: who was joining begins anew, and what an
 * absent one has is compared whole. `revert_head_id` stays: the same revert asked for again is one that was done.
 *
 * `must_wait`: a copy was put out by an engine that could not fence it, and an older engine may have a lease to read from it
 * (V5). Taken back once the lease has run out.
 *
 * In bytes: little-endian, a version and a CRC-32C in front, checked like anything from outside (view_format.h).
 */
#ifndef OXBOW_DATA_ENGINE_VIEW_H
#define OXBOW_DATA_ENGINE_VIEW_H

#include "data/engine/regions.h"

#define VIEW_REPLICAS_MAX 8u
#define VIEW_SEALS_MAX	  8u
#define VIEW_BYTES_MAX	  (32 * KiB)
#define VIEW_DOUBT_SHIFT  48u /* no volume's regions are so large, and all of them are the whole of any */

static_assert(VIEW_SEALS_MAX >= VIEW_REPLICAS_MAX, "see mirror_plan.h");

enum view_role { VIEW_MEMBER = 1, VIEW_JOINING, VIEW_ABSENT };
const char *view_role_name(enum view_role role); /* "member", "joining", "absent" */

struct view_replica {
	struct uuid pool_id;
	enum view_role role;
	struct uuid seal_id;	       /* JOINING, ABSENT */
	struct uuid join_id;	       /* JOINING */
	uint32_t missed_shift;	       /* a region of `missed` is 1 << missed_shift bytes */
	struct replica_regions missed; /* JOINING, ABSENT, with a seal_id */
};

struct view {
	struct uuid volume_id, engine_id;
	uint64_t epoch;
	bool must_wait;
	uint32_t seal_count, replica_count;
	struct uuid seals[VIEW_SEALS_MAX];
	struct uuid revert_layer_id; /* nil: no revert is under way */
	struct uuid
		revert_head_id; /* what the new head is called, of this one or of the last; nil: there never was one */
	struct view_replica replicas[VIEW_REPLICAS_MAX];
};

/* OXE_INVAL: two of one pool, no member, a joining one without join_id, or beside a revert, a seal twice, a count beyond its maximum ... */
OX_CHECKED int view_check(const struct view *v);
/* VIEW_BYTES_MAX bytes are enough. Returns how many. */
size_t view_encode(const struct view *v, uint8_t *bytes);
/* OXE_CORRUPT, OXE_VERSION. */
OX_CHECKED int view_decode(const uint8_t *bytes, size_t len_bytes, struct view *out);

uint32_t view_count(const struct view *v, enum view_role role);
/* It is absent, and nothing is believed of what it has. That it is doubted stays so. */
void view_replica_unknown(struct view_replica *r);
/* NULL: it is none of them. */
struct view_replica *view_find(struct view *v, const struct uuid *pool_id);

/* It may differ anywhere: each layer it is given is compared whole. */
static inline bool view_replica_is_doubted(const struct view_replica *r)
{
	return r->missed_shift == VIEW_DOUBT_SHIFT && regions_count(&r->missed) == REPLICA_REGIONS;
}

static inline bool view_is_reverting(const struct view *v)
{
	return !uuid_is_nil(&v->revert_layer_id);
}

static inline bool view_role_is_in(enum view_role role)
{
	return role == VIEW_MEMBER || role == VIEW_JOINING;
}

/* Where views are kept. The control path provides it; data/ knows no metastore. Calls suspend. */
struct view_store {
	/* *revision names what was read. OXE_NOENT; OXE_NOTREADY: it cannot be asked now. */
	int (*get)(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision);
	/* In place of what `revision` names. OXE_DIFFERS: something else is there. OXE_NOTREADY: nothing was done. OXE_INDOUBT: it
	 * may have been done, or be done at any time from now on; the same call again settles it. */
	int (*swap)(struct view_store *s, const struct view *v, uint64_t revision, uint64_t *new_revision);
};

#endif
