"""Tensors between numpy, torch and tern without a copy, by both forms of DLPack: dtypes, views, lifetimes, refusals."""
import ctypes
import gc
import threading

from common import (DTYPES, NUMBERS, Range, Scope, Tensor, array, declare, error, fails, lib, module, np, run, same,
                    shape_of, skip, tensor, values)

declare("tern_to_dlpack", ctypes.c_void_p, Tensor)
declare("tern_to_dlpack_legacy", ctypes.c_void_p, Tensor)
declare("tern_from_dlpack", Tensor, ctypes.c_void_p)
declare("tern_from_dlpack_legacy", Tensor, ctypes.c_void_p)

capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype = ctypes.py_object
capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule_name = ctypes.pythonapi.PyCapsule_GetName
capsule_name.restype = ctypes.c_char_p
capsule_name.argtypes = [ctypes.py_object]
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
capsule_rename = ctypes.pythonapi.PyCapsule_SetName
capsule_rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
LEGACY, VERSIONED, USED = b"dltensor", b"dltensor_versioned", {b"dltensor": b"used_dltensor",
                                                              b"dltensor_versioned": b"used_dltensor_versioned"}


class DLTensor(ctypes.Structure):
    """Written down from DLPack's specification, apart from tern's header."""
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", DLTensor)]


class Export:
    """What from_dlpack functions take: a tern tensor as a capsule, in the form that is asked for."""

    def __init__(self, t, legacy=False):
        self.t, self.legacy = t, legacy

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, *, max_version=None, **_):
        versioned = max_version is not None and max_version[0] >= 1 and not self.legacy
        pointer = (lib.tern_to_dlpack if versioned else lib.tern_to_dlpack_legacy)(self.t)
        assert pointer, error()
        return capsule_new(pointer, VERSIONED if versioned else LEGACY, None)


def from_capsule(capsule):
    """A tern tensor of what __dlpack__ gave; the capsule is marked as used when it was taken over."""
    name = capsule_name(capsule)
    take = lib.tern_from_dlpack if name == VERSIONED else lib.tern_from_dlpack_legacy
    t = take(capsule_pointer(capsule, name))
    if t:
        capsule_rename(capsule, USED_NAMES[name])
    return t


USED_NAMES = {name: ctypes.create_string_buffer(used).value for name, used in USED.items()}  # must stay alive


def capsules(x):
    """The forms of capsule that x's library can make."""
    yield x.__dlpack__()
    try:
        yield x.__dlpack__(max_version=(1, 0))
    except TypeError:
        pass  # older than DLPack 1.0


def address(t):
    """Where tern says that the elements of t are."""
    managed = ctypes.cast(lib.tern_to_dlpack(t), ctypes.POINTER(ManagedVersioned))
    data = managed.contents.tensor.data
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.contents.deleter)(ctypes.cast(managed, ctypes.c_void_p).value)
    return data


if not hasattr(np, "from_dlpack"):
    skip(f"numpy {np.__version__} has no from_dlpack; 1.23 or newer is needed")


def numpy_takes(t, legacy=False):
    return np.from_dlpack(Export(t, legacy))


def numpys_dtypes():
    """Those that this numpy knows in DLPack: no bool before 1.25."""
    try:
        np.ones(2, "bool").__dlpack__()
        return DTYPES
    except BufferError as reason:
        print(f"skipped: bool with numpy {np.__version__}: {reason}")
        return [dtype for dtype in DTYPES if dtype != "bool"]


DTYPES = numpys_dtypes()


def to_numpy():
    for dtype in DTYPES:
        for sizes in [(), (5,), (3, 4), (2, 0, 3), (2, 3, 4)]:
            for legacy in (False, True):
                a = values(dtype, sizes)
                t = tensor(a)
                got = numpy_takes(t, legacy)
                assert same(got, a), (dtype, sizes)
                assert a.size == 0 or got.ctypes.data == address(t), "copied"


def views_to_numpy():
    a = values("int32", (4, 5, 6))
    t = tensor(a)
    turned = lib.tern_permute(t, None, 3)
    got = numpy_takes(turned)
    assert same(got, a.T) and got.strides == a.T.strides and got.ctypes.data == address(t)
    part = lib.tern_slice(t, (Range * 3)(Range(1, 4, 2), Range(0, 5, 3), Range(2, 6, 1)), 3)
    assert same(numpy_takes(part), a[1:4:2, 0:5:3, 2:6])
    wide = lib.tern_expand(tensor(values("int8", (1, 3))), shape_of((4, 3)))
    assert same(numpy_takes(wide), np.broadcast_to(values("int8", (1, 3)), (4, 3)))


def read_only():
    got = numpy_takes(tensor(values("float32", (3,))))
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert not got.flags.writeable
    managed = ctypes.cast(lib.tern_to_dlpack(tensor(values("float32", (3,)))), ctypes.POINTER(ManagedVersioned))
    assert (managed.contents.major, managed.contents.flags) == (1, 1)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.contents.deleter)(ctypes.cast(managed, ctypes.c_void_p).value)


def outlives_its_scope():
    a = values("int64", (1000,))
    with Scope():
        got = numpy_takes(tensor(a))
    with Scope():
        for i in range(100):  # what would take the memory if it were free
            tensor(np.full(1000, i, "int64"))
        assert same(got, a)
    boxes = [got]
    del got
    thread = threading.Thread(target=boxes.clear)  # the deleter runs there
    thread.start()
    thread.join()


