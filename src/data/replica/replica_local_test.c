/*
 * replica_local_test.c: each verb of a copy in a pool of this process, and each rule of the fence, on a simulated disk, where an I/O
 * takes time. What crashes do to it is in src/sim/replica_run_test.c.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/test.h"
#include "data/replica/replica_note.h"
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

#define DISK	     "/dev/sda"
#define DISK_BYTES   (64 * MiB)
#define VOLUME_BYTES (2 * MiB)
#define BLOCK	     4096u

struct world {
	struct sim *sim;
	struct sim_disk *disk;
	struct pool *pool;
	struct replica_door *door;
	unsigned boot; /* of the machine: how often it was off */
	void (*body)(struct world *w);
	bool done;
};

static struct uuid an_id(unsigned n)
{
	struct uuid id = {{0x0c, (uint8_t)(n >> 8), (uint8_t)n}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	return id;
}

#define POOL_ID	  1u
#define VOLUME_ID 2u
#define ENGINE	  100u /* and on */
#define LAYER	  200u /* and on */

/* ---- the world ------------------------------------------------------------------------------------------------------------- */

static void pool_up(struct world *w)
{
	struct pool_format_spec spec = {.id = an_id(POOL_ID), .name = "p"};
	struct uuid boot_id = an_id(0x300 + w->boot);
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	CHECK_OK(pool_open(disk, NULL, &w->pool));
	w->door = replica_door_new(w->pool, &boot_id);
}

static void pool_down(struct world *w)
{
	replica_door_free(w->door);
	CHECK_OK(pool_close(w->pool));
}

/* Nothing in memory outlives this. */
static void pool_again(struct world *w)
{
	pool_down(w);
	pool_up(w);
}

static void world_main(void *arg)
{
	struct world *w = arg;
	pool_up(w);
	w->body(w);
	pool_down(w);
	w->done = true;
}

static void world_run(void (*body)(struct world *w))
{
	struct world w = {.sim = sim_new(7), .body = body};
	struct sim_node *node = sim_node_new(w.sim, "a");
	w.disk = sim_disk_new(node, DISK, DISK_BYTES, 512);
	fiber_spawn_big(sim_node_start(node), "test", world_main, &w);
	CHECK(sim_run(w.sim, &w.done, 3600 * NS_PER_S) == SIM_DONE);
	sim_node_stop(node);
	sim_free(w.sim);
}

#define REPLICA_TEST(name)                                                                                   \
	static void name##_body(struct world *w);                                                            \
	TEST(name)                                                                                           \
	{                                                                                                    \
		world_run(name##_body);                                                                      \
	}                                                                                                    \
	static void name##_body(struct world *w)

/* ---- small words ----------------------------------------------------------------------------------------------------------- */

static struct replica *new_replica(struct world *w)
{
	struct uuid id = an_id(VOLUME_ID);
	return replica_local_new(w->door, &id);
}

static int open_as(struct replica *r, uint64_t epoch, unsigned engine, struct replica_state *state)
{
	struct replica_state unused;
	struct uuid id = an_id(engine);
	return r->ops->open(r, epoch, &id, state ? state : &unused);
}

static struct volume_spec a_spec(void)
{
	return (struct volume_spec){.id = an_id(VOLUME_ID), .name = "v", .size_bytes = VOLUME_BYTES};
}

static void create(struct replica *r)
{
	struct volume_spec spec = a_spec();
	CHECK_OK(r->ops->create(r, &spec));
}

/* An open copy with the volume. */
static struct replica *a_copy(struct world *w, uint64_t epoch)
{
	struct replica *r = new_replica(w);
	struct replica_state state;
	CHECK_OK(open_as(r, epoch, ENGINE, &state));
	if (!state.exists)
		create(r);
	return r;
}

static void close_it(struct replica *r)
{
	r->ops->close(r);
}

/* As another process would find it. */
static struct replica *copy_again(struct world *w, struct replica *r, uint64_t epoch,
				  struct replica_state *state)
{
	close_it(r);
	pool_again(w);
	r = new_replica(w);
	CHECK_OK(open_as(r, epoch, ENGINE, state));
	return r;
}

static void pattern(uint8_t *data, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	struct prng rng;
	for (uint64_t at = 0; at < len_bytes; at += BLOCK) {
		prng_seed(&rng, offset_bytes + at + 1000003 * version);
		prng_fill(&rng, data + at, BLOCK);
	}
	if (version == 0)
		memset(data, 0, len_bytes);
}

static uint8_t *a_pattern(uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *data = aligned_alloc(BLOCK, len_bytes);
	pattern(data, offset_bytes, len_bytes, version);
	return data;
}

static void write_at(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *data = a_pattern(offset_bytes, len_bytes, version);
	CHECK_OK(r->ops->write(r, data, offset_bytes, len_bytes, 0));
	free(data);
}

static void fill_at(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *data = a_pattern(offset_bytes, len_bytes, version);
	CHECK_OK(r->ops->fill(r, version ? data : NULL, offset_bytes, len_bytes));
	free(data);
}

static void expect_at(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, uint64_t version)
{
	uint8_t *wanted = a_pattern(offset_bytes, len_bytes, version),
		*data = aligned_alloc(BLOCK, len_bytes);
	CHECK_OK(r->ops->read(r, data, offset_bytes, len_bytes));
	CHECK(memcmp(data, wanted, len_bytes) == 0);
	free(data);
	free(wanted);
}

static void expect_layer(struct replica *r, unsigned layer, uint64_t offset_bytes, uint64_t len_bytes,
			 uint64_t version)
{
	struct uuid id = an_id(layer);
	uint8_t *wanted = a_pattern(offset_bytes, len_bytes, version),
		*data = aligned_alloc(BLOCK, len_bytes);
	CHECK_OK(r->ops->layer_read(r, layer ? &id : NULL, data, offset_bytes, len_bytes));
	CHECK(memcmp(data, wanted, len_bytes) == 0);
	free(data);
	free(wanted);
}

static int seal_as(struct replica *r, uint64_t epoch, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	return r->ops->seal(r, epoch, &id, name);
}

static int fill_seal_as(struct replica *r, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	return r->ops->fill_seal(r, &id, name);
}

static int delete_layer(struct replica *r, unsigned layer)
{
	struct uuid id = an_id(layer);
	return r->ops->layer_delete(r, &id);
}

static int join_as(struct replica *r, unsigned layer, uint64_t size_bytes)
{
	struct uuid id = an_id(layer);
	return r->ops->join_begin(r, &id, size_bytes);
}

static struct replica_regions regions_of(unsigned first, unsigned count, unsigned step)
{
	struct replica_regions r = {{0}};
	for (unsigned i = 0; i < count; i++)
		r.bits[(first + i * step) / 8] |= (uint8_t)(1u << (first + i * step) % 8);
	return r;
}

static bool regions_equal(const struct replica_regions *a, const struct replica_regions *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* "a b | c": what is filled, and what is upon it. */
static void expect_layers(struct replica *r, const char *wanted)
{
	struct replica_layer layers[16];
	size_t count, filled;
	char text[512] = "";
	CHECK_OK(r->ops->layers(r, layers, ARRAY_COUNT(layers), &count, &filled));
	for (size_t i = 0; i <= count; i++) {
		size_t used = strlen(text);
		snprintf(text + used, sizeof(text) - used, "%s%s%s",
			 i == filled && filled < count ? "| " : "", i < count ? layers[i].name : "",
			 i + 1 < count ? " " : "");
	}
	if (strcmp(text, wanted) != 0)
		test_fail(__FILE__, __LINE__, "layers are \"%s\", wanted \"%s\"", text, wanted);
}

/* ---- opening and the fence ------------------------------------------------------------------------------------------------- */

REPLICA_TEST(a_copy_that_is_not_there_is_made_and_is_there_after)
{
	struct replica *r = new_replica(w);
	struct replica_state state;
	struct volume_spec spec = a_spec();
	uint8_t *data = a_pattern(0, BLOCK, 1);
	CHECK_OK(open_as(r, 5, ENGINE, &state));
	CHECK(!state.exists && r->is_local);
	CHECK_ERR(r->ops->ping(r), OXE_NOENT);
	CHECK_ERR(r->ops->write(r, data, 0, BLOCK, 0), OXE_NOENT);
	CHECK_ERR(seal_as(r, 5, LAYER, "~a"), OXE_NOENT);
	create(r);
	create(r);
	spec.size_bytes *= 2;
	CHECK_ERR(r->ops->create(r, &spec), OXE_EXISTS);
	spec.id = an_id(77);
	CHECK_ERR(r->ops->create(r, &spec), OXE_INVAL);
	CHECK_OK(r->ops->ping(r));
	write_at(r, 8 * BLOCK, 64 * KiB, 1);
	r = copy_again(w, r, 6, &state);
	CHECK(state.exists && !state.is_joining && !state.fill_begun);
	CHECK_EQ(state.epoch_before, 5);
	CHECK_EQ(state.size_bytes, VOLUME_BYTES);
	CHECK_EQ(state.lba_bytes, 512);
	expect_at(r, 8 * BLOCK, 64 * KiB, 1);
	expect_at(r, MiB, BLOCK, 0);
	close_it(r);
	free(data);
}

REPLICA_TEST(an_open_of_an_older_epoch_is_fenced_also_after_a_restart)
{
	struct replica *r = a_copy(w, 5), *other;
	for (unsigned i = 0; i < 2; i++) {
		other = new_replica(w);
		CHECK_ERR(open_as(other, 4, ENGINE, NULL), OXE_FENCED);
		CHECK_ERR(open_as(other, 4, ENGINE + 1, NULL), OXE_FENCED);
		CHECK_ERR(other->ops->ping(other), OXE_CLOSED);
		close_it(other);
		r = copy_again(w, r, 5, NULL);
	}
	close_it(r);
}

REPLICA_TEST(an_open_of_the_same_epoch_is_fenced_for_another_engine_and_not_for_the_same)
{
	struct replica *r = a_copy(w, 5), *other = new_replica(w);
	CHECK_ERR(open_as(other, 5, ENGINE + 1, NULL), OXE_FENCED);
	CHECK_OK(r->ops->ping(r)); /* who is fenced ends nobody's session */
	CHECK_OK(open_as(other, 5, ENGINE, NULL));
	CHECK_ERR(r->ops->ping(r), OXE_FENCED);
	CHECK_OK(open_as(r, 6, ENGINE + 1, NULL));
	CHECK_ERR(other->ops->ping(other), OXE_FENCED);
	close_it(other);
	CHECK_OK(r->ops->ping(r));
	close_it(r);
	pool_again(w);
	r = new_replica(w);
	CHECK_ERR(open_as(r, 6, ENGINE, NULL), OXE_FENCED);
	CHECK_OK(open_as(r, 6, ENGINE + 1, NULL));
	close_it(r);
}

REPLICA_TEST(where_there_is_no_volume_yet_an_older_epoch_is_fenced_too)
{
	struct replica *r = new_replica(w), *other = new_replica(w);
	CHECK_OK(open_as(r, 5, ENGINE, NULL));
	CHECK_ERR(open_as(other, 4, ENGINE + 1, NULL), OXE_FENCED);
	create(r);
	CHECK_ERR(open_as(other, 4, ENGINE + 1, NULL), OXE_FENCED);
	close_it(other);
	close_it(r);
}

static void expect_everything_is(struct replica *r, int err)
{
	uint8_t *data = a_pattern(0, BLOCK, 3);
	struct replica_regions regions = {{0}};
	struct volume_spec spec = a_spec();
	struct uuid id = an_id(LAYER);
	struct vol_extent extent;
	struct replica_layer layer;
	size_t count;
	uint32_t crc;
	const struct replica_ops *o = r->ops;
	CHECK_ERR(o->ping(r), err);
	CHECK_ERR(o->create(r, &spec), err);
	CHECK_ERR(o->read(r, data, 0, BLOCK), err);
	CHECK_ERR(o->write(r, data, 0, BLOCK, 0), err);
	CHECK_ERR(o->zero(r, 0, BLOCK, 0), err);
	CHECK_ERR(o->trim(r, 0, BLOCK), err);
	CHECK_ERR(o->flush(r), err);
	CHECK_ERR(o->intents_set(r, &regions), err);
	CHECK_ERR(o->made_good(r), err);
	CHECK_ERR(o->seal(r, 9, &id, "~x"), err);
	CHECK_ERR(o->layer_delete(r, &id), err);
	CHECK_ERR(o->layer_rename(r, &id, "~y"), err);
	CHECK_ERR(o->revert(r, &id, &id), err);
	CHECK_ERR(o->grow(r, 2 * VOLUME_BYTES), err);
	CHECK_ERR(o->layers(r, &layer, 1, &count, NULL), err);
	CHECK_ERR(o->layer_read(r, NULL, data, 0, BLOCK), err);
	CHECK_ERR(o->layer_extents(r, NULL, NULL, 0, BLOCK, &extent, 1, &count), err);
	CHECK_ERR(o->layer_checksums(r, NULL, 0, BLOCK, &crc), err);
	CHECK_ERR(o->join_begin(r, &id, VOLUME_BYTES), err);
	CHECK_ERR(o->fill(r, data, 0, BLOCK), err);
	CHECK_ERR(o->fill_grow(r, 2 * VOLUME_BYTES), err);
	CHECK_ERR(o->fill_seal(r, &id, "~x"), err);
	CHECK_ERR(o->join_end(r), err);
	free(data);
}

REPLICA_TEST(an_open_ends_the_session_before_it_and_whatever_that_sends_is_fenced)
{
	struct replica *r = a_copy(w, 5), *newer;
	write_at(r, 0, BLOCK, 1);
	newer = a_copy(w, 6);
	expect_everything_is(r, OXE_FENCED);
	expect_at(newer, 0, BLOCK, 1);
	expect_layers(newer, "");
	close_it(newer);
	expect_everything_is(r, OXE_FENCED);
	close_it(r);
}

REPLICA_TEST(a_copy_that_was_never_opened_answers_nothing)
{
	struct replica *r = new_replica(w);
	expect_everything_is(r, OXE_CLOSED);
	close_it(r);
}

struct background {
	struct replica *r;
	struct rt_group *group;
	int (*fn)(struct replica *r, unsigned n);
	unsigned n;
	int err;
	uint64_t ended; /* by a count of all that ended */
	uint64_t *clock;
};

static void background_main(void *arg)
{
	struct background *b = arg;
	b->err = b->fn(b->r, b->n);
	b->ended = ++*b->clock;
	group_done(b->group);
}

static void start(struct background *b, size_t count, struct rt_group *group, uint64_t *clock)
{
	group_init(group);
	group_add(group, (uint32_t)count);
	for (size_t i = 0; i < count; i++) {
		b[i].group = group;
		b[i].clock = clock;
		fiber_spawn(rt_current(), "background", background_main, &b[i]);
	}
}

static int write_one(struct replica *r, unsigned n)
{
	uint8_t *data = a_pattern(n * BLOCK, BLOCK, 2);
	int err = r->ops->write(r, data, n * BLOCK, BLOCK, 0);
	free(data);
	return err;
}

static int open_next(struct replica *r, unsigned n)
{
	return open_as(r, n, ENGINE, NULL);
}

static int seal_one(struct replica *r, unsigned n)
{
	char name[32];
	snprintf(name, sizeof(name), "~%u", n);
	return seal_as(r, 5, n, name);
}

static int set_one_intent(struct replica *r, unsigned n)
{
	struct replica_regions regions = regions_of(n, 1, 1);
	return r->ops->intents_set(r, &regions);
}

REPLICA_TEST(an_open_waits_for_what_the_session_before_it_has_under_way)
{
	struct replica *r = a_copy(w, 5), *newer = new_replica(w);
	struct background b[9];
	struct rt_group group;
	uint64_t clock = 0;
	for (unsigned i = 0; i < 8; i++)
		b[i] = (struct background){.r = r, .fn = write_one, .n = i};
	b[8] = (struct background){.r = newer, .fn = open_next, .n = 6};
	sim_disk_faults(w->disk)->stall_one_in = 2;
	sim_disk_faults(w->disk)->stall_ns = 10 * NS_PER_S;
	start(b, 9, &group, &clock);
	group_wait(&group);
	CHECK_OK(b[8].err);
	CHECK_EQ(b[8].ended, 9);
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(b[i].err); /* they had begun */
	for (unsigned i = 0; i < 8; i++)
		expect_at(newer, i * BLOCK, BLOCK, 2);
	sim_disk_faults(w->disk)->stall_one_in = 0;
	close_it(r);
	close_it(newer);
}

REPLICA_TEST(a_session_that_is_closed_while_another_opens_takes_the_volume_from_nobody)
{
	for (unsigned turns = 1; turns < 12; turns++) {
		struct replica *r = a_copy(w, 10 * turns), *newer = new_replica(w);
		struct background b = {.r = newer, .fn = open_next, .n = 10 * turns + 5};
		struct rt_group group;
		uint64_t clock = 0;
		start(&b, 1, &group, &clock);
		for (unsigned i = 0; i < turns; i++)
			fiber_sleep(50 * NS_PER_US);
		close_it(r);
		group_wait(&group);
		CHECK_OK(b.err);
		CHECK_OK(newer->ops->ping(newer));
		write_at(newer, 0, BLOCK, 3);
		close_it(newer);
	}
}

REPLICA_TEST(a_seal_that_waits_for_its_turn_is_fenced_when_an_open_has_it_first)
{
	struct replica *r = a_copy(w, 5), *newer = new_replica(w);
	struct background b[4];
	struct rt_group group;
	uint64_t clock = 0;
	b[0] = (struct background){.r = r, .fn = seal_one, .n = LAYER};
	b[1] = (struct background){.r = newer, .fn = open_next, .n = 6};
	b[2] = (struct background){.r = r, .fn = seal_one, .n = LAYER + 1};
	b[3] = (struct background){.r = r, .fn = write_one, .n = 1}; /* begins before the open has its turn */
	start(b, 4, &group, &clock);
	group_wait(&group);
	CHECK_OK(b[0].err);
	CHECK_OK(b[1].err);
	CHECK_ERR(b[2].err, OXE_FENCED);
	CHECK_OK(b[3].err);
	expect_layers(newer, "~200");
	close_it(r);
	close_it(newer);
}

REPLICA_TEST(a_pool_is_in_use_while_a_copy_in_it_has_a_session)
{
	struct replica *r = a_copy(w, 5), *fenced = new_replica(w);
	CHECK_ERR(open_as(fenced, 1, ENGINE, NULL), OXE_FENCED);
	CHECK_ERR(pool_close(w->pool), OXE_BUSY);
	close_it(r);
	close_it(fenced);
}

REPLICA_TEST(an_open_that_is_fenced_leaves_nothing_open)
{
	close_it(a_copy(w, 5));
	struct replica *fenced = new_replica(w);
	struct uuid id = an_id(VOLUME_ID);
	CHECK_ERR(open_as(fenced, 1, ENGINE, NULL), OXE_FENCED);
	CHECK_OK(volume_delete(w->pool, &id));
	close_it(fenced);
}

REPLICA_TEST(a_copy_in_a_pool_that_has_failed_ends_its_session_in_doubt)
{
	struct replica *r = a_copy(w, 5);
	uint8_t *data = a_pattern(0, BLOCK, 1);
	sim_disk_faults(w->disk)->write_error_one_in = 1;
	CHECK_ERR(seal_as(r, 5, LAYER, "~a"), OXE_INDOUBT);
	CHECK_ERR(r->ops->write(r, data, 0, BLOCK, 0), OXE_CLOSED);
	CHECK_ERR(open_as(r, 5, ENGINE, NULL), OXE_INDOUBT);
	sim_disk_faults(w->disk)->write_error_one_in = 0;
	close_it(r);
	pool_again(w);
	r = a_copy(w, 5);
	CHECK_OK(seal_as(r, 5, LAYER, "~a"));
	expect_layers(r, "~a");
	close_it(r);
	free(data);
}

/* ---- intents --------------------------------------------------------------------------------------------------------------- */

REPLICA_TEST(intents_are_there_after_a_restart_few_or_many)
{
	static const unsigned counts[] = {0, 1, 3, 100, 1000, 1025, 16384};
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
		struct replica_regions regions = regions_of(0, counts[i], counts[i] > 2048 ? 1 : 7);
		CHECK_OK(r->ops->intents_set(r, &regions));
		r = copy_again(w, r, 5, &state);
		CHECK(regions_equal(&regions, &state.intents));
	}
	close_it(r);
}

REPLICA_TEST(of_intents_set_at_once_the_last_one_decides_and_few_records_are_written)
{
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	struct background b[64];
	struct rt_group group;
	struct pool_stats before, after;
	uint64_t clock = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(b); i++)
		b[i] = (struct background){.r = r, .fn = set_one_intent, .n = i};
	pool_stats(w->pool, &before);
	start(b, ARRAY_COUNT(b), &group, &clock);
	group_wait(&group);
	pool_stats(w->pool, &after);
	for (unsigned i = 0; i < ARRAY_COUNT(b); i++)
		CHECK_OK(b[i].err);
	CHECK(after.journal_records_written - before.journal_records_written <= 2);
	r = copy_again(w, r, 5, &state);
	struct replica_regions last = regions_of(63, 1, 1);
	CHECK(regions_equal(&state.intents, &last));
	close_it(r);
}

static bool covers(const struct replica_regions *r, unsigned first, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!regions_have(r, first + i))
			return false;
	}
	return true;
}

