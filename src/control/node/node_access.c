/*
 * node_access.c: who may connect to a volume over NVMe. The list is the volume's note; it is read, changed and written whole,
 * one change at a time, and the frontend hears of it when it is durable.
 */
#include "control/node/node_impl.h"

#include "base/log.h"
#include "data/frontend/nvmf/nvmf_access.h"

#include <stdio.h>

/* A volume's list, entered. */
struct access {
	struct node *node;
	struct node_pool *p; /* NULL: a mirrored volume, whose list is in the metastore */
	struct node_volume volume;
	struct nvmf_access list;
};

static int list_read(struct access *a, struct node_why *why)
{
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	static_assert(NVMF_ACCESS_NOTE_MAX <= POOL_NOTE_BYTES_MAX, "it is one note");
	int err = a->p ? pool_note_get(a->p->pool, &a->volume.info.id, POOL_NOTE_ACCESS, note, &len_bytes)
		       : node_note_get(a->node, &a->volume.info.id, POOL_NOTE_ACCESS, note, &len_bytes);
	if (err == 0)
		err = nvmf_access_decode(note, len_bytes, &a->list);
	else if (err == OXE_NOENT)
		err = 0; /* the empty list */
	explicit_bzero(note, sizeof(note));
	return why_failed(why, err, "cannot read who may connect to \"%s\"", a->volume.info.name);
}

static int list_write(struct access *a, struct node_why *why)
{
	uint8_t note[NVMF_ACCESS_NOTE_MAX];
	uint32_t len_bytes = nvmf_access_encode(&a->list, note);
	int err = a->p ? pool_note_set(a->p->pool, &a->volume.info.id, POOL_NOTE_ACCESS, note, len_bytes)
		       : node_note_set(a->node, &a->volume.info.id, POOL_NOTE_ACCESS, note, len_bytes);
	explicit_bzero(note, sizeof(note));
	return why_failed(why, err, "cannot change who may connect to \"%s\"", a->volume.info.name);
}

static void access_leave(struct access *a, int err)
{
	if (a->p)
		pool_leave(a->p, err);
	nvmf_access_wipe(&a->list);
	free(a);
}

/* The list is not read. */
static int volume_enter(struct node *n, const char *ref, struct access **out, struct node_why *why)
{
	struct access *a = mem_zalloc(sizeof(*a));
	int err = node_volume_get(n, ref, &a->volume, why);
	a->node = n;
	if (!err && !a->volume.is_mirrored) {
		a->p = pool_by_id(n, &a->volume.pool_id);
		err = pool_enter(a->p, why);
	}
	if (err)
		free(a);
	else
		*out = a;
	return err;
}

static int access_enter(struct node *n, const char *ref, struct access **out, struct node_why *why)
{
	int err = volume_enter(n, ref, out, why);
	if (err)
		return err;
	err = list_read(*out, why);
	if (err)
		access_leave(*out, err);
	return err;
}

static struct node_host host_out(const struct nvmf_access_host *h)
{
	struct node_host out = {.has_secret = nvme_secret_is_set(&h->secret),
				.has_controller_secret = nvme_secret_is_set(&h->controller_secret),
				.has_tls_key = nvme_secret_is_set(&h->tls_key)};
	static_assert(sizeof(out.nqn) == sizeof(h->nqn), "a name's field");
	memcpy(out.nqn, h->nqn, sizeof(out.nqn));
	return out;
}

static void tell_frontend(struct node *n, const struct access *a, const char *event, const char *nqn)
{
	const struct node_platform *platform = &n->options.platform;
	LOG_INFO("volume.access_changed", event, F_UUID("volume", &a->volume.info.id),
		 F_STR("volume_name", a->volume.info.name), F_STR("host", nqn),
		 F_U64("hosts", a->list.count));
	if (platform->access_changed)
		platform->access_changed(platform->ctx, &a->volume.info.id);
}

