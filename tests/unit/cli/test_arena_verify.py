"""`af verify`: what it finds in the blocks of strangers, what it proves, and how it ends."""

from __future__ import annotations

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bittensor_core import Keypair

from chimera.arena.validators.blocks import block_key
from tests.unit.arena.made_blocks import ALICE, chained, own_pairs
from tests.unit.cli.evidence import HOSTILE, A, B, af, evidence, keep, obeyed

__all__ = ["evidence"]


def test_evidence_that_is_sound_is_valid(evidence: Path) -> None:
    done = af("verify", str(evidence))
    assert done.exit_code == 0, done.output
    assert done.stdout.count("  valid: ") == 2 and "3 blocks, 8 samples" in done.stdout
    rows = [json.loads(line) for line in af("verify", str(evidence), "--json").stdout.splitlines()]
    assert [(row["hotkey"], row["valid"], row["blocks"], row["samples"]) for row in rows] == [
        (B, True, 1, 4), (A, True, 3, 8),
    ]  # fmt: skip
    for where in (str(evidence / A), evidence.as_uri()):
        assert af("verify", where, "--hotkey", A).exit_code == 0
    assert af("verify", str(evidence / A), "--hotkey", B).exit_code == 2


def test_a_plain_web_server_is_audited_too(evidence: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(evidence))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = af("verify", url, "--hotkey", A, "--hotkey", B)
        nobody = af("verify", url, "--hotkey", str(Keypair.create_from_uri("//Nobody").ss58_address))
        server.shutdown()
    assert done.exit_code == 0 and "3 blocks, 8 samples" in done.stdout and done.stdout.count("  valid: ") == 2
    assert nobody.exit_code == 2 and "there are no blocks of" in nobody.stderr


def forge(evidence: Path, index: int, old: bytes, new: bytes) -> Path:
    path = evidence / block_key(A, index)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    return path


def faults(evidence: Path) -> list[tuple[str, int]]:
    done = af("verify", str(evidence / A), "--json")
    assert done.exit_code == 1, done.output
    [row] = [json.loads(line) for line in done.stdout.splitlines()]
    assert not row["valid"] and row["fault_count"] == len(row["faults"])
    return [(fault["kind"], fault["block_index"]) for fault in row["faults"]]


def test_a_forged_block_is_a_fault_and_so_is_a_missing_one(evidence: Path) -> None:
    path = forge(evidence, 1, b'"elapsed_ms":3', b'"elapsed_ms":4')
    assert ("merkle", 1) in faults(evidence)
    alone = af("verify", str(path))
    assert alone.exit_code == 1 and "merkle: " in alone.stdout
    path.unlink()
    assert ("gap", 1) in faults(evidence)


def test_a_verdict_that_was_signed_and_is_wrong_is_a_fault(tmp_path: Path) -> None:
    [champion, contender] = own_pairs(ALICE, 0, 1)
    lie = champion.model_copy(update={"verdict": contender.verdict, "miner_id": f"liar{'x' * 9}"})
    keep(tmp_path, chained(ALICE, [[lie, contender]]))
    done = af("verify", str(tmp_path))
    assert done.exit_code == 1 and "verdict in block 0: pair 0: liar" in done.stdout
    alone = af("verify", str(tmp_path / block_key(A, 0)), "--json")
    assert alone.exit_code == 1 and json.loads(alone.stdout)["fault"]["kind"] == "verdict"


def test_what_a_block_says_is_not_obeyed(tmp_path: Path) -> None:
    [champion, contender] = own_pairs(ALICE, 0, 1)
    lie = champion.verdict.model_copy(update={"reason": HOSTILE})
    hostile = champion.model_copy(update={"verdict": lie, "response": HOSTILE, "prompt": HOSTILE})
    keep(tmp_path, chained(ALICE, [[hostile, contender]]))
    (tmp_path / A / "000000000001.json").write_bytes(HOSTILE.encode())
    for arguments in (["verify"], ["verify", "--json"], ["blocks"], ["blocks", "--json"], ["blocks", "--show", "0"]):
        done = af(arguments[0], str(tmp_path), *arguments[1:])
        assert done.exit_code == (0 if "--show" in arguments else 1), done.output
        assert not obeyed(done.output), arguments
    shown = af("blocks", str(tmp_path), "--show", "0").stdout
    assert shown.count("\\x1b]0;owned\\x07b\\x9b2Jc\\x202ed\\n \\x7f") == 3
    assert "prompt  Compute" in shown


