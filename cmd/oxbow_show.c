/* oxbow_show.c: what people see; see oxbow.h. */
#include "oxbow.h"

#include "base/size.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CELL_MAX    128
#define COLUMNS_MAX 16

/* ---- errors ---------------------------------------------------------------------------------------------------------- */

void fail(int status, const char *hint, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fflush(stdout);
	fprintf(stderr, "oxbow: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	if (*hint)
		fprintf(stderr, "hint: %s\n", hint);
	exit(status);
}

static _Noreturn void fail_unreached(const struct cli *cli, const struct answer *answer)
{
	const char *socket = client_socket(cli->client);
	if (access(socket, F_OK) == 0 && access(socket, W_OK) != 0)
		fail(EXIT_UNREACHED, "run it as root, or as a user who may write the socket",
		     "no permission to reach oxbowd at %s", socket);
	fail(EXIT_UNREACHED,
	     "start it ('systemctl start oxbowd', or 'oxbowd'), or name its socket with -s or $OXBOW_SOCKET",
	     "cannot reach oxbowd at %s: %s", socket, answer->why);
}

void fail_answer(const struct cli *cli, const struct answer *answer)
{
	const char *message = js_text(js_get(answer->body, "message"));
	const char *hint = js_text(js_get(answer->body, "hint"));
	if (!answer->status)
		fail_unreached(cli, answer);
	if (cli->json) {
		fprintf(stderr, "%s\n", text_get(&answer->raw));
		exit(EXIT_FAILED);
	}
	fail(EXIT_FAILED, hint ? hint : "", "%s",
	     message ? message : "the daemon gave an answer that makes no sense");
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

const struct js *js_path(const struct js *value, const char *path)
{
	char part[64];
	while (*path && value) {
		size_t len = strcspn(path, ".");
		assert(len < sizeof(part));
		memcpy(part, path, len);
		part[len] = '\0';
		bool is_index = *part >= '0' && *part <= '9';
		value = is_index ? js_at(value, (size_t)atoi(part)) : js_get(value, part);
		path += len + (path[len] == '.');
	}
	return value;
}

const char *js_path_text(const struct js *value, const char *path)
{
	const char *text = js_text(js_path(value, path));
	return text ? text : "";
}

uint64_t js_path_u64(const struct js *value, const char *path)
{
	uint64_t number;
	return js_u64(js_path(value, path), &number) ? number : 0;
}

static void list_format(const struct js *list, char cell[CELL_MAX * 4])
{
	size_t used = 0, size = (size_t)CELL_MAX * 4;
	cell[0] = '\0';
	for (size_t i = 0; i < js_length(list) && used < size; i++) {
		const char *text = js_text(js_at(list, i));
		used += (size_t)snprintf(cell + used, size - used, "%s%s", i ? "\n" : "", text ? text : "?");
	}
}

/* "2024-05-01T10:00:00.123Z" as "2024-05-01 10:00:00" */
static void time_format(const char *text, char *cell)
{
	snprintf(cell, CELL_MAX, "%.10s%s%.8s", text, strlen(text) > 11 ? " " : "",
		 strlen(text) > 11 ? text + 11 : "");
}

static void cell_format(const struct js *object, const struct column *c, char cell[CELL_MAX * 4])
{
	const struct js *value = js_path(object, c->path);
	char size[SIZE_TEXT_MAX];
	uint64_t number;
	bool known = js_u64(value, &number);
	if (c->kind == COLUMN_LIST)
		list_format(value, cell);
	else if (js_is_null(value))
		snprintf(cell, CELL_MAX, "-");
	else if (c->kind == COLUMN_SIZE && known)
		snprintf(cell, CELL_MAX, "%s", size_format(number, size));
	else if (known)
		snprintf(cell, CELL_MAX, "%llu", (unsigned long long)number);
	else if (c->kind == COLUMN_YES)
		snprintf(cell, CELL_MAX, "%s", js_true(value) ? "yes" : "no");
	else if (c->kind == COLUMN_TIME)
		time_format(js_text(value) ? js_text(value) : "", cell);
	else
		snprintf(cell, (size_t)CELL_MAX * 4, "%s", js_text(value) ? js_text(value) : "?");
}

/* ---- tables ---------------------------------------------------------------------------------------------------------- */

static bool is_number(const struct column *c)
{
	return c->kind == COLUMN_SIZE || c->kind == COLUMN_COUNT;
}

static void row_print(const struct column *columns, size_t count, const int *widths,
		      char cells[][CELL_MAX * 4])
{
	for (size_t i = 0; i < count; i++) {
		bool last = i + 1 == count;
		if (is_number(&columns[i]))
			printf("%*s%s", widths[i], cells[i], last ? "\n" : "  ");
		else
			printf("%-*s%s", last ? 0 : widths[i], cells[i], last ? "\n" : "  ");
	}
}

static void row_format(const struct js *object, const struct column *columns, size_t count,
		       char cells[][CELL_MAX * 4])
{
	for (size_t i = 0; i < count; i++)
		cell_format(object, &columns[i], cells[i]);
}

static void table_print(const struct js *list, const struct column *columns, size_t count)
{
	char cells[COLUMNS_MAX][CELL_MAX * 4];
	int widths[COLUMNS_MAX];
	for (size_t i = 0; i < count; i++) {
		widths[i] = (int)strlen(columns[i].title);
		for (size_t row = 0; row < js_length(list); row++) {
			cell_format(js_at(list, row), &columns[i], cells[i]);
			widths[i] = (int)u64_max((uint64_t)widths[i], strlen(cells[i]));
		}
		snprintf(cells[i], CELL_MAX, "%s", columns[i].title);
	}
	row_print(columns, count, widths, cells);
	for (size_t row = 0; row < js_length(list); row++) {
		row_format(js_at(list, row), columns, count, cells);
		row_print(columns, count, widths, cells);
	}
}

static void raw_print(const struct answer *answer)
{
	if (answer->raw.len_bytes)
		printf("%s\n", text_get(&answer->raw));
}

void show_list(const struct cli *cli, const struct answer *answer, const char *key,
	       const struct column *columns, size_t count)
{
	const struct js *list = js_get(answer->body, key);
	char cell[CELL_MAX * 4];
	assert(count <= COLUMNS_MAX);
	if (cli->json) {
		raw_print(answer);
		return;
	}
	if (!cli->quiet) {
		table_print(list, columns, count);
		return;
	}
	for (size_t row = 0; row < js_length(list); row++) {
		cell_format(js_at(list, row), &columns[0], cell);
		printf("%s\n", cell);
	}
}

/* A list has a line an element, under the first. */
static void detail_print(const char *title, int width, char *cell)
{
	char *rest = cell, *line;
	bool first = true;
	while ((line = strsep(&rest, "\n"))) {
		printf("%-*s  %s\n", width, first ? title : "", line);
		first = false;
	}
}

void show_details(const struct cli *cli, const struct answer *answer, const struct column *columns,
		  size_t count)
{
	char cell[CELL_MAX * 4];
	int width = 0;
	if (cli->json) {
		raw_print(answer);
		return;
	}
	for (size_t i = 0; i < count; i++)
		width = (int)u64_max((uint64_t)width, strlen(columns[i].title));
	for (size_t i = 0; i < count; i++) {
		cell_format(answer->body, &columns[i], cell);
		detail_print(columns[i].title, width, cell);
	}
}

void show_done(const struct cli *cli, const struct answer *answer, const char *format, ...)
{
	va_list args;
	if (cli->json)
		raw_print(answer);
	if (cli->json || cli->quiet)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

/* ---- questions ------------------------------------------------------------------------------------------------------- */

bool confirm(const struct cli *cli, const char *format, ...)
{
	char line[16];
	va_list args;
	if (cli->values[OPT_YES])
		return true;
	if (!isatty(STDIN_FILENO))
		fail(EXIT_USAGE, "add --yes if you mean it",
		     "this cannot be undone, and nobody is there to ask");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " [y/N] ");
	return fgets(line, sizeof(line), stdin) && (*line == 'y' || *line == 'Y');
}

/* ---- progress -------------------------------------------------------------------------------------------------------- */

bool shows_progress(const struct cli *cli)
{
	return isatty(STDERR_FILENO) && !cli->quiet;
}

static unsigned terminal_columns(void)
{
	struct winsize size;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40 ? size.ws_col : 80;
}

void bar_draw(const struct cli *cli, const char *label, uint64_t done, uint64_t total)
{
	static const char full[] = "########################################";
	char done_text[SIZE_TEXT_MAX], total_text[SIZE_TEXT_MAX];
	if (!shows_progress(cli))
		return;
	unsigned width = (unsigned)u64_min(sizeof(full) - 1, terminal_columns() / 3);
	done = u64_min(done, total);
	unsigned filled = total ? (unsigned)((unsigned __int128)done * width / total) : 0;
	fprintf(stderr, "\r\033[K%.40s [%.*s%*s] %3u %%  %s of %s", label, (int)filled, full,
		(int)(width - filled), "", total ? (unsigned)((unsigned __int128)done * 100 / total) : 0,
		size_format(done, done_text), size_format(total, total_text));
	fflush(stderr);
}

void bar_clear(const struct cli *cli)
{
	if (shows_progress(cli))
		fprintf(stderr, "\r\033[K");
}

void job_follow(const struct cli *cli, const char *job_id, const char *label)
{
	struct text target = {0};
	text_add(&target, "/v1/jobs/");
	target_add(&target, job_id);
	text_add(&target, "?wait=1");
	for (bool running = true; running;) {
		struct answer answer;
		client_call(cli->client, "GET", text_get(&target), NULL, CLIENT_PATIENT, &answer);
		/* 503: the daemon was restarted and its pools are not open yet; the job goes on by itself. */
		if (answer.status != 200 && answer.status != 404 && answer.status != 503)
			fail_answer(cli, &answer);
		running = answer.status == 503 || strcmp(js_path_text(answer.body, "state"), "running") == 0;
		if (answer.status == 200)
			bar_draw(cli, label, js_path_u64(answer.body, "done_bytes"),
				 js_path_u64(answer.body, "total_bytes"));
		else if (running)
			usleep(200 * 1000);
		answer_free(&answer);
	}
	bar_clear(cli);
	text_free(&target);
}
