#!/usr/bin/python3
"""Reservations as the Linux kernel and nvme-cli use them: two hosts in one guest, a host identifier each, against oxbowd.

    tests/nvmf_reservation_test.py [NAME ...]       only the tests whose names contain NAME

Needs what tests/nvmf_kernel_test.py needs, and is skipped without. To the guest's kernel the two hosts are two paths to one device,
so each speaks through the character device of its own controller.
"""
import json
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import guest  # noqa: E402
import harness  # noqa: E402
import nvmf_kernel_test as kernel  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

NETNS = guest.netns("oxresv")
SIZE = 64 * MIB
HOSTS = {"a": "0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0aa", "b": "0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0bb"}
KEYS = {"a": "0xa1", "b": "0xb2"}
REGISTER, UNREGISTER, REPLACE = "0", "1", "2"
ACQUIRE, PREEMPT, PREEMPT_ABORT = "0", "1", "2"
RELEASE, CLEAR = "0", "1"
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS = "1", "2", "3"
KEEP, LOSE = "3", "2"  # through power loss
REGISTRATION_PREEMPTED, RESERVATION_RELEASED = 1, 2


# ---- outside ------------------------------------------------------------------------------------------------------------

class RebootedDaemon(guest.NetnsDaemon):
    """What it believes to be the run of the machine's kernel is a file of ours."""

    boots = 0

    def boot(self):
        self.boots += 1
        path = os.path.join(self.directory, "boot_id")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"00000000-0000-4000-8000-{self.boots:012d}\n")
        return path

    def wrapper(self):
        if not self.boots:
            self.boot()
        script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        return [*super().wrapper(), "unshare", "--mount", "sh", "-c", script, os.path.join(self.directory, "boot_id")]


class Outside(kernel.Outside):
    def power_cut(self):
        """Dead at once, and what comes back knows only what was on the disk."""
        self.daemon.kill()
        pool = os.path.join(self.daemon.directory, "pool.img")
        shutil.copyfile(pool, pool + ".found")
        os.rename(pool + ".found", pool)
        self.daemon.boot()
        self.daemon.start()


def with_daemon(what):
    with harness.scratch_dir() as directory, guest.network(NETNS):
        daemon = RebootedDaemon(NETNS, directory, f"--init-pool={directory}/pool.img,{GIB}",
                                f"--nvme=tcp:{guest.HOST}:{kernel.PORT}", "--nvme-insecure")
        try:
            daemon.start()
            daemon.api.volume_create("disk", SIZE, kernel.VOLUME_ID, 512)
            kernel.run_guest(NETNS, 120, Outside(os.path.join(directory, "guest"), daemon), what, file=__file__)
            daemon.api.close_wait("volume", "disk")
            daemon.pool_check()
        finally:
            daemon.stop()


def two_hosts_register_acquire_report_and_release():
    with_daemon("verbs")


def a_host_without_the_reservation_is_refused_by_its_kernel():
    with_daemon("refused")


def a_reservation_is_there_after_the_daemon_was_killed_and_after_a_power_cut():
    with_daemon("lasts")


def a_reservation_that_is_not_to_persist_outlives_a_kill_and_no_power_cut():
    with_daemon("passes")


def a_preempted_host_is_fenced_and_told():
    with_daemon("preempt")


# ---- inside -------------------------------------------------------------------------------------------------------------

class Host:
    """One of the two, connected."""

    def __init__(self, name):
        self.name, self.key = name, KEYS[name]
        self.nqn = f"nqn.2014-08.org.nvmexpress:uuid:{HOSTS[name]}"
        # Not by nvme connect, to which a volume with one host is connected, whoever the host is.
        options = {"transport": "tcp", "traddr": guest.HOST, "trsvcid": kernel.PORT, "nqn": kernel.NQN, "hostnqn": self.nqn,
                   "hostid": HOSTS[name], "reconnect_delay": 1, "ctrl_loss_tmo": -1}
        with open("/dev/nvme-fabrics", "r+b", buffering=0) as fabrics:
            fabrics.write(",".join(f"{key}={value}" for key, value in options.items()).encode())
            instance = re.search(r"instance=(\d+)", fabrics.read(4096).decode())[1]
        self.device = f"/dev/nvme{instance}"
        wait_until(self.answers, f"namespace of host {name}")

    def nvme(self, verb, *arguments):
        """(0 or what it says, its output)"""
        print("+", self.name, verb, *arguments, flush=True)
        done = subprocess.run(["nvme", verb, self.device, *arguments], check=False, capture_output=True, text=True)
        print(done.stdout[:500], done.stderr, flush=True)
        return (done.returncode and (done.stdout + done.stderr or "failed"), done.stdout)

    def do(self, verb, *arguments):
        said, output = self.nvme(verb, *arguments)
        expect(said == 0, f"{self.name} {verb} {arguments}: {said}")
        return output

    def conflicts(self, verb, *arguments):
        said, _ = self.nvme(verb, *arguments)
        expect(said != 0 and re.search("RESERVATION_CONFLICT|Reservation Conflict", said), f"{self.name} {verb} {arguments}: {said}")

    def register(self, how=KEEP):
        self.do("resv-register", "-n", "1", "-k", self.key, "-r", REGISTER, "-p", how)

    def acquire_arguments(self, kind, action, other):
        return ["resv-acquire", "-n", "1", "-c", self.key, "-p", other, "-t", kind, "-a", action]

    def acquire(self, kind, action=ACQUIRE, other="0"):
        self.do(*self.acquire_arguments(kind, action, other))

    def release(self, kind, action=RELEASE):
        self.do("resv-release", "-n", "1", "-c", self.key, "-t", kind, "-a", action)

    def report(self):
        return json.loads(self.do("resv-report", "-n", "1", "-e", "-o", "json"))

    def io(self, opcode):
        with open("/tmp/page", "wb") as page:
            page.write(self.name.encode() * 4096)
        return ["io-passthru", "-o", opcode, "-n", "1", "-l", "4096", "--cdw10=0", "--cdw12=7",
                *(["-w", "-i", "/tmp/page"] if opcode == "1" else ["-r"])]

    def write(self):
        self.do(*self.io("1"))

    def read(self):
        self.do(*self.io("2"))

    def may(self, what):
        """"rw", "r" or "" """
        for letter, opcode in (("r", "2"), ("w", "1")):
            if letter in what:
                self.do(*self.io(opcode))
            else:
                self.conflicts(*self.io(opcode))

    def answers(self):
        return self.nvme("resv-report", "-n", "1", "-e")[0] == 0

    def notice(self):
        return json.loads(self.do("resv-notif-log", "-o", "json"))


