"""The commands `chimera users` and `chimera keys`, for whoever has the node's files. They import when they run."""

from __future__ import annotations

from typing import Annotated

import typer

users = typer.Typer(name="users", help="Who may use this node's API, and in which role.", no_args_is_help=True)
keys = typer.Typer(name="keys", help="API keys of this node.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
User = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
RoleName = Annotated[str, typer.Option("--role", help="admin, operator, observer, node or api_client.")]


@users.callback()
def all_users() -> None:
    """Who may use this node's API, and in which role. The files are in CHIMERA_HOME/security."""


@users.command("add")
def users_add(name: User, role: RoleName = "operator", as_json: AsJson = False) -> None:
    """Add a user, and print a one-time password.

    Exit codes: **0** done, **2** bad input, such as a name that is taken.

    Example: `chimera users add ada --role operator`
    """
    from chimera.cli.users_run import add, execute

    raise typer.Exit(execute(lambda security: add(security, name, role, as_json=as_json), as_json=as_json))


@users.command("list")
def users_list(as_json: AsJson = False) -> None:
    """All users, with their roles.

    Example: `chimera users list`
    """
    from chimera.cli.users_run import execute, show_users

    raise typer.Exit(execute(lambda security: show_users(security, as_json=as_json), as_json=as_json))


@users.command("role")
def users_role(
    name: User,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="admin, operator, observer, node or api_client.")],
) -> None:
    """Give a user another role. It ends their sessions.

    Example: `chimera users role ada observer`
    """
    from chimera.cli.users_run import execute, set_role

    raise typer.Exit(execute(lambda security: set_role(security, name, role)))


@users.command("disable")
def users_disable(
    name: User, enable: Annotated[bool, typer.Option("--enable", help="Let them in again.")] = False
) -> None:
    """Let a user in no more, by password, token or key.

    Example: `chimera users disable ada`
    """
    from chimera.cli.users_run import disable, execute

    raise typer.Exit(execute(lambda security: disable(security, name, disabled=not enable)))


@users.command("reset")
def users_reset(name: User, as_json: AsJson = False) -> None:
    """Print a new one-time password for a user. It ends their sessions, and their lock.

    Example: `chimera users reset ada`
    """
    from chimera.cli.users_run import execute, reset

    raise typer.Exit(execute(lambda security: reset(security, name, as_json=as_json), as_json=as_json))


@keys.callback()
def all_keys() -> None:
    """API keys of this node. The files are in CHIMERA_HOME/security."""


@keys.command("create")
def keys_create(
    user: Annotated[str, typer.Argument(metavar="NAME", help="The user whose key it is.")],
    role: RoleName = "api_client",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="A permission to be limited to, such as swarm:task.")
    ] = None,
    rate_limit: Annotated[int, typer.Option(min=1, max=100_000, help="Requests a second.")] = 50,
    days: Annotated[float | None, typer.Option(min=0.001, max=3_660, help="How long it is good for.")] = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an API key, and print it: it cannot be had again.

    Example: `chimera keys create ada --scope swarm:task --scope swarm:read`
    """
    from chimera.cli.users_run import create_key, execute

    raise typer.Exit(
        execute(
            lambda security: create_key(
                security, user, role, scopes=scopes, rate_limit=rate_limit, days=days, label=label, as_json=as_json
            ),
            as_json=as_json,
        )
    )


@keys.command("list")
def keys_list(
    user: Annotated[str, typer.Option(help="Only this user's.", metavar="NAME")] = "", as_json: AsJson = False
) -> None:
    """All keys, without their secrets.

    Example: `chimera keys list --user ada`
    """
    from chimera.cli.users_run import execute, show_keys

    raise typer.Exit(execute(lambda security: show_keys(security, user, as_json=as_json), as_json=as_json))


@keys.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]) -> None:
    """End a key, and those that were made with it.

    Example: `chimera keys revoke 0123abcd`
    """
    from chimera.cli.users_run import execute, revoke_key

    raise typer.Exit(execute(lambda security: revoke_key(security, key_id)))
