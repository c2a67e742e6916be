/*
 * nvmf_fence_test.c: reservations as hosts meet them: two or three hosts of our own and one volume, in virtual time.
 */
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"

#define BLOCKS	   8 /* of 512 bytes: a page */
#define PAGE_BYTES 4096
#define CONFLICT   (NVME_STATUS_RESERVATION_CONFLICT | DNR)
#define WE	   NVME_RESERVATION_WRITE_EXCLUSIVE
#define EA	   NVME_RESERVATION_EXCLUSIVE_ACCESS
#define WERO	   NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS

/* A target on a machine whose kernel has run once. */
#define WITH_MACHINE(test_name) WITH_OPTIONS(test_name, .boot_id = {.b = {1}})

/* The process ends, and another begins; `off`: the machine, too. */
static void target_restart(bool off)
{
	nvmf_server_close(target.server);
	target.options.boot_id.b[0] += off;
	target_start();
}

/* ---- hosts ------------------------------------------------------------------------------------------------------------------- */

static uint16_t try_attach(struct pair *p, uint8_t hostid)
{
	p->admin = host_open(ADDRESS, 0, 0);
	p->admin.hostid = hostid;
	uint16_t status = host_connect(&p->admin, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, target.nqn, 32);
	if (status)
		return status;
	CHECK_EQ(host_property_set(&p->admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	p->io = host_queue(ADDRESS, &p->admin, target.nqn, 1, 0);
	return 0;
}

static struct pair attach(uint8_t hostid)
{
	struct pair p;
	CHECK_EQ(try_attach(&p, hostid), 0);
	return p;
}

static uint16_t send_keys(struct host *h, uint8_t opcode, uint32_t cdw10, uint64_t current, uint64_t other)
{
	struct nvme_reservation_keys keys = {le64_of(current), le64_of(other)};
	struct nvme_sqe sqe = {.opcode = opcode, .nsid = le32_of(1), .cdw10 = le32_of(cdw10)};
	return host_command(h, &sqe, &keys, sizeof(keys), true);
}

static uint16_t run_keys(struct host *h, uint8_t opcode, uint32_t cdw10, uint64_t current, uint64_t other)
{
	return host_finish(h, send_keys(h, opcode, cdw10, current, other), NULL, NULL, NULL);
}

/* Through power loss, as Linux always wants it. */
static uint16_t reg(struct pair *p, uint64_t key)
{
	return run_keys(&p->io, NVME_IO_RESERVATION_REGISTER, NVME_REGISTER | (uint32_t)NVME_PERSIST << 30, 0,
			key);
}

static uint16_t acquire(struct pair *p, uint8_t action, uint8_t type, uint64_t key, uint64_t preempted)
{
	return run_keys(&p->io, NVME_IO_RESERVATION_ACQUIRE, action | (uint32_t)type << 8, key, preempted);
}

static uint16_t release(struct pair *p, uint8_t action, uint8_t type, uint64_t key)
{
	return run_keys(&p->io, NVME_IO_RESERVATION_RELEASE, action | (uint32_t)type << 8, key, 0);
}

struct report {
	struct nvme_reservation_report head;
	uint8_t padding[40];
	struct nvme_registrant_extended registrants[8];
};

static struct report report_of(struct pair *p)
{
	struct report w;
	struct nvme_sqe sqe = {.opcode = NVME_IO_RESERVATION_REPORT,
			       .nsid = le32_of(1),
			       .cdw10 = le32_of(sizeof(w) / 4 - 1),
			       .cdw11 = le32_of(NVME_RESERVATION_EXTENDED)};
	CHECK_EQ(host_finish(&p->io, host_command(&p->io, &sqe, NULL, sizeof(w), false), &w, NULL, NULL), 0);
	return w;
}

static uint16_t write_page(struct pair *p, uint8_t with)
{
	uint8_t page[PAGE_BYTES];
	memset(page, with, sizeof(page));
	return host_io(&p->io, NVME_IO_WRITE, 0, BLOCKS, 0, NULL, page, sizeof(page));
}

static uint16_t read_page(struct pair *p, uint8_t page[PAGE_BYTES])
{
	return host_io(&p->io, NVME_IO_READ, 0, BLOCKS, 0, page, NULL, PAGE_BYTES);
}

/* ---- the gate ------------------------------------------------------------------------------------------------------------------ */

WITH_MACHINE(what_a_reservation_shuts_out_is_refused_with_a_conflict)
{
	struct pair a = attach(1), b = attach(2);
	uint8_t page[PAGE_BYTES] = {0};
	struct nvme_sqe trim = {.opcode = NVME_IO_DATASET_MANAGEMENT,
				.nsid = le32_of(1),
				.cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE)};
	struct nvme_dsm_range range = {.blocks = le32_of(BLOCKS)};
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(write_page(&b, 1), 0);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WE, 10, 0), 0);
	CHECK_EQ(write_page(&b, 2), CONFLICT);
	CHECK_EQ(host_io(&b.io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), CONFLICT);
	CHECK_EQ(host_io(&b.io, NVME_IO_WRITE_ZEROES, 0, BLOCKS, 0, NULL, NULL, 0), CONFLICT);
	CHECK_EQ(
		host_finish(&b.io, host_command(&b.io, &trim, &range, sizeof(range), true), NULL, NULL, NULL),
		CONFLICT);
	CHECK_EQ(read_page(&b, page), 0);
	CHECK_EQ(page[0], 1);
	CHECK_EQ(host_io(&b.io, NVME_IO_VERIFY, 0, BLOCKS, 0, NULL, NULL, 0), 0);
	CHECK_EQ(host_io(&b.io, NVME_IO_COMPARE, 0, BLOCKS, 0, NULL, page, PAGE_BYTES), 0);
	CHECK_EQ(write_page(&a, 3), 0);
	CHECK_EQ(acquire(&a, NVME_PREEMPT, EA, 10, 10), 0);
	CHECK_EQ(read_page(&b, page), CONFLICT);
	CHECK_EQ(host_io(&b.io, NVME_IO_VERIFY, 0, BLOCKS, 0, NULL, NULL, 0), CONFLICT);
	CHECK_EQ(host_io(&b.io, NVME_IO_COMPARE, 0, BLOCKS, 0, NULL, page, PAGE_BYTES), CONFLICT);
	CHECK_EQ(release(&a, NVME_RELEASE, EA, 10), 0);
	CHECK_EQ(write_page(&b, 4), 0);
	detach(&a);
	detach(&b);
}

