/* facts_test.c: records go in and out of the metastore's values, and what is not understood is not believed. */
#include "base/test.h"
#include "control/node/facts.h"

static const struct uuid an_id = {{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};
static const struct uuid another_id = {{9, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};

static int apply(struct facts *f, const char *key, const char *value, uint64_t revision)
{
	struct meta_entry e = {.key = (char *)(uintptr_t)key,
			       .value = (void *)(uintptr_t)value,
			       .value_len_bytes = value ? strlen(value) : 0,
			       .mod_revision = revision,
			       .deleted = !value};
	return facts_apply(f, &e, 0);
}

static struct fact_volume a_volume(void)
{
	return (struct fact_volume){.id = an_id,
				    .home_id = another_id,
				    .size_bytes = GiB,
				    .lba_bytes = 512,
				    .state = FACT_LIVE,
				    .created_wall_ns = 77,
				    .name = "db"};
}

TEST(a_volume_comes_back_as_it_was_written_and_goes_when_its_key_is_deleted)
{
	struct facts f;
	struct fact_volume v = a_volume();
	char key[FACT_KEY_SIZE], *value = fact_volume_value(&v);
	facts_init(&f);
	fact_key(key, "volume", &an_id);
	CHECK(apply(&f, key, value, 5) == 0);
	const struct fact_volume *seen = facts_volume(&f, &an_id);
	CHECK(seen && seen == facts_volume_named(&f, "db"));
	CHECK(seen->revision == 5 && seen->size_bytes == GiB && seen->lba_bytes == 512);
	CHECK(seen->state == FACT_LIVE && uuid_equal(&seen->home_id, &another_id));
	CHECK(seen->created_wall_ns == 77);
	CHECK(apply(&f, key, value, 6) == 0 && facts_volume(&f, &an_id)->revision == 6);
	CHECK(apply(&f, key, NULL, 7) == 0 && !facts_volume(&f, &an_id));
	free(value);
	facts_clear(&f);
}

TEST(nodes_pools_and_copies_to_be_reaped_come_back_as_they_were_written)
{
	struct facts f;
	struct fact_node n = {
		.beat = 3, .name = "a", .addresses = {"tcp:127.0.0.1:4420"}, .address_count = 1};
	struct fact_pool p = {.node_id = another_id, .name = "fast"};
	char key[FACT_KEY_SIZE], *values[] = {fact_node_value(&n), fact_pool_value(&p), fact_reap_value(true),
					      fact_format_value()};
	facts_init(&f);
	fact_key(key, "node", &an_id);
	CHECK(apply(&f, key, values[0], 1) == 0);
	CHECK_STR(facts_node(&f, &an_id)->addresses[0], "tcp:127.0.0.1:4420");
	CHECK(facts_node(&f, &an_id)->beat == 3);
	fact_key(key, "pool", &an_id);
	CHECK(apply(&f, key, values[1], 2) == 0);
	CHECK(uuid_equal(&facts_pool(&f, &an_id)->node_id, &another_id));
	fact_reap_key(key, &an_id, &another_id);
	CHECK(apply(&f, key, values[2], 3) == 0);
	CHECK(facts_reap(&f, &an_id, &another_id)->begun && !facts_reap(&f, &another_id, &an_id));
	CHECK(apply(&f, key, NULL, 4) == 0 && !facts_reap(&f, &an_id, &another_id));
	CHECK(!f.has_format && apply(&f, "format", values[3], 5) == 0 && f.has_format);
	for (size_t i = 0; i < ARRAY_COUNT(values); i++)
		free(values[i]);
	facts_clear(&f);
}

TEST(a_view_is_known_by_its_epoch_and_who_has_which_role)
{
	struct facts f;
	struct view *v = mem_zalloc(sizeof(*v));
	uint8_t *bytes = mem_zalloc(VIEW_BYTES_MAX);
	char key[FACT_KEY_SIZE];
	*v = (struct view){.volume_id = an_id, .epoch = 9, .replica_count = 2};
	v->replicas[0] = (struct view_replica){.pool_id = an_id, .role = VIEW_MEMBER};
	v->replicas[1] = (struct view_replica){.pool_id = another_id, .role = VIEW_ABSENT};
	fact_key(key, "view", &an_id);
	facts_init(&f);
	struct meta_entry e = {
		.key = key, .value = bytes, .value_len_bytes = view_encode(v, bytes), .mod_revision = 4};
	CHECK(facts_apply(&f, &e, 0) == 0);
	const struct fact_view *seen = facts_view(&f, &an_id);
	CHECK(seen && seen->epoch == 9 && seen->count == 2 && seen->roles[1] == VIEW_ABSENT);
	fact_key(key, "view", &another_id); /* it says that it is another volume's */
	CHECK(facts_apply(&f, &e, 0) == OXE_CORRUPT && !facts_view(&f, &another_id));
	free(bytes);
	free(v);
	facts_clear(&f);
}

TEST(a_record_that_is_not_understood_is_refused_and_what_was_known_is_forgotten)
{
	struct facts f;
	struct fact_volume v = a_volume();
	char key[FACT_KEY_SIZE], *value = fact_volume_value(&v);
	static const char *const wrong[] = {
		"",
		"[]",
		"{}",
		"{\"format\":1}",
		"{\"format\":1,\"name\":\"db\"}",
		"{\"format\":1,\"name\":\"../db\",\"size_bytes\":4096,\"block_size_bytes\":512,\"home\":"
		"\"09020304-0506-4708-890a-0b0c0d0e0f10\",\"state\":\"live\",\"created_wall_ns\":1}",
		"{\"format\":1,\"name\":\"db\",\"size_bytes\":4097,\"block_size_bytes\":512,\"home\":"
		"\"09020304-0506-4708-890a-0b0c0d0e0f10\",\"state\":\"live\",\"created_wall_ns\":1}",
		"{\"format\":1,\"name\":\"db\",\"size_bytes\":4096,\"block_size_bytes\":512,\"home\":"
		"\"09020304-0506-4708-890a-0b0c0d0e0f10\",\"state\":\"asleep\",\"created_wall_ns\":1}"};
	facts_init(&f);
	fact_key(key, "volume", &an_id);
	for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
		CHECK(apply(&f, key, value, 1) == 0);
		CHECK(apply(&f, key, wrong[i], 2) == OXE_CORRUPT);
		CHECK(!facts_volume(&f, &an_id));
	}
	CHECK(apply(&f, key, "{\"format\":2,\"name\":\"db\"}", 3) == OXE_VERSION);
	CHECK(apply(&f, "format", "{\"format\":2}", 3) == OXE_VERSION);
	CHECK(apply(&f, "reap/x", "{\"format\":1}", 3) == OXE_CORRUPT);
	CHECK(apply(&f, "stranger/x", "anything", 3) == 0 && apply(&f, "alone", "x", 3) == 0);
	free(value);
	facts_clear(&f);
}

TEST(a_list_takes_the_place_of_all_that_was_known)
{
	struct facts f, from;
	struct fact_volume v = a_volume();
	char key[FACT_KEY_SIZE], *value = fact_volume_value(&v);
	facts_init(&f);
	facts_init(&from);
	fact_key(key, "volume", &an_id);
	CHECK(apply(&f, key, value, 1) == 0);
	fact_key(key, "volume", &another_id);
	CHECK(apply(&from, key, value, 2) == 0);
	facts_take(&f, &from);
	CHECK(!facts_volume(&f, &an_id) && facts_volume(&f, &another_id));
	CHECK(list_empty(&from.volumes));
	free(value);
	facts_clear(&f);
	facts_clear(&from);
}
