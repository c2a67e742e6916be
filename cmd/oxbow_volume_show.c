/*
 * oxbow_volume_show.c: volumes listed and shown. What the daemon answers in parts (copies, who may connect over NVMe and who has, the
 * reservation) is put into the one object as lines for people.
 */
#include "oxbow_verbs.h"

#include "base/size.h"

/* "2 of 3": how many are up to date and answer. */
static void volume_add_copies(struct js *volume)
{
	const struct js *copies = js_get(js_get(volume, "mirror"), "copies");
	struct text t = {0};
	size_t good = 0;
	for (size_t i = 0; i < js_length(copies); i++) {
		const struct js *c = js_at(copies, i);
		const char *session = js_path_text(c, "session");
		good += strcmp(js_path_text(c, "role"), "member") == 0 &&
			(!*session || strcmp(session, "open") == 0);
	}
	if (js_length(copies))
		text_printf(&t, "%zu of %zu", good, js_length(copies));
	js_set_text(volume, "copies", text_get(&t));
	text_free(&t);
}

int volume_list(struct cli *cli)
{
	static const struct column columns[] = {{"NAME", "name", COLUMN_TEXT},
						{"POOL", "pool", COLUMN_TEXT},
						{"SIZE", "size_bytes", COLUMN_SIZE},
						{"USED", "own_bytes", COLUMN_SIZE},
						{"SNAPSHOTS", "snapshot_count", COLUMN_COUNT},
						{"CLIENTS", "open_count", COLUMN_COUNT},
						{"CLONE", "is_clone", COLUMN_YES},
						{"DAMAGED", "is_damaged", COLUMN_YES},
						{"COPIES", "copies", COLUMN_TEXT},
						{"CREATED", "created", COLUMN_TIME}};
	const char *pool = cli->values[OPT_POOL];
	struct answer a = pool ? daemon_get(cli, "/v1/volumes?pool=", pool, "")
			       : daemon_get(cli, "/v1/volumes", "", "");
	struct js *volumes = js_get(a.body, "volumes");
	for (size_t i = 0; !cli->json && i < js_length(volumes); i++)
		volume_add_copies(js_at(volumes, i));
	show_list(cli, &a, "volumes", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}

static const struct column volume_details[] = {
	{"Name", "name", COLUMN_TEXT},
	{"UUID", "id", COLUMN_TEXT},
	{"Pool", "pool", COLUMN_TEXT},
	{"Size", "size_bytes", COLUMN_SIZE},
	{"Logical block", "block_size_bytes", COLUMN_SIZE},
	{"Created", "created", COLUMN_TIME},
	{"Used with snapshots", "own_bytes", COLUMN_SIZE},
	{"Used by the head", "head_bytes", COLUMN_SIZE},
	{"Snapshots", "snapshot_count", COLUMN_COUNT},
	{"Clients", "open_count", COLUMN_COUNT},
	{"Clone", "is_clone", COLUMN_YES},
	{"Cloned from", "origin_id", COLUMN_TEXT},
	{"Being flattened", "is_flattening", COLUMN_YES},
	{"Damaged", "is_damaged", COLUMN_YES},
	{"Served by node", "mirror.home", COLUMN_TEXT},
	{"State", "mirror.state", COLUMN_TEXT},
	{"Epoch", "mirror.epoch", COLUMN_COUNT},
	{"Regions being written", "mirror.intents", COLUMN_COUNT},
	{"Copies", "copies", COLUMN_LIST},
	{"Compared", "scrub", COLUMN_TEXT},
	{"Condition", "mirror.conditions.0.message", COLUMN_TEXT},
	{"What to do", "mirror.conditions.0.hint", COLUMN_TEXT},
	{"NVMe subsystem", "nqn", COLUMN_TEXT},
	{"Connect", "uris", COLUMN_LIST},
	{"NVMe hosts allowed", "hosts", COLUMN_LIST},
	{"NVMe hosts connected", "connected", COLUMN_LIST},
	{"NVMe reservation", "reservation", COLUMN_LIST},
};

/* A line a host, never its secret. */
static struct js *hosts_as_text(const struct js *hosts)
{
	struct js *lines = js_array();
	for (size_t i = 0; i < js_length(hosts); i++) {
		const struct js *h = js_at(hosts, i);
		struct text line = {0};
		text_printf(&line, "%s%s%s%s", js_path_text(h, "nqn"),
			    js_true(js_get(h, "has_tls_key")) ? ", through TLS" : "",
			    js_true(js_get(h, "has_secret")) ? ", with a secret" : "",
			    js_true(js_get(h, "has_controller_secret")) ? " on both sides" : "");
		js_push_text(lines, text_get(&line));
		text_free(&line);
	}
	if (js_length(hosts) == 0)
		js_push_text(lines, "any");
	return lines;
}

static struct js *connected_as_text(const struct js *associations)
{
	struct js *lines = js_array();
	for (size_t i = 0; i < js_length(associations); i++) {
		const struct js *a = js_at(associations, i);
		struct text line = {0};
		text_printf(&line, "%s, from %s%s%s", js_path_text(a, "host"), js_path_text(a, "peer"),
			    js_true(js_get(a, "is_tls")) ? ", through TLS" : "",
			    js_true(js_get(a, "is_authenticated")) ? ", authenticated" : "");
		js_push_text(lines, text_get(&line));
		text_free(&line);
	}
	if (js_length(lines) == 0)
		js_push_text(lines, "none");
	return lines;
}

static struct js *reservation_as_text(const struct js *r)
{
	struct js *lines = js_array();
	const struct js *registrants = js_get(r, "registrants");
	js_push_text(lines, js_true(js_get(r, "is_unreadable"))
				    ? "cannot be read, and keeps every host out: 'oxbow volume unreserve'"
				    : js_path_text(r, "type"));
	for (size_t i = 0; i < js_length(registrants); i++) {
		const struct js *one = js_at(registrants, i);
		struct text line = {0};
		text_printf(&line, "%s, key %s%s", js_path_text(one, "host_id"), js_path_text(one, "key"),
			    js_true(js_get(one, "is_holder")) ? ", holds it" : "");
		js_push_text(lines, text_get(&line));
		text_free(&line);
	}
	return lines;
}

/* What NVMe says of a volume, for people. Its list may be unreadable; the rest is told all the same. */
static void volume_add_nvme(struct cli *cli, struct js *volume)
{
	const char *id = js_path_text(volume, "id");
	struct answer hosts, connected = daemon_get(cli, "/v1/nvme?volume=", id, ""),
			     reservation = daemon_get(cli, "/v1/volumes/", id, "/reservation");
	char *target = target_of("/v1/volumes/", id, "/hosts");
	client_call(cli->client, "GET", target, NULL, CLIENT_RESEND, &hosts);
	struct js *lines = js_array();
	js_push_text(lines, "cannot be read, and so nobody: 'oxbow volume disallow --all'");
	if (hosts.status == 200) {
		js_free(lines);
		lines = hosts_as_text(js_get(hosts.body, "hosts"));
	}
	js_set(volume, "hosts", lines);
	js_set(volume, "connected", connected_as_text(js_get(connected.body, "associations")));
	js_set(volume, "reservation", reservation_as_text(reservation.body));
	free(target);
	answer_free(&hosts);
	answer_free(&connected);
	answer_free(&reservation);
}

/* "3 G of 10 G, 0 B differed, 0 B repaired"; nothing if its copies were never compared. */
static void volume_add_scrub(struct js *volume)
{
	const struct js *s = js_get(js_get(volume, "mirror"), "scrub");
	char texts[4][SIZE_TEXT_MAX];
	struct text t = {0};
	if (js_path_u64(s, "todo_bytes"))
		text_printf(&t, "%s of %s, %s differed, %s repaired",
			    size_format(js_path_u64(s, "done_bytes"), texts[0]),
			    size_format(js_path_u64(s, "todo_bytes"), texts[1]),
			    size_format(js_path_u64(s, "differed_bytes"), texts[2]),
			    size_format(js_path_u64(s, "repaired_bytes"), texts[3]));
	js_set_text(volume, "scrub", text_get(&t));
	text_free(&t);
}

/* A line a copy: which, what it is, whether it answers, and what filling it moved. */
static void volume_add_copy_lines(struct js *volume)
{
	const struct js *copies = js_get(js_get(volume, "mirror"), "copies");
	struct js *lines = js_array();
	char moved[SIZE_TEXT_MAX], compared[SIZE_TEXT_MAX];
	for (size_t i = 0; i < js_length(copies); i++) {
		const struct js *c = js_at(copies, i);
		struct text t = {0};
		const char *session = js_path_text(c, "session");
		uint64_t filled = js_path_u64(c, "filled_bytes"), checked = js_path_u64(c, "compared_bytes");
		text_printf(&t, "%s on node %s: %s", js_path_text(c, "pool"), js_path_text(c, "node"),
			    js_path_text(c, "role"));
		if (*session && strcmp(session, "open") != 0)
			text_printf(&t, ", does not answer: %s", js_path_text(c, "why"));
		if (filled || checked)
			text_printf(&t, ", last filling: %s moved, %s compared", size_format(filled, moved),
				    size_format(checked, compared));
		js_push_text(lines, text_get(&t));
		text_free(&t);
	}
	js_set(volume, "copies", lines);
	volume_add_scrub(volume);
}

int volume_show(struct cli *cli)
{
	struct answer a = daemon_get(cli, "/v1/volumes/", cli->args[0], "");
	if (!cli->json)
		volume_add_copy_lines(a.body);
	if (!cli->json)
		volume_add_nvme(cli, a.body);
	show_details(cli, &a, volume_details, ARRAY_COUNT(volume_details));
	return answer_done(&a);
}
