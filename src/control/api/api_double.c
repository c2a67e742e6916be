/* api_double.c: see api_double.h. */
#include "control/api/api_double.h"

#include "host/host.h"

#include <stdio.h>

static int state_load(void *ctx, char **text)
{
	struct world *w = ctx;
	if (!w->state)
		return OXE_NOENT;
	*text = mem_strdup(w->state);
	return 0;
}

static int state_save(void *ctx, const char *text)
{
	struct world *w = ctx;
	fiber_yield();
	if (w->save_err)
		return w->save_err;
	free(w->state);
	w->state = mem_strdup(text);
	return 0;
}

static size_t paths_scan(void *ctx, char ***paths)
{
	(void)ctx;
	*paths = NULL;
	return 0;
}

static void process_stats(void *ctx, struct node_process *out)
{
	(void)ctx;
	out->resident_bytes = 4096;
}

struct running {
	struct world *w;
	void (*fn)(struct world *w);
};

static void run_main(void *arg)
{
	struct running *r = arg;
	r->fn(r->w);
	host_rt_stop(r->w->rt);
}

void world_run(struct world *w, void (*fn)(struct world *w))
{
	struct running r = {w, fn};
	fiber_spawn_big(w->rt, "test", run_main, &r);
	host_rt_run(w->rt);
}

static void world_start(struct world *w)
{
	node_start(w->node);
}

static void world_stop(struct world *w)
{
	node_stop(w->node);
}

struct world *world_new(void)
{
	return world_new_with(NULL);
}

struct world *world_new_with(const char *state)
{
	struct world *w = mem_zalloc(sizeof(*w));
	w->state = state ? mem_strdup(state) : NULL;
	w->rt = host_rt_new(&(struct host_options){0});
	assert(w->rt);
	w->engines = engines_new(w->rt);
	w->events = events_new(w->rt, 100);
	struct node_options options = {
		.rt = w->rt,
		.engines = w->engines,
		.platform = {w, state_load, state_save, paths_scan, process_stats, NULL}};
	w->node = node_new(&options);
	w->api = api_new(w->node, w->events);
	world_run(w, world_start);
	return w;
}

void world_free(struct world *w)
{
	world_run(w, world_stop);
	api_free(w->api);
	node_free(w->node);
	engines_free(w->engines);
	events_free(w->events);
	host_rt_free(w->rt);
	free(w->state);
	free(w);
}

void world_pool(struct world *w)
{
	struct node_why why;
	int err = node_pool_ensure(w->node, WORLD_POOL_PATH, 0, "fast", &why);
	assert(err == 0);
}

struct world_answer world_call(struct world *w, const char *method, const char *target, const char *body)
{
	struct api_reply reply;
	struct world_answer a;
	api_handle(w->api, method, target, body ? body : "", body ? strlen(body) : 0, &reply);
	a.status = reply.status;
	a.body = reply.body_len_bytes ? js_load(reply.body, reply.body_len_bytes) : NULL;
	memcpy(a.allow, reply.allow, sizeof(a.allow));
	api_reply_free(&reply);
	return a;
}

void world_answer_free(struct world_answer *a)
{
	js_free(a->body);
	a->body = NULL;
}
