#!/bin/bash
# The redesign through the command line, with real parts: students are designed, priced, trained,
# built and proved within the budget; a job that is cancelled leaves the best it had.
source "$(dirname "$0")/lib.sh"
export HONE_HOME=$work/home
export HONE_MEASURE_SECONDS=0.3 # no figure is judged here
trap '"$hone" down >/dev/null 2>&1; rm -rf "$work"' EXIT

demo=$work/demo
budget=200
"$hone" demo "$demo" >/dev/null
begin=$SECONDS
"$hone" optimize "$demo/model.onnx" --data "$demo/data" --out "$work/out" \
    --budget "${budget}s" --json >"$work/job.jsonl" 2>"$work/job.err"
code=$?
check "a job with students ends well" bash -c 'tail -n 3 "$1"; exit "$2"' - "$work/job.err" $code
echo "# it took $((SECONDS - begin)) s of $budget"
result=$work/out/result.json
[[ -f $result ]] || { echo "# no result: the rest cannot run"; echo "1..$n"; exit 1; }

check "there is a result before the students begin" bash -c \
    'grep -n "\"type\":\"result\"" "$1" | head -1 | cut -d: -f1 >"$1.a"
     grep -n "\"type\":\"rung\"" "$1" | head -1 | cut -d: -f1 >"$1.b"
     [[ $(cat "$1.a") -lt $(cat "$1.b") ]]' - "$work/job.jsonl"
check "students were designed and trained" json "$result" \
    'len(r["students"]) > 0 and any(s["rungs"] for s in r["students"])'
check "every student has a design, a time and a cost" json "$result" \
    'all(s["design"].endswith("head") and s["predicted_us"] > 0 and s["macs"] > 0
         for s in r["students"])'
check "the best of them were proved on the test part" json "$result" \
    'any(x["name"].startswith("student-") and x["n"] == r["baseline"]["n"] for x in r["results"])'
check "the chosen network keeps the limit" json "$result" \
    '[x for x in r["results"] if x["file"] == "model.onnx"][0]["drop_upper95_points"] <= 1.0'
check "eval of a student's file gives the value that was reported" bash -c '
    name=$(python3 -c "import json,sys
print([x[\"file\"] for x in json.load(open(sys.argv[1]))[\"results\"]
       if x[\"name\"].startswith(\"student-\")][0])" "$2/result.json")
    "$1" eval "$2/$name" --data "$3" --json >"$2/eval.json" && python3 - "$2" "$name" <<"PY"
import json, sys
e = json.load(open(sys.argv[1] + "/eval.json"))
r = json.load(open(sys.argv[1] + "/result.json"))
x = [x for x in r["results"] if x["file"] == sys.argv[2]][0]
print(e, x["value"])
sys.exit(0 if abs(e["value"] - x["value"]) < 1e-9 else 1)
PY' - "$hone" "$work/out" "$demo/data"
echo "1..$n"
exit $((failed > 0))
