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

void target_allow(const char *nqn, const struct nvmf_access_texts *texts, bool alone)
{
	static struct nvmf_access list;
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	struct nvmf_access_host h;
	const char *because;
	bool is_new;
	if (alone)
		nvmf_access_wipe(&list);
	if (nqn) {
		CHECK_OK(nvmf_access_host_make(nqn, texts, &h, &because));
		CHECK_OK(nvmf_access_put(&list, &h, &is_new));
	}
	uint32_t len_bytes = nvmf_access_encode(&list, note);
	CHECK_OK(pool_note_set(frame.pool, &frame.volume, POOL_NOTE_ACCESS, note, len_bytes));
	nvmf_server_access_changed(target.server, &frame.volume);
}

void detach(struct pair *p)
{
	host_close(&p->io);
	host_close(&p->admin);
}
