#!/usr/bin/python3
"""`oxbow attach` by the NVMe/TCP and ublk of a real Linux 6.12 (user-mode Linux, half a second to boot): oxbowd runs in the guest.

    tests/attach_kernel_test.py [NAME ...]      only the tests whose names contain NAME

Needs root and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is skipped. Each test is a boot of
its own: `attach_kernel_test.py --in-guest NAME VARIABLE=VALUE ...` is what runs inside. OXBOW_UDEVD names udev's daemon, where it
is not installed; without one the test of udev's rule is skipped.
"""
import contextlib
import glob
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
if sys.argv[1:2] == ["--in-guest"]:  # nothing of the environment comes along by itself
    os.environ.update(setting.split("=", 1) for setting in sys.argv[3:])
import attach_test  # noqa: E402
import guest  # noqa: E402
import harness  # noqa: E402
from attach_test import call, mounted  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

ADDRESS = "127.0.0.1:4420"
PREFIX = "nqn.2026-11.dev.oxbow:volume:"
KILLS = int(os.environ.get("OXBOW_KILLS", "5"))
GUEST_LIMIT_S = 400
STEPS = tuple(step for step in attach_test.STEPS if step not in ("ioctl", "umount2", "kill", "fcntl"))  # those there are by NVMe
UDEVD = os.environ.get("OXBOW_UDEVD") or shutil.which("systemd-udevd") or next(iter(glob.glob("/lib/systemd/systemd-udevd")), "")


# ---- inside: tools ------------------------------------------------------------------------------------------------------

class GuestHost(attach_test.Host):
    """Whose kernel can connect."""

    def traces(self):
        return super().traces() + [f"{c}: {nqn}" for c, nqn in connections() if nqn.startswith(PREFIX)]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def connections():
    """(controller, name of its subsystem)"""
    found = []
    for path in glob.glob("/sys/class/nvme/*/subsysnqn"):
        with contextlib.suppress(OSError):
            found.append((os.path.basename(os.path.dirname(path)), read(path)))
    return found


def nqn_of(daemon, volume):
    return daemon.api.volume(volume)["nqn"]


@contextlib.contextmanager
def host_and_daemon(*volumes, options=(f"--nvme=tcp:{ADDRESS}",)):
    directory = "/tmp/oxbow"
    os.makedirs(directory)
    daemon = harness.Daemon(directory, f"--init-pool={directory}/pool,{GIB}", *options)
    host = GuestHost(directory, daemon.socket)
    try:
        with harness.running(daemon):
            for volume in volumes:
                daemon.api.volume_create(volume, 128 * MIB)
            yield host, daemon
            for attached in host.listed():
                host.detach(attached["id"], "--owner", attached["owners"][0])
            host.expect_nothing("at the end")
            daemon.pool_check()
    except BaseException:
        subprocess.run("dmesg | tail -40; cat /tmp/oxbow/attach/*-*", shell=True, check=False)
        raise


def nvme(*words):
    call("nvme", *words)


def connect_by_hand(nqn, address=ADDRESS):
    host, port = address.split(":")
    nvme("connect", "-t", "tcp", "-a", host, "-s", port, "-n", nqn, "--ctrl-loss-tmo=600", "--reconnect-delay=5")


def attribute(controller, name):
    return read(f"/sys/class/nvme/{controller}/{name}")


def controller_of(nqn):
    return next(c for c, name in connections() if name == nqn)


# ---- inside: by NVMe ----------------------------------------------------------------------------------------------------

