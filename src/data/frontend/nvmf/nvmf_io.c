/*
 * nvmf_io.c: I/O commands, carried out by their own fibers.
 *
 * COMPARE fused with WRITE is one step to all hosts of the volume: while it is under way nothing else that changes its blocks
 * is. Everything that writes says which range it is at; a fused pair waits for those that overlap, and lets none follow.
 */
#include "data/frontend/nvmf/nvmf_conn.h"

#define VERIFY_STEP_BYTES ((uint64_t)(256 * KiB))

struct nvmf_bounds nvmf_bounds_of(const struct nvmf_conn *c, uint32_t capsule_bytes)
{
	const struct vol_info *info = engine_info(c->controller->engine);
	return (struct nvmf_bounds){
		.size_bytes = info->size_bytes,
		.lba_bytes = info->lba_bytes,
		.read_only = info->read_only,
		.capsule_bytes = capsule_bytes,
	};
}

/* ---- ranges -------------------------------------------------------------------------------------------------------------- */

static struct nvmf_subsystem *subsystem_of(const struct nvmf_request *r)
{
	return r->conn->controller->subsystem;
}

/* Does r overlap any of these, up to itself? */
static bool overlaps(const struct list *ranges, const struct nvmf_request *r)
{
	const struct nvmf_request *other;
	uint64_t start = r->command.offset_bytes, end = start + r->command.len_bytes;
	list_for_each (other, ranges, range_link) {
		if (other == r)
			return false;
		if (other->command.offset_bytes < end &&
		    other->command.offset_bytes + other->command.len_bytes > start)
			return true;
	}
	return false;
}

static void range_enter(struct nvmf_request *r)
{
	struct nvmf_subsystem *s = subsystem_of(r);
	while (unlikely(overlaps(&s->fused, r)))
		waitq_wait(&s->ranges);
	list_add_tail(&s->writes, &r->range_link);
}

static void range_enter_alone(struct nvmf_request *r)
{
	struct nvmf_subsystem *s = subsystem_of(r);
	list_add_tail(&s->fused, &r->range_link);
	while (overlaps(&s->fused, r) || overlaps(&s->writes, r))
		waitq_wait(&s->ranges);
}

static void range_leave(struct nvmf_request *r)
{
	struct nvmf_subsystem *s = subsystem_of(r);
	list_del(&r->range_link);
	if (unlikely(!waitq_empty(&s->ranges)))
		waitq_wake_all(&s->ranges);
}

/* ---- commands ------------------------------------------------------------------------------------------------------------- */

static struct engine *engine_of(const struct nvmf_request *r)
{
	return r->conn->controller->engine;
}

/* V11: a host that outlives our power loss would never learn that acknowledged writes are gone, and go on without them. So for
 * one that is not on this node there is no volatile cache: what is answered is durable. */
static unsigned fua_of(const struct nvmf_request *r)
{
	return r->command.fua || !r->conn->controller->is_near ? VOL_FUA : 0;
}

static int run_read(struct nvmf_request *r)
{
	const struct nvmf_command *c = &r->command;
	int err = c->fua ? engine_flush(engine_of(r)) : 0; /* what it reads is durable, then */
	if (err == 0)
		err = engine_read(engine_of(r), r->payload, c->offset_bytes, c->len_bytes);
	r->answer_bytes = c->data_bytes;
	return err;
}

static int write_payload(struct nvmf_request *r)
{
	const struct nvmf_command *c = &r->command;
	return engine_write(engine_of(r), r->payload, c->offset_bytes, c->len_bytes, fua_of(r));
}

static int run_write(struct nvmf_request *r)
{
	range_enter(r);
	int err = write_payload(r);
	range_leave(r);
	return err;
}

static int run_zero(struct nvmf_request *r)
{
	const struct nvmf_command *c = &r->command;
	range_enter(r);
	int err = engine_zero(engine_of(r), c->offset_bytes, c->len_bytes,
			      fua_of(r) | (c->deallocate ? 0 : VOL_NO_HOLE));
	range_leave(r);
	return err;
}