REPLICA_TEST(a_volume_that_grows_keeps_its_intents_in_regions_of_its_new_size)
{
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	struct replica_regions regions = regions_of(0, 2, 1);
	CHECK_OK(r->ops->grow(r, 16 * GiB));
	regions.bits[REPLICA_REGIONS / 8 - 1] |= 0x80;
	CHECK_OK(r->ops->intents_set(r, &regions));
	CHECK_OK(r->ops->grow(r, 64 * GiB));
	for (unsigned i = 0; i < 2; i++) {
		r = copy_again(w, r, 5, &state);
		CHECK_EQ(state.size_bytes, 64 * GiB);
		CHECK(covers(&state.intents, 0, 1) && covers(&state.intents, REPLICA_REGIONS / 4 - 1, 1));
	}
	struct replica_regions some = regions_of(5, 1, 1);
	regions_rescale(&some, 22, 20);
	CHECK(covers(&some, 20, 4) && !regions_have(&some, 19) && !regions_have(&some, 24));
	close_it(r);
}

/* ---- power ----------------------------------------------------------------------------------------------------------------- */

static bool lacks_nothing(const struct replica_state *state)
{
	return regions_none(&state->may_lack);
}

REPLICA_TEST(a_copy_whose_machine_was_off_may_lack_what_it_had_intents_for_until_it_is_made_good)
{
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	struct replica_regions regions = regions_of(3, 4, 2), none = {{0}};
	CHECK_OK(r->ops->intents_set(r, &regions));
	r = copy_again(w, r, 6, &state);
	CHECK(lacks_nothing(&state)); /* a killed process lost nothing */
	w->boot++;
	r = copy_again(w, r, 7, &state);
	CHECK(regions_equal(&state.may_lack, &regions));
	CHECK_OK(r->ops->intents_set(r, &none)); /* an engine that knows nothing of it */
	r = copy_again(w, r, 8, &state);
	CHECK(regions_equal(&state.may_lack, &regions) && regions_equal(&state.intents, &regions));
	CHECK_OK(r->ops->made_good(r));
	CHECK_OK(r->ops->intents_set(r, &none));
	r = copy_again(w, r, 9, &state);
	CHECK(lacks_nothing(&state) && regions_none(&state.intents));
	w->boot++;
	r = copy_again(w, r, 10, &state);
	CHECK(lacks_nothing(&state)); /* all was flushed */
	close_it(r);
}

