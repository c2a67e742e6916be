#!/usr/bin/python3
"""Failures this field has really had, each as a test by name. Numbers are issues of longhorn/longhorn unless another project is
named: what triggered it there is done here, and what must happen instead is checked. docs/testing.md lists them all.

    tests/catalogue_test.py [NUMBER ...]
"""
import os
import random
import struct
import subprocess
import sys
import threading
import time
import uuid
from typing import NamedTuple

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, Gone, Refused, expect, new_id  # noqa: E402

VOLUME_BYTES = 32 * MIB
SEED = int(os.environ.get("OXBOW_SEED", "0")) or random.SystemRandom().getrandbits(32)
RNG = random.Random(SEED)


def pool_option(path, size_bytes=GIB):
    return ["--init-pool", f"{path},{size_bytes}"]


def one_pool(directory, size_bytes=GIB):
    return harness.running_daemon(directory, *pool_option(os.path.join(directory, "pool"), size_bytes))


def written_volume(daemon, directory, name="v", commands=3000, size_bytes=VOLUME_BYTES):
    """A volume with something in it, and the verifier that knows what."""
    daemon.api.volume_create(name, size_bytes)
    verifier = harness.Verifier(daemon, directory, 4096, size_bytes)
    verifier.load_start(name, RNG.getrandbits(32), 16, commands)
    verifier.load_end(may_be_lost=False)
    daemon.api.close_wait("volume", name)
    return verifier


def refusal(call, *arguments):
    """The error name the API gave; Broken if it did not refuse."""
    try:
        call(*arguments)
    except Refused as no:
        return no.error
    raise harness.Broken(f"{call.__name__}{arguments} was not refused")


def kill_during(daemon, call, moment_s):
    """Kill the daemon `moment_s` after the call was begun (give or take): True if the call was answered first."""
    killer = threading.Timer(moment_s, daemon.process.kill)
    killer.start()
    try:
        call()
        answered = True
    except Gone:
        answered = False
    killer.join()
    daemon.process.wait()
    return answered


# ---- killed, interrupted --------------------------------------------------------------------------------------------

def issue_9942_killed_again_and_again_it_is_healthy_each_time_and_has_the_same_bytes():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        wanted = verifier.check("v")
        for _ in range(15):
            daemon.kill()
            daemon.start()
            found = verifier.hash("v")
            expect(found == wanted, f"the volume was {wanted} and is {found}")
        daemon.pool_check()


def issue_12728_an_interrupted_snapshot_or_volume_is_whole_or_absent_and_nothing_is_left_to_clean():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        written_volume(daemon, directory)
        for number in range(12):
            moment_s, snapshot_id, volume_id = RNG.random() * 0.008, new_id(RNG), new_id(RNG)
            calls = (lambda name=f"s{number}", the_id=snapshot_id: daemon.api.snapshot_create("v", name, the_id),
                     lambda name=f"n{number}", the_id=volume_id: daemon.api.volume_create(name, VOLUME_BYTES, the_id))
            call = calls[number % 2]
            answered = kill_during(daemon, call, moment_s)
            daemon.start()
            names = [s["name"] for s in daemon.api.snapshots("v")] + [v["name"] for v in daemon.api.volumes()]
            there = f"{'sn'[number % 2]}{number}" in names
            expect(there or not answered, "what was answered as made is not there")
            call()  # the same id again: done once, whichever it was
            daemon.pool_check()


def issue_13379_a_volume_interrupted_while_growing_shows_one_size_everywhere():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        size = VOLUME_BYTES
        for _ in range(10):
            new = size + MIB
            answered = kill_during(daemon, lambda: daemon.api.volume_grow("v", new), RNG.random() * 0.006)  # noqa: B023
            daemon.start()
            told, shown = daemon.api.volume("v")["size_bytes"], export_size(daemon, "v")
            expect(told == shown, f"the API says {told}, NBD shows {shown}")
            expect(told == new or (told == size and not answered), f"grown from {size} to {new}, and is {told}")
            daemon.api.volume_grow("v", new)
            expect(export_size(daemon, "v") == new, "grown, and not shown")
            size = new
            verifier.check("v")
        verifier.load_start("v", RNG.getrandbits(32), 8, 2000)  # also in the new part
        verifier.load_end(may_be_lost=False)
        verifier.check("v")
        daemon.pool_check()