static int allow(struct node *n, const char *ref, const struct nvmf_access_host *host, bool *created,
		 struct node_why *why)
{
	struct access *a;
	int err = access_enter(n, ref, &a, why);
	if (err)
		return err;
	err = nvmf_access_put(&a->list, host, created);
	if (err) {
		why_set(why, err, "the list of \"%s\" is full: it has %u hosts", a->volume.info.name,
			a->list.count);
		why_hint(why, "take one off with 'oxbow volume disallow'; 32 fit, fewer with long names");
	} else {
		err = list_write(a, why);
	}
	if (!err)
		tell_frontend(n, a, "a host may connect to a volume", host->nqn);
	access_leave(a, err);
	return err;
}

int node_volume_allow(struct node *n, const char *ref, const char *nqn,
		      const struct node_host_secrets *secrets, bool *created, struct node_host *out,
		      struct node_why *why)
{
	const struct nvmf_access_texts texts = {.secret = secrets->secret,
						.controller_secret = secrets->controller_secret,
						.tls_key = secrets->tls_key};
	struct nvmf_access_host host;
	const char *because;
	int err = nvmf_access_host_make(nqn, &texts, &host, &because);
	if (err)
		return why_set(why, err, "%s", because);
	*out = host_out(&host);
	fmutex_lock(&n->access);
	err = allow(n, ref, &host, created, why);
	fmutex_unlock(&n->access);
	explicit_bzero(&host, sizeof(host));
	return err;
}

static int list_remove(struct access *a, const char *nqn, bool to_anyone, struct node_why *why)
{
	if (a->list.count == 1 && !to_anyone) {
		why_set(why, OXE_BUSY,
			"it is the last host on the list of \"%s\": without it anybody may connect",
			a->volume.info.name);
		why_hint(why, "add --yes if you mean that, or allow another host first");
		return OXE_BUSY;
	}
	return nvmf_access_remove(&a->list, nqn);
}

static int disallow(struct node *n, const char *ref, const char *nqn, bool to_anyone, struct node_why *why)
{
	struct access *a;
	int err = access_enter(n, ref, &a, why);
	if (err)
		return err;
	if (!nvmf_access_find(&a->list, nqn)) { /* it is so already */
		access_leave(a, 0);
		return 0;
	}
	err = list_remove(a, nqn, to_anyone, why);
	if (!err)
		err = list_write(a, why);
	if (!err)
		tell_frontend(n, a, "a host may not connect to a volume any more", nqn);
	access_leave(a, err);
	return err;
}

int node_volume_disallow(struct node *n, const char *ref, const char *nqn, bool to_anyone,
			 struct node_why *why)
{
	fmutex_lock(&n->access);
	int err = disallow(n, ref, nqn, to_anyone, why);
	fmutex_unlock(&n->access);
	return err;
}

/* Whatever the note holds, the empty list replaces it. */
static int disallow_all(struct node *n, const char *ref, struct node_why *why)
{
	struct access *a;
	int err = volume_enter(n, ref, &a, why);
	if (err)
		return err;
	err = list_write(a, why);
	if (err == OXE_CORRUPT)
		why_hint(why, "the page it is noted on is damaged: take a snapshot, and clone that");
	if (!err)
		tell_frontend(n, a, "the list of a volume was taken away: anybody may connect to it", "");
	access_leave(a, err);
	return err;
}

int node_volume_disallow_all(struct node *n, const char *ref, bool to_anyone, struct node_why *why)
{
	if (!to_anyone) {
		why_set(why, OXE_BUSY, "without a list anybody may connect");
		why_hint(why, "add --yes if you mean that");
		return OXE_BUSY;
	}
	fmutex_lock(&n->access);
	int err = disallow_all(n, ref, why);
	fmutex_unlock(&n->access);
	return err;
}

int node_volume_hosts(struct node *n, const char *ref, void (*fn)(void *ctx, const struct node_host *host),
		      void *ctx, struct node_why *why)
{
	struct access *a;
	int err = access_enter(n, ref, &a, why);
	if (err)
		return err;
	for (uint32_t i = 0; i < a->list.count; i++) {
		struct node_host host = host_out(&a->list.hosts[i]);
		fn(ctx, &host);
	}
	access_leave(a, 0);
	return 0;
}
