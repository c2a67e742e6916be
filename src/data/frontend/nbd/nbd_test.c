/*
 * nbd_test.c: the server and a client of our own on one reactor in virtual time, over a store of arrays.
 *
 * What arrives is cut into random pieces, so each of these is also a test of messages in halves. Deadlines cost nothing here.
 */
#include "base/prng.h"
#include "base/test.h"
#include "data/frontend/frame_double.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_command.h"
#include "data/frontend/nbd/nbd_client_double.h"

#include <stdio.h>

#define ADDRESS	     "unix:test"
#define SIZE	     FRAME_SIZE
#define NBD_NO_FLAGS 0

static struct {
	struct nbd_server *server;
	struct nbd_options options;
	void (*body)(void);
} t;

static void body_fiber(void *arg)
{
	(void)arg;
	CHECK_OK(nbd_server_new(frame.engines, &t.options, &t.server));
	CHECK_OK(nbd_server_listen(t.server, ADDRESS, NULL));
	t.body();
	if (t.server)
		nbd_server_close(t.server);
}

static void with_options(struct nbd_options options, void (*body)(void))
{
	t.options = options;
	t.body = body;
	frame_run(3, 512, body_fiber);
}

#define WITH_SERVER(test_name)                                                                               \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		with_options((struct nbd_options){0}, test_name##_body);                                     \
	}                                                                                                    \
	static void test_name##_body(void)

#define WITH_OPTIONS(test_name, ...)                                                                         \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		with_options((struct nbd_options){__VA_ARGS__}, test_name##_body);                           \
	}                                                                                                    \
	static void test_name##_body(void)

static struct client greeted(void)
{
	return client_begin(ADDRESS, NULL, FORM_SIMPLE);
}

static struct client attached(int form)
{
	return client_begin(ADDRESS, "disk", form);
}

static uint64_t dropped(void)
{
	struct nbd_stats s;
	nbd_server_stats(t.server, &s);
	return s.connections_dropped;
}

static uint8_t *pattern(size_t len_bytes, uint64_t seed)
{
	struct prng rng;
	uint8_t *data = mem_alloc(len_bytes);
	prng_seed(&rng, seed);
	prng_fill(&rng, data, len_bytes);
	return data;
}

/* ---- handshake ----------------------------------------------------------------------------------------------------------- */

/* The data of the information `type`, which must be among the replies. */
static const void *find_info(const struct option_reply *replies, size_t count, uint16_t type)
{
	for (size_t i = 0; i < count; i++)
		if (replies[i].type == NBD_REP_INFO && be16_get(*(be16 *)replies[i].data) == type)
			return replies[i].data;
	test_fail(__FILE__, __LINE__, "no information of type %u", type);
}

WITH_SERVER(info_tells_size_flags_block_sizes_and_what_else_was_asked)
{
	struct client c = client_begin(ADDRESS, NULL, FORM_STRUCTURED);
	const uint16_t infos[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, 77};
	uint8_t data[256];
	struct option_reply r[8];
	size_t n = 0;
	client_option(&c, NBD_OPT_INFO, data, client_info_data(data, "disk", infos, 4));
	do
		client_option_reply(&c, &r[n]);
	while (r[n++].type == NBD_REP_INFO);
	CHECK_EQ(r[n - 1].type, NBD_REP_ACK);
	const struct nbd_info_export_wire *e = find_info(r, n, NBD_INFO_EXPORT);
	CHECK_EQ(be64_get(e->size), SIZE);
	CHECK_EQ(be16_get(e->flags), NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
					     NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
					     NBD_FLAG_SEND_DF | NBD_FLAG_CAN_MULTI_CONN |
					     NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO);
	const struct nbd_info_block_size_wire *b = find_info(r, n, NBD_INFO_BLOCK_SIZE);
	CHECK_EQ(be32_get(b->minimum), 512);
	CHECK_EQ(be32_get(b->preferred), 4096);
	CHECK_EQ(be32_get(b->maximum), 32 * MiB);
	CHECK_STR((const char *)find_info(r, n, NBD_INFO_NAME) + 2, "tank/disk");
	CHECK_STR((const char *)find_info(r, n, NBD_INFO_DESCRIPTION) + 2, "Oxbow volume tank/disk");
	client_go(&c, "disk"); /* INFO began nothing: options go on */
	client_disconnect(&c);
}

static void export_name(uint32_t flags, const char *name, size_t padding)
{
	struct client c = client_connect(ADDRESS);
	struct nbd_export_name_reply_wire w;
	uint8_t zeroes[NBD_OPT_ZEROES];
	client_greet(&c, flags);
	client_option(&c, NBD_OPT_EXPORT_NAME, name, strlen(name));
	CHECK(client_recv(&c, &w, sizeof(w)));
	CHECK_EQ(be64_get(w.size), SIZE);
	CHECK(client_recv(&c, zeroes, padding) && bytes_are_zero(zeroes, padding));
	CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&c);
}

WITH_SERVER(export_name_still_works_with_and_without_padding)
{
	export_name(NBD_FLAG_C_FIXED_NEWSTYLE, "disk", NBD_OPT_ZEROES);
	export_name(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES, "tank/disk", 0);
	export_name(0, "", NBD_OPT_ZEROES);
}

