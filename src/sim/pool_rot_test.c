/*
 * pool_rot_test.c: one metadata page rots, and each of them has its turn (S9; longhorn/longhorn#13944).
 *
 * The same pool is made and frozen at three moments: with pages that several checkpoints left alone; with pages just written; and
 * with a journal full of records of every kind. For each metadata page then on disk a fork after a power cut has a bit of it
 * flipped, or cannot be read, and is opened for writing. It opens; whatever can be read is right; what cannot is OXE_CORRUPT (or
 * OXE_IO) and hangs under that page; what is whole can be written. After that work it is opened again, and once more with the page
 * put right: nothing has become worse, and no cluster has two owners.
 * At the end a kill inside the checkpoint that follows a fall-back: it has the number of the damaged one, and writes over its
 * pages. If that one's superblock were still there, it would be whole again with another's pages.
 */
#include "base/test.h"
#include "data/store/page_format.h"
#include "data/store/pool.h"
#include "sim/machine.h"
#include "sim/pool_value.h"

#include <signal.h>
#include <stdio.h>

#define DISK	      "/dev/sda"
#define DISK_BYTES    (32 * MiB)
#define VOLUMES	      26u
#define BLOCKS	      24u /* of each that the test knows about */
#define ALL_BLOCKS    ((1u << BLOCKS) - 1)
#define BLOCK_SECTORS (POOL_BLOCK_BYTES / VALUE_BYTES)

enum moment { PAGES_OLD, PAGES_NEW, JOURNAL_FULL, MOMENTS };
static const char *const moment_names[] = {"old pages", "new pages", "a full journal"};

/* What each block of a volume or snapshot holds: a tag, 0 for zeroes. */
struct content {
	bool exists;
	uint64_t tags[BLOCKS];
	uint8_t notes[POOL_NOTE_KINDS]; /* versions; 0: none */
};

static struct world {
	struct content volumes[VOLUMES], snapshots[VOLUMES];
	uint64_t version;
} world;

struct life {
	struct machine m;
	struct sim_disk *disk;
	struct pool *pool;
	struct found *found, *before; /* what could be read, this time and the last */
	uint64_t problems;
};

static struct {
	enum moment moment;
	bool unreadable; /* the page, rather than rotten */
	uint64_t page;
	uint8_t kind, level;
} now;

/* ---- a machine -------------------------------------------------------------------------------------------------------- */

static void life_open(struct life *l)
{
	struct pool_options options = {.cache_bytes = 4 * MiB};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_open(disk, &options, &l->pool));
}

/* ---- what is in the pool ---------------------------------------------------------------------------------------------- */

static struct uuid id_of(uint8_t what, unsigned number)
{
	struct uuid id = {{0x0b, 0x0e, what, (uint8_t)number}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	return id;
}

static struct uuid volume_id(unsigned v)
{
	return id_of(1, v);
}

static struct uuid snapshot_id(unsigned s)
{
	return id_of(2, s);
}

static struct vol *volume_open(struct pool *pool, unsigned v)
{
	struct uuid id = volume_id(v);
	struct vol *vol;
	CHECK_OK(vol_open(pool, &id, &vol));
	return vol;
}

/* The second half far from the first, so that maps have more than one leaf. */
static uint64_t block_offset_bytes(unsigned block)
{
	uint64_t cluster = block / 3 + (block >= BLOCKS / 2 ? 400 : 0);
	return cluster * POOL_CLUSTER_BYTES + block % 3 * POOL_BLOCK_BYTES;
}

static void blocks_write(struct pool *pool, unsigned v, unsigned first, unsigned step)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	struct vol *vol = volume_open(pool, v);
	for (unsigned b = first; b < BLOCKS; b += step) {
		uint64_t at = block_offset_bytes(b), tag = value_tag(1 + v, ++world.version);
		value_fill(data, at / VALUE_BYTES, BLOCK_SECTORS, tag);
		CHECK_OK(vol_write(vol, data, at, sizeof(data), 0));
		world.volumes[v].tags[b] = tag;
	}
	vol_close(vol);
}

static void block_zero(struct pool *pool, unsigned v, unsigned block)
{
	struct vol *vol = volume_open(pool, v);
	CHECK_OK(vol_zero(vol, block_offset_bytes(block), POOL_BLOCK_BYTES, 0));
	vol_close(vol);
	world.volumes[v].tags[block] = 0;
}

