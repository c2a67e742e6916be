#!/usr/bin/python3
"""What we say on the wire, read by somebody else: tshark's NVMe/TCP dissector over captures of real hosts and our target.

    tests/nvmf_tshark_test.py [NAME ...]       only the tests whose names contain NAME

Needs tshark, and dumpcap with the right to capture (root). A capture counts when nothing of it was dropped, no packet is malformed,
every byte of it belongs to a PDU, and the dissector saw what the test had said.
"""
import collections
import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
import guest  # noqa: E402
import harness  # noqa: E402
import nvme_load_test as load  # noqa: E402
import nvme_wire as wire  # noqa: E402
import nvmf_kernel_test as kernel  # noqa: E402
from harness import GIB, MIB, expect, wait_until  # noqa: E402

NETNS = guest.netns("oxshark")
PDUS = {wire.ICREQ: "ICReq", wire.ICRESP: "ICResp", wire.H2C_TERM: "H2CTermReq", wire.C2H_TERM: "C2HTermReq",
        wire.COMMAND: "CapsuleCmd", wire.RESPONSE: "CapsuleResp", wire.H2C_DATA: "H2CData", wire.C2H_DATA: "C2HData",
        wire.R2T: "R2T"}
BOTH_WAYS = {"ICReq", "ICResp", "CapsuleCmd", "CapsuleResp"}
IDENTIFY, GET_LOG, SET_FEATURES, GET_FEATURES, ABORT, ASYNC_EVENT, KEEP_ALIVE = 0x06, 0x02, 0x09, 0x0A, 0x08, 0x0C, 0x18
FLUSH, WRITE, READ, COMPARE, WRITE_ZEROES, TRIM, VERIFY = 0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0C
REGISTER, REPORT, ACQUIRE, RELEASE = 0x0D, 0x0E, 0x11, 0x15
PROPERTY_SET, CONNECT, PROPERTY_GET, AUTH_SEND, AUTH_RECEIVE, DISCONNECT = 0x00, 0x01, 0x04, 0x05, 0x06, 0x08
LOG_PAGES = (0x01, 0x02, 0x03, 0x04, 0x05, 0x0C, 0x80)
MARK = b"the end of this capture"


# ---- capturing ------------------------------------------------------------------------------------------------------------

class Capture:
    """dumpcap on one interface, for one port."""

    def __init__(self, directory, port, interface="lo", inside=()):
        self.path, self.log, self.port = os.path.join(directory, "capture"), os.path.join(directory, "dumpcap.log"), port
        command = [*inside, "dumpcap", "-q", "-i", interface, "-f", f"tcp port {port}", "-B", "64", "-w", self.path]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.has_begun, f"capture on {interface}: {self.said()}")

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def has_begun(self):
        expect(self.process.poll() is None, f"dumpcap ended: {self.said()}")
        return "File:" in self.said()

    def has_mark(self):
        with open(self.path, "rb") as file:
            return MARK in file.read()

    def end(self, where):
        """A last host says something that is then looked for: what was captured before it is in the file, too."""
        if where:
            with wire.Queue(where) as last:
                last.send(wire.H2C_TERM, struct.pack("<HI10x", 1, 0), MARK)
            wait_until(self.has_mark, "end of the capture in its file")
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        expect(re.search(r"received/dropped on interface .*: [1-9]\d*/0 ", self.said()), f"packets were lost: {self.said()}")

    def tshark(self, *arguments):
        command = ["tshark", "-n", "-2", "-r", self.path, "-d", f"tcp.port=={self.port},nvme-tcp", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200)
        expect(done.returncode == 0, f"{command}: {done.stderr}")
        return done.stdout.splitlines()

    def numbers(self, *fields):
        """How often each field had each value, in every PDU of every frame."""
        lines = self.tshark("-Y", "nvme-tcp", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,",
                            *(word for field in fields for word in ("-e", field)))
        counts = [collections.Counter() for _ in fields]
        for line in lines:
            for count, column in zip(counts, line.split("\t")):
                count.update(int(text, 0) for text in column.split(",") if text)
        return counts


class Seen:
    """What the dissector saw in a capture in which nothing was wrong."""

    def __init__(self, capture):
        for what, rule in (("malformed", '_ws.malformed || _ws.expert.message contains "alformed"'),
                           ("beside any PDU", "tcp.len > 0 && !nvme-tcp && !tcp.reassembled_in && !tcp.analysis.retransmission")):
            lines = capture.tshark("-Y", rule)
            expect(not lines, f"{len(lines)} packets are {what}, the first: {lines[:3]}")
        types, opcodes, fabrics, self.statuses = capture.numbers("nvme-tcp.type", "nvme.cmd.opc", "nvme.fabrics.cmd.fctype",
                                                                 "nvme.cqe.status.sc")
        self.pdus = {PDUS[kind]: count for kind, count in types.items()}
        self.opcodes, self.fabrics = opcodes, fabrics

    def expect(self, pdus=(), opcodes=(), fabrics=()):
        for name, wanted, seen in (("PDUs", BOTH_WAYS | set(pdus), self.pdus), ("commands", set(opcodes), self.opcodes),
                                   ("Fabrics commands", set(fabrics), self.fabrics)):
            expect(wanted <= set(seen), f"{name}: wanted {wanted}, seen {dict(seen)}")
        print(f"  {sum(self.pdus.values())} PDUs: {self.pdus}")


