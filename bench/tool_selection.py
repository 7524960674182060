"""How well and how fast the catalog selects tools, with all-MiniLM-L6-v2 on the CPU.

    OMP_NUM_THREADS=1 python -m bench.tool_selection [--tools 2000] [--part reported|tuning]

Prints the time and memory that the model takes to load, then each method's figures on the public sets of
tests/data/tools, then the time of searches among `--tools` tools (those of the sets, renamed until there are enough).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from chimera.core.clock import SystemClock
from chimera.core.stats import percentile
from chimera.mcp.catalog.evaluate import evaluate, read_set
from chimera.mcp.catalog.index import Catalog
from chimera.mcp.catalog.minilm import MiniLM
from chimera.mcp.catalog.vectors import VectorFile
from chimera.mcp.types import ToolDefinition

DATA = Path(__file__).parents[1] / "tests" / "data" / "tools"
SETS = ("metatool", "livemcpbench")
SEARCHES = 200


def resident_mb() -> float:
    """Memory of this process, as the kernel counts it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1_000 for line in status.splitlines() if line.startswith("VmRSS"))


def many(count: int) -> list[ToolDefinition]:
    tools = [tool for name in SETS for tool in read_set(DATA / f"{name}.jsonl").tools]
    copies = range(-(-count // len(tools)))
    return [tool.model_copy(update={"name": f"{tool.name} {n}"}) for n in copies for tool in tools][:count]


async def measure(count: int, part: str) -> None:
    before, started = resident_mb(), time.perf_counter()
    model = MiniLM()
    print(f"MiniLM loads in {time.perf_counter() - started:.2f} s and adds {resident_mb() - before:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        vectors = VectorFile(Path(folder) / "vectors.db")
        for name in SETS:
            tool_set = read_set(DATA / f"{name}.jsonl")
            if not tool_set.part(part):  # type: ignore[arg-type]
                continue
            report = await evaluate(tool_set, clock=SystemClock(), embedder=model, vectors=vectors, part=part)  # type: ignore[arg-type]
            print(f"\n{report.name}: {report.tools} tools, {report.queries} queries for {report.gold_tools} of them")
            header, rows = report.table()
            for row in (header, *rows):
                print(" | ".join(row))
        await time_searches(count, model, vectors)
        vectors.close()


async def time_searches(count: int, model: MiniLM, vectors: VectorFile) -> None:
    started = time.perf_counter()
    catalog = Catalog(many(count), approved=tuple, embedder=model, vectors=vectors)
    indexed = time.perf_counter()
    await catalog.prepare()
    embedded = time.perf_counter()
    print(f"\n{count} tools: words indexed in {indexed - started:.2f} s, embedded in {embedded - indexed:.1f} s")
    times_ms, cpu_ms = [], []
    for question in read_set(DATA / "metatool.jsonl").questions[:SEARCHES]:
        started, worked = time.perf_counter(), time.process_time()
        await catalog.search(question.query)
        times_ms.append((time.perf_counter() - started) * 1_000)
        cpu_ms.append((time.process_time() - worked) * 1_000)
    for what, times in (("on the clock", times_ms), ("of CPU", cpu_ms)):
        print(f"a search: median {percentile(times, 0.5):.0f} ms, p95 {percentile(times, 0.95):.0f} ms {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=int, default=2_000)
    parser.add_argument("--part", choices=("reported", "tuning"), default="reported")
    options = parser.parse_args()
    asyncio.run(measure(options.tools, options.part))


if __name__ == "__main__":
    main()
