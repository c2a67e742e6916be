/* oxbow_daemon.c: the daemon itself: what happened, whether it is ready, how it is. */
#include "oxbow_verbs.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static bool field_print(void *ctx, const char *key, struct js *value)
{
	static const char *const shown[] = {"id", "time", "level", "event", "message"};
	uint64_t number;
	(void)ctx;
	for (size_t i = 0; i < ARRAY_COUNT(shown); i++) {
		if (strcmp(key, shown[i]) == 0)
			return true;
	}
	if (js_u64(value, &number))
		printf(" %s=%llu", key, (unsigned long long)number);
	else
		printf(" %s=%s", key, js_text(value) ? js_text(value) : "?");
	return true;
}

static void event_print(const struct cli *cli, const struct js *event)
{
	if (cli->json) {
		char *line = js_print(event, false);
		printf("%s\n", line);
		free(line);
		return;
	}
	printf("%s %-5s %s: %s", js_path_text(event, "time"), js_path_text(event, "level"),
	       js_path_text(event, "event"), js_path_text(event, "message"));
	js_walk(event, field_print, NULL);
	printf("\n");
}

/* One page; the id to go on from in *after. Returns how many there were. */
static size_t events_page(struct cli *cli, uint64_t *after, unsigned wait_s, enum client_patience patience)
{
	struct text target = {0};
	struct answer a;
	text_printf(&target, "/v1/events?after=%llu&wait=%u", (unsigned long long)*after, wait_s);
	client_call(cli->client, "GET", text_get(&target), NULL, patience, &a);
	if (a.status != 200)
		fail_answer(cli, &a);
	const struct js *list = js_get(a.body, "events");
	size_t count = js_length(list);
	for (size_t i = 0; i < count; i++)
		event_print(cli, js_at(list, i));
	fflush(stdout);
	*after = js_path_u64(a.body, "next");
	answer_free(&a);
	text_free(&target);
	return count;
}

int events_run(struct cli *cli)
{
	const char *after_text = cli->values[OPT_AFTER];
	uint64_t after = after_text ? number_value(after_text, "--since", INT64_MAX) : 0;
	bool follow = cli->values[OPT_FOLLOW] != NULL;
	/* Who follows has met the daemon after the first page, and waits for its return. */
	enum client_patience patience = CLIENT_RESEND;
	while (events_page(cli, &after, 0, patience) > 0 && !ferror(stdout))
		patience = follow ? CLIENT_PATIENT : CLIENT_RESEND;
	while (follow && !ferror(stdout))
		events_page(cli, &after, 30, CLIENT_PATIENT);
	return EXIT_DONE;
}

static void reasons_print(const struct js *reasons)
{
	for (size_t i = 0; i < js_length(reasons); i++) {
		const struct js *r = js_at(reasons, i);
		const char *pool = js_path_text(r, "pool");
		printf("%s%s%s: %s\n", *pool ? "pool " : "", pool, *pool ? "" : "daemon",
		       js_path_text(r, "message"));
		if (*js_path_text(r, "hint"))
			printf("  hint: %s\n", js_path_text(r, "hint"));
	}
}

static time_t clock_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Patient with a daemon that is not there yet: it may be about to start. */
static struct answer ready_ask(struct cli *cli, unsigned wait_s)
{
	struct answer a;
	char target[64];
	time_t end_s = clock_s() + wait_s, left_s = wait_s;
	for (;;) {
		snprintf(target, sizeof(target), "/v1/ready?wait=%u",
			 (unsigned)u64_min((uint64_t)left_s, 30));
		client_call(cli->client, "GET", target, NULL, CLIENT_ONCE, &a);
		left_s = end_s - clock_s();
		if (a.status == 200 || left_s <= 0)
			return a;
		answer_free(&a);
		usleep(50 * 1000);
	}
}

int ready_run(struct cli *cli)
{
	const char *wait = cli->values[OPT_WAIT_S];
	struct answer a = ready_ask(cli, wait ? (unsigned)number_value(wait, "--wait", 86400) : 0);
	if (a.status != 200 && a.status != 503)
		fail_answer(cli, &a);
	if (!cli->json && !cli->quiet && a.status != 200)
		reasons_print(js_get(a.body, "reasons"));
	show_done(cli, &a, "%s", a.status == 200 ? "ready" : "not ready");
	int status = a.status == 200 ? EXIT_DONE : EXIT_FAILED;
	answer_free(&a);
	return status;
}

int version_run(struct cli *cli)
{
	struct answer a = daemon_get(cli, "/v1/version", "", "");
	show_done(cli, &a, "oxbow " OXBOW_VERSION ", oxbowd %s", js_path_text(a.body, "version"));
	return answer_done(&a);
}

static void status_json(const struct answer *ready, const struct answer *stats, const struct answer *pools,
			const struct answer *jobs)
{
	printf("{\"ready\":%s,\"stats\":%s,\"pools\":%s,\"jobs\":%s}\n", text_get(&ready->raw),
	       text_get(&stats->raw), text_get(&pools->raw), text_get(&jobs->raw));
}

static void status_print(const struct cli *cli, const struct answer *ready, const struct answer *stats,
			 const struct answer *pools, const struct answer *jobs)
{
	static const struct column columns[] = {{"POOL", "name", COLUMN_TEXT},
						{"STATE", "state", COLUMN_TEXT},
						{"SIZE", "space.total_bytes", COLUMN_SIZE},
						{"FREE", "space.free_bytes", COLUMN_SIZE},
						{"VOLUMES", "volume_count", COLUMN_COUNT},
						{"SNAPSHOTS", "snapshot_count", COLUMN_COUNT}};
	uint64_t up_s = js_path_u64(stats->body, "uptime_ms") / 1000;
	size_t job_count = js_length(js_get(jobs->body, "jobs"));
	printf("oxbowd: %s, up %llu:%02llu:%02llu, %s resident, %zu background job%s\n",
	       ready->status == 200 ? "ready" : "not ready", (unsigned long long)up_s / 3600,
	       (unsigned long long)up_s / 60 % 60, (unsigned long long)up_s % 60,
	       answer_size(stats, "process.resident_bytes"), job_count, job_count == 1 ? "" : "s");
	reasons_print(js_get(ready->body, "reasons"));
	show_list(cli, pools, "pools", columns, ARRAY_COUNT(columns));
}

int status_run(struct cli *cli)
{
	struct answer ready = ready_ask(cli, 0);
	if (ready.status != 200 && ready.status != 503)
		fail_answer(cli, &ready);
	struct answer stats = daemon_get(cli, "/v1/stats", "", ""),
		      pools = daemon_get(cli, "/v1/pools", "", "");
	struct answer jobs = daemon_get(cli, "/v1/jobs", "", "");
	if (cli->json)
		status_json(&ready, &stats, &pools, &jobs);
	else
		status_print(cli, &ready, &stats, &pools, &jobs);
	int result = ready.status == 200 ? EXIT_DONE : EXIT_FAILED;
	answer_free(&ready);
	answer_free(&stats);
	answer_free(&pools);
	answer_free(&jobs);
	return result;
}
