/*
 * replica_copy.h: the copy behind the local replicas of one volume: its handles, its note, and whose session is the last. What
 * replica_copy.c (sessions, the fence, the note), replica_local.c (the verbs) and replica_join.c (those of joining) share.
 *
 *     control verbs   open, create, seal ... join_end: one at a time, under `control`
 *     calls           read, write ... fill, intents_set, layer_read: any number; counted, so that an open can wait for those of the session
 *                     before it, and a control verb that needs the handles closed for those under way
 *
 * An open holds `control` when it waits for the calls, and no call waits for `control`.
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_COPY_H
#define OXBOW_DATA_REPLICA_REPLICA_COPY_H

#include "base/htab.h"
#include "data/replica/replica_note.h"

enum session { SESSION_NONE, SESSION_OPEN, SESSION_FENCED, SESSION_OVER };

struct local {
	struct replica base;
	struct copy *copy;
	enum session session;
	uint64_t serial; /* of the session: another one since a call began, and the call is fenced */
};

struct copy {
	struct replica_door *door;
	struct pool *pool;
	struct hnode node;
	struct uuid volume_id, fresh_id; /* fresh: what has the new head of a joining copy */
	uint32_t replicas;
	struct local *current; /* who has the last session; NULL: nobody */
	struct fmutex control;
	struct rt_group calls;
	bool held; /* calls wait at the door */
	struct waitq released;
	struct vol *vol;	  /* NULL: there is no such volume, or nobody has a session */
	struct vol *fresh;	  /* NULL: it is not joining */
	struct replica_note note; /* as it is, or is about to be, on disk */
	struct replica_regions
		left; /* of a joining copy: intents of earlier sessions, which stay until they are filled over */
	bool fill_begun_durable;
	uint64_t note_wanted, note_written; /* versions of `note` */
	bool note_busy;
	struct waitq note_turn;
};

struct local *local_of(struct replica *r);

/* A call begins: 0 or why not. Suspends while the copy is held. */
OX_CHECKED int call_enter(struct local *l);
/* It has ended. Turns the pool's answer into a replica's: `changes` if it was to change something. Does not suspend. */
int call_leave(struct local *l, int err, bool changes);
/* The same for control verbs. */
OX_CHECKED int control_enter(struct local *l);
int control_leave(struct local *l, int err, bool changes);

/* With `control` held: calls wait, and none is under way, until it is released. */
void copy_hold(struct copy *c);
void copy_release(struct copy *c);

/* Find the volume, open what is there and read the note. OXE_NOENT: there is none. Suspends. */
OX_CHECKED int copy_load(struct copy *c);
void copy_unload(struct copy *c);

/* `note` is durable when this returns 0. Those who ask meanwhile share one write. Suspends. */
OX_CHECKED int copy_note_store(struct copy *c);

/* The intents, in regions of the size that follows from the volume's. What is on disk says of which size its own are. */
void copy_follow_size(struct copy *c);

/* Where new writes go. */
static inline struct vol *copy_top(const struct copy *c)
{
	return c->fresh ? c->fresh : c->vol;
}

static inline const struct uuid *copy_top_id(const struct copy *c)
{
	return c->fresh ? &c->fresh_id : &c->volume_id;
}

bool copy_has_failed(const struct copy *c); /* its pool has */

/* Is it a named layer that the volume, or the new head of a joining one, stands on? With `own` only its own, no origin's. */
bool copy_has_layer(const struct copy *c, const struct uuid *id, bool own);

int local_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id, struct replica_state *out);
int local_create(struct replica *r, const struct volume_spec *spec);
int local_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes);
int local_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes);
int local_fill_grow(struct replica *r, uint64_t size_bytes);
int local_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name);
int local_join_end(struct replica *r);
void local_close(struct replica *r);

extern const struct replica_ops replica_local_ops;

#endif
