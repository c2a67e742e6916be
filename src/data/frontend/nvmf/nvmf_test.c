/*
 * nvmf_test.c: the target and hosts of our own on one reactor in virtual time, over a store of arrays.
 *
 * What arrives is cut into random pieces, so each of these is also a test of PDUs in halves. Deadlines cost nothing here.
 */
#include "base/prng.h"
#include "data/frontend/nvmf/nvmf_command.h"
#include "data/frontend/nvmf/nvmf_conn.h"
#include "data/frontend/nvmf/nvmf_frame_double.h"
#include "data/nvme/nvme_nqn.h"

#include <stdio.h>

#define BOTH   (NVMETCP_DIGEST_HEADER | NVMETCP_DIGEST_DATA)
#define BLOCKS 8 /* of 512 bytes: a page */

static struct pair attach(uint8_t digests)
{
	struct pair p;
	p.admin = host_begin(ADDRESS, target.nqn, digests);
	p.io = host_queue(ADDRESS, &p.admin, target.nqn, 1, digests);
	return p;
}

static void expect_cut(struct host *h, uint16_t wanted_fes)
{
	uint16_t fes;
	CHECK(host_is_cut(h, &fes));
	CHECK_EQ(fes, wanted_fes);
}

static uint64_t dropped(void)
{
	struct nvmf_stats s;
	fiber_sleep(NS_PER_MS); /* its fibers see the end a moment after the host */
	nvmf_server_stats(target.server, &s);
	return s.connections_dropped;
}

static uint8_t *pattern(size_t len_bytes, uint64_t seed)
{
	uint8_t *data = mem_alloc(len_bytes);
	struct prng rng;
	prng_seed(&rng, seed);
	prng_fill(&rng, data, len_bytes);
	return data;
}

/* ---- reading and writing ----------------------------------------------------------------------------------------------------- */

static void write_and_read(struct host *h, uint64_t offset_bytes, uint32_t len_bytes)
{
	uint8_t *out = pattern(len_bytes, offset_bytes + len_bytes), *in = mem_zalloc(len_bytes);
	uint64_t lba = offset_bytes / frame.lba_bytes;
	uint32_t blocks = len_bytes / frame.lba_bytes;
	CHECK_EQ(host_io(h, NVME_IO_WRITE, lba, blocks, 0, NULL, out, len_bytes), 0);
	CHECK_EQ(host_io(h, NVME_IO_READ, lba, blocks, 0, in, NULL, len_bytes), 0);
	CHECK(memcmp(in, out, len_bytes) == 0);
	free(in);
	free(out);
}

static void all_sizes(uint8_t digests, uint8_t cattr)
{
	struct host admin = host_begin(ADDRESS, target.nqn, digests), h = host_open(ADDRESS, digests, 0);
	h.cattr = cattr;
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 128), 0);
	static const uint32_t sizes[] = {4096, 8192, 12288, 65536, 262144, 1048576};
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		write_and_read(&h, i * MiB, sizes[i]);
	write_and_read(&h, SIZE - frame.lba_bytes, frame.lba_bytes);
	host_close(&h);
	host_close(&admin);
}

WITH_TARGET(what_is_written_is_read_with_each_kind_of_digest)
{
	for (uint8_t digests = 0; digests <= BOTH; digests++)
		all_sizes(digests, 0);
}

WITH_BLOCKS(blocks_of_4096_are_served_as_such, 4096, 0)
{
	all_sizes(0, 0);
}

WITH_TARGET(without_flow_control_the_data_of_a_read_is_its_answer)
{
	struct host admin = host_begin(ADDRESS, target.nqn, 0), h = host_open(ADDRESS, 0, 0);
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = le32_of(1)};
	struct host_pdu in;
	h.cattr = NVME_CATTR_NO_SQ_FLOW_CONTROL;
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 128), 0);
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	host_command(&h, &sqe, NULL, 4096, false);
	CHECK(host_pdu(&h, &in));
	CHECK_EQ(in.pdu.type, NVMETCP_C2H_DATA);
	CHECK_EQ(in.pdu.flags, NVMETCP_FLAG_SUCCESS | NVMETCP_FLAG_LAST);
	free(in.data);
	CHECK_EQ(host_io(&h, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0); /* and nothing was left to come */
	host_close(&h);
	host_close(&admin);
	all_sizes(0, NVME_CATTR_NO_SQ_FLOW_CONTROL);
	all_sizes(BOTH, NVME_CATTR_NO_SQ_FLOW_CONTROL);
}

WITH_TARGET(data_stands_where_the_host_wants_it_aligned)
{
	for (unsigned hpda = 0; hpda <= NVMETCP_PDA_MAX; hpda += 5) {
		struct host admin = host_begin(ADDRESS, target.nqn, 0),
			    h = host_open(ADDRESS, BOTH, (uint8_t)hpda);
		CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 16), 0);
		write_and_read(&h, 0, 4096); /* the double checks where it is */
		host_close(&h);
		host_close(&admin);
	}
}

WITH_TARGET(many_commands_at_once_are_answered_each_once)
{
	struct pair p = attach(0);
	uint8_t *out = pattern(64 * KiB, 1), *in = mem_zalloc(64 * KiB);
	bool answered[64] = {false};
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, 128, 0, NULL, out, 64 * KiB), 0);
	uint16_t first = p.io.next_cid;
	for (uint32_t i = 0; i < 64; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, i, 1, 0);
		host_command(&p.io, &sqe, NULL, 512, false);
	}
	for (uint32_t done = 0; done < 64;) {
		struct host_pdu pdu;
		CHECK(host_pdu(&p.io, &pdu));
		const struct nvmetcp_data *data = (void *)pdu.head;
		const struct nvme_cqe *cqe = &((struct nvmetcp_response *)pdu.head)->cqe;
		if (pdu.pdu.type == NVMETCP_C2H_DATA) {
			memcpy(in + (le16_get(data->cccid) - first) * 512, pdu.data, 512);
		} else {
			CHECK(!answered[le16_get(cqe->cid) - first] && nvme_cqe_status(cqe) == 0);
			answered[le16_get(cqe->cid) - first] = true;
			done++;
		}
		free(pdu.data);
	}
	CHECK(memcmp(in, out, 64 * 512) == 0);
	free(in);
	free(out);
	detach(&p);
}

WITH_TARGET(zeroes_trims_flushes_compares_and_verifies)
{
	struct pair p = attach(0);
	uint8_t *out = pattern(8192, 1), in[8192], zeroes[8192] = {0};
	struct nvme_dsm_range ranges[2] = {{.blocks = le32_of(8), .lba = le64_of(0)},
					   {.blocks = le32_of(8), .lba = le64_of(16)}};
	struct nvme_sqe trim = {.opcode = NVME_IO_DATASET_MANAGEMENT,
				.nsid = le32_of(1),
				.cdw10 = le32_of(1),
				.cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE)};
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, 16, NVME_RW_FUA, NULL, out, 8192), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_COMPARE, 0, 16, 0, NULL, out, 8192), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_COMPARE, 1, 8, 0, NULL, out, 4096),
		 NVME_STATUS_COMPARE_FAILURE | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_VERIFY, 0, 65536 / 8, 0, NULL, NULL, 0), 0);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &trim, ranges, sizeof(ranges), true), NULL, NULL,
			     NULL),
		 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, 16, 0, in, NULL, 8192), 0);
	CHECK(memcmp(in, zeroes, 4096) == 0 && memcmp(in + 4096, out + 4096, 4096) == 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE_ZEROES, 8, 8, NVME_RW_DEALLOCATE, NULL, NULL, 0), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, 16, NVME_RW_FUA, in, NULL, 8192), 0);
	CHECK(memcmp(in, zeroes, 8192) == 0);
	free(out);
	detach(&p);
}

WITH_TARGET(a_large_compare_asks_for_its_data)
{
	struct pair p = attach(BOTH);
	uint8_t *out = pattern(MiB, 1);
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, 2048, 0, NULL, out, MiB), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_COMPARE, 0, 2048, 0, NULL, out, MiB), 0);
	out[MiB - 1] ^= 1;
	CHECK_EQ(host_io(&p.io, NVME_IO_COMPARE, 0, 2048, 0, NULL, out, MiB),
		 NVME_STATUS_COMPARE_FAILURE | DNR);
	free(out);
	detach(&p);
}

