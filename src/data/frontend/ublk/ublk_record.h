/*
 * ublk_record.h: the list of attachments as text, and the mark on a device. Pure functions over bytes from disk.
 *
 *     oxbow-ublk 1
 *     8c2f...-.... 3 attached fast/db
 *     0b77...-.... - leaving fast/old@monday
 *
 * A line an attachment: the id of the volume or snapshot, the device's number ('-': none yet), what is wanted, and the name
 * when it was last seen (for people; '-': none).
 */
#ifndef OXBOW_DATA_FRONTEND_UBLK_UBLK_RECORD_H
#define OXBOW_DATA_FRONTEND_UBLK_UBLK_RECORD_H

#include "base/text.h"
#include "data/engine/engine.h"

struct ublk_line {
	struct uuid id;
	uint32_t number; /* or UBLK_NO_NUMBER */
	bool leaving;
	char name[ENGINE_EXPORT_NAME_MAX + 1];
};

void ublk_record_begin(struct text *out);
void ublk_record_add(struct text *out, const struct ublk_line *line);

/* The lines of a record, one after the other. Start with `*at` at its first byte. OXE_VERSION, OXE_CORRUPT. */
OX_CHECKED int ublk_record_open(const char **at);
/* OXE_NOENT after the last one. */
OX_CHECKED int ublk_record_next(const char **at, struct ublk_line *out);

/* The word on a device: 8 bits that say Oxbow, 20 which server, 36 which volume. */
uint64_t ublk_mark(const char *identity, const struct uuid *id);
/* Is it one of this server's, whatever the volume? */
bool ublk_mark_is_ours(const char *identity, uint64_t mark);

#endif
