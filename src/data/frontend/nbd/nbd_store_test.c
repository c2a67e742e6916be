/*
 * nbd_store_test.c: the server over the real store on a disk in memory, against a model that is an array.
 *
 * One client writes, zeroes, trims and takes snapshots under a seed; what it reads, what every snapshot reads, and what is
 * told to be allocated and changed must be what the model says.
 */
#include "base/prng.h"
#include "base/test.h"
#include "data/engine/engine_testrt.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_client_double.h"

#include <stdio.h>

#define ADDRESS	  "unix:test"
#define DISK_SIZE (128 * MiB)
#define SIZE	  (4 * MiB)
#define BLOCKS	  (SIZE / POOL_BLOCK_BYTES)
#define SNAPSHOTS 4
#define STEPS	  600

struct model {
	uint8_t bytes[SIZE];
	unsigned changed_at[BLOCKS]; /* in which snapshot's time a block was last touched */
};

static struct {
	struct rt *rt;
	struct pool *pool;
	struct engines *engines;
	struct nbd_server *server;
	struct uuid volume;
	struct prng rng;
	struct model now;
	uint8_t taken[SNAPSHOTS][SIZE];
	unsigned snapshots;
	uint8_t buffer[SIZE];
	int form;
} t;

static void range(uint64_t unit, uint64_t max_units, uint64_t *offset, uint64_t *len_bytes)
{
	*len_bytes = (1 + prng_below(&t.rng, max_units)) * unit;
	*offset = prng_below(&t.rng, (SIZE - *len_bytes) / unit + 1) * unit;
}

static void touch(uint64_t offset, uint64_t len_bytes)
{
	for (uint64_t b = offset / POOL_BLOCK_BYTES; b <= (offset + len_bytes - 1) / POOL_BLOCK_BYTES; b++)
		t.now.changed_at[b] = t.snapshots;
}

static void step_write(struct client *c)
{
	uint64_t offset, len_bytes;
	range(512, prng_one_in(&t.rng, 4) ? 600 : 20, &offset, &len_bytes);
	prng_fill(&t.rng, t.now.bytes + offset, len_bytes);
	touch(offset, len_bytes);
	uint16_t flags = prng_one_in(&t.rng, 4) ? NBD_CMD_FLAG_FUA : 0;
	CHECK_EQ(client_write(c, flags, offset, t.now.bytes + offset, len_bytes), 0);
}

static void step_zero(struct client *c)
{
	uint64_t offset, len_bytes;
	range(512, 600, &offset, &len_bytes);
	memset(t.now.bytes + offset, 0, len_bytes);
	touch(offset, len_bytes);
	uint16_t flags = prng_one_in(&t.rng, 2) ? NBD_CMD_FLAG_NO_HOLE : 0;
	CHECK_EQ(client_call(c, flags, NBD_CMD_WRITE_ZEROES, offset, len_bytes), 0);
}

static void step_trim(struct client *c)
{
	uint64_t offset, len_bytes;
	range(POOL_BLOCK_BYTES, 80, &offset, &len_bytes);
	memset(t.now.bytes + offset, 0, len_bytes);
	touch(offset, len_bytes);
	CHECK_EQ(client_call(c, 0, NBD_CMD_TRIM, offset, len_bytes), 0);
}

static void step_read(struct client *c)
{
	uint64_t offset, len_bytes;
	range(512, 1200, &offset, &len_bytes);
	CHECK_EQ(client_read(c, offset, t.buffer, len_bytes), 0);
	CHECK(memcmp(t.buffer, t.now.bytes + offset, len_bytes) == 0);
}

static void step_snapshot(struct client *c)
{
	char name[16];
	struct uuid id = rt_random_uuid(t.rt);
	(void)c;
	if (t.snapshots == SNAPSHOTS)
		return;
	snprintf(name, sizeof(name), "s%u", t.snapshots);
	CHECK_OK(snapshot_create(t.pool, &t.volume, &id, name, NULL));
	memcpy(t.taken[t.snapshots++], t.now.bytes, SIZE);
}

static void step(struct client *c, unsigned i)
{
	static void (*const steps[])(struct client * c) = {step_write, step_write, step_write,
							   step_zero,  step_trim,  step_read};
	if (i % (STEPS / SNAPSHOTS) == STEPS / SNAPSHOTS / 2)
		step_snapshot(c);
	else
		steps[prng_below(&t.rng, ARRAY_COUNT(steps))](c);
}

static void check_reads(const char *export_name, const uint8_t *wanted)
{
	struct client c = client_begin(ADDRESS, export_name, t.form);
	for (uint64_t at = 0; at < SIZE; at += MiB) {
		CHECK_EQ(client_read(&c, at, t.buffer, MiB), 0);
		CHECK(memcmp(t.buffer, wanted + at, MiB) == 0);
	}
	client_disconnect(&c);
}

