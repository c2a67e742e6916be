/* oxbow_mirror.c: mirrored volumes: copies added and given up, compared, another home, one salvaged; and the nodes there are. */
#include "oxbow_verbs.h"

static int copy_verb(struct cli *cli, const char *method, const char *what)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct text t = {0};
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	text_printf(&t, "/v1/volumes/%s/copies/", id);
	target_add(&t, cli->args[1]);
	struct answer a = daemon_ask(cli, method, mem_strdup(text_get(&t)), NULL);
	text_free(&t);
	show_done(cli, &a, "volume %s: the copy in %s is %s", cli->args[0], cli->args[1], what);
	return answer_done(&a);
}

int copy_add(struct cli *cli)
{
	return copy_verb(cli, "PUT", "being made");
}

int copy_forget(struct cli *cli)
{
	if (!confirm(cli, "Give up the copy of %s in pool %s?", cli->args[0], cli->args[1]))
		return EXIT_FAILED;
	return copy_verb(cli, "DELETE", "given up");
}

int volume_move(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct js *body = js_object();
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	js_set_text(body, "node", cli->values[OPT_TO]);
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/volumes/", id, "/move"), body);
	show_done(cli, &a, "volume %s: node %s serves it from now on", cli->args[0],
		  js_path_text(a.body, "mirror.home"));
	return answer_done(&a);
}

/* Without --accept-loss the daemon says what would be lost, and that is the answer: an error. */
int volume_salvage(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct js *body = js_object();
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	js_set_text(body, "pool", cli->values[OPT_POOL]);
	js_set_bool(body, "accept_loss", cli->values[OPT_ACCEPT_LOSS]);
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/volumes/", id, "/salvage"), body);
	show_done(cli, &a, "volume %s: the copy in %s is all there is from now on", cli->args[0],
		  cli->values[OPT_POOL]);
	return answer_done(&a);
}

int volume_scrub(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	const char *method = cli->values[OPT_CANCEL] ? "DELETE" : "POST";
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	struct answer a = daemon_ask(cli, method, target_of("/v1/volumes/", id, "/scrub"), NULL);
	show_done(cli, &a, "volume %s: %s", cli->args[0],
		  cli->values[OPT_CANCEL]
			  ? "its copies are not compared any more"
			  : "its copies are being compared; 'oxbow volume show' tells how far");
	return answer_done(&a);
}

int node_list(struct cli *cli)
{
	static const struct column columns[] = {{"NAME", "name", COLUMN_TEXT},
						{"THIS", "is_this", COLUMN_YES},
						{"ALIVE", "is_alive", COLUMN_YES},
						{"POOLS", "pool_count", COLUMN_COUNT},
						{"VOLUMES", "volume_count", COLUMN_COUNT},
						{"COPIES AT", "address", COLUMN_TEXT},
						{"UUID", "id", COLUMN_TEXT}};
	struct answer a = daemon_get(cli, "/v1/nodes", "", "");
	show_list(cli, &a, "nodes", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}
