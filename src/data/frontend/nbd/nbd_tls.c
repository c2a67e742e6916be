/*
 * nbd_tls.c: see nbd_tls.h.
 *
 *     receive   socket -> `in` -> gnutls_record_recv -> the caller
 *     send      the caller -> gnutls_record_send -> `out` -> `outgoing` -> socket
 *
 * What the library wants to say of its own accord while receiving (alerts, key updates) lands in `out` too and leaves with
 * the next send; `out` and `outgoing` are swapped for each send, because the library may add to `out` while the other is
 * still on its way.
 */
#include "data/frontend/nbd/nbd_tls.h"

#include "base/log.h"

#include <gnutls/gnutls.h>

#define IN_BYTES     (64 * KiB)	 /* several records of 16 KiB, with their frames */
#define BATCH_BYTES  (256 * KiB) /* ciphertext that goes out at once */
#define RECORD_BYTES (16 * KiB)	 /* the most plaintext a record holds */

struct nbd_tls_context {
	gnutls_certificate_credentials_t credentials;
	gnutls_priority_t priorities;
	bool want_client_certificate;
};

struct out_buffer {
	uint8_t *data;
	size_t len_bytes, capacity;
};

struct nbd_tls {
	struct link_tls base;
	struct rt_conn *conn;
	gnutls_session_t session;
	uint8_t *in;
	size_t in_start, in_end;
	bool in_ended; /* the peer's orderly end, on the socket */
	struct out_buffer out, outgoing;
	size_t staged_bytes;
	uint8_t stage[RECORD_BYTES];
};

/* ---- the library's side ---------------------------------------------------------------------------------------------------- */

static ssize_t pull(gnutls_transport_ptr_t ctx, void *data, size_t len_bytes)
{
	struct nbd_tls *t = ctx;
	size_t n = u64_min(len_bytes, t->in_end - t->in_start);
	if (n == 0 && !t->in_ended) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	memcpy(data, t->in + t->in_start, n);
	t->in_start += n;
	return (ssize_t)n;
}

static ssize_t push(gnutls_transport_ptr_t ctx, const void *data, size_t len_bytes)
{
	struct out_buffer *out = &((struct nbd_tls *)ctx)->out;
	size_t needed = out->len_bytes + len_bytes;
	if (needed > out->capacity) {
		out->capacity = u64_max(needed, 2 * out->capacity);
		out->data = mem_realloc(out->data, out->capacity);
	}
	memcpy(out->data + out->len_bytes, data, len_bytes);
	out->len_bytes = needed;
	return (ssize_t)len_bytes;
}

/* ---- the socket's side ------------------------------------------------------------------------------------------------------ */

static int receive_more(struct nbd_tls *t)
{
	if (t->in_start > 0) {
		memmove(t->in, t->in + t->in_start, t->in_end - t->in_start);
		t->in_end -= t->in_start;
		t->in_start = 0;
	}
	size_t got = 0;
	assert(t->in_end < IN_BYTES); /* the library takes whole records, and they fit */
	int err = rt_recv(t->conn, t->in + t->in_end, IN_BYTES - t->in_end, &got);
	if (err)
		return err;
	t->in_end += got;
	t->in_ended = got == 0;
	return 0;
}

static int send_out(struct nbd_tls *t)
{
	struct out_buffer swapped = t->outgoing;
	t->outgoing = t->out;
	t->out = swapped;
	t->out.len_bytes = 0;
	if (t->outgoing.len_bytes == 0)
		return 0;
	return rt_send(t->conn, &(struct rt_iovec){t->outgoing.data, t->outgoing.len_bytes}, 1);
}

/* ---- records ---------------------------------------------------------------------------------------------------------------- */

static bool is_passing(ssize_t n)
{
	return n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
}

static struct nbd_tls *tls_of(struct link_tls *base)
{
	return container_of(base, struct nbd_tls, base);
}

static int tls_recv(struct link_tls *base, void *data, size_t len_bytes, size_t *got_bytes)
{
	struct nbd_tls *t = tls_of(base);
	for (;;) {
		ssize_t n = gnutls_record_recv(t->session, data, len_bytes);
		if (n >= 0) {
			*got_bytes = (size_t)n;
			return 0;
		}
		if (!is_passing(n))
			return n == GNUTLS_E_PREMATURE_TERMINATION ? OXE_CLOSED : OXE_PROTO;
		int err = receive_more(t);
		if (err)
			return err;
	}
}

