/*
 * cluster_run.c: one seed: the beginning of its world, its life, and its end; see cluster_run.h.
 *
 *     director   on the loop's stack, every few hundred milliseconds: does one thing to the world, or undoes one
 *     minder     the same, often: restarts processes when their time has come, and starts an engine where none is left
 *     clients    fibers in the process of an engine: read, write, zero, trim, flush, snapshots, deletions, growth
 *     peace      on the loop's stack, often: when the faults have stopped, is all well?
 */
#include "sim/cluster_run.h"

#include "base/log.h"
#include "sim/cluster_private.h"

#include <stdarg.h>
#include <stdio.h>

struct run *the_run; /* for callbacks that get a node */

void cluster_fail(struct cluster *cl, const char *format, ...)
{
	va_list args;
	if (cl->failed)
		return;
	cl->failed = true;
	va_start(args, format);
	vsnprintf(cl->what, sizeof(cl->what), format, args);
	va_end(args);
	the_run->is_done = true;
}

/* ---- processes ----------------------------------------------------------------------------------------------------------------------------- */

static void process_main(void *arg)
{
	struct cluster_node *n = arg;
	struct rt_disk *disk;
	struct pool *pool;
	int err = rt_disk_open(rt_current(), "/dev/sda", 0, 0, &disk);
	if (!err)
		err = pool_open(disk, NULL, &pool);
	if (err && the_run->climate == FAIR) {
		cluster_fail(n->cluster, "node %u does not open its pool: %s", n->index, err_name(err));
		return;
	}
	n->is_dead = err != 0;
	if (err)
		return;
	n->pool = pool;
	n->door = replica_door_new(pool, &n->boot_id);
	if (n->cluster->wire)
		n->cluster->wire->serve(n);
}

void process_start(struct cluster_node *n)
{
	if (!sim_node_has_power(n->machine) || uuid_is_nil(&n->boot_id))
		prng_fill(n->cluster->rng, &n->boot_id, sizeof(n->boot_id));
	struct rt *rt = sim_node_start(n->machine);
	n->incarnation++;
	n->is_up = true;
	n->is_dead = false;
	n->restart_ns = 0;
	n->pool = NULL;
	n->door = NULL;
	fiber_spawn(rt, "process", process_main, n);
}

static void process_gone(struct cluster_node *n, bool power_too)
{
	struct run *r = the_run;
	if (!n->is_up)
		return;
	link_node_gone(n, power_too);
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (r->engines[i]->node == n)
			engine_over(r->engines[i]);
	n->engine = NULL;
	n->pool = NULL;
	n->door = NULL;
	n->is_up = false;
	if (power_too) {
		sim_node_power_cut(n->machine);
		memset(&n->boot_id, 0, sizeof(n->boot_id));
		n->has_all = false;
		r->report->power_cuts++;
	} else {
		sim_node_kill(n->machine);
		r->report->kills++;
	}
	n->restart_ns = now_ns(r) + 50 * NS_PER_MS + chance(r, 6 * NS_PER_S);
}

/* ---- what clients do ----------------------------------------------------------------------------------------------------------------------- */

static void doing_begin(struct run *r, struct doing *d, struct cluster_engine *e, uint64_t first,
			uint64_t count, uint64_t value)
{
	*d = (struct doing){.engine = e, .is_write = true};
	history_write_begin(r->cluster.history, &d->write, first, count, value);
	list_add_tail(&r->doing, &d->link);
	r->report->requests++;
}

static void doing_end(struct run *r, struct doing *d, bool acknowledged)
{
	list_del(&d->link);
	history_write_end(r->cluster.history, &d->write, acknowledged);
}

static bool is_over_error(int err)
{
	return err == OXE_FENCED || err == OXE_SHUTDOWN;
}

