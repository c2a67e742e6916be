/*
 * nvmf_admin.c: features, Keep Alive, Abort.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#define REFUSED(status)	     ((uint16_t)((status) | NVME_STATUS_DNR))
#define FEATURE_OF_NAMESPACE 2
#define FEATURE_CHANGEABLE   4

#define TEMPERATURE_KELVIN 273 /* the threshold of a thing without a temperature */

/* ---- features ------------------------------------------------------------------------------------------------------------- */

static uint32_t queues_answer(void)
{
	return (NVMF_QUEUES_MAX - 1) | (uint32_t)(NVMF_QUEUES_MAX - 1) << 16;
}

static bool has_write_cache(const struct nvmf_controller *ctrl)
{
	return nvmf_is_volume(ctrl) && ctrl->is_near && !engine_info(ctrl->engine)->read_only;
}

/* Where there is one it cannot be turned off, only flushed. */
static uint16_t set_write_cache(const struct nvmf_controller *ctrl, uint32_t value)
{
	if (!has_write_cache(ctrl))
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	return value & 1 ? 0 : REFUSED(NVME_STATUS_FEATURE_NOT_CHANGEABLE);
}

static uint16_t set_queues(struct nvmf_request *r, uint32_t value)
{
	if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	r->result = queues_answer();
	return 0;
}

static uint32_t events_possible(const struct nvmf_controller *ctrl)
{
	if (nvmf_is_discovery(ctrl))
		return NVME_OAES_DISCOVERY;
	return nvmf_is_volume(ctrl) ? NVME_OAES_NAMESPACE | NVME_OAES_ANA : 0;
}

/* ---- features of the namespace: reservations --------------------------------------------------------------------------------- */

static uint16_t check_nsid(const struct nvmf_request *r, bool all_is_one)
{
	uint32_t nsid = le32_get(r->sqe.nsid);
	if (!nvmf_is_volume(r->conn->controller))
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	return nsid == 1 || (all_is_one && nsid == NVME_NSID_ALL) ? 0
								  : REFUSED(NVME_STATUS_INVALID_NAMESPACE);
}

static uint16_t set_reservation_mask(struct nvmf_request *r, uint32_t value)
{
	uint16_t status = check_nsid(r, true);
	if (status == 0)
		r->conn->controller->notices.masked =
			value & (NVME_RESERVATION_MASKED(NVME_REGISTRATION_PREEMPTED) |
				 NVME_RESERVATION_MASKED(NVME_RESERVATION_RELEASED) |
				 NVME_RESERVATION_MASKED(NVME_RESERVATION_PREEMPTED));
	return status;
}

static uint16_t set_reservation_persist(struct nvmf_request *r, uint32_t value)
{
	uint16_t status = check_nsid(r, true);
	return status ? status
		      : nvmf_status_of(nvmf_fence_set_persists(r->conn->controller, value & 1), false);
}

static uint16_t get_reservation_feature(struct nvmf_request *r, uint8_t feature, bool is_default)
{
	uint16_t status = check_nsid(r, false);
	if (status || is_default)
		return status;
	r->result = feature == NVME_FEATURE_RESERVATION_MASK ? r->conn->controller->notices.masked
							     : nvmf_fence_persists(r->conn->controller);
	return 0;
}

/* ---- set and got ---------------------------------------------------------------------------------------------------------- */

static uint16_t run_set_features(struct nvmf_request *r)
{
	struct nvmf_controller *ctrl = r->conn->controller;
	uint32_t cdw10 = le32_get(r->sqe.cdw10), value = le32_get(r->sqe.cdw11);
	if (cdw10 & NVME_FEATURE_SAVE)
		return REFUSED(NVME_STATUS_FEATURE_NOT_SAVEABLE);
	switch (cdw10 & 0xff) {
	case NVME_FEATURE_QUEUES:
		return nvmf_is_discovery(ctrl) ? REFUSED(NVME_STATUS_INVALID_FIELD) : set_queues(r, value);
	case NVME_FEATURE_WRITE_CACHE:
		return set_write_cache(ctrl, value);
	case NVME_FEATURE_KEEP_ALIVE:
		nvmf_keep_alive_set(ctrl, value);
		return 0;
	case NVME_FEATURE_EVENTS:
		ctrl->events_wanted = value & events_possible(ctrl);
		return 0;
	case NVME_FEATURE_RESERVATION_MASK:
		return set_reservation_mask(r, value);
	case NVME_FEATURE_RESERVATION_PERSIST:
		return set_reservation_persist(r, value);
	case NVME_FEATURE_HOST_ID: /* Connect said it */
		return REFUSED(NVME_STATUS_SEQUENCE_ERROR);
	case NVME_FEATURE_TEMPERATURE:
	case NVME_FEATURE_HOST_BEHAVIOR: /* nothing it could ask for is here to be had */
		return 0;
	default:
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	}
}

static void get_host_id(struct nvmf_request *r)
{
	memcpy(r->payload, r->conn->controller->hostid, r->command.data_bytes);
	r->answer_bytes = r->command.data_bytes;
}

