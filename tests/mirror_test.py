#!/usr/bin/python3
"""Mirrored volumes by one daemon over three pools: served under load, killed, short of a pool, filled again, and the same on each copy.

    tests/mirror_test.py [NAME ...]
"""
import os
import random
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import GIB, MIB, Refused, expect  # noqa: E402

VOLUME_BYTES = 32 * MIB
POOLS = ("a", "b", "c")
COPY_PRINT = os.path.join(os.path.dirname(harness.VERIFY), "copy_print")
KILLS = 20
FILL_LIMIT_S = 60


def pool_path(daemon, name):
    return os.path.join(daemon.directory, name)


def pools_make(daemon, size_bytes=GIB, names=POOLS):
    for name in names:
        daemon.api.call("POST", "/v1/pools", {"name": name, "path": pool_path(daemon, name), "size_bytes": size_bytes})


def volume_make(daemon, name="db", copies="a,b,c", size_bytes=VOLUME_BYTES):
    return daemon.api.call("POST", "/v1/volumes", {"name": name, "size_bytes": size_bytes, "copies": copies})


def mirror_of(daemon, name="db"):
    return daemon.api.volume(name)["mirror"]


def copy_of(daemon, pool, name="db"):
    return next(c for c in mirror_of(daemon, name)["copies"] if c["pool"] == pool)


def is_whole(daemon, name="db"):
    copies = mirror_of(daemon, name)["copies"]
    return all(c["role"] == "member" and c["session"] == "open" for c in copies)


def wait_whole(daemon, name="db"):
    try:
        harness.wait_until(lambda: is_whole(daemon, name), "every copy a member", FILL_LIMIT_S, every_s=0.05)
    except harness.Broken as late:
        raise harness.Broken(f"{late}: {mirror_of(daemon, name)}") from None


def run_copy_print(path, volume_id):
    done = subprocess.run([COPY_PRINT, path, volume_id], capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, f"copy_print of {path}: {done.stderr}")
    return done.stdout


def copy_print(daemon, pool, volume_id):
    return run_copy_print(pool_path(daemon, pool), volume_id)


def copies_are_the_same(daemon, volume_id, pools=POOLS):
    """With the daemon gone: each pool is sound, and says the same of head and snapshots."""
    said = {}
    for pool in pools:
        check = subprocess.run([harness.OXBOWD, "--check", pool_path(daemon, pool)], capture_output=True, text=True, timeout=120)
        expect(check.returncode == 0, f"the check of pool {pool}: {check.stdout}{check.stderr}")
        said[pool] = copy_print(daemon, pool, volume_id)
    expect(len(set(said.values())) == 1, f"the copies differ: {said}")
    return said[pools[0]]


def no_copy_is_left(daemon, volume_id, pools=POOLS):
    for pool in pools:
        expect(copy_print(daemon, pool, volume_id) == "absent\n", f"pool {pool} still has a copy")


# ---- the tests -------------------------------------------------------------------------------------------------------


def a_mirrored_volume_is_served_by_its_name_and_shown_with_its_copies():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = harness.new_id()
        spec = {"name": "db", "size_bytes": VOLUME_BYTES, "copies": "a,b", "id": volume_id}
        made = daemon.api.call("POST", "/v1/volumes", spec)
        again = daemon.api.call("POST", "/v1/volumes", spec)
        expect(made["id"] == again["id"] == volume_id, f"made {made['id']}, and again {again['id']}")
        expect([c["pool"] for c in made["mirror"]["copies"]] == ["a", "b"], f"copies: {made['mirror']}")
        expect(made["mirror"]["serves"] and not made["mirror"]["conditions"], f"just made: {made['mirror']}")
        expect([v["name"] for v in daemon.api.volumes()] == ["db"], f"the list: {daemon.api.volumes()}")
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=16, commands=5000)
        verifier.load_end(may_be_lost=False)
        verifier.check("db")
        for refused, body in (("EXISTS", dict(spec, id=harness.new_id())), ("INVAL", dict(spec, id=harness.new_id(), name="x", copies="a,a")),
                              ("NOENT", dict(spec, id=harness.new_id(), name="x", copies="a,nowhere"))):
            try:
                daemon.api.call("POST", "/v1/volumes", body)
            except Refused as no:
                expect(no.error == refused, f"{body}: {no}")
            else:
                raise harness.Broken(f"{body} was not refused")
        daemon.kill()
        copies_are_the_same(daemon, volume_id, ("a", "b"))


