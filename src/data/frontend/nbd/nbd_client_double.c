/* nbd_client_double.c: see nbd_client_double.h. */
#include "data/frontend/nbd/nbd_client_double.h"

#include "base/test.h"

#define COOKIE 0x0123456789abcdefull

struct client client_connect(const char *address)
{
	struct client c = {0};
	CHECK_OK(rt_connect(rt_current(), address, UINT64_MAX, &c.conn));
	return c;
}

void client_close(struct client *c)
{
	rt_conn_close(c->conn);
}

void client_send(struct client *c, const void *data, size_t len_bytes)
{
	if (c->send) {
		c->send(c, data, len_bytes);
		return;
	}
	/* The server may have hung up: the test looks at what it says, not at this. */
	int err = rt_send(c->conn, &(struct rt_iovec){(void *)data, len_bytes}, 1);
	(void)err;
}

bool client_recv(struct client *c, void *data, size_t len_bytes)
{
	size_t got;
	if (c->recv)
		return c->recv(c, data, len_bytes);
	for (size_t done = 0; done < len_bytes; done += got)
		if (rt_recv(c->conn, (uint8_t *)data + done, len_bytes - done, &got) || got == 0)
			return false;
	return true;
}

bool client_is_cut(struct client *c)
{
	uint8_t byte;
	return !client_recv(c, &byte, 1);
}

/* ---- handshake ----------------------------------------------------------------------------------------------------------- */

