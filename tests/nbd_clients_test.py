#!/usr/bin/python3
"""Real clients against the real daemon: qemu-img, qemu-io, qemu-nbd, nbdinfo, nbdcopy, libnbd, fio; and over TLS.

    tests/nbd_clients_test.py [NAME ...]      only the tests whose names contain NAME
"""
import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, KIB, MIB, expect  # noqa: E402

try:
    import nbd
except ImportError:
    nbd = None

SIZE = 64 * MIB


def run(*command, limit_s=120, status=0, **more):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit_s, **more)
    expect(done.returncode == status, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def served(*arguments):
    """A daemon with an empty pool, in a directory of its own."""
    with harness.scratch_dir() as directory:
        always = (f"--init-pool={directory}/pool.img,{GIB}", f"--nbd=unix:{directory}/data/nbd.sock")
        with harness.running_daemon(directory, *always, *arguments) as daemon:
            yield daemon, directory


@contextlib.contextmanager
def served_volume(size_bytes=SIZE):
    with served() as (daemon, directory):
        daemon.api.volume_create("disk", size_bytes)
        yield daemon, directory


def image(directory, name="image.raw", size_bytes=SIZE):
    """Data, a hole, data that repeats, a hole to the end."""
    path = os.path.join(directory, name)
    with open(path, "wb") as f:
        f.write(os.urandom(5 * MIB))
        f.seek(16 * MIB)
        f.write(b"oxbow" * (MIB // 5))
        f.truncate(size_bytes)
    return path


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(f.read()).hexdigest()


def connect(daemon, export="disk", contexts=(), structured=True):
    """A libnbd handle."""
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    for context in contexts:
        h.add_meta_context(context)
    h.connect_uri(daemon.uri(export))
    return h


def refused(errno_name, call, *arguments):
    """The call fails at the server, with this errno."""
    try:
        call(*arguments)
    except nbd.Error as why:
        expect(why.errno == errno_name, f"refused with {why.errno}, not {errno_name}: {why}")
        return
    raise harness.Broken(f"{call.__name__}{arguments[1:]} was not refused")


# ---- what is told about an export ---------------------------------------------------------------------------------------

def nbdinfo_lists_every_volume_and_snapshot_with_its_contexts():
    with served_volume() as (daemon, _):
        daemon.api.volume_create("other", 8 * MIB)
        daemon.api.snapshot_create("disk", "mon")
        listed = json.loads(run("nbdinfo", "--list", "--json", daemon.uri("")))
        exports = {e["uri"].split("///")[1].split("?")[0]: e for e in listed["exports"]}
        expect(set(exports) == {"disk", "other", "disk@mon"}, f"listed: {sorted(exports)}")
        expect(exports["disk"]["export-size"] == SIZE, "the size is wrong")
        expect(exports["disk@mon"]["is_read_only"] and not exports["disk"]["is_read_only"], "read-only is wrong")
        expect("oxbow:changed-since:mon" in exports["disk"]["contexts"], "no context for the snapshot")
        expect(exports["disk"]["block_size_minimum"] == 512, "the block size is wrong")


def the_only_volume_is_the_default_export_and_with_two_there_is_none():
    with served_volume() as (daemon, _):
        expect(int(run("nbdinfo", "--size", daemon.uri(""))) == SIZE, "another volume")
        daemon.api.volume_create("other", 8 * MIB)
        run("nbdinfo", "--size", daemon.uri(""), status=1)


def every_ability_is_announced_and_a_snapshot_announces_no_writing():
    able = ("connect", "read", "flush", "fua", "df", "cache", "multi-conn", "structured-reply")
    writing = ("write", "trim", "zero", "fast-zero")
    with served_volume() as (daemon, _):
        daemon.api.snapshot_create("disk", "mon")
        for what in able + writing:
            run("nbdinfo", "--can", what, daemon.uri("disk"))
        for what in able:
            run("nbdinfo", "--can", what, daemon.uri("disk@mon"))
        for what in writing:
            run("nbdinfo", "--can", what, daemon.uri("disk@mon"), status=2)
        run("nbdinfo", "--is", "read-only", daemon.uri("disk@mon"))


def qemu_nbd_lists_the_exports():
    with served_volume() as (daemon, _):
        text = run("qemu-nbd", "--list", "-k", daemon.nbd)
        expect("exports available: 1" in text and "disk" in text and "base:allocation" in text, text)


# ---- images in and out --------------------------------------------------------------------------------------------------

def nbdcopy_brings_an_image_in_and_out_unchanged():
    with served_volume() as (daemon, directory):
        source, back = image(directory), os.path.join(directory, "back.raw")
        for options in ((), ("--connections=4", "--requests=64"), ("--synchronous",), ("--allocated",)):
            run("nbdcopy", *options, source, daemon.uri("disk"))
            run("nbdcopy", *options, daemon.uri("disk"), back)
            expect(digest(back) == digest(source), f"nbdcopy {options}: the image changed on its way")


def qemu_img_converts_both_ways_and_compares_equal():
    with served_volume() as (daemon, directory):
        source = image(directory)
        uri = daemon.uri("disk")
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri)
        expect("identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri), "not identical")
        qcow2 = os.path.join(directory, "back.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, qcow2)
        expect("identical" in run("qemu-img", "compare", source, qcow2), "not identical on the way back")


def a_copy_within_the_server_by_qemu_img_keeps_everything():
    with served_volume() as (daemon, directory):
        daemon.api.volume_create("copy", SIZE)
        run("nbdcopy", image(directory), daemon.uri("disk"))
        run("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", daemon.uri("disk"), daemon.uri("copy"))
        expect("identical" in run("qemu-img", "compare", daemon.uri("disk"), daemon.uri("copy")), "not identical")


def clients_see_holes_where_nothing_was_written():
    with served_volume() as (daemon, directory):
        run("nbdcopy", image(directory), daemon.uri("disk"))
        extents = json.loads(run("nbdinfo", "--map", "--json", daemon.uri("disk")))
        data = sum(e["length"] for e in extents if e["type"] == 0)
        expect(6 * MIB <= data <= 6 * MIB + 128 * KIB, f"{data} bytes are told to be data")
        expect(sum(e["length"] for e in extents) == SIZE, "the map has another size than the volume")
        by_qemu = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", daemon.uri("disk")))
        expect(sum(e["length"] for e in by_qemu if e["data"]) == data, "qemu-img sees another map")


def changed_since_a_snapshot_names_what_was_written_trimmed_and_zeroed_after_it():
    with served_volume() as (daemon, directory):
        run("nbdcopy", image(directory), daemon.uri("disk"))
        daemon.api.snapshot_create("disk", "mon")
        h = connect(daemon)
        h.pwrite(b"x" * 8 * KIB, 1 * MIB)
        h.trim(64 * KIB, 2 * MIB)
        h.zero(64 * KIB, 3 * MIB)
        daemon.api.snapshot_create("disk", "tue")
        h.pwrite(b"y" * 4096, 30 * MIB)
        h.shutdown()
        mon, tue, at_tue = (changed(daemon, *what) for what in (("disk", "mon"), ("disk", "tue"), ("disk@tue", "mon")))
        expect(tue == [(30 * MIB, 4096)], f"since tue: {tue}")
        expect(at_tue == [(1 * MIB, 8 * KIB), (2 * MIB, 64 * KIB), (3 * MIB, 64 * KIB)], f"mon to tue: {at_tue}")
        expect(mon == at_tue + tue, f"since mon: {mon}")


def what_is_trimmed_or_deleted_goes_back_to_the_file_system_under_a_sparse_pool():
    with served_volume() as (daemon, directory):
        def held():
            return os.stat(f"{directory}/pool.img").st_blocks * 512

        h = connect(daemon)
        for at in range(0, SIZE, 8 * MIB):
            h.pwrite(os.urandom(8 * MIB), at)
        h.flush()
        full = held()
        expect(full >= SIZE, f"{full} bytes under {SIZE} of data")
        kept = h.pread(4 * MIB, 60 * MIB)
        h.trim(48 * MIB, 0)
        harness.wait_until(lambda: held() <= full - 40 * MIB, "a smaller file after a trim", limit_s=60, every_s=0.1)
        expect(h.pread(4 * MIB, 60 * MIB) == kept and h.pread(MIB, 0) == bytes(MIB), "other bytes after the trim")
        h.shutdown()
        daemon.api.close_wait("volume", "disk")
        daemon.api.call("DELETE", "/v1/volumes/disk")
        harness.wait_until(lambda: held() <= full - 60 * MIB, "a smaller file after a delete", limit_s=60, every_s=0.1)
        daemon.pool_check()


def changed(daemon, export, snapshot):
    """[(offset, length)] of what changed."""
    context = f"oxbow:changed-since:{snapshot}"
    extents = json.loads(run("nbdinfo", f"--map={context}", "--json", daemon.uri(export)))
    return [(e["offset"], e["length"]) for e in extents if e["type"] == 1]


# ---- requests -----------------------------------------------------------------------------------------------------------

def qemu_io_finds_the_patterns_it_wrote():
    with served_volume() as (daemon, _):
        script = ("write -P 7 1M 64k", "read -P 7 1M 64k", "write -z 1M 32k", "read -P 0 1M 32k", "read -P 7 1081344 32k",
                  "discard 1M 64k", "read -P 0 1M 64k", "write -P 1 512 512", "read -P 0 0 512", "read -P 1 512 512",
                  "write -f -P 9 5M 3M", "aio_write -P 3 10M 1M", "aio_write -P 4 11M 1M", "aio_flush",
                  "read -P 3 10M 1M", "read -P 4 11M 1M", "read -P 9 5M 3M", "flush")
        text = run("qemu-io", "-f", "raw", *(part for line in script for part in ("-c", line)), daemon.uri("disk"))
        expect("verification failed" not in text and "error" not in text, text)


def fio_verifies_random_writes_of_all_sizes_from_several_connections():
    with served_volume(256 * MIB) as (daemon, directory):
        for number, extra in enumerate((["--numjobs=1", "--iodepth=64"], ["--numjobs=4", "--iodepth=8", "--offset_increment=64m",
                                                                          "--size=64m"])):
            run("fio", "--name=verify", "--ioengine=nbd", f"--uri={daemon.uri('disk')}", "--rw=randwrite",
                "--bsrange=512-256k", "--bs_unaligned=0", "--blockalign=512", "--size=64m", "--verify=crc32c",
                "--verify_fatal=1", "--do_verify=1", "--group_reporting", f"--output={directory}/fio.{number}", *extra,
                cwd=directory)


def a_flush_on_one_connection_covers_writes_on_another():
    with served_volume() as (daemon, directory):
        a, b = connect(daemon), connect(daemon)
        data = os.urandom(256 * KIB)
        a.pwrite(data, 4 * MIB)
        b.flush()
        expect(b.pread(len(data), 4 * MIB) == data, "the other connection reads something else")
        daemon.kill()
        daemon.start()
        expect(connect(daemon).pread(len(data), 4 * MIB) == data, "lost by kill -9")


def one_connection_keeps_many_requests_going_and_gets_every_answer():
    with served_volume() as (daemon, _):
        h = connect(daemon)
        wanted = [os.urandom(64 * KIB) for _ in range(200)]
        answers = [nbd.Buffer(64 * KIB) for _ in wanted]
        finish(h, [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), i * 64 * KIB) for i, data in enumerate(wanted)])
        finish(h, [h.aio_pread(buffer, i * 64 * KIB) for i, buffer in enumerate(answers)])
        for data, buffer in zip(wanted, answers):
            expect(bytes(buffer.to_bytearray()) == data, "an answer went to the wrong request")


def finish(h, cookies):
    while h.aio_in_flight():
        h.poll(-1)
    for cookie in cookies:
        expect(h.aio_command_completed(cookie), "a request has no answer")


def reads_are_the_same_in_one_piece_in_several_and_without_structure():
    with served_volume() as (daemon, directory):
        source = image(directory)
        run("nbdcopy", source, daemon.uri("disk"))
        structured, simple = connect(daemon), connect(daemon, structured=False)
        expect(not simple.get_structured_replies_negotiated(), "structured replies nobody asked for")
        with open(source, "rb") as f:
            for offset, length in ((4 * MIB, 16 * MIB), (0, 32 * MIB), (5 * MIB - 512, 1024), (20 * MIB, 64 * KIB)):
                f.seek(offset)
                wanted, pieces = f.read(length), bytearray(length)
                expect(structured.pread(length, offset) == wanted, "structured")
                expect(simple.pread(length, offset) == wanted, "simple")

                def chunk(data, at, _status, _error, pieces=pieces, offset=offset):
                    pieces[at - offset:at - offset + len(data)] = data

                structured.pread_structured(length, offset, chunk, nbd.CMD_FLAG_DF)
                expect(bytes(pieces) == wanted, "in one piece")


def a_snapshot_reads_as_it_was_and_refuses_every_way_of_writing():
    with served_volume() as (daemon, _):
        h = connect(daemon)
        h.pwrite(b"before" + bytes(506), 0)
        daemon.api.snapshot_create("disk", "mon")
        h.pwrite(b"after!" + bytes(506), 0)
        s = connect(daemon, "disk@mon")
        s.set_strict_mode(0)  # the client would not even ask
        expect(s.pread(512, 0)[:6] == b"before", "the snapshot changed")
        refused("EPERM", s.pwrite, bytes(512), 0)
        refused("EPERM", s.trim, 4096, 0)
        refused("EPERM", s.zero, 4096, 0)
        s.cache(4096, 0)
        s.flush()


def what_a_client_must_not_ask_is_refused_by_number_and_it_may_go_on():
    with served_volume() as (daemon, _):
        h = connect(daemon)
        h.set_strict_mode(0)
        refused("EINVAL", h.pread, 512, SIZE)
        refused("ENOSPC", h.pwrite, bytes(512), SIZE)
        refused("ENOSPC", h.zero, 8192, SIZE - 4096)
        refused("EINVAL", h.trim, 8192, SIZE - 4096)
        refused("EINVAL", h.pread, 100, 0)
        refused("EINVAL", h.pwrite, bytes(512), 7)
        refused("EINVAL", h.block_status, 4096, 0, lambda *_: 0)  # no context was chosen
        refused("ENOTSUP", h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
        h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
        h.pwrite(bytes(512), 0, nbd.CMD_FLAG_FUA)
        expect(h.pread(512, 0) == bytes(512), "it does not go on")


def a_client_killed_in_the_middle_costs_nobody_else_anything():
    with served_volume(256 * MIB) as (daemon, directory):
        h = connect(daemon)
        for _ in range(3):
            victim = subprocess.Popen(["fio", "--name=victim", "--ioengine=nbd", f"--uri={daemon.uri('disk')}",
                                       "--rw=randwrite", "--bs=1M", "--iodepth=32", "--thread", "--time_based", "--runtime=60",
                                       f"--output={directory}/victim"], stdin=subprocess.DEVNULL, cwd=directory)
            harness.wait_until(lambda: any(h.pread(4096, 0)) or any(h.pread(MIB, 16 * MIB)), "load")
            victim.kill()
            victim.wait()
            h.pwrite(bytes(4096), 0)
            h.zero(17 * MIB, 0)
        h.shutdown()
        daemon.api.close_wait("volume", "disk")


# ---- extended headers: no client of Debian 12 speaks them, so one of a few lines does ------------------------------------

class Extended:
    """One connection with extended headers and the context base:allocation."""

    def __init__(self, path, export):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.settimeout(30)
        self.s.connect(path)
        self.take(18)
        self.s.sendall(struct.pack(">I", 3))
        name = export.encode()
        query = b"base:allocation"
        self.option(11, b"")
        self.option(10, struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(query)) + query)
        infos = self.option(7, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
        self.flags = next(struct.unpack(">HQH", data)[2] for kind, data in infos if data[:2] == b"\0\0" and len(data) == 12)

    def take(self, n):
        data = b""
        while len(data) < n:
            piece = self.s.recv(n - len(data))
            expect(piece, "the server hung up")
            data += piece
        return data

    def option(self, option, data):
        self.s.sendall(struct.pack(">QII", 0x49484156454F5054, option, len(data)) + data)
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            expect(magic == 0x3e889045565a9 and echoed == option, "not a reply to the option")
            replies.append((kind, self.take(length)))
            expect(kind < 1 << 31, f"option {option} was refused: {replies[-1]}")
            if kind == 1:
                return replies

    def request(self, kind, offset, length, flags=0, payload=b""):
        self.s.sendall(struct.pack(">IHHQQQ", 0x21e41c71, flags, kind, 77, offset, length) + payload)
        magic, _, reply, cookie, echoed, size = struct.unpack(">IHHQQQ", self.take(32))
        expect((magic, cookie, echoed) == (0x6e8a278c, 77, offset), "not the reply to the request")
        return reply, self.take(size)


def extended_headers_carry_lengths_beyond_four_gib():
    with served() as (daemon, _):
        daemon.api.volume_create("big", 64 * GIB)
        x = Extended(daemon.nbd, "big")
        expect(x.flags & 1 << 12, "a payload with BLOCK_STATUS is not announced")
        data = os.urandom(4096)
        expect(x.request(1, 20 * GIB, 4096, 1 << 5, data)[0] == 0, "write")
        reply, body = x.request(7, 0, 64 * GIB)
        extents = [struct.unpack_from(">QQ", body, at) for at in range(8, len(body), 16)]
        expect(reply == 6 and extents == [(20 * GIB, 3), (4096, 0), (44 * GIB - 4096, 3)], f"extents: {extents}")
        expect(x.request(0, 20 * GIB, 4096) == (1, struct.pack(">Q", 20 * GIB) + data), "read")
        expect(x.request(6, 4 * GIB, 40 * GIB)[0] == 0, "write zeroes over 40 GiB")
        expect(x.request(4, 0, 64 * GIB)[0] == 0, "trim of 64 GiB")
        reply, body = x.request(7, 0, 12, 1 << 5, struct.pack(">QI", 64 * GIB, 1))
        expect(reply == 6 and struct.unpack_from(">QQ", body, 8) == (64 * GIB, 3), "status limited by its payload")


# ---- TLS ------------------------------------------------------------------------------------------------------------------

def openssl(directory, *arguments):
    run("openssl", *arguments, cwd=directory)


def make_authority(directory, name):
    openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")


def make_certificate(directory, authority, name):
    extensions = os.path.join(directory, "extensions")
    with open(extensions, "w", encoding="ascii") as f:
        f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(directory, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
            "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", f"{name}.pem")


def client_directory(directory, name, authority, certificate=None):
    """As libnbd and QEMU look for them."""
    path = os.path.join(directory, name)
    os.makedirs(path)
    shutil.copy(os.path.join(directory, f"{authority}.pem"), os.path.join(path, "ca-cert.pem"))
    if certificate:
        for suffix, wanted in ((".pem", "client-cert.pem"), ("-key.pem", "client-key.pem")):
            shutil.copy(os.path.join(directory, certificate + suffix), os.path.join(path, wanted))
    return path


@contextlib.contextmanager
def served_over_tls(mode, client_ca=True):
    with harness.scratch_dir() as pki:
        for authority in ("ca", "stranger"):
            make_authority(pki, authority)
        make_certificate(pki, "ca", "server")
        make_certificate(pki, "ca", "friend")
        make_certificate(pki, "stranger", "enemy")
        ca = (f"--tls-ca={pki}/ca.pem",) if client_ca else ()
        with served("--nbd=tcp:127.0.0.1:0", f"--tls={mode}", f"--tls-cert={pki}/server.pem",
                    f"--tls-key={pki}/server-key.pem", *ca) as (daemon, directory):
            daemon.api.volume_create("disk", SIZE)
            yield daemon, directory, pki, tcp_port(daemon)


def tcp_port(daemon):
    with open(daemon.log, encoding="utf-8") as log:
        return int(re.search(r"tcp:127\.0\.0\.1:(\d+)", log.read()).group(1))


def tls_uri(port, certificates):
    return f"nbds://localhost:{port}/disk?tls-certificates={certificates}"


def tls_required_lets_in_only_clients_with_a_certificate_of_ours():
    with served_over_tls("required") as (_, directory, pki, port):
        friend = client_directory(pki, "f", "ca", "friend")
        source, back = image(directory), os.path.join(directory, "back.raw")
        run("nbdcopy", source, tls_uri(port, friend))
        run("nbdcopy", tls_uri(port, friend), back)
        expect(digest(back) == digest(source), "the image changed on its way through TLS")
        run("qemu-img", "compare", "--object", f"tls-creds-x509,id=t,dir={friend},endpoint=client", "--image-opts",
            f"driver=nbd,host=localhost,port={port},export=disk,tls-creds=t", f"driver=file,filename={source}")
        for name, certificate in (("n", None), ("e", "enemy")):
            directory = client_directory(pki, name, "ca", certificate)
            run("nbdinfo", "--size", tls_uri(port, directory), status=1)
        run("nbdinfo", "--size", f"nbd://localhost:{port}/disk", status=1)
        run("nbdinfo", "--list", f"nbd://localhost:{port}/", status=1)


def tls_optional_serves_both_and_asks_for_no_certificate_without_a_ca():
    with served_over_tls("optional", client_ca=False) as (daemon, _, pki, port):
        anybody = client_directory(pki, "a", "ca")
        expect(int(run("nbdinfo", "--size", tls_uri(port, anybody))) == SIZE, "size over TLS")
        expect(int(run("nbdinfo", "--size", f"nbd://localhost:{port}/disk")) == SIZE, "size in the clear")
        expect(int(run("nbdinfo", "--size", daemon.uri("disk"))) == SIZE, "size on the unix socket")
        wrong = client_directory(pki, "w", "stranger")
        run("nbdinfo", "--size", tls_uri(port, wrong), status=1)  # the client does not trust the server


def tls_carries_many_requests_both_ways_at_once():
    with served_over_tls("required") as (_, _, pki, port):
        h = nbd.NBD()
        h.set_uri_allow_local_file(True)
        h.connect_uri(tls_uri(port, client_directory(pki, "f", "ca", "friend")))
        sizes = [512 << i % 10 for i in range(120)]  # up to 256 KiB
        wanted = [os.urandom(size) for size in sizes]
        finish(h, [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), i * 256 * KIB) for i, data in enumerate(wanted)])
        answers = [nbd.Buffer(size) for size in sizes]
        cookies = []
        for i, buffer in enumerate(answers):  # reads going out between writes coming in
            cookies.append(h.aio_pread(buffer, i * 256 * KIB))
            cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(256 * KIB)), 32 * MIB + i % 100 * 256 * KIB))
        finish(h, cookies)
        for data, buffer in zip(wanted, answers):
            expect(bytes(buffer.to_bytearray()) == data, "an answer went to the wrong request")


