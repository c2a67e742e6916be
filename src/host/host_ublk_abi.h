/*
 * host_ublk_abi.h: what passes between a ublk server and the kernel: the layouts and numbers of linux/ublk_cmd.h as of Linux
 * 6.12 (UPDATE_SIZE: 6.16). Debian 12's own copy of that header is from 6.1 and knows neither user copy nor the ioctl-style
 * commands, so what we use stands here, with the sizes and places pinned.
 *
 * All integers are the machine's own: these structs never leave it.
 */
#ifndef OXBOW_HOST_HOST_UBLK_ABI_H
#define OXBOW_HOST_HOST_UBLK_ABI_H

#include "base/base.h"

#include <sys/ioctl.h>

/* In the 80 bytes of a large submission entry, to /dev/ublk-control. */
struct ublk_control_wire {
	uint32_t device;
	uint16_t queue; /* UBLK_NO_QUEUE unless it is about one */
	uint16_t buffer_bytes;
	uint64_t buffer_address;
	uint64_t value;
	uint16_t path_bytes, zero16;
	uint32_t zero32;
};
static_assert(sizeof(struct ublk_control_wire) == 32, "struct ublksrv_ctrl_cmd");
static_assert(offsetof(struct ublk_control_wire, value) == 16, "struct ublksrv_ctrl_cmd");

#define UBLK_NO_QUEUE	UINT16_MAX
#define UBLK_ANY_DEVICE UINT32_MAX

struct ublk_device_wire {
	uint16_t queue_count, queue_depth, state, zero16;
	uint32_t io_bytes_max, device;
	int32_t server_pid;
	uint32_t zero32;
	uint64_t flags;
	uint64_t server_word; /* ours: the kernel keeps it and does not look at it */
	uint32_t owner_uid, owner_gid;
	uint64_t reserved[2];
};
static_assert(sizeof(struct ublk_device_wire) == 64, "struct ublksrv_ctrl_dev_info");
static_assert(offsetof(struct ublk_device_wire, flags) == 24, "struct ublksrv_ctrl_dev_info");
static_assert(offsetof(struct ublk_device_wire, server_word) == 32, "struct ublksrv_ctrl_dev_info");

enum { UBLK_STATE_DEAD = 0, UBLK_STATE_LIVE = 1, UBLK_STATE_QUIESCED = 2 };

#define UBLK_FLAG_RECOVERY    ((uint64_t)1 << 3)
#define UBLK_FLAG_REISSUE     ((uint64_t)1 << 4)
#define UBLK_FLAG_IOCTL_STYLE ((uint64_t)1 << 6)
#define UBLK_FLAG_USER_COPY   ((uint64_t)1 << 7)
#define UBLK_FLAG_UPDATE_SIZE ((uint64_t)1 << 10)

/* What ours are made with, and what a kernel must have. */
#define UBLK_FLAGS_WANTED                                                                                    \
	(UBLK_FLAG_RECOVERY | UBLK_FLAG_REISSUE | UBLK_FLAG_IOCTL_STYLE | UBLK_FLAG_USER_COPY)

struct ublk_basic_wire {
	uint32_t attributes;
	uint8_t logical_shift, physical_shift, io_best_shift, io_min_shift;
	uint32_t sectors_max, chunk_sectors;
	uint64_t device_sectors, virtual_boundary;
};
static_assert(sizeof(struct ublk_basic_wire) == 32, "struct ublk_param_basic");

enum { UBLK_ATTRIBUTE_READ_ONLY = 1, UBLK_ATTRIBUTE_VOLATILE = 4, UBLK_ATTRIBUTE_FUA = 8 };

struct ublk_discard_wire {
	uint32_t alignment, granularity;
	uint32_t discard_sectors_max, zero_sectors_max;
	uint16_t segments_max, zero16;
};
static_assert(sizeof(struct ublk_discard_wire) == 20, "struct ublk_param_discard");

/* A prefix of struct ublk_params: its first field says how much of it there is. */
struct ublk_params_wire {
	uint32_t len_bytes, types;
	struct ublk_basic_wire basic;
	struct ublk_discard_wire discard;
};
static_assert(offsetof(struct ublk_params_wire, basic) == 8, "struct ublk_params");
static_assert(offsetof(struct ublk_params_wire, discard) == 40, "struct ublk_params");
static_assert(sizeof(struct ublk_params_wire) == 64, "struct ublk_params, with 4 bytes of what follows");

#define UBLK_PARAMS_BYTES 60 /* of them, without the tail */
enum { UBLK_PARAM_BASIC = 1, UBLK_PARAM_DISCARD = 2 };

/* In the 16 bytes of an ordinary submission entry, to /dev/ublkcN. */
struct ublk_io_wire {
	uint16_t queue, tag;
	int32_t result;
	uint64_t address; /* 0 with user copy */
};
static_assert(sizeof(struct ublk_io_wire) == 16, "struct ublksrv_io_cmd");

/* What is asked: one for each tag in a page the kernel writes and we only read. */
struct ublk_request_wire {
	uint32_t op_flags; /* op in the low 8 bits */
	uint32_t sector_count;
	uint64_t first_sector, address;
};
static_assert(sizeof(struct ublk_request_wire) == 24, "struct ublksrv_io_desc");

enum { UBLK_OP_READ = 0, UBLK_OP_WRITE = 1, UBLK_OP_FLUSH = 2, UBLK_OP_DISCARD = 3, UBLK_OP_ZERO = 5 };
#define UBLK_OP_MASK	  0xffu
#define UBLK_REQ_FUA	  (1u << 13)
#define UBLK_REQ_NO_UNMAP (1u << 15)
#define UBLK_SECTOR_BYTES ((uint64_t)512)

/* Where in /dev/ublkcN the payload of a tag is read and written. */
#define UBLK_PAYLOAD_BASE  ((uint64_t)0x80000000)
#define UBLK_PAYLOAD_SHIFT 25

#define UBLK_CONTROL_OP(direction, number) direction('u', number, struct ublk_control_wire)
#define UBLK_GET_INFO			   UBLK_CONTROL_OP(_IOR, 0x02)
#define UBLK_ADD			   UBLK_CONTROL_OP(_IOWR, 0x04)
#define UBLK_DELETE			   UBLK_CONTROL_OP(_IOWR, 0x05)
#define UBLK_START			   UBLK_CONTROL_OP(_IOWR, 0x06)
#define UBLK_STOP			   UBLK_CONTROL_OP(_IOWR, 0x07)
#define UBLK_SET_PARAMS			   UBLK_CONTROL_OP(_IOWR, 0x08)
#define UBLK_GET_PARAMS			   UBLK_CONTROL_OP(_IOR, 0x09)
#define UBLK_RECOVERY_START		   UBLK_CONTROL_OP(_IOWR, 0x10)
#define UBLK_RECOVERY_END		   UBLK_CONTROL_OP(_IOWR, 0x11)
#define UBLK_GET_FEATURES		   UBLK_CONTROL_OP(_IOR, 0x13)
#define UBLK_UPDATE_SIZE		   UBLK_CONTROL_OP(_IOWR, 0x15)
#define UBLK_FETCH			   _IOWR('u', 0x20, struct ublk_io_wire)
#define UBLK_COMMIT_AND_FETCH		   _IOWR('u', 0x21, struct ublk_io_wire)

#endif
