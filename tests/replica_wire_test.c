/*
 * replica_wire_test.c: a copy on another node, whole: remote, host, simulated network, target, server, pool on a simulated disk.
 *
 *     contract   the same verbs on a copy in this process and on one behind the network: every answer must be the same
 *     cuts       the connection breaks at every message of every verb: what is in doubt is asked again, and in the end all is the same
 *     fences     what a client of old still sends changes nothing
 *     nonsense   of clients, and of servers
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/test.h"
#include "copy_service.h"
#include "data/engine/engine.h"
#include "base/prng.h"
#include "data/nvme/nvme_nqn.h"
#include "data/replica/nvme_host.h"
#include "data/replica/replica_remote.h"
#include "data/replica/replica_wire.h"
#include "sim/sim.h"

#include <stdarg.h>
#include <stdio.h>

#define DISK	     "/dev/sda"
#define DISK_BYTES   (64 * MiB)
#define VOLUME_BYTES (4 * MiB)
#define ADDRESS	     "tcp:10.0.0.1:4420"
#define STORY_BYTES  (64 * KiB)

/* ---- the world ------------------------------------------------------------------------------------------------------------- */

static struct world {
	struct sim *sim;
	struct sim_node *there, *here;
	struct pool *pool;
	struct replica_door *door;
	struct replica_server *server;
	struct engines *engines;
	struct nvmf_server *nvmf;
	bool pool_is_away; /* as far as the server is told */
	bool is_up, is_done, is_down;
	void (*body)(void);
	struct replica_remote_options options;
	char *story; /* what was answered, line by line */
	size_t told_bytes;
} w;

static bool is_strict; /* without a secret, no other machine */

static struct uuid an_id(unsigned n)
{
	struct uuid id = {{0x0c, (uint8_t)(n >> 8), (uint8_t)n}};
	id.b[6] = 0x40;
	id.b[8] = 0x80;
	return id;
}

#define POOL_ID	  1u
#define VOLUME_ID 2u
#define ENGINE	  100u /* and on */
#define LAYER	  200u /* and on */

static struct replica_door *door_find(void *ctx, const struct uuid *pool_id)
{
	(void)ctx;
	return !w.pool_is_away && uuid_equal(pool_id, &pool_ident(w.pool)->id) ? w.door : NULL;
}

static void pool_up(void)
{
	struct pool_format_spec spec = {.id = an_id(POOL_ID), .name = "p"};
	struct uuid boot_id = an_id(3);
	struct rt_disk *disk;
	CHECK_OK(rt_disk_open(rt_current(), DISK, 0, 0, &disk));
	CHECK_OK(pool_format(disk, &spec, false));
	CHECK_OK(pool_open(disk, NULL, &w.pool));
	w.door = replica_door_new(w.pool, &boot_id);
}

static void pool_down(void)
{
	replica_door_free(w.door);
	CHECK_OK(pool_close(w.pool));
}

static void serve(void *arg)
{
	(void)arg;
	pool_up();
	w.engines = engines_new(rt_current());
	w.server = replica_server_new(door_find, NULL);
	struct nvmf_foreign foreign = copy_service(w.server);
	foreign.insecure = !is_strict;
	foreign.secret = w.options.secret;
	foreign.tls_key = w.options.tls_key;
	w.nvmf = nvmf_server_new(w.engines, &(struct nvmf_options){.foreign = &foreign});
	CHECK_OK(nvmf_server_listen(w.nvmf, "tcp:0.0.0.0:4420", NULL));
	w.is_up = true;
}

static void unserve(void *arg)
{
	(void)arg;
	nvmf_server_close(w.nvmf);
	replica_server_free(w.server);
	engines_free(w.engines);
	pool_down();
	w.is_down = true;
}

static void body(void *arg)
{
	(void)arg;
	w.body();
	w.is_done = true;
}

static void run_body(struct sim_node *node, void (*fn)(void))
{
	w.body = fn;
	w.is_done = false;
	fiber_spawn_big(sim_node_rt(node), "test", body, NULL);
	if (sim_run(w.sim, &w.is_done, sim_now_ns(w.sim) + 3600 * NS_PER_S) != SIM_DONE)
		test_fail(__FILE__, __LINE__, "it never ended");
}

static void world_start(uint64_t seed, const char *secret, const char *tls_key)
{
	free(w.story);
	memset(&w, 0, sizeof(w));
	w.story = mem_zalloc(STORY_BYTES);
	w.sim = sim_new(seed);
	sim_shuffle(w.sim, seed & 1);
	w.there = sim_node_new(w.sim, "there");
	w.here = sim_node_new(w.sim, "here");
	sim_disk_new(w.there, DISK, DISK_BYTES, 512);
	w.options = (struct replica_remote_options){.address = ADDRESS,
						    .pool_id = an_id(POOL_ID),
						    .volume_id = an_id(VOLUME_ID),
						    .host_id = an_id(4),
						    .secret = secret,
						    .tls_key = tls_key};
	fiber_spawn_big(sim_node_start(w.there), "serve", serve, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_up, UINT64_MAX), SIM_DONE);
	sim_node_start(w.here);
}

static void world_end(void)
{
	fiber_spawn_big(sim_node_rt(w.there), "unserve", unserve, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_down, sim_now_ns(w.sim) + 3600 * NS_PER_S), SIM_DONE);
	CHECK_EQ(sim_run(w.sim, NULL, UINT64_MAX), SIM_DONE);
	sim_node_stop(w.here);
	sim_node_stop(w.there);
	sim_free(w.sim);
}

/* ---- small words ----------------------------------------------------------------------------------------------------------- */

static struct replica *remote_new(void)
{
	struct replica *r = replica_remote_new(rt_current(), &w.options);
	CHECK(r != NULL);
	return r;
}

static struct replica *local_new(void)
{
	struct uuid id = an_id(VOLUME_ID);
	return replica_local_new(w.door, &id);
}

static int open_as(struct replica *r, uint64_t epoch, unsigned engine, struct replica_state *state)
{
	struct replica_state unused;
	struct uuid id = an_id(engine);
	return r->ops->open(r, epoch, &id, state ? state : &unused);
}

OX_PRINTF(1, 2) static void tell(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	w.told_bytes += (size_t)vsnprintf(w.story + w.told_bytes, STORY_BYTES - w.told_bytes, format, args);
	va_end(args);
	CHECK(w.told_bytes < STORY_BYTES);
}

