"""One tree of errors, one child per boundary that an error can come from.

Every class forwards its positional arguments to `Exception.__init__`, so each survives a pickle round trip with its
fields: errors cross process boundaries all day long here. Expected refusals (a vote lost, a queue full) are return
values; these are for what the caller has to change or could not foresee.
"""

from __future__ import annotations


class ChimeraError(Exception):
    """Base of all of Chimera's errors. `message` says what is wrong and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class InputError(ChimeraError):
    """What the caller gave cannot be used. The command line ends with exit code 2."""


class MissionError(InputError):
    """A mission document is not valid: an unknown field, a wrong type, a limit passed."""


class GraphError(InputError):
    """A task graph is not valid. `reason` is one of `cycle`, `unknown`, `duplicate`, `too_many`, `empty`, `fan_out`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason


class DocumentsError(InputError):
    """A folder of documents is missing, empty, or holds nothing that can be read."""


class UnreadableDocument(ChimeraError):
    """One file cannot be read. It is named in the result and skipped."""

    def __init__(self, file: str, cause: str) -> None:
        super().__init__(f"{file}: {cause}")
        self.args = (file, cause)
        self.file = file
        self.cause = cause


class PolicyError(InputError):
    """An agent's policy cannot be loaded: no such module, no such name, or not callable."""


class ReplyError(ChimeraError):
    """An agent's reply cannot be counted: not JSON, too large, or not comparable under the task's equality."""


class ModelError(ChimeraError):
    """A language model refused, failed, or is not available here."""


class ModelRefused(ModelError, InputError):
    """A language model's server refuses what it was asked (400, 401, 404 ...), and would refuse it again."""


class ModelUnauthorized(ModelRefused):
    """A language model's server does not take the key (401, 403): it is of no use until somebody changes the key."""


class ModelOutage(ModelError):
    """A language model could not be asked for now: no connection, no time, 429, 5xx, no JSON. Asking again may help.

    `retry_after_s` is what its server asks to wait; 0 where it says nothing.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class ModelSilent(ModelOutage):
    """A language model's server was sent a call and gave no whole answer: out of time, or the connection broke off.

    Unlike after any other outage, it may have worked, and may charge for it.
    """


class ModelQuota(ModelOutage):
    """The account at a language model's server has nothing left. Another provider may help, waiting seldom does."""


class ModelTooLong(ModelError):
    """A language model's answer is larger than what is read of one."""


class StorageError(ChimeraError):
    """A journal or store could not read or write."""


class StorageUnavailable(StorageError):
    """The server of a journal or store is out of reach for now. What it was asked last may have been done or not."""


class StateConflict(StorageError):
    """Another agent changed a key first. `version` is the one it has now; 0 means that the key is gone."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.args = (message, version)
        self.version = version


class SwarmError(ChimeraError):
    """The running swarm could not do what it was asked."""


class NoAgents(SwarmError, InputError):
    """No agent of the role that a task asks for, or too few of them."""


class Overloaded(SwarmError):
    """A bounded queue is full. Try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class NotBegun(SwarmError):
    """An actor has been started anew, and has not been told yet what it looks after."""


class BudgetExceeded(SwarmError):
    """An attempt asked to spend more than was reserved for it, or a mission's budget has nothing left."""


class ClusterError(ChimeraError):
    """Ray could not be started, joined or asked."""


class NoCluster(ClusterError, InputError):
    """No Ray cluster answers at the address that was given."""


class MissingExtra(ChimeraError):
    """An optional dependency is missing. `extra` is the one to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'chimera[{extra}]'")
        self.args = (package, extra)
        self.package = package
        self.extra = extra


class EvidenceError(ChimeraError):
    """Evidence cannot be used. `reason` is a word for a program, which whoever raises it lists: signature, merkle."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason


class EnvironmentNotFound(InputError):
    """No environment of that id is registered."""


