"""What a queue knows: the sum of its stream. Items that wait are kept whole, ended ones only by where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chimera.core.errors import StorageError
from chimera.core.events import Event
from chimera.review.state import evolve
from chimera.review.types import Item

MAX_ITEMS = 1_000_000
"""In one queue, over all its life. An ended one takes some 250 bytes of memory."""


class Book:
    """The items of a stream up to the event `seq`."""

    def __init__(self) -> None:
        self.seq = 0
        self.waiting: dict[str, Item] = {}
        self._ended: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self._ended)

    def ended(self, item_id: str) -> tuple[int, ...] | None:
        """Where the events of an ended item stand in the stream; None where none of that id has ended."""
        return self._ended.get(item_id)

    def ids(self) -> Iterable[str]:
        """Of all items, those that wait first."""
        yield from self.waiting
        yield from self._ended

    def apply(self, event: Event) -> Item:
        """Take the next event of the stream in. Raises StorageError for one that cannot follow."""
        if event.seq != self.seq + 1:
            raise StorageError(f"{event.mission_id}: event {event.seq} comes where {self.seq + 1} is next")
        if event.task_id in self._ended:
            raise StorageError(f"{event.mission_id}: event {event.seq} is about an item that had ended")
        item = apply_event(self.waiting.get(event.task_id), event)
        if item.state.ended:
            self.waiting.pop(item.id, None)
            self._ended[item.id] = item.seqs
        else:
            self.waiting[item.id] = item
        self.seq = event.seq
        return item


def apply_event(item: Item | None, event: Event) -> Item:
    """The item after an event of its own. Raises StorageError if it cannot follow."""
    return evolve(item, event.kind, event.data, at_s=event.at_s, seq=event.seq, id=event.task_id)


def fold(events: Sequence[Event]) -> Item:
    """The item whose events these are, from the first on. Raises StorageError."""
    item: Item | None = None
    for event in events:
        item = apply_event(item, event)
    if item is None:
        raise StorageError("an item of the review queue has no events: its journal has lost them")
    return item
