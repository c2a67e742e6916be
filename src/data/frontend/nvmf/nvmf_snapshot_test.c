/*
 * nvmf_snapshot_test.c: snapshots over NVMe: hosts of our own, a volume and its snapshots, in virtual time.
 */
#include "data/frontend/nvmf/nvmf_frame_double.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_psk.h"

#define PAGE_BYTES 4096
#define BLOCKS	   8 /* of 512 bytes: a page */
#define KEY	   "NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:"
#define OTHER	   "nqn.2026-11.test:another-host"

static struct uuid snapshot;
static char nqn[NVMF_NQN_SIZE]; /* its */

static bool pick_snapshot(void *ctx, const struct snapshot_info *s)
{
	*(struct uuid *)ctx = s->id;
	return false;
}

/* The volume's first page is written with 1, the snapshot is taken, and then it is written with 2. */
static void snapshot_make(void)
{
	static uint8_t page[PAGE_BYTES];
	struct engine *e;
	CHECK_OK(engine_open_volume(frame.engines, &frame.volume, &e));
	memset(page, 1, sizeof(page));
	CHECK_OK(engine_write(e, page, 0, sizeof(page), 0));
	pool_double_snapshot(frame.pool, &frame.volume, "monday");
	memset(page, 2, sizeof(page));
	CHECK_OK(engine_write(e, page, 0, sizeof(page), 0));
	engine_close(e);
	snapshot_walk(frame.pool, &frame.volume, pick_snapshot, &snapshot);
	nvmf_snapshot_nqn(&snapshot, nqn);
}

static uint8_t first_byte(struct host *io)
{
	uint8_t page[PAGE_BYTES];
	CHECK_EQ(host_io(io, NVME_IO_READ, 0, BLOCKS, 0, page, NULL, sizeof(page)), 0);
	return page[0];
}

static uint16_t try_connect(const char *hostnqn, const char *subnqn)
{
	struct host h = host_open(ADDRESS, 0, 0);
	h.hostnqn = hostnqn;
	uint16_t status = host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, subnqn, 32);
	host_close(&h);
	return status;
}

static void allow_only(const char *hostnqn)
{
	target_allow(hostnqn, &(struct nvmf_access_texts){0}, true);
}

static uint64_t discovered(struct nvme_discovery_entry *entries, size_t count)
{
	static uint8_t log[sizeof(struct nvme_log_discovery) + 4 * sizeof(struct nvme_discovery_entry)];
	struct host h = host_begin(ADDRESS, NVME_NQN_DISCOVERY, 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, log, sizeof(log), 0), 0);
	host_close(&h);
	memcpy(entries, log + sizeof(struct nvme_log_discovery), count * sizeof(*entries));
	return le64_get(((struct nvme_log_discovery *)log)->records);
}

/* ---- what it is ------------------------------------------------------------------------------------------------------------------ */

WITH_TARGET(a_snapshot_is_a_subsystem_of_its_own_and_reads_as_the_volume_was)
{
	snapshot_make();
	struct host volume = host_begin(ADDRESS, target.nqn, 0), h = host_begin(ADDRESS, nqn, 0);
	struct host volume_io = host_queue(ADDRESS, &volume, target.nqn, 1, 0),
		    io = host_queue(ADDRESS, &h, nqn, 1, 0);
	CHECK_EQ(first_byte(&volume_io), 2);
	CHECK_EQ(first_byte(&io), 1);
	host_close(&io);
	host_close(&volume_io);
	host_close(&h);
	host_close(&volume);
}

