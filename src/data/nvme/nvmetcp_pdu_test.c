/* nvmetcp_pdu_test.c: headers, checked and built; names and statuses. */
#include "data/nvme/nvmetcp_pdu.h"

#include "base/crc32c.h"
#include "base/test.h"
#include "data/nvme/nvme_nqn.h"
#include "data/nvme/nvme_status.h"

static struct nvmetcp_terms terms(enum nvmetcp_side side, bool digests, uint8_t pda)
{
	return (struct nvmetcp_terms){.side = side,
				      .header_digest = digests,
				      .data_digest = digests,
				      .rx_pda = pda,
				      .tx_pda = pda,
				      .rx_capsule_data_max = 8192,
				      .rx_data_max = 131072};
}

static void check_whole(const struct nvmetcp_terms *t, const void *head, uint32_t data_offset,
			uint32_t data_bytes)
{
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault;
	CHECK_OK(nvmetcp_ch_check(t, head, &pdu, &fault));
	CHECK_OK(nvmetcp_head_check(t, &pdu, head, &fault));
	CHECK_EQ(pdu.data_offset_bytes, data_offset);
	CHECK_EQ(pdu.data_bytes, data_bytes);
	CHECK_EQ(pdu.has_data_digest, t->data_digest && data_bytes > 0);
}

/* What each builder makes, as the other side sees it, for every alignment, with digests and without. */
static void check_builders(bool digests, uint8_t pda)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE};
	struct nvme_cqe cqe = nvme_cqe_set(7, 1, 2, NVME_STATUS_LBA_RANGE, 0);
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, digests, pda),
			     controller = terms(NVMETCP_SIDE_CONTROLLER, digests, pda);
	size_t n = nvmetcp_command_build(head, &host, &sqe, 4096);
	CHECK(n % (4 * (pda + 1u)) == 0 && n >= 72);
	check_whole(&controller, head, (uint32_t)n, 4096);
	check_whole(&controller, head, (uint32_t)nvmetcp_command_build(head, &host, &sqe, 0), 0);
	check_whole(&controller, head, (uint32_t)nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 512, 1024),
		    1024);
	check_whole(&host, head, (uint32_t)nvmetcp_response_build(head, &controller, &cqe), 0);
	check_whole(&host, head,
		    (uint32_t)nvmetcp_c2h_data_build(head, &controller, NVMETCP_FLAG_LAST, 1, 0, 512), 512);
	check_whole(&host, head, (uint32_t)nvmetcp_r2t_build(head, &controller, 1, 2, 0, 8192), 0);
}

TEST(what_one_side_builds_the_other_accepts)
{
	for (unsigned pda = 0; pda <= NVMETCP_PDA_MAX; pda++) {
		check_builders(false, (uint8_t)pda);
		check_builders(true, (uint8_t)pda);
	}
}

TEST(the_connection_begins_with_headers_of_128_bytes)
{
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, false, 0),
			     controller = terms(NVMETCP_SIDE_CONTROLLER, false, 0);
	CHECK_EQ(nvmetcp_icreq_build(head, 0, NVMETCP_DIGEST_DATA, 0), 128);
	check_whole(&controller, head, 128, 0);
	CHECK_EQ(nvmetcp_icresp_build(head, 0, 0, 131072), 128);
	check_whole(&host, head, 128, 0);
}

static void check_fault(const struct nvmetcp_terms *t, const void *head, enum nvmetcp_fes fes, uint32_t fei)
{
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault;
	int err = nvmetcp_ch_check(t, head, &pdu, &fault);
	if (err == 0)
		err = nvmetcp_head_check(t, &pdu, head, &fault);
	CHECK_ERR(err, OXE_PROTO);
	CHECK_EQ(fault.fes, fes);
	CHECK_EQ(fault.fei, fei);
	CHECK(fault.what != NULL);
}

static const struct nvmetcp_ch good_command = {
	NVMETCP_COMMAND, 0, 72, 72, {{0x48, 0x10, 0, 0}}}; /* 72 + 4096 */

