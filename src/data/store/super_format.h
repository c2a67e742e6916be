/*
 * super_format.h: the two superblocks and the shape of a pool on disk.
 *
 *     byte 0          superblock slot 0 (even generations)          cluster 0
 *     64 KiB          superblock slot 1 (odd generations)           cluster 1
 *     128 KiB         journal ring, journal_blocks x 4 KiB          clusters 2 ...
 *     then            clusters of 64 KiB: data, or 16 metadata pages each
 *
 * A cluster's number is its byte offset / 64 KiB and a page's is its byte offset / 4 KiB, both counted from the start of the
 * disk, so that 0 can mean "none". A checkpoint of generation g writes slot g % 2 and touches nothing the other slot needs:
 * either superblock with the journal after it recovers the same state.
 */
#ifndef OXBOW_DATA_STORE_SUPER_FORMAT_H
#define OXBOW_DATA_STORE_SUPER_FORMAT_H

#include "base/bytes.h"
#include "base/uuid.h"

#define SUPER_MAGIC	     "OXBOWSB1"
#define SUPER_FORMAT_VERSION 3u /* 2: notes; 3: names of the system's, grafts */
#define SUPER_FORMAT_OLDEST  1u /* that is read; opening it for writing makes it the newest */
#define SUPER_BYTES	     4096u
#define SUPER_SLOT_BYTES     65536u /* slot i starts at i * SUPER_SLOT_BYTES */
#define SUPER_NAME_BYTES     64u

#define JOURNAL_FIRST_CLUSTER 2u

/* Where a tree's root page is. page 0: the tree is empty. */
struct root_disk {
	le64 page;
	le32 generation; /* low bits of the checkpoint that wrote it; the page's header must agree */
	le32 height;	 /* levels, 1: the root is a leaf */
};
static_assert(sizeof(struct root_disk) == 16, "layout");

struct super_disk {
	uint8_t magic[8];
	le32 crc; /* CRC-32C of the 4096 bytes with this field zero */
	le32 version;
	uint8_t pool_id[16];
	uint8_t name[SUPER_NAME_BYTES]; /* NUL-padded */
	le64 generation;
	le64 created_wall_ns;
	le64 cluster_count; /* the whole disk, clusters 0 and 1 and the journal included */
	le64 journal_blocks;
	/* Replay starts at this block; the chain value is what its prev_crc must be. */
	le64 replay_seq;
	le32 replay_chain;
	le32 usage_pages; /* pages of the metadata usage table, chained from usage_page; 0: no metadata at all */
	le64 usage_page;
	le64 next_number; /* numbers of volumes and layers below this are taken or were */
	le64 free_clusters;
	struct root_disk bitmap, catalog;
	le64 features; /* 0; a program refuses a pool with a bit it does not know */
	le64 flags;    /* SUPER_OVERRULES */
};
static_assert(sizeof(struct super_disk) == 216, "layout");

/* Recovery had rejected records when it wrote this: they may still be in the journal after the superblock before, and no flush mark may
 * vouch for them. Until that superblock is overwritten no mark is written. */
#define SUPER_OVERRULES 1u

#endif
