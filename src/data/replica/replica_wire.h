/*
 * replica_wire.h: a copy's verbs as NVMe commands, byte by byte (docs/protocol.md tells what they mean). Little-endian.
 *
 * Every verb is an I/O command of namespace 1. Those of NVMe itself read and write the session's head, in blocks of REPLICA_WIRE_LBA
 * whatever the volume's are; the others are vendor specific, their arguments where NVMe leaves room for such: an id in dwords 10-13,
 * a number in dwords 14-15, a second id in dwords 2-5. The two low bits of an opcode say which way its data goes, as NVMe wants it,
 * and the data is as long as the SGL says.
 *
 * An error is status code type 7h with the number of an OXE_ code (err.h).
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_WIRE_H
#define OXBOW_DATA_REPLICA_REPLICA_WIRE_H

#include "data/nvme/nvme_format.h"
#include "data/replica/replica.h"

/* Another major is refused by open. A higher minor has more verbs, or fields in what was reserved. */
#define REPLICA_WIRE_MAJOR 1u
#define REPLICA_WIRE_MINOR 0u

#define REPLICA_WIRE_LBA 512u

/* What each takes and answers is a table of docs/protocol.md. */
enum replica_wire_opcode {
	REPLICA_WIRE_PING = 0x80,
	REPLICA_WIRE_CREATE = 0x81,
	REPLICA_WIRE_OPEN = 0x82,
	REPLICA_WIRE_LAYER_DELETE = 0x84,
	REPLICA_WIRE_INTENTS_SET = 0x85,
	REPLICA_WIRE_LAYERS = 0x86,
	REPLICA_WIRE_REVERT = 0x88,
	REPLICA_WIRE_SEAL = 0x89,
	REPLICA_WIRE_LAYER_READ = 0x8a,
	REPLICA_WIRE_GROW = 0x8c,
	REPLICA_WIRE_LAYER_RENAME = 0x8d,
	REPLICA_WIRE_EXTENTS = 0x8e,
	REPLICA_WIRE_JOIN_BEGIN = 0x90,
	REPLICA_WIRE_FILL = 0x91,
	REPLICA_WIRE_CHECKSUMS = 0x92,
	REPLICA_WIRE_FILL_ZEROES = 0x94,
	REPLICA_WIRE_FILL_SEAL = 0x95,
	REPLICA_WIRE_FILL_GROW = 0x98,
	REPLICA_WIRE_JOIN_END = 0x9c,
	REPLICA_WIRE_MADE_GOOD = 0xa0,
};

struct replica_wire_version {
	le16 major, minor;
	uint8_t reserved[12];
};

/* A submission queue entry as these commands lay it out. */
struct replica_wire_sqe {
	uint8_t opcode, flags;
	le16 cid;
	le32 nsid;
	union { /* dwords 2-5 */
		uint8_t other_id[16];
		struct replica_wire_version version;
		le64 len_bytes;
	};
	struct nvme_sgl sgl;
	uint8_t id[16]; /* dwords 10-13 */
	le64 value;	/* dwords 14-15 */
};
static_assert(sizeof(struct replica_wire_version) == 16 &&
		      sizeof(struct replica_wire_sqe) == sizeof(struct nvme_sqe) &&
		      offsetof(struct replica_wire_sqe, other_id) == offsetof(struct nvme_sqe, cdw2) &&
		      offsetof(struct replica_wire_sqe, sgl) == offsetof(struct nvme_sqe, sgl) &&
		      offsetof(struct replica_wire_sqe, id) == offsetof(struct nvme_sqe, cdw10) &&
		      offsetof(struct replica_wire_sqe, value) == offsetof(struct nvme_sqe, cdw14),
	      "a vendor command's entry");

