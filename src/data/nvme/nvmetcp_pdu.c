/*
 * nvmetcp_pdu.c: see nvmetcp_pdu.h. What may come to whom is a table; the checks walk a header front to back, so that the
 * first field that is wrong is the one the peer is told about.
 */
#include "data/nvme/nvmetcp_pdu.h"

#include "base/crc32c.h"
#include "base/err.h"

enum carries { NOTHING, CAPSULE_DATA, DATA, QUOTED };

struct pdu_rule {
	uint8_t hlen; /* 0: no such type */
	enum nvmetcp_side to;
	enum carries carries;
	bool digests; /* once agreed upon */
};

static const struct pdu_rule rules[NVMETCP_TYPES] = {
	[NVMETCP_ICREQ] = {sizeof(struct nvmetcp_icreq), NVMETCP_SIDE_CONTROLLER, NOTHING, false},
	[NVMETCP_ICRESP] = {sizeof(struct nvmetcp_icresp), NVMETCP_SIDE_HOST, NOTHING, false},
	[NVMETCP_H2C_TERM] = {sizeof(struct nvmetcp_term), NVMETCP_SIDE_CONTROLLER, QUOTED, false},
	[NVMETCP_C2H_TERM] = {sizeof(struct nvmetcp_term), NVMETCP_SIDE_HOST, QUOTED, false},
	[NVMETCP_COMMAND] = {sizeof(struct nvmetcp_command), NVMETCP_SIDE_CONTROLLER, CAPSULE_DATA, true},
	[NVMETCP_RESPONSE] = {sizeof(struct nvmetcp_response), NVMETCP_SIDE_HOST, NOTHING, true},
	[NVMETCP_H2C_DATA] = {sizeof(struct nvmetcp_data), NVMETCP_SIDE_CONTROLLER, DATA, true},
	[NVMETCP_C2H_DATA] = {sizeof(struct nvmetcp_data), NVMETCP_SIDE_HOST, DATA, true},
	[NVMETCP_R2T] = {sizeof(struct nvmetcp_r2t), NVMETCP_SIDE_HOST, NOTHING, true},
};

static int faulty(struct nvmetcp_fault *fault, enum nvmetcp_fes fes, uint32_t fei, const char *what)
{
	*fault = (struct nvmetcp_fault){.fes = fes, .fei = fei, .what = what};
	return OXE_PROTO;
}

#define FIELD_FAULT(fault, type, field, what)                                                                \
	faulty(fault, NVMETCP_FES_INVALID_HEADER, offsetof(type, field), what)

/* ---- received ---------------------------------------------------------------------------------------------------------- */

static int check_data_place(const struct nvmetcp_terms *t, const struct nvmetcp_ch *ch,
			    struct nvmetcp_pdu *out, struct nvmetcp_fault *fault)
{
	uint32_t plen = le32_get(ch->plen), alignment = 4 * (t->rx_pda + 1u);
	uint32_t tail = t->data_digest ? NVMETCP_DIGEST_BYTES : 0;
	if (ch->pdo < out->head_bytes || ch->pdo % alignment)
		return FIELD_FAULT(fault, struct nvmetcp_ch, pdo, "data at an offset that cannot be");
	if (plen <= ch->pdo + tail)
		return FIELD_FAULT(fault, struct nvmetcp_ch, plen, "a length that ends before the data");
	out->has_data_digest = t->data_digest;
	out->data_offset_bytes = ch->pdo;
	out->data_bytes = plen - ch->pdo - tail;
	return 0;
}

static int check_data(const struct nvmetcp_terms *t, const struct nvmetcp_ch *ch, enum carries carries,
		      struct nvmetcp_pdu *out, struct nvmetcp_fault *fault)
{
	int err = check_data_place(t, ch, out, fault);
	if (err)
		return err;
	if (carries == CAPSULE_DATA && out->data_bytes > t->rx_capsule_data_max)
		return FIELD_FAULT(fault, struct nvmetcp_ch, plen, "more data in a capsule than it holds");
	if (carries == DATA && out->data_bytes > t->rx_data_max)
		return faulty(fault, NVMETCP_FES_DATA_LIMIT, 0, "more data in one PDU than agreed upon");
	return 0;
}

