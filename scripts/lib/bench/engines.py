"""Engines to time: each runs one network for some seconds and gives latencies in microseconds."""
import ctypes
import json
import os
import subprocess
import time

import numpy as np

TOP = os.environ["HONE_TOP"]


def cpu_name():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


def hone(*args, **kwargs):
    """Runs the CLI; returns its standard output."""
    program = os.path.join(TOP, "build/release/services/cli/hone")
    return subprocess.run([program, *args], check=True, stdout=subprocess.PIPE, text=True,
                          **kwargs).stdout


def timed(run, seconds):
    for _ in range(10):
        run()
    samples = []
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        samples.append((now - start) * 1e6)
        if now > end:
            return samples


class Hone:
    def __init__(self, name, model, precision="auto", threads=1, batch=1):
        self.name, self.model, self.batch = name, model, batch
        self.options = ["--precision", precision, "--threads", str(threads), "--batch", str(batch)]

    def round(self, seconds):
        out = json.loads(hone("bench", self.model, *self.options, "--seconds", str(seconds),
                              "--json"))
        return out["p50_us"], out["p90_us"]


class LibHone:
    """libhone in this process, as a user's program calls it."""

    class Options(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_int),
                    ("batch", ctypes.c_int64), ("precision", ctypes.c_char_p)]

    class Error(ctypes.Structure):
        _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 1024)]

    def __init__(self, name, model, shape, threads=1):
        self.name = name
        self.lib = ctypes.CDLL(os.path.join(TOP, "build/release/lib/libhone.so"))
        self.lib.hone_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p,
                                      ctypes.c_void_p, ctypes.c_void_p]
        options = self.Options(ctypes.sizeof(self.Options), threads, shape[0], None)
        self.net, self.error = ctypes.c_void_p(), self.Error()
        self.check(self.lib.hone_open(model.encode(), ctypes.byref(options),
                                      ctypes.byref(self.net), ctypes.byref(self.error)))
        self.x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        self.y = np.empty(1 << 20, np.float32)
        self.inputs = (ctypes.c_void_p * 1)(self.x.ctypes.data)
        self.outputs = (ctypes.c_void_p * 1)(self.y.ctypes.data)

    def check(self, code):
        if code < 0:
            raise RuntimeError(self.error.message.decode())

    def round(self, seconds):
        n = self.x.shape[0]
        s = timed(lambda: self.check(self.lib.hone_run(self.net, n, self.inputs, self.outputs,
                                                       ctypes.byref(self.error))), seconds)
        return np.percentile(s, 50), np.percentile(s, 90)


class OnnxRuntime:
    def __init__(self, name, model, shape, threads=1):
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.name, self.batch = name, shape[0]
        self.version = "ONNX Runtime " + ort.__version__
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        self.binding.bind_cpu_input(self.session.get_inputs()[0].name, x)
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def round(self, seconds):
        s = timed(lambda: self.session.run_with_iobinding(self.binding), seconds)
        return np.percentile(s, 50), np.percentile(s, 90)

    def top(self, x):
        """The top answer about one sample."""
        return int(self.session.run(None, {self.session.get_inputs()[0].name: x})[0].argmax())


class OpenVino:
    """fp32, or int8 by NNCF's post-training quantization on calibration samples."""

    def __init__(self, name, model, shape, calibration=None, threads=1):
        import openvino as ov
        self.name, self.batch = name, shape[0]
        self.version = "OpenVINO " + ov.__version__.split("-")[0]
        core = ov.Core()
        network = core.read_model(model)
        if calibration is not None:
            import nncf
            self.version += ", NNCF " + nncf.__version__
            data = nncf.Dataset([calibration[i:i + 1] for i in range(len(calibration))])
            network = nncf.quantize(network, data, subset_size=len(calibration))
        self.network = network
        network.reshape(list(shape))
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = core.compile_model(network, "CPU", config)
        self.request = self.compiled.create_infer_request()
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        self.tensor = ov.Tensor(x)
        self.request.set_input_tensor(self.tensor)

    def round(self, seconds):
        s = timed(self.request.infer, seconds)
        return np.percentile(s, 50), np.percentile(s, 90)

    def top(self, x):
        """The top answer about one sample."""
        self.tensor.data[:] = x
        self.request.infer()
        return int(self.request.get_output_tensor(0).data.argmax())


class OpenVinoStreams:
    """One stream on each thread, batches handed out as streams become free."""

    def __init__(self, name, model, shape, threads):
        import openvino as ov
        self.name, self.batch = name, shape[0]
        self.version = "OpenVINO " + ov.__version__.split("-")[0]
        core = ov.Core()
        network = core.read_model(model)
        network.reshape(list(shape))
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads,
                  "PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        self.queue = ov.AsyncInferQueue(core.compile_model(network, "CPU", config), threads)
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        for request in self.queue:
            request.set_input_tensor(ov.Tensor(x.copy()))

    def round(self, seconds):
        """Time by batches, as if they came one after the other."""
        for _ in range(10):
            self.queue.start_async()
        self.queue.wait_all()
        start, n = time.perf_counter(), 0
        while n < 3 or time.perf_counter() - start < seconds:
            self.queue.start_async()
            n += 1
        self.queue.wait_all()
        us = (time.perf_counter() - start) * 1e6 / n
        return us, us


def interleaved(engines, rounds, seconds):
    """Every engine takes its turn in every round; medians over the rounds of p50 and p90."""
    p50 = {e.name: [] for e in engines}
    p90 = {e.name: [] for e in engines}
    for _ in range(rounds):
        for e in engines:
            a, b = e.round(seconds)
            p50[e.name].append(a)
            p90[e.name].append(b)
    return {e.name: {"p50_us": round(float(np.median(p50[e.name])), 1),
                     "p90_us": round(float(np.median(p90[e.name])), 1),
                     "p90_us_rounds": [round(float(v), 1) for v in p90[e.name]]} for e in engines}
