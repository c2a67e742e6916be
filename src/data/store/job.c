/*
 * job.c: background work, derived from the catalog alone, so that a restart resumes it (S6).
 *
 *     a sealed layer without a name ...          job       one step
 *       and without children                     drop      some clusters of a leaf are given back (RECORD_DROP)
 *       with one child                           merge     some clusters move into the child (RECORD_MERGE)
 *       with several                             -         it stays until one is left
 *     a volume marked VOLUME_FLATTEN             flatten   a cluster is copied into its lowest own layer (RECORD_DEFINE)
 *
 * One fiber does one step after another; each step is whole or absent. Only this fiber removes layers, so a layer it works on
 * stays valid while it waits. Volumes may go at any time and are looked up again for each step.
 *
 * A step that fails (an unreadable page, a full pool) is logged once and its job is left until something changes or
 * RETRY_AFTER_NS has passed: nothing loops, nothing else waits for it.
 */
#include "base/log.h"
#include "data/store/cluster_op.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/vol.h"

#define MERGE_CLUSTERS 16u
#define DROP_CLUSTERS  64u
#define RETRY_AFTER_NS (60 * NS_PER_S)

struct jobs {
	struct pool *pool;
	bool started, stopping, stopped, kicked, idle, stepping;
	uint32_t paused;
	int stuck_err;	 /* of a job that could not go on in the last pass */
	int logged_err;	 /* said already, since the jobs were last started on */
	uint64_t number; /* of the layer or volume being worked on; 0: none */
	uint64_t done_clusters, total_clusters;
	uint64_t not_before_ns; /* the rate limit */
	struct waitq work, changed;
};

struct jobs *jobs_new(struct pool *pool)
{
	struct jobs *j = mem_zalloc(sizeof(*j));
	j->pool = pool;
	j->stopped = true;
	waitq_init(&j->work);
	waitq_init(&j->changed);
	return j;
}

void jobs_free(struct jobs *j)
{
	assert(j->stopped);
	free(j);
}

/* ---- between steps ---------------------------------------------------------------------------------------------------------------- */

static void spend(struct jobs *j, uint64_t bytes)
{
	uint64_t rate = j->pool->options.background_bytes_per_s;
	uint64_t now_ns = rt_now_ns(j->pool->rt);
	if (rate)
		j->not_before_ns = u64_max(j->not_before_ns, now_ns) + bytes * NS_PER_S / rate;
}

/* May the next step begin? Waits for the rate and for whoever paused us. False: stop. */
static bool step_begin(struct jobs *j)
{
	j->stepping = false;
	waitq_wake_all(&j->changed);
	fiber_yield();
	while (!j->stopping && !j->pool->failed) {
		if (j->paused)
			waitq_wait(&j->work);
		else if (j->pool->options.background_bytes_per_s && rt_now_ns(j->pool->rt) < j->not_before_ns)
			waitq_wait_until(&j->work, j->not_before_ns);
		else
			break;
	}
	j->stepping = !j->stopping && !j->pool->failed;
	return j->stepping;
}

void jobs_pause(struct jobs *j)
{
	j->paused++;
	while (j->stepping)
		waitq_wait(&j->changed);
}

void jobs_resume(struct jobs *j)
{
	assert(j->paused > 0);
	j->paused--;
	waitq_wake_all(&j->work);
}

static bool may_reap(const struct layer *l)
{
	return l->sealed && !l->named && l->open_count == 0 && l->child_count <= 1;
}

static int layer_remove(struct pool *pool, const struct layer *l)
{
	struct record_layer_one r = {.head = {.type = RECORD_LAYER_REMOVE, .len_bytes = sizeof(r)},
				     .number = number_of(l->number)};
	return record_do(pool, &r.head, false);
}

static bool entry_is_empty(const struct map_entry *e)
{
	return e->defined == 0;
}

/* ---- drop -------------------------------------------------------------------------------------------------------------------------- */

