"""Pulses that drand's quicknet has published, and points near them that it has not.

Chain 52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971; `/public/1000` and on say the same.
"""

from __future__ import annotations

SIGNATURES = {
    1000: "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39",
    1001: "b33bf3667cbd5a82de3a24b4e0e9fe5513cc1a0e840368c6e31f5fcfa79bea03f73896b25883abf2853d10337fb8fa41",
    1002: "ab066f9c12dd6de1336fca0f925192fb0c72a771c3e4c82ede1fd362c1a770f9eb05843c6308ce2530b53a99c0281a6e",
    1003: "b104c82771698f45fd8dcfead083d482694c31ab519bcef077f126f3736fe98c8392fd5d45d88aeb76b56ccfcb0296d7",
}

RANDOMNESS_1000 = "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"

PUBLISHED_1000_S = 1_692_806_364
"""When round 1000 was published, in seconds since the epoch."""

_P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
"""The prime of BLS12-381's field; its curve is y^2 = x^3 + 4."""


def outside_the_group(signature: str) -> str:
    """`signature` plus (0, 2), a point of order 3: on the curve, and of the same pairing, but another string."""
    x, y = _point(signature)
    slope = (2 - y) * pow(-x, -1, _P) % _P
    third_x = (slope * slope - x) % _P
    return _compressed(third_x, (slope * (x - third_x) - y) % _P)


def negated(signature: str) -> str:
    """The other point of the same x."""
    x, y = _point(signature)
    return _compressed(x, _P - y)


def _point(signature: str) -> tuple[int, int]:
    data = bytes.fromhex(signature)
    x = int.from_bytes(data, "big") & ((1 << 381) - 1)
    y = pow(x**3 + 4, (_P + 1) // 4, _P)
    return x, y if _is_large(y) == bool(data[0] & 0x20) else _P - y


def _compressed(x: int, y: int) -> str:
    assert (y * y - x**3 - 4) % _P == 0, "this point is not on the curve"
    return (x | 1 << 383 | _is_large(y) << 381).to_bytes(48, "big").hex()


def _is_large(y: int) -> bool:
    return y > (_P - 1) // 2
