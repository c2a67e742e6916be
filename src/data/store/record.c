/*
 * record.c: the fold: what each record makes true. The live pool and recovery run exactly this.
 *
 * For every type there is a row: its least length, what to bring in before (prepare), and what it does (apply). Apply finds
 * every page resident and changes only memory. In recovery what a record is about may be lost (store.h): then a leaf is NULL.
 */
#include "base/log.h"
#include "data/store/flush.h"
#include "data/store/journal.h"
#include "data/store/resolve.h"
#include "data/store/store.h"

void pins_release(struct pins *pins)
{
	while (pins->count > 0)
		page_unpin(pins->pages[--pins->count]);
}

static int pin_leaf(struct pool *pool, uint64_t layer_number, uint32_t index, struct pins *pins,
		    struct page **leaf)
{
	struct layer *l = catalog_layer_refer(pool->catalog, layer_number);
	*leaf = NULL;
	if (!l)
		return OXE_CORRUPT;
	int err = tree_raise(&l->map, index / PAGE_FANOUT + 1);
	if (!err)
		err = page_get(&l->map, 0, index / PAGE_FANOUT, true, leaf);
	if (err == OXE_CORRUPT && pool->replaying) {
		pool->records_lost++;
		*leaf = NULL;
		return l->map.lost ? 0 : page_disown(&l->map, index / PAGE_FANOUT);
	}
	if (!err)
		pins->pages[pins->count++] = *leaf;
	return err;
}

static int pin_bitmap(struct pool *pool, uint32_t cluster, struct pins *pins)
{
	if (cluster == 0)
		return 0;
	int err = space_bitmap_pin(pool->space, cluster, &pins->pages[pins->count]);
	pins->count += !err && pins->pages[pins->count];
	return err;
}

static uint32_t cluster_at(const struct page *leaf, uint32_t index)
{
	return leaf ? map_entry_view(leaf, index)->cluster : 0;
}

/* The entry in a leaf that is resident, for changing. NULL: it is lost. */
static struct map_entry *entry_edit(struct pool *pool, struct layer *l, uint32_t index)
{
	struct page *leaf = page_peek(&l->map, 0, index / PAGE_FANOUT, NULL);
	assert(leaf || pool->replaying);
	return leaf ? (struct map_entry *)page_edit(leaf) + index % PAGE_FANOUT : NULL;
}

/* Beside something lost a cluster may be marked for an owner that has given it up, which nobody could note. */
static int cluster_own(struct pool *pool, uint32_t cluster)
{
	return pool->records_lost ? space_claim(pool->space, cluster) : space_mark_used(pool->space, cluster);
}

/* ---- blocks --------------------------------------------------------------------------------------------------------------- */

static int prepare_define(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_define *r = record;
	struct page *leaf;
	int err = pin_leaf(pool, number_get(r->layer), r->index, pins, &leaf);
	return err ? err : pin_bitmap(pool, r->cluster, pins);
}

static int apply_define(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_define *r = record;
	struct layer *l = catalog_layer(pool->catalog, number_get(r->layer));
	struct map_entry *e = entry_edit(pool, l, r->index);
	if (!e)
		return cluster_own(pool, r->cluster);
	if (e->cluster == 0) {
		int err = cluster_own(pool, r->cluster);
		if (err)
			return err;
		e->cluster = r->cluster;
		layer_count_clusters(l, 1);
		catalog_layer_touch(l);
	}
	if (e->cluster != r->cluster)
		return OXE_CORRUPT;
	e->defined |= r->mask;
	if (!MUTANT(1))
		e->zero &= (uint16_t)~r->mask;
	resolve_forget(pool, l, r->index);
	return 0;
}

/* Give the cluster back if no block of it holds data any more. */
static int entry_shed(struct pool *pool, struct layer *l, struct map_entry *e, uint64_t seq)
{
	if (e->cluster == 0 || (e->defined & (uint16_t)~e->zero))
		return 0;
	uint32_t cluster = e->cluster;
	e->cluster = 0;
	layer_count_clusters(l, -1);
	catalog_layer_touch(l);
	return space_mark_free(pool->space, cluster, seq);
}

static int prepare_reject(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_reject *r = record;
	struct page *leaf;
	int err = pin_leaf(pool, number_get(r->layer), r->index, pins, &leaf);
	return err ? err : pin_bitmap(pool, cluster_at(leaf, r->index), pins);
}

