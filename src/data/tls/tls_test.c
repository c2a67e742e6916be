/*
 * tls_test.c: keys both sides have, over connections in virtual time that cut what arrives into pieces; and what a stranger may say
 * in place of a handshake. Certificates are tested where they are used (nbd_tls_test.c).
 */
#include "data/tls/tls.h"

#include "base/prng.h"
#include "base/test.h"
#include "data/engine/engine_testrt.h"
#include "data/tls/tls_offer.h"

#include <stdio.h>

#define ADDRESS "tcp:127.0.0.1:1"
#define LENGTH	(300 * KiB)

static struct {
	struct rt *rt;
	struct rt_listener *listener;
	struct rt_group fibers;
	struct tls_psk known; /* to the server */
	size_t early_bytes;   /* which the server receives before it knows that it is TLS */
	int err;	      /* the server's handshake */
	const char *because;
	char asked[64]; /* the last identity that was looked up */
	void (*body)(void);
} t;

static struct tls_psk key(enum tls_hash hash, const char *identity, uint8_t first)
{
	struct tls_psk k = {.hash = hash, .key_bytes = (uint8_t)tls_hash_bytes(hash), .key = {first, 2, 3}};
	strcpy(k.identity, identity);
	return k;
}

static bool find(void *ctx, const char *identity, struct tls_psk *out)
{
	(void)ctx;
	fiber_sleep(NS_PER_S); /* a disk is slow */
	snprintf(t.asked, sizeof(t.asked), "%.60s", identity);
	*out = t.known;
	return strcmp(identity, t.known.identity) == 0;
}

/* Says back what it hears. */
static void echo(struct tls *tls)
{
	static uint8_t data[40000];
	size_t got;
	while (tls_recv(tls, data, sizeof(data), &got) == 0 && got > 0)
		CHECK_OK(tls_send(tls, (struct rt_iovec[]){{data, got / 2}, {data + got / 2, got - got / 2}},
				  2));
	tls_bye(tls);
}

static void serve(struct rt_conn *conn)
{
	const struct tls_keys keys = {find, NULL};
	uint8_t early[8];
	struct tls *tls;
	size_t got = 0;
	t.err = rt_recv(conn, early, t.early_bytes, &got);
	if (t.err == 0 && got > 0)
		t.err = tls_accept_key(&keys, conn, early, got, &tls, &t.because);
	if (t.err == 0 && got > 0) {
		echo(tls);
		tls_free(tls);
	}
}

static void server_fiber(void *arg)
{
	struct rt_conn *conn;
	(void)arg;
	while (rt_accept(t.listener, &conn) == 0) {
		serve(conn);
		rt_conn_close(conn);
	}
	group_done(&t.fibers);
}

static void body_fiber(void *arg)
{
	(void)arg;
	CHECK_OK(rt_listen(t.rt, ADDRESS, &t.listener));
	group_init(&t.fibers);
	group_add(&t.fibers, 1);
	fiber_spawn_big(t.rt, "server", server_fiber, NULL);
	t.body();
	rt_listener_close(t.listener);
	group_wait(&t.fibers);
}

#define WITH_SERVER(test_name)                                                                               \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		for (uint64_t seed = 1; seed <= 3; seed++) {                                                 \
			t.rt = testrt_new(seed, seed > 1);                                                   \
			t.body = test_name##_body;                                                           \
			t.known = key(TLS_SHA256, "somebody", 1);                                            \
			t.early_bytes = 1;                                                                   \
			t.err = 0;                                                                           \
			t.because = "";                                                                      \
			fiber_spawn_big(t.rt, "test", body_fiber, NULL);                                     \
			testrt_run(t.rt);                                                                    \
			CHECK_EQ(testrt_conns(), 0);                                                         \
			testrt_free(t.rt);                                                                   \
		}                                                                                            \
	}                                                                                                    \
	static void test_name##_body(void)

static struct rt_conn *knock(void)
{
	struct rt_conn *conn;
	CHECK_OK(rt_connect(t.rt, ADDRESS, UINT64_MAX, &conn));
	return conn;
}

static void exchange(struct tls *tls)
{
	uint8_t *sent = mem_alloc(LENGTH), *in = mem_alloc(LENGTH);
	struct prng rng;
	prng_seed(&rng, 7);
	prng_fill(&rng, sent, LENGTH);
	for (size_t at = 0, n; at < LENGTH; at += n) {
		n = u64_min(30000, LENGTH - at);
		CHECK_OK(tls_send(tls, &(struct rt_iovec){sent + at, n}, 1));
		for (size_t done = 0, got; done < n; done += got) {
			CHECK_OK(tls_recv(tls, in + at + done, n - done, &got));
			CHECK(got > 0);
		}
	}
	CHECK(memcmp(sent, in, LENGTH) == 0);
	free(sent);
	free(in);
}

/* The client's side of a handshake that is to go well. */
static void expect_passes(const struct tls_psk *psk)
{
	struct rt_conn *conn = knock();
	const char *because;
	struct tls *tls;
	size_t got;
	CHECK_OK(tls_connect_key(psk, conn, &tls, &because));
	exchange(tls);
	tls_bye(tls);
	CHECK_OK(tls_recv(tls, &(char){0}, 1, &got));
	CHECK_EQ(got, 0);
	tls_free(tls);
	rt_conn_close(conn);
	CHECK_OK(t.err);
}

