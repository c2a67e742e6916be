/*
 * host_net.c: stream sockets, unix and TCP.
 *
 * Everything goes through the ring, so that the sends and receives of a turn share its one system call. Trying the socket
 * directly first was measured (host_bench, one and 32 connections): it never won beyond the noise, and with many
 * connections it lost. Sockets stay in blocking mode, because the ring waits for those and returns EAGAIN for others.
 *
 * Accepting is one at a time, when rt_accept() asks: connections nobody asked for yet wait in the kernel's backlog, which is
 * bounded and pushes back, rather than in a queue of ours.
 *
 * The ring never holds a listening socket. What a ring holds outlives a killed process: a kernel thread takes the ring apart
 * later, and a socket that it held listens until then, answers the successor's question whether anybody is there with yes,
 * and keeps its TCP port. So each listener has a gate, an epoll descriptor that watches the socket without holding it; the
 * ring waits at the gate, and the socket is closed with the process, before anybody is told that it died.
 */
#include "host/host_internal.h"

#include "host/host_addr.h"
#include "host/host_survivor.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG	       1024
#define SEND_PARTS     64  /* of one ring entry */
#define PART_MAX_BYTES GiB /* of one ring entry, whose length has 32 bits */

/* What a unix socket holds that its peer has not read. The 208 KiB it has by default are one reply of 128 KiB: sender and reader
 * then wait for each other, twice a reply. With this, sequential reads of 128 KiB over NBD cost up to a quarter less of the server's
 * time; four times as much gained nothing more. */
#define UNIX_SEND_BYTES ((int)(512 * KiB))

static_assert(sizeof(struct rt_iovec) == sizeof(struct iovec) &&
		      offsetof(struct rt_iovec, len_bytes) == offsetof(struct iovec, iov_len),
	      "our parts are the kernel's");

/* ---- connections --------------------------------------------------------------------------------------------------- */

struct host_conn {
	struct rt_conn conn;
	int fd;
	bool shut, receiving, sending;
	bool is_shared; /* with the survivor: host_survivor.h */
	char peer[ADDR_TEXT_SIZE], local[ADDR_TEXT_SIZE];
};

static struct host_conn *conn_of(struct rt_conn *c)
{
	return container_of(c, struct host_conn, conn);
}

static void peer_describe(int fd, char text[ADDR_TEXT_SIZE])
{
	struct host_addr addr = {.len_bytes = sizeof(addr) - offsetof(struct host_addr, any)};
	struct ucred cred = {0};
	socklen_t cred_bytes = sizeof(cred);
	char full[ADDR_TEXT_SIZE];
	snprintf(text, ADDR_TEXT_SIZE, "gone");
	if (getpeername(fd, &addr.any, &addr.len_bytes))
		return;
	if (addr_is_unix(&addr)) {
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_bytes) == 0)
			snprintf(text, ADDR_TEXT_SIZE, "unix:pid=%d,uid=%u", cred.pid, cred.uid);
		return;
	}
	addr_format(&addr, full);
	snprintf(text, ADDR_TEXT_SIZE, "%s", full + strlen("tcp:"));
}

static void local_describe(int fd, char text[ADDR_TEXT_SIZE])
{
	struct host_addr addr = {.len_bytes = sizeof(addr) - offsetof(struct host_addr, any)};
	text[0] = '\0';
	if (getsockname(fd, &addr.any, &addr.len_bytes) == 0 && !addr_is_unix(&addr))
		addr_format(&addr, text);
}

/* Beyond the system's limit if we may, else up to it. TCP finds a good size by itself, and fixing one would end that. */
static void send_buffer_widen(int fd)
{
	int domain = 0, bytes = UNIX_SEND_BYTES;
	socklen_t len_bytes = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len_bytes) || domain != AF_UNIX)
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static struct rt_conn *conn_new(struct rt *rt, int fd)
{
	struct host_conn *c = mem_alloc(sizeof(*c));
	*c = (struct host_conn){.conn = {.rt = rt}, .fd = fd};
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
		   sizeof(on)); /* refused by unix sockets, which need none */
	send_buffer_widen(fd);
	peer_describe(fd, c->peer);
	local_describe(fd, c->local);
	host_of(rt)->open_objects++;
	return &c->conn;
}

static int net_error(int os_errno)
{
	switch (os_errno) {
	case ECANCELED:
	case ECONNABORTED:
	case EBADF:
		return OXE_CLOSED;
	default:
		return err_from_errno(os_errno);
	}
}

