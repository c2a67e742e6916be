/*
 * nvme_host_test.c: the host beside a small target of our own, on one reactor in virtual time, each test under several seeds.
 *
 *     host ---- proxy ---- target           the proxy cuts a connection at any byte, or lets nothing through
 *
 * What arrives is cut into random pieces, and answers come in any order. What the target finds wrong with the host is a failure.
 */
#include "base/prng.h"
#include "base/test.h"
#include "data/engine/engine_testrt.h"
#include "data/replica/nvme_host.h"
#include "data/replica/nvme_target_double.h"

#include <stdio.h>

#define TARGET_ADDRESS "tcp:10.0.0.2:4420"
#define PROXY_ADDRESS  "tcp:10.0.0.9:4420"
#define SUBSYSTEM      "nqn.2026-11.dev.oxbow:volume:test"
#define SEEDS	       4
#define BUFFER_BYTES   (512 * KiB)
#define NEVER	       UINT64_MAX

static struct {
	struct rt *rt;
	struct nvme_target_double target;
	struct nvme_host *host;
	struct nvme_host_options options;
	void (*body)(void);
	uint64_t seed;
	uint8_t *a, *b; /* BUFFER_BYTES each */
} t;

/* ---- a proxy -------------------------------------------------------------------------------------------------------------------- */

struct pair;

struct pump {
	struct pair *pair;
	struct rt_conn *from, *to;
	uint64_t *left_bytes;
};

struct pair {
	struct pump pumps[2];
	uint32_t running;
};

static struct {
	struct rt_listener *listener;
	struct rt_group fibers;
	uint64_t left_bytes[2]; /* until every connection is cut: to the target, to the host */
	uint64_t passed_bytes[2];
	uint32_t cuts;
	bool is_stalled;
	struct waitq stalled;
} proxy;

static void pair_shut(struct pair *p)
{
	rt_conn_shutdown(p->pumps[0].from);
	rt_conn_shutdown(p->pumps[0].to);
}

static bool pump_once(struct pump *p, uint8_t *bytes, size_t size_bytes)
{
	size_t got = 0, way = (size_t)(p - p->pair->pumps);
	if (rt_recv(p->from, bytes, size_bytes, &got) || got == 0)
		return false;
	while (proxy.is_stalled)
		waitq_wait(&proxy.stalled);
	size_t n = u64_min(got, *p->left_bytes);
	*p->left_bytes -= *p->left_bytes == NEVER ? 0 : n;
	proxy.passed_bytes[way] += n;
	if (n > 0 && rt_send(p->to, &(struct rt_iovec){bytes, n}, 1))
		return false;
	if (*p->left_bytes == 0) {
		*p->left_bytes = NEVER;
		proxy.cuts++;
		return false;
	}
	return true;
}

static void pump_run(void *arg)
{
	struct pump *p = arg;
	struct pair *pair = p->pair;
	uint8_t bytes[4096];
	while (pump_once(p, bytes, sizeof(bytes)))
		;
	pair_shut(pair);
	if (--pair->running == 0) {
		rt_conn_close(pair->pumps[0].from);
		rt_conn_close(pair->pumps[0].to);
		free(pair);
	}
	group_done(&proxy.fibers);
}

static void pair_start(struct rt_conn *host, struct rt_conn *target)
{
	struct pair *p = mem_zalloc(sizeof(*p));
	p->running = 2;
	p->pumps[0] = (struct pump){p, host, target, &proxy.left_bytes[0]};
	p->pumps[1] = (struct pump){p, target, host, &proxy.left_bytes[1]};
	group_add(&proxy.fibers, 2);
	fiber_spawn(t.rt, "pump", pump_run, &p->pumps[0]);
	fiber_spawn(t.rt, "pump", pump_run, &p->pumps[1]);
}

static void proxy_run(void *arg)
{
	(void)arg;
	struct rt_conn *host, *target;
	while (rt_accept(proxy.listener, &host) == 0) {
		if (rt_connect(t.rt, TARGET_ADDRESS, NEVER, &target))
			rt_conn_close(host);
		else
			pair_start(host, target);
	}
	group_done(&proxy.fibers);
}

static void proxy_open(uint64_t left_to_target_bytes, uint64_t left_to_host_bytes)
{
	memset(&proxy, 0, sizeof(proxy));
	group_init(&proxy.fibers);
	waitq_init(&proxy.stalled);
	proxy.left_bytes[0] = left_to_target_bytes;
	proxy.left_bytes[1] = left_to_host_bytes;
	CHECK_OK(rt_listen(t.rt, PROXY_ADDRESS, &proxy.listener));
	group_add(&proxy.fibers, 1);
	fiber_spawn(t.rt, "proxy", proxy_run, NULL);
}

static void proxy_close(void)
{
	rt_listener_close(proxy.listener);
	group_wait(&proxy.fibers);
}

static void proxy_stall(bool stalled)
{
	proxy.is_stalled = stalled;
	if (!stalled)
		waitq_wake_all(&proxy.stalled);
}

/* ---- the frame ---------------------------------------------------------------------------------------------------------------------- */

static void body_fiber(void *arg)
{
	(void)arg;
	double_open(&t.target, t.rt, TARGET_ADDRESS);
	t.host = NULL;
	t.body();
	if (t.host)
		nvme_host_close(t.host);
	double_close(&t.target);
}

static void run_one(struct nvme_target_double target, struct nvme_host_options options, uint64_t seed,
		    void (*body)(void))
{
	t.rt = testrt_new(seed, seed > 1);
	t.seed = seed;
	t.target = target;
	t.target.seed = seed;
	t.options = options;
	t.options.address = options.address ? options.address : TARGET_ADDRESS;
	t.options.subsystem_nqn = SUBSYSTEM;
	t.body = body;
	fiber_spawn_big(t.rt, "test", body_fiber, NULL);
	testrt_run(t.rt);
	CHECK_EQ(testrt_conns(), 0);
	testrt_free(t.rt);
}