STARTTLS = struct.pack(">QII", 0x49484156454F5054, 5, 0)


def at_starttls(port, then):
    """Everything the server says to a client that sends STARTTLS and `then`, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall(struct.pack(">I", 3) + STARTTLS + then)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := s.recv(65536):
                said += piece
        return said


def what_is_sent_in_the_clear_after_starttls_is_never_obeyed():
    greeting, acknowledged = 18, 20
    list_option = struct.pack(">QII", 0x49484156454F5054, 3, 0)
    with served_over_tls("required") as (daemon, _, pki, port):
        expect(len(at_starttls(port, list_option)) <= greeting + acknowledged, "an injected option was answered")
        for garbage in (b"\0" * 1000, b"\x16\x03\x01\xff\xff" + bytes(70000), b"\x16\x03\x01\0\0" * 5000, os.urandom(4096)):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
                s.sendall(struct.pack(">I", 3) + STARTTLS)
                while len(s.recv(100, socket.MSG_PEEK)) < greeting + acknowledged:
                    pass
                with contextlib.suppress(OSError):  # it hangs up when it likes
                    s.sendall(garbage)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
        friend = client_directory(pki, "f", "ca", "friend")
        expect(int(run("nbdinfo", "--size", tls_uri(port, friend))) == SIZE, "it does not serve any more")
        expect(daemon.process.poll() is None, "it died of it")


TESTS = [
    nbdinfo_lists_every_volume_and_snapshot_with_its_contexts,
    the_only_volume_is_the_default_export_and_with_two_there_is_none,
    every_ability_is_announced_and_a_snapshot_announces_no_writing,
    qemu_nbd_lists_the_exports,
    nbdcopy_brings_an_image_in_and_out_unchanged,
    qemu_img_converts_both_ways_and_compares_equal,
    a_copy_within_the_server_by_qemu_img_keeps_everything,
    clients_see_holes_where_nothing_was_written,
    changed_since_a_snapshot_names_what_was_written_trimmed_and_zeroed_after_it,
    what_is_trimmed_or_deleted_goes_back_to_the_file_system_under_a_sparse_pool,
    qemu_io_finds_the_patterns_it_wrote,
    fio_verifies_random_writes_of_all_sizes_from_several_connections,
    a_flush_on_one_connection_covers_writes_on_another,
    one_connection_keeps_many_requests_going_and_gets_every_answer,
    reads_are_the_same_in_one_piece_in_several_and_without_structure,
    a_snapshot_reads_as_it_was_and_refuses_every_way_of_writing,
    what_a_client_must_not_ask_is_refused_by_number_and_it_may_go_on,
    a_client_killed_in_the_middle_costs_nobody_else_anything,
    extended_headers_carry_lengths_beyond_four_gib,
    tls_required_lets_in_only_clients_with_a_certificate_of_ours,
    tls_optional_serves_both_and_asks_for_no_certificate_without_a_ca,
    tls_carries_many_requests_both_ways_at_once,
    what_is_sent_in_the_clear_after_starttls_is_never_obeyed,
]


if __name__ == "__main__":
    missing = [tool for tool in ("qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy", "fio", "openssl")
               if not shutil.which(tool)]
    if missing or not nbd:
        harness.skip(f"not installed: {', '.join(missing) or 'python3-libnbd'} (make deps)")
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
