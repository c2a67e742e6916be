/*
 * node_keeper.c: one fiber a known pool that carries out what keeper.h decides: find the disk, recover, watch, close.
 *
 * The hint's path is tried first and alone: a start costs one open. Only if it is not there, or holds another pool, are the
 * other places tried, one search at a time, since a search holds each disk it looks at.
 */
#include "control/node/node_impl.h"

#include "base/log.h"

#include <stdio.h>

#define WATCH_NS NS_PER_S
#define DEVICE_HINT                                                                                          \
	"look at the kernel's log for the device ('dmesg'); under a pool in a file, the file system may be " \
	"full ('df')"

/* ---- finding the disk ------------------------------------------------------------------------------------------------ */

static int disk_identify(struct rt_disk *disk, struct pool_ident *ident)
{
	int err = pool_identify(disk, ident);
	if (err)
		rt_disk_close(disk);
	return err;
}

/* The pool of ours that is open from this path, if any. */
static const struct node_pool *open_from(const struct node *n, const char *path)
{
	const struct node_pool *p;
	list_for_each (p, &n->pools, link) {
		if (p->pool && strcmp(p->path, path) == 0)
			return p;
	}
	return NULL;
}

static const char *reason_for(int err)
{
	switch (err) {
	case OXE_NOENT:
		return "PoolAbsent";
	case OXE_NOTPOOL:
		return "WrongDisk";
	case OXE_BUSY:
		return "DiskBusy";
	case OXE_CORRUPT:
		return "PoolCorrupt";
	case OXE_VERSION:
		return "FormatTooNew";
	case OXE_PERM:
		return "NotPermitted";
	case OXE_FAILED:
	case OXE_IO:
	case OXE_NOSPC:
		return "DeviceFailed";
	default:
		return "OpenFailed";
	}
}

static void absent_explain(const struct node_pool *p, int err, const struct pool_ident *other,
			   struct node_why *why)
{
	char id[UUID_TEXT_LEN + 1];
	if (err == OXE_NOENT)
		why_set(why, err, "there is no disk at %s", p->path);
	else if (other)
		why_set(why, err, "%s now holds another pool, \"%s\" (%s)", p->path, other->name,
			uuid_format(&other->id, id));
	else
		why_failed(why, err, "cannot open %s", p->path);
	if (err == OXE_NOENT || err == OXE_NOTPOOL)
		why_hint(why, "attach the disk (it is found by itself at its old place), or say where it is: "
			      "oxbow pool import PATH");
	else if (err == OXE_BUSY)
		why_hint(why, "find out who holds it: fuser -v %s", p->path);
}

/* The hint alone. OXE_NOENT, OXE_NOTPOOL or OXE_BUSY: look elsewhere. */
static int disk_by_hint(struct node_pool *p, struct rt_disk **disk, struct node_why *why)
{
	struct pool_ident ident;
	const struct node_pool *other = open_from(p->node, p->path);
	if (other) {
		absent_explain(p, OXE_NOTPOOL, pool_ident(other->pool), why);
		return OXE_NOTPOOL;
	}
	int err = rt_disk_open(p->node->options.rt, p->path, 0, 0, disk);
	if (!err)
		err = disk_identify(*disk, &ident);
	if (!err && uuid_equal(&ident.id, &p->id))
		return 0;
	if (!err)
		rt_disk_close(*disk);
	absent_explain(p, err ? err : OXE_NOTPOOL, err ? NULL : &ident, why);
	return err ? err : OXE_NOTPOOL;
}

struct search {
	struct node_pool *p;
	struct rt_disk
		*disk; /* the first that matched, kept open so that another name of the same disk is busy */
	char path[NODE_PATH_MAX], second_path[NODE_PATH_MAX];
};

static void search_at(struct search *s, const char *path)
{
	struct pool_ident ident;
	struct rt_disk *disk;
	if (*s->second_path || strlen(path) >= NODE_PATH_MAX || strcmp(path, s->p->path) == 0)
		return;
	if (rt_disk_open(s->p->node->options.rt, path, 0, 0, &disk) != 0 || disk_identify(disk, &ident) != 0)
		return;
	bool matches = uuid_equal(&ident.id, &s->p->id);
	if (matches && !s->disk) {
		s->disk = disk;
		snprintf(s->path, sizeof(s->path), "%s", path);
		return;
	}
	if (matches)
		snprintf(s->second_path, sizeof(s->second_path), "%s", path);
	rt_disk_close(disk);
}

static bool list_has(char **paths, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(paths[i], path) == 0)
			return true;
	}
	return false;
}

