/* facts.c: records of the metastore, to and from JSON, and the table of them. See facts.h. */
#include "control/node/facts.h"

#include "control/js.h"

#include <stdio.h>

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

void fact_key(char key[FACT_KEY_SIZE], const char *kind, const struct uuid *id)
{
	char text[UUID_TEXT_LEN + 1];
	snprintf(key, FACT_KEY_SIZE, "%s/%s", kind, uuid_format(id, text));
}

void fact_name_key(char key[FACT_KEY_SIZE], const char *name)
{
	snprintf(key, FACT_KEY_SIZE, "name/%s", name);
}

void fact_reap_key(char key[FACT_KEY_SIZE], const struct uuid *pool_id, const struct uuid *volume_id)
{
	char pool[UUID_TEXT_LEN + 1], volume[UUID_TEXT_LEN + 1];
	snprintf(key, FACT_KEY_SIZE, "reap/%s/%s", uuid_format(pool_id, pool),
		 uuid_format(volume_id, volume));
}

void fact_note_key(char key[FACT_KEY_SIZE], const struct uuid *volume_id, unsigned kind)
{
	char volume[UUID_TEXT_LEN + 1];
	snprintf(key, FACT_KEY_SIZE, "note/%s/%u", uuid_format(volume_id, volume), kind);
}

/* ---- values: out ----------------------------------------------------------------------------------------------------- */

static struct js *record_begin(void)
{
	struct js *o = js_object();
	js_set_u64(o, "format", FACT_FORMAT);
	return o;
}

static char *record_end(struct js *o)
{
	char *text = js_print(o, false);
	js_free(o);
	return text;
}

char *fact_format_value(void)
{
	return record_end(record_begin());
}

char *fact_node_value(const struct fact_node *node)
{
	struct js *o = record_begin(), *addresses = js_array();
	js_set_text(o, "name", node->name);
	for (uint32_t i = 0; i < node->address_count; i++)
		js_push_text(addresses, node->addresses[i]);
	js_set(o, "addresses", addresses);
	js_set_u64(o, "beat", node->beat);
	return record_end(o);
}

char *fact_pool_value(const struct fact_pool *pool)
{
	struct js *o = record_begin();
	js_set_text(o, "name", pool->name);
	js_set_uuid(o, "node", &pool->node_id);
	return record_end(o);
}

static const char *const state_names[] = {"creating", "live", "deleting"};

const char *fact_state_name(enum fact_state state)
{
	return state_names[state];
}

char *fact_volume_value(const struct fact_volume *v)
{
	struct js *o = record_begin();
	js_set_text(o, "name", v->name);
	js_set_u64(o, "size_bytes", v->size_bytes);
	js_set_u64(o, "block_size_bytes", v->lba_bytes);
	js_set_uuid(o, "home", &v->home_id);
	js_set_text(o, "state", fact_state_name(v->state));
	js_set_u64(o, "created_wall_ns", v->created_wall_ns);
	return record_end(o);
}

char *fact_name_value(const struct uuid *volume_id)
{
	struct js *o = record_begin();
	js_set_uuid(o, "volume", volume_id);
	return record_end(o);
}

char *fact_reap_value(bool begun)
{
	struct js *o = record_begin();
	js_set_bool(o, "begun", begun);
	return record_end(o);
}

/* ---- values: in -------------------------------------------------------------------------------------------------------- */

static int uuid_member(const struct js *o, const char *key, struct uuid *out)
{
	const char *text = js_text(js_get(o, key));
	return text && uuid_parse(text, out) == 0 && !uuid_is_nil(out) ? 0 : OXE_CORRUPT;
}

