/*
 * mirror_test.c: a mirror over three copies in pools of one simulated machine, each of which can be away, refuse, or be unable to read, when a
 * test says so. Whole clusters under a seed are in src/sim/cluster_run.c; here each story is told once, by name.
 */
#include "base/test.h"
#include "data/engine/mirror.h"
#include "sim/sim.h"

#include <stdio.h>

#define PLACES	     3u
#define DISK_BYTES   (96 * MiB)
#define VOLUME_BYTES (4 * MiB)
#define BLOCK	     4096u
#define CHUNK	     (64 * KiB)

enum verb {
	OPEN,
	PING,
	READ,
	WRITE,
	FLUSH,
	INTENTS,
	SEAL,
	RENAME,
	REVERT,
	LAYERS,
	LAYER_READ,
	SUMS,
	FILL,
	VERBS
};

struct place {
	struct pool *pool;
	struct replica_door *door;
	struct uuid pool_id;
	bool away;	   /* since it was told so, or to answer OXE_CLOSED */
	uint64_t bad_end;  /* it cannot read the byte before; 0: it can read all */
	bool lost_power;   /* its machine did: it may lack what it has intents for */
	int answer[VERBS]; /* instead of its own; 0: its own */
	uint64_t calls[VERBS];
};

struct world {
	struct sim *sim;
	struct sim_node *node;
	struct place places[PLACES];
	struct view_store store;
	struct view view;
	uint64_t revision, swap_ns;		  /* how long a swap takes */
	uint32_t copies;			  /* in the first view */
	uint32_t background_share;		  /* of the next mirror; 0: as ever */
	uint64_t absent_max_ns, absent_max_bytes; /* the same */
	uint64_t flushes_at_swap;		  /* of the first place, when the view was changed last */
	struct mirror *m;
	unsigned alone; /* fibers of a test's own that have ended */
	void (*body)(struct world *w);
	bool done;
};

static struct world *the_world;
static bool all_are_far; /* but the second, of the copies that are made now */
static const struct replica_ops *real_ops;

static struct uuid an_id(unsigned n)
{
	struct uuid id = {{0x0d, (uint8_t)(n >> 8), (uint8_t)n}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	return id;
}

#define VOLUME_ID 2u
#define POOL_ID	  10u  /* and on */
#define LAYER	  200u /* and on */
#define HEAD	  300u /* and on */

/* ---- copies that do as they are told ---------------------------------------------------------------------------------------- */

static struct place *place_of(const struct uuid *pool_id)
{
	for (uint32_t i = 0; i < PLACES; i++)
		if (uuid_equal(&the_world->places[i].pool_id, pool_id))
			return &the_world->places[i];
	CHECK(false);
	return NULL;
}

/* 0: it shall answer by itself. */
static int told(struct replica *r, enum verb verb)
{
	struct place *p = place_of(&r->pool_id);
	p->calls[verb]++;
	p->away |= p->answer[verb] == OXE_CLOSED;
	return p->away ? OXE_CLOSED : p->answer[verb];
}

#define TOLD(verb, ...)                                                                                      \
	int err = told(r, verb);                                                                             \
	return err ? err : real_ops->__VA_ARGS__

static int told_open(struct replica *r, uint64_t epoch, const struct uuid *engine_id,
		     struct replica_state *out)
{
	struct place *p = place_of(&r->pool_id);
	int err = told(r, OPEN);
	if (!err)
		err = real_ops->open(r, epoch, engine_id, out);
	if (!err && p->lost_power)
		out->may_lack = out->intents;
	return err;
}

static int told_made_good(struct replica *r)
{
	struct place *p = place_of(&r->pool_id);
	if (p->away)
		return OXE_CLOSED;
	p->lost_power = false;
	return real_ops->made_good(r);
}

static int told_ping(struct replica *r)
{
	TOLD(PING, ping(r));
}

static int told_read(struct replica *r, void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t bad_end = place_of(&r->pool_id)->bad_end;
	if (bad_end > offset_bytes && bad_end <= offset_bytes + len_bytes)
		return OXE_IO;
	TOLD(READ, read(r, data, offset_bytes, len_bytes));
}

static int told_write(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes,
		      unsigned vol_flags)
{
	TOLD(WRITE, write(r, data, offset_bytes, len_bytes, vol_flags));
}

static int told_flush(struct replica *r)
{
	TOLD(FLUSH, flush(r));
}

static int told_intents_set(struct replica *r, const struct replica_regions *regions)
{
	TOLD(INTENTS, intents_set(r, regions));
}

static int told_seal(struct replica *r, uint64_t epoch, const struct uuid *layer_id, const char *name)
{
	TOLD(SEAL, seal(r, epoch, layer_id, name));
}

static int told_layer_rename(struct replica *r, const struct uuid *layer_id, const char *name)
{
	TOLD(RENAME, layer_rename(r, layer_id, name));
}

static int told_revert(struct replica *r, const struct uuid *layer_id, const struct uuid *head_id)
{
	TOLD(REVERT, revert(r, layer_id, head_id));
}

static int told_layers(struct replica *r, struct replica_layer *layers, size_t max, size_t *count,
		       size_t *filled_count)
{
	TOLD(LAYERS, layers(r, layers, max, count, filled_count));
}

static int told_layer_read(struct replica *r, const struct uuid *layer_id, void *data, uint64_t offset_bytes,
			   uint64_t len_bytes)
{
	TOLD(LAYER_READ, layer_read(r, layer_id, data, offset_bytes, len_bytes));
}

static int told_layer_checksums(struct replica *r, const struct uuid *layer_id, uint64_t offset_bytes,
				uint64_t len_bytes, uint32_t *crcs)
{
	TOLD(SUMS, layer_checksums(r, layer_id, offset_bytes, len_bytes, crcs));
}

static int told_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	TOLD(FILL, fill(r, data, offset_bytes, len_bytes));
}

static struct replica *copy_find(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	static struct replica_ops ops;
	struct replica *r = replica_local_new(place_of(pool_id)->door, volume_id);
	(void)ctx;
	real_ops = r->ops == &ops ? real_ops : r->ops;
	ops = *real_ops;
	ops.open = told_open;
	ops.ping = told_ping;
	ops.read = told_read;
	ops.write = told_write;
	ops.flush = told_flush;
	ops.intents_set = told_intents_set;
	ops.made_good = told_made_good;
	ops.seal = told_seal;
	ops.layer_rename = told_layer_rename;
	ops.revert = told_revert;
	ops.layers = told_layers;
	ops.layer_read = told_layer_read;
	ops.layer_checksums = told_layer_checksums;
	ops.fill = told_fill;
	r->ops = &ops;
	r->is_local = !all_are_far || place_of(pool_id) == &the_world->places[1];
	return r;
}

/* ---- views ------------------------------------------------------------------------------------------------------------------ */

static int view_get(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision)
{
	struct world *w = container_of(s, struct world, store);
	(void)volume_id;
	*out = w->view;
	*revision = w->revision;
	return 0;
}

static int view_swap(struct view_store *s, const struct view *v, uint64_t revision, uint64_t *new_revision)
{
	struct world *w = container_of(s, struct world, store);
	if (w->swap_ns)
		fiber_sleep(w->swap_ns);
	if (w->revision != revision)
		return OXE_DIFFERS;
	w->view = *v;
	w->flushes_at_swap = w->places[0].calls[FLUSH];
	*new_revision = ++w->revision;
	return 0;
}

/* ---- the world -------------------------------------------------------------------------------------------------------------- */

static void disk_path(uint32_t index, char path[20])
{
	snprintf(path, 20, "/dev/sd%c", (int)('a' + index));
}

