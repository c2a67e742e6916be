/*
 * oxbow_nvme.c: who may connect to a volume over NVMe, and who is. Secrets are read from files or made here; one that was made is shown
 * this once, with the answer.
 */
#include "oxbow_verbs.h"

#include "data/nvme/nvme_secret.h"

#include <stdio.h>
#include <sys/random.h>

/* The first line of a file, to be free()d. */
static char *file_line(const char *path)
{
	char *line = NULL;
	size_t size = 0;
	bool is_stdin = strcmp(path, "-") == 0;
	FILE *file = is_stdin ? stdin : fopen(path, "re");
	if (!file || getline(&line, &size, file) < 0)
		fail(EXIT_USAGE, "", "cannot read a secret from %s", path);
	line[strcspn(line, "\r\n")] = '\0';
	if (!is_stdin)
		fclose(file);
	return line;
}

static char *secret_new(char *(*format)(const struct nvme_secret *s, char *text))
{
	struct nvme_secret s = {.hash = 1, .len_bytes = 32};
	char *text = mem_alloc(NVME_SECRET_TEXT_SIZE);
	if (getrandom(s.key, s.len_bytes, 0) != s.len_bytes)
		fail(EXIT_FAILED, "", "the kernel gives no random numbers");
	return format(&s, text);
}

static char *host_target(const struct cli *cli, const char *volume_id, const char *after)
{
	struct text t = {0};
	text_printf(&t, "/v1/volumes/%s/hosts/", volume_id);
	target_add(&t, cli->args[1]);
	text_add(&t, after);
	return t.data;
}

/* What was made for the host, to be shown this once; NULL: nothing. */
struct made {
	const char *secret, *tls_key;
};

static void show_made_as_json(const struct answer *a, const struct made *made)
{
	struct js *whole = js_load(text_get(&a->raw), a->raw.len_bytes);
	if (made->secret)
		js_set_text(whole, "secret", made->secret);
	if (made->tls_key)
		js_set_text(whole, "tls_key", made->tls_key);
	char *text = js_print(whole, false);
	printf("%s\n", text);
	free(text);
	js_free(whole);
}

static void show_allowed(const struct cli *cli, const struct answer *a, const struct made *made)
{
	const char *end = made->secret && made->tls_key ? "\n" : "";
	if (!made->secret && !made->tls_key)
		show_done(cli, a, "%s may connect to volume %s", cli->args[1], cli->args[0]);
	else if (cli->json)
		show_made_as_json(a, made);
	else if (cli->quiet)
		printf("%s%s%s\n", made->secret ? made->secret : "", end, made->tls_key ? made->tls_key : "");
	else
		show_done(cli, a, "%s may connect to volume %s with this %s, not shown again:\n%s%s%s",
			  cli->args[1], cli->args[0],
			  !made->tls_key  ? "secret"
			  : !made->secret ? "key for TLS"
					  : "secret and this key for TLS",
			  made->secret ? made->secret : "", end, made->tls_key ? made->tls_key : "");
}

/* From a file, or made, or none; to be free()d. */
static char *secret_option(const struct cli *cli, enum verb_option file, enum verb_option generate,
			   char *(*format)(const struct nvme_secret *s, char *text))
{
	if (cli->values[file] && cli->values[generate])
		fail(EXIT_USAGE, "", "--%s and --%s: one of them", option_texts[file].name,
		     option_texts[generate].name);
	if (cli->values[file])
		return file_line(cli->values[file]);
	return cli->values[generate] ? secret_new(format) : NULL;
}

int volume_allow(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	struct js *body = js_object();
	const char *controller_file = cli->values[OPT_CONTROLLER_SECRET_FILE];
	char *secret = secret_option(cli, OPT_SECRET_FILE, OPT_GENERATE_SECRET, nvme_secret_format);
	char *tls_key = secret_option(cli, OPT_TLS_KEY_FILE, OPT_GENERATE_TLS_KEY, nvme_tls_key_format);
	char *controller_secret = controller_file ? file_line(controller_file) : NULL;
	struct made made = {.secret = cli->values[OPT_GENERATE_SECRET] ? secret : NULL,
			    .tls_key = cli->values[OPT_GENERATE_TLS_KEY] ? tls_key : NULL};
	if (secret)
		js_set_text(body, "secret", secret);
	if (controller_secret)
		js_set_text(body, "controller_secret", controller_secret);
	if (tls_key)
		js_set_text(body, "tls_key", tls_key);
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	struct answer a = daemon_ask(cli, "PUT", host_target(cli, id, ""), body);
	show_allowed(cli, &a, &made);
	free(secret);
	free(controller_secret);
	free(tls_key);
	return answer_done(&a);
}

static int volume_disallow_all(struct cli *cli, const char *id)
{
	bool is_sure =
		confirm(cli, "Let anybody connect to volume %s who reaches the listener?", cli->args[0]);
	if (!is_sure)
		return EXIT_FAILED;
	struct answer a =
		daemon_ask(cli, "DELETE", target_of("/v1/volumes/", id, "/hosts?to_anyone=true"), NULL);
	show_done(cli, &a, "anybody may connect to volume %s", cli->args[0]);
	return answer_done(&a);
}

int volume_disallow(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	bool is_all = cli->values[OPT_ALL];
	if (is_all == (cli->arg_count == 2))
		fail(EXIT_USAGE, "oxbow volume disallow VOLUME HOSTNQN, or --all", "a host, or --all");
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	if (is_all)
		return volume_disallow_all(cli, id);
	const char *how = cli->values[OPT_YES] ? "?to_anyone=true" : "";
	struct answer a = daemon_ask(cli, "DELETE", host_target(cli, id, how), NULL);
	show_done(cli, &a, "%s may not connect to volume %s any more", cli->args[1], cli->args[0]);
	return answer_done(&a);
}

int volume_unreserve(struct cli *cli)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer found;
	daemon_resolve(cli, "/v1/volumes/", cli->args[0], id, &found);
	answer_free(&found);
	bool is_sure = confirm(cli, "Take the reservation of volume %s away from whoever relies on it?",
			       cli->args[0]);
	if (!is_sure)
		return EXIT_FAILED;
	struct answer a = daemon_ask(cli, "DELETE", target_of("/v1/volumes/", id, "/reservation"), NULL);
	show_done(cli, &a, "volume %s is not reserved any more", cli->args[0]);
	return answer_done(&a);
}

int nvme_list(struct cli *cli)
{
	static const struct column columns[] = {
		{"HOST", "host", COLUMN_TEXT},		{"FROM", "peer", COLUMN_TEXT},
		{"VOLUME", "volume", COLUMN_TEXT},	{"QUEUES", "io_queues", COLUMN_COUNT},
		{"COMMANDS", "commands", COLUMN_COUNT}, {"ERRORS", "errors", COLUMN_COUNT},
		{"TLS", "is_tls", COLUMN_YES},		{"PROVED", "is_authenticated", COLUMN_YES},
		{"HOLDS", "is_holder", COLUMN_YES},	{"SINCE", "since", COLUMN_TIME}};
	struct answer a = cli->arg_count ? daemon_get(cli, "/v1/nvme?volume=", cli->args[0], "")
					 : daemon_get(cli, "/v1/nvme", "", "");
	show_list(cli, &a, "associations", columns, ARRAY_COUNT(columns));
	return answer_done(&a);
}
