"""A teacher's answers about augmented views of every training sample: images a second of `hone
train --teacher`, augmentation and writing included, beside PyTorch's forward pass on pictures that
are ready in memory. Engines in turns; medians are shown.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

TOP = os.environ["HONE_TOP"]
sys.path.insert(0, os.path.join(TOP, "scripts/lib"))
import building  # noqa: E402
from training import TORCH, cpu_name, has_bf16  # noqa: E402

DATA = os.environ.get("HONE_DATA", os.path.join(TOP, "../shared/data"))
HONE = os.path.join(TOP, "build/release/services/cli/hone")
DRIVER = os.path.join(TOP, "build/release/tests/tools/train_driver")
PREPROCESS = "scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"


def teach(model, precision, threads, folder):
    """One epoch of a quick student, with a teacher that answers once about every sample."""
    out, student = os.path.join(folder, "out.onnx"), os.path.join(folder, "student.onnx")
    if not os.path.exists(student):
        subprocess.run([DRIVER, "write", "wide12", student], check=True)
    command = [HONE, "train", student, "--reinit", "--epochs", "1",
               "--data", os.path.join(DATA, "cifar10.tar"), "--teacher", model, "--views", "1",
               "--teacher-preprocess", PREPROCESS, "--preprocess", PREPROCESS, "--crop", "4",
               "--evaluate", "0", "--precision", precision, "--threads", str(threads),
               "--out", out, "--json"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    os.remove(out + ".teacher")
    return json.loads(lines.splitlines()[-1])["teacher_images_per_second"]


def torch_forward(options, threads, args):
    command = [sys.executable, TORCH, "resnet56", "--forward", "--batch", "128",
               "--threads", str(threads), "--seconds", str(args.seconds), *options]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    return json.loads(text.splitlines()[-1])["images_per_s"]


def engines(args, folder, threads):
    model = os.path.join(DATA, "models", "resnet56-cifar10.onnx")
    int8 = os.path.join(folder, "int8.onnx")
    if not os.path.exists(int8):
        subprocess.run([HONE, "bench", model, "--precision", "int8", "--seconds", "0.1",
                        "--write", int8], check=True, stdout=subprocess.DEVNULL)
    yield "hone int8", lambda: teach(int8, "auto", threads, folder)
    yield "hone fp32", lambda: teach(model, "fp32", threads, folder)
    if has_bf16():
        yield "hone bf16", lambda: teach(model, "bf16", threads, folder)
    for layout in ([], ["--channels-last"]):
        for half in ([], ["--bf16"]) if has_bf16() else ([],):
            name = " ".join(["torch", "bf16" if half else "fp32", *(o[2:] for o in layout)])
            yield name, lambda options=layout + half: torch_forward(options, threads, args)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench teacher")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    if not building.build("release", lambda: ["hone", "train_driver"], configure=False):
        sys.exit(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in args.threads:
            speeds = {}
            for _ in range(args.rounds):
                for name, measure in engines(args, folder, threads):
                    speeds.setdefault(name, []).append(measure())
            speeds = {name: statistics.median(all_) for name, all_ in speeds.items()}
            best = max(v for k, v in speeds.items() if k.startswith("torch"))
            rows.append({"threads": threads, "cpu": cpu_name(), "images_per_s": speeds,
                         "over_torch_best": {k: v / best for k, v in speeds.items()
                                             if k.startswith("hone")}})
            print(f"\nteacher resnet56, {threads} thread(s) ({cpu_name()})")
            for name, value in speeds.items():
                print(f"  {name:34} {value:8.0f} images/s   {value / best:5.2f} of PyTorch's best")
    os.makedirs(os.path.join(TOP, "build/bench"), exist_ok=True)
    with open(os.path.join(TOP, "build/bench/teacher.json"), "w", encoding="utf-8") as f:
        json.dump(rows, f, indent=2)


if __name__ == "__main__":
    main()
