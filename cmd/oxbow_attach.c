/*
 * oxbow_attach.c: volumes as block devices of the host this command runs on: which volume is meant, by which way, and what a person is
 * told. How it is done, and done again after a kill, is src/host/attach.
 *
 * The daemon is asked what a volume is and where it is served, and for a device by ublk. It is not needed to list, to take away
 * what is not by ublk, or to connect to a volume that another node serves (--at).
 */
#include "oxbow.h"

#include "base/err.h"
#include "data/nvme/nvme_nqn.h"
#include "host/attach/attach.h"

#include <stdio.h>
#include <unistd.h>

#define DEFAULT_STATE_DIR "/var/lib/oxbow/attach"
#define DEFAULT_LINKS_DIR "/dev/oxbow"
#define DEFAULT_OWNER	  "admin"
#define UBLK_CONTROL	  "/dev/ublk-control"
#define UBLK_TIMEOUT_MS	  30000
#define REASONS_SIZE	  2400

struct work {
	struct cli *cli;
	struct attach attach;
	struct js *notes, *list;
	char *state_dir, *links_dir;
};

static struct work *work_of(struct attach *a)
{
	return container_of(a, struct work, attach);
}

/* ---- asking the daemon ----------------------------------------------------------------------------------------------- */

static void ask(const struct work *w, const char *method, const char *before, const char *ref,
		const char *after, const struct js *body, struct answer *out)
{
	struct text target = {0};
	text_add(&target, before);
	target_add(&target, ref);
	text_add(&target, after);
	client_call(w->cli->client, method, text_get(&target), body, CLIENT_RESEND, out);
	text_free(&target);
}

/* What it said, in the words of src/host/attach. */
static int answer_failed(struct attach *a, const struct answer *answer)
{
	static const struct {
		const char *name;
		int err;
	} errors[] = {{"UNSUPPORTED", OXE_UNSUPPORTED},
		      {"PERM", OXE_PERM},
		      {"BUSY", OXE_BUSY},
		      {"NOENT", OXE_NOENT}};
	const char *name = js_path_text(answer->body, "error");
	int err = answer->status ? OXE_SYS : OXE_CLOSED;
	for (size_t i = 0; i < ARRAY_COUNT(errors); i++)
		err = strcmp(name, errors[i].name) == 0 ? errors[i].err : err;
	snprintf(a->why, sizeof(a->why), "%s%s", answer->status ? "" : "cannot reach oxbowd: ",
		 answer->status ? js_path_text(answer->body, "message") : answer->why);
	snprintf(a->hint, sizeof(a->hint), "%s", js_path_text(answer->body, "hint"));
	return err;
}

/* ---- by ublk: the daemon's own ---------------------------------------------------------------------------------------- */

static bool is_gone(const char *state)
{
	return strcmp(state, "leaving") == 0;
}

static int ublk_look(struct attach *a, const struct attach_record *r, struct attach_device *out)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer answer;
	ask(work_of(a), "GET", "/v1/ublk/", uuid_format(&r->id, id), "", NULL, &answer);
	const char *device = js_path_text(answer.body, "device");
	int err = answer.status == 200 ? 0 : answer.status == 404 ? OXE_NOENT : answer_failed(a, &answer);
	if (!err && (!*device || is_gone(js_path_text(answer.body, "state")) || access(device, F_OK) != 0))
		err = OXE_NOENT;
	if (!err) {
		snprintf(out->path, sizeof(out->path), "%s", device);
		snprintf(out->probe, sizeof(out->probe), "%s", device);
	}
	answer_free(&answer);
	return err;
}

static int ublk_make(struct attach *a, struct attach_record *r)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer answer;
	struct js *body = js_object();
	js_set_text(body, "volume", uuid_format(&r->id, id));
	client_call(work_of(a)->cli->client, "POST", "/v1/ublk", body, CLIENT_RESEND, &answer);
	js_free(body);
	int err = answer.status / 100 == 2 ? 0 : answer_failed(a, &answer);
	answer_free(&answer);
	return err;
}

