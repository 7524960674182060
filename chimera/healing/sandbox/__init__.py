"""Code that nobody has read runs here only: walls first, limits on everything, and nothing left behind."""

from chimera.healing.sandbox.opening import open_sandbox
from chimera.healing.sandbox.port import Limits, Sandbox, SandboxResult

__all__ = ["Limits", "Sandbox", "SandboxResult", "open_sandbox"]
