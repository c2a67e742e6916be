/*
 * host_ublk.h: what the two files that speak ublk share. Private to host/.
 *
 *     host_ublk_abi.h        the kernel's layouts and numbers
 *     host_ublk_control.c    commands: make, start, recover, stop, delete
 *     host_ublk.c            devices and their requests
 *
 * Results of commands are the kernel's: -errno or more.
 */
#ifndef OXBOW_HOST_HOST_UBLK_H
#define OXBOW_HOST_HOST_UBLK_H

#include "host/host_internal.h"
#include "host/host_ublk_abi.h"

struct host_ublk;

/* The reactor's way to the driver, made at the first call. OXE_UNSUPPORTED: no driver, or one older than Linux 6.5. Suspends. */
OX_CHECKED int host_ublk_open(struct host *h, struct host_ublk **out);
uint64_t ublk_features(const struct host_ublk *u);

/* Suspend until the kernel has answered. Buffers must not move until then. */
int ublk_control(struct host_ublk *u, uint32_t op, const struct ublk_control_wire *command);
int ublk_control_simple(struct host_ublk *u, uint32_t op, uint32_t device, uint64_t value);
int ublk_control_buffer(struct host_ublk *u, uint32_t op, uint32_t device, void *buffer, size_t len_bytes);

#endif
