/*
 * nbd_handshake.c: the options a client may send, until it has an export or gives up.
 *
 *     greeting -> client flags -> { option -> replies }* -> GO or EXPORT_NAME -> transmission
 *
 * One option at a time, whole in the link's buffer, so its data is decoded in place. Under required TLS nothing is told
 * before STARTTLS. STARTTLS forgets what was agreed in the clear.
 */
#include "data/frontend/nbd/nbd_conn.h"

#include "data/frontend/nbd/nbd_tls.h"

#include <stdio.h>

#define OPTION_SKIP_MAX	 (1 * MiB)
#define LIST_BATCH_BYTES (64 * KiB)
#define SERVER_REPLY_MAX (sizeof(struct nbd_option_reply_wire) + sizeof(be32) + ENGINE_EXPORT_NAME_MAX)
#define PREFERRED_BYTES	 4096u
#define DESCRIPTION_MAX	 200
#define WAIT_STEP_NS	 (NS_PER_S / 2) /* how late the end of the server is noticed by who waits for a mirror */

/* What handling an option leads to. */
enum next { NEXT_OPTION, NEXT_TRANSMISSION, NEXT_END };

/* ---- decoding ----------------------------------------------------------------------------------------------------------- */

bool nbd_cursor_u16(struct nbd_cursor *in, uint16_t *out)
{
	if (in->end - in->at < (ptrdiff_t)sizeof(be16))
		return false;
	*out = be16_get(*(const be16 *)in->at);
	in->at += sizeof(be16);
	return true;
}

bool nbd_cursor_u32(struct nbd_cursor *in, uint32_t *out)
{
	if (in->end - in->at < (ptrdiff_t)sizeof(be32))
		return false;
	*out = be32_get(*(const be32 *)in->at);
	in->at += sizeof(be32);
	return true;
}

bool nbd_cursor_string(struct nbd_cursor *in, const char **text, size_t *len_bytes)
{
	uint32_t claimed;
	if (!nbd_cursor_u32(in, &claimed) || claimed > (size_t)(in->end - in->at))
		return false;
	*text = (const char *)in->at;
	*len_bytes = claimed;
	in->at += claimed;
	return true;
}

/* No export of ours has such a name, so it will be found unknown, in the words for that. */
static void copy_name(char name[ENGINE_EXPORT_NAME_MAX + 1], const char *text, size_t len_bytes)
{
	if (len_bytes > ENGINE_EXPORT_NAME_MAX || (len_bytes > 0 && memchr(text, '\0', len_bytes))) {
		strcpy(name, "?");
		return;
	}
	if (len_bytes > 0)
		memcpy(name, text, len_bytes);
	name[len_bytes] = '\0';
}

bool nbd_cursor_name(struct nbd_cursor *in, char name[ENGINE_EXPORT_NAME_MAX + 1])
{
	const char *text;
	size_t len_bytes;
	if (!nbd_cursor_string(in, &text, &len_bytes))
		return false;
	copy_name(name, text, len_bytes);
	return true;
}

/* ---- replies ------------------------------------------------------------------------------------------------------------ */

int nbd_option_reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data, size_t len_bytes)
{
	struct nbd_option_reply_wire w = {
		.magic = be64_of(NBD_REP_MAGIC),
		.option = be32_of(option),
		.type = be32_of(type),
		.length = be32_of((uint32_t)len_bytes),
	};
	const struct rt_iovec parts[] = {{&w, sizeof(w)}, {(void *)data, len_bytes}};
	return link_send(&c->link, parts, len_bytes > 0 ? 2 : 1);
}

int nbd_option_refuse(struct nbd_conn *c, uint32_t option, uint32_t type, const char *sentence)
{
	return nbd_option_reply(c, option, type, sentence, strlen(sentence));
}

/* After a reply: the next option, or the end of a connection that cannot be replied to. */
static enum next next_after(int err)
{
	return err ? NEXT_END : NEXT_OPTION;
}

static enum next refuse(struct nbd_conn *c, uint32_t option, uint32_t type, const char *sentence)
{
	return next_after(nbd_option_refuse(c, option, type, sentence));
}