static void tell_err(const char *what, int err)
{
	tell("%s: %s\n", what, err_name(err));
}
#define TELL(call) tell_err(#call, call)

static uint8_t *room(size_t len_bytes)
{
	uint8_t *data = aligned_alloc(RT_IO_ALIGN, u64_align_up(len_bytes, RT_IO_ALIGN));
	memset(data, 0xee, len_bytes);
	return data;
}

static uint8_t *pattern(size_t len_bytes, uint8_t seed)
{
	uint8_t *data = room(len_bytes);
	for (size_t i = 0; i < len_bytes; i++)
		data[i] = (uint8_t)(seed + i / 512 * 7 + i);
	return data;
}

/* ---- the contract: every verb, well and ill ------------------------------------------------------------------------------------ */

static void tell_state(const char *what, int err, const struct replica_state *s)
{
	tell("%s: %s epoch %llu size %llu lba %u exists %d joining %d begun %d boot %02x%02x join %02x "
	     "intents %08x may lack %08x\n",
	     what, err_name(err), (unsigned long long)s->epoch_before, (unsigned long long)s->size_bytes,
	     s->lba_bytes, s->exists, s->is_joining, s->fill_begun, s->boot_id.b[0], s->boot_id.b[2],
	     s->join_id.b[2], crc32c(0, &s->intents, sizeof(s->intents)),
	     crc32c(0, &s->may_lack, sizeof(s->may_lack)));
}

static void tell_open(struct replica *r, uint64_t epoch, unsigned engine)
{
	struct replica_state s;
	int err = open_as(r, epoch, engine, &s);
	if (err)
		memset(&s, 0, sizeof(s));
	tell_state("open", err, &s);
}

static void tell_read(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint8_t *data = room(len_bytes);
	int err = r->ops->read(r, data, offset_bytes, len_bytes);
	tell("read %llu %llu: %s %08x\n", (unsigned long long)offset_bytes, (unsigned long long)len_bytes,
	     err_name(err), err ? 0 : crc32c(0, data, len_bytes));
	free(data);
}

static void tell_layer_read(struct replica *r, unsigned layer, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct uuid id = an_id(layer);
	uint8_t *data = room(len_bytes);
	int err = r->ops->layer_read(r, layer ? &id : NULL, data, offset_bytes, len_bytes);
	tell("layer_read %u %llu %llu: %s %08x\n", layer, (unsigned long long)offset_bytes,
	     (unsigned long long)len_bytes, err_name(err), err ? 0 : crc32c(0, data, len_bytes));
	free(data);
}

static int write_pattern(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, uint8_t seed,
			 unsigned flags)
{
	uint8_t *data = pattern(len_bytes, seed);
	int err = r->ops->write(r, data, offset_bytes, len_bytes, flags);
	free(data);
	return err;
}

static int fill_pattern(struct replica *r, uint64_t offset_bytes, uint64_t len_bytes, uint8_t seed)
{
	uint8_t *data = pattern(len_bytes, seed);
	int err = r->ops->fill(r, data, offset_bytes, len_bytes);
	free(data);
	return err;
}

static void tell_layers(struct replica *r, size_t max)
{
	struct replica_layer *layers = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*layers));
	size_t count = 0, filled = 0;
	int err = r->ops->layers(r, layers, max, &count, &filled);
	tell("layers %zu: %s", max, err_name(err));
	for (size_t i = 0; !err && i < count; i++)
		tell(" %02x=%s/%llu%s%s", layers[i].id.b[2], layers[i].name,
		     (unsigned long long)layers[i].size_bytes, layers[i].is_origins ? "o" : "",
		     i + 1 == filled ? "|" : "");
	tell("\n");
	free(layers);
}

static void tell_extents(struct replica *r, unsigned layer, unsigned since, uint64_t offset_bytes,
			 uint64_t len_bytes, size_t max)
{
	struct vol_extent extents[16];
	struct uuid id = an_id(layer), since_id = an_id(since);
	size_t count = 0;
	int err = r->ops->layer_extents(r, layer ? &id : NULL, since ? &since_id : NULL, offset_bytes,
					len_bytes, extents, max, &count);
	tell("extents %u %u: %s", layer, since, err_name(err));
	for (size_t i = 0; !err && i < count; i++)
		tell(" %llu+%llu:%x", (unsigned long long)extents[i].offset_bytes,
		     (unsigned long long)extents[i].len_bytes, extents[i].flags);
	tell("\n");
}

static void tell_checksums(struct replica *r, unsigned layer, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint32_t crcs[VOLUME_BYTES / REPLICA_CHECKSUM_BYTES * 2] = {0};
	struct uuid id = an_id(layer);
	int err = r->ops->layer_checksums(r, layer ? &id : NULL, offset_bytes, len_bytes, crcs);
	tell("checksums %u: %s %08x\n", layer, err_name(err), err ? 0 : crc32c(0, crcs, sizeof(crcs)));
}

static int seal(struct replica *r, uint64_t epoch, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	return r->ops->seal(r, epoch, &id, name);
}

static int layer_delete(struct replica *r, unsigned layer)
{
	struct uuid id = an_id(layer);
	return r->ops->layer_delete(r, &id);
}

static int rename_layer(struct replica *r, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	return r->ops->layer_rename(r, &id, name);
}

static int revert(struct replica *r, unsigned layer, unsigned head)
{
	struct uuid id = an_id(layer), head_id = an_id(head);
	return r->ops->revert(r, &id, &head_id);
}

static int join_begin(struct replica *r, unsigned join, uint64_t size_bytes)
{
	struct uuid id = an_id(join);
	return r->ops->join_begin(r, &id, size_bytes);
}

static int fill_seal(struct replica *r, unsigned layer, const char *name)
{
	struct uuid id = an_id(layer);
	return r->ops->fill_seal(r, &id, name);
}

static int create(struct replica *r, unsigned id, const char *name, uint64_t size_bytes)
{
	struct volume_spec spec = {.id = an_id(id), .size_bytes = size_bytes};
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	return r->ops->create(r, &spec);
}

static int intents(struct replica *r, unsigned first, unsigned count)
{
	struct replica_regions regions = {{0}};
	for (unsigned i = first; i < first + count; i++)
		regions.bits[i / 8] |= (uint8_t)(1 << i % 8);
	return r->ops->intents_set(r, &regions);
}

