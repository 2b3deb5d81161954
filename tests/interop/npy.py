"""Files between NumPy (and the safetensors package) and tern, both ways: .npy of every dtype, order, version and byte
order, .npz stored, deflated and with 64-bit records."""
import ctypes
import io
import os
import tempfile
import zipfile

from common import (DTYPES, Scope, Tensor, array, declare, error, fails, lib, module, np, run, same, tensor, text,
                    values)

Names, Tensors = ctypes.POINTER(text), ctypes.POINTER(Tensor)
declare("tern_npy_read", Tensor, text)
declare("tern_npy_write", ctypes.c_int, text, Tensor)
declare("tern_npz_open", ctypes.c_void_p, text)
declare("tern_npz_count", ctypes.c_int, ctypes.c_void_p)
declare("tern_npz_name", text, ctypes.c_void_p, ctypes.c_int)
declare("tern_npz_get", Tensor, ctypes.c_void_p, text)
declare("tern_npz_close", None, ctypes.c_void_p)
declare("tern_npz_write", ctypes.c_int, text, Names, Tensors, ctypes.c_int, ctypes.c_void_p)
declare("tern_safetensors_open", ctypes.c_void_p, text)
declare("tern_safetensors_get", Tensor, ctypes.c_void_p, text)
declare("tern_safetensors_close", None, ctypes.c_void_p)
declare("tern_safetensors_write", ctypes.c_int, text, Names, Tensors, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)  # files are synced
path = os.path.join(folder.name, "file")
SIZES = [(), (0,), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 4), (1, 1, 5, 1), (2, 1, 2, 1, 2, 1, 2, 2)]


def pointers(arrays):
    """Names and tensors of a dict of arrays, as C wants them."""
    names = (text * len(arrays))(*[name.encode() for name in arrays])
    tensors = (Tensor * len(arrays))(*[tensor(a) for a in arrays.values()])
    return names, tensors, len(arrays)


def content():
    with open(path, "rb") as file:
        return file.read()


def read_npy():
    for dtype in DTYPES:
        for sizes in SIZES:
            for order in "CF":
                for swapped in (False, True):
                    for version in ((1, 0), (2, 0), (3, 0)):
                        a = np.array(values(dtype, sizes), order=order)
                        b = a.astype(a.dtype.newbyteorder()) if swapped else a
                        with open(path, "wb") as file:
                            np.lib.format.write_array(file, b, version=version)
                        with Scope():
                            got = lib.tern_npy_read(path.encode())
                            assert got and same(array(got), a), (dtype, sizes, order, swapped, version, error())


def write_npy():
    for dtype in DTYPES:
        for sizes in SIZES:
            a = values(dtype, sizes)
            with Scope():
                assert lib.tern_npy_write(path.encode(), tensor(a)) == 0, error()
            got = np.load(path)
            assert same(got, a) and got.flags.c_contiguous, (dtype, sizes)
            expected = io.BytesIO()
            np.save(expected, a)
            assert content() == expected.getvalue(), (dtype, sizes, "other bytes than numpy.save")


def views():
    a = values("int16", (4, 5, 6))
    t = lib.tern_permute(tensor(a), None, 3)
    assert lib.tern_npy_write(path.encode(), t) == 0, error()
    assert same(np.load(path), a.T.copy())


def large():
    a = values("float64", (3000, 1000))  # more than a piece of 16 MiB
    np.save(path + ".npy", np.asfortranarray(a))
    assert same(array(lib.tern_npy_read((path + ".npy").encode())), a)
    assert lib.tern_npy_write(path.encode(), tensor(a)) == 0 and same(np.load(path), a)


def refused():
    for a, part in [(np.zeros(3, "c8"), "complex"), (np.array(["a", "b"]), "text"), (np.zeros(2, "V2"), "bfloat16"),
                    (np.zeros(2, "M8[s]"), "times"), (np.zeros(2, [("x", "f4")]), "records"),
                    (np.array([None]), "objects"), (np.zeros((1,) * 9), "dimensions")]:
        np.save(path + ".npy", a, allow_pickle=True)
        fails(lib.tern_npy_read((path + ".npy").encode()), part)
    rc = lib.tern_npy_write(path.encode(), tensor(np.zeros(2, "u2"), "bfloat16"))
    fails(rc == 0, "NumPy has no bfloat16")