def a_mirrored_volume_in_use_and_its_snapshot_say_how_many_have_them_open():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_make(daemon)
        daemon.api.snapshot_create("db", "s1")
        expect(daemon.api.volume("db")["open_count"] == 0, f"nobody has it open: {daemon.api.volume('db')}")
        for ref, opens in (("db", lambda: daemon.api.volume("db")), ("db@s1", lambda: daemon.api.snapshot("db@s1"))):
            with subprocess.Popen(["qemu-io", "-r", "-f", "raw", daemon.uri(ref)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
                harness.wait_until(lambda of=opens: of()["open_count"] == 1, f"one that has {ref} open")
                reader.stdin.close()
            daemon.api.close_wait("volume" if ref == "db" else "snapshot", ref)


def deleted_it_leaves_no_copy_behind_and_a_pool_that_was_away_is_cleaned_when_it_returns():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon)["id"]
        daemon.kill()
        os.rename(pool_path(daemon, "c"), pool_path(daemon, "c.away"))
        daemon.process = daemon.spawn()
        harness.wait_until(lambda: serves(daemon), "service without pool c", 30)
        daemon.api.volume_delete("db")
        expect(daemon.api.volumes() == [], f"after the deletion: {daemon.api.volumes()}")
        volume_make(daemon, copies="a,b")  # the name is free at once
        os.rename(pool_path(daemon, "c.away"), pool_path(daemon, "c"))
        daemon.api.call("POST", "/v1/pools/import", {"path": pool_path(daemon, "c")})
        harness.wait_until(lambda: reaped(daemon) == 3, "removal of the three copies", 30, every_s=0.05)
        daemon.kill()
        no_copy_is_left(daemon, volume_id)


def reaped(daemon):
    events = daemon.api.call("GET", "/v1/events?limit=10000")["events"]
    return sum(e["event"] == "copy.reaped" for e in events)


def serves(daemon, name="db"):
    try:
        return mirror_of(daemon, name)["serves"]
    except (harness.Gone, Refused):
        return False


def killed_under_verified_load_it_loses_nothing_and_every_copy_is_the_same():
    rng = random.Random(20)
    times = []
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon)["id"]
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        for turn in range(KILLS):
            verifier.load_start("db", seed=turn, depth=16)
            time.sleep(rng.uniform(0.02, 0.4))  # the moment is the test
            if turn % 5 == 2:
                daemon.api.snapshot_create("db", f"s{turn}")
            daemon.kill()
            verifier.load_end(may_be_lost=True)
            times.append(daemon.start())
            verifier.check("db")
        wait_whole(daemon)
        expect(mirror_of(daemon)["epoch"] <= 2 * KILLS + 2, f"the view changed too often: {mirror_of(daemon)}")
        daemon.kill()
        copies_are_the_same(daemon, volume_id)
    times.sort()
    print(f"   {KILLS} kills; until ready: median {times[len(times) // 2] * 1000:.0f} ms, worst {times[-1] * 1000:.0f} ms")


def a_pool_that_goes_and_returns_is_filled_with_what_it_missed_alone():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon)["id"]
        verifier = harness.Verifier(daemon, directory, 65536, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=16, commands=2000)
        verifier.load_end(may_be_lost=False)
        daemon.kill()
        os.rename(pool_path(daemon, "b"), pool_path(daemon, "b.away"))
        daemon.process = daemon.spawn()
        harness.wait_until(lambda: serves(daemon), "service without pool b", 30)
        mirror = mirror_of(daemon)
        expect(copy_of(daemon, "b")["role"] == "absent", f"without pool b: {mirror}")
        expect("pool b" in mirror["conditions"][0]["message"], f"without pool b: {mirror['conditions']}")
        verifier.check("db")
        verifier.load_start("db", seed=2, depth=4, commands=20)  # what pool b misses
        verifier.load_end(may_be_lost=False)
        os.rename(pool_path(daemon, "b.away"), pool_path(daemon, "b"))
        daemon.api.call("POST", "/v1/pools/import", {"path": pool_path(daemon, "b")})
        wait_whole(daemon)
        moved = copy_of(daemon, "b")["filled_bytes"]
        print(f"   {moved} bytes moved")
        expect(moved <= 8 * MIB, f"{moved} bytes moved for 20 commands that were missed")
        verifier.check("db")
        daemon.kill()
        copies_are_the_same(daemon, volume_id)


