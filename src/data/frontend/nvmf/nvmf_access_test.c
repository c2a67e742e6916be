/* nvmf_access_test.c: lists, and the note they are kept in. */
#include "base/crc32c.h"
#include "base/err.h"
#include "base/test.h"
#include "data/frontend/nvmf/nvmf_access.h"
#include "data/frontend/nvmf/nvmf_access_format.h"

#include <stdio.h>

#define SECRET32 "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
#define SECRET64                                                                                             \
	"DHHC-1:00:QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKUVhfZm10e4KJkJeepayzusHIz9bd5Ovy+eQY" \
	"loY=:"

#define KEY32 "NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:"
#define KEY48 "NVMeTLSkey-1:02:18iqDKHdvAFh2YS5hPylggJQFWJCy8/Z4eIii8qBd2tsjmq3LjkAyidjXyPO9n4bLXrR1A==:"

static struct nvmf_access list;

static struct nvmf_access_host host_of(const char *nqn, const char *secret, const char *controller_secret)
{
	const struct nvmf_access_texts texts = {secret, controller_secret, NULL};
	struct nvmf_access_host h;
	const char *because;
	CHECK_OK(nvmf_access_host_make(nqn, &texts, &h, &because));
	return h;
}

static struct nvmf_access_host uuid_host(unsigned n, const char *secret)
{
	char nqn[80];
	snprintf(nqn, sizeof(nqn), "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-%012u", n);
	return host_of(nqn, secret, NULL);
}

static void put(const struct nvmf_access_host *h, bool expect_new)
{
	bool is_new;
	CHECK_OK(nvmf_access_put(&list, h, &is_new));
	CHECK_EQ(is_new, expect_new);
}

/* The list through a note and back. */
static uint32_t check_note(uint8_t note[NVMF_ACCESS_NOTE_MAX])
{
	static struct nvmf_access back;
	uint32_t len_bytes = nvmf_access_encode(&list, note);
	CHECK_OK(nvmf_access_decode(note, len_bytes, &back));
	CHECK(memcmp(&back, &list, sizeof(list)) == 0);
	return len_bytes;
}

TEST(thirty_two_hosts_with_uuids_and_the_longest_secrets_fit_and_no_more)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	bool is_new;
	nvmf_access_wipe(&list);
	CHECK_EQ(nvmf_access_encode(&list, note), 0);
	for (unsigned i = 0; i < NVMF_ACCESS_HOSTS_MAX; i++) {
		struct nvmf_access_host h = uuid_host(i, SECRET64);
		put(&h, true);
		check_note(note);
	}
	struct nvmf_access_host more = uuid_host(99, NULL), again = uuid_host(7, NULL);
	CHECK_ERR(nvmf_access_put(&list, &more, &is_new), OXE_RANGE);
	put(&again, false);
	CHECK(!nvme_secret_is_set(&nvmf_access_find(&list, again.nqn)->secret));
	CHECK_OK(nvmf_access_remove(&list, again.nqn));
	CHECK_ERR(nvmf_access_remove(&list, again.nqn), OXE_NOENT);
	put(&more, true);
	check_note(note);
}

TEST(hosts_with_long_names_are_taken_while_the_note_has_room)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	char nqn[NVME_NQN_MAX + 1];
	int err = 0;
	nvmf_access_wipe(&list);
	for (unsigned i = 0; !err; i++) {
		memset(nqn, 'x', sizeof(nqn));
		memcpy(nqn, "nqn.", 4);
		nqn[4] = (char)('a' + i);
		nqn[NVME_NQN_MAX] = '\0';
		struct nvmf_access_host h = host_of(nqn, SECRET64, SECRET32);
		bool is_new;
		err = nvmf_access_put(&list, &h, &is_new);
		check_note(note);
	}
	CHECK_ERR(err, OXE_RANGE);
	CHECK_EQ(list.count, (NVMF_ACCESS_NOTE_MAX - 16) / (4 + NVME_NQN_MAX + 64 + 32));
}

static struct nvmf_access_host tls_host(unsigned n, const char *secret, const char *tls_key)
{
	struct nvmf_access_host h = uuid_host(n, secret);
	const struct nvmf_access_texts texts = {.secret = secret, .tls_key = tls_key};
	const char *because;
	char nqn[NVME_NQN_FIELD];
	memcpy(nqn, h.nqn, sizeof(nqn));
	CHECK_OK(nvmf_access_host_make(nqn, &texts, &h, &because));
	return h;
}

