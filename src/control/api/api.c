/*
 * api.c: finds a call's row, decodes what it brings by the row's fields, runs it, and turns the outcome into a reply.
 * Everything that comes from outside passes here first (api_fuzz.c).
 */
#include "control/api/route.h"

#include <stdarg.h>
#include <stdio.h>

struct api *api_new(struct node *node, struct events *events)
{
	struct api *api = mem_zalloc(sizeof(*api));
	api->node = node;
	api->events = events;
	api->started_ns = rt_now_ns(node_rt(node));
	api->started_wall_ns = rt_wall_ns(node_rt(node));
	return api;
}

void api_free(struct api *api)
{
	free(api);
}

/* ---- replies --------------------------------------------------------------------------------------------------------- */

static int status_of(int err)
{
	switch (err) {
	case OXE_INVAL:
	case OXE_RANGE:
	case OXE_ALIGN:
	case OXE_TOOSMALL:
		return 400;
	case OXE_PERM:
		return 403;
	case OXE_NOENT:
		return 404;
	case OXE_EXISTS:
	case OXE_BUSY:
	case OXE_ROFS:
	case OXE_OCCUPIED:
	case OXE_NOTPOOL:
	case OXE_VERSION:
	case OXE_CHILDREN:
	case OXE_UNSUPPORTED:
		return 409;
	case OXE_TOOBIG:
		return 413;
	case OXE_FAILED:
	case OXE_NOTREADY:
	case OXE_SHUTDOWN:
	case OXE_TIMEOUT:
	case OXE_CANCELLED:
		return 503;
	case OXE_NOSPC:
		return 507;
	default:
		return 500;
	}
}

static void reply_js(struct api_reply *reply, int status, struct js *value)
{
	*reply = (struct api_reply){.status = status, .content_type = "application/json"};
	if (status == 204) {
		js_free(value);
		return;
	}
	reply->body = js_print(value, false);
	reply->body_len_bytes = strlen(reply->body);
	js_free(value);
}

void api_reply_error(struct api_reply *reply, int status, int err, const char *message, const char *hint)
{
	struct js *value = js_object();
	js_set_text(value, "error", err_name(err));
	js_set_text(value, "message", message);
	js_set_text(value, "hint", hint);
	reply_js(reply, status, value);
}

void api_reply_free(struct api_reply *reply)
{
	free(reply->body);
	*reply = (struct api_reply){0};
}

static void reply_why(struct api_reply *reply, int err, const struct node_why *why)
{
	api_reply_error(reply, status_of(err), err, why->message, why->hint);
}