/* Errors that nothing in the world accounts for. A disk that fails requests accounts for OXE_IO, and for that of the last copy only. */
static void judge(struct run *r, struct cluster_engine *e, const char *what, int err)
{
	if (is_over_error(err))
		engine_over(e);
	else if (err && err != OXE_IO && err != OXE_NOSPC)
		cluster_fail(&r->cluster, "%s got %s", what, err_name(err));
}

/* What had been asked for before the volume went back to a smaller snapshot may be beyond its end by now. */
static int unless_shrunk(const struct run *r, uint64_t end, int err)
{
	return err == OXE_RANGE && end * HISTORY_SECTOR_BYTES > r->size_bytes ? 0 : err;
}

static void place_choose(struct run *r, uint64_t *first, uint64_t *count)
{
	uint64_t sectors = r->size_bytes / HISTORY_SECTOR_BYTES;
	*count = 1 + chance(r, chance(r, 3) ? 8 : REQUEST_SECTORS);
	*first = chance(r, 4) ? r->hot[chance(r, HOT_PLACES)] + chance(r, 24) : chance(r, sectors);
	if (chance(r, 2))
		*first &= ~(uint64_t)7, *count = (*count + 7) & ~(uint64_t)7;
	*first = u64_min(*first, sectors - 1);
	*count = u64_min(*count, sectors - *first);
}

static void client_write(struct run *r, struct cluster_engine *e, uint8_t *data)
{
	uint64_t first, count, value = ++r->next_value;
	struct doing d;
	place_choose(r, &first, &count);
	for (uint64_t i = 0; i < count; i++)
		history_fill(data + i * HISTORY_SECTOR_BYTES, value, first + i);
	doing_begin(r, &d, e, first, count, value);
	unsigned flags = chance(r, 8) ? 0 : VOL_FUA;
	int err = mirror_write(e->mirror, data, first * HISTORY_SECTOR_BYTES, count * HISTORY_SECTOR_BYTES,
			       flags);
	doing_end(r, &d, err == 0);
	if (!err && flags)
		history_write_durable(r->cluster.history, &d.write);
	judge(r, e, "a write", unless_shrunk(r, first + count, err));
}

static void client_zero(struct run *r, struct cluster_engine *e)
{
	uint64_t first, count;
	struct doing d;
	place_choose(r, &first, &count);
	doing_begin(r, &d, e, first, count, 0);
	int err = mirror_zero(e->mirror, first * HISTORY_SECTOR_BYTES, count * HISTORY_SECTOR_BYTES, 0);
	doing_end(r, &d, err == 0);
	judge(r, e, "a write of zeroes", unless_shrunk(r, first + count, err));
}

/* Whole blocks become zeroes; that is what this store does, and says. */
static void client_trim(struct run *r, struct cluster_engine *e)
{
	uint64_t first, count;
	struct doing d;
	place_choose(r, &first, &count);
	uint64_t from = (first + 7) & ~(uint64_t)7, to = (first + count) & ~(uint64_t)7;
	if (from >= to)
		return;
	doing_begin(r, &d, e, from, to - from, 0);
	int err = mirror_trim(e->mirror, first * HISTORY_SECTOR_BYTES, count * HISTORY_SECTOR_BYTES);
	doing_end(r, &d, err == 0);
	judge(r, e, "a trim", unless_shrunk(r, first + count, err));
}

static void client_read(struct run *r, struct cluster_engine *e, uint8_t *data)
{
	uint64_t first, count, asked = history_now(r->cluster.history);
	char why[700];
	place_choose(r, &first, &count);
	r->report->requests++;
	int err = mirror_read(e->mirror, data, first * HISTORY_SECTOR_BYTES, count * HISTORY_SECTOR_BYTES);
	if (!err && !history_read_end(r->cluster.history, asked, first, count, data, why, sizeof(why)))
		cluster_fail(&r->cluster, "engine %llu on node %u read what it may not: %s",
			     (unsigned long long)e->number, e->node->index, why);
	judge(r, e, "a read", unless_shrunk(r, first + count, err));
}

