/* nvmf_mirror_test.c: the target over a mirror whose copies come and go, and which another engine takes over; hosts of our own. */
#include "data/engine/mirror_double.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/frontend/nvmf/nvmf_host_double.h"

#define ADDRESS	   "tcp:10.0.0.1:4420"
#define BLOCKS	   8 /* of 512 bytes: a page */
#define PAGE_BYTES 4096
#define DNR	   NVME_STATUS_DNR

static struct nvmf_server *server;
static char nqn[NVMF_NQN_SIZE];

static void cut(bool is_cut)
{
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++)
		mirrored.is_cut[i] = is_cut;
}

static void serve(void)
{
	server = nvmf_server_new(mirrored.engines, &(struct nvmf_options){.boot_id = {.b = {1}}});
	CHECK_OK(nvmf_server_listen(server, ADDRESS, NULL));
	nvmf_volume_nqn(&mirrored.volume, nqn);
}

static void evict(void)
{
	nvmf_server_evict_volume(server, &mirrored.volume);
}

static void begin_without_copies(void)
{
	serve();
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
}

struct pair {
	struct host admin, io;
};

static uint16_t try_attach(struct pair *p, uint32_t kato_ms)
{
	p->admin = host_open(ADDRESS, 0, 0);
	p->admin.kato_ms = kato_ms;
	uint16_t status = host_connect(&p->admin, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, nqn, 32);
	if (status) {
		host_close(&p->admin);
		return status;
	}
	CHECK_EQ(host_property_set(&p->admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	p->io = host_queue(ADDRESS, &p->admin, nqn, 1, 0);
	return 0;
}

static struct pair attach(void)
{
	struct pair p;
	CHECK_EQ(try_attach(&p, 0), 0);
	return p;
}

static void detach(struct pair *p)
{
	host_close(&p->io);
	host_close(&p->admin);
}

static void expect_cut(struct pair *p)
{
	uint16_t fes;
	CHECK(host_is_cut(&p->io, &fes) && fes == 0);
	CHECK(host_is_cut(&p->admin, &fes) && fes == 0);
	detach(p);
}

static uint16_t write_page(struct pair *p, uint64_t page, uint8_t with)
{
	uint8_t data[PAGE_BYTES];
	memset(data, with, sizeof(data));
	return host_io(&p->io, NVME_IO_WRITE, page * BLOCKS, BLOCKS, 0, NULL, data, sizeof(data));
}

static void expect_page(struct pair *p, uint64_t page, uint8_t wanted)
{
	uint8_t data[PAGE_BYTES];
	CHECK_EQ(host_io(&p->io, NVME_IO_READ, page * BLOCKS, BLOCKS, 0, data, NULL, sizeof(data)), 0);
	CHECK_EQ(data[0], wanted);
	CHECK_EQ(data[PAGE_BYTES - 1], wanted);
}

static uint16_t send_write(struct pair *p, uint64_t page, uint8_t with)
{
	uint8_t data[PAGE_BYTES];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	memset(data, with, sizeof(data));
	nvme_rw_set(&sqe, page * BLOCKS, BLOCKS, 0);
	return host_command(&p->io, &sqe, data, sizeof(data), true);
}

/* ---- connecting --------------------------------------------------------------------------------------------------------------- */

WITH_COPIES(while_a_mirror_does_not_serve_connect_is_answered_busy_and_in_time, 2)
{
	struct pair p;
	begin_without_copies();
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	CHECK_EQ(try_attach(&p, 0), NVME_STATUS_CONNECT_BUSY);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns < 20 * NS_PER_S);
	cut(false);
	CHECK_EQ(try_attach(&p, 0), 0);
	CHECK_EQ(write_page(&p, 3, 7), 0);
	expect_page(&p, 3, 7);
	detach(&p);
	nvmf_server_close(server);
}

static void copies_return(void *arg)
{
	(void)arg;
	fiber_sleep(5 * NS_PER_S);
	cut(false);
}

WITH_COPIES(a_host_that_connects_just_before_a_mirror_serves_is_let_in_at_once, 2)
{
	struct pair p;
	begin_without_copies();
	fiber_spawn(mirrored.rt, "copies", copies_return, NULL);
	CHECK_EQ(try_attach(&p, 0), 0);
	CHECK_EQ(write_page(&p, 3, 7), 0);
	detach(&p);
	nvmf_server_close(server);
}

static bool was_refused;

static void connect_and_wait(void *arg)
{
	struct host h = host_open(ADDRESS, 0, 0);
	uint16_t fes;
	struct nvme_connect sqe = {.opcode = NVME_FABRICS,
				   .fctype = NVME_FABRICS_CONNECT,
				   .sqsize = le16_of(31),
				   .sgl = {.length = le32_of(sizeof(struct nvme_connect_data)),
					   .identifier = NVME_SGL_INCAPSULE}};
	struct nvme_connect_data data = {.cntlid = le16_of(NVME_CNTLID_ANY)};
	(void)arg;
	strcpy(data.subnqn, nqn);
	strcpy(data.hostnqn, HOST_NQN);
	host_command(&h, (void *)&sqe, &data, sizeof(data), true);
	was_refused = host_is_cut(&h, &fes);
	host_close(&h);
}

WITH_COPIES(a_target_closes_although_a_host_waits_for_a_mirror_to_serve, 2)
{
	begin_without_copies();
	was_refused = false;
	fiber_spawn_big(mirrored.rt, "host", connect_and_wait, NULL);
	fiber_sleep(2 * NS_PER_S);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	nvmf_server_close(server);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns <= NS_PER_S);
	fiber_sleep(NS_PER_S);
	CHECK(was_refused);
	cut(false);
}

