#!/usr/bin/python3
"""Mirrored volumes of three daemons beside a real Linux 6.12 (user-mode Linux): its NVMe/TCP host and `oxbow attach` as the client, its
device mapper as the disk that fails, its netem as the slow network.

    tests/field_kernel_test.py [NAME ...]      only the tests whose names contain NAME

Needs root and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is skipped. Each test is a boot of
its own, in which the daemons run, too: `field_kernel_test.py --in-guest NAME VARIABLE=VALUE ...` is what runs inside.
"""
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
if sys.argv[1:2] == ["--in-guest"]:  # nothing of the environment comes along by itself
    os.environ.update(setting.split("=", 1) for setting in sys.argv[3:])
import attach_kernel_test as attach_kernel  # noqa: E402
import cluster_test  # noqa: E402
import guest  # noqa: E402
import harness  # noqa: E402
import mirror_test  # noqa: E402
from attach_test import call, mounted  # noqa: E402
from cluster_test import Node, cluster, role_of, sleep_some, volume_make, wait_healthy  # noqa: E402
from field_test import copies_are_the_same, kill_all, no_refusals, scrub_finds_nothing, start_all  # noqa: E402
from harness import MIB, expect, wait_until  # noqa: E402

KILLS = int(os.environ.get("OXBOW_KILLS", "6"))
GUEST_LIMIT_S = 280
POOL_BYTES = 256 * MIB
VOLUME_BYTES = 8 * MIB
SIZES = (POOL_BYTES,) * cluster_test.NODES


# ---- inside: the kernel's own host --------------------------------------------------------------------------------------


def fio_start(mountpoint):
    return subprocess.Popen(["fio", "--name=load", f"--directory={mountpoint}", "--size=16m", "--rw=randwrite", "--bs=4k",
                             "--ioengine=libaio", "--iodepth=16", "--direct=1", "--verify=crc32c", "--verify_fatal=1",
                             "--verify_backlog=256", "--time_based", "--runtime=100000", "--output=/tmp/fio.out"])


def fio_end(load):
    load.send_signal(2)
    load.wait(60)
    text = attach_kernel.read("/tmp/fio.out")
    expect("verify:" not in text and "err= 0" in text, text)


def kill_some(nodes, turn):
    """A replica, the home, all of them."""
    victims = (nodes[1:2], nodes[:1], nodes)[turn % 3]
    kill_all(victims)
    start_all(victims)


def attached_it_is_a_disk_with_ext4_whose_home_and_replicas_may_be_killed_under_load():
    rng = random.Random(60)
    with cluster(pool_bytes=SIZES) as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=96 * MIB)
        host = attach_kernel.GuestHost(directory, home.socket)
        done = host.attach("db", "--by", "nvme")
        controller = attach_kernel.controller_of(home.api.volume("db")["nqn"])
        call("mkfs.ext4", "-q", done["link"])
        with mounted(done["link"], "/tmp") as mountpoint:
            load = fio_start(mountpoint)
            for turn in range(KILLS):
                sleep_some(rng, 0.3, 1.0)
                expect(load.poll() is None, "fio ended")
                kill_some(nodes, turn)
                wait_until(lambda: attach_kernel.attribute(controller, "state") == "live", "return of the connection", 60)
                expect(host.attach("db")["device"] == done["device"], "it is another device")
            fio_end(load)
            shutil.copytree("/usr/include/linux", mountpoint + "/tree", symlinks=True)
        host.detach("db")
        again = host.attach("db")
        call("fsck.ext4", "-f", "-n", again["link"])
        with mounted(again["link"], "/tmp") as mountpoint:
            call("diff", "-r", "--no-dereference", "/usr/include/linux", mountpoint + "/tree")
        host.detach("db")
        host.expect_nothing("detached")
        wait_healthy(home)
        scrub_finds_nothing(home, "db")
        copies_are_the_same(nodes, volume_id)


# ---- inside: a disk that fails ------------------------------------------------------------------------------------------


class DmNode(Node):
    """Whose pool is on a device that can be told to fail."""

    def pool_path(self):
        return f"/dev/mapper/{self.pool}"

    def pool_make(self, size_bytes):
        file = os.path.join(self.directory, "disk")
        with open(file, "wb") as disk:
            disk.truncate(size_bytes)
        self.sectors = size_bytes // 512
        self.loop = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True).stdout.strip()
        call("dmsetup", "create", "--noudevsync", self.pool, "--table", self.table("well"))
        call("dmsetup", "mknodes")
        self.api.call("POST", "/v1/pools", {"name": self.pool, "path": self.pool_path()})

    def table(self, how):
        words = {"well": f"linear {self.loop} 0", "dead": "error", "writes fail": f"flakey {self.loop} 0 0 1000 1 error_writes",
                 "reads fail": f"flakey {self.loop} 0 0 1000 1 error_reads"}
        return f"0 {self.sectors} {words[how]}"

    def disk(self, how):
        call("dmsetup", "suspend", "--noflush", "--nolockfs", self.pool)
        call("dmsetup", "reload", self.pool, "--table", self.table(how))
        call("dmsetup", "resume", "--noudevsync", self.pool)


@contextlib.contextmanager
def failing_disks():
    with cluster(DmNode, SIZES) as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=VOLUME_BYTES)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=4)
        yield nodes, home, verifier, volume_id


