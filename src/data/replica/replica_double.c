/* replica_double.c: see replica_double.h. */
#include "data/replica/replica_double.h"

#include "base/crc32c.h"

struct double_replica {
	struct replica base;
	int (*next)(void *ctx);
	void *ctx;
};

static unsigned count;
static volatile uint32_t looked; /* at every byte that is given: a sanitizer sees what may not be */

static int answer(struct replica *r)
{
	struct double_replica *d = container_of(r, struct double_replica, base);
	return d->next(d->ctx);
}

static void look(const void *data, size_t len_bytes)
{
	looked += crc32c(0, data, len_bytes);
}

static void look_at_name(const char *name)
{
	look(name, strlen(name));
	assert(strlen(name) <= POOL_NAME_MAX);
}

static int double_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		       struct replica_state *out)
{
	look(engine_id, sizeof(*engine_id));
	*out = (struct replica_state){
		.epoch_before = epoch, .exists = true, .size_bytes = MiB, .lba_bytes = 512};
	return answer(r);
}

static int double_ping(struct replica *r)
{
	return answer(r);
}

static int double_create(struct replica *r, const struct volume_spec *spec)
{
	look_at_name(spec->name);
	return answer(r);
}

static int double_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	memset(data, (int)offset_bytes, len_bytes);
	return answer(r);
}

static int double_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
			unsigned vol_flags)
{
	(void)offset_bytes;
	(void)vol_flags;
	look(data, len_bytes);
	return answer(r);
}

static int double_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned vol_flags)
{
	(void)vol_flags;
	assert(offset_bytes <= VOLUME_SIZE_MAX && len_bytes <= VOLUME_SIZE_MAX);
	return answer(r);
}

static int double_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	return double_zero(r, offset_bytes, len_bytes, 0);
}

static int double_intents_set(struct replica *r, const struct replica_regions *regions)
{
	look(regions, sizeof(*regions));
	return answer(r);
}

static int double_named(struct replica *r, const struct uuid *layer_id, const char *name)
{
	look(layer_id, sizeof(*layer_id));
	look_at_name(name);
	return answer(r);
}

static int double_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	(void)epoch;
	return double_named(r, layer_id, name);
}

static int double_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	look(layer_id, sizeof(*layer_id));
	return answer(r);
}

static int double_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	look(head_id, sizeof(*head_id));
	return double_layer_delete(r, layer_id);
}

static int double_size(struct replica *r, uint64_t size_bytes)
{
	(void)size_bytes;
	return answer(r);
}

static int double_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *layer_count,
			 size_t *filled_count)
{
	memset(layers, 'x', max * sizeof(*layers));
	for (size_t i = 0; i < max; i++)
		layers[i].name[POOL_NAME_MAX] = 0;
	*layer_count = *filled_count = max;
	return answer(r);
}

static int double_layer_read(struct replica *r, const struct uuid *layer_id, void *data,
			     uint64_t offset_bytes, uint64_t len_bytes)
{
	if (layer_id)
		look(layer_id, sizeof(*layer_id));
	return double_read(r, data, offset_bytes, len_bytes);
}

static int double_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
				uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
				size_t max_extents, size_t *extent_count)
{
	(void)layer_id;
	(void)since_id;
	for (size_t i = 0; i < max_extents; i++)
		extents[i] = (struct vol_extent){offset_bytes + i, len_bytes, VOL_EXTENT_ZERO};
	*extent_count = max_extents;
	return answer(r);
}

static int double_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
				  uint64_t len_bytes, uint32_t *crcs)
{
	(void)layer_id;
	(void)offset_bytes;
	memset(crcs, 1, len_bytes / REPLICA_CHECKSUM_BYTES * sizeof(*crcs));
	return answer(r);
}

static int double_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	(void)size_bytes;
	return double_layer_delete(r, join_id);
}

static int double_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	(void)offset_bytes;
	if (data)
		look(data, len_bytes);
	return answer(r);
}

static void double_close(struct replica *r)
{
	count--;
	free(container_of(r, struct double_replica, base));
}

static const struct replica_ops double_ops = {
	.open = double_open,
	.ping = double_ping,
	.create = double_create,
	.read = double_read,
	.write = double_write,
	.zero = double_zero,
	.trim = double_trim,
	.flush = double_ping,
	.intents_set = double_intents_set,
	.made_good = double_ping,
	.seal = double_seal,
	.layer_delete = double_layer_delete,
	.layer_rename = double_named,
	.revert = double_revert,
	.grow = double_size,
	.layers = double_layers,
	.layer_read = double_layer_read,
	.layer_extents = double_layer_extents,
	.layer_checksums = double_layer_checksums,
	.join_begin = double_join_begin,
	.fill = double_fill,
	.fill_grow = double_size,
	.fill_seal = double_named,
	.join_end = double_ping,
	.close = double_close,
};

struct replica *replica_double_new(int (*next)(void *ctx), void *ctx)
{
	struct double_replica *d = mem_zalloc(sizeof(*d));
	d->base.ops = &double_ops;
	d->next = next;
	d->ctx = ctx;
	count++;
	return &d->base;
}

unsigned replica_double_count(void)
{
	return count;
}
