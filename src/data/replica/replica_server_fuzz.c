/*
 * replica_server_fuzz.c: any command of any client, with any data, in any order and many at once; and pools that are evicted meanwhile.
 *
 *     byte 0 of each      what: a command, an eviction, a pause
 *     a command           its opcode (mostly one that there is), the rest of its entry, how much data, and the data
 *     after it            what the copy answers, and how long it takes
 *
 * The copy looks at all it is given and fills all it has to give, so that whatever is too short is seen.
 */
#include "base/fuzz.h"
#include "data/engine/engine_testrt.h"
#include "data/nvme/nvme_nqn.h"
#include "data/replica/replica_double.h"
#include "data/replica/replica_server_impl.h"
#include "data/replica/replica_wire.h"

#define COMMANDS_MAX 60u
#define DATA_MAX     (64 * KiB)

static struct {
	struct rt *rt;
	struct replica_server *server;
	struct replica_session *session;
	struct uuid pool_id, volume_id;
	struct input in;
	struct rt_group commands;
	bool pool_is_away;
} f;

static int next_answer(void *ctx)
{
	uint8_t n = (uint8_t)take(&f.in, 1);
	(void)ctx;
	if (n & 0x80)
		fiber_sleep(n & 15);
	return n % 4 ? 0 : OX_ERR_BASE + 1 + n / 4 % (OX_ERR_END - OX_ERR_BASE - 1);
}

static struct replica *copy_new(struct replica_server *server, const struct uuid *pool_id,
				const struct uuid *volume_id)
{
	(void)server;
	if (!uuid_equal(pool_id, &f.pool_id) || !uuid_equal(volume_id, &f.volume_id))
		abort();
	return f.pool_is_away ? NULL : replica_double_new(next_answer, NULL);
}

struct command {
	struct nvme_sqe sqe;
	uint8_t *data; /* just as large as it may be */
	uint32_t data_bytes;
};

static void check_answer(const struct command *c, uint16_t status, uint32_t answer_bytes)
{
	bool is_ours = replica_wire_status_is_ours(status);
	if (answer_bytes > c->data_bytes || (status && answer_bytes))
		abort();
	if (is_ours && replica_wire_error_of(status) == OXE_PROTO &&
	    replica_wire_status_of(OXE_PROTO) != status)
		abort();
}

static void command_run(void *arg)
{
	struct command *c = arg;
	uint32_t answer_bytes = 0;
	uint64_t result = 0;
	uint16_t status =
		replica_session_command(f.session, &c->sqe, c->data, c->data_bytes, &answer_bytes, &result);
	check_answer(c, status, answer_bytes);
	free(c->data);
	free(c);
	group_done(&f.commands);
}

static uint8_t take_opcode(void)
{
	static const uint8_t known[] = {0x00, 0x01, 0x02, 0x08, 0x09, 0x80, 0x81, 0x82, 0x82,
					0x82, 0x84, 0x85, 0x86, 0x88, 0x89, 0x8a, 0x8c, 0x8d,
					0x8e, 0x90, 0x91, 0x92, 0x94, 0x95, 0x98, 0x9c, 0xa0};
	uint8_t n = (uint8_t)take(&f.in, 1);
	return n < 250 ? known[n % sizeof(known)] : (uint8_t)take(&f.in, 1);
}

/* Of a size that fits, mostly. */
static uint32_t take_size(uint8_t opcode, const struct nvme_sqe *sqe)
{
	uint8_t n = (uint8_t)take(&f.in, 1);
	if (n < 8)
		return (uint32_t)(take(&f.in, 3) % DATA_MAX);
	switch (opcode) {
	case NVME_IO_READ:
	case NVME_IO_WRITE:
		return (uint32_t)u64_min(nvme_rw_blocks(sqe) * REPLICA_WIRE_LBA, DATA_MAX);
	case NVME_IO_DATASET_MANAGEMENT:
		return (n % 4u + 1) * (uint32_t)sizeof(struct nvme_dsm_range);
	case REPLICA_WIRE_CREATE:
		return sizeof(struct replica_wire_spec);
	case REPLICA_WIRE_OPEN:
		return sizeof(struct replica_wire_state);
	case REPLICA_WIRE_INTENTS_SET:
		return sizeof(struct replica_regions);
	case REPLICA_WIRE_SEAL:
	case REPLICA_WIRE_LAYER_RENAME:
	case REPLICA_WIRE_FILL_SEAL:
		return sizeof(struct replica_wire_name);
	default:
		return n * 8u;
	}
}

static void command_start(void)
{
	struct command *c = mem_zalloc(sizeof(*c));
	take_into(&f.in, &c->sqe, sizeof(c->sqe));
	c->sqe.opcode = take_opcode();
	if (take(&f.in, 1) % 16)
		c->sqe.nsid = le32_of(1);
	if (c->sqe.opcode == REPLICA_WIRE_OPEN && take(&f.in, 1) % 8)
		((struct replica_wire_sqe *)&c->sqe)->version.major = le16_of(REPLICA_WIRE_MAJOR);
	c->data_bytes = take_size(c->sqe.opcode, &c->sqe);
	c->data = c->data_bytes ? mem_alloc(c->data_bytes) : NULL;
	if (c->data)
		take_into(&f.in, c->data, c->data_bytes);
	group_add(&f.commands, 1);
	fiber_spawn(f.rt, "command", command_run, c);
}

static void step(void)
{
	uint8_t what = (uint8_t)take(&f.in, 1);
	if (what < 8) {
		f.pool_is_away = what & 1;
		replica_server_evict(f.server, &f.pool_id);
	} else if (what < 32) {
		fiber_sleep(what);
	} else {
		command_start();
	}
}

static void main_fiber(void *arg)
{
	char nqn[NVME_NQN_FIELD];
	(void)arg;
	f.server = replica_server_new(NULL, NULL);
	f.server->replica_new = copy_new;
	f.session = replica_session_new(f.server, nvme_nqn_of_copy(&f.pool_id, &f.volume_id, nqn));
	if (!f.session)
		abort();
	for (unsigned i = 0; i < COMMANDS_MAX && f.in.at < f.in.end; i++)
		step();
	group_wait(&f.commands);
	replica_session_end(f.session);
	replica_server_free(f.server);
	if (replica_double_count() != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + size_bytes};
	f.pool_id.b[0] = 1;
	f.volume_id.b[0] = 2;
	f.rt = testrt_new(1, false);
	group_init(&f.commands);
	fiber_spawn(f.rt, "main", main_fiber, NULL);
	testrt_run(f.rt);
	testrt_free(f.rt);
	return 0;
}
