/*
 * nvme_host_make.c: an association, made: the admin queue, the controller enabled and identified, the namespace identified,
 * then the I/O queues. It reads as the specification tells it. Every step ends soon when the host is closed, or when the time
 * for all of it is over: both shut the connections down, and whoever waits for an answer gets OXE_CLOSED.
 */
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_status.h"
#include "data/replica/nvme_host_impl.h"
#include "data/replica/replica_wire.h"

#define READY_PAUSE_NS	 (5 * NS_PER_MS)
#define READ_CHUNK_BYTES MiB /* where the target names no limit */
#define LBA_SHIFT_MIN	 9u
#define LBA_SHIFT_MAX	 12u
#define CONTROLLER_PAGE_SHIFT                                                                                \
	12u /* of MDTS: CAP.MPSMIN is 0 over Fabrics with us; a larger one only makes limits smaller */

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

static int refused(struct nvme_host *h, const struct nvme_call *call, const char *what)
{
	if (call->result && call->result != OXE_CLOSED)
		nvme_host_lose(h, call->result, "the target refuses %s: %s", what,
			       nvme_status_text(call->status));
	return call->result;
}

static int admin_call(struct nvme_host *h, struct nvme_call *call)
{
	return nvme_queue_call(&h->admin, call);
}

static int property_get(struct nvme_host *h, uint32_t offset, bool is_8_bytes, uint64_t *value)
{
	struct nvme_call call = {0};
	struct nvme_property *p = (void *)&call.sqe;
	p->opcode = NVME_FABRICS;
	p->fctype = NVME_FABRICS_PROPERTY_GET;
	p->size = is_8_bytes;
	p->offset = le32_of(offset);
	int err = admin_call(h, &call);
	*value = is_8_bytes ? call.value : (uint32_t)call.value;
	return err ? refused(h, &call, "to say what it can") : 0;
}

static int property_set(struct nvme_host *h, uint32_t offset, uint32_t value)
{
	struct nvme_call call = {0};
	struct nvme_property *p = (void *)&call.sqe;
	p->opcode = NVME_FABRICS;
	p->fctype = NVME_FABRICS_PROPERTY_SET;
	p->offset = le32_of(offset);
	p->value = le64_of(value);
	return admin_call(h, &call) ? refused(h, &call, "to be enabled") : 0;
}

