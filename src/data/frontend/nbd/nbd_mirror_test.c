/* nbd_mirror_test.c: the NBD server over a mirror whose copies come and go, and which another engine takes over. */
#include "data/engine/mirror_double.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_client_double.h"

#define ADDRESS	    "tcp:10.0.0.1:10809"
#define CLIENTS	    6u
#define BLOCK_BYTES 4096u

static struct nbd_server *server;

static void cut(bool is_cut)
{
	for (unsigned i = 0; i < MIRROR_DOUBLE_POOLS; i++)
		mirrored.is_cut[i] = is_cut;
}

static void serve(void)
{
	CHECK_OK(nbd_server_new(mirrored.engines, NULL, &server));
	CHECK_OK(nbd_server_listen(server, ADDRESS, NULL));
}

static void evict(void)
{
	nbd_server_evict_volume(server, &mirrored.volume);
}

/* ---- a client that comes back ------------------------------------------------------------------------------------------------- */

static struct {
	struct rt_group group;
	bool stop;
	uint32_t written[CLIENTS], reconnects, errors, done;
} load;

/* True once the reply has come; the connection may end before. */
static bool write_once(struct client *c, uint32_t n)
{
	uint8_t block[BLOCK_BYTES];
	struct nbd_simple_reply_wire w;
	memset(block, (int)(load.written[n] + 1), sizeof(block));
	client_request(c, load.written[n] % 3 ? 0 : NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, n, n * 128 * KiB,
		       BLOCK_BYTES, block, sizeof(block));
	if (!client_recv(c, &w, sizeof(w)))
		return false;
	load.errors += be32_get(w.error) != 0;
	return true;
}

static void come(struct client *c)
{
	*c = client_begin(ADDRESS, "disk", FORM_SIMPLE);
}

/* What was not answered is asked again, as a client that can reconnect does. */
static void client_main(void *arg)
{
	uint32_t n = (uint32_t)(uintptr_t)arg;
	struct client c;
	come(&c);
	while (!load.stop) {
		if (write_once(&c, n)) {
			load.written[n]++;
			load.done++;
			fiber_sleep(2 * NS_PER_MS);
			continue;
		}
		client_close(&c);
		load.reconnects++;
		fiber_sleep(2 * NS_PER_S); /* and by then there is an engine again */
		come(&c);
	}
	client_disconnect(&c);
	group_done(&load.group);
}

static void load_begin(void)
{
	memset(&load, 0, sizeof(load));
	group_init(&load.group);
	group_add(&load.group, CLIENTS);
	for (uint32_t n = 0; n < CLIENTS; n++)
		fiber_spawn_big(mirrored.rt, "client", client_main, (void *)(uintptr_t)n);
}

static void load_end(void)
{
	uint8_t block[BLOCK_BYTES];
	load.stop = true;
	group_wait(&load.group);
	CHECK_EQ(load.errors, 0);
	struct client c = client_begin(ADDRESS, "disk", FORM_STRUCTURED);
	for (uint32_t n = 0; n < CLIENTS; n++) {
		CHECK_EQ(client_read(&c, n * 128 * KiB, block, sizeof(block)), 0);
		CHECK_EQ(block[0], (uint8_t)load.written[n]);
	}
	client_disconnect(&c);
}

/* ---- what it sees --------------------------------------------------------------------------------------------------------------- */

WITH_COPIES(clients_are_told_of_a_mirrored_volume_and_its_snapshots_and_of_none_of_its_copies, 3)
{
	static const char *const wanted[] = {"disk", "disk@mon"};
	struct option_reply r;
	struct uuid id = rt_random_uuid(mirrored.rt);
	serve();
	CHECK_OK(mirror_snapshot(mirrored.mirror, &id, "mon", NULL));
	struct client c = client_connect(ADDRESS);
	client_greet(&c, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	client_option(&c, NBD_OPT_LIST, NULL, 0);
	for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
		client_option_reply(&c, &r);
		CHECK_EQ(r.type, NBD_REP_SERVER);
		CHECK_STR((char *)r.data + 4, wanted[i]);
	}
	client_option_reply(&c, &r);
	CHECK_EQ(r.type, NBD_REP_ACK);
	client_close(&c);
	nbd_server_close(server);
}