WITH_COPIES(hosts_are_told_of_a_mirrored_volume_and_of_none_of_its_copies, 3)
{
	static struct {
		struct nvme_log_discovery head;
		struct nvme_discovery_entry entries[4];
	} log;
	serve();
	mirror_double_whole();
	struct host h = host_begin(ADDRESS, NVME_NQN_DISCOVERY, 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	CHECK_EQ(le64_get(log.head.records), 1);
	CHECK_STR(log.entries[0].subnqn, nqn);
	host_close(&h);
	nvmf_server_close(server);
}

WITH_COPIES(a_mirrored_volumes_snapshot_is_a_subsystem_to_be_read_while_copies_come_and_go, 2)
{
	struct uuid id = rt_random_uuid(mirrored.rt);
	struct pair p, s;
	serve();
	p = attach();
	CHECK_EQ(write_page(&p, 5, 1), 0);
	CHECK_OK(mirror_snapshot(mirrored.mirror, &id, "mon", NULL));
	CHECK_EQ(write_page(&p, 5, 2), 0);
	nvmf_snapshot_nqn(&id, nqn);
	s = attach();
	expect_page(&s, 5, 1);
	CHECK_EQ(write_page(&s, 5, 3), NVME_STATUS_WRITE_PROTECTED | DNR);
	CHECK(engines_is_open(mirrored.engines, &id));
	for (unsigned i = 0; i < 2; i++) {
		mirrored.is_cut[i] = true;
		expect_page(&s, 5, 1);
		fiber_sleep(5 * NS_PER_S);
		expect_page(&s, 5, 1);
		mirrored.is_cut[i] = false;
		mirror_double_whole();
	}
	expect_page(&p, 5, 2);
	mirror_double_down(evict); /* who has a snapshot of it is evicted, too */
	expect_cut(&s);
	expect_cut(&p);
	mirror_double_up();
	CHECK_EQ(try_attach(&s, 0), NVME_STATUS_CONNECT_INVALID); /* it is not known yet: try again */
	mirror_double_whole();
	CHECK_EQ(try_attach(&s, 0), 0);
	expect_page(&s, 5, 1);
	detach(&s);
	nvmf_server_close(server);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------------ */

WITH_COPIES(while_commands_wait_for_copies_keep_alive_is_answered_and_aborts_say_no, 2)
{
	struct pair p;
	uint64_t result;
	serve();
	CHECK_EQ(try_attach(&p, 5000), 0);
	CHECK_EQ(write_page(&p, 0, 1), 0);
	cut(true);
	uint16_t cid = send_write(&p, 0, 2);
	for (unsigned i = 0; i < 30; i++) {
		fiber_sleep(4 * NS_PER_S);
		CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_KEEP_ALIVE, 0, 0, 0, NULL, 0, NULL), 0);
	}
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_ABORT, 0, (uint32_t)cid << 16 | 1, 0, NULL, 0, &result), 0);
	CHECK_EQ(result & 1, 1); /* not aborted */
	cut(false);
	CHECK_EQ(host_finish(&p.io, cid, NULL, NULL, NULL), 0);
	expect_page(&p, 0, 2);
	detach(&p);
	nvmf_server_close(server);
}

