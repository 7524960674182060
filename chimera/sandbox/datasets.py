"""Tables to train on: scikit-learn's, seeded ones, files with a schema beside them, and windows of a metric.

All ranges are public. Those of scikit-learn's sets are written out here, from the tables in their published
descriptions and the instruments' scales, rounded outwards; none is computed from records when it runs.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, ValidationError, model_validator

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.schema import MAX_COLUMNS, Column, Floats, Schema, Table

MAX_ROWS = 1_000_000

MAX_FILE_BYTES = 2 * 2**30

MAX_SCHEMA_BYTES = 2**20

MAX_CELLS = 200_000_000

DIABETES_THRESHOLD = 140.0
"""Disease progression a year on, from 25 to 346: above it a record's class is `high`."""

_CANCER = (  # low, high of mean, error and worst
    ("radius", (5, 30), (0, 3), (5, 40)),
    ("texture", (5, 40), (0, 5), (10, 50)),
    ("perimeter", (40, 200), (0, 25), (50, 260)),
    ("area", (100, 2600), (0, 600), (100, 4400)),
    ("smoothness", (0.04, 0.18), (0, 0.04), (0.05, 0.25)),
    ("compactness", (0, 0.4), (0, 0.15), (0, 1.1)),
    ("concavity", (0, 0.5), (0, 0.4), (0, 1.3)),
    ("concave points", (0, 0.25), (0, 0.06), (0, 0.3)),
    ("symmetry", (0.1, 0.35), (0, 0.08), (0.1, 0.7)),
    ("fractal dimension", (0.04, 0.1), (0, 0.03), (0.05, 0.22)),
)

_WINE = (
    ("alcohol", 11.0, 15.0),
    ("malic_acid", 0.0, 6.0),
    ("ash", 1.0, 3.5),
    ("alcalinity_of_ash", 10.0, 30.0),
    ("magnesium", 70.0, 165.0),
    ("total_phenols", 0.5, 4.0),
    ("flavanoids", 0.0, 5.5),
    ("nonflavanoid_phenols", 0.0, 0.7),
    ("proanthocyanins", 0.0, 4.0),
    ("color_intensity", 1.0, 13.0),
    ("hue", 0.4, 1.8),
    ("od280/od315_of_diluted_wines", 1.0, 4.0),
    ("proline", 250.0, 1700.0),
)

_DIABETES = (  # low, high, step: ages, sexes and the laboratory's units are whole numbers
    ("age", 18.0, 100.0, 1.0),
    ("sex", 1.0, 2.0, 1.0),
    ("bmi", 15.0, 50.0, 0.1),
    ("bp", 50.0, 150.0, 0.0),
    ("s1", 80.0, 320.0, 1.0),
    ("s2", 30.0, 260.0, 0.0),
    ("s3", 15.0, 105.0, 0.0),
    ("s4", 1.0, 10.0, 0.0),
    ("s5", 3.0, 6.5, 0.0),
    ("s6", 50.0, 150.0, 1.0),
)


def _digits() -> Schema:
    columns = (Column(name=f"pixel_{row}_{column}", low=0, high=16, step=1) for row in range(8) for column in range(8))
    return Schema(columns=tuple(columns), classes=tuple("0123456789"))


def _cancer() -> Schema:
    ranges = [
        (f"{kind} {name}" if kind != "error" else f"{name} error", bounds[place])
        for place, kind in enumerate(("mean", "error", "worst"))
        for name, *bounds in _CANCER
    ]
    columns = tuple(Column(name=name, low=low, high=high) for name, (low, high) in ranges)
    return Schema(columns=columns, classes=("malignant", "benign"))


def _wine() -> Schema:
    columns = tuple(Column(name=name, low=low, high=high) for name, low, high in _WINE)
    return Schema(columns=columns, classes=("class_0", "class_1", "class_2"))


def _diabetes() -> Schema:
    columns = tuple(Column(name=name, low=low, high=high, step=step) for name, low, high, step in _DIABETES)
    return Schema(columns=columns, classes=("low", "high"))


_BUNDLED: dict[str, Callable[[], Schema]] = {
    "breast_cancer": _cancer,
    "diabetes": _diabetes,
    "digits": _digits,
    "wine": _wine,
}

NAMES = (*sorted(_BUNDLED), "synthetic")


def load(name: str) -> Table:
    """One of scikit-learn's bundled sets, by name, or `synthetic` (2,000 records, seed 0).

    Raises InputError for another name, and MissingExtra without scikit-learn.
    """
    if name == "synthetic":
        return synthetic(2_000, 0)
    if name not in _BUNDLED:
        raise InputError(f"no data set {name!r}: there are {', '.join(NAMES)}")
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-learn", "sandbox") from error
    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name}")(**options)
    labels = found.target > DIABETES_THRESHOLD if name == "diabetes" else found.target
    schema = _BUNDLED[name]()
    return Table(schema, schema.snap(np.asarray(found.data, np.float64)), labels)


