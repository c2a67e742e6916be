/*
 * pool_hurt_test.c: what a start on a damaged pool must not make of it (S9), each story told twice: as it is, and with the rule left
 * out that prevents a loss, which must be seen.
 *
 * A volume is deleted and another made, whose record gets the old one's places in the catalog; then a power cut, and the map
 * page of the old one is damaged (docs/findings.md, 18). What hung under the page could not be given back, so that the old layer
 * stays where it is, and one of the new objects has to go elsewhere. Both must be there at the next start.
 *
 * A layer of a fresh volume is merged into the one above it and removed, and the volume grafted upon another; then a kill, and the map
 * page of the layer is damaged (docs/findings.md, 27). It could not be removed, and is in the way of the graft. What was merged and
 * grafted has nothing to do with that page.
 *
 * While a pool is opened its disk cannot be read for a while, or not any more: it opens when the disk is back, or does not open. No
 * page is taken for lost, and the next start has everything.
 *
 * While a pool is opened one page cannot be read, for longer than anybody waits, and then it can. Either way it does not know of
 * the records that were passed over meanwhile, and must not be believed.
 *
 * While a pool is opened the newest superblock cannot be read, and then it can. The pool goes on from the one before, and is killed
 * in a checkpoint, which has written over pages of the newest.
 *
 * A page with a note of a volume is damaged: the note can be set, and is what it was set to after whatever follows. If the volume is
 * deleted instead, its place is free again.
 */
#include "base/test.h"
#include "data/store/page_format.h"
#include "data/store/pool.h"
#include "data/store/super_format.h"
#include "sim/machine.h"
#include "sim/pool_mutants.h"
#include "sim/pool_value.h"

#include <stdio.h>

#define DISK	       "/dev/sda"
#define DISK_BYTES     (32 * MiB)
#define BLOCK_SECTORS  (POOL_BLOCK_BYTES / VALUE_BYTES)
#define CLUSTER_BLOCKS (POOL_CLUSTER_BYTES / POOL_BLOCK_BYTES)

