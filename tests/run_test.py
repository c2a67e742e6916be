#!/usr/bin/python3
"""The test of the test runner: a failure must fail, a skip must say why, a hang must end."""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
LOADER = importlib.machinery.SourceFileLoader("runner", os.path.join(HERE, "run"))
runner = importlib.util.module_from_spec(importlib.util.spec_from_loader("runner", LOADER))
LOADER.exec_module(runner)


class RunnerTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        old, runner.LOGS = runner.LOGS, scratch.name
        self.addCleanup(setattr, runner, "LOGS", old)

    def run_parts(self, *parts):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = runner.main([], parts)
        return status, output.getvalue()

    @staticmethod
    def part(name, command, **more):
        return runner.Part(name, command, "about", **more)

    def test_all_passing_is_success_and_counted_in_the_last_line(self):
        status, output = self.run_parts(self.part("a", "true"), self.part("b", "true"))
        self.assertEqual(status, 0)
        self.assertEqual(output.splitlines()[-1], "2 passed, 0 failed, 0 skipped")

    def test_one_failure_fails_the_run_and_shows_the_replay_command(self):
        status, output = self.run_parts(self.part("a", "true"), self.part("b", "echo broken; exit 3"))
        self.assertEqual(status, 1)
        self.assertIn("status 3", output)
        self.assertIn("| broken", output)
        self.assertIn("run it again:     echo broken; exit 3", output)
        self.assertEqual(output.splitlines()[-1], "1 passed, 1 failed, 0 skipped")

    def test_a_hang_is_a_failure_that_names_the_limit(self):
        result = runner.run_part(self.part("hang", "sleep 1000 & sleep 1000", limit_s=1))
        self.assertEqual((result.outcome, result.reason), ("failed", "no end after 1 s"))

    def test_status_77_is_a_skip_with_the_last_line_as_its_reason(self):
        result = runner.run_part(self.part("skip", "echo noise; echo no FUSE here; exit 77"))
        self.assertEqual((result.outcome, result.reason), ("skipped", "no FUSE here"))

    def test_skips_inside_a_part_are_repeated_in_the_summary(self):
        _, output = self.run_parts(self.part("a", "echo 'SKIP xfs: no mkfs.xfs'"))
        self.assertIn("a: xfs: no mkfs.xfs", output)

    def test_a_part_after_a_failed_one_is_skipped_not_run(self):
        results = {"build": runner.Result("failed", 0, "", ())}
        self.assertEqual(runner.why_not(self.part("a", "true", after=("build",)), results), "build failed")

    def test_a_missing_file_or_tool_is_a_reason(self):
        self.assertIn("does not exist", runner.why_not(self.part("a", "true", needs=("no/such",)), {}))
        self.assertIn("not installed", runner.why_not(self.part("a", "true", tools=("no-such-tool",)), {}))

    def test_a_lonely_part_waits_and_nothing_starts_beside_it(self):
        lonely, other = self.part("lonely", "true", alone=True), self.part("other", "true")
        schedule = runner.Schedule((other, lonely))
        self.assertEqual(schedule.next(False).name, "other")
        self.assertFalse(schedule.startable(lonely))
        with contextlib.redirect_stdout(io.StringIO()):
            schedule.done(other, runner.Result("passed", 0, "", ()))
        self.assertEqual(schedule.next(False).name, "lonely")
        self.assertFalse(schedule.startable(other))

    def test_a_patient_part_is_given_to_the_patient_worker_alone(self):
        patient, other = self.part("patient", "true", patient=True), self.part("other", "true")
        schedule = runner.Schedule((patient, other))
        self.assertEqual(schedule.next(False).name, "other")
        self.assertIsNone(schedule.next(False))
        self.assertEqual(schedule.next(True).name, "patient")

    def test_naming_a_part_brings_the_builds_it_needs(self):
        table = (self.part("build", "true"), self.part("unit", "true", after=("build",)), self.part("x", "true"))
        self.assertEqual([p.name for p in runner.chosen_parts(["unit"], table)], ["build", "unit"])


if __name__ == "__main__":
    unittest.main()
