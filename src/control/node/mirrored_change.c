/*
 * mirrored_change.c: a mirrored volume is renamed, grown, deleted, moved to another home. That is a change of its record, by compare-and-swap,
 * which the keepers then follow (node_mirror.c), here and at the home. What may be refused comes before the record: the engine makes the copies
 * larger, and ends for a volume that is to go, which it does not while a client has it open.
 */
#include "control/node/mirrored.h"

#include "base/log.h"

#include <stdio.h>

#define GONE_WAIT_NS (15 * NS_PER_S) /* for which a call waits for a deleted volume to be off the record */

/* At which revision this key is on record; 0: it is not. */
static int key_revision(struct node *n, const char *key, uint64_t *revision, struct node_why *why)
{
	struct meta_list found;
	struct meta *m = node_meta_enter(n);
	if (!m)
		return node_meta_away(n, why);
	int err = meta_get(m, key, &found);
	node_meta_leave(n, err);
	if (err)
		return why_failed(why, err, "the metastore says");
	*revision = found.count ? found.entries[0].mod_revision : 0;
	meta_list_free(&found);
	return 0;
}

/* Its record and both names, in one transaction. */
static int rename_record(struct node *n, const struct fact_volume *f, const char *name, struct node_why *why)
{
	char keys[3][FACT_KEY_SIZE];
	struct fact_volume next = *f; /* the table may change while we wait */
	uint64_t old_name_revision = 0;
	fact_key(keys[0], "volume", &next.id);
	fact_name_key(keys[1], name);
	fact_name_key(keys[2], next.name);
	snprintf(next.name, sizeof(next.name), "%s", name);
	int err = key_revision(n, keys[2], &old_name_revision, why);
	if (err)
		return err;
	char *volume = fact_volume_value(&next), *value = fact_name_value(&next.id);
	const struct meta_compare compares[] = {{.key = keys[0], .mod_revision = next.revision},
						{.key = keys[1]},
						{.key = keys[2], .mod_revision = old_name_revision}};
	const struct meta_write writes[] = {
		{.key = keys[0], .value = volume, .value_len_bytes = strlen(volume)},
		{.key = keys[1], .value = value, .value_len_bytes = strlen(value)},
		{.key = keys[2], .is_delete = true}};
	const struct meta_txn txn = {
		.compares = compares, .compare_count = 3, .writes = writes, .write_count = 3};
	err = node_meta_commit(n, &txn, "renaming a volume", why);
	free(volume);
	free(value);
	return err;
}

int mirrored_rename(struct node *n, const struct uuid *id, const char *name, struct node_why *why)
{
	const struct fact_volume *f = facts_volume(&n->meta.facts, id);
	if (strcmp(f->name, name) == 0)
		return 0;
	if (!uuid_equal(&f->home_id, &n->id))
		return mirrored_elsewhere(n, f, why);
	int err = mirrored_name_is_free(n, name, why);
	if (!err)
		err = rename_record(n, f, name, why);
	if (!err)
		LOG_INFO("volume.changed", "a mirrored volume was renamed", F_UUID("volume", id),
			 F_STR("volume_name", name));
	return err;
}

static int edit_size(struct fact_volume *f, const void *arg, struct node_why *why)
{
	(void)why;
	f->size_bytes = u64_max(f->size_bytes, *(const uint64_t *)arg);
	return 0;
}

int mirrored_grow(struct node *n, const struct uuid *id, uint64_t size_bytes, struct node_why *why)
{
	const struct fact_volume *f = facts_volume(&n->meta.facts, id);
	struct mirrored *v;
	if (size_bytes < f->size_bytes)
		return why_set(why, OXE_INVAL, "a volume only grows, and \"%s\" has %llu bytes", f->name,
			       (unsigned long long)f->size_bytes);
	int err = mirrored_engine_enter(n, id, &v, why);
	if (err)
		return err;
	err = mirrored_engine_said(why, mirror_grow(v->mirror, size_bytes), v->name, "grow");
	if (!err)
		err = mirrored_record_edit(n, id, edit_size, &size_bytes, why);
	if (!err) {
		LOG_INFO("volume.changed", "a mirrored volume was grown", F_UUID("volume", id),
			 F_STR("volume_name", v->name), F_U64("size_bytes", size_bytes));
		node_volumes_changed(n);
		ublk_grown(n, id);
	}
	return mirrored_engine_leave(v, err);
}

static int edit_deleting(struct fact_volume *f, const void *arg, struct node_why *why)
{
	(void)arg;
	(void)why;
	f->state = FACT_DELETING;
	return 0;
}

/* The engine goes first: who still holds the volume is in the way. If the record then cannot be changed the keeper starts another. */
static int engine_give_up(struct node *n, const struct uuid *id, struct node_why *why)
{
	struct mirrored *v = mirrored_find(n, id);
	if (!v)
		return 0;
	v->users++;
	fmutex_lock(&v->lock);
	int err = mirrored_engine_stop(v, false);
	if (err)
		why_failed(why, err, "cannot delete the volume \"%s\"", v->name);
	else
		err = mirrored_record_edit(n, id, edit_deleting, NULL, why);
	fmutex_unlock(&v->lock);
	mirrored_poke(v);
	return mirrored_engine_leave(v, err);
}

int mirrored_delete(struct node *n, const struct uuid *id, struct node_why *why)
{
	const struct fact_volume *f = facts_volume(&n->meta.facts, id);
	struct uuid volume_id = *id;
	if (!uuid_equal(&f->home_id, &n->id))
		return mirrored_elsewhere(n, f, why);
	int err = engine_give_up(n, &volume_id, why);
	uint64_t deadline_ns = rt_now_ns(n->options.rt) + GONE_WAIT_NS;
	while (!err && facts_volume(&n->meta.facts, &volume_id)) {
		if (!waitq_wait_until(&n->meta.facts_changed, deadline_ns)) {
			err = why_set(why, OXE_NOTREADY,
				      "the volume is on record as deleted, and not gone yet");
			why_hint(why, "it goes on by itself; see 'oxbow volume list'");
		}
	}
	node_volumes_changed(n);
	return err;
}

static int edit_home(struct fact_volume *f, const void *arg, struct node_why *why)
{
	if (f->state != FACT_LIVE)
		return why_set(why, OXE_BUSY, "the volume \"%s\" is %s", f->name, fact_state_name(f->state));
	f->home_id = *(const struct uuid *)arg;
	return 0;
}

int node_volume_move(struct node *n, const char *ref, const char *node_ref, struct node_volume *out,
		     struct node_why *why)
{
	struct uuid home;
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	if (!f)
		return mirrored_missing(n, ref, why);
	struct uuid id = f->id;
	int err = node_resolve(n, node_ref, &home, why);
	if (!err && !uuid_equal(&home, &f->home_id))
		err = mirrored_record_edit(n, &id, edit_home, &home, why);
	if (!err)
		LOG_INFO("volume.moved", "a mirrored volume has another home", F_UUID("volume", &id),
			 F_UUID("node", &home));
	return err ? err : mirrored_get(n, &id, out, why);
}
