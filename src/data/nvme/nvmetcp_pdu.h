/*
 * nvmetcp_pdu.h: headers of NVMe/TCP PDUs: what came is checked, what goes is built. For both ends; no I/O, no state.
 *
 * A PDU is received in three steps: eight bytes, nvmetcp_ch_check() says how long the header is and where the data; the header
 * and its digest, nvmetcp_head_check() says whether it means what it says; then data_bytes of data, and its digest.
 * Whether a PDU may come now (sequence, tags, the range of an R2T) is the caller's to know.
 *
 *   who owns memory   the caller, everything
 *   errors            OXE_PROTO with *fault filled in: what to say in a TermReq before closing, as the specification names it
 */
#ifndef OXBOW_DATA_NVME_NVMETCP_PDU_H
#define OXBOW_DATA_NVME_NVMETCP_PDU_H

#include "data/nvme/nvmetcp_format.h"

enum nvmetcp_side { NVMETCP_SIDE_CONTROLLER, NVMETCP_SIDE_HOST };

/* One connection, seen from one side. */
struct nvmetcp_terms {
	enum nvmetcp_side side;		 /* ours */
	bool header_digest, data_digest; /* agreed upon; false until ICResp */
	uint8_t rx_pda, tx_pda; /* alignment of data we asked for, and were asked for: dwords less one */
	uint32_t rx_capsule_data_max; /* bytes in one command capsule; a host: 0 */
	uint32_t rx_data_max;	      /* bytes in one H2CData (the MAXH2CDATA we said) or C2HData */
};

struct nvmetcp_pdu {
	enum nvmetcp_type type;
	uint8_t flags;
	bool has_data_digest;
	uint32_t head_bytes;	    /* with its digest: from the PDU's first byte, at most NVMETCP_HEAD_MAX */
	uint32_t data_offset_bytes; /* from the PDU's first byte; head_bytes if there is no data */
	uint32_t data_bytes;	    /* without padding and digest; of a TermReq: what it quotes */
};

struct nvmetcp_fault {
	enum nvmetcp_fes fes;
	uint32_t fei;
	const char *what; /* static text, for the log */
};

/* The first eight bytes. */
OX_CHECKED int nvmetcp_ch_check(const struct nvmetcp_terms *t, const struct nvmetcp_ch *ch,
				struct nvmetcp_pdu *out, struct nvmetcp_fault *fault);
/* pdu->head_bytes of header: its digest, then its own fields. */
OX_CHECKED int nvmetcp_head_check(const struct nvmetcp_terms *t, const struct nvmetcp_pdu *pdu,
				  const void *head, struct nvmetcp_fault *fault);
const char *nvmetcp_fes_text(uint16_t fes);

/* The data's digest as it stands on the wire. */
static inline le32 nvmetcp_data_digest(uint32_t crc)
{
	return le32_of(crc);
}

/* Each writes a whole header with digest and, where data follows, padding, into `out` (NVMETCP_HEAD_MAX bytes), and returns how many
 * bytes go before the data. The data's digest, if terms say so, goes after it. */
size_t nvmetcp_icreq_build(void *out, uint8_t hpda, uint8_t digests, uint32_t maxr2t);
size_t nvmetcp_icresp_build(void *out, uint8_t cpda, uint8_t digests, uint32_t maxh2cdata);
size_t nvmetcp_command_build(void *out, const struct nvmetcp_terms *t, const struct nvme_sqe *sqe,
			     uint32_t data_bytes);
size_t nvmetcp_response_build(void *out, const struct nvmetcp_terms *t, const struct nvme_cqe *cqe);
/* flags: NVMETCP_FLAG_LAST, NVMETCP_FLAG_SUCCESS. */
size_t nvmetcp_h2c_data_build(void *out, const struct nvmetcp_terms *t, uint8_t flags, uint16_t cid,
			      uint16_t ttag, uint32_t offset_bytes, uint32_t data_bytes);
size_t nvmetcp_c2h_data_build(void *out, const struct nvmetcp_terms *t, uint8_t flags, uint16_t cid,
			      uint32_t offset_bytes, uint32_t data_bytes);
size_t nvmetcp_r2t_build(void *out, const struct nvmetcp_terms *t, uint16_t cid, uint16_t ttag,
			 uint32_t offset_bytes, uint32_t length_bytes);
/* The whole TermReq of our side, quoting `quoted` (cut to NVMETCP_TERM_DATA_MAX); `out` has room for NVMETCP_TERM_BYTES_MAX. */
#define NVMETCP_TERM_BYTES_MAX (sizeof(struct nvmetcp_term) + NVMETCP_TERM_DATA_MAX)
size_t nvmetcp_term_build(void *out, const struct nvmetcp_terms *t, const struct nvmetcp_fault *fault,
			  const void *quoted, size_t quoted_bytes);

#endif
