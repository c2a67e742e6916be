/*
 * mirror_impl.h: what the files of the mirror share. Private to this directory.
 *
 *     mirror_plan.c    what is next (pure)                        mirror_copy.c     a copy: opened, asked, lost, failed
 *     mirror.c         the life: facts gathered, steps taken      mirror_request.c  a request on every copy in the view
 *     mirror_change.c  steps that change the view, and seal       mirror_io.c       read, write, zero, trim, flush
 *     mirror_intent.c  intents                                    mirror_settle.c   regions made equal after a crash
 *     mirror_fill.c    layers copied to a joining copy            mirror_layers.c   which layers there are
 *     mirror_scrub.c   members compared                           mirror_work.c    what yields to clients
 *     mirror_janitor.c layers nobody needs merged away            mirror_salvage.c  gone on with one copy, as a person said
 *     mirror_range.c   overlap                                    mirror_snapshot.c snapshots: the list, names, reading, going back
 *
 * The gate. Whatever touches copies on behalf of somebody passes it, and is inside for as long as calls of copies are under way, never while
 * it waits for a copy to come back. Closing it and waiting for those inside makes all copies stand still: that is a hold.
 */
#ifndef OXBOW_DATA_ENGINE_MIRROR_IMPL_H
#define OXBOW_DATA_ENGINE_MIRROR_IMPL_H

#include "base/mutant.h"
#include "data/engine/mirror.h"
#include "data/engine/mirror_range.h"

#define WINDOW_BYTES  (256 * KiB) /* of copying and comparing */
#define WINDOW_BLOCKS (WINDOW_BYTES / REPLICA_CHECKSUM_BYTES)

struct mirror;

struct copy {
	struct mirror *m;
	struct uuid pool_id;
	struct replica *replica; /* NULL: nobody knows where it is */
	enum mirror_session session;
	uint64_t session_number, silent_since_ns;
	uint64_t heard_ns; /* when the last question that it answered was asked (V5) */
	struct replica_state state;
	bool was_opened;
	bool is_adopted; /* its intents of before are among the unsettled ones */
	int failed;	 /* it answers this, and cannot be used */
	int last_err;

	/* Joining. */
	bool is_filling, has_chain, was_grafted;
	uint32_t joins_failed;
	uint64_t join_not_before_ns, filled_bytes, compared_bytes, fill_done_bytes, fill_todo_bytes;

	uint64_t absent_since_ns, absent_since_bytes; /* of written_bytes */
	/* This snapshot, and what is above it, is not what the others have: it is filled anew from there. Nil: none is known. */
	struct uuid suspect_id;

	bool is_forgotten; /* no longer in the view: its fiber ends and frees it */
	uint32_t reads;	   /* of clients, under way */
	uint32_t users;	   /* fibers that hold a pointer to it beyond a view change */
};

enum order_kind {
	ORDER_SNAPSHOT,
	ORDER_GROW,
	ORDER_ADD,
	ORDER_FORGET,
	ORDER_RENAME,
	ORDER_REVERT,
	ORDER_LET_GO,
	ORDER_SALVAGE, /* its own step */
};

#define ORDER_AGAIN 1 /* when everybody answers */

/* Something asked of the life. On the asker's stack. */
struct order {
	struct list link;
	enum order_kind kind;
	bool has_begun; /* SNAPSHOT: some copies have it */
	const struct uuid *id, *head_id;
	const char *name;
	uint64_t size_bytes;
	uint64_t pause_ns;
	int result;
	bool is_done;
};

struct mirror {
	struct rt *rt;
	struct mirror_options options;
	struct rt_group fibers;
	struct waitq changed; /* of anything somebody may wait for: sessions, the view, the gate, orders */
	bool closing;

	/* The view, as far as it is known. */
	struct view view;
	uint64_t revision;
	bool view_is_known, claimed, was_fenced;
	struct view swap_view; /* whose outcome is not known, */
	bool swap_in_doubt;
	uint64_t swap_revision; /* in place of this one */
	uint32_t retries;	/* in a row */
	bool seals_done;
	bool layers_agreed; /* all copies in the view have the same layers, as far as nobody is at it */
	bool agreed;	    /* since the last change all copies in the view have the same size and intents */
	uint64_t first_open_ns; /* 0: no member has been opened */
	enum mirror_todo doing;
	uint32_t awaited;
	uint64_t size_bytes;
	uint32_t lba_bytes;

