/* view_test.c: a view is what its bytes say, and bytes that are no view are refused. */
#include "base/crc32c.h"
#include "base/test.h"
#include "data/engine/view.h"
#include "data/engine/view_format.h"

static struct view view, again;
static uint8_t bytes[VIEW_BYTES_MAX];

static void view_make(void)
{
	view = (struct view){.volume_id = {{1}},
			     .engine_id = {{2}},
			     .epoch = 7,
			     .must_wait = true,
			     .seal_count = 2,
			     .replica_count = 3};
	view.seals[0] = (struct uuid){{0x61}};
	view.seals[1] = (struct uuid){{0x62}};
	view.replicas[0] = (struct view_replica){.pool_id = {{10}}, .role = VIEW_MEMBER};
	view.replicas[1] = (struct view_replica){.pool_id = {{11}},
						 .role = VIEW_JOINING,
						 .join_id = {{0x62}},
						 .seal_id = {{0x63}},
						 .missed_shift = 20};
	view.replicas[2] = (struct view_replica){
		.pool_id = {{12}}, .role = VIEW_ABSENT, .seal_id = {{0x61}}, .missed_shift = 22};
	regions_add(&view.replicas[2].missed, 0);
	regions_add(&view.replicas[2].missed, REPLICA_REGIONS - 1);
}

TEST(a_view_comes_back_from_its_bytes_as_it_was)
{
	view_make();
	size_t len_bytes = view_encode(&view, bytes);
	CHECK_OK(view_decode(bytes, len_bytes, &again));
	CHECK_EQ(again.epoch, 7);
	CHECK(again.must_wait);
	CHECK_EQ(view_count(&again, VIEW_MEMBER), 1);
	CHECK_EQ(view_count(&again, VIEW_JOINING), 1);
	CHECK_EQ(regions_count(&view_find(&again, &view.replicas[2].pool_id)->missed), 2);
	CHECK_EQ(view_encode(&again, bytes + len_bytes), len_bytes);
	CHECK(memcmp(bytes, bytes + len_bytes, len_bytes) == 0);
}

TEST(a_view_keeps_a_revert_under_way_and_the_name_of_the_last_one)
{
	view_make();
	view.replicas[1].role = VIEW_ABSENT;
	memset(&view.replicas[1].join_id, 0, sizeof(view.replicas[1].join_id));
	view.revert_layer_id = (struct uuid){{0x71}};
	CHECK_ERR(view_check(&view), OXE_INVAL);
	view.revert_head_id = (struct uuid){{0x72}};
	size_t len_bytes = view_encode(&view, bytes);
	CHECK_OK(view_decode(bytes, len_bytes, &again));
	CHECK(uuid_equal(&again.revert_layer_id, &view.revert_layer_id));
	CHECK(uuid_equal(&again.revert_head_id, &view.revert_head_id));
	view.revert_layer_id = (struct uuid){0};
	len_bytes = view_encode(&view, bytes);
	CHECK_OK(view_decode(bytes, len_bytes, &again));
	CHECK(!view_is_reverting(&again));
	CHECK(uuid_equal(&again.revert_head_id, &view.revert_head_id));
}

TEST(a_view_without_a_revert_is_one_that_the_first_version_reads)
{
	view_make();
	(void)view_encode(&view, bytes);
	CHECK_EQ(le32_get(((struct view_head_disk *)bytes)->version), VIEW_VERSION_FIRST);
	view.replicas[1] = (struct view_replica){.pool_id = {{11}}, .role = VIEW_MEMBER};
	view.revert_head_id = (struct uuid){{0x72}};
	(void)view_encode(&view, bytes);
	CHECK_EQ(le32_get(((struct view_head_disk *)bytes)->version), VIEW_VERSION);
}

TEST(nobody_joins_while_a_view_goes_back)
{
	view_make();
	view.revert_head_id = (struct uuid){{0x72}};
	CHECK_OK(view_check(&view));
	view.revert_layer_id = (struct uuid){{0x71}};
	CHECK_ERR(view_check(&view), OXE_INVAL);
}

TEST(a_flipped_bit_anywhere_in_a_view_is_noticed)
{
	view_make();
	size_t len_bytes = view_encode(&view, bytes);
	for (size_t bit = 0; bit < len_bytes * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(view_decode(bytes, len_bytes, &again) != 0);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

TEST(a_view_that_is_cut_short_or_goes_on_is_refused)
{
	view_make();
	size_t len_bytes = view_encode(&view, bytes);
	for (size_t cut = 0; cut < len_bytes; cut++)
		CHECK_ERR(view_decode(bytes, cut, &again), OXE_CORRUPT);
	CHECK_ERR(view_decode(bytes, len_bytes + 1, &again), OXE_CORRUPT);
}

TEST(a_view_of_a_newer_program_is_named_as_such)
{
	view_make();
	size_t len_bytes = view_encode(&view, bytes);
	struct view_head_disk *head = (struct view_head_disk *)bytes;
	head->version = le32_of(VIEW_VERSION + 1);
	head->crc = le32_of(crc32c_around(bytes, len_bytes, offsetof(struct view_head_disk, crc)));
	CHECK_ERR(view_decode(bytes, len_bytes, &again), OXE_VERSION);
}

TEST(a_record_without_a_member_or_with_two_copies_in_one_pool_is_no_view)
{
	view_make();
	CHECK_OK(view_check(&view));
	view.replicas[0].role = VIEW_ABSENT;
	CHECK_ERR(view_check(&view), OXE_INVAL);
	view_make();
	view.replicas[2].pool_id = view.replicas[0].pool_id;
	CHECK_ERR(view_check(&view), OXE_INVAL);
	view_make();
	view.seals[1] = view.seals[0];
	CHECK_ERR(view_check(&view), OXE_INVAL);
	view_make();
	memset(&view.replicas[1].join_id, 0, sizeof(view.replicas[1].join_id));
	CHECK_ERR(view_check(&view), OXE_INVAL);
	view_make();
	regions_add(&view.replicas[0].missed, 3);
	CHECK_ERR(view_check(&view), OXE_INVAL);
}

TEST(regions_grow_so_that_there_are_never_more_than_fit)
{
	CHECK_EQ(replica_region_shift(4 * KiB), 20);
	CHECK_EQ(replica_region_shift(16 * GiB), 20);
	CHECK_EQ(replica_region_shift(16 * GiB + 1), 21);
	CHECK_EQ(replica_region_shift(128 * TiB), 33);
}
