/*
 * nvme_host_state.h: the life of an association as a pure step: state and event in, next state and what to do out.
 *
 * Drawn in nvme_host.h. Every pair is in the table of nvme_host_state.c; one that cannot happen is an assert.
 */
#ifndef OXBOW_DATA_REPLICA_NVME_HOST_STATE_H
#define OXBOW_DATA_REPLICA_NVME_HOST_STATE_H

#include "base/base.h"

enum nvme_host_state {
	NVME_HOST_DISCONNECTED, /* nothing is open; the back-off runs */
	NVME_HOST_CONNECTING,	/* connections are opened, queues connected, the namespace identified */
	NVME_HOST_LIVE,		/* requests pass */
	NVME_HOST_RESETTING,	/* connections end; what was in flight is reported, or kept for replay */
	NVME_HOST_DELETING,	/* the same, for the last time */
	NVME_HOST_DELETED,
	NVME_HOST_STATES
};

enum nvme_host_event {
	NVME_HOST_DUE,	  /* the back-off is over (the first one lasts no time) */
	NVME_HOST_MADE,	  /* the association is there */
	NVME_HOST_FAILED, /* it could not be made */
	NVME_HOST_LOSS,	  /* it was there, and a connection, the protocol or a time-out ended it */
	NVME_HOST_GONE,	  /* no connection is open any more */
	NVME_HOST_CLOSE,  /* the owner wants no more of it */
	NVME_HOST_EVENTS
};

enum nvme_host_action {
	NVME_HOST_NEVER,     /* this event cannot come in this state */
	NVME_HOST_BACK_OFF,  /* wait; ends with DUE or CLOSE */
	NVME_HOST_MAKE,	     /* ends with MADE, FAILED or CLOSE */
	NVME_HOST_SERVE,     /* ends with LOSS or CLOSE */
	NVME_HOST_TAKE_DOWN, /* ends with GONE */
	NVME_HOST_END,
};

struct nvme_host_step {
	enum nvme_host_state next;
	enum nvme_host_action action;
};

struct nvme_host_step nvme_host_step(enum nvme_host_state state, enum nvme_host_event event);
const char *nvme_host_state_name(enum nvme_host_state state);

#endif
