"""The mirror: copies in pools of one daemon, copies on three daemons, somebody else's mirror, and every pause a client can see."""
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import cluster_test  # noqa: E402
import frontend_rows  # noqa: E402
import harness  # noqa: E402
import measure  # noqa: E402
import mirror_test  # noqa: E402
import peers  # noqa: E402
from harness import GIB, MIB  # noqa: E402

INTENTS_COST = os.path.join(harness.BUILD, "tests", "intents_cost")
MEMORY = "/dev/shm"
POOL_BYTES = 4 * GIB
SILENCE_S, GRACE_S = 3, 2  # oxbowd --copy-timeout and --copy-grace, as they are when nobody says otherwise
ALL_COPIES = "p0,p1,p2"
IN_MEMORY = "NVMe/TCP: 3 copies, memory pools"

# Another program on another machine, in a run of its own: SPDK's raid1 of three over NVMe/TCP, all in one process, on memory disks.
SPDK = {"4 KiB random write, depth 1": "p50 57 µs", "4 KiB random write, depth 32": "115,000/s",
        "4 KiB random write, depth 128": "100,000/s", "4 KiB random read, depth 128": "210,000 to 260,000/s",
        "128 KiB sequential write, depth 8": "7,600/s"}
SPDK_GOALS = {"4 KiB random write, depth 32": 1.5 * 115000, "4 KiB random write, depth 128": 1.5 * 100000}

ROWS = (*(frontend_rows.Row(f"4 KiB random {rw[4:]}, depth {depth}", rw, 4096, depth)
          for rw in ("randwrite", "randread") for depth in (1, 32, 128)),
        frontend_rows.Row("128 KiB sequential write, depth 8", "write", 131072, 8))


class Size:
    def __init__(self, short, rounds):
        quick = short and rounds == 1
        self.quick, self.rounds = quick, rounds
        self.seconds = 0.2 if quick else 0.25
        self.rows = [row for row in ROWS if row.depth < 100 and (row.depth > 1 or row.rw == "randwrite")] if quick else ROWS
        self.volume_bytes = 64 * MIB if quick else 128 * MIB
        self.fill_bytes = 128 * MIB if quick else 512 * MIB
        self.snapshots = 5 if quick else 20
        self.restarts = 1 if quick else 3
        self.losses = 1 if quick else 2
        self.intent_rounds = 5 if quick else 21


# ---- what serves: a name, and run(row, seconds) -> figures -----------------------------------------------------------------

class Costs:
    """CPU of the processes of each group meanwhile, in µs an I/O: {"home": [pid ...], "replicas": [pid ...]}."""

    def __init__(self, groups):
        self.groups = groups
        self.before = self.now()

    def now(self):
        return {name: sum(map(measure.cpu_seconds, pids)) for name, pids in self.groups.items()}

    def an_io(self, ios):
        return {f"{name}_us": (spent - self.before[name]) * 1e6 / max(ios, 1) for name, spent in self.now().items()}


class OverNbd:
    """fio through a unix socket."""

    def __init__(self, name, uri, groups, size_bytes):
        self.name, self.uri, self.groups, self.size_bytes = name, uri, groups, size_bytes

    def run(self, row, seconds):
        costs = Costs(self.groups)
        found = measure.fio(self.uri, row.rw, row.block_bytes, row.depth, 0, self.size_bytes,
                            more=(f"--runtime={seconds * 1000:.0f}ms", "--time_based"))
        return {key: found[key] for key in ("iops", "p50_us", "p99_us")} | costs.an_io(found["ios"])


class OverNvme:
    """oxbow-bench over NVMe/TCP on loopback."""

    def __init__(self, name, daemon, volume, groups):
        self.name, self.daemon, self.volume, self.groups = name, daemon, volume, groups

    def run(self, row, seconds):
        costs = Costs(self.groups)
        side = bench_end(bench_start(self.daemon, self.volume, row.rw, row.block_bytes, row.depth, seconds))
        return {"iops": side["iops"], "p50_us": side["p50_ns"] / 1000, "p99_us": side["p99_ns"] / 1000} | costs.an_io(side["operations"])


def bench_start(daemon, volume, rw, block_bytes, depth, seconds):
    return subprocess.Popen([frontend_rows.BENCH, "--socket", daemon.socket, "--volume", volume, "--rw", rw, "--block", str(block_bytes),
                             "--depth", str(depth), "--time", str(seconds), "--json"], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True)


