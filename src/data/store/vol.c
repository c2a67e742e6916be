/*
 * vol.c: open handles, and reading through them.
 *
 * A read resolves its clusters, gathers what lies side by side on disk into single requests, sends them together and fills
 * the rest with zeroes. A ticket (space_read_enter) keeps what it found from being reused until it has been read (S4).
 */
#include "data/store/vol.h"

#include "data/store/flush.h"

#define READ_CLUSTERS 16u /* of one request resolved and read together */

/* ---- handles -------------------------------------------------------------------------------------------------------------- */

static struct vol *vol_new(struct pool *pool, struct volume *v, struct layer *l)
{
	struct vol *vol = mem_zalloc(sizeof(*vol));
	*vol = (struct vol){.pool = pool, .volume = v, .layer = l};
	vol->info.id = v ? v->id : l->id;
	vol->info.size_bytes = v ? v->size_bytes : l->size_bytes;
	vol->info.lba_bytes = v ? v->lba_bytes : l->volume->lba_bytes;
	vol->info.read_only = l || pool->options.read_only;
	group_init(&vol->calls);
	pool->open_handles++;
	return vol;
}

int vol_open(struct pool *pool, const struct uuid *id, struct vol **out)
{
	if (pool->failed)
		return OXE_FAILED;
	struct volume *v = catalog_volume_by_id(pool->catalog, id);
	struct layer *l = v ? NULL : catalog_layer_by_id(pool->catalog, id);
	if (!v && !(l && l->sealed && l->named))
		return catalog_absent(pool->catalog);
	if (v && v->head->map.lost)
		return OXE_CORRUPT;
	if (v)
		v->open_count++;
	else
		l->open_count++;
	*out = vol_new(pool, v, l);
	return 0;
}

void vol_close(struct vol *vol)
{
	group_wait(&vol->calls);
	readahead_forget(vol);
	if (vol->volume)
		vol->volume->open_count--;
	else
		vol->layer->open_count--;
	vol->pool->open_handles--;
	free(vol);
}

const struct vol_info *vol_info(const struct vol *vol)
{
	if (vol->volume) /* follows volume_grow */
		((struct vol *)vol)->info.size_bytes = vol->volume->size_bytes;
	return &vol->info;
}

struct layer *vol_top(void *ctx)
{
	struct vol *vol = ctx;
	return vol->volume ? vol->volume->head : vol->layer;
}

int vol_check(const struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, bool write)
{
	const struct vol_info *info = vol_info(vol);
	uint64_t end_bytes;
	if (vol->pool->failed)
		return OXE_FAILED;
	if (write && info->read_only)
		return OXE_ROFS;
	if (!u64_add_checked(offset_bytes, len_bytes, &end_bytes) || end_bytes > info->size_bytes)
		return OXE_RANGE;
	if (!u64_is_aligned(offset_bytes | len_bytes, info->lba_bytes))
		return OXE_ALIGN;
	return 0;
}

/* ---- the gate ------------------------------------------------------------------------------------------------------------- */

void gate_enter(struct volume *v)
{
	while (v->gate_closed)
		waitq_wait(&v->gate);
	v->writers++;
}

void gate_leave(struct volume *v)
{
	assert(v->writers > 0);
	if (--v->writers == 0 && v->gate_closed)
		waitq_wake_all(&v->gate);
}

void gate_close(struct volume *v)
{
	assert(!v->gate_closed); /* control operations are one at a time */
	v->gate_closed = true;
	while (v->writers > 0)
		waitq_wait(&v->gate);
}

void gate_open(struct volume *v)
{
	v->gate_closed = false;
	waitq_wake_all(&v->gate);
}

/* ---- cutting and batching ------------------------------------------------------------------------------------------------- */

struct cut cut_at(uint64_t offset_bytes, uint64_t len_bytes)
{
	struct cut c = {.index = (uint32_t)(offset_bytes / POOL_CLUSTER_BYTES),
			.offset_bytes = (uint32_t)(offset_bytes % POOL_CLUSTER_BYTES)};
	c.len_bytes = (uint32_t)u64_min(len_bytes, POOL_CLUSTER_BYTES - c.offset_bytes);
	c.mask = block_mask(c.offset_bytes / POOL_BLOCK_BYTES,
			    (c.offset_bytes + c.len_bytes - 1) / POOL_BLOCK_BYTES);
	c.whole_blocks = u64_is_aligned(c.offset_bytes | c.len_bytes, POOL_BLOCK_BYTES);
	return c;
}

