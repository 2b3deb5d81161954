"""What the peers in Python share: the inputs and weights as formulas, and the loop that answers bench/run.

Every value comes from a counter through an integer hash, so that tern's program and each peer compute on the same bits
without a file between them. reference.py computes with them once more, in float64, what the results must be.
"""
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np

SAMPLES = 5  # as BENCH_SERVED of bench.h
SECONDS = 0.03  # as BENCH_SECONDS
LONG = 0.3
THREADS = int(os.environ.get("TERN_BENCH_THREADS", "2"))
STEPS = 10  # training steps behind a check

# ---- values ----


def bits(count, seed):
  """uint32 of element i = 0, 1, ...: a multiply-xorshift hash (C. Wellons, "lowbias32") of i and the seed."""
  h = np.arange(count, dtype=np.uint32)
  h *= np.uint32(0x9E3779B1)
  h += np.uint32(seed * 0x85EBCA77 & 0xFFFFFFFF)
  h ^= h >> np.uint32(16)
  h *= np.uint32(0x7FEB352D)
  h ^= h >> np.uint32(15)
  h *= np.uint32(0x846CA68B)
  return h ^ h >> np.uint32(16)


def fill(shape, seed, scale=1.0):
  """float32 in [-scale, scale), row-major: the upper 24 bits as a fraction, exact, times scale rounded to float32."""
  unit = (bits(math.prod(shape), seed) >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
  return (unit * np.float32(scale)).reshape(shape)


def he(fan_in):
  """The scale of weights whose output is as large as their input, through relu."""
  return math.sqrt(6 / fan_in)


def check(values):
  """One number for a result: the mean of (1 + i mod 7) (y + y y) over its elements, in float64; order and sign count,
  and the squares keep it away from zero."""
  y = np.asarray(values, dtype=np.float64).ravel()
  return float((y + y * y) @ np.resize(np.arange(1.0, 8.0), y.size) / y.size)


# ---- the cases' data; shapes as tern has them: weights [in, out], images NHWC, filters HWIO ----

CHAINS = {"graph/chain16M": 1 << 24, "graph/chain64K": 1 << 16}
ROWS = (1 << 14, 1 << 10)
LINEAR_RATE, MLP_RATE = 0.01, 0.001
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # of Adam, in Keras's form: epsilon is added to the uncorrected root
MLP_SIZES, BATCH = (784, 512, 512, 10), 128
IMAGES = (64, 28, 28, 1)
LAYERS, WIDTH, HEADS, INNER, LENGTH = 4, 256, 4, 1024, 128
NORM_EPSILON = 1e-5


def chain_data(case):
  """x and z of tanh(x z + 1) exp(-x x) + z."""
  n = CHAINS[case]
  return fill((n,), 1, 2), fill((n,), 2)


def rows_data():
  """x, and the scale and offset of its normalised rows. The check of softmax is that of ROWS[1] times the result, whose
  elements are about 1."""
  return fill(ROWS, 5, 4), 1 + fill(ROWS[1:], 6, 0.5), fill(ROWS[1:], 7, 0.5)


def linear_data():
  """x, y, w, b of the guide's linear model."""
  rows = ([[1, 2], [3, 4]], [[0], [1]], [[0.5], [-0.25]], [0])
  return tuple(np.array(r, np.float32) for r in rows)


def mlp_data():
  """x, labels, and w, b of the three layers in turn."""
  weights = []
  for k, (rows, columns) in enumerate(zip(MLP_SIZES, MLP_SIZES[1:])):
    weights += [fill((rows, columns), 10 + k, he(rows)), np.zeros(columns, np.float32)]
  return fill((BATCH, MLP_SIZES[0]), 3), (bits(BATCH, 4) % 10).astype(np.int64), weights


def cnn_data():
  """x, and w, b of: conv 3x3 to 32, conv 3x3 to 64 (each padded, relu, 2x2 max), dense 128 (relu), dense 10."""
  shapes = ((3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 128), (128, 10))
  weights = []
  for k, shape in enumerate(shapes):
    weights += [fill(shape, 20 + k, he(math.prod(shape[:-1]))), fill(shape[-1:], 30 + k, 0.1)]
  return fill(IMAGES, 8), weights


def transformer_data():
  """x [1, 128, 256] and a dict of weights a layer: the seeds are 100 + 20 layer + the place in this list."""
  d = WIDTH
  names = {"wq": (d, d), "wk": (d, d), "wv": (d, d), "wo": (d, d), "w1": (d, INNER), "w2": (INNER, d),
           "bq": (d,), "bk": (d,), "bv": (d,), "bo": (d,), "b1": (INNER,), "b2": (d,),
           "scale1": (d,), "offset1": (d,), "scale2": (d,), "offset2": (d,)}
  layers = []
  for layer in range(LAYERS):
    values = {}
    for place, (name, shape) in enumerate(names.items()):
      scale = he(2 * shape[0]) if len(shape) == 2 else 0.1
      values[name] = fill(shape, 100 + 20 * layer + place, scale) + np.float32(name.startswith("scale"))
    layers.append(values)
  return fill((1, LENGTH, d), 9, 2), layers


# ---- measuring ----


class Case:
  """`run` does the work once and returns what `wait` needs to know that it is done; `result` gives the check.

  each: wait for every run, because the next does not depend on it. result None: there is nothing to check."""

  unit = "seconds"

  def __init__(self, run, result, wait=lambda value: None, each=True):
    self.run, self.result, self.wait, self.each, self.reps, self.checked = run, result, wait, each, 0, None

  def check(self):
    """The figure of the results that run leaves from the start on: asked for before anything is timed."""
    if self.checked is None:
      if not self.result:
        self.wait(self.run())
      self.checked = float(self.result()) if self.result else math.nan
    return self.checked

  def seconds(self, reps):
    run, wait = self.run, self.wait
    start = time.perf_counter()
    if self.each:
      for _ in range(reps):
        wait(run())
    else:
      for _ in range(reps):
        last = run()
      wait(last)
    return (time.perf_counter() - start) / reps

  def measure(self):
    if not self.reps:  # as bench_reps of bench.h: warm up, then the first count that is long enough three times running
      self.check()
      self.seconds(3)
      self.reps, enough = 1, 0
      while enough < 3:
        is_long = self.seconds(self.reps) * self.reps >= SECONDS / SAMPLES / 2
        enough = enough + 1 if is_long else 0
        if not is_long:
          self.reps *= 2
    first = self.seconds(self.reps)
    if first > LONG:  # a model that is made and trained anew: one is a sample
      return first
    return statistics.median([first, *(self.seconds(self.reps) for _ in range(SAMPLES - 1))])


def training(step, state, wait):
  """A case of `loss, state = step(state)`: its check is the loss that step STEPS returns, from the given state on."""
  held = [state]

  def run():
    loss, held[0] = step(held[0])
    return loss

  def result():
    for _ in range(STEPS):
      loss = run()
    wait(loss)
    return loss

  return Case(run, result, wait, each=False)


def fastest(*makers):
  """Of cases that do the same in different ways, the one whose best time is the best."""
  cases = [make() for make in makers]
  return min(cases, key=lambda case: min(case.measure() for _ in range(3)))


# ---- memory ----

MEMORY_STEPS = 100


def own_bytes(what):
  """VmRSS or VmHWM of this process."""
  with open("/proc/self/status") as status:
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(what))