TEST(the_first_wrong_field_of_a_header_is_named)
{
	struct nvmetcp_terms t = terms(NVMETCP_SIDE_CONTROLLER, false, 0);
	struct nvmetcp_command w = {.ch = good_command};
	check_whole(&t, &w, 72, 4096);
	w.ch.type = NVMETCP_RESPONSE;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 0);
	w.ch.type = 8;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 0);
	w.ch.type = 255;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 0);
	w.ch = good_command;
	w.ch.flags = NVMETCP_FLAG_HEADER_DIGEST;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 1);
	w.ch.flags = NVMETCP_FLAG_DATA_DIGEST;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 1);
	w.ch = good_command;
	w.ch.hlen = 71;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 2);
	w.ch = good_command;
	w.ch.pdo = 71;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 3);
	w.ch.pdo = 74;
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 3);
	w.ch = good_command;
	w.ch.plen = le32_of(71);
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 4);
	w.ch.plen = le32_of(72 + 8192 + 1);
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 4);
	w.ch.plen = le32_of(UINT32_MAX);
	check_fault(&t, &w, NVMETCP_FES_INVALID_HEADER, 4);
}

TEST(data_is_as_long_as_both_its_headers_say)
{
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, false, 0),
			     t = terms(NVMETCP_SIDE_CONTROLLER, false, 0);
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvmetcp_data *w = (void *)head;
	nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 0, 131072);
	check_whole(&t, head, 24, 131072);
	w->length = le32_of(131068);
	check_fault(&t, head, NVMETCP_FES_INVALID_HEADER, 16);
	nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 0, 131072 + 4);
	check_fault(&t, head, NVMETCP_FES_DATA_LIMIT, 0);
	nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 2, 4);
	check_fault(&t, head, NVMETCP_FES_INVALID_HEADER, 12);
	nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 0, 6);
	check_fault(&t, head, NVMETCP_FES_INVALID_HEADER, 16);
	nvmetcp_h2c_data_build(head, &host, 0, 1, 2, 0, 0);
	check_fault(&t, head, NVMETCP_FES_INVALID_HEADER, 3);
}

