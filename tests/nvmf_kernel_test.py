#!/usr/bin/python3
"""The kernel's own NVMe/TCP host, in a real Linux 6.12 (user-mode Linux, half a second to boot), against oxbowd.

    tests/nvmf_kernel_test.py [NAME ...]       only the tests whose names contain NAME

Needs root, iproute2, nvme-cli, fio and the guest kernel ($GUEST_RUN, or shared/guest/run above the project); without them it is
skipped. The second half of this file runs inside the guest: `nvmf_kernel_test.py --in-guest WHAT ARGUMENT ...`. What it wants done
outside (grow the volume, kill the daemon) it asks for by a file in the directory both see, and waits for the answer.
"""
import contextlib
import glob
import json
import os
import random
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import guest  # noqa: E402
import harness  # noqa: E402
from guest import call  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

NETNS = guest.netns("oxnvme")
PORT = "4420"
SIZE = 512 * MIB
VOLUME_ID = "6b2b5d05-3a7c-4a39-9c5f-0f2b6a0b7f11"
NQN = f"nqn.2026-11.dev.oxbow:volume:{VOLUME_ID}"
HOST_ID = "0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0de"
HOST_NQN = f"nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}"
KILLS = int(os.environ.get("OXBOW_KILLS", "20"))


# ---- outside ------------------------------------------------------------------------------------------------------------

class Outside:
    """Does what the guest asks for: a file ask-N in the shared directory, answered by done-N."""

    def __init__(self, directory, daemon):
        self.directory, self.daemon, self.seen = directory, daemon, 0
        self.problem, self.stopping = None, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopping.wait(0.01):
            ask = os.path.join(self.directory, f"ask-{self.seen}")
            if not os.path.exists(ask):
                continue
            with open(ask, encoding="utf-8") as file:
                words = file.read().split()
            try:
                getattr(self, words[0])(*words[1:])
            except Exception as why:  # told by the test, below  # pylint: disable=broad-except
                self.problem = f"{words}: {why!r}"
            with open(os.path.join(self.directory, f"done-{self.seen}"), "w", encoding="utf-8") as file:
                file.write(self.problem or "")
            self.seen += 1

    def grow(self, size_bytes):
        self.daemon.api.volume_grow("disk", int(size_bytes))

    def allow(self, nqn, *secrets):
        self.daemon.api.call("PUT", f"/v1/volumes/disk/hosts/{nqn}", dict(zip(("secret", "controller_secret"), secrets)))

    def disallow(self, nqn):
        self.daemon.api.call("DELETE", f"/v1/volumes/disk/hosts/{nqn}")

    def restart(self):
        self.daemon.kill()
        self.daemon.start()

    @contextlib.contextmanager
    def listening(self):
        self.thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            self.thread.join()


def run_guest(netns, limit_s, outside, *arguments, file=__file__):
    os.makedirs(outside.directory, exist_ok=True)
    try:
        with outside.listening():
            said = guest.run(file, netns, outside.directory, limit_s, *arguments)
    finally:
        expect(outside.problem is None, f"outside: {outside.problem}")
    for line in said.splitlines():
        if line.startswith("NOTE "):
            print("   ", line.removeprefix("NOTE "))


def with_daemon(what, *arguments, block_size_bytes=512, options=("--nvme-insecure",)):
    with harness.scratch_dir() as directory, guest.network(NETNS):
        daemon = guest.NetnsDaemon(NETNS, directory, f"--init-pool={directory}/pool.img,{2 * GIB}",
                                   f"--nvme=tcp:{guest.HOST}:{PORT}", *options)
        try:
            daemon.start()
            daemon.api.volume_create("disk", SIZE, VOLUME_ID, block_size_bytes)
            run_guest(NETNS, 280, Outside(os.path.join(directory, "guest"), daemon), what, *arguments)
            daemon.api.close_wait("volume", "disk")
            daemon.pool_check()
        finally:
            daemon.stop()


def the_kernel_identifies_a_volume_reads_its_logs_and_lists_it():
    with_daemon("identify")


def the_kernel_finds_volumes_by_discovery_and_connects_all():
    with_daemon("discover")


def the_kernel_makes_fills_trims_and_checks_ext4():
    with_daemon("filesystem", "ext4")


def the_kernel_makes_fills_trims_and_checks_xfs_on_blocks_of_4096():
    with_daemon("filesystem", "xfs", block_size_bytes=4096)


def the_kernel_writes_and_verifies_with_digests_of_headers_and_data():
    with_daemon("verify", "--hdr-digest", "--data-digest")


def the_kernel_writes_and_verifies_without_flow_control_of_the_queue():
    with_daemon("verify", "--disable-sqflow", block_size_bytes=4096)


