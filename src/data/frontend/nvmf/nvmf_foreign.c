/*
 * nvmf_foreign.c: subsystems that are somebody else's (nvmf_foreign.h): who may have them, what they say of themselves, and I/O
 * commands handed on with their data.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"

#define REFUSED(status) ((uint16_t)((status) | NVME_STATUS_DNR))

void nvmf_foreign_init(struct nvmf_server *server, const struct nvmf_foreign *foreign)
{
	if (!foreign)
		return;
	server->foreign = *foreign;
	int err = foreign->secret ? nvme_secret_parse(foreign->secret, &server->foreign_secret) : 0;
	if (!err && foreign->tls_key)
		err = nvme_tls_key_parse(foreign->tls_key, &server->foreign_tls_key);
	assert(!err);
	server->foreign.secret = server->foreign.tls_key = NULL; /* the texts are the caller's */
}

bool nvmf_foreign_knows(const struct nvmf_server *server, const char *subnqn)
{
	const struct nvmf_foreign *f = &server->foreign;
	return f->knows && f->knows(f->ctx, subnqn);
}

/* ---- who may have them ------------------------------------------------------------------------------------------------------ */

static bool end_those_of(struct nvmf_server *server, const struct nvme_connect_data *data)
{
	struct nvmf_controller *ctrl;
	bool are_there = false;
	list_for_each (ctrl, &server->controllers, link_in_server) {
		if (!ctrl->foreign || !nvmf_is_of_host(ctrl, data))
			continue;
		are_there = true;
		nvmf_controller_end(ctrl, "the same host has connected anew");
	}
	return are_there;
}

/* Others may connect as the same host meanwhile: they are older, too. */
bool nvmf_foreign_end_older(struct nvmf_conn *c, const struct nvme_connect_data *data, uint64_t until_ns)
{
	while (!c->is_broken && end_those_of(c->server, data))
		if (!waitq_wait_until(&c->server->departures, until_ns))
			return false;
	return !c->is_broken;
}

static const char *why_not(const struct nvmf_controller *ctrl, const char *peer)
{
	const struct nvmf_server *server = ctrl->server;
	struct where where = where_of(peer);
	if (nvme_secret_is_set(&server->foreign_tls_key))
		return ctrl->is_tls ? NULL : "it has to come through TLS, by the cluster's key";
	if (nvme_secret_is_set(&server->foreign_secret) || server->foreign.insecure ||
	    where_is_loopback(&where))
		return NULL;
	return "it comes from another machine, and the cluster has no secret (--cluster-secret-file)";
}

uint16_t nvmf_foreign_check(struct nvmf_controller *ctrl, const char *peer)
{
	const char *because = why_not(ctrl, peer);
	ctrl->must_prove = nvme_secret_is_set(&ctrl->server->foreign_secret);
	if (!because)
		return 0;
	ctrl->server->stats.hosts_refused++;
	LOG_WARN("nvmf.refused", "a host may not connect to the subsystem", F_STR("peer", peer),
		 F_STR("host", ctrl->hostnqn), F_STR("subsystem", ctrl->subnqn), F_STR("because", because));
	return REFUSED(NVME_STATUS_CONNECT_HOST);
}

/* ---- what they say of themselves ---------------------------------------------------------------------------------------------- */

static uint64_t blocks_of(const struct nvmf_controller *ctrl)
{
	return ctrl->server->foreign.size_bytes(ctrl->foreign) / NVMF_FOREIGN_LBA;
}

static void put_controller(const struct nvmf_controller *ctrl, struct nvme_id_ctrl *w)
{
	nvmf_identify_common(ctrl, ctrl->server->foreign.model, &ctrl->foreign_id, w);
	w->oncs = le16_of(NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
	w->vwc = NVME_VWC_FLUSH_ALL | NVME_VWC_PRESENT;
}

/* Without anything in it the namespace is inactive, which is said by zeroes. */
static void put_namespace(const struct nvmf_controller *ctrl, struct nvme_id_ns *w)
{
	uint64_t blocks = blocks_of(ctrl);
	if (blocks == 0)
		return;
	w->nsze = w->ncap = w->nuse = le64_of(blocks);
	w->lbaf[0].data_shift = (uint8_t)__builtin_ctz(NVMF_FOREIGN_LBA);
	w->dlfeat = NVME_DLFEAT_READ_ZEROES | NVME_DLFEAT_WZ_DEAC;
	memcpy(w->nguid, ctrl->foreign_id.b, sizeof(w->nguid));
}

static void put_descriptors(const struct nvmf_controller *ctrl, uint8_t *at)
{
	static const uint8_t csi = NVME_CSI_NVM;
	at = nvmf_identify_descriptor(at, NVME_NIDT_UUID, ctrl->foreign_id.b, sizeof(ctrl->foreign_id.b));
	nvmf_identify_descriptor(at, NVME_NIDT_CSI, &csi, sizeof(csi));
}

static uint16_t put(const struct nvmf_request *r, uint8_t cns)
{
	const struct nvmf_controller *ctrl = r->conn->controller;
	struct nvme_id_list *list = r->payload;
	bool is_one = le32_get(r->sqe.nsid) == 1;
	switch (cns) {
	case NVME_CNS_CONTROLLER:
		put_controller(ctrl, r->payload);
		return 0;
	case NVME_CNS_NAMESPACE:
		put_namespace(ctrl, r->payload);
		return is_one ? 0 : REFUSED(NVME_STATUS_INVALID_NAMESPACE);
	case NVME_CNS_NAMESPACE_DESCRIPTORS:
		put_descriptors(ctrl, r->payload);
		return is_one && blocks_of(ctrl) ? 0 : REFUSED(NVME_STATUS_INVALID_NAMESPACE);
	case NVME_CNS_ACTIVE_NAMESPACES:
		list->nsid[0] = le32_of(le32_get(r->sqe.nsid) == 0 && blocks_of(ctrl));
		return 0;
	case NVME_CNS_CSI_CONTROLLER: /* all zero: no limit */
		return 0;
	default:
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	}
}

uint16_t nvmf_foreign_identify(struct nvmf_request *r)
{
	memset(r->payload, 0, NVME_IDENTIFY_BYTES);
	uint16_t status = put(r, le32_get(r->sqe.cdw10) & 0xff);
	r->answer_bytes = status ? 0 : NVME_IDENTIFY_BYTES;
	return status;
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------ */

uint16_t nvmf_foreign_run(struct nvmf_request *r)
{
	const struct nvmf_controller *ctrl = r->conn->controller;
	uint32_t answer_bytes = 0;
	uint16_t status = ctrl->server->foreign.run(ctrl->foreign, &r->sqe, r->payload, r->command.data_bytes,
						    &answer_bytes, &r->result);
	assert(answer_bytes <= r->command.data_bytes);
	r->answer_bytes = r->command.data == NVMF_DATA_TO_HOST && !status ? answer_bytes : 0;
	return status;
}
