/*
 * nvmf_identify.c: what a controller and its namespace say about themselves. Every limit here is one that is enforced elsewhere.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#include <stdio.h>

#define REFUSED(status) ((uint16_t)((status) | NVME_STATUS_DNR))

/* Text fields are padded with spaces, and not terminated. */
static void put_text(char *field, size_t field_bytes, const char *text)
{
	size_t length = u64_min(strlen(text), field_bytes);
	memset(field, ' ', field_bytes);
	memcpy(field, text, length);
}

/* Twenty hexadecimal digits of the volume's uuid. */
static void put_serial(char field[20], const struct uuid *id)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < 10; i++) {
		field[2 * i] = digits[id->b[i] >> 4];
		field[2 * i + 1] = digits[id->b[i] & 15];
	}
}

#define ONCS_OF_WRITERS (NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES | NVME_ONCS_RESERVATIONS)

/* ---- the controller ------------------------------------------------------------------------------------------------------- */

static void put_common(const struct nvmf_controller *ctrl, struct nvme_id_ctrl *w)
{
	put_text(w->fr, sizeof(w->fr), OXBOW_VERSION);
	w->mdts = NVMF_MDTS_SHIFT;
	w->cntlid = le16_of(ctrl->cntlid);
	w->ver = le32_of(NVME_VERSION(2, 0, 0));
	w->ctratt = le32_of(NVME_CTRATT_HOSTID_128 | NVME_CTRATT_TBKAS);
	w->lpa = NVME_LPA_EXTENDED | NVME_LPA_EFFECTS;
	w->aerl = NVMF_EVENTS_MAX - 1;
	w->elpe = NVMF_ERRORS_KEPT - 1;
	w->kas = le16_of(NVMF_KATO_UNIT_MS / 100);
	w->maxcmd = le16_of(NVMF_ENTRIES_MAX);
	w->sgls = le32_of(NVME_SGLS_SUPPORTED | NVME_SGLS_OFFSET | NVME_SGLS_TRANSPORT);
	memcpy(w->subnqn, ctrl->subnqn, sizeof(w->subnqn));
	w->ioccsz = le32_of((uint32_t)(sizeof(struct nvme_sqe) + NVMF_CAPSULE_MAX) / NVME_CAPSULE_UNIT);
	w->iorcsz = le32_of(sizeof(struct nvme_cqe) / NVME_CAPSULE_UNIT);
	w->msdbd = 1;
}

static void put_names(struct nvme_id_ctrl *w, const char *model, const struct uuid *id)
{
	put_serial(w->sn, id);
	put_text(w->mn, sizeof(w->mn), model);
}

static void put_queues(struct nvme_id_ctrl *w)
{
	w->cntrltype = NVME_CNTRLTYPE_IO;
	w->acl = NVMF_ABORTS_MAX - 1;
	w->frmw = 0x03; /* one slot, read-only */
	w->sqes = 0x66;
	w->cqes = 0x44;
	w->nn = w->mnan = le32_of(1);
	w->ofcs = le16_of(NVME_OFCS_DISCONNECT);
}

static void put_io(const struct nvmf_controller *ctrl, struct nvme_id_ctrl *w)
{
	bool can_write = !engine_info(ctrl->engine)->read_only;
	put_names(w, can_write ? NVMF_MODEL : NVMF_MODEL_SNAPSHOT, &engine_info(ctrl->engine)->id);
	w->rab = 6;
	w->cmic = NVME_CMIC_MULTI_PORT | NVME_CMIC_MULTI_CONTROLLER | NVME_CMIC_ANA;
	w->oaes = le32_of(NVME_OAES_NAMESPACE | NVME_OAES_ANA);
	w->anatt = 10;
	w->anacap = NVME_ANACAP_OPTIMIZED | NVME_ANACAP_NONOPTIMIZED | NVME_ANACAP_INACCESSIBLE |
		    NVME_ANACAP_LOSS | NVME_ANACAP_CHANGE;
	w->anagrpmax = w->nanagrpid = le32_of(1);
	put_queues(w);
	w->oncs = le16_of(NVME_ONCS_COMPARE | NVME_ONCS_VERIFY | (can_write ? ONCS_OF_WRITERS : 0));
	w->fuses = le16_of(can_write ? NVME_FUSES_COMPARE_WRITE : 0);
	w->vwc = NVME_VWC_FLUSH_ALL | (can_write && ctrl->is_near ? NVME_VWC_PRESENT : 0);
	w->acwu = le16_of((uint16_t)(NVMF_CAPSULE_MAX / engine_info(ctrl->engine)->lba_bytes - 1));
}

