/*
 * attach_record.h: one attachment as text: what was meant to be on this host, for whom, and how far it had come. Pure functions
 * over bytes from disk.
 *
 *     oxbow-attachment 1
 *     id 8c2f...-....
 *     phase made
 *     by nvme
 *     volume default/disk
 *     link disk
 *     owner admin
 *     at 127.0.0.1:4420
 *     ...
 *     end
 *
 * A line a word and its value, in any order, each but `owner` at most once; what is empty is left out. The last line is there to
 * tell a whole record from the beginning of one.
 */
#ifndef OXBOW_HOST_ATTACH_RECORD_H
#define OXBOW_HOST_ATTACH_RECORD_H

#include "base/text.h"
#include "base/uuid.h"

#define ATTACH_OWNERS_MAX     8
#define ATTACH_OWNER_SIZE     64
#define ATTACH_NAME_SIZE      256
#define ATTACH_ADDRESS_SIZE   512
#define ATTACH_HOST_NQN_SIZE  224
#define ATTACH_RECORD_MAX     8192 /* bytes of text */
#define ATTACH_BLOCK_SIZE_MAX 4096

/* intended: being made, nobody was told of it; made: somebody was; leaving: being taken away. */
enum attach_phase { ATTACH_INTENDED, ATTACH_MADE, ATTACH_LEAVING, ATTACH_PHASE_COUNT };
enum attach_by { ATTACH_BY_NVME, ATTACH_BY_UBLK, ATTACH_BY_NBD, ATTACH_BY_COUNT };

struct attach_record {
	struct uuid id; /* of the volume or snapshot */
	enum attach_phase phase;
	enum attach_by by;
	bool read_only;
	uint32_t block_size_bytes;	     /* 0: not known */
	unsigned owner_count;		     /* at least one in a record on disk */
	char volume[ATTACH_NAME_SIZE];	     /* POOL/VOLUME[@SNAPSHOT], for people */
	char link[ATTACH_NAME_SIZE];	     /* below the directory of links */
	char device[ATTACH_NAME_SIZE];	     /* when last seen; empty: not yet */
	char at[ATTACH_ADDRESS_SIZE];	     /* nvme: HOST:PORT; nbd: a URI */
	char host_nqn[ATTACH_HOST_NQN_SIZE]; /* nvme: who we are */
	char host_id[UUID_TEXT_LEN + 1];
	char secret_file[ATTACH_ADDRESS_SIZE], controller_secret_file[ATTACH_ADDRESS_SIZE];
	char owners[ATTACH_OWNERS_MAX][ATTACH_OWNER_SIZE];
};

void attach_record_print(const struct attach_record *r, struct text *out);
/* `text` ends in a NUL. OXE_VERSION, OXE_CORRUPT. */
OX_CHECKED int attach_record_parse(const char *text, struct attach_record *out);

const char *attach_phase_name(enum attach_phase phase);
const char *attach_by_name(enum attach_by by);
/* OXE_INVAL: there is no such way. */
OX_CHECKED int attach_by_parse(const char *name, enum attach_by *out);
/* A path below a directory, of the bytes that names have, that does not lead out of it. */
bool attach_link_is_sane(const char *link);
bool attach_owner_is_sane(const char *owner);

/* The place of an owner in the record; owner_count if there is no such one. */
unsigned attach_owner_find(const struct attach_record *r, const char *owner);
/* Once. OXE_TOOBIG: there are ATTACH_OWNERS_MAX. */
OX_CHECKED int attach_owner_add(struct attach_record *r, const char *owner);
void attach_owner_remove(struct attach_record *r, const char *owner);

#endif
