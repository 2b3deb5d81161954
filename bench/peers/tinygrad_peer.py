#!/usr/bin/env python3
"""The peer of training on OpenCL: tinygrad on the same implementation, one step captured by TinyJit."""
import importlib.metadata
import os
import sys

import common

os.environ.setdefault("DEV", "CL")
from tinygrad import Context, Device, Tensor, TinyJit
from tinygrad.nn.optim import Adam


def mlp_train():
  x, labels, weights = common.mlp_data()
  x, labels = Tensor(x).realize(), Tensor(labels.astype("int32")).realize()
  weights = [Tensor(w).realize() for w in weights]
  optimizer = Adam(weights, lr=common.MLP_RATE, b1=common.BETA1, b2=common.BETA2, eps=common.EPSILON)

  @TinyJit
  def step():
    with Context(TRAINING=1):
      h = x
      for k in range(0, len(weights), 2):
        h = h @ weights[k] + weights[k + 1]
        h = h.relu() if k + 2 < len(weights) else h
      loss = h.sparse_categorical_crossentropy(labels)
      optimizer.zero_grad()
      loss.backward()
      return loss.realize(*optimizer.schedule_step())

  def wait(loss):
    Device[Device.DEFAULT].synchronize()

  def result():
    for _ in range(common.STEPS):
      loss = step()
    return loss.item()

  return common.Case(step, result, wait, each=False)


if __name__ == "__main__":
  sys.exit(common.main("tinygrad", importlib.metadata.version("tinygrad"), {"train/mlp784_compiled": mlp_train}))
