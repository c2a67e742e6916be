/*
 * replica_server.h: the copies of this process's pools, for engines elsewhere: commands of NVMe (replica_wire.h) become verbs of
 * replica.h. Knows of no connection: who serves them (the NVMe/TCP target) makes a session for each association, hands it the
 * commands one by one, and ends it with the association.
 *
 *     server     all of them; asks door_find which pools are open
 *     session    one association with one copy. A local replica, from the first open on
 *
 *   who owns memory   the caller ends every session before it frees the server
 *   which reactor     one; calls suspend unless they say otherwise
 *   errors            statuses of NVMe: 0, REPLICA_WIRE_STATUS, or one of NVMe's own for what cannot be understood
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_SERVER_H
#define OXBOW_DATA_REPLICA_REPLICA_SERVER_H

#include "data/replica/replica.h"

struct nvme_sqe;
struct replica_server;
struct replica_session;

/* The door of a pool that is open in this process; NULL: it is not, or is about to be closed. Does not suspend. */
struct replica_server *replica_server_new(struct replica_door *(*door_find)(void *ctx,
									    const struct uuid *pool_id),
					  void *ctx);
void replica_server_free(struct replica_server *server);
/* Ends what every association has of this pool, and waits for what is under way: when it returns no replica of the pool's door is
 * left here, and none will be made while door_find says NULL. Commands that come are OXE_CLOSED, and an open is OXE_NOTREADY. */
void replica_server_evict(struct replica_server *server, const struct uuid *pool_id);

/* Does not suspend, nor fails for a copy that is not there: what is there is open's to say. NULL: that is no copy's name. */
struct replica_session *replica_session_new(struct replica_server *server, const char *subnqn);
/* Nothing is under way. */
void replica_session_end(struct replica_session *s);

/* Carry out one I/O command, any number at once. `data` holds the data_bytes that came with it, or has room for as many; *answer_bytes
 * of them are its answer. Returns a status. */
OX_CHECKED uint16_t replica_session_command(struct replica_session *s, const struct nvme_sqe *sqe, void *data,
					    uint32_t data_bytes, uint32_t *answer_bytes, uint64_t *result);
/* Of the head, as far as is known; 0: nothing is open. Does not suspend. */
uint64_t replica_session_size(const struct replica_session *s);
const struct uuid *replica_session_pool(const struct replica_session *s);

#endif