/* Its errors are the caller's to judge. */
static int identify(struct nvme_host *h, enum nvme_cns cns, uint32_t nsid, void *page, struct nvme_call *call)
{
	memset(page, 0, NVME_IDENTIFY_BYTES);
	*call = (struct nvme_call){
		.sqe = {.opcode = NVME_ADMIN_IDENTIFY, .nsid = le32_of(nsid), .cdw10 = le32_of(cns)},
		.data = page,
		.len_bytes = NVME_IDENTIFY_BYTES,
		.way = NVME_WAY_IN,
	};
	return admin_call(h, call);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------------- */

/* To a Connect these numbers mean something else than to an I/O command. */
static int connect_error(uint16_t status)
{
	switch (status & NVME_STATUS_CODE_MASK) {
	case NVME_STATUS_CONNECT_HOST:
		return OXE_PERM;
	case NVME_STATUS_CONNECT_INVALID:
		return OXE_NOENT;
	case NVME_STATUS_CONNECT_BUSY:
		return OXE_BUSY;
	default:
		return OXE_UNSUPPORTED;
	}
}

/* A target that must prove itself is asked to on every queue, even if it wants nothing of us: anybody can say that. */
static int prove_if_need_be(struct nvme_queue *q, uint32_t answer)
{
	struct nvme_host *h = q->host;
	bool is_asked = answer & (NVME_CONNECT_ATR | NVME_CONNECT_ASCR);
	if (!is_asked && !nvme_secret_is_set(&h->controller_secret))
		return 0;
	if (nvme_secret_is_set(&h->secret) && !(answer & NVME_CONNECT_ASCR))
		return nvme_host_prove(q);
	nvme_host_lose(h, OXE_PERM,
		       answer & NVME_CONNECT_ASCR ? "the target wants a secure channel"
						  : "the target wants authentication");
	return OXE_PERM;
}

static int fabrics_connect(struct nvme_queue *q, uint32_t depth, uint16_t cntlid)
{
	struct nvme_host *h = q->host;
	struct nvme_connect_data data = {.cntlid = le16_of(cntlid)};
	struct nvme_call call = {.data = &data, .len_bytes = sizeof(data), .way = NVME_WAY_OUT};
	struct nvme_connect *w = (void *)&call.sqe;
	memcpy(data.hostid, h->options.host_id.b, sizeof(data.hostid));
	nvme_nqn_put(data.subnqn, h->subsystem_nqn);
	nvme_nqn_put(data.hostnqn, h->host_nqn);
	w->opcode = NVME_FABRICS;
	w->fctype = NVME_FABRICS_CONNECT;
	w->qid = le16_of(q->qid);
	w->sqsize = le16_of((uint16_t)depth); /* entries less one: a ring of n holds n - 1 */
	w->kato_ms =
		le32_of(q->qid == NVME_ADMIN_QUEUE ? (uint32_t)(h->options.keep_alive_ns / NS_PER_MS) : 0);
	uint32_t capsule_bytes = q->capsule_bytes;
	q->capsule_bytes = NVME_HOST_ADMIN_CAPSULE; /* Connect brings its data along on every queue */
	int err = nvme_queue_call(q, &call);
	q->capsule_bytes = capsule_bytes;
	if (err && err != OXE_CLOSED)
		call.result = connect_error(call.status);
	if (err)
		return refused(h, &call, q->qid == NVME_ADMIN_QUEUE ? "the connection" : "an I/O queue");
	h->cntlid = q->qid == NVME_ADMIN_QUEUE ? (uint16_t)call.value : h->cntlid;
	return prove_if_need_be(q, (uint32_t)call.value);
}

static int open_and_connect(struct nvme_queue *q, uint32_t depth, uint16_t cntlid)
{
	struct nvme_host *h = q->host;
	int err = nvme_queue_open(q, depth, h->make_limit.deadline_ns);
	if (err) {
		nvme_host_lose(h, err, "queue %u: no connection: %s", q->qid, err_text(err));
		return err;
	}
	return fabrics_connect(q, depth, cntlid);
}

static int wait_until_ready(struct nvme_host *h)
{
	uint64_t csts = 0;
	for (;;) {
		int err = property_get(h, NVME_PROPERTY_CSTS, false, &csts);
		if (err)
			return err;
		if (csts & NVME_CSTS_CFS) {
			nvme_host_lose(h, OXE_FAILED, "the controller says that it has failed");
			return OXE_FAILED;
		}
		if (csts & NVME_CSTS_RDY)
			return 0;
		fiber_sleep(READY_PAUSE_NS);
	}
}

static int enable(struct nvme_host *h)
{
	uint64_t cap = 0;
	int err = property_get(h, NVME_PROPERTY_CAP, true, &cap);
	if (err)
		return err;
	h->limits.entries_max = NVME_CAP_MQES_ENTRIES(cap);
	uint32_t css = cap & NVME_CAP_CSS_CSI ? NVME_CC_CSS_CSI : NVME_CC_CSS_NVM;
	err = property_set(h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES | css << 4);
	return err ? err : wait_until_ready(h);
}

/* ---- identifying ------------------------------------------------------------------------------------------------------------ */

static uint64_t shifted_limit(uint8_t shift, uint64_t fallback)
{
	return shift > 0 && shift < 32 ? (uint64_t)1 << (CONTROLLER_PAGE_SHIFT + shift) : fallback;
}

static int look_at_controller(struct nvme_host *h, void *page)
{
	const struct nvme_id_ctrl *id = page;
	struct nvme_host_limits *l = &h->limits;
	struct nvme_call call;
	if (identify(h, NVME_CNS_CONTROLLER, 0, page, &call))
		return refused(h, &call, "to identify itself");
	uint64_t capsule_bytes = (uint64_t)le32_get(id->ioccsz) * NVME_CAPSULE_UNIT;
	l->capsule_bytes = capsule_bytes > sizeof(struct nvme_sqe) && le16_get(id->icdoff) == 0 &&
					   !h->options.no_in_capsule
				   ? (uint32_t)u64_min(capsule_bytes - sizeof(struct nvme_sqe), MiB)
				   : 0;
	l->max_bytes = u64_min(shifted_limit(id->mdts, READ_CHUNK_BYTES), GiB);
	l->commands_max = le16_get(id->maxcmd);
	l->aborts_max = id->acl + 1u;
	l->has_namespace_events = le32_get(id->oaes) & NVME_OAES_NAMESPACE;
	h->info.volatile_cache = id->vwc & NVME_VWC_PRESENT;
	uint16_t oncs = le16_get(id->oncs);
	h->info.has_compare = oncs & NVME_ONCS_COMPARE;
	h->info.has_trim = oncs & NVME_ONCS_DSM;
	h->info.has_zero = oncs & NVME_ONCS_WRITE_ZEROES;
	return 0;
}

/* Of zeroes and trims: older targets do not know the question, and then only the commands' own fields are a limit. */
static int look_at_command_set(struct nvme_host *h, void *page)
{
	const struct nvme_id_ctrl_nvm *id = page;
	struct nvme_call call;
	int err = identify(h, NVME_CNS_CSI_CONTROLLER, 0, page, &call);
	h->limits.zero_max_bytes = UINT64_MAX;
	h->limits.trim_blocks_max = UINT32_MAX;
	if (!err)
		h->limits.zero_max_bytes = shifted_limit(id->wzsl, UINT64_MAX);
	if (!err && le32_get(id->dmrsl) > 0)
		h->limits.trim_blocks_max = le32_get(id->dmrsl);
	return err == OXE_CLOSED ? err : 0;
}

static int wrong_namespace(struct nvme_host *h, int err, const char *what)
{
	nvme_host_lose(h, err, "the namespace cannot be used: %s", what);
	return err;
}

/* A size that grew is news; another identity behind the same name must never be written to. */
static int take_namespace(struct nvme_host *h, const struct nvme_id_ns *id, const struct uuid *uuid)
{
	const struct nvme_lba_format *format = &id->lbaf[(id->flbas & 0xf) | (id->flbas >> 1 & 0x30)];
	struct nvme_host_info *info = &h->info;
	uint64_t blocks = le64_get(id->nsze);
	if (format->data_shift < LBA_SHIFT_MIN || format->data_shift > LBA_SHIFT_MAX ||
	    le16_get(format->metadata_bytes) != 0 || id->dps & 7)
		return wrong_namespace(h, OXE_UNSUPPORTED, "its block format");
	uint32_t lba_bytes = 1u << format->data_shift;
	if (blocks == 0 || blocks > (uint64_t)INT64_MAX / lba_bytes)
		return wrong_namespace(h, OXE_NOENT, "there is none of this id, or its size cannot be");
	if (info->lba_bytes && (info->lba_bytes != lba_bytes || !uuid_equal(&info->uuid, uuid)))
		return wrong_namespace(h, OXE_EXISTS, "it is another one than before");
	info->size_bytes = blocks * lba_bytes;
	info->lba_bytes = lba_bytes;
	info->read_only = id->nsattr & NVME_NSATTR_READ_ONLY;
	info->uuid = *uuid;
	return 0;
}

/* The UUID among the descriptors; the NGUID in its place where there is none. */
static struct uuid find_uuid(const uint8_t *page, const struct nvme_id_ns *id)
{
	struct uuid uuid;
	memcpy(uuid.b, id->nguid, sizeof(uuid.b));
	for (size_t at = 0; at + sizeof(struct nvme_ns_descriptor) + sizeof(uuid) <= NVME_IDENTIFY_BYTES;) {
		const struct nvme_ns_descriptor *d = (const void *)(page + at);
		if (d->type == 0 || d->length == 0)
			break;
		if (d->type == NVME_NIDT_UUID && d->length == sizeof(uuid.b))
			memcpy(uuid.b, d + 1, sizeof(uuid.b));
		at += sizeof(*d) + d->length;
	}
	return uuid;
}

static int look_at_namespace(struct nvme_host *h, void *page)
{
	struct nvme_call call;
	struct nvme_id_ns id;
	if (identify(h, NVME_CNS_NAMESPACE, h->options.namespace_id, page, &call))
		return refused(h, &call, "to identify the namespace");
	memcpy(&id, page, sizeof(id));
	int err = identify(h, NVME_CNS_NAMESPACE_DESCRIPTORS, h->options.namespace_id, page, &call);
	if (err == OXE_CLOSED)
		return err;
	struct uuid uuid = find_uuid(page, &id);
	return take_namespace(h, &id, &uuid);
}

/* What there is of a copy its open says, and the target checks every range. */
static void take_copy(struct nvme_host *h)
{
	h->info.size_bytes = UINT64_MAX;
	h->info.lba_bytes = REPLICA_WIRE_LBA;
	h->limits.has_namespace_events = false;
}

static int look_at_all(struct nvme_host *h)
{
	void *page = mem_alloc(NVME_IDENTIFY_BYTES);
	int err = look_at_controller(h, page);
	if (!err)
		err = look_at_command_set(h, page);
	if (!err && h->options.is_copy)
		take_copy(h);
	else if (!err)
		err = look_at_namespace(h, page);
	free(page);
	return err;
}

/* Reading the log of changes is what lets the target tell of the next one. */
int nvme_host_look(struct nvme_host *h)
{
	void *page = mem_zalloc(NVME_IDENTIFY_BYTES);
	struct nvme_call call = {
		.sqe = {.opcode = NVME_ADMIN_GET_LOG_PAGE,
			.nsid = le32_of(NVME_NSID_ALL),
			.cdw10 = le32_of(NVME_LOG_CHANGED_NAMESPACES | (NVME_IDENTIFY_BYTES / 4 - 1) << 16)},
		.data = page,
		.len_bytes = NVME_IDENTIFY_BYTES,
		.way = NVME_WAY_IN,
		.timeout_ns = h->options.command_timeout_ns,
	};
	int err = nvme_queue_call(&h->admin, &call);
	if (err != OXE_CLOSED)
		err = look_at_namespace(h, page);
	free(page);
	return err;
}

/* ---- events ------------------------------------------------------------------------------------------------------------------- */

static void event_done(struct nvme_call *call)
{
	struct nvme_host *h = call->host;
	if (call->result)
		return; /* the target wants none, or is gone */
	h->wants_look = true;
	nvme_host_watch(h, 0);
}

void nvme_host_listen(struct nvme_host *h)
{
	if (h->event.is_busy || !nvme_queue_has_room(&h->admin) || !h->limits.has_namespace_events)
		return;
	h->event =
		(struct nvme_call){.sqe = {.opcode = NVME_ADMIN_ASYNC_EVENT}, .done = event_done, .host = h};
	nvme_queue_start_call(&h->admin, &h->event);
}

static int ask_for_events(struct nvme_host *h)
{
	struct nvme_call call = {.sqe = {.opcode = NVME_ADMIN_SET_FEATURES,
					 .cdw10 = le32_of(NVME_FEATURE_EVENTS),
					 .cdw11 = le32_of(NVME_OAES_NAMESPACE)}};
	int err = h->limits.has_namespace_events ? admin_call(h, &call) : 0;
	h->limits.has_namespace_events &= err == 0;
	return err == OXE_CLOSED ? err : 0;
}

/* ---- queues ------------------------------------------------------------------------------------------------------------------- */

/* Both numbers go and come less one: submission queues, and completion queues << 16. */
static int agree_on_queues(struct nvme_host *h)
{
	uint32_t wanted = h->options.queues - 1;
	struct nvme_call call = {.sqe = {.opcode = NVME_ADMIN_SET_FEATURES,
					 .cdw10 = le32_of(NVME_FEATURE_QUEUES),
					 .cdw11 = le32_of(wanted | wanted << 16)}};
	if (admin_call(h, &call))
		return refused(h, &call, "to have I/O queues");
	uint64_t granted = u64_min(call.value & 0xffff, call.value >> 16 & 0xffff) + 1;
	h->queue_count = h->info.queues = (uint32_t)u64_min(granted, h->options.queues);
	uint64_t depth = u64_min(h->options.queue_depth, h->limits.entries_max - 1);
	if (h->limits.commands_max)
		depth = u64_min(depth, h->limits.commands_max);
	h->info.queue_depth = (uint32_t)u64_max(depth, 1);
	return 0;
}

static int connect_queues(struct nvme_host *h)
{
	int err = agree_on_queues(h);
	for (uint32_t i = 0; !err && i < h->queue_count; i++)
		err = open_and_connect(&h->queues[i], h->info.queue_depth, h->cntlid);
	return err;
}

int nvme_host_make(struct nvme_host *h)
{
	int err = open_and_connect(&h->admin, NVME_HOST_ADMIN_DEPTH, NVME_CNTLID_ANY);
	if (!err)
		err = enable(h);
	if (!err)
		err = look_at_all(h);
	if (!err)
		err = connect_queues(h);
	if (!err)
		err = ask_for_events(h);
	return err;
}
