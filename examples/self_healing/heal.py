"""A shop's till gets a bad change, is noticed, mended and watched, while it goes on selling in the same process.

    python examples/self_healing/heal.py                               a scripted model, over a real connection
    python examples/self_healing/heal.py --model anthropic:NAME        a real one, with its key in the environment

Two incidents: the first patch mends its cause and is kept; the second passes every test and makes things worse, so it
is rolled back by itself. The second needs the scripted model.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from scripted_model import scripted_model  # noqa: E402

from chimera.anomaly.engine import AnomalyDetectionEngine  # noqa: E402
from chimera.anomaly.sources.push import PushSource  # noqa: E402
from chimera.core.clock import SystemClock  # noqa: E402
from chimera.core.watching import Reading  # noqa: E402
from chimera.healing.generator import CodeGenerator, GeneratorOptions  # noqa: E402
from chimera.healing.healer import HealerOptions  # noqa: E402
from chimera.healing.probation import ProbationOptions  # noqa: E402
from chimera.llm.models import open_model  # noqa: E402
from chimera.reload.manager import HotReloadManager  # noqa: E402
from chimera.system.heart import HeartEvent, HeartNode, HeartSettings  # noqa: E402
from chimera.system.metacognition import MetacognitionOptions  # noqa: E402

COOLDOWN_S = 3.0
"""After a patch the node leaves the module alone for so long, whatever it then does."""

MOST_ROUNDS = 300
"""For one incident."""

QUIET = 300
"""Readings before an incident: what is usual has to be learned, and trouble to be forgotten."""

GOOD = (HERE / "app" / "till.py").read_text(encoding="utf-8")
LINE = "    return total - min(prices_cents) if len(prices_cents) >= 10 else total\n"
BAD = GOOD.replace(LINE, "    return total - sorted(prices_cents)[4] if len(prices_cents) >= 4 else total\n")

FIRST_ANSWER = f"""\
The free piece is the cheapest, and only from ten pieces on.

The fifth of the sorted prices does not exist in a basket of four, and the discount began at four pieces.

till.py
<<<<<<< SEARCH
    return total - sorted(prices_cents)[4] if len(prices_cents) >= 4 else total
=======
{LINE}>>>>>>> REPLACE
"""

SECOND_ANSWER = """\
Refuse what is neither a small basket nor a large one.

Such baskets are rare.

till.py
<<<<<<< SEARCH
    return total - sorted(prices_cents)[4] if len(prices_cents) >= 4 else total
=======
    if 2 < len(prices_cents) < 9:
        raise ValueError("an odd basket")
    return total - min(prices_cents) if len(prices_cents) >= 10 else total
>>>>>>> REPLACE
"""


class Shop:
    """Sells baskets, and tells once a round what share of them went wrong."""

    def __init__(self, reload: HotReloadManager, source: PushSource) -> None:
        self._reload, self._source = reload, source
        self._random = random.Random(7)
        self.rounds = 0
        self.errors_percent = 0.0

    async def sell(self) -> None:
        """One round: 200 baskets of one to twelve pieces, two in a hundred of them without a price."""
        failed = 0
        for _ in range(200):
            prices: list[int] = [self._random.randrange(50, 900) for _ in range(self._random.randint(1, 12))]
            given = [None] if self._random.random() < 0.02 else prices
            try:
                with self._reload.registry.lease("total") as lease:
                    lease.call(given)
            except (TypeError, ValueError, IndexError):
                failed += 1
        self.rounds += 1
        self.errors_percent = failed / 2
        reading = Reading(metric="till_errors_percent", timestamp=1e6 + 10.0 * self.rounds, value=self.errors_percent)
        await self._source.push([reading])


async def run(model_name: str | None, folder: Path, pause_s: float) -> list[HeartEvent]:
    """Both incidents, or the first with a real model; the steps that the node took."""
    app = folder / "app"
    shutil.copytree(HERE / "app", app)
    sys.path.insert(0, str(app))
    with ExitStack() as stack:
        if model_name is None:
            url = stack.enter_context(scripted_model([FIRST_ANSWER, SECOND_ANSWER]))
            model_name = f"compatible:scripted@{url}"
            incidents = 2
        else:
            incidents = 1
        settings = HeartSettings(
            workspace=app,
            hidden_tests=HERE / "hidden",
            home=folder / "heart",
            owners={"till_*": "till"},
            deciding=MetacognitionOptions(cooldown_s=COOLDOWN_S),
            healing=HealerOptions(repairs=0, wall_s=60.0),
            probation=ProbationOptions(readings=20),
        )
        node = HeartNode(settings)
        node.source = source = PushSource()
        node.anomaly_engine = AnomalyDetectionEngine()
        node.code_generator = CodeGenerator(open_model(model_name), options=GeneratorOptions(candidates=1))
        node.hot_reload = reload = HotReloadManager(clock=SystemClock())
        importlib.import_module("till")
        reload.expose("total", "till", "total_cents")
        beating = asyncio.create_task(node.run())
        shop = Shop(reload, source)
        for _ in range(QUIET):
            await shop.sell()
        for number in range(incidents):
            await asyncio.sleep(COOLDOWN_S if number else 0.0)
            print(
                f"round {shop.rounds}: a bad change of till.py; errors {shop.errors_percent:.1f} %, pid {os.getpid()}"
            )
            (app / "till.py").write_text(BAD, encoding="utf-8")
            await reload.reload("till", app / "till.py")
            await until_over(node, beating, shop, number + 1, pause_s)
            await shop.sell()  # by the version that is in use now
            print(f"round {shop.rounds}: errors {shop.errors_percent:.1f} %, pid {os.getpid()}")
            (app / "till.py").write_text(GOOD, encoding="utf-8")
            await reload.reload("till", app / "till.py")
            for _ in range(QUIET):  # calm again, before the next
                await shop.sell()
        source.finish()
        await beating
    return list(node.events)


async def until_over(node: HeartNode, beating: asyncio.Task[None], shop: Shop, ends: int, pause_s: float) -> None:
    """Sell until so many patches have come to their end. Says what the node does meanwhile.

    While a patch is tried there are fewer rounds: trouble that goes on for hundreds of readings is what is usual then.
    """
    told = len(node.events)
    for _ in range(MOST_ROUNDS):
        if sum(event.step in ("kept", "rolled_back", "rejected", "failed") for event in node.events) >= ends:
            return
        await shop.sell()
        tried = bool(node.events) and node.events[-1].step == "decided"
        await asyncio.sleep(20 * pause_s if tried else pause_s)
        if beating.done():
            beating.result()
        for event in list(node.events)[told:]:
            print(f"    {event.step:11} {event.subject}  {event.detail[:90]}")
        told = len(node.events)
    raise SystemExit(f"nothing came of it in {MOST_ROUNDS} rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="such as anthropic:NAME; default: a scripted one")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between rounds once there is trouble")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chimera-heal-") as folder:
        asyncio.run(run(options.model, Path(folder), options.pause))


if __name__ == "__main__":
    main()