WITH_SERVER(the_empty_name_is_the_only_volume_until_there_are_two)
{
	uint8_t data[64];
	struct client c = client_begin(ADDRESS, "", FORM_SIMPLE);
	client_disconnect(&c);
	pool_double_volume(frame.pool, "other", SIZE, 512);
	c = greeted();
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, client_info_data(data, "", NULL, 0)), NBD_REP_ERR_UNKNOWN);
	client_close(&c);
}

WITH_SERVER(list_names_every_volume_and_its_snapshots_however_many)
{
	enum { COUNT = 2000 }; /* more than one batch */
	char wanted[32];
	struct option_reply r;
	for (int i = 0; i < COUNT; i++) {
		snprintf(wanted, sizeof(wanted), "volume-%04d", i);
		pool_double_volume(frame.pool, wanted, 4096, 512);
	}
	pool_double_snapshot(frame.pool, &frame.volume, "mon");
	struct client c = greeted();
	client_option(&c, NBD_OPT_LIST, NULL, 0);
	for (int i = -2; i < COUNT; i++) {
		snprintf(wanted, sizeof(wanted), "volume-%04d", i);
		client_option_reply(&c, &r);
		CHECK_EQ(r.type, NBD_REP_SERVER);
		CHECK_STR((char *)r.data + 4, i == -2 ? "disk" : i == -1 ? "disk@mon" : wanted);
	}
	client_option_reply(&c, &r);
	CHECK_EQ(r.type, NBD_REP_ACK);
	CHECK_EQ(client_ask(&c, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
	client_close(&c);
}

WITH_SERVER(a_name_in_two_pools_must_say_which)
{
	uint8_t data[64];
	struct pool *second = pool_double_new("lake");
	pool_double_volume(second, "disk", SIZE, 4096);
	engines_add_pool(frame.engines, second);
	struct client c = greeted();
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, client_info_data(data, "disk", NULL, 0)),
		 NBD_REP_ERR_UNKNOWN);
	client_go(&c, "lake/disk");
	CHECK_EQ(client_call(&c, 0, NBD_CMD_TRIM, 512, 512), NBD_EINVAL); /* its blocks are 4096 */
	client_disconnect(&c);
	CHECK_OK(engines_remove_pool(frame.engines, second));
	pool_double_free(second);
}

WITH_SERVER(go_to_an_unknown_export_is_refused_and_haggling_goes_on)
{
	uint8_t data[8192];
	const char *const names[] = {"nobody", "disk@none", "tank/",   "/disk", "a/b/c",
				     "disk@",  "@",	    "../disk", " "};
	struct client c = greeted();
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, client_info_data(data, names[i], NULL, 0)),
			 NBD_REP_ERR_UNKNOWN);
	char long_name[NBD_STRING_MAX + 1] = {0};
	memset(long_name, 'a', NBD_STRING_MAX);
	CHECK_EQ(client_ask(&c, NBD_OPT_INFO, data, client_info_data(data, long_name, NULL, 0)),
		 NBD_REP_ERR_UNKNOWN);
	client_go(&c, "disk");
	client_disconnect(&c);
}

WITH_SERVER(a_name_with_nul_bytes_names_nothing)
{
	uint8_t data[64];
	struct client c = greeted();
	size_t n = client_info_data(data, "disk?", NULL, 0);
	data[4 + 4] = '\0'; /* "disk\0" */
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, n), NBD_REP_ERR_UNKNOWN);
	client_option(&c, NBD_OPT_EXPORT_NAME, "disk\0", 5);
	CHECK(client_is_cut(&c));
	client_close(&c);
}

WITH_SERVER(lengths_that_lie_are_refused)
{
	static const uint8_t name_past_end[] = {0, 0, 0, 9, 'd', 'i', 's', 'k', 0, 0};
	static const uint8_t huge_name[] = {0xff, 0xff, 0xff, 0xff, 'd', 'i', 's', 'k', 0, 0};
	static const uint8_t missing_infos[] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 5, 0, 1};
	static const uint8_t trailing[] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0};
	static const uint8_t queries[] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0, 2, 0, 0, 0, 1, 'x'};
	static const uint8_t many[] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0xff, 0xff, 0xff, 0xff};
	struct client c = client_begin(ADDRESS, NULL, FORM_STRUCTURED);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, name_past_end, sizeof(name_past_end)), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, huge_name, sizeof(huge_name)), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_INFO, missing_infos, sizeof(missing_infos)), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_INFO, trailing, sizeof(trailing)), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, NULL, 0), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_SET_META_CONTEXT, queries, sizeof(queries)), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_LIST_META_CONTEXT, many, sizeof(many)), NBD_REP_ERR_INVALID);
	client_go(&c, "disk");
	client_disconnect(&c);
}

WITH_SERVER(unknown_options_are_refused_by_number)
{
	struct client c = greeted();
	CHECK_EQ(client_ask(&c, 0, NULL, 0), NBD_REP_ERR_UNSUP);
	CHECK_EQ(client_ask(&c, 4, NULL, 0), NBD_REP_ERR_UNSUP);
	CHECK_EQ(client_ask(&c, 12, "abc", 3), NBD_REP_ERR_UNSUP);
	CHECK_EQ(client_ask(&c, 0xffffffff, "abc", 3), NBD_REP_ERR_UNSUP);
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_POLICY);
	CHECK_EQ(client_ask(&c, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	CHECK(client_is_cut(&c));
	client_close(&c);
}

WITH_SERVER(an_oversized_option_is_skipped_and_an_absurd_one_ends_it)
{
	struct client c = greeted();
	uint8_t *data = pattern(100 * KiB, 1);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, 100 * KiB), NBD_REP_ERR_TOO_BIG);
	CHECK_EQ(client_ask(&c, 99, data, 17 * KiB), NBD_REP_ERR_TOO_BIG);
	struct nbd_option_wire w = {be64_of(NBD_OPTS_MAGIC), be32_of(NBD_OPT_GO), be32_of(0xffffffff)};
	client_send(&c, &w, sizeof(w));
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
	free(data);
}

