/*
 * pool_model_test.c: what the model makes of a crash while a volume was grafted upon another (docs/findings.md, 26).
 *
 * The graft may have happened. The start that finds out decides it: what clients write from then on goes over what that start found, and
 * no later start may find it decided the other way.
 */
#include "base/test.h"
#include "sim/pool_model.h"
#include "sim/pool_value.h"
#include "sim/sim.h"

#include <stdio.h>

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (16 * MiB)
#define VOLUME_BYTES	 MiB
#define BLOCK_SECTORS	 CONTENT_BLOCK_SECTORS
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)

static const struct uuid pool_id = {{0x0b, 0x10, 0, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid layer_id = {{0x0b, 0x10, 3, 0, 0, 0, 0x40, 0, 0x80}};

enum { UPON, FRESH }; /* which volume of the model, and its serial less one */

struct life {
	struct sim *sim;
	struct sim_node *node;
	struct pool *pool;
	struct model *model;
	struct sim_frozen *before, *after; /* of the graft */
	bool over, fits;
};

static void life_open(struct life *l)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_open(disk, NULL, &l->pool));
}

static void format(void)
{
	struct pool_format_spec spec = {.id = pool_id, .name = "p"};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	rt_disk_close(disk);
}

static struct model_volume *volume_make(struct life *l, unsigned which, const char *name)
{
	struct model_volume *v = &l->model->volumes[which];
	struct volume_spec spec = {.size_bytes = VOLUME_BYTES, .lba_bytes = 512};
	spec.id = (struct uuid){{0x0b, 0x10, 4, (uint8_t)which, 0, 0, 0x40, 0, 0x80}};
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	v->presence = PRESENT;
	v->is_fresh = which == FRESH;
	v->id = spec.id;
	v->serial = which + 1;
	v->size_bytes = spec.size_bytes;
	v->lba_bytes = spec.lba_bytes;
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->content = (v->is_fresh ? content_new_fresh : content_new)(VOLUME_BYTES / VALUE_BYTES);
	CHECK_OK((v->is_fresh ? volume_create_fresh : volume_create)(l->pool, &spec));
	return v;
}

static void block_write(struct life *l, struct model_volume *v, uint64_t block)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	uint64_t first = block * BLOCK_SECTORS, tag = value_tag(v->serial, ++l->model->version);
	uint64_t submitted = model_tick(l->model);
	struct vol *vol;
	CHECK_OK(vol_open(l->pool, &v->id, &vol));
	value_fill(data, first, BLOCK_SECTORS, tag);
	content_write_begin(v->content, first, BLOCK_SECTORS, tag, submitted);
	CHECK_OK(vol_write(vol, data, first * VALUE_BYTES, sizeof(data), VOL_FUA));
	content_write_end(v->content, first, BLOCK_SECTORS, submitted, model_tick(l->model), ANSWER_DURABLE);
	vol_close(vol);
}

/* What the workload notes before it asks for a graft. */
static void graft_begin(struct life *l, struct model_volume *v, struct model_volume *fresh)
{
	struct volume_info info;
	CHECK_OK(volume_get_any(l->pool, &fresh->id, &info));
	content_flushed(v->content, model_tick(l->model), NEVER);
	v->grafted_id = fresh->id;
	v->grafted_head = info.head_id;
	v->grafted = content_graft(v->content, fresh->content, model_tick(l->model));
	fresh->presence = VANISHING;
}