def by_nvme_it_is_a_disk_whose_daemon_may_be_killed_under_load():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk")
        expect(done["by"] == "nvme" and done["link"] == host.links + "/disk", f"{done}")
        expect(any("udev does not run here" in note for note in done["notes"]), f"{done['notes']}")
        controller = controller_of(nqn_of(daemon, "disk"))
        expect(attribute(controller, "ctrl_loss_tmo") == "off", attribute(controller, "ctrl_loss_tmo"))
        expect(attribute(controller, "reconnect_delay") == "1", attribute(controller, "reconnect_delay"))
        call("mkfs.ext4", "-q", done["link"])
        with mounted(done["link"], "/tmp") as mountpoint:
            load = subprocess.Popen(["fio", "--name=load", f"--directory={mountpoint}", "--size=32m", "--rw=randwrite", "--bs=4k",
                                     "--ioengine=libaio", "--iodepth=16", "--direct=1", "--verify=crc32c", "--verify_fatal=1",
                                     "--verify_backlog=256", "--time_based", "--runtime=100000", "--output=/tmp/fio.out"])
            for _ in range(KILLS):
                time.sleep(0.5)  # the moment is the test
                expect(load.poll() is None, "fio ended")
                daemon.kill()
                expect(host.listed()[0]["state"] == "attached", "it is gone with its daemon")
                expect(host.refused("detach", "disk")["error"] == "BUSY", "detached while mounted")
                daemon.start()
                wait_until(lambda: attribute(controller, "state") == "live", "return of the connection", 30)
                expect(host.attach("disk")["device"] == done["device"], "it is another device")
            load.send_signal(2)
            load.wait(60)
            text = read("/tmp/fio.out")
            expect("verify:" not in text and "err= 0" in text, text)
            shutil.copytree("/usr/include/linux", mountpoint + "/tree", symlinks=True)
            refusal = host.refused("detach", "disk")
            expect(refusal["error"] == "BUSY" and mountpoint in refusal["message"], f"{refusal}")
        host.detach("disk")
        host.expect_nothing("detached")
        expect(host.detach("disk")["state"] == "detached", "nothing to detach")
        again = host.attach("disk")
        expect(again["link"] == done["link"], "the link is another")
        call("fsck.ext4", "-f", "-n", again["link"])
        with mounted(again["link"], "/tmp") as mountpoint:
            call("diff", "-r", "--no-dereference", "/usr/include/linux", mountpoint + "/tree")


def an_attach_killed_at_any_step_is_finished_or_undone():
    with host_and_daemon("disk") as (host, _):
        attach_test.killed_at_every_step(host, lambda: None, ("attach", "disk"), STEPS)


def a_detach_killed_at_any_step_is_finished_or_undone():
    with host_and_daemon("disk") as (host, _):
        attach_test.killed_at_every_step(host, lambda: host.attach("disk"), ("detach", "disk"), STEPS)


def it_is_connected_as_the_host_that_this_is():
    with host_and_daemon("disk") as (host, daemon):
        host.attach("disk")
        controller = controller_of(nqn_of(daemon, "disk"))
        for name, path in (("hostnqn", "/etc/nvme/hostnqn"), ("hostid", "/etc/nvme/hostid")):
            known = path if os.path.exists(path) else f"{host.state}/{name}"
            expect(attribute(controller, name) == read(known), f"{name} is {attribute(controller, name)}")


def where_nobody_listens_it_fails_and_leaves_nothing():
    with host_and_daemon("disk") as (host, daemon):
        refusal = host.refused("attach", "disk", "--at", "127.0.0.1:4499")
        expect(refusal["error"] == "CLOSED" and "4499" in refusal["message"], f"{refusal}")
        host.expect_nothing("refused")
        volume_id = daemon.api.volume("disk")["id"]
        daemon.kill()
        expect(host.refused("attach", volume_id, "--at", ADDRESS)["error"] == "CLOSED", "its daemon is dead")
        host.expect_nothing("refused")
        daemon.start()


def a_volume_of_another_hosts_daemon_is_attached_by_its_uuid():
    with host_and_daemon("disk") as (host, daemon):
        volume_id, host.socket = daemon.api.volume("disk")["id"], "/nonexistent"
        done = host.attach(volume_id, "--at", ADDRESS)
        expect(done["link"] == f"{host.links}/{volume_id}" and done["by"] == "nvme", f"{done}")
        expect(host.attach(volume_id, "--at", ADDRESS)["device"] == done["device"], "again")
        host.detach(volume_id)
        expect(host.attach(PREFIX + volume_id, "--at", "localhost:4420", "--as", "far")["link"] == host.links + "/far", "by its NQN")
        expect(host.attach("far")["device"] == done["device"], "by what it is called here")
        host.detach("far")


def a_secret_is_read_from_a_file_and_without_it_nothing_is_left():
    with host_and_daemon("disk", options=(f"--nvme=tcp:{ADDRESS}", "--nvme-authenticated")) as (host, daemon):
        refusal = host.refused("attach", "disk")
        expect("could not connect" in refusal["message"], f"{refusal}")
        host.expect_nothing("refused")
        identity = read("/etc/nvme/hostnqn") if os.path.exists("/etc/nvme/hostnqn") else read(host.state + "/hostnqn")
        made = daemon.oxbow("volume", "allow", "disk", identity, "--generate-secret")
        with open("/tmp/secret", "w", encoding="ascii") as file:
            file.write(made["secret"] + "\n")
        done = host.attach("disk", "--secret-file", "/tmp/secret")
        expect(made["secret"] not in read(f"{host.state}/{done['id']}"), "the secret is on record")
        nvme("disconnect", "-n", nqn_of(daemon, "disk"))
        expect(host.oxbow("attachment", "reap")["left"] == 0, "it could not be connected again")
        expect(host.attach("disk")["by"] == "nvme", "with the file that is on record")


