/*
 * node_mirrored.c: what people ask of mirrored volumes, before it is done: which volume is meant, may it be done here and now, and how a record
 * is changed. What is asked is in mirrored_*.c. What is to be changed is changed on record first (facts.h); the keeper (node_mirror.c) makes it
 * so, here or on the node that is the volume's home.
 *
 * What its engine has to do is asked of the home alone: elsewhere the answer says where that is. And it is not asked of an engine that
 * does not serve: nobody waits inside a call for a disk that may never come back, but is told what it waits for.
 */
#include "control/node/mirrored.h"

#include <stdio.h>

#define SERVE_WAIT_NS (15 * NS_PER_S)
#define PAUSE_NS      (3 * NS_PER_S) /* for which a call waits for an engine that does not serve */
#define LOOK_NS	      (2 * NS_PER_MS)
#define RECORD_TRIES  5

/* ---- finding --------------------------------------------------------------------------------------------------------------- */

const struct fact_volume *mirrored_by_ref(const struct node *n, const char *ref)
{
	struct uuid id;
	const struct fact_volume *f = uuid_parse(ref, &id) == 0 ? facts_volume(&n->meta.facts, &id) : NULL;
	return f ? f : facts_volume_named(&n->meta.facts, ref);
}

int mirrored_cannot(const char *ref, const char *what, struct node_why *why)
{
	why_set(why, OXE_UNSUPPORTED, "\"%.100s\" is of a mirrored volume, which cannot be %s yet", ref,
		what);
	why_hint(why, "copy it with an NBD or NVMe client into a volume of one pool, and use that");
	return OXE_UNSUPPORTED;
}

int mirrored_missing(struct node *n, const char *ref, struct node_why *why)
{
	struct node_volume *v = mem_alloc(sizeof(*v));
	int err = node_volume_get(n, ref, v, why);
	free(v);
	if (err)
		return err;
	why_set(why, OXE_INVAL, "\"%.100s\" is a volume of one pool", ref);
	why_hint(
		why,
		"only a mirrored volume has copies: oxbow volume create NAME --size SIZE --copies POOL,POOL");
	return OXE_INVAL;
}

/* How many pools on record are called so; the id of one of them. */
static unsigned pools_named(const struct node *n, const char *name, struct uuid *id)
{
	const struct fact_pool *p;
	unsigned count = 0;
	list_for_each (p, &n->meta.facts.pools, link) {
		if (strcmp(p->name, name) == 0) {
			*id = p->id;
			count++;
		}
	}
	return count;
}

int mirrored_pool_resolve(struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	int err;
	const struct node_pool *here = pool_by_ref(n, ref, &err, why);
	if (here) {
		*id = here->id;
		return 0;
	}
	if (err != OXE_NOENT)
		return err;
	if (uuid_parse(ref, id) == 0 && facts_pool(&n->meta.facts, id))
		return 0;
	unsigned count = pools_named(n, ref, id);
	if (count == 1)
		return 0;
	if (count > 1) {
		why_set(why, OXE_INVAL, "%u pools are called \"%.80s\"", count, ref);
		why_hint(why, "name it by its uuid");
		return OXE_INVAL;
	}
	return err; /* and `why` says that no pool is known */
}

/* ---- entering ------------------------------------------------------------------------------------------------------------------ */

int mirrored_elsewhere(struct node *n, const struct fact_volume *f, struct node_why *why)
{
	char name[NODE_NAME_SIZE];
	const struct fact_node *home = facts_node(&n->meta.facts, &f->home_id);
	why_set(why, OXE_NOTREADY, "the volume \"%s\" is served by node %s", f->name,
		node_call(n, &f->home_id, name));
	why_hint(why, "ask there%s%s; or make this node its home: oxbow volume move %s --to %.60s",
		 home && home->address_count ? ", at " : "",
		 home && home->address_count ? home->addresses[0] : "", f->name, n->name);
	return OXE_NOTREADY;
}