def export_size(daemon, export):
    done = subprocess.run(["nbdinfo", "--size", daemon.uri(export)], capture_output=True, text=True)
    expect(done.returncode == 0, f"nbdinfo --size {export}: {done.stderr}")
    return int(done.stdout)


def issue_11188_a_create_that_comes_before_the_pool_is_open_never_makes_a_second_volume():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        volume_id = daemon.api.volume_create("v", VOLUME_BYTES)["id"]
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("v", RNG.getrandbits(32), 16, 3000)
        verifier.load_end(may_be_lost=False)
        wanted = verifier.check("v")
        for _ in range(5):
            daemon.kill()
            daemon.process = daemon.spawn()
            answers = []
            harness.wait_until(lambda: create_early(daemon, volume_id, answers), "an answer that is not NOTREADY")  # noqa: B023
            expect(set(answers[:-1]) <= {"NOTREADY"}, f"before it was ready it answered {answers}")
            daemon.wait_ready()
            expect(refusal(daemon.api.volume_create, "v", VOLUME_BYTES, new_id(RNG)) == "EXISTS", "two volumes of one name")
            expect([v["id"] for v in daemon.api.volumes()] == [volume_id], "there is another volume")
            expect(verifier.hash("v") == wanted, "the volume has changed")


def create_early(daemon, volume_id, answers):
    """True once the very same create is accepted. Until then only "nobody listens" and NOTREADY are right answers."""
    try:
        daemon.api.volume_create("v", VOLUME_BYTES, volume_id)
        answers.append("accepted")
        return True
    except Gone:
        return False
    except Refused as no:
        answers.append(no.error)
        return no.error != "NOTREADY"


# ---- deleting -------------------------------------------------------------------------------------------------------

def issue_10474_a_delete_that_meets_another_operation_is_refused_or_done_for_good():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        verifier.load_start("v", RNG.getrandbits(32), 8)
        harness.wait_until(lambda: daemon.api.volume("v")["open_count"] > 0, "open volume")
        expect(refusal(daemon.api.volume_delete, "v") == "BUSY", "deleted under a client")
        verifier.load_stop()
        verifier.check("v")
        daemon.api.close_wait("volume", "v")
        volume_id = daemon.api.volume("v")["id"]
        daemon.api.volume_delete(volume_id)
        for _ in range(3):
            daemon.kill()
            daemon.start()
            expect(daemon.api.volumes() == [], "a deleted volume came back")
        daemon.api.volume_delete(volume_id)  # again: it is done
        daemon.api.jobs_wait()
        daemon.pool_check()


def issue_13076_a_delete_waits_for_no_io_because_it_is_refused_while_there_may_be_some():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        snapshot = daemon.api.snapshot_create("v", "s")
        verifier.load_start("v", RNG.getrandbits(32), 32)
        harness.wait_until(lambda: daemon.api.volume("v")["open_count"] > 0, "open volume")
        for _ in range(200):
            expect(refusal(daemon.api.volume_delete, "v") == "BUSY", "deleted under load")
        verifier.load_stop()
        daemon.api.close_wait("volume", "v")
        verifier.check("v")
        daemon.api.snapshot_delete(snapshot["id"])


def issue_10396_a_snapshot_deleted_while_it_is_being_read_waits_or_is_refused():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        snapshot = daemon.api.snapshot_create("v", "s")
        wanted = verifier.hash("v@s")
        import nbd  # python3-libnbd

        reader = nbd.NBD()
        reader.connect_uri(daemon.uri("v@s"))
        expect(refusal(daemon.api.snapshot_delete, snapshot["id"]) == "BUSY", "deleted under a reader")
        expect(verifier.hash("v@s") == wanted, "the snapshot has changed")
        reader.shutdown()
        daemon.api.close_wait("snapshot", snapshot["id"])
        daemon.api.snapshot_delete(snapshot["id"])
        daemon.api.jobs_wait()
        verifier.check("v")
        daemon.pool_check()