WITH_MACHINE(a_host_is_itself_on_each_of_its_controllers)
{
	struct pair a = attach(1), also_a = attach(1), b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(acquire(&also_a, NVME_ACQUIRE, EA, 10, 0), 0);
	CHECK_EQ(write_page(&a, 1), 0);
	CHECK_EQ(write_page(&also_a, 1), 0);
	CHECK_EQ(write_page(&b, 1), CONFLICT);
	detach(&a);
	detach(&also_a);
	detach(&b);
}

WITH_MACHINE(a_fused_pair_is_refused_whole)
{
	struct pair a = attach(1), b = attach(2);
	uint8_t data[512] = {0};
	struct nvme_sqe compare = {
		.opcode = NVME_IO_COMPARE, .flags = NVME_SQE_FUSE_FIRST, .nsid = le32_of(1)};
	struct nvme_sqe write = {.opcode = NVME_IO_WRITE, .flags = NVME_SQE_FUSE_SECOND, .nsid = le32_of(1)};
	nvme_rw_set(&compare, 0, 1, 0);
	nvme_rw_set(&write, 0, 1, 0);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WE, 10, 0), 0);
	uint16_t first = host_command(&b.io, &compare, data, sizeof(data), true);
	uint16_t second = host_command(&b.io, &write, data, sizeof(data), true);
	CHECK_EQ(host_finish(&b.io, first, NULL, NULL, NULL), NVME_STATUS_FUSED_FAILED | DNR);
	CHECK_EQ(host_finish(&b.io, second, NULL, NULL, NULL), CONFLICT);
	detach(&a);
	detach(&b);
}

