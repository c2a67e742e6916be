/* pool_content_test.c: the rules by which values are allowed, each alone. */
#include "base/test.h"
#include "sim/pool_content.h"
#include "sim/pool_value.h"

#define KILL  NEVER    /* what a kill may leave: what is current */
#define POWER ANY_TIME /* what a power cut may leave: anything listed */

static uint64_t now;

static uint64_t begin(struct content *c, uint64_t tag)
{
	content_write_begin(c, 0, 1, tag, ++now);
	return now;
}

static void end(struct content *c, uint64_t submitted, enum content_answer answer)
{
	content_write_end(c, 0, 1, submitted, ++now, answer);
}

static void put(struct content *c, uint64_t tag, enum content_answer answer)
{
	end(c, begin(c, tag), answer);
}

TEST(a_value_says_who_it_is)
{
	uint8_t data[1024];
	char text[100];
	value_fill(data, 7, 2, value_tag(3, 17));
	CHECK(value_is(data, 7, value_tag(3, 17)) && value_is(data + 512, 8, value_tag(3, 17)));
	CHECK(!value_is(data, 8, value_tag(3, 17)) && !value_is(data, 7, value_tag(3, 18)));
	value_describe(data, text, sizeof(text));
	CHECK_STR(text, "version 17 of volume 3, sector 7");
	data[300] ^= 1;
	CHECK(!value_is(data, 7, value_tag(3, 17)));
	value_fill(data, 7, 1, 0);
	CHECK(value_is(data, 7, 0) && value_tag_of(data) == 0);
}

TEST(a_write_in_flight_may_be_there_or_not)
{
	struct content *c = content_new(8);
	uint64_t w = begin(c, 5);
	CHECK(content_allows(c, 0, 0, KILL) && content_allows(c, 0, 5, KILL));
	end(c, w, ANSWER_DONE);
	CHECK(!content_allows(c, 0, 0, KILL) && content_allows(c, 0, 5, KILL));
	CHECK(content_allows(c, 0, 0, POWER));
	content_free(c);
}

TEST(a_flush_makes_what_came_before_it_firm_and_no_more)
{
	struct content *c = content_new(8);
	put(c, 5, ANSWER_DONE);
	uint64_t flush = ++now;
	put(c, 6, ANSWER_DONE);
	content_flushed(c, flush, NEVER);
	CHECK(!content_allows(c, 0, 0, POWER) && content_allows(c, 0, 5, POWER));
	CHECK(content_allows(c, 0, 6, POWER) && !content_allows(c, 0, 5, KILL));
	content_free(c);
}

TEST(a_durable_write_strikes_out_what_was_done_before_it)
{
	struct content *c = content_new(8);
	put(c, 5, ANSWER_DONE);
	uint64_t racing = begin(c, 6);
	put(c, 7, ANSWER_DURABLE);
	CHECK(!content_allows(c, 0, 5, POWER) && content_allows(c, 0, 6, POWER));
	end(c, racing, ANSWER_DONE);
	CHECK(content_allows(c, 0, 6, KILL) && content_allows(c, 0, 7, KILL));
	now++;
	content_settle(c, 0, 7, now, now + 1);
	CHECK(!content_allows(c, 0, 6, KILL));
	content_free(c);
}

TEST(no_space_changes_nothing_and_an_error_may_have)
{
	struct content *c = content_new(8);
	put(c, 5, ANSWER_UNCHANGED);
	CHECK(!content_allows(c, 0, 5, POWER) && content_allows(c, 0, 0, KILL));
	put(c, 6, ANSWER_UNKNOWN);
	CHECK(content_allows(c, 0, 6, KILL) && content_allows(c, 0, 0, KILL));
	put(c, 7, ANSWER_DONE);
	CHECK(content_allows(c, 0, 7, KILL) && !content_allows(c, 0, 6, KILL));
	content_free(c);
}