static int run_verify(struct nvmf_request *r)
{
	const struct nvmf_command *c = &r->command;
	uint64_t end = c->offset_bytes + c->len_bytes;
	int err = 0;
	for (uint64_t at = c->offset_bytes; err == 0 && at < end; at += VERIFY_STEP_BYTES)
		err = engine_read(engine_of(r), r->payload, at, u64_min(end - at, VERIFY_STEP_BYTES));
	return err;
}

static int compare(struct nvmf_request *r, uint16_t *status)
{
	const struct nvmf_command *c = &r->command;
	uint8_t *stored = (uint8_t *)r->payload + c->data_bytes;
	int err = engine_read(engine_of(r), stored, c->offset_bytes, c->len_bytes);
	if (err == 0 && memcmp(stored, r->payload, c->data_bytes) != 0)
		*status = NVME_STATUS_COMPARE_FAILURE | NVME_STATUS_DNR;
	return err;
}

static uint16_t check_trims(struct nvmf_request *r, uint32_t count)
{
	const struct nvme_dsm_range *ranges = r->payload;
	struct nvmf_bounds bounds = nvmf_bounds_of(r->conn, 0);
	uint64_t offset_bytes, len_bytes;
	uint16_t status = 0;
	for (uint32_t i = 0; status == 0 && i < count; i++)
		status = nvmf_range_decode(&ranges[i], &bounds, &offset_bytes, &len_bytes);
	r->command.offset_bytes = 0; /* in one go: ranges are many, and seldom compared with */
	r->command.len_bytes = bounds.size_bytes;
	return status;
}

static int run_trim(struct nvmf_request *r, uint16_t *status)
{
	const struct nvme_dsm_range *ranges = r->payload;
	struct nvmf_bounds bounds = nvmf_bounds_of(r->conn, 0);
	uint32_t count = (le32_get(r->sqe.cdw10) & 0xff) + 1;
	uint64_t offset_bytes, len_bytes;
	int err = 0;
	*status = check_trims(r, count);
	if (*status || !(le32_get(r->sqe.cdw11) & NVME_DSM_CDW11_DEALLOCATE))
		return 0; /* the rest are hints we have no use for */
	range_enter(r);
	for (uint32_t i = 0; err == 0 && i < count; i++)
		if (nvmf_range_decode(&ranges[i], &bounds, &offset_bytes, &len_bytes) == 0 && len_bytes > 0)
			err = engine_trim(engine_of(r), offset_bytes, len_bytes);
	if (err == 0 && fua_of(r))
		err = engine_flush(engine_of(r));
	range_leave(r);
	return err;
}

/* What touches data. */
static int run_on_data(struct nvmf_request *r, uint16_t *status)
{
	switch (r->sqe.opcode) {
	case NVME_IO_READ:
		return run_read(r);
	case NVME_IO_WRITE:
		return run_write(r);
	case NVME_IO_FLUSH:
		return engine_flush(engine_of(r));
	case NVME_IO_WRITE_ZEROES:
		return run_zero(r);
	case NVME_IO_DATASET_MANAGEMENT:
		return run_trim(r, status);
	case NVME_IO_COMPARE:
		return compare(r, status);
	case NVME_IO_VERIFY:
		return run_verify(r);
	default: /* the decoder lets no other pass */
		abort();
	}
}

static bool is_about_reservations(const struct nvmf_request *r)
{
	uint8_t opcode = r->sqe.opcode;
	return opcode == NVME_IO_RESERVATION_REGISTER || opcode == NVME_IO_RESERVATION_REPORT ||
	       opcode == NVME_IO_RESERVATION_ACQUIRE || opcode == NVME_IO_RESERVATION_RELEASE;
}

static int run_command(struct nvmf_request *r, uint16_t *status)
{
	int err = 0;
	if (unlikely(is_about_reservations(r)))
		return nvmf_fence_run(r, status);
	if (r->sqe.opcode == NVME_IO_VERIFY) /* what is inside waits for no memory that hosts hold */
		err = nvmf_payload_get(r, u64_min(r->command.len_bytes, VERIFY_STEP_BYTES));
	if (err)
		return err;
	if (!nvmf_fence_enter(r)) {
		*status = NVME_STATUS_RESERVATION_CONFLICT | NVME_STATUS_DNR;
		return 0;
	}
	err = run_on_data(r, status);
	nvmf_fence_leave(r);
	return err;
}