static void volume_make(struct pool *pool, unsigned v)
{
	struct volume_spec spec = {.id = volume_id(v), .size_bytes = 64 * MiB};
	snprintf(spec.name, sizeof(spec.name), "v%u", v);
	CHECK_OK(volume_create(pool, &spec));
	world.volumes[v] = (struct content){.exists = true};
}

static void volume_make_clone(struct pool *pool, unsigned v, unsigned s)
{
	struct volume_spec spec = {.id = volume_id(v)};
	struct uuid snapshot = snapshot_id(s);
	snprintf(spec.name, sizeof(spec.name), "v%u", v);
	CHECK_OK(volume_clone(pool, &spec, &snapshot, false));
	world.volumes[v] = world.snapshots[s];
	memset(world.volumes[v].notes, 0, sizeof(world.volumes[v].notes));
}

static void volume_snapshot(struct pool *pool, unsigned v, unsigned s)
{
	struct uuid id = volume_id(v), snapshot = snapshot_id(s);
	char name[16];
	snprintf(name, sizeof(name), "s%u", s);
	CHECK_OK(snapshot_create(pool, &id, &snapshot, name, NULL));
	world.snapshots[s] = world.volumes[v];
}

static uint32_t note_fill(unsigned v, unsigned kind, uint8_t version, uint8_t *data)
{
	uint32_t len_bytes = 400 * (1 + kind) + v;
	memset(data, (int)(v * 16 + kind * 4 + version), len_bytes);
	return version ? len_bytes : 0;
}

static void note_write(struct pool *pool, unsigned v, unsigned kind)
{
	uint8_t data[POOL_NOTE_BYTES_MAX];
	struct uuid id = volume_id(v);
	uint8_t version = ++world.volumes[v].notes[kind];
	CHECK_OK(
		pool_note_set(pool, &id, (enum pool_note_kind)kind, data, note_fill(v, kind, version, data)));
}

static void base_make(struct pool *pool)
{
	for (unsigned v = 0; v < 16; v++) {
		volume_make(pool, v);
		blocks_write(pool, v, 0, 2);
		volume_snapshot(pool, v, v);
		if (v % 4 == 1)
			volume_make_clone(pool, 16 + v / 4, v);
		blocks_write(pool, v, 0, 5);
	}
	for (unsigned v = 0; v < 8; v++) {
		note_write(pool, v, v % POOL_NOTE_KINDS);
		note_write(pool, v, (v + 1) % POOL_NOTE_KINDS);
	}
	for (unsigned v = 16; v < 20; v++)
		blocks_write(pool, v, 1, 7);
}

static void snapshots_delete(struct pool *pool, unsigned first, unsigned count)
{
	for (unsigned s = first; s < first + count; s++) {
		struct uuid id = snapshot_id(s);
		CHECK_OK(snapshot_delete(pool, &id));
		world.snapshots[s].exists = false;
	}
}

static void revert(struct pool *pool, unsigned v, unsigned s)
{
	struct uuid id = volume_id(v), snapshot = snapshot_id(s), head = id_of(3, v);
	CHECK_OK(volume_revert(pool, &id, &snapshot, &head));
	memcpy(world.volumes[v].tags, world.snapshots[s].tags, sizeof(world.volumes[v].tags));
}

/* Records of every kind, about some volumes; the pages of the others stay as they are. */
static void records_make(struct pool *pool)
{
	struct uuid v2 = volume_id(2), v3 = volume_id(3), v5 = volume_id(5);
	volume_make(pool, 20);
	blocks_write(pool, 20, 0, 3);
	for (unsigned v = 0; v < 4; v++) {
		blocks_write(pool, v, 1, 3);
		block_zero(pool, v, 2);
		block_zero(pool, v, BLOCKS - 4);
	}
	CHECK_OK(volume_rename(pool, &v2, "renamed"));
	CHECK_OK(volume_grow(pool, &v3, 80 * MiB));
	for (unsigned v = 2; v < 5; v++)
		note_write(pool, v, 2);
	volume_snapshot(pool, 4, 24);
	blocks_write(pool, 4, 7, 9);
	volume_make_clone(pool, 21, 12);
	snapshots_delete(pool, 5, 2);
	CHECK_OK(volume_delete(pool, &v5));
	world.volumes[5].exists = false;
	revert(pool, 7, 7);
	blocks_write(pool, 7, 3, 8);
	CHECK_OK(pool_jobs_wait(pool));
	volume_make(pool, 22);
	blocks_write(pool, 22, 0, 1);
}

static void flush(struct pool *pool, unsigned v)
{
	struct vol *vol = volume_open(pool, v);
	CHECK_OK(vol_flush(vol));
	vol_close(vol);
}

