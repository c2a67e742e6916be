/*
 * oxbowd_meta.c: the metastore: an SQLite file of this daemon's own in the data directory, or where --metastore says, and then daemons of
 * this machine share it. Made when there is none.
 */
#include "oxbowd.h"

#include "control/meta/meta_sqlite.h"

#include <stdio.h>

static const struct daemon_options *options;
static struct meta_sqlite *store;

static_assert(NODE_WORDS_SIZE == META_SQLITE_WHY_BYTES, "one text is handed through");

static int file_open(struct rt *rt, const char *path, char *words)
{
	return options->metastore ? meta_sqlite_open_shared(rt, path, 0, &store, words)
				  : meta_sqlite_open(rt, path, 0, &store, words);
}

static int store_open(struct rt *rt, const char *path, char *words)
{
	struct uuid id = rt_random_uuid(rt);
	int err = file_open(rt, path, words);
	if (err != OXE_NOENT)
		return err;
	err = meta_sqlite_create(rt, path, &id, words);
	if (err && err != OXE_EXISTS) /* that is somebody who was faster */
		return err;
	return file_open(rt, path, words);
}

static int meta_start(void *ctx, struct meta **out, char *words)
{
	struct rt *rt = rt_current();
	char *path = NULL;
	(void)ctx;
	if (options->metastore)
		path = mem_strdup(options->metastore + strlen("sqlite:"));
	else if (asprintf(&path, "%s/metastore.db", options->data_dir) < 0)
		abort();
	int err = store_open(rt, path, words);
	free(path);
	if (!err)
		*out = meta_sqlite_client(store, rt);
	return err;
}

static void meta_end(void *ctx, struct meta *m)
{
	(void)ctx;
	meta_close(m);
	meta_sqlite_close(store);
	store = NULL;
}

void meta_platform(const struct daemon_options *o, struct node_platform *platform)
{
	options = o;
	platform->meta_open = meta_start;
	platform->meta_close = meta_end;
}
