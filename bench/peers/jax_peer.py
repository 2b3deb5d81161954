#!/usr/bin/env python3
"""The peer of the graph cases: jax.jit, with the training state donated from step to step."""
import functools
import os
import sys

import common

for name in ("NPROC", "PJRT_NPROC"):  # the size of the CPU client's pool; it has no setting of its own
  os.environ[name] = str(common.THREADS)
import jax
import jax.numpy as jnp


def chain(case):
  x, z = (jnp.array(v) for v in common.chain_data(case))
  run = jax.jit(lambda x, z: jnp.tanh(x * z + 1) * jnp.exp(-x * x) + z)
  return common.Case(lambda: run(x, z), lambda: common.check(run(x, z)), jax.block_until_ready)


def trainer(loss_of, weights, rate, *data):
  """A case over one compiled function: the gradient of loss_of(weights, *data), and Adam."""
  tree = jax.tree_util.tree_map

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, *data):
    w, m, s, t = state
    loss, g = jax.value_and_grad(loss_of)(w, *data)
    t = t + 1
    scale = rate * jnp.sqrt(1 - common.BETA2**t) / (1 - common.BETA1**t)
    m = tree(lambda m, g: m + (1 - common.BETA1) * (g - m), m, g)
    s = tree(lambda s, g: s + (1 - common.BETA2) * (g * g - s), s, g)
    w = tree(lambda w, m, s: w - scale * m / (jnp.sqrt(s) + common.EPSILON), w, m, s)
    return loss, (w, m, s, t)

  w = [jnp.array(v) for v in weights]
  state = (w, tree(jnp.zeros_like, w), tree(jnp.zeros_like, w), jnp.array(0.0))
  data = [jnp.array(d) for d in data]
  return common.training(lambda state: step(state, *data), state, jax.block_until_ready)


def linear():
  x, y, w, b = common.linear_data()
  return trainer(lambda p, x, y: jnp.mean((x @ p[0] + p[1] - y)**2), [w, b], common.LINEAR_RATE, x, y)


def mlp_train():
  x, labels, weights = common.mlp_data()

  def loss(p, x, labels):
    h = x
    for k in range(0, len(p), 2):
      h = h @ p[k] + p[k + 1]
      h = jax.nn.relu(h) if k + 2 < len(p) else h
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), labels[:, None], 1))

  return trainer(loss, weights, common.MLP_RATE, x, labels)


if __name__ == "__main__":
  cases = {name: lambda name=name: chain(name) for name in common.CHAINS}
  cases.update({"train/linear_compiled": linear, "train/mlp784_compiled": mlp_train})
  sys.exit(common.main("jax.jit", jax.__version__, cases))
