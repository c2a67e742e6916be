/*
 * replica_remote.h: a copy on another node (replica.h), reached by NVMe/TCP through its node's target (docs/protocol.md).
 *
 *     open      makes a new association with the copy's subsystem, after the one before has been ended; nothing is sent anew on it
 *     a verb    is one command, or several where one would be too long: those run side by side
 *     lost      a connection, an answer that is wrong or late, a session that is over: everything under way ends with OXE_INDOUBT
 *               or OXE_CLOSED, and so does everything that follows, until open
 *
 * A peer that is dead is noticed at once, where its machine still says so; one that is silent by ping_timeout_ns, or half as much
 * again when nobody asks.
 *
 *   who owns memory   options are copied; the rest as in replica.h
 *   which reactor     that of `rt`
 *   errors            those of replica.h. OXE_CLOSED of open also if nobody listens there, if it takes too long, and if the other
 *                     side does not let us in. OXE_VERSION: it speaks another protocol. OXE_PROTO: it answered nonsense
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_REMOTE_H
#define OXBOW_DATA_REPLICA_REPLICA_REMOTE_H

#include "data/replica/replica.h"

struct replica_remote_options { /* 0 means the default in brackets */
	const char *address;	/* of the node that has the pool: tcp:HOST:PORT */
	struct uuid pool_id, volume_id;
	struct uuid host_id; /* this node's, for its host NQN: for ever the same */
	const char *secret;  /* [none] the cluster's, DHHC-1:...: both sides prove that they have it */
	const char *tls_key; /* [none] the cluster's, NVMeTLSkey-1:...: then all goes through TLS */
	uint32_t queues;     /* [2] */
	uint64_t connect_timeout_ns; /* [3 s] of an open, until it can be asked */
	uint64_t ping_timeout_ns;    /* [3 s] of ping, and of keep alive */
	uint64_t command_timeout_ns; /* [30 s] of a command that moves data */
	uint64_t control_timeout_ns; /* [60 s] of the others */
};

/* Not opened yet. NULL: an address, a secret or a key that cannot be one. Does not suspend. */
struct replica *replica_remote_new(struct rt *rt, const struct replica_remote_options *options);

/* What keeps it from being opened, or ended its last session, as a sentence; "" if nothing did. Valid until its next open or close.
 * Does not suspend. */
const char *replica_remote_why(const struct replica *r);

#endif
