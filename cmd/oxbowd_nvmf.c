/*
 * oxbowd_nvmf.c: the listeners of NVMe over TCP. Each has a fiber that brings it up, with patience if the address is taken. Until
 * all stand the daemon is not ready.
 */
#include "oxbowd.h"

#include "base/log.h"

#include <stdio.h>

#define RETRY_MIN_NS  (5 * NS_PER_MS)
#define RETRY_MAX_NS  (2 * NS_PER_S)
#define HOLD_NAME_MAX 32

struct listener {
	struct node *node;
	const char *address;
	char hold[HOLD_NAME_MAX];
};

static struct nvmf_server *server; /* NULL: not asked for, or not started yet */

void nvmf_pool_evict(const char *pool_name)
{
	if (server)
		nvmf_server_evict(server, pool_name);
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

static int listen_once(struct listener *l, const char **bound)
{
	char message[400];
	int err = nvmf_server_listen(server, l->address, bound);
	if (err) {
		snprintf(message, sizeof(message), "cannot serve NVMe over TCP on %s: %s", l->address,
			 err_text(err));
		node_hold(l->node, l->hold, "NvmeNotListening", message,
			  "see who uses the address ('ss -lnp'); it is tried again by itself");
	}
	return err;
}

/* A process that was just killed may hold the address a little longer. So the first tries follow quickly, and only one who
 * stays is worth a line in the log. */
static void listener_main(void *arg)
{
	struct listener *l = arg;
	const char *bound;
	uint64_t wait_ns = RETRY_MIN_NS;
	bool complained = false;
	int err;
	while ((err = listen_once(l, &bound)) != 0) {
		if (wait_ns > NS_PER_S && !complained)
			LOG_ERROR("nvmf.listen_failed", "cannot serve NVMe over TCP there; it is tried again",
				  F_STR("address", l->address), F_ERR(err));
		complained = wait_ns > NS_PER_S;
		fiber_sleep(wait_ns);
		wait_ns = u64_min(wait_ns * 2, RETRY_MAX_NS);
	}
	node_address_add(l->node, bound, NODE_NVME_TCP, false);
	node_release(l->node, l->hold);
}

/* A reservation that is not to persist through power loss lasts as long as this. Nil if the kernel does not say: then it lasts. */
static struct uuid boot_id(void)
{
	struct uuid id = {0};
	char text[UUID_TEXT_LEN + 1] = "";
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (!file)
		return id;
	if (!fgets(text, sizeof(text), file) || uuid_parse(text, &id))
		id = (struct uuid){0};
	fclose(file);
	return id;
}

void nvmf_start(const struct daemon_options *o, struct node *node, struct engines *engines)
{
	struct nvmf_options options = {
		.boot_id = boot_id(),
		.authenticated_only = o->nvme_authenticated,
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
		struct listener *l = mem_zalloc(sizeof(*l));
		*l = (struct listener){.node = node, .address = o->nvme[i]};
		snprintf(l->hold, sizeof(l->hold), "nvme-%zu", i);
		node_hold(node, l->hold, "NvmeNotListening", "NVMe over TCP is being started", "");
		fiber_spawn(node_rt(node), "nvmf-listener", listener_main, l);
	}
}
