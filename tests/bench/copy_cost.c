/*
 * copy_cost.c: what the way to a copy costs: the head of one in this process, and of one in another process behind NVMe/TCP on loopback
 * (docs/protocol.md), 4 KiB overwrites and reads of a warm set, and 1 MiB layer reads as filling makes them.
 *
 *     copy_cost DIRECTORY [ROUNDS [MILLISECONDS]]
 *
 * One row an operation and depth: operations a second and microseconds of CPU an operation on this side, medians of the rounds, which
 * are interleaved. DIRECTORY on tmpfs shows our own cost; on a disk, what is left of it there.
 */
#include "base/prng.h"
#include "copy_service.h"
#include "data/engine/engine.h"
#include "data/replica/replica_remote.h"
#include "host/host.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define POOL_BYTES   (1 * GiB)
#define VOLUME_BYTES (128 * MiB)
#define DEPTH_MAX    32u
#define ROUNDS_MAX   31u
#define ADDRESS_SIZE 64u

struct place { /* a pool, in the process that serves it */
	struct rt *rt;
	const char *directory;
	struct pool *pool;
	struct replica_door *door;
	struct uuid pool_id;
};

enum operation { WRITE, READ, LAYER_READ };

static struct {
	struct place here;
	struct uuid volume_id;
	struct replica *copies[2];
	unsigned rounds;
	uint64_t round_ns;
	char address[ADDRESS_SIZE]; /* of the other process, */
	struct uuid pool_id;	    /* and its pool */
} w;

static const char *const names[] = {"in process", "NVMe/TCP"};
#define SUBJECTS ARRAY_COUNT(names)

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "copy_cost: %s: %s\n", what, err_text(err));
	_exit(1);
}

static void place_up(struct place *p, const char *name)
{
	struct pool_format_spec spec = {.id = rt_random_uuid(p->rt)};
	struct rt_disk *disk;
	char path[400];
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	snprintf(path, sizeof(path), "%s/copy_cost.%s", p->directory, name);
	unlink(path);
	must(rt_disk_open(p->rt, path, RT_DISK_CREATE, POOL_BYTES, &disk), path);
	unlink(path); /* nothing is left behind, however this ends */
	must(pool_format(disk, &spec, false), "format");
	must(pool_open(disk, NULL, &p->pool), "open");
	p->pool_id = spec.id;
	p->door = replica_door_new(p->pool, &spec.id);
}

/* ---- the other process ------------------------------------------------------------------------------------------------------- */

struct told { /* through a pipe */
	char address[ADDRESS_SIZE];
	struct uuid pool_id;
};

static struct replica_door *door_find(void *ctx, const struct uuid *pool_id)
{
	struct place *p = ctx;
	return uuid_equal(pool_id, &p->pool_id) ? p->door : NULL;
}

static int pipe_to_parent;

static void serve(void *arg)
{
	struct place *p = arg;
	struct told told = {{0}};
	const char *bound;
	place_up(p, "there");
	struct nvmf_foreign foreign = copy_service(replica_server_new(door_find, p));
	struct nvmf_server *server =
		nvmf_server_new(engines_new(p->rt), &(struct nvmf_options){.foreign = &foreign});
	must(nvmf_server_listen(server, "tcp:127.0.0.1:0", &bound), "listen");
	snprintf(told.address, sizeof(told.address), "%s", bound);
	told.pool_id = p->pool_id;
	if (write(pipe_to_parent, &told, sizeof(told)) != sizeof(told))
		_exit(1);
}

static void other_process(const char *directory)
{
	struct place p = {.directory = directory};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	p.rt = host_rt_new(&(struct host_options){0});
	if (!p.rt)
		_exit(1);
	fiber_spawn_big(p.rt, "serve", serve, &p);
	host_rt_run(p.rt);
	_exit(0);
}

/* ---- copies ------------------------------------------------------------------------------------------------------------------ */

static void copy_up(struct replica *r)
{
	static uint8_t data[MiB];
	struct uuid engine_id = rt_random_uuid(w.here.rt);
	struct replica_state state;
	struct volume_spec spec = {.id = w.volume_id, .name = "~copy", .size_bytes = VOLUME_BYTES};
	memset(data, 5, sizeof(data));
	must(r->ops->open(r, 1, &engine_id, &state), "open");
	must(r->ops->create(r, &spec), "create");
	for (uint64_t at = 0; at < VOLUME_BYTES; at += MiB)
		must(r->ops->write(r, data, at, MiB, 0), "fill");
	must(r->ops->flush(r), "flush");
}

