#!/usr/bin/python3
"""The kernel's own NBD client, in a real Linux 6.12 (user-mode Linux, half a second to boot): multi-connection, file systems.

    tests/nbd_kernel_test.py [NAME ...]       only the tests whose names contain NAME

Needs root, iproute2 and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is skipped.
The second half of this file runs inside the guest: `nbd_kernel_test.py --in-guest FILESYSTEM PORT`.
"""
import fcntl
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
import guest  # noqa: E402
import harness  # noqa: E402
from harness import GIB, MIB  # noqa: E402

NETNS = guest.netns("oxnbd")
SIZE = 512 * MIB


# ---- outside ------------------------------------------------------------------------------------------------------------

def kernel_round_trip(filesystem, port):
    with harness.scratch_dir() as directory, guest.network(NETNS):
        daemon = guest.NetnsDaemon(NETNS, directory, f"--init-pool={directory}/pool.img,{GIB}", f"--nbd=tcp:{guest.HOST}:{port}",
                                   "--nbd-insecure")
        try:
            daemon.start()
            daemon.api.volume_create("disk", SIZE)
            guest.run(__file__, NETNS, os.path.join(directory, "guest"), 100, filesystem, port)
            daemon.api.close_wait("volume", "disk")
            daemon.pool_check()
        finally:
            daemon.stop()


def the_kernel_makes_fills_trims_and_checks_ext4_over_two_connections():
    kernel_round_trip("ext4", "10911")


def the_kernel_makes_fills_trims_and_checks_xfs_over_two_connections():
    kernel_round_trip("xfs", "10912")


# ---- inside -------------------------------------------------------------------------------------------------------------

# linux/nbd.h
NBD_SET_SOCK, NBD_SET_BLKSIZE, NBD_DO_IT, NBD_SET_SIZE_BLOCKS, NBD_DISCONNECT, NBD_SET_FLAGS = \
    0xab00, 0xab01, 0xab03, 0xab07, 0xab08, 0xab0a


def take(connection, n):
    data = b""
    while len(data) < n:
        data += connection.recv(n - len(data))
    return data


def attach_socket(port):
    """The shortest handshake there is; returns the socket, the size and the transmission flags."""
    connection = socket.create_connection((guest.HOST, port))
    take(connection, 18)
    connection.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 4) + b"disk")
    return connection, *struct.unpack(">QH", take(connection, 10))


def attach(device, port, connections=2):
    """What nbd-client does, in the older of its two ways. Returns a descriptor that ends it."""
    fd = os.open(device, os.O_RDWR)
    sockets = []
    for _ in range(connections):
        connection, size, flags = attach_socket(port)
        sockets.append(connection)
        if len(sockets) == 1:
            fcntl.ioctl(fd, NBD_SET_BLKSIZE, 512)
            fcntl.ioctl(fd, NBD_SET_SIZE_BLOCKS, size // 512)
            fcntl.ioctl(fd, NBD_SET_FLAGS, flags)
        fcntl.ioctl(fd, NBD_SET_SOCK, connection.fileno())
    if os.fork() == 0:
        fcntl.ioctl(fd, NBD_DO_IT)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not os.path.exists(f"/sys/block/{os.path.basename(device)}/pid"):
        if time.monotonic() > deadline:
            raise harness.Broken("the kernel did not attach the device")
        time.sleep(0.01)
    return fd


def in_guest(filesystem, port):
    device = "/dev/nbd0"
    fd = attach(device, int(port))
    guest.fill_trim_and_check(filesystem, device)
    fcntl.ioctl(fd, NBD_DISCONNECT)


TESTS = [
    the_kernel_makes_fills_trims_and_checks_ext4_over_two_connections,
    the_kernel_makes_fills_trims_and_checks_xfs_over_two_connections,
]


if __name__ == "__main__":
    guest.main(TESTS, ("mkfs.ext4", "mkfs.xfs", "xfs_repair", "fstrim"), in_guest)
