/*
 * ublk_fuzz.c: whatever the record holds and the kernel asks: no crash, no request let through that lies outside the device, and
 * a record that was read is written back as what it says.
 *
 * The input is one request, as raw as it comes (27 bytes), and after it the record.
 */
#include "data/frontend/ublk/ublk.h"
#include "data/frontend/ublk/ublk_device.h"
#include "data/frontend/ublk/ublk_record.h"

#include "base/err.h"

struct input {
	uint8_t op, shape;
	uint8_t flags;
	uint64_t offset_bytes, len_bytes, size_bytes;
} __attribute__((packed));

static void fuzz_request(const struct input *in)
{
	const struct rt_blk_request r = {.op = (enum rt_blk_op)(in->op % 8),
					 .flags = in->flags,
					 .offset_bytes = in->offset_bytes,
					 .len_bytes = in->len_bytes};
	const struct rt_blk_spec spec = {.lba_bytes = in->shape & 1 ? 512 : 4096,
					 .size_bytes = in->size_bytes >> 8 << 12,
					 .read_only = in->shape & 2};
	if (ublk_request_check(&r, &spec) != 0 || r.op == RT_BLK_FLUSH)
		return;
	assert(r.op < RT_BLK_FLUSH || r.op == RT_BLK_DISCARD || r.op == RT_BLK_ZERO);
	assert(r.len_bytes <= spec.size_bytes && r.offset_bytes <= spec.size_bytes - r.len_bytes);
	assert(r.len_bytes > 0 && (r.offset_bytes | r.len_bytes) % spec.lba_bytes == 0);
	assert(!spec.read_only || r.op == RT_BLK_READ);
	assert(r.op > RT_BLK_WRITE || r.len_bytes <= RT_BLK_IO_BYTES);
}

static void fuzz_record(const char *text)
{
	struct ublk_line line, again;
	if (ublk_record_open(&text) != 0)
		return;
	while (ublk_record_next(&text, &line) == 0) {
		struct text written = {0};
		ublk_record_add(&written, &line);
		const char *at = text_get(&written);
		int err = ublk_record_next(&at, &again);
		assert(err == 0 && *at == '\0');
		assert(uuid_equal(&line.id, &again.id) && line.number == again.number &&
		       line.leaving == again.leaving && strcmp(line.name, again.name) == 0);
		text_free(&written);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in;
	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));
	fuzz_request(&in);
	char *text = mem_zalloc(size - sizeof(in) + 1);
	memcpy(text, data + sizeof(in), size - sizeof(in));
	fuzz_record(text);
	free(text);
	return 0;
}
