#!/usr/bin/python3
"""Volumes as block devices of a real Linux 6.12 (user-mode Linux, half a second to boot): oxbowd itself runs in the guest.

    tests/ublk_kernel_test.py [NAME ...]      only the tests whose names contain NAME

Needs root and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is skipped.
Each test is a boot of its own: `ublk_kernel_test.py --in-guest NAME VARIABLE=VALUE ...` is what runs inside.
"""
import contextlib
import mmap
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
if sys.argv[1:2] == ["--in-guest"]:  # nothing of the environment comes along by itself
    os.environ.update(setting.split("=", 1) for setting in sys.argv[3:])
import guest  # noqa: E402
import harness  # noqa: E402
from guest import TREE, call  # noqa: E402
from harness import GIB, MIB, expect  # noqa: E402

MOUNTPOINT = "/run/mnt"
KILLS = int(os.environ.get("UBLK_KILLS", "20"))
SEED = int(os.environ.get("UBLK_SEED", "1"))
QUEUE_DEPTH = 128  # RT_BLK_DEPTH
GUEST_LIMIT_S = 180


# ---- inside: tools ------------------------------------------------------------------------------------------------------

class GuestDaemon(harness.Daemon):
    """Its pool is in the guest's memory: gone with the guest, and quick."""

    def __init__(self, pool=f"/tmp/pool.img,{GIB}"):
        os.makedirs("/tmp/oxbow", exist_ok=True)
        super().__init__("/tmp/oxbow", f"--init-pool={pool}")

    def attach(self, ref):
        return self.api.call("POST", "/v1/ublk", {"volume": ref})["device"]

    def detach(self, ref, force=False):
        self.api.call("POST", f"/v1/ublk/{ref.replace('/', '%2F')}/detach", {"force": force})

    def devices(self):
        return self.api.call("GET", "/v1/ublk")["devices"]


@contextlib.contextmanager
def daemon_in_guest(*arguments):
    daemon = GuestDaemon(*arguments)
    try:
        daemon.start()
        yield daemon
        daemon.pool_check()
        problems = [line for line in open(daemon.log, encoding="utf-8") if " error " in line]
        expect(not problems, f"the daemon logged: {problems}")
    except BaseException:
        print(daemon.log_tail(60), flush=True)
        subprocess.run("dmesg | tail -30", shell=True, check=False)
        raise


def queue_attribute(device, name):
    with open(f"/sys/block/{os.path.basename(device)}/queue/{name}", encoding="ascii") as attribute:
        return attribute.read().strip()


def fio(device, *options, **kwargs):
    command = ["fio", "--name=load", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--verify=crc32c",
               "--verify_fatal=1", "--allow_file_create=0", "--randrepeat=0", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)


def fio_end(process, limit_s):
    out, _ = process.communicate(timeout=limit_s)
    expect(process.returncode == 0, f"fio ended with status {process.returncode}:\n{out}")
    return out


