/*
 * replica_local.c: a copy in a pool of this process: the verbs of replica.h upon those of pool.h. How they are fenced is told in
 * replica_copy.h, what a joining copy does in replica_join.c.
 */
#include "base/crc32c.h"
#include "data/replica/replica_copy.h"

#define PIECE_BYTES  (128 * KiB) /* read and summed at a time: some 10 us of the reactor */
#define EXTENTS	     16u
#define SUMS_A_YIELD 65536u

static int local_ping(struct replica *r)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	return err ? err : call_leave(l, copy_has_failed(l->copy) ? OXE_FAILED : 0, false);
}

/* ---- data ------------------------------------------------------------------------------------------------------------------ */

static int local_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	int err = call_enter(l);
	if (err)
		return err;
	err = c->fresh ? OXE_INVAL : vol_read(c->vol, data, offset_bytes, len_bytes);
	return call_leave(l, err, false);
}

/* What a part of a block leaves of the rest is not known where nothing lies below yet. */
static int joins_whole_blocks(const struct copy *c, uint64_t offset_bytes, uint64_t len_bytes)
{
	return c->fresh && !u64_is_aligned(offset_bytes | len_bytes, POOL_BLOCK_BYTES) ? OXE_ALIGN : 0;
}

static int local_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		       unsigned vol_flags)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	if (err)
		return err;
	err = joins_whole_blocks(l->copy, offset_bytes, len_bytes);
	if (!err)
		err = vol_write(copy_top(l->copy), data, offset_bytes, len_bytes, vol_flags);
	return call_leave(l, err, true);
}

static int local_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	if (err)
		return err;
	err = joins_whole_blocks(l->copy, offset_bytes, len_bytes);
	if (!err)
		err = vol_zero(copy_top(l->copy), offset_bytes, len_bytes, vol_flags);
	return call_leave(l, err, true);
}

static int local_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	if (err)
		return err;
	err = vol_trim(copy_top(l->copy), offset_bytes, len_bytes);
	return call_leave(l, err, true);
}

static int local_flush(struct replica *r)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	return err ? err : call_leave(l, vol_flush(copy_top(l->copy)), true);
}

static int local_intents_set(struct replica *r, const struct replica_regions *regions)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	int err = call_enter(l);
	if (err)
		return err;
	c->note.intents = *regions;
	if (c->fresh)
		regions_unite(&c->note.intents, &c->left);
	regions_unite(&c->note.intents, &c->note.may_lack);
	return call_leave(l, copy_note_store(c), true);
}

static int local_made_good(struct replica *r)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	if (err)
		return err;
	l->copy->note.may_lack = (struct replica_regions){{0}};
	return call_leave(l, copy_note_store(l->copy), true);
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------- */

static int seal(struct copy *c, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	int err = 0;
	if (epoch > c->note.epoch) {
		c->note.epoch = epoch;
		err = copy_note_store(c);
	}
	if (!err && !copy_has_layer(c, layer_id, true))
		err = layer_seal(c->pool, copy_top_id(c), layer_id, name, NULL);
	return err;
}

static int local_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	struct local *l = local_of(r);
	int err = control_enter(l);
	return err ? err : control_leave(l, seal(l->copy, epoch, layer_id, name), true);
}

/* 0: it is a layer of this copy; OXE_NOENT; OXE_INVAL: another volume's. */
static int own_layer(const struct copy *c, const struct uuid *layer_id)
{
	struct snapshot_info info;
	int err = layer_get_any(c->pool, layer_id, &info);
	bool own = !err && (uuid_equal(&info.volume_id, &c->volume_id) ||
			    (c->fresh && uuid_equal(&info.volume_id, &c->fresh_id)));
	return err ? err : own ? 0 : OXE_INVAL;
}

static int layer_delete(struct copy *c, const struct uuid *layer_id)
{
	int err = own_layer(c, layer_id);
	if (err)
		return err == OXE_NOENT ? 0 : err;
	if (c->fresh && uuid_equal(layer_id, &c->note.join_id))
		return OXE_BUSY; /* the new head will stand on it */
	return snapshot_delete(c->pool, layer_id);
}

static int local_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	struct local *l = local_of(r);
	int err = control_enter(l);
	return err ? err : control_leave(l, layer_delete(l->copy, layer_id), true);
}