static void tell_births(struct replica *r)
{
	TELL(r->ops->ping(r));
	TELL(write_pattern(r, 0, 4096, 1, 0));
	tell_layers(r, 4);
	tell_open(r, 3, ENGINE);
	TELL(r->ops->ping(r));
	tell_read(r, 0, 4096);
	TELL(r->ops->flush(r));
	TELL(create(r, VOLUME_ID + 7, "~copy", VOLUME_BYTES));
	TELL(create(r, VOLUME_ID, "..", VOLUME_BYTES));
	TELL(create(r, VOLUME_ID, "~copy", VOLUME_BYTES + 1));
	TELL(create(r, VOLUME_ID, "~copy", GiB * GiB));
	TELL(create(r, VOLUME_ID, "~copy", VOLUME_BYTES));
	TELL(create(r, VOLUME_ID, "~copy", VOLUME_BYTES));
	TELL(create(r, VOLUME_ID, "~copy", 2 * VOLUME_BYTES));
	tell_read(r, 0, 4096);
	tell_open(r, 3, ENGINE);
	tell_open(r, 5, ENGINE);
	tell_open(r, 4, ENGINE);
	tell_open(r, 5, ENGINE + 1);
	tell_open(r, 5, ENGINE);
}

static void tell_head(struct replica *r)
{
	TELL(write_pattern(r, 0, 512, 1, 0));
	TELL(write_pattern(r, 4096, 4096, 2, VOL_FUA));
	TELL(write_pattern(r, 65536 + 512, 70 * KiB, 3, 0));
	TELL(write_pattern(r, MiB - 4096, 2 * MiB + 8192, 4, 0)); /* in pieces */
	TELL(write_pattern(r, 512 * KiB, 8192, 5, VOL_FUA));
	TELL(write_pattern(r, 100, 512, 6, 0));
	TELL(write_pattern(r, VOLUME_BYTES - 512, 1024, 7, 0));
	TELL(write_pattern(r, VOLUME_BYTES, 512, 7, 0));
	tell_read(r, 0, 512);
	tell_read(r, 0, VOLUME_BYTES);
	tell_read(r, 3 * 512, 5 * 512);
	tell_read(r, VOLUME_BYTES - 512, 1024);
	tell_read(r, 1, 512);
	TELL(r->ops->zero(r, 8192, 4096, 0));
	TELL(r->ops->zero(r, 65536, 65536, VOL_FUA | VOL_NO_HOLE));
	TELL(r->ops->zero(r, VOLUME_BYTES, 512, 0));
	TELL(r->ops->zero(r, 100, 512, 0));
	TELL(r->ops->trim(r, MiB, 64 * KiB));
	TELL(r->ops->trim(r, MiB + 512, 512));
	TELL(r->ops->trim(r, VOLUME_BYTES, 4096));
	TELL(r->ops->flush(r));
	TELL(r->ops->ping(r));
	tell_read(r, 0, VOLUME_BYTES);
	TELL(intents(r, 0, 3));
	tell_open(r, 5, ENGINE);
	TELL(intents(r, 1, 1));
	tell_open(r, 6, ENGINE);
	TELL(intents(r, 0, 0));
	TELL(r->ops->made_good(r));
}

static void tell_chain(struct replica *r)
{
	tell_layers(r, 4);
	TELL(seal(r, 6, LAYER, "monday"));
	TELL(seal(r, 6, LAYER, "monday"));
	TELL(seal(r, 7, LAYER + 1, ""));
	TELL(seal(r, 7, LAYER + 1, "-x"));
	TELL(seal(r, 7, LAYER + 1, "monday"));
	TELL(seal(r, 7, LAYER + 1, "~1"));
	TELL(write_pattern(r, 16384, 8192, 9, 0));
	TELL(seal(r, 7, LAYER + 2, "tuesday"));
	tell_layers(r, 4);
	tell_layers(r, 1);
	tell_layers(r, 0);
	TELL(rename_layer(r, LAYER, "sunday"));
	TELL(rename_layer(r, LAYER, "tuesday"));
	TELL(rename_layer(r, LAYER + 9, "x"));
	TELL(rename_layer(r, LAYER, "a/b"));
	tell_layer_read(r, LAYER, 0, VOLUME_BYTES);
	tell_layer_read(r, LAYER + 2, 16384, 4096);
	tell_layer_read(r, 0, 16384, 4096);
	tell_layer_read(r, LAYER + 9, 0, 4096);
	tell_layer_read(r, LAYER, VOLUME_BYTES, 4096);
	tell_extents(r, 0, 0, 0, VOLUME_BYTES, 16);
	tell_extents(r, LAYER + 2, LAYER, 0, VOLUME_BYTES, 16);
	tell_extents(r, LAYER + 2, LAYER, 0, VOLUME_BYTES, 2);
	tell_extents(r, LAYER + 2, LAYER + 9, 0, VOLUME_BYTES, 16);
	tell_extents(r, LAYER, 0, VOLUME_BYTES, 4096, 16);
	tell_checksums(r, LAYER, 0, VOLUME_BYTES);
	tell_checksums(r, 0, 8192, 65536);
	tell_checksums(r, 0, 512, 4096);
	tell_checksums(r, LAYER, 0, VOLUME_BYTES * 2);
	TELL(r->ops->grow(r, VOLUME_BYTES * 2));
	TELL(r->ops->grow(r, VOLUME_BYTES));
	TELL(write_pattern(r, VOLUME_BYTES, 4096, 11, 0));
	tell_read(r, 0, 2 * VOLUME_BYTES);
	TELL(revert(r, LAYER + 9, 300));
	TELL(revert(r, LAYER, 300));
	TELL(revert(r, LAYER, 300));
	tell_read(r, 0, VOLUME_BYTES);
	tell_layers(r, 8);
	TELL(layer_delete(r, LAYER + 1));
	TELL(layer_delete(r, LAYER + 9));
	tell_layers(r, 8);
	tell_open(r, 7, ENGINE);
}

