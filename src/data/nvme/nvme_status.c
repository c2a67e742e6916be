/* nvme_status.c: see nvme_status.h. */
#include "data/nvme/nvme_status.h"

#include "data/nvme/nvme_format.h"

const char *nvme_status_text(uint16_t status)
{
	switch (status & NVME_STATUS_CODE_MASK) {
#define NVME_STATUS_CASE(name, value, text)                                                                  \
	case value:                                                                                          \
		return text;
		NVME_STATUSES(NVME_STATUS_CASE)
#undef NVME_STATUS_CASE
	default:
		return "unknown status";
	}
}
