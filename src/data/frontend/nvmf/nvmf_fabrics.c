/*
 * nvmf_fabrics.c: Connect, which makes a connection a queue; properties, the registers of a controller; Disconnect.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include "base/log.h"

#define CAP_TIMEOUT_UNITS 60 /* of 500 ms: how long enabling may take; it does not */
#define VERSION		  NVME_VERSION(2, 0, 0)

/* ---- Connect --------------------------------------------------------------------------------------------------------------- */

static uint16_t check_connect(const struct nvme_connect *sqe, const struct nvme_connect_data *data,
			      uint64_t *result)
{
	uint32_t entries = le16_get(sqe->sqsize) + 1u;
	if (le16_get(sqe->format) != 0)
		return NVME_STATUS_CONNECT_FORMAT | NVME_STATUS_DNR;
	if (entries < 2 || entries > NVMF_ENTRIES_MAX)
		*result = NVME_CONNECT_IN_SQE(sqsize);
	else if (!nvme_nqn_is_valid(data->subnqn))
		*result = NVME_CONNECT_IN_DATA(subnqn);
	else if (!nvme_nqn_is_valid(data->hostnqn))
		*result = NVME_CONNECT_IN_DATA(hostnqn);
	else
		return 0;
	return NVME_STATUS_CONNECT_INVALID | NVME_STATUS_DNR;
}

static uint16_t connect_queue(struct nvmf_request *r)
{
	const struct nvme_connect *sqe = (const void *)&r->sqe;
	struct nvme_connect_data data;
	memcpy(&data, r->payload, sizeof(data));
	uint16_t status = check_connect(sqe, &data, &r->result);
	if (status)
		return status;
	if (!nvmf_tls_admits(r->conn, &data)) {
		r->result = NVME_CONNECT_IN_DATA(hostnqn);
		return NVME_STATUS_CONNECT_HOST | NVME_STATUS_DNR;
	}
	return le16_get(sqe->qid) == NVME_ADMIN_QUEUE ? nvmf_controller_new(r->conn, sqe, &data, &r->result)
						      : nvmf_controller_join(r->conn, sqe, &data, &r->result);
}

void nvmf_connect_run(struct nvmf_request *r)
{
	struct nvmf_conn *c = r->conn;
	uint16_t status;
	if (!r->payload) /* its data would have to be asked for, as no host wants */
		status = NVME_STATUS_SGL_TYPE_INVALID | NVME_STATUS_DNR;
	else
		status = r->data_is_bad ? NVME_STATUS_TRANSIENT_TRANSPORT : connect_queue(r);
	if (status == 0) {
		struct nvmf_controller *ctrl = c->controller;
		link_deadline(&c->link, 0);
		if (ctrl->must_prove) {
			nvmf_auth_require(c);
			r->result |= NVME_CONNECT_ATR;
		}
		LOG_INFO("nvmf.connected", "a host connected a queue",
			 F_STR("peer", rt_conn_peer(c->link.conn)), F_STR("host", ctrl->hostnqn),
			 F_STR("subsystem", ctrl->subnqn), F_U64("controller", ctrl->cntlid),
			 F_U64("queue", c->qid), F_U64("entries", c->entries), F_U64("tls", ctrl->is_tls));
	}
	nvmf_answer(r, status);
}

/* ---- properties -------------------------------------------------------------------------------------------------------------- */

static bool property_get(const struct nvmf_controller *ctrl, uint32_t offset, bool is_wide, uint64_t *value)
{
	switch (offset) {
	case NVME_PROPERTY_CAP:
		*value = NVME_CAP_MQES(NVMF_ENTRIES_MAX) | NVME_CAP_CQR |
			 NVME_CAP_TO_500MS(CAP_TIMEOUT_UNITS) | NVME_CAP_CSS_NVM;
		return is_wide;
	case NVME_PROPERTY_VS:
		*value = VERSION;
		return !is_wide;
	case NVME_PROPERTY_CC:
		*value = ctrl->cc;
		return !is_wide;
	case NVME_PROPERTY_CSTS:
		*value = ctrl->csts;
		return !is_wide;
	default:
		return false;
	}
}

