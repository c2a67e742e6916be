/* test_main.c: runs the tests of one program; see test.h. */
#include "base/test.h"

#include <stdarg.h>
#include <stdio.h>

static struct test_case *first_test, **last_link = &first_test;
static const struct test_case *running;
static unsigned passed;

void test_register(struct test_case *t)
{
	*last_link = t;
	last_link = &t->next;
}

void test_fail(const char *file, int line, const char *format, ...)
{
	va_list args;
	fprintf(stderr, "FAILED %s\n  %s:%d: ", running ? running->name : "(setup)", file, line);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	printf("%u passed, 1 failed\n", passed);
	fflush(stdout);
	abort();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (struct test_case *t = first_test; t; t = t->next) {
		if (argc > 1 && !strstr(t->name, argv[1]))
			continue;
		running = t;
		t->fn();
		printf("ok %s\n", t->name);
		passed++;
	}
	printf("%u passed, 0 failed\n", passed);
	return 0;
}