static void tell_joining(struct replica *r)
{
	TELL(join_begin(r, LAYER + 20, VOLUME_BYTES * 2));
	TELL(join_begin(r, LAYER + 20, VOLUME_BYTES * 2));
	tell_open(r, 7, ENGINE);
	tell_read(r, 0, 4096);
	TELL(write_pattern(r, 4096, 8192, 12, 0));
	TELL(write_pattern(r, 4096, 512, 12, 0));
	TELL(r->ops->zero(r, 65536, 8192, 0));
	TELL(r->ops->trim(r, 131072, 8192));
	TELL(revert(r, LAYER, 301));
	TELL(r->ops->join_end(r));
	TELL(r->ops->fill_grow(r, VOLUME_BYTES * 2));
	TELL(fill_pattern(r, 0, 4096, 13));
	TELL(fill_pattern(r, MiB, 2 * MiB + 4096, 14));
	TELL(r->ops->fill(r, NULL, 65536, 3 * MiB));
	TELL(r->ops->fill(r, NULL, VOLUME_BYTES * 2, 4096));
	TELL(fill_pattern(r, VOLUME_BYTES * 2 - 4096, 8192, 14));
	TELL(intents(r, 2, 4));
	TELL(fill_seal(r, LAYER + 10, "wednesday"));
	TELL(layer_delete(r, LAYER + 20));
	TELL(fill_pattern(r, 4096, 4096, 15));
	TELL(r->ops->join_end(r));
	tell_layers(r, 16);
	TELL(seal(r, 8, LAYER + 11, "thursday"));
	TELL(fill_seal(r, LAYER + 20, "~join"));
	tell_layers(r, 16);
	tell_checksums(r, 0, 0, VOLUME_BYTES);
	TELL(r->ops->join_end(r));
	TELL(r->ops->join_end(r));
	tell_layers(r, 16);
	tell_read(r, 0, VOLUME_BYTES * 2);
	tell_open(r, 8, ENGINE);
	tell_open(r, 9, ENGINE);
}

static void tell_all(struct replica *r)
{
	tell_births(r);
	tell_head(r);
	tell_chain(r);
	tell_joining(r);
}

static void contract_local(void)
{
	struct replica *r = local_new();
	tell_all(r);
	r->ops->close(r);
}

static void contract_remote(void)
{
	struct replica *r = remote_new();
	tell_all(r);
	r->ops->close(r);
}

static char *story_of(uint64_t seed, bool is_local, const char *secret, const char *tls_key)
{
	world_start(seed, secret, tls_key);
	run_body(is_local ? w.there : w.here, is_local ? contract_local : contract_remote);
	world_end();
	char *story = w.story;
	w.story = NULL;
	return story;
}

static void check_same(const char *a, const char *b)
{
	while (*a) {
		const char *end_a = strchr(a, '\n'), *end_b = strchr(b, '\n');
		CHECK(end_a && end_b);
		if (end_a - a != end_b - b || memcmp(a, b, (size_t)(end_a - a)) != 0)
			test_fail(__FILE__, __LINE__, "here:  %.*s\n  there: %.*s", (int)(end_a - a), a,
				  (int)(end_b - b), b);
		a = end_a + 1;
		b = end_b + 1;
	}
	CHECK(!*b);
}

TEST(a_copy_behind_the_network_answers_every_verb_as_one_in_this_process_does)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		char *here = story_of(seed, true, NULL, NULL), *there = story_of(seed, false, NULL, NULL);
		if (seed == 1 && getenv("TELL"))
			fputs(here, stdout);
		check_same(here, there);
		free(here);
		free(there);
	}
}

/* ---- cuts ---------------------------------------------------------------------------------------------------------------------- */

static bool is_broken(int err)
{
	return err == OXE_INDOUBT || err == OXE_CLOSED || err == OXE_NOTREADY;
}

static uint64_t the_epoch;

/* Open until it is open. */
static void reopen(struct replica *r)
{
	struct replica_state state;
	int err;
	CHECK_ERR(r->ops->ping(r), OXE_CLOSED);
	CHECK_ERR(write_pattern(r, 0, 4096, 77, 0), OXE_CLOSED);
	while (is_broken(err = open_as(r, the_epoch, ENGINE, &state)))
		fiber_sleep(NS_PER_MS);
	CHECK_OK(err);
}

/* Asked again and again it is done once. */
#define DO(call)                                                                                             \
	do {                                                                                                 \
		int do_err_;                                                                                 \
		while (is_broken(do_err_ = (call)))                                                          \
			reopen(r);                                                                           \
		if (do_err_)                                                                                 \
			test_fail(__FILE__, __LINE__, "%s: %s", #call, err_name(do_err_));                   \
	} while (0)

static int layers_count(struct replica *r, size_t wanted)
{
	struct replica_layer *layers = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(*layers));
	size_t count = 0, filled;
	int err = r->ops->layers(r, layers, REPLICA_LAYERS_MAX, &count, &filled);
	free(layers);
	return err ? err : count == wanted ? 0 : OXE_DIFFERS;
}

static int extents_all(struct replica *r, unsigned layer)
{
	struct vol_extent extents[16];
	struct uuid id = an_id(layer);
	size_t count;
	return r->ops->layer_extents(r, &id, NULL, 0, VOLUME_BYTES, extents, 16, &count);
}

static int checksums_all(struct replica *r, unsigned layer)
{
	uint32_t crcs[VOLUME_BYTES / REPLICA_CHECKSUM_BYTES];
	struct uuid id = an_id(layer);
	return r->ops->layer_checksums(r, &id, 0, VOLUME_BYTES, crcs);
}

static int read_some(struct replica *r, unsigned layer, uint64_t len_bytes)
{
	struct uuid id = an_id(layer);
	uint8_t *data = pattern(len_bytes, 0);
	int err =
		layer ? r->ops->layer_read(r, &id, data, 0, len_bytes) : r->ops->read(r, data, 0, len_bytes);
	free(data);
	return err;
}