static int local_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	struct local *l = local_of(r);
	int err = control_enter(l);
	if (err)
		return err;
	err = own_layer(l->copy, layer_id);
	if (!err)
		err = layer_rename(l->copy->pool, layer_id, name);
	return control_leave(l, err, true);
}

/* The store wants the volume closed. */
static int revert(struct copy *c, const struct uuid *layer_id, const struct uuid *head_id)
{
	vol_close(c->vol);
	c->vol = NULL;
	int err = volume_revert(c->pool, &c->volume_id, layer_id, head_id);
	int again = vol_open(c->pool, &c->volume_id, &c->vol);
	if (!again)
		copy_follow_size(c);
	return again ? OXE_FAILED : err;
}

static int local_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	int err = control_enter(l);
	if (err)
		return err;
	if (c->fresh)
		return control_leave(l, OXE_BUSY, true);
	copy_hold(c);
	err = revert(c, layer_id, head_id);
	copy_release(c);
	return control_leave(l, err, true);
}

static int local_grow(struct replica *r, uint64_t size_bytes)
{
	struct local *l = local_of(r);
	int err = control_enter(l);
	if (err)
		return err;
	err = volume_grow(l->copy->pool, copy_top_id(l->copy), size_bytes);
	if (!err)
		copy_follow_size(l->copy);
	return control_leave(l, err, true);
}

struct layer_list {
	struct replica_layer *layers;
	size_t max, count;
	bool full;
};

static bool layer_add(void *ctx, const struct layer_info *info)
{
	struct layer_list *list = ctx;
	list->full = list->count == list->max;
	if (list->full)
		return false;
	struct replica_layer *l = &list->layers[list->count++];
	*l = (struct replica_layer){
		.id = info->id, .size_bytes = info->size_bytes, .is_origins = info->is_origins};
	memcpy(l->name, info->name, sizeof(l->name));
	return true;
}

static int layers(struct copy *c, struct layer_list *list, size_t *filled_count)
{
	int err = volume_chain(c->pool, &c->volume_id, layer_add, list);
	if (filled_count)
		*filled_count = list->count;
	if (!err && c->fresh)
		err = volume_chain(c->pool, &c->fresh_id, layer_add, list);
	return err ? err : list->full ? OXE_TOOBIG : 0;
}

static int local_layers(struct replica *r, struct replica_layer *out, size_t max, size_t *count,
			size_t *filled_count)
{
	struct local *l = local_of(r);
	struct layer_list list = {.layers = out, .max = max};
	int err = call_enter(l);
	if (err)
		return err;
	err = layers(l->copy, &list, filled_count);
	*count = list.count;
	return call_leave(l, err, false);
}

/* ---- reading layers -------------------------------------------------------------------------------------------------------- */

static int layer_open(struct copy *c, const struct uuid *layer_id, struct vol **out)
{
	if (!layer_id) {
		*out = c->vol;
		return 0;
	}
	return copy_has_layer(c, layer_id, false) ? vol_open(c->pool, layer_id, out) : OXE_NOENT;
}

/* NULL: the head, or the one that is filled. layer_leave ends it. */
static int layer_enter(struct local *l, const struct uuid *layer_id, struct vol **out)
{
	int err = call_enter(l);
	if (err)
		return err;
	err = layer_open(l->copy, layer_id, out);
	return err ? call_leave(l, err, false) : 0;
}

static int layer_leave(struct local *l, struct vol *vol, int err)
{
	if (vol != l->copy->vol)
		vol_close(vol);
	return call_leave(l, err, false);
}

static int local_layer_read(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	struct local *l = local_of(r);
	struct vol *vol;
	int err = layer_enter(l, layer_id, &vol);
	return err ? err : layer_leave(l, vol, vol_read(vol, data, offset_bytes, len_bytes));
}

static int local_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
			       uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			       size_t max_extents, size_t *extent_count)
{
	struct local *l = local_of(r);
	struct vol *vol;
	int err = layer_enter(l, layer_id, &vol);
	if (err)
		return err;
	err = vol_extents(vol, since_id, offset_bytes, len_bytes, extents, max_extents, extent_count);
	return layer_leave(l, vol, err);
}

static uint32_t crc_of_zeroes(void)
{
	static const uint8_t zeroes[REPLICA_CHECKSUM_BYTES];
	return crc32c(0, zeroes, sizeof(zeroes));
}

