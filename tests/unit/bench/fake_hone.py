#!/usr/bin/env python3
"""Stands in for hone: one job for each home, which lasts until somebody has watched its end.

FAKE_DIE: the client is killed after so many events, as if with all of Hone.
"""
import json
import os
import signal
import sys

BEGIN_MS = 1_700_000_000_000


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
    """Events every ten minutes; the result so far after half an hour; the end after two hours."""
    for i in range(1, 13):
        kind = "result" if i == 3 else "succeeded" if i == 12 else "rung"
        print(json.dumps({"type": kind, "time_ms": BEGIN_MS + i * 600_000, "verdict": "good"}),
              flush=True)
        if i == int(os.environ.get("FAKE_DIE", "99")):
            os.kill(os.getpid(), signal.SIGKILL)
    save({**load(), "state": "succeeded", "ended_ms": BEGIN_MS + 7_200_000})


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
