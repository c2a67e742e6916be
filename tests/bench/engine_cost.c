/*
 * engine_cost.c: what a mirror costs: an engine over a volume of a pool, over a mirror of one copy, and over one of two copies in two
 * pools, side by side in one process, 4 KiB overwrites and reads of a warm set.
 *
 *     engine_cost DIRECTORY [ROUNDS [MILLISECONDS]]
 *
 * One row an operation and depth: operations a second and microseconds of CPU an operation, medians of the rounds, which are
 * interleaved. DIRECTORY on tmpfs shows our own cost; on a disk, what is left of it there.
 *
 * intents_cost is the same with the planted bug that writes without intents (mutant 203): one mirror of two copies, with and without, in
 * turn. All regions of the set are noted when it is measured, as they are wherever a client overwrites what it works on.
 */
#include "base/mutant.h"
#include "base/prng.h"
#include "data/engine/engine.h"
#include "data/replica/replica.h"
#include "host/host.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define POOLS	     2u
#define POOL_BYTES   (1 * GiB)
#define VOLUME_BYTES (128 * MiB)
#define BLOCK	     4096u
#define DEPTH_MAX    32u
#define ROUNDS_MAX   31u
#define MIRRORS	     2u

struct subject {
	const char *name, *export_name;
	unsigned mutant;
	struct engine *engine;
};

unsigned mutant_active;

#ifdef OXBOW_MUTANTS
static struct subject subjects[] = {{"intents", "two", 0, NULL}, {"no intents", "two", 203, NULL}};
#else
static struct subject subjects[] = {
	{"store", "single", 0, NULL}, {"mirror of 1", "one", 0, NULL}, {"mirror of 2", "two", 0, NULL}};
#endif
#define SUBJECTS ARRAY_COUNT(subjects)

static struct {
	struct rt *rt;
	const char *directory;
	unsigned rounds;
	uint64_t round_ns;
	struct pool *pools[POOLS];
	struct replica_door *doors[POOLS];
	struct uuid pool_ids[POOLS];
	struct view views[MIRRORS];
	uint64_t revisions[MIRRORS];
	struct mirror *mirrors[MIRRORS];
	struct engines *engines;
} w;

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "engine_cost: %s: %s\n", what, err_text(err));
	_exit(1);
}

/* ---- volumes -------------------------------------------------------------------------------------------------------------- */

static unsigned view_index(const struct uuid *volume_id)
{
	return uuid_equal(&w.views[0].volume_id, volume_id) ? 0 : 1;
}

static int views_get(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision)
{
	unsigned i = view_index(volume_id);
	(void)s;
	*out = w.views[i];
	*revision = w.revisions[i];
	return 0;
}

static int views_swap(struct view_store *s, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	unsigned i = view_index(&v->volume_id);
	(void)s;
	if (revision != w.revisions[i])
		return OXE_DIFFERS;
	w.views[i] = *v;
	*new_revision = ++w.revisions[i];
	return 0;
}

static struct replica *copy_new(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	(void)ctx;
	for (unsigned i = 0; i < POOLS; i++)
		if (uuid_equal(&w.pool_ids[i], pool_id))
			return replica_local_new(w.doors[i], volume_id);
	return NULL;
}

static void pool_up(unsigned i)
{
	struct pool_format_spec spec = {.id = rt_random_uuid(w.rt)};
	struct rt_disk *disk;
	char path[400];
	snprintf(spec.name, sizeof(spec.name), "p%u", i);
	snprintf(path, sizeof(path), "%s/engine_cost.%u", w.directory, i);
	unlink(path);
	must(rt_disk_open(w.rt, path, RT_DISK_CREATE, POOL_BYTES, &disk), path);
	unlink(path); /* nothing is left behind, however this ends */
	must(pool_format(disk, &spec, false), "format");
	must(pool_open(disk, NULL, &w.pools[i]), "open");
	w.pool_ids[i] = spec.id;
	w.doors[i] = replica_door_new(w.pools[i], &spec.id);
	engines_add_pool(w.engines, w.pools[i]);
}

static void mirror_up(unsigned index, const char *name, unsigned copies)
{
	static struct view_store views = {.get = views_get, .swap = views_swap};
	static struct engine_notes no_notes;
	struct uuid id = rt_random_uuid(w.rt);
	struct volume_spec spec = {.id = id, .size_bytes = VOLUME_BYTES};
	struct mirror_options o = {.volume_id = id, .views = &views, .replica_new = copy_new};
	snprintf(spec.name, sizeof(spec.name), "~%s", name);
	w.views[index].volume_id = id;
	for (unsigned i = 0; i < copies; i++) {
		must(volume_create_any(w.pools[i], &spec), "copy");
		w.views[index].replicas[i] =
			(struct view_replica){.pool_id = w.pool_ids[i], .role = VIEW_MEMBER};
	}
	w.views[index].replica_count = copies;
	must(mirror_new(w.rt, &o, &w.mirrors[index]), "mirror");
	must(engines_add_mirror(w.engines,
				&(struct engine_mirror_options){name, w.mirrors[index], &no_notes}),
	     "add");
}

