#!/usr/bin/env python3
"""Stands in for hone: one job for each home, which lasts until somebody has watched its end.

FAKE_DIE: the client is killed after so many events, as if with all of Hone.
"""
import json
import os
import signal
import sys

BEGIN_MS, AWAY_MS = 1_700_000_000_000, 3_600_000


def option(name):
    return sys.argv[sys.argv.index(name) + 1]


home = option("--home")
state = os.path.join(home, "job.json")


def load():
    if not os.path.exists(state):
        return None
    with open(state, encoding="utf-8") as f:
        return json.load(f)


def save(job):
    os.makedirs(home, exist_ok=True)
    with open(state, "w", encoding="utf-8") as f:
        json.dump(job, f)


def tell():
    """Events every ten seconds, for two hours; the result so far after half an hour."""
    for i in range(1, 721):
        kind = "result" if i == 180 else "succeeded" if i == 720 else "progress"
        # nobody was there for an hour, before the first result
        at_ms = BEGIN_MS + i * 10_000 + (AWAY_MS if i > 60 else 0)
        print(json.dumps({"type": kind, "time_ms": at_ms, "verdict": "good"}), flush=True)
        if i == int(os.environ.get("FAKE_DIE", "999")):
            os.kill(os.getpid(), signal.SIGKILL)
    save({**load(), "state": "succeeded", "away_ms": AWAY_MS,
          "ended_ms": BEGIN_MS + 7_200_000 + AWAY_MS})


command = sys.argv[1]
with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as log:
    log.write(command + "\n")
if command == "optimize":
    save({"job": "J1", "state": "running", "created_ms": BEGIN_MS})
    print(json.dumps({"type": "submitted", "job": "J1"}), flush=True)
    tell()
elif command == "watch":
    tell()
elif command == "jobs":
    job = load()
    print(json.dumps([job] if job else []))
elif command == "get":
    out = option("--out")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "result.json"), "w", encoding="utf-8") as f:
        json.dump({"verdict": "good"}, f)
