/* size_fuzz.c: any text is a size or is refused, and what was read survives being shown. */
#include "base/err.h"
#include "base/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
	char input[64], shown[SIZE_TEXT_MAX];
	uint64_t bytes, back;
	if (len_bytes >= sizeof(input))
		return 0;
	if (len_bytes)
		memcpy(input, data, len_bytes);
	input[len_bytes] = '\0';
	int err = size_parse(input, &bytes);
	assert(err == 0 || err == OXE_INVAL || err == OXE_RANGE);
	if (err)
		return 0;
	size_format(bytes, shown);
	assert(strlen(shown) < sizeof(shown));
	if (bytes < 1024 * 1024 * TiB / 2) {
		err = size_parse(shown, &back);
		assert(err == 0 && (back > bytes ? back - bytes : bytes - back) <= bytes / 16);
	}
	return 0;
}