/* The claim is given back first: the device cannot go while anybody has it open, and the daemon would wait for us. */
static int ublk_unmake(struct attach *a, const struct attach_record *r, int claim, bool force)
{
	char id[UUID_TEXT_LEN + 1];
	struct answer answer;
	struct js *body = js_object();
	if (claim >= 0)
		close(claim);
	js_set_bool(body, "force", force);
	ask(work_of(a), "POST", "/v1/ublk/", uuid_format(&r->id, id), "/detach", body, &answer);
	js_free(body);
	int err = answer.status / 100 == 2 || answer.status == 404 ? 0 : answer_failed(a, &answer);
	answer_free(&answer);
	return err;
}

static const struct attach_way way_ublk = {.look = ublk_look, .make = ublk_make, .unmake = ublk_unmake};

/* ---- beginning and ending -------------------------------------------------------------------------------------------- */

static void on_note(struct attach *a, const char *text)
{
	struct work *w = work_of(a);
	js_push_text(w->notes, text);
	if (!w->cli->json && !w->cli->quiet)
		fprintf(stderr, "oxbow: %s\n", text);
}

/* One directory has one name: what is made on the host is known by it. */
static char *directory_absolute(const char *path)
{
	char *whole = path_absolute(path);
	for (size_t len = strlen(whole); len > 1 && whole[len - 1] == '/'; len--)
		whole[len - 1] = '\0';
	return whole;
}

static void work_begin(struct work *w, struct cli *cli)
{
	const char *state_dir = cli->values[OPT_STATE_DIR], *links_dir = cli->values[OPT_LINKS];
	*w = (struct work){.cli = cli, .notes = js_array(), .list = js_array()};
	w->state_dir = directory_absolute(state_dir ? state_dir : DEFAULT_STATE_DIR);
	w->links_dir = directory_absolute(links_dir ? links_dir : DEFAULT_LINKS_DIR);
	w->attach = (struct attach){.state_dir = w->state_dir,
				    .links_dir = w->links_dir,
				    .sys = "/sys",
				    .dev = "/dev",
				    .etc = "/etc",
				    .ublk = &way_ublk,
				    .note = on_note};
}

static int work_end(struct work *w, int status)
{
	js_free(w->notes);
	js_free(w->list);
	free(w->state_dir);
	free(w->links_dir);
	return status;
}

static _Noreturn void fail_attach(const struct work *w, int err)
{
	if (w->cli->json) {
		struct js *o = js_object();
		js_set_text(o, "error", err_name(err));
		js_set_text(o, "message", w->attach.why);
		if (*w->attach.hint)
			js_set_text(o, "hint", w->attach.hint);
		char *text = js_print(o, false);
		fprintf(stderr, "%s\n", text);
		free(text);
		js_free(o);
		exit(err == OXE_CLOSED ? EXIT_UNREACHED : EXIT_FAILED);
	}
	fail(err == OXE_CLOSED ? EXIT_UNREACHED : EXIT_FAILED, w->attach.hint, "%s", w->attach.why);
}

static const char *owner_of(const struct cli *cli)
{
	const char *owner = cli->values[OPT_OWNER] ? cli->values[OPT_OWNER] : DEFAULT_OWNER;
	if (!attach_owner_is_sane(owner))
		fail(EXIT_USAGE, "letters, digits and ._-@:/", "\"%s\" is no owner", owner);
	return owner;
}

/* ---- showing --------------------------------------------------------------------------------------------------------- */

static struct js *record_js(const struct work *w, const struct attach_record *r, const char *state)
{
	char id[UUID_TEXT_LEN + 1], link[ATTACH_NAME_SIZE * 2];
	struct js *o = js_object(), *owners = js_array();
	snprintf(link, sizeof(link), "%s/%s", w->links_dir, r->link);
	js_set_text(o, "id", uuid_format(&r->id, id));
	js_set_text(o, "volume", r->volume);
	js_set_text(o, "link", *r->link ? link : NULL);
	js_set_text(o, "device", *r->device ? r->device : NULL);
	js_set_text(o, "by", attach_by_name(r->by));
	js_set_bool(o, "read_only", r->read_only);
	js_set_text(o, "state", state);
	for (unsigned i = 0; i < r->owner_count; i++)
		js_push_text(owners, r->owners[i]);
	js_set(o, "owners", owners);
	return o;
}

static void js_show(const struct js *o)
{
	char *text = js_print(o, false);
	printf("%s\n", text);
	free(text);
}

