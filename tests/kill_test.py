#!/usr/bin/python3
"""Killed and back: the real daemon, kill -9 at random moments, under verified load and a steady stream of operations.

    tests/kill_test.py [--kills N] [--seed S] [--keep]

Each round: clients write self-identifying blocks to several volumes and keep a ledger of what was acknowledged; meanwhile
snapshots are created, deleted, reverted to and cloned, volumes created, grown, renamed and deleted, each with an id chosen here;
then the daemon dies, in the middle of whatever it was doing, sometimes twice. After the restart:

  - every acknowledged write is there, and nothing that was never written
  - every snapshot has the hash it always had
  - the interrupted operation was done or was not, and repeating it with the same id succeeds
  - the pool's own check finds nothing

Between death and restart somebody knocks at the dead daemon's sockets, and is refused: what is dead does not listen.

At the end everything is deleted, and all space is free again. Timing is the machine's, so a seed replays the choices and not the
exact moment; the pool file and the log are kept when something is broken.
"""
import argparse
import os
import random
import sys
import threading
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, Broken, Gone, Refused, expect, new_id  # noqa: E402

POOL_BYTES = 2 * GIB
VOLUME_BYTES = 16 * MIB
VOLUME_BYTES_MAX = 32 * MIB
VOLUMES_MAX = 7
SNAPSHOTS_MAX = 4  # of one volume
READY_LIMIT_S = 10  # the goal is 1 s and the median is printed; this bound only catches what is broken

# The volumes that carry load: unit of the ledger, logical block size, commands in flight.
LOADED = ((4096, 512, 16), (512, 512, 8), (4096, 4096, 32))


class Snapshot:
    def __init__(self, volume, name, before):
        self.volume, self.name, self.id = volume, name, None
        self.before, self.after = before, None  # ledgers around its creation, until the hash is known
        self.hash = None
        self.size_bytes = None

    @property
    def export(self):
        return f"{self.volume.name}@{self.name}"


class Volume:
    def __init__(self, name, volume_id, verifier, depth=0):
        self.name, self.id, self.verifier, self.depth = name, volume_id, verifier, depth
        self.size_bytes = VOLUME_BYTES
        self.snapshots = {}  # by name


class Operation:
    """One change, with the id that makes it the same when it is repeated. `go` asks for it; `settle` brings the model up to
    date once it has certainly happened, and may be repeated; `look` says, after a crash, whether it had: True, False, or Broken;
    `crashed` notes what must be known before anything is looked at, `again` what changes when it had not happened."""

    def __init__(self, text, go, settle, look, crashed=lambda: None, again=lambda: None):
        self.text, self.go, self.settle, self.look, self.crashed, self.again = text, go, settle, look, crashed, again
        self.reverts = None  # the volume whose content it replaces