static const struct uuid pool_id = {{0x0b, 0x10, 0, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid old_id = {{0x0b, 0x10, 1, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid new_id = {{0x0b, 0x10, 2, 0, 0, 0, 0x40, 0, 0x80}};

struct life {
	struct machine m;
	struct sim_disk *disk;
	struct pool *pool;
	bool whole;		      /* what was looked for was there, and the catalog is not damaged */
	unsigned lost, wrong;	      /* of what was looked for */
	uint64_t begin_ns, opened_ns; /* when it began, and when the pool was open */
	int err;
};

static int life_try_open(struct life *l)
{
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	return pool_open(disk, NULL, &l->pool);
}

static void life_open(struct life *l)
{
	CHECK_OK(life_try_open(l));
}

static void format(void)
{
	struct pool_format_spec spec = {.id = pool_id, .name = "p", .journal_bytes = 4 * MiB};
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

static void block_write(struct pool *pool, const struct uuid *id, unsigned block, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	uint64_t sector = block * BLOCK_SECTORS;
	struct vol *vol;
	CHECK_OK(vol_open(pool, id, &vol));
	value_fill(data, sector, BLOCK_SECTORS, tag);
	CHECK_OK(vol_write(vol, data, sector * VALUE_BYTES, sizeof(data), VOL_FUA));
	vol_close(vol);
}

enum { IS_LOST, IS_RIGHT, IS_WRONG };

/* What a reader finds. */
static int block_is(struct pool *pool, const struct uuid *id, unsigned block, uint64_t tag)
{
	static _Alignas(4096) uint8_t data[POOL_BLOCK_BYTES];
	uint64_t sector = block * BLOCK_SECTORS;
	struct vol *vol;
	if (vol_open(pool, id, &vol))
		return IS_LOST;
	int err = vol_read(vol, data, sector * VALUE_BYTES, sizeof(data));
	vol_close(vol);
	return err ? IS_LOST : value_is(data, sector, tag) ? IS_RIGHT : IS_WRONG;
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
}

/* The disk as a kill leaves it at the end of `story`, which leaves the pool open. */
static struct sim_frozen *story_freeze(void (*story)(void *arg))
{
	struct life l;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_new(l.m.node, DISK, DISK_BYTES, 4096);
	machine_run(&l.m, story, &l);
	struct sim_frozen *frozen = sim_disk_freeze(l.disk);
	machine_run(&l.m, close_main, &l);
	machine_end(&l.m);
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
	block_write(l->pool, &old_id, 0, OLD);
	settle(l->pool);
	CHECK_OK(volume_delete(l->pool, &old_id));
	CHECK_OK(pool_jobs_wait(l->pool));
	volume_make(l->pool, &new_id, "new");
	block_write(l->pool, &new_id, 0, NEW);
}

static void replaced_look_main(void *arg)
{
	struct life *l = arg;
	struct pool_stats stats;
	life_open(l);
	pool_stats(l->pool, &stats);
	l->whole = block_is(l->pool, &new_id, 0, NEW) == IS_RIGHT && !stats.catalog_damaged &&
		   stats.volume_count == 1;
	CHECK_OK(pool_close(l->pool));
}

static bool new_volume_survives(unsigned mutant)
{
	struct life l;
	struct sim_frozen *frozen = story_freeze(replaced_story);
	mutant_active = mutant;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
	maps_damage(l.disk);
	machine_run(&l.m, replaced_look_main, &l);
	CHECK(l.whole);
	machine_run(&l.m, replaced_look_main, &l);
	machine_end(&l.m);
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

/* ---- a graft of what could not be merged ------------------------------------------------------------------------------------ */

static const struct uuid layer_id = {{0x0b, 0x10, 4, 0, 0, 0, 0x40, 0, 0x80}};
static const struct uuid base_id = {{0x0b, 0x10, 5, 0, 0, 0, 0x40, 0, 0x80}};

static void fresh_make(struct pool *pool)
{
	struct volume_spec spec = {.id = new_id, .size_bytes = MiB, .name = "~new"};
	CHECK_OK(volume_create_fresh(pool, &spec));
}

static void grafted_story(void *arg)
{
	struct life *l = arg;
	struct volume_info fresh;
	format();
	life_open(l);
	volume_make(l->pool, &old_id, "old");
	fresh_make(l->pool);
	block_write(l->pool, &new_id, 0, OLD);
	CHECK_OK(layer_seal(l->pool, &new_id, &layer_id, "~layer", NULL));
	settle(l->pool);
	CHECK_OK(snapshot_delete(l->pool, &layer_id));
	CHECK_OK(pool_jobs_wait(l->pool));
	block_write(l->pool, &new_id, 1, NEW);
	CHECK_OK(layer_seal(l->pool, &old_id, &base_id, "~base", NULL));
	CHECK_OK(volume_get_any(l->pool, &new_id, &fresh));
	CHECK_OK(volume_graft(l->pool, &old_id, &new_id, &fresh.head_id));
}

static void grafted_look_main(void *arg)
{
	struct life *l = arg;
	struct volume_info info;
	l->err = life_try_open(l);
	l->whole = false;
	if (!l->err) {
		l->whole = block_is(l->pool, &old_id, 0, OLD) == IS_RIGHT &&
			   block_is(l->pool, &old_id, 1, NEW) == IS_RIGHT &&
			   block_is(l->pool, &old_id, CLUSTER_BLOCKS, 0) == IS_RIGHT &&
			   volume_get_any(l->pool, &new_id, &info) == OXE_NOENT;
		CHECK_OK(pool_close(l->pool));
	}
}

static bool graft_survives(unsigned mutant)
{
	struct life l;
	struct sim_frozen *frozen = story_freeze(grafted_story);
	bool whole = true;
	mutant_active = mutant;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
	maps_damage(l.disk);
	for (unsigned start = 0; start < 2; start++) {
		machine_run(&l.m, grafted_look_main, &l);
		whole = whole && l.whole;
	}
	machine_end(&l.m);
	mutant_active = 0;
	sim_frozen_free(frozen);
	return whole;
}

TEST(a_volume_grafted_after_a_merge_of_what_is_lost_has_all_that_was_merged_and_grafted)
{
	CHECK(graft_survives(0));
}

TEST(it_is_seen_when_a_layer_that_could_not_be_removed_is_in_the_way_of_a_graft)
{
	CHECK(!graft_survives(79));
}

/* ---- a disk that cannot be read while a pool is opened ----------------------------------------------------------------------- */

#define STEP_NS	    (30 * NS_PER_US)
#define HICCUP_NS   (300 * NS_PER_MS)
#define OUTAGE_NS   (100 * NS_PER_S)
#define PATIENCE_NS NS_PER_S /* that a start has with a page: READ_TRIES and READ_WAIT_NS in store.h */

/* Two volumes in old pages of the catalog and of maps, and records about both. */
static void records_story(void *arg)
{
	struct life *l = arg;
	format();
	life_open(l);
	volume_make(l->pool, &old_id, "old");
	volume_make(l->pool, &new_id, "new");
	block_write(l->pool, &old_id, 0, OLD);
	block_write(l->pool, &new_id, 0, OLD);
	settle(l->pool);
	block_write(l->pool, &old_id, 1, NEW);
	block_write(l->pool, &new_id, 17, NEW);
}

static void find(struct life *l, const struct uuid *id, unsigned block, uint64_t tag)
{
	int is = block_is(l->pool, id, block, tag);
	l->lost += is == IS_LOST;
	l->wrong += is == IS_WRONG;
}

static void records_look(struct life *l)
{
	struct pool_stats stats;
	pool_stats(l->pool, &stats);
	l->lost = l->wrong = 0;
	find(l, &old_id, 0, OLD);
	find(l, &new_id, 0, OLD);
	find(l, &old_id, 1, NEW);
	find(l, &new_id, 17, NEW);
	l->whole = !l->lost && !l->wrong && !stats.catalog_damaged && !stats.metadata_pages_lost;
}

static void records_look_main(void *arg)
{
	struct life *l = arg;
	l->begin_ns = sim_now_ns(l->m.sim);
	l->whole = false;
	l->err = life_try_open(l);
	l->opened_ns = sim_now_ns(l->m.sim);
	if (!l->err) {
		records_look(l);
		CHECK_OK(pool_close(l->pool));
	}
}

static void reads_fail(void *arg)
{
	sim_disk_faults(arg)->read_error_one_in = 1;
}

static void reads_work(void *arg)
{
	sim_disk_faults(arg)->read_error_one_in = 0;
}

/* How long an opening takes. */
static uint64_t opening_ns(const struct sim_frozen *frozen)
{
	struct life l;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
	machine_run(&l.m, records_look_main, &l);
	CHECK(l.whole);
	machine_end(&l.m);
	return l.opened_ns - l.begin_ns;
}

/* It opens, or says that the disk cannot be read. Then what it finds when that has passed. */
static bool outage_is_survived(const struct sim_frozen *frozen, uint64_t at_ns, uint64_t len_ns)
{
	struct life l;
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
	sim_at(l.m.sim, sim_now_ns(l.m.sim) + at_ns, reads_fail, l.disk);
	sim_at(l.m.sim, sim_now_ns(l.m.sim) + at_ns + len_ns, reads_work, l.disk);
	machine_run(&l.m, records_look_main, &l);
	CHECK(!l.wrong);
	bool told = !l.err || l.err == OXE_IO;
	reads_work(l.disk);
	machine_run(&l.m, records_look_main, &l);
	CHECK_OK(l.err);
	bool whole = l.whole;
	machine_run(&l.m, records_look_main, &l);
	machine_end(&l.m);
	return told && whole && l.whole;
}

static unsigned outages_not_survived(uint64_t len_ns, unsigned mutant)
{
	struct sim_frozen *frozen = story_freeze(records_story);
	uint64_t opening = opening_ns(frozen);
	unsigned not_survived = 0;
	mutant_active = mutant;
	for (uint64_t at_ns = 0; at_ns < opening; at_ns += STEP_NS)
		not_survived += !outage_is_survived(frozen, at_ns, len_ns);
	mutant_active = 0;
	sim_frozen_free(frozen);
	printf("   after %u of %llu outages something was missing\n", not_survived,
	       (unsigned long long)u64_div_up(opening, STEP_NS));
	return not_survived;
}

TEST(a_disk_that_stops_being_readable_while_a_pool_is_opened_costs_nothing)
{
	CHECK_EQ(outages_not_survived(OUTAGE_NS, 0), 0);
}

TEST(a_disk_that_is_not_readable_for_a_moment_while_a_pool_is_opened_costs_nothing)
{
	CHECK_EQ(outages_not_survived(HICCUP_NS, 0), 0);
}

TEST(it_is_seen_when_a_page_is_given_up_though_nothing_can_be_read)
{
	CHECK(outages_not_survived(OUTAGE_NS, 73) > 0);
}

/* ---- a page that can be read again -------------------------------------------------------------------------------------------- */

struct patch {
	struct sim_disk *disk;
	uint64_t at;
	uint8_t was[PAGE_BYTES];
};

static void patch_begin(struct patch *p, struct sim_disk *disk, uint64_t at)
{
	p->disk = disk;
	p->at = at;
	sim_disk_peek(disk, p->was, PAGE_BYTES, at);
	sim_disk_make_unreadable(disk, at, PAGE_BYTES);
}

/* Unless something else has been written there. */
static void patch_end(void *arg)
{
	struct patch *p = arg;
	uint8_t is[PAGE_BYTES];
	sim_disk_peek(p->disk, is, PAGE_BYTES, p->at);
	if (memcmp(is, p->was, PAGE_BYTES) == 0)
		sim_disk_poke(p->disk, p->was, PAGE_BYTES, p->at);
}

/* The one page of a kind that the last superblock needs. */
static uint64_t newest_page(const struct sim_disk *disk, unsigned kind)
{
	struct page_header_disk h;
	uint64_t newest = 0, found = 0;
	for (uint64_t at = 0; at < DISK_BYTES; at += PAGE_BYTES) {
		sim_disk_peek(disk, &h, sizeof(h), at);
		if (memcmp(h.pool_id, pool_id.b, sizeof(h.pool_id)) != 0 || h.kind != kind ||
		    le64_get(h.page) != at / PAGE_BYTES || le64_get(h.generation) < newest)
			continue;
		newest = le64_get(h.generation);
		found = at;
	}
	CHECK(found > 0);
	return found;
}

/* The most that a reader ever finds wrong, whenever the page comes back. */
static unsigned wrong_after_return(unsigned kind, unsigned mutant)
{
	struct sim_frozen *frozen = story_freeze(records_story);
	uint64_t opening = 3 * opening_ns(frozen); /* it tries both superblocks, and one again */
	unsigned wrong = 0, lost = 0;
	mutant_active = mutant;
	for (uint64_t at_ns = 0; at_ns < opening; at_ns += STEP_NS) {
		struct life l;
		struct patch patch;
		l = (struct life){.m = machine_begin(1)};
		l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
		patch_begin(&patch, l.disk, newest_page(l.disk, kind));
		sim_at(l.m.sim, sim_now_ns(l.m.sim) + PATIENCE_NS + at_ns, patch_end, &patch);
		for (unsigned start = 0; start < 2; start++) {
			machine_run(&l.m, records_look_main, &l);
			CHECK_OK(l.err);
			wrong += l.wrong;
			lost += l.lost;
		}
		machine_end(&l.m);
	}
	mutant_active = 0;
	sim_frozen_free(frozen);
	printf("   with a page of kind %u back too late: %u blocks lost, %u wrong\n", kind, lost, wrong);
	return wrong;
}

TEST(a_page_that_comes_back_after_records_about_it_were_passed_over_is_not_believed)
{
	CHECK_EQ(wrong_after_return(PAGE_CATALOG, 0), 0);
	CHECK_EQ(wrong_after_return(PAGE_MAP, 0), 0);
}

TEST(it_is_seen_when_a_page_that_was_given_up_is_read_again)
{
	CHECK(wrong_after_return(PAGE_CATALOG, 72) > 0);
}

/* ---- a superblock that can be read again --------------------------------------------------------------------------------------- */

#define CUTS_MAX  64u
#define CUT_SEEDS 8u /* what gets through of the writes in flight is drawn */
#define CROWD	  20u

static struct sim_frozen *cuts[CUTS_MAX];
static unsigned cut_count;

static void cut_keep(void *ctx, struct sim_disk *disk)
{
	(void)ctx;
	CHECK(cut_count < CUTS_MAX);
	cuts[cut_count++] = sim_disk_freeze(disk);
}

static uint64_t newest_super(const struct sim_disk *disk)
{
	struct super_disk s[2];
	for (unsigned slot = 0; slot < 2; slot++)
		sim_disk_peek(disk, &s[slot], sizeof(s[slot]), (uint64_t)slot * SUPER_SLOT_BYTES);
	return (le64_get(s[1].generation) > le64_get(s[0].generation)) * (uint64_t)SUPER_SLOT_BYTES;
}

static struct uuid crowd_id(unsigned i)
{
	struct uuid id = {{0x0b, 0x10, 3, (uint8_t)i, 0, 0, 0x40, 0, 0x80}};
	return id;
}

/* Each volume another block, in a new cluster. */
static void crowd_write(struct pool *pool, unsigned round)
{
	for (unsigned i = 0; i < CROWD; i++) {
		struct uuid id = crowd_id(i);
		block_write(pool, &id, round * CLUSTER_BLOCKS, round);
	}
}

/* The newest checkpoint is the first of its process, so that the one which takes its place takes its pages, too. */
static void crowd_story(void *arg)
{
	struct life *l = arg;
	char name[8];
	format();
	life_open(l);
	for (unsigned i = 0; i < CROWD; i++) {
		struct uuid id = crowd_id(i);
		snprintf(name, sizeof(name), "v%u", i);
		volume_make(l->pool, &id, name);
	}
	crowd_write(l->pool, 1);
	CHECK_OK(pool_close(l->pool));
	life_open(l);
	crowd_write(l->pool, 2);
	CHECK_OK(pool_checkpoint(l->pool));
}

static void super_back_main(void *arg)
{
	struct life *l = arg;
	struct patch patch;
	patch_begin(&patch, l->disk, newest_super(l->disk));
	life_open(l);
	patch_end(&patch);
	crowd_write(l->pool, 3);
	sim_disk_watch(l->disk, cut_keep, NULL);
	CHECK_OK(pool_checkpoint(l->pool));
	sim_disk_watch(l->disk, NULL, NULL);
	CHECK_OK(pool_close(l->pool));
}

static void crowd_look_main(void *arg)
{
	struct life *l = arg;
	struct pool_check_result result;
	l->lost = l->wrong = 0;
	life_open(l);
	for (unsigned i = 0; i < CROWD; i++) {
		struct uuid id = crowd_id(i);
		for (unsigned round = 1; round <= 3; round++)
			find(l, &id, round * CLUSTER_BLOCKS, round);
	}
	CHECK_OK(pool_check(l->pool, NULL, NULL, &result));
	l->whole = !l->lost && !l->wrong && result.problem_count == 0;
	CHECK_OK(pool_close(l->pool));
}

static void cuts_make(void)
{
	struct life l;
	struct sim_frozen *frozen = story_freeze(crowd_story);
	l = (struct life){.m = machine_begin(1)};
	l.disk = sim_disk_fork_kill(l.m.node, DISK, frozen);
	machine_run(&l.m, super_back_main, &l);
	machine_end(&l.m);
	sim_frozen_free(frozen);
}

static unsigned cuts_not_survived(unsigned mutant)
{
	unsigned not_survived = 0;
	mutant_active = mutant;
	cuts_make();
	for (unsigned i = 0; i < cut_count * CUT_SEEDS; i++) {
		struct life l = {.m = machine_begin(1 + i % CUT_SEEDS)};
		l.disk = sim_disk_fork_kill(l.m.node, DISK, cuts[i / CUT_SEEDS]);
		machine_run(&l.m, crowd_look_main, &l);
		not_survived += !l.whole;
		machine_end(&l.m);
	}
	printf("   after %u of %u kills something was wrong\n", not_survived, cut_count * CUT_SEEDS);
	for (; cut_count > 0; cut_count--)
		sim_frozen_free(cuts[cut_count - 1]);
	mutant_active = 0;
	return not_survived;
}

TEST(a_superblock_that_could_not_be_read_for_a_while_is_not_believed_after)
{
	CHECK_EQ(cuts_not_survived(0), 0);
}

TEST(it_is_seen_when_a_superblock_that_could_not_be_read_is_left_as_it_is)
{
	CHECK(cuts_not_survived(74) > 0);
}

/* ---- a note ------------------------------------------------------------------------------------------------------------------ */

static const char note_was[] = "was", note_beside[] = "beside", note_is[] = "is";

static void note_set(struct life *l, enum pool_note_kind kind, const char *text)
{
	CHECK_OK(pool_note_set(l->pool, &old_id, kind, text, (uint32_t)strlen(text)));
}

static void note_check(struct life *l, enum pool_note_kind kind, const char *text)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	CHECK_OK(pool_note_get(l->pool, &old_id, kind, note, &len_bytes));
	CHECK_EQ(len_bytes, strlen(text));
	CHECK(memcmp(note, text, len_bytes) == 0);
}

static int note_err(struct life *l, enum pool_note_kind kind)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	return pool_note_get(l->pool, &old_id, kind, note, &len_bytes);
}

static void noted_story(void *arg)
{
	struct life *l = arg;
	format();
	life_open(l);
	volume_make(l->pool, &old_id, "old");
	note_set(l, POOL_NOTE_ACCESS, note_beside);
	note_set(l, POOL_NOTE_RESERVATION, note_was);
	settle(l->pool);
}

/* Both superblocks name the same page. */
static void note_damage(struct sim_disk *disk, uint64_t level, uint64_t index)
{
	struct page_header_disk h;
	unsigned damaged = 0;
	for (uint64_t at = 0; at < DISK_BYTES; at += PAGE_BYTES) {
		sim_disk_peek(disk, &h, sizeof(h), at);
		if (memcmp(h.pool_id, pool_id.b, sizeof(h.pool_id)) != 0 || h.kind != PAGE_NOTE ||
		    h.level != level || le64_get(h.index) != index || le64_get(h.page) != at / PAGE_BYTES)
			continue;
		sim_disk_flip_bit(disk, at + 2000, 3);
		damaged++;
	}
	CHECK_EQ(damaged, 1);
}

static void is_clean(struct life *l)
{
	struct pool_check_result r;
	settle(l->pool);
	CHECK_OK(pool_check(l->pool, NULL, NULL, &r));
	CHECK_EQ(r.problem_count, 0);
}

/* A life that ends with a kill: what it leaves. */
static struct sim_frozen *noted_life(struct life *l, const struct sim_frozen *frozen, bool damage,
				     void (*fn)(void *arg))
{
	*l = (struct life){.m = machine_begin(1)};
	l->disk = sim_disk_fork_kill(l->m.node, DISK, frozen);
	if (damage)
		note_damage(l->disk, 0, POOL_NOTE_RESERVATION);
	machine_run(&l->m, fn, l);
	struct sim_frozen *after = sim_disk_freeze(l->disk);
	machine_run(&l->m, close_main, l);
	machine_end(&l->m);
	return after;
}

static void note_set_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	CHECK_EQ(note_err(l, POOL_NOTE_RESERVATION), OXE_CORRUPT);
	note_set(l, POOL_NOTE_RESERVATION, note_is);
	note_check(l, POOL_NOTE_RESERVATION, note_is);
}

static void note_look_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	note_check(l, POOL_NOTE_RESERVATION, note_is);
	note_check(l, POOL_NOTE_ACCESS, note_beside);
	is_clean(l);
	note_check(l, POOL_NOTE_RESERVATION, note_is);
}

static void note_clear_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	CHECK_OK(pool_note_set(l->pool, &old_id, POOL_NOTE_RESERVATION, NULL, 0));
	CHECK_EQ(note_err(l, POOL_NOTE_RESERVATION), OXE_NOENT);
}

static void note_gone_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	CHECK_EQ(note_err(l, POOL_NOTE_RESERVATION), OXE_NOENT);
	note_check(l, POOL_NOTE_ACCESS, note_beside);
	is_clean(l);
}

