"""Before a Ray is joined or started: would it work? Ray itself tries for four to seven minutes, and says no reason.

One call over gRPC tells whether a Ray answers there, takes our certificate (RAY_USE_TLS) and takes our token
(RAY_AUTH_MODE). A handshake with ourselves tells whether a Ray of our own could talk to itself.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import ssl
from pathlib import Path

from chimera.core.errors import ClusterError, NoCluster

CONNECT_S = 10.0

ANSWER_S = 30.0

MAX_FLIGHTS = 10
"""Times that two sides of a handshake may speak in turn; TLS 1.3 takes three."""

TLS_FILES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def over_tls() -> bool:
    """Whether Ray's traffic of this process is encrypted."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def knock(host: str, port: int) -> None:
    """See whether anybody listens there at all. Raises OSError."""
    socket.create_connection((host, port), timeout=CONNECT_S).close()


def ask(address: str, *, nearest: bool = False) -> None:
    """See whether a Ray answers at HOST:PORT and takes our certificate and token. Raises ClusterError.

    `nearest` is one that was found on this machine and not named: as ray.init does, it is shown the token of ~/.ray.
    """
    import grpc  # type: ignore[import-untyped]
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
    from ray.exceptions import AuthenticationError

    if over_tls():
        _contexts()
    if nearest:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    channel = init_grpc_channel(address)
    try:
        service = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        service.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=ANSWER_S)  # type: ignore[attr-defined]
    except AuthenticationError as error:
        why = str(error).partition(". ")[0]
        raise NoCluster(f"{why}: put the token of {address!r} into RAY_AUTH_TOKEN or a file") from error
    except grpc.RpcError as error:
        token = error.code() is grpc.StatusCode.UNAUTHENTICATED
        raise NoCluster(f"Ray at {address!r} {_refusal(token)} ({str(error.details())[:200]})") from error
    finally:
        channel.close()


def _refusal(token: bool) -> str:
    if token:
        return (
            "does not take this token: set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN or the path "
            "of its file in RAY_AUTH_TOKEN_PATH"
        )
    if over_tls():
        return (
            "does not take this certificate, or has none that we take: RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and "
            "RAY_TLS_CA_CERT must be of the cluster's own authority, its own name it by the address that you use, and "
            "a cluster without TLS wants RAY_USE_TLS=0"
        )
    return (
        "does not answer: a cluster that uses TLS wants RAY_USE_TLS=1 with RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and "
        "RAY_TLS_CA_CERT of a certificate of its authority; `chimera certs make` makes one"
    )


def keep_token_private() -> None:
    """Make the token that a Ray of our own asks for, for nobody else to read: Ray leaves it to all users."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or any(os.environ.get(name) for name in TOKENS):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(file.fileno(), 0o600)
            if os.fstat(file.fileno()).st_size == 0:
                file.write(secrets.token_hex(32))
    except OSError as error:
        raise ClusterError(
            f"{path}: {error}: put a token into RAY_AUTH_TOKEN, or set RAY_AUTH_MODE=disabled"
        ) from error


def check_own_tls(host: str = "127.0.0.1") -> None:
    """Where Ray is to use TLS: see whether our certificate is good, for both sides, at that address.

    Raises ClusterError.
    """
    if not over_tls():
        return
    certificate = os.environ.get("RAY_TLS_SERVER_CERT")
    server, client = _contexts()
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(MAX_FLIGHTS):
            done = [_spoke(side) for side in sides]
            if all(done):
                return
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error
        hint = "`chimera certs make --renew` makes another"
        raise ClusterError(f"{certificate} is of no use at {host}: {why}; {hint}") from error
    raise ClusterError(f"{certificate}: no handshake in {MAX_FLIGHTS} turns")


def _spoke(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's side of our certificate. Raises ClusterError if a file of it cannot be used."""
    missing = [name for name in TLS_FILES if not os.environ.get(name)]
    if missing:
        raise ClusterError(
            f"RAY_USE_TLS is on, and {', '.join(missing)} is not set: `chimera certs make` says what to set"
        )
    certificate, key, authority = (os.environ[name] for name in TLS_FILES)
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        try:
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)
        except OSError as error:  # also what ssl cannot read
            raise ClusterError(
                f"RAY_USE_TLS is on, and {certificate}, {key} or {authority} cannot be used: {error}; "
                "`chimera certs make` makes them"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
        made.append(context)
    return made[0], made[1]
