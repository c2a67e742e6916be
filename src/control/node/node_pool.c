/* node_pool.c: what people ask of pools: create, import, export, grow, check; see node.h. */
#include "control/node/node_impl.h"

#include "base/log.h"

#include <stdio.h>

/* ---- finding and entering -------------------------------------------------------------------------------------------- */

struct node_pool *pool_by_id(const struct node *n, const struct uuid *id)
{
	struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		if (uuid_equal(&p->id, id))
			return p;
	}
	return NULL;
}

static struct node_pool *pool_by_path(const struct node *n, const char *path)
{
	struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		if (strcmp(p->path, path) == 0)
			return p;
	}
	return NULL;
}

static struct node_pool *pool_by_name(const struct node *n, const char *name, unsigned *count)
{
	struct node_pool *p, *found = NULL;
	*count = 0;
	list_for_each (p, &n->pools, link) {
		if (strcmp(p->name, name) == 0) {
			found = p;
			++*count;
		}
	}
	return found;
}

struct node_pool *pool_by_ref(const struct node *n, const char *ref, int *err, struct node_why *why)
{
	struct uuid id;
	unsigned count = 1;
	struct node_pool *p = uuid_parse(ref, &id) == 0 ? pool_by_id(n, &id) : NULL;
	if (!p)
		p = pool_by_name(n, ref, &count);
	*err = 0;
	if (count > 1) {
		*err = why_set(why, OXE_INVAL, "%u pools are called \"%s\"", count, ref);
		why_hint(why, "name it by its uuid: 'oxbow pool list -o json' shows them");
	} else if (!p && !n->list_is_known) {
		*err = why_set(why, OXE_NOTREADY, "the known pools are not read yet");
	} else if (!p) {
		*err = why_set(why, OXE_NOENT, "no pool \"%.80s\" is known", ref);
		why_hint(why, "'oxbow pool list' shows what is known; 'oxbow pool import PATH' adds one");
	}
	return *err ? NULL : p;
}

int pool_enter(struct node_pool *p, struct node_why *why)
{
	if (p->pool && !p->closing) {
		p->users++;
		return 0;
	}
	if (p->has_condition) {
		why_set(why, OXE_NOTREADY, "the pool \"%s\" is not open: %.300s", p->name,
			p->condition.message);
		why_hint(why, "%s", p->condition.hint);
	} else {
		why_set(why, OXE_NOTREADY, "the pool \"%s\" is still being recovered", p->name);
	}
	return OXE_NOTREADY;
}

int pool_leave(struct node_pool *p, int err)
{
	p->users--;
	if (p->users == 0 || err == OXE_FAILED)
		waitq_wake_all(&p->changed);
	return err;
}

/* ---- showing --------------------------------------------------------------------------------------------------------- */

const char *node_pool_state_name(enum node_pool_state state)
{
	static const char *const names[] = {"recovering", "open", "waiting", "closing"};
	return names[state];
}

static enum node_pool_state pool_state(const struct node_pool *p)
{
	if (p->closing || p->keeper.state == KEEPER_CLOSING)
		return NODE_POOL_CLOSING;
	if (p->pool)
		return NODE_POOL_OPEN;
	return p->keeper.state == KEEPER_OPENING || !p->attempts ? NODE_POOL_RECOVERING : NODE_POOL_WAITING;
}

static void pool_info(const struct node_pool *p, struct node_pool_info *out)
{
	*out = (struct node_pool_info){.id = p->id,
				       .state = pool_state(p),
				       .has_condition = p->has_condition,
				       .has_stats = p->pool && !p->closing,
				       .open_ns = p->open_ns,
				       .opens = p->opens,
				       .attempts = p->attempts};
	memcpy(out->name, p->name, sizeof(out->name));
	memcpy(out->path, p->path, sizeof(out->path));
	if (p->has_condition)
		out->condition = p->condition;
	if (!out->has_stats)
		return;
	pool_stats(p->pool, &out->stats);
	if (!p->has_condition && p->damage_since_wall_ns) {
		out->has_condition = true;
		damage_condition(p, &out->stats, &out->condition);
	}
	if (!out->has_condition)
		out->has_condition = orphans_condition(p, &out->condition);
}

int node_pool_get(const struct node *n, const char *ref, struct node_pool_info *out, struct node_why *why)
{
	int err;
	struct node_pool *p = pool_by_ref(n, ref, &err, why);
	if (p)
		pool_info(p, out);
	return err;
}

