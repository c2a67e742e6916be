/*
 * cache.c: see cache.h for the picture.
 *
 * One hash table finds every resident page by (tree, level, index), so a hit costs one probe whatever the height. A miss
 * climbs to the nearest resident ancestor and loads its way down.
 */
#include "data/store/cache.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "base/prng.h"
#include "data/store/space.h"
#include "data/store/metapage.h"
#include "data/store/store.h"

#define CACHE_PAGES_MIN 256

struct cache {
	struct pool *pool;
	struct page **buckets;
	size_t bucket_count; /* power of two */
	uint64_t page_count, limit_pages, dirty_count, misses;
	struct list lru;		    /* unpinned, clean; least recent first */
	struct list dirty[PAGE_LEVELS_MAX]; /* by level: freeze goes bottom up */
};

/* ---- finding ------------------------------------------------------------------------------------------------------- */

static size_t bucket_of(const struct cache *c, const struct tree *t, unsigned level, uint64_t index)
{
	uint64_t key = (t->owner * 8 + (uint64_t)t->kind) * 0x9e3779b97f4a7c15ULL + (index << 3 | level);
	return hash_u64(key) & (c->bucket_count - 1);
}

static struct page *find(struct cache *c, const struct tree *t, unsigned level, uint64_t index)
{
	struct page *p = c->buckets[bucket_of(c, t, level, index)];
	while (p && !(p->tree == t && p->index == index && p->level == level))
		p = p->hash_next;
	return p;
}

static void unhash(struct cache *c, struct page *p)
{
	struct page **link = &c->buckets[bucket_of(c, p->tree, p->level, p->index)];
	while (*link != p)
		link = &(*link)->hash_next;
	*link = p->hash_next;
}

struct cache *cache_new(struct pool *pool, uint64_t limit_bytes)
{
	struct cache *c = mem_zalloc(sizeof(*c));
	c->pool = pool;
	c->limit_pages = u64_max(limit_bytes / PAGE_BYTES, CACHE_PAGES_MIN);
	for (c->bucket_count = 1024; c->bucket_count < c->limit_pages; c->bucket_count *= 2)
		;
	c->buckets = mem_zalloc(c->bucket_count * sizeof(*c->buckets));
	list_init(&c->lru);
	for (unsigned i = 0; i < PAGE_LEVELS_MAX; i++)
		list_init(&c->dirty[i]);
	return c;
}

uint64_t cache_dirty_count(const struct cache *c)
{
	return c->dirty_count;
}

uint64_t cache_page_count(const struct cache *c)
{
	return c->page_count;
}

uint64_t cache_miss_count(const struct cache *c)
{
	return c->misses;
}

/* ---- a page's life -------------------------------------------------------------------------------------------------- */

uint8_t *page_image_alloc(void)
{
	void *data = aligned_alloc(RT_IO_ALIGN, PAGE_BYTES);
	if (!data)
		abort();
	return data;
}

static void page_destroy(struct cache *c, struct page *p)
{
	unhash(c, p);
	list_del(&p->tree_link);
	list_del(&p->lru_link);
	if (p->dirty) {
		list_del(&p->dirty_link);
		c->dirty_count--;
	}
	if (p->frozen)
		p->frozen->page = NULL;
	if (!p->frozen || p->frozen->data != p->data)
		free(p->data);
	if (p->parent)
		page_unpin(p->parent);
	c->page_count--;
	free(p);
}

static void evict_over_limit(struct cache *c)
{
	while (c->page_count >= c->limit_pages && !list_empty(&c->lru)) {
		struct page *p = list_pop(&c->lru, struct page, lru_link);
		if (p->referenced) { /* a second chance */
			p->referenced = false;
			list_add_tail(&c->lru, &p->lru_link);
		} else {
			page_destroy(c, p);
		}
	}
}

static struct page *page_new(struct cache *c, struct tree *t, unsigned level, uint64_t index,
			     struct page *parent)
{
	evict_over_limit(c);
	struct page *p = mem_zalloc(sizeof(*p));
	size_t bucket = bucket_of(c, t, level, index);
	p->tree = t;
	p->level = (uint8_t)level;
	p->index = index;
	p->pins = 1;
	p->parent = parent; /* takes the caller's pin on it */
	p->data = page_image_alloc();
	p->hash_next = c->buckets[bucket];
	c->buckets[bucket] = p;
	c->page_count++;
	list_add_tail(&t->pages, &p->tree_link);
	list_init(&p->lru_link);
	list_init(&p->dirty_link);
	waitq_init(&p->waiters);
	return p;
}

