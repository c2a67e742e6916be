/*
 * node_salvage.c: a mirrored volume that waits for members which never return goes on with one copy, because a person says so (V9).
 *
 * Said without accepting the loss, nothing is done but telling what it would be: what the engine knows of that copy, and no more.
 */
#include "base/log.h"
#include "control/node/mirrored.h"

#include <inttypes.h>

#define SERVE_WAIT_NS (15 * NS_PER_S)
#define LOOK_NS	      (20 * NS_PER_MS)

/* ---- which engine, which copy ----------------------------------------------------------------------------------------- */

static int no_engine(struct node *n, const char *ref, struct node_why *why)
{
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	if (!f)
		return mirrored_missing(n, ref, why);
	if (!uuid_equal(&f->home_id, &n->id))
		return mirrored_elsewhere(n, f, why);
	why_set(why, OXE_NOTREADY, "the engine of \"%.100s\" is not running now", ref);
	why_hint(why, "try again in a moment; see 'oxbow volume show %.100s'", ref);
	return OXE_NOTREADY;
}

static bool is_called(const struct node *n, const struct uuid *pool_id, const char *ref)
{
	struct uuid id;
	const struct node_pool *here = pool_by_id(n, pool_id);
	const struct fact_pool *p = facts_pool(&n->meta.facts, pool_id);
	if (uuid_parse(ref, &id) == 0 && uuid_equal(&id, pool_id))
		return true;
	return strcmp(here ? here->name : p ? p->name : "", ref) == 0;
}

/* Among those that the volume has: its pool may be on no record any more. */
static int copy_named(const struct node *n, const struct mirrored *v, const char *ref, struct uuid *pool_id,
		      struct node_why *why)
{
	struct mirror_status s;
	unsigned count = 0;
	mirror_status(v->mirror, &s);
	for (uint32_t i = 0; i < s.copy_count; i++)
		if (is_called(n, &s.copies[i].pool_id, ref)) {
			*pool_id = s.copies[i].pool_id;
			count++;
		}
	if (count == 1)
		return 0;
	if (!s.copy_count)
		return why_set(why, OXE_NOTREADY, "the copies of \"%s\" are not known yet", v->name);
	int err = why_set(why, count ? OXE_INVAL : OXE_NOENT,
			  count ? "\"%s\" has copies in several pools called \"%.80s\""
				: "\"%s\" has no copy in a pool \"%.80s\"",
			  v->name, ref);
	why_hint(why, "'oxbow volume show %s' has its copies; a pool may be named by its uuid", v->name);
	return err;
}

/* ---- words ------------------------------------------------------------------------------------------------------------ */

static int refusal_tell(const struct mirrored *v, const char *pool_ref, int err, struct node_why *why)
{
	switch (err) {
	case OXE_EXISTS:
		why_set(why, err, "\"%s\" needs no salvage: the members that answer have all there is",
			v->name);
		why_hint(why, "see 'oxbow volume show %s'", v->name);
		return err;
	case OXE_BUSY:
		why_set(why, err,
			"the copy in \"%.80s\" was being filled: what it has is of no moment, and no volume",
			pool_ref);
		why_hint(why, "name another copy");
		return err;
	case OXE_NOENT:
		return why_set(why, err, "the copy in \"%.80s\" is empty", pool_ref);
	case OXE_NOTREADY:
		why_set(why, err, "the copy in \"%.80s\" does not answer", pool_ref);
		why_hint(why, "only a copy that answers can be gone on with; see 'oxbow volume show %s'",
			 v->name);
		return err;
	case OXE_FENCED:
	case OXE_SHUTDOWN:
		why_failed(why, err, "cannot salvage \"%s\"", v->name);
		return OXE_NOTREADY;
	default:
		return why_failed(why, err, "cannot salvage \"%s\"", v->name);
	}
}

static int loss_tell(const struct mirrored *v, const char *pool_ref, const struct mirror_loss *loss,
		     struct node_why *why)
{
	if (loss->role == VIEW_MEMBER)
		why_set(why, OXE_BUSY,
			"the copy in \"%.80s\" was up to date when its machine lost power: what was written "
			"and not "
			"flushed before that may be missing, in at most %" PRIu32 " pieces of %" PRIu64
			" MiB. Nothing was done",
			pool_ref, loss->region_count, loss->region_bytes / MiB);
	else
		why_set(why, OXE_BUSY,
			"the copy in \"%.80s\" is %s, and not up to date: everything written to \"%s\" since "
			"it was "
			"(epoch %" PRIu64 ") would be lost, flushed or not. Nothing was done",
			pool_ref, view_role_name(loss->role), v->name, loss->epoch_before);
	why_hint(why,
		 "wait for the others if they can return. If they are off for good, and serve nobody: again "
		 "with --accept-loss");
	return OXE_BUSY;
}

/* ---- the verb --------------------------------------------------------------------------------------------------------- */

static bool serves(const struct mirrored *v)
{
	struct mirror_status s;
	if (!v->mirror)
		return false;
	mirror_status(v->mirror, &s);
	return s.serves;
}

/* It does not have to in time: it is salvaged, and goes on by itself. A copy that was away may be smaller than what is on record. */
static void serve_wait(struct mirrored *v)
{
	struct node *n = v->node;
	uint64_t deadline_ns = rt_now_ns(n->options.rt) + SERVE_WAIT_NS;
	while (!serves(v) && rt_now_ns(n->options.rt) < deadline_ns)
		fiber_sleep(LOOK_NS);
	const struct fact_volume *f = facts_volume(&n->meta.facts, &v->id);
	if (!serves(v) || !f || mirror_size_bytes(v->mirror) >= f->size_bytes)
		return;
	int err = mirror_grow(v->mirror, f->size_bytes);
	LOG_INFO("volume.salvaged_grown", "a salvaged copy was smaller than its volume, and grew",
		 F_UUID("volume", &v->id), F_ERR(err));
}

static int salvage(struct mirrored *v, const char *pool_ref, bool accept_loss, struct node_why *why)
{
	struct uuid pool_id;
	struct mirror_loss loss;
	int err = copy_named(v->node, v, pool_ref, &pool_id, why);
	if (err)
		return err;
	err = mirror_salvage_look(v->mirror, &pool_id, &loss);
	if (!err && !accept_loss && !loss.is_alone)
		return loss_tell(v, pool_ref, &loss, why);
	if (!err || (err == OXE_NOTREADY && accept_loss)) /* it may have just not been asked yet */
		err = mirror_salvage(v->mirror, &pool_id);
	if (err)
		return refusal_tell(v, pool_ref, err, why);
	serve_wait(v);
	return 0;
}

int node_volume_salvage(struct node *n, const char *ref, const char *pool_ref, bool accept_loss,
			struct node_volume *out, struct node_why *why)
{
	const struct fact_volume *f = mirrored_by_ref(n, ref);
	struct mirrored *v = f ? mirrored_find(n, &f->id) : NULL;
	if (!v || !v->mirror)
		return no_engine(n, ref, why);
	struct uuid id = v->id;
	v->users++;
	int err = mirrored_engine_leave(v, salvage(v, pool_ref, accept_loss, why));
	return err ? err : mirrored_get(n, &id, out, why);
}
