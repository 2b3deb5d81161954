#!/usr/bin/env python3
"""The peer of the graph cases: PyTorch, compiled (torch.compile) or, with --eager, op by op."""
import os
import sys

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no compiling processes that outlive their work
import torch
import torch.nn.functional as F

import common

EAGER = "--eager" in sys.argv


def compiled(function):
  return function if EAGER else torch.compile(function)


def inference(function, *data, scale=1):
  """A case of function(*data) without gradients; data is numpy's."""
  function, data = compiled(function), [torch.from_numpy(d) for d in data]

  def run():
    with torch.inference_mode():
      return function(*data)

  return common.Case(run, lambda: common.check(scale * run().numpy()))


def chain(case):
  return inference(lambda x, z: torch.tanh(x * z + 1) * torch.exp(-x * x) + z, *common.chain_data(case))


def softmax_rows():
  return inference(lambda x: torch.softmax(x, -1), common.rows_data()[0], scale=common.ROWS[1])


def layernorm_rows():
  def norm(x, scale, offset):
    return F.layer_norm(x, common.ROWS[1:], scale, offset, common.NORM_EPSILON)

  return inference(norm, *common.rows_data())


def sequential(weights):
  """Linear layers with relu between them; torch keeps weights as [out, in]."""
  layers = []
  for w, b in zip(weights[::2], weights[1::2]):
    layer = torch.nn.Linear(*w.shape)
    with torch.no_grad():
      layer.weight.copy_(torch.from_numpy(w.T))
      layer.bias.copy_(torch.from_numpy(b))
    layers += [layer, torch.nn.ReLU()]
  return torch.nn.Sequential(*layers[:-1])


def mlp_train():
  x, labels, weights = common.mlp_data()
  x, labels, net = torch.from_numpy(x), torch.from_numpy(labels), sequential(weights)
  optimizer = torch.optim.Adam(net.parameters(), common.MLP_RATE, eps=common.EPSILON, fused=True)
  loss_of = compiled(lambda x, labels: F.cross_entropy(net(x), labels))

  def step(state):
    optimizer.zero_grad()
    loss = loss_of(x, labels)
    loss.backward()
    optimizer.step()
    return loss.detach(), state

  return common.training(step, None, lambda loss: None)


def mlp_infer():
  x, _, weights = common.mlp_data()
  return inference(sequential(weights).eval(), x)


def cnn_infer():
  x, weights = common.cnn_data()
  filters = [torch.from_numpy(w.transpose(3, 2, 0, 1).copy()) for w in weights[0:4:2]]
  biases = [torch.from_numpy(b) for b in weights[1:4:2]]
  in_nchw = weights[4].reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(weights[4].shape)
  head = sequential([in_nchw, *weights[5:]]).eval()

  def net(x):
    for w, b in zip(filters, biases):
      x = F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2)
    return head(x.flatten(1))

  return inference(net, x.transpose(0, 3, 1, 2).copy())


def transformer_infer():
  x, layers = common.transformer_data()
  packed = []
  for p in layers:
    t = {name: torch.from_numpy(v.T.copy()) for name, v in p.items()}
    t["wqkv"], t["bqkv"] = (torch.cat([t[c + n] for n in "qkv"]) for c in "wb")
    packed.append(t)

  def net(x):
    for t in packed:
      h = F.layer_norm(x, (common.WIDTH,), t["scale1"], t["offset1"], common.NORM_EPSILON)
      qkv = F.linear(h, t["wqkv"], t["bqkv"]).unflatten(-1, (3, common.HEADS, -1)).permute(2, 0, 3, 1, 4)
      a = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
      x = x + F.linear(a, t["wo"], t["bo"])
      h = F.layer_norm(x, (common.WIDTH,), t["scale2"], t["offset2"], common.NORM_EPSILON)
      x = x + F.linear(F.gelu(F.linear(h, t["w1"], t["b1"])), t["w2"], t["b2"])
    return x

  return inference(net, x)


if __name__ == "__main__":
  sys.argv = [word for word in sys.argv if word != "--eager"]
  torch.set_num_threads(common.THREADS)
  cases = {name: lambda name=name: chain(name) for name in common.CHAINS}
  cases.update({"graph/softmax_rows": softmax_rows, "graph/layernorm_rows": layernorm_rows,
                "train/mlp784_compiled": mlp_train, "infer/mlp784": mlp_infer, "infer/cnn": cnn_infer,
                "infer/transformer": transformer_infer})
  sys.exit(common.main("torch.compile (or, with --eager, none)", torch.__version__, cases))
