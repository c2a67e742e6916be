/*
 * oxbow_ask.c: what every verb does: ask the daemon, end the program if it says no, and make of options what a request says. A change is sent
 * under ids, so that it can be sent twice and mean the same.
 */
#include "oxbow_verbs.h"

#include "base/size.h"

#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

char *target_of(const char *before, const char *ref, const char *after)
{
	struct text t = {0};
	text_add(&t, before);
	target_add(&t, ref);
	text_add(&t, after);
	return t.data;
}

struct answer daemon_ask(struct cli *cli, const char *method, char *target, struct js *body)
{
	struct answer answer;
	client_call(cli->client, method, target, body, CLIENT_RESEND, &answer);
	if (answer.status < 200 || answer.status > 299)
		fail_answer(cli, &answer);
	js_free(body);
	free(target);
	return answer;
}

struct answer daemon_get(struct cli *cli, const char *before, const char *ref, const char *after)
{
	return daemon_ask(cli, "GET", target_of(before, ref, after), NULL);
}

void daemon_resolve(struct cli *cli, const char *collection, const char *ref, char id[UUID_TEXT_LEN + 1],
		    struct answer *found)
{
	*found = daemon_get(cli, collection, ref, "");
	snprintf(id, UUID_TEXT_LEN + 1, "%s", js_path_text(found->body, "id"));
}

int answer_done(struct answer *answer)
{
	answer_free(answer);
	return EXIT_DONE;
}

const char *answer_size(const struct answer *answer, const char *path)
{
	static char text[SIZE_TEXT_MAX];
	return size_format(js_path_u64(answer->body, path), text);
}

/* ---- options --------------------------------------------------------------------------------------------------------- */

uint64_t size_value(const char *text, const char *what)
{
	uint64_t bytes;
	int err = size_parse(text, &bytes);
	if (err == OXE_RANGE || (!err && bytes > INT64_MAX))
		fail(EXIT_USAGE, "", "%s: \"%s\" is too large", what, text);
	if (err)
		fail(EXIT_USAGE, "sizes look like 512M, 10G, 1.5T (powers of 1024), or are a number of bytes",
		     "%s: \"%s\" is no size", what, text);
	return bytes;
}

uint64_t number_value(const char *text, const char *what, uint64_t most)
{
	char *end;
	uint64_t number = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || number > most)
		fail(EXIT_USAGE, "", "%s: \"%s\" is no whole number up to %llu", what, text,
		     (unsigned long long)most);
	return number;
}

/* The daemon has another working directory. Symbolic links stay: /dev/disk/by-id is a better hint than /dev/sdb. */
char *path_absolute(const char *path)
{
	char *cwd = NULL, *result;
	if (*path == '/' || strncmp(path, "mem:", 4) == 0)
		return mem_strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&result, "%s/%s", cwd, path) < 0)
		fail(EXIT_FAILED, "give the whole path", "the current directory is gone");
	free(cwd);
	return result;
}

void body_set_size(struct cli *cli, struct js *body)
{
	if (cli->values[OPT_SIZE])
		js_set_u64(body, "size_bytes",
			   u64_align_up(size_value(cli->values[OPT_SIZE], "--size"), 4096));
}

static const char *new_id(char text[UUID_TEXT_LEN + 1])
{
	uint8_t random[16];
	struct uuid id;
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		fail(EXIT_FAILED, "", "the kernel gives no random numbers");
	id = uuid_from_random(random);
	return uuid_format(&id, text);
}

void body_set_id(struct cli *cli, struct js *body, const char *key)
{
	char id[UUID_TEXT_LEN + 1];
	js_set_text(body, key, cli->values[OPT_ID] ? cli->values[OPT_ID] : new_id(id));
}
