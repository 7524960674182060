"""The commands `chimera review`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

review = typer.Typer(
    name="review",
    help="What waits for a person: look at it, claim it, approve, edit or reject it; and see how right the policy is.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
ItemId = Annotated[str, typer.Argument(metavar="ID", help="The item's id, or at least 4 digits that it begins with.")]
By = Annotated[str, typer.Option("--as", metavar="NAME", help="Who you are (default: your login name).")]
Queue = Annotated[str, typer.Option("--queue", metavar="NAME", help="Which queue, where there is more than one.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="YAML or JSON (default: CHIMERA_HOME/review.yaml).")
]


@review.callback()
def reviews() -> None:
    """What waits for a person. The queue is in the journal, CHIMERA_JOURNAL_URL, and any number of people work on it.

    Whoever can write the journal is believed who they say they are; over the API they have to log in.
    """


@review.command("ask")
def ask(
    summary: Annotated[str, typer.Argument(metavar="SUMMARY", help="What is to be done, in a line.")],
    confidence: Annotated[float, typer.Option(help="How sure whoever made it is, from 0 to 1.", metavar="SHARE")],
    kind: Annotated[str, typer.Option(help="Such as answer, publish or payment.", metavar="KIND")] = "answer",
    payload: Annotated[str, typer.Option(help="JSON, or @FILE of it (default: the summary).", metavar="JSON")] = "",
    key: Annotated[str, typer.Option(help="The same key again is the same item.", metavar="KEY")] = "",
    asker: Annotated[str, typer.Option("--by", metavar="NAME", help="Who asks, and so does not decide.")] = "",
    agents: Annotated[list[str] | None, typer.Option("--agent", metavar="NAME", help="Who made it.")] = None,
    subject: Annotated[str, typer.Option(help="What skill it took.", metavar="NAME")] = "",
    usd: Annotated[float | None, typer.Option(help="The money that it moves.", metavar="AMOUNT")] = None,
    audience: Annotated[str | None, typer.Option(help="known or new: whom it is published to.")] = None,
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Have something reviewed, and say whether it may go on.

    Exit codes: **0** it may, **1** it may not (any more), **2** bad input, **3** a fault, **4** it waits for a person.

    Example: `chimera review ask "Answer ticket 7" --confidence 0.6 --by support-agent --key ticket-7`
    """
    from chimera.cli.review import run

    told = {"summary": summary, "confidence": confidence, "kind": kind, "key": key, "asker": asker, "usd": usd}
    told |= {"agents": tuple(agents or ()), "subject": subject, "audience": audience}
    raise typer.Exit(run.ask(told, payload, run.Where(queue, policy), as_json=as_json))


@review.command("list")
def list_(
    mine: Annotated[bool, typer.Option("--mine", help="Only what you may decide.")] = False,
    by: By = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")] = 50,
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """What waits for a person, the oldest first.

    Example: `chimera review list --mine`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.show_list(by, run.Where(queue, policy), mine=mine, limit=limit, as_json=as_json))


@review.command("show")
def show(item: ItemId, queue: Queue = "main", policy: PolicyFile = None, as_json: AsJson = False) -> None:
    """All of one: what is proposed, why it waits, every version of it, and what people said.

    Example: `chimera review show 3f2a`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.show(item, run.Where(queue, policy), as_json=as_json))


@review.command("claim")
def claim(item: ItemId, by: By = "", queue: Queue = "main", policy: PolicyFile = None, as_json: AsJson = False) -> None:
    """Take one for a while, so that others leave it alone. Again, it keeps it for longer.

    Exit codes: **0** it is yours, **1** it is not (somebody has it, or it has ended), **2** bad input, **3** a fault.

    Example: `chimera review claim 3f2a --as ann`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.act("claim", item, by, run.Where(queue, policy), as_json=as_json))


@review.command("release")
def release(
    item: ItemId, by: By = "", queue: Queue = "main", policy: PolicyFile = None, as_json: AsJson = False
) -> None:
    """Give a claim back.

    Example: `chimera review release 3f2a --as ann`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.act("release", item, by, run.Where(queue, policy), as_json=as_json))