/* As Linux does after its time-out: it gives up what it waits for, connects anew, and asks again. */
WITH_COPIES(a_host_that_gave_up_waiting_is_busy_until_what_it_left_has_ended_and_then_let_in, 2)
{
	struct pair p;
	serve();
	p = attach();
	CHECK_EQ(write_page(&p, 0, 1), 0);
	cut(true);
	send_write(&p, 0, 2);
	fiber_sleep(30 * NS_PER_S);
	detach(&p);
	CHECK_EQ(try_attach(&p, 0), NVME_STATUS_CONNECT_BUSY);
	cut(false);
	CHECK_EQ(try_attach(&p, 0), 0);
	CHECK_EQ(write_page(&p, 0, 3), 0);
	fiber_sleep(60 * NS_PER_S);
	expect_page(&p, 0, 3); /* and the old one does not come after */
	detach(&p);
	nvmf_server_close(server);
}

#define READ_BYTES (MiB)

static void ask_much(struct pair *p)
{
	for (unsigned i = 0; i < 100; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, 0, READ_BYTES / 512, 0);
		host_command(&p->io, &sqe, NULL, READ_BYTES, false);
	}
}

WITH_COPIES(a_volume_that_waits_for_its_copies_does_not_starve_another, 2)
{
	static uint8_t data[READ_BYTES];
	struct volume_spec spec = {
		.name = "other", .id = rt_random_uuid(mirrored.rt), .size_bytes = MIRROR_DOUBLE_BYTES};
	struct pair greedy[12], other;
	server = nvmf_server_new(mirrored.engines, &(struct nvmf_options){.buffer_budget_bytes = 16 * MiB});
	CHECK_OK(nvmf_server_listen(server, ADDRESS, NULL));
	nvmf_volume_nqn(&mirrored.volume, nqn);
	CHECK_OK(volume_create(mirrored.pools[2], &spec));
	for (size_t i = 0; i < ARRAY_COUNT(greedy); i++)
		greedy[i] = attach();
	cut(true);
	for (size_t i = 0; i < ARRAY_COUNT(greedy); i++)
		ask_much(&greedy[i]);
	fiber_sleep(10 * NS_PER_S);
	for (size_t i = 0; i < ARRAY_COUNT(greedy); i++)
		detach(&greedy[i]); /* what they asked for waits on */
	nvmf_volume_nqn(&spec.id, nqn);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	other = attach();
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(host_io(&other.io, NVME_IO_READ, 0, READ_BYTES / 512, 0, data, NULL, sizeof(data)),
			 0);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns < NS_PER_S);
	detach(&other);
	cut(false);
	fiber_sleep(10 * NS_PER_S);
	nvmf_server_close(server);
}

WITH_COPIES(a_target_closes_although_commands_wait_inside_a_mirror_that_was_stopped, 2)
{
	struct pair p, gone;
	serve();
	p = attach();
	gone = attach();
	CHECK_EQ(write_page(&p, 0, 1), 0);
	cut(true);
	for (unsigned i = 0; i < 10; i++) {
		send_write(&p, i, 2);
		send_write(&gone, 10 + i, 2);
	}
	fiber_sleep(30 * NS_PER_S);
	detach(&gone); /* what it asked for waits on */
	fiber_sleep(30 * NS_PER_S);
	mirror_stop(mirrored.mirror);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	nvmf_server_close(server);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns <= NS_PER_S);
	expect_cut(&p);
	CHECK(!engines_is_open(mirrored.engines, &mirrored.volume));
	cut(false);
}

/* ---- over --------------------------------------------------------------------------------------------------------------------- */

WITH_COPIES(a_fenced_mirror_ends_the_association_and_the_next_one_serves_what_was_acknowledged, 2)
{
	struct pair p, idle;
	serve();
	p = attach();
	idle = attach();
	CHECK_EQ(write_page(&p, 0, 1), 0);
	mirror_double_usurp();
	send_write(&p, 0, 2);
	expect_cut(&p); /* no error */
	CHECK_EQ(try_attach(&p, 0), NVME_STATUS_CONNECT_INVALID);
	mirror_double_down(evict);
	expect_cut(&idle); /* who asked for nothing is evicted */
	mirror_double_up();
	CHECK_EQ(try_attach(&p, 0), 0);
	uint8_t data[PAGE_BYTES];
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, data, NULL, sizeof(data)), 0);
	CHECK(data[0] == 1 || data[0] == 2);
	detach(&p);
	nvmf_server_close(server);
}

/* ---- what it is told -------------------------------------------------------------------------------------------------------------- */