void io_batch_init(struct io_batch *b, struct batch_io *ios, uint32_t capacity)
{
	*b = (struct io_batch){.ios = ios, .capacity = capacity};
	group_init(&b->group);
}

static void batch_io_done(struct rt_io *io)
{
	struct io_batch *b = container_of(io, struct batch_io, io)->batch;
	if (io->result && !b->err && !(io->op == RT_IO_READ && MUTANT(64)))
		b->err = io->result;
	group_done(&b->group);
}

void io_batch_add(struct io_batch *b, struct rt_disk *disk, enum rt_io_op op, void *data,
		  uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	struct rt_io *last = b->count ? &b->ios[b->count - 1].io : NULL;
	if (last && last->op == op && last->offset_bytes + last->len_bytes == offset_bytes &&
	    (uint8_t *)last->data + last->len_bytes == data) {
		last->len_bytes += len_bytes;
		return;
	}
	assert(b->count < b->capacity);
	struct batch_io *next = &b->ios[b->count++];
	next->batch = b;
	next->io = (struct rt_io){.disk = disk,
				  .op = op,
				  .data = data,
				  .offset_bytes = offset_bytes,
				  .len_bytes = len_bytes,
				  .flags = flags,
				  .done = batch_io_done};
}

void io_batch_submit(struct io_batch *b)
{
	group_add(&b->group, b->count);
	for (uint32_t i = 0; i < b->count; i++)
		rt_io_submit(&b->ios[i].io);
}

