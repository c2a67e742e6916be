/*
 * mirrored_show.c: what there is to be seen of a mirrored volume: what is on record (facts.h), what its engine says if that runs here, and for each
 * copy where it is. Whatever keeps it from serving, or from having all its copies, is said in one sentence, for whom it waits and since when (V9).
 */
#include "control/node/mirrored.h"

#include "control/js.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- the copies, the engine --------------------------------------------------------------------------------------------------- */

static void copy_describe(const struct node *n, const struct uuid *volume_id, const struct uuid *pool_id,
			  struct node_copy_info *out)
{
	const struct node_pool *here = pool_by_id(n, pool_id);
	const struct fact_pool *p = facts_pool(&n->meta.facts, pool_id);
	struct way_status way;
	*out = (struct node_copy_info){.pool_id = *pool_id, .session = ""};
	snprintf(out->pool_name, sizeof(out->pool_name), "%s", here ? here->name : p ? p->name : "");
	if (here)
		node_call(n, &n->id, out->node_name);
	else if (p)
		node_call(n, &p->node_id, out->node_name);
	way_status(&n->ways, pool_id, volume_id, &way);
	snprintf(out->why, sizeof(out->why), "%s", way.why);
	out->lost_since_wall_ns = way.lost_since_wall_ns;
}

static const char *session_name(enum mirror_session session)
{
	static const char *const names[] = {
		[MIRROR_NEVER] = "never", [MIRROR_OPEN] = "open", [MIRROR_LOST] = "lost"};
	return names[session];
}

static void copy_from_engine(const struct mirror_copy_status *s, struct node_copy_info *out)
{
	out->role = view_role_name(s->role);
	out->session = session_name(s->session);
	out->last_err = s->last_err;
	out->filled_bytes = s->filled_bytes;
	out->compared_bytes = s->compared_bytes;
	out->joins_failed = s->joins_failed;
	if (s->last_err && !*out->why)
		snprintf(out->why, sizeof(out->why), "%s", err_text(s->last_err));
}

static void scrub_from_engine(const struct mirror *m, struct node_scrub_info *out)
{
	struct mirror_scrub_status *s = mem_alloc(sizeof(*s));
	mirror_scrub_status(m, s);
	*out = (struct node_scrub_info){.is_running = s->is_running,
					.runs_done = s->runs_done,
					.done_bytes = s->done_bytes,
					.todo_bytes = s->todo_bytes,
					.differed_bytes = s->differed_bytes,
					.repaired_bytes = s->repaired_bytes};
	free(s);
}

static void info_from_engine(struct node *n, const struct mirrored *v, struct node_mirror_info *out)
{
	struct mirror_status s;
	mirror_status(v->mirror, &s);
	out->serves = s.serves;
	out->doing = mirror_todo_name(s.doing);
	out->epoch = s.epoch;
	out->intent_count = s.intent_count;
	out->unsettled_count = s.unsettled_count;
	out->held_requests = s.held_requests;
	for (uint32_t i = 0; i < s.copy_count; i++) {
		copy_describe(n, &v->id, &s.copies[i].pool_id, &out->copies[i]);
		copy_from_engine(&s.copies[i], &out->copies[i]);
	}
	out->copy_count = s.copy_count;
	scrub_from_engine(v->mirror, &out->scrub);
}

static void info_from_view(const struct node *n, const struct fact_view *view, struct node_mirror_info *out)
{
	out->epoch = view->epoch;
	out->copy_count = view->count;
	for (uint32_t i = 0; i < view->count; i++) {
		copy_describe(n, &view->volume_id, &view->pools[i], &out->copies[i]);
		out->copies[i].role = view_role_name(view->roles[i]);
	}
}

/* ---- what is wrong ------------------------------------------------------------------------------------------------------------ */

static size_t add(char *text, size_t size_bytes, size_t used, const char *format, ...) OX_PRINTF(4, 5);

static size_t add(char *text, size_t size_bytes, size_t used, const char *format, ...)
{
	va_list args;
	if (used >= size_bytes)
		return used;
	va_start(args, format);
	int n = vsnprintf(text + used, size_bytes - used, format, args);
	va_end(args);
	return used + (size_t)(n > 0 ? n : 0);
}

/* Each copy that does not answer, why, and since when. */
static size_t silent_copies(const struct node_mirror_info *i, char *text, size_t size_bytes)
{
	size_t used = 0;
	char time[JS_TIME_MAX];
	for (uint32_t k = 0; k < i->copy_count; k++) {
		const struct node_copy_info *c = &i->copies[k];
		if (strcmp(c->session, "open") == 0)
			continue;
		used = add(text, size_bytes, used, "%spool %s on node %s", used ? "; " : "",
			   *c->pool_name ? c->pool_name : "(unknown)",
			   *c->node_name ? c->node_name : "(unknown)");
		if (*c->why)
			used = add(text, size_bytes, used, ": %.120s", c->why);
		if (c->lost_since_wall_ns)
			used = add(text, size_bytes, used, ", since %s",
				   js_time_format(c->lost_since_wall_ns, time));
	}
	return used;
}