static int check_length(const struct nvmetcp_terms *t, const struct nvmetcp_ch *ch,
			const struct pdu_rule *rule, struct nvmetcp_pdu *out, struct nvmetcp_fault *fault)
{
	uint32_t plen = le32_get(ch->plen);
	if (rule->carries == QUOTED) {
		if (plen < ch->hlen || plen > ch->hlen + NVMETCP_TERM_DATA_MAX)
			return FIELD_FAULT(fault, struct nvmetcp_ch, plen,
					   "a length that is none of a TermReq");
		out->data_bytes = plen - ch->hlen;
		return 0;
	}
	if (rule->carries == DATA || (rule->carries == CAPSULE_DATA && plen > out->head_bytes))
		return check_data(t, ch, rule->carries, out, fault);
	if (plen != out->head_bytes)
		return FIELD_FAULT(fault, struct nvmetcp_ch, plen, "a length that is not the header's");
	return 0;
}

int nvmetcp_ch_check(const struct nvmetcp_terms *t, const struct nvmetcp_ch *ch, struct nvmetcp_pdu *out,
		     struct nvmetcp_fault *fault)
{
	const struct pdu_rule *rule = ch->type < NVMETCP_TYPES ? &rules[ch->type] : NULL;
	if (!rule || rule->hlen == 0 || rule->to != t->side)
		return FIELD_FAULT(fault, struct nvmetcp_ch, type, "a type of PDU that is not for us");
	if (ch->hlen != rule->hlen)
		return FIELD_FAULT(fault, struct nvmetcp_ch, hlen, "a header length that is not the type's");
	bool header_digest = rule->digests && t->header_digest;
	*out = (struct nvmetcp_pdu){
		.type = ch->type,
		.flags = ch->flags,
		.head_bytes = ch->hlen + (header_digest ? NVMETCP_DIGEST_BYTES : 0u),
	};
	out->data_offset_bytes = out->head_bytes;
	int err = check_length(t, ch, rule, out, fault);
	if (err)
		return err;
	/* The data's flag says nothing where there is no data. */
	bool says_header = ch->flags & NVMETCP_FLAG_HEADER_DIGEST,
	     says_data = ch->flags & NVMETCP_FLAG_DATA_DIGEST;
	if (says_header != header_digest ||
	    (rule->digests && out->data_bytes > 0 && says_data != t->data_digest))
		return FIELD_FAULT(fault, struct nvmetcp_ch, flags, "digests that were not agreed upon");
	return 0;
}

static int check_icreq(const struct nvmetcp_icreq *w, struct nvmetcp_fault *fault)
{
	if (le16_get(w->pfv) != 0)
		return faulty(fault, NVMETCP_FES_UNSUPPORTED, offsetof(struct nvmetcp_icreq, pfv),
			      "a PDU format version that is not 0");
	if (w->hpda > NVMETCP_PDA_MAX)
		return FIELD_FAULT(fault, struct nvmetcp_icreq, hpda, "a data alignment that cannot be");
	return 0;
}

static int check_icresp(const struct nvmetcp_icresp *w, struct nvmetcp_fault *fault)
{
	if (le16_get(w->pfv) != 0)
		return faulty(fault, NVMETCP_FES_UNSUPPORTED, offsetof(struct nvmetcp_icresp, pfv),
			      "a PDU format version that is not 0");
	if (w->cpda > NVMETCP_PDA_MAX)
		return FIELD_FAULT(fault, struct nvmetcp_icresp, cpda, "a data alignment that cannot be");
	if (le32_get(w->maxh2cdata) < NVMETCP_MAXH2CDATA_MIN)
		return FIELD_FAULT(fault, struct nvmetcp_icresp, maxh2cdata,
				   "a MAXH2CDATA that is too small");
	return 0;
}