def bench_end(process):
    """Its figures of the one thing it did, and "pause_ms": the longest time in which nothing was answered."""
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(process.args)}: status {process.returncode}")
    found = json.loads(out)
    return found["write" if "write" in found["rw"] else "read"] | {"pause_ms": found["longest_pause_us"] / 1000}


def measured(subjects, rows, size, what):
    """{(row title, subject): medians}, every subject in turn before the next row, all rows before the next round."""
    runs = {}
    for number in range(size.rounds):
        for row in rows:
            for subject in subjects:
                runs.setdefault((row.title, subject.name), []).append(subject.run(row, size.seconds))
        print(f"mirror: {what}: round {number + 1} of {size.rounds}", file=sys.stderr)
    return {key: measure.medians(found) for key, found in runs.items()}


def speed_table(table, subjects, rows, found):
    """In parentheses the share of the first, which is no mirror."""
    def cell(row, subject):
        figures, plain = found[row.title, subject.name], found[row.title, subjects[0].name]
        share = "" if subject is subjects[0] else f" ({figures['iops'] / plain['iops']:.2f})"
        return f"{figures['iops']:,.0f}/s{share}, p50 {figures['p50_us']:.0f} µs"
    return table(["", *(s.name for s in subjects)], [[row.title, *(cell(row, s) for s in subjects)] for row in rows])


def cost_table(table, subjects, rows, found):
    def cell(row, subject):
        return " + ".join(f"{found[row.title, subject.name][name + '_us']:.1f}" for name in subject.groups)
    return table(["µs of server CPU an I/O", *(s.name for s in subjects)],
                 [[row.title, *(cell(row, s) for s in subjects)] for row in rows])


def fill(daemon, name, size_bytes):
    measure.fio(daemon.uri(name), "write", "1M", 4, 0, size_bytes)


# ---- one daemon --------------------------------------------------------------------------------------------------------------

ONE_DAEMON = (("plain", {"pool": "a"}), ("1 copy", {"copies": "a"}), ("2 copies", {"copies": "a,b"}), ("3 copies", {"copies": "a,b,c"}))


def one_daemon(place, size, table):
    with harness.bench_dir(place) as directory, \
         harness.running_daemon(directory, "--nvme", "tcp:127.0.0.1:0") as daemon:
        mirror_test.pools_make(daemon, POOL_BYTES)
        groups, nbd, nvme = {"server": [daemon.process.pid]}, [], []
        for title, where in ONE_DAEMON:
            name = title.replace(" ", "-")
            daemon.api.call("POST", "/v1/volumes", {"name": name, "size_bytes": size.volume_bytes, **where})
            fill(daemon, name, size.volume_bytes)
            nbd.append(OverNbd(f"NBD: {title}", daemon.uri(name), groups, size.volume_bytes))
            nvme.append(OverNvme(f"NVMe/TCP: {title}", daemon, name, groups))
        if place == MEMORY:
            return tables(table, (nbd, nvme), size.rows, size, "one daemon, tmpfs")
        rows = [row for row in size.rows if row.depth < 100]
        return tables(table, (nvme,), rows, size, "one daemon, disk")


def tables(table, lists, rows, size, what):
    found = measured([s for subjects in lists for s in subjects], rows, size, what)
    return "\n\n".join(make(table, subjects, rows, found) for subjects in lists for make in (speed_table, cost_table))


# ---- three daemons -----------------------------------------------------------------------------------------------------------

class Node(cluster_test.Node):
    """Its pool is in memory; the metastore, which pauses wait for, stays on the disk."""

    def __init__(self, directory, index, memory):
        self.memory = memory
        super().__init__(directory, index)

    def pool_path(self):
        return os.path.join(self.memory, self.pool)

    def pools_make(self):
        """p0 in tmpfs, and m0 in the daemon's own memory, which ends with it."""
        self.pool_make(self.pool, self.pool_path())
        self.pool_make(f"m{self.index}", f"mem:{GIB}:m{self.index}")

    def pool_make(self, name, path):
        self.api.call("POST", "/v1/pools", {"name": name, "path": path, "size_bytes": GIB if path.startswith("mem:") else POOL_BYTES})


@contextlib.contextmanager
def cluster():
    with harness.bench_dir() as directory, harness.bench_dir(MEMORY) as memory, contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(harness.running(Node(directory, i, memory))) for i in range(cluster_test.NODES)]
        for node in nodes:
            node.pools_make()
        harness.wait_until(lambda: all(n["pool_count"] == 2 for n in nodes[0].api.call("GET", "/v1/nodes")["nodes"]), "the pools on record")
        yield nodes


