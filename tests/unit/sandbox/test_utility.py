"""What synthetic records are worth: the real ones are worth most, shuffled labels nothing, one class nothing."""

from __future__ import annotations

import numpy as np
import pytest

from chimera.core.errors import InputError
from chimera.sandbox.datasets import load, synthetic
from chimera.sandbox.schema import Table
from chimera.sandbox.utility import marginal_distance, utility


def test_real_records_teach_and_shuffled_labels_do_not() -> None:
    train, test = synthetic(500, 0), synthetic(500, 1)
    assert train.labels is not None
    shuffled = Table(train.schema, train.values, np.random.default_rng(0).permutation(train.labels))
    good, none = utility(train, test), utility(shuffled, test)
    assert min(good.auroc_lr, good.auroc_rf) > 0.92
    assert min(good.ap_lr, good.ap_rf) > 0.9
    assert max(none.auroc_lr, none.auroc_rf) < 0.75
    assert good == utility(train, test)


def test_one_class_is_chance_and_a_class_that_is_missing_too() -> None:
    wine = load("wine")
    assert wine.labels is not None
    for train in (wine.take(wine.labels == 1), wine.take(np.arange(0))):
        found = utility(train, wine)
        assert found.auroc_lr == found.auroc_rf == 0.5
        assert found.ap_lr == pytest.approx(1.0 / 3.0)
    two = utility(wine.take(wine.labels != 2), wine)
    assert 0.6 < two.auroc_lr < utility(wine, wine).auroc_lr


def test_distances_are_those_of_the_columns() -> None:
    table = synthetic(300, 0)
    assert marginal_distance(table, table) == 0.0
    low = Table(table.schema, np.tile(table.schema.low, (9, 1)), np.zeros(9))
    high = Table(table.schema, np.tile(table.schema.low + table.schema.span, (4, 1)), np.zeros(4))
    assert marginal_distance(low, high) == pytest.approx(1.0)
    half = table.values.copy()
    half[:, 0] = table.schema.low[0]
    moved = Table(table.schema, half, table.labels)
    share = float((table.values[:, 0] - table.schema.low[0]).mean() / table.schema.span[0])
    assert marginal_distance(table, moved) == pytest.approx(share / 10.0, rel=0.01)


def test_what_cannot_be_compared_is_refused() -> None:
    table, wine = synthetic(30, 0), load("wine")
    for judge in (utility, marginal_distance):
        with pytest.raises(InputError, match="schemas"):
            judge(table, wine)
    assert table.labels is not None
    with pytest.raises(InputError, match="two classes"):
        utility(table, table.take(table.labels == 0))
    with pytest.raises(InputError, match="empty"):
        marginal_distance(table, table.take(np.arange(0)))
