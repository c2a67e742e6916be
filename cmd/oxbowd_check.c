/* oxbowd_check.c: `oxbowd --check PATH`: open the pool without writing a byte, walk it (S9), say what is wrong. */
#include "oxbowd.h"

#include "base/size.h"
#include "host/host.h"

#include <stdio.h>

struct check {
	const struct daemon_options *options;
	struct rt *rt;
	int status;
};

static void problem_print(void *ctx, const struct pool_problem *problem)
{
	(void)ctx;
	printf("%s\n", problem->text);
}

static void result_print(const char *path, const struct pool_check_result *r)
{
	char size[SIZE_TEXT_MAX];
	printf("%s: %llu problem%s; %llu metadata pages, %llu layers, %s reachable\n", path,
	       (unsigned long long)r->problem_count, r->problem_count == 1 ? "" : "s",
	       (unsigned long long)r->pages_read, (unsigned long long)r->layers,
	       size_format(r->clusters_reachable * POOL_CLUSTER_BYTES, size));
}

static int check_pool(struct rt *rt, const struct daemon_options *o, struct pool_check_result *result)
{
	struct pool_options options = {.cache_bytes = o->cache_bytes, .read_only = true};
	struct rt_disk *disk;
	struct pool *pool;
	int err = rt_disk_open(rt, o->check_path, RT_DISK_READONLY, 0, &disk);
	if (!err)
		err = pool_open(disk, &options, &pool);
	if (err)
		return err;
	err = pool_check(pool, problem_print, NULL, result);
	int close_err = pool_close(pool);
	return err ? err : close_err;
}

static void check_main(void *arg)
{
	struct check *c = arg;
	struct pool_check_result result;
	int err = check_pool(c->rt, c->options, &result);
	c->status = err || result.problem_count ? 1 : 0;
	if (!err)
		result_print(c->options->check_path, &result);
	else
		fprintf(stderr, "oxbowd: cannot check %s: %s\n", c->options->check_path, err_text(err));
	if (err == OXE_BUSY)
		fprintf(stderr, "hint: a daemon has it open; ask that one: oxbow pool check POOL\n");
	host_rt_stop(c->rt);
}

int check_run(const struct daemon_options *options)
{
	struct check c = {.options = options, .rt = host_rt_new(&(struct host_options){0}), .status = 1};
	if (!c.rt) {
		fprintf(stderr, "oxbowd: this kernel refuses io_uring\n");
		return 1;
	}
	fiber_spawn(c.rt, "check", check_main, &c);
	host_rt_run(c.rt);
	fflush(stdout);
	return c.status;
}
