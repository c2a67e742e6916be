/* nvmf_access.c: see nvmf_access.h. */
#include "data/frontend/nvmf/nvmf_access.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "data/frontend/nvmf/nvmf_access_format.h"
#include "data/nvme/nvme_nqn.h"

/* ---- hosts ------------------------------------------------------------------------------------------------------------------ */

static int take_secret(int (*parse)(const char *text, struct nvme_secret *out), const char *text,
		       struct nvme_secret *out)
{
	if (text && *text)
		return parse(text, out);
	memset(out, 0, sizeof(*out));
	return 0;
}

#define REFUSE(sentence)                                                                                     \
	({                                                                                                   \
		*because = (sentence);                                                                       \
		OXE_INVAL;                                                                                   \
	})

int nvmf_access_host_make(const char *nqn, const struct nvmf_access_texts *texts,
			  struct nvmf_access_host *out, const char **because)
{
	memset(out, 0, sizeof(*out));
	if (strlen(nqn) > NVME_NQN_MAX)
		return REFUSE("a host NQN has at most 223 characters");
	nvme_nqn_put(out->nqn, nqn);
	if (!nvme_nqn_is_valid(out->nqn))
		return REFUSE("a host NQN begins with \"nqn.\" and has no spaces ('nvme show-hostnqn')");
	if (take_secret(nvme_secret_parse, texts->secret, &out->secret))
		return REFUSE("a secret is DHHC-1:00:...: with a right sum ('nvme gen-dhchap-key')");
	if (take_secret(nvme_secret_parse, texts->controller_secret, &out->controller_secret))
		return REFUSE("a controller secret is DHHC-1:00:...: with a right sum");
	if (nvme_secret_is_set(&out->controller_secret) && !nvme_secret_is_set(&out->secret))
		return REFUSE("a controller secret goes with a secret of the host's");
	if (take_secret(nvme_tls_key_parse, texts->tls_key, &out->tls_key))
		return REFUSE("a key for TLS is NVMeTLSkey-1:01:...: with a right sum ('nvme gen-tls-key')");
	return 0;
}

/* ---- the list --------------------------------------------------------------------------------------------------------------- */

static uint32_t index_of(const struct nvmf_access *a, const char *nqn)
{
	uint32_t i = 0;
	while (i < a->count && strcmp(a->hosts[i].nqn, nqn) != 0)
		i++;
	return i;
}

const struct nvmf_access_host *nvmf_access_find(const struct nvmf_access *a, const char *nqn)
{
	uint32_t i = index_of(a, nqn);
	return i < a->count ? &a->hosts[i] : NULL;
}

/* The uuid of a name that has one, written as we would write it. */
static bool short_name(const char *nqn, struct uuid *id)
{
	size_t prefix_bytes = strlen(NVME_NQN_HOST_PREFIX);
	char text[UUID_TEXT_LEN + 1];
	return strncmp(nqn, NVME_NQN_HOST_PREFIX, prefix_bytes) == 0 &&
	       uuid_parse(nqn + prefix_bytes, id) == 0 &&
	       strcmp(uuid_format(id, text), nqn + prefix_bytes) == 0;
}

static size_t host_bytes(const struct nvmf_access_host *h)
{
	struct uuid id;
	size_t name_bytes = short_name(h->nqn, &id) ? sizeof(id.b) : strlen(h->nqn);
	return sizeof(struct access_host_wire) + name_bytes + h->secret.len_bytes +
	       h->controller_secret.len_bytes + h->tls_key.len_bytes;
}

static bool has_tls_keys(const struct nvmf_access *a)
{
	for (uint32_t i = 0; i < a->count; i++)
		if (nvme_secret_is_set(&a->hosts[i].tls_key))
			return true;
	return false;
}

static size_t list_bytes(const struct nvmf_access *a)
{
	size_t bytes = sizeof(struct access_note_wire) +
		       (has_tls_keys(a) ? a->count * sizeof(struct access_tls_wire) : 0);
	for (uint32_t i = 0; i < a->count; i++)
		bytes += host_bytes(&a->hosts[i]);
	return bytes;
}

