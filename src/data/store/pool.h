/*
 * pool.h: the store. One disk formatted by us, holding volumes, snapshots and their data (design S1-S9).
 *
 *     pool            one disk, known by the UUID in its superblock, never by its path
 *       volume        a name, a size, and a head layer
 *         head        the one mutable layer
 *         snapshot    a sealed layer with a user's name
 *         layer       a sealed layer without one: waiting to be merged into its only child, or kept because it has several
 *
 *   who owns memory   the pool owns everything it hands out pointers to; `struct vol` is a counted handle (vol_close)
 *   which reactor     a pool and its handles belong to the reactor that opened it; calls are made from its fibers, and every
 *                     call here Suspends unless it says otherwise
 *   what is durable   a control call (create, delete, snapshot ...) that returned 0 survives power loss. Data: see vol_write
 *   idempotence       the caller chooses the id of what it makes. The same call again with the same id and the same facts is
 *                     0; the same id with other facts, or the same name with another id, is OXE_EXISTS
 *   when it is hurt   S9: metadata that cannot be believed, or read, costs what hangs under it. A volume with a lost layer serves what it
 *                     still can; the rest of it is OXE_CORRUPT. With part of the list of volumes and layers lost (pool_stats:
 *                     catalog_damaged) nobody knows which ids and names are taken: what is not found is OXE_CORRUPT rather than
 *                     OXE_NOENT, whatever would make or name something is OXE_CORRUPT, and no space is given back. Volumes that
 *                     are whole are read and written as ever. Nothing lost is ever overwritten, and no call makes it worse
 *   when it fails     a device error on the journal stops the pool: every call returns OXE_FAILED from then on, nothing is
 *                     acknowledged any more, and opening it again recovers. An error on a data read is that request's alone
 */
#ifndef OXBOW_DATA_STORE_POOL_H
#define OXBOW_DATA_STORE_POOL_H

#include "rt/rt.h"

#define POOL_BLOCK_BYTES   4096u  /* the unit of copy-on-write */
#define POOL_CLUSTER_BYTES 65536u /* the unit of allocation */
#define POOL_NAME_MAX	   63u	  /* bytes, without the NUL */

#define POOL_SIZE_MIN	(16 * MiB)
#define VOLUME_SIZE_MIN (4 * KiB)
#define VOLUME_SIZE_MAX (128 * TiB)

struct pool;
struct vol;

/* Names are 1 to POOL_NAME_MAX bytes of [A-Za-z0-9._-], not starting with '.' or '-': safe in paths, NQNs and URLs.
 * Returns 0 or OXE_INVAL. Does not suspend. */
OX_CHECKED int pool_name_check(const char *name);
/* A system's name is '~' and what pool_name_check allows, POOL_NAME_MAX bytes in all: of volumes and layers that no user made. The
 * lookups and walks below know nothing of them, and no count but layer_count has them; they do take space, and are checked. */
OX_CHECKED int pool_system_name_check(const char *name);
static inline bool pool_name_is_system(const char *name)
{
	return name[0] == '~';
}

/* ---- the pool ------------------------------------------------------------------------------------------------------ */

struct pool_format_spec {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t journal_bytes; /* 0: chosen from the disk's size */
};

/* Write an empty pool onto `disk`. Idempotent by id: a disk that already holds the pool `id` is left as it is, 0. Another
 * pool on it is OXE_OCCUPIED unless `overwrite`. What foreign things the disk holds is asked before (rt_disk_probe). */
OX_CHECKED int pool_format(struct rt_disk *disk, const struct pool_format_spec *spec, bool overwrite);

struct pool_ident {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes, generation;
	uint32_t format_version;
};

/* Read a disk's superblock without opening it. OXE_NOTPOOL, OXE_CORRUPT (ours, but no superblock is whole), OXE_VERSION. */
OX_CHECKED int pool_identify(struct rt_disk *disk, struct pool_ident *out);

struct pool_options {
	uint64_t cache_bytes;		 /* metadata kept in memory; 0: 64 MiB */
	uint64_t background_bytes_per_s; /* limit on merge and flatten copying; 0: no limit */
	bool read_only;			 /* inspect without writing a byte; volumes open read-only */
	bool no_discard;		 /* keep what becomes free, instead of giving it back to the device */
	uint32_t
		discard_after_ms; /* freed space rests so long, up to ten times while there is much to do; 0: 2 s */
};