WITH_MACHINE(a_host_without_an_identifier_reserves_nothing)
{
	struct pair nobody = attach(0);
	CHECK_EQ(reg(&nobody, 10), NVME_STATUS_SEQUENCE_ERROR | DNR);
	CHECK_EQ(report_of(&nobody).head.type, 0);
	detach(&nobody);
}

/* ---- fencing --------------------------------------------------------------------------------------------------------------------- */

#define WRITES 20

/* Writes of `p` to page 0, of which none is answered yet: most at the disk, the last with its data yet to be asked for. */
static void write_without_end(struct pair *p)
{
	static uint8_t page[PAGE_BYTES];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	memset(page, 2, sizeof(page));
	for (int i = 0; i < WRITES; i++) {
		sqe.sgl = (struct nvme_sgl){0};
		host_command(&p->io, &sqe, page, sizeof(page), i < WRITES - 1);
	}
	fiber_sleep(NS_PER_MS); /* they are on their way to the disk */
}

/* Answers in whatever order; data that is asked for is sent. How many succeeded? */
static unsigned finish_writes(struct pair *p)
{
	static uint8_t page[PAGE_BYTES];
	unsigned succeeded = 0;
	memset(page, 2, sizeof(page));
	for (unsigned answers = 0; answers < WRITES;) {
		struct host_pdu in;
		CHECK(host_pdu(&p->io, &in));
		const struct nvmetcp_r2t *r2t = (void *)in.head;
		uint16_t status = nvme_cqe_status(&((struct nvmetcp_response *)in.head)->cqe);
		if (in.pdu.type == NVMETCP_R2T) {
			host_data(&p->io, NVMETCP_FLAG_LAST, le16_get(r2t->cccid), le16_get(r2t->ttag), 0,
				  page, sizeof(page));
		} else {
			CHECK(status == 0 || status == CONFLICT);
			succeeded += status == 0;
			answers++;
		}
		free(in.data);
	}
	return succeeded;
}

/* B writes for a second at the disk; meanwhile `fence` by A is answered, and from then on page 0 is A's. */
static void expect_fenced(struct pair *a, struct pair *b, uint16_t (*fence)(struct pair *a))
{
	uint8_t page[PAGE_BYTES];
	pool_double_delay(frame.pool, NS_PER_S);
	write_without_end(b);
	CHECK_EQ(fence(a), 0);
	pool_double_delay(frame.pool, 0);
	CHECK_EQ(write_page(a, 1), 0);
	fiber_sleep(10 * NS_PER_S); /* whatever was still to come has come */
	CHECK_EQ(read_page(a, page), 0);
	CHECK_EQ(page[0], 1);
	CHECK_EQ(finish_writes(b), WRITES - 1); /* but for the one whose data came too late */
	CHECK_EQ(read_page(a, page), 0);
	CHECK_EQ(page[0], 1);
	CHECK_EQ(write_page(b, 2), CONFLICT);
}

static uint16_t fence_by_preempt(struct pair *a)
{
	return acquire(a, NVME_PREEMPT, WE, 10, 20);
}

static uint16_t fence_by_preempt_and_abort(struct pair *a)
{
	return acquire(a, NVME_PREEMPT_ABORT, EA, 10, 20);
}

static uint16_t fence_by_acquire(struct pair *a)
{
	return acquire(a, NVME_ACQUIRE, WE, 10, 0);
}