class Watcher(threading.Thread):
    """Reads one block again and again, as an application would notice it: the longest wait, and any error."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.device, self.longest_s, self.reads, self.error, self.ending = device, 0.0, 0, None, False

    def run(self):
        fd, page = os.open(self.device, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
        try:
            while not self.ending:
                began = time.monotonic()
                os.preadv(fd, [page], 0)
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.reads += 1
                time.sleep(0.001)
        except OSError as error:
            self.error = error
        os.close(fd)

    def end(self):
        self.ending = True
        self.join(60)
        expect(not self.is_alive(), "a read never came back")
        expect(self.error is None, f"a user of the device saw {self.error}")
        expect(self.reads > 0, "the watcher read nothing")
        return self.longest_s


# ---- inside: tests ------------------------------------------------------------------------------------------------------

def round_trip(filesystem, block_size):
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 512 * MIB, block_size_bytes=block_size)
        device = daemon.attach("disk")
        expect(os.path.realpath("/dev/oxbow/default/disk") == device, "the link leads elsewhere")
        expect(queue_attribute(device, "logical_block_size") == str(block_size), "the block size is another")
        expect(queue_attribute(device, "fua") == "1" and queue_attribute(device, "write_cache") == "write back",
               "the write cache is not told")
        harness.wait_until(lambda: queue_attribute(device, "io_timeout") == "1000", "request timeout of 1 s", 10)
        guest.fill(filesystem, device, MOUNTPOINT)
        before = daemon.api.space()["data_bytes"]
        shutil.rmtree(MOUNTPOINT + "/gone")
        call("fstrim", "-v", MOUNTPOINT)
        expect(daemon.api.space()["data_bytes"] < before, "fstrim freed nothing")
        try:
            daemon.detach("disk")
            raise harness.Broken("a mounted device was detached")
        except harness.Refused as refused:
            expect(refused.error == "BUSY", f"refused with {refused.error}")
        call("umount", MOUNTPOINT)
        guest.check(filesystem, device, MOUNTPOINT)
        daemon.detach("disk")
        expect(not os.path.exists(device) and not os.path.lexists("/dev/oxbow/default/disk"), "something of the device is left")


def ext4_is_made_filled_trimmed_and_checked_on_512_byte_blocks():
    round_trip("ext4", 512)


def xfs_is_made_filled_trimmed_and_checked_on_4096_byte_blocks():
    round_trip("xfs", 4096)


def fio_finds_what_it_wrote_and_discarded_and_zeroed_blocks_read_as_zeroes():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 256 * MIB)
        device = daemon.attach("disk")
        fio_end(fio(device, "--rw=randwrite", "--bsrange=512-256k", "--blockalign=512", "--iodepth=32", "--size=64m",
                    "--fsync=64", "--do_verify=1"), 100)
        fio_end(fio(device, "--rw=write", "--bs=1m", "--iodepth=8", "--size=64m", "--do_verify=1"), 60)
        full = daemon.api.space()["data_bytes"]
        call("blkdiscard", device)
        expect(daemon.api.space()["data_bytes"] < full - 60 * MIB, "blkdiscard freed nothing")
        call("cmp", "-n", str(256 * MIB), device, "/dev/zero")
        call("dd", "if=/dev/urandom", f"of={device}", "bs=1M", "count=8", "oflag=direct", "status=none")
        call("blkdiscard", "-z", "-o", str(4 * MIB), "-l", str(4 * MIB), device)
        call("cmp", "-n", str(4 * MIB), "-i", f"{4 * MIB}:0", device, "/dev/zero")


def a_snapshot_is_a_read_only_disk():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        device = daemon.attach("disk")
        call("mkfs.ext4", "-q", device)
        daemon.api.snapshot_create("disk", "mon")
        call("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=8", "oflag=direct", "status=none")
        old = daemon.attach("disk@mon")
        expect(queue_attribute(old, "../ro") == "1", "it is writable")
        expect(subprocess.run(["dd", "if=/dev/zero", f"of={old}", "count=1"], capture_output=True, check=False).returncode != 0,
               "it took a write")
        call("mount", "-o", "ro", old, MOUNTPOINT)
        call("umount", MOUNTPOINT)
        daemon.detach(old)
        daemon.detach("default/disk")
        expect(not daemon.devices(), f"still there: {daemon.devices()}")


def the_api_answers_as_its_file_says():
    import api_test
    with daemon_in_guest() as daemon:
        check = api_test.Checker(daemon.api)
        daemon.api.volume_create("disk", 64 * MIB)
        device = check.call("POST", "/v1/ublk", {"volume": "default/disk"}, status=201)["device"]
        again = check.call("POST", "/v1/ublk", {"volume": "disk"}, status=200)
        expect(again["device"] == device and again["state"] == "serving", f"it says {again}")
        for ref in ("disk", "default%2Fdisk", "ublkb0", again["id"]):
            expect(check.call("GET", f"/v1/ublk/{ref}")["volume"] == "default/disk", f"{ref} is another")
        expect(len(check.call("GET", "/v1/ublk")["devices"]) == 1, "the list has not one")
        call("mkfs.ext4", "-q", device)
        call("mount", device, MOUNTPOINT)
        check.call("POST", "/v1/ublk/disk/detach", {"force": False}, status=409)
        call("umount", MOUNTPOINT)
        check.call("POST", "/v1/ublk/disk/detach", status=204)
        check.call("POST", "/v1/ublk/disk/detach", status=204)
        check.call("GET", "/v1/ublk/disk", status=404)


def a_volume_grown_while_attached_says_that_the_device_could_not_follow():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        daemon.attach("disk")
        daemon.api.volume_grow("disk", 128 * MIB)
        device = daemon.devices()[0]
        expect(device["size_bytes"] == 64 * MIB and "cannot resize" in device["message"], f"it says {device}")
        daemon.detach("disk")
        daemon.attach("disk")
        device = daemon.devices()[0]
        expect(device["size_bytes"] == 128 * MIB and not device["message"], f"it says {device}")


def expect_recovered(daemon, device):
    state = daemon.devices()
    expect(len(state) == 1 and state[0]["state"] == "serving" and state[0]["device"] == device, f"it says {state}")


def load_stop(load):
    """The load is endless: it stops at a signal, and says then whether anything was wrong."""
    load.send_signal(signal.SIGINT)
    out, _ = load.communicate(timeout=60)
    expect("err= 0" in out and not re.search(r"verify:|error=|io_u error", out), f"fio saw an error:\n{out}")


def endless_load(device, iodepth):
    return fio(device, "--rw=randrw", "--bsrange=4k-64k", f"--iodepth={iodepth}", "--offset=1m", "--size=64m",
               "--verify_backlog=256", "--time_based", "--runtime=1000", "--fsync=128")


def kill_and_start(daemon, rng, twice):
    """With `twice` the next one dies as well, somewhere in its recovery. Returns the seconds from exec to ready."""
    daemon.kill()
    if twice:
        daemon.process = daemon.spawn()
        time.sleep(rng.uniform(0.0, 0.12))
        daemon.kill()
    return daemon.start()


def twenty_kills_under_load_cost_pauses_and_no_error():
    rng = random.Random(SEED)
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 128 * MIB)
        device = daemon.attach("disk")
        watcher = Watcher(device)
        watcher.start()
        load, ready_s = endless_load(device, 16), []
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.05, 0.6))
            ready_s.append(kill_and_start(daemon, rng, kill % 3 == 2))
            expect(load.poll() is None, "fio ended")
            expect_recovered(daemon, device)
        load_stop(load)
        longest_s = watcher.end()
        print(f"{KILLS} kills under load: no I/O error; longest pause {longest_s:.2f} s; start to ready {min(ready_s):.2f} to "
              f"{max(ready_s):.2f} s; {watcher.reads} reads beside", flush=True)
        fio_end(fio(device, "--rw=randwrite", "--bs=64k", "--iodepth=8", "--size=32m", "--do_verify=1"), 60)
        daemon.detach("disk")


def disk_that_can_stand_still():
    call("truncate", "-s", str(GIB), "/tmp/disk.img")
    loop = subprocess.run(["losetup", "-f", "--show", "/tmp/disk.img"], check=True, capture_output=True, text=True).stdout.strip()
    call("dmsetup", "create", "pool", "--table", f"0 {GIB // 512} linear {loop} 0")
    return "/dev/dm-0"


def disk_stop():
    call("dmsetup", "suspend", "--noflush", "--nolockfs", "pool")


def disk_go_on():
    call("dmsetup", "resume", "pool")


def in_flight(device):
    with open(f"/sys/block/{os.path.basename(device)}/inflight", encoding="ascii") as counts:
        return sum(map(int, counts.read().split()))


def a_kill_with_every_tag_in_the_servers_hands_costs_a_pause_and_no_error():
    """The pool's disk is held up until the server has all it can take; then no entry is left whose end tells the driver."""
    with daemon_in_guest(f"{disk_that_can_stand_still()},{GIB}") as daemon:
        daemon.api.volume_create("disk", 128 * MIB)
        device, pauses_s = daemon.attach("disk"), []
        fio_end(fio(device, "--rw=write", "--bs=1m", "--iodepth=4", "--size=65m", "--do_verify=0"), 60)
        load = fio(device, "--rw=randrw", "--bs=4k", "--iodepth=300", "--offset=1m", "--size=64m", "--time_based",
                   "--runtime=1000", "--verify_backlog=512")
        for _ in range(3):
            disk_stop()
            harness.wait_until(lambda: in_flight(device) >= QUEUE_DEPTH, f"{QUEUE_DEPTH} requests in flight", 20)
            time.sleep(0.2)
            began = time.monotonic()
            daemon.process.kill()
            disk_go_on()
            daemon.process.wait()
            daemon.start()
            pauses_s.append(time.monotonic() - began)
            expect_recovered(daemon, device)
            time.sleep(0.5)
        load_stop(load)
        print(f"{len(pauses_s)} kills with every tag taken: no I/O error; longest pause {max(pauses_s):.2f} s", flush=True)
        expect(max(pauses_s) < 20, "that is as long as if the request timeout had not been lowered")
        daemon.detach("disk")


