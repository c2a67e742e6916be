/*
 * nbd_fuzz.c: anything a client can say, in any state: no crash, no leak, no byte more memory than allowed, and an end.
 *
 * The input is a program for a client:
 *
 *     byte 0        which prelude: raw from the greeting on; or attached in one of the three forms, with contexts
 *     byte 1        the seed that cuts the stream into pieces
 *     then, again and again, a verb and its operands:
 *         raw n bytes | an option with n bytes of data | a well-formed option | a request | wait a while
 *
 * What is not enough operands is zero. The other side is the whole server on virtual time, over a store of arrays, and every
 * run goes on until no timer is left.
 */
#include "base/fuzz.h"
#include "data/engine/pool_double.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_format.h"
#include "data/engine/engine_testrt.h"

#define ADDRESS	    "unix:fuzz"
#define VERBS_MAX   200
#define VOLUME_SIZE (1 * MiB)

static struct {
	struct rt *rt;
	struct engines *engines;
	struct nbd_server *server;
	struct rt_conn *conn;
	struct input in;
	bool extended;
	struct rt_group readers;
} f;

static uint8_t scratch[80 * KiB];

static void say(const void *data, size_t len_bytes)
{
	int err = len_bytes ? rt_send(f.conn, &(struct rt_iovec){(void *)data, len_bytes}, 1) : 0;
	(void)err; /* hung up: the rest of the program is said to nobody */
}

static void swallow(void *arg)
{
	uint8_t bytes[4096];
	size_t got;
	(void)arg;
	while (rt_recv(f.conn, bytes, sizeof(bytes), &got) == 0 && got > 0)
		;
	group_done(&f.readers);
}

/* ---- verbs ---------------------------------------------------------------------------------------------------------------- */

static size_t take_bytes(struct input *in, size_t n)
{
	n = u64_min(n, sizeof(scratch));
	take_into(in, scratch, n);
	return n;
}

static void say_option(uint32_t option, uint32_t claimed, const void *data, size_t len_bytes)
{
	struct nbd_option_wire w = {be64_of(NBD_OPTS_MAGIC), be32_of(option), be32_of(claimed)};
	say(&w, sizeof(w));
	say(data, len_bytes);
}

static const char *const names[] = {"disk", "", "disk@mon", "tank/disk", "nobody", "disk@none"};
static const char *const queries[] = {
	"base:allocation", "oxbow:changed-since:mon", "base:", "oxbow:", "oxbow:changed-since:", "x"};

static size_t put_string(uint8_t *out, const char *text)
{
	be32 n = be32_of((uint32_t)strlen(text));
	memcpy(out, &n, sizeof(n));
	memcpy(out + sizeof(n), text, strlen(text));
	return sizeof(n) + strlen(text);
}

