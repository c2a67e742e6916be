/*
 * node_mirror.c: one fiber a mirrored volume whose home is this node, which makes what is match what is on record (facts.h):
 *
 *     on record                          here                        to do
 *     creating, home here                                            make the copies, and record that it is live
 *     live, home here                    no engine                   start one, and serve it
 *                                        fenced                      stop it; after a pause start another
 *                                        under another name          rename it
 *     deleting, home here                an engine                   stop it
 *                                        none                        take every record of it away, but for the copies to be reaped
 *     nothing, or another's home         an engine                   stop it
 *                                        none                        the fiber ends
 *
 * Asked again after whatever happened, and after a crash: nothing is remembered between steps but the engine itself.
 */
#include "control/node/mirrored.h"

#include "base/log.h"
#include "data/replica/replica_remote.h"

#include <stdarg.h>
#include <stdio.h>

#define LOOK_NS	     NS_PER_S
#define LOOK_MIN_NS  (5 * NS_PER_MS)
#define RETRY_MIN_NS (50 * NS_PER_MS)
#define RETRY_MAX_NS (5 * NS_PER_S)
#define EVICT_NS     (20 * NS_PER_MS)
#define CREATE_EPOCH 1u /* of the first view: an engine's is higher */

/* ---- names for people -------------------------------------------------------------------------------------------------- */

/* "fast", or "slow on node b". */
static const char *pool_call(const struct node *n, const struct uuid *pool_id, char *text, size_t size_bytes)
{
	char id[UUID_TEXT_LEN + 1];
	const struct node_pool *here = pool_by_id(n, pool_id);
	const struct fact_pool *p = facts_pool(&n->meta.facts, pool_id);
	const struct fact_node *node = p ? facts_node(&n->meta.facts, &p->node_id) : NULL;
	if (here)
		snprintf(text, size_bytes, "%s", here->name);
	else if (p && !uuid_equal(&p->node_id, &n->id))
		snprintf(text, size_bytes, "%s on node %s", p->name, node ? node->name : "unknown");
	else
		snprintf(text, size_bytes, "%s", p ? p->name : uuid_format(pool_id, id));
	return text;
}

/* ---- where copies are ---------------------------------------------------------------------------------------------------- */

static void place_far(const struct node *n, const struct uuid *pool_id, struct way_place *out)
{
	const struct fact_pool *p = facts_pool(&n->meta.facts, pool_id);
	const struct fact_node *node = p ? facts_node(&n->meta.facts, &p->node_id) : NULL;
	if (!p)
		snprintf(out->why, sizeof(out->why), "no node has said that it has this pool");
	else if (uuid_equal(&p->node_id, &n->id))
		snprintf(out->why, sizeof(out->why), "the pool is not open here");
	else if (!node || !node->address_count)
		snprintf(out->why, sizeof(out->why), "node %.100s does not serve copies (oxbowd --nvme)",
			 node ? node->name : "unknown");
	else
		snprintf(out->address, sizeof(out->address), "%s", node->addresses[0]);
}

static void place_look(void *ctx, const struct uuid *pool_id, struct way_place *out)
{
	struct node *n = ctx;
	struct node_pool *p = pool_by_id(n, pool_id);
	if (p && p->door && !p->closing)
		out->door = p->door;
	else if (p && p->has_condition)
		snprintf(out->why, sizeof(out->why), "%.190s", p->condition.message);
	else if (p)
		snprintf(out->why, sizeof(out->why), "the pool is not open yet");
	else
		place_far(n, pool_id, out);
}

static struct replica *copy_find(void *ctx, const struct uuid *pool_id, const struct uuid *volume_id)
{
	struct node *n = ctx;
	return way_new(&n->ways, pool_id, volume_id);
}

static struct replica *remote_new(void *ctx, const char *address, const struct uuid *pool_id,
				  const struct uuid *volume_id)
{
	struct node *n = ctx;
	const struct replica_remote_options options = {.address = address,
						       .pool_id = *pool_id,
						       .volume_id = *volume_id,
						       .host_id = n->id,
						       .secret = n->options.cluster_secret,
						       .ping_timeout_ns = n->options.copy_timeout_ns};
	return replica_remote_new(n->options.rt, &options);
}

/* ---- the engine's notes ------------------------------------------------------------------------------------------------- */

static struct node *node_of(struct engine_notes *notes)
{
	return container_of(notes, struct mirrored, notes)->node;
}

static int notes_set(struct engine_notes *notes, const struct uuid *volume_id, enum pool_note_kind kind,
		     const void *data, uint32_t len_bytes)
{
	return node_note_set(node_of(notes), volume_id, kind, data, len_bytes);
}