def a_volume_that_grows_is_seen_to_have_grown_by_a_connected_kernel():
    with_daemon("grow")


def a_reset_of_the_controller_under_load_is_a_pause():
    with_daemon("reset")


def a_daemon_killed_again_and_again_under_verified_load_is_a_pause():
    with_daemon("kills", str(KILLS))


def the_kernel_is_refused_where_its_name_is_not_on_the_list_and_sent_away_when_taken_off():
    with_daemon("access")


def the_kernel_proves_itself_with_each_hash_and_the_volume_to_it():
    with_daemon("authenticate", options=("--nvme-authenticated",))


def the_kernel_proves_itself_without_a_group():
    with_daemon("authenticate", options=("--nvme-authenticated", "--nvme-dh-group=null"))


def the_kernel_proves_itself_in_the_largest_group():
    with_daemon("authenticate", options=("--nvme-authenticated", "--nvme-dh-group=ffdhe8192"))


def a_daemon_killed_under_a_kernel_that_has_to_prove_itself_again_is_a_pause():
    with_daemon("authenticated_kills", str(min(KILLS, 5)), options=("--nvme-authenticated",))


# ---- inside -------------------------------------------------------------------------------------------------------------

DEVICE, CONTROLLER = "/dev/nvme0n1", "/dev/nvme0"


