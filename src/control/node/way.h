/*
 * way.h: a copy of a volume wherever it is now: in a pool of this process, behind the node that has the pool, or nowhere to be found.
 * A replica (replica.h) in front of the one that does the work, which is looked for anew with each open.
 *
 *     open        look where the pool is; if that is not where it was, make the replica that belongs there; open that one
 *     a verb      goes straight through; OXE_CLOSED while there is nothing behind
 *     let go      a pool is about to be closed: what is under way there ends, and the replica behind is closed. The session is over, as
 *                 if the copy had died; the next open looks again
 *
 * Also what a copy is called in its pool is decided here: "~copy-VOLUME", a system's name, which nobody is served.
 *
 *   who owns memory   struct ways is the caller's and outlives its replicas; those are freed by their close
 *   which reactor     one. ways_let_go and the verbs suspend
 *   errors            those of replica.h; OXE_NOTREADY of open: nobody knows where the pool is (way_status says it in words)
 */
#ifndef OXBOW_CONTROL_NODE_WAY_H
#define OXBOW_CONTROL_NODE_WAY_H

#include "base/list.h"
#include "data/replica/replica.h"
#include "rt/rt.h"

#define WAY_ADDRESS_SIZE 128
#define WAY_WHY_SIZE	 200

/* Where a pool is. With neither a door nor an address `why` says in words why not. */
struct way_place {
	struct replica_door *door;
	char address[WAY_ADDRESS_SIZE];
	char why[WAY_WHY_SIZE];
};

struct ways {
	struct list all;
	struct rt *rt;
	/* Neither suspends. */
	void (*look)(void *ctx, const struct uuid *pool_id, struct way_place *out);
	/* A copy behind an address; NULL: there can be none. */
	struct replica *(*remote_new)(void *ctx, const char *address, const struct uuid *pool_id,
				      const struct uuid *volume_id);
	/* What a remote one says of why it is not open; "" if nothing. */
	const char *(*remote_why)(const struct replica *r);
	void *ctx;
};

void ways_init(struct ways *w, struct rt *rt);

/* Is it what a copy that was made through a way is called in its pool? */
bool way_name_is_copy(const char *name);
/* Does not suspend. */
struct replica *way_new(struct ways *w, const struct uuid *pool_id, const struct uuid *volume_id);

/* When it returns, no replica of this door is left in any way, and none will be made while `look` does not name the door. Suspends. */
void ways_let_go(struct ways *w, const struct replica_door *door);
/* Does anybody have a session through this door? Does not suspend. */
bool ways_hold(const struct ways *w, const struct replica_door *door);

struct way_status {
	bool is_there;			/* somebody has this way */
	uint64_t lost_since_wall_ns;	/* since when it cannot be asked; 0: it can, or was not tried yet */
	char address[WAY_ADDRESS_SIZE]; /* "" if it is, or was, here */
	char why[WAY_WHY_SIZE];		/* "" if nothing is wrong */
};
/* Does not suspend. */
void way_status(const struct ways *w, const struct uuid *pool_id, const struct uuid *volume_id,
		struct way_status *out);

#endif
