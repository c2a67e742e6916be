/*
 * node_nodes.c: the nodes that share a metastore, as they are on record (facts.h): found by what people call them, called by a name, listed.
 * A node is alive as long as its beat is heard, by this node's own clock: what clocks of others say is nobody's business.
 */
#include "control/node/node_impl.h"

#include <stdio.h>

#define ALIVE_BEATS 3

const char *node_call(const struct node *n, const struct uuid *id, char out[NODE_NAME_SIZE])
{
	char text[UUID_TEXT_LEN + 1];
	const struct fact_node *f = facts_node(&n->meta.facts, id);
	snprintf(out, NODE_NAME_SIZE, "%s",
		 uuid_equal(id, &n->id) ? n->name
		 : f			? f->name
					: uuid_format(id, text));
	return out;
}

int node_resolve(const struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	const struct fact_node *f;
	unsigned count = 0;
	if (uuid_parse(ref, id) == 0 && facts_node(&n->meta.facts, id))
		return 0;
	list_for_each (f, &n->meta.facts.nodes, link) {
		if (strcmp(f->name, ref) == 0) {
			*id = f->id;
			count++;
		}
	}
	if (count == 1)
		return 0;
	int err = why_set(why, count ? OXE_INVAL : OXE_NOENT,
			  count ? "several nodes are called \"%.80s\"" : "no node \"%.80s\" is known", ref);
	why_hint(why, "'oxbow node list' shows them");
	return err;
}

static bool is_alive(const struct node *n, const struct fact_node *f)
{
	return rt_now_ns(n->options.rt) - f->heard_ns < ALIVE_BEATS * NODE_BEAT_NS;
}

static void node_describe(const struct node *n, const struct fact_node *f, struct node_info *out)
{
	const struct fact_pool *p;
	const struct fact_volume *v;
	*out = (struct node_info){.id = f->id, .is_this = uuid_equal(&f->id, &n->id)};
	snprintf(out->name, sizeof(out->name), "%s", f->name);
	snprintf(out->address, sizeof(out->address), "%s", f->address_count ? f->addresses[0] : "");
	out->is_alive = out->is_this || is_alive(n, f);
	list_for_each (p, &n->meta.facts.pools, link)
		out->pool_count += uuid_equal(&p->node_id, &f->id);
	list_for_each (v, &n->meta.facts.volumes, link)
		out->volume_count += uuid_equal(&v->home_id, &f->id);
}

void node_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_info *i), void *ctx)
{
	const struct fact_node *f;
	struct node_info info;
	list_for_each (f, &n->meta.facts.nodes, link) {
		node_describe(n, f, &info);
		if (!fn(ctx, &info))
			return;
	}
}