OX_PRINTF(2, 3) static int refuse(struct call *c, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(c->why.message, sizeof(c->why.message), format, args);
	va_end(args);
	c->why.hint[0] = '\0';
	return OXE_INVAL;
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static int text_value(struct call *c, const struct field *f, const char *text, struct field_value *out)
{
	bool ok = true;
	if (strlen(text) >= sizeof(out->text) || (f->type == FIELD_PATH && strlen(text) >= NODE_PATH_MAX))
		return refuse(c, "\"%s\" is too long", f->name);
	if (f->type == FIELD_NAME)
		ok = node_name_is_valid(text);
	else if (f->type == FIELD_UUID)
		ok = uuid_parse(text, &out->uuid) == 0 && !uuid_is_nil(&out->uuid);
	else
		ok = *text != '\0';
	if (!ok && f->type == FIELD_NAME)
		return refuse(c, "\"%s\" must be 1 to %u of [A-Za-z0-9._-], not starting with . or -",
			      f->name, POOL_NAME_MAX);
	if (!ok)
		return refuse(c, "\"%s\" %s", f->name,
			      f->type == FIELD_UUID ? "must be a uuid, and not the nil one"
						    : "must not be empty");
	memcpy(out->text, text, strlen(text) + 1);
	out->set = true;
	return 0;
}

static int number_value(struct call *c, const struct field *f, uint64_t number, struct field_value *out)
{
	uint64_t least = f->type == FIELD_COUNT ? 1 : 0;
	uint64_t most = f->type == FIELD_COUNT ? 10000 : f->type == FIELD_WAIT ? API_WAIT_MAX_S : INT64_MAX;
	if (f->type == FIELD_BLOCK_SIZE && number != 512 && number != 4096)
		return refuse(c, "\"%s\" must be 512 or 4096", f->name);
	if (number < least || number > most)
		return refuse(c, "\"%s\" must be %llu to %llu", f->name, (unsigned long long)least,
			      (unsigned long long)most);
	out->number = number;
	out->set = true;
	return 0;
}

static bool is_text_type(enum field_type type)
{
	return type == FIELD_NAME || type == FIELD_REF || type == FIELD_PATH || type == FIELD_UUID;
}

static int json_value(struct call *c, const struct field *f, const struct js *value, struct field_value *out)
{
	uint64_t number;
	if (is_text_type(f->type)) {
		const char *text = js_text(value);
		return text ? text_value(c, f, text, out) : refuse(c, "\"%s\" must be a string", f->name);
	}
	if (f->type == FIELD_BOOL) {
		if (!js_is_bool(value))
			return refuse(c, "\"%s\" must be true or false", f->name);
		*out = (struct field_value){.set = true, .number = js_true(value)};
		return 0;
	}
	if (!js_u64(value, &number))
		return refuse(c, "\"%s\" must be a whole number of 0 or more", f->name);
	return number_value(c, f, number, out);
}

static int query_value(struct call *c, const struct field *f, const char *text, struct field_value *out)
{
	uint64_t number = 0;
	if (is_text_type(f->type))
		return text_value(c, f, text, out);
	if (f->type == FIELD_BOOL) {
		bool is_true = strcmp(text, "true") == 0;
		if (!is_true && strcmp(text, "false") != 0)
			return refuse(c, "\"%s\" must be true or false", f->name);
		*out = (struct field_value){.set = true, .number = is_true};
		return 0;
	}
	size_t digits = strspn(text, "0123456789");
	if (!digits || text[digits] || digits > 19)
		return refuse(c, "\"%s\" must be a whole number of 0 or more", f->name);
	for (const char *p = text; *p; p++)
		number = number * 10 + (uint64_t)(*p - '0');
	return number_value(c, f, number, out);
}

/* ---- fields ---------------------------------------------------------------------------------------------------------- */

static const struct field *field_find(const struct field *fields, const char *name, size_t *index)
{
	for (*index = 0; fields[*index].name; ++*index) {
		if (strcmp(fields[*index].name, name) == 0)
			return &fields[*index];
	}
	return NULL;
}

static int unknown_field(struct call *c, const struct field *fields, const char *place, const char *name)
{
	refuse(c, "%s has no \"%.60s\"", place, name);
	size_t used = (size_t)snprintf(c->why.hint, sizeof(c->why.hint), "%s",
				       fields[0].name ? "there is:" : "nothing is taken there");
	for (size_t i = 0; fields[i].name; i++)
		used += (size_t)snprintf(c->why.hint + used, sizeof(c->why.hint) - used, " %s",
					 fields[i].name);
	return OXE_INVAL;
}

static int fields_complete(struct call *c, const struct field *fields, const struct field_value *values)
{
	for (size_t i = 0; fields[i].name; i++) {
		if (fields[i].required && !values[i].set)
			return refuse(c, "\"%s\" is missing", fields[i].name);
	}
	return 0;
}

struct body_walk {
	struct call *c;
	int err;
};

static bool body_member(void *ctx, const char *key, struct js *value)
{
	struct body_walk *w = ctx;
	size_t index;
	const struct field *f = field_find(w->c->route->body, key, &index);
	if (!f)
		w->err = unknown_field(w->c, w->c->route->body, "the body", key);
	else if (!js_is_null(value))
		w->err = json_value(w->c, f, value, &w->c->body[index]);
	return w->err == 0;
}

static int body_decode(struct call *c, const char *body, size_t len_bytes)
{
	struct body_walk w = {.c = c};
	struct js *root = NULL;
	char why[240];
	if (len_bytes == 0)
		return fields_complete(c, c->route->body, c->body);
	if (js_parse(body, len_bytes, &root, why, sizeof(why)) != 0)
		return refuse(c, "the body is not JSON: %s", why);
	if (js_is_object(root))
		js_walk(root, body_member, &w);
	else
		w.err = refuse(c, "the body is not a JSON object");
	js_free(root);
	return w.err ? w.err : fields_complete(c, c->route->body, c->body);
}

/* ---- the target ------------------------------------------------------------------------------------------------------ */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Undo percent-encoding; false for a broken or NUL escape, bytes that are not UTF-8, or no room. */
static bool percent_decode(const char *from, size_t len_bytes, char *to, size_t size_bytes)
{
	size_t used = 0;
	for (size_t i = 0; i < len_bytes; i++) {
		char c = from[i];
		if (c == '%') {
			int high = i + 2 < len_bytes ? hex_digit(from[i + 1]) : -1;
			int low = i + 2 < len_bytes ? hex_digit(from[i + 2]) : -1;
			if (high < 0 || low < 0)
				return false;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (c == '\0' || used + 1 >= size_bytes)
			return false;
		to[used++] = c;
	}
	to[used] = '\0';
	for (const char *p = to; *p;) {
		size_t n = text_utf8_length(p);
		if (!n)
			return false;
		p += n;
	}
	return true;
}

static int query_decode_one(struct call *c, const char *pair, size_t len_bytes)
{
	char key[64], text[REF_TEXT_MAX];
	const char *equals = memchr(pair, '=', len_bytes);
	size_t key_len = equals ? (size_t)(equals - pair) : len_bytes, index;
	size_t rest = equals ? len_bytes - key_len - 1 : 0;
	if (!percent_decode(pair, key_len, key, sizeof(key)) ||
	    !percent_decode(pair + len_bytes - rest, rest, text, sizeof(text)))
		return refuse(c, "the query is badly encoded");
	const struct field *f = field_find(c->route->query, key, &index);
	if (!f)
		return unknown_field(c, c->route->query, "the query", key);
	if (c->query[index].set)
		return refuse(c, "the query has \"%s\" twice", f->name);
	return query_value(c, f, text, &c->query[index]);
}

static int query_decode(struct call *c, const char *query)
{
	while (*query) {
		size_t len_bytes = strcspn(query, "&");
		int err = len_bytes ? query_decode_one(c, query, len_bytes) : 0;
		if (err)
			return err;
		query += len_bytes + (query[len_bytes] == '&');
	}
	return fields_complete(c, c->route->query, c->query);
}

/* Does `path` (of len_bytes) match the pattern? Fills params; *bad if a segment that is one is badly encoded. */
static bool path_matches(const char *pattern, const char *path, size_t len_bytes, struct field_value *params,
			 bool *bad)
{
	const char *end = path + len_bytes;
	unsigned count = 0;
	*bad = false;
	while (*pattern == '/' && path < end && *path == '/') {
		pattern++;
		path++;
		size_t want = strcspn(pattern, "/");
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t have = slash ? (size_t)(slash - path) : (size_t)(end - path);
		if (*pattern == '{') {
			struct field_value *v = &params[count++];
			if (have == 0 || !percent_decode(path, have, v->text, sizeof(v->text)))
				*bad = true;
		} else if (have != want || memcmp(pattern, path, want) != 0) {
			return false;
		}
		pattern += want;
		path += have;
	}
	return *pattern == '\0' && path == end;
}

static const char *const known_methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

static void allow_set(struct api_reply *reply, unsigned methods)
{
	size_t used = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(known_methods); i++) {
		if (methods & 1u << i)
			used += (size_t)snprintf(reply->allow + used, sizeof(reply->allow) - used, "%s%s",
						 used ? ", " : "", known_methods[i]);
	}
}

static unsigned method_bit(const char *method)
{
	for (unsigned i = 0; i < ARRAY_COUNT(known_methods); i++) {
		if (strcmp(method, known_methods[i]) == 0)
			return 1u << i;
	}
	return 0;
}

/* The row for a path and method; NULL with the set of methods that path has otherwise. */
static const struct route *route_find(struct call *c, const char *method, const char *path, size_t len_bytes,
				      unsigned *methods, bool *bad)
{
	*methods = 0;
	for (size_t i = 0; i < api_route_count; i++) {
		if (!path_matches(api_routes[i].path, path, len_bytes, c->params, bad))
			continue;
		*methods |= method_bit(api_routes[i].method);
		if (strcmp(api_routes[i].method, method) == 0)
			return &api_routes[i];
	}
	return NULL;
}

/* ---- a call ---------------------------------------------------------------------------------------------------------- */

static void reply_no_route(struct api_reply *reply, const char *method, const char *target, unsigned methods)
{
	char message[160];
	snprintf(message, sizeof(message), "there is no %.10s %.100s", method, target);
	if (!methods) {
		api_reply_error(reply, 404, OXE_NOENT, message, "docs/openapi.json lists every path");
		return;
	}
	api_reply_error(reply, 405, OXE_UNSUPPORTED, message, "docs/openapi.json lists what each path takes");
	allow_set(reply, methods);
}

static void reply_result(struct api_reply *reply, struct call *c)
{
	if (!c->content_type) {
		reply_js(reply, c->status, c->result);
		return;
	}
	*reply = (struct api_reply){.status = c->status,
				    .content_type = c->content_type,
				    .body = c->text.data,
				    .body_len_bytes = c->text.len_bytes};
}

static int call_run(struct call *c, const char *query, const char *body, size_t body_len_bytes)
{
	int err = query_decode(c, query);
	if (!err)
		err = body_decode(c, body, body_len_bytes);
	if (!err)
		err = c->route->fn(c);
	return err;
}

void api_handle(struct api *api, const char *method, const char *target, const char *body,
		size_t body_len_bytes, struct api_reply *reply)
{
	struct call *c = mem_zalloc(sizeof(*c));
	size_t path_len = strcspn(target, "?");
	const char *query = target[path_len] ? target + path_len + 1 : "";
	unsigned methods;
	bool bad = false;
	c->api = api;
	c->status = 200;
	c->route = route_find(c, method, target, path_len, &methods, &bad);
	if (!c->route) {
		reply_no_route(reply, method, target, methods);
	} else if (bad) {
		api_reply_error(reply, 400, OXE_INVAL, "the path is badly encoded, or a part is too long",
				"");
	} else {
		int err = call_run(c, query, body, body_len_bytes);
		if (err) {
			js_free(c->result);
			reply_why(reply, err, &c->why);
		} else {
			reply_result(reply, c);
		}
	}
	if (reply->body != c->text.data)
		text_free(&c->text);
	free(c);
}

/* ---- arguments ------------------------------------------------------------------------------------------------------- */

const struct field_value *arg(const struct call *c, const char *name)
{
	size_t index;
	if (field_find(c->route->query, name, &index))
		return &c->query[index];
	const struct field *f = field_find(c->route->body, name, &index);
	assert(f);
	return &c->body[index];
}

bool arg_is_set(const struct call *c, const char *name)
{
	return arg(c, name)->set;
}

const char *arg_text(const struct call *c, const char *name)
{
	return arg(c, name)->text;
}

const char *arg_text_or_null(const struct call *c, const char *name)
{
	return arg_is_set(c, name) ? arg_text(c, name) : NULL;
}

uint64_t arg_number(const struct call *c, const char *name, uint64_t otherwise)
{
	return arg_is_set(c, name) ? arg(c, name)->number : otherwise;
}

bool arg_bool(const struct call *c, const char *name)
{
	return arg_number(c, name, 0) != 0;
}

struct uuid arg_uuid_or_new(const struct call *c, const char *name)
{
	return arg_is_set(c, name) ? arg(c, name)->uuid : rt_random_uuid(node_rt(c->api->node));
}

const char *param(const struct call *c, unsigned index)
{
	return c->params[index].text;
}

uint64_t arg_deadline_ns(const struct call *c)
{
	return rt_now_ns(node_rt(c->api->node)) + arg_number(c, "wait", 0) * NS_PER_S;
}

/* ---- the table, printed ---------------------------------------------------------------------------------------------- */

static const char *field_type_name(enum field_type type)
{
	static const char *const names[] = {"name",	  "reference", "path", "uuid", "bytes",
					    "block_size", "count",     "wait", "bool"};
	return names[type];
}

static struct js *fields_show(const struct field *fields)
{
	struct js *list = js_array();
	for (size_t i = 0; fields[i].name; i++) {
		struct js *one = js_object();
		js_set_text(one, "name", fields[i].name);
		js_set_text(one, "type", field_type_name(fields[i].type));
		js_set_bool(one, "required", fields[i].required);
		js_push(list, one);
	}
	return list;
}

void api_routes_print(struct text *out)
{
	struct js *list = js_array();
	for (size_t i = 0; i < api_route_count; i++) {
		struct js *one = js_object();
		js_set_text(one, "method", api_routes[i].method);
		js_set_text(one, "path", api_routes[i].path);
		js_set(one, "query", fields_show(api_routes[i].query));
		js_set(one, "body", fields_show(api_routes[i].body));
		js_set_text(one, "statuses", api_routes[i].statuses);
		js_push(list, one);
	}
	char *text = js_print(list, true);
	text_add(out, text);
	free(text);
	js_free(list);
}
