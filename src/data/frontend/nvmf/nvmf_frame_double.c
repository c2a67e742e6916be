/* nvmf_frame_double.c: see nvmf_frame_double.h. */
#include "data/frontend/nvmf/nvmf_frame_double.h"

struct target target;

static struct {
	struct nvmf_options options;
	void (*body)(void);
} asked;

void target_start(void)
{
	target.server = nvmf_server_new(frame.engines, &target.options);
	CHECK_OK(nvmf_server_listen(target.server, ADDRESS, NULL));
}

static void body_fiber(void *arg)
{
	(void)arg;
	target.options = asked.options;
	nvmf_volume_nqn(&frame.volume, target.nqn);
	target_start();
	asked.body();
	if (target.server)
		nvmf_server_close(target.server);
}

void target_run(struct nvmf_options options, uint32_t lba_bytes, void (*body)(void))
{
	asked.options = options;
	asked.body = body;
	frame_run(3, lba_bytes, body_fiber);
}

void detach(struct pair *p)
{
	host_close(&p->io);
	host_close(&p->admin);
}
