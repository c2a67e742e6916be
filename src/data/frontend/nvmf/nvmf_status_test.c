/*
 * nvmf_status_test.c: what people are told of hosts and reservations, and what an operator may take away: hosts of our own and one
 * volume, in virtual time.
 */
#include "data/frontend/nvmf/nvmf_frame_double.h"
#include "data/nvme/nvme_nqn.h"

#define SEEN 4
#define WE   NVME_RESERVATION_WRITE_EXCLUSIVE

/* ---- looking ------------------------------------------------------------------------------------------------------------------ */

struct seen {
	size_t count;
	struct nvmf_association a[SEEN];
};

static bool see(void *ctx, const struct nvmf_association *a)
{
	struct seen *s = ctx;
	CHECK(s->count < SEEN);
	s->a[s->count++] = *a;
	return true;
}

static struct seen look(void)
{
	struct seen s = {0};
	nvmf_server_walk(target.server, see, &s);
	return s;
}

/* Until so many associations are there: a host that closes its connection is gone a little later. */
static struct seen look_until(size_t count)
{
	struct seen s = look();
	while (s.count != count) {
		fiber_sleep(NS_PER_MS);
		s = look();
	}
	return s;
}

static struct host attach(uint8_t hostid, struct host *io)
{
	struct host h = host_open(ADDRESS, NVMETCP_DIGEST_HEADER, 0);
	h.hostid = hostid;
	h.kato_ms = 5000;
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	*io = host_queue(ADDRESS, &h, target.nqn, 1, 0);
	return h;
}

static void leave(struct host *h, struct host *io)
{
	host_close(io);
	host_close(h);
}

static uint16_t keys(struct host *io, uint8_t opcode, uint32_t cdw10, uint64_t current, uint64_t other)
{
	struct nvme_reservation_keys w = {le64_of(current), le64_of(other)};
	struct nvme_sqe sqe = {.opcode = opcode, .nsid = le32_of(1), .cdw10 = le32_of(cdw10)};
	return host_finish(io, host_command(io, &sqe, &w, sizeof(w), true), NULL, NULL, NULL);
}

/* Registered with key 10, for good, and the only one that may write. */
static void reserve(struct host *io)
{
	CHECK_EQ(keys(io, NVME_IO_RESERVATION_REGISTER, NVME_REGISTER | (uint32_t)NVME_PERSIST << 30, 0, 10),
		 0);
	CHECK_EQ(keys(io, NVME_IO_RESERVATION_ACQUIRE, NVME_ACQUIRE | WE << 8, 10, 0), 0);
}

static void put_note(const void *note, uint32_t len_bytes)
{
	CHECK_OK(pool_note_set(frame.pool, &frame.volume, POOL_NOTE_RESERVATION, note, len_bytes));
}

/* ---- who is here ---------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(an_association_is_told_as_it_is_and_not_any_more_once_its_host_left)
{
	struct host io, h = attach(7, &io);
	uint8_t page[4096];
	CHECK_EQ(host_io(&io, NVME_IO_READ, 0, 8, 0, page, NULL, sizeof(page)), 0);
	CHECK(host_io(&io, NVME_IO_READ, SIZE, 8, 0, page, NULL, sizeof(page)) != 0);
	struct seen s = look();
	CHECK_EQ(s.count, 1);
	CHECK_STR(s.a[0].hostnqn, HOST_NQN);
	CHECK_STR(s.a[0].subnqn, target.nqn);
	CHECK_STR(s.a[0].name, "tank/disk");
	CHECK(uuid_equal(&s.a[0].id, &frame.volume));
	CHECK_EQ(s.a[0].host_id.b[15], 7);
	CHECK_EQ(s.a[0].controller, h.cntlid);
	CHECK_EQ(s.a[0].io_queues, 1);
	CHECK_EQ(s.a[0].keep_alive_ms, 5000);
	CHECK_EQ(s.a[0].errors, 1);
	CHECK_EQ(s.a[0].commands, 3); /* beside those that connected its queues */
	CHECK(s.a[0].header_digest && !s.a[0].data_digest && !s.a[0].is_authenticated);
	CHECK(!s.a[0].is_registrant && !s.a[0].is_holder);
	CHECK(strncmp(s.a[0].peer, "127.0.0.1", 9) == 0);
	leave(&h, &io);
	look_until(0);
}