WITH_TARGET(what_a_command_may_not_ask_is_refused_and_the_queue_goes_on)
{
	struct pair p = attach(0);
	uint8_t data[8192] = {0};
	struct nvme_sqe odd = {.opcode = NVME_IO_READ, .nsid = le32_of(2)};
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, SIZE / 512, 1, 0, data, NULL, 512),
		 NVME_STATUS_LBA_RANGE | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, SIZE / 512 - 1, 2, 0, data, NULL, 1024),
		 NVME_STATUS_LBA_RANGE | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, UINT64_MAX, 1, 0, data, NULL, 512),
		 NVME_STATUS_LBA_RANGE | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, SIZE / 512, 1, 0, NULL, data, 512),
		 NVME_STATUS_LBA_RANGE | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, 2049, 0, data, NULL, 2049 * 512),
		 NVME_STATUS_INVALID_FIELD | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, 1, 0, data, NULL, 4096),
		 NVME_STATUS_SGL_LENGTH_INVALID | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, 8, 0, NULL, data, 512),
		 NVME_STATUS_SGL_LENGTH_INVALID | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, 1, NVME_RW_PRINFO_MASK, data, NULL, 512),
		 NVME_STATUS_INVALID_PROTECTION | DNR);
	CHECK_EQ(host_io(&p.io, NVME_IO_COPY, 0, 1, 0, NULL, NULL, 0), NVME_STATUS_INVALID_OPCODE | DNR);
	CHECK_EQ(host_io(&p.io, 0xff, 0, 1, 0, NULL, NULL, 0), NVME_STATUS_INVALID_OPCODE | DNR);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &odd, NULL, 512, false), data, NULL, NULL),
		 NVME_STATUS_INVALID_NAMESPACE | DNR);
	write_and_read(&p.io, 0, 4096);
	detach(&p);
}

WITH_TARGET(data_in_a_capsule_is_found_where_the_descriptor_says)
{
	struct pair p = attach(0);
	uint8_t *out = pattern(8192, 1), in[4096];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	sqe.sgl = (struct nvme_sgl){le64_of(1024), le32_of(4096), {0}, NVME_SGL_INCAPSULE};
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &sqe, out, 8192, true), NULL, NULL, NULL), 0);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, in, NULL, 4096), 0);
	CHECK(memcmp(in, out + 1024, 4096) == 0);
	sqe.sgl.address = le64_of(4097);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &sqe, out, 8192, true), NULL, NULL, NULL),
		 NVME_STATUS_SGL_OFFSET_INVALID | DNR);
	sqe.sgl.address = le64_of(UINT64_MAX);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &sqe, out, 8192, true), NULL, NULL, NULL),
		 NVME_STATUS_SGL_OFFSET_INVALID | DNR);
	sqe.sgl.identifier = 0x40;
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &sqe, out, 8192, true), NULL, NULL, NULL),
		 NVME_STATUS_SGL_TYPE_INVALID | DNR);
	free(out);
	detach(&p);
}

WITH_TARGET(an_error_of_the_store_is_that_of_the_command)
{
	static const struct {
		int err;
		uint16_t read, write;
	} table[] = {
		{OXE_IO, NVME_STATUS_READ_ERROR | DNR, NVME_STATUS_WRITE_FAULT | DNR},
		{OXE_NOSPC, NVME_STATUS_CAPACITY_EXCEEDED | DNR, NVME_STATUS_CAPACITY_EXCEEDED | DNR},
		{OXE_CORRUPT, NVME_STATUS_READ_ERROR | DNR, NVME_STATUS_WRITE_FAULT | DNR},
		{OXE_NOMEM, NVME_STATUS_INTERNAL, NVME_STATUS_INTERNAL},
	};
	struct pair p = attach(0);
	uint8_t data[4096] = {0};
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		pool_double_fail(frame.pool, table[i].err);
		CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, data, NULL, 4096), table[i].read);
		CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, BLOCKS, 0, NULL, data, 4096), table[i].write);
	}
	pool_double_fail(frame.pool, 0);
	write_and_read(&p.io, 0, 4096);
	detach(&p);
}

WITH_TARGET(a_pool_that_failed_is_a_pause_and_no_error)
{
	struct pair p = attach(0);
	uint8_t data[4096] = {0};
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	pool_double_fail(frame.pool, OXE_FAILED);
	host_command(&p.io, &sqe, data, 4096, true);
	expect_cut(&p.io, 0);
	expect_cut(&p.admin, 0);
	detach(&p);
	pool_double_fail(frame.pool, 0);
	p = attach(0); /* it is back: sent again, it succeeds */
	write_and_read(&p.io, 0, 4096);
	detach(&p);
}

/* ---- compare and write ----------------------------------------------------------------------------------------------------------- */

struct fused {
	uint16_t compare, write;
};

/* Send the two halves; their statuses. */
static struct fused fuse(struct host *h, uint64_t lba, const void *expected, const void *wanted,
			 uint32_t len_bytes, bool in_capsule)
{
	struct nvme_sqe compare = {
		.opcode = NVME_IO_COMPARE, .flags = NVME_SQE_FUSE_FIRST, .nsid = le32_of(1)};
	struct nvme_sqe write = {.opcode = NVME_IO_WRITE, .flags = NVME_SQE_FUSE_SECOND, .nsid = le32_of(1)};
	struct fused out = {UINT16_MAX, UINT16_MAX};
	nvme_rw_set(&compare, lba, len_bytes / frame.lba_bytes, 0);
	nvme_rw_set(&write, lba, len_bytes / frame.lba_bytes, 0);
	uint16_t first = host_command(h, &compare, expected, len_bytes, in_capsule);
	uint16_t second = host_command(h, &write, wanted, len_bytes, in_capsule);
	for (int answers = 0; answers < 2;) {
		struct host_pdu p;
		CHECK(host_pdu(h, &p));
		const struct nvmetcp_r2t *r2t = (void *)p.head;
		const struct nvme_cqe *cqe = &((struct nvmetcp_response *)p.head)->cqe;
		if (p.pdu.type == NVMETCP_R2T) {
			host_data(h, NVMETCP_FLAG_LAST, le16_get(r2t->cccid), le16_get(r2t->ttag), 0,
				  le16_get(r2t->cccid) == first ? expected : wanted, len_bytes);
		} else {
			*(le16_get(cqe->cid) == first ? &out.compare : &out.write) = nvme_cqe_status(cqe);
			CHECK(le16_get(cqe->cid) == first || le16_get(cqe->cid) == second);
			answers++;
		}
		free(p.data);
	}
	return out;
}

WITH_TARGET(compare_and_write_writes_only_what_compares)
{
	struct pair p = attach(0);
	uint8_t zeroes[512] = {0}, ones[512], in[512];
	memset(ones, 1, sizeof(ones));
	for (int in_capsule = 0; in_capsule < 2; in_capsule++) {
		struct fused f = fuse(&p.io, (uint64_t)in_capsule, zeroes, ones, 512, in_capsule);
		CHECK(f.compare == 0 && f.write == 0);
		f = fuse(&p.io, (uint64_t)in_capsule, zeroes, zeroes, 512, in_capsule);
		CHECK_EQ(f.compare, NVME_STATUS_COMPARE_FAILURE | DNR);
		CHECK_EQ(f.write, NVME_STATUS_FUSED_FAILED | DNR);
		CHECK_EQ(host_io(&p.io, NVME_IO_READ, (uint64_t)in_capsule, 1, 0, in, NULL, 512), 0);
		CHECK(memcmp(in, ones, 512) == 0);
	}
	uint8_t *large = mem_zalloc(16384);
	struct fused f =
		fuse(&p.io, 64, large, large, 16384, false); /* more than is promised to be one step */
	CHECK_EQ(f.compare, NVME_STATUS_ATOMIC_UNIT | DNR);
	CHECK_EQ(f.write, NVME_STATUS_FUSED_FAILED | DNR);
	free(large);
	detach(&p);
}

struct contender {
	struct pair p;
	uint8_t id;
	uint32_t wins;
	struct rt_group *group;
};