void nvmf_identify_common(const struct nvmf_controller *ctrl, const char *model, const struct uuid *id,
			  struct nvme_id_ctrl *w)
{
	put_common(ctrl, w);
	put_names(w, model, id);
	put_queues(w);
}

static void put_discovery(struct nvme_id_ctrl *w)
{
	put_text(w->sn, sizeof(w->sn), "oxbow");
	put_text(w->mn, sizeof(w->mn), "Oxbow discovery");
	w->oaes = le32_of(NVME_OAES_DISCOVERY);
	w->cntrltype = NVME_CNTRLTYPE_DISCOVERY;
}

static uint16_t identify_controller(struct nvmf_request *r)
{
	const struct nvmf_controller *ctrl = r->conn->controller;
	put_common(ctrl, r->payload);
	if (nvmf_is_discovery(ctrl))
		put_discovery(r->payload);
	else
		put_io(ctrl, r->payload);
	return 0;
}

/* ---- the namespace --------------------------------------------------------------------------------------------------------- */

#define NVMF_RESCAP	(NVME_RESCAP_PERSIST | NVME_RESCAP_TYPES | NVME_RESCAP_IGNORE_KEY)
#define FLAT_LBA(bytes) ((uint8_t)__builtin_ctz(bytes))

static void put_sizes(const struct vol_info *info, struct nvme_id_ns *w)
{
	uint16_t block_units = (uint16_t)(POOL_BLOCK_BYTES / info->lba_bytes - 1);
	w->nsze = w->ncap = w->nuse = le64_of(info->size_bytes / info->lba_bytes);
	w->lbaf[0].data_shift = FLAT_LBA(info->lba_bytes);
	/* Writes that cover whole blocks of the store are whole writes; trims of less are dropped. */
	w->npwg = w->npwa = w->npdg = w->npda = le16_of(block_units);
	w->nows = le16_of((uint16_t)(POOL_CLUSTER_BYTES / info->lba_bytes - 1));
}

static uint16_t identify_namespace(struct nvmf_request *r)
{
	const struct vol_info *info = engine_info(r->conn->controller->engine);
	struct nvme_id_ns *w = r->payload;
	put_sizes(info, w);
	w->nsfeat = NVME_NSFEAT_OPTPERF;
	w->nmic = NVME_NMIC_SHARED;
	w->rescap = info->read_only ? 0 : NVMF_RESCAP;
	w->dlfeat = NVME_DLFEAT_READ_ZEROES | NVME_DLFEAT_WZ_DEAC;
	w->anagrpid = le32_of(1);
	w->nsattr = info->read_only ? NVME_NSATTR_READ_ONLY : 0;
	memcpy(w->nguid, info->id.b, sizeof(w->nguid));
	return 0;
}

static uint16_t identify_independent(struct nvmf_request *r)
{
	const struct vol_info *info = engine_info(r->conn->controller->engine);
	struct nvme_id_ns_independent *w = r->payload;
	w->nmic = NVME_NMIC_SHARED;
	w->rescap = info->read_only ? 0 : NVMF_RESCAP;
	w->anagrpid = le32_of(1);
	w->nsattr = info->read_only ? NVME_NSATTR_READ_ONLY : 0;
	w->nstat = NVME_NSTAT_READY;
	return 0;
}

uint8_t *nvmf_identify_descriptor(uint8_t *out, uint8_t type, const void *id, uint8_t id_bytes)
{
	struct nvme_ns_descriptor w = {.type = type, .length = id_bytes};
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), id, id_bytes);
	return out + sizeof(w) + id_bytes;
}

static uint16_t identify_descriptors(struct nvmf_request *r)
{
	const struct vol_info *info = engine_info(r->conn->controller->engine);
	static const uint8_t csi = NVME_CSI_NVM;
	uint8_t *at = nvmf_identify_descriptor(r->payload, NVME_NIDT_UUID, info->id.b, sizeof(info->id.b));
	at = nvmf_identify_descriptor(at, NVME_NIDT_NGUID, info->id.b, sizeof(info->id.b));
	nvmf_identify_descriptor(at, NVME_NIDT_CSI, &csi, sizeof(csi));
	return 0;
}