@contextlib.contextmanager
def served(*options):
    with harness.scratch_dir() as directory:
        port = harness.free_port()
        daemon = harness.Daemon(directory, "--init-pool", f"{directory}/pool,1G", "--nvme", f"tcp:127.0.0.1:{port}", *options)
        with harness.running(daemon):
            daemon.api.volume_create("one", 64 * MIB)
            daemon.where = ("127.0.0.1", port)
            yield daemon


def captured(daemon, work):
    capture = Capture(daemon.directory, daemon.where[1])
    work(daemon)
    capture.end(daemon.where)
    return Seen(capture)


# ---- what is said ------------------------------------------------------------------------------------------------------------

def bench_with(*arguments):
    return lambda daemon: load.fine(load.bench(daemon, "--volume", "one", "--verify", "--size", "8M", "--rw", "mixed", "--time",
                                               "0.3", "--depth", "4", *arguments))


def data_in_capsules_is_read_by_tshark():
    with served() as daemon:
        captured(daemon, bench_with("--block", "4k")).expect(("C2HData",), (IDENTIFY, READ, WRITE), (CONNECT, PROPERTY_GET))


def data_that_was_asked_for_is_read_by_tshark():
    with served() as daemon:
        captured(daemon, bench_with("--block", "64k")).expect(("C2HData", "H2CData", "R2T"), (READ, WRITE))
        captured(daemon, bench_with("--no-in-capsule", "--queues", "3")).expect(("H2CData", "R2T"), (READ, WRITE), (CONNECT,))


def digests_are_read_by_tshark():
    with served() as daemon:
        captured(daemon, bench_with("--digests", "--block", "4k")).expect(("C2HData",), (READ, WRITE))
        captured(daemon, bench_with("--digests", "--block", "256k")).expect(("C2HData", "H2CData", "R2T"), (READ, WRITE))


def answered(answer, *statuses):
    expect(answer.status & ~wire.DNR in (statuses or (0,)), f"{answer} is none of {statuses}")
    return answer


def discovery(daemon):
    with wire.Queue(daemon.where) as queue:
        answered(queue.connect(wire.DISCOVERY))
        answered(queue.property_get(wire.CAP, wide=True))
        answered(queue.property_get(wire.VS))
        answered(queue.enable())
        answered(queue.property_get(wire.CSTS))
        answered(queue.command(IDENTIFY, cdw=(1,), read=4096))
        answered(queue.command(SET_FEATURES, cdw=(0x0B, 1 << 31)))
        log = answered(queue.command(GET_LOG, cdw=(0x70 | 511 << 16,), read=2048)).data
        expect(struct.unpack_from("<Q", log, 8)[0] == 1, "one volume is listed")
        answered(queue.command(IDENTIFY, cdw=(0xEE,), read=4096), 0x02)
        answered(queue.command(KEEP_ALIVE))
    with wire.Queue(daemon.where) as queue:
        answered(queue.connect("nqn.2026-11.dev.oxbow:volume:" + harness.new_id()), 0x182)


def discovery_and_its_refusals_are_read_by_tshark():
    with served() as daemon:
        captured(daemon, discovery).expect(("C2HData",), (IDENTIFY, SET_FEATURES, GET_LOG, KEEP_ALIVE),
                                           (CONNECT, PROPERTY_GET, PROPERTY_SET))


def admin_commands(queue):
    for cns in (0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13):
        nsid = 0 if cns in (1, 2, 6, 7, 0x10, 0x13) else 1
        answered(queue.command(IDENTIFY, nsid=nsid, cdw=(cns,), read=4096))
    for page in LOG_PAGES:
        answered(queue.command(GET_LOG, nsid=0xFFFFFFFF, cdw=(page | 127 << 16,), read=512))
    # Not Arbitration (01h): tshark 4.0 trips over itself at any answer to it ("Unregistered hf!").
    for feature in (0x02, 0x04, 0x05, 0x06, 0x07, 0x0A, 0x0B, 0x0F):
        answered(queue.command(GET_FEATURES, cdw=(feature,)))
    answered(queue.command(GET_FEATURES, cdw=(0x81, 1), read=16))
    answered(queue.command(SET_FEATURES, cdw=(0x07, 0x00010001)))
    event = queue.start(ASYNC_EVENT)
    answered(queue.command(ABORT, cdw=(event << 16,)), 0, 0x07)  # the event's own end, as "aborted", comes first and is passed by
    answered(queue.command(0xEE), 0x01)
    answered(queue.command(GET_LOG, cdw=(0xEE | 127 << 16,), read=512), 0x109)