/* Take a lock that is free when its block is zero; give it back. */
static void contend(void *arg)
{
	struct contender *c = arg;
	uint8_t zeroes[512] = {0}, mine[512], in[512];
	memset(mine, c->id, sizeof(mine));
	while (c->wins < 5) {
		struct fused f = fuse(&c->p.io, 3, zeroes, mine, 512, true);
		if (f.compare)
			continue;
		CHECK_EQ(f.write, 0);
		CHECK_EQ(host_io(&c->p.io, NVME_IO_READ, 3, 1, 0, in, NULL, 512), 0);
		CHECK(memcmp(in, mine, 512) == 0); /* nobody else took it */
		c->wins++;
		CHECK_EQ(host_io(&c->p.io, NVME_IO_WRITE, 3, 1, 0, NULL, zeroes, 512), 0);
	}
	group_done(c->group);
}

WITH_TARGET(of_two_hosts_that_compare_and_write_one_wins)
{
	struct contender two[2];
	struct rt_group group;
	group_init(&group);
	pool_double_delay(frame.pool, 3 * NS_PER_MS);
	for (int i = 0; i < 2; i++) {
		two[i] = (struct contender){.p = attach(0), .id = (uint8_t)(i + 1), .group = &group};
		group_add(&group, 1);
		fiber_spawn(frame.rt, "contend", contend, &two[i]);
	}
	group_wait(&group);
	detach(&two[0].p);
	detach(&two[1].p);
}

struct late_write {
	struct host *h;
	uint8_t data[512];
	struct rt_group group;
};

static void write_late(void *arg)
{
	struct late_write *w = arg;
	fiber_sleep(NS_PER_MS);
	CHECK_EQ(host_io(w->h, NVME_IO_WRITE, 3, 1, 0, NULL, w->data, 512), 0);
	group_done(&w->group);
}

WITH_TARGET(nothing_is_written_between_a_compare_and_its_write)
{
	struct pair p = attach(0), other = attach(0);
	struct late_write late = {.h = &other.io};
	uint8_t zeroes[512] = {0}, mine[512], in[512];
	memset(mine, 1, sizeof(mine));
	memset(late.data, 2, sizeof(late.data));
	pool_double_delay(frame.pool, 3 * NS_PER_MS);
	group_init(&late.group);
	group_add(&late.group, 1);
	fiber_spawn(frame.rt, "late", write_late, &late); /* comes while the comparison is at the disk */
	struct fused f = fuse(&p.io, 3, zeroes, mine, 512, true);
	CHECK(f.compare == 0 && f.write == 0);
	group_wait(&late.group);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 3, 1, 0, in, NULL, 512), 0);
	CHECK(memcmp(in, late.data, 512) == 0); /* and is carried out after */
	detach(&p);
	detach(&other);
}

WITH_TARGET(half_a_fused_pair_is_refused)
{
	struct pair p = attach(0);
	uint8_t data[512] = {0};
	struct nvme_sqe compare = {
		.opcode = NVME_IO_COMPARE, .flags = NVME_SQE_FUSE_FIRST, .nsid = le32_of(1)};
	struct nvme_sqe write = {.opcode = NVME_IO_WRITE, .flags = NVME_SQE_FUSE_SECOND, .nsid = le32_of(1)};
	struct nvme_sqe flush = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
	nvme_rw_set(&compare, 0, 1, 0);
	nvme_rw_set(&write, 0, 1, 0);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, &write, data, 512, true), NULL, NULL, NULL),
		 NVME_STATUS_FUSED_MISSING | DNR);
	uint16_t first = host_command(&p.io, &compare, data, 512, true),
		 next = host_command(&p.io, &flush, NULL, 0, false);
	CHECK_EQ(host_finish(&p.io, first, NULL, NULL, NULL), NVME_STATUS_FUSED_MISSING | DNR);
	CHECK_EQ(host_finish(&p.io, next, NULL, NULL, NULL), 0);
	host_command(&p.io, &compare, data, 512, true); /* and leave */
	detach(&p);
}

TEST(a_host_is_near_when_it_comes_from_an_address_of_ours)
{
	CHECK(where_is_near("tcp:127.0.0.1:4420", "127.0.0.1:50000"));
	CHECK(where_is_near("tcp:[::1]:4420", "[::1]:50000"));
	CHECK(where_is_near("tcp:10.0.0.7:4420", "10.0.0.7:50000"));
	CHECK(where_is_near("tcp:[fe80::1]:4420", "[fe80::1]:50000"));
	CHECK(where_is_near("tcp:[::ffff:10.0.0.7]:4420", "[::ffff:10.0.0.7]:50000"));
	CHECK(!where_is_near("tcp:10.0.0.7:4420", "10.0.0.70:50000"));
	CHECK(!where_is_near("tcp:10.0.0.7:4420", "10.0.0.8:4420"));
	CHECK(!where_is_near("tcp:[fe80::1]:4420", "[fe80::2]:50000"));
	CHECK(!where_is_near("", "gone"));
	CHECK(!where_is_near("", ""));
}

WITH_TARGET(a_host_elsewhere_has_no_write_cache_and_what_it_is_answered_is_durable)
{
	static const char *const addresses[] = {ADDRESS, "tcp:10.0.0.7:4420"};
	uint8_t data[4096] = {0};
	struct nvme_dsm_range range = {.blocks = le32_of(8)};
	CHECK_OK(nvmf_server_listen(target.server, addresses[1], NULL));
	for (uint64_t far = 0; far < 2; far++) {
		struct host admin = host_begin(addresses[far], target.nqn, 0),
			    io = host_queue(addresses[far], &admin, target.nqn, 1, 0);
		struct nvme_sqe trim = {.opcode = NVME_IO_DATASET_MANAGEMENT,
					.nsid = le32_of(1),
					.cdw11 = le32_of(NVME_DSM_CDW11_DEALLOCATE)};
		struct nvme_id_ctrl c;
		uint64_t before = pool_double_durable(frame.pool), result;
		CHECK_EQ(host_admin(&admin, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_CONTROLLER, 0, &c, sizeof(c),
				    NULL),
			 0);
		CHECK_EQ(c.vwc & NVME_VWC_PRESENT, !far);
		CHECK_EQ(host_admin(&admin, NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_WRITE_CACHE, 0, NULL, 0,
				    &result),
			 far ? NVME_STATUS_INVALID_FIELD | DNR : 0);
		CHECK_EQ(host_io(&io, NVME_IO_WRITE, 0, BLOCKS, 0, NULL, data, 4096), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, far);
		CHECK_EQ(host_io(&io, NVME_IO_WRITE_ZEROES, 0, BLOCKS, 0, NULL, NULL, 0), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 2 * far);
		CHECK_EQ(host_finish(&io, host_command(&io, &trim, &range, sizeof(range), true), NULL, NULL,
				     NULL),
			 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 3 * far);
		struct fused f = fuse(&io, 0, data, data, 512, true);
		CHECK(f.compare == 0 && f.write == 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 4 * far);
		CHECK_EQ(host_io(&io, NVME_IO_WRITE, 0, BLOCKS, NVME_RW_FUA, NULL, data, 4096), 0);
		CHECK_EQ(host_io(&io, NVME_IO_FLUSH, 0, 1, 0, NULL, NULL, 0), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 4 * far + 2);
		host_close(&io);
		host_close(&admin);
	}
}

/* ---- the beginning ----------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(nothing_comes_before_the_connection_is_initialized)
{
	struct host h = host_open_raw(ADDRESS);
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ};
	host_command(&h, &sqe, NULL, 0, false);
	expect_cut(&h, NVMETCP_FES_SEQUENCE);
	host_close(&h);
	h = host_open(ADDRESS, 0, 0); /* and not twice */
	uint8_t icreq[sizeof(struct nvmetcp_icreq)];
	host_send(&h, icreq, nvmetcp_icreq_build(icreq, 0, 0, 0));
	expect_cut(&h, NVMETCP_FES_SEQUENCE);
	host_close(&h);
	h = host_open_raw(ADDRESS);
	nvmetcp_icreq_build(icreq, 0, 0, 0);
	((struct nvmetcp_icreq *)icreq)->pfv = le16_of(1);
	host_send(&h, icreq, sizeof(icreq));
	expect_cut(&h, NVMETCP_FES_UNSUPPORTED);
	host_close(&h);
	CHECK_EQ(dropped(), 3);
}