class MinerError(ChimeraError):
    """A miner could not be asked: an infrastructure fault, which never counts against it. Try again.

    `retry_after_s` is how long its provider asks to wait; 0 where it says nothing.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class ObjectExists(StorageError):
    """An object of that name is there already. Objects are made once, and never changed."""


class ObjectMissing(StorageError):
    """No object of that name is there."""


class ObjectTooLarge(StorageError):
    """An object is larger than what is read of one."""


class ChainError(ChimeraError):
    """The blockchain refused, or could not be asked."""


class ChainUnavailable(ChainError):
    """The blockchain's node does not answer. What was sent to it may have arrived or not."""


class ChainReverts(ChainError):
    """The blockchain would not carry out a transaction."""


class ChainMissing(ChainError):
    """The blockchain's node knows no such transaction."""


class StaleMetagraph(ChainError):
    """What is known of the subnet is too old to set weights by: read it again."""


class SourceError(ChimeraError):
    """Readings cannot be had: the server cannot be reached, the file is not what it should be, an address is taken."""


class QueryRefused(SourceError):
    """Prometheus will not answer this, and says why. Asking again is no use."""


class ReadingRefused(InputError):
    """A reading cannot be taken in. `reason` is one of `name`, `timestamp`, `value`, `metrics` (there are too many)."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.args = (message, reason)
        self.reason = reason


class DetectorError(InputError):
    """A detector cannot be used: not found, or it does not keep the detectors' contract."""


class HealingError(ChimeraError):
    """A patch could not be made, tried or applied."""


class PatchInvalid(HealingError, InputError):
    """A patch does not fit: its form, a path that it must not touch, a text that is not there exactly once."""


class PatchConflict(HealingError):
    """Somebody else changed files that a patch is to change or to give back. Nothing was done. `paths` names them."""

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.args = (message, paths)
        self.paths = paths


class TreeBusy(HealingError):
    """Another process changes the same tree just now. Try again."""


class SandboxUnavailable(HealingError):
    """No sandbox works on this machine, so no code is run. The message names what each of them lacks."""


class ReloadError(ChimeraError):
    """A module could not be loaded anew. The version before it is still the one in use."""


class SecurityError(ChimeraError):
    """Something is not permitted, or cannot be shown to be."""


class Unauthenticated(SecurityError):
    """Who asks cannot be told: no token, or one that is not (or no longer) valid. Log in again."""


class Forbidden(SecurityError):
    """Who asks is known, and may not do this."""


class RateLimited(SecurityError):
    """Too much was asked for. Try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class NotThere(InputError):
    """Nothing of that name is here, or it is somebody else's."""


class NotBuilt(ChimeraError):
    """This is planned, and not there yet."""


class TokenReused(Unauthenticated):
    """A refresh token came a second time: one of the two was a copy, so the session of `subject` was revoked."""

    def __init__(self, message: str, subject: str) -> None:
        super().__init__(message)
        self.args = (message, subject)
        self.subject = subject


class OutputBlocked(SecurityError):
    """A text may not go out as it is. `findings` say why and where, and never repeat what must not be seen."""

    def __init__(self, message: str, findings: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.args = (message, findings)
        self.findings = findings


class AuditError(SecurityError):
    """The audit log cannot be written or read. What cannot be written down must not be done."""


class AuditBusy(AuditError):
    """Another process writes this audit log. There is one writer."""


class LedgerError(ChimeraError):
    """The ledger cannot be read or written, or holds what it should not. A refusal is an answer, and no error."""


class LedgerUnavailable(LedgerError):
    """The ledger's database is out of reach. What was being written may be there or not: writing it again is safe."""


class WireError(SecurityError):
    """What came over a socket of the treasury is no call: the connection is of no use any more."""


class PrivacyError(ChimeraError):
    """A release that the privacy budget does not allow, or a model that leaks more than it claims."""


class ProofError(ChimeraError):
    """A proof, a key or a claim that is not accepted. The message says which part does not hold."""
