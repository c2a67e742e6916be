/* tls_offer.c: see tls_offer.h. */
#include "data/tls/tls_offer.h"

#include "base/bytes.h"
#include "base/err.h"

#define AGE_BYTES 4 /* of a ticket; after each identity */

static size_t be16_at(const uint8_t *at)
{
	return (size_t)at[0] << 8 | at[1];
}

/* An identity and its age; NULL: there is not that much. */
static const uint8_t *after_identity(const uint8_t *at, const uint8_t *end)
{
	if (end - at < 2)
		return NULL;
	size_t whole_bytes = 2 + be16_at(at) + AGE_BYTES;
	return (size_t)(end - at) < whole_bytes ? NULL : at + whole_bytes;
}

int tls_offer_open(const void *data, size_t len_bytes, struct tls_offer *out)
{
	const uint8_t *at = data;
	if (len_bytes < 2 || len_bytes - 2 < be16_at(at))
		return OXE_PROTO;
	*out = (struct tls_offer){at + 2, at + 2 + be16_at(at)};
	for (at = out->at; at && at < out->end;)
		at = after_identity(at, out->end);
	return at && out->at < out->end ? 0 : OXE_PROTO;
}

bool tls_offer_next(struct tls_offer *offer, char *identity, size_t max_bytes)
{
	while (offer->at < offer->end) {
		const uint8_t *text = offer->at + 2;
		size_t length = be16_at(offer->at);
		offer->at = text + length + AGE_BYTES;
		if (length == 0 || length > max_bytes || memchr(text, '\0', length))
			continue;
		memcpy(identity, text, length);
		identity[length] = '\0';
		return true;
	}
	return false;
}