/* V9: for whom. */
static void waiting_describe(const struct node *n, const struct mirrored *v, struct node_mirror_info *out)
{
	char names[400];
	struct node_condition *c = &out->condition;
	*c = (struct node_condition){.reason = "VolumeWaits", .since_wall_ns = v->waits_since_wall_ns};
	out->has_condition = true;
	if (!n->meta.client) {
		snprintf(c->message, sizeof(c->message), "waits for the metastore: %.200s",
			 *n->meta.why ? n->meta.why : "it is away");
	} else if (silent_copies(out, names, sizeof(names))) {
		snprintf(c->message, sizeof(c->message), "waits for %s", names);
		snprintf(c->hint, sizeof(c->hint),
			 "bring the pool or its node back: the volume goes on by itself, nothing is lost "
			 "meanwhile. If it never returns: 'oxbow volume salvage'");
	} else {
		snprintf(c->message, sizeof(c->message), "its engine is starting (%s)", out->doing);
	}
}

/* It serves, and a copy is not what it was asked to be. */
static void degraded_describe(struct node_mirror_info *out)
{
	char names[400];
	if (!silent_copies(out, names, sizeof(names)))
		return;
	out->has_condition = true;
	out->condition = (struct node_condition){.reason = "CopyAway"};
	snprintf(out->condition.message, sizeof(out->condition.message), "serves without %s", names);
	snprintf(out->condition.hint, sizeof(out->condition.hint),
		 "when it is back it is brought up to date by itself; 'oxbow copy forget' gives it up");
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static void info_here(struct node *n, const struct mirrored *v, struct node_mirror_info *out)
{
	if (v->mirror)
		info_from_engine(n, v, out);
	if (v->has_condition) {
		out->has_condition = true;
		out->condition = v->condition;
	} else if (!v->mirror || !out->serves) {
		waiting_describe(n, v, out);
	} else {
		degraded_describe(out);
	}
}

static bool count_layer(void *ctx, const struct replica_layer *layer)
{
	(void)layer;
	++*(uint32_t *)ctx;
	return true;
}

void mirrored_info_fill(struct node *n, const struct fact_volume *f, struct node_volume *out)
{
	struct node_mirror_info *i = &out->mirror;
	const struct fact_view *view = facts_view(&n->meta.facts, &f->id);
	const struct mirrored *v = mirrored_find(n, &f->id);
	*out = (struct node_volume){.is_mirrored = true};
	out->info = (struct volume_info){.id = f->id,
					 .size_bytes = f->size_bytes,
					 .lba_bytes = f->lba_bytes,
					 .created_wall_ns = f->created_wall_ns,
					 .open_count = engines_open_count(n->options.engines, &f->id)};
	memcpy(out->info.name, f->name, sizeof(out->info.name));
	i->home_id = f->home_id;
	node_call(n, &f->home_id, i->home_name);
	i->state = fact_state_name(f->state);
	i->doing = "";
	i->is_here = uuid_equal(&f->home_id, &n->id);
	if (i->is_here && v)
		info_here(n, v, i);
	if (!i->copy_count && view)
		info_from_view(n, view, i);
	if (v && v->mirror)
		mirror_snapshot_walk(v->mirror, count_layer, &out->info.snapshot_count);
}

int mirrored_get(struct node *n, const struct uuid *id, struct node_volume *out, struct node_why *why)
{
	const struct fact_volume *f = facts_volume(&n->meta.facts, id);
	if (!f)
		return why_set(why, OXE_NOENT, "the volume was deleted meanwhile");
	mirrored_info_fill(n, f, out);
	return 0;
}

void mirrored_condition(const struct mirrored *v, struct node_condition *out)
{
	struct node_volume *info = mem_alloc(sizeof(*info));
	const struct fact_volume *f = facts_volume(&v->node->meta.facts, &v->id);
	*out = (struct node_condition){.reason = "VolumeWaits"};
	if (f) {
		mirrored_info_fill(v->node, f, info);
		snprintf(out->message, sizeof(out->message), "the mirrored volume %s %.380s", f->name,
			 info->mirror.has_condition ? info->mirror.condition.message : "is starting");
		snprintf(out->hint, sizeof(out->hint), "%s", info->mirror.condition.hint);
		out->since_wall_ns = v->waits_since_wall_ns;
	}
	free(info);
}

bool mirrored_has_copy(const struct node *n, const struct uuid *volume_id, const struct uuid *pool_id)
{
	const struct fact_view *view = facts_view(&n->meta.facts, volume_id);
	for (uint32_t i = 0; view && i < view->count; i++) {
		if (uuid_equal(&view->pools[i], pool_id))
			return true;
	}
	return false;
}

void mirrored_walk(struct node *n, const struct uuid *pool_id,
		   bool (*fn)(void *ctx, const struct node_volume *v), void *ctx)
{
	struct node_volume *out = mem_alloc(sizeof(*out));
	const struct fact_volume *f;
	list_for_each (f, &n->meta.facts.volumes, link) {
		if (pool_id && !mirrored_has_copy(n, &f->id, pool_id))
			continue;
		mirrored_info_fill(n, f, out);
		if (!fn(ctx, out))
			break;
	}
	free(out);
}

void node_mirrored_walk(struct node *n, bool (*fn)(void *ctx, const struct node_volume *v), void *ctx)
{
	mirrored_walk(n, NULL, fn, ctx);
}
