/* attach_record_fuzz.c: any bytes as the record of an attachment: refused, or whole, and then it is written as it was read. */
#include "host/attach/attach_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct attach_record r, again;
	struct text text = {0};
	char *input = mem_alloc(size + 1);
	memcpy(input, data, size);
	input[size] = '\0';
	if (attach_record_parse(input, &r) == 0) {
		assert(attach_link_is_sane(r.link) && r.owner_count > 0);
		attach_record_print(&r, &text);
		assert(text.len_bytes <= ATTACH_RECORD_MAX);
		if (attach_record_parse(text_get(&text), &again))
			abort();
		assert(memcmp(&r, &again, sizeof(r)) == 0);
	}
	text_free(&text);
	free(input);
	return 0;
}