static int notes_get(struct engine_notes *notes, const struct uuid *volume_id, enum pool_note_kind kind,
		     void *data, uint32_t *len_bytes)
{
	return node_note_get(node_of(notes), volume_id, kind, data, len_bytes);
}

/* ---- conditions --------------------------------------------------------------------------------------------------------------- */

OX_PRINTF(4, 5)
static void condition(struct mirrored *v, const char *reason, const char *hint, const char *format, ...)
{
	va_list args;
	struct node_condition *c = &v->condition;
	bool is_new = !v->has_condition || strcmp(c->reason, reason) != 0;
	va_start(args, format);
	vsnprintf(c->message, sizeof(c->message), format, args);
	va_end(args);
	snprintf(c->hint, sizeof(c->hint), "%s", hint);
	c->reason = reason;
	v->has_condition = true;
	if (!is_new)
		return;
	c->since_wall_ns = rt_wall_ns(v->node->options.rt);
	LOG_WARN("volume.condition", c->message, F_UUID("volume", &v->id), F_STR("volume_name", v->name),
		 F_STR("reason", reason));
}

static void retry_later(struct mirrored *v)
{
	uint64_t ns = RETRY_MIN_NS << (v->failures < 7 ? v->failures : 7);
	ns = u64_min(ns, RETRY_MAX_NS);
	ns = ns / 2 + rt_random_u64(v->node->options.rt) % (ns / 2 + 1);
	v->failures++;
	v->retry_ns = rt_now_ns(v->node->options.rt) + ns;
}

static void went_well(struct mirrored *v)
{
	if (v->has_condition)
		LOG_INFO("volume.condition_cleared", "what was wrong with a volume is over",
			 F_UUID("volume", &v->id), F_STR("volume_name", v->name),
			 F_STR("reason", v->condition.reason));
	v->has_condition = false;
	v->failures = 0;
	v->retry_ns = 0;
}

/* ---- creating ------------------------------------------------------------------------------------------------------------------- */

/* Under the volume's own id as engine and the first view's epoch: doing it again is the same engine opening again, and whatever
 * engine the volume gets is newer. */
static int copy_make(struct mirrored *v, const struct fact_volume *f, const struct uuid *pool_id)
{
	struct replica *r = way_new(&v->node->ways, pool_id, &v->id);
	struct replica_state *state = mem_zalloc(sizeof(*state));
	struct volume_spec spec = {.id = v->id, .size_bytes = f->size_bytes, .lba_bytes = f->lba_bytes};
	memcpy(spec.name, f->name, sizeof(spec.name));
	int err = r->ops->open(r, CREATE_EPOCH, &v->id, state);
	if (!err)
		err = r->ops->create(r, &spec);
	r->ops->close(r);
	free(state);
	return err;
}

static int copies_make(struct mirrored *v, const struct fact_volume *f, const struct view *view)
{
	char pool[POOL_NAME_MAX + NODE_NAME_SIZE + 16];
	for (uint32_t i = 0; i < view->replica_count; i++) {
		const struct uuid *pool_id = &view->replicas[i].pool_id;
		int err = copy_make(v, f, pool_id);
		if (err) {
			condition(v, "CopyNotMade", "it is tried again; 'oxbow volume delete' gives it up",
				  "a copy cannot be made in the pool %s: %s",
				  pool_call(v->node, pool_id, pool, sizeof(pool)), err_text(err));
			return err;
		}
	}
	return 0;
}

static int record_live(struct mirrored *v, const struct fact_volume *f)
{
	char key[FACT_KEY_SIZE];
	struct node_why why;
	struct fact_volume now = *f;
	now.state = FACT_LIVE;
	fact_key(key, "volume", &v->id);
	return node_meta_put(v->node, key, fact_volume_value(&now), f->revision, "a volume", &why);
}

/* A view above the first is an engine's: the copies were all made then. */
static void step_create(struct mirrored *v, const struct fact_volume *known)
{
	struct fact_volume f = *known; /* the table may change while we wait */
	struct view *view = mem_zalloc(sizeof(*view));
	struct view_store *views = &v->node->views.store;
	uint64_t revision;
	int err = views->get(views, &v->id, view, &revision);
	if (!err && view->epoch <= CREATE_EPOCH)
		err = copies_make(v, &f, view);
	if (!err)
		err = record_live(v, &f);
	if (!err) {
		went_well(v);
		LOG_INFO("volume.copies_made", "every copy of a volume is there", F_UUID("volume", &v->id),
			 F_STR("volume_name", f.name), F_U64("copies", view->replica_count));
	} else if (err != OXE_DIFFERS) {
		retry_later(v);
	}
	free(view);
}