static void show_attached(struct work *w, const struct attach_record *r)
{
	struct js *o = record_js(w, r, "attached");
	js_set(o, "notes", w->notes);
	w->notes = NULL;
	if (w->cli->json)
		js_show(o);
	else if (!w->cli->quiet)
		printf("%s\n", js_path_text(o, "link"));
	js_free(o);
}

/* ---- which volume ---------------------------------------------------------------------------------------------------- */

/* What the daemon knows of it: the volume, and if one of its snapshots is meant, that. */
struct found {
	struct answer volume, snapshot;
};

static void found_free(struct found *f)
{
	answer_free(&f->volume);
	answer_free(&f->snapshot);
}

static bool is_snapshot(const struct found *f)
{
	return f->snapshot.status == 200;
}

/* Of a volume that is not there `f->volume` has the answer that says so. */
static bool volume_ask(const struct work *w, const char *ref, struct found *f)
{
	struct uuid id;
	*f = (struct found){0};
	if (strchr(ref, '@')) {
		ask(w, "GET", "/v1/snapshots/", ref, "", NULL, &f->snapshot);
	} else {
		ask(w, "GET", "/v1/volumes/", ref, "", NULL, &f->volume);
		if (f->volume.status != 404 || uuid_parse(ref, &id) != 0)
			return f->volume.status == 200;
		ask(w, "GET", "/v1/snapshots/", ref, "", NULL, &f->snapshot);
	}
	if (f->snapshot.status != 200) {
		answer_free(&f->volume);
		f->volume = f->snapshot;
		f->snapshot = (struct answer){0};
		return false;
	}
	answer_free(&f->volume);
	ask(w, "GET", "/v1/volumes/", js_path_text(f->snapshot.body, "volume_id"), "", NULL, &f->volume);
	return f->volume.status == 200;
}

/* Does this name lead to the volume, alone, and to no pool? A pool's name is a directory of links. */
static bool is_short_name(const struct work *w, const char *name, const char *volume_id)
{
	struct answer volume, pool;
	ask(w, "GET", "/v1/volumes/", name, "", NULL, &volume);
	ask(w, "GET", "/v1/pools/", name, "", NULL, &pool);
	bool is = volume.status == 200 && pool.status != 200 &&
		  strcmp(js_path_text(volume.body, "id"), volume_id) == 0;
	answer_free(&volume);
	answer_free(&pool);
	return is;
}

static void names_set(const struct work *w, const struct found *f, struct attach_record *r)
{
	const char *volume = js_path_text(f->volume.body, "name"), *as = w->cli->values[OPT_AS];
	const char *at = is_snapshot(f) ? "@" : "", *snapshot = js_path_text(f->snapshot.body, "name");
	snprintf(r->volume, sizeof(r->volume), "%s/%s%s%s", js_path_text(f->volume.body, "pool"), volume, at,
		 snapshot);
	if (as)
		snprintf(r->link, sizeof(r->link), "%s", as);
	else if (is_short_name(w, volume, js_path_text(f->volume.body, "id")))
		snprintf(r->link, sizeof(r->link), "%s%s%s", volume, at, snapshot);
	else
		snprintf(r->link, sizeof(r->link), "%s", r->volume);
}

static void record_fill(const struct work *w, const struct found *f, struct attach_record *r)
{
	const struct js *o = is_snapshot(f) ? f->snapshot.body : f->volume.body;
	memset(r, 0, sizeof(*r));
	if (uuid_parse(js_path_text(o, "id"), &r->id))
		fail(EXIT_FAILED, "", "the daemon gave an answer that makes no sense");
	r->read_only = is_snapshot(f);
	r->block_size_bytes = (uint32_t)js_path_u64(f->volume.body, "block_size_bytes");
	names_set(w, f, r);
}

/* ---- by which way ---------------------------------------------------------------------------------------------------- */

/* "nvme+tcp://HOST:PORT/NQN" -> HOST:PORT. A daemon on this host that listens on every address is asked at loopback. */
static void nvme_address(const char *uri, char at[ATTACH_ADDRESS_SIZE])
{
	const char *begin = uri + strlen("nvme+tcp://");
	int len = (int)strcspn(begin, "/");
	if (strncmp(begin, "0.0.0.0:", 8) == 0)
		snprintf(at, ATTACH_ADDRESS_SIZE, "127.0.0.1:%.*s", len - 8, begin + 8);
	else if (strncmp(begin, "[::]:", 5) == 0)
		snprintf(at, ATTACH_ADDRESS_SIZE, "[::1]:%.*s", len - 5, begin + 5);
	else
		snprintf(at, ATTACH_ADDRESS_SIZE, "%.*s", len, begin);
}