TEST(a_list_with_a_key_for_tls_is_of_version_2_and_one_without_of_version_1)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	const struct access_note_wire *w = (const void *)note;
	struct nvmf_access_host plain = uuid_host(1, SECRET32), keyed = tls_host(2, SECRET64, KEY48);
	nvmf_access_wipe(&list);
	put(&plain, true);
	check_note(note);
	CHECK_EQ(le16_get(w->version), 1);
	put(&keyed, true);
	CHECK_EQ(check_note(note), 16 + 2 * (4 + 2 + 16) + 32 + 64 + 48);
	CHECK_EQ(le16_get(w->version), 2);
	keyed = tls_host(2, NULL, KEY32);
	put(&keyed, false);
	check_note(note);
	CHECK_OK(nvmf_access_remove(&list, keyed.nqn));
	check_note(note);
	CHECK_EQ(le16_get(w->version), 1);
}

TEST(a_full_list_takes_no_key_for_tls_and_stays_as_it_was)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	bool is_new;
	nvmf_access_wipe(&list);
	for (unsigned i = 0; i < NVMF_ACCESS_HOSTS_MAX; i++) {
		struct nvmf_access_host h = uuid_host(i, SECRET64);
		put(&h, true);
	}
	uint32_t before_bytes = check_note(note);
	for (unsigned i = 0; i < NVMF_ACCESS_HOSTS_MAX; i++) {
		struct nvmf_access_host h = tls_host(i, SECRET64, KEY48);
		int err = nvmf_access_put(&list, &h, &is_new);
		CHECK(err == 0 || err == OXE_RANGE);
		check_note(note);
	}
	CHECK(check_note(note) > before_bytes);
	CHECK_EQ(list.count, NVMF_ACCESS_HOSTS_MAX);
}

TEST(what_is_no_host_is_refused_with_a_sentence)
{
	static const struct {
		const char *nqn;
		struct nvmf_access_texts texts;
	} bad[] = {
		{"", {"", "", ""}},
		{"iqn.1993-08.org.debian:01", {"", "", ""}},
		{"nqn.with space", {"", "", ""}},
		{"nqn.x", {"secret", "", ""}},
		{"nqn.x", {SECRET32, "secret", ""}},
		{"nqn.x", {"", "", SECRET32}},
		{"nqn.x", {"", SECRET32, ""}}, /* a host that proves nothing cannot ask for proof */
	};
	char long_nqn[NVME_NQN_MAX + 2] = "nqn.";
	memset(long_nqn + 4, 'x', NVME_NQN_MAX - 3);
	struct nvmf_access_host h;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		const char *because = NULL;
		CHECK_ERR(nvmf_access_host_make(bad[i].nqn, &bad[i].texts, &h, &because), OXE_INVAL);
		CHECK(because != NULL);
	}
	const char *because = NULL;
	CHECK_ERR(nvmf_access_host_make(long_nqn, &(struct nvmf_access_texts){0}, &h, &because), OXE_INVAL);
}

TEST(a_note_with_any_byte_changed_is_not_believed)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	static struct nvmf_access back;
	struct nvmf_access_host a = uuid_host(1, SECRET32), b = host_of("nqn.x:b", SECRET64, SECRET32);
	struct nvmf_access_host c = tls_host(3, NULL, KEY32);
	nvmf_access_wipe(&list);
	put(&a, true);
	put(&b, true);
	put(&c, true);
	uint32_t len_bytes = check_note(note);
	for (uint32_t i = 0; i < len_bytes; i++) {
		note[i] ^= 0x10;
		CHECK_ERR(nvmf_access_decode(note, len_bytes, &back), OXE_CORRUPT);
		CHECK_EQ(back.count, 0);
		CHECK_ERR(nvmf_access_decode(note, i, &back), OXE_CORRUPT);
		note[i] ^= 0x10;
	}
}

TEST(a_note_of_a_later_version_is_not_read)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	static struct nvmf_access back;
	struct nvmf_access_host a = uuid_host(1, NULL);
	nvmf_access_wipe(&list);
	put(&a, true);
	uint32_t len_bytes = check_note(note);
	struct access_note_wire *w = (void *)note;
	w->version = le16_of(3);
	w->crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct access_note_wire, crc)));
	CHECK_ERR(nvmf_access_decode(note, len_bytes, &back), OXE_VERSION);
}
