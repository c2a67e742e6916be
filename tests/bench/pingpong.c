/*
 * pingpong.c: what loopback TCP and io_uring allow by themselves: fixed-size asks, fixed-size answers, nothing in between.
 *
 *     build/release/tests/pingpong [--ask BYTES] [--answer BYTES] [--depth N] [--connections N] [--time SECONDS]
 *
 * The figure to hold beside oxbow-bench: a 4 KiB write is 4168 bytes out and 24 back, a read 72 out and 4120 back. The server
 * is a child process, one thread and one ring on each side, with the ring set up as src/host does it. Every answer that has
 * arrived lets one ask follow, all those of one receive in one send, so the batches are those a real host would see.
 */
#include "base/hist.h"
#include "base/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define DEPTH_MAX	1024
#define RECEIVE_BYTES	(256 * KiB)

static struct {
	size_t ask_bytes, answer_bytes;
	unsigned depth, connections, time_s;
} options = {.ask_bytes = 4168, .answer_bytes = 24, .depth = 1, .connections = 1, .time_s = 3};

/* One side of a connection: what comes in pieces of in_bytes is answered by pieces of out_bytes. */
struct side {
	int fd;
	size_t in_bytes, out_bytes;
	uint8_t *in;
	uint64_t partial_bytes; /* received of a piece that is not whole yet */
	uint64_t owed_bytes;	/* to be sent after what is being sent */
	bool sending, receiving;
	uint64_t sent_ns[DEPTH_MAX]; /* the client's: when each outstanding ask was due to go, a ring */
	unsigned sent_head, sent_tail;
};

static struct io_uring ring;
static uint8_t *payload; /* what every send sends: its content does not matter */
static struct hist latency;
static uint64_t now_ns;

static uint64_t clock_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static _Noreturn void die(const char *what, int os_errno)
{
	fprintf(stderr, "pingpong: %s: %s\n", what, strerror(os_errno));
	exit(1);
}

/* ---- one side ------------------------------------------------------------------------------------------------------- */

static struct io_uring_sqe *entry(struct side *s, uint64_t is_send)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (!sqe) {
		io_uring_submit(&ring);
		sqe = io_uring_get_sqe(&ring);
	}
	io_uring_sqe_set_data64(sqe, (uintptr_t)s | is_send);
	return sqe;
}

static void side_push(struct side *s)
{
	if (!s->receiving) {
		io_uring_prep_recv(entry(s, 0), s->fd, s->in, RECEIVE_BYTES, 0);
		s->receiving = true;
	}
	if (!s->sending && s->owed_bytes) {
		io_uring_prep_send(entry(s, 1), s->fd, payload, s->owed_bytes, MSG_NOSIGNAL | MSG_WAITALL);
		s->sending = true;
	}
}

/* Whole pieces among what has been received so far: each is answered by one. */
static uint64_t side_received(struct side *s, uint64_t n)
{
	uint64_t pieces = (s->partial_bytes + n) / s->in_bytes;
	s->partial_bytes = (s->partial_bytes + n) % s->in_bytes;
	return pieces;
}

static void client_answered(struct side *s, uint64_t pieces)
{
	for (; pieces; pieces--) {
		hist_add(&latency, now_ns - s->sent_ns[s->sent_head++ % DEPTH_MAX]);
		s->sent_ns[s->sent_tail++ % DEPTH_MAX] = now_ns;
	}
}

/* False when the other side has gone. */
static bool side_event(struct side *s, bool is_send, int res, bool is_client)
{
	if (res <= 0)
		return res == -EINTR;
	if (is_send) {
		s->sending = false;
		s->owed_bytes -= (uint64_t)res;
	} else {
		uint64_t pieces = side_received(s, (uint64_t)res);
		s->receiving = false;
		s->owed_bytes += pieces * s->out_bytes;
		if (is_client)
			client_answered(s, pieces);
	}
	side_push(s);
	return true;
}

static void run(struct side *sides, bool is_client, uint64_t end_ns)
{
	bool going = true;
	for (unsigned i = 0; i < options.connections; i++)
		side_push(&sides[i]);
	while (going && now_ns < end_ns) {
		struct io_uring_cqe *cqe;
		unsigned head, count = 0;
		int ret = io_uring_submit_and_wait(&ring, 1);
		if (ret < 0 && ret != -EINTR)
			die("io_uring_enter", -ret);
		now_ns = clock_ns();
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			struct side *s = (struct side *)(uintptr_t)(cqe->user_data & ~1ull);
			going &= side_event(s, cqe->user_data & 1, cqe->res, is_client);
			count++;
		}
		io_uring_cq_advance(&ring, count);
	}
}

