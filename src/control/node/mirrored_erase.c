/*
 * mirrored_erase.c: one transaction takes a deleted volume off the record with all that is its own: its view, its name and its notes; and puts each
 * of its copies on record to be reaped (node_reap.c). Whatever was changed meanwhile makes it differ, and it is done again from what is there then.
 */
#include "control/node/mirrored.h"

/* What one transaction takes away. Keys and values live in here. */
struct erasure {
	char keys[META_TXN_MAX_COUNT][FACT_KEY_SIZE];
	char *values[META_TXN_MAX_COUNT];
	struct meta_compare compares[META_TXN_MAX_COUNT];
	struct meta_write writes[META_TXN_MAX_COUNT];
	size_t count;
};

static char *erasure_key(struct erasure *e)
{
	return e->keys[e->count];
}

/* The key that was written last. */
static void erasure_add(struct erasure *e, uint64_t revision, char *value)
{
	size_t i = e->count++;
	e->values[i] = value;
	e->compares[i] = (struct meta_compare){.key = e->keys[i], .mod_revision = revision};
	e->writes[i] = (struct meta_write){.key = e->keys[i],
					   .value = value,
					   .value_len_bytes = value ? strlen(value) : 0,
					   .is_delete = !value};
}

/* What the metastore itself has of a key now. */
static int erasure_add_as_is(struct node *n, struct erasure *e)
{
	struct meta_list found;
	struct meta *m = node_meta_enter(n);
	if (!m)
		return OXE_NOTREADY;
	int err = meta_get(m, erasure_key(e), &found);
	node_meta_leave(n, err);
	if (err)
		return err;
	if (found.count)
		erasure_add(e, found.entries[0].mod_revision, NULL);
	meta_list_free(&found);
	return 0;
}

static int erasure_fill(struct node *n, struct erasure *e, const struct fact_volume *f,
			const struct view *view, uint64_t view_revision)
{
	int err = 0;
	for (uint32_t i = 0; view && i < view->replica_count; i++) {
		const struct uuid *pool_id = &view->replicas[i].pool_id;
		const struct fact_reap *reap = facts_reap(&n->meta.facts, pool_id, &f->id);
		fact_reap_key(erasure_key(e), pool_id, &f->id);
		erasure_add(e, reap ? reap->revision : 0, fact_reap_value(false));
	}
	fact_key(erasure_key(e), "volume", &f->id);
	erasure_add(e, f->revision, NULL);
	if (view) {
		fact_key(erasure_key(e), "view", &f->id);
		erasure_add(e, view_revision, NULL);
	}
	fact_name_key(erasure_key(e), f->name);
	err = erasure_add_as_is(n, e);
	for (unsigned kind = 0; !err && kind < POOL_NOTE_KINDS; kind++) {
		fact_note_key(erasure_key(e), &f->id, kind);
		err = erasure_add_as_is(n, e);
	}
	return err;
}

int mirrored_erase(struct node *n, const struct fact_volume *known)
{
	struct fact_volume f = *known; /* the table may change while we wait */
	struct view *view = mem_zalloc(sizeof(*view));
	struct erasure *e = mem_zalloc(sizeof(*e));
	struct view_store *views = &n->views.store;
	struct node_why why;
	uint64_t revision = 0;
	int err = views->get(views, &f.id, view, &revision);
	bool has_view = err != OXE_NOENT;
	if (!has_view)
		err = 0;
	if (!err)
		err = erasure_fill(n, e, &f, has_view ? view : NULL, revision);
	const struct meta_txn txn = {.compares = e->compares,
				     .compare_count = e->count,
				     .writes = e->writes,
				     .write_count = e->count};
	if (!err)
		err = node_meta_commit(n, &txn, "deleting a volume", &why);
	for (size_t i = 0; i < e->count; i++)
		free(e->values[i]);
	free(e);
	free(view);
	return err;
}
