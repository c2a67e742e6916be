/*
 * bench_load.c: see bench_load.h. Requests drive themselves: each `done` submits the next, until the time is over.
 */
#include "bench_load.h"

#include "base/bytes.h"
#include "base/prng.h"

#include <stdio.h>
#include <sys/resource.h>

#define SECTOR_BYTES 512u
#define STAMP_MAGIC  0x6f78626e63683176ull
#define UNWRITTEN    0u
#define DRAWS_MAX    64 /* for a unit nobody is at */

const char *const load_kind_names[LOAD_KINDS] = {"randread", "randwrite", "read", "write", "mixed"};

/* What every 512 bytes of a verified unit begin with; the rest follows from it. */
struct stamp {
	le64 magic, seed, unit;
	le32 target, generation, sector, reserved;
};
static_assert(sizeof(struct stamp) == 40, "stamp");

struct load;
struct volume;

struct slot {
	struct nvme_host_io io;
	struct volume *volume;
	uint64_t unit, began_ns;
	uint32_t generation; /* of the write under way */
};

struct volume {
	struct load *load;
	struct nvme_host *host;
	uint32_t index;
	uint64_t units, next_unit;
	struct slot *slots;
	uint32_t *generations; /* with verify: of each unit, as answered */
	uint8_t *busy;	       /* with verify: a request is at it */
	uint64_t last_answer_ns;
};

struct load {
	struct rt *rt;
	const struct load_options *options;
	struct load_result *result;
	struct prng rng;
	struct volume volumes[LOAD_TARGETS_MAX];
	struct rt_group in_flight;
	uint64_t end_ns;
};

/* ---- what a unit must hold -------------------------------------------------------------------------------------------------- */