def issue_7585_deleting_snapshots_leaves_accounting_that_adds_up():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        for number in range(8):
            daemon.api.snapshot_create("v", f"s{number}")
            verifier.load_start("v", RNG.getrandbits(32), 16, 1500)
            verifier.load_end(may_be_lost=False)
        for number in RNG.sample(range(8), 8):
            daemon.api.close_wait("volume", "v")
            daemon.api.snapshot_delete(f"v@s{number}")
            if number % 3 == 0:
                daemon.kill()
                daemon.start()
            verifier.check("v")
        daemon.api.jobs_wait()
        volume, space = daemon.api.volume("v"), daemon.api.space()
        expect(volume["own_bytes"] == space["data_bytes"],
               f"the only volume owns {volume['own_bytes']} bytes, the pool has {space['data_bytes']} of data")
        parts = sum(space[key] for key in ("data_bytes", "metadata_bytes", "journal_bytes", "free_bytes"))
        expect(parts == space["total_bytes"], f"the parts add up to {parts}, the pool has {space['total_bytes']}")
        daemon.pool_check()


def issue_9953_a_check_that_races_creates_and_deletes_loses_nothing():
    with harness.scratch_dir() as directory, one_pool(directory) as daemon:
        verifier = written_volume(daemon, directory)
        stop, faults = threading.Event(), []

        def check_all_the_time():
            while not stop.is_set():
                try:
                    daemon.api.pool_check()
                except Exception as why:  # told below  # noqa: BLE001
                    faults.append(why)
                    return

        checker = threading.Thread(target=check_all_the_time)
        checker.start()
        try:
            for number in range(60):
                daemon.api.volume_create(f"n{number}", VOLUME_BYTES)
                daemon.api.snapshot_create(f"n{number}", "s")
                if number >= 10:
                    daemon.api.volume_delete(f"n{number - 10}")
        finally:
            stop.set()
            checker.join()
        expect(not faults, f"a check beside creates and deletes: {faults}")
        names = {v["name"] for v in daemon.api.volumes()}
        expect(names == {"v"} | {f"n{n}" for n in range(50, 60)}, f"left are {sorted(names)}")
        verifier.check("v")


# ---- space and disks ------------------------------------------------------------------------------------------------

def issue_10718_a_full_pool_refuses_writes_and_stays_healthy():
    with harness.scratch_dir() as directory, one_pool(directory, 64 * MIB) as daemon:
        daemon.api.volume_create("v", 128 * MIB)
        verifier = harness.Verifier(daemon, directory, 4096, 128 * MIB)
        fill_up(verifier, "v")
        verifier.check("v")
        expect(daemon.api.call("GET", "/v1/ready")["ready"], "a full pool made the daemon not ready")
        daemon.api.volume_create("other", MIB)  # the reserve (S8) carries control operations
        daemon.api.snapshot_create("v", "s")
        daemon.api.close_wait("volume", "v")
        daemon.kill()
        daemon.start()
        verifier.check("v")
        daemon.api.close_wait("volume", "v")
        daemon.api.volume_delete("v")
        daemon.api.jobs_wait()
        expect(daemon.api.space()["data_bytes"] == 0, "the space of the deleted volume did not return")
        daemon.pool_check()


def fill_up(verifier, export):
    """Write until the pool says that it is full."""
    for _ in range(40):
        verifier.load_start(export, RNG.getrandbits(32), 16, 3000)
        if int(verifier.load_end(may_be_lost=False).rpartition("=")[2]):
            return
    raise harness.Broken("the pool never got full")


def issue_10135_the_rest_of_a_newly_written_cluster_is_zero_whoever_had_it_before():
    with harness.scratch_dir() as directory, one_pool(directory, 64 * MIB) as daemon:
        import nbd  # python3-libnbd

        for turn in range(4):  # more than fits at once: clusters are used again
            daemon.api.volume_create("v", 64 * MIB)
            client = nbd.NBD()
            client.connect_uri(daemon.uri("v"))
            for offset in range(0, 24 * MIB, 65536):
                client.pwrite(b"\xa5" * 512, offset + 512 * turn)
            for offset in range(0, 24 * MIB, 65536):
                data = client.pread(65536, offset)
                expect(data.count(0) == 65536 - 512, f"cluster at {offset} shows bytes nobody wrote")
                expect(data[512 * turn:512 * turn + 512] == b"\xa5" * 512, f"cluster at {offset} lost what was written")
            for offset in range(24 * MIB, 40 * MIB, MIB):
                client.pwrite(b"\x5a" * MIB, offset)
            client.shutdown()
            daemon.api.close_wait("volume", "v")
            daemon.api.volume_delete("v")
            daemon.api.jobs_wait()
        daemon.pool_check()


