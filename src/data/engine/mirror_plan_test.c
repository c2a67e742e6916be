/* mirror_plan_test.c: what is next, fact by fact: each row of mirror_plan.h's table, and who goes before whom. */
#include "base/test.h"
#include "data/engine/mirror_plan.h"

#define GRACE_NS (2 * NS_PER_S)
#define NOW_NS	 (100 * NS_PER_S)

static struct view view;
static struct mirror_facts facts;

/* Three members that answer, of a view that is ours, settled and served. */
static void all_is_well(void)
{
	view = (struct view){.volume_id = {{1}}, .engine_id = {{2}}, .epoch = 7, .replica_count = 3};
	facts = (struct mirror_facts){.now_ns = NOW_NS,
				      .grace_ns = GRACE_NS,
				      .engine_id = {{2}},
				      .view_is_known = true,
				      .view = &view,
				      .seals_done = true,
				      .serves = true};
	for (uint8_t i = 0; i < 3; i++) {
		view.replicas[i] =
			(struct view_replica){.pool_id = {{(uint8_t)(10 + i)}}, .role = VIEW_MEMBER};
		facts.copies[i].session = MIRROR_OPEN;
	}
}

static void copy_is_absent(uint32_t i)
{
	view.replicas[i].role = VIEW_ABSENT;
	facts.copies[i].session = MIRROR_LOST;
}

static void copy_joins(uint32_t i)
{
	view.replicas[i].role = VIEW_JOINING;
	view.replicas[i].join_id = (struct uuid){{0x50}};
}

static void copy_silent(uint32_t i, uint64_t since_ns)
{
	facts.copies[i].session = MIRROR_LOST;
	facts.copies[i].silent_since_ns = since_ns;
}

static void wants(enum mirror_todo todo, uint32_t copies)
{
	struct mirror_step step = mirror_plan(&facts);
	CHECK_STR(mirror_todo_name(step.todo), mirror_todo_name(todo));
	CHECK_EQ(step.copies, copies);
}

TEST(when_all_is_well_there_is_nothing_to_do)
{
	all_is_well();
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 0);
	CHECK(step.until_ns == UINT64_MAX);
}

TEST(who_was_fenced_stops_whatever_else_is_true)
{
	all_is_well();
	facts.was_fenced = true;
	facts.view_is_known = false;
	wants(MIRROR_STOP, 0);
}

TEST(while_nobody_knows_what_the_last_swap_did_nothing_but_asking_is_done)
{
	all_is_well();
	facts.view_is_known = false;
	copy_silent(1, 0);
	wants(MIRROR_ASK, 0);
}

TEST(a_view_of_another_engine_is_claimed)
{
	all_is_well();
	view.engine_id = (struct uuid){{3}};
	wants(MIRROR_CLAIM, 0);
}

TEST(when_no_member_answers_the_volume_waits_for_all_of_them_however_long)
{
	all_is_well();
	for (uint32_t i = 0; i < 3; i++)
		copy_silent(i, 0);
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 7);
	CHECK(step.until_ns == UINT64_MAX);
}

TEST(a_silent_member_is_waited_for_until_its_grace_ends)
{
	all_is_well();
	copy_silent(1, NOW_NS - GRACE_NS + 1);
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 2);
	CHECK(step.until_ns == NOW_NS + 1);
	facts.now_ns++;
	wants(MIRROR_PUT_OUT, 2);
}

TEST(the_last_member_that_answers_is_never_put_out)
{
	all_is_well();
	copy_silent(0, 0);
	copy_silent(1, 0);
	facts.copies[2].failed = true;
	wants(MIRROR_PUT_OUT, 3);
}

TEST(a_member_that_failed_is_put_out_while_another_is_left)
{
	all_is_well();
	facts.copies[2].failed = true;
	wants(MIRROR_PUT_OUT, 4);
	copy_is_absent(0);
	copy_is_absent(1);
	wants(MIRROR_WAIT, 0);
}

TEST(a_joining_copy_that_failed_goes_even_when_the_only_member_has_failed_too)
{
	all_is_well();
	copy_is_absent(0);
	copy_joins(1);
	facts.copies[1].failed = facts.copies[2].failed = true;
	wants(MIRROR_PUT_OUT, 2);
}

TEST(members_that_may_lack_something_wait_for_one_that_does_not_answer_however_long)
{
	all_is_well();
	facts.copies[0].may_lack = facts.copies[2].may_lack = true;
	copy_silent(1, 0);
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 2);
	CHECK(step.until_ns == UINT64_MAX);
	facts.copies[2].may_lack = false;
	wants(MIRROR_PUT_OUT, 2);
}

TEST(when_all_members_answer_and_all_may_lack_something_each_is_as_good_as_any)
{
	all_is_well();
	for (uint32_t i = 0; i < 3; i++)
		facts.copies[i].may_lack = true;
	facts.serves = false;
	wants(MIRROR_SERVE, 0);
	facts.copies[1].failed = true;
	wants(MIRROR_PUT_OUT, 2);
}

