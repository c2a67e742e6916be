/*
 * replica_remote_fuzz.c: any server: whatever it answers to whatever is asked, of any length and with any status, no more is taken than there
 * is room for, and nothing that is not so comes out.
 *
 *     byte 0 of each answer      how: as a copy should, a status, the connection's end, or the rest of this
 *     then                       how long the answer is, the two numbers of the result, and the answer
 *
 * The other side is the whole target on virtual time; only who carries out the commands is the fuzzer's.
 */
#include "base/fuzz.h"
#include "data/engine/engine.h"
#include "data/engine/engine_testrt.h"
#include "data/frontend/nvmf/nvmf.h"
#include "data/replica/replica_remote.h"
#include "data/replica/replica_wire.h"

#define ADDRESS	   "tcp:10.0.0.2:4420"
#define ROUNDS_MAX 12u
#define LAYERS	   8u
#define EXTENTS	   8u
#define BYTES	   (64 * KiB)

static struct {
	struct rt *rt;
	struct engines *engines;
	struct nvmf_server *server;
	struct input in;
} f;

/* ---- the server --------------------------------------------------------------------------------------------------------------- */

static bool knows(void *ctx, const char *subnqn)
{
	(void)ctx;
	return strstr(subnqn, ":copy:") != NULL;
}

static void *attach(void *ctx, const char *subnqn, struct uuid *id)
{
	(void)ctx;
	(void)subnqn;
	id->b[0] = 1;
	return &f;
}

static void detach(void *session)
{
	(void)session;
}

static uint64_t size_bytes(const void *session)
{
	(void)session;
	return 0;
}

static uint32_t open_well(void *data, uint32_t data_bytes)
{
	struct replica_wire_state state = {
		.flags = REPLICA_WIRE_EXISTS, .size_bytes = le64_of(MiB), .lba_bytes = le32_of(512)};
	if (data_bytes < sizeof(state))
		abort();
	memcpy(data, &state, sizeof(state));
	return sizeof(state);
}

static uint16_t answer(void *session, const struct nvme_sqe *sqe, void *data, uint32_t data_bytes,
		       uint32_t *answer_bytes, uint64_t *result)
{
	bool gives = sqe->opcode & NVME_OPCODE_DATA_TO_HOST;
	uint8_t how = (uint8_t)take(&f.in, 1);
	(void)session;
	if (gives)
		memset(data, 0, data_bytes);
	*answer_bytes = gives ? data_bytes : 0;
	if (sqe->opcode == REPLICA_WIRE_OPEN && how < 200)
		*answer_bytes = open_well(data, data_bytes);
	else if (how < 16)
		return (uint16_t)(take(&f.in, 2) & 0x7fff);
	else if (how < 64)
		return (uint16_t)(REPLICA_WIRE_STATUS | how);
	if (how < 100)
		return 0;
	*result = how & 1 ? take(&f.in, 8) : take(&f.in, 1);
	if (!gives)
		return 0;
	*answer_bytes = (uint32_t)(how & 2 ? take(&f.in, 2) % (data_bytes + 1) : data_bytes);
	if (*answer_bytes)
		take_into(&f.in, data, u64_min(*answer_bytes, 512));
	return 0;
}

/* ---- the client --------------------------------------------------------------------------------------------------------------- */

static void check_layers(struct replica *r)
{
	struct replica_layer *layers = mem_zalloc(LAYERS * sizeof(*layers)); /* no more than it says */
	size_t count = 0, filled = 0;
	int err = r->ops->layers(r, layers, LAYERS, &count, &filled);
	if (!err && (count > LAYERS || filled > count))
		abort();
	for (size_t i = 0; !err && i < count; i++)
		if (strnlen(layers[i].name, sizeof(layers[i].name)) > POOL_NAME_MAX)
			abort();
	free(layers);
}

static void check_extents(struct replica *r)
{
	struct vol_extent *extents = mem_zalloc(EXTENTS * sizeof(*extents));
	uint64_t at = 4096;
	size_t count = 0;
	int err = r->ops->layer_extents(r, NULL, NULL, at, MiB, extents, EXTENTS, &count);
	if (!err && (count == 0 || count > EXTENTS))
		abort();
	for (size_t i = 0; !err && i < count; i++) {
		if (extents[i].offset_bytes != at || extents[i].len_bytes == 0)
			abort();
		at += extents[i].len_bytes;
	}
	if (!err && at > 4096 + MiB)
		abort();
	free(extents);
}

static void ask_all(struct replica *r)
{
	uint32_t *crcs = mem_zalloc(16 * sizeof(*crcs));
	uint8_t *data = mem_zalloc(BYTES);
	struct uuid id = {{1}};
	check_layers(r);
	check_extents(r);
	(void)!r->ops->layer_checksums(r, &id, 0, 16 * REPLICA_CHECKSUM_BYTES, crcs);
	(void)!r->ops->layer_read(r, &id, data, 0, BYTES);
	(void)!r->ops->read(r, data, 512, BYTES);
	(void)!r->ops->write(r, data, 0, BYTES, 0);
	(void)!r->ops->ping(r);
	(void)!r->ops->seal(r, 1, &id, "~x");
	free(crcs);
	free(data);
}

static void check_state(const struct replica_state *s)
{
	if (s->exists && ((s->lba_bytes != 512 && s->lba_bytes != 4096) || s->size_bytes == 0))
		abort();
}

static void main_fiber(void *arg)
{
	struct nvmf_foreign foreign = {.model = "fuzz",
				       .insecure = true,
				       .knows = knows,
				       .attach = attach,
				       .detach = detach,
				       .run = answer,
				       .size_bytes = size_bytes};
	struct replica_remote_options options = {.address = ADDRESS, .queues = 1};
	struct replica_state state;
	struct uuid engine_id = {{9}};
	(void)arg;
	f.engines = engines_new(f.rt);
	f.server = nvmf_server_new(f.engines, &(struct nvmf_options){.foreign = &foreign});
	struct replica *r = replica_remote_new(f.rt, &options);
	if (!r || nvmf_server_listen(f.server, ADDRESS, NULL))
		abort();
	for (unsigned i = 0; i < ROUNDS_MAX && f.in.at < f.in.end; i++) {
		if (r->ops->open(r, 1, &engine_id, &state))
			continue;
		check_state(&state);
		ask_all(r);
	}
	r->ops->close(r);
	nvmf_server_close(f.server);
	engines_free(f.engines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t input_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t input_bytes)
{
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + input_bytes};
	f.rt = testrt_new(1, false);
	fiber_spawn_big(f.rt, "main", main_fiber, NULL);
	testrt_run(f.rt);
	testrt_free(f.rt);
	return 0;
}