class World:
    """What should be there, and how to change it."""

    def __init__(self, daemon, directory, rng):
        self.daemon, self.api, self.directory, self.rng = daemon, daemon.api, directory, rng
        self.volumes = {}  # by id
        self.counter = 0
        self.done = {}  # operations by kind

    def name(self, prefix):
        self.counter += 1
        return f"{prefix}{self.counter}"

    def verifier(self, unit_bytes, size_bytes=VOLUME_BYTES):
        return harness.Verifier(self.daemon, self.directory, unit_bytes, size_bytes)

    def begin(self):
        for unit_bytes, block_size, depth in LOADED:
            volume = Volume(self.name("load"), new_id(self.rng), self.verifier(unit_bytes), depth)
            self.api.volume_create(volume.name, VOLUME_BYTES, volume.id, block_size)
            self.volumes[volume.id] = volume

    # -- looking, after a crash --

    def exists(self, kind, ref):
        try:
            return self.api.call("GET", f"/v1/{kind}s/{ref}")
        except Refused as no:
            expect(no.status == 404, f"looking for {kind} {ref}: {no}")
            return None

    # -- operations: each returns an Operation, or None if it does not fit now --

    def pick(self, volumes):
        volumes = sorted(volumes, key=lambda v: v.id)
        return self.rng.choice(volumes) if volumes else None

    def idle(self):
        return [v for v in self.volumes.values() if not v.depth]

    def pick_snapshot(self, volumes):
        return self.pick([s for v in volumes for s in v.snapshots.values() if s.hash])

    def snapshot_create(self):
        volume = self.pick([v for v in self.volumes.values() if len(v.snapshots) < SNAPSHOTS_MAX])
        if not volume:
            return None
        snapshot = Snapshot(volume, self.name("snap"), None)
        snapshot.id = new_id(self.rng)
        snapshot.before = volume.verifier.copy(snapshot.name + ".before")

        def crashed():
            snapshot.after = volume.verifier.copy(snapshot.name + ".after")

        def settle():
            if not snapshot.after:
                crashed()
            snapshot.size_bytes = volume.size_bytes
            volume.snapshots[snapshot.name] = snapshot

        def again():  # of a volume at rest: each unit has one right answer
            snapshot.before = volume.verifier.copy(snapshot.name + ".before")
            crashed()

        return Operation(f"snapshot create {snapshot.export}",
                         lambda: self.api.snapshot_create(volume.id, snapshot.name, snapshot.id), settle,
                         lambda: bool(self.exists("snapshot", snapshot.id)), crashed, again)

    def snapshot_delete(self):
        snapshot = self.pick_snapshot(self.volumes.values())
        if not snapshot:
            return None
        self.api.close_wait("snapshot", snapshot.id)

        def settle():
            snapshot.volume.snapshots.pop(snapshot.name, None)
            expect(not self.exists("snapshot", snapshot.id), f"{snapshot.export} was deleted and is still there")

        def look():
            if not self.exists("snapshot", snapshot.id):
                return True
            self.check_snapshot(snapshot)
            return False

        return Operation(f"snapshot delete {snapshot.export}", lambda: self.api.snapshot_delete(snapshot.id), settle, look)

    def clone(self):
        snapshot = self.pick_snapshot(self.volumes.values())
        if not snapshot or len(self.volumes) >= VOLUMES_MAX:
            return None
        full_copy = self.rng.random() < 0.3
        volume = Volume(self.name("clone"), new_id(self.rng), None)
        volume.verifier = self.verifier(snapshot.volume.verifier.unit_bytes)

        def settle():
            volume.size_bytes = snapshot.size_bytes
            found = volume.verifier.hash(volume.name)
            expect(found == snapshot.hash, f"{volume.name}, cloned from {snapshot.export}, has {found}, not {snapshot.hash}")
            volume.verifier.adopt(volume.name)
            self.volumes[volume.id] = volume

        return Operation(f"volume clone {snapshot.export} {volume.name}{' --full' if full_copy else ''}",
                         lambda: self.api.clone(snapshot.id, volume.name, volume.id, full_copy), settle,
                         lambda: bool(self.exists("volume", volume.id)))

    def volume_create(self):
        if len(self.volumes) >= VOLUMES_MAX:
            return None
        volume = Volume(self.name("vol"), new_id(self.rng), self.verifier(4096))

        def settle():
            volume.verifier.check(volume.name)  # its ledger says: never written, all zeroes
            self.volumes[volume.id] = volume

        return Operation(f"volume create {volume.name}",
                         lambda: self.api.volume_create(volume.name, VOLUME_BYTES, volume.id), settle,
                         lambda: bool(self.exists("volume", volume.id)))

    def volume_delete(self):
        volume = self.pick(self.idle())
        if not volume:
            return None
        self.close_all(volume)

        def settle():
            self.volumes.pop(volume.id, None)
            expect(not self.exists("volume", volume.id), f"{volume.name} was deleted and is still there")

        return Operation(f"volume delete {volume.name}", lambda: self.api.volume_delete(volume.id), settle,
                         lambda: not self.exists("volume", volume.id))

    def volume_grow(self):
        volume = self.pick([v for v in self.volumes.values() if v.size_bytes < VOLUME_BYTES_MAX])
        if not volume:
            return None
        old, new = volume.size_bytes, min(volume.size_bytes + MIB * self.rng.randint(1, 8), VOLUME_BYTES_MAX)

        def settle():
            volume.size_bytes = new

        def look():
            size = self.api.volume(volume.id)["size_bytes"]
            expect(size in (old, new), f"{volume.name} grew from {old} to {new} and has {size}")
            return size == new

        return Operation(f"volume grow {volume.name} --size {new}", lambda: self.api.volume_grow(volume.id, new), settle, look)

    def volume_rename(self):
        volume = self.pick(self.idle())
        if not volume:
            return None
        old, new = volume.name, self.name("renamed")

        def settle():
            volume.name = new

        def look():
            name = self.api.volume(volume.id)["name"]
            expect(name in (old, new), f"{old} was renamed to {new} and is {name}")
            return name == new

        return Operation(f"volume rename {old} {new}", lambda: self.api.volume_rename(volume.id, new), settle, look)

    def volume_revert(self):
        snapshot = self.pick_snapshot(self.volumes.values())
        if not snapshot:
            return None
        volume, head_id = snapshot.volume, new_id(self.rng)
        volume.verifier.load_stop(may_be_lost=True)
        self.close_all(volume)

        def settle():
            found = volume.verifier.hash(volume.name)
            expect(found == snapshot.hash, f"{volume.name}, reverted to {snapshot.export}, has {found}, not {snapshot.hash}")
            volume.size_bytes = snapshot.size_bytes
            volume.verifier.adopt(volume.name)
            self.load_start(volume)

        def look():
            return self.api.volume(volume.id)["head_id"] == head_id

        operation = Operation(f"volume revert {snapshot.export}",
                              lambda: self.api.volume_revert(volume.id, snapshot.id, head_id), settle, look)
        operation.reverts = volume
        return operation

    # -- the steady stream --

    WEIGHTS = {"snapshot_create": 8, "snapshot_delete": 6, "clone": 3, "volume_create": 2, "volume_delete": 3,
               "volume_grow": 3, "volume_rename": 1, "volume_revert": 3}

    def operate(self):
        """One operation after the other until the daemon is gone; returns the one that was under way, or None."""
        while True:
            kind = self.rng.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))[0]
            operation = None
            try:
                if not (operation := getattr(self, kind)()):
                    continue
                operation.go()
            except Gone:
                return operation
            self.done[kind] = self.done.get(kind, 0) + 1
            try:
                operation.settle()
            except Gone:
                return operation
            try:
                self.learn_hashes()
            except Gone:
                return None

    def learn_hashes(self):
        """A new snapshot is read once while it is fresh: every unit as of some moment while it was taken."""
        for volume in self.volumes.values():
            for snapshot in volume.snapshots.values():
                if not snapshot.hash:
                    self.check_snapshot(snapshot)

    # -- load --

    def load_start(self, volume):
        if volume.depth and not volume.verifier.process:
            volume.verifier.load_start(volume.name, self.rng.getrandbits(32), volume.depth)

    def loads_start(self):
        for volume in self.volumes.values():
            self.load_start(volume)

    def loads_end(self):
        return [v.verifier.load_end(may_be_lost=True) for v in self.volumes.values() if v.verifier.process]

    def close_all(self, volume):
        self.api.close_wait("volume", volume.id)
        for snapshot in volume.snapshots.values():
            self.api.close_wait("snapshot", snapshot.id)

    # -- after the restart --

    def check_snapshot(self, snapshot):
        verifier = snapshot.volume.verifier
        if snapshot.hash:
            found = verifier.hash(snapshot.export)
            expect(found == snapshot.hash, f"{snapshot.export} was {snapshot.hash} and is {found}")
            return
        snapshot.hash = verifier.on("within", snapshot.export, snapshot.before, snapshot.after)
        os.unlink(snapshot.before)
        os.unlink(snapshot.after)

    def check_volume(self, volume):
        size = self.api.volume(volume.id)["size_bytes"]
        expect(size == volume.size_bytes, f"{volume.name} should have {volume.size_bytes} bytes and has {size}")
        volume.verifier.check(volume.name)

    def check_names(self):
        there = {v["id"]: v["name"] for v in self.api.volumes()}
        wanted = {v.id: v.name for v in self.volumes.values()}
        expect(there == wanted, f"there are volumes {there}, there should be {wanted}")
        for volume in self.volumes.values():
            there = {s["id"] for s in self.api.snapshots(volume.id)}
            wanted = {s.id for s in volume.snapshots.values()}
            expect(there == wanted, f"{volume.name} has snapshots {there}, it should have {wanted}")

    def check_everything(self):
        self.check_names()
        for volume in self.volumes.values():
            self.check_volume(volume)
            for snapshot in volume.snapshots.values():
                self.check_snapshot(snapshot)
        self.api.pool_check()


