"""Rows in a database with a write-ahead log, each a transaction."""
import os, sqlite3, zlib


def connect(directory):
    base = sqlite3.connect(os.path.join(directory, "base"), isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, body BLOB, sum INTEGER)")
    return base


def run(directory):
    base = connect(directory)
    (last,) = base.execute("SELECT coalesce(max(number), 0) FROM rows").fetchone()
    while True:
        last += 1
        body = os.urandom(700)
        base.execute("INSERT INTO rows VALUES (?, ?, ?)", (last, body, zlib.crc32(body)))
        done(last)
        yield


def check(directory, tokens):
    base = connect(directory)
    (said,) = base.execute("PRAGMA integrity_check").fetchone()
    assert said == "ok", said
    rows = {number: (body, sum) for number, body, sum in base.execute("SELECT number, body, sum FROM rows")}
    missing = [token for token in tokens if int(token) not in rows]
    assert not missing, f"{len(missing)} rows are missing: {missing[:10]}"
    spoiled = [number for number, (body, sum) in rows.items() if zlib.crc32(body) != sum]
    assert not spoiled, f"rows are spoiled: {spoiled[:10]}"
