"""The table of the headline, from the cases' results as they lie in a folder."""
import glob
import json
import os
import re
import statistics

from cases import AGAINST, CASES, FIRST_S

NAME = re.compile(r"(?P<case>.+)-seed(?P<seed>\d+)(?P<other>\+.*)?\.json$")


def name_of(case, seed, other=""):
    """Of a result's file and a job's folder; other: job options instead of the case's own."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", other).strip("-")
    return f"{case}-seed{seed}" + (f"+{words}" if words else "")


def read(folder, names):
    """{(name, other): [row, ...]} of those names, in their order and that of seeds."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        match = NAME.match(os.path.basename(path))
        if match and match["case"] in names:
            with open(path, encoding="utf-8") as f:
                found.setdefault((match["case"], match["other"] or ""), []).append(json.load(f))
    for rows in found.values():
        rows.sort(key=lambda r: r["seed"])
    order = list(names)
    return dict(sorted(found.items(), key=lambda item: (item[0][1], order.index(item[0][0]))))


def standing(value, goal):
    less = goal.aim < goal.reach  # is better
    for word, limit in (("aim reached", goal.aim), ("reached", goal.reach)):
        if value <= limit if less else value >= limit:
            return word
    return "short of it"


def spread(values, digits=2, unit="x"):
    """The median, and the range where there are several."""
    text = f"{statistics.median(values):.{digits}f}{unit}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


def quality(row):
    """What became of the accuracy."""
    if row["chosen"] == "baseline":
        return "the original stays"
    value = f"{100 * row['value']:.2f} %"
    if row["metric"] == "agreement":
        return f"{value} agree, at least {100 - row['drop_upper95_points']:.2f}"
    return (f"{100 * row['baseline']:.2f} -> {value}, drop {row['drop_points']:.2f}, "
            f"at most {row['drop_upper95_points']:.2f}")


def beside(row):
    """What the peers came to, and whether their times are to be trusted."""
    text = ""
    if row.get("openvino_int8_value") is not None:
        text += f"; OpenVINO int8 {100 * row['openvino_int8_value']:.2f} %"
    if row.get("result_elsewhere"):
        text += "; the result on " + ", ".join(
            f"{name} {100 * value:.2f} %" for name, value in row["result_elsewhere"].items()
            if value is not None)
    if row.get("noisy"):
        text += f"; NOISY, to be measured again: {', '.join(row['noisy'])}"
    return text


def lines_of(case, other, rows):
    seeds = " ".join(str(r["seed"]) for r in rows)
    for goal in CASES[case].goals:
        values = [r[goal.figure] for r in rows if goal.figure in r]
        got = spread(values) if values else "-"
        where = standing(statistics.median(values), goal) if values else ""
        if any(r.get("noisy") for r in rows):
            where = "not to be trusted"  # below the table it is said why
        yield (case + other, seeds, f"{goal.reach:g}x", f"{goal.aim:g}x", got, where,
               AGAINST[goal.figure])


def first_results(found):
    values = [r["first_verified_seconds"] for (_, other), rows in found.items() for r in rows
              if not other]
    if values:
        yield ("first result", "", f"{FIRST_S.reach:g} s", f"{FIRST_S.aim:g} s",
               spread(values, 0, " s"), standing(max(values), FIRST_S), "seconds, worst of all")


def print_lines(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def show(folder):
    found = read(folder, CASES)
    if not found:
        print(f"no results in {folder} yet")
        return
    lines = [("case", "seeds", "to reach", "aim", "got", "", "against")]
    for (case, other), rows in found.items():
        lines += lines_of(case, other, rows)
    lines += first_results(found)
    print()
    print_lines(lines)
    print()
    for (case, other), rows in found.items():
        for row in rows:
            print(f"{name_of(case, row['seed']) + other:20} {quality(row)}; job "
                  f"{row['job_seconds']:.0f} s, first result after "
                  f"{row['first_verified_seconds']:.0f} s"
                  + (f", stopped after {row['stopped_s']:.0f} s" if "stopped_s" in row else "")
                  + beside(row))