WITH_TARGET(a_host_that_asks_for_the_list_is_there_without_a_volume)
{
	struct host h = host_begin(ADDRESS, NVME_NQN_DISCOVERY, 0);
	struct seen s = look();
	CHECK_EQ(s.count, 1);
	CHECK_STR(s.a[0].subnqn, NVME_NQN_DISCOVERY);
	CHECK_STR(s.a[0].name, "");
	CHECK(uuid_is_nil(&s.a[0].id));
	host_close(&h);
}

WITH_TARGET(commands_and_errors_are_counted_over_all_hosts)
{
	struct host io, h = attach(7, &io);
	struct nvmf_stats before, after;
	nvmf_server_stats(target.server, &before);
	CHECK_EQ(host_io(&io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0);
	CHECK(host_io(&io, NVME_IO_VERIFY, SIZE, 8, 0, NULL, NULL, 0) != 0);
	nvmf_server_stats(target.server, &after);
	CHECK_EQ(after.commands - before.commands, 2);
	CHECK_EQ(after.errors - before.errors, 1);
	CHECK_EQ(after.controllers, 1);
	CHECK_EQ(after.connections, 2);
	leave(&h, &io);
}

WITH_TARGET(a_host_that_a_list_keeps_out_is_counted_and_is_no_association)
{
	struct nvmf_stats stats;
	target_allow("nqn.2026-11.test:another-host", &(struct nvmf_access_texts){0}, true);
	struct host h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32),
		 NVME_STATUS_CONNECT_HOST | DNR);
	nvmf_server_stats(target.server, &stats);
	CHECK_EQ(stats.hosts_refused, 1);
	CHECK_EQ(stats.controllers, 0);
	CHECK_EQ(look().count, 0);
	host_close(&h);
}

WITH_TARGET(there_is_one_way_group_to_a_volume_and_it_is_optimized)
{
	struct host io, h = attach(7, &io);
	struct nvme_id_ctrl ctrl;
	struct nvme_id_ns ns;
	struct {
		struct nvme_log_ana head;
		struct nvme_log_ana_group group;
		le32 nsid, beyond;
	} log;
	CHECK_EQ(host_log(&h, NVME_LOG_ANA, &log, sizeof(log), 0), 0);
	CHECK_EQ(le16_get(log.head.groups), 1);
	CHECK_EQ(le32_get(log.group.group_id), 1);
	CHECK_EQ(log.group.state, NVME_ANA_OPTIMIZED);
	CHECK_EQ(le32_get(log.group.nsid_count), 1);
	CHECK_EQ(le32_get(log.nsid), 1);
	CHECK_EQ(le32_get(log.beyond), 0);
	struct nvme_sqe groups = {
		.opcode = NVME_ADMIN_GET_LOG_PAGE,
		.nsid = le32_of(NVME_NSID_ALL),
		.cdw10 = le32_of(NVME_LOG_ANA | NVME_LOG_ANA_GROUPS | (sizeof(log) / 4 - 1) << 16)};
	uint16_t cid = host_command(&h, &groups, NULL, sizeof(log), false);
	CHECK_EQ(host_finish(&h, cid, &log, NULL, NULL), 0);
	CHECK_EQ(log.group.state, NVME_ANA_OPTIMIZED);
	CHECK_EQ(le32_get(log.group.nsid_count), 0);
	CHECK_EQ(le32_get(log.nsid), 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_CONTROLLER, 0, &ctrl, sizeof(ctrl), NULL),
		 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_NAMESPACE, 0, &ns, sizeof(ns), NULL), 0);
	CHECK(ctrl.cmic & NVME_CMIC_ANA);
	CHECK(le32_get(ctrl.oaes) & NVME_OAES_ANA);
	CHECK_EQ(le32_get(ctrl.nanagrpid), 1);
	CHECK_EQ(le32_get(ns.anagrpid), 1);
	leave(&h, &io);
}

