"""`chimera treasury` as a user runs it: a house of its own, a vault beside it, and everything that its docs say."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chimera import Settings
from chimera.actors.cfo import CFO
from chimera.actors.ledger import LEDGER
from chimera.cli.main import app
from chimera.core.errors import LedgerUnavailable
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.payment import PaymentState
from chimera.treasury.risk import WEIGHTS
from chimera.treasury.types import NANO, PaymentRequest
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.config import parse_config
from chimera.treasury.vault.home import VaultHome
from chimera.treasury.vault.process import VaultProcess, start_vault
from tests.acceptance.test_docs import BLOCK
from tests.acceptance.test_run import actors
from tests.conftest import ROOT
from tests.servers import PostgresServer

PAGE = (ROOT / "docs" / "treasury.md").read_text(encoding="utf-8")
WAIT_S = 60.0
WAITS = 4

Done = subprocess.CompletedProcess[str]


def chimera(*arguments: str, home: Path, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "chimera", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=home,
        env=environ(home, **environment),
        check=False,
    )


def environ(home: Path, **environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CHIMERA_HOME": str(home), "HOME": str(home), **environment}


def treasury(home: Path, *arguments: str, code: int = 0, **environment: str) -> Done:
    done = chimera("treasury", *arguments, home=home, **environment)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A treasury with a thousand in cash, and somebody to pay, in a place whose sockets have short paths."""
    home = Path(tempfile.mkdtemp(prefix="cht"))
    monkeypatch.setenv("CHIMERA_HOME", str(home))
    assert inside("init").exit_code == 0
    config = home / "treasury" / "treasury.yaml"
    accounts = "[{id: cash, kind: fund}, {id: bank, kind: outside}, {id: acme, kind: outside}]"
    config.write_text(config.read_text().replace("accounts: []", f"accounts: {accounts}"))
    yield home
    shutil.rmtree(home)


@pytest.fixture
def vault(house: Path) -> Iterator[VaultProcess]:
    """One for all commands of a test: then each takes half the time."""
    started = start_vault(house, end_with_me=True)
    assert inside("pay", "bank", "cash", "1000", "--category", "income", "--as", "ops").exit_code == 0
    yield started
    started.stop()


def inside(*arguments: str) -> Any:
    """The same command in this process: a tenth of the time."""
    return CliRunner().invoke(app, ["treasury", *arguments])


def words_of(lines: str) -> list[tuple[list[str], int]]:
    """Commands of a block, each with the exit code that the page says."""
    found = []
    for line in lines.splitlines():
        command, _, said = line.partition("  #")
        code = re.search(r"exit code (\d)", said)
        found.append((shlex.split(command)[2:], int(code[1]) if code else 0))
    return found


