/*
 * catalog.h: the volumes and layers of a pool, all in memory, and their records in CATALOG pages.
 *
 *     volume --head--> layer --parent--> layer --parent--> ... root
 *                        ^ sealed layers may have several children (clones, branches left by a revert)
 *
 * Objects are reached by number (in records), by id (callers) and by name (volumes; a snapshot within its volume). An object
 * has a slot, its place in the CATALOG tree; a changed slot is written into its page at the next freeze.
 */
#ifndef OXBOW_DATA_STORE_CATALOG_H
#define OXBOW_DATA_STORE_CATALOG_H

#include "base/htab.h"
#include "data/store/pool.h"
#include "data/store/space.h"

struct catalog;

struct layer {
	uint64_t number;
	uint32_t slot;
	struct uuid id;
	char name[POOL_NAME_MAX + 1]; /* of a snapshot */
	bool sealed, named;
	uint64_t size_bytes, created_wall_ns, cluster_count;
	struct volume *volume; /* NULL: its volume is gone, clones keep it */
	struct layer *parent;
	struct list children, sibling, in_volume;
	uint32_t child_count, open_count;
	struct tree map;
	struct space_window window;
	struct hnode number_node, id_node;
	struct list age;
};

struct volume {
	uint64_t number;
	uint32_t slot;
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes, created_wall_ns;
	uint32_t lba_bytes, flags, open_count;
	struct layer *head;
	struct list layers; /* head and sealed ones that belong to it, by age */
	/* Writers pass the gate; sealing the head waits until none is inside (write.c). */
	uint32_t writers;
	bool gate_closed;
	struct waitq gate;
	struct hnode number_node, id_node, name_node;
	struct list age;
};

struct catalog *catalog_new(struct pool *pool);
void catalog_free(struct catalog *c);
/* Read every page of the tree. Suspends. */
OX_CHECKED int catalog_load(struct catalog *c, struct root root, uint64_t next_number);
struct root catalog_root(const struct catalog *c);
struct tree *catalog_tree(struct catalog *c);
uint64_t catalog_next_number(const struct catalog *c);
/* A number never used before, for a record about to be made. */
uint64_t catalog_new_number(struct catalog *c);

struct layer *catalog_layer(const struct catalog *c, uint64_t number);
struct volume *catalog_volume(const struct catalog *c, uint64_t number);
struct layer *catalog_layer_by_id(const struct catalog *c, const struct uuid *id);
struct volume *catalog_volume_by_id(const struct catalog *c, const struct uuid *id);
struct volume *catalog_volume_by_name(const struct catalog *c, const char *name);
struct layer *volume_snapshot_by_name(const struct volume *v, const char *name);
/* In order of age. */
struct list *catalog_volumes(struct catalog *c); /* of struct volume, by age */
struct list *catalog_layers(struct catalog *c);	 /* of struct layer, by age */
uint32_t catalog_volume_count(const struct catalog *c);
uint32_t catalog_layer_count(const struct catalog *c);

/* A free slot, set aside until an object takes it or it is given back; its page is resident from then on. Suspends. */
OX_CHECKED int catalog_slot_take(struct catalog *c, uint32_t *slot);
void catalog_slot_give(struct catalog *c, uint32_t slot);
/* The same for a slot a record names, during recovery. */
OX_CHECKED int catalog_slot_prepare(struct catalog *c, uint32_t slot);

/* The fold's verbs. None suspends; none fails: the caller has checked. */
struct layer *catalog_layer_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				struct volume *volume, struct layer *parent);
struct volume *catalog_volume_add(struct catalog *c, uint64_t number, uint32_t slot, const struct uuid *id,
				  const char *name);
void catalog_layer_set_id(struct catalog *c, struct layer *l, const struct uuid *id);
void catalog_layer_set_parent(struct layer *l, struct layer *parent);
void catalog_layer_set_volume(struct layer *l, struct volume *v);
void catalog_volume_set_name(struct catalog *c, struct volume *v, const char *name);
void catalog_layer_remove(struct catalog *c, struct layer *l);
void catalog_volume_remove(struct catalog *c, struct volume *v);
void catalog_layer_touch(struct layer *l);
void catalog_volume_touch(struct catalog *c, struct volume *v);

/* At the freeze: write every touched slot into its page. Does not suspend. */
void catalog_write_slots(struct catalog *c);
uint64_t catalog_touched_slots(const struct catalog *c);

#endif