static void run(struct nvme_target_double target, struct nvme_host_options options, void (*body)(void))
{
	t.a = mem_alloc(BUFFER_BYTES);
	t.b = mem_alloc(BUFFER_BYTES);
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run_one(target, options, seed, body);
	free(t.a);
	free(t.b);
}

#define TARGET(...)  ((struct nvme_target_double){__VA_ARGS__})
#define OPTIONS(...) ((struct nvme_host_options){__VA_ARGS__})

#define WITH(test_name, target, options)                                                                     \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		run(target, options, test_name##_body);                                                      \
	}                                                                                                    \
	static void test_name##_body(void)

static void host_start(void)
{
	CHECK_OK(nvme_host_new(t.rt, &t.options, &t.host));
}

static void host_live(void)
{
	if (!t.host)
		host_start();
	CHECK_OK(nvme_host_wait(t.host, rt_now_ns(t.rt) + 60 * NS_PER_S));
}

static struct nvme_host_status status(void)
{
	struct nvme_host_status s;
	nvme_host_status(t.host, &s);
	return s;
}

static void pattern(uint8_t *data, size_t len_bytes, uint64_t seed)
{
	struct prng rng;
	prng_seed(&rng, seed);
	prng_fill(&rng, data, len_bytes);
}

/* Many at once, and how each ended. */
#define MANY_MAX 1000

static struct many {
	struct nvme_host_io io;
	struct many_set *set;
	uint32_t index;
} many[MANY_MAX];

static struct many_set {
	uint32_t ended, count;
	struct waitq waiters;
	uint32_t order[MANY_MAX];
} set;

static void many_done(struct nvme_host_io *io)
{
	struct many *m = container_of(io, struct many, io);
	set.order[set.ended++] = m->index;
	waitq_wake_all(&set.waiters);
}

static void many_begin(void)
{
	memset(&set, 0, sizeof(set));
	waitq_init(&set.waiters);
}

static struct nvme_host_io *many_submit(enum nvme_host_op op, void *data, uint64_t offset_bytes,
					uint64_t len_bytes)
{
	struct many *m = &many[set.count];
	*m = (struct many){.io = {.op = op,
				  .data = data,
				  .offset_bytes = offset_bytes,
				  .len_bytes = len_bytes,
				  .done = many_done,
				  .result = 1},
			   .index = set.count++};
	uint32_t ended = set.ended;
	nvme_host_submit(t.host, &m->io);
	CHECK_EQ(set.ended, ended); /* never before it returns */
	return &m->io;
}

static void many_wait(void)
{
	while (set.ended < set.count)
		waitq_wait(&set.waiters);
}

static uint32_t many_count(int result)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < set.count; i++)
		n += many[i].io.result == result;
	return n;
}

/* ---- the state -------------------------------------------------------------------------------------------------------------------- */

TEST(every_state_leads_to_live_and_to_deleted)
{
	enum nvme_host_state s = NVME_HOST_DISCONNECTED;
	s = nvme_host_step(s, NVME_HOST_DUE).next;
	CHECK_EQ(s, NVME_HOST_CONNECTING);
	CHECK_EQ(nvme_host_step(s, NVME_HOST_FAILED).next, NVME_HOST_RESETTING);
	s = nvme_host_step(s, NVME_HOST_MADE).next;
	CHECK_EQ(s, NVME_HOST_LIVE);
	CHECK_EQ(nvme_host_step(s, NVME_HOST_LOSS).next, NVME_HOST_RESETTING);
	CHECK_EQ(nvme_host_step(NVME_HOST_RESETTING, NVME_HOST_GONE).next, NVME_HOST_DISCONNECTED);
	const enum nvme_host_state closable[] = {NVME_HOST_DISCONNECTED, NVME_HOST_CONNECTING,
						 NVME_HOST_LIVE};
	for (size_t i = 0; i < ARRAY_COUNT(closable); i++)
		CHECK_EQ(nvme_host_step(closable[i], NVME_HOST_CLOSE).next, NVME_HOST_DELETING);
	CHECK_EQ(nvme_host_step(NVME_HOST_DELETING, NVME_HOST_GONE).action, NVME_HOST_END);
	CHECK_STR(nvme_host_state_name(NVME_HOST_LIVE), "live");
}

/* ---- reading and writing ------------------------------------------------------------------------------------------------------------ */

static void write_and_read(uint64_t offset_bytes, size_t len_bytes, uint64_t seed)
{
	pattern(t.a, len_bytes, seed);
	CHECK_OK(nvme_host_write(t.host, t.a, offset_bytes, len_bytes, seed & 1 ? NVME_HOST_FUA : 0));
	CHECK(memcmp(t.target.bytes + offset_bytes, t.a, len_bytes) == 0);
	memset(t.b, 0, len_bytes);
	CHECK_OK(nvme_host_read(t.host, t.b, offset_bytes, len_bytes));
	CHECK(memcmp(t.a, t.b, len_bytes) == 0);
}

static void written_is_read_back(void)
{
	static const size_t sizes[] = {512, 4096, 8192, 8704, 65536, 128 * KiB, 128 * KiB + 512, 400 * KiB};
	host_live();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		if (sizes[i] % t.target.lba_bytes == 0)
			write_and_read(i * t.target.lba_bytes, sizes[i], i);
}