REPLICA_TEST(what_a_copy_may_lack_gathers_from_one_loss_of_power_to_the_next)
{
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	struct replica_regions first = regions_of(3, 1, 1), second = regions_of(9, 1, 1);
	CHECK_OK(r->ops->intents_set(r, &first));
	w->boot++;
	r = copy_again(w, r, 6, &state);
	CHECK_OK(r->ops->intents_set(r, &second));
	r = copy_again(w, r, 7, &state);
	CHECK(regions_equal(&state.may_lack, &first));
	w->boot++;
	r = copy_again(w, r, 8, &state);
	CHECK(regions_have(&state.may_lack, 3) && regions_have(&state.may_lack, 9));
	close_it(r);
}

REPLICA_TEST(a_copy_that_begins_to_join_lacks_nothing_more_than_its_intents_say)
{
	struct replica *r = a_copy(w, 5);
	struct replica_state state;
	struct replica_regions regions = regions_of(3, 1, 1);
	CHECK_OK(r->ops->intents_set(r, &regions));
	w->boot++;
	r = copy_again(w, r, 6, &state);
	CHECK(!lacks_nothing(&state));
	CHECK_OK(join_as(r, LAYER, VOLUME_BYTES));
	r = copy_again(w, r, 7, &state);
	CHECK(lacks_nothing(&state) && regions_have(&state.intents, 3));
	close_it(r);
}

