/*
 * tls.c: see tls.h.
 *
 *     receive   socket -> `in` -> SSL_read -> the caller
 *     send      the caller -> SSL_write -> `out` -> `outgoing` -> socket
 *
 * What the library wants to say of its own accord while receiving (alerts, key updates) lands in `out` too and leaves with
 * the next send; `out` and `outgoing` are swapped for each send, because the library may add to `out` while the other is
 * still on its way.
 *
 * A server by keys may have to read a disk to find one. So the library is made to return when it has the client's hello: what that
 * offers is looked up outside of it, and then it goes on.
 */
#include "data/tls/tls.h"

#include "data/tls/tls_offer.h"

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

#define IN_BYTES     (64 * KiB)	 /* several records of 16 KiB, with their frames */
#define BATCH_BYTES  (256 * KiB) /* ciphertext that goes out at once */
#define RECORD_BYTES (16 * KiB)	 /* the most plaintext a record holds */
#define OFFER_MAX    (16 * KiB)

struct tls_context {
	SSL_CTX *ctx;
};

struct out_buffer {
	uint8_t *data;
	size_t len_bytes, capacity;
};

struct tls {
	SSL *ssl;
	struct rt_conn *conn;
	uint8_t *in;
	size_t in_start, in_end;
	bool in_ended; /* the peer's orderly end, on the socket */
	struct out_buffer out, outgoing;
	size_t staged_bytes;
	uint8_t stage[RECORD_BYTES];
	/* Of the handshake, by keys. */
	uint8_t *offer; /* the extension, until it was looked through */
	size_t offer_bytes;
	bool was_offered;    /* by the client, anything */
	struct tls_psk *psk; /* NULL: by certificates */
	bool has_key;
};

/* ---- the library's side ---------------------------------------------------------------------------------------------------- */

static int pull(BIO *bio, char *data, int len_bytes)
{
	struct tls *t = BIO_get_data(bio);
	size_t n = u64_min((size_t)len_bytes, t->in_end - t->in_start);
	BIO_clear_retry_flags(bio);
	if (n == 0 && !t->in_ended) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(data, t->in + t->in_start, n);
	t->in_start += n;
	return (int)n;
}

static int push(BIO *bio, const char *data, int len_bytes)
{
	struct out_buffer *out = &((struct tls *)BIO_get_data(bio))->out;
	size_t needed = out->len_bytes + (size_t)len_bytes;
	BIO_clear_retry_flags(bio);
	if (needed > out->capacity) {
		out->capacity = u64_max(needed, 2 * out->capacity);
		out->data = mem_realloc(out->data, out->capacity);
	}
	memcpy(out->data + out->len_bytes, data, (size_t)len_bytes);
	out->len_bytes = needed;
	return len_bytes;
}

static long control(BIO *bio, int what, long number, void *pointer)
{
	const struct tls *t = BIO_get_data(bio);
	(void)number, (void)pointer;
	if (what == BIO_CTRL_EOF)
		return t->in_ended && t->in_start == t->in_end;
	return what == BIO_CTRL_FLUSH;
}

/* One for the life of the process. */
static const BIO_METHOD *buffers_method(void)
{
	static BIO_METHOD *method;
	if (!method) {
		method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "buffers");
		BIO_meth_set_read(method, pull);
		BIO_meth_set_write(method, push);
		BIO_meth_set_ctrl(method, control);
	}
	return method;
}

/* ---- the socket's side ------------------------------------------------------------------------------------------------------ */

static int receive_more(struct tls *t)
{
	if (t->in_start > 0) {
		memmove(t->in, t->in + t->in_start, t->in_end - t->in_start);
		t->in_end -= t->in_start;
		t->in_start = 0;
	}
	size_t got = 0;
	assert(t->in_end < IN_BYTES); /* the library takes all there is before it asks for more */
	int err = rt_recv(t->conn, t->in + t->in_end, IN_BYTES - t->in_end, &got);
	if (err)
		return err;
	t->in_end += got;
	t->in_ended = got == 0;
	return 0;
}

static int send_out(struct tls *t)
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