#define WRITTEN_IS_READ_BACK(name, target, options)                                                          \
	TEST(what_is_written_is_read_back_##name)                                                            \
	{                                                                                                    \
		run(target, options, written_is_read_back);                                                  \
	}

WRITTEN_IS_READ_BACK(plainly, TARGET(0), OPTIONS(0))
WRITTEN_IS_READ_BACK(without_data_in_capsules, TARGET(.capsule_bytes = UINT32_MAX), OPTIONS(0))
WRITTEN_IS_READ_BACK(by_many_small_r2t, TARGET(.r2t_bytes = 4096, .maxh2cdata = 4096),
		     OPTIONS(.no_in_capsule = true))
WRITTEN_IS_READ_BACK(in_small_pdus, TARGET(.data_bytes = 512, .maxh2cdata = 4096), OPTIONS(0))
WRITTEN_IS_READ_BACK(by_responses, TARGET(.no_success_flag = true, .data_bytes = 4096), OPTIONS(0))
WRITTEN_IS_READ_BACK(with_digests, TARGET(.digests = 3, .data_bytes = 2048),
		     OPTIONS(.header_digest = true, .data_digest = true))
WRITTEN_IS_READ_BACK(with_a_header_digest, TARGET(.digests = 1),
		     OPTIONS(.header_digest = true, .data_digest = true))
WRITTEN_IS_READ_BACK(with_padding, TARGET(.cpda = 31, .digests = 3, .r2t_bytes = 8192),
		     OPTIONS(.header_digest = true, .data_digest = true))
WRITTEN_IS_READ_BACK(in_blocks_of_4096, TARGET(.lba_bytes = 4096), OPTIONS(.queues = 2))

WITH(zeroes_trims_flushes_and_compares_arrive, TARGET(0), OPTIONS(0))
{
	host_live();
	write_and_read(0, 64 * KiB, 1);
	CHECK_OK(nvme_host_zero(t.host, 4096, 8192, NVME_HOST_FUA));
	CHECK_OK(nvme_host_trim(t.host, 32 * KiB, 4096));
	CHECK_OK(nvme_host_flush(t.host));
	memset(t.a + 4096, 0, 8192);
	memset(t.a + 32 * KiB, 0, 4096);
	CHECK(memcmp(t.target.bytes, t.a, 64 * KiB) == 0);
	CHECK_OK(nvme_host_compare(t.host, t.a, 0, 64 * KiB));
	t.a[5] ^= 1;
	CHECK_ERR(nvme_host_compare(t.host, t.a, 0, 64 * KiB), OXE_DIFFERS);
	CHECK_OK(nvme_host_compare(t.host, t.a + 512, 512, 4096));
}

WITH(the_namespace_is_known_when_it_is_live,
     TARGET(.lba_bytes = 4096, .size_bytes = 2 * MiB, .uuid = {{7}}, .entries = 33),
     OPTIONS(.queues = 12, .queue_depth = 100))
{
	host_live();
	const struct nvme_host_info *info = nvme_host_info(t.host);
	CHECK_EQ(info->size_bytes, 2 * MiB);
	CHECK_EQ(info->lba_bytes, 4096);
	CHECK_EQ(info->queues, 8);	 /* the target's limit */
	CHECK_EQ(info->queue_depth, 32); /* a ring of 33 holds 32 */
	CHECK_EQ(info->uuid.b[0], 7);
	CHECK(info->volatile_cache && !info->read_only && info->has_compare && info->has_trim &&
	      info->has_zero);
	CHECK_EQ(nvme_host_max_bytes(t.host, NVME_HOST_READ), 128 * KiB);
	CHECK_EQ(t.target.connections, 9);
}

WITH(a_request_that_cannot_be_is_refused_here, TARGET(.lba_bytes = 4096), OPTIONS(0))
{
	host_live();
	uint64_t before = t.target.io_commands;
	CHECK_ERR(nvme_host_read(t.host, t.a, 512, 4096), OXE_ALIGN);
	CHECK_ERR(nvme_host_read(t.host, t.a, 0, 512), OXE_ALIGN);
	CHECK_ERR(nvme_host_read(t.host, t.a, MiB, 4096), OXE_RANGE);
	CHECK_ERR(nvme_host_write(t.host, t.a, UINT64_MAX - 4095, 4096, 0), OXE_RANGE);
	CHECK_ERR(nvme_host_write(t.host, t.a, 0, 0, 0), OXE_INVAL);
	many_begin();
	struct nvme_host_io *io = many_submit(NVME_HOST_READ, t.a, 0, 256 * KiB);
	many_wait();
	CHECK_ERR(io->result, OXE_TOOBIG);
	CHECK_EQ(t.target.io_commands, before);
}

static bool hook_full(struct nvme_target_double *target, struct double_conn *c, const struct nvme_sqe *sqe)
{
	if (c->qid == 0 || sqe->opcode != NVME_IO_WRITE)
		return false;
	double_respond(c, le16_get(sqe->cid), *(uint16_t *)target->hook_arg, 0);
	return true;
}

WITH(what_the_target_answers_is_told, TARGET(.hook = hook_full), OPTIONS(0))
{
	static const struct {
		uint16_t status;
		int err;
	} rows[] = {{NVME_STATUS_CAPACITY_EXCEEDED, OXE_NOSPC},
		    {NVME_STATUS_WRITE_PROTECTED, OXE_ROFS},
		    {NVME_STATUS_WRITE_FAULT, OXE_IO},
		    {NVME_STATUS_RESERVATION_CONFLICT, OXE_PERM},
		    {0x7ff, OXE_IO},
		    {NVME_STATUS_NAMESPACE_NOT_READY, OXE_NOTREADY},
		    {NVME_STATUS_ABORTED_SQ_DELETION, OXE_INDOUBT}};
	uint16_t answer;
	t.target.hook_arg = &answer;
	host_live();
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		answer = rows[i].status;
		CHECK_ERR(nvme_host_write(t.host, t.a, 0, i % 2 ? 4096 : 64 * KiB, 0), rows[i].err);
	}
	CHECK_EQ(status().associations, 1);
}