def qemu_io(daemon, *commands, export="db"):
    arguments = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(["qemu-io", "-f", "raw", *arguments, daemon.uri(export)], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0 and "failed" not in done.stdout, f"qemu-io {commands}: {done.stdout}{done.stderr}")


def with_every_pool_away_it_waits_and_says_for_whom():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_make(daemon, copies="a,b")
        daemon.kill()
        for pool in ("a", "b"):
            os.rename(pool_path(daemon, pool), pool_path(daemon, pool + ".away"))
        daemon.process = daemon.spawn()
        harness.wait_until(lambda: waits_for(daemon, "pool a"), "condition that names pool a", 30)
        expect("pool b" in mirror_of(daemon)["conditions"][0]["message"], f"conditions: {mirror_of(daemon)['conditions']}")
        try:
            daemon.api.snapshot_create("db", "s1")
        except Refused as no:
            expect(no.error == "NOTREADY" and "pool a" in str(no), f"a snapshot of what does not serve: {no}")
        else:
            raise harness.Broken("a snapshot of what does not serve")
        for pool in ("a", "b"):
            os.rename(pool_path(daemon, pool + ".away"), pool_path(daemon, pool))
            daemon.api.call("POST", "/v1/pools/import", {"path": pool_path(daemon, pool)})
        harness.wait_until(lambda: serves(daemon), "service", 30)
        wait_whole(daemon)


def without_pools(daemon, *pools):
    daemon.kill()
    for pool in pools:
        os.rename(pool_path(daemon, pool), pool_path(daemon, pool + ".away"))
    daemon.process = daemon.spawn()


def pool_returns(daemon, pool):
    os.rename(pool_path(daemon, pool + ".away"), pool_path(daemon, pool))
    daemon.api.call("POST", "/v1/pools/import", {"path": pool_path(daemon, pool)})


def salvage(daemon, *arguments):
    return daemon.oxbow("volume", "salvage", "db", *arguments, check=False)


def salvaged_by_name_it_serves_what_that_copy_has_and_who_returns_is_made_equal():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon, copies="a,b")["id"]
        qemu_io(daemon, "write -P 1 0 1M", "write -P 1 8M 1M", "flush")
        without_pools(daemon, "b")
        harness.wait_until(lambda: serves(daemon), "service without pool b", 30)
        qemu_io(daemon, "write -P 2 0 1M", "flush")
        without_pools(daemon, "a")
        harness.wait_until(lambda: waits_for(daemon, "pool a"), "condition that names pool a", 30)
        expect("volume salvage" in mirror_of(daemon)["conditions"][0]["hint"], f"conditions: {mirror_of(daemon)['conditions']}")
        pool_returns(daemon, "b")
        harness.wait_until(lambda: copy_of(daemon, "b")["session"] == "open", "an answer of the copy in b", 30)
        expect(not serves(daemon), "an absent copy is not gone on with by itself")
        told = salvage(daemon, "--pool", "b")
        expect(told.returncode == 1 and "would be lost" in told.stderr and "--accept-loss" in told.stderr, f"without --accept-loss: {told}")
        expect(not serves(daemon) and copy_of(daemon, "b")["role"] == "absent", "something was done without --accept-loss")
        expect(salvage(daemon, "--pool", "a", "--accept-loss").returncode == 1, "a copy that does not answer")
        expect(salvage(daemon, "--pool", "c", "--accept-loss").returncode == 1, "a pool that has no copy")
        for _ in range(2):
            done = salvage(daemon, "--pool", "b", "--accept-loss")
            expect(done.returncode == 0, f"salvage: {done}")
        qemu_io(daemon, "read -P 1 0 1M", "write -P 3 16M 1M", "flush")
        pool_returns(daemon, "a")
        wait_whole(daemon)
        expect(salvage(daemon, "--pool", "a", "--accept-loss").returncode == 1, "salvage of what lacks nothing")
        qemu_io(daemon, "read -P 1 0 1M", "read -P 1 8M 1M", "read -P 3 16M 1M")
        daemon.kill()
        copies_are_the_same(daemon, volume_id, ("a", "b"))


def conditions_of(daemon):
    return {pool["name"]: [c["reason"] for c in pool["conditions"]] for pool in daemon.api.pools()}