def test_a_block_that_is_too_large_is_a_fault_and_does_not_hide_another_chain(evidence: Path) -> None:
    (evidence / block_key(A, 1)).write_bytes(b"x" * (16 * 2**20 + 1))
    assert faults(evidence) == [("limit", 1)]
    done = af("verify", str(evidence))
    assert done.exit_code == 1 and "limit in block 1: " in done.stdout and done.stdout.count("  valid: ") == 1
    listed = af("blocks", str(evidence), "--hotkey", A, "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert listed.exit_code == 1 and [row.get("fault", {}).get("kind") for row in rows] == [None, "limit"]


class Withholding(SimpleHTTPRequestHandler):
    """Says that it has Alice's last block, and does not give it."""

    def do_GET(self) -> None:
        if self.path.endswith(block_key(A, 2)):
            self.send_error(403)
        else:
            super().do_GET()


@pytest.mark.parametrize(("forged", "code"), [(False, 3), (True, 1)])
def test_what_cannot_be_read_takes_back_no_fault_and_hides_no_other_chain(
    forged: bool, code: int, evidence: Path
) -> None:
    if forged:
        forge(evidence, 0, b'"elapsed_ms":3', b'"elapsed_ms":4')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Withholding, directory=str(evidence))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = af("verify", url, "--hotkey", A, "--hotkey", B)
        server.shutdown()
    assert "could not be read further" in done.stdout and done.stdout.count("  valid: ") == 1
    assert done.exit_code == code and ("merkle in block 0" in done.stdout) == forged


def test_many_faults_are_counted_and_not_all_printed(tmp_path: Path) -> None:
    samples = own_pairs(ALICE, 0, 30)
    lies = [sample.model_copy(update={"prompt": "another"}) for sample in samples]
    keep(tmp_path, chained(ALICE, [lies]))
    told = af("verify", str(tmp_path)).stdout
    assert told.count(" in block 0: pair ") == 20 and "and 40 more" in told


def test_a_sample_is_proved_to_who_has_no_other_block(evidence: Path, tmp_path: Path) -> None:
    made = af("verify", str(evidence), "--proof", f"{A}/0", "3")
    assert made.exit_code == 0, made.output
    proof = tmp_path / "proof.json"
    proof.write_text(made.stdout, encoding="utf-8")
    good = af("verify", "--check-proof", str(proof))
    assert good.exit_code == 0 and f"{A} signed block 0" in good.stdout
    document = json.loads(made.stdout)
    forged: list[dict[str, Any]] = [
        document | {"number": 2},
        document | {"size": 3},
        document | {"path": document["path"][:-1]},
        document | {"sample": document["sample"] | {"response": "7"}},
        document | {"header": document["header"] | {"timestamp": 1}},
        document | {"header": document["header"] | {"validator_hotkey": B}},
        document | {"sample": document["sample"] | {"info": {"x": 1.5}}},
        document | {"more": 1},
    ]
    kinds = []
    for each in forged:
        proof.write_text(json.dumps(each), encoding="utf-8")
        done = af("verify", "--check-proof", str(proof), "--json")
        assert done.exit_code == 1, each
        kinds.append(json.loads(done.stdout)["fault"]["kind"])
    assert kinds == ["merkle", "merkle", "merkle", "merkle", "signature", "signature", "encoding", "schema"]
    assert af("verify", str(evidence), "--proof", f"{A}/0", "4").exit_code == 2


def test_a_proof_of_a_wrong_verdict_is_refused(tmp_path: Path) -> None:
    [champion, contender] = own_pairs(ALICE, 0, 1)
    lie = champion.model_copy(update={"verdict": contender.verdict})
    keep(tmp_path / "blocks", chained(ALICE, [[lie, contender]]))
    (tmp_path / "p.json").write_text(af("verify", str(tmp_path / "blocks"), "--proof", f"{A}/0", "0").stdout)
    done = af("verify", "--check-proof", str(tmp_path / "p.json"))
    assert done.exit_code == 1 and done.stdout.startswith("verdict: ")
