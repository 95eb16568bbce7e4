#!/bin/bash
# Training as PyTorch does it: from the same weights, with the same batches, the losses of 50 steps
# are the same. ResNet-20 with BatchNorm, SGD with Nesterov momentum 0.9, rate 0.05, batch 32, fp32.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
driver=${HONE_BUILD_DIR:-$top/build/release}/tests/tools/train_driver
work=$(mktemp -d "${TMPDIR:-/tmp}/hone-torch.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo 1..1
name="50 losses are PyTorch's"
if ! python3 -c 'import torch, numpy' 2>/dev/null; then
    echo "ok 1 - $name # SKIP PyTorch is not here (scripts/dev --bench installs it)"
    exit 0
fi
if [[ ! -x $driver ]]; then
    echo "# $driver is missing"
    echo "not ok 1 - $name"
    exit 1
fi

# Pictures that can be told apart: noise over a pattern for each class.
compare() {
    python3 - "$work" <<'PY' || return 1
import sys
import numpy as np
rng = np.random.default_rng(1)
labels = rng.integers(0, 10, 20 * 32)
patterns = rng.normal(size=(10, 3, 32, 32))
samples = patterns[labels] * 0.5 + rng.normal(size=(20 * 32, 3, 32, 32))
np.save(sys.argv[1] + "/x.npy", samples.astype(np.float32))
np.save(sys.argv[1] + "/y.npy", labels.astype(np.int64))
PY
    "$driver" dump resnet20 "$work" &&
        "$driver" run resnet20 --batch 32 --slice 32 --precision fp32 --steps 50 --rate 0.05 \
            --samples "$work/x.npy" --labels "$work/y.npy" >"$work/hone.txt" &&
        python3 "$top/scripts/lib/bench/torch_train.py" resnet20 --batch 32 --steps 50 \
            --weights "$work" --samples "$work/x.npy" --labels "$work/y.npy" >"$work/torch.txt" &&
        python3 - "$work" <<'PY'
import sys
import numpy as np
hone, torch = (np.loadtxt(f"{sys.argv[1]}/{name}.txt") for name in ("hone", "torch"))
assert len(hone) == len(torch) == 50, (len(hone), len(torch))
off = np.abs(hone - torch) / np.maximum(1, np.abs(torch))
print(f"# losses {torch[0]:.4f} to {torch[-1]:.4f}; most that they differ: {off.max():.2e}")
for i in np.nonzero(off > 1e-3)[0][:5]:
    print(f"# step {i}: {hone[i]:.6f}, PyTorch {torch[i]:.6f}")
assert torch[-1] < 0.7 * torch[0], "nothing was learned"
sys.exit(bool((off > 1e-3).any()))
PY
}
if compare; then
    echo "ok 1 - $name"
else
    echo "not ok 1 - $name"
    exit 1
fi
