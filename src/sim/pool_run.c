/*
 * pool_run.c: see pool_run.h.
 *
 * What to enumerate is drawn from a generator of the run's own, so that a crash state does not depend on which others were
 * tried: `only_state` runs one alone and meets the same bytes.
 */
#include "sim/pool_run.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "data/store/super_format.h"
#include "sim/pool_value.h"
#include "sim/pool_work.h"

#include <stdarg.h>
#include <stdio.h>

#define DISK_DEVICE	 "/dev/sda"
#define DISK_FILE	 "/var/pool"
#define LIVES		 3u
#define DEPTH_MAX	 3u
#define UNFLUSHED_MAX	 512u
#define ALL_SUBSETS_MAX	 6u
#define VIRTUAL_LIMIT_NS (7200 * NS_PER_S)

void (*run_progress)(uint64_t seed, uint64_t state_id);
bool run_is_quiet;
uint32_t run_event_lines = 80;

struct run {
	const struct run_spec *spec;
	struct run_report *report;
	struct prng rng; /* what to enumerate */
	struct pool_format_spec format;
	struct pool_options options;
	struct work_profile profile;
	const char *disk_path; /* a device, or a file */
	uint64_t disk_bytes, fill_seed, next_state;
	uint32_t lba_bytes, expected_points, states_aim;
	struct sim_disk_faults faults;
	uint32_t super_lost_one_in; /* crash states */
	bool damages;		    /* of its crash states, some have a damaged page */
	/* Where the next life begins. */
	struct sim_frozen *next_disk;
	struct model *next_model;
	bool next_formatted, next_power_cut;
	uint64_t next_at, life_first_state;
};

/* A simulation with one machine, one disk and one pool: a life of the run, or a crash state of one. */
struct life {
	struct run *run;
	struct sim *sim;
	struct sim_node *node;
	struct sim_disk *disk;
	struct rt_disk *rt_disk;    /* while the pool is open, which owns it */
	const struct model *before; /* what the disk held when this began */
	struct model *model;	    /* what it holds now; NULL until recovered */
	bool power_cut;		    /* a power cut is among the crashes since `before` */
	bool formatted, opened, full, done;
	bool super_lost; /* the newest superblock was damaged besides */
	bool damaged;	 /* or one page of the pool is to be, and then is: */
	char damage[120];
	uint32_t depth; /* crashes since the life began; 0 is the life itself */
	uint64_t points, state_id;
	uint32_t nested;
	struct prng rng; /* of a crash state: what to enumerate inside it */
	const char *how;
	uint64_t point_of;
	size_t unflushed, in_flight;
	char why[500];
	struct life *parent;
};

/* The innermost simulation that runs now: log lines go into its trace, and a dying process prints it. */
static struct life *current_life;

static uint64_t field_number(const struct log_event *event, size_t index)
{
	const struct log_field *f = &event->fields[index];
	if (index >= event->field_count)
		return 0;
	return f->type == LOG_FIELD_U64 || f->type == LOG_FIELD_I64 ? f->u64
	       : f->type == LOG_FIELD_ERR			    ? (uint64_t)(int64_t)f->err
								    : 0;
}

static void log_to_trace(void *ctx, const struct log_event *event)
{
	(void)ctx;
	if (current_life)
		sim_trace(current_life->sim, event->event, field_number(event, 0), field_number(event, 1),
			  field_number(event, 2));
}

static enum sim_end life_simulate(struct life *l)
{
	struct life *outer = current_life;
	current_life = l;
	enum sim_end end = sim_run(l->sim, &l->done, VIRTUAL_LIMIT_NS);
	current_life = outer;
	return end;
}

/* ---- failing ---------------------------------------------------------------------------------------------------------- */

static void describe_where(const struct life *l, char *text, size_t size_bytes)
{
	if (l->depth == 0) {
		snprintf(text, size_bytes, "life %llu", (unsigned long long)l->run->report->lives);
		return;
	}
	describe_where(l->parent, text, size_bytes);
	size_t used = strlen(text);
	snprintf(text + used, size_bytes - used, "; %s%s at write %llu (%zu unflushed, %zu in flight)%s%s",
		 l->how, l->super_lost ? ", newest superblock damaged," : "", (unsigned long long)l->point_of,
		 l->unflushed, l->in_flight, l->damage[0] ? "; then " : "", l->damage);
}

static void events_print(const struct life *l)
{
	fprintf(stderr, "--- the last events before it failed ---\n");
	for (const struct life *at = l; at; at = at->parent) {
		if (at != l)
			fprintf(stderr, "--- which began in ---\n");
		sim_trace_print(at->sim, stderr, run_event_lines);
	}
}

