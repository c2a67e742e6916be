/*
 * nvme_auth_format.h: in-band authentication, byte by byte (NVM Express base specification 2.0, 8.13): the commands that carry
 * it and the messages of DH-HMAC-CHAP. Little-endian; challenges, responses and keys as they come out of their functions.
 */
#ifndef OXBOW_DATA_NVME_NVME_AUTH_FORMAT_H
#define OXBOW_DATA_NVME_NVME_AUTH_FORMAT_H

#include "data/nvme/nvme_format.h"

/* Authentication Send and Receive, as they lie over struct nvme_sqe. */
struct nvme_auth_command {
	uint8_t opcode, flags;
	le16 cid;
	uint8_t fctype, reserved_5[19];
	struct nvme_sgl sgl;
	uint8_t reserved_40, spsp0, spsp1, secp;
	le32 length; /* of the data: sent, or room for it */
	uint8_t reserved_48[16];
};
#define NVME_AUTH_SECP	    0xe9 /* what all of it is */
#define NVME_AUTH_SPSP	    0x01
#define NVME_AUTH_BYTES_MAX 4096u

enum nvme_auth_type { NVME_AUTH_COMMON = 0x00, NVME_AUTH_DHCHAP = 0x01 };
enum nvme_auth_id {
	NVME_AUTH_NEGOTIATE = 0x00, /* common */
	NVME_AUTH_CHALLENGE = 0x01,
	NVME_AUTH_REPLY = 0x02,
	NVME_AUTH_SUCCESS1 = 0x03,
	NVME_AUTH_SUCCESS2 = 0x04,
	NVME_AUTH_FAILURE2 = 0xf0, /* common; 2 is the host's, 1 the controller's */
	NVME_AUTH_FAILURE1 = 0xf1,
};

enum nvme_auth_hash { NVME_AUTH_SHA256 = 1, NVME_AUTH_SHA384 = 2, NVME_AUTH_SHA512 = 3 };
enum nvme_auth_group {
	NVME_AUTH_GROUP_NULL = 0,
	NVME_AUTH_FFDHE2048 = 1,
	NVME_AUTH_FFDHE3072 = 2,
	NVME_AUTH_FFDHE4096 = 3,
	NVME_AUTH_FFDHE6144 = 4,
	NVME_AUTH_FFDHE8192 = 5,
	NVME_AUTH_GROUPS
};
#define NVME_AUTH_HASH_BYTES_MAX  64
#define NVME_AUTH_GROUP_BYTES_MAX 1024

enum nvme_auth_explanation { /* of a failure, whose reason is always 1 */
			     NVME_AUTH_FAILED = 1,
			     NVME_AUTH_NOT_USABLE = 2,
			     NVME_AUTH_CONCAT_MISMATCH = 3,
			     NVME_AUTH_HASH_UNUSABLE = 4,
			     NVME_AUTH_GROUP_UNUSABLE = 5,
			     NVME_AUTH_WRONG_PAYLOAD = 6,
			     NVME_AUTH_WRONG_MESSAGE = 7,
};
#define NVME_AUTH_REASON_FAILED 1

struct nvme_auth_head { /* of every message */
	uint8_t type, id;
	le16 reserved_2, t_id;
};

struct nvme_auth_negotiate {
	struct nvme_auth_head head;
	uint8_t sc_c, protocols; /* secure channel concatenation; how many follow */
};

struct nvme_auth_protocol {
	uint8_t id, reserved_1, hashes, groups; /* id: 1, DH-HMAC-CHAP; then how many of each */
	uint8_t hash[30], group[30];
};

struct nvme_auth_challenge { /* then the challenge, and the controller's public key */
	struct nvme_auth_head head;
	uint8_t hash_bytes, reserved_7, hash, group;
	le16 key_bytes;
	le32 sequence;
};

struct nvme_auth_reply { /* then the response, the host's challenge, and its public key */
	struct nvme_auth_head head;
	uint8_t hash_bytes, reserved_7, has_challenge, reserved_9;
	le16 key_bytes;
	le32 sequence;
};

struct nvme_auth_success1 { /* then the response */
	struct nvme_auth_head head;
	uint8_t hash_bytes, reserved_7, has_response, reserved_9[7];
};

struct nvme_auth_success2 {
	struct nvme_auth_head head;
	uint8_t reserved_6[10];
};

struct nvme_auth_failure {
	struct nvme_auth_head head;
	uint8_t reason, explanation;
};

static_assert(sizeof(struct nvme_auth_command) == 64 && offsetof(struct nvme_auth_command, spsp0) == 41 &&
		      offsetof(struct nvme_auth_command, secp) == 43 &&
		      offsetof(struct nvme_auth_command, length) == 44,
	      "authentication commands");
static_assert(sizeof(struct nvme_auth_head) == 6 && sizeof(struct nvme_auth_negotiate) == 8 &&
		      sizeof(struct nvme_auth_protocol) == 64 && sizeof(struct nvme_auth_challenge) == 16 &&
		      sizeof(struct nvme_auth_reply) == 16 && sizeof(struct nvme_auth_success1) == 16 &&
		      sizeof(struct nvme_auth_success2) == 16 && sizeof(struct nvme_auth_failure) == 8 &&
		      offsetof(struct nvme_auth_challenge, sequence) == 12 &&
		      offsetof(struct nvme_auth_reply, key_bytes) == 10 &&
		      offsetof(struct nvme_auth_success1, has_response) == 8,
	      "authentication messages");

#endif
