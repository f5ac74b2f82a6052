"""Let a process keep the memory that it frees, so that each training step does not fetch the same pages anew.

A step frees all that it allocated. glibc then gives the memory back to the system, and the next step pays for every
page once more: the kernel hands it over zeroed, 4 kB at a time, which on a small model is a tenth of the step. Told not
to give it back, the process stays as large as its largest step was, which it needs again anyway.

Only glibc has these two settings (`man mallopt`); elsewhere nothing is done.
"""

import ctypes
import sys
from functools import cache
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1  # the free memory at the heap's end from which on it is given back
_M_MMAP_THRESHOLD: Final = -3  # the size from which on a block is the system's own, and given back when freed
_MEGABYTE: Final = 2**20


def keep_freed_memory() -> bool:
    """Give nothing back from now on, in this whole process; return whether the C library can do that."""
    return _set(trim_threshold=2**31 - 1, mmap_threshold=1024 * _MEGABYTE)


def return_freed_memory() -> bool:
    """Give memory back from now on as glibc by itself comes to do it; return whether that could be set."""
    return _set(trim_threshold=64 * _MEGABYTE, mmap_threshold=32 * _MEGABYTE)


def _set(*, trim_threshold: int, mmap_threshold: int) -> bool:
    library = _glibc()
    return library is not None and bool(
        library.mallopt(_M_MMAP_THRESHOLD, mmap_threshold) and library.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
    )


@cache
def _glibc() -> Any:
    """Return the C library if it is glibc, else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