def growth(run):
  """In a fresh process whose libraries are loaded: how far MEMORY_STEPS runs raise its peak above what it has now."""
  with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew: what importing took for a while does not count
  before = own_bytes("VmHWM:")
  run(MEMORY_STEPS)
  return own_bytes("VmHWM:") - before


class Memory:
  """A case of what memory a child process needs: the bytes that this program prints when called with the arguments."""

  unit = "bytes"

  def __init__(self, *arguments):
    self.command = [sys.executable, os.path.abspath(sys.argv[0]), *arguments]

  def check(self):
    return math.nan

  def measure(self):
    return float(subprocess.run(self.command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[-1])


def answer(line, makers, made, version):
  if line == "version":
    return version
  asked, name = line.startswith("check "), line.removeprefix("check ")
  if name not in makers:
    return "error no such case"
  if name not in made:
    made[name] = makers[name]()
  return f"{made[name].check() if asked else made[name].measure():.9g}"


def main(about, version, makers):
  """makers: {case: function that makes it}. --serve: "CASE" is answered with the seconds of one run, "check CASE" with
  the check, "version"; otherwise every case that is named (default all) is measured once, a JSON line each."""
  words, made = sys.argv[1:], {}
  if words == ["--serve"]:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    for line in sys.stdin:
      try:
        text = answer(line.strip(), makers, made, version)
      except Exception as error:  # the library's own words, in one line
        text = "error " + " ".join(f"{type(error).__name__}: {error}".split())[:400]
      print(text, file=out, flush=True)
    return 0
  if any(w.startswith("-") for w in words):
    print(f"usage: {os.path.basename(sys.argv[0])} [CASE... | --serve]   {about}\ncases: {' '.join(makers)}")
    return 0 if words == ["--help"] else 2
  for name in (n for n in makers if not words or n in words):
    case = makers[name]()
    row = {"case": name, "check": case.check(), case.unit: case.measure()}
    print(json.dumps(row), flush=True)
  return 0
