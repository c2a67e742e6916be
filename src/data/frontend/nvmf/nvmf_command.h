/*
 * nvmf_command.h: what a submission queue entry says, and whether it may be carried out. Pure functions over bytes from
 * outside: a status (nvme_format.h), and the command in the engine's words.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_COMMAND_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_COMMAND_H

#include "data/nvme/nvme_format.h"

#define NVMF_MDTS_SHIFT	   8 /* in pages of 4 KiB: 1 MiB */
#define NVMF_DATA_MAX	   ((uint32_t)(4096u << NVMF_MDTS_SHIFT))
#define NVMF_CAPSULE_MAX   8192u /* data in a command capsule */
#define NVMF_LOG_BYTES_MAX NVMF_DATA_MAX

enum nvmf_data { NVMF_NO_DATA, NVMF_DATA_TO_CONTROLLER, NVMF_DATA_TO_HOST };

struct nvmf_command {
	enum nvmf_data data;
	uint32_t data_bytes;
	bool in_capsule;		  /* the data came with the command, */
	uint32_t capsule_offset;	  /* from here on */
	uint64_t offset_bytes, len_bytes; /* of the volume */
	bool fua, deallocate;
};

/* What a command is measured against. */
struct nvmf_bounds {
	uint64_t size_bytes;
	uint32_t lba_bytes;
	bool read_only;
	uint32_t capsule_bytes; /* how much data came with the command */
};

/* Of an I/O queue; of an admin queue; of either, Fabrics. Return 0 or a status, with NVME_STATUS_DNR where it will not pass the next
 * time either. */
OX_CHECKED uint16_t nvmf_io_decode(const struct nvme_sqe *e, const struct nvmf_bounds *b,
				   struct nvmf_command *out);
OX_CHECKED uint16_t nvmf_admin_decode(const struct nvme_sqe *e, uint32_t capsule_bytes,
				      struct nvmf_command *out);
OX_CHECKED uint16_t nvmf_fabrics_decode(const struct nvme_sqe *e, uint32_t capsule_bytes,
					struct nvmf_command *out);
/* An I/O command of a foreign subsystem: its data goes as its opcode says. */
OX_CHECKED uint16_t nvmf_foreign_decode(const struct nvme_sqe *e, uint32_t capsule_bytes,
					struct nvmf_command *out);
/* One range of a DATASET MANAGEMENT command; a status. */
OX_CHECKED uint16_t nvmf_range_decode(const struct nvme_dsm_range *w, const struct nvmf_bounds *b,
				      uint64_t *offset_bytes, uint64_t *len_bytes);

static inline uint8_t nvmf_fuse(const struct nvme_sqe *e)
{
	return e->flags & NVME_SQE_FUSE_MASK;
}

/* The status for an OXE_ code of a reading (else: writing) call. */
uint16_t nvmf_status_of(int err, bool is_read);

#endif
