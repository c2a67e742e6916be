"""The servers that are measured side by side. Each serves one volume of the same size over NBD on a unix socket."""
import os
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness  # noqa: E402

START_LIMIT_S = 20


def await_socket(path, process):
    """Until somebody answers on the unix socket."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
                return
            except OSError:
                time.sleep(0.01)
    raise RuntimeError(f"nobody answers on {path}")


def await_tcp(address, process):
    """The same of (host, port)."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            try:
                probe.connect(address)
                return
            except OSError:
                time.sleep(0.01)
    raise RuntimeError(f"nobody answers on {address}")


class Peer:
    """A server of somebody else's: one process, one file, one export named vol."""
    name, tools, places = "", (), ("disk", "tmpfs")
    note = ""

    def __init__(self, directory, size_bytes):
        self.directory = os.path.join(directory, self.name.replace(" ", "-"))
        os.makedirs(self.directory)
        self.file = os.path.join(self.directory, "volume")
        self.socket = os.path.join(self.directory, "nbd.sock")
        self.size_bytes = size_bytes
        self.process = None

    @classmethod
    def missing(cls):
        return next((tool for tool in cls.tools if not shutil.which(tool)), None)

    def prepare(self):
        with open(self.file, "wb") as volume:
            volume.truncate(self.size_bytes)

    def command(self):
        raise NotImplementedError

    def start(self):
        if not os.path.exists(self.file):
            self.prepare()
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        await_socket(self.socket, self.process)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    @property
    def pid(self):
        return self.process.pid

    @property
    def uri(self):
        return f"nbd+unix:///vol?socket={self.socket}"


class QsdRaw(Peer):
    name, tools = "qemu-storage-daemon raw", ("qemu-storage-daemon",)
    note = "cache.direct=on, aio=io_uring"
    format_options = "driver=raw"

    def command(self):
        return ["qemu-storage-daemon", "--blockdev",
                f"driver=file,node-name=file,filename={self.file},cache.direct=on,aio=io_uring,discard=unmap",
                "--blockdev", f"{self.format_options},node-name=image,file=file,discard=unmap",
                "--nbd-server", f"addr.type=unix,addr.path={self.socket}",
                "--export", "type=nbd,id=export,node-name=image,name=vol,writable=on"]


class QsdQcow2(QsdRaw):
    name = "qemu-storage-daemon qcow2"
    format_options = "driver=qcow2"

    def prepare(self):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.file, str(self.size_bytes)], check=True)

    def snapshot(self, name):
        """An internal snapshot, taken while nobody serves the image."""
        self.stop()
        subprocess.run(["qemu-img", "snapshot", "-c", name, self.file], check=True)
        self.start()


class NbdkitFile(Peer):
    name, tools = "nbdkit file", ("nbdkit",)
    note = "from the page cache, which holds the whole volume"

    def command(self):
        return ["nbdkit", "-f", "-U", self.socket, "-e", "vol", "file", self.file]


class NbdkitUncached(NbdkitFile):
    """What it has nearest to direct I/O: the cache reads ahead and writes behind, and lets go of each page after its use."""
    name, places = "nbdkit file cache=none", ("disk",)
    note = "through the page cache, which keeps nothing that was used"

    def command(self):
        return [*super().command(), "cache=none"]


class NbdkitMemory(Peer):
    name, tools, places = "nbdkit memory", ("nbdkit",), ("tmpfs",)
    note = "no file at all"

    def command(self):
        return ["nbdkit", "-f", "-U", self.socket, "-e", "vol", "memory", str(self.size_bytes)]


class Oxbow:
    """Ours: the same shape, on a pool file with room to spare."""
    name, tools, places = "oxbow", (), ("disk", "tmpfs")
    note = ""

    def __init__(self, directory, size_bytes, pool_bytes=None, name="oxbow"):
        self.directory = os.path.join(directory, name)
        os.makedirs(self.directory)
        self.size_bytes = size_bytes
        self.pool = os.path.join(self.directory, "pool")
        self.pool_bytes = pool_bytes or 4 * size_bytes
        self.daemon = harness.Daemon(self.directory, "--init-pool", f"{self.pool},{self.pool_bytes}")

    @classmethod
    def missing(cls):
        return None if os.path.exists(harness.OXBOWD) else "oxbowd (make build)"

    def start(self):
        self.daemon.start()
        self.daemon.oxbow("volume", "create", "vol", "--size", str(self.size_bytes))

    def stop(self):
        if self.daemon.process:
            self.daemon.kill()

    @property
    def pid(self):
        return self.daemon.process.pid

    @property
    def uri(self):
        return self.daemon.uri("vol")


SERVERS = (Oxbow, QsdRaw, QsdQcow2, NbdkitFile, NbdkitUncached, NbdkitMemory)
