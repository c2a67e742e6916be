#!/usr/bin/python3
"""TLS for NVMe over TCP with the real daemon: a foreign client of the handshake (openssl s_client), the project's own host, and
those who should not get in.

    tests/nvmf_tls_test.py [NAME ...]       only the tests whose names contain NAME

What the keys of a session are is computed here once more, from the words of RFC 5869, RFC 8446 and the specification.
"""
import base64
import contextlib
import hashlib
import hmac
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import MIB, expect, wait_until  # noqa: E402

BENCH = os.path.join(os.path.dirname(harness.OXBOWD), "oxbow-bench")
HOST = "nqn.2014-08.org.nvmexpress:uuid:0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0de"
VOLUME_ID = "6b2b5d05-3a7c-4a39-9c5f-0f2b6a0b7f11"
NQN = f"nqn.2026-11.dev.oxbow:volume:{VOLUME_ID}"
ICREQ = struct.pack("<BBBBIHBBI", 0, 0, 128, 0, 128, 0, 0, 0, 0).ljust(128, b"\0")
ICRESP, TERM = 1, 3


# ---- keys ---------------------------------------------------------------------------------------------------------------

def expand_label(key, label, context):
    secret = hmac.new(bytes(32), key, hashlib.sha256).digest()
    info = struct.pack(">HB", 32, 6 + len(label)) + b"tls13 " + label + bytes([len(context)]) + context
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()


def session_key(text, version):
    """(identity, key) of a key NVMeTLSkey-1:01:...: for HOST and NQN."""
    configured = base64.b64decode(text.split(":")[2])[:32]
    retained = expand_label(configured, b"HostNQN", HOST.encode())
    if version == 0:
        identity = context = f"NVMe0R01 {HOST} {NQN}"
    else:
        digest = hmac.new(retained, f"{HOST} {NQN} NVMe-over-Fabrics".encode(), hashlib.sha256).digest()
        context = "01 " + base64.b64encode(digest).decode()
        identity = f"NVMe1R01 {HOST} {NQN} {context[3:]}"
    return identity, expand_label(retained, b"nvme-tls-psk", context.encode())


# ---- the frame ----------------------------------------------------------------------------------------------------------

