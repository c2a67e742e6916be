/* sim_mutants.c: bugs planted in the store and in the mirror, one at a time, each to be caught by a seed. See base/mutant.h. */
#include "oxbow-sim.h"

#include "sim/cluster_mutants.h"
#include "sim/pool_mutants.h"
#include "sim/pool_run.h"
#include "sim_hints.h"

#include <errno.h>
#include <stdio.h>

#ifdef OXBOW_MUTANTS
const bool mutants_are_built = true;
#else
const bool mutants_are_built = false;
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
	bool caught = !seeds_run(false);
	options.first_seed = first_seed;
	return caught;
}

static bool search_finds(void)
{
	if (options.cluster) {
		options.last_seed = options.first_seed + CLUSTER_MUTANT_SEEDS - 1;
		return !seeds_run(false);
	}
	for (size_t i = 0; i < ARRAY_COUNT(mutant_passes); i++) {
		options.last_seed = options.first_seed + mutant_passes[i].seeds - 1;
		options.states = mutant_passes[i].states;
		if (!seeds_run(false))
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

int mutants_run(void)
{
	uint32_t line = 0;
	int err = options.hints ? sim_hints_load(options.hints, &line) : 0;
	if (err)
		return hints_bad(err, line);
	int status = run_mutants(options.rare);
	err = options.hints && options.learn ? sim_hints_save(options.hints) : 0;
	return err ? hints_bad(err, 0) : status;
}

void mutants_list(void)
{
	for (const struct pool_mutant *m = mutant_list(); m->number; m++)
		printf("%3u  %s\n", m->number, m->text);
}