/* What is known to read as zeroes is not read. */
static void sum_zeroes(uint64_t len_bytes, uint32_t *crcs)
{
	uint32_t crc = crc_of_zeroes();
	uint64_t count = len_bytes / REPLICA_CHECKSUM_BYTES;
	for (uint64_t i = 0; i < count; i++) {
		crcs[i] = crc;
		if (i % SUMS_A_YIELD == SUMS_A_YIELD - 1)
			fiber_yield();
	}
}

static int sum_data(struct vol *vol, uint8_t *buffer, uint64_t offset_bytes, uint64_t len_bytes,
		    uint32_t *crcs)
{
	int err = 0;
	while (!err && len_bytes > 0) {
		uint64_t piece = u64_min(len_bytes, PIECE_BYTES);
		err = vol_read(vol, buffer, offset_bytes, piece);
		for (uint64_t at = 0; !err && at < piece; at += REPLICA_CHECKSUM_BYTES)
			*crcs++ = crc32c(0, buffer + at, REPLICA_CHECKSUM_BYTES);
		offset_bytes += piece;
		len_bytes -= piece;
	}
	return err;
}

static int sum_some(struct vol *vol, uint8_t *buffer, uint64_t *offset_bytes, uint64_t end_bytes,
		    uint32_t *crcs)
{
	struct vol_extent extents[EXTENTS];
	uint64_t first_bytes = *offset_bytes;
	size_t count;
	int err = vol_extents(vol, NULL, first_bytes, end_bytes - first_bytes, extents, EXTENTS, &count);
	for (size_t i = 0; !err && i < count; i++) {
		const struct vol_extent *e = &extents[i];
		uint32_t *to = crcs + (e->offset_bytes - first_bytes) / REPLICA_CHECKSUM_BYTES;
		if (e->flags & (VOL_EXTENT_HOLE | VOL_EXTENT_ZERO))
			sum_zeroes(e->len_bytes, to);
		else
			err = sum_data(vol, buffer, e->offset_bytes, e->len_bytes, to);
		*offset_bytes = e->offset_bytes + e->len_bytes;
	}
	return err;
}

static int sum_all(struct vol *vol, uint64_t offset_bytes, uint64_t len_bytes, uint32_t *crcs)
{
	uint8_t *buffer = aligned_alloc(RT_IO_ALIGN, PIECE_BYTES);
	uint64_t first_bytes = offset_bytes, end_bytes = offset_bytes + len_bytes;
	int err = buffer ? 0 : OXE_NOMEM;
	while (!err && offset_bytes < end_bytes)
		err = sum_some(vol, buffer, &offset_bytes, end_bytes,
			       crcs + (offset_bytes - first_bytes) / REPLICA_CHECKSUM_BYTES);
	free(buffer);
	return err;
}

static int local_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
				 uint64_t len_bytes, uint32_t *crcs)
{
	struct local *l = local_of(r);
	struct vol *vol;
	static_assert(REPLICA_CHECKSUM_BYTES == POOL_BLOCK_BYTES, "extents begin and end where sums do");
	if (!u64_is_aligned(offset_bytes | len_bytes, REPLICA_CHECKSUM_BYTES))
		return OXE_ALIGN;
	int err = layer_enter(l, layer_id, &vol);
	return err ? err : layer_leave(l, vol, sum_all(vol, offset_bytes, len_bytes, crcs));
}

const struct replica_ops replica_local_ops = {
	.open = local_open,
	.ping = local_ping,
	.create = local_create,
	.read = local_read,
	.write = local_write,
	.zero = local_zero,
	.trim = local_trim,
	.flush = local_flush,
	.intents_set = local_intents_set,
	.made_good = local_made_good,
	.seal = local_seal,
	.layer_delete = local_layer_delete,
	.layer_rename = local_layer_rename,
	.revert = local_revert,
	.grow = local_grow,
	.layers = local_layers,
	.layer_read = local_layer_read,
	.layer_extents = local_layer_extents,
	.layer_checksums = local_layer_checksums,
	.join_begin = local_join_begin,
	.fill = local_fill,
	.fill_grow = local_fill_grow,
	.fill_seal = local_fill_seal,
	.join_end = local_join_end,
	.close = local_close,
};