static void life_failed(struct life *l, const char *what)
{
	struct run_report *report = l->run->report;
	if (report->failed)
		return;
	report->failed = true;
	report->state_id = l->state_id;
	snprintf(report->what, sizeof(report->what), "%s", what);
	describe_where(l, report->where, sizeof(report->where));
	if (!run_is_quiet)
		events_print(l);
}

void run_dying(char *where, size_t size_bytes)
{
	where[0] = '\0';
	if (!current_life)
		return;
	describe_where(current_life, where, size_bytes);
	if (!run_is_quiet)
		events_print(current_life);
}

/* The generation of the superblock in a slot; 0: there is none, or it is not whole. */
static uint64_t super_generation(const struct sim_disk *disk, unsigned slot)
{
	uint8_t image[SUPER_BYTES];
	struct super_disk *d = (void *)image;
	sim_disk_peek(disk, image, sizeof(image), slot * SUPER_SLOT_BYTES);
	uint32_t crc = le32_get(d->crc);
	d->crc = le32_of(0);
	bool whole =
		memcmp(d->magic, SUPER_MAGIC, sizeof(d->magic)) == 0 && crc == crc32c(0, image, SUPER_BYTES);
	return whole ? le64_get(d->generation) : 0;
}

/* The medium takes the newest superblock, too. The older one and the journal must recover the same. */
static bool newest_super_damage(struct sim_disk *disk)
{
	uint64_t generations[2] = {super_generation(disk, 0), super_generation(disk, 1)};
	unsigned newest = generations[1] > generations[0];
	if (generations[0] == 0 || generations[1] == 0 || generations[newest ^ 1] + 1 != generations[newest])
		return false;
	sim_disk_flip_bit(disk, newest * SUPER_SLOT_BYTES + 40, 3);
	return true;
}

/* Formatting and recovery meet a disk that works. */
static void no_errors(struct sim_disk *disk)
{
	struct sim_disk_faults *f = sim_disk_faults(disk);
	f->read_error_one_in = f->write_error_one_in = f->flush_error_one_in = 0;
	f->space_bytes = 0;
}

/* ---- recovering and checking ----------------------------------------------------------------------------------------------- */

static bool life_says(struct life *l, const char *call, int err)
{
	if (err && !l->why[0])
		snprintf(l->why, sizeof(l->why), "%s returned %s", call, err_name(err));
	return err == 0;
}

/* The pool as a start would find it: format (a crash may have come before that was done), open. */
static struct pool *life_open(struct life *l)
{
	struct rt_disk *disk;
	struct pool *pool;
	if (!life_says(l, "rt_disk_open", rt_disk_open(rt_current(), l->run->disk_path, 0, 0, &disk)))
		return NULL;
	if (!l->formatted && !life_says(l, "pool_format", pool_format(disk, &l->run->format, false))) {
		rt_disk_close(disk);
		return NULL;
	}
	l->formatted = true;
	if (!life_says(l, "pool_open", pool_open(disk, &l->run->options, &pool)))
		return NULL;
	l->rt_disk = disk;
	return pool;
}

/* Check what was recovered. With `learned` the life goes on with what was found. */
static bool life_check(struct life *l, struct pool *pool, struct model *learned)
{
	struct model_check check = {
		.power_cut = l->power_cut,
		.full = learned || l->full,
		.rng = sim_prng(l->sim),
		.learned = learned,
	};
	return model_check_pool(l->before, pool, &check, l->why, sizeof(l->why));
}

/* ---- crash states ---------------------------------------------------------------------------------------------------------------- */

static void life_watch(void *ctx, struct sim_disk *disk);

/* There is no room under the file: the pool opens or says so, and what it does then costs nothing. */
static void open_without_room(struct life *l)
{
	struct rt_disk *disk;
	struct pool *pool;
	sim_disk_faults(l->disk)->space_bytes = 1;
	if (!life_says(l, "rt_disk_open", rt_disk_open(rt_current(), l->run->disk_path, 0, 0, &disk)))
		return;
	int err = pool_open(disk, &l->run->options, &pool);
	if (!err)
		err = pool_close(pool);
	if (err != OXE_NOSPC && err != OXE_FAILED)
		life_says(l, "without room, pool_open or pool_close", err);
	sim_disk_faults(l->disk)->space_bytes = 0;
}

/* A crash state: recover, check, close. Some are opened again and checked once more. */
static void state_main(void *arg)
{
	struct life *l = arg;
	bool again = prng_one_in(&l->rng, 12);
	if (l->formatted && l->run->profile.room_bytes && prng_one_in(&l->rng, 2))
		open_without_room(l);
	for (int round = 0; round < (again ? 2 : 1); round++) {
		struct pool *pool = life_open(l);
		l->opened = true;
		if (!pool)
			break;
		life_check(l, pool, NULL);
		if (!life_says(l, "pool_close", pool_close(pool)))
			break;
		if (l->why[0])
			break;
	}
	l->done = true;
}

