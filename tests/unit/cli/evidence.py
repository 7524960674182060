"""Blocks of two validators, and `af` as it is called in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from chimera.arena.types import Block
from chimera.arena.validators.blocks import block_key, encode_block
from chimera.cli.arena import main as arena
from tests.unit.arena.made_blocks import ALICE, BOB, chained, own_pairs

HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed\n \x7f"

A, B = str(ALICE.ss58_address), str(BOB.ss58_address)


def af(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(arena.app, arguments, env={"COLUMNS": "200"}, **options)


def keep(folder: Path, blocks: list[Block]) -> None:
    for block in blocks:
        path = folder / block_key(block.header.validator_hotkey, block.header.block_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_block(block))


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """Two validators: Alice with three blocks, Bob with one."""
    folder = tmp_path / "blocks"
    keep(folder, chained(ALICE, [own_pairs(ALICE, 0, 2), own_pairs(ALICE, 2, 1), own_pairs(ALICE, 3, 1)]))
    keep(folder, chained(BOB, [own_pairs(BOB, 0, 2, env_id="tictactoe-v0")]))
    return folder


def obeyed(text: str) -> list[str]:
    return [c for c in text if c in "\x1b\x07\x9b\x7f\u202e"]
