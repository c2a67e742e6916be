/*
 * oxbow_volume.c: volumes made, cloned, changed, reverted, deleted; what is allocated in one. With --wait a command stays until the
 * background work that it began is done.
 */
#include "oxbow_verbs.h"

#include <stdio.h>

/* A mirrored one is in no pool for people to see. */
static const char *pool_slash(const struct answer *a)
{
	return *js_path_text(a->body, "pool") ? "/" : "";
}

static void volume_done(struct cli *cli, struct answer *a, const char *what)
{
	show_done(cli, a, "volume %s%s%s %s: %s\n%s", js_path_text(a->body, "pool"), pool_slash(a),
		  js_path_text(a->body, "name"), what, answer_size(a, "size_bytes"),
		  js_path_text(a->body, "uris.0"));
}

int volume_create(struct cli *cli)
{
	struct js *body = js_object();
	js_set_text(body, "name", cli->args[0]);
	body_set_id(cli, body, "id");
	body_set_size(cli, body);
	if (cli->values[OPT_POOL])
		js_set_text(body, "pool", cli->values[OPT_POOL]);
	if (cli->values[OPT_COPIES])
		js_set_text(body, "copies", cli->values[OPT_COPIES]);
	if (cli->values[OPT_BLOCK_SIZE])
		js_set_u64(body, "block_size_bytes",
			   number_value(cli->values[OPT_BLOCK_SIZE], "--block-size", 4096));
	struct answer a = daemon_ask(cli, "POST", mem_strdup("/v1/volumes"), body);
	volume_done(cli, &a, "created");
	return answer_done(&a);
}

/* The space of a volume comes back layer by layer, and a layer's job has the layer's id: the head's and the snapshots'. */
struct layers {
	char (*ids)[UUID_TEXT_LEN + 1];
	size_t count;
};

static void layer_add(struct layers *l, const char *id)
{
	l->ids = mem_realloc(l->ids, (l->count + 1) * sizeof(*l->ids));
	snprintf(l->ids[l->count++], UUID_TEXT_LEN + 1, "%s", id);
}

static struct layers layers_of(struct cli *cli, const struct answer *volume)
{
	struct layers l = {0};
	struct answer a = daemon_get(cli, "/v1/volumes/", js_path_text(volume->body, "id"), "/snapshots");
	const struct js *snapshots = js_get(a.body, "snapshots");
	layer_add(&l, js_path_text(volume->body, "head_id"));
	for (size_t i = 0; i < js_length(snapshots); i++)
		layer_add(&l, js_path_text(js_at(snapshots, i), "id"));
	answer_free(&a);
	return l;
}

static bool layers_have(const struct layers *l, const char *id)
{
	for (size_t i = 0; i < l->count; i++) {
		if (strcmp(l->ids[i], id) == 0)
			return true;
	}
	return false;
}

/* Follow one of the layers that has a job; false if none has one. One layer's end may make the next one's job. */
static bool layer_follow(struct cli *cli, const struct layers *l)
{
	struct answer a = daemon_get(cli, "/v1/jobs", "", "");
	const struct js *jobs = js_get(a.body, "jobs");
	bool found = false;
	for (size_t i = 0; i < js_length(jobs) && !found; i++) {
		const char *id = js_path_text(js_at(jobs, i), "id");
		found = layers_have(l, id);
		if (found)
			job_follow(cli, id, cli->args[0]);
	}
	answer_free(&a);
	return found;
}

int volume_delete(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct layers layers = {0};
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	bool agreed = confirm(cli, "Delete volume %s%s%s (%s) and its %llu snapshots?",
			      js_path_text(found.body, "pool"), pool_slash(&found),
			      js_path_text(found.body, "name"), answer_size(&found, "size_bytes"),
			      (unsigned long long)js_path_u64(found.body, "snapshot_count"));
	if (agreed && cli->values[OPT_WAIT])
		layers = layers_of(cli, &found);
	answer_free(&found);
	if (!agreed)
		return EXIT_FAILED;
	struct answer a = daemon_ask(cli, "DELETE", target_of("/v1/volumes/", id, ""), NULL);
	while (layers.count && layer_follow(cli, &layers))
		;
	free(layers.ids);
	show_done(cli, &a, "volume %s deleted", cli->args[0]);
	return answer_done(&a);
}

static struct answer volume_patch(struct cli *cli, struct js *body)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	return daemon_ask(cli, "PATCH", target_of("/v1/volumes/", id, ""), body);
}

int volume_grow(struct cli *cli)
{
	struct js *body = js_object();
	body_set_size(cli, body);
	struct answer a = volume_patch(cli, body);
	show_done(cli, &a, "volume %s: %s", js_path_text(a.body, "name"), answer_size(&a, "size_bytes"));
	return answer_done(&a);
}

