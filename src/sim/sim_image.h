/*
 * sim_image.h: the content of a simulated disk: sparse 4 KiB pages under a persistent radix tree.
 *
 * A copy of an image costs one reference for each 16 MiB of disk, whatever it holds: copies share pages until one of them
 * writes. That is what makes a hundred thousand crash states affordable. A page that was never written reads as zeroes, or,
 * with a fill seed, as garbage that depends on the seed and the place alone: a used disk somebody gave us.
 *
 * Ownership: an image owns its references; pages are immutable while shared. One thread.
 */
#ifndef OXBOW_SIM_SIM_IMAGE_H
#define OXBOW_SIM_SIM_IMAGE_H

#include "base/base.h"

#define SIM_PAGE_BYTES	  4096u
#define SIM_SECTOR_BYTES  512u
#define SIM_PAGE_SECTORS  (SIM_PAGE_BYTES / SIM_SECTOR_BYTES)
#define SIM_SECTORS_WHOLE 0xffu /* a mask with every sector of a page */

struct sim_page {
	uint32_t refs;
	uint8_t data[SIM_PAGE_BYTES];
};

struct sim_page *sim_page_new(void); /* contents undefined, one reference */
struct sim_page *sim_page_ref(struct sim_page *page);
void sim_page_unref(struct sim_page *page);

struct image_node;

struct sim_image {
	uint64_t size_bytes;
	uint64_t fill_seed;  /* 0: unwritten pages are zero */
	uint64_t page_count; /* pages that were ever written */
	size_t root_count;
	struct image_node **roots; /* one for each 16 MiB */
};

void image_init(struct sim_image *image, uint64_t size_bytes, uint64_t fill_seed);
void image_copy(struct sim_image *to, const struct sim_image *from); /* `to` is uninitialised */
void image_fini(struct sim_image *image);
void image_grow(struct sim_image *image, uint64_t size_bytes);

bool image_has_page(const struct sim_image *image, uint64_t page_index);
void image_read(const struct sim_image *image, void *data, uint64_t len_bytes, uint64_t offset_bytes);
/* Put those sectors of `page` that are in `sectors` at page_index. A whole page is shared, not copied. */
void image_put(struct sim_image *image, uint64_t page_index, struct sim_page *page, uint8_t sectors);
#endif