/* What a checkpoint has settled is written in place after it: the checkpoint before, with the journal, must not doubt it. */
static void write_close_and_write_over(struct life *l)
{
	volume_make(l->pool, 23);
	blocks_write(l->pool, 23, 0, 2);
	CHECK_OK(pool_close(l->pool));
	life_open(l);
	blocks_write(l->pool, 23, 0, 2);
}

static void make_main(void *arg)
{
	struct life *l = arg;
	struct pool_format_spec spec = {.id = id_of(0, 0), .name = "p", .journal_bytes = 4 * MiB};
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	rt_disk_close(disk);
	life_open(l);
	base_make(l->pool);
	for (unsigned i = 0; i < 3; i++)
		CHECK_OK(pool_checkpoint(l->pool));
	if (now.moment != PAGES_OLD)
		records_make(l->pool);
	if (now.moment == PAGES_NEW) {
		CHECK_OK(pool_checkpoint(l->pool));
		write_close_and_write_over(l);
	}
	flush(l->pool, 0);
}

static void close_main(void *arg)
{
	struct life *l = arg;
	CHECK_OK(pool_close(l->pool));
}

static struct sim_frozen *base_freeze(void)
{
	struct life l;
	world = (struct world){0};
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, make_main, &l);
	struct sim_frozen *frozen = sim_disk_freeze(l.disk);
	machine_run(&l.m, close_main, &l);
	machine_end(&l.m);
	return frozen;
}

/* ---- what is left ------------------------------------------------------------------------------------------------------ */

/* Which blocks could be read, volume by volume, a bit a block. */
struct found {
	uint32_t readable[VOLUMES];
	unsigned broken; /* volumes of which something could not be read */
};

static bool is_hurt(int err)
{
	return err == OXE_CORRUPT || (now.unreadable && err == OXE_IO);
}

static bool block_reads(struct vol *vol, const struct content *content, unsigned block)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	uint64_t at = block_offset_bytes(block);
	int err = vol_read(vol, data, at, sizeof(data));
	CHECK(!err || is_hurt(err));
	for (unsigned i = 0; !err && i < BLOCK_SECTORS; i++)
		CHECK(value_is(data + i * VALUE_BYTES, at / VALUE_BYTES + i, content->tags[block]));
	return !err;
}

static void notes_look(struct pool *pool, unsigned v)
{
	uint8_t data[POOL_NOTE_BYTES_MAX], wanted[POOL_NOTE_BYTES_MAX];
	struct uuid id = volume_id(v);
	for (unsigned kind = 0; kind < POOL_NOTE_KINDS; kind++) {
		uint32_t len_bytes = 0;
		int err = pool_note_get(pool, &id, (enum pool_note_kind)kind, data, &len_bytes);
		if (is_hurt(err))
			continue;
		CHECK(err == 0 || err == OXE_NOENT);
		CHECK_EQ(len_bytes, note_fill(v, kind, world.volumes[v].notes[kind], wanted));
		CHECK(memcmp(data, wanted, len_bytes) == 0);
	}
}

