#!/usr/bin/python3
"""Real file systems on a volume: ext4 and xfs on a loop device over nbdfuse, a real source tree in it, killed in the middle.

    tests/filesystem_test.py [NAME ...]       only the tests whose names contain NAME

No kernel module is needed: nbdfuse shows the volume as a file, a loop device shows the file as a disk. Needs root, FUSE and
loop devices; without them it says so and is skipped.
"""
import contextlib
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, expect  # noqa: E402

TREE = "/usr/include"
VOLUME_BYTES = 2 * GIB
FILESYSTEMS = {
    # name: (mkfs, fsck that changes nothing)
    "ext4": (["mkfs.ext4", "-q", "-E", "nodiscard"], ["fsck.ext4", "-f", "-n"]),
    "xfs": (["mkfs.xfs", "-q", "-K"], ["xfs_repair", "-n"]),
}


def run(*command, limit_s=300):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit_s)
    expect(done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def why_not():
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.path.exists("/dev/fuse"):
        return "no FUSE in this kernel (/dev/fuse)"
    if not os.path.exists("/dev/loop-control"):
        return "no loop devices in this kernel (/dev/loop-control)"
    return next((f"{tool} is not installed" for tool in ("nbdfuse", "fusermount3", "losetup", "fstrim")
                 if not shutil.which(tool)), None)


@contextlib.contextmanager
def nbdfuse(uri, directory):
    """The volume as a file."""
    mountpoint = os.path.join(directory, "fuse")
    os.makedirs(mountpoint, exist_ok=True)
    process = subprocess.Popen(["nbdfuse", mountpoint, uri], stdin=subprocess.DEVNULL)
    try:
        harness.wait_until(lambda: os.path.exists(os.path.join(mountpoint, "nbd")) or process.poll() is not None,
                           "file from nbdfuse")
        expect(process.poll() is None, "nbdfuse ended at once")
        yield os.path.join(mountpoint, "nbd")
    finally:
        subprocess.run(["fusermount3", "-u", mountpoint], check=False)
        process.wait(30)


@contextlib.contextmanager
def loop_device(file):
    device = run("losetup", "--find", "--show", file)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device, directory, kind, options="defaults"):
    mountpoint = os.path.join(directory, "mnt")
    os.makedirs(mountpoint, exist_ok=True)
    run("mount", "-t", kind, "-o", options, device, mountpoint)
    try:
        yield mountpoint
    finally:
        run("umount", mountpoint)


@contextlib.contextmanager
def disk_of(uri, directory):
    with nbdfuse(uri, directory) as file, loop_device(file) as device:
        yield device


def compare_trees(copy):
    run("diff", "-r", "--no-dereference", TREE, copy)


def write_and_compare(kind, uri, directory):
    mkfs, fsck = FILESYSTEMS[kind]
    with disk_of(uri, directory) as device:
        run(*mkfs, device)
        with mounted(device, directory, kind) as mountpoint:
            run("cp", "-a", TREE, mountpoint)
        run(*fsck, device)
        with mounted(device, directory, kind, "ro") as mountpoint:
            compare_trees(os.path.join(mountpoint, "include"))


def trim_frees(kind, daemon, uri, directory):
    before = used_bytes(daemon)
    with disk_of(uri, directory) as device, mounted(device, directory, kind) as mountpoint:
        shutil.rmtree(os.path.join(mountpoint, "include"))
        run("sync", "-f", mountpoint)
        run("fstrim", mountpoint)
    harness.wait_until(lambda: used_bytes(daemon) < before / 2, "space back after fstrim")


def used_bytes(daemon):
    return daemon.api.space()["data_bytes"]


def filesystem_round_trip(kind):
    mkfs, _ = FILESYSTEMS[kind]
    if not shutil.which(mkfs[0]):
        return f"{mkfs[0]} is not installed"
    with harness.scratch_dir() as directory:
        pool = os.path.join(directory, "pool")
        with harness.running_daemon(directory, "--init-pool", f"{pool},{2 * VOLUME_BYTES}") as daemon:
            daemon.oxbow("volume", "create", "fs", "--size", str(VOLUME_BYTES))
            uri = daemon.uri("fs")
            write_and_compare(kind, uri, directory)
            read_from_snapshot(kind, daemon, directory)
            trim_frees(kind, daemon, uri, directory)
            daemon.kill()
            daemon.start()
            daemon.pool_check()
    return None


def read_from_snapshot(kind, daemon, directory):
    """The same tree from a read-only snapshot export, after a kill. xfs and ext4 must not want to replay their logs."""
    daemon.oxbow("snapshot", "create", "fs", "full")
    daemon.kill()
    daemon.start()
    options = {"ext4": "ro,noload", "xfs": "ro,norecovery"}[kind]
    with disk_of(daemon.uri("fs@full"), directory) as device, mounted(device, directory, kind, options) as mountpoint:
        compare_trees(os.path.join(mountpoint, "include"))
    daemon.oxbow("snapshot", "delete", "fs@full")


def ext4_holds_a_source_tree_and_trim_frees_it():
    return filesystem_round_trip("ext4")


def xfs_holds_a_source_tree_and_trim_frees_it():
    return filesystem_round_trip("xfs")


TESTS = (ext4_holds_a_source_tree_and_trim_frees_it, xfs_holds_a_source_tree_and_trim_frees_it)

if __name__ == "__main__":
    if reason := why_not():
        harness.skip(reason)
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