def wait_out(home, pool):
    wait_until(lambda: role_of(home, pool) == "absent", f"a view without {pool}", 60, every_s=0.05)


def a_disk_that_fails_for_a_while_costs_its_copy_and_no_request_and_the_copy_comes_back():
    with failing_disks() as (nodes, home, verifier, volume_id):
        for victim, how in ((nodes[1], "writes fail"), (nodes[1], "dead"), (home, "writes fail"), (home, "dead")):
            began = time.monotonic()
            victim.disk(how)
            wait_out(home, victim.pool)
            out_s = time.monotonic() - began
            time.sleep(0.5)  # load without it
            victim.disk("well")
            print(f"NOTE {victim.pool}, {how}: out after {out_s:.1f} s, a member again {wait_healthy(home, 90):.1f} s after it was well")
        no_refusals(verifier.load_stop())
        verifier.check("db")
        scrub_finds_nothing(home, "db")
        copies_are_the_same(nodes, volume_id)


def a_disk_of_the_home_that_cannot_be_read_is_read_elsewhere():
    with failing_disks() as (nodes, home, verifier, volume_id):
        home.disk("reads fail")
        time.sleep(2)  # load
        no_refusals(verifier.load_stop())
        verifier.check("db")
        home.disk("well")
        wait_healthy(home, 90)
        verifier.check("db")
        copies_are_the_same(nodes, volume_id)


def a_disk_that_is_dead_for_good_is_replaced_by_a_fresh_pool_under_load():
    with failing_disks() as (nodes, home, verifier, volume_id):
        victim = nodes[1]
        victim.disk("dead")
        wait_out(home, "p1")
        path = os.path.join(victim.directory, "fresh")
        victim.api.call("POST", "/v1/pools", {"name": "fresh", "path": path, "size_bytes": POOL_BYTES})
        wait_until(lambda: any(n["name"] == "n1" and n["pool_count"] >= 1 for n in home.api.call("GET", "/v1/nodes")["nodes"]), "n1's pools")
        home.oxbow("copy", "forget", "db", "p1", "--yes")
        wait_until(lambda: home.oxbow("copy", "add", "db", "fresh", check=False).returncode == 0, "a copy in the fresh pool", 30, every_s=0.5)
        wait_healthy(home, 90)
        no_refusals(verifier.load_stop())
        expect(sorted(c["pool"] for c in mirror_test.mirror_of(home)["copies"]) == ["fresh", "p0", "p2"], f"{mirror_test.mirror_of(home)}")
        verifier.check("db")
        scrub_finds_nothing(home, "db")
        kill_all(nodes)
        said = {mirror_test.run_copy_print(p, volume_id) for p in (path, nodes[0].pool_path(), nodes[2].pool_path())}
        expect(len(said) == 1, f"the copies differ: {said}")


# ---- inside: a slow network ---------------------------------------------------------------------------------------------


def a_network_of_fifty_milliseconds_is_slow_and_nothing_else():
    with cluster(pool_bytes=SIZES) as (directory, nodes):
        home = nodes[0]
        volume_id = volume_make(home, size_bytes=VOLUME_BYTES)
        verifier = harness.Verifier(home, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=16)
        epoch = mirror_test.mirror_of(home)["epoch"]
        call("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "50ms")
        time.sleep(8)  # longer than a silence that counts
        expect(mirror_test.mirror_of(home)["epoch"] == epoch, f"slow is not failed (V12): {mirror_test.mirror_of(home)}")
        nodes[1].kill()
        nodes[1].start()
        wait_healthy(home, 60)
        call("tc", "qdisc", "del", "dev", "lo", "root")
        no_refusals(verifier.load_stop())
        wait_healthy(home, 60)
        verifier.check("db")
        scrub_finds_nothing(home, "db")
        copies_are_the_same(nodes, volume_id)


TESTS = [
    attached_it_is_a_disk_with_ext4_whose_home_and_replicas_may_be_killed_under_load,
    a_disk_that_fails_for_a_while_costs_its_copy_and_no_request_and_the_copy_comes_back,
    a_disk_of_the_home_that_cannot_be_read_is_read_elsewhere,
    a_disk_that_is_dead_for_good_is_replaced_by_a_fresh_pool_under_load,
    a_network_of_fifty_milliseconds_is_slow_and_nothing_else,
]


# ---- outside ------------------------------------------------------------------------------------------------------------


def booted(name):
    """A test that boots the guest and runs the test of this name in it."""
    def test():
        with harness.scratch_dir() as directory:
            said = guest.run(__file__, guest.netns("oxfieldk"), directory, GUEST_LIMIT_S, name, f"OXBOW_BUILD={harness.BUILD}",
                             f"OXBOW_KILLS={KILLS}", "OXBOW_SCRATCH=/tmp", options=("-m", "2G")).splitlines()
        for line in said:
            if line.startswith("NOTE "):
                print("   ", line.removeprefix("NOTE "))
    test.__name__ = name
    return test


def in_guest(name, *_):
    next(test for test in TESTS if test.__name__ == name)()


if __name__ == "__main__":
    guest.main([booted(test.__name__) for test in TESTS], ("nvme", "fio", "mkfs.ext4", "losetup", "dmsetup", "tc"), in_guest)
