/*
 * nbd_tls_test.c: TLS with a client of another library (GnuTLS) on the other side, in virtual time, every record cut into pieces.
 *
 * The certificates are made here: an authority, a server it signed, a client it signed, and one a stranger signed.
 */
#include "base/prng.h"
#include "base/test.h"
#include "data/frontend/frame_double.h"
#include "data/frontend/nbd/nbd.h"
#include "data/frontend/nbd/nbd_client_double.h"
#include "data/tls/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define TCP  "tcp:test"
#define UNIX "unix:test"
#define SIZE FRAME_SIZE

/* ---- certificates -------------------------------------------------------------------------------------------------------- */

struct identity {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
};

static struct identity authority, stranger, server_id, friend_id, enemy_id;
static char directory[] = "/tmp/nbd_tls_test.XXXXXX";

static struct identity identity_new(const char *name, const struct identity *issuer)
{
	struct identity id;
	static uint8_t serial;
	serial++;
	CHECK_EQ(gnutls_x509_privkey_init(&id.key), 0);
	CHECK_EQ(gnutls_x509_privkey_generate(id.key, GNUTLS_PK_ECDSA,
					      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
		 0);
	CHECK_EQ(gnutls_x509_crt_init(&id.crt), 0);
	gnutls_x509_crt_set_version(id.crt, 3);
	gnutls_x509_crt_set_serial(id.crt, &serial, sizeof(serial));
	gnutls_x509_crt_set_activation_time(id.crt, time(NULL) - 3600);
	gnutls_x509_crt_set_expiration_time(id.crt, time(NULL) + 3600);
	gnutls_x509_crt_set_dn_by_oid(id.crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name));
	gnutls_x509_crt_set_basic_constraints(id.crt, issuer ? 0 : 1, -1);
	gnutls_x509_crt_set_key(id.crt, id.key);
	const struct identity *by = issuer ? issuer : &id;
	CHECK_EQ(gnutls_x509_crt_sign2(id.crt, by->crt, by->key, GNUTLS_DIG_SHA256, 0), 0);
	return id;
}

static void identity_free(struct identity *id)
{
	gnutls_x509_crt_deinit(id->crt);
	gnutls_x509_privkey_deinit(id->key);
}

static char *path_of(char path[64], const char *name)
{
	snprintf(path, 64, "%s/%s", directory, name);
	return path;
}

static void save(const char *name, gnutls_datum_t *pem)
{
	char path[64];
	FILE *f = fopen(path_of(path, name), "w");
	CHECK(f && fwrite(pem->data, 1, pem->size, f) == pem->size);
	fclose(f);
	gnutls_free(pem->data);
}

static void make_identities(void)
{
	gnutls_datum_t pem;
	CHECK(mkdtemp(directory));
	authority = identity_new("authority", NULL);
	stranger = identity_new("stranger", NULL);
	server_id = identity_new("server", &authority);
	friend_id = identity_new("friend", &authority);
	enemy_id = identity_new("enemy", &stranger);
	CHECK_EQ(gnutls_x509_crt_export2(authority.crt, GNUTLS_X509_FMT_PEM, &pem), 0);
	save("ca.pem", &pem);
	CHECK_EQ(gnutls_x509_crt_export2(server_id.crt, GNUTLS_X509_FMT_PEM, &pem), 0);
	save("server.pem", &pem);
	CHECK_EQ(gnutls_x509_privkey_export2(server_id.key, GNUTLS_X509_FMT_PEM, &pem), 0);
	save("key.pem", &pem);
}

static void remove_identities(void)
{
	static const char *const names[] = {"ca.pem", "server.pem", "key.pem"};
	struct identity *ids[] = {&authority, &stranger, &server_id, &friend_id, &enemy_id};
	char path[64];
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		unlink(path_of(path, names[i]));
	rmdir(directory);
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	for (size_t i = 0; i < ARRAY_COUNT(ids); i++)
		identity_free(ids[i]);
}

/* ---- a client ------------------------------------------------------------------------------------------------------------- */

