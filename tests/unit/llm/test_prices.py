"""Prices: which pattern wins, sums without rounding in anyone's favour, and files that are wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.llm.prices import MAX_CHARS, MAX_PATTERNS, NANO, Price, Prices, nano

YAML = """
# USD per million tokens
openai:gpt-5: {input: 1.25, output: 10, cached: 0.125}
openai:gpt-*: {input: 2, output: 8}
"openai:*": {input: 5, output: 15, call: 0.01}
local:*: {input: 0, output: 0}
"""


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("openai:gpt-5", 1.25),
        ("openai:gpt-5-mini", 2.0),
        ("openai:o9", 5.0),
        ("local:llama", 0.0),
        ("OPENAI:gpt-5", None),
        ("anthropic:claude", None),
        ("", None),
    ],
)
def test_its_own_name_first_then_the_longest_pattern_and_else_unknown(model: str, told: float | None) -> None:
    price = Prices.parse(YAML).find(model)
    assert (price.input if price else None) == told


def test_a_name_that_looks_like_a_pattern_is_first_a_name() -> None:
    prices = Prices.of({"m[12]*": {"input": 1, "output": 1}, "m[12]": {"input": 2, "output": 2}})
    found = [prices.find(name) for name in ("m[12]", "m1", "m1x", "m3")]
    assert [price and price.input for price in found] == [2.0, 1.0, 1.0, None]


def test_of_patterns_of_one_length_the_first_wins() -> None:
    prices = Prices.of({"ab*": {"input": 1, "output": 1}, "*bc": {"input": 2, "output": 2}})
    price = prices.find("abc")
    assert price is not None and price.input == 1.0


def test_json_says_the_same() -> None:
    assert Prices.parse('\n{"m": {"input": 1, "output": 2.5e0}}') == Prices.parse("m: {input: 1, output: 2.5}")


def test_what_a_call_costs() -> None:
    price = Price(input=3.0, output=15.0, cached=0.3, call=0.01)
    assert price.cost(1_000_000, 0) == 3 * NANO + NANO // 100
    assert price.cost(1000, 500, 400) / NANO == pytest.approx(600 * 3e-6 + 400 * 0.3e-6 + 500 * 15e-6 + 0.01, abs=1e-9)
    assert Price(input=3.0, output=15.0).cost(1000, 0, 1000) == Price(input=3.0, output=15.0).cost(1000, 0)
    assert Price(input=0.0, output=0.0).cost(10**12, 10**12) == 0


per_million = st.integers(0, 10**9).map(lambda micro: micro / 10**6)
counts = st.integers(0, 10**7)


@given(per_million, per_million, per_million, counts, counts, st.floats(0, 1))
def test_a_cost_is_rounded_up_by_less_than_a_billionth_and_never_more_than_the_most(
    read: float, write: float, kept: float, tokens_in: int, tokens_out: int, share: float
) -> None:
    price, cached = Price(input=read, output=write, cached=kept), int(tokens_in * share)
    exact = (
        Fraction(str(read)) * (tokens_in - cached) + Fraction(str(kept)) * cached + Fraction(str(write)) * tokens_out
    )
    cost = price.cost(tokens_in, tokens_out, cached)
    assert 0 <= cost - exact * 1_000 < 1
    assert cost <= price.most(tokens_in, tokens_out)


def test_what_is_not_free_costs_something() -> None:
    assert Price(input=1e-12, output=0.0).cost(1, 0) == 1
    assert nano(0.1) == NANO // 10 and nano(0.0) == 0 and nano(1e300) == NANO * 10**12


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("m: {input: 1}", "m.output: Field required"),
        ("m: {input: 1, output: -1}", "m.output"),
        ("m: {input: 1, output: .nan}", "m.output"),
        ("m: {input: 1, output: .inf}", "m.output"),
        ("m: {input: true, output: 1}", "m.input"),
        ("m: {input: '1', output: 1}", "m.input"),
        ("m: {input: 1, output: 1, ouput: 2}", "m.ouput"),
        ("m: 3", "m: "),
        ("7: {input: 1, output: 1}", "7"),
        ("'': {input: 1, output: 1}", "at least 1 character"),
        ("a: {input: 1, output: 1}\nb: [", "line 2"),
        ("a: {input: 1, output: 1}\na: {input: 2, output: 2}", "line 2: 'a' stands there twice"),
        ("a: &x {input: 1, output: 1}\nb: {<<: *x}", "line 2: merge keys"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ("a: !!timestamp 2000-99-99", "not YAML"),
        ('{"a": {"input": 1,\n "output": }}', "line 2"),
        ('{"a": {"input": 1, "input": 2, "output": 1}}', "'input': stands there twice"),
        ('{"a": {"input": NaN, "output": 1}}', "a.input"),
        ('{"a": ' + "[" * 100_000, "not JSON"),
        ("a: " + "[" * 1_000, "prices"),
        ("", "not nothing"),
        ("- a", "not a list"),
        ("x" * (MAX_CHARS + 1), "characters"),
        ("\n".join(f"m{i}: {{input: 1, output: 1}}" for i in range(MAX_PATTERNS + 1)), "too many"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        Prices.parse(text)
    assert told in str(caught.value) and len(str(caught.value)) < 2_000


def test_many_mistakes_are_told_in_part() -> None:
    with pytest.raises(InputError, match=r"\(and 15 more\)"):
        Prices.parse("\n".join(f"m{i}: {{input: 1}}" for i in range(25)))


@given(per_million, per_million, per_million, counts, counts, counts)
def test_what_is_read_from_a_cache_or_put_there_has_its_own_price_and_is_never_more_than_the_most(
    read: float, kept: float, put: float, tokens_in: int, cached: int, stored: int
) -> None:
    price = Price(input=read, output=0.0, cached=kept, stored=put)
    assert price.cost(tokens_in, 0, cached, stored) <= price.most(tokens_in, 0)
    unknown = Price(input=read, output=0.0)
    assert unknown.cost(tokens_in, 0, cached, stored) == unknown.cost(tokens_in, 0)


def test_a_token_is_charged_once() -> None:
    price = Price(input=1.0, output=0.0, cached=0.1, stored=1.25)
    assert price.cost(1_000_000, 0, 500_000, 250_000) == round(NANO * (0.25 + 0.05 + 0.3125))
    assert price.cost(100, 0, 10**12, 10**12) == price.cost(100, 0, 0, 100), "a server may count more than there are"