static uint32_t content_look(struct pool *pool, const struct uuid *id, const struct content *content)
{
	struct vol *vol;
	uint32_t readable = 0;
	int err = vol_open(pool, id, &vol);
	if (err) {
		CHECK_ERR(err, OXE_CORRUPT);
		return 0;
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		readable |= (uint32_t)block_reads(vol, content, b) << b;
	vol_close(vol);
	return readable;
}

static void look(struct pool *pool, struct found *found)
{
	*found = (struct found){0};
	for (unsigned i = 0; i < VOLUMES; i++) {
		struct uuid v = volume_id(i), s = snapshot_id(i);
		if (world.volumes[i].exists) {
			found->readable[i] = content_look(pool, &v, &world.volumes[i]);
			found->broken += found->readable[i] != ALL_BLOCKS;
			notes_look(pool, i);
		}
		if (world.snapshots[i].exists)
			(void)content_look(pool, &s, &world.snapshots[i]);
	}
}

static void problem_judge(void *ctx, const struct pool_problem *p)
{
	(void)ctx;
	if (p->kind == POOL_PROBLEM_OWNED_TWICE || p->kind == POOL_PROBLEM_UNMARKED ||
	    p->kind == POOL_PROBLEM_COUNT)
		test_fail(__FILE__, __LINE__, "%s", p->text);
}

static uint64_t problems(struct pool *pool)
{
	struct pool_check_result result;
	CHECK_OK(pool_check(pool, problem_judge, NULL, &result));
	return result.problem_count;
}

/* Snapshots with a name no more: what stands on them may be on the lost page, and must find them should that come back. */
static void snapshots_forget(struct pool *pool)
{
	for (unsigned s = 0; s < VOLUMES; s++) {
		struct uuid id = snapshot_id(s);
		int err = snapshot_delete(pool, &id);
		if (err)
			CHECK_ERR(err, OXE_CORRUPT);
		world.snapshots[s].exists = false;
	}
}

/* Something new, if that is allowed, and new data where everything is whole. */
static void use(struct pool *pool, const struct found *found)
{
	struct volume_spec spec = {.id = volume_id(25), .name = "new", .size_bytes = MiB};
	struct pool_stats stats;
	pool_stats(pool, &stats);
	int err = volume_create(pool, &spec);
	if (stats.catalog_damaged) {
		CHECK_ERR(err, OXE_CORRUPT);
		snapshots_forget(pool);
	} else {
		CHECK_OK(err);
	}
	for (unsigned v = 0; v < VOLUMES; v++) {
		if (!world.volumes[v].exists || found->readable[v] != ALL_BLOCKS)
			continue;
		blocks_write(pool, v, 0, 4);
		block_zero(pool, v, 1);
		flush(pool, v);
	}
	CHECK(pool_jobs_wait(pool) != OXE_FAILED);
}

static void first_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	l->problems = problems(l->pool);
	look(l->pool, l->found);
	use(l->pool, l->found);
	look(l->pool, l->found);
	CHECK_OK(pool_close(l->pool));
}

static void again_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	look(l->pool, l->found);
	l->problems = problems(l->pool);
	for (unsigned v = 0; v < VOLUMES; v++) {
		if (l->before->readable[v] & ~l->found->readable[v])
			test_fail(__FILE__, __LINE__, "of volume %u blocks %x could be read before, %x now",
				  v, l->before->readable[v], l->found->readable[v]);
	}
	use(l->pool, l->found);
	look(l->pool, l->found);
	CHECK(l->problems == 0 || problems(l->pool) > 0);
	CHECK_OK(pool_close(l->pool));
}

/* ---- the sweep --------------------------------------------------------------------------------------------------------- */

static struct totals {
	unsigned pages, hurt, volumes_broken;
} totals[PAGE_NOTE + 1];

static void say_where(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "  with %s, page %llu (kind %u, level %u)%s\n", moment_names[now.moment],
		(unsigned long long)now.page, now.kind, now.level, now.unreadable ? " unreadable" : "");
}

static bool page_is_metadata(const struct sim_disk *disk, uint64_t page)
{
	uint8_t image[PAGE_BYTES];
	const struct page_header_disk *h = (const void *)image;
	struct uuid pool = id_of(0, 0);
	sim_disk_peek(disk, image, sizeof(image), page * PAGE_BYTES);
	now.kind = h->kind;
	now.level = h->level;
	return memcmp(h->pool_id, pool.b, sizeof(h->pool_id)) == 0 && le64_get(h->page) == page &&
	       h->kind >= PAGE_MAP && h->kind <= PAGE_NOTE;
}

static bool page_is_superblock(uint64_t page)
{
	bool is = page % (SUPER_SLOT_BYTES / PAGE_BYTES) == 0 &&
		  page < JOURNAL_FIRST_CLUSTER * PAGES_PER_CLUSTER;
	now.kind = is ? 0 : now.kind;
	return is;
}

/* What may be missing: nothing under a page that only says what is free; else not everything, but for the top of the catalog. */
static void judge(const struct found *found, unsigned volumes)
{
	if (now.kind == 0 || now.kind == PAGE_BITMAP || now.kind == PAGE_USAGE || now.kind == PAGE_NOTE)
		CHECK_EQ(found->broken, 0);
	else if (now.kind == PAGE_MAP)
		CHECK(found->broken <= 3);
	else if (now.level == 0)
		CHECK(found->broken < volumes);
}

static void bit_flip(struct life *l, uint64_t page)
{
	sim_disk_flip_bit(l->disk, page * PAGE_BYTES + 100 + page * 7 % 3900, (unsigned)(page % 8));
}

static void page_damage(struct life *l, uint64_t page)
{
	if (now.unreadable)
		sim_disk_make_unreadable(l->disk, page * PAGE_BYTES, PAGE_BYTES);
	else
		bit_flip(l, page);
}