static void client_flush(struct run *r, struct cluster_engine *e)
{
	uint64_t asked = history_now(r->cluster.history);
	int err = mirror_flush(e->mirror);
	if (!err)
		history_flush_end(r->cluster.history, asked);
	judge(r, e, "a flush", err);
}

static void client_snapshot(struct run *r, struct cluster_engine *e)
{
	if (r->snapshot_count == SNAPSHOTS_MAX || r->snapshot_under_way)
		return;
	struct snapshot *s = &r->snapshots[r->snapshot_count++];
	uint64_t asked = history_now(r->cluster.history);
	prng_fill(r->cluster.rng, &s->id, sizeof(s->id));
	snprintf(s->name, sizeof(s->name), "s%u", r->snapshot_count);
	r->snapshot_under_way = e;
	int err = mirror_snapshot(e->mirror, &s->id, s->name, NULL);
	r->snapshot_under_way = NULL;
	if (!err)
		s->image = history_image_new(r->cluster.history, asked);
	judge(r, e, "a snapshot", err);
}

static void client_snapshot_delete(struct run *r, struct cluster_engine *e)
{
	if (r->snapshot_count == 0 || r->snapshot_under_way)
		return;
	struct snapshot *s = &r->snapshots[chance(r, r->snapshot_count)];
	s->is_deleted = true;
	int err = mirror_layer_delete(e->mirror, &s->id);
	judge(r, e, "the deletion of a snapshot", err);
}

static struct snapshot *snapshot_any(struct run *r)
{
	struct snapshot *s = r->snapshot_count ? &r->snapshots[chance(r, r->snapshot_count)] : NULL;
	return s && s->image && !s->is_deleted ? s : NULL;
}

static void client_snapshot_read(struct run *r, struct cluster_engine *e, uint8_t *data)
{
	struct snapshot *s = snapshot_any(r);
	uint64_t first, count;
	char why[400];
	if (!s)
		return;
	place_choose(r, &first, &count);
	int err = mirror_layer_read(e->mirror, &s->id, data, first * HISTORY_SECTOR_BYTES,
				    count * HISTORY_SECTOR_BYTES);
	if (!err && !history_image_check(s->image, first, count, data, why, sizeof(why)))
		cluster_fail(&r->cluster, "engine %llu on node %u read of snapshot %s what it may not: %s",
			     (unsigned long long)e->number, e->node->index, s->name, why);
	bool may = err == OXE_RANGE || (err == OXE_NOENT && s->is_deleted);
	judge(r, e, "a read of a snapshot", may ? 0 : err);
}

static void client_rename(struct run *r, struct cluster_engine *e)
{
	struct snapshot *s = snapshot_any(r);
	char name[POOL_NAME_MAX + 1];
	if (!s || r->snapshot_under_way)
		return;
	r->snapshot_under_way = e;
	s->is_renamed = true;
	snprintf(name, sizeof(name), "s%llu", (unsigned long long)++r->next_value);
	int err = mirror_layer_rename(e->mirror, &s->id, name);
	r->snapshot_under_way = NULL;
	s->is_renamed = err != 0;
	if (!err)
		memcpy(s->name, name, sizeof(name));
	judge(r, e, "renaming a snapshot", err == OXE_NOENT && s->is_deleted ? 0 : err);
}

static bool layer_is_last(void *ctx, const struct replica_layer *layer)
{
	*(struct replica_layer *)ctx = *layer;
	return true;
}