/* ---- reservations ----------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_reservation_is_told_with_its_hosts_here_and_without_them)
{
	struct host io, h = attach(7, &io);
	struct nvmf_reservation r;
	CHECK_OK(nvmf_server_reservation(target.server, &frame.volume, &r));
	CHECK_EQ(r.count, 0);
	reserve(&io);
	CHECK(look().a[0].is_registrant && look().a[0].is_holder);
	for (int round = 0; round < 2; round++) {
		CHECK_OK(nvmf_server_reservation(target.server, &frame.volume, &r));
		CHECK_EQ(r.type, WE);
		CHECK_EQ(r.count, 1);
		CHECK_EQ(r.holder[0], 7);
		CHECK_EQ(r.registrants[0].key, 10);
		if (round == 0)
			leave(&h, &io);
		look_until(0);
	}
}

WITH_TARGET(a_reservation_that_is_cleared_fences_nobody_and_those_registered_are_told)
{
	struct host io, h = attach(7, &io), other_io, other = attach(8, &other_io);
	struct nvme_log_reservation notice;
	struct nvmf_reservation r;
	uint8_t page[4096] = {1};
	bool was_there;
	reserve(&io);
	CHECK(host_io(&other_io, NVME_IO_WRITE, 0, 8, 0, NULL, page, sizeof(page)) != 0);
	CHECK_OK(nvmf_server_reservation_clear(target.server, &frame.volume, &was_there));
	CHECK(was_there);
	CHECK_EQ(host_io(&other_io, NVME_IO_WRITE, 0, 8, 0, NULL, page, sizeof(page)), 0);
	CHECK_EQ(host_log(&h, NVME_LOG_RESERVATION, &notice, sizeof(notice), 0), 0);
	CHECK_EQ(notice.type, NVME_REGISTRATION_PREEMPTED);
	CHECK_EQ(host_log(&other, NVME_LOG_RESERVATION, &notice, sizeof(notice), 0), 0);
	CHECK_EQ(notice.type, 0);
	CHECK_OK(nvmf_server_reservation_clear(target.server, &frame.volume, &was_there));
	CHECK(!was_there);
	leave(&h, &io);
	leave(&other, &other_io);
	look_until(0);
	CHECK_OK(nvmf_server_reservation(target.server, &frame.volume, &r)); /* as the pool has it */
	CHECK_EQ(r.count, 0);
	CHECK_EQ(r.type, 0);
}

WITH_TARGET(a_reservation_nobody_is_here_for_is_cleared_for_good)
{
	struct host io, h = attach(7, &io), other_io, other;
	uint8_t page[4096] = {1};
	bool was_there;
	reserve(&io);
	leave(&h, &io);
	look_until(0);
	CHECK_OK(nvmf_server_reservation_clear(target.server, &frame.volume, &was_there));
	CHECK(was_there);
	other = attach(8, &other_io);
	CHECK_EQ(host_io(&other_io, NVME_IO_WRITE, 0, 8, 0, NULL, page, sizeof(page)), 0);
	leave(&other, &other_io);
}

WITH_TARGET(a_reservation_that_cannot_be_read_is_told_as_such_and_cleared_and_hosts_come_in_again)
{
	struct host io, h = host_open(ADDRESS, 0, 0);
	struct nvmf_reservation r;
	bool was_there;
	put_note("rubbish", 7);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32), NVME_STATUS_INTERNAL);
	host_close(&h);
	CHECK_ERR(nvmf_server_reservation(target.server, &frame.volume, &r), OXE_CORRUPT);
	CHECK_OK(nvmf_server_reservation_clear(target.server, &frame.volume, &was_there));
	CHECK(was_there);
	CHECK_OK(nvmf_server_reservation(target.server, &frame.volume, &r));
	h = attach(7, &io);
	leave(&h, &io);
}

WITH_TARGET(a_clear_that_the_pool_refuses_changes_nothing)
{
	struct host io, h = attach(7, &io);
	struct nvmf_reservation r;
	bool was_there;
	reserve(&io);
	pool_double_fail(frame.pool, OXE_IO);
	CHECK_ERR(nvmf_server_reservation_clear(target.server, &frame.volume, &was_there), OXE_IO);
	pool_double_fail(frame.pool, 0);
	CHECK_OK(nvmf_server_reservation(target.server, &frame.volume, &r));
	CHECK_EQ(r.count, 1);
	leave(&h, &io);
	CHECK_ERR(nvmf_server_reservation_clear(target.server, &(struct uuid){.b = {9}}, &was_there),
		  OXE_NOENT);
}
