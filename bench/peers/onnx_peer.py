#!/usr/bin/env python3
"""The peer of the inference cases: ONNX Runtime, over models that are written here node by node (opset 20)."""
import math
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import common


class Graph:
  """Nodes and constants as they are added; a node has one output, whose name `add` returns."""

  def __init__(self):
    self.nodes, self.constants = [], []

  def constant(self, value):
    name = f"c{len(self.constants)}"
    self.constants.append(numpy_helper.from_array(np.asarray(value), name))
    return name

  def add(self, op, *inputs, **attributes):
    """An input is the name of a value, or an array."""
    names = [v if isinstance(v, str) else self.constant(v) for v in inputs]
    self.nodes.append(helper.make_node(op, names, [f"v{len(self.nodes)}"], **attributes))
    return self.nodes[-1].output[0]

  def case(self, x, y):
    """A case that gives array x to the graph and takes value y."""
    given, taken = (helper.make_tensor_value_info(*of) for of in (("x", TensorProto.FLOAT, x.shape),
                                                                  (y, TensorProto.FLOAT, None)))
    graph = helper.make_graph(self.nodes, "peer", [given], [taken], self.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = common.THREADS, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run():
      return session.run(None, {"x": x})[0]

    return common.Case(run, lambda: common.check(run()))


def dense(g, h, weights):
  """Gemm and relu in turn, none after the last."""
  for k in range(0, len(weights), 2):
    h = g.add("Gemm", h, weights[k], weights[k + 1])
    h = g.add("Relu", h) if k + 2 < len(weights) else h
  return h


def mlp():
  x, _, weights = common.mlp_data()
  g = Graph()
  return g.case(x, dense(g, "x", weights))


def cnn():
  x, weights = common.cnn_data()
  g, h = Graph(), "x"
  for w, b in zip(weights[0:4:2], weights[1:4:2]):
    h = g.add("Relu", g.add("Conv", h, w.transpose(3, 2, 0, 1), b, pads=[1, 1, 1, 1]))
    h = g.add("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
  in_nchw = weights[4].reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(weights[4].shape)
  return g.case(x.transpose(0, 3, 1, 2).copy(), dense(g, g.add("Flatten", h), [in_nchw, *weights[5:]]))


def attention(g, h, p):
  """Four heads over h [1, length, width]."""
  shape = np.array([0, 0, common.HEADS, common.WIDTH // common.HEADS])
  parts = {}
  for n, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
    full = g.add("Add", g.add("MatMul", h, p["w" + n]), p["b" + n])
    parts[n] = g.add("Transpose", g.add("Reshape", full, shape), perm=order)
  scale = np.float32(1 / math.sqrt(common.WIDTH // common.HEADS))
  weights = g.add("Softmax", g.add("Mul", g.add("MatMul", parts["q"], parts["k"]), scale), axis=-1)
  mixed = g.add("Transpose", g.add("MatMul", weights, parts["v"]), perm=[0, 2, 1, 3])
  return g.add("Add", g.add("MatMul", g.add("Reshape", mixed, np.array([0, 0, common.WIDTH])), p["wo"]), p["bo"])


def transformer():
  x, layers = common.transformer_data()
  g, h = Graph(), "x"
  for p in layers:
    normal = g.add("LayerNormalization", h, p["scale1"], p["offset1"], epsilon=common.NORM_EPSILON)
    h = g.add("Add", h, attention(g, normal, p))
    normal = g.add("LayerNormalization", h, p["scale2"], p["offset2"], epsilon=common.NORM_EPSILON)
    inner = g.add("Gelu", g.add("Add", g.add("MatMul", normal, p["w1"]), p["b1"]))
    h = g.add("Add", h, g.add("Add", g.add("MatMul", inner, p["w2"]), p["b2"]))
  return g.case(x, h)


if __name__ == "__main__":
  cases = {"infer/mlp784": mlp, "infer/cnn": cnn, "infer/transformer": transformer}
  sys.exit(common.main("ONNX Runtime sessions", onnxruntime.__version__, cases))
