/* way_test.c: a way to a copy leads where the copy is now, and lets go of where it was. */
#include "base/test.h"
#include "control/node/way.h"
#include "sim/sim.h"

#include <stdio.h>

static const struct uuid pool_id = {{1}}, volume_id = {{2}}, engine_id = {{3}};

/* A copy somewhere else: answers after a while, and counts. */
struct far {
	struct replica base;
	char address[WAY_ADDRESS_SIZE];
};

static struct {
	struct ways ways;
	struct way_place place;
	uint32_t made, left, calls;
	int answer;
	char name[POOL_NAME_MAX + 1];
	bool done;
} w;

static int far_call(void)
{
	w.calls++;
	fiber_sleep(10 * NS_PER_MS);
	return w.answer;
}

static int far_open(struct replica *r, uint64_t epoch, const struct uuid *engine, struct replica_state *out)
{
	(void)r, (void)epoch, (void)engine, (void)out;
	return far_call();
}

static int far_ping(struct replica *r)
{
	(void)r;
	return far_call();
}

static int far_create(struct replica *r, const struct volume_spec *spec)
{
	(void)r;
	snprintf(w.name, sizeof(w.name), "%s", spec->name);
	return far_call();
}

static void far_close(struct replica *r)
{
	struct far *f = container_of(r, struct far, base);
	w.left--;
	free(f);
}

static const struct replica_ops far_ops = {
	.open = far_open, .ping = far_ping, .create = far_create, .close = far_close};

static struct replica *far_new(void *ctx, const char *address, const struct uuid *pool,
			       const struct uuid *volume)
{
	struct far *f = mem_zalloc(sizeof(*f));
	(void)ctx;
	f->base = (struct replica){.ops = &far_ops, .pool_id = *pool, .volume_id = *volume};
	snprintf(f->address, sizeof(f->address), "%s", address);
	w.made++;
	w.left++;
	return &f->base;
}

static void look(void *ctx, const struct uuid *pool, struct way_place *out)
{
	(void)ctx;
	CHECK(uuid_equal(pool, &pool_id));
	*out = w.place;
}

static int open_it(struct replica *r)
{
	struct replica_state *state = mem_zalloc(sizeof(*state));
	int err = r->ops->open(r, 1, &engine_id, state);
	free(state);
	return err;
}

static void (*story)(struct replica *r);

static void story_main(void *arg)
{
	(void)arg;
	ways_init(&w.ways, rt_current());
	w.ways.look = look;
	w.ways.remote_new = far_new;
	struct replica *r = way_new(&w.ways, &pool_id, &volume_id);
	story(r);
	r->ops->close(r);
	CHECK(w.left == 0 && list_empty(&w.ways.all));
	w.done = true;
}

static void tell(void (*fn)(struct replica *r))
{
	struct sim *sim = sim_new(1);
	memset(&w, 0, sizeof(w));
	story = fn;
	fiber_spawn(sim_node_start(sim_node_new(sim, "node")), "story", story_main, NULL);
	CHECK(sim_run(sim, &w.done, 60 * NS_PER_S) == SIM_DONE);
	sim_free(sim);
}

static void unknown(struct replica *r)
{
	struct way_status s;
	snprintf(w.place.why, sizeof(w.place.why), "no node has it");
	CHECK(open_it(r) == OXE_NOTREADY);
	CHECK(r->ops->ping(r) == OXE_CLOSED);
	way_status(&w.ways, &pool_id, &volume_id, &s);
	CHECK(s.is_there && s.lost_since_wall_ns != 0);
	CHECK_STR(s.why, "no node has it");
	snprintf(w.place.address, sizeof(w.place.address), "tcp:b:1");
	CHECK_OK(open_it(r));
	CHECK_OK(r->ops->ping(r));
	way_status(&w.ways, &pool_id, &volume_id, &s);
	CHECK(s.lost_since_wall_ns == 0);
	CHECK(w.made == 1);
}

TEST(a_copy_that_nobody_knows_cannot_be_asked_and_is_found_when_it_is_opened_again)
{
	tell(unknown);
}

static void moves(struct replica *r)
{
	snprintf(w.place.address, sizeof(w.place.address), "tcp:b:1");
	CHECK_OK(open_it(r));
	CHECK_OK(open_it(r));
	CHECK(w.made == 1);
	snprintf(w.place.address, sizeof(w.place.address), "tcp:c:1");
	CHECK_OK(r->ops->ping(r)); /* a session goes on where it is */
	CHECK(w.made == 1);
	CHECK_OK(open_it(r));
	CHECK(w.made == 2 && w.left == 1);
}

TEST(a_copy_that_moved_is_opened_where_it_is_now_and_let_go_of_where_it_was)
{
	tell(moves);
}

static int under_way_err = -1;

static void ping_main(void *arg)
{
	struct replica *r = arg;
	under_way_err = r->ops->ping(r);
}

static void waits(struct replica *r)
{
	snprintf(w.place.address, sizeof(w.place.address), "tcp:b:1");
	CHECK_OK(open_it(r));
	fiber_spawn(rt_current(), "ping", ping_main, r);
	fiber_yield();
	snprintf(w.place.address, sizeof(w.place.address), "tcp:c:1");
	under_way_err = -1;
	CHECK_OK(open_it(r));
	CHECK(under_way_err == 0); /* before what was behind was closed */
	CHECK(w.made == 2 && w.left == 1);
}

TEST(what_is_under_way_ends_before_a_copy_is_let_go_of)
{
	tell(waits);
}

static void named(struct replica *r)
{
	struct volume_spec spec = {.id = volume_id, .name = "db", .size_bytes = MiB, .lba_bytes = 512};
	char wanted[POOL_NAME_MAX + 1], text[UUID_TEXT_LEN + 1];
	snprintf(w.place.address, sizeof(w.place.address), "tcp:b:1");
	CHECK_OK(open_it(r));
	CHECK_OK(r->ops->create(r, &spec));
	snprintf(wanted, sizeof(wanted), "~copy-%s", uuid_format(&volume_id, text));
	CHECK_STR(w.name, wanted);
	CHECK_OK(pool_system_name_check(w.name));
	w.answer = OXE_INDOUBT;
	struct way_status s;
	CHECK(r->ops->ping(r) == OXE_INDOUBT);
	way_status(&w.ways, &pool_id, &volume_id, &s);
	CHECK(s.lost_since_wall_ns != 0);
}

TEST(a_copy_has_a_systems_name_whatever_the_volume_is_called)
{
	tell(named);
}