static bool page_put_right(struct life *l, uint64_t page, const uint8_t *was)
{
	uint8_t is[PAGE_BYTES], damaged[PAGE_BYTES];
	sim_disk_peek(l->disk, is, sizeof(is), page * PAGE_BYTES);
	memcpy(damaged, was, sizeof(damaged));
	if (!now.unreadable)
		damaged[100 + page * 7 % 3900] ^= (uint8_t)(1u << page % 8);
	if (memcmp(is, damaged, sizeof(is)) != 0)
		return false; /* something else lies there by now */
	sim_disk_poke(l->disk, was, PAGE_BYTES, page * PAGE_BYTES);
	return true;
}

static void page_try(const struct sim_frozen *frozen, uint64_t page)
{
	struct life l;
	struct found found[3];
	struct world saved = world;
	uint8_t was[PAGE_BYTES];
	unsigned volumes = 0;
	for (unsigned v = 0; v < VOLUMES; v++)
		volumes += world.volumes[v].exists;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_power_cut(l.m.node, DISK, frozen, NULL);
	sim_disk_peek(l.disk, was, sizeof(was), page * PAGE_BYTES);
	page_damage(&l, page);
	l.found = &found[0];
	machine_run(&l.m, first_main, &l);
	judge(&found[0], volumes);
	totals[now.kind].pages++;
	totals[now.kind].hurt += l.problems > 0;
	totals[now.kind].volumes_broken += found[0].broken;
	l.before = &found[0];
	l.found = &found[1];
	machine_run(&l.m, again_main, &l);
	bool is_back = page_put_right(&l, page, was);
	l.before = &found[1];
	l.found = &found[2];
	machine_run(&l.m, again_main, &l);
	if (is_back && now.moment == PAGES_OLD) /* no record was about it: nothing is lost for good */
		CHECK_EQ(found[2].broken, 0);
	machine_end(&l.m);
	world = saved;
}

static void sweep(enum moment moment, bool unreadable)
{
	struct life l;
	now.moment = moment;
	now.unreadable = unreadable;
	signal(SIGABRT, say_where);
	memset(totals, 0, sizeof(totals));
	struct sim_frozen *frozen = base_freeze();
	l = (struct life){.m = machine_begin(1)}; /* to look at the pages */
	l.disk = sim_disk_fork_power_cut(l.m.node, DISK, frozen, NULL);
	for (now.page = 0; now.page < DISK_BYTES / PAGE_BYTES; now.page++) {
		if (page_is_metadata(l.disk, now.page) || page_is_superblock(now.page))
			page_try(frozen, now.page);
	}
	machine_end(&l.m);
	for (unsigned kind = 0; kind <= PAGE_NOTE; kind++) {
		printf("   %s: of %u pages of kind %u each had its turn, %u did harm, to %u volumes\n",
		       moment_names[moment], totals[kind].pages, kind, totals[kind].hurt,
		       totals[kind].volumes_broken);
		CHECK(totals[kind].pages > 0);
	}
	CHECK(totals[PAGE_MAP].hurt > 0 && totals[PAGE_CATALOG].hurt > 0);
	/* With the newest superblock gone: a map that had been emptied before a checkpoint left a page behind for ever when its layer
	 * was removed after it. */
	CHECK(totals[0].hurt == 0 && totals[PAGE_BITMAP].hurt == 0 && totals[PAGE_USAGE].hurt == 0);
	sim_frozen_free(frozen);
}

TEST(a_metadata_page_that_rots_costs_what_hangs_under_it_and_never_the_pool)
{
	sweep(PAGES_OLD, false);
}

TEST(a_page_of_the_pool_s_own_that_was_just_written_is_made_good_from_the_checkpoint_before)
{
	sweep(PAGES_NEW, false);
}

TEST(a_metadata_page_that_a_power_cut_breaks_costs_what_hangs_under_it_and_never_asserts)
{
	sweep(JOURNAL_FULL, false);
}

TEST(a_metadata_page_that_cannot_be_read_costs_what_hangs_under_it_and_never_the_pool)
{
	sweep(PAGES_OLD, true);
}

TEST(a_page_of_the_pool_s_own_that_was_just_written_and_cannot_be_read_is_made_good_from_the_checkpoint_before)
{
	sweep(PAGES_NEW, true);
}

TEST(a_metadata_page_that_cannot_be_read_though_records_are_about_it_costs_what_hangs_under_it)
{
	sweep(JOURNAL_FULL, true);
}

/* ---- the checkpoint after a fall-back ------------------------------------------------------------------------------------ */