static int apply_reject(struct pool *pool, uint64_t seq, const void *record)
{
	const struct record_reject *r = record;
	struct layer *l = catalog_layer(pool->catalog, number_get(r->layer));
	struct map_entry *e = entry_edit(pool, l, r->index);
	if (!e)
		return 0;
	e->defined = (uint16_t)((e->defined & ~r->undefined) | r->zero);
	e->zero = (uint16_t)((e->zero & ~r->undefined) | r->zero);
	resolve_forget(pool, l, r->index);
	return entry_shed(pool, l, e, seq);
}

static int pin_clusters(struct pool *pool, uint64_t layer, uint32_t index, uint32_t count, struct pins *pins)
{
	struct page *leaf;
	int err = pin_leaf(pool, layer, index, pins, &leaf);
	for (uint32_t i = 0; !err && i < count; i++)
		err = pin_bitmap(pool, cluster_at(leaf, index + i), pins);
	return err;
}

static int prepare_zero(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_zero *r = record;
	return pin_clusters(pool, number_get(r->layer), r->index, r->count, pins);
}

/* S1: above other layers a zero is said out loud, so that it hides them; at the root saying nothing is the same, unless it is to be
 * grafted upon something. */
static int apply_zero(struct pool *pool, uint64_t seq, const void *record)
{
	const struct record_zero *r = record;
	struct layer *l = catalog_layer(pool->catalog, number_get(r->layer));
	int err = 0;
	for (uint32_t i = 0; !err && i < r->count; i++) {
		struct map_entry *e = entry_edit(pool, l, r->index + i);
		if (!e)
			return 0;
		if ((l->parent && !MUTANT(2)) || r->flags & ZERO_SAID) {
			e->defined |= r->mask;
			e->zero |= r->mask;
		} else {
			e->defined &= (uint16_t)~r->mask;
			e->zero &= (uint16_t)~r->mask;
		}
		resolve_forget(pool, l, r->index + i);
		err = entry_shed(pool, l, e, seq);
	}
	return err;
}

static int prepare_drop(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_drop *r = record;
	return pin_clusters(pool, number_get(r->layer), r->index, r->count, pins);
}

static int apply_drop(struct pool *pool, uint64_t seq, const void *record)
{
	const struct record_drop *r = record;
	struct layer *l = catalog_layer(pool->catalog, number_get(r->layer));
	int err = 0;
	for (uint32_t i = 0; !err && i < r->count; i++) {
		struct map_entry *e = entry_edit(pool, l, r->index + i);
		if (!e)
			return 0;
		e->defined = e->zero = 0;
		resolve_forget(pool, l, r->index + i);
		err = entry_shed(pool, l, e, seq);
	}
	return err;
}

static int prepare_merge(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_merge *r = record;
	struct page *from, *to;
	int err = pin_leaf(pool, number_get(r->layer), r->index, pins, &from);
	if (!err)
		err = pin_leaf(pool, number_get(r->child), r->index, pins, &to);
	if (!err)
		err = pin_bitmap(pool, cluster_at(from, r->index), pins);
	if (!err)
		err = pin_bitmap(pool, cluster_at(to, r->index), pins);
	if (!err && r->cluster && !(from && to))
		err = pin_bitmap(pool, r->cluster, pins);
	return err;
}

/* One of the two entries is lost. The other becomes what the record says; what the lost one may have owned stays in use. */
static int merge_half(struct pool *pool, uint64_t seq, const struct record_merge *r, struct layer *own,
		      struct map_entry *e, bool is_child)
{
	uint32_t old = e ? e->cluster : 0;
	int err = r->cluster ? cluster_own(pool, r->cluster) : 0;
	if (err || !e)
		return err;
	uint32_t now = is_child ? r->cluster : 0;
	layer_count_clusters(own, (now != 0) - (old != 0));
	*e = (struct map_entry){0};
	if (is_child)
		*e = (struct map_entry){.cluster = now, .defined = r->defined, .zero = r->zero};
	catalog_layer_touch(own);
	return old && old != r->cluster ? space_mark_free(pool->space, old, seq) : 0;
}

