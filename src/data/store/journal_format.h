/*
 * journal_format.h: the journal ring: 4 KiB blocks of whole records.
 *
 * Block `seq` lies at ring position seq % journal_blocks. Each block carries the CRC of the one before, so a block left over
 * from another life of the ring can never continue the chain. `settled_seq` is the flush mark (S2): every record of blocks
 * up to it, and the data those records describe, were on stable storage before this block was written.
 *
 * A record is absolute: it says what becomes true, so that the state is the fold of the records over the checkpoint, and
 * the live pool and recovery run the same fold (record.h).
 */
#ifndef OXBOW_DATA_STORE_JOURNAL_FORMAT_H
#define OXBOW_DATA_STORE_JOURNAL_FORMAT_H

#include "data/store/page_format.h"

#define JOURNAL_BLOCK_BYTES   4096u
#define JOURNAL_HEADER_BYTES  64u
#define JOURNAL_PAYLOAD_BYTES (JOURNAL_BLOCK_BYTES - JOURNAL_HEADER_BYTES)
#define JOURNAL_MAGIC	      0x4a42584fu /* "OXBJ" */
#define JOURNAL_BYTES_MIN     (256 * KiB)
#define JOURNAL_BYTES_MAX     (1 * GiB)

struct journal_block_disk {
	le32 crc; /* CRC-32C of the 4096 bytes with this field zero */
	le32 magic;
	uint8_t pool_id[16];
	le64 seq;
	le64 settled_seq;
	le64 incarnation; /* random, one for each time the pool was opened */
	le32 prev_crc;	  /* crc of block seq - 1 */
	le16 used_bytes;  /* of the payload */
	uint8_t pad[10];
};
static_assert(sizeof(struct journal_block_disk) == JOURNAL_HEADER_BYTES, "layout");

enum record_type {
	RECORD_DEFINE = 1,    /* blocks of one cluster get data */
	RECORD_REJECT,	      /* blocks that were defined turn out not to be */
	RECORD_ZERO,	      /* blocks of consecutive clusters read as zeroes */
	RECORD_MERGE,	      /* one cluster moves from a layer into its only child */
	RECORD_DROP,	      /* consecutive clusters of a layer that nobody reads are given back */
	RECORD_VOLUME_CREATE, /* with its head; also clones */
	RECORD_VOLUME_SET,    /* name, size, flags */
	RECORD_VOLUME_DELETE, /* with the names of all its snapshots */
	RECORD_SNAPSHOT,      /* seal the head, name it, new head */
	RECORD_LAYER_SET,     /* name and flags of a sealed layer */
	RECORD_REVERT,	      /* new head on a snapshot; the old one becomes nameless */
	RECORD_LAYER_REMOVE,  /* an empty layer goes; its child, if any, is joined to its parent */
	RECORD_LAYER_DETACH,  /* a flattened layer forgets its parent */
	RECORD_POOL_GROW,     /* the disk has more clusters */
	RECORD_NOTE_SET,      /* a volume has this note, or none of this kind */
	RECORD_DEFINE_OVER,   /* as DEFINE, of blocks whose data is about to go over unsettled data */
	RECORD_GRAFT, /* the chain of a fresh volume goes upon a layer of another, in place of its head */
	RECORD_TYPES
};

/* Every record starts so; len_bytes counts the whole record and is a multiple of 4. */
struct record_head {
	uint8_t type;
	uint8_t pad;
	uint16_t len_bytes;
};

/* Volume and layer numbers are uint64_t split in two so that records are packed on 4 bytes. */
struct number_disk {
	uint32_t low, high;
};

struct record_define {
	struct record_head head;
	struct number_disk layer;
	uint32_t index;	  /* of the cluster in the volume */
	uint32_t cluster; /* physical */
	uint16_t mask;
	uint16_t pad;
	uint32_t crc[]; /* CRC-32C of each block of the mask, lowest first */
};
static_assert(sizeof(struct record_define) == 24, "layout");

#define SECTOR_BYTES	  512u /* of which a device error may leave some old and some new */
#define SECTORS_PER_BLOCK 8u
#define OVER_BLOCKS_MAX	  3u

/* A block that is neither the old data nor the new is both, sector by sector, if each sector is one of the two. */
struct over_block {
	uint32_t crc;			      /* of the new block */
	uint32_t old_crcs[SECTORS_PER_BLOCK]; /* CRC-32C of each sector as it lies there */
	uint32_t new_crcs[SECTORS_PER_BLOCK];
};