def io_commands(queue):
    page = b"oxbow..." * 512
    key = struct.pack("<QQ", 0, 0xA1)
    answered(queue.command(WRITE, nsid=1, cdw=(8, 0, 7), write=page))
    answered(queue.command(WRITE, nsid=1, cdw=(8, 0, 7 | 1 << 30), write=page, in_capsule=False))
    expect(answered(queue.command(READ, nsid=1, cdw=(8, 0, 7), read=4096)).data == page, "what was written is read")
    answered(queue.command(COMPARE, nsid=1, cdw=(8, 0, 7), write=page))
    answered(queue.command(COMPARE, nsid=1, cdw=(16, 0, 7), write=page), 0x285)
    answered(queue.command(VERIFY, nsid=1, cdw=(8, 0, 7)))
    answered(queue.command(WRITE_ZEROES, nsid=1, cdw=(8, 0, 7)))
    answered(queue.command(TRIM, nsid=1, cdw=(0, 4), write=struct.pack("<IIQ", 0, 8, 8)))
    answered(queue.command(FLUSH, nsid=1))
    answered(queue.command(REGISTER, nsid=1, cdw=(0,), write=key))
    answered(queue.command(ACQUIRE, nsid=1, cdw=(1 << 8,), write=struct.pack("<QQ", 0xA1, 0)))
    answered(queue.command(REPORT, nsid=1, cdw=(31, 1), read=128))
    answered(queue.command(RELEASE, nsid=1, cdw=(1 << 8,), write=key[8:]))
    answered(queue.command(REGISTER, nsid=1, cdw=(1,), write=key[8:] + key[:8]))
    answered(queue.command(READ, nsid=1, cdw=(1 << 30, 0, 7), read=4096), 0x80)
    answered(queue.command(READ, nsid=7, cdw=(0, 0, 7), read=4096), 0x0B)
    answered(queue.command(0x19, nsid=1), 0x01)


def every_command(daemon):
    nqn = daemon.api.volume("one")["nqn"]
    with wire.Queue(daemon.where) as admin, wire.Queue(daemon.where) as queue:
        cntlid = answered(admin.connect(nqn)).result & 0xFFFF
        answered(admin.enable())
        admin_commands(admin)
        answered(queue.connect(nqn, qid=1, cntlid=cntlid))
        io_commands(queue)
        answered(queue.disconnect())
        answered(admin.property_set(wire.CC, wire.ENABLE | 1 << 14))


def every_command_and_its_errors_are_read_by_tshark():
    with served() as daemon:
        captured(daemon, every_command).expect(
            ("C2HData", "H2CData", "R2T"),
            (IDENTIFY, GET_LOG, SET_FEATURES, GET_FEATURES, ABORT, ASYNC_EVENT, FLUSH, WRITE, READ, COMPARE, WRITE_ZEROES, TRIM, VERIFY,
             REGISTER, REPORT, ACQUIRE, RELEASE), (CONNECT, PROPERTY_SET, DISCONNECT))


def ends_with_a_term(queue, fes):
    try:
        queue.receive()
    except wire.Terminated as why:
        expect(why.fes == fes, f"{why}, not status {fes}")
        return
    raise harness.Broken("no TermReq")


def broken_pdus(daemon):
    """All of it is what the dissector can read; only the target cannot have it."""
    nqn = daemon.api.volume("one")["nqn"]
    with wire.Queue(daemon.where) as queue:  # a second ICReq
        queue.socket.sendall(wire.icreq())
        ends_with_a_term(queue, 2)
    with wire.Queue(daemon.where) as queue:  # data nobody asked for
        answered(queue.connect(nqn))
        queue.send(wire.H2C_DATA, struct.pack("<HHII4x", 1, 77, 0, 512), b"\0" * 512, wire.LAST)
        ends_with_a_term(queue, 1)
    with wire.Queue(daemon.where) as queue:  # more in a capsule than fits
        answered(queue.connect(nqn))
        queue.start(WRITE, nsid=1, cdw=(0, 0, 31), write=b"\0" * 16384, in_capsule=True)
        ends_with_a_term(queue, 1)


def terms_of_both_sides_are_read_by_tshark():
    with served() as daemon:
        captured(daemon, broken_pdus).expect(("C2HTermReq", "H2CTermReq"))


