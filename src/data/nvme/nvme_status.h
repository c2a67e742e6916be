/* nvme_status.h: a status (nvme_format.h: 15 bits, without the phase tag) for people. */
#ifndef OXBOW_DATA_NVME_NVME_STATUS_H
#define OXBOW_DATA_NVME_NVME_STATUS_H

#include "base/base.h"

/* The sentence for its type and code, whatever its other bits; "unknown status" for one that is not in the table. Static
 * text. Values from 0x180 on are read as Connect means them. */
const char *nvme_status_text(uint16_t status);

#endif