/* Of the two old clusters the one that is not the new one is given back. */
static int apply_merge(struct pool *pool, uint64_t seq, const void *record)
{
	const struct record_merge *r = record;
	struct layer *l = catalog_layer(pool->catalog, number_get(r->layer));
	struct layer *child = catalog_layer(pool->catalog, number_get(r->child));
	struct map_entry *from = entry_edit(pool, l, r->index), *to = entry_edit(pool, child, r->index);
	if (!from || !to)
		return to ? merge_half(pool, seq, r, child, to, true)
			  : merge_half(pool, seq, r, l, from, false);
	uint32_t old[2] = {from->cluster, to->cluster};
	int err = 0;
	if (r->cluster && r->cluster != old[0] && r->cluster != old[1])
		return OXE_CORRUPT;
	layer_count_clusters(l, -(old[0] != 0));
	layer_count_clusters(child, (r->cluster != 0) - (old[1] != 0));
	*from = (struct map_entry){0};
	*to = (struct map_entry){.cluster = r->cluster, .defined = r->defined, .zero = r->zero};
	for (unsigned i = 0; !err && i < 2; i++) {
		if (old[i] && old[i] != r->cluster)
			err = space_mark_free(pool->space, old[i], seq);
	}
	catalog_layer_touch(l);
	catalog_layer_touch(child);
	resolve_forget(pool, l, r->index);
	return err;
}

/* ---- volumes and layers --------------------------------------------------------------------------------------------------- */

static void name_copy(char out[POOL_NAME_MAX + 1], const uint8_t name[64])
{
	memcpy(out, name, POOL_NAME_MAX);
	out[POOL_NAME_MAX] = '\0';
}

static int prepare_volume_create(struct pool *pool, const void *record, struct pins *pins)
{
	(void)pins;
	const struct record_volume_create *r = record;
	int err = catalog_slot_prepare(pool->catalog, r->slot);
	return err ? err : catalog_slot_prepare(pool->catalog, r->head_slot);
}

static int apply_volume_create(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_volume_create *r = record;
	struct uuid id, head_id;
	char name[POOL_NAME_MAX + 1];
	struct layer *parent = catalog_layer_refer(pool->catalog, number_get(r->parent));
	memcpy(id.b, r->id, sizeof(id.b));
	memcpy(head_id.b, r->head_id, sizeof(head_id.b));
	name_copy(name, r->name);
	if ((number_get(r->parent) && !parent) || catalog_volume_by_id(pool->catalog, &id))
		return OXE_CORRUPT;
	struct volume *v = catalog_volume_add(pool->catalog, number_get(r->number), r->slot, &id, name);
	v->size_bytes = number_get(r->size_bytes);
	v->created_wall_ns = number_get(r->created_wall_ns);
	v->lba_bytes = r->lba_bytes;
	v->flags = r->flags;
	v->head = catalog_layer_add(pool->catalog, number_get(r->head_number), r->head_slot, &head_id, v,
				    parent);
	v->head->size_bytes = v->size_bytes;
	return 0;
}

/* Nothing to change: it is as lost as before. */
static int was_lost(struct pool *pool)
{
	pool->records_lost++;
	return 0;
}

static int apply_volume_set(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_volume_set *r = record;
	struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->number));
	char name[POOL_NAME_MAX + 1];
	if (!v)
		return OXE_CORRUPT;
	if (v->lost)
		return was_lost(pool);
	name_copy(name, r->name);
	if (strcmp(name, v->name) != 0)
		catalog_volume_set_name(pool->catalog, v, name);
	v->size_bytes = number_get(r->size_bytes);
	v->head->size_bytes = v->size_bytes;
	v->flags = r->flags;
	catalog_volume_touch(pool->catalog, v);
	catalog_layer_touch(v->head);
	return 0;
}

/* Sealed, nameless and of no volume: the layer stays for as long as others need it, and is then reaped (job.c). */
static void layer_orphan(struct pool *pool, struct layer *l)
{
	l->sealed = true;
	catalog_layer_set_name(pool->catalog, l, NULL);
	catalog_layer_set_volume(l, NULL);
	space_window_release(pool->space, &l->window);
}

/* Notes that are not resident could not be given back. The pins go before anything can suspend, and nothing else evicts. */
static int bring_notes(struct volume *v, struct pins *pins)
{
	int err = v ? 0 : OXE_CORRUPT;
	for (unsigned kind = 0; !err && kind < NOTE_KINDS; kind++) {
		err = page_get(&v->notes, 0, kind, false, &pins->pages[pins->count]);
		pins->count += !err;
		if (err == OXE_NOENT || err == OXE_CORRUPT)
			err = 0;
	}
	pins_release(pins);
	return err;
}

