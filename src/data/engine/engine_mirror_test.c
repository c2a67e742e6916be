/* engine_mirror_test.c: an engine over a mirror of copies in pools of one machine, on the simulator's disks. */
#include "data/engine/mirror_double.h"

#include <stdio.h>

#define SIZE MIRROR_DOUBLE_BYTES

static struct engine *opened(void)
{
	struct engine *e;
	CHECK_OK(engine_open(mirrored.engines, "disk", &e));
	CHECK_OK(engine_wait(e, UINT64_MAX / 2));
	return e;
}

WITH_COPIES(what_is_written_through_an_engine_is_read_through_it, 2)
{
	static uint8_t out[64 * KiB], in[64 * KiB];
	struct engine *e = opened();
	memset(out, 7, sizeof(out));
	CHECK_OK(engine_write(e, out, 4096, sizeof(out), 0));
	CHECK_OK(engine_zero(e, 8192, 4096, 0));
	memset(out + 4096, 0, 4096);
	CHECK_OK(engine_trim(e, 16384, 4096));
	memset(out + 12288, 0, 4096);
	CHECK_OK(engine_flush(e));
	CHECK_OK(engine_read(e, in, 4096, sizeof(in)));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	CHECK_EQ(engine_info(e)->size_bytes, SIZE);
	CHECK_EQ(engine_info(e)->lba_bytes, 512);
	CHECK(!engine_info(e)->read_only);
	CHECK(uuid_equal(&engine_info(e)->id, &mirrored.volume));
	engine_close(e);
}
