/* replica_join.c: the verbs of a copy that joins. See replica.h for what is where, replica_copy.h for how they are fenced. */
#include "base/mutant.h"
#include "data/replica/replica_copy.h"

#include <stdio.h>

static int fresh_create(struct copy *c, uint64_t size_bytes)
{
	char text[UUID_TEXT_LEN + 1];
	struct volume_spec spec = {
		.id = c->fresh_id, .size_bytes = size_bytes, .lba_bytes = vol_info(c->vol)->lba_bytes};
	snprintf(spec.name, sizeof(spec.name), "~join-%s", uuid_format(&c->volume_id, text));
	int err = volume_create_fresh(c->pool, &spec);
	if (!err)
		err = vol_open(c->pool, &c->fresh_id, &c->fresh);
	if (!err)
		copy_follow_size(c);
	return err;
}

/* What was there for another join goes first: whenever this is cut short, the copy is not joining. Its intents stay; whatever it may
 * lack, it is no member, and is compared with one before it is. */
static int join_anew(struct copy *c, const struct uuid *join_id, uint64_t size_bytes)
{
	if (c->fresh)
		vol_close(c->fresh);
	c->fresh = NULL;
	int err = volume_delete(c->pool, &c->fresh_id);
	if (err)
		return err;
	c->left = c->note.intents;
	c->note.may_lack = (struct replica_regions){{0}};
	c->note.join_id = *join_id;
	c->note.join_ending_id = (struct uuid){0};
	err = copy_note_store(c);
	return err ? err : fresh_create(c, size_bytes);
}

int local_join_begin(struct replica *r, const struct uuid *join_id, uint64_t size_bytes)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	if (uuid_is_nil(join_id))
		return OXE_INVAL;
	int err = control_enter(l);
	if (err)
		return err;
	if (!c->fresh || !uuid_equal(&c->note.join_id, join_id) || MUTANT(235)) {
		copy_hold(c);
		err = join_anew(c, join_id, size_bytes);
		copy_release(c);
	}
	return control_leave(l, err, true);
}

/* Before the old head changes for the first time. */
static int fill_begin(struct copy *c)
{
	if (!c->fresh)
		return OXE_INVAL;
	if (c->fill_begun_durable)
		return 0;
	c->note.fill_begun = true;
	int err = copy_note_store(c);
	c->fill_begun_durable = c->fill_begun_durable || !err;
	return err;
}

int local_fill(struct replica *r, const void *data, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct local *l = local_of(r);
	int err = call_enter(l);
	if (err)
		return err;
	err = fill_begin(l->copy);
	if (!err)
		err = data ? vol_write(l->copy->vol, data, offset_bytes, len_bytes, 0)
			   : vol_zero(l->copy->vol, offset_bytes, len_bytes, 0);
	return call_leave(l, err, true);
}

int local_fill_grow(struct replica *r, uint64_t size_bytes)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	int err = control_enter(l);
	if (err)
		return err;
	err = fill_begin(c);
	if (!err && vol_info(c->vol)->size_bytes < size_bytes)
		err = volume_grow(c->pool, &c->volume_id, size_bytes);
	else if (!err)
		err = volume_shrink(c->pool, &c->volume_id, size_bytes);
	return control_leave(l, err, true);
}

/* Data first: a layer that is there is whole. */
static int fill_seal(struct copy *c, const struct uuid *layer_id, const char *name)
{
	if (!c->fresh)
		return OXE_INVAL;
	int err = vol_flush(c->vol);
	if (!err)
		err = layer_seal(c->pool, &c->volume_id, layer_id, name, NULL);
	if (!err)
		c->left = (struct replica_regions){{0}};
	return err;
}

int local_fill_seal(struct replica *r, const struct uuid *layer_id, const char *name)
{
	struct local *l = local_of(r);
	int err = control_enter(l);
	if (err)
		return err;
	if (!copy_has_layer(l->copy, layer_id, true))
		err = fill_seal(l->copy, layer_id, name);
	return control_leave(l, err, true);
}

static bool layer_note(void *ctx, const struct layer_info *layer)
{
	*(struct layer_info *)ctx = *layer;
	return true;
}

static int graft(struct copy *c, const struct uuid *head_id)
{
	copy_unload(c);
	int err = volume_graft(c->pool, &c->volume_id, &c->fresh_id, head_id);
	int again = vol_open(c->pool, &c->volume_id, &c->vol);
	if (!again && err)
		again = vol_open(c->pool, &c->fresh_id, &c->fresh);
	if (!again)
		copy_follow_size(c);
	return again ? OXE_FAILED : err;
}

/* The note says first which head will mean that the chains are one: there is no moment at which a start could not tell. */
static int join_end(struct copy *c)
{
	struct layer_info newest = {0};
	struct volume_info fresh;
	int err = volume_chain(c->pool, &c->volume_id, layer_note, &newest);
	if (!err)
		err = uuid_equal(&newest.id, &c->note.join_id) ? volume_get_any(c->pool, &c->fresh_id, &fresh)
							       : OXE_INVAL;
	if (err)
		return err;
	c->note.join_ending_id = fresh.head_id;
	err = copy_note_store(c);
	if (!err)
		err = graft(c, &fresh.head_id);
	if (err)
		return err;
	c->note.join_id = c->note.join_ending_id = (struct uuid){0};
	c->note.fill_begun = c->fill_begun_durable = false;
	return copy_note_store(c);
}

int local_join_end(struct replica *r)
{
	struct local *l = local_of(r);
	struct copy *c = l->copy;
	int err = control_enter(l);
	if (err)
		return err;
	if (c->fresh) {
		copy_hold(c);
		err = join_end(c);
		copy_release(c);
	} else if (c->note_written < c->note_wanted) { /* the last step failed */
		err = copy_note_store(c);
	}
	return control_leave(l, err, true);
}
