#!/usr/bin/env python3
"""The peer of the graph cases: TensorFlow functions that XLA compiles (jit_compile)."""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

import common


def chain(case):
  x, z = (tf.constant(v) for v in common.chain_data(case))

  @tf.function(jit_compile=True)
  def run(x, z):
    return tf.tanh(x * z + 1) * tf.exp(-x * x) + z

  return common.Case(lambda: run(x, z), lambda: common.check(run(x, z).numpy()))


def adam(variables, first, second, t, gradients, rate):
  t.assign_add(1)
  rate = rate * tf.sqrt(1 - common.BETA2**t) / (1 - common.BETA1**t)
  for v, m, s, g in zip(variables, first, second, gradients):
    m.assign_add((1 - common.BETA1) * (g - m))
    s.assign_add((1 - common.BETA2) * (g * g - s))
    v.assign_sub(rate * m / (tf.sqrt(s) + common.EPSILON))


def mlp_train():
  x, labels, weights = common.mlp_data()
  x, labels, variables = tf.constant(x), tf.constant(labels), [tf.Variable(w) for w in weights]
  first, second = ([tf.Variable(tf.zeros_like(w)) for w in weights] for _ in range(2))
  t = tf.Variable(0.0)

  @tf.function(jit_compile=True)
  def step(x, labels):
    with tf.GradientTape() as tape:
      h = x
      for k in range(0, len(variables), 2):
        h = h @ variables[k] + variables[k + 1]
        h = tf.nn.relu(h) if k + 2 < len(variables) else h
      loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h))
    adam(variables, first, second, t, tape.gradient(loss, variables), common.MLP_RATE)
    return loss

  return common.training(lambda state: (step(x, labels), state), None, lambda loss: loss.numpy())


if __name__ == "__main__":
  tf.config.threading.set_intra_op_parallelism_threads(common.THREADS)
  tf.config.threading.set_inter_op_parallelism_threads(common.THREADS)
  cases = {name: lambda name=name: chain(name) for name in common.CHAINS}
  cases["train/mlp784_compiled"] = mlp_train
  sys.exit(common.main("TensorFlow functions compiled by XLA", tf.__version__, cases))
