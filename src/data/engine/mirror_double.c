/* mirror_double.c: see mirror_double.h. */
#include "data/engine/mirror_double.h"

#include "data/replica/replica.h"

#include <stdio.h>

#define DISK_BYTES (64 * MiB)

struct mirror_double mirrored;

/* ---- a copy that can be cut off ------------------------------------------------------------------------------------------ */

struct way {
	struct replica r;
	struct replica *copy;
	unsigned index;
};

static struct way *way_of(struct replica *r)
{
	return container_of(r, struct way, r);
}

static bool is_cut(const struct replica *r)
{
	return mirrored.is_cut[way_of((struct replica *)r)->index];
}

/* What was under way when it was cut off may have happened. */
static int after(const struct replica *r, int err)
{
	return is_cut(r) ? OXE_INDOUBT : err;
}

#define CALL(r, verb, ...)                                                                                   \
	({                                                                                                   \
		struct replica *copy_ = way_of(r)->copy;                                                     \
		is_cut(r) ? OXE_CLOSED : after(r, copy_->ops->verb(copy_, ##__VA_ARGS__));                   \
	})

static int way_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		    struct replica_state *out)
{
	return CALL(r, open, epoch, engine_id, out);
}

static int way_ping(struct replica *r)
{
	return CALL(r, ping);
}

static int way_create(struct replica *r, const struct volume_spec *spec)
{
	return CALL(r, create, spec);
}

static int way_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return CALL(r, read, data, offset_bytes, len_bytes);
}

static int way_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		     unsigned flags)
{
	mirrored.durable += (flags & VOL_FUA) != 0;
	return CALL(r, write, data, offset_bytes, len_bytes, flags);
}

static int way_zero(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	mirrored.durable += (flags & VOL_FUA) != 0;
	return CALL(r, zero, offset_bytes, len_bytes, flags);
}

static int way_trim(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	return CALL(r, trim, offset_bytes, len_bytes);
}

static int way_flush(struct replica *r)
{
	mirrored.durable++;
	return CALL(r, flush);
}

static int way_intents_set(struct replica *r, const struct replica_regions *regions)
{
	return CALL(r, intents_set, regions);
}

static int way_made_good(struct replica *r)
{
	return CALL(r, made_good);
}

static int way_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	return CALL(r, seal, epoch, layer_id, name);
}

static int way_layer_delete(struct replica *r, const struct uuid *layer_id)
{
	return CALL(r, layer_delete, layer_id);
}

static int way_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return CALL(r, layer_rename, layer_id, name);
}

static int way_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	return CALL(r, revert, layer_id, head_id);
}

static int way_grow(struct replica *r, uint64_t size_bytes)
{
	return CALL(r, grow, size_bytes);
}

static int way_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
		      size_t *filled_count)
{
	return CALL(r, layers, layers, max, count, filled_count);
}

static int way_layer_read(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			  uint64_t len_bytes)
{
	return CALL(r, layer_read, layer_id, data, offset_bytes, len_bytes);
}

static int way_layer_extents(struct replica *r, const struct uuid *layer_id, const struct uuid *since_id,
			     uint64_t offset_bytes, uint64_t len_bytes, struct vol_extent *extents,
			     size_t max_extents, size_t *extent_count)
{
	return CALL(r, layer_extents, layer_id, since_id, offset_bytes, len_bytes, extents, max_extents,
		    extent_count);
}

static int way_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
			       uint64_t len_bytes, uint32_t *crcs)
{
	return CALL(r, layer_checksums, layer_id, offset_bytes, len_bytes, crcs);
}

static int way_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	return CALL(r, join_begin, join_id, size_bytes);
}

static int way_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	return CALL(r, fill, data, offset_bytes, len_bytes);
}

static int way_fill_grow(struct replica *r, uint64_t size_bytes)
{
	return CALL(r, fill_grow, size_bytes);
}

static int way_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name)
{
	return CALL(r, fill_seal, layer_id, name);
}

static int way_join_end(struct replica *r)
{
	return CALL(r, join_end);
}

static void way_close(struct replica *r)
{
	struct way *w = way_of(r);
	w->copy->ops->close(w->copy);
	free(w);
}