def copies_that_a_lost_metastore_does_not_name_are_told_of_and_kept():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon, copies="a,b")["id"]
        expect(not any(conditions_of(daemon).values()), f"nothing is unknown: {conditions_of(daemon)}")
        daemon.kill()
        kept = {name: os.path.join(daemon.data_dir, name) for name in os.listdir(daemon.data_dir) if name.startswith("metastore.db")}
        expect(kept, "no metastore")
        for path in kept.values():
            os.rename(path, path + ".kept")
        daemon.start()
        reasons = conditions_of(daemon)
        expect([reasons[name] for name in POOLS] == [["CopiesUnknown"], ["CopiesUnknown"], []], f"conditions: {reasons}")
        told = next(pool for pool in daemon.api.pools() if pool["name"] == "a")["conditions"][0]
        expect(volume_id in told["message"], f"which volume: {told}")
        daemon.kill()
        for name in os.listdir(daemon.data_dir):
            if name.startswith("metastore.db") and not name.endswith(".kept"):
                os.unlink(os.path.join(daemon.data_dir, name))
        for path in kept.values():
            os.rename(path + ".kept", path)
        daemon.start()
        wait_whole(daemon)
        expect(not any(conditions_of(daemon).values()), f"all is named again: {conditions_of(daemon)}")


def waits_for(daemon, words):
    try:
        conditions = mirror_of(daemon)["conditions"]
    except (harness.Gone, Refused):
        return False
    return bool(conditions) and words in conditions[0]["message"]


def snapshots_growth_and_names_are_the_same_on_every_copy():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon)["id"]
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        for turn in range(3):
            verifier.load_start("db", seed=turn, depth=8, commands=1000)
            verifier.load_end(may_be_lost=False)
            daemon.api.snapshot_create("db", f"s{turn}")
        expect([s["name"] for s in daemon.api.snapshots("db")] == ["s0", "s1", "s2"], f"{daemon.api.snapshots('db')}")
        daemon.api.call("PATCH", "/v1/snapshots/db@s1", {"name": "middle"})
        daemon.api.snapshot_delete("db@s0")
        daemon.api.volume_grow("db", 2 * VOLUME_BYTES)
        daemon.api.volume_rename("db", "data")
        expect(daemon.api.volume("data")["size_bytes"] == 2 * VOLUME_BYTES, "it did not grow")
        verifier.check("data")
        before = verifier.hash("data@s2")
        daemon.kill()
        daemon.start()
        expect([s["name"] for s in daemon.api.snapshots("data")] == ["middle", "s2"], f"{daemon.api.snapshots('data')}")
        expect(verifier.hash("data@s2") == before, "a snapshot changed over a restart")
        verifier.check("data")
        daemon.api.volume_revert("data", "s2")
        expect(daemon.api.volume("data")["size_bytes"] == VOLUME_BYTES, "a revert takes the size of then")
        expect(verifier.hash("data") == before, "reverted, the volume is not its snapshot")
        wait_whole(daemon, "data")
        daemon.kill()
        said = copies_are_the_same(daemon, volume_id)
        expect([line.split()[0] for line in said.splitlines()] == ["(head)", "middle", "s2"], f"on disk: {said}")


def a_copy_is_added_under_load_and_another_given_up():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        volume_id = volume_make(daemon, copies="a,b")["id"]
        verifier = harness.Verifier(daemon, directory, 4096, VOLUME_BYTES)
        verifier.load_start("db", seed=1, depth=8, commands=20000)
        daemon.oxbow("copy", "add", "db", "c")
        wait_whole(daemon)
        daemon.oxbow("copy", "forget", "db", "a", "--yes")
        verifier.load_end(may_be_lost=False, limit_s=60)
        expect(sorted(c["pool"] for c in mirror_of(daemon)["copies"]) == ["b", "c"], f"{mirror_of(daemon)}")
        harness.wait_until(lambda: reaped(daemon) == 1, "removal of the copy in pool a", 30)
        try:
            daemon.api.call("POST", "/v1/pools/b/export")
        except Refused as no:
            expect(no.error == "BUSY" and "db" in str(no), f"exporting a pool with a copy: {no}")
        else:
            raise harness.Broken("a pool with a copy was exported")
        daemon.api.call("POST", "/v1/pools/a/export")
        verifier.check("db")
        daemon.kill()
        no_copy_is_left(daemon, volume_id, ["a"])
        copies_are_the_same(daemon, volume_id, ("b", "c"))