@pytest.mark.timeout(150)
def test_every_command_of_the_docs_does_what_the_docs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(tempfile.mkdtemp(prefix="cht"))
    monkeypatch.setenv("CHIMERA_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    blocks = [body for language, body in BLOCK.findall(PAGE) if not language and body.startswith("chimera treasury")]
    told = [each for body in blocks for each in words_of(body) if "--postgres" not in each[0]]
    assert {words[0] for words, _ in told} >= {"init", "account", "pay", "approve", "refuse", "statement", "anchor"}
    config = home / "treasury" / "treasury.yaml"
    vault = None
    try:
        for words, code in told:
            done = inside(*words)
            assert done.exit_code == code, (words, done.output)
            if words[0] == "init":
                vault = start_vault(home, end_with_me=True)
            if words[0] == "key":
                key_id, _, key = done.stdout.strip().partition(": ")
                people = f"people: {{ann: {{{key_id}: {key}}}}}"
                config.write_text(
                    config.read_text().replace("people: {}", people).replace("ovals: true", "ovals: false")
                )
                assert vault is not None
                vault.stop()
                vault = start_vault(home, end_with_me=True)
        assert (home / "spent.png").read_bytes().startswith(b"\x89PNG")
        assert (home / "spent.csv").read_text().count("\n") == 3
    finally:
        if vault is not None:
            vault.stop()
        shutil.rmtree(home)


def test_the_docs_name_every_command_and_every_factor() -> None:
    listed = re.findall(r"^│ ([a-z]+) ", CliRunner().invoke(app, ["treasury", "--help"]).stdout, re.MULTILINE)
    assert len(listed) >= 14
    assert [name for name in listed if f"chimera treasury {name}" not in PAGE] == []
    told = dict(re.findall(r"^\| `([a-z-]+)` \| ([\d.]+) \|", PAGE, re.MULTILINE))
    assert {name: float(weight) for name, weight in told.items()} == dict(WEIGHTS)


def test_the_settings_of_the_docs_are_settings() -> None:
    shown = [body for language, body in BLOCK.findall(PAGE) if language == "yaml"]
    assert len(shown) >= 3
    for each in shown:
        assert parse_config(each) != parse_config("")


def test_the_python_of_the_docs_pays(house: Path, vault: VaultProcess) -> None:
    [program] = [body for language, body in BLOCK.findall(PAGE) if language == "python"]
    known: dict[str, Any] = {}
    exec(compile(program, "treasury.md", "exec", dont_inherit=True), known)

    async def paid() -> PaymentState:
        paying = asyncio.create_task(known["pay_invoice"](Settings(home=house), 1))
        await asyncio.wait([paying], timeout=1.0)
        if not paying.done():  # who was never paid before waits for a person
            await asyncio.to_thread(treasury, house, "approve", "invoice-1", "--as", "ann")
        state: PaymentState = await paying
        return state

    assert asyncio.run(paid()) is PaymentState.PAID


@pytest.mark.timeout(120)
def test_without_a_vault_a_command_brings_its_own_and_two_take_turns(house: Path) -> None:
    """Three terminals at once, two of them with the same invoice: each is served, and that is one payment."""
    command = [sys.executable, "-m", "chimera", "treasury", "pay", "cash", "acme", "60", "--as", "ops", "--id"]
    started = [
        subprocess.Popen([*command, name], cwd=house, env=environ(house), text=True, stdout=-1, stderr=-1)
        for name in ("one", "one", "two")
    ]
    told = [process.communicate(timeout=WAIT_S) for process in started]
    assert [process.returncode for process in started] == [WAITS] * 3, told
    listed = treasury(house, "payments", "--json").stdout.splitlines()
    assert {json.loads(line)["request"]["id"] for line in listed} == {"one", "two"} and len(listed) == 2
    assert list((house / "treasury" / "run").iterdir()) == []


def test_a_payment_is_seen_approved_and_shown(house: Path, vault: VaultProcess) -> None:
    pay = ("pay", "cash", "acme", "600", "--category", "hosting", "--as", "ops", "--id", "big", "--json")
    waits = inside(*pay)
    assert waits.exit_code == WAITS and json.loads(waits.stdout)["state"] == "waiting"
    own = inside("approve", "big", "--as", "ops")
    assert own.exit_code == 2 and "nobody approves what they asked for" in own.stderr
    first = inside("approve", "big", "--as", "ann")
    assert first.exit_code == WAITS and "two keys are needed" in first.stderr
    again = inside("approve", "big", "--as", "ann")
    assert again.exit_code == 2 and "has answered" in again.stderr
    second = inside("approve", "big", "--as", "bob", "--json")
    assert second.exit_code == 0 and json.loads(second.stdout)["state"] == "paid", second.output
    assert json.loads(inside(*pay).stdout)["moved"] == 600 * NANO
    shown = json.loads(inside("show", "big", "--json").stdout)
    assert (shown["state"], shown["moved"]) == ("paid", 600 * NANO)
    assert {word["approver"] for word in shown["approvals"]} == {"ann", "bob"}
    told = inside("show", "big").stdout
    assert all(factor["name"] in told for factor in shown["decision"]["factors"]) and "ann: approved" in told


def test_a_stop_holds_until_somebody_starts_it_again(house: Path, vault: VaultProcess) -> None:
    assert inside("stop", "an invoice looks wrong", "--as", "eve").exit_code == 0
    stopped = json.loads(inside("status", "--json").stdout)["stopped"]
    assert (stopped["why"], stopped["by"]) == ("an invoice looks wrong", "eve")
    assert "all spending is stopped" in inside("status").stdout
    inside("pay", "cash", "acme", "60", "--as", "ops", "--id", "late")
    refused = inside("approve", "late", "--as", "ann")
    assert refused.exit_code == 1 and "stopped" in refused.stdout, refused.output
    assert inside("resume", "--as", "ann").exit_code == 0
    assert json.loads(inside("status", "--json").stdout)["stopped"] is None


def test_a_cap_that_is_set_holds(house: Path, vault: VaultProcess) -> None:
    assert inside("cap", "last_day", "40", "--account", "cash").exit_code == 0
    inside("pay", "cash", "acme", "60", "--as", "ops", "--id", "over")
    over = inside("approve", "over", "--as", "ann")
    assert over.exit_code == 1 and "more would be spent than may be" in over.stdout, over.output
    caps = json.loads(inside("status", "--json").stdout)["caps"]
    assert [each["used"] for each in caps] == [0] * len(caps) == [0] * 4


@pytest.mark.timeout(120)
def test_a_statement_is_the_same_in_every_form_and_nothing_is_cut(house: Path, vault: VaultProcess) -> None:
    long = "a-mission-with-a-very-long-name-that-no-terminal-of-eighty-columns-has-room-for/part-1"
    for number, amount in enumerate(("12.5", "0.000000001", "60")):
        words = ("pay", "cash", "acme", amount, "--as", "ops", "--id", f"i{number}", "--mission", long)
        if inside(*words, "--reason", "=1+1").exit_code == WAITS:
            assert inside("approve", f"i{number}", "--as", "ann").exit_code == 0
    files = ("--csv", str(house / "a.csv"), "--plot", str(house / "a.png"))
    told = treasury(house, "statement", *files, COLUMNS="60").stdout
    whole = json.loads(inside("statement", "--json").stdout)
    with (house / "a.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == whole["transfer_count"] == 4
    for line, posted in zip(lines, whole["transfers"], strict=True):
        assert (line["request"], line["payee"]) == (posted["request_id"], posted["payee"])
        assert round(float(line["amount"]) * NANO) == posted["amount"]
        assert line["mission"] in told and "\N{HORIZONTAL ELLIPSIS}" not in told
    assert lines[-1]["reason"] == "'=1+1"
    [cash] = [line for line in whole["accounts"] if line["account"] == "cash"]
    assert cash["closing"] == 1000 * NANO - 72_500_000_001 and "927.499999999 USD" in told
    assert (house / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("account", "add", "no name"), "ID"),
        (("account", "add", "cash"), "cash cannot be made"),
        (("account", "add", "x", "--kind", "purse"), "fund, outside, metered"),
        (("account", "add", "x", "--currency", "usd"), "currency"),
        (("pay", "cash", "nobody", "5"), "no such credit account"),
        (("pay", "cash", "acme", "five"), "no amount"),
        (("pay", "cash", "acme", "0.0000000001"), "no amount"),
        (("pay", "cash", "acme", "0"), "amount"),
        (("pay", "cash", "acme", "5", "--currency", "EUR"), "another currency"),
        (("pay", "cash", "cash", "5"), "itself"),
        (("pay", "cash", "acme", "5", "--category", "two words"), "--category"),
        (("pay", "cash", "acme", "5", "--as", "a\x1b[31m"), "--as"),
        (("pay", "cash", "acme", "5", "--id", "../../x y"), "--id"),
        (("show", "nothing"), "no request nothing"),
        (("approve", "nothing"), "no request nothing"),
        (("refuse", "nothing"), "no request nothing"),
        (("stop", " "), "say why"),
        (("cap", "decade", "5"), "last_week"),
        (("cap", "last_day", "lots"), "no amount"),
        (("cap", "last_day", "5", "--account", "acme"), "no fund"),
        (("statement", "--month", "2026-13"), "no month"),
        (("statement", "--csv", "/nowhere/a.csv"), "no folder"),
        (("statement", "--plot", "/nowhere/a.png"), "no folder"),
        (("verify", "--anchors", "/nowhere/heads"), "not there"),
        (("anchor", "heads", "--key", "/nowhere/ann.pem"), "not there"),
        (("key", "{home}/keys/ann.pem", "no name"), "key id"),
        (("key", "{home}/open/ann.pem", "ann-1"), "read by others"),
    ],
)
def test_bad_input_is_told_in_one_line(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    (shop / "open").mkdir(mode=0o755, exist_ok=True)
    before = inside("status", "--json").stdout
    done = inside(*(argument.format(home=shop) for argument in arguments))
    assert done.exit_code == 2, done.output
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line and "\x1b" not in line
    assert inside("status", "--json").stdout == before


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="cht"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIMERA_HOME", str(home))
        assert inside("init").exit_code == 0
        config = home / "treasury" / "treasury.yaml"
        config.write_text(
            config.read_text().replace("accounts: []", "accounts: [{id: cash, kind: fund}, {id: acme, kind: outside}]")
        )
        started = start_vault(home, end_with_me=True)
        yield home
        started.stop()
    shutil.rmtree(home)


@pytest.fixture
def shop(served: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A treasury that no test changes."""
    monkeypatch.setenv("CHIMERA_HOME", str(served))
    return served


def test_a_fault_is_json_where_json_was_asked_for(shop: Path, tmp_path: Path) -> None:
    for arguments in (("show", "none"), ("statement", "--month", "x"), ("verify", "--anchors", "/nowhere")):
        done = inside(*arguments, "--json")
        assert done.exit_code == 2 and json.loads(done.stdout)["error"]["message"]
    none = treasury(tmp_path, "status", "--json", code=2)
    assert "`chimera treasury init` makes one" in json.loads(none.stdout)["error"]["message"]


def test_a_key_that_others_can_read_approves_nothing(house: Path, vault: VaultProcess) -> None:
    key = house / "keys" / "ann.pem"
    assert inside("key", str(key), "ann-1").exit_code == 0
    inside("pay", "cash", "acme", "60", "--as", "ops", "--id", "one")
    key.chmod(0o644)
    read = inside("approve", "one", "--as", "ann", "--key", str(key))
    assert read.exit_code == 2 and "read by others" in read.stderr
    key.chmod(0o600)
    stranger = inside("approve", "one", "--as", "ann", "--key", str(key))
    assert stranger.exit_code == 2 and "not the signature of ann" in stranger.stderr
    assert json.loads(inside("show", "one", "--json").stdout)["approvals"] == []


def test_a_row_that_the_owner_of_the_file_changed_is_named(house: Path, vault: VaultProcess) -> None:
    heads, key = str(house / "heads"), str(house / "keys" / "ann.pem")
    public = inside("key", key, "ann-1").stdout.strip()
    config = house / "treasury" / "treasury.yaml"
    config.write_text(config.read_text().replace("people: {}", f"people: {{ann: {{{public}}}}}"))
    vault.stop()
    assert inside("anchor", heads, "--key", key).exit_code == 0
    assert inside("verify", "--anchors", heads).stdout.startswith("as it should be")
    with sqlite3.connect(VaultHome.at(house).ledger) as ledger:
        [request] = ledger.execute("SELECT seq FROM request_row").fetchone()
        triggers = ledger.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            ledger.execute(f"DROP TRIGGER {name}")
        ledger.execute("UPDATE request_row SET amount = amount * 10")
        for _, statement in triggers:
            ledger.execute(statement)
    ledger.close()
    found = inside("verify", "--anchors", heads, "--json")
    assert found.exit_code == 1
    assert request in {each["seq"] for each in json.loads(found.stdout)["findings"]}
    assert f"row {request} " in inside("verify").stdout
    signs = inside("pay", "cash", "acme", "5", "--as", "ops")
    assert signs.exit_code == 3 and "nothing is signed any more: audit the ledger" in signs.stderr


@pytest.mark.timeout(120)
def test_postgresql_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server, home = PostgresServer(), Path(tempfile.mkdtemp(prefix="cht"))
    server.start()
    vault = None
    try:
        monkeypatch.setenv("CHIMERA_HOME", str(home))
        monkeypatch.setenv("CHIMERA_LEDGER_URL", server.url())
        assert inside("init").exit_code == 0
        config = (home / "treasury" / "treasury.yaml").read_text()
        assert 'ledger_url: "postgresql://' in config and "@" not in config.partition("ledger_url:")[2].splitlines()[0]
        assert inside("init").exit_code == 0
        other = inside("init", "--postgres", f"{server.url()}_other")
        assert other.exit_code == 2 and "a ledger does not move" in other.stderr
        vault = start_vault(home, end_with_me=True)
        for name, kind in (("cash", "fund"), ("bank", "outside")):
            assert inside("account", "add", name, "--kind", kind).exit_code == 0
        paid = inside("pay", "bank", "cash", "100", "--category", "income")
        assert paid.exit_code == 0, paid.output
        assert inside("verify").exit_code == 0
        vault.stop()
        monkeypatch.setenv("CHIMERA_LEDGER_URL", f"{server.url()}_other")
        moved = inside("status")
        assert moved.exit_code == 2 and "a ledger does not move" in moved.stderr
        with pytest.raises(LedgerUnavailable, match="a ledger does not move"):
            start_vault(home, end_with_me=True)
        monkeypatch.delenv("CHIMERA_LEDGER_URL")
        assert inside("verify").exit_code == 0
    finally:
        if vault is not None:
            vault.stop()
        server.stop()
        shutil.rmtree(home)


@pytest.mark.cluster
@pytest.mark.timeout(150)
def test_run_serves_until_ctrl_c_and_leaves_nothing_behind(house: Path, local_ray: Settings) -> None:
    """Meanwhile the CFO actor decides what is only in the ledger, and a command of another process pays."""
    command = [sys.executable, "-m", "chimera", "treasury", "run", "--address", local_ray.address]
    told_home = os.environ["HOME"]  # Ray's token is there
    process = subprocess.Popen(
        command, cwd=house, env=environ(house, HOME=told_home), text=True, stderr=-1, stdout=subprocess.DEVNULL
    )
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    try:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "the treasury runs" in line:
                break
        else:
            raise AssertionError("".join(told))
        place = VaultHome.at(house)
        vault = int((place.vault / "vault.lock").read_text())
        assert CFO in actors() and LEDGER in actors()
        treasury(house, "pay", "bank", "cash", "1000", "--category", "income", "--as", "ops")
        assert asyncio.run(decided(place)).verdict == "ask"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0 and "the treasury has ended" in rest, rest
        assert not Path(f"/proc/{vault}").exists() and list((place.folder / "run").iterdir()) == []
        assert not {CFO, LEDGER} & actors()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


async def decided(place: VaultHome) -> Any:
    """What is said of a request that was written to the ledger, and given to nobody."""
    ledger = VaultLedger(path=place.socket(LedgerRole.APP), role=LedgerRole.APP)
    request = PaymentRequest(
        id="filed", debit="cash", credit="acme", amount=60 * NANO, category="x", requester="a", expires_at=2**52
    )
    await ledger.write([request])
    found: list[Any] = []
    for _ in range(400):
        found = found or await ledger.decisions("filed")
        await asyncio.sleep(0 if found else 0.05)
    await ledger.close()
    return found[0]