static bool has_write_cache(struct pair *p)
{
	static struct nvme_id_ctrl c;
	CHECK_EQ(host_admin(&p->admin, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_CONTROLLER, 0, &c, sizeof(c), NULL),
		 0);
	return c.vwc & NVME_VWC_PRESENT;
}

/* V11. The host is on this node, so what it has not flushed may go with it; but not what one distant copy alone would hold. */
WITH_COPIES(a_near_host_is_told_of_a_cache_and_a_write_that_one_distant_copy_holds_alone_is_durable, 2)
{
	struct pair p;
	mirror_double_down(NULL);
	mirrored.is_far[1] = true;
	mirror_double_up();
	serve();
	p = attach();
	mirror_double_whole();
	CHECK(has_write_cache(&p));
	uint64_t before = mirrored.durable;
	CHECK_EQ(write_page(&p, 0, 1), 0);
	CHECK_EQ(mirrored.durable, before);
	mirrored.is_cut[0] = true;
	CHECK_EQ(write_page(&p, 0, 2), 0);
	before = mirrored.durable;
	CHECK_EQ(write_page(&p, 0, 3), 0);
	CHECK_EQ(mirrored.durable, before + 1);
	mirrored.is_cut[0] = false;
	mirror_double_whole();
	before = mirrored.durable;
	CHECK_EQ(host_io(&p.io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0);
	CHECK_EQ(mirrored.durable, before + 2); /* on both */
	detach(&p);
	nvmf_server_close(server);
}

/* ---- notes -------------------------------------------------------------------------------------------------------------------- */

static uint16_t run_keys(struct pair *p, uint8_t opcode, uint32_t cdw10, uint64_t current, uint64_t other)
{
	struct nvme_reservation_keys keys = {le64_of(current), le64_of(other)};
	struct nvme_sqe sqe = {.opcode = opcode, .nsid = le32_of(1), .cdw10 = le32_of(cdw10)};
	return host_finish(&p->io, host_command(&p->io, &sqe, &keys, sizeof(keys), true), NULL, NULL, NULL);
}

static uint16_t reserve(struct pair *p)
{
	uint16_t status = run_keys(p, NVME_IO_RESERVATION_REGISTER,
				   NVME_REGISTER | (uint32_t)NVME_PERSIST << 30, 0, 0xa1);
	return status ? status
		      : run_keys(p, NVME_IO_RESERVATION_ACQUIRE,
				 NVME_ACQUIRE | NVME_RESERVATION_WRITE_EXCLUSIVE << 8, 0xa1, 0);
}

WITH_COPIES(a_reservation_of_a_mirrored_volume_goes_with_it_from_engine_to_engine, 2)
{
	struct pair p, other;
	struct nvmf_reservation *r = mem_zalloc(sizeof(*r));
	serve();
	p = attach();
	CHECK_EQ(reserve(&p), 0);
	detach(&p);
	mirror_double_down(evict);
	nvmf_server_close(server);
	mirror_double_up();
	serve();
	CHECK_OK(nvmf_server_reservation(server, &mirrored.volume, r));
	CHECK_EQ(r->count, 1);
	CHECK_EQ(r->type, NVME_RESERVATION_WRITE_EXCLUSIVE);
	other.admin = host_open(ADDRESS, 0, 0);
	other.admin.hostid = 2;
	CHECK_EQ(host_connect(&other.admin, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, nqn, 32), 0);
	CHECK_EQ(host_property_set(&other.admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	other.io = host_queue(ADDRESS, &other.admin, nqn, 1, 0);
	CHECK_EQ(write_page(&other, 0, 1), NVME_STATUS_RESERVATION_CONFLICT | DNR);
	detach(&other);
	free(r);
	nvmf_server_close(server);
}

WITH_COPIES(nobody_connects_while_a_mirrored_volumes_notes_cannot_be_read, 2)
{
	struct pair p;
	serve();
	mirrored.notes_err = OXE_NOTREADY;
	CHECK_EQ(try_attach(&p, 0), NVME_STATUS_INTERNAL);
	mirrored.notes_err = 0;
	CHECK_EQ(try_attach(&p, 0), 0);
	mirrored.notes_err = OXE_NOTREADY; /* a reservation that could not be noted is none */
	CHECK_EQ(reserve(&p), NVME_STATUS_INTERNAL);
	mirrored.notes_err = 0;
	CHECK_EQ(reserve(&p), 0);
	detach(&p);
	nvmf_server_close(server);
}
