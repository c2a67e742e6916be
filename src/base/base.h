/*
 * base.h: the few words every file uses: fixed-width types, array length, alignment, checked sums.
 *
 * base/ does no I/O, reads no clock, starts no thread and keeps no global state except the log sink.
 */
#ifndef OXBOW_BASE_BASE_H
#define OXBOW_BASE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef NDEBUG
#error "asserts stay on in release: build without NDEBUG"
#endif

#define ARRAY_COUNT(a)			(sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define OX_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#define OX_CHECKED			__attribute__((warn_unused_result))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define KiB ((uint64_t)1024)
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)
#define TiB (1024 * GiB)

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS ((uint64_t)1000000)
#define NS_PER_S  ((uint64_t)1000000000)

static inline uint64_t u64_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t u64_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* An option that was given, or its default: 0 means not given. */
static inline uint64_t u64_or(uint64_t given, uint64_t fallback)
{
	return given ? given : fallback;
}

/* Round down or up to a multiple of `align`, a power of two. The caller knows that up does not overflow. */
static inline uint64_t u64_align_down(uint64_t x, uint64_t align)
{
	return x & ~(align - 1);
}

static inline uint64_t u64_align_up(uint64_t x, uint64_t align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline bool u64_is_aligned(uint64_t x, uint64_t align)
{
	return (x & (align - 1)) == 0;
}

static inline uint64_t u64_div_up(uint64_t x, uint64_t unit)
{
	return x / unit + (x % unit != 0);
}

/* True, with the sum in *out, unless a + b overflows. Sizes from outside are added with this. */
OX_CHECKED static inline bool u64_add_checked(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

OX_CHECKED static inline bool u64_mul_checked(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* malloc that cannot return NULL: a daemon that cannot get a few hundred bytes stops, and restarts clean
 * (design idea 2, crash-only). Bulk memory (pages, payload) comes from bounded pools instead. */
void *mem_alloc(size_t size_bytes);
void *mem_zalloc(size_t size_bytes);
void *mem_realloc(void *old, size_t size_bytes);
/* For what grows with the number of things people make. NULL: there is none, and `old` is as it was; the caller says OXE_NOMEM. */
void *mem_try_realloc(void *old, size_t size_bytes);
char *mem_strdup(const char *text);

#endif
