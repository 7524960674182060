"""The arena's commands that need no Ray: environments, audits, lists of blocks; and what all of them refuse."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from bittensor_core import Keypair

from chimera import Settings
from chimera.arena import PACKAGES
from chimera.arena.duel.types import RuleName
from chimera.arena.envs.registry import environments
from chimera.arena.types import Block, Sample
from chimera.arena.validators.blocks import block_hash, block_key, encode_block
from chimera.arena.validators.record import Head, Record, key_of, write_record
from chimera.arena.validators.throne import Throne
from chimera.cli.arena import command
from chimera.cli.arena import main as arena
from chimera.cli.arena.env import _verify_anew
from chimera.cli.arena.extra import needs_arena
from chimera.cli.main import app as chimera_app
from chimera.core.errors import EvidenceError
from chimera.storage.state import open_state
from tests.conftest import ROOT
from tests.unit.arena.made_blocks import ALICE, BOB, chained, own_pairs
from tests.unit.cli.evidence import HOSTILE, A, B, af, evidence, keep, obeyed

__all__ = ["evidence"]

# The commands themselves


def commands(app: typer.Typer, *path: str) -> dict[tuple[str, ...], list[str]]:
    """Every command below `path`, with its options."""
    group: Any = typer.main.get_command(app)
    for name in path:
        group = group.commands[name]
    found: dict[tuple[str, ...], list[str]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), group)]
    while waiting:
        name, command = waiting.pop()
        below = getattr(command, "commands", {})
        waiting += [((*name, word), each) for word, each in below.items()]
        if not below:
            found[name] = sorted(option for parameter in command.params for option in parameter.opts)
    return found


def test_af_and_chimera_arena_have_the_same_commands() -> None:
    found = commands(arena.app)
    assert set(found) == {
        ("duel",), ("env", "list"), ("env", "run"), ("verify",), ("blocks",), ("weights",), ("validate",),
    }  # fmt: skip
    assert commands(chimera_app, "arena") == found


@pytest.mark.parametrize("name", [(), *commands(arena.app)])
def test_help_shows_an_example_that_begins_like_the_command(name: tuple[str, ...]) -> None:
    told = af(*name, "--help")
    assert told.exit_code == 0 and " ".join(("Example: af", *name)) in " ".join(told.stdout.split())


def test_the_rules_of_the_command_are_those_of_the_library() -> None:
    assert get_args(arena.Rule) == get_args(RuleName)
    assert set(arena.ENVIRONMENTS) <= set(environments())


def test_without_the_extra_every_command_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    for package in sorted(PACKAGES):
        with pytest.raises(typer.Exit) as ended, needs_arena(as_json=True):
            raise ModuleNotFoundError(name=f"{package}.part")
        assert ended.value.exit_code == 2
        told = json.loads(capsys.readouterr().out)["error"]
        assert told == {"kind": "MissingExtra", "message": f"{package} is not installed: pip install 'chimera[arena]'"}
    with pytest.raises(ModuleNotFoundError), needs_arena(as_json=False):
        raise ModuleNotFoundError(name="a_bug_of_ours")


def test_help_and_refusal_need_no_extra() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys({}, None)); from chimera.cli.arena.main import main; main({})"
    )
    for arguments, code in ((["duel", "--help"], 0), (["env", "list"], 2)):
        command = [sys.executable, "-c", program.format(sorted(PACKAGES), arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert code == 0 or ("pip install 'chimera[arena]'" in done.stderr and done.stdout == "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("env run coin-v9", "no environment is called 'coin-v9'; there are ledger-v0, mult8-v0"),
        ("env run mult8-v0 --policy minimax", "minimax cannot play mult8-v0"),
        ("env run mult8-v0 --policy oracle:p=2", "give the share"),
        ("env run mult8-v0 --challenge a --seed 3", "leave out --seed"),
        ("env run mult8-v0 --challenge a --episodes 3", "leave out --seed and --episodes"),
        ("env run mult8-v0 --challenge \x1b", "is not the id of a challenge"),
        ("env run mult8-v0 --policy human", "the input ended before the play did"),
        ("verify", "name a block, a folder of blocks or their URL"),
        ("verify ", "an empty text names no place"),
        ("verify no/such/folder", "no/such/folder is not there"),
        ("verify {empty}", "there are no blocks in"),
        ("verify /dev/null/x", "is not there"),
        ("verify http://127.0.0.1:1/blocks", "name the validators with --hotkey"),
        ("verify ftp://host/x", "is not an object store"),
        ("verify {empty} --hotkey me", "'me' is not a hotkey"),
        (f"verify {{empty}} --hotkey {A}", "there are no blocks of"),
        (f"verify {{empty}} --proof {A}/x 0", "use HOTKEY/INDEX"),
        (f"verify {{empty}} --proof {A}/0 0", "there is no block 0"),
        ("verify --check-proof no/such.json", "no/such.json cannot be read: No such file"),
        ("verify {empty} --check-proof x", "leave out the places"),
        ("blocks", "arena/blocks is not there"),
        ("blocks {empty}", "there are no blocks in"),
        ("weights me", "is not a hotkey's SS58 address"),
        ("validate", "try --demo"),
        ("validate --demo --once", "leave out the plan"),
        ("validate no/such.yaml", "no/such.yaml cannot be read: No such file"),
        ("validate README.md", "ends in .yaml, .yml or .json"),
        ("duel random random", "error: a miner cannot duel with itself: random"),
        ("duel random oracle:p=1 --env Coin", "error: env_ids.0: string should match"),
        ("duel random minimax", "minimax cannot play mult8-v0"),
        ("duel random oracle:p=1 --env coin-v9", "no environment is called"),
        ("duel random oracle:p=1 --env mult8-v0 --env mult8-v0", "each environment is named once"),
        ("duel random oracle:p=1 --epsilon 0.1 --ratio 0.6", "not both"),
        ("duel random oracle:p=1 --ratio 1", "lies between 0 and 1"),
        ("duel random oracle:p=1 --ratio nan", "finite number"),
        ("duel random oracle:p=1 --budget 0", "budget"),
        ("duel random oracle:p=1 --alpha 0.9", "alpha"),
        ("duel random oracle:p=1 --rule calibrated --budget 50000", "use mixture"),
        ("duel random oracle:p=1 --seed a/b", "seed"),
        ("duel random oracle:p=1 --lead -1", "lead"),
        ("duel random oracle:p=1 --concurrency 0", "concurrency"),
        ("duel random oracle:p=1 --plot duel.svg", "does not end in .png"),
        ("duel random oracle:p=1 --plot no/such/duel.png", "there is no folder no/such"),
        ("duel random oracle:p=1 --plot {empty}/there.png", "is there already, and is not overwritten"),
        ("duel random oracle:p=1 --plot {empty}/folder.png", "is there already, and is not overwritten"),
        (
            "duel random oracle:p=1 --env mult8-v0 --plot s.png --samples s.png",
            "is to hold the samples",
        ),
        ("duel random oracle:p=1 --samples {empty}", "is there already"),
        ("duel random oracle:p=1 --samples no/such/s.jsonl", "cannot be written"),
        ("duel random oracle:p=1 --rule loudest", "loudest"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_clear_line(arguments: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    if "--plot" in arguments:
        for env_id in arena.ENVIRONMENTS:
            (tmp_path / "empty" / f"there-{env_id}.png").write_bytes(b"mine")
            (tmp_path / "empty" / f"folder-{env_id}.png").mkdir()
    done = af(*arguments.format(empty=tmp_path / "empty").split(" "), input="")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == "" and "Traceback" not in done.stderr and not obeyed(done.stderr)
    assert "; env_ids" not in done.stderr and "(got {" not in done.stderr, "one finding for one mistake"


def test_bad_input_is_json_too_where_json_is_asked_for(tmp_path: Path) -> None:
    done = af("verify", str(tmp_path / "nowhere"), "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["kind"] == "InputError"


# Environments


def test_every_environment_is_listed_with_what_it_is_about() -> None:
    told = af("env", "list").stdout
    for env_id in environments():
        assert env_id in told
    rows = [json.loads(line) for line in af("env", "list", "--json").stdout.splitlines()]
    assert [row["env_id"] for row in rows] == environments()
    assert {row["env_id"]: row["turns"] for row in rows}["tictactoe-v0"] == "many"
    assert all(row["about"] and not row["fault"] for row in rows)


def test_a_claim_in_vain_takes_nothing_from_an_environment_that_ships(tmp_path: Path) -> None:
    """And a package that ends the process when it is imported ends neither the list nor what is after it."""
    (tmp_path / "thief-1.0.dist-info").mkdir()
    (tmp_path / "thief-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: thief\nVersion: 1.0\n")
    points = "[chimera.environments]\nmult8-v0 = ending:Env\nalpha-v0 = ending:Env\n"
    (tmp_path / "thief-1.0.dist-info" / "entry_points.txt").write_text(points)
    (tmp_path / "ending.py").write_text("raise SystemExit(0)\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    program = "import sys; from chimera.cli.arena.main import main; main(sys.argv[1:])"

    def listed(*arguments: str) -> str:
        command = [sys.executable, "-c", program, "env", "list", *arguments]
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment).stdout

    rows = [json.loads(line) for line in listed("--json").splitlines()]
    assert [row["env_id"] for row in rows] == ["alpha-v0", *environments(), "mult8-v0"]
    assert "SystemExit" in rows[0]["fault"] and not any(row["fault"] for row in rows[1:])
    assert all(row["about"] and not row["refused"] for row in rows[1:-1])
    assert "the one of package thief is not used" in rows[-1]["refused"] and not rows[-1]["about"]
    told = listed()
    assert "cannot be used: ending:Env" in told and "not used: mult8-v0 ships with chimera" in told


async def end() -> int:
    raise SystemExit(0)


def test_code_of_a_package_cannot_end_a_command_as_if_all_were_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(end(), as_json=True) == 3
    assert "SystemExit(0)" in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("env_id", environments())
def test_one_who_knows_solves_every_environment(env_id: str) -> None:
    done = af("env", "run", env_id, "--seed", "5", "--episodes", "4", "--json")
    assert done.exit_code == 0, done.output
    plays = [json.loads(line) for line in done.stdout.splitlines()]
    samples = [Sample.model_validate(play["sample"]) for play in plays]
    assert [sample.challenge_id for sample in samples] == ["seed:5", "seed:6", "seed:7", "seed:8"]
    assert all(sample.verdict.ok and play["verified"] for sample, play in zip(samples, plays, strict=True))


def test_a_play_is_shown_turn_by_turn_and_verified_anew() -> None:
    done = af("env", "run", "ledger-v0", "--challenge", "duel/0/1", "--policy", "random")
    assert done.exit_code == 1
    assert done.stdout.startswith("ledger-v0  duel/0/1  random\nenvironment:\n")
    assert "not solved: " in done.stdout and "score 0" in done.stdout and "verified anew" in done.stdout


def test_a_person_plays_from_standard_input() -> None:
    done = af("env", "run", "mult8-v0", "--policy", "human", input="12\r\n")
    assert done.exit_code == 1 and "Compute 49606271 * 90605172" in done.stderr
    assert "player:\n  12\n" in done.stdout and "not solved" in done.stdout
    right = af("env", "run", "mult8-v0", "--policy", "human", "--json", input=f"{49606271 * 90605172}\n")
    assert right.exit_code == 0 and json.loads(right.stdout)["sample"]["miner_id"] == "human"


def test_a_terminal_obeys_nothing_that_a_player_says() -> None:
    done = af("env", "run", "mult8-v0", "--policy", "human", input=HOSTILE)
    assert "\\x1b]0;owned\\x07b\\x9b2Jc\\x202ed" in done.stdout and not obeyed(done.output)


def test_a_verdict_that_does_not_come_out_again_is_a_fault() -> None:
    [champion, contender] = own_pairs(ALICE, 0, 1)
    _verify_anew(champion)
    with pytest.raises(EvidenceError, match="mult8-v0 is broken"):
        _verify_anew(champion.model_copy(update={"verdict": contender.verdict}))


# Lists


def test_blocks_are_listed_with_who_was_against_whom(evidence: Path) -> None:
    rows = [json.loads(line) for line in af("blocks", str(evidence), "--hotkey", A, "--json").stdout.splitlines()]
    assert [(row["block_index"], row["samples"]) for row in rows] == [(0, 4), (1, 2), (2, 2)]
    assert rows[0]["env_ids"] == ["mult8-v0"]
    assert (rows[0]["champions"], rows[0]["contenders"]) == (["old"], ["new"])
    told = af("blocks", str(evidence)).stdout
    assert told.count("old against new in mult8-v0") == 3 and "in tictactoe-v0" in told
    assert "2027-01-15 08:00:00" in told and rows[0]["hash"][:16] in told


def test_the_samples_of_one_block_are_shown(evidence: Path) -> None:
    assert af("blocks", str(evidence), "--show", "0").exit_code == 2, "of two validators"
    told = af("blocks", str(evidence), "--hotkey", A, "--show", "1")
    assert told.exit_code == 0 and told.stdout.count(f"own/{A}/2") == 2
    assert "contender new  right" in told.stdout and "champion old  wrong: " in told.stdout
    block = Block.model_validate(json.loads(af("blocks", str(evidence / A), "--show", "1", "--json").stdout))
    assert encode_block(block) == (evidence / block_key(A, 1)).read_bytes()
    assert af("blocks", str(evidence / A), "--show", "9").exit_code == 2
    assert af("blocks", str(evidence / block_key(A, 0))).exit_code == 0


def test_this_machines_blocks_are_listed_where_no_place_is_named(home: Path) -> None:
    keep(home / "arena" / "blocks", chained(ALICE, [own_pairs(ALICE, 0, 1)]))
    assert json.loads(af("blocks", "--json").stdout)["hotkey"] == A


# Thrones


async def remember(record: Record, *, netuid: int) -> None:
    store = open_state(Settings().state)
    await write_record(store, key_of(netuid, A), record, expected=0)
    await store.close()


def test_a_validator_that_settled_nothing_has_no_throne_and_no_store_is_made(home: Path) -> None:
    assert af("weights", A).exit_code == 1
    assert json.loads(af("weights", A, "--json").stdout)["champion"] is None
    assert not home.exists()


def test_the_throne_is_told_with_its_ratio_and_weights() -> None:
    miner = str(Keypair.create_from_uri("//Miner").ss58_address)
    throne = Throne(champion=miner, since_s=1_700_000_000, round=4)
    head = Head(index=7, hash=block_hash(chained(BOB, [own_pairs(BOB, 0, 1)])[0].header))
    record = Record(throne=throne, opened_s=1_700_000_000, settled_s=1_700_000_100, weights_set=True, heads={B: head})
    asyncio.run(remember(record, netuid=3))
    told = json.loads(af("weights", A, "--netuid", "3", "--json").stdout)
    assert told["weights"] == {miner: 1.0} and told["ratio_to_beat"] == 0.51
    assert told["heads"] == {B: {"index": 7, "hash": head.hash}}
    shown = af("weights", A, "--netuid", "3")
    assert shown.exit_code == 0
    assert told["settled_s"] == 1_700_000_100 and told["weights_set"]
    assert f"1.0 {miner}, 0.0 everybody else; taken by the chain" in shown.stdout and "after 4 rulings" in shown.stdout
    assert af("weights", A).exit_code == 1, "of another subnet"
