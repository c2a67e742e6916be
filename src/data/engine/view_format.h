/*
 * view_format.h: a view in bytes: a head, then a replica each, then what each missed, for those that missed anything.
 *
 *     head | revert | replica 0 | replica 1 ... | regions of the first with `has_missed` | of the second ...
 *
 * `revert` is there if its flag is set. Version 1 knew no revert; a view that has none is still written as one of that version.
 */
#ifndef OXBOW_DATA_ENGINE_VIEW_FORMAT_H
#define OXBOW_DATA_ENGINE_VIEW_FORMAT_H

#include "base/bytes.h"
#include "data/engine/view.h"

#define VIEW_MAGIC	   0x5642584fu /* "OXBV" */
#define VIEW_VERSION	   2u
#define VIEW_VERSION_FIRST 1u

enum { VIEW_FLAG_MUST_WAIT = 1, VIEW_FLAG_REVERT = 2 /* version 2 */ };

struct view_head_disk {
	le32 crc; /* CRC-32C of all bytes, with this field zero */
	le32 magic;
	le32 version;
	le32 flags;
	uint8_t volume_id[16];
	uint8_t engine_id[16];
	le64 epoch;
	le32 seal_count;
	le32 replica_count;
	uint8_t seals[VIEW_SEALS_MAX][16]; /* unused ones zero */
};
static_assert(sizeof(struct view_head_disk) == 64 + 16 * VIEW_SEALS_MAX, "layout");

struct view_revert_disk {
	uint8_t layer_id[16]; /* zero: none is under way */
	uint8_t head_id[16];
};
static_assert(sizeof(struct view_revert_disk) == 32, "layout");

struct view_replica_disk {
	uint8_t pool_id[16];
	uint8_t seal_id[16];
	uint8_t join_id[16];
	le32 role;
	uint8_t missed_shift;
	uint8_t has_missed; /* 0 or 1 */
	uint8_t pad[2];	    /* zero */
};
static_assert(sizeof(struct view_replica_disk) == 56, "layout");
static_assert(sizeof(struct view_head_disk) + sizeof(struct view_revert_disk) +
			      VIEW_REPLICAS_MAX * (sizeof(struct view_replica_disk) + REPLICA_REGIONS / 8) <=
		      VIEW_BYTES_MAX,
	      "the largest view fits");

#endif
