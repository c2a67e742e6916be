/*
 * api_double.h: a whole node for tests of the API: a real reactor and store on plain memory, the list of pools in a string.
 *
 * `world_run` runs a function on a fiber of the reactor until it returns. In it, world_call makes an API call.
 */
#ifndef OXBOW_CONTROL_API_API_DOUBLE_H
#define OXBOW_CONTROL_API_API_DOUBLE_H

#include "control/api/api.h"
#include "control/js.h"

#define WORLD_POOL_PATH "mem:67108864:api-double"

struct world {
	struct rt *rt;
	struct engines *engines;
	struct events *events;
	struct node *node;
	struct api *api;
	char *state; /* the list of pools, as saved */
	int save_err;
};

struct world *world_new(void);
/* As if `state` had been saved before. */
struct world *world_new_with(const char *state);
void world_free(struct world *w);
void world_run(struct world *w, void (*fn)(struct world *w));

/* ---- inside world_run -------------------------------------------------------------------------------------------------- */

/* A pool "fast" on memory, made or there already. */
void world_pool(struct world *w);
struct world_answer {
	int status;
	struct js *body; /* NULL if there is none */
	char allow[40];
};
/* `body` is JSON, or NULL. */
struct world_answer world_call(struct world *w, const char *method, const char *target, const char *body);
void world_answer_free(struct world_answer *a);

#endif
