/*
 * err.h: every error Oxbow returns, once, with its parent errno and its sentence.
 *
 * A function returns 0 or one of these negative codes, never a bare -errno and never -1: a number from the kernel passes
 * through err_from_errno() at the door. The name is what programs match on (API field "error"), the sentence is what a
 * person reads. Add at the end of the table: the numbers are not stored on disk, but they cross the wire between nodes
 * (docs/protocol.md), and tests print them.
 */
#ifndef OXBOW_BASE_ERR_H
#define OXBOW_BASE_ERR_H

#include "base/base.h"

#include <errno.h>

/*      name             parent errno   sentence */
#define OX_ERRORS(X)                                                                                         \
	X(NOMEM, ENOMEM, "out of memory")                                                                    \
	X(IO, EIO, "the device failed the request")                                                          \
	X(NOSPC, ENOSPC, "the pool is full")                                                                 \
	X(INVAL, EINVAL, "the request is malformed")                                                         \
	X(RANGE, EINVAL, "the range lies outside the object")                                                \
	X(ALIGN, EINVAL, "the offset or length is not a multiple of the logical block size")                 \
	X(NOENT, ENOENT, "no such object")                                                                   \
	X(EXISTS, EEXIST, "another object already has this name or id")                                      \
	X(BUSY, EBUSY, "the object is in use")                                                               \
	X(ROFS, EROFS, "the object is read-only")                                                            \
	X(PERM, EACCES, "not permitted")                                                                     \
	X(CORRUPT, EUCLEAN, "what was read is not what was written")                                         \
	X(NOTPOOL, EMEDIUMTYPE, "the disk holds no Oxbow pool")                                              \
	X(OCCUPIED, EEXIST, "the disk holds something Oxbow did not write")                                  \
	X(VERSION, EPROTONOSUPPORT, "the format is newer than this program")                                 \
	X(TOOSMALL, ENOSPC, "the disk is too small")                                                         \
	X(SHUTDOWN, ESHUTDOWN, "the service is stopping")                                                    \
	X(FAILED, EIO, "an earlier device error stopped the pool")                                           \
	X(TIMEOUT, ETIMEDOUT, "no answer in time")                                                           \
	X(CLOSED, ECONNRESET, "the peer closed the connection")                                              \
	X(CANCELLED, ECANCELED, "cancelled on request")                                                      \
	X(PROTO, EPROTO, "the peer broke the protocol")                                                      \
	X(UNSUPPORTED, EOPNOTSUPP, "not supported")                                                          \
	X(TOOBIG, EMSGSIZE, "larger than the limit")                                                         \
	X(NOTREADY, EAGAIN, "not ready yet")                                                                 \
	X(CHILDREN, EBUSY, "clones or newer layers depend on it")                                            \
	X(SYS, EIO, "the operating system refused")                                                          \
	X(INDOUBT, EIO, "whether the request was carried out is not known")                                  \
	X(DIFFERS, EILSEQ, "what is there is not what it was compared with")                                 \
	X(COMPACTED, ESTALE, "the history asked for is no longer kept")                                      \
	X(FENCED, ESTALE, "a newer engine has the volume")

enum ox_err {
	OX_OK = 0,
	OX_ERR_BASE = -5000,
#define OX_ERR_ENUM(name, parent, text) OXE_##name,
	OX_ERRORS(OX_ERR_ENUM)
#undef OX_ERR_ENUM
		OX_ERR_END
};

/* "NOSPC" for OXE_NOSPC, "OK" for 0, "UNKNOWN" for a number that is not ours. Static text. */
const char *err_name(int err);
/* The sentence, static text, without a full stop. */
const char *err_text(int err);
/* The parent errno (positive), for protocols that carry one; 0 for 0. */
int err_errno(int err);
/* The nearest OXE_ code for a positive errno; 0 for 0. Unknown ones become OXE_SYS. */
int err_from_errno(int os_errno);

#endif
