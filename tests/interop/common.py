"""libtern.so through ctypes, as far as the interop tests need it. The library's path is the program's argument."""
import ctypes
import importlib
import sys


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def module(name):
    """The module, or None after a line that says why its part is left out."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"skipped: {name} is not installed ({error})")
        return None


np = module("numpy")
if np is None:
    skip("all of it needs numpy; on Debian: apt-get install python3-numpy")

NAMES = ["", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
         "float32", "float64"]
NUMBERS = {name: i for i, name in enumerate(NAMES)}
DTYPES = [name for name in NAMES if name not in ("", "bfloat16")]  # that NumPy has

Tensor = ctypes.c_void_p


class Shape(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_int32), ("dim", ctypes.c_int64 * 8)]


class Mark(ctypes.Structure):
    _fields_ = [("outer", ctypes.c_uint32), ("depth", ctypes.c_uint32)]


class Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_int64), ("stop", ctypes.c_int64), ("step", ctypes.c_int64)]


lib = ctypes.CDLL(sys.argv[1])


def declare(name, result, *arguments):
    function = getattr(lib, name)
    function.restype = result
    function.argtypes = arguments
    return function


text = ctypes.c_char_p
declare("tern_error", text)
declare("tern_error_clear", None)
declare("tern_error_code", ctypes.c_int)
declare("tern_finish", ctypes.c_int)
declare("tern_scope_begin", Mark)
declare("tern_scope_end", None, ctypes.POINTER(Mark))
declare("tern_keep", Tensor, Tensor)
declare("tern_release", None, Tensor)
declare("tern_constant", Tensor, Shape, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
declare("tern_cast", Tensor, Tensor, ctypes.c_int)
declare("tern_add", Tensor, Tensor, Tensor)
declare("tern_permute", Tensor, Tensor, ctypes.c_void_p, ctypes.c_int)
declare("tern_slice", Tensor, Tensor, ctypes.POINTER(Range), ctypes.c_int)
declare("tern_expand", Tensor, Tensor, Shape)
declare("tern_to_host", ctypes.c_int, Tensor, ctypes.c_void_p, ctypes.c_size_t)
declare("tern_rank", ctypes.c_int, Tensor)
declare("tern_dim", ctypes.c_int64, Tensor, ctypes.c_int)
declare("tern_dtype_get", ctypes.c_int, Tensor)


class Scope:
    """with Scope(): tensors made inside end with it."""

    def __enter__(self):
        self.mark = lib.tern_scope_begin()

    def __exit__(self, *_):
        lib.tern_scope_end(ctypes.byref(self.mark))


def shape_of(sizes):
    return Shape(len(sizes), (ctypes.c_int64 * 8)(*sizes))


def tensor(array, dtype=None):
    """A tern tensor of an array, copied. dtype: tern's name of it, where NumPy has none (the bits are taken)."""
    dense = np.ascontiguousarray(array)
    made = lib.tern_constant(shape_of(np.shape(array)), NUMBERS[dtype or dense.dtype.name], dense.ctypes.data,
                             dense.size)
    assert made, error()
    return made


def array(t):
    """The elements of a tern tensor, copied. bfloat16 as its bits."""
    assert t, error()
    name = NAMES[lib.tern_dtype_get(t)]
    sizes = [lib.tern_dim(t, i) for i in range(lib.tern_rank(t))]
    out = np.empty(sizes, "uint16" if name == "bfloat16" else name)
    assert lib.tern_to_host(t, out.ctypes.data, out.nbytes) == 0, error()
    return out


def error():
    """The thread's error, which is cleared."""
    message = lib.tern_error().decode()
    lib.tern_error_clear()
    return message


def fails(result, part):
    """The call must have failed with that in its message."""
    assert not result, f"expected an error with: {part}"
    message = error()
    assert part in message, f"expected {part!r} in: {message}"


def same(a, b):
    """Dtype, shape and every bit."""
    return a.dtype.name == b.dtype.name and a.shape == b.shape and \
        np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def values(dtype, sizes, seed=1):
    """Random elements: all bits of integers, special numbers among floats."""
    random = np.random.RandomState(seed)
    count = int(np.prod(sizes, dtype=np.int64))
    if dtype == "bool":
        flat = random.randint(0, 2, count).astype("bool")
    elif dtype.startswith("float"):
        flat = (random.randn(count) * 100).astype(dtype)
        special = np.array([np.inf, -np.inf, np.nan, -0.0, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
        flat[:len(special)] = special[:count]
    else:
        flat = np.frombuffer(random.bytes(count * np.dtype(dtype).itemsize), dtype).copy()
    return flat.reshape(sizes)


def run(*cases):
    for case in cases:
        with Scope():
            case()
        assert lib.tern_error_code() == 0, error()
        print(f"ok   {case.__name__}")
    sys.exit(lib.tern_finish())