static void every_verb_once(void)
{
	struct replica *r = remote_new();
	the_epoch = 3;
	reopen(r);
	DO(create(r, VOLUME_ID, "~copy", VOLUME_BYTES));
	DO(write_pattern(r, 0, 4096, 1, 0));
	DO(write_pattern(r, MiB - 4096, 2 * MiB + 8192, 2, VOL_FUA));
	DO(r->ops->zero(r, 2 * MiB, 65536, 0));
	DO(r->ops->trim(r, 2 * MiB + 65536, 65536));
	DO(r->ops->flush(r));
	DO(intents(r, 0, 2));
	DO(r->ops->made_good(r));
	DO(read_some(r, 0, 2 * MiB));
	DO(r->ops->ping(r));
	DO(seal(r, 3, LAYER, "monday"));
	DO(write_pattern(r, 8192, 4096, 3, 0));
	DO(seal(r, 3, LAYER + 1, "tuesday"));
	DO(rename_layer(r, LAYER, "sunday"));
	DO(layers_count(r, 2));
	DO(extents_all(r, LAYER));
	DO(checksums_all(r, LAYER));
	DO(read_some(r, LAYER, 2 * MiB));
	DO(write_pattern(r, 0, 8192, 4, 0));
	DO(r->ops->grow(r, VOLUME_BYTES * 2));
	DO(revert(r, LAYER + 1, 300));
	DO(layer_delete(r, LAYER));
	DO(join_begin(r, LAYER + 20, VOLUME_BYTES * 2));
	DO(write_pattern(r, 4096, 8192, 5, 0));
	DO(r->ops->fill_grow(r, VOLUME_BYTES * 2));
	DO(fill_pattern(r, 65536, MiB + 65536, 6));
	DO(r->ops->fill(r, NULL, 3 * MiB, 65536));
	DO(fill_seal(r, LAYER + 20, "~join"));
	DO(r->ops->join_end(r));
	DO(r->ops->flush(r));
	r->ops->close(r);
}

static void tell_end(void)
{
	struct replica *r = local_new();
	tell_open(r, 4, ENGINE);
	tell_layers(r, 8);
	tell_read(r, 0, VOLUME_BYTES * 2);
	tell_layer_read(r, LAYER + 1, 0, VOLUME_BYTES);
	tell_layer_read(r, LAYER + 20, 0, VOLUME_BYTES * 2);
	r->ops->close(r);
}

/* False: it was over before so many segments had passed. */
static bool cut_at(uint64_t nth, char **story)
{
	world_start(nth, NULL, NULL);
	sim_net_faults(w.sim)->reset_nth = nth;
	run_body(w.here, every_verb_once);
	bool was_cut = nth > 0 && sim_net_faults(w.sim)->reset_nth == 0;
	sim_net_faults(w.sim)->reset_nth = 0;
	run_body(w.there, tell_end);
	world_end();
	*story = w.story;
	w.story = NULL;
	return was_cut;
}

TEST(a_connection_that_breaks_at_any_message_of_any_verb_loses_nothing_and_does_nothing_twice)
{
	char *whole, *story;
	uint64_t cuts = 0;
	CHECK(!cut_at(0, &whole));
	for (uint64_t nth = 1; cut_at(nth, &story); nth++) {
		cuts++;
		check_same(whole, story);
		free(story);
	}
	free(story);
	free(whole);
	CHECK(cuts > 100);
}

/* ---- silence and death ------------------------------------------------------------------------------------------------------------ */

static struct {
	struct replica *r, *other;
	int err;
	uint64_t ended_ns;
	bool is_done;
	struct waitq done;
} bg;

static void bg_write(void *arg)
{
	(void)arg;
	bg.err = write_pattern(bg.r, 0, 4096, 9, 0);
	bg.ended_ns = rt_now_ns(rt_current());
	bg.is_done = true;
	waitq_wake_all(&bg.done);
}

static void bg_start(void (*fn)(void *arg))
{
	bg.is_done = false;
	waitq_init(&bg.done);
	fiber_spawn(rt_current(), "background", fn, NULL);
}

static void bg_wait(void)
{
	while (!bg.is_done)
		waitq_wait(&bg.done);
}

static struct replica *opened(uint64_t epoch, unsigned engine)
{
	struct replica *r = remote_new();
	struct replica_state state;
	CHECK_OK(open_as(r, epoch, engine, &state));
	if (!state.exists)
		CHECK_OK(create(r, VOLUME_ID, "~copy", VOLUME_BYTES));
	return r;
}

static void net_cut(bool both)
{
	sim_net_cut(w.sim, w.here, w.there);
	if (both)
		sim_net_cut(w.sim, w.there, w.here);
}

static void silent_peer(void)
{
	struct replica *r = bg.r = opened(3, ENGINE);
	for (unsigned way = 0; way < 2; way++) {
		uint64_t began_ns = rt_now_ns(rt_current());
		net_cut(way);
		bg_start(bg_write);
		fiber_sleep(NS_PER_MS);
		CHECK_ERR(r->ops->ping(r), OXE_CLOSED);
		bg_wait();
		CHECK_ERR(bg.err, OXE_INDOUBT);
		CHECK(bg.ended_ns - began_ns < 5 * NS_PER_S);
		CHECK_ERR(r->ops->flush(r), OXE_CLOSED);
		CHECK_ERR(open_as(r, 3, ENGINE, NULL), OXE_CLOSED);
		CHECK(strlen(replica_remote_why(r)) > 0);
		sim_net_heal_all(w.sim);
		int err;
		while (is_broken(err = open_as(r, 3, ENGINE, NULL)))
			fiber_sleep(100 * NS_PER_MS);
		CHECK_OK(err);
	}
	net_cut(true);
	uint64_t began_ns = rt_now_ns(rt_current()); /* nobody asks but keep alive */
	bg_start(bg_write);
	bg_wait();
	CHECK_ERR(bg.err, OXE_INDOUBT);
	CHECK(bg.ended_ns - began_ns < 5 * NS_PER_S);
	sim_net_heal_all(w.sim);
	r->ops->close(r);
}

TEST(a_peer_that_is_silent_is_noticed_within_five_seconds)
{
	world_start(1, NULL, NULL);
	run_body(w.here, silent_peer);
	world_end();
}

static void kill_it(void *arg)
{
	(void)arg;
	sim_node_kill(w.there);
}

static void dead_peer(void)
{
	struct replica *r = bg.r = opened(3, ENGINE);
	sim_disk_faults(sim_disk_find(w.there, DISK))->latency_min_ns = NS_PER_S;
	sim_disk_faults(sim_disk_find(w.there, DISK))->latency_max_ns = NS_PER_S;
	uint64_t began_ns = rt_now_ns(rt_current());
	bg_start(bg_write);
	sim_at(w.sim, began_ns + 50 * NS_PER_MS, kill_it, NULL);
	bg_wait();
	CHECK_ERR(bg.err, OXE_INDOUBT);
	CHECK(bg.ended_ns - began_ns < 200 * NS_PER_MS);
	CHECK_ERR(r->ops->ping(r), OXE_CLOSED);
	began_ns = rt_now_ns(rt_current());
	CHECK_ERR(open_as(r, 3, ENGINE, NULL), OXE_CLOSED); /* nobody listens there */
	CHECK(rt_now_ns(rt_current()) - began_ns < 200 * NS_PER_MS);
	r->ops->close(r);
}

