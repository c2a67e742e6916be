/*
 * ublk_blk_double.h: a kernel with ublk in it, for tests: devices that outlive their servers, and users of them.
 *
 * Calls marked S suspend the calling fiber.
 */
#ifndef OXBOW_DATA_FRONTEND_UBLK_UBLK_BLK_DOUBLE_H
#define OXBOW_DATA_FRONTEND_UBLK_UBLK_BLK_DOUBLE_H

#include "rt/rt.h"

/* Give this reactor such a kernel, without any device. Free it with all devices at the end. */
void blk_double_install(struct rt *rt);
void blk_double_free(void);

/* A user of /dev/ublkbN. S, until it is answered, by whichever server. */
int blk_double_io(uint32_t number, enum rt_blk_op op, unsigned flags, uint64_t offset_bytes,
		  uint64_t len_bytes, void *data);
/* How many requests wait for an answer, and how many of them are in a server's hands. */
unsigned blk_double_waiting(uint32_t number);
unsigned blk_double_taken(uint32_t number);

/* The process dies: what it had taken is asked again of the next, and whatever calls it still makes do nothing and fail. */
void blk_double_kill(void);
/* The next process. */
void blk_double_revive(void);
/* The machine restarts: no device is left. */
void blk_double_reboot(void);
/* A device made by somebody else, in any state. */
void blk_double_add(const struct rt_blk_info *info);

unsigned blk_double_count(void);
/* NULL: none. */
const struct rt_blk_info *blk_double_info(uint32_t number);
void blk_double_hold(uint32_t number, bool held);

enum blk_double_step {
	BLK_DOUBLE_PROBE,
	BLK_DOUBLE_MAKE,
	BLK_DOUBLE_RECOVER,
	BLK_DOUBLE_START,
	BLK_DOUBLE_STOP,
	BLK_DOUBLE_STEPS
};
/* From now on this step returns err; 0: it works. */
void blk_double_fail(enum blk_double_step step, int err);
void blk_double_can_grow(bool can);

#endif
