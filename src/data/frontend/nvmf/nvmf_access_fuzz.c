/*
 * nvmf_access_fuzz.c: any note. Byte 0, bit 0: its magic, version and sum are put right first; bit 1: as version 2.
 *
 * A note that is believed gives a list that encodes as the same note; one that is not gives none.
 */
#include "base/crc32c.h"
#include "base/err.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_access_format.h"

static void put_right(uint8_t *note, size_t len_bytes, uint16_t version)
{
	struct access_note_wire *w = (void *)note;
	if (len_bytes < sizeof(*w))
		return;
	w->magic = le32_of(ACCESS_NOTE_MAGIC);
	w->version = le16_of(version);
	w->crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct access_note_wire, crc)));
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct nvmf_access list;
	uint8_t back[NVMF_ACCESS_NOTE_MAX];
	if (size == 0)
		return 0;
	size_t len_bytes = size - 1;
	uint8_t *note = mem_alloc(len_bytes + 1);
	memcpy(note, data + 1, len_bytes);
	if (data[0] & 1)
		put_right(note, len_bytes, data[0] & 2 ? ACCESS_NOTE_VERSION_TLS : ACCESS_NOTE_VERSION);
	int err = nvmf_access_decode(note, len_bytes, &list);
	must(err == 0 || err == OXE_CORRUPT || err == OXE_VERSION);
	must((err == 0) == (list.count > 0));
	if (err == 0) {
		must(nvmf_access_encode(&list, back) == len_bytes);
		must(memcmp(back, note, len_bytes) == 0);
	}
	free(note);
	return 0;
}
