/*
 * sim_seeds.c: seeds run by processes of their own.
 *
 * The parent forks workers, which take seed after seed from a shared counter and note in shared memory what they are at, so
 * that a worker that dies of an assert still tells which seed and crash state it was.
 */
#include "oxbow-sim.h"

#include "sim/cluster_run.h"
#include "sim/pool_run.h"
#include "sim_wire.h"

#include <execinfo.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STATE_LIMIT_S                                                                                        \
	60u /* a crash state that takes longer than this of real time hangs without waiting for anything */

#define CLUSTER_LIMIT_S 30u /* the same of a cluster's whole life */
#define CLUSTERS_A_PROCESS                                                                                   \
	8u /* what processes that are killed in the simulator leave behind is some 45 MiB a seed */

struct shared *shared;
static struct worker *self;

uint64_t clock_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- workers ------------------------------------------------------------------------------------------------------------ */

static void note_progress(uint64_t seed, uint64_t state_id)
{
	self->seed = seed;
	self->state_id = state_id;
	alarm(STATE_LIMIT_S);
}

static void print_replay(FILE *out, uint64_t seed, uint64_t state_id)
{
	if (options.cluster) {
		fprintf(out, "replay: oxbow-sim --cluster%s --seed %llu --tell",
			options.wire ? " --wire" : "", (unsigned long long)seed);
		if (options.mutant)
			fprintf(out, " --mutant %u", options.mutant);
		fprintf(out, "\n");
		return;
	}
	fprintf(out, "replay: oxbow-sim --seed %llu --states %u", (unsigned long long)seed, options.states);
	if (state_id)
		fprintf(out, " --state %llu", (unsigned long long)state_id);
	if (options.mutant)
		fprintf(out, " --mutant %u", options.mutant);
	fprintf(out, "\n");
}

/* The process is lost anyway: say where it was. */
static void dying(int signo)
{
	char where[200];
	void *frames[40];
	signal(signo, SIG_DFL);
	if (!run_is_quiet)
		backtrace_symbols_fd(frames, backtrace(frames, (int)ARRAY_COUNT(frames)), 2);
	run_dying(where, sizeof(where));
	snprintf(shared->failure, sizeof(shared->failure), "%s (%s)",
		 signo == SIGALRM ? "it spins for ever" : strsignal(signo), where);
	if (!run_is_quiet) {
		fprintf(stderr, "FAILED seed %llu: %s\n", (unsigned long long)self->seed, shared->failure);
		print_replay(stderr, self->seed, self->state_id);
	}
	_exit(EXIT_DIED);
}

static void catch_signals(void)
{
	static uint8_t stack[256 * 1024];
	stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_handler = dying, .sa_flags = SA_ONSTACK};
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
	sigaltstack(&alternative, NULL);
	for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
		sigaction(signals[i], &action, NULL);
}

static void count_report(const struct run_report *report)
{
	shared->seeds++;
	shared->states += report->states;
	shared->points += report->points;
	shared->writes += report->device_writes;
	shared->steps += report->steps;
}

static void print_hash(uint64_t seed, uint64_t hash)
{
	if (options.print_hash)
		printf("seed %llu hash %016llx\n", (unsigned long long)seed, (unsigned long long)hash);
}

static void tell(uint64_t now_ns, const char *line)
{
	printf("%10.3f ms  %s\n", (double)now_ns / 1e6, line);
}

/* `where` (NULL: nowhere in particular) and `state_id` (0: none) are of the crash state. */
static void seed_failed(uint64_t seed, const char *what, const char *where, uint64_t state_id)
{
	snprintf(shared->failure, sizeof(shared->failure), "%.300s", what);
	if (!run_is_quiet) {
		fprintf(stderr, "FAILED seed %llu: %s\n", (unsigned long long)seed, what);
		if (where)
			fprintf(stderr, "crash state: %s\n", where);
		print_replay(stderr, seed, state_id);
	}
	self->seed = seed;
	self->state_id = state_id;
}

static bool cluster_seed_run(uint64_t seed)
{
	struct cluster_report report;
	struct cluster_spec spec = {.seed = seed,
				    .wire = options.wire ? &sim_wire : NULL,
				    .story = run_is_quiet ? NULL : stderr,
				    .tell = options.tell ? tell : NULL};
	note_progress(seed, 0);
	alarm(CLUSTER_LIMIT_S);
	bool ok = cluster_run(&spec, &report);
	alarm(0);
	shared->seeds++;
	shared->requests += report.requests;
	shared->kills += report.kills + report.power_cuts;
	shared->engines += report.engines;
	shared->virtual_ms += report.virtual_ns / NS_PER_MS;
	print_hash(seed, report.hash);
	if (!ok)
		seed_failed(seed, report.what, NULL, 0);
	return ok;
}