static const struct replica_ops way_ops = {
	.open = way_open,
	.ping = way_ping,
	.create = way_create,
	.read = way_read,
	.write = way_write,
	.zero = way_zero,
	.trim = way_trim,
	.flush = way_flush,
	.intents_set = way_intents_set,
	.made_good = way_made_good,
	.seal = way_seal,
	.layer_delete = way_layer_delete,
	.layer_rename = way_layer_rename,
	.revert = way_revert,
	.grow = way_grow,
	.layers = way_layers,
	.layer_read = way_layer_read,
	.layer_extents = way_layer_extents,
	.layer_checksums = way_layer_checksums,
	.join_begin = way_join_begin,
	.fill = way_fill,
	.fill_grow = way_fill_grow,
	.fill_seal = way_fill_seal,
	.join_end = way_join_end,
	.close = way_close,
};

static struct replica *way_new(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	(void)ctx;
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++) {
		if (!uuid_equal(&mirrored.pool_ids[i], pool_id))
			continue;
		struct way *w = mem_zalloc(sizeof(*w));
		w->copy = replica_local_new(mirrored.doors[i], volume_id);
		w->index = i;
		w->r = *w->copy;
		w->r.ops = &way_ops;
		w->r.is_local = !mirrored.is_far[i];
		return &w->r;
	}
	return NULL;
}

/* ---- views and notes ------------------------------------------------------------------------------------------------------- */

static int views_get(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision)
{
	(void)s;
	fiber_sleep(NS_PER_MS);
	if (mirrored.views_away)
		return OXE_NOTREADY;
	CHECK(uuid_equal(volume_id, &mirrored.volume));
	*out = mirrored.view;
	*revision = mirrored.revision;
	return 0;
}

static int views_swap(struct view_store *s, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	(void)s;
	fiber_sleep(NS_PER_MS);
	if (mirrored.views_away)
		return OXE_NOTREADY;
	if (revision != mirrored.revision)
		return OXE_DIFFERS;
	mirrored.view = *v;
	*new_revision = ++mirrored.revision;
	return 0;
}

static int notes_set(struct engine_notes *n, const struct uuid *volume_id, enum pool_note_kind kind,
		     const void *data, uint32_t len_bytes)
{
	(void)n;
	fiber_sleep(NS_PER_MS);
	CHECK(uuid_equal(volume_id, &mirrored.volume));
	if (mirrored.notes_err)
		return mirrored.notes_err;
	if (len_bytes > 0)
		memcpy(mirrored.note[kind], data, len_bytes);
	mirrored.note_bytes[kind] = len_bytes;
	return 0;
}

static int notes_get(struct engine_notes *n, const struct uuid *volume_id, enum pool_note_kind kind,
		     void *data, uint32_t *len_bytes)
{
	(void)n;
	fiber_sleep(NS_PER_MS);
	CHECK(uuid_equal(volume_id, &mirrored.volume));
	if (mirrored.notes_err)
		return mirrored.notes_err;
	if (mirrored.note_bytes[kind] == 0)
		return OXE_NOENT;
	memcpy(data, mirrored.note[kind], mirrored.note_bytes[kind]);
	*len_bytes = mirrored.note_bytes[kind];
	return 0;
}

/* ---- the world ---------------------------------------------------------------------------------------------------------------- */

static const char *const disk_names[MIRROR_DOUBLE_POOLS] = {"/dev/sda", "/dev/sdb", "/dev/sdc"};

