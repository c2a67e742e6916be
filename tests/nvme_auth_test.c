/*
 * nvme_auth_test.c: our host and our target prove their secrets to each other, as they are, in virtual time; with somebody in between
 * where the test wants that.
 */
#include "base/test.h"
#include "data/engine/engine_testrt.h"
#include "data/engine/pool_double.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/nvme/nvme_auth_format.h"
#include "data/nvme/nvmetcp_format.h"
#include "data/replica/nvme_host.h"

#define ADDRESS	 "tcp:127.0.0.1:4420"
#define BETWEEN	 "tcp:127.0.0.1:4421"
#define SIZE	 (8 * MiB)
#define HOST_NQN "nqn.2026-11.test:host"
#define S32	 "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define S48	 "DHHC-1:00:MDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J51wkKvA==:"
#define S64                                                                                                  \
	"DHHC-1:00:QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKUVhfZm10e4KJkJeepayzusHIz9bd5Ovy+eQY" \
	"loY=:"
#define STRANSFORMED "DHHC-1:01:tOVlODJmo6wvuXBE40yX8W05nDfezspkES7I+UI0HaULVs0T:"
#define LEAST(group) ((uint8_t)((group) + 1))

static struct {
	struct rt *rt;
	struct pool *pool;
	struct engines *engines;
	struct nvmf_server *server;
	struct nvmf_options options;
	struct uuid volume;
	char nqn[NVMF_NQN_SIZE];
	void (*body)(void);
	struct rt_listener *between;
	struct rt_group proxies;
} t;

static void target_start(void)
{
	t.server = nvmf_server_new(t.engines, &t.options);
	CHECK_OK(nvmf_server_listen(t.server, ADDRESS, NULL));
}

static void body_fiber(void *arg)
{
	(void)arg;
	target_start();
	t.body();
	nvmf_server_close(t.server);
}

static void run_once(uint64_t seed)
{
	t.rt = testrt_new(seed, seed > 1);
	t.pool = pool_double_new("tank");
	t.volume = pool_double_volume(t.pool, "disk", SIZE, 512);
	nvmf_volume_nqn(&t.volume, t.nqn);
	t.engines = engines_new(t.rt);
	engines_add_pool(t.engines, t.pool);
	fiber_spawn_big(t.rt, "test", body_fiber, NULL);
	testrt_run(t.rt);
	CHECK_EQ(testrt_conns(), 0);
	CHECK_OK(engines_remove_pool(t.engines, t.pool));
	engines_free(t.engines);
	pool_double_free(t.pool);
	testrt_free(t.rt);
}

#define WITH_OPTIONS(test_name, ...)                                                                         \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		t.body = test_name##_body;                                                                   \
		t.options = (struct nvmf_options){__VA_ARGS__};                                              \
		for (uint64_t seed = 1; seed <= 2; seed++)                                                   \
			run_once(seed);                                                                      \
	}                                                                                                    \
	static void test_name##_body(void)
#define WITH_TARGET(test_name) WITH_OPTIONS(test_name, 0)

static void allow(const char *secret, const char *controller_secret)
{
	static struct nvmf_access list;
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	struct nvmf_access_texts texts = {.secret = secret, .controller_secret = controller_secret};
	struct nvmf_access_host h;
	const char *because;
	bool is_new;
	nvmf_access_wipe(&list);
	CHECK_OK(nvmf_access_host_make(HOST_NQN, &texts, &h, &because));
	CHECK_OK(nvmf_access_put(&list, &h, &is_new));
	uint32_t len_bytes = nvmf_access_encode(&list, note);
	CHECK_OK(pool_note_set(t.pool, &t.volume, POOL_NOTE_ACCESS, note, len_bytes));
	nvmf_server_access_changed(t.server, &t.volume);
}

static struct nvme_host *host_of(const char *address, const char *secret, const char *controller_secret,
				 uint8_t least_group)
{
	struct nvme_host *h;
	struct nvme_host_options o = {.address = address,
				      .subsystem_nqn = t.nqn,
				      .host_nqn = HOST_NQN,
				      .queues = 2,
				      .secret = secret,
				      .controller_secret = controller_secret,
				      .least_group = least_group,
				      .lost = NVME_HOST_REPLAY};
	CHECK_OK(nvme_host_new(t.rt, &o, &h));
	return h;
}