WITH_COPIES(what_has_changed_since_a_mirrored_volumes_snapshot_is_told_to_clients, 2)
{
	uint8_t block[BLOCK_BYTES] = {1};
	struct uuid id = rt_random_uuid(mirrored.rt);
	struct reply r;
	serve();
	CHECK_OK(mirror_wait(mirrored.mirror, UINT64_MAX / 2));
	CHECK_OK(mirror_snapshot(mirrored.mirror, &id, "mon", NULL));
	struct client c = client_begin(ADDRESS, NULL, FORM_EXTENDED);
	CHECK_EQ(client_choose(&c, "disk", "oxbow:changed-since:mon"), 1);
	client_go(&c, "disk");
	CHECK_EQ(client_write(&c, 0, 64 * KiB, block, sizeof(block)), 0);
	client_request(&c, 0, NBD_CMD_BLOCK_STATUS, 1, 0, MIRROR_DOUBLE_BYTES, NULL, 0);
	client_reply(&c, &r, 0);
	CHECK_EQ(r.error, 0);
	const struct nbd_block_descriptor_ext_wire *x = (void *)(r.data + 8);
	CHECK_EQ(r.length, 8 + 3 * sizeof(*x));
	CHECK_EQ(be64_get(x[0].length), 64 * KiB);
	CHECK_EQ(be64_get(x[1].length), BLOCK_BYTES);
	CHECK_EQ(be64_get(x[1].flags), OXBOW_STATE_CHANGED);
	CHECK_EQ(be64_get(x[2].flags), 0);
	free(r.data);
	client_disconnect(&c);
	nbd_server_close(server);
}

WITH_COPIES(a_copy_lost_under_load_is_a_pause_for_clients, 2)
{
	serve();
	load_begin();
	fiber_sleep(NS_PER_S);
	for (unsigned i = 0; i < 2; i++) {
		mirrored.is_cut[i] = true;
		fiber_sleep(10 * NS_PER_S);
		mirrored.is_cut[i] = false;
		mirror_double_whole();
	}
	load_end();
	CHECK_EQ(load.reconnects, 0);
	CHECK(load.done > 500);
	nbd_server_close(server);
}

WITH_COPIES(all_copies_lost_for_long_under_load_are_a_pause_for_clients, 2)
{
	serve();
	load_begin();
	fiber_sleep(NS_PER_S);
	cut(true);
	fiber_sleep(1000 * NS_PER_S);
	uint32_t done = load.done;
	cut(false);
	fiber_sleep(10 * NS_PER_S);
	CHECK(load.done > done);
	load_end();
	CHECK_EQ(load.reconnects, 0);
	nbd_server_close(server);
}

WITH_COPIES(
	an_engine_fenced_under_load_answers_nothing_wrong_and_the_next_one_serves_all_that_was_acknowledged,
	2)
{
	serve();
	load_begin();
	fiber_sleep(NS_PER_S);
	mirror_double_usurp();
	fiber_sleep(NS_PER_S);
	mirror_double_down(evict);
	mirror_double_up();
	fiber_sleep(20 * NS_PER_S);
	CHECK(load.reconnects >= CLIENTS);
	load_end();
	nbd_server_close(server);
}

static struct client waiting;
static bool has_come;

static void come_and_say(void *arg)
{
	(void)arg;
	come(&waiting);
	has_come = true;
}

WITH_COPIES(an_export_that_does_not_serve_yet_keeps_its_client_waiting, 2)
{
	uint8_t block[BLOCK_BYTES] = {1};
	serve();
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
	has_come = false;
	fiber_spawn_big(mirrored.rt, "client", come_and_say, NULL);
	fiber_sleep(40 * NS_PER_S);
	CHECK(!has_come);
	cut(false);
	while (!has_come)
		fiber_sleep(NS_PER_MS);
	CHECK_EQ(client_write(&waiting, 0, 0, block, sizeof(block)), 0);
	client_disconnect(&waiting);
	nbd_server_close(server);
}

WITH_COPIES(who_comes_while_no_copy_answers_waits_in_the_handshake_and_not_with_requests, 2)
{
	uint8_t block[BLOCK_BYTES] = {1};
	serve();
	struct client first = client_begin(ADDRESS, "disk", FORM_SIMPLE);
	CHECK_EQ(client_write(&first, 0, 0, block, sizeof(block)), 0);
	cut(true);
	fiber_sleep(NS_PER_S); /* until that is noticed */
	has_come = false;
	fiber_spawn_big(mirrored.rt, "client", come_and_say, NULL);
	fiber_sleep(40 * NS_PER_S);
	CHECK(!has_come);
	cut(false);
	while (!has_come)
		fiber_sleep(NS_PER_MS);
	client_disconnect(&waiting);
	client_disconnect(&first);
	nbd_server_close(server);
}