/* Recover and open: newest valid superblock, replay, verify, one flush (S5). `options` may be NULL. The pool takes the disk
 * and closes it in the end (also when this fails). */
OX_CHECKED int pool_open(struct rt_disk *disk, const struct pool_options *options, struct pool **out);
/* Waits for what is under way, checkpoints so that the next start replays nothing, and frees. OXE_BUSY while handles are
 * open (then nothing has happened). Not needed for safety: kill -9 is as good (design idea 2). */
OX_CHECKED int pool_close(struct pool *pool);
/* Take over new space at the end of the disk, after the disk or file has grown. */
OX_CHECKED int pool_grow(struct pool *pool);
/* Write a checkpoint now, and wait for it. */
OX_CHECKED int pool_checkpoint(struct pool *pool);
/* Do not suspend. */
const struct pool_ident *pool_ident(const struct pool *pool);
void pool_set_background_rate(struct pool *pool, uint64_t bytes_per_s);

struct pool_stats { /* bytes unless named otherwise; total = data + metadata + journal + free */
	uint64_t total_bytes, data_bytes, metadata_bytes, journal_bytes, free_bytes, reserve_bytes;
	uint64_t journal_used_bytes, journal_blocks_written, journal_records_written;
	uint64_t checkpoints, device_flushes, discarded_bytes, cache_used_bytes, cache_misses;
	uint64_t readahead_bytes; /* read by clients from what had been read ahead for them */
	uint64_t recovery_ns, recovery_records, recovery_blocks_verified, recovery_blocks_rejected;
	uint32_t volume_count, snapshot_count, layer_count;
	/* S9. Pages that could not be believed so far, without those of volumes' maps, which cost only the reads that need them; and
	 * volumes of which a layer is lost. */
	uint32_t metadata_pages_lost, damaged_volume_count;
	bool catalog_damaged, failed;
	uint64_t check_pages_read,
		check_pages_total; /* how far a pool_check under way is; 0: there is none */
};
void pool_stats(const struct pool *pool, struct pool_stats *out); /* Does not suspend. */

/* ---- volumes and snapshots ------------------------------------------------------------------------------------------ */

struct volume_spec {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t
		size_bytes; /* multiple of 4 KiB; for a clone, 0 means the snapshot's size, smaller is OXE_INVAL */
	uint32_t
		lba_bytes; /* 512 or 4096: the logical block size clients see; 0: 512 (a clone: the snapshot's) */
};

struct volume_info {
	struct uuid id, head_id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes, created_wall_ns;
	uint32_t lba_bytes, snapshot_count, open_count;
	uint64_t own_bytes;    /* clusters in the volume's head and snapshots */
	uint64_t head_bytes;   /* of these, in the head */
	bool is_clone;	       /* its chain ends in another volume's layers */
	struct uuid origin_id; /* the snapshot layer cloned from, if is_clone */
	bool is_flattening;
	bool is_damaged; /* a layer of its chain is lost */
};

struct snapshot_info {
	struct uuid id, volume_id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes, created_wall_ns; /* size of the volume when it was taken */
	uint64_t own_bytes;		      /* clusters in this layer */
	struct uuid parent_id;		      /* the sealed layer below; nil: none */
	uint32_t child_count, open_count;
};

OX_CHECKED int volume_create(struct pool *pool, const struct volume_spec *spec);
/* A new volume whose chain continues in the snapshot: O(1), copies nothing. `full_copy` also starts copying what it shares
 * in the background (a job), until it depends on nothing. */
OX_CHECKED int volume_clone(struct pool *pool, const struct volume_spec *spec, const struct uuid *snapshot_id,
			    bool full_copy);
/* Start, or cancel, copying what a clone shares. Cancelling keeps what was copied. */
OX_CHECKED int volume_flatten(struct pool *pool, const struct uuid *volume_id, bool start);
/* Removes the volume and its snapshots; layers that clones need stay, nameless. Space returns in the background. 0 if there
 * is no such volume (it is done). OXE_BUSY while it or a snapshot of it is open. */
OX_CHECKED int volume_delete(struct pool *pool, const struct uuid *volume_id);
/* Larger only; a smaller size is OXE_INVAL, the same size 0. */
OX_CHECKED int volume_grow(struct pool *pool, const struct uuid *volume_id, uint64_t size_bytes);
OX_CHECKED int volume_rename(struct pool *pool, const struct uuid *volume_id, const char *name);