WITH(many_at_once_end_each_with_its_own_data, TARGET(.pause_max_ns = NS_PER_MS, .size_bytes = 4 * MiB),
     OPTIONS(.queues = 4, .queue_depth = 16))
{
	host_live();
	many_begin();
	pattern(t.a, BUFFER_BYTES, t.seed);
	for (uint32_t i = 0; i < 120; i++)
		many_submit(NVME_HOST_WRITE, t.a + i * 4096, i * 20480, i % 3 ? 4096 : 1536);
	many_wait();
	CHECK_EQ(many_count(0), 120);
	many_begin();
	memset(t.b, 0, BUFFER_BYTES);
	for (uint32_t i = 0; i < 120; i++)
		many_submit(NVME_HOST_READ, t.b + i * 4096, i * 20480, i % 3 ? 4096 : 1536);
	many_wait();
	for (uint32_t i = 0; i < 120; i++)
		CHECK(memcmp(t.a + i * 4096, t.b + i * 4096, i % 3 ? 4096 : 1536) == 0);
	bool in_order = true;
	for (uint32_t i = 1; i < 120; i++)
		in_order &= set.order[i] > set.order[i - 1];
	CHECK(!in_order);
}

WITH(beyond_what_may_wait_a_request_is_refused, TARGET(.pause_max_ns = NS_PER_MS),
     OPTIONS(.queue_depth = 4, .waiting_max = 10))
{
	host_live();
	many_begin();
	for (uint32_t i = 0; i < 20; i++)
		many_submit(NVME_HOST_READ, t.a, 0, 4096);
	CHECK_EQ(status().waiting, 10);
	CHECK_EQ(status().in_flight, 4);
	many_wait();
	CHECK_EQ(many_count(0), 14);
	CHECK_EQ(many_count(OXE_BUSY), 6);
}

WITH(a_namespace_that_grew_is_seen_again_and_again, TARGET(0), OPTIONS(0))
{
	host_live();
	for (uint64_t i = 2; i < 6; i++) {
		fiber_sleep(NS_PER_S);
		double_grow(&t.target, i * MiB);
		fiber_sleep(NS_PER_S);
		CHECK_EQ(nvme_host_info(t.host)->size_bytes, i * MiB);
		write_and_read(i * MiB - 4096, 4096, i);
	}
}

/* ---- losing it ------------------------------------------------------------------------------------------------------------------------ */

static bool hook_swallow(struct nvme_target_double *target, struct double_conn *c, const struct nvme_sqe *sqe)
{
	(void)target, (void)sqe;
	return c->qid > 0 && sqe->opcode != NVME_FABRICS;
}

WITH(what_was_sent_is_in_doubt_and_what_was_not_is_not_done, TARGET(.hook = hook_swallow),
     OPTIONS(.queues = 2, .queue_depth = 8))
{
	host_live();
	many_begin();
	for (uint32_t i = 0; i < 40; i++)
		many_submit(i % 2 ? NVME_HOST_WRITE : NVME_HOST_READ, t.a, i * 4096, 4096);
	fiber_sleep(NS_PER_S);
	CHECK_EQ(set.ended, 0);
	double_cut(&t.target);
	many_wait();
	CHECK_EQ(many_count(OXE_INDOUBT), 16);
	CHECK_EQ(many_count(OXE_CLOSED), 24);
	CHECK_EQ(status().in_doubt, 16);
	CHECK_ERR(nvme_host_read(t.host, t.b, 0, 4096), OXE_CLOSED);
	t.target.hook = NULL;
	host_live();
	write_and_read(0, 64 * KiB, 3);
	CHECK_EQ(status().associations, 2);
}

WITH(what_was_in_flight_is_replayed_and_nobody_hears_of_it, TARGET(.hook = hook_swallow),
     OPTIONS(.queues = 2, .queue_depth = 8, .lost = NVME_HOST_REPLAY))
{
	host_live();
	many_begin();
	pattern(t.a, BUFFER_BYTES, t.seed);
	for (uint32_t i = 0; i < 40; i++)
		many_submit(NVME_HOST_WRITE, t.a + i * 8192, i * 8192, 8192);
	fiber_sleep(NS_PER_S);
	t.target.hook = NULL;
	double_cut(&t.target);
	many_wait();
	CHECK_EQ(many_count(0), 40);
	CHECK(memcmp(t.target.bytes, t.a, 40 * 8192) == 0);
	CHECK_EQ(status().replayed, 16);
	CHECK_EQ(status().in_doubt, 0);
}

WITH(replayed_writes_that_overlap_are_carried_out_in_the_order_they_were_submitted,
     TARGET(.hook = hook_swallow, .pause_max_ns = 10 * NS_PER_MS),
     OPTIONS(.queues = 4, .lost = NVME_HOST_REPLAY))
{
	host_live();
	many_begin();
	for (uint32_t i = 0; i < 30; i++) {
		memset(t.a + i * 4096, (int)i + 1, 4096);
		many_submit(NVME_HOST_WRITE, t.a + i * 4096, i % 3 * 2048, 4096);
	}
	fiber_sleep(NS_PER_S);
	t.target.hook = NULL;
	double_cut(&t.target);
	fiber_sleep(30 * NS_PER_MS); /* live again, perhaps */
	memset(t.b, 99, 4096);
	many_submit(NVME_HOST_WRITE, t.b, 8192, 4096); /* is nobody's neighbour */
	many_wait();
	CHECK_EQ(many_count(0), 31);
	for (uint32_t i = 0; i < 8192; i++)
		CHECK_EQ(t.target.bytes[i], i < 2048 ? 28 : i < 4096 ? 29 : 30);
}

