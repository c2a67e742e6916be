/*
 * nvmetcp_format.h: the PDUs of NVMe over TCP (transport specification 1.0), byte by byte. Little-endian.
 *
 *     common header | the PDU's own header | header digest | padding up to PDO | data | data digest
 *     0             8                      HLEN                               PDO                  PLEN
 *
 * Digests are CRC-32C, little-endian: of the header (0 .. HLEN), and of the data without padding. HLEN, and so PDO and PLEN,
 * are as the asserts say; a digest is never counted in HLEN.
 */
#ifndef OXBOW_DATA_NVME_NVMETCP_FORMAT_H
#define OXBOW_DATA_NVME_NVMETCP_FORMAT_H

#include "data/nvme/nvme_format.h"

#define NVMETCP_PORT_TEXT	    "4420"
#define NVMETCP_DISCOVERY_PORT_TEXT "8009"

enum nvmetcp_type {
	NVMETCP_ICREQ = 0x00,
	NVMETCP_ICRESP = 0x01,
	NVMETCP_H2C_TERM = 0x02,
	NVMETCP_C2H_TERM = 0x03,
	NVMETCP_COMMAND = 0x04,
	NVMETCP_RESPONSE = 0x05,
	NVMETCP_H2C_DATA = 0x06,
	NVMETCP_C2H_DATA = 0x07,
	NVMETCP_R2T = 0x09,
	NVMETCP_TYPES,
};

#define NVMETCP_FLAG_HEADER_DIGEST 0x01
#define NVMETCP_FLAG_DATA_DIGEST   0x02
#define NVMETCP_FLAG_LAST	   0x04 /* H2CData, C2HData: the command's (the R2T's) last */
#define NVMETCP_FLAG_SUCCESS	   0x08 /* C2HData: stands for the response, too */

struct nvmetcp_ch {
	uint8_t type, flags, hlen, pdo;
	le32 plen;
};

struct nvmetcp_icreq {
	struct nvmetcp_ch ch;
	le16 pfv; /* 0 */
	uint8_t hpda;
	uint8_t digests;
	le32 maxr2t; /* per command, less one */
	uint8_t reserved[112];
};

struct nvmetcp_icresp {
	struct nvmetcp_ch ch;
	le16 pfv;
	uint8_t cpda;
	uint8_t digests;
	le32 maxh2cdata; /* bytes in one H2CData */
	uint8_t reserved[112];
};
#define NVMETCP_DIGEST_HEADER 0x01
#define NVMETCP_DIGEST_DATA   0x02

struct nvmetcp_term { /* then up to NVMETCP_TERM_DATA_MAX bytes of the header it complains about */
	struct nvmetcp_ch ch;
	le16 fes;
	le32 fei; /* INVALID_HEADER, UNSUPPORTED: the field's offset. HEADER_DIGEST: the digest that came */
	uint8_t reserved[10];
};
#define NVMETCP_TERM_DATA_MAX 128u

enum nvmetcp_fes {
	NVMETCP_FES_INVALID_HEADER = 1,
	NVMETCP_FES_SEQUENCE = 2,
	NVMETCP_FES_HEADER_DIGEST = 3,
	NVMETCP_FES_DATA_RANGE = 4,
	NVMETCP_FES_DATA_LIMIT = 5, /* to a host: R2T limit exceeded */
	NVMETCP_FES_UNSUPPORTED = 6,
};

struct nvmetcp_command {
	struct nvmetcp_ch ch;
	struct nvme_sqe sqe;
};

struct nvmetcp_response {
	struct nvmetcp_ch ch;
	struct nvme_cqe cqe;
};

struct nvmetcp_data { /* H2CData and C2HData; the latter has no ttag */
	struct nvmetcp_ch ch;
	le16 cccid, ttag;
	le32 offset, length;
	uint8_t reserved[4];
};

struct nvmetcp_r2t {
	struct nvmetcp_ch ch;
	le16 cccid, ttag;
	le32 offset, length;
	uint8_t reserved[4];
};

static_assert(sizeof(struct nvmetcp_ch) == 8, "common header");
static_assert(sizeof(struct nvmetcp_icreq) == 128 && offsetof(struct nvmetcp_icreq, maxr2t) == 12, "ICReq");
static_assert(sizeof(struct nvmetcp_icresp) == 128 && offsetof(struct nvmetcp_icresp, maxh2cdata) == 12,
	      "ICResp");
static_assert(sizeof(struct nvmetcp_term) == 24 && offsetof(struct nvmetcp_term, fei) == 10, "TermReq");
static_assert(sizeof(struct nvmetcp_command) == 72 && sizeof(struct nvmetcp_response) == 24, "capsules");
static_assert(sizeof(struct nvmetcp_data) == 24 && offsetof(struct nvmetcp_data, offset) == 12,
	      "H2CData, C2HData");
static_assert(sizeof(struct nvmetcp_r2t) == 24 && offsetof(struct nvmetcp_r2t, length) == 16, "R2T");

#define NVMETCP_PDA_MAX	       31 /* HPDA, CPDA: dwords less one */
#define NVMETCP_HEAD_MAX       144 /* any header with its digest and padding: 76 rounded up to a multiple of 72 */
#define NVMETCP_DIGEST_BYTES   4
#define NVMETCP_MAXH2CDATA_MIN 4096

#endif
