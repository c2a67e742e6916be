/* cluster_history_test.c: the checker of clusters sees what it is there to see. */
#include "base/test.h"
#include "sim/cluster_history.h"

static struct history *h;
static char why[400];

static bool reads(uint64_t asked, uint64_t sector, uint64_t value)
{
	uint8_t data[HISTORY_SECTOR_BYTES];
	history_fill(data, value, sector);
	return history_read_end(h, asked, sector, 1, data, why, sizeof(why));
}

static void writes(uint64_t sector, uint64_t value, bool acknowledged)
{
	struct history_write w;
	history_write_begin(h, &w, sector, 1, value);
	history_write_end(h, &w, acknowledged);
}

static void begin(void)
{
	h = history_new(16);
}

static void end(void)
{
	history_free(h);
}

TEST(what_nobody_wrote_reads_as_zeroes_and_nothing_else)
{
	begin();
	CHECK(reads(history_now(h), 3, 0));
	CHECK(!reads(history_now(h), 3, 9));
	end();
}

TEST(an_acknowledged_write_hides_what_was_before_it)
{
	begin();
	writes(3, 1, true);
	writes(3, 2, true);
	CHECK(!reads(history_now(h), 3, 1));
	CHECK(!reads(history_now(h), 3, 0));
	CHECK(reads(history_now(h), 3, 2));
	end();
}

TEST(a_read_that_was_asked_before_a_write_ended_may_see_either)
{
	begin();
	uint64_t asked = history_now(h);
	writes(3, 1, true);
	CHECK(reads(asked, 3, 0));
	CHECK(reads(asked, 3, 1));
	end();
}

TEST(an_unknown_outcome_is_possible_until_a_read_settles_it_and_then_never_flips)
{
	begin();
	writes(3, 1, true);
	writes(3, 2, false);
	CHECK(reads(history_now(h), 3, 1));
	CHECK(!reads(history_now(h), 3, 2));
	writes(3, 3, false);
	CHECK(reads(history_now(h), 3, 3));
	CHECK(!reads(history_now(h), 3, 1));
	end();
}

TEST(an_unknown_outcome_is_over_when_a_later_write_is_acknowledged)
{
	begin();
	writes(3, 1, false);
	writes(3, 2, true);
	CHECK(!reads(history_now(h), 3, 1));
	end();
}

TEST(two_writes_at_once_may_end_in_either_order)
{
	struct history_write a, b;
	begin();
	history_write_begin(h, &a, 3, 1, 1);
	history_write_begin(h, &b, 3, 1, 2);
	history_write_end(h, &b, true);
	history_write_end(h, &a, true);
	CHECK(reads(history_now(h), 3, 2));
	CHECK(!reads(history_now(h), 3, 1));
	end();
}

TEST(a_loss_of_power_takes_what_was_not_flushed_and_nothing_more)
{
	begin();
	writes(3, 1, true);
	uint64_t asked = history_now(h);
	history_flush_end(h, asked);
	writes(3, 2, true);
	CHECK(reads(history_now(h), 3, 2));
	history_power_loss(h);
	CHECK(!reads(history_now(h), 3, 0));
	CHECK(reads(history_now(h), 3, 1));
	CHECK(!reads(history_now(h), 3, 2));
	end();
}

TEST(a_sector_of_another_place_is_garbage)
{
	uint8_t data[HISTORY_SECTOR_BYTES];
	begin();
	writes(3, 1, true);
	history_fill(data, 1, 4);
	CHECK(!history_read_end(h, history_now(h), 3, 1, data, why, sizeof(why)));
	end();
}

static bool image_holds(struct history_image *image, uint64_t value)
{
	uint8_t data[2 * HISTORY_SECTOR_BYTES];
	history_fill(data, value, 3);
	history_fill(data + HISTORY_SECTOR_BYTES, 0, 4);
	return history_image_check(image, 3, 2, data, why, sizeof(why));
}

/* Sector 3 was 1, or while it was asked for became 2. */
static struct history_image *image_make(void)
{
	writes(3, 1, true);
	uint64_t asked = history_now(h);
	writes(3, 2, true);
	struct history_image *image = history_image_new(h, asked);
	writes(3, 4, true);
	return image;
}

TEST(a_snapshot_holds_what_could_be_read_when_it_was_asked_for_and_then_what_it_was_found_to_hold)
{
	for (uint64_t value = 1; value <= 2; value++) {
		begin();
		struct history_image *image = image_make();
		CHECK(!image_holds(image, 0));
		CHECK(!image_holds(image, 4));
		CHECK(image_holds(image, value));
		CHECK(!image_holds(image, 3 - value));
		CHECK(image_holds(image, value));
		history_image_free(image);
		end();
	}
}

TEST(after_going_back_there_is_what_the_snapshot_holds_and_zeroes_where_nothing_was)
{
	struct history_write w;
	begin();
	struct history_image *image = image_make();
	writes(5, 7, true);
	history_revert_begin(h, &w, image);
	writes(6, 8, true); /* before it, or after it */
	history_revert_end(h, &w, true);
	CHECK(!reads(history_now(h), 3, 4));
	CHECK(reads(history_now(h), 3, 2));
	CHECK(!reads(history_now(h), 3, 1));
	CHECK(!reads(history_now(h), 5, 7));
	CHECK(reads(history_now(h), 5, 0));
	CHECK(reads(history_now(h), 6, 8));
	history_power_loss(h);
	CHECK(!reads(history_now(h), 5, 7));
	history_image_free(image);
	end();
}

TEST(a_revert_whose_outcome_nobody_knows_may_have_been_or_not_until_a_read_settles_it)
{
	struct history_write w;
	begin();
	struct history_image *image = image_make();
	history_revert_begin(h, &w, image);
	history_revert_end(h, &w, false);
	CHECK(reads(history_now(h), 3, 4));
	CHECK(!reads(history_now(h), 3, 1));
	history_image_free(image);
	end();
}