static void sector_fill(uint8_t *sector, const struct stamp *s)
{
	uint64_t words[SECTOR_BYTES / 8];
	uint64_t x = hash_u64(le64_get(s->seed) ^ le64_get(s->unit) << 20 ^
			      (uint64_t)le32_get(s->generation) << 8 ^ le32_get(s->target) ^
			      (uint64_t)le32_get(s->sector) << 48);
	for (size_t i = 0; i < ARRAY_COUNT(words); i++)
		words[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
	memcpy(words, s, sizeof(*s));
	memcpy(sector, words, sizeof(words));
}

static struct stamp stamp_of(const struct volume *v, uint64_t unit, uint32_t generation, uint32_t sector)
{
	return (struct stamp){
		.magic = le64_of(STAMP_MAGIC),
		.seed = le64_of(v->load->options->seed),
		.unit = le64_of(unit),
		.target = le32_of(v->index),
		.generation = le32_of(generation),
		.sector = le32_of(sector),
	};
}

static void unit_fill(const struct volume *v, uint8_t *data, uint64_t unit, uint32_t generation)
{
	for (uint32_t i = 0; i < v->load->options->block_bytes / SECTOR_BYTES; i++) {
		struct stamp s = stamp_of(v, unit, generation, i);
		sector_fill(data + i * SECTOR_BYTES, &s);
	}
}

static void wrong_note(struct volume *v, const uint8_t *sector, uint64_t unit, uint32_t generation,
		       uint32_t index)
{
	struct load_result *r = v->load->result;
	struct stamp s;
	memcpy(&s, sector, sizeof(s));
	if (r->wrong_units++ > 0)
		return;
	int n = snprintf(r->first_wrong, sizeof(r->first_wrong),
			 "target %u, unit %llu, sector %u: wants generation %u, ", v->index,
			 (unsigned long long)unit, index, generation);
	if (le64_get(s.magic) == STAMP_MAGIC && n > 0)
		snprintf(r->first_wrong + n, sizeof(r->first_wrong) - (size_t)n,
			 "holds target %u, unit %llu, sector %u, generation %u%s", le32_get(s.target),
			 (unsigned long long)le64_get(s.unit), le32_get(s.sector), le32_get(s.generation),
			 le64_get(s.seed) == v->load->options->seed ? "" : " of another run");
	else if (n > 0)
		snprintf(r->first_wrong + n, sizeof(r->first_wrong) - (size_t)n, "%s",
			 bytes_are_zero(sector, SECTOR_BYTES) ? "reads as zeroes" : "holds nothing of ours");
}

static void unit_check(struct volume *v, const uint8_t *data, uint64_t unit)
{
	uint32_t generation = v->generations[unit];
	uint8_t wanted[SECTOR_BYTES];
	if (generation == UNWRITTEN)
		return;
	v->load->result->checked_units++;
	for (uint32_t i = 0; i < v->load->options->block_bytes / SECTOR_BYTES; i++) {
		struct stamp s = stamp_of(v, unit, generation, i);
		sector_fill(wanted, &s);
		if (memcmp(data + i * SECTOR_BYTES, wanted, SECTOR_BYTES) != 0) {
			wrong_note(v, data + i * SECTOR_BYTES, unit, generation, i);
			return;
		}
	}
}

/* ---- the load ----------------------------------------------------------------------------------------------------------------- */

static bool draw_is_write(struct load *l)
{
	switch (l->options->kind) {
	case LOAD_RANDREAD:
	case LOAD_READ:
		return false;
	case LOAD_MIXED:
		return prng_below(&l->rng, 100) >= l->options->read_percent;
	default:
		return true;
	}
}

static uint64_t draw_unit(struct volume *v)
{
	enum load_kind kind = v->load->options->kind;
	if (kind != LOAD_READ && kind != LOAD_WRITE)
		return prng_below(&v->load->rng, v->units);
	uint64_t unit = v->next_unit;
	v->next_unit = unit + 1 < v->units ? unit + 1 : 0;
	return unit;
}

/* There are more units than requests in flight, so that one is soon found. */
static uint64_t draw_free_unit(struct volume *v)
{
	uint64_t unit = draw_unit(v);
	for (int i = 0; v->busy && v->busy[unit]; i++)
		unit = i < DRAWS_MAX ? draw_unit(v) : (unit + 1) % v->units;
	return unit;
}

static void slot_done(struct nvme_host_io *io);

static void slot_start(struct slot *s)
{
	struct volume *v = s->volume;
	const struct load_options *o = v->load->options;
	bool is_write = draw_is_write(v->load);
	s->unit = draw_free_unit(v);
	s->began_ns = rt_now_ns(v->load->rt);
	s->io.op = is_write ? NVME_HOST_WRITE : NVME_HOST_READ;
	s->io.offset_bytes = s->unit * o->block_bytes;
	s->io.len_bytes = o->block_bytes;
	s->io.done = slot_done;
	if (v->busy) {
		v->busy[s->unit] = 1;
		s->generation = v->generations[s->unit] + 1;
		if (is_write)
			unit_fill(v, s->io.data, s->unit, s->generation);
	}
	nvme_host_submit(v->host, &s->io);
}

static void slot_verify(struct slot *s)
{
	struct volume *v = s->volume;
	v->busy[s->unit] = 0;
	if (s->io.result)
		return;
	if (s->io.op == NVME_HOST_WRITE)
		v->generations[s->unit] = s->generation;
	else
		unit_check(v, s->io.data, s->unit);
}

static void slot_count(struct slot *s, uint64_t now_ns)
{
	struct volume *v = s->volume;
	struct load_result *r = v->load->result;
	bool is_write = s->io.op == NVME_HOST_WRITE;
	r->longest_pause_ns = u64_max(r->longest_pause_ns, now_ns - v->last_answer_ns);
	v->last_answer_ns = now_ns;
	if (s->io.result) {
		r->errors++;
		r->first_error = r->first_error ? r->first_error : s->io.result;
		return;
	}
	r->operations[is_write]++;
	r->bytes[is_write] += s->io.len_bytes;
	hist_add(&r->latency_ns[is_write], now_ns - s->began_ns);
}

static void slot_done(struct nvme_host_io *io)
{
	struct slot *s = container_of(io, struct slot, io);
	struct load *l = s->volume->load;
	uint64_t now_ns = rt_now_ns(l->rt);
	slot_count(s, now_ns);
	if (s->volume->busy)
		slot_verify(s);
	if (now_ns < l->end_ns)
		slot_start(s);
	else
		group_done(&l->in_flight);
}

/* ---- before and after --------------------------------------------------------------------------------------------------------- */

static int refuse(struct load *l, int err, const char *what)
{
	snprintf(l->result->first_wrong, sizeof(l->result->first_wrong), "%s", what);
	return err;
}

static int volume_size(struct volume *v)
{
	struct load *l = v->load;
	const struct load_options *o = l->options;
	const struct nvme_host_info *info = nvme_host_info(v->host);
	uint64_t size_bytes = o->size_bytes ? o->size_bytes : info->size_bytes;
	v->units = size_bytes / o->block_bytes;
	if (o->block_bytes % info->lba_bytes)
		return refuse(l, OXE_ALIGN, "--block is no multiple of the target's block size");
	if (o->block_bytes > nvme_host_max_bytes(v->host, NVME_HOST_READ))
		return refuse(l, OXE_TOOBIG, "--block is more than the target takes in one request");
	if (size_bytes > info->size_bytes)
		return refuse(l, OXE_RANGE, "the target is smaller than --size");
	if (v->units == 0 || (o->verify && v->units <= o->depth))
		return refuse(l, OXE_TOOSMALL, "there are fewer blocks than requests in flight");
	if (o->verify && v->units > UINT32_MAX)
		return refuse(l, OXE_TOOBIG, "too many blocks for --verify: give a --size");
	return 0;
}

static int volume_open(struct load *l, uint32_t index)
{
	const struct load_options *o = l->options;
	struct volume *v = &l->volumes[index];
	struct nvme_host_options host = {
		.address = o->targets[index].address,
		.subsystem_nqn = o->targets[index].nqn,
		.host_nqn = o->host_nqn,
		.tls_key = o->tls_key,
		.queues = o->queues,
		.queue_depth = (uint32_t)u64_min(o->depth, 127),
		.header_digest = o->digests,
		.data_digest = o->digests,
		.no_in_capsule = o->no_in_capsule,
		.secret = o->secret,
		.controller_secret = o->controller_secret,
		.least_group = o->least_group,
		.lost = NVME_HOST_REPLAY,
	};
	struct nvme_host_status status;
	*v = (struct volume){.load = l, .index = index};
	int err = nvme_host_new(l->rt, &host, &v->host);
	if (err)
		return refuse(l, err, "the address, an NQN, a key or a secret is malformed");
	err = nvme_host_wait(v->host, rt_now_ns(l->rt) + o->connect_ns);
	nvme_host_status(v->host, &status);
	return err ? refuse(l, status.last_error ? status.last_error : err, status.why) : volume_size(v);
}

static void volume_prepare(struct volume *v)
{
	struct load *l = v->load;
	const struct load_options *o = l->options;
	v->slots = mem_zalloc(o->depth * sizeof(*v->slots));
	v->last_answer_ns = rt_now_ns(l->rt);
	if (o->verify) {
		v->generations = mem_zalloc(v->units * sizeof(*v->generations));
		v->busy = mem_zalloc(v->units);
	}
	for (uint32_t i = 0; i < o->depth; i++) {
		v->slots[i].volume = v;
		v->slots[i].io.data = aligned_alloc(RT_IO_ALIGN, u64_align_up(o->block_bytes, RT_IO_ALIGN));
		if (!v->slots[i].io.data)
			abort();
		prng_fill(&l->rng, v->slots[i].io.data, o->block_bytes);
	}
}

static void volume_close(struct volume *v)
{
	struct nvme_host_status status;
	if (!v->host)
		return;
	nvme_host_status(v->host, &status);
	v->load->result->associations += status.associations;
	v->load->result->replayed += status.replayed;
	nvme_host_close(v->host);
	for (uint32_t i = 0; v->slots && i < v->load->options->depth; i++)
		free(v->slots[i].io.data);
	free(v->slots);
	free(v->generations);
	free(v->busy);
}

static void check_done(struct nvme_host_io *io);

/* The next unit that was written; none is left: this slot is done. */
static void check_next(struct slot *s)
{
	struct volume *v = s->volume;
	const struct load_options *o = v->load->options;
	while (v->next_unit < v->units && v->generations[v->next_unit] == UNWRITTEN)
		v->next_unit++;
	if (v->next_unit == v->units) {
		group_done(&v->load->in_flight);
		return;
	}
	s->unit = v->next_unit++;
	s->io.op = NVME_HOST_READ;
	s->io.offset_bytes = s->unit * o->block_bytes;
	s->io.len_bytes = o->block_bytes;
	s->io.done = check_done;
	nvme_host_submit(v->host, &s->io);
}

static void check_done(struct nvme_host_io *io)
{
	struct slot *s = container_of(io, struct slot, io);
	struct load_result *r = s->volume->load->result;
	if (io->result) {
		r->errors++;
		r->first_error = r->first_error ? r->first_error : io->result;
	} else {
		unit_check(s->volume, io->data, s->unit);
	}
	check_next(s);
}

/* Every unit that was written is what it was written as. */
static void volume_check(struct volume *v)
{
	struct load *l = v->load;
	v->next_unit = 0;
	group_add(&l->in_flight, l->options->depth);
	for (uint32_t i = 0; i < l->options->depth; i++)
		check_next(&v->slots[i]);
	group_wait(&l->in_flight);
}

static double cpu_s(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void measure(struct load *l)
{
	const struct load_options *o = l->options;
	uint64_t began_ns = rt_now_exact_ns(l->rt);
	double began_cpu_s = cpu_s();
	l->end_ns = rt_now_ns(l->rt) + o->time_ns;
	group_add(&l->in_flight, o->depth * o->target_count);
	for (uint32_t i = 0; i < o->target_count; i++)
		for (uint32_t k = 0; k < o->depth; k++)
			slot_start(&l->volumes[i].slots[k]);
	group_wait(&l->in_flight);
	l->result->cpu_s = cpu_s() - began_cpu_s;
	l->result->took_ns = rt_now_exact_ns(l->rt) - began_ns;
}

int load_run(struct rt *rt, const struct load_options *options, struct load_result *result)
{
	struct load *l = mem_zalloc(sizeof(*l));
	*result = (struct load_result){0};
	l->rt = rt;
	l->options = options;
	l->result = result;
	prng_seed(&l->rng, options->seed);
	group_init(&l->in_flight);
	int err = 0;
	for (uint32_t i = 0; !err && i < options->target_count; i++)
		err = volume_open(l, i);
	if (!err) {
		for (uint32_t i = 0; i < options->target_count; i++)
			volume_prepare(&l->volumes[i]);
		measure(l);
	}
	for (uint32_t i = 0; !err && options->verify && i < options->target_count; i++)
		volume_check(&l->volumes[i]);
	for (uint32_t i = 0; i < options->target_count; i++)
		volume_close(&l->volumes[i]);
	free(l);
	return err;
}