void node_pool_walk(const struct node *n, bool (*fn)(void *ctx, const struct node_pool_info *p), void *ctx)
{
	struct node_pool *p;
	struct node_pool_info info;
	list_for_each (p, &n->pools, link) {
		pool_info(p, &info);
		if (!fn(ctx, &info))
			return;
	}
}

/* ---- making known ---------------------------------------------------------------------------------------------------- */

/* Nothing is begun that could not be remembered. */
static int list_check(const struct node *n, struct node_why *why)
{
	if (n->list_is_known)
		return 0;
	why_set(why, OXE_NOTREADY, "the list of known pools has not been read");
	why_hint(why, "see 'oxbow ready'");
	return OXE_NOTREADY;
}

static int path_check(const char *path, struct node_why *why)
{
	if (*path == '/' || strncmp(path, "mem:", 4) == 0)
		return 0;
	why_set(why, OXE_INVAL, "the path \"%.80s\" is not absolute", path);
	why_hint(why, "give the whole path, beginning with /");
	return OXE_INVAL;
}

/* Takes the disk. The list is written before the pool is shown: what was answered is remembered. */
static int pool_adopt(struct node *n, struct rt_disk *disk, const char *path, struct node_pool_info *out,
		      struct node_why *why)
{
	struct pool_options options = {.cache_bytes = n->options.cache_bytes,
				       .no_discard = n->options.no_discard};
	struct pool *pool;
	uint64_t start_ns = rt_now_exact_ns(n->options.rt);
	int err = pool_open(disk, &options, &pool);
	if (err)
		return why_failed(why, err, "cannot open the pool on %s", path);
	uint64_t open_ns = rt_now_exact_ns(n->options.rt) - start_ns;
	struct node_pool *p = node_pool_new(n, &pool_ident(pool)->id, pool_ident(pool)->name, path);
	p->keeper.state = KEEPER_OPENING;
	list_add_tail(&n->pools, &p->link);
	err = node_state_save(n, why);
	if (err) {
		node_pool_free(p);
		int close_err = pool_close(pool);
		assert(close_err != OXE_BUSY);
		return err;
	}
	p->attempts = 1;
	pool_opened(p, disk, pool, open_ns);
	keeper_start(p);
	pool_info(p, out);
	return 0;
}

/* ---- create ---------------------------------------------------------------------------------------------------------- */

static int create_check(struct node *n, const struct node_pool_spec *spec, struct node_why *why)
{
	unsigned count;
	int err = list_check(n, why);
	if (!err)
		err = path_check(spec->path, why);
	if (err)
		return err;
	if (pool_name_check(spec->name) != 0)
		return why_set(why, OXE_INVAL,
			       "\"%.80s\" is no name: 1 to %u of [A-Za-z0-9._-], not starting with . or -",
			       spec->name, POOL_NAME_MAX);
	if (*spec->force && strcmp(spec->force, spec->path) != 0)
		return why_set(why, OXE_INVAL, "force names %s, and the pool is to be made on %s",
			       spec->force, spec->path);
	struct node_pool *p = pool_by_path(n, spec->path);
	if (p) {
		why_set(why, OXE_EXISTS, "%s already is the pool \"%s\"", spec->path, p->name);
		why_hint(why, "see 'oxbow pool show %s'", p->name);
		return OXE_EXISTS;
	}
	if (pool_by_name(n, spec->name, &count)) {
		why_set(why, OXE_EXISTS, "another pool is called \"%s\"", spec->name);
		why_hint(why, "choose another name; 'oxbow pool list' shows those taken");
		return OXE_EXISTS;
	}
	return 0;
}

static int file_make(struct node *n, const struct node_pool_spec *spec, struct rt_disk **disk,
		     struct node_why *why)
{
	bool in_dev = strncmp(spec->path, "/dev/", 5) == 0 && strncmp(spec->path, "/dev/shm/", 9) != 0;
	if (in_dev || !spec->size_bytes) {
		why_set(why, OXE_NOENT, "there is nothing at %s", spec->path);
		why_hint(why,
			 in_dev ? "'lsblk' lists the disks of this host"
				: "to make a file there give its size: oxbow pool create PATH --name NAME "
				  "--size 10G");
		return OXE_NOENT;
	}
	int err = rt_disk_open(n->options.rt, spec->path, RT_DISK_CREATE, spec->size_bytes, disk);
	return why_file_failed(why, err, "cannot make the file %s", spec->path);
}