static size_t put_u16(uint8_t *out, uint16_t v)
{
	be16 w = be16_of(v);
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static size_t put_u32(uint8_t *out, uint32_t v)
{
	be32 w = be32_of(v);
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

static void say_info(uint32_t option, unsigned name, unsigned info_count)
{
	uint8_t data[128];
	size_t n = put_string(data, names[name % ARRAY_COUNT(names)]);
	info_count %= 6;
	n += put_u16(data + n, (uint16_t)info_count);
	for (unsigned i = 0; i < info_count; i++)
		n += put_u16(data + n, (uint16_t)i);
	say_option(option, (uint32_t)n, data, n);
}

static void say_meta(uint32_t option, unsigned name, unsigned mask)
{
	uint8_t data[256];
	size_t n = put_string(data, names[name % ARRAY_COUNT(names)]);
	n += put_u32(data + n, (uint32_t)__builtin_popcount(mask & 0x3f));
	for (unsigned i = 0; i < ARRAY_COUNT(queries); i++)
		if (mask & 1u << i)
			n += put_string(data + n, queries[i]);
	say_option(option, (uint32_t)n, data, n);
}

static void verb_option(struct input *in)
{
	uint32_t option = (uint32_t)take(in, 1);
	f.extended |= option == NBD_OPT_EXTENDED_HEADERS;
	switch (option) {
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		say_info(option, (unsigned)take(in, 1), (unsigned)take(in, 1));
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		say_meta(option, (unsigned)take(in, 1), (unsigned)take(in, 1));
		break;
	default:
		say_option(option, 0, NULL, 0);
	}
}

static void verb_odd_option(struct input *in)
{
	uint32_t option = (uint32_t)take(in, 4);
	size_t n = take_bytes(in, take(in, 2));
	uint64_t lie = take(in, 1);
	say_option(option, (uint32_t)(lie < 200 ? n : n * lie), scratch, n);
}

/* Offsets near the edges are the interesting ones. */
static uint64_t take_offset(struct input *in)
{
	uint64_t v = take(in, 2);
	switch (take(in, 1) % 4) {
	case 0:
		return v * 512 % VOLUME_SIZE;
	case 1:
		return VOLUME_SIZE - v;
	case 2:
		return UINT64_MAX - v;
	default:
		return v << 40 | v;
	}
}

static uint64_t take_length(struct input *in)
{
	uint64_t v = take(in, 2);
	return take(in, 1) % 4 ? v % 512 * 512 : v << (v % 48);
}

static void verb_request(struct input *in)
{
	struct nbd_extended_request_wire w = {
		.magic = be32_of(f.extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC),
		.type = be16_of((uint16_t)take(in, 1) % 10),
		.flags = be16_of((uint16_t)take(in, 1)),
		.cookie = be64_of(take(in, 1)),
	};
	w.offset = be64_of(take_offset(in));
	uint64_t length = take_length(in);
	w.length = be64_of(length);
	bool carries = be16_get(w.type) == NBD_CMD_WRITE ||
		       (f.extended && (be16_get(w.flags) & NBD_CMD_FLAG_PAYLOAD_LEN));
	if (!f.extended)
		((struct nbd_request_wire *)&w)->length = be32_of((uint32_t)length);
	say(&w, f.extended ? sizeof(w) : sizeof(struct nbd_request_wire));
	if (carries && length <= sizeof(scratch))
		say(scratch, take_bytes(in, length));
}

static void verb_raw(struct input *in)
{
	say(scratch, take_bytes(in, take(in, 1)));
}

static void verb_wait(struct input *in)
{
	fiber_sleep(take(in, 1) * NS_PER_S);
}

static void verb_delay(struct input *in)
{
	(void)in;
	fiber_yield();
}

static void (*const verbs[])(struct input *in) = {verb_raw,	verb_option,  verb_odd_option, verb_request,
						  verb_request, verb_request, verb_wait,       verb_delay};

/* ---- the run ----------------------------------------------------------------------------------------------------------------- */

static void prelude(unsigned which)
{
	be32 flags = be32_of(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	if (which == 0)
		return;
	say(&flags, sizeof(flags));
	if (which == 1)
		return;
	if (which == 3)
		say_option(NBD_OPT_STRUCTURED_REPLY, 0, NULL, 0);
	f.extended = which == 4;
	if (which == 4)
		say_option(NBD_OPT_EXTENDED_HEADERS, 0, NULL, 0);
	say_meta(NBD_OPT_SET_META_CONTEXT, 0, 3);
	say_info(NBD_OPT_GO, 0, 4);
}

static void client_fiber(void *arg)
{
	(void)arg;
	struct nbd_options options = {
		.options_max = 50, .requests_max = 8, .connection_bytes_max = 256 * KiB};
	const char *bound;
	if (nbd_server_new(f.engines, &options, &f.server) || nbd_server_listen(f.server, ADDRESS, &bound) ||
	    rt_connect(f.rt, ADDRESS, UINT64_MAX, &f.conn))
		abort();
	group_init(&f.readers);
	group_add(&f.readers, 1);
	fiber_spawn(f.rt, "swallow", swallow, NULL);
	prelude((unsigned)take(&f.in, 1) % 5);
	for (int i = 0; i < VERBS_MAX && f.in.at < f.in.end; i++)
		verbs[take(&f.in, 1) % ARRAY_COUNT(verbs)](&f.in);
	fiber_sleep(NS_PER_S);
	rt_conn_shutdown(f.conn);
	group_wait(&f.readers);
	rt_conn_close(f.conn);
	fiber_sleep(NS_PER_S);
	nbd_server_close(f.server);
}

static bool is_quiet(void *ctx, const char *name, const struct engine_stats *s)
{
	(void)ctx, (void)name;
	assert(s->in_flight == 0 && s->open_count == 0);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	f.in = (struct input){data, data + size};
	f.extended = false;
	uint64_t seed = take(&f.in, 1);
	f.rt = testrt_new(seed, seed & 1);
	struct pool *pool = pool_double_new("tank");
	struct uuid id = pool_double_volume(pool, "disk", VOLUME_SIZE, 512);
	pool_double_snapshot(pool, &id, "mon");
	pool_double_delay(pool, seed & 2 ? NS_PER_MS : 0);
	f.engines = engines_new(f.rt);
	engines_add_pool(f.engines, pool);
	fiber_spawn(f.rt, "client", client_fiber, NULL);
	testrt_run(f.rt);
	engines_stats_walk(f.engines, is_quiet, NULL);
	engines_free(f.engines);
	pool_double_free(pool);
	testrt_free(f.rt);
	return 0;
}
