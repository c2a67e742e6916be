/* base_test.c: the small things everything stands on. */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/log.h"
#include "base/prng.h"
#include "base/test.h"

TEST(crc32c_matches_the_vectors_of_rfc_3720)
{
	uint8_t data[32] = {0};
	CHECK_EQ(crc32c(0, data, 32), 0x8a9136aa);
	memset(data, 0xff, 32);
	CHECK_EQ(crc32c(0, data, 32), 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		data[i] = i;
	CHECK_EQ(crc32c(0, data, 32), 0x46dd794e);
	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283);
}

TEST(crc32c_by_instruction_and_by_table_agree_at_every_length_and_in_parts)
{
	static uint8_t data[9000];
	struct prng rng;
	prng_seed(&rng, 1);
	prng_fill(&rng, data, sizeof(data));
	for (size_t len = 0; len < sizeof(data); len += 1 + prng_below(&rng, 97)) {
		size_t cut = prng_below(&rng, len + 1);
		uint32_t whole = crc32c_portable(0, data, len);
		CHECK_EQ(crc32c(0, data, len), whole);
		CHECK_EQ(crc32c(crc32c(0, data, cut), data + cut, len - cut), whole);
	}
}

TEST(every_error_has_a_name_a_sentence_and_a_parent)
{
	for (int err = OX_ERR_BASE + 1; err < OX_ERR_END; err++) {
		CHECK(strcmp(err_name(err), "UNKNOWN") != 0);
		CHECK(*err_text(err));
		CHECK(err_errno(err) > 0);
	}
	CHECK_STR(err_name(-1), "UNKNOWN");
	CHECK_EQ(err_from_errno(err_errno(OXE_NOSPC)), OXE_NOSPC);
	CHECK_EQ(err_from_errno(0), 0);
}

TEST(a_uuid_survives_its_text_form_and_refuses_everything_else)
{
	uint8_t random[16];
	struct prng rng;
	struct uuid id, back;
	char text[UUID_TEXT_LEN + 1];
	prng_seed(&rng, 7);
	prng_fill(&rng, random, sizeof(random));
	id = uuid_from_random(random);
	CHECK_OK(uuid_parse(uuid_format(&id, text), &back));
	CHECK(uuid_equal(&id, &back));
	CHECK_EQ(text[14], '4');
	CHECK_OK(uuid_parse("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", &back));
	CHECK_ERR(uuid_parse("", &back), OXE_INVAL);
	CHECK_ERR(uuid_parse("f81d4fae7dec11d0a76500a0c91e6bf6", &back), OXE_INVAL);
	CHECK_ERR(uuid_parse("f81d4fae-7dec-11d0-a765-00a0c91e6bf", &back), OXE_INVAL);
	CHECK_ERR(uuid_parse("f81d4fae-7dec-11d0-a765-00a0c91e6bf6 ", &back), OXE_INVAL);
	CHECK_ERR(uuid_parse("g81d4fae-7dec-11d0-a765-00a0c91e6bf6", &back), OXE_INVAL);
}

TEST(a_histogram_bucket_limit_is_the_last_value_in_its_bucket)
{
	for (unsigned i = 0; i + 1 < HIST_BUCKETS; i++) {
		struct hist h = {0};
		hist_add(&h, hist_bucket_limit(i));
		CHECK_EQ(h.buckets[i], 1);
		hist_add(&h, hist_bucket_limit(i) + 1);
		CHECK_EQ(h.buckets[i + 1], 1);
	}
	struct hist h = {0};
	CHECK_EQ(hist_quantile(&h, 500), 0);
	for (uint64_t v = 1; v <= 1000; v++)
		hist_add(&h, v * 1000);
	CHECK(hist_quantile(&h, 500) >= 500000 && hist_quantile(&h, 500) < 600000);
	CHECK(hist_quantile(&h, 1000) >= 1000000);
	hist_add(&h, UINT64_MAX);
	CHECK_EQ(h.buckets[HIST_BUCKETS - 1], 1);
}

TEST(a_log_line_cannot_be_forged_by_a_value)
{
	struct uuid id = {{0}};
	struct log_field fields[] = {F_U64("bytes", 42), F_STR("name", "x\" evil=\"1\n"),
				     F_STR("plain", "abc"), F_UUID("id", &id), F_ERR(OXE_NOSPC)};
	struct log_event e = {LOG_LEVEL_INFO, "a.b", "said", fields, ARRAY_COUNT(fields)};
	char line[300], tiny[8];
	log_format_text(&e, line, sizeof(line));
	CHECK_STR(line, "a.b: said bytes=42 name=\"x\\\" evil=\\\"1\\n\" plain=abc "
			"id=00000000-0000-0000-0000-000000000000 error=NOSPC");
	log_format_json(&e, line, sizeof(line));
	CHECK(strstr(line, "\"name\":\"x\\\" evil=\\\"1\\n\""));
	CHECK_EQ(log_format_text(&e, tiny, sizeof(tiny)), 7);
}

struct item {
	int value;
	struct list link;
};

TEST(a_list_keeps_order_through_splice_and_pop)
{
	struct list a, b;
	struct item items[4];
	list_init(&a);
	list_init(&b);
	for (int i = 0; i < 4; i++) {
		items[i].value = i;
		list_add_tail(i < 2 ? &a : &b, &items[i].link);
	}
	list_splice_tail(&a, &b);
	CHECK(list_empty(&b));
	list_splice_tail(&a, &b);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(list_pop(&a, struct item, link)->value, i);
	CHECK(list_pop(&a, struct item, link) == NULL);
}

TEST(zero_bytes_are_told_from_others_at_every_position)
{
	uint8_t data[64] = {0};
	CHECK(bytes_are_zero(data, 0) && bytes_are_zero(data, 64));
	for (size_t i = 0; i < 64; i++) {
		data[i] = 1;
		CHECK(!bytes_are_zero(data, 64));
		data[i] = 0;
	}
}