/* To the youngest. How large the volume is while nobody knows whether it has gone back: clients keep to what is there in any case. */
static void client_revert(struct run *r, struct cluster_engine *e)
{
	struct replica_layer last = {0};
	struct doing d = {.engine = e, .is_write = true};
	struct uuid head_id;
	mirror_snapshot_walk(e->mirror, layer_is_last, &last);
	struct snapshot *s = NULL;
	for (uint32_t i = 0; i < r->snapshot_count; i++)
		if (uuid_equal(&r->snapshots[i].id, &last.id))
			s = &r->snapshots[i];
	if (!s || !s->image || s->is_deleted || r->snapshot_under_way)
		return;
	r->snapshot_under_way = e;
	r->size_bytes = u64_min(r->size_bytes, last.size_bytes);
	history_revert_begin(r->cluster.history, &d.write, s->image);
	list_add_tail(&r->doing, &d.link);
	prng_fill(r->cluster.rng, &head_id, sizeof(head_id));
	int err = mirror_revert(e->mirror, &last.id, &head_id, NULL);
	r->size_bytes = err ? r->size_bytes : last.size_bytes;
	list_del(&d.link);
	history_revert_end(r->cluster.history, &d.write, err == 0);
	if (!err && chance(r, 2)) { /* as one does who did not hear the answer; others have written since */
		fiber_sleep(chance(r, NS_PER_S));
		err = mirror_revert(e->mirror, &last.id, &head_id, NULL);
	}
	r->snapshot_under_way = NULL;
	judge(r, e, "going back to a snapshot", err == OXE_BUSY || err == OXE_NOENT ? 0 : err);
}

static void client_grow(struct run *r, struct cluster_engine *e)
{
	uint64_t size_bytes = r->size_bytes + (1 + chance(r, 3)) * MiB;
	if (size_bytes > VOLUME_BYTES_MAX || r->snapshot_under_way)
		return;
	history_grow(r->cluster.history, VOLUME_BYTES_MAX / HISTORY_SECTOR_BYTES);
	r->snapshot_under_way = e;
	int err = mirror_grow(e->mirror, size_bytes);
	r->snapshot_under_way = NULL;
	if (!err)
		r->size_bytes = u64_max(r->size_bytes, size_bytes);
	judge(r, e, "growing", err == OXE_INVAL ? 0 : err);
}

/* Nothing rots in this world: whatever it finds is false, or a bug that clients have not met yet. */
static void client_scrub(struct run *r, struct cluster_engine *e)
{
	struct mirror_scrub_status status;
	mirror_scrub_status(e->mirror, &status);
	for (uint32_t i = 0; i < status.finding_count; i++)
		if (!status.findings[i].is_unreadable)
			cluster_fail(&r->cluster,
				     "engine %llu on node %u found members to differ at byte %llu",
				     (unsigned long long)e->number, e->node->index,
				     (unsigned long long)status.findings[i].offset_bytes);
	if (chance(r, 8) == 0)
		mirror_scrub_stop(e->mirror);
	else
		mirror_scrub_start(e->mirror, chance(r, 2) ? 0 : (1 + chance(r, 16)) * MiB);
}

static void client_act_rarely(struct run *r, struct cluster_engine *e, uint8_t *data)
{
	switch (chance(r, 8)) {
	case 0:
		client_grow(r, e);
		break;
	case 1:
		client_revert(r, e);
		break;
	case 2:
		client_rename(r, e);
		break;
	case 3 ... 4:
		client_scrub(r, e);
		break;
	default:
		client_snapshot_read(r, e, data);
	}
}

static void client_act(struct run *r, struct cluster_engine *e, uint8_t *data)
{
	switch (chance(r, 64)) {
	case 0:
		client_snapshot(r, e);
		break;
	case 1:
		client_snapshot_delete(r, e);
		break;
	case 2:
		client_act_rarely(r, e, data);
		break;
	case 3 ... 6:
		client_flush(r, e);
		break;
	case 7 ... 10:
		client_zero(r, e);
		break;
	case 11 ... 12:
		client_trim(r, e);
		break;
	case 13 ... 36:
		client_read(r, e, data);
		break;
	default:
		client_write(r, e, data);
	}
}

