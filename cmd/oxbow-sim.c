/*
 * oxbow-sim: pools under a seed, crashed after every write. See src/sim/pool_run.h for what a run is.
 *
 * The parent forks workers, which take seed after seed from a shared counter and note in shared memory what they are at, so
 * that a worker that dies of an assert still tells which seed and crash state it was.
 */
#include "sim_hints.h"
#include "sim/cluster_mutants.h"
#include "sim/cluster_run.h"
#include "sim/pool_mutants.h"
#include "sim/pool_run.h"
#include "sim/sim.h"
#include "sim_wire.h"

#include <errno.h>
#include <execinfo.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64u
#define STATE_LIMIT_S                                                                                        \
	60u /* a crash state that takes longer than this of real time hangs without waiting for anything */

#define CLUSTER_LIMIT_S 30u /* the same of a cluster's whole life */

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DIED = 3 };

struct options {
	uint64_t first_seed, last_seed, only_state, for_s;
	uint32_t states, workers, mutant;
	bool mutants, rare, keep_going, print_hash, cluster, wire, tell, learn;
	const char *hints; /* file; NULL: none */
};

struct worker {
	pid_t pid;
	_Atomic uint64_t seed, state_id, since_s;
};

static struct shared {
	_Atomic uint64_t next_seed, seeds, states, points, writes, steps, failures, failed_seed;
	_Atomic uint64_t requests, kills, engines, virtual_ms; /* of clusters */
	_Atomic bool stop;
	char failure[400];
	struct worker workers[WORKERS_MAX];
} * shared;

static struct options options;
static struct worker *self;