static bool pool_seed_run(uint64_t seed)
{
	struct run_report report;
	struct run_spec spec = {.seed = seed, .states = options.states, .only_state = options.only_state};
	bool ok = pool_run(&spec, &report);
	alarm(0);
	count_report(&report);
	print_hash(seed, report.hash);
	if (!ok)
		seed_failed(seed, report.what, report.where, report.state_id);
	return ok;
}

static bool seed_run(uint64_t seed)
{
	return options.cluster ? cluster_seed_run(seed) : pool_seed_run(seed);
}

static void worker_main(void)
{
	catch_signals();
	for (unsigned i = 0; !shared->stop; i++) {
		if (options.cluster && i == CLUSTERS_A_PROCESS)
			_exit(EXIT_MORE);
		uint64_t seed = shared->next_seed++;
		if (seed > options.last_seed)
			break;
		if (!seed_run(seed)) {
			fflush(stdout);
			_exit(EXIT_FAILED);
		}
	}
	fflush(stdout);
	_exit(EXIT_FINE);
}

static void worker_start(struct worker *w)
{
	fflush(stdout);
	fflush(stderr);
	pid_t pid = fork();
	if (pid == 0) {
		self = w;
		worker_main();
	}
	w->pid = pid; /* by the parent: the memory is shared */
}

/* ---- the parent -------------------------------------------------------------------------------------------------------------- */

static void cluster_progress_print(uint64_t elapsed_s, bool final)
{
	fprintf(stdout,
		"%s%llu clusters, %llu requests, %llu processes killed or machines cut off, %llu engines, "
		"%llu s of their time, "
		"%llu failures, %llu s%s",
		final ? "" : "\r", (unsigned long long)shared->seeds, (unsigned long long)shared->requests,
		(unsigned long long)shared->kills, (unsigned long long)shared->engines,
		(unsigned long long)shared->virtual_ms / 1000, (unsigned long long)shared->failures,
		(unsigned long long)elapsed_s, final ? "\n" : "");
	fflush(stdout);
}

static void progress_print(uint64_t start_s, bool final)
{
	uint64_t elapsed = clock_s() - start_s;
	if (options.cluster) {
		cluster_progress_print(elapsed, final);
		return;
	}
	fprintf(stdout,
		"%s%llu seeds, %llu crash states, %llu crash points, %llu device writes, %llu steps, "
		"%llu failures, %llu s%s",
		final ? "" : "\r", (unsigned long long)shared->seeds, (unsigned long long)shared->states,
		(unsigned long long)shared->points, (unsigned long long)shared->writes,
		(unsigned long long)shared->steps, (unsigned long long)shared->failures,
		(unsigned long long)elapsed, final ? "\n" : "");
	fflush(stdout);
}

static struct worker *worker_of(pid_t pid)
{
	for (uint32_t i = 0; i < options.workers; i++) {
		if (shared->workers[i].pid == pid)
			return &shared->workers[i];
	}
	return NULL;
}

/* A worker has ended. True if another takes its place. */
static bool worker_ended(struct worker *w, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FINE)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_MORE)
		return true;
	shared->failures++;
	shared->failed_seed = w->seed;
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "FAILED seed %llu: %s\n", (unsigned long long)w->seed,
			strsignal(WTERMSIG(status)));
		print_replay(stderr, w->seed, w->state_id);
	}
	if (!options.keep_going)
		shared->stop = true;
	return options.keep_going;
}

static void time_check(uint64_t start_s, bool show)
{
	if (options.for_s && clock_s() - start_s >= options.for_s)
		shared->stop = true;
	if (show && isatty(1))
		progress_print(start_s, false);
}

bool seeds_run(bool show)
{
	uint64_t start_s = clock_s();
	uint32_t alive = options.workers;
	memset(shared, 0, sizeof(*shared));
	shared->next_seed = options.first_seed;
	for (uint32_t i = 0; i < options.workers; i++)
		worker_start(&shared->workers[i]);
	while (alive > 0) {
		int status;
		pid_t pid = waitpid(-1, &status, options.for_s || show ? WNOHANG : 0);
		struct worker *w = pid > 0 ? worker_of(pid) : NULL;
		if (pid == 0) {
			usleep(100000);
			time_check(start_s, show);
		} else if (w && worker_ended(w, status)) {
			worker_start(w);
		} else if (w) {
			alive--;
		}
	}
	if (show)
		progress_print(start_s, true);
	return shared->failures == 0;
}

bool seeds_prepare(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return false;
	/* A pool's caches are large and hardly used: fresh pages are cheaper than wiping old ones, a hundred thousand times. */
	mallopt(M_MMAP_THRESHOLD, 128 * KiB);
	run_progress = note_progress;
	return true;
}
