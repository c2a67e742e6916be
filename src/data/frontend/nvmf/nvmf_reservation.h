/*
 * nvmf_reservation.h: reservations of a namespace (NVMe Base 2.0, 8.19): who is registered, who holds it, and what that lets
 * each host do. Pure: a state, a command, and the state after it. Who applies it, makes it durable and waits: nvmf_fence.h.
 *
 *     registrant   a host (by its 128-bit identifier) with a key; it is one through all of its controllers
 *     holder       one registrant; under an all-registrants type every registrant is
 *     generation   counts registrations, preemptions and clearings, and wraps
 *
 * Decided here, where the specification leaves a choice: a key of 0 is refused, for a host with it could not be preempted; the
 * 65th registrant is refused (NVME_STATUS_INTERNAL, do not retry).
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_RESERVATION_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_RESERVATION_H

#include "base/base.h"
#include "base/err.h"
#include "base/uuid.h"
#include "data/nvme/nvme_format.h"

#define NVMF_REGISTRANTS_MAX   64
#define NVMF_HOSTID_BYTES      16
#define NVMF_RESERVATION_TYPES (NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL + 1)

struct nvmf_registrant {
	uint8_t hostid[NVMF_HOSTID_BYTES]; /* not zero */
	uint64_t key;			   /* not zero */
};

struct nvmf_reservation { /* all zero: nobody, nothing */
	uint32_t generation;
	uint8_t type;			   /* enum nvme_reservation_type */
	bool persists;			   /* through power loss */
	uint8_t holder[NVMF_HOSTID_BYTES]; /* zero: none, or all registrants */
	uint16_t count;
	struct nvmf_registrant
		registrants[NVMF_REGISTRANTS_MAX]; /* in order of registration; zero beyond count */
};

struct nvmf_reservation_command {
	uint8_t opcode, action;	 /* NVME_IO_RESERVATION_REGISTER, _ACQUIRE or _RELEASE, and its action */
	bool ignore_key;	 /* IEKEY */
	uint8_t type;		 /* acquire, release */
	uint8_t persist;	 /* register: CPTPL */
	uint64_t current, other; /* keys: CRKEY, NRKEY or PRKEY */
};

/* `keys` has at least nvmf_reservation_key_bytes(opcode). */
struct nvmf_reservation_command nvmf_reservation_decode(const struct nvme_sqe *e, const void *keys);
uint32_t nvmf_reservation_key_bytes(uint8_t opcode);

struct nvmf_reservation_notice {
	uint8_t hostid[NVMF_HOSTID_BYTES];
	uint8_t what; /* enum nvme_reservation_notice */
};

struct nvmf_reservation_change {
	struct nvmf_reservation next;
	bool is_changed;
	uint32_t notice_count; /* at most one a host */
	struct nvmf_reservation_notice notices[NVMF_REGISTRANTS_MAX];
};

/* What `c` of a host makes of `now`. Returns 0 or a status; with a status `out` is `now` unchanged, and nobody is told. */
OX_CHECKED uint16_t nvmf_reservation_step(const struct nvmf_reservation *now,
					  const uint8_t hostid[NVMF_HOSTID_BYTES],
					  const struct nvmf_reservation_command *c,
					  struct nvmf_reservation_change *out);

/* May this host carry out this I/O command (READ, WRITE, FLUSH ...; not the reservation commands)? */
bool nvmf_reservation_admits(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES],
			     uint8_t opcode);
bool nvmf_reservation_is_holder(const struct nvmf_reservation *r, const uint8_t hostid[NVMF_HOSTID_BYTES]);
bool nvmf_reservation_is_registrant(const struct nvmf_reservation *r,
				    const uint8_t hostid[NVMF_HOSTID_BYTES]);
/* What holds of every state. */
bool nvmf_reservation_is_sound(const struct nvmf_reservation *r);

/* ---- the note it is kept in (nvmf_reservation_format.h) ----------------------------------------------------------------- */

#define NVMF_RESERVATION_NOTE_MAX 1600u

/* `boot` is the run of the machine's kernel: what need not persist through power loss lasts as long. Returns the length. */
uint32_t nvmf_reservation_encode(const struct nvmf_reservation *r, const struct uuid *boot,
				 uint8_t note[NVMF_RESERVATION_NOTE_MAX]);
/* OXE_CORRUPT, OXE_VERSION. A note of another boot that is not to persist gives the state of a namespace nobody has touched. */
OX_CHECKED int nvmf_reservation_note_decode(const void *note, size_t len_bytes, const struct uuid *boot,
					    struct nvmf_reservation *out);

#endif