def issue_6125_disks_that_changed_places_are_known_by_what_is_on_them():
    with harness.scratch_dir() as directory:
        paths = [os.path.join(directory, name) for name in ("one", "two")]
        with harness.running_daemon(directory) as daemon:
            for path in paths:
                daemon.oxbow("pool", "create", path, "--name", os.path.basename(path), "--size", "256M")
                pool = os.path.basename(path)
                daemon.api.call("POST", "/v1/volumes", {"name": f"in-{pool}", "size_bytes": MIB, "pool": pool, "id": new_id()})
            daemon.kill()
            os.rename(paths[0], paths[0] + ".moving")
            os.rename(paths[1], paths[0])
            os.rename(paths[0] + ".moving", paths[1])
            daemon.start()
            pools = {p["name"]: p["path"] for p in daemon.api.pools()}
            expect(pools == {"one": paths[1], "two": paths[0]}, f"after the swap: {pools}")
            where = {v["name"]: v["pool"] for v in daemon.api.volumes()}
            expect(where == {"in-one": "one", "in-two": "two"}, f"volumes are in {where}")


def issue_6125_a_disk_that_holds_something_is_never_formatted_unasked():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        path = os.path.join(directory, "disk")
        for make in (["mkfs.ext4", "-q", path], ["mkfs.xfs", "-q", "-f", path], ["mkswap", "-q", path]):
            with open(path, "wb") as disk:
                disk.truncate(512 * MIB)
            subprocess.run(make, check=True, capture_output=True)
            before = head_of(path)
            error = refusal(daemon.api.call, "POST", "/v1/pools", {"path": path, "name": "p", "id": new_id()})
            expect(error == "OCCUPIED", f"{make[0]}: refused with {error}")
            expect(head_of(path) == before, f"{make[0]}: the disk was written to")


def head_of(path):
    with open(path, "rb") as disk:
        return disk.read(4 * MIB)


def issue_13185_a_pool_that_is_gone_delays_nothing_but_itself():
    with harness.scratch_dir() as directory:
        with harness.running_daemon(directory) as daemon:
            for name in ("one", "two"):
                daemon.oxbow("pool", "create", os.path.join(directory, name), "--name", name, "--size", "256M")
            daemon.api.call("POST", "/v1/volumes", {"name": "v", "size_bytes": VOLUME_BYTES, "pool": "two", "id": new_id()})
            verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
            daemon.kill()
            os.rename(os.path.join(directory, "one"), os.path.join(directory, "elsewhere.moved"))
            began = time.monotonic()
            daemon.process = daemon.spawn()
            harness.wait_until(lambda: not_ready_reasons(daemon) == ["one"], "all but pool one", limit_s=10)
            verifier.load_start("v", RNG.getrandbits(32), 8, 1000)
            verifier.load_end(may_be_lost=False)
            verifier.check("v")
            print(f"   pool two served {time.monotonic() - began:.2f} s after the start, with pool one gone")
            os.rename(os.path.join(directory, "elsewhere.moved"), os.path.join(directory, "one"))
            daemon.api.call("POST", "/v1/pools/import", {"path": os.path.join(directory, "one")})
            daemon.wait_ready()


def not_ready_reasons(daemon):
    """The pools that are the reason why it is not ready ("" for the node's own); [] if it is; None if it does not answer."""
    try:
        daemon.api.call("GET", "/v1/ready")
        return []
    except Gone:
        return None
    except Refused as no:
        expect(no.status == 503, f"readiness: {no}")
        return [reason.get("pool", "") for reason in no.body["reasons"]]


def issue_spdk_3864_an_unclean_stop_of_a_large_pool_costs_what_the_journal_costs():
    with harness.scratch_dir() as directory, one_pool(directory, 1024 * GIB) as daemon:
        daemon.api.volume_create("v", 256 * MIB)
        verifier = harness.Verifier(daemon, directory, 4096, 256 * MIB)
        verifier.load_start("v", RNG.getrandbits(32), 32)
        harness.wait_until(lambda: daemon.api.space()["data_bytes"] > 64 * MIB, "64 MiB of data")
        daemon.kill()
        verifier.load_end(may_be_lost=True)
        seconds = daemon.start()
        verifier.check("v")
        print(f"   1 TiB pool ready {seconds * 1000:.0f} ms after the start")
        expect(seconds < 10, f"a 1 TiB pool took {seconds:.1f} s")