def both():
    return Host("a"), Host("b")


def outside(*hosts, what):
    kernel.outside(what)
    for host in hosts:
        wait_until(host.answers, f"host {host.name} back after {what}", 60)


def holder_of(report):
    """(type, the hosts registered, those that hold it)"""
    names = {uuid.replace("-", ""): name for name, uuid in HOSTS.items()}
    entries = report["regctlext"]
    by_host = {names[f"{entry['hostid']}".replace("-", "")]: entry["rcsts"] for entry in entries}
    return report["rtype"], sorted(by_host), sorted(name for name, holds in by_host.items() if holds)


def verbs():
    a, b = both()
    capabilities = json.loads(a.do("id-ns", "-n", "1", "-o", "json"))["rescap"]
    expect(capabilities == 0xff, f"{capabilities:#x}")
    a.conflicts(*a.acquire_arguments(WRITE_EXCLUSIVE, ACQUIRE, "0"))
    a.register()
    b.register()
    b.conflicts("resv-register", "-n", "1", "-k", "0x77", "-r", REGISTER)
    a.acquire(WRITE_EXCLUSIVE)
    report = b.report()
    expect(report["gen"] == 2 and report["ptpls"] == 1, f"{report}")
    expect(holder_of(report) == (1, ["a", "b"], ["a"]), f"{report}")
    b.conflicts(*b.acquire_arguments(EXCLUSIVE_ACCESS, ACQUIRE, "0"))
    a.may("rw")
    b.may("r")
    a.release(WRITE_EXCLUSIVE)
    b.may("rw")
    b.acquire(WRITE_EXCLUSIVE_REGISTRANTS)
    a.may("rw")
    a.do("resv-register", "-n", "1", "-c", a.key, "-r", UNREGISTER)
    a.may("r")
    expect(holder_of(a.report()) == (3, ["b"], ["b"]), "one is left")
    b.release("0", CLEAR)
    expect(a.report()["regctl"] == 0, "nobody is")
    a.may("rw")


def refused():
    a, b = both()
    a.register()
    a.acquire(EXCLUSIVE_ACCESS)
    guest.call("nvme", "disconnect", "-d", os.path.basename(a.device))
    b.may("")
    # Now the device has but the path of host b.
    done = subprocess.run(["dd", "if=/dev/zero", f"of={kernel.DEVICE}", "bs=4096", "count=1", "oflag=direct"], check=False,
                          capture_output=True, text=True)
    expect(done.returncode != 0 and "Invalid exchange" in done.stderr, f"{done}")
    b.register()
    b.acquire(WRITE_EXCLUSIVE, PREEMPT, a.key)
    guest.call("dd", "if=/dev/zero", f"of={kernel.DEVICE}", "bs=4096", "count=1", "oflag=direct")


def lasts():
    a, b = both()
    a.register()
    b.register()
    a.acquire(WRITE_EXCLUSIVE)
    before = b.report()
    for what in ("restart", "power_cut", "restart", "power_cut"):
        outside(a, b, what=what)
        after = b.report()
        expect(holder_of(after) == holder_of(before) and after["gen"] == before["gen"], f"{what}: {before}, {after}")
        b.may("r")
        a.may("rw")


def passes():
    a, b = both()
    a.register(LOSE)
    a.acquire(WRITE_EXCLUSIVE)
    outside(a, b, what="restart")
    expect(holder_of(b.report()) == (1, ["a"], ["a"]), "a restart of the daemon is no loss of power")
    b.may("r")
    outside(a, b, what="power_cut")
    expect(b.report()["regctl"] == 0, "that is")
    b.may("rw")


def preempt():
    a, b = both()
    a.register()
    b.register()
    a.acquire(WRITE_EXCLUSIVE_REGISTRANTS)
    b.acquire(EXCLUSIVE_ACCESS, PREEMPT_ABORT, a.key)
    expect(holder_of(b.report()) == (2, ["b"], ["b"]), "b took it")
    a.may("")
    b.may("rw")
    notice = a.notice()
    expect((notice["count"], notice["rn_log_type"], notice["nsid"]) == (1, REGISTRATION_PREEMPTED, 1), f"{notice}")
    outside(a, b, what="power_cut")
    a.may("")
    b.may("rw")


TESTS = [
    two_hosts_register_acquire_report_and_release,
    a_host_without_the_reservation_is_refused_by_its_kernel,
    a_reservation_is_there_after_the_daemon_was_killed_and_after_a_power_cut,
    a_reservation_that_is_not_to_persist_outlives_a_kill_and_no_power_cut,
    a_preempted_host_is_fenced_and_told,
]


def in_guest(what):
    globals()[what]()


if __name__ == "__main__":
    guest.main(TESTS, ("nvme", "unshare"), in_guest)