TEST(a_peer_that_died_is_noticed_at_once)
{
	world_start(1, NULL, NULL);
	run_body(w.here, dead_peer);
	sim_node_stop(w.here);
	sim_free(w.sim); /* what the other process had is gone with it */
}

/* ---- fences ------------------------------------------------------------------------------------------------------------------------- */

static void two_engines(void)
{
	struct replica *r = opened(3, ENGINE), *newer = opened(4, ENGINE + 1);
	CHECK_ERR(write_pattern(r, 0, 4096, 1, 0), OXE_FENCED);
	CHECK_ERR(r->ops->ping(r), OXE_FENCED);
	CHECK_ERR(open_as(r, 3, ENGINE, NULL), OXE_FENCED);
	CHECK_OK(write_pattern(newer, 0, 4096, 2, 0));
	CHECK_OK(open_as(r, 5, ENGINE + 2, NULL));
	CHECK_ERR(newer->ops->ping(newer), OXE_FENCED);
	newer->ops->close(newer);
	CHECK_OK(r->ops->ping(r));
	r->ops->close(r);
}

TEST(an_engine_of_a_newer_epoch_ends_the_session_of_an_older_one)
{
	world_start(1, NULL, NULL);
	run_body(w.here, two_engines);
	world_end();
}

/* The bytes of the first write wait in the network until long after its session is over. */
static void ghosts(void)
{
	struct replica *r = bg.r = opened(3, ENGINE);
	uint8_t *wanted = pattern(4096, 10), *data = room(4096);
	int err;
	sim_net_faults(w.sim)->retransmit_ns = 3 * NS_PER_S;
	for (unsigned i = 0; i < 20; i++) {
		net_cut(false);
		bg_start(bg_write);
		fiber_sleep(rt_random_u64(rt_current()) % NS_PER_S);
		(void)!r->ops->ping(r);
		bg_wait();
		CHECK_ERR(bg.err, OXE_INDOUBT);
		sim_net_heal_all(w.sim);
		while (is_broken(err = open_as(r, 3, ENGINE, NULL)))
			fiber_sleep(10 * NS_PER_MS);
		CHECK_OK(err); /* nor is it fenced by an open of its own that comes late */
		CHECK_OK(r->ops->write(r, wanted, 0, 4096, 0));
		fiber_sleep(rt_random_u64(rt_current()) % (8 * NS_PER_S));
		err = r->ops->read(r, data, 0, 4096);
		if (is_broken(err))
			continue;
		CHECK_OK(err);
		CHECK(memcmp(data, wanted, 4096) == 0);
		CHECK_OK(r->ops->ping(r));
	}
	free(wanted);
	free(data);
	r->ops->close(r);
}

TEST(what_was_sent_before_an_open_changes_nothing_after_it)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		world_start(seed, NULL, NULL);
		run_body(w.here, ghosts);
		world_end();
	}
}

/* ---- pools that come and go --------------------------------------------------------------------------------------------------------- */

static void evict(void)
{
	struct uuid pool_id = an_id(POOL_ID);
	w.pool_is_away = true;
	replica_server_evict(w.server, &pool_id);
	replica_door_free(w.door); /* nobody has it any more */
	struct uuid boot_id = an_id(3);
	w.door = replica_door_new(w.pool, &boot_id);
}

static void before_eviction(void)
{
	bg.r = opened(3, ENGINE);
	bg.other = remote_new();
	CHECK_OK(write_pattern(bg.r, 0, 4096, 1, 0));
	w.is_done = true;
}

static void after_eviction(void)
{
	struct replica *r = bg.r;
	CHECK_ERR(write_pattern(r, 0, 4096, 2, 0), OXE_CLOSED);
	CHECK_ERR(open_as(r, 3, ENGINE, NULL), OXE_NOTREADY);
	CHECK_ERR(r->ops->ping(r), OXE_CLOSED);
	CHECK_ERR(open_as(bg.other, 3, ENGINE, NULL), OXE_NOTREADY);
	w.pool_is_away = false;
	CHECK_OK(open_as(r, 3, ENGINE, NULL));
	CHECK_OK(write_pattern(r, 0, 4096, 3, 0));
	r->ops->close(r);
	bg.other->ops->close(bg.other);
}

TEST(a_pool_that_is_about_to_be_closed_ends_its_sessions_and_is_opened_again)
{
	world_start(1, NULL, NULL);
	run_body(w.here, before_eviction);
	run_body(w.there, evict);
	run_body(w.here, after_eviction);
	world_end();
}

/* ---- who may connect ------------------------------------------------------------------------------------------------------------------ */

#define SECRET	     "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define OTHER_SECRET "DHHC-1:00:MDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J51wkKvA==:"
#define KEY	     "NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:"
#define OTHER_KEY    "NVMeTLSkey-1:02:18iqDKHdvAFh2YS5hPylggJQFWJCy8/Z4eIii8qBd2tsjmq3LjkAyidjXyPO9n4bLXrR1A==:"

static void may_connect(void)
{
	struct replica *r = opened(3, ENGINE);
	CHECK_OK(write_pattern(r, 0, 4096, 1, 0));
	r->ops->close(r);
}

static void may_not_connect(void)
{
	struct replica *r = remote_new();
	CHECK_ERR(open_as(r, 3, ENGINE, NULL), OXE_CLOSED);
	CHECK(strlen(replica_remote_why(r)) > 0);
	if (getenv("TELL"))
		puts(replica_remote_why(r));
	CHECK_ERR(r->ops->ping(r), OXE_CLOSED);
	r->ops->close(r);
}

/* The server has one secret and key, the client another. */
static void meet(const char *secret, const char *key, const char *its_secret, const char *its_key, bool may)
{
	world_start(1, secret, key);
	w.options.secret = its_secret;
	w.options.tls_key = its_key;
	run_body(w.here, may ? may_connect : may_not_connect);
	world_end();
}