struct tls_client {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	struct rt_conn *conn;
};

static ssize_t pull(gnutls_transport_ptr_t ctx, void *data, size_t len_bytes)
{
	size_t got;
	return rt_recv(((struct tls_client *)ctx)->conn, data, len_bytes, &got) ? 0 : (ssize_t)got;
}

static ssize_t push(gnutls_transport_ptr_t ctx, const void *data, size_t len_bytes)
{
	struct tls_client *t = ctx;
	if (rt_send(t->conn, &(struct rt_iovec){(void *)data, len_bytes}, 1) == 0)
		return (ssize_t)len_bytes;
	gnutls_transport_set_errno(t->session, EPIPE);
	return -1;
}

static void secured_send(struct client *c, const void *data, size_t len_bytes)
{
	const uint8_t *at = data;
	while (len_bytes > 0) {
		ssize_t n = gnutls_record_send(((struct tls_client *)c->tls)->session, at, len_bytes);
		if (n < 0)
			return; /* hung up */
		at += n;
		len_bytes -= (size_t)n;
	}
}

static bool secured_recv(struct client *c, void *data, size_t len_bytes)
{
	ssize_t n;
	for (size_t done = 0; done < len_bytes; done += (size_t)n) {
		n = gnutls_record_recv(((struct tls_client *)c->tls)->session, (uint8_t *)data + done,
				       len_bytes - done);
		if (n <= 0)
			return false;
	}
	return true;
}

/* The client's half of the handshake; false if it failed. `id` may be NULL: no certificate. */
static bool tls_begin(struct client *c, const struct identity *id)
{
	struct tls_client *t = mem_zalloc(sizeof(*t));
	t->conn = c->conn;
	CHECK_EQ(gnutls_certificate_allocate_credentials(&t->credentials), 0);
	if (id) {
		gnutls_x509_crt_t crt = id->crt;
		CHECK_EQ(gnutls_certificate_set_x509_key(t->credentials, &crt, 1, id->key), 0);
		gnutls_certificate_set_flags(t->credentials, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
	}
	CHECK_EQ(gnutls_init(&t->session, GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT), 0);
	gnutls_set_default_priority(t->session);
	gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->credentials);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_push_function(t->session, push);
	gnutls_handshake_set_timeout(t->session, 0);
	c->tls = t;
	c->send = secured_send;
	c->recv = secured_recv;
	return gnutls_handshake(t->session) == 0;
}

static void tls_end(struct client *c)
{
	struct tls_client *t = c->tls;
	gnutls_deinit(t->session);
	gnutls_certificate_free_credentials(t->credentials);
	free(t);
	client_close(c);
}

static struct client secured(const struct identity *id)
{
	struct client c = client_begin(TCP, NULL, FORM_SIMPLE);
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	CHECK(tls_begin(&c, id));
	return c;
}

/* ---- the server ----------------------------------------------------------------------------------------------------------- */

static struct {
	struct nbd_server *server;
	enum nbd_tls_mode mode;
	bool with_ca;
	void (*body)(void);
} t;

static void body_fiber(void *arg)
{
	char certificate[64], key[64], ca[64];
	struct nbd_options options = {
		.tls = {t.mode, path_of(certificate, "server.pem"), path_of(key, "key.pem"),
			t.with_ca ? path_of(ca, "ca.pem") : NULL},
		.handshake_timeout_ns = 5 * NS_PER_S,
	};
	(void)arg;
	CHECK_OK(nbd_server_new(frame.engines, &options, &t.server));
	CHECK_OK(nbd_server_listen(t.server, TCP, NULL));
	CHECK_OK(nbd_server_listen(t.server, UNIX, NULL));
	t.body();
	nbd_server_close(t.server);
}

static void with_server(enum nbd_tls_mode mode, bool with_ca, void (*body)(void))
{
	t.mode = mode;
	t.with_ca = with_ca;
	t.body = body;
	make_identities();
	frame_run(2, 512, body_fiber);
	remove_identities();
}