static int prepare_volume_delete(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_volume_delete *r = record;
	return bring_notes(catalog_volume_refer(pool->catalog, number_get(r->number)), pins);
}

static int apply_volume_delete(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_volume_delete *r = record;
	struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->number));
	if (!v)
		return OXE_CORRUPT;
	pool->records_lost += v->lost;
	while (!list_empty(&v->layers))
		layer_orphan(pool, list_first(&v->layers, struct layer, in_volume));
	tree_give_back_lost(&v->notes);
	catalog_volume_remove(pool->catalog, v);
	return 0;
}

static void head_set(struct pool *pool, struct volume *v, struct layer *head)
{
	head->size_bytes = v->size_bytes;
	if (v->lost)
		return;
	v->head = head;
	catalog_volume_touch(pool->catalog, v);
}

static int prepare_snapshot(struct pool *pool, const void *record, struct pins *pins)
{
	(void)pins;
	const struct record_snapshot *r = record;
	const struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->volume));
	return v && !volume_head(v) ? 0 : catalog_slot_prepare(pool->catalog, r->new_head_slot);
}

/* The volume may be lost, and with it what size it had. */
static uint64_t sealed_size(const struct layer *l, const struct record_snapshot *r)
{
	if (r->head.len_bytes >= sizeof(*r))
		return number_get(r->size_bytes);
	return l->volume->lost ? l->size_bytes : l->volume->size_bytes;
}

static void head_seal(struct pool *pool, struct layer *l, const struct record_snapshot *r)
{
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	if (l->map.lost)
		return;
	memcpy(id.b, r->id, sizeof(id.b));
	name_copy(name, r->name);
	l->sealed = true;
	catalog_layer_set_name(pool->catalog, l, name);
	l->size_bytes = sealed_size(l, r);
	l->created_wall_ns = number_get(r->created_wall_ns);
	catalog_layer_set_id(pool->catalog, l, &id);
	space_window_release(pool->space, &l->window);
}

static int apply_snapshot(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_snapshot *r = record;
	struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->volume));
	struct uuid head_id;
	if (!v)
		return OXE_CORRUPT;
	struct layer *sealed = volume_head(v);
	pool->records_lost += !sealed || v->lost;
	if (!sealed)
		return 0; /* and the new head, which nobody lists, is as lost as the old one */
	memcpy(head_id.b, r->new_head_id, sizeof(head_id.b));
	head_seal(pool, sealed, r);
	head_set(pool, v,
		 catalog_layer_add(pool->catalog, number_get(r->new_head), r->new_head_slot, &head_id, v,
				   sealed));
	return 0;
}

static int apply_layer_set(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_layer_set *r = record;
	struct layer *l = catalog_layer_refer(pool->catalog, number_get(r->number));
	bool named = r->flags & LAYER_NAMED;
	char name[POOL_NAME_MAX + 1];
	if (l && l->map.lost)
		return was_lost(pool);
	if (!l || !l->sealed || (named && !l->volume))
		return OXE_CORRUPT;
	name_copy(name, r->name);
	catalog_layer_set_name(pool->catalog, l, named ? name : NULL);
	catalog_layer_touch(l);
	return 0;
}

static int prepare_revert(struct pool *pool, const void *record, struct pins *pins)
{
	(void)pins;
	return catalog_slot_prepare(pool->catalog, ((const struct record_revert *)record)->new_head_slot);
}

static int apply_revert(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_revert *r = record;
	struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->volume));
	struct layer *to = catalog_layer_refer(pool->catalog, number_get(r->layer));
	struct uuid head_id;
	if (!v || !to || (!to->map.lost && (to->volume != v || !to->sealed)))
		return OXE_CORRUPT;
	struct layer *old = volume_head(v);
	pool->records_lost += v->lost;
	memcpy(head_id.b, r->new_head_id, sizeof(head_id.b));
	if (old)
		layer_orphan(pool, old);
	if (!to->map.lost)
		v->size_bytes = to->size_bytes;
	head_set(
		pool, v,
		catalog_layer_add(pool->catalog, number_get(r->new_head), r->new_head_slot, &head_id, v, to));
	return 0;
}

