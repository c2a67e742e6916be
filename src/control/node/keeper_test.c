/* keeper_test.c: the policy never loops hot and never gives up. */
#include "control/node/keeper.h"

#include "base/prng.h"
#include "base/test.h"

TEST(a_new_pool_is_opened_at_once)
{
	struct keeper k = {0};
	CHECK_EQ(keeper_step(&k, KEEPER_TICK, 0, 0), KEEPER_OPEN);
	CHECK_EQ(keeper_step(&k, KEEPER_TICK, 1, 0), KEEPER_REST);
	CHECK_EQ(keeper_step(&k, KEEPER_OPENED, 2, 0), KEEPER_REST);
	CHECK_EQ(k.state, KEEPER_IS_OPEN);
}

TEST(refusals_back_off_to_a_minute_and_no_further)
{
	struct keeper k = {0};
	uint64_t now_ns = 0;
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(keeper_step(&k, KEEPER_TICK, now_ns, i), KEEPER_OPEN);
		keeper_step(&k, KEEPER_REFUSED, now_ns, i * 7919);
		uint64_t wait_ns = k.due_ns - now_ns;
		uint64_t wanted_ns = i < 6 ? KEEPER_BACKOFF_MIN_NS << i : KEEPER_BACKOFF_MAX_NS;
		CHECK(wait_ns >= wanted_ns * 3 / 4 && wait_ns <= wanted_ns * 5 / 4);
		CHECK_EQ(keeper_step(&k, KEEPER_TICK, k.due_ns - 1, 0), KEEPER_REST);
		now_ns = k.due_ns;
	}
}

TEST(a_person_may_ask_for_an_attempt_now)
{
	struct keeper k = {0};
	keeper_step(&k, KEEPER_TICK, 0, 0);
	keeper_step(&k, KEEPER_REFUSED, 0, 0);
	CHECK_EQ(keeper_step(&k, KEEPER_POKE, 1, 0), KEEPER_OPEN);
}

TEST(a_pool_that_opens_and_fails_at_once_waits_longer_each_time)
{
	struct keeper k = {0};
	uint64_t now_ns = 0, last_wait_ns = 0;
	for (unsigned i = 0; i < 6; i++) {
		CHECK_EQ(keeper_step(&k, KEEPER_TICK, now_ns, 0), KEEPER_OPEN);
		keeper_step(&k, KEEPER_OPENED, now_ns, 0);
		CHECK_EQ(keeper_step(&k, KEEPER_FAILED, now_ns + 1, 0), KEEPER_CLOSE);
		keeper_step(&k, KEEPER_CLOSED, now_ns + 1, 0);
		CHECK(k.due_ns - now_ns > last_wait_ns);
		last_wait_ns = k.due_ns - now_ns;
		now_ns = k.due_ns;
	}
}

TEST(a_minute_of_steady_service_is_a_clean_slate)
{
	struct keeper k = {.state = KEEPER_IS_OPEN, .failures = 9, .opened_ns = 5};
	keeper_step(&k, KEEPER_FAILED, 5 + KEEPER_STEADY_NS, 0);
	CHECK_EQ(k.failures, 1);
}

TEST(a_failed_pool_held_by_clients_is_looked_at_once_a_second)
{
	struct keeper k = {.state = KEEPER_IS_OPEN};
	CHECK_EQ(keeper_step(&k, KEEPER_FAILED, 10, 0), KEEPER_CLOSE);
	keeper_step(&k, KEEPER_HELD, 10, 0);
	CHECK_EQ(keeper_step(&k, KEEPER_TICK, 10 + KEEPER_HELD_NS - 1, 0), KEEPER_REST);
	CHECK_EQ(keeper_step(&k, KEEPER_TICK, 10 + KEEPER_HELD_NS, 0), KEEPER_CLOSE);
	CHECK_EQ(k.state, KEEPER_CLOSING);
}

TEST(no_sequence_of_events_makes_more_than_one_attempt_in_its_wait)
{
	struct prng rng;
	prng_seed(&rng, 7);
	struct keeper k = {0};
	uint64_t now_ns = 0, attempts = 0;
	for (unsigned i = 0; i < 100000; i++) {
		now_ns += prng_below(&rng, 10 * NS_PER_MS);
		enum keeper_event event = (enum keeper_event)prng_below(&rng, 7);
		if (event == KEEPER_POKE)
			continue;
		attempts += keeper_step(&k, event, now_ns, prng_u64(&rng)) == KEEPER_OPEN;
	}
	CHECK(attempts > 5 && attempts < now_ns / (KEEPER_BACKOFF_MIN_NS * 3 / 4) + 2);
}

TEST(a_disk_that_is_taken_is_looked_at_again_soon_but_not_for_ever)
{
	struct keeper k = {0};
	uint64_t now_ns = 0;
	for (unsigned i = 0; i < KEEPER_TAKEN_MAX; i++) {
		CHECK_EQ(keeper_step(&k, KEEPER_TICK, now_ns, 0), KEEPER_OPEN);
		keeper_step(&k, KEEPER_TAKEN, now_ns, 0);
		CHECK_EQ(k.due_ns - now_ns, KEEPER_TAKEN_NS);
		now_ns = k.due_ns;
	}
	CHECK_EQ(keeper_step(&k, KEEPER_TICK, now_ns, 0), KEEPER_OPEN);
	keeper_step(&k, KEEPER_TAKEN, now_ns, 0);
	CHECK(k.due_ns - now_ns >= KEEPER_BACKOFF_MIN_NS * 3 / 4);
	CHECK_EQ(k.failures, 1);
}