/* The next run of clusters of the layer that have something, at or after *index; OXE_NOENT at the end. */
static int next_run(struct layer *l, uint32_t *index, uint32_t max, uint32_t *count)
{
	for (;;) {
		uint64_t leaf_index = *index / PAGE_FANOUT;
		struct page *leaf;
		int err = page_next_leaf(&l->map, &leaf_index, &leaf);
		if (err)
			return err;
		uint32_t end = (uint32_t)((leaf_index + 1) * PAGE_FANOUT);
		*index = (uint32_t)u64_max(*index, leaf_index * PAGE_FANOUT);
		while (*index < end && entry_is_empty(map_entry_view(leaf, *index)))
			++*index;
		for (*count = 0; *index + *count < end && *count < max; ++*count) {
			if (entry_is_empty(map_entry_view(leaf, *index + *count)))
				break;
		}
		page_unpin(leaf);
		if (*count > 0)
			return 0;
	}
}

static int drop_step(struct jobs *j, struct layer *l, uint32_t *index)
{
	struct record_drop r = {.head = {.type = RECORD_DROP, .len_bytes = sizeof(r)},
				.layer = number_of(l->number)};
	int err = next_run(l, index, DROP_CLUSTERS, &r.count);
	if (err)
		return err;
	r.index = *index;
	err = record_do(j->pool, &r.head, false);
	*index += r.count;
	j->done_clusters += r.count;
	return err;
}

/* ---- merge ------------------------------------------------------------------------------------------------------------------------- */

struct merge {
	struct jobs *jobs;
	struct layer *layer, *child;
	uint32_t index, count;
	struct cluster_hold from[MERGE_CLUSTERS], to[MERGE_CLUSTERS];
	struct record_merge records[MERGE_CLUSTERS];
	struct page *leaf, *child_leaf;
	uint8_t *buffer; /* a cluster */
	uint64_t copied_bytes;
};

static int copy_blocks(struct merge *m, uint32_t from, uint32_t to, uint16_t mask)
{
	struct rt_disk *disk = m->jobs->pool->disk;
	int err = 0;
	for (unsigned first = 0; !err && first < BLOCKS_PER_CLUSTER; first++) {
		unsigned count = 0;
		while (first + count < BLOCKS_PER_CLUSTER && (mask >> (first + count) & 1))
			count++;
		if (!count)
			continue;
		uint64_t offset_bytes = first * POOL_BLOCK_BYTES, len_bytes = count * POOL_BLOCK_BYTES;
		err = rt_disk_read(disk, m->buffer, len_bytes,
				   (uint64_t)from * POOL_CLUSTER_BYTES + offset_bytes);
		if (!err)
			err = rt_disk_write(disk, m->buffer, len_bytes,
					    (uint64_t)to * POOL_CLUSTER_BYTES + offset_bytes, 0);
		m->copied_bytes += len_bytes;
		first += count;
	}
	return err;
}

/* Which cluster the merged entry keeps: pointers move where masks allow, else the smaller side is copied into places of the
 * larger that nobody can see. */
static int plan_one(struct merge *m, uint32_t index, struct record_merge *r)
{
	const struct map_entry *p = map_entry_view(m->leaf, index), *c = map_entry_view(m->child_leaf, index);
	uint16_t below = p->defined & (uint16_t)~p->zero & (uint16_t)~c->defined;
	uint16_t above = c->defined & (uint16_t)~c->zero;
	*r = (struct record_merge){.head = {.type = RECORD_MERGE, .len_bytes = sizeof(*r)},
				   .layer = number_of(m->layer->number),
				   .child = number_of(m->child->number),
				   .index = index,
				   .defined = c->defined | p->defined,
				   .zero = c->zero | (MUTANT(38) ? 0 : p->zero & (uint16_t)~c->defined)};
	if (!m->layer->parent) { /* nothing left to hide */
		r->defined &= (uint16_t)~r->zero;
		r->zero = 0;
	}
	r->cluster = above ? c->cluster : below ? p->cluster : 0;
	if (!above || !below)
		return 0;
	if (__builtin_popcount(below) <= __builtin_popcount(above))
		return copy_blocks(m, p->cluster, c->cluster, below);
	r->cluster = p->cluster;
	return copy_blocks(m, c->cluster, p->cluster, above);
}