WITH_MACHINE(no_write_of_a_preempted_host_takes_effect_after_the_preempt_was_answered)
{
	uint16_t (*const ways[])(struct pair *) = {fence_by_preempt, fence_by_preempt_and_abort};
	struct pair a = attach(1), b = attach(2);
	for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
		CHECK_EQ(reg(&a, 10), 0);
		CHECK_EQ(reg(&b, 20), 0);
		CHECK_EQ(acquire(&b, NVME_ACQUIRE, WERO, 20, 0), 0);
		expect_fenced(&a, &b, ways[i]);
		CHECK_EQ(release(&a, NVME_CLEAR, 0, 10), 0);
	}
	detach(&a);
	detach(&b);
}

WITH_MACHINE(no_write_of_another_host_takes_effect_after_an_acquire_was_answered)
{
	struct pair a = attach(1), b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	expect_fenced(&a, &b, fence_by_acquire);
	detach(&a);
	detach(&b);
}

WITH_MACHINE(a_preempted_host_that_went_away_in_the_middle_of_a_write_is_waited_for_all_the_same)
{
	struct pair a = attach(1), b = attach(2);
	uint8_t page[PAGE_BYTES];
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&b, NVME_ACQUIRE, WE, 20, 0), 0);
	pool_double_delay(frame.pool, NS_PER_S);
	write_without_end(&b);
	detach(&b);
	fiber_sleep(NS_PER_MS);
	CHECK_EQ(fence_by_preempt(&a), 0);
	pool_double_delay(frame.pool, 0);
	CHECK_EQ(write_page(&a, 1), 0);
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(read_page(&a, page), 0);
	CHECK_EQ(page[0], 1);
	detach(&a);
}

WITH_MACHINE(a_host_that_registers_again_is_no_way_around_a_preempt_that_still_waits)
{
	struct pair a = attach(1), b = attach(2), also_b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&b, NVME_ACQUIRE, WERO, 20, 0), 0);
	uint64_t before_ns = rt_now_ns(frame.rt);
	pool_double_delay(frame.pool, NS_PER_S);
	write_without_end(&b);
	pool_double_delay(frame.pool, 5 * NS_PER_S);
	write_without_end(&also_b);
	uint16_t preempt = send_keys(&a.io, NVME_IO_RESERVATION_ACQUIRE, NVME_PREEMPT | WERO << 8, 10, 20);
	fiber_sleep(NS_PER_MS);
	send_keys(&b.io, NVME_IO_RESERVATION_REGISTER, NVME_REGISTER, 0, 20);
	CHECK_EQ(host_finish(&a.io, preempt, NULL, NULL, NULL), 0);
	CHECK(rt_now_ns(frame.rt) - before_ns >= 5 * NS_PER_S); /* the slowest, too */
	detach(&a);
	detach(&b);
	detach(&also_b);
}

/* ---- what lasts -------------------------------------------------------------------------------------------------------------------- */

static void expect_held_by_a(struct pair *a, struct pair *b)
{
	struct report w = report_of(b);
	CHECK_EQ(w.head.type, WE);
	CHECK_EQ(le16_get(w.head.registrants), 1);
	CHECK(w.registrants[0].hostid[0] == 1 && w.registrants[0].is_holder);
	CHECK_EQ(le64_get(w.registrants[0].key), 10);
	CHECK_EQ(write_page(b, 1), CONFLICT);
	CHECK_EQ(write_page(a, 1), 0);
}

WITH_MACHINE(a_reservation_outlives_its_hosts_the_process_and_the_machine)
{
	struct pair a = attach(1), b;
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WE, 10, 0), 0);
	CHECK_EQ(le32_get(report_of(&a).head.generation), 1);
	detach(&a); /* and nobody has the volume open now */
	b = attach(2);
	CHECK_EQ(le16_get(report_of(&b).registrants[0].cntlid), NVME_CNTLID_ANY);
	CHECK_EQ(write_page(&b, 1), CONFLICT);
	detach(&b);
	for (int off = 0; off < 2; off++) {
		target_restart(off);
		a = attach(1);
		b = attach(2);
		expect_held_by_a(&a, &b);
		CHECK_EQ(report_of(&a).head.persist, 1);
		CHECK_EQ(le32_get(report_of(&a).head.generation), 1);
		detach(&a);
		detach(&b);
	}
}

