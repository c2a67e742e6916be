/*
 * mirror.h: a volume on several copies, provably the same on each, served by one engine at a time (V1-V12).
 *
 *     struct mirror *m;
 *     mirror_new(rt, &(struct mirror_options){.volume_id = ..., .views = ..., .replica_new = ...}, &m);
 *     mirror_wait(m, deadline_ns)               until it serves
 *     mirror_read(m, ...), mirror_write(m, ...)
 *     mirror_close(m);
 *
 *     who               does
 *     life fiber        asks mirror_plan() what is next, and does it: alone changes the view, seals, admits
 *     a copy's fiber    opens it, again and again, and asks whether it still answers
 *     intents fiber     notes regions before they are written, forgets them when they are idle and flushed (V6)
 *     settling fiber    after a crash: makes members equal in the regions that were being written, before those are read (V6)
 *     a filling fiber   one a joining copy: layers, the lowest first (V8)
 *     scrub fiber       while asked to: compares members
 *
 * What a caller sees. A request waits while the engine cannot answer it: while a copy's grace lasts, while the view changes, while nobody
 * answers at all (V9). It never fails for such a reason. An error is the volume's own: OXE_NOSPC, OXE_RANGE, OXE_ALIGN, OXE_IO or
 * OXE_CORRUPT when the last copy has it. OXE_FENCED: another engine has the volume, and what was asked may or may not have happened: the
 * caller's clients must be dropped, and may come back to whoever serves now. OXE_SHUTDOWN: mirror_close was called.
 *
 * What is durable: as in pool.h, on every member. While the members are all on one machine that is not the engine's, every write is
 * durable when it is acknowledged (V11).
 *
 *   who owns memory   options are copied; `views` and what `ctx` points to stay until mirror_close has returned
 *   which reactor     that of `rt`; every call suspends unless it says otherwise
 *   bounds            MIRROR_REQUESTS_MAX requests inside; the next waits. Regions with intents: intents_max, beyond which idle ones
 *                     are forgotten sooner
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_H
#define OXBOW_DATA_ENGINE_MIRROR_H

#include "data/engine/mirror_plan.h"
#include "data/engine/view.h"

#define MIRROR_REQUESTS_MAX 1024u

struct mirror;

struct mirror_options { /* 0 means the default in brackets */
	struct uuid volume_id;
	struct uuid engine_id; /* [random] of this run of it: never used twice */
	struct view_store *views;
	/* A copy, not opened yet. NULL: nobody knows where that pool is, now. Does not suspend. */
	struct replica *(*replica_new)(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id);
	void *ctx;
	uint64_t grace_ns; /* [2 s] how long a silent copy is waited for */
	uint64_t
		lease_ns; /* [2 s] the same in every engine of the volume; clocks may differ in rate by a tenth */
	uint64_t retry_ns; /* [50 ms] first pause before something is tried again; doubles to 20 times that */
	uint64_t intent_idle_ns;   /* [5 s] an untouched region keeps its intent at least so long */
	uint32_t intents_max;	   /* [1024] */
	uint64_t fill_bytes_per_s; /* [no limit] of each joining copy */
	/* For a copy that is away layers are kept, so that little moves when it is back: for so long [1 day], or until clients have written so
	 * much [as the volume is large] since it left, as far as this engine knows. Then it is compared whole. */
	uint64_t absent_max_ns, absent_max_bytes;
	uint32_t fills_max; /* [2] joining copies filled at once; the next wait */
	/* [25] per cent of the time that filling and comparing may take together while clients ask for anything; 100: all */
	uint32_t background_share;
};