static void place_up(struct world *w, uint32_t index)
{
	struct place *p = &w->places[index];
	struct uuid boot_id = an_id(3);
	struct pool_format_spec spec = {.id = an_id(POOL_ID + index), .name = "p"};
	struct volume_spec volume = {
		.id = an_id(VOLUME_ID), .name = "v", .size_bytes = VOLUME_BYTES, .lba_bytes = 512};
	struct rt_disk *disk;
	char path[20];
	disk_path(index, path);
	p->pool_id = spec.id;
	CHECK_OK(rt_disk_open(rt_current(), path, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	CHECK_OK(pool_open(disk, NULL, &p->pool));
	p->door = replica_door_new(p->pool, &boot_id);
	if (index < w->copies)
		CHECK_OK(volume_create(p->pool, &volume));
}

static void mirror_up(struct world *w)
{
	struct mirror_options options = {.volume_id = an_id(VOLUME_ID),
					 .views = &w->store,
					 .replica_new = copy_find,
					 .ctx = w,
					 .intent_idle_ns = NS_PER_S,
					 .background_share = w->background_share,
					 .absent_max_ns = w->absent_max_ns,
					 .absent_max_bytes = w->absent_max_bytes};
	CHECK_OK(mirror_new(rt_current(), &options, &w->m));
}

static void serves(struct world *w)
{
	CHECK_OK(mirror_wait(w->m, rt_now_ns(rt_current()) + 60 * NS_PER_S));
}

static void mirror_again(struct world *w)
{
	mirror_close(w->m);
	mirror_up(w);
	serves(w);
}

static void world_main(void *arg)
{
	struct world *w = arg;
	w->store = (struct view_store){.get = view_get, .swap = view_swap};
	w->revision = 1;
	w->view = (struct view){.volume_id = an_id(VOLUME_ID), .epoch = 1, .replica_count = w->copies};
	for (uint32_t i = 0; i < PLACES; i++) {
		place_up(w, i);
		if (i < w->copies)
			w->view.replicas[i] =
				(struct view_replica){.pool_id = w->places[i].pool_id, .role = VIEW_MEMBER};
	}
	mirror_up(w);
	serves(w);
	w->body(w);
	mirror_close(w->m);
	for (uint32_t i = 0; i < PLACES; i++) {
		replica_door_free(w->places[i].door);
		CHECK_OK(pool_close(w->places[i].pool));
	}
	w->done = true;
}

static void world_run(uint32_t copies, void (*body)(struct world *w))
{
	struct world *w = mem_zalloc(sizeof(*w));
	*w = (struct world){.sim = sim_new(7), .body = body, .copies = copies};
	struct sim_node *node = w->node = sim_node_new(w->sim, "a");
	char path[20];
	the_world = w;
	for (uint32_t i = 0; i < PLACES; i++) {
		disk_path(i, path);
		sim_disk_new(node, path, DISK_BYTES, 512);
	}
	fiber_spawn_big(sim_node_start(node), "test", world_main, w);
	CHECK(sim_run(w->sim, &w->done, 3600 * NS_PER_S) == SIM_DONE);
	sim_node_stop(node);
	sim_free(w->sim);
	free(w);
}

#define MIRROR_TEST(copies, name)                                                                            \
	static void name##_body(struct world *w);                                                            \
	TEST(name)                                                                                           \
	{                                                                                                    \
		world_run(copies, name##_body);                                                              \
	}                                                                                                    \
	static void name##_body(struct world *w)

/* ---- small words ------------------------------------------------------------------------------------------------------------ */

static void writes(struct world *w, uint64_t offset_bytes, uint64_t len_bytes, int value)
{
	uint8_t *data = aligned_alloc(BLOCK, len_bytes);
	memset(data, value, len_bytes);
	CHECK_OK(mirror_write(w->m, data, offset_bytes, len_bytes, 0));
	free(data);
}

static bool all_are(const uint8_t *data, uint64_t len_bytes, int value)
{
	for (uint64_t i = 0; i < len_bytes; i++)
		if (data[i] != (uint8_t)value)
			return false;
	return true;
}

static bool reads_as(struct world *w, uint64_t offset_bytes, uint64_t len_bytes, int value)
{
	uint8_t *data = aligned_alloc(BLOCK, len_bytes);
	CHECK_OK(mirror_read(w->m, data, offset_bytes, len_bytes));
	bool same = all_are(data, len_bytes, value);
	free(data);
	return same;
}

static bool snapshot_reads_as(struct world *w, unsigned layer, uint64_t offset_bytes, int value)
{
	uint8_t data[BLOCK];
	struct uuid id = an_id(layer);
	CHECK_OK(mirror_layer_read(w->m, &id, data, offset_bytes, sizeof(data)));
	return all_are(data, sizeof(data), value);
}

static void snapshot(struct world *w, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	CHECK_OK(mirror_snapshot(w->m, &id, name, NULL));
}

/* What the copy itself has; its session ends, and the mirror opens it anew. */
static bool copy_reads_as(struct world *w, uint32_t index, uint64_t offset_bytes, int value)
{
	uint8_t data[BLOCK];
	struct vol *vol;
	struct uuid id = an_id(VOLUME_ID);
	CHECK_OK(vol_open(w->places[index].pool, &id, &vol));
	CHECK_OK(vol_read(vol, data, offset_bytes, sizeof(data)));
	vol_close(vol);
	return all_are(data, sizeof(data), value);
}

static bool list_add(void *ctx, const struct replica_layer *layer)
{
	char *text = ctx;
	size_t used = strlen(text);
	snprintf(text + used, 200 - used, "%s%s", used ? " " : "", layer->name);
	return true;
}

static const char *snapshots(struct world *w)
{
	static char text[200];
	text[0] = 0;
	mirror_snapshot_walk(w->m, list_add, text);
	return text;
}

static void waits_for(struct world *w, bool (*is_so)(struct world *w))
{
	uint64_t until_ns = rt_now_ns(rt_current()) + 120 * NS_PER_S;
	while (!is_so(w) && rt_now_ns(rt_current()) < until_ns)
		fiber_sleep(10 * NS_PER_MS);
	CHECK(is_so(w));
}

static bool all_are_members(struct world *w)
{
	return view_count(&w->view, VIEW_MEMBER) == w->view.replica_count && w->view.seal_count == 0;
}

static bool one_is_out(struct world *w)
{
	return view_count(&w->view, VIEW_ABSENT) == 1 && w->view.seal_count == 0;
}

static void goes_away(struct world *w, uint32_t index)
{
	w->places[index].away = true;
	waits_for(w, one_is_out);
}

/* Its machine goes off, and what was written there since is gone: it is what it was before. */
static void loses_power(struct world *w, uint32_t index, uint64_t offset_bytes, int value)
{
	uint8_t data[BLOCK];
	struct vol *vol;
	struct uuid id = an_id(VOLUME_ID);
	w->places[index].lost_power = w->places[index].away = true;
	memset(data, value, sizeof(data));
	CHECK_OK(vol_open(w->places[index].pool, &id, &vol));
	CHECK_OK(vol_write(vol, data, offset_bytes, sizeof(data), 0));
	vol_close(vol);
}

static bool nobody_may_lack(struct world *w)
{
	struct mirror_status status;
	mirror_status(w->m, &status);
	for (uint32_t i = 0; i < status.copy_count; i++)
		if (status.copies[i].may_lack || status.copies[i].session != MIRROR_OPEN)
			return false;
	return status.unsettled_count == 0 && status.serves;
}

static void comes_back(struct world *w, uint32_t index)
{
	w->places[index].away = false;
	waits_for(w, all_are_members);
}

/* ---- power ------------------------------------------------------------------------------------------------------------------ */

MIRROR_TEST(2, a_new_engine_makes_a_copy_that_lost_power_equal_to_the_one_that_did_not)
{
	writes(w, 0, BLOCK, 1);
	CHECK_OK(mirror_flush(w->m));
	writes(w, 0, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, 0, 1);
	w->places[0].away = false;
	mirror_up(w);
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 2));
	waits_for(w, nobody_may_lack);
	CHECK(!w->places[0].lost_power);
	CHECK(copy_reads_as(w, 0, 0, 2) && copy_reads_as(w, 1, 0, 2));
}

MIRROR_TEST(2, a_copy_that_lost_power_is_not_gone_on_with_while_the_other_may_come_back)
{
	struct mirror_status status;
	writes(w, 0, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, 0, 1);
	w->places[0].away = false;
	w->places[1].away = true;
	mirror_up(w);
	CHECK_ERR(mirror_wait(w->m, rt_now_ns(rt_current()) + 60 * NS_PER_S), OXE_TIMEOUT);
	mirror_status(w->m, &status);
	CHECK_EQ(status.awaited, 2);
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 2);
	w->places[1].away = false;
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 2));
}

