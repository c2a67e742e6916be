/* ledger.c: see ledger.h. */
#include "ledger.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/prng.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define STAMP_MAGIC UINT64_C(0x706d617473786f2e)

struct stamp {
	uint64_t magic;
	uint32_t tag, unit, seq, crc;
};

static size_t ledger_bytes(void)
{
	return sizeof(struct ledger) + LEDGER_UNITS_MAX * sizeof(struct ledger_unit);
}

static struct ledger *ledger_map(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)ledger_bytes()) != 0) {
		perror(path);
		exit(2);
	}
	void *map = mmap(NULL, ledger_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	close(fd);
	return map;
}

struct ledger *ledger_create(const char *path, uint32_t tag, uint32_t unit_bytes, uint32_t unit_count)
{
	struct ledger *l = ledger_map(path, O_RDWR | O_CREAT | O_EXCL);
	*l = (struct ledger){.magic = LEDGER_MAGIC, .tag = tag, .unit_bytes = unit_bytes, .next_seq = 1};
	ledger_resize(l, unit_count);
	return l;
}

struct ledger *ledger_open(const char *path)
{
	struct ledger *l = ledger_map(path, O_RDWR);
	if (l->magic != LEDGER_MAGIC) {
		fprintf(stderr, "%s is no ledger\n", path);
		exit(2);
	}
	return l;
}

void ledger_resize(struct ledger *l, uint32_t unit_count)
{
	if (unit_count > LEDGER_UNITS_MAX) {
		fprintf(stderr, "the volume has %u units, a ledger at most %u\n", unit_count,
			LEDGER_UNITS_MAX);
		exit(2);
	}
	for (uint32_t i = unit_count; i < l->unit_count; i++)
		l->units[i] = (struct ledger_unit){0};
	l->unit_count = unit_count;
}

/* For choices that must come out the same in every process. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	return hash_u64(hash_u64(a + 1) ^ b);
}

bool command_is_zero(uint32_t tag, uint32_t seq)
{
	return seq == 0 || mix(tag, seq) % 8 == 0;
}

/* Every 512 bytes carry the stamp, so that a block torn at sectors shows it; the rest is noise, for no two are alike. */
static void stamp_sector(uint8_t *sector, struct stamp s, uint32_t sector_index)
{
	uint64_t noise = mix(((uint64_t)s.tag << 32) | s.seq, ((uint64_t)s.unit << 8) | sector_index);
	s.crc = 0;
	for (size_t at = sizeof(s); at < LEDGER_STAMP_UNIT; at += sizeof(noise)) {
		noise = noise * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		memcpy(sector + at, &noise, sizeof(noise));
	}
	memcpy(sector, &s, sizeof(s));
	s.crc = crc32c(sector_index, sector, LEDGER_STAMP_UNIT);
	memcpy(sector, &s, sizeof(s));
}

void stamp_fill(void *data, uint32_t unit_bytes, uint32_t tag, uint32_t unit, uint32_t seq)
{
	struct stamp s = {.magic = STAMP_MAGIC, .tag = tag, .unit = unit, .seq = seq};
	for (uint32_t i = 0; i < unit_bytes / LEDGER_STAMP_UNIT; i++)
		stamp_sector((uint8_t *)data + i * LEDGER_STAMP_UNIT, s, i);
}

static bool sector_is_whole(const uint8_t *sector, struct stamp wanted, uint32_t sector_index)
{
	uint8_t copy[LEDGER_STAMP_UNIT];
	struct stamp s;
	memcpy(copy, sector, sizeof(copy));
	memcpy(&s, copy, sizeof(s));
	uint32_t crc = s.crc;
	s.crc = 0;
	memcpy(copy, &s, sizeof(s));
	return s.magic == STAMP_MAGIC && s.tag == wanted.tag && s.unit == wanted.unit &&
	       s.seq == wanted.seq && crc == crc32c(sector_index, copy, sizeof(copy));
}

struct content content_of(const void *data, uint32_t unit_bytes)
{
	struct stamp first;
	if (bytes_are_zero(data, unit_bytes))
		return (struct content){.kind = CONTENT_ZERO};
	memcpy(&first, data, sizeof(first));
	struct content c = {.kind = CONTENT_STAMP, .tag = first.tag, .unit = first.unit, .seq = first.seq};
	for (uint32_t i = 0; i < unit_bytes / LEDGER_STAMP_UNIT; i++) {
		if (!sector_is_whole((const uint8_t *)data + i * LEDGER_STAMP_UNIT, first, i))
			c.kind = CONTENT_GARBAGE;
	}
	return c;
}

const char *content_text(struct content c)
{
	static char texts[2][96];
	static unsigned turn;
	char *text = texts[turn++ % 2];
	if (c.kind == CONTENT_ZERO)
		return "zeroes";
	snprintf(text, sizeof(texts[0]), "%sunit %u of tag %u as of command %u",
		 c.kind == CONTENT_GARBAGE ? "garbage that begins like " : "", c.unit, c.tag, c.seq);
	return text;
}

bool content_is(struct content c, uint32_t index, uint32_t tag, uint32_t seq)
{
	if (command_is_zero(tag, seq))
		return c.kind == CONTENT_ZERO;
	return c.kind == CONTENT_STAMP && c.unit == index && c.tag == tag && c.seq == seq;
}
