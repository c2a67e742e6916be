/*
 * nbd_meta.c: metadata contexts.
 *
 *     base:allocation                  hole, zero
 *     oxbow:changed-since:SNAPSHOT     changed: what a backup taken at SNAPSHOT lacks (bit 0)
 *
 * A context is chosen for an export and known on the connection by its number, from 1 on. Only a snapshot the export
 * descends from is offered, because only against such a one does "changed" mean anything.
 */
#include "data/frontend/nbd/nbd_conn.h"

#include <stdio.h>

#define STATUS_EXTENTS_MAX 2048u /* descriptors of one reply; a client asks again where it ended */
#define LIST_BATCH	   64
#define QUERIES_MAX	   256

/* ---- queries ------------------------------------------------------------------------------------------------------------ */

static bool text_is(const char *text, size_t len_bytes, const char *wanted)
{
	return len_bytes == strlen(wanted) && memcmp(text, wanted, len_bytes) == 0;
}

/* The snapshot's name out of "oxbow:changed-since:NAME"; false if it is not one. */
static bool query_snapshot(const char *text, size_t len_bytes, char name[POOL_NAME_MAX + 1])
{
	size_t prefix = strlen(NBD_CONTEXT_CHANGED);
	if (len_bytes <= prefix || len_bytes > prefix + POOL_NAME_MAX ||
	    memcmp(text, NBD_CONTEXT_CHANGED, prefix) != 0)
		return false;
	memcpy(name, text + prefix, len_bytes - prefix);
	name[len_bytes - prefix] = '\0';
	return strlen(name) == len_bytes - prefix && pool_name_check(name) == 0;
}

/* Suspends: is it a snapshot this export descends from? */
static bool is_ancestor(struct engine *e, const char *snapshot)
{
	struct vol_extent extent;
	size_t count;
	return engine_extents(e, snapshot, 0, engine_info(e)->lba_bytes, &extent, 1, &count) == 0;
}

static int send_context(struct nbd_conn *c, uint32_t option, uint32_t id, const char *snapshot)
{
	char data[sizeof(be32) + NBD_CONTEXT_MAX + 1];
	const char *prefix = snapshot[0] ? NBD_CONTEXT_CHANGED : NBD_CONTEXT_ALLOC;
	int name_bytes = snprintf(data + sizeof(be32), sizeof(data) - sizeof(be32), "%s%s", prefix, snapshot);
	*(be32 *)data = be32_of(id);
	return nbd_option_reply(c, option, NBD_REP_META_CONTEXT, data, sizeof(be32) + (size_t)name_bytes);
}

/* ---- listing ------------------------------------------------------------------------------------------------------------ */

struct name_batch {
	size_t skip, count;
	char names[LIST_BATCH][POOL_NAME_MAX + 1];
};

static bool batch_name(void *ctx, const char *snapshot)
{
	struct name_batch *b = ctx;
	if (b->skip > 0) {
		b->skip--;
		return true;
	}
	snprintf(b->names[b->count++], sizeof(b->names[0]), "%s", snapshot);
	return b->count < LIST_BATCH;
}

/* By batches, because the walk must not suspend and a volume may have thousands. One taken or deleted meanwhile may be
 * missed or named twice, as with any list that is read while it changes. */
static int list_snapshots(struct nbd_conn *c, struct engine *e)
{
	struct name_batch *b = mem_zalloc(sizeof(*b));
	size_t seen = 0;
	int err = 0;
	do {
		b->skip = seen;
		b->count = 0;
		engine_snapshot_walk(e, batch_name, b);
		seen += b->count;
		for (size_t i = 0; err == 0 && i < b->count; i++)
			if (is_ancestor(e, b->names[i]))
				err = send_context(c, NBD_OPT_LIST_META_CONTEXT, 0, b->names[i]);
	} while (err == 0 && b->count == LIST_BATCH);
	free(b);
	return err;
}

struct wanted { /* what the queries of a LIST ask for together */
	bool alloc, all_snapshots;
};

static int list_query(struct nbd_conn *c, struct engine *e, const char *text, size_t len_bytes,
		      struct wanted *w)
{
	char snapshot[POOL_NAME_MAX + 1];
	if (text_is(text, len_bytes, "base:") || text_is(text, len_bytes, NBD_CONTEXT_ALLOC))
		w->alloc = true;
	else if (text_is(text, len_bytes, "oxbow:") || text_is(text, len_bytes, NBD_CONTEXT_CHANGED))
		w->all_snapshots = true;
	else if (query_snapshot(text, len_bytes, snapshot) && is_ancestor(e, snapshot))
		return send_context(c, NBD_OPT_LIST_META_CONTEXT, 0, snapshot);
	return 0;
}

