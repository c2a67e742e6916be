/*
 * nvmf_reservation_format.h: a volume's note POOL_NOTE_RESERVATION, byte by byte: a header, then `count` registrants. Nothing
 * follows. Little-endian.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_RESERVATION_FORMAT_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_RESERVATION_FORMAT_H

#include "data/frontend/nvmf/nvmf_reservation.h"

#define RESERVATION_NOTE_MAGIC	 0x5652584fu /* "OXRV" */
#define RESERVATION_NOTE_VERSION 1

#define RESERVATION_NOTE_PERSISTS 0x01

struct reservation_note_wire {
	le32 magic;
	le32 crc; /* CRC-32C of the whole note, with this field zero */
	le16 version;
	uint8_t type, flags;
	le32 generation;
	uint8_t boot[16];   /* of the machine, when this was written */
	uint8_t holder[16]; /* zero: none, or all registrants */
	le16 count;
	uint8_t reserved[6]; /* zero */
};

struct reservation_registrant_wire {
	uint8_t hostid[16];
	le64 key;
};

static_assert(sizeof(struct reservation_note_wire) == 56 &&
		      offsetof(struct reservation_note_wire, crc) == 4 &&
		      offsetof(struct reservation_note_wire, type) == 10 &&
		      offsetof(struct reservation_note_wire, boot) == 16 &&
		      offsetof(struct reservation_note_wire, holder) == 32 &&
		      offsetof(struct reservation_note_wire, count) == 48,
	      "reservation note");
static_assert(sizeof(struct reservation_registrant_wire) == 24, "registrant in a reservation note");
static_assert(sizeof(struct reservation_note_wire) +
			      NVMF_REGISTRANTS_MAX * sizeof(struct reservation_registrant_wire) <=
		      NVMF_RESERVATION_NOTE_MAX,
	      "every registrant fits");

#endif