static void note_delete_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	CHECK_OK(volume_delete(l->pool, &old_id));
}

static void note_nothing_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	is_clean(l);
}

/* Two lives with a kill after the first. */
static void noted(void (*first)(void *arg), void (*second)(void *arg))
{
	struct life l;
	struct sim_frozen *story = story_freeze(noted_story);
	struct sim_frozen *killed = noted_life(&l, story, true, first);
	struct sim_frozen *end = noted_life(&l, killed, false, second);
	sim_frozen_free(end);
	sim_frozen_free(killed);
	sim_frozen_free(story);
}

TEST(a_note_that_cannot_be_believed_can_be_set_and_is_then_what_it_was_set_to)
{
	noted(note_set_main, note_look_main);
}

TEST(a_note_that_cannot_be_believed_can_be_taken_away)
{
	noted(note_clear_main, note_gone_main);
}

TEST(a_note_that_cannot_be_believed_leaves_no_page_behind_when_its_volume_is_deleted)
{
	noted(note_delete_main, note_nothing_main);
}

static void all_lost_main(void *arg)
{
	struct life *l = arg;
	life_open(l);
	CHECK_EQ(note_err(l, POOL_NOTE_ACCESS), OXE_CORRUPT);
	CHECK_EQ(pool_note_set(l->pool, &old_id, POOL_NOTE_RESERVATION, NULL, 0), OXE_CORRUPT);
	CHECK_EQ(pool_note_set(l->pool, &old_id, POOL_NOTE_RESERVATION, note_is, 2), OXE_CORRUPT);
	CHECK_EQ(note_err(l, POOL_NOTE_ACCESS), OXE_CORRUPT);
}

TEST(where_none_of_a_volumes_notes_can_be_believed_setting_one_does_not_take_the_others_away)
{
	struct life l = {.m = machine_begin(1)};
	struct sim_frozen *story = story_freeze(noted_story);
	l.disk = sim_disk_fork_kill(l.m.node, DISK, story);
	note_damage(l.disk, 1, 0);
	machine_run(&l.m, all_lost_main, &l);
	machine_run(&l.m, close_main, &l);
	machine_end(&l.m);
	sim_frozen_free(story);
}
