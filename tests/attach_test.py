#!/usr/bin/python3
"""`oxbow attach` where the kernel has neither NVMe/TCP nor ublk: nbdfuse and a loop device. Killed at every step, and done again.

    tests/attach_test.py [NAME ...]       only the tests whose names contain NAME

Needs root, FUSE, loop devices and strace, which does the killing; without them it says so and is skipped. With the real thing, in
a guest: tests/attach_kernel_test.py, which uses what is here.
"""
import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

# What changes anything in an attach or detach, and what waits for somebody else's change. A kill comes before the call, so this is
# every state in between.
STEPS = ("clock_nanosleep", "mkdir", "write", "fsync", "rename", "clone", "ioctl", "symlink", "unlink", "umount2", "kill", "rmdir", "fcntl")


class Host:
    """`oxbow` with a state directory and links of its own."""

    def __init__(self, directory, socket):
        self.state, self.links, self.socket = os.path.join(directory, "attach"), os.path.join(directory, "links"), socket

    def command(self, *words):
        where = ["--state-dir", self.state] + (["--links", self.links] if words[1:2] != ("link",) else [])
        return [harness.OXBOW, "-s", self.socket, "-o", "json", *words, *where]

    def run(self, *words, env=None):
        return subprocess.run(self.command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
                              env=env)

    def oxbow(self, *words, env=None):
        done = self.run(*words, env=env)
        expect(done.returncode == 0, f"{words}: status {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def refused(self, *words):
        """Its error, as a dictionary."""
        done = self.run(*words)
        expect(done.returncode in (1, 3), f"{words}: status {done.returncode}: {done.stdout}{done.stderr}")
        error = json.loads(done.stderr.splitlines()[-1])
        expect((done.returncode == 3) == (error["error"] == "CLOSED"), f"{words}: status {done.returncode}: {error}")
        return error

    def attach(self, ref, *more):
        """Its answer, whose link leads to its device, which can be read."""
        done = self.oxbow("attach", ref, *more)
        expect(os.path.realpath(done["link"]) == done["device"], f"the link leads to {os.path.realpath(done['link'])}: {done}")
        with open(done["link"], "rb") as disk:
            expect(len(disk.read(4096)) == 4096, "the device cannot be read")
        return done

    def detach(self, ref, *more):
        return self.oxbow("detach", ref, *more)

    def listed(self):
        return self.oxbow("attachment", "list")["attachments"]

    def traces(self):
        """Everything of ours that is on the host."""
        found = [path for path in glob.glob(self.state + "/*") if os.path.basename(path) not in ("lock", "hostid", "hostnqn")]
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            found += [line for line in mounts if self.state in line]
        for file in glob.glob("/sys/block/loop*/loop/backing_file"):
            with contextlib.suppress(OSError), open(file, encoding="utf-8") as backing:
                found += [file] if self.state in backing.read() else []
        for file in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as line:
                words = line.read().split("\0")
                found += [(file, words)] if words[0].endswith("nbdfuse") and any(self.state in word for word in words) else []
        for directory, _, names in os.walk(self.links):
            found += [os.path.join(directory, name) for name in names]
        return found

    def expect_nothing(self, when):
        found = self.traces()
        expect(not found, f"{when}: left on the host: {found}")

    def kill_at(self, syscall, count, *words):
        """Run the command, killed before its count-th call of this kind. False: there are not so many, and it has ended."""
        strace = ["strace", "-o", "/dev/null", "-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when={count}"]
        done = subprocess.run(strace + self.command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=120, check=False, env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))  # which strace forbids
        expect(done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), f"{words}: {done}")
        return done.returncode != 0


@contextlib.contextmanager
def host_and_daemon(*volumes, options=()):
    with harness.scratch_dir() as directory:
        daemon = harness.Daemon(directory, "--init-pool", f"{directory}/pool,{GIB}", *options)
        host = Host(directory, daemon.socket)
        with harness.running(daemon):
            for volume in volumes:
                daemon.api.volume_create(volume, 64 * MIB)
            try:
                yield host, daemon
            finally:
                for attached in host.listed():
                    host.run("detach", attached["id"], "--force", "--owner", (attached["owners"] or ["admin"])[0])
            host.expect_nothing("at the end")