/* Seal the head under a name and go on in a new one (S6). Every write acknowledged before the call is in it; writes pause
 * for as long as those in flight take. `pause_ns` (may be NULL) is how long that was. */
OX_CHECKED int snapshot_create(struct pool *pool, const struct uuid *volume_id,
			       const struct uuid *snapshot_id, const char *name, uint64_t *pause_ns);
/* The name is gone when this returns; the layer is merged into its child in the background (a job). 0 if it does not exist.
 * OXE_BUSY while open. Clones of it are no obstacle: the layer then stays, nameless, for as long as they need it. */
OX_CHECKED int snapshot_delete(struct pool *pool, const struct uuid *snapshot_id);
OX_CHECKED int snapshot_rename(struct pool *pool, const struct uuid *snapshot_id, const char *name);
/* Throw the head away and continue from the snapshot, which must be the volume's own (OXE_INVAL). Other snapshots stay. The
 * new head is called head_id: a call whose head_id is already the head is done, 0. OXE_BUSY while the volume is open. The
 * volume takes the snapshot's size. */
OX_CHECKED int volume_revert(struct pool *pool, const struct uuid *volume_id, const struct uuid *snapshot_id,
			     const struct uuid *head_id);

/* Lookups and walks. None suspends; `fn` must not suspend or change the pool; it returns false to stop. In order of age. */
OX_CHECKED int volume_find(const struct pool *pool, const char *name, struct volume_info *out);
OX_CHECKED int volume_get(const struct pool *pool, const struct uuid *id, struct volume_info *out);
OX_CHECKED int snapshot_find(const struct pool *pool, const struct uuid *volume_id, const char *name,
			     struct snapshot_info *out);
OX_CHECKED int snapshot_get(const struct pool *pool, const struct uuid *id, struct snapshot_info *out);
void volume_walk(const struct pool *pool, bool (*fn)(void *ctx, const struct volume_info *v), void *ctx);
void snapshot_walk(const struct pool *pool, const struct uuid *volume_id,
		   bool (*fn)(void *ctx, const struct snapshot_info *s), void *ctx);

struct snapshot_usage {
	uint64_t referenced_bytes; /* blocks a reader of the snapshot finds allocated */
	uint64_t
		exclusive_bytes; /* of these, seen through no other snapshot, clone or head: what deleting it would free */
	uint64_t shared_bytes; /* referenced - exclusive */
};
/* Counted from the maps, not remembered: takes time in proportion to what is allocated and the length of the chain. Other operations
 * and jobs have their turn after every leaf of the map (16 MiB of the volume), so the count is of one moment for each. */
OX_CHECKED int snapshot_usage(struct pool *pool, const struct uuid *snapshot_id, struct snapshot_usage *out);

/* ---- notes: what other rooms must know of a volume after a restart ------------------------------------------------------- */

enum pool_note_kind {
	POOL_NOTE_ACCESS,
	POOL_NOTE_RESERVATION,
	POOL_NOTE_USER,
	POOL_NOTE_REPLICA,
	POOL_NOTE_KINDS
};

#define POOL_NOTE_BYTES_MAX 3072u

/* One small blob a kind and volume. Set replaces it whole, by one record, and is durable when it returns 0; 0 bytes take it away. It
 * goes with its volume; rename, grow, snapshot, revert and flatten leave it, and a clone has none of its origin's. The pool does
 * not look into it. A note that cannot be believed may be set, and is then what it was set to. OXE_NOENT (no such volume), OXE_INVAL (too
 * long, or no such kind), OXE_NOSPC, OXE_CORRUPT (none of the volume's notes can be believed). */
OX_CHECKED int pool_note_set(struct pool *pool, const struct uuid *volume_id, enum pool_note_kind kind,
			     const void *data, uint32_t len_bytes);
/* Up to POOL_NOTE_BYTES_MAX bytes into `data`. OXE_NOENT: there is none, or no such volume. OXE_CORRUPT. */
OX_CHECKED int pool_note_get(struct pool *pool, const struct uuid *volume_id, enum pool_note_kind kind,
			     void *data, uint32_t *len_bytes);

/* The same through an open handle of the volume. They never wait for control operations, except that a check holds them up as it does
 * writes; and what replaces a note has room on a full pool. Calls for one kind may overlap, and take effect in the order they were made
 * unless the note has to be read from disk first. What cannot be believed is not set: OXE_CORRUPT. A set costs a journal record of the note's length and a shared device flush. */