static bool hook_not_ready(struct nvme_target_double *target, struct double_conn *c,
			   const struct nvme_sqe *sqe)
{
	uint32_t *left = target->hook_arg;
	if (c->qid == 0 || sqe->opcode == NVME_FABRICS || *left == 0)
		return false;
	--*left;
	double_respond(c, le16_get(sqe->cid),
		       *left % 2 ? NVME_STATUS_NAMESPACE_NOT_READY : NVME_STATUS_ABORT_REQUESTED, 0);
	return true;
}

WITH(an_answer_that_asks_for_patience_is_met_with_patience, TARGET(.hook = hook_not_ready),
     OPTIONS(.lost = NVME_HOST_REPLAY))
{
	uint32_t left = 7;
	t.target.hook_arg = &left;
	host_live();
	uint64_t began_ns = rt_now_ns(t.rt);
	write_and_read(0, 4096, 1);
	CHECK_EQ(left, 0);
	CHECK(rt_now_ns(t.rt) - began_ns >= 700 * NS_PER_MS);
}

static void write_units_until_done(uint32_t count)
{
	many_begin();
	for (uint32_t i = 0; i < count; i++)
		many_submit(NVME_HOST_WRITE, t.a + i * 12 * KiB, i * 12 * KiB, i % 2 ? 12 * KiB : 4 * KiB);
	many_wait();
}

/* The last cut lies beyond what one run says. */
static void cut_everywhere(int way, uint64_t step_bytes, void (*script)(void))
{
	uint64_t at = 1 + t.seed, cuts = 0;
	for (;; at += step_bytes) {
		memset(t.target.bytes, 0, t.target.size_bytes);
		proxy_open(way == 0 ? at : NEVER, way == 1 ? at : NEVER);
		t.host = NULL;
		host_start();
		script();
		nvme_host_close(t.host);
		t.host = NULL;
		proxy_close();
		cuts += proxy.cuts;
		if (!proxy.cuts)
			break;
	}
	CHECK(cuts > 50);
}

static void script_replayed(void)
{
	pattern(t.a, 72 * KiB, t.seed);
	write_units_until_done(6);
	CHECK_EQ(many_count(0), 6);
	memset(t.b, 0, 72 * KiB);
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t n = i % 2 ? 12 * KiB : 4 * KiB;
		CHECK_OK(nvme_host_read(t.host, t.b, i * 12 * KiB, n));
		CHECK(memcmp(t.a + i * 12 * KiB, t.b, n) == 0);
	}
}

WITH(a_connection_cut_at_any_byte_to_the_target_is_a_pause,
     TARGET(.digests = 3, .r2t_bytes = 8192, .pause_max_ns = NS_PER_MS),
     OPTIONS(.address = PROXY_ADDRESS, .lost = NVME_HOST_REPLAY, .queues = 2, .header_digest = true,
	     .data_digest = true))
{
	cut_everywhere(0, 397, script_replayed);
}

WITH(a_connection_cut_at_any_byte_to_the_host_is_a_pause,
     TARGET(.digests = 3, .data_bytes = 2048, .pause_max_ns = NS_PER_MS),
     OPTIONS(.address = PROXY_ADDRESS, .lost = NVME_HOST_REPLAY, .queues = 2, .header_digest = true,
	     .data_digest = true))
{
	cut_everywhere(1, 401, script_replayed);
}

/* What is in doubt may be there or not; what is said not to be done is not there. */
static void script_reported(void)
{
	if (nvme_host_wait(t.host, rt_now_ns(t.rt) + 60 * NS_PER_S))
		test_fail(__FILE__, __LINE__, "never live: %s; %s, %u tries", status().why,
			  nvme_host_state_name(status().state), status().failed_tries);
	uint64_t doubts_before = status().in_doubt;
	pattern(t.a, 72 * KiB, t.seed);
	write_units_until_done(6);
	CHECK_EQ(many_count(0) + many_count(OXE_INDOUBT) + many_count(OXE_CLOSED), 6);
	CHECK_EQ(status().in_doubt - doubts_before, many_count(OXE_INDOUBT));
	fiber_sleep(NS_PER_S); /* what the target still does, it does now */
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t n = i % 2 ? 12 * KiB : 4 * KiB;
		bool is_there = memcmp(t.a + i * 12 * KiB, t.target.bytes + i * 12 * KiB, n) == 0;
		bool is_not = bytes_are_zero(t.target.bytes + i * 12 * KiB, n);
		CHECK(is_there || is_not);
		CHECK(many[i].io.result == OXE_INDOUBT || is_there == (many[i].io.result == 0));
	}
}

WITH(a_connection_cut_at_any_byte_to_the_target_is_reported_right,
     TARGET(.r2t_bytes = 8192, .pause_max_ns = NS_PER_MS), OPTIONS(.address = PROXY_ADDRESS, .queues = 2))
{
	cut_everywhere(0, 293, script_reported);
}

WITH(a_connection_cut_at_any_byte_to_the_host_is_reported_right, TARGET(.pause_max_ns = NS_PER_MS),
     OPTIONS(.address = PROXY_ADDRESS, .queues = 2))
{
	cut_everywhere(1, 61, script_reported);
}

/* ---- time --------------------------------------------------------------------------------------------------------------------------------- */

WITH(a_command_that_is_not_answered_is_aborted_and_then_the_association_ends, TARGET(.hook = hook_swallow),
     OPTIONS(.command_timeout_ns = 3 * NS_PER_S, .abort_timeout_ns = NS_PER_S))
{
	host_live();
	uint64_t began_ns = rt_now_ns(t.rt);
	CHECK_ERR(nvme_host_write(t.host, t.a, 0, 4096, 0), OXE_INDOUBT);
	uint64_t took_ns = rt_now_ns(t.rt) - began_ns;
	CHECK(took_ns >= 4 * NS_PER_S && took_ns < 5 * NS_PER_S);
	CHECK_EQ(t.target.aborts, 1);
	CHECK_EQ(status().aborted, 1);
	CHECK(strstr(status().why, "aborted"));
}