/* The flags BLOCK_STATUS gives for each block. */
static void status_map(struct client *c, uint8_t map[BLOCKS])
{
	struct reply r;
	uint64_t block = 0;
	while (block < BLOCKS) {
		client_request(c, 0, NBD_CMD_BLOCK_STATUS, 1, block * POOL_BLOCK_BYTES,
			       (BLOCKS - block) * POOL_BLOCK_BYTES, NULL, 0);
		client_reply(c, &r, 0);
		CHECK_EQ(r.error, 0);
		size_t at = c->extended ? 8 : 4, step_bytes = c->extended ? 16 : 8;
		for (; at < r.length; at += step_bytes) {
			const struct nbd_block_descriptor_wire *d = (void *)(r.data + at);
			const struct nbd_block_descriptor_ext_wire *x = (void *)(r.data + at);
			uint64_t len_bytes = c->extended ? be64_get(x->length) : be32_get(d->length);
			CHECK(len_bytes > 0 && len_bytes % POOL_BLOCK_BYTES == 0);
			for (; len_bytes > 0; len_bytes -= POOL_BLOCK_BYTES)
				map[block++] = c->extended ? (uint8_t)be64_get(x->flags)
							   : (uint8_t)be32_get(d->flags);
		}
		free(r.data);
	}
	CHECK_EQ(block, BLOCKS);
}

static void context_map(const char *context, uint8_t map[BLOCKS])
{
	struct client c = client_begin(ADDRESS, NULL, t.form);
	CHECK_EQ(client_choose(&c, "disk", context), 1);
	client_go(&c, "disk");
	status_map(&c, map);
	client_disconnect(&c);
}

/* What is said to read as zeroes does; a hole is never where data is. */
static void check_allocation(void)
{
	uint8_t map[BLOCKS];
	context_map("base:allocation", map);
	for (uint64_t b = 0; b < BLOCKS; b++)
		if (map[b] & (NBD_STATE_ZERO | NBD_STATE_HOLE))
			CHECK(bytes_are_zero(t.now.bytes + b * POOL_BLOCK_BYTES, POOL_BLOCK_BYTES));
}

/* Whatever was touched since is told; what differs must be among it. */
static void check_changed(unsigned snapshot)
{
	uint8_t map[BLOCKS];
	char context[40];
	snprintf(context, sizeof(context), "oxbow:changed-since:s%u", snapshot);
	context_map(context, map);
	for (uint64_t b = 0; b < BLOCKS; b++) {
		const uint8_t *now = t.now.bytes + b * POOL_BLOCK_BYTES;
		bool differs = memcmp(now, t.taken[snapshot] + b * POOL_BLOCK_BYTES, POOL_BLOCK_BYTES) != 0;
		CHECK(!differs || map[b] == OXBOW_STATE_CHANGED);
		CHECK(map[b] == 0 || t.now.changed_at[b] > snapshot);
	}
}

static void set_up(void)
{
	struct rt_disk *disk;
	struct pool_format_spec format = {.name = "tank", .id = rt_random_uuid(t.rt)};
	struct volume_spec volume = {.name = "disk", .id = rt_random_uuid(t.rt), .size_bytes = SIZE};
	CHECK_OK(rt_disk_open(t.rt, "mem", RT_DISK_CREATE, DISK_SIZE, &disk));
	CHECK_OK(pool_format(disk, &format, false));
	CHECK_OK(pool_open(disk, NULL, &t.pool));
	CHECK_OK(volume_create(t.pool, &volume));
	t.volume = volume.id;
	t.engines = engines_new(t.rt);
	engines_add_pool(t.engines, t.pool);
	CHECK_OK(nbd_server_new(t.engines, NULL, &t.server));
	CHECK_OK(nbd_server_listen(t.server, ADDRESS, NULL));
}

static void tear_down(void)
{
	struct pool_check_result result;
	nbd_server_close(t.server);
	CHECK_OK(engines_remove_pool(t.engines, t.pool));
	engines_free(t.engines);
	CHECK_OK(pool_check(t.pool, NULL, NULL, &result));
	CHECK_EQ(result.problem_count, 0);
	CHECK_OK(pool_close(t.pool));
}

static void body(void *arg)
{
	char name[24];
	(void)arg;
	set_up();
	struct client c = client_begin(ADDRESS, "disk", t.form);
	for (unsigned i = 0; i < STEPS; i++)
		step(&c, i);
	client_disconnect(&c);
	check_reads("disk", t.now.bytes);
	check_allocation();
	for (unsigned i = 0; i < t.snapshots; i++) {
		snprintf(name, sizeof(name), "disk@s%u", i);
		check_reads(name, t.taken[i]);
		check_changed(i);
	}
	tear_down();
}

static void run_seed(uint64_t seed, int form)
{
	memset(&t, 0, sizeof(t));
	t.form = form;
	prng_seed(&t.rng, seed);
	t.rt = testrt_new(seed, seed & 1);
	fiber_spawn_big(t.rt, "test", body, NULL);
	testrt_run(t.rt);
	testrt_free(t.rt);
}

TEST(a_volume_and_its_snapshots_read_over_nbd_as_a_model_says)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		for (int form = FORM_SIMPLE + 1; form <= FORM_EXTENDED; form++)
			run_seed(seed, form);
}