def a_creation_that_was_killed_is_finished_or_never_was():
    rng = random.Random(3)
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon)
        for turn in range(8):
            spec = {"name": f"v{turn}", "size_bytes": VOLUME_BYTES, "copies": "a,b,c", "id": harness.new_id()}
            client = subprocess.Popen([harness.OXBOW, "-s", daemon.socket, "volume", "create", spec["name"], "--size", "32M",
                                       "--copies", "a,b,c", "--id", spec["id"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, 0.03))  # the moment is the test
            daemon.kill()
            daemon.start()
            client.wait()  # it asks again, and may be the one that made it
            made = daemon.api.call("POST", "/v1/volumes", spec)
            expect(made["mirror"]["serves"], f"{made}")
        expect(len(daemon.api.volumes()) == 8, f"{[v['name'] for v in daemon.api.volumes()]}")


def a_full_pool_is_an_error_to_the_client_and_no_copy_is_lost():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon, size_bytes=GIB, names=("a",))
        pools_make(daemon, size_bytes=64 * MIB, names=("b",))
        volume_id = volume_make(daemon, copies="a,b", size_bytes=256 * MIB)["id"]
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 0 128M", daemon.uri("db")], capture_output=True, text=True, timeout=60)
        expect("No space" in done.stdout + done.stderr, f"writing more than fits: {done.stdout}{done.stderr}")
        expect(is_whole(daemon), f"a full pool cost a copy: {mirror_of(daemon)}")
        qemu_io(daemon, "discard 0 256M", "write -P 9 0 1M", "read -P 9 0 1M")
        expect(is_whole(daemon), f"a full pool cost a copy: {mirror_of(daemon)}")
        daemon.kill()
        expect(copy_print(daemon, "a", volume_id) == copy_print(daemon, "b", volume_id), "the copies differ")


def rot_one_block(path, byte):
    """The first block in which there is nothing but `byte`."""
    with open(path, "r+b") as pool:
        size_bytes = os.path.getsize(path)
        block = next(at for at in range(0, size_bytes, 4096) if os.pread(pool.fileno(), 4096, at) == bytes([byte]) * 4096)
        os.pwrite(pool.fileno(), b"rot!" * 1024, block)


def what_rots_in_one_copy_is_found_by_comparing_and_repaired_from_the_others():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        pools_make(daemon, size_bytes=64 * MIB)
        volume_id = volume_make(daemon)["id"]
        qemu_io(daemon, "write -P 0xab 0 1M", "flush")
        harness.wait_until(lambda: mirror_of(daemon)["intents"] == 0, "regions at rest", 30, every_s=0.05)  # or the start compares them
        daemon.kill()
        rot_one_block(pool_path(daemon, "b"), 0xab)
        daemon.start()
        wait_whole(daemon)
        daemon.oxbow("volume", "scrub", "db")
        harness.wait_until(lambda: mirror_of(daemon)["scrub"]["runs_done"] == 1, "the end of the scrub", 60, every_s=0.05)
        scrub = mirror_of(daemon)["scrub"]
        expect(scrub["repaired_bytes"] >= 4096, f"one block rotted: {scrub}")
        wait_whole(daemon)
        qemu_io(daemon, "read -P 0xab 0 1M")
        daemon.kill()
        copies_are_the_same(daemon, volume_id)


TESTS = [
    a_mirrored_volume_is_served_by_its_name_and_shown_with_its_copies,
    a_mirrored_volume_in_use_and_its_snapshot_say_how_many_have_them_open,
    deleted_it_leaves_no_copy_behind_and_a_pool_that_was_away_is_cleaned_when_it_returns,
    killed_under_verified_load_it_loses_nothing_and_every_copy_is_the_same,
    a_pool_that_goes_and_returns_is_filled_with_what_it_missed_alone,
    with_every_pool_away_it_waits_and_says_for_whom,
    salvaged_by_name_it_serves_what_that_copy_has_and_who_returns_is_made_equal,
    copies_that_a_lost_metastore_does_not_name_are_told_of_and_kept,
    snapshots_growth_and_names_are_the_same_on_every_copy,
    a_copy_is_added_under_load_and_another_given_up,
    a_creation_that_was_killed_is_finished_or_never_was,
    a_full_pool_is_an_error_to_the_client_and_no_copy_is_lost,
    what_rots_in_one_copy_is_found_by_comparing_and_repaired_from_the_others,
]

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