MIRROR_TEST(2, copies_that_all_lost_power_are_made_equal_and_serve)
{
	writes(w, 0, BLOCK, 1);
	CHECK_OK(mirror_flush(w->m));
	writes(w, BLOCK, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, BLOCK, 0);
	loses_power(w, 1, BLOCK, 3);
	w->places[0].away = w->places[1].away = false;
	mirror_up(w);
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 1));
	waits_for(w, nobody_may_lack);
	CHECK(copy_reads_as(w, 0, BLOCK, 0) == copy_reads_as(w, 1, BLOCK, 0));
}

MIRROR_TEST(2, a_copy_that_lost_power_is_put_out_like_any_when_the_other_has_everything)
{
	writes(w, 0, BLOCK, 2);
	loses_power(w, 0, 0, 1);
	waits_for(w, one_is_out);
	CHECK(reads_as(w, 0, BLOCK, 2));
	comes_back(w, 0);
	waits_for(w, nobody_may_lack);
	CHECK(copy_reads_as(w, 0, 0, 2));
}

static void flush_alone(void *arg)
{
	struct world *w = arg;
	CHECK_OK(mirror_flush(w->m));
	CHECK(copy_reads_as(w, 0, 0, 2));
	w->alone++;
}

static bool one_alone_is_done(struct world *w)
{
	return w->alone == 1;
}

MIRROR_TEST(2, a_flush_is_not_answered_before_what_a_copy_lost_has_been_given_back_to_it)
{
	writes(w, 0, BLOCK, 2);
	loses_power(w, 0, 0, 1);
	fiber_spawn_big(rt_current(), "flush", flush_alone, w);
	fiber_sleep(100 * NS_PER_MS);
	w->places[0].away = false;
	waits_for(w, one_alone_is_done);
}

MIRROR_TEST(2, those_that_stay_are_flushed_before_a_copy_is_put_out)
{
	writes(w, 0, BLOCK, 2);
	uint64_t flushes = w->places[0].calls[FLUSH];
	w->places[1].away = true;
	waits_for(w, one_is_out);
	CHECK(w->flushes_at_swap > flushes);
}

MIRROR_TEST(2, what_differed_is_written_also_where_it_is_right_already)
{
	writes(w, 0, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, 0, 1);
	w->places[0].away = false;
	uint64_t written = w->places[1].calls[WRITE];
	mirror_up(w);
	serves(w);
	waits_for(w, nobody_may_lack);
	CHECK_EQ(w->places[1].calls[WRITE], written + 1);
	CHECK(copy_reads_as(w, 0, 0, 2) && copy_reads_as(w, 1, 0, 2));
}

static void read_alone(void *arg)
{
	struct world *w = arg;
	CHECK(reads_as(w, 2 * MiB, BLOCK, 0));
	w->alone++;
}

MIRROR_TEST(2, a_read_is_not_answered_when_one_member_has_not_been_heard_for_a_lease)
{
	writes(w, 0, BLOCK, 2);
	loses_power(w, 1, 0, 1);
	w->places[0].away = true;
	fiber_sleep(NS_PER_S);
	w->places[1].away = false; /* it answers, and may lack something: the other is waited for */
	fiber_sleep(4 * NS_PER_S);
	fiber_spawn_big(rt_current(), "read", read_alone, w);
	fiber_sleep(4 * NS_PER_S);
	CHECK_EQ(w->alone, 0);
	w->places[0].away = false;
	waits_for(w, one_alone_is_done);
}

/* ---- salvage ---------------------------------------------------------------------------------------------------------------- */

#define MIB_AT (2 * MiB)

static void back_in_a_second(void *arg)
{
	struct world *w = arg;
	fiber_sleep(NS_PER_S);
	w->places[1].away = false;
	w->alone++;
}

static void write_far_alone(void *arg)
{
	struct world *w = arg;
	writes(w, MIB_AT, BLOCK, 5);
	w->alone++;
}

/* The same layer in each copy, whatever is in it. */
static void seals_there(struct world *w, uint32_t index)
{
	struct uuid volume_id = an_id(VOLUME_ID), layer_id = an_id(LAYER + 9);
	uint64_t pause_ns;
	CHECK_OK(snapshot_create(w->places[index].pool, &volume_id, &layer_id, "both", &pause_ns));
}

static int salvage(struct world *w, uint32_t index)
{
	return mirror_salvage(w->m, &w->places[index].pool_id);
}

/* The first lost power, and has 1 where 2 was acknowledged; the second, which has it, is gone. */
static void the_sure_one_is_gone(struct world *w)
{
	writes(w, 0, BLOCK, 1);
	CHECK_OK(mirror_flush(w->m));
	writes(w, 0, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, 0, 1);
	w->places[0].away = false;
	w->places[1].away = true;
	mirror_up(w);
}

MIRROR_TEST(2, a_copy_that_lost_power_serves_alone_when_a_person_says_salvage)
{
	the_sure_one_is_gone(w);
	CHECK_ERR(mirror_wait(w->m, rt_now_ns(rt_current()) + 30 * NS_PER_S), OXE_TIMEOUT);
	CHECK_OK(salvage(w, 0));
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 1));
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 1);
	CHECK_OK(mirror_flush(w->m));
	CHECK(!w->places[0].lost_power);
	uint64_t revision = w->revision;
	CHECK_OK(salvage(w, 0));
	CHECK_EQ(w->revision, revision);
}

/* What it sealed since, and under which ids, is believed of nothing: every difference is found, also where nobody wrote again. */
MIRROR_TEST(2, who_returns_after_a_salvage_becomes_what_was_salvaged)
{
	the_sure_one_is_gone(w);
	CHECK_OK(salvage(w, 0));
	serves(w);
	writes(w, MIB_AT, BLOCK, 7);
	comes_back(w, 1);
	CHECK(reads_as(w, 0, BLOCK, 1) && reads_as(w, MIB_AT, BLOCK, 7));
	CHECK(copy_reads_as(w, 1, 0, 1) && copy_reads_as(w, 1, MIB_AT, 7));
}

/* Both sealed it when they differed already, and neither wrote there since: only the doubt says that they have to be compared. */
MIRROR_TEST(2, after_a_salvage_a_layer_that_both_copies_have_proves_nothing)
{
	writes(w, 0, BLOCK, 2);
	mirror_close(w->m);
	loses_power(w, 0, 0, 1);
	seals_there(w, 0);
	seals_there(w, 1);
	w->places[0].away = false;
	w->places[1].away = true;
	mirror_up(w);
	CHECK_OK(salvage(w, 0));
	serves(w);
	comes_back(w, 1);
	CHECK(copy_reads_as(w, 0, 0, 1) && copy_reads_as(w, 1, 0, 1));
}

