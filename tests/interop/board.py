"""Event files of tern read by the tensorboard package, as `tensorboard --logdir` reads them."""
import ctypes
import glob
import io
import os
import tempfile

from common import Scope, Tensor, declare, error, lib, module, np, run, shape_of, skip, tensor, text

if module("tensorboard") is None:
    skip("all of it needs tensorboard; install it into a virtual environment and name its Python in TERN_TEST_PYTHON")
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.compat.proto import graph_pb2
from tensorboard.util import tensor_util

Board = ctypes.c_void_p
Body = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Tensor), ctypes.c_int, ctypes.POINTER(Tensor),
                        ctypes.c_int)
declare("tern_board_open", Board, text)
declare("tern_board_scalar", ctypes.c_int, Board, text, ctypes.c_int64, ctypes.c_double)
declare("tern_board_histogram", ctypes.c_int, Board, text, ctypes.c_int64, Tensor)
declare("tern_board_images", ctypes.c_int, Board, text, ctypes.c_int64, Tensor)
declare("tern_board_text", ctypes.c_int, Board, text, ctypes.c_int64, text)
declare("tern_board_graph", ctypes.c_int, Board, ctypes.c_void_p)
declare("tern_board_flush", ctypes.c_int, Board)
declare("tern_board_close", ctypes.c_int, Board)
declare("tern_function_new", ctypes.c_void_p, Body, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
declare("tern_function_release", None, ctypes.c_void_p)
declare("tern_call_n", Tensor, ctypes.c_void_p, ctypes.POINTER(Tensor), ctypes.c_int)
declare("tern_named", Tensor, Tensor, text)
declare("tern_matmul", Tensor, Tensor, Tensor)
declare("tern_relu", Tensor, Tensor)


def written(write):
    """What tensorboard reads after write(board): the old accumulator, and the one of its plugins."""
    with tempfile.TemporaryDirectory() as folder:
        runs = os.path.join(folder, "runs", "one")
        board = lib.tern_board_open(runs.encode())
        assert board, error()
        write(board)
        assert lib.tern_board_close(board) == 0, error()
        assert len(glob.glob(runs + "/events.out.tfevents.*")) == 1
        both = [reader.EventAccumulator(runs, dict.fromkeys(reader.DEFAULT_SIZE_GUIDANCE, 0))
                for reader in (event_accumulator, plugin_event_accumulator)]
        for accumulator in both:
            accumulator.Reload()
        return both


def scalars():
    numbers = [0.0, -1.5, 1e30, float("inf"), 3.25]

    def write(board):
        for step, number in enumerate(numbers):
            assert lib.tern_board_scalar(board, b"epoch/loss", step, number) == 0, error()
        assert lib.tern_board_scalar(board, "f\u00fcr \u6f22".encode(), -3, 7) == 0, error()
    old, new = written(write)
    assert [(e.step, e.value) for e in old.Scalars("epoch/loss")] == \
        [(i, float(np.float32(x))) for i, x in enumerate(numbers)]
    assert [(e.step, e.value) for e in old.Scalars("f\u00fcr \u6f22")] == [(-3, 7.0)]
    assert abs(old.Scalars("epoch/loss")[0].wall_time - __import__("time").time()) < 60
    assert new.PluginTagToContent("scalars").keys() == {"epoch/loss", "f\u00fcr \u6f22"}


def histograms():
    random = np.random.RandomState(2)
    data = [random.randn(100, 77).astype("float32"), np.arange(-5, 25, dtype="int8"), np.full(9, 2.5, "float64"),
            np.array([1, np.nan, np.inf, 3], "float32"), np.zeros(0, "float32"),
            (np.arange(1000) % 2).astype("bool")]

    def write(board):
        for step, a in enumerate(data):
            assert lib.tern_board_histogram(board, b"weights", step, tensor(a)) == 0, error()
    old, new = written(write)
    events = old.Histograms("weights")
    shown = [tensor_util.make_ndarray(e.tensor_proto) for e in new.Tensors("weights")]
    assert len(events) == len(shown) == len(data)
    for event, a, buckets in zip(events, data, shown):
        h = event.histogram_value
        a = a[np.isfinite(a)].astype("float64")
        assert h.num == a.size and np.isclose(h.sum, a.sum()) and np.isclose(h.sum_squares, (a * a).sum())
        assert sum(h.bucket) == a.size == buckets[:, 2].sum()
        if a.size == 0:
            continue
        assert (h.min, h.max) == (a.min(), a.max())
        if h.min < h.max:
            counts, edges = np.histogram(a, 30)
            assert np.allclose(h.bucket_limit, edges[1:])
            assert np.abs(np.cumsum(h.bucket) - np.cumsum(counts)).max() <= 1, (h.bucket, counts)
        assert np.isclose(buckets[0, 0], a.min()) and np.isclose(buckets[-1, 1], a.max())


def images():
    image = module("PIL.Image")
    random = np.random.RandomState(3)
    pictures = {b"%d" % c: random.randint(0, 256, (3, 5, 7, c)).astype("uint8") for c in (1, 2, 3, 4)}
    pictures[b"many"] = random.randint(0, 256, (20, 2, 2, 3)).astype("uint8")
    pictures[b"smooth"] = np.add.outer(np.arange(40), np.arange(60)).astype("uint8").reshape(1, 40, 60, 1)
    floats = np.array([0, 0.5, 1, -2, 3, np.nan], "float32").reshape(1, 1, 6, 1)

    def write(board):
        for tag, a in pictures.items():
            assert lib.tern_board_images(board, tag, 4, tensor(a)) == 0, error()
        assert lib.tern_board_images(board, b"floats", 4, tensor(floats)) == 0, error()
    _, new = written(write)
    pictures[b"floats"] = np.array([0, 128, 255, 0, 255, 0], "uint8").reshape(1, 1, 6, 1)
    assert set(new.PluginTagToContent("images")) == {tag.decode() for tag in pictures}
    for tag, a in pictures.items():
        (event,) = new.Tensors(tag.decode())
        strings = tensor_util.make_ndarray(event.tensor_proto)
        n, height, width, channels = min(len(a), 16), *a.shape[1:]
        assert event.step == 4 and list(strings[:2]) == [b"%d" % width, b"%d" % height] and len(strings) == 2 + n
        for i in range(n if image else 0):
            with image.open(io.BytesIO(strings[2 + i])) as file:
                assert file.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
                assert np.array_equal(np.asarray(file).reshape(height, width, channels), a[i]), tag


def texts():
    def write(board):
        assert lib.tern_board_text(board, b"notes", 2, "# Title\n\n*text* \u6f22".encode()) == 0, error()
        assert lib.tern_board_text(board, b"notes", 3, b"") == 0, error()
    _, new = written(write)
    assert set(new.PluginTagToContent("text")) == {"notes"}
    assert [tensor_util.make_ndarray(e.tensor_proto)[0].decode() for e in new.Tensors("notes")] == \
        ["# Title\n\n*text* \u6f22", ""]


@Body
def body(_, inputs, n_in, outputs, n_out):
    hidden = lib.tern_named(lib.tern_relu(lib.tern_matmul(inputs[0], inputs[1])), b"model/hidden")
    outputs[0] = lib.tern_named(lib.tern_add(hidden, inputs[2]), b"model/out of it")
    return 0


def graph():
    function = lib.tern_function_new(body, None, 3, 1, None)
    assert function, error()

    def write(board):
        assert lib.tern_board_graph(board, function) != 0 and "call it once" in error()
        inputs = (Tensor * 3)(*[tensor(np.ones(s, "float32")) for s in ((2, 3), (3, 4), (4,))])
        assert lib.tern_call_n(function, inputs, 3), error()
        assert lib.tern_board_graph(board, function) == 0, error()
    old, new = written(write)
    lib.tern_function_release(function)
    for accumulator in (old, new):
        definition = accumulator.Graph()
        nodes = {node.name: node for node in definition.node}
        assert len(nodes) == len(definition.node) == 7
        out = nodes["model/out_of_it"]
        assert out.op == "add" and list(out.input) == ["model/hidden", "input_2"] and out.device == "/device:cpu:0"
        assert [d.size for d in out.attr["_output_shapes"].list.shape[0].dim] == [2, 4] and out.attr["dtype"].type == 1
        assert list(nodes["matmul"].input) == ["input", "input_1"] and list(nodes["model/hidden"].input) == ["matmul"]
        assert list(nodes["result"].input) == ["model/out_of_it"]


run(scalars, histograms, images, texts, graph)