static enum next acknowledge(struct nbd_conn *c, uint32_t option)
{
	return next_after(nbd_option_reply(c, option, NBD_REP_ACK, NULL, 0));
}

static enum next drop(struct nbd_conn *c, const char *because)
{
	nbd_drop(c, because);
	return NEXT_END;
}

/* ---- exports ------------------------------------------------------------------------------------------------------------ */

struct only_volume {
	char name[ENGINE_EXPORT_NAME_MAX + 1];
	size_t count;
};

static bool count_volume(void *ctx, const struct engine_export *e)
{
	struct only_volume *only = ctx;
	if (!strchr(e->name, '@') && only->count++ == 0)
		snprintf(only->name, sizeof(only->name), "%s", e->name);
	return only->count < 2;
}

static int open_named(struct nbd_conn *c, const char *name, struct engine **out)
{
	if (name[0])
		return engine_open(c->server->engines, name, out);
	struct only_volume only = {.count = 0};
	engines_walk(c->server->engines, count_volume, &only);
	return only.count == 1 ? engine_open(c->server->engines, only.name, out) : OXE_NOENT;
}

static bool may_wait(const struct nbd_conn *c)
{
	return !c->is_broken && rt_now_ns(c->server->rt) < c->link.overall_deadline_ns;
}

static int open_once(struct nbd_conn *c, const char *name, struct engine **out)
{
	int err = open_named(c, name, out);
	if (err == OXE_NOTREADY)
		fiber_sleep(WAIT_STEP_NS);
	if (err)
		return err;
	do
		err = engine_wait(
			*out, u64_min(c->link.overall_deadline_ns, rt_now_ns(c->server->rt) + WAIT_STEP_NS));
	while (err == OXE_TIMEOUT && may_wait(c));
	if (err)
		engine_close(*out);
	return err;
}

/* Most clients take a refusal for final, and none minds a server that takes its time. */
int nbd_export_open(struct nbd_conn *c, const char *name, struct engine **out)
{
	int err;
	do
		err = open_once(c, name, out);
	while (err == OXE_NOTREADY && may_wait(c));
	if (err == OXE_TIMEOUT || err == OXE_NOTREADY)
		nbd_drop(c, "no copy of its volume answered in time");
	return err;
}

static uint16_t transmission_flags(const struct nbd_conn *c, const struct engine *e)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
	if (engine_info(e)->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if (c->form >= NBD_FORM_STRUCTURED)
		flags |= NBD_FLAG_SEND_DF;
	if (c->form == NBD_FORM_EXTENDED)
		flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
	return flags;
}

/* The export is agreed upon: contexts chosen for another one are void. */
static enum next begin(struct nbd_conn *c, struct engine *e)
{
	nbd_conn_attach(c, e);
	if (strcmp(c->contexts_of, engine_name(e)) != 0)
		c->context_count = 0;
	return NEXT_TRANSMISSION;
}

/* ---- EXPORT_NAME, ABORT --------------------------------------------------------------------------------------------------- */

/* The old way in: no way to say no but hanging up. */
static enum next option_export_name(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	(void)option;
	char name[ENGINE_EXPORT_NAME_MAX + 1];
	struct engine *e;
	copy_name(name, (const char *)in.at, (size_t)(in.end - in.at));
	if (nbd_export_open(c, name, &e))
		return drop(c, "it asked for an export that does not exist");
	static const uint8_t zeroes[NBD_OPT_ZEROES];
	struct nbd_export_name_reply_wire w = {
		.size = be64_of(engine_info(e)->size_bytes),
		.flags = be16_of(transmission_flags(c, e)),
	};
	const struct rt_iovec parts[] = {{&w, sizeof(w)}, {(void *)zeroes, sizeof(zeroes)}};
	if (link_send(&c->link, parts, c->no_zeroes ? 1 : 2)) {
		engine_close(e);
		return NEXT_END;
	}
	return begin(c, e);
}

static enum next option_abort(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	(void)in;
	(void)acknowledge(c, option); /* the client may be gone already, and need not read it */
	return NEXT_END;
}

/* ---- LIST ----------------------------------------------------------------------------------------------------------------- */

/* Replies, ready to send. */
struct list_batch {
	size_t skip, count, len_bytes;
	uint8_t bytes[LIST_BATCH_BYTES];
};