def after_crash(world, operation):
    """What was left is checked before the interrupted operation is repeated, and everything after. A volume whose revert was
    done has the snapshot's content and not what its ledger says: its settle() compares that."""
    happened = None
    if operation:
        happened = operation.look()
        reverted = operation.reverts if happened else None
        for volume in world.volumes.values():
            if volume is not reverted and (there := world.exists("volume", volume.id)):
                volume.verifier.check(there["name"])
        if not happened:
            operation.again()
        operation.go()
        operation.settle()
    for volume in world.volumes.values():
        volume.verifier.load_stop()
    world.check_everything()
    return happened


def restart(daemon, rng):
    """Start again; one time in five the daemon is killed once more on its way up, at any point of its recovery."""
    died_again = 0
    while rng.random() < 0.2:
        process = daemon.spawn()
        time.sleep(rng.random() * 0.05)  # not waiting for anything: the moment is the test
        process.kill()
        process.wait()
        died_again += 1
    seconds = daemon.start()
    expect(seconds < READY_LIMIT_S, f"ready only after {seconds:.1f} s")
    return seconds, died_again


def one_round(world, number):
    daemon, rng = world.daemon, world.rng
    world.loads_start()
    moment_s = rng.random() ** 2 * 0.8
    killer = threading.Timer(moment_s, daemon.process.kill)
    killer.start()
    operation = world.operate()
    killer.join()
    daemon.process.wait()
    harness.knock(daemon.socket, daemon.nbd)
    world.loads_end()
    if operation:
        operation.crashed()
    text = operation.text if operation else "nothing"
    print(f"{number:4}  killed after {moment_s * 1000:3.0f} ms in {text}", end="", flush=True)
    seconds, died_again = restart(daemon, rng)
    more = f", killed {died_again} times more on the way up" if died_again else ""
    print(f"{more}; ready in {seconds * 1000:.0f} ms", end="", flush=True)
    happened = after_crash(world, operation)
    print({None: "", True: "; it was done", False: "; it was not done"}[happened], flush=True)
    return seconds


