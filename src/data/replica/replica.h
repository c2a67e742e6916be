/*
 * replica.h: one copy of a volume, as the engine sees it, wherever it lies: a call away or behind a network.
 *
 *     replica            a volume in a pool, of the same id in each pool that has a copy; so a pool's id names it
 *       head             takes every write of the engine that holds it
 *       layers           sealed, under the same ids in every copy
 *     session            what an open gives: the right to read and write, until somebody opens it anew
 *
 * The fence (V4). A replica remembers, durably, the highest epoch it was opened with and by whom. An open of an older epoch, or of
 * the same one by somebody else, is OXE_FENCED. An open that succeeds ends every session before it: when it returns, nothing
 * that those sent can still be carried out, and whatever they send is OXE_FENCED.
 *
 * Joining (V8). A replica that is not up to date gets a second, empty head beside its old chain, on which every new write lands
 * from its first moment, while the chain below is filled layer by layer. Then one record puts the new head upon it:
 *
 *     before            joining                                  after
 *     head              new head        <- writes                head   (was the new head)
 *      |                                                          |
 *     layers            head            <- fill                  join layer, sealed by the last fill
 *                        |                                        |
 *                       layers                                   layers
 *
 * Reads of a joining replica's new head are never asked for (OXE_INVAL): what is below it is not there yet. For the same reason only
 * whole blocks of POOL_BLOCK_BYTES are written and zeroed in it (OXE_ALIGN): what a part of one leaves of the rest is not known.
 *
 * Intents (V6). One bit a region, durable before anything in the region is written. Which regions there are follows from the
 * volume's size (replica_region_shift). A copy that begins to join keeps the intents it was left with beside those that are set from
 * then on: only filling makes the regions good. They are out of the set once fill_seal has returned and the set is set again. A copy
 * whose size changes keeps its intents, in regions of the new size.
 *
 * Power (V3). A copy remembers, durably, the boot of its machine. Opened on another one it may lack what was acknowledged and not
 * flushed: that can be where it has an intent, and those regions it calls may_lack from then on, to every engine, until one says that
 * they have been made good. While it may lack something there it keeps the intent.
 *
 *   who owns memory   the maker of a replica frees it; answers are the caller's
 *   which reactor     one; every call suspends unless it says otherwise. Calls of one session may overlap, and then take effect in
 *                     any order
 *   errors            OXE_FENCED: somebody newer has the volume, and this session never comes back.
 *                     OXE_INDOUBT: the copy cannot be asked, and the call may or may not have been carried out; OXE_CLOSED,
 *                     OXE_NOTREADY: it cannot be asked and it certainly was not. After any of the three the session is over:
 *                     open it anew, which is when what is in doubt has either happened or never will.
 *                     Others are the copy's own answer, as in data/store/pool.h
 *   what is durable   open, intents_set, made_good, seal and all other verbs that change what is there: all of it, when they return 0. Data as
 *                     in pool.h: after flush, or with VOL_FUA
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_H
#define OXBOW_DATA_REPLICA_REPLICA_H

#include "data/store/pool.h"

#define REPLICA_LAYERS_MAX	 4096u /* of one chain */
#define REPLICA_REGIONS		 16384u
#define REPLICA_REGION_SHIFT_MIN 20u   /* 1 MiB */
#define REPLICA_CHECKSUM_BYTES	 4096u /* what one checksum is of */

/* Which regions. Bit n is [n << shift, (n + 1) << shift). */
struct replica_regions {
	uint8_t bits[REPLICA_REGIONS / 8];
};

static inline unsigned replica_region_shift(uint64_t size_bytes)
{
	unsigned shift = REPLICA_REGION_SHIFT_MIN;
	while ((uint64_t)REPLICA_REGIONS << shift < size_bytes)
		shift++;
	return shift;
}

/* A sealed layer of a chain. Names of layers that no user named start with '~' (pool.h). */
struct replica_layer {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes;
	bool is_origins; /* of the volume that this one was cloned from: it is read here, and never changed */
};

/* What a copy says of itself when it is opened, and when asked. */
struct replica_state {
	uint64_t epoch_before; /* the epoch it was opened with the time before */
	struct uuid boot_id;   /* of its machine, now */
	uint64_t size_bytes;   /* of the head that takes the writes */
	uint32_t lba_bytes;
	bool exists;	 /* there is such a volume in the pool */
	bool is_joining; /* it has a new head, begun for the join layer join_id */
	bool fill_begun; /* its old head is no longer what it was when it was left behind; until join_end, also across join_begin */
	struct uuid join_id;
	struct replica_regions intents;
	struct replica_regions may_lack; /* some of the intents: what was acknowledged there may be gone */
};

struct replica; /* a copy, and how to reach it */

struct replica_ops {
	/* Open, and thereby fence. The same engine may open again under the same epoch. With `exists` false everything but create and
	 * close is OXE_NOENT. */
	int (*open)(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		    struct replica_state *out);
	/* Is the session alive? Answered by the copy itself, so that an answer proves that at the time of asking nobody newer had it. */
	int (*ping)(struct replica *r);
	/* An empty copy, where there is none. 0 if there is one of the same facts. The name is what the volume is called in that pool, and
	 * may be a system's (pool.h). */
	int (*create)(struct replica *r, const struct volume_spec *spec);