WITH_TARGET(a_snapshot_has_its_own_id_and_says_that_it_is_write_protected)
{
	snapshot_make();
	struct host h = host_begin(ADDRESS, nqn, 0);
	struct nvme_id_ns ns;
	struct nvme_id_ns_independent independent;
	struct nvme_id_ctrl ctrl;
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_NAMESPACE, 0, &ns, sizeof(ns), NULL), 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_INDEPENDENT_NAMESPACE, 0, &independent,
			    sizeof(independent), NULL),
		 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_CONTROLLER, 0, &ctrl, sizeof(ctrl), NULL),
		 0);
	CHECK(memcmp(ns.nguid, snapshot.b, sizeof(ns.nguid)) == 0);
	CHECK_EQ(le64_get(ns.nsze), SIZE / 512);
	CHECK(ns.nsattr & NVME_NSATTR_READ_ONLY);
	CHECK(independent.nsattr & NVME_NSATTR_READ_ONLY);
	CHECK_EQ(ns.rescap, 0);
	CHECK_EQ(independent.rescap, 0);
	CHECK(!(le16_get(ctrl.oncs) & (NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES | NVME_ONCS_RESERVATIONS)));
	CHECK(!(ctrl.vwc & NVME_VWC_PRESENT));
	CHECK_STR(ctrl.subnqn, nqn);
	host_close(&h);
}

WITH_TARGET(whatever_would_change_a_snapshot_is_refused_as_write_protected)
{
	snapshot_make();
	struct host h = host_begin(ADDRESS, nqn, 0), io = host_queue(ADDRESS, &h, nqn, 1, 0);
	uint8_t page[PAGE_BYTES] = {9};
	struct nvme_dsm_range range = {.blocks = le32_of(BLOCKS)};
	struct nvme_reservation_keys keys = {le64_of(0), le64_of(10)};
	struct nvme_sqe trim = {.opcode = NVME_IO_DATASET_MANAGEMENT,
				.nsid = le32_of(1),
				.cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE)},
			reg = {.opcode = NVME_IO_RESERVATION_REGISTER, .nsid = le32_of(1)};
	CHECK_EQ(host_io(&io, NVME_IO_WRITE, 0, BLOCKS, 0, NULL, page, sizeof(page)),
		 NVME_STATUS_WRITE_PROTECTED | DNR);
	CHECK_EQ(host_io(&io, NVME_IO_WRITE_ZEROES, 0, BLOCKS, 0, NULL, NULL, 0),
		 NVME_STATUS_WRITE_PROTECTED | DNR);
	CHECK_EQ(host_finish(&io, host_command(&io, &trim, &range, sizeof(range), true), NULL, NULL, NULL),
		 NVME_STATUS_WRITE_PROTECTED | DNR);
	CHECK_EQ(host_finish(&io, host_command(&io, &reg, &keys, sizeof(keys), true), NULL, NULL, NULL),
		 NVME_STATUS_INVALID_OPCODE | DNR);
	CHECK_EQ(host_io(&io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0);
	CHECK_EQ(first_byte(&io), 1);
	host_close(&io);
	host_close(&h);
}

WITH_TARGET(a_snapshots_name_opens_no_volume_and_a_volumes_no_snapshot)
{
	snapshot_make();
	char wrong[NVMF_NQN_SIZE];
	nvmf_snapshot_nqn(&frame.volume, wrong);
	CHECK_EQ(try_connect(NULL, wrong), NVME_STATUS_CONNECT_INVALID);
	nvmf_volume_nqn(&snapshot, wrong);
	CHECK_EQ(try_connect(NULL, wrong), NVME_STATUS_CONNECT_INVALID);
	nvmf_snapshot_nqn(&(struct uuid){.b = {9}}, wrong);
	CHECK_EQ(try_connect(NULL, wrong), NVME_STATUS_CONNECT_INVALID);
	CHECK_EQ(try_connect(NULL, NVME_NQN_SNAPSHOT_PREFIX "x"), NVME_STATUS_CONNECT_INVALID | DNR);
}

/* ---- who may ------------------------------------------------------------------------------------------------------------------------ */

WITH_TARGET(a_snapshot_is_for_whoever_is_on_its_volumes_list)
{
	snapshot_make();
	struct host h = host_begin(ADDRESS, nqn, 0);
	uint16_t fes;
	allow_only(OTHER);
	CHECK(host_is_cut(&h, &fes));
	host_close(&h);
	CHECK_EQ(try_connect(NULL, nqn), NVME_STATUS_CONNECT_HOST | DNR);
	CHECK_EQ(try_connect(OTHER, nqn), 0);
}