def volume_make(home, name, size_bytes, **where):
    home.api.call("POST", "/v1/volumes", {"name": name, "size_bytes": size_bytes, **where})
    fill(home, name, size_bytes)


class QemuQuorum:
    """qemu-storage-daemon's quorum driver over three others, by NBD over TCP, served by a fourth. With `near` the first of the three is
    a file of the fourth's own, as the home's copy is with us. Each write is done by all three; a read asks one (read-pattern=fifo)."""

    def __init__(self, directory, size_bytes, near):
        self.directory, self.size_bytes, self.near = directory, size_bytes, near
        self.socket = os.path.join(directory, f"quorum{near:d}.sock")
        self.processes = []

    def spawn(self, *arguments):
        with open(os.path.join(self.directory, "qemu.log"), "ab") as log:
            process = subprocess.Popen(["qemu-storage-daemon", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def file(self, index):
        """A file, as the words for --blockdev of it."""
        path = os.path.join(self.directory, f"quorum{self.near:d}.{index}")
        with open(path, "wb") as volume:
            volume.truncate(self.size_bytes)
        return ["--blockdev", f"driver=file,node-name=c{index},filename={path},cache.direct=on,aio=io_uring,discard=unmap"]

    def child(self, index):
        if index == 0 and self.near:
            return self.file(index)
        host = f"127.0.0.{index + 2}"
        port = harness.free_port(host)
        process = self.spawn(*self.file(index), "--nbd-server", f"addr.type=inet,addr.host={host},addr.port={port}",
                             "--export", f"type=nbd,id=export,node-name=c{index},name=vol,writable=on")
        peers.await_tcp((host, port), process)
        return ["--blockdev", f"driver=nbd,node-name=c{index},server.type=inet,server.host={host},server.port={port},export=vol"]

    def start(self):
        children = [word for index in range(3) for word in self.child(index)]
        front = self.spawn(*children, "--blockdev", "driver=quorum,node-name=q,vote-threshold=3,read-pattern=fifo,"
                           "children.0=c0,children.1=c1,children.2=c2", "--nbd-server", f"addr.type=unix,addr.path={self.socket}",
                           "--export", "type=nbd,id=export,node-name=q,name=vol,writable=on")
        peers.await_socket(self.socket, front)
        measure.fio(self.uri, "write", "1M", 4, 0, self.size_bytes)

    @property
    def uri(self):
        return f"nbd+unix:///vol?socket={self.socket}"

    @property
    def groups(self):
        return {"home": [self.processes[-1].pid], "replicas": [p.pid for p in self.processes[:-1]]}

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


def quorums(stack, size):
    """Nothing where there is no qemu-storage-daemon."""
    if peers.QsdRaw.missing():
        return []
    directory, found = stack.enter_context(harness.bench_dir(MEMORY)), []
    for near, name in ((True, "NBD: qemu quorum, 1 file + 2 by NBD"), (False, "NBD: qemu quorum, 3 by NBD")):
        quorum = QemuQuorum(directory, size.volume_bytes, near)
        stack.callback(quorum.stop)
        quorum.start()
        found.append(OverNbd(name, quorum.uri, quorum.groups, size.volume_bytes))
    return found


def three_daemons(size, table):
    with cluster() as nodes, contextlib.ExitStack() as stack:
        home = nodes[0]
        groups = {"home": [home.process.pid], "replicas": [n.process.pid for n in nodes[1:]]}
        nbd, nvme = [], []
        for title, where in (("plain", {"pool": "p0"}), ("2 copies", {"copies": "p0,p1"}), ("3 copies", {"copies": ALL_COPIES})):
            name = title.replace(" ", "-")
            volume_make(home, name, size.volume_bytes, **where)
            nbd.append(OverNbd(f"NBD: {title}", home.uri(name), groups, size.volume_bytes))
            nvme.append(OverNvme(f"NVMe/TCP: {title}", home, name, groups))
        nbd += quorums(stack, size)
        volume_make(home, "memory", size.volume_bytes, copies="m0,m1,m2")
        nvme.append(OverNvme(IN_MEMORY, home, "memory", groups))
        found = measured([*nbd, *nvme], size.rows, size, "three daemons")
    parts = [make(table, subjects, size.rows, found) for subjects in (nbd, nvme) for make in (speed_table, cost_table)]
    return "\n\n".join(parts), spdk_lines({title: figures for (title, name), figures in found.items() if name == IN_MEMORY})


def spdk_lines(ours):
    return [[f"three daemons, {IN_MEMORY}: {title}", f"{ours[title]['iops']:,.0f}/s, p50 {ours[title]['p50_us']:.0f} µs",
             f"SPDK: {theirs}", f"{SPDK_GOALS[title]:,.0f}/s" if title in SPDK_GOALS else ""] for title, theirs in SPDK.items() if title in ours]


# ---- pauses: lines [what, figure, beside, goal] ------------------------------------------------------------------------------

def load_is_on(node, name):
    """Until somebody has asked for something."""
    def in_flight():
        return any(e["export"] == name and e["in_flight"] for e in node.api.call("GET", "/v1/stats")["exports"])
    harness.wait_until(in_flight, "load")


def lost_member(nodes, size):
    """[(how, the longest gap of a client, s)]; the member is back and whole afterwards."""
    home, victim, lines = nodes[0], nodes[1], []
    for how, detection_s in (("killed", GRACE_S), ("stopped (SIGSTOP)", SILENCE_S + GRACE_S)):
        gaps = [gap_without(home, victim, how == "killed", detection_s) for _ in range(1 if how != "killed" else size.losses)]
        lines.append([f"a member is {how}, writes at depth 32: longest pause beyond detection",
                      f"{max(gaps) - detection_s * 1000:,.0f} ms", f"{max(gaps):,.0f} ms, of which {detection_s:.0f} s are detection",
                      "1 s beyond 5 s"])
    return lines


def gap_without(home, victim, is_kill, detection_s):
    load = bench_start(home, "db", "randwrite", 4096, 32, detection_s + 1.2)
    load_is_on(home, "db")
    victim.process.send_signal(signal.SIGKILL if is_kill else signal.SIGSTOP)
    try:
        harness.wait_until(lambda: mirror_test.copy_of(home, victim.pool)["role"] != "member", f"a view without {victim.pool}", 30)
        gap_ms = bench_end(load)["pause_ms"]
    finally:
        if is_kill:
            victim.process.wait()
            victim.start()
        else:
            victim.process.send_signal(signal.SIGCONT)
    cluster_test.wait_healthy(home)
    return gap_ms


def snapshot_pause(nodes, size):
    home = nodes[0]
    quiet = bench_end(bench_start(home, "db", "randwrite", 4096, 32, size.snapshots / 10))
    load = bench_start(home, "db", "randwrite", 4096, 32, size.snapshots / 10 + 1)
    load_is_on(home, "db")
    pauses = []
    for number in range(size.snapshots):
        pauses.append(home.api.snapshot_create("db", f"s{number}")["pause_us"] / 1000)
        time.sleep(0.05)  # so that there is load between two
    gap_ms = bench_end(load)["pause_ms"]
    for number in range(size.snapshots):
        home.api.snapshot_delete(f"db@s{number}")
    return [["pause of writes at a snapshot of 3 copies, writes at depth 32", f"{statistics.median(pauses):.2f} ms, worst {max(pauses):.2f} ms",
             f"longest gap of the client {gap_ms:.1f} ms; without snapshots {quiet['pause_ms']:.1f} ms", "10 ms"]]


def restart(nodes, size):
    home, ready, gaps = nodes[0], [], []
    for _ in range(size.restarts):
        load = bench_start(home, "db", "randwrite", 4096, 32, 2.5)
        load_is_on(home, "db")
        home.kill()
        ready.append(home.start() * 1000)
        gaps.append(bench_end(load)["pause_ms"])
        cluster_test.wait_healthy(home)
    return [["the home is killed and started again, writes at depth 32: its client's longest gap", f"{statistics.median(gaps):,.0f} ms, worst {max(gaps):,.0f} ms",
             f"the API ready {statistics.median(ready):,.0f} ms after the start", "1 s"]]


def rebuild(nodes, size):
    home, rates = nodes[0], {}
    for name in ("alone", "loaded"):
        volume_make(home, name, size.fill_bytes, copies="p0,p1")
    quiet = bench_end(bench_start(home, "loaded", "randwrite", 4096, 8, 1))
    rates["alone"], _ = rebuild_once(home, "alone", False)
    rates["loaded"], busy = rebuild_once(home, "loaded", True)
    return [["a third copy is filled, nobody asking: what moves", f"{rates['alone']:,.0f} MiB/s", f"{size.fill_bytes // MIB} MiB", ""],
            ["the same under writes at depth 8", f"{rates['loaded']:,.0f} MiB/s",
             f"the client's p99 {busy['p99_ns'] / 1000:,.0f} µs, {busy['iops']:,.0f}/s; without {quiet['p99_ns'] / 1000:,.0f} µs, {quiet['iops']:,.0f}/s", ""]]


def rebuild_once(home, name, is_loaded):
    """(MiB a second, what the load saw). The load ends with the filling."""
    stop, seen = threading.Event(), []
    loader = threading.Thread(target=load_until, args=(home, name, stop, seen))
    if is_loaded:
        loader.start()
        load_is_on(home, name)
    began = time.monotonic()
    home.api.call("PUT", f"/v1/volumes/{name}/copies/p2")
    harness.wait_until(lambda: mirror_test.copy_of(home, "p2", name)["role"] == "member", "a third member", 120)
    rate = mirror_test.copy_of(home, "p2", name)["filled_bytes"] / MIB / (time.monotonic() - began)
    stop.set()
    if is_loaded:
        loader.join()
    return rate, measure.medians(seen) if seen else None


def load_until(home, name, stop, seen):
    while not stop.is_set():
        seen.append(bench_end(bench_start(home, name, "randwrite", 4096, 8, 1)))


def pauses(size):
    with cluster() as nodes:
        volume_make(nodes[0], "db", size.volume_bytes, copies=ALL_COPIES)
        lines = []
        for row in (snapshot_pause, restart, lost_member, rebuild):
            began = time.monotonic()
            lines += row(nodes, size)
            print(f"mirror: {row.__name__} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
        return lines


# ---- intents -----------------------------------------------------------------------------------------------------------------

def intents(size):
    """Of one process, nothing but the mirror and two pools in memory: where a difference is largest."""
    built = subprocess.run(["ninja", "-C", harness.BUILD, "tests/intents_cost"], capture_output=True, text=True)
    if built.returncode != 0:
        raise RuntimeError(built.stdout)
    with harness.bench_dir(MEMORY) as directory:
        out = subprocess.run([INTENTS_COST, directory, str(size.intent_rounds), "100"], capture_output=True, text=True, check=True).stdout
    return [intents_line(depth, *(intents_figures(out, depth, name) for name in ("intents", "no intents"))) for depth in (1, 32)]


def intents_figures(out, depth, name):
    return [float(text) for text in re.search(rf"write depth +{depth}  {name} +([\d.]+) a second +([\d.]+) us", out).groups()]


def intents_line(depth, noted, without):
    return [f"intents, overwrites of a set whose regions are noted, depth {depth}", f"{noted[0]:,.0f}/s, {noted[1]:.2f} µs of CPU",
            f"without {without[0]:,.0f}/s, {without[1]:.2f} µs: with them {100 * (without[0] / noted[0] - 1):+.1f} % slower", "3 %"]


# ---- the document ------------------------------------------------------------------------------------------------------------

def text(short, rounds, table):
    size = Size(short, rounds)
    with frontend_rows.cubic():
        memory, disk = (one_daemon(place, size, table) for place in (MEMORY, harness.SCRATCH))
        spread, lines = three_daemons(size, table)
        lines += pauses(size)
    lines += intents(size)
    return f"""## Mirrored

Medians of {size.rounds} rounds of {size.seconds} s, volumes of {size.volume_bytes // MIB} MiB. In parentheses: the share of a plain volume, which has no mirror, in the
same run. NBD is fio over a unix socket, NVMe/TCP is oxbow-bench on 127.0.0.1, both with cubic on this machine.

### One daemon, a pool a copy, on tmpfs

{memory}

### The same on the disk

{disk}

### Three daemons, a pool on tmpfs each

Copies over NVMe/TCP on 127.0.0.2 to 127.0.0.4, and three daemons and a client on {os.cpu_count()} cores. CPU: home + all replicas. Beside it
qemu-storage-daemon's quorum driver over files in the same place: three children, each write on all, each read from one; in the first column of
it, as with us, one child is its own and two are behind TCP.

{spread}

### Goals, and pauses

{table(["", "measured", "beside", "goal"], lines)}

SPDK is its raid1 of three over NVMe/TCP in one process on memory disks, measured in another run on another machine: to be aimed at, not to
be compared by the per cent. Pauses: pools on tmpfs, metastore on the disk. Without intents is a build with a switch that leaves them
out (`tests/bench/engine_cost.c`, planted bug 203), on and off in turn in one process, two copies in memory, no client beside.
"""
