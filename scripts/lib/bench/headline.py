"""Whole jobs: what hone optimize makes of a network, beside the peers on the original.

Each case and seed is a job in a home folder of its own, build/bench/headline/CASE-seedN, and a
result beside it, CASE-seedN.json. A job that was interrupted goes on, one that has a result is not
repeated.
"""
import argparse
import json
import os
import re
import sys

import table
from cases import CASES
from job import Job

TOP = os.environ["HONE_TOP"]
DATA = os.environ.get("HONE_DATA") or os.path.join(TOP, "..", "shared", "data")
PROGRAM = os.path.join(TOP, "build/release/services/cli/hone")
UNITS = {"h": 3600, "m": 60, "s": 1}
NOTED = ("value", "drop_points", "drop_upper95_points", "p50_us", "p90_us", "images_per_s",
         "design", "name")


def budget_s(options):
    """Of the last --budget; 0: none."""
    given = re.findall(r"--budget[ =](\S+)", " ".join(options))
    parts = re.findall(r"(\d+)([hms])", given[-1]) if given else []
    return sum(int(n) * UNITS[unit] for n, unit in parts)


def row_of(case, seed, taken):
    """What the table needs of a job's result."""
    result = taken.pop("result")
    row = {"case": case, "seed": seed, **taken, "verdict": result["verdict"],
           "chosen": result["chosen"], "metric": result["baseline"]["metric"],
           "baseline": result["baseline"]["value"], "hardware": result["hardware"]}
    chosen = next((r for r in result["results"] if r["file"] == "model.onnx"), None)
    if chosen:
        row.update({k: chosen[k] for k in NOTED if k in chosen})
    return row


def run(name, seed, args, folder):
    case = CASES[name]
    label = table.name_of(name, seed, args.job_options)
    path = os.path.join(folder, label + ".json")
    job = Job(PROGRAM, os.path.join(folder, label))
    model = os.path.join(DATA, "models", case.model)
    if args.again:
        job.forget()
    elif os.path.exists(path) and not args.measure:
        print(f"{label}: done already (--again repeats it)")
        return
    print(f"{label}: {case.text}", flush=True)
    if args.measure:
        row = read(path)
    else:
        options = [*case.options.split(), "--seed", str(seed), *args.job_options.split()]
        taken = job.run(os.path.realpath(model), os.path.realpath(os.path.join(DATA, case.data)),
                        options, budget_s(options) / 2 if case.stopped else 0)
        row = row_of(name, seed, taken)
    if not args.skip_peers:
        import compare
        import engines
        row["cpu"] = engines.cpu_name()
        row.update(compare.compare(case, compare.Subject(model, job), args))
    write(path, row)


def read(path):
    if not os.path.exists(path):
        sys.exit(f"there is no {path} to measure again")
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write(path, row):
    with open(path + ".part", "w", encoding="utf-8") as f:
        json.dump(row, f, indent=2)
    os.replace(path + ".part", path)


def check_files(files):
    for file in sorted(files):
        if not os.path.exists(os.path.join(DATA, file)):
            sys.exit(f"scripts/bench: {os.path.join(DATA, file)} is not there (set HONE_DATA to "
                     "the folder with the models and data)")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench headline")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (all)")
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of the case's own")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--job-options", default="", help="for hone optimize, after the case's")
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--measure", action="store_true",
                        help="only the comparison again, of jobs that are done")
    parser.add_argument("--again", action="store_true", help="forget what is there, begin anew")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    folder = os.path.join(TOP, "build", "bench", "headline")
    names = args.cases or list(CASES)
    for name in names:
        if name not in CASES:
            parser.error(f"there is no case {name}; there are {', '.join(CASES)}")
    if not args.table:
        check_files({os.path.join("models", CASES[n].model) for n in names} |
                    {CASES[n].data for n in names})
        os.makedirs(folder, exist_ok=True)
        try:
            for name in names:
                for seed in args.seeds or CASES[name].seeds:
                    run(name, seed, args, folder)
        except KeyboardInterrupt:
            sys.exit("\nThe job goes on; the same command attaches to it again.")
    table.show(folder)


if __name__ == "__main__":
    main()
