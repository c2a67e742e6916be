/*
 * nvmf_access.h: who may connect to a volume over NVMe: a list of host NQNs, each with the secret the host must prove (or none),
 * the one the volume proves to it (or none), and the key it has to come through TLS with (or none). Kept in the volume's note POOL_NOTE_ACCESS (nvmf_access_format.h).
 *
 *   an empty list     anybody who reaches the listener may connect
 *   who owns memory   lists are plain values; wipe one that held secrets (nvmf_access_wipe)
 *   errors            0 or OXE_; a note that cannot be read is never taken for an empty list
 *
 * Pure functions; what the target does by them is in nvmf_gate.c.
 */
#ifndef OXBOW_DATA_FRONTEND_NVMF_NVMF_ACCESS_H
#define OXBOW_DATA_FRONTEND_NVMF_NVMF_ACCESS_H

#include "data/nvme/nvme_format.h"
#include "data/nvme/nvme_secret.h"

#define NVMF_ACCESS_HOSTS_MAX 32
#define NVMF_ACCESS_NOTE_MAX  3072u

struct nvmf_access_host {
	char nqn[NVME_NQN_FIELD]; /* zero-padded */
	struct nvme_secret secret, controller_secret, tls_key;
};

struct nvmf_access { /* all zero: the empty list */
	uint32_t count;
	struct nvmf_access_host hosts[NVMF_ACCESS_HOSTS_MAX]; /* no NQN twice */
};

/* From text, as people give it; NULL or "": no such secret. OXE_INVAL, and *because is a sentence. */
struct nvmf_access_texts {
	const char *secret, *controller_secret, *tls_key;
};
OX_CHECKED int nvmf_access_host_make(const char *nqn, const struct nvmf_access_texts *texts,
				     struct nvmf_access_host *out, const char **because);

const struct nvmf_access_host *nvmf_access_find(const struct nvmf_access *a, const char *nqn);
/* Add, or replace the one with this NQN. OXE_RANGE: 32 are there, or the note would have no room. */
OX_CHECKED int nvmf_access_put(struct nvmf_access *a, const struct nvmf_access_host *host, bool *is_new);
/* OXE_NOENT. */
OX_CHECKED int nvmf_access_remove(struct nvmf_access *a, const char *nqn);
void nvmf_access_wipe(struct nvmf_access *a);

/* Returns the length, at most NVMF_ACCESS_NOTE_MAX; 0 for the empty list, which is no note. */
uint32_t nvmf_access_encode(const struct nvmf_access *a, uint8_t note[NVMF_ACCESS_NOTE_MAX]);
/* OXE_CORRUPT, OXE_VERSION; `out` is empty then. */
OX_CHECKED int nvmf_access_decode(const void *note, size_t len_bytes, struct nvmf_access *out);

#endif