OX_CHECKED int vol_note_set(struct vol *vol, enum pool_note_kind kind, const void *data, uint32_t len_bytes);
OX_CHECKED int vol_note_get(struct vol *vol, enum pool_note_kind kind, void *data, uint32_t *len_bytes);

/* ---- for copies of a volume (data/replica) ---------------------------------------------------------------------------- */

/* As volume_get, also of a system's volume. Does not suspend. */
OX_CHECKED int volume_get_any(const struct pool *pool, const struct uuid *id, struct volume_info *out);
/* As volume_walk, system's volumes included. Does not suspend. */
void volume_walk_any(const struct pool *pool, bool (*fn)(void *ctx, const struct volume_info *v), void *ctx);
/* As snapshot_get, also of a layer with a system's name. Does not suspend. */
OX_CHECKED int layer_get_any(const struct pool *pool, const struct uuid *id, struct snapshot_info *out);
/* As snapshot_create and snapshot_rename; the name may be a system's. */
OX_CHECKED int layer_seal(struct pool *pool, const struct uuid *volume_id, const struct uuid *layer_id,
			  const char *name, uint64_t *pause_ns);
OX_CHECKED int layer_rename(struct pool *pool, const struct uuid *layer_id, const char *name);

/* As volume_create; the name may be a system's. */
OX_CHECKED int volume_create_any(struct pool *pool, const struct volume_spec *spec);
/* Smaller only; a larger size changes nothing, 0. What lay beyond the new end is zeroed, and is zeroes should the volume grow again. The
 * caller keeps everybody from writing there meanwhile. */
OX_CHECKED int volume_shrink(struct pool *pool, const struct uuid *volume_id, uint64_t size_bytes);
/* A fresh volume: empty, of a system's name, and to be grafted upon a layer of another. What is zeroed in it is noted although it
 * reads as zeroes already: so it hides what will lie below. A write of less than a block, too, takes zeroes for the rest of it. */
OX_CHECKED int volume_create_fresh(struct pool *pool, const struct volume_spec *spec);
/* The whole chain of a fresh volume goes upon the newest sealed layer of another, in place of that one's head, by one record: its
 * layers become the other's, its head the other's head, its size the other's size, and it is gone. head_id is that of its head: a call
 * whose head_id is already the other's head is done, 0. OXE_BUSY while either is open (snapshots of them may be). OXE_EXISTS if both
 * have a layer of the same name. OXE_INVAL if the head that goes says anything about any block, if the layer below it is another
 * volume's, has no name or is larger than the fresh volume or a named layer of that, or if logical blocks differ. */
OX_CHECKED int volume_graft(struct pool *pool, const struct uuid *volume_id, const struct uuid *fresh_id,
			    const struct uuid *head_id);

struct layer_info {
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes;
	bool is_origins; /* it belongs to what the volume was cloned from */
};
/* The sealed layers that the volume's head stands on and that have a name, the root first. OXE_NOENT; OXE_CORRUPT if one of the
 * chain is lost. Neither this nor `fn` suspends or changes the pool; `fn` returns false to stop. */
OX_CHECKED int volume_chain(const struct pool *pool, const struct uuid *volume_id,
			    bool (*fn)(void *ctx, const struct layer_info *l), void *ctx);

/* ---- background jobs: derived from the pool's state, so they survive a restart by themselves -------------------------- */

enum pool_job_kind { POOL_JOB_MERGE, POOL_JOB_DROP, POOL_JOB_FLATTEN };

struct pool_job {
	struct uuid id; /* the layer's or volume's id */
	enum pool_job_kind kind;
	uint64_t done_clusters,
		total_clusters; /* total may shrink; both restart from what is left after a restart */
	bool is_cancellable;	/* only flatten is: a deleted snapshot's data may be moved already */
	char subject[2 * POOL_NAME_MAX + 2]; /* volume or layer, for people */
};
const char *pool_job_kind_name(enum pool_job_kind kind); /* "merge", "drop", "flatten" */
/* Does not suspend. */
void pool_job_walk(const struct pool *pool, bool (*fn)(void *ctx, const struct pool_job *j), void *ctx);
/* Suspends until there is no job left that can make progress. */
OX_CHECKED int pool_jobs_wait(struct pool *pool);

/* ---- reading and writing ---------------------------------------------------------------------------------------------- */

struct vol_info {
	struct uuid id;	     /* the volume's, or the snapshot's */
	uint64_t size_bytes; /* follows volume_grow */
	uint32_t lba_bytes;
	bool read_only;
};