WITH_OPTIONS(options_without_end_end_the_connection, .options_max = 10)
{
	struct client c = greeted();
	for (int i = 0; i < 10; i++)
		CHECK_EQ(client_ask(&c, 99, NULL, 0), NBD_REP_ERR_UNSUP);
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

WITH_SERVER(a_wrong_option_magic_or_flag_ends_it)
{
	struct client c = greeted();
	client_send(&c, "GET / HTTP/1.1\r\n", 16);
	CHECK(client_is_cut(&c));
	client_close(&c);
	c = client_connect(ADDRESS);
	client_greet(&c, 0x80000001);
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 2);
	client_close(&c);
}

WITH_OPTIONS(a_handshake_that_takes_too_long_is_ended, .handshake_timeout_ns = 5 * NS_PER_S)
{
	struct client c = greeted();
	for (int i = 0; i < 4; i++) { /* alive, but going nowhere */
		CHECK_EQ(client_ask(&c, 99, NULL, 0), NBD_REP_ERR_UNSUP);
		fiber_sleep(NS_PER_S);
	}
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

WITH_SERVER(forms_are_agreed_upon_once)
{
	struct client c = greeted();
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, "x", 1), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_EXTENDED_HEADERS, NULL, 0), NBD_REP_ACK);
	CHECK_EQ(client_ask(&c, NBD_OPT_EXTENDED_HEADERS, NULL, 0), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ERR_EXT_HEADER_REQD);
	client_close(&c);
}

/* ---- metadata contexts ----------------------------------------------------------------------------------------------------- */

