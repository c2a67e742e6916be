/*
 * catalog.h: the volumes and layers of a pool, all in memory, and their records in CATALOG pages.
 *
 *     volume --head--> layer --parent--> layer --parent--> ... root
 *                        ^ sealed layers may have several children (clones, branches left by a revert)
 *
 * Objects are reached by number (in records), by id (callers) and by name (volumes; a snapshot within its volume). An object
 * has a slot, its place in the CATALOG tree; a changed slot is written into its page at the next freeze.
 *
 * A page that cannot be believed costs the objects it lists, and no others (S9). Each object that others refer to stands in as a
 * *lost* one: known by number alone, on no list, with a map of which every page is OXE_CORRUPT. So a chain that leads through it
 * never reads as zeroes, and its number is written back wherever it was. The page itself stays where it is and its slots stay
 * taken. While the catalog is damaged nobody can say which ids and names are taken, or which layers have children: nothing new is
 * made, and no layer is merged or given back (job.c).
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
	char name[POOL_NAME_MAX + 1]; /* if it is named: of a snapshot, or a system's */
	bool sealed, named;	      /* lost: see map.lost */
	uint64_t size_bytes, created_wall_ns, cluster_count;
	struct volume *volume; /* NULL: its volume is gone, clones keep it */
	struct layer *parent;
	struct list children, sibling, in_volume;
	uint32_t child_count, open_count;
	struct tree map;
	struct space_window window;
	struct hnode number_node, id_node, name_node; /* the last if it is named */
	struct list age, nameless;
};

struct volume {
	uint64_t number;
	uint32_t slot;
	struct uuid id;
	char name[POOL_NAME_MAX + 1];
	uint64_t size_bytes, created_wall_ns;
	uint32_t lba_bytes, flags, open_count;
	bool lost;
	struct layer *head;	/* NULL if the volume is lost */
	struct list layers;	/* head and sealed ones that belong to it, by age: they stand on the first */
	uint64_t cluster_count; /* of these layers */
	uint32_t snapshot_count;
	struct tree notes;
	/* Writers pass the gate; sealing the head waits until none is inside (write.c). */
	uint32_t writers;
	bool gate_closed;
	struct waitq gate;
	struct hnode number_node, id_node, name_node;
	struct list age;
};

/* A snapshot, not a system's layer. */
static inline bool layer_is_snapshot(const struct layer *l)
{
	return l->named && !pool_name_is_system(l->name);
}

struct catalog *catalog_new(struct pool *pool);
void catalog_free(struct catalog *c);
/* Read every page of the tree. Pages and entries that cannot be believed are no error but damage, logged here. Suspends. */
OX_CHECKED int catalog_load(struct catalog *c, struct root root, uint64_t next_number);
bool catalog_is_damaged(const struct catalog *c);
/* Volumes on the list whose head or an ancestor of it is lost. */
uint32_t catalog_damaged_volumes(const struct catalog *c);
/* What to answer about an id or name nobody has: OXE_NOENT, or OXE_CORRUPT if it may be that of a lost object. */
int catalog_absent(const struct catalog *c);
/* Something lost was to change, and could not: see page_disown. Suspends. */
OX_CHECKED int catalog_disown_lost(struct catalog *c);
struct root catalog_root(const struct catalog *c);
struct tree *catalog_tree(struct catalog *c);
uint64_t catalog_next_number(const struct catalog *c);
/* A number never used before, for a record about to be made. */
uint64_t catalog_new_number(struct catalog *c);

struct layer *catalog_layer(const struct catalog *c, uint64_t number);
struct volume *catalog_volume(const struct catalog *c, uint64_t number);
/* The same, but in a damaged catalog a number that is not known is that of a lost object, which stands in from then on. */
struct layer *catalog_layer_refer(struct catalog *c, uint64_t number);
struct volume *catalog_volume_refer(struct catalog *c, uint64_t number);
/* Is every layer of the volume's chain there? */
bool volume_is_whole(const struct volume *v);
/* The layer of another volume, or of none, on which a volume that is not lost stands; NULL if on none. */
const struct layer *volume_origin(const struct volume *v);
/* The layer that is its head, also of a lost one; NULL if that is lost with it. */
struct layer *volume_head(const struct volume *v);
struct layer *catalog_layer_by_id(const struct catalog *c, const struct uuid *id);
struct volume *catalog_volume_by_id(const struct catalog *c, const struct uuid *id);
struct volume *catalog_volume_by_name(const struct catalog *c, const char *name);
struct layer *catalog_snapshot_by_name(const struct catalog *c, const struct volume *v, const char *name);
/* In order of age. */
struct list *catalog_volumes(struct catalog *c);  /* of struct volume, by age */
struct list *catalog_nameless(struct catalog *c); /* of struct layer: sealed, and no snapshots; in no order */
struct list *catalog_layers(struct catalog *c);	  /* of struct layer, by age */
uint32_t catalog_volume_count(const struct catalog *c); /* without the system's */
uint32_t catalog_layer_count(const struct catalog *c);
uint32_t catalog_snapshot_count(const struct catalog *c); /* without the system's */

/* A free slot, set aside until an object takes it or it is given back; its page is resident from then on. Suspends. */
OX_CHECKED int catalog_slot_take(struct catalog *c, uint32_t *slot);
void catalog_slot_give(struct catalog *c, uint32_t slot);
/* The same for a slot a record names, during recovery. If it is lost another is taken for it, and the object goes there. */
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
/* Of a sealed layer: a snapshot of this name, or a system's layer; or none any more: NULL. */
void catalog_layer_set_name(struct catalog *c, struct layer *l, const char *name);
/* Its map names so many clusters more, or less. */
void layer_count_clusters(struct layer *l, int64_t more);
void catalog_layer_touch(struct layer *l);
void catalog_volume_touch(struct catalog *c, struct volume *v);

/* At the freeze: write every touched slot into its page. Does not suspend. */
void catalog_write_slots(struct catalog *c);
uint64_t catalog_touched_slots(const struct catalog *c);

#endif
