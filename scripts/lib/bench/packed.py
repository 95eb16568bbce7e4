"""The data of a job as Hone packed it (docs/DATA.md), and its inputs as the network gets them."""
import re
import struct

import numpy as np

PARTS = ("train", "search", "test")


class Packed:
    def __init__(self, path, preprocess):
        with open(path, "rb") as f:
            head = f.read(4096)
        magic, version, kind = struct.unpack_from("<8sII", head)
        if magic != b"HONEDATA" or version != 1:
            raise ValueError(f"{path}: not packed data of version 1")
        self.shape = struct.unpack_from("<3q", head, 16)
        self.counts = struct.unpack_from("<3q", head, 40)
        classes, samples_at, labels_at, _, _ = struct.unpack_from("<5q", head, 64)
        n = sum(self.counts)
        self.samples = np.memmap(path, np.uint8 if kind == 0 else "<f4", "r", samples_at,
                                 (n, *self.shape))
        self.labels = np.memmap(path, "<i4", "r", labels_at, n) if classes else None
        self.pre = Preprocess(preprocess)

    def part(self, name):
        """Indices of the part's samples."""
        i = PARTS.index(name)
        return range(sum(self.counts[:i]), sum(self.counts[:i + 1]))

    def inputs(self, indices):
        return self.pre(self.samples[np.asarray(indices)])

    def spread(self, name, n):
        """Inputs of n samples of a part, from all over it."""
        part = self.part(name)
        return self.inputs([part[len(part) * i // n] for i in range(min(n, len(part)))])


class Preprocess:
    """'scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 order=rgb' (docs/FORMATS.md)"""

    def __init__(self, text):
        given = dict(re.findall(r"(\w+)=(\S+)", text))
        self.scale = number(given.get("scale", "1"))
        self.mean = column(given.get("mean", "0"))
        self.std = column(given.get("std", "1"))
        self.bgr = given.get("order") == "bgr"

    def __call__(self, pixels):
        x = pixels[:, ::-1] if self.bgr else pixels
        return np.ascontiguousarray((x.astype(np.float32) * self.scale - self.mean) / self.std)


def number(text):
    above, _, below = text.partition("/")
    return np.float32(float(above) / float(below or 1))


def column(text):
    return np.array([number(v) for v in text.split(",")], np.float32)[:, None, None]
