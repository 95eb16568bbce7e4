"""A job's result beside its peers on the original, in one run on the same inputs."""
import filecmp
import json
import os
import tempfile

import numpy as np

import engines
from packed import Packed

CALIBRATION = 300  # samples of the training part, for NNCF
NOISE = 1.5
BATCHES = (8, 64, 256)  # of which the peers have their best


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Subject:
    """What is compared: the original, the result in `out`, the data as packed by the job."""

    def __init__(self, model, job):
        manifest, result = (load(os.path.join(job.out, name))
                            for name in ("manifest.json", "result.json"))
        sha = manifest["inputs"]["data_sha256"]
        path = os.path.join(job.home, "artifacts", "objects", sha[:2], sha)
        self.data = Packed(path, manifest["inputs"]["preprocess"])
        self.model, self.result = model, os.path.join(job.out, "model.onnx")
        self.labelled = result["baseline"]["metric"] == "top1"
        self.shape = tuple(self.data.shape)

    def calibration(self):
        return self.data.spread("train", CALIBRATION)

    def value(self, engine, original=None):
        """Top-1 accuracy on the test part, or agreement with the original's top answers there."""
        part = self.data.part("test")
        tops = [engine.top(self.data.inputs([i])) for i in part]
        wanted = self.data.labels[np.asarray(part)] if self.labelled else original
        return tops, None if wanted is None else float(np.mean(np.asarray(tops) == wanted))


def noisy(times):
    """Engines whose 90th percentile is far above their median: something else was running."""
    return sorted(k for k, v in times.items() if v["p90_us"] > NOISE * v["p50_us"])


def latency(subject, args):
    """One thread, batch 1, 90th percentiles."""
    shape = (1, *subject.shape)
    int8 = engines.OpenVino("openvino int8", subject.model, shape, subject.calibration())
    ort = engines.OnnxRuntime("onnxruntime fp32", subject.model, shape)
    runs = [engines.Hone("hone result", subject.result),
            engines.Hone("hone fp32", subject.model, "fp32"), ort,
            engines.OpenVino("openvino fp32", subject.model, shape), int8]
    row = {"engines": engines.interleaved(runs, args.rounds, args.seconds),
           "versions": versions(runs)}
    row["noisy"] = noisy(row["engines"])
    p90 = {k: v["p90_us"] for k, v in row["engines"].items()}
    row["fp32"] = min(p90["onnxruntime fp32"], p90["openvino fp32"]) / p90["hone result"]
    row["int8"] = p90["openvino int8"] / p90["hone result"]
    originals, _ = subject.value(ort)
    row["openvino_int8_value"] = subject.value(int8, originals)[1]
    there = [engines.OpenVino("openvino", subject.result, shape),
             engines.OnnxRuntime("onnxruntime", subject.result, shape)]
    row["result_elsewhere"] = {e.name: subject.value(e, originals)[1] for e in there}
    return row


def throughput(subject, args):
    """All processors, images a second; the peers at their best batch and way to use threads."""
    threads, batch = len(os.sched_getaffinity(0)), 64
    runs = [engines.Hone("hone result", subject.result, "auto", threads, batch),
            engines.Hone("hone fp32", subject.model, "fp32", threads, batch)]
    for b in BATCHES:
        shape = (b, *subject.shape)
        runs += [engines.OnnxRuntime(f"onnxruntime fp32 b{b}", subject.model, shape, threads),
                 engines.OpenVino(f"openvino fp32 b{b}", subject.model, shape, None, threads),
                 engines.OpenVinoStreams(f"openvino fp32 streams b{b}", subject.model, shape,
                                         threads)]
    times = engines.interleaved(runs, args.rounds, args.seconds)
    images = {r.name: 1e6 * r.batch / times[r.name]["p50_us"] for r in runs}
    row = {"images_per_s": {k: round(v, 1) for k, v in images.items()}, "threads": threads,
           "batch": batch, "versions": versions(runs)}
    row["noisy"] = noisy(times)
    best = max((k for k in images if not k.startswith("hone")), key=images.get)
    row["best_peer"], row["images"] = best, images["hone result"] / images[best]
    return row


def size(subject, _):
    """Files as they lie on the disk; of a packed one that it is the result, bit for bit."""
    files = {"original": os.path.getsize(subject.model), "model.onnx":
             os.path.getsize(subject.result)}
    packed = os.path.splitext(subject.result)[0] + ".hone"
    if os.path.exists(packed):
        files["model.hone"] = os.path.getsize(packed)
        with tempfile.TemporaryDirectory() as folder:
            unpacked = os.path.join(folder, "unpacked.onnx")
            engines.hone("unpack", packed, "--out", unpacked)
            if not filecmp.cmp(unpacked, subject.result, shallow=False):
                raise ValueError(f"{packed} does not decode to {subject.result}")
    result = files.get("model.hone", files["model.onnx"])
    return {"file_bytes": files, "bytes": files["original"] / result}


def versions(runs):
    return sorted({r.version for r in runs if hasattr(r, "version")})


def compare(case, subject, args):
    """The figures that the case's goals name, and what stands behind them."""
    row = {}
    figures = {g.figure for g in case.goals}
    for names, measure in ((("fp32", "int8"), latency), (("images",), throughput),
                           (("bytes",), size)):
        if figures & set(names):
            row.update(measure(subject, args))
    return row
