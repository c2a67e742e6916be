/* view_fuzz.c: any bytes as a view: refused, or a view that its own bytes say again. */
#include "base/crc32c.h"
#include "data/engine/view.h"
#include "data/engine/view_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* With the CRC put right, or nothing would get past it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[2 * VIEW_BYTES_MAX];
	static struct view view;
	struct view_head_disk head;
	if (size > VIEW_BYTES_MAX)
		return 0;
	memcpy(bytes, data, size);
	if (size >= sizeof(head)) {
		memcpy(&head, bytes, sizeof(head));
		head.crc = le32_of(crc32c_around(bytes, size, offsetof(struct view_head_disk, crc)));
		memcpy(bytes, &head, sizeof(head));
	}
	if (view_decode(bytes, size, &view) == 0)
		assert(view_encode(&view, bytes + VIEW_BYTES_MAX) <= VIEW_BYTES_MAX);
	return 0;
}
