/* oxbow_client.c: see oxbow_client.h. The only file that knows libcurl. */
#include "oxbow_client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct client {
	CURL *curl;
	char *socket_path;
	void (*on_wait)(void *ctx);
	void *on_wait_ctx;
};

struct client *client_new(const char *socket_path)
{
	struct client *c = mem_zalloc(sizeof(*c));
	c->socket_path = mem_strdup(socket_path);
	c->curl = curl_easy_init();
	if (!c->curl)
		abort();
	return c;
}

void client_free(struct client *c)
{
	curl_easy_cleanup(c->curl);
	free(c->socket_path);
	free(c);
}

const char *client_socket(const struct client *c)
{
	return c->socket_path;
}

void answer_free(struct answer *answer)
{
	text_free(&answer->raw);
	js_free(answer->body);
	*answer = (struct answer){0};
}

void client_on_wait(struct client *c, void (*fn)(void *ctx), void *ctx)
{
	c->on_wait = fn;
	c->on_wait_ctx = ctx;
}

static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
	struct client *c = ctx;
	(void)down_total, (void)down, (void)up_total, (void)up;
	c->on_wait(c->on_wait_ctx);
	return 0;
}

static size_t on_data(char *data, size_t size, size_t count, void *ctx)
{
	text_add_bytes(ctx, data, size * count);
	return size * count;
}

static void request_prepare(struct client *c, const char *method, const char *url, const char *body,
			    struct curl_slist *headers, struct answer *out)
{
	curl_easy_reset(c->curl);
	curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &out->raw);
	if (body)
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
	if (!c->on_wait)
		return;
	curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, c);
}

static CURLcode request_send(struct client *c, const char *method, const char *url, const char *body,
			     struct answer *out)
{
	/* No "Expect: 100-continue": the daemon is on this host. */
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	long status = 0;
	headers = curl_slist_append(headers, "Content-Type: application/json");
	text_free(&out->raw);
	request_prepare(c, method, url, body, headers, out);
	CURLcode code = curl_easy_perform(c->curl);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(headers);
	out->status = code == CURLE_OK ? (int)status : 0;
	return code;
}

static bool is_lost(CURLcode code)
{
	return code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
	       code == CURLE_PARTIAL_FILE;
}

static time_t clock_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void call_with_retries(struct client *c, const char *method, const char *url, const char *body,
			      enum client_patience patience, struct answer *out)
{
	time_t end_s = clock_s() + CLIENT_RETRY_S;
	CURLcode code = request_send(c, method, url, body, out);
	bool again = patience == CLIENT_PATIENT || (patience == CLIENT_RESEND && is_lost(code));
	while (code != CURLE_OK && again && clock_s() < end_s) {
		usleep(100 * 1000);
		code = request_send(c, method, url, body, out);
	}
	if (code != CURLE_OK)
		snprintf(out->why, sizeof(out->why), "%s", curl_easy_strerror(code));
}

void client_call(struct client *c, const char *method, const char *target, const struct js *body,
		 enum client_patience patience, struct answer *out)
{
	struct text url = {0};
	char *text = body ? js_print(body, false) : NULL;
	*out = (struct answer){0};
	text_printf(&url, "http://oxbow%s", target);
	call_with_retries(c, method, text_get(&url), text, patience, out);
	if (out->raw.len_bytes)
		out->body = js_load(out->raw.data, out->raw.len_bytes);
	text_free(&url);
	free(text);
}

void target_add(struct text *target, const char *text)
{
	for (const char *p = text; *p; p++) {
		unsigned char byte = (unsigned char)*p;
		bool plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
			     (byte >= 'a' && byte <= 'z') || strchr("-._~@", byte);
		if (plain)
			text_add_bytes(target, p, 1);
		else
			text_printf(target, "%%%02X", byte);
	}
}
