/* super.c: see super.h and super_format.h. */
#include "data/store/super.h"

#include "base/crc32c.h"
#include "data/store/journal_format.h"
#include "data/store/store.h"

static struct root_disk root_encode(struct root r)
{
	return (struct root_disk){le64_of(r.page), le32_of(r.generation), le32_of(r.height)};
}

static struct root root_decode(const struct root_disk *r)
{
	return (struct root){le64_get(r->page), le32_get(r->generation), le32_get(r->height)};
}

void super_encode(const struct super *s, uint8_t *image)
{
	struct super_disk *d = (void *)image;
	memset(image, 0, SUPER_BYTES);
	memcpy(d->magic, SUPER_MAGIC, sizeof(d->magic));
	d->version = le32_of(SUPER_FORMAT_VERSION);
	memcpy(d->pool_id, s->pool_id.b, sizeof(d->pool_id));
	memcpy(d->name, s->name, strlen(s->name));
	d->generation = le64_of(s->generation);
	d->created_wall_ns = le64_of(s->created_wall_ns);
	d->cluster_count = le64_of(s->cluster_count);
	d->journal_blocks = le64_of(s->journal_blocks);
	d->replay_seq = le64_of(s->replay_seq);
	d->replay_chain = le32_of(s->replay_chain);
	d->usage_pages = le32_of(s->usage_pages);
	d->usage_page = le64_of(s->usage_page);
	d->next_number = le64_of(s->next_number);
	d->free_clusters = le64_of(s->free_clusters);
	d->bitmap = root_encode(s->bitmap);
	d->catalog = root_encode(s->catalog);
	d->flags = le64_of(s->overrules ? SUPER_OVERRULES : 0);
	d->crc = le32_of(crc32c(0, image, SUPER_BYTES));
}

static bool root_is_sane(const struct super *s, struct root r)
{
	return r.height <= PAGE_LEVELS_MAX && r.page < s->cluster_count * PAGES_PER_CLUSTER;
}

static bool is_sane(const struct super *s, uint64_t disk_bytes)
{
	uint64_t journal_clusters = s->journal_blocks * JOURNAL_BLOCK_BYTES / POOL_CLUSTER_BYTES;
	return s->generation > 0 && s->replay_seq > 0 && s->next_number > 0 &&
	       s->cluster_count <= disk_bytes / POOL_CLUSTER_BYTES && s->cluster_count < UINT32_MAX &&
	       s->journal_blocks >= JOURNAL_BYTES_MIN / JOURNAL_BLOCK_BYTES &&
	       s->journal_blocks <= JOURNAL_BYTES_MAX / JOURNAL_BLOCK_BYTES &&
	       s->journal_blocks * JOURNAL_BLOCK_BYTES % POOL_CLUSTER_BYTES == 0 &&
	       JOURNAL_FIRST_CLUSTER + journal_clusters < s->cluster_count && root_is_sane(s, s->bitmap) &&
	       root_is_sane(s, s->catalog) && pool_name_check(s->name) == 0;
}

int super_decode(const uint8_t *image, uint64_t disk_bytes, struct super *s)
{
	const struct super_disk *d = (const void *)image;
	if (memcmp(d->magic, SUPER_MAGIC, sizeof(d->magic)) != 0)
		return OXE_NOTPOOL;
	uint32_t crc = crc32c_around(image, SUPER_BYTES, offsetof(struct super_disk, crc));
	if (le32_get(d->crc) != crc || d->name[sizeof(d->name) - 1] != 0)
		return OXE_CORRUPT;
	uint32_t version = le32_get(d->version);
	if (version < SUPER_FORMAT_OLDEST || version > SUPER_FORMAT_VERSION || le64_get(d->features) != 0)
		return OXE_VERSION;
	*s = (struct super){
		.version = version,
		.generation = le64_get(d->generation),
		.created_wall_ns = le64_get(d->created_wall_ns),
		.cluster_count = le64_get(d->cluster_count),
		.journal_blocks = le64_get(d->journal_blocks),
		.replay_seq = le64_get(d->replay_seq),
		.replay_chain = le32_get(d->replay_chain),
		.usage_pages = le32_get(d->usage_pages),
		.usage_page = le64_get(d->usage_page),
		.next_number = le64_get(d->next_number),
		.free_clusters = le64_get(d->free_clusters),
		.bitmap = root_decode(&d->bitmap),
		.catalog = root_decode(&d->catalog),
		.overrules = le64_get(d->flags) & SUPER_OVERRULES,
	};
	memcpy(s->pool_id.b, d->pool_id, sizeof(s->pool_id.b));
	memcpy(s->name, d->name, sizeof(s->name));
	return is_sane(s, disk_bytes) ? 0 : OXE_CORRUPT;
}