int nvmf_access_put(struct nvmf_access *a, const struct nvmf_access_host *host, bool *is_new)
{
	uint32_t i = index_of(a, host->nqn);
	*is_new = i == a->count;
	if (i == NVMF_ACCESS_HOSTS_MAX)
		return OXE_RANGE;
	struct nvmf_access_host before = a->hosts[i];
	a->hosts[i] = *host;
	a->count += *is_new;
	bool fits = list_bytes(a) <= NVMF_ACCESS_NOTE_MAX;
	if (!fits) {
		a->hosts[i] = before;
		a->count -= *is_new;
	}
	explicit_bzero(&before, sizeof(before));
	return fits ? 0 : OXE_RANGE;
}

int nvmf_access_remove(struct nvmf_access *a, const char *nqn)
{
	uint32_t i = index_of(a, nqn);
	if (i == a->count)
		return OXE_NOENT;
	a->count--;
	memmove(&a->hosts[i], &a->hosts[i + 1], (a->count - i) * sizeof(a->hosts[0]));
	explicit_bzero(&a->hosts[a->count], sizeof(a->hosts[0]));
	return 0;
}

void nvmf_access_wipe(struct nvmf_access *a)
{
	explicit_bzero(a, sizeof(*a));
}

/* ---- the note ----------------------------------------------------------------------------------------------------------------- */

static uint8_t *put_bytes(uint8_t *at, const void *data, size_t len_bytes)
{
	memcpy(at, data, len_bytes);
	return at + len_bytes;
}

static uint8_t *put_host(uint8_t *at, uint16_t version, const struct nvmf_access_host *h)
{
	struct uuid id;
	bool is_short = short_name(h->nqn, &id);
	struct access_host_wire w = {
		.nqn_bytes = is_short ? 0 : (uint8_t)strlen(h->nqn),
		.hashes = (uint8_t)(h->secret.hash | h->controller_secret.hash << 4),
		.secret_bytes = h->secret.len_bytes,
		.controller_secret_bytes = h->controller_secret.len_bytes,
	};
	struct access_tls_wire tls = {.hash = h->tls_key.hash, .key_bytes = h->tls_key.len_bytes};
	at = put_bytes(at, &w, sizeof(w));
	if (version == ACCESS_NOTE_VERSION_TLS)
		at = put_bytes(at, &tls, sizeof(tls));
	at = is_short ? put_bytes(at, id.b, sizeof(id.b)) : put_bytes(at, h->nqn, w.nqn_bytes);
	at = put_bytes(at, h->secret.key, w.secret_bytes);
	at = put_bytes(at, h->controller_secret.key, w.controller_secret_bytes);
	return put_bytes(at, h->tls_key.key, tls.key_bytes);
}

uint32_t nvmf_access_encode(const struct nvmf_access *a, uint8_t note[NVMF_ACCESS_NOTE_MAX])
{
	uint16_t version = has_tls_keys(a) ? ACCESS_NOTE_VERSION_TLS : ACCESS_NOTE_VERSION;
	struct access_note_wire w = {
		.magic = le32_of(ACCESS_NOTE_MAGIC),
		.version = le16_of(version),
		.count = le16_of((uint16_t)a->count),
	};
	uint8_t *at = note + sizeof(w);
	if (a->count == 0)
		return 0;
	assert(list_bytes(a) <= NVMF_ACCESS_NOTE_MAX); /* nvmf_access_put saw to it */
	memcpy(note, &w, sizeof(w));
	for (uint32_t i = 0; i < a->count; i++)
		at = put_host(at, version, &a->hosts[i]);
	uint32_t len_bytes = (uint32_t)(at - note);
	w.crc = le32_of(crc32c_around(note, len_bytes, offsetof(struct access_note_wire, crc)));
	memcpy(note, &w, sizeof(w));
	return len_bytes;
}

struct reader {
	const uint8_t *at, *end;
};

static bool take_bytes(struct reader *in, void *out, size_t len_bytes)
{
	if ((size_t)(in->end - in->at) < len_bytes)
		return false;
	memcpy(out, in->at, len_bytes);
	in->at += len_bytes;
	return true;
}

