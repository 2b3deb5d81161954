#!/usr/bin/env python3
"""The peer of models with layers: Keras on TensorFlow. A step of training is the fastest of Keras's own
(train_on_batch) and a step by hand in a tf.function, each as it is and compiled by XLA."""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
import numpy as np
import tensorflow as tf

import common


def quickstart():
  """From the layers to predictions, each time a new model; the session's names and counters are cleared between."""
  x, y = np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([[0], [1], [0]], np.float32)

  def run():
    keras.backend.clear_session(free_memory=False)
    net = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(4, activation="relu"),
                            keras.layers.Dense(1, activation="sigmoid")])
    net.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    net.fit(x, y, epochs=10, verbose=0)
    return net.predict(x, verbose=0)

  return common.Case(run, None)


def cnn():
  layers = keras.layers
  net = keras.Sequential([layers.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu", padding="same"),
                          layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu", padding="same"),
                          layers.MaxPooling2D(), layers.Flatten(), layers.Dense(128, activation="relu"),
                          layers.Dense(10)])
  generator = np.random.default_rng(1)
  x, labels = generator.random((64, 28, 28, 1), np.float32), generator.integers(0, 10, 64, np.int32)
  return net, tf.constant(x), tf.constant(labels)


def own_step(jit):
  """Keras's own step."""
  net, x, labels = cnn()
  net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit)
  return common.Case(lambda: net.train_on_batch(x, labels), None)


def step_by_hand(jit):
  net, x, labels = cnn()
  optimizer = keras.optimizers.Adam()
  optimizer.build(net.trainable_variables)

  @tf.function(jit_compile=jit)
  def step(x, labels):
    with tf.GradientTape() as tape:
      loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, net(x, training=True)))
    optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
    return loss

  return common.Case(lambda: step(x, labels).numpy(), None)


def cnn_train():
  ways = [lambda way=way, jit=jit: way(jit) for way in (own_step, step_by_hand) for jit in (False, True)]
  return common.fastest(*ways)


if __name__ == "__main__":
  tf.config.threading.set_intra_op_parallelism_threads(common.THREADS)
  tf.config.threading.set_inter_op_parallelism_threads(common.THREADS)
  cases = {"fit/keras_quickstart": quickstart, "train/cnn": cnn_train}
  sys.exit(common.main("Keras on TensorFlow", f"{keras.__version__}, TensorFlow {tf.__version__}", cases))