def a_detach_does_not_need_the_daemon():
    with host_and_daemon("disk") as (host, daemon):
        host.attach("disk")
        daemon.kill()
        host.detach("disk")
        host.expect_nothing("detached")
        daemon.start()


def a_daemon_that_stands_still_does_not_hold_a_detach_up_for_good():
    with host_and_daemon("disk") as (host, daemon):
        device = host.attach("disk")["device"]
        daemon.process.send_signal(signal.SIGSTOP)
        reader = subprocess.Popen(["dd", f"if={device}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct"], stderr=subprocess.DEVNULL)
        wait_until(lambda: read(f"/sys/block/{os.path.basename(device)}/inflight").split()[0] == "1", "read under way")
        expect(host.refused("detach", device)["error"] == "BUSY", "somebody reads")
        began = time.monotonic()
        host.detach(device, "--force")
        print(f"NOTE detached within {time.monotonic() - began:.1f} s")
        reader.wait(60)
        daemon.process.send_signal(signal.SIGCONT)


def a_disk_without_a_node_in_dev_is_not_taken_away():
    with host_and_daemon("disk") as (host, _):
        device = host.attach("disk")["device"]
        number = os.stat(device).st_rdev
        with open(device, "rb"):
            os.unlink(device)
            expect(host.refused("detach", "disk")["error"] == "NOENT", "nobody could look who has it open")
        expect(connections(), "it is gone")
        os.mknod(device, 0o600 | stat.S_IFBLK, number)
        host.detach("disk")


def a_forced_detach_takes_it_away_from_a_mount_whose_daemon_is_gone():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk")
        call("mkfs.ext4", "-q", done["link"])
        with mounted(done["link"], "/tmp") as mountpoint:
            daemon.kill()
            writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={mountpoint}/x", "bs=1M", "count=1", "oflag=direct"],
                                      stderr=subprocess.DEVNULL)
            expect(host.refused("detach", "disk")["error"] in ("BUSY", "TIMEOUT"), "without force")
            host.detach("disk", "--force")
            expect(writer.wait(30) != 0, "a write to nowhere succeeded")
        wait_until(lambda: not host.traces(), "everything to go")
        daemon.start()


# ---- inside: what nobody owns --------------------------------------------------------------------------------------------

@contextlib.contextmanager
def somebody_elses_target(nqn, port):
    """The kernel's own NVMe target, on a file."""
    with open("/tmp/other.img", "wb") as file:
        file.truncate(16 * MIB)
    device = subprocess.run(["losetup", "--find", "--show", "/tmp/other.img"], check=True, capture_output=True, text=True).stdout.strip()
    root = "/sys/kernel/config/nvmet"
    subsystem, listener = f"{root}/subsystems/{nqn}", f"{root}/ports/1"
    for directory in (subsystem, subsystem + "/namespaces/1", listener):
        os.makedirs(directory)
    for name, value in ((subsystem + "/attr_allow_any_host", "1"), (subsystem + "/namespaces/1/device_path", device),
                        (subsystem + "/namespaces/1/enable", "1"), (listener + "/addr_trtype", "tcp"),
                        (listener + "/addr_adrfam", "ipv4"), (listener + "/addr_traddr", "127.0.0.1"), (listener + "/addr_trsvcid", port)):
        with open(name, "w", encoding="ascii") as file:
            file.write(value)
    os.symlink(subsystem, f"{listener}/subsystems/{nqn}")
    yield


def a_connection_that_nobody_owns_is_reaped_and_only_one_of_ours():
    other = f"nqn.2026-11.dev.other:volume:{harness.new_id()}"
    with host_and_daemon("disk", "used", "kept") as (host, daemon), somebody_elses_target(other, "4421"):
        kept = host.attach("kept")
        for nqn, address in ((nqn_of(daemon, "disk"), ADDRESS), (nqn_of(daemon, "used"), ADDRESS), (other, "127.0.0.1:4421")):
            connect_by_hand(nqn, address)
        wait_until(lambda: len(glob.glob("/dev/nvme*n1")) == 4, "four disks")
        used = next(device for device in glob.glob("/dev/nvme*n1")
                    if read(f"/sys/class/block/{os.path.basename(device)}/device/subsysnqn") == nqn_of(daemon, "used"))
        with open(used, "rb"):
            reaped = host.oxbow("attachment", "reap")
        states = {one["id"]: one["state"] for one in reaped["reaped"]}
        expect(states == {daemon.api.volume("disk")["id"]: "done", daemon.api.volume("used")["id"]: "left"}, f"{reaped}")
        left = {nqn for _, nqn in connections()}
        expect(left == {other, nqn_of(daemon, "used"), nqn_of(daemon, "kept")}, f"{left}")
        expect(os.path.realpath(kept["link"]) == kept["device"], "ours is gone")
        host.oxbow("attachment", "reap")
        expect(nqn_of(daemon, "used") not in {nqn for _, nqn in connections()}, "it is not in use any more")
        nvme("disconnect", "-n", other)


