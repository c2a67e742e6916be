/* replica_server_impl.h: the server's inside, for itself and for tests that put another copy behind it. */
#ifndef OXBOW_DATA_REPLICA_REPLICA_SERVER_IMPL_H
#define OXBOW_DATA_REPLICA_REPLICA_SERVER_IMPL_H

#include "base/list.h"
#include "data/replica/replica_server.h"

struct replica_server {
	struct replica_door *(*door_find)(void *ctx, const struct uuid *pool_id);
	void *ctx;
	/* A copy that is here, not opened yet; NULL: its pool is not open. */
	struct replica *(*replica_new)(struct replica_server *server, const struct uuid *pool_id,
				       const struct uuid *volume_id);
	struct list sessions;
};

#endif