WITH_TARGET(nothing_can_be_done_with_a_queue_before_connect_and_before_it_is_enabled)
{
	struct host h = host_open(ADDRESS, 0, 0);
	uint8_t page[NVME_IDENTIFY_BYTES];
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 0, 1, 0, page, sizeof(page), NULL),
		 NVME_STATUS_SEQUENCE_ERROR | DNR);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, 1), NVME_STATUS_SEQUENCE_ERROR | DNR);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 0, 1, 0, page, sizeof(page), NULL),
		 NVME_STATUS_SEQUENCE_ERROR | DNR);
	struct host io = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&io, 1, h.cntlid, target.nqn, 32), NVME_STATUS_SEQUENCE_ERROR | DNR);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 0, 1, 0, page, sizeof(page), NULL), 0);
	CHECK_EQ(host_connect(&io, 1, h.cntlid, target.nqn, 32), 0);
	CHECK_EQ(host_connect(&io, 1, h.cntlid, target.nqn, 32), NVME_STATUS_SEQUENCE_ERROR | DNR); /* once */
	host_close(&io);
	host_close(&h);
}

WITH_TARGET(connect_names_what_is_wrong)
{
	struct host admin = host_begin(ADDRESS, target.nqn, 0), h = host_open(ADDRESS, 0, 0);
	char unknown[NVMF_NQN_SIZE];
	nvmf_volume_nqn(&(struct uuid){.b = {9}}, unknown);
	/* A volume of ours that is not here may come back: the host is not told to give up. */
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, unknown, 32), NVME_STATUS_CONNECT_INVALID);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, "nqn.2000-01.org:other", 32),
		 NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, "x", 32), NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 0, 7, target.nqn, 32), NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, target.nqn, 1), NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, target.nqn, 129), NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, unknown, 32), NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 1, (uint16_t)(admin.cntlid + 1), target.nqn, 32),
		 NVME_STATUS_CONNECT_INVALID | DNR);
	CHECK_EQ(host_connect(&h, 17, admin.cntlid, target.nqn, 32), NVME_STATUS_CONNECT_INVALID | DNR);
	h.hostid = 2;
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 32), NVME_STATUS_CONNECT_HOST | DNR);
	h.hostid = 1;
	CHECK_EQ(host_connect(&h, 16, admin.cntlid, target.nqn, 128), 0);
	host_close(&h);
	host_close(&admin);
}

WITH_TARGET(a_queue_id_is_taken_until_its_connection_has_ended)
{
	struct pair p = attach(0);
	struct host again = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&again, 1, p.admin.cntlid, target.nqn, 32), NVME_STATUS_SEQUENCE_ERROR | DNR);
	pool_double_delay(frame.pool, NS_PER_S);
	uint8_t data[4096] = {1};
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	host_command(&p.io, &sqe, data, 4096, true);
	fiber_sleep(NS_PER_MS); /* it is on its way to the disk */
	uint64_t before_ns = rt_now_ns(frame.rt);
	host_close(&p.io);
	fiber_sleep(NS_PER_MS);
	CHECK_EQ(host_connect(&again, 1, p.admin.cntlid, target.nqn, 32), 0);
	CHECK(rt_now_ns(frame.rt) - before_ns > 900 * NS_PER_MS); /* and then it is free */
	host_close(&again);
	host_close(&p.admin);
}

WITH_TARGET(a_write_of_an_association_that_is_gone_cannot_overtake_what_the_host_writes_next)
{
	struct pair p = attach(0);
	uint8_t old[4096], new[4096], in[4096];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	memset(old, 1, sizeof(old));
	memset(new, 2, sizeof(new));
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	pool_double_delay(frame.pool, 5 * NS_PER_S);
	host_command(&p.io, &sqe, old, 4096, true);
	fiber_sleep(NS_PER_MS);
	detach(&p); /* gives it up */
	fiber_sleep(NS_PER_MS);
	pool_double_delay(frame.pool, 0); /* what comes next is fast */
	p = attach(0);
	CHECK_EQ(host_io(&p.io, NVME_IO_WRITE, 0, BLOCKS, 0, NULL, new, 4096), 0);
	fiber_sleep(20 * NS_PER_S);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, in, NULL, 4096), 0);
	CHECK(memcmp(in, new, 4096) == 0);
	detach(&p);
}

WITH_TARGET(a_host_that_waits_longer_for_its_old_commands_than_it_has_to_connect_may_try_again)
{
	struct pair p = attach(0);
	uint8_t data[4096] = {0};
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	pool_double_delay(frame.pool, 45 * NS_PER_S);
	host_command(&p.io, &sqe, data, 4096, true);
	fiber_sleep(NS_PER_MS);
	detach(&p);
	fiber_sleep(NS_PER_MS);
	struct host other = host_open(ADDRESS, 0, 0), h = host_open(ADDRESS, 0, 0);
	other.hostid = 2;
	CHECK_EQ(host_connect(&other, 0, NVME_CNTLID_ANY, target.nqn, 32), 0); /* nobody else waits */
	struct host_pdu in;
	struct nvme_connect connect = {
		.opcode = NVME_FABRICS, .fctype = NVME_FABRICS_CONNECT, .sqsize = le16_of(31)};
	struct nvme_connect_data who = {.cntlid = le16_of(NVME_CNTLID_ANY)};
	memset(who.hostid, 1, sizeof(who.hostid));
	nvme_nqn_put(who.subnqn, target.nqn);
	nvme_nqn_put(who.hostnqn, "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001");
	host_command(&h, (void *)&connect, &who, sizeof(who), true);
	if (host_pdu(&h, &in)) { /* the time-out and the answer are due at one moment */
		CHECK_EQ(nvme_cqe_status(&((struct nvmetcp_response *)in.head)->cqe),
			 NVME_STATUS_CONNECT_BUSY);
		free(in.data);
	}
	host_close(&h);
	fiber_sleep(20 * NS_PER_S);
	pool_double_delay(frame.pool, 0);
	p = attach(0);
	detach(&p);
	host_close(&other);
}

WITH_TARGET(properties_tell_the_life_of_a_controller)
{
	struct host h = host_open(ADDRESS, 0, 0);
	uint64_t value;
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CAP, true, &value), 0);
	CHECK_EQ(NVME_CAP_MQES_ENTRIES(value), 128);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_VS, false, &value), 0);
	CHECK_EQ(value, NVME_VERSION(2, 0, 0));
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CAP, false, &value), NVME_STATUS_INVALID_FIELD);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_NSSR, false, &value), NVME_STATUS_INVALID_FIELD);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CSTS, 1), NVME_STATUS_INVALID_FIELD | DNR);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CSTS, false, &value), 0);
	CHECK_EQ(value, 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN), 0); /* without sizes of entries */
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CSTS, false, &value), 0);
	CHECK_EQ(value, NVME_CSTS_CFS);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, 0), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CSTS, false, &value), 0);
	CHECK_EQ(value, NVME_CSTS_RDY);
	struct host io = host_queue(ADDRESS, &h, target.nqn, 1, 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC,
				   NVME_CC_EN | NVME_CC_ENTRY_SIZES | NVME_CC_SHN_NORMAL),
		 0);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CSTS, false, &value), 0);
	CHECK_EQ(value, NVME_CSTS_RDY | NVME_CSTS_SHST_DONE);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, 0), 0); /* a reset ends the I/O queues */
	expect_cut(&io, 0);
	host_close(&io);
	CHECK_EQ(host_property_get(&h, NVME_PROPERTY_CSTS, false, &value), 0);
	CHECK_EQ(value, 0);
	host_close(&h);
}

WITH_TARGET(a_queue_that_is_disconnected_is_answered_and_closed)
{
	struct pair p = attach(0);
	struct nvme_disconnect sqe = {.opcode = NVME_FABRICS, .fctype = NVME_FABRICS_DISCONNECT};
	CHECK_EQ(
		host_finish(&p.admin, host_command(&p.admin, (void *)&sqe, NULL, 0, false), NULL, NULL, NULL),
		NVME_STATUS_CONNECT_QUEUE_TYPE | DNR);
	CHECK_EQ(host_finish(&p.io, host_command(&p.io, (void *)&sqe, NULL, 0, false), NULL, NULL, NULL), 0);
	expect_cut(&p.io, 0);
	host_close(&p.io);
	p.io = host_queue(ADDRESS, &p.admin, target.nqn, 1, 0);
	write_and_read(&p.io, 0, 4096);
	detach(&p);
}

/* ---- data that is asked for --------------------------------------------------------------------------------------------------------- */