static void settle_into_lru(struct cache *c, struct page *p)
{
	if (p->pins == 0 && !p->dirty && !list_linked(&p->lru_link))
		list_add_tail(&c->lru, &p->lru_link);
}

void page_unpin(struct page *p)
{
	assert(p->pins > 0);
	p->pins--;
	settle_into_lru(p->tree->pool->cache, p);
}

static void pin_resident(struct page *p)
{
	p->pins++;
	p->referenced = true;
	if (list_linked(&p->lru_link))
		list_del(&p->lru_link);
}

void cache_free(struct cache *c)
{
	for (size_t i = 0; i < c->bucket_count; i++) {
		for (struct page *p = c->buckets[i], *next; p; p = next) {
			next = p->hash_next;
			assert(!p->frozen);
			free(p->data);
			free(p);
		}
	}
	free(c->buckets);
	free(c);
}

/* ---- believing what was read ------------------------------------------------------------------------------------------ */

static const char *map_entry_fault(const struct map_entry *e, uint64_t cluster_count)
{
	uint16_t data = e->defined & (uint16_t)~e->zero;
	if (e->zero & ~e->defined)
		return "a block is zero but not defined";
	if ((data != 0) != (e->cluster != 0))
		return "data blocks and cluster disagree";
	if (e->cluster >= cluster_count)
		return "a cluster lies beyond the end of the pool";
	return NULL;
}

static const char *payload_fault(struct pool *pool, const uint8_t *image, enum page_kind kind, unsigned level)
{
	const void *payload = image + PAGE_HEADER_BYTES;
	const struct map_entry *entries = payload;
	const struct inner_entry *inner = payload;
	uint64_t page_count = pool->cluster_count * PAGES_PER_CLUSTER;
	for (unsigned i = 0; level > 0 && i < PAGE_FANOUT; i++) {
		if (inner[i].page >= page_count)
			return "a child lies beyond the end of the pool";
	}
	for (unsigned i = 0; level == 0 && kind == PAGE_MAP && i < PAGE_FANOUT; i++) {
		const char *fault = map_entry_fault(&entries[i], pool->cluster_count);
		if (fault)
			return fault;
	}
	const struct note_disk *note = payload;
	if (level == 0 && kind == PAGE_NOTE && le32_get(note->len_bytes) > NOTE_BYTES_MAX)
		return "a note is too long";
	return NULL;
}

static const char *header_fault(struct pool *pool, const uint8_t *image, enum page_kind kind, uint64_t owner,
				unsigned level, uint64_t index, uint64_t address, uint32_t generation)
{
	const struct page_header_disk *h = (const void *)image;
	uint32_t crc = crc32c_around(image, PAGE_BYTES, offsetof(struct page_header_disk, crc));
	if (le32_get(h->crc) != crc && !MUTANT(57))
		return "its checksum does not match";
	if (memcmp(h->pool_id, &pool->ident.id, sizeof(h->pool_id)) != 0)
		return "it belongs to another pool";
	if (le64_get(h->page) != address && !MUTANT(58))
		return "it was meant for another place";
	if (h->kind != kind || h->level != level || (le64_get(h->owner) != owner && !MUTANT(59)) ||
	    le64_get(h->index) != index)
		return "it is another page";
	if (generation == 0)
		return "it was disowned"; /* whatever it says of itself: see page_disown */
	if ((uint32_t)le64_get(h->generation) != generation && !MUTANT(60))
		return "it is of another generation";
	return NULL;
}

int page_believe(struct pool *pool, const uint8_t *image, enum page_kind kind, uint64_t owner, unsigned level,
		 uint64_t index, uint64_t address, uint32_t generation)
{
	const char *fault = header_fault(pool, image, kind, owner, level, index, address, generation);
	if (!fault)
		fault = payload_fault(pool, image, kind, level);
	if (!fault)
		return 0;
	LOG_ERROR("pool.page_corrupt", "a metadata page cannot be believed", F_UUID("pool", &pool->ident.id),
		  F_U64("page", address), F_U64("kind", kind), F_U64("owner", owner), F_U64("level", level),
		  F_U64("index", index), F_STR("reason", fault));
	return OXE_CORRUPT;
}