static int occupied(const struct node_pool_spec *spec, struct node_why *why, const char *what)
{
	why_set(why, OXE_OCCUPIED, "%s holds %s", spec->path, what);
	why_hint(why, "if nothing on it is needed: oxbow pool create %.120s --name %s --force", spec->path,
		 spec->name);
	return OXE_OCCUPIED;
}

/* What is on it already? `foreign` is what the probe found, "" for nothing. */
static int disk_vet(const struct node_pool_spec *spec, struct rt_disk *disk, const char *foreign,
		    struct node_why *why)
{
	char what[200], id[UUID_TEXT_LEN + 1];
	struct pool_ident ident;
	int err = pool_identify(disk, &ident);
	if (*spec->force || (!err && uuid_equal(&ident.id, &spec->id)))
		return 0;
	if (err == OXE_NOTPOOL)
		return *foreign ? occupied(spec, why, foreign) : 0;
	if (err == OXE_CORRUPT)
		return occupied(spec, why, "a damaged Oxbow pool");
	if (err == OXE_VERSION)
		return occupied(spec, why, "an Oxbow pool of a newer format");
	if (err)
		return why_failed(why, err, "cannot read %s", spec->path);
	snprintf(what, sizeof(what), "the Oxbow pool \"%s\" (%s)", ident.name, uuid_format(&ident.id, id));
	occupied(spec, why, what);
	why_hint(why, "to use it: oxbow pool import %.150s", spec->path);
	return OXE_OCCUPIED;
}

static int disk_fit(const struct node_pool_spec *spec, struct rt_disk *disk, struct node_why *why)
{
	const struct rt_disk_info *info = rt_disk_info(disk);
	if (!spec->size_bytes || spec->size_bytes == info->size_bytes || info->is_memory)
		return 0;
	if (info->is_block_device)
		return why_set(why, OXE_INVAL, "%s is a device of %llu bytes: leave the size out", spec->path,
			       (unsigned long long)info->size_bytes);
	if (spec->size_bytes < info->size_bytes)
		return why_set(why, OXE_INVAL, "the file %s has %llu bytes, and is not made smaller",
			       spec->path, (unsigned long long)info->size_bytes);
	return why_file_failed(why, rt_disk_grow(disk, spec->size_bytes), "cannot extend %s", spec->path);
}

static int disk_take(struct node *n, const struct node_pool_spec *spec, struct rt_disk **disk,
		     struct node_why *why)
{
	char foreign[128] = "";
	struct rt *rt = n->options.rt;
	int err = *spec->path == '/' ? rt_disk_probe(rt, spec->path, foreign, sizeof(foreign)) : 0;
	if (err == OXE_NOENT)
		return file_make(n, spec, disk, why);
	if (!err)
		err = rt_disk_open(rt, spec->path, 0, 0, disk);
	if (err)
		return why_failed(why, err, "cannot open %s", spec->path);
	err = disk_vet(spec, *disk, foreign, why);
	if (!err)
		err = disk_fit(spec, *disk, why);
	if (err)
		rt_disk_close(*disk);
	return err;
}

static int pool_make(struct node *n, const struct node_pool_spec *spec, struct node_pool_info *out,
		     struct node_why *why)
{
	struct pool_format_spec format = {.id = spec->id};
	struct rt_disk *disk;
	memcpy(format.name, spec->name, sizeof(format.name));
	int err = create_check(n, spec, why);
	if (!err)
		err = disk_take(n, spec, &disk, why);
	if (err)
		return err;
	err = pool_format(disk, &format, *spec->force != '\0');
	if (err) {
		rt_disk_close(disk);
		return why_file_failed(why, err, "cannot make a pool on %s", spec->path);
	}
	LOG_INFO("pool.created", "a pool was made", F_UUID("pool", &spec->id), F_STR("pool_name", spec->name),
		 F_STR("path", spec->path));
	return pool_adopt(n, disk, spec->path, out, why);
}

/* The same call again: the pool is known under this id. */
static int pool_made_before(const struct node_pool *p, const struct node_pool_spec *spec,
			    struct node_pool_info *out, struct node_why *why)
{
	if (strcmp(p->name, spec->name) != 0 || strcmp(p->path, spec->path) != 0)
		return why_set(why, OXE_EXISTS, "this id is the pool \"%s\" on %s", p->name, p->path);
	pool_info(p, out);
	return 0;
}

