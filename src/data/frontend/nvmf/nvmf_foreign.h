/*
 * nvmf_foreign.h: subsystems that are somebody else's: the target brings the association, the queues and the data, and another room
 * carries out the I/O commands. Copies of volumes are served so (docs/protocol.md); cmd/ introduces the two to each other.
 *
 * Such a subsystem has one namespace of blocks of NVMF_FOREIGN_LBA, no reservations, no events, and is not in discovery. An I/O
 * command's data goes the way the two low bits of its opcode say, and is as long as its SGL. All limits of nvmf.h hold.
 *
 * What holds across a reconnect is more than for volumes: a host that makes a new association ends every older one it has with the same
 * subsystem, and is answered when the last command of those has ended. So nothing it ever sent before can be carried out after.
 *
 * Who may connect: who proves the secret; through TLS, if there is a key, with it. With neither, loopback addresses alone, unless
 * `insecure`.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_FOREIGN_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_FOREIGN_H

#include "base/uuid.h"

#define NVMF_FOREIGN_LBA 512u

struct nvme_sqe;

struct nvmf_foreign {
	const char *model; /* of Identify */
	const char *
		secret; /* one that nvme_secret_parse takes: both sides prove that they have it. NULL: none */
	const char *tls_key; /* one that nvme_tls_key_parse takes; NULL: none */
	bool insecure;
	void *ctx;
	/* Is that the name of one of these? Does not suspend. */
	bool (*knows)(void *ctx, const char *subnqn);
	/* A session for an association with a subsystem that it knows, and the namespace's UUID. Does not suspend. */
	void *(*attach)(void *ctx, const char *subnqn, struct uuid *id);
	/* The association is over, and no command of it under way. Suspends. */
	void (*detach)(void *session);
	/* One I/O command, any number at once; returns a status. `data` holds data_bytes, or has room for as many; what it sets
	 * *answer_bytes to of them goes back. Suspends. */
	uint16_t (*run)(void *session, const struct nvme_sqe *sqe, void *data, uint32_t data_bytes,
			uint32_t *answer_bytes, uint64_t *result);
	/* Of the namespace; 0: there is none now. Does not suspend. */
	uint64_t (*size_bytes)(const void *session);
};

#endif