/* A write whose data is to be asked for: returns its tag. */
static uint16_t asked(struct host *h, uint32_t len_bytes, uint16_t *cid)
{
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	struct host_pdu in;
	nvme_rw_set(&sqe, 0, len_bytes / 512, 0);
	*cid = host_command(h, &sqe, NULL, len_bytes, false);
	CHECK(host_pdu(h, &in));
	CHECK_EQ(in.pdu.type, NVMETCP_R2T);
	const struct nvmetcp_r2t *w = (void *)in.head;
	CHECK(le32_get(w->offset) == 0 && le32_get(w->length) == len_bytes && le16_get(w->cccid) == *cid);
	uint16_t tag = le16_get(w->ttag);
	free(in.data);
	return tag;
}

struct odd_data {
	int16_t cid_off, tag_off;
	uint32_t offset, len_bytes;
	uint8_t flags;
	uint16_t fes;
};

static const struct odd_data odd_data[] = {
	{0, 0, 4096, 4096, NVMETCP_FLAG_LAST, NVMETCP_FES_DATA_RANGE},		 /* not from the beginning */
	{0, 0, 0, 69632, NVMETCP_FLAG_LAST, NVMETCP_FES_DATA_RANGE},		 /* beyond the end */
	{0, 0, UINT32_MAX - 3, 4096, NVMETCP_FLAG_LAST, NVMETCP_FES_DATA_RANGE}, /* far beyond */
	{0, 1, 0, 65536, NVMETCP_FLAG_LAST, NVMETCP_FES_INVALID_HEADER},	 /* another's tag */
	{1, 0, 0, 65536, NVMETCP_FLAG_LAST, NVMETCP_FES_INVALID_HEADER},	 /* another's command */
	{0, 999, 0, 65536, NVMETCP_FLAG_LAST, NVMETCP_FES_INVALID_HEADER},	 /* nobody's tag */
	{0, 0, 0, 4096, NVMETCP_FLAG_LAST, NVMETCP_FES_INVALID_HEADER},		 /* ends early */
	{0, 0, 0, 65536, 0, NVMETCP_FES_INVALID_HEADER},			 /* does not end */
	{0, 0, 0, 2 * 1048576, NVMETCP_FLAG_LAST, NVMETCP_FES_DATA_LIMIT},	 /* more than MAXH2CDATA */
};

WITH_TARGET(data_out_of_order_beyond_or_unasked_ends_the_connection_and_is_not_written)
{
	uint8_t *data = pattern(2 * MiB, 1), in[4096];
	for (size_t i = 0; i < ARRAY_COUNT(odd_data); i++) {
		const struct odd_data *o = &odd_data[i];
		struct pair p = attach(0);
		uint16_t cid, tag = asked(&p.io, 65536, &cid);
		host_data(&p.io, o->flags, (uint16_t)(cid + o->cid_off), (uint16_t)(tag + o->tag_off),
			  o->offset, data, o->len_bytes);
		expect_cut(&p.io, o->fes);
		host_close(&p.io);
		p.io = host_queue(ADDRESS, &p.admin, target.nqn, 1, 0);
		CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, in, NULL, 4096), 0);
		CHECK(bytes_are_zero(in, 4096));
		detach(&p);
	}
	free(data);
}

WITH_TARGET(data_after_the_last_is_data_nobody_asked_for)
{
	struct pair p = attach(0);
	uint8_t *data = pattern(65536, 1);
	uint16_t cid, tag = asked(&p.io, 65536, &cid);
	host_data(&p.io, NVMETCP_FLAG_LAST, cid, tag, 0, data, 65536);
	host_data(&p.io, NVMETCP_FLAG_LAST, cid, tag, 0, data, 65536);
	expect_cut(&p.io, NVMETCP_FES_INVALID_HEADER);
	free(data);
	detach(&p);
}

WITH_TARGET(data_that_does_not_come_is_waited_for_half_a_minute)
{
	struct pair p = attach(0);
	uint8_t *data = pattern(65536, 1);
	uint16_t cid, tag = asked(&p.io, 65536, &cid);
	fiber_sleep(20 * NS_PER_S);
	host_data(&p.io, 0, cid, tag, 0, data, 32768); /* some of it is a sign of life */
	fiber_sleep(20 * NS_PER_S);
	host_data(&p.io, NVMETCP_FLAG_LAST, cid, tag, 32768, data + 32768, 32768);
	CHECK_EQ(host_finish(&p.io, cid, NULL, NULL, NULL), 0);
	tag = asked(&p.io, 65536, &cid);
	uint64_t before_ns = rt_now_ns(frame.rt);
	expect_cut(&p.io, 0);
	CHECK(rt_now_ns(frame.rt) - before_ns < 31 * NS_PER_S);
	CHECK_EQ(dropped(), 1);
	free(data);
	detach(&p);
}

/* ---- digests ------------------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_wrong_digest_of_data_fails_its_command_only)
{
	struct pair p = attach(BOTH);
	uint8_t data[4096] = {1}, head[NVMETCP_HEAD_MAX], wrong[4] = {0}, in[4096];
	struct nvme_sqe sqe = {
		.opcode = NVME_IO_WRITE, .flags = NVME_SQE_PSDT_SGL, .nsid = le32_of(1), .cid = le16_of(77)};
	sqe.sgl = (struct nvme_sgl){{{0}}, le32_of(4096), {0}, NVME_SGL_INCAPSULE};
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	host_send(&p.io, head, nvmetcp_command_build(head, &p.io.terms, &sqe, 4096));
	host_send(&p.io, data, 4096);
	host_send(&p.io, wrong, 4);
	CHECK_EQ(host_finish(&p.io, 77, NULL, NULL, NULL), NVME_STATUS_TRANSIENT_TRANSPORT);
	uint8_t *large = pattern(65536, 1);
	uint16_t cid, tag = asked(&p.io, 65536, &cid);
	host_send(&p.io, head,
		  nvmetcp_h2c_data_build(head, &p.io.terms, NVMETCP_FLAG_LAST, cid, tag, 0, 65536));
	host_send(&p.io, large, 65536);
	host_send(&p.io, wrong, 4);
	CHECK_EQ(host_finish(&p.io, cid, NULL, NULL, NULL), NVME_STATUS_TRANSIENT_TRANSPORT);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, in, NULL, 4096), 0);
	CHECK(bytes_are_zero(in, 4096));
	free(large);
	detach(&p);
}

WITH_TARGET(a_wrong_digest_of_a_header_ends_the_connection)
{
	struct pair p = attach(BOTH);
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_sqe sqe = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
	size_t n = nvmetcp_command_build(head, &p.io.terms, &sqe, 0);
	head[20] ^= 1;
	host_send(&p.io, head, n);
	expect_cut(&p.io, NVMETCP_FES_HEADER_DIGEST);
	detach(&p);
}

/* ---- strangers -------------------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_host_that_says_nothing_has_half_a_minute)
{
	struct host silent = host_open_raw(ADDRESS), half = host_open(ADDRESS, 0, 0);
	uint64_t before_ns = rt_now_ns(frame.rt);
	expect_cut(&silent, 0);
	expect_cut(&half, 0);
	CHECK(rt_now_ns(frame.rt) - before_ns <= 31 * NS_PER_S);
	host_close(&silent);
	host_close(&half);
	CHECK_EQ(dropped(), 2);
}

WITH_TARGET(a_slow_loris_is_dropped_and_others_do_not_notice)
{
	struct pair p = attach(0), other = attach(0);
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_sqe sqe = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
	size_t n = nvmetcp_command_build(head, &p.io.terms, &sqe, 0);
	uint64_t before = dropped();
	for (size_t i = 0; i < n && dropped() == before; i++) { /* a byte in five seconds */
		host_send(&p.io, head + i, 1);
		fiber_sleep(5 * NS_PER_S);
		write_and_read(&other.io, 0, 65536);
	}
	expect_cut(&p.io, 0);
	CHECK_EQ(dropped(), before + 1);
	detach(&p);
	detach(&other);
}