TEST(a_flipped_bit_of_a_header_is_noticed_by_its_digest)
{
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, true, 0),
			     t = terms(NVMETCP_SIDE_CONTROLLER, true, 0);
	uint8_t head[NVMETCP_HEAD_MAX];
	struct nvme_sqe sqe = {.opcode = NVME_IO_READ};
	nvmetcp_command_build(head, &host, &sqe, 0);
	check_whole(&t, head, 76, 0);
	le32 digest;
	memcpy(&digest, head + 72, sizeof(digest));
	CHECK_EQ(le32_get(digest), crc32c(0, head, 72));
	for (size_t bit = 64; bit < 72 * 8; bit++) { /* the common header's own are named as fields */
		head[bit / 8] ^= (uint8_t)(1u << bit % 8);
		check_fault(&t, head, NVMETCP_FES_HEADER_DIGEST, le32_get(digest));
		head[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

TEST(a_version_or_alignment_nobody_has_is_refused)
{
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, false, 0),
			     t = terms(NVMETCP_SIDE_CONTROLLER, false, 0);
	uint8_t head[NVMETCP_HEAD_MAX];
	nvmetcp_icreq_build(head, 32, 0, 0);
	check_fault(&t, head, NVMETCP_FES_INVALID_HEADER, 10);
	nvmetcp_icreq_build(head, 0, 0, 0);
	((struct nvmetcp_icreq *)head)->pfv = le16_of(1);
	check_fault(&t, head, NVMETCP_FES_UNSUPPORTED, 8);
	nvmetcp_icresp_build(head, 32, 0, 4096);
	check_fault(&host, head, NVMETCP_FES_INVALID_HEADER, 10);
	nvmetcp_icresp_build(head, 0, 0, 4095);
	check_fault(&host, head, NVMETCP_FES_INVALID_HEADER, 12);
}

TEST(a_term_request_quotes_no_more_than_128_bytes)
{
	struct nvmetcp_terms host = terms(NVMETCP_SIDE_HOST, true, 0),
			     t = terms(NVMETCP_SIDE_CONTROLLER, true, 0);
	uint8_t term[NVMETCP_TERM_BYTES_MAX], quoted[200] = {1};
	struct nvmetcp_fault fault = {NVMETCP_FES_SEQUENCE, 0, "x"};
	struct nvmetcp_pdu pdu;
	CHECK_EQ(nvmetcp_term_build(term, &t, &fault, quoted, sizeof(quoted)), 152);
	CHECK_OK(nvmetcp_ch_check(&host, (void *)term, &pdu, &fault));
	CHECK_EQ(pdu.data_bytes, 128);
	CHECK_EQ(nvmetcp_term_build(term, &t, &fault, quoted, 0), 24);
	CHECK_OK(nvmetcp_ch_check(&host, (void *)term, &pdu, &fault));
	((struct nvmetcp_ch *)term)->plen = le32_of(153);
	check_fault(&host, term, NVMETCP_FES_INVALID_HEADER, 4);
	CHECK_STR(nvmetcp_fes_text(NVMETCP_FES_SEQUENCE), "PDU sequence error");
	CHECK_STR(nvmetcp_fes_text(0), "unknown fatal error");
}

TEST(a_volume_is_named_by_its_uuid_and_found_by_it)
{
	struct uuid id, back;
	char field[NVME_NQN_FIELD], junk[NVME_NQN_FIELD];
	CHECK_OK(uuid_parse("01234567-89ab-4cde-8f01-23456789abcd", &id));
	CHECK_STR(nvme_nqn_of_volume(&id, field),
		  "nqn.2026-11.dev.oxbow:volume:01234567-89ab-4cde-8f01-23456789abcd");
	CHECK(nvme_nqn_is_valid(field));
	CHECK_OK(nvme_nqn_to_volume(field, &back));
	CHECK(uuid_equal(&id, &back));
	CHECK_ERR(nvme_nqn_to_volume(NVME_NQN_DISCOVERY, &back), OXE_NOENT);
	CHECK_ERR(nvme_nqn_to_volume(NVME_NQN_VOLUME_PREFIX "x", &back), OXE_NOENT);
	CHECK_ERR(nvme_nqn_to_snapshot(field, &back), OXE_NOENT);
	CHECK_OK(nvme_nqn_to_snapshot(nvme_nqn_of_snapshot(&id, field), &back));
	CHECK(uuid_equal(&back, &id));
	CHECK_ERR(nvme_nqn_to_volume(field, &back), OXE_NOENT);
	memset(junk, 'x', sizeof(junk));
	memcpy(junk, "nqn.", 4);
	CHECK(!nvme_nqn_is_valid(junk)); /* no end */
	junk[NVME_NQN_MAX] = 0;
	CHECK(nvme_nqn_is_valid(junk));
	junk[100] = '\n';
	CHECK(!nvme_nqn_is_valid(junk));
	memset(junk, 0, sizeof(junk));
	CHECK(!nvme_nqn_is_valid(junk));
}

TEST(a_status_is_shifted_by_the_phase_tag_and_has_a_text)
{
	struct nvme_cqe cqe = nvme_cqe_set(1, 2, 3, NVME_STATUS_LBA_RANGE | NVME_STATUS_DNR, 9);
	CHECK_EQ(le16_get(cqe.status), 0x8100);
	CHECK_EQ(nvme_cqe_status(&cqe), NVME_STATUS_LBA_RANGE | NVME_STATUS_DNR);
	CHECK_STR(nvme_status_text(nvme_cqe_status(&cqe)), "logical block out of range");
	CHECK_STR(nvme_status_text(0x7ff), "unknown status");
}
