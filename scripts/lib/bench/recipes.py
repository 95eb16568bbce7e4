"""Training from scratch on CIFAR-10: what accuracy a recipe reaches, over several seeds.

A run is `hone train` with the options below; its log, curve and network stay in
build/bench/recipes. A run that was interrupted goes on where it was, one that is done is not
repeated.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

TOP = os.environ["HONE_TOP"]
sys.path.insert(0, os.path.join(TOP, "scripts/lib"))
import building  # noqa: E402

DATA = os.environ.get("HONE_DATA", os.path.join(TOP, "../shared/data"))
DRIVER = os.path.join(TOP, "build/release/tests/tools/train_driver")
HONE = os.path.join(TOP, "build/release/services/cli/hone")
PREPROCESS = "scale=1/255 mean=0.4914,0.4822,0.4465 std=0.247,0.2435,0.2616"
COMMON = ["--preprocess", PREPROCESS, "--learn-from", "train+search", "--reinit",
          "--flip", "alternating"]
RECIPES = {
    # the usual recipe of ResNets for small pictures, in 80 epochs
    "resnet20": {"epochs": 80, "target": 0.917, "options": ["--crop", "4", "--slice", "64"]},
    # airbench94's (Jordan, 2024), for 15 epochs and without averaging over views at the end
    "shallow": {"epochs": 15, "target": 0.935,
                "options": ["--identity", "--whiten", "--keep-scales", "--batch", "1024",
                            "--slice", "64", "--lr", "1.5", "--schedule", "one-cycle",
                            "--momentum", "0.85", "--weight-decay", "0.00133",
                            "--shift-lr", "64", "--decay-shifts", "--norm-momentum", "0.4",
                            "--label-smoothing", "0.2", "--lookahead", "5",
                            "--crop", "2", "--border", "reflect"]},
}


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")),
                    "unknown")


def run(name, seed, args, folder):
    """The result of one run, as hone train printed it."""
    recipe = RECIPES[name]
    epochs = args.epochs or recipe["epochs"]
    stem = os.path.join(folder, f"{name}-{epochs}-{seed}")
    if os.path.exists(stem + ".result"):
        with open(stem + ".result", encoding="utf-8") as f:
            return json.load(f)
    subprocess.run([DRIVER, "write", name, stem + ".start.onnx"], check=True)
    command = [HONE, "train", stem + ".start.onnx", "--data", args.data, *COMMON,
               *recipe["options"], "--epochs", str(epochs), "--seed", str(seed),
               "--threads", str(args.threads), "--out", stem + ".onnx",
               "--curve", stem + ".curve.json", "--json"]
    if os.path.exists(stem + ".onnx.checkpoint"):
        command.append("--resume")
    with open(stem + ".log", "a", encoding="utf-8") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child:
            lines = [show(line, name, seed) for line in child.stdout]
    if child.returncode != 0:
        sys.exit(f"{name}, seed {seed}: hone train ended with {child.returncode}: {stem}.log")
    with open(stem + ".result", "w", encoding="utf-8") as f:
        json.dump(lines[-1], f)
    return lines[-1]


def show(text, name, seed):
    line = json.loads(text)
    if line["type"] == "epoch" and sys.stdout.isatty():
        print(f"  {name}, seed {seed}: epoch {line['epoch']} of {line['epochs']}, loss "
              f"{line['loss']:.4f}, {line['images_per_second']:.0f} images/s, "
              f"{line['left_s'] / 60:.0f} min left", end="\r", flush=True)
    return line


def summary(name, results, args):
    recipe = RECIPES[name]
    values = [r["value"] for r in results]
    return {"net": name, "epochs": args.epochs or recipe["epochs"], "target": recipe["target"],
            "macs": results[0]["macs"], "parameters": results[0]["parameters"],
            "precision": results[0]["precision"], "threads": args.threads,
            "seeds": args.seeds, "top1": values, "mean": statistics.mean(values),
            "least": min(values), "most": max(values),
            "seconds": [round(r["seconds"]) for r in results], "cpu": cpu_name()}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench recipes")
    parser.add_argument("nets", nargs="*", help=f"of {', '.join(RECIPES)} (all)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default=os.path.join(DATA, "cifar10.tar"))
    args = parser.parse_args()
    if not os.path.exists(args.data):
        sys.exit(f"{args.data} is not there: CIFAR-10 as folders of pictures (docs/DATA.md)")
    if not building.build("release", lambda: ["train_driver", "hone"], configure=False):
        sys.exit(1)
    folder = os.path.join(TOP, "build", "bench", "recipes")
    os.makedirs(folder, exist_ok=True)
    rows = []
    for name in args.nets or RECIPES:
        results = [run(name, seed, args, folder) for seed in args.seeds]
        rows.append(summary(name, results, args))
        r = rows[-1]
        print(f"{name:9} {r['macs'] / 1e6:6.1f} M MACs  {r['epochs']:3d} epochs  top-1 on the test "
              f"part: mean {100 * r['mean']:.2f} %, {100 * r['least']:.2f} to "
              f"{100 * r['most']:.2f} over {len(results)} seeds; to reach "
              f"{100 * r['target']:.1f} %  ({r['seconds'][0]} s a run, {r['precision']}, "
              f"{r['threads']} threads, {r['cpu']})")
        with open(os.path.join(TOP, "build/bench/recipes.json"), "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=2)


if __name__ == "__main__":
    main()