TEST(who_has_the_clusters_secret_may_connect_and_nobody_else)
{
	meet(SECRET, NULL, SECRET, NULL, true);
	meet(SECRET, NULL, OTHER_SECRET, NULL, false);
	meet(SECRET, NULL, NULL, NULL, false);
	meet(NULL, NULL, SECRET, NULL, false); /* nor is a server believed that does not have it */
}

TEST(with_the_clusters_key_everything_goes_through_tls)
{
	meet(NULL, KEY, NULL, KEY, true);
	meet(NULL, KEY, NULL, OTHER_KEY, false);
	meet(NULL, KEY, NULL, NULL, false);
	meet(NULL, NULL, NULL, KEY, false);
	meet(SECRET, KEY, SECRET, KEY, true);
	meet(SECRET, KEY, OTHER_SECRET, KEY, false);
}

TEST(without_a_secret_nobody_comes_from_another_machine)
{
	is_strict = true;
	meet(NULL, NULL, NULL, NULL, false);
	is_strict = false;
}

/* ---- nonsense --------------------------------------------------------------------------------------------------------------------- */

static struct nvme_host *client_new(void)
{
	char nqn[NVME_NQN_FIELD];
	struct nvme_host *h;
	struct nvme_host_options o = {.address = ADDRESS,
				      .subsystem_nqn =
					      nvme_nqn_of_copy(&w.options.pool_id, &w.options.volume_id, nqn),
				      .host_id = an_id(5),
				      .is_copy = true};
	CHECK_OK(nvme_host_new(rt_current(), &o, &h));
	CHECK_OK(nvme_host_wait(h, rt_now_ns(rt_current()) + 10 * NS_PER_S));
	return h;
}

static int ask(struct nvme_host *h, const struct replica_wire_sqe *e, void *data, uint64_t len_bytes,
	       uint64_t *value)
{
	struct nvme_host_io io = {.op = NVME_HOST_OTHER,
				  .entry = (const struct nvme_sqe *)e,
				  .data = data,
				  .len_bytes = len_bytes};
	int err = nvme_host_do(h, &io);
	*value = io.value;
	return err;
}

static void connects_anew(void)
{
	struct nvme_host *first = client_new(), *second;
	struct replica_wire_sqe open = {.opcode = REPLICA_WIRE_OPEN, .value = le64_of(3)};
	struct replica_wire_state state;
	uint64_t value;
	open.version.major = le16_of(REPLICA_WIRE_MAJOR);
	open.id[0] = 1;
	CHECK_OK(ask(first, &open, &state, sizeof(state), &value));
	CHECK_ERR(ask(first, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_PING}, NULL, 0, &value),
		  OXE_NOENT);
	second = client_new(); /* the same host: nothing that it sent before may be carried out any more */
	int err = ask(first, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_PING}, NULL, 0, &value);
	CHECK(err == OXE_CLOSED || err == OXE_INDOUBT);
	CHECK_OK(ask(second, &open, &state, sizeof(state), &value));
	nvme_host_close(first);
	nvme_host_close(second);
}

TEST(a_client_that_connects_anew_ends_all_that_it_had)
{
	world_start(1, NULL, NULL);
	run_body(w.here, connects_anew);
	world_end();
}

static void nonsense_client(void)
{
	struct replica *r = opened(3, ENGINE);
	struct nvme_host *h = client_new();
	uint8_t *data = room(64 * KiB);
	uint64_t value, random = 1;
	struct replica_wire_sqe other = {.opcode = REPLICA_WIRE_OPEN, .version = {.major = le16_of(7)}};
	CHECK_ERR(ask(h, &other, data, 64, &value), OXE_VERSION); /* whatever it has room for */
	CHECK_EQ(value, REPLICA_WIRE_MAJOR | REPLICA_WIRE_MINOR << 16);
	CHECK_ERR(ask(h, &(struct replica_wire_sqe){.opcode = 0xf0}, NULL, 0, &value), OXE_UNSUPPORTED);
	CHECK_ERR(ask(h, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_INTENTS_SET + 2}, data, 8, &value),
		  OXE_INVAL); /* both ways at once */
	CHECK_ERR(ask(h, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_CREATE}, data, 92, &value),
		  OXE_INVAL);
	CHECK_ERR(ask(h, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_PING}, NULL, 0, &value),
		  OXE_CLOSED);
	CHECK_ERR(ask(h, &(struct replica_wire_sqe){.opcode = REPLICA_WIRE_SEAL}, data, 64, &value),
		  OXE_CLOSED);
	for (unsigned i = 0; i < 3000; i++) {
		struct replica_wire_sqe e;
		random = hash_u64(random);
		for (size_t at = 0; at < sizeof(e); at++)
			((uint8_t *)&e)[at] = (uint8_t)(hash_u64(random + at));
		e.opcode = random % 3 ? (uint8_t)(0x80 + random / 3 % 0x20) : (uint8_t)random;
		if (e.opcode == NVME_FABRICS || e.opcode == REPLICA_WIRE_OPEN)
			continue;
		uint64_t len_bytes = (e.opcode & 3) && (e.opcode & 3) != 3 ? random / 1024 % (64 * KiB) : 0;
		int err = ask(h, &e, data, len_bytes, &value);
		if (!err || err == OXE_INDOUBT || err == OXE_NOTREADY) /* it never opened the copy */
			test_fail(__FILE__, __LINE__, "command %02x with %llu bytes: %s", e.opcode,
				  (unsigned long long)len_bytes, err_name(err));
	}
	CHECK_OK(r->ops->ping(r)); /* nobody noticed */
	CHECK_OK(write_pattern(r, 0, 4096, 1, 0));
	nvme_host_close(h);
	r->ops->close(r);
	free(data);
}

TEST(a_client_that_talks_nonsense_is_refused_and_others_do_not_notice)
{
	world_start(1, NULL, NULL);
	run_body(w.here, nonsense_client);
	world_end();
}

/* A server of our own making, in place of the real one. */
static struct {
	uint64_t random;
	uint32_t commands;
	bool opens_well;
} liar;

