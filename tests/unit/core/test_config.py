"""Settings come from CHIMERA_* variables, are checked, cannot be changed afterwards, and travel to actors."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from chimera.core.config import Settings


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CHIMERA_")]:
        monkeypatch.delenv(name)


def test_every_field_is_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Path):
            given[name] = str(tmp_path)
        else:
            given[name] = f"{default}x" if isinstance(default, str) else str(default + 1)
        monkeypatch.setenv(f"CHIMERA_{name.upper()}", given[name])
    assert {name: str(value) for name, value in Settings().model_dump().items()} == given


def test_defaults_need_no_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings()
    assert (settings.address, settings.model, settings.cells) == ("auto", "offline", 0)
    assert settings.home == tmp_path / ".local" / "state" / "chimera"
    assert settings.journal == f"sqlite:///{settings.home}/journal.db"


def test_a_journal_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_JOURNAL_URL", "memory://")
    assert Settings().journal == "memory://"


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "another")
    monkeypatch.setenv("CHIMERA_NO_SUCH_SETTING", "1")
    assert Settings().model == "offline"


@pytest.mark.parametrize(
    ("name", "value"),
    [("CELLS", "-1"), ("CELLS", "1025"), ("CELLS", "many"), ("MAX_AGENTS", "0"), ("STALL_S", "0"), ("MAX_NODES", "0")],
)
def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CHIMERA_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_settings_are_frozen_and_travel() -> None:
    settings = Settings(cells=3)
    with pytest.raises(ValidationError, match="frozen"):
        settings.cells = 4  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_password_in_a_url_is_not_shown() -> None:
    settings = Settings(journal_url="redis://me:secret@host/0", state_url="redis://me:secret@host/1")
    assert "secret" not in repr(settings) and "secret" not in str(settings)
