/* nvme_host_state.c: the table. A close that comes while an association is taken down waits for the back-off, and ends it. */
#include "data/replica/nvme_host_state.h"

static const struct nvme_host_step steps[NVME_HOST_STATES][NVME_HOST_EVENTS] = {
	[NVME_HOST_DISCONNECTED] =
		{
			[NVME_HOST_DUE] = {NVME_HOST_CONNECTING, NVME_HOST_MAKE},
			[NVME_HOST_CLOSE] = {NVME_HOST_DELETING, NVME_HOST_TAKE_DOWN},
		},
	[NVME_HOST_CONNECTING] =
		{
			[NVME_HOST_MADE] = {NVME_HOST_LIVE, NVME_HOST_SERVE},
			[NVME_HOST_FAILED] = {NVME_HOST_RESETTING, NVME_HOST_TAKE_DOWN},
			[NVME_HOST_CLOSE] = {NVME_HOST_DELETING, NVME_HOST_TAKE_DOWN},
		},
	[NVME_HOST_LIVE] =
		{
			[NVME_HOST_LOSS] = {NVME_HOST_RESETTING, NVME_HOST_TAKE_DOWN},
			[NVME_HOST_CLOSE] = {NVME_HOST_DELETING, NVME_HOST_TAKE_DOWN},
		},
	[NVME_HOST_RESETTING] =
		{
			[NVME_HOST_GONE] = {NVME_HOST_DISCONNECTED, NVME_HOST_BACK_OFF},
		},
	[NVME_HOST_DELETING] =
		{
			[NVME_HOST_GONE] = {NVME_HOST_DELETED, NVME_HOST_END},
		},
};

struct nvme_host_step nvme_host_step(enum nvme_host_state state, enum nvme_host_event event)
{
	struct nvme_host_step step = steps[state][event];
	assert(step.action != NVME_HOST_NEVER);
	return step;
}

const char *nvme_host_state_name(enum nvme_host_state state)
{
	static const char *const names[NVME_HOST_STATES] = {"disconnected", "connecting", "live",
							    "resetting",    "deleting",	  "deleted"};
	return names[state];
}