int node_pool_create(struct node *n, const struct node_pool_spec *spec, bool *created,
		     struct node_pool_info *out, struct node_why *why)
{
	struct node_pool_spec with_id = *spec;
	if (uuid_is_nil(&spec->id))
		with_id.id = rt_random_uuid(n->options.rt);
	fmutex_lock(&n->membership);
	struct node_pool *known = pool_by_id(n, &with_id.id);
	*created = !known;
	int err = known ? pool_made_before(known, &with_id, out, why) : pool_make(n, &with_id, out, why);
	fmutex_unlock(&n->membership);
	return err;
}

/* ---- import ---------------------------------------------------------------------------------------------------------- */

static int duplicate(const struct node_pool *p, const char *path, struct node_why *why)
{
	char id[UUID_TEXT_LEN + 1];
	why_set(why, OXE_EXISTS, "%s holds the pool \"%s\" (%s), which is open from %s", path, p->name,
		uuid_format(&p->id, id), p->path);
	why_hint(why, "one of the two is a copy: 'oxbow pool export %s' first to use this one instead",
		 p->name);
	return OXE_EXISTS;
}

/* The person says where it is: try there now, and report what came of it. */
static int pool_retry_at(struct node_pool *p, const char *path, struct node_pool_info *out,
			 struct node_why *why)
{
	pool_path_set(p, path);
	int err = node_state_save(p->node, why);
	if (err)
		return err;
	while (p->keeper.state == KEEPER_OPENING)
		waitq_wait(&p->changed);
	uint64_t attempts = p->attempts;
	p->poked = !p->pool;
	waitq_wake_all(&p->changed);
	while (!p->pool && p->attempts == attempts)
		waitq_wait(&p->changed);
	pool_info(p, out);
	if (p->pool)
		return 0;
	why_set(why, OXE_NOTREADY, "%s", p->condition.message);
	why_hint(why, "%s", p->condition.hint);
	return OXE_NOTREADY;
}

static int import_identified(struct node *n, struct rt_disk *disk, const struct pool_ident *ident,
			     const char *path, struct node_pool_info *out, struct node_why *why)
{
	struct node_pool *p = pool_by_id(n, &ident->id);
	if (!p)
		return pool_adopt(n, disk, path, out, why);
	rt_disk_close(disk);
	return p->pool ? duplicate(p, path, why) : pool_retry_at(p, path, out, why);
}

static int pool_import(struct node *n, const char *path, bool *created, struct node_pool_info *out,
		       struct node_why *why)
{
	struct pool_ident ident;
	struct rt_disk *disk;
	struct node_pool *p = pool_by_path(n, path);
	*created = false;
	if (p && p->pool) {
		pool_info(p, out);
		return 0;
	}
	int err = rt_disk_open(n->options.rt, path, 0, 0, &disk);
	if (err)
		return why_failed(why, err, "cannot open %s", path);
	err = pool_identify(disk, &ident);
	if (err) {
		rt_disk_close(disk);
		return why_failed(why, err, "cannot import %s", path);
	}
	*created = !pool_by_id(n, &ident.id);
	return import_identified(n, disk, &ident, path, out, why);
}

int node_pool_import(struct node *n, const char *path, bool *created, struct node_pool_info *out,
		     struct node_why *why)
{
	int err = list_check(n, why);
	if (!err)
		err = path_check(path, why);
	if (err)
		return err;
	fmutex_lock(&n->membership);
	err = pool_import(n, path, created, out, why);
	fmutex_unlock(&n->membership);
	if (!err && *created)
		LOG_INFO("pool.imported", "a pool was imported", F_UUID("pool", &out->id),
			 F_STR("pool_name", out->name), F_STR("path", path));
	return err;
}

int node_pool_ensure(struct node *n, const char *path, uint64_t size_bytes, const char *name,
		     struct node_why *why)
{
	struct node_pool_spec spec = {.size_bytes = size_bytes};
	struct node_pool_info info;
	bool created;
	if (pool_by_path(n, path))
		return 0;
	int err = node_pool_import(n, path, &created, &info, why);
	if (err != OXE_NOENT && err != OXE_NOTPOOL)
		return err;
	snprintf(spec.path, sizeof(spec.path), "%s", path);
	snprintf(spec.name, sizeof(spec.name), "%s", name);
	return node_pool_create(n, &spec, &created, &info, why);
}

