/*
 * catalog.c: see catalog.h.
 *
 * Pages of the CATALOG tree stay pinned: at 256 bytes an object, 10,000 volumes with a snapshot each take 5 MiB. Objects are
 * kept in order of number, which is order of age: numbers only grow. A parent is usually older than its child, but not where a chain
 * was grafted upon another.
 */
#include "data/store/catalog.h"

#include "base/log.h"
#include "base/prng.h"
#include "data/store/store.h"

#define SLOTS_MAX (1u << 24)

#define SLOT_NONE UINT32_MAX /* of a lost object */
#define MOVES_MAX 2u	     /* slots one record names */

enum slot_state { SLOT_FREE, SLOT_TAKEN, SLOT_VOLUME, SLOT_LAYER, SLOT_LOST };

struct slot {
	uint8_t state;
	bool touched;
	void *object; /* struct volume or struct layer */
};

/* Leaves that cannot be read: one, or all those below a page. */
struct lost_leaves {
	uint64_t first, count;
};

struct catalog {
	struct pool *pool;
	struct tree tree;
	struct page **pages; /* pinned, by leaf index; NULL: could not be read */
	struct slot *slots;
	uint32_t *touched;
	uint32_t page_count, page_capacity, touched_count, first_free;
	uint64_t next_number;
	struct htab layers_by_number, layers_by_id, snapshots_by_name;
	struct htab volumes_by_number, volumes_by_id, volumes_by_name;
	struct list volumes, layers; /* by age */
	struct list nameless;
	uint32_t volume_count, layer_count, snapshot_count;
	bool damaged;
	bool has_younger_parent; /* as loaded: some layer stands on one that is not older, as in every loop */
	struct lost_leaves *lost_leaves; /* in order */
	size_t lost_count;
	struct list lost_volumes, lost_layers; /* that others refer to */
	struct {
		uint32_t from, to;
	} moves[MOVES_MAX]; /* of the record being replayed */
	uint32_t move_count;
};

struct catalog *catalog_new(struct pool *pool)
{
	struct catalog *c = mem_zalloc(sizeof(*c));
	c->pool = pool;
	c->next_number = 1;
	list_init(&c->volumes);
	list_init(&c->layers);
	list_init(&c->nameless);
	list_init(&c->lost_volumes);
	list_init(&c->lost_layers);
	tree_init(&c->tree, pool, PAGE_CATALOG, 0, (struct root){0});
	return c;
}

/* ---- finding ----------------------------------------------------------------------------------------------------------- */

static uint64_t id_hash(const struct uuid *id)
{
	return hash_bytes(id->b, sizeof(id->b));
}

struct layer *catalog_layer(const struct catalog *c, uint64_t number)
{
	for (struct hnode *n = htab_first(&c->layers_by_number, hash_u64(number)); n; n = htab_next(n)) {
		struct layer *l = container_of(n, struct layer, number_node);
		if (l->number == number)
			return l;
	}
	return NULL;
}

struct volume *catalog_volume(const struct catalog *c, uint64_t number)
{
	for (struct hnode *n = htab_first(&c->volumes_by_number, hash_u64(number)); n; n = htab_next(n)) {
		struct volume *v = container_of(n, struct volume, number_node);
		if (v->number == number)
			return v;
	}
	return NULL;
}

struct layer *catalog_layer_by_id(const struct catalog *c, const struct uuid *id)
{
	for (struct hnode *n = htab_first(&c->layers_by_id, id_hash(id)); n; n = htab_next(n)) {
		struct layer *l = container_of(n, struct layer, id_node);
		if (uuid_equal(&l->id, id))
			return l;
	}
	return NULL;
}

struct volume *catalog_volume_by_id(const struct catalog *c, const struct uuid *id)
{
	for (struct hnode *n = htab_first(&c->volumes_by_id, id_hash(id)); n; n = htab_next(n)) {
		struct volume *v = container_of(n, struct volume, id_node);
		if (uuid_equal(&v->id, id))
			return v;
	}
	return NULL;
}

