/*
 * pool_readahead_test.c: readers that go forward through a volume while others write, zero and trim it right before them, so that
 * what was read ahead for them (readahead.h) is often out of date by the time they come for it. Under seeds: fibers and disk take
 * their turns in any order.
 *
 * Each sector says its number and version. A read must find each at least as new as what was acknowledged when the read began, and
 * no newer than what has been sent. (While a write is under way one read may see it and the next one not: so do disks.) With either
 * rule of readahead.h left out it finds older ones.
 */
#include "base/test.h"
#include "data/store/pool.h"
#include "sim/pool_mutants.h"
#include "sim/sim.h"

#include <stdio.h>

#define DISK		 "/dev/sda"
#define DISK_BYTES	 (32 * MiB)
#define BLOCKS		 (2 * MiB / POOL_BLOCK_BYTES)
#define CLUSTER_BLOCKS	 (POOL_CLUSTER_BYTES / POOL_BLOCK_BYTES)
#define SECTOR_BYTES	 512 /* a block that is being overwritten may be part old, part new */
#define BLOCK_SECTORS	 (POOL_BLOCK_BYTES / SECTOR_BYTES)
#define WRITERS		 2u
#define READERS		 3u
#define RUNS		 6u /* of each reader */
#define READ_MAX_BLOCKS	 32u
#define VIRTUAL_LIMIT_NS (600 * NS_PER_S)

static const struct uuid volume_id = {{0x0b, 0x0f, 1, 0, 0, 0, 0x40, 0, 0x80}};

struct sector_state {
	uint32_t sent, acked; /* versions; 0: as it was made, zeroes */
	uint32_t zeroed;      /* the newest version that is zeroes */
};

struct run {
	struct sim *sim;
	struct sim_disk *disk;
	struct pool *pool;
	struct vol *handles[2];
	struct sector_state sectors[BLOCKS * BLOCK_SECTORS];
	uint64_t reader_at[READERS]; /* block */
	uint32_t readers_left, stale;
	bool over;
	struct rt_group group;
	uint64_t served_bytes;
};

struct actor {
	struct run *run;
	unsigned index;
};

static uint64_t below(struct run *r, uint64_t bound)
{
	return prng_below(sim_prng(r->sim), bound);
}

/* ---- writers ------------------------------------------------------------------------------------------------------------- */

struct stamp {
	uint64_t sector, version;
};

static void sector_fill(uint8_t *data, uint64_t sector, uint64_t version)
{
	struct stamp *stamps = (struct stamp *)data;
	for (size_t i = 0; i < SECTOR_BYTES / sizeof(*stamps); i++)
		stamps[i] = (struct stamp){sector + 1, version};
}

/* Some blocks of one cluster that is this writer's, mostly where a reader comes next. */
static void place_draw(struct actor *a, uint64_t *first, uint64_t *count)
{
	struct run *r = a->run;
	uint64_t near = r->reader_at[below(r, READERS)] + below(r, 4 * CLUSTER_BLOCKS);
	uint64_t block = below(r, 8) ? near % BLOCKS : below(r, BLOCKS);
	uint64_t cluster = block / CLUSTER_BLOCKS / WRITERS * WRITERS + a->index;
	uint64_t skip = below(r, CLUSTER_BLOCKS);
	*first = cluster * CLUSTER_BLOCKS + skip;
	*count = 1 + below(r, CLUSTER_BLOCKS - skip);
}

static int change(struct actor *a, uint64_t first, uint64_t count, unsigned how)
{
	_Alignas(4096) static uint8_t data[WRITERS][POOL_CLUSTER_BYTES];
	struct run *r = a->run;
	struct vol *vol = r->handles[below(r, 2)];
	uint64_t offset_bytes = first * SECTOR_BYTES, len_bytes = count * SECTOR_BYTES;
	for (uint64_t i = 0; i < count; i++) {
		struct sector_state *s = &r->sectors[first + i];
		sector_fill(data[a->index] + i * SECTOR_BYTES, first + i, ++s->sent);
		s->zeroed = how < 2 ? s->sent : s->zeroed;
	}
	return how == 0	  ? vol_trim(vol, offset_bytes, len_bytes)
	       : how == 1 ? vol_zero(vol, offset_bytes, len_bytes, 0)
			  : vol_write(vol, data[a->index], offset_bytes, len_bytes, 0);
}

static void writer(void *arg)
{
	struct actor *a = arg;
	struct run *r = a->run;
	while (r->readers_left > 0) {
		uint64_t first, count;
		place_draw(a, &first, &count);
		first *= BLOCK_SECTORS;
		count *= BLOCK_SECTORS;
		CHECK_OK(change(a, first, count, (unsigned)below(r, 8)));
		for (uint64_t i = 0; i < count; i++)
			r->sectors[first + i].acked = r->sectors[first + i].sent;
		fiber_sleep(below(r, 8) * 100 * NS_PER_US);
	}
	group_done(&r->group);
}

/* ---- readers ------------------------------------------------------------------------------------------------------------- */

