/*
 * nvmf_gate.c: who may connect. A volume's list (nvmf_access.h) is read from its note whenever somebody asks to come in, so
 * what the pool says holds, and a list that cannot be read lets nobody in.
 *
 *     Connect     the list is read once the controller is known to the server: a change that comes later finds it, and ends it
 *     discovery   shows a volume to those it would let in
 *     a change    ends the associations of whoever would be refused now
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"

int nvmf_gate_read(struct nvmf_server *server, const struct uuid *volume_id, struct nvmf_access **out)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	struct nvmf_access *access = mem_zalloc(sizeof(*access));
	uint32_t len_bytes;
	static_assert(NVMF_ACCESS_NOTE_MAX <= POOL_NOTE_BYTES_MAX, "it is one note");
	int err = engines_note_get(server->engines, volume_id, POOL_NOTE_ACCESS, note, &len_bytes);
	if (err == 0)
		err = nvmf_access_decode(note, len_bytes, access);
	else if (err == OXE_NOENT)
		err = 0; /* the empty list */
	explicit_bzero(note, sizeof(note));
	if (err)
		nvmf_gate_free(access);
	else
		*out = access;
	return err;
}

void nvmf_gate_free(struct nvmf_access *access)
{
	nvmf_access_wipe(access);
	free(access);
}

/* Does the list let this host in; and must it prove itself then? */
static bool admits(const struct nvmf_server *server, const struct nvmf_access *access, const char *hostnqn,
		   bool *must_prove)
{
	const struct nvmf_access_host *host = nvmf_access_find(access, hostnqn);
	*must_prove = host && nvme_secret_is_set(&host->secret);
	if (server->options.authenticated_only)
		return *must_prove;
	return host || access->count == 0;
}

static void log_refusal(const struct nvmf_controller *ctrl, const char *peer, const char *because)
{
	LOG_WARN("nvmf.refused", "a host may not connect to the volume", F_STR("peer", peer),
		 F_STR("host", ctrl->hostnqn), F_STR("volume", engine_name(ctrl->engine)),
		 F_STR("because", because));
}

uint16_t nvmf_gate_check(struct nvmf_controller *ctrl, const char *peer)
{
	struct nvmf_access *access;
	int err = nvmf_gate_read(ctrl->server, &ctrl->subsystem->volume_id, &access);
	if (err) {
		log_refusal(ctrl, peer, err_text(err));
		return NVME_STATUS_INTERNAL;
	}
	bool is_admitted = admits(ctrl->server, access, ctrl->hostnqn, &ctrl->must_prove);
	nvmf_gate_free(access);
	if (is_admitted)
		return 0;
	ctrl->server->stats.hosts_refused++;
	log_refusal(ctrl, peer, "it is not on the volume's list");
	return NVME_STATUS_CONNECT_HOST | NVME_STATUS_DNR;
}

bool nvmf_gate_shows(struct nvmf_server *server, const struct uuid *volume_id, const char *hostnqn)
{
	struct nvmf_access *access;
	bool must_prove;
	if (nvmf_gate_read(server, volume_id, &access))
		return false;
	bool is_admitted = admits(server, access, hostnqn, &must_prove);
	nvmf_gate_free(access);
	return is_admitted;
}

/* A host that had nothing to prove when it came, and has now, comes again. One that has proved itself stays: its next
 * association needs the new secret. */
static void end_refused(struct nvmf_server *server, const struct uuid *volume_id,
			const struct nvmf_access *access)
{
	struct nvmf_controller *ctrl;
	bool must_prove;
	list_for_each (ctrl, &server->controllers, link_in_server) {
		if (nvmf_is_discovery(ctrl) || !uuid_equal(&ctrl->subsystem->volume_id, volume_id))
			continue;
		if (!access || !admits(server, access, ctrl->hostnqn, &must_prove))
			nvmf_controller_end(ctrl, "it is not on the volume's list any more");
		else if (must_prove && !ctrl->must_prove)
			nvmf_controller_end(ctrl, "it has to prove itself now");
	}
}

void nvmf_server_access_changed(struct nvmf_server *server, const struct uuid *volume_id)
{
	struct nvmf_access *access = NULL;
	if (nvmf_gate_read(server, volume_id, &access))
		access = NULL;
	end_refused(server, volume_id, access);
	if (access)
		nvmf_gate_free(access);
	server->access_changes++;
	nvmf_server_changed(server);
}