def from_numpy():
    for dtype in DTYPES:
        for sizes in [(), (1,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)]:
            a = values(dtype, sizes)
            for capsule in capsules(a):
                t = from_capsule(capsule)
                assert t and same(array(t), a), (dtype, sizes, error())
                assert a.size == 0 or address(t) == a.ctypes.data, "copied"


def views_from_numpy():
    a = values("int16", (6, 5, 4))
    for view in (a.T, a[::2, 1:, ::3], a[::-1], a[:, ::-2, ::-1], a[4:5, 2], np.broadcast_to(a[:1], (3, 5, 4)).copy(),
                 a[..., :1]):
        for capsule in capsules(view):
            t = from_capsule(capsule)
            assert t and same(array(t), view) and address(t) == view.ctypes.data, error()
            total = lib.tern_add(t, t)
            assert same(array(total), view + view), error()


def unaligned():
    raw = np.zeros(4 * 8 + 1, "uint8")
    a = raw[1:].view("float32")
    a[:] = np.arange(8)
    for capsule in capsules(a):
        t = from_capsule(capsule)  # copied, and released at once
        assert t and same(array(t), a.copy()) and address(t) != a.ctypes.data, error()


class Watched(np.ndarray):
    """An array whose life can be seen."""
    alive = 0

    def __del__(self):
        Watched.alive -= 1


def watched(sizes, dtype="float32"):
    a = values(dtype, sizes).view(Watched)
    Watched.alive = 1
    return a


def lives_as_long_as_tern_needs():
    for sizes in ((10,), (0,)):
        a = watched(sizes)
        with Scope():
            t = from_capsule(a.__dlpack__())
            kept = lib.tern_keep(lib.tern_permute(t, None, 1))
            del a
            gc.collect()
            assert Watched.alive == (1 if sizes[0] else 0)  # nothing to keep of no elements
        gc.collect()
        assert Watched.alive == (1 if sizes[0] else 0)
        lib.tern_release(kept)
        gc.collect()
        assert Watched.alive == 0, "the deleter was not called"


def refused():
    """A failed import leaves the tensor to its owner, who can still use it."""
    a = values("float32", (3,)).astype("complex64")
    for capsule in capsules(a):
        fails(from_capsule(capsule), "complex of 64 bits")
        assert capsule_name(capsule) in (LEGACY, VERSIONED)
    fails(lib.tern_from_dlpack(None), "NULL")
    fails(lib.tern_from_dlpack_legacy(None), "NULL")
    calls = []
    deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(calls.append)
    data = (ctypes.c_float * 4)(1, 2, 3, 4)
    for field, value, part in [("device_type", 2, "CUDA"), ("device_type", 4, "OpenCL"), ("device_type", 99, "99"),
                               ("lanes", 4, "4 lanes"), ("bits", 8, "float of 8 bits"), ("ndim", 9, "9 dimensions"),
                               ("ndim", -1, "-1 dimensions"), ("data", None, "NULL"), ("code", 77, "code 77"),
                               ("shape", (ctypes.c_int64 * 1)(-1), "negative"),
                               ("strides", (ctypes.c_int64 * 1)(2**62), "strides")]:
        m = managed(data, deleter)
        setattr(m.tensor, field, ctypes.cast(value, ctypes.POINTER(ctypes.c_int64))
                if field in ("shape", "strides") else value)
        fails(lib.tern_from_dlpack_legacy(ctypes.byref(m)), part)
    v = ManagedVersioned(major=2, minor=1)
    fails(lib.tern_from_dlpack(ctypes.byref(v)), "DLPack 2.1")
    assert not calls
    with Scope():
        m = managed(data, deleter)
        m.tensor.byte_offset = 4
        m.tensor.shape = ctypes.cast((ctypes.c_int64 * 1)(3), ctypes.POINTER(ctypes.c_int64))
        t = lib.tern_from_dlpack_legacy(ctypes.byref(m))
        assert same(array(t), np.array([2, 3, 4], "float32"))
    assert len(calls) == 1


def managed(data, deleter):
    m = Managed(deleter=ctypes.cast(deleter, ctypes.c_void_p))
    m.tensor = DLTensor(data=ctypes.addressof(data), device_type=1, ndim=1, code=2, bits=32, lanes=1,
                        shape=(ctypes.c_int64 * 1)(4))
    return m


def with_torch():
    torch = module("torch")
    if not torch:
        return
    for name in [n for n in NUMBERS if n and not n.startswith("uint") or n == "uint8"]:
        dtype = getattr(torch, name)
        made = torch.randn(3, 4).mul(3).to(dtype)
        for x in (made, made.t(), made[::2, 1:], made[0, 0], made[:0]):
            for capsule in capsules(x):
                t = from_capsule(capsule)
                bits = x.view(torch.int16).numpy().view("uint16") if name == "bfloat16" else x.numpy()
                assert t and same(array(t), bits), (name, error())
                assert x.numel() == 0 or address(t) == x.data_ptr(), "copied"
                for legacy in (False, True):
                    back = torch.from_dlpack(Export(t, legacy))
                    assert back.dtype == dtype and torch.equal(back, x)
                    assert x.numel() == 0 or back.data_ptr() == x.data_ptr(), "copied"


run(to_numpy, views_to_numpy, read_only, outlives_its_scope, from_numpy, views_from_numpy, unaligned,
    lives_as_long_as_tern_needs, refused, with_torch)