void page_seal(struct pool *pool, const struct frozen *f, uint64_t generation, uint8_t *image)
{
	struct page_header_disk *h = (void *)image;
	memset(h, 0, sizeof(*h));
	h->kind = f->kind;
	h->level = f->level;
	h->owner = le64_of(f->owner);
	h->index = le64_of(f->index);
	h->page = le64_of(f->address);
	h->generation = le64_of(generation);
	h->next = le64_of(f->next);
	memcpy(h->pool_id, &pool->ident.id, sizeof(h->pool_id));
	h->crc = le32_of(crc32c(0, image, PAGE_BYTES));
}

/* ---- getting --------------------------------------------------------------------------------------------------------- */

static struct inner_entry *inner_of(struct page *parent, uint64_t child_index)
{
	struct inner_entry *entries = (void *)(parent->data + PAGE_HEADER_BYTES);
	return &entries[child_index % PAGE_FANOUT];
}

static int page_load(struct page *p)
{
	struct pool *pool = p->tree->pool;
	if (!metapage_is_used(pool->metapages, p->address)) {
		LOG_ERROR("pool.page_corrupt", "a metadata page lies where none should",
			  F_UUID("pool", &pool->ident.id), F_U64("page", p->address),
			  F_U64("owner", p->tree->owner), F_U64("index", p->index));
		return OXE_CORRUPT;
	}
	int err = metapage_read(pool, p->address, p->data);
	if (!err)
		err = page_believe(pool, p->data, p->tree->kind, p->tree->owner, p->level, p->index,
				   p->address, p->generation);
	return err;
}

/* Fill a page that is in the table but not yet loaded; everybody who finds it meanwhile waits. */
static int page_fill(struct cache *c, struct page *p)
{
	if (p->address == 0) {
		memset(p->data, 0, PAGE_BYTES);
		return 0;
	}
	c->misses++;
	p->loading = true;
	p->error = page_load(p);
	if (p->error == OXE_IO && MUTANT(61))
		p->error = OXE_NOENT;
	p->loading = false;
	waitq_wake_all(&p->waiters);
	return p->error;
}

/* Drop one pin of a page that could not be loaded; the last one out removes it, so that the next try reads again. */
static int page_give_up(struct cache *c, struct page *p)
{
	int err = p->error;
	if (--p->pins == 0)
		page_destroy(c, p);
	return err;
}

static int page_wait_loaded(struct cache *c, struct page *p)
{
	while (p->loading)
		waitq_wait(&p->waiters);
	return p->error ? page_give_up(c, p) : 0;
}

/* Where the tree says the page is: address 0 if nowhere. Takes a pin on the parent into *parent (NULL for the root). */
static int locate(struct tree *t, unsigned level, uint64_t index, bool create, struct page **parent,
		  struct inner_entry *where)
{
	*parent = NULL;
	*where = (struct inner_entry){.page = t->root.page, .generation = t->root.generation};
	if (level + 1 == t->root.height)
		return 0;
	int err = page_get(t, level + 1, index / PAGE_FANOUT, create, parent);
	if (!err)
		*where = *inner_of(*parent, index);
	return err;
}

int page_get(struct tree *t, unsigned level, uint64_t index, bool create, struct page **out)
{
	struct cache *c = t->pool->cache;
	struct page *p = find(c, t, level, index);
	if (!p) {
		struct page *parent;
		struct inner_entry where;
		if (t->lost)
			return OXE_CORRUPT;
		if (level >= t->root.height || index >= tree_leaf_capacity(t->root.height - level))
			return create ? OXE_RANGE : OXE_NOENT;
		int err = locate(t, level, index, create, &parent, &where);
		if (err)
			return err;
		p = find(c, t, level, index); /* somebody may have brought it while we climbed */
		if (!p && !where.page && !create) {
			if (parent)
				page_unpin(parent);
			return OXE_NOENT;
		}
		if (!p) {
			p = page_new(c, t, level, index, parent);
			p->address = where.page;
			p->generation = where.generation;
			err = page_fill(c, p);
			if (!err || MUTANT(62))
				*out = p;
			return err ? page_give_up(c, p) : 0;
		}
		if (parent)
			page_unpin(parent);
	}
	pin_resident(p);
	int err = page_wait_loaded(c, p);
	if (!err || MUTANT(62))
		*out = p;
	return err;
}