static bool hook_abort(struct nvme_target_double *target, struct double_conn *c, const struct nvme_sqe *sqe)
{
	static struct double_conn *io_conn;
	(void)target;
	if (c->qid > 0 && sqe->opcode != NVME_FABRICS) {
		io_conn = c;
		return true;
	}
	if (c->qid == 0 && sqe->opcode == NVME_ADMIN_ABORT)
		double_respond(io_conn, (uint16_t)(le32_get(sqe->cdw10) >> 16), NVME_STATUS_ABORT_REQUESTED,
			       0);
	return false;
}

WITH(an_aborted_read_timed_out_and_an_aborted_write_is_in_doubt, TARGET(.hook = hook_abort),
     OPTIONS(.command_timeout_ns = 3 * NS_PER_S))
{
	host_live();
	CHECK_ERR(nvme_host_read(t.host, t.a, 0, 4096), OXE_TIMEOUT);
	CHECK_ERR(nvme_host_write(t.host, t.a, 0, 4096, 0), OXE_INDOUBT);
	CHECK_EQ(status().associations, 1);
	CHECK_EQ(status().aborted, 2);
}

WITH(an_idle_association_is_kept_alive, TARGET(0), OPTIONS(.keep_alive_ns = 4 * NS_PER_S))
{
	host_live();
	fiber_sleep(60 * NS_PER_S);
	CHECK(t.target.keep_alives >= 29 && t.target.keep_alives <= 31);
	CHECK_EQ(status().associations, 1);
}

WITH(a_half_open_connection_is_noticed_by_the_keep_alive, TARGET(0),
     OPTIONS(.address = PROXY_ADDRESS, .keep_alive_ns = 4 * NS_PER_S, .lost = NVME_HOST_REPLAY))
{
	proxy_open(NEVER, NEVER);
	host_live();
	proxy_stall(true);
	fiber_sleep(8 * NS_PER_S);
	CHECK(status().state != NVME_HOST_LIVE);
	CHECK(strstr(status().why, "keep alive") || strstr(status().why, "in time"));
	proxy_stall(false);
	write_and_read(0, 4096, 1);
	nvme_host_close(t.host);
	t.host = NULL;
	proxy_close();
}

WITH(a_target_that_says_nothing_does_not_hold_up_the_making_or_the_close, TARGET(0),
     OPTIONS(.address = PROXY_ADDRESS, .connect_timeout_ns = NS_PER_S))
{
	proxy_open(NEVER, NEVER);
	proxy_stall(true);
	host_start();
	CHECK_ERR(nvme_host_wait(t.host, rt_now_ns(t.rt) + 20 * NS_PER_S), OXE_TIMEOUT);
	CHECK(status().failed_tries > 3);
	CHECK_ERR(status().last_error, OXE_TIMEOUT);
	uint64_t began_ns = rt_now_ns(t.rt);
	nvme_host_close(t.host);
	t.host = NULL;
	CHECK(rt_now_ns(t.rt) - began_ns <= NS_PER_S);
	proxy_stall(false);
	proxy_close();
}

WITH(tries_to_connect_become_rarer_but_never_end, TARGET(0),
     OPTIONS(.address = "tcp:10.0.0.77:1", .reconnect_min_ns = 10 * NS_PER_MS, .reconnect_max_ns = NS_PER_S))
{
	host_start();
	CHECK_ERR(nvme_host_wait(t.host, rt_now_ns(t.rt) + 100 * NS_PER_S), OXE_TIMEOUT);
	CHECK(status().failed_tries > 100 && status().failed_tries < 250);
	CHECK(strstr(status().why, "no connection"));
}

WITH(a_close_ends_what_is_in_flight_and_what_waits, TARGET(.hook = hook_swallow),
     OPTIONS(.queue_depth = 4, .lost = NVME_HOST_REPLAY))
{
	host_live();
	many_begin();
	for (uint32_t i = 0; i < 10; i++)
		many_submit(NVME_HOST_WRITE, t.a, 0, 4096);
	fiber_sleep(NS_PER_S);
	nvme_host_close(t.host);
	t.host = NULL;
	CHECK_EQ(set.ended, 10);
	CHECK_EQ(many_count(OXE_INDOUBT), 4);
	CHECK_EQ(many_count(OXE_CLOSED), 6);
}

WITH(another_namespace_behind_the_same_name_is_not_written_to, TARGET(.uuid = {{1}}),
     OPTIONS(.lost = NVME_HOST_REPLAY))
{
	host_live();
	write_and_read(0, 4096, 1);
	t.target.uuid.b[0] = 2;
	double_cut(&t.target);
	fiber_sleep(NS_PER_S);
	many_begin();
	many_submit(NVME_HOST_WRITE, t.a, 0, 4096);
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(set.ended, 0);
	CHECK(strstr(status().why, "another one"));
	t.target.uuid.b[0] = 1;
	many_wait();
	CHECK_EQ(many_count(0), 1);
}

/* ---- a target is a stranger ------------------------------------------------------------------------------------------------------------------ */

struct lie {
	const char *why; /* what the host is to say of it */
	void (*tell)(struct double_conn *c, uint16_t cid);
	enum nvme_host_op op;
};

static uint8_t junk[200 * 1024];

static void say_c2h(struct double_conn *c, uint16_t cid, uint8_t flags, uint32_t offset, uint32_t n)
{
	double_c2h(c, cid, flags, offset, junk, n);
}

