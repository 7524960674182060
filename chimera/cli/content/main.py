"""The commands `chimera content`. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

content = typer.Typer(
    name="content",
    help="A brand's own channels: see what is talked about, make something of it, have it checked, publish it.",
    no_args_is_help=True,
)
accounts = typer.Typer(name="accounts", help="The accounts that content goes out by.", no_args_is_help=True)
content.add_typer(accounts)

CampaignFile = Annotated[
    Path, typer.Option("--campaign", "-c", metavar="FILE", help="The campaign, a YAML file (docs/content.md).")
]
Name = Annotated[str, typer.Option("--campaign", metavar="NAME", help="Only this campaign's: its file's name.")]
Home = Annotated[Path | None, typer.Option("--home", metavar="DIR", help="Where it is kept (default CHIMERA_HOME).")]
Model = Annotated[str | None, typer.Option(help="The model (default: the campaign's, else CHIMERA_MODEL).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Piece = Annotated[str, typer.Argument(help="The piece's id, or its beginning.", metavar="ID")]
By = Annotated[str | None, typer.Option("--as", help="Who you are, for the record (default: the system's user).")]


@content.command("run")
def content_run(
    campaign: CampaignFile,
    home: Home = None,
    model: Model = None,
    on_ray: Annotated[bool, typer.Option("--ray", help="Make the items by agents of a swarm on Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="With --ray: auto, local, HOST:PORT or ray://HOST:PORT.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a campaign once: read its feeds, find trends, make items, have them reviewed, and publish what may go out.

    Run it again as often as you like, also after it was killed: nothing is made or published twice.

    Exit codes: **0** done, **1** something waits for a person or a feed could not be read, **2** bad input,
    **3** a fault.

    Example: `chimera content run --campaign examples/content/campaign.yaml`
    """
    from chimera.cli.content import run

    where = run.Where(campaign=campaign, home=home, model=model, as_json=as_json)
    _run(run.campaign(where, on_ray=on_ray, address=address), as_json)


@content.command("trends")
def content_trends(
    files: Annotated[list[Path], typer.Argument(help="Files of items: .jsonl, .csv, .xml, .rss, .atom.")],
    most: Annotated[int, typer.Option("-k", "--most", min=1, max=100, help="So many trends.")] = 10,
    last: Annotated[bool, typer.Option("--last", help="As of the last item, and not of now.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is talked about more than it was, with its evidence.

    Exit codes: **0** found, **1** there is no trend, **2** bad input, **3** a fault.

    Example: `chimera content trends examples/content/news.jsonl examples/content/town.jsonl --last`
    """
    from chimera.cli.content import look

    _run(look.trends(files, most, last=last, as_json=as_json), as_json)


@content.command("drafts")
def content_drafts(campaign: Name = "", home: Home = None, as_json: AsJson = False) -> None:
    """What was made, and is not out: what waits for a person, is refused, or failed, with the reason.

    Exit codes: **0** listed, **2** bad input, **3** a fault.

    Example: `chimera content drafts`
    """
    from chimera.cli.content import look

    _run(look.drafts(home, campaign, as_json=as_json), as_json)


@content.command("show")
def content_show(piece: Piece, home: Home = None, as_json: AsJson = False) -> None:
    """One piece: its words, its sources, what the judges said, and where it stands.

    Exit codes: **0** shown, **2** bad input, **3** a fault.

    Example: `chimera content show 3fa2c81b`
    """
    from chimera.cli.content import look

    _run(look.show(home, piece, as_json=as_json), as_json)


@content.command("schedule")
def content_schedule(campaign: Name = "", home: Home = None, as_json: AsJson = False) -> None:
    """What is to go out, and when; and what went out.

    Exit codes: **0** listed, **2** bad input, **3** a fault.

    Example: `chimera content schedule`
    """
    from chimera.cli.content import look

    _run(look.schedule(home, campaign, as_json=as_json), as_json)


@content.command("publish")
def content_publish(campaign: CampaignFile, home: Home = None, as_json: AsJson = False) -> None:
    """Take up what people decided, and send what is due. Nothing new is made.

    Exit codes: **0** done, **1** something could not be sent, **2** bad input, **3** a fault.

    Example: `chimera content publish --campaign campaign.yaml`
    """
    from chimera.cli.content import run

    _run(run.publish(run.Where(campaign=campaign, home=home, as_json=as_json)), as_json)


@content.command("take-down")
def content_take_down(
    piece: Piece,
    campaign: CampaignFile,
    why: Annotated[str, typer.Option("--why", help="For the record.")],
    by: By = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete a post at its platform, or withdraw it before it goes out. Its record stays.

    Exit codes: **0** it is gone, **2** bad input, **3** a fault.

    Example: `chimera content take-down 3fa2c81b --campaign campaign.yaml --why "the source was wrong"`
    """
    from chimera.cli.content import run

    where = run.Where(campaign=campaign, home=home, as_json=as_json)
    _run(run.take_down(where, piece, by=by, why=why), as_json)


@content.command("answer")
def content_answer(
    campaign: CampaignFile,
    mentions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mentions, JSONL (default: the account's inbox in the home).")
    ] = None,
    home: Home = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Answer who wrote to the account, from the brand's own texts; hand over to a person who asks for one, or is angry.

    Exit codes: **0** done, **1** some could not be dealt with, **2** bad input, **3** a fault.

    Example: `chimera content answer --campaign campaign.yaml --mentions mentions.jsonl`
    """
    from chimera.cli.content import run

    where = run.Where(campaign=campaign, home=home, model=model, as_json=as_json)
    _run(run.answer(where, mentions), as_json)


@content.command("report")
def content_report(
    campaign: Name = "",
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What platforms say, JSONL: key, seen, reactions.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The figures: engagement, the share that needed no person, interventions, errors, cost; each with its interval.

    Exit codes: **0** told, **2** bad input, **3** a fault.

    Example: `chimera content report`
    """
    from chimera.cli.content import look

    _run(look.report(home, campaign, metrics, as_json=as_json), as_json)


@content.command("verify")
def content_verify(
    file: Annotated[Path, typer.Argument(help="A picture (.png, .jpg), or a text (.txt).", metavar="FILE")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Is this ours? What a picture's credentials say, and what the registry knows of it, credentials or not.

    Exit codes: **0** it was made here, **1** it was not, or was changed, **2** bad input, **3** a fault.

    Example: `chimera content verify picture.jpg`
    """
    from chimera.cli.content import look

    _run(look.verify(home, file, as_json=as_json), as_json)


@accounts.command("check")
def accounts_check(
    file: Annotated[Path, typer.Argument(help="A file of accounts (docs/content.md).", metavar="FILE")],
    as_json: AsJson = False,
) -> None:
    """Whether the accounts in a file can be loaded: one identity each, declared as automated, with an operator.

    Exit codes: **0** they can, **2** they cannot, **3** a fault.

    Example: `chimera content accounts check examples/content/accounts.yaml`
    """
    from chimera.cli.content import look

    _run(look.accounts(file, as_json=as_json), as_json)


def _run(work: Coroutine[Any, Any, int], as_json: bool) -> None:
    from chimera.cli.arena import command

    raise typer.Exit(command.run(work, as_json=as_json))