/* ---- the engine -------------------------------------------------------------------------------------------------------------------- */

static void step_start(struct mirrored *v, const struct fact_volume *f)
{
	struct node *n = v->node;
	const struct mirror_options options = {.volume_id = v->id,
					       .views = &n->views.store,
					       .replica_new = copy_find,
					       .ctx = n,
					       .grace_ns = n->options.copy_grace_ns};
	struct mirror *m;
	memcpy(v->name, f->name, sizeof(v->name));
	int err = mirror_new(n->options.rt, &options, &m);
	const struct engine_mirror_options served = {.name = v->name, .mirror = m, .notes = &v->notes};
	if (!err) {
		err = engines_add_mirror(n->options.engines, &served);
		if (err)
			mirror_close(m);
	}
	if (err) {
		condition(v, "NotServed", "", "the volume cannot be served: %s", err_text(err));
		retry_later(v);
		return;
	}
	v->mirror = m;
	v->waits_since_wall_ns = rt_wall_ns(n->options.rt);
	LOG_INFO("volume.engine_started", "an engine for a mirrored volume starts here",
		 F_UUID("volume", &v->id), F_STR("volume_name", v->name));
	node_volumes_changed(n);
}

static void clients_evict(struct mirrored *v)
{
	const struct node_platform *platform = &v->node->options.platform;
	if (platform->volume_evict)
		platform->volume_evict(platform->ctx, &v->id);
}

int mirrored_engine_stop(struct mirrored *v, bool by_force)
{
	struct node *n = v->node;
	int err = 0;
	if (!v->mirror)
		return 0;
	if (by_force)
		mirror_stop(v->mirror);
	while ((err = engines_remove_mirror(n->options.engines, &v->id)) == OXE_BUSY && by_force) {
		clients_evict(v);
		fiber_sleep(EVICT_NS);
	}
	if (err)
		return err;
	struct mirror *m = v->mirror;
	v->mirror = NULL;
	mirror_close(m);
	LOG_INFO("volume.engine_stopped", "the engine of a mirrored volume ended here",
		 F_UUID("volume", &v->id), F_STR("volume_name", v->name));
	node_volumes_changed(n);
	return 0;
}

static void step_fenced(struct mirrored *v)
{
	(void)mirrored_engine_stop(v, true);
	v->waits_since_wall_ns = rt_wall_ns(v->node->options.rt);
	retry_later(v); /* and look who has it now */
}

static void step_rename(struct mirrored *v, const struct fact_volume *f)
{
	char name[POOL_NAME_MAX + 1];
	memcpy(name, f->name, sizeof(name));
	int err = engines_rename_mirror(v->node->options.engines, &v->id, name);
	if (err) {
		condition(v, "NotServed", "choose another name: oxbow volume rename",
			  "the volume cannot be served under its new name \"%s\": %s", name, err_text(err));
		retry_later(v);
		return;
	}
	memcpy(v->name, name, sizeof(v->name));
	went_well(v);
	node_volumes_changed(v->node);
}

/* From then on the volume is gone, and each copy is on record as nobody's. */
static void step_erase(struct mirrored *v, const struct fact_volume *f)
{
	char name[POOL_NAME_MAX + 1];
	memcpy(name, f->name, sizeof(name));
	if (mirrored_erase(v->node, f) == 0)
		LOG_INFO("volume.deleted", "a mirrored volume was deleted; its copies are being removed",
			 F_UUID("volume", &v->id), F_STR("volume_name", name));
	else
		retry_later(v);
	reaper_kick(v->node);
}

/* ---- the fiber -------------------------------------------------------------------------------------------------------------------------- */

static bool is_fenced(const struct mirrored *v)
{
	struct mirror_status s;
	mirror_status(v->mirror, &s);
	return s.was_fenced;
}

static void serving_note(struct mirrored *v)
{
	struct mirror_status s;
	mirror_status(v->mirror, &s);
	if (!s.serves && !v->waits_since_wall_ns)
		v->waits_since_wall_ns = rt_wall_ns(v->node->options.rt);
	if (!s.serves)
		return;
	v->waits_since_wall_ns = 0;
	if (!v->was_served) {
		v->was_served = true;
		node_volumes_changed(v->node);
		node_ready_check(v->node);
	}
	if (v->failures || v->has_condition)
		went_well(v);
}

