/*
 * nvmf_hostile_test.c: hosts that vanish, come back too soon, abort what just ends, and come in crowds; beside each a host that
 * behaves and must not notice. In virtual time. What breaks the protocol itself is in nvmf_test.c.
 */
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"

#define BLOCKS	   8 /* of 512 bytes: a page */
#define PAGE_BYTES 4096
#define KATO_MS	   2000

static struct pair attach(uint8_t hostid, uint32_t kato_ms)
{
	struct pair p = {.admin = host_open(ADDRESS, 0, 0)};
	p.admin.hostid = hostid;
	p.admin.kato_ms = kato_ms;
	CHECK_EQ(host_connect(&p.admin, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_property_set(&p.admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	p.io = host_queue(ADDRESS, &p.admin, target.nqn, 1, 0);
	return p;
}

static void write_and_read(struct host *io, uint8_t with)
{
	uint8_t page[PAGE_BYTES];
	memset(page, with, sizeof(page));
	CHECK_EQ(host_io(io, NVME_IO_WRITE, 64, BLOCKS, 0, NULL, page, sizeof(page)), 0);
	memset(page, 0, sizeof(page));
	CHECK_EQ(host_io(io, NVME_IO_READ, 64, BLOCKS, 0, page, NULL, sizeof(page)), 0);
	CHECK_EQ(page[PAGE_BYTES - 1], with);
}

static struct nvmf_stats stats(void)
{
	struct nvmf_stats s;
	fiber_sleep(NS_PER_MS); /* its fibers see an end a moment later */
	nvmf_server_stats(target.server, &s);
	return s;
}

/* A command, and nothing waited for. */
static uint16_t start(struct host *io, uint8_t opcode, uint64_t lba, uint32_t blocks)
{
	struct nvme_sqe sqe = {.opcode = opcode, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, lba, blocks, 0);
	return host_command(io, &sqe, NULL, blocks * 512, false);
}

/* ---- aborts that race completions ------------------------------------------------------------------------------------------------ */

static void race(struct pair *p, uint64_t after_ns, uint8_t with)
{
	uint8_t page[PAGE_BYTES], back[PAGE_BYTES];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	uint64_t result;
	memset(page, with, sizeof(page));
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	uint16_t cid = host_command(&p->io, &sqe, page, sizeof(page), true);
	if (after_ns)
		fiber_sleep(after_ns);
	CHECK_EQ(host_admin(&p->admin, NVME_ADMIN_ABORT, 0, 1 | (uint32_t)cid << 16, 0, NULL, 0, &result), 0);
	CHECK_EQ(result & 1, 1); /* not aborted: it has ended, or will by itself */
	CHECK_EQ(host_finish(&p->io, cid, NULL, NULL, NULL), 0);
	CHECK_EQ(host_io(&p->io, NVME_IO_READ, 0, BLOCKS, 0, back, NULL, sizeof(back)),
		 0); /* no second answer */
	CHECK(memcmp(page, back, sizeof(page)) == 0);
}

WITH_TARGET(an_abort_at_any_moment_of_a_write_leaves_it_carried_out_and_answered_once)
{
	struct pair p = attach(1, 0);
	pool_double_delay(frame.pool, 100 * NS_PER_US);
	for (unsigned i = 0; i <= 60; i++)
		race(&p, i * 5 * NS_PER_US, (uint8_t)(i + 1));
	detach(&p);
}

WITH_TARGET(an_abort_of_what_was_never_sent_or_has_ended_is_answered_and_harms_nothing)
{
	struct pair p = attach(1, 0);
	uint64_t result;
	for (uint32_t i = 0; i < 200; i++) {
		uint32_t which = i % 3 | (i * 7919) << 16;
		CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_ABORT, 0, which, 0, NULL, 0, &result), 0);
		CHECK_EQ(result & 1, 1);
	}
	write_and_read(&p.io, 1);
	detach(&p);
}

/* ---- who comes back too soon -------------------------------------------------------------------------------------------------------- */

/* Half of the time the old connections are closed with commands under way, otherwise nobody ever hears of them again. */
WITH_TARGET(a_host_that_reconnects_at_once_with_the_same_queue_ids_gets_an_association_of_its_own_each_time)
{
	enum { ROUNDS = 24 };
	static struct pair left[ROUNDS];
	struct pair other = attach(9, 0), p = attach(1, KATO_MS);
	pool_double_delay(frame.pool, NS_PER_MS);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint16_t cntlid = p.admin.cntlid;
		for (int n = 0; n < 8; n++)
			start(&p.io, n & 1 ? NVME_IO_READ : NVME_IO_WRITE, 1024, 128);
		left[i] = p;
		if (i & 1)
			detach(&p);
		p = attach(1, KATO_MS);
		CHECK(p.admin.cntlid != cntlid);
		write_and_read(&p.io, (uint8_t)i);
		write_and_read(&other.io, (uint8_t)(i + 100));
	}
	CHECK(stats().controllers <= 2 + ROUNDS / 2);
	for (unsigned s = 0; s < 3 * KATO_MS / 1000; s++) { /* only who is heard stays */
		fiber_sleep(NS_PER_S);
		write_and_read(&p.io, 1);
		write_and_read(&other.io, 2);
	}
	CHECK_EQ(stats().controllers, 2);
	CHECK_EQ(stats().connections, 4);
	for (unsigned i = 0; i < ROUNDS; i += 2)
		detach(&left[i]);
	detach(&p);
	detach(&other);
}