struct volume *catalog_volume_by_name(const struct catalog *c, const char *name)
{
	uint64_t hash = hash_bytes(name, strlen(name));
	for (struct hnode *n = htab_first(&c->volumes_by_name, hash); n; n = htab_next(n)) {
		struct volume *v = container_of(n, struct volume, name_node);
		if (strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

static uint64_t snapshot_hash(const struct volume *v, const char *name)
{
	return hash_bytes(name, strlen(name)) ^ hash_u64(v->number);
}

struct layer *catalog_snapshot_by_name(const struct catalog *c, const struct volume *v, const char *name)
{
	for (struct hnode *n = htab_first(&c->snapshots_by_name, snapshot_hash(v, name)); n;
	     n = htab_next(n)) {
		struct layer *l = container_of(n, struct layer, name_node);
		if (l->volume == v && strcmp(l->name, name) == 0)
			return l;
	}
	return NULL;
}

struct list *catalog_volumes(struct catalog *c)
{
	return &c->volumes;
}

struct list *catalog_nameless(struct catalog *c)
{
	return &c->nameless;
}

struct list *catalog_layers(struct catalog *c)
{
	return &c->layers;
}

uint32_t catalog_volume_count(const struct catalog *c)
{
	return c->volume_count;
}

uint32_t catalog_layer_count(const struct catalog *c)
{
	return c->layer_count;
}

uint32_t catalog_snapshot_count(const struct catalog *c)
{
	return c->snapshot_count;
}

static void name_forget(struct catalog *c, struct layer *l)
{
	list_del(&l->nameless);
	if (!l->named)
		return;
	htab_remove(&c->snapshots_by_name, &l->name_node);
	c->snapshot_count -= layer_is_snapshot(l);
	l->volume->snapshot_count -= layer_is_snapshot(l);
	l->named = false;
}

/* What has a name has a volume. */
void catalog_layer_set_name(struct catalog *c, struct layer *l, const char *name)
{
	assert(l->sealed);
	name_forget(c, l);
	memset(l->name, 0, sizeof(l->name));
	if (!name) {
		list_add_tail(&c->nameless, &l->nameless);
		return;
	}
	l->named = true;
	memcpy(l->name, name, strlen(name));
	htab_insert(&c->snapshots_by_name, &l->name_node, snapshot_hash(l->volume, name));
	c->snapshot_count += layer_is_snapshot(l);
	l->volume->snapshot_count += layer_is_snapshot(l);
}

void layer_count_clusters(struct layer *l, int64_t more)
{
	l->cluster_count += (uint64_t)more;
	if (l->volume)
		l->volume->cluster_count += (uint64_t)more;
}

struct root catalog_root(const struct catalog *c)
{
	return c->tree.root;
}

struct tree *catalog_tree(struct catalog *c)
{
	return &c->tree;
}

uint64_t catalog_next_number(const struct catalog *c)
{
	return c->next_number;
}

uint64_t catalog_new_number(struct catalog *c)
{
	return c->next_number++;
}

/* ---- slots and their pages ---------------------------------------------------------------------------------------------- */

/* *array grown to `count` items; those from `old_count` on are zero. */
static int array_grow(void *array, uint64_t old_count, uint64_t count, size_t item_bytes)
{
	uint8_t **items = array;
	uint8_t *grown = mem_try_realloc(*items, count * item_bytes);
	if (!grown)
		return OXE_NOMEM;
	memset(grown + old_count * item_bytes, 0, (count - old_count) * item_bytes);
	*items = grown;
	return 0;
}

/* Room for every slot to be touched is had with the slot: touching never fails. */
static int capacity_grow(struct catalog *c, uint32_t page_count)
{
	uint32_t old = c->page_capacity;
	uint64_t capacity = u64_max(page_count, 2 * (uint64_t)old);
	uint64_t old_slots = (uint64_t)old * CATALOG_PER_PAGE, slots = capacity * CATALOG_PER_PAGE;
	int err = array_grow(&c->pages, old, capacity, sizeof(*c->pages));
	if (!err)
		err = array_grow(&c->slots, old_slots, slots, sizeof(*c->slots));
	if (!err)
		err = array_grow(&c->touched, old_slots, slots, sizeof(*c->touched));
	if (!err)
		c->page_capacity = (uint32_t)capacity;
	return err;
}

static int slots_cover(struct catalog *c, uint32_t page_count)
{
	int err = page_count > c->page_capacity ? capacity_grow(c, page_count) : 0;
	if (!err && page_count > c->page_count)
		c->page_count = page_count;
	return err;
}

/* The first slot from `slot` on whose page is not lost. */
static uint32_t slot_past_lost(const struct catalog *c, uint32_t slot)
{
	for (size_t i = 0; i < c->lost_count; i++) {
		const struct lost_leaves *l = &c->lost_leaves[i];
		uint64_t leaf = slot / CATALOG_PER_PAGE;
		if (leaf >= l->first && leaf < l->first + l->count)
			slot = (uint32_t)u64_min((l->first + l->count) * CATALOG_PER_PAGE, SLOTS_MAX);
	}
	return slot;
}

static int slot_page_get(struct catalog *c, uint32_t slot)
{
	struct page *page;
	uint32_t leaf = slot / CATALOG_PER_PAGE;
	if (slot >= SLOTS_MAX)
		return OXE_CORRUPT;
	if (leaf < c->page_count && c->pages[leaf])
		return 0;
	int err = slots_cover(c, leaf + 1);
	if (!err)
		err = tree_raise(&c->tree, leaf + 1);
	if (!err)
		err = page_get(&c->tree, 0, leaf, true, &page);
	if (err)
		return err;
	if (c->pages[leaf])
		page_unpin(page); /* another fiber was faster */
	else
		c->pages[leaf] = page;
	return 0;
}

static bool slot_is_usable(const struct catalog *c, uint32_t slot)
{
	return slot_past_lost(c, slot) == slot &&
	       (slot >= c->page_count * CATALOG_PER_PAGE || c->slots[slot].state == SLOT_FREE);
}

int catalog_slot_take(struct catalog *c, uint32_t *slot)
{
	while (c->first_free < SLOTS_MAX && !slot_is_usable(c, c->first_free))
		c->first_free = (uint32_t)u64_max(c->first_free + 1, slot_past_lost(c, c->first_free));
	if (c->first_free >= SLOTS_MAX)
		return OXE_NOSPC;
	*slot = c->first_free;
	int err = slots_cover(c, *slot / CATALOG_PER_PAGE + 1);
	if (err)
		return err;
	c->slots[*slot].state = SLOT_TAKEN; /* before anything suspends */
	err = slot_page_get(c, *slot);
	if (err)
		catalog_slot_give(c, *slot);
	return err;
}

static int slot_move(struct catalog *c, uint32_t slot)
{
	assert(c->move_count < MOVES_MAX);
	c->moves[c->move_count].from = slot;
	int err = catalog_slot_take(c, &c->moves[c->move_count].to);
	c->move_count += !err;
	return err;
}

/* Live, a slot is the caller's by catalog_slot_take. Replayed beside damage, it may be on a lost page, or have another object that
 * had to move there, or to stay: nothing refers to an object by its slot, so it moves. Not to the record's other slot. */
int catalog_slot_prepare(struct catalog *c, uint32_t slot)
{
	bool may_move = c->pool->replaying && (c->damaged || c->pool->records_lost);
	if (may_move && !slot_is_usable(c, slot))
		return slot_move(c, slot);
	int err = slot_page_get(c, slot);
	if (!err && may_move && !MUTANT(70))
		c->slots[slot].state = SLOT_TAKEN;
	return err;
}

static uint32_t slot_moved(struct catalog *c, uint32_t slot)
{
	for (uint32_t i = 0; i < c->move_count; i++) {
		if (c->moves[i].from != slot)
			continue;
		slot = c->moves[i].to;
		c->moves[i] = c->moves[--c->move_count];
		break;
	}
	return slot;
}

void catalog_slot_give(struct catalog *c, uint32_t slot)
{
	c->slots[slot].state = SLOT_FREE;
	c->slots[slot].object = NULL;
	c->first_free = (uint32_t)u64_min(c->first_free, slot);
}

static void slot_touch(struct catalog *c, uint32_t slot)
{
	if (slot == SLOT_NONE || c->slots[slot].touched)
		return;
	c->slots[slot].touched = true;
	c->touched[c->touched_count++] = slot;
}

void catalog_layer_touch(struct layer *l)
{
	slot_touch(l->map.pool->catalog, l->slot);
}

void catalog_volume_touch(struct catalog *c, struct volume *v)
{
	slot_touch(c, v->slot);
}

uint64_t catalog_touched_slots(const struct catalog *c)
{
	return c->touched_count;
}

/* ---- objects ------------------------------------------------------------------------------------------------------------ */

static void object_added(struct catalog *c, uint32_t slot, enum slot_state state, void *object,
			 uint64_t number)
{
	assert(slot / CATALOG_PER_PAGE < c->page_count); /* it was taken, or prepared, or loaded */
	c->slots[slot].state = (uint8_t)state;
	c->slots[slot].object = object;
	c->next_number = u64_max(c->next_number, number + 1);
	slot_touch(c, slot);
}

static struct layer *layer_new(struct catalog *c, uint64_t number, uint32_t slot)
{
	struct layer *l = mem_zalloc(sizeof(*l));
	l->number = number;
	l->slot = slot;
	list_init(&l->children);
	list_init(&l->sibling);
	list_init(&l->in_volume);
	list_init(&l->window.link);
	list_init(&l->nameless);
	tree_init(&l->map, c->pool, PAGE_MAP, number, (struct root){0});
	l->map.layer = l;
	htab_insert(&c->layers_by_number, &l->number_node, hash_u64(number));
	return l;
}

struct layer *catalog_layer_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				struct volume *volume, struct layer *parent)
{
	slot = slot_moved(c, slot);
	struct layer *l = layer_new(c, number, slot);
	l->id = *id;
	htab_insert(&c->layers_by_id, &l->id_node, id_hash(id));
	list_add_tail(&c->layers, &l->age);
	c->layer_count++;
	object_added(c, slot, SLOT_LAYER, l, number);
	catalog_layer_set_volume(l, volume);
	catalog_layer_set_parent(l, parent);
	return l;
}

static struct volume *volume_new(struct catalog *c, uint64_t number, uint32_t slot)
{
	struct volume *v = mem_zalloc(sizeof(*v));
	v->number = number;
	v->slot = slot;
	list_init(&v->layers);
	waitq_init(&v->gate);
	tree_init(&v->notes, c->pool, PAGE_NOTE, number, (struct root){0});
	v->notes.volume = v;
	htab_insert(&c->volumes_by_number, &v->number_node, hash_u64(number));
	return v;
}

struct volume *catalog_volume_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				  const char *name)
{
	slot = slot_moved(c, slot);
	struct volume *v = volume_new(c, number, slot);
	v->id = *id;
	htab_insert(&c->volumes_by_id, &v->id_node, id_hash(id));
	htab_insert(&c->volumes_by_name, &v->name_node, hash_bytes(name, strlen(name)));
	memcpy(v->name, name, strlen(name) + 1);
	list_add_tail(&c->volumes, &v->age);
	c->volume_count += !pool_name_is_system(name);
	object_added(c, slot, SLOT_VOLUME, v, number);
	return v;
}

void catalog_layer_set_id(struct catalog *c, struct layer *l, const struct uuid *id)
{
	htab_remove(&c->layers_by_id, &l->id_node);
	l->id = *id;
	htab_insert(&c->layers_by_id, &l->id_node, id_hash(id));
	catalog_layer_touch(l);
}

void catalog_layer_set_parent(struct layer *l, struct layer *parent)
{
	if (l->parent) {
		list_del(&l->sibling);
		l->parent->child_count--;
	}
	l->parent = parent;
	if (parent) {
		list_add_tail(&parent->children, &l->sibling);
		parent->child_count++;
	}
	catalog_layer_touch(l);
}

/* By age, as after the next start. A new layer is the youngest. */
static void list_insert_by_number(struct volume *v, struct layer *l)
{
	struct list *after = v->layers.prev;
	while (after != &v->layers && list_entry(after, struct layer, in_volume)->number > l->number)
		after = after->prev;
	list_insert_between(&l->in_volume, after, after->next);
}

void catalog_layer_set_volume(struct layer *l, struct volume *v)
{
	assert(!l->named);
	if (l->volume) {
		list_del(&l->in_volume);
		l->volume->cluster_count -= l->cluster_count;
	}
	l->volume = v;
	if (v) {
		list_insert_by_number(v, l);
		v->cluster_count += l->cluster_count;
	}
	catalog_layer_touch(l);
}

void catalog_volume_set_name(struct catalog *c, struct volume *v, const char *name)
{
	htab_remove(&c->volumes_by_name, &v->name_node);
	memcpy(v->name, name, strlen(name) + 1);
	htab_insert(&c->volumes_by_name, &v->name_node, hash_bytes(name, strlen(name)));
	catalog_volume_touch(c, v);
}

static void slot_vacate(struct catalog *c, uint32_t slot)
{
	if (slot == SLOT_NONE)
		return;
	slot_touch(c, slot);
	catalog_slot_give(c, slot);
}

static void layer_forget(struct catalog *c, struct layer *l)
{
	htab_remove(&c->layers_by_number, &l->number_node);
	list_del(&l->age);
	name_forget(c, l);
	if (!l->map.lost) {
		htab_remove(&c->layers_by_id, &l->id_node);
		c->layer_count--;
	}
	free(l);
}

void catalog_layer_remove(struct catalog *c, struct layer *l)
{
	assert(l->child_count == 0 && l->open_count == 0);
	space_window_release(c->pool->space, &l->window);
	catalog_layer_set_parent(l, NULL);
	catalog_layer_set_volume(l, NULL);
	tree_discard(&l->map);
	slot_vacate(c, l->slot);
	layer_forget(c, l);
}

/* Off every list but that of numbers. */
static void volume_unlist(struct catalog *c, struct volume *v)
{
	list_del(&v->age);
	if (v->lost)
		return;
	htab_remove(&c->volumes_by_id, &v->id_node);
	htab_remove(&c->volumes_by_name, &v->name_node);
	c->volume_count -= !pool_name_is_system(v->name);
}

static void volume_forget(struct catalog *c, struct volume *v)
{
	htab_remove(&c->volumes_by_number, &v->number_node);
	volume_unlist(c, v);
	free(v);
}

void catalog_volume_remove(struct catalog *c, struct volume *v)
{
	assert(list_empty(&v->layers) && v->open_count == 0);
	tree_discard(&v->notes);
	slot_vacate(c, v->slot);
	volume_forget(c, v);
}

void catalog_free(struct catalog *c)
{
	while (!list_empty(&c->layers)) {
		struct layer *l = list_first(&c->layers, struct layer, age);
		space_window_release(c->pool->space, &l->window);
		layer_forget(c, l);
	}
	while (!list_empty(&c->lost_layers))
		layer_forget(c, list_first(&c->lost_layers, struct layer, age));
	while (!list_empty(&c->volumes))
		volume_forget(c, list_first(&c->volumes, struct volume, age));
	while (!list_empty(&c->lost_volumes))
		volume_forget(c, list_first(&c->lost_volumes, struct volume, age));
	htab_free(&c->layers_by_number);
	htab_free(&c->layers_by_id);
	htab_free(&c->snapshots_by_name);
	htab_free(&c->volumes_by_number);
	htab_free(&c->volumes_by_id);
	htab_free(&c->volumes_by_name);
	for (uint32_t i = 0; i < c->page_count; i++) {
		if (c->pages[i])
			page_unpin(c->pages[i]);
	}
	free(c->pages);
	free(c->slots);
	free(c->touched);
	free(c->lost_leaves);
	free(c);
}

/* ---- what is lost -------------------------------------------------------------------------------------------------------- */

bool catalog_is_damaged(const struct catalog *c)
{
	return c->damaged;
}

int catalog_absent(const struct catalog *c)
{
	return c->damaged ? OXE_CORRUPT : OXE_NOENT;
}

struct layer *catalog_layer_refer(struct catalog *c, uint64_t number)
{
	struct layer *l = catalog_layer(c, number);
	if (l || !c->damaged || number == 0)
		return l;
	l = layer_new(c, number, SLOT_NONE);
	l->map.lost = true;
	list_add_tail(&c->lost_layers, &l->age);
	return l;
}

struct volume *catalog_volume_refer(struct catalog *c, uint64_t number)
{
	struct volume *v = catalog_volume(c, number);
	if (v || !c->damaged || number == 0)
		return v;
	v = volume_new(c, number, SLOT_NONE);
	v->lost = v->notes.lost = true;
	v->lba_bytes = 512; /* of its snapshots, which can still be read */
	list_add_tail(&c->lost_volumes, &v->age);
	return v;
}

bool volume_is_whole(const struct volume *v)
{
	const struct layer *l = v->head;
	while (l && !l->map.lost)
		l = l->parent;
	return !v->lost && !l;
}

/* From any layer of its own down: where one chain was grafted upon another the oldest need not be the lowest. */
const struct layer *volume_origin(const struct volume *v)
{
	const struct layer *l = v->head;
	if (!catalog_is_damaged(l->map.pool->catalog))
		l = list_first(&v->layers, struct layer, in_volume);
	while (l && l->volume == v)
		l = l->parent;
	return l;
}

struct layer *volume_head(const struct volume *v)
{
	struct layer *l;
	if (!v->lost)
		return v->head;
	list_for_each (l, &v->layers, in_volume) {
		if (!l->sealed)
			return l;
	}
	return NULL;
}

static int leaves_lose(struct catalog *c, unsigned level, uint64_t index)
{
	uint64_t count = tree_leaf_capacity(level + 1);
	int err = array_grow(&c->lost_leaves, c->lost_count, c->lost_count + 1, sizeof(*c->lost_leaves));
	if (err)
		return err;
	c->lost_leaves[c->lost_count++] = (struct lost_leaves){.first = index * count, .count = count};
	c->damaged = true;
	c->pool->pages_lost++;
	return 0;
}

int catalog_disown_lost(struct catalog *c)
{
	int err = 0;
	for (size_t i = 0; !err && i < c->lost_count; i++)
		err = page_disown(&c->tree, c->lost_leaves[i].first);
	return err;
}

/* ---- to pages ------------------------------------------------------------------------------------------------------------ */

static struct root_disk root_to_disk(struct root r)
{
	return (struct root_disk){le64_of(r.page), le32_of(r.generation), le32_of(r.height)};
}

static struct root root_from_disk(const struct root_disk *r)
{
	return (struct root){le64_get(r->page), le32_get(r->generation), le32_get(r->height)};
}

static void volume_encode(const struct volume *v, struct catalog_entry_disk *e)
{
	e->kind = CATALOG_VOLUME;
	e->flags = (uint8_t)v->flags;
	e->lba_bytes = le32_of(v->lba_bytes);
	e->number = le64_of(v->number);
	memcpy(e->id, v->id.b, sizeof(e->id));
	memcpy(e->name, v->name, strlen(v->name));
	e->size_bytes = le64_of(v->size_bytes);
	e->created_wall_ns = le64_of(v->created_wall_ns);
	e->link = le64_of(v->head->number);
	e->map = root_to_disk(v->notes.root);
}

static void layer_encode(const struct layer *l, struct catalog_entry_disk *e)
{
	e->kind = CATALOG_LAYER;
	e->flags = (uint8_t)((l->sealed ? LAYER_SEALED : 0) | (l->named ? LAYER_NAMED : 0));
	e->number = le64_of(l->number);
	memcpy(e->id, l->id.b, sizeof(e->id));
	memcpy(e->name, l->name, strlen(l->name));
	e->size_bytes = le64_of(l->size_bytes);
	e->created_wall_ns = le64_of(l->created_wall_ns);
	e->volume = le64_of(l->volume ? l->volume->number : 0);
	e->link = le64_of(l->parent ? l->parent->number : 0);
	e->map = root_to_disk(l->map.root);
	e->cluster_count = le64_of(l->cluster_count);
}

void catalog_write_slots(struct catalog *c)
{
	for (uint32_t i = 0; i < c->touched_count; i++) {
		struct slot *s = &c->slots[c->touched[i]];
		struct catalog_entry_disk *entries = page_edit(c->pages[c->touched[i] / CATALOG_PER_PAGE]);
		struct catalog_entry_disk *e = &entries[c->touched[i] % CATALOG_PER_PAGE];
		memset(e, 0, sizeof(*e));
		if (s->state == SLOT_VOLUME)
			volume_encode(s->object, e);
		else if (s->state == SLOT_LAYER)
			layer_encode(s->object, e);
		s->touched = false;
	}
	c->touched_count = 0;
}

/* ---- from pages ---------------------------------------------------------------------------------------------------------- */

struct loaded {
	const struct catalog_entry_disk *entry;
	uint32_t slot;
};

static int by_number(const void *a, const void *b)
{
	uint64_t x = le64_get(((const struct loaded *)a)->entry->number);
	uint64_t y = le64_get(((const struct loaded *)b)->entry->number);
	return x < y ? -1 : x > y;
}

/* An entry that contradicts others, or itself, on a page that is whole: the object is lost, its slot stays as it is. */
static void entry_lose(struct catalog *c, const struct loaded *at)
{
	LOG_ERROR("pool.catalog_entry_corrupt", "an entry of the list of volumes and layers makes no sense",
		  F_UUID("pool", &c->pool->ident.id), F_U64("slot", at->slot),
		  F_U64("number", le64_get(at->entry->number)));
	c->slots[at->slot].state = SLOT_LOST;
	c->slots[at->slot].object = NULL;
	c->damaged = true;
}

static bool entry_is_sane(const struct catalog *c, const struct catalog_entry_disk *e)
{
	uint64_t number = le64_get(e->number);
	bool named = e->kind == CATALOG_VOLUME || (e->flags & LAYER_NAMED);
	if (number == 0 || number >= c->next_number || e->name[sizeof(e->name) - 1] != 0)
		return false;
	if (named && pool_any_name_check((const char *)e->name))
		return false;
	uint64_t size_bytes = le64_get(e->size_bytes);
	if (size_bytes > VOLUME_SIZE_MAX || size_bytes % POOL_BLOCK_BYTES)
		return false;
	if (le32_get(e->map.height) > PAGE_LEVELS_MAX ||
	    le64_get(e->map.page) >= c->pool->cluster_count * PAGES_PER_CLUSTER)
		return false;
	if (e->kind == CATALOG_VOLUME)
		return le32_get(e->lba_bytes) == 512 || le32_get(e->lba_bytes) == 4096;
	return e->kind == CATALOG_LAYER && le64_get(e->link) < c->next_number &&
	       (!named || (le64_get(e->volume) && (e->flags & LAYER_SEALED)));
}

/* 0 or OXE_CORRUPT: another object says the same of itself. */
static int volume_decode(struct catalog *c, const struct loaded *at)
{
	const struct catalog_entry_disk *e = at->entry;
	struct uuid id;
	memcpy(id.b, e->id, sizeof(id.b));
	if (catalog_volume_by_name(c, (const char *)e->name) || catalog_volume_by_id(c, &id) ||
	    catalog_volume(c, le64_get(e->number)))
		return OXE_CORRUPT;
	struct volume *v = catalog_volume_add(c, le64_get(e->number), at->slot, &id, (const char *)e->name);
	v->flags = e->flags;
	v->lba_bytes = le32_get(e->lba_bytes);
	v->size_bytes = le64_get(e->size_bytes);
	v->created_wall_ns = le64_get(e->created_wall_ns);
	v->notes.root = root_from_disk(&e->map);
	return 0;
}

static int layer_decode(struct catalog *c, const struct loaded *at)
{
	const struct catalog_entry_disk *e = at->entry;
	struct uuid id;
	memcpy(id.b, e->id, sizeof(id.b));
	if (catalog_layer(c, le64_get(e->number)) || catalog_layer_by_id(c, &id))
		return OXE_CORRUPT;
	c->damaged = c->damaged || (le64_get(e->volume) && !catalog_volume(c, le64_get(e->volume)));
	struct volume *volume = catalog_volume_refer(c, le64_get(e->volume));
	struct layer *l = catalog_layer_add(c, le64_get(e->number), at->slot, &id, volume, NULL);
	l->sealed = e->flags & LAYER_SEALED;
	if (l->sealed)
		catalog_layer_set_name(c, l, e->flags & LAYER_NAMED ? (const char *)e->name : NULL);
	l->size_bytes = le64_get(e->size_bytes);
	l->created_wall_ns = le64_get(e->created_wall_ns);
	layer_count_clusters(l, (int64_t)le64_get(e->cluster_count));
	l->map.root = root_from_disk(&e->map);
	c->has_younger_parent |= le64_get(e->link) >= l->number;
	return 0;
}

static bool closes_loop(const struct catalog *c, const struct layer *l, const struct layer *parent)
{
	while (c->has_younger_parent && parent && parent != l)
		parent = parent->parent;
	return parent == l;
}

/* It stands in for itself: those that stand on it are not told that there is nothing below. */
static void layer_lose(struct catalog *c, struct layer *l)
{
	name_forget(c, l);
	catalog_layer_set_volume(l, NULL);
	htab_remove(&c->layers_by_id, &l->id_node);
	list_del(&l->age);
	list_add_tail(&c->lost_layers, &l->age);
	c->layer_count--;
	l->slot = SLOT_NONE;
	l->map.lost = true;
}

static int layer_decode_link(struct catalog *c, const struct loaded *at)
{
	uint64_t link = le64_get(at->entry->link);
	struct layer *l = catalog_layer(c, le64_get(at->entry->number));
	struct layer *parent = catalog_layer(c, link);
	if (closes_loop(c, l, parent)) {
		layer_lose(c, l);
		return OXE_CORRUPT;
	}
	c->damaged = c->damaged || (link && !parent);
	catalog_layer_set_parent(l, catalog_layer_refer(c, link));
	return 0;
}

static int head_decode(struct catalog *c, struct volume *v, uint64_t number)
{
	c->damaged = c->damaged || !catalog_layer(c, number);
	v->head = catalog_layer_refer(c, number);
	if (v->head && v->head->map.lost && !v->head->volume)
		catalog_layer_set_volume(v->head, v);
	return v->head && !v->head->sealed && v->head->volume == v ? 0 : OXE_CORRUPT;
}

static void volume_lose(struct catalog *c, struct volume *v)
{
	volume_unlist(c, v);
	v->lost = v->notes.lost = true;
	v->head = NULL;
	v->slot = SLOT_NONE;
	list_add_tail(&c->lost_volumes, &v->age);
}

/* Those of a kind in order of number. */
static void decode_kind(struct catalog *c, struct loaded *all, size_t count, enum catalog_kind kind,
			int (*decode)(struct catalog *c, const struct loaded *at))
{
	for (size_t i = 0; i < count; i++) {
		if (all[i].entry->kind == kind && c->slots[all[i].slot].state != SLOT_LOST &&
		    decode(c, &all[i]))
			entry_lose(c, &all[i]);
	}
}

static int volume_decode_head(struct catalog *c, const struct loaded *at)
{
	struct volume *v = catalog_volume(c, le64_get(at->entry->number));
	int err = head_decode(c, v, le64_get(at->entry->link));
	if (err)
		volume_lose(c, v);
	return err;
}

static void decode_all(struct catalog *c, struct loaded *all, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!entry_is_sane(c, all[i].entry))
			entry_lose(c, &all[i]);
	}
	decode_kind(c, all, count, CATALOG_VOLUME, volume_decode);
	decode_kind(c, all, count, CATALOG_LAYER, layer_decode);
	decode_kind(c, all, count, CATALOG_LAYER, layer_decode_link);
	decode_kind(c, all, count, CATALOG_VOLUME, volume_decode_head);
}

