"""Points of BN254, read strictly: one encoding for each point, on the curve, in the right subgroup, not the identity.

Compressed as arkworks does: x in little endian, the two top bits of the last byte a sign and a mark of the identity; 32
bytes for G1 and 64 for G2. The curve of G2 has more points than the group, and a pairing with one of those means
nothing, so `zksnake` refuses them; it also takes an identity with any x and more bytes than it needs, which this does
not. Nothing may reach its constructors from (x, y) unchecked: they end in a Rust panic.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from chimera.core.errors import MissingExtra, ProofError

try:
    from zksnake import _algebra
except ModuleNotFoundError as error:
    raise MissingExtra("zksnake", "sandbox") from error

curve: Any = _algebra.ec_bn254

polynomials: Any = _algebra.polynomial_bn254

G1: TypeAlias = Any
"""A point of the first group. `zksnake` has no types."""

G2: TypeAlias = Any

G1_BYTES = 32

G2_BYTES = 64


def read_g1(data: bytes, what: str) -> G1:
    """The point that `data` is. Raises ProofError, which names `what`."""
    return _read(curve.PointG1, data, G1_BYTES, what)


def read_g2(data: bytes, what: str) -> G2:
    return _read(curve.PointG2, data, G2_BYTES, what)


def write(point: Any) -> bytes:
    return bytes(point.to_bytes())


def _read(group: Any, data: bytes, size: int, what: str) -> Any:
    if len(data) != size:
        raise ProofError(f"{what}: {size} bytes are a point, not {len(data)}")
    try:
        point = group.from_bytes(data)
    except ValueError:
        raise ProofError(f"{what}: not a point of the group") from None
    if point.is_zero():
        raise ProofError(f"{what}: the identity of the group, which no honest key or proof has")
    if write(point) != data:
        raise ProofError(f"{what}: a point in another encoding than its own")
    return point