#define WITH_SERVER(test_name, mode, with_ca)                                                                \
	static void test_name##_body(void);                                                                  \
	TEST(test_name)                                                                                      \
	{                                                                                                    \
		with_server(mode, with_ca, test_name##_body);                                                \
	}                                                                                                    \
	static void test_name##_body(void)

static uint64_t dropped(void)
{
	struct nbd_stats s;
	nbd_server_stats(t.server, &s);
	return s.connections_dropped;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------- */

WITH_SERVER(what_is_written_through_tls_is_read_through_tls, NBD_TLS_REQUIRED, true)
{
	struct prng rng;
	uint8_t *out = mem_alloc(3 * MiB), *in = mem_alloc(3 * MiB);
	const size_t sizes[] = {512, 4096, 16 * KiB, 16 * KiB + 512, 300 * KiB, 3 * MiB};
	struct client c = secured(&friend_id);
	prng_seed(&rng, 1);
	client_go(&c, "disk");
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		prng_fill(&rng, out, sizes[i]);
		CHECK_EQ(client_write(&c, 0, 512 * i, out, sizes[i]), 0);
		CHECK_EQ(client_read(&c, 512 * i, in, sizes[i]), 0);
		CHECK(memcmp(in, out, sizes[i]) == 0);
	}
	client_request(&c, 0, NBD_CMD_DISC, 0, 0, 0, NULL, 0);
	CHECK(client_is_cut(&c));
	tls_end(&c);
	free(out);
	free(in);
}

WITH_SERVER(many_requests_and_replies_pass_each_other, NBD_TLS_REQUIRED, true)
{
	struct reply r;
	struct client c = secured(&friend_id);
	uint8_t *data = mem_zalloc(8 * KiB);
	bool seen[100] = {0};
	client_go(&c, "disk");
	pool_double_delay(frame.pool, NS_PER_MS);
	for (uint64_t i = 0; i < 100; i++) {
		bool write = i % 2;
		client_request(&c, 0, write ? NBD_CMD_WRITE : NBD_CMD_READ, i, i * 8 * KiB,
			       write ? 8 * KiB : 512, data, write ? 8 * KiB : 0);
		if (i % 7 == 0)
			fiber_sleep(NS_PER_MS);
	}
	for (int i = 0; i < 100; i++) {
		be32 magic, error;
		be64 cookie;
		CHECK(client_recv(&c, &magic, 4) && client_recv(&c, &error, 4) &&
		      client_recv(&c, &cookie, 8));
		r.cookie = be64_get(cookie);
		CHECK(be32_get(magic) == NBD_SIMPLE_REPLY_MAGIC && be32_get(error) == 0);
		CHECK(r.cookie < 100 && !seen[r.cookie]);
		seen[r.cookie] = true;
		CHECK(r.cookie % 2 || client_recv(&c, data, 512));
	}
	tls_end(&c); /* without a word */
	free(data);
}

WITH_SERVER(starttls_forgets_what_was_agreed_in_the_clear, NBD_TLS_OPTIONAL, false)
{
	struct client c = client_begin(UNIX, NULL, FORM_STRUCTURED);
	CHECK_EQ(client_choose(&c, "disk", "base:allocation"), 1);
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	CHECK(tls_begin(&c, NULL));
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_INVALID);
	CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	client_go(&c, "disk");
	CHECK_EQ(client_call(&c, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL);
	tls_end(&c);
}

WITH_SERVER(required_tells_nothing_in_the_clear_except_on_a_unix_socket, NBD_TLS_REQUIRED, true)
{
	uint8_t data[64];
	struct client c = client_begin(TCP, NULL, FORM_SIMPLE);
	CHECK_EQ(client_ask(&c, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_TLS_REQD);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, client_info_data(data, "disk", NULL, 0)),
		 NBD_REP_ERR_TLS_REQD);
	CHECK_EQ(client_ask(&c, NBD_OPT_GO, data, client_info_data(data, "nobody", NULL, 0)),
		 NBD_REP_ERR_TLS_REQD);
	client_option(&c, NBD_OPT_EXPORT_NAME, "disk", 4);
	CHECK(client_is_cut(&c));
	client_close(&c);
	c = client_begin(UNIX, "disk", FORM_SIMPLE);
	client_disconnect(&c);
}

