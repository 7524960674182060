"""The whole loop, as the example shows it: a bad change of a running service is noticed, mended, and watched."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.timeout(300)
def test_a_bad_change_is_mended_and_a_patch_that_makes_it_worse_is_rolled_back() -> None:
    """All in one process, over a real connection to the model and in a real sandbox."""
    command = [sys.executable, "examples/self_healing/heal.py", "--pause", "0.05"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.findall(r"^    (\w+) +till", done.stdout, re.MULTILINE)
    assert steps == ["noticed", "decided", "applied", "kept", "noticed", "decided", "applied", "rolled_back"]
    after_first, after_second = re.findall(r"^round \d+: errors ([\d.]+) %", done.stdout, re.MULTILINE)
    assert float(after_first) < 8, "two in a hundred baskets have no price"
    assert float(after_second) < 25, "one in ten goes wrong as before the patch, which had made it one in two"
    assert len(set(re.findall(r"pid (\d+)", done.stdout))) == 1
