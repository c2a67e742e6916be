/* js_test.c: what the rest of the control path relies on from its JSON. */
#include "control/js.h"

#include "base/test.h"

static struct js *parsed(const char *text)
{
	struct js *value;
	char why[200];
	CHECK_OK(js_parse(text, strlen(text), &value, why, sizeof(why)));
	return value;
}

static void refused(const char *text)
{
	struct js *value;
	char why[200] = "";
	CHECK_ERR(js_parse(text, strlen(text), &value, why, sizeof(why)), OXE_INVAL);
	CHECK(*why);
}

TEST(what_is_built_is_printed_and_reads_back)
{
	struct uuid nil = {{0}};
	struct js *o = js_object(), *a = js_array();
	js_set_text(o, "name", "a\"b");
	js_set_u64(o, "size", 1099511627776);
	js_set_u64(o, "huge", UINT64_MAX);
	js_set_bool(o, "yes", true);
	js_set_uuid(o, "id", &nil);
	js_set_time(o, "when", 1700000000123456789);
	js_push_text(a, "x");
	js_set(o, "list", a);
	char *text = js_print(o, false);
	CHECK_STR(text,
		  "{\"name\":\"a\\\"b\",\"size\":1099511627776,\"huge\":9223372036854775807,\"yes\":true,"
		  "\"id\":null,\"when\":\"2023-11-14T22:13:20.123Z\",\"list\":[\"x\"]}");
	struct js *back = parsed(text);
	CHECK_EQ(js_length(back), 7);
	js_free(back);
	free(text);
	js_free(o);
}

TEST(text_that_is_not_utf8_is_repaired)
{
	struct js *o = js_object();
	js_set_text(o, "path", "/a\xff/b");
	CHECK_STR(js_text(js_get(o, "path")), "/a?/b");
	js_free(o);
}

TEST(depth_is_bounded_and_brackets_in_strings_do_not_count)
{
	js_free(parsed("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]"));
	refused("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]");
	js_free(parsed("[\"[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[\"]"));
}

TEST(repeated_keys_and_broken_text_are_refused)
{
	refused("{\"a\":1,\"a\":2}");
	refused("");
	refused("{\"a\":");
	refused("{} x");
	refused("\"\\u0000\"");
	refused("[\"\xff\"]");
	refused("[1e999]");
}

TEST(only_whole_numbers_from_zero_count_as_numbers)
{
	uint64_t n;
	struct js *a = parsed("[0, 9223372036854775807, -1, 1.0, \"1\", true]");
	CHECK(js_u64(js_at(a, 0), &n) && n == 0);
	CHECK(js_u64(js_at(a, 1), &n) && n == INT64_MAX);
	for (size_t i = 2; i < 6; i++)
		CHECK(!js_u64(js_at(a, i), &n));
	js_free(a);
}