static bool take_name(struct reader *in, size_t nqn_bytes, char nqn[NVME_NQN_FIELD])
{
	struct uuid id;
	if (nqn_bytes > NVME_NQN_MAX)
		return false;
	if (nqn_bytes > 0)
		return take_bytes(in, nqn, nqn_bytes) && nvme_nqn_is_valid(nqn) && strlen(nqn) == nqn_bytes &&
		       !short_name(nqn, &id);
	if (!take_bytes(in, id.b, sizeof(id.b)))
		return false;
	nvme_nqn_put(nqn, NVME_NQN_HOST_PREFIX);
	uuid_format(&id, nqn + strlen(NVME_NQN_HOST_PREFIX));
	return true;
}

static bool take_key(struct reader *in, uint8_t hash, uint8_t len_bytes, struct nvme_secret *out)
{
	*out = (struct nvme_secret){.hash = hash, .len_bytes = len_bytes};
	return len_bytes <= sizeof(out->key) && take_bytes(in, out->key, len_bytes);
}

static bool is_sound(const struct nvmf_access_host *h)
{
	return nvme_secret_is_sound(&h->secret) && nvme_secret_is_sound(&h->controller_secret) &&
	       nvme_tls_key_is_sound(&h->tls_key) &&
	       (nvme_secret_is_set(&h->secret) || !nvme_secret_is_set(&h->controller_secret));
}

static bool take_host(struct reader *in, uint16_t version, struct nvmf_access_host *out)
{
	struct access_host_wire w;
	struct access_tls_wire tls = {0};
	memset(out, 0, sizeof(*out));
	return take_bytes(in, &w, sizeof(w)) &&
	       (version == ACCESS_NOTE_VERSION || take_bytes(in, &tls, sizeof(tls))) &&
	       take_name(in, w.nqn_bytes, out->nqn) &&
	       take_key(in, w.hashes & 15, w.secret_bytes, &out->secret) &&
	       take_key(in, w.hashes >> 4, w.controller_secret_bytes, &out->controller_secret) &&
	       take_key(in, tls.hash, tls.key_bytes, &out->tls_key) && is_sound(out);
}

/* Is it ours, of a version we know, and whole? */
static int check_note(const void *note, size_t len_bytes)
{
	const struct access_note_wire *w = note;
	if (len_bytes < sizeof(*w) || len_bytes > NVMF_ACCESS_NOTE_MAX ||
	    le32_get(w->magic) != ACCESS_NOTE_MAGIC)
		return OXE_CORRUPT;
	if (le32_get(w->crc) != crc32c_around(note, len_bytes, offsetof(struct access_note_wire, crc)))
		return OXE_CORRUPT;
	uint16_t version = le16_get(w->version);
	if (version != ACCESS_NOTE_VERSION && version != ACCESS_NOTE_VERSION_TLS)
		return OXE_VERSION;
	size_t count = le16_get(w->count);
	bool is_right = count > 0 && count <= NVMF_ACCESS_HOSTS_MAX &&
			bytes_are_zero(w->reserved, sizeof(w->reserved));
	return is_right ? 0 : OXE_CORRUPT;
}

int nvmf_access_decode(const void *note, size_t len_bytes, struct nvmf_access *out)
{
	const struct access_note_wire *w = note;
	struct reader in = {(const uint8_t *)note + sizeof(*w), (const uint8_t *)note + len_bytes};
	memset(out, 0, sizeof(*out));
	int err = check_note(note, len_bytes);
	if (err)
		return err;
	bool is_right = true;
	for (uint32_t i = 0; is_right && i < le16_get(w->count); i++) {
		is_right = take_host(&in, le16_get(w->version), &out->hosts[i]) &&
			   !nvmf_access_find(out, out->hosts[i].nqn);
		out->count += is_right;
	}
	if (is_right && in.at == in.end &&
	    has_tls_keys(out) == (le16_get(w->version) == ACCESS_NOTE_VERSION_TLS))
		return 0;
	nvmf_access_wipe(out);
	return OXE_CORRUPT;
}