def free_everything(world, before):
    """Nothing is left behind: with the last volume gone, the space is what it was."""
    for volume in list(world.volumes.values()):
        world.close_all(volume)
        world.api.volume_delete(volume.id)
    world.api.jobs_wait()
    world.api.pool_check()
    space = world.api.space()
    expect(space["data_bytes"] == before["data_bytes"],
           f"{space['data_bytes']} bytes of data are left after everything was deleted")
    slack = 16 * MIB
    expect(space["metadata_bytes"] <= before["metadata_bytes"] + slack,
           f"metadata grew from {before['metadata_bytes']} to {space['metadata_bytes']} bytes and stayed")


def run(directory, kills, seed):
    rng = random.Random(seed)
    pool = os.path.join(directory, "pool")
    with harness.running_daemon(directory, "--init-pool", f"{pool},{POOL_BYTES}") as daemon:
        world = World(daemon, directory, rng)
        before = world.api.space()
        world.begin()
        times = []
        try:
            for number in range(1, kills + 1):
                times.append(one_round(world, number))
        except (Refused, Gone) as why:
            raise Broken(f"in round {len(times) + 1}: {type(why).__name__}: {why}") from why
        finally:
            for volume in world.volumes.values():
                if volume.verifier.process:
                    volume.verifier.process.kill()
        free_everything(world, before)
    print(f"operations: {', '.join(f'{n} {kind}' for kind, n in sorted(world.done.items()))}")
    print(f"{kills} kills; ready in {harness.spread(times)} (goal: under 1000)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=lambda text: int(text, 0), default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        with harness.scratch_dir("oxbow-kill.") as directory:
            run(directory, options.kills, options.seed)
    except Broken as why:
        print(f"\nBROKEN: {why}\nthe same choices again: tests/kill_test.py --kills {options.kills} --seed {options.seed}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
