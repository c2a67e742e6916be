/* nvme_secret_test.c: texts of other people's programs, and what is no secret. */
#include "base/err.h"
#include "base/test.h"
#include "data/nvme/nvme_secret.h"

/* What nvme-cli 2.3 makes of keys whose byte i is i * 7 + their length. */
#define LONGEST                                                                                              \
	"DHHC-1:00:QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKUVhfZm10e4KJkJeepayzusHIz9bd5Ovy+eQY" \
	"loY=:"
static const char *const of_nvme_cli[] = {
	"DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:",
	"DHHC-1:00:MDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J51wkKvA==:",
	(LONGEST),
};

TEST(secrets_that_nvme_cli_makes_are_read_and_written_back_the_same)
{
	for (size_t i = 0; i < ARRAY_COUNT(of_nvme_cli); i++) {
		struct nvme_secret s;
		char text[NVME_SECRET_TEXT_SIZE];
		CHECK_OK(nvme_secret_parse(of_nvme_cli[i], &s));
		CHECK_EQ(s.hash, 0);
		CHECK_EQ(s.len_bytes, 32 + 16 * i);
		for (size_t at = 0; at < s.len_bytes; at++)
			CHECK_EQ(s.key[at], (uint8_t)(at * 7 + s.len_bytes));
		CHECK(nvme_secret_is_sound(&s));
		CHECK_STR(nvme_secret_format(&s, text), of_nvme_cli[i]);
	}
}

TEST(a_secret_that_is_to_be_transformed_says_with_which_hash)
{
	struct nvme_secret s;
	CHECK_OK(nvme_secret_parse("DHHC-1:01:tOVlODJmo6wvuXBE40yX8W05nDfezspkES7I+UI0HaULVs0T:", &s));
	CHECK_EQ(s.hash, 1);
	CHECK_ERR(nvme_secret_parse("DHHC-1:04:tOVlODJmo6wvuXBE40yX8W05nDfezspkES7I+UI0HaULVs0T:", &s),
		  OXE_INVAL);
}

TEST(a_text_with_any_one_character_changed_is_no_secret)
{
	for (size_t i = 0; i < ARRAY_COUNT(of_nvme_cli); i++) {
		for (size_t at = 0; at < strlen(of_nvme_cli[i]); at++) {
			char text[NVME_SECRET_TEXT_SIZE];
			struct nvme_secret s;
			strcpy(text, of_nvme_cli[i]);
			text[at] = text[at] == 'A' ? 'B' : 'A';
			CHECK_ERR(nvme_secret_parse(text, &s), OXE_INVAL);
			CHECK(!nvme_secret_is_set(&s));
			text[at] = '\0';
			CHECK_ERR(nvme_secret_parse(text, &s), OXE_INVAL);
		}
	}
}

TEST(a_secret_of_another_length_is_none)
{
	struct nvme_secret s;
	CHECK_ERR(nvme_secret_parse("", &s), OXE_INVAL);
	CHECK_ERR(nvme_secret_parse("DHHC-1:00::", &s), OXE_INVAL);
	CHECK_ERR(nvme_secret_parse("DHHC-1:00:AAAAAA==:", &s), OXE_INVAL); /* nothing, and its right sum */
}