MIRROR_TEST(2, salvage_is_refused_when_a_member_that_answers_has_everything)
{
	CHECK_ERR(salvage(w, 0), OXE_EXISTS);
	goes_away(w, 1);
	CHECK_OK(salvage(w, 0)); /* it is the only one already */
	CHECK_ERR(salvage(w, 1), OXE_EXISTS);
	CHECK_ERR(salvage(w, 2), OXE_NOENT);
	w->places[0].away = true;
	fiber_sleep(NS_PER_S);
	CHECK_ERR(salvage(w, 0), OXE_NOTREADY);
}

MIRROR_TEST(2, salvage_is_refused_for_a_copy_that_does_not_answer)
{
	w->places[0].away = w->places[1].away = true;
	fiber_sleep(NS_PER_S);
	CHECK_ERR(salvage(w, 0), OXE_NOTREADY);
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 2);
}

MIRROR_TEST(2, salvage_does_not_go_on_with_what_is_left_when_the_other_is_back_within_its_grace)
{
	the_sure_one_is_gone(w);
	fiber_spawn_big(rt_current(), "back", back_in_a_second, w);
	CHECK_ERR(salvage(w, 0), OXE_EXISTS);
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 2));
	waits_for(w, one_alone_is_done);
}

MIRROR_TEST(2, an_absent_copy_serves_alone_when_all_members_are_gone_and_a_person_says_salvage)
{
	writes(w, 0, BLOCK, 1);
	snapshot(w, LAYER, "old");
	goes_away(w, 1);
	writes(w, 0, BLOCK, 2);
	snapshot(w, LAYER + 1, "new");
	w->places[0].away = true;
	fiber_spawn_big(rt_current(), "write", write_far_alone, w);
	fiber_sleep(4 * NS_PER_S);
	w->places[1].away = false;
	fiber_sleep(4 * NS_PER_S);
	CHECK_EQ(w->alone, 0);
	CHECK_OK(salvage(w, 1));
	serves(w);
	CHECK(reads_as(w, 0, BLOCK, 1));
	CHECK_STR(snapshots(w), "old");
	waits_for(w, one_alone_is_done); /* and what was asked before is asked of it */
	CHECK(copy_reads_as(w, 1, MIB_AT, 5));
	comes_back(w, 0);
	CHECK(copy_reads_as(w, 0, 0, 1) && copy_reads_as(w, 0, MIB_AT, 5));
	CHECK_STR(snapshots(w), "old");
}

MIRROR_TEST(2, an_empty_copy_is_not_salvaged)
{
	struct volume_spec volume = {
		.id = an_id(VOLUME_ID), .name = "v", .size_bytes = VOLUME_BYTES, .lba_bytes = 512};
	writes(w, 0, BLOCK, 1);
	mirror_close(w->m);
	CHECK_OK(volume_create(w->places[2].pool, &volume));
	w->view.replicas[w->view.replica_count++] =
		(struct view_replica){.pool_id = w->places[2].pool_id, .role = VIEW_ABSENT};
	w->places[0].away = w->places[1].away = true;
	mirror_up(w);
	CHECK_ERR(salvage(w, 2), OXE_NOENT);
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 2);
	w->places[0].away = w->places[1].away = false;
	serves(w);
}

MIRROR_TEST(1, a_joining_copy_without_its_chain_is_not_salvaged)
{
	writes(w, 0, CHUNK, 1);
	w->places[1].answer[FILL] = OXE_CLOSED;
	CHECK_OK(mirror_copy_add(w->m, &w->places[1].pool_id));
	fiber_sleep(200 * NS_PER_MS);
	w->places[0].away = true;
	w->places[1].answer[FILL] = 0;
	w->places[1].away = false;
	fiber_sleep(4 * NS_PER_S);
	CHECK_ERR(salvage(w, 1), OXE_BUSY);
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 1);
	comes_back(w, 0);
	CHECK(reads_as(w, 0, CHUNK, 1));
}

/* ---- layers ----------------------------------------------------------------------------------------------------------------- */

MIRROR_TEST(2, a_copy_that_does_not_say_which_layers_it_has_costs_no_snapshot)
{
	snapshot(w, LAYER, "s");
	mirror_close(w->m);
	w->places[1].answer[LAYERS] = OXE_CLOSED;
	mirror_up(w);
	fiber_sleep(NS_PER_S);
	w->places[1].answer[LAYERS] = 0;
	w->places[1].away = false;
	serves(w);
	CHECK_STR(snapshots(w), "s");
}

/* ---- media ------------------------------------------------------------------------------------------------------------------ */

MIRROR_TEST(2, a_joining_copy_that_cannot_read_what_it_had_is_filled_all_the_same)
{
	writes(w, 0, CHUNK, 1);
	goes_away(w, 1);
	writes(w, 0, CHUNK, 2);
	w->places[1].answer[SUMS] = OXE_IO;
	comes_back(w, 1);
	w->places[1].answer[SUMS] = 0;
	CHECK(copy_reads_as(w, 1, 0, 2));
}

MIRROR_TEST(2, a_read_is_answered_when_each_block_of_it_can_be_read_in_some_member)
{
	writes(w, 0, CHUNK, 1);
	w->places[0].bad_end = BLOCK;
	w->places[1].bad_end = 3 * BLOCK;
	CHECK(reads_as(w, 0, CHUNK, 1));
}

MIRROR_TEST(3, a_joining_copy_gets_from_another_member_what_one_cannot_read)
{
	writes(w, 0, CHUNK, 1);
	goes_away(w, 2);
	writes(w, 0, CHUNK, 2);
	w->places[0].answer[SUMS] = w->places[0].answer[LAYER_READ] = OXE_IO;
	comes_back(w, 2);
	w->places[0].answer[SUMS] = w->places[0].answer[LAYER_READ] = 0;
	CHECK(copy_reads_as(w, 2, 0, 2));
}

/* ---- snapshots -------------------------------------------------------------------------------------------------------------- */

MIRROR_TEST(3, snapshots_are_listed_oldest_first_without_the_system_s_and_after_a_start_as_before)
{
	struct uuid id = an_id(LAYER);
	snapshot(w, LAYER, "one");
	goes_away(w, 2);
	snapshot(w, LAYER + 1, "two");
	comes_back(w, 2);
	snapshot(w, LAYER + 2, "three");
	CHECK_STR(snapshots(w), "one two three");
	mirror_again(w);
	CHECK_STR(snapshots(w), "one two three");
	CHECK_OK(mirror_layer_delete(w->m, &id));
	CHECK_STR(snapshots(w), "two three");
	mirror_again(w);
	CHECK_STR(snapshots(w), "two three");
}

MIRROR_TEST(2, a_snapshot_that_one_member_cannot_read_is_read_from_another)
{
	uint8_t data[BLOCK];
	struct uuid id = an_id(LAYER), nobody_s = an_id(LAYER + 9);
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, CHUNK, 2);
	w->places[0].answer[LAYER_READ] = OXE_IO;
	CHECK(snapshot_reads_as(w, LAYER, 0, 1));
	CHECK_EQ(w->places[1].calls[LAYER_READ], 1);
	w->places[1].answer[LAYER_READ] = OXE_IO;
	CHECK_ERR(mirror_layer_read(w->m, &id, data, 0, BLOCK), OXE_IO);
	memset(w->places[0].answer, 0, sizeof(w->places[0].answer));
	CHECK_ERR(mirror_layer_read(w->m, &nobody_s, data, 0, BLOCK), OXE_NOENT);
	CHECK_ERR(mirror_layer_read(w->m, &id, data, VOLUME_BYTES, BLOCK), OXE_RANGE);
}

