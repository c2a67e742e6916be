/* super.h: superblocks between memory and disk. Nothing here suspends except super_read, super_write and super_wipe. */
#ifndef OXBOW_DATA_STORE_SUPER_H
#define OXBOW_DATA_STORE_SUPER_H

#include "data/store/cache.h"
#include "data/store/pool.h"

struct super {
	struct uuid pool_id;
	char name[POOL_NAME_MAX + 1];
	uint64_t generation, created_wall_ns, cluster_count, journal_blocks;
	uint64_t replay_seq; /* first journal block to replay */
	uint32_t replay_chain, usage_pages;
	uint64_t usage_page, next_number, free_clusters;
	struct root bitmap, catalog;
	uint32_t version;
	bool overrules; /* SUPER_OVERRULES */
};

/* Fill a SUPER_BYTES image. */
void super_encode(const struct super *s, uint8_t *image);
/* OXE_NOTPOOL (not ours), OXE_CORRUPT (ours, damaged or senseless), OXE_VERSION. */
OX_CHECKED int super_decode(const uint8_t *image, uint64_t disk_bytes, struct super *s);

/* The newest whole one in *newest, and in *older the other if it is whole and exactly one generation behind (else its
 * generation is 0). One bad slot is no error; two are. *unreadable (may be NULL): the other slot could not be read, and what is there
 * may come back. */
OX_CHECKED int super_read(struct rt_disk *disk, struct super *newest, struct super *older, bool *unreadable);
/* Nobody shall believe the superblock of this generation any more: zeroes over its slot, durably. */
OX_CHECKED int super_wipe(struct rt_disk *disk, uint64_t generation);
/* Into its slot, durably. */
OX_CHECKED int super_write(struct rt_disk *disk, const struct super *s);

#endif