static int check_transfer(const struct nvmetcp_data *w, const struct nvmetcp_pdu *pdu,
			  struct nvmetcp_fault *fault)
{
	uint32_t length = le32_get(w->length);
	if (le32_get(w->offset) % 4)
		return FIELD_FAULT(fault, struct nvmetcp_data, offset, "data at an odd offset");
	if (length == 0 || length % 4)
		return FIELD_FAULT(fault, struct nvmetcp_data, length, "data of an odd length");
	if (pdu->type != NVMETCP_R2T && length != pdu->data_bytes)
		return FIELD_FAULT(fault, struct nvmetcp_data, length,
				   "a length of data that is not the PDU's");
	return 0;
}

static_assert(offsetof(struct nvmetcp_r2t, offset) == offsetof(struct nvmetcp_data, offset) &&
		      offsetof(struct nvmetcp_r2t, length) == offsetof(struct nvmetcp_data, length),
	      "an R2T can be looked at as the data it asks for");

int nvmetcp_head_check(const struct nvmetcp_terms *t, const struct nvmetcp_pdu *pdu, const void *head,
		       struct nvmetcp_fault *fault)
{
	const struct nvmetcp_ch *ch = head;
	if (rules[pdu->type].digests && t->header_digest) {
		le32 digest;
		memcpy(&digest, (const uint8_t *)head + ch->hlen, sizeof(digest));
		if (crc32c(0, head, ch->hlen) != le32_get(digest))
			return faulty(fault, NVMETCP_FES_HEADER_DIGEST, le32_get(digest),
				      "a header that is not what its digest says");
	}
	switch (pdu->type) {
	case NVMETCP_ICREQ:
		return check_icreq(head, fault);
	case NVMETCP_ICRESP:
		return check_icresp(head, fault);
	case NVMETCP_H2C_DATA:
	case NVMETCP_C2H_DATA:
	case NVMETCP_R2T:
		return check_transfer(head, pdu, fault);
	default:
		return 0;
	}
}

const char *nvmetcp_fes_text(uint16_t fes)
{
	static const char *const texts[] = {
		[NVMETCP_FES_INVALID_HEADER] = "invalid PDU header field",
		[NVMETCP_FES_SEQUENCE] = "PDU sequence error",
		[NVMETCP_FES_HEADER_DIGEST] = "header digest error",
		[NVMETCP_FES_DATA_RANGE] = "data transfer out of range",
		[NVMETCP_FES_DATA_LIMIT] = "data transfer limit exceeded",
		[NVMETCP_FES_UNSUPPORTED] = "unsupported parameter",
	};
	return fes < ARRAY_COUNT(texts) && texts[fes] ? texts[fes] : "unknown fatal error";
}

/* ---- sent --------------------------------------------------------------------------------------------------------------- */

size_t nvmetcp_icreq_build(void *out, uint8_t hpda, uint8_t digests, uint32_t maxr2t)
{
	struct nvmetcp_icreq *w = out;
	*w = (struct nvmetcp_icreq){
		.ch = {.type = NVMETCP_ICREQ, .hlen = sizeof(*w), .plen = le32_of(sizeof(*w))},
		.hpda = hpda,
		.digests = digests,
		.maxr2t = le32_of(maxr2t),
	};
	return sizeof(*w);
}

size_t nvmetcp_icresp_build(void *out, uint8_t cpda, uint8_t digests, uint32_t maxh2cdata)
{
	struct nvmetcp_icresp *w = out;
	*w = (struct nvmetcp_icresp){
		.ch = {.type = NVMETCP_ICRESP, .hlen = sizeof(*w), .plen = le32_of(sizeof(*w))},
		.cpda = cpda,
		.digests = digests,
		.maxh2cdata = le32_of(maxh2cdata),
	};
	return sizeof(*w);
}

