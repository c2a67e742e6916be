/*
 * oxbow_verbs.h: what the files that carry out verbs share: asking the daemon, and the functions that the table in oxbow_verbs.c names.
 *
 * Whatever goes wrong in here ends the program, with its sentence and status (oxbow.h): nothing returns an error.
 */
#ifndef OXBOW_CMD_OXBOW_VERBS_H
#define OXBOW_CMD_OXBOW_VERBS_H

#include "oxbow.h"

/* ---- oxbow_ask.c: asking ----------------------------------------------------------------------------------------------- */

/* "/v1/volumes/", "fast/db", "/snapshots" -> the encoded target, to be free()d. */
char *target_of(const char *before, const char *ref, const char *after);
/* Takes body and target; the answer is a good one, to be freed with answer_free() or answer_done(). */
struct answer daemon_ask(struct cli *cli, const char *method, char *target, struct js *body);
struct answer daemon_get(struct cli *cli, const char *before, const char *ref, const char *after);
/* The id behind a reference, so that a change can be sent twice and mean the same. */
void daemon_resolve(struct cli *cli, const char *collection, const char *ref, char id[UUID_TEXT_LEN + 1],
		    struct answer *found);
/* Frees it. EXIT_DONE. */
int answer_done(struct answer *answer);
/* A size in the answer, for people; good until the next call. */
const char *answer_size(const struct answer *answer, const char *path);

/* ---- oxbow_ask.c: options. `what` begins the sentence when a value is wrong --------------------------------------------- */

uint64_t size_value(const char *text, const char *what);
uint64_t number_value(const char *text, const char *what, uint64_t most);
/* --size, if it is given. Volumes come in blocks of 4 KiB; 1.1G is rounded up to one. */
void body_set_size(struct cli *cli, struct js *body);
/* --id, or a new one. */
void body_set_id(struct cli *cli, struct js *body, const char *key);

/* ---- oxbow_pool.c ------------------------------------------------------------------------------------------------- */

int pool_create(struct cli *cli);
int pool_import(struct cli *cli);
int pool_export(struct cli *cli);
int pool_list(struct cli *cli);
int pool_show(struct cli *cli);
int pool_grow(struct cli *cli);
int pool_check(struct cli *cli);

/* ---- oxbow_volume.c ----------------------------------------------------------------------------------------------- */

int volume_create(struct cli *cli);
int volume_delete(struct cli *cli);
int volume_grow(struct cli *cli);
int volume_rename(struct cli *cli);
int volume_clone(struct cli *cli);
int volume_flatten(struct cli *cli);
int volume_revert(struct cli *cli);
int volume_extents(struct cli *cli);

/* ---- oxbow_volume_show.c ------------------------------------------------------------------------------------------ */

int volume_list(struct cli *cli);
int volume_show(struct cli *cli);

/* ---- oxbow_snapshot.c --------------------------------------------------------------------------------------------- */

/* "db@monday" into its two parts, the first to be free()d; *snapshot is NULL if there is no '@'. */
char *split_at(const char *ref, char **snapshot);
int snapshot_create(struct cli *cli);
int snapshot_list(struct cli *cli);
int snapshot_show(struct cli *cli);
int snapshot_delete(struct cli *cli);
int snapshot_rename(struct cli *cli);
int snapshot_usage(struct cli *cli);

/* ---- oxbow_mirror.c ----------------------------------------------------------------------------------------------- */

int copy_add(struct cli *cli);
int copy_forget(struct cli *cli);
int volume_move(struct cli *cli);
int volume_salvage(struct cli *cli);
int volume_scrub(struct cli *cli);
int node_list(struct cli *cli);

/* ---- oxbow_nvme.c ------------------------------------------------------------------------------------------------- */

int volume_allow(struct cli *cli);
int volume_disallow(struct cli *cli);
int volume_unreserve(struct cli *cli);
int nvme_list(struct cli *cli);

/* ---- oxbow_ublk.c ------------------------------------------------------------------------------------------------- */

int ublk_attach(struct cli *cli);
int ublk_detach(struct cli *cli);
int ublk_list(struct cli *cli);

/* ---- oxbow_job.c -------------------------------------------------------------------------------------------------- */

int job_list(struct cli *cli);
int job_watch(struct cli *cli);
int job_cancel(struct cli *cli);
int job_throttle(struct cli *cli);

/* ---- oxbow_daemon.c ----------------------------------------------------------------------------------------------- */

int events_run(struct cli *cli);
int ready_run(struct cli *cli);
int version_run(struct cli *cli);
int status_run(struct cli *cli);

#endif
