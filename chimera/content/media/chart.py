"""Charts of numbers that somebody published: bars or a line, with the source under it. No model makes a number."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, model_validator

from chimera.content.media.alt import chart_alt
from chimera.content.media.fonts import check_letters
from chimera.content.media.label import band_height_px
from chimera.content.media.picture import DEFAULT_LIMITS, ImageLimits, Picture, finished, opened
from chimera.content.provenance.c2pa import SourceType
from chimera.core.errors import MissingExtra
from chimera.core.types import Frozen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

MAX_POINTS: Final = 500
MAX_BARS: Final = 30
TICKS: Final = 12
INK, COLOUR = "#1c1917", "#0369a1"

Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Label = Annotated[str, Field(min_length=1, max_length=40)]


class Chart(Frozen):
    """Numbers with a label each, in their order, and where they are from. A bar chart begins at zero."""

    title: str = Field(min_length=1, max_length=120)
    kind: Literal["bar", "line"] = "bar"
    labels: tuple[Label, ...] = Field(min_length=2, max_length=MAX_POINTS)
    values: tuple[Number, ...] = Field(min_length=2, max_length=MAX_POINTS)
    unit: str = Field(default="", max_length=40)
    source: str = Field(min_length=1, max_length=200)
    source_id: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _has_a_label_for_each(self) -> Chart:
        if len(self.labels) != len(self.values):
            raise ValueError(f"{len(self.labels)} labels for {len(self.values)} values: give one for each")
        if self.kind == "bar" and len(self.values) > MAX_BARS:
            raise ValueError(f"{len(self.values)} bars are too many to read: at most {MAX_BARS}, or a line")
        return self


def draw_chart(
    chart: Chart, *, limits: ImageLimits = DEFAULT_LIMITS, language: str = "en", identity: str = ""
) -> Picture:
    """The chart as a picture. Raises InputError for letters that the font has not, MissingExtra without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "content") from None

    for text in (chart.title, chart.unit, chart.source, *chart.labels):
        check_letters(text)
    file = io.BytesIO()
    # A user's own style is not the brand's.
    with rc_context({"font.family": "DejaVu Sans", "axes.spines.top": False}):
        figure = Figure(figsize=(12, 6.4), dpi=100, facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.25, h_pad=0.2)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _plot(axes, chart)
        axes.set_title(_plain(chart.title), fontsize=20, loc="left", color=INK, wrap=True)
        figure.supxlabel(_plain(f"Source: {chart.source}"), fontsize=12, x=0.01, ha="left", color=INK)
        figure.savefig(file, format="png")
    return finished(
        _with_room(file.getvalue()),
        alt=chart_alt(chart.title, chart.kind, chart.labels, chart.values, unit=chart.unit, source=chart.source),
        source_type=SourceType.ALGORITHM,
        limits=limits,
        language=language,
        identity=identity,
    )


def _plot(axes: Axes, chart: Chart) -> None:
    places = range(len(chart.values))
    if chart.kind == "bar":
        axes.bar(places, chart.values, color=COLOUR)
        axes.axhline(0, color=INK, linewidth=0.8)
    else:
        axes.plot(places, chart.values, color=COLOUR, linewidth=2.5)
        axes.grid(axis="y", alpha=0.3)
    every = -(-len(chart.labels) // (MAX_BARS if chart.kind == "bar" else TICKS))
    crowded = len(chart.labels) // every > 8 or max(map(len, chart.labels)) > 12
    axes.set_xticks(
        list(places)[::every],
        [_plain(label) for label in chart.labels[::every]],
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.tick_params(labelsize=12)
    axes.spines["right"].set_visible(False)
    if chart.unit:
        axes.set_ylabel(_plain(chart.unit), fontsize=13, color=INK)


def _plain(text: str) -> str:
    """For matplotlib, to which what stands between two dollar signs is a formula. Here they are money."""
    return text.replace("$", r"\$")


def _with_room(data: bytes) -> Image:
    """The drawing with an empty strip below it, for the label to cover."""
    from PIL import Image as Pil

    drawn = opened(data)
    made = Pil.new("RGB", (drawn.width, drawn.height + band_height_px(*drawn.size)), "white")
    made.paste(drawn.convert("RGB"), (0, 0))
    return made
