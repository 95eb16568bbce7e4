#!/bin/bash
# The whole system with real parts, through the command line: the main job on the demo, what it
# leaves behind, the same job again, and jobs that must fail with one clear sentence.
source "$(dirname "$0")/lib.sh"
export HONE_HOME=$work/home
export HONE_MEASURE_SECONDS=0.3 # no figure is judged here
trap '"$hone" down >/dev/null 2>&1; rm -rf "$work"' EXIT

demo=$work/demo
check "the demo is written" "$hone" demo "$demo"
check "the main job ends well" "$hone" optimize "$demo/model.onnx" --data "$demo/data" \
    --out "$work/out" --space precision --json
[[ -f $work/out/result.json ]] || { echo "# no result: the rest cannot run"; echo "1..$n"; exit 1; }
result=$work/out/result.json
check "the result is faster than the original" \
    json "$result" 'r["results"][0]["speedup_fp32"] > 1'
check "model.onnx is one of the results and within the limit" json "$result" \
    '[x for x in r["results"] if x["file"] == "model.onnx"][0]["drop_upper95_points"] <= 1.0'
check "ONNX Runtime gives the same accuracy within 0.2 point" json "$result" \
    'all(abs(x["value"] - x["peers"]["onnxruntime"]["value"]) <= 0.002 for x in r["results"])'
check "every documented field is there" json "$result" \
    'all(k in x for x in r["results"] for k in ("file metric value n p50_us p90_us threads batch "
     "macs parameters bytes drop_points drop_upper95_points speedup_fp32 "
     "speedup_int8 peers").split())'
check "eval of the exported file gives the value that was reported" bash -c '
    "$1" eval "$2/model.onnx" --data "$3" --preprocess \
        "$(python3 -c "import json,sys
