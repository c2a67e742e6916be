#!/usr/bin/python3
"""Real file systems on a volume: ext4 and xfs on a loop device over nbdfuse, a real source tree in it, killed in the middle.
And the other way round: a pool file on such a file system, whose disk stands still while the pool's holder is killed.

    tests/filesystem_test.py [NAME ...]       only the tests whose names contain NAME

No kernel module is needed: nbdfuse shows the volume as a file, a loop device shows the file as a disk. Needs root, FUSE and
loop devices; without them it says so and is skipped.
"""
import contextlib
import ctypes
import fcntl
import mmap
import os
import shutil
import signal
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


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18  # linux/sched.h, linux/mount.h


def keep_mounts_to_ourselves():
    """Who enters a network namespace meanwhile (`ip netns exec`, in other parts of the test run) copies every mount there is, and
    holds it for as long as he lives: what is unmounted here would stay busy."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mount namespace of its own for this test")


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


# ---- the last writes of a dead process ----------------------------------------------------------------------------------

WRITES, WRITE_BYTES = 8, 4096


@contextlib.contextmanager
def standing_still(daemon):
    """Stopped, so that its clients' requests stay under way."""
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def new_blocks(file):
    """How many of the blocks are what the dead one wrote, on the disk and not in a cache."""
    fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, WRITES * WRITE_BYTES) as buffer:
            os.preadv(fd, [buffer], 0)
            return sum(buffer[n * WRITE_BYTES] == ord("N") for n in range(WRITES))
    finally:
        os.close(fd)


def is_let_go(file):
    """The kernel still has a killed holder's ring, and with it the file, a little longer: a lease is only given when nobody has."""
    with open(file, "r+b") as pool:
        try:
            fcntl.fcntl(pool, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        return True


def kill_while_writing(daemon, file):
    """The successor has the lock at once, and yet not the disk, until the last write of the dead one has arrived. Writes that
    the file system had put off never come: what the successor finds when it has the disk is what stays."""
    with open(file, "wb") as pool:
        pool.write(b"O" * (1 << 20))
        os.fsync(pool.fileno())
    with harness.DiskHolder(file, WRITES) as first, contextlib.ExitStack() as later:
        first.expect_word("held")
        with standing_still(daemon):
            first.send_writes()
            first.kill()
            second = later.enter_context(harness.DiskHolder(file, WRITES))
            harness.wait_until(lambda: second.is_inside("fallocate") or second.has_spoken(), "waiting for the writes")
            expect(not second.has_spoken(), "the disk was opened while writes of a dead process were under way")
        second.expect_word("held")
        found = new_blocks(file)
    harness.wait_until(lambda: is_let_go(file), "end of the holders' rings", limit_s=120)
    expect(new_blocks(file) == found > 0, f"{found} writes of a dead process had arrived when the disk was opened, "
                                          f"{new_blocks(file)} in the end")


def last_writes_are_awaited(kind):
    mkfs, _ = FILESYSTEMS[kind]
    if not shutil.which(mkfs[0]):
        return f"{mkfs[0]} is not installed"
    with harness.scratch_dir() as directory:
        pool = os.path.join(directory, "pool")
        with harness.running_daemon(directory, "--init-pool", f"{pool},{GIB}") as daemon:
            daemon.oxbow("volume", "create", "fs", "--size", str(GIB // 2))
            with disk_of(daemon.uri("fs"), directory) as device:
                run(*mkfs, device)
                with mounted(device, directory, kind) as mountpoint:
                    file = os.path.join(mountpoint, "pool")
                    try:
                        kill_while_writing(daemon, file)
                    finally:
                        harness.wait_until(lambda: is_let_go(file), "end of the holders' rings", limit_s=120)
    return None


def on_ext4_a_disk_is_not_opened_before_the_last_write_of_a_killed_holder_has_arrived():
    return last_writes_are_awaited("ext4")


def on_xfs_a_disk_is_not_opened_before_the_last_write_of_a_killed_holder_has_arrived():
    return last_writes_are_awaited("xfs")


TESTS = (
    ext4_holds_a_source_tree_and_trim_frees_it,
    xfs_holds_a_source_tree_and_trim_frees_it,
    on_ext4_a_disk_is_not_opened_before_the_last_write_of_a_killed_holder_has_arrived,
    on_xfs_a_disk_is_not_opened_before_the_last_write_of_a_killed_holder_has_arrived,
)

if __name__ == "__main__":
    if reason := why_not():
        harness.skip(reason)
    keep_mounts_to_ourselves()
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