#define CUTS_MAX  256u
#define CUT_SEEDS 8u /* what gets through of the writes in flight is drawn */

static struct sim_frozen *cuts[CUTS_MAX];
static unsigned cut_count;

static void cut_keep(void *ctx, struct sim_disk *disk)
{
	(void)ctx;
	CHECK(cut_count < CUTS_MAX);
	cuts[cut_count++] = sim_disk_freeze(disk);
}

/* New clusters in maps that exist: 2 and 407 are not in the heads that base_make left, nor is 404. */
static void clusters_define(struct pool *pool, unsigned block)
{
	for (unsigned v = 0; v < 4; v++)
		blocks_write(pool, v, block, BLOCKS);
	flush(pool, 0);
}

/* The newest checkpoint is the first of its process, so that the one which takes its place takes its pages, too. */
static void damaged_soon_main(void *arg)
{
	struct life *l = arg;
	make_main(arg);
	CHECK_OK(pool_close(l->pool));
	life_open(l);
	clusters_define(l->pool, 6);
	clusters_define(l->pool, 21);
	CHECK_OK(pool_checkpoint(l->pool));
}

static struct sim_frozen *damaged_soon_freeze(void)
{
	struct life l;
	world = (struct world){0};
	now.moment = PAGES_OLD;
	now.unreadable = false;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, damaged_soon_main, &l);
	struct sim_frozen *frozen = sim_disk_freeze(l.disk);
	machine_run(&l.m, close_main, &l);
	machine_end(&l.m);
	return frozen;
}

static void checkpoint_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	clusters_define(l->pool, 12);
	sim_disk_watch(l->disk, cut_keep, NULL);
	CHECK_OK(pool_checkpoint(l->pool));
	sim_disk_watch(l->disk, NULL, NULL);
	CHECK_OK(pool_close(l->pool));
}

static void whole_main(void *arg)
{
	struct life *l = arg;
	struct found found;
	life_open(l);
	look(l->pool, &found);
	CHECK_EQ(found.broken, 0);
	CHECK_EQ(problems(l->pool), 0);
	CHECK_OK(pool_close(l->pool));
}

static void cuts_try(void)
{
	for (unsigned i = 0; i < cut_count * CUT_SEEDS; i++) {
		struct life l = {.m = machine_begin(1 + i % CUT_SEEDS)};
		l.disk = sim_disk_fork_kill(l.m.node, DISK, cuts[i / CUT_SEEDS]);
		machine_run(&l.m, whole_main, &l);
		machine_end(&l.m);
	}
	for (unsigned i = 0; i < cut_count; i++)
		sim_frozen_free(cuts[i]);
	cut_count = 0;
}

static void fall_back_and_cut(const struct sim_frozen *frozen, uint64_t page)
{
	struct life l;
	struct world saved = world;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_power_cut(l.m.node, DISK, frozen, NULL);
	bit_flip(&l, page);
	machine_run(&l.m, checkpoint_main, &l);
	machine_end(&l.m);
	cuts_try();
	world = saved;
}

static uint64_t generation_of(const struct sim_disk *disk, uint64_t page)
{
	uint8_t image[PAGE_BYTES];
	const struct page_header_disk *h = (const void *)image;
	if (!page_is_metadata(disk, page))
		return 0;
	sim_disk_peek(disk, image, sizeof(image), page * PAGE_BYTES);
	return le64_get(h->generation);
}

TEST(a_kill_in_the_checkpoint_after_a_fall_back_never_brings_back_the_damaged_one)
{
	struct life l;
	unsigned tried = 0;
	uint64_t newest = 0;
	signal(SIGABRT, say_where);
	struct sim_frozen *frozen = damaged_soon_freeze();
	l = (struct life){.m = machine_begin(1)}; /* to look at the pages */
	l.disk = sim_disk_fork_power_cut(l.m.node, DISK, frozen, NULL);
	for (uint64_t page = 0; page < DISK_BYTES / PAGE_BYTES; page++)
		newest = u64_max(newest, generation_of(l.disk, page));
	for (now.page = 0; now.page < DISK_BYTES / PAGE_BYTES; now.page++) {
		if (generation_of(l.disk, now.page) != newest || now.kind == PAGE_MAP)
			continue; /* that a map is damaged only those find out who read it */
		fall_back_and_cut(frozen, now.page);
		tried++;
	}
	machine_end(&l.m);
	sim_frozen_free(frozen);
	printf("   with each of %u pages\n", tried);
	CHECK(tried > 2);
}