def call(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
    expect(done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def mounted(device, directory):
    mountpoint = os.path.join(directory, "mnt")
    os.makedirs(mountpoint, exist_ok=True)
    call("mount", device, mountpoint)
    try:
        yield mountpoint
    finally:
        call("umount", mountpoint)


# ---- killed at every step -----------------------------------------------------------------------------------------------

def killed_at_every_step(host, begin, verb, steps=STEPS):
    """`verb`, killed before each step, then settled in one of three ways; nothing may be left, and nothing may be lost."""
    kills, settlements = 0, ("attach", "detach", "reap")
    for syscall in steps:
        count = 1
        while True:
            begin()
            if not host.kill_at(syscall, count, *verb):
                break
            settled = settlements[kills % len(settlements)]
            where = f"{verb[0]} killed before {syscall} {count}, then {settled}"
            kills, count = kills + 1, count + 1
            try:
                settle(host, settled, where)
            except harness.Broken as why:
                raise harness.Broken(f"{where}: {why}") from why
        host.detach("disk")
        host.expect_nothing(f"after {verb[0]}")
    print(f"    {kills} kills of {verb[0]}")
    expect(kills >= 2 * len(steps) / 3, "hardly anything was killed")


def settle(host, settled, where):
    if settled == "attach":
        host.attach("disk")
        host.detach("disk")
    elif settled == "detach":
        host.detach("disk")
    else:
        expect(host.oxbow("attachment", "reap")["left"] == 0, "something was left")
        left = host.listed()
        expect(not left or left[0]["state"] == "attached", f"what was reaped is {left}")
        host.detach("disk")
    host.expect_nothing(where)


def an_attach_killed_at_any_step_is_finished_or_undone():
    with host_and_daemon("disk") as (host, _):
        killed_at_every_step(host, lambda: None, ("attach", "disk"))


def a_detach_killed_at_any_step_is_finished_or_undone():
    with host_and_daemon("disk") as (host, _):
        killed_at_every_step(host, lambda: host.attach("disk"), ("detach", "disk"))


# ---- what it is ---------------------------------------------------------------------------------------------------------

def it_falls_back_says_so_and_holds_a_file_system():
    with host_and_daemon("disk") as (host, _):
        done = host.attach("disk")
        expect(done["by"] == "nbd" and done["owners"] == ["admin"] and not done["read_only"], f"{done}")
        expect("not by nvme: " in done["notes"][0] and "not by ublk: " in done["notes"][0], f"{done['notes']}")
        expect("fallback" in done["notes"][1], f"{done['notes']}")
        call("mkfs.ext4", "-q", done["link"])
        with mounted(done["link"], os.path.dirname(host.state)) as mountpoint:
            shutil.copytree("/usr/include/linux", mountpoint + "/tree", symlinks=True)
            refusal = host.refused("detach", "disk")
            expect(refusal["error"] == "BUSY" and mountpoint in refusal["message"], f"{refusal}")
        call("fsck.ext4", "-f", "-n", done["link"])
        host.detach("disk")
        host.expect_nothing("detached")
        with mounted(host.attach("disk")["link"], os.path.dirname(host.state)) as mountpoint:
            call("diff", "-r", "--no-dereference", "/usr/include/linux", mountpoint + "/tree")


def done_again_it_is_the_same_device_and_what_is_not_attached_is_detached():
    with host_and_daemon("disk") as (host, _):
        expect(host.detach("disk")["state"] == "detached", "nothing to detach")
        expect(host.detach("no-such-volume")["state"] == "detached", "nothing of that name")
        first, again = host.attach("disk"), host.attach("disk")
        expect(first["device"] == again["device"] and first["link"] == again["link"], f"{first} {again}")
        expect(host.refused("attach", "disk", "--by", "nvme")["error"] in ("UNSUPPORTED", "EXISTS"), "by another way")
        for name in (first["link"], first["device"], first["id"], "default/disk"):
            host.detach(name)
            host.expect_nothing(f"detached as {name}")
            host.attach("disk")


def a_process_that_has_it_open_is_named():
    with host_and_daemon("disk") as (host, _):
        with open(host.attach("disk")["link"], "rb"):
            refusal = host.refused("detach", "disk")
            expect(refusal["error"] == "BUSY" and f"process {os.getpid()}" in refusal["message"], f"{refusal}")
            expect(host.listed()[0]["state"] == "attached", "a refused detach changes nothing")


def it_stays_until_its_last_owner_has_gone():
    with host_and_daemon("disk") as (host, _):
        one = host.attach("disk", "--owner", "csi:1")
        two = host.attach("disk", "--owner", "csi:2")
        expect(one["device"] == two["device"] and two["owners"] == ["csi:1", "csi:2"], f"{two}")
        table = [word for word in host.command("attachment", "list") if word not in ("-o", "json")]
        said = subprocess.run(table, capture_output=True, text=True, check=True).stdout
        expect("csi:1, csi:2" in said and len(said.splitlines()) == 2, said)
        expect(host.detach("disk", "--owner", "csi:1")["owners"] == ["csi:2"], "one is left")
        expect(host.detach("disk", "--owner", "csi:1")["state"] == "attached", "again")
        expect(host.detach("disk")["state"] == "attached", "it is not admin's")
        expect(host.detach("disk", "--owner", "csi:2")["state"] == "detached", "the last")


def a_snapshot_is_a_read_only_disk():
    with host_and_daemon("disk") as (host, daemon):
        call("mkfs.ext4", "-q", host.attach("disk")["link"])
        host.detach("disk")
        daemon.api.snapshot_create("disk", "mon")
        done = host.attach("disk@mon")
        expect(done["read_only"] and done["link"].endswith("/disk@mon"), f"{done}")
        with open(f"/sys/block/{os.path.basename(done['device'])}/ro", encoding="ascii") as flag:
            expect(flag.read().strip() == "1", "it is writable")
        call("fsck.ext4", "-f", "-n", done["link"])


def a_name_that_two_pools_have_is_a_link_with_the_pool_in_it():
    with host_and_daemon("disk", "default") as (host, daemon):
        daemon.oxbow("pool", "create", os.path.join(daemon.directory, "second"), "--name", "second", "--size", "256M")
        daemon.oxbow("volume", "create", "disk", "--pool", "second", "--size", "64M")
        names = ("second/disk", "default/disk", "default/default")
        for name in names:
            expect(host.attach(name)["link"] == f"{host.links}/{name}", f"the link of {name}")
        expect(host.refused("attach", "disk")["error"] == "INVAL", "which of them?")
        daemon.oxbow("volume", "create", "other", "--pool", "second", "--size", "64M")
        expect(host.attach("other", "--as", "named/so")["link"] == host.links + "/named/so", "as it was told")
        for attached in host.listed():
            host.detach(attached["id"])


def a_volume_called_as_the_new_form_of_another_keeps_its_link():
    with host_and_daemon("disk", "disk.new") as (host, _):
        new = host.attach("disk.new")
        host.attach("disk")
        expect(os.path.realpath(new["link"]) == new["device"], "its link is gone")


def a_name_that_was_asked_for_and_is_taken_is_an_error():
    with host_and_daemon("disk", "other") as (host, _):
        host.attach("disk", "--as", "mine")
        refusal = host.refused("attach", "other", "--as", "mine")
        expect(refusal["error"] == "EXISTS" and "another volume's" in refusal["message"], f"{refusal}")
        host.detach("disk")
        host.expect_nothing("refused")
        both = [subprocess.Popen(host.command("attach", name, "--as", "mine"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for name in ("disk", "other")]
        expect(sorted(one.wait(60) for one in both) == [0, 1], "two at once have one name")


def a_link_of_somebody_elses_is_left_alone():
    with host_and_daemon("disk") as (host, _):
        os.makedirs(host.links)
        with open(host.links + "/disk", "w", encoding="ascii") as file:
            file.write("mine")
        refusal = host.refused("attach", "disk")
        expect(refusal["error"] == "EXISTS" and "--as" in refusal["hint"], f"{refusal}")
        with open(host.links + "/disk", encoding="ascii") as file:
            expect(file.read() == "mine", "it was overwritten")
        os.unlink(host.links + "/disk")
        host.expect_nothing("refused")


def a_volume_with_blocks_of_4096_is_a_disk_with_such():
    with host_and_daemon() as (host, daemon):
        daemon.api.volume_create("disk", 64 * MIB, block_size_bytes=4096)
        device = host.attach("disk")["device"]
        with open(f"/sys/block/{os.path.basename(device)}/queue/logical_block_size", encoding="ascii") as size:
            expect(size.read().strip() == "4096", "blocks of another size")


# ---- when things go away ------------------------------------------------------------------------------------------------

def a_disk_whose_daemon_was_killed_is_made_anew_once_nobody_uses_it():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk")
        call("mkfs.ext4", "-q", done["link"])
        with mounted(done["link"], daemon.directory):
            daemon.kill()
            daemon.start()
            refusal = host.refused("attach", "disk")
            expect(refusal["error"] == "BUSY" and "lost its daemon" in refusal["message"], f"{refusal}")
        again = host.attach("disk")
        expect(any("made anew" in note for note in again["notes"]), f"{again['notes']}")
        call("fsck.ext4", "-f", "-n", again["link"])


def without_a_daemon_it_can_be_detached_and_listed_and_not_attached():
    with host_and_daemon("disk") as (host, daemon):
        host.attach("disk")
        daemon.kill()
        expect(host.listed()[0]["state"] == "attached", f"{host.listed()}")
        expect(host.detach("disk")["state"] == "detached", "without a daemon")
        host.expect_nothing("detached without a daemon")
        expect(host.run("attach", "disk").returncode == 3, "nobody knows the volume")
        host.expect_nothing("not attached")


def what_a_reboot_takes_is_made_again_and_what_has_no_record_is_taken_away():
    with host_and_daemon("disk", "lost") as (host, _):
        device, lost = host.attach("disk")["device"], host.attach("lost")
        call("losetup", "--detach", device)
        call("umount", glob.glob(host.state + f"/mnt-{host.listed()[0]['id']}")[0] if host.listed()[0]["volume"].endswith("/disk")
             else glob.glob(host.state + f"/mnt-{host.listed()[1]['id']}")[0])
        os.unlink(host.links + "/disk")
        os.unlink(os.path.join(host.state, lost["id"]))
        expect({a["state"] for a in host.listed()} == {"gone"}, f"{host.listed()}")
        reaped = host.oxbow("attachment", "reap")
        expect(reaped["left"] == 0 and len(reaped["reaped"]) == 2, f"{reaped}")
        expect({a["state"] for a in host.listed()} == {"attached"}, f"{host.listed()}")
        os.unlink(lost["link"])
        expect(host.oxbow("attachment", "reap")["reaped"] == [], "and once is enough")
        host.detach("disk")


def a_disk_is_found_though_the_whole_state_directory_is_lost():
    with host_and_daemon("disk") as (host, _):
        done = host.attach("disk")
        call("umount", "--lazy", f"{host.state}/mnt-{done['id']}")
        shutil.rmtree(host.state)
        reaped = host.oxbow("attachment", "reap")
        expect(reaped["left"] == 0 and reaped["reaped"][0]["id"] == done["id"], f"{reaped}")
        expect(not os.path.exists(f"/sys/block/{os.path.basename(done['device'])}/loop"), "the loop device is still there")
        os.unlink(done["link"])


def what_has_no_record_and_is_in_use_is_left_and_told():
    with host_and_daemon("disk") as (host, _):
        done = host.attach("disk")
        record = os.path.join(host.state, done["id"])
        os.rename(record, record + ".kept")
        with open(done["link"], "rb"):
            reaped = host.oxbow("attachment", "reap")["reaped"]
            expect(len(reaped) == 1 and reaped[0]["state"] == "left" and f"process {os.getpid()}" in reaped[0]["message"], f"{reaped}")
        os.rename(record + ".kept", record)
        host.detach("disk")


def a_spoilt_record_is_told_and_nothing_is_touched():
    with host_and_daemon("disk") as (host, _):
        done = host.attach("disk")
        record = os.path.join(host.state, done["id"])
        with open(record, encoding="utf-8") as file:
            text = file.read()
        with open(record, "w", encoding="utf-8") as file:
            file.write(text[:len(text) // 2])
        expect(host.refused("attach", "disk")["error"] == "CORRUPT", "attach")
        expect(host.refused("detach", done["id"])["error"] == "CORRUPT", "detach")
        expect(host.run("attachment", "reap").returncode == 1, "reap")
        expect(host.listed()[0]["state"] == "unreadable", f"{host.listed()}")
        expect(os.path.realpath(done["link"]) == done["device"], "it is gone")
        with open(record, "w", encoding="utf-8") as file:
            file.write(text)
        host.detach("disk")


def an_nbdfuse_that_has_not_mounted_yet_is_ended_too():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk")
        record, mountpoint = os.path.join(host.state, done["id"]), os.path.join(host.state, "mnt-" + done["id"])
        with open(record, encoding="utf-8") as file:
            text = file.read()
        host.detach("disk")
        os.mkdir(mountpoint)
        daemon.process.send_signal(signal.SIGSTOP)  # so that it waits for an answer, and has not mounted
        with subprocess.Popen(["nbdfuse", mountpoint, daemon.uri("default/disk")]) as late:
            try:
                with open(record, "w", encoding="utf-8") as file:
                    file.write(text.replace("phase made", "phase intended"))
                host.detach(done["id"])
                wait_until(lambda: late.poll() is not None, "end of nbdfuse", 5)
            finally:
                late.kill()
                daemon.process.send_signal(signal.SIGCONT)


def who_was_about_to_leave_is_no_owner_when_another_comes():
    with host_and_daemon("disk") as (host, _):
        record = os.path.join(host.state, host.attach("disk", "--owner", "first")["id"])
        with open(record, encoding="utf-8") as file:
            text = file.read()
        with open(record, "w", encoding="utf-8") as file:
            file.write(text.replace("phase made", "phase leaving"))
        expect(host.listed()[0]["state"] == "leaving", f"{host.listed()}")
        expect(host.attach("disk", "--owner", "second")["owners"] == ["second"], f"{host.listed()}")


def two_at_once_make_one_device():
    with host_and_daemon("disk") as (host, _):
        both = [subprocess.Popen(host.command("attach", "disk", "--owner", f"o{i}"), stdout=subprocess.PIPE, text=True) for i in range(4)]
        devices = {json.loads(one.communicate(timeout=60)[0])["device"] for one in both}
        expect(len(devices) == 1, f"{devices}")
        expect(len(host.listed()[0]["owners"]) == 4, f"{host.listed()}")
        for i in range(4):
            host.detach("disk", "--owner", f"o{i}")


def a_forced_detach_takes_it_away_from_its_users():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk")
        with open(done["link"], "rb", buffering=0) as user:
            daemon.kill()
            host.detach("disk", "--force")
            wait_until(lambda: not os.path.lexists(done["link"]), "the link to go")
            user.close()
        wait_until(lambda: not host.traces(), "everything to go")
        daemon.start()


def mistakes_are_told_and_change_nothing():
    with host_and_daemon("disk") as (host, daemon):
        for words in (("attach", "disk", "--by", "magic"), ("attach", "disk", "--as", "../x"), ("attach", "disk", "--owner", "a b"),
                      ("attach", "disk", "--secret-file", "/nonexistent"), ("attachment", "link", "x"), ("attach",)):
            expect(host.run(*words).returncode == 2, f"{words}: {host.run(*words)}")
        expect(host.refused("attach", "nothing")["error"] == "NOENT", "no such volume")
        expect(host.refused("attach", daemon.api.volume("disk")["id"], "--at", "127.0.0.1:1")["error"] in ("UNSUPPORTED", "CLOSED"),
               "nobody there")
        host.expect_nothing("mistaken")


TESTS = [
    it_falls_back_says_so_and_holds_a_file_system,
    done_again_it_is_the_same_device_and_what_is_not_attached_is_detached,
    a_process_that_has_it_open_is_named,
    it_stays_until_its_last_owner_has_gone,
    a_snapshot_is_a_read_only_disk,
    a_name_that_two_pools_have_is_a_link_with_the_pool_in_it,
    a_volume_called_as_the_new_form_of_another_keeps_its_link,
    a_name_that_was_asked_for_and_is_taken_is_an_error,
    a_link_of_somebody_elses_is_left_alone,
    a_volume_with_blocks_of_4096_is_a_disk_with_such,
    a_disk_whose_daemon_was_killed_is_made_anew_once_nobody_uses_it,
    without_a_daemon_it_can_be_detached_and_listed_and_not_attached,
    what_a_reboot_takes_is_made_again_and_what_has_no_record_is_taken_away,
    a_disk_is_found_though_the_whole_state_directory_is_lost,
    what_has_no_record_and_is_in_use_is_left_and_told,
    a_spoilt_record_is_told_and_nothing_is_touched,
    an_nbdfuse_that_has_not_mounted_yet_is_ended_too,
    who_was_about_to_leave_is_no_owner_when_another_comes,
    two_at_once_make_one_device,
    a_forced_detach_takes_it_away_from_its_users,
    mistakes_are_told_and_change_nothing,
    an_attach_killed_at_any_step_is_finished_or_undone,
    a_detach_killed_at_any_step_is_finished_or_undone,
]


def why_not():
    if os.geteuid() != 0:
        return "mounting needs root"
    if os.path.exists("/dev/nvme-fabrics") or os.path.exists("/dev/ublk-control"):
        return "this kernel has NVMe/TCP or ublk: nothing to fall back from (tests/attach_kernel_test.py has those)"
    for device, what in (("/dev/fuse", "FUSE"), ("/dev/loop-control", "loop devices")):
        if not os.path.exists(device):
            return f"no {what} in this kernel ({device})"
    return next((f"{tool} is not installed" for tool in ("nbdfuse", "losetup", "strace", "mkfs.ext4") if not shutil.which(tool)), None)


if __name__ == "__main__":
    if reason := why_not():
        harness.skip(reason)
    import filesystem_test
    filesystem_test.keep_mounts_to_ourselves()
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
