#!/bin/bash
# The test runner counts what test programs print, and what they do instead of printing.
set -euo pipefail

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp -r "$top/scripts" "$tree"
mkdir -p "$tree/tests/unit" "$tree/logs"
cd "$tree"

count=0
# counts NAME EXPECTED: a program with the text of stdin gives "passed failed skipped: first text"
counts() {
    local got
    count=$((count + 1))
    { echo '#!/bin/bash'; cat; } >tests/unit/test_it.sh
    chmod +x tests/unit/test_it.sh
    got=$(python3 -B - <<'END'
import os, pathlib, sys
sys.path.insert(0, "scripts/lib")
import run_tests
test = run_tests.Test("unit/test_it.sh", ["tests/unit/test_it.sh"])
o = run_tests.run(test, pathlib.Path("logs"), dict(os.environ), 2)
texts = [name for name, _ in o.failures] + o.skips
print(o.passed, len(o.failures), len(o.skips), "; ".join(texts) + o.note)
END
    )
    if [[ $got == "$2" ]]; then
        echo "ok $count - $1"
    else
        printf 'not ok %d - %s\n# got      %s\n# expected %s\n' "$count" "$1" "$got" "$2"
    fi
}

counts 'passes and failures' '2 1 0 b' \
    <<<'echo 1..3; echo ok 1 - a; echo not ok 2 - b; echo ok 3 - c'
counts 'a skipped test with its reason' '0 0 1 b: no such CPU' \
    <<<'echo "skip: no such CPU"; echo "ok 1 # SKIP b"'
counts 'a reason in the line itself' '1 0 1 b: why' <<<'echo ok 1 - a; echo "ok 2 - b # SKIP why"'
counts 'a program that is skipped' '0 0 1 all: nothing' <<<'echo "1..0 # SKIP nothing"'
counts 'a result behind other output' '1 0 0 ' <<<'printf "text "; echo ok 1 - a'
counts 'a crash' '1 1 0 crashed: SIGSEGV' <<<'echo 1..2; echo ok 1 - a; kill -SEGV $$'
counts 'an early end' '1 1 0 ended after 1 of 2 tests with status 0' <<<'echo 1..2; echo ok 1 - a'
counts 'a bad status' '1 1 0 ended with status 3' <<<'echo ok 1 - a; exit 3'
counts 'silence' '0 1 0 printed no results' <<<'true'
counts 'a hang' '0 1 0 did not end within 2 s' <<<'sleep 60'
counts 'a group whose setup failed' '0 1 0 g GROUP SETUP' \
    <<<'echo 1..5; echo "not ok 0 - g GROUP SETUP"; exit 1'
counts 'what is left running is ended' '1 0 0   (left 1 running, ended)' \
    <<<'setsid sleep 60 >/dev/null & echo ok 1 - a'
echo "1..$count"