static int recv_once(struct host_conn *c, void *data, size_t len_bytes)
{
	struct host_wait wait;
	struct io_uring_sqe *sqe = host_sqe(host_of(c->conn.rt));
	io_uring_prep_recv(sqe, c->fd, data, u64_min(len_bytes, PART_MAX_BYTES), 0);
	return host_await(sqe, &wait);
}

int host_recv(struct rt_conn *conn, void *data, size_t len_bytes, size_t *got_bytes)
{
	struct host_conn *c = conn_of(conn);
	int n = -EINTR;
	assert(!c->receiving && len_bytes > 0);
	c->receiving = true;
	while (!c->shut && (n == -EINTR || n == -EAGAIN))
		n = recv_once(c, data, len_bytes);
	c->receiving = false;
	if (n <= 0 && c->shut)
		return OXE_CLOSED;
	if (n < 0)
		return net_error(-n);
	*got_bytes = (size_t)n;
	return 0;
}

/* Where in the caller's parts the next byte to send is. */
struct send_cursor {
	const struct rt_iovec *parts;
	size_t count, skip_bytes;
};

static size_t cursor_window(const struct send_cursor *at, struct iovec *window)
{
	size_t n = u64_min(at->count, SEND_PARTS);
	for (size_t i = 0; i < n; i++)
		window[i] = (struct iovec){at->parts[i].data, at->parts[i].len_bytes};
	window[0].iov_base = (char *)window[0].iov_base + at->skip_bytes;
	window[0].iov_len = u64_min(window[0].iov_len - at->skip_bytes, PART_MAX_BYTES);
	return window[0].iov_len == PART_MAX_BYTES ? 1 : n;
}

/* Past what was sent, and past empty parts. */
static void cursor_advance(struct send_cursor *at, size_t sent_bytes)
{
	at->skip_bytes += sent_bytes;
	while (at->count && at->skip_bytes >= at->parts->len_bytes) {
		at->skip_bytes -= at->parts->len_bytes;
		at->parts++;
		at->count--;
	}
}

/* The kernel goes on until all of the window is sent, or the connection fails. */
static int send_once(struct host_conn *c, const struct send_cursor *at)
{
	struct iovec window[SEND_PARTS];
	struct msghdr msg = {.msg_iov = window, .msg_iovlen = cursor_window(at, window)};
	struct host_wait wait;
	struct io_uring_sqe *sqe = host_sqe(host_of(c->conn.rt));
	if (msg.msg_iovlen == 1)
		io_uring_prep_send(sqe, c->fd, window[0].iov_base, window[0].iov_len,
				   MSG_NOSIGNAL | MSG_WAITALL);
	else
		io_uring_prep_sendmsg(sqe, c->fd, &msg, MSG_NOSIGNAL | MSG_WAITALL);
	return host_await(sqe, &wait);
}

int host_send(struct rt_conn *conn, const struct rt_iovec *parts, size_t part_count)
{
	struct host_conn *c = conn_of(conn);
	struct send_cursor at = {parts, part_count, 0};
	int result = 0;
	assert(!c->sending);
	c->sending = true;
	cursor_advance(&at, 0);
	while (at.count && !result) {
		int n = c->shut ? -EPIPE : send_once(c, &at);
		if (n >= 0)
			cursor_advance(&at, (size_t)n);
		else if (n != -EINTR && n != -EAGAIN)
			result = net_error(-n);
	}
	c->sending = false;
	return result;
}

/* Wakes whoever waits on the socket, with end of stream or EPIPE. */
void host_conn_shutdown(struct rt_conn *conn)
{
	struct host_conn *c = conn_of(conn);
	if (!c->shut)
		shutdown(c->fd, SHUT_RDWR);
	c->shut = true;
}

void host_conn_close(struct rt_conn *conn)
{
	struct host_conn *c = conn_of(conn);
	assert(!c->receiving && !c->sending);
	if (c->is_shared)
		shutdown(c->fd, SHUT_RDWR);
	close(c->fd);
	host_of(conn->rt)->open_objects--;
	free(c);
}

const char *host_conn_peer(const struct rt_conn *c)
{
	return container_of(c, const struct host_conn, conn)->peer;
}

const char *host_conn_local(const struct rt_conn *c)
{
	return container_of(c, const struct host_conn, conn)->local;
}

/* ---- connecting ---------------------------------------------------------------------------------------------------- */