def synthetic(n: int, seed: int) -> Table:
    """A seeded table of ten mixed columns, four of them of whole numbers, and two classes that can be learned apart.

    It stands for payments: `fraud` is one in five, its amounts are larger, its hours later, its counts higher.
    Raises InputError for more than `MAX_ROWS`.
    """
    if not 0 <= n <= MAX_ROWS:
        raise InputError(f"{n} records: there can be 0 to {MAX_ROWS}")
    rng = np.random.default_rng(seed)
    fraud = (rng.random(n) < 0.2).astype(np.float64)
    mood, size = rng.standard_normal((2, n))  # what columns have in common
    columns = {
        "amount": (0, 1_000, 0, np.exp(4.0 + 0.6 * size + 0.5 * fraud)),
        "balance": (-2_000, 10_000, 0, 3_000 + 1_500 * size + rng.normal(0, 800, n) - 600 * fraud),
        "hour": (0, 23, 1, 13 + 4 * rng.standard_normal(n) + 3 * fraud),
        "items": (0, 20, 1, rng.poisson(3 + 1.5 * fraud)),
        "age": (18, 100, 1, 45 + 13 * rng.standard_normal(n) - 5 * fraud),
        "failures": (0, 10, 1, rng.poisson(0.4 + 1.2 * fraud)),
        "distance": (0, 500, 0, rng.gamma(2.0, 20 + 20 * fraud)),
        "score": (-4, 4, 0, mood + 0.7 * fraud),
        "speed": (-6, 6, 0, 0.8 * mood + 0.6 * rng.standard_normal(n)),
        "balance_change": (-5, 5, 0, 0.5 * size - 0.5 * mood + 0.7 * rng.standard_normal(n) + 0.4 * fraud * size),
    }
    schema = Schema(
        columns=tuple(
            Column(name=name, low=low, high=high, step=step) for name, (low, high, step, _) in columns.items()
        ),
        classes=("fair", "fraud"),
    )
    return Table(schema, schema.snap(np.column_stack([values for *_, values in columns.values()])), fraud)


class SchemaFile(Schema):
    """A schema as a YAML file has it. `label` is the column that says a record's class, one of `classes`."""

    label: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _label_with_classes(self) -> SchemaFile:
        if (self.label is None) != (not self.classes):
            raise ValueError("`label` names the column of the classes: give both, or neither")
        if self.label in {column.name for column in self.columns}:
            raise ValueError(f"{self.label!r} is the label: it cannot be a column too")
        return self

    @property
    def header(self) -> tuple[str, ...]:
        return (*(column.name for column in self.columns), *((self.label,) if self.label else ()))

    def table(self, cells: Floats, labels: npt.NDArray[Any] | None, *, exact: bool = False) -> Table:
        """Raises InputError with `exact` where a cell is not what its column may hold."""
        snapped = self.snap(cells)
        near = np.abs(snapped - cells) <= 1e-9 * (self.grain + np.abs(snapped))
        if exact and (off := np.flatnonzero(~near.all(axis=1))).size:
            raise InputError(f"record {off[0] + 1} has a cell out of its column's range, or off its lattice")
        return Table(Schema(columns=self.columns, classes=self.classes), snapped, labels)


