/*
 * cluster_peace.c: what must hold in the end.
 *
 * When the faults have stopped, all has to become even within two minutes while clients still work: the volume is served by the engine
 * that owns the view, every copy is a member, open, and lacks nothing. Then the clients stop, and an inspector reads everything, lets a bit rot
 * perhaps (cluster_rot.c), compares the copies layer by layer, past any engine, and has each pool checked. Should an engine that began before peace
 * take the volume over meanwhile, all is waited for again, within the same two minutes.
 */
#include "sim/cluster_private.h"

/* What is read to be compared, by one inspector at a time. Fresh memory for each was a quarter of all page faults. */
static _Alignas(RT_IO_ALIGN) uint8_t rooms[2][VOLUME_BYTES_MAX];

struct cluster_engine *engine_that_serves(const struct run *r, struct mirror_status *status)
{
	for (uint32_t i = 0; i < r->engine_count; i++) {
		struct cluster_engine *e = r->engines[i];
		if (e->is_over || !e->mirror || !uuid_equal(&e->id, &r->cluster.view.engine_id))
			continue;
		mirror_status(e->mirror, status);
		if (status->serves)
			return e;
	}
	return NULL;
}

bool all_is_even(const struct run *r)
{
	struct mirror_status status;
	if (!engine_that_serves(r, &status) || status.unsettled_count || r->cluster.view.seal_count)
		return false;
	for (uint32_t i = 0; i < status.copy_count; i++)
		if (status.copies[i].role != VIEW_MEMBER || status.copies[i].session != MIRROR_OPEN ||
		    status.copies[i].may_lack)
			return false;
	for (uint32_t i = 0; i < CLUSTER_NODES; i++)
		if (!r->cluster.nodes[i].is_up || !r->cluster.nodes[i].pool ||
		    sim_node_is_paused(r->cluster.nodes[i].machine))
			return false;
	return status.copy_count > 0;
}

/* Compare two copies' layers (NULL: heads), and a snapshot with what it may hold. */
static bool layer_equal(struct run *r, struct replica *a, struct replica *b,
			const struct replica_layer *layer, uint64_t size_bytes)
{
	uint8_t *x = rooms[0], *y = rooms[1];
	bool same = true;
	for (uint64_t at = 0; same && at < size_bytes; at += MiB) {
		uint64_t len_bytes = u64_min(MiB, size_bytes - at);
		int err = a->ops->layer_read(a, layer ? &layer->id : NULL, x, at, len_bytes);
		if (!err)
			err = b->ops->layer_read(b, layer ? &layer->id : NULL, y, at, len_bytes);
		if (err) {
			cluster_fail(&r->cluster, "layer %s cannot be read in the end: %s",
				     layer ? layer->name : "(head)", err_name(err));
			same = false;
		} else if (memcmp(x, y, len_bytes) != 0) {
			uint64_t i = 0;
			while (x[i] == y[i])
				i++;
			cluster_fail(&r->cluster, "members differ in %s at byte %llu (sector %llu)",
				     layer ? layer->name : "their heads", (unsigned long long)(at + i),
				     (unsigned long long)((at + i) / HISTORY_SECTOR_BYTES));
			same = false;
		}
	}
	return same;
}

static void snapshot_check(struct run *r, struct replica *a, const struct replica_layer *layer)
{
	char why[400];
	for (uint32_t i = 0; i < r->snapshot_count; i++) {
		struct snapshot *s = &r->snapshots[i];
		if (!uuid_equal(&s->id, &layer->id) || !s->image)
			continue;
		uint64_t bytes =
			u64_min(history_image_sectors(s->image) * HISTORY_SECTOR_BYTES, layer->size_bytes);
		uint8_t *data = rooms[0];
		int err = a->ops->layer_read(a, &layer->id, data, 0, bytes);
		if (err ||
		    !history_image_check(s->image, 0, bytes / HISTORY_SECTOR_BYTES, data, why, sizeof(why)))
			cluster_fail(&r->cluster, "snapshot %s: %s", s->name, err ? err_name(err) : why);
	}
}

/* One that was acknowledged, and that nobody ever asked to delete. */
static void snapshots_are_there(struct run *r, const struct replica_layer *layers, size_t count)
{
	for (uint32_t i = 0; i < r->snapshot_count; i++) {
		const struct snapshot *s = &r->snapshots[i];
		bool found = !s->image || s->is_deleted;
		for (size_t j = 0; !found && j < count; j++)
			found = uuid_equal(&layers[j].id, &s->id);
		if (!found)
			cluster_fail(&r->cluster, "snapshot %s was acknowledged, and is not there", s->name);
	}
}