static void expect_refused(const struct tls_psk *psk, const char *because_server, const char *because_client)
{
	struct rt_conn *conn = knock();
	const char *because;
	struct tls *tls;
	CHECK_ERR(tls_connect_key(psk, conn, &tls, &because), OXE_PROTO);
	CHECK_STR(because, because_client);
	rt_conn_close(conn);
	fiber_sleep(NS_PER_S);
	CHECK_ERR(t.err, OXE_PROTO);
	CHECK_STR(t.because, because_server);
}

WITH_SERVER(who_has_the_key_talks_with_either_hash)
{
	expect_passes(&t.known);
	t.known = key(TLS_SHA384, "somebody else", 9);
	expect_passes(&t.known);
}

WITH_SERVER(a_name_may_be_as_long_as_two_of_nvme_and_a_digest)
{
	memset(t.known.identity, 'x', TLS_IDENTITY_MAX);
	expect_passes(&t.known);
}

WITH_SERVER(another_key_under_a_known_name_is_refused)
{
	struct tls_psk other = key(TLS_SHA256, "somebody", 77);
	expect_refused(&other, "its key is another", "sslv3 alert illegal parameter");
}

WITH_SERVER(an_unknown_name_is_refused)
{
	struct tls_psk other = key(TLS_SHA256, "nobody", 1);
	expect_refused(&other, "it offered no key that is known here", "tlsv1 alert unknown psk identity");
	CHECK_STR(t.asked, "nobody");
}

WITH_SERVER(a_key_of_the_other_hash_is_refused)
{
	struct tls_psk other = key(TLS_SHA384, "somebody", 1);
	expect_refused(&other, "no shared cipher", "sslv3 alert handshake failure");
}

/* A hello of a client that has no key, cut short at any byte: it is refused, and the server is there for the next. */
WITH_SERVER(a_client_that_leaves_in_the_middle_of_the_handshake_is_no_harm)
{
	uint8_t hello[600];
	struct rt_conn *pair = knock();
	rt_conn_close(pair);
	for (size_t bytes = 1; bytes < sizeof(hello); bytes += 37) {
		struct rt_conn *conn = knock();
		memset(hello, 0, sizeof(hello));
		memcpy(hello, (uint8_t[]){22, 3, 1, 2, 0x40, 1, 0, 2, 0x3c, 3, 3}, 11);
		CHECK_OK(rt_send(conn, &(struct rt_iovec){hello, bytes}, 1));
		rt_conn_close(conn);
		fiber_sleep(NS_PER_S);
		CHECK(t.err == OXE_CLOSED || t.err == OXE_PROTO);
	}
	expect_passes(&t.known);
}

WITH_SERVER(what_is_no_tls_is_refused)
{
	static uint8_t plain[128];
	size_t got;
	struct rt_conn *conn = knock();
	CHECK_OK(rt_send(conn, &(struct rt_iovec){plain, sizeof(plain)}, 1));
	while (rt_recv(conn, plain, sizeof(plain), &got) == 0 && got > 0)
		; /* an alert */
	rt_conn_close(conn);
	CHECK_ERR(t.err, OXE_PROTO);
	CHECK_STR(t.because, "wrong version number");
}

/* ---- what is offered ---------------------------------------------------------------------------------------------------------- */

TEST(offered_names_come_one_after_another_and_what_is_no_name_is_passed_over)
{
	static const uint8_t offer[] = {0,   34,  0,   3,   'o', 'n', 'e', 0, 0, 0, 0, 0, 2,
					'n', 0,	  9,   9,   9,	 9,   0,   0, 0, 0, 0, 0, 0,
					5,   't', 'w', 'o', '.', '.', 1,   2, 3, 4, 99};
	struct tls_offer in;
	char name[8];
	CHECK_OK(tls_offer_open(offer, sizeof(offer), &in));
	CHECK(tls_offer_next(&in, name, 7));
	CHECK_STR(name, "one");
	CHECK(tls_offer_next(&in, name, 7));
	CHECK_STR(name, "two..");
	CHECK(!tls_offer_next(&in, name, 7));
	CHECK_OK(tls_offer_open(offer, sizeof(offer), &in));
	CHECK(tls_offer_next(&in, name, 3));
	CHECK(!tls_offer_next(&in, name, 3));
}

TEST(an_offer_that_is_cut_short_or_empty_is_none)
{
	static const uint8_t offer[] = {0, 9, 0, 3, 'o', 'n', 'e', 0, 0, 0, 0};
	struct tls_offer in;
	for (size_t n = 0; n < sizeof(offer); n++)
		CHECK_ERR(tls_offer_open(offer, n, &in), OXE_PROTO);
	CHECK_OK(tls_offer_open(offer, sizeof(offer), &in));
	for (uint8_t n = 0; n < 9; n++) {
		uint8_t shorter[sizeof(offer)];
		memcpy(shorter, offer, sizeof(offer));
		shorter[1] = n;
		CHECK_ERR(tls_offer_open(shorter, sizeof(shorter), &in), OXE_PROTO);
	}
}

/* RFC 4231, test case 2. */
TEST(an_hmac_is_what_others_make_it)
{
	static const uint8_t wanted[] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e};
	static const uint8_t wanted_384[] = {0xaf, 0x45, 0xd2, 0xe3, 0x76, 0x48, 0x40, 0x31};
	const char *data = "what do ya want for nothing?";
	uint8_t out[TLS_KEY_MAX];
	CHECK_OK(tls_hmac(TLS_SHA256, "Jefe", 4, data, strlen(data), out));
	CHECK(memcmp(out, wanted, sizeof(wanted)) == 0);
	CHECK_OK(tls_hmac(TLS_SHA384, "Jefe", 4, data, strlen(data), out));
	CHECK(memcmp(out, wanted_384, sizeof(wanted_384)) == 0);
}
