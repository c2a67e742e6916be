/* host_survivor.h: what host_net.c tells the survivor (host_survivor.c). */
#ifndef OXBOW_HOST_HOST_SURVIVOR_H
#define OXBOW_HOST_HOST_SURVIVOR_H

#include <stdbool.h>

/* A socket that was accepted, before a ring gets it. True if the survivor has it now: before it is closed it is to be shut down, or its
 * peer would not hear of the close. From any thread; does not block. */
bool host_survivor_tell(int fd);

#endif