static int prepare_graft(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_graft *r = record;
	return bring_notes(catalog_volume_refer(pool->catalog, number_get(r->fresh)), pins);
}

/* Names are a volume's. */
static void layer_adopt(struct pool *pool, struct layer *l, struct volume *v)
{
	char name[POOL_NAME_MAX + 1];
	bool named = l->named;
	memcpy(name, l->name, sizeof(name));
	if (named)
		catalog_layer_set_name(pool->catalog, l, NULL);
	catalog_layer_set_volume(l, v);
	if (named)
		catalog_layer_set_name(pool->catalog, l, name);
}

/* The root of a fresh volume stands on nothing; beside something lost, on a layer that was merged into it and removed, but could not be
 * (apply_layer_remove). It has no need of that, and leaves it. */
static bool is_fresh_root(const struct pool *pool, const struct layer *l, const struct volume *fresh)
{
	return l->map.lost || (l->volume == fresh && (!l->parent || (pool->records_lost && !MUTANT(79))));
}

/* The head that goes is given back like that of a revert. */
static int apply_graft(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_graft *r = record;
	struct catalog *c = pool->catalog;
	struct volume *v = catalog_volume_refer(c, number_get(r->volume));
	struct volume *fresh = catalog_volume_refer(c, number_get(r->fresh));
	struct layer *base = catalog_layer_refer(c, number_get(r->base));
	struct layer *root = catalog_layer_refer(c, number_get(r->root));
	struct layer *top = catalog_layer_refer(c, number_get(r->top));
	if (!v || !fresh || v == fresh || !base || !root || !top)
		return OXE_CORRUPT;
	if ((!base->map.lost && (base->volume != v || !base->sealed)) || !is_fresh_root(pool, root, fresh) ||
	    (!top->map.lost && (top->volume != fresh || top->sealed)))
		return OXE_CORRUPT;
	struct layer *old = volume_head(v);
	pool->records_lost += v->lost || fresh->lost || base->map.lost || root->map.lost || top->map.lost;
	if (old)
		layer_orphan(pool, old);
	while (!list_empty(&fresh->layers))
		layer_adopt(pool, list_first(&fresh->layers, struct layer, in_volume), v);
	if (!root->map.lost)
		catalog_layer_set_parent(root, base);
	if (top->map.lost && top->volume != v)
		catalog_layer_set_volume(top, v);
	v->size_bytes = number_get(r->size_bytes);
	head_set(pool, v, top);
	tree_give_back_lost(&fresh->notes);
	catalog_volume_remove(c, fresh);
	resolve_forget_all(pool);
	return 0;
}

static int apply_layer_remove(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_layer_one *r = record;
	struct layer *l = catalog_layer_refer(pool->catalog, number_get(r->number));
	if (l && l->map.lost)
		return was_lost(pool);
	if (l && pool->records_lost && (l->cluster_count || l->child_count > 1))
		return 0; /* what it, or a child of it, has left could not be given back */
	if (!l || l->named || !l->sealed || l->cluster_count || l->child_count > 1)
		return OXE_CORRUPT;
	if (l->child_count == 1)
		catalog_layer_set_parent(list_first(&l->children, struct layer, sibling), l->parent);
	catalog_layer_remove(pool->catalog, l);
	resolve_forget_all(pool);
	return 0;
}

static int apply_layer_detach(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_layer_one *r = record;
	struct layer *l = catalog_layer_refer(pool->catalog, number_get(r->number));
	if (!l)
		return OXE_CORRUPT;
	pool->records_lost += l->map.lost;
	catalog_layer_set_parent(l, NULL);
	resolve_forget_all(pool);
	return 0;
}

/* ---- notes ---------------------------------------------------------------------------------------------------------------- */

/* The record says all of the note: what cannot be believed of it does not matter, unless it is other notes, too. */
static int prepare_note_set(struct pool *pool, const void *record, struct pins *pins)
{
	const struct record_note_set *r = record;
	struct volume *v = catalog_volume_refer(pool->catalog, number_get(r->volume));
	if (!v)
		return OXE_CORRUPT;
	int err = tree_raise(&v->notes, r->kind + 1u);
	if (!err)
		err = page_get(&v->notes, 0, r->kind, true, &pins->pages[0]);
	if (err == OXE_CORRUPT && !v->lost)
		err = page_renew(&v->notes, r->kind, &pins->pages[0]);
	if (err == OXE_CORRUPT && pool->replaying) {
		pool->records_lost++;
		return v->lost ? 0 : page_disown(&v->notes, r->kind);
	}
	pins->count += !err;
	return err;
}

