/*
 * api.h: the HTTP API as functions: (method, target, body) -> (status, body). No sockets here: http_server.h has those, the
 * tests and the fuzzer have none.
 *
 *   which reactor     the node's; api_handle is called from a fiber of it and Suspends
 *   who owns memory   the reply's body is the caller's: api_reply_free
 *   limits            a body of 1 MiB, a target of 4 KiB, JSON 16 deep (js.h); beyond them the call is refused
 *   errors            {"error": "NOSPC", "message": "...", "hint": "..."}, the name from base/err.h, with a status:
 *                     400 malformed, 404 unknown, 405 wrong method, 409 in the way of something, 413 too large,
 *                     500 ours or the disk's fault, 503 not now, 507 full
 *
 * docs/openapi.json describes every route; tests/api_test.py holds it against api_routes_print().
 */
#ifndef OXBOW_CONTROL_API_API_H
#define OXBOW_CONTROL_API_API_H

#include "base/text.h"
#include "control/node/events.h"
#include "control/node/node.h"

#define API_BODY_MAX_BYTES   (1 * MiB)
#define API_TARGET_MAX_BYTES ((size_t)4096)
#define API_WAIT_MAX_S	     300

struct api;

struct api *api_new(struct node *node, struct events *events);
void api_free(struct api *api);

struct api_reply {
	int status;
	const char *content_type; /* static */
	char allow[40];		  /* with 405: the methods there are */
	char *body;
	size_t body_len_bytes;
};

/* `target` is the path and query as they stand in the request line, percent-encoded. `body` need not be terminated. */
void api_handle(struct api *api, const char *method, const char *target, const char *body,
		size_t body_len_bytes, struct api_reply *reply);
void api_reply_free(struct api_reply *reply);
/* A reply made without a route, for the server's own refusals. */
void api_reply_error(struct api_reply *reply, int status, int err, const char *message, const char *hint);

/* Every route as a JSON array: method, path, query and body fields, statuses. */
void api_routes_print(struct text *out);

#endif