static bool can_enable(const struct nvmf_controller *ctrl, uint32_t cc)
{
	if (NVME_CC_CSS(cc) != NVME_CC_CSS_NVM || NVME_CC_MPS(cc) != 0 || NVME_CC_AMS(cc) != 0)
		return false;
	return nvmf_is_discovery(ctrl) || (NVME_CC_IOSQES(cc) == 6 && NVME_CC_IOCQES(cc) == 4);
}

/* A reset: I/O queues are gone, and what was set is forgotten. */
static void disable(struct nvmf_controller *ctrl)
{
	ctrl->csts = 0;
	ctrl->events_wanted = ctrl->events_due = ctrl->events_told = 0;
	ctrl->notices = (struct nvmf_notices){0};
	for (size_t qid = NVME_ADMIN_QUEUE + 1; qid <= NVMF_QUEUES_MAX; qid++)
		if (ctrl->queues[qid])
			nvmf_conn_break(ctrl->queues[qid]);
}

/* What was written so far is durable when it says that it is shut down. */
static void shut_down(struct nvmf_controller *ctrl)
{
	int err = ctrl->engine ? engine_flush(ctrl->engine) : 0;
	ctrl->csts |= err ? NVME_CSTS_CFS : NVME_CSTS_SHST_DONE;
}

static void control(struct nvmf_controller *ctrl, uint32_t cc)
{
	uint32_t old = ctrl->cc;
	ctrl->cc = cc;
	if (!(old & NVME_CC_EN) && (cc & NVME_CC_EN))
		ctrl->csts = can_enable(ctrl, cc) ? NVME_CSTS_RDY : NVME_CSTS_CFS;
	if ((old & NVME_CC_EN) && !(cc & NVME_CC_EN))
		disable(ctrl);
	if (NVME_CC_SHN(cc) && !NVME_CC_SHN(old))
		shut_down(ctrl);
	if (NVME_CC_SHN(old) && !NVME_CC_SHN(cc))
		ctrl->csts &= ~NVME_CSTS_SHST_DONE;
}

static uint16_t run_property(struct nvmf_request *r)
{
	const struct nvme_property *w = (const void *)&r->sqe;
	struct nvmf_controller *ctrl = r->conn->controller;
	uint32_t offset = le32_get(w->offset);
	bool is_wide = (w->size & 7) == 1;
	if (r->conn->qid != NVME_ADMIN_QUEUE)
		return NVME_STATUS_INVALID_OPCODE | NVME_STATUS_DNR;
	if (w->fctype == NVME_FABRICS_PROPERTY_GET && (w->size & 7) <= 1 &&
	    property_get(ctrl, offset, is_wide, &r->result))
		return 0;
	r->result = 0;
	/* Without DNR: nvme-cli (2.3, show-regs) reads every offset, and takes no other answer for "there is none". */
	if (w->fctype == NVME_FABRICS_PROPERTY_GET)
		return NVME_STATUS_INVALID_FIELD;
	if (offset != NVME_PROPERTY_CC || (w->size & 7) != 0)
		return NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR;
	control(ctrl, (uint32_t)le64_get(w->value));
	return 0;
}

/* ---- Disconnect ----------------------------------------------------------------------------------------------------------------- */

static uint16_t run_disconnect(struct nvmf_request *r)
{
	const struct nvme_disconnect *w = (const void *)&r->sqe;
	if (le16_get(w->format) != 0)
		return NVME_STATUS_CONNECT_FORMAT | NVME_STATUS_DNR;
	if (r->conn->qid == NVME_ADMIN_QUEUE)
		return NVME_STATUS_CONNECT_QUEUE_TYPE | NVME_STATUS_DNR;
	r->conn->is_leaving = true; /* the sender closes behind the answer */
	return 0;
}

uint16_t nvmf_fabrics_run(struct nvmf_request *r)
{
	const struct nvme_disconnect *w = (const void *)&r->sqe;
	switch (w->fctype) {
	case NVME_FABRICS_DISCONNECT:
		return run_disconnect(r);
	case NVME_FABRICS_AUTH_SEND:
	case NVME_FABRICS_AUTH_RECEIVE:
		return nvmf_auth_run(r);
	default:
		return run_property(r);
	}
}
