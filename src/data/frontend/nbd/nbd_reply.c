/*
 * nbd_reply.c: replies, from an answer to the wire.
 *
 * A completed request joins its connection's queue. The first to do so starts the sender, a fiber that runs after all that
 * are ready now: by then the replies of everything that completed in this turn are in the queue, and go out in one send.
 */
#include "data/frontend/nbd/nbd_conn.h"

#define BATCH_PARTS 128
#define BATCH_BYTES (1 * MiB) /* then send: buffers are returned when their batch is out */

static_assert(NBD_REPLY_PARTS_MAX <= BATCH_PARTS, "any reply fits a batch");

/* ---- requests ------------------------------------------------------------------------------------------------------- */

struct nbd_request *nbd_request_new(struct nbd_conn *c, const struct nbd_command *command)
{
	struct nbd_request *r = list_pop(&c->free_requests, struct nbd_request, link);
	if (!r) {
		r = mem_alloc(sizeof(*r));
		list_init(&r->link);
	}
	r->conn = c;
	r->command = *command;
	r->payload = NULL;
	r->extra = NULL;
	r->parts = r->own_parts;
	r->part_count = 0;
	c->in_flight++;
	group_add(&c->requests, 1);
	return r;
}

static void payload_return(struct nbd_conn *c, struct nbd_request *r)
{
	rt_buf_put(c->server->payloads, r->payload, r->payload_bytes);
	c->in_flight_bytes -= r->payload_bytes;
	c->server->lent_bytes -= r->payload_bytes;
	c->share->lent_bytes -= r->payload_bytes;
	if (!waitq_empty(&c->server->memory))
		waitq_wake_all(&c->server->memory);
}

void nbd_request_free(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;
	if (r->payload)
		payload_return(c, r);
	free(r->extra);
	c->in_flight--;
	list_add_head(&c->free_requests, &r->link);
	if (!waitq_empty(&c->room))
		waitq_wake_all(&c->room);
	group_done(&c->requests);
}

/* ---- the sender ------------------------------------------------------------------------------------------------------ */

struct batch {
	struct list requests;
	struct rt_iovec parts[BATCH_PARTS];
	size_t part_count;
	uint64_t bytes;
};

static bool batch_take(struct batch *b, struct nbd_conn *c)
{
	struct nbd_request *r = list_first(&c->replies, struct nbd_request, link);
	if (list_empty(&c->replies) || b->part_count + r->part_count > BATCH_PARTS || b->bytes >= BATCH_BYTES)
		return false;
	for (size_t i = 0; i < r->part_count; i++) {
		b->parts[b->part_count++] = r->parts[i];
		b->bytes += r->parts[i].len_bytes;
	}
	list_del(&r->link);
	list_add_tail(&b->requests, &r->link);
	return true;
}

static void batch_send(struct batch *b, struct nbd_conn *c)
{
	if (c->is_broken)
		return;
	int err = link_send(&c->link, b->parts, b->part_count);
	if (err) {
		nbd_conn_break(c); /* the receiver ends too */
		if (err == OXE_TIMEOUT)
			nbd_drop(c, "it does not read its replies");
	}
}

static void sender_run(void *arg)
{
	struct nbd_conn *c = arg;
	struct batch b;
	list_init(&b.requests);
	while (!list_empty(&c->replies)) {
		b.part_count = 0;
		b.bytes = 0;
		while (batch_take(&b, c))
			;
		batch_send(&b, c);
		struct nbd_request *r;
		while ((r = list_pop(&b.requests, struct nbd_request, link)))
			nbd_request_free(r);
	}
	c->is_sending = false;
	group_done(&c->requests);
}

static void sender_start(struct nbd_conn *c)
{
	c->is_sending = true;
	group_add(&c->requests, 1);
	if (c->link.tls)
		fiber_spawn_big(c->server->rt, "nbd-send", sender_run, c);
	else
		fiber_spawn(c->server->rt, "nbd-send", sender_run, c);
}

void nbd_reply_parts(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;
	assert(r->part_count > 0 && r->part_count <= NBD_REPLY_PARTS_MAX);
	list_add_tail(&c->replies, &r->link);
	if (!c->is_sending)
		sender_start(c);
}

/* ---- forms ------------------------------------------------------------------------------------------------------------ */