static size_t put_server_reply(uint8_t *out, const char *name)
{
	size_t name_bytes = strlen(name);
	struct nbd_option_reply_wire w = {
		.magic = be64_of(NBD_REP_MAGIC),
		.option = be32_of(NBD_OPT_LIST),
		.type = be32_of(NBD_REP_SERVER),
		.length = be32_of((uint32_t)(sizeof(be32) + name_bytes)),
	};
	be32 name_length = be32_of((uint32_t)name_bytes);
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), &name_length, sizeof(name_length));
	memcpy(out + sizeof(w) + sizeof(name_length), name, name_bytes);
	return sizeof(w) + sizeof(name_length) + name_bytes;
}

static bool batch_export(void *ctx, const struct engine_export *e)
{
	struct list_batch *b = ctx;
	if (b->skip > 0) {
		b->skip--;
		return true;
	}
	b->len_bytes += put_server_reply(b->bytes + b->len_bytes, e->name);
	b->count++;
	return b->len_bytes + SERVER_REPLY_MAX <= sizeof(b->bytes);
}

/* By batches, because the walk must not suspend and nobody's reading pace may cost us memory. An export that comes or goes
 * meanwhile may be missed or named twice, as with any list that is read while it changes. */
static int send_exports(struct nbd_conn *c)
{
	struct list_batch *b = mem_alloc(sizeof(*b));
	size_t seen = 0;
	int err = 0;
	do {
		b->skip = seen;
		b->count = b->len_bytes = 0;
		engines_walk(c->server->engines, batch_export, b);
		seen += b->count;
		if (b->len_bytes > 0)
			err = link_send(&c->link, &(struct rt_iovec){b->bytes, b->len_bytes}, 1);
	} while (err == 0 && b->count > 0);
	free(b);
	return err;
}

static enum next option_list(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	if (in.at != in.end)
		return refuse(c, option, NBD_REP_ERR_INVALID, "LIST takes no data");
	return send_exports(c) ? NEXT_END : acknowledge(c, option);
}

/* ---- INFO and GO ------------------------------------------------------------------------------------------------------------ */

/* Bits of the optional information a client asked for. */
enum { WANT_NAME = 1 << NBD_INFO_NAME, WANT_DESCRIPTION = 1 << NBD_INFO_DESCRIPTION };

static bool decode_wants(struct nbd_cursor *in, unsigned *wants)
{
	uint16_t count, type;
	*wants = 0;
	if (!nbd_cursor_u16(in, &count))
		return false;
	while (count-- > 0) {
		if (!nbd_cursor_u16(in, &type))
			return false;
		if (type <= NBD_INFO_BLOCK_SIZE)
			*wants |= 1u << type;
	}
	return in->at == in->end;
}

static int send_info_text(struct nbd_conn *c, uint32_t option, uint16_t type, const char *text)
{
	char data[sizeof(be16) + DESCRIPTION_MAX];
	size_t len_bytes = u64_min(strlen(text), DESCRIPTION_MAX);
	*(be16 *)data = be16_of(type);
	memcpy(data + sizeof(be16), text, len_bytes);
	return nbd_option_reply(c, option, NBD_REP_INFO, data, sizeof(be16) + len_bytes);
}

static int send_info_export(struct nbd_conn *c, uint32_t option, const struct engine *e)
{
	struct nbd_info_export_wire w = {
		.type = be16_of(NBD_INFO_EXPORT),
		.size = be64_of(engine_info(e)->size_bytes),
		.flags = be16_of(transmission_flags(c, e)),
	};
	return nbd_option_reply(c, option, NBD_REP_INFO, &w, sizeof(w));
}

static int send_info_block_size(struct nbd_conn *c, uint32_t option, const struct engine *e)
{
	struct nbd_info_block_size_wire w = {
		.type = be16_of(NBD_INFO_BLOCK_SIZE),
		.minimum = be32_of(engine_info(e)->lba_bytes),
		.preferred = be32_of(PREFERRED_BYTES),
		.maximum = be32_of(NBD_PAYLOAD_MAX),
	};
	return nbd_option_reply(c, option, NBD_REP_INFO, &w, sizeof(w));
}

