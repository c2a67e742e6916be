/* node_ublk.c: volumes and snapshots as block devices of this host: references resolved, reasons given; ublk.h does the rest. */
#include "control/node/node_impl.h"

#include <stdio.h>

void node_ublk_set(struct node *n, struct ublk_server *server)
{
	n->ublk = server;
}

/* ---- finding ---------------------------------------------------------------------------------------------------------- */

struct ublk_search {
	const char *ref;
	struct ublk_info *out;
	unsigned count;
};

static bool is_device_meant(const struct ublk_info *a, const char *ref)
{
	char name[32];
	if (a->number == UBLK_NO_NUMBER)
		return false;
	snprintf(name, sizeof(name), "/dev/ublkb%u", a->number);
	return strcmp(ref, name) == 0 || strcmp(ref, name + strlen("/dev/")) == 0;
}

static bool is_meant(const struct ublk_info *a, const char *ref)
{
	struct uuid id;
	const char *slash = strchr(a->name, '/');
	return (uuid_parse(ref, &id) == 0 && uuid_equal(&id, &a->id)) || strcmp(ref, a->name) == 0 ||
	       (slash && strcmp(ref, slash + 1) == 0) || is_device_meant(a, ref);
}

static bool search_one(void *ctx, const struct ublk_info *a)
{
	struct ublk_search *s = ctx;
	if (is_meant(a, s->ref)) {
		*s->out = *a;
		s->count++;
	}
	return true;
}

static int not_serving(struct node_why *why)
{
	return why_set(why, OXE_UNSUPPORTED, "this daemon makes no block devices");
}

/* Among what is attached, also when its volume cannot be seen. OXE_NOENT: none; `why` is not filled then. */
static int attached_find(struct node *n, const char *ref, struct ublk_info *out, struct node_why *why)
{
	struct ublk_search s = {.ref = ref, .out = out};
	ublk_server_walk(n->ublk, search_one, &s);
	if (s.count > 1) {
		why_set(why, OXE_INVAL, "%u devices could be meant by \"%s\"", s.count, ref);
		why_hint(why, "say which: POOL/%s", ref);
		return OXE_INVAL;
	}
	return s.count ? 0 : OXE_NOENT;
}

int node_ublk_get(struct node *n, const char *ref, struct ublk_info *out, struct node_why *why)
{
	struct uuid id;
	if (!n->ublk)
		return not_serving(why);
	int err = attached_find(n, ref, out, why);
	if (err != OXE_NOENT)
		return err;
	if (export_id_find(n, ref, &id, why) == 0) {
		why_set(why, OXE_NOENT, "\"%s\" is not attached", ref);
		why_hint(why, "'oxbow ublk list' shows what is");
	}
	return OXE_NOENT;
}

void node_ublk_walk(struct node *n, bool (*fn)(void *ctx, const struct ublk_info *a), void *ctx)
{
	if (n->ublk)
		ublk_server_walk(n->ublk, fn, ctx);
}

const char *node_ublk_state_name(const struct ublk_info *a)
{
	return ublk_state_name(a->state);
}

/* ---- changing --------------------------------------------------------------------------------------------------------- */

int node_ublk_attach(struct node *n, const char *ref, bool *created, struct ublk_info *out,
		     struct node_why *why)
{
	struct uuid id;
	if (!n->ublk)
		return not_serving(why);
	int err = export_id_find(n, ref, &id, why);
	if (err)
		return err;
	err = ublk_server_attach(n->ublk, &id, created, out);
	if (!err)
		return 0;
	why_failed(why, err, "\"%s\" cannot be attached", ref);
	if (*out->message)
		why_set(why, err, "\"%s\" cannot be attached: %s", ref, out->message);
	if (err == OXE_BUSY)
		why_hint(why, "it is just being detached: wait until 'oxbow ublk list' no longer shows it");
	else if (err == OXE_UNSUPPORTED)
		why_hint(why, "NBD works on every kernel: 'oxbow volume show' has the address");
	else if (err == OXE_PERM)
		why_hint(why, "run oxbowd as root");
	return err;
}

int node_ublk_detach(struct node *n, const char *ref, bool force, struct node_why *why)
{
	struct ublk_info a;
	struct uuid id;
	if (!n->ublk)
		return not_serving(why);
	int err = attached_find(n, ref, &a, why);
	if (err == OXE_NOENT) /* a volume that is not attached is detached already */
		return uuid_parse(ref, &id) == 0 ? 0 : export_id_find(n, ref, &id, why);
	if (err)
		return err;
	err = ublk_server_detach(n->ublk, &a.id, force);
	why_failed(why, err, "/dev/ublkb%u cannot be detached", a.number);
	if (err == OXE_BUSY)
		why_hint(why,
			 "unmount it first ('lsblk /dev/ublkb%u'); --force takes it away, and what was not "
			 "written back is lost",
			 a.number);
	return err;
}

void ublk_grown(struct node *n, const struct uuid *id)
{
	/* What it answers is said by the attachment itself, for as long as it is so. */
	if (n->ublk && ublk_server_grown(n->ublk, id) == OXE_UNSUPPORTED)
		return;
}