def some_arrays():
    arrays = {f"layer/{dtype}": values(dtype, (3, 4)) for dtype in DTYPES}
    arrays.update({"sp\u00e4\u00df": values("int8", (5,)), "zeros": np.zeros((200, 300), "float32"),
                   "empty": np.zeros((0, 2), "int64"), "scalar": np.float64(2.5)})
    return {name: np.asarray(a) for name, a in arrays.items()}


def check_npz(arrays):
    file = lib.tern_npz_open(path.encode())
    assert file, error()
    names = [lib.tern_npz_name(file, i).decode() for i in range(lib.tern_npz_count(file))]
    assert names == list(arrays), names
    for name, a in arrays.items():
        got = lib.tern_npz_get(file, name.encode())
        assert got and same(array(got), a), (name, error())
    lib.tern_npz_close(file)


def read_npz():
    arrays = some_arrays()
    arrays["fortran"] = np.asfortranarray(values("float32", (4, 3, 2)))
    for save in (np.savez, np.savez_compressed):
        with open(path, "wb") as file:
            save(file, **arrays)
        check_npz(arrays)


def read_zip64():
    """Python's zipfile made to think that everything is too large for the 32-bit records."""
    limits = zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT
    zipfile.ZIP64_LIMIT = zipfile.ZIP_FILECOUNT_LIMIT = 1
    try:
        with open(path, "wb") as file:
            np.savez_compressed(file, **some_arrays())
    finally:
        zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits
    assert b"PK\x06\x06" in content()
    check_npz(some_arrays())


def write_npz():
    arrays = some_arrays()
    names, tensors, n = pointers(arrays)
    sizes = []
    for compressed in (0, 1):
        opts = ctypes.c_int(compressed)
        assert lib.tern_npz_write(path.encode(), names, tensors, n, ctypes.byref(opts)) == 0, error()
        with zipfile.ZipFile(path) as file:
            assert file.testzip() is None
        with np.load(path) as file:
            assert list(file) == list(arrays), list(file)
            assert all(same(file[name], a) for name, a in arrays.items())
        check_npz(arrays)
        sizes.append(os.path.getsize(path))
    assert sizes[1] < sizes[0] / 4, sizes
    assert lib.tern_npz_write(path.encode(), None, None, 0, None) == 0, error()
    with np.load(path) as file:
        assert list(file) == []


def many_members():
    """More than 16 bits of members: the 64-bit end record, written and read."""
    count = 66000
    one = tensor(values("uint8", ()))
    names = (text * count)(*[b"a%d" % i for i in range(count)])
    assert lib.tern_npz_write(path.encode(), names, (Tensor * count)(*[one] * count), count, None) == 0, error()
    with zipfile.ZipFile(path) as file:
        assert len(file.namelist()) == count
    file = lib.tern_npz_open(path.encode())
    assert lib.tern_npz_count(file) == count and same(array(lib.tern_npz_get(file, b"a65999")), values("uint8", ()))
    lib.tern_npz_close(file)


def other_zips():
    def write(name, data=b"x", **options):
        with zipfile.ZipFile(path, "w", **options) as file:
            file.writestr(name, data)
        return lib.tern_npz_open(path.encode())

    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    for method, word in ((zipfile.ZIP_BZIP2, "method 12"), (zipfile.ZIP_LZMA, "method 14")):
        fails(write("a.npy", buffer.getvalue(), compression=method), word)
    fails(write("a.txt"), "does not end in .npy")
    fails(write("../a.npy", buffer.getvalue()), "..")
    fails(write("/a.npy", buffer.getvalue()), "from the root")
    fails(write("a.npy", buffer.getvalue() + b"x"), "something follows")
    fails(write("a.npy"), "no .npy file")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("folder/", b"")
        file.writestr("folder/a.npy", buffer.getvalue())
    check_npz({"folder/a": np.arange(3)})


def with_safetensors():
    package = module("safetensors.numpy")
    if not package:
        return
    arrays = {dtype: values(dtype, (3, 4)) for dtype in DTYPES}
    package.save_file(arrays, path)
    file = lib.tern_safetensors_open(path.encode())
    assert file, error()
    for name, a in arrays.items():
        assert same(array(lib.tern_safetensors_get(file, name.encode())), a), name
    lib.tern_safetensors_close(file)
    before = content()
    names, tensors, n = pointers(arrays)
    assert lib.tern_safetensors_write(path.encode(), names, tensors, n, None, 0) == 0, error()
    assert all(same(a, arrays[name]) for name, a in package.load_file(path).items())
    assert content() == before, "other bytes than the safetensors package"


run(read_npy, write_npy, views, large, refused, read_npz, read_zip64, write_npz, many_members, other_zips,
    with_safetensors)
