"""What only a store has: snapshots, long chains, many volumes, starting after a kill. qcow2 beside it where it has the same."""
import os
import random
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness  # noqa: E402
import measure  # noqa: E402
import peers  # noqa: E402
from harness import GIB, MIB  # noqa: E402

TIB = 1024 * GIB


class Size:
    """How much of everything: the real thing, and a taste of it."""

    def __init__(self, quick, rounds):
        self.rounds = rounds
        self.seconds = 1 if quick else 2
        self.volume_bytes = 256 * MIB if quick else GIB
        self.chain = 250
        self.chain_bytes = 64 * MIB if quick else 256 * MIB
        self.snapshots = 10000
        self.snapshots_sampled = 200
        self.volumes = 10000
        self.pauses = 10 if quick else 50


class Daemon:
    """oxbowd on a pool file of its own; everything goes when it is left."""

    def __init__(self, pool_bytes, place=None):
        self.scratch = tempfile.mkdtemp(prefix="oxbow-bench.", dir=place or harness.SCRATCH)
        pool = os.path.join(self.scratch, "pool")
        self.daemon = harness.Daemon(self.scratch, "--init-pool", f"{pool},{pool_bytes}")

    def __enter__(self):
        self.daemon.start()
        return self.daemon

    def __exit__(self, *_):
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        harness.remove_tree(self.scratch)


def filled_volume(daemon, name, size_bytes):
    daemon.api.volume_create(name, size_bytes)
    measure.fio(daemon.uri(name), "write", "1M", 4, 0, size_bytes)


