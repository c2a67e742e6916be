/* listener_test.c: who comes in, who does not, and the end, on virtual time. A connection here lives until the test ends it. */
#include "data/frontend/listener.h"

#include "base/log.h"
#include "base/test.h"
#include "data/engine/engine_testrt.h"

#define ADDRESS "unix:test"
#define LIMIT	3

static struct {
	struct rt *rt;
	struct listeners set;
	struct rt_conn *conns[LIMIT];
	unsigned count, full_lines;
	void (*body)(void);
} t;

static void keep(struct listener *l, struct rt_conn *conn)
{
	CHECK(l->set->server == &t);
	CHECK(t.count < LIMIT);
	t.conns[t.count++] = conn;
}

static void end_one(void)
{
	rt_conn_close(t.conns[--t.count]);
	listeners_left(&t.set);
}

static void count_lines(void *ctx, const struct log_event *event)
{
	(void)ctx;
	t.full_lines += strcmp(event->event, "test.full") == 0;
}

static void body_fiber(void *arg)
{
	static const struct listener_ops ops = {"test-listen", "test.full", keep};
	const struct listener *l;
	(void)arg;
	listeners_init(&t.set, t.rt, &ops, &t, LIMIT);
	CHECK_OK(listeners_listen(&t.set, ADDRESS, &l));
	CHECK(l->is_unix && l->id == 1);
	CHECK_STR(l->address, ADDRESS);
	t.body();
	listeners_close(&t.set);
	while (t.count > 0)
		end_one();
	listeners_fini(&t.set);
}

#define WITH_LISTENER(test_name)                                                                             \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		t.rt = testrt_new(1, false);                                                                 \
		t.count = t.full_lines = 0;                                                                  \
		t.body = test_name##_body;                                                                   \
		log_sink_set(count_lines, NULL, LOG_LEVEL_WARN);                                             \
		fiber_spawn(t.rt, "test", body_fiber, NULL);                                                 \
		testrt_run(t.rt);                                                                            \
		log_sink_set(NULL, NULL, LOG_LEVEL_WARN);                                                    \
		CHECK_EQ(testrt_conns(), 0);                                                                 \
		testrt_free(t.rt);                                                                           \
	}                                                                                                    \
	static void test_name##_body(void)

/* Knock, see what becomes of it, and leave. */
static void knock(void)
{
	struct rt_conn *conn;
	CHECK_OK(rt_connect(t.rt, ADDRESS, UINT64_MAX, &conn));
	fiber_sleep(NS_PER_S);
	rt_conn_close(conn);
}

WITH_LISTENER(the_limit_is_logged_once_each_time_it_is_reached)
{
	for (int i = 0; i < LIMIT + 5; i++)
		knock();
	CHECK_EQ(t.set.connections, LIMIT);
	CHECK_EQ(t.set.accepted, LIMIT + 5);
	CHECK_EQ(t.set.refused, 5);
	CHECK_EQ(t.full_lines, 1);
	end_one();
	knock();
	knock();
	CHECK_EQ(t.set.refused, 6);
	CHECK_EQ(t.full_lines, 2);
}

WITH_LISTENER(out_of_descriptors_it_waits_and_asks_again)
{
	testrt_exhaust(t.rt, 3);
	knock();
	knock();
	CHECK_EQ(t.count, 2);
}

/* Its struct may be gone by the time the pause is over. */
WITH_LISTENER(a_listener_closed_while_out_of_descriptors_is_not_asked_again)
{
	knock();
	testrt_exhaust(t.rt, 1000);
	knock();
}

WITH_LISTENER(a_listener_replaced_while_out_of_descriptors_is_not_asked_again)
{
	const struct listener *l;
	testrt_exhaust(t.rt, 1000);
	knock();
	CHECK_OK(listeners_listen(&t.set, ADDRESS, &l));
	testrt_exhaust(t.rt, 0);
	knock();
	CHECK_EQ(l->id, 2);
	CHECK_EQ(t.count, 1); /* who knocked at the old one was never let in */
}
