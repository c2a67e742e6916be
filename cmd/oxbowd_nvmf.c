/*
 * oxbowd_nvmf.c: the listeners of NVMe over TCP, each with a fiber that brings it up; and what the target is told of this machine.
 */
#include "oxbowd.h"

static struct nvmf_server *server; /* NULL: not asked for, or not started yet */

void nvmf_pool_evict(const char *pool_name)
{
	if (server)
		nvmf_server_evict(server, pool_name);
}

void nvmf_volume_evict(const struct uuid *volume_id)
{
	if (server)
		nvmf_server_evict_volume(server, volume_id);
}

void nvmf_volumes_changed(void *ctx)
{
	(void)ctx;
	if (server)
		nvmf_server_changed(server);
}

void nvmf_access_changed(void *ctx, const struct uuid *volume_id)
{
	(void)ctx;
	if (server)
		nvmf_server_access_changed(server, volume_id);
}

static int nvme_listen(const char *address, const char **bound)
{
	return nvmf_server_listen(server, address, bound);
}

static const struct address_kind kind = {
	.name = "NVMe over TCP",
	.hold = "nvme",
	.reason = "NvmeNotListening",
	.failed_event = "nvmf.listen_failed",
	.protocol = NODE_NVME_TCP,
	.listen = nvme_listen,
};

static void listener_main(void *arg)
{
	address_bring_up(arg, false);
}

void nvmf_start(const struct daemon_options *o, struct node *node, struct engines *engines)
{
	struct nvmf_foreign foreign = copies_start(o, node);
	struct nvmf_options options = {
		.foreign = &foreign,
		.boot_id =
			boot_id_read(), /* what is not to persist through power loss lasts as long as this; if it is nil, it lasts */
		.authenticated_only = o->nvme_authenticated,
		.tls = o->nvme_tls,
		.auth_group = o->nvme_dh_group,
		.discovers_snapshots = o->nvme_discover_snapshots,
		.referral_count = o->nvme_referral_count,
	};
	static_assert(OPTION_LIST_MAX <= NVMF_REFERRALS_MAX, "as many as can be given");
	memcpy(options.referrals, o->nvme_referrals, sizeof(o->nvme_referrals));
	if (o->nvme_count > 0)
		server = nvmf_server_new(engines, &options);
	node_nvme_set(node, server);
	for (size_t i = 0; i < o->nvme_count; i++) {
		struct address *a = mem_alloc(sizeof(*a));
		address_init(a, &kind, node, o->nvme[i], i);
		fiber_spawn(node_rt(node), "nvmf-listener", listener_main, a);
	}
}