	struct copy *copies[VIEW_REPLICAS_MAX]; /* as in the view */

	uint64_t salvages;   /* how often a copy that was not in the view became the only one in it */
	uint64_t lacks_seen; /* how often a copy was opened that may lack something */

	/* The gate. */
	bool serves; /* it is open */
	uint32_t inside, unfinished, requests;
	uint64_t hold_since_ns, holds, hold_ns_max;
	struct waitq gate, room, left;

	struct list orders;
	struct ranges ranges;

	/* What users named, oldest first, as all members have it. */
	struct replica_layer *snapshots;
	size_t snapshot_count, snapshot_room;
	uint64_t renames;	       /* how often names may have changed */
	struct uuid revert_refused_id; /* the new head of a revert that no copy would make, */
	int revert_err;		       /* and why */

	/* Intents: `active` is durable on every copy in the view. */
	struct replica_regions active, wanted, used, used_before;
	struct replica_regions forgetting; /* no longer active, and not yet known to be flushed everywhere */
	uint32_t *pins;			   /* by region: writes under way, or about to be */
	struct list pinned;
	uint64_t intents_failures; /* how often they could not be noted, */
	int intents_err;	   /* and why, the last time */
	struct waitq intents_changed;

	/* Regions in which members may differ, and the copy they are made equal to: index + 1, or 0 for any. */
	struct replica_regions unsettled;
	uint8_t *settle_from;
	uint32_t settle_first; /* somebody waits for it; REPLICA_REGIONS: nobody */

	struct {
		bool wanted;
		uint64_t bytes_per_s;
		struct mirror_scrub_status status;
	} scrub;
	uint64_t calls, written_bytes; /* of clients, so far */
	uint64_t rest_until_ns;

	struct rt_bufpool *buffers;
};

/* ---- mirror.c ---- */

/* What whoever still waits is told, OXE_FENCED or OXE_SHUTDOWN; 0 while this engine goes on. */
static inline int mirror_over(const struct mirror *m)
{
	return m->was_fenced ? OXE_FENCED : m->closing ? OXE_SHUTDOWN : 0;
}

/* Something happened: whoever waits looks again. Does not suspend; a timer may call it. */
void mirror_kick(struct mirror *m);
/* Wait until something happens, or the time comes. */
void mirror_pause(struct mirror *m, uint64_t until_ns);
/* Somebody newer has the volume: nothing more is served. Logged here, once. Does not suspend. */
void mirror_fenced(struct mirror *m, const char *by);
uint64_t mirror_backoff_ns(struct mirror *m, uint32_t tries);
void mirror_facts_gather(const struct mirror *m, struct mirror_facts *f);

/* ---- the gate, mirror_request.c ---- */

/* Suspends until it is open. OXE_FENCED, OXE_SHUTDOWN. */
OX_CHECKED int mirror_gate_enter(struct mirror *m);
void mirror_gate_leave(struct mirror *m);
/* Close it, and wait for those inside. Idempotent. */
void mirror_gate_hold(struct mirror *m);
void mirror_gate_open(struct mirror *m);

/* ---- requests, mirror_request.c ---- */

enum request_kind {
	REQUEST_WRITE,
	REQUEST_ZERO,
	REQUEST_TRIM,
	REQUEST_FLUSH,
	REQUEST_INTENTS,
	REQUEST_LAYER_DELETE,
	REQUEST_SEAL,
	REQUEST_GROW,
	REQUEST_RENAME,
	REQUEST_REVERT,
};

/* One call that every copy in the view is to carry out. */
struct request {
	enum request_kind kind;
	unsigned flags;
	const void *data;
	uint64_t offset_bytes, len_bytes; /* GROW: len_bytes is the size; REVERT: becomes it */
	const struct replica_regions *regions;
	const struct uuid *layer_id, *head_id;
	const char *name;
	uint64_t epoch;
	/* Called inside the gate before the copies are, each time; may suspend, and change what is asked. Returns 0; OXE_BUSY: outside the gate something
	 * has to happen first, see `outside`; or another error, which ends it. */
	int (*inside)(struct mirror *m, struct request *q);
	int (*outside)(struct mirror *m, struct request *q);

