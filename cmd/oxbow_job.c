/* oxbow_job.c: background work: listed, followed to its end, cancelled, slowed down. */
#include "oxbow_verbs.h"

#include <stdio.h>

static const struct column job_columns[] = {{"ID", "id", COLUMN_TEXT},
					    {"KIND", "kind", COLUMN_TEXT},
					    {"POOL", "pool", COLUMN_TEXT},
					    {"SUBJECT", "subject", COLUMN_TEXT},
					    {"DONE", "done_bytes", COLUMN_SIZE},
					    {"TOTAL", "total_bytes", COLUMN_SIZE},
					    {"CANCELLABLE", "is_cancellable", COLUMN_YES}};

int job_list(struct cli *cli)
{
	struct answer a = daemon_get(cli, "/v1/jobs", "", "");
	show_list(cli, &a, "jobs", job_columns, ARRAY_COUNT(job_columns));
	return answer_done(&a);
}

static int job_watch_all(struct cli *cli)
{
	for (;;) {
		struct answer a = daemon_get(cli, "/v1/jobs", "", "");
		const struct js *first = js_at(js_get(a.body, "jobs"), 0);
		char label[128];
		if (!first)
			return answer_done(&a);
		snprintf(label, sizeof(label), "%s %s", js_path_text(first, "kind"),
			 js_path_text(first, "subject"));
		job_follow(cli, js_path_text(first, "id"), label);
		if (!cli->quiet && !cli->json)
			printf("%s: done\n", label);
		answer_free(&a);
	}
}

int job_watch(struct cli *cli)
{
	if (!cli->arg_count)
		return job_watch_all(cli);
	job_follow(cli, cli->args[0], cli->args[0]);
	return EXIT_DONE;
}

int job_cancel(struct cli *cli)
{
	struct answer a = daemon_ask(cli, "DELETE", target_of("/v1/jobs/", cli->args[0], ""), NULL);
	show_done(cli, &a, "job %s cancelled", cli->args[0]);
	return answer_done(&a);
}

int job_throttle(struct cli *cli)
{
	struct js *body = js_object();
	bool none = strcmp(cli->args[0], "none") == 0;
	js_set_u64(body, "bytes_per_s", none ? 0 : size_value(cli->args[0], "rate"));
	struct answer a = daemon_ask(cli, "PUT", mem_strdup("/v1/jobs/rate"), body);
	if (js_path_u64(a.body, "bytes_per_s"))
		show_done(cli, &a, "background copying is limited to %s a second",
			  answer_size(&a, "bytes_per_s"));
	else
		show_done(cli, &a, "background copying is not limited");
	return answer_done(&a);
}
