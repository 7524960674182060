"""An agent of one's own: a policy is a function of (task, context) that returns a value or a Reply."""

from __future__ import annotations

from chimera import Context, Reply, Task


async def count_words(task: Task, context: Context) -> Reply:
    """Count the words of `inputs["text"]`."""
    words = len(str(task.inputs["text"]).split())
    return Reply(value=f"{words} words", confidence=0.9)
