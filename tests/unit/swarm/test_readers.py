"""The roles that read."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from types import SimpleNamespace
from chimera.core.types import AgentSpec, Task
from chimera.swarm.policy import Seat

policy = Seat.of(AgentSpec()).load()
loaded = set(sys.modules)
task = Task(goal="What is the tower made of?", inputs={"text": "It is made of iron. Many people visit it."})
for replica in range(3):
    print(policy(task, SimpleNamespace(upstream={}, replica=replica)).value)
late = {name for name in set(sys.modules) - loaded if name.partition(".")[0] in ("chimera", "sklearn", "bm25s")}
print(sorted(late))
"""


def test_what_takes_long_to_import_is_imported_with_the_policy_not_by_the_first_attempt() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *answers, late = done.stdout.splitlines()
    assert answers == ["It is made of iron."] * 3
    assert late == "[]"