static uint64_t in_s(uint64_t seconds)
{
	return rt_now_ns(t.rt) + seconds * NS_PER_S;
}

static void expect_agreement(const char *secret, const char *controller_secret, uint8_t least_group)
{
	uint8_t page[4096];
	struct nvmf_stats before, after;
	allow(secret, controller_secret);
	nvmf_server_stats(t.server, &before);
	struct nvme_host *h = host_of(ADDRESS, secret, controller_secret, least_group);
	CHECK_OK(nvme_host_wait(h, in_s(10)));
	CHECK_OK(nvme_host_read(h, page, 0, sizeof(page)));
	nvme_host_close(h);
	nvmf_server_stats(t.server, &after);
	CHECK_EQ(after.hosts_proved - before.hosts_proved, 3); /* each of its queues */
	CHECK_EQ(after.proofs_failed, before.proofs_failed);
}

/* It is never live, and says this. */
static void expect_refusal(struct nvme_host *h, int err, const char *why)
{
	struct nvme_host_status s;
	CHECK_ERR(nvme_host_wait(h, in_s(1)), OXE_TIMEOUT);
	nvme_host_status(h, &s);
	if (s.last_error != err || !strstr(s.why, why))
		test_fail(__FILE__, __LINE__, "%s: %s", err_name(s.last_error), s.why);
	nvme_host_close(h);
}

/* ---- who agree ---------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(our_host_proves_itself_with_secrets_of_each_length_and_the_target_to_it)
{
	expect_agreement(S32, NULL, 0);
	expect_agreement(S48, S32, 0);
	expect_agreement(S64, STRANSFORMED, 0);
	expect_agreement(STRANSFORMED, S64, LEAST(NVME_AUTH_FFDHE3072));
}

WITH_OPTIONS(our_host_agrees_to_no_group_only_if_told_that_it_may, .auth_group = LEAST(NVME_AUTH_GROUP_NULL))
{
	expect_agreement(S32, S48, LEAST(NVME_AUTH_GROUP_NULL));
	expect_agreement(S32, S48, 0); /* the target's least is null, and it takes the least there is */
}

WITH_OPTIONS(our_host_and_target_meet_in_the_largest_group, .auth_group = LEAST(NVME_AUTH_FFDHE8192))
{
	expect_agreement(S32, S48, 0);
}

WITH_TARGET(our_host_proves_itself_anew_to_a_target_that_comes_back)
{
	uint8_t page[4096] = {7};
	struct nvme_host_status s;
	allow(S32, S48);
	struct nvme_host *h = host_of(ADDRESS, S32, S48, 0);
	CHECK_OK(nvme_host_write(h, page, 0, sizeof(page), 0));
	nvmf_server_close(t.server);
	target_start();
	CHECK_OK(nvme_host_read(h, page, 0, sizeof(page)));
	nvme_host_status(h, &s);
	CHECK_EQ(s.associations, 2);
	nvme_host_close(h);
}

/* ---- who do not ------------------------------------------------------------------------------------------------------------------ */

WITH_TARGET(our_host_with_another_secret_is_told_that_it_is_not_believed)
{
	allow(S32, NULL);
	expect_refusal(host_of(ADDRESS, S48, NULL, 0), OXE_PERM, "does not believe us");
}

WITH_TARGET(our_host_without_a_secret_says_that_one_is_wanted)
{
	allow(S32, NULL);
	expect_refusal(host_of(ADDRESS, NULL, NULL, 0), OXE_PERM, "wants authentication");
}

WITH_TARGET(a_target_with_another_secret_than_it_should_have_is_not_believed)
{
	struct nvmf_stats stats;
	allow(S32, S48);
	expect_refusal(host_of(ADDRESS, S32, S64, 0), OXE_PERM, "did not prove itself");
	nvmf_server_stats(t.server, &stats);
	CHECK(stats.connections_dropped > 0);
}

WITH_TARGET(a_target_that_asks_for_nothing_is_left_alone_by_a_host_that_wants_proof_of_it)
{
	expect_refusal(host_of(ADDRESS, S32, S48, 0), OXE_PERM, "does not believe us"); /* it has no list */
}

