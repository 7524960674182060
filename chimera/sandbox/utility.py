"""What synthetic records are good for: models that learn from them are tried on real ones (TSTR).

Esteban, Hyland, Raetsch 2017 (arXiv 1706.02633). The comparison is with the same models that learn from real records.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np

from chimera.core.errors import InputError, MissingExtra
from chimera.core.types import Frozen
from chimera.sandbox.schema import Floats, Integers, Table

SEED = 0

TREES = 100


class Utility(Frozen):
    """Area under the ROC curve and average precision, of logistic regression (lr) and a random forest (rf).

    Each is the mean over the classes, one against the rest. 0.5 is chance for an AUROC; for an average precision it is
    the share of the class.
    """

    auroc_lr: float
    auroc_rf: float
    ap_lr: float
    ap_rf: float


class _Model(Protocol):
    classes_: Any

    def fit(self, records: Floats, labels: Integers) -> object: ...

    def predict_proba(self, records: Floats) -> Any: ...


def utility(train_synthetic: Table, test_real: Table) -> Utility:
    """How well models that saw only `train_synthetic` tell the classes of `test_real` apart. Seeds are fixed.

    Synthetic records without two classes teach nothing, which is chance, and no error. Raises InputError where the
    schemas differ or the real records have no two classes, and MissingExtra without scikit-learn.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-learn", "sandbox") from error
    _same_schema(train_synthetic, test_real)
    if test_real.labels is None or len(np.unique(test_real.labels)) < 2:
        raise InputError("the real records to test on need at least two classes")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, random_state=SEED))
    forest = RandomForestClassifier(TREES, random_state=SEED, n_jobs=1)
    auroc_lr, ap_lr = _scores(linear, train_synthetic, test_real)
    auroc_rf, ap_rf = _scores(forest, train_synthetic, test_real)
    return Utility(auroc_lr=auroc_lr, auroc_rf=auroc_rf, ap_lr=ap_lr, ap_rf=ap_rf)


def marginal_distance(one: Table, other: Table) -> float:
    """The mean over the columns of the 1-D Wasserstein distance, each column's range being 1. Raises InputError."""
    from scipy.stats import wasserstein_distance

    _same_schema(one, other)
    if not len(one) or not len(other):
        raise InputError("an empty table is at no distance from another")
    left, right = one.schema.index(one.values), other.schema.index(other.values)
    columns = zip(left.T, right.T, one.schema.levels, strict=True)
    return float(np.mean([wasserstein_distance(a, b) / levels for a, b, levels in columns]))


def _scores(model: _Model, train: Table, test: Table) -> tuple[float, float]:
    """AUROC and average precision, each the mean over the classes that `test` has."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    assert test.labels is not None
    chances = np.zeros((len(test), len(test.schema.classes)))
    if train.labels is not None and len(np.unique(train.labels)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged: what it learned by then is judged
            model.fit(train.encoded, train.labels)
            chances[:, np.asarray(model.classes_, np.int64)] = model.predict_proba(test.encoded)
    present = np.unique(test.labels)
    auroc = [roc_auc_score(test.labels == label, chances[:, label]) for label in present]
    precision = [average_precision_score(test.labels == label, chances[:, label]) for label in present]
    return float(np.mean(auroc)), float(np.mean(precision))


def _same_schema(one: Table, other: Table) -> None:
    if (one.schema.columns, one.schema.classes) != (other.schema.columns, other.schema.classes):
        raise InputError("the two tables have different schemas: they cannot be compared")
