#!/bin/bash
# A job for a small file: bits chosen layer by layer, the packed file, and the way back to ONNX.
source "$(dirname "$0")/lib.sh"
export HONE_HOME=$work/home
export HONE_MEASURE_SECONDS=0.3 # no figure is judged here
trap '"$hone" down >/dev/null 2>&1; rm -rf "$work"' EXIT

demo=$work/demo
out=$work/out
"$hone" demo "$demo" >/dev/null
check "a job for a small file ends well" "$hone" optimize "$demo/model.onnx" --data "$demo/data" \
    --out "$out" --objective size --space precision --json
result=$out/result.json
[[ -f $result ]] || { echo "# no result: the rest cannot run"; echo "1..$n"; exit 1; }
check "the packed file is there, and as large as reported" bash -c '
    python3 - "$1" "$(stat -c %s "$1/model.hone")" <<"PY"
import json, sys
r = json.load(open(sys.argv[1] + "/result.json"))
x = [x for x in r["results"] if x["file"] == "model.onnx"][0]
print(x["packed_bytes"], r["plain_int8"]["packed_bytes"], r["baseline"]["bytes"])
assert x["packed_bytes"] == int(sys.argv[2])
assert x["packed_bytes"] < r["plain_int8"]["packed_bytes"] < x["bytes"]
assert x["packed_bytes"] * 5 < r["baseline"]["bytes"]
PY' - "$out"
check "layers have as many bits as suits them" json "$out/manifest.json" \
    'any(p in ("int4", "int5", "int6") for x in r["finals"] for p in x["layers"].values())'
check "what it unpacks to is model.onnx" bash -c \
    '"$1" unpack "$2/model.hone" --out "$2/again.onnx" && cmp "$2/model.onnx" "$2/again.onnx"' \
    - "$hone" "$out"
check "packed again it is the same file" bash -c \
    '"$1" pack "$2/model.onnx" --out "$2/again.hone" && cmp "$2/model.hone" "$2/again.hone"' \
    - "$hone" "$out"
check "packed networks are scored like others" bash -c '
    "$1" eval "$2/model.hone" --data "$3" --json >"$2/eval.json" && python3 - "$2" <<"PY"
import json, sys
e = json.load(open(sys.argv[1] + "/eval.json"))
r = json.load(open(sys.argv[1] + "/result.json"))
x = [x for x in r["results"] if x["file"] == "model.onnx"][0]
print(e, x["value"])
sys.exit(0 if abs(e["value"] - x["value"]) < 1e-9 else 1)
PY' - "$hone" "$out" "$demo/data"
check "a packed network can be optimized like others" bash -c '
    "$1" pack "$2/model.onnx" --out "$3.hone" &&
    "$1" optimize "$3.hone" --data "$2/data" --out "$3" --budget 1s --space precision' \
    - "$hone" "$demo" "$work/packed"
check "its size is that of the ONNX file" json "$work/packed/result.json" \
    'r["baseline"]["bytes"] == '"$(stat -c %s "$demo/model.onnx")"
for job in out packed; do
    check "every number of the job '$job' is found again, sizes of packed files too" \
        "$hone" reproduce "$work/$job/manifest.json" --seconds 0 --json
done
echo "1..$n"
exit $((failed > 0))