WITH_TARGET(a_host_that_keeps_silent_beyond_its_keep_alive_time_loses_its_association)
{
	struct host admin = host_open(ADDRESS, 0, 0);
	admin.kato_ms = 5000;
	CHECK_EQ(host_connect(&admin, 0, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_property_set(&admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	struct host io = host_queue(ADDRESS, &admin, target.nqn, 1, 0);
	for (int i = 0; i < 10; i++) { /* heard on either queue */
		fiber_sleep(4 * NS_PER_S);
		if (i % 2)
			write_and_read(&io, 0, 4096);
		else
			CHECK_EQ(host_admin(&admin, NVME_ADMIN_KEEP_ALIVE, 0, 0, 0, NULL, 0, NULL), 0);
	}
	uint64_t before_ns = rt_now_ns(frame.rt);
	expect_cut(&admin, 0);
	expect_cut(&io, 0);
	CHECK(rt_now_ns(frame.rt) - before_ns <= 10 * NS_PER_S &&
	      rt_now_ns(frame.rt) - before_ns >= 5 * NS_PER_S);
	host_close(&admin);
	host_close(&io);
}

WITH_TARGET(a_process_that_stood_still_carries_out_nothing_of_an_association_that_is_over)
{
	struct host admin = host_open(ADDRESS, 0, 0);
	uint8_t data[4096] = {1}, in[4096];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
	admin.kato_ms = 5000;
	CHECK_EQ(host_connect(&admin, 0, NVME_CNTLID_ANY, target.nqn, 32), 0);
	CHECK_EQ(host_property_set(&admin, NVME_PROPERTY_CC, NVME_CC_EN | NVME_CC_ENTRY_SIZES), 0);
	struct host io = host_queue(ADDRESS, &admin, target.nqn, 1, 0);
	nvme_rw_set(&sqe, 0, BLOCKS, 0);
	testrt_freeze(frame.rt);
	host_command(&io, &sqe, data, 4096, true); /* it stays in the socket */
	testrt_thaw(frame.rt, 30 * NS_PER_S);
	expect_cut(&io, 0);
	expect_cut(&admin, 0);
	host_close(&io);
	host_close(&admin);
	struct pair p = attach(0);
	CHECK_EQ(host_io(&p.io, NVME_IO_READ, 0, BLOCKS, 0, in, NULL, 4096), 0);
	CHECK(bytes_are_zero(in, 4096));
	detach(&p);
}

WITH_TARGET(a_host_that_only_discovers_and_forgets_to_leave_is_gone_in_minutes)
{
	struct host h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), 0);
	uint64_t before_ns = rt_now_ns(frame.rt);
	expect_cut(&h, 0);
	CHECK(rt_now_ns(frame.rt) - before_ns <= 240 * NS_PER_S);
	host_close(&h);
}

WITH_TARGET(lengths_that_cannot_be_end_the_connection)
{
	static const struct nvmetcp_ch odd[] = {
		{NVMETCP_COMMAND, 0, 72, 72, {{0xff, 0xff, 0xff, 0xff}}},
		{NVMETCP_COMMAND, 0, 72, 72, {{0x49, 0x20, 0, 0}}}, /* 8193 bytes of data */
		{NVMETCP_COMMAND, 0, 72, 72, {{0, 0, 0, 0}}},
		{NVMETCP_COMMAND, 0, 255, 0, {{0xff, 0, 0, 0}}},
		{NVMETCP_H2C_DATA, 0, 24, 24, {{24, 0, 0, 0}}},
		{NVMETCP_R2T, 0, 24, 0, {{24, 0, 0, 0}}},
		{0x7f, 0, 24, 0, {{24, 0, 0, 0}}},
	};
	for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
		struct pair p = attach(0);
		uint8_t rest[256] = {0};
		host_send(&p.io, &odd[i], sizeof(odd[i]));
		host_send(&p.io, rest, 64);
		expect_cut(&p.io, NVMETCP_FES_INVALID_HEADER);
		detach(&p);
	}
}

WITH_TARGET(more_commands_than_the_queue_has_entries_end_the_connection)
{
	struct host admin = host_begin(ADDRESS, target.nqn, 0), h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 4), 0);
	pool_double_delay(frame.pool, NS_PER_S);
	for (int i = 0; i < 5; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
		host_command(&h, &sqe, NULL, 0, false);
	}
	expect_cut(&h, 0);
	fiber_sleep(2 * NS_PER_S); /* what it asked for before is carried out */
	CHECK_EQ(dropped(), 1);
	host_close(&h);
	host_close(&admin);
}

WITH_TARGET(an_entry_is_free_as_soon_as_the_host_has_its_answer)
{
	struct host admin = host_begin(ADDRESS, target.nqn, 0), h = host_open(ADDRESS, 0, 0);
	uint8_t *in = mem_alloc(512 * KiB);
	uint16_t cids[2];
	CHECK_EQ(host_connect(&h, 1, admin.cntlid, target.nqn, 2), 0);
	for (int i = 0; i < 2; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, 0, i ? 1024 : 8, 0);
		cids[i] = host_command(&h, &sqe, NULL, i ? 512 * KiB : 4 * KiB, false);
	}
	fiber_sleep(NS_PER_MS); /* both are in one send, which does not fit the wire */
	CHECK_EQ(host_finish(&h, cids[0], in, NULL, NULL), 0);
	struct nvme_sqe flush = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
	uint16_t next = host_command(&h, &flush, NULL, 0, false);
	fiber_yield(); /* it arrives while that send is under way */
	CHECK_EQ(host_finish(&h, cids[1], in, NULL, NULL), 0);
	CHECK_EQ(host_finish(&h, next, NULL, NULL, NULL), 0);
	free(in);
	host_close(&h);
	host_close(&admin);
}

WITH_OPTIONS(a_flood_of_connections_is_refused_at_the_limit_and_those_before_are_served, .connections_max = 8)
{
	struct pair p = attach(0);
	struct host flood[20];
	struct nvmf_stats s;
	for (size_t i = 0; i < ARRAY_COUNT(flood); i++)
		flood[i] = host_open_raw(ADDRESS);
	write_and_read(&p.io, 0, 65536);
	nvmf_server_stats(target.server, &s);
	CHECK_EQ(s.connections, 8);
	CHECK_EQ(s.connections_refused, 14);
	for (size_t i = 0; i < ARRAY_COUNT(flood); i++)
		host_close(&flood[i]);
	fiber_sleep(NS_PER_MS);
	detach(&p);
	p = attach(0);
	detach(&p);
}

WITH_OPTIONS(a_host_that_reads_and_never_listens_does_not_starve_another, .buffer_budget_bytes = 16 * MiB)
{
	struct pair greedy = attach(0), other = attach(0);
	for (int i = 0; i < 100; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_READ, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, 0, 2048, 0);
		host_command(&greedy.io, &sqe, NULL, MiB, false);
	}
	uint64_t before_ns = rt_now_ns(frame.rt);
	for (int i = 0; i < 20; i++)
		write_and_read(&other.io, 0, 1048576);
	CHECK(rt_now_ns(frame.rt) - before_ns < NS_PER_S);
	detach(&greedy);
	detach(&other);
}

WITH_OPTIONS(writes_that_are_promised_and_not_sent_do_not_starve_another, .buffer_budget_bytes = 16 * MiB)
{
	struct pair mean = attach(0), other = attach(0);
	for (int i = 0; i < 100; i++) {
		struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, 0, 2048, 0);
		host_command(&mean.io, &sqe, NULL, MiB, false);
	}
	uint64_t before_ns = rt_now_ns(frame.rt);
	for (int i = 0; i < 20; i++)
		write_and_read(&other.io, 0, 1048576);
	CHECK(rt_now_ns(frame.rt) - before_ns < NS_PER_S);
	detach(&mean);
	detach(&other);
}

WITH_TARGET(a_host_that_leaves_in_the_middle_of_anything_leaves_nothing_behind)
{
	for (uint32_t cut = 1; cut < 400; cut += 13) {
		struct pair p = attach(BOTH);
		uint8_t *data = pattern(65536, 1), head[NVMETCP_HEAD_MAX];
		struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE, .nsid = le32_of(1)};
		uint16_t cid, tag = asked(&p.io, 65536, &cid);
		nvme_rw_set(&sqe, 0, BLOCKS, 0);
		host_command(&p.io, &sqe, data, 4096, true);
		size_t n = nvmetcp_h2c_data_build(head, &p.io.terms, NVMETCP_FLAG_LAST, cid, tag, 0, 65536);
		host_send(&p.io, head, u64_min(n, cut));
		if (cut > n)
			host_send(&p.io, data, (cut - n) * 100);
		free(data);
		detach(&p);
	}
}

/* ---- abort, events, logs ---------------------------------------------------------------------------------------------------------------- */