WITH_MACHINE(a_reservation_that_is_not_to_persist_outlives_the_process_and_not_the_machine)
{
	struct pair a = attach(1), b = attach(2);
	uint64_t persists;
	CHECK_EQ(run_keys(&a.io, NVME_IO_RESERVATION_REGISTER, NVME_REGISTER, 0, 10), 0);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WE, 10, 0), 0);
	CHECK_EQ(host_admin(&a.admin, NVME_ADMIN_GET_FEATURES, 1, NVME_FEATURE_RESERVATION_PERSIST, 0, NULL,
			    0, &persists),
		 0);
	CHECK_EQ(persists, 0);
	detach(&a);
	detach(&b);
	target_restart(false);
	a = attach(1);
	b = attach(2);
	expect_held_by_a(&a, &b);
	detach(&a);
	detach(&b);
	target_restart(true);
	b = attach(2);
	CHECK_EQ(write_page(&b, 1), 0);
	CHECK_EQ(le16_get(report_of(&b).head.registrants), 0);
	detach(&b);
}

WITH_MACHINE(the_feature_says_whether_it_persists_and_sets_it)
{
	struct pair a = attach(1);
	uint64_t value;
	CHECK_EQ(run_keys(&a.io, NVME_IO_RESERVATION_REGISTER, NVME_REGISTER, 0, 10), 0);
	CHECK_EQ(host_admin(&a.admin, NVME_ADMIN_SET_FEATURES, 1, NVME_FEATURE_RESERVATION_PERSIST, 1, NULL,
			    0, NULL),
		 0);
	CHECK_EQ(report_of(&a).head.persist, 1);
	detach(&a);
	target_restart(true);
	a = attach(1);
	CHECK_EQ(le16_get(report_of(&a).head.registrants), 1);
	CHECK_EQ(host_admin(&a.admin, NVME_ADMIN_GET_FEATURES, 1, NVME_FEATURE_RESERVATION_PERSIST, 0, NULL,
			    0, &value),
		 0);
	CHECK_EQ(value, 1);
	CHECK_EQ(host_admin(&a.admin, NVME_ADMIN_GET_FEATURES, 2, NVME_FEATURE_RESERVATION_PERSIST, 0, NULL,
			    0, &value),
		 NVME_STATUS_INVALID_NAMESPACE | DNR);
	CHECK_EQ(host_admin(&a.admin, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_HOST_ID, 1, NULL, 0, NULL),
		 NVME_STATUS_SEQUENCE_ERROR | DNR);
	detach(&a);
}

WITH_MACHINE(what_cannot_be_made_durable_is_not_done)
{
	struct pair a = attach(1), b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	pool_double_fail(frame.pool, OXE_NOSPC);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WE, 10, 0), NVME_STATUS_CAPACITY_EXCEEDED | DNR);
	pool_double_fail(frame.pool, 0);
	CHECK_EQ(report_of(&b).head.type, 0);
	CHECK_EQ(write_page(&b, 1), 0);
	pool_double_fail(
		frame.pool,
		OXE_FAILED); /* nobody knows whether it is done: the association ends, and the note tells */
	send_keys(&a.io, NVME_IO_RESERVATION_ACQUIRE, NVME_ACQUIRE | WE << 8, 10, 0);
	uint16_t fes;
	CHECK(host_is_cut(&a.io, &fes));
	pool_double_fail(frame.pool, 0);
	detach(&a);
	detach(&b);
}

static void put_note(const void *note, uint32_t len_bytes)
{
	struct engine *e;
	CHECK_OK(engine_open_volume(frame.engines, &frame.volume, &e));
	CHECK_OK(engine_note_set(e, POOL_NOTE_RESERVATION, note, len_bytes));
	engine_close(e);
}

