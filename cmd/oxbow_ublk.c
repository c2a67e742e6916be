/* oxbow_ublk.c: block devices that the daemon makes of volumes, on its own host. */
#include "oxbow_verbs.h"

int ublk_attach(struct cli *cli)
{
	struct js *body = js_object();
	js_set_text(body, "volume", cli->args[0]);
	struct answer a = daemon_ask(cli, "POST", mem_strdup("/v1/ublk"), body);
	show_done(cli, &a, "%s is %s: %s", js_path_text(a.body, "volume"), js_path_text(a.body, "device"),
		  answer_size(&a, "size_bytes"));
	return answer_done(&a);
}

int ublk_detach(struct cli *cli)
{
	struct js *body = js_object();
	js_set_bool(body, "force", cli->values[OPT_TAKE_AWAY]);
	struct answer a = daemon_ask(cli, "POST", target_of("/v1/ublk/", cli->args[0], "/detach"), body);
	show_done(cli, &a, "%s detached", cli->args[0]);
	return answer_done(&a);
}

int ublk_list(struct cli *cli)
{
	static const struct column columns[] = {
		{"DEVICE", "device", COLUMN_TEXT},	{"VOLUME", "volume", COLUMN_TEXT},
		{"STATE", "state", COLUMN_TEXT},	{"SIZE", "size_bytes", COLUMN_SIZE},
		{"READ-ONLY", "read_only", COLUMN_YES}, {"NOTE", "message", COLUMN_TEXT}};
	struct answer a = daemon_get(cli, "/v1/ublk", "", "");
	show_list(cli, &a, "devices", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}