int volume_rename(struct cli *cli)
{
	struct js *body = js_object();
	js_set_text(body, "name", cli->args[1]);
	struct answer a = volume_patch(cli, body);
	show_done(cli, &a, "volume %s is now called %s", cli->args[0], js_path_text(a.body, "name"));
	return answer_done(&a);
}

/* Stay until a clone depends on nothing. It may be cancelled meanwhile, and then it still has an origin. */
static void flatten_follow(struct cli *cli, const char *id, const char *name)
{
	job_follow(cli, id, name);
	struct answer a = daemon_get(cli, "/v1/volumes/", id, "");
	if (*js_path_text(a.body, "origin_id"))
		fail(EXIT_FAILED, "what was copied is kept; 'oxbow volume flatten' goes on from there",
		     "flattening %s was cancelled", name);
	answer_free(&a);
}

int volume_clone(struct cli *cli)
{
	struct js *body = js_object();
	js_set_text(body, "name", cli->args[1]);
	body_set_id(cli, body, "id");
	body_set_size(cli, body);
	if (cli->values[OPT_FULL])
		js_set_bool(body, "full_copy", true);
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/snapshots/", cli->args[0], "/clone"), body);
	if (cli->values[OPT_FULL] && cli->values[OPT_WAIT])
		flatten_follow(cli, js_path_text(a.body, "id"), cli->args[1]);
	volume_done(cli, &a, "cloned");
	return answer_done(&a);
}

int volume_flatten(struct cli *cli)
{
	const char *method = cli->values[OPT_CANCEL] ? "DELETE" : "POST";
	struct answer a = daemon_ask(cli, method, target_of("/v1/volumes/", cli->args[0], "/flatten"), NULL);
	if (cli->values[OPT_WAIT] && !cli->values[OPT_CANCEL])
		flatten_follow(cli, js_path_text(a.body, "id"), cli->args[0]);
	show_done(cli, &a, "volume %s: flattening %s", cli->args[0],
		  cli->values[OPT_CANCEL] ? "cancelled, what was copied is kept"
		  : cli->values[OPT_WAIT] ? "done"
					  : "started; watch it with 'oxbow job watch'");
	return answer_done(&a);
}

int volume_revert(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1], *snapshot, *volume = split_at(cli->args[0], &snapshot);
	struct answer found;
	if (!snapshot || !*snapshot)
		fail(EXIT_USAGE, "say VOLUME@SNAPSHOT", "\"%s\" names no snapshot", cli->args[0]);
	daemon_resolve(cli, "/v1/volumes/", volume, id, &found);
	answer_free(&found);
	if (!confirm(cli, "Throw away what was written to %s since %s?", volume, snapshot))
		return EXIT_FAILED;
	struct js *body = js_object();
	js_set_text(body, "snapshot", snapshot);
	body_set_id(cli, body, "head_id");
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/volumes/", id, "/revert"), body);
	show_done(cli, &a, "volume %s reverted to %s", volume, snapshot);
	free(volume);
	return answer_done(&a);
}

static char *extents_target(struct cli *cli, uint64_t offset)
{
	struct text t = {0};
	text_add(&t, "/v1/volumes/");
	target_add(&t, cli->args[0]);
	text_printf(&t, "/extents?offset_bytes=%llu", (unsigned long long)offset);
	if (cli->values[OPT_SINCE]) {
		text_add(&t, "&since=");
		target_add(&t, cli->values[OPT_SINCE]);
	}
	return t.data;
}

static void extents_print(struct cli *cli, const struct js *list)
{
	for (size_t i = 0; i < js_length(list); i++) {
		const struct js *e = js_at(list, i);
		const char *kind = js_true(js_get(e, "hole"))	? "hole"
				   : js_true(js_get(e, "zero")) ? "zero"
								: "data";
		printf("%16llu  %16llu  %s%s\n", (unsigned long long)js_path_u64(e, "offset_bytes"),
		       (unsigned long long)js_path_u64(e, "length_bytes"), kind,
		       !cli->values[OPT_SINCE]	       ? ""
		       : js_true(js_get(e, "changed")) ? "  changed"
						       : "  same");
	}
}

/* With -o json, a page a line. */
int volume_extents(struct cli *cli)
{
	uint64_t offset = 0;
	bool more = true;
	if (!cli->json && !cli->quiet)
		printf("%16s  %16s  %s\n", "OFFSET", "LENGTH",
		       cli->values[OPT_SINCE] ? "KIND  SINCE" : "KIND");
	while (more) {
		struct answer a = daemon_ask(cli, "GET", extents_target(cli, offset), NULL);
		if (cli->json)
			printf("%s\n", text_get(&a.raw));
		else
			extents_print(cli, js_get(a.body, "extents"));
		more = js_u64(js_get(a.body, "next_offset_bytes"), &offset);
		answer_free(&a);
	}
	return EXIT_DONE;
}