/* A merge moves blocks away from where their unsettled records say they are: settle those first. */
static int settle_all(struct merge *m)
{
	struct flush *f = m->jobs->pool->flush;
	uint64_t seq, latest = 0;
	for (uint32_t i = 0; i < m->count; i++) {
		if (unsettled_get(f, m->layer->number, m->index + i, UINT16_MAX, &seq))
			latest = u64_max(latest, seq);
		if (unsettled_get(f, m->child->number, m->index + i, UINT16_MAX, &seq))
			latest = u64_max(latest, seq);
	}
	return latest && !MUTANT(11) ? flush_settle(f, latest) : 0;
}

/* Everything is held. Copies must be durable before a record makes them the only ones. */
static int merge_copy(struct merge *m)
{
	int err = settle_all(m);
	for (uint32_t i = 0; !err && i < m->count; i++)
		err = plan_one(m, m->index + i, &m->records[i]);
	if (!err && m->copied_bytes && !MUTANT(12))
		err = flush_wait(m->jobs->pool->flush);
	return err;
}

/* Bring in the bitmap pages of both sides of every cluster. */
static int merge_pin(struct merge *m, struct pins *pins)
{
	int err = 0;
	for (uint32_t i = 0; !err && i < 2 * m->count; i++) {
		uint32_t cluster = map_entry_view(i % 2 ? m->leaf : m->child_leaf, m->index + i / 2)->cluster;
		if (!cluster)
			continue;
		err = space_bitmap_pin(m->jobs->pool->space, cluster, &pins->pages[pins->count]);
		pins->count += !err;
	}
	return err;
}

static int merge_commit(struct merge *m, uint32_t *reserved)
{
	struct pool *pool = m->jobs->pool;
	struct pins pins = {.count = 0};
	uint64_t seq = 0;
	int err = merge_pin(m, &pins);
	for (uint32_t i = 0; !err && i < m->count; i++) {
		cluster_hold_changed(&m->from[i], map_entry_view(m->leaf, m->index + i));
		cluster_hold_changed(&m->to[i], map_entry_view(m->child_leaf, m->index + i));
		seq = record_commit(pool, &m->records[i].head);
		flush_moved(pool->flush, seq);
		--*reserved;
	}
	pins_release(&pins);
	return err ? err : journal_wait(pool->journal, seq);
}

static int merge_held(struct merge *m, uint32_t *reserved)
{
	struct pool *pool = m->jobs->pool;
	int err = merge_copy(m);
	if (err)
		return err;
	uint32_t ticket =
		space_read_enter(pool->space); /* readers still see the old entries until the holds go */
	err = merge_commit(m, reserved);
	for (uint32_t i = 0; i < m->count; i++) {
		cluster_release(pool->ops, &m->from[i]);
		cluster_release(pool->ops, &m->to[i]);
		resolve_forget(pool, m->layer, m->index + i); /* answers found meanwhile were the old ones */
	}
	space_read_leave(pool->space, ticket);
	return err;
}

static int merge_hold(struct merge *m)
{
	struct pool *pool = m->jobs->pool;
	uint32_t reserved = m->count;
	int err = checkpoint_throttle(pool);
	if (!err)
		err = journal_reserve(pool->journal, reserved);
	if (err)
		return err;
	for (uint32_t i = 0; i < m->count; i++) {
		cluster_hold(pool->ops, &m->from[i], m->layer, m->index + i, UINT16_MAX, true);
		cluster_hold(pool->ops, &m->to[i], m->child, m->index + i, UINT16_MAX, true);
	}
	err = merge_held(m, &reserved);
	for (uint32_t i = 0; i < m->count; i++) { /* after an error */
		cluster_release(pool->ops, &m->from[i]);
		cluster_release(pool->ops, &m->to[i]);
	}
	journal_unreserve(pool->journal, reserved);
	return err;
}

static int merge_leaves(struct merge *m)
{
	int err = page_get(&m->layer->map, 0, m->index / PAGE_FANOUT, false, &m->leaf);
	if (err)
		return err;
	err = tree_raise(&m->child->map, m->index / PAGE_FANOUT + 1);
	if (!err)
		err = page_get(&m->child->map, 0, m->index / PAGE_FANOUT, true, &m->child_leaf);
	if (!err) {
		err = merge_hold(m);
		page_unpin(m->child_leaf);
	}
	page_unpin(m->leaf);
	return err;
}