static int send_description(struct nbd_conn *c, uint32_t option, const struct engine *e)
{
	const char *name = engine_name(e), *snapshot = strchr(name, '@');
	char text[DESCRIPTION_MAX + 1];
	if (snapshot)
		snprintf(text, sizeof(text), "Oxbow snapshot %s of %.*s", snapshot + 1,
			 (int)(snapshot - name), name);
	else
		snprintf(text, sizeof(text), "Oxbow volume %s", name);
	return send_info_text(c, option, NBD_INFO_DESCRIPTION, text);
}

static enum next inform(struct nbd_conn *c, uint32_t option, struct engine *e, unsigned wants)
{
	int err = send_info_export(c, option, e);
	if (err == 0)
		err = send_info_block_size(c, option, e);
	if (err == 0 && (wants & WANT_NAME))
		err = send_info_text(c, option, NBD_INFO_NAME, engine_name(e));
	if (err == 0 && (wants & WANT_DESCRIPTION))
		err = send_description(c, option, e);
	return err ? NEXT_END : acknowledge(c, option);
}

static enum next option_info_or_go(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	char name[ENGINE_EXPORT_NAME_MAX + 1];
	unsigned wants;
	struct engine *e;
	if (!nbd_cursor_name(&in, name) || !decode_wants(&in, &wants))
		return refuse(c, option, NBD_REP_ERR_INVALID, "malformed");
	int err = nbd_export_open(c, name, &e);
	if (err)
		return refuse(c, option, NBD_REP_ERR_UNKNOWN,
			      name[0] ? err_text(err) : "there is not exactly one volume: say which");
	enum next next = inform(c, option, e, wants);
	if (option == NBD_OPT_GO && next == NEXT_OPTION)
		return begin(c, e);
	engine_close(e);
	return next;
}

/* ---- STRUCTURED_REPLY, EXTENDED_HEADERS, contexts ------------------------------------------------------------------------------ */

static enum next option_structured_reply(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	if (c->form == NBD_FORM_EXTENDED)
		return refuse(c, option, NBD_REP_ERR_EXT_HEADER_REQD,
			      "extended headers are agreed upon already");
	if (in.at != in.end || c->form != NBD_FORM_SIMPLE)
		return refuse(c, option, NBD_REP_ERR_INVALID, "it takes no data, and is sent once");
	c->form = NBD_FORM_STRUCTURED;
	return acknowledge(c, option);
}

static enum next option_extended_headers(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	if (in.at != in.end || c->form == NBD_FORM_EXTENDED)
		return refuse(c, option, NBD_REP_ERR_INVALID, "it takes no data, and is sent once");
	c->form = NBD_FORM_EXTENDED;
	return acknowledge(c, option);
}

static enum next option_meta(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	return next_after(nbd_option_meta(c, option, in));
}

/* ---- STARTTLS ------------------------------------------------------------------------------------------------------------------ */

static void forget_agreements(struct nbd_conn *c)
{
	c->form = NBD_FORM_SIMPLE;
	c->context_count = 0;
	c->contexts_of[0] = '\0';
}

