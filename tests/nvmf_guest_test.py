#!/usr/bin/python3
"""More of what a Linux kernel does with the target, beside nvmf_kernel_test.py: snapshots, block sizes, registers, what discovery tells.

    tests/nvmf_guest_test.py [NAME ...]       only the tests whose names contain NAME

Needs what tests/nvmf_kernel_test.py needs, and is skipped without.
"""
import json
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import guest  # noqa: E402
import harness  # noqa: E402
import nvmf_kernel_test as kernel  # noqa: E402
from guest import call  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

NETNS = guest.netns("oxguest")
SIZE = 512 * MIB
SNAPSHOT_ID = "5a4f9d05-3a7c-4a39-9c5f-0f2b6a0b7f22"
SNAPSHOT_NQN = f"nqn.2026-11.dev.oxbow:snapshot:{SNAPSHOT_ID}"


# ---- outside ------------------------------------------------------------------------------------------------------------

class Outside(kernel.Outside):
    def snapshot(self):
        self.daemon.api.snapshot_create("disk", "monday", SNAPSHOT_ID)


def with_daemon(what, *arguments, block_size_bytes=512, options=()):
    with harness.scratch_dir() as directory, guest.network(NETNS):
        daemon = guest.NetnsDaemon(NETNS, directory, f"--init-pool={directory}/pool.img,{GIB}",
                                   f"--nvme=tcp:{guest.HOST}:{kernel.PORT}", "--nvme-insecure", *options)
        try:
            daemon.start()
            daemon.api.volume_create("disk", SIZE, kernel.VOLUME_ID, block_size_bytes)
            outside = Outside(os.path.join(directory, "guest"), daemon)
            kernel.run_guest(NETNS, 120, outside, what, *arguments, file=__file__)
            daemon.api.close_wait("volume", "disk")
            daemon.pool_check()
        finally:
            daemon.stop()


def a_snapshot_of_a_mounted_ext4_is_mounted_read_only_and_has_what_was_synced():
    with_daemon("snapshot", "ext4", options=("--nvme-discover-snapshots",))


def a_snapshot_of_a_mounted_xfs_is_mounted_read_only_and_has_what_was_synced():
    with_daemon("snapshot", "xfs", block_size_bytes=4096)


def namespaces_of_512_and_of_4096_are_what_the_kernel_says_they_are():
    with_daemon("block_size", "512")
    with_daemon("block_size", "4096", block_size_bytes=4096)


def the_registers_of_a_controller_are_shown_and_what_it_has_not_got_is_no_error():
    with_daemon("registers")


def connect_all_asks_where_a_referral_points_too():
    with_daemon("referral", options=(f"--nvme=tcp:{guest.HOST}:8009", f"--nvme-referral=tcp:{guest.HOST}:8009"))


# ---- inside -------------------------------------------------------------------------------------------------------------

