"""How a federation is run: the strategy and its parameters, checked against the count of nodes before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.sandbox.federation.client import MAX_STEPS
from chimera.sandbox.federation.flower import strategy as flower

StrategyName = Literal["fedavg", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"]

Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]

STRATEGIES: dict[StrategyName, type[flower.FedAvg]] = {
    "fedavg": flower.FedAvg,
    "fedprox": flower.FedProx,
    "fedmedian": flower.FedMedian,
    "fedtrimmedavg": flower.FedTrimmedAvg,
    "krum": flower.Krum,
    "multikrum": flower.MultiKrum,
    "bulyan": flower.Bulyan,
}

MEANS = ("fedavg", "fedprox")


class FederationPlan(Frozen):
    """What is run. A user of Flower gives the same under `[tool.flwr.app.config]`, with dashes: see `from_config`.

    `malicious` is f, the nodes that may send anything, which the strategy has to withstand. `beta` is the share that
    the trimmed mean cuts at each end; `select` how many Multi-Krum averages. With `noise_multiplier` the mean of the
    nodes' clipped updates gets Gaussian noise, which hides that a whole sandbox took part; `clipping_norm` is fixed, or
    where clipping begins if `adaptive`. `round_s` limits each round's training and each one's evaluation. Numbers
    beyond `max_abs` are refused. `weigh` says whether a mean weighs nodes by the records that they claim.
    """

    strategy: StrategyName = "fedmedian"
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 100
    round_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    evaluate: bool = False
    weigh: Literal["records", "equally"] = "records"
    malicious: Annotated[int, Field(ge=0, le=1_000)] = 0
    beta: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    select: Annotated[int, Field(ge=1, le=1_000)] = 1
    proximal_mu: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    noise_multiplier: Positive | None = None
    clipping_norm: Positive = 1.0
    adaptive: bool = False
    client_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_abs: Positive = 1e6

    @classmethod
    def from_config(cls, config: Mapping[str, bool | int | float | str]) -> Self:
        """The plan that a run's configuration gives; its other keys are the app's own. Raises InputError."""
        named = {key.replace("-", "_"): value for key, value in config.items()}
        try:
            return cls(**{key: named[key] for key in cls.model_fields if key in named})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            where = "-".join(map(str, first["loc"])).replace("_", "-")
            raise InputError(f"the run's configuration: {where or 'all of it'}: {first['msg']}") from None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.malicious and self.strategy in MEANS:
            raise ValueError(
                f"{self.strategy} withstands no malicious node: use fedmedian, fedtrimmedavg, krum or bulyan"
            )
        if self.proximal_mu and self.strategy != "fedprox":
            raise ValueError("proximal_mu is fedprox's")
        if self.noise_multiplier and self.strategy not in MEANS:
            raise ValueError("the noise is calibrated to a mean of all updates: use fedavg or fedprox with it")
        return self

    @property
    def quorum(self) -> int:
        """The fewest replies that are made into one generator; with fewer the round changes nothing.

        2 f + 1 for a median; 2 f + 3 for Krum (Blanchard et al. 2017, proposition 4.2), and for Multi-Krum `select` of
        n - f - 2; 4 f + 3 for Bulyan (El Mhamdi et al. 2018); as many that the trimmed mean cuts f at each end.
        """
        f = self.malicious
        if self.strategy == "fedtrimmedavg":
            return next(n for n in range(max(2, 2 * f + 1), 10**6) if int(self.beta * n) >= f)
        least = {"fedmedian": 2 * f + 1, "krum": 2 * f + 3, "multikrum": max(2 * f + 3, self.select + f + 2)}
        return max(2, least.get(self.strategy, 4 * f + 3 if self.strategy == "bulyan" else 2))

    def sampled(self, nodes: int) -> int:
        """How many of so many nodes a round asks, as Flower counts them."""
        return max(int(nodes * self.fraction), self.quorum)

    def check(self, nodes: int) -> None:
        """Raises InputError where so many nodes are too few."""
        if nodes < self.quorum:
            against = f" against {self.malicious} malicious" if self.malicious else ""
            raise InputError(f"{self.strategy} needs {self.quorum} nodes{against}, and there are {nodes}")
        if self.adaptive and self.noise_multiplier and self.noise_multiplier >= self.sampled(nodes) / 10:
            raise InputError(
                f"adaptive clipping of {self.sampled(nodes)} nodes takes a noise multiplier below"
                f" {self.sampled(nodes) / 10:g}: ask more nodes, or let the clipping be fixed"
            )

    def open(self, nodes: int) -> flower.Strategy:
        """Flower's strategy for so many nodes. Raises InputError where they are too few."""
        self.check(nodes)
        common: dict[str, Any] = {
            "fraction_train": self.fraction,
            "fraction_evaluate": self.fraction if self.evaluate else 0.0,
            "min_train_nodes": self.quorum,
            "min_evaluate_nodes": self.quorum,
            "min_available_nodes": self.quorum,
        }
        opened = STRATEGIES[self.strategy](**common, **self._own_parameters())
        if self.noise_multiplier is None:
            return opened
        sampled = self.sampled(nodes)
        if self.adaptive:
            return flower.DifferentialPrivacyServerSideAdaptiveClipping(
                opened, self.noise_multiplier, sampled, initial_clipping_norm=self.clipping_norm
            )
        return flower.DifferentialPrivacyServerSideFixedClipping(
            opened, self.noise_multiplier, self.clipping_norm, sampled
        )

    def _own_parameters(self) -> dict[str, Any]:
        withstands = {"num_malicious_nodes": self.malicious}
        own: dict[str, dict[str, Any]] = {
            "fedprox": {"proximal_mu": self.proximal_mu},
            "fedtrimmedavg": {"beta": self.beta},
            "krum": withstands,
            "multikrum": {**withstands, "num_nodes_to_select": self.select},
            "bulyan": withstands,
        }
        return own.get(self.strategy, {})

    def noise_of_round(self, nodes: int, replies: int) -> float:
        """The noise multiplier that a round had when `replies` of those asked came.

        Flower's noise is for a mean of all that were asked; in a mean of fewer each weighs more. Adaptive clipping
        spends a part on its noisy count of clipped updates (Andrew et al. 2021, theorem 1).
        """
        if self.noise_multiplier is None:
            return 0.0
        asked = self.sampled(nodes)
        if not self.adaptive:
            return self.noise_multiplier * replies / asked
        counts = (2 * asked / 20) ** -2
        updates = (self.noise_multiplier**-2 - counts) ** -0.5 * replies / asked
        return float((updates**-2 + counts) ** -0.5)