static int merge_step(struct jobs *j, struct layer *l, uint32_t *index)
{
	struct merge *m = mem_zalloc(sizeof(*m));
	m->jobs = j;
	m->layer = l;
	m->child = list_first(&l->children, struct layer, sibling);
	int err = next_run(l, index, MERGE_CLUSTERS, &m->count);
	if (!err) {
		m->index = *index;
		m->buffer = aligned_alloc(RT_IO_ALIGN, POOL_CLUSTER_BYTES);
		err = m->buffer ? merge_leaves(m) : OXE_NOMEM;
		*index += m->count;
		j->done_clusters += m->count;
		spend(j, m->copied_bytes);
		free(m->buffer);
	}
	free(m);
	return err;
}

/* A merge may copy over blocks that only the layer's own readers could see. It has none, but only as long as the record that
 * took its name away is not lost: without this a power cut brought a snapshot back with other content (S6). */
static int name_gone_for_good(struct pool *pool)
{
	uint32_t chain;
	uint64_t seq = journal_cut(pool->journal, &chain);
	return MUTANT(14) ? 0 : flush_records(pool->flush, seq);
}

/* ---- reap: drop or merge a whole layer ---------------------------------------------------------------------------------------------- */

static int reap(struct jobs *j, uint64_t number)
{
	struct pool *pool = j->pool;
	uint32_t index = 0;
	int err = name_gone_for_good(pool);
	j->number = number;
	j->done_clusters = 0;
	while (!err) {
		if (!step_begin(j))
			return OXE_SHUTDOWN;
		struct layer *l = catalog_layer(pool->catalog, number);
		if (!l || !may_reap(l))
			return 0;
		j->total_clusters = j->done_clusters + l->cluster_count;
		err = l->child_count ? merge_step(j, l, &index) : drop_step(j, l, &index);
		if (err == OXE_NOENT)
			return layer_remove(pool, l);
	}
	return err;
}

/* ---- flatten ------------------------------------------------------------------------------------------------------------------------ */

static struct layer *lowest_own(const struct volume *v)
{
	struct layer *l = v->head;
	while (l->parent && l->parent->volume == v)
		l = l->parent;
	return l;
}

static struct layer *fixed_top(void *ctx)
{
	return ctx;
}

/* Copy the blocks of one cluster that the layer sees only below itself. */
static int flatten_cluster(struct jobs *j, struct layer *l, uint32_t index, uint8_t *buffer,
			   uint64_t *last_seq)
{
	struct pool *pool = j->pool;
	struct resolved r;
	uint16_t wanted = 0;
	int err = resolve_blocks(pool, fixed_top, l->parent, index, UINT16_MAX, &r);
	for (unsigned i = 0; !err && i < r.part_count; i++)
		wanted |= r.masks[i];
	if (!err && wanted)
		err = cluster_read(pool, fixed_top, l->parent, index, wanted, buffer);
	for (unsigned block = 0; !err && block < BLOCKS_PER_CLUSTER;) {
		struct page *leaf;
		uint64_t seq = 0;
		int leaf_err = page_get(&l->map, 0, index / PAGE_FANOUT, false, &leaf);
		uint16_t defined = leaf_err ? 0 : map_entry_view(leaf, index)->defined;
		if (!leaf_err)
			page_unpin(leaf);
		if (!((wanted & ~defined) >> block & 1)) {
			block++;
			continue;
		}
		unsigned last = block;
		while (last + 1 < BLOCKS_PER_CLUSTER && (wanted & ~defined) >> (last + 1) & 1)
			last++;
		err = layer_define(pool, l, index, block_mask(block, last), buffer, &seq);
		*last_seq = u64_max(*last_seq, seq);
		spend(j, (last - block + 1) * POOL_BLOCK_BYTES);
		if (err != OXE_EXISTS ||
		    MUTANT(18)) /* else a client wrote to one of them meanwhile: look again */
			block = last + 1;
		err = err == OXE_EXISTS ? 0 : err;
	}
	return err;
}