struct record_define_over {
	struct record_head head;
	struct number_disk layer;
	uint32_t index;
	uint32_t cluster;
	uint16_t mask; /* up to OVER_BLOCKS_MAX blocks */
	uint16_t pad;
	struct over_block blocks[]; /* lowest first */
};
static_assert(sizeof(struct record_define_over) == sizeof(struct record_define), "the same up to the CRCs");
static_assert(sizeof(struct over_block) == 68, "layout");

struct record_reject {
	struct record_head head;
	struct number_disk layer;
	uint32_t index;
	uint16_t undefined; /* these become undefined */
	uint16_t zero;	    /* these become zero again; not in `undefined` */
};
static_assert(sizeof(struct record_reject) == 20, "layout");

struct record_zero {
	struct record_head head;
	struct number_disk layer;
	uint32_t index, count; /* clusters, all under one leaf page */
	uint16_t mask;	       /* in each */
	uint16_t flags;	       /* ZERO_SAID */
};
static_assert(sizeof(struct record_zero) == 24, "layout");

#define ZERO_SAID 1u /* though nothing lies below the layer: something will */

struct record_merge {
	struct record_head head;
	struct number_disk layer, child;
	uint32_t index;
	uint32_t cluster; /* the child's entry becomes this; the layer's becomes empty */
	uint16_t defined, zero;
};
static_assert(sizeof(struct record_merge) == 32, "layout");

struct record_drop {
	struct record_head head;
	struct number_disk layer;
	uint32_t index, count; /* under one leaf page */
};
static_assert(sizeof(struct record_drop) == 20, "layout");

struct record_volume_create {
	struct record_head head;
	struct number_disk number, head_number, parent;
	uint32_t slot, head_slot; /* in the catalog */
	uint8_t id[16], head_id[16];
	uint8_t name[64];
	struct number_disk size_bytes, created_wall_ns;
	uint32_t lba_bytes;
	uint32_t flags; /* VOLUME_ */
};
static_assert(sizeof(struct record_volume_create) == 156, "layout");

struct record_volume_set {
	struct record_head head;
	struct number_disk number;
	uint8_t name[64];
	struct number_disk size_bytes;
	uint32_t flags;
};
static_assert(sizeof(struct record_volume_set) == 88, "layout");

struct record_volume_delete {
	struct record_head head;
	struct number_disk number;
};

struct record_snapshot {
	struct record_head head;
	struct number_disk volume, new_head;
	uint32_t new_head_slot;
	uint8_t id[16], new_head_id[16];
	uint8_t name[64];
	struct number_disk created_wall_ns;
	struct number_disk size_bytes; /* of the volume; not there in records of version 1 */
};
static_assert(sizeof(struct record_snapshot) == 136, "layout");

struct record_layer_set {
	struct record_head head;
	struct number_disk number;
	uint8_t name[64];
	uint32_t flags; /* LAYER_ */
};

struct record_revert {
	struct record_head head;
	struct number_disk volume, layer, new_head;
	uint32_t new_head_slot;
	uint8_t new_head_id[16];
};

struct record_layer_one { /* LAYER_REMOVE, LAYER_DETACH */
	struct record_head head;
	struct number_disk number;
};

struct record_pool_grow {
	struct record_head head;
	uint32_t cluster_count;
};

struct record_note_set {
	struct record_head head;
	struct number_disk volume;
	uint8_t kind;
	uint8_t pad;
	uint16_t len_bytes; /* 0: it is gone */
	uint8_t data[];	    /* zeroes up to a multiple of 4 */
};
static_assert(sizeof(struct record_note_set) == 16, "layout");

struct record_graft {
	struct record_head head;
	struct number_disk volume, fresh; /* volumes */
	struct number_disk base;	  /* the layer of `volume` that its head stands on */
	struct number_disk root,
		top; /* layers of `fresh`: its lowest, which stands on nothing, and its head */
	struct number_disk size_bytes; /* of `fresh` */
};
static_assert(sizeof(struct record_graft) == 52, "layout");

#define RECORD_BYTES_USUAL 256u /* all but NOTE_SET are smaller */
#define RECORD_BYTES_MAX   (sizeof(struct record_note_set) + NOTE_BYTES_MAX)
static_assert(sizeof(struct record_define_over) + OVER_BLOCKS_MAX * sizeof(struct over_block) <=
		      RECORD_BYTES_USUAL,
	      "not large");
static_assert(RECORD_BYTES_MAX <= JOURNAL_PAYLOAD_BYTES, "a record is never split");

#endif
