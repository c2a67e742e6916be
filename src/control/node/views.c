/* views.c: see views.h. */
#include "control/node/views.h"

#include "control/node/facts.h"

#include "rt/rt.h"

#define SETTLE_NS (2 * NS_PER_S)

static struct views *views_of(struct view_store *s)
{
	return container_of(s, struct views, store);
}

/* What an engine can do about any of these is to ask later. */
static int answer(int err)
{
	switch (err) {
	case OXE_BUSY:
	case OXE_FAILED:
	case OXE_TIMEOUT:
	case OXE_SHUTDOWN:
	case OXE_IO:
	case OXE_NOSPC:
		return OXE_NOTREADY;
	default:
		return err;
	}
}

static int entry_decode(const struct meta_list *found, const struct uuid *volume_id, struct view *out,
			uint64_t *revision)
{
	if (!found->count)
		return OXE_NOENT;
	const struct meta_entry *e = &found->entries[0];
	int err = view_decode(e->value, e->value_len_bytes, out);
	if (!err && !uuid_equal(&out->volume_id, volume_id))
		err = OXE_CORRUPT;
	*revision = e->mod_revision;
	return err;
}

static int views_get(struct view_store *s, const struct uuid *volume_id, struct view *out, uint64_t *revision)
{
	struct views *v = views_of(s);
	char key[FACT_KEY_SIZE];
	struct meta_list found = {0};
	struct meta *m = v->enter(v->ctx);
	if (!m)
		return OXE_NOTREADY;
	fact_key(key, "view", volume_id);
	int err = meta_get(m, key, &found);
	v->leave(v->ctx, err);
	if (err)
		return answer(err);
	err = entry_decode(&found, volume_id, out, revision);
	meta_list_free(&found);
	return err;
}

/* OXE_DIFFERS: it is not what is there. */
static int found_again(struct meta *m, const char *key, const void *bytes, size_t len_bytes,
		       uint64_t *revision)
{
	struct meta_list found;
	int err = meta_get(m, key, &found);
	if (err)
		return OXE_INDOUBT;
	const struct meta_entry *e = found.count ? &found.entries[0] : NULL;
	bool same = e && e->value_len_bytes == len_bytes && memcmp(e->value, bytes, len_bytes) == 0;
	if (same)
		*revision = e->mod_revision;
	meta_list_free(&found);
	return same ? 0 : OXE_DIFFERS;
}

static int swap_bytes(struct meta *m, const struct uuid *volume_id, const void *bytes, size_t len_bytes,
		      uint64_t revision, uint64_t *new_revision)
{
	char key[FACT_KEY_SIZE];
	const struct meta_compare compare = {.key = key, .mod_revision = revision};
	const struct meta_write write = {.key = key, .value = bytes, .value_len_bytes = len_bytes};
	const struct meta_txn txn = {
		.compares = &compare, .compare_count = 1, .writes = &write, .write_count = 1};
	fact_key(key, "view", volume_id);
	int err = meta_commit_settled(m, &txn, rt_now_exact_ns(rt_current()) + SETTLE_NS, new_revision);
	return err == OXE_DIFFERS ? found_again(m, key, bytes, len_bytes, new_revision) : err;
}

static int views_swap(struct view_store *s, const struct view *view, uint64_t revision,
		      uint64_t *new_revision)
{
	struct views *v = views_of(s);
	struct meta *m = v->enter(v->ctx);
	if (!m)
		return OXE_NOTREADY;
	uint8_t *bytes = mem_alloc(VIEW_BYTES_MAX);
	size_t len_bytes = view_encode(view, bytes);
	int err = swap_bytes(m, &view->volume_id, bytes, len_bytes, revision, new_revision);
	v->leave(v->ctx, err);
	free(bytes);
	return answer(err);
}

void views_init(struct views *v, struct meta *(*enter)(void *ctx), void (*leave)(void *ctx, int err),
		void *ctx)
{
	*v = (struct views){
		.store = {.get = views_get, .swap = views_swap}, .enter = enter, .leave = leave, .ctx = ctx};
}