/* ---- damaged states ----------------------------------------------------------------------------------------------------------------- */

/* A crash state in which one page of the pool is damaged besides, before recovery or after a close. What the damage does not
 * cost is right; what it did not let open is as it was; and once it is healed nothing is missing. */
struct damaged {
	struct life *life;
	struct damage damage;
	struct model *model; /* what the pool holds */
	bool power_cut;	     /* of what `model` lists, anything not struck out may be there */
};

static void damaged_check(struct damaged *x, struct pool *pool, bool healed)
{
	struct life *l = x->life;
	struct model_check check = {.power_cut = x->power_cut, .full = true, .rng = sim_prng(l->sim)};
	if (!healed)
		check.damage = &x->damage;
	if (!l->why[0])
		model_check_pool(x->model, pool, &check, l->why, sizeof(l->why));
}

static void damaged_says(struct damaged *x, const char *what, int err)
{
	struct life *l = x->life;
	if (!l->why[0])
		snprintf(l->why, sizeof(l->why), "%s returned %s though %s", what, err_name(err), l->damage);
}

/* The pool in a known state, and closed: what is not crashed any more has one value for each sector. */
static void settle_and_close(struct damaged *x)
{
	struct life *l = x->life;
	struct pool *pool = life_open(l);
	struct model *learned = mem_alloc(sizeof(*learned));
	model_init(learned);
	if (pool) {
		life_check(l, pool, learned);
		life_says(l, "pool_close", pool_close(pool));
	}
	model_free(x->model);
	x->model = learned;
	x->power_cut = false;
}

static struct pool *damaged_open(struct damaged *x)
{
	struct life *l = x->life;
	struct rt_disk *disk;
	struct pool *pool;
	if (!life_says(l, "rt_disk_open", rt_disk_open(rt_current(), l->run->disk_path, 0, 0, &disk)))
		return NULL;
	int err = pool_open(disk, &l->run->options, &pool);
	bool right = err ? damage_excuses_open(&x->damage, err) : !damage_forbids_open(&x->damage);
	if (!right)
		damaged_says(x, "pool_open", err);
	x->damage.opened = err == 0;
	return err ? NULL : pool;
}

static bool damaged_write(struct damaged *x, struct pool *pool, struct model_volume *v, struct vol *vol,
			  uint8_t *buf)
{
	struct prng *rng = sim_prng(x->life->sim);
	uint64_t unit = v->lba_bytes / VALUE_BYTES, units = v->content->sector_count / unit;
	uint64_t count = unit * (1 + prng_below(rng, u64_min(units, 128 / unit)));
	uint64_t first = unit * prng_below(rng, units - count / unit + 1);
	uint64_t tag = value_tag(v->serial, ++x->model->version), submitted = model_tick(x->model);
	value_fill(buf, first, count, tag);
	content_write_begin(v->content, first, count, tag, submitted);
	int err = vol_write(vol, buf, first * VALUE_BYTES, count * VALUE_BYTES, VOL_FUA);
	content_write_end(v->content, first, count, submitted, model_tick(x->model),
			  err == 0	     ? ANSWER_DURABLE
			  : err == OXE_NOSPC ? ANSWER_UNCHANGED
					     : ANSWER_UNKNOWN);
	bool excused = err == 0 || err == OXE_NOSPC;
	for (uint64_t s = first; !excused && s < first + count; s++)
		excused = damage_excuses_io(&x->damage, pool, &v->id, s / CONTENT_BLOCK_SECTORS, err);
	if (!excused)
		damaged_says(x, "vol_write", err);
	return excused;
}

/* What such a snapshot holds is noted with the head, and a write to that would take it for overwritten. */
static bool has_snapshot_appearing(const struct model_volume *v)
{
	for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
		if (v->snapshots[i].presence == APPEARING)
			return true;
	}
	return false;
}

/* Clients write to what there is. */
static void damaged_work(struct damaged *x, struct pool *pool)
{
	uint8_t *buf = aligned_alloc(RT_IO_ALIGN, POOL_CLUSTER_BYTES);
	for (size_t i = 0; i < MODEL_VOLUMES && !x->life->why[0]; i++) {
		struct model_volume *v = &x->model->volumes[i];
		struct vol *vol;
		if (v->presence != PRESENT || v->reverting_to >= 0 || has_snapshot_appearing(v))
			continue;
		int err = vol_open(pool, &v->id, &vol);
		if (err && !damage_excuses_object(&x->damage, pool, err))
			damaged_says(x, "vol_open", err);
		if (err)
			continue;
		model_graft_decide(x->model, v, pool);
		for (unsigned k = 0; k < 4 && damaged_write(x, pool, v, vol, buf); k++)
			;
		vol_close(vol);
	}
	free(buf);
}

