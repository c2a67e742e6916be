/*
 * oxbow_pool.c: pools: disks taken into use, listed, checked. A check is long, so a second client asks meanwhile how far the first one's is.
 */
#include "oxbow_verbs.h"

#include <stdio.h>

int pool_create(struct cli *cli)
{
	char *path = path_absolute(cli->args[0]);
	struct js *body = js_object();
	js_set_text(body, "path", path);
	js_set_text(body, "name", cli->values[OPT_NAME]);
	body_set_id(cli, body, "id");
	body_set_size(cli, body);
	if (cli->values[OPT_FORCE])
		js_set_text(body, "force", path);
	struct answer a = daemon_ask(cli, "POST", mem_strdup("/v1/pools"), body);
	show_done(cli, &a, "pool %s created on %s: %s", js_path_text(a.body, "name"), path,
		  answer_size(&a, "space.total_bytes"));
	free(path);
	return answer_done(&a);
}

int pool_import(struct cli *cli)
{
	char *path = path_absolute(cli->args[0]);
	struct js *body = js_object();
	js_set_text(body, "path", path);
	struct answer a = daemon_ask(cli, "POST", mem_strdup("/v1/pools/import"), body);
	show_done(cli, &a, "pool %s imported from %s: %llu volumes", js_path_text(a.body, "name"), path,
		  (unsigned long long)js_path_u64(a.body, "volume_count"));
	free(path);
	return answer_done(&a);
}

int pool_export(struct cli *cli)
{
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/pools/", cli->args[0], "/export"), NULL);
	show_done(cli, &a, "pool %s exported: its disk can be moved", cli->args[0]);
	return answer_done(&a);
}

int pool_list(struct cli *cli)
{
	static const struct column columns[] = {{"NAME", "name", COLUMN_TEXT},
						{"STATE", "state", COLUMN_TEXT},
						{"SIZE", "space.total_bytes", COLUMN_SIZE},
						{"DATA", "space.data_bytes", COLUMN_SIZE},
						{"FREE", "space.free_bytes", COLUMN_SIZE},
						{"VOLUMES", "volume_count", COLUMN_COUNT},
						{"PATH", "path", COLUMN_TEXT},
						{"CONDITION", "conditions.0.reason", COLUMN_TEXT}};
	struct answer a = daemon_get(cli, "/v1/pools", "", "");
	show_list(cli, &a, "pools", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}

static const struct column pool_details[] = {
	{"Name", "name", COLUMN_TEXT},
	{"UUID", "id", COLUMN_TEXT},
	{"Path", "path", COLUMN_TEXT},
	{"State", "state", COLUMN_TEXT},
	{"Condition", "conditions.0.reason", COLUMN_TEXT},
	{"  what", "conditions.0.message", COLUMN_TEXT},
	{"  since", "conditions.0.since", COLUMN_TIME},
	{"  what to do", "conditions.0.hint", COLUMN_TEXT},
	{"Size", "space.total_bytes", COLUMN_SIZE},
	{"Data", "space.data_bytes", COLUMN_SIZE},
	{"Metadata", "space.metadata_bytes", COLUMN_SIZE},
	{"Journal", "space.journal_bytes", COLUMN_SIZE},
	{"Free", "space.free_bytes", COLUMN_SIZE},
	{"Volumes", "volume_count", COLUMN_COUNT},
	{"Snapshots", "snapshot_count", COLUMN_COUNT},
	{"Layers", "layer_count", COLUMN_COUNT},
	{"Damaged volumes", "damage.damaged_volume_count", COLUMN_COUNT},
	{"Metadata pages lost", "damage.metadata_pages_lost", COLUMN_COUNT},
	{"Opened in (us)", "recovery.open_us", COLUMN_COUNT},
};

int pool_show(struct cli *cli)
{
	struct answer a = daemon_get(cli, "/v1/pools/", cli->args[0], "");
	show_details(cli, &a, pool_details, ARRAY_COUNT(pool_details));
	return answer_done(&a);
}

int pool_grow(struct cli *cli)
{
	struct js *body = js_object();
	body_set_size(cli, body);
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/pools/", cli->args[0], "/grow"), body);
	show_done(cli, &a, "pool %s: %s", cli->args[0], answer_size(&a, "space.total_bytes"));
	return answer_done(&a);
}

#define PAGE_BYTES UINT64_C(4096) /* of metadata */

/* What a second client asks while the first waits for the check to end. */
struct check_watch {
	struct cli *cli;
	struct client *client;
	char *target;
};

static void check_progress(void *ctx)
{
	struct check_watch *w = ctx;
	struct answer a;
	client_call(w->client, "GET", w->target, NULL, CLIENT_ONCE, &a);
	uint64_t total = js_path_u64(a.body, "check.pages_total");
	if (total)
		bar_draw(w->cli, w->cli->args[0], js_path_u64(a.body, "check.pages_read") * PAGE_BYTES,
			 total * PAGE_BYTES);
	answer_free(&a);
}

static struct answer check_run(struct cli *cli)
{
	struct check_watch w = {cli, client_new(client_socket(cli->client)),
				target_of("/v1/pools/", cli->args[0], "")};
	char *target = target_of(w.target, "", "/check");
	struct answer a;
	if (shows_progress(cli))
		client_on_wait(cli->client, check_progress, &w);
	client_call(cli->client, "POST", target, NULL, CLIENT_RESEND, &a);
	client_on_wait(cli->client, NULL, NULL);
	bar_clear(cli);
	if (a.status != 200)
		fail_answer(cli, &a);
	client_free(w.client);
	free(w.target);
	free(target);
	return a;
}

int pool_check(struct cli *cli)
{
	struct answer a = check_run(cli);
	uint64_t problems = js_path_u64(a.body, "problem_count");
	if (!cli->json) {
		const struct js *list = js_get(a.body, "problems");
		for (size_t i = 0; i < js_length(list); i++)
			printf("%s\n", js_path_text(js_at(list, i), "text"));
	}
	show_done(cli, &a, "pool %s: %llu problem%s; %llu metadata pages, %llu layers", cli->args[0],
		  (unsigned long long)problems, problems == 1 ? "" : "s",
		  (unsigned long long)js_path_u64(a.body, "pages_read"),
		  (unsigned long long)js_path_u64(a.body, "layers"));
	answer_free(&a);
	return problems ? EXIT_FAILED : EXIT_DONE;
}
