"""A small NVMe/TCP host for tests that must say on the wire what no real host would say, or must say one thing at a time.

    queue = Queue(("127.0.0.1", 4420))          a connection after ICReq and ICResp; Queue(..., greet=False) before
    queue.connect(subnqn)                       Connect: an admin queue; `qid` and `cntlid` make it one of I/O
    queue.command(0x06, nsid=1, cdw10=0, read=4096) -> Answer(status, result, data)
    queue.send(...), queue.receive()            a PDU

Nothing here checks what the target promises; it only takes answers apart. Digests are oxbow-bench's business.
"""
import socket
import struct
import uuid
from typing import NamedTuple

ICREQ, ICRESP, H2C_TERM, C2H_TERM, COMMAND, RESPONSE, H2C_DATA, C2H_DATA, R2T = 0, 1, 2, 3, 4, 5, 6, 7, 9
LAST, SUCCESS = 0x04, 0x08
FABRICS = 0x7F
PROPERTY_SET, CONNECT, PROPERTY_GET, DISCONNECT = 0x00, 0x01, 0x04, 0x08
CAP, VS, CC, CSTS = 0x00, 0x08, 0x14, 0x1C
ENABLE = 0x00460001
CNTLID_ANY = 0xFFFF
DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery"
HOST_ID = uuid.UUID("0d41ef3c-8a0e-4b13-9a4e-5f6bb2a4c0de")
IN_CAPSULE_MAX = 8192
DNR = 0x4000


class Closed(Exception):
    """The target closed the connection."""


class Terminated(Exception):
    """The target sent a TermReq: `fes` and `fei`."""

    def __init__(self, fes, fei):
        super().__init__(f"TermReq: status {fes}, information {fei}")
        self.fes, self.fei = fes, fei


class Pdu(NamedTuple):
    type: int
    flags: int
    head: bytes  # behind the common header
    data: bytes


class Answer(NamedTuple):
    status: int  # with DNR, without the phase bit
    result: int
    data: bytes


def host_nqn(host_id):
    return f"nqn.2014-08.org.nvmexpress:uuid:{host_id}"


def pdu(kind, head, data=b"", flags=0):
    """Without digests, data right behind the header."""
    hlen = 8 + len(head)
    offset = hlen if data and kind not in (H2C_TERM, C2H_TERM) else 0
    return struct.pack("<BBBBI", kind, flags, hlen, offset, hlen + len(data)) + head + data


def icreq():
    return pdu(ICREQ, struct.pack("<HBBI112x", 0, 0, 0, 0))


def sgl(length, in_capsule):
    """One descriptor: data in the capsule at offset 0, or the transport's, that R2T and C2HData speak of."""
    return struct.pack("<QI3xB", 0, length, 0x01 if in_capsule else 0x5A)


def entry(opcode, cid, nsid=0, length=0, in_capsule=False, cdw=(), metadata=b"\0" * 16):
    words = list(cdw) + [0] * (6 - len(cdw))
    return struct.pack("<BBHI", opcode, 0x40, cid, nsid) + metadata + sgl(length, in_capsule) + struct.pack("<6I", *words)


class Queue:
    def __init__(self, where, timeout_s=10.0, greet=True):
        self.socket = socket.create_connection(where, timeout_s)
        self.next_cid, self.received = 1, b""
        if greet:
            self.socket.sendall(icreq())
            self.icresp = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # ---- PDUs

    def take(self, count):
        while len(self.received) < count:
            more = self.socket.recv(1 << 18)
            if not more:
                raise Closed(f"with {len(self.received)} bytes of {count}")
            self.received += more
        out, self.received = self.received[:count], self.received[count:]
        return out

    def receive(self):
        kind, flags, hlen, offset, plen = struct.unpack("<BBBBI", self.take(8))
        head, rest = self.take(hlen - 8), self.take(plen - hlen)
        if kind == C2H_TERM:
            raise Terminated(*struct.unpack_from("<HI", head))
        return Pdu(kind, flags, head, rest[offset - hlen:] if offset else b"")

    def send(self, kind, head, data=b"", flags=0):
        self.socket.sendall(pdu(kind, head, data, flags))

    # ---- commands

    def start(self, opcode, nsid=0, cdw=(), write=b"", read=0, in_capsule=None, metadata=b"\0" * 16):
        """Send a command; returns its cid."""
        cid = self.next_cid
        self.next_cid = self.next_cid % 0xFFF0 + 1
        inside = bool(write) and (len(write) <= IN_CAPSULE_MAX if in_capsule is None else in_capsule)
        head = entry(opcode, cid, nsid, len(write) or read, inside, cdw, metadata)
        self.send(COMMAND, head, write if inside else b"")
        return cid

    def data_send(self, r2t, write):
        cid, tag, offset, length = struct.unpack_from("<HHII", r2t.head)
        self.send(H2C_DATA, struct.pack("<HHII4x", cid, tag, offset, length), write[offset:offset + length], LAST)

    def end(self, cid, write=b""):
        """Receive until the command `cid` is answered."""
        data = b""
        while True:
            got = self.receive()
            if got.type == R2T:
                self.data_send(got, write)
            elif got.type == C2H_DATA:
                data += got.data
                if got.flags & SUCCESS:
                    return Answer(0, 0, data)
            elif got.type == RESPONSE:
                result, _, _, answered, status = struct.unpack("<QHHHH", got.head)
                if answered == cid:
                    return Answer(status >> 1, result, data)

    def command(self, opcode, nsid=0, cdw=(), write=b"", read=0, in_capsule=None):
        return self.end(self.start(opcode, nsid, cdw, write, read, in_capsule), write)

    # ---- Fabrics

    def fabrics(self, kind, words, write=b"", cid=None):
        """`words`: bytes 40 to 63 of the entry."""
        cid = cid if cid is not None else self.next_cid
        self.next_cid = cid + 1
        head = struct.pack("<BBHB19x", FABRICS, 0x40, cid, kind) + sgl(len(write), True) + words.ljust(24, b"\0")
        self.send(COMMAND, head, write)
        return self.end(cid)

    def connect(self, subnqn, qid=0, cntlid=CNTLID_ANY, entries=32, host_id=HOST_ID, kato_ms=0, hostnqn=None):
        data = host_id.bytes + struct.pack("<H238x", cntlid) + subnqn.encode().ljust(256, b"\0")
        data += (hostnqn or host_nqn(host_id)).encode().ljust(256, b"\0") + b"\0" * 256
        return self.fabrics(CONNECT, struct.pack("<HHHBBI", 0, qid, entries - 1, 0, 0, kato_ms), data)

    def property_get(self, offset, wide=False):
        return self.fabrics(PROPERTY_GET, struct.pack("<B3xI", int(wide), offset))

    def property_set(self, offset, value):
        return self.fabrics(PROPERTY_SET, struct.pack("<B3xIQ", 0, offset, value))

    def enable(self):
        return self.property_set(CC, ENABLE)

    def disconnect(self):
        return self.fabrics(DISCONNECT, struct.pack("<H", 0))