static void list_contexts(struct client *c, const char *query, const char *const *wanted)
{
	uint8_t data[256];
	struct option_reply r;
	client_option(c, NBD_OPT_LIST_META_CONTEXT, data,
		      client_meta_data(data, "disk", &query, query ? 1 : 0));
	for (; *wanted; wanted++) {
		client_option_reply(c, &r);
		CHECK_EQ(r.type, NBD_REP_META_CONTEXT);
		CHECK_STR((char *)r.data + 4, *wanted);
	}
	client_option_reply(c, &r);
	CHECK_EQ(r.type, NBD_REP_ACK);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

WITH_SERVER(contexts_are_listed_by_name_and_by_family)
{
	pool_double_snapshot(frame.pool, &frame.volume, "mon");
	pool_double_snapshot(frame.pool, &frame.volume, "tue");
	struct client c = client_begin(ADDRESS, NULL, FORM_STRUCTURED);
	list_contexts(&c, NULL,
		      NAMES("base:allocation", "oxbow:changed-since:mon", "oxbow:changed-since:tue"));
	list_contexts(&c, "base:", NAMES("base:allocation"));
	list_contexts(&c, "oxbow:", NAMES("oxbow:changed-since:mon", "oxbow:changed-since:tue"));
	list_contexts(&c,
		      "oxbow:changed-since:", NAMES("oxbow:changed-since:mon", "oxbow:changed-since:tue"));
	list_contexts(&c, "oxbow:changed-since:tue", NAMES("oxbow:changed-since:tue"));
	list_contexts(&c, "oxbow:changed-since:wed", NAMES(NULL));
	list_contexts(&c, "qemu:allocation-depth", NAMES(NULL));
	list_contexts(&c, "", NAMES(NULL));
	client_close(&c);
}

WITH_SERVER(contexts_need_structured_replies_and_a_real_export)
{
	uint8_t data[256];
	const char *query = "base:allocation";
	struct client c = greeted();
	size_t n = client_meta_data(data, "disk", &query, 1);
	CHECK_EQ(client_ask(&c, NBD_OPT_SET_META_CONTEXT, data, n), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	n = client_meta_data(data, "nobody", &query, 1);
	CHECK_EQ(client_ask(&c, NBD_OPT_SET_META_CONTEXT, data, n), NBD_REP_ERR_UNKNOWN);
	client_close(&c);
}

WITH_SERVER(more_contexts_than_a_connection_keeps_are_refused)
{
	uint8_t data[1024];
	char names[9][40];
	const char *queries[9];
	for (int i = 0; i < 9; i++) {
		snprintf(names[i], sizeof(names[i]), "s%d", i);
		pool_double_snapshot(frame.pool, &frame.volume, names[i]);
		snprintf(names[i], sizeof(names[i]), "oxbow:changed-since:s%d", i);
		queries[i] = names[i];
	}
	struct client c = client_begin(ADDRESS, NULL, FORM_STRUCTURED);
	size_t n = client_meta_data(data, "disk", queries, 9);
	CHECK_EQ(client_ask(&c, NBD_OPT_SET_META_CONTEXT, data, n), NBD_REP_ERR_TOO_BIG);
	client_go(&c, "disk");
	CHECK_EQ(client_call(&c, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL); /* none was kept */
	client_disconnect(&c);
}

WITH_SERVER(contexts_chosen_for_one_export_are_void_for_another)
{
	pool_double_volume(frame.pool, "other", SIZE, 512);
	struct client c = client_begin(ADDRESS, NULL, FORM_STRUCTURED);
	CHECK_EQ(client_choose(&c, "disk", "base:allocation"), 1);
	client_go(&c, "other");
	CHECK_EQ(client_call(&c, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL);
	client_disconnect(&c);
}

struct extent {
	uint64_t length, flags;
};

static void expect_extents(struct client *c, uint32_t context, uint16_t chunk_flags,
			   const struct extent *wanted, size_t count)
{
	struct reply r;
	client_reply(c, &r, 0);
	CHECK_EQ(r.flags, chunk_flags);
	CHECK_EQ(r.type, c->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS);
	CHECK_EQ(be32_get(*(be32 *)r.data), context);
	CHECK_EQ(r.length, c->extended ? 8 + count * 16 : 4 + count * 8);
	for (size_t i = 0; i < count; i++) {
		const struct nbd_block_descriptor_wire *d = (void *)(r.data + 4 + i * 8);
		const struct nbd_block_descriptor_ext_wire *x = (void *)(r.data + 8 + i * 16);
		CHECK_EQ(c->extended ? be64_get(x->length) : be32_get(d->length), wanted[i].length);
		CHECK_EQ(c->extended ? be64_get(x->flags) : be32_get(d->flags), wanted[i].flags);
	}
	free(r.data);
}

static const struct extent allocation[] = {{4096, 0}, {60 * KiB, 3}, {64 * KiB, 0}, {128 * KiB, 3}};
static const struct extent changed[] = {{64 * KiB, 0}, {64 * KiB, 1}, {128 * KiB, 0}};

static struct client with_two_contexts(int form)
{
	uint8_t data[256], *bytes = pattern(64 * KiB, 3);
	struct option_reply r;
	struct client c = attached(form);
	CHECK_EQ(client_write(&c, 0, 0, bytes, 4096), 0);
	pool_double_snapshot(frame.pool, &frame.volume, "mon");
	CHECK_EQ(client_write(&c, 0, 64 * KiB, bytes, 64 * KiB), 0);
	client_disconnect(&c);
	free(bytes);
	c = client_begin(ADDRESS, NULL, form);
	const char *const queries[] = {"base:allocation", "oxbow:changed-since:mon", "base:allocation",
				       "x:y"};
	client_option(&c, NBD_OPT_SET_META_CONTEXT, data, client_meta_data(data, "disk", queries, 4));
	for (uint32_t id = 1; id <= 2; id++) {
		client_option_reply(&c, &r);
		CHECK_EQ(be32_get(*(be32 *)r.data), id);
	}
	client_option_reply(&c, &r);
	CHECK_EQ(r.type, NBD_REP_ACK);
	client_go(&c, "tank/disk"); /* the same export by its longer name */
	return c;
}

static void status_in_form(int form)
{
	struct client c = with_two_contexts(form);
	client_request(&c, 0, NBD_CMD_BLOCK_STATUS, 1, 0, 256 * KiB, NULL, 0);
	expect_extents(&c, 1, 0, allocation, 4);
	expect_extents(&c, 2, NBD_REPLY_FLAG_DONE, changed, 3);
	client_request(&c, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 1, 0, 256 * KiB, NULL, 0);
	expect_extents(&c, 1, 0, allocation, 1);
	expect_extents(&c, 2, NBD_REPLY_FLAG_DONE, changed, 1);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_BLOCK_STATUS, 0, 0), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_BLOCK_STATUS, SIZE, 512), NBD_EINVAL);
	CHECK_EQ(client_call(&c, NBD_CMD_FLAG_DF, NBD_CMD_BLOCK_STATUS, 0, 512), NBD_EINVAL);
	client_disconnect(&c);
}

WITH_SERVER(block_status_answers_for_every_chosen_context)
{
	status_in_form(FORM_STRUCTURED);
}

WITH_SERVER(block_status_answers_in_64_bits_under_extended_headers)
{
	status_in_form(FORM_EXTENDED);
}

struct status_payload {
	be64 effect_length;
	be32 ids[NBD_NO_FLAGS + 12];
};

static void send_status_payload(struct client *c, uint64_t length, size_t id_count, uint32_t first_id)
{
	struct status_payload p = {.effect_length = be64_of(length)};
	for (size_t i = 0; i < id_count; i++)
		p.ids[i] = be32_of(first_id + (uint32_t)i);
	size_t n = 8 + 4 * id_count;
	client_request(c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_BLOCK_STATUS, 1, 0, n, &p, n);
}

static uint32_t status_payload_error(struct client *c, uint64_t length, size_t id_count, uint32_t first_id)
{
	struct reply r;
	send_status_payload(c, length, id_count, first_id);
	client_reply(c, &r, 0);
	free(r.data);
	return r.error;
}

WITH_SERVER(block_status_with_a_payload_is_limited_to_the_contexts_it_names)
{
	struct client c = with_two_contexts(FORM_EXTENDED);
	send_status_payload(&c, 256 * KiB, 1, 2);
	expect_extents(&c, 2, NBD_REPLY_FLAG_DONE, changed, 3);
	CHECK_EQ(status_payload_error(&c, 256 * KiB, 1, 3), NBD_EINVAL); /* no such context */
	CHECK_EQ(status_payload_error(&c, 256 * KiB, 1, 0), NBD_EINVAL);
	CHECK_EQ(status_payload_error(&c, 256 * KiB, 0, 0), NBD_EINVAL);
	CHECK_EQ(status_payload_error(&c, 256 * KiB, 12, 1), NBD_EINVAL); /* more than there can be */
	CHECK_EQ(status_payload_error(&c, 2 * SIZE, 1, 1), NBD_EINVAL);
	CHECK_EQ(status_payload_error(&c, UINT64_MAX, 1, 1), NBD_EINVAL);
	client_disconnect(&c);
}

/* ---- transmission ------------------------------------------------------------------------------------------------------------ */

static void round_trip(int form, size_t len_bytes, uint64_t offset)
{
	struct client c = attached(form);
	uint8_t *out = pattern(len_bytes, len_bytes), *in = mem_zalloc(len_bytes);
	CHECK_EQ(client_write(&c, 0, offset, out, len_bytes), 0);
	CHECK_EQ(client_read(&c, offset, in, len_bytes), 0);
	CHECK(memcmp(in, out, len_bytes) == 0);
	client_disconnect(&c);
	free(out);
	free(in);
}

WITH_SERVER(what_was_written_is_read_in_every_form_and_size)
{
	const size_t sizes[] = {512, 4096, 20 * KiB, 64 * KiB, 300 * KiB, 3 * MiB};
	for (int form = FORM_SIMPLE; form <= FORM_EXTENDED; form++)
		for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
			round_trip(form, sizes[i], 512 * (i + 1));
}

WITH_SERVER(requests_outside_the_volume_are_refused_by_kind)
{
	struct client c = attached(FORM_EXTENDED);
	uint8_t block[512] = {0};
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, SIZE, 512), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, UINT64_MAX - 511, 512), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_TRIM, 512, UINT64_MAX - 511), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_WRITE_ZEROES, 0, SIZE + 512), NBD_ENOSPC);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_CACHE, SIZE, 512), NBD_EINVAL);
	CHECK_EQ(client_write(&c, 0, SIZE, block, 512), NBD_ENOSPC);
	CHECK_EQ(client_write(&c, 0, UINT64_MAX - 511, block, 512), NBD_ENOSPC);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, 1, 512), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, 0, 513), NBD_EINVAL);
	CHECK_EQ(client_write(&c, 0, 0, block, 100), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, SIZE - 512, 512), 0);
	client_disconnect(&c);
}

