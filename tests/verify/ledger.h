/*
 * ledger.h: what a client was promised, kept in a mapped file that outlives the client and the daemon.
 *
 * A volume is seen as units of 512 or 4096 bytes. Every command that changes units has a sequence number, from 1, never
 * used twice; it makes each unit it covers either a stamp (who, which unit, which command, a CRC) or zeroes, and which of
 * the two follows from the number alone. So any unit ever read says by itself when it was written, and a unit of zeroes is
 * checked against the commands that may have made it so.
 *
 *     tag            whose stamps: one a volume. A clone starts with the stamps of its origin
 *     acked          the last command on this unit that was acknowledged; 0: never written
 *     issued         the last one sent; differs from acked while that is in flight, or was when the daemon died
 *     flushed        what was acknowledged when the last FLUSH that succeeded was sent: all a power cut must leave
 *     zeroed         the last command sent that makes it zeroes: zeroes do not say themselves who wrote them
 */
#ifndef OXBOW_TESTS_VERIFY_LEDGER_H
#define OXBOW_TESTS_VERIFY_LEDGER_H

#include "base/base.h"

#define LEDGER_MAGIC	 UINT64_C(0x7265676465784f31)
#define LEDGER_UNITS_MAX (1u << 20)
#define LEDGER_STAMP_UNIT                                                                                    \
	512 /* the smallest unit, and the part of a larger one that is stamped and checked as one */

struct ledger_unit {
	uint32_t acked, acked_tag;
	uint32_t issued, flushed, zeroed;
};

struct ledger {
	uint64_t magic;
	uint32_t tag, unit_bytes;
	uint32_t next_seq;
	uint32_t
		floor_seq; /* commands up to this one were undone by a revert: their stamps may not come back */
	uint32_t unit_count;
	uint32_t reserved[9];
	struct ledger_unit units[];
};

/* Map the ledger at `path`, or make one (then `tag` and `unit_bytes` matter). Exits with a message if it cannot. */
struct ledger *ledger_create(const char *path, uint32_t tag, uint32_t unit_bytes, uint32_t unit_count);
struct ledger *ledger_open(const char *path);
/* The volume now has this many units: new ones read as zeroes, and what is cut off stays cut off. */
void ledger_resize(struct ledger *l, uint32_t unit_count);

/* Whether command `seq` of `tag` writes zeroes. Command 0 is "never written". */
bool command_is_zero(uint32_t tag, uint32_t seq);
void stamp_fill(void *data, uint32_t unit_bytes, uint32_t tag, uint32_t unit, uint32_t seq);

/* What a unit holds, by itself. */
enum content_kind { CONTENT_ZERO, CONTENT_STAMP, CONTENT_GARBAGE };
struct content {
	enum content_kind kind;
	uint32_t tag, unit, seq; /* of a stamp, and of garbage as far as it can be read */
};
struct content content_of(const void *data, uint32_t unit_bytes);
/* For a message: "zeroes", "unit 7 of tag 3 as of command 12" ... Static text, overwritten by the next call but one. */
const char *content_text(struct content c);

/* Whether `c` in unit `index` is what command `seq` of `tag` left there. */
bool content_is(struct content c, uint32_t index, uint32_t tag, uint32_t seq);

#endif
