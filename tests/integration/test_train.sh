#!/bin/bash
# hone train from end to end, on the demo's pictures: it learns, says what it did, is interrupted
# and goes on to the same file, learns from a teacher, quantized and without labels, and refuses
# what makes no sense.
source "$(dirname "$0")/lib.sh"

# last FILE EXPRESSION: a Python expression over the last line of JSON `r` (and all lines) is true
last() {
    python3 - "$1" "$2" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
r = lines[-1]
value = eval(sys.argv[2])
print(sys.argv[2], "=", value)
sys.exit(0 if value else 1)
PY
}

demo=$work/demo model=$work/demo/model.onnx
"$hone" demo "$demo" >/dev/null
# a tenth of the pictures, for what need not learn much
for part in train test; do
    for class in "$demo/data/$part"/*/; do
        mkdir -p "$work/small/$part/$(basename "$class")"
        for picture in "$class"*[05].png; do
            [[ -e $picture ]] && ln -s "$picture" "$work/small/$part/$(basename "$class")/"
        done
    done
done
if [[ -z $(find "$work/small" -name '*.png' -print -quit) ]]; then
    cp -r "$demo/data/." "$work/small"
fi

train() { "$hone" train "$model" --data "$demo/data" "$@"; }
quick() { "$hone" train "$model" --data "$work/small" --batch 50 "$@"; }

# ---- learning ----
train --reinit --epochs 1 --batch 50 --out "$work/new.onnx" --curve "$work/curve.json" --json \
    >"$work/new.jsonl" 2>"$work/new.err"
check "a network with new weights learns" last "$work/new.jsonl" 'r["value"] > 0.2'
check "a line for each epoch, then the result" last "$work/new.jsonl" \
    '[l["type"] for l in lines] == ["epoch", "result"] and len(r["curve"]) == 1'
check "every documented field is there" last "$work/new.jsonl" \
    'all(k in r for k in ("out metric value n epochs preprocess preprocess_source macs parameters "
     "precision threads seed seconds images_per_second curve").split())'
check "the curve is written" python3 -c '
import json, sys
assert [e["epoch"] for e in json.load(open(sys.argv[1]))["epochs"]] == [1]' "$work/curve.json"
"$hone" eval "$work/new.onnx" --data "$demo/data" --json >"$work/eval.json"
check "eval of the file gives the value that was reported" bash -c \
    'cat "$1" "$2" >"$3"; python3 - "$3" <<"PY"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
e, r = lines[-1], lines[-2]
print(e, r["value"])
sys.exit(0 if e["preprocess_source"] == "of the network" and abs(e["value"] - r["value"]) < 1e-9
         else 1)
PY' - "$work/new.jsonl" "$work/eval.json" "$work/both.json"

quick --epochs 1 --learn-from train+search --out "$work/all.onnx" >"$work/all.txt" 2>&1
check "the search part can be learned from, too" \
    grep -q ' to learn from, 0 to look at,' "$work/all.txt"

quick --epochs 1 --lr 0.001 --out "$work/tuned.onnx" --json >"$work/tuned.jsonl" 2>&1
check "a trained network keeps what it knows" last "$work/tuned.jsonl" 'r["value"] > 0.8'

quick --reinit --whiten --identity --keep-scales --decay-shifts --epochs 2 \
    --out "$work/whitened.onnx" --json >"$work/whitened.jsonl" 2>&1
check "beginnings for new weights go together" last "$work/whitened.jsonl" \
    'lines[1]["loss"] < lines[0]["loss"]'

# ---- designs ----
driver=${HONE_BUILD_DIR:-$top/build/release}/tests/tools/design_driver
"$driver" write "conv:16:s2 rep:16*2 rep:32:s2 head" --input 3x32x32 --outputs 10 \
    "$work/branches.onnx" >"$work/branches.txt"
"$hone" train "$work/branches.onnx" --data "$work/small" --batch 50 --reinit --epochs 2 \
    --out "$work/one.onnx" --json >"$work/branches.jsonl" 2>&1
check "branches learn" last "$work/branches.jsonl" 'lines[1]["loss"] < lines[0]["loss"]'
"$hone" inspect "$work/one.onnx" >"$work/one.txt"
check "and run as one convolution" grep -q 'operators   Conv 4, Flatten 1, Gemm 1' "$work/one.txt"

quick --reinit --schedule trapezoid --epochs 3 --out "$work/down.onnx" --trunk "$work/trunk.onnx" \
    --json >"$work/down.jsonl" 2>&1
quick_on() { "$hone" train "$work/trunk.onnx" --data "$work/small" --batch 50 "$@"; }
quick_on --schedule trapezoid --warmup 0.02 --epochs 3 --out "$work/further.onnx" --json \
    >"$work/further.jsonl" 2>&1
check "who goes on from a trunk has learned already" bash -c \
    'cat "$1" "$2" >"$3" && python3 - "$3" <<"PY"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
first, then = lines[3], lines[-1]
print([e["loss"] for e in first["curve"] + then["curve"]])
sys.exit(not then["curve"][0]["loss"] < first["curve"][0]["loss"])
PY' - "$work/down.jsonl" "$work/further.jsonl" "$work/trunks.jsonl"
check "a trunk has its norms, what is written at the end has not" bash -c \
    'grep -q BatchNormalization "$1" && ! grep -q BatchNormalization "$2" &&
     ! grep -q BatchNormalization "$3"' - "$work/trunk.onnx" "$work/down.onnx" "$work/further.onnx"

# ---- stopping ----
long=(--reinit --epochs 3 --threads 2 --seed 7 --precision fp32 --ema 0.9)
quick "${long[@]}" --out "$work/whole.onnx" >"$work/whole.log" 2>&1
timeout -s INT 3 "$hone" train "$model" --data "$work/small" --batch 50 "${long[@]}" \
    --out "$work/parts.onnx" >"$work/parts.log" 2>&1
code=$?
if [[ -e $work/parts.onnx.checkpoint ]]; then
    check "Ctrl-C says how to go on" grep -qE -- "--out .*parts.onnx --resume" "$work/parts.log"
    check "a checkpoint is not overwritten by a new run" \
        fails 1 "a run was stopped there" quick "${long[@]}" --out "$work/parts.onnx"
    check "a checkpoint of other settings is refused by name" \
        fails 1 "seed=7, this run has seed=8" \
        quick "${long[@]}" --seed 8 --out "$work/parts.onnx" --resume
    check "the run goes on" quick "${long[@]}" --out "$work/parts.onnx" --resume
else # a machine so quick that nothing was left to stop, or so slow that nothing had begun
    echo "# the run ended with $code before it could be stopped"
    quick "${long[@]}" --out "$work/parts.onnx" >"$work/parts.log" 2>&1
fi
check "and gives the same file as without the stop" cmp "$work/whole.onnx" "$work/parts.onnx"
check "nothing is left of it" bash -c '[[ ! -e $1 ]]' - "$work/parts.onnx.checkpoint"

# ---- a teacher ----
student=(--teacher "$model" --views 2 --epochs 2 --reinit --flip alternating)
quick "${student[@]}" --out "$work/student.onnx" --json >"$work/student.jsonl" 2>&1
check "a student learns from a teacher" last "$work/student.jsonl" \
    'r["teacher_images_per_second"] > 0 and lines[1]["loss"] < lines[0]["loss"]'
check "the teacher's answers are kept" test -s "$work/student.onnx.teacher"
quick "${student[@]}" --out "$work/student.onnx" --json >"$work/again.jsonl" 2>&1
check "and used again" last "$work/again.jsonl" 'r["teacher_images_per_second"] == 0'

# ---- a quantized network ----
"${driver%/*}/quantize_driver" "$model" "$work/small" auto "$work/int8.onnx" 64
"$hone" train "$work/int8.onnx" --data "$work/small" --batch 50 --teacher "$model" --views 1 \
    --epochs 1 --lr 0.0001 --out "$work/tuned8.onnx" --json >"$work/tuned8.jsonl" 2>&1
check "a quantized network learns from its original, in fp32" last "$work/tuned8.jsonl" \
    'r["precision"] == "fp32" and r["value"] > 0.8 and r["preprocess_source"] == "of the network"'
"$hone" inspect "$work/tuned8.onnx" >"$work/tuned8.txt"
"$hone" inspect "$work/int8.onnx" >"$work/int8.txt"
check "and stays one" bash -c \
    'grep -q DequantizeLinear "$1" && diff <(grep operators "$1") <(grep operators "$2")' - \
    "$work/tuned8.txt" "$work/int8.txt"
check "new weights of one are refused" fails 1 "would not fit its scales" \
    "$hone" train "$work/int8.onnx" --data "$work/small" --reinit --out "$work/none.onnx"

# ---- no labels ----
mkdir -p "$work/mixed/train" "$work/mixed/test"
for part in train test; do
    find "$work/small/$part" -name '*.png' | while read -r picture; do
        ln -s "$(readlink -f "$picture")" \
            "$work/mixed/$part/$(basename "$(dirname "$picture")")-$(basename "$picture")"
    done
done
pre=$(tail -n 1 "$work/tuned8.jsonl" |
    python3 -c 'import json; print(json.loads(input())["preprocess"])')
"$hone" train "$model" --data "$work/mixed" --preprocess "$pre" --batch 50 --teacher "$model" \
    --views 1 --epochs 1 --lr 0.001 --out "$work/agrees.onnx" --json >"$work/agrees.jsonl" 2>&1
check "without labels a teacher says what is right" last "$work/agrees.jsonl" \
    'r["metric"] == "agreement" and r["value"] > 0.8 and lines[0]["search_accuracy"] > 0.8'

# ---- features ----
train --teacher "$model" --views 1 --epochs 1 --reinit --batch 50 --features auto \
    --out "$work/features.onnx" >"$work/features.log" 2>&1
check "the pairs of features are said" grep -qE "^features +[^ ]+=[^ ]+ \[" "$work/features.log"
check "and their loss" grep -qE "^epoch +1 of 1 .* features [0-9.]+" "$work/features.log"
check "features that do not go together are refused" fails 1 "has no value 'nowhere'; its cut" \
    quick --teacher "$model" --features nowhere=nowhere --reinit --out "$work/none.onnx"

# ---- refusals ----
check "features need a teacher" fails 2 "need --teacher" quick --features auto
check "a trained network is not whitened" fails 2 "need --reinit" quick --whiten
check "data are needed" fails 2 "--data is missing" "$hone" train "$model"
check "a mistyped choice" fails 2 "'sideways' is none of" quick --flip sideways
check "a teacher's options need one" fails 2 "need --teacher" quick --views 3
check "nothing to go on from" fails 1 "no checkpoint to go on from" \
    quick --resume --out "$work/none.onnx"
check "more in a batch than there is" fails 1 "too few for a batch" \
    quick --batch 60000 --out "$work/none.onnx"
check "a crop larger than the picture" fails 1 "crop of 99" quick --crop 99 --out "$work/none.onnx"
check "a folder that is not there" fails 1 "No such file" \
    quick --epochs 1 --lr 0.001 --out "$work/nowhere/x.onnx"

echo "1..$n"
[[ $failed == 0 ]]
