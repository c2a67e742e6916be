/*
 * mirrored_copies.c: a mirrored volume is given a copy more, or gives one up; its copies are compared. All of it is the engine's work, in the
 * background; here it is ordered. What a copy that was given up leaves in its pool is on record to be freed (node_reap.c) before the engine
 * lets go of it, and is taken off the record again before a new copy is made there.
 */
#include "control/node/mirrored.h"

#include "base/log.h"

static int copy_verb_enter(struct node *n, const char *ref, const char *pool_ref, struct uuid *pool_id,
			   struct mirrored **v, struct node_why *why)
{
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	if (!f)
		return mirrored_missing(n, ref, why);
	struct uuid id = f->id;
	int err = mirrored_pool_resolve(n, pool_ref, pool_id, why);
	return err ? err : mirrored_engine_enter(n, &id, v, why);
}

static int copy_verb_leave(struct node *n, struct mirrored *v, int err, struct node_volume *out,
			   struct node_why *why)
{
	struct uuid id = v->id;
	mirrored_engine_leave(v, err);
	return err ? err : mirrored_get(n, &id, out, why);
}

int node_volume_scrub(struct node *n, const char *ref, bool start, uint64_t bytes_per_s,
		      struct node_volume *out, struct node_why *why)
{
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	struct mirrored *v;
	if (!f)
		return mirrored_missing(n, ref, why);
	struct uuid id = f->id;
	int err = mirrored_engine_enter(n, &id, &v, why);
	if (err)
		return err;
	if (start)
		mirror_scrub_start(v->mirror, bytes_per_s);
	else
		mirror_scrub_stop(v->mirror);
	LOG_INFO("volume.scrub", start ? "the members of a volume are compared" : "comparing was stopped",
		 F_UUID("volume", &id), F_STR("volume_name", v->name), F_U64("bytes_per_s", bytes_per_s));
	return copy_verb_leave(n, v, 0, out, why);
}

/* What a copy that was forgotten left there must not be removed under the new one. */
static int reap_cancel(struct node *n, const struct uuid *pool_id, const struct uuid *volume_id,
		       struct node_why *why)
{
	char key[FACT_KEY_SIZE];
	const struct fact_reap *r = facts_reap(&n->meta.facts, pool_id, volume_id);
	if (!r)
		return 0;
	if (r->begun) {
		why_set(why, OXE_BUSY, "a copy that was forgotten is still being removed from that pool");
		why_hint(why, "try again in a moment");
		return OXE_BUSY;
	}
	fact_reap_key(key, pool_id, volume_id);
	return node_meta_put(n, key, NULL, r->revision, "a copy", why);
}

int node_copy_add(struct node *n, const char *ref, const char *pool_ref, struct node_volume *out,
		  struct node_why *why)
{
	struct uuid pool_id;
	struct mirrored *v;
	int err = copy_verb_enter(n, ref, pool_ref, &pool_id, &v, why);
	if (err)
		return err;
	err = reap_cancel(n, &pool_id, &v->id, why);
	if (!err) {
		err = mirror_copy_add(v->mirror, &pool_id);
		mirrored_engine_said(why, err, v->name, "add a copy to");
		if (err == OXE_NOSPC)
			err = why_set(why, OXE_INVAL, "\"%s\" has %u copies, and no volume has more", v->name,
				      VIEW_REPLICAS_MAX);
	}
	if (!err)
		LOG_INFO("copy.added", "a copy is being made", F_UUID("volume", &v->id),
			 F_UUID("pool", &pool_id));
	return copy_verb_leave(n, v, err, out, why);
}

/* On record first, so that its space is freed whatever happens; while a view has it the record does nothing. */
static int reap_promise(struct node *n, const struct uuid *pool_id, const struct uuid *volume_id,
			struct node_why *why)
{
	char key[FACT_KEY_SIZE];
	if (facts_reap(&n->meta.facts, pool_id, volume_id))
		return 0;
	fact_reap_key(key, pool_id, volume_id);
	return node_meta_put(n, key, fact_reap_value(false), 0, "a copy", why);
}

int node_copy_forget(struct node *n, const char *ref, const char *pool_ref, struct node_volume *out,
		     struct node_why *why)
{
	struct uuid pool_id;
	struct mirrored *v;
	struct node_why ignored;
	int err = copy_verb_enter(n, ref, pool_ref, &pool_id, &v, why);
	if (err)
		return err;
	if (mirrored_has_copy(n, &v->id, &pool_id))
		err = reap_promise(n, &pool_id, &v->id, why);
	if (!err) {
		err = mirror_copy_forget(v->mirror, &pool_id);
		mirrored_engine_said(why, err, v->name, "forget a copy of");
	}
	if (err == OXE_BUSY) {
		why_set(why, err, "the copy in \"%.80s\" is the last that is up to date", pool_ref);
		why_hint(why, "wait until another one is a member: 'oxbow volume show %s'", v->name);
		(void)reap_cancel(n, &pool_id, &v->id, &ignored);
	}
	if (!err)
		LOG_INFO("copy.forgotten", "a copy is no longer one, and is being removed",
			 F_UUID("volume", &v->id), F_UUID("pool", &pool_id));
	reaper_kick(n);
	return copy_verb_leave(n, v, err, out, why);
}