void client_main(void *arg)
{
	struct cluster_engine *e = arg;
	struct run *r = the_run;
	uint8_t *data = cluster_buffer(REQUEST_SECTORS * HISTORY_SECTOR_BYTES + 8 * HISTORY_SECTOR_BYTES);
	int err = mirror_wait(e->mirror, UINT64_MAX / 2);
	if (err)
		engine_over(e);
	while (!e->is_over && !r->clients_stop && !r->is_done) {
		client_act(r, e, data);
		fiber_sleep(chance(r, 8) ? chance(r, 12 * NS_PER_MS) : chance(r, 300 * NS_PER_MS));
	}
	free(data);
}

/* ---- engines ------------------------------------------------------------------------------------------------------------------------------- */

/* Its clients are answered, one by one, unless its process is gone. */
void engine_over(struct cluster_engine *e)
{
	if (e->is_over)
		return;
	e->is_over = true;
	the_run->engine_wanted_ns = now_ns(the_run) + chance(the_run, 2 * NS_PER_S);
}

/* Its fibers never run again. */
void clients_cut_off(struct run *r, struct cluster_node *n)
{
	struct doing *d, *tmp;
	list_for_each_safe (d, tmp, &r->doing, link) {
		if (d->engine->node != n)
			continue;
		list_del(&d->link);
		history_write_end(r->cluster.history, &d->write, false);
	}
	if (r->snapshot_under_way && r->snapshot_under_way->node == n)
		r->snapshot_under_way = NULL;
}

static struct replica *copy_find(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	struct cluster_node *from = ctx;
	struct cluster *cl = from->cluster;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *to = &cl->nodes[i];
		if (!uuid_equal(&to->pool_id, pool_id))
			continue;
		if (to != from && cl->wire)
			return cl->wire->replica_new(from, to, volume_id);
		if (to != from)
			return link_new(from, to, volume_id);
		return from->door ? replica_local_new(from->door, volume_id) : NULL;
	}
	return NULL;
}

static void engine_main(void *arg)
{
	struct cluster_engine *e = arg;
	struct cluster_node *n = e->node;
	struct mirror_options options = {.volume_id = n->cluster->volume_id,
					 .engine_id = e->id,
					 .views = views_new(n),
					 .replica_new = copy_find,
					 .ctx = n,
					 .intent_idle_ns = NS_PER_S,
					 .absent_max_ns = 8 * NS_PER_S,
					 .absent_max_bytes = 2 * MiB};
	int err = mirror_new(rt_current(), &options, &e->mirror);
	if (err)
		cluster_fail(n->cluster, "mirror_new: %s", err_name(err));
	for (uint32_t i = 0; !err && i < CLIENTS; i++)
		fiber_spawn(rt_current(), "client", client_main, e);
}

/* On a node that runs none; an older one elsewhere may live on without knowing. */
void engine_start(struct run *r)
{
	uint32_t first = (uint32_t)chance(r, CLUSTER_NODES);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[(first + i) % CLUSTER_NODES];
		if (!n->is_up || (n->engine && !n->engine->is_over) || r->engine_count == ENGINES_MAX)
			continue;
		struct cluster_engine *e = mem_zalloc(sizeof(*e));
		e->node = n;
		e->number = ++r->report->engines;
		prng_fill(r->cluster.rng, &e->id, sizeof(e->id));
		n->engine = r->engines[r->engine_count++] = e;
		sim_trace(r->cluster.sim, "engine", e->number, n->index, 0);
		fiber_spawn(sim_node_rt(n->machine), "engine", engine_main, e);
		return;
	}
}

static bool an_engine_lives(const struct run *r)
{
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (!r->engines[i]->is_over)
			return true;
	return false;
}

/* Else the one that lives was there before: it may serve for as long as nobody opens its copies, and change no view. */
static bool the_owner_lives(const struct run *r)
{
	for (uint32_t i = 0; i < r->engine_count; i++)
		if (!r->engines[i]->is_over && uuid_equal(&r->engines[i]->id, &r->cluster.view.engine_id))
			return true;
	return false;
}

void node_down(struct run *r, struct cluster_node *n, bool power_too)
{
	if (!n->is_up)
		return;
	sim_trace(r->cluster.sim, power_too ? "power-cut" : "kill", n->index, 0, 0);
	clients_cut_off(r, n); /* first: what they had asked lies on their stacks */
	process_gone(n, power_too);
}

