"""A corpus of a given size, made from a seed, with one needle in it, and a mission that has to find it.

    python bench/corpus.py [--files 1000] [--megabytes 20] [--json]

Prints the seconds from question to answer and the peak memory of the coordinator and of each cell: documents are read
by the workers, so the coordinator's does not grow with the corpus.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from chimera import Mission, Settings, SwarmCoordinator
from chimera.swarm.brief import Brief
from chimera.swarm.mission import Limits
from chimera.swarm.roles import brief_agents

NEEDLE = "The lighthouse of Varnholm was painted green by the keeper Ottilie Brandt in 1911."
QUESTION = "Who painted the lighthouse of Varnholm green?"
SYLLABLES = "ka lo mi ren tas ul vo pe din gar sho ny bel cru fan".split()


def write_corpus(folder: Path, *, files: int, size_bytes: int, seed: int = 7) -> None:
    """`files` text files of `size_bytes` in all, of made-up words with a natural frequency, the needle in one."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices(SYLLABLES, k=random_.randint(2, 4))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
    common = "the of and in was by a to keeper painted green lighthouse".split()
    each = size_bytes // files
    for number in range(files):
        sentences: list[str] = []
        written = 0
        while written < each:
            drawn = random_.choices(words, cum_weights=weights, k=random_.randint(6, 18))
            for at in range(0, len(drawn), 3):
                drawn[at] = random_.choice(common[:8]) if random_.random() < 0.98 else random_.choice(common)
            sentence = " ".join(drawn).capitalize() + "."
            sentences.append(sentence)
            written += len(sentence) + 1
        if number == files * 2 // 3:
            sentences[len(sentences) // 2] = NEEDLE
        lines = [" ".join(sentences[at : at + 6]) for at in range(0, len(sentences), 6)]
        (folder / f"{number:04}.txt").write_text("\n\n".join(lines), encoding="utf-8")


def peak_mb(pid: int) -> float:
    """The peak resident memory of a process in MB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


async def measure(folder: Path, address: str, *, deadline_s: float = 60.0) -> dict[str, object]:
    """Ask for the needle; the answer, the seconds, and the peak memory before and after."""
    agents = brief_agents(3)
    settings = Settings(address=address)
    async with SwarmCoordinator(max_agents=len(agents), settings=settings) as swarm:
        await swarm.spawn_agents(agents)
        before = await swarm.status()
        coordinator_mb = peak_mb(before.pid)
        started = time.monotonic()
        result = await swarm.run(Mission(goal=QUESTION, docs=str(folder), limits=Limits(deadline_s=deadline_s)))
        elapsed_s = time.monotonic() - started
        after = await swarm.status()
        brief = Brief.model_validate(result.value)
        return {
            "state": result.state.value,
            "found": brief.quotes[0].text == NEEDLE,
            "citation": brief.quotes[0].citation,
            "elapsed_s": round(elapsed_s, 2),
            "attempts": result.attempts,
            "coordinator_peak_mb": {"before": round(coordinator_mb), "after": round(peak_mb(after.pid))},
            "cell_peak_mb": {name: round(peak_mb(pid)) for name, pid in after.managers[0].cells.items() if pid},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--address", default="local")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), files=options.files, size_bytes=options.megabytes * 1_000_000)
        measured = asyncio.run(measure(Path(folder), options.address))
    if options.json:
        print(json.dumps(measured))
    else:
        for name, figure in measured.items():
            print(f"{name:20} {figure}")


if __name__ == "__main__":
    main()