WITH_SERVER(unknown_commands_and_flags_are_refused)
{
	struct client c = attached(FORM_STRUCTURED);
	CHECK_EQ(client_call(&c, 0, 8, 0, 0), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, 0xffff, 0, 4096), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0x8000, NBD_CMD_FLUSH, 0, 0), NBD_EINVAL);
	CHECK_EQ(client_call(&c, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_TRIM, 0, 4096), NBD_EINVAL);
	CHECK_EQ(client_call(&c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ, 0, 4096), NBD_EINVAL);
	CHECK_EQ(client_call(&c, NBD_CMD_FLAG_FUA, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&c);
}

WITH_SERVER(a_payload_on_a_command_without_one_is_skipped)
{
	struct reply r;
	struct client c = attached(FORM_EXTENDED);
	uint8_t *data = pattern(8192, 1);
	client_request(&c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_TRIM, 1, 0, 8192, data, 8192);
	client_reply(&c, &r, 0);
	CHECK_EQ(r.error, NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&c);
	free(r.data);
	free(data);
}

WITH_SERVER(a_request_without_its_magic_ends_it)
{
	struct client c = attached(FORM_SIMPLE);
	client_send(&c, "this is no request, not at all", 28);
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

WITH_SERVER(an_oversized_write_is_skipped_and_refused)
{
	size_t n = 33 * MiB;
	uint8_t *data = mem_zalloc(n);
	struct client c = attached(FORM_STRUCTURED);
	CHECK_EQ(client_write(&c, 0, 0, data, n), NBD_EINVAL);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_READ, 0, n), NBD_EOVERFLOW);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&c);
	free(data);
}

WITH_SERVER(a_payload_nobody_could_send_ends_it)
{
	struct client c = attached(FORM_EXTENDED);
	client_request(&c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, 1, 0, (uint64_t)1 << 33, NULL, 0);
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

WITH_OPTIONS(a_payload_cut_in_half_ends_it_after_a_while, .stall_timeout_ns = 10 * NS_PER_S)
{
	uint8_t *data = pattern(64 * KiB, 1);
	struct client c = attached(FORM_SIMPLE);
	client_request(&c, 0, NBD_CMD_WRITE, 1, 0, 64 * KiB, data, 32 * KiB);
	uint64_t began_ns = rt_now_ns(frame.rt);
	CHECK(client_is_cut(&c));
	CHECK(rt_now_ns(frame.rt) - began_ns >= 10 * NS_PER_S &&
	      rt_now_ns(frame.rt) - began_ns < 30 * NS_PER_S);
	CHECK_EQ(dropped(), 1);
	client_close(&c);
	free(data);
}

WITH_OPTIONS(a_header_a_byte_at_a_time_is_not_waited_for, .stall_timeout_ns = 10 * NS_PER_S)
{
	struct nbd_request_wire w = {.magic = be32_of(NBD_REQUEST_MAGIC), .type = be16_of(NBD_CMD_FLUSH)};
	struct client c = attached(FORM_SIMPLE);
	for (size_t i = 0; i < sizeof(w) && dropped() == 0; i++) {
		client_send(&c, (uint8_t *)&w + i, 1);
		fiber_sleep(NS_PER_S);
	}
	CHECK(client_is_cut(&c));
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

WITH_OPTIONS(a_client_may_be_silent_between_requests_for_days, .stall_timeout_ns = 10 * NS_PER_S)
{
	struct client c = attached(FORM_SIMPLE);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
		fiber_sleep(24 * 3600 * NS_PER_S);
	}
	CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&c);
}