static int list_wanted(struct nbd_conn *c, struct engine *e, const struct wanted *w)
{
	int err = w->alloc ? send_context(c, NBD_OPT_LIST_META_CONTEXT, 0, "") : 0;
	if (err == 0 && w->all_snapshots)
		err = list_snapshots(c, e);
	return err;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------- */

/* False if it is one too many. A context chosen twice counts once. */
static bool choose(struct nbd_conn *c, const char *snapshot)
{
	for (uint32_t i = 0; i < c->context_count; i++)
		if (strcmp(c->contexts[i].snapshot, snapshot) == 0)
			return true;
	if (c->context_count == NBD_CONTEXTS_MAX)
		return false;
	snprintf(c->contexts[c->context_count++].snapshot, sizeof(c->contexts[0].snapshot), "%s", snapshot);
	return true;
}

static bool set_query(struct nbd_conn *c, struct engine *e, const char *text, size_t len_bytes)
{
	char snapshot[POOL_NAME_MAX + 1];
	if (text_is(text, len_bytes, NBD_CONTEXT_ALLOC))
		return choose(c, "");
	if (query_snapshot(text, len_bytes, snapshot) && is_ancestor(e, snapshot))
		return choose(c, snapshot);
	return true; /* a query that matches nothing selects nothing */
}

static int announce_chosen(struct nbd_conn *c, struct engine *e)
{
	snprintf(c->contexts_of, sizeof(c->contexts_of), "%s", engine_name(e));
	int err = 0;
	for (uint32_t i = 0; err == 0 && i < c->context_count; i++)
		err = send_context(c, NBD_OPT_SET_META_CONTEXT, i + 1, c->contexts[i].snapshot);
	return err;
}

/* ---- the two options ---------------------------------------------------------------------------------------------------- */

static bool queries_are_whole(struct nbd_cursor in, uint32_t count)
{
	const char *text;
	size_t len_bytes;
	while (count-- > 0)
		if (!nbd_cursor_string(&in, &text, &len_bytes) || len_bytes > NBD_STRING_MAX)
			return false;
	return in.at == in.end;
}

static int answer_list(struct nbd_conn *c, struct engine *e, struct nbd_cursor in, uint32_t count)
{
	struct wanted w = {.alloc = count == 0, .all_snapshots = count == 0};
	const char *text;
	size_t len_bytes;
	int err = 0;
	while (err == 0 && count-- > 0 && nbd_cursor_string(&in, &text, &len_bytes))
		err = list_query(c, e, text, len_bytes, &w);
	if (err == 0)
		err = list_wanted(c, e, &w);
	return err ? err : nbd_option_reply(c, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, NULL, 0);
}

static int answer_set(struct nbd_conn *c, struct engine *e, struct nbd_cursor in, uint32_t count)
{
	const char *text;
	size_t len_bytes;
	while (count-- > 0 && nbd_cursor_string(&in, &text, &len_bytes)) {
		if (set_query(c, e, text, len_bytes))
			continue;
		c->context_count = 0;
		return nbd_option_refuse(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_TOO_BIG,
					 "more contexts than this server keeps for a connection");
	}
	int err = announce_chosen(c, e);
	return err ? err : nbd_option_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
}

int nbd_option_meta(struct nbd_conn *c, uint32_t option, struct nbd_cursor in)
{
	char name[ENGINE_EXPORT_NAME_MAX + 1];
	uint32_t count;
	struct engine *e;
	if (option == NBD_OPT_SET_META_CONTEXT)
		c->context_count = 0; /* each SET replaces what was chosen before, also when it fails */
	if (c->form == NBD_FORM_SIMPLE)
		return nbd_option_refuse(c, option, NBD_REP_ERR_INVALID, "structured replies come first");
	if (!nbd_cursor_name(&in, name) || !nbd_cursor_u32(&in, &count) || count > QUERIES_MAX ||
	    !queries_are_whole(in, count))
		return nbd_option_refuse(c, option, NBD_REP_ERR_INVALID, "malformed, or too many queries");
	if (nbd_export_open(c, name, &e))
		return nbd_option_refuse(c, option, NBD_REP_ERR_UNKNOWN, "no such export");
	int err = option == NBD_OPT_LIST_META_CONTEXT ? answer_list(c, e, in, count)
						      : answer_set(c, e, in, count);
	engine_close(e);
	return err;
}

/* ---- BLOCK_STATUS ------------------------------------------------------------------------------------------------------- */

#define DESCRIPTOR_MAX	sizeof(struct nbd_block_descriptor_ext_wire)
#define STATUS_HEAD_MAX (sizeof(struct nbd_extended_reply_wire) + sizeof(struct nbd_block_status_ext_wire))
#define EXTENTS_BYTES	(STATUS_EXTENTS_MAX * sizeof(struct vol_extent))

/* The payload buffer: the extents as the engine gives them, then a chunk for each context. */
size_t nbd_status_payload_bytes(const struct nbd_conn *c)
{
	return EXTENTS_BYTES + c->context_count * (STATUS_HEAD_MAX + STATUS_EXTENTS_MAX * DESCRIPTOR_MAX);
}

static uint32_t state_of(const struct nbd_context *context, unsigned extent_flags)
{
	if (context->snapshot[0])
		return extent_flags & VOL_EXTENT_CHANGED ? OXBOW_STATE_CHANGED : 0;
	return (extent_flags & VOL_EXTENT_HOLE ? NBD_STATE_HOLE : 0) |
	       (extent_flags & VOL_EXTENT_ZERO ? NBD_STATE_ZERO : 0);
}

/* Keep of each extent what the context tells, joining neighbours that then say the same. Returns how many are left. */
static size_t extents_project(const struct nbd_context *context, struct vol_extent *extents, size_t count)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++) {
		uint32_t state = state_of(context, extents[i].flags);
		if (kept > 0 && extents[kept - 1].flags == state) {
			extents[kept - 1].len_bytes += extents[i].len_bytes;
		} else {
			extents[kept] = extents[i];
			extents[kept++].flags = state;
		}
	}
	return kept;
}

