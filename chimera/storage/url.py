"""URLs of stores: which option of ours they carry, and what may be shown of them."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from chimera.core.errors import InputError


def hide_password(url: str) -> str:
    """`url` without user, password and query. Of one that cannot be taken apart safely, its scheme alone."""
    scheme, mark, _ = url.partition("://")
    parts = _split(url)
    if parts is None:
        return f"{scheme}://***" if mark else "***"
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if mark else url


def check_server(url: str, what: str) -> None:
    """Raises InputError for a URL of which one part might be taken for another: a password for a port, say."""
    if _split(url) is None:
        raise unreadable(url, what)


def unreadable(url: str, what: str) -> InputError:
    """Said instead of what a driver says, which may hold the password."""
    return InputError(
        f"{hide_password(url)} is not the URL of a {what}: use SCHEME://[USER:PASSWORD@]HOST[:PORT][/DATABASE],"
        " with %-escapes for odd characters in the password"
    )


def take_durable(url: str) -> tuple[str, bool]:
    """`url` without our own option `durable`, and what it says (the default is yes). Raises InputError."""
    base, mark, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    wanted = {value for name, value in options if name == "durable"} or {"yes"}
    if wanted not in ({"yes"}, {"no"}):
        raise InputError(f"{hide_password(url)}: durable must be yes or no")
    rest = urlencode([option for option in options if option[0] != "durable"], quote_via=quote)
    return base + (mark + rest if rest else ""), wanted == {"yes"}


def _split(url: str) -> SplitResult | None:
    """The parts of `url`; None if an odd character in a password may have torn it apart in the wrong place."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if "@" in parts.path + parts.query + parts.fragment else parts