int io_batch_wait(struct io_batch *b)
{
	group_wait(&b->group);
	return b->err;
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

/* Bytes [from, to) of the cluster, clipped to one block. */
static bool clip(unsigned block, uint32_t from, uint32_t to, uint32_t *start, uint32_t *end)
{
	*start = (uint32_t)u64_max(from, block * POOL_BLOCK_BYTES);
	*end = (uint32_t)u64_min(to, (block + 1) * POOL_BLOCK_BYTES);
	return *start < *end;
}

static uint32_t part_cluster(const struct resolved *r, unsigned block)
{
	for (unsigned i = 0; i < r->part_count; i++) {
		if (r->masks[i] >> block & 1)
			return r->clusters[i];
	}
	return 0;
}

/* `data` is where byte `from` of the cluster goes. */
static void read_add(struct pool *pool, struct io_batch *b, const struct resolved *r, uint32_t from,
		     uint32_t to, uint8_t *data)
{
	for (unsigned block = from / POOL_BLOCK_BYTES; block * POOL_BLOCK_BYTES < to; block++) {
		uint32_t start, end;
		if (!clip(block, from, to, &start, &end))
			continue;
		uint32_t cluster = part_cluster(r, block);
		if (cluster)
			io_batch_add(b, pool->disk, RT_IO_READ, data + (start - from),
				     (uint64_t)cluster * POOL_CLUSTER_BYTES + start, end - start, 0);
		else
			memset(data + (start - from), 0, end - start);
	}
}

int cluster_read(struct pool *pool, resolve_top_fn *top, void *ctx, uint32_t index, uint16_t mask,
		 uint8_t *data)
{
	struct batch_io ios[BLOCKS_PER_CLUSTER];
	struct io_batch b;
	struct resolved r;
	io_batch_init(&b, ios, BLOCKS_PER_CLUSTER);
	uint32_t ticket = space_read_enter(pool->space);
	int err = resolve_blocks(pool, top, ctx, index, mask, &r);
	for (unsigned block = 0; !err && block < BLOCKS_PER_CLUSTER; block++) {
		if (mask >> block & 1)
			read_add(pool, &b, &r, block * POOL_BLOCK_BYTES, (block + 1) * POOL_BLOCK_BYTES,
				 data + block * POOL_BLOCK_BYTES);
	}
	if (!err) {
		io_batch_submit(&b);
		err = io_batch_wait(&b);
	}
	space_read_leave(pool->space, ticket);
	return err;
}

/* Up to READ_CLUSTERS clusters. */
static int read_some(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct batch_io *ios = mem_alloc(READ_CLUSTERS * BLOCKS_PER_CLUSTER * sizeof(*ios));
	struct io_batch b;
	int err = 0;
	io_batch_init(&b, ios, READ_CLUSTERS * BLOCKS_PER_CLUSTER);
	while (!err && len_bytes > 0) {
		struct cut c = cut_at(offset_bytes, len_bytes);
		struct resolved r;
		err = resolve_blocks(vol->pool, vol_top, vol, c.index, c.mask, &r);
		if (!err)
			read_add(vol->pool, &b, &r, c.offset_bytes, c.offset_bytes + c.len_bytes, data);
		data += c.len_bytes;
		offset_bytes += c.len_bytes;
		len_bytes -= c.len_bytes;
	}
	if (!err) {
		io_batch_submit(&b);
		err = io_batch_wait(&b);
	}
	free(ios);
	return err;
}

/* The common case: all in one cluster and from one place, or nothing stored. */
static int read_small(struct vol *vol, uint8_t *data, const struct cut *c)
{
	struct resolved r;
	int err = resolve_blocks(vol->pool, vol_top, vol, c->index, c->mask, &r);
	if (err)
		return err;
	if (r.part_count == 1 && r.masks[0] == c->mask)
		return rt_disk_read(vol->pool->disk, data, c->len_bytes,
				    (uint64_t)r.clusters[0] * POOL_CLUSTER_BYTES + c->offset_bytes);
	if (r.part_count == 0) {
		memset(data, 0, c->len_bytes);
		return 0;
	}
	struct batch_io ios[BLOCKS_PER_CLUSTER];
	struct io_batch b;
	io_batch_init(&b, ios, BLOCKS_PER_CLUSTER);
	read_add(vol->pool, &b, &r, c->offset_bytes, c->offset_bytes + c->len_bytes, data);
	io_batch_submit(&b);
	return io_batch_wait(&b);
}

int vol_read_stored(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct pool *pool = vol->pool;
	int err = 0;
	uint32_t ticket = space_read_enter(pool->space);
	struct cut c = cut_at(offset_bytes, len_bytes);
	if (c.len_bytes == len_bytes) {
		err = read_small(vol, data, &c);
		len_bytes = 0;
	}
	while (!err && len_bytes > 0) {
		uint64_t limit = READ_CLUSTERS * POOL_CLUSTER_BYTES - offset_bytes % POOL_CLUSTER_BYTES;
		uint64_t step = u64_min(len_bytes, limit);
		err = read_some(vol, data, offset_bytes, step);
		data += step;
		offset_bytes += step;
		len_bytes -= step;
	}
	space_read_leave(pool->space, ticket);
	return err;
}

/* The device wants whole sectors and aligned memory; the caller may have neither. */
static int read_bounced(struct vol *vol, uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint8_t *bounce = io_alloc(POOL_CLUSTER_BYTES);
	int err = bounce ? 0 : OXE_NOMEM;
	while (!err && len_bytes > 0) {
		struct cut c = cut_at(offset_bytes, len_bytes);
		err = cluster_read(vol->pool, vol_top, vol, c.index, c.mask, bounce);
		if (!err)
			memcpy(data, bounce + c.offset_bytes, c.len_bytes);
		data += c.len_bytes;
		offset_bytes += c.len_bytes;
		len_bytes -= c.len_bytes;
	}
	free(bounce);
	return err;
}

int vol_read(struct vol *vol, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	int err = vol_check(vol, offset_bytes, len_bytes, false);
	if (err || len_bytes == 0)
		return err;
	uint32_t lba_bytes = rt_disk_info(vol->pool->disk)->lba_bytes;
	group_add(&vol->calls, 1);
	vol->reading++;
	if (u64_is_aligned((uintptr_t)data, 512) && u64_is_aligned(offset_bytes | len_bytes, lba_bytes))
		err = readahead_read(vol, data, offset_bytes, len_bytes)
			      ? 0
			      : vol_read_stored(vol, data, offset_bytes, len_bytes);
	else
		err = read_bounced(vol, data, offset_bytes, len_bytes);
	vol->reading--;
	group_done(&vol->calls);
	return err;
}

int vol_flush(struct vol *vol)
{
	if (vol->pool->failed)
		return OXE_FAILED;
	if (vol_info(vol)->read_only)
		return 0;
	group_add(&vol->calls, 1);
	int err = flush_wait(vol->pool->flush);
	group_done(&vol->calls);
	return err;
}

/* ---- extents -------------------------------------------------------------------------------------------------------------- */

struct extent_list {
	struct vol_extent *items;
	size_t count, max;
};

/* False when the list is full. */
static bool extent_add(struct extent_list *list, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	struct vol_extent *last = list->count ? &list->items[list->count - 1] : NULL;
	if (last && last->flags == flags) {
		last->len_bytes += len_bytes;
		return true;
	}
	if (list->count == list->max)
		return false;
	list->items[list->count++] = (struct vol_extent){offset_bytes, len_bytes, flags};
	return true;
}

/* Blocks that a layer above `since` defines. 1: the chain changed while a page was read, ask again. */
static int changed_once(struct vol *vol, const struct layer *since, uint32_t index, uint16_t *changed)
{
	uint64_t generation = resolve_generation(vol->pool);
	*changed = 0;
	for (struct layer *l = vol_top(vol); l && l != (MUTANT(71) ? since->parent : since); l = l->parent) {
		struct page *leaf;
		int err = page_get(&l->map, 0, index / PAGE_FANOUT, false, &leaf);
		if (!err) {
			const struct map_entry *e = map_entry_view(leaf, index);
			*changed |= e->defined & (uint16_t) ~(MUTANT(52) ? e->zero : 0);
			page_unpin(leaf);
		}
		if (generation != resolve_generation(vol->pool))
			return 1;
		if (err && err != OXE_NOENT)
			return err;
	}
	return 0;
}

static int changed_blocks(struct vol *vol, const struct layer *since, uint32_t index, uint16_t *changed)
{
	int err;
	do
		err = changed_once(vol, since, index, changed);
	while (err > 0);
	return err;
}

static bool extents_of_cluster(struct extent_list *list, const struct cut *c, uint64_t offset_bytes,
			       const struct resolved *r, uint16_t changed)
{
	for (unsigned block = c->offset_bytes / POOL_BLOCK_BYTES;
	     block * POOL_BLOCK_BYTES < c->offset_bytes + c->len_bytes; block++) {
		uint32_t start, end;
		unsigned flags = r->hole >> block & 1	? VOL_EXTENT_HOLE | VOL_EXTENT_ZERO
				 : r->zero >> block & 1 ? VOL_EXTENT_HOLE | VOL_EXTENT_ZERO
							: 0;
		flags |= changed >> block & 1 ? VOL_EXTENT_CHANGED : 0;
		clip(block, c->offset_bytes, c->offset_bytes + c->len_bytes, &start, &end);
		if (!extent_add(list, offset_bytes + start - c->offset_bytes, end - start, flags))
			return false;
	}
	return true;
}

static int extents_walk(struct vol *vol, const struct layer *since, uint64_t offset_bytes, uint64_t len_bytes,
			struct extent_list *list)
{
	while (len_bytes > 0) {
		struct cut c = cut_at(offset_bytes, len_bytes);
		struct resolved r;
		uint16_t changed = 0;
		uint32_t next;
		int err = resolve_next(vol->pool, vol_top, vol, NULL, c.index, &next);
		if (err == OXE_NOENT || (!err && next > c.index)) { /* no layer says anything for a while */
			uint64_t end = err ? UINT64_MAX : (uint64_t)next * POOL_CLUSTER_BYTES;
			uint64_t run = u64_min(len_bytes, end - offset_bytes);
			if (!extent_add(list, offset_bytes, run, VOL_EXTENT_HOLE | VOL_EXTENT_ZERO))
				return 0;
			offset_bytes += run;
			len_bytes -= run;
			continue;
		}
		if (!err)
			err = resolve_blocks(vol->pool, vol_top, vol, c.index, c.mask, &r);
		if (!err && since)
			err = changed_blocks(vol, since, c.index, &changed);
		if (err)
			return err;
		if (!extents_of_cluster(list, &c, offset_bytes, &r, changed))
			return 0;
		offset_bytes += c.len_bytes;
		len_bytes -= c.len_bytes;
	}
	return 0;
}

static struct layer *ancestor(struct vol *vol, const struct uuid *id)
{
	struct layer *l = vol_top(vol);
	while (l && !(l->named && uuid_equal(&l->id, id)))
		l = l->parent;
	return l;
}

int vol_extents(struct vol *vol, const struct uuid *since, uint64_t offset_bytes, uint64_t len_bytes,
		struct vol_extent *extents, size_t max_extents, size_t *extent_count)
{
	struct extent_list list = {.items = extents, .max = max_extents};
	int err = vol_check(vol, offset_bytes, len_bytes, false);
	struct layer *base = since ? ancestor(vol, since) : NULL;
	if (!err && since && !base)
		err = OXE_NOENT;
	if (err)
		return err;
	group_add(&vol->calls, 1);
	if (base)
		base->open_count++; /* it must not be merged away under our feet */
	err = extents_walk(vol, base, offset_bytes, len_bytes, &list);
	if (base)
		base->open_count--;
	group_done(&vol->calls);
	*extent_count = list.count;
	return err;
}