static void note_there_and_back(const struct replica_note *note, struct replica_note *out)
{
	uint8_t data[REPLICA_NOTE_BYTES_MAX];
	uint32_t len_bytes = replica_note_encode(note, data);
	CHECK(len_bytes <= sizeof(data));
	CHECK_OK(replica_note_decode(data, len_bytes, out));
	CHECK(regions_equal(&out->intents, &note->intents));
	for (uint32_t n = 0; n < len_bytes; n++)
		CHECK(replica_note_decode(data, n, out) != 0);
	CHECK_OK(replica_note_decode(data, len_bytes, out));
}

TEST(a_note_says_exactly_where_a_copy_may_lack_something_or_all_its_intents_when_there_is_no_room)
{
	struct replica_note note = {.shift = 20, .boot_id = an_id(7)}, back;
	note.intents = regions_of(1, 300, 5);
	note.may_lack = regions_of(1, 100, 10);
	note_there_and_back(&note, &back);
	CHECK(regions_equal(&back.may_lack, &note.may_lack) && uuid_equal(&back.boot_id, &note.boot_id));
	memset(&note.intents, 0xff, sizeof(note.intents));
	note.may_lack = regions_of(0, 100, 10);
	note_there_and_back(&note, &back);
	CHECK(regions_equal(&back.may_lack, &note.may_lack));
	note.may_lack = regions_of(REPLICA_REGIONS - 1, 1, 1);
	note_there_and_back(&note, &back);
	CHECK(regions_equal(&back.may_lack, &note.intents));
}