static void story_main(void *arg)
{
	struct life *l = arg;
	struct sim_disk *disk = sim_disk_new(l->node, DISK, DISK_BYTES, 512);
	format();
	life_open(l);
	struct model_volume *v = volume_make(l, UPON, "v"), *fresh = volume_make(l, FRESH, "~f");
	block_write(l, v, 0);
	block_write(l, v, 1);
	CHECK_OK(layer_seal(l->pool, &v->id, &layer_id, "~j", NULL));
	block_write(l, fresh, 1);
	graft_begin(l, v, fresh);
	l->before = sim_disk_freeze(disk);
	CHECK_OK(volume_graft(l->pool, &v->id, &fresh->id, &v->grafted_head));
	l->after = sim_disk_freeze(disk);
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

/* Nothing has been decided; then clients write to whichever there is. */
static void decide_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	for (unsigned which = UPON; which <= FRESH; which++) {
		struct model_volume *v = &l->model->volumes[which];
		model_graft_decide(l->model, v, l->pool);
		if (v->presence == PRESENT)
			block_write(l, v, 2);
	}
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

static void check_main(void *arg)
{
	struct life *l = arg;
	char why[500];
	struct prng rng;
	struct model_check check = {.full = true, .rng = &rng};
	prng_seed(&rng, 1);
	life_open(l);
	l->fits = model_check_pool(l->model, l->pool, &check, why, sizeof(why));
	if (!l->fits)
		printf("   %s\n", why);
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

/* On a machine of its own, whose disk is as a kill left it; on a new one without. */
static struct sim_frozen *life_run(struct life *l, const struct sim_frozen *from, void (*fn)(void *arg))
{
	struct sim_disk *disk = NULL;
	struct sim_frozen *left = NULL;
	l->sim = sim_new(1);
	l->node = sim_node_new(l->sim, "a");
	struct rt *rt = sim_node_start(l->node);
	if (from)
		disk = sim_disk_fork_kill(l->node, DISK, from);
	l->over = false;
	fiber_spawn_big(rt, "life", fn, l);
	CHECK_EQ(sim_run(l->sim, &l->over, VIRTUAL_LIMIT_NS), SIM_DONE);
	if (disk)
		left = sim_disk_freeze(disk);
	sim_node_stop(l->node);
	sim_free(l->sim);
	return left;
}

static bool pool_fits(struct life *l, const struct sim_frozen *frozen)
{
	sim_frozen_free(life_run(l, frozen, check_main));
	return l->fits;
}

static struct life story_run(void)
{
	struct life l = {.model = mem_alloc(sizeof(*l.model))};
	model_init(l.model);
	l.model->pool_bytes = DISK_BYTES;
	life_run(&l, NULL, story_main);
	return l;
}

static void story_end(struct life *l)
{
	sim_frozen_free(l->before);
	sim_frozen_free(l->after);
	model_free(l->model);
}

TEST(a_crash_while_a_volume_is_grafted_finds_it_grafted_or_not)
{
	struct life l = story_run();
	CHECK(pool_fits(&l, l.before) && pool_fits(&l, l.after));
	story_end(&l);
}

TEST(what_is_written_after_a_start_that_found_a_graft_goes_over_what_was_grafted)
{
	struct life l = story_run();
	struct sim_frozen *written = life_run(&l, l.after, decide_main);
	CHECK(l.model->volumes[FRESH].presence == ABSENT);
	CHECK(pool_fits(&l, written));
	CHECK(!pool_fits(&l, l.after)); /* without the write */
	sim_frozen_free(written);
	story_end(&l);
}

TEST(what_is_written_after_a_start_that_found_no_graft_goes_over_what_was_there)
{
	struct life l = story_run();
	struct sim_frozen *written = life_run(&l, l.before, decide_main);
	CHECK(l.model->volumes[FRESH].presence == PRESENT);
	CHECK(pool_fits(&l, written));
	CHECK(!pool_fits(&l, l.before));
	sim_frozen_free(written);
	story_end(&l);
}

TEST(a_graft_that_a_start_has_decided_is_not_decided_otherwise_by_the_next)
{
	struct life l = story_run();
	struct model *open = model_copy(l.model);
	model_graft_end(l.model, &l.model->volumes[UPON], true);
	CHECK(pool_fits(&l, l.after) && !pool_fits(&l, l.before));
	model_free(l.model);
	l.model = open;
	model_graft_end(l.model, &l.model->volumes[UPON], false);
	CHECK(pool_fits(&l, l.before) && !pool_fits(&l, l.after));
	story_end(&l);
}
