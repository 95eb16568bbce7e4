"""The engine beside its peers: every model, fp32 and int8, batch 1 and 64, interleaved."""
import argparse
import glob
import json
import math
import os
import sys
import tempfile

import numpy as np

import engines

DATA = os.environ.get("HONE_DATA") or os.path.join(engines.TOP, "..", "shared", "data")


def input_of(model):
    """Name and shape of the network's input, the batch as 1."""
    import onnx
    value = onnx.load(model).graph.input[0]
    dims = [d.dim_value if d.dim_value > 0 else 1 for d in value.type.tensor_type.shape.dim]
    return value.name, dims


def with_batch(model, batch, folder):
    """The same file with a fixed batch (peers then optimise for it, as Hone does)."""
    import onnx
    net = onnx.load(model)
    path = os.path.join(folder, f"{os.path.basename(model)}.{batch}.onnx")
    for value in [*net.graph.input, *net.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del net.graph.value_info[:]
    onnx.save(net, path)
    return path


def static_qdq(model, name, shape, folder):
    """ONNX Runtime's own static quantization, QDQ, per channel, calibrated on noise (for time)."""
    from onnxruntime import quantization as q

    class Noise(q.CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(1)
            self.left = [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(8)]

        def get_next(self):
            return self.left.pop() if self.left else None

    path = os.path.join(folder, os.path.basename(model) + ".qdq.onnx")
    ready = os.path.join(folder, os.path.basename(model) + ".ready.onnx")
    try:
        q.shape_inference.quant_pre_process(model, ready, skip_symbolic_shape=True)
    except Exception:  # some exports do not pass it; quantization works without
        ready = model
    q.quantize_static(ready, path, Noise(), quant_format=q.QuantFormat.QDQ, per_channel=True,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
    return path


def hone_int8(model, folder):
    path = os.path.join(folder, os.path.basename(model) + ".hone.onnx")
    engines.hone("bench", model, "--precision", "int8", "--seconds", "0.01", "--write", path)
    return path


def attempt(make, failures):
    """An engine, or None with the reason noted: a peer that cannot run a file is a finding."""
    try:
        return make()
    except Exception as e:
        failures.append(f"{type(e).__name__}: {str(e).splitlines()[0][:150]}")
        return None


def bench(model, precision, batch, threads, args, folder, failures):
    name, dims = input_of(model)
    shape = (batch, *dims[1:])
    fixed = with_batch(model, batch, folder)
    noise = np.random.default_rng(1).standard_normal((8, *dims[1:])).astype(np.float32)
    int8 = precision == "int8"
    ours = hone_int8(model, folder) if int8 else model
    theirs = static_qdq(fixed, name, shape, folder) if int8 else fixed
    makers = [lambda: engines.LibHone("hone", ours, shape, threads),
              lambda: engines.OnnxRuntime("onnxruntime", theirs, shape, threads),
              lambda: engines.OpenVino("openvino", model, shape, noise if int8 else None, threads)]
    runs = [e for e in (attempt(m, failures) for m in makers) if e]
    times = engines.interleaved(runs, args.rounds, args.seconds)
    p50 = {k: v["p50_us"] for k, v in times.items()}
    peers = [v for k, v in p50.items() if k != "hone"]
    return {"model": os.path.basename(model), "precision": precision, "batch": batch,
            "threads": threads, "p50_us": p50, "p90_us": {k: v["p90_us"] for k, v in times.items()},
            "ratio": round(p50["hone"] / min(peers), 3) if peers else None,
            "versions": sorted({r.version for r in runs if hasattr(r, "version")})}


def geometric(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def show(rows):
    columns = sorted({(r["precision"], r["batch"], r["threads"]) for r in rows})
    print(f"\ntime of Hone over the faster peer's, {engines.cpu_name()} (below 1: Hone is faster)")
    print(f"{'':36}" + "".join(f"{p} b{b} t{t}".rjust(13) for p, b, t in columns))
    for model in dict.fromkeys(r["model"] for r in rows):
        cells = {(r["precision"], r["batch"], r["threads"]): r["ratio"] for r in rows
                 if r["model"] == model}
        print(f"{model:36}" + "".join((f"{cells[c]:.3f}" if cells.get(c) else "-").rjust(13)
                                      for c in columns))
    means = [geometric([r["ratio"] for r in rows if r["ratio"] and
                        (r["precision"], r["batch"], r["threads"]) == c]) for c in columns]
    print(f"{'geometric mean':36}" + "".join((f"{m:.3f}" if m else "-").rjust(13) for m in means))


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench engine")
    parser.add_argument("models", nargs="*", help="default: all of the shared collection")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--precision", nargs="*", default=["fp32", "int8"])
    args = parser.parse_args()
    models = args.models or sorted(glob.glob(os.path.join(DATA, "models", "*.onnx")))
    if not models:
        sys.exit(f"scripts/bench: no models in {DATA} (set HONE_DATA)")
    out = os.path.join(engines.TOP, "build", "bench")
    os.makedirs(out, exist_ok=True)
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for precision in args.precision:
                for batch in args.batch:
                    for threads in args.threads:
                        rows.append(bench(os.path.abspath(model), precision, batch, threads, args,
                                          folder, failures))
                        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
                        with open(os.path.join(out, "engine.json"), "w") as f:
                            json.dump({"cpu": engines.cpu_name(), "rows": rows,
                                       "failures": failures}, f, indent=1)
    show(rows)
    for failure in dict.fromkeys(failures):
        print("not run:", failure)


main()
