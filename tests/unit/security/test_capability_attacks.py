"""What somebody may try who holds a capability, knows biscuit, and has everything but the root key."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import biscuit_auth
import pytest
from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, KeyPair, PrivateKey, PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import Forbidden, InputError
from chimera.security import biscuits
from chimera.security.capabilities import (
    MAX_BLOCKS,
    MAX_TOKEN_CHARS,
    PREFIX,
    REFUSED,
    CapabilityAuthority,
    CapabilityToken,
    attenuate,
    describe,
)
from chimera.security.capability_keys import KeyFolder
from chimera.security.caveats import MaxUsd, OnlyOperations, OnResource
from chimera.security.revocation import MemoryRevocations

NOW_S = 1_800_000_000.0
ED25519 = biscuit_auth.Algorithm.Ed25519
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group of Ed25519
FIRST = 'subject("a");\nright("x", "r");\ncheck if time($t), $t < 2027-01-15T08:10:00Z;'


class Victim:
    """A verifier with a key, and tokens of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOW_S)
        self.keys = KeyFolder(folder, clock=self.clock)
        self.revocations = MemoryRevocations(clock=self.clock)
        self.authority = CapabilityAuthority(self.keys, revocations=self.revocations, clock=self.clock)
        self.key_id, self.private = self.keys.signing_key()
        self.public = biscuits.public_of(self.private)
        self.token = attenuate(self.authority.issue("a", "x", "r/*", ttl_s=600), OnResource("r/1"))
        self.authority.verify(self.token, "x", "r/1")

    def refuses(self, token: CapabilityToken, operation: str = "x", resource: str = "r/1") -> None:
        with pytest.raises(Forbidden, match=f"^{REFUSED}$") as refused:
            self.authority.verify(token, operation, resource)
        assert refused.value.__cause__ is None

    def accepts(self, token: CapabilityToken) -> bool:
        try:
            self.authority.verify(token, "x", "r/1")
        except Forbidden:
            return False
        return True

    def raw(self, token: CapabilityToken) -> Biscuit:
        return Biscuit.from_base64(biscuit_text(token), key(self.public))

    def wrapped(self, text: str, public: bytes | None = None) -> CapabilityToken:
        return CapabilityToken(f"{PREFIX}{base64.urlsafe_b64encode(public or self.public).decode()}.{text}")

    def signed(self, source: str, key_id: int | None = None) -> CapabilityToken:
        """A first block of any text, by the root key itself."""
        return self.wrapped(biscuits.build(source, self.private, key_id or self.key_id))


def key(public: bytes) -> PublicKey:
    make: Any = PublicKey.from_bytes
    return make(public, ED25519)  # type: ignore[no-any-return]


def biscuit_text(token: CapabilityToken) -> str:
    return token.text.rpartition(".")[2]