/* Everything is in the volume's own layers: settle it, then let go of the rest. */
static int flatten_finish(struct pool *pool, uint64_t number, struct layer *l, uint64_t last_seq)
{
	struct record_layer_one detach = {.head = {.type = RECORD_LAYER_DETACH, .len_bytes = sizeof(detach)},
					  .number = number_of(l->number)};
	int err = last_seq && !MUTANT(13) ? flush_settle(pool->flush, last_seq) : 0;
	if (!err && l->parent)
		err = record_do(pool, &detach.head, false);
	struct volume *v = err ? NULL : catalog_volume(pool->catalog, number);
	if (!v)
		return err;
	struct record_volume_set set = {.head = {.type = RECORD_VOLUME_SET, .len_bytes = sizeof(set)},
					.number = number_of(number),
					.size_bytes = number_of(v->size_bytes),
					.flags = v->flags & ~(uint32_t)VOLUME_FLATTEN};
	memcpy(set.name, v->name, strlen(v->name));
	return record_do(pool, &set.head, true);
}

/* Blocks that an earlier life, or a cancelled try, left unsettled count too. */
static uint64_t everything_so_far(const struct pool *pool)
{
	return journal_open_seq(pool->journal) - 1;
}

static int flatten_step(struct jobs *j, uint64_t number, uint32_t *index, uint8_t *buffer, bool *finished)
{
	struct pool *pool = j->pool;
	struct volume *v = catalog_volume(pool->catalog, number);
	uint64_t last_seq = 0;
	*finished = !v || !(v->flags & VOLUME_FLATTEN);
	if (*finished)
		return 0;
	struct layer *l = lowest_own(v);
	j->total_clusters = u64_div_up(v->size_bytes, POOL_CLUSTER_BYTES);
	int err = l->parent ? resolve_next(pool, fixed_top, l->parent, NULL, *index, index) : OXE_NOENT;
	j->done_clusters = *index;
	if (!err)
		err = flatten_cluster(j, l, (*index)++, buffer, &last_seq);
	if (err != OXE_NOENT)
		return err;
	v = catalog_volume(pool->catalog, number);
	*finished = true;
	if (!v || lowest_own(v) != l) { /* reverted meanwhile: start over */
		*finished = !v;
		*index = 0;
		return 0;
	}
	return flatten_finish(pool, number, l, everything_so_far(pool));
}

static int flatten(struct jobs *j, uint64_t number)
{
	uint8_t *buffer = aligned_alloc(RT_IO_ALIGN, POOL_CLUSTER_BYTES);
	uint32_t index = 0;
	bool finished = false;
	int err = buffer ? 0 : OXE_NOMEM;
	uint64_t target = 0; /* the layer copied into: another one has to be looked at from its beginning */
	j->number = number;
	while (!err && !finished) {
		struct volume *v;
		if (!step_begin(j)) {
			err = OXE_SHUTDOWN;
			break;
		}
		v = catalog_volume(j->pool->catalog, number);
		if (v && lowest_own(v)->number != target) {
			target = lowest_own(v)->number;
			index = 0;
		}
		err = flatten_step(j, number, &index, buffer, &finished);
	}
	free(buffer);
	return err;
}

/* ---- the fiber ---------------------------------------------------------------------------------------------------------------------- */

struct todo {
	uint64_t *numbers;
	size_t count, capacity;
};

static void todo_add(struct todo *t, uint64_t number)
{
	if (t->count == t->capacity) {
		t->capacity = t->capacity ? t->capacity * 2 : 64;
		t->numbers = mem_realloc(t->numbers, t->capacity * sizeof(*t->numbers));
	}
	t->numbers[t->count++] = number;
}

static bool job_ended(struct jobs *j, uint64_t number, int err)
{
	j->number = 0;
	if (err && err != OXE_SHUTDOWN && err != OXE_FAILED && err != j->logged_err)
		LOG_WARN("pool.job_stuck", "a background job cannot go on; it will be tried again",
			 F_UUID("pool", &j->pool->ident.id), F_U64("number", number), F_ERR(err));
	if (err)
		j->stuck_err = j->logged_err = err;
	return !err;
}