static void expect_turned_away(const struct identity *id)
{
	uint64_t before = dropped();
	struct client c = client_begin(TCP, NULL, FORM_SIMPLE);
	CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	/* Under TLS 1.3 the client is done before the server has looked at its certificate: then the first use fails. */
	if (tls_begin(&c, id)) {
		client_option(&c, NBD_OPT_LIST, NULL, 0);
		CHECK(client_is_cut(&c));
	}
	fiber_sleep(NS_PER_S);
	CHECK_EQ(dropped(), before + 1);
	tls_end(&c);
}

WITH_SERVER(only_a_certificate_of_our_authority_gets_in, NBD_TLS_REQUIRED, true)
{
	expect_turned_away(NULL);
	expect_turned_away(&enemy_id);
	struct client c = secured(&friend_id);
	client_go(&c, "disk");
	tls_end(&c);
}

WITH_SERVER(a_handshake_that_stalls_or_breaks_off_is_ended, NBD_TLS_REQUIRED, true)
{
	for (int silent = 0; silent < 2; silent++) {
		struct client c = client_begin(TCP, NULL, FORM_SIMPLE);
		CHECK_EQ(client_ask(&c, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
		client_send(&c, "\x16\x03\x01\x01\x00", 5); /* a record's head, and no more */
		if (silent)
			CHECK(client_is_cut(&c));
		client_close(&c);
	}
	fiber_sleep(10 * NS_PER_S);
	CHECK_EQ(dropped(), 2);
}

TEST(a_certificate_that_cannot_be_used_is_refused_at_the_start)
{
	struct nbd_server *server;
	struct nbd_options options = {.tls = {NBD_TLS_REQUIRED, "/nowhere/cert", "/nowhere/key", NULL}};
	struct nbd_options nothing = {.tls = {NBD_TLS_OPTIONAL, NULL, NULL, NULL}};
	CHECK_ERR(nbd_server_new(NULL, &options, &server), OXE_INVAL);
	CHECK_ERR(nbd_server_new(NULL, &nothing, &server), OXE_INVAL);
}

/* ---- keys, and who would do without ---------------------------------------------------------------------------------------- */

/* A server that anybody could be: it has a certificate, and takes no notice of the key it is offered. */
static void impostor(void *arg)
{
	char certificate[64], key[64];
	const struct tls_files files = {path_of(certificate, "server.pem"), path_of(key, "key.pem"), NULL};
	const char *what, *file, *because;
	struct tls_context *context;
	struct rt_conn *conn;
	struct tls *tls;
	CHECK_OK(tls_context_new(&files, &context, &what, &file, &because));
	CHECK_OK(rt_accept(arg, &conn));
	if (tls_accept(context, conn, &tls, &because) == 0)
		tls_free(tls);
	rt_conn_close(conn);
	rt_listener_close(arg);
	tls_context_free(context);
}

WITH_SERVER(a_client_with_a_key_takes_no_certificate_for_it, NBD_TLS_REQUIRED, false)
{
	struct tls_psk psk = {.hash = TLS_SHA256, .key_bytes = 32, .identity = "somebody"};
	struct rt_listener *listener;
	struct rt_conn *conn;
	struct tls *tls;
	const char *because;
	CHECK_OK(rt_listen(frame.rt, "tcp:impostor", &listener));
	fiber_spawn_big(frame.rt, "impostor", impostor, listener);
	CHECK_OK(rt_connect(frame.rt, "tcp:impostor", UINT64_MAX, &conn));
	CHECK_ERR(tls_connect_key(&psk, conn, &tls, &because), OXE_PROTO);
	CHECK_STR(because, "certificate verify failed");
	rt_conn_close(conn);
}