static int waits(struct node *n, const struct fact_volume *f, struct node_why *why)
{
	struct node_volume *out = mem_alloc(sizeof(*out));
	mirrored_info_fill(n, f, out);
	const struct node_condition *c = &out->mirror.condition;
	why_set(why, OXE_NOTREADY, "the volume \"%s\" does not serve now: %.380s", f->name,
		out->mirror.has_condition ? c->message : "it is being looked at");
	why_hint(why, "%s", out->mirror.has_condition && *c->hint ? c->hint : "see 'oxbow volume show'");
	free(out);
	return OXE_NOTREADY;
}

static bool serves(const struct node *n, const struct uuid *id)
{
	struct mirror_status s;
	struct mirrored *v = mirrored_find(n, id);
	if (!v || !v->mirror)
		return false;
	mirror_status(v->mirror, &s);
	return s.serves;
}

int mirrored_engine_enter(struct node *n, const struct uuid *id, struct mirrored **out, struct node_why *why)
{
	struct uuid volume_id = *id;
	uint64_t deadline_ns = rt_now_ns(n->options.rt) + PAUSE_NS;
	const struct fact_volume *f;
	while ((f = facts_volume(&n->meta.facts, &volume_id)) && uuid_equal(&f->home_id, &n->id)) {
		if (serves(n, &volume_id)) {
			*out = mirrored_find(n, &volume_id);
			(*out)->users++;
			return 0;
		}
		if (rt_now_ns(n->options.rt) >= deadline_ns)
			return waits(n, f, why);
		fiber_sleep(LOOK_NS);
	}
	return f ? mirrored_elsewhere(n, f, why)
		 : why_set(why, OXE_NOENT, "the volume was deleted meanwhile");
}

int mirrored_engine_leave(struct mirrored *v, int err)
{
	if (--v->users == 0)
		waitq_wake_all(&v->changed);
	return err;
}

int mirrored_serve_wait(struct node *n, const struct uuid *id, struct node_why *why)
{
	uint64_t deadline_ns = rt_now_ns(n->options.rt) + SERVE_WAIT_NS;
	const struct fact_volume *f;
	while (!serves(n, id) && rt_now_ns(n->options.rt) < deadline_ns) {
		struct mirrored *v = mirrored_find(n, id);
		if (v && v->has_condition && v->failures > 3)
			break;
		fiber_sleep(LOOK_NS);
	}
	if (serves(n, id))
		return 0;
	f = facts_volume(&n->meta.facts, id);
	if (!f)
		return why_set(why, OXE_NOENT, "the volume was deleted meanwhile");
	return uuid_equal(&f->home_id, &n->id) ? waits(n, f, why) : mirrored_elsewhere(n, f, why);
}

int mirrored_engine_said(struct node_why *why, int err, const char *name, const char *what)
{
	why_failed(why, err, "cannot %s \"%s\"", what, name);
	if (err == OXE_FENCED || err == OXE_SHUTDOWN)
		why_hint(why, "its engine has just ended here; look at 'oxbow volume show %s'", name);
	return err == OXE_FENCED ? OXE_NOTREADY : err;
}

/* ---- the record ------------------------------------------------------------------------------------------------------------------ */

int mirrored_record_edit(struct node *n, const struct uuid *id,
			 int (*edit)(struct fact_volume *f, const void *arg, struct node_why *why),
			 const void *arg, struct node_why *why)
{
	char key[FACT_KEY_SIZE];
	int err = OXE_DIFFERS;
	fact_key(key, "volume", id);
	for (unsigned i = 0; err == OXE_DIFFERS && i < RECORD_TRIES; i++) {
		const struct fact_volume *f = facts_volume(&n->meta.facts, id);
		if (!f)
			return why_set(why, OXE_NOENT, "the volume was deleted meanwhile");
		struct fact_volume next = *f;
		err = edit(&next, arg, why);
		if (!err)
			err = node_meta_put(n, key, fact_volume_value(&next), f->revision, "a volume", why);
	}
	return err;
}