static void damaged_life(struct damaged *x)
{
	struct life *l = x->life;
	struct pool *pool = damaged_open(x);
	if (!pool)
		return;
	damaged_check(x, pool, false);
	if (damage_must_show(&x->damage) && !x->damage.reported)
		damaged_says(x, "pool_check", 0);
	if (!l->why[0])
		damaged_work(x, pool);
	damaged_check(x, pool, false);
	life_says(l, "pool_close", pool_close(pool));
}

/* Healed where that brings everything back, else as it is. */
static void damaged_again(struct damaged *x)
{
	struct life *l = x->life;
	bool heals = damage_is_undone(&x->damage);
	if (heals)
		damage_heal(&x->damage, l->disk);
	struct pool *pool = heals ? life_open(l) : damaged_open(x);
	if (!pool)
		return;
	damaged_check(x, pool, heals);
	life_says(l, "pool_close", pool_close(pool));
}

static void damaged_main(void *arg)
{
	struct life *l = arg;
	struct damaged *x = mem_zalloc(sizeof(*x));
	*x = (struct damaged){.life = l, .model = model_copy(l->before), .power_cut = l->power_cut};
	bool at_rest = prng_one_in(&l->rng, 2);
	if (at_rest)
		settle_and_close(x);
	if (!l->why[0] && damage_do(&x->damage, l->disk, &l->rng, at_rest)) {
		damage_text(&x->damage, l->damage, sizeof(l->damage));
		damaged_life(x);
		if (!l->why[0])
			damaged_again(x);
	}
	model_free(x->model);
	free(x);
	l->done = true;
}

static void state_run_sim(struct life *l)
{
	fiber_spawn_big(sim_node_start(l->node), "recover", l->damaged ? damaged_main : state_main, l);
	enum sim_end end = life_simulate(l);
	if (end != SIM_DONE && !l->why[0])
		snprintf(l->why, sizeof(l->why), "recovery %s", end == SIM_STUCK ? "hangs" : "never ends");
	if (l->why[0])
		life_failed(l, l->why);
}

/* Fates for the unflushed writes: `pattern` is a subset by bit, or, with ones beyond, a way to draw them. */
enum { ALL_LOST, ALL_KEPT, FLIGHT_LOST, ONE_LOST, ONE_KEPT, COINS, TEARS, FLIGHT_TORN, PATTERNS };

static void fates_draw(struct life *l, uint32_t pattern, size_t count, size_t in_flight, uint8_t *fates)
{
	size_t one = count ? prng_below(&l->rng, count) : 0;
	for (size_t i = 0; i < count; i++) {
		bool flies = i >= count - in_flight;
		switch (pattern) {
		case ALL_LOST:
			fates[i] = SIM_LOST;
			break;
		case ALL_KEPT:
			fates[i] = SIM_KEPT;
			break;
		case FLIGHT_LOST:
			fates[i] = flies ? SIM_LOST : SIM_KEPT;
			break;
		case ONE_LOST:
			fates[i] = i == one ? SIM_LOST : SIM_KEPT;
			break;
		case ONE_KEPT:
			fates[i] = i == one ? SIM_KEPT : SIM_LOST;
			break;
		case COINS:
			fates[i] = (uint8_t)prng_below(&l->rng, 2);
			break;
		case FLIGHT_TORN:
			fates[i] = flies ? SIM_TORN : SIM_KEPT;
			break;
		default:
			fates[i] = (uint8_t)prng_below(&l->rng, 3);
		}
	}
}

static const char *const pattern_names[] = {
	"power cut, all unflushed lost", "power cut, all kept",	      "power cut, in flight lost",
	"power cut, one lost",		 "power cut, one kept",	      "power cut, some lost",
	"power cut, some lost or torn",	 "power cut, in flight torn",
};

struct crash {
	bool kill;
	bool exact; /* the subset in `subset` */
	uint32_t subset;
};

static void fates_exact(uint32_t subset, size_t count, uint8_t *fates)
{
	for (size_t i = 0; i < count; i++)
		fates[i] = subset & (1u << i) ? SIM_KEPT : SIM_LOST;
}

