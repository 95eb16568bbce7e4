#!/bin/bash
# Each house rule reports its breach with file and line, and a clean tree has none.
set -euo pipefail

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cd "$tree"
git init -q .
mkdir -p scripts/lib shared/{base,graph,data,nn} services/{ingest,cli}
cp "$top/scripts/lib/house_rules.py" scripts/lib/
cp "$top/.clang-format" .

count=0
# check NAME EXPECTED: the rules' output holds EXPECTED, or nothing at all where that is empty
check() {
    local output status=0 verdict='not ok'
    count=$((count + 1))
    output=$(python3 -B scripts/lib/house_rules.py 2>&1) || status=$?
    if [[ -z $2 ]]; then
        [[ $status != 0 ]] || verdict=ok
    elif [[ $status == 1 && $output == *"$2"* ]]; then
        verdict=ok
    fi
    echo "$verdict $count - $1"
    [[ $verdict == ok ]] || sed 's/^/# /' <<<"$output"
}
# breach NAME FILE EXPECTED: FILE, whose text comes from stdin, breaks a rule
breach() {
    cat >"$2"
    check "$1" "$2:$3"
    rm "$2"
}

cat >shared/graph/good.c <<'END'
/* strcpy(a, b) and exit(1) in comments are harmless */
#include "hone/v1/job.pb-c.h"
#include "shared/base/err.h"

int graph_good(struct thing *t)
{
    return t->system("printf(atoi) exit(1)");
}
END
check 'a clean tree has no breach' ''
breach 'banned functions' shared/base/a.c '1: banned: strcpy' <<<'int x = strcpy(a, b);'
breach 'number parsing' services/cli/a.c '1: banned: strtol' <<<'int x = strtol (a, b, 10);'
breach 'exit in a library' shared/nn/a.c '1: library: exit' <<<'int x = exit(1);'
breach 'stderr in a library' shared/nn/a.c '1: library: fprintf' <<<'int x = fprintf(stderr, "");'
breach 'a higher floor' shared/base/a.c '1: floor' <<<'#include "shared/graph/graph.h"'
breach 'a floor beside' shared/data/a.c '1: floor' <<<'#include "shared/nn/plan.h"'
breach 'a service from a floor' shared/nn/a.c '1: floor' <<<'#include "services/cli/cli.h"'
breach 'another service' services/ingest/a.c '1: service' <<<'#include "services/cli/cli.h"'
breach 'a bare include' services/cli/a.c '1: include' <<<'#include "cli.h"'
breach 'a header without guard' services/cli/a.h '1: header' <<<'int a;'
breach 'format' services/cli/a.c '2: format' <<<$'int a;\nint   b;'
breach 'a long line' a.py '1: columns' <<<"# $(printf '%0100d' 0)"
breach 'a tab' a.py '2: tab' <<<$'# a\n\tb = 1'
breach 'a path of one machine' a.md '1: path' <<<"see /""home/me/x"
breach 'a note without issue' a.py '1: note' <<<"# TO""DO: more"
breach 'a long file' a.py '901: length' < <(seq 901)
breach 'a big file' a.bin '1: size' < <(head -c 1100000 /dev/zero)
echo "# TO""DO(#12): more" >a.py
check 'a note with an issue is fine' ''
echo "1..$count"
