/*
 * catalog.c: see catalog.h.
 *
 * Pages of the CATALOG tree stay pinned: at 256 bytes an object, 10,000 volumes with a snapshot each take 5 MiB. Objects are
 * kept in order of number, which is order of age: numbers only grow, and a parent is always older than its child.
 */
#include "data/store/catalog.h"

#include "base/log.h"
#include "base/prng.h"
#include "data/store/store.h"

#define SLOTS_MAX (1u << 24)

enum slot_state { SLOT_FREE, SLOT_TAKEN, SLOT_VOLUME, SLOT_LAYER };

struct slot {
	uint8_t state;
	bool touched;
	void *object; /* struct volume or struct layer */
};

struct catalog {
	struct pool *pool;
	struct tree tree;
	struct page **pages; /* pinned, by leaf index; NULL: could not be read */
	struct slot *slots;
	uint32_t *touched;
	uint32_t page_count, page_capacity, touched_count, touched_capacity, first_free;
	uint64_t next_number;
	struct htab layers_by_number, layers_by_id, volumes_by_number, volumes_by_id, volumes_by_name;
	struct list volumes, layers; /* by age */
	uint32_t volume_count, layer_count;
};

struct catalog *catalog_new(struct pool *pool)
{
	struct catalog *c = mem_zalloc(sizeof(*c));
	c->pool = pool;
	c->next_number = 1;
	list_init(&c->volumes);
	list_init(&c->layers);
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

struct layer *volume_snapshot_by_name(const struct volume *v, const char *name)
{
	struct layer *l;
	list_for_each (l, &v->layers, in_volume) {
		if (l->named && strcmp(l->name, name) == 0)
			return l;
	}
	return NULL;
}

struct list *catalog_volumes(struct catalog *c)
{
	return &c->volumes;
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

static void slots_cover(struct catalog *c, uint32_t page_count)
{
	if (page_count > c->page_capacity) {
		uint32_t old = c->page_capacity;
		c->page_capacity = (uint32_t)u64_max(page_count, 2 * (uint64_t)old);
		c->pages = mem_realloc(c->pages, c->page_capacity * sizeof(*c->pages));
		c->slots = mem_realloc(c->slots,
				       (size_t)c->page_capacity * CATALOG_PER_PAGE * sizeof(*c->slots));
		memset(c->pages + old, 0, (c->page_capacity - old) * sizeof(*c->pages));
		memset(c->slots + (size_t)old * CATALOG_PER_PAGE, 0,
		       (size_t)(c->page_capacity - old) * CATALOG_PER_PAGE * sizeof(*c->slots));
	}
	if (page_count > c->page_count)
		c->page_count = page_count;
}

int catalog_slot_prepare(struct catalog *c, uint32_t slot)
{
	struct page *page;
	uint32_t leaf = slot / CATALOG_PER_PAGE;
	if (slot >= SLOTS_MAX)
		return OXE_CORRUPT;
	if (leaf < c->page_count && c->pages[leaf])
		return 0;
	int err = tree_raise(&c->tree, leaf + 1);
	if (!err)
		err = page_get(&c->tree, 0, leaf, true, &page);
	if (err)
		return err;
	slots_cover(c, leaf + 1);
	if (c->pages[leaf])
		page_unpin(page); /* another fiber was faster */
	else
		c->pages[leaf] = page;
	return 0;
}

int catalog_slot_take(struct catalog *c, uint32_t *slot)
{
	uint32_t limit = c->page_count * CATALOG_PER_PAGE;
	while (c->first_free < limit && c->slots[c->first_free].state != SLOT_FREE)
		c->first_free++;
	*slot = c->first_free;
	slots_cover(c, *slot / CATALOG_PER_PAGE + 1);
	c->slots[*slot].state = SLOT_TAKEN; /* before anything suspends */
	int err = catalog_slot_prepare(c, *slot);
	if (err)
		catalog_slot_give(c, *slot);
	return err;
}

void catalog_slot_give(struct catalog *c, uint32_t slot)
{
	c->slots[slot].state = SLOT_FREE;
	c->slots[slot].object = NULL;
	c->first_free = (uint32_t)u64_min(c->first_free, slot);
}

static void slot_touch(struct catalog *c, uint32_t slot)
{
	if (c->slots[slot].touched)
		return;
	c->slots[slot].touched = true;
	if (c->touched_count == c->touched_capacity) {
		c->touched_capacity = c->touched_capacity ? c->touched_capacity * 2 : 64;
		c->touched = mem_realloc(c->touched, c->touched_capacity * sizeof(*c->touched));
	}
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
	slots_cover(c, slot / CATALOG_PER_PAGE + 1);
	c->slots[slot].state = (uint8_t)state;
	c->slots[slot].object = object;
	c->next_number = u64_max(c->next_number, number + 1);
	slot_touch(c, slot);
}

struct layer *catalog_layer_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				struct volume *volume, struct layer *parent)
{
	struct layer *l = mem_zalloc(sizeof(*l));
	l->number = number;
	l->slot = slot;
	l->id = *id;
	list_init(&l->children);
	list_init(&l->sibling);
	list_init(&l->in_volume);
	list_init(&l->window.link);
	tree_init(&l->map, c->pool, PAGE_MAP, number, (struct root){0});
	l->map.layer = l;
	htab_insert(&c->layers_by_number, &l->number_node, hash_u64(number));
	htab_insert(&c->layers_by_id, &l->id_node, id_hash(id));
	list_add_tail(&c->layers, &l->age);
	c->layer_count++;
	object_added(c, slot, SLOT_LAYER, l, number);
	catalog_layer_set_volume(l, volume);
	catalog_layer_set_parent(l, parent);
	return l;
}

struct volume *catalog_volume_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				  const char *name)
{
	struct volume *v = mem_zalloc(sizeof(*v));
	v->number = number;
	v->slot = slot;
	v->id = *id;
	list_init(&v->layers);
	waitq_init(&v->gate);
	htab_insert(&c->volumes_by_number, &v->number_node, hash_u64(number));
	htab_insert(&c->volumes_by_id, &v->id_node, id_hash(id));
	htab_insert(&c->volumes_by_name, &v->name_node, hash_bytes(name, strlen(name)));
	memcpy(v->name, name, strlen(name) + 1);
	list_add_tail(&c->volumes, &v->age);
	c->volume_count++;
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

void catalog_layer_set_volume(struct layer *l, struct volume *v)
{
	if (l->volume)
		list_del(&l->in_volume);
	l->volume = v;
	if (v)
		list_add_tail(&v->layers, &l->in_volume);
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
	slot_touch(c, slot);
	catalog_slot_give(c, slot);
}

static void layer_forget(struct catalog *c, struct layer *l)
{
	htab_remove(&c->layers_by_number, &l->number_node);
	htab_remove(&c->layers_by_id, &l->id_node);
	list_del(&l->age);
	c->layer_count--;
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

static void volume_forget(struct catalog *c, struct volume *v)
{
	htab_remove(&c->volumes_by_number, &v->number_node);
	htab_remove(&c->volumes_by_id, &v->id_node);
	htab_remove(&c->volumes_by_name, &v->name_node);
	list_del(&v->age);
	c->volume_count--;
	free(v);
}

void catalog_volume_remove(struct catalog *c, struct volume *v)
{
	assert(list_empty(&v->layers) && v->open_count == 0);
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
	while (!list_empty(&c->volumes))
		volume_forget(c, list_first(&c->volumes, struct volume, age));
	htab_free(&c->layers_by_number);
	htab_free(&c->layers_by_id);
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
	free(c);
}

/* ---- to pages ------------------------------------------------------------------------------------------------------------ */

static struct root_disk root_to_disk(struct root r)
{
	return (struct root_disk){le64_of(r.page), le32_of(r.generation), le32_of(r.height)};
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

static bool entry_is_sane(const struct catalog *c, const struct catalog_entry_disk *e)
{
	uint64_t number = le64_get(e->number);
	bool named = e->kind == CATALOG_VOLUME || (e->flags & LAYER_NAMED);
	if (number == 0 || number >= c->next_number || e->name[sizeof(e->name) - 1] != 0)
		return false;
	if (named && pool_name_check((const char *)e->name))
		return false;
	uint64_t size_bytes = le64_get(e->size_bytes);
	if (size_bytes > VOLUME_SIZE_MAX || size_bytes % POOL_BLOCK_BYTES)
		return false;
	if (e->kind == CATALOG_VOLUME)
		return le32_get(e->lba_bytes) == 512 || le32_get(e->lba_bytes) == 4096;
	return e->kind == CATALOG_LAYER && le32_get(e->map.height) <= PAGE_LEVELS_MAX;
}

static int volume_decode(struct catalog *c, const struct loaded *at)
{
	const struct catalog_entry_disk *e = at->entry;
	struct uuid id;
	memcpy(id.b, e->id, sizeof(id.b));
	if (catalog_volume_by_name(c, (const char *)e->name) || catalog_volume_by_id(c, &id))
		return OXE_CORRUPT;
	struct volume *v = catalog_volume_add(c, le64_get(e->number), at->slot, &id, (const char *)e->name);
	v->flags = e->flags;
	v->lba_bytes = le32_get(e->lba_bytes);
	v->size_bytes = le64_get(e->size_bytes);
	v->created_wall_ns = le64_get(e->created_wall_ns);
	return 0;
}

static int layer_decode(struct catalog *c, const struct loaded *at)
{
	const struct catalog_entry_disk *e = at->entry;
	struct uuid id;
	memcpy(id.b, e->id, sizeof(id.b));
	struct volume *volume = catalog_volume(c, le64_get(e->volume));
	struct layer *parent = catalog_layer(c, le64_get(e->link));
	if ((le64_get(e->volume) && !volume) || (le64_get(e->link) && !parent))
		return OXE_CORRUPT;
	struct layer *l = catalog_layer_add(c, le64_get(e->number), at->slot, &id, volume, parent);
	memcpy(l->name, e->name, sizeof(l->name));
	l->sealed = e->flags & LAYER_SEALED;
	l->named = e->flags & LAYER_NAMED;
	l->size_bytes = le64_get(e->size_bytes);
	l->created_wall_ns = le64_get(e->created_wall_ns);
	l->cluster_count = le64_get(e->cluster_count);
	l->map.root =
		(struct root){le64_get(e->map.page), le32_get(e->map.generation), le32_get(e->map.height)};
	return 0;
}

static int decode_all(struct catalog *c, struct loaded *all, size_t count)
{
	int err = 0;
	for (size_t i = 0; !err && i < count; i++) {
		if (!entry_is_sane(c, all[i].entry))
			err = OXE_CORRUPT;
		else if (all[i].entry->kind == CATALOG_VOLUME)
			err = volume_decode(c, &all[i]);
	}
	for (size_t i = 0; !err && i < count; i++) {
		if (all[i].entry->kind == CATALOG_LAYER)
			err = layer_decode(c, &all[i]);
	}
	for (size_t i = 0; !err && i < count; i++) {
		if (all[i].entry->kind != CATALOG_VOLUME)
			continue;
		struct volume *v = catalog_volume(c, le64_get(all[i].entry->number));
		v->head = catalog_layer(c, le64_get(all[i].entry->link));
		if (!v->head || v->head->sealed || v->head->volume != v)
			err = OXE_CORRUPT;
	}
	return err;
}

static void collect_page(const struct page *p, uint32_t leaf, struct loaded *all, size_t *count)
{
	const struct catalog_entry_disk *entries = page_view(p);
	for (uint32_t i = 0; i < CATALOG_PER_PAGE; i++) {
		if (entries[i].kind != CATALOG_FREE)
			all[(*count)++] = (struct loaded){&entries[i], leaf * CATALOG_PER_PAGE + i};
	}
}

static int load_pages(struct catalog *c, struct loaded **all, size_t *count)
{
	for (uint64_t leaf = 0;; leaf++) {
		struct page *p;
		int err = page_next_leaf(&c->tree, &leaf, &p);
		if (err == OXE_NOENT)
			return 0;
		if (err)
			return err;
		slots_cover(c, (uint32_t)leaf + 1);
		c->pages[leaf] = p;
		*all = mem_realloc(*all, (size_t)c->page_count * CATALOG_PER_PAGE * sizeof(**all));
		collect_page(p, (uint32_t)leaf, *all, count);
	}
}

int catalog_load(struct catalog *c, struct root root, uint64_t next_number)
{
	struct loaded *all = NULL;
	size_t count = 0;
	c->next_number = next_number;
	tree_init(&c->tree, c->pool, PAGE_CATALOG, 0, root);
	int err = load_pages(c, &all, &count);
	if (!err && count > 0) {
		qsort(all, count, sizeof(*all), by_number);
		err = decode_all(c, all, count);
	}
	if (err == OXE_CORRUPT)
		LOG_ERROR("pool.catalog_corrupt", "the list of volumes and layers contradicts itself",
			  F_UUID("pool", &c->pool->ident.id));
	while (c->touched_count > 0) /* what was just read need not be written */
		c->slots[c->touched[--c->touched_count]].touched = false;
	free(all);
	return err;
}