TEST(a_read_may_see_what_was_current_while_it_ran)
{
	struct content *c = content_new(8);
	put(c, 5, ANSWER_DONE);
	uint64_t read = ++now;
	put(c, 6, ANSWER_DONE);
	CHECK(content_allows(c, 0, 5, read) && content_allows(c, 0, 6, read));
	CHECK(!content_allows(c, 0, 0, read) && !content_allows(c, 0, 5, ++now));
	content_flushed(c, now, read);
	CHECK(content_allows(c, 0, 5, read));
	content_free(c);
}

TEST(a_snapshot_holds_what_was_current_at_some_time_while_it_was_taken)
{
	struct content *c = content_new(8);
	put(c, 5, ANSWER_DONE);
	uint64_t taking = ++now;
	put(c, 6, ANSWER_DONE);
	struct content *s = content_snapshot(c, taking, ++now);
	CHECK(content_allows(s, 0, 5, KILL) && content_allows(s, 0, 6, KILL));
	CHECK(!content_allows(s, 0, 0, KILL) && content_allows(s, 0, 0, POWER));
	now++;
	content_settle(s, 0, 5, now, now + 1);
	CHECK(!content_allows(s, 0, 6, KILL));
	put(c, 7, ANSWER_DONE);
	CHECK(!content_allows(s, 0, 7, POWER));
	content_free(s);
	content_free(c);
}

TEST(a_block_is_shared_by_copies_that_nobody_wrote_to_since)
{
	struct content *c = content_new(16);
	put(c, 5, ANSWER_DURABLE);
	content_flushed(c, ++now, NEVER);
	uint64_t taking = ++now;
	struct content *s = content_snapshot(c, taking, ++now);
	CHECK(content_block_is_data(s, 0) && !content_block_may_be_data(s, 1));
	CHECK(content_block_is_shared(s, c, 0) && content_block_may_be_shared(s, c, 0));
	uint64_t w = begin(c, 6);
	CHECK(!content_block_is_shared(s, c, 0) && content_block_may_be_shared(s, c, 0));
	end(c, w, ANSWER_DURABLE);
	CHECK(!content_block_may_be_shared(s, c, 0));
	content_free(s);
	content_free(c);
}

TEST(of_a_block_written_while_a_snapshot_is_taken_nobody_knows_whether_it_is_shared)
{
	struct content *c = content_new(8);
	uint64_t taking = ++now;
	put(c, 5, ANSWER_DURABLE);
	struct content *s = content_snapshot(c, taking, ++now);
	CHECK(!content_block_is_data(s, 0)); /* old or new */
	now++;
	content_settle(s, 0, 5, now, now + 1);
	now += 2;
	content_flushed(s, now, NEVER);
	content_flushed(c, now, NEVER);
	CHECK(content_block_is_data(s, 0) && content_block_is_data(c, 0));
	CHECK(!content_block_is_shared(s, c, 0) && content_block_may_be_shared(s, c, 0));
	content_free(s);
	content_free(c);
}

TEST(a_write_under_way_when_a_snapshot_is_taken_is_in_it_or_came_after_it)
{
	struct content *c = content_new(8);
	uint64_t w = begin(c, 5), taking = ++now;
	struct content *s = content_snapshot(c, taking, ++now);
	CHECK(!content_block_is_untouched(c, 0, taking) && !content_block_is_untouched(s, 0, taking));
	end(c, w, ANSWER_DURABLE);
	CHECK(!content_block_is_shared(s, c, 0));
	taking = ++now;
	CHECK(content_block_is_untouched(c, 0, taking) && content_block_is_untouched(s, 0, taking));
	content_free(s);
	content_free(c);
}

TEST(contents_may_be_equal_where_they_have_a_current_value_in_common)
{
	struct content *c = content_new(8), *s;
	put(c, 5, ANSWER_DURABLE);
	uint64_t taking = ++now;
	s = content_snapshot(c, taking, ++now);
	CHECK(content_may_equal(c, s, 0, ++now));
	uint64_t w = begin(c, 6);
	CHECK(content_may_equal(c, s, 0, ++now));
	end(c, w, ANSWER_DONE);
	CHECK(!content_may_equal(c, s, 0, ++now));
	content_grow(c, 16);
	CHECK(content_may_equal(c, s, 12, now)); /* beyond the snapshot's end are zeroes */
	content_free(s);
	content_free(c);
}