def a_connection_made_by_hand_becomes_ours_when_it_is_attached_and_goes_when_it_is_detached():
    with host_and_daemon("disk") as (host, daemon):
        nqn = nqn_of(daemon, "disk")
        connect_by_hand(nqn)
        controller = controller_of(nqn)
        with open(f"/sys/class/nvme/{controller}/fast_io_fail_tmo", "w", encoding="ascii") as seconds:
            seconds.write("3")
        host.attach("disk")
        expect([c for c, _ in connections()] == [controller], "it was connected once more")
        for name in ("ctrl_loss_tmo", "fast_io_fail_tmo"):
            expect(attribute(controller, name) == "off", f"it would be given up: {name} is {attribute(controller, name)}")
        expect(host.oxbow("attachment", "reap")["reaped"] == [], "it is owned now")
        host.detach("disk")
        connect_by_hand(nqn)
        expect(host.detach("disk")["state"] == "detached" and not connections(), f"{connections()}")


def what_a_reboot_takes_is_made_again_with_the_same_link():
    with host_and_daemon("disk") as (host, daemon):
        done = host.attach("disk", "--as", "data/one")
        nvme("disconnect", "-n", nqn_of(daemon, "disk"))
        os.unlink(done["link"])
        expect(host.listed()[0]["state"] == "gone", f"{host.listed()}")
        daemon.kill()
        reaped = host.run("attachment", "reap")
        expect(reaped.returncode == 1 and host.listed()[0]["state"] == "gone", "without its daemon it cannot be made, and is wanted")
        daemon.start()
        host.oxbow("attachment", "reap")
        again = host.listed()[0]
        expect(again["state"] == "attached" and again["link"] == done["link"], f"{again}")
        expect(os.path.realpath(again["link"]) == again["device"], "the link leads elsewhere")


# ---- inside: by ublk ----------------------------------------------------------------------------------------------------

def a_snapshot_is_a_read_only_disk_by_ublk():
    with host_and_daemon("disk") as (host, daemon):
        call("mkfs.ext4", "-q", host.attach("disk")["link"])
        daemon.api.snapshot_create("disk", "mon")
        done = host.attach("disk@mon")
        expect(done["by"] == "ublk" and done["read_only"] and "snapshots are not served over NVMe" in done["notes"][0], f"{done}")
        expect(host.refused("attach", "disk@mon", "--by", "nvme")["error"] in ("UNSUPPORTED", "EXISTS"), "by NVMe")
        call("fsck.ext4", "-f", "-n", done["link"])
        with open(done["link"], "rb"):
            expect(host.refused("detach", "disk@mon")["error"] == "BUSY", "it is open")
        host.detach("disk@mon")
        expect(not daemon.api.call("GET", "/v1/ublk")["devices"], "the daemon still has it")


def without_nvme_it_is_ublk_and_an_attach_killed_around_any_request_is_finished_or_undone():
    with host_and_daemon("disk", options=()) as (host, _):
        done = host.attach("disk")
        expect(done["by"] == "ublk" and "not by nvme: the daemon does not serve NVMe over TCP" in done["notes"][0], f"{done}")
        host.detach("disk")
        attach_test.killed_at_every_step(host, lambda: None, ("attach", "disk"), ("sendto", "rename", "symlink"))


def each_way_is_taken_when_it_is_asked_for():
    with host_and_daemon("disk") as (host, _):
        for way, name in (("nvme", "nvme"), ("ublk", "ublkb"), ("nbd", "loop")):
            done = host.attach("disk", "--by", way)
            expect(done["by"] == way and os.path.basename(done["device"]).startswith(name), f"{done}")
            expect(host.attach("disk")["device"] == done["device"], "not said, it is the one there is")
            other = {"nvme": "nbd", "ublk": "nvme", "nbd": "ublk"}[way]
            expect(host.refused("attach", "disk", "--by", other)["error"] == "EXISTS", "by another way as well")
            host.detach("disk")
            host.expect_nothing(f"detached from {way}")


# ---- inside: udev -------------------------------------------------------------------------------------------------------

