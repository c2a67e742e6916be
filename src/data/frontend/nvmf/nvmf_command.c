/* nvmf_command.c: see nvmf_command.h. */
#include "data/frontend/nvmf/nvmf_command.h"

#include "base/err.h"
#include "data/frontend/nvmf/nvmf_reservation.h"
#include "data/nvme/nvme_auth_format.h"

#define NVMF_KEYS_MAX	 4096u
#define NO_RETRY(status) ((uint16_t)((status) | NVME_STATUS_DNR))

/* ---- where the data is ------------------------------------------------------------------------------------------------- */

static uint16_t take_capsule_data(const struct nvme_sqe *e, uint32_t capsule_bytes, struct nvmf_command *out)
{
	uint64_t offset = le64_get(e->sgl.address);
	if (offset > capsule_bytes || out->data_bytes > capsule_bytes - offset)
		return NO_RETRY(NVME_STATUS_SGL_OFFSET_INVALID);
	out->in_capsule = true;
	out->capsule_offset = (uint32_t)offset;
	return 0;
}

/* The descriptor of a command that moves out->data_bytes one way. */
static uint16_t check_sgl(const struct nvme_sqe *e, uint32_t capsule_bytes, struct nvmf_command *out)
{
	if (out->data == NVMF_NO_DATA || out->data_bytes == 0) {
		out->data = NVMF_NO_DATA;
		return 0;
	}
	if ((e->flags & NVME_SQE_PSDT_MASK) != NVME_SQE_PSDT_SGL)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	if (out->data_bytes > NVMF_DATA_MAX)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	if (le32_get(e->sgl.length) != out->data_bytes)
		return NO_RETRY(NVME_STATUS_SGL_LENGTH_INVALID);
	if (e->sgl.identifier == NVME_SGL_INCAPSULE && out->data == NVMF_DATA_TO_CONTROLLER)
		return take_capsule_data(e, capsule_bytes, out);
	return e->sgl.identifier == NVME_SGL_TRANSPORT ? 0 : NO_RETRY(NVME_STATUS_SGL_TYPE_INVALID);
}

/* ---- I/O ----------------------------------------------------------------------------------------------------------------- */

struct io_rule {
	bool known, changes, has_range, may_fuse;
	enum nvmf_data data;
};

static const struct io_rule io_rules[] = {
	/*                            known  changes range  fuse   data */
	[NVME_IO_FLUSH] = {true, false, false, false, NVMF_NO_DATA},
	[NVME_IO_WRITE] = {true, true, true, true, NVMF_DATA_TO_CONTROLLER},
	[NVME_IO_READ] = {true, false, true, false, NVMF_DATA_TO_HOST},
	[NVME_IO_COMPARE] = {true, false, true, true, NVMF_DATA_TO_CONTROLLER},
	[NVME_IO_WRITE_ZEROES] = {true, true, true, false, NVMF_NO_DATA},
	[NVME_IO_DATASET_MANAGEMENT] = {true, true, false, false, NVMF_DATA_TO_CONTROLLER},
	[NVME_IO_VERIFY] = {true, false, true, false, NVMF_NO_DATA},
	[NVME_IO_RESERVATION_REGISTER] = {true, false, false, false, NVMF_DATA_TO_CONTROLLER},
	[NVME_IO_RESERVATION_REPORT] = {true, false, false, false, NVMF_DATA_TO_HOST},
	[NVME_IO_RESERVATION_ACQUIRE] = {true, false, false, false, NVMF_DATA_TO_CONTROLLER},
	[NVME_IO_RESERVATION_RELEASE] = {true, false, false, false, NVMF_DATA_TO_CONTROLLER},
};

static uint16_t check_range(uint64_t lba, uint64_t blocks, const struct nvmf_bounds *b,
			    uint64_t *offset_bytes, uint64_t *len_bytes)
{
	uint64_t volume_blocks = b->size_bytes / b->lba_bytes;
	if (lba > volume_blocks || blocks > volume_blocks - lba)
		return NO_RETRY(NVME_STATUS_LBA_RANGE);
	*offset_bytes = lba * b->lba_bytes;
	*len_bytes = blocks * b->lba_bytes;
	return 0;
}

uint16_t nvmf_range_decode(const struct nvme_dsm_range *w, const struct nvmf_bounds *b,
			   uint64_t *offset_bytes, uint64_t *len_bytes)
{
	return check_range(le64_get(w->lba), le32_get(w->blocks), b, offset_bytes, len_bytes);
}