static bool is_cut_short(int error)
{
	return error == SSL_ERROR_SYSCALL ||
	       ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

int tls_recv(struct tls *t, void *data, size_t len_bytes, size_t *got_bytes)
{
	for (;;) {
		ERR_clear_error();
		int n = SSL_read_ex(t->ssl, data, len_bytes, got_bytes);
		if (n == 1)
			return 0;
		*got_bytes = 0;
		int error = SSL_get_error(t->ssl, n);
		if (error == SSL_ERROR_ZERO_RETURN)
			return 0;
		if (error != SSL_ERROR_WANT_READ)
			return is_cut_short(error) ? OXE_CLOSED : OXE_PROTO;
		int err = receive_more(t);
		if (err)
			return err;
	}
}

static int encrypt_staged(struct tls *t)
{
	size_t written, bytes = t->staged_bytes;
	t->staged_bytes = 0;
	if (bytes == 0)
		return 0;
	ERR_clear_error(); /* `out` takes everything, so it is all or a failure */
	return SSL_write_ex(t->ssl, t->stage, bytes, &written) == 1 && written == bytes ? 0 : OXE_PROTO;
}

static int encrypt_part(struct tls *t, const struct rt_iovec *part)
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
int tls_send(struct tls *t, const struct rt_iovec *parts, size_t part_count)
{
	int err = 0;
	for (size_t i = 0; err == 0 && i < part_count; i++)
		err = encrypt_part(t, &parts[i]);
	if (err == 0)
		err = encrypt_staged(t);
	return err ? err : send_out(t);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

static const char *suite_of(enum tls_hash hash)
{
	return hash == TLS_SHA256 ? "TLS_AES_128_GCM_SHA256" : "TLS_AES_256_GCM_SHA384";
}

/* As the library wants a key: a session that could be resumed. NULL: no memory. */
static SSL_SESSION *session_of(SSL *ssl, const struct tls_psk *psk)
{
	static const uint8_t ids[][2] = {[TLS_SHA256] = {0x13, 0x01}, [TLS_SHA384] = {0x13, 0x02}};
	SSL_SESSION *s = SSL_SESSION_new();
	if (s && SSL_SESSION_set1_master_key(s, psk->key, psk->key_bytes) &&
	    SSL_SESSION_set_cipher(s, SSL_CIPHER_find(ssl, ids[psk->hash])) &&
	    SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION))
		return s;
	SSL_SESSION_free(s);
	return NULL;
}

static int key_for_client(SSL *ssl, const EVP_MD *md, const unsigned char **identity, size_t *identity_bytes,
			  SSL_SESSION **out)
{
	const struct tls *t = SSL_get_app_data(ssl);
	(void)md; /* there is one suite, and its hash is the key's */
	*identity = (const unsigned char *)t->psk->identity;
	*identity_bytes = strlen(t->psk->identity);
	*out = session_of(ssl, t->psk);
	return *out != NULL;
}

static int key_for_server(SSL *ssl, const unsigned char *identity, size_t identity_bytes, SSL_SESSION **out)
{
	const struct tls *t = SSL_get_app_data(ssl);
	bool is_it = t->has_key && strlen(t->psk->identity) == identity_bytes &&
		     memcmp(t->psk->identity, identity, identity_bytes) == 0;
	*out = is_it ? session_of(ssl, t->psk) : NULL;
	return !is_it || *out;
}

/* Called for the hello, and again when the library goes on with it. */
static int hello_came(SSL *ssl, int *alert, void *ctx)
{
	struct tls *t = SSL_get_app_data(ssl);
	const unsigned char *data;
	size_t len_bytes;
	(void)ctx;
	if (t->has_key)
		return SSL_CLIENT_HELLO_SUCCESS;
	if (!t->was_offered && SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &data, &len_bytes) == 1 &&
	    len_bytes <= OFFER_MAX) {
		t->was_offered = true;
		t->offer = mem_alloc(len_bytes);
		t->offer_bytes = len_bytes;
		memcpy(t->offer, data, len_bytes);
		return SSL_CLIENT_HELLO_RETRY;
	}
	*alert = SSL_AD_UNKNOWN_PSK_IDENTITY;
	return SSL_CLIENT_HELLO_ERROR;
}