def udev_makes_the_link_and_follows_the_device():
    if not UDEVD:
        return print("SKIP udev is not installed (OXBOW_UDEVD)")
    call("mount", "-t", "tmpfs", "none", "/var/lib")  # the rule asks with the usual directories
    os.makedirs("/run/udev/rules.d")
    with open(os.path.join(harness.ROOT, "dist/60-oxbow.rules"), encoding="utf-8") as rules, \
            open("/run/udev/rules.d/60-oxbow.rules", "w", encoding="utf-8") as out:
        out.write(rules.read().replace("@bindir@", os.path.dirname(harness.OXBOW)))
    subprocess.run([UDEVD, "--daemon"], check=True)
    wait_until(lambda: os.path.exists("/run/udev/control"), "udev's socket")
    with host_and_daemon("disk") as (host, daemon):
        host.state, host.links = "/var/lib/oxbow/attach", "/dev/oxbow"
        done = host.attach("disk")
        expect(done["link"] == "/dev/oxbow/disk" and not done["notes"], f"not by udev: {done}")
        by_id = f"/dev/disk/by-id/oxbow-{done['id']}"
        expect(os.path.realpath(by_id) == done["device"], "no link by id")
        expect(not os.readlink(done["link"]).startswith("/"), f"{os.readlink(done['link'])} is the command's own")
        with open(done["link"], "wb") as disk:  # one partition, of Linux, from sector 2048 on
            disk.write(bytes(446) + struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 32768) + bytes(48) + b"\x55\xaa")
        call("blockdev", "--rereadpt", done["link"])
        wait_until(lambda: os.path.exists("/dev/oxbow/disk-part1") and os.path.exists(by_id + "-part1"), "link to the partition")
        host.detach("disk")
        wait_until(lambda: not os.path.lexists("/dev/oxbow/disk") and not os.path.lexists(by_id), "end of the links")
        connect_by_hand(nqn_of(daemon, "disk"))
        wait_until(lambda: os.path.exists(by_id), "link by id of what is on no record")
        expect(not os.path.lexists("/dev/oxbow/disk"), "a name that nobody gave")
        host.detach("disk")
    return None


TESTS = [
    by_nvme_it_is_a_disk_whose_daemon_may_be_killed_under_load,
    it_is_connected_as_the_host_that_this_is,
    where_nobody_listens_it_fails_and_leaves_nothing,
    a_volume_of_another_hosts_daemon_is_attached_by_its_uuid,
    a_secret_is_read_from_a_file_and_without_it_nothing_is_left,
    a_detach_does_not_need_the_daemon,
    a_daemon_that_stands_still_does_not_hold_a_detach_up_for_good,
    a_disk_without_a_node_in_dev_is_not_taken_away,
    a_forced_detach_takes_it_away_from_a_mount_whose_daemon_is_gone,
    a_connection_that_nobody_owns_is_reaped_and_only_one_of_ours,
    a_connection_made_by_hand_becomes_ours_when_it_is_attached_and_goes_when_it_is_detached,
    what_a_reboot_takes_is_made_again_with_the_same_link,
    a_snapshot_is_a_read_only_disk_by_ublk,
    each_way_is_taken_when_it_is_asked_for,
    udev_makes_the_link_and_follows_the_device,
    an_attach_killed_at_any_step_is_finished_or_undone,
    a_detach_killed_at_any_step_is_finished_or_undone,
    without_nvme_it_is_ublk_and_an_attach_killed_around_any_request_is_finished_or_undone,
]


# ---- outside ------------------------------------------------------------------------------------------------------------

def booted(name):
    """A test that boots the guest and runs the test of this name in it."""
    def test():
        with harness.scratch_dir() as directory:
            said = guest.run(__file__, guest.netns("oxattach"), directory, GUEST_LIMIT_S, name, f"OXBOW_BUILD={harness.BUILD}",
                             f"OXBOW_KILLS={KILLS}", f"OXBOW_UDEVD={UDEVD}", options=("-m", "2G")).splitlines()
        for line in said:
            if " kills of " in line or line.startswith("NOTE "):
                print("   ", line.removeprefix("NOTE ").strip())
        return next((line.removeprefix("SKIP ") for line in said if line.startswith("SKIP ")), None)
    test.__name__ = name
    return test


def in_guest(name, *_):
    next(test for test in TESTS if test.__name__ == name)()


if __name__ == "__main__":
    guest.main([booted(test.__name__) for test in TESTS], ("nvme", "fio", "strace", "mkfs.ext4", "losetup", "nbdfuse", "blockdev"),
               in_guest)
