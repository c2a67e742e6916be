/* nvme_secret_fuzz.c: any text. What is read as a secret is written back as the same text: one secret has one form. */
#include "data/nvme/nvme_secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvme_secret s;
	char back[NVME_SECRET_TEXT_SIZE], *text = mem_zalloc(size + 1);
	memcpy(text, data, size);
	int err = nvme_secret_parse(text, &s);
	if (!nvme_secret_is_sound(&s) || nvme_secret_is_set(&s) != (err == 0))
		abort();
	if (err == 0 && strcmp(nvme_secret_format(&s, back), text) != 0)
		abort();
	free(text);
	return 0;
}
