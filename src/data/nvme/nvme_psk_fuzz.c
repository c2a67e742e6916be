/*
 * nvme_psk_fuzz.c: any text, as a key and as a name. A key that is read is written back as the same text; of a name that is read, the
 * host and the subsystem are such as to make it again, but for what its digest says.
 */
#include "data/nvme/nvme_psk.h"

#include "base/base.h"

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void read_key(const char *text)
{
	struct nvme_secret s;
	char back[NVME_SECRET_TEXT_SIZE];
	int err = nvme_tls_key_parse(text, &s);
	must(nvme_tls_key_is_sound(&s) && nvme_secret_is_set(&s) == (err == 0));
	if (err == 0)
		must(strcmp(nvme_tls_key_format(&s, back), text) == 0);
}

static void read_name(const char *text)
{
	struct nvme_psk_name n;
	struct tls_psk psk;
	if (nvme_psk_name_parse(text, &n))
		return;
	struct nvme_secret key = {.len_bytes = n.hash == TLS_SHA256 ? 32 : 48};
	if (nvme_psk_make(&key, n.version, n.hostnqn, n.subnqn, &psk))
		return;
	must(strlen(psk.identity) == strlen(text));
	must(strncmp(psk.identity, text, 9 + strlen(n.hostnqn) + 1 + strlen(n.subnqn)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_zalloc(size + 1);
	if (size > 0)
		memcpy(text, data, size);
	read_key(text);
	read_name(text);
	free(text);
	return 0;
}
