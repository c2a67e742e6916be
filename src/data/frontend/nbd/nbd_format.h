/*
 * nbd_format.h: the bytes of NBD on the wire, named as in the protocol document (NetworkBlockDevice/nbd, doc/proto.md).
 *
 *     handshake      S greeting, C client flags, then options: C option + data, S replies to it, until GO or EXPORT_NAME
 *     transmission   C requests, S replies, in any order, matched by the cookie
 *
 * Every integer is big-endian. A struct here is laid over bytes as they arrive, so each has its size pinned. Nothing in this
 * file decides anything: what is believed of these bytes is checked where they are decoded.
 */
#ifndef OXBOW_DATA_FRONTEND_NBD_NBD_FORMAT_H
#define OXBOW_DATA_FRONTEND_NBD_NBD_FORMAT_H

#include "base/bytes.h"

/* ---- handshake ----------------------------------------------------------------------------------------------------- */

#define NBD_INIT_MAGIC 0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_REP_MAGIC  0x0003e889045565a9ull
#define NBD_OPT_ZEROES 124  /* bytes of padding after NBD_OPT_EXPORT_NAME, unless NBD_FLAG_C_NO_ZEROES */
#define NBD_STRING_MAX 4096 /* the protocol's limit on any string; names and queries of ours are shorter */

