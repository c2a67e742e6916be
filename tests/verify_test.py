#!/usr/bin/python3
"""The test of the verifying client: on a healthy server it is content, and each planted fault is named.

The server is qemu-nbd on a raw file, so that faults can be written into the file behind its back.
"""
import os
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
import harness  # noqa: E402
from harness import MIB  # noqa: E402

harness.SCRATCH = "/dev/shm"  # qemu-nbd is not what is measured
SIZE = 16 * MIB
UNIT = 4096


class Server:
    """What harness.Verifier needs of a daemon: an NBD socket, serving the export v from a raw file."""

    def __init__(self, directory):
        self.nbd, self.file = os.path.join(directory, "nbd.sock"), os.path.join(directory, "volume")
        with open(self.file, "wb") as volume:
            volume.truncate(SIZE)
        command = ["qemu-nbd", "-f", "raw", "--discard=unmap", "--persistent", "--shared=4", "-x", "v", "-k", self.nbd, self.file]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.wait_until(lambda: os.path.exists(self.nbd), "qemu-nbd")

    def read(self, unit):
        with open(self.file, "rb") as volume:
            volume.seek(unit * UNIT)
            return volume.read(UNIT)

    def write(self, unit, data):
        with open(self.file, "r+b") as volume:
            volume.seek(unit * UNIT)
            volume.write(data)


class VerifyTest(unittest.TestCase):
    def setUp(self):
        scratch = harness.scratch_dir()
        self.directory = scratch.__enter__()
        self.addCleanup(scratch.__exit__, None, None, None)
        self.server = Server(self.directory)
        self.addCleanup(self.server.process.wait)
        self.addCleanup(self.server.process.kill)
        self.verifier = harness.Verifier(self.server, self.directory, UNIT, SIZE)

    def load(self, commands=3000, seed=1):
        self.verifier.load_start("v", seed, 16, commands)
        self.verifier.load_end(may_be_lost=False)

    def stamped_unit(self):
        """One that holds data and that the load is known to have written."""
        return next(u for u in range(SIZE // UNIT) if any(self.server.read(u)))

    def assert_broken(self, words, verb=None):
        with self.assertRaises(harness.Broken) as caught:
            (verb or (lambda: self.verifier.check("v")))()
        self.assertIn(words, str(caught.exception))

    def test_a_healthy_volume_is_healthy_and_settles(self):
        self.load()
        first = self.verifier.check("v")
        self.assertEqual(first, self.verifier.check("v"))
        self.assertEqual(first, self.verifier.hash("v"))

    def test_a_lost_write_is_named(self):
        self.load(300)
        unit = self.stamped_unit()
        old = self.server.read(unit)
        self.load(3000, seed=2)
        self.assertNotEqual(old, self.server.read(unit))
        self.server.write(unit, old)
        self.assert_broken(f"unit {unit} ")

    def test_a_unit_that_became_zeroes_is_named(self):
        self.load()
        unit = self.stamped_unit()
        self.server.write(unit, bytes(UNIT))
        self.assert_broken(f"unit {unit} (offset {unit * UNIT}) reads as zeroes")

    def test_one_flipped_bit_is_named(self):
        self.load()
        unit = self.stamped_unit()
        data = bytearray(self.server.read(unit))
        data[1234] ^= 4
        self.server.write(unit, bytes(data))
        self.assert_broken("garbage that begins like")

    def test_a_unit_torn_at_a_sector_is_named(self):
        self.load(300)
        unit = self.stamped_unit()
        old = self.server.read(unit)
        self.load(3000, seed=2)
        self.server.write(unit, self.server.read(unit)[:512] + old[512:])
        self.assert_broken("garbage that begins like")

    def test_another_units_data_is_named(self):
        self.load()
        unit = self.stamped_unit()
        other = next(u for u in range(unit + 1, SIZE // UNIT) if any(self.server.read(u)))
        self.server.write(unit, self.server.read(other))
        self.assert_broken(f"reads as unit {other} ")

    def test_zeroes_that_should_be_there_and_are_not_are_named(self):
        self.load()
        unit = next(u for u in range(SIZE // UNIT) if not any(self.server.read(u)))
        self.server.write(unit, self.server.read(self.stamped_unit()))
        self.assert_broken(f"unit {unit} ")

    def test_a_snapshot_older_or_newer_than_its_ledgers_is_named(self):
        self.load()
        before = self.verifier.copy("before")
        self.load(2000, seed=3)
        after = self.verifier.copy("after")
        self.verifier.on("within", "v", before, after)
        self.load(2000, seed=4)
        self.assert_broken("reads as", lambda: self.verifier.on("within", "v", before, after))

    def test_a_load_notices_by_itself_what_it_reads(self):
        self.load()
        for unit in range(SIZE // UNIT // 20):
            self.server.write(unit, os.urandom(UNIT))
        self.verifier.load_start("v", 5, 16, 3000)
        with self.assertRaises(harness.Broken):
            self.verifier.load_end(may_be_lost=False)


if __name__ == "__main__":
    unittest.main()
