"""The store that Python writes is ppsim's own, row by row: no PyTorch needed.

usage: test_ppsim_store.py PPSIM FOLDER-OF-THE-SCRIPTS [unittest's arguments]
"""
import concurrent.futures
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest

PPSIM, SCRIPTS = sys.argv[1], sys.argv[2]
sys.path.insert(0, SCRIPTS)
import ppsim_store as store  # noqa: E402

SESSION = {"device": "AMD EPYC", "backend": "cpu", "dtype": "fp32", "driver": "Linux 6.1",
           "libraries": "torch 2.0", "clocks": "steady", "date": "2026-11-26T00:00:00Z", "model": "tëst"}


def ppsim(*arguments):
    return subprocess.run([PPSIM, *arguments], capture_output=True, text=True)


def layer(name, **more):
    return {"name": name, "op": "opaque", "forward_s": 1.0, "input_s": 1.0, "weight_s": 1.0,
            "parameter_bytes": 64, "output_bytes": 64, "activation_bytes": 64, **more}


def document(*layers):
    return {"format": "ppsim-model", "version": 1, "name": "m", "layers": list(layers)}


class Store(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory(prefix="ppsim-torch-")
        self.addCleanup(made.cleanup)
        self.db = os.path.join(made.name, "x.db")
        self.model = os.path.join(made.name, "x.json")

    def plan(self, *arguments):
        return ppsim("plan", "--model", self.model, "--db", self.db, "--ranks", "1", "--batch", "4",
                     "--microbatches", "1", "--dtype", "fp32", "--json", *arguments)

    def test_published_hash(self):
        """FNV-1a, 64 bits: the values of its authors' test suite."""
        start = 0xCBF29CE484222325
        self.assertEqual(store.fnv(start, b""), start)
        self.assertEqual(store.fnv(start, b"a"), 0xAF63DC4C8601EC8C)
        self.assertEqual(store.fnv(start, b"foobar"), 0x85944171F73967E8)

    def test_the_tables_are_those_that_ppsim_makes(self):
        other = self.db + "2"
        store.add_session(self.db, SESSION, [])
        self.assertEqual(ppsim("profile", "--links", "--db", other, "--cap", "0.001").returncode, 0)

        def tables(path):
            with sqlite3.connect(path) as db:
                squeezed = [(name, " ".join(sql.split())) for name, sql in db.execute(
                    "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")]
                return squeezed, *(db.execute(f"PRAGMA {what}").fetchone()
                                   for what in ("application_id", "user_version"))
        self.assertEqual(tables(self.db), tables(other))

    def test_ppsim_verifies_every_row_and_plans_with_them(self):
        """Random samples of every kind: each checksum holds, and medians come out as stage times."""
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        names = ["m/0", "m/ünï", "m/" + "x" * 118, "m/" + "y" * 150]
        samples, median = [], {}
        for name in names:
            for phase in ("forward", "input", "weight", "optimizer"):
                middle = chance.uniform(1e-6, 1.0)
                median[name, phase] = middle
                samples += [(store.opaque_signature(name), phase, 4, 0, middle * factor)
                            for factor in (0.5, 1.0, 3.0)]
        self.assertEqual(store.add_session(self.db, SESSION, samples), 1)
        self.assertEqual(store.add_session(self.db, SESSION, samples[:1]), 2)
        listed = ppsim("profile", "--db", self.db, "--list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertIn("tëst", listed.stdout)
        store.write_model(self.model, document(*map(layer, names)))
        out = self.db + ".plan"
        planned = self.plan("--out", out)
        self.assertEqual(planned.returncode, 0, f"seed {seed}: {planned.stderr}")
        with open(out, encoding="utf-8") as file:
            plan = json.load(file)
        median[names[0], "forward"] *= 0.5  # the newest session has this one sample
        for phase in ("forward", "input", "weight", "optimizer"):
            expected = sum(median[name, phase] for name in names)
            planned = sum(stage[phase + "_s"] for stage in plan["stages"])
            self.assertAlmostEqual(planned / expected, 1, delta=1e-9, msg=f"{phase}, seed {seed}")
        self.assertEqual(plan["costs"]["source"], "measured")

    def test_a_changed_number_is_found(self):
        store.add_session(self.db, SESSION, [(store.opaque_signature("m/0"), "forward", 1, 0, 0.25)])
        store.write_model(self.model, document(layer("m/0")))
        self.assertEqual(self.plan().returncode, 0)
        with sqlite3.connect(self.db) as db:
            db.execute("UPDATE sample SET duration_s = 0.26")
        refused = self.plan()
        self.assertEqual(refused.returncode, 2)
        self.assertIn("damaged", refused.stderr)

    def test_ties_are_read(self):
        share = {"tie": "x", "tied_bytes": 32}
        store.write_model(self.model, document(layer("a", **share), layer("b"), layer("c", **share)))
        planned = ppsim("plan", "--model", self.model, "--ranks", "1", "--batch", "4", "--dtype", "fp32")
        self.assertEqual(planned.returncode, 0, planned.stderr)

    def test_what_is_refused_leaves_the_file_alone(self):
        store.add_session(self.db, SESSION, [])
        good = (store.opaque_signature("m/0"), "forward", 1, 0, 0.25)
        for bad in (("", *good[1:]), (good[0], "sideways", 1, 0, 1.0), (*good[:4], float("nan")),
                    (*good[:4], -1.0), (good[0], "forward", -1, 0, 1.0), ("x" * 192, *good[1:])):
            with self.assertRaises(store.Refused):
                store.add_session(self.db, SESSION, [good, bad])
        with self.assertRaisesRegex(store.Refused, "fp32, fp64, bf16"):
            store.add_session(self.db, dict(SESSION, dtype="fp16"), [])
        with sqlite3.connect(self.db) as db:
            self.assertEqual(db.execute("SELECT count(*) FROM sample").fetchone()[0], 0)
            db.execute("PRAGMA user_version = 7")
        with self.assertRaisesRegex(store.Refused, "version 7, this script writes version 1"):
            store.add_session(self.db, SESSION, [good])
        other = self.db + ".other"
        with sqlite3.connect(other) as db:
            db.execute("CREATE TABLE mine (x)")
        with self.assertRaisesRegex(store.Refused, "not a ppsim profile store"):
            store.add_session(other, SESSION, [good])
        for content, what in ((b"x", "not an SQLite"), (b"x" * 4096, "cannot be written")):
            with open(other + "2", "wb") as file:
                file.write(content)
            with self.assertRaisesRegex(store.Refused, what):
                store.add_session(other + "2", SESSION, [good])
            with open(other + "2", "rb") as file:
                self.assertEqual(file.read(), content)
        with self.assertRaises(store.Refused):
            store.add_session(os.path.join(self.db, "nowhere", "x.db"), SESSION, [good])
        with self.assertRaises(store.Refused):
            store.write_model(os.path.join(self.db, "x.json"), document(layer("a")))

    def test_writers_queue_up(self):
        """Also while one of them is making the file, which is what they all begin with."""
        good = (store.opaque_signature("m/0"), "forward", 1, 0, 0.25)
        store.write_model(self.model, document(layer("m/0")))
        for again in range(20):
            path, together = f"{self.db}{again}", threading.Barrier(6)

            def write(_):
                together.wait()
                return store.add_session(path, SESSION, [good] * 5)
            with concurrent.futures.ThreadPoolExecutor(6) as writers:
                self.assertEqual(sorted(writers.map(write, range(6))), [1, 2, 3, 4, 5, 6])
            with contextlib.closing(sqlite3.connect(path)) as db:
                self.assertEqual(db.execute("SELECT count(*) FROM sample").fetchone()[0], 30)
        self.db = path
        self.assertEqual(self.plan().returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