WITH_COPIES(an_export_that_does_not_serve_within_the_handshake_ends_it, 2)
{
	uint8_t data[200];
	struct nbd_stats stats;
	serve();
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
	struct client c = client_connect(ADDRESS);
	client_greet(&c, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	client_option(&c, NBD_OPT_GO, data, client_info_data(data, "disk", NULL, 0));
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	CHECK(client_is_cut(&c));
	CHECK(rt_now_ns(mirrored.rt) - begin_ns > 50 * NS_PER_S);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns < 70 * NS_PER_S);
	client_close(&c);
	nbd_server_stats(server, &stats);
	CHECK_EQ(stats.connections_dropped, 1);
	cut(false);
	nbd_server_close(server);
}

#define READ_BYTES (MiB)

static void ask_much(struct client *c)
{
	for (unsigned i = 0; i < 128; i++)
		client_request(c, 0, NBD_CMD_READ, i, 0, READ_BYTES, NULL, 0);
}

WITH_COPIES(a_volume_that_waits_for_its_copies_does_not_starve_another, 2)
{
	static uint8_t data[READ_BYTES];
	struct volume_spec spec = {
		.name = "other", .id = rt_random_uuid(mirrored.rt), .size_bytes = MIRROR_DOUBLE_BYTES};
	struct nbd_options options = {.buffer_budget_bytes = 64 * MiB};
	struct client clients[12];
	CHECK_OK(nbd_server_new(mirrored.engines, &options, &server));
	CHECK_OK(nbd_server_listen(server, ADDRESS, NULL));
	CHECK_OK(volume_create(mirrored.pools[2], &spec));
	for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
		clients[i] = client_begin(ADDRESS, "disk", FORM_SIMPLE);
	cut(true);
	for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
		ask_much(&clients[i]);
	fiber_sleep(10 * NS_PER_S);
	for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
		client_close(&clients[i]); /* what they asked for waits on */
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	struct client c = client_begin(ADDRESS, "other", FORM_SIMPLE);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(client_write(&c, 0, 0, data, sizeof(data)), 0);
		CHECK_EQ(client_read(&c, 0, data, sizeof(data)), 0);
	}
	CHECK(rt_now_ns(mirrored.rt) - begin_ns < NS_PER_S);
	client_disconnect(&c);
	cut(false);
	fiber_sleep(10 * NS_PER_S);
	nbd_server_close(server);
}

WITH_COPIES(a_server_closes_although_a_client_waits_for_a_mirror_to_serve, 2)
{
	uint8_t data[200];
	serve();
	mirror_double_down(evict);
	cut(true);
	mirror_double_up();
	struct client c = client_connect(ADDRESS);
	client_greet(&c, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	client_option(&c, NBD_OPT_GO, data, client_info_data(data, "disk", NULL, 0));
	fiber_sleep(5 * NS_PER_S);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	nbd_server_close(server);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns <= NS_PER_S);
	client_close(&c);
	cut(false);
}

WITH_COPIES(a_server_closes_although_requests_wait_inside_a_mirror_that_was_stopped, 2)
{
	uint8_t block[BLOCK_BYTES] = {1};
	serve();
	struct client c = client_begin(ADDRESS, "disk", FORM_SIMPLE),
		      gone = client_begin(ADDRESS, "disk", FORM_SIMPLE);
	cut(true);
	for (unsigned i = 0; i < 10; i++) {
		client_request(&c, 0, NBD_CMD_WRITE, i, i * BLOCK_BYTES, BLOCK_BYTES, block, sizeof(block));
		client_request(&gone, 0, NBD_CMD_READ, i, i * BLOCK_BYTES, BLOCK_BYTES, NULL, 0);
	}
	fiber_sleep(30 * NS_PER_S);
	client_close(&gone); /* what it asked for waits on */
	fiber_sleep(30 * NS_PER_S);
	CHECK(engines_is_open(mirrored.engines, &mirrored.volume));
	mirror_stop(mirrored.mirror);
	uint64_t begin_ns = rt_now_ns(mirrored.rt);
	nbd_server_close(server);
	CHECK(rt_now_ns(mirrored.rt) - begin_ns <= NS_PER_S);
	CHECK(client_is_cut(&c));
	client_close(&c);
	CHECK(!engines_is_open(mirrored.engines, &mirrored.volume));
	cut(false);
}