WITH_MACHINE(a_note_that_cannot_be_believed_keeps_every_host_out)
{
	struct pair a;
	put_note("nonsense", 8);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(try_attach(&a, 1), NVME_STATUS_INTERNAL);
		host_close(&a.admin);
	}
	put_note(NULL, 0);
	a = attach(1);
	CHECK_EQ(write_page(&a, 1), 0);
	detach(&a);
}

/* ---- the report ------------------------------------------------------------------------------------------------------------------- */

WITH_MACHINE(a_report_has_an_entry_for_each_controller_of_each_registrant)
{
	struct pair a = attach(1), also_a = attach(1), b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&b, NVME_ACQUIRE, WERO, 20, 0), 0);
	struct report w = report_of(&a);
	CHECK_EQ(le32_get(w.head.generation), 2);
	CHECK_EQ(w.head.type, WERO);
	CHECK_EQ(le16_get(w.head.registrants), 3);
	CHECK_EQ(le16_get(w.registrants[0].cntlid), a.admin.cntlid);
	CHECK_EQ(le16_get(w.registrants[1].cntlid), also_a.admin.cntlid);
	CHECK_EQ(le16_get(w.registrants[2].cntlid), b.admin.cntlid);
	CHECK(!w.registrants[0].is_holder && !w.registrants[1].is_holder && w.registrants[2].is_holder);
	CHECK(bytes_are_zero(&w.registrants[3], sizeof(w.registrants[3])));
	struct nvme_sqe sqe = {.opcode = NVME_IO_RESERVATION_REPORT, .nsid = le32_of(1), .cdw10 = le32_of(5)};
	struct nvme_reservation_report head;
	CHECK_EQ(host_finish(&a.io, host_command(&a.io, &sqe, NULL, 24, false), &head, NULL, NULL),
		 NVME_STATUS_HOSTID_INCONSISTENT | DNR);
	sqe.sgl = (struct nvme_sgl){0};
	sqe.cdw11 = le32_of(NVME_RESERVATION_EXTENDED); /* as much of it as there is room for */
	CHECK_EQ(host_finish(&a.io, host_command(&a.io, &sqe, NULL, 24, false), &head, NULL, NULL), 0);
	CHECK_EQ(le16_get(head.registrants), 3);
	detach(&a);
	detach(&also_a);
	detach(&b);
}

WITH_MACHINE(lengths_of_keys_and_reports_are_checked)
{
	struct pair a = attach(1);
	struct nvme_reservation_keys keys = {0};
	struct nvme_sqe sqe = {.opcode = NVME_IO_RESERVATION_REGISTER, .nsid = le32_of(1)};
	CHECK_EQ(host_finish(&a.io, host_command(&a.io, &sqe, &keys, 8, true), NULL, NULL, NULL),
		 NVME_STATUS_SGL_LENGTH_INVALID | DNR);
	sqe = (struct nvme_sqe){.opcode = NVME_IO_RESERVATION_RELEASE, .nsid = le32_of(1)};
	CHECK_EQ(host_finish(&a.io, host_command(&a.io, &sqe, &keys, 8, true), NULL, NULL, NULL), CONFLICT);
	sqe = (struct nvme_sqe){
		.opcode = NVME_IO_RESERVATION_REPORT, .nsid = le32_of(1), .cdw10 = le32_of(UINT32_MAX)};
	CHECK_EQ(host_finish(&a.io, host_command(&a.io, &sqe, NULL, 4096, false), NULL, NULL, NULL),
		 NVME_STATUS_INVALID_FIELD | DNR);
	detach(&a);
}

/* ---- notices ---------------------------------------------------------------------------------------------------------------------- */

static uint16_t event_request(struct host *h)
{
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_ASYNC_EVENT};
	return host_command(h, &sqe, NULL, 0, false);
}

static void expect_event(struct host *h, uint16_t cid)
{
	uint64_t result;
	CHECK_EQ(host_finish(h, cid, NULL, NULL, &result), 0);
	CHECK_EQ(result, NVME_EVENT_COMMAND_SET | NVME_LOG_RESERVATION << 16);
}

