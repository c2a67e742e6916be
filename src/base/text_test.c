/* text_test.c: growing text, and what is well-formed UTF-8. */
#include "base/text.h"

#include "base/test.h"

TEST(text_grows_and_stays_terminated)
{
	struct text t = {0};
	CHECK_STR(text_get(&t), "");
	for (int i = 0; i < 1000; i++)
		text_printf(&t, "%d,", i % 10);
	text_add(&t, "end");
	CHECK_EQ(t.len_bytes, 2003);
	CHECK_STR(text_get(&t) + 1998, "9,end");
	text_free(&t);
	CHECK_STR(text_get(&t), "");
}

TEST(well_formed_characters_are_told_from_the_rest)
{
	CHECK_EQ(text_utf8_length("a"), 1);
	CHECK_EQ(text_utf8_length("\xc3\xa4"), 2);
	CHECK_EQ(text_utf8_length("\xe2\x82\xac"), 3);
	CHECK_EQ(text_utf8_length("\xf0\x9f\x90\x82"), 4);
	static const char *const bad[] = {
		"",	"\x80",	   "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"\xff", "\xe2\x82"};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		CHECK_EQ(text_utf8_length(bad[i]), 0);
}

TEST(foreign_bytes_become_question_marks_and_characters_are_not_cut)
{
	char to[8];
	text_utf8(to, sizeof(to),
		  "a\xff"
		  "b\xc3\xa4");
	CHECK_STR(to, "a?b\xc3\xa4");
	text_utf8(to, sizeof(to), "123456\xc3\xa4");
	CHECK_STR(to, "123456");
}