def a_file_system_in_use_survives_kills():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 256 * MIB)
        device = daemon.attach("disk")
        call("mkfs.ext4", "-q", device)
        call("mount", device, MOUNTPOINT)
        copy = subprocess.Popen(f"for i in 1 2 3; do cp -a {TREE} {MOUNTPOINT}/$i && sync -f {MOUNTPOINT} || exit 1; done",
                                shell=True)
        kills = 0
        while copy.poll() is None and kills < 10:
            daemon.kill()
            daemon.start()
            kills += 1
            time.sleep(0.1)
        expect(copy.wait(60) == 0, f"cp ended with status {copy.returncode}")
        for i in "123":
            call("diff", "-r", TREE, f"{MOUNTPOINT}/{i}")
        call("umount", MOUNTPOINT)
        call("fsck.ext4", "-f", "-n", device)
        print(f"{kills} kills", flush=True)


def an_attach_or_detach_that_is_killed_is_finished_or_undone():
    rng = random.Random(SEED)
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        outcomes = {}
        for turn in range(24):
            verb = ("attach", "detach")[turn % 2]
            if verb == "detach" and not daemon.devices():
                daemon.attach("disk")
            command = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "-q", "ublk", verb, "disk"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.0, 0.15))
            daemon.kill()
            command.kill()
            command.wait()
            daemon.start()
            harness.wait_until(lambda: all(d["state"] == "serving" for d in daemon.devices()), "settled devices", 30)
            there = [name for name in os.listdir("/dev") if name.startswith("ublkb")]
            known = [os.path.basename(d["device"]) for d in daemon.devices()]
            expect(there == known, f"the kernel has {there}, the daemon {known}")
            outcome = f"{verb}: {'there' if there else 'not there'}"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            for name in there:
                call("dd", f"if=/dev/{name}", "of=/dev/null", "bs=64k", "count=16", "iflag=direct", "status=none")
            if verb == "attach" and turn % 4 == 0:
                daemon.detach("disk")
        print(outcomes, flush=True)


