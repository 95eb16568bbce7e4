"""The cases of the headline: what is asked of hone optimize, what is owed, and what is aimed at."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure of the comparison (compare.py) that must reach one number and aims at another."""
    figure: str  # fp32, int8, images, bytes
    reach: float
    aim: float


@dataclass(frozen=True)
class Case:
    text: str
    model: str  # of the folder of models
    data: str
    options: str  # of hone optimize
    goals: tuple
    seeds: tuple = (1,)
    stopped: bool = False  # at half of its budget, and resumed


AGAINST = {"fp32": "faster fp32 runtime, p90", "int8": "OpenVINO int8 (NNCF), p90",
           "images": "fp32 runtimes at their best, images/s", "bytes": "the original's file, bytes"}

R56, CIFAR = "resnet56-cifar10.onnx", "cifar10.tar"
AGREES = "--max-drop 3 --confidence 50 --budget 1h"  # on 97 % of the samples, point estimate

CASES = {
    "r56-2h": Case("ResNet-56, at most 1 point", R56, CIFAR, "--max-drop 1 --budget 2h",
                   (Goal("fp32", 8, 12), Goal("int8", 4, 6)), seeds=(1, 2, 3)),
    "r56-8h": Case("ResNet-56, at most 1 point, stopped and resumed", R56, CIFAR,
                   "--max-drop 1 --budget 8h", (Goal("fp32", 12, 16), Goal("int8", 6, 8)),
                   stopped=True),
    "r56-drop0": Case("ResNet-56, at most 0 points (estimate)", R56, CIFAR,
                      "--max-drop 0 --confidence 50 --budget 8h", (Goal("fp32", 6, 8),)),
    "r20": Case("ResNet-20, at most 1 point", "resnet20-cifar10.onnx", CIFAR,
                "--max-drop 1 --budget 2h", (Goal("fp32", 4, 8),)),
    "r8": Case("ResNet-8, at most 1 point", "resnet8-cifar10-mlperf.onnx", CIFAR,
               "--max-drop 1 --budget 1h", (Goal("fp32", 2.5, 4),)),
    "throughput": Case("ResNet-56, images/s, at most 1 point", R56, CIFAR,
                       "--objective throughput --max-drop 1 --budget 2h",
                       (Goal("images", 8, 16),)),
    "size": Case("ResNet-56, size, at most 1 point", R56, CIFAR,
                 "--objective size --max-drop 1 --budget 2h", (Goal("bytes", 20, 35),)),
    "squeezenet": Case("SqueezeNet, agreement 97 %", "squeezenet10-imagenet.onnx", "flowers5.tar",
                       AGREES, (Goal("fp32", 2.5, 4),)),
    "mobilenet": Case("MobileNet, agreement 97 %", "mobilenetv1-05-160-imagenet.onnx",
                      "flowers5.tar", AGREES, (Goal("fp32", 2.5, 4),)),
}
FIRST_S = Goal("first", 300, 180)  # seconds to the first verified result, of every case