WITH_TARGET(a_command_that_is_aborted_while_it_runs_is_answered_once_and_not_aborted)
{
	struct pair p = attach(0);
	uint64_t result;
	struct nvme_sqe sqe = {.opcode = NVME_IO_FLUSH, .nsid = le32_of(1)};
	pool_double_delay(frame.pool, NS_PER_S);
	uint16_t cid = host_command(&p.io, &sqe, NULL, 0, false);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_ABORT, 0, (uint32_t)cid << 16 | 1, 0, NULL, 0, &result), 0);
	CHECK_EQ(result, 1);
	CHECK_EQ(host_finish(&p.io, cid, NULL, NULL, NULL), 0);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_ABORT, 0, (uint32_t)cid << 16 | 1, 0, NULL, 0, &result), 0);
	CHECK_EQ(result, 1);
	pool_double_delay(frame.pool, 0);
	write_and_read(&p.io, 0, 4096); /* nothing else came */
	detach(&p);
}

static uint16_t event_request(struct host *h)
{
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_ASYNC_EVENT};
	return host_command(h, &sqe, NULL, 0, false);
}

WITH_TARGET(a_request_for_events_can_be_aborted_and_a_fifth_is_refused)
{
	struct host h = host_begin(ADDRESS, target.nqn, 0);
	uint16_t cids[5];
	uint64_t result;
	for (int i = 0; i < 5; i++)
		cids[i] = event_request(&h);
	CHECK_EQ(host_finish(&h, cids[4], NULL, NULL, NULL), NVME_STATUS_ASYNC_EVENT_LIMIT | DNR);
	struct nvme_sqe abort_sqe = {.opcode = NVME_ADMIN_ABORT, .cdw10 = le32_of((uint32_t)cids[1] << 16)};
	uint16_t cid = host_command(&h, &abort_sqe, NULL, 0, false);
	CHECK_EQ(host_finish(&h, cids[1], NULL, NULL, NULL), NVME_STATUS_ABORT_REQUESTED);
	CHECK_EQ(host_finish(&h, cid, NULL, NULL, &result), 0);
	CHECK_EQ(result, 0);
	host_close(&h); /* three are left behind */
}

WITH_TARGET(a_volume_that_grows_is_told_once_until_the_log_is_read)
{
	struct host h = host_begin(ADDRESS, target.nqn, 0);
	struct nvme_id_list changed = {0};
	struct nvme_id_ns ns;
	uint64_t result;
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_EVENTS, UINT32_MAX, NULL, 0, NULL),
		 0);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_EVENTS, 0, NULL, 0, &result), 0);
	CHECK_EQ(result, NVME_OAES_NAMESPACE | NVME_OAES_ANA);
	uint16_t first = event_request(&h), second = event_request(&h);
	nvmf_server_changed(target.server); /* nothing did */
	pool_double_grow(frame.pool, &frame.volume, 2 * SIZE);
	nvmf_server_changed(target.server);
	CHECK_EQ(host_finish(&h, first, NULL, NULL, &result), 0);
	CHECK_EQ(result, NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_NAMESPACE, NVME_LOG_CHANGED_NAMESPACES));
	pool_double_grow(frame.pool, &frame.volume, 3 * SIZE);
	nvmf_server_changed(target.server);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_NAMESPACE, 0, &ns, sizeof(ns), NULL), 0);
	CHECK_EQ(le64_get(ns.nsze), 3 * SIZE / 512);
	struct nvme_sqe sqe = {.opcode = NVME_ADMIN_GET_LOG_PAGE,
			       .cdw10 = le32_of(NVME_LOG_CHANGED_NAMESPACES | 1023u << 16)};
	uint16_t log = host_command(&h, &sqe, NULL, sizeof(changed), false);
	struct host_pdu p;
	bool told = false, read = false;
	while (!told || !read) { /* reading it lets the second notice go: in either order */
		CHECK(host_pdu(&h, &p));
		const struct nvme_cqe *cqe = &((struct nvmetcp_response *)p.head)->cqe;
		if (p.pdu.type == NVMETCP_C2H_DATA)
			memcpy(&changed, p.data, sizeof(changed));
		else if (le16_get(cqe->cid) == second)
			told = true;
		else
			read = le16_get(cqe->cid) == log;
		free(p.data);
	}
	CHECK_EQ(le32_get(changed.nsid[0]), 1);
	host_close(&h);
}

WITH_TARGET(discovery_lists_volumes_and_not_snapshots_and_its_generation_follows)
{
	struct {
		struct nvme_log_discovery head;
		struct nvme_discovery_entry entries[4];
	} log;
	struct host h = host_open(ADDRESS, 0, 0);
	uint64_t result;
	pool_double_snapshot(frame.pool, &frame.volume, "mon");
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN), 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	CHECK_EQ(le64_get(log.head.records), 1);
	CHECK_STR(log.entries[0].subnqn, target.nqn);
	CHECK_STR(log.entries[0].traddr, "127.0.0.1");
	CHECK_STR(log.entries[0].trsvcid, "4420");
	CHECK_EQ(log.entries[0].adrfam, NVME_ADRFAM_IPV4);
	uint64_t generation = le64_get(log.head.generation);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	CHECK_EQ(le64_get(log.head.generation), generation);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_EVENTS, NVME_OAES_DISCOVERY, NULL, 0,
			    NULL),
		 0);
	uint16_t cid = event_request(&h);
	pool_double_volume(frame.pool, "another", SIZE, 512);
	CHECK_OK(nvmf_server_listen(target.server, "tcp:[::1]:4420", NULL));
	nvmf_server_changed(target.server);
	CHECK_EQ(host_finish(&h, cid, NULL, NULL, &result), 0);
	CHECK_EQ(result, NVME_EVENT(NVME_EVENT_NOTICE, NVME_NOTICE_DISCOVERY, NVME_LOG_DISCOVERY));
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	CHECK_EQ(le64_get(log.head.records), 4); /* two volumes, two listeners */
	CHECK(le64_get(log.head.generation) > generation);
	CHECK_STR(log.entries[1].traddr, "::1");
	CHECK_EQ(log.entries[1].adrfam, NVME_ADRFAM_IPV6);
	/* In parts, too, and beyond the end zeroes. */
	struct nvme_discovery_entry entry;
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &entry, sizeof(entry), 1024 * 2), 0);
	CHECK(memcmp(&entry, &log.entries[1], sizeof(entry)) == 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &entry, sizeof(entry), 1024 * 5), 0);
	CHECK(bytes_are_zero(&entry, sizeof(entry)));
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &entry, sizeof(entry), 1024 * 5 + 4),
		 NVME_STATUS_INVALID_FIELD | DNR);
	CHECK_EQ(host_log(&h, NVME_LOG_SMART, &entry, 512, 0), NVME_STATUS_INVALID_LOG_PAGE | DNR);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &entry, sizeof(entry), UINT64_MAX - 3),
		 NVME_STATUS_INVALID_FIELD | DNR);
	host_close(&h);
}

static uint64_t discover(const char *address, struct nvme_discovery_entry *first)
{
	struct {
		struct nvme_log_discovery head;
		struct nvme_discovery_entry entries[4];
	} log;
	struct host h = host_open(address, 0, 0);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN), 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, &log, sizeof(log), 0), 0);
	host_close(&h);
	*first = log.entries[0];
	return le64_get(log.head.records);
}

WITH_OPTIONS(a_host_is_told_of_other_discovery_services_and_not_of_the_one_it_asks,
	     .referrals = {"tcp:10.0.0.9:8009", "tcp:127.0.0.1:4420", "tcp:[fd00::9]:8009",
			   "tcp:127.0.0.1:8009"},
	     .referral_count = 4)
{
	struct nvme_discovery_entry first;
	CHECK_EQ(discover(ADDRESS, &first), 4); /* with the volume */
	CHECK_EQ(first.subtype, NVME_SUBTYPE_REFERRAL);
	CHECK_STR(first.subnqn, NVME_NQN_DISCOVERY);
	CHECK_STR(first.traddr, "10.0.0.9");
	CHECK_STR(first.trsvcid, "8009");
	CHECK_EQ(first.adrfam, NVME_ADRFAM_IPV4);
	CHECK_OK(nvmf_server_listen(target.server, "tcp:10.0.0.9:8009", NULL));
	CHECK_EQ(discover("tcp:10.0.0.9:8009", &first), 2); /* no loopback from there */
	CHECK_STR(first.traddr, "fd00::9");
	CHECK_EQ(first.adrfam, NVME_ADRFAM_IPV6);
}

