/*
 * copy_print.c: what a copy of a volume holds, read from its pool without a daemon and without changing it.
 *
 *     copy_print POOL_FILE VOLUME_UUID
 *
 * A line for the head, and one for each layer that a user named, the oldest first: its name, size, and CRC32C. The volume is not there: "absent".
 */
#include "base/crc32c.h"
#include "data/store/pool.h"
#include "host/host.h"

#include <stdio.h>

#define PIECE_BYTES (1 * MiB)

static const char *path;
static struct uuid volume_id;
static int status = 1;

static int print_one(struct pool *pool, const struct uuid *id, const char *name)
{
	struct vol *vol;
	uint32_t crc = 0;
	uint8_t *data = aligned_alloc(RT_IO_ALIGN, PIECE_BYTES);
	int err = vol_open(pool, id, &vol);
	if (err)
		return err;
	uint64_t size_bytes = vol_info(vol)->size_bytes;
	for (uint64_t at = 0; !err && at < size_bytes; at += PIECE_BYTES) {
		uint64_t len_bytes = u64_min(PIECE_BYTES, size_bytes - at);
		err = vol_read(vol, data, at, len_bytes);
		crc = crc32c(crc, data, len_bytes);
	}
	vol_close(vol);
	free(data);
	if (!err)
		printf("%s %llu %08x\n", name, (unsigned long long)size_bytes, crc);
	return err;
}

struct layers {
	struct layer_info list[64];
	size_t count;
};

static bool layer_note(void *ctx, const struct layer_info *l)
{
	struct layers *all = ctx;
	if (!pool_name_is_system(l->name) && all->count < ARRAY_COUNT(all->list))
		all->list[all->count++] = *l;
	return true;
}

static int print_all(struct pool *pool)
{
	static struct layers layers;
	struct volume_info info;
	int err = volume_get_any(pool, &volume_id, &info);
	if (err == OXE_NOENT) {
		puts("absent");
		return 0;
	}
	if (!err)
		err = print_one(pool, &volume_id, "(head)");
	if (!err)
		err = volume_chain(pool, &volume_id, layer_note, &layers);
	for (size_t i = 0; !err && i < layers.count; i++)
		err = print_one(pool, &layers.list[i].id, layers.list[i].name);
	return err;
}

static void print_main(void *arg)
{
	struct pool_options options = {.read_only = true};
	struct rt *rt = arg;
	struct rt_disk *disk;
	struct pool *pool;
	int err = rt_disk_open(rt, path, RT_DISK_READONLY, 0, &disk);
	if (!err)
		err = pool_open(disk, &options, &pool);
	if (!err) {
		err = print_all(pool);
		int close_err = pool_close(pool);
		err = err ? err : close_err;
	}
	if (err)
		fprintf(stderr, "copy_print: %s: %s\n", path, err_text(err));
	status = err ? 1 : 0;
	host_rt_stop(rt);
}

int main(int argc, char **argv)
{
	if (argc != 3 || uuid_parse(argv[2], &volume_id) != 0) {
		fprintf(stderr, "usage: copy_print POOL_FILE VOLUME_UUID\n");
		return 2;
	}
	path = argv[1];
	struct rt *rt = host_rt_new(&(struct host_options){0});
	if (!rt)
		return 1;
	fiber_spawn(rt, "print", print_main, rt);
	host_rt_run(rt);
	fflush(stdout);
	return status;
}
