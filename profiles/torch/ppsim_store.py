"""A ppsim profile store, written from Python: the tables of profiles/store_schema.c, one session at a
time. Needs nothing but the standard library.

A session and all its samples are one transaction (BEGIN IMMEDIATE): all of it is there afterwards or
nothing, and several writers queue up. Every row carries the checksum that ppsim verifies, FNV-1a of
64 bits over the fields in the order of profiles/store.c: a session's covers the number of its samples,
a sample's covers its session's.

Also here: how ppsim calls an opaque layer in its store, and writing the ppsim-model document.
"""
import json
import os
import sqlite3
import struct
import tempfile
import time

APPLICATION_ID = 0x70707369  # "ppsi"
VERSION = 1  # of the tables; a file of another one is refused
LOCK_WAIT_S = 20.0

SCHEMA = (
    "CREATE TABLE session ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  device TEXT NOT NULL, backend TEXT NOT NULL, dtype TEXT NOT NULL, driver TEXT NOT NULL,"
    "  libraries TEXT NOT NULL, clocks TEXT NOT NULL, date TEXT NOT NULL, model TEXT NOT NULL,"
    "  sample_count INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT",
    "CREATE TABLE layer_key ("
    "  id INTEGER PRIMARY KEY, signature TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE sample ("
    "  id INTEGER PRIMARY KEY,"
    "  session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,"
    "  layer_key INTEGER NOT NULL REFERENCES layer_key (id),"
    "  phase TEXT NOT NULL, microbatch INTEGER NOT NULL, neighbours INTEGER NOT NULL,"
    "  duration_s REAL NOT NULL, checksum INTEGER NOT NULL) STRICT",
    "CREATE INDEX sample_session ON sample (session)",
)

DTYPES = {"fp32": 0, "fp64": 1, "bf16": 2}  # as core/core.h numbers them
PHASES = ("forward", "input", "weight", "optimizer", "transfer", "overhead")
# most bytes of each text of a session, in the order of its columns; dtype stands between
TEXTS = {"device": 127, "backend": 31, "driver": 127, "libraries": 255, "clocks": 127, "date": 31,
         "model": 63}
SIGNATURE_BYTES = 191


class Refused(Exception):
    """The call or its input is wrong; str() is one message with place and cure."""


# ---- hashes and names ----

_HASH_START = 14695981039346656037
_HASH_PRIME = 1099511628211
_MASK = (1 << 64) - 1


def fnv(start, data):
    value = start
    for byte in data:
        value = ((value ^ byte) * _HASH_PRIME) & _MASK
    return value


def _word(value, word):
    return fnv(value, struct.pack("<Q", word & _MASK))


def _text(value, text):
    data = text.encode()
    return fnv(_word(value, len(data)), data)


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def session_checksum(number, session, sample_count):
    value = _word(_HASH_START, number)
    for key in ("device", "backend"):
        value = _text(value, session[key])
    value = _word(value, DTYPES[session["dtype"]])
    for key in ("driver", "libraries", "clocks", "date", "model"):
        value = _text(value, session[key])
    return _word(value, sample_count)


def sample_checksum(of_session, row, sample):
    signature, phase, microbatch, neighbours, seconds = sample
    value = _text(_word(of_session, row), signature)
    value = _word(_word(_text(value, phase), microbatch), neighbours)
    return fnv(value, struct.pack("<d", seconds))


def opaque_signature(name):
    """What an opaque layer of this name is called in a store; core/layer.c. A long name ends in its
    hash, so that different names stay different."""
    data = name.encode()
    if len(data) < 120:
        return "opaque name=" + name
    if len(cut(name, 100).encode()) < 100:
        raise Refused(f"layer '{name[:60]}…': give it a shorter name, below 120 bytes")
    return f"opaque name={cut(name, 100)}...{fnv(_HASH_START, data):016x}"


def cut(text, most_bytes):
    """The beginning of a text, ended between characters."""
    return text.encode()[:most_bytes].decode(errors="ignore")


# ---- checking ----

def _checked_session(session):
    if session["dtype"] not in DTYPES:
        raise Refused(f"dtype: ppsim knows {', '.join(DTYPES)}, not {session['dtype']}")
    return {key: cut(str(session[key]).replace("\0", " "), TEXTS[key]) if key in TEXTS
            else session[key] for key in ("dtype", *TEXTS)}