/* ---- export, grow, check --------------------------------------------------------------------------------------------- */

/* A volume would lose a copy, and perhaps its last one. */
static int copies_check(struct node *n, const struct node_pool *p, struct node_why *why)
{
	const struct fact_view *view;
	list_for_each (view, &n->meta.facts.views, link) {
		const struct fact_volume *v = facts_volume(&n->meta.facts, &view->volume_id);
		for (uint32_t i = 0; v && i < view->count; i++) {
			if (!uuid_equal(&view->pools[i], &p->id))
				continue;
			why_set(why, OXE_BUSY, "the pool \"%s\" has a copy of the mirrored volume \"%s\"",
				p->name, v->name);
			why_hint(why, "give the copy up first: oxbow copy forget %s %s", v->name, p->name);
			return OXE_BUSY;
		}
	}
	return 0;
}

static int pool_export(struct node *n, const char *ref, struct node_why *why)
{
	int err;
	struct node_pool *p = pool_by_ref(n, ref, &err, why);
	if (!p)
		return err;
	err = copies_check(n, p, why);
	if (err)
		return err;
	err = pool_retire(p);
	if (err)
		return why_failed(why, err, "cannot export the pool \"%s\"", p->name);
	err = node_state_save(n, why);
	if (err) { /* it would be back after a restart: then it is not gone now either */
		p->leaving = false;
		p->keeper = (struct keeper){0};
		keeper_start(p);
		return err;
	}
	LOG_INFO("pool.exported", "the pool was closed and forgotten", F_UUID("pool", &p->id),
		 F_STR("pool_name", p->name), F_STR("path", p->path));
	struct uuid id = p->id;
	node_pool_free(p);
	node_ready_check(n);
	pool_unregister(n, &id);
	return 0;
}

int node_pool_export(struct node *n, const char *ref, struct node_why *why)
{
	fmutex_lock(&n->membership);
	int err = pool_export(n, ref, why);
	fmutex_unlock(&n->membership);
	return err;
}

static int disk_extend(struct node_pool *p, uint64_t size_bytes, struct node_why *why)
{
	const struct rt_disk_info *info = rt_disk_info(p->disk);
	if (size_bytes && info->is_block_device)
		return why_set(why, OXE_INVAL, "%s is a device: grow the device, and leave the size out",
			       p->path);
	if (size_bytes && size_bytes < info->size_bytes)
		return why_set(why, OXE_INVAL, "the pool \"%s\" has %llu bytes, and only grows", p->name,
			       (unsigned long long)info->size_bytes);
	size_bytes = size_bytes ? size_bytes : info->size_bytes;
	return why_file_failed(why, rt_disk_grow(p->disk, size_bytes), "cannot extend %s", p->path);
}

int node_pool_grow(struct node *n, const char *ref, uint64_t size_bytes, struct node_pool_info *out,
		   struct node_why *why)
{
	int err;
	struct node_pool *p = pool_by_ref(n, ref, &err, why);
	if (!err)
		err = pool_enter(p, why);
	if (err)
		return err;
	err = disk_extend(p, size_bytes, why);
	if (!err)
		err = why_failed(why, pool_grow(p->pool), "cannot grow the pool \"%s\"", p->name);
	if (!err)
		LOG_INFO("pool.grown", "the pool took over new space", F_UUID("pool", &p->id),
			 F_U64("size_bytes", rt_disk_info(p->disk)->size_bytes));
	pool_info(p, out);
	return pool_leave(p, err);
}

int node_pool_check(struct node *n, const char *ref, void (*fn)(void *ctx, const struct pool_problem *p),
		    void *ctx, struct pool_check_result *out, struct node_why *why)
{
	int err;
	struct node_pool *p = pool_by_ref(n, ref, &err, why);
	if (!err)
		err = pool_enter(p, why);
	if (err)
		return err;
	err = pool_check(p->pool, fn, ctx, out);
	LOG_INFO("pool.checked", "the pool was checked", F_UUID("pool", &p->id), F_STR("pool_name", p->name),
		 F_U64("problems", err ? 0 : out->problem_count), F_ERR(err));
	return pool_leave(p, why_failed(why, err, "cannot check the pool \"%s\"", p->name));
}

struct replica_door *node_door_find(void *ctx, const struct uuid *pool_id)
{
	const struct node_pool *p = pool_by_id(ctx, pool_id);
	return p && !p->closing ? p->door : NULL;
}