static void crash_disk(struct life *l, const struct sim_frozen *frozen, const struct crash *crash)
{
	uint8_t fates[UNFLUSHED_MAX];
	size_t count = l->unflushed;
	if (crash->kill) {
		l->how = "kill";
		l->disk = sim_disk_fork_kill(l->node, l->run->disk_path, frozen);
		return;
	}
	if (crash->exact) {
		l->how = "power cut, one subset";
		fates_exact(crash->subset, count, fates);
	} else {
		uint32_t pattern = (uint32_t)prng_below(&l->rng, PATTERNS);
		l->how = pattern_names[pattern];
		fates_draw(l, pattern, u64_min(count, UNFLUSHED_MAX), l->in_flight, fates);
	}
	bool drawn_by_disk = count > UNFLUSHED_MAX;
	l->disk = sim_disk_fork_power_cut(l->node, l->run->disk_path, frozen, drawn_by_disk ? NULL : fates);
}

static uint64_t run_seed_for(const struct run *run, uint64_t what)
{
	return hash_u64(run->spec->seed * 0x9e3779b97f4a7c15ULL + what);
}

static void state_try(struct life *parent, const struct sim_frozen *frozen, const struct crash *crash,
		      uint64_t seed, uint64_t state_id)
{
	struct run *run = parent->run;
	struct life l = {
		.run = run,
		.before = parent->model ? parent->model : parent->before,
		.power_cut = !crash->kill || (!parent->model && parent->power_cut),
		.formatted = parent->formatted,
		.depth = parent->depth + 1,
		.state_id = state_id,
		.point_of = parent->points,
		.parent = parent,
		.unflushed = sim_frozen_unflushed(frozen),
		.in_flight = sim_frozen_in_flight(frozen),
	};
	if (run_progress)
		run_progress(run->spec->seed, state_id);
	prng_seed(&l.rng, seed);
	l.full = prng_one_in(&l.rng, 25);
	l.sim = sim_new(seed);
	l.node = sim_node_new(l.sim, "crashed");
	sim_shuffle(l.sim, prng_one_in(&l.rng, 2));
	crash_disk(&l, frozen, crash);
	l.damaged = l.formatted && run->damages && l.depth == 1 && !prng_one_in(&l.rng, 4);
	l.super_lost = l.formatted && !l.damaged && prng_one_in(&l.rng, run->super_lost_one_in) &&
		       newest_super_damage(l.disk);
	no_errors(l.disk);
	sim_disk_faults(l.disk)->stall_one_in = 0;
	if (l.depth < DEPTH_MAX && !l.damaged)
		sim_disk_watch(l.disk, life_watch, &l);
	run->report->states++;
	state_run_sim(&l);
	if (!run->report
		     ->failed) /* a failing one may have left fibers behind, and memory is no matter then */
		sim_node_stop(l.node);
	sim_free(l.sim);
}

/* ---- choosing crash states ----------------------------------------------------------------------------------------------------------- */

/* One more state of the life itself. Its number is its seed. */
static void life_state(struct life *l, const struct sim_frozen *frozen, const struct crash *crash)
{
	struct run *run = l->run;
	uint64_t id = ++run->next_state;
	if (run->report->failed || (run->spec->only_state && run->spec->only_state != id))
		return;
	state_try(l, frozen, crash, run_seed_for(run, 1000 + id), id);
}

static void life_states(struct life *l, const struct sim_frozen *frozen, uint32_t wanted, bool all)
{
	size_t unflushed = sim_frozen_unflushed(frozen);
	if (all && unflushed <= ALL_SUBSETS_MAX) {
		for (uint32_t subset = 0; subset < 1u << unflushed; subset++)
			life_state(l, frozen, &(struct crash){.exact = true, .subset = subset});
		life_state(l, frozen, &(struct crash){.kill = true});
		return;
	}
	for (uint32_t i = 0; i < wanted; i++)
		life_state(l, frozen, &(struct crash){.kill = prng_one_in(&l->run->rng, 3)});
}

/* How many states to try at this point of the life, so that the whole life gets its share. */
static void life_point(struct life *l, struct sim_disk *disk)
{
	struct run *run = l->run;
	bool exhaustive = run->spec->states == RUN_STATE_ALL;
	uint64_t draw = prng_below(&run->rng, run->expected_points);
	uint64_t burst = 1 + prng_below(&run->rng, 4);
	bool all = exhaustive || prng_one_in(&run->rng, 40);
	bool early =
		l->power_cut && l->points < 60; /* what recovery left behind matters most just after it */
	if (early)
		draw /= 4;
	if (!exhaustive && draw * 3 >= run->states_aim) /* a burst makes about three, with what is nested */
		return;
	if (!exhaustive && run->next_state >= run->life_first_state + 2 * run->states_aim)
		return;
	struct sim_frozen *frozen = sim_disk_freeze(disk);
	life_states(l, frozen, exhaustive ? 6 : (uint32_t)burst, all);
	sim_frozen_free(frozen);
}