/* False: nothing is left to be kept. With v->lock. */
static bool step(struct mirrored *v)
{
	struct node *n = v->node;
	const struct fact_volume *f = facts_volume(&n->meta.facts, &v->id);
	bool is_ours = f && uuid_equal(&f->home_id, &n->id) && !n->meta.leaving;
	bool is_wanted = is_ours && f->state != FACT_DELETING;
	if (v->mirror && !is_wanted) {
		(void)mirrored_engine_stop(v, true);
		return true;
	}
	if (!is_ours)
		return false;
	if (v->mirror)
		serving_note(v);
	if (v->mirror && is_fenced(v))
		step_fenced(v);
	else if (rt_now_ns(n->options.rt) < v->retry_ns)
		return true;
	else if (f->state == FACT_DELETING)
		step_erase(v, f);
	else if (f->state == FACT_CREATING)
		step_create(v, f);
	else if (!v->mirror)
		step_start(v, f);
	else if (strcmp(v->name, f->name) != 0)
		step_rename(v, f);
	return true;
}

static bool is_at_rest(const struct mirrored *v)
{
	const struct fact_volume *f = facts_volume(&v->node->meta.facts, &v->id);
	return v->mirror && f && f->state == FACT_LIVE && strcmp(v->name, f->name) == 0;
}

/* An engine that has just begun to wait is looked at often, and then ever more seldom. */
static uint64_t look_ns(const struct mirrored *v)
{
	uint64_t waits_ns = rt_wall_ns(v->node->options.rt) - v->waits_since_wall_ns;
	return v->mirror && v->waits_since_wall_ns ? u64_min(LOOK_MIN_NS + waits_ns / 8, LOOK_NS) : LOOK_NS;
}

static void rest(struct mirrored *v)
{
	uint64_t now_ns = rt_now_ns(v->node->options.rt), until_ns = now_ns + look_ns(v);
	if (!is_at_rest(v) && v->retry_ns > now_ns)
		until_ns = v->retry_ns;
	if (!v->is_poked)
		waitq_wait_until(&v->changed, until_ns);
	v->is_poked = false;
}

static void mirrored_free(struct mirrored *v)
{
	while (v->users > 0)
		waitq_wait(&v->changed);
	list_del(&v->link);
	free(v);
}

static void keeper_main(void *arg)
{
	struct mirrored *v = arg;
	struct node *n = v->node;
	for (;;) {
		fmutex_lock(&v->lock);
		bool goes_on = step(v);
		fmutex_unlock(&v->lock);
		if (!goes_on)
			break;
		rest(v);
	}
	mirrored_free(v);
	node_ready_check(n);
	mirrored_look(n); /* it may have come back while this one went */
	group_done(&n->keepers);
}

/* ---- all of them --------------------------------------------------------------------------------------------------------------------------- */

struct mirrored *mirrored_find(const struct node *n, const struct uuid *id)
{
	struct mirrored *v;
	list_for_each (v, &n->mirrored, link) {
		if (uuid_equal(&v->id, id))
			return v;
	}
	return NULL;
}

void mirrored_poke(struct mirrored *v)
{
	v->is_poked = true;
	waitq_wake_all(&v->changed);
}

static void mirrored_begin(struct node *n, const struct fact_volume *f)
{
	struct mirrored *v = mem_zalloc(sizeof(*v));
	v->node = n;
	v->id = f->id;
	v->notes = (struct engine_notes){.set = notes_set, .get = notes_get};
	memcpy(v->name, f->name, sizeof(v->name));
	fmutex_init(&v->lock);
	waitq_init(&v->changed);
	list_add_tail(&n->mirrored, &v->link);
	group_add(&n->keepers, 1);
	fiber_spawn(n->options.rt, "mirrored", keeper_main, v);
}

void mirrored_look(struct node *n)
{
	const struct fact_volume *f;
	struct mirrored *v;
	list_for_each (v, &n->mirrored, link)
		mirrored_poke(v);
	if (n->meta.leaving)
		return;
	list_for_each (f, &n->meta.facts.volumes, link) {
		if (uuid_equal(&f->home_id, &n->id) && !mirrored_find(n, &f->id))
			mirrored_begin(n, f);
	}
	reaper_kick(n);
}

void mirrored_init(struct node *n)
{
	list_init(&n->mirrored);
	waitq_init(&n->reap_changed);
	ways_init(&n->ways, n->options.rt);
	n->ways.look = place_look;
	n->ways.remote_new = remote_new;
	n->ways.remote_why = replica_remote_why;
	n->ways.ctx = n;
	views_init(&n->views, node_meta_enter, node_meta_leave, n);
}