static int text_member(const struct js *o, const char *key, char *out, size_t size_bytes)
{
	const char *text = js_text(js_get(o, key));
	if (!text || !*text || strlen(text) >= size_bytes)
		return OXE_CORRUPT;
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int name_member(const struct js *o, char out[POOL_NAME_MAX + 1])
{
	int err = text_member(o, "name", out, POOL_NAME_MAX + 1);
	return err || pool_name_check(out) ? OXE_CORRUPT : 0;
}

static int record_parse(const struct meta_entry *e, struct js **out)
{
	char why[120];
	uint64_t format;
	if (js_parse(e->value, e->value_len_bytes, out, why, sizeof(why)) != 0)
		return OXE_CORRUPT;
	int err = js_u64(js_get(*out, "format"), &format) ? 0 : OXE_CORRUPT;
	if (!err && format != FACT_FORMAT)
		err = OXE_VERSION;
	if (err)
		js_free(*out);
	return err;
}

static int node_decode(const struct js *o, struct fact_node *n)
{
	const struct js *addresses = js_get(o, "addresses");
	int err = text_member(o, "name", n->name, sizeof(n->name));
	if (err || !js_is_array(addresses) || !js_u64(js_get(o, "beat"), &n->beat))
		return OXE_CORRUPT;
	for (size_t i = 0; i < js_length(addresses) && n->address_count < FACT_ADDRESSES_MAX; i++) {
		const char *text = js_text(js_at(addresses, i));
		if (!text || strlen(text) >= FACT_TEXT_MAX)
			return OXE_CORRUPT;
		memcpy(n->addresses[n->address_count++], text, strlen(text) + 1);
	}
	return 0;
}

static int pool_decode(const struct js *o, struct fact_pool *p)
{
	int err = name_member(o, p->name);
	return err ? err : uuid_member(o, "node", &p->node_id);
}

static int state_member(const struct js *o, enum fact_state *out)
{
	const char *text = js_text(js_get(o, "state"));
	for (unsigned i = 0; text && i < ARRAY_COUNT(state_names); i++) {
		if (strcmp(text, state_names[i]) == 0) {
			*out = (enum fact_state)i;
			return 0;
		}
	}
	return OXE_CORRUPT;
}

static int volume_decode(const struct js *o, struct fact_volume *v)
{
	uint64_t lba_bytes;
	int err = name_member(o, v->name);
	if (!err)
		err = uuid_member(o, "home", &v->home_id);
	if (!err)
		err = state_member(o, &v->state);
	if (err)
		return err;
	if (!js_u64(js_get(o, "size_bytes"), &v->size_bytes) ||
	    !js_u64(js_get(o, "block_size_bytes"), &lba_bytes) || (lba_bytes != 512 && lba_bytes != 4096) ||
	    !js_u64(js_get(o, "created_wall_ns"), &v->created_wall_ns) || v->size_bytes < VOLUME_SIZE_MIN ||
	    v->size_bytes > VOLUME_SIZE_MAX || !u64_is_aligned(v->size_bytes, POOL_BLOCK_BYTES))
		return OXE_CORRUPT;
	v->lba_bytes = (uint32_t)lba_bytes;
	return 0;
}

static int view_of(const struct meta_entry *e, struct fact_view *out)
{
	struct view *v = mem_zalloc(sizeof(*v));
	int err = view_decode(e->value, e->value_len_bytes, v);
	if (!err && !uuid_equal(&v->volume_id, &out->volume_id))
		err = OXE_CORRUPT;
	if (!err) {
		out->engine_id = v->engine_id;
		out->epoch = v->epoch;
		out->count = v->replica_count;
	}
	for (uint32_t i = 0; !err && i < v->replica_count; i++) {
		out->pools[i] = v->replicas[i].pool_id;
		out->roles[i] = v->replicas[i].role;
	}
	free(v);
	return err;
}

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

/* Every fact begins with its link and its id. */
struct fact {
	struct list link;
	struct uuid id;
};
static_assert(offsetof(struct fact_node, id) == offsetof(struct fact, id), "a fact");
static_assert(offsetof(struct fact_pool, id) == offsetof(struct fact, id), "a fact");
static_assert(offsetof(struct fact_volume, id) == offsetof(struct fact, id), "a fact");
static_assert(offsetof(struct fact_view, volume_id) == offsetof(struct fact, id), "a fact");
static_assert(offsetof(struct fact_reap, pool_id) == offsetof(struct fact, id), "a fact");

void facts_init(struct facts *f)
{
	list_init(&f->nodes);
	list_init(&f->pools);
	list_init(&f->volumes);
	list_init(&f->views);
	list_init(&f->reaps);
	f->has_format = false;
}

static void list_clear(struct list *list)
{
	struct fact *fact;
	while ((fact = list_pop(list, struct fact, link)))
		free(fact);
}

void facts_clear(struct facts *f)
{
	list_clear(&f->nodes);
	list_clear(&f->pools);
	list_clear(&f->volumes);
	list_clear(&f->views);
	list_clear(&f->reaps);
	f->has_format = false;
}

static void list_move(struct list *to, struct list *from)
{
	struct fact *fact;
	while ((fact = list_pop(from, struct fact, link)))
		list_add_tail(to, &fact->link);
}

void facts_take(struct facts *f, struct facts *from)
{
	facts_clear(f);
	list_move(&f->nodes, &from->nodes);
	list_move(&f->pools, &from->pools);
	list_move(&f->volumes, &from->volumes);
	list_move(&f->views, &from->views);
	list_move(&f->reaps, &from->reaps);
	f->has_format = from->has_format;
}

static void *fact_find(const struct list *list, const struct uuid *id)
{
	struct fact *fact;
	list_for_each (fact, list, link) {
		if (uuid_equal(&fact->id, id))
			return fact;
	}
	return NULL;
}

const struct fact_node *facts_node(const struct facts *f, const struct uuid *id)
{
	return fact_find(&f->nodes, id);
}

const struct fact_pool *facts_pool(const struct facts *f, const struct uuid *id)
{
	return fact_find(&f->pools, id);
}

const struct fact_volume *facts_volume(const struct facts *f, const struct uuid *id)
{
	return fact_find(&f->volumes, id);
}

const struct fact_view *facts_view(const struct facts *f, const struct uuid *volume_id)
{
	return fact_find(&f->views, volume_id);
}

const struct fact_volume *facts_volume_named(const struct facts *f, const char *name)
{
	const struct fact_volume *v;
	list_for_each (v, &f->volumes, link) {
		if (strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

const struct fact_reap *facts_reap(const struct facts *f, const struct uuid *pool_id,
				   const struct uuid *volume_id)
{
	const struct fact_reap *r;
	list_for_each (r, &f->reaps, link) {
		if (uuid_equal(&r->pool_id, pool_id) && uuid_equal(&r->volume_id, volume_id))
			return r;
	}
	return NULL;
}

/* ---- one entry -------------------------------------------------------------------------------------------------------------- */

static int node_make(const struct meta_entry *e, const struct js *o, const struct uuid *id, void *out)
{
	struct fact_node *n = out;
	n->id = *id;
	n->revision = e->mod_revision;
	return node_decode(o, n);
}

static int pool_make(const struct meta_entry *e, const struct js *o, const struct uuid *id, void *out)
{
	struct fact_pool *p = out;
	p->id = *id;
	p->revision = e->mod_revision;
	return pool_decode(o, p);
}

static int volume_make(const struct meta_entry *e, const struct js *o, const struct uuid *id, void *out)
{
	struct fact_volume *v = out;
	v->id = *id;
	v->revision = e->mod_revision;
	return volume_decode(o, v);
}

static int view_make(const struct meta_entry *e, const struct js *o, const struct uuid *id, void *out)
{
	struct fact_view *v = out;
	(void)o;
	v->volume_id = *id;
	v->revision = e->mod_revision;
	return view_of(e, v);
}

/* The new one takes the place of what was known, which is forgotten whatever the value says. */
static int fact_replace(struct list *list, const struct meta_entry *e, const struct uuid *id,
			size_t size_bytes, bool is_json,
			int (*make)(const struct meta_entry *, const struct js *, const struct uuid *,
				    void *))
{
	struct fact *old = fact_find(list, id), *fact;
	struct js *o = NULL;
	if (old)
		list_del(&old->link);
	free(old);
	if (e->deleted)
		return 0;
	int err = is_json ? record_parse(e, &o) : 0;
	if (err)
		return err;
	fact = mem_zalloc(size_bytes);
	list_init(&fact->link);
	err = make(e, o, id, fact);
	js_free(o);
	if (err)
		free(fact);
	else
		list_add_tail(list, &fact->link);
	return err;
}

static int reap_apply(struct facts *f, const struct meta_entry *e, const char *rest)
{
	char pool_text[UUID_TEXT_LEN + 1] = "";
	struct uuid pool_id, volume_id;
	struct js *o;
	if (strlen(rest) != 2 * UUID_TEXT_LEN + 1 || rest[UUID_TEXT_LEN] != '/')
		return OXE_CORRUPT;
	memcpy(pool_text, rest, UUID_TEXT_LEN);
	if (uuid_parse(pool_text, &pool_id) || uuid_parse(rest + UUID_TEXT_LEN + 1, &volume_id))
		return OXE_CORRUPT;
	struct fact_reap *r = (struct fact_reap *)(uintptr_t)facts_reap(f, &pool_id, &volume_id);
	if (r)
		list_del(&r->link);
	free(r);
	if (e->deleted)
		return 0;
	int err = record_parse(e, &o);
	if (err)
		return err;
	r = mem_zalloc(sizeof(*r));
	list_init(&r->link);
	r->pool_id = pool_id;
	r->volume_id = volume_id;
	r->revision = e->mod_revision;
	r->begun = js_true(js_get(o, "begun"));
	list_add_tail(&f->reaps, &r->link);
	js_free(o);
	return 0;
}

static int format_apply(struct facts *f, const struct meta_entry *e)
{
	struct js *o;
	f->has_format = !e->deleted;
	if (e->deleted)
		return 0;
	int err = record_parse(e, &o);
	if (!err)
		js_free(o);
	return err;
}

static const char *after(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0 ? key + strlen(prefix) : NULL;
}

int facts_apply(struct facts *f, const struct meta_entry *e, uint64_t now_ns)
{
	struct uuid id;
	const char *rest;
	if (strcmp(e->key, "format") == 0)
		return format_apply(f, e);
	if ((rest = after(e->key, "reap/")))
		return reap_apply(f, e, rest);
	const char *slash = strchr(e->key, '/');
	if (!slash || uuid_parse(slash + 1, &id) != 0)
		return 0;
	if (after(e->key, "node/")) {
		int err = fact_replace(&f->nodes, e, &id, sizeof(struct fact_node), true, node_make);
		struct fact_node *n = fact_find(&f->nodes, &id);
		if (n)
			n->heard_ns = now_ns;
		return err;
	}
	if (after(e->key, "pool/"))
		return fact_replace(&f->pools, e, &id, sizeof(struct fact_pool), true, pool_make);
	if (after(e->key, "volume/"))
		return fact_replace(&f->volumes, e, &id, sizeof(struct fact_volume), true, volume_make);
	if (after(e->key, "view/"))
		return fact_replace(&f->views, e, &id, sizeof(struct fact_view), false, view_make);
	return 0;
}