	uint32_t pending, done, refused; /* copies by bit: not asked or not answered, did it, said no */
	bool has_begun;
	uint64_t lacks_seen, salvages_seen; /* of the mirror, when it was asked */
	int err;			    /* what the first that said no said */
	uint32_t refused_by;		    /* which one that was */
};

/* Until every copy that is in the view has it. 0, or a copy's own error. */
OX_CHECKED int mirror_request_run(struct mirror *m, struct request *q);
/* The same once, inside a hold, on the copies of `set`; leaves in q->pending those that did not answer. */
void mirror_request_ask(struct mirror *m, struct request *q, uint32_t set);

/* Nobody to differ from. */
static inline bool copies_at_most_one(uint32_t set)
{
	return (set & (set - 1)) == 0;
}

uint32_t mirror_copies_in_view(const struct mirror *m);
uint32_t mirror_copies_members(const struct mirror *m);
uint32_t mirror_copies_open(const struct mirror *m);

/* ---- mirror_copy.c ---- */

/* Make m->copies be those of m->view. */
void mirror_copies_follow_view(struct mirror *m);
/* What a call that began in that session returned: a lost session, somebody newer, or the copy's own word. True: the last. */
bool mirror_copy_answered(struct copy *c, uint64_t session_number, int err);
/* It cannot be used. False: it has to be, for no other member that answers has everything (V3). Does not suspend. */
bool mirror_copy_fail(struct copy *c, int err, const char *why);
/* It may lack something (V3), or has nothing. */
bool mirror_copy_may_lack(const struct copy *c);
void mirror_copy_release(struct copy *c);
static inline struct copy *mirror_copy_hold(struct copy *c)
{
	c->users++;
	return c;
}
struct view_replica *mirror_copy_entry(struct copy *c);
/* A member that answers, the nearest; `except` by bit. NULL: none. */
struct copy *mirror_copy_to_read(struct mirror *m, uint32_t except);
/* The same for a client's question: of equally near ones that with the fewest under way. */
struct copy *mirror_copy_to_ask(struct mirror *m, uint32_t except);
uint32_t mirror_copy_bit(const struct copy *c);

/* ---- mirror_change.c: steps. Each returns when it is done or has failed; what is next is for the plan ---- */

void mirror_step_ask(struct mirror *m);
void mirror_step_claim(struct mirror *m);
void mirror_step_put_out(struct mirror *m, uint32_t copies);
void mirror_step_seal(struct mirror *m);
void mirror_step_revert(struct mirror *m);
void mirror_step_tidy(struct mirror *m);
void mirror_step_join(struct mirror *m, uint32_t copies);
void mirror_step_admit(struct mirror *m, uint32_t copies);
void mirror_step_order(struct mirror *m);
/* A copy of the view to edit; end swaps and frees it. */
struct view *mirror_change_begin(struct mirror *m, bool new_epoch);
int mirror_change_end(struct mirror *m, struct view *next, const char *event, const char *what);
void mirror_retry_later(struct mirror *m);
/* Inside a hold: all of `set` did it. Those that refused have failed. */
bool mirror_all_answered(struct mirror *m, const struct request *q, uint32_t set);
/* What a layer is called that nobody named: '~' and the first 12 digits of its id. */
void mirror_seal_name(const struct uuid *id, char name[POOL_NAME_MAX + 1]);
/* Until the life has done it, or is over. */
int mirror_order_give(struct mirror *m, struct order *o);
/* Before the first request, and after each change: size and intents. False: not yet. */
bool mirror_copies_agree(struct mirror *m);

/* ---- mirror_salvage.c ---- */

/* NULL: nobody asks for it. Does not suspend. */
const struct order *mirror_salvage_ordered(const struct mirror *m);
void mirror_step_salvage(struct mirror *m, uint32_t copies);

/* ---- mirror_layers.c ---- */

/* Inside a hold. False: not all of them answered. */
bool mirror_layers_agree(struct mirror *m);

/* ---- mirror_snapshot.c ---- */

int mirror_order_rename(struct mirror *m, struct order *o);
int mirror_order_revert(struct mirror *m, struct order *o);
/* One more, if it is not known yet; one less. Do not suspend. */
void mirror_snapshot_note(struct mirror *m, const struct uuid *id, const char *name, uint64_t size_bytes);
void mirror_snapshot_forget(struct mirror *m, const struct uuid *id);
struct replica_layer *mirror_snapshot_find(const struct mirror *m, const struct uuid *id);
/* A copy's own part of REQUEST_REVERT. */
int mirror_copy_revert(struct replica *r, struct request *q);