@review.command("approve")
def approve(
    item: ItemId,
    by: By = "",
    version: Annotated[
        int | None, typer.Option(min=0, help="The version that you looked at, where another has edited it.")
    ] = None,
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Agree to it. Nobody approves what they asked for or made.

    Exit codes: **0** done, **1** it cannot be (any more), or not by you, **2** bad input, **3** a fault, **4** one more
    has to approve it.

    Example: `chimera review approve 3f2a --as ann`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.act("approve", item, by, run.Where(queue, policy), as_json=as_json, version=version))


@review.command("reject")
def reject(
    item: ItemId,
    reason: Annotated[str, typer.Argument(metavar="WHY", help="A line for whoever asked.")],
    by: By = "",
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse it, for good.

    Exit codes: **0** done, **1** it cannot be (any more), or not by you, **2** bad input, **3** a fault.

    Example: `chimera review reject 3f2a "The second figure is wrong." --as ann`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.act("reject", item, by, run.Where(queue, policy), as_json=as_json, reason=reason))


@review.command("edit")
def edit(
    item: ItemId,
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload as it should be: JSON, or @FILE of it.")],
    reason: Annotated[str, typer.Option(help="A line for whoever asked.", metavar="WHY")] = "",
    by: By = "",
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Change it, and agree to it as changed. Both versions are kept.

    Exit codes: **0** done, **1** it cannot be (any more), or not by you, **2** bad input, **3** a fault, **4** one more
    has to approve it.

    Example: `chimera review edit 3f2a '"Dear customer, ..."' --as ann`
    """
    from chimera.cli.review import run

    where = run.Where(queue, policy)
    raise typer.Exit(run.edit(item, by, payload, reason, where, as_json=as_json))


@review.command("escalate")
def escalate(
    item: ItemId,
    to: Annotated[str, typer.Option(help="A group of the policy's reviewers.", metavar="GROUP")],
    reason: Annotated[str, typer.Option(help="A line for them.", metavar="WHY")],
    by: By = "",
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Pass it on to another group, which alone decides from then on.

    Exit codes: **0** done, **1** it cannot be (any more), or not by you, **2** bad input, **3** a fault.

    Example: `chimera review escalate 3f2a --to leads --reason "I am not sure." --as ann`
    """
    from chimera.cli.review import run

    where = run.Where(queue, policy)
    raise typer.Exit(run.act("escalate", item, by, where, as_json=as_json, to=to, reason=reason))


@review.command("calibrate")
def calibrate(
    error: Annotated[
        float, typer.Option(min=0, max=1, help="Errors wanted, at most, in what goes on untold.", metavar="SHARE")
    ] = 0.05,
    person_error: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="In all that goes on (default: twice --error).", metavar="SHARE"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it there.", metavar="FILE.png")] = None,
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """How right the confidence was, by what people decided, and thresholds that keep errors below the wanted rate.

    Exit codes: **0** both thresholds are proposed, **1** not enough is known for that, **2** bad input, **3** a fault.

    Example: `chimera review calibrate --error 0.05 --plot reliability.png`
    """
    from chimera.cli.review import run

    where = run.Where(queue, policy)
    raise typer.Exit(run.calibrate(error, person_error, plot, where, as_json=as_json))


@review.command("policy")
def policy_(policy: PolicyFile = None, as_json: AsJson = False) -> None:
    """Check the policy and print all of it, as YAML that can be edited and used.

    Example: `chimera review policy`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.show_policy(policy, as_json=as_json))


@review.command("watch")
def watch(
    once: Annotated[bool, typer.Option("--once", help="One round, and exit.")] = False,
    queue: Queue = "main",
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Look after the queue until Ctrl-C: print what happens, tell the webhooks, escalate and expire what is due.

    Any number may run. Exit codes: **0** ended, **2** bad input, **3** a fault.

    Example: `chimera review watch --once`
    """
    from chimera.cli.review import run

    raise typer.Exit(run.watch(run.Where(queue, policy), once=once, as_json=as_json))
