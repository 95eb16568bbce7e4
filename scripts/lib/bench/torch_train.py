"""The networks of tests/tools/train_driver.c in PyTorch: training steps timed, or their losses."""
import argparse
import json
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def conv(c_in, c_out, stride=1):
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


class Block(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1, self.norm1 = conv(c_in, c_out, 1 if c_in == c_out else 2), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = conv(c_out, c_out), nn.BatchNorm2d(c_out)
        self.more = c_out - c_in

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.more:
            before = self.more // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.more - before))
        return F.relu(y + x)


class Net(nn.Module):
    def __init__(self, layers, c):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(c, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


def stem(c_in, c_out, stride=1):
    return [conv(c_in, c_out, stride), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def network(name):
    layers = stem(3, 16)
    if name == "wide12":
        for c in (32, 64, 128):
            layers += stem(c // 2, c, 2)
            layers += [Block(c, c) for _ in range(2 if c == 32 else 1)]
        return Net(layers, 128)
    for c in (16, 32, 64):
        for i in range({"resnet20": 3, "resnet56": 9}[name]):
            layers.append(Block(c // 2 if i == 0 and c > 16 else c, c))
    return Net(layers, 64)


def load(net, folder):
    """Weights as train_driver dumped them: in the order of the layers."""
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            value = torch.from_numpy(np.load(os.path.join(folder, f"{i}.npy")))
            p.copy_(value.t() if value.shape != p.shape else value)


def step(net, optimizer, x, y, half):
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        y_hat = net(x)
        loss = F.cross_entropy(y_hat.float() if half else y_hat, y)
    loss.backward()
    optimizer.step()
    return loss


def peak_mb():
    with open("/proc/self/status", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1.024e-3 for line in f if line.startswith("VmHWM"))


def bench(net, optimizer, args):
    x = torch.randn(args.batch, 3, 32, 32)
    if args.channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.arange(args.batch) % 10
    for _ in range(3):
        step(net, optimizer, x, y, args.bf16)
    steps, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) - begin < args.seconds:
        step(net, optimizer, x, y, args.bf16)
        steps += 1
    print(json.dumps({"images_per_s": round(steps * args.batch / (now - begin), 1),
                      "peak_mb": round(peak_mb(), 1), "torch": torch.__version__}))


def forward(net, _, args):
    """Inference alone."""
    x = torch.randn(args.batch, 3, 32, 32)
    net.eval()
    if args.channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if args.bf16:
        net, x = net.bfloat16(), x.bfloat16()
    with torch.inference_mode():
        for _ in range(5):
            net(x)
        steps, begin = 0, time.perf_counter()
        while (now := time.perf_counter()) - begin < args.seconds:
            net(x)
            steps += 1
    print(json.dumps({"images_per_s": round(steps * args.batch / (now - begin), 1),
                      "peak_mb": round(peak_mb(), 1), "torch": torch.__version__}))


def losses(net, optimizer, args):
    x, y = np.load(args.samples), np.load(args.labels)
    batches = len(x) // args.batch
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    net.to(memory_format=layout)
    for i in range(args.steps):
        at = i % batches * args.batch
        part = slice(at, at + args.batch)
        samples = torch.from_numpy(x[part]).to(memory_format=layout)
        samples = samples.double() if args.double else samples
        loss = step(net, optimizer, samples, torch.from_numpy(y[part]), False)
        print(f"{loss.item():.9g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--forward", action="store_true", help="inference only")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--weights", help="folder of train_driver dump")
    parser.add_argument("--samples", help=".npy; prints the losses of --steps steps")
    parser.add_argument("--labels")
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    net = network(args.net).train()
    if args.weights:
        load(net, args.weights)
    if args.double:
        net.double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    (losses if args.samples else forward if args.forward else bench)(net, optimizer, args)


if __name__ == "__main__":
    main()