static uint16_t decode_range(const struct nvme_sqe *e, const struct nvmf_bounds *b, struct nvmf_command *out)
{
	uint32_t cdw12 = le32_get(e->cdw12);
	uint16_t status =
		check_range(nvme_rw_lba(e), nvme_rw_blocks(e), b, &out->offset_bytes, &out->len_bytes);
	if (status)
		return status;
	if (cdw12 & NVME_RW_PRINFO_MASK) /* there is no protection information */
		return NO_RETRY(NVME_STATUS_INVALID_PROTECTION);
	out->fua = cdw12 & NVME_RW_FUA;
	out->deallocate = cdw12 & NVME_RW_DEALLOCATE;
	if (out->data != NVMF_NO_DATA && out->len_bytes > NVMF_DATA_MAX)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	out->data_bytes = out->data == NVMF_NO_DATA ? 0 : (uint32_t)out->len_bytes;
	return 0;
}

/* Linux sends a whole page of them, whatever their number. */
static uint16_t decode_ranges(const struct nvme_sqe *e, struct nvmf_command *out)
{
	uint32_t need = ((le32_get(e->cdw10) & 0xff) + 1) * (uint32_t)sizeof(struct nvme_dsm_range);
	uint32_t length = le32_get(e->sgl.length);
	if (length < need || length > NVME_DSM_RANGES_MAX * sizeof(struct nvme_dsm_range) || length % 4)
		return NO_RETRY(NVME_STATUS_SGL_LENGTH_INVALID);
	out->data_bytes = length;
	return 0;
}

/* Keys, and what older Linux sends after them: it has one size for all three commands. */
static uint16_t decode_keys(const struct nvme_sqe *e, struct nvmf_command *out)
{
	uint32_t length = le32_get(e->sgl.length);
	if (length < nvmf_reservation_key_bytes(e->opcode) || length > NVMF_KEYS_MAX || length % 4)
		return NO_RETRY(NVME_STATUS_SGL_LENGTH_INVALID);
	out->data_bytes = length;
	return 0;
}

static uint16_t decode_report(const struct nvme_sqe *e, struct nvmf_command *out)
{
	uint32_t dwords = le32_get(e->cdw10);
	if (dwords >= NVMF_DATA_MAX / 4)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	out->data_bytes = (dwords + 1) * 4;
	return 0;
}

/* The length of the data of what has no range. */
static uint16_t decode_rest(const struct nvme_sqe *e, struct nvmf_command *out)
{
	switch (e->opcode) {
	case NVME_IO_DATASET_MANAGEMENT:
		return decode_ranges(e, out);
	case NVME_IO_RESERVATION_REGISTER:
	case NVME_IO_RESERVATION_ACQUIRE:
	case NVME_IO_RESERVATION_RELEASE:
		return decode_keys(e, out);
	case NVME_IO_RESERVATION_REPORT:
		return decode_report(e, out);
	default:
		return 0;
	}
}

static uint16_t check_namespace(const struct nvme_sqe *e)
{
	uint32_t nsid = le32_get(e->nsid);
	if (nsid == 1 || (nsid == NVME_NSID_ALL && e->opcode == NVME_IO_FLUSH))
		return 0;
	return NO_RETRY(NVME_STATUS_INVALID_NAMESPACE);
}

uint16_t nvmf_io_decode(const struct nvme_sqe *e, const struct nvmf_bounds *b, struct nvmf_command *out)
{
	*out = (struct nvmf_command){0};
	const struct io_rule *rule =
		e->opcode < ARRAY_COUNT(io_rules) ? &io_rules[e->opcode] : &(struct io_rule){0};
	if (!rule->known)
		return NO_RETRY(NVME_STATUS_INVALID_OPCODE);
	uint16_t status = check_namespace(e);
	if (status)
		return status;
	if (nvmf_fuse(e) && !rule->may_fuse)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	if (rule->changes && b->read_only)
		return NO_RETRY(NVME_STATUS_WRITE_PROTECTED);
	out->data = rule->data;
	status = rule->has_range ? decode_range(e, b, out) : decode_rest(e, out);
	return status ? status : check_sgl(e, b->capsule_bytes, out);
}

uint16_t nvmf_foreign_decode(const struct nvme_sqe *e, uint32_t capsule_bytes, struct nvmf_command *out)
{
	uint8_t way = e->opcode & (NVME_OPCODE_DATA_TO_CONTROLLER | NVME_OPCODE_DATA_TO_HOST);
	*out = (struct nvmf_command){0};
	if (nvmf_fuse(e) || way == (NVME_OPCODE_DATA_TO_CONTROLLER | NVME_OPCODE_DATA_TO_HOST))
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	if (way == 0)
		return 0;
	out->data = way == NVME_OPCODE_DATA_TO_HOST ? NVMF_DATA_TO_HOST : NVMF_DATA_TO_CONTROLLER;
	out->data_bytes = le32_get(e->sgl.length);
	if (out->data_bytes % 4)
		return NO_RETRY(NVME_STATUS_SGL_LENGTH_INVALID);
	return check_sgl(e, capsule_bytes, out);
}

/* ---- admin --------------------------------------------------------------------------------------------------------------- */