static int encrypt(struct nbd_tls *t, const uint8_t *data, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t n = gnutls_record_send(t->session, data, len_bytes);
		if (n < 0)
			return OXE_PROTO; /* `out` takes everything, so it is never EAGAIN */
		data += n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

static int encrypt_staged(struct nbd_tls *t)
{
	int err = encrypt(t, t->stage, t->staged_bytes);
	t->staged_bytes = 0;
	return err;
}

static int encrypt_part(struct nbd_tls *t, const struct rt_iovec *part)
{
	const uint8_t *data = part->data;
	int err = 0;
	for (size_t at = 0, n; err == 0 && at < part->len_bytes; at += n) {
		n = u64_min(part->len_bytes - at, RECORD_BYTES - t->staged_bytes);
		memcpy(t->stage + t->staged_bytes, data + at, n);
		t->staged_bytes += n;
		if (t->staged_bytes == RECORD_BYTES)
			err = encrypt_staged(t);
		if (err == 0 && t->out.len_bytes >= BATCH_BYTES)
			err = send_out(t);
	}
	return err;
}

/* Parts are staged into whole records: many small replies share one. */
static int tls_send(struct link_tls *base, const struct rt_iovec *parts, size_t part_count)
{
	struct nbd_tls *t = tls_of(base);
	int err = 0;
	for (size_t i = 0; err == 0 && i < part_count; i++)
		err = encrypt_part(t, &parts[i]);
	if (err == 0)
		err = encrypt_staged(t);
	return err ? err : send_out(t);
}

/* ---- a session's life --------------------------------------------------------------------------------------------------------- */

static int handshake(struct nbd_tls *t, int *tls_error)
{
	for (;;) {
		*tls_error = gnutls_handshake(t->session);
		int err = send_out(t); /* also the alert that says why not */
		if (*tls_error == 0 || err)
			return err;
		if (gnutls_error_is_fatal(*tls_error))
			return OXE_PROTO;
		if (is_passing(*tls_error))
			err = t->in_ended ? OXE_CLOSED : receive_more(t);
		if (err)
			return err;
	}
}

static void tls_bye(struct link_tls *base)
{
	struct nbd_tls *t = tls_of(base);
	if (gnutls_bye(t->session, GNUTLS_SHUT_WR) == 0 && send_out(t) != 0)
		return; /* the peer left first */
}

static void tls_free(struct link_tls *base)
{
	struct nbd_tls *t = tls_of(base);
	gnutls_deinit(t->session);
	free(t->out.data);
	free(t->outgoing.data);
	free(t->in);
	free(t);
}

static const struct link_tls_ops tls_ops = {
	.recv = tls_recv,
	.send = tls_send,
	.bye = tls_bye,
	.free = tls_free,
};

static struct nbd_tls *session_new(struct nbd_tls_context *context, struct rt_conn *conn)
{
	struct nbd_tls *t = mem_zalloc(sizeof(*t));
	/* Two fibers share the session, so rekeying is the library's affair only where it is safe: on request of the peer. */
	if (gnutls_init(&t->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL)) {
		free(t);
		return NULL;
	}
	t->base.ops = &tls_ops;
	t->conn = conn;
	t->in = mem_alloc(IN_BYTES);
	gnutls_priority_set(t->session, context->priorities);
	gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, context->credentials);
	gnutls_certificate_server_set_request(
		t->session, context->want_client_certificate ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
	if (context->want_client_certificate)
		gnutls_session_set_verify_cert(t->session, NULL, 0);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_push_function(t->session, push);
	gnutls_handshake_set_timeout(t->session, 0); /* the link has its own deadline */
	return t;
}

int nbd_tls_start(struct nbd_tls_context *context, struct link *link, const char **because)
{
	struct nbd_tls *t = session_new(context, link->conn);
	int tls_error = GNUTLS_E_MEMORY_ERROR;
	int err = t ? handshake(t, &tls_error) : OXE_NOMEM;
	if (err == 0) {
		link->tls = &t->base;
		return 0;
	}
	*because = is_passing(tls_error) ? "it left the TLS handshake" : gnutls_strerror(tls_error);
	if (t)
		tls_free(&t->base);
	return err;
}

/* ---- certificates ------------------------------------------------------------------------------------------------------------ */

static int cannot_use(const char *what, const char *file, int tls_error)
{
	LOG_ERROR("nbd.tls_unusable", "TLS cannot be set up", F_STR("what", what), F_STR("file", file),
		  F_STR("because", gnutls_strerror(tls_error)));
	return OXE_INVAL;
}

static int load_files(struct nbd_tls_context *c, const struct nbd_tls_options *o)
{
	if (!o->certificate_file || !o->key_file)
		return cannot_use("certificate and key", "", GNUTLS_E_INSUFFICIENT_CREDENTIALS);
	int n = gnutls_certificate_set_x509_key_file(c->credentials, o->certificate_file, o->key_file,
						     GNUTLS_X509_FMT_PEM);
	if (n < 0)
		return cannot_use("certificate and key", o->certificate_file, n);
	if (!o->client_ca_file)
		return 0;
	n = gnutls_certificate_set_x509_trust_file(c->credentials, o->client_ca_file, GNUTLS_X509_FMT_PEM);
	if (n <= 0)
		return cannot_use("client CA", o->client_ca_file, n < 0 ? n : GNUTLS_E_NO_CERTIFICATE_FOUND);
	c->want_client_certificate = true;
	return 0;
}

int nbd_tls_context_new(const struct nbd_tls_options *options, struct nbd_tls_context **out)
{
	struct nbd_tls_context *c = mem_zalloc(sizeof(*c));
	const char *bad_at;
	if (gnutls_certificate_allocate_credentials(&c->credentials)) {
		free(c);
		return OXE_NOMEM;
	}
	int err = load_files(c, options);
	/* The protocol document asks for TLS 1.2 at least. */
	int n = err ? 0
		    : gnutls_priority_init(&c->priorities, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2",
					   &bad_at);
	if (n < 0)
		err = cannot_use("priorities", "", n);
	if (err) {
		nbd_tls_context_free(c);
		return err;
	}
	*out = c;
	return 0;
}

void nbd_tls_context_free(struct nbd_tls_context *c)
{
	gnutls_certificate_free_credentials(c->credentials);
	if (c->priorities)
		gnutls_priority_deinit(c->priorities);
	free(c);
}