static bool is_loopback(const char *at)
{
	return strncmp(at, "127.", 4) == 0 || strncmp(at, "[::1]", 5) == 0 ||
	       strncmp(at, "localhost:", 10) == 0;
}

/* Where the volume is served over NVMe; nearest first. False: nowhere. */
static bool nvme_where(const struct found *f, char at[ATTACH_ADDRESS_SIZE])
{
	const struct js *uris = js_get(f->volume.body, "uris");
	at[0] = '\0';
	for (size_t i = 0; i < js_length(uris); i++) {
		const char *uri = js_text(js_at(uris, i));
		if (uri && strncmp(uri, "nvme+tcp://", 11) == 0 && !is_loopback(at))
			nvme_address(uri, at);
	}
	return *at;
}

/* The URI of the volume on the daemon's own socket, with the snapshot put in: "nbd+unix:///POOL/VOLUME?socket=PATH". */
static bool nbd_where(const struct found *f, char at[ATTACH_ADDRESS_SIZE])
{
	const struct js *uris = js_get(f->volume.body, "uris");
	for (size_t i = 0; i < js_length(uris); i++) {
		const char *uri = js_text(js_at(uris, i)), *query = uri ? strchr(uri, '?') : NULL;
		if (!query || strncmp(uri, "nbd+unix:///", 12) != 0)
			continue;
		int len = snprintf(at, ATTACH_ADDRESS_SIZE, "%.*s%s%s%s", (int)(query - uri), uri,
				   is_snapshot(f) ? "@" : "", js_path_text(f->snapshot.body, "name"), query);
		return len < ATTACH_ADDRESS_SIZE;
	}
	return false;
}

static int why_not(struct attach *a, const char *hint, const char *why)
{
	snprintf(a->why, sizeof(a->why), "%s", why);
	snprintf(a->hint, sizeof(a->hint), "%s", hint);
	return OXE_UNSUPPORTED;
}

/* Can it be done this way? Fills r->by and r->at. */
static int way_prepare(struct attach *a, const struct found *f, enum attach_by by, struct attach_record *r)
{
	const char *given = work_of(a)->cli->values[OPT_AT];
	r->by = by;
	r->at[0] = '\0';
	if (by == ATTACH_BY_UBLK)
		return access(UBLK_CONTROL, F_OK) == 0
			       ? 0
			       : why_not(a, "modprobe ublk_drv",
					 "this kernel has no ublk (" UBLK_CONTROL ")");
	if (by == ATTACH_BY_NBD)
		return nbd_where(f, r->at)
			       ? attach_nbd_probe(a)
			       : why_not(a, "", "the daemon serves no NBD on a unix socket without TLS");
	if (is_snapshot(f))
		return why_not(a, "", "snapshots are not served over NVMe yet");
	if (given)
		snprintf(r->at, sizeof(r->at), "%s", given);
	else if (!nvme_where(f, r->at))
		return why_not(a, "start it with --nvme tcp:127.0.0.1:4420",
			       "the daemon does not serve NVMe over TCP");
	return attach_nvme_probe(a);
}

static void secret_paths_set(const struct work *w, struct attach_record *r)
{
	const struct {
		const char *given;
		char *to;
	} files[] = {{w->cli->values[OPT_HOST_SECRET_FILE], r->secret_file},
		     {w->cli->values[OPT_VOLUME_SECRET_FILE], r->controller_secret_file}};
	for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
		if (!files[i].given)
			continue;
		char *path = path_absolute(files[i].given);
		if (access(path, R_OK) != 0 || strlen(path) >= ATTACH_ADDRESS_SIZE)
			fail(EXIT_USAGE,
			     "a file stays, so that the connection can be made again after a reboot",
			     "cannot read a secret from %s", path);
		snprintf(files[i].to, ATTACH_ADDRESS_SIZE, "%s", path);
		free(path);
	}
}

