"""What parts of the search earn: jobs with the same budget, each without one of them.

Each is a job in a home of its own, build/bench/ablations/QUESTION/VARIANT-seedN, and a result
beside it; a job that was interrupted goes on, one that has a result is not repeated.
"""
import argparse
import os
import re
import sys

import headline
import table
from job import Job

VARIANTS = {
    "all": ("", "everything as it is"),
    "no-teacher": ("--without teacher", "students learn from labels alone"),
    "no-cache": ("--without cache", "the original answers anew in every epoch of each student"),
    "random": ("--without race", "students drawn at random share the time"),
    "no-students": ("--space precision,blocks", "blocks and stages are replaced, nothing else"),
    "no-blocks": ("--space precision,students", "students only"),
    "precision": ("--space precision", "the original's architecture only"),
}
SEEDS = {"all": (1, 2, 3)}  # the spread of the others is taken to be the same


def row_of(variant, seed, taken):
    """The result, and what the best student came to whether it was chosen or not."""
    students = [s for s in taken["result"].get("students", []) if s["rungs"]]
    learned = {s["name"]: max(r["accuracy"] for r in s["rungs"]) for s in students}
    chosen = next((r for r in taken["result"]["results"] if r["file"] == "model.onnx"), {})
    row = headline.row_of(variant, seed, dict(taken))
    row["speedup_fp32"] = chosen.get("speedup_fp32", 1.0)
    row["students"] = len(students)
    if learned:
        row["best_student"] = max(learned, key=learned.get)
        row["best_student_search"] = learned[row["best_student"]]
    return row


def run(variant, seed, args, folder):
    label = table.name_of(variant, seed)
    path, job = os.path.join(folder, label + ".json"), Job(headline.PROGRAM,
                                                           os.path.join(folder, label))
    if args.again:
        job.forget()
    elif os.path.exists(path):
        print(f"{label}: done already (--again repeats it)")
        return
    print(f"{label}: {VARIANTS[variant][1]}", flush=True)
    options = ["--max-drop", "1", "--budget", args.budget, "--seed", str(seed),
               *args.job_options.split(), *VARIANTS[variant][0].split()]
    taken = job.run(os.path.realpath(os.path.join(headline.DATA, "models", args.model)),
                    os.path.realpath(os.path.join(headline.DATA, args.data)), options)
    headline.write(path, {**row_of(variant, seed, taken), "model": args.model,
                          "options": options})


def lines_of(variant, rows):
    seeds = " ".join(str(r["seed"]) for r in rows)
    learned = [100 * r["best_student_search"] for r in rows if "best_student_search" in r]
    return (variant, seeds, table.spread([r["speedup_fp32"] for r in rows]),
            table.spread([100 * r.get("value", r["baseline"]) for r in rows], 2, " %"),
            table.spread([r.get("drop_upper95_points", 0) for r in rows], 2, ""),
            str(rows[0]["students"]), table.spread(learned, 2, " %") if learned else "-",
            VARIANTS[variant][1])


def show(folder):
    found = table.read(folder, VARIANTS)
    if not found:
        print(f"no results in {folder} yet")
        return
    any_row = next(iter(found.values()))[0]
    print(f"\n{any_row['model']}, {' '.join(any_row['options'])}; {any_row['hardware']['cpu']}\n")
    table.print_lines([("variant", "seeds", "speed-up", "test part", "drop at most", "students",
                        "best student, search part", "")] +
                      [lines_of(variant, rows) for (variant, _), rows in found.items()])


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench ablations")
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(VARIANTS)} (all)")
    parser.add_argument("--model", default="resnet20-cifar10.onnx")
    parser.add_argument("--data", default="cifar10.tar")
    parser.add_argument("--budget", default="30m", help="of each job (30m)")
    parser.add_argument("--seeds", type=int, nargs="*", help="(1 2 3 for all, else 1)")
    parser.add_argument("--job-options", default="", help="for hone optimize, of every job")
    parser.add_argument("--again", action="store_true", help="forget what is there, begin anew")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    # what is compared has been asked the same: each question has a folder
    question = [args.model.removesuffix(".onnx"), args.budget, *args.job_options.split()]
    folder = os.path.join(headline.TOP, "build", "bench", "ablations",
                          re.sub(r"[^\w.=-]+", "_", " ".join(question)))
    for variant in args.variants:
        if variant not in VARIANTS:
            parser.error(f"there is no variant {variant}; there are {', '.join(VARIANTS)}")
    if not args.table:
        headline.check_files([os.path.join("models", args.model), args.data])
        os.makedirs(folder, exist_ok=True)
        try:
            for variant in args.variants or VARIANTS:
                for seed in args.seeds or SEEDS.get(variant, (1,)):
                    run(variant, seed, args, folder)
        except KeyboardInterrupt:
            sys.exit("\nThe job goes on; the same command attaches to it again.")
    show(folder)


if __name__ == "__main__":
    main()
