"""What a key's process is told by its file: the one that is in the docs, and what is wrong with others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from chimera.core.errors import InputError, SecurityError
from chimera.treasury.evm.settings import HolderHome
from chimera.treasury.evm.types import Network

DOCS = Path(__file__).parents[4] / "docs/treasury-chain.md"
SHOWN, *_ = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
SAFE = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


def home(folder: Path, text: str, mode: int = 0o600) -> HolderHome:
    folder.chmod(0o700)
    path = folder / "evm.yaml"
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return HolderHome(folder)


def test_the_settings_in_the_docs_are_settings(tmp_path: Path) -> None:
    found = home(tmp_path, SHOWN).settings()
    assert found.network.tokens["USDC"].decimals == 6 and found.network.confirmations == 64
    shown = set(re.findall(r"^  (\w+):", SHOWN.partition("node:")[0], re.MULTILINE))
    assert shown == set(Network.model_fields)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: [", "not YAML"),
        ("[]", "evm.yaml"),
        (SHOWN.replace("confirmations: 64", "confirmations: 1000"), "network.confirmations"),
        (SHOWN.replace("coin: ETH", "coin: POL"), "the coin of chain 1 is ETH"),
        (SHOWN.replace(SAFE, SAFE[:-1] + "e"), "network.safe"),
        (SHOWN + "surprise: 1\n", "surprise"),
        (SHOWN.replace("1111", "11", 1), "cfo"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        home(tmp_path, text).settings()


def test_settings_that_others_can_read_are_not_used(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="others"):
        home(tmp_path, SHOWN, 0o644).settings()


def test_a_token_does_not_have_the_name_of_the_coin() -> None:
    with pytest.raises(ValidationError, match="no token"):
        Network.model_validate(
            {"chain_id": 1, "safe": SAFE, "relayer": SAFE, "tokens": {"ETH": {"address": SAFE, "decimals": 18}}}
        )