/* Everything that can be worked on now, each once. True if something was finished, which may have made more possible. */
static bool pass(struct jobs *j)
{
	struct todo layers = {0}, volumes = {0};
	struct layer *l;
	struct volume *v;
	bool progress = false;
	j->stuck_err = 0;
	list_for_each (l, catalog_layers(j->pool->catalog), age) {
		if (may_reap(l))
			todo_add(&layers, l->number);
	}
	list_for_each (v, catalog_volumes(j->pool->catalog), age) {
		if (v->flags & VOLUME_FLATTEN)
			todo_add(&volumes, v->number);
	}
	for (size_t i = 0; i < layers.count && !j->stopping; i++)
		progress = job_ended(j, layers.numbers[i], reap(j, layers.numbers[i])) || progress;
	for (size_t i = 0; i < volumes.count && !j->stopping; i++)
		progress = job_ended(j, volumes.numbers[i], flatten(j, volumes.numbers[i])) || progress;
	free(layers.numbers);
	free(volumes.numbers);
	return progress;
}

static void wait_for_work(struct jobs *j)
{
	uint64_t retry_ns = rt_now_ns(j->pool->rt) + RETRY_AFTER_NS;
	j->idle = true;
	j->stepping = false;
	waitq_wake_all(&j->changed);
	while (!j->kicked && !j->stopping && !j->pool->failed) {
		if (!j->stuck_err)
			waitq_wait(&j->work);
		else if (!waitq_wait_until(&j->work, retry_ns))
			break;
	}
	j->idle = false;
}

static void worker(void *arg)
{
	struct jobs *j = arg;
	while (!j->stopping && !j->pool->failed) {
		j->kicked = false;
		j->logged_err = 0;
		while (!j->stopping && !j->pool->failed && pass(j))
			;
		wait_for_work(j);
	}
	j->stepping = false;
	j->stopped = true;
	waitq_wake_all(&j->changed);
}

void jobs_start(struct jobs *j)
{
	j->started = true;
	j->stopped = false;
	j->kicked = true;
	fiber_spawn(j->pool->rt, "jobs", worker, j);
}

void jobs_stop(struct jobs *j)
{
	j->stopping = true;
	waitq_wake_all(&j->work);
	while (!j->stopped)
		waitq_wait(&j->changed);
}

void jobs_kick(struct jobs *j)
{
	j->kicked = true;
	waitq_wake_all(&j->work);
	waitq_wake_all(&j->changed);
}

/* ---- for the outside ----------------------------------------------------------------------------------------------------------------- */

int pool_jobs_wait(struct pool *pool)
{
	struct jobs *j = pool->jobs;
	while (j->started && !j->stopped && !pool->failed && (j->kicked || !j->idle))
		waitq_wait(&j->changed);
	return pool->failed ? OXE_FAILED : j->stuck_err;
}

const char *pool_job_kind_name(enum pool_job_kind kind)
{
	static const char *const names[] = {"merge", "drop", "flatten"};
	return names[kind];
}

static void progress_of(const struct jobs *j, uint64_t number, uint64_t total, struct pool_job *out)
{
	out->total_clusters = total;
	if (j->number == number) {
		out->done_clusters = j->done_clusters;
		out->total_clusters = u64_max(j->total_clusters, j->done_clusters);
	}
}

static void copy_text(char *out, size_t size_bytes, const char *text)
{
	size_t len_bytes = u64_min(strlen(text), size_bytes - 1);
	memcpy(out, text, len_bytes);
	out[len_bytes] = '\0';
}

void pool_job_walk(const struct pool *pool, bool (*fn)(void *ctx, const struct pool_job *j), void *ctx)
{
	struct layer *l;
	struct volume *v;
	list_for_each (l, catalog_layers(pool->catalog), age) {
		struct pool_job job = {.id = l->id, .kind = l->child_count ? POOL_JOB_MERGE : POOL_JOB_DROP};
		if (!may_reap(l))
			continue;
		progress_of(pool->jobs, l->number, l->cluster_count, &job);
		copy_text(job.subject, sizeof(job.subject), l->volume ? l->volume->name : "(deleted)");
		if (!fn(ctx, &job))
			return;
	}
	list_for_each (v, catalog_volumes(pool->catalog), age) {
		struct pool_job job = {.id = v->id, .kind = POOL_JOB_FLATTEN, .is_cancellable = true};
		if (!(v->flags & VOLUME_FLATTEN))
			continue;
		progress_of(pool->jobs, v->number, u64_div_up(v->size_bytes, POOL_CLUSTER_BYTES), &job);
		copy_text(job.subject, sizeof(job.subject), v->name);
		if (!fn(ctx, &job))
			return;
	}
}
