"""What a command makes of a journal that does not open."""

from __future__ import annotations

import pytest

from chimera.cli.settings import opening
from chimera.core.errors import InputError, MissingExtra, StorageError


@pytest.mark.parametrize(
    ("journal", "error", "kind"),
    [
        ("sqlite:////folder", StorageError("/folder: unable to open database file"), InputError),
        ("redis://host/0", MissingExtra("redis", "redis"), InputError),
        ("redis://host/0", StorageError("redis://host/0 is out of reach"), StorageError),
    ],
)
def test_a_journal_that_does_not_open(journal: str, error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised, opening(journal):
        raise error
    assert type(raised.value) is kind and str(raised.value) == str(error)