static void snapshot_alone(void *arg)
{
	struct world *w = arg;
	snapshot(w, LAYER, "s");
	w->alone++;
}

static void write_alone(void *arg)
{
	struct world *w = arg;
	writes(w, 0, BLOCK, 2);
	w->alone++;
}

static bool both_alone_are_done(struct world *w)
{
	return w->alone == 2;
}

static bool layer_reads_as(struct world *w, uint32_t index, unsigned layer, int value)
{
	uint8_t data[BLOCK];
	struct vol *vol;
	struct uuid id = an_id(layer);
	CHECK_OK(vol_open(w->places[index].pool, &id, &vol));
	CHECK_OK(vol_read(vol, data, 0, sizeof(data)));
	vol_close(vol);
	return all_are(data, sizeof(data), value);
}

MIRROR_TEST(3, a_snapshot_that_a_lost_copy_has_not_made_is_made_there_before_anything_more_is_written)
{
	w->swap_ns = 20 * NS_PER_MS;
	writes(w, 0, BLOCK, 1);
	w->places[1].answer[SEAL] = OXE_CLOSED;
	fiber_spawn(rt_current(), "snapshot", snapshot_alone, w);
	fiber_sleep(100 * NS_PER_MS);
	fiber_spawn(rt_current(), "write", write_alone, w);
	fiber_sleep(100 * NS_PER_MS);
	w->places[2].away =
		true; /* for good: it is put out, and the view changed before the snapshot is gone on with */
	fiber_sleep(NS_PER_S);
	w->places[1].answer[SEAL] = 0;
	w->places[1].away = false;
	waits_for(w, both_alone_are_done);
	CHECK(layer_reads_as(w, 0, LAYER, 1));
	CHECK(layer_reads_as(w, 1, LAYER, 1));
	CHECK(reads_as(w, 0, BLOCK, 2));
}

static void write_refused(void *arg)
{
	struct world *w = arg;
	uint8_t data[BLOCK];
	memset(data, 2, sizeof(data));
	CHECK_ERR(mirror_write(w->m, data, 0, sizeof(data), 0), OXE_NOSPC);
	w->alone++;
}

MIRROR_TEST(2, a_snapshot_waits_until_what_a_full_pool_refused_is_settled)
{
	writes(w, 0, BLOCK, 1);
	w->places[1].answer[WRITE] = OXE_NOSPC;
	fiber_spawn_big(rt_current(), "write", write_refused, w);
	fiber_yield();
	snapshot(w, LAYER, "s");
	CHECK_EQ(w->alone, 1);
	CHECK(layer_reads_as(w, 0, LAYER, 1) && layer_reads_as(w, 1, LAYER, 1));
}

MIRROR_TEST(2, what_changed_since_a_snapshot_is_told_of_the_volume_and_of_a_later_one)
{
	struct vol_extent extents[4];
	struct uuid first = an_id(LAYER), second = an_id(LAYER + 1);
	size_t count = 0;
	snapshot(w, LAYER, "one");
	writes(w, CHUNK, CHUNK, 1);
	snapshot(w, LAYER + 1, "two");
	CHECK_OK(mirror_extents(w->m, NULL, &second, 0, 4 * CHUNK, extents, 4, &count));
	CHECK_EQ(count, 3);
	for (size_t i = 0; i < count; i++)
		CHECK(!(extents[i].flags & VOL_EXTENT_CHANGED));
	CHECK_OK(mirror_extents(w->m, &second, &first, 0, 4 * CHUNK, extents, 4, &count));
	CHECK_EQ(count, 3);
	CHECK_EQ(extents[1].offset_bytes, CHUNK);
	CHECK_EQ(extents[1].len_bytes, CHUNK);
	CHECK(extents[1].flags & VOL_EXTENT_CHANGED);
	CHECK_ERR(mirror_extents(w->m, NULL, NULL, VOLUME_BYTES, BLOCK, extents, 4, &count), OXE_RANGE);
}

MIRROR_TEST(3, a_snapshot_is_renamed_on_every_member_and_on_one_that_was_away_when_it_is_filled)
{
	struct uuid one = an_id(LAYER), two = an_id(LAYER + 1);
	struct snapshot_info info;
	snapshot(w, LAYER, "one");
	snapshot(w, LAYER + 1, "two");
	CHECK_ERR(mirror_layer_rename(w->m, &one, "two"), OXE_EXISTS);
	CHECK_ERR(mirror_layer_rename(w->m, &one, "~two"), OXE_INVAL);
	CHECK_ERR(mirror_layer_rename(w->m, &(struct uuid){{1}}, "x"), OXE_NOENT);
	goes_away(w, 1);
	CHECK_OK(mirror_layer_rename(w->m, &one, "three"));
	CHECK_OK(mirror_layer_rename(w->m, &two, "one"));
	CHECK_OK(mirror_layer_rename(w->m, &one, "two"));
	CHECK_OK(mirror_layer_rename(w->m, &one, "two"));
	CHECK_STR(snapshots(w), "two one");
	comes_back(w, 1);
	for (uint32_t i = 0; i < PLACES; i++) {
		CHECK_OK(snapshot_get(w->places[i].pool, &one, &info));
		CHECK_STR(info.name, "two");
		CHECK_OK(snapshot_get(w->places[i].pool, &two, &info));
		CHECK_STR(info.name, "one");
	}
}

MIRROR_TEST(2, a_name_that_only_one_copy_has_when_an_engine_starts_is_made_the_name_in_all)
{
	struct uuid one = an_id(LAYER);
	struct snapshot_info info[2];
	snapshot(w, LAYER, "one");
	mirror_close(w->m);
	CHECK_OK(snapshot_rename(w->places[1].pool, &one, "uno"));
	mirror_up(w);
	serves(w);
	for (uint32_t i = 0; i < 2; i++)
		CHECK_OK(snapshot_get(w->places[i].pool, &one, &info[i]));
	CHECK_STR(info[0].name, info[1].name);
	CHECK_STR(snapshots(w), info[0].name);
}

/* ---- going back ------------------------------------------------------------------------------------------------------------- */

static int goes_back(struct world *w, unsigned layer, unsigned head)
{
	struct uuid layer_id = an_id(layer), head_id = an_id(head);
	return mirror_revert(w->m, &layer_id, &head_id, NULL);
}

MIRROR_TEST(3, a_volume_that_goes_back_has_the_content_and_size_of_its_youngest_snapshot)
{
	struct mirror_status status;
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, 2 * CHUNK, 2);
	CHECK_OK(mirror_grow(w->m, 2 * VOLUME_BYTES));
	writes(w, VOLUME_BYTES, CHUNK, 3);
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 1));
	CHECK(reads_as(w, CHUNK, CHUNK, 0));
	mirror_status(w->m, &status);
	CHECK_EQ(status.size_bytes, VOLUME_BYTES);
	CHECK_OK(mirror_grow(w->m, 2 * VOLUME_BYTES));
	CHECK(reads_as(w, VOLUME_BYTES, CHUNK, 0));
	for (uint32_t i = 0; i < PLACES; i++)
		CHECK(copy_reads_as(w, i, 0, 1) && copy_reads_as(w, i, CHUNK, 0));
}