WITH_TARGET(a_secret_that_is_none_makes_no_host)
{
	struct nvme_host *h;
	struct nvme_host_options o = {.address = ADDRESS, .subsystem_nqn = t.nqn, .secret = "DHHC-1:00:x:"};
	CHECK_ERR(nvme_host_new(t.rt, &o, &h), OXE_INVAL);
	o.secret = NULL;
	o.controller_secret = S32; /* without one of its own */
	CHECK_ERR(nvme_host_new(t.rt, &o, &h), OXE_INVAL);
	o.secret = S32;
	o.least_group = NVME_AUTH_GROUPS + 1;
	CHECK_ERR(nvme_host_new(t.rt, &o, &h), OXE_INVAL);
}

/* ---- somebody in between ------------------------------------------------------------------------------------------------------------ */

struct half {
	struct rt_conn *from, *to;
	struct rt_group *ends;
};

static bool receive_all(struct rt_conn *c, void *data, size_t len_bytes)
{
	size_t got = 0;
	for (size_t done = 0; done < len_bytes; done += got)
		if (rt_recv(c, (uint8_t *)data + done, len_bytes - done, &got) || got == 0)
			return false;
	return true;
}

/* Takes every group out of a host's offer, as if it had none. */
static void strip(uint8_t *pdu)
{
	const struct nvmetcp_command *w = (const void *)pdu;
	const struct nvme_auth_command *sqe = (const void *)&w->sqe;
	struct nvme_auth_head *head = (void *)(pdu + w->ch.pdo);
	struct nvme_auth_protocol *p = (void *)(pdu + w->ch.pdo + sizeof(struct nvme_auth_negotiate));
	if (w->ch.type != NVMETCP_COMMAND || sqe->opcode != NVME_FABRICS ||
	    sqe->fctype != NVME_FABRICS_AUTH_SEND || head->id != NVME_AUTH_NEGOTIATE)
		return;
	p->groups = 1;
	p->group[0] = NVME_AUTH_GROUP_NULL;
}

static void half_run(void *arg)
{
	struct half *h = arg;
	static uint8_t pdus[2][64 * KiB];
	static int next;
	uint8_t *pdu = pdus[next++ % 2];
	struct nvmetcp_ch *ch = (void *)pdu;
	while (receive_all(h->from, ch, sizeof(*ch)) &&
	       receive_all(h->from, ch + 1, le32_get(ch->plen) - sizeof(*ch))) {
		strip(pdu);
		if (rt_send(h->to, &(struct rt_iovec){pdu, le32_get(ch->plen)}, 1))
			break;
	}
	rt_conn_shutdown(h->from);
	rt_conn_shutdown(h->to);
	group_done(h->ends);
}

/* One connection at a time: the admin queue's is as far as it gets. */
static void between_run(void *arg)
{
	struct rt_conn *host, *target;
	(void)arg;
	while (rt_accept(t.between, &host) == 0) {
		struct rt_group ends;
		group_init(&ends);
		group_add(&ends, 2);
		CHECK_OK(rt_connect(t.rt, ADDRESS, in_s(5), &target));
		struct half out = {host, target, &ends}, back = {target, host, &ends};
		fiber_spawn(t.rt, "out", half_run, &out);
		fiber_spawn(t.rt, "back", half_run, &back);
		group_wait(&ends);
		rt_conn_close(host);
		rt_conn_close(target);
	}
	group_done(&t.proxies);
}

static void between_start(void)
{
	CHECK_OK(rt_listen(t.rt, BETWEEN, &t.between));
	group_init(&t.proxies);
	group_add(&t.proxies, 1);
	fiber_spawn(t.rt, "between", between_run, NULL);
}

static void between_stop(void)
{
	rt_listener_close(t.between);
	group_wait(&t.proxies);
}

WITH_TARGET(groups_taken_out_of_the_offer_on_the_way_are_missed_by_our_host)
{
	allow(S32, NULL);
	between_start();
	expect_refusal(host_of(BETWEEN, S32, NULL, 0), OXE_UNSUPPORTED, "not offered");
	between_stop();
}

WITH_OPTIONS(groups_taken_out_of_the_offer_on_the_way_are_missed_by_a_target_that_insists,
	     .auth_group = LEAST(NVME_AUTH_FFDHE2048))
{
	allow(S32, NULL);
	between_start();
	expect_refusal(host_of(BETWEEN, S32, NULL, LEAST(NVME_AUTH_GROUP_NULL)), OXE_PERM,
		       "no group in common");
	between_stop();
}