void client_greet(struct client *c, uint32_t flags)
{
	struct nbd_greeting_wire w;
	CHECK(client_recv(c, &w, sizeof(w)));
	CHECK(be64_get(w.init_magic) == NBD_INIT_MAGIC && be64_get(w.opts_magic) == NBD_OPTS_MAGIC);
	CHECK_EQ(be16_get(w.handshake_flags), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	be32 answer = be32_of(flags);
	client_send(c, &answer, sizeof(answer));
}

void client_option(struct client *c, uint32_t option, const void *data, size_t len_bytes)
{
	struct nbd_option_wire w = {be64_of(NBD_OPTS_MAGIC), be32_of(option), be32_of((uint32_t)len_bytes)};
	client_send(c, &w, sizeof(w));
	if (len_bytes)
		client_send(c, data, len_bytes);
}

void client_option_reply(struct client *c, struct option_reply *out)
{
	struct nbd_option_reply_wire w;
	CHECK(client_recv(c, &w, sizeof(w)));
	CHECK(be64_get(w.magic) == NBD_REP_MAGIC);
	out->option = be32_get(w.option);
	out->type = be32_get(w.type);
	out->length = be32_get(w.length);
	CHECK(out->length < sizeof(out->data));
	CHECK(client_recv(c, out->data, out->length));
	out->data[out->length] = 0;
}

uint32_t client_ask(struct client *c, uint32_t option, const void *data, size_t len_bytes)
{
	struct option_reply r;
	client_option(c, option, data, len_bytes);
	client_option_reply(c, &r);
	CHECK_EQ(r.option, option);
	return r.type;
}

static size_t put_string(uint8_t *out, const char *text)
{
	be32 n = be32_of((uint32_t)strlen(text));
	memcpy(out, &n, sizeof(n));
	memcpy(out + sizeof(n), text, strlen(text));
	return sizeof(n) + strlen(text);
}

size_t client_info_data(uint8_t *out, const char *name, const uint16_t *infos, uint16_t info_count)
{
	size_t at = put_string(out, name);
	be16 n = be16_of(info_count);
	memcpy(out + at, &n, sizeof(n));
	at += sizeof(n);
	for (uint16_t i = 0; i < info_count; i++, at += sizeof(n)) {
		n = be16_of(infos[i]);
		memcpy(out + at, &n, sizeof(n));
	}
	return at;
}

size_t client_meta_data(uint8_t *out, const char *name, const char *const *queries, uint32_t query_count)
{
	size_t at = put_string(out, name);
	be32 n = be32_of(query_count);
	memcpy(out + at, &n, sizeof(n));
	at += sizeof(n);
	for (uint32_t i = 0; i < query_count; i++)
		at += put_string(out + at, queries[i]);
	return at;
}

uint32_t client_choose(struct client *c, const char *export_name, const char *context)
{
	uint8_t data[1024];
	struct option_reply r;
	uint32_t id = 0;
	client_option(c, NBD_OPT_SET_META_CONTEXT, data, client_meta_data(data, export_name, &context, 1));
	for (client_option_reply(c, &r); r.type == NBD_REP_META_CONTEXT; client_option_reply(c, &r)) {
		CHECK_STR((char *)r.data + 4, context);
		id = be32_get(*(be32 *)r.data);
	}
	CHECK_EQ(r.type, NBD_REP_ACK);
	return id;
}

void client_go(struct client *c, const char *export_name)
{
	uint8_t data[1024];
	struct option_reply r;
	client_option(c, NBD_OPT_GO, data, client_info_data(data, export_name, NULL, 0));
	do
		client_option_reply(c, &r);
	while (r.type == NBD_REP_INFO);
	CHECK_EQ(r.type, NBD_REP_ACK);
}

struct client client_begin(const char *address, const char *export_name, int form)
{
	struct client c = client_connect(address);
	client_greet(&c, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	c.structured = form >= FORM_STRUCTURED;
	c.extended = form == FORM_EXTENDED;
	if (c.extended)
		CHECK_EQ(client_ask(&c, NBD_OPT_EXTENDED_HEADERS, NULL, 0), NBD_REP_ACK);
	else if (c.structured)
		CHECK_EQ(client_ask(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	if (export_name)
		client_go(&c, export_name);
	return c;
}

/* ---- transmission -------------------------------------------------------------------------------------------------------- */

void client_request(struct client *c, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
		    uint64_t length, const void *payload, size_t payload_bytes)
{
	struct nbd_extended_request_wire w = {
		.magic = be32_of(c->extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC),
		.flags = be16_of(flags),
		.type = be16_of(type),
		.cookie = be64_of(cookie),
		.offset = be64_of(offset),
		.length = be64_of(length),
	};
	if (!c->extended)
		((struct nbd_request_wire *)&w)->length = be32_of((uint32_t)length);
	client_send(c, &w, c->extended ? sizeof(w) : sizeof(struct nbd_request_wire));
	if (payload_bytes)
		client_send(c, payload, payload_bytes);
}

static void take_simple(struct client *c, struct reply *out, size_t read_bytes)
{
	struct nbd_simple_reply_wire w;
	CHECK(client_recv(c, (uint8_t *)&w + 4, sizeof(w) - 4));
	out->error = be32_get(w.error);
	out->cookie = be64_get(w.cookie);
	out->flags = NBD_REPLY_FLAG_DONE;
	out->length = out->error ? 0 : read_bytes;
}

static void take_structured(struct client *c, struct reply *out)
{
	struct nbd_structured_reply_wire w;
	CHECK(client_recv(c, (uint8_t *)&w + 4, sizeof(w) - 4));
	out->flags = be16_get(w.flags);
	out->type = be16_get(w.type);
	out->cookie = be64_get(w.cookie);
	out->length = be32_get(w.length);
}

static void take_extended(struct client *c, struct reply *out)
{
	struct nbd_extended_reply_wire w;
	CHECK(client_recv(c, (uint8_t *)&w + 4, sizeof(w) - 4));
	out->flags = be16_get(w.flags);
	out->type = be16_get(w.type);
	out->cookie = be64_get(w.cookie);
	out->offset = be64_get(w.offset);
	out->length = be64_get(w.length);
}

void client_reply(struct client *c, struct reply *out, size_t read_bytes)
{
	be32 magic;
	*out = (struct reply){0};
	CHECK(client_recv(c, &magic, sizeof(magic)));
	if (be32_get(magic) == NBD_EXTENDED_REPLY_MAGIC && c->extended)
		take_extended(c, out);
	else if (be32_get(magic) == NBD_STRUCTURED_REPLY_MAGIC && c->structured && !c->extended)
		take_structured(c, out);
	else if (be32_get(magic) == NBD_SIMPLE_REPLY_MAGIC && !c->extended)
		take_simple(c, out, c->structured ? 0 : read_bytes);
	else
		test_fail(__FILE__, __LINE__, "a reply with magic %x", be32_get(magic));
	CHECK(out->length <= 64 * MiB);
	out->data = mem_alloc(out->length + 1);
	CHECK(client_recv(c, out->data, out->length));
	if (out->type == NBD_REPLY_TYPE_ERROR)
		out->error = be32_get(*(be32 *)out->data);
}

uint32_t client_call(struct client *c, uint16_t flags, uint16_t type, uint64_t offset, uint64_t length)
{
	struct reply r;
	client_request(c, flags, type, COOKIE, offset, length, NULL, 0);
	client_reply(c, &r, 0);
	CHECK(r.cookie == COOKIE && (r.flags & NBD_REPLY_FLAG_DONE));
	free(r.data);
	return r.error;
}

uint32_t client_write(struct client *c, uint16_t flags, uint64_t offset, const void *data, size_t len_bytes)
{
	struct reply r;
	flags |= c->extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
	client_request(c, flags, NBD_CMD_WRITE, COOKIE, offset, len_bytes, data, len_bytes);
	client_reply(c, &r, 0);
	CHECK(r.cookie == COOKIE);
	free(r.data);
	return r.error;
}

/* Puts a chunk of a READ where it belongs; returns how many bytes it was about. */
static size_t place_chunk(const struct reply *r, uint64_t offset, uint8_t *data, size_t len_bytes)
{
	if (r->type == NBD_REPLY_TYPE_NONE)
		return 0;
	bool is_hole = r->type == NBD_REPLY_TYPE_OFFSET_HOLE;
	const struct nbd_offset_hole_wire *w = (void *)r->data;
	uint64_t at = be64_get(w->offset) - offset;
	size_t n = is_hole ? be32_get(w->hole_size) : r->length - sizeof(struct nbd_offset_data_wire);
	CHECK(is_hole || r->type == NBD_REPLY_TYPE_OFFSET_DATA);
	CHECK(n > 0 && at <= len_bytes && n <= len_bytes - at);
	if (is_hole)
		memset(data + at, 0, n);
	else
		memcpy(data + at, r->data + sizeof(struct nbd_offset_data_wire), n);
	return n;
}

uint32_t client_read(struct client *c, uint64_t offset, void *data, size_t len_bytes)
{
	struct reply r;
	size_t done = 0;
	client_request(c, 0, NBD_CMD_READ, COOKIE, offset, len_bytes, NULL, 0);
	do {
		client_reply(c, &r, len_bytes);
		CHECK(r.cookie == COOKIE && (!c->extended || r.offset == offset));
		if (r.error == 0 && c->structured)
			done += place_chunk(&r, offset, data, len_bytes);
		else if (r.error == 0)
			memcpy(data, r.data, done = len_bytes);
		free(r.data);
	} while (!(r.flags & NBD_REPLY_FLAG_DONE));
	CHECK(r.error || done == len_bytes);
	return r.error;
}

void client_disconnect(struct client *c)
{
	client_request(c, 0, NBD_CMD_DISC, 0, 0, 0, NULL, 0);
	CHECK(client_is_cut(c));
	client_close(c);
}