def ask(*command):
    print("+", *command, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def outside(*words):
    """Have something done outside, and wait for it."""
    directory = os.environ["OUT"]
    path = os.path.join(directory, f"ask-{outside.count}")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(" ".join(words))
    os.rename(path + ".new", path)
    done = os.path.join(directory, f"done-{outside.count}")
    wait_until(lambda: os.path.exists(done), f"end of {words} outside", 60)
    outside.count += 1


outside.count = 0


def where(*more):
    return ["-t", "tcp", "-a", guest.HOST, "-s", PORT, "-q", HOST_NQN, "-I", HOST_ID, *more]


def connect(*more):
    call("nvme", "connect", "-n", NQN, *where("--reconnect-delay=1", "--ctrl-loss-tmo=-1", *more))
    wait_until(lambda: os.path.exists(DEVICE), DEVICE)


def disconnect():
    call("nvme", "disconnect", "-n", NQN)


def size_bytes():
    with open(f"/sys/block/{os.path.basename(DEVICE)}/size", encoding="utf-8") as file:
        return int(file.read()) * 512


def nvme_json(*command):
    return json.loads(ask("nvme", *command, "-o", "json"))


def identify():
    connect()
    controller = nvme_json("id-ctrl", CONTROLLER)
    expect(controller["subnqn"] == NQN and controller["mn"].strip() == "Oxbow volume", f"{controller}")
    expect(controller["sn"].strip() == VOLUME_ID.replace("-", "")[:20], controller["sn"])
    namespace = nvme_json("id-ns", DEVICE)
    expect(namespace["nguid"] == VOLUME_ID.replace("-", ""), namespace["nguid"])
    expect(namespace["nsze"] * 512 == SIZE, f"{namespace['nsze']}")
    with open("/sys/block/nvme0n1/uuid", encoding="utf-8") as file:
        expect(file.read().strip() == VOLUME_ID, "the kernel knows the volume by its uuid")
    with open("/sys/block/nvme0n1/queue/write_cache", encoding="utf-8") as file:
        expect(file.read().strip() == "write through", "from another node every answered write is durable (V11)")
    expect(NQN in ask("nvme", "list-subsys"), "it is listed")
    for log in ("error-log", "smart-log", "fw-log", "effects-log", "changed-ns-list-log", "ana-log"):
        call("nvme", log, CONTROLLER)
    for feature in ("0x07", "0x0b", "0x0f"):
        call("nvme", "get-feature", CONTROLLER, "-f", feature)
    call("nvme", "list-ns", CONTROLLER)
    call("nvme", "ns-descs", DEVICE)
    call("nvme", "get-property", CONTROLLER, "-o", "0x1c")
    call("nvme", "flush", DEVICE, "-n", "1")
    call("nvme", "verify", DEVICE, "-s", "0", "-c", "127", "-n", "1")
    with open("/tmp/page", "wb") as page:
        page.write(b"oxbow" * 1000)
    call("nvme", "write", DEVICE, "-s", "8", "-c", "7", "-z", "4096", "-d", "/tmp/page")
    call("nvme", "compare", DEVICE, "-s", "8", "-c", "7", "-z", "4096", "-d", "/tmp/page")
    differs = subprocess.run(["nvme", "compare", DEVICE, "-s", "16", "-c", "7", "-z", "4096", "-d", "/tmp/page"], check=False,
                             capture_output=True, text=True)
    expect(differs.returncode != 0, "zeroes are not what was written elsewhere")
    unknown = subprocess.run(["nvme", "io-passthru", DEVICE, "--opcode=0x19", "-n", "1"], check=False, capture_output=True,
                             text=True)
    expect("INVALID_OPCODE" in unknown.stdout + unknown.stderr or "Invalid Command Opcode" in unknown.stdout + unknown.stderr,
           f"{unknown}")
    disconnect()


def discover():
    log = ask("nvme", "discover", *where())
    expect(NQN in log and guest.HOST in log, log)
    call("nvme", "connect-all", *where())
    wait_until(lambda: NQN in ask("nvme", "list-subsys"), "connected volume")
    disconnect()
    wrong = subprocess.run(["nvme", "connect", "-n", NQN[:-1] + "0", *where()], check=False, capture_output=True, text=True)
    expect(wrong.returncode != 0, "a volume that is not there is not connected")


# Keys whose byte i is i * 7 + their length; the last one is to be transformed.
SECRETS = ("DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:",
           "DHHC-1:00:MDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J51wkKvA==:",
           "DHHC-1:00:QEdOVVxjanF4f4aNlJuiqbC3vsXM09rh6O/2/QQLEhkgJy41PENKUVhfZm10e4KJkJeepayzusHIz9bd5Ovy+eQYloY=:",
           "DHHC-1:01:tOVlODJmo6wvuXBE40yX8W05nDfezspkES7I+UI0HaULVs0T:")
OTHER_NQN = "nqn.2026-11.test:another-host"


def connect_is_refused(*more):
    command = ["nvme", "connect", "-n", NQN, *where("--reconnect-delay=1", "--ctrl-loss-tmo=3", *more)]
    print("+", *command, "(which must fail)", flush=True)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    expect(done.returncode != 0 and not os.path.exists(DEVICE), f"connected: {done}")


def access():
    outside("allow", OTHER_NQN)
    connect_is_refused()
    expect(NQN not in ask("nvme", "discover", *where()), "a volume that is another's is shown")
    outside("allow", HOST_NQN)
    connect()
    call("dd", f"of={DEVICE}", "if=/dev/zero", "bs=1M", "count=8", "oflag=direct")
    outside("disallow", HOST_NQN)
    wait_until(lambda: not glob.glob("/sys/class/nvme/nvme*/state") and not os.path.exists(DEVICE),
               "the kernel to be cut off, to be refused, and to give up")
    connect_is_refused("--duplicate-connect")  # it may not have forgotten the old association to the end


def authenticate():
    connect_is_refused()
    for i, secret in enumerate(SECRETS):
        other = SECRETS[i - 1]
        outside("allow", HOST_NQN, secret)
        connect(f"--dhchap-secret={secret}")
        call("dd", f"of={DEVICE}", "if=/dev/zero", "bs=1M", "count=8", "oflag=direct")
        disconnect()
        outside("allow", HOST_NQN, secret, other)
        connect(f"--dhchap-secret={secret}", f"--dhchap-ctrl-secret={other}")
        call("dd", f"if={DEVICE}", "of=/dev/null", "bs=1M", "count=8", "iflag=direct")
        disconnect()
    connect_is_refused()
    connect_is_refused(f"--dhchap-secret={SECRETS[0]}")
    connect_is_refused(f"--dhchap-secret={SECRETS[-1]}", f"--dhchap-ctrl-secret={SECRETS[0]}")
    connect(f"--dhchap-secret={SECRETS[-1]}")
    disconnect()


def authenticated_kills(count):
    outside("allow", HOST_NQN, SECRETS[3], SECRETS[0])
    connect(f"--dhchap-secret={SECRETS[3]}", f"--dhchap-ctrl-secret={SECRETS[0]}")
    load = fio_start()
    for _ in range(int(count)):
        served = served_now()
        outside("restart")
        wait_until(lambda: served_now() > served + 100, "I/O after a kill", 60)  # pylint: disable=cell-var-from-loop
        fio_runs(load)
    fio_result(load)
    disconnect()


def filesystem(kind):
    connect()
    guest.fill_trim_and_check(kind, DEVICE)
    call("blkdiscard", "-f", DEVICE)
    call("cmp", "-n", str(64 * MIB), DEVICE, "/dev/zero")
    call("blkdiscard", "-f", "-z", "-l", str(16 * MIB), DEVICE)
    disconnect()


def fio(seconds, *more):
    """One pass that reads back all it wrote, or ends after so many seconds."""
    return ["fio", "--name=v", f"--filename={DEVICE}", "--direct=1", "--ioengine=libaio", "--iodepth=32", "--rw=randrw",
            "--bsrange=4k-256k", "--size=256M", "--verify=crc32c", "--verify_fatal=1", "--randseed=7", f"--runtime={seconds}",
            "--output=/tmp/fio.out", *more]


def fio_endless():
    """Writes that are read back soon after, again and again; an old version of a block is noticed as such."""
    return ["fio", "--name=v", f"--filename={DEVICE}", "--direct=1", "--ioengine=libaio", "--iodepth=32", "--rw=randwrite",
            "--bs=16k", "--size=256M", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=512", "--time_based",
            "--runtime=100000", "--output=/tmp/fio.out"]


def fio_start():
    """An endless one, once its I/O is under way."""
    done_at = served_now()
    load = subprocess.Popen(fio_endless())
    wait_until(lambda: served_now() > done_at + 100, "I/O of fio", 60)
    return load


def fio_text():
    with open("/tmp/fio.out", encoding="utf-8") as file:
        return file.read()


def fio_runs(load):
    if load.poll() is not None:
        raise harness.Broken("fio ended: " + fio_text())


def fio_result(load):
    """Ends an endless one, which must have seen nothing wrong."""
    fio_runs(load)
    load.send_signal(2)
    load.wait()
    text = fio_text()
    expect("verify:" not in text and "err= 0" in text, text)


def verify(*how):
    connect(*how)
    call(*fio(10))
    call(*fio(5, "--bs=4k", "--size=32M", "--fsync=16"))
    disconnect()


def grow():
    connect()
    expect(size_bytes() == SIZE, f"{size_bytes()}")
    outside("grow", str(2 * SIZE))
    wait_until(lambda: size_bytes() == 2 * SIZE, "new size in the kernel", 20)
    call("dd", "if=/dev/urandom", f"of={DEVICE}", "bs=1M", "count=1", f"seek={2 * SIZE // MIB - 1}", "oflag=direct",
         "conv=notrunc")
    outside("grow", str(3 * SIZE))
    wait_until(lambda: size_bytes() == 3 * SIZE, "newer size in the kernel", 20)
    disconnect()


def reset():
    connect()
    load = fio_start()
    for _ in range(4):
        time.sleep(2)  # the moment is the test
        call("nvme", "reset", CONTROLLER)
        done_at = served_now()
        wait_until(lambda: served_now() > done_at, "I/O after the reset", 60)
    fio_result(load)
    disconnect()


def kills(count):
    """Each kill in the middle of load; what is measured is how long I/O stood still."""
    rng = random.Random(7)
    connect()
    load = fio_start()
    pauses = []
    for _ in range(int(count)):
        time.sleep(0.5 + rng.random())  # the moment is the test
        fio_runs(load)
        before = time.monotonic()
        outside("restart")
        done_at = served_now()
        wait_until(lambda: served_now() > done_at, "I/O after the restart", 60)
        pauses.append(time.monotonic() - before)
    fio_result(load)
    print(f"NOTE {count} kills, longest pause {max(pauses):.2f} s, median {sorted(pauses)[len(pauses) // 2]:.2f} s")
    disconnect()


def served_now():
    """How many I/Os of the device have ended, by the kernel's own count."""
    names = [name for name in glob.glob("/sys/block/nvme0c*n1/stat")] or [f"/sys/block/{os.path.basename(DEVICE)}/stat"]
    with open(names[0], encoding="utf-8") as file:
        fields = file.read().split()
    return int(fields[0]) + int(fields[4])


TESTS = [
    the_kernel_identifies_a_volume_reads_its_logs_and_lists_it,
    the_kernel_finds_volumes_by_discovery_and_connects_all,
    the_kernel_makes_fills_trims_and_checks_ext4,
    the_kernel_makes_fills_trims_and_checks_xfs_on_blocks_of_4096,
    the_kernel_writes_and_verifies_with_digests_of_headers_and_data,
    the_kernel_writes_and_verifies_without_flow_control_of_the_queue,
    a_volume_that_grows_is_seen_to_have_grown_by_a_connected_kernel,
    a_reset_of_the_controller_under_load_is_a_pause,
    a_daemon_killed_again_and_again_under_verified_load_is_a_pause,
    the_kernel_is_refused_where_its_name_is_not_on_the_list_and_sent_away_when_taken_off,
    the_kernel_proves_itself_with_each_hash_and_the_volume_to_it,
    the_kernel_proves_itself_without_a_group,
    the_kernel_proves_itself_in_the_largest_group,
    a_daemon_killed_under_a_kernel_that_has_to_prove_itself_again_is_a_pause,
]


def in_guest(what, *arguments):
    globals()[what](*arguments)


if __name__ == "__main__":
    guest.main(TESTS, ("nvme", "fio", "mkfs.ext4", "mkfs.xfs", "xfs_repair", "fstrim"), in_guest)
