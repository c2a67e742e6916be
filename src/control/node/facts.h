/*
 * facts.h: what the metastore says of nodes, pools and mirrored volumes, as a table in memory that follows it.
 *
 *     key                    value                                                         written by
 *     format                 {"format": 1}                                                 whoever comes first
 *     node/NODE              {"format", "name", "addresses": [...], "beat"}                that node, at start and now and then
 *     pool/POOL              {"format", "name", "node"}                                    the node that has it open
 *     volume/VOLUME          {"format", "name", "size_bytes", "block_size_bytes",          create, rename, grow, move, delete
 *                             "home", "state", "created_wall_ns"}
 *     name/NAME              {"format", "volume"}                                          with the volume, in one transaction
 *     view/VOLUME            as view.h says, in bytes                                      the volume's engine
 *     note/VOLUME/KIND       bytes (pool_note_kind by number)                              its frontends
 *     reap/POOL/VOLUME       {"format", "begun"}                                           a copy that is none any more, and whose
 *                                                                                          space is to be freed by who has the pool open
 *
 * NODE, POOL and VOLUME are uuids. A record of another format is refused: what it is of is not served, and not changed, by this program.
 *
 * Values come from outside and are checked. The table is a picture that may be a moment old: whoever changes something compares with
 * the revision it saw, and the metastore decides.
 *
 *   who owns memory   the table owns its facts; pointers to them are good until the next facts_apply, facts_take, or suspension
 *   which reactor     one; nothing here suspends
 */
#ifndef OXBOW_CONTROL_NODE_FACTS_H
#define OXBOW_CONTROL_NODE_FACTS_H

#include "base/list.h"
#include "control/meta/meta.h"
#include "data/engine/view.h"

#define FACT_FORMAT	   1
#define FACT_TEXT_MAX	   128 /* with the NUL: a node's name, an address */
#define FACT_ADDRESSES_MAX 4

struct fact_node {
	struct list link;
	struct uuid id;
	uint64_t revision, beat;
	uint64_t heard_ns; /* when the table heard of this beat, on its owner's clock */
	char name[FACT_TEXT_MAX];
	char addresses[FACT_ADDRESSES_MAX][FACT_TEXT_MAX]; /* of its copies' service */
	uint32_t address_count;
};

struct fact_pool {
	struct list link;
	struct uuid id, node_id;
	uint64_t revision;
	char name[POOL_NAME_MAX + 1];
};

enum fact_state { FACT_CREATING, FACT_LIVE, FACT_DELETING };
const char *fact_state_name(enum fact_state state); /* "creating" ... */

struct fact_volume {
	struct list link;
	struct uuid id, home_id;
	uint64_t revision, size_bytes, created_wall_ns;
	uint32_t lba_bytes;
	enum fact_state state;
	char name[POOL_NAME_MAX + 1];
};

/* What is worth knowing of a view without being its engine. */
struct fact_view {
	struct list link;
	struct uuid volume_id, engine_id;
	uint64_t revision, epoch;
	uint32_t count;
	struct uuid pools[VIEW_REPLICAS_MAX];
	enum view_role roles[VIEW_REPLICAS_MAX];
};

struct fact_reap {
	struct list link;
	struct uuid pool_id, volume_id;
	uint64_t revision;
	bool begun; /* the copy may be gone already */
};

struct facts {
	struct list nodes, pools, volumes, views, reaps;
	bool has_format;
};

void facts_init(struct facts *f);
void facts_clear(struct facts *f);
/* All of `from`, which is empty afterwards, in place of what there was. */
void facts_take(struct facts *f, struct facts *from);
/* One entry of a list or a watch. OXE_CORRUPT, OXE_VERSION: its value is not understood, and what was known of it is forgotten. Keys that
 * mean nothing here are passed over. */
OX_CHECKED int facts_apply(struct facts *f, const struct meta_entry *entry, uint64_t now_ns);

/* NULL: there is none. */
const struct fact_node *facts_node(const struct facts *f, const struct uuid *id);
const struct fact_pool *facts_pool(const struct facts *f, const struct uuid *id);
const struct fact_volume *facts_volume(const struct facts *f, const struct uuid *id);
const struct fact_volume *facts_volume_named(const struct facts *f, const char *name);
const struct fact_view *facts_view(const struct facts *f, const struct uuid *volume_id);
const struct fact_reap *facts_reap(const struct facts *f, const struct uuid *pool_id,
				   const struct uuid *volume_id);

#define FACT_KEY_SIZE 160 /* with the NUL */

void fact_key(char key[FACT_KEY_SIZE], const char *kind, const struct uuid *id);
void fact_name_key(char key[FACT_KEY_SIZE], const char *name);
void fact_reap_key(char key[FACT_KEY_SIZE], const struct uuid *pool_id, const struct uuid *volume_id);
void fact_note_key(char key[FACT_KEY_SIZE], const struct uuid *volume_id, unsigned kind);

/* Values, to be free()d; their length is that of the text. */
char *fact_format_value(void);
char *fact_node_value(const struct fact_node *node);
char *fact_pool_value(const struct fact_pool *pool);
char *fact_volume_value(const struct fact_volume *volume);
char *fact_name_value(const struct uuid *volume_id);
char *fact_reap_value(bool begun);

#endif
