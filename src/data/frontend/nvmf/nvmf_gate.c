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

/* How a list takes a host. */
struct admission {
	bool is_admitted;
	bool must_prove; /* itself, then */
	bool by_tls;	 /* the list has a key for it: it must come through TLS */
	const char *because;
};

static struct admission admission_of(const struct nvmf_server *server, const struct nvmf_access *access,
				     const char *hostnqn, bool is_tls)
{
	const struct nvmf_access_host *host = nvmf_access_find(access, hostnqn);
	struct admission a = {.because = "it is not on the volume's list",
			      .must_prove = host && nvme_secret_is_set(&host->secret),
			      .by_tls = host && nvme_secret_is_set(&host->tls_key)};
	if (a.by_tls && !is_tls)
		a.because = server->options.tls == NVMF_TLS_OFF
				    ? "it has to come through TLS, which is off here (--nvme-tls)"
				    : "it has to come through TLS";
	else if (server->options.authenticated_only)
		a.is_admitted = a.must_prove || a.by_tls;
	else
		a.is_admitted = host || access->count == 0;
	return a;
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
	struct admission a = admission_of(ctrl->server, access, ctrl->hostnqn, ctrl->is_tls);
	nvmf_gate_free(access);
	ctrl->must_prove = a.must_prove;
	if (a.is_admitted)
		return 0;
	ctrl->server->stats.hosts_refused++;
	log_refusal(ctrl, peer, a.because);
	return NVME_STATUS_CONNECT_HOST | NVME_STATUS_DNR;
}

bool nvmf_gate_shows(struct nvmf_server *server, const struct uuid *volume_id, const char *hostnqn,
		     bool *by_tls)
{
	struct nvmf_access *access;
	if (nvmf_gate_read(server, volume_id, &access))
		return false;
	struct admission a = admission_of(server, access, hostnqn, server->options.tls != NVMF_TLS_OFF);
	nvmf_gate_free(access);
	*by_tls = a.by_tls;
	return a.is_admitted;
}

/* A host that had nothing to prove when it came, and has now, comes again. One that has proved itself stays: its next
 * association needs the new secret. */
static void end_refused(struct nvmf_server *server, const struct uuid *volume_id,
			const struct nvmf_access *access)
{
	struct nvmf_controller *ctrl;
	list_for_each (ctrl, &server->controllers, link_in_server) {
		struct admission a = {0};
		if (!nvmf_is_volume(ctrl) || !uuid_equal(&ctrl->subsystem->volume_id, volume_id))
			continue;
		if (access)
			a = admission_of(server, access, ctrl->hostnqn, ctrl->is_tls);
		if (!a.is_admitted)
			nvmf_controller_end(ctrl, a.by_tls ? "it has to come through TLS now"
							   : "it is not on the volume's list any more");
		else if (a.must_prove && !ctrl->must_prove)
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