/* Is it a version from `oldest` on? */
static bool sector_is_right(const struct sector_state *s, const uint8_t *data, uint64_t sector,
			    uint32_t oldest)
{
	const struct stamp *stamps = (const struct stamp *)data;
	for (size_t i = 1; i < SECTOR_BYTES / sizeof(*stamps); i++)
		if (memcmp(&stamps[i], &stamps[0], sizeof(*stamps)) != 0)
			return false;
	if (stamps->sector == 0 && stamps->version == 0)
		return s->zeroed >= oldest;
	return stamps->sector == sector + 1 && stamps->version >= oldest && stamps->version <= s->sent;
}

static void read_checked(struct actor *a, struct vol *vol, uint64_t first_block, uint64_t block_count)
{
	_Alignas(4096) static uint8_t data[READERS][READ_MAX_BLOCKS * POOL_BLOCK_BYTES];
	struct run *r = a->run;
	uint32_t oldest[READ_MAX_BLOCKS * BLOCK_SECTORS];
	uint64_t first = first_block * BLOCK_SECTORS, count = block_count * BLOCK_SECTORS;
	for (uint64_t i = 0; i < count; i++)
		oldest[i] = r->sectors[first + i].acked;
	CHECK_OK(vol_read(vol, data[a->index], first * SECTOR_BYTES, count * SECTOR_BYTES));
	for (uint64_t i = 0; i < count; i++)
		r->stale += !sector_is_right(&r->sectors[first + i], data[a->index] + i * SECTOR_BYTES,
					     first + i, oldest[i]);
}

static void reader(void *arg)
{
	static const uint8_t sizes[] = {1, 4, 16, 32};
	struct actor *a = arg;
	struct run *r = a->run;
	for (unsigned i = 0; i < RUNS; i++) {
		struct vol *vol = r->handles[a->index == READERS - 1];
		uint64_t count = sizes[below(r, ARRAY_COUNT(sizes))];
		uint64_t end = BLOCKS - below(r, BLOCKS / 2);
		for (uint64_t at = below(r, BLOCKS / 2); at + count <= end; at += count) {
			r->reader_at[a->index] = at + count;
			read_checked(a, vol, at, count);
		}
	}
	r->readers_left--;
	group_done(&r->group);
}

/* ---- a run ---------------------------------------------------------------------------------------------------------------- */

static void pool_begin(struct run *r)
{
	struct pool_format_spec format = {.id = {{0x0b, 0x0f}}, .name = "p"};
	struct volume_spec spec = {.id = volume_id, .name = "v", .size_bytes = BLOCKS * POOL_BLOCK_BYTES};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, NULL, &r->pool));
	CHECK_OK(volume_create(r->pool, &spec));
	for (unsigned i = 0; i < 2; i++)
		CHECK_OK(vol_open(r->pool, &volume_id, &r->handles[i]));
}

/* Holes are read without the disk, and nobody would ever be late. */
static void volume_fill(struct run *r)
{
	_Alignas(4096) static uint8_t data[POOL_BLOCK_BYTES];
	for (uint64_t sector = 0; sector < BLOCKS * BLOCK_SECTORS; sector++) {
		r->sectors[sector].sent = r->sectors[sector].acked = 1;
		sector_fill(data + sector % BLOCK_SECTORS * SECTOR_BYTES, sector, 1);
		if (sector % BLOCK_SECTORS == BLOCK_SECTORS - 1)
			CHECK_OK(vol_write(r->handles[0], data, sector / BLOCK_SECTORS * POOL_BLOCK_BYTES,
					   sizeof(data), 0));
	}
}

static void pool_end(struct run *r)
{
	for (unsigned i = 0; i < 2; i++)
		vol_close(r->handles[i]);
	CHECK_OK(pool_close(r->pool));
	r->over = true;
}

static uint64_t served_bytes(struct run *r)
{
	struct pool_stats stats;
	pool_stats(r->pool, &stats);
	return stats.readahead_bytes;
}

static void main_fiber(void *arg)
{
	struct run *r = arg;
	struct actor actors[WRITERS + READERS];
	pool_begin(r);
	volume_fill(r);
	group_init(&r->group);
	group_add(&r->group, WRITERS + READERS);
	r->readers_left = READERS;
	for (unsigned i = 0; i < WRITERS + READERS; i++) {
		bool writes = i < WRITERS;
		actors[i] = (struct actor){r, writes ? i : i - WRITERS};
		fiber_spawn(rt_current(), "actor", writes ? writer : reader, &actors[i]);
	}
	group_wait(&r->group);
	r->served_bytes = served_bytes(r);
	pool_end(r);
}