def _checked_samples(samples):
    checked = []
    for i, (signature, phase, microbatch, neighbours, seconds) in enumerate(samples):
        seconds = float(seconds) + 0.0  # SQLite has no negative zero
        if not signature or "\0" in signature or len(signature.encode()) > SIGNATURE_BYTES:
            raise Refused(f"sample {i} has an impossible signature; nothing was stored")
        if phase not in PHASES or microbatch < 0 or neighbours < 0:
            raise Refused(f"sample {i} has an impossible phase or count; nothing was stored")
        if not 0 <= seconds < float("inf"):
            raise Refused(f"sample {i} has an impossible duration; nothing was stored")
        checked.append((signature, phase, int(microbatch), int(neighbours), seconds))
    return checked


def _recognise(db, path):
    """Whether the file has its tables already; raises if it is something else."""
    first = lambda sql: db.execute(sql).fetchone()[0]
    application, version = first("PRAGMA application_id"), first("PRAGMA user_version")
    if application == 0 and version == 0 and first("SELECT count(*) FROM sqlite_master") == 0:
        return False
    if application != APPLICATION_ID or version < 1:
        raise Refused(f"{path}: this SQLite file is not a ppsim profile store; choose another file name")
    if version != VERSION:
        raise Refused(f"{path}: this profile store has version {version}, this script writes version "
                      f"{VERSION}: take the script that belongs to your ppsim, or another file name")
    return True


# ---- writing ----

def _open(path):
    if os.path.exists(path) and not os.path.isfile(path):
        raise Refused(f"{path}: a profile store must be an ordinary file")
    if os.path.exists(path) and 0 < os.path.getsize(path) < 512:
        raise Refused(f"{path}: this is not a profile store (not an SQLite file); choose another file name")
    db = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _make_tables(db):
    for statement in SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _insert(db, session, samples):
    number = db.execute("SELECT seq + 1 FROM sqlite_sequence WHERE name = 'session'").fetchone()
    number = number[0] if number else 1
    checksum = session_checksum(number, session, len(samples))
    db.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
               (number, session["device"], session["backend"], session["dtype"], session["driver"],
                session["libraries"], session["clocks"], session["date"], session["model"],
                len(samples), _signed(checksum)))
    row = db.execute("SELECT coalesce(max(id), 0) + 1 FROM sample").fetchone()[0]
    for sample in samples:
        signature, phase, microbatch, neighbours, seconds = sample
        db.execute("INSERT OR IGNORE INTO layer_key (signature) VALUES (?)", (signature,))
        db.execute("INSERT INTO sample VALUES (?, ?, (SELECT id FROM layer_key WHERE signature = ?),"
                   " ?, ?, ?, ?, ?)",
                   (row, number, signature, phase, microbatch, neighbours, seconds,
                    _signed(sample_checksum(checksum, row, sample))))
        row += 1
    return number


def _waiting(db, statement):
    """Where waiting could deadlock (the switch to write-ahead logging is such a place) SQLite reports a
    lock at once, whatever its timeout: then it is tried again."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return db.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _in_transaction(db, begin, work):
    _waiting(db, begin)
    try:
        result = work()
        db.execute("COMMIT")
        return result
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _with_store(path, work):
    path = os.fspath(path)

    def make_and_work():
        if not _recognise(db, path):
            _make_tables(db)
        return work(db)
    try:
        db = _open(path)
        try:
            # one snapshot: another process may be making the store right now
            _in_transaction(db, "BEGIN", lambda: _recognise(db, path))
            _waiting(db, "PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            return _in_transaction(db, "BEGIN IMMEDIATE", make_and_work)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise Refused(f"{path}: the profile store cannot be written ({error}); nothing was stored") from error


def check_store(path):
    """Raises Refused unless a session could be added; makes the file. Asked before long work."""
    _with_store(path, lambda db: None)


def add_session(path, session, samples):
    """Appends a session; returns its number. session: device, backend, dtype ("fp32", "fp64", "bf16"),
    driver, libraries, clocks, date, model; texts that are too long are cut. samples: (signature,
    phase, microbatch, neighbours, seconds) each."""
    session, samples = _checked_session(session), _checked_samples(samples)
    return _with_store(path, lambda db: _insert(db, session, samples))


def _layout(document):
    """A line for each layer."""
    dump = lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False)
    head = ", ".join(f"{dump(key)}: {dump(document[key])}" for key in ("format", "version", "name"))
    layers = ",\n  ".join(map(dump, document["layers"]))
    edges = f',\n "edges": {dump(document["edges"])}' if "edges" in document else ""
    return f'{{{head}, "layers": [\n  {layers}]{edges}}}\n'


def write_model(path, document):
    """Replaces the file by the JSON document, or leaves it as it was."""
    path = os.path.realpath(path)
    data = _layout(document)
    try:
        file, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".ppsim-")
        try:
            with os.fdopen(file, "w", encoding="utf-8") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Refused(f"{path}: cannot be written ({error.strerror})") from error
