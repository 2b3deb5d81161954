#!/usr/bin/env python3
"""What the graph cases' results must be: plain numpy in float64 over the values of common.py. Prints the content of
checks.json, which bench/run holds against what tern and each peer answer to "check CASE"."""
import json
import math

import numpy as np

import common

erf = np.vectorize(math.erf, otypes=[np.float64])


def relu(x):
  return np.maximum(x, 0)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def layer_norm(x, scale, offset):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + common.NORM_EPSILON) * scale + offset


def wide(values):
  return [np.asarray(v, np.float64) for v in values]


def chain(case):
  x, z = wide(common.chain_data(case))
  return common.check(np.tanh(x * z + 1) * np.exp(-x * x) + z)


def adds(count):
  """In float32: every addition rounds the same way everywhere."""
  a, b = (common.fill((4,), seed) for seed in (6, 7))
  for _ in range(count):
    a = a + b
  return common.check(a)


class Adam:
  def __init__(self, variables, rate):
    self.v, self.rate, self.t = variables, rate, 0
    self.first, self.second = ([np.zeros_like(v) for v in variables] for _ in range(2))

  def step(self, gradients):
    self.t += 1
    rate = self.rate * math.sqrt(1 - common.BETA2**self.t) / (1 - common.BETA1**self.t)
    for v, m, s, g in zip(self.v, self.first, self.second, gradients):
      m += (1 - common.BETA1) * (g - m)
      s += (1 - common.BETA2) * (g * g - s)
      v -= rate * m / (np.sqrt(s) + common.EPSILON)


def linear():
  x, y, w, b = wide(common.linear_data())
  adam = Adam([w, b], common.LINEAR_RATE)
  for _ in range(common.STEPS):
    error = x @ w + b - y
    loss, d = np.mean(error**2), 2 * error / error.size
    adam.step([x.T @ d, d.sum(0)])
  return loss


def mlp_forward(x, weights):
  """The input of every layer, then the logits."""
  kept = [x]
  for k in range(0, len(weights), 2):
    h = kept[-1] @ weights[k] + weights[k + 1]
    kept.append(relu(h) if k + 2 < len(weights) else h)
  return kept


def mlp_train():
  x, labels, weights = common.mlp_data()
  weights, rows = wide(weights), np.arange(len(labels))
  adam = Adam(weights, common.MLP_RATE)
  for _ in range(common.STEPS):
    kept = mlp_forward(x.astype(np.float64), weights)
    p = softmax(kept[-1])
    loss = -np.mean(np.log(p[rows, labels]))
    p[rows, labels] -= 1
    d, gradients = p / len(labels), []
    for k in reversed(range(len(weights) // 2)):
      gradients[:0] = [kept[k].T @ d, d.sum(0)]
      d = d @ weights[2 * k].T * (kept[k] > 0)
    adam.step(gradients)
  return loss


def conv(x, w, b):
  """3x3, zeros around; x NHWC, w HWIO."""
  padded, (_, height, width, _) = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape
  return b + sum(padded[:, i:i + height, j:j + width] @ w[i, j] for i in range(3) for j in range(3))


def pool(x):
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def cnn():
  x, weights = common.cnn_data()
  w = wide(weights)
  h = pool(relu(conv(x.astype(np.float64), w[0], w[1])))
  h = pool(relu(conv(h, w[2], w[3]))).reshape(len(x), -1)
  return common.check(relu(h @ w[4] + w[5]) @ w[6] + w[7])


def heads(x):
  return x.reshape(common.LENGTH, common.HEADS, -1).transpose(1, 0, 2)


def transformer():
  x, layers = common.transformer_data()
  x = x[0].astype(np.float64)
  for layer in layers:
    p = {k: v.astype(np.float64) for k, v in layer.items()}
    h = layer_norm(x, p["scale1"], p["offset1"])
    q, k, v = (heads(h @ p["w" + n] + p["b" + n]) for n in "qkv")
    a = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])) @ v
    x = x + a.transpose(1, 0, 2).reshape(x.shape) @ p["wo"] + p["bo"]
    h = layer_norm(x, p["scale2"], p["offset2"]) @ p["w1"] + p["b1"]
    x = x + 0.5 * h * (1 + erf(h / math.sqrt(2))) @ p["w2"] + p["b2"]
  return common.check(x)


def checks():
  x, scale, offset = wide(common.rows_data())
  inputs, _, weights = common.mlp_data()
  return {
    "replay/adds1000": adds(1000),
    "replay/add1": adds(1),
    **{case: chain(case) for case in common.CHAINS},
    "graph/softmax_rows": common.check(common.ROWS[1] * softmax(x)),
    "graph/layernorm_rows": common.check(layer_norm(x, scale, offset)),
    "train/linear_compiled": linear(),
    "train/mlp784_compiled": mlp_train(),
    "infer/mlp784": common.check(mlp_forward(inputs.astype(np.float64), wide(weights))[-1]),
    "infer/cnn": cnn(),
    "infer/transformer": transformer(),
  }


if __name__ == "__main__":
  print(json.dumps({case: float(f"{value:.9g}") for case, value in checks().items()}, indent=2))
