#!/usr/bin/python3
"""The kernel's own NBD client, in a real Linux 6.12 (user-mode Linux, half a second to boot): multi-connection, file systems.

    tests/nbd_kernel_test.py [NAME ...]       only the tests whose names contain NAME

Needs root, iproute2 and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is skipped.
The second half of this file runs inside the guest: `nbd_kernel_test.py --in-guest FILESYSTEM PORT`.
"""
import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, expect  # noqa: E402

NETNS = "oxnbd"
HOST = "10.0.2.2"
TREE = "/usr/include/linux"
SIZE = 512 * MIB
GUEST_RUN = os.environ.get("GUEST_RUN") or next(
    (path for up in ("..", "../..") if os.path.exists(path := os.path.join(harness.ROOT, up, "shared/guest/run"))), None)


# ---- outside ------------------------------------------------------------------------------------------------------------

class NetnsDaemon(harness.Daemon):
    """A daemon where the guest can reach it."""

    def spawn(self, *more):
        command = ["ip", "netns", "exec", NETNS, self.program, "--data-dir", self.data_dir, *self.arguments, *more]
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def network():
    """What guest/run would make, made before it, because the daemon must listen first."""
    ip("netns", "add", NETNS)
    try:
        ip("-n", NETNS, "link", "set", "lo", "up")
        ip("netns", "exec", NETNS, "ip", "tuntap", "add", "tap0", "mode", "tap")
        ip("-n", NETNS, "addr", "add", f"{HOST}/24", "dev", "tap0")
        ip("-n", NETNS, "link", "set", "tap0", "up")
        yield
    finally:
        ip("netns", "del", NETNS)


def guest(directory, *arguments):
    command = [GUEST_RUN, "-N", NETNS, "-t", "100", "-o", os.path.join(directory, "guest"), "--", os.path.abspath(__file__),
               "--in-guest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=150)
    expect(done.returncode == 0, f"in the guest: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-2000:]}")


def kernel_round_trip(filesystem, port):
    with harness.scratch_dir() as directory, network():
        daemon = NetnsDaemon(directory, f"--init-pool={directory}/pool.img,{GIB}", f"--nbd=tcp:{HOST}:{port}",
                             "--nbd-insecure")
        try:
            daemon.start()
            daemon.api.volume_create("disk", SIZE)
            guest(directory, filesystem, port)
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
CHECKS = {"ext4": ("fsck.ext4", "-f", "-n"), "xfs": ("xfs_repair", "-n")}


def take(connection, n):
    data = b""
    while len(data) < n:
        data += connection.recv(n - len(data))
    return data


def attach_socket(port):
    """The shortest handshake there is; returns the socket, the size and the transmission flags."""
    connection = socket.create_connection((HOST, port))
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


def call(*command):
    print("+", *command, flush=True)
    subprocess.run(command, check=True, stdout=sys.stdout, stderr=sys.stdout)


def in_guest(filesystem, port):
    device, mountpoint = "/dev/nbd0", "/tmp/mnt"
    fd = attach(device, int(port))
    os.makedirs(mountpoint)
    call(f"mkfs.{filesystem}", "-q", device)
    call("mount", device, mountpoint)
    call("cp", "-a", TREE, mountpoint)
    call("cp", "-a", TREE, mountpoint + "/gone")
    call("sync", "-f", mountpoint)
    shutil.rmtree(mountpoint + "/gone")
    call("fstrim", "-v", mountpoint)
    call("umount", mountpoint)
    call(*CHECKS[filesystem], device)
    call("mount", "-o", "ro", device, mountpoint)
    call("diff", "-r", TREE, os.path.join(mountpoint, os.path.basename(TREE)))
    call("umount", mountpoint)
    fcntl.ioctl(fd, NBD_DISCONNECT)


TESTS = [
    the_kernel_makes_fills_trims_and_checks_ext4_over_two_connections,
    the_kernel_makes_fills_trims_and_checks_xfs_over_two_connections,
]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-guest"]:
        in_guest(*sys.argv[2:])
        sys.exit(0)
    if os.geteuid() != 0:
        harness.skip("a guest with a network needs root")
    if not GUEST_RUN or not os.path.exists(os.path.join(os.path.dirname(GUEST_RUN), "linux.uml")):
        harness.skip("no guest kernel (GUEST_RUN)")
    missing = [tool for tool in ("ip", "mkfs.ext4", "mkfs.xfs", "xfs_repair", "fstrim") if not shutil.which(tool)]
    if missing:
        harness.skip(f"not installed: {', '.join(missing)}")
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
