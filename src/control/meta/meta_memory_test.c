/* meta_memory_test.c: the memory form keeps the contract, and no fault of the network breaks what it promises. */
#include "base/test.h"
#include "control/meta/meta_linear_contract.h"
#include "control/meta/meta_memory_contract.h"

#include <stdio.h>

TEST(the_memory_form_keeps_the_contract)
{
	for (uint64_t seed = 1; seed <= 6; seed++)
		memory_run_contracts(seed);
}

TEST(under_every_fault_a_key_is_one_register)
{
	unsigned unknown = 0, more;
	for (uint64_t seed = 1; seed <= 2000; seed++, unknown += more)
		memory_run_registers(seed, &more);
	printf("   %u outcomes were unknown\n", unknown);
	CHECK(unknown > 2000);
}

TEST(the_same_seed_is_the_same_run)
{
	unsigned unknown;
	for (uint64_t seed = 1; seed <= 20; seed++)
		CHECK(memory_run_registers(seed, &unknown) == memory_run_registers(seed, &unknown));
	CHECK(memory_run_registers(1, &unknown) != memory_run_registers(3, &unknown));
}

TEST(under_every_fault_a_watch_sees_what_happened)
{
	unsigned cuts = 0;
	for (uint64_t seed = 1; seed <= 2000; seed++)
		cuts += memory_run_watches(seed);
	printf("   %u partitions\n", cuts);
	CHECK(cuts > 2000);
}

TEST(no_two_are_ever_sure_to_hold_one_lease)
{
	unsigned taken = 0;
	for (uint64_t seed = 1; seed <= 2000; seed++)
		taken += memory_run_locks(seed);
	printf("   taken %u times\n", taken);
	CHECK(taken > 10000);
}

/* ---- the checker itself ------------------------------------------------------------------------------------------------ */

TEST(the_checker_takes_what_one_register_could_answer)
{
	/* Two swaps that overlap, a doubt that came true late, and a read between. */
	struct linear_op ops[] = {
		{LINEAR_SWAP, 0, 1, 10, 20},	  {LINEAR_DIFFERS, 0, 2, 15, 25},
		{LINEAR_UNKNOWN, 1, 3, 30, 35},	  {LINEAR_READ, 0, 1, 40, 50},
		{LINEAR_READ, 0, 3, 60, 70},	  {LINEAR_OR_NOT, 3, 4, 80, 90},
		{LINEAR_UNKNOWN, 9, 5, 100, 110}, {LINEAR_READ, 0, 3, 120, 130},
	};
	CHECK(linear_check(ops, ARRAY_COUNT(ops)));
	CHECK(linear_check(ops, 0));
}

static bool pair_fits(struct linear_op a, struct linear_op b, struct linear_op c)
{
	struct linear_op ops[] = {a, b, c};
	return linear_check(ops, ARRAY_COUNT(ops));
}

TEST(the_checker_refuses_what_no_register_would_answer)
{
	const struct linear_op write = {LINEAR_SWAP, 0, 1, 10, 20}, second = {LINEAR_SWAP, 1, 2, 30, 40};
	CHECK(pair_fits(write, second, (struct linear_op){LINEAR_READ, 0, 2, 50, 60}));
	CHECK(pair_fits(write, second, (struct linear_op){LINEAR_READ, 0, 1, 35, 60}));
	CHECK(!pair_fits(write, second, (struct linear_op){LINEAR_READ, 0, 1, 50, 60}));    /* old */
	CHECK(!pair_fits(write, second, (struct linear_op){LINEAR_READ, 0, 0, 50, 60}));    /* lost */
	CHECK(!pair_fits(write, second, (struct linear_op){LINEAR_SWAP, 1, 3, 32, 45}));    /* two won */
	CHECK(!pair_fits(write, second, (struct linear_op){LINEAR_DIFFERS, 2, 3, 50, 60})); /* it did not */
	/* What was over is not done later; what was unknown may be. */
	const struct linear_op read_1 = {LINEAR_READ, 0, 1, 50, 60}, read_2 = {LINEAR_READ, 0, 2, 70, 80};
	struct linear_op late[] = {write, {LINEAR_OR_NOT, 1, 2, 30, 40}, read_1, read_2};
	CHECK(!linear_check(late, 4));
	late[1].kind = LINEAR_UNKNOWN;
	CHECK(linear_check(late, 4));
}
