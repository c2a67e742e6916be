/* mem.c: allocation that stops the process rather than return NULL; see base.h for why. */
#include "base/base.h"

#include <stdio.h>

static void *mem_or_abort(void *p, size_t size_bytes)
{
	if (!p && size_bytes) {
		fprintf(stderr, "oxbow: out of memory asking for %zu bytes\n", size_bytes);
		abort();
	}
	return p;
}

void *mem_alloc(size_t size_bytes)
{
	return mem_or_abort(malloc(size_bytes), size_bytes);
}

void *mem_zalloc(size_t size_bytes)
{
	return mem_or_abort(calloc(1, size_bytes), size_bytes);
}

void *mem_realloc(void *old, size_t size_bytes)
{
	return mem_or_abort(realloc(old, size_bytes), size_bytes);
}

char *mem_strdup(const char *text)
{
	size_t size_bytes = strlen(text) + 1;
	return memcpy(mem_alloc(size_bytes), text, size_bytes);
}

void *mem_try_realloc(void *old, size_t size_bytes)
{
	return realloc(old, size_bytes ? size_bytes : 1);
}
