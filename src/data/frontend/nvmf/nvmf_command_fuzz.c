/*
 * nvmf_command_fuzz.c: any submission queue entry against any volume: what is accepted lies inside the volume and the limits.
 * Byte 0: which decoder and how large the blocks are; 1-2: how much data came with it; 3: the volume's size in MiB; then the entry.
 */
#include "data/frontend/nvmf/nvmf_command.h"

#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct nvmf_command *c, const struct nvmf_bounds *b)
{
	assert(c->data_bytes <= NVMF_DATA_MAX && c->data_bytes % 4 == 0);
	assert(c->offset_bytes <= b->size_bytes && c->len_bytes <= b->size_bytes - c->offset_bytes);
	assert(c->offset_bytes % b->lba_bytes == 0 && c->len_bytes % b->lba_bytes == 0);
	assert(!c->in_capsule || c->capsule_offset + (uint64_t)c->data_bytes <= b->capsule_bytes);
	assert(!c->in_capsule || c->data == NVMF_DATA_TO_CONTROLLER);
}

static void try_range(const struct nvme_sqe *sqe, const struct nvmf_bounds *b)
{
	uint64_t offset_bytes, len_bytes;
	if (nvmf_range_decode((const void *)&sqe->sgl, b, &offset_bytes, &len_bytes) == 0)
		assert(offset_bytes <= b->size_bytes && len_bytes <= b->size_bytes - offset_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvme_sqe sqe = {0};
	struct nvmf_command c;
	if (size < 4)
		return 0;
	struct nvmf_bounds b = {.size_bytes = (data[3] + 1) * MiB,
				.lba_bytes = data[0] & 4 ? 4096 : 512,
				.read_only = data[0] & 8,
				.capsule_bytes = (data[1] | data[2] << 8u) % (NVMF_CAPSULE_MAX + 1)};
	memcpy(&sqe, data + 4, u64_min(size - 4, sizeof(sqe)));
	uint16_t status = data[0] % 3 == 0   ? nvmf_io_decode(&sqe, &b, &c)
			  : data[0] % 3 == 1 ? nvmf_admin_decode(&sqe, b.capsule_bytes, &c)
					     : nvmf_fabrics_decode(&sqe, b.capsule_bytes, &c);
	if (status == 0)
		check_accepted(&c, &b);
	try_range(&sqe, &b);
	return 0;
}
