/* nbd_tls.c: see nbd_tls.h. */
#include "data/frontend/nbd/nbd_tls.h"

#include "base/log.h"

int nbd_tls_context_new(const struct nbd_tls_options *options, struct tls_context **out)
{
	const struct tls_files files = {.certificate_file = options->certificate_file,
					.key_file = options->key_file,
					.client_ca_file = options->client_ca_file};
	const char *what = "", *file = "", *because = "";
	int err = tls_context_new(&files, out, &what, &file, &because);
	if (err)
		LOG_ERROR("nbd.tls_unusable", "TLS cannot be set up", F_STR("what", what),
			  F_STR("file", file), F_STR("because", because));
	return err;
}

int nbd_tls_start(const struct tls_context *context, struct link *link, const char **because)
{
	return tls_accept(context, link->conn, &link->tls, because);
}
