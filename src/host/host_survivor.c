/*
 * host_survivor.c: a process that outlives this one by a moment, to end its connections (host.h).
 *
 * A ring holds the sockets it receives on, and goes on doing so when its process is killed: a kernel thread takes it apart, and one
 * thread for the whole machine then releases those files in a row, behind whatever large file is being deleted just then. A client
 * would hear nothing for that long, and knock nowhere else. The survivor has each accepted socket, too, and holds it for nothing but
 * this: when the other end of its own socket closes, which the kernel does before the process is gone, it shuts them all down.
 *
 * It is forked before there is a thread, a ring or a file. It lets go of a socket that was shut down, which is why a connection is
 * before it is closed. Nobody waits for it, and nothing goes wrong without it: what it was not told of ends as it would have.
 */
#include "host/host_survivor.h"

#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64

static int survivor_fd = -1; /* of this process, for all its threads */

/* ---- the survivor ----------------------------------------------------------------------------------------------------------- */

struct held {
	int *fds; /* all of them: the process ends, and they with it */
	size_t count, capacity;
};

static void held_add(struct held *h, int fd)
{
	if (h->count == h->capacity) {
		h->capacity = h->capacity ? 2 * h->capacity : 64;
		h->fds = mem_realloc(h->fds, h->capacity * sizeof(*h->fds));
	}
	h->fds[h->count++] = fd;
}

static void held_remove(struct held *h, int fd)
{
	size_t i = 0;
	while (i < h->count && h->fds[i] != fd)
		i++;
	if (i < h->count)
		h->fds[i] = h->fds[--h->count];
	close(fd);
}

/* The socket in a message; -1 if there was no room for it. *is_over: nobody will send another. */
static int socket_receive(int from, bool *is_over)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char byte;
	int fd = -1;
	struct iovec part = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
	*is_over = n == 0 || (n < 0 && errno != EINTR);
	const struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}

/* Without events it is told when both directions are shut. */
static void watch(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		close(fd);
}

static bool event_take(struct held *h, int epoll, int from, const struct epoll_event *event)
{
	bool is_over = false;
	if (event->data.fd != from) {
		held_remove(h, event->data.fd);
		return false;
	}
	int fd = socket_receive(from, &is_over);
	if (fd >= 0) {
		held_add(h, fd);
		watch(epoll, fd, 0);
	}
	return is_over;
}

_Noreturn static void survive(int from)
{
	struct epoll_event events[EVENTS];
	struct held held = {0};
	bool is_over = false;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	watch(epoll, from, EPOLLIN);
	while (!is_over) {
		int n = epoll_wait(epoll, events, EVENTS, -1);
		if (n < 0 && errno != EINTR)
			break;
		for (int i = 0; i < n; i++)
			is_over = event_take(&held, epoll, from, &events[i]) || is_over;
	}
	for (size_t i = 0; i < held.count; i++)
		shutdown(held.fds[i], SHUT_RDWR);
	_exit(0);
}

/* What ends the process that is watched is meant for that one alone: a terminal's ^C goes to both. */
_Noreturn static void survivor_main(int from)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
	for (size_t i = 0; i < ARRAY_COUNT(ignored); i++)
		signal(ignored[i], SIG_IGN);
	prctl(PR_SET_NAME, "oxbow-survivor");
	int nothing = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(nothing, fd);
	int own = dup2(from, 3);
	close_range(4, ~0u, 0);
	if (own < 0 || chdir("/"))
		_exit(1);
	survive(own);
}

/* ---- of the process that is watched ------------------------------------------------------------------------------------------ */

int host_survivor_start(void)
{
	int pair[2];
	assert(survivor_fd < 0);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_from_errno(errno);
	pid_t child = fork();
	if (child == 0)
		survivor_main(pair[1]);
	close(pair[1]);
	if (child < 0) {
		close(pair[0]);
		return OXE_SYS;
	}
	survivor_fd = pair[0];
	return 0;
}

bool host_survivor_tell(int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	char byte = 0;
	struct iovec part = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	if (survivor_fd < 0)
		return false;
	*head = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	return sendmsg(survivor_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}