static void ring_open(void)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG};
	int ret = io_uring_queue_init_params(1024, &ring, &params);
	if (ret < 0)
		die("io_uring", -ret);
	io_uring_register_ring_fd(&ring);
}

static void side_init(struct side *s, int fd, size_t in_bytes, size_t out_bytes)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*s = (struct side){
		.fd = fd, .in_bytes = in_bytes, .out_bytes = out_bytes, .in = mem_alloc(RECEIVE_BYTES)};
}

/* ---- both ends ------------------------------------------------------------------------------------------------------ */

static _Noreturn void server_main(int listener)
{
	static struct side sides[CONNECTIONS_MAX];
	for (unsigned i = 0; i < options.connections; i++) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			die("accept", errno);
		side_init(&sides[i], fd, options.ask_bytes, options.answer_bytes);
	}
	ring_open();
	run(sides, false, UINT64_MAX);
	exit(0);
}

static void client_main(const struct sockaddr_in *address)
{
	static struct side sides[CONNECTIONS_MAX];
	for (unsigned i = 0; i < options.connections; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
			die("connect", errno);
		side_init(&sides[i], fd, options.answer_bytes, options.ask_bytes);
	}
	ring_open();
	now_ns = clock_ns();
	for (unsigned i = 0; i < options.connections; i++) {
		sides[i].owed_bytes = options.depth * options.ask_bytes;
		for (unsigned k = 0; k < options.depth; k++)
			sides[i].sent_ns[sides[i].sent_tail++] = now_ns;
	}
	run(sides, true, now_ns + options.time_s * NS_PER_S);
}

static double cpu_s(int who)
{
	struct rusage u;
	getrusage(who, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void report(void)
{
	double n = (double)latency.count;
	printf("ask %zu answer %zu depth %u connections %u: %.0f/s, p50 %.1f p99 %.1f us, "
	       "CPU s per million: client %.2f server %.2f\n",
	       options.ask_bytes, options.answer_bytes, options.depth, options.connections,
	       n / options.time_s, (double)hist_quantile(&latency, 500) / 1e3,
	       (double)hist_quantile(&latency, 990) / 1e3, cpu_s(RUSAGE_SELF) / n * 1e6,
	       cpu_s(RUSAGE_CHILDREN) / n * 1e6);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: pingpong [--ask BYTES] [--answer BYTES] [--depth 1..%d] [--connections 1..%d] "
		"[--time S]\n",
		DEPTH_MAX, CONNECTIONS_MAX);
	exit(2);
}

static void options_read(int argc, char **argv)
{
	static const struct option names[] = {{"ask", 1, NULL, 'a'},   {"answer", 1, NULL, 'w'},
					      {"depth", 1, NULL, 'd'}, {"connections", 1, NULL, 'c'},
					      {"time", 1, NULL, 't'},  {NULL, 0, NULL, 0}};
	int opt;
	while ((opt = getopt_long(argc, argv, "", names, NULL)) != -1) {
		unsigned n = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
		if (opt == 'a')
			options.ask_bytes = n;
		else if (opt == 'w')
			options.answer_bytes = n;
		else if (opt == 'd')
			options.depth = n;
		else if (opt == 'c')
			options.connections = n;
		else if (opt == 't')
			options.time_s = n;
		else
			usage();
	}
	if (!options.ask_bytes || !options.answer_bytes || !options.depth || options.depth > DEPTH_MAX ||
	    !options.connections || options.connections > CONNECTIONS_MAX || !options.time_s || optind < argc)
		usage();
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	options_read(argc, argv);
	payload = mem_zalloc(DEPTH_MAX * u64_max(options.ask_bytes, options.answer_bytes));
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, CONNECTIONS_MAX) || getsockname(listener, (struct sockaddr *)&address, &length))
		die("listen", errno);
	pid_t server = fork();
	if (server == 0)
		server_main(listener);
	client_main(&address);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	report();
	return 0;
}