/* Starts; does not suspend. OXE_INVAL. */
OX_CHECKED int mirror_new(struct rt *rt, const struct mirror_options *options, struct mirror **out);
/* 0: it serves, and a member answers. OXE_TIMEOUT, OXE_FENCED, OXE_SHUTDOWN. */
OX_CHECKED int mirror_wait(struct mirror *m, uint64_t deadline_ns);
/* Nothing is served any more: requests inside, and all that still come, get OXE_SHUTDOWN. mirror_close is still due. Does not suspend. */
void mirror_stop(struct mirror *m);
/* Stops it, lets what is under way end as far as it can without waiting for anybody, and frees. */
void mirror_close(struct mirror *m);

/* Any range inside the volume, in logical blocks; `data` of any alignment must not change until the call returns. */
OX_CHECKED int mirror_read(struct mirror *m, void *data, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int mirror_write(struct mirror *m, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
			    unsigned vol_flags);
OX_CHECKED int mirror_zero(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags);
OX_CHECKED int mirror_trim(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes);
OX_CHECKED int mirror_flush(struct mirror *m);

/* Done on every copy in the view when they return 0, and on others before they join. Idempotent as in pool.h. An error other than
 * OXE_FENCED and OXE_SHUTDOWN is every member's answer. pause_ns: how long requests were held (may be NULL). */
OX_CHECKED int mirror_snapshot(struct mirror *m, const struct uuid *layer_id, const char *name,
			       uint64_t *pause_ns);
OX_CHECKED int mirror_layer_delete(struct mirror *m, const struct uuid *layer_id);
OX_CHECKED int mirror_grow(struct mirror *m, uint64_t size_bytes);
/* Of a snapshot; done as above. OXE_EXISTS: another has the name. OXE_NOENT, OXE_INVAL. */
OX_CHECKED int mirror_layer_rename(struct mirror *m, const struct uuid *layer_id, const char *name);
/* Throw away what was written since the youngest snapshot, and go on from it: the volume takes its size, too. What copies have that are not
 * members is thrown away with it: those that were joining begin anew, and absent ones are compared whole. The caller chooses head_id, new
 * for each revert: asked again with that of the last one it is done, 0. OXE_BUSY: there are younger snapshots, to be deleted first.
 * OXE_NOENT. A write that waited beyond the new end is OXE_RANGE. */
OX_CHECKED int mirror_revert(struct mirror *m, const struct uuid *layer_id, const struct uuid *head_id,
			     uint64_t *pause_ns);
/* Snapshots named by a user, the oldest first, as they are once it serves; calls above change the list before they return. Does not suspend;
 * `fn` neither, and returns false to stop. Not those of the volume that this one was cloned from. */
void mirror_snapshot_walk(const struct mirror *m, bool (*fn)(void *ctx, const struct replica_layer *layer),
			  void *ctx);
/* Of a snapshot, as mirror_read: from a member, under the lease, and from another if that one cannot. OXE_NOENT. */
OX_CHECKED int mirror_layer_read(struct mirror *m, const struct uuid *layer_id, void *data,
				 uint64_t offset_bytes, uint64_t len_bytes);
/* As vol_extents, of a snapshot, or with NULL of the volume as it is. Copies need not agree in what they call changed: one that was
 * filled knows of no write that changed nothing. */
OX_CHECKED int mirror_extents(struct mirror *m, const struct uuid *layer_id, const struct uuid *since_id,
			      uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			      size_t max, size_t *count);
/* One more copy, made where there is none; it joins when it answers. 0 if it is one already. OXE_NOSPC: VIEW_REPLICAS_MAX. */
OX_CHECKED int mirror_copy_add(struct mirror *m, const struct uuid *pool_id);
/* One copy less. OXE_BUSY if it is the last member. What it holds stays where it is. 0 if there is none. */
OX_CHECKED int mirror_copy_forget(struct mirror *m, const struct uuid *pool_id);

/* V9: the copy becomes the only member, whatever others may have that it has not; they are absent, and compared whole should they return. A
 * person's word, who knows that those that do not answer never will, and serve nobody: they are not fenced. 0 also if it is the only one already.
 * OXE_EXISTS: there is no need, members that answer have all there is. OXE_NOTREADY: it does not answer. OXE_BUSY: it was being filled, and has
 * no moment's content. OXE_NOENT: it is no copy, or there is nothing in it. Waits until those that are silent have been so for their
 * grace, and while the store of views is away. */
OX_CHECKED int mirror_salvage(struct mirror *m, const struct uuid *pool_id);
struct mirror_loss {
	enum view_role role;   /* a MEMBER lacks at most what was not flushed; others all since they left */
	uint64_t epoch_before; /* under which it was opened before this engine's */
	uint32_t region_count; /* MEMBER: where something may be missing */
	uint64_t region_bytes;
	bool is_alone; /* it is the only one already, and answers */
};
/* What would be lost, as far as this is known now; or why not, as above. Does not suspend. */
OX_CHECKED int mirror_salvage_look(const struct mirror *m, const struct uuid *pool_id,
				   struct mirror_loss *out);

/* ---- for people, and for the manager. None suspends ------------------------------------------------------------------- */

struct mirror_copy_status {
	struct uuid pool_id;
	enum view_role role;
	enum mirror_session session;
	bool may_lack; /* its machine was off, and it has not been made good (V3) */
	int last_err;  /* what it, or the way to it, said last; 0: nothing bad */
	uint64_t filled_bytes,
		compared_bytes; /* by the last or present filling: moved, and found equal or not */
	uint64_t fill_done_bytes,
		fill_todo_bytes; /* of it: what has been gone through, of about how much; by layers, each as large as the volume was then */
	uint32_t joins_failed; /* in a row */
};

struct mirror_status {
	bool serves, was_fenced;
	enum mirror_todo doing;
	uint32_t awaited; /* copies it waits for, by bit */
	uint64_t epoch, size_bytes;
	uint32_t lba_bytes;
	uint32_t intent_count, unsettled_count, copy_count, held_requests;
	uint64_t holds, hold_ns_max; /* how often requests were held, and for how long at most */
	struct mirror_copy_status copies[VIEW_REPLICAS_MAX];
};
void mirror_status(const struct mirror *m, struct mirror_status *out);

/* Of the same, what is asked for with every request. Sizes are 0 until a copy has said them. */
const struct uuid *mirror_volume_id(const struct mirror *m);
uint64_t mirror_size_bytes(const struct mirror *m);
uint32_t mirror_lba_bytes(const struct mirror *m);

/* ---- members compared in the background ------------------------------------------------------------------------------------ */

#define MIRROR_FINDINGS_MAX 16u

/* Members differ there. */
struct mirror_finding {
	struct uuid layer_id;		  /* nil: the volume as it is */
	uint64_t offset_bytes, len_bytes; /* in whole REPLICA_CHECKSUM_BYTES */
	bool is_unreadable; /* it is not that they say something else: one of them could not read it */
	bool is_repaired;
	uint32_t
		pool_count; /* who was not what more than half were; all members, if nobody knows who is right */
	struct uuid pool_ids[VIEW_REPLICAS_MAX];
};

/* Of the present run, or the last. */
struct mirror_scrub_status {
	bool is_running;
	uint64_t runs_done; /* to their end, since the engine started */
	uint64_t done_bytes, todo_bytes;
	uint64_t differed_bytes, repaired_bytes;
	uint32_t finding_count; /* the first ones; all are logged */
	struct mirror_finding findings[MIRROR_FINDINGS_MAX];
};

/* Compare all members once, snapshots and the volume as it is, at most so many bytes a second (0: no limit), yielding to clients. What differs
 * in the volume is repaired where more than half agree; a copy that is wrong in a snapshot is then put out and filled anew from there;
 * where nobody knows who is right it is reported and left. While a run is under way only its limit is changed. None suspends. */
void mirror_scrub_start(struct mirror *m, uint64_t bytes_per_s);
void mirror_scrub_stop(struct mirror *m);
void mirror_scrub_status(const struct mirror *m, struct mirror_scrub_status *out);

#endif