/* Outside of the library. */
static int look_for_key(struct tls *t, const struct tls_keys *keys)
{
	char identity[TLS_IDENTITY_MAX + 1];
	struct tls_offer offer;
	int err = tls_offer_open(t->offer, t->offer_bytes, &offer);
	while (err == 0 && !t->has_key && tls_offer_next(&offer, identity, TLS_IDENTITY_MAX))
		t->has_key = keys->find(keys->ctx, identity, t->psk);
	free(t->offer);
	t->offer = NULL;
	if (t->has_key && SSL_set_ciphersuites(t->ssl, suite_of(t->psk->hash)) != 1)
		err = OXE_NOMEM;
	return err;
}

/* ---- a session's life --------------------------------------------------------------------------------------------------------- */

static const char *why_failed(const struct tls *t, int error)
{
	unsigned long code = ERR_peek_error();
	const char *text = ERR_reason_error_string(code);
	if (is_cut_short(error) || error == SSL_ERROR_WANT_READ)
		return "it left the TLS handshake";
	if (ERR_GET_REASON(code) == SSL_R_CALLBACK_FAILED)
		return t->was_offered ? "it offered no key that is known here" : "it offered no key";
	if (ERR_GET_REASON(code) == SSL_R_BINDER_DOES_NOT_VERIFY ||
	    ERR_GET_REASON(code) == SSL_R_TLSV1_ALERT_DECRYPT_ERROR)
		return "its key is another";
	return text ? text : "the TLS handshake failed";
}

static int handshake(struct tls *t, const struct tls_keys *keys, const char **because)
{
	for (;;) {
		ERR_clear_error();
		int n = SSL_do_handshake(t->ssl);
		int error = n == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, n);
		*because = why_failed(t, error);
		int err = send_out(t); /* also the alert that says why not */
		if (n == 1 || err)
			return err;
		if (error == SSL_ERROR_WANT_CLIENT_HELLO_CB)
			err = look_for_key(t, keys);
		else if (error == SSL_ERROR_WANT_READ)
			err = t->in_ended ? OXE_CLOSED : receive_more(t);
		else
			err = OXE_PROTO;
		if (err)
			return err;
	}
}

/* NULL: no memory. */
static struct tls *session_new(SSL_CTX *ctx, struct rt_conn *conn)
{
	BIO *bio = BIO_new(buffers_method());
	SSL *ssl = SSL_new(ctx);
	if (!ssl || !bio) {
		BIO_free(bio);
		SSL_free(ssl);
		return NULL;
	}
	struct tls *t = mem_zalloc(sizeof(*t));
	t->ssl = ssl;
	t->conn = conn;
	t->in = mem_alloc(IN_BYTES);
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, t);
	return t;
}

static void key_forget(struct tls *t)
{
	if (t->psk)
		explicit_bzero(t->psk, sizeof(*t->psk));
	free(t->psk);
	t->psk = NULL;
	t->has_key = false;
}

static int session_begin(struct tls *t, const struct tls_keys *keys, struct tls **out, const char **because)
{
	int err = handshake(t, keys, because);
	if (err == 0 && t->psk && !SSL_session_reused(t->ssl)) {
		*because = "the key was not used";
		err = OXE_PROTO;
	}
	key_forget(t);
	if (err)
		tls_free(t);
	else
		*out = t;
	return err;
}

int tls_accept(const struct tls_context *context, struct rt_conn *conn, struct tls **out,
	       const char **because)
{
	struct tls *t = session_new(context->ctx, conn);
	*because = "there is no memory";
	if (!t)
		return OXE_NOMEM;
	SSL_set_accept_state(t->ssl);
	return session_begin(t, NULL, out, because);
}

void tls_bye(struct tls *t)
{
	ERR_clear_error();
	if (SSL_shutdown(t->ssl) >= 0 && send_out(t) != 0)
		return; /* the peer left first */
}

void tls_free(struct tls *t)
{
	key_forget(t);
	SSL_free(t->ssl);
	free(t->offer);
	free(t->out.data);
	free(t->outgoing.data);
	free(t->in);
	explicit_bzero(t, sizeof(*t));
	free(t);
}

/* ---- what sessions have in common ------------------------------------------------------------------------------------------- */

