"""What the detector does with sources that it has not learnt from: each is left out of a training, then scored.

    python -m bench.injection.measure [--data DIR] [--only NAME] [--json]

- `aside`: the weights as shipped, on texts written by hand that no training reads (`aside/`): `chosen_by`, looked at
  while templates and features were chosen, and `reported`, scored once, after that.
- `all`: without any of the labelled texts of `--data`, all of which are then scored.
- `bipia`: without any of BIPIA; its e-mails and tables, clean and with an instruction put in, and Wikipedia's text in
  `tests/data/qa` (never learnt from) clean and with BIPIA's instructions put in.
- `pint`, `wild`: without PINT's public examples; without the jailbreaks found in the wild.
- `leak`, `hijack`, `persona`, `agent`, `foreign`: without the families of attack templates with this aim, the
  recall on each.
- `hard`: without the hard requests, the share of them that is flagged.

It takes some minutes: one training for each line but the first.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.injection.corpus import Piece, inserted, labelled, pieces
from bench.injection.train import DATA, SEED, train
from chimera.core.clock import SystemClock
from chimera.security.gateway.detector import load
from chimera.security.gateway.evaluate import Evaluation, Example, evaluate, read
from chimera.security.gateway.gateway import SecurityGateway

WIKIPEDIA = Path("tests/data/qa/docs")
ASIDE = Path(__file__).with_name("aside")
AIMS = {
    "leak": ("leak", "leaked", "guarded"),
    "hijack": ("override", "hijack", "authority"),
    "persona": ("jailbreak", "story"),
    "agent": ("agent", "frame", "trick"),
    "foreign": ("foreign", "abroad"),
}
EACH = 300


@dataclass(frozen=True)
class Plan:
    """Sources to leave out, and the sets to score then. With nothing to leave out, the weights are those shipped."""

    without: frozenset[str]
    sets: dict[str, list[Example]]


def plans(data: Path) -> dict[str, Plan]:
    """What is measured, by name."""
    rows = labelled(data)
    by: dict[str, list[Example]] = {}
    for row in rows:
        source = str(row["source"])
        name = source if "bipia" in source else "pint" if "PINT" in source else "wild"
        by.setdefault(name, []).append(Example(text=str(row["text"]), label=1 if row["label"] else 0))
    every = pieces(data, SEED)
    put = [piece.text for piece in every if piece.source == "bipia-attack"]
    bipia = {name: by[name] for name in ("bipia-email", "bipia-table")} | {"wikipedia": wikipedia(put)}
    aside = {path.stem: list(read(path)) for path in sorted(ASIDE.glob("*.jsonl"))}
    of_bipia = frozenset({"bipia-email", "bipia-table", "bipia-attack"})
    pint, wild = {"pint": by["pint"]}, {"wild": by["wild"]}
    found = {
        "aside": Plan(frozenset(), aside),
        "all": Plan(of_bipia | {"pint", "wild"}, pint | bipia | wild),
        "bipia": Plan(of_bipia, bipia),
        "pint": Plan(frozenset({"pint"}), pint),
        "wild": Plan(frozenset({"wild"}), wild),
        "hard": Plan(frozenset({"made-hard"}), {"made-hard": some(every, "made-hard", 0)}),
    }
    for aim, families in AIMS.items():
        names = [f"made-{family}" for family in families]
        found[aim] = Plan(frozenset(names), {name: some(every, name, 1) for name in names})
    return found


def some(every: list[Piece], source: str, label: int) -> list[Example]:
    """Texts of a source, at most `EACH`."""
    texts = [piece.text for piece in every if piece.source == source]
    random.Random(SEED).shuffle(texts)
    return [Example.model_validate({"text": text, "label": label}) for text in texts[:EACH]]


def wikipedia(put: list[str]) -> list[Example]:
    """Two or three paragraphs of an article, clean, and the same with an instruction put in."""
    rng = random.Random(SEED)
    made: list[Example] = []
    for path in sorted(WIKIPEDIA.glob("*.txt")):
        paragraphs = path.read_text(encoding="utf-8").split("\n\n")
        for at in range(0, min(len(paragraphs), 18), 3):
            text = "\n".join(paragraphs[at : at + rng.randint(2, 3)])
            made += [Example(text=text, label=0), Example(text=inserted(text, rng.choice(put), rng), label=1)]
    return made


def told(found: Evaluation) -> str:
    """A line of figures with their intervals."""
    parts = [f"{found.attacks}+{found.benign}"]
    for name, share, interval in (
        ("recall", found.recall, found.recall_interval),
        ("fpr", found.false_positive_rate, found.false_positive_rate_interval),
        ("auc", found.auc, found.auc_interval),
    ):
        if share is not None and interval:
            parts.append(f"{name} {share:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]")
    return "  ".join([*parts, f"p95 {found.p95_ms:.0f} ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, plan in plans(options.data).items():
        if options.only and name not in options.only:
            continue
        learnt = train(pieces(options.data, SEED, plan.without)) if plan.without else load()
        gateway = SecurityGateway(detector=learnt)
        for title, examples in plan.sets.items():
            found = evaluate(gateway, examples, SystemClock())
            if options.json:
                print(json.dumps({"without": name, "set": title} | found.model_dump(mode="json")), flush=True)
            else:
                print(f"without {name:9} {title:14} {told(found)}", flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
