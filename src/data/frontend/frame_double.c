/* frame_double.c: see frame_double.h. */
#include "data/frontend/frame_double.h"

#include "base/test.h"

struct frame frame;

static void run_once(uint64_t seed, uint32_t lba_bytes, void (*fiber)(void *arg))
{
	frame.rt = testrt_new(seed, seed > 1);
	frame.lba_bytes = lba_bytes;
	frame.pool = pool_double_new("tank");
	frame.volume = pool_double_volume(frame.pool, "disk", FRAME_SIZE, lba_bytes);
	frame.engines = engines_new(frame.rt);
	engines_add_pool(frame.engines, frame.pool);
	fiber_spawn_big(frame.rt, "test", fiber, NULL);
	testrt_run(frame.rt);
	CHECK_EQ(testrt_conns(), 0);
	CHECK_OK(engines_remove_pool(frame.engines, frame.pool));
	engines_free(frame.engines);
	pool_double_free(frame.pool);
	testrt_free(frame.rt);
}

void frame_run(unsigned seeds, uint32_t lba_bytes, void (*fiber)(void *arg))
{
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_once(seed, lba_bytes, fiber);
}
