/*
 * oxbowd_copies.c: the copies of this node's pools, for engines of other nodes; and the cluster's secret, which both ends of such a way
 * prove to each other.
 */
#include "oxbowd.h"

#include "copy_service.h"

#include <stdio.h>

static struct replica_server *copies; /* NULL: NVMe is not served */

struct nvmf_foreign copies_start(const struct daemon_options *o, struct node *node)
{
	copies = replica_server_new(node_door_find, node);
	struct nvmf_foreign foreign = copy_service(copies);
	foreign.secret = o->cluster_secret;
	foreign.insecure = o->nvme_insecure;
	return foreign;
}

void copies_evict(void *ctx, const struct uuid *pool_id)
{
	(void)ctx;
	if (copies)
		replica_server_evict(copies, pool_id);
}

const char *cluster_secret_read(const char *path)
{
	char *line = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "re");
	bool is_read = file && getline(&line, &size, file) > 0;
	if (file)
		fclose(file);
	if (!is_read) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\r\n")] = '\0';
	return line;
}