static int apply_note_set(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_note_set *r = record;
	struct volume *v = catalog_volume(pool->catalog, number_get(r->volume));
	struct page *p = page_peek(&v->notes, 0, r->kind, NULL);
	assert(p || pool->replaying);
	if (!p)
		return 0; /* lost */
	struct note_disk *note = page_edit(p);
	memset(note, 0, sizeof(*note));
	note->len_bytes = le32_of(r->len_bytes);
	memcpy(note->data, r->data, r->len_bytes);
	return 0;
}

static int prepare_pool_grow(struct pool *pool, const void *record, struct pins *pins)
{
	(void)pins;
	const struct record_pool_grow *r = record;
	uint64_t disk_clusters = rt_disk_info(pool->disk)->size_bytes / POOL_CLUSTER_BYTES;
	if (r->cluster_count < pool->cluster_count || r->cluster_count > disk_clusters)
		return OXE_CORRUPT;
	return space_grow_prepare(pool->space, r->cluster_count);
}

static int apply_pool_grow(struct pool *pool, uint64_t seq, const void *record)
{
	(void)seq;
	const struct record_pool_grow *r = record;
	uint64_t old = pool->cluster_count;
	pool->cluster_count = r->cluster_count;
	pool->ident.size_bytes = pool->cluster_count * POOL_CLUSTER_BYTES;
	pool_size_limits(pool);
	space_grow(pool->space, old);
	return 0;
}

static int prepare_nothing(struct pool *pool, const void *record, struct pins *pins)
{
	(void)pool;
	(void)record;
	(void)pins;
	return 0;
}

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

static const struct {
	uint32_t len_bytes;
	int (*prepare)(struct pool *pool, const void *record, struct pins *pins);
	int (*apply)(struct pool *pool, uint64_t seq, const void *record);
} types[RECORD_TYPES] = {
	[RECORD_DEFINE] = {sizeof(struct record_define), prepare_define, apply_define},
	[RECORD_REJECT] = {sizeof(struct record_reject), prepare_reject, apply_reject},
	[RECORD_ZERO] = {sizeof(struct record_zero), prepare_zero, apply_zero},
	[RECORD_MERGE] = {sizeof(struct record_merge), prepare_merge, apply_merge},
	[RECORD_DROP] = {sizeof(struct record_drop), prepare_drop, apply_drop},
	[RECORD_VOLUME_CREATE] = {sizeof(struct record_volume_create), prepare_volume_create,
				  apply_volume_create},
	[RECORD_VOLUME_SET] = {sizeof(struct record_volume_set), prepare_nothing, apply_volume_set},
	[RECORD_VOLUME_DELETE] = {sizeof(struct record_volume_delete), prepare_volume_delete,
				  apply_volume_delete},
	[RECORD_SNAPSHOT] = {offsetof(struct record_snapshot, size_bytes), prepare_snapshot, apply_snapshot},
	[RECORD_LAYER_SET] = {sizeof(struct record_layer_set), prepare_nothing, apply_layer_set},
	[RECORD_REVERT] = {sizeof(struct record_revert), prepare_revert, apply_revert},
	[RECORD_LAYER_REMOVE] = {sizeof(struct record_layer_one), prepare_nothing, apply_layer_remove},
	[RECORD_LAYER_DETACH] = {sizeof(struct record_layer_one), prepare_nothing, apply_layer_detach},
	[RECORD_POOL_GROW] = {sizeof(struct record_pool_grow), prepare_pool_grow, apply_pool_grow},
	[RECORD_DEFINE_OVER] = {sizeof(struct record_define_over), prepare_define, apply_define},
	[RECORD_NOTE_SET] = {sizeof(struct record_note_set), prepare_note_set, apply_note_set},
	[RECORD_GRAFT] = {sizeof(struct record_graft), prepare_graft, apply_graft},
};

static bool range_is_sane(uint32_t index, uint32_t count)
{
	return count > 0 && count <= PAGE_FANOUT && index % PAGE_FANOUT + count <= PAGE_FANOUT;
}