def read_schema(path: Path) -> SchemaFile:
    """The schema in a YAML file: `columns` (name, low, high, step), `classes` and `label`. Raises InputError."""
    try:
        if path.stat().st_size > MAX_SCHEMA_BYTES:
            raise InputError(f"{path}: a schema of more than {MAX_SCHEMA_BYTES} bytes is not read")
        return SchemaFile.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors()[:5])
        raise InputError(f"{path} is no schema of a table: {faults}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error


def read_table(path: Path, schema: SchemaFile, *, exact: bool = False) -> Table:
    """The records of a CSV (with a header) or Parquet file; columns that `schema` does not name are left out.

    What lies outside a column's range is put at its end, and what is between two places of its lattice at the nearer;
    with `exact` both are refused. Raises InputError, which names line and column, and
    MissingExtra for Parquet without pyarrow.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: a table of more than {MAX_FILE_BYTES} bytes is not read: split it")
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path, schema, exact=exact)
        if path.suffix.lower() == ".csv":
            return _read_csv(path, schema, exact=exact)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    raise InputError(f"{path}: a table is a .csv or a .parquet file")


def windows(source: Path | Floats, *, length: int, stride: int, low: float, high: float) -> Table:
    """Windows of a metric as records: `length` values each, the next `stride` later; no labels.

    `source` is a CSV file with the columns `timestamp` and `value` (as the Numenta Anomaly Benchmark has them), or the
    values (n,). `low` and `high` are the metric's public range. Raises InputError.
    """
    if not (1 <= length <= MAX_COLUMNS and stride >= 1):
        raise InputError(f"windows of {length} values, {stride} apart: 1 to {MAX_COLUMNS}, at least 1 apart")
    try:
        columns = tuple(Column(name=f"t{place}", low=low, high=high) for place in range(length))
    except ValidationError as error:
        raise InputError(f"{low} to {high} is no range: {error.errors()[0]['msg']}") from None
    values = _read_metric(source) if isinstance(source, Path) else np.asarray(source, np.float64)
    if values.ndim != 1 or len(values) < length:
        raise InputError(f"values of shape {values.shape} have no window of {length}")
    cut = np.lib.stride_tricks.sliding_window_view(values, length)[::stride]
    if len(cut) > MAX_ROWS or cut.size > MAX_CELLS:
        raise InputError(f"{len(cut)} windows of {length} are too many: take a larger stride")
    schema = Schema(columns=columns)
    return Table(schema, schema.snap(cut))


def _read_metric(path: Path) -> Floats:
    schema = SchemaFile(columns=(Column(name="value", low=-1e300, high=1e300),))
    try:
        return np.array([cells[0] for cells, _ in _csv_rows(path, schema)])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_csv(path: Path, schema: SchemaFile, *, exact: bool) -> Table:
    rows = list(_csv_rows(path, schema))
    cells = np.array([cells for cells, _ in rows]).reshape(-1, len(schema))
    labels = np.array([label for _, label in rows], np.int64) if schema.classes else None
    return schema.table(cells, labels, exact=exact)


def _csv_rows(path: Path, schema: SchemaFile) -> Iterator[tuple[list[float], int]]:
    """The cells of each line, and the index of its class (0 without classes)."""
    codes = {name: code for code, name in enumerate(schema.classes)}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        places = _places(path, next(reader, []), schema)
        for count, row in enumerate(reader):
            where = f"{path}, line {reader.line_num}"
            if count >= MAX_ROWS or count * len(schema) > MAX_CELLS:
                raise InputError(f"{where}: more than {MAX_ROWS} records, or {MAX_CELLS} cells: split the file")
            if len(row) <= max(places):
                raise InputError(f"{where} has {len(row)} cells, and the header more")
            cells = [
                _number(row[place], where, name)
                for place, name in zip(places[: len(schema)], schema.header, strict=False)
            ]
            label = row[places[-1]] if schema.label else ""
            if schema.label and label not in codes:
                raise InputError(f"{where}, column {schema.label!r}: {label[:80]!r} is none of the classes")
            yield cells, codes.get(label, 0)


def _number(text: str, where: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}, column {name!r}: {text[:80]!r} is no finite number")
    return value


def _places(path: Path, header: list[str], schema: SchemaFile) -> list[int]:
    """Where in a line the schema's columns are, the label's last."""
    if len(set(header)) != len(header):
        raise InputError(f"{path}: two columns have the same name")
    if missing := [name for name in schema.header if name not in header]:
        raise InputError(f"{path}, line 1: no column {', '.join(map(repr, missing[:5]))}: the schema names it")
    return [header.index(name) for name in schema.header]


def _read_parquet(path: Path, schema: SchemaFile, *, exact: bool) -> Table:
    try:
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "sandbox") from error
    try:
        with parquet.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            if rows > MAX_ROWS or rows * len(schema) > MAX_CELLS:
                raise InputError(f"{path}: more than {MAX_ROWS} records, or {MAX_CELLS} cells: split the file")
            _places(path, list(file.schema_arrow.names), schema)
            found = file.read(columns=list(schema.header))
        cells = np.empty((rows, len(schema)))
        for place, column in enumerate(schema.columns):
            cells[:, place] = found[column.name].cast(pa.float64()).to_numpy()
            if (bad := np.flatnonzero(~np.isfinite(cells[:, place]))).size:
                raise InputError(f"{path}, record {bad[0] + 1}, column {column.name!r} is no finite number")
        if schema.label is None:
            return schema.table(cells, None, exact=exact)
        codes = {name: code for code, name in enumerate(schema.classes)}
        names = found[schema.label].cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read as a table of numbers: {error}") from error
    if unknown := next((number for number, name in enumerate(names, start=1) if name not in codes), 0):
        name = str(names[unknown - 1])[:80]
        raise InputError(f"{path}, record {unknown}, column {schema.label!r}: {name!r} is none of the classes")
    return schema.table(cells, np.array([codes[name] for name in names], np.int64), exact=exact)