def spelled(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim(tmp_path_factory.mktemp("attack") / "keys")


WIDER = {
    "a right to everything": 'right("*", "*"); right("admin", "secrets/1"); under("admin", ""); under("x", "");',
    "the request itself": 'operation("x"); resource("r/1"); time(2026-01-01T00:00:00Z); micro_usd(0);',
    "a rule for rights": "right($o, $r) <- operation($o), resource($r);",
    "a rule and a check": 'under($o, "") <- operation($o); check if operation($o);',
    "another subject": 'subject("root");',
    "a use that is left": "counted(1);",
    "a fact behind a good check": 'check if operation("x"); right("admin", "secrets/1");',
}
ODD = {
    "nothing": "",
    "always true": "check if true;",
    "one or true": 'check if operation("y") or true;',
    "reject of a fact that nobody states": 'reject if moon("full");',
    "reject of what is true": 'reject if operation("x");',
    "all of none": 'check all moon($m), $m == "full";',
    "all of what is": 'check all operation($o), $o == "x";',
    "a caveat of next year": 'check if moon("full");',
    "a later spelling of expiry": "check if time($t), $t <= 2027-01-15T08:10:00Z;",
    "an expiry that is none": "check if time($t), $t > 2020-01-15T08:10:00Z;",
    "words of another scope": 'check if operation("x") trusting previous;',
    "two predicates": 'check if operation("x"), resource("r/1");',
    "a regular expression": 'check if operation($o), $o.matches("(x+x+)+y|x");',
    "a long one": 'check if operation($o), $o.matches("(x{1,900}){1,9}|x");',
    "a quote in a name": 'check if tenant("a\\"); check if operation(\\"x");',
    "a newline in a name": 'check if tenant("a\\ncheck if operation(\\"x\\");");',
    "nested": "check if " + "[" * 20 + "1" + "]" * 20 + " == [1];",
    "a rule that feeds itself": "n(0); n($x) <- n($x);",
    "a bomb of pairs": " ".join(f"n({i});" for i in range(40)) + "m($a,$b,$c,$d) <- n($a), n($b), n($c), n($d);",
}


@pytest.mark.parametrize("source", [*WIDER.values(), *ODD.values()], ids=[*WIDER, *ODD])
def test_a_block_of_anything_else_is_refused(victim: Victim, source: str) -> None:
    token = victim.wrapped(victim.raw(victim.token).append(BlockBuilder(source)).to_base64())
    victim.refuses(token)
    victim.refuses(token, "admin", "secrets/1")
    victim.refuses(victim.signed(f"{FIRST}\n{source}" if source else 'subject("a");'))
    with pytest.raises(InputError):
        attenuate(token, MaxUsd(1))
    assert describe(token) == "a capability that cannot be read"


@pytest.mark.parametrize("source", WIDER.values(), ids=WIDER)
def test_even_if_such_a_block_were_let_through_its_facts_would_not_be_seen(victim: Victim, source: str) -> None:
    text = victim.raw(victim.token).append(BlockBuilder(source)).to_base64()
    opened = biscuits.Opened(text, victim.keys.public_key, MAX_BLOCKS)
    facts = "operation({operation}); resource({resource}); time({time});"
    for operation, resource in (("admin", "secrets/1"), ("x", "r/2"), ("x", "secrets/1")):
        values = {"operation": operation, "resource": resource, "time": biscuits_time()}
        with pytest.raises(biscuits.NotOpened):
            opened.authorize(facts, values, 1.0)


def biscuits_time() -> Any:
    from chimera.security.caveats import utc

    return utc(NOW_S)


@pytest.mark.parametrize(
    "source",
    [
        'right("x", "r/1"); check if time($t), $t < 2027-01-15T08:10:00Z;',
        'subject("a"); right("x", "r/1");',
        'subject("a"); right("x", "r/1"); check if micro_usd($a), $a <= 5;',
        'subject("a"); check if time($t), $t < 2027-01-15T08:10:00Z;',
        'subject("a"); subject("b"); right("x", "r/1"); check if time($t), $t < 2027-01-15T08:10:00Z;',
        'subject("a"); right("x", "r/1"); right("x", "r/2"); check if time($t), $t < 2027-01-15T08:10:00Z;',
        'subject("a"); right("x", "r/1"); under("x", ""); check if time($t), $t < 2027-01-15T08:10:00Z;',
        'subject("a"); right("x", "r/1"); check if time($t), $t < 2099-01-15T08:10:00Z;',
        'user("a"); right("x", "r/1"); check if time($t), $t < 2027-01-15T08:10:00Z;',
    ],
)
def test_a_first_block_that_the_root_key_signed_for_something_else_is_refused(victim: Victim, source: str) -> None:
    assert victim.accepts(
        victim.signed('subject("a"); right("x", "r/1"); check if time($t), $t < 2027-01-15T08:10:00Z;')
    )
    victim.refuses(victim.signed(source))


def test_a_block_of_a_third_party_is_refused(victim: Victim) -> None:
    raw, stranger = victim.raw(victim.token), KeyPair()
    block = raw.third_party_request().create_block(stranger.private_key, BlockBuilder('check if operation("x");'))
    victim.refuses(victim.wrapped(raw.append_third_party(stranger.public_key, block).to_base64()))


def test_another_root_key_is_refused_under_any_id_and_any_name(victim: Victim) -> None:
    other = bytes(range(32))
    for key_id in (victim.key_id, 0, 2, 2**32 - 1):
        text = biscuits.build(FIRST.replace('"r"', '"r/1"'), other, key_id)
        victim.refuses(victim.wrapped(text))
        victim.refuses(victim.wrapped(text, biscuits.public_of(other)))
    no_id = BiscuitBuilder(FIRST).build(private(victim.private)).to_base64()
    victim.refuses(victim.wrapped(no_id), "x", "r")
    victim.refuses(victim.wrapped(biscuit_text(victim.token), biscuits.public_of(other)))


def private(secret: bytes) -> PrivateKey:
    make: Any = PrivateKey.from_bytes
    return make(secret, ED25519)  # type: ignore[no-any-return]


def test_a_retired_key_s_tokens_are_refused(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "keys")
    assert victim.keys.rotate() == 2
    assert victim.accepts(victim.token) and victim.accepts(victim.authority.issue("a", "x", "r/1", ttl_s=9))
    victim.keys.retire(1)
    victim.refuses(victim.token)


def test_a_flip_of_any_bit_is_refused(victim: Victim) -> None:
    text = biscuit_text(victim.token)
    data = base64.urlsafe_b64decode(text)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            assert not victim.accepts(victim.wrapped(spelled(bytes(flipped)))), (at, bit)
    whole = victim.token.text
    for at in range(len(whole)):
        other = chr(ord(whole[at]) ^ 1)
        assert not victim.accepts(CapabilityToken(whole[:at] + other + whole[at + 1 :])), at


def test_each_truncation_and_each_other_spelling_is_refused(victim: Victim) -> None:
    whole, text = victim.token.text, biscuit_text(victim.token)
    data = base64.urlsafe_b64decode(text)
    for end in range(len(whole)):
        assert not victim.accepts(CapabilityToken(whole[:end])), end
    for end in range(len(data)):
        assert not victim.accepts(victim.wrapped(spelled(data[:end]))), end
    unknown_field = b"\x7a\x01x"
    others = [whole + "=", whole + "\n", " " + whole, whole.rstrip("=") + "%3D", whole.replace(".", "..", 1)]
    others += [victim.wrapped(spelled(data + unknown_field)).text, whole.replace("chcap1", "chcap2"), text, ""]
    others += [whole + "\u0661", whole + "\ud800", victim.wrapped(text + text).text]
    for other in others:
        victim.refuses(CapabilityToken(other))


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message of numbers and byte strings: number, and all of its bytes."""
    at = 0
    while at < len(data):
        start = at
        tag, at = varint(data, at)
        value, at = varint(data, at)
        at += value if tag & 7 == 2 else 0
        yield tag >> 3, data[start:at]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def test_blocks_cannot_be_taken_off_swapped_doubled_or_lent(victim: Victim) -> None:
    wide = victim.authority.issue("a", "x", "*", ttl_s=600)
    narrow = attenuate(attenuate(wide, OnResource("r/2")), MaxUsd(0))
    other = attenuate(attenuate(victim.authority.issue("b", "x", "*", ttl_s=600), MaxUsd(5)), MaxUsd(4))
    parts, lent = (list(fields(base64.urlsafe_b64decode(biscuit_text(token)))) for token in (narrow, other))
    assert [number for number, _ in parts] == [1, 2, 3, 3, 4]
    key_id, first, one, two, proof = (part for _, part in parts)
    _, first2, one2, two2, proof2 = (part for _, part in lent)
    assert victim.accepts(wide) and victim.accepts(other)
    for attack in (
        [key_id, first, proof],
        [key_id, first, one, proof],
        [key_id, first, two, one, proof],
        [key_id, first, two, proof],
        [key_id, first, one, one, two, proof],
        [key_id, first, one2, two2, proof2],
        [key_id, first, one, two2, proof2],
        [key_id, first2, one, two, proof],
        [key_id, first, proof2],
        [key_id, first2, proof],
        [key_id, one, two, proof],
        [first, one2, two2, proof2],
        [key_id, first, one, two],
        [key_id, first, first2, one2, two2, proof2],
    ):
        victim.refuses(victim.wrapped(spelled(b"".join(attack))))


def test_a_signature_has_no_second_form_that_escapes_its_revocation(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "keys")
    data = base64.urlsafe_b64decode(biscuit_text(victim.token))
    for signature in map(bytes.fromhex, victim.raw(victim.token).revocation_ids):
        assert data.count(signature) == 1
        scalar = int.from_bytes(signature[32:], "little") + ORDER
        victim.refuses(victim.wrapped(spelled(data.replace(signature, signature[:32] + scalar.to_bytes(32, "little")))))


def test_a_revoked_token_is_not_played_again_in_any_form(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "keys")
    child = attenuate(victim.token, MaxUsd(1))
    victim.authority.revoke(victim.token)
    for token in (victim.token, child, attenuate(victim.token, MaxUsd(2))):
        victim.refuses(token)
    with pytest.raises(InputError):
        victim.authority.revoke(victim.wrapped(biscuits.build(FIRST, bytes(range(32)), 1)))


def test_the_oversized_and_the_deep_are_refused_before_they_cost_much(victim: Victim) -> None:
    raw = victim.raw(victim.token)
    while raw.block_count() <= MAX_BLOCKS:
        assert raw.block_count() == MAX_BLOCKS or victim.accepts(victim.wrapped(raw.to_base64()))
        raw = raw.append(BlockBuilder('check if operation("x");'))
    victim.refuses(victim.wrapped(raw.to_base64()))
    many = "\n".join(f'check if resource("r/1");check if resource($r), $r.starts_with("{"r/"}");' for _ in range(17))
    victim.refuses(victim.wrapped(victim.raw(victim.token).append(BlockBuilder(many)).to_base64()))
    for lines, good in ((2, True), (4, False)):
        names = [[f"x{line}y{n}:{'b' * 30}:{'c' * 30}:{'d' * 30}" for n in range(15)] for line in range(lines)]
        source = "\n".join(OnlyOperations(("x", *others)).lines() for others in names)
        token = victim.wrapped(victim.raw(victim.token).append(BlockBuilder(source)).to_base64())
        assert victim.accepts(token) is good is (len(token.text) <= MAX_TOKEN_CHARS)
    victim.refuses(CapabilityToken(victim.token.text + "A" * 8_192))
    victim.refuses(CapabilityToken("A" * 10_000_000))


def opened(victim: Victim, source: str) -> biscuits.Opened:
    return biscuits.Opened(biscuit_text(victim.signed(source)), victim.keys.public_key, MAX_BLOCKS)


def test_a_limit_of_datalog_that_is_reached_is_a_refusal(victim: Victim) -> None:
    facts = 'operation("x"); resource("r"); time(2027-01-01T00:00:00Z);'
    opened(victim, FIRST).authorize(facts, {}, 1.0)
    with pytest.raises(biscuits.NotOpened):
        opened(victim, FIRST).authorize(facts, {}, 1e-6)
    small_bomb = " ".join(f"n({i});" for i in range(5)) + "m($a,$b,$c,$d) <- n($a), n($b), n($c), n($d);"
    with pytest.raises(biscuits.NotOpened):
        opened(victim, f"{FIRST}\n{small_bomb}").authorize(facts, {}, 60.0)


@pytest.mark.parametrize("failure", [ValueError, type("PanicException", (BaseException,), {})])
def test_whatever_goes_wrong_within_is_a_refusal(failure: Callable[..., BaseException]) -> None:
    with pytest.raises(biscuits.NotOpened), biscuits.closed("no"):
        raise failure("secret")
    with pytest.raises(KeyboardInterrupt), biscuits.closed("no"):
        raise KeyboardInterrupt


@settings(max_examples=500)
@given(st.binary(max_size=200), st.integers(0, 1_000), st.integers(0, 40))
def test_no_bytes_are_more_than_refused(victim: Victim, noise: bytes, at: int, cut: int) -> None:
    data = base64.urlsafe_b64decode(biscuit_text(victim.token))
    at %= len(data)
    for attack in (noise, data[:at] + noise + data[at + cut :]):
        token = victim.wrapped(spelled(attack))
        assert token == victim.token or not victim.accepts(token)
        assert token == victim.token or describe(token)