TEST(a_note_of_version_1_is_read_and_its_copy_may_lack_whatever_it_had_intents_for)
{
	struct replica_note_wire w = {.magic = le32_of(REPLICA_NOTE_MAGIC),
				      .version = le16_of(1),
				      .form = REPLICA_NOTE_LIST,
				      .shift = 20,
				      .count = le16_of(1),
				      .epoch = le64_of(9)};
	uint8_t data[REPLICA_NOTE_HEADER_1_BYTES + 2] = {0};
	struct replica_note note;
	struct uuid boot_id = an_id(7);
	data[REPLICA_NOTE_HEADER_1_BYTES] = 5;
	memcpy(data, &w, REPLICA_NOTE_HEADER_1_BYTES);
	w.crc = le32_of(crc32c(0, data, sizeof(data)));
	memcpy(data, &w, REPLICA_NOTE_HEADER_1_BYTES);
	CHECK_OK(replica_note_decode(data, sizeof(data), &note));
	CHECK(note.epoch == 9 && regions_have(&note.intents, 5) && regions_none(&note.may_lack));
	CHECK(replica_note_boot(&note, &boot_id));
	CHECK(regions_have(&note.may_lack, 5));
	CHECK(!replica_note_boot(&note, &boot_id));
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------- */

REPLICA_TEST(a_seal_is_one_however_often_it_is_asked_for_and_raises_the_epoch)
{
	struct replica *r = a_copy(w, 5), *other = new_replica(w);
	write_at(r, 0, BLOCK, 1);
	CHECK_OK(seal_as(r, 8, LAYER, "~a"));
	write_at(r, 0, BLOCK, 2);
	CHECK_OK(seal_as(r, 8, LAYER, "~a"));
	CHECK_ERR(open_as(other, 7, ENGINE + 1, NULL), OXE_FENCED);
	expect_layers(r, "~a");
	expect_layer(r, LAYER, 0, BLOCK, 1);
	expect_layer(r, 0, 0, BLOCK, 2);
	CHECK_ERR(seal_as(r, 8, LAYER + 1, "~a"), OXE_EXISTS);
	CHECK_OK(seal_as(r, 8, LAYER + 1, "user"));
	expect_layers(r, "~a user");
	close_it(other);
	r = copy_again(w, r, 8, NULL);
	expect_layers(r, "~a user");
	close_it(r);
	other = new_replica(w);
	CHECK_ERR(open_as(other, 7, ENGINE, NULL), OXE_FENCED);
	close_it(other);
}

REPLICA_TEST(layers_are_renamed_and_deleted_once_and_what_is_read_stays)
{
	struct replica *r = a_copy(w, 5);
	struct uuid id = an_id(LAYER);
	struct vol *reader;
	struct replica_layer layer;
	size_t count;
	write_at(r, 0, BLOCK, 1);
	CHECK_OK(seal_as(r, 5, LAYER, "~a"));
	CHECK_OK(seal_as(r, 5, LAYER + 1, "s"));
	CHECK_OK(r->ops->layer_rename(r, &id, "t"));
	CHECK_OK(r->ops->layer_rename(r, &id, "t"));
	CHECK_ERR(r->ops->layer_rename(r, &id, "s"), OXE_EXISTS);
	expect_layers(r, "t s");
	CHECK_ERR(r->ops->layers(r, &layer, 1, &count, NULL), OXE_TOOBIG);
	CHECK_OK(vol_open(w->pool, &id, &reader));
	CHECK_ERR(delete_layer(r, LAYER), OXE_BUSY);
	vol_close(reader);
	CHECK_OK(delete_layer(r, LAYER));
	CHECK_OK(delete_layer(r, LAYER));
	CHECK_ERR(r->ops->layer_rename(r, &id, "u"), OXE_NOENT);
	expect_layers(r, "s");
	CHECK_OK(pool_jobs_wait(w->pool));
	expect_layer(r, LAYER + 1, 0, BLOCK, 1);
	expect_at(r, 0, BLOCK, 1);
	close_it(r);
}

REPLICA_TEST(the_layers_of_an_origin_are_read_and_never_changed_through_a_clone)
{
	struct volume_spec clone = {.id = an_id(VOLUME_ID), .name = "c"};
	struct uuid origin = an_id(9), layer = an_id(LAYER);
	struct volume_spec spec = {.id = origin, .name = "o", .size_bytes = VOLUME_BYTES};
	struct replica_layer layers[2];
	size_t count;
	CHECK_OK(volume_create(w->pool, &spec));
	struct replica *o = replica_local_new(w->door, &origin);
	CHECK_OK(open_as(o, 1, ENGINE, NULL));
	write_at(o, 0, BLOCK, 1);
	CHECK_OK(seal_as(o, 1, LAYER, "~a"));
	CHECK_OK(volume_clone(w->pool, &clone, &layer, false));
	struct replica *r = a_copy(w, 5);
	CHECK_OK(r->ops->layers(r, layers, 2, &count, NULL));
	CHECK(count == 1 && layers[0].is_origins && uuid_equal(&layers[0].id, &layer));
	expect_layer(r, LAYER, 0, BLOCK, 1);
	CHECK_ERR(delete_layer(r, LAYER), OXE_INVAL);
	CHECK_ERR(r->ops->layer_rename(r, &layer, "~b"), OXE_INVAL);
	CHECK_OK(delete_layer(o, LAYER));
	close_it(r);
	close_it(o);
}

REPLICA_TEST(a_copy_goes_back_to_a_layer_and_grows)
{
	struct replica *r = a_copy(w, 5);
	struct uuid layer = an_id(LAYER), head = an_id(50), none = an_id(51);
	struct replica_state state;
	write_at(r, 0, BLOCK, 1);
	CHECK_OK(seal_as(r, 5, LAYER, "s"));
	CHECK_OK(r->ops->grow(r, 2 * VOLUME_BYTES));
	CHECK_OK(r->ops->grow(r, 2 * VOLUME_BYTES));
	CHECK_ERR(r->ops->grow(r, VOLUME_BYTES), OXE_INVAL);
	write_at(r, VOLUME_BYTES, BLOCK, 2);
	write_at(r, 0, BLOCK, 2);
	CHECK_ERR(r->ops->revert(r, &none, &head), OXE_NOENT);
	CHECK_OK(r->ops->revert(r, &layer, &head));
	CHECK_OK(r->ops->revert(r, &layer, &head));
	expect_at(r, 0, BLOCK, 1);
	write_at(r, BLOCK, BLOCK, 3);
	r = copy_again(w, r, 5, &state);
	CHECK_EQ(state.size_bytes, VOLUME_BYTES);
	expect_at(r, BLOCK, BLOCK, 3);
	close_it(r);
}

static void expect_sums(struct replica *r, unsigned layer, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct uuid id = an_id(layer);
	uint8_t *data = aligned_alloc(BLOCK, len_bytes);
	uint32_t *crcs = mem_zalloc(len_bytes / BLOCK * sizeof(*crcs));
	CHECK_OK(r->ops->layer_read(r, layer ? &id : NULL, data, offset_bytes, len_bytes));
	CHECK_OK(r->ops->layer_checksums(r, layer ? &id : NULL, offset_bytes, len_bytes, crcs));
	for (uint64_t i = 0; i < len_bytes / BLOCK; i++)
		CHECK_EQ(crcs[i], crc32c(0, data + i * BLOCK, BLOCK));
	free(crcs);
	free(data);
}

REPLICA_TEST(checksums_are_those_of_what_is_read_of_data_and_holes_in_a_layer_and_the_head)
{
	struct replica *r = a_copy(w, 5);
	uint32_t crcs[2];
	for (unsigned i = 0; i < 40; i++)
		write_at(r, i * 12 * BLOCK, (1 + i % 5) * BLOCK, i + 1);
	write_at(r, MiB + 512 * KiB, 400 * KiB, 9);
	CHECK_OK(r->ops->zero(r, 24 * BLOCK, 3 * BLOCK, VOL_NO_HOLE));
	CHECK_OK(seal_as(r, 5, LAYER, "~a"));
	CHECK_OK(r->ops->trim(r, 12 * BLOCK, 8 * BLOCK));
	write_at(r, 2 * BLOCK, 3 * BLOCK, 50);
	for (unsigned layer = 0; layer <= LAYER; layer += LAYER) {
		expect_sums(r, layer, 0, VOLUME_BYTES);
		expect_sums(r, layer, 3 * BLOCK, 100 * BLOCK);
		expect_sums(r, layer, VOLUME_BYTES - BLOCK, BLOCK);
	}
	CHECK_ERR(r->ops->layer_checksums(r, NULL, 512, BLOCK, crcs), OXE_ALIGN);
	CHECK_ERR(r->ops->layer_checksums(r, NULL, VOLUME_BYTES, BLOCK, crcs), OXE_RANGE);
	struct uuid none = an_id(99);
	CHECK_ERR(r->ops->layer_checksums(r, &none, 0, BLOCK, crcs), OXE_NOENT);
	close_it(r);
}

REPLICA_TEST(extents_tell_what_changed_since_a_layer)
{
	struct replica *r = a_copy(w, 5);
	struct uuid layer = an_id(LAYER), none = an_id(99);
	struct vol_extent e[4];
	size_t count;
	write_at(r, 0, 4 * BLOCK, 1);
	CHECK_OK(seal_as(r, 5, LAYER, "~a"));
	write_at(r, BLOCK, BLOCK, 2);
	CHECK_OK(r->ops->layer_extents(r, NULL, &layer, 0, 4 * BLOCK, e, 4, &count));
	CHECK(count == 3 && e[1].offset_bytes == BLOCK && e[1].flags == VOL_EXTENT_CHANGED &&
	      e[0].flags == 0);
	CHECK_OK(r->ops->layer_extents(r, &layer, NULL, 0, 5 * BLOCK, e, 4, &count));
	CHECK(count == 2 && e[1].flags & VOL_EXTENT_HOLE);
	CHECK_ERR(r->ops->layer_extents(r, NULL, &none, 0, BLOCK, e, 4, &count), OXE_NOENT);
	close_it(r);
}

/* ---- joining --------------------------------------------------------------------------------------------------------------- */

/* Was a member: version 1 in its first MiB, of which [0, 64 KiB) is sealed as "a"; left behind at intents {3}. */
static struct replica *copy_left_behind(struct world *w)
{
	struct replica *r = a_copy(w, 5);
	struct replica_regions regions = regions_of(3, 1, 1);
	write_at(r, 0, 64 * KiB, 1);
	CHECK_OK(seal_as(r, 5, LAYER, "a"));
	write_at(r, 64 * KiB, MiB - 64 * KiB, 1);
	CHECK_OK(r->ops->intents_set(r, &regions));
	return r;
}

REPLICA_TEST(a_copy_joins_it_takes_writes_above_while_it_is_filled_below_and_then_is_one_chain)
{
	struct replica *r = copy_left_behind(w);
	struct replica_state state;
	struct uuid join = an_id(LAYER + 9);
	CHECK_OK(join_as(r, LAYER + 9, 2 * VOLUME_BYTES));
	CHECK_OK(join_as(r, LAYER + 9, 2 * VOLUME_BYTES));
	write_at(r, 128 * KiB, 64 * KiB, 7);
	CHECK_OK(r->ops->zero(r, 256 * KiB, 64 * KiB, 0));
	CHECK_OK(r->ops->trim(r, 320 * KiB, 64 * KiB));
	r = copy_again(w, r, 6, &state);
	CHECK(state.is_joining && !state.fill_begun && uuid_equal(&state.join_id, &join));
	CHECK_EQ(state.size_bytes, 2 * VOLUME_BYTES);
	expect_layers(r, "a"); /* the old head is not one */
	CHECK_OK(seal_as(r, 7, LAYER + 20, "s"));
	expect_layers(r, "a | s");
	expect_layer(r, 0, 128 * KiB, 64 * KiB, 1);
	fill_at(r, MiB, 128 * KiB, 2);
	fill_at(r, 512 * KiB, 64 * KiB, 0);
	r = copy_again(w, r, 7, &state);
	CHECK(state.is_joining && state.fill_begun);
	CHECK_OK(fill_seal_as(r, LAYER + 8, "~b"));
	CHECK_OK(fill_seal_as(r, LAYER + 8, "~b"));
	CHECK_OK(r->ops->fill_grow(r, 2 * VOLUME_BYTES));
	fill_at(r, 2 * VOLUME_BYTES - BLOCK, BLOCK, 2);
	CHECK_ERR(r->ops->join_end(r), OXE_INVAL);
	CHECK_OK(fill_seal_as(r, LAYER + 9, "~join"));
	expect_layers(r, "a ~b ~join | s");
	write_at(r, 0, BLOCK, 8);
	CHECK_OK(r->ops->join_end(r));
	CHECK_OK(r->ops->join_end(r));
	for (unsigned i = 0; i < 3; i++) {
		expect_layers(r, "a ~b ~join s");
		expect_at(r, 0, BLOCK, 8);
		expect_at(r, BLOCK, 128 * KiB - BLOCK, 1);
		expect_at(r, 128 * KiB, 64 * KiB, 7);
		expect_at(r, 192 * KiB, 64 * KiB, 1);
		expect_at(r, 256 * KiB, 128 * KiB, 0);
		expect_at(r, 384 * KiB, 128 * KiB, 1);
		expect_at(r, 512 * KiB, 64 * KiB, 0);
		expect_at(r, MiB, 128 * KiB, 2);
		expect_at(r, 2 * VOLUME_BYTES - BLOCK, BLOCK, 2);
		r = copy_again(w, r, 7, &state);
		CHECK(state.exists && !state.is_joining && !state.fill_begun && uuid_is_nil(&state.join_id));
		CHECK_EQ(state.size_bytes, 2 * VOLUME_BYTES);
	}
	CHECK_OK(seal_as(r, 8, LAYER + 21, "~c"));
	r = copy_again(w, r, 8, &state);
	CHECK(!state.fill_begun);
	close_it(r);
}

REPLICA_TEST(an_empty_copy_joins_too)
{
	struct replica *r = a_copy(w, 5);
	CHECK_OK(join_as(r, LAYER, VOLUME_BYTES));
	write_at(r, 0, BLOCK, 2);
	fill_at(r, 0, 64 * KiB, 1);
	CHECK_OK(fill_seal_as(r, LAYER, "~join"));
	CHECK_OK(r->ops->join_end(r));
	expect_at(r, 0, BLOCK, 2);
	expect_at(r, BLOCK, 15 * BLOCK, 1);
	expect_layers(r, "~join");
	close_it(r);
}

REPLICA_TEST(a_join_for_another_layer_throws_the_new_head_away_and_knows_that_filling_has_begun)
{
	struct replica *r = copy_left_behind(w);
	struct replica_state state;
	struct uuid other = an_id(LAYER + 10);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES));
	write_at(r, 0, BLOCK, 7);
	CHECK_OK(seal_as(r, 5, LAYER + 20, "s"));
	fill_at(r, BLOCK, BLOCK, 2);
	CHECK_OK(join_as(r, LAYER + 10, VOLUME_BYTES));
	expect_layers(r, "a");
	r = copy_again(w, r, 6, &state);
	CHECK(state.is_joining && state.fill_begun && uuid_equal(&state.join_id, &other));
	fill_at(r, 2 * BLOCK, BLOCK, 2);
	CHECK_OK(fill_seal_as(r, LAYER + 10, "~join"));
	CHECK_OK(r->ops->join_end(r));
	expect_at(r, 0, BLOCK, 1);
	expect_at(r, BLOCK, 2 * BLOCK, 2);
	expect_at(r, 3 * BLOCK, BLOCK, 1);
	CHECK_OK(pool_jobs_wait(w->pool));
	close_it(r);
}