WITH_TARGET(a_long_discovery_log_is_read_in_small_parts_without_a_seam)
{
	enum { VOLUMES = 20, BYTES = 1024 * (VOLUMES + 2) };
	char name[16];
	uint8_t *whole = mem_alloc(BYTES), *parts = mem_alloc(BYTES);
	for (int i = 0; i < VOLUMES; i++) {
		snprintf(name, sizeof(name), "v%d", i);
		pool_double_volume(frame.pool, name, 64 * KiB, 512);
	}
	struct host h = host_open(ADDRESS, 0, 0);
	CHECK_EQ(host_connect(&h, 0, NVME_CNTLID_ANY, NVME_NQN_DISCOVERY, 32), 0);
	CHECK_EQ(host_property_set(&h, NVME_PROPERTY_CC, NVME_CC_EN), 0);
	CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, whole, BYTES, 0), 0);
	CHECK_EQ(le64_get(((struct nvme_log_discovery *)whole)->records), VOLUMES + 1);
	for (uint32_t at = 0, step; at < BYTES; at += step) {
		step = (uint32_t)u64_min(404 + at % 1200 / 4 * 4, BYTES - at);
		CHECK_EQ(host_log(&h, NVME_LOG_DISCOVERY, parts + at, step, at), 0);
	}
	CHECK(memcmp(whole, parts, BYTES) == 0);
	free(whole);
	free(parts);
	host_close(&h);
}

WITH_TARGET(a_host_is_told_addresses_it_can_reach)
{
	struct nvme_discovery_entry first;
	CHECK_OK(nvmf_server_listen(target.server, "tcp:10.0.0.7:4420", NULL));
	CHECK_EQ(discover("tcp:10.0.0.7:4420", &first), 1); /* and nothing of loopback */
	CHECK_STR(first.traddr, "10.0.0.7");
	CHECK_EQ(discover(ADDRESS, &first), 2);
	CHECK_OK(nvmf_server_listen(target.server, "tcp:0.0.0.0:4421", NULL));
	CHECK_EQ(discover("tcp:0.0.0.0:4421", &first), 3); /* the double is reached as 127.0.0.1 there */
	struct nvme_discovery_entry last;
	CHECK_EQ(discover("tcp:10.0.0.7:4420", &last), 2);
}

WITH_TARGET(what_is_identified_is_what_is_enforced)
{
	struct pair p = attach(0);
	struct nvme_id_ctrl c;
	struct nvme_id_ns ns;
	struct nvme_id_list list;
	uint8_t page[4096];
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_CONTROLLER, 0, &c, sizeof(c), NULL),
		 0);
	CHECK_EQ(4096u << c.mdts, NVMF_DATA_MAX);
	CHECK_EQ(le32_get(c.ioccsz) * 16, 64 + NVMF_CAPSULE_MAX);
	CHECK_EQ(le16_get(c.maxcmd), NVMF_ENTRIES_MAX);
	CHECK_STR(c.subnqn, target.nqn);
	CHECK_EQ(le16_get(c.cntlid), p.admin.cntlid);
	CHECK(le16_get(c.oncs) & NVME_ONCS_RESERVATIONS);
	CHECK(c.vwc & NVME_VWC_PRESENT);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_NAMESPACE, 0, &ns, sizeof(ns), NULL),
		 0);
	CHECK_EQ(le64_get(ns.nsze), SIZE / 512);
	CHECK_EQ(ns.lbaf[0].data_shift, 9);
	CHECK_EQ(ns.rescap, 0xff);
	CHECK(memcmp(ns.nguid, frame.volume.b, 16) == 0);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 0, NVME_CNS_ACTIVE_NAMESPACES, 0, &list, 4096,
			    NULL),
		 0);
	CHECK(le32_get(list.nsid[0]) == 1 && le32_get(list.nsid[1]) == 0);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_ACTIVE_NAMESPACES, 0, &list, 4096,
			    NULL),
		 0);
	CHECK_EQ(le32_get(list.nsid[0]), 0);
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 1, NVME_CNS_NAMESPACE_DESCRIPTORS, 0, page, 4096,
			    NULL),
		 0);
	CHECK(page[0] == NVME_NIDT_UUID && page[1] == 16 && memcmp(page + 4, frame.volume.b, 16) == 0);
	for (uint32_t cns = 0; cns < 256;
	     cns++) { /* the others are answered or refused, and nothing breaks */
		uint16_t status = host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 1, cns, 0, page, 4096, NULL);
		CHECK(status == 0 || status == (NVME_STATUS_INVALID_FIELD | DNR));
	}
	CHECK_EQ(host_admin(&p.admin, NVME_ADMIN_IDENTIFY, 2, NVME_CNS_NAMESPACE, 0, &ns, sizeof(ns), NULL),
		 NVME_STATUS_INVALID_NAMESPACE | DNR);
	for (uint32_t log = 0; log < 256; log++) {
		uint16_t status = host_log(&p.admin, (uint8_t)log, page, 4096, 0);
		CHECK(status == 0 || status == (NVME_STATUS_INVALID_LOG_PAGE | DNR) ||
		      status == (NVME_STATUS_INVALID_FIELD | DNR));
	}
	detach(&p);
}

WITH_TARGET(features_are_asked_and_set)
{
	struct host h = host_begin(ADDRESS, target.nqn, 0);
	uint64_t result;
	uint8_t data[512];
	CHECK_EQ(
		host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_QUEUES, 0x00630063, NULL, 0, &result),
		0);
	CHECK_EQ(result, 0x000f000f);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_QUEUES, 0xffff, NULL, 0, NULL),
		 NVME_STATUS_INVALID_FIELD | DNR);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_WRITE_CACHE, 0, NULL, 0, NULL),
		 NVME_STATUS_FEATURE_NOT_CHANGEABLE | DNR);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_KEEP_ALIVE | NVME_FEATURE_SAVE, 5,
			    NULL, 0, NULL),
		 NVME_STATUS_FEATURE_NOT_SAVEABLE | DNR);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_HOST_ID, 1, data, 16, NULL), 0);
	CHECK_EQ(data[15], 1);
	CHECK_EQ(host_admin(&h, NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_HOST_ID, 0, data, 8, NULL),
		 NVME_STATUS_HOSTID_INCONSISTENT | DNR);
	for (uint32_t feature = 0; feature < 256; feature++)
		for (uint32_t select = 0; select < 4; select++) {
			bool has_data =
				(feature == NVME_FEATURE_HOST_BEHAVIOR || feature == NVME_FEATURE_HOST_ID) &&
				select != NVME_SELECT_CAPABILITIES;
			uint32_t bytes = !has_data ? 0 : feature == NVME_FEATURE_HOST_ID ? 16 : 512;
			uint16_t status = host_admin(&h, NVME_ADMIN_GET_FEATURES, 1, feature | select << 8, 1,
						     data, bytes, NULL);
			CHECK(status == 0 || status == (NVME_STATUS_INVALID_FIELD | DNR));
		}
	host_close(&h);
}

WITH_TARGET(a_pool_that_is_to_be_closed_is_let_go)
{
	struct pair p = attach(0);
	nvmf_server_evict(target.server, "tan");
	write_and_read(&p.io, 0, 4096);
	nvmf_server_evict(target.server, "tank");
	expect_cut(&p.io, 0);
	expect_cut(&p.admin, 0);
	detach(&p);
}

WITH_TARGET(the_server_is_closed_with_everything_under_way)
{
	struct pair p = attach(BOTH);
	uint8_t data[4096] = {0};
	uint16_t cid;
	pool_double_delay(frame.pool, NS_PER_S);
	asked(&p.io, 65536, &cid);
	for (int i = 0; i < 20; i++) {
		struct nvme_sqe sqe = {.opcode = i % 2 ? NVME_IO_WRITE : NVME_IO_READ, .nsid = le32_of(1)};
		nvme_rw_set(&sqe, 0, BLOCKS, 0);
		host_command(&p.io, &sqe, data, 4096, i % 2);
	}
	event_request(&p.admin);
	fiber_sleep(NS_PER_MS);
	nvmf_server_close(target.server);
	target.server = NULL;
	detach(&p);
}
