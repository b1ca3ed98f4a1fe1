"""Who does the arithmetic of int4: compiled code where it was built, numpy elsewhere."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol

from thunderserve.kvlink.codec import reference
from thunderserve.kvlink.codec.native import NativeCodec, load_library

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Backend", "ReferenceCodec", "best_backend"]

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Arithmetic on contiguous arrays; every backend makes the same bits."""

    @property
    def name(self) -> str:
        """For logs and benchmarks."""

    def quantise(
        self, values: npt.NDArray[np.uint16], dtype: str, out: npt.NDArray[np.uint8]
    ) -> None:
        """(rows, tokens, channels) bit patterns into `packed_bytes` bytes.

        Raises:
            NonFiniteKvError: A value is NaN or infinite.
        """

    def dequantise(
        self, payload: npt.NDArray[np.uint8], dtype: str, out: npt.NDArray[np.uint16]
    ) -> None:
        """`packed_bytes` bytes into (rows, tokens, channels) bit patterns, all of them finite.

        Raises:
            FrameError: Scales that no codec writes; `out` holds nothing of use then.
        """


class ReferenceCodec:
    """numpy."""

    name = "numpy"
    quantise = staticmethod(reference.quantise)
    dequantise = staticmethod(reference.dequantise)


@functools.cache
def best_backend() -> Backend:
    """The fastest backend of this machine; without compiled code it says so, once."""
    library = load_library()
    if library is not None:
        return NativeCodec(library, library.kvlink_int4_level())
    _log.warning(
        "int4 runs in numpy, some twenty times slower: there is no compiled codec. Install a "
        "C++ compiler (Debian: apt-get install g++), then install thunderserve again, or run "
        "`python services/kvlink/build_native.py` in a checkout"
    )
    return ReferenceCodec()
