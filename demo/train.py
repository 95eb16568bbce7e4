#!/usr/bin/python3
"""Trains the demo network and writes it as ONNX: demo/model.onnx.

    apt-get install python3-torch python3-numpy python3-pil     (Debian 13)
    scripts/hone demo /tmp/demo
    python3 demo/train.py /tmp/demo/data demo/model.onnx

One thread, about ten minutes. The seed is fixed: the same PyTorch on the same processor gives the
same network; elsewhere the last digits differ. Progress goes to stderr, one line an epoch.
"""
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

SEED = 1
EPOCHS = 24
BATCH = 100
LEARNING_RATE = 0.1  # at its highest
WEIGHT_DECAY = 5e-4
WIDTHS = (32, 48, 64)
BLOCKS = (1, 2, 2)
# x -> (x / 255 - MEAN) / STD: -1 to 1
MEAN = STD = (0.5, 0.5, 0.5)


# ---- data -------------------------------------------------------------------------------------


def read_part(folder):
    """-> pictures [n, 3, 32, 32] as the network takes them, labels [n], names of classes"""
    classes = sorted(entry.name for entry in folder.iterdir())
    pictures, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            pictures.append(np.asarray(Image.open(path), dtype=np.float32))
            labels.append(label)
    x = (np.stack(pictures) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.tensor(x.transpose(0, 3, 1, 2).copy()), torch.tensor(labels), classes


def augment(x, generator):
    """Turned, mirrored and moved: none of it changes the class."""
    if torch.rand((), generator=generator) < 0.5:
        x = x.flip(3)
    x = x.rot90(int(torch.randint(4, (), generator=generator)), (2, 3))
    dx, dy = torch.randint(0, 5, (2,), generator=generator).tolist()
    return F.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, dy : dy + 32, dx : dx + 32]


def batches(x, y, generator):
    """One epoch; each quarter of a batch is augmented in its own way."""
    order = torch.randperm(len(x), generator=generator)
    for first in range(0, len(x), BATCH):
        index = order[first : first + BATCH]
        parts = [augment(x[part], generator) for part in index.chunk(4)]
        yield torch.cat(parts), y[index]


# ---- network ----------------------------------------------------------------------------------


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = self.bn3 = None
        if stride != 1 or inputs != outputs:
            self.conv3 = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        shortcut = self.bn3(self.conv3(x)) if self.conv3 else x
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        blocks, inputs = [], WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS)):
            for i in range(count):
                blocks.append(Block(inputs, width, 2 if stage and i == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


@torch.no_grad()
def accuracy(network, x, y):
    network.eval()
    hits = sum((network(a).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500)))
    return hits / len(y)


def train(x, y, classes):
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = Network(classes).to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}],
        lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    steps = EPOCHS * ((len(x) + BATCH - 1) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2, cycle_momentum=False)
    for epoch in range(EPOCHS):
        begin, total = time.time(), 0.0
        network.train()
        for a, b in batches(x, y, generator):
            loss = F.cross_entropy(network(a.to(memory_format=torch.channels_last)), b,
                                   label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(b)
        print(f"epoch {epoch + 1:2}  loss {total / len(x):.4f}  {time.time() - begin:.0f} s",
              file=sys.stderr, flush=True)
    return network


# ---- ONNX: the few protobuf messages that this network needs ------------------------------------


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, value):
    """One field of a message: integers as varints, everything else with its length before it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def attribute(name, value):
    if isinstance(value, float):
        return field(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    return field(1, name) + b"".join(field(8, v) for v in value) + field(20, 7)


def tensor(name, array):
    array = array.detach().contiguous().numpy().astype("<f4")
    dims = b"".join(field(1, d) for d in array.shape)
    return dims + field(2, 1) + field(8, name) + field(9, array.tobytes())


def value_info(name, shape):
    dims = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


class Graph:
    def __init__(self):
        self.nodes, self.tensors = [], []

    def add(self, op, inputs, name, **attributes):
        node = b"".join(field(1, i) for i in inputs) + field(2, name + "_out") + field(3, name)
        node += field(4, op)
        node += b"".join(field(5, attribute(k, v)) for k, v in attributes.items())
        self.nodes.append(node)
        return name + "_out"

    def constants(self, name, **arrays):
        for suffix, array in arrays.items():
            self.tensors.append(tensor(f"{name}.{suffix}", array))
        return [f"{name}.{suffix}" for suffix in arrays]

    def conv_bn(self, x, conv, bn, name):
        size, stride, pad = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        x = self.add("Conv", [x] + self.constants(name, weight=conv.weight), name,
                     kernel_shape=[size, size], strides=[stride, stride], pads=[pad] * 4)
        arrays = self.constants(name + "_bn", scale=bn.weight, bias=bn.bias, mean=bn.running_mean,
                                var=bn.running_var)
        return self.add("BatchNormalization", [x] + arrays, name + "_bn", epsilon=bn.eps)

    def model(self, classes):
        graph = b"".join(field(1, n) for n in self.nodes) + field(2, "demo")
        graph += b"".join(field(5, t) for t in self.tensors)
        graph += field(11, value_info("input", ["N", 3, 32, 32]))
        graph += field(12, value_info("logits_out", ["N", classes]))
        return field(1, 8) + field(2, "demo/train.py") + field(7, graph) + field(8, field(2, 13))


def export(network, classes):
    g = Graph()
    x = g.conv_bn("input", network.conv, network.bn, "stem")
    x = g.add("Relu", [x], "stem_relu")
    for i, block in enumerate(network.blocks):
        name, shortcut = f"block{i + 1}", x
        if block.conv3:
            shortcut = g.conv_bn(x, block.conv3, block.bn3, name + "_shortcut")
        x = g.conv_bn(x, block.conv1, block.bn1, name + "_conv1")
        x = g.add("Relu", [x], name + "_relu1")
        x = g.conv_bn(x, block.conv2, block.bn2, name + "_conv2")
        x = g.add("Add", [x, shortcut], name + "_add")
        x = g.add("Relu", [x], name + "_relu2")
    x = g.add("GlobalAveragePool", [x], "pool")
    x = g.add("Flatten", [x], "flatten", axis=1)
    arrays = g.constants("logits", weight=network.fc.weight, bias=network.fc.bias)
    g.add("Gemm", [x] + arrays, "logits", transB=1)
    return g.model(classes)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x, y, classes = read_part(data / "train")
    test_x, test_y, _ = read_part(data / "test")
    network = train(x, y, len(classes))
    print(f"test accuracy {accuracy(network, test_x, test_y):.4f}, "
          f"train accuracy {accuracy(network, x, y):.4f}, "
          f"{sum(p.numel() for p in network.parameters())} parameters")
    out.write_bytes(export(network, len(classes)))
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