def oxbow(daemon, *arguments):
    done = subprocess.run([harness.OXBOW, "-s", daemon.socket, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@contextlib.contextmanager
def served(*options):
    """A daemon with a volume whose list has HOST with a key: (daemon, port, key)."""
    with harness.scratch_dir() as directory:
        pool = f"--init-pool={directory}/pool.img,{512 * MIB}"
        with harness.running_daemon(directory, pool, *options) as daemon:
            daemon.api.volume_create("disk", 64 * MIB, VOLUME_ID)
            key = oxbow(daemon, "-q", "volume", "allow", "disk", HOST, "--generate-tls-key").strip()
            port = re.search(r"nvmf\.listening: .*address=tcp:\S+:(\d+)", log_of(daemon))[1]
            yield daemon, port, key
            expect(key.split(":")[2] not in log_of(daemon) + oxbow(daemon, "events"), "a key was logged")


def log_of(daemon):
    with open(daemon.log, encoding="utf-8") as file:
        return file.read()


def logged(daemon, pattern):
    wait_until(lambda: re.search(pattern, log_of(daemon)), f"{pattern} in the log", limit_s=10)


def s_client(port, identity, key, *more):
    """ICReq through openssl; what comes back, and what openssl says of it."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-psk", key.hex(), "-psk_identity", identity,
               "-quiet", "-ign_eof", *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.stdin.write(ICREQ)
        process.stdin.flush()
        answer = process.stdout.read(128)
    finally:
        process.kill()
    return answer, process.communicate()[1].decode()


@contextlib.contextmanager
def bench_running(port, key, *options):
    with harness.scratch_dir() as directory:
        file = os.path.join(directory, "key")
        with open(file, "w", encoding="utf-8") as out:
            out.write((key or "") + "\n")
        tls = ["--tls-key-file", file] if key else []
        command = [BENCH, "--address", f"tcp:127.0.0.1:{port}", "--nqn", NQN, "--host-nqn", HOST, *tls, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def bench_end(process, status=0):
    said, _ = process.communicate(timeout=120)
    expect(process.returncode == status, f"status {process.returncode}: {said}")
    return said


def bench(port, key, *options, status=0):
    with bench_running(port, key, *options) as process:
        return bench_end(process, status)


# ---- tests --------------------------------------------------------------------------------------------------------------

def openssl_shakes_hands_under_either_name_and_is_answered():
    with served("--nvme=tcp:127.0.0.1:0", "--nvme-tls=allowed") as (_, port, key):
        for version in (0, 1):
            answer, said = s_client(port, *session_key(key, version))
            expect(len(answer) == 128 and answer[0] == ICRESP, f"version {version}: {answer!r}\n{said}")


def openssl_with_a_wrong_key_an_unknown_name_or_another_version_of_tls_is_refused():
    with served("--nvme=tcp:127.0.0.1:0", "--nvme-tls=allowed") as (daemon, port, key):
        identity, session = session_key(key, 0)
        answer, said = s_client(port, identity, bytes(32))
        expect(not answer and "alert" in said, said)
        logged(daemon, r'nvmf\.dropped: .*because="its key is another"')
        answer, said = s_client(port, identity.replace("R01", "R02"), session)
        expect(not answer and "unknown psk identity" in said, said)
        logged(daemon, r'nvmf\.dropped: .*because="it offered no key that is known here"')
        answer, said = s_client(port, identity, session, "-no_tls1_3", "-tls1_2")
        expect(not answer, f"{answer!r}")


def the_projects_own_host_verifies_its_load_through_tls_and_a_kill_is_a_pause():
    port = harness.free_port()
    with served(f"--nvme=tcp:127.0.0.1:{port}", "--nvme-tls=required") as (daemon, _, key):
        with bench_running(port, key, "--rw=mixed", "--verify", "--time=4", "--queues=2", "--seed=1") as load:
            for _ in range(2):
                time.sleep(1)  # the moment is the test
                daemon.kill()
                daemon.start()
            said = bench_end(load)
        expect("associations 3" in said and "errors 0" in said and " 0 wrong" in said, said)
        said = bench(port, None, "--time=1", "--connect=2", status=3)
        expect("invalid host" in said, said)
        oxbow(daemon, "volume", "allow", "disk", HOST, "--generate-tls-key")
        said = bench(port, key, "--time=1", "--connect=2", status=3)
        expect("no TLS" in said, said)


def what_is_in_the_clear_is_told_so_where_tls_is_required():
    with served("--nvme=tcp:0.0.0.0:0", "--nvme-tls=required") as (daemon, port, key):
        with socket.create_connection(("127.0.0.1", int(port))) as plain:
            plain.sendall(ICREQ)
            answer = plain.recv(4096)
        expect(answer[0] == TERM, f"{answer!r}")
        logged(daemon, r'nvmf\.dropped: .*because="it came in the clear, where TLS is required')
        bench(port, key, "--rw=randread", "--time=1")


def a_client_of_tls_is_named_in_the_log_where_tls_is_off():
    with served("--nvme=tcp:127.0.0.1:0") as (daemon, port, key):
        answer, _ = s_client(port, *session_key(key, 1))
        expect(not answer, f"{answer!r}")
        logged(daemon, r'nvmf\.dropped: .*because="it speaks TLS, which is off here')
        said = bench(port, None, "--time=1", "--connect=2", status=3)
        expect("invalid host" in said, said)
        logged(daemon, r'nvmf\.refused: .*because="it has to come through TLS, which is off here')


def half_a_handshake_and_noise_are_no_harm():
    with served("--nvme=tcp:127.0.0.1:0", "--nvme-tls=allowed") as (_, port, key):
        for data in (b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16" + bytes(5000), b"\x16\x03\x03\xff\xff" + os.urandom(70000)):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))) as rude:
                rude.sendall(data)
        bench(port, key, "--rw=randread", "--time=1")


TESTS = [
    openssl_shakes_hands_under_either_name_and_is_answered,
    openssl_with_a_wrong_key_an_unknown_name_or_another_version_of_tls_is_refused,
    the_projects_own_host_verifies_its_load_through_tls_and_a_kill_is_a_pause,
    what_is_in_the_clear_is_told_so_where_tls_is_required,
    a_client_of_tls_is_named_in_the_log_where_tls_is_off,
    half_a_handshake_and_noise_are_no_harm,
]


if __name__ == "__main__":
    if not shutil.which("openssl"):
        harness.skip("not installed: openssl")
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