static size_t structured_head(const struct nbd_request *r, uint16_t flags, uint16_t type, uint64_t length,
			      struct nbd_structured_reply_wire *w)
{
	*w = (struct nbd_structured_reply_wire){
		.magic = be32_of(NBD_STRUCTURED_REPLY_MAGIC),
		.flags = be16_of(flags),
		.type = be16_of(type),
		.cookie = be64_of(r->command.cookie),
		.length = be32_of((uint32_t)length),
	};
	return sizeof(*w);
}

static size_t extended_head(const struct nbd_request *r, uint16_t flags, uint16_t type, uint64_t length,
			    struct nbd_extended_reply_wire *w)
{
	*w = (struct nbd_extended_reply_wire){
		.magic = be32_of(NBD_EXTENDED_REPLY_MAGIC),
		.flags = be16_of(flags),
		.type = be16_of(type),
		.cookie = be64_of(r->command.cookie),
		.offset = be64_of(r->command.offset),
		.length = be64_of(length),
	};
	return sizeof(*w);
}

size_t nbd_chunk_head(const struct nbd_request *r, uint16_t flags, uint16_t type, uint64_t length, void *out)
{
	return r->conn->form == NBD_FORM_EXTENDED ? extended_head(r, flags, type, length, out)
						  : structured_head(r, flags, type, length, out);
}

static size_t simple_head(const struct nbd_request *r, uint32_t error, void *out)
{
	struct nbd_simple_reply_wire *w = out;
	*w = (struct nbd_simple_reply_wire){
		.magic = be32_of(NBD_SIMPLE_REPLY_MAGIC),
		.error = be32_of(error),
		.cookie = be64_of(r->command.cookie),
	};
	return sizeof(*w);
}

/* The chunk that carries an error and its sentence, cut to what the head has room for. */
static size_t error_chunk(const struct nbd_request *r, uint32_t error, const char *sentence, uint8_t *out)
{
	size_t room =
		sizeof(r->head) - sizeof(struct nbd_extended_reply_wire) - sizeof(struct nbd_error_wire);
	size_t message_bytes = sentence ? u64_min(strlen(sentence), room) : 0;
	size_t at = nbd_chunk_head(r, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR,
				   sizeof(struct nbd_error_wire) + message_bytes, out);
	struct nbd_error_wire w = {.error = be32_of(error),
				   .message_length = be16_of((uint16_t)message_bytes)};
	memcpy(out + at, &w, sizeof(w));
	at += sizeof(w);
	if (message_bytes > 0)
		memcpy(out + at, sentence, message_bytes);
	return at + message_bytes;
}

static void reply_head(struct nbd_request *r, size_t head_bytes)
{
	r->parts = r->own_parts;
	r->parts[0] = (struct rt_iovec){.data = r->head, .len_bytes = head_bytes};
	r->part_count = 1;
	nbd_reply_parts(r);
}

void nbd_reply_error(struct nbd_request *r, uint32_t error, const char *sentence)
{
	enum nbd_form form = r->conn->form;
	if (form == NBD_FORM_SIMPLE || (form == NBD_FORM_STRUCTURED && error == 0))
		reply_head(r, simple_head(r, error, r->head));
	else if (error == 0)
		reply_head(r, nbd_chunk_head(r, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0, r->head));
	else
		reply_head(r, error_chunk(r, error, sentence, r->head));
}

/* An error would be the end of a file system; a client that loses its connection comes again, and asks again. */
static void end_unanswered(struct nbd_request *r, int err)
{
	nbd_drop(r->conn, err_text(err));
	nbd_conn_break(r->conn);
	nbd_request_free(r);
}

void nbd_reply_done(struct nbd_request *r, int err)
{
	if (engine_is_lost(err)) {
		end_unanswered(r, err);
		return;
	}
	nbd_reply_error(r, nbd_error_of(err), err ? err_text(err) : NULL);
}

void nbd_reply_data(struct nbd_request *r)
{
	size_t head_bytes;
	if (r->conn->form == NBD_FORM_SIMPLE) {
		head_bytes = simple_head(r, 0, r->head);
	} else {
		struct nbd_offset_data_wire w = {.offset = be64_of(r->command.offset)};
		head_bytes = nbd_chunk_head(r, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA,
					    sizeof(w) + r->command.length, r->head);
		memcpy(r->head + head_bytes, &w, sizeof(w));
		head_bytes += sizeof(w);
	}
	r->own_parts[0] = (struct rt_iovec){.data = r->head, .len_bytes = head_bytes};
	r->own_parts[1] = (struct rt_iovec){.data = r->payload, .len_bytes = r->command.length};
	r->parts = r->own_parts;
	r->part_count = 2;
	nbd_reply_parts(r);
}