static void pools_check(struct run *r)
{
	for (uint32_t i = 0; i < CLUSTER_NODES; i++) {
		struct pool_check_result result;
		int err = pool_check(r->cluster.nodes[i].pool, NULL, NULL, &result);
		if (err || result.problem_count)
			cluster_fail(&r->cluster, "the pool of node %u has %llu problems in the end (%s)", i,
				     (unsigned long long)result.problem_count, err_name(err));
	}
}

/* Is each snapshot called the same in all, and what its clients were told? */
static void names_check(struct run *r, const struct replica_layer *layers, size_t count)
{
	for (uint32_t i = 0; i < r->snapshot_count; i++) {
		struct snapshot *s = &r->snapshots[i];
		for (size_t j = 0; j < count; j++) {
			if (!uuid_equal(&s->id, &layers[j].id) || strcmp(s->name, layers[j].name) == 0)
				continue;
			if (!s->is_renamed)
				cluster_fail(&r->cluster, "snapshot %s is called %s in a member", s->name,
					     layers[j].name);
			s->is_renamed = false; /* settled now, for the members to come */
			memcpy(s->name, layers[j].name, sizeof(s->name));
		}
	}
}

static bool layer_missing(const struct replica_layer *wanted, const struct replica_layer *layers,
			  size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (uuid_equal(&layers[i].id, &wanted->id))
			return false;
	return wanted->name[0] != '~';
}

/* All copies directly, as if through an engine newer than all: nothing writes meanwhile. */
static int copies_compare(struct run *r)
{
	struct replica *copies[CLUSTER_NODES];
	struct replica_state *state = mem_zalloc(sizeof(*state));
	struct replica_layer *layers[2] = {mem_zalloc(REPLICA_LAYERS_MAX * sizeof(**layers)),
					   mem_zalloc(REPLICA_LAYERS_MAX * sizeof(**layers))};
	size_t counts[2] = {0, 0};
	struct uuid me = {{0xff}};
	uint32_t copy_count = 0;
	int err = 0;
	for (uint32_t i = 0; !err && i < CLUSTER_NODES; i++) {
		struct cluster_node *n = &r->cluster.nodes[i];
		struct view_replica *e = view_find(&r->cluster.view, &n->pool_id);
		if (!e)
			continue;
		struct replica *c = copies[copy_count++] = replica_local_new(n->door, &r->cluster.volume_id);
		err = c->ops->open(c, r->cluster.view.epoch + 1, &me, state);
	}
	for (uint32_t i = 0; !err && i < copy_count && !r->cluster.failed; i++) {
		err = copies[i]->ops->layers(copies[i], layers[i > 0], REPLICA_LAYERS_MAX, &counts[i > 0],
					     NULL);
		if (!err)
			names_check(r, layers[i > 0], counts[i > 0]);
		if (err || i == 0)
			continue;
		(void)layer_equal(r, copies[0], copies[i], NULL, state->size_bytes);
		for (size_t j = 0; j < counts[0] && !r->cluster.failed; j++) {
			if (!layer_missing(&layers[0][j], layers[1], counts[1]) &&
			    layers[0][j].name[0] != '~')
				(void)layer_equal(r, copies[0], copies[i], &layers[0][j],
						  layers[0][j].size_bytes);
			else if (layers[0][j].name[0] != '~')
				cluster_fail(&r->cluster, "snapshot %s is missing in a member",
					     layers[0][j].name);
		}
	}
	for (size_t j = 0; j < counts[0] && !r->cluster.failed && !err; j++)
		snapshot_check(r, copies[0], &layers[0][j]);
	if (!err)
		snapshots_are_there(r, layers[0], counts[0]);
	if (err && !is_over_error(err))
		cluster_fail(&r->cluster, "a copy cannot be looked at in the end: %s", err_name(err));
	for (uint32_t i = 0; i < copy_count; i++)
		copies[i]->ops->close(copies[i]);
	free(state);
	free(layers[0]);
	free(layers[1]);
	return err;
}