REPLICA_TEST(a_joining_copy_takes_whole_blocks_and_is_not_read_or_reverted)
{
	struct replica *r = copy_left_behind(w);
	uint8_t *data = a_pattern(0, 2 * BLOCK, 1);
	struct uuid layer = an_id(LAYER), head = an_id(50);
	CHECK_ERR(r->ops->fill(r, data, 0, BLOCK), OXE_INVAL);
	CHECK_ERR(fill_seal_as(r, LAYER + 1, "~x"), OXE_INVAL);
	CHECK_ERR(r->ops->fill_grow(r, 2 * VOLUME_BYTES), OXE_INVAL);
	CHECK_ERR(r->ops->join_begin(r, &(struct uuid){{0}}, VOLUME_BYTES), OXE_INVAL);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES));
	CHECK_ERR(r->ops->read(r, data, 0, BLOCK), OXE_INVAL);
	CHECK_ERR(r->ops->write(r, data, 0, 512, 0), OXE_ALIGN);
	CHECK_ERR(r->ops->write(r, data, 512, BLOCK, 0), OXE_ALIGN);
	CHECK_ERR(r->ops->zero(r, 512, BLOCK, 0), OXE_ALIGN);
	CHECK_ERR(r->ops->revert(r, &layer, &head), OXE_BUSY);
	CHECK_OK(r->ops->write(r, data, 0, BLOCK, VOL_FUA));
	CHECK_OK(r->ops->flush(r));
	CHECK_OK(r->ops->fill(r, data, 512, 512));
	close_it(r);
	free(data);
}

