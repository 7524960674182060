"""Content credentials: who made a picture, with what, signed into its file; and what a file says of itself.

Source: C2PA Technical Specification 2.2, over the `c2pa-python` package. Platforms strip credentials when they encode
a picture anew: `registry` and the visible label are there for that. Nothing is fetched here, neither remote manifests
nor revocation lists nor time stamps: a file from outside may name an address, and no address is asked.
"""

from __future__ import annotations

import io
import json
from enum import StrEnum
from typing import Any, Final

from pydantic import Field, JsonValue

from chimera.content.provenance.certificates import Credentials
from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.core.types import Frozen

FORMATS: Final = ("image/png", "image/jpeg")
MAX_BYTES: Final = 20_000_000
ACCOUNT: Final = "org.chimera.account"
"""The assertion that holds the identity."""

_SOURCE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OFFLINE: Final[dict[str, JsonValue]] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True, "verify_after_sign": True},
    "builder": {"thumbnail": {"enabled": False}},
}


class SourceType(StrEnum):
    """How a picture came about, as IPTC's NewsCodes call it."""

    MODEL = "trainedAlgorithmicMedia"
    COMPOSITE = "compositeWithTrainedAlgorithmicMedia"
    ALGORITHM = "algorithmicMedia"


class Identity(Frozen):
    """The account that declares itself to be the picture's maker, and who answers for it."""

    account: str = Field(min_length=1, max_length=200)
    operator: str = Field(min_length=1, max_length=200)
    automated: bool = True


class Provenance(Frozen):
    """What is signed: the picture's title, how it came about, with which model ("" for none), and whose it is."""

    title: str = Field(min_length=1, max_length=200)
    source_type: SourceType
    model: str = Field(default="", max_length=200)
    identity: Identity
    version: str = Field(default="0.1.0", max_length=32)
    """Chimera's."""


class State(StrEnum):
    """What came of checking a file. `valid`: untouched since it was signed, by somebody who is not on the trust list
    that was given. `invalid`: touched, or signed wrongly. `none`: no credentials in it."""

    TRUSTED = "trusted"
    VALID = "valid"
    INVALID = "invalid"
    NONE = "none"


class Verified(Frozen):
    """What a file's credentials say, and whether that holds. Believe the rest only as far as `state`."""

    state: State
    failures: tuple[str, ...] = ()
    """Codes of C2PA, such as `assertion.dataHash.mismatch`, `signingCredential.untrusted`."""
    title: str = ""
    generator: str = ""
    issuer: str = ""
    source_type: str = ""
    identity: Identity | None = None


def sign(data: bytes, media_type: str, provenance: Provenance, credentials: Credentials) -> bytes:
    """The picture with its credentials in it. They are read back before it is returned.

    Raises InputError for another format or a file that is none, SecurityError where the signature does not hold (a
    certificate that has ended, say), MissingExtra without `c2pa-python`.
    """
    c2pa = _c2pa()
    _check(data, media_type)
    signed = io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo("es256", credentials.chain.encode(), credentials.key.encode(), None)
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Context.from_dict(_OFFLINE) as context,
            c2pa.Builder(_manifest(provenance, media_type), context=context) as builder,
        ):
            builder.sign(signer, media_type, io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        raise InputError(f"the picture cannot be signed: {str(error)[:300]}") from error
    found = verify(signed.getvalue(), media_type, anchors=credentials.anchor)
    if found.state is not State.TRUSTED:
        raise SecurityError(f"the picture's signature does not hold: {', '.join(found.failures) or found.state.value}")
    return signed.getvalue()


def verify(data: bytes, media_type: str, *, anchors: str = "") -> Verified:
    """Check a file of anybody's. `anchors` are the certificates (PEM) of those who are trusted.

    What cannot be read as credentials is `invalid` with `unreadable`. Raises InputError for another format or too
    many bytes, MissingExtra without `c2pa-python`.
    """
    c2pa = _c2pa()
    _check(data, media_type)
    settings = {**_OFFLINE, "trust": {"user_anchors": anchors}} if anchors else _OFFLINE
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(media_type, io.BytesIO(data), context=context) as reader,
        ):
            told = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Verified(state=State.NONE)
    except (c2pa.C2paError, ValueError, RecursionError):
        return Verified(state=State.INVALID, failures=("unreadable",))
    return _verified(told)


def _manifest(provenance: Provenance, media_type: str) -> dict[str, JsonValue]:
    agent: dict[str, JsonValue] = {"name": "chimera", "version": provenance.version}
    if provenance.model:
        agent = {"name": provenance.model}
    created: JsonValue = {
        "action": "c2pa.created",
        "digitalSourceType": _SOURCE + provenance.source_type.value,
        "softwareAgent": agent,
    }
    return {
        "claim_generator_info": [{"name": "chimera", "version": provenance.version}],
        "title": provenance.title,
        "format": media_type,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": ACCOUNT, "data": provenance.identity.model_dump(mode="json")},
        ],
    }


def _verified(told: dict[str, Any]) -> Verified:
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    results = told.get("validation_results", {}).get("activeManifest", {})
    failures = tuple(str(one.get("code"))[:100] for one in results.get("failure", ())[:32])
    state = {"Trusted": State.TRUSTED, "Valid": State.VALID}.get(told.get("validation_state", ""), State.INVALID)
    data = {one.get("label"): one.get("data") for one in active.get("assertions", ())}
    actions = (data.get("c2pa.actions.v2") or data.get("c2pa.actions") or {}).get("actions", ())
    source = next((one["digitalSourceType"] for one in actions if "digitalSourceType" in one), "")
    generator: dict[str, Any] = next(iter(active.get("claim_generator_info", ())), {})
    return Verified(
        state=state,
        failures=failures,
        title=_short(active.get("title")),
        generator=_short(f"{generator.get('name', '')} {generator.get('version', '')}".strip()),
        issuer=_short(active.get("signature_info", {}).get("issuer")),
        source_type=_short(source).removeprefix(_SOURCE),
        identity=_identity(data.get(ACCOUNT)),
    )


def _identity(data: object) -> Identity | None:
    try:
        return Identity.model_validate(data)
    except ValueError:
        return None


def _short(value: object) -> str:
    return "".join(c for c in str(value or "") if c.isprintable())[:200]


def _check(data: bytes, media_type: str) -> None:
    if media_type not in FORMATS:
        raise InputError(f"credentials are for {' and '.join(FORMATS)} here, not for {media_type!r}")
    if not 0 < len(data) <= MAX_BYTES:
        raise InputError(f"a picture of {len(data)} bytes: 1 to {MAX_BYTES} are looked at")


def _c2pa() -> Any:
    try:
        import c2pa
    except ImportError:
        raise MissingExtra("c2pa-python", "content") from None
    return c2pa