	int (*read)(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes);
	int (*write)(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		     unsigned vol_flags);
	int (*zero)(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags);
	int (*trim)(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes);
	int (*flush)(struct replica *r);
	/* The set becomes this one. Of calls under way at once the one made last decides, and they share one write: that costs a record in
	 * the journal (96 bytes and 2 for each region set, at most 3,072) and a device flush, which it shares with all others that
	 * wait for one. It waits for no control operation. A full pool has room for it. */
	int (*intents_set)(struct replica *r, const struct replica_regions *regions);
	/* Where it may lack something, as this session's open said, it has been made equal to a copy that does not, or to one that is as good
	 * as any. What it was given need not be flushed: the intents are still there. Costs and waits like intents_set. */
	int (*made_good)(struct replica *r);

	/* Seal the head as a layer (S6); from then on the copy's epoch is at least `epoch`. A joining replica seals its new head. 0 if the chain
	 * has the layer. The caller has no write under way. */
	int (*seal)(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name);
	/* The layer is merged into the one above, in the background. 0 if there is none. OXE_BUSY while it is being read, or if it is the join
	 * layer of a joining copy; OXE_INVAL if it is an origin's, as for rename. */
	int (*layer_delete)(struct replica *r, const struct uuid *layer_id);
	int (*layer_rename)(struct replica *r, const struct uuid *layer_id, const char *name);
	/* Go on from a layer; the new head is called head_id. OXE_BUSY on a joining replica. The caller has nothing under way. */
	int (*revert)(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id);
	int (*grow)(struct replica *r, uint64_t size_bytes); /* the head that takes the writes */

	/* The sealed layers of the chain, the root first; of a joining replica those below its new head and those of the chain that is
	 * being filled, in `filled_count` (NULL: not wanted): the first filled_count of them. At most REPLICA_LAYERS_MAX. OXE_TOOBIG if there are more than max. */
	int (*layers)(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
		      size_t *filled_count);
	/* Of a sealed layer, or with NULL of the head (of a joining replica: the one that is filled). */
	int (*layer_read)(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			  uint64_t len_bytes);
	int (*layer_extents)(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
			     uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			     size_t max_extents, size_t *extent_count);
	/* CRC-32C of every REPLICA_CHECKSUM_BYTES of the range, both multiples of it (the last may be shorter, at the volume's end). */
	int (*layer_checksums)(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
			       uint64_t len_bytes, uint32_t *crcs);

	/* Joining. begin: a new, empty head of this size beside the chain, for the join layer `join_id`; 0 if it is so already, and a new head
	 * begun for another is thrown away first. From then on read..flush, seal and intents_set mean the new head. */
	int (*join_begin)(struct replica *r, const struct uuid *join_id, uint64_t size_bytes);
	/* Into the old head. With data == NULL zeroes. */
	int (*fill)(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes);
	/* The old head becomes this large. Of a larger one the rest is zeroed: should the volume grow again, it is zeroes. No layer may stand on
	 * a larger one: join_end is OXE_INVAL then. The caller fills nothing beyond meanwhile. */
	int (*fill_grow)(struct replica *r, uint64_t size_bytes);
	/* What was filled is flushed, and the old head sealed as this layer. 0 if the old chain has it. */
	int (*fill_seal)(struct replica *r, const struct uuid *layer_id, const char *name);
	/* The new head goes upon the chain, whose newest layer is the join layer (else OXE_INVAL, as if anything has been filled since). The
	 * caller has no write under way. 0 if it has been done, or the copy is not joining. OXE_EXISTS if a layer of each chain has the same name:
	 * rename or delete the old one first. */
	int (*join_end)(struct replica *r);

	/* Ends the session and frees. No call is under way. */
	void (*close)(struct replica *r);
};

struct replica {
	const struct replica_ops *ops;
	struct uuid pool_id, volume_id;
	bool is_local; /* reading costs no network */
};

/* ---- replica_local.c: a copy in a pool of this process ---------------------------------------------------------------------------- */

/* What all sessions of one process's copies share: which session of each volume is the last. One a pool, made when the pool is opened.
 * While any replica has a session, its pool is in use: pool_close is OXE_BUSY. Close the replicas, free the door, close the pool.
 *
 * A pool that has failed ends the session of whoever asks it next: what was to change something is OXE_INDOUBT, the rest OXE_CLOSED. It is
 * opened again by opening the pool again, with a door and replicas of its own.
 *
 * An open remembers its epoch in the pool, with the volume. Where there is no volume yet it is remembered for as long as a replica of
 * it is left; create writes it down. A death in the middle of create leaves an empty volume that may be opened by any epoch. */
struct replica_door;
struct replica_door *replica_door_new(struct pool *pool, const struct uuid *boot_id);
/* No replica may be left. */
void replica_door_free(struct replica_door *door);
/* What is in the pool of a copy that is none any more goes, a new head that it had begun included. OXE_BUSY while it has a session. 0 if
 * there is none. Suspends. */
OX_CHECKED int replica_local_delete(struct replica_door *door, const struct uuid *volume_id);
/* Does not suspend. Not opened yet. */
struct replica *replica_local_new(struct replica_door *door, const struct uuid *volume_id);

#endif
