#!/bin/bash
# The redesign through the command line, with real parts: students are designed, priced, trained,
# built and proved within the budget; a job that refines this one begins with what it learned.
source "$(dirname "$0")/lib.sh"
export HONE_HOME=$work/home
export HONE_MEASURE_SECONDS=0.3 # no figure is judged here
trap '"$hone" down >/dev/null 2>&1; rm -rf "$work"' EXIT

demo=$work/demo
budget=160
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
    'all((s["design"].split()[-1].startswith("head") or "=" in s["design"])
         and s["predicted_us"] > 0 and s["macs"] > 0 for s in r["students"])'
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

# ---- the same numbers again ----
student=$(python3 -c 'import json,sys
print([x["name"] for x in json.load(open(sys.argv[1]))["results"]
       if x["name"].startswith("student-")][0])' "$result")
check "the manifest says how every student was trained" json "$work/out/manifest.json" \
    'all(g["sha256"] and g["from_sha256"] and g["threads"] > 0 and g["settings"]["epochs"] > 0
         for s in r["students"] for g in s["rungs"])'
check "a student learns again to the same weights" bash -c '
    "$1" reproduce "$2/manifest.json" --seconds 0 --retrain --student "$3" --json >"$2/again.json"
    code=$?
    python3 - "$2/again.json" "$3" <<"PY"
import json, sys
r = json.load(open(sys.argv[1]))
runs = [f for f in r["findings"] if f["subject"].startswith(sys.argv[2] + ", run")
        and f["number"] == "weights, sha256"]
print(runs, [f for f in r["findings"] if f["verdict"] == "differs"])
sys.exit(not (runs and all(f["verdict"] == "same" for f in runs)))
PY
    [[ $? == 0 && $code == 0 ]]' - "$hone" "$work/out" "$student"

check "its file, too" json "$work/out/again.json" \
    'any(f["number"] == "built again, sha256" and f["verdict"] in ("same", "close")
         and f["subject"].startswith("student-") for f in r["findings"])'
check "where no student was chosen there is no control" bash -c '
    out=$("$1" reproduce "$2/manifest.json" --seconds 0 --control 2>&1)
    code=$?
    tail -n 3 <<<"$out"
    chosen=$(python3 -c "import json,sys; print(json.load(open(sys.argv[1]))[\"chosen\"])" \
        "$2/manifest.json")
    [[ $chosen == student-* ]] || { [[ $code == 1 ]] && grep -q "no student was chosen" <<<"$out"; }
    ' - "$hone" "$work/out"
check "a plain network of equal latency stands beside a student that was" bash -c '
    cp -r "$2" "$4" && python3 - "$4/manifest.json" "$3" <<"PY" &&
import json, sys
m = json.load(open(sys.argv[1]))
m["chosen"] = sys.argv[2]
s = [s for s in m["students"] if s["name"] == sys.argv[2]][0]
s["rungs"] = [dict(s["rungs"][0], epochs=6)]  # the control has as many
json.dump(m, open(sys.argv[1], "w"))
PY
    "$1" reproduce "$4/manifest.json" --seconds 0 --control >/dev/null && cat "$4/control.json" &&
    [[ -s $4/control.onnx ]] && python3 - "$4" "$3" <<"PY"
import json, sys
c = json.load(open(sys.argv[1] + "/control.json"))
m = json.load(open(sys.argv[1] + "/manifest.json"))
s = [s for s in m["students"] if s["design"] == c["winner"]["design"]][0]
ok = (c["design"].startswith("conv:") and c["winner"]["name"] == sys.argv[2]
      and c["epochs"] == sum(g["epochs"] for g in s["rungs"]) and 0 <= c["value"] <= 1
      and c["drop_upper95_points"] >= c["drop_points"] and c["p50_us"] > 0)
sys.exit(not ok)
PY' - "$hone" "$work/out" "$student" "$work/control"

# ---- a job that refines this one ----
job=$(python3 -c 'import json,sys; print(json.loads(open(sys.argv[1]).readline())["job"])' \
    "$work/job.jsonl")
check "a job can begin where this one ended" \
    "$hone" refine "$job" --max-drop 20 --budget 40s --out "$work/refined" --json
refined=$work/refined/result.json
[[ -f $refined ]] || { echo "# no result of the refinement"; echo "1..$n"; exit 1; }
check "it has the students of the first, and what they learned" \
    python3 - "$result" "$refined" <<'PY'
import json, sys
old, new = (json.load(open(path)) for path in sys.argv[1:])
later = {s["name"]: s for s in new["students"]}
for s in old["students"]:
    t = later[s["name"]]
    assert t["design"] == s["design"], t
    assert t["rungs"][:len(s["rungs"])] == s["rungs"], t
    assert t["seconds"] >= s["seconds"], t
PY
check "its numbers are found again, too" "$hone" reproduce "$work/refined/manifest.json" \
    --model "$demo/model.onnx" --data "$demo/data" --seconds 0
check "it says what it saved" json "$refined" \
    "(s := r['saved'])['job'] == '$job' and s['training_s'] > 0 and s['prepared_s'] > 0"
check "its limit decides" json "$refined" \
    'r["limit"]["max_drop_points"] == 20 and all(
         x["within_limit"] == (x["drop_upper95_points"] <= 20) for x in r["results"])'
# other hardware, which this machine stands in for
run=$HONE_HOME/run
HONE_REDIS="unix:$run/redis.sock" HONE_STORE="file://$HONE_HOME/artifacts" \
    HONE_SCRATCH="$work/scratch" HONE_TARGET=cpu:avx2 HONE_ISA=avx2 \
    "${hone%/*}/../profiler/hone-profiler" >"$work/profiler.log" 2>&1 &
profiler=$!
trap 'kill $profiler 2>/dev/null; "$hone" down >/dev/null 2>&1; rm -rf "$work"' EXIT
check "a job can be refined for another target" \
    "$hone" refine "$job" --target cpu:avx2 --max-drop 20 --budget 30s --out "$work/moved" --json
kill $profiler
check "where students that learned for the first stand beside the candidates" \
    json "$work/moved/manifest.json" \
    '(r["hardware"]["target"] == "cpu:avx2" and
      any(x["name"].startswith("student-") for x in r["networks"]))'
check "and only what was learned was saved" json "$work/moved/result.json" \
    'r["saved"]["prepared_s"] == 0 and r["saved"]["training_s"] > 0'
check "where the original keeps a limit on time it stays" \
    bash -c '"$1" refine "$2" --max-latency 10s --budget 1s --out "$3" >"$3.txt"; code=$?
             cat "$3.txt"; [[ $code == 3 ]] && grep -q "saved: .* that job $2 had spent" "$3.txt"' \
    - "$hone" "$job" "$work/slow"
check "an unknown job is named" fails 1 "j0b" "$hone" refine j0b --out "$work/none"
echo "1..$n"
exit $((failed > 0))
