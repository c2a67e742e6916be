/*
 * nvmetcp_pdu_fuzz.c: any header, to either side, under any terms: never read past what was asked for, and what is
 * accepted keeps within the limits. Byte 0: side and digests; byte 1: alignment; then the header.
 */
#include "base/err.h"
#include "data/nvme/nvmetcp_pdu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct nvmetcp_terms *t, const struct nvmetcp_pdu *pdu)
{
	assert(pdu->head_bytes <= NVMETCP_HEAD_MAX && pdu->head_bytes <= pdu->data_offset_bytes);
	assert(pdu->type != NVMETCP_COMMAND || pdu->data_bytes <= t->rx_capsule_data_max);
	assert(pdu->type == NVMETCP_COMMAND || pdu->data_bytes <= t->rx_data_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 + sizeof(struct nvmetcp_ch))
		return 0;
	struct nvmetcp_terms t = {.side = data[0] & 1 ? NVMETCP_SIDE_HOST : NVMETCP_SIDE_CONTROLLER,
				  .header_digest = data[0] & 2,
				  .data_digest = data[0] & 4,
				  .rx_pda = data[1] % (NVMETCP_PDA_MAX + 1),
				  .rx_capsule_data_max = 8192,
				  .rx_data_max = 131072};
	struct nvmetcp_pdu pdu;
	struct nvmetcp_fault fault = {0};
	uint8_t *ch = mem_alloc(sizeof(struct nvmetcp_ch)); /* of their own, for ASan to see the edges */
	memcpy(ch, data + 2, sizeof(struct nvmetcp_ch));
	int err = nvmetcp_ch_check(&t, (void *)ch, &pdu, &fault);
	free(ch);
	assert(err == 0 || (err == OXE_PROTO && fault.what && fault.fes != 0));
	if (err)
		return 0;
	check_accepted(&t, &pdu);
	uint8_t *head = mem_zalloc(pdu.head_bytes);
	memcpy(head, data + 2, u64_min(size - 2, pdu.head_bytes));
	err = nvmetcp_head_check(&t, &pdu, head, &fault);
	assert(err == 0 || (err == OXE_PROTO && fault.what && fault.fes != 0));
	free(head);
	return 0;
}