static void say_r2t(struct double_conn *c, uint16_t cid, uint32_t offset, uint32_t n)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	double_send(c, head, nvmetcp_r2t_build(head, &c->terms, cid, 1, offset, n), NULL, 0);
}

static void lie_unknown(struct double_conn *c, uint16_t cid)
{
	double_respond(c, cid ^ 1, 0, 0);
}

static void lie_earlier_use(struct double_conn *c, uint16_t cid)
{
	double_respond(c, (uint16_t)(cid - 1024), 0, 0);
}

static void lie_twice(struct double_conn *c, uint16_t cid)
{
	double_respond(c, cid, NVME_STATUS_READ_ERROR, 0);
	double_respond(c, cid, NVME_STATUS_READ_ERROR, 0);
}

static void lie_too_much(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_LAST, 0, 131072 + 4);
}

static void lie_beyond(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, 0, 0, 4096);
	say_c2h(c, cid, NVMETCP_FLAG_LAST, 4096, 128 * 1024);
}

static void lie_wraps(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_LAST, 0xfffff000u, 4096);
}

static void lie_again(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, 0, 0, 4096);
	say_c2h(c, cid, 0, 0, 4096);
}

static void lie_short(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_LAST, 0, 4096);
	double_respond(c, cid, 0, 0);
}

static void lie_short_success(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_LAST | NVMETCP_FLAG_SUCCESS, 0, 4096);
}

static void lie_not_last(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_SUCCESS, 0, 128 * 1024);
}

static void lie_nothing_sent(struct double_conn *c, uint16_t cid)
{
	double_respond(c, cid, 0, 0);
}

static void lie_r2t_beyond(struct double_conn *c, uint16_t cid)
{
	say_r2t(c, cid, 0, 128 * 1024 + 4);
}

static void lie_r2t_gap(struct double_conn *c, uint16_t cid)
{
	say_r2t(c, cid, 4096, 4096);
}

static void lie_r2t_wraps(struct double_conn *c, uint16_t cid)
{
	say_r2t(c, cid, 0xfffffff0u, 0x20);
}

static void lie_r2t(struct double_conn *c, uint16_t cid)
{
	say_r2t(c, cid, 0, 4096);
}

static void lie_r2t_twice(struct double_conn *c, uint16_t cid)
{
	say_r2t(c, cid, 0, 128 * 1024);
	say_r2t(c, cid, 128 * 1024, 4);
}

static void lie_data(struct double_conn *c, uint16_t cid)
{
	say_c2h(c, cid, NVMETCP_FLAG_LAST, 0, 4096);
}

static void lie_icresp(struct double_conn *c, uint16_t cid)
{
	uint8_t out[NVMETCP_HEAD_MAX];
	(void)cid;
	double_send(c, out, nvmetcp_icresp_build(out, 0, 0, 8192), NULL, 0);
}

static void lie_term(struct double_conn *c, uint16_t cid)
{
	uint8_t out[NVMETCP_TERM_BYTES_MAX];
	struct nvmetcp_fault fault = {NVMETCP_FES_DATA_LIMIT, 3, ""};
	(void)cid;
	double_send(c, out, nvmetcp_term_build(out, &c->terms, &fault, junk, 72), NULL, 0);
}

static void lie_junk(struct double_conn *c, uint16_t cid)
{
	(void)cid;
	double_send(c, junk, 128, NULL, 0);
}

static const struct lie lies[] = {
	{"not in flight", lie_unknown, NVME_HOST_READ},
	{"not in flight", lie_earlier_use, NVME_HOST_READ},
	{"not in flight", lie_twice, NVME_HOST_READ},
	{"not the command's next", lie_too_much, NVME_HOST_READ},
	{"not the command's next", lie_beyond, NVME_HOST_READ},
	{"not the command's next", lie_wraps, NVME_HOST_READ},
	{"not the command's next", lie_again, NVME_HOST_READ},
	{"before all of the data", lie_short, NVME_HOST_READ},
	{"not the last", lie_short_success, NVME_HOST_READ},
	{"not the last", lie_not_last, NVME_HOST_READ},
	{"before all of the data", lie_nothing_sent, NVME_HOST_WRITE},
	{"not the command's next", lie_r2t_beyond, NVME_HOST_WRITE},
	{"not the command's next", lie_r2t_gap, NVME_HOST_WRITE},
	{"not the command's next", lie_r2t_wraps, NVME_HOST_WRITE},
	{"", lie_r2t_twice, NVME_HOST_WRITE}, /* too early or too far, by the seed */
	{"no data to send", lie_r2t, NVME_HOST_READ},
	{"wants none", lie_data, NVME_HOST_WRITE},
	{"wants none", lie_data, NVME_HOST_FLUSH},
	{"out of sequence", lie_icresp, NVME_HOST_FLUSH},
	{"transfer limit exceeded", lie_term, NVME_HOST_FLUSH},
	{"a type of PDU", lie_junk, NVME_HOST_READ},
};

static bool hook_lie(struct nvme_target_double *target, struct double_conn *c, const struct nvme_sqe *sqe)
{
	const struct lie *lie = target->hook_arg;
	if (c->qid == 0 || sqe->opcode == NVME_FABRICS || !lie)
		return false;
	target->hook_arg = NULL;
	lie->tell(c, le16_get(sqe->cid));
	return true;
}

