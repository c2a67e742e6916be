/*
 * node_state.c: the list of known pools as text, in and out.
 *
 *     {"format": 1, "node_id": "...", "background_bytes_per_s": 0,
 *      "pools": [{"id": "...", "name": "fast", "path": "/dev/sdb"}], "places": ["/dev/sdc"]}
 *
 * It holds hints only; losing it loses no data ('oxbow pool import' brings each pool back). All the same a list that cannot
 * be read is never written over: a person looks at it first.
 */
#include "control/node/node_impl.h"

#include "control/js.h"

#include <stdio.h>

#define STATE_FORMAT 1

void place_remember(struct node *n, const char *path)
{
	for (size_t i = 0; i < n->place_count; i++) {
		if (strcmp(n->places[i], path) == 0)
			return;
	}
	if (n->place_count == NODE_PLACES_MAX) {
		free(n->places[0]);
		memmove(n->places, n->places + 1, (NODE_PLACES_MAX - 1) * sizeof(n->places[0]));
		n->place_count--;
	}
	n->places[n->place_count++] = mem_strdup(path);
}

void pool_path_set(struct node_pool *p, const char *path)
{
	if (strcmp(p->path, path) == 0)
		return;
	place_remember(p->node, p->path);
	snprintf(p->path, sizeof(p->path), "%s", path);
}

static void places_load(struct node *n, const struct js *places)
{
	for (size_t i = 0; i < js_length(places); i++) {
		const char *path = js_text(js_at(places, i));
		if (path && strlen(path) < NODE_PATH_MAX)
			place_remember(n, path);
	}
}

static int pool_entry_load(struct node *n, const struct js *entry)
{
	const char *id_text = js_text(js_get(entry, "id"));
	const char *name = js_text(js_get(entry, "name"));
	const char *path = js_text(js_get(entry, "path"));
	struct uuid id;
	if (!id_text || !name || !path || uuid_parse(id_text, &id) != 0 || pool_name_check(name) != 0 ||
	    strlen(path) >= NODE_PATH_MAX || pool_by_id(n, &id))
		return OXE_CORRUPT;
	list_add_tail(&n->pools, &node_pool_new(n, &id, name, path)->link);
	return 0;
}

static int state_decode(struct node *n, const struct js *root)
{
	const struct js *pools = js_get(root, "pools");
	uint64_t format;
	if (!js_u64(js_get(root, "format"), &format) || !js_is_array(pools))
		return OXE_CORRUPT;
	if (format != STATE_FORMAT)
		return OXE_VERSION;
	const char *node_id = js_text(js_get(root, "node_id"));
	if (node_id && (uuid_parse(node_id, &n->id) != 0 || uuid_is_nil(&n->id)))
		return OXE_CORRUPT;
	js_u64(js_get(root, "background_bytes_per_s"), &n->background_bytes_per_s);
	places_load(n, js_get(root, "places"));
	for (size_t i = 0; i < js_length(pools); i++) {
		int err = pool_entry_load(n, js_at(pools, i));
		if (err)
			return err;
	}
	return 0;
}

static void pools_forget(struct node *n)
{
	struct node_pool *p;
	while ((p = list_pop(&n->pools, struct node_pool, link)))
		node_pool_free(p);
}

int node_state_load(struct node *n, struct node_why *why)
{
	char *text = NULL, parse_why[200] = "a field is missing or wrong";
	struct js *root = NULL;
	int err = n->options.platform.state_load(n->options.platform.ctx, &text);
	if (err == OXE_NOENT) {
		n->list_is_known = true;
		return 0;
	}
	if (err)
		return why_failed(why, err, "cannot read the list of known pools");
	err = js_parse(text, strlen(text), &root, parse_why, sizeof(parse_why));
	if (!err)
		err = state_decode(n, root);
	if (err) {
		pools_forget(n);
		why_set(why, err, "the list of known pools makes no sense: %s", parse_why);
		why_hint(why, "repair pools.json in the data directory, or move it away, restart, and 'oxbow "
			      "pool import' each disk");
	}
	n->list_is_known = !err;
	js_free(root);
	free(text);
	return err;
}

static struct js *pool_entry(const struct node_pool *p)
{
	struct js *entry = js_object();
	js_set_uuid(entry, "id", &p->id);
	js_set_text(entry, "name", p->name);
	js_set_text(entry, "path", p->path);
	return entry;
}

/* Plain memory does not outlive the process, so it is not remembered. */
static bool is_remembered(const struct node_pool *p)
{
	return strncmp(p->path, "mem:", 4) != 0 && !p->leaving;
}

int node_state_save(struct node *n, struct node_why *why)
{
	struct js *root, *pools, *places;
	struct node_pool *p;
	if (!n->list_is_known) {
		why_set(why, OXE_NOTREADY,
			"the list of known pools could not be read, and is not written over");
		why_hint(why, "see 'oxbow ready' for what is wrong with it");
		return OXE_NOTREADY;
	}
	root = js_object();
	pools = js_array();
	places = js_array();
	js_set_u64(root, "format", STATE_FORMAT);
	js_set_uuid(root, "node_id", &n->id);
	js_set_u64(root, "background_bytes_per_s", n->background_bytes_per_s);
	list_for_each (p, &n->pools, link) {
		if (is_remembered(p))
			js_push(pools, pool_entry(p));
	}
	for (size_t i = 0; i < n->place_count; i++)
		js_push_text(places, n->places[i]);
	js_set(root, "pools", pools);
	js_set(root, "places", places);
	char *text = js_print(root, true);
	js_free(root);
	int err = n->options.platform.state_save(n->options.platform.ctx, text);
	free(text);
	return why_file_failed(why, err, "cannot write the list of known pools");
}