/* Every namespace above the one that is named: one, or none. */
static uint16_t identify_namespaces(struct nvmf_request *r)
{
	struct nvme_id_list *w = r->payload;
	uint32_t above = le32_get(r->sqe.nsid);
	if (above >= NVME_NSID_ALL - 1)
		return REFUSED(NVME_STATUS_INVALID_NAMESPACE);
	w->nsid[0] = le32_of(above == 0);
	return 0;
}

static uint16_t identify_controllers(struct nvmf_request *r)
{
	struct nvme_ctrl_list *w = r->payload;
	const struct nvmf_controller *ctrl;
	uint16_t count = 0, from = (uint16_t)(le32_get(r->sqe.cdw10) >> 16);
	list_for_each (ctrl, &r->conn->controller->subsystem->controllers, link_in_subsystem)
		if (ctrl->cntlid >= from && count < ARRAY_COUNT(w->cntlid))
			w->cntlid[count++] = le16_of(ctrl->cntlid);
	/* In ascending order; they are few. */
	for (uint16_t i = 1; i < count; i++)
		for (uint16_t j = i; j > 0 && le16_get(w->cntlid[j - 1]) > le16_get(w->cntlid[j]); j--) {
			le16 swapped = w->cntlid[j];
			w->cntlid[j] = w->cntlid[j - 1];
			w->cntlid[j - 1] = swapped;
		}
	w->count = le16_of(count);
	return 0;
}

static uint16_t identify_nothing(struct nvmf_request *r)
{
	(void)r; /* all zero is the answer: no limit, no such thing */
	return 0;
}

/* ---- which ------------------------------------------------------------------------------------------------------------------- */

struct cns_rule {
	uint16_t (*run)(struct nvmf_request *r);
	bool wants_namespace, wants_nvm; /* nsid 1; the NVM command set */
};

static const struct cns_rule rules[] = {
	[NVME_CNS_NAMESPACE] = {identify_namespace, true, false},
	[NVME_CNS_CONTROLLER] = {identify_controller, false, false},
	[NVME_CNS_ACTIVE_NAMESPACES] = {identify_namespaces, false, false},
	[NVME_CNS_NAMESPACE_DESCRIPTORS] = {identify_descriptors, true, false},
	[NVME_CNS_CSI_NAMESPACE] = {identify_nothing, true, true},
	[NVME_CNS_CSI_CONTROLLER] = {identify_nothing, false, true},
	[NVME_CNS_CSI_ACTIVE_NAMESPACES] = {identify_namespaces, false, true},
	[NVME_CNS_INDEPENDENT_NAMESPACE] = {identify_independent, true, false},
	[NVME_CNS_ALLOCATED_NAMESPACES] = {identify_namespaces, false, false},
	[NVME_CNS_ALLOCATED_NAMESPACE] = {identify_namespace, true, false},
	[NVME_CNS_NAMESPACE_CONTROLLERS] = {identify_controllers, true, false},
	[NVME_CNS_CONTROLLERS] = {identify_controllers, false, false},
	[NVME_CNS_SECONDARY_CONTROLLERS] = {identify_nothing, false, false},
};

uint16_t nvmf_identify_run(struct nvmf_request *r)
{
	uint8_t cns = le32_get(r->sqe.cdw10) & 0xff, csi = (uint8_t)(le32_get(r->sqe.cdw11) >> 24);
	const struct cns_rule *rule = cns < ARRAY_COUNT(rules) ? &rules[cns] : &(struct cns_rule){0};
	bool is_discovery = nvmf_is_discovery(r->conn->controller);
	if (!rule->run || (is_discovery && cns != NVME_CNS_CONTROLLER) ||
	    (rule->wants_nvm && csi != NVME_CSI_NVM))
		return REFUSED(NVME_STATUS_INVALID_FIELD);
	if (rule->wants_namespace && le32_get(r->sqe.nsid) != 1)
		return REFUSED(NVME_STATUS_INVALID_NAMESPACE);
	memset(r->payload, 0, NVME_IDENTIFY_BYTES);
	r->answer_bytes = NVME_IDENTIFY_BYTES;
	return rule->run(r);
}