WITH(every_lie_ends_the_association_with_its_sentence_and_nothing_else, TARGET(.hook = hook_lie), OPTIONS(0))
{
	memset(junk, 0xee, sizeof(junk));
	for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
		host_live();
		t.target.hook_arg = (void *)&lies[i];
		many_begin();
		many_submit(lies[i].op, t.a, 0, lies[i].op == NVME_HOST_FLUSH ? 0 : 128 * KiB);
		many_submit(NVME_HOST_FLUSH, NULL, 0, 0);
		many_wait();
		fiber_sleep(NS_PER_MS);
		if (status().last_error != OXE_PROTO || status().state == NVME_HOST_LIVE)
			test_fail(__FILE__, __LINE__, "lie %zu was believed", i);
		if (!strstr(status().why, lies[i].why))
			test_fail(__FILE__, __LINE__, "lie %zu: %s", i, status().why);
	}
	t.target.hook_arg = NULL;
	host_live();
	write_and_read(0, 128 * KiB, 1);
}

/* Asks for everything, answers before it has read any of it, and never does. */
static bool hook_hasty(struct nvme_target_double *target, struct double_conn *c, const struct nvme_sqe *sqe)
{
	(void)target;
	if (c->qid == 0 || sqe->opcode != NVME_IO_WRITE)
		return false;
	say_r2t(c, le16_get(sqe->cid), 0, 128 * KiB);
	fiber_sleep(NS_PER_MS);
	double_respond(c, le16_get(sqe->cid), NVME_STATUS_CAPACITY_EXCEEDED | NVME_STATUS_DNR, 0);
	fiber_sleep(NS_PER_S);
	rt_conn_shutdown(c->conn);
	return true;
}

WITH(data_is_not_given_back_while_it_is_being_sent, TARGET(.hook = hook_hasty),
     OPTIONS(.no_in_capsule = true))
{
	host_live();
	many_begin();
	struct nvme_host_io *io = many_submit(NVME_HOST_WRITE, t.a, 0, 128 * KiB);
	fiber_sleep(NS_PER_S / 2);
	CHECK_EQ(set.ended, 0);
	CHECK_EQ(status().state, NVME_HOST_LIVE);
	many_wait();
	CHECK_ERR(io->result, OXE_NOSPC);
}

static bool hook_bad_digest(struct nvme_target_double *target, struct double_conn *c,
			    const struct nvme_sqe *sqe)
{
	int *which = target->hook_arg;
	uint8_t head[NVMETCP_HEAD_MAX];
	if (c->qid == 0 || sqe->opcode != NVME_IO_READ || *which == 0)
		return false;
	size_t n = nvmetcp_c2h_data_build(head, &c->terms, NVMETCP_FLAG_LAST, le16_get(sqe->cid), 0, 4096);
	head[n - 1] ^= *which == 1; /* without padding the digest is last */
	*which == 1 ? double_send(c, head, n, junk, 4096) : double_send(c, head, n, NULL, 0);
	if (*which == 2) { /* data, and the digest of other data */
		le32 digest = {{1, 2, 3, 4}};
		double_send(c, junk, 4096, NULL, 0);
		double_send(c, digest.b, sizeof(digest), NULL, 0);
	}
	*which = 0;
	return true;
}

WITH(a_wrong_digest_is_noticed, TARGET(.digests = 3, .hook = hook_bad_digest),
     OPTIONS(.header_digest = true, .data_digest = true))
{
	for (int i = 1; i <= 2; i++) {
		int which = i;
		host_live();
		t.target.hook_arg = &which;
		CHECK_ERR(nvme_host_read(t.host, t.a, 0, 4096), OXE_INDOUBT);
		CHECK(strstr(status().why, "digest"));
	}
}

static bool hook_refuse_connect(struct nvme_target_double *target, struct double_conn *c,
				const struct nvme_sqe *sqe)
{
	const struct nvme_connect *w = (const void *)sqe;
	if (sqe->opcode != NVME_FABRICS || w->fctype != NVME_FABRICS_CONNECT)
		return false;
	double_respond(c, le16_get(sqe->cid), *(uint16_t *)target->hook_arg | NVME_STATUS_DNR, 0);
	return true;
}

WITH(a_refused_connect_is_told_in_the_status, TARGET(.hook = hook_refuse_connect), OPTIONS(0))
{
	uint16_t answer = NVME_STATUS_CONNECT_HOST;
	t.target.hook_arg = &answer;
	host_start();
	CHECK_ERR(nvme_host_wait(t.host, rt_now_ns(t.rt) + NS_PER_S), OXE_TIMEOUT);
	CHECK_ERR(status().last_error, OXE_PERM);
	CHECK(strstr(status().why, "invalid host"));
	answer = NVME_STATUS_CONNECT_INVALID;
	CHECK_ERR(nvme_host_wait(t.host, rt_now_ns(t.rt) + 10 * NS_PER_S), OXE_TIMEOUT);
	CHECK_ERR(status().last_error, OXE_NOENT);
}

TEST(options_that_cannot_be_are_refused)
{
	struct nvme_host *h;
	char long_nqn[300];
	memset(long_nqn, 'x', sizeof(long_nqn) - 1);
	memcpy(long_nqn, "nqn.", 4);
	long_nqn[sizeof(long_nqn) - 1] = 0;
	struct rt *rt = testrt_new(1, false);
	CHECK_ERR(nvme_host_new(rt, &OPTIONS(.subsystem_nqn = SUBSYSTEM), &h), OXE_INVAL);
	CHECK_ERR(nvme_host_new(rt, &OPTIONS(.address = TARGET_ADDRESS), &h), OXE_INVAL);
	CHECK_ERR(nvme_host_new(rt, &OPTIONS(.address = TARGET_ADDRESS, .subsystem_nqn = long_nqn), &h),
		  OXE_INVAL);
	CHECK_ERR(nvme_host_new(rt,
				&OPTIONS(.address = TARGET_ADDRESS, .subsystem_nqn = SUBSYSTEM, .queues = 65),
				&h),
		  OXE_INVAL);
	testrt_free(rt);
}