WITH_OPTIONS(a_client_that_does_not_read_is_not_kept_for_ever, .stall_timeout_ns = 10 * NS_PER_S)
{
	struct client c = attached(FORM_SIMPLE);
	for (int i = 0; i < 8; i++) {
		client_request(&c, 0, NBD_CMD_READ, 1, 0, 1 * MiB, NULL, 0);
	}
	fiber_sleep(3600 * NS_PER_S);
	CHECK_EQ(dropped(), 1);
	client_close(&c);
}

static uint32_t peak;

static bool note_peak(void *ctx, const char *name, const struct engine_stats *s)
{
	(void)ctx, (void)name;
	peak = s->in_flight > peak ? s->in_flight : peak;
	return true;
}

static void flood(void *arg)
{
	struct client *c = arg;
	for (uint64_t i = 0; i < 1000; i++)
		client_request(c, 0, NBD_CMD_READ, i, i % 2048 * 4096, 4096, NULL, 0);
}

static void sample_peak(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		engines_stats_walk(frame.engines, note_peak, NULL);
		fiber_sleep(NS_PER_MS / 3);
	}
}

WITH_OPTIONS(requests_beyond_the_limit_wait_in_the_socket, .requests_max = 16)
{
	struct reply r;
	struct client c = attached(FORM_STRUCTURED);
	bool seen[1000] = {0};
	peak = 0;
	pool_double_delay(frame.pool, NS_PER_MS);
	fiber_spawn(frame.rt, "flood", flood, &c);
	fiber_spawn(frame.rt, "sample", sample_peak, NULL);
	for (int i = 0; i < 1000; i++) {
		client_reply(&c, &r, 4096);
		CHECK(r.cookie < 1000 && !seen[r.cookie] && r.error == 0);
		seen[r.cookie] = true;
		free(r.data);
	}
	CHECK(peak > 1 && peak <= 16);
	client_disconnect(&c);
}

WITH_OPTIONS(payload_memory_is_bounded_and_shared, .buffer_budget_bytes = 64 * MiB,
	     .connection_bytes_max = 20 * MiB)
{
	struct client c[4];
	for (size_t i = 0; i < ARRAY_COUNT(c); i++) {
		c[i] = attached(FORM_STRUCTURED);
		for (int k = 0; k < 6; k++) /* 192 MiB asked for, in all */
			client_request(&c[i], NBD_CMD_FLAG_DF, NBD_CMD_READ, 1, 0, 8 * MiB, NULL, 0);
	}
	for (size_t i = 0; i < ARRAY_COUNT(c); i++) {
		for (int k = 0; k < 6; k++) {
			struct reply r;
			client_reply(&c[i], &r, 0);
			CHECK_EQ(r.length, 8 + 8 * MiB);
			free(r.data);
		}
		client_disconnect(&c[i]);
	}
}

WITH_SERVER(disconnect_waits_for_what_was_asked_before)
{
	struct reply r;
	struct client c = attached(FORM_SIMPLE);
	uint8_t *data = pattern(4096, 9), *in = mem_alloc(4096);
	pool_double_delay(frame.pool, NS_PER_S);
	for (uint64_t i = 0; i < 20; i++)
		client_request(&c, 0, NBD_CMD_WRITE, i, i * 4096, 4096, data, 4096);
	client_request(&c, 0, NBD_CMD_DISC, 0, 0, 0, NULL, 0);
	for (uint64_t i = 0; i < 20; i++) {
		client_reply(&c, &r, 0);
		CHECK_EQ(r.error, 0);
		free(r.data);
	}
	CHECK(client_is_cut(&c));
	client_close(&c);
	c = attached(FORM_SIMPLE);
	CHECK_EQ(client_read(&c, 19 * 4096, in, 4096), 0);
	CHECK(memcmp(in, data, 4096) == 0);
	client_disconnect(&c);
	free(data);
	free(in);
}

WITH_SERVER(a_snapshot_is_read_and_never_written)
{
	uint8_t block[4096];
	pool_double_snapshot(frame.pool, &frame.volume, "mon");
	struct client c = client_begin(ADDRESS, "disk@mon", FORM_EXTENDED);
	CHECK_EQ(client_read(&c, 0, block, 4096), 0);
	CHECK_EQ(client_write(&c, 0, 0, block, 4096), NBD_EPERM);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_TRIM, 0, 4096), NBD_EPERM);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_WRITE_ZEROES, 0, 4096), NBD_EPERM);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_CACHE, 0, 4096), 0);
	client_disconnect(&c);
}