# ---- damage ---------------------------------------------------------------------------------------------------------

PAGE_BYTES = 4096
KINDS = {1: "MAP", 2: "BITMAP", 3: "CATALOG", 4: "USAGE"}  # docs/format.md
HEADER = struct.Struct("<IBB2xQQQQ16sQ")


class Page(NamedTuple):
    kind: str
    level: int
    owner: int
    index: int
    address: int
    generation: int
    payload: bytes


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def newest_pages(path, pool_id):
    """Each metadata page of the pool file, in the newest form that is there."""
    newest = {}
    with open(path, "rb") as file:
        for address in range(os.path.getsize(path) // PAGE_BYTES):
            page = file.read(PAGE_BYTES)
            crc, kind, level, owner, index, own_address, generation, pool, _ = HEADER.unpack_from(page)
            if pool != pool_id.bytes or own_address != address or kind not in KINDS or crc != crc32c(bytes(4) + page[4:]):
                continue
            found = Page(KINDS[kind], level, owner, index, address, generation, page[HEADER.size:])
            key = found[:4]
            if key not in newest or newest[key].generation < generation:
                newest[key] = found
    return list(newest.values())


def read_volume(daemon, name, size_bytes):
    """Its bytes, or None if they cannot be had."""
    import nbd  # python3-libnbd

    client = nbd.NBD()
    try:
        client.connect_uri(daemon.uri(name))
        data = bytes(client.pread(size_bytes, 0))
        client.shutdown()
        return data
    except nbd.Error:
        return None


def many_small_volumes(daemon, count, size_bytes):
    """name -> content. All of it is in the last two checkpoints, so that there is nothing to fall back to."""
    import nbd  # python3-libnbd

    contents = {}
    for number in range(count):
        name = f"volume-{number:02}"
        contents[name] = RNG.randbytes(size_bytes)
        daemon.api.volume_create(name, MIB)
        client = nbd.NBD()
        client.connect_uri(daemon.uri(name))
        client.pwrite(contents[name], 0)
        client.shutdown()
        daemon.api.close_wait("volume", name)
    for _ in range(3):
        daemon.pool_check()  # begins with a checkpoint
    return contents


def start_damaged(daemon, contents, page):
    """Starts the daemon on the damaged pool. Returns the volumes whose bytes cannot be had; others have the right ones."""
    daemon.start()  # and is ready
    lost = set()
    for name, content in contents.items():
        data = read_volume(daemon, name, len(content))
        expect(data in (None, content), f"{page.kind} page {page.address} broken: {name} shows other bytes")
        lost |= {name} if data is None else set()
    told = [e for e in daemon.api.call("GET", "/v1/events")["events"] if e["event"] == "pool.page_corrupt"]
    expect(any(e["page"] == page.address for e in told), f"{page.kind} page {page.address} broken, and not named: {told}")
    return lost


def issue_13944_a_broken_metadata_page_is_named_and_costs_what_hangs_under_it_and_nothing_else():
    with harness.scratch_dir() as directory, one_pool(directory, 64 * MIB) as daemon:
        contents = many_small_volumes(daemon, 20, 16384)
        pool_id = uuid.UUID(daemon.api.pools()[0]["id"])
        ids = {v["name"]: v["id"] for v in daemon.api.volumes()}
        check_told(daemon, None, set(), ids)
        daemon.kill()
        path, whole = os.path.join(directory, "pool"), os.path.join(directory, "whole")
        subprocess.run(["cp", "--sparse=always", path, whole], check=True)
        pages = newest_pages(path, pool_id)
        broken = {kind: RNG.choice([p for p in pages if p.kind == kind and p.level == 0]) for kind in KINDS.values()}
        expect(sum(p.kind == "CATALOG" and p.level == 0 for p in pages) >= 3, "too few pages to tell what hangs under one")
        for kind, page in broken.items():
            with open(path, "r+b") as file:
                file.seek(page.address * PAGE_BYTES + HEADER.size + 100)
                file.write(bytes(byte ^ 0x40 for byte in page.payload[100:101]))
            lost = start_damaged(daemon, contents, page)
            check_told(daemon, kind, lost, ids)
            listed = {name for name in contents if name.encode() in page.payload}
            print(f"   {kind} page {page.address} costs {sorted(lost) or 'nothing'}")
            check_cost(daemon, kind, lost, listed)
            daemon.kill()
            subprocess.run(["cp", "--sparse=always", whole, path], check=True)
        daemon.start()
        expect(all(read_volume(daemon, name, len(content)) == content for name, content in contents.items()), "made whole again")


def check_told(daemon, kind, lost, ids):
    """A person who looks, a controller that matches and a graph all see it; and nothing else is called damaged."""
    is_damaged = kind == "CATALOG"  # what is lost of a map is known to the reads that need it
    pool, volumes = daemon.api.pools()[0], daemon.api.volumes()
    shown = {v["name"] for v in volumes if v["is_damaged"]}
    damage = pool["damage"]
    expect([c["reason"] for c in pool["conditions"]] == ["MetadataDamaged"] * is_damaged, f"{kind}: {pool['conditions']}")
    expect(damage["is_list_damaged"] == is_damaged, f"{kind}: {damage}")
    expect((damage["metadata_pages_lost"] > 0) == is_damaged, f"{kind}: {damage}")
    expect(damage["damaged_volume_count"] == len(shown), f"{damage}, and these say so themselves: {shown}")
    expect(is_damaged or not shown, f"{kind}: {shown} are called damaged")
    metrics = daemon.api.call("GET", "/metrics")["text"]
    for name, value in (("list_damaged", int(is_damaged)), ("damaged_volumes", len(shown)),
                        ("metadata_pages_lost", damage["metadata_pages_lost"])):
        expect(f'oxbow_pool_{name}{{pool="default"}} {value}\n' in metrics, f"{kind}: no oxbow_pool_{name} of {value}")
    if is_damaged:
        check_told_what_to_do(daemon, lost - {v["name"] for v in volumes}, ids)


def check_told_what_to_do(daemon, unknown, ids):
    show = subprocess.run([harness.OXBOW, "-s", daemon.socket, "pool", "show", "default"], capture_output=True, text=True, check=True)
    expect("MetadataDamaged" in show.stdout and "oxbow pool check default" in show.stdout, show.stdout)
    expect("MetadataDamaged" in daemon.oxbow("pool", "list")["pools"][0]["conditions"][0]["reason"], "pool list")
    for ref in [ref for name in sorted(unknown)[:1] for ref in (name, ids[name])]:
        for method in ("GET", "DELETE"):
            answer = refusal(daemon.api.call, method, f"/v1/volumes/{ref}")
            expect(answer == "CORRUPT", f"{method} of a volume that is lost, not gone: {answer}")
    expect(refusal(daemon.api.call, "DELETE", f"/v1/volumes/{new_id()}") == "CORRUPT", "what may be lost was deleted already")


def check_cost(daemon, kind, lost, listed):
    problems = daemon.api.call("POST", f"/v1/pools/{daemon.api.pools()[0]['id']}/check")["problems"]
    expect(("page" in {p["kind"] for p in problems}) == bool(lost), f"pool check of a pool without a {kind} page: {problems}")
    if kind == "MAP":
        expect(len(lost) == 1, f"the map of one volume costs {lost}")
    elif kind == "CATALOG":
        # An object on this page, and at most one at either end whose head is on the next page.
        expect(listed <= lost and len(lost) <= len(listed) + 2, f"a page that lists {listed} costs {lost}")
        shown = {v["name"] for v in daemon.api.volumes()}
        expect(not shown & listed, f"shown, and lost: {shown & listed}")
        expect(refusal(daemon.api.volume_create, "volume-99", MIB) == "CORRUPT", "names may be taken, and a new one was given")
    else:
        expect(not lost, f"a page of {kind} is made good, and costs {lost}")
        daemon.api.volume_create("another", MIB)


TESTS = tuple(value for name, value in globals().items() if name.startswith("issue_"))

if __name__ == "__main__":
    print(f"seed {SEED} (OXBOW_SEED={SEED} makes the same choices)")
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
