/* sim_image.c: see sim_image.h. Two levels of 64-way nodes over the pages; a node with several owners is copied before it changes. */
#include "sim/sim_image.h"

#include "base/prng.h"

#define NODE_BITS	6u
#define NODE_WIDTH	(1u << NODE_BITS)
#define ROOT_PAGES	((uint64_t)NODE_WIDTH * NODE_WIDTH)
#define ROOT_BYTES	(ROOT_PAGES * SIM_PAGE_BYTES)
#define SLOT(index, up) (((index) >> ((up)*NODE_BITS)) & (NODE_WIDTH - 1))

enum { LEAF, INNER };

struct image_node {
	uint32_t refs;
	union {
		struct image_node *node[NODE_WIDTH];
		struct sim_page *page[NODE_WIDTH];
	};
};

struct sim_page *sim_page_new(void)
{
	struct sim_page *page = mem_alloc(sizeof(*page));
	page->refs = 1;
	return page;
}

struct sim_page *sim_page_ref(struct sim_page *page)
{
	page->refs++;
	return page;
}

void sim_page_unref(struct sim_page *page)
{
	if (page && --page->refs == 0)
		free(page);
}

static void node_unref(struct image_node *node, int level)
{
	if (!node || --node->refs > 0)
		return;
	for (size_t i = 0; i < NODE_WIDTH; i++) {
		if (level == LEAF)
			sim_page_unref(node->page[i]);
		else
			node_unref(node->node[i], LEAF);
	}
	free(node);
}

static struct image_node *node_copy(const struct image_node *from, int level)
{
	struct image_node *node = mem_alloc(sizeof(*node));
	*node = *from;
	node->refs = 1;
	for (size_t i = 0; i < NODE_WIDTH; i++) {
		if (level == LEAF && node->page[i])
			node->page[i]->refs++;
		else if (level == INNER && node->node[i])
			node->node[i]->refs++;
	}
	return node;
}

/* The node in *slot as one that this image alone owns. */
static struct image_node *node_own(struct image_node **slot, int level)
{
	struct image_node *old = *slot;
	if (old && old->refs == 1)
		return old;
	*slot = old ? node_copy(old, level) : mem_zalloc(sizeof(*old));
	(*slot)->refs = 1;
	if (old)
		node_unref(old, level);
	return *slot;
}

static size_t roots_for(uint64_t size_bytes)
{
	return (size_t)u64_div_up(size_bytes, ROOT_BYTES);
}

void image_init(struct sim_image *image, uint64_t size_bytes, uint64_t fill_seed)
{
	*image = (struct sim_image){.size_bytes = size_bytes, .fill_seed = fill_seed};
	image->root_count = roots_for(size_bytes);
	image->roots = mem_zalloc((image->root_count + 1) * sizeof(struct image_node *));
}

void image_copy(struct sim_image *to, const struct sim_image *from)
{
	*to = *from;
	to->roots = mem_alloc((from->root_count + 1) * sizeof(struct image_node *));
	for (size_t i = 0; i < from->root_count; i++) {
		to->roots[i] = from->roots[i];
		if (to->roots[i])
			to->roots[i]->refs++;
	}
}

void image_fini(struct sim_image *image)
{
	for (size_t i = 0; i < image->root_count; i++)
		node_unref(image->roots[i], INNER);
	free(image->roots);
	*image = (struct sim_image){0};
}

void image_grow(struct sim_image *image, uint64_t size_bytes)
{
	size_t count = roots_for(size_bytes);
	assert(size_bytes >= image->size_bytes);
	image->roots = mem_realloc(image->roots, (count + 1) * sizeof(struct image_node *));
	for (size_t i = image->root_count; i < count; i++)
		image->roots[i] = NULL;
	image->root_count = count;
	image->size_bytes = size_bytes;
}

static struct sim_page *page_find(const struct sim_image *image, uint64_t index)
{
	assert(index * SIM_PAGE_BYTES < image->size_bytes);
	const struct image_node *node = image->roots[index / ROOT_PAGES];
	node = node ? node->node[SLOT(index, 1)] : NULL;
	return node ? node->page[SLOT(index, 0)] : NULL;
}

bool image_has_page(const struct sim_image *image, uint64_t page_index)
{
	return page_find(image, page_index) != NULL;
}

/* What a page that was never written holds. */
static void page_fill(const struct sim_image *image, uint64_t index, uint8_t *data)
{
	struct prng rng;
	memset(data, 0, SIM_PAGE_BYTES);
	if (!image->fill_seed)
		return;
	prng_seed(&rng, image->fill_seed ^ hash_u64(index));
	prng_fill(&rng, data, SIM_PAGE_BYTES);
}

static struct sim_page **page_slot(struct sim_image *image, uint64_t index)
{
	assert(index * SIM_PAGE_BYTES < image->size_bytes);
	struct image_node *node = node_own(&image->roots[index / ROOT_PAGES], INNER);
	return &node_own(&node->node[SLOT(index, 1)], LEAF)->page[SLOT(index, 0)];
}

/* The page at `index` as one that may be changed in place. */
static struct sim_page *page_own(struct sim_image *image, uint64_t index)
{
	struct sim_page **slot = page_slot(image, index), *old = *slot;
	if (old && old->refs == 1)
		return old;
	*slot = sim_page_new();
	if (old)
		memcpy((*slot)->data, old->data, SIM_PAGE_BYTES);
	else
		page_fill(image, index, (*slot)->data);
	image->page_count += old ? 0 : 1;
	sim_page_unref(old);
	return *slot;
}

void image_read(const struct sim_image *image, void *data, uint64_t len_bytes, uint64_t offset_bytes)
{
	uint8_t *out = data, filled[SIM_PAGE_BYTES];
	while (len_bytes > 0) {
		uint64_t index = offset_bytes / SIM_PAGE_BYTES, at = offset_bytes % SIM_PAGE_BYTES;
		uint64_t step = u64_min(len_bytes, SIM_PAGE_BYTES - at);
		const struct sim_page *page = page_find(image, index);
		if (!page)
			page_fill(image, index, filled);
		memcpy(out, (page ? page->data : filled) + at, step);
		out += step;
		offset_bytes += step;
		len_bytes -= step;
	}
}

static void page_copy_sectors(struct sim_page *to, const struct sim_page *from, uint8_t sectors)
{
	for (unsigned i = 0; i < SIM_PAGE_SECTORS; i++) {
		if (sectors & (1u << i))
			memcpy(to->data + i * SIM_SECTOR_BYTES, from->data + i * SIM_SECTOR_BYTES,
			       SIM_SECTOR_BYTES);
	}
}

void image_put(struct sim_image *image, uint64_t page_index, struct sim_page *page, uint8_t sectors)
{
	if (sectors == 0)
		return;
	if (sectors != SIM_SECTORS_WHOLE) {
		page_copy_sectors(page_own(image, page_index), page, sectors);
		return;
	}
	struct sim_page **slot = page_slot(image, page_index);
	image->page_count += *slot ? 0 : 1;
	sim_page_unref(*slot);
	*slot = sim_page_ref(page);
}