def an_attach_waits_for_no_read_and_so_a_kill_during_it_can_be_mended():
    """A daemon that dies while the kernel reads the partition table on its behalf could neither end nor be followed."""
    with daemon_in_guest(f"{disk_that_can_stand_still()},{GIB}") as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        device = daemon.attach("disk")
        call("dd", "if=/dev/urandom", f"of={device}", "bs=64k", "count=16", "oflag=direct", "status=none")
        daemon.detach("disk")
        disk_stop()
        attach = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "-q", "ublk", "attach", "disk"])
        harness.wait_until(lambda: os.path.exists(device), "device", 10)
        time.sleep(0.3)
        daemon.process.kill()
        disk_go_on()
        attach.wait()
        harness.wait_until(lambda: daemon.process.poll() is not None, "end of the killed daemon", 20)
        daemon.start()
        expect_recovered(daemon, device)
        call("dd", f"if={device}", "of=/dev/null", "bs=64k", "count=16", "iflag=direct", "status=none")


def a_device_on_no_record_is_removed_and_said_so():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        device = daemon.attach("disk")
        daemon.kill()
        os.unlink(os.path.join(daemon.data_dir, "ublk"))
        daemon.start()
        expect(not os.path.exists(device) and not daemon.devices(), "it is still there")
        with open(daemon.log, encoding="utf-8") as log:
            expect("ublk.reaped" in log.read(), "nobody said so")


def after_a_stop_the_device_waits_for_the_next_daemon():
    with daemon_in_guest() as daemon:
        daemon.api.volume_create("disk", 64 * MIB)
        device = daemon.attach("disk")
        expect(daemon.stop() == 0, "it did not stop in order")
        reader = subprocess.Popen(["dd", f"if={device}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct"],
                                  stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        expect(reader.poll() is None, "a read was answered by nobody")
        daemon.start()
        expect(reader.wait(20) == 0, "the read failed")


TESTS = [
    ext4_is_made_filled_trimmed_and_checked_on_512_byte_blocks,
    xfs_is_made_filled_trimmed_and_checked_on_4096_byte_blocks,
    fio_finds_what_it_wrote_and_discarded_and_zeroed_blocks_read_as_zeroes,
    a_snapshot_is_a_read_only_disk,
    the_api_answers_as_its_file_says,
    a_volume_grown_while_attached_says_that_the_device_could_not_follow,
    twenty_kills_under_load_cost_pauses_and_no_error,
    a_kill_with_every_tag_in_the_servers_hands_costs_a_pause_and_no_error,
    a_file_system_in_use_survives_kills,
    an_attach_or_detach_that_is_killed_is_finished_or_undone,
    an_attach_waits_for_no_read_and_so_a_kill_during_it_can_be_mended,
    a_device_on_no_record_is_removed_and_said_so,
    after_a_stop_the_device_waits_for_the_next_daemon,
]


# ---- outside ------------------------------------------------------------------------------------------------------------

def booted(name):
    """A test that boots the guest and runs the test of this name in it."""
    def test():
        with harness.scratch_dir() as directory:
            said = guest.run(__file__, guest.netns("oxublk"), directory, GUEST_LIMIT_S, name, f"OXBOW_BUILD={harness.BUILD}", f"UBLK_KILLS={KILLS}",
                             f"UBLK_SEED={SEED}", options=("-m", "2G"))
            for line in said.splitlines():
                if "kills" in line or line.startswith("{"):
                    print("  " + line)
    test.__name__ = name
    return test


def in_guest(name, *_):
    next(test for test in TESTS if test.__name__ == name)()


if __name__ == "__main__":
    guest.main([booted(test.__name__) for test in TESTS],
               ("fio", "mkfs.ext4", "mkfs.xfs", "xfs_repair", "fstrim", "blkdiscard", "losetup", "dmsetup"), in_guest)
