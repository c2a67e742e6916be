/*
 * replica_format.h: a copy's note POOL_NOTE_REPLICA, byte by byte: a header, then the intents as whichever is shorter of a list of
 * regions and a bitmap, then where it may lack something: a bit for each region of the intents, in their order. Nothing follows.
 * Little-endian.
 *
 * Version 1, which had neither boot nor lacks, is read: nobody knows what machine it was opened on.
 */
#ifndef OXBOW_DATA_REPLICA_REPLICA_FORMAT_H
#define OXBOW_DATA_REPLICA_REPLICA_FORMAT_H

#include "base/bytes.h"
#include "data/replica/replica.h"

#define REPLICA_NOTE_MAGIC   0x4e52584fu /* "OXRN" */
#define REPLICA_NOTE_VERSION 2

enum {
	REPLICA_NOTE_FILL_BEGUN = 0x01,
	REPLICA_NOTE_LACKS_ALL =
		0x02, /* it may lack something wherever it has an intent: the bits had no room */
};
enum { REPLICA_NOTE_LIST = 0, REPLICA_NOTE_BITMAP = 1 };

struct replica_note_wire {
	le32 magic;
	le32 crc; /* CRC-32C of the whole note, with this field zero */
	le16 version;
	uint8_t flags;
	uint8_t form;		 /* of the intents */
	uint8_t shift;		 /* a region of the intents has 1 << shift bytes */
	uint8_t reserved;	 /* zero */
	le16 count;		 /* LIST: le16 each, ascending; BITMAP: bytes, the last of them not zero */
	le64 epoch;		 /* the highest it was opened with (V4) */
	uint8_t engine[16];	 /* by whom */
	uint8_t join[16];	 /* the join layer that its new head was begun for; zero: none */
	uint8_t join_ending[16]; /* once this is the volume's head, the two chains are one */
	/* From version 2 on. */
	uint8_t boot[16]; /* of the machine, when it was opened last; zero: not known */
	le16 lacks_bytes; /* of the bits, the last byte not zero */
	uint8_t reserved2[6];
};
#define REPLICA_NOTE_HEADER_1_BYTES 72u

static_assert(sizeof(struct replica_note_wire) == 96 && offsetof(struct replica_note_wire, crc) == 4 &&
		      offsetof(struct replica_note_wire, flags) == 10 &&
		      offsetof(struct replica_note_wire, count) == 14 &&
		      offsetof(struct replica_note_wire, epoch) == 16 &&
		      offsetof(struct replica_note_wire, engine) == 24 &&
		      offsetof(struct replica_note_wire, join) == 40 &&
		      offsetof(struct replica_note_wire, join_ending) == 56 &&
		      offsetof(struct replica_note_wire, boot) == REPLICA_NOTE_HEADER_1_BYTES &&
		      offsetof(struct replica_note_wire, lacks_bytes) == 88,
	      "replica note");

#define REPLICA_REGION_SHIFT_MAX 33u /* of a volume of VOLUME_SIZE_MAX */
static_assert((uint64_t)REPLICA_REGIONS << REPLICA_REGION_SHIFT_MAX == VOLUME_SIZE_MAX, "");

#define REPLICA_NOTE_BYTES_MAX POOL_NOTE_BYTES_MAX
static_assert(sizeof(struct replica_note_wire) + REPLICA_REGIONS / 8 <= REPLICA_NOTE_BYTES_MAX,
	      "all intents fit in one note");

#endif