static void list_add_path(char ***paths, size_t *count, const char *path)
{
	if (list_has(*paths, *count, path))
		return;
	*paths = mem_realloc(*paths, (*count + 1) * sizeof(**paths));
	(*paths)[(*count)++] = mem_strdup(path);
}

/* Candidates: what the platform sees, then where any pool is or was (copied: these may change while we wait). */
static size_t candidates(struct node *n, char ***paths)
{
	struct node_pool *p;
	size_t count = n->options.platform.paths_scan(n->options.platform.ctx, paths);
	list_for_each (p, &n->pools, link)
		list_add_path(paths, &count, p->path);
	for (size_t i = 0; i < n->place_count; i++)
		list_add_path(paths, &count, n->places[i]);
	return count;
}

static void search_everywhere(struct search *s)
{
	char **paths = NULL;
	struct node *n = s->p->node;
	fmutex_lock(&n->search);
	size_t count = candidates(n, &paths);
	for (size_t i = 0; i < count; i++) {
		if (!open_from(n, paths[i]))
			search_at(s, paths[i]);
		free(paths[i]);
	}
	free(paths);
	fmutex_unlock(&n->search);
}

/* Leaves `why` as the hint's failure if it is nowhere else either. */
static int disk_elsewhere(struct node_pool *p, int hint_err, struct rt_disk **disk, struct node_why *why)
{
	struct search s = {.p = p};
	search_everywhere(&s);
	if (!s.disk)
		return hint_err;
	if (*s.second_path) {
		rt_disk_close(s.disk);
		why_set(why, OXE_EXISTS, "two disks hold this pool's uuid: %s and %s", s.path, s.second_path);
		why_hint(why, "neither is opened; detach the copy, or choose one: oxbow pool import PATH");
		return OXE_EXISTS;
	}
	LOG_INFO("pool.moved", "the pool is on another path than before", F_UUID("pool", &p->id),
		 F_STR("old_path", p->path), F_STR("path", s.path));
	pool_path_set(p, s.path);
	*disk = s.disk;
	struct node_why save_why;
	if (node_state_save(p->node, &save_why) != 0)
		LOG_WARN("node.save_failed", save_why.message, F_UUID("pool", &p->id));
	return 0;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

void pool_opened(struct node_pool *p, struct rt_disk *disk, struct pool *pool, uint64_t open_ns)
{
	struct node *n = p->node;
	struct pool_stats stats;
	p->pool = pool;
	p->disk = disk;
	p->open_ns = open_ns;
	p->opens++;
	snprintf(p->name, sizeof(p->name), "%s", pool_ident(pool)->name);
	keeper_step(&p->keeper, KEEPER_OPENED, rt_now_ns(n->options.rt), 0);
	pool_set_background_rate(pool, n->background_bytes_per_s);
	pool_stats(pool, &stats);
	damage_look(p, &stats);
	engines_add_pool(n->options.engines, pool);
	p->door = replica_door_new(pool, &n->options.boot_id);
	node_register_kick(n);
	reaper_kick(n);
	node_volumes_changed(n);
	condition_clear(p);
	node_ready_check(n);
}

static int recovery_failed(const struct node_pool *p, int err, struct node_why *why)
{
	why_failed(why, err, "cannot recover the pool on %s", p->path);
	if (strcmp(reason_for(err), "DeviceFailed") == 0)
		why_hint(why, "%s", DEVICE_HINT);
	return err;
}

static int pool_attempt(struct node_pool *p, struct node_why *why)
{
	struct rt *rt = p->node->options.rt;
	struct pool_options options = {.cache_bytes = p->node->options.cache_bytes,
				       .no_discard = p->node->options.no_discard};
	struct rt_disk *disk;
	struct pool *pool;
	uint64_t start_ns = rt_now_exact_ns(rt);
	int err = disk_by_hint(p, &disk, why);
	if (err == OXE_NOENT || err == OXE_NOTPOOL || err == OXE_BUSY)
		err = disk_elsewhere(p, err, &disk, why);
	if (err)
		return err;
	err = pool_open(disk, &options, &pool);
	if (err)
		return recovery_failed(p, err, why);
	if (p->leaving) {
		err = pool_close(pool);
		return why_failed(why, err ? err : OXE_SHUTDOWN, "the pool is being exported");
	}
	pool_opened(p, disk, pool, rt_now_exact_ns(rt) - start_ns);
	return 0;
}

static void pool_try_open(struct node_pool *p)
{
	struct rt *rt = p->node->options.rt;
	struct node_why why;
	int err = pool_attempt(p, &why);
	p->attempts++;
	waitq_wake_all(&p->changed);
	if (!err || p->leaving)
		return;
	condition_set(p, err == OXE_EXISTS ? "DuplicateUuid" : reason_for(err), why.message, why.hint);
	keeper_step(&p->keeper, err == OXE_BUSY ? KEEPER_TAKEN : KEEPER_REFUSED, rt_now_ns(rt),
		    rt_random_u64(rt));
}

/* ---- closing --------------------------------------------------------------------------------------------------------- */

/* Copies in the pool end as if they had died: their engines look for them again, here and elsewhere. */
static void door_shut(struct node_pool *p)
{
	struct node *n = p->node;
	if (n->options.platform.copies_evict)
		n->options.platform.copies_evict(n->options.platform.ctx, &p->id);
	ways_let_go(&n->ways, p->door);
	replica_door_free(p->door);
	p->door = NULL;
}

/* OXE_BUSY: clients hold it; `closing` stays, for the caller to decide. */
static int pool_shut(struct node_pool *p)
{
	struct node *n = p->node;
	p->closing = true;
	while (p->users)
		waitq_wait(&p->changed);
	int err = engines_remove_pool(n->options.engines, p->pool);
	if (err)
		return err;
	door_shut(p);
	err = pool_close(p->pool);
	if (err == OXE_BUSY) {
		engines_add_pool(n->options.engines, p->pool);
		p->door = replica_door_new(p->pool, &n->options.boot_id);
		return err;
	}
	p->pool = NULL;
	p->disk = NULL;
	p->damage_since_wall_ns = 0; /* the next opening finds out anew */
	p->closing = false;
	node_volumes_changed(p->node);
	return 0;
}

static void pool_try_close(struct node_pool *p)
{
	struct rt *rt = p->node->options.rt;
	struct node_platform *platform = &p->node->options.platform;
	condition_set(p, "DeviceFailed", "a device error stopped the pool; it is closed and opened again",
		      DEVICE_HINT);
	if (platform->pool_evict)
		platform->pool_evict(platform->ctx, p->name);
	int err = pool_shut(p);
	if (err == OXE_BUSY)
		condition_set(p, "DeviceFailedInUse",
			      "a device error stopped the pool, and clients still hold its volumes",
			      "disconnect the clients; the pool is then opened again by itself");
	keeper_step(&p->keeper, err == OXE_BUSY ? KEEPER_HELD : KEEPER_CLOSED, rt_now_ns(rt),
		    rt_random_u64(rt));
}

int pool_retire(struct node_pool *p)
{
	if (p->closing)
		return OXE_BUSY;
	if (p->pool) {
		int err = pool_shut(p);
		if (err) {
			p->closing = false;
			return err;
		}
	}
	p->leaving = true;
	waitq_wake_all(&p->changed);
	while (p->keeper_running)
		waitq_wait(&p->changed);
	return 0;
}

/* ---- the fiber ------------------------------------------------------------------------------------------------------- */

static enum keeper_event keeper_look(struct node_pool *p)
{
	struct pool_stats stats = {0};
	if (p->poked && p->keeper.state == KEEPER_WAITING) {
		p->poked = false;
		return KEEPER_POKE;
	}
	if (p->pool && !p->closing) {
		pool_stats(p->pool, &stats);
		damage_look(p, &stats);
	}
	return stats.failed ? KEEPER_FAILED : KEEPER_TICK;
}

static void keeper_rest(struct node_pool *p)
{
	uint64_t now_ns = rt_now_ns(p->node->options.rt);
	bool is_open = p->keeper.state == KEEPER_IS_OPEN;
	waitq_wait_until(&p->changed, is_open ? now_ns + WATCH_NS : p->keeper.due_ns);
}

static void keeper_main(void *arg)
{
	struct node_pool *p = arg;
	struct node *n = p->node;
	while (!p->leaving) {
		struct rt *rt = n->options.rt;
		switch (keeper_step(&p->keeper, keeper_look(p), rt_now_ns(rt), rt_random_u64(rt))) {
		case KEEPER_OPEN:
			pool_try_open(p);
			break;
		case KEEPER_CLOSE:
			pool_try_close(p);
			break;
		case KEEPER_REST:
			keeper_rest(p);
			break;
		}
		node_ready_check(n);
	}
	p->keeper_running = false;
	waitq_wake_all(&p->changed);
	group_done(&n->keepers);
}

void keeper_start(struct node_pool *p)
{
	p->keeper_running = true;
	group_add(&p->node->keepers, 1);
	fiber_spawn(p->node->options.rt, "keeper", keeper_main, p);
}
