"""A campaign: which account speaks, what it reads, and what it may spend. Read from a strict YAML file.

    accounts: accounts.yaml
    account: acme
    feeds: [news.jsonl, https://example.org/feed.xml]

Paths are relative to the file. One account speaks for one campaign: several behind one message would be coordination.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, ValidationError

from chimera.content.accounts import Account, load_accounts
from chimera.content.create.create import MAX_MEMBERS
from chimera.content.engage.policy import EngagePolicy
from chimera.content.trends.trend import TrendOptions
from chimera.core.errors import InputError
from chimera.core.types import Frozen, Name, Share
from chimera.llm.prices import Price, Prices

MAX_FILE_BYTES: Final = 1_000_000
MAX_FEEDS: Final = 100

Place = Annotated[str, Field(min_length=1, max_length=2_000)]


class Timeline(Frozen):
    """A home timeline to read, with the file of credentials that `chimera.system.feeds` describes."""

    platform: Literal["bluesky", "mastodon"]
    credentials: Path


class CampaignFile(Frozen):
    """What the file says.

    `feeds` are files and addresses; `private_hosts` those among their hosts that may be on one's own network. `as_of`
    is the moment that trends are looked for at: `now`, or for feeds from the past the time of their last item. At most
    `items` are made in one run, for at most `run_usd` altogether and `item_usd` each. `members` write and judge.
    `brand_texts` is a file of the brand's own texts (JSONL with `url`, `title`, `text`): answers are made of nothing
    else. `image_model` is a model of OpenAI's images API, `MODEL@URL`.
    """

    accounts: Path
    account: Annotated[str, Field(min_length=1, max_length=64)]
    feeds: tuple[Place, ...] = Field(default=(), max_length=MAX_FEEDS)
    timelines: tuple[Timeline, ...] = Field(default=(), max_length=10)
    private_hosts: tuple[Place, ...] = Field(default=(), max_length=100)
    as_of: Literal["now", "last item"] = "now"
    trends: TrendOptions = TrendOptions()
    least_novelty: Share = 0.05
    items: Annotated[int, Field(ge=1, le=100)] = 5
    members: Annotated[int, Field(ge=2, le=MAX_MEMBERS)] = 3
    model: str | None = None
    image_model: str | None = None
    prices: dict[str, Price] = Field(default_factory=dict, max_length=1_000)
    item_usd: Annotated[float, Field(gt=0.0, le=0.05)] = 0.05
    run_usd: Annotated[float, Field(gt=0.0, le=1_000.0)] = 1.0
    picture: Literal["card", "chart", "none"] = "card"
    voice: Annotated[str, Field(min_length=1, max_length=500)] = "plain, friendly, exact"
    readers: Annotated[str, Field(min_length=1, max_length=200)] = "everybody"
    brand_texts: Path | None = None
    engage: EngagePolicy = EngagePolicy()
    review: Path | None = None
    queue: Name = "main"


class Campaign(Frozen):
    """A campaign that can be run: its file, with the accounts that are declared beside it. `name` is the file's."""

    name: Name
    folder: Path
    file: CampaignFile
    accounts: dict[str, Account]

    @property
    def account(self) -> Account:
        return self.accounts[self.file.account]

    @property
    def prices(self) -> Prices:
        return Prices(tuple(self.file.prices.items()))

    def path(self, place: str | Path) -> Path:
        return self.folder / Path(place).expanduser()


def load_campaign(path: Path) -> Campaign:
    """The campaign in a YAML file. Raises InputError that names the field, and what `load_accounts` raises."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: a campaign's file has at most {MAX_FILE_BYTES:,} bytes")
        file = CampaignFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        folder = path.resolve().parent
        accounts = load_accounts(folder / file.accounts.expanduser())
        if file.account not in accounts:
            raise InputError(f"{path}: account: {file.account} is none of {', '.join(sorted(accounts))}")
        return Campaign(name=path.stem, folder=folder, file=file, accounts=accounts)
    except (OSError, UnicodeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