print(json.load(open(sys.argv[1]))[\"inputs\"][\"preprocess\"])" "$2/manifest.json")" \
        --json >"$2/eval.json" &&
    python3 - "$2" <<"PY"
import json, sys
e = json.load(open(sys.argv[1] + "/eval.json"))
r = json.load(open(sys.argv[1] + "/result.json"))
chosen = [x for x in r["results"] if x["file"] == "model.onnx"][0]
print(e, chosen["value"])
sys.exit(0 if e["n"] == chosen["n"] and abs(e["value"] - chosen["value"]) < 1e-9 else 1)
PY' - "$hone" "$work/out" "$demo/data"
check "the report is one file that loads nothing" bash -c \
    'grep -q "<svg" "$1" && ! grep -qE "<script|src=|https?://" "$1"' - "$work/out/report.html"

# ---- the same numbers again ----
check "every number of the result is found again" \
    "$hone" reproduce "$work/out/manifest.json" --seconds 0
check "times, too, which a busy machine may have others of" bash -c '
    "$1" reproduce "$2/manifest.json" --seconds 0.05 --json >"$3"
    code=$?
    python3 -c "import json,sys; r=json.load(open(sys.argv[1]))
times = [f for f in r[\"findings\"] if f[\"number\"].startswith(\"p50 us\")]
print(len(times), r[\"differs\"])
sys.exit(not (len(times) >= 4 and (r[\"differs\"] > 0) == (int(sys.argv[2]) == 4)))" \
        "$3" "$code"' - "$hone" "$work/out" "$work/times.json"
check "also by who has the files at other places" bash -c '
    cp -r "$2" "$3" && cp "$4/model.onnx" "$3/../elsewhere.onnx" &&
    sed -i "s|\"model_path\": .*|\"model_path\": \"gone\",|" "$3/manifest.json" &&
    "$1" reproduce "$3/manifest.json" --model "$3/../elsewhere.onnx" --data "$4/data" \
        --seconds 0 --json >"$3.json" &&
    python3 -c "import json,sys; r=json.load(open(sys.argv[1]))
sys.exit(not (r[\"reproduced\"] and r[\"same\"] > 50))" "$3.json"' \
    - "$hone" "$work/out" "$work/copy" "$demo"
check "an accuracy that is another one is named" fails 4 "top1 .* DIFFERS" bash -c '
    python3 - "$2" <<"PY"
import json, sys
path = sys.argv[1] + "/manifest.json"
m = json.load(open(path))
for a in m["finals"][0]["accuracies"]:
    a["value"] += 0.05
json.dump(m, open(path, "w"))
PY
    "$1" reproduce "$2/manifest.json" --model "$3/model.onnx" --seconds 0' \
    - "$hone" "$work/copy" "$demo"
cp "$work/out/manifest.json" "$work/copy/manifest.json"
printf x >>"$work/copy/report.html"
check "a file that was changed is named" fails 4 "DIFFERS" \
    "$hone" reproduce "$work/copy/manifest.json" --seconds 0
rm "$work/copy/model.onnx"
check "so is one that is missing" fails 4 "missing +DIFFERS" \
    "$hone" reproduce "$work/copy/manifest.json" --seconds 0
check "other data are named" fails 4 "sha256, packed .* DIFFERS" bash -c '
    cp -r "$2/data" "$3" && rm "$(find "$3/test" -name "*.png" | sort | head -1)" &&
    "$1" reproduce "$4/manifest.json" --data "$3" --seconds 0' \
    - "$hone" "$demo" "$work/fewer" "$work/out"
check "what is no manifest is refused" fails 1 "no manifest" \
    "$hone" reproduce "$work/out/result.json"

"$hone" optimize "$demo/model.onnx" --data "$demo/data" --out "$work/out2" \
    --space precision --json \
    >"$work/again.jsonl"
check "the same job again reuses what was computed" bash -c \
    '[[ $(grep -c "\"type\":\"reused\"" "$1") -ge 5 ]]' - "$work/again.jsonl"
check "and gives the same file" cmp "$work/out/model.onnx" "$work/out2/model.onnx"
check "both jobs are listed as succeeded" bash -c \
    '[[ $("$1" jobs --json | grep -c "\"state\": \"succeeded\"") -ge 2 ]]' - "$hone"

check "plain int8 is scored on the test part, too" json "$result" \
    'r["plain_int8"]["n"] == r["baseline"]["n"] and 0 < r["plain_int8"]["value"] <= 1'

# ---- what is asked for ----
check "a budget that is over leaves the first verified network" bash -c '
    "$1" optimize "$2/model.onnx" --data "$2/data" --out "$3" --budget 1s --json >"$3.jsonl" &&
    grep -q "\"type\":\"budget\"" "$3.jsonl"' - "$hone" "$demo" "$work/hurried"
check "which is plain int8" json "$work/hurried/result.json" \
    '[x["name"] for x in r["results"]] == [r["plain_int8"]["name"]]'
check "a limit that nothing can keep hands back the original" fails 3 "original stays" \
    "$hone" optimize "$demo/model.onnx" --data "$demo/data" --max-drop 0 --out "$work/none" \
    --space precision
check "after further rounds of gentler networks" json "$work/none/manifest.json" \
    'sum("gentler" in d for d in r["decisions"]) == 2'
check "and the model is the user's own" cmp "$work/none/model.onnx" "$demo/model.onnx"
check "throughput is measured on all processors" bash -c '
    "$1" optimize "$2/model.onnx" --data "$2/data" --out "$3" --objective throughput \
        --space precision --json >/dev/null' - "$hone" "$demo" "$work/throughput"
check "in batches of 64, as images a second" json "$work/throughput/result.json" \
    '(all(x["threads"] == len(__import__("os").sched_getaffinity(0)) and x["batch"] == 64 and
         abs(x["images_per_s"] * x["p50_us"] / 64e6 - 1) < 0.01 for x in r["results"]) and
     "images/s instead of" in r["verdict"])'
check "a limit on time asks for what loses least within it" bash -c '
    "$1" optimize "$2/model.onnx" --data "$2/data" --out "$3" --max-latency 1s --max-bytes 1M \
        --space precision --json >/dev/null || test $? = 3' - "$hone" "$demo" "$work/within"
check "and the drop has no limit of its own" json "$work/within/result.json" \
    '(r["limit"]["max_us"] == 1e6 and r["limit"]["max_bytes"] == 2**20 and
     r["limit"]["max_drop_points"] is None)'
check "a limit that no network can keep is refused at once" fails 2 "max-bytes" \
    "$hone" optimize "$demo/model.onnx" --data "$demo/data" --max-bytes 3 --out "$work/bad"

# ---- bad input ----
optimize() { "$hone" optimize "$@" --out "$work/bad"; }
check "a model that is not there is named" fails 1 "no-such.onnx" optimize "$work/no-such.onnx" \
    --data "$demo/data"
head -c 3000 "$demo/model.onnx" >"$work/cut.onnx"
check "a truncated model is named" fails 1 "cut.onnx" optimize "$work/cut.onnx" --data "$demo/data"
head -c 5000 /dev/urandom >"$work/random.onnx"
check "random bytes are no model" fails 1 "random.onnx" optimize "$work/random.onnx" \
    --data "$demo/data"
mkdir -p "$work/one/train/a" "$work/one/test/a"
find "$demo/data/train" -name '*.png' | sort | head -n 20 | xargs cp -t "$work/one/train/a"
find "$demo/data/test" -name '*.png' | sort | head -n 5 | xargs cp -t "$work/one/test/a"
check "data with one class are refused" fails 1 "class" optimize "$demo/model.onnx" \
    --data "$work/one"
cp -r "$demo/data" "$work/many"
for part in train test; do
    cp -r "$work/one/$part/a" "$work/many/$part/aa"
    cp -r "$work/one/$part/a" "$work/many/$part/bb"
done
check "more classes than outputs are refused with both numbers" fails 1 "12 classes.*10 outputs" \
    optimize "$demo/model.onnx" --data "$work/many"
mkdir -p "$work/empty/train" "$work/empty/test"
check "empty data are refused" fails 1 "empty" optimize "$demo/model.onnx" --data "$work/empty"
check "a bad preprocessing is refused and quoted" fails 1 "sclae" optimize "$demo/model.onnx" \
    --data "$demo/data" --preprocess 'sclae=1'
check "what may not change is refused and quoted" fails 1 "wieghts" optimize "$demo/model.onnx" \
    --data "$demo/data" --space precision,wieghts
check "a wrong option is named and the nearest shown" fails 2 "max-drop" \
    "$hone" optimize "$demo/model.onnx" --data "$demo/data" --max-dorp 1
check "a limit that is no number is refused" fails 2 "max-drop" \
    "$hone" optimize "$demo/model.onnx" --data "$demo/data" --max-drop many

echo "1..$n"
exit $((failed > 0))
