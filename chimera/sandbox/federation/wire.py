"""What travels between sandboxes: a generator's arrays of a form that is fixed at the start, and nothing else.

Messages are Flower's own, as protocol buffers, so nothing here is ever unpickled. An array is read only where its bytes
are exactly what numpy writes for an array of the agreed shape and type: a header that lies about its size, and an
object array, do not get as far as being parsed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from chimera.core.errors import InputError, ReplyError, SwarmError
from chimera.core.types import Frozen
from chimera.sandbox.federation.flower import (
    Array,
    ArrayRecord,
    DecodeError,
    Message,
    MessageProto,
    SType,
    message_from_proto,
    message_to_proto,
)
from chimera.sandbox.federation.local import Floating

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""The records of a message: the generator, what is asked, what is told. The first two are Flower's own names."""

MAX_MESSAGE_BYTES = 64_000_000
MAX_ARRAYS = 256

Size = Annotated[int, Field(ge=1, le=1 << 24)]


class ArraySpec(Frozen):
    """One array of a generator."""

    name: Annotated[str, Field(pattern=r"^generator/\d{1,3}$")]
    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)]
    dtype: Literal["float32", "float64"]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def header(self) -> bytes:
        """What numpy writes before the numbers of such an array, in C order (numpy.lib.format, version 1.0)."""
        out = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(self.dtype))
        np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": self.shape})
        return out.getvalue()


class Blueprint(Frozen):
    """The form of a generator: the names, shapes and types of its arrays, in order. It never changes in a run."""

    arrays: Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS)]

    @classmethod
    def of(cls, arrays: Sequence[Floating]) -> Self:
        """The form that these have. Raises InputError for what cannot be averaged or is too large to send."""
        if not 1 <= len(arrays) <= MAX_ARRAYS:
            raise InputError(f"a generator of {len(arrays)} arrays cannot be shared: it has 1 to {MAX_ARRAYS}")
        for array in arrays:
            if array.dtype not in (np.float32, np.float64) or array.ndim == 0 or array.size == 0:
                raise InputError(
                    f"an array of type {array.dtype} and shape {array.shape} cannot be averaged: share arrays of"
                    " float32 or float64 with at least one dimension, and leave counters out"
                )
        if sum(array.nbytes for array in arrays) > MAX_MESSAGE_BYTES:
            raise InputError(f"the generator is larger than the {MAX_MESSAGE_BYTES} bytes that a message may have")
        return cls(
            arrays=tuple(
                ArraySpec(
                    name=f"generator/{i}",
                    shape=array.shape,
                    dtype="float32" if array.dtype == np.float32 else "float64",
                )
                for i, array in enumerate(arrays)
            )
        )

    def pack(self, arrays: Sequence[Floating]) -> ArrayRecord:
        """The arrays as a record to send. Raises InputError where they do not have this form, or are not finite."""
        if Blueprint.of(arrays) != self:
            raise InputError("the generator's arrays have changed their shapes or types since the federation began")
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError("the generator holds numbers that are not finite: its training has diverged")
        return ArrayRecord(
            {spec.name: Array(np.ascontiguousarray(a)) for spec, a in zip(self.arrays, arrays, strict=True)}
        )

    def unpack(self, record: ArrayRecord, *, max_abs: float = math.inf) -> list[Floating]:
        """The arrays of a record that came. Raises ReplyError where they are not of this form, finite, or too large."""
        names = [spec.name for spec in self.arrays]
        if list(record) != names:
            raise ReplyError(f"it holds the arrays {_listed(record)} instead of the generator's {len(names)}")
        return [_read(record[spec.name], spec, max_abs) for spec in self.arrays]

    def conform(self, record: ArrayRecord) -> list[Floating]:
        """The arrays of a record that a strategy made here, in this form's types and in C order.

        Raises SwarmError where their shapes changed, or they are not finite.
        """
        if list(record) != [spec.name for spec in self.arrays]:
            raise SwarmError("the strategy lost or added arrays")
        arrays = [np.ascontiguousarray(record[spec.name].numpy(), spec.dtype) for spec in self.arrays]
        for spec, array in zip(self.arrays, arrays, strict=True):
            if array.shape != spec.shape or not np.isfinite(array).all():
                raise SwarmError(f"the strategy made {spec.name} into something of another shape, or not finite")
        return arrays


def _listed(names: Iterable[str]) -> str:
    shown = [name[:40] for name in list(names)[:4]]
    return ", ".join(map(repr, shown)) or "of nothing"


def _read(array: Array, spec: ArraySpec, max_abs: float) -> Floating:
    if array.stype != SType.NUMPY:
        raise ReplyError(f"{spec.name} is serialised as {array.stype[:40]!r}: only plain numpy arrays are read")
    if tuple(array.shape) != spec.shape or array.dtype != spec.dtype:
        came = f"{array.dtype[:20]} of shape {tuple(array.shape)[:8]}"
        raise ReplyError(f"{spec.name} is {came} instead of {spec.dtype} of {spec.shape}")
    header = spec.header()
    if len(array.data) != len(header) + spec.size_bytes or not array.data.startswith(header):
        raise ReplyError(f"{spec.name} is not what numpy writes for {spec.dtype} of shape {spec.shape}")
    numbers: Floating = np.frombuffer(array.data, spec.dtype, offset=len(header)).reshape(spec.shape).copy()
    if not np.isfinite(numbers).all():
        raise ReplyError(f"{spec.name} holds numbers that are not finite")
    if np.abs(numbers).max() > max_abs:
        raise ReplyError(f"{spec.name} holds a number beyond {max_abs:g}")
    return numbers


def encode(message: Message, *, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """The message as bytes, in Flower's protocol buffers. Raises InputError where it is too large."""
    packed: bytes = message_to_proto(message).SerializeToString(deterministic=True)
    if len(packed) > max_bytes:
        raise InputError(f"a message of {len(packed)} bytes is larger than the {max_bytes} that are sent")
    return packed


def decode(packed: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """The message that these bytes are. Raises ReplyError where they are too many, or no message."""
    if not isinstance(packed, bytes):
        raise ReplyError(f"it is no bytes but a {type(packed).__name__}")
    if len(packed) > max_bytes:
        raise ReplyError(f"a message of {len(packed)} bytes is larger than the {max_bytes} that are read")
    try:
        return message_from_proto(MessageProto.FromString(packed))
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReplyError(f"it is no message of Flower's: {type(error).__name__}") from None