static SSL_CTX *context_make(const SSL_METHOD *method, int least_version)
{
	SSL_CTX *ctx = SSL_CTX_new(method);
	if (!ctx)
		return NULL;
	SSL_CTX_set_min_proto_version(ctx, least_version);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

/* A session of its own; the context goes with it. */
static struct tls *key_session_new(const SSL_METHOD *method, struct rt_conn *conn)
{
	SSL_CTX *ctx = context_make(method, TLS1_3_VERSION);
	struct tls *t = NULL;
	if (ctx)
		SSL_CTX_set_client_hello_cb(ctx, hello_came, NULL);
	if (ctx && SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") == 1)
		t = session_new(ctx, conn);
	if (t)
		t->psk = mem_zalloc(sizeof(*t->psk));
	SSL_CTX_free(ctx);
	return t;
}

int tls_accept_key(const struct tls_keys *keys, struct rt_conn *conn, const void *early, size_t early_bytes,
		   struct tls **out, const char **because)
{
	struct tls *t = key_session_new(TLS_server_method(), conn);
	*because = "there is no memory";
	if (!t)
		return OXE_NOMEM;
	assert(early_bytes <= IN_BYTES);
	memcpy(t->in, early, early_bytes);
	t->in_end = early_bytes;
	SSL_set_psk_find_session_callback(t->ssl, key_for_server);
	SSL_set_accept_state(t->ssl);
	return session_begin(t, keys, out, because);
}

int tls_connect_key(const struct tls_psk *psk, struct rt_conn *conn, struct tls **out, const char **because)
{
	struct tls *t = key_session_new(TLS_client_method(), conn);
	*because = "there is no memory";
	if (!t)
		return OXE_NOMEM;
	*t->psk = *psk;
	if (SSL_set_ciphersuites(t->ssl, suite_of(psk->hash)) != 1) {
		tls_free(t);
		return OXE_NOMEM;
	}
	SSL_set_verify(t->ssl, SSL_VERIFY_PEER,
		       NULL); /* and no certificate verifies: there is no authority */
	SSL_set_psk_use_session_callback(t->ssl, key_for_client);
	SSL_set_connect_state(t->ssl);
	return session_begin(t, NULL, out, because);
}

/* ---- certificates ------------------------------------------------------------------------------------------------------------ */

static const char *last_reason(const char *otherwise)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());
	return text ? text : otherwise;
}

static int load_identity(SSL_CTX *ctx, const struct tls_files *files, const char **because)
{
	*because = "it takes both";
	if (!files->certificate_file || !files->key_file)
		return OXE_INVAL;
	if (SSL_CTX_use_certificate_chain_file(ctx, files->certificate_file) == 1 &&
	    SSL_CTX_use_PrivateKey_file(ctx, files->key_file, SSL_FILETYPE_PEM) == 1 &&
	    SSL_CTX_check_private_key(ctx) == 1)
		return 0;
	*because = last_reason("the files are not usable");
	return OXE_INVAL;
}

static int load_authority(SSL_CTX *ctx, const char *file, const char **because)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(file);
	if (!names || SSL_CTX_load_verify_locations(ctx, file, NULL) != 1) {
		*because = last_reason("no certificate was found in it");
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return OXE_INVAL;
	}
	SSL_CTX_set_client_CA_list(ctx, names);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return 0;
}

int tls_context_new(const struct tls_files *files, struct tls_context **out, const char **what,
		    const char **file, const char **because)
{
	ERR_clear_error();
	SSL_CTX *ctx = context_make(TLS_server_method(),
				    TLS1_2_VERSION); /* the NBD protocol asks for that at least */
	if (!ctx)
		return OXE_NOMEM;
	*what = "certificate and key";
	*file = files->certificate_file ? files->certificate_file : "";
	int err = load_identity(ctx, files, because);
	if (err == 0 && files->client_ca_file) {
		*what = "client CA";
		*file = files->client_ca_file;
		err = load_authority(ctx, files->client_ca_file, because);
	}
	if (err) {
		SSL_CTX_free(ctx);
		return err;
	}
	*out = mem_alloc(sizeof(**out));
	(*out)->ctx = ctx;
	return 0;
}

void tls_context_free(struct tls_context *context)
{
	SSL_CTX_free(context->ctx);
	free(context);
}

/* ---- hashes ------------------------------------------------------------------------------------------------------------------ */

int tls_hmac(enum tls_hash hash, const void *key, size_t key_bytes, const void *data, size_t len_bytes,
	     uint8_t *out)
{
	const EVP_MD *md = hash == TLS_SHA256 ? EVP_sha256() : EVP_sha384();
	return HMAC(md, key, (int)key_bytes, data, len_bytes, out, NULL) ? 0 : OXE_NOMEM;
}
