/*
 * api_fuzz.c: any method, target and body gets an answer of known form, whatever state the calls before have left.
 *
 * The input is "METHOD target\nbody". What would touch the machine's own files or wait is left out: paths from the root, and
 * the query's "wait" in every spelling.
 */
#include "control/api/api_double.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes);

static struct input {
	char method[16], target[512];
	const char *body;
	size_t body_len_bytes;
} input;

static bool member_is_harmless(void *ctx, const char *key, struct js *value)
{
	bool *harmless = ctx;
	(void)key;
	if (js_text(value) && js_text(value)[0] == '/')
		*harmless = false;
	return *harmless;
}

static bool is_harmless(const struct input *in)
{
	char why[200];
	bool harmless = true;
	struct js *root;
	const char *query = strchr(in->target, '?');
	if (query && (strstr(query, "wait") || strstr(query, "%6") || strstr(query, "%7")))
		return false;
	if (js_parse(in->body, in->body_len_bytes, &root, why, sizeof(why)) != 0)
		return true;
	js_walk(root, member_is_harmless, &harmless);
	js_free(root);
	return harmless;
}

static bool input_split(const uint8_t *data, size_t len_bytes)
{
	const uint8_t *line_end = memchr(data, '\n', len_bytes);
	size_t line = line_end ? (size_t)(line_end - data) : len_bytes;
	const uint8_t *space = memchr(data, ' ', line);
	size_t method = space ? (size_t)(space - data) : 0, target = space ? line - method - 1 : 0;
	if (!space || method >= sizeof(input.method) || target >= sizeof(input.target))
		return false;
	input = (struct input){.body = (const char *)data + (line_end ? line + 1 : line)};
	memcpy(input.method, data, method);
	memcpy(input.target, data + method + 1, target);
	input.body_len_bytes = (size_t)((const char *)data + len_bytes - input.body);
	return true;
}

static void one_call(struct world *w)
{
	struct api_reply reply;
	world_pool(w);
	api_handle(w->api, input.method, input.target, input.body, input.body_len_bytes, &reply);
	assert(reply.status >= 200 && reply.status < 600);
	if (reply.status >= 400) {
		struct js *body = js_load(reply.body, reply.body_len_bytes);
		assert(js_text(js_get(body, "error")) || js_is_array(js_get(body, "reasons")));
		js_free(body);
	}
	api_reply_free(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	static struct world *world;
	if (!world)
		world = world_new();
	if (len_bytes && input_split(data, len_bytes) && is_harmless(&input))
		world_run(world, one_call);
	return 0;
}