WITH_SERVER(holes_are_told_not_sent_unless_the_client_wants_one_piece)
{
	struct reply r;
	struct client c = attached(FORM_STRUCTURED);
	uint8_t *data = pattern(64 * KiB, 5), *in = mem_alloc(256 * KiB);
	CHECK_EQ(client_write(&c, 0, 64 * KiB, data, 64 * KiB), 0);
	CHECK_EQ(client_read(&c, 0, in, 256 * KiB), 0); /* the pieces add up */
	CHECK(bytes_are_zero(in, 64 * KiB) && memcmp(in + 64 * KiB, data, 64 * KiB) == 0);
	const uint16_t types[] = {NBD_REPLY_TYPE_OFFSET_HOLE, NBD_REPLY_TYPE_OFFSET_DATA,
				  NBD_REPLY_TYPE_OFFSET_HOLE};
	client_request(&c, 0, NBD_CMD_READ, 1, 0, 256 * KiB, NULL, 0);
	for (int i = 0; i < 3; i++) {
		client_reply(&c, &r, 0);
		CHECK_EQ(r.type, types[i]);
		CHECK_EQ(r.flags, i == 2 ? NBD_REPLY_FLAG_DONE : 0);
		free(r.data);
	}
	client_request(&c, NBD_CMD_FLAG_DF, NBD_CMD_READ, 1, 0, 256 * KiB, NULL, 0);
	client_reply(&c, &r, 0);
	CHECK_EQ(r.length, 8 + 256 * KiB);
	client_disconnect(&c);
	free(r.data);
	free(data);
	free(in);
}

WITH_SERVER(zeroes_are_fast_or_said_not_to_be)
{
	struct client c = attached(FORM_STRUCTURED);
	const uint16_t fast = NBD_CMD_FLAG_FAST_ZERO, solid = NBD_CMD_FLAG_NO_HOLE;
	CHECK_EQ(client_call(&c, fast, NBD_CMD_WRITE_ZEROES, 0, 1 * MiB), 0);
	CHECK_EQ(client_call(&c, fast | solid, NBD_CMD_WRITE_ZEROES, 0, 1 * MiB), NBD_ENOTSUP);
	CHECK_EQ(client_call(&c, fast, NBD_CMD_WRITE_ZEROES, 512, 1 * MiB), NBD_ENOTSUP);
	CHECK_EQ(client_call(&c, solid | NBD_CMD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 512, 1 * MiB), 0);
	CHECK_EQ(client_call(&c, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, 512, 1 * MiB), 0);
	client_disconnect(&c);
}

WITH_SERVER(what_is_answered_to_a_client_elsewhere_is_durable_and_one_here_asks_for_it)
{
	static const char *const addresses[] = {"tcp:127.0.0.1:10809", "tcp:10.0.0.7:10809", ADDRESS};
	uint8_t block[4096] = {0};
	for (size_t i = 0; i < ARRAY_COUNT(addresses); i++) {
		bool far = i == 1;
		if (i < 2)
			CHECK_OK(nbd_server_listen(t.server, addresses[i], NULL));
		struct client c = client_begin(addresses[i], "disk", FORM_STRUCTURED);
		uint64_t before = pool_double_durable(frame.pool);
		CHECK_EQ(client_write(&c, 0, 0, block, sizeof(block)), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, far);
		CHECK_EQ(client_call(&c, 0, NBD_CMD_WRITE_ZEROES, 0, 4096), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 2 * far);
		CHECK_EQ(client_call(&c, 0, NBD_CMD_TRIM, 0, 4096), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 3 * far);
		CHECK_EQ(client_write(&c, NBD_CMD_FLAG_FUA, 0, block, sizeof(block)), 0);
		CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), 0);
		CHECK_EQ(pool_double_durable(frame.pool) - before, 3 * far + 2);
		client_disconnect(&c);
	}
}

WITH_SERVER(requests_of_no_length_do_nothing_well)
{
	struct client c = attached(FORM_EXTENDED);
	uint8_t nothing;
	CHECK_EQ(client_read(&c, 4096, &nothing, 0), 0);
	CHECK_EQ(client_write(&c, 0, 4096, &nothing, 0), 0);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_TRIM, SIZE, 0), 0);
	CHECK_EQ(client_call(&c, 0, NBD_CMD_CACHE, 0, 0), 0);
	client_disconnect(&c);
}

WITH_SERVER(the_stores_errors_reach_the_client_by_kind)
{
	static const struct {
		int err;
		uint32_t wanted;
	} cases[] = {
		{OXE_IO, NBD_EIO}, {OXE_NOSPC, NBD_ENOSPC}, {OXE_CORRUPT, NBD_EIO}, {OXE_NOMEM, NBD_ENOMEM}};
	uint8_t block[4096] = {0};
	for (int form = FORM_SIMPLE; form <= FORM_EXTENDED; form++) {
		struct client c = attached(form);
		for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
			pool_double_fail(frame.pool, cases[i].err);
			CHECK_EQ(client_write(&c, 0, 0, block, 4096), cases[i].wanted);
			CHECK_EQ(client_read(&c, 0, block, 4096), cases[i].wanted);
			CHECK_EQ(client_call(&c, 0, NBD_CMD_FLUSH, 0, 0), cases[i].wanted);
		}
		pool_double_fail(frame.pool, 0);
		client_disconnect(&c);
	}
}

