#!/usr/bin/env python3
"""Builds and runs tests; called by scripts/test inside the environment.

A test program prints TAP: `ok 1 - name`, `not ok 2 - name`, `ok 3 # SKIP name`. A line `skip: why`
gives the reason of a skipped test. Each program gets a folder of its own in TMPDIR and
a limit of time, and what it leaves running is ended. Its whole output is kept in
build/PRESET/test-logs.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import building

TOP = building.TOP
TESTS = TOP / "tests"
# Programs of these folders do not disturb each other; all others run one at a time.
PARALLEL = {"unit", "conformance"}
RESULT = re.compile(r"\b(not ok|ok) (\d+)(?: (# SKIP|-))?(?: (.*))?$")
PLAN = re.compile(r"^1\.\.(\d+)(?:\s*# SKIP\s*(.*))?")

Test = collections.namedtuple("Test", "name command")  # name: folder/test_x


class Outcome:
    def __init__(self, test, log):
        self.test, self.log = test, log
        self.passed = 0
        self.failures = []  # texts, one per failed test
        self.skips = []  # texts, one per skipped test
        self.seconds = 0.0


def parse(outcome, text, status, limit):
    """Counts the results in the output of a program that ended with status."""
    planned, seen, reasons, notes, whole = 0, 0, [], [], False
    skipped_names = []
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned += int(plan[1])
            if plan[2] is not None:
                skipped_names.append("all")
                reasons.append(plan[2])
                whole = True
            continue
        if line.startswith("skip: "):
            reasons.append(line[6:])
        result = RESULT.search(line)
        if not result or line.startswith("#"):
            if line.startswith("# ") and outcome.failures and notes is outcome.failures[-1][1]:
                if not re.match(r"# (not )?ok - ", line):  # a group's own summary
                    notes.append(line[2:])
            continue
        notes = []
        # test 0 is the setup of a group: without it none of the group ran
        seen = seen + 1 if result[2] != "0" else planned
        name = result[4] or ""
        if result[1] == "not ok":
            outcome.failures.append((name, notes))
        elif result[3] == "# SKIP":  # cmocka: ok 3 # SKIP name
            skipped_names.append(name)
        elif "# SKIP" in name:  # TAP: ok 3 - name # SKIP why
            before, _, why = name.partition("# SKIP")
            skipped_names.append(before.strip())
            reasons.append(why.strip() or "no reason given")
        else:
            outcome.passed += 1
    for i, name in enumerate(skipped_names):
        why = reasons[min(i, len(reasons) - 1)] if reasons else "no reason given"
        outcome.skips.append(f"{name}: {why}")

    ending = None
    if status is None:
        ending = f"did not end within {limit:g} s"
    elif status < 0:
        ending = f"crashed: {signal.Signals(-status).name}"
    elif seen < planned:
        ending = f"ended after {seen} of {planned} tests with status {status}"
    elif status != 0 and not outcome.failures:
        ending = f"ended with status {status}"
    elif seen == 0 and not whole:
        ending = "printed no results"
    if ending:
        outcome.failures.append((ending, text.splitlines()[-25:]))


def end_leftovers(mark, killed=None):
    """Ends what a test left running, known by the mark in its environment. Members of the group
    that was killed already may still be seen for a moment: they do not count."""
    mark = f"HONE_TEST_RUN={mark}".encode()
    count = 0
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                count += os.getpgid(int(entry.name)) != killed
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            pass
    return count


def run(test, logs, environment, limit):
    log = logs / (test.name.replace("/", "__") + ".log")
    outcome = Outcome(test, log)
    scratch = tempfile.mkdtemp(prefix="hone-", dir="/tmp")  # short: sockets have short names
    mark = f"{os.getpid()}-{scratch}"
    env = {**environment, "TMPDIR": scratch, "HONE_TEST_RUN": mark}
    start = time.monotonic()
    try:
        # into a file, not a pipe: what a test leaves running would keep a pipe open
        with open(log, "wb") as out:
            process = subprocess.Popen(test.command, cwd=TOP, env=env, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            killed = None
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status, killed = None, process.pid
                os.killpg(killed, signal.SIGKILL)
                process.wait()
        left = end_leftovers(mark, killed)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    outcome.seconds = time.monotonic() - start
    parse(outcome, log.read_text(errors="replace"), status, limit)
    outcome.note = f"  (left {left} running, ended)" if left else ""
    return outcome


def show(outcome):
    counts = [f"{outcome.passed} passed"]
    if outcome.failures:
        counts.append(f"{len(outcome.failures)} FAILED")
    if outcome.skips:
        counts.append(f"{len(outcome.skips)} skipped")
    word = "FAIL" if outcome.failures else "ok  "
    print(f"{word} {outcome.test.name:<44} {', '.join(counts):<24} "
          f"{outcome.seconds:6.1f} s{outcome.note}")
    for skip in outcome.skips:
        print(f"       skipped  {skip}")
    for name, notes in outcome.failures:
        print(f"       FAILED   {name}")
        for line in notes:
            print(f"                {line}")
    if outcome.failures:
        print(f"                whole output: {outcome.log.relative_to(TOP)}")
    sys.stdout.flush()


def all_tests(preset):
    """Test programs as CMake lists them, then scripts tests/**/test_*.sh."""
    where = building.folder(preset)
    listing = where / "tests.txt"
    programs = listing.read_text().split() if listing.exists() else []
    tests = [Test(str(pathlib.Path(p).relative_to(where / "tests")), [p]) for p in programs]
    for script in TESTS.rglob("test_*.sh"):
        if os.access(script, os.X_OK):
            tests.append(Test(str(script.relative_to(TESTS)), [str(script)]))
    return sorted(tests)


def select(tests, words):
    """Tests in one of the folders that words name, with one of the other words in their names."""
    words = [w.strip("/").removeprefix("tests/") for w in words]
    folders = [w for w in words if "/" in w or (TESTS / w).is_dir()]
    names = [w for w in words if w not in folders]
    if folders:
        tests = [t for t in tests if t.name in folders or
                 any(t.name.startswith(f + "/") for f in folders)]
    if names:
        tests = [t for t in tests if any(n in t.name for n in names)]
    return tests


def sanitizer_environment(preset):
    env = dict(os.environ)
    env["CMOCKA_MESSAGE_OUTPUT"] = "TAP"
    env["HONE_BUILD_DIR"] = str(building.folder(preset))
    # Found leaks and undefined behaviour end a program; the settings of the caller go last and win.
    defaults = {
        "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    }
    for kind in ("lsan", "tsan", "ubsan"):
        known = TESTS / f"{kind}.supp"
        if known.exists():
            key = f"{kind.upper()}_OPTIONS"
            defaults[key] = f"{defaults.get(key, 'print_suppressions=0')}:suppressions={known}"
    for key, value in defaults.items():
        env[key] = f"{value}:{env[key]}" if env.get(key) else value
    return env


def run_fuzzers(options, environment, logs):
    """Each fuzz target for options.seconds, at once, with a corpus that may grow in the build."""
    names = [pathlib.Path(f).stem for f in sorted(TESTS.glob("fuzz/fuzz_*.c"))]
    words = [w for w in options.words if w.strip("/").removeprefix("tests/") != "fuzz"]
    names = [n for n in names if not words or any(w in n for w in words)]
    where = building.folder("fuzz")

    def fuzz(name):
        seeds = TESTS / "fuzz" / "corpus" / name.removeprefix("fuzz_")
        grown = where / "corpus" / name
        grown.mkdir(parents=True, exist_ok=True)
        command = [str(where / "fuzz" / name), f"-max_total_time={options.seconds}", "-timeout=10",
                   "-rss_limit_mb=2048", f"-artifact_prefix={logs}/{name}-", "-print_final_stats=1",
                   str(grown)] + ([str(seeds)] if seeds.is_dir() else [])
        outcome = Outcome(Test(f"fuzz/{name}", command), logs / f"{name}.log")
        outcome.note, start = "", time.monotonic()
        with open(outcome.log, "wb") as out:
            status = subprocess.run(command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=subprocess.STDOUT).returncode
        outcome.seconds = time.monotonic() - start
        text = outcome.log.read_text(errors="replace")
        runs = re.search(r"number_of_executed_units:\s*(\d+)", text)
        if status == 0:
            outcome.passed = 1
            outcome.note = f"  {int(runs[1]) if runs else 0} inputs"
        else:
            outcome.failures.append((f"ended with status {status}", text.splitlines()[-40:]))
        return outcome

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return show_all(pool.map(fuzz, names))


def show_all(outcomes):
    done = []
    for outcome in outcomes:
        show(outcome)
        done.append(outcome)
    return done


def run_all(tests, options, environment, logs):
    side_by_side = [t for t in tests if t.name.split("/")[0] in PARALLEL]
    in_turn = [t for t in tests if t not in side_by_side]
    done = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(run, t, logs, environment, options.timeout) for t in side_by_side]
        done += show_all(f.result() for f in concurrent.futures.as_completed(futures))
    done += show_all(run(t, logs, environment, options.timeout) for t in in_turn)
    return done


def close(outcomes):
    passed = sum(o.passed for o in outcomes)
    failed = sum(len(o.failures) for o in outcomes)
    skipped = sum(len(o.skips) for o in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/test", description="Builds everything and runs tests.",
        epilog="examples:  scripts/test    scripts/test unit    scripts/test unit/graph onnx    "
               "scripts/test --preset asan unit    scripts/test fuzz --seconds 600")
    parser.add_argument("words", nargs="*", metavar="FOLDER|NAME",
                        help="a folder below tests/, or a part of a test program's name")
    parser.add_argument("--preset", default="release",
                        help="release (default), clang, asan, tsan, coverage")
    parser.add_argument("--list", action="store_true", help="show the test programs and end")
    parser.add_argument("--build-only", action="store_true", help="build everything and end")
    parser.add_argument("--timeout", type=float, default=600, metavar="S",
                        help="seconds that one program may take (600)")
    parser.add_argument("--jobs", "-j", type=int, default=os.cpu_count(), metavar="N",
                        help="unit tests at once (one per core)")
    parser.add_argument("--seconds", type=int, default=60, metavar="S",
                        help="how long each fuzz target runs (60)")
    options = parser.parse_intermixed_args()

    fuzzing = any(w.strip("/").removeprefix("tests/") == "fuzz" for w in options.words)
    preset = "fuzz" if fuzzing else options.preset
    tests = []

    def targets():
        if fuzzing:
            return ["fuzzers"]
        tests[:] = select(all_tests(preset), options.words)
        if options.list:
            return ["help"]
        if not options.words:
            return []
        # programs that unit tests do not need are left alone
        kinds = {t.name.split("/")[0] for t in tests}
        if kinds - PARALLEL:
            return ["tests"]
        return [f"tests/{t.name}" for t in tests if not t.name.endswith(".sh")] or ["help"]

    if not building.build(preset, targets):
        print("0 passed, 1 failed, 0 skipped", flush=True)
        return 1
    if options.build_only:
        return 0
    if options.list:
        print("\n".join(t.name for t in tests))
        return 0
    # once more: building may have found new files
    tests = [] if fuzzing else select(all_tests(preset), options.words)
    if not fuzzing and not tests:
        building.say(f"no test matches {' '.join(options.words)}; scripts/test --list shows all")

    logs = building.folder(preset) / "test-logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = sanitizer_environment(preset)
    if fuzzing:
        return close(run_fuzzers(options, environment, logs))
    return close(run_all(tests, options, environment, logs))


if __name__ == "__main__":
    sys.exit(main())