/* The next life begins with a crash here. */
static void life_keep(struct life *l, struct sim_disk *disk)
{
	struct run *run = l->run;
	run->next_disk = sim_disk_freeze(disk);
	run->next_model = model_copy(l->model ? l->model : l->before);
	run->next_formatted = l->formatted;
	run->next_power_cut = !l->model && l->power_cut;
}

/* Inside a crash state: crash again now and then, until the pool is open. */
static void nested_point(struct life *l, struct sim_disk *disk)
{
	bool exhaustive = l->run->spec->states == RUN_STATE_ALL;
	if (l->opened || l->nested >= (exhaustive ? 12u : 4u) || l->run->report->failed)
		return;
	if (!prng_one_in(&l->rng, exhaustive ? 2 : 16))
		return;
	l->nested++;
	struct crash crash = {.kill = prng_one_in(&l->rng, 2)};
	struct sim_frozen *frozen = sim_disk_freeze(disk);
	state_try(l, frozen, &crash, prng_u64(&l->rng), l->state_id);
	sim_frozen_free(frozen);
}

static void life_watch(void *ctx, struct sim_disk *disk)
{
	struct life *l = ctx;
	l->points++;
	if (l->depth > 0) {
		nested_point(l, disk);
		return;
	}
	l->run->report->points++;
	if (!l->run->report->failed)
		life_point(l, disk);
	if (!l->run->next_disk && l->points >= l->run->next_at)
		life_keep(l, disk);
}

/* ---- a life ---------------------------------------------------------------------------------------------------------------------------- */

static bool life_work(struct life *l, struct pool *pool)
{
	struct work *work = mem_alloc(sizeof(*work));
	work_init(work, l->sim, l->disk, l->rt_disk, pool, l->model, &l->run->profile);
	*sim_disk_faults(l->disk) = l->run->faults;
	work_run(work);
	no_errors(l->disk);
	l->run->report->steps += l->run->profile.operations - work->steps_left;
	snprintf(l->why, sizeof(l->why), "%s", work->why);
	bool failed = work->pool_failed;
	free(work);
	return failed;
}

/* What nobody has crashed must be exactly what is current. */
static bool life_check_end(struct life *l, struct pool *pool)
{
	struct model_check check = {.full = true, .rng = sim_prng(l->sim)};
	return model_check_pool(l->model, pool, &check, l->why, sizeof(l->why));
}

/* The pool stopped for lack of room, and nobody was killed: with room again it opens and has everything. */
static void life_reopen(struct life *l)
{
	struct pool *pool = life_open(l);
	struct model_check check = {.full = true, .rng = sim_prng(l->sim)};
	if (!pool)
		return;
	model_check_pool(l->model, pool, &check, l->why, sizeof(l->why));
	life_says(l, "pool_close", pool_close(pool));
}

/* A request that was refused room while the clients were there may end, and stop the pool, when they have gone. */
static bool late_refusal(struct life *l, struct pool *pool)
{
	struct pool_stats stats;
	pool_stats(pool, &stats);
	if (!stats.failed || !l->run->profile.room_bytes || !strstr(l->why, err_name(OXE_FAILED)))
		return false;
	l->why[0] = '\0';
	return true;
}

static void life_main(void *arg)
{
	struct life *l = arg;
	struct pool *pool = life_open(l);
	struct model *learned = mem_alloc(sizeof(*learned));
	l->opened = pool != NULL;
	model_init(learned);
	if (pool && life_check(l, pool, learned)) {
		l->model = learned;
		bool failed = life_work(l, pool);
		if (!l->why[0] && !failed && !l->run->profile.errors_expected)
			failed = !life_check_end(l, pool) && late_refusal(l, pool);
		int err = pool_close(pool);
		if (!failed && !l->run->profile.errors_expected)
			life_says(l, "pool_close", err);
		if (failed && !l->why[0] && l->run->profile.room_bytes)
			life_reopen(l);
	}
	if (!l->model)
		model_free(learned);
	l->done = true;
}

static void life_disk(struct life *l, struct sim_frozen *frozen)
{
	struct run *run = l->run;
	if (!frozen) {
		l->disk = sim_disk_new(l->node, run->disk_path, run->disk_bytes, run->lba_bytes);
		if (run->fill_seed)
			sim_disk_fill(l->disk, run->fill_seed);
	} else if (prng_one_in(&run->rng, 3)) {
		l->disk = sim_disk_fork_kill(l->node, l->run->disk_path, frozen);
	} else {
		l->power_cut = true;
		l->disk = sim_disk_fork_power_cut(l->node, l->run->disk_path, frozen, NULL);
	}
	*sim_disk_faults(l->disk) = run->faults;
	no_errors(l->disk);
	sim_disk_watch(l->disk, life_watch, l);
}