struct page *page_peek(struct tree *t, unsigned level, uint64_t index, bool *absent)
{
	struct cache *c = t->pool->cache;
	struct page *p = find(c, t, level, index);
	if (absent)
		*absent = false;
	if (p) {
		if (p->loading || p->error)
			return NULL;
		p->referenced = true;
		return p;
	}
	if (!absent || t->lost)
		return NULL;
	if (level >= t->root.height || index >= tree_leaf_capacity(t->root.height - level)) {
		*absent = true;
	} else if (level + 1 == t->root.height) {
		*absent = t->root.page == 0;
	} else {
		struct page *parent = page_peek(t, level + 1, index / PAGE_FANOUT, absent);
		if (parent)
			*absent = inner_of(parent, index)->page == 0;
	}
	return NULL;
}

/* A page that was created but never written is known only to the table: both must be asked. */
static bool child_exists(struct tree *t, struct page *parent, unsigned level, uint64_t index)
{
	return inner_of(parent, index)->page != 0 || find(t->pool->cache, t, level, index) != NULL;
}

/* The first existing page of `level` at or after *at, pinned; moves *at to it. Climbs first: whole empty subtrees are skipped. */
static int next_page(struct tree *t, unsigned level, uint64_t *at, struct page **out)
{
	if (level + 1 == t->root.height)
		return *at > 0 ? OXE_NOENT : page_get(t, level, 0, false, out);
	while (*at < tree_leaf_capacity(t->root.height - level)) {
		struct page *parent;
		uint64_t parent_at = *at / PAGE_FANOUT;
		int err = next_page(t, level + 1, &parent_at, &parent);
		if (err)
			return err;
		*at = u64_max(*at, parent_at * PAGE_FANOUT);
		uint64_t end = (parent_at + 1) * PAGE_FANOUT;
		while (*at < end && !child_exists(t, parent, level, *at))
			++*at;
		page_unpin(parent);
		if (*at == end)
			continue;
		err = page_get(t, level, *at, false, out);
		if (err != OXE_NOENT)
			return err;
		++*at; /* it was created, never written, and has been evicted since */
	}
	return OXE_NOENT;
}

int page_next_leaf(struct tree *t, uint64_t *index, struct page **out)
{
	if (t->lost)
		return OXE_CORRUPT;
	return t->root.height == 0 ? OXE_NOENT : next_page(t, 0, index, out);
}

/* ---- changing -------------------------------------------------------------------------------------------------------- */

/* The root changes: whoever remembers it is to be written too. */
static void owner_touch(struct tree *t)
{
	if (t->layer)
		catalog_layer_touch(t->layer);
	if (t->volume)
		catalog_volume_touch(t->pool->catalog, t->volume);
}

static void mark_dirty(struct cache *c, struct page *p)
{
	for (; p && !p->dirty; p = p->parent) {
		p->dirty = true;
		c->dirty_count++;
		list_add_tail(&c->dirty[p->level], &p->dirty_link);
		if (list_linked(&p->lru_link))
			list_del(&p->lru_link);
		if (!p->parent)
			owner_touch(p->tree);
	}
}

static void unshare_image(struct page *p)
{
	if (!p->frozen || p->frozen->data != p->data)
		return;
	p->data = page_image_alloc();
	memcpy(p->data, p->frozen->data, PAGE_BYTES);
}

void *page_edit(struct page *p)
{
	unshare_image(p);
	mark_dirty(p->tree->pool->cache, p);
	return p->data + PAGE_HEADER_BYTES;
}

/* On the way to leaf `index`: the page above the topmost one that cannot be believed, pinned; NULL if that is the root. OXE_NOENT if
 * all can. *at is its index among those of its level. */
static int above_lost(struct tree *t, uint64_t index, struct page **above, uint64_t *at)
{
	struct page *p;
	*above = NULL;
	for (unsigned level = t->root.height; level-- > 0;) {
		*at = index / tree_leaf_capacity(level + 1);
		int err = page_get(t, level, *at, false, &p);
		if (err == OXE_CORRUPT)
			return 0;
		if (*above)
			page_unpin(*above);
		*above = err ? NULL : p;
		if (err)
			return err;
	}
	if (*above)
		page_unpin(*above);
	return OXE_NOENT;
}

