/*
 * node_nvme.c: who is connected over NVMe, and reservations: asked of the target, or of the pool where there is no target.
 */
#include "control/node/node_impl.h"

#include "base/log.h"

void node_nvme_set(struct node *n, struct nvmf_server *server)
{
	n->nvmf = server;
}

bool node_nvme_stats(const struct node *n, struct nvmf_stats *out)
{
	if (n->nvmf)
		nvmf_server_stats(n->nvmf, out);
	return n->nvmf;
}

struct one_export {
	const struct uuid *id; /* NULL: all */
	bool (*fn)(void *ctx, const struct nvmf_association *a);
	void *ctx;
};

static bool pass_association(void *ctx, const struct nvmf_association *a)
{
	struct one_export *one = ctx;
	return (one->id && !uuid_equal(one->id, &a->id)) || one->fn(one->ctx, a);
}

void node_nvme_walk(const struct node *n, const struct uuid *id,
		    bool (*fn)(void *ctx, const struct nvmf_association *a), void *ctx)
{
	struct one_export one = {id, fn, ctx};
	if (n->nvmf)
		nvmf_server_walk(n->nvmf, pass_association, &one);
}

int node_export_id(struct node *n, const char *ref, struct uuid *id, struct node_why *why)
{
	return export_id_find(n, ref, id, why);
}

/* ---- reservations ----------------------------------------------------------------------------------------------------- */

static const char *type_name(uint8_t type)
{
	static const char *const names[NVMF_RESERVATION_TYPES] = {
		[NVME_RESERVATION_NONE] = "none",
		[NVME_RESERVATION_WRITE_EXCLUSIVE] = "write exclusive",
		[NVME_RESERVATION_EXCLUSIVE_ACCESS] = "exclusive access",
		[NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS] = "write exclusive, registrants only",
		[NVME_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS] = "exclusive access, registrants only",
		[NVME_RESERVATION_WRITE_EXCLUSIVE_ALL] = "write exclusive, all registrants",
		[NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL] = "exclusive access, all registrants",
	};
	return type < NVMF_RESERVATION_TYPES ? names[type] : "";
}

static void reservation_out(const struct nvmf_reservation *r, struct node_reservation *out)
{
	out->type = type_name(r->type);
	out->generation = r->generation;
	out->persists = r->persists;
	out->count = r->count;
	for (size_t i = 0; i < r->count; i++) {
		struct node_registrant *one = &out->registrants[i];
		memcpy(one->host_id.b, r->registrants[i].hostid, sizeof(one->host_id.b));
		one->key = r->registrants[i].key;
		one->is_holder = nvmf_reservation_is_holder(r, r->registrants[i].hostid);
	}
}

/* Without a target there is nobody to ask whether the machine was off since: it is told as if it was not. */
static int reservation_noted(struct node *n, const struct node_pool *p, const struct uuid *volume_id,
			     struct nvmf_reservation *out)
{
	static const struct uuid unknown_boot;
	uint8_t note[POOL_NOTE_BYTES_MAX];
	uint32_t len_bytes;
	memset(out, 0, sizeof(*out));
	int err = p ? pool_note_get(p->pool, volume_id, POOL_NOTE_RESERVATION, note, &len_bytes)
		    : node_note_get(n, volume_id, POOL_NOTE_RESERVATION, note, &len_bytes);
	if (err == 0)
		err = nvmf_reservation_note_decode(note, len_bytes, &unknown_boot, out);
	return err == OXE_NOENT ? 0 : err;
}

/* *p is NULL for a mirrored volume, whose note is in the metastore. */
static int volume_enter(struct node *n, const char *ref, struct node_volume *v, struct node_pool **p,
			struct node_why *why)
{
	int err = node_volume_get(n, ref, v, why);
	*p = NULL;
	if (err || v->is_mirrored)
		return err;
	*p = pool_by_id(n, &v->pool_id);
	return pool_enter(*p, why);
}

static int volume_leave(struct node_pool *p, int err)
{
	return p ? pool_leave(p, err) : err;
}

int node_volume_reservation(struct node *n, const char *ref, struct node_reservation *out,
			    struct node_why *why)
{
	struct nvmf_reservation *r = mem_zalloc(sizeof(*r));
	struct node_volume v;
	struct node_pool *p;
	memset(out, 0, sizeof(*out));
	int err = volume_enter(n, ref, &v, &p, why);
	if (!err) {
		err = n->nvmf ? nvmf_server_reservation(n->nvmf, &v.info.id, r)
			      : reservation_noted(n, p, &v.info.id, r);
		volume_leave(p, err);
		out->is_unreadable = err == OXE_CORRUPT || err == OXE_VERSION;
		err = out->is_unreadable
			      ? 0
			      : why_failed(why, err, "cannot read the reservation of \"%s\"", v.info.name);
		reservation_out(r, out);
	}
	free(r);
	return err;
}

static int note_take_away(struct node *n, struct node_pool *p, const struct node_volume *v)
{
	int err = p ? pool_note_set(p->pool, &v->info.id, POOL_NOTE_RESERVATION, NULL, 0)
		    : node_note_set(n, &v->info.id, POOL_NOTE_RESERVATION, NULL, 0);
	if (!err)
		LOG_WARN("volume.reservation_cleared",
			 "the reservation of a volume was taken away on request",
			 F_UUID("volume", &v->info.id), F_STR("volume_name", v->info.name));
	return err;
}

int node_volume_unreserve(struct node *n, const char *ref, struct node_why *why)
{
	struct node_volume v;
	struct node_pool *p;
	bool was_there;
	int err = volume_enter(n, ref, &v, &p, why);
	if (err)
		return err;
	err = n->nvmf ? nvmf_server_reservation_clear(n->nvmf, &v.info.id, &was_there)
		      : note_take_away(n, p, &v);
	why_failed(why, err, "cannot clear the reservation of \"%s\"", v.info.name);
	if (err == OXE_CORRUPT)
		why_hint(why, "the page it is noted on is damaged: take a snapshot, and clone that");
	return volume_leave(p, err);
}