def is_noticed(junk):
    """A host that says this after its greeting is seen to have said something wrong."""
    def say(daemon):
        with wire.Queue(daemon.where) as queue:
            queue.socket.sendall(junk)
            with contextlib.suppress(wire.Terminated, wire.Closed, OSError):
                queue.receive()
    with served() as daemon:
        try:
            captured(daemon, say)
        except harness.Broken as why:
            return str(why)
    raise harness.Broken(f"{junk} passed")


def what_is_no_pdu_and_what_is_malformed_is_noticed():
    expect("beside any PDU" in is_noticed(b"\x55" * 16 + b"\0" * 48), "no PDU at all")
    short = wire.pdu(wire.COMMAND, b"\x7f" + b"\0" * 15)
    expect("malformed" in is_noticed(short), "a command that ends in the middle of its entry")


def authentications(daemon):
    """Both ways, in the smallest group and in the largest; and one that is refused."""
    secret = daemon.oxbow("volume", "allow", "one", load.HOST, "--generate-secret")["secret"]
    file = load.secret_file(daemon.directory, "secret", secret)
    daemon.api.call("PUT", f"/v1/volumes/one/hosts/{load.HOST}", {"secret": secret, "controller_secret": secret})
    who = ("--volume", "one", "--host-nqn", load.HOST, "--time", "0.1", "--connect", "1", "--depth", "1")
    for group in ("ffdhe2048", "ffdhe8192"):
        load.fine(load.bench(daemon, *who, "--secret-file", file, "--controller-secret-file", file, "--dh-group", group))
    other = daemon.oxbow("volume", "allow", "one", "nqn.2026-11.test:other", "--generate-secret")["secret"]
    expect(load.bench(daemon, *who, "--secret-file", load.secret_file(daemon.directory, "other", other))[0] == 3, "refused")


def authentications_of_our_own_host_are_read_by_tshark():
    with served() as daemon:
        captured(daemon, authentications).expect(("C2HData",), (READ,), (CONNECT, AUTH_SEND, AUTH_RECEIVE))


# ---- the kernel's host, in a guest ------------------------------------------------------------------------------------------------

def in_a_guest(what, *options):
    """`what` of nvmf_kernel_test.py."""
    with harness.scratch_dir() as directory, guest.network(NETNS):
        daemon = guest.NetnsDaemon(NETNS, directory, f"--init-pool={directory}/pool.img,{2 * GIB}",
                                   f"--nvme=tcp:{guest.HOST}:{kernel.PORT}", *options)
        try:
            daemon.start()
            daemon.api.volume_create("disk", kernel.SIZE, kernel.VOLUME_ID)
            capture = Capture(directory, kernel.PORT, "tap0", ("ip", "netns", "exec", NETNS))
            kernel.run_guest(NETNS, 280, kernel.Outside(os.path.join(directory, "guest"), daemon), what, file=kernel.__file__)
            capture.end(None)
            return Seen(capture)
        finally:
            daemon.stop()


def why_no_guest():
    if not guest.GUEST_RUN or not os.path.exists(os.path.join(os.path.dirname(guest.GUEST_RUN), "linux.uml")):
        return "no guest kernel (GUEST_RUN)"
    return None if shutil.which("nvme") else "nvme-cli is not installed"


def what_the_kernels_host_asks_and_is_answered_is_read_by_tshark():
    if reason := why_no_guest():
        return reason
    in_a_guest("identify", "--nvme-insecure").expect(("C2HData",), (IDENTIFY, GET_LOG, SET_FEATURES, GET_FEATURES, ASYNC_EVENT, READ),
                                                     (CONNECT, PROPERTY_GET, PROPERTY_SET))
    return None


def an_authentication_is_read_by_tshark():
    if reason := why_no_guest():
        return reason
    in_a_guest("authenticate", "--nvme-authenticated").expect(("C2HData",), (IDENTIFY,), (CONNECT, AUTH_SEND, AUTH_RECEIVE))
    return None


TESTS = (
    data_in_capsules_is_read_by_tshark,
    data_that_was_asked_for_is_read_by_tshark,
    digests_are_read_by_tshark,
    discovery_and_its_refusals_are_read_by_tshark,
    every_command_and_its_errors_are_read_by_tshark,
    terms_of_both_sides_are_read_by_tshark,
    authentications_of_our_own_host_are_read_by_tshark,
    what_is_no_pdu_and_what_is_malformed_is_noticed,
    what_the_kernels_host_asks_and_is_answered_is_read_by_tshark,
    an_authentication_is_read_by_tshark,
)


def why_no_capture():
    missing = [tool for tool in ("tshark", "dumpcap") if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    done = subprocess.run(["dumpcap", "-L", "-i", "lo"], check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else f"dumpcap cannot capture on lo: {done.stderr.strip()}"


if __name__ == "__main__":
    if why_not := why_no_capture():
        harness.skip(why_not)
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
