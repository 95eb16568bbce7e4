"""Whole training steps (forward, loss, backward, SGD) of Hone and of PyTorch: images a second.

Every engine and setting is a process of its own in every round, in turns; medians are shown.
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

DRIVER = os.path.join(TOP, "build/release/tests/tools/train_driver")
TORCH = os.path.join(TOP, "scripts/lib/bench/torch_train.py")
NETS = ("resnet20", "resnet56", "wide12")


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")),
                    "unknown")


def has_bf16():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return " avx512_bf16" in f.read()


def engines(args):
    """name -> command, without network, threads and seconds"""
    all_ = {"hone fp32": [DRIVER, "bench", None, "--precision", "fp32"],
            "torch fp32": [sys.executable, TORCH, None],
            "torch fp32 channels-last": [sys.executable, TORCH, None, "--channels-last"]}
    if has_bf16():
        all_["hone bf16"] = [DRIVER, "bench", None, "--precision", "bf16"]
        all_["torch bf16"] = [sys.executable, TORCH, None, "--bf16"]
        all_["torch bf16 channels-last"] = [sys.executable, TORCH, None, "--bf16",
                                            "--channels-last"]
    return {k: v for k, v in all_.items() if not (args.skip_peers and k.startswith("torch"))}


def run(command, net, threads, args):
    command = [net if piece is None else piece for piece in command]
    command += ["--batch", str(args.batch), "--threads", str(threads),
                "--seconds", str(args.seconds)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                                     env=env).stdout.splitlines()[0])


def bench(net, threads, args):
    rounds = {name: [] for name in engines(args)}
    for _ in range(args.rounds):
        for name, command in engines(args).items():
            rounds[name].append(run(command, net, threads, args))
    row = {"net": net, "threads": threads, "batch": args.batch, "cpu": cpu_name(), "engines": {}}
    for name, results in rounds.items():
        speeds = [r["images_per_s"] for r in results]
        row["engines"][name] = {**results[-1], "images_per_s": round(statistics.median(speeds), 1),
                                "rounds": speeds}
    for precision in ("fp32", "bf16"):
        peers = [v["images_per_s"] for k, v in row["engines"].items()
                 if k.startswith("torch " + precision)]
        mine = row["engines"].get("hone " + precision)
        if peers and mine:
            row["over_torch_" + precision] = round(mine["images_per_s"] / max(peers), 3)
    peers = [v["images_per_s"] for k, v in row["engines"].items() if k.startswith("torch")]
    mine = [v["images_per_s"] for k, v in row["engines"].items() if k.startswith("hone")]
    if peers:
        row["best_over_torch_best"] = round(max(mine) / max(peers), 3)
    return row


def show(row):
    print(f"\n{row['net']}, batch {row['batch']}, {row['threads']} thread(s) ({row['cpu']})")
    for name, e in sorted(row["engines"].items()):
        print(f"  {name:26} {e['images_per_s']:8.1f} images/s   peak {e['peak_mb']:6.1f} MB" +
              (f"   slice {e['slice']}" if "slice" in e else ""))
    for key in ("over_torch_fp32", "over_torch_bf16", "best_over_torch_best"):
        if key in row:
            print(f"  {key}: {row[key]}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench training")
    parser.add_argument("nets", nargs="*", help=f"of {', '.join(NETS)} (all)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--skip-peers", action="store_true")
    args = parser.parse_args()
    if not building.build("release", lambda: ["train_driver"], configure=False):
        sys.exit(1)
    out_dir = os.path.join(TOP, "build", "bench")
    os.makedirs(out_dir, exist_ok=True)
    rows = []
    for net in args.nets or NETS:
        for threads in args.threads:
            rows.append(bench(net, threads, args))
            show(rows[-1])
            with open(os.path.join(out_dir, "training.json"), "w", encoding="utf-8") as f:
                json.dump(rows, f, indent=2)


if __name__ == "__main__":
    main()