static uint16_t decode_log_page(const struct nvme_sqe *e, struct nvmf_command *out)
{
	uint64_t dwords = (le32_get(e->cdw10) >> 16 | (uint64_t)(le32_get(e->cdw11) & 0xffff) << 16) + 1;
	if (dwords > NVMF_LOG_BYTES_MAX / 4)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	out->data = NVMF_DATA_TO_HOST;
	out->data_bytes = (uint32_t)dwords * 4;
	return 0;
}

/* The few features with data; no host has to ask for them. */
static void decode_feature(const struct nvme_sqe *e, enum nvmf_data data, struct nvmf_command *out)
{
	uint8_t feature = le32_get(e->cdw10) & 0xff;
	if (data == NVMF_DATA_TO_HOST && NVME_FEATURE_SELECT(le32_get(e->cdw10)) == NVME_SELECT_CAPABILITIES)
		return;
	if (feature == NVME_FEATURE_HOST_BEHAVIOR)
		out->data_bytes = sizeof(struct nvme_host_behavior);
	else if (feature == NVME_FEATURE_HOST_ID && data == NVMF_DATA_TO_HOST)
		out->data_bytes = le32_get(e->cdw11) & 1 ? 16 : 8;
	out->data = data;
}

uint16_t nvmf_admin_decode(const struct nvme_sqe *e, uint32_t capsule_bytes, struct nvmf_command *out)
{
	uint16_t status = 0;
	*out = (struct nvmf_command){0};
	if (nvmf_fuse(e))
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	switch (e->opcode) {
	case NVME_ADMIN_IDENTIFY:
		out->data = NVMF_DATA_TO_HOST;
		out->data_bytes = NVME_IDENTIFY_BYTES;
		break;
	case NVME_ADMIN_GET_LOG_PAGE:
		status = decode_log_page(e, out);
		break;
	case NVME_ADMIN_SET_FEATURES:
		decode_feature(e, NVMF_DATA_TO_CONTROLLER, out);
		break;
	case NVME_ADMIN_GET_FEATURES:
		decode_feature(e, NVMF_DATA_TO_HOST, out);
		break;
	case NVME_ADMIN_ABORT:
	case NVME_ADMIN_ASYNC_EVENT:
	case NVME_ADMIN_KEEP_ALIVE:
		break;
	default:
		return NO_RETRY(NVME_STATUS_INVALID_OPCODE);
	}
	return status ? status : check_sgl(e, capsule_bytes, out);
}

static uint16_t decode_auth(const struct nvme_sqe *e, struct nvmf_command *out)
{
	const struct nvme_auth_command *w = (const void *)e;
	uint32_t length = le32_get(w->length);
	if (length == 0 || length > NVME_AUTH_BYTES_MAX || length % 4)
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	out->data = w->fctype == NVME_FABRICS_AUTH_SEND ? NVMF_DATA_TO_CONTROLLER : NVMF_DATA_TO_HOST;
	out->data_bytes = length;
	return 0;
}

uint16_t nvmf_fabrics_decode(const struct nvme_sqe *e, uint32_t capsule_bytes, struct nvmf_command *out)
{
	uint16_t status = 0;
	*out = (struct nvmf_command){0};
	if (nvmf_fuse(e))
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	switch (((const struct nvme_connect *)e)->fctype) {
	case NVME_FABRICS_CONNECT:
		out->data = NVMF_DATA_TO_CONTROLLER;
		out->data_bytes = sizeof(struct nvme_connect_data);
		break;
	case NVME_FABRICS_AUTH_SEND:
	case NVME_FABRICS_AUTH_RECEIVE:
		status = decode_auth(e, out);
		break;
	case NVME_FABRICS_PROPERTY_GET:
	case NVME_FABRICS_PROPERTY_SET:
	case NVME_FABRICS_DISCONNECT:
		break;
	default:
		return NO_RETRY(NVME_STATUS_INVALID_OPCODE);
	}
	return status ? status : check_sgl(e, capsule_bytes, out);
}

uint16_t nvmf_status_of(int err, bool is_read)
{
	switch (err) {
	case 0:
		return 0;
	case OXE_NOSPC:
		return NO_RETRY(NVME_STATUS_CAPACITY_EXCEEDED);
	case OXE_RANGE: /* it has shrunk: reverted */
		return NO_RETRY(NVME_STATUS_LBA_RANGE);
	case OXE_INVAL:
	case OXE_ALIGN:
	case OXE_TOOBIG:
		return NO_RETRY(NVME_STATUS_INVALID_FIELD);
	case OXE_ROFS:
	case OXE_PERM:
		return NO_RETRY(NVME_STATUS_WRITE_PROTECTED);
	case OXE_IO:
	case OXE_CORRUPT:
		return NO_RETRY(is_read ? NVME_STATUS_READ_ERROR : NVME_STATUS_WRITE_FAULT);
	default:
		return NVME_STATUS_INTERNAL;
	}
}