static enum next option_starttls(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	if (in.at != in.end || c->link.tls)
		return refuse(c, option, NBD_REP_ERR_INVALID, "it takes no data, and is sent once");
	if (!c->server->tls)
		return refuse(c, option, NBD_REP_ERR_POLICY, "this server has no certificate");
	/* What was sent ahead in the clear must not pass for something said under TLS. */
	link_take(&c->link, sizeof(struct nbd_option_wire));
	if (link_buffered(&c->link) > 0)
		return drop(c, "bytes in the clear after STARTTLS");
	if (nbd_option_reply(c, option, NBD_REP_ACK, NULL, 0))
		return NEXT_END;
	const char *because;
	if (nbd_tls_start(c->server->tls, &c->link, &because))
		return drop(c, because);
	forget_agreements(c);
	return NEXT_OPTION;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------------ */

static enum next (*const option_handlers[])(struct nbd_conn *c, uint32_t option, struct nbd_cursor in) = {
	[NBD_OPT_EXPORT_NAME] = option_export_name,
	[NBD_OPT_ABORT] = option_abort,
	[NBD_OPT_LIST] = option_list,
	[NBD_OPT_STARTTLS] = option_starttls,
	[NBD_OPT_INFO] = option_info_or_go,
	[NBD_OPT_GO] = option_info_or_go,
	[NBD_OPT_STRUCTURED_REPLY] = option_structured_reply,
	[NBD_OPT_LIST_META_CONTEXT] = option_meta,
	[NBD_OPT_SET_META_CONTEXT] = option_meta,
	[NBD_OPT_EXTENDED_HEADERS] = option_extended_headers,
};

/* The whole option is in the buffer. */
static enum next handle_option(struct nbd_conn *c, uint32_t option, uint32_t length)
{
	const uint8_t *data = link_bytes(&c->link) + sizeof(struct nbd_option_wire);
	bool is_plain = !c->link.tls;
	if (c->tls_required && is_plain && option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT) {
		if (option == NBD_OPT_EXPORT_NAME)
			return drop(c, "it asked for an export without TLS");
		return refuse(c, option, NBD_REP_ERR_TLS_REQD, "TLS comes first");
	}
	if (option >= ARRAY_COUNT(option_handlers) || !option_handlers[option])
		return refuse(c, option, NBD_REP_ERR_UNSUP, "unknown option");
	return option_handlers[option](c, option, (struct nbd_cursor){data, data + length});
}

/* Nothing of ours needs so much; what is not absurd is skipped and refused. */
static enum next refuse_oversized(struct nbd_conn *c, uint32_t option, uint32_t length)
{
	if (length > OPTION_SKIP_MAX || option == NBD_OPT_EXPORT_NAME)
		return drop(c, "an oversized option");
	link_take(&c->link, sizeof(struct nbd_option_wire));
	if (link_skip(&c->link, length))
		return NEXT_END;
	return refuse(c, option, NBD_REP_ERR_TOO_BIG, "more data than any option of this server takes");
}

static enum next receive_option(struct nbd_conn *c)
{
	if (link_fill(&c->link, sizeof(struct nbd_option_wire), false))
		return NEXT_END;
	const struct nbd_option_wire *w = (const void *)link_bytes(&c->link);
	uint32_t option = be32_get(w->option), length = be32_get(w->length);
	if (be64_get(w->magic) != NBD_OPTS_MAGIC)
		return drop(c, "an option without its magic number");
	if (length > NBD_OPTION_MAX)
		return refuse_oversized(c, option, length);
	size_t whole_bytes = sizeof(*w) + length;
	if (link_fill(&c->link, whole_bytes, false))
		return NEXT_END;
	bool was_plain = !c->link.tls;
	enum next next = handle_option(c, option, length);
	if (was_plain == !c->link.tls && next != NEXT_END) /* STARTTLS took its own */
		link_take(&c->link, whole_bytes);
	return next;
}

static int greet(struct nbd_conn *c)
{
	struct nbd_greeting_wire w = {
		.init_magic = be64_of(NBD_INIT_MAGIC),
		.opts_magic = be64_of(NBD_OPTS_MAGIC),
		.handshake_flags = be16_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	int err = link_send(&c->link, &(struct rt_iovec){&w, sizeof(w)}, 1);
	if (err == 0)
		err = link_fill(&c->link, sizeof(be32), false);
	if (err)
		return err;
	uint32_t flags = be32_get(*(const be32 *)link_bytes(&c->link));
	link_take(&c->link, sizeof(be32));
	c->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	if (flags & ~(uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
		return nbd_drop(c, "client flags this server does not know");
	return 0;
}

int nbd_handshake(struct nbd_conn *c)
{
	link_deadline(&c->link, rt_now_ns(c->server->rt) + c->server->options.handshake_timeout_ns);
	int err = greet(c);
	enum next next = err ? NEXT_END : NEXT_OPTION;
	for (uint32_t i = 0; next == NEXT_OPTION; i++)
		next = i < c->server->options.options_max ? receive_option(c)
							  : drop(c, "options without end");
	link_deadline(&c->link, 0);
	if (c->link.timed_out)
		nbd_drop(c, "its handshake took too long");
	return next == NEXT_TRANSMISSION && !c->link.timed_out ? 0 : OXE_CLOSED;
}