static void pool_up(unsigned i)
{
	struct pool_format_spec spec = {.id = rt_random_uuid(mirrored.rt)};
	struct uuid boot_id = {{1}};
	struct rt_disk *disk;
	snprintf(spec.name, sizeof(spec.name), "p%u", i);
	mirrored.pool_ids[i] = spec.id;
	CHECK_OK(rt_disk_open(mirrored.rt, disk_names[i], 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	CHECK_OK(pool_open(disk, NULL, &mirrored.pools[i]));
	mirrored.doors[i] = replica_door_new(mirrored.pools[i], &boot_id);
}

/* Empty copies, as whoever makes a volume makes them before any engine. */
static void copy_create(unsigned i)
{
	struct volume_spec spec = {.name = "~copy", .id = mirrored.volume, .size_bytes = MIRROR_DOUBLE_BYTES};
	CHECK_OK(volume_create_any(mirrored.pools[i], &spec));
	mirrored.view.replicas[mirrored.view.replica_count++] =
		(struct view_replica){.pool_id = mirrored.pool_ids[i], .role = VIEW_MEMBER};
}

void mirror_double_up(void)
{
	struct mirror_options o = {
		.volume_id = mirrored.volume, .views = &mirrored.views, .replica_new = way_new};
	CHECK_OK(mirror_new(mirrored.rt, &o, &mirrored.mirror));
	CHECK_OK(engines_add_mirror(mirrored.engines,
				    &(struct engine_mirror_options){.name = "disk",
								    .mirror = mirrored.mirror,
								    .notes = &mirrored.notes}));
}

void mirror_double_down(void (*evict)(void))
{
	mirror_stop(mirrored.mirror);
	for (int i = 0; i < 100; i++) {
		if (evict)
			evict();
		if (engines_remove_mirror(mirrored.engines, &mirrored.volume) == 0)
			break;
		CHECK(i < 99);
		fiber_sleep(10 * NS_PER_MS);
	}
	mirror_close(mirrored.mirror);
}

void mirror_double_usurp(void)
{
	mirrored.view.epoch++;
	mirrored.view.engine_id = rt_random_uuid(mirrored.rt);
	mirrored.revision++;
	for (unsigned i = 0; i < mirrored.view.replica_count; i++) {
		struct replica_state *state = mem_alloc(sizeof(*state));
		struct replica *r = replica_local_new(mirrored.doors[i], &mirrored.volume);
		CHECK_OK(r->ops->open(r, mirrored.view.epoch, &mirrored.view.engine_id, state));
		r->ops->close(r);
		free(state);
	}
}

void mirror_double_whole(void)
{
	struct mirror_status s;
	for (;;) {
		unsigned members = 0;
		mirror_status(mirrored.mirror, &s);
		for (unsigned i = 0; i < s.copy_count; i++)
			members += s.copies[i].role == VIEW_MEMBER && s.copies[i].session == MIRROR_OPEN;
		if (s.serves && s.copy_count > 0 && members == s.copy_count)
			return;
		fiber_sleep(10 * NS_PER_MS);
	}
}

static void world_up(unsigned copies)
{
	mirrored.volume = rt_random_uuid(mirrored.rt);
	mirrored.view.volume_id = mirrored.volume;
	mirrored.views = (struct view_store){.get = views_get, .swap = views_swap};
	mirrored.notes = (struct engine_notes){.set = notes_set, .get = notes_get};
	mirrored.engines = engines_new(mirrored.rt);
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++) {
		pool_up(i);
		engines_add_pool(mirrored.engines, mirrored.pools[i]);
		if (i < copies)
			copy_create(i);
	}
	mirror_double_up();
}

static void world_down(void)
{
	struct pool_check_result result;
	mirror_double_down(NULL);
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++) {
		CHECK_OK(engines_remove_pool(mirrored.engines, mirrored.pools[i]));
		replica_door_free(mirrored.doors[i]);
		CHECK_OK(pool_check(mirrored.pools[i], NULL, NULL, &result));
		CHECK_EQ(result.problem_count, 0);
		CHECK_OK(pool_close(mirrored.pools[i]));
	}
	engines_free(mirrored.engines);
}

static void world_main(void *arg)
{
	world_up(*(unsigned *)arg);
	mirrored.body();
	world_down();
	mirrored.is_done = true;
}

static void run_once(uint64_t seed, unsigned copies, void (*body)(void))
{
	memset(&mirrored, 0, sizeof(mirrored));
	mirrored.seed = seed;
	mirrored.body = body;
	mirrored.sim = sim_new(seed);
	sim_shuffle(mirrored.sim, seed & 1);
	mirrored.node = sim_node_new(mirrored.sim, "a");
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++) {
		struct sim_disk *disk = sim_disk_new(mirrored.node, disk_names[i], DISK_BYTES, 512);
		sim_disk_faults(disk)->latency_min_ns = 50 * NS_PER_US;
		sim_disk_faults(disk)->latency_max_ns = 500 * NS_PER_US;
	}
	mirrored.rt = sim_node_start(mirrored.node);
	fiber_spawn_big(mirrored.rt, "test", world_main, &copies);
	enum sim_end end = sim_run(mirrored.sim, &mirrored.is_done, 3600 * NS_PER_S);
	if (end != SIM_DONE)
		test_fail(__FILE__, __LINE__, "seed %llu: the test never ended (%s)",
			  (unsigned long long)seed, end == SIM_STUCK ? "stuck" : "late");
	sim_node_stop(mirrored.node);
	sim_free(mirrored.sim);
}

void mirror_double_run(unsigned seeds, unsigned copies, void (*body)(void))
{
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_once(seed, copies, body);
}
