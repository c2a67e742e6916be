/*
 * mirrored_create.c: a mirrored volume comes to be by one transaction, which has it, its name and its first view on record, all of it or
 * nothing. The copies are made by its keeper (node_mirror.c) after that, so a crash in between is finished at the next start. Asked again under
 * the same id it is the same volume, or an error if it is to be another one.
 */
#include "control/node/mirrored.h"

#include "base/log.h"

#include <stdio.h>

static int pools_resolve(struct node *n, const char *pools, struct view *view, struct node_why *why)
{
	char ref[POOL_NAME_MAX + UUID_TEXT_LEN + 1];
	for (const char *at = pools; at;) {
		const char *comma = strchr(at, ',');
		size_t length = comma ? (size_t)(comma - at) : strlen(at);
		struct uuid id;
		if (length == 0 || length >= sizeof(ref))
			return why_set(why, OXE_INVAL, "\"%.80s\" is no list of pools: POOL,POOL...", pools);
		if (view->replica_count == VIEW_REPLICAS_MAX)
			return why_set(why, OXE_INVAL, "a volume has at most %u copies", VIEW_REPLICAS_MAX);
		memcpy(ref, at, length);
		ref[length] = '\0';
		int err = mirrored_pool_resolve(n, ref, &id, why);
		if (err)
			return err;
		if (view_find(view, &id))
			return why_set(why, OXE_INVAL, "the pool \"%s\" is named twice", ref);
		view->replicas[view->replica_count++] =
			(struct view_replica){.pool_id = id, .role = VIEW_MEMBER};
		at = comma ? comma + 1 : NULL;
	}
	return 0;
}

int mirrored_name_is_free(struct node *n, const char *name, struct node_why *why)
{
	struct node_pool *p;
	struct volume_info info;
	list_for_each (p, &n->pools, link) {
		if (!p->pool || p->closing || volume_find(p->pool, name, &info) != 0)
			continue;
		why_set(why, OXE_EXISTS, "the pool \"%s\" has a volume \"%s\"", p->name, name);
		why_hint(why, "choose another name: a mirrored volume is known by it alone");
		return OXE_EXISTS;
	}
	if (!facts_volume_named(&n->meta.facts, name))
		return 0;
	why_set(why, OXE_EXISTS, "there is a mirrored volume \"%s\"", name);
	why_hint(why, "choose another name, or look at it with 'oxbow volume show %s'", name);
	return OXE_EXISTS;
}

/* Of deletions that are not over nothing is made anew under the same id. */
static int reaps_are_over(struct node *n, const struct uuid *id, struct node_why *why)
{
	const struct fact_reap *r;
	list_for_each (r, &n->meta.facts.reaps, link) {
		if (uuid_equal(&r->volume_id, id))
			return why_set(why, OXE_BUSY,
				       "copies of a deleted volume of this id are still being removed");
	}
	return 0;
}

/* Volume, name and first view: all of it or nothing. */
static int record_create(struct node *n, const struct fact_volume *f, const struct view *view,
			 struct node_why *why)
{
	char keys[3][FACT_KEY_SIZE];
	uint8_t *bytes = mem_alloc(VIEW_BYTES_MAX);
	char *volume = fact_volume_value(f), *name = fact_name_value(&f->id);
	fact_key(keys[0], "volume", &f->id);
	fact_name_key(keys[1], f->name);
	fact_key(keys[2], "view", &f->id);
	const struct meta_compare compares[] = {{.key = keys[0]}, {.key = keys[1]}, {.key = keys[2]}};
	const struct meta_write writes[] = {
		{.key = keys[0], .value = volume, .value_len_bytes = strlen(volume)},
		{.key = keys[1], .value = name, .value_len_bytes = strlen(name)},
		{.key = keys[2], .value = bytes, .value_len_bytes = view_encode(view, bytes)}};
	const struct meta_txn txn = {
		.compares = compares, .compare_count = 3, .writes = writes, .write_count = 3};
	int err = node_meta_commit(n, &txn, "creating a volume", why);
	if (err == OXE_DIFFERS) {
		why_set(why, OXE_EXISTS,
			"a mirrored volume of this name, or id, was made at the same moment");
		err = OXE_EXISTS;
	}
	free(volume);
	free(name);
	free(bytes);
	return err;
}

static int create_anew(struct node *n, const char *pools, const struct volume_spec *spec,
		       struct node_why *why)
{
	struct fact_volume f = {.id = spec->id,
				.home_id = n->id,
				.size_bytes = spec->size_bytes,
				.lba_bytes = spec->lba_bytes,
				.state = FACT_CREATING,
				.created_wall_ns = rt_wall_ns(n->options.rt)};
	struct view *view = mem_zalloc(sizeof(*view));
	*view = (struct view){.volume_id = spec->id, .epoch = 1};
	memcpy(f.name, spec->name, sizeof(f.name));
	int err = pools_resolve(n, pools, view, why);
	if (!err)
		err = mirrored_name_is_free(n, f.name, why);
	if (!err)
		err = reaps_are_over(n, &f.id, why);
	if (!err)
		err = record_create(n, &f, view, why);
	if (!err)
		LOG_INFO("volume.created", "a mirrored volume is on record", F_UUID("volume", &f.id),
			 F_STR("volume_name", f.name), F_U64("size_bytes", f.size_bytes),
			 F_U64("copies", view->replica_count));
	free(view);
	return err;
}

static int same_check(const struct fact_volume *f, const struct volume_spec *spec, struct node_why *why)
{
	if (strcmp(f->name, spec->name) == 0 && f->size_bytes == spec->size_bytes &&
	    f->lba_bytes == spec->lba_bytes && f->state != FACT_DELETING)
		return 0;
	return why_set(why, OXE_EXISTS, "this id is the volume \"%s\", of %llu bytes", f->name,
		       (unsigned long long)f->size_bytes);
}

int node_volume_create_mirrored(struct node *n, const char *pools, const struct volume_spec *spec,
				bool *created, struct node_volume *out, struct node_why *why)
{
	int err = volume_spec_check(spec, why);
	if (err)
		return err;
	if (!n->meta.is_known)
		return node_meta_away(n, why);
	const struct fact_volume *f = facts_volume(&n->meta.facts, &spec->id);
	*created = !f;
	err = f ? same_check(f, spec, why) : create_anew(n, pools, spec, why);
	if (!err)
		err = mirrored_serve_wait(n, &spec->id, why);
	return err ? err : mirrored_get(n, &spec->id, out, why);
}