/* The common header of a PDU whose own fields are in place, its digest, and the way to the data. */
static size_t seal(void *out, const struct nvmetcp_terms *t, uint8_t type, uint8_t flags, uint32_t data_bytes)
{
	uint8_t *bytes = out;
	uint8_t hlen = rules[type].hlen;
	size_t head_bytes = hlen + (t->header_digest ? NVMETCP_DIGEST_BYTES : 0u);
	size_t end =
		data_bytes ? u64_div_up(head_bytes, 4 * (t->tx_pda + 1u)) * 4 * (t->tx_pda + 1u) : head_bytes;
	size_t tail = data_bytes && t->data_digest ? NVMETCP_DIGEST_BYTES : 0;
	assert(end <= NVMETCP_HEAD_MAX);
	flags |= t->header_digest ? NVMETCP_FLAG_HEADER_DIGEST : 0;
	flags |= tail ? NVMETCP_FLAG_DATA_DIGEST : 0;
	struct nvmetcp_ch ch = {.type = type,
				.flags = flags,
				.hlen = hlen,
				.pdo = data_bytes ? (uint8_t)end : 0,
				.plen = le32_of((uint32_t)(end + data_bytes + tail))};
	memcpy(bytes, &ch, sizeof(ch));
	memset(bytes + hlen, 0, end - hlen);
	if (t->header_digest) {
		le32 digest = le32_of(crc32c(0, bytes, hlen));
		memcpy(bytes + hlen, &digest, sizeof(digest));
	}
	return end;
}

size_t nvmetcp_command_build(void *out, const struct nvmetcp_terms *t, const struct nvme_sqe *sqe,
			     uint32_t data_bytes)
{
	struct nvmetcp_command *w = out;
	w->sqe = *sqe;
	return seal(out, t, NVMETCP_COMMAND, 0, data_bytes);
}

size_t nvmetcp_response_build(void *out, const struct nvmetcp_terms *t, const struct nvme_cqe *cqe)
{
	struct nvmetcp_response *w = out;
	w->cqe = *cqe;
	return seal(out, t, NVMETCP_RESPONSE, 0, 0);
}

size_t nvmetcp_h2c_data_build(void *out, const struct nvmetcp_terms *t, uint8_t flags, uint16_t cid,
			      uint16_t ttag, uint32_t offset_bytes, uint32_t data_bytes)
{
	struct nvmetcp_data *w = out;
	*w = (struct nvmetcp_data){.cccid = le16_of(cid),
				   .ttag = le16_of(ttag),
				   .offset = le32_of(offset_bytes),
				   .length = le32_of(data_bytes)};
	return seal(out, t, NVMETCP_H2C_DATA, flags, data_bytes);
}

size_t nvmetcp_c2h_data_build(void *out, const struct nvmetcp_terms *t, uint8_t flags, uint16_t cid,
			      uint32_t offset_bytes, uint32_t data_bytes)
{
	struct nvmetcp_data *w = out;
	*w = (struct nvmetcp_data){
		.cccid = le16_of(cid), .offset = le32_of(offset_bytes), .length = le32_of(data_bytes)};
	return seal(out, t, NVMETCP_C2H_DATA, flags, data_bytes);
}

size_t nvmetcp_r2t_build(void *out, const struct nvmetcp_terms *t, uint16_t cid, uint16_t ttag,
			 uint32_t offset_bytes, uint32_t length_bytes)
{
	struct nvmetcp_r2t *w = out;
	*w = (struct nvmetcp_r2t){.cccid = le16_of(cid),
				  .ttag = le16_of(ttag),
				  .offset = le32_of(offset_bytes),
				  .length = le32_of(length_bytes)};
	return seal(out, t, NVMETCP_R2T, 0, 0);
}

size_t nvmetcp_term_build(void *out, const struct nvmetcp_terms *t, const struct nvmetcp_fault *fault,
			  const void *quoted, size_t quoted_bytes)
{
	struct nvmetcp_term *w = out;
	quoted_bytes = u64_min(quoted_bytes, NVMETCP_TERM_DATA_MAX);
	*w = (struct nvmetcp_term){
		.ch = {.type = t->side == NVMETCP_SIDE_HOST ? NVMETCP_H2C_TERM : NVMETCP_C2H_TERM,
		       .hlen = sizeof(*w),
		       .plen = le32_of((uint32_t)(sizeof(*w) + quoted_bytes))},
		.fes = le16_of((uint16_t)fault->fes),
		.fei = le32_of(fault->fei),
	};
	if (quoted_bytes > 0)
		memcpy(w + 1, quoted, quoted_bytes);
	return sizeof(*w) + quoted_bytes;
}
