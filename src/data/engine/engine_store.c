/*
 * engine_store.c: what is served of a pool of this process: a volume or a snapshot, through one handle of the store.
 */
#include "data/engine/engine_internal.h"

static int store_open(struct engine *e)
{
	return vol_open(e->target.pool, &e->target.id, &e->vol);
}

static void store_close(struct engine *e)
{
	vol_close(e->vol);
}

static int store_wait(struct engine *e, uint64_t deadline_ns)
{
	(void)e;
	(void)deadline_ns;
	return 0;
}

static const struct vol_info *store_info(struct engine *e)
{
	return vol_info(e->vol);
}

static int store_read(struct engine *e, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return vol_read(e->vol, data, offset_bytes, len_bytes);
}

static int store_write(struct engine *e, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		       unsigned vol_flags)
{
	return vol_write(e->vol, data, offset_bytes, len_bytes, vol_flags);
}

static int store_zero(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	return vol_zero(e->vol, offset_bytes, len_bytes, vol_flags);
}

static int store_trim(struct engine *e, uint64_t offset_bytes, uint64_t len_bytes)
{
	return vol_trim(e->vol, offset_bytes, len_bytes);
}

static int store_flush(struct engine *e)
{
	return vol_flush(e->vol);
}

static int store_extents(struct engine *e, const char *since_snapshot, uint64_t offset_bytes,
			 uint64_t len_bytes, struct vol_extent *extents, size_t max_extents,
			 size_t *extent_count)
{
	struct snapshot_info since;
	int err = since_snapshot ? snapshot_find(e->target.pool, &e->target.volume_id, since_snapshot, &since)
				 : 0;
	if (err)
		return err;
	return vol_extents(e->vol, since_snapshot ? &since.id : NULL, offset_bytes, len_bytes, extents,
			   max_extents, extent_count);
}

struct name_walk {
	bool (*fn)(void *ctx, const char *snapshot);
	void *ctx;
};

static bool pass_name(void *ctx, const struct snapshot_info *s)
{
	struct name_walk *w = ctx;
	return w->fn(w->ctx, s->name);
}

static void store_snapshot_walk(const struct engine *e, bool (*fn)(void *ctx, const char *snapshot),
				void *ctx)
{
	struct name_walk w = {fn, ctx};
	snapshot_walk(e->target.pool, &e->target.volume_id, pass_name, &w);
}

const struct engine_ops engine_store_ops = {
	.open = store_open,
	.close = store_close,
	.wait = store_wait,
	.info = store_info,
	.read = store_read,
	.write = store_write,
	.zero = store_zero,
	.trim = store_trim,
	.flush = store_flush,
	.extents = store_extents,
	.snapshot_walk = store_snapshot_walk,
};