def write_ios(depth, size):
    """How many random 4 KiB writes make a row: enough to measure, few enough that no block is met twice."""
    return min(size.volume_bytes // 4096 // 2, 4000 * size.seconds if depth == 1 else 20000 * size.seconds)


def timed_writes(pid, uri, depth, size):
    """Random 4 KiB writes, each block at most once, so that after a snapshot each is the first of its block."""
    return measure.fio_served(pid, uri, "randwrite", "4k", depth, 0, size.volume_bytes,
                              more=(f"--number_ios={write_ios(depth, size)}",))


# ---- the rows: each a function that returns lines [what, figure, comparison, goal] ----------------------------------

def first_write_after_snapshot(size):
    lines = []
    with harness.bench_dir() as directory:
        ours = peers.Oxbow(directory, size.volume_bytes, pool_bytes=(2 * size.rounds + 2) * size.volume_bytes)
        theirs = peers.QsdQcow2(directory, size.volume_bytes)
        servers = [(ours, lambda name: ours.daemon.api.snapshot_create("vol", name))]
        if not theirs.missing():
            servers.append((theirs, theirs.snapshot))
        try:
            for server, _ in servers:
                server.start()
            for depth in (1, 32):
                figures = first_writes(servers, depth, size)
                lines += [first_write_line(server.name, depth, *figures[server.name]) for server, _ in servers]
        finally:
            for server, _ in servers:
                server.stop()
    return lines


def first_writes(servers, depth, size):
    """{server: (median overwrite IOPS, median first-write IOPS)}, measured in turn. Every block is written before an overwrite is
    measured: after the snapshot of the last round it would be another first write."""
    runs = {}
    for number in range(size.rounds):
        for server, snapshot in servers:
            measure.fio(server.uri, "write", "1M", 4, 0, size.volume_bytes)
            plain = timed_writes(server.pid, server.uri, depth, size)["iops"]
            snapshot(f"d{depth}r{number}")
            first = timed_writes(server.pid, server.uri, depth, size)["iops"]
            runs.setdefault(server.name, []).append((plain, first))
    return {name: tuple(statistics.median(column) for column in zip(*pairs)) for name, pairs in runs.items()}


def first_write_line(name, depth, plain, first):
    goal = {1: "1.3x", 32: "1.1x"}[depth] if name == "oxbow" else ""
    return [f"first write after a snapshot, depth {depth}: {name}", f"{first:,.0f} IOPS",
            f"overwrite {plain:,.0f} IOPS: {plain / first:.2f}x", goal]


def reads_through_a_chain(size):
    lines = []
    with Daemon(8 * GIB) as daemon:
        for name, snapshots in (("short", 1), ("long", size.chain)):
            filled_volume(daemon, name, size.chain_bytes)
            for number in range(snapshots):
                daemon.api.snapshot_create(name, f"s{number}")
                measure.fio(daemon.uri(name), "randwrite", "4k", 32, 0, size.chain_bytes, more=("--number_ios=300",))
        for depth in (1, 32):
            runs = {"short": [], "long": []}
            for _ in range(size.rounds):
                for name, found in runs.items():
                    found.append(measure.fio(daemon.uri(name), "randread", "4k", depth, size.seconds, size.chain_bytes)["iops"])
            short, long = (statistics.median(found) for found in runs.values())
            lines.append([f"random read through {size.chain} snapshots, depth {depth}", f"{long:,.0f} IOPS",
                          f"through 1: {short:,.0f} IOPS: {short / long:.2f}x", "1.1x"])
    return lines


def snapshot_create_at_many(size):
    volumes = max(1, size.snapshots // 100)
    with Daemon(16 * GIB) as daemon:
        for number in range(volumes):
            daemon.api.volume_create(f"v{number}", 64 * MIB)
        times = []
        for number in range(size.snapshots):
            began = time.perf_counter()
            daemon.api.snapshot_create(f"v{number % volumes}", f"s{number}")
            times.append((time.perf_counter() - began) * 1000)
    first, last = (statistics.median(times[:size.snapshots_sampled]), statistics.median(times[-size.snapshots_sampled:]))
    return [[f"snapshot create with {size.snapshots:,} snapshots there", f"{last:.2f} ms", f"with none: {first:.2f} ms",
             "no slower"]]


def snapshot_delete_under_load(size):
    with Daemon(8 * GIB) as daemon:
        filled_volume(daemon, "v", size.volume_bytes)
        for number in range(10):
            daemon.api.snapshot_create("v", f"s{number}")
            measure.fio(daemon.uri("v"), "randwrite", "4k", 32, 0, size.volume_bytes, more=("--number_ios=2000",))
        runs = {"quiet": [], "busy": []}
        for number in range(size.rounds):
            runs["quiet"].append(mixed(daemon, size))
            deleter = threading.Thread(target=delete_some, args=(daemon, range(number, 10, size.rounds)))
            deleter.start()
            runs["busy"].append(mixed(daemon, size))
            deleter.join()
    quiet, busy = measure.medians(runs["quiet"]), measure.medians(runs["busy"])
    return [["mixed load while snapshots are deleted, depth 32", f"{busy['iops']:,.0f} IOPS, p99 {busy['p99_us']:,.0f} µs",
             f"without: {quiet['iops']:,.0f} IOPS, p99 {quiet['p99_us']:,.0f} µs", ""]]


def mixed(daemon, size):
    return measure.fio(daemon.uri("v"), "randrw", "4k", 32, size.seconds, size.volume_bytes, more=("--rwmixread=70",))


def delete_some(daemon, numbers):
    for number in numbers:
        daemon.api.snapshot_delete(f"v@s{number}")


def pause_at_snapshot(size):
    with Daemon(8 * GIB) as daemon:
        filled_volume(daemon, "v", size.volume_bytes)
        load = threading.Thread(target=measure.fio, args=(daemon.uri("v"), "randwrite", "4k", 32, size.seconds + 3,
                                                          size.volume_bytes))
        load.start()
        harness.wait_until(lambda: daemon.api.volume("v")["open_count"] > 0, "load")
        pauses = [daemon.api.snapshot_create("v", f"s{number}")["pause_us"] / 1000 for number in range(size.pauses)]
        load.join()
    return [["pause of writes at a snapshot, random writes at depth 32", f"{statistics.median(pauses):.2f} ms",
             f"worst of {size.pauses}: {max(pauses):.2f} ms", "2 ms"]]


def start_after_kill(size):
    return [start_line(size, pool_bytes, name) for pool_bytes, name in ((16 * GIB, "16 GiB"), (10 * TIB, "10 TiB, sparse"))]


def start_line(size, pool_bytes, name):
    with Daemon(pool_bytes) as daemon:
        for number in range(size.volumes):
            daemon.api.volume_create(f"v{number}", 64 * MIB)
        ready, first = [], []
        for number in range(size.rounds):
            fill_journal(daemon, size)
            daemon.kill()
            began = time.monotonic()
            ready.append(daemon.start() * 1000)
            measure.fio(daemon.uri("v0"), "randread", "4k", 1, 0, 64 * MIB, more=("--number_ios=1",))
            first.append((time.monotonic() - began) * 1000)
        recovery = daemon.api.pools()[0]["recovery"]
    return [f"start after kill -9, {size.volumes:,} volumes, journal in use, pool of {name}",
            f"ready in {statistics.median(ready):.0f} ms", f"first I/O of a new fio after {statistics.median(first):.0f} ms; "
            f"recovery {recovery['recovery_us'] / 1000:.0f} ms of it: {recovery['records']:,} records replayed, "
            f"{recovery['blocks_verified']:,} blocks verified", "1 s"]


def fill_journal(daemon, size):
    """First writes all over: each is a record, and the kill comes before anything asks for a checkpoint."""
    name = f"fill{random.getrandbits(32)}"
    daemon.api.volume_create(name, GIB)
    measure.fio(daemon.uri(name), "randwrite", "4k", 64, 0, GIB, more=(f"--number_ios={20000 * size.rounds}",))


ROWS = (first_write_after_snapshot, reads_through_a_chain, snapshot_create_at_many, snapshot_delete_under_load,
        pause_at_snapshot, start_after_kill)


def text(quick, rounds, table, only=None):
    size, lines, moods = Size(quick, rounds), [], []
    for row in ROWS:
        if only and only not in row.__name__:
            continue
        began = time.monotonic()
        moods.append(measure.flush_us(harness.SCRATCH))
        lines += row(size)
        print(f"store: {row.__name__} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
    return f"""## What only a store has

{table(["", "measured", "beside", "goal"], lines)}

Volumes of {size.volume_bytes // MIB} MiB on the disk, medians of {size.rounds}. FLUSH of a 4 KiB write took {min(moods):.0f} to {max(moods):.0f} µs meanwhile.
"""