TEST(an_absent_copy_is_not_waited_for_when_the_members_may_lack_something)
{
	all_is_well();
	facts.copies[0].may_lack = facts.copies[2].may_lack = true;
	facts.serves = false;
	copy_is_absent(1);
	wants(MIRROR_SERVE, 0);
}

TEST(a_member_that_may_lack_something_is_put_out_when_it_is_silent_like_any)
{
	all_is_well();
	facts.copies[1].may_lack = true;
	copy_silent(1, 0);
	wants(MIRROR_PUT_OUT, 2);
}

TEST(the_only_member_that_has_everything_is_not_put_out_though_it_has_failed)
{
	all_is_well();
	facts.copies[0].failed = true;
	facts.copies[1].may_lack = facts.copies[2].may_lack = true;
	wants(MIRROR_WAIT, 0);
	facts.copies[1].may_lack = false;
	wants(MIRROR_PUT_OUT, 1);
}

TEST(a_silent_member_is_put_out_when_one_that_failed_has_everything)
{
	all_is_well();
	facts.copies[0].failed = true;
	facts.copies[2].may_lack = true;
	copy_silent(1, 0);
	wants(MIRROR_PUT_OUT, 2);
}

TEST(an_absent_copy_that_does_not_answer_keeps_nobody_waiting)
{
	all_is_well();
	copy_is_absent(0);
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 0);
}

TEST(nothing_is_served_before_the_seals_of_the_view_are_done)
{
	all_is_well();
	view.seal_count = 1;
	facts.seals_done = facts.serves = false;
	wants(MIRROR_SEAL, 0);
	facts.seals_done = true;
	wants(MIRROR_SERVE, 0);
	facts.serves = true;
	wants(MIRROR_TIDY, 0);
}

TEST(a_revert_is_done_before_anything_is_sealed_and_before_the_lease_of_another_is_over)
{
	all_is_well();
	view.seal_count = 1;
	view.must_wait = true;
	facts.wait_until_ns = NOW_NS + 5;
	view.revert_layer_id = view.revert_head_id = (struct uuid){{9}};
	facts.seals_done = facts.serves = false;
	wants(MIRROR_REVERT, 0);
	view.revert_layer_id = (struct uuid){0};
	wants(MIRROR_SEAL, 0);
}

TEST(a_revert_waits_for_a_member_that_is_silent_until_it_is_out)
{
	all_is_well();
	view.revert_layer_id = view.revert_head_id = (struct uuid){{9}};
	copy_silent(0, NOW_NS - 1);
	wants(MIRROR_WAIT, 0);
	facts.now_ns += GRACE_NS;
	wants(MIRROR_PUT_OUT, 1);
	copy_is_absent(0);
	wants(MIRROR_REVERT, 0);
}

TEST(sealing_waits_for_a_copy_in_the_view_that_is_silent)
{
	all_is_well();
	view.seal_count = 1;
	facts.seals_done = facts.serves = false;
	copy_silent(0, NOW_NS);
	wants(MIRROR_WAIT, 0);
}

TEST(an_older_engine_s_lease_is_waited_out_before_the_first_request)
{
	all_is_well();
	view.must_wait = true;
	facts.serves = false;
	facts.wait_until_ns = NOW_NS + 5;
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK(step.until_ns == NOW_NS + 5);
	facts.now_ns += 5;
	wants(MIRROR_SERVE, 0);
	facts.serves = true;
	wants(MIRROR_TIDY, 0);
}

TEST(a_joining_copy_with_its_chain_is_admitted_and_before_any_order)
{
	all_is_well();
	copy_joins(1);
	facts.has_order = true;
	wants(MIRROR_ORDER, 0);
	facts.copies[1].has_chain = true;
	wants(MIRROR_ADMIT, 2);
}

TEST(an_absent_copy_that_answers_joins_when_its_turn_has_come)
{
	all_is_well();
	copy_is_absent(0);
	facts.copies[0] = (struct mirror_copy_facts){
		.session = MIRROR_OPEN, .may_join = true, .join_not_before_ns = NOW_NS + 9};
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK(step.until_ns == NOW_NS + 9);
	facts.now_ns += 9;
	wants(MIRROR_JOIN, 1);
}

TEST(nobody_joins_and_nothing_is_ordered_while_a_request_is_half_done)
{
	all_is_well();
	copy_is_absent(0);
	facts.copies[0] = (struct mirror_copy_facts){.session = MIRROR_OPEN, .may_join = true};
	facts.has_order = facts.has_unfinished = true;
	wants(MIRROR_WAIT, 0);
}

static void salvage_ordered(uint32_t i)
{
	facts.has_salvage = true;
	facts.salvage = 1u << i;
}