static void world_up(void)
{
	struct replica_remote_options o = {.address = w.address, .pool_id = w.pool_id};
	w.volume_id = o.volume_id = rt_random_uuid(w.here.rt);
	o.host_id = rt_random_uuid(w.here.rt);
	place_up(&w.here, "here");
	w.copies[0] = replica_local_new(w.here.door, &w.volume_id);
	w.copies[1] = replica_remote_new(w.here.rt, &o);
	for (size_t i = 0; i < SUBJECTS; i++)
		copy_up(w.copies[i]);
}

/* ---- load --------------------------------------------------------------------------------------------------------------------- */

struct load {
	struct replica *r;
	enum operation operation;
	uint64_t len_bytes, until_ns, ops;
	struct prng rng;
	struct rt_group group;
};

static int operate(struct load *l, void *data, uint64_t at)
{
	switch (l->operation) {
	case WRITE:
		return l->r->ops->write(l->r, data, at, l->len_bytes, 0);
	case READ:
		return l->r->ops->read(l->r, data, at, l->len_bytes);
	default:
		return l->r->ops->layer_read(l->r, NULL, data, at, l->len_bytes);
	}
}

static void load_fiber(void *arg)
{
	struct load *l = arg;
	uint8_t *data = aligned_alloc(RT_IO_ALIGN, l->len_bytes);
	memset(data, 3, l->len_bytes);
	while (rt_now_ns(w.here.rt) < l->until_ns) {
		uint64_t at = prng_below(&l->rng, VOLUME_BYTES / l->len_bytes) * l->len_bytes;
		must(operate(l, data, at), "I/O");
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

static struct figure load_run(struct replica *r, enum operation operation, uint64_t len_bytes, unsigned depth,
			      uint64_t seed)
{
	struct load l = {.r = r, .operation = operation, .len_bytes = len_bytes};
	double cpu = cpu_us();
	uint64_t begin_ns = rt_now_exact_ns(w.here.rt);
	l.until_ns = begin_ns + w.round_ns;
	prng_seed(&l.rng, seed);
	group_init(&l.group);
	group_add(&l.group, depth);
	for (unsigned i = 0; i < depth; i++)
		fiber_spawn(w.here.rt, "load", load_fiber, &l);
	group_wait(&l.group);
	double ops = (double)l.ops;
	return (struct figure){.ops_per_s = ops * 1e9 / (double)(rt_now_exact_ns(w.here.rt) - begin_ns),
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

static void row(const char *what, enum operation operation, uint64_t len_bytes, unsigned depth)
{
	static double ops[SUBJECTS][ROUNDS_MAX], cpu[SUBJECTS][ROUNDS_MAX];
	for (unsigned round = 0; round < w.rounds; round++) {
		for (unsigned i = 0; i < SUBJECTS; i++) {
			struct figure f = load_run(w.copies[i], operation, len_bytes, depth, round + 1);
			ops[i][round] = f.ops_per_s;
			cpu[i][round] = f.cpu_us;
		}
	}
	for (unsigned i = 0; i < SUBJECTS; i++)
		printf("%-16s depth %2u  %-10s  %8.0f a second  %7.2f us of CPU each\n", what, depth,
		       names[i], median(ops[i], w.rounds), median(cpu[i], w.rounds));
	fflush(stdout);
}

static void bench_main(void *arg)
{
	(void)arg;
	world_up();
	row("4 KiB write", WRITE, 4 * KiB, 1);
	row("4 KiB write", WRITE, 4 * KiB, DEPTH_MAX);
	row("4 KiB read", READ, 4 * KiB, 1);
	row("4 KiB read", READ, 4 * KiB, DEPTH_MAX);
	row("1 MiB layer read", LAYER_READ, MiB, 1);
	row("4 MiB layer read", LAYER_READ, 4 * MiB, 1);
	_exit(0);
}

static bool other_process_start(void)
{
	struct told told;
	int ends[2];
	if (pipe(ends))
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		pipe_to_parent = ends[1];
		other_process(w.here.directory);
	}
	if (pid < 0 || read(ends[0], &told, sizeof(told)) != sizeof(told))
		return false;
	memcpy(w.address, told.address, sizeof(w.address));
	w.pool_id = told.pool_id;
	return true;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: copy_cost DIRECTORY [ROUNDS [MILLISECONDS]]\n");
		return 2;
	}
	w.here.directory = argv[1];
	w.rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 9;
	w.round_ns = (argc > 3 ? (uint64_t)atoi(argv[3]) : 300) * NS_PER_MS;
	w.rounds = w.rounds < 1 ? 1 : w.rounds > ROUNDS_MAX ? ROUNDS_MAX : w.rounds;
	if (!other_process_start())
		return 1;
	w.here.rt = host_rt_new(&(struct host_options){0});
	if (!w.here.rt)
		return 1;
	fiber_spawn_big(w.here.rt, "bench", bench_main, NULL);
	host_rt_run(w.here.rt);
	return 0;
}
