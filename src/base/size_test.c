/* size_test.c: what people may write for a size, and what is refused. */
#include "base/size.h"

#include "base/test.h"

static uint64_t parsed(const char *text)
{
	uint64_t bytes = 1;
	CHECK_OK(size_parse(text, &bytes));
	return bytes;
}

static void refused(const char *text, int err)
{
	uint64_t bytes;
	CHECK_ERR(size_parse(text, &bytes), err);
}

TEST(units_are_powers_of_1024_in_either_case)
{
	CHECK_EQ(parsed("0"), 0);
	CHECK_EQ(parsed("4096"), 4096);
	CHECK_EQ(parsed("4096B"), 4096);
	CHECK_EQ(parsed("1K"), KiB);
	CHECK_EQ(parsed("512MiB"), 512 * MiB);
	CHECK_EQ(parsed("512 mib"), 512 * MiB);
	CHECK_EQ(parsed("10g"), 10 * GiB);
	CHECK_EQ(parsed("3P"), 3 * 1024 * TiB);
}

TEST(a_fraction_is_exact_to_the_byte)
{
	CHECK_EQ(parsed("1.5T"), TiB + 512 * GiB);
	CHECK_EQ(parsed("0.5K"), 512);
	CHECK_EQ(parsed("1.1G"), 1181116006);
	CHECK_EQ(parsed("0.000000001G"), 1);
}

TEST(the_largest_size_is_read_and_one_more_is_out_of_range)
{
	CHECK(parsed("18446744073709551615") == UINT64_MAX);
	refused("18446744073709551616", OXE_RANGE);
	refused("99999999999999999999999", OXE_RANGE);
	refused("16384P", OXE_RANGE);
	CHECK(parsed("16383.999P") > (uint64_t)16383 << 50);
}

TEST(what_is_not_a_size_is_refused)
{
	static const char *const bad[] = {"",	  " ",	  "G",	  "-1",	    "+1",    "1GB",
					  "1KB",  "1.5",  "1.5B", "1.",	    ".5G",   "1..5G",
					  "1 G ", "1  G", " 1G",  "1Gi",    "1iB",   "0x1",
					  "1e3",  "1E",	  "1Gb",  "1.1.1G", "1GiBs", "1.0123456789G"};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		refused(bad[i], OXE_INVAL);
}

TEST(sizes_are_shown_with_at_most_one_decimal)
{
	char text[SIZE_TEXT_MAX];
	CHECK_STR(size_format(0, text), "0 B");
	CHECK_STR(size_format(1023, text), "1023 B");
	CHECK_STR(size_format(1024, text), "1 KiB");
	CHECK_STR(size_format(10 * GiB, text), "10 GiB");
	CHECK_STR(size_format(TiB + 512 * GiB, text), "1.5 TiB");
	CHECK_STR(size_format(MiB - 1, text), "1 MiB");
	CHECK_STR(size_format(UINT64_MAX, text), "16 EiB");
}

TEST(what_is_shown_reads_back_within_its_rounding)
{
	for (uint64_t bytes = 1; bytes < 1024 * TiB; bytes = bytes * 3 + 7) {
		char text[SIZE_TEXT_MAX];
		uint64_t back = parsed(size_format(bytes, text));
		CHECK((back > bytes ? back - bytes : bytes - back) <= bytes / 16);
	}
}
