/*
 * nvmf_status.c: who is here, for people: counts, associations, reservations. Looks, and changes nothing.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include <stdio.h>

void nvmf_server_stats(const struct nvmf_server *server, struct nvmf_stats *out)
{
	*out = server->stats;
	out->connections = server->listeners.connections;
	out->connections_accepted = server->listeners.accepted;
	out->connections_refused = server->listeners.refused;
}

static uint32_t io_queues_of(const struct nvmf_controller *ctrl)
{
	uint32_t count = 0;
	for (size_t qid = NVME_ADMIN_QUEUE + 1; qid <= NVMF_QUEUES_MAX; qid++)
		count += ctrl->queues[qid] != NULL;
	return count;
}

static void describe_volume(const struct nvmf_controller *ctrl, struct nvmf_association *out)
{
	const struct nvmf_reservation *r = &ctrl->subsystem->fence.reservation;
	out->id = engine_info(ctrl->engine)->id;
	snprintf(out->name, sizeof(out->name), "%s", engine_name(ctrl->engine));
	out->is_registrant = nvmf_reservation_is_registrant(r, ctrl->hostid);
	out->is_holder = nvmf_reservation_is_holder(r, ctrl->hostid);
}

/* By what its name ends with. */
static void describe_foreign(const struct nvmf_controller *ctrl, struct nvmf_association *out)
{
	const char *colon = strchr(ctrl->subnqn, ':');
	out->id = ctrl->foreign_id;
	snprintf(out->name, sizeof(out->name), "%.*s", ENGINE_EXPORT_NAME_MAX,
		 colon ? colon + 1 : ctrl->subnqn);
}

static void describe(const struct nvmf_controller *ctrl, const struct nvmf_conn *admin,
		     struct nvmf_association *out)
{
	static_assert(sizeof(out->hostnqn) == sizeof(ctrl->hostnqn), "a name's field");
	*out = (struct nvmf_association){
		.controller = ctrl->cntlid,
		.io_queues = io_queues_of(ctrl),
		.keep_alive_ms = ctrl->kato_ms,
		.since_wall_ns = ctrl->since_wall_ns,
		.commands = ctrl->command_count,
		.errors = ctrl->error_count,
		.is_tls = ctrl->is_tls,
		.is_authenticated = nvmf_auth_has_proved(admin),
		.header_digest = admin->terms.header_digest,
		.data_digest = admin->terms.data_digest,
	};
	memcpy(out->hostnqn, ctrl->hostnqn, sizeof(out->hostnqn));
	memcpy(out->subnqn, ctrl->subnqn, sizeof(out->subnqn));
	memcpy(out->host_id.b, ctrl->hostid, sizeof(out->host_id.b));
	snprintf(out->peer, sizeof(out->peer), "%s", rt_conn_peer(admin->link.conn));
	if (nvmf_is_volume(ctrl))
		describe_volume(ctrl, out);
	else if (ctrl->foreign)
		describe_foreign(ctrl, out);
}

void nvmf_server_walk(const struct nvmf_server *server,
		      bool (*fn)(void *ctx, const struct nvmf_association *a), void *ctx)
{
	const struct nvmf_controller *ctrl;
	struct nvmf_association a;
	list_for_each (ctrl, &server->controllers, link_in_server) {
		const struct nvmf_conn *admin = ctrl->queues[NVME_ADMIN_QUEUE];
		if (ctrl->is_ending || !admin)
			continue;
		describe(ctrl, admin, &a);
		if (!fn(ctx, &a))
			break;
	}
}

static int reservation_noted(struct nvmf_server *server, const struct uuid *volume_id,
			     struct nvmf_reservation *out)
{
	uint8_t *note = mem_alloc(POOL_NOTE_BYTES_MAX);
	uint32_t len_bytes;
	int err = engines_note_get(server->engines, volume_id, POOL_NOTE_RESERVATION, note, &len_bytes);
	if (err == 0)
		err = nvmf_reservation_note_decode(note, len_bytes, &server->options.boot_id, out);
	free(note);
	return err;
}

int nvmf_server_reservation(struct nvmf_server *server, const struct uuid *volume_id,
			    struct nvmf_reservation *out)
{
	const struct nvmf_subsystem *s = nvmf_subsystem_find(server, volume_id);
	memset(out, 0, sizeof(*out));
	if (s && s->fence.is_read) {
		memcpy(out, &s->fence.reservation, sizeof(*out));
		return 0;
	}
	int err = reservation_noted(server, volume_id, out);
	return err == OXE_NOENT ? 0 : err;
}