static void collect_page(const struct page *p, uint32_t leaf, struct loaded *all, size_t *count)
{
	const struct catalog_entry_disk *entries = page_view(p);
	for (uint32_t i = 0; i < CATALOG_PER_PAGE; i++) {
		if (entries[i].kind != CATALOG_FREE)
			all[(*count)++] = (struct loaded){&entries[i], leaf * CATALOG_PER_PAGE + i};
	}
}

/* Takes the pin. */
static int leaf_loaded(struct catalog *c, uint32_t leaf, struct page *p, struct loaded **all, size_t *count)
{
	int err = slots_cover(c, leaf + 1);
	if (!err)
		err = array_grow(all, *count, (uint64_t)c->page_count * CATALOG_PER_PAGE, sizeof(**all));
	if (err) {
		page_unpin(p);
		return err;
	}
	c->pages[leaf] = p;
	collect_page(p, leaf, *all, count);
	return 0;
}

/* The page and everything below it. A leaf stays pinned. */
static int load_below(struct catalog *c, unsigned level, uint64_t index, struct loaded **all, size_t *count)
{
	struct page *p;
	int err = index * tree_leaf_capacity(level + 1) >= SLOTS_MAX / CATALOG_PER_PAGE
			  ? OXE_CORRUPT
			  : page_get(&c->tree, level, index, false, &p);
	if (err == OXE_CORRUPT)
		return leaves_lose(c, level, index);
	if (err)
		return err == OXE_NOENT ? 0 : err;
	if (level == 0)
		return leaf_loaded(c, (uint32_t)index, p, all, count);
	for (uint64_t i = 0; !err && i < PAGE_FANOUT; i++) {
		if (((const struct inner_entry *)page_view(p))[i].page)
			err = load_below(c, level - 1, index * PAGE_FANOUT + i, all, count);
	}
	page_unpin(p);
	return err;
}

