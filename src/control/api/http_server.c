/*
 * http_server.c: see http_server.h. The only file that knows libmicrohttpd, and the only one of control/ with threads.
 *
 * The library does not listen: accepted connections are handed to it, so that the socket can be made anew beside it. It has
 * no orderly end: the process stops by exit (design idea 2).
 */
#include "control/api/http_server.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX	    256
#define IDLE_TIMEOUT_S	    30
#define SOCKET_LOOK_MS	    1000
#define DISCARD_MAX_BYTES   (16 * MiB)
#define CONNECTION_MEMORY   (32 * 1024)
#define BODY_TOO_LARGE_TEXT "the body is larger than 1 MiB"

struct http_server {
	struct rt *rt;
	struct api *api;
	struct MHD_Daemon *daemon;
	pthread_t accept_thread;
	int listen_fd;
	dev_t socket_dev;
	ino_t socket_ino;
	struct sockaddr_un address;
};

enum request_state { REQUEST_READING, REQUEST_TOO_LARGE, REQUEST_RUNNING, REQUEST_DONE };

/* One request. The server thread owns it until it suspends the connection, then the reactor until it resumes it. */
struct http_request {
	struct http_server *server;
	struct MHD_Connection *connection;
	enum request_state state;
	char *target;
	char method[16];
	struct text body;
	size_t discarded_bytes;
	struct api_reply reply;
};

/* ---- on the reactor -------------------------------------------------------------------------------------------------- */

/* On a big stack: printing and parsing of JSON recurse. */
static void request_fiber(void *arg)
{
	struct http_request *r = arg;
	api_handle(r->server->api, r->method, r->target, text_get(&r->body), r->body.len_bytes, &r->reply);
	r->state = REQUEST_DONE;
	MHD_resume_connection(r->connection);
}

static void request_run(void *arg)
{
	struct http_request *r = arg;
	fiber_spawn_big(r->server->rt, "api", request_fiber, r);
}

/* ---- on the server thread -------------------------------------------------------------------------------------------- */

/* The earliest moment: the target as it came, before the library takes it apart. */
static void *on_target(void *ctx, const char *target, struct MHD_Connection *connection)
{
	struct http_request *r = mem_zalloc(sizeof(*r));
	r->server = ctx;
	r->connection = connection;
	r->target = mem_strdup(target);
	return r;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request,
			 enum MHD_RequestTerminationCode code)
{
	(void)ctx, (void)connection, (void)code;
	struct http_request *r = *request;
	if (!r)
		return;
	api_reply_free(&r->reply);
	text_free(&r->body);
	free(r->target);
	free(r);
	*request = NULL;
}

/* Percent-encoding is undone by api.c, which knows where a name may hold a slash. */
static size_t on_unescape(void *ctx, struct MHD_Connection *connection, char *text)
{
	(void)ctx, (void)connection;
	return strlen(text);
}

static enum MHD_Result reply_send(struct http_request *r)
{
	struct api_reply *reply = &r->reply;
	struct MHD_Response *response =
		MHD_create_response_from_buffer(reply->body_len_bytes, reply->body, MHD_RESPMEM_MUST_FREE);
	if (!response)
		return MHD_NO;
	reply->body = NULL;
	if (reply->status != 204 && reply->content_type)
		MHD_add_response_header(response, "Content-Type", reply->content_type);
	if (*reply->allow)
		MHD_add_response_header(response, "Allow", reply->allow);
	enum MHD_Result result = MHD_queue_response(r->connection, (unsigned)reply->status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct http_request *r, int status, const char *message, const char *hint)
{
	r->state = REQUEST_DONE;
	api_reply_error(&r->reply, status, status == 413 ? OXE_TOOBIG : OXE_INVAL, message, hint);
	return reply_send(r);
}

static uint64_t announced_bytes(struct MHD_Connection *connection)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
	return length ? strtoull(length, NULL, 10) : 0;
}

static enum MHD_Result request_begin(struct http_request *r, const char *method)
{
	snprintf(r->method, sizeof(r->method), "%s", strcmp(method, "HEAD") == 0 ? "GET" : method);
	if (strlen(r->target) > API_TARGET_MAX_BYTES)
		return refuse(r, 414, "the request line is longer than 4 KiB", "");
	uint64_t body_bytes = announced_bytes(r->connection);
	if (body_bytes > DISCARD_MAX_BYTES)
		return refuse(r, 413, BODY_TOO_LARGE_TEXT, "");
	r->state = body_bytes > API_BODY_MAX_BYTES ? REQUEST_TOO_LARGE : REQUEST_READING;
	return MHD_YES;
}

/* A body that is too large is read and dropped so that the client gets to read why; but not for ever. */
static enum MHD_Result request_body(struct http_request *r, const char *data, size_t *len_bytes)
{
	if (r->body.len_bytes + *len_bytes > API_BODY_MAX_BYTES)
		r->state = REQUEST_TOO_LARGE;
	if (r->state == REQUEST_READING)
		text_add_bytes(&r->body, data, *len_bytes);
	else
		r->discarded_bytes += *len_bytes;
	*len_bytes = 0;
	return r->discarded_bytes > DISCARD_MAX_BYTES ? MHD_NO : MHD_YES;
}

