/*
 * ublk_device.h: what is asked of one device, carried out on an engine that may come and go. Private to this directory.
 */
#ifndef OXBOW_DATA_FRONTEND_UBLK_UBLK_DEVICE_H
#define OXBOW_DATA_FRONTEND_UBLK_UBLK_DEVICE_H

#include "data/engine/engine.h"

/* Payload memory, of all devices. */
struct ublk_memory {
	struct rt_bufpool *buffers;
	uint64_t budget_bytes, lent_bytes;
	struct waitq room; /* requests, until some of it is returned */
};

struct ublk_device {
	struct rt *rt;
	struct ublk_memory *memory; /* the server's */
	uint64_t lent_bytes;	    /* of it */
	struct rt_blk *blk;	    /* NULL: none */
	struct engine *engine;	    /* NULL: requests wait for one */
	bool engine_lost;	    /* what it answered, or who evicts, says that it is gone */
	bool giving_up;		    /* no engine will come: what waits for one fails */
	bool ended;		    /* no more requests will come, and all are done */
	uint32_t engine_users;	    /* requests inside the engine */
	struct waitq engine_came;
	struct waitq *changed; /* its keeper's: woken when engine_lost, ended or engine_users does change */
	struct rt_group requests;
};

void ublk_device_init(struct ublk_device *d, struct rt *rt, struct ublk_memory *memory,
		      struct waitq *changed);
/* Serve blk from a fiber of its own, until it is stopped: then `ended`. */
void ublk_device_serve(struct ublk_device *d, struct rt_blk *blk);
void ublk_device_engine_set(struct ublk_device *d, struct engine *e);
/* Take the engine away and wait for those inside it. Returns it. Suspends. */
struct engine *ublk_device_engine_take(struct ublk_device *d);
/* From now on nothing waits for an engine. */
void ublk_device_give_up(struct ublk_device *d);

/* May this be carried out? 0, OXE_UNSUPPORTED, OXE_RANGE, OXE_ALIGN, OXE_TOOBIG or OXE_ROFS. */
OX_CHECKED int ublk_request_check(const struct rt_blk_request *r, const struct rt_blk_spec *spec);

#endif