static int slot_read(struct rt_disk *disk, unsigned slot, uint8_t *image, struct super *s)
{
	int err = rt_disk_read(disk, image, SUPER_BYTES, (uint64_t)slot * SUPER_SLOT_BYTES);
	if (!err)
		err = super_decode(image, rt_disk_info(disk)->size_bytes, s);
	if (!err && s->generation % 2 != slot)
		err = OXE_CORRUPT; /* misdirected */
	return err;
}

/* Perhaps for a moment only. */
static int slot_read_patiently(struct rt_disk *disk, unsigned slot, uint8_t *image, struct super *s)
{
	int err = OXE_IO;
	for (unsigned i = 0; err == OXE_IO && i < READ_TRIES; i++) {
		fiber_sleep(READ_WAIT_NS);
		err = slot_read(disk, slot, image, s);
	}
	return err;
}

/* When both slots are bad: the more telling of the two errors. */
static int both_bad(int a, int b)
{
	if (a == OXE_VERSION || b == OXE_VERSION)
		return OXE_VERSION;
	if (a == OXE_NOTPOOL && b == OXE_NOTPOOL)
		return OXE_NOTPOOL;
	return a == OXE_CORRUPT || b == OXE_CORRUPT ? OXE_CORRUPT : OXE_IO;
}

int super_read(struct rt_disk *disk, struct super *newest, struct super *older, bool *unreadable)
{
	struct super slots[2];
	int err[2];
	older->generation = 0;
	if (unreadable)
		*unreadable = false;
	if (rt_disk_info(disk)->size_bytes < POOL_SIZE_MIN)
		return OXE_NOTPOOL;
	uint8_t *image = page_image_alloc();
	for (unsigned i = 0; i < 2; i++)
		err[i] = slot_read(disk, i, image, &slots[i]);
	for (unsigned i = 0; i < 2; i++) {
		if (err[i] == OXE_IO && !err[i ^ 1])
			err[i] = slot_read_patiently(disk, i, image, &slots[i]);
	}
	free(image);
	if (err[0] && err[1])
		return both_bad(err[0], err[1]);
	if (err[0] == OXE_VERSION || err[1] == OXE_VERSION)
		return OXE_VERSION; /* the other one may be old, and the journal after it full of what we do not know */
	if (err[0] || err[1]) {
		*newest = slots[err[0] ? 1 : 0];
		if (unreadable)
			*unreadable = err[0] == OXE_IO || err[1] == OXE_IO;
		return 0;
	}
	unsigned new_slot = slots[1].generation > slots[0].generation;
	*newest = slots[new_slot];
	if (slots[new_slot ^ 1].generation + 1 == newest->generation &&
	    uuid_equal(&slots[0].pool_id, &slots[1].pool_id))
		*older = slots[new_slot ^ 1];
	return 0;
}

int super_wipe(struct rt_disk *disk, uint64_t generation)
{
	uint8_t *image = page_image_alloc();
	memset(image, 0, SUPER_BYTES);
	int err = rt_disk_write(disk, image, SUPER_BYTES, generation % 2 * SUPER_SLOT_BYTES, RT_IO_FUA);
	free(image);
	return err;
}

int super_write(struct rt_disk *disk, const struct super *s)
{
	uint8_t *image = page_image_alloc();
	super_encode(s, image);
	int err = rt_disk_write(disk, image, SUPER_BYTES, s->generation % 2 * SUPER_SLOT_BYTES,
				MUTANT(36) ? 0 : RT_IO_FUA);
	free(image);
	return err;
}