static enum MHD_Result request_post(struct http_request *r)
{
	r->state = REQUEST_RUNNING;
	MHD_suspend_connection(r->connection);
	rt_post(r->server->rt, request_run, r);
	return MHD_YES;
}

/* Called with the headers, with each piece of the body, at its end, and again when resumed. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *len_bytes, void **request)
{
	(void)ctx, (void)connection, (void)url, (void)version;
	struct http_request *r = *request;
	if (r->state == REQUEST_DONE)
		return reply_send(r);
	if (!r->method[0])
		return request_begin(r, method);
	if (*len_bytes)
		return request_body(r, data, len_bytes);
	if (r->state == REQUEST_TOO_LARGE)
		return refuse(r, 413, BODY_TOO_LARGE_TEXT, "");
	return request_post(r);
}

/* ---- the socket ------------------------------------------------------------------------------------------------------ */

/* Does somebody answer there? A socket file without a listener is what a killed process leaves behind. */
static bool socket_is_live(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	bool live = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
	close(fd);
	return live;
}

static int socket_bind(int fd, const struct sockaddr_un *address)
{
	mode_t before = umask(0117);
	int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address));
	int os_errno = rc ? errno : 0;
	umask(before);
	return err_from_errno(os_errno);
}

static int socket_listen(struct http_server *s)
{
	struct stat st;
	if (socket_is_live(&s->address))
		return OXE_BUSY;
	if (lstat(s->address.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(s->address.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_from_errno(errno);
	int err = socket_bind(fd, &s->address);
	if (!err && (listen(fd, 128) != 0 || lstat(s->address.sun_path, &st) != 0))
		err = err_from_errno(errno);
	if (err) {
		close(fd);
		return err;
	}
	s->listen_fd = fd;
	s->socket_dev = st.st_dev;
	s->socket_ino = st.st_ino;
	return 0;
}

static bool socket_is_ours(const struct http_server *s)
{
	struct stat st;
	return s->listen_fd >= 0 && lstat(s->address.sun_path, &st) == 0 && st.st_dev == s->socket_dev &&
	       st.st_ino == s->socket_ino;
}

static void log_socket_remade(void *arg)
{
	struct http_server *s = arg;
	LOG_WARN("api.socket_remade", "the API's socket file was gone, and was made anew",
		 F_STR("path", s->address.sun_path));
}

/* The old listener stays until the new one stands; connections under way are not touched. */
static void socket_check(struct http_server *s)
{
	int old_fd = s->listen_fd;
	if (socket_is_ours(s))
		return;
	if (socket_listen(s) != 0)
		return; /* its directory is gone, or another process sits there: look again in a second */
	if (old_fd >= 0)
		close(old_fd);
	rt_post(s->rt, log_socket_remade, s);
}

static void connection_accept(struct http_server *s)
{
	struct sockaddr_un peer;
	socklen_t peer_len = sizeof(peer);
	int fd = accept4(s->listen_fd, (struct sockaddr *)&peer, &peer_len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		MHD_add_connection(s->daemon, fd, (struct sockaddr *)&peer, peer_len);
	else if (errno == EMFILE || errno == ENFILE)
		poll(NULL, 0, 100); /* no descriptor left: let others end */
}

/* Nobody connects through a file that is gone, so a second of silence is when to look. */
static void *accept_main(void *arg)
{
	struct http_server *s = arg;
	for (;;) {
		struct pollfd poll_fd = {.fd = s->listen_fd, .events = POLLIN};
		if (poll(&poll_fd, 1, SOCKET_LOOK_MS) > 0)
			connection_accept(s);
		else
			socket_check(s);
	}
	return NULL;
}

/* ---- start ----------------------------------------------------------------------------------------------------------- */

static struct MHD_Daemon *daemon_start(struct http_server *s)
{
	return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
					MHD_USE_NO_LISTEN_SOCKET,
				0, NULL, NULL, on_request, s, MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_UNESCAPE_CALLBACK,
				on_unescape, NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
				MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				MHD_OPTION_END);
}

/* Signals are the main thread's. */
static int threads_start(struct http_server *s)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	s->daemon = daemon_start(s);
	int os_errno = s->daemon ? pthread_create(&s->accept_thread, NULL, accept_main, s) : ENOMEM;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err_from_errno(os_errno);
}

int http_server_start(struct rt *rt, struct api *api, const char *path, struct http_server **out)
{
	struct http_server *s = mem_zalloc(sizeof(*s));
	s->rt = rt;
	s->api = api;
	s->listen_fd = -1;
	s->address.sun_family = AF_UNIX;
	int err = strlen(path) < sizeof(s->address.sun_path) ? 0 : OXE_TOOBIG;
	if (!err) {
		memcpy(s->address.sun_path, path, strlen(path) + 1);
		err = socket_listen(s);
	}
	if (!err)
		err = threads_start(s);
	if (err) {
		if (s->listen_fd >= 0)
			close(s->listen_fd);
		free(s);
		return err;
	}
	*out = s;
	return 0;
}
