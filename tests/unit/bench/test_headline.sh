#!/bin/bash
# The benchmark of whole jobs (scripts/bench headline, ablations), against a stand-in for hone.
exec env PYTHONDONTWRITEBYTECODE=1 HONE_TOP="$PWD" python3 "$(dirname "$0")/headline_cases.py"
