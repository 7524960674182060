"""What may go out: the channels, what happens to personal data and secrets, which data are the brand's own."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, SecretStr, ValidationError, model_validator

from chimera.core.errors import InputError
from chimera.core.types import Frozen, Name
from chimera.security.safety.builtin import RULES
from chimera.security.safety.findings import MAX_CHARS
from chimera.security.safety.rules import MAX_RULES, Rule

MAX_POLICY_BYTES = 1_000_000
MIN_CANARY_CHARS = 12

ShortText = Annotated[str, Field(min_length=1, max_length=300)]


class Action(StrEnum):
    """What is done with something that was found."""

    REDACT = "redact"
    BLOCK = "block"
    ALLOW = "allow"


class Disclosure(Frozen):
    """The words that a channel requires of what a machine wrote, where, and what happens without them."""

    words: ShortText = "AI-generated content."
    place: Literal["start", "end"] = "start"
    if_missing: Literal["add", "block"] = "add"


class Channel(Frozen):
    """A way out. `fold_chars` is what a reader sees before asking for more; 0 where everything is seen."""

    max_chars: Annotated[int, Field(ge=1, le=MAX_CHARS)] = 100_000
    fold_chars: Annotated[int, Field(ge=0, le=MAX_CHARS)] = 0
    disclosure: Disclosure | None = Disclosure()


class PersonalData(StrEnum):
    """Kinds of personal data, by the names that Presidio gives them."""

    EMAIL = "EMAIL_ADDRESS"
    PHONE = "PHONE_NUMBER"
    CARD = "CREDIT_CARD"
    IBAN = "IBAN_CODE"
    IP = "IP_ADDRESS"
    US_SSN = "US_SSN"
    CRYPTO = "CRYPTO"


class Protected(Frozen):
    """A text whose long quotes must not go out."""

    name: Name
    text: str = Field(repr=False, max_length=MAX_CHARS)


class SafetyPolicy(Frozen):
    """Everything that the gateway decides by.

    `own_contacts` are the brand's own addresses and numbers, which may go out. `names` are people and brands that
    nothing may pose as. `canaries` are texts that must never appear: planted ones, and the service's own secrets.
    `on_review` says whether a finding that asks for a person holds the output or only goes on record with it.
    """

    channels: dict[Name, Channel] = Field(default_factory=lambda: {"post": Channel()}, min_length=1, max_length=256)
    personal_data: dict[PersonalData, Action] = Field(default_factory=dict)
    secrets: Literal[Action.REDACT, Action.BLOCK] = Action.REDACT
    min_entropy_bits: Annotated[float, Field(ge=1.0, le=6.0)] = 2.75
    own_contacts: tuple[ShortText, ...] = Field(default=(), max_length=1_000)
    names: tuple[ShortText, ...] = Field(default=(), max_length=1_000)
    canaries: tuple[SecretStr, ...] = Field(default=(), max_length=1_000)
    phone_regions: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = Field(
        default=("US", "GB", "DE", "FR"), max_length=16
    )
    rules: tuple[Rule, ...] = Field(default=RULES, max_length=MAX_RULES)
    on_review: Literal["hold", "pass"] = "hold"
    licences: tuple[Name, ...] = Field(
        default=("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "Unlicense", "CC0-1.0"),
        max_length=256,
    )
    protected: tuple[Protected, ...] = Field(default=(), max_length=1_000)
    max_quote_words: Annotated[int, Field(ge=10, le=1_000)] = 25
    max_seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 20.0

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if any(len(canary.get_secret_value()) < MIN_CANARY_CHARS for canary in self.canaries):
            raise ValueError(f"a canary has at least {MIN_CANARY_CHARS} characters, or it is found by chance")
        ids = [rule.id for rule in self.rules]
        if len(ids) != len(set(ids)):
            raise ValueError("every rule has an id of its own")
        return self

    def for_personal(self, kind: PersonalData) -> Action:
        return self.personal_data.get(kind, Action.REDACT)


def load_policy(path: Path) -> SafetyPolicy:
    """The policy in a YAML or JSON file; `rules` in it are added to the built-in ones. Raises InputError."""
    try:
        if path.stat().st_size > MAX_POLICY_BYTES:
            raise InputError(f"{path}: a policy has at most {MAX_POLICY_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        if not isinstance(data, dict):
            raise InputError(f"{path}: a policy is a mapping, such as channels: {{post: {{max_chars: 280}}}}")
        more = data.pop("rules", [])
        policy = SafetyPolicy.model_validate(data)
        rules = (*policy.rules, *(Rule.model_validate(rule) for rule in more))
        return SafetyPolicy.model_validate({**data, "rules": rules})
    except (OSError, UnicodeError, RecursionError, TypeError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from None
