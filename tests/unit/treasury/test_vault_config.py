"""`treasury.yaml`: what it may say, and that each mistake is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera.core.errors import InputError, SecurityError
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import DEFAULT_CAPS, NANO, Account, AccountKind, Cap, Rules, Window
from chimera.treasury.vault.config import parse_config, read_config
from chimera.treasury.vault.home import template

KEY = "58" * 32


def test_the_file_that_init_makes_says_what_holds_anyway() -> None:
    assert parse_config(template({}, "")) == parse_config("")
    caps, rules, accounts = parse_config("").standing()
    assert (tuple(caps), rules, accounts) == (DEFAULT_CAPS, [Rules()], [])


def test_what_it_may_say() -> None:
    config = parse_config(
        f"""
caps:
  - {{window: day, limit: 12.50}}
  - {{window: month, limit: "1000.000000001", account: cash, currency: EUR}}
rules: {{EUR: {{ask_over: 1, dual_over: 2.5}}}}
accounts: [{{id: cash, kind: fund, currency: EUR, title: petty cash}}]
people: {{ann: {{ann-1: {KEY}}}}}
connect: {{app: [1000, 1001], owner: []}}
ledger_url: postgresql://db.example/ledger
policy: {{ask_at: 0.25}}
breaker: {{spend: {{USD: 2.5}}, refused: 7}}
"""
    )
    caps, rules, accounts = config.standing()
    assert caps == [
        Cap(window=Window.DAY, limit=12_500_000_000),
        Cap(window=Window.MONTH, limit=1_000 * NANO + 1, account="cash", currency="EUR"),
    ]
    assert rules == [Rules(currency="EUR", ask_over=NANO, dual_over=2_500_000_000)]
    assert accounts == [Account(id="cash", kind=AccountKind.FUND, currency="EUR", title="petty cash")]
    assert config.keyring({}).people == {"ann": {"ann-1": b"\x58" * 32}}
    assert config.uids(LedgerRole.APP) == {1000, 1001} and config.uids(LedgerRole.OWNER) == frozenset()
    assert config.policy.ask_at == 0.25 and config.breaker.spend == {"USD": 2_500_000_000}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("caps: []\ncups: []", 2, "cups: there is no such setting"),
        (
            "\ncaps:\n  - {window: day, limit: 1}\n  - {window: day, limit: 1, most: 2}",
            4,
            "caps.1.most: there is no such",
        ),
        ("caps:\n  - window: day\n    limit: 0.0000000001", 3, "at most nine digits"),
        ("caps:\n  - {window: year, limit: 1}", 2, "caps.0.window"),
        ("caps:\n  - {window: day, limit: -1}", 2, "caps.0.limit"),
        ("caps:\n  - {window: day, limit: true}", 2, "write an amount"),
        ("caps:\n  - {window: day, limit: .nan}", 2, "caps.0.limit"),
        ("rules:\n  USD:\n    ask_over: 1\n    asks: 2", 4, "no such setting"),
        ("people:\n  ann: {}", 2, "people.ann"),
        ("people:\n  ann: {ann-1: abc}", 2, "people.ann.ann-1"),
        ("\npolicy: {ask_at: 2}", 2, "policy.ask_at"),
        ("breaker: {speed: 2}", 1, "no such setting"),
        ("connect:\n  app: [me]", 2, "connect.app.0"),
        ("caps: []\n\ncaps: []", 3, "stands there twice"),
        ("a: &x []\nb: *x", 2, "aliases"),
        ("<<: {a: 1}", 1, "merge keys"),
        ("caps: [", 1, "not YAML"),
    ],
)
def test_each_mistake_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(text)
    assert f"line {line}: " in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connect: {cfo: [0]}", "nobody connects as the CFO"),
        ("ledger_url: postgresql://me:secret@db/ledger", "no user or password"),
        ("ledger_url: mysql://db/ledger", "ledger_url"),
        ("- caps", "a table of settings"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_what_is_no_treasury_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_config(text)


def test_one_key_for_two_people_is_refused() -> None:
    with pytest.raises(InputError, match="the same key"):
        parse_config(f"people: {{ann: {{a: {KEY}}}, bob: {{b: {KEY}}}}}").keyring({})


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "treasury.yaml"
    with pytest.raises(InputError, match="init makes one"):
        read_config(file)
    file.write_text("caps: []\n")
    file.chmod(0o644)
    assert read_config(file).caps == ()
    file.chmod(0o664)
    with pytest.raises(SecurityError, match="can be written by others"):
        read_config(file)
    file.chmod(0o644)
    file.write_text("cups: []\n")
    with pytest.raises(InputError, match=r"treasury\.yaml: line 1: cups"):
        read_config(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_config(file)
    file.write_text("#" * 1_000_001)
    with pytest.raises(InputError, match="larger"):
        read_config(file)