struct connect_limit {
	struct rt_timer timer;
	struct host *host;
	struct host_wait wait;
	bool expired;
};

static void connect_expired(struct rt_timer *timer)
{
	struct connect_limit *limit = container_of(timer, struct connect_limit, timer);
	if (limit->wait.done)
		return;
	limit->expired = true;
	host_cancel(limit->host, &limit->wait.op);
}

static int connect_wait(struct host *h, int fd, struct host_addr *addr, uint64_t deadline_ns)
{
	struct connect_limit limit = {.host = h};
	timer_init(&limit.timer, connect_expired);
	if (deadline_ns != UINT64_MAX)
		timer_arm(&h->rt, &limit.timer, deadline_ns);
	struct io_uring_sqe *sqe = host_sqe(h);
	io_uring_prep_connect(sqe, fd, &addr->any, addr->len_bytes);
	int res = host_await(sqe, &limit.wait);
	timer_cancel(&h->rt, &limit.timer);
	if (res == 0)
		return 0;
	return limit.expired ? OXE_TIMEOUT : net_error(-res);
}

int host_connect(struct rt *rt, const char *address, uint64_t deadline_ns, struct rt_conn **out)
{
	struct host_addr addr;
	int result = addr_parse(address, &addr);
	if (result)
		return result;
	int fd = socket(addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_from_errno(errno);
	result = connect_wait(host_of(rt), fd, &addr, deadline_ns);
	if (result) {
		close(fd);
		return result;
	}
	*out = conn_new(rt, fd);
	return 0;
}

/* ---- listening ----------------------------------------------------------------------------------------------------- */

/*
 * The struct goes when rt_listener_close() was called and an rt_accept() has said OXE_SHUTDOWN, so that an acceptor that
 * was busy elsewhere may still ask. If none ever asked, it goes at the close; if one stopped asking, with the reactor.
 */
struct host_listener {
	struct rt_listener listener;
	struct list link; /* of the reactor */
	struct list acceptors;
	int fd, gate_fd; /* gate_fd: readable when fd has a connection to accept */
	bool closed, asked;
	struct host_addr addr;
	dev_t dev; /* of the socket file we made */
	ino_t ino;
	char address[ADDR_TEXT_SIZE];
};

struct acceptor {
	struct list link;
	struct host_wait wait;
};

static struct host_listener *listener_of(struct rt_listener *l)
{
	return container_of(l, struct host_listener, listener);
}

static void listener_free(struct host_listener *l)
{
	list_del(&l->link);
	free(l);
}

/* Does anybody answer at this path? Only a refused connection proves that nobody does. */
static int unix_stale(const struct host_addr *addr)
{
	struct stat st;
	if (lstat(addr->un.sun_path, &st))
		return errno == ENOENT ? 0 : err_from_errno(errno);
	if (!S_ISSOCK(st.st_mode))
		return OXE_EXISTS;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_from_errno(errno);
	int os_errno = connect(fd, &addr->any, addr->len_bytes) ? errno : 0;
	close(fd);
	return os_errno == ECONNREFUSED ? 0 : OXE_BUSY;
}

static int unix_bind(int fd, const struct host_addr *addr)
{
	fchmod(fd, 0660); /* so that the file is never wider than this, even before the chmod below */
	if (bind(fd, &addr->any, addr->len_bytes)) {
		if (errno != EADDRINUSE)
			return err_from_errno(errno);
		int result = unix_stale(addr);
		if (result)
			return result;
		unlink(addr->un.sun_path);
		if (bind(fd, &addr->any, addr->len_bytes))
			return err_from_errno(errno);
	}
	return chmod(addr->un.sun_path, 0660) ? err_from_errno(errno) : 0;
}

/* A restart must not wait for connections of the last life: SO_REUSEADDR. A v6 wildcard takes v4 too. */
static int tcp_bind(int fd, const struct host_addr *addr)
{
	int on = 1, off = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, &addr->any, addr->len_bytes) == 0)
		return 0;
	return errno == EADDRINUSE ? OXE_BUSY : err_from_errno(errno);
}

static void listener_describe(struct host_listener *l)
{
	struct stat st;
	if (addr_is_unix(&l->addr)) {
		if (stat(l->addr.un.sun_path, &st) == 0) {
			l->dev = st.st_dev;
			l->ino = st.st_ino;
		}
	} else {
		getsockname(l->fd, &l->addr.any, &l->addr.len_bytes);
	}
	addr_format(&l->addr, l->address);
}