static void get_host_behavior(struct nvmf_request *r)
{
	memset(r->payload, 0, r->command.data_bytes);
	r->answer_bytes = r->command.data_bytes;
}

/* `is_default`: the value before anybody set it. */
static uint16_t get_feature(struct nvmf_request *r, uint8_t feature, bool is_default)
{
	struct nvmf_controller *ctrl = r->conn->controller;
	switch (feature) {
	case NVME_FEATURE_ARBITRATION:
	case NVME_FEATURE_POWER:
	case NVME_FEATURE_ERROR_RECOVERY:
	case NVME_FEATURE_WRITE_ATOMICITY:
		return 0;
	case NVME_FEATURE_TEMPERATURE:
		r->result = TEMPERATURE_KELVIN;
		return 0;
	case NVME_FEATURE_WRITE_CACHE:
		r->result = 1;
		return has_write_cache(ctrl) ? 0 : REFUSED(NVME_STATUS_INVALID_FIELD);
	case NVME_FEATURE_QUEUES:
		r->result = queues_answer();
		return 0;
	case NVME_FEATURE_EVENTS:
		r->result = is_default ? 0 : ctrl->events_wanted;
		return 0;
	case NVME_FEATURE_KEEP_ALIVE:
		r->result = is_default ? 0 : ctrl->kato_ms;
		return 0;
	case NVME_FEATURE_HOST_BEHAVIOR:
		get_host_behavior(r);
		return 0;
	case NVME_FEATURE_HOST_ID:
		if (r->command.data_bytes != sizeof(ctrl->hostid))
			return REFUSED(NVME_STATUS_HOSTID_INCONSISTENT);
		get_host_id(r);
		return 0;
	case NVME_FEATURE_RESERVATION_MASK:
	case NVME_FEATURE_RESERVATION_PERSIST:
		return get_reservation_feature(r, feature, is_default);
	default:
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	}
}

static bool is_of_reservations(uint8_t feature)
{
	return feature == NVME_FEATURE_RESERVATION_MASK || feature == NVME_FEATURE_RESERVATION_PERSIST;
}

static bool is_changeable(uint8_t feature)
{
	return feature == NVME_FEATURE_EVENTS || feature == NVME_FEATURE_KEEP_ALIVE ||
	       feature == NVME_FEATURE_QUEUES || feature == NVME_FEATURE_HOST_BEHAVIOR ||
	       is_of_reservations(feature);
}

static uint16_t run_get_features(struct nvmf_request *r)
{
	uint32_t cdw10 = le32_get(r->sqe.cdw10);
	uint8_t feature = cdw10 & 0xff;
	switch (NVME_FEATURE_SELECT(cdw10)) {
	case NVME_SELECT_CURRENT:
		return get_feature(r, feature, false);
	case NVME_SELECT_DEFAULT:
	case NVME_SELECT_SAVED: /* nothing is: so the default */
		return get_feature(r, feature, true);
	case NVME_SELECT_CAPABILITIES:
		r->result = (is_changeable(feature) ? FEATURE_CHANGEABLE : 0) |
			    (is_of_reservations(feature) ? FEATURE_OF_NAMESPACE : 0);
		return 0;
	default:
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	}
}

/* ---- Abort ---------------------------------------------------------------------------------------------------------------- */

/* A request for events can be; what is at the disk ends by itself, and is answered as if nobody had asked. */
static uint16_t run_abort(struct nvmf_request *r)
{
	struct nvmf_request *waiting, *next;
	uint16_t sqid = le32_get(r->sqe.cdw10) & 0xffff, cid = (uint16_t)(le32_get(r->sqe.cdw10) >> 16);
	r->result = 1; /* not aborted */
	if (sqid != NVME_ADMIN_QUEUE)
		return 0;
	list_for_each_safe (waiting, next, &r->conn->controller->event_requests, link) {
		if (le16_get(waiting->sqe.cid) != cid)
			continue;
		list_del(&waiting->link);
		nvmf_answer(waiting, NVME_STATUS_ABORT_REQUESTED);
		r->result = 0;
		break;
	}
	return 0;
}

uint16_t nvmf_admin_run(struct nvmf_request *r)
{
	bool is_discovery = nvmf_is_discovery(r->conn->controller);
	bool is_foreign = r->conn->controller->foreign != NULL;
	switch (r->sqe.opcode) {
	case NVME_ADMIN_IDENTIFY:
		return is_foreign ? nvmf_foreign_identify(r) : nvmf_identify_run(r);
	case NVME_ADMIN_GET_LOG_PAGE:
		return is_foreign ? REFUSED(NVME_STATUS_INVALID_LOG_PAGE) : nvmf_log_run(r);
	case NVME_ADMIN_SET_FEATURES:
		return run_set_features(r);
	case NVME_ADMIN_GET_FEATURES:
		return run_get_features(r);
	case NVME_ADMIN_KEEP_ALIVE:
		return 0; /* any command is heard */
	case NVME_ADMIN_ABORT:
		return is_discovery ? REFUSED(NVME_STATUS_INVALID_OPCODE) : run_abort(r);
	default:
		return REFUSED(NVME_STATUS_INVALID_OPCODE);
	}
}
