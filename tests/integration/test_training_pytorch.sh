#!/bin/bash
# Training as PyTorch does it, from the same weights with the same batches: ResNet-20 with
# BatchNorm, SGD with Nesterov momentum 0.9, rate 0.05, batch 32, fp32, 50 steps.
#
# A network's training at such a rate doubles a rounding error every step or two, so that even two
# layouts of PyTorch itself soon differ by some hundredths. PyTorch in double precision is therefore
# the truth: the first losses (forward, then gradients, then momentum) must be right to rounding,
# and of all 50 ours must not be further off than PyTorch's own in fp32.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
driver=${HONE_BUILD_DIR:-$top/build/release}/tests/tools/train_driver
work=$(mktemp -d "${TMPDIR:-/tmp}/hone-torch.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo 1..1
name="losses are PyTorch's"
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
make_samples() {
    python3 - "$work" <<'PY'
import sys
import numpy as np
rng = np.random.default_rng(1)
labels = rng.integers(0, 10, 4 * 32)
patterns = rng.normal(size=(10, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
samples = patterns[labels] + 0.1 * rng.normal(size=(4 * 32, 3, 32, 32))
np.save(sys.argv[1] + "/x.npy", samples.astype(np.float32))
np.save(sys.argv[1] + "/y.npy", labels.astype(np.int64))
PY
}

# torch_losses NAME OPTIONS...
torch_losses() {
    local out=$work/$1.txt
    shift
    python3 "$top/scripts/lib/bench/torch_train.py" resnet20 --batch 32 --steps 50 \
        --weights "$work" --samples "$work/x.npy" --labels "$work/y.npy" "$@" >"$out"
}

judge() {
    python3 - "$work" <<'PY'
import sys
import numpy as np
names = ("hone", "double", "plain", "last")
hone, truth, plain, last = (np.loadtxt(f"{sys.argv[1]}/{name}.txt") for name in names)
assert all(len(x) == 50 for x in (hone, truth, plain, last))
scale = np.maximum(1, np.abs(truth))
ours = np.abs(hone - truth) / scale
peers = np.maximum(np.abs(plain - truth), np.abs(last - truth)) / scale
print(f"# losses {truth[0]:.4f} to {truth[-1]:.6f}; first three off by "
      + ", ".join(f"{x:.1e}" for x in ours[:3])
      + f"; most: ours {ours.max():.1e}, PyTorch's fp32 {peers.max():.1e}")
assert truth[-1] < 0.1 * truth[0], "nothing was learned"
assert (ours[:3] < (1e-5, 2e-4, 5e-3)).all(), ours[:3]
assert ours.max() < max(1e-3, 3 * peers.max())
assert ours[-10:].max() < 1e-3, "the ends differ"
PY
}

compare() {
    make_samples && "$driver" dump resnet20 "$work" &&
        "$driver" run resnet20 --batch 32 --slice 32 --precision fp32 --steps 50 --rate 0.05 \
            --samples "$work/x.npy" --labels "$work/y.npy" >"$work/hone.txt" &&
        torch_losses double --double && torch_losses plain && torch_losses last --channels-last &&
        judge
}
if compare; then
    echo "ok 1 - $name"
else
    echo "not ok 1 - $name"
    exit 1
fi
