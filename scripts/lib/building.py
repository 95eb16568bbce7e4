"""Building from the scripts: quiet when it works, the errors when it does not."""

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]


def say(text):
    print(f"hone: {text}", file=sys.stderr, flush=True)


def folder(preset):
    return TOP / "build" / preset


def _run(command, log):
    with open(log, "ab") as out:
        return subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT).returncode == 0


def _show(log):
    """The part of a build log that a person needs: from the first error on, at most 60 lines,
    without steps that worked and without whole command lines."""
    lines = [line for line in log.read_text(errors="replace").splitlines()
             if not re.match(r"\[\d+/\d+\] |ccache /|: && ", line)]
    first = next((i for i, line in enumerate(lines)
                  if line.startswith("FAILED:") or "CMake Error" in line), max(0, len(lines) - 30))
    for line in lines[first:first + 60]:
        print("    " + line, file=sys.stderr)
    say(f"the whole log is {log}")


def forget_moved(where):
    """Removes a build folder that was configured for a checkout at another place: CMake would
    refuse it."""
    cache = where / "CMakeCache.txt"
    if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={TOP}\n" not in cache.read_text():
        say(f"{where.relative_to(TOP)} belongs to another place; building anew")
        shutil.rmtree(where)


def build(preset, targets=None, configure=True):
    """Configures a preset and builds targets (all when None). targets may be a function that is
    called after configuring and returns a list. False, with the errors shown, when it fails.
    Two builds of one preset wait for each other: ninja itself does not look out for that.
    Without `configure` that step is left to ninja, which takes it when a file calls for it."""
    where = folder(preset)
    forget_moved(where)
    where.mkdir(parents=True, exist_ok=True)
    log = where / "build.log"
    start = time.monotonic()
    notice = threading.Timer(1, say, [f"building '{preset}'"])
    notice.daemon = True
    notice.start()
    try:
        done = _build(where, log, preset, targets, configure)
    finally:
        quick = notice.is_alive()
        notice.cancel()
    if done and not quick:
        say(f"built '{preset}' in {time.monotonic() - start:.0f} s")
    return done


def _build(where, log, preset, targets, configure):
    with open(where / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.write_bytes(b"")
        configured = (where / "build.ninja").exists() and not configure
        if not configured and not _run(["cmake", "--preset", preset], log):
            say(f"configuring '{preset}' failed:")
            _show(log)
            return False
        wanted = targets() if callable(targets) else targets or []
        # -k 0: show every error of a run, not only the first
        command = ["ninja", "-C", str(where), "-j", str(os.cpu_count()), "-k", "0", *wanted]
        if not _run(command, log):
            say(f"building '{preset}' failed:")
            _show(log)
            return False
    return True
