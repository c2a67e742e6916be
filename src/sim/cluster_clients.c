/*
 * cluster_clients.c: what clients do, and what they may be told.
 *
 * A client is a fiber in the process of its engine: it reads, writes, zeroes, trims, flushes, grows, makes snapshots, reads, renames and deletes
 * them and goes back to them, each at random, until its engine is over. What it asked and what it was answered goes into the history, which says
 * whether that can be; an error that nothing in the world accounts for fails the seed. A request lies on its client's stack and in the list of what is
 * being done: when the process is gone, nobody knows its outcome.
 */
#include "sim/cluster_private.h"

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
	snprintf(name, sizeof(name), "r%llu", (unsigned long long)++r->next_value);
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
