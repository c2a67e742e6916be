/*
 * nvme_nqn.h: names over Fabrics. A volume is the subsystem nqn.2026-11.dev.oxbow:volume:UUID, for ever: it keeps the name when it
 * is renamed, grown or served by another node. A snapshot is nqn.2026-11.dev.oxbow:snapshot:UUID, and a copy of a volume
 * nqn.2026-11.dev.oxbow:copy:POOL:VOLUME. Pure functions over text.
 */
#ifndef OXBOW_DATA_NVME_NVME_NQN_H
#define OXBOW_DATA_NVME_NVME_NQN_H

#include "base/uuid.h"
#include "data/nvme/nvme_format.h"

#define NVME_NQN_VOLUME_PREFIX	 "nqn.2026-11.dev.oxbow:volume:"
#define NVME_NQN_SNAPSHOT_PREFIX "nqn.2026-11.dev.oxbow:snapshot:"
#define NVME_NQN_COPY_PREFIX	 "nqn.2026-11.dev.oxbow:copy:"
#define NVME_NQN_HOST_PREFIX	 "nqn.2014-08.org.nvmexpress:uuid:"

/* A field from outside: true if it is terminated, not empty, at most NVME_NQN_MAX bytes, printable, and begins as an NQN. */
OX_CHECKED bool nvme_nqn_is_valid(const char field[NVME_NQN_FIELD]);
/* Zero-pads the field, as it goes on the wire. `name` is at most NVME_NQN_MAX bytes. */
void nvme_nqn_put(char field[NVME_NQN_FIELD], const char *name);
/* Writes the volume's name, padded as above; returns `field`. */
char *nvme_nqn_of_volume(const struct uuid *volume_id, char field[NVME_NQN_FIELD]);
/* OXE_NOENT unless it is the name of a volume of ours. */
OX_CHECKED int nvme_nqn_to_volume(const char *name, struct uuid *volume_id);
/* The same of a snapshot. */
char *nvme_nqn_of_snapshot(const struct uuid *snapshot_id, char field[NVME_NQN_FIELD]);
OX_CHECKED int nvme_nqn_to_snapshot(const char *name, struct uuid *snapshot_id);
/* The same of the copy of a volume in a pool. */
char *nvme_nqn_of_copy(const struct uuid *pool_id, const struct uuid *volume_id, char field[NVME_NQN_FIELD]);
OX_CHECKED int nvme_nqn_to_copy(const char *name, struct uuid *pool_id, struct uuid *volume_id);

#endif
