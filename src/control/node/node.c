/* node.c: start, stop and readiness; see node.h. */
#include "control/node/node_impl.h"

#include "base/log.h"
#include "base/text.h"

#include <stdio.h>

struct node *node_new(const struct node_options *options)
{
	struct node *n = mem_zalloc(sizeof(*n));
	n->options = *options;
	list_init(&n->pools);
	list_init(&n->holds);
	fmutex_init(&n->membership);
	fmutex_init(&n->access);
	fmutex_init(&n->search);
	waitq_init(&n->ready_changed);
	group_init(&n->keepers);
	node_meta_init(n);
	mirrored_init(n);
	return n;
}

struct rt *node_rt(const struct node *n)
{
	return n->options.rt;
}

void node_exports_walk(struct node *n, bool (*fn)(void *ctx, const char *name, const struct engine_stats *s),
		       void *ctx)
{
	engines_stats_walk(n->options.engines, fn, ctx);
}

bool node_name_is_valid(const char *name)
{
	return pool_name_check(name) == 0;
}

const char *node_op_name(enum engine_op op)
{
	return engine_op_name(op);
}

const char *node_job_kind_name(const struct node_job *job)
{
	return pool_job_kind_name(job->info.kind);
}

static void text_copy(char *to, size_t size_bytes, const char *from)
{
	snprintf(to, size_bytes, "%s", from);
}

struct node_pool *node_pool_new(struct node *n, const struct uuid *id, const char *name, const char *path)
{
	struct node_pool *p = mem_zalloc(sizeof(*p));
	list_init(&p->link);
	waitq_init(&p->changed);
	p->node = n;
	p->id = *id;
	text_copy(p->name, sizeof(p->name), name);
	text_copy(p->path, sizeof(p->path), path);
	return p;
}

void node_pool_free(struct node_pool *p)
{
	assert(!p->pool && !p->users && !p->keeper_running);
	list_del(&p->link);
	free(p);
}

/* For ever the same: what is on record under it is this node's. */
static void node_name(struct node *n)
{
	struct node_why why;
	char text[UUID_TEXT_LEN + 1];
	if (uuid_is_nil(&n->id) && n->list_is_known) {
		n->id = rt_random_uuid(n->options.rt);
		if (node_state_save(n, &why) != 0)
			LOG_WARN("node.save_failed", why.message, F_UUID("node", &n->id));
	}
	uuid_format(&n->id, text);
	text_copy(n->name, sizeof(n->name), n->options.name ? n->options.name : text);
}

void node_start(struct node *n)
{
	struct node_why why;
	struct node_pool *p;
	int err = node_state_load(n, &why);
	if (err) {
		node_hold(n, "list", "KnownPoolsUnreadable", why.message, why.hint);
		LOG_ERROR("node.list_unreadable", why.message, F_ERR(err));
	}
	node_name(n);
	list_for_each (p, &n->pools, link)
		keeper_start(p);
	node_meta_start(n);
	reaper_start(n);
	node_ready_check(n);
}

void node_stop(struct node *n)
{
	struct node_pool *p, *next;
	node_meta_stop(n);
	while (!list_empty(&n->mirrored)) /* they let go of the pools first */
		fiber_sleep(NS_PER_MS);
	list_for_each_safe (p, next, &n->pools, link) {
		while (pool_retire(p) == OXE_BUSY)
			fiber_sleep(NS_PER_MS);
		node_pool_free(p);
	}
	group_wait(&n->keepers);
}

void node_free(struct node *n)
{
	struct node_hold *h;
	assert(list_empty(&n->pools));
	while ((h = list_pop(&n->holds, struct node_hold, link)))
		free(h);
	for (size_t i = 0; i < n->place_count; i++)
		free(n->places[i]);
	facts_clear(&n->meta.facts);
	free(n);
}

/* ---- readiness ----------------------------------------------------------------------------------------------------- */

static bool pool_is_serving(const struct node_pool *p)
{
	return p->pool && !p->closing && p->keeper.state == KEEPER_IS_OPEN;
}

/* One that nobody could use since the start; a pause later on is not the daemon's affair. */
static const struct mirrored *first_unserved(const struct node *n)
{
	const struct mirrored *v;
	list_for_each (v, &n->mirrored, link) {
		const struct fact_volume *f = facts_volume(&n->meta.facts, &v->id);
		if (!v->was_served && f && f->state == FACT_LIVE)
			return v;
	}
	return NULL;
}

bool node_is_ready(const struct node *n)
{
	struct node_pool *p;
	if (!list_empty(&n->holds) || first_unserved(n))
		return false;
	list_for_each (p, &n->pools, link) {
		if (!pool_is_serving(p))
			return false;
	}
	return true;
}

void node_ready_check(struct node *n)
{
	waitq_wake_all(&n->ready_changed);
}

bool node_ready_wait(struct node *n, uint64_t deadline_ns)
{
	while (!node_is_ready(n)) {
		if (!waitq_wait_until(&n->ready_changed, deadline_ns))
			return node_is_ready(n);
	}
	return true;
}

static void recovering_condition(const struct node_pool *p, struct node_condition *c)
{
	*c = (struct node_condition){.reason = "Recovering"};
	snprintf(c->message, sizeof(c->message), "the pool on %s is being recovered", p->path);
}