/* How many sectors were read wrong in all runs. */
static unsigned wrong_sectors(unsigned mutant, uint64_t seeds)
{
	static struct run r;
	unsigned stale = 0;
	uint64_t served_bytes = 0;
	mutant_active = mutant;
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		r = (struct run){.sim = sim_new(seed)};
		struct sim_node *node = sim_node_new(r.sim, "a");
		sim_disk_new(node, DISK, DISK_BYTES, 512);
		sim_shuffle(r.sim, true);
		fiber_spawn_big(sim_node_start(node), "main", main_fiber, &r);
		CHECK_EQ(sim_run(r.sim, &r.over, sim_now_ns(r.sim) + VIRTUAL_LIMIT_NS), SIM_DONE);
		stale += r.stale;
		served_bytes += r.served_bytes;
		sim_node_stop(node);
		sim_free(r.sim);
	}
	mutant_active = 0;
	printf("   %llu MiB read from what was read ahead, %u sectors wrong\n",
	       (unsigned long long)(served_bytes / MiB), stale);
	CHECK(served_bytes > seeds * MiB / 2);
	return stale;
}

/* ---- bounds --------------------------------------------------------------------------------------------------------------- */

/* A pool on a disk of its own, and what the test does with it. */
static void alone(void (*fn)(void *arg), struct run *r)
{
	*r = (struct run){.sim = sim_new(1)};
	struct sim_node *node = sim_node_new(r->sim, "a");
	r->disk = sim_disk_new(node, DISK, 3 * DISK_BYTES, 512);
	fiber_spawn_big(sim_node_start(node), "main", fn, r);
	CHECK_EQ(sim_run(r->sim, &r->over, sim_now_ns(r->sim) + VIRTUAL_LIMIT_NS), SIM_DONE);
	sim_node_stop(node);
	sim_free(r->sim);
}

#define PIECE_BYTES (16 * KiB)

/* How much of one more piece was there already when its reader came for it after so long. */
static uint64_t served_after(struct run *r, uint64_t offset_bytes, uint64_t pause_ns)
{
	_Alignas(4096) static uint8_t data[PIECE_BYTES];
	for (unsigned i = 0; i < 4; i++, offset_bytes += PIECE_BYTES)
		CHECK_OK(vol_read(r->handles[0], data, offset_bytes, PIECE_BYTES));
	uint64_t before = served_bytes(r);
	fiber_sleep(pause_ns);
	CHECK_OK(vol_read(r->handles[0], data, offset_bytes, PIECE_BYTES));
	return served_bytes(r) - before;
}

static void pausing_main(void *arg)
{
	struct run *r = arg;
	pool_begin(r);
	volume_fill(r);
	CHECK_EQ(served_after(r, 0, NS_PER_S), PIECE_BYTES);
	CHECK_EQ(served_after(r, MiB, 5 * NS_PER_S), 0);
	pool_end(r);
}

TEST(what_nobody_comes_for_is_let_go)
{
	static struct run r;
	alone(pausing_main, &r);
}

#define CROWD 40u /* readers, who would need five times the memory there is */

struct visitor {
	struct run *run;
	struct vol *vol;
	unsigned index;
};

static void visitor(void *arg)
{
	_Alignas(4096) static uint8_t data[CROWD][PIECE_BYTES];
	struct visitor *v = arg;
	for (uint64_t at = 0; at < BLOCKS * POOL_BLOCK_BYTES; at += PIECE_BYTES) {
		uint8_t *piece = data[v->index];
		CHECK_OK(vol_read(v->vol, piece, at, PIECE_BYTES));
		CHECK_EQ(((const struct stamp *)piece)->sector, at / SECTOR_BYTES + 1);
	}
	vol_close(v->vol);
	group_done(&v->run->group);
}

static void crowd_main(void *arg)
{
	struct run *r = arg;
	struct visitor visitors[CROWD];
	pool_begin(r);
	volume_fill(r);
	CHECK_OK(vol_flush(r->handles[0]));
	uint64_t before = sim_disk_counts(r->disk)->read_bytes;
	group_init(&r->group);
	group_add(&r->group, CROWD);
	for (unsigned i = 0; i < CROWD; i++) {
		visitors[i] = (struct visitor){.run = r, .index = i};
		CHECK_OK(vol_open(r->pool, &volume_id, &visitors[i].vol));
		fiber_spawn(rt_current(), "visitor", visitor, &visitors[i]);
	}
	group_wait(&r->group);
	CHECK_EQ(sim_disk_counts(r->disk)->read_bytes - before, CROWD * BLOCKS * POOL_BLOCK_BYTES);
	CHECK(served_bytes(r) > 0);
	pool_end(r);
}

TEST(more_readers_than_there_is_memory_for_read_nothing_twice)
{
	static struct run r;
	alone(crowd_main, &r);
}

/* ---- never stale ---------------------------------------------------------------------------------------------------------- */

TEST(what_was_read_ahead_is_never_older_than_what_was_written)
{
	CHECK_EQ(wrong_sectors(0, 100), 0);
}

TEST(old_sectors_are_seen_when_a_write_leaves_what_was_read_ahead)
{
	CHECK(wrong_sectors(90, 20) > 0);
}

TEST(old_sectors_are_seen_when_blocks_are_read_ahead_during_a_write)
{
	CHECK(wrong_sectors(91, 20) > 0);
}
