/* sim_wire.c: each process of a cluster serves its copies over NVMe/TCP, as the daemon does. What it has is gone with it: a killed process
 * frees nothing. */
#include "sim_wire.h"

#include "copy_service.h"
#include "data/engine/engine.h"
#include "data/replica/replica_remote.h"

#include <stdio.h>

#define PORT "4420"

static struct replica_door *door_find(void *ctx, const struct uuid *pool_id)
{
	struct cluster_node *node = ctx;
	return uuid_equal(pool_id, &node->pool_id) ? node->door : NULL;
}

static void serve(struct cluster_node *node)
{
	struct nvmf_foreign foreign = copy_service(replica_server_new(door_find, node));
	foreign.insecure = true;
	struct nvmf_server *server =
		nvmf_server_new(engines_new(rt_current()), &(struct nvmf_options){.foreign = &foreign});
	int err = nvmf_server_listen(server, "tcp:0.0.0.0:" PORT, NULL);
	if (err)
		cluster_fail(node->cluster, "node %u does not listen: %s", node->index, err_name(err));
}

static struct replica *copy_there(struct cluster_node *from, struct cluster_node *to,
				  const struct uuid *volume_id)
{
	char address[64];
	struct replica_remote_options options = {.address = address,
						 .pool_id = to->pool_id,
						 .volume_id = *volume_id,
						 .host_id = from->pool_id};
	snprintf(address, sizeof(address), "tcp:%s:" PORT, sim_node_address(to->machine));
	return replica_remote_new(rt_current(), &options);
}

const struct cluster_wire sim_wire = {serve, copy_there};
