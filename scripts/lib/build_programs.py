#!/usr/bin/env python3
"""Builds the programs of a preset (default: release) and nothing else; quick when all is there.

Called by scripts/hone and scripts/quickstart inside the environment.
"""
import sys

import building


def programs():
    """The program of each service, as CMake names it."""
    names = [main.parent.name for main in sorted(building.TOP.glob("services/*/main.c"))]
    return ["hone" if name == "cli" else f"hone-{name}" for name in names]


def main():
    preset = sys.argv[1] if len(sys.argv) > 1 else "release"
    return 0 if building.build(preset, programs, configure=False) else 1


if __name__ == "__main__":
    sys.exit(main())