static void expect_notice(struct host *h, uint64_t count, uint8_t what, uint8_t available)
{
	struct nvme_log_reservation w;
	CHECK_EQ(host_log(h, NVME_LOG_RESERVATION, &w, sizeof(w), 0), 0);
	CHECK_EQ(le64_get(w.count), count);
	CHECK_EQ(w.type, what);
	CHECK_EQ(w.available, available);
	CHECK_EQ(le32_get(w.nsid), what != 0);
}

WITH_MACHINE(a_preempted_host_is_told_on_each_controller_until_it_has_read_it)
{
	struct pair a = attach(1), b = attach(2), also_b = attach(2);
	uint16_t event = event_request(&b.admin), other = event_request(&a.admin);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&b, NVME_ACQUIRE, WE, 20, 0), 0);
	CHECK_EQ(acquire(&a, NVME_PREEMPT, EA, 10, 20), 0);
	expect_event(&b.admin, event);
	expect_notice(&also_b.admin, 1, NVME_REGISTRATION_PREEMPTED, 0);
	expect_notice(&also_b.admin, 0, 0, 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(release(&a, NVME_CLEAR, 0, 10), 0);
	expect_notice(&b.admin, 1, NVME_REGISTRATION_PREEMPTED, 1);
	event = event_request(&b.admin);
	expect_event(&b.admin, event); /* for the second, as the first was read */
	expect_notice(&b.admin, 2, NVME_RESERVATION_PREEMPTED, 0);
	expect_notice(&b.admin, 0, 0, 0);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&b, NVME_ACQUIRE, WERO, 20, 0), 0);
	CHECK_EQ(release(&b, NVME_RELEASE, WERO, 20), 0);
	expect_event(&a.admin, other);
	expect_notice(&a.admin, 1, NVME_RESERVATION_RELEASED, 0);
	detach(&a);
	detach(&b);
	detach(&also_b);
}

WITH_MACHINE(what_is_masked_is_not_told)
{
	struct pair a = attach(1), b = attach(2);
	uint64_t masked;
	CHECK_EQ(host_admin(&b.admin, NVME_ADMIN_SET_FEATURES, NVME_NSID_ALL, NVME_FEATURE_RESERVATION_MASK,
			    0xff & ~4u, NULL, 0, NULL),
		 0);
	CHECK_EQ(host_admin(&b.admin, NVME_ADMIN_GET_FEATURES, 1, NVME_FEATURE_RESERVATION_MASK, 0, NULL, 0,
			    &masked),
		 0);
	CHECK_EQ(masked, 0x0a);
	CHECK_EQ(reg(&a, 10), 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&a, NVME_PREEMPT, WE, 10, 20), 0);
	expect_notice(&b.admin, 0, 0, 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&a, NVME_ACQUIRE, WERO, 10, 0), 0);
	CHECK_EQ(release(&a, NVME_RELEASE, WERO, 10), 0);
	expect_notice(&b.admin, 1, NVME_RESERVATION_RELEASED, 0);
	detach(&a);
	detach(&b);
}

WITH_MACHINE(more_notices_than_are_kept_leave_a_gap_in_the_counts)
{
	struct pair a = attach(1), b = attach(2);
	CHECK_EQ(reg(&a, 10), 0);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(reg(&b, 20), 0);
		CHECK_EQ(acquire(&a, NVME_PREEMPT, WE, 10, 20), 0);
	}
	for (uint64_t i = 1; i <= 16; i++)
		expect_notice(&b.admin, i, NVME_REGISTRATION_PREEMPTED, (uint8_t)(16 - i));
	expect_notice(&b.admin, 0, 0, 0);
	CHECK_EQ(reg(&b, 20), 0);
	CHECK_EQ(acquire(&a, NVME_PREEMPT, WE, 10, 20), 0);
	expect_notice(&b.admin, 21, NVME_REGISTRATION_PREEMPTED, 0);
	detach(&a);
	detach(&b);
}
