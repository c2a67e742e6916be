/*
 * page_format.h: metadata pages: 4 KiB, self-describing, never overwritten in place.
 *
 * Pages form copy-on-write radix trees with 252 entries a page:
 *
 *     tree      leaf holds                                owner
 *     MAP       252 map entries (15.75 MiB of a volume)   layer number
 *     BITMAP    32,256 bits, one a cluster: 1 is in use   0
 *     CATALOG   15 volume or layer records                0
 *     NOTE      one note of a volume, by its kind         volume number
 *     USAGE     not a tree: 504 usage entries a page      0
 *
 * A page is believed when its CRC holds and its header says it is exactly the page the parent meant: kind, owner, level,
 * index, own address, and the generation its parent remembers. That catches rot, misdirected and lost writes.
 */
#ifndef OXBOW_DATA_STORE_PAGE_FORMAT_H
#define OXBOW_DATA_STORE_PAGE_FORMAT_H

#include "data/store/super_format.h"

#define PAGE_BYTES	   4096u
#define PAGE_HEADER_BYTES  64u
#define PAGE_PAYLOAD_BYTES (PAGE_BYTES - PAGE_HEADER_BYTES)
#define PAGE_FANOUT	   252u
#define PAGES_PER_CLUSTER  16u
#define PAGE_LEVELS_MAX	   6u

#define BITMAP_BITS_PER_PAGE (PAGE_PAYLOAD_BYTES * 8)
#define CATALOG_ENTRY_BYTES  256u
#define CATALOG_PER_PAGE     15u
#define USAGE_PER_PAGE	     504u

enum page_kind { PAGE_MAP = 1, PAGE_BITMAP = 2, PAGE_CATALOG = 3, PAGE_USAGE = 4, PAGE_NOTE = 5 };

struct page_header_disk {
	le32 crc; /* CRC-32C of the 4096 bytes with this field zero */
	uint8_t kind, level;
	uint8_t pad0[2];
	le64 owner;
	le64 index; /* of the page among those of its level */
	le64 page;  /* its own address */
	le64 generation;
	uint8_t pool_id[16];
	le64 next; /* USAGE: the table's next page, 0 after the last */
};
static_assert(sizeof(struct page_header_disk) == PAGE_HEADER_BYTES, "layout");

/* Level 1 and up. `aux` of a BITMAP entry: free clusters below it. */
struct inner_entry {
	uint64_t page; /* 0: nothing below */
	uint32_t generation;
	uint32_t aux;
};
static_assert(sizeof(struct inner_entry) == 16, "layout");
static_assert(PAGE_FANOUT * sizeof(struct inner_entry) == PAGE_PAYLOAD_BYTES, "layout");

/* S1. What one layer says about one cluster. Bit i of a mask is the 4 KiB block i of the cluster. */
struct map_entry {
	uint32_t cluster; /* physical; 0: none */
	uint16_t defined; /* this layer says what the block is */
	uint16_t zero;	  /* and it says: zeroes. A subset of `defined` */
	uint64_t sum;	  /* room for a checksum of a sealed cluster; 0 for now */
};
static_assert(sizeof(struct map_entry) == 16, "layout");

/* One metadata cluster: which of its pages the newest tree uses, and which only the one before it. */
struct usage_entry {
	uint32_t cluster;
	uint16_t used, held;
};
static_assert(sizeof(struct usage_entry) * USAGE_PER_PAGE == PAGE_PAYLOAD_BYTES, "layout");

enum catalog_kind { CATALOG_FREE = 0, CATALOG_VOLUME = 1, CATALOG_LAYER = 2 };

enum { LAYER_SEALED = 1, LAYER_NAMED = 2 };
enum { VOLUME_FLATTEN = 1, VOLUME_FRESH = 2 }; /* FRESH: it is to be grafted upon something (pool.h) */

/* A volume or a layer. Fields that a kind does not use are zero. */
struct catalog_entry_disk {
	uint8_t kind, flags;
	uint8_t pad0[2];
	le32 lba_bytes; /* volume */
	le64 number;	/* never used twice in a pool */
	uint8_t id[16];
	uint8_t name[64];     /* NUL-padded; a layer's only if LAYER_NAMED */
	le64 size_bytes;      /* volume: now; layer: of the volume when sealed */
	le64 created_wall_ns; /* a layer's: when it was sealed */
	le64 volume;	      /* layer: the volume number it belongs to, 0 if none */
	le64 link;	      /* volume: head layer number; layer: parent layer number, 0 if none */
	struct root_disk map; /* layer; volume: its notes */
	le64 cluster_count;   /* layer: clusters its map names */
	uint8_t pad1[CATALOG_ENTRY_BYTES - 152];
};
static_assert(sizeof(struct catalog_entry_disk) == CATALOG_ENTRY_BYTES, "layout");
static_assert(CATALOG_PER_PAGE * CATALOG_ENTRY_BYTES <= PAGE_PAYLOAD_BYTES, "layout");

#define NOTE_BYTES_MAX 3072u
#define NOTE_KINDS     4u

/* The leaf of a NOTE tree, whose index is the kind. All zero: there is none. */
struct note_disk {
	le32 len_bytes;
	uint8_t pad[12];
	uint8_t data[NOTE_BYTES_MAX]; /* zeroes after len_bytes */
};
static_assert(sizeof(struct note_disk) <= PAGE_PAYLOAD_BYTES, "layout");

#endif