/* ---- the minder ---------------------------------------------------------------------------------------------------------------------------- */

static bool pool_failed(const struct cluster_node *n)
{
	struct pool_stats stats;
	if (!n->pool)
		return false;
	pool_stats(n->pool, &stats);
	return stats.failed;
}

static bool is_member(const struct cluster_node *n)
{
	struct view_replica *e = view_find(&n->cluster->view, &n->pool_id);
	return e && e->role == VIEW_MEMBER;
}

/* Whoever is no member has everything when it becomes one. */
static void who_has_all(struct run *r)
{
	bool all = true;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		n->has_all |= !is_member(n);
		all &= n->has_all;
	}
	if (all || !all_is_even(r))
		return;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		r->cluster.nodes[i].has_all = true;
}

void minder(void *arg)
{
	struct run *r = arg;
	if (r->is_done)
		return;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		if (pool_failed(n) || n->is_dead)
			node_down(r, n, false);
		if (!n->is_up && n->restart_ns && now_ns(r) >= n->restart_ns)
			process_start(n);
	}
	if (!an_engine_lives(r) && now_ns(r) >= r->engine_wanted_ns)
		engine_start(r);
	if (r->faults_are_over && !the_owner_lives(r) && now_ns(r) >= r->engine_wanted_ns + 10 * NS_PER_S) {
		r->engine_wanted_ns = now_ns(r);
		engine_start(r);
	}
	who_has_all(r);
	if (r->faults_are_over)
		fillers_delete(r);
	sim_at(r->cluster.sim, now_ns(r) + 20 * NS_PER_MS, minder, r);
}

/* V3, V11: is there a machine that stays on, and has everything that was acknowledged? */
bool another_has_all(struct run *r, const struct cluster_node *cut)
{
	bool any = false;
	who_has_all(r);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		const struct cluster_node *n = &r->cluster.nodes[i];
		any |= n != cut && n->has_all && !n->has_lost_sectors && is_member(n);
	}
	return any || !is_member(cut);
}

/* ---- the beginning ------------------------------------------------------------------------------------------------------------------------- */

static void pool_make(void *arg)
{
	struct cluster_node *n = arg;
	struct rt_disk *disk;
	struct pool_format_spec spec = {.id = n->pool_id};
	struct pool *pool;
	snprintf(spec.name, sizeof(spec.name), "pool%u", n->index);
	int err = rt_disk_open(rt_current(), "/dev/sda", 0, 0, &disk);
	if (!err)
		err = pool_format(disk, &spec, false);
	if (!err)
		err = pool_open(disk, NULL, &pool);
	if (!err && view_find(&n->cluster->view, &n->pool_id)) {
		struct volume_spec volume = {
			.id = n->cluster->volume_id, .size_bytes = VOLUME_BYTES, .lba_bytes = 512};
		memcpy(volume.name, "volume", sizeof("volume"));
		err = volume_create(pool, &volume);
	}
	if (!err && the_run->climate == SMALL_POOLS && chance(the_run, 2))
		err = filler_make(n, pool);
	if (!err)
		err = pool_close(pool);
	if (err)
		cluster_fail(n->cluster, "making a pool: %s", err_name(err));
	n->restart_ns = 1;
}

