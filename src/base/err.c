/* err.c: the table of err.h, looked up. */
#include "base/err.h"

static const struct {
	const char *name;
	int parent;
	const char *text;
} errors[] = {
#define OX_ERR_ROW(name, parent, text) {#name, parent, text},
	OX_ERRORS(OX_ERR_ROW)
#undef OX_ERR_ROW
};

static int err_index(int err)
{
	return err > OX_ERR_BASE && err < OX_ERR_END ? err - OX_ERR_BASE - 1 : -1;
}

const char *err_name(int err)
{
	int index = err_index(err);
	return err == 0 ? "OK" : index < 0 ? "UNKNOWN" : errors[index].name;
}

const char *err_text(int err)
{
	int index = err_index(err);
	return err == 0 ? "success" : index < 0 ? "unknown error" : errors[index].text;
}

int err_errno(int err)
{
	int index = err_index(err);
	return err == 0 ? 0 : index < 0 ? EIO : errors[index].parent;
}

int err_from_errno(int os_errno)
{
	switch (os_errno) {
	case 0:
		return 0;
	case ENOMEM:
		return OXE_NOMEM;
	case ENOSPC:
	case EDQUOT:
		return OXE_NOSPC;
	case EINVAL:
		return OXE_INVAL;
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return OXE_NOENT;
	case EEXIST:
		return OXE_EXISTS;
	case EBUSY:
	case ETXTBSY:
	case EADDRINUSE:
		return OXE_BUSY;
	case EROFS:
		return OXE_ROFS;
	case EACCES:
	case EPERM:
		return OXE_PERM;
	case ETIMEDOUT:
		return OXE_TIMEOUT;
	case ECONNRESET:
	case EPIPE:
	case ECONNREFUSED:
	case ENOTCONN:
		return OXE_CLOSED;
	case ECANCELED:
		return OXE_CANCELLED;
	case EOPNOTSUPP:
		return OXE_UNSUPPORTED;
	case EIO:
	case EREMOTEIO:
	case ENODATA:
	case EILSEQ:
		return OXE_IO;
	default:
		return OXE_SYS;
	}
}