static void life_run(struct run *run, const struct model *before, struct sim_frozen *frozen, bool formatted,
		     bool power_cut)
{
	uint64_t number = run->report->lives++;
	struct life l = {.run = run, .before = before, .formatted = formatted, .power_cut = power_cut};
	run->life_first_state = run->next_state;
	if (run_progress)
		run_progress(run->spec->seed, 0);
	l.sim = sim_new(run_seed_for(run, number));
	l.node = sim_node_new(l.sim, "alive");
	sim_shuffle(l.sim, prng_one_in(&run->rng, 2));
	run->next_at = 1 + prng_below(&run->rng, run->expected_points);
	life_disk(&l, frozen);
	fiber_spawn_big(sim_node_start(l.node), "life", life_main, &l);
	enum sim_end end = life_simulate(&l);
	if (end != SIM_DONE && !l.why[0])
		snprintf(l.why, sizeof(l.why), "the run %s", end == SIM_STUCK ? "hangs" : "never ends");
	if (l.why[0])
		life_failed(&l, l.why);
	run->report->device_writes += sim_disk_counts(l.disk)->writes;
	run->report->hash = hash_u64(run->report->hash ^ sim_trace_hash(l.sim));
	if (!run->report->failed)
		sim_node_stop(l.node);
	model_free(l.model);
	sim_free(l.sim);
}

/* ---- a run ------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t one_of(struct prng *rng, const uint64_t *values, size_t count)
{
	return values[prng_below(rng, count)];
}
#define ONE_OF(rng, ...)                                                                                     \
	one_of(rng, (const uint64_t[]){__VA_ARGS__}, ARRAY_COUNT(((const uint64_t[]){__VA_ARGS__})))

static void draw_disk(struct run *run, struct prng *rng)
{
	run->disk_path = prng_one_in(rng, 3) ? DISK_FILE : DISK_DEVICE;
	run->disk_bytes = ONE_OF(rng, 16 * MiB, 16 * MiB, 20 * MiB, 32 * MiB);
	run->lba_bytes = (uint32_t)ONE_OF(rng, 512, 512, 4096);
	run->fill_seed = prng_one_in(rng, 2) ? prng_u64(rng) | 1 : 0;
	run->faults = (struct sim_disk_faults){
		.latency_min_ns = 20 * NS_PER_US,
		.latency_max_ns = ONE_OF(rng, 30, 100, 1000) * NS_PER_US,
		.flush_ns = ONE_OF(rng, 50, 500, 3000, 20000) * NS_PER_US,
		.stall_one_in = (uint32_t)ONE_OF(rng, 0, 0, 200, 20),
		.stall_ns = ONE_OF(rng, 20, 20, 500, 30000) *
			    NS_PER_MS, /* as a disk that retries, or a path that fails over */
		.discard = (enum sim_discard)prng_below(rng, 4),
		.torn_bytes = (uint32_t)(run->lba_bytes == 4096 ? 4096 : ONE_OF(rng, 512, 4096)),
	};
}

/* Some runs live on a full pool, some in deep and changing chains, some in one place. */
static void draw_theme(struct run *run, struct prng *rng)
{
	run->super_lost_one_in = 8;
	struct work_profile *p = &run->profile;
	uint64_t theme = prng_below(rng, 5);
	if (theme == 0) {
		p->tight = true;
		p->swarm = 0;
		p->volumes_max = 3;
		p->volume_bytes_max = 8 * MiB;
		p->write_bytes_max = 256 * KiB;
		p->control_one_in = 40;
		p->operations = 800;
		run->disk_bytes = 16 * MiB;
	} else if (theme == 1) {
		p->chains = true;
		p->swarm = 0;
		p->volume_bytes_max = ONE_OF(rng, 128 * KiB, 512 * KiB);
		p->volumes_max = MODEL_VOLUMES;
		p->control_one_in = 3;
		run->options.background_bytes_per_s = 0;
	} else if (theme == 2) { /* the same few clusters again and again */
		p->swarm = 0;
		p->volume_bytes_max = ONE_OF(rng, 64 * KiB, 192 * KiB);
		p->volumes_max = 2;
		p->write_bytes_max = 64 * KiB;
		p->control_one_in = 40;
		p->flush_one_in = 8;
	} else if (theme == 3) { /* once round the journal while one checkpoint is written */
		p->swarm = 0;
		p->clients = WORK_CLIENTS;
		p->operations = 800;
		p->volume_bytes_max = 2 * MiB;
		p->write_bytes_max = 8 * KiB;
		p->control_one_in = 40;
		p->flush_one_in = 400;
		p->durable_one_in = 60;
		run->format.journal_bytes = 256 * KiB;
		run->faults.latency_max_ns = 30 * NS_PER_US;
		run->faults.flush_ns = 20 * NS_PER_MS;
		run->super_lost_one_in = 2;
	}
}