void node_reasons_walk(const struct node *n,
		       void (*fn)(void *ctx, const char *pool_name, const struct node_condition *c),
		       void *ctx)
{
	struct node_hold *h;
	struct node_pool *p;
	struct node_condition recovering;
	list_for_each (h, &n->holds, link)
		fn(ctx, "", &h->condition);
	list_for_each (p, &n->pools, link) {
		if (pool_is_serving(p))
			continue;
		recovering_condition(p, &recovering);
		fn(ctx, p->name, p->has_condition ? &p->condition : &recovering);
	}
	const struct mirrored *v = first_unserved(n);
	if (v) {
		mirrored_condition(v, &recovering);
		fn(ctx, "", &recovering);
	}
}

static struct node_hold *hold_find(struct node *n, const char *name)
{
	struct node_hold *h;
	list_for_each (h, &n->holds, link) {
		if (strcmp(h->name, name) == 0)
			return h;
	}
	return NULL;
}

static void condition_fill(struct node *n, struct node_condition *c, const char *reason, const char *message,
			   const char *hint)
{
	bool is_new = !c->reason || strcmp(c->reason, reason) != 0;
	c->reason = reason;
	text_utf8(c->message, sizeof(c->message), message);
	text_utf8(c->hint, sizeof(c->hint), hint);
	if (is_new)
		c->since_wall_ns = rt_wall_ns(n->options.rt);
}

void node_hold(struct node *n, const char *name, const char *reason, const char *message, const char *hint)
{
	struct node_hold *h = hold_find(n, name);
	if (!h) {
		h = mem_zalloc(sizeof(*h));
		text_copy(h->name, sizeof(h->name), name);
		list_add_tail(&n->holds, &h->link);
	}
	condition_fill(n, &h->condition, reason, message, hint);
}

void node_release(struct node *n, const char *name)
{
	struct node_hold *h = hold_find(n, name);
	if (h)
		list_del(&h->link);
	free(h);
	node_ready_check(n);
}

/* Logged once for each new reason, not for each attempt. */
void condition_set(struct node_pool *p, const char *reason, const char *message, const char *hint)
{
	bool is_new = !p->has_condition || strcmp(p->condition.reason, reason) != 0;
	if (!p->has_condition)
		p->condition.reason = NULL;
	condition_fill(p->node, &p->condition, reason, message, hint);
	p->has_condition = true;
	if (is_new)
		LOG_WARN("pool.condition", p->condition.message, F_STR("pool_name", p->name),
			 F_UUID("pool", &p->id), F_STR("reason", reason), F_STR("hint", p->condition.hint));
}

void condition_clear(struct node_pool *p)
{
	if (p->has_condition)
		LOG_INFO("pool.condition_cleared", "the pool serves again", F_STR("pool_name", p->name),
			 F_UUID("pool", &p->id), F_STR("reason", p->condition.reason));
	p->has_condition = false;
}

/* ---- damage -------------------------------------------------------------------------------------------------------- */

void damage_condition(const struct node_pool *p, const struct pool_stats *s, struct node_condition *out)
{
	*out = (struct node_condition){.reason = "MetadataDamaged", .since_wall_ns = p->damage_since_wall_ns};
	if (s->catalog_damaged)
		snprintf(
			out->message, sizeof(out->message),
			"part of the list of volumes and snapshots is lost: %u of the volumes that are known "
			"miss data, others may not be known at all; nothing new can be made in the pool",
			s->damaged_volume_count);
	else
		snprintf(out->message, sizeof(out->message),
			 "%u metadata pages cannot be believed; what is free below them is not used",
			 s->metadata_pages_lost);
	snprintf(out->hint, sizeof(out->hint),
		 "see what is lost with 'oxbow pool check %s' and 'oxbow volume list'; copy what still reads "
		 "to another pool, then make this one anew or restore its disk",
		 p->name);
}

void damage_look(struct node_pool *p, const struct pool_stats *stats)
{
	struct node_condition c;
	bool is_damaged = stats->catalog_damaged || stats->metadata_pages_lost > 0;
	bool was_damaged = p->damage_since_wall_ns != 0;
	if (is_damaged == was_damaged)
		return;
	p->damage_since_wall_ns = is_damaged ? rt_wall_ns(p->node->options.rt) : 0;
	if (!is_damaged)
		return;
	damage_condition(p, stats, &c);
	LOG_WARN("pool.condition", c.message, F_STR("pool_name", p->name), F_UUID("pool", &p->id),
		 F_STR("reason", c.reason), F_STR("hint", c.hint));
}

void node_volumes_changed(struct node *n)
{
	const struct node_platform *platform = &n->options.platform;
	if (platform->volumes_changed)
		platform->volumes_changed(platform->ctx);
}

void node_address_add(struct node *n, const char *address, enum node_protocol protocol, bool tls)
{
	if (n->address_count == NODE_ADDRESSES_MAX)
		return;
	struct node_address *a = &n->addresses[n->address_count++];
	text_copy(a->text, sizeof(a->text), address);
	a->protocol = protocol;
	a->tls = tls;
	node_register_kick(n);
}

size_t node_addresses(const struct node *n, const struct node_address **out)
{
	*out = n->addresses;
	return n->address_count;
}

void node_process_stats(struct node *n, struct node_process *out)
{
	*out = (struct node_process){0};
	n->options.platform.process_stats(n->options.platform.ctx, out);
}