/* Only the file we made: by now a successor may have put its own there. */
static void unix_unlink(const struct host_listener *l)
{
	struct stat st;
	const char *path = l->addr.un.sun_path;
	if (lstat(path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(path);
}

static int listener_open(struct host_listener *l)
{
	l->fd = socket(l->addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return err_from_errno(errno);
	int result = addr_is_unix(&l->addr) ? unix_bind(l->fd, &l->addr) : tcp_bind(l->fd, &l->addr);
	if (!result && listen(l->fd, BACKLOG))
		result = err_from_errno(errno);
	if (result)
		close(l->fd);
	return result;
}

static int gate_open(struct host_listener *l)
{
	struct epoll_event event = {.events = EPOLLIN};
	l->gate_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->gate_fd < 0)
		return err_from_errno(errno);
	if (epoll_ctl(l->gate_fd, EPOLL_CTL_ADD, l->fd, &event) == 0)
		return 0;
	int result = err_from_errno(errno);
	close(l->gate_fd);
	return result;
}

/* A process that is dying closes its sockets in its own time: it may be in the middle of a system call. A restart right after
 * kill -9 must not fail for that. */
static int listener_open_patiently(struct host_listener *l)
{
	int result = listener_open(l);
	for (int i = 0; result == OXE_BUSY && i < HOST_BUSY_TRIES; i++) {
		fiber_sleep(HOST_BUSY_PAUSE_NS);
		result = listener_open(l);
	}
	return result;
}

static int listener_start(struct host_listener *l)
{
	int result = listener_open_patiently(l);
	if (result)
		return result;
	listener_describe(l);
	result = gate_open(l);
	if (result) {
		if (addr_is_unix(&l->addr))
			unix_unlink(l);
		close(l->fd);
	}
	return result;
}

int host_listen(struct rt *rt, const char *address, struct rt_listener **out)
{
	struct host_listener *l = mem_zalloc(sizeof(*l));
	l->listener.rt = rt;
	list_init(&l->acceptors);
	int result = addr_parse(address, &l->addr);
	if (!result)
		result = listener_start(l);
	if (result) {
		free(l);
		return result;
	}
	list_add_tail(&host_of(rt)->listeners, &l->link);
	*out = &l->listener;
	return 0;
}

const char *host_listener_address(const struct rt_listener *l)
{
	return container_of(l, const struct host_listener, listener)->address;
}

/* Until somebody knocks, or the listener is closed. */
static void accept_wait(struct host_listener *l)
{
	struct acceptor a;
	struct io_uring_sqe *sqe = host_sqe(host_of(l->listener.rt));
	io_uring_prep_poll_add(sqe, l->gate_fd, POLLIN);
	list_add_tail(&l->acceptors, &a.link);
	host_await(sqe, &a.wait);
	list_del(&a.link);
}

static int accept_closed(struct host_listener *l)
{
	if (list_empty(&l->acceptors))
		listener_free(l);
	return OXE_SHUTDOWN;
}

/* Out of descriptors or memory: the caller waits a little. Anything else befell one connection, not the listener. */
static bool accept_is_starved(int os_errno)
{
	return os_errno == EMFILE || os_errno == ENFILE || os_errno == ENOBUFS || os_errno == ENOMEM;
}

int host_accept(struct rt_listener *listener, struct rt_conn **out)
{
	struct host_listener *l = listener_of(listener);
	l->asked = true;
	while (!l->closed) {
		accept_wait(l);
		if (l->closed)
			break;
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0) {
			*out = conn_new(listener->rt, fd);
			conn_of(*out)->is_shared = host_survivor_tell(fd);
			return 0;
		}
		if (accept_is_starved(errno))
			return OXE_SYS;
	}
	return accept_closed(l);
}

void host_listener_close(struct rt_listener *listener)
{
	struct host_listener *l = listener_of(listener);
	assert(!l->closed);
	l->closed = true;
	if (addr_is_unix(&l->addr))
		unix_unlink(l);
	shutdown(l->fd, SHUT_RDWR);
	struct acceptor *a;
	list_for_each (a, &l->acceptors, link)
		host_cancel(host_of(listener->rt), &a->wait.op);
	close(l->gate_fd);
	close(l->fd);
	if (!l->asked)
		listener_free(l);
}

void host_listeners_free(struct host *h)
{
	struct host_listener *l;
	while (!list_empty(&h->listeners)) {
		l = list_first(&h->listeners, struct host_listener, link);
		assert(l->closed);
		listener_free(l);
	}
}