/* ---- mirror_io.c ---- */

/* A question that one member answers: of the head, or of a layer. */
struct reading {
	int (*ask)(struct replica *r, struct reading *reading);
	void *data;
	uint64_t offset_bytes, len_bytes;
	const struct uuid *layer_id, *since_id;
	struct vol_extent *extents;
	size_t max, *count;
	uint32_t could_not; /* copies by bit, that have it and cannot read it */
	int err;
	bool is_done;
};
/* Outside the gate, until a member has answered. */
OX_CHECKED int mirror_reading_run(struct mirror *m, struct reading *r);
/* Of a request of a client: room is waited for, and given back. */
OX_CHECKED int mirror_call_begin(struct mirror *m);
int mirror_call_end(struct mirror *m, int err);
/* The blocks touched, nobody else in them that changes something (or at all, with `changes`), and all of it settled. */
void mirror_blocks_lock(struct mirror *m, struct range *r, uint64_t offset_bytes, uint64_t len_bytes,
			bool changes);

/* ---- mirror_intent.c ---- */

void mirror_intents_fiber(void *arg);
/* May writes to the range begin? Inside the gate. */
bool mirror_intents_cover(const struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes);
/* Ask for them, and wait. OXE_FENCED, OXE_SHUTDOWN. */
OX_CHECKED int mirror_intents_get(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes);
struct intent_pin {
	struct list link;
	uint64_t offset_bytes, len_bytes;
	uint32_t first, last;
};
void mirror_intents_pin(struct mirror *m, struct intent_pin *pin, uint64_t offset_bytes, uint64_t len_bytes);
void mirror_intents_unpin(struct mirror *m, struct intent_pin *pin);
/* Inside a hold: none is active any more. */
void mirror_intents_none(struct mirror *m);
/* Inside a hold, with none active: the volume's size says of another size what a region is. */
void mirror_intents_regions_anew(struct mirror *m);
/* A volume that goes back to a smaller snapshot shrinks under the requests that wait: what lies beyond its end is in the last. */
static inline uint32_t region_of(const struct mirror *m, uint64_t offset_bytes)
{
	return (uint32_t)u64_min(offset_bytes >> replica_region_shift(m->size_bytes), REPLICA_REGIONS - 1);
}
/* The one that the range ends in; its length is not 0. */
static inline uint32_t region_last(const struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes)
{
	return region_of(m, offset_bytes + len_bytes - 1);
}
/* All regions in which a copy may differ from the others, now. */
struct replica_regions mirror_regions_at_risk(const struct mirror *m);

/* ---- mirror_settle.c ---- */

void mirror_settle_fiber(void *arg);
/* Members may differ there: make them equal to `from` (NULL: to any). Does not suspend. */
void mirror_settle_mark(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes, const struct copy *from);
/* It may lack something: wherever that is, it is made equal to one that does not, if there is any. Does not suspend. */
void mirror_settle_lacking(struct mirror *m, const struct copy *c);
/* Suspends while any of it is not settled. */
void mirror_settle_wait(struct mirror *m, uint64_t offset_bytes, uint64_t len_bytes);

/* ---- mirror_work.c ---- */

/* Work in the background, window by window. Zeroed before the first. */
struct work {
	uint64_t begin_ns, calls; /* of clients, before it */
	uint64_t paid_ns;	  /* by the limit on bytes a second, when the next may begin */
};
void mirror_work_begin(struct mirror *m, struct work *w);
/* Rests until the next may begin, for clients and for the limit (0: none). */
void mirror_work_end(struct mirror *m, struct work *w, uint64_t len_bytes, uint64_t bytes_per_s);

/* ---- mirror_fill.c ---- */

/* Start filling the joining copies that answer and are not being filled. Does not suspend. */
void mirror_fill_start(struct mirror *m);

/* ---- mirror_janitor.c ---- */

void mirror_janitor_fiber(void *arg);
int mirror_order_let_go(struct mirror *m, struct order *o);
/* It is absent from now on, as far as this engine knows. */
void mirror_absence_begin(struct copy *c);

#endif