/* Whether it can make devices only the daemon knows, and says when it is asked for one. */
static bool ublk_is_unable(enum attach_by by, int err)
{
	return by == ATTACH_BY_UBLK && (err == OXE_UNSUPPORTED || err == OXE_PERM);
}

/* One after the other, until one can be done. One that can, and fails, is a failure and no reason to take a lesser one. */
static int any_way_make(struct work *w, const struct found *f, struct attach_record *r, const char *owner)
{
	static const enum attach_by order[] = {ATTACH_BY_NVME, ATTACH_BY_UBLK, ATTACH_BY_NBD};
	char reasons[REASONS_SIZE] = "", last_hint[sizeof(w->attach.hint)] = "";
	const struct attach_record asked = *r;
	for (size_t i = 0; i < ARRAY_COUNT(order); i++) {
		size_t used = strlen(reasons);
		*r = asked;
		int unable = way_prepare(&w->attach, f, order[i], r);
		int err = unable ? unable : attach_make(&w->attach, r, owner, true);
		if (!err && *reasons && r->by == order[i])
			on_note(&w->attach, reasons);
		if (!unable && !ublk_is_unable(order[i], err))
			return err;
		snprintf(reasons + used, sizeof(reasons) - used, "%snot by %s: %s", used ? "; " : "",
			 attach_by_name(order[i]), w->attach.why);
		snprintf(last_hint, sizeof(last_hint), "%s", w->attach.hint);
	}
	return why_not(&w->attach, last_hint, reasons);
}

static int one_way_make(struct work *w, const struct found *f, struct attach_record *r, const char *owner)
{
	enum attach_by by;
	if (attach_by_parse(w->cli->values[OPT_BY], &by))
		fail(EXIT_USAGE, "", "--by is nvme, ublk or nbd, not \"%s\"", w->cli->values[OPT_BY]);
	int err = way_prepare(&w->attach, f, by, r);
	return err ? err : attach_make(&w->attach, r, owner, false);
}

/* ---- what is on record ----------------------------------------------------------------------------------------------- */

struct record_search {
	struct work *w;
	const char *ref;
	struct attach_record *out;
	unsigned count;
};

static bool is_meant(const struct work *w, const struct attach_record *r, const char *ref)
{
	const char *slash = strchr(r->volume, '/');
	size_t links_len = strlen(w->links_dir);
	struct uuid id;
	if ((uuid_parse(ref, &id) == 0 || nvme_nqn_to_volume(ref, &id) == 0) && uuid_equal(&id, &r->id))
		return true;
	if (strncmp(ref, w->links_dir, links_len) == 0 && ref[links_len] == '/')
		ref += links_len + 1;
	return strcmp(ref, r->link) == 0 || strcmp(ref, r->volume) == 0 || strcmp(ref, r->device) == 0 ||
	       (slash && strcmp(ref, slash + 1) == 0);
}

static void record_compare(void *ctx, const struct attach_record *r, int err)
{
	struct record_search *s = ctx;
	if (err || !is_meant(s->w, r, s->ref))
		return;
	*s->out = *r;
	s->count++;
}

static unsigned records_find(struct work *w, const char *ref, struct attach_record *out)
{
	struct record_search s = {w, ref, out, 0};
	int err = attach_walk(&w->attach, record_compare, &s);
	if (err)
		fail_attach(w, err);
	if (s.count > 1)
		fail(EXIT_USAGE, "say POOL/VOLUME, the link or the uuid; 'oxbow attachment list' shows them",
		     "%u attachments could be meant by \"%s\"", s.count, ref);
	return s.count;
}

/* ---- attach ---------------------------------------------------------------------------------------------------------- */

/* A volume of another node, known by its uuid or the name of its subsystem. */
static bool is_foreign(const struct cli *cli, struct attach_record *r)
{
	const char *ref = cli->args[0], *as = cli->values[OPT_AS], *by = cli->values[OPT_BY];
	memset(r, 0, sizeof(*r));
	if (!cli->values[OPT_AT] || (uuid_parse(ref, &r->id) != 0 && nvme_nqn_to_volume(ref, &r->id) != 0))
		return false;
	if (by && strcmp(by, "nvme") != 0)
		fail(EXIT_USAGE, "", "--at is for NVMe over TCP, not for --by %s", by);
	r->by = ATTACH_BY_NVME;
	uuid_format(&r->id, r->volume);
	snprintf(r->link, sizeof(r->link), "%s", as ? as : r->volume);
	snprintf(r->at, sizeof(r->at), "%s", cli->values[OPT_AT]);
	return true;
}

