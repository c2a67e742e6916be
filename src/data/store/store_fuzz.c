/*
 * store_fuzz.c: any bytes where a superblock, a journal block or a metadata page should be.
 *
 * The first byte chooses the decoder. Checksums are put right first, or nothing would ever get past them: what is tested is
 * that bytes with a good checksum are still data and not trusted (a bug of ours, or a hostile disk).
 */
#include "base/crc32c.h"
#include "data/store/journal.h"
#include "data/store/store.h"
#include "data/store/super.h"

#define POOL_CLUSTERS 4096u

static _Alignas(4096) uint8_t image[PAGE_BYTES];

static void seal(size_t crc_offset)
{
	static const le32 no_crc;
	memcpy(image + crc_offset, &no_crc, sizeof(no_crc));
	le32 crc = le32_of(crc32c(0, image, sizeof(image)));
	memcpy(image + crc_offset, &crc, sizeof(crc));
}

static void fuzz_super(void)
{
	struct super s, again;
	uint8_t back[SUPER_BYTES];
	memcpy(image, SUPER_MAGIC, 8);
	seal(offsetof(struct super_disk, crc));
	if (super_decode(image, POOL_CLUSTERS * (uint64_t)POOL_CLUSTER_BYTES, &s))
		return;
	super_encode(&s, back);
	if (super_decode(back, POOL_CLUSTERS * (uint64_t)POOL_CLUSTER_BYTES, &again) ||
	    again.generation != s.generation)
		abort(); /* what is believed can be written and believed again */
}

static int check_one(void *ctx, uint64_t seq, const struct record_head *record)
{
	(void)ctx;
	(void)seq;
	int err = record_check(record);
	return err == OXE_CORRUPT ? 0 : err;
}

static void fuzz_journal(void)
{
	seal(offsetof(struct journal_block_disk, crc));
	int err = journal_block_walk(image, 1, check_one, NULL);
	if (err && err != OXE_CORRUPT)
		abort();
}

static void fuzz_page(uint8_t kind, uint8_t level)
{
	struct pool pool = {.cluster_count = POOL_CLUSTERS};
	struct page_header_disk *h = (void *)image;
	memset(h, 0, sizeof(*h));
	h->kind = kind;
	h->level = level;
	h->page = le64_of(77);
	h->generation = le64_of(5);
	seal(offsetof(struct page_header_disk, crc));
	if (page_believe(&pool, image, kind, 0, level, 0, 77, 5) == 0 &&
	    page_believe(&pool, image, kind, 0, level, 1, 77, 5) == 0)
		abort(); /* it cannot be two pages */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	if (size_bytes < 2)
		return 0;
	memset(image, 0, sizeof(image));
	memcpy(image, data + 2, u64_min(size_bytes - 2, sizeof(image)));
	if (data[0] % 3 == 0)
		fuzz_super();
	else if (data[0] % 3 == 1)
		fuzz_journal();
	else
		fuzz_page(data[1] % 4 == 3 ? PAGE_NOTE : PAGE_MAP + data[1] % 4, data[1] / 4 % 2);
	return 0;
}