MIRROR_TEST(2, going_back_asked_for_again_changes_nothing_whatever_was_written_and_started_since)
{
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, CHUNK, 2);
	CHECK_OK(goes_back(w, LAYER, HEAD));
	writes(w, 0, CHUNK, 3);
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 3));
	goes_away(w, 1);
	comes_back(w, 1);
	mirror_again(w);
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 3));
	CHECK_OK(goes_back(w, LAYER, HEAD + 1));
	CHECK(reads_as(w, 0, CHUNK, 1));
}

MIRROR_TEST(2, a_snapshot_that_has_younger_ones_is_gone_back_to_when_they_are_deleted)
{
	struct uuid younger = an_id(LAYER + 1);
	snapshot(w, LAYER, "one");
	writes(w, 0, CHUNK, 2);
	snapshot(w, LAYER + 1, "two");
	CHECK_ERR(goes_back(w, LAYER, HEAD), OXE_BUSY);
	CHECK_ERR(goes_back(w, LAYER + 5, HEAD), OXE_NOENT);
	CHECK_OK(mirror_layer_delete(w->m, &younger));
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 0));
}

static bool view_goes_back(struct world *w)
{
	return view_is_reverting(&w->view);
}

static void revert_alone(void *arg)
{
	CHECK_ERR(goes_back(arg, LAYER, HEAD), OXE_SHUTDOWN);
}

MIRROR_TEST(2, a_revert_that_one_member_has_made_and_the_other_has_not_is_made_by_the_next_start)
{
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, CHUNK, 2);
	w->places[1].answer[REVERT] = OXE_BUSY;
	fiber_spawn(rt_current(), "revert", revert_alone, w);
	waits_for(w, view_goes_back);
	fiber_sleep(100 * NS_PER_MS); /* virtual: the other has made it */
	CHECK(copy_reads_as(w, 0, 0, 1) && copy_reads_as(w, 1, 0, 2));
	mirror_close(w->m);
	w->places[1].answer[REVERT] = 0;
	mirror_up(w);
	serves(w);
	CHECK(!view_is_reverting(&w->view));
	CHECK(copy_reads_as(w, 0, 0, 1) && copy_reads_as(w, 1, 0, 1));
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 1));
}

MIRROR_TEST(3, a_member_that_is_lost_while_the_volume_goes_back_is_compared_whole_when_it_returns)
{
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, CHUNK, 2);
	writes(w, 2 * MiB, CHUNK, 2);
	fiber_sleep(20 * NS_PER_S); /* virtual: no intent says where to look */
	w->places[2].answer[REVERT] = OXE_CLOSED;
	CHECK_OK(goes_back(w, LAYER, HEAD));
	w->places[2].answer[REVERT] = 0;
	comes_back(w, 2);
	CHECK(copy_reads_as(w, 2, 0, 1));
	CHECK(copy_reads_as(w, 2, 2 * MiB, 0));
}

MIRROR_TEST(3, a_copy_that_was_away_before_the_volume_went_back_is_compared_whole_when_it_returns)
{
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 2 * MiB, CHUNK, 2);
	goes_away(w, 2);
	CHECK_OK(goes_back(w, LAYER, HEAD));
	writes(w, 3 * MiB, CHUNK, 4);
	comes_back(w, 2);
	CHECK(copy_reads_as(w, 2, 0, 1));
	CHECK(copy_reads_as(w, 2, 2 * MiB, 0));
	CHECK(copy_reads_as(w, 2, 3 * MiB, 4));
}

MIRROR_TEST(2, a_revert_that_no_copy_will_make_is_taken_back_and_the_asker_told)
{
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "s");
	writes(w, 0, CHUNK, 2);
	w->places[0].answer[REVERT] = w->places[1].answer[REVERT] = OXE_NOSPC;
	CHECK_ERR(goes_back(w, LAYER, HEAD), OXE_NOSPC);
	CHECK(reads_as(w, 0, CHUNK, 2));
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 2);
	w->places[0].answer[REVERT] = w->places[1].answer[REVERT] = 0;
	CHECK_OK(goes_back(w, LAYER, HEAD));
	CHECK(reads_as(w, 0, CHUNK, 1));
}

/* ---- members compared ------------------------------------------------------------------------------------------------------- */

static struct mirror_scrub_status scrubbed;

static bool scrub_is_over(struct world *w)
{
	mirror_scrub_status(w->m, &scrubbed);
	return !scrubbed.is_running;
}

static void scrubs(struct world *w)
{
	mirror_scrub_start(w->m, 0);
	waits_for(w, scrub_is_over);
	waits_for(w, all_are_members);
}

/* Behind the mirror's back. */
static void copy_changes(struct world *w, uint32_t index, uint64_t offset_bytes, int value)
{
	uint8_t data[BLOCK];
	struct vol *vol;
	struct uuid id = an_id(VOLUME_ID);
	memset(data, value, sizeof(data));
	CHECK_OK(vol_open(w->places[index].pool, &id, &vol));
	CHECK_OK(vol_write(vol, data, offset_bytes, sizeof(data), 0));
	vol_close(vol);
}

/* One bit, wherever on the disk a block of this value lies. */
static void disk_rots(struct world *w, uint32_t index, int value)
{
	uint8_t wanted[BLOCK], found[BLOCK];
	char path[20];
	uint32_t flipped = 0;
	disk_path(index, path);
	struct sim_disk *disk = sim_disk_find(w->node, path);
	memset(wanted, value, sizeof(wanted));
	for (uint64_t at = 0; at < DISK_BYTES; at += BLOCK) {
		sim_disk_peek(disk, found, BLOCK, at);
		if (memcmp(found, wanted, BLOCK) != 0)
			continue;
		sim_disk_flip_bit(disk, at + 100, 3);
		flipped++;
	}
	CHECK(flipped > 0);
}

static bool copy_snapshot_reads_as(struct world *w, uint32_t index, unsigned layer, uint64_t offset_bytes,
				   int value)
{
	uint8_t data[BLOCK];
	struct vol *vol;
	struct uuid id = an_id(layer);
	CHECK_OK(vol_open(w->places[index].pool, &id, &vol));
	CHECK_OK(vol_read(vol, data, offset_bytes, sizeof(data)));
	vol_close(vol);
	return all_are(data, sizeof(data), value);
}

MIRROR_TEST(3, of_three_members_the_one_that_differs_is_repaired_from_the_others)
{
	writes(w, 0, 4 * CHUNK, 1);
	copy_changes(w, 1, CHUNK, 9);
	copy_changes(w, 1, CHUNK + BLOCK, 9);
	copy_changes(w, 2, 3 * MiB, 9);
	scrubs(w);
	CHECK_EQ(scrubbed.finding_count, 2);
	CHECK_EQ(scrubbed.findings[0].offset_bytes, CHUNK);
	CHECK_EQ(scrubbed.findings[0].len_bytes, 2 * BLOCK);
	CHECK_EQ(scrubbed.findings[0].pool_count, 1);
	CHECK(uuid_equal(&scrubbed.findings[0].pool_ids[0], &w->places[1].pool_id));
	CHECK(scrubbed.findings[0].is_repaired && scrubbed.findings[1].is_repaired);
	CHECK(copy_reads_as(w, 1, CHUNK, 1) && copy_reads_as(w, 1, CHUNK + BLOCK, 1));
	CHECK(copy_reads_as(w, 2, 3 * MiB, 0));
	scrubs(w);
	CHECK_EQ(scrubbed.differed_bytes, 0);
	CHECK_EQ(scrubbed.runs_done, 2);
}

