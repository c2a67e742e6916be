/*
 * nvmf_reservation_fuzz.c: any note, and any commands upon what it says.
 *
 *     byte 0        bit 0: the sum is put right first; bit 1: the note is of this boot
 *     byte 1        length of the note, in units of 8 bytes
 *     the note      (given at its own length in memory, so that a byte beyond it is noticed)
 *     then          commands: host, opcode, cdw10 (4 bytes), two keys (a byte each)
 *
 * A note that is believed gives a sound state, which encodes and decodes as the same; every step keeps it sound.
 */
#include "base/crc32c.h"
#include "base/fuzz.h"
#include "data/frontend/nvmf/nvmf_reservation.h"
#include "data/frontend/nvmf/nvmf_reservation_format.h"

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_state(const struct nvmf_reservation *r)
{
	static const struct uuid boot;
	struct nvmf_reservation again;
	uint8_t note[NVMF_RESERVATION_NOTE_MAX];
	must(nvmf_reservation_is_sound(r));
	uint32_t len_bytes = nvmf_reservation_encode(r, &boot, note);
	must(nvmf_reservation_note_decode(note, len_bytes, &boot, &again) == 0);
	must(memcmp(&again, r, sizeof(again)) == 0);
}

static void run_command(struct input *in, struct nvmf_reservation *r)
{
	static const uint8_t opcodes[] = {NVME_IO_RESERVATION_REGISTER, NVME_IO_RESERVATION_ACQUIRE,
					  NVME_IO_RESERVATION_RELEASE, NVME_IO_READ};
	struct nvmf_reservation_change ch;
	uint8_t hostid[NVMF_HOSTID_BYTES] = {(uint8_t)(take(in, 1) | 1)};
	struct nvme_sqe e = {.opcode = opcodes[take(in, 1) % 4]};
	for (size_t i = 0; i < sizeof(e.cdw10); i++)
		e.cdw10.b[i] = (uint8_t)take(in, 1);
	struct nvme_reservation_keys keys = {le64_of(take(in, 1)), le64_of(take(in, 1))};
	struct nvmf_reservation_command c = nvmf_reservation_decode(&e, &keys);
	uint16_t status = nvmf_reservation_step(r, hostid, &c, &ch);
	must(status == 0 || !ch.is_changed);
	memcpy(r, &ch.next, sizeof(*r));
	check_state(r);
	must(!nvmf_reservation_is_holder(r, hostid) || nvmf_reservation_admits(r, hostid, NVME_IO_WRITE));
}

static void take_note(struct input *in, struct nvmf_reservation *r)
{
	uint64_t how = take(in, 1);
	size_t len_bytes = u64_min(take(in, 1) * 8, (size_t)(in->end - in->at));
	uint8_t *note = mem_alloc(len_bytes + 1);
	struct reservation_note_wire *w = (void *)note;
	struct uuid boot = {.b = {!(how & 2)}};
	memcpy(note, in->at, len_bytes);
	in->at += len_bytes;
	if ((how & 1) && len_bytes >= sizeof(*w)) {
		w->magic = le32_of(RESERVATION_NOTE_MAGIC);
		w->version = le16_of(RESERVATION_NOTE_VERSION);
		w->crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct reservation_note_wire, crc)));
	}
	int err = nvmf_reservation_note_decode(note, len_bytes, &boot, r);
	must(err == 0 || err == OXE_CORRUPT || err == OXE_VERSION);
	must(err == 0 || bytes_are_zero(r, sizeof(*r)));
	free(note);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct nvmf_reservation r;
	take_note(&in, &r);
	check_state(&r);
	while (in.at < in.end)
		run_command(&in, &r);
	return 0;
}