static uint16_t lie(void *session, const struct nvme_sqe *sqe, void *data, uint32_t data_bytes,
		    uint32_t *answer_bytes, uint64_t *result)
{
	(void)session;
	liar.commands++;
	liar.random = hash_u64(liar.random);
	if (sqe->opcode == REPLICA_WIRE_OPEN && liar.opens_well) {
		struct replica_wire_state state = {.major = le16_of(1), .flags = REPLICA_WIRE_EXISTS};
		state.size_bytes = le64_of(VOLUME_BYTES);
		state.lba_bytes = le32_of(512);
		memcpy(data, &state, sizeof(state));
		*answer_bytes = sizeof(state);
		return 0;
	}
	for (uint32_t i = 0; i < data_bytes; i++)
		((uint8_t *)data)[i] = (uint8_t)hash_u64(liar.random + i);
	*answer_bytes = data_bytes ? (uint32_t)(liar.random % (data_bytes + 1)) : 0;
	*result = liar.random % 3 ? liar.random % 40 : liar.random;
	return liar.random % 4 ? 0 : (uint16_t)(liar.random >> 17);
}

static void *liar_attach(void *ctx, const char *subnqn, struct uuid *id)
{
	(void)ctx;
	(void)subnqn;
	*id = an_id(9);
	return &liar;
}

static void liar_detach(void *session)
{
	(void)session;
}

static bool liar_knows(void *ctx, const char *subnqn)
{
	(void)ctx;
	return strstr(subnqn, ":copy:") != NULL;
}

static uint64_t liar_size(const void *session)
{
	(void)session;
	return 0;
}

static void liar_serve(void *arg)
{
	struct nvmf_foreign foreign = {.model = "liar",
				       .insecure = true,
				       .knows = liar_knows,
				       .attach = liar_attach,
				       .detach = liar_detach,
				       .run = lie,
				       .size_bytes = liar_size};
	(void)arg;
	w.engines = engines_new(rt_current());
	w.nvmf = nvmf_server_new(w.engines, &(struct nvmf_options){.foreign = &foreign});
	CHECK_OK(nvmf_server_listen(w.nvmf, "tcp:0.0.0.0:4420", NULL));
	w.is_up = true;
}

static void liar_unserve(void *arg)
{
	(void)arg;
	nvmf_server_close(w.nvmf);
	engines_free(w.engines);
	w.is_down = true;
}

/* Whatever it says, no more than what there is room for is taken, and what is not an answer ends the session. */
static void believe_nothing(void)
{
	struct replica *r = remote_new();
	struct replica_layer layers[8];
	struct vol_extent extents[8];
	uint32_t crcs[8];
	size_t count, filled;
	for (unsigned i = 0; i < 800; i++) {
		liar.opens_well = i % 4;
		int err = open_as(r, 3, ENGINE, NULL);
		CHECK(err || liar.opens_well);
		if (err)
			continue;
		err = r->ops->layers(r, layers, 8, &count, &filled);
		CHECK(err || (count <= 8 && filled <= count));
		err = r->ops->layer_extents(r, NULL, NULL, 4096, MiB, extents, 8, &count);
		CHECK(err || (count > 0 && count <= 8 && extents[0].offset_bytes == 4096));
		(void)!r->ops->layer_checksums(r, NULL, 0, 8 * 4096, crcs);
		(void)!read_some(r, LAYER, 65536);
		(void)!read_some(r, 0, 65536);
		(void)!r->ops->ping(r);
		(void)!r->ops->flush(r);
		(void)!write_pattern(r, 0, 65536, 1, 0);
	}
	r->ops->close(r);
}

TEST(a_server_that_talks_nonsense_is_not_believed)
{
	free(w.story);
	memset(&w, 0, sizeof(w));
	liar.random = 1;
	w.sim = sim_new(1);
	w.there = sim_node_new(w.sim, "there");
	w.here = sim_node_new(w.sim, "here");
	w.options = (struct replica_remote_options){
		.address = ADDRESS, .pool_id = an_id(POOL_ID), .volume_id = an_id(VOLUME_ID)};
	fiber_spawn_big(sim_node_start(w.there), "serve", liar_serve, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_up, UINT64_MAX), SIM_DONE);
	sim_node_start(w.here);
	run_body(w.here, believe_nothing);
	CHECK(liar.commands > 800);
	fiber_spawn_big(sim_node_rt(w.there), "unserve", liar_unserve, NULL);
	CHECK_EQ(sim_run(w.sim, &w.is_down, UINT64_MAX), SIM_DONE);
	CHECK_EQ(sim_run(w.sim, NULL, UINT64_MAX), SIM_DONE);
	sim_node_stop(w.here);
	sim_node_stop(w.there);
	sim_free(w.sim);
}

/* ---- order ------------------------------------------------------------------------------------------------------------------------ */

static void late_intents(void)
{
	char nqn[NVME_NQN_FIELD];
	struct replica_session *s = replica_session_new(
		w.server, nvme_nqn_of_copy(&w.options.pool_id, &w.options.volume_id, nqn));
	struct replica_wire_sqe e = {.opcode = REPLICA_WIRE_OPEN, .nsid = le32_of(1), .value = le64_of(3)};
	struct replica_wire_state state;
	struct replica_wire_spec spec = {.size_bytes = le64_of(VOLUME_BYTES), .name = {"~copy"}};
	struct replica_regions regions = {{0}};
	uint32_t answer_bytes;
	uint64_t result;
	e.version.major = le16_of(REPLICA_WIRE_MAJOR);
	e.id[0] = 1;
	CHECK_EQ(replica_session_command(s, (void *)&e, &state, sizeof(state), &answer_bytes, &result), 0);
	e.opcode = REPLICA_WIRE_CREATE;
	memcpy(spec.id, w.options.volume_id.b, sizeof(spec.id));
	CHECK_EQ(replica_session_command(s, (void *)&e, &spec, sizeof(spec), &answer_bytes, &result), 0);
	e.opcode = REPLICA_WIRE_INTENTS_SET;
	for (unsigned number = 2; number > 0; number--) { /* the second came first */
		e.value = le64_of(number);
		regions.bits[0] = (uint8_t)number;
		CHECK_EQ(replica_session_command(s, (void *)&e, &regions, sizeof(regions), &answer_bytes,
						 &result),
			 0);
	}
	e.opcode = REPLICA_WIRE_OPEN;
	e.value = le64_of(4);
	CHECK_EQ(replica_session_command(s, (void *)&e, &state, sizeof(state), &answer_bytes, &result), 0);
	CHECK_EQ(state.intents.bits[0], 2);
	replica_session_end(s);
}

TEST(of_sets_of_intents_that_overtake_each_other_the_one_made_last_decides)
{
	world_start(1, NULL, NULL);
	run_body(w.there, late_intents);
	world_end();
}
