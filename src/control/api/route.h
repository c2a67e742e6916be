/*
 * route.h: a route is a row: method, path, the fields it takes, the statuses it may answer, and a function.
 *
 * The row is all the checking there is to know about: the dispatcher (api.c) decodes path, query and body by it, refuses by
 * name what is unknown, missing or out of range, and only then calls the function. So a function sees values that are right
 * in form, and `oxbowd --routes` prints what is enforced.
 */
#ifndef OXBOW_CONTROL_API_ROUTE_H
#define OXBOW_CONTROL_API_ROUTE_H

#include "control/api/api.h"
#include "control/js.h"

enum field_type {
	FIELD_NAME,	  /* as pool_name_check */
	FIELD_REF,	  /* a reference to a pool, volume, snapshot */
	FIELD_PATH,	  /* of a disk or file */
	FIELD_UUID,	  /* 36 characters */
	FIELD_BYTES,	  /* a whole number up to 2^63 - 1 */
	FIELD_BLOCK_SIZE, /* 512 or 4096 */
	FIELD_COUNT,	  /* 1 to 10,000 */
	FIELD_WAIT,	  /* seconds, 0 to API_WAIT_MAX_S */
	FIELD_BOOL,
};

struct field {
	const char *name; /* NULL ends an array */
	enum field_type type;
	bool required;
};

#define ROUTE_FIELDS_MAX 6
#define ROUTE_PARAMS_MAX 2
#define REF_TEXT_MAX	 320

struct field_value {
	bool set;
	char text[REF_TEXT_MAX];
	uint64_t number;
	struct uuid uuid;
};

struct call;

struct route {
	const char *method, *path; /* "/v1/volumes/{volume}" */
	int (*fn)(struct call *c);
	struct field query[ROUTE_FIELDS_MAX + 1], body[ROUTE_FIELDS_MAX + 1];
	const char *statuses; /* "200 404"; what every route may answer is not repeated: 400, 413, 500, 503 */
};

struct api {
	struct node *node;
	struct events *events;
	uint64_t started_ns, started_wall_ns;
};

/* One call under way. The function fills status (200 unless it says otherwise) and either result or text. */
struct call {
	struct api *api;
	const struct route *route;
	struct field_value params[ROUTE_PARAMS_MAX], query[ROUTE_FIELDS_MAX], body[ROUTE_FIELDS_MAX];
	int status;
	struct js *result;
	struct text text; /* instead of result: sent as content_type */
	const char *content_type;
	struct node_why why;
};

extern const struct route api_routes[];
extern const size_t api_route_count;

/* Arguments by the names of the row; naming one that is not in it is a bug. */
const struct field_value *arg(const struct call *c, const char *name);
bool arg_is_set(const struct call *c, const char *name);
const char *arg_text(const struct call *c, const char *name); /* "" if not given */
const char *arg_text_or_null(const struct call *c, const char *name);
uint64_t arg_number(const struct call *c, const char *name, uint64_t otherwise);
bool arg_bool(const struct call *c, const char *name);		     /* false if not given */
struct uuid arg_uuid_or_new(const struct call *c, const char *name); /* random if not given */
const char *param(const struct call *c, unsigned index);	     /* from the path */
uint64_t arg_deadline_ns(const struct call *c);			     /* now + "wait" */

/* show.c: what the API says about things. */
struct js *show_condition(const char *pool_name, const struct node_condition *condition);
struct js *show_pool(const struct node_pool_info *pool);
struct js *show_volume(struct node *n, const struct node_volume *volume);
struct js *show_node(const struct node_info *node);
struct js *show_host(const struct node_host *host);
struct js *show_reservation(const struct node_reservation *reservation);
struct js *show_association(const struct nvmf_association *association);
struct js *show_nvme_stats(const struct nvmf_stats *stats);
struct js *show_snapshot(const struct node_snapshot *snapshot);
struct js *show_ublk(const struct ublk_info *device);
struct js *show_job(const struct node_job *job, const char *state);
struct js *show_engine_stats(struct node *n);
struct js *show_process(struct node *n);

/* metrics.c */
void metrics_print(struct api *api, struct text *out);

#endif
