/*
 * mirror_layers.c: the copies in the view agree on which layers they have.
 *
 * A snapshot was acknowledged when every copy in the view had sealed it, and its deletion when every one had let it go. So a layer that
 * some have and others have not, when an engine starts, is one whose making or deletion nobody was told of: it goes everywhere.
 * A joining copy is asked only for what is above its join layer; the rest is being filled. A name that differs was being changed: nobody was
 * told of either outcome, and the first copy's is taken.
 */
#include "base/log.h"
#include "data/engine/mirror_impl.h"

struct lists {
	struct replica_layer *layers[VIEW_REPLICAS_MAX];
	size_t first[VIEW_REPLICAS_MAX], count[VIEW_REPLICAS_MAX]; /* from the first on they count */
};

static bool is_named_in(const struct lists *ls, uint32_t index, const struct uuid *id)
{
	for (size_t i = 0; i < ls->count[index]; i++)
		if (uuid_equal(&ls->layers[index][i].id, id))
			return true;
	return false;
}

/* Of a joining copy the new head's; of a member all, or from the join layer on, as `after` says. */
static size_t index_after(const struct lists *ls, uint32_t index, const struct uuid *after)
{
	for (size_t i = 0; i < ls->count[index]; i++)
		if (uuid_equal(&ls->layers[index][i].id, after))
			return i + 1;
	return 0;
}

static bool list_get(struct mirror *m, uint32_t index, struct lists *ls)
{
	struct copy *c = m->copies[index];
	uint64_t session = c->session_number;
	size_t filled = 0;
	ls->layers[index] = mem_zalloc(REPLICA_LAYERS_MAX * sizeof(struct replica_layer));
	int err = c->replica->ops->layers(c->replica, ls->layers[index], REPLICA_LAYERS_MAX,
					  &ls->count[index], &filled);
	if (!mirror_copy_answered(c, session, err))
		return MUTANT(233);
	if (err)
		mirror_copy_fail(c, err, "it does not say which layers it has");
	if (m->view.replicas[index].role == VIEW_JOINING)
		ls->first[index] =
			c->was_grafted ? index_after(ls, index, &m->view.replicas[index].join_id) : filled;
	return !err;
}

static bool lists_get(struct mirror *m, struct lists *ls)
{
	uint32_t in_view = mirror_copies_in_view(m);
	bool done = true;
	for (uint32_t i = 0; done && i < m->view.replica_count; i++)
		if (in_view >> i & 1)
			done = list_get(m, i, ls);
	return done;
}

/* One copy has it; has this other one, if it should? */
static bool should_have(const struct mirror *m, const struct lists *ls, uint32_t owner, size_t layer,
			uint32_t other)
{
	const struct view_replica *e = &m->view.replicas[other];
	return e->role == VIEW_MEMBER || layer >= index_after(ls, owner, &e->join_id);
}

static bool is_in_all(const struct mirror *m, const struct lists *ls, uint32_t owner, size_t layer)
{
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		if (ls->layers[i] && i != owner && should_have(m, ls, owner, layer, i) &&
		    !is_named_in(ls, i, &ls->layers[owner][layer].id))
			return false;
	return true;
}

static bool layer_drop_everywhere(struct mirror *m, const struct replica_layer *layer)
{
	struct request q = {
		.kind = REQUEST_LAYER_DELETE, .layer_id = &layer->id, .pending = mirror_copies_in_view(m)};
	LOG_INFO("layer.dropped", "a snapshot that was not made, or not deleted, in all copies is deleted",
		 F_UUID("volume", &m->options.volume_id), F_UUID("layer", &layer->id),
		 F_STR("name", layer->name), F_U64("epoch", m->view.epoch));
	mirror_request_ask(m, &q, q.pending);
	return !q.pending && !q.refused;
}

/* Somebody waits for it: it will be made everywhere. */
static bool is_ordered(const struct mirror *m, const struct uuid *id)
{
	const struct order *o;
	list_for_each (o, &m->orders, link)
		if (o->kind == ORDER_SNAPSHOT && uuid_equal(o->id, id))
			return true;
	return false;
}

static bool may_be_dropped(const struct mirror *m, const struct lists *ls, uint32_t owner, size_t layer)
{
	const struct replica_layer *l = &ls->layers[owner][layer];
	return !MUTANT(218) && l->name[0] != '~' && !is_in_all(m, ls, owner, layer) && !is_ordered(m, &l->id);
}

static bool lists_compare(struct mirror *m, const struct lists *ls)
{
	bool done = true;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		for (size_t j = ls->first[i]; done && ls->layers[i] && j < ls->count[i]; j++)
			if (may_be_dropped(m, ls, i, j))
				done = layer_drop_everywhere(m, &ls->layers[i][j]);
	return done;
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

static const struct replica_layer *named_first(const struct lists *ls, const struct uuid *id)
{
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++)
		for (size_t j = ls->first[i]; j < ls->count[i]; j++)
			if (uuid_equal(&ls->layers[i][j].id, id))
				return &ls->layers[i][j];
	return NULL;
}

static bool rename_one(struct mirror *m, uint32_t index, const struct replica_layer *wanted)
{
	struct request q = {.kind = REQUEST_RENAME,
			    .layer_id = &wanted->id,
			    .name = wanted->name,
			    .pending = 1u << index};
	m->renames++;
	LOG_INFO("layer.renamed", "a name that was not changed in all copies is made one",
		 F_UUID("volume", &m->options.volume_id), F_UUID("layer", &wanted->id),
		 F_STR("name", wanted->name), F_U64("epoch", m->view.epoch));
	mirror_request_ask(m, &q, q.pending);
	return mirror_all_answered(m, &q, 1u << index);
}

static bool names_even(struct mirror *m, const struct lists *ls)
{
	bool done = true;
	for (uint32_t i = 0; i < m->view.replica_count; i++)
		for (size_t j = ls->first[i]; done && j < ls->count[i]; j++) {
			const struct replica_layer *l = &ls->layers[i][j], *first = named_first(ls, &l->id);
			if (strcmp(l->name, first->name) != 0 && !MUTANT(254))
				done = rename_one(m, i, first);
		}
	return done;
}

/* ---- the snapshots that there are ------------------------------------------------------------------------------------------ */

static void snapshots_take(struct mirror *m, const struct lists *ls)
{
	uint32_t i = (uint32_t)__builtin_ctz(mirror_copies_members(m));
	m->snapshot_count = 0;
	for (size_t j = 0; j < ls->count[i]; j++) {
		const struct replica_layer *l = &ls->layers[i][j];
		if (!pool_name_is_system(l->name) && !l->is_origins && is_in_all(m, ls, i, j))
			mirror_snapshot_note(m, &l->id, l->name, l->size_bytes);
	}
}

bool mirror_layers_agree(struct mirror *m)
{
	struct lists *ls = mem_zalloc(sizeof(*ls));
	bool done = lists_get(m, ls) && lists_compare(m, ls) && names_even(m, ls);
	if (done)
		snapshots_take(m, ls);
	for (uint32_t i = 0; i < VIEW_REPLICAS_MAX; i++)
		free(ls->layers[i]);
	free(ls);
	return done;
}