static const char *why_lost(int err)
{
	switch (err) {
	case OXE_FENCED:
		return "a newer engine has its volume";
	case OXE_SHUTDOWN:
		return "its volume is not served any more";
	default:
		return "its pool failed";
	}
}

/* A pool that failed will be opened again, and a volume that has gone elsewhere is served there. Neither has acknowledged anything: the
 * host waits, connects, and sends it again. An error would be the end of its file system. */
static uint16_t status_of(struct nvmf_request *r, int err)
{
	if (engine_is_lost(err))
		nvmf_controller_end(r->conn->controller, why_lost(err));
	return nvmf_status_of(err, r->sqe.opcode == NVME_IO_READ || r->sqe.opcode == NVME_IO_COMPARE ||
					   r->sqe.opcode == NVME_IO_VERIFY);
}

/* ---- compare and write ---------------------------------------------------------------------------------------------------- */

static uint16_t check_pair(const struct nvmf_request *first, const struct nvmf_request *second)
{
	const struct nvmf_command *a = &first->command, *b = &second->command;
	if (first->sqe.opcode != NVME_IO_COMPARE || second->sqe.opcode != NVME_IO_WRITE)
		return NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR;
	if (a->offset_bytes != b->offset_bytes || a->len_bytes != b->len_bytes)
		return NVME_STATUS_INVALID_FIELD | NVME_STATUS_DNR;
	return a->data_bytes > NVMF_CAPSULE_MAX ? NVME_STATUS_ATOMIC_UNIT | NVME_STATUS_DNR : 0;
}

/* Both have their memory at once, beyond the budget if need be: they are small, and one may not wait while the other holds some. */
static int prepare_pair(struct nvmf_request *first, struct nvmf_request *second)
{
	if (!first->payload)
		nvmf_payload_get_capsule(first, nvmf_payload_need(first));
	if (!second->payload)
		nvmf_payload_get_capsule(second, nvmf_payload_need(second));
	int err = nvmf_fetch_data(first);
	return err ? err : nvmf_fetch_data(second);
}

/* Leaves each one's status: of the one that failed its own, of the other that its companion did. */
static void run_pair(struct nvmf_request *first, struct nvmf_request *second)
{
	uint16_t status = 0;
	if (!nvmf_fence_enter(second)) { /* whoever may write may read */
		second->status = NVME_STATUS_RESERVATION_CONFLICT | NVME_STATUS_DNR;
		first->status = NVME_STATUS_FUSED_FAILED | NVME_STATUS_DNR;
		return;
	}
	range_enter_alone(second);
	int err = compare(first, &status);
	if (err || status) {
		first->status = err ? status_of(first, err) : status;
		second->status = NVME_STATUS_FUSED_FAILED | NVME_STATUS_DNR;
	} else if ((err = write_payload(second)) != 0) {
		second->status = status_of(second, err);
		first->status = NVME_STATUS_FUSED_FAILED | NVME_STATUS_DNR;
	}
	range_leave(second);
	nvmf_fence_leave(second);
}

/* What keeps the pair from being tried. */
static void refuse_pair(struct nvmf_request *first, struct nvmf_request *second)
{
	if (first->status == 0 && second->status == 0)
		first->status = check_pair(first, second);
	if (first->status)
		second->status = NVME_STATUS_FUSED_FAILED | NVME_STATUS_DNR;
	else if (second->status)
		first->status = NVME_STATUS_FUSED_FAILED | NVME_STATUS_DNR;
}

void nvmf_pair_run(struct nvmf_request *second)
{
	struct nvmf_request *first = second->fused;
	refuse_pair(first, second);
	if (first->status == 0 && prepare_pair(first, second)) {
		nvmf_request_free(first);
		nvmf_request_free(second);
		return;
	}
	if (first->status == 0 && (first->data_is_bad || second->data_is_bad))
		first->status = second->status = NVME_STATUS_TRANSIENT_TRANSPORT;
	if (first->status == 0)
		run_pair(first, second);
	nvmf_answer(first, first->status);
	nvmf_answer(second, second->status);
}

uint16_t nvmf_io_run(struct nvmf_request *r)
{
	uint16_t status = 0;
	int err = run_command(r, &status);
	return err ? status_of(r, err) : status;
}
