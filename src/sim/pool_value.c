/* pool_value.c: see pool_value.h. */
#include "sim/pool_value.h"

#include "base/bytes.h"
#include "base/prng.h"

#include <stdio.h>

#define VALUE_WORDS (VALUE_BYTES / sizeof(uint64_t))
#define VALUE_MAGIC 0x786f627778756c61ULL
#define VALUE_STEP  0x9e3779b97f4a7c15ULL

enum { WORD_MAGIC, WORD_TAG, WORD_NUMBER, WORD_BODY };

static uint64_t body_start(uint64_t number, uint64_t tag)
{
	return hash_u64(tag ^ hash_u64(number + 1));
}

void value_fill(void *data, uint64_t first, uint64_t count, uint64_t tag)
{
	uint64_t words[VALUE_WORDS];
	uint8_t *out = data;
	if (tag == 0) {
		memset(data, 0, count * VALUE_BYTES);
		return;
	}
	for (uint64_t i = 0; i < count; i++, out += VALUE_BYTES) {
		uint64_t body = body_start(first + i, tag);
		for (size_t w = WORD_BODY; w < VALUE_WORDS; w++)
			words[w] = body + w * VALUE_STEP;
		words[WORD_MAGIC] = VALUE_MAGIC;
		words[WORD_TAG] = tag;
		words[WORD_NUMBER] = first + i;
		memcpy(out, words, VALUE_BYTES);
	}
}

static bool body_is(const uint64_t *words, uint64_t number, uint64_t tag)
{
	uint64_t body = body_start(number, tag), wrong = 0;
	for (size_t w = WORD_BODY; w < VALUE_WORDS; w++)
		wrong |= words[w] ^ (body + w * VALUE_STEP);
	return wrong == 0;
}

bool value_is(const void *sector, uint64_t number, uint64_t tag)
{
	uint64_t words[VALUE_WORDS];
	if (tag == 0)
		return bytes_are_zero(sector, VALUE_BYTES);
	memcpy(words, sector, VALUE_BYTES);
	return words[WORD_MAGIC] == VALUE_MAGIC && words[WORD_TAG] == tag && words[WORD_NUMBER] == number &&
	       body_is(words, number, tag);
}

uint64_t value_tag_of(const void *sector)
{
	uint64_t words[WORD_BODY];
	memcpy(words, sector, sizeof(words));
	return words[WORD_MAGIC] == VALUE_MAGIC ? words[WORD_TAG] : 0;
}

void value_describe(const void *sector, char *text, size_t size_bytes)
{
	uint64_t words[VALUE_WORDS];
	memcpy(words, sector, VALUE_BYTES);
	if (bytes_are_zero(sector, VALUE_BYTES)) {
		snprintf(text, size_bytes, "zeroes");
	} else if (words[WORD_MAGIC] == VALUE_MAGIC) {
		bool whole = body_is(words, words[WORD_NUMBER], words[WORD_TAG]);
		snprintf(text, size_bytes, "%sversion %llu of volume %llu, sector %llu",
			 whole ? "" : "a broken ", (unsigned long long)(words[WORD_TAG] & 0xffffffffff),
			 (unsigned long long)(words[WORD_TAG] >> 40), (unsigned long long)words[WORD_NUMBER]);
	} else {
		snprintf(text, size_bytes, "garbage %016llx %016llx", (unsigned long long)words[0],
			 (unsigned long long)words[1]);
	}
}