static void world_make(struct run *r)
{
	struct cluster *cl = &r->cluster;
	static const char *const names[CLUSTER_NODES] = {"a", "b", "c", "d"};
	prng_fill(cl->rng, &cl->volume_id, sizeof(cl->volume_id));
	cl->view = (struct view){.volume_id = cl->volume_id, .epoch = 1};
	cl->revision = 1;
	uint32_t copies = 2 + (uint32_t)chance(r, 3);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &cl->nodes[i];
		*n = (struct cluster_node){
			.cluster = cl, .index = i, .machine = sim_node_new(cl->sim, names[i])};
		prng_fill(cl->rng, &n->pool_id, sizeof(n->pool_id));
		sim_disk_new(n->machine, "/dev/sda", DISK_BYTES, 512);
		if (i < copies)
			cl->view.replicas[cl->view.replica_count++] = (struct view_replica){
				.pool_id = n->pool_id,
				.role = i < 2 || chance(r, 2) ? VIEW_MEMBER : VIEW_ABSENT};
	}
	for (uint32_t i = 0; i < HOT_PLACES; i++)
		r->hot[i] = chance(r, VOLUME_BYTES / HISTORY_SECTOR_BYTES - 64);
	heal_all(r);
}

static void pools_make(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		fiber_spawn(sim_node_start(n->machine), "format", pool_make, n);
	}
	(void)sim_run(r->cluster.sim, NULL, UINT64_MAX);
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		sim_node_stop(r->cluster.nodes[i].machine);
		process_start(&r->cluster.nodes[i]);
	}
}

static void log_line(void *ctx, const struct log_event *event)
{
	struct run *r = ctx;
	char line[600];
	log_format_text(event, line, sizeof(line));
	r->tell(now_ns(r), line);
}

static void run_live(struct run *r)
{
	world_make(r);
	pools_make(r);
	r->actions_left = 10 + (uint32_t)chance(r, 30);
	sim_at(r->cluster.sim, now_ns(r), minder, r);
	sim_at(r->cluster.sim, now_ns(r) + 3 * NS_PER_S, director, r);
	sim_at(r->cluster.sim, now_ns(r) + 200 * NS_PER_MS, judge_peace, r);
	if (!r->cluster.failed && sim_run(r->cluster.sim, &r->is_done, 3600 * NS_PER_S) != SIM_DONE)
		cluster_fail(&r->cluster, "an hour passed, or nothing will ever happen again");
}

/* What was to happen later happens now, to nobody: no process is up, and nobody waits. */
static void world_end(struct run *r)
{
	r->is_done = true;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		r->cluster.nodes[i].is_up = false;
	link_calls_abandon(&r->cluster);
	sim_free(r->cluster.sim);
}

static void run_end(struct run *r)
{
	for (uint32_t i = 0; i < r->snapshot_count; i++)
		if (r->snapshots[i].image)
			history_image_free(r->snapshots[i].image);
	for (uint32_t i = 0; i < r->engine_count; i++)
		free(r->engines[i]);
	history_free(r->cluster.history);
}

bool cluster_run(const struct cluster_spec *spec, struct cluster_report *report)
{
	struct run *r = the_run = mem_zalloc(sizeof(*r));
	*report = (struct cluster_report){0};
	r->report = report;
	r->size_bytes = VOLUME_BYTES;
	list_init(&r->doing);
	list_init(&r->cluster.calls);
	r->cluster.wire = spec->wire;
	r->cluster.sim = sim_new(spec->seed);
	r->cluster.rng = sim_prng(r->cluster.sim);
	r->cluster.history = history_new(VOLUME_BYTES_MAX / HISTORY_SECTOR_BYTES);
	sim_shuffle(r->cluster.sim, spec->seed % 2);
	r->climate = climate_of(spec->seed);
	r->tell = spec->tell;
	if (r->tell)
		log_sink_set(log_line, r, LOG_LEVEL_DEBUG);
	run_live(r);
	report->swaps = r->cluster.swaps;
	report->virtual_ns = now_ns(r);
	report->hash = sim_trace_hash(r->cluster.sim);
	report->failed = r->cluster.failed;
	memcpy(report->what, r->cluster.what, sizeof(report->what));
	if (report->failed && spec->story)
		sim_trace_print(r->cluster.sim, spec->story, 40);
	log_sink_set(NULL, NULL, LOG_LEVEL_ERROR);
	world_end(r);
	link_calls_free(&r->cluster);
	run_end(r);
	free(r);
	return !report->failed;
}