enum {
	VOL_FUA = 1,	 /* durable when it returns */
	VOL_NO_HOLE = 2, /* vol_zero: allocate the zeroes rather than mark them */
};

/* Open a volume for reading and writing, or a snapshot for reading. Many handles of one volume may be open; they see each
 * other's writes. A pool opened read-only gives read-only handles. OXE_NOENT; OXE_CORRUPT if its head is lost, or if it may be
 * among what is lost. */
OX_CHECKED int vol_open(struct pool *pool, const struct uuid *id, struct vol **out);
/* Waits for calls under way on this handle. */
void vol_close(struct vol *vol);
const struct vol_info *vol_info(const struct vol *vol); /* Does not suspend; valid until vol_close. */

/* Offsets and lengths are multiples of lba_bytes (OXE_ALIGN) inside the volume (OXE_RANGE). `data` is aligned to
 * RT_IO_ALIGN where (offset % 4096) == 0 for speed; any alignment works. It must not change until the call returns.
 *
 * S3: a write that returned 0 survives kill -9. After vol_flush returned 0, everything that had returned before it was
 * called survives power loss; with VOL_FUA the write itself does. Reads of what was never written give zeroes (S1).
 * Overlapping calls in flight at once take effect in some order, block by block of lba_bytes.
 * OXE_NOSPC changes nothing in the blocks that a vol_write of up to 256 KiB names; a longer one, or a vol_zero, may have got
 * part of the way: each logical block is old or new. OXE_IO leaves them old, new or mixed per logical block, and so does OXE_NOSPC
 * of a pool in a sparse file when what is full is the file system below it. */
OX_CHECKED int vol_read(struct vol *vol, void *data, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int vol_write(struct vol *vol, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
			 unsigned flags);
/* Reads as zeroes afterwards. Whole 4 KiB blocks are marked and their space released; edges are written. */
OX_CHECKED int vol_zero(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags);
/* As vol_zero for the whole blocks inside the range; the edges are left alone. */
OX_CHECKED int vol_trim(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int vol_flush(struct vol *vol);

enum {
	VOL_EXTENT_HOLE = 1,	/* nothing stored: reads as zeroes */
	VOL_EXTENT_ZERO = 2,	/* reads as zeroes (a hole, or marked zero) */
	VOL_EXTENT_CHANGED = 4, /* differs, or may differ, from the snapshot `since` */
};

struct vol_extent {
	uint64_t offset_bytes, len_bytes;
	unsigned flags;
};

/* Describe [offset, offset + len) as consecutive extents, at most max_extents of them (the last may end early; neighbours
 * with equal flags are joined). `since` (may be NULL) is an ancestor snapshot of what is open, else OXE_NOENT.
 *
 * What is not called changed reads as it does in `since`. What is called changed are whole 4 KiB blocks of which something was
 * written, zeroed or trimmed since, with whatever content; by calls that were under way when the snapshot was taken, or that failed,
 * too; and, if `since` is of the volume that this one was cloned from, those that volume_flatten copied. */
OX_CHECKED int vol_extents(struct vol *vol, const struct uuid *since, uint64_t offset_bytes,
			   uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			   size_t *extent_count);

/* ---- check ------------------------------------------------------------------------------------------------------------ */

enum pool_problem_kind {
	POOL_PROBLEM_PAGE, /* a metadata page that is not what its parent says */
	POOL_PROBLEM_OWNED_TWICE,
	POOL_PROBLEM_LEAKED,   /* marked in use, reachable from nowhere */
	POOL_PROBLEM_UNMARKED, /* reachable, marked free */
	POOL_PROBLEM_CHAIN,    /* a layer whose parent, child or volume is missing, or a loop */
	POOL_PROBLEM_COUNT,    /* a counter that the walk disagrees with */
};

struct pool_problem {
	enum pool_problem_kind kind;
	char text[200]; /* one sentence that names the page, cluster or layer */
};

struct pool_check_result {
	uint64_t pages_read, clusters_reachable, layers, problem_count;
};

/* S9: walk everything reachable and compare with what is marked. On an open pool, between background jobs and with writes
 * held for the duration; reports each problem to `fn` (may be NULL). 0 even with problems: look at problem_count. */
OX_CHECKED int pool_check(struct pool *pool, void (*fn)(void *ctx, const struct pool_problem *p), void *ctx,
			  struct pool_check_result *out);

#endif
