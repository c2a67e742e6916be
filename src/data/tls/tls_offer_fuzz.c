/* tls_offer_fuzz.c: any bytes as an offer of keys: what is taken for a name lies inside, one after another, and is text. */
#include "data/tls/tls_offer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = mem_alloc(size ? size : 1); /* so that a byte beyond it is noticed */
	struct tls_offer in;
	char name[101];
	size_t bytes = 0;
	if (size > 0)
		memcpy(exact, data, size);
	if (tls_offer_open(exact, size, &in) == 0) {
		while (tls_offer_next(&in, name, 100)) {
			bytes += 6 + strlen(name);
			if (strlen(name) == 0 || strlen(name) > 100 || bytes > size)
				abort();
		}
	}
	free(exact);
	return 0;
}
