/*
 * oxbow.h: the command line: nouns and verbs over the daemon's API.
 *
 *     oxbow.c               the table's reader: options, help, main
 *     oxbow_verbs.c         the table of verbs
 *     oxbow_pool.c          pools
 *     oxbow_volume.c        volumes made, changed, deleted
 *     oxbow_volume_show.c   volumes listed and shown
 *     oxbow_snapshot.c      snapshots
 *     oxbow_mirror.c        mirrored volumes: copies, homes, nodes
 *     oxbow_nvme.c          who may connect over NVMe, and who is
 *     oxbow_ublk.c          block devices of the daemon's host
 *     oxbow_job.c           background work
 *     oxbow_daemon.c        events, readiness, status
 *     oxbow_attach.c        volumes as block devices of the host it runs on
 *     oxbow_ask.c           what every verb does: asking the daemon, options
 *     oxbow_show.c          tables and details for people, progress, questions
 *     oxbow_generate.c      the man page and the bash completion, made from the same table
 *     oxbow_client.c        the calls
 *
 * Exit status: 0 done, 1 it failed (or: not ready, problems found), 2 the command was mistaken, 3 no daemon was reached.
 */
#ifndef OXBOW_CMD_OXBOW_H
#define OXBOW_CMD_OXBOW_H

#include "oxbow_client.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHED = 3 };

/* Options of verbs; a verb names those it takes as a set of bits. */
enum verb_option {
	OPT_NAME,
	OPT_SIZE,
	OPT_FORCE,
	OPT_POOL,
	OPT_BLOCK_SIZE,
	OPT_ID,
	OPT_YES,
	OPT_FULL,
	OPT_CANCEL,
	OPT_SINCE,
	OPT_WAIT,
	OPT_WAIT_S,
	OPT_FOLLOW,
	OPT_AFTER,
	OPT_TAKE_AWAY,
	OPT_SECRET_FILE,
	OPT_GENERATE_SECRET,
	OPT_CONTROLLER_SECRET_FILE,
	OPT_ALL,
	OPT_TLS_KEY_FILE,
	OPT_GENERATE_TLS_KEY,
	OPT_BY,
	OPT_AS,
	OPT_OWNER,
	OPT_AT,
	OPT_HOST_SECRET_FILE,
	OPT_VOLUME_SECRET_FILE,
	OPT_STATE_DIR,
	OPT_LINKS,
	OPT_COPIES,
	OPT_TO,
	OPT_ACCEPT_LOSS,
	OPT_COUNT
};
#define OPT(name) (1u << OPT_##name)

struct option_text {
	const char *name;    /* without the dashes */
	const char *metavar; /* NULL: it takes no value */
	const char *help;
	char letter; /* 0: none */
};
extern const struct option_text option_texts[OPT_COUNT];

struct cli {
	struct client *client;
	bool json, quiet;
	const char *values[OPT_COUNT]; /* NULL: not given; "" for one without a value */
	char **args;
	int arg_count;
};

struct verb {
	const char *noun, *name; /* name NULL: the noun alone is the command */
	const char *args;	 /* "NAME --size SIZE" */
	const char *summary;
	const char *details; /* more sentences, may be NULL */
	unsigned options, required;
	int min_args, max_args;
	int (*run)(struct cli *cli);
};
extern const struct verb verbs[];
extern const size_t verb_count;

/* ---- oxbow_show.c ---------------------------------------------------------------------------------------------------- */

/* Print "oxbow: ..." and, unless hint is "", "hint: ..." on stderr, and end with `status`. */
_Noreturn void fail(int status, const char *hint, const char *format, ...) OX_PRINTF(3, 4);
_Noreturn void fail_answer(const struct cli *cli, const struct answer *answer);

enum column_kind { COLUMN_TEXT, COLUMN_SIZE, COLUMN_COUNT, COLUMN_TIME, COLUMN_YES, COLUMN_LIST };
struct column {
	const char *title, *path; /* "space.free_bytes", "conditions.0.reason" */
	enum column_kind kind;
};
/* A table of the objects in `list`; -o json: `answer` as it came; -q: the first column alone. */
void show_list(const struct cli *cli, const struct answer *answer, const char *key,
	       const struct column *columns, size_t count);
/* One object, a line a column. */
void show_details(const struct cli *cli, const struct answer *answer, const struct column *columns,
		  size_t count);
/* -o json: the answer; -q: nothing; else the sentence. */
void show_done(const struct cli *cli, const struct answer *answer, const char *format, ...) OX_PRINTF(3, 4);
const struct js *js_path(const struct js *value, const char *path);
const char *js_path_text(const struct js *value, const char *path); /* "" if there is none */
uint64_t js_path_u64(const struct js *value, const char *path);	    /* 0 if there is none */

/* True if the person agrees; without a terminal it is a usage error to leave --yes out. */
bool confirm(const struct cli *cli, const char *format, ...) OX_PRINTF(2, 3);
/* Follow a job until it has ended, with a bar on a terminal. */
void job_follow(const struct cli *cli, const char *job_id, const char *label);
/* Is there a terminal for the bar, and nobody who wants quiet? Otherwise the two below do nothing. */
bool shows_progress(const struct cli *cli);
void bar_draw(const struct cli *cli, const char *label, uint64_t done, uint64_t total);
void bar_clear(const struct cli *cli);

/* ---- oxbow_ask.c and oxbow_attach.c ----------------------------------------------------------------------------------- */

/* `path` from the root, or as it is for "mem:..."; to be free()d. */
char *path_absolute(const char *path);
int attach_run(struct cli *cli);
int detach_run(struct cli *cli);
int attachment_list(struct cli *cli);
int attachment_reap(struct cli *cli);
int attachment_link(struct cli *cli);

/* ---- oxbow.c and oxbow_generate.c ------------------------------------------------------------------------------------- */

void help_print(const char *noun, const char *name);
int generate_run(struct cli *cli);

#endif