MIRROR_TEST(2, of_two_members_that_differ_nobody_knows_who_is_right_and_both_are_left_and_named)
{
	writes(w, 0, CHUNK, 1);
	copy_changes(w, 1, 2 * BLOCK, 9);
	scrubs(w);
	CHECK_EQ(scrubbed.finding_count, 1);
	CHECK_EQ(scrubbed.findings[0].offset_bytes, 2 * BLOCK);
	CHECK_EQ(scrubbed.findings[0].pool_count, 2);
	CHECK(!scrubbed.findings[0].is_repaired);
	CHECK_EQ(scrubbed.repaired_bytes, 0);
	CHECK(copy_reads_as(w, 0, 2 * BLOCK, 1) && copy_reads_as(w, 1, 2 * BLOCK, 9));
}

MIRROR_TEST(3, when_three_members_say_three_things_all_are_left)
{
	writes(w, 0, CHUNK, 1);
	copy_changes(w, 1, 0, 8);
	copy_changes(w, 2, 0, 9);
	scrubs(w);
	CHECK_EQ(scrubbed.findings[0].pool_count, 3);
	CHECK(!scrubbed.findings[0].is_repaired);
	CHECK(copy_reads_as(w, 0, 0, 1) && copy_reads_as(w, 1, 0, 8) && copy_reads_as(w, 2, 0, 9));
}

MIRROR_TEST(2, what_one_of_two_members_cannot_read_is_written_again_from_the_other)
{
	writes(w, 0, CHUNK, 1);
	w->places[1].answer[SUMS] = OXE_IO;
	uint64_t before = w->places[1].calls[WRITE];
	scrubs(w);
	CHECK(scrubbed.finding_count > 0 && scrubbed.findings[0].is_repaired);
	CHECK(scrubbed.findings[0].is_unreadable);
	CHECK(uuid_equal(&scrubbed.findings[0].pool_ids[0], &w->places[1].pool_id));
	CHECK(w->places[1].calls[WRITE] > before);
	w->places[1].answer[SUMS] = 0;
	CHECK(copy_reads_as(w, 1, 0, 1));
}

MIRROR_TEST(3, a_bit_that_rots_in_a_snapshot_of_one_of_three_has_that_copy_filled_anew_from_there)
{
	struct uuid two = an_id(LAYER + 1);
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "one");
	writes(w, CHUNK, CHUNK, 0xa7);
	snapshot(w, LAYER + 1, "two");
	writes(w, CHUNK, CHUNK, 3);
	snapshot(w, LAYER + 2, "three");
	disk_rots(w, 2, 0xa7);
	CHECK(!copy_snapshot_reads_as(w, 2, LAYER + 1, CHUNK, 0xa7));
	scrubs(w);
	CHECK_EQ(scrubbed.finding_count, 1);
	CHECK(uuid_equal(&scrubbed.findings[0].layer_id, &two));
	waits_for(w, all_are_members);
	CHECK(copy_snapshot_reads_as(w, 2, LAYER, 0, 1));
	CHECK(copy_snapshot_reads_as(w, 2, LAYER + 1, CHUNK, 0xa7));
	CHECK(copy_snapshot_reads_as(w, 2, LAYER + 2, CHUNK, 3));
	CHECK(copy_reads_as(w, 2, CHUNK, 3) && copy_reads_as(w, 2, 0, 1));
	scrubs(w);
	CHECK_EQ(scrubbed.differed_bytes, 0);
}

MIRROR_TEST(2, a_bit_that_rots_in_a_snapshot_of_one_of_two_is_reported_and_left)
{
	writes(w, CHUNK, CHUNK, 0xa7);
	snapshot(w, LAYER, "one");
	writes(w, CHUNK, CHUNK, 3);
	disk_rots(w, 1, 0xa7);
	scrubs(w);
	CHECK_EQ(scrubbed.finding_count, 1);
	CHECK_EQ(scrubbed.findings[0].pool_count, 2);
	CHECK_EQ(view_count(&w->view, VIEW_MEMBER), 2);
	CHECK(copy_snapshot_reads_as(w, 0, LAYER, CHUNK, 0xa7));
	CHECK(!copy_snapshot_reads_as(w, 1, LAYER, CHUNK, 0xa7));
}

static bool writers_stop;
static uint64_t writes_done;

static void writer(void *arg)
{
	uint8_t *data = aligned_alloc(BLOCK, BLOCK);
	struct world *w = arg;
	for (unsigned i = 0; !writers_stop; i++, writes_done++) {
		memset(data, (int)i, BLOCK);
		CHECK_OK(mirror_write(w->m, data, i % 61 * BLOCK, BLOCK, 0));
	}
	free(data);
}

static void writers_begin(struct world *w)
{
	writers_stop = false;
	writes_done = 0;
	for (int i = 0; i < 4; i++)
		fiber_spawn(rt_current(), "writer", writer, w);
}

MIRROR_TEST(2, what_is_written_while_members_are_compared_is_not_taken_for_different)
{
	writers_begin(w);
	for (int i = 0; i < 20; i++) {
		scrubs(w);
		CHECK_EQ(scrubbed.differed_bytes, 0);
	}
	writers_stop = true;
	CHECK(writes_done > 100);
}

MIRROR_TEST(2, comparing_keeps_to_its_limit_and_ends_when_it_is_told_to)
{
	uint64_t begin_ns = rt_now_ns(rt_current());
	mirror_scrub_start(w->m, MiB);
	waits_for(w, scrub_is_over);
	CHECK(rt_now_ns(rt_current()) - begin_ns >= (VOLUME_BYTES / MiB) * NS_PER_S);
	mirror_scrub_start(w->m, MiB);
	mirror_scrub_stop(w->m);
	waits_for(w, scrub_is_over);
	CHECK_EQ(scrubbed.runs_done, 1);
	mirror_scrub_start(w->m, KiB); /* it would go on when the mirror is closed */
	fiber_sleep(NS_PER_S);
}

/* ---- filling ---------------------------------------------------------------------------------------------------------------- */

static uint64_t added_within_ns(struct world *w)
{
	uint64_t begin_ns = rt_now_ns(rt_current());
	CHECK_OK(mirror_copy_add(w->m, &w->places[2].pool_id));
	waits_for(w, all_are_members);
	return rt_now_ns(rt_current()) - begin_ns;
}

MIRROR_TEST(2, a_new_copy_is_filled_without_comparing_what_it_cannot_have)
{
	struct mirror_status status;
	writes(w, 0, 2 * MiB, 1);
	snapshot(w, LAYER, "s");
	writes(w, MiB, CHUNK, 2);
	(void)added_within_ns(w);
	CHECK_EQ(w->places[0].calls[SUMS] + w->places[1].calls[SUMS] + w->places[2].calls[SUMS], 0);
	mirror_status(w->m, &status);
	CHECK_EQ(status.copies[2].compared_bytes, 0);
	CHECK_EQ(status.copies[2].filled_bytes, 2 * MiB + CHUNK);
	CHECK_EQ(status.copies[2].fill_done_bytes, 2 * VOLUME_BYTES);
	CHECK_EQ(status.copies[2].fill_todo_bytes, 2 * VOLUME_BYTES);
	CHECK(copy_snapshot_reads_as(w, 2, LAYER, MiB, 1) && copy_reads_as(w, 2, MiB, 2));
}

MIRROR_TEST(2, what_one_member_cannot_read_a_new_copy_gets_from_another)
{
	writes(w, 0, CHUNK, 1);
	w->places[0].answer[LAYER_READ] = OXE_IO;
	(void)added_within_ns(w);
	CHECK(copy_reads_as(w, 2, 0, 1));
}

