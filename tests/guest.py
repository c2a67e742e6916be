"""A real Linux 6.12 for a test: user-mode Linux, half a second to boot, with this machine's file system as its root.

A test that needs it is one file that runs twice: outside, where it starts a daemon and the guest, and inside, as
`FILE --in-guest ARGUMENT ...`. Needs root, iproute2 and the guest's kernel ($GUEST_RUN, or shared/guest/run above the project).
"""
import contextlib
import os
import shutil
import subprocess
import sys

import harness
from harness import expect

HOST = "10.0.2.2"  # where the guest finds what listens in its network namespace
TREE = "/usr/include/linux"
CHECKS = {"ext4": ("fsck.ext4", "-f", "-n"), "xfs": ("xfs_repair", "-n")}
GUEST_RUN = os.environ.get("GUEST_RUN") or next(
    (path for up in ("..", "../..") if os.path.exists(path := os.path.join(harness.ROOT, up, "shared/guest/run"))), None)


# ---- outside ------------------------------------------------------------------------------------------------------------

class NetnsDaemon(harness.Daemon):
    """A daemon where the guest can reach it."""

    def __init__(self, namespace, directory, *arguments):
        super().__init__(directory, *arguments)
        self.namespace = namespace

    def wrapper(self):
        return ["ip", "netns", "exec", self.namespace]


def netns(usual):
    """The name of a test's network namespace. Two runs on one machine need two, and what the guest's script makes stays behind: so
    $OXBOW_NETNS goes before the name, and does not replace it."""
    return os.environ.get("OXBOW_NETNS", "") + usual


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def network(namespace):
    """What guest/run would make, made before it, because the daemon must listen first."""
    ip("netns", "add", namespace)
    try:
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("netns", "exec", namespace, "ip", "tuntap", "add", "tap0", "mode", "tap")
        ip("-n", namespace, "addr", "add", f"{HOST}/24", "dev", "tap0")
        ip("-n", namespace, "link", "set", "tap0", "up")
        yield
    finally:
        ip("netns", "del", namespace)


def run(file, namespace, shared, limit_s, *arguments, options=()):
    """Boot a guest in which `file` runs with these arguments; its directory `shared` is seen by both. Returns what it said."""
    command = [GUEST_RUN, *options, "-N", namespace, "-t", str(limit_s), "-o", shared, "--", os.path.abspath(file), "--in-guest",
               *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          timeout=limit_s + 20, check=False)
    expect(done.returncode == 0, f"in the guest: status {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
    return done.stdout


def main(tests, tools, in_guest):
    """The end of such a file: run the tests, or be the guest's part."""
    if sys.argv[1:2] == ["--in-guest"]:
        in_guest(*sys.argv[2:])
        sys.exit(0)
    if os.geteuid() != 0:
        harness.skip("a guest needs root")
    if not GUEST_RUN or not os.path.exists(os.path.join(os.path.dirname(GUEST_RUN), "linux.uml")):
        harness.skip("no guest kernel (GUEST_RUN)")
    missing = [tool for tool in ("ip", *tools) if not shutil.which(tool)]
    if missing:
        harness.skip(f"not installed: {', '.join(missing)}")
    sys.exit(harness.run_tests(tests, sys.argv[1:]))


# ---- inside -------------------------------------------------------------------------------------------------------------

def call(*command, timeout=120):
    print("+", *command, flush=True)
    subprocess.run(command, check=True, stdout=sys.stdout, stderr=sys.stdout, timeout=timeout)


def fill(kind, device, mountpoint):
    """Make a file system, mount it, and put a tree into it twice."""
    call(f"mkfs.{kind}", "-q", device)
    call("mount", device, mountpoint)
    call("cp", "-a", TREE, mountpoint)
    call("cp", "-a", TREE, mountpoint + "/gone")
    call("sync", "-f", mountpoint)


def check(kind, device, mountpoint):
    """It is in order, and the tree is what it was."""
    call(*CHECKS[kind], device)
    call("mount", "-o", "ro", device, mountpoint)
    call("diff", "-r", TREE, os.path.join(mountpoint, os.path.basename(TREE)))
    call("umount", mountpoint)


def fill_trim_and_check(kind, device, mountpoint="/tmp/mnt"):
    os.makedirs(mountpoint)
    fill(kind, device, mountpoint)
    shutil.rmtree(mountpoint + "/gone")
    call("fstrim", "-v", mountpoint)
    call("umount", mountpoint)
    check(kind, device, mountpoint)