def read_sys(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def subsystem_device(nqn):
    """The block device of a connected subsystem, when there is one."""
    for name in sorted(os.listdir("/sys/class/nvme-subsystem")):
        path = f"/sys/class/nvme-subsystem/{name}"
        if read_sys(f"{path}/subsysnqn") == nqn:
            return next((f"/dev/{entry}" for entry in os.listdir(path) if entry.startswith("nvme") and "n" in entry[4:]
                         and "c" not in entry[4:] and os.path.exists(f"/dev/{entry}")), None)
    return None


def connect_to(nqn):
    call("nvme", "connect", "-n", nqn, *kernel.where("--reconnect-delay=1", "--ctrl-loss-tmo=-1"))
    return wait_until(lambda: subsystem_device(nqn), f"device of {nqn}")


def snapshot(kind):
    live, frozen = "/tmp/live", "/tmp/frozen"
    device = connect_to(kernel.NQN)
    os.makedirs(live)
    os.makedirs(frozen)
    call(f"mkfs.{kind}", "-q", device)
    call("mount", device, live)
    call("cp", "-a", guest.TREE, live)
    call("sync", "-f", live)
    call("fsfreeze", "-f", live)
    kernel.outside("snapshot")
    call("fsfreeze", "-u", live)
    shutil.rmtree(os.path.join(live, os.path.basename(guest.TREE)))
    call("sync", "-f", live)
    log = kernel.ask("nvme", "discover", *kernel.where())
    expect((SNAPSHOT_NQN in log) == (kind == "ext4"), f"where it is asked for, discovery lists snapshots:\n{log}")
    copy = connect_to(SNAPSHOT_NQN)
    expect(read_sys(f"/sys/block/{os.path.basename(copy)}/ro") == "1", "the kernel knows that it is write-protected")
    expect(read_sys(f"/sys/block/{os.path.basename(copy)}/uuid") == SNAPSHOT_ID, "and by its own id")
    refused = subprocess.run(["dd", "if=/dev/zero", f"of={copy}", "bs=4096", "count=1", "oflag=direct"], check=False, capture_output=True)
    expect(refused.returncode != 0, "it was written to")
    more = ["-o", "ro,norecovery,nouuid"] if kind == "xfs" else ["-o", "ro,norecovery"]
    call("mount", *more, copy, frozen)
    call("diff", "-r", guest.TREE, os.path.join(frozen, os.path.basename(guest.TREE)))
    call("umount", frozen)
    call("umount", live)
    call("nvme", "disconnect", "-n", SNAPSHOT_NQN)
    call("nvme", "disconnect", "-n", kernel.NQN)


def block_size(size):
    device = connect_to(kernel.NQN)
    queue = f"/sys/block/{os.path.basename(device)}/queue"
    expect(read_sys(f"{queue}/logical_block_size") == size, f"blocks of {size}")
    expect(read_sys(f"{queue}/minimum_io_size") == "4096", "written best in pages of 4096")
    call("dd", "if=/dev/urandom", "of=/tmp/page", "bs=4096", "count=2")
    # The last block alone, and what lies over the edge of two pages.
    for at in (SIZE // int(size) - 1, 4096 // int(size) - (1 if size == "512" else 0)):
        call("dd", "if=/tmp/page", f"of={device}", f"bs={size}", "count=1", f"seek={at}", "oflag=direct")
        call("dd", f"if={device}", "of=/tmp/back", f"bs={size}", "count=1", f"skip={at}", "iflag=direct")
        call("cmp", "-n", size, "/tmp/page", "/tmp/back")
    call("mkfs.ext4", "-q", device)
    call("fsck.ext4", "-f", "-n", device)
    kernel.disconnect()


def registers():
    connect_to(kernel.NQN)
    shown = kernel.nvme_json("show-regs", kernel.CONTROLLER)
    expect((shown["cc"], shown["csts"], shown["vs"]) == (0x460001, 1, 0x20000), f"{shown}")
    expect(shown["nssr"] == shown["cmbsz"] == -1, f"what there is not is shown as such: {shown}")
    kernel.disconnect()


def referral():
    log = json.loads(kernel.ask("nvme", "discover", *kernel.where(), "-o", "json"))["records"]
    found = [(record["subtype"], record["trsvcid"]) for record in log]
    expect(("referral" in str(found)) and any("8009" in port and "referral" in kind for kind, port in found), f"{found}")
    call("nvme", "connect-all", *kernel.where())
    wait_until(lambda: subsystem_device(kernel.NQN), "connected volume")
    paths = kernel.ask("nvme", "list-subsys")
    expect("trsvcid=8009" in paths and f"trsvcid={kernel.PORT}" in paths, f"both ways to it:\n{paths}")
    kernel.disconnect()


TESTS = [
    a_snapshot_of_a_mounted_ext4_is_mounted_read_only_and_has_what_was_synced,
    a_snapshot_of_a_mounted_xfs_is_mounted_read_only_and_has_what_was_synced,
    namespaces_of_512_and_of_4096_are_what_the_kernel_says_they_are,
    the_registers_of_a_controller_are_shown_and_what_it_has_not_got_is_no_error,
    connect_all_asks_where_a_referral_points_too,
]


def in_guest(what, *arguments):
    globals()[what](*arguments)


if __name__ == "__main__":
    guest.main(TESTS, ("nvme", "mkfs.ext4", "mkfs.xfs", "fsfreeze"), in_guest)
