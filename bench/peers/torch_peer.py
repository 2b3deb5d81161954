#!/usr/bin/env python3
"""The peer of graphs and of models with layers: PyTorch, compiled (torch.compile) or, with --eager, op by op."""
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


# ---- models with layers: random weights and data, shapes as in fit.c ----

CNN_BATCH, TEXT_BATCH, BLOCK, WORDS, WIDTH, HEADS, BLOCKS = 64, 16, 128, 97, 128, 4, 3


def cnn():
  nn = torch.nn
  net = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1),
                      nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(7 * 7 * 64, 128), nn.ReLU(),
                      nn.Linear(128, 10))
  return net, torch.rand(CNN_BATCH, 1, 28, 28), torch.randint(10, (CNN_BATCH,))


def cnn_channels_last():
  net, x, labels = cnn()
  return net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), labels


class Lstm(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.lstm, self.dense = torch.nn.LSTM(64, 128, batch_first=True), torch.nn.Linear(128, 10)

  def forward(self, x):
    return self.dense(self.lstm(x)[0])


def lstm():
  return Lstm(), torch.randn(32, 100, 64), torch.randint(10, (32, 100))


class Block(torch.nn.Module):
  """x + attention(norm(x)), then x + dense(gelu(dense(norm(x)))); one product for queries, keys and values."""

  def __init__(self):
    super().__init__()
    nn = torch.nn
    self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
    self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
    self.dense = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

  def forward(self, x):
    qkv = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    x = x + self.out(F.scaled_dot_product_attention(*qkv, is_causal=True).transpose(1, 2).flatten(2))
    return x + self.dense(self.norms[1](x))


def transformer():
  nn = torch.nn
  net = nn.Sequential(nn.Embedding(WORDS, WIDTH), *(Block() for _ in range(BLOCKS)), nn.LayerNorm(WIDTH),
                      nn.Linear(WIDTH, WORDS))
  return net, *(torch.randint(WORDS, (TEXT_BATCH, BLOCK)) for _ in range(2))


def model_step(net, x, labels):
  optimizer = torch.optim.Adam(net.parameters(), common.MLP_RATE, eps=common.EPSILON, fused=True)
  loss_of = compiled(lambda x, labels: F.cross_entropy(net(x).flatten(0, -2), labels.flatten()))

  def step():
    optimizer.zero_grad()
    loss = loss_of(x, labels)
    loss.backward()
    optimizer.step()
    return loss.item()

  return step


def model_train(make):
  return common.Case(model_step(*make()), None)


def model_infer(make):
  net, x, _ = make()
  function = compiled(net.eval())

  def run():
    with torch.inference_mode():
      return function(x)

  return common.Case(run, None)


def model_memory(make):
  """In a fresh process, as memory_child of fit.c; a step of a small model first, for what it imports."""
  model_step(torch.nn.Linear(2, 2), torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))()

  def run(steps):
    step = model_step(*make())
    for _ in range(steps):
      step()

  return common.growth(run)


# ---- graphs with given weights ----


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
  models = {"cnn": cnn, "lstm": lstm, "transformer": transformer}
  if sys.argv[1:2] == ["--memory"]:
    print(model_memory(models[sys.argv[2]]))
    sys.exit(0)
  cases = {name: lambda name=name: chain(name) for name in common.CHAINS}
  cases.update({"graph/softmax_rows": softmax_rows, "graph/layernorm_rows": layernorm_rows,
                "train/mlp784_compiled": mlp_train, "infer/mlp784": mlp_infer, "infer/cnn": cnn_infer,
                "infer/transformer": transformer_infer,
                "train/cnn": lambda: common.fastest(lambda: model_train(cnn), lambda: model_train(cnn_channels_last)),
                "train/lstm": lambda: model_train(lstm), "infer/lstm": lambda: model_infer(lstm),
                "train/transformer": lambda: model_train(transformer),
                "infer/transformer_text": lambda: model_infer(transformer)})
  for name in models:
    cases["fit/memory_" + name] = lambda name=name: common.Memory(*(["--eager"] if EAGER else []), "--memory", name)
  sys.exit(common.main("torch.compile (or, with --eager, none)", torch.__version__, cases))
