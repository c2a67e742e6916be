/*
 * pool_hurt_test.c: what a start on a damaged pool must not make of it (S9), each story told twice: as it is, and with the rule left
 * out that prevents a loss, which must be seen.
 *
 * A volume is deleted and another made, whose record gets the old one's places in the catalog; then a power cut, and the map
 * page of the old one is damaged (docs/findings.md, 18). What hung under the page could not be given back, so that the old layer
 * stays where it is, and one of the new objects has to go elsewhere. Both must be there at the next start.
 */
#include "base/test.h"
#include "data/store/page_format.h"
#include "data/store/pool.h"
#include "sim/pool_mutants.h"
#include "sim/pool_value.h"
#include "sim/sim.h"

#include <stdio.h>

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (16 * MiB)
#define BLOCK_SECTORS	 (POOL_BLOCK_BYTES / VALUE_BYTES)
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)

static const struct uuid pool_id = {{0x0b, 0x10, 0, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid old_id = {{0x0b, 0x10, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid new_id = {{0x0b, 0x10, 2, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct sim *sim;
	struct sim_node *node;
	struct sim_disk *disk;
	struct pool *pool;
	bool over;
	bool whole; /* what was looked for was there, and the catalog is not damaged */
};

static void life_begin(struct life *l)
{
	*l = (struct life){.sim = sim_new(1)};
	l->node = sim_node_new(l->sim, "a");
	sim_node_start(l->node);
}

static void life_run(struct life *l, void (*fn)(void *arg))
{
	l->over = false;
	fiber_spawn_big(sim_node_rt(l->node), "life", fn, l);
	CHECK_EQ(sim_run(l->sim, &l->over, sim_now_ns(l->sim) + VIRTUAL_LIMIT_NS), SIM_DONE);
}

static void life_end(struct life *l)
{
	sim_node_stop(l->node);
	sim_free(l->sim);
}

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

static void volume_make(struct pool *pool, const struct uuid *id, const char *name)
{
	struct volume_spec spec = {.id = *id, .size_bytes = MiB};
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	CHECK_OK(volume_create(pool, &spec));
}

static void block_write(struct pool *pool, const struct uuid *id, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct vol *vol;
	CHECK_OK(vol_open(pool, id, &vol));
	value_fill(data, 0, BLOCK_SECTORS, tag);
	CHECK_OK(vol_write(vol, data, 0, sizeof(data), VOL_FUA));
	vol_close(vol);
}

static bool block_is(struct pool *pool, const struct uuid *id, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct vol *vol;
	if (vol_open(pool, id, &vol))
		return false;
	int err = vol_read(vol, data, 0, sizeof(data));
	vol_close(vol);
	return !err && value_is(data, 0, tag);
}

/* So often that the superblock before needs the same pages. */
static void settle(struct pool *pool)
{
	for (unsigned i = 0; i < 3; i++)
		CHECK_OK(pool_checkpoint(pool));
}

static void close_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

/* The disk as a kill leaves it at the end of `story`, which leaves the pool open. */
static struct sim_frozen *story_freeze(void (*story)(void *arg))
{
	struct life l;
	life_begin(&l);
	l.disk = sim_disk_new(l.node, DISK, DISK_BYTES, 4096);
	life_run(&l, story);
	struct sim_frozen *frozen = sim_disk_freeze(l.disk);
	life_run(&l, close_main);
	life_end(&l);
	return frozen;
}

/* Flip a bit in every map page. */
static void maps_damage(struct sim_disk *disk)
{
	struct page_header_disk h;
	unsigned damaged = 0;
	for (uint64_t at = 0; at < DISK_BYTES; at += PAGE_BYTES) {
		sim_disk_peek(disk, &h, sizeof(h), at);
		if (memcmp(h.pool_id, pool_id.b, sizeof(h.pool_id)) != 0 || h.kind != PAGE_MAP ||
		    le64_get(h.page) != at / PAGE_BYTES)
			continue;
		sim_disk_flip_bit(disk, at + 2000, 3);
		damaged++;
	}
	CHECK(damaged > 0);
}

/* ---- the places of a volume whose map is lost ------------------------------------------------------------------------------ */

enum { OLD = 1, NEW };

static void replaced_story(void *arg)
{
	struct life *l = arg;
	format();
	life_open(l);
	volume_make(l->pool, &old_id, "old");
	block_write(l->pool, &old_id, OLD);
	settle(l->pool);
	CHECK_OK(volume_delete(l->pool, &old_id));
	CHECK_OK(pool_jobs_wait(l->pool));
	volume_make(l->pool, &new_id, "new");
	block_write(l->pool, &new_id, NEW);
	l->over = true;
}

static void replaced_look_main(void *arg)
{
	struct life *l = arg;
	struct pool_stats stats;
	life_open(l);
	pool_stats(l->pool, &stats);
	l->whole = block_is(l->pool, &new_id, NEW) && !stats.catalog_damaged && stats.volume_count == 1;
	CHECK_OK(pool_close(l->pool));
	l->over = true;
}

static bool new_volume_survives(unsigned mutant)
{
	struct life l;
	struct sim_frozen *frozen = story_freeze(replaced_story);
	mutant_active = mutant;
	life_begin(&l);
	l.disk = sim_disk_fork_kill(l.node, DISK, frozen);
	maps_damage(l.disk);
	life_run(&l, replaced_look_main);
	CHECK(l.whole);
	life_run(&l, replaced_look_main);
	life_end(&l);
	mutant_active = 0;
	sim_frozen_free(frozen);
	return l.whole;
}

TEST(a_volume_made_in_the_places_of_one_whose_map_is_lost_is_there_at_the_next_start)
{
	CHECK(new_volume_survives(0));
}

TEST(it_is_seen_when_the_volume_and_its_head_are_put_into_one_place)
{
	CHECK(!new_volume_survives(70));
}
