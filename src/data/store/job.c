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
#include "data/store/flush.h"
#include "data/store/job.h"
#include "data/store/journal.h"

#define DROP_CLUSTERS  64u
#define RETRY_AFTER_NS (60 * NS_PER_S)

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

void jobs_spend(struct jobs *j, uint64_t bytes)
{
	uint64_t rate = j->pool->options.background_bytes_per_s;
	uint64_t now_ns = rt_now_ns(j->pool->rt);
	if (rate)
		j->not_before_ns = u64_max(j->not_before_ns, now_ns) + bytes * NS_PER_S / rate;
}

/* What was copied under the old rate is not held against the new one. */
void jobs_rate_changed(struct jobs *j)
{
	j->not_before_ns = 0;
	jobs_kick(j);
}

static void step_end(struct jobs *j)
{
	j->stepping = false;
	waitq_wake_all(&j->changed);
}

/* May the next step begin? Waits for the rate and for whoever paused us. False: stop. */
bool jobs_step_begin(struct jobs *j)
{
	step_end(j);
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

/* In a damaged catalog a layer may have children that nobody knows. */
static bool may_reap(const struct layer *l)
{
	return !catalog_is_damaged(l->map.pool->catalog) && l->sealed && !l->named && l->open_count == 0 &&
	       l->child_count <= 1;
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

int layer_next_run(struct layer *l, uint32_t *index, uint32_t max, uint32_t *count)
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

/* ---- drop -------------------------------------------------------------------------------------------------------------------------- */

static int drop_step(struct jobs *j, struct layer *l, uint32_t *index)
{
	struct record_drop r = {.head = {.type = RECORD_DROP, .len_bytes = sizeof(r)},
				.layer = number_of(l->number)};
	int err = layer_next_run(l, index, DROP_CLUSTERS, &r.count);
	if (err)
		return err;
	r.index = *index;
	err = record_do(j->pool, &r.head, false);
	*index += r.count;
	j->done_clusters += r.count;
	return err;
}
/* ---- reap: drop or merge a whole layer ---------------------------------------------------------------------------------------------- */

/* A merge may copy over blocks that only the layer's own readers could see. It has none, but only as long as the record that
 * took its name away is not lost: without this a power cut brought a snapshot back with other content (S6). */
static int name_gone_for_good(struct pool *pool)
{
	uint32_t chain;
	uint64_t seq = journal_cut(pool->journal, &chain);
	return MUTANT(14) ? 0 : flush_records(pool->flush, seq);
}

/* What a merge gives to the only child is that one's alone: it is written to in place, and over. Readers of the child see the old
 * blocks as long as they are to be seen. But a clone that was flattened let go of the layer, and a read of it that found its blocks
 * here before that may still be under way: it must not find what others write now (S4). */
static void old_reads_wait(struct jobs *j)
{
	step_end(j); /* the device may take its time */
	if (!MUTANT(68))
		space_readers_wait(j->pool->space);
}

static int reap(struct jobs *j, uint64_t number)
{
	struct pool *pool = j->pool;
	uint32_t index = 0;
	int err = name_gone_for_good(pool);
	j->number = number;
	j->done_clusters = 0;
	old_reads_wait(j);
	while (!err) {
		if (!jobs_step_begin(j))
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

static int youngest_first(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? 1 : -(x > y);
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

/* Everything that can be worked on now, each once. True if something was finished, which may have made more possible.
 *
 * The youngest layers first: those of a deleted volume are dropped from its head down, and of deleted neighbours each is merged
 * once. The other way round what the oldest holds would move from layer to layer through the whole chain. */
static bool pass(struct jobs *j)
{
	struct todo layers = {0}, volumes = {0};
	struct layer *l;
	struct volume *v;
	bool progress = false;
	j->stuck_err = 0;
	list_for_each (l, catalog_nameless(j->pool->catalog), nameless) {
		if (may_reap(l))
			todo_add(&layers, l->number);
	}
	if (layers.count > 0)
		qsort(layers.numbers, layers.count, sizeof(*layers.numbers), youngest_first);
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
	step_end(j);
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
	list_for_each (l, catalog_nameless(pool->catalog), nameless) {
		struct pool_job job = {.id = l->id, .kind = l->child_count ? POOL_JOB_MERGE : POOL_JOB_DROP};
		if (!may_reap(l) || (l->volume && pool_name_is_system(l->volume->name)))
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
