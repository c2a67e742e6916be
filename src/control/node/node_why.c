/* node_why.c: errors as sentences with advice. The advice that depends only on the error is in the table here. */
#include "control/node/node_impl.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
	int err;
	const char *hint;
} hints[] = {
	{OXE_NOSPC,
	 "free space with 'oxbow snapshot delete' or 'oxbow volume delete', or add some with 'oxbow "
	 "pool grow'"},
	{OXE_BUSY, "disconnect the clients that use it, then try again"},
	{OXE_EXISTS, "choose another name, or look at what is there with 'oxbow volume list'"},
	{OXE_FAILED,
	 "the pool is being closed and reopened; watch it with 'oxbow pool list' and 'oxbow events -f'"},
	{OXE_NOTREADY, "wait for it with 'oxbow ready --wait 60'"},
	{OXE_CORRUPT, "examine the disk with 'oxbowd --check PATH', and do not write to it"},
	{OXE_VERSION, "upgrade oxbowd on this host"},
	{OXE_NOTPOOL, "make a pool on it with 'oxbow pool create PATH --name NAME'"},
	{OXE_PERM, "oxbowd needs read and write permission on the disk"},
	{OXE_IO, "look at the kernel's log for the device ('dmesg')"},
	{OXE_CHILDREN, "make the clones independent with 'oxbow volume flatten', or delete them"},
};

static const char *hint_for(int err)
{
	for (size_t i = 0; i < ARRAY_COUNT(hints); i++) {
		if (hints[i].err == err)
			return hints[i].hint;
	}
	return "";
}

OX_PRINTF(3, 0)
static void why_format(struct node_why *why, int err, const char *format, va_list args)
{
	vsnprintf(why->message, sizeof(why->message), format, args);
	snprintf(why->hint, sizeof(why->hint), "%s", hint_for(err));
}

int why_set(struct node_why *why, int err, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	why_format(why, err, format, args);
	va_end(args);
	return err;
}

static void why_add(struct node_why *why, const char *sentence)
{
	size_t used = strlen(why->message);
	snprintf(why->message + used, sizeof(why->message) - used, ": %s", sentence);
}

int why_failed(struct node_why *why, int err, const char *format, ...)
{
	va_list args;
	if (err == 0)
		return 0;
	va_start(args, format);
	why_format(why, err, format, args);
	va_end(args);
	why_add(why, err_text(err));
	return err;
}

int why_file_failed(struct node_why *why, int err, const char *format, ...)
{
	va_list args;
	if (err == 0)
		return 0;
	va_start(args, format);
	why_format(why, err, format, args);
	va_end(args);
	why_add(why, err == OXE_NOSPC ? "the file system is full" : err_text(err));
	if (err == OXE_NOSPC)
		why_hint(why, "free space on that file system ('df' shows it)");
	return err;
}

void why_hint(struct node_why *why, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why->hint, sizeof(why->hint), format, args);
	va_end(args);
}
