/*
 * meta_mutants_test.c: the tests of the metastore notice bugs: each one planted (META_MUTANT in meta_form.h), in a process of its own,
 * which must die of a broken promise.
 */
#include "base/test.h"
#include "control/meta/meta_form.h"
#include "control/meta/meta_memory_contract.h"
#include "control/meta/meta_sqlite_contract.h"
#include "control/meta/sqlite_disk_double.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEEDS 300u

static void run_all(void)
{
	unsigned unknown;
	for (uint64_t seed = 1; seed <= 3; seed++)
		memory_run_contracts(seed);
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		memory_run_registers(seed, &unknown);
	for (uint64_t seed = 1; seed <= SEEDS / 5; seed++) {
		memory_run_watches(seed);
		memory_run_locks(seed);
	}
}

/* Which of the three kinds of runs, alone, must notice it. */
static void run_registers(void)
{
	unsigned unknown;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		memory_run_registers(seed, &unknown);
}

static void run_watches(void)
{
	for (uint64_t seed = 1; seed <= SEEDS / 5; seed++)
		memory_run_watches(seed);
}

static void run_locks(void)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		memory_run_locks(seed);
}

static void run_power_cuts(void)
{
	sqlite_run_power_cuts(1, false);
}

/* Its words, as far as they fit; the status it ended with. */
static int run_in_child(enum meta_mutant mutant, void (*run)(void), char *said, size_t said_size_bytes)
{
	int ends[2], status;
	CHECK_EQ(pipe(ends), 0);
	fflush(NULL);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		dup2(ends[1], STDOUT_FILENO);
		meta_mutant_active = mutant;
		run();
		_exit(0);
	}
	close(ends[1]);
	size_t len_bytes = 0;
	for (ssize_t n = 1; n > 0; len_bytes += n > 0 ? (size_t)n : 0)
		n = read(ends[0], said + len_bytes, said_size_bytes - 1 - len_bytes);
	said[len_bytes] = '\0';
	close(ends[0]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static void check_caught(enum meta_mutant mutant, const char *text, void (*run)(void))
{
	char said[2048];
	int status = run_in_child(mutant, run, said, sizeof(said));
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
		test_fail(__FILE__, __LINE__, "nobody noticed: %s (status %d)", text, status);
	const char *where = strstr(said, "\n  ");
	printf("   %s:%.*s\n", text, where ? (int)strcspn(where + 2, "\n") : 0, where ? where + 2 : "");
}

TEST(without_a_bug_the_same_runs_pass)
{
	char said[2048];
	CHECK_EQ(run_in_child(META_NO_MUTANT, run_all, said, sizeof(said)), 0);
}

TEST(bugs_of_watches_are_noticed)
{
	check_caught(META_MUTANT_WATCH_SKIPS, "a watch that was cut goes on with what is new", run_watches);
	check_caught(META_MUTANT_WATCH_REPEATS, "a watch that was cut repeats the last change", run_watches);
	check_caught(META_MUTANT_WATCH_GAP, "a watch is not told of compaction", run_all);
	check_caught(META_MUTANT_WATCH_SPLITS, "the changes of one revision come apart", run_all);
}

TEST(bugs_of_swaps_and_transactions_are_noticed)
{
	check_caught(META_MUTANT_COMPARES_VALUE, "a compare looks at the value", run_all);
	check_caught(META_MUTANT_COMPARES_FIRST, "only the first compare counts", run_all);
	check_caught(META_MUTANT_TXN_TEARS, "a write is done before the last compare", run_all);
}

TEST(bugs_of_leases_are_noticed)
{
	check_caught(META_MUTANT_LEASE_KEEPS_KEYS, "a lease ends and its keys stay", run_all);
	check_caught(META_MUTANT_LEASE_STICKS, "a key put without its lease vanishes with it", run_all);
	check_caught(META_MUTANT_LEASE_IS_SHORT, "a lease ends before its holder must stop", run_locks);
}

TEST(bugs_of_unknown_outcomes_are_noticed)
{
	check_caught(META_MUTANT_DOUBT_IS_NO, "in doubt and not there counts as not done", run_registers);
	check_caught(META_MUTANT_DOUBT_IS_YES, "in doubt counts as done", run_registers);
}

TEST(bugs_of_reads_and_history_are_noticed)
{
	check_caught(META_MUTANT_PAGE_IS_NEW, "the second page is of now", run_all);
	check_caught(META_MUTANT_READ_IS_OLD, "reads are answered from the past", run_registers);
	check_caught(META_MUTANT_COMPACTS_LIVE, "compaction forgets what is current", run_registers);
}

static int name_remove(const char *name, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(name);
}

/* Who dies does not tidy up. */
TEST(bugs_of_the_sqlite_form_are_noticed)
{
	char folder[64];
	sqlite_disk_folder_new(folder, sizeof(folder));
	sqlite_disk_parent = folder;
	check_caught(META_MUTANT_NO_SYNC, "a write is answered before the disk has it", run_power_cuts);
	check_caught(META_MUTANT_LEASE_FORGOTTEN, "a start knows nothing of leases",
		     sqlite_run_lease_restart);
	CHECK_EQ(nftw(folder, name_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}
