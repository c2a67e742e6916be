/*
 * nvmf_access_format.h: a volume's note POOL_NOTE_ACCESS, byte by byte: a header, then `count` hosts one after another. Nothing
 * follows. Little-endian.
 *
 *     a host      its head; its name: NQN_BYTES characters, or the 16 bytes of the uuid of nqn.2014-08.org.nvmexpress:uuid:UUID;
 *                 its secret; the controller's secret; in version 2 the head of its key for TLS before its name, and the key at the end
 *
 * A list without keys for TLS is of version 1, and one with any of version 2: what can be read by an older program is.
 *
 * With the short form of names 32 hosts with the longest secrets have room; with controller secrets too, as many as do.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_ACCESS_FORMAT_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_ACCESS_FORMAT_H

#include "data/frontend/nvmf/nvmf_access.h"

#define ACCESS_NOTE_MAGIC	0x4341584fu /* "OXAC" */
#define ACCESS_NOTE_VERSION	1
#define ACCESS_NOTE_VERSION_TLS 2

struct access_note_wire {
	le32 magic;
	le32 crc; /* CRC-32C of the whole note, with this field zero */
	le16 version;
	le16 count;
	uint8_t reserved[4]; /* zero */
};

struct access_host_wire {
	uint8_t nqn_bytes;    /* 0: a uuid */
	uint8_t hashes;	      /* of the secret, and of the controller's << 4: as struct nvme_secret has it */
	uint8_t secret_bytes; /* 0: none */
	uint8_t controller_secret_bytes;
};

struct access_tls_wire {   /* version 2, behind each host's head */
	uint8_t hash;	   /* of the key for TLS: as struct nvme_secret has it */
	uint8_t key_bytes; /* 0: none */
};

static_assert(sizeof(struct access_tls_wire) == 2, "head of a key for TLS");
static_assert(sizeof(struct access_note_wire) == 16 && offsetof(struct access_note_wire, crc) == 4 &&
		      offsetof(struct access_note_wire, count) == 10,
	      "access note");
static_assert(sizeof(struct access_host_wire) == 4, "host in an access note");
static_assert(sizeof(struct access_note_wire) + NVMF_ACCESS_HOSTS_MAX * (sizeof(struct access_host_wire) +
									 16 + NVME_SECRET_BYTES_MAX) <=
		      NVMF_ACCESS_NOTE_MAX,
	      "every host with a uuid and a secret fits");

#endif