WITH_OPTIONS(where_all_must_prove_themselves_a_snapshot_of_a_volume_without_a_list_is_for_nobody,
	     .authenticated_only = true)
{
	snapshot_make();
	CHECK_EQ(try_connect(NULL, nqn), NVME_STATUS_CONNECT_HOST | DNR);
}

WITH_OPTIONS(a_snapshot_is_had_through_tls_by_the_key_of_its_volumes_list, .tls = NVMF_TLS_ALLOWED)
{
	struct nvme_secret configured;
	struct tls_psk psk = {0};
	snapshot_make();
	target_allow(HOST_NQN, &(struct nvmf_access_texts){.tls_key = KEY}, true);
	CHECK_EQ(try_connect(NULL, nqn), NVME_STATUS_CONNECT_HOST | DNR); /* in the clear */
	CHECK_OK(nvme_tls_key_parse(KEY, &configured));
	CHECK_OK(nvme_psk_make(&configured, 1, HOST_NQN, nqn, &psk));
	struct host h = host_open_raw(ADDRESS);
	CHECK_OK(host_secure(&h, &psk));
	host_initialize(&h, 0, 0);
	CHECK_EQ(host_connect(&h, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, nqn, 32), 0);
	host_close(&h);
}

WITH_TARGET(a_reservation_of_the_volume_does_not_keep_anybody_from_reading_its_snapshot)
{
	snapshot_make();
	struct host a = host_begin(ADDRESS, target.nqn, 0), a_io = host_queue(ADDRESS, &a, target.nqn, 1, 0),
		    b, b_io;
	struct nvme_reservation_keys keys = {le64_of(0), le64_of(10)}, held = {le64_of(10), le64_of(0)};
	struct nvme_sqe reg = {.opcode = NVME_IO_RESERVATION_REGISTER, .nsid = le32_of(1)},
			acquire = {.opcode = NVME_IO_RESERVATION_ACQUIRE,
				   .nsid = le32_of(1),
				   .cdw10 = le32_of(NVME_RESERVATION_EXCLUSIVE_ACCESS << 8)};
	CHECK_EQ(host_finish(&a_io, host_command(&a_io, &reg, &keys, sizeof(keys), true), NULL, NULL, NULL),
		 0);
	CHECK_EQ(host_finish(&a_io, host_command(&a_io, &acquire, &held, sizeof(held), true), NULL, NULL,
			     NULL),
		 0);
	b = host_open(ADDRESS, 0, 0);
	b.hostid = 2;
	CHECK_EQ(host_connect(&b, NVME_ADMIN_QUEUE, NVME_CNTLID_ANY, nqn, 32), 0);
	CHECK_EQ(host_property_set(&b, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	b_io = host_queue(ADDRESS, &b, nqn, 1, 0);
	CHECK_EQ(first_byte(&b_io), 1);
	host_close(&b_io);
	host_close(&b);
	host_close(&a_io);
	host_close(&a);
}

/* ---- found ---------------------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(discovery_does_not_list_snapshots_unless_it_is_asked_to)
{
	snapshot_make();
	struct nvme_discovery_entry found;
	CHECK_EQ(discovered(&found, 1), 1);
	CHECK_STR(found.subnqn, target.nqn);
}

WITH_OPTIONS(discovery_lists_snapshots_where_that_was_asked_for, .discovers_snapshots = true)
{
	snapshot_make();
	struct nvme_discovery_entry found[2];
	CHECK_EQ(discovered(found, 2), 2);
	CHECK_STR(found[0].subnqn, target.nqn);
	CHECK_STR(found[1].subnqn, nqn);
	allow_only(OTHER);
	CHECK_EQ(discovered(found, 2), 0);
}