static void subject_up(struct subject *s)
{
	static uint8_t data[MiB];
	memset(data, 5, sizeof(data));
	must(engine_open(w.engines, s->export_name, &s->engine), s->export_name);
	must(engine_wait(s->engine, UINT64_MAX / 2), "serve");
	for (uint64_t at = 0; at < VOLUME_BYTES; at += MiB)
		must(engine_write(s->engine, data, at, MiB, 0), "fill");
	must(engine_flush(s->engine), "flush");
}

static void world_up(void)
{
	struct volume_spec single = {
		.name = "single", .id = rt_random_uuid(w.rt), .size_bytes = VOLUME_BYTES};
	w.engines = engines_new(w.rt);
	for (unsigned i = 0; i < POOLS; i++)
		pool_up(i);
	must(volume_create(w.pools[0], &single), "volume");
	mirror_up(0, "one", 1);
	mirror_up(1, "two", 2);
	for (size_t i = 0; i < SUBJECTS; i++)
		subject_up(&subjects[i]);
}

/* ---- load ------------------------------------------------------------------------------------------------------------------ */

struct load {
	struct engine *engine;
	bool writes;
	uint64_t until_ns, ops;
	struct prng rng;
	struct rt_group group;
};

static void load_fiber(void *arg)
{
	struct load *l = arg;
	uint8_t *data = aligned_alloc(BLOCK, BLOCK);
	memset(data, 3, BLOCK);
	while (rt_now_ns(w.rt) < l->until_ns) {
		uint64_t at = prng_below(&l->rng, VOLUME_BYTES / BLOCK) * BLOCK;
		must(l->writes ? engine_write(l->engine, data, at, BLOCK, 0)
			       : engine_read(l->engine, data, at, BLOCK),
		     "I/O");
		l->ops++;
	}
	free(data);
	group_done(&l->group);
}

static double cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

struct figure {
	double ops_per_s, cpu_us;
};

static struct figure load_run(struct engine *e, bool writes, unsigned depth, uint64_t seed)
{
	struct load l = {.engine = e, .writes = writes};
	double cpu = cpu_us();
	uint64_t begin_ns = rt_now_exact_ns(w.rt);
	l.until_ns = begin_ns + w.round_ns;
	prng_seed(&l.rng, seed);
	group_init(&l.group);
	group_add(&l.group, depth);
	for (unsigned i = 0; i < depth; i++)
		fiber_spawn(w.rt, "load", load_fiber, &l);
	group_wait(&l.group);
	double ops = (double)l.ops;
	return (struct figure){.ops_per_s = ops * 1e9 / (double)(rt_now_exact_ns(w.rt) - begin_ns),
			       .cpu_us = (cpu_us() - cpu) / ops};
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
	qsort(values, count, sizeof(*values), compare);
	return values[count / 2];
}

static void row(bool writes, unsigned depth)
{
	static double ops[SUBJECTS][ROUNDS_MAX], cpu[SUBJECTS][ROUNDS_MAX];
	for (unsigned round = 0; round < w.rounds; round++) {
		for (unsigned i = 0; i < SUBJECTS; i++) {
			mutant_active = subjects[i].mutant;
			struct figure f = load_run(subjects[i].engine, writes, depth, round + 1);
			mutant_active = 0;
			ops[i][round] = f.ops_per_s;
			cpu[i][round] = f.cpu_us;
		}
	}
	for (unsigned i = 0; i < SUBJECTS; i++)
		printf("%-5s depth %2u  %-11s  %8.0f a second  %6.2f us of CPU each\n",
		       writes ? "write" : "read", depth, subjects[i].name, median(ops[i], w.rounds),
		       median(cpu[i], w.rounds));
	fflush(stdout);
}

static void bench_main(void *arg)
{
	(void)arg;
	world_up();
	row(true, 1);
	row(true, DEPTH_MAX);
#ifndef OXBOW_MUTANTS /* a read has nothing to do with intents */
	row(false, 1);
	row(false, DEPTH_MAX);
#endif
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: engine_cost DIRECTORY [ROUNDS [MILLISECONDS]]\n");
		return 2;
	}
	w.directory = argv[1];
	w.rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 9;
	w.round_ns = (argc > 3 ? (uint64_t)atoi(argv[3]) : 300) * NS_PER_MS;
	w.rounds = w.rounds < 1 ? 1 : w.rounds > ROUNDS_MAX ? ROUNDS_MAX : w.rounds;
	w.rt = host_rt_new(&(struct host_options){0});
	if (!w.rt)
		return 1;
	fiber_spawn_big(w.rt, "bench", bench_main, NULL);
	host_rt_run(w.rt);
	return 0;
}