static size_t put_descriptors(const struct vol_extent *extents, size_t count, uint8_t *out)
{
	struct nbd_block_descriptor_wire *w = (void *)out;
	for (size_t i = 0; i < count; i++)
		w[i] = (struct nbd_block_descriptor_wire){be32_of((uint32_t)extents[i].len_bytes),
							  be32_of(extents[i].flags)};
	return count * sizeof(*w);
}

static size_t put_descriptors_ext(const struct vol_extent *extents, size_t count, uint8_t *out)
{
	struct nbd_block_descriptor_ext_wire *w = (void *)out;
	for (size_t i = 0; i < count; i++)
		w[i] = (struct nbd_block_descriptor_ext_wire){be64_of(extents[i].len_bytes),
							      be64_of(extents[i].flags)};
	return count * sizeof(*w);
}

static size_t put_chunk(const struct nbd_request *r, uint16_t flags, uint32_t context_id,
			const struct vol_extent *extents, size_t count, uint8_t *out)
{
	if (r->conn->form == NBD_FORM_EXTENDED) {
		struct nbd_block_status_ext_wire w = {be32_of(context_id), be32_of((uint32_t)count)};
		size_t at =
			nbd_chunk_head(r, flags, NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
				       sizeof(w) + count * sizeof(struct nbd_block_descriptor_ext_wire), out);
		memcpy(out + at, &w, sizeof(w));
		return at + sizeof(w) + put_descriptors_ext(extents, count, out + at + sizeof(w));
	}
	struct nbd_block_status_wire w = {be32_of(context_id)};
	size_t at = nbd_chunk_head(r, flags, NBD_REPLY_TYPE_BLOCK_STATUS,
				   sizeof(w) + count * sizeof(struct nbd_block_descriptor_wire), out);
	memcpy(out + at, &w, sizeof(w));
	return at + sizeof(w) + put_descriptors(extents, count, out + at + sizeof(w));
}

/* One context's chunk, written to `out`. Suspends. */
static int status_chunk(struct nbd_request *r, uint32_t index, uint16_t flags, uint8_t *out,
			size_t *len_bytes)
{
	const struct nbd_context *context = &r->conn->contexts[index];
	struct vol_extent *extents = r->payload;
	size_t count;
	int err = engine_extents(r->conn->engine, context->snapshot[0] ? context->snapshot : NULL,
				 r->command.offset, r->command.length, extents, STATUS_EXTENTS_MAX, &count);
	if (err)
		return err;
	count = extents_project(context, extents, count);
	assert(count > 0);
	if (r->command.flags & NBD_CMD_FLAG_REQ_ONE)
		count = 1;
	*len_bytes = put_chunk(r, flags, index + 1, extents, count, out);
	return 0;
}

void nbd_status_answer(struct nbd_request *r)
{
	uint32_t left = r->context_mask & ((1u << r->conn->context_count) - 1);
	uint8_t *body = (uint8_t *)r->payload + EXTENTS_BYTES;
	size_t body_bytes = 0, chunk_bytes;
	for (uint32_t i = 0; left != 0; i++) {
		if (!(left & 1u << i))
			continue;
		left &= ~(1u << i);
		int err = status_chunk(r, i, left ? 0 : NBD_REPLY_FLAG_DONE, body + body_bytes, &chunk_bytes);
		if (err) {
			nbd_reply_done(r, err);
			return;
		}
		body_bytes += chunk_bytes;
	}
	r->own_parts[0] = (struct rt_iovec){.data = body, .len_bytes = body_bytes};
	r->part_count = 1;
	nbd_reply_parts(r);
}