REPLICA_TEST(the_join_layer_is_not_deleted_and_others_of_both_chains_are)
{
	struct replica *r = copy_left_behind(w);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES));
	CHECK_OK(seal_as(r, 5, LAYER + 20, "s"));
	CHECK_OK(seal_as(r, 5, LAYER + 21, "t"));
	CHECK_OK(fill_seal_as(r, LAYER + 9, "~join"));
	CHECK_ERR(delete_layer(r, LAYER + 9), OXE_BUSY);
	CHECK_OK(delete_layer(r, LAYER));
	CHECK_OK(delete_layer(r, LAYER + 20));
	expect_layers(r, "~join | t");
	CHECK_OK(pool_jobs_wait(w->pool));
	CHECK_OK(r->ops->join_end(r));
	expect_layers(r, "~join t");
	CHECK_OK(delete_layer(r, LAYER + 9));
	CHECK_OK(pool_jobs_wait(w->pool));
	expect_at(r, 0, MiB, 1);
	close_it(r);
}

REPLICA_TEST(a_join_does_not_end_over_what_was_filled_since_or_two_layers_of_one_name)
{
	struct replica *r = copy_left_behind(w);
	struct uuid old = an_id(LAYER);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES));
	CHECK_OK(seal_as(r, 5, LAYER + 20, "a")); /* the old one of that name was deleted elsewhere */
	write_at(r, 0, BLOCK, 7);
	CHECK_OK(fill_seal_as(r, LAYER + 9, "~join"));
	CHECK_ERR(r->ops->join_end(r), OXE_EXISTS);
	CHECK_OK(r->ops->layer_rename(r, &old, "~old"));
	fill_at(r, 0, BLOCK, 2);
	CHECK_ERR(r->ops->join_end(r), OXE_INVAL);
	write_at(r, BLOCK, BLOCK, 7); /* nothing has changed */
	r = copy_again(w, r, 6, NULL);
	expect_layers(r, "~old ~join | a");
	CHECK_OK(join_as(r, LAYER + 10, VOLUME_BYTES));
	CHECK_OK(fill_seal_as(r, LAYER + 10, "~join2"));
	CHECK_OK(r->ops->join_end(r));
	expect_at(r, 0, BLOCK, 2);
	expect_at(r, BLOCK, BLOCK, 1);
	close_it(r);
}