static int foreign_make(struct work *w, struct attach_record *r, const char *owner)
{
	int err = attach_nvme_probe(&w->attach);
	secret_paths_set(w, r);
	return err ? err : attach_make(&w->attach, r, owner, false);
}

/* Without a daemon that could say which volume is meant: what is on record under that name. */
static int known_make(struct work *w, const struct found *f, const char *owner, struct attach_record *r)
{
	if (f->volume.status || records_find(w, w->cli->args[0], r) != 1)
		fail_answer(w->cli, &f->volume);
	return attach_make(&w->attach, r, owner, true);
}

static int volume_make(struct work *w, struct attach_record *r, const char *owner)
{
	struct found f;
	int err;
	if (volume_ask(w, w->cli->args[0], &f)) {
		struct attach_record have;
		record_fill(w, &f, r);
		secret_paths_set(w, r);
		if (w->cli->values[OPT_BY])
			err = one_way_make(w, &f, r, owner);
		else if (attach_load(&w->attach, &r->id, &have) == 0 && have.phase == ATTACH_MADE)
			err = attach_make(&w->attach, r, owner, true);
		else
			err = any_way_make(w, &f, r, owner);
	} else {
		err = known_make(w, &f, owner, r);
	}
	found_free(&f);
	return err;
}

static void hints_give(struct work *w, const struct attach_record *r)
{
	const char *as = w->cli->values[OPT_AS];
	if (as && strcmp(as, r->link) != 0)
		on_note(&w->attach, "it was attached already, and keeps the link it has");
	if (r->by == ATTACH_BY_NBD)
		on_note(&w->attach, "this is the fallback (nbdfuse and a loop device): when the daemon is "
				    "killed the disk fails instead "
				    "of waiting, and has to be attached again; it does not grow with the "
				    "volume; it is slower");
}

int attach_run(struct cli *cli)
{
	struct work w;
	struct attach_record r;
	const char *owner = owner_of(cli), *as = cli->values[OPT_AS];
	if (as && !attach_link_is_sane(as))
		fail(EXIT_USAGE, "letters, digits and ._-@, and / between them", "--as: \"%s\" is no name",
		     as);
	if (cli->values[OPT_AT] && !cli->values[OPT_BY])
		cli->values[OPT_BY] = "nvme";
	work_begin(&w, cli);
	int err = is_foreign(cli, &r) ? foreign_make(&w, &r, owner) : volume_make(&w, &r, owner);
	if (err)
		fail_attach(&w, err);
	hints_give(&w, &r);
	show_attached(&w, &r);
	return work_end(&w, EXIT_DONE);
}

/* ---- listing ---------------------------------------------------------------------------------------------------------- */

static void record_collect(void *ctx, const struct attach_record *r, int err)
{
	struct work *w = ctx;
	struct js *o = record_js(w, r, err ? "unreadable" : attach_state(&w->attach, r));
	if (err)
		on_note(&w->attach, w->attach.why);
	js_push(w->list, o);
}

/* For a table, which has a line an attachment. */
static void owners_join(const struct js *list)
{
	for (size_t i = 0; i < js_length(list); i++) {
		const struct js *owners = js_get(js_at(list, i), "owners");
		struct text joined = {0};
		for (size_t o = 0; o < js_length(owners); o++)
			text_printf(&joined, "%s%s", o ? ", " : "", js_text(js_at(owners, o)));
		js_set_text(js_at(list, i), "owned_by", text_get(&joined));
		text_free(&joined);
	}
}