TEST(salvage_is_refused_while_members_that_answer_have_all_there_is)
{
	all_is_well();
	salvage_ordered(0);
	wants(MIRROR_SALVAGE, 1);
	CHECK_ERR(mirror_salvage_check(&facts), OXE_EXISTS);
	copy_silent(1, 0);
	facts.copies[0].may_lack = true;
	CHECK_ERR(mirror_salvage_check(&facts), OXE_EXISTS); /* the third has it */
	copy_is_absent(1);
	facts.copies[2].may_lack = true;
	CHECK_ERR(mirror_salvage_check(&facts), OXE_EXISTS); /* all are here: each is as good as any */
}

TEST(salvage_goes_on_with_a_member_that_may_lack_something_when_the_sure_one_is_silent)
{
	all_is_well();
	facts.copies[0].may_lack = facts.copies[2].may_lack = true;
	copy_silent(1, 0);
	salvage_ordered(2);
	wants(MIRROR_SALVAGE, 4);
	CHECK_OK(mirror_salvage_check(&facts));
}

TEST(salvage_goes_on_with_a_copy_that_is_no_member_when_no_member_answers)
{
	all_is_well();
	for (uint32_t i = 0; i < 3; i++)
		copy_silent(i, 0);
	copy_is_absent(2);
	salvage_ordered(2);
	wants(MIRROR_SALVAGE, 4);
	CHECK_ERR(mirror_salvage_check(&facts), OXE_NOTREADY);
	facts.copies[2].session = MIRROR_OPEN;
	CHECK_OK(mirror_salvage_check(&facts));
	facts.copies[2].is_partial = true;
	CHECK_ERR(mirror_salvage_check(&facts), OXE_BUSY);
	facts.copies[2].is_empty = true;
	CHECK_ERR(mirror_salvage_check(&facts), OXE_NOENT);
}

TEST(salvage_waits_for_a_member_that_has_just_fallen_silent_until_its_grace_ends)
{
	all_is_well();
	facts.copies[0].may_lack = facts.copies[2].may_lack = true;
	copy_silent(1, NOW_NS - GRACE_NS + 1);
	salvage_ordered(0);
	struct mirror_step step = mirror_plan(&facts);
	CHECK_EQ(step.todo, MIRROR_WAIT);
	CHECK_EQ(step.awaited, 2);
	CHECK(step.until_ns == NOW_NS + 1);
	facts.now_ns++;
	wants(MIRROR_SALVAGE, 1);
}

TEST(salvage_of_a_pool_that_has_no_copy_is_answered_at_once)
{
	all_is_well();
	copy_silent(1, NOW_NS);
	facts.has_salvage = true;
	wants(MIRROR_SALVAGE, 0);
	CHECK_ERR(mirror_salvage_check(&facts), OXE_NOENT);
}

TEST(a_salvage_does_not_go_before_the_outcome_of_a_swap_is_known_or_the_view_is_ours)
{
	all_is_well();
	salvage_ordered(0);
	facts.view_is_known = false;
	wants(MIRROR_ASK, 0);
	facts.view_is_known = true;
	view.engine_id = (struct uuid){{3}};
	wants(MIRROR_CLAIM, 0);
}

/* Every combination of roles, sessions, failures and lacks of three copies: whatever is put out, a member that answers is left, and one that has
 * everything while there is any that may; and a step is never taken on a copy that does not answer. */
static void combination(uint32_t number)
{
	uint32_t members_left = 0, have_left = 0, may_have = 0;
	all_is_well();
	for (uint32_t i = 0; i < 3; i++, number /= 24) {
		view.replicas[i].role = VIEW_MEMBER + number % 3;
		facts.copies[i].session = number / 3 % 2 ? MIRROR_OPEN : MIRROR_LOST;
		facts.copies[i].failed = number / 6 % 2;
		facts.copies[i].may_lack = number / 12 % 2;
		facts.copies[i].has_chain = facts.copies[i].may_join = true;
	}
	struct mirror_step step = mirror_plan(&facts);
	for (uint32_t i = 0; i < 3; i++) {
		bool open = facts.copies[i].session == MIRROR_OPEN, chosen = step.copies >> i & 1,
		     is_member = view.replicas[i].role == VIEW_MEMBER;
		members_left += is_member && open && !chosen;
		have_left += is_member && open && !chosen && !facts.copies[i].may_lack;
		may_have += is_member && (!open || !facts.copies[i].may_lack);
		CHECK(!chosen || step.todo == MIRROR_PUT_OUT || open);
		CHECK(!chosen || step.todo != MIRROR_PUT_OUT || view.replicas[i].role != VIEW_ABSENT);
	}
	CHECK(step.todo != MIRROR_PUT_OUT || members_left > 0);
	CHECK(step.todo != MIRROR_PUT_OUT || have_left > 0 || !may_have);
	CHECK(step.todo != MIRROR_SERVE || have_left > 0 || !may_have);
}

TEST(a_member_that_answers_is_left_in_every_case_and_one_that_has_everything_if_there_is_any)
{
	for (uint32_t number = 0; number < 24 * 24 * 24; number++)
		combination(number);
}
