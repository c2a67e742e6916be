/*
 * test.h: unit tests in a few lines. A test's name is the sentence it proves.
 *
 *     TEST(a_torn_page_is_noticed) { ... CHECK(x); CHECK_EQ(a, b); CHECK_OK(call()); CHECK_ERR(call(), OXE_INVAL); }
 *
 * Each *_test.c is one program: it links base/test_main.c, runs every TEST in the order written (or those whose name contains
 * argv[1]) and prints "N passed, N failed". A failed CHECK prints file, line and values and ends the program: tests run on
 * fibers, where nothing can be unwound. Not part of any product binary.
 */
#ifndef OXBOW_BASE_TEST_H
#define OXBOW_BASE_TEST_H

#include "base/base.h"
#include "base/err.h"

struct test_case {
	const char *name;
	void (*fn)(void);
	struct test_case *next;
};

void test_register(struct test_case *t);
_Noreturn void test_fail(const char *file, int line, const char *format, ...) OX_PRINTF(3, 4);

#define TEST(test_name)                                                                                      \
	static void test_name(void);                                                                         \
	static struct test_case test_name##_case = {.name = #test_name, .fn = test_name};                    \
	__attribute__((constructor)) static void test_name##_register(void)                                  \
	{                                                                                                    \
		test_register(&test_name##_case);                                                            \
	}                                                                                                    \
	static void test_name(void)

#define CHECK(cond)                                                                                          \
	do {                                                                                                 \
		if (!(cond))                                                                                 \
			test_fail(__FILE__, __LINE__, "%s", #cond);                                          \
	} while (0)

#define CHECK_EQ(a, b)                                                                                       \
	do {                                                                                                 \
		long long check_a_ = (long long)(a), check_b_ = (long long)(b);                              \
		if (check_a_ != check_b_)                                                                    \
			test_fail(__FILE__, __LINE__, "%s == %s: %lld, %lld", #a, #b, check_a_, check_b_);   \
	} while (0)

#define CHECK_STR(a, b)                                                                                      \
	do {                                                                                                 \
		const char *check_a_ = (a), *check_b_ = (b);                                                 \
		if (strcmp(check_a_, check_b_) != 0)                                                         \
			test_fail(__FILE__, __LINE__, "%s == %s: \"%s\", \"%s\"", #a, #b, check_a_,          \
				  check_b_);                                                                 \
	} while (0)

#define CHECK_ERR(call, wanted)                                                                              \
	do {                                                                                                 \
		int check_err_ = (call), check_wanted_ = (wanted);                                           \
		if (check_err_ != check_wanted_)                                                             \
			test_fail(__FILE__, __LINE__, "%s: %s, wanted %s", #call, err_name(check_err_),      \
				  err_name(check_wanted_));                                                  \
	} while (0)

#define CHECK_OK(call) CHECK_ERR(call, 0)

#endif