REPLICA_TEST(a_copy_that_is_larger_than_what_it_joins_is_cut_and_shows_nothing_old_when_it_grows)
{
	struct replica *r = copy_left_behind(w);
	struct replica_state state;
	write_at(r, VOLUME_BYTES - 3 * BLOCK, 3 * BLOCK, 5);
	CHECK_OK(seal_as(r, 5, LAYER + 1, "b"));
	write_at(r, VOLUME_BYTES - BLOCK, BLOCK, 6);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES / 2));
	CHECK_OK(fill_seal_as(r, LAYER + 8, "~large"));
	CHECK_OK(r->ops->fill_grow(r, VOLUME_BYTES / 2));
	CHECK_OK(r->ops->fill_grow(r, VOLUME_BYTES / 2));
	CHECK_OK(fill_seal_as(r, LAYER + 9, "~join"));
	CHECK_OK(delete_layer(r, LAYER + 8));
	CHECK_OK(r->ops->join_end(r));
	r = copy_again(w, r, 6, &state);
	CHECK_EQ(state.size_bytes, VOLUME_BYTES / 2);
	CHECK_OK(pool_jobs_wait(w->pool));
	CHECK_OK(r->ops->grow(r, 2 * VOLUME_BYTES));
	expect_at(r, VOLUME_BYTES / 2, 3 * VOLUME_BYTES / 2, 0);
	expect_at(r, 0, MiB, 1);
	close_it(r);
}

REPLICA_TEST(a_join_upon_a_layer_that_is_larger_does_not_end)
{
	struct replica *r = copy_left_behind(w);
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES / 2));
	CHECK_OK(fill_seal_as(r, LAYER + 9, "~join"));
	CHECK_ERR(r->ops->join_end(r), OXE_INVAL);
	close_it(r);
}

REPLICA_TEST(intents_that_were_left_stay_until_they_are_filled_over)
{
	struct replica *r = copy_left_behind(w); /* {3} */
	struct replica_state state;
	struct replica_regions nine = regions_of(9, 1, 1), both = nine, none = {{0}};
	both.bits[0] |= 1 << 3;
	CHECK_OK(join_as(r, LAYER + 9, VOLUME_BYTES));
	CHECK_OK(r->ops->intents_set(r, &nine));
	r = copy_again(w, r, 6, &state);
	CHECK(regions_equal(&state.intents, &both));
	CHECK_OK(r->ops->intents_set(r, &none)); /* by another engine, which cannot tell them apart */
	CHECK_OK(join_as(r, LAYER + 10, VOLUME_BYTES));
	r = copy_again(w, r, 7, &state);
	CHECK(regions_equal(&state.intents, &both));
	CHECK_OK(fill_seal_as(r, LAYER + 10, "~join"));
	CHECK_OK(r->ops->intents_set(r, &nine));
	CHECK_OK(r->ops->join_end(r));
	r = copy_again(w, r, 8, &state);
	CHECK(regions_equal(&state.intents, &nine));
	close_it(r);
}