enum { /* handshake flags (server) and client flags share their bits */
       NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
       NBD_FLAG_NO_ZEROES = 1 << 1,
       NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
       NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

/*      option               value */
#define NBD_OPTIONS(X)                                                                                       \
	X(EXPORT_NAME, 1)                                                                                    \
	X(ABORT, 2)                                                                                          \
	X(LIST, 3)                                                                                           \
	X(STARTTLS, 5)                                                                                       \
	X(INFO, 6)                                                                                           \
	X(GO, 7)                                                                                             \
	X(STRUCTURED_REPLY, 8)                                                                               \
	X(LIST_META_CONTEXT, 9)                                                                              \
	X(SET_META_CONTEXT, 10)                                                                              \
	X(EXTENDED_HEADERS, 11)

enum nbd_opt {
#define NBD_OPT_ENUM(name, value) NBD_OPT_##name = (value),
	NBD_OPTIONS(NBD_OPT_ENUM)
#undef NBD_OPT_ENUM
};

#define NBD_REP_ERR(n) (0x80000000u | (n))

#define NBD_REP_ACK		    1u
#define NBD_REP_SERVER		    2u
#define NBD_REP_INFO		    3u
#define NBD_REP_META_CONTEXT	    4u
#define NBD_REP_ERR_UNSUP	    NBD_REP_ERR(1u)
#define NBD_REP_ERR_POLICY	    NBD_REP_ERR(2u)
#define NBD_REP_ERR_INVALID	    NBD_REP_ERR(3u)
#define NBD_REP_ERR_PLATFORM	    NBD_REP_ERR(4u)
#define NBD_REP_ERR_TLS_REQD	    NBD_REP_ERR(5u)
#define NBD_REP_ERR_UNKNOWN	    NBD_REP_ERR(6u)
#define NBD_REP_ERR_SHUTDOWN	    NBD_REP_ERR(7u)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8u)
#define NBD_REP_ERR_TOO_BIG	    NBD_REP_ERR(9u)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10u)

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

enum { /* transmission flags */
       NBD_FLAG_HAS_FLAGS = 1 << 0,
       NBD_FLAG_READ_ONLY = 1 << 1,
       NBD_FLAG_SEND_FLUSH = 1 << 2,
       NBD_FLAG_SEND_FUA = 1 << 3,
       NBD_FLAG_SEND_TRIM = 1 << 5,
       NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
       NBD_FLAG_SEND_DF = 1 << 7,
       NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
       NBD_FLAG_SEND_CACHE = 1 << 10,
       NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
       NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

struct nbd_greeting_wire {
	be64 init_magic, opts_magic;
	be16 handshake_flags;
};
static_assert(sizeof(struct nbd_greeting_wire) == 18, "greeting");

struct nbd_option_wire {
	be64 magic; /* NBD_OPTS_MAGIC */
	be32 option, length;
};
static_assert(sizeof(struct nbd_option_wire) == 16, "option header");

struct nbd_option_reply_wire {
	be64 magic; /* NBD_REP_MAGIC */
	be32 option, type, length;
};
static_assert(sizeof(struct nbd_option_reply_wire) == 20, "option reply header");

struct nbd_export_name_reply_wire { /* followed by NBD_OPT_ZEROES zero bytes, or not */
	be64 size;
	be16 flags;
};
static_assert(sizeof(struct nbd_export_name_reply_wire) == 10, "reply to NBD_OPT_EXPORT_NAME");

struct nbd_info_export_wire {
	be16 type; /* NBD_INFO_EXPORT */
	be64 size;
	be16 flags;
};
static_assert(sizeof(struct nbd_info_export_wire) == 12, "NBD_INFO_EXPORT");

struct nbd_info_block_size_wire {
	be16 type; /* NBD_INFO_BLOCK_SIZE */
	be32 minimum, preferred, maximum;
};
static_assert(sizeof(struct nbd_info_block_size_wire) == 14, "NBD_INFO_BLOCK_SIZE");

/* ---- transmission -------------------------------------------------------------------------------------------------- */

#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REPLY_MAGIC   0x6e8a278cu

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

enum { /* errors on the wire: the protocol's numbers, which are Linux's, but not all of them */
       NBD_EPERM = 1,
       NBD_EIO = 5,
       NBD_ENOMEM = 12,
       NBD_EINVAL = 22,
       NBD_ENOSPC = 28,
       NBD_EOVERFLOW = 75,
       NBD_ENOTSUP = 95,
       NBD_ESHUTDOWN = 108,
};

struct nbd_request_wire {
	be32 magic; /* NBD_REQUEST_MAGIC */
	be16 flags, type;
	be64 cookie, offset;
	be32 length;
};
static_assert(sizeof(struct nbd_request_wire) == 28, "request");

struct nbd_extended_request_wire {
	be32 magic; /* NBD_EXTENDED_REQUEST_MAGIC */
	be16 flags, type;
	be64 cookie, offset, length;
};
static_assert(sizeof(struct nbd_extended_request_wire) == 32, "extended request");

struct nbd_block_status_payload_wire { /* of a request with NBD_CMD_FLAG_PAYLOAD_LEN, followed by context ids (be32) */
	be64 effect_length;
};
static_assert(sizeof(struct nbd_block_status_payload_wire) == 8, "block status payload");

enum { NBD_REPLY_FLAG_DONE = 1 << 0 };

#define NBD_REPLY_TYPE_NONE		0
#define NBD_REPLY_TYPE_OFFSET_DATA	1
#define NBD_REPLY_TYPE_OFFSET_HOLE	2
#define NBD_REPLY_TYPE_BLOCK_STATUS	5
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6
#define NBD_REPLY_TYPE_ERROR		32769

struct nbd_simple_reply_wire {
	be32 magic; /* NBD_SIMPLE_REPLY_MAGIC */
	be32 error;
	be64 cookie;
};
static_assert(sizeof(struct nbd_simple_reply_wire) == 16, "simple reply");

struct nbd_structured_reply_wire {
	be32 magic; /* NBD_STRUCTURED_REPLY_MAGIC */
	be16 flags, type;
	be64 cookie;
	be32 length;
};
static_assert(sizeof(struct nbd_structured_reply_wire) == 20, "structured reply chunk");

struct nbd_extended_reply_wire {
	be32 magic; /* NBD_EXTENDED_REPLY_MAGIC */
	be16 flags, type;
	be64 cookie, offset, length; /* offset: the request's */
};
static_assert(sizeof(struct nbd_extended_reply_wire) == 32, "extended reply chunk");

struct nbd_offset_data_wire { /* followed by the data */
	be64 offset;
};
static_assert(sizeof(struct nbd_offset_data_wire) == 8, "NBD_REPLY_TYPE_OFFSET_DATA");

struct nbd_offset_hole_wire {
	be64 offset;
	be32 hole_size;
};
static_assert(sizeof(struct nbd_offset_hole_wire) == 12, "NBD_REPLY_TYPE_OFFSET_HOLE");

struct nbd_error_wire { /* followed by the message */
	be32 error;
	be16 message_length;
};
static_assert(sizeof(struct nbd_error_wire) == 6, "NBD_REPLY_TYPE_ERROR");

struct nbd_block_status_wire { /* followed by descriptors */
	be32 context_id;
};
static_assert(sizeof(struct nbd_block_status_wire) == 4, "NBD_REPLY_TYPE_BLOCK_STATUS");

struct nbd_block_descriptor_wire {
	be32 length, flags;
};
static_assert(sizeof(struct nbd_block_descriptor_wire) == 8, "block descriptor");

struct nbd_block_status_ext_wire { /* followed by descriptors */
	be32 context_id, count;
};
static_assert(sizeof(struct nbd_block_status_ext_wire) == 8, "NBD_REPLY_TYPE_BLOCK_STATUS_EXT");

struct nbd_block_descriptor_ext_wire {
	be64 length, flags;
};
static_assert(sizeof(struct nbd_block_descriptor_ext_wire) == 16, "extended block descriptor");

/* Flags of base:allocation. */
enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };
/* Flags of oxbow:changed-since:SNAPSHOT. */
enum { OXBOW_STATE_CHANGED = 1 << 0 };

#endif
