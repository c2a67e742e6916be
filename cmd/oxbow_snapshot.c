/* oxbow_snapshot.c: snapshots taken, listed, shown, renamed, deleted, counted. */
#include "oxbow_verbs.h"

char *split_at(const char *ref, char **snapshot)
{
	char *volume = mem_strdup(ref), *at = strchr(volume, '@');
	*snapshot = at ? at + 1 : NULL;
	if (at)
		*at = '\0';
	return volume;
}

int snapshot_create(struct cli *cli)
{
	char *at, *volume = split_at(cli->args[0], &at);
	const char *name = cli->arg_count > 1 ? cli->args[1] : at;
	if (!name || (at && cli->arg_count > 1))
		fail(EXIT_USAGE, "oxbow snapshot create VOLUME NAME", "the snapshot needs one name");
	struct js *body = js_object();
	js_set_text(body, "name", name);
	body_set_id(cli, body, "id");
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/volumes/", volume, "/snapshots"), body);
	show_done(cli, &a, "snapshot %s@%s taken, writes paused for %llu us", js_path_text(a.body, "volume"),
		  js_path_text(a.body, "name"), (unsigned long long)js_path_u64(a.body, "pause_us"));
	free(volume);
	return answer_done(&a);
}

int snapshot_list(struct cli *cli)
{
	static const struct column columns[] = {
		{"NAME", "name", COLUMN_TEXT},	    {"VOLUME", "volume", COLUMN_TEXT},
		{"POOL", "pool", COLUMN_TEXT},	    {"SIZE", "size_bytes", COLUMN_SIZE},
		{"OWN", "own_bytes", COLUMN_SIZE},  {"CHILDREN", "child_count", COLUMN_COUNT},
		{"CREATED", "created", COLUMN_TIME}};
	struct answer a = cli->arg_count ? daemon_get(cli, "/v1/volumes/", cli->args[0], "/snapshots")
					 : daemon_get(cli, "/v1/snapshots", "", "");
	show_list(cli, &a, "snapshots", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}

int snapshot_show(struct cli *cli)
{
	static const struct column columns[] = {{"Name", "name", COLUMN_TEXT},
						{"UUID", "id", COLUMN_TEXT},
						{"Volume", "volume", COLUMN_TEXT},
						{"Pool", "pool", COLUMN_TEXT},
						{"Size", "size_bytes", COLUMN_SIZE},
						{"Own space", "own_bytes", COLUMN_SIZE},
						{"Created", "created", COLUMN_TIME},
						{"Parent", "parent_id", COLUMN_TEXT},
						{"Children", "child_count", COLUMN_COUNT},
						{"Clients", "open_count", COLUMN_COUNT},
						{"NVMe subsystem", "nqn", COLUMN_TEXT}};
	struct answer a = daemon_get(cli, "/v1/snapshots/", cli->args[0], "");
	show_details(cli, &a, columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}

int snapshot_delete(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	daemon_resolve(cli, "/v1/snapshots/", cli->args[0], id, &found);
	answer_free(&found);
	struct answer a = daemon_ask(cli, "DELETE", target_of("/v1/snapshots/", id, ""), NULL);
	if (cli->values[OPT_WAIT])
		job_follow(cli, id, cli->args[0]);
	show_done(cli, &a, "snapshot %s deleted", cli->args[0]);
	return answer_done(&a);
}

int snapshot_rename(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct js *body = js_object();
	daemon_resolve(cli, "/v1/snapshots/", cli->args[0], id, &found);
	answer_free(&found);
	js_set_text(body, "name", cli->args[1]);
	struct answer a = daemon_ask(cli, "PATCH", target_of("/v1/snapshots/", id, ""), body);
	show_done(cli, &a, "snapshot %s is now called %s", cli->args[0], js_path_text(a.body, "name"));
	return answer_done(&a);
}

int snapshot_usage(struct cli *cli)
{
	static const struct column columns[] = {{"Snapshot", "name", COLUMN_TEXT},
						{"Volume", "volume", COLUMN_TEXT},
						{"Referenced", "referenced_bytes", COLUMN_SIZE},
						{"Exclusive", "exclusive_bytes", COLUMN_SIZE},
						{"Shared", "shared_bytes", COLUMN_SIZE}};
	struct answer a = daemon_get(cli, "/v1/snapshots/", cli->args[0], "/usage");
	show_details(cli, &a, columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}
