"""What is offered for gas (EIP-1559), and how much more when a transaction is stuck (pure). All in wei."""

from __future__ import annotations

from chimera.core.types import Frozen
from chimera.treasury.evm.types import GWEI, Wei

BASE_FEE_FACTOR = 2
"""The base fee grows by an eighth a block at most: twice of it lasts for six full blocks."""

MIN_TIP = 1
MARGIN_PERCENT = 25


class Offer(Frozen):
    """Per unit of gas: `max_fee` is all that is paid at most, of which the block's maker gets up to `tip`."""

    max_fee: Wei
    tip: Wei


def offer(base_fee: int, tip: int, *, max_fee: int, max_tip: int) -> Offer:
    """What to offer for a first try. Never above the limits, even if it then has to wait for the base fee to fall."""
    tip = min(max(tip, MIN_TIP), max_tip, max_fee)
    return Offer(max_fee=min(BASE_FEE_FACTOR * base_fee + tip, max_fee), tip=tip)


def raised(last: Offer, fresh: Offer, *, max_fee: int, max_tip: int) -> Offer | None:
    """What to offer instead of `last` for the same nonce; None where the limits leave no room.

    Nodes take a replacement only if both fields are at least a tenth above the last (geth's `pricebump`), and some
    (Erigon's and Polygon's older ones) ask for an eighth: we add an eighth, rounded up. `fresh` is what would be
    offered now, which may be more.
    """
    least = Offer(max_fee=_eighth_more(last.max_fee), tip=_eighth_more(last.tip))
    if least.max_fee > max_fee or least.tip > min(max_tip, max_fee):
        return None
    tip = max(least.tip, fresh.tip)
    return Offer(max_fee=min(max(least.max_fee, fresh.max_fee, tip), max_fee), tip=min(tip, max_tip, max_fee))


def with_margin(estimate: int, *, most: int) -> int:
    """Gas to allow where a node estimates so much; what is not used is not paid."""
    return min(estimate + estimate * MARGIN_PERCENT // 100, most)


def in_ledger(wei: int) -> int:
    """Wei as billionths of the coin, rounded up: a fee is never entered as less than it was."""
    return -(-wei // GWEI)


def _eighth_more(fee: int) -> int:
    return fee + -(-fee // 8)