int attachment_list(struct cli *cli)
{
	static const struct column columns[] = {
		{"VOLUME", "volume", COLUMN_TEXT},  {"LINK", "link", COLUMN_TEXT},
		{"DEVICE", "device", COLUMN_TEXT},  {"BY", "by", COLUMN_TEXT},
		{"STATE", "state", COLUMN_TEXT},    {"READ-ONLY", "read_only", COLUMN_YES},
		{"OWNERS", "owned_by", COLUMN_TEXT}};
	struct work w;
	struct answer a = {.body = js_object()};
	work_begin(&w, cli);
	int err = attach_walk(&w.attach, record_collect, &w);
	if (err)
		fail_attach(&w, err);
	js_set(a.body, "attachments", w.list);
	w.list = NULL;
	char *text = js_print(a.body, false);
	text_add(&a.raw, text);
	free(text);
	owners_join(js_get(a.body, "attachments"));
	show_list(cli, &a, "attachments", columns, ARRAY_COUNT(columns));
	answer_free(&a);
	return work_end(&w, EXIT_DONE);
}

/* For udev's rule: the link of a volume, or failure. */
int attachment_link(struct cli *cli)
{
	struct work w;
	struct attach_record r;
	struct uuid id;
	if (uuid_parse(cli->args[0], &id))
		fail(EXIT_USAGE, "", "\"%s\" is no uuid", cli->args[0]);
	work_begin(&w, cli);
	int err = attach_load(&w.attach, &id, &r);
	if (!err && r.phase != ATTACH_LEAVING)
		printf("%s\n", r.link);
	return work_end(&w, !err && r.phase != ATTACH_LEAVING ? EXIT_DONE : EXIT_FAILED);
}

/* ---- detach ---------------------------------------------------------------------------------------------------------- */

/* On record; or known to the daemon, and connected by hand. False: nothing of that name can be attached here. */
static bool detached_find(struct work *w, struct uuid *id)
{
	const char *ref = w->cli->args[0];
	struct attach_record r;
	struct found f;
	bool known = records_find(w, ref, &r) == 1;
	*id = r.id;
	if (known || uuid_parse(ref, id) == 0 || nvme_nqn_to_volume(ref, id) == 0)
		return true;
	known = volume_ask(w, ref, &f) &&
		uuid_parse(js_path_text(is_snapshot(&f) ? f.snapshot.body : f.volume.body, "id"), id) == 0;
	found_free(&f);
	return known;
}

static void show_detached(struct work *w, const struct attach_record *r)
{
	bool stays = r->owner_count > 0;
	struct js *o = record_js(w, r, stays ? "attached" : "detached");
	js_set(o, "notes", w->notes);
	w->notes = NULL;
	if (w->cli->json)
		js_show(o);
	else if (!w->cli->quiet && stays)
		printf("%s stays attached: %s still has it\n", w->cli->args[0], r->owners[0]);
	else if (!w->cli->quiet)
		printf("%s %s\n", w->cli->args[0], *r->device ? "detached" : "is not attached");
	js_free(o);
}

int detach_run(struct cli *cli)
{
	struct work w;
	struct uuid id;
	struct attach_record r = {0};
	const char *owner = owner_of(cli);
	work_begin(&w, cli);
	if (detached_find(&w, &id)) {
		int err = attach_remove(&w.attach, &id, owner, cli->values[OPT_TAKE_AWAY], &r);
		if (err)
			fail_attach(&w, err);
	}
	show_detached(&w, &r);
	return work_end(&w, EXIT_DONE);
}

/* ---- reaping --------------------------------------------------------------------------------------------------------- */

static void reaped(struct attach *a, const struct attach_record *r, const char *what, int err)
{
	struct work *w = work_of(a);
	struct js *o = record_js(w, r, err ? "left" : "done");
	char id[UUID_TEXT_LEN + 1];
	const char *name = *r->volume ? r->volume : uuid_format(&r->id, id);
	js_set_text(o, "what", what);
	js_set_text(o, "message", err ? a->why : NULL);
	js_push(w->list, o);
	if (!w->cli->json && err)
		fprintf(stderr, "oxbow: %s %s: %s\n", name, what, a->why);
	else if (!w->cli->json && !w->cli->quiet)
		printf("%s %s\n", name, what);
}

int attachment_reap(struct cli *cli)
{
	struct work w;
	work_begin(&w, cli);
	int left = attach_reap(&w.attach, reaped);
	if (left < 0)
		fail_attach(&w, left);
	if (cli->json) {
		struct js *o = js_object();
		js_set(o, "reaped", w.list);
		js_set_u64(o, "left", (uint64_t)left);
		js_show(o);
		js_free(o);
		w.list = NULL;
	}
	return work_end(&w, left ? EXIT_FAILED : EXIT_DONE);
}