static int read_all(struct run *r, struct cluster_engine *e)
{
	uint8_t *data = rooms[0];
	char why[700];
	int err = 0;
	for (uint64_t at = 0; !err && at < r->size_bytes && !r->cluster.failed; at += MiB) {
		uint64_t len_bytes = u64_min(MiB, r->size_bytes - at),
			 asked = history_now(r->cluster.history);
		err = mirror_read(e->mirror, data, at, len_bytes);
		if (is_over_error(err))
			break;
		if (err)
			cluster_fail(&r->cluster, "reading everything in the end: %s", err_name(err));
		else if (!history_read_end(r->cluster.history, asked, at / HISTORY_SECTOR_BYTES,
					   len_bytes / HISTORY_SECTOR_BYTES, data, why, sizeof(why)))
			cluster_fail(&r->cluster, "in the end: %s", why);
	}
	return err;
}

/* An engine that began before peace may be on its way to take the volume over: OXE_FENCED is its word, and then nothing is judged yet. */
static int inspect(struct run *r, struct cluster_engine *e, const struct mirror_status *status)
{
	int err = read_all(r, e);
	if (!err && !r->cluster.failed && chance(r, 2))
		err = rot_one(r, e, status->copy_count);
	if (!err && !r->cluster.failed)
		err = copies_compare(r);
	if (!err && !r->cluster.failed)
		pools_check(r);
	return err;
}

static void inspector(void *arg)
{
	struct run *r = arg;
	struct mirror_status status;
	struct cluster_engine *e = engine_that_serves(r, &status);
	assert(e);
	if (is_over_error(inspect(r, e, &status)) && !r->cluster.failed) {
		sim_trace(r->cluster.sim, "replaced", e->number, e->node->index, 0);
		engine_over(e);
		sim_at(r->cluster.sim, now_ns(r), judge_peace, r);
		return;
	}
	for (uint32_t i = 0; i < status.copy_count; i++)
		r->report->filled_bytes += status.copies[i].filled_bytes;
	r->is_done = true;
}

void explain_stuck(struct run *r)
{
	char text[600];
	size_t used = 0;
	struct mirror_status s;
	for (uint32_t i = 0; i < r->engine_count; i++) {
		struct cluster_engine *e = r->engines[i];
		if (e->is_over || !e->mirror || used >= sizeof(text))
			continue;
		mirror_status(e->mirror, &s);
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 " engine %llu: %s, awaits %x, epoch %llu, unsettled %u, %s;",
					 (unsigned long long)e->number, mirror_todo_name(s.doing), s.awaited,
					 (unsigned long long)s.epoch, s.unsettled_count,
					 s.serves ? "serves" : "holds");
		for (uint32_t j = 0; j < s.copy_count && used < sizeof(text); j++)
			used += (size_t)snprintf(text + used, sizeof(text) - used,
						 " %u %s session %u %s joins failed %u;", j,
						 view_role_name(s.copies[j].role), s.copies[j].session,
						 err_name(s.copies[j].last_err), s.copies[j].joins_failed);
	}
	text[sizeof(text) - 1] = 0;
	cluster_fail(&r->cluster, "peace came %llu s ago and not all is well:%s",
		     (unsigned long long)(WELL_WITHIN_NS / NS_PER_S), used ? text : " no engine");
}

static bool clients_have_stopped(const struct run *r)
{
	return r->clients_stop && list_empty(&r->doing);
}

/* Peace: all must become even while clients still work, and then they stop. */
void judge_peace(void *arg)
{
	struct run *r = arg;
	struct mirror_status status;
	if (r->is_done)
		return;
	if (!r->faults_are_over)
		r->peace_ns = now_ns(r);
	if (r->faults_are_over && now_ns(r) > r->peace_ns + WELL_WITHIN_NS)
		explain_stuck(r);
	if (r->faults_are_over && all_is_even(r))
		r->clients_stop = true;
	struct cluster_engine *e = engine_that_serves(r, &status);
	if (clients_have_stopped(r) && e && all_is_even(r)) {
		if (r->cluster.swaps - r->swaps_at_peace > 60)
			cluster_fail(&r->cluster, "the view changed %llu times after peace",
				     (unsigned long long)(r->cluster.swaps - r->swaps_at_peace));
		fiber_spawn(sim_node_rt(e->node->machine), "inspector", inspector, r);
		return;
	}
	sim_at(r->cluster.sim, now_ns(r) + 200 * NS_PER_MS, judge_peace, r);
}