static bool size_is_sane(struct number_disk size)
{
	uint64_t size_bytes = number_get(size);
	return size_bytes >= VOLUME_SIZE_MIN && size_bytes <= VOLUME_SIZE_MAX &&
	       size_bytes % POOL_BLOCK_BYTES == 0;
}

int record_check(const struct record_head *head)
{
	const struct record_define *define = (const void *)head;
	const struct record_zero *zero = (const void *)head;
	const struct record_drop *drop = (const void *)head;
	const struct record_note_set *note = (const void *)head;
	const struct record_snapshot *snapshot = (const void *)head;
	const struct record_graft *graft = (const void *)head;
	if (head->type == 0 || head->type >= RECORD_TYPES || head->len_bytes < types[head->type].len_bytes)
		return OXE_CORRUPT;
	uint32_t extra = head->len_bytes - types[head->type].len_bytes;
	switch (head->type) {
	case RECORD_DEFINE:
		return define->mask && extra == 4 * (unsigned)__builtin_popcount(define->mask) ? 0
											       : OXE_CORRUPT;
	case RECORD_DEFINE_OVER:
		return define->mask && __builtin_popcount(define->mask) <= (int)OVER_BLOCKS_MAX &&
				       extra == sizeof(struct over_block) *
							(unsigned)__builtin_popcount(define->mask)
			       ? 0
			       : OXE_CORRUPT;
	case RECORD_ZERO:
		return extra == 0 && range_is_sane(zero->index, zero->count) && zero->flags <= ZERO_SAID
			       ? 0
			       : OXE_CORRUPT;
	case RECORD_DROP:
		return extra == 0 && range_is_sane(drop->index, drop->count) ? 0 : OXE_CORRUPT;
	case RECORD_NOTE_SET:
		return note->kind < NOTE_KINDS && note->len_bytes <= NOTE_BYTES_MAX &&
				       extra == u64_align_up(note->len_bytes, 4)
			       ? 0
			       : OXE_CORRUPT;
	case RECORD_SNAPSHOT:
		return extra == 0 || (extra == sizeof(struct number_disk) &&
				      size_is_sane(snapshot->size_bytes))
			       ? 0
			       : OXE_CORRUPT;
	case RECORD_GRAFT:
		return extra == 0 && size_is_sane(graft->size_bytes) ? 0 : OXE_CORRUPT;
	default:
		return extra == 0 && head->len_bytes <= RECORD_BYTES_USUAL ? 0 : OXE_CORRUPT;
	}
}

int record_prepare(struct pool *pool, const struct record_head *record, struct pins *pins)
{
	pins->count = 0;
	int err = types[record->type].prepare(pool, record, pins);
	if (err)
		pins_release(pins);
	return err;
}

int record_apply(struct pool *pool, uint64_t seq, const struct record_head *record)
{
	return types[record->type].apply(pool, seq, record);
}

uint64_t record_commit(struct pool *pool, const struct record_head *record)
{
	uint64_t seq = journal_append(pool->journal, record);
	int err = record_apply(pool, seq, record);
	assert(!err); /* the operation that made the record checked what it says */
	checkpoint_poll(pool);
	return seq;
}

int record_begin(struct pool *pool, const struct record_head *record, struct record_try *t)
{
	struct journal_room room = journal_room_of(record);
	int err = checkpoint_throttle(pool);
	if (!err)
		err = journal_reserve(pool->journal, room);
	if (err)
		return err;
	t->reserved_blocks = room.blocks;
	t->reserved_records = room.records;
	err = record_prepare(pool, record, &t->pins);
	if (err)
		journal_unreserve(pool->journal, room);
	return err;
}

void record_give_up(struct pool *pool, struct record_try *t)
{
	pins_release(&t->pins);
	journal_unreserve(pool->journal, (struct journal_room){t->reserved_records, t->reserved_blocks});
}

int record_end(struct pool *pool, const struct record_head *record, struct record_try *t, bool durable)
{
	uint64_t seq = record_commit(pool, record);
	journal_unreserve(pool->journal, (struct journal_room){.blocks = t->reserved_blocks});
	pins_release(&t->pins);
	int err = journal_wait(pool->journal, seq);
	return err || !durable ? err : flush_wait(pool->flush);
}

int record_do(struct pool *pool, const struct record_head *record, bool durable)
{
	struct record_try t;
	int err = record_begin(pool, record, &t);
	return err ? err : record_end(pool, record, &t, durable);
}
