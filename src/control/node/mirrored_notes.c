/*
 * mirrored_notes.c: the notes of mirrored volumes, as a pool keeps those of its own: who may connect, reservations. They are in the metastore, so that
 * whoever serves the volume next knows them. Who is away from the metastore can neither read nor change one: OXE_NOTREADY.
 */
#include "control/node/node_impl.h"

struct note {
	char key[FACT_KEY_SIZE];
	struct meta_list found;
};

static int note_read(struct node *n, const struct uuid *volume_id, enum pool_note_kind kind, struct note *out)
{
	struct meta *m = node_meta_enter(n);
	if (!m)
		return OXE_NOTREADY;
	fact_note_key(out->key, volume_id, kind);
	int err = meta_get(m, out->key, &out->found);
	node_meta_leave(n, err);
	return err == OXE_FAILED || err == OXE_BUSY ? OXE_NOTREADY : err;
}

int node_note_get(struct node *n, const struct uuid *volume_id, enum pool_note_kind kind, void *data,
		  uint32_t *len_bytes)
{
	struct note note;
	int err = note_read(n, volume_id, kind, &note);
	if (err)
		return err;
	err = !note.found.count						    ? OXE_NOENT
	      : note.found.entries[0].value_len_bytes > POOL_NOTE_BYTES_MAX ? OXE_CORRUPT
									    : 0;
	if (!err) {
		*len_bytes = (uint32_t)note.found.entries[0].value_len_bytes;
		memcpy(data, note.found.entries[0].value, *len_bytes);
	}
	meta_list_free(&note.found);
	return err;
}

/* Compared with what was there when it was asked: of two who write at once one does, and the other says so. */
int node_note_set(struct node *n, const struct uuid *volume_id, enum pool_note_kind kind, const void *data,
		  uint32_t len_bytes)
{
	struct note note;
	struct node_why why;
	if (len_bytes > POOL_NOTE_BYTES_MAX || kind >= POOL_NOTE_KINDS)
		return OXE_INVAL;
	int err = note_read(n, volume_id, kind, &note);
	if (err)
		return err;
	const struct meta_compare compare = {
		.key = note.key, .mod_revision = note.found.count ? note.found.entries[0].mod_revision : 0};
	const struct meta_write write = {
		.key = note.key, .value = data, .value_len_bytes = len_bytes, .is_delete = len_bytes == 0};
	const struct meta_txn txn = {
		.compares = &compare, .compare_count = 1, .writes = &write, .write_count = 1};
	if (len_bytes || note.found.count)
		err = node_meta_commit(n, &txn, "a note", &why);
	meta_list_free(&note.found);
	return err;
}