WITH_TARGET(a_queue_id_that_is_in_use_is_refused_and_its_owner_does_not_notice)
{
	struct pair p = attach(1, 0);
	for (int i = 0; i < 20; i++) {
		struct host twice = host_open(ADDRESS, 0, 0);
		twice.hostid = 1;
		CHECK_EQ(host_connect(&twice, 1, p.admin.cntlid, target.nqn, 32),
			 NVME_STATUS_SEQUENCE_ERROR | DNR);
		host_close(&twice);
		write_and_read(&p.io, (uint8_t)i);
	}
	detach(&p);
}

/* ---- half-open ------------------------------------------------------------------------------------------------------------------------ */

WITH_TARGET(a_half_open_host_is_given_up_with_all_it_was_promised_when_its_keep_alive_is_over)
{
	struct pair gone = attach(1, KATO_MS), other = attach(9, 0);
	for (int n = 0; n < 16; n++)
		start(&gone.io, NVME_IO_WRITE, 0,
		      2048); /* a MiB each, asked for by R2T, and never heard of again */
	for (unsigned s = 0; s < 2 * KATO_MS / 1000 + 1; s++) {
		write_and_read(&other.io, (uint8_t)s);
		fiber_sleep(NS_PER_S);
	}
	CHECK_EQ(stats().controllers, 1);
	CHECK_EQ(stats().connections, 2);
	detach(&gone);
	struct pair back = attach(1, KATO_MS);
	write_and_read(&back.io, 3);
	detach(&back);
	detach(&other);
}

WITH_TARGET(a_half_open_queue_beside_a_living_admin_queue_is_given_up_and_its_id_is_free_again)
{
	struct pair p = attach(1, KATO_MS), other = attach(9, 0);
	uint64_t before = stats().connections_dropped;
	for (int n = 0; n < 31; n++)
		start(&p.io, NVME_IO_READ, 0, 2048); /* whose answers nobody reads */
	for (unsigned s = 0; s < 10 * 60 && stats().connections_dropped == before; s++) {
		CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_KEEP_ALIVE, 0, 0, 0, NULL, 0, NULL), 0);
		write_and_read(&other.io, (uint8_t)s);
		fiber_sleep(NS_PER_S);
	}
	CHECK_EQ(stats().connections_dropped, before + 1);
	host_close(&p.io);
	fiber_sleep(NS_PER_MS);
	p.io = host_queue(ADDRESS, &p.admin, target.nqn, 1, 0);
	write_and_read(&p.io, 7);
	detach(&p);
	detach(&other);
}

/* ---- crowds ---------------------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_crowd_of_half_greetings_is_gone_in_half_a_minute_and_others_are_served_meanwhile)
{
	enum { CROWD = 300 };
	static struct host crowd[CROWD];
	static const uint8_t half[60] = {NVMETCP_ICREQ, 0, 128, 0, 128};
	struct pair p = attach(1, 0);
	for (int i = 0; i < CROWD; i++) {
		crowd[i] = host_open_raw(ADDRESS);
		host_send(&crowd[i], half, (size_t)i % sizeof(half));
	}
	for (int s = 0; s < 32; s++) {
		write_and_read(&p.io, (uint8_t)s);
		fiber_sleep(NS_PER_S);
	}
	CHECK_EQ(stats().connections, 2);
	CHECK_EQ(stats().connections_dropped, CROWD);
	for (int i = 0; i < CROWD; i++)
		host_close(&crowd[i]);
	detach(&p);
}
