/* sim_wire.h: the protocol of copies (docs/protocol.md) between the nodes of a simulated cluster. */
#ifndef OXBOW_CMD_SIM_WIRE_H
#define OXBOW_CMD_SIM_WIRE_H

#include "sim/cluster.h"

extern const struct cluster_wire sim_wire;

#endif
