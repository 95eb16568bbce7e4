# What the integration tests in bash share: sourced by them. Gives the program under test, a folder
# that is removed at the end, and checks that print TAP.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
hone=${HONE_BUILD_DIR:-$top/build/release}/services/cli/hone
work=$(mktemp -d "${TMPDIR:-/tmp}/hone-it.XXXXXX")
trap 'rm -rf "$work"' EXIT

n=0 failed=0
# check NAME CMD...: one test; CMD's output is shown where it fails
check() {
    local name=$1 out
    shift
    n=$((n + 1))
    if out=$("$@" 2>&1); then
        echo "ok $n - $name"
    else
        failed=$((failed + 1))
        printf '%s\n' "$out" | sed 's/^/# /' | tail -n 30
        echo "not ok $n - $name"
    fi
}

# fails CODE PATTERN CMD...: ends with CODE, and what it says holds PATTERN and is no crash
fails() {
    local code=$1 pattern=$2 out got
    shift 2
    out=$("$@" 2>&1 </dev/null)
    got=$?
    printf '%s (exit %s)\n' "$out" "$got"
    [[ $got == "$code" ]] && grep -qE -- "$pattern" <<<"$out" &&
        ! grep -qi "segmentation\|sanitizer" <<<"$out"
}

# json FILE EXPRESSION: a Python expression over the parsed file `r` is true
json() {
    python3 - "$1" "$2" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
value = eval(sys.argv[2])
print(sys.argv[2], "=", value)
sys.exit(0 if value else 1)
PY
}
