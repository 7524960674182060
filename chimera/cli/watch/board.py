"""The live table of `chimera watch`: the watch as a whole, its metrics by score, and the last alerts."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chimera.anomaly.views import EngineStatus, MetricView
from chimera.cli.arena import command
from chimera.cli.watch import tell
from chimera.core.watching import Alert, AnomalyDetected, FailurePredicted

LAST = 5
"""Alerts below the table."""

MAX_KNOWN = 10_000
"""Metrics whose last alert is remembered."""

MAX_ROWS = 100

NEWS = 60
"""Readings for which an anomaly is shown beside its metric."""

STYLES = {"spike": "red", "drop": "blue", "trend": "yellow", "pattern": "magenta", tell.FAILURE: "bold red"}

WIDE = 110

SPARED = ("expected", "90 % band")

T = TypeVar("T", AnomalyDetected, FailurePredicted)

HEADS = ("metric", "value", "expected", "90 % band", "score", "kind", "since", "warning")


class Board:
    """Remembers alerts, and draws."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last: deque[Alert] = deque(maxlen=LAST)
        self._anomalies: OrderedDict[str, AnomalyDetected] = OrderedDict()
        self._failures: OrderedDict[str, FailurePredicted] = OrderedDict()

    def note(self, alert: Alert) -> None:
        self._last.append(alert)
        if isinstance(alert, AnomalyDetected):
            _remember(self._anomalies, alert)
        else:
            _remember(self._failures, alert)

    def rows(self, height: int) -> int:
        """How many metrics there is room for in a terminal of so many lines."""
        return max(1, min(MAX_ROWS, height - LAST - 6))

    def frame(
        self,
        status: EngineStatus,
        top: Sequence[MetricView],
        refused: Mapping[str, int],
        *,
        width: int,
        elapsed_s: float,
        remarks: Sequence[str] = (),
    ) -> RenderableType:
        """One picture. `top` are the metrics to show, `refused` the readings that were not taken, by reason.

        The band is that of the next reading. In a terminal of less than WIDE columns some columns are left out.
        """
        rate = status.readings / elapsed_s if elapsed_s > 0 else 0.0
        facts = (
            f"{tell.many(status.readings, 'reading')} of {tell.many(status.metrics, 'metric')}, {rate:,.0f} a second; "
            f"{tell.many(status.alerts, 'anomaly', 'anomalies')}, {tell.many(status.warnings, 'failure warning')}; "
            f"refused: {counts(refused)}"
        )
        return Group(
            Text.assemble(
                (command.one_line(self.name), "bold"),
                (f"  for {tell.span(elapsed_s)}", "dim"),
                no_wrap=True,
                overflow="ellipsis",
            ),
            Text(facts, no_wrap=True, overflow="ellipsis"),
            *([Text("; ".join(remarks), style="yellow", no_wrap=True, overflow="ellipsis")] if remarks else []),
            self._table(top, status.metrics, [head for head in HEADS if width >= WIDE or head not in SPARED]),
            *(self._said(alert) for alert in self._last),
        )

    def _table(self, top: Sequence[MetricView], metrics: int, heads: Sequence[str]) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for head in heads:
            left = head in ("metric", "kind", "warning")
            table.add_column(head, justify="left" if left else "right", no_wrap=True, min_width=min(len(head), 8))
        for view in top:
            row = dict(zip(HEADS, self._row(view), strict=True))
            table.add_row(*(row[head] for head in heads))
        if metrics > len(top):
            table.add_row(Text(f"and {metrics - len(top):,} more", style="dim"))
        return table

    def _row(self, view: MetricView) -> list[Text]:
        known = self._anomaly(view)
        kind = known.kind.value if known else ("" if view.ready else "learning")
        style = STYLES.get(kind, "dim")
        band = f"{tell.number(view.low)} to {tell.number(view.high)}" if view.low is not None else ""
        score = "" if view.score is None else f"{view.score:.1f}"
        cells = (tell.number(view.value), tell.number(view.expected), band, score)
        return [
            Text(command.one_line(view.metric), no_wrap=True, overflow="ellipsis"),
            *(Text(cell) for cell in cells),
            Text(kind, style=style),
            Text(tell.moment(known.since)[-9:] if known else ""),
            Text(self._warning(view), style=STYLES[tell.FAILURE], no_wrap=True, overflow="ellipsis"),
        ]

    def _anomaly(self, view: MetricView) -> AnomalyDetected | None:
        """The metric's last anomaly, while it is news."""
        known = self._anomalies.get(view.metric)
        if known is None or view.timestamp is None or view.interval_s is None:
            return known
        return known if view.timestamp - known.timestamp <= NEWS * view.interval_s else None

    def _warning(self, view: MetricView) -> str:
        """The metric's last failure warning, until the time has come that it was about."""
        known = self._failures.get(view.metric)
        if known is None or view.timestamp is None:
            return ""
        left = known.timestamp + known.in_s - view.timestamp
        over = "over" if known.side == "above" else "under"
        return f"{over} {tell.number(known.limit)} in {tell.span(left)}" if left > 0 else ""

    def _said(self, alert: Alert) -> Text:
        style = STYLES.get(tell.kind_of(alert), "")
        return Text(tell.log_line(alert), style=style, no_wrap=True, overflow="ellipsis")


def _remember(known: OrderedDict[str, T], alert: T) -> None:
    known.pop(alert.metric, None)
    known[alert.metric] = alert
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)


def counts(given: Mapping[str, int]) -> str:
    """Counts by name, such as `3 timestamp, 1 value`."""
    return ", ".join(f"{count:,} {command.one_line(name)}" for name, count in sorted(given.items()) if count) or "none"