uint32_t catalog_damaged_volumes(const struct catalog *c)
{
	const struct volume *v;
	uint32_t count = 0;
	list_for_each (v, &c->volumes, age)
		count += c->damaged && !volume_is_whole(v);
	return count;
}

static void log_damage(const struct catalog *c)
{
	uint32_t broken = catalog_damaged_volumes(c);
	if (c->damaged)
		LOG_ERROR("pool.catalog_damaged",
			  "part of the list of volumes and layers is lost: nothing new is made in this pool, "
			  "and no space given back",
			  F_UUID("pool", &c->pool->ident.id), F_U64("pages_lost", c->lost_count),
			  F_U64("volumes_whole", c->volume_count - broken), F_U64("volumes_damaged", broken));
}

int catalog_load(struct catalog *c, struct root root, uint64_t next_number)
{
	struct loaded *all = NULL;
	size_t count = 0;
	c->next_number = next_number;
	tree_init(&c->tree, c->pool, PAGE_CATALOG, 0, root);
	int err = root.height ? load_below(c, root.height - 1, 0, &all, &count) : 0;
	if (!err && count > 0) {
		qsort(all, count, sizeof(*all), by_number);
		decode_all(c, all, count);
	}
	if (!err)
		log_damage(c);
	while (c->touched_count > 0) /* what was just read need not be written */
		c->slots[c->touched[--c->touched_count]].touched = false;
	free(all);
	return err;
}