WITH_SERVER(what_is_served_and_is_lost_ends_the_connection_and_is_no_error)
{
	static const int losses[] = {OXE_FAILED, OXE_SHUTDOWN, OXE_FENCED};
	uint8_t block[4096] = {0};
	for (size_t i = 0; i < ARRAY_COUNT(losses); i++) {
		for (int form = FORM_SIMPLE; form <= FORM_EXTENDED; form++) {
			struct client c = attached(form);
			pool_double_fail(frame.pool, losses[i]);
			client_request(&c, 0, NBD_CMD_WRITE, 1, 0, 4096, block, 4096);
			CHECK(client_is_cut(&c));
			client_close(&c);
			pool_double_fail(frame.pool, 0);
			c = attached(form); /* it is back: sent again, it succeeds */
			CHECK_EQ(client_write(&c, 0, 0, block, 4096), 0);
			client_disconnect(&c);
		}
	}
}

/* ---- the server -------------------------------------------------------------------------------------------------------------- */

WITH_OPTIONS(ten_thousand_connections_are_refused_and_the_first_still_served, .connections_max = 8)
{
	struct nbd_stats s;
	struct client first = attached(FORM_SIMPLE), others[7];
	for (size_t i = 0; i < 7; i++)
		others[i] = greeted();
	for (int i = 0; i < 10000; i++) {
		struct client c = client_connect(ADDRESS);
		CHECK(client_is_cut(&c));
		client_close(&c);
	}
	nbd_server_stats(t.server, &s);
	CHECK_EQ(s.connections, 8);
	CHECK_EQ(s.connections_refused, 10000);
	CHECK_EQ(client_call(&first, 0, NBD_CMD_FLUSH, 0, 0), 0);
	client_disconnect(&first);
	for (size_t i = 0; i < 7; i++)
		client_close(&others[i]);
	fiber_sleep(NS_PER_S);
	first = attached(FORM_SIMPLE);
	client_disconnect(&first);
}

WITH_SERVER(closing_the_server_ends_every_connection)
{
	struct client a = attached(FORM_SIMPLE), b = greeted();
	pool_double_delay(frame.pool, NS_PER_S);
	client_request(&a, 0, NBD_CMD_FLUSH, 1, 0, 0, NULL, 0);
	fiber_sleep(NS_PER_MS);
	nbd_server_close(t.server);
	t.server = NULL;
	CHECK(client_is_cut(&a) && client_is_cut(&b));
	client_close(&a);
	client_close(&b);
}

WITH_SERVER(a_client_that_vanishes_leaves_nothing_behind)
{
	uint8_t *data = pattern(64 * KiB, 1);
	pool_double_delay(frame.pool, NS_PER_S);
	for (int cut = 0; cut < 4; cut++) {
		struct client c = attached(FORM_STRUCTURED);
		for (uint64_t i = 0; i < 10; i++)
			client_request(&c, 0, NBD_CMD_READ, i, 0, 64 * KiB, NULL, 0);
		client_request(&c, 0, NBD_CMD_WRITE, 1, 0, 64 * KiB, data, (size_t)cut * 20 * KiB);
		client_close(&c);
	}
	free(data);
}

WITH_SERVER(connections_to_one_export_share_its_engine)
{
	uint8_t *data = pattern(4096, 4), in[4096];
	struct client a = attached(FORM_SIMPLE), b = attached(FORM_EXTENDED);
	CHECK_EQ(client_write(&a, 0, 0, data, 4096), 0);
	CHECK_EQ(client_read(&b, 0, in, 4096), 0);
	CHECK(memcmp(in, data, 4096) == 0);
	CHECK_ERR(engines_remove_pool(frame.engines, frame.pool), OXE_BUSY);
	client_disconnect(&a);
	client_disconnect(&b);
	free(data);
}

/* ---- pure decoding ------------------------------------------------------------------------------------------------------------ */

TEST(commands_are_checked_against_the_volume_without_overflow)
{
	struct nbd_bounds b = {.size_bytes = SIZE, .lba_bytes = 512, .extended = true};
	struct nbd_command c = {.type = NBD_CMD_TRIM};
	const uint64_t edges[] = {0, 512, SIZE - 512, SIZE, SIZE + 512, (uint64_t)1 << 63, UINT64_MAX - 511};
	for (size_t i = 0; i < ARRAY_COUNT(edges); i++) {
		for (size_t k = 0; k < ARRAY_COUNT(edges); k++) {
			c.offset = edges[i];
			c.length = edges[k];
			bool inside = edges[i] <= SIZE && edges[k] <= SIZE - edges[i];
			CHECK_EQ(nbd_command_check(&c, &b), inside ? 0 : NBD_EINVAL);
		}
	}
}

TEST(a_header_is_decoded_in_both_forms)
{
	struct nbd_request_wire w = {
		be32_of(NBD_REQUEST_MAGIC), be16_of(1), be16_of(2), be64_of(3), be64_of(4), be32_of(5)};
	struct nbd_extended_request_wire x = {be32_of(NBD_EXTENDED_REQUEST_MAGIC),
					      be16_of(1),
					      be16_of(2),
					      be64_of(3),
					      be64_of(4),
					      be64_of(5)};
	struct nbd_command c;
	for (int extended = 0; extended < 2; extended++) {
		CHECK(nbd_command_decode(extended ? (void *)&x : (void *)&w, extended, &c));
		CHECK(c.flags == 1 && c.type == 2 && c.cookie == 3 && c.offset == 4 && c.length == 5);
	}
	CHECK(!nbd_command_decode(&x, false, &c));
}
