"""Whole jobs: what hone optimize makes of a network, beside the peers on the original."""
import argparse
import glob
import io
import json
import os
import subprocess
import sys
import tarfile
import time

import numpy as np
from PIL import Image

import engines

DATA = os.environ.get("HONE_DATA") or os.path.join(engines.TOP, "..", "shared", "data")
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]


def load(tar, part, per_class=None):
    """Pictures of one part of CIFAR-10, preprocessed, with labels."""
    by_class = {}
    with tarfile.open(tar) as f:
        for member in f:
            pieces = member.name.split("/")
            if len(pieces) != 3 or pieces[0] != part or not member.isfile():
                continue
            if per_class and len(by_class.setdefault(pieces[1], [])) >= per_class:
                continue
            by_class.setdefault(pieces[1], []).append(f.extractfile(member).read())
    x, y = [], []
    for label, name in enumerate(sorted(by_class)):
        for data in by_class[name]:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255
            x.append((pixels.transpose(2, 0, 1) - MEAN) / STD)
            y.append(label)
    return np.stack(x), np.array(y)


def peak_memory(home):
    """MB that each process of this Hone needed at its peak: they outlive the job a little."""
    peaks = {}
    for process in glob.glob("/proc/[0-9]*"):
        try:
            with open(process + "/environ", "rb") as f:
                mine = home.encode() in f.read()
            with open(process + "/status", encoding="ascii", errors="replace") as f:
                status = dict(line.split(":", 1) for line in f)
        except OSError:
            continue  # it has ended, or is not ours
        name = status["Name"].strip()
        if mine and "VmHWM" in status and name.startswith(("hone-", "redis", "valkey")):
            peaks[name] = round(int(status["VmHWM"].split()[0]) / 1024, 1)
    return peaks


def run_job(model, data, out, options):
    """The whole job: seconds in all, to the first verified network, peak memory, result.json."""
    program = os.path.join(engines.TOP, "build/release/services/cli/hone")
    home = out + ".home"
    subprocess.run(["rm", "-rf", home, out], check=True)
    command = [program, "optimize", model, "--data", data, "--out", out, "--json", "--home", home,
               "--max-drop", "0.3", *options]
    start, first = time.time(), None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        for line in job.stdout:
            event = json.loads(line)
            if first is None and event.get("type") == "best" and event.get("verified"):
                first = time.time() - start
    total = time.time() - start
    memory = peak_memory(home)
    if job.returncode not in (0, 3):
        sys.exit(f"hone optimize {model} failed ({job.returncode})")
    with open(os.path.join(out, "result.json")) as f:
        return total, first, memory, json.load(f)


def bench(model, args, out_dir):
    name = os.path.splitext(os.path.basename(model))[0]
    out = os.path.join(out_dir, name)
    total, first, memory, result = run_job(model, args.data, out, args.job_options.split())
    row = {"model": name, "job_seconds": round(total, 1), "first_verified_seconds":
           round(first or total, 1), "peak_memory_mb": memory, "cpu": engines.cpu_name(),
           "verdict": result["verdict"], "baseline": result["baseline"]["value"]}
    chosen = next((r for r in result["results"] if r["file"] == "model.onnx"), None)
    if chosen:
        row.update({k: chosen[k] for k in ("value", "drop_points", "drop_upper95_points")})
        row["value_onnxruntime_debian"] = chosen["peers"].get("onnxruntime", {}).get("value")
    if args.skip_peers:
        return row
    calibration, _ = load(args.data, "train", 30)
    shape = (1, 3, 32, 32)
    ov_int8 = engines.OpenVino("openvino int8", model, shape, calibration)
    runs = [engines.Hone("hone result", os.path.join(out, "model.onnx")),
            engines.Hone("hone fp32", model, "fp32"),
            engines.OnnxRuntime("onnxruntime fp32", model, shape),
            engines.OpenVino("openvino fp32", model, shape), ov_int8]
    row["engines"] = engines.interleaved(runs, args.rounds, args.seconds)
    row["versions"] = sorted({r.version for r in runs if hasattr(r, "version")})
    x, y = load(args.data, "test")
    row["openvino_int8_accuracy"] = ov_int8.accuracy(x, y)
    there = engines.OpenVino("result on openvino", os.path.join(out, "model.onnx"), shape)
    row["value_openvino"] = there.accuracy(x, y)
    p90 = {k: v["p90_us"] for k, v in row["engines"].items()}
    row["over_faster_fp32"] = round(min(p90["onnxruntime fp32"], p90["openvino fp32"]) /
                                    p90["hone result"], 3)
    row["over_openvino_int8"] = round(p90["openvino int8"] / p90["hone result"], 3)
    return row


def show(row):
    print(f"\n{row['model']}  ({row['cpu']}, one thread, batch 1)")
    print(f"  {row['verdict']}")
    print(f"  job {row['job_seconds']} s, first verified network after "
          f"{row['first_verified_seconds']} s")
    print("  peak memory: " + ", ".join(f"{name} {mb} MB" for name, mb in
                                        sorted(row["peak_memory_mb"].items())))
    for name, t in row.get("engines", {}).items():
        print(f"  {name:18} p50 {t['p50_us']:8.1f} us   p90 {t['p90_us']:8.1f} us")
    if "over_faster_fp32" in row:
        print(f"  p90 of the result: {row['over_faster_fp32']}x over the faster fp32 runtime, "
              f"{row['over_openvino_int8']}x over OpenVINO int8 "
              f"({100 * row['openvino_int8_accuracy']:.2f} %)")
        print(f"  the result's file scores {100 * row['value']:.2f} % on Hone, "
              f"{100 * row['value_onnxruntime_debian']:.2f} % on ONNX Runtime, "
              f"{100 * row['value_openvino']:.2f} % on OpenVINO")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench headline")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--data", default=os.path.join(DATA, "cifar10.tar"))
    parser.add_argument("--job-options", default="")
    parser.add_argument("--skip-peers", action="store_true")
    args = parser.parse_args()
    models = args.models or [os.path.join(DATA, "models", m + "-cifar10.onnx")
                             for m in ("resnet56", "resnet20")]
    for path in [*models, args.data]:
        if not os.path.exists(path):
            sys.exit(f"scripts/bench: {path} is not there (set HONE_DATA to the folder with the "
                     "models and data)")
    out_dir = os.path.join(engines.TOP, "build", "bench")
    os.makedirs(out_dir, exist_ok=True)
    rows = []
    for model in models:
        rows.append(bench(os.path.abspath(model), args, out_dir))
        show(rows[-1])
        with open(os.path.join(out_dir, "headline.json"), "w") as f:
            json.dump(rows, f, indent=2)


main()
