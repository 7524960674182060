"""Data sets have public ranges that hold them; files are read strictly, and errors say where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chimera.core.errors import InputError
from chimera.sandbox import datasets
from chimera.sandbox.datasets import NAMES, SchemaFile, load, read_schema, read_table, synthetic, windows

NAB = Path("tests/data/nab/data/realAdExchange/exchange-2_cpc_results.csv")

SCHEMA = """
columns:
  - {name: amount, low: 0, high: 100}
  - {name: items, low: 0, high: 9, step: 1}
classes: [fair, fraud]
label: kind
"""

CSV = "items,ignored,amount,kind\n3,x,50,fair\n7.4,y,1e9,fraud\n"


@pytest.fixture
def schema(tmp_path: Path) -> SchemaFile:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    return read_schema(tmp_path / "schema.yaml")


def written(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_public_ranges_hold_the_records_and_are_not_taken_from_them(name: str) -> None:
    table = load(name)
    assert table.labels is not None
    assert len(np.unique(table.labels)) == len(table.schema.classes)
    low, high = table.schema.low, table.schema.low + table.schema.span
    at_an_end = ((table.values == low) | (table.values == high))[:, table.schema.levels > 1]
    assert at_an_end.mean() < {"digits": 0.6}.get(name, 0.1)
    assert not np.array_equal(low, table.values.min(axis=0)) or not np.array_equal(high, table.values.max(axis=0))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"synthetic"}))
def test_putting_scikit_learns_records_on_the_lattice_loses_nothing(name: str) -> None:
    import sklearn.datasets

    found = getattr(sklearn.datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    table = load(name)
    assert (np.abs(table.values - found.data) <= table.schema.grain / 2 + 1e-9).all()


def test_a_seed_is_a_table() -> None:
    assert np.array_equal(synthetic(50, 3).values, synthetic(50, 3).values)
    assert not np.array_equal(synthetic(50, 3).values, synthetic(50, 4).values)
    assert len(synthetic(0, 0)) == 0
    with pytest.raises(InputError, match="there can be"):
        synthetic(datasets.MAX_ROWS + 1, 0)
    with pytest.raises(InputError, match="breast_cancer, diabetes"):
        load("cifar")


def test_a_csv_and_a_parquet_file_are_the_same_table(tmp_path: Path, schema: SchemaFile) -> None:
    path = written(tmp_path, CSV)
    pd.read_csv(path).to_parquet(tmp_path / "table.parquet")
    for each in (path, tmp_path / "table.parquet"):
        table = read_table(each, schema)
        assert table.values.round(2).tolist() == [[50.0, 3.0], [100.0, 7.0]]
        assert table.labels is not None
        assert table.labels.tolist() == [0, 1]
        assert len(table.schema) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("items,amount\n1,2\n", "line 1: no column 'kind'"),
        ("items,items,amount,kind\n", "same name"),
        ("items,amount,kind\n1,2,fair\n1,x,fair\n", "line 3, column 'amount': 'x'"),
        ("items,amount,kind\n1,nan,fair\n", "line 2, column 'amount': 'nan'"),
        ("items,amount,kind\n1,,fair\n", "line 2, column 'amount': ''"),
        ("items,amount,kind\n1,2,odd\n", "line 2, column 'kind': 'odd' is none"),
        ("items,amount,kind\n1,2\n", "line 2 has 2 cells"),
        ("", "line 1: no column"),
        ('items,amount,kind\n1,"2,fair\n', "cannot be read"),
    ],
)
def test_a_wrong_csv_is_told_with_its_place(tmp_path: Path, schema: SchemaFile, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_table(written(tmp_path, text), schema)


def test_a_wrong_parquet_is_told_with_its_place(tmp_path: Path, schema: SchemaFile) -> None:
    path = tmp_path / "table.parquet"
    for amount, kind, told in ((None, "fair", "record 2, column 'amount'"), (2.0, "odd", "record 2, column 'kind'")):
        pd.DataFrame({"items": [1, 2], "amount": [1.0, amount], "kind": ["fair", kind]}).to_parquet(path)
        with pytest.raises(InputError, match=told):
            read_table(path, schema)
    pd.DataFrame({"items": [1]}).to_parquet(path)
    with pytest.raises(InputError, match="no column 'amount', 'kind'"):
        read_table(path, schema)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path, schema)


def test_limits_hold(tmp_path: Path, schema: SchemaFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, CSV)
    pd.read_csv(path).to_parquet(tmp_path / "table.parquet")
    monkeypatch.setattr(datasets, "MAX_ROWS", 1)
    for each in (path, tmp_path / "table.parquet"):
        with pytest.raises(InputError, match="more than 1 records"):
            read_table(each, schema)
    monkeypatch.setattr(datasets, "MAX_FILE_BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        read_table(path, schema)
    with pytest.raises(InputError, match=r"\.csv or a \.parquet"):
        read_table(written(tmp_path, "", "table.xls"), schema)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "missing.csv", schema)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("columns: [", "as YAML"),
        ("columns: []", "columns"),
        ("columns: [{name: a, low: 1, high: 0}]", "below"),
        ("columns: [{name: a, low: 0, high: 1, unit: m}]", "unit"),
        ("columns: [{name: a, low: 0, high: 1}]\nlabel: kind", "both, or neither"),
        ("columns: [{name: a, low: 0, high: 1}]\nlabel: a\nclasses: [x]", "column too"),
        ("- 1", "file"),
    ],
)
def test_a_wrong_schema_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_schema(written(tmp_path, text, "schema.yaml"))


def test_windows_of_a_metric(tmp_path: Path) -> None:
    table = windows(np.arange(10.0), length=4, stride=3, low=0.0, high=20.0)
    assert table.values.round(2).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert table.labels is None
    from_file = windows(NAB, length=24, stride=12, low=0.0, high=1.0)
    assert from_file.values.shape[1] == 24
    assert from_file.values[0, 0] == pytest.approx(0.0819647355164, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"length": 0}, "windows of 0"),
        ({"stride": 0}, "0 apart"),
        ({"length": 11}, "no window of 11"),
        ({"low": 5.0, "high": 5.0}, "no range"),
    ],
)
def test_windows_that_cannot_be_are_refused(wrong: dict[str, float], told: str) -> None:
    options = {"length": 4, "stride": 1, "low": 0.0, "high": 9.0} | wrong
    with pytest.raises(InputError, match=told):
        windows(np.arange(10.0), **options)  # type: ignore[arg-type]


def test_windows_of_a_file_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'value'"):
        windows(written(tmp_path, "timestamp,price\n1,2\n"), length=1, stride=1, low=0.0, high=1.0)