static void draw_work(struct run *run, struct prng *rng)
{
	run->profile = (struct work_profile){
		.clients = (uint32_t)(1 + prng_below(rng, WORK_CLIENTS)),
		.operations = (uint32_t)ONE_OF(rng, 40, 100, 200, 400, 800),
		.volume_bytes_max = ONE_OF(rng, 256 * KiB, 1 * MiB, 2 * MiB, 6 * MiB),
		.write_bytes_max = (uint32_t)ONE_OF(rng, 8 * KiB, 64 * KiB, 256 * KiB),
		.volumes_max = (uint32_t)ONE_OF(rng, 1, 3, MODEL_VOLUMES),
		.control_one_in = (uint32_t)ONE_OF(rng, 2, 4, 8, 20),
		.flush_one_in = (uint32_t)ONE_OF(rng, 6, 20, 100, 400),
		.durable_one_in = (uint32_t)ONE_OF(rng, 3, 8, 60),
		.swarm = prng_one_in(rng, 4) ? 0 : prng_u64(rng),
	};
	run->format.journal_bytes = ONE_OF(rng, 0, 256 * KiB, 256 * KiB, 1 * MiB);
	run->options.cache_bytes = ONE_OF(rng, 1 * MiB, 4 * MiB, 0);
	run->options.background_bytes_per_s = ONE_OF(rng, 0, 0, 4 * MiB);
	run->options.no_discard = prng_one_in(rng, 8);
	run->options.discard_after_ms = (uint32_t)ONE_OF(rng, 1, 1, 1, 5, 20);
	draw_theme(run, rng);
}

/* A few runs have their pool in a sparse file on a file system that is full at times. */
static void draw_full(struct run *run, struct prng *rng)
{
	run->disk_path = DISK_FILE;
	run->fill_seed = 0;
	run->profile.room_bytes = MiB + prng_below(rng, 4 * MiB);
}

/* A few runs have a disk that fails requests. */
static void draw_errors(struct run *run, struct prng *rng)
{
	run->profile.errors_expected = true;
	run->faults.read_error_one_in = (uint32_t)ONE_OF(rng, 0, 40, 200);
	run->faults.write_error_one_in = (uint32_t)ONE_OF(rng, 0, 100, 400);
	run->faults.flush_error_one_in = (uint32_t)ONE_OF(rng, 0, 0, 20);
}

/* Each kind of fault has runs of its own, with its own rules of what is promised. */
static void draw_fault(struct run *run, struct prng *rng)
{
	uint64_t kind = prng_below(rng, 16);
	if (kind < 2)
		draw_errors(run, rng);
	else if (kind == 2)
		draw_full(run, rng);
	else if (kind < 5)
		run->damages = true;
}

static void run_draw(struct run *run)
{
	struct prng rng;
	uint8_t id[16];
	prng_seed(&rng, run_seed_for(run, 1));
	prng_seed(&run->rng, run_seed_for(run, 2));
	draw_disk(run, &rng);
	draw_work(run, &rng);
	prng_fill(&rng, id, sizeof(id));
	run->format.id = uuid_from_random(id);
	snprintf(run->format.name, sizeof(run->format.name), "pool-%llu",
		 (unsigned long long)run->spec->seed);
	draw_fault(run, &rng);
	run->profile.grafts = prng_one_in(&rng, 4);
	if (run->profile.grafts)
		run->profile.volumes_max = (uint32_t)u64_max(run->profile.volumes_max, 2);
	run->expected_points = run->profile.operations * 2 + 20;
	run->states_aim = u64_max(1, run->spec->states / LIVES);
}

bool pool_run(const struct run_spec *spec, struct run_report *report)
{
	struct run run = {.spec = spec, .report = report};
	struct model *model = mem_alloc(sizeof(*model));
	struct sim_frozen *frozen = NULL;
	*report = (struct run_report){0};
	model_init(model);
	log_sink_set(log_to_trace, NULL, LOG_LEVEL_DEBUG);
	run_draw(&run);
	model->pool_bytes = run.disk_bytes;
	for (uint32_t i = 0; i < LIVES && !report->failed; i++) {
		life_run(&run, model, frozen, run.next_formatted, run.next_power_cut);
		if (frozen)
			sim_frozen_free(frozen);
		frozen = run.next_disk;
		run.next_disk = NULL;
		if (!frozen)
			break;
		model_free(model);
		model = run.next_model;
		run.next_model = NULL;
	}
	if (frozen)
		sim_frozen_free(frozen);
	model_free(run.next_model);
	model_free(model);
	return !report->failed;
}
