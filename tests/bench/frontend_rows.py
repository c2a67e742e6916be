"""The same daemon over NVMe/TCP: oxbow-bench as the host, and beside it what loopback TCP does by itself (pingpong)."""
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness  # noqa: E402
import measure  # noqa: E402
from harness import GIB, MIB  # noqa: E402

BENCH = os.path.join(harness.BUILD, "cmd", "oxbow-bench")
PINGPONG = os.path.join(harness.BUILD, "tests", "pingpong")
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
CAPSULE, RESPONSE = 72, 24  # bytes of a command and of a response on the wire, beside the data


class Row(NamedTuple):
    title: str
    rw: str
    block_bytes: int
    depth: int
    queues: int = 1

    @property
    def is_sequential(self):
        return self.rw in ("read", "write")

    def pingpong(self):
        """The bytes of an ask and of its answer, if TCP were all there is."""
        if self.rw.endswith("read"):
            return CAPSULE, RESPONSE + self.block_bytes
        return CAPSULE + self.block_bytes, RESPONSE


ROWS = (*(Row(f"4 KiB random {rw[4:]}, depth {depth}, {queues} queue{'s' if queues > 1 else ''}", rw, 4096, depth, queues)
          for rw in ("randread", "randwrite") for depth, queues in ((1, 1), (32, 1), (128, 1), (128, 4))),
        Row("128 KiB sequential read, depth 8", "read", 131072, 8),
        Row("128 KiB sequential write, depth 8", "write", 131072, 8))


class Size:
    def __init__(self, quick, rounds):
        self.rounds = rounds
        self.seconds = 1 if quick else 2
        self.volume_bytes = 256 * MIB
        self.chain = 50 if quick else 250


class Served:
    """A daemon with one volume, reached over NVMe/TCP on this host."""

    def __init__(self, name, directory, pool, size, chain=0):
        self.name = name
        self.directory = os.path.join(directory, re.sub(r"\W+", "-", name))
        os.makedirs(self.directory)
        self.daemon = harness.Daemon(self.directory, "--init-pool", pool or f"{self.directory}/pool,{4 * GIB}",
                                     "--nvme", "tcp:127.0.0.1:0")
        self.size, self.chain = size, chain

    def start(self):
        self.daemon.start()
        self.daemon.api.volume_create("vol", self.size.volume_bytes)
        measure.fio(self.daemon.uri("vol"), "write", "1M", 4, 0, self.size.volume_bytes)
        for number in range(self.chain):
            self.daemon.api.snapshot_create("vol", f"s{number}")
            measure.fio(self.daemon.uri("vol"), "randwrite", "4k", 32, 0, self.size.volume_bytes, more=("--number_ios=300",))

    def run(self, row, seconds):
        before = measure.cpu_seconds(self.daemon.process.pid)
        done = subprocess.run([BENCH, "--socket", self.daemon.socket, "--volume", "vol", "--rw", row.rw, "--block",
                               str(row.block_bytes), "--depth", str(row.depth), "--queues", str(row.queues), "--time",
                               str(seconds), "--json"], capture_output=True, text=True, check=True)
        spent = measure.cpu_seconds(self.daemon.process.pid) - before
        found = json.loads(done.stdout)
        side = found["read" if row.rw.endswith("read") else "write"]
        return {"iops": side["iops"], "mib_s": side["bytes_per_s"] / MIB, "p50_us": side["p50_ns"] / 1000,
                "p99_us": side["p99_ns"] / 1000, "server_us": spent * 1e6 / side["operations"],
                "host_us": found["cpu_ms_per_million"] / 1000}


class Pingpong:
    name = "pingpong (TCP alone)"

    def start(self):
        pass

    def run(self, row, seconds):
        ask, answer = row.pingpong()
        out = subprocess.run([PINGPONG, "--ask", str(ask), "--answer", str(answer), "--depth", str(row.depth), "--connections",
                              str(row.queues), "--time", str(seconds)], capture_output=True, text=True, check=True).stdout
        rate, p50, p99, host, server = map(float, re.search(
            r": ([\d.]+)/s, p50 ([\d.]+) p99 ([\d.]+) us, CPU s per million: client ([\d.]+) server ([\d.]+)", out).groups())
        return {"iops": rate, "mib_s": rate * row.block_bytes / MIB, "p50_us": p50, "p99_us": p99, "server_us": server,
                "host_us": host}


@contextlib.contextmanager
def cubic():
    """Debian's kernels ask for cubic; some machines are set to bbr, which paces even what stays inside them."""
    with open(CONGESTION, encoding="ascii") as now:
        found = now.read().strip()
    try:
        with open(CONGESTION, "w", encoding="ascii") as setting:
            setting.write("cubic")
    except OSError:
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError), open(CONGESTION, "w", encoding="ascii") as setting:
            setting.write(found)


def measured(servers, size):
    """{(row title, server): medians}"""
    runs = {}
    for number in range(size.rounds):
        for row in ROWS:
            for server in servers:
                runs.setdefault((row.title, server.name), []).append(server.run(row, size.seconds))
        print(f"NVMe/TCP: round {number + 1} of {size.rounds}", file=sys.stderr)
    return {key: {figure: statistics.median(run[figure] for run in found) for figure in found[0]}
            for key, found in runs.items()}


def speed_cell(row, found, ceiling):
    figure = f"{found['mib_s']:,.0f} MiB/s" if row.is_sequential else f"{found['iops']:,.0f}/s"
    share = f" ({found['iops'] / ceiling['iops']:.2f})" if found is not ceiling else ""
    return f"{figure}{share}, p50 {found['p50_us']:.0f} µs"


def text(quick, rounds, table):
    size = Size(quick, rounds)
    with harness.bench_dir() as directory, cubic():
        memory = f"mem:{4 * GIB}:"
        chain_bytes = 8 * GIB  # a cluster for each block that is written after a snapshot
        served = [Served("memory pool", directory, f"{memory}bench,{4 * GIB}", size),
                  Served(f"memory pool, {size.chain} snapshots", directory, f"mem:{chain_bytes}:chain,{chain_bytes}", size, size.chain),
                  Served("pool file on the disk", directory, None, size)]
        try:
            for server in served:
                server.start()
            servers = [Pingpong(), *served]
            found = measured(servers, size)
            idle = measure.idle_cpu_percent(served[0].daemon.process.pid, 2 if quick else 10)
        finally:
            for server in served:
                if server.daemon.process:
                    server.daemon.kill()
    names = [server.name for server in servers]
    speed = [[row.title, *(speed_cell(row, found[row.title, name], found[row.title, names[0]]) for name in names)]
             for row in ROWS]
    cost = [[row.title, *(f"{found[row.title, name]['server_us']:.2f} / {found[row.title, name]['host_us']:.2f}"
                          for name in names)] for row in ROWS]
    return f"""## Over NVMe/TCP

{table(["", *names], speed)}

In parentheses: the share of what loopback TCP moves by itself, the same bytes in the same pattern (`tests/bench/pingpong.c`). The
host is oxbow-bench, the connections are TCP on 127.0.0.1 with cubic. Medians of {size.rounds} rounds of {size.seconds} s, {size.volume_bytes // MIB} MiB volumes.

{table(["µs of CPU an I/O: server / host", *names], cost)}

Idle, with no host connected, the daemon takes {idle:.1f} % of a core.
"""
