/*
 * cluster_history.h: what clients were promised, sector by sector, and whether what they read keeps the promise.
 *
 * Each write has a value of its own and two moments: asked, and ended. It may end acknowledged or unknown (its engine died or was fenced).
 * A read may return a value if its write had been asked before the read ended, and no acknowledged write lies wholly between the two.
 * What a read returned also decides: a write that had ended before the read began, and was not seen, is over for ever. So an unknown
 * outcome stays possible until a read settles it, and then never flips.
 *
 * A flush makes what was acknowledged before it was asked durable. When all machines that have a write lose their power at once, what was not
 * durable may be gone: history_power_loss.
 */
#ifndef OXBOW_SIM_CLUSTER_HISTORY_H
#define OXBOW_SIM_CLUSTER_HISTORY_H

#include "base/base.h"

#define HISTORY_SECTOR_BYTES 512u

struct history;
struct history_write {
	uint64_t first, count, value, asked;
};

struct history *history_new(uint64_t sectors);
void history_free(struct history *h);
/* More sectors, all zero. */
void history_grow(struct history *h, uint64_t sectors);

/* Moments are counted, not timed. */
uint64_t history_now(struct history *h);

/* value 0: zeroes. */
void history_write_begin(struct history *h, struct history_write *w, uint64_t first, uint64_t count,
			 uint64_t value);
void history_write_end(struct history *h, const struct history_write *w, bool acknowledged);
/* It was acknowledged, and is durable. */
void history_write_durable(struct history *h, const struct history_write *w);
/* `asked` is of history_now(), before the flush; call when it was acknowledged. */
void history_flush_end(struct history *h, uint64_t asked);
void history_power_loss(struct history *h);

/* May a read that was asked at that moment, and ends now, have found this? It counts as such a read. False: `why` says. */
bool history_read_end(struct history *h, uint64_t asked, uint64_t first, uint64_t count, const uint8_t *data,
		      char *why, size_t why_bytes);

/* Does the page hold what a client wrote? */
bool history_is_data(const uint8_t *sector);
/* The content of a sector that has a value. */
void history_fill(uint8_t sector[HISTORY_SECTOR_BYTES], uint64_t value, uint64_t number);

/* What a snapshot that was asked at that moment and ends now may hold: to be compared later, again and again. */
struct history_image;
struct history_image *history_image_new(struct history *h, uint64_t asked);
void history_image_free(struct history_image *image);
uint64_t history_image_sectors(const struct history_image *image);
/* What it was found to hold is what it holds from now on. */
bool history_image_check(struct history_image *image, uint64_t first, uint64_t count, const uint8_t *data,
			 char *why, size_t why_bytes);

/* Everything becomes what the image may hold, and zeroes beyond: one write of all there is, durable if it is acknowledged. */
void history_revert_begin(struct history *h, struct history_write *w, const struct history_image *image);
void history_revert_end(struct history *h, const struct history_write *w, bool acknowledged);

#endif