/* Change what the page above, or the root, remembers of a lost page. */
static void lost_entry_set(struct tree *t, struct page *above, uint64_t at, struct inner_entry e)
{
	if (above) {
		((struct inner_entry *)page_edit(above))[at % PAGE_FANOUT] = e;
		page_unpin(above);
		return;
	}
	t->root.page = e.page;
	t->root.generation = e.generation;
	owner_touch(t);
}

static uint64_t lost_address(const struct tree *t, struct page *above, uint64_t at)
{
	return above ? inner_of(above, at)->page : t->root.page;
}

int page_disown(struct tree *t, uint64_t index)
{
	struct page *above;
	uint64_t at;
	int err = above_lost(t, index, &above, &at);
	if (!err)
		lost_entry_set(t, above, at, (struct inner_entry){.page = lost_address(t, above, at)});
	return err == OXE_NOENT ? 0 : err;
}

/* A page above may name a place that was never one. */
static void place_give_back(struct tree *t, uint64_t address)
{
	if (address && metapage_is_used(t->pool->metapages, address))
		metapage_free(t->pool->metapages, address);
}

int page_drop_lost(struct tree *t, uint64_t index)
{
	struct page *above;
	uint64_t at;
	int err = above_lost(t, index, &above, &at);
	if (!err) {
		place_give_back(t, lost_address(t, above, at));
		lost_entry_set(t, above, at, (struct inner_entry){0});
	}
	return err == OXE_NOENT ? 0 : err;
}

/* Until the page is changed nothing but its place in the table is: not dirty, it is written by nobody. */
int page_renew(struct tree *t, uint64_t index, struct page **out)
{
	struct page *parent;
	struct inner_entry where;
	int err = locate(t, 0, index, false, &parent, &where);
	if (err)
		return err;
	if (find(t->pool->cache, t, 0, index)) { /* somebody else is looking at it just now */
		if (parent)
			page_unpin(parent);
		return OXE_CORRUPT;
	}
	*out = page_new(t->pool->cache, t, 0, index, parent);
	memset((*out)->data, 0, PAGE_BYTES);
	if (metapage_is_used(t->pool->metapages, where.page))
		(*out)->address = where.page; /* given back when the new page is frozen */
	return 0;
}

void tree_give_back_lost(struct tree *t)
{
	struct cache *c = t->pool->cache;
	const struct page *p;
	if (t->root.height > 0 && !find(c, t, t->root.height - 1, 0))
		place_give_back(t, t->root.page);
	list_for_each (p, &t->pages, tree_link) {
		const struct inner_entry *entries = page_view(p);
		for (uint64_t i = 0; p->level > 0 && i < PAGE_FANOUT; i++) {
			if (!find(c, t, p->level - 1, p->index * PAGE_FANOUT + i))
				place_give_back(t, entries[i].page);
		}
	}
}

void tree_init(struct tree *t, struct pool *pool, enum page_kind kind, uint64_t owner, struct root root)
{
	*t = (struct tree){.pool = pool, .kind = kind, .owner = owner, .root = root};
	list_init(&t->pages);
}

uint64_t tree_leaf_capacity(uint32_t height)
{
	uint64_t leaves = height > 0;
	for (uint32_t i = 1; i < height; i++)
		leaves *= PAGE_FANOUT;
	return leaves;
}

uint32_t tree_height_for(uint64_t leaf_count)
{
	uint32_t height = 1;
	while (tree_leaf_capacity(height) < leaf_count)
		height++;
	assert(height <= PAGE_LEVELS_MAX);
	return height;
}

static int raise_once(struct tree *t)
{
	struct root old = t->root;
	struct page *old_top = NULL, *top;
	if (old.page || find(t->pool->cache, t, old.height - 1, 0)) {
		int err = page_get(t, old.height - 1, 0, false, &old_top);
		if (err && err != OXE_NOENT && err != OXE_CORRUPT)
			return err;
		old_top = err ? NULL : old_top;
	}
	if (t->root.height != old.height) { /* another fiber raised it while we read */
		if (old_top)
			page_unpin(old_top);
		return 0;
	}
	t->root = (struct root){.height = old.height + 1};
	top = page_new(t->pool->cache, t, old.height, 0, NULL);
	memset(top->data, 0, PAGE_BYTES);
	*inner_of(top, 0) = (struct inner_entry){.page = old.page, .generation = old.generation};
	if (old_top) {
		old_top->parent = top;
		page_pin(top);
		page_unpin(old_top);
	}
	mark_dirty(t->pool->cache, top);
	page_unpin(top);
	return 0;
}

