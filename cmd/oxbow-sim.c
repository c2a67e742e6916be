/* oxbow-sim: pools under a seed, crashed after every write, and clusters of them. See src/sim/pool_run.h and cluster_run.h for what a run is. */
#include "oxbow-sim.h"

#include "sim/pool_mutants.h"
#include "sim/pool_run.h"
#include "sim/sim.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

struct options options = {.first_seed = 1, .last_seed = 200, .states = 100, .workers = 1};

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

OX_PRINTF(1, 2) _Noreturn static void mistake(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "oxbow-sim: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\nhint: oxbow-sim --help\n");
	va_end(args);
	exit(EXIT_USAGE);
}

/* With `rest` something may follow, and is there. */
static uint64_t number(const char *text, const char **rest)
{
	char *end;
	errno = 0;
	uint64_t n = strtoull(text, &end, 10);
	if (end == text || *text == '-' || errno || (!rest && *end))
		mistake("\"%s\" is no number", text);
	if (rest)
		*rest = end;
	return n;
}

static void seeds_option(const char *text)
{
	const char *rest;
	options.first_seed = options.last_seed = number(text, &rest);
	if (strncmp(rest, "..", 2) == 0)
		options.last_seed = number(rest + 2, NULL);
	else if (*rest)
		mistake("\"%s\" is neither a seed nor FIRST..LAST", text);
	if (options.last_seed < options.first_seed)
		mistake("\"%s\": the last seed comes before the first", text);
}

static void for_option(const char *text)
{
	const char *unit;
	uint64_t n = number(text, &unit);
	static const struct {
		const char *name;
		uint32_t seconds;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}};
	for (size_t i = 0; i < ARRAY_COUNT(units); i++)
		if (strcmp(unit, units[i].name) == 0)
			options.for_s = n * units[i].seconds;
	if (options.for_s == 0)
		mistake("\"%s\" is no time (like 30s, 10m, 1h)", text);
	options.first_seed = (uint64_t)time(NULL) * 1000000;
	options.last_seed = UINT64_MAX - 1;
}

static void mutant_option(const char *text)
{
	mutant_active = options.mutant = (uint32_t)number(text, NULL);
}

static void faults_option(const char *text)
{
	(void)text;
	for (const struct sim_fault_text *f = sim_fault_texts; f->name; f++)
		printf("%-20s %s\n", f->name, f->text);
	exit(EXIT_FINE);
}

static void mutants_option(const char *text)
{
	(void)text;
	mutants_list();
	exit(EXIT_FINE);
}

static void help_option(const char *text)
{
	(void)text;
	usage(stdout);
	exit(EXIT_FINE);
}

/* What an option does with its value: the one of these that is there. */
static const struct option_row {
	const char *name;
	bool *flag; /* takes no value */
	const char **text;
	uint32_t *number;
	uint64_t *number64;
	void (*take)(const char *text);
	bool is_bare; /* `take` gets no value */
} rows[] = {
	{"seed", .take = seeds_option},
	{"seeds", .take = seeds_option},
	{"for", .take = for_option},
	{"states", .number = &options.states},
	{"state", .number64 = &options.only_state},
	{"cluster", .flag = &options.cluster},
	{"wire", .flag = &options.wire},
	{"tell", .flag = &options.tell},
	{"keep-going", .flag = &options.keep_going},
	{"events", .number = &run_event_lines},
	{"hash", .flag = &options.print_hash},
	{"mutants", .flag = &options.mutants},
	{"rare", .flag = &options.rare},
	{"mutant", .take = mutant_option},
	{"hints", .text = &options.hints},
	{"learn", .flag = &options.learn},
	{"list-faults", .take = faults_option, .is_bare = true},
	{"list-mutants", .take = mutants_option, .is_bare = true},
	{"help", .take = help_option, .is_bare = true},
};

static void option_take(const struct option_row *row, const char *text)
{
	if (row->flag)
		*row->flag = true;
	else if (row->text)
		*row->text = text;
	else if (row->number)
		*row->number = (uint32_t)number(text, NULL);
	else if (row->number64)
		*row->number64 = number(text, NULL);
	else
		row->take(text);
}

static void options_parse(int argc, char **argv)
{
	struct option table[ARRAY_COUNT(rows) + 1] = {{0}};
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		table[i] = (struct option){.name = rows[i].name,
					   .has_arg = rows[i].flag || rows[i].is_bare ? no_argument
										      : required_argument,
					   .val = 256 + (int)i};
	for (int opt; (opt = getopt_long(argc, argv, "hj:", table, NULL)) != -1;) {
		if (opt >= 256)
			option_take(&rows[opt - 256], optarg);
		else if (opt == 'j')
			options.workers = (uint32_t)number(optarg, NULL);
		else if (opt == 'h')
			help_option(NULL);
		else
			exit(EXIT_USAGE); /* getopt has said what is wrong */
	}
	if (optind < argc)
		mistake("\"%s\" is too much", argv[optind]);
	if (options.workers == 0 || options.workers > WORKERS_MAX)
		mistake("-j takes 1 to %u", WORKERS_MAX);
	if ((options.mutants || options.mutant) && !mutants_are_built)
		mistake("built without mutants: use oxbow-sim-mutants");
}

int main(int argc, char **argv)
{
	options_parse(argc, argv);
	if (!seeds_prepare())
		return EXIT_DIED;
	if (options.mutants)
		return mutants_run();
	return seeds_run(true) ? EXIT_FINE : EXIT_FAILED;
}
