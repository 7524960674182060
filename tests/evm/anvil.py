"""A local EVM node (anvil) and the Safe's contracts, from npm: installed once into a folder that git ignores.

A machine without npm skips the tests that need them.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, find

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".venv" / "npm"
ANVIL = PACKAGES / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
SAFE = PACKAGES / "node_modules/@safe-global/safe-smart-account"
ARTIFACTS = SAFE / "build/artifacts/contracts"
INSTALL_S = 300
CHAIN_ID = 31337


def install() -> None:
    """What `package.json` names, unless it is there. Several test processes wait for one another."""
    wanted = (Path(__file__).parent / "package.json").read_text()
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with (PACKAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = PACKAGES / "package.json"
        if ANVIL.exists() and SAFE.exists() and installed.exists() and installed.read_text() == wanted:
            return
        npm = find("npm")
        installed.write_text(wanted)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        done = subprocess.run(
            [npm, "install", *options], cwd=PACKAGES, capture_output=True, text=True, check=False, timeout=INSTALL_S
        )
        if done.returncode != 0 or not ANVIL.exists():
            installed.unlink()
            pytest.skip(f"npm cannot install anvil and the Safe's contracts: {done.stderr[-300:]}")


def artifact(name: str) -> dict[str, Any]:
    """A compiled contract of the Safe's package, such as `Safe.sol/Safe`."""
    found: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return found


class Anvil(Server):
    """A chain of one node, which makes a block when it is told to."""

    def __init__(self, *options: str, chain_id: int = CHAIN_ID) -> None:
        install()
        super().__init__()
        self.chain_id = chain_id
        self._options = options or ("--no-mining",)
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        limits = ["--chain-id", str(self.chain_id), "--host", "127.0.0.1", "--port", str(self.port), "--silent"]
        return [str(ANVIL), *limits, "--accounts", "3", "--order", "fees", *self._options]

    def answers(self) -> bool:
        try:
            return int(self.ask("eth_chainId"), 16) == self.chain_id
        except OSError:
            return False

    def ask(self, method: str, *values: Any) -> Any:
        """A bare JSON-RPC call."""
        call = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": values}
        request = urllib.request.Request(self.url, json.dumps(call).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            told = json.loads(answer.read())
        assert "error" not in told, (method, told["error"])
        return told.get("result")

    def mine(self, blocks: int = 1) -> None:
        self.ask("anvil_mine", hex(blocks))

    @property
    def height(self) -> int:
        return int(self.ask("eth_blockNumber"), 16)

    def give(self, address: str, wei: int) -> None:
        self.ask("anvil_setBalance", address, hex(wei))

    def balance(self, address: str) -> int:
        return int(self.ask("eth_getBalance", address, "latest"), 16)

    def waiting(self) -> list[dict[str, Any]]:
        """The transactions in the pool."""
        pool = self.ask("txpool_content")
        return [tx for kind in ("pending", "queued") for of in pool[kind].values() for tx in of.values()]

    def execute(self, data: str, to: str | None = None, *, sender: str | None = None, value: int = 0) -> dict[str, Any]:
        """A transaction of one of the node's own accounts, mined at once: its receipt."""
        tx = {"from": sender or self.accounts[0], "data": data, "value": hex(value), "gas": hex(8_000_000)}
        sent = self.ask("eth_sendTransaction", tx if to is None else {**tx, "to": to})
        self.mine()
        receipt: dict[str, Any] = self.ask("eth_getTransactionReceipt", sent)
        assert receipt["status"] == "0x1", receipt
        return receipt

    @property
    def accounts(self) -> list[str]:
        found: list[str] = self.ask("eth_accounts")
        return found

    def deploy(self, name: str) -> str:
        return str(self.execute(artifact(name)["bytecode"])["contractAddress"])

    def deploy_code(self, runtime: str) -> str:
        """A contract of this code, at an address of its own."""
        size = len(runtime) // 2
        made = self.execute(f"0x60{size:02x}600c60003960{size:02x}6000f3{runtime}")
        return str(made["contractAddress"])

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)
