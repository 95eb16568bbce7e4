#!/usr/bin/env python3
"""The house rules that a machine can check; called by scripts/check inside the environment.

A rule is a function that takes a Source and yields (line number, rule, text). To break a rule on
purpose, change the rule here, with the reason: there are no exceptions in the sources themselves.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = 100
MAX_LINES = 900
MAX_BYTES = 1 << 20
CODE = {".c", ".h", ".sh", ".bash", ".py", ".lua", ".proto", ".cmake", ".js"}

# A floor of shared/ includes itself and floors of a smaller number. Generated messages
# (hone/v1/*.pb-c.h) may be used from anywhere.
FLOORS = {"base": 0, "rpc": 1, "queue": 1, "store": 1, "coding": 1, "graph": 2, "design": 3,
          "data": 3, "nn": 3, "runtime": 4, "train": 4, "work": 5}

BANNED = {
    "strcpy": "str_copy", "strcat": "struct strbuf", "sprintf": "snprintf or str_printf",
    "vsprintf": "vsnprintf", "gets": "getline", "strtok": "strsep", "atoi": "str_parse_i64",
    "atol": "str_parse_i64", "atoll": "str_parse_i64", "atof": "str_parse_f64",
    "alloca": "an arena", "system": "posix_spawn", "popen": "posix_spawn",
}
PARSERS = {name: "str_parse_*" for name in (
    "strtol", "strtoul", "strtoll", "strtoull", "strtoimax", "strtoumax", "strtof", "strtod",
    "strtold")}
# Library code returns errors; only the log writes.
NOT_IN_LIBRARIES = re.compile(
    r"(?<![\w.>])(exit|abort|quick_exit|printf|vprintf|puts|putchar|perror|err|errx|warn|warnx)"
    r"\s*\(|(?<![\w.>])(fprintf|vfprintf|fputs|fputc|fwrite|dprintf)\s*\([^;]*\bstd(?:err|out)\b")
LITERAL = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


class Source:
    def __init__(self, path):
        self.path = path  # relative to the checkout, with slashes
        self.data = (TOP / path).read_bytes()
        self.is_text = b"\0" not in self.data[:8192]
        self.text = self.data.decode("utf-8", "replace") if self.is_text else ""
        self.lines = self.text.splitlines()
        first = self.lines[0] if self.lines else ""
        suffix = pathlib.PurePosixPath(path).suffix
        self.is_c = suffix in (".c", ".h")
        self.is_code = suffix in CODE or first.startswith("#!") or path.endswith("CMakeLists.txt")
        self.bare = blank_literals(self.text).splitlines() if self.is_c else []


def blank_literals(text):
    """C without what comments, strings and characters say; every line stays where it was."""
    def blank(match):
        found = match[0]
        inside = re.sub(r"[^\n]", " ", found)
        return f'"{inside[1:-1]}"' if found[0] == '"' else inside
    return LITERAL.sub(blank, text)


def rule_size(source):
    if len(source.data) > MAX_BYTES:
        yield 1, "size", f"{len(source.data)} bytes; at most {MAX_BYTES} belong into the repository"
    if source.is_code and len(source.lines) > MAX_LINES:
        yield len(source.lines), "length", f"more than {MAX_LINES} lines: split by subject"


def rule_lines(source):
    if not source.is_code:
        return
    for number, line in enumerate(source.lines, 1):
        if len(line) > COLUMNS:
            yield number, "columns", f"{len(line)} columns, at most {COLUMNS}"
        if "\t" in line:
            yield number, "tab", "a tab; write spaces (or \\t)"


def rule_paths(source):
    # written so that this file does not break its own rule
    machine = re.compile(r"(?<![\w.$}~-])/(?:wor[k]|hom[e]|roo[t])/[\w.]")
    for number, line in enumerate(source.lines, 1):
        if machine.search(line):
            yield number, "path", "a path of one machine: " + line.strip()[:60]


def rule_notes(source):
    note = re.compile(r"\b(?:TOD[O]|FIXM[E])\b(?!\s*\(?\s*(?:#|issue )\d)")
    for number, line in enumerate(source.lines, 1):
        if note.search(line):
            yield number, "note", "name the issue: (#12)"


def rule_banned(source):
    banned = dict(BANNED) if source.path == "shared/base/str.c" else {**BANNED, **PARSERS}
    call = re.compile(r"(?<![\w.>])(" + "|".join(banned) + r")\s*\(")
    for number, line in enumerate(source.bare, 1):
        for match in call.finditer(line):
            yield number, "banned", f"{match[1]}: use {banned[match[1]]}"


def rule_includes(source):
    if not source.is_c:
        return
    parts = source.path.split("/")
    place, name = parts[0], parts[1] if len(parts) > 2 else ""
    for number, line in enumerate(source.lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match[1]
        target = header.split("/")
        generated = header.endswith(".pb-c.h") or target[-1].startswith("embed_")
        if generated:
            continue
        if target[0] not in ("shared", "services", "tests") or ".." in target:
            yield number, "include", f'"{header}": write the path from the top of the checkout'
        elif place == "shared" and target[0] == "shared" and target[1] != name:
            if FLOORS.get(target[1], 9) >= FLOORS.get(name, -1):
                yield number, "floor", f"shared/{name} may not use shared/{target[1]}"
        elif place == "shared" and target[0] != "shared":
            yield number, "floor", f"shared/{name} may not use {header}"
        elif place == "services" and target[0] == "services" and target[1] != name:
            yield number, "service", f"services/{name} may not include services/{target[1]}"
        elif place == "services" and target[0] == "tests":
            yield number, "service", f"services/{name} may not include {header}"


def rule_library(source):
    if not source.path.startswith("shared/") or source.path == "shared/base/log.c":
        return
    for number, line in enumerate(source.bare, 1):
        match = NOT_IN_LIBRARIES.search(line)
        if match:
            yield number, "library", f"{match[1] or match[2]}: library code returns errors"


def rule_header(source):
    # *_body.h is loops that a source includes once for each instruction set
    if source.path.endswith("_body.h"):
        return
    if source.path.endswith(".h") and "#pragma once" not in source.lines[:30]:
        yield 1, "header", "lacks #pragma once"


RULES = [rule_size, rule_lines, rule_paths, rule_notes, rule_banned, rule_includes, rule_library,
         rule_header]


def check_file(path):
    source = Source(path)
    return [(path, *breach) for rule in RULES for breach in rule(source)]


def check_format(paths):
    if not paths:
        return []
    result = subprocess.run(["clang-format", "--dry-run", "--Werror", *paths], cwd=TOP,
                            capture_output=True, text=True)
    found = re.findall(r"^(.+?):(\d+):\d+: error: ", result.stderr, re.M)
    # one line of the file may have several places to change
    return sorted({(path, int(line), "format", "not as clang-format writes it; scripts/check --fix")
                   for path, line in found})


def files():
    """What git knows or would add."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True).stdout
    return sorted(p for p in set(listing.split("\0"))
                  if p and (TOP / p).is_file() and not (TOP / p).is_symlink())


def main():
    if sys.argv[1:] not in ([], ["--fix"]):
        print("usage: scripts/check [--fix]", file=sys.stderr)
        return 2
    paths = files()
    c_files = [p for p in paths if p.endswith((".c", ".h"))]
    if sys.argv[1:] and c_files:
        subprocess.run(["clang-format", "-i", *c_files], cwd=TOP, check=True)
    breaches = []
    cores = os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        formats = pool.map(check_format, [c_files[i::cores] for i in range(cores)])
        for path in paths:
            breaches += check_file(path)
        for found in formats:
            breaches += found
    for path, number, rule, text in sorted(breaches):
        print(f"{path}:{number}: {rule}: {text}")
    print(f"hone: house rules: {len(paths)} files, {len(breaches)} breaches", file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