int tree_raise(struct tree *t, uint64_t leaf_count)
{
	if (t->lost)
		return OXE_CORRUPT;
	if (t->root.height == 0)
		t->root.height = tree_height_for(leaf_count);
	while (tree_leaf_capacity(t->root.height) < leaf_count) {
		int err = raise_once(t);
		if (err)
			return err;
	}
	return 0;
}

/* Children hold their parents: take the deepest first. */
void tree_discard(struct tree *t)
{
	struct cache *c = t->pool->cache;
	for (unsigned level = 0; level < PAGE_LEVELS_MAX; level++) {
		struct page *p, *tmp;
		list_for_each_safe (p, tmp, &t->pages, tree_link) {
			if (p->level != level)
				continue;
			assert(p->pins == 0 && !p->loading);
			if (p->address)
				metapage_free(t->pool->metapages, p->address);
			page_destroy(c, p);
		}
	}
	t->root = (struct root){0};
}

/* ---- freezing -------------------------------------------------------------------------------------------------------- */

static void point_parent(struct page *p, uint32_t generation)
{
	if (!p->parent) {
		p->tree->root.page = p->address;
		p->tree->root.generation = generation;
		return;
	}
	struct inner_entry *e = inner_of(p->parent, p->index);
	*e = (struct inner_entry){
		0}; /* all of it, so that a parent left with nothing is zero and vanishes, too */
	if (!p->address)
		return;
	e->page = p->address;
	e->generation = generation;
	e->aux = p->tree->kind == PAGE_BITMAP && p->level == 0
			 ? space_leaf_free(p->tree->pool->space, p->index)
			 : 0;
}

static void clean(struct cache *c, struct page *p)
{
	p->dirty = false;
	list_del(&p->dirty_link);
	c->dirty_count--;
	settle_into_lru(c, p);
}

void frozen_add(struct frozen *f, struct frozen **images[], size_t *count, size_t *capacity)
{
	if (*count == *capacity) {
		*capacity = *capacity ? *capacity * 2 : 64;
		*images = mem_realloc(*images, *capacity * sizeof(**images));
	}
	(*images)[(*count)++] = f;
}

static struct frozen *freeze_page(struct page *p, uint32_t generation)
{
	struct frozen *f = mem_zalloc(sizeof(*f));
	p->address = metapage_alloc(p->tree->pool->metapages);
	p->generation = generation;
	*f = (struct frozen){.page = p,
			     .data = p->data,
			     .address = p->address,
			     .index = p->index,
			     .owner = p->tree->owner,
			     .kind = (uint8_t)p->tree->kind,
			     .level = p->level};
	p->frozen = f;
	return f;
}

static void freeze_one(struct cache *c, struct page *p, uint32_t generation, struct frozen **images[],
		       size_t *count, size_t *capacity)
{
	bool may_vanish = p->tree->kind == PAGE_MAP || p->tree->kind == PAGE_NOTE;
	bool vanishes = may_vanish && bytes_are_zero(page_view(p), PAGE_PAYLOAD_BYTES);
	assert(!p->frozen);
	if (p->address)
		metapage_free(p->tree->pool->metapages, p->address);
	p->address = 0;
	if (!vanishes)
		frozen_add(freeze_page(p, generation), images, count, capacity);
	point_parent(p, generation);
	clean(c, p);
}

void cache_freeze(struct cache *c, enum page_kind kind, uint32_t generation, struct frozen **images[],
		  size_t *count, size_t *capacity)
{
	for (unsigned level = 0; level < PAGE_LEVELS_MAX; level++) {
		struct page *p, *tmp;
		list_for_each_safe (p, tmp, &c->dirty[level], dirty_link) {
			if (p->tree->kind == kind)
				freeze_one(c, p, generation, images, count, capacity);
		}
	}
}

void frozen_release(struct frozen *f)
{
	if (!f->page || f->page->data != f->data)
		free(f->data);
	if (f->page)
		f->page->frozen = NULL;
	free(f);
}