/* Where extents are asked for: the first sector, and in the high bits how many sectors less one. */
#define REPLICA_WIRE_SECTOR_BITS 38
#define REPLICA_WIRE_RANGE_MAX	 ((uint64_t)REPLICA_WIRE_LBA << (64 - REPLICA_WIRE_SECTOR_BITS))
#define REPLICA_WIRE_EXTENTS_MAX 1024u	    /* in one command */
#define REPLICA_WIRE_CHECKED_MAX (32 * MiB) /* summed by one command */
static_assert((uint64_t)REPLICA_WIRE_LBA << REPLICA_WIRE_SECTOR_BITS == VOLUME_SIZE_MAX,
	      "every sector has a number");

static inline uint64_t replica_wire_range(uint64_t offset_bytes, uint64_t len_bytes)
{
	return offset_bytes / REPLICA_WIRE_LBA | (len_bytes / REPLICA_WIRE_LBA - 1)
							 << REPLICA_WIRE_SECTOR_BITS;
}

enum {
	REPLICA_WIRE_EXISTS = 0x01,
	REPLICA_WIRE_JOINING = 0x02,
	REPLICA_WIRE_FILL_BEGUN = 0x04,
};

struct replica_wire_state {
	le16 major, minor; /* what the server speaks */
	uint8_t flags, reserved_5[3];
	le64 epoch_before, size_bytes;
	le32 lba_bytes;
	uint8_t reserved_28[4];
	uint8_t boot_id[16], join_id[16];
	struct replica_regions intents, may_lack;
};
static_assert(sizeof(struct replica_wire_state) == 4160 &&
		      offsetof(struct replica_wire_state, epoch_before) == 8 &&
		      offsetof(struct replica_wire_state, lba_bytes) == 24 &&
		      offsetof(struct replica_wire_state, boot_id) == 32 &&
		      offsetof(struct replica_wire_state, intents) == 64,
	      "what a copy says of itself");

struct replica_wire_name { /* padded with zeroes; the last byte is one */
	char name[POOL_NAME_MAX + 1];
};

struct replica_wire_spec {
	uint8_t id[16];
	struct replica_wire_name name;
	le64 size_bytes;
	le32 lba_bytes;
	uint8_t reserved[4];
};

enum { REPLICA_WIRE_ORIGINS = 0x01 };

struct replica_wire_layer {
	uint8_t id[16];
	struct replica_wire_name name;
	le64 size_bytes;
	uint8_t flags, reserved[7];
};

struct replica_wire_extent {
	le64 offset_bytes, len_bytes;
	le32 flags; /* VOL_EXTENT_* */
	uint8_t reserved[4];
};

static_assert(sizeof(struct replica_wire_name) == 64 && sizeof(struct replica_wire_spec) == 96 &&
		      sizeof(struct replica_wire_layer) == 96 && sizeof(struct replica_wire_extent) == 24 &&
		      sizeof(struct replica_regions) == 2048,
	      "what goes with a verb");
static_assert(VOL_EXTENT_HOLE == 1 && VOL_EXTENT_ZERO == 2 && VOL_EXTENT_CHANGED == 4,
	      "they cross as they are");

/* ---- errors ---------------------------------------------------------------------------------------------------------- */

#define REPLICA_WIRE_STATUS                                                                                  \
	0x700u /* status code type 7h; the low byte is the number in err.h's list, from 1 */
#define REPLICA_WIRE_STATUS_TYPE 0x700u

static_assert(OX_ERR_END - OX_ERR_BASE <= 0xff, "every error has a status");

static inline uint16_t replica_wire_status_of(int err)
{
	assert(err > OX_ERR_BASE && err < OX_ERR_END);
	return (uint16_t)(NVME_STATUS_DNR | REPLICA_WIRE_STATUS | (unsigned)(err - OX_ERR_BASE));
}

static inline bool replica_wire_status_is_ours(uint16_t status)
{
	return (status & REPLICA_WIRE_STATUS_TYPE) == REPLICA_WIRE_STATUS;
}

/* OXE_PROTO: a number that this program does not know. */
static inline int replica_wire_error_of(uint16_t status)
{
	int err = OX_ERR_BASE + (status & 0xff);
	return err > OX_ERR_BASE && err < OX_ERR_END ? err : OXE_PROTO;
}

#endif
