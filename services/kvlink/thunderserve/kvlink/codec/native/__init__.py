"""The int4 codec in C++, called through its C interface; calls release the interpreter's lock."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.kvlink.protocol.errors import FrameError, NonFiniteKvError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LEVELS", "LIBRARY_NAME", "NativeCodec", "load_library"]

LIBRARY_NAME = "libkvlink_int4.so"
LEVELS = ("scalar", "avx2", "avx512")
_FORMAT = 2  # kvlink_int4_format() of a library that speaks this package's payload
_DTYPES = {"bfloat16": 0, "float16": 1}
_NOT_FINITE, _BAD_SCALE = 1, 2


def load_library(path: Path | None = None) -> ctypes.CDLL | None:
    """The compiled codec beside this file, or None when there is none of this format."""
    try:
        library = ctypes.CDLL(str(path or Path(__file__).with_name(LIBRARY_NAME)))
    except OSError:
        return None
    if library.kvlink_int4_format() != _FORMAT:
        return None
    address, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    for function in (library.kvlink_int4_quantise, library.kvlink_int4_dequantise):
        function.argtypes = (number, number, address, size, size, size, address)
        function.restype = number
    return library


class NativeCodec:
    """One level of the library; raises ValueError where the machine lacks its instructions."""

    def __init__(self, library: ctypes.CDLL, level: int) -> None:
        if not 0 <= level <= library.kvlink_int4_level():
            raise ValueError(f"this machine has no {LEVELS[level]} instructions")
        self._library = library
        self._level = level
        self.name = LEVELS[level]

    def quantise(
        self, values: npt.NDArray[np.uint16], dtype: str, out: npt.NDArray[np.uint8]
    ) -> None:
        """See `Backend`."""
        status = self._library.kvlink_int4_quantise(
            self._level, _DTYPES[dtype], values.ctypes.data, *values.shape, out.ctypes.data
        )
        if status == _NOT_FINITE:
            raise NonFiniteKvError("the KV cache holds NaN or infinity; int4 cannot carry it")
        _check(status)

    def dequantise(
        self, payload: npt.NDArray[np.uint8], dtype: str, out: npt.NDArray[np.uint16]
    ) -> None:
        """See `Backend`."""
        status = self._library.kvlink_int4_dequantise(
            self._level, _DTYPES[dtype], payload.ctypes.data, *out.shape, out.ctypes.data
        )
        if status == _BAD_SCALE:
            raise FrameError("an int4 payload with scales that no codec writes")
        _check(status)


def _check(status: int) -> None:
    assert status == 0, f"the compiled codec refused its arguments: {status}"  # noqa: S101 - ours