static uint64_t clock_s(void)
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
	while (!shared->stop) {
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

/* Run the seeds of the options. True if none failed. */
static bool run_seeds(bool show)
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

/* ---- mutants -------------------------------------------------------------------------------------------------------------------- */

#ifdef OXBOW_MUTANTS
static const bool mutants_are_built = true;
#else
static const bool mutants_are_built = false;
#endif

/* Most bugs show in any run; some only at a moment that is rarely looked at, some only in a run that is rarely drawn. */
static const struct {
	uint64_t seeds;
	uint32_t states;
} mutant_passes[] = {{300, 100}, {1500, 3}, {150, 800}};

#define CLUSTER_MUTANT_SEEDS 300u

static const struct pool_mutant *mutant_list(void)
{
	return options.cluster ? cluster_mutants : pool_mutants;
}

/* By the seed that caught it the last time. */
static bool hint_holds(uint32_t mutant)
{
	const struct sim_hint *hint = sim_hint_find(mutant);
	if (!hint)
		return false;
	uint64_t first_seed = options.first_seed;
	options.first_seed = options.last_seed = hint->seed;
	options.states = hint->states;
	bool caught = !run_seeds(false);
	options.first_seed = first_seed;
	return caught;
}

static bool search_finds(void)
{
	if (options.cluster) {
		options.last_seed = options.first_seed + CLUSTER_MUTANT_SEEDS - 1;
		return !run_seeds(false);
	}
	for (size_t i = 0; i < ARRAY_COUNT(mutant_passes); i++) {
		options.last_seed = options.first_seed + mutant_passes[i].seeds - 1;
		options.states = mutant_passes[i].states;
		if (!run_seeds(false))
			return true;
	}
	return false;
}

/* A rare one is searched for only where that is asked for; its hint is tried always. */
static bool mutant_try(const struct pool_mutant *m, bool may_search)
{
	uint64_t start_s = clock_s();
	mutant_active = m->number;
	bool caught = hint_holds(m->number) || (may_search && search_finds());
	if (caught)
		(void)sim_hint_set(&(struct sim_hint){
			.mutant = m->number, .seed = shared->failed_seed, .states = options.states});
	if (!caught && !may_search)
		return false;
	printf("%s %3u  seed %-5llu %7llu states %4llu s  %s\n", caught ? "caught" : "MISSED", m->number,
	       (unsigned long long)shared->failed_seed, (unsigned long long)shared->states,
	       (unsigned long long)(clock_s() - start_s), m->text);
	if (caught)
		printf("            %s\n", shared->failure);
	fflush(stdout);
	return caught;
}

/* Each planted bug must be caught by some seed. Those that take long to find have a run of their own. */
static int run_mutants(bool rare)
{
	uint32_t caught = 0, total = 0, left = 0;
	run_is_quiet = true;
	for (const struct pool_mutant *m = mutant_list(); m->number; m++) {
		if (rare && !m->rare)
			continue;
		bool may_search = m->rare == rare, is_caught = mutant_try(m, may_search);
		caught += is_caught ? 1 : 0;
		left += !is_caught && !may_search ? 1 : 0;
		total += is_caught || may_search ? 1 : 0;
	}
	printf("%u of %u mutants caught\n", caught, total);
	if (left)
		printf("SKIP %u rare mutants that no seed is known for: minutes each; oxbow-sim-mutants "
		       "--mutants --rare\n",
		       left);
	return caught == total ? EXIT_FINE : EXIT_FAILED;
}

static int hints_bad(int err, uint32_t line)
{
	fprintf(stderr, "oxbow-sim: %s: %s (line %u)\n", options.hints,
		err == -EINVAL ? "not MUTANT SEED STATES" : strerror(-err), line);
	return EXIT_USAGE;
}

static int run_mutants_with_hints(void)
{
	uint32_t line = 0;
	int err = options.hints ? sim_hints_load(options.hints, &line) : 0;
	if (err)
		return hints_bad(err, line);
	int status = run_mutants(options.rare);
	err = options.hints && options.learn ? sim_hints_save(options.hints) : 0;
	return err ? hints_bad(err, 0) : status;
}

/* ---- the command line ------------------------------------------------------------------------------------------------------------ */

static void usage(FILE *out)
{
	fprintf(out,
		"usage: oxbow-sim [--seed N | --seeds A..B | --for TIME] [--states K] [-j N]\n"
		"  --seed N        run one seed\n"
		"  --seeds A..B    run these seeds (both included)\n"
		"  --for TIME      run seeds of its own choice: 30s, 10m, 1h\n"
		"  --states K      crash states to try for each seed, about (100); 0: every one, at "
		"every write\n"
		"  --cluster       whole nodes with engines and copies, instead of one pool\n"
		"  --wire          with --cluster: copies are reached by the real protocol, over a network\n"
		"                  that delays, breaks and is cut\n"
		"  --tell          with --cluster: print what is logged\n"
		"  --state S       only this crash state of the seed, and those inside it\n"
		"  -j N            processes (1)\n"
		"  --keep-going    go on after a seed has failed\n"
		"  --events N      how many of the last events to print when a seed fails (80)\n"
		"  --hash          print each seed's hash of everything that happened\n"
		"  --mutants       plant each bug in turn and see it caught (oxbow-sim-mutants only)\n"
		"  --rare          with --mutants: those that take minutes to find\n"
		"  --hints FILE    with --mutants: try the seed first that FILE names for a bug\n"
		"  --learn         and write down those that caught one\n"
		"  --mutant N      plant this one\n"
		"  --list-faults   what can go wrong in the simulator\n"
		"  --list-mutants  what can be planted\n"
		"  --help          this\n"
		"exit: 0 all is well, 1 a seed failed (or a mutant was missed), 2 usage\n");
}

static uint64_t duration_s(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	return n * (*end == 'h' ? 3600 : *end == 'm' ? 60 : 1);
}

static void list_faults(void)
{
	for (const struct sim_fault_text *f = sim_fault_texts; f->name; f++)
		printf("%-20s %s\n", f->name, f->text);
	exit(EXIT_FINE);
}

static void list_mutants(void)
{
	for (const struct pool_mutant *m = mutant_list(); m->number; m++)
		printf("%3u  %s\n", m->number, m->text);
	exit(EXIT_FINE);
}

enum {
	OPT_SEED = 256,
	OPT_SEEDS,
	OPT_FOR,
	OPT_STATES,
	OPT_STATE,
	OPT_CLUSTER,
	OPT_WIRE,
	OPT_TELL,
	OPT_KEEP,
	OPT_HASH,
	OPT_EVENTS,
	OPT_MUTANTS,
	OPT_RARE,
	OPT_MUTANT,
	OPT_HINTS,
	OPT_LEARN,
	OPT_LIST_FAULTS,
	OPT_LIST_MUTANTS
};

static const struct option long_options[] = {
	{"seed", required_argument, NULL, OPT_SEED},
	{"seeds", required_argument, NULL, OPT_SEEDS},
	{"for", required_argument, NULL, OPT_FOR},
	{"states", required_argument, NULL, OPT_STATES},
	{"state", required_argument, NULL, OPT_STATE},
	{"cluster", no_argument, NULL, OPT_CLUSTER},
	{"wire", no_argument, NULL, OPT_WIRE},
	{"tell", no_argument, NULL, OPT_TELL},
	{"keep-going", no_argument, NULL, OPT_KEEP},
	{"events", required_argument, NULL, OPT_EVENTS},
	{"hash", no_argument, NULL, OPT_HASH},
	{"mutants", no_argument, NULL, OPT_MUTANTS},
	{"rare", no_argument, NULL, OPT_RARE},
	{"mutant", required_argument, NULL, OPT_MUTANT},
	{"hints", required_argument, NULL, OPT_HINTS},
	{"learn", no_argument, NULL, OPT_LEARN},
	{"list-faults", no_argument, NULL, OPT_LIST_FAULTS},
	{"list-mutants", no_argument, NULL, OPT_LIST_MUTANTS},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static void option_seeds(const char *text)
{
	char *end;
	options.first_seed = strtoull(text, &end, 10);
	options.last_seed = strncmp(end, "..", 2) == 0 ? strtoull(end + 2, NULL, 10) : options.first_seed;
}

static void option_for(const char *text)
{
	options.for_s = duration_s(text);
	options.first_seed = (uint64_t)time(NULL) * 1000000;
	options.last_seed = UINT64_MAX - 1;
}

static void option_take(int opt, const char *text)
{
	switch (opt) {
	case OPT_SEED:
	case OPT_SEEDS:
		option_seeds(text);
		break;
	case OPT_FOR:
		option_for(text);
		break;
	case OPT_STATES:
		options.states = (uint32_t)strtoul(text, NULL, 10);
		break;
	case OPT_STATE:
		options.only_state = strtoull(text, NULL, 10);
		break;
	case OPT_CLUSTER:
		options.cluster = true;
		break;
	case OPT_WIRE:
		options.wire = true;
		break;
	case OPT_TELL:
		options.tell = true;
		break;
	case 'j':
		options.workers = (uint32_t)strtoul(text, NULL, 10);
		break;
	case OPT_KEEP:
		options.keep_going = true;
		break;
	case OPT_EVENTS:
		run_event_lines = (uint32_t)strtoul(text, NULL, 10);
		break;
	case OPT_HASH:
		options.print_hash = true;
		break;
	case OPT_MUTANTS:
		options.mutants = true;
		break;
	case OPT_RARE:
		options.rare = true;
		break;
	case OPT_MUTANT:
		mutant_active = options.mutant = (uint32_t)strtoul(text, NULL, 10);
		break;
	case OPT_HINTS:
		options.hints = text;
		break;
	case OPT_LEARN:
		options.learn = true;
		break;
	case OPT_LIST_FAULTS:
		list_faults();
		break;
	case OPT_LIST_MUTANTS:
		list_mutants();
		break;
	default:
		usage(opt == 'h' ? stdout : stderr);
		exit(opt == 'h' ? EXIT_FINE : EXIT_USAGE);
	}
}

int main(int argc, char **argv)
{
	int opt;
	options = (struct options){.first_seed = 1, .last_seed = 200, .states = 100, .workers = 1};
	while ((opt = getopt_long(argc, argv, "hj:", long_options, NULL)) != -1)
		option_take(opt, optarg);
	if (optind < argc || options.workers == 0 || options.workers > WORKERS_MAX) {
		usage(stderr);
		return EXIT_USAGE;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return EXIT_DIED;
	/* A pool's caches are large and hardly used: fresh pages are cheaper than wiping old ones, a hundred thousand times. */
	mallopt(M_MMAP_THRESHOLD, 128 * KiB);
	run_progress = note_progress;
	if ((options.mutants || options.mutant) && !mutants_are_built) {
		fprintf(stderr, "oxbow-sim: built without mutants: use oxbow-sim-mutants\n");
		return EXIT_USAGE;
	}
	if (options.mutants)
		return run_mutants_with_hints();
	return run_seeds(true) ? EXIT_FINE : EXIT_FAILED;
}
