"""What a node that mends itself is told before it begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from chimera.core.types import Frozen, Seconds, Share
from chimera.healing.healer import HealerOptions, PatchResult
from chimera.healing.probation import ProbationOptions
from chimera.system.metacognition import Decision, MetacognitionOptions

Review = Callable[[Decision, PatchResult], Awaitable[bool]]
"""A person, or whoever else has to agree, before a patch is applied."""

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=256)]


class HeartSettings(Frozen):
    """What a node heals, and how. `owners` say which module is to blame for a metric: glob -> dotted name.

    `workspace` is the folder that the modules are imported from; `hidden_tests` are tests that no generator sees.
    `home` keeps the log of changes, the memory, the patches that wait for a person (`reviews`), and `heart.jsonl`, a
    line for each step, each on disk before the next. With `journal_url` the steps also go to that journal, as the
    stream `swarm-NAME`; nothing is applied then while it is out of reach.
    """

    workspace: Path
    hidden_tests: Path
    home: Path
    owners: dict[str, ModuleName]
    name: str = Field(default="heart", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    journal_url: str | None = None
    deciding: MetacognitionOptions = MetacognitionOptions()
    healing: HealerOptions = HealerOptions()
    probation: ProbationOptions = ProbationOptions()
    probation_s: Seconds = 600.0
    """A probation that has seen too few readings by then ends as useless."""
    review_below: Share | None = None
    """A patch whose confidence is below it is applied when a person agrees. None: a `review`, if there is one, is asked
    about every patch."""
    review_s: Seconds = 3_600.0
    """A review that has not answered by then is no longer waited for: the patch is kept in `reviews`."""
    further: dict[ModuleName, tuple[str, ...]] = Field(default_factory=dict)
    """Module -> files of the workspace that a model is shown besides the module's own."""
