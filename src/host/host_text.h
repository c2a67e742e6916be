/*
 * host_text.h: small files that are replaced whole, so that a reader finds the old text or the new, also after a power cut.
 *
 * The calls block, on a disk: for commands and worker threads, not for reactors. Errors are those of err_from_errno().
 */
#ifndef OXBOW_HOST_HOST_TEXT_H
#define OXBOW_HOST_HOST_TEXT_H

#include "base/base.h"

/* Written beside, as NAME.new, made durable, renamed, and the directory made durable. What a crash left beside is written over. */
OX_CHECKED int host_text_replace(const char *dir, const char *name, const char *text);
/* What was made, renamed or removed in it is durable. */
OX_CHECKED int host_directory_sync(const char *dir);

#endif