MIRROR_TEST(3, a_copy_that_lost_a_snapshot_while_it_was_away_gets_it_back)
{
	struct uuid id = an_id(LAYER);
	writes(w, 0, CHUNK, 1);
	snapshot(w, LAYER, "one");
	writes(w, 0, CHUNK, 2);
	snapshot(w, LAYER + 1, "two");
	goes_away(w, 2);
	writes(w, 2 * MiB, CHUNK, 3);
	CHECK_OK(snapshot_delete(w->places[2].pool, &id));
	comes_back(w, 2);
	CHECK(copy_snapshot_reads_as(w, 2, LAYER, 0, 1));
	CHECK(copy_snapshot_reads_as(w, 2, LAYER + 1, 0, 2));
	CHECK(copy_reads_as(w, 2, 2 * MiB, 3) && copy_reads_as(w, 2, 0, 2));
}

/* How long it takes while others write all the time. */
static uint64_t added_under_load_ns(struct world *w, uint32_t share)
{
	mirror_close(w->m);
	w->background_share = share;
	mirror_up(w);
	serves(w);
	writes(w, 0, 4 * MiB, 1);
	writers_begin(w);
	uint64_t ns = added_within_ns(w);
	writers_stop = true;
	return ns;
}

static uint64_t under_load_ns[2];

MIRROR_TEST(2, filling_at_once_while_clients_write)
{
	under_load_ns[0] = added_under_load_ns(w, 100);
}

MIRROR_TEST(2, filling_rests_while_clients_write_so_that_it_has_no_more_than_its_share)
{
	under_load_ns[1] = added_under_load_ns(w, 10);
	CHECK(under_load_ns[1] > 3 * under_load_ns[0]);
	mirror_close(w->m);
	w->background_share = 0;
	mirror_up(w);
}

/* ---- layers that no user named ---------------------------------------------------------------------------------------------- */

static bool system_layer_count(void *ctx, const struct layer_info *layer)
{
	*(uint32_t *)ctx += pool_name_is_system(layer->name);
	return true;
}

static uint32_t system_layers(struct world *w, uint32_t index)
{
	uint32_t count = 0;
	struct uuid id = an_id(VOLUME_ID);
	CHECK_OK(volume_chain(w->places[index].pool, &id, system_layer_count, &count));
	return count;
}

static bool none_is_left(struct world *w)
{
	return system_layers(w, 0) == 0 && system_layers(w, 1) == 0;
}

MIRROR_TEST(3, layers_are_kept_for_a_copy_that_is_away_and_merged_when_it_is_back)
{
	struct mirror_status status;
	writes(w, 0, 2 * MiB, 1);
	fiber_sleep(20 * NS_PER_S); /* virtual: until nothing is at risk any more */
	goes_away(w, 2);
	writes(w, 0, CHUNK, 2);
	fiber_sleep(60 * NS_PER_S);
	CHECK_EQ(system_layers(w, 0), 1);
	comes_back(w, 2);
	mirror_status(w->m, &status);
	CHECK(status.copies[2].compared_bytes + status.copies[2].filled_bytes <= MiB);
	waits_for(w, none_is_left);
	CHECK_EQ(system_layers(w, 2), 0);
	CHECK(copy_reads_as(w, 2, 0, 2) && copy_reads_as(w, 2, MiB, 1));
}

static void mirror_with_limits(struct world *w, uint64_t max_ns, uint64_t max_bytes)
{
	mirror_close(w->m);
	w->absent_max_ns = max_ns;
	w->absent_max_bytes = max_bytes;
	mirror_up(w);
	serves(w);
}

/* Somebody wrote to it meanwhile, whom the mirror knows nothing of: only who looks everywhere sees it. */
static void returns_and_is_compared_whole(struct world *w)
{
	CHECK(uuid_is_nil(&w->view.replicas[2].seal_id));
	copy_changes(w, 2, 3 * MiB, 9);
	comes_back(w, 2);
	CHECK(copy_reads_as(w, 2, 0, 2) && copy_reads_as(w, 2, MiB, 1) && copy_reads_as(w, 2, 3 * MiB, 0));
}

MIRROR_TEST(3, layers_are_let_go_of_when_a_copy_has_been_away_for_too_long_and_it_is_compared_whole)
{
	mirror_with_limits(w, 10 * NS_PER_S, 0);
	writes(w, 0, 2 * MiB, 1);
	goes_away(w, 2);
	writes(w, 0, CHUNK, 2);
	CHECK_EQ(system_layers(w, 0), 1);
	waits_for(w, none_is_left);
	returns_and_is_compared_whole(w);
}

MIRROR_TEST(3, layers_are_let_go_of_when_too_much_was_written_since_a_copy_left_and_it_is_compared_whole)
{
	mirror_with_limits(w, 0, MiB);
	writes(w, 0, 2 * MiB, 1);
	goes_away(w, 2);
	writes(w, 0, CHUNK, 2);
	fiber_sleep(20 * NS_PER_S);
	CHECK_EQ(system_layers(w, 0), 1);
	writes(w, 0, MiB, 2);
	waits_for(w, none_is_left);
	returns_and_is_compared_whole(w);
}

/* ---- what a request costs --------------------------------------------------------------------------------------------------- */

static void reader(void *arg)
{
	uint8_t data[BLOCK];
	struct world *w = arg;
	CHECK_OK(mirror_read(w->m, data, 0, BLOCK));
	w->alone++;
}

static void reads_at_once(struct world *w, unsigned count)
{
	unsigned before = w->alone;
	for (uint32_t i = 0; i < PLACES; i++)
		w->places[i].calls[READ] = 0;
	for (unsigned i = 0; i < count; i++)
		fiber_spawn(rt_current(), "reader", reader, w);
	while (w->alone < before + count)
		fiber_sleep(NS_PER_MS);
}

MIRROR_TEST(3, reads_at_once_are_shared_by_members_that_are_equally_near)
{
	writes(w, 0, BLOCK, 1);
	reads_at_once(w, 30);
	for (uint32_t i = 0; i < PLACES; i++)
		CHECK_EQ(w->places[i].calls[READ], 10);
}

MIRROR_TEST(3, a_member_on_this_node_is_read_before_all_others)
{
	writes(w, 0, BLOCK, 1);
	all_are_far = true;
	mirror_again(w);
	all_are_far = false;
	reads_at_once(w, 30);
	CHECK(w->places[1].calls[READ] >= 30);
	CHECK_EQ(w->places[0].calls[READ] + w->places[2].calls[READ], 0);
}

/* Regions noted once: an overwrite of what was written lately is one call and one device write a copy, as if nothing were noted. */
MIRROR_TEST(2, an_overwrite_of_what_is_warm_costs_each_copy_one_device_write_and_nothing_else)
{
	char path[20];
	uint64_t writes_before[2], calls_before[2][VERBS], count = 200;
	writes(w, 0, MiB, 1);
	CHECK_OK(mirror_flush(w->m));
	for (uint32_t i = 0; i < 2; i++) {
		disk_path(i, path);
		CHECK_OK(pool_checkpoint(w->places[i].pool));
		writes_before[i] = sim_disk_counts(sim_disk_find(w->node, path))->writes;
		memcpy(calls_before[i], w->places[i].calls, sizeof(calls_before[i]));
	}
	for (uint64_t i = 0; i < count; i++)
		writes(w, i * BLOCK % MiB, BLOCK, 2);
	for (uint32_t i = 0; i < 2; i++) {
		disk_path(i, path);
		uint64_t made = sim_disk_counts(sim_disk_find(w->node, path))->writes - writes_before[i];
		CHECK(made >= count && made <= count + 1); /* the pool's own, after its checkpoint */
		CHECK_EQ(w->places[i].calls[WRITE] - calls_before[i][WRITE], count);
		CHECK_EQ(w->places[i].calls[INTENTS], calls_before[i][INTENTS]);
		CHECK_EQ(w->places[i].calls[FLUSH], calls_before[i][FLUSH]);
	}
}
