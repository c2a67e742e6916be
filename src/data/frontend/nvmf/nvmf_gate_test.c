/*
 * nvmf_gate_test.c: who may connect, as hosts meet it: hosts of our own, a volume and its list, in virtual time.
 */
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"
#include "data/nvme/nvme_nqn.h"

#define REFUSED (NVME_STATUS_CONNECT_HOST | DNR)
#define OTHER	"nqn.2026-11.test:another-host"

/* ---- lists ------------------------------------------------------------------------------------------------------------------- */

static void set_note(const void *note, uint32_t len_bytes)
{
	CHECK_OK(pool_note_set(frame.pool, &frame.volume, POOL_NOTE_ACCESS, note, len_bytes));
	nvmf_server_access_changed(target.server, &frame.volume);
}

/* The list is this host; NULL: nobody, which is anybody. */
static void allow_only(const char *nqn)
{
	target_allow(nqn, &(struct nvmf_access_texts){0}, true);
}

/* ---- hosts ------------------------------------------------------------------------------------------------------------------- */

static uint16_t try_connect(struct host *h, const char *hostnqn, const char *subnqn)
{
	*h = host_open(ADDRESS, 0, 0);
	h->hostnqn = hostnqn;
	return host_connect(h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, subnqn, 32);
}

static void expect_connect(const char *hostnqn, uint16_t status)
{
	struct host h;
	CHECK_EQ(try_connect(&h, hostnqn, target.nqn), status);
	host_close(&h);
}

static uint64_t discovered(struct host *h)
{
	struct {
		struct nvme_log_discovery head;
		struct nvme_discovery_entry entries[4];
	} log;
	CHECK_EQ(host_log(h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	return le64_get(log.head.records);
}

static struct host discovery_begin(const char *hostnqn)
{
	struct host h;
	CHECK_EQ(try_connect(&h, hostnqn, NVME_NQN_DISCOVERY), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN), 0);
	return h;
}

/* ---- who may ------------------------------------------------------------------------------------------------------------------ */

WITH_TARGET(with_an_empty_list_anybody_connects_and_with_a_list_who_is_on_it)
{
	expect_connect(HOST_NQN, 0);
	allow_only(OTHER);
	expect_connect(HOST_NQN, REFUSED);
	expect_connect(OTHER, 0);
	allow_only(HOST_NQN);
	expect_connect(HOST_NQN, 0);
	expect_connect(OTHER, REFUSED);
	expect_connect("nqn.2026-11.test:another-hos", REFUSED);
	allow_only(NULL);
	expect_connect(OTHER, 0);
}

WITH_TARGET(a_refused_host_is_told_that_its_name_is_the_reason)
{
	struct host h = host_open(ADDRESS, 0, 0);
	struct nvme_connect sqe = {
		.opcode = NVME_FABRICS, .fctype = NVME_FABRICS_CONNECT, .sqsize = le16_of(31)};
	struct nvme_connect_data data = {.cntlid = le16_of(NVME_CNTLID_ANY)};
	uint64_t result;
	allow_only(OTHER);
	nvme_nqn_put(data.subnqn, target.nqn);
	nvme_nqn_put(data.hostnqn, HOST_NQN);
	uint16_t cid = host_command(&h, (void *)&sqe, &data, sizeof(data), true);
	CHECK_EQ(host_finish(&h, cid, NULL, NULL, &result), REFUSED);
	CHECK_EQ(result, NVME_CONNECT_IN_DATA(hostnqn));
	host_close(&h);
}

WITH_TARGET(a_host_taken_off_the_list_is_disconnected_and_one_that_stays_is_not)
{
	struct host mine = host_begin(ADDRESS, target.nqn, 0),
		    io = host_queue(ADDRESS, &mine, target.nqn, 1, 0), other;
	uint16_t fes;
	CHECK_EQ(try_connect(&other, OTHER, target.nqn), 0);
	allow_only(OTHER);
	CHECK(host_is_cut(&mine, &fes));
	CHECK(host_is_cut(&io, &fes));
	CHECK_EQ(host_property_set(&other, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	host_close(&mine);
	host_close(&io);
	host_close(&other);
	expect_connect(HOST_NQN, REFUSED);
}

WITH_TARGET(discovery_shows_a_host_only_what_it_may_connect_to)
{
	struct host mine = discovery_begin(HOST_NQN), other = discovery_begin(OTHER);
	pool_double_volume(frame.pool, "for-all", SIZE, 512);
	CHECK_EQ(discovered(&mine), 2);
	allow_only(OTHER);
	CHECK_EQ(discovered(&mine), 1);
	CHECK_EQ(discovered(&other), 2);
	host_close(&mine);
	host_close(&other);
}

WITH_TARGET(a_host_that_waits_for_news_of_discovery_is_told_when_a_list_changes)
{
	struct host h = discovery_begin(HOST_NQN);
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_ASYNC_EVENT};
	uint64_t result;
	CHECK_EQ(discovered(&h), 1);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_EVENTS, NVME_OAES_DISCOVERY, NULL, 0,
			    NULL),
		 0);
	uint16_t cid = host_command(&h, &sqe, NULL, 0, false);
	allow_only(OTHER);
	CHECK_EQ(host_finish(&h, cid, NULL, NULL, &result), 0);
	CHECK_EQ(result, NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_DISCOVERY, NVME_LOG_DISCOVERY));
	CHECK_EQ(discovered(&h), 0);
	host_close(&h);
}

WITH_TARGET(a_list_that_cannot_be_read_lets_nobody_in)
{
	struct host mine = host_begin(ADDRESS, target.nqn, 0), seeker = discovery_begin(HOST_NQN);
	uint16_t fes;
	set_note("rubbish", 7);
	CHECK(host_is_cut(&mine, &fes));
	host_close(&mine);
	expect_connect(HOST_NQN, NVME_STATUS_INTERNAL);
	CHECK_EQ(discovered(&seeker), 0);
	host_close(&seeker);
}

WITH_OPTIONS(where_all_must_prove_themselves_an_empty_list_lets_nobody_in, .authenticated_only = true)
{
	expect_connect(HOST_NQN, REFUSED);
	allow_only(HOST_NQN);
	expect_connect(HOST_NQN, REFUSED);
}
