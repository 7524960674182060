"""How well the treasury's risk score tells fraud from honest payments, on made-up histories.

    python -m bench.risk [--seeds 100..139] [--json]

The data are synthetic (`bench/fraud`): what is measured is whether the score finds the frauds that somebody thought of,
in companies that somebody made up; it says little of real fraud. The weights were set on the seeds 0 to 19
(`python -m bench.fraud.fit`), the report is over 100 to 139, which nobody looked at before the weights were final.

A company has 120 days; the first 30 are only learnt from. Each payment is scored when it is filed, then it is carried
out, the frauds too: nobody ever tells the score what was one. AUC is the chance that a fraud scores above an honest
payment, ties half (Hanley and McNeil, Radiology 143, 1982); its interval is a bootstrap over companies (2.5 to 97.5 %).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.fraud.company import BEGIN_US, Asking
from bench.fraud.frauds import FRAUDS, QUIET_DAYS, with_frauds
from chimera.treasury.history import History
from chimera.treasury.policy import Policy, judge
from chimera.treasury.risk import Assessment, assess
from chimera.treasury.rows import AnyRow
from chimera.treasury.signer import Verdict
from chimera.treasury.types import DAY_US, Account, AccountKind, Approval, PaymentRequest, Rules, Transfer, TransferKind

CASH = "cash"
RULES = Rules()
POLICY = Policy()


@dataclass(frozen=True)
class Scored:
    """A payment, what was made of it, and the verdict of the default policy with the limits on amounts and without."""

    seed: int
    fraud: str
    assessment: Assessment
    verdict: Verdict
    by_risk: Verdict


def score(seed: int) -> Iterator[Scored]:
    """Every payment of a company after the quiet days."""
    history = History()
    for begin in (Account(id=CASH, kind=AccountKind.FUND), RULES):
        history.take(begin, BEGIN_US)
    known = set()
    for number, asking in enumerate(with_frauds(seed)):
        request = _request(number, asking)
        if asking.credit not in known:
            known.add(asking.credit)
            history.take(Account(id=asking.credit, kind=AccountKind.OUTSIDE), asking.at)
        history.take(request, asking.at)
        if asking.at >= BEGIN_US + QUIET_DAYS * DAY_US:
            found = assess(request, history, at=asking.at)
            at_any_amount = RULES.model_copy(update={"ask_over": 10**18, "dual_over": 10**18})
            yield Scored(
                seed=seed,
                fraud=asking.fraud,
                assessment=found,
                verdict=judge(request, found, rules=RULES, policy=POLICY),
                by_risk=judge(request, found, rules=at_any_amount, policy=POLICY),
            )
        for row in _carried_out(request):
            history.take(row, asking.at)


def _request(number: int, asking: Asking) -> PaymentRequest:
    return PaymentRequest(
        id=f"r{number}",
        debit=CASH,
        credit=asking.credit,
        amount=asking.amount,
        category=asking.category,
        requester=asking.requester,
        mission=asking.mission,
        reason=asking.reason,
        expires_at=asking.at + asking.lifetime_us,
    )


def _carried_out(request: PaymentRequest) -> Iterator[AnyRow]:
    if request.amount > RULES.ask_over:
        yield Approval(
            request_id=request.id,
            request_digest="0" * 64,
            at=0,
            approver="ann",
            verdict="approved",
            expires_at=2**53,
        )
    yield Transfer(id=request.id, kind=TransferKind.POSTED, request_id=request.id, amount=request.amount)


class Ranking:
    """Risks in their order, so that an AUC over any weights of companies costs one pass."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        self.risks, self._rank = np.unique([each.assessment.risk for each in scored], return_inverse=True)
        self._fraud = np.array([each.fraud for each in scored])
        self.seeds, self._company = np.unique([each.seed for each in scored], return_inverse=True)

    def auc(self, kind: str | None = None, weights: NDArray[np.float64] | None = None) -> float:
        """Of frauds of that kind, or all of them, against all that is honest."""
        weight = np.ones(len(self._rank)) if weights is None else weights[self._company]
        bad = (self._fraud != "") if kind is None else (self._fraud == kind)
        good = self._fraud == ""
        size = len(self.risks)
        bads = np.bincount(self._rank[bad], weight[bad], size)
        goods = np.bincount(self._rank[good], weight[good], size)
        below = np.cumsum(goods) - goods / 2
        return float((bads * below).sum() / (bads.sum() * goods.sum())) if bads.sum() else float("nan")

    def interval(self, kind: str | None = None, rounds: int = 400) -> tuple[float, float]:
        """Of the AUC, over companies drawn with replacement; the draws are the same each time."""
        rng = np.random.default_rng(0)
        companies = len(self.seeds)
        draws = rng.multinomial(companies, np.full(companies, 1 / companies), rounds)
        low, high = np.nanpercentile([self.auc(kind, draw.astype(float)) for draw in draws], [2.5, 97.5])
        return float(low), float(high)


def share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else float("nan")


def report(scored: Sequence[Scored]) -> dict[str, object]:
    """What is printed, as data."""
    ranking = Ranking(scored)
    frauds, honest = [each for each in scored if each.fraud], [each for each in scored if not each.fraud]
    kinds = {}
    for kind in FRAUDS:
        ours = [each for each in frauds if each.fraud == kind]
        kinds[kind] = {
            "payments": len(ours),
            "auc": round(ranking.auc(kind), 4),
            "interval": [round(each, 4) for each in ranking.interval(kind)],
            "stopped_by_risk": round(share([each.by_risk != "approved" for each in ours]), 4),
            "stopped": round(share([each.verdict != "approved" for each in ours]), 4),
        }
    policy = {}
    for name, at in (("ask_at", POLICY.ask_at), ("refuse_at", POLICY.refuse_at)):
        above = [each for each in scored if each.assessment.risk >= at]
        policy[name] = {
            "risk": at,
            "precision": round(share([bool(each.fraud) for each in above]), 4),
            "recall": round(share([each.assessment.risk >= at for each in frauds]), 4),
            "false_alarms": round(share([each.assessment.risk >= at for each in honest]), 4),
        }
    return {
        "companies": len(ranking.seeds),
        "honest": len(honest),
        "frauds": len(frauds),
        "auc": round(ranking.auc(), 4),
        "interval": [round(each, 4) for each in ranking.interval()],
        "auc_mean_of_kinds": round(float(np.nanmean([ranking.auc(kind) for kind in FRAUDS])), 4),
        "policy": policy,
        "honest_asked_with_limits": round(share([each.verdict != "approved" for each in honest]), 4),
        "kinds": kinds,
    }


def seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds, default=range(100, 140), help="first..last; 0..19 set the weights")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    began = time.process_time()
    scored = [each for seed in options.seeds for each in score(seed)]
    cpu_s = time.process_time() - began
    told = report(scored) | {"us_a_payment": round(1e6 * cpu_s / len(scored))}
    if options.json:
        print(json.dumps(told))
        return
    _print(told)


def _print(told: dict[str, object]) -> None:
    print(f"{told['companies']} companies, {told['honest']} honest payments, {told['frauds']} frauds (synthetic)")
    print(f"AUC {told['auc']} {told['interval']}; mean of the kinds {told['auc_mean_of_kinds']}")
    for name, each in dict(told["policy"]).items():  # type: ignore[call-overload]
        print(
            f"{name} {each['risk']}: precision {each['precision']:.1%}, recall {each['recall']:.1%},"
            f" false alarms {each['false_alarms']:.2%} of what is honest"
        )
    print(f"honest payments that a person sees, limits on amounts included: {told['honest_asked_with_limits']:.1%}")
    print(f"{told['us_a_payment']} us of CPU a payment, its history and the making of it included")
    print("fraud          payments     AUC  interval          seen by risk  with the limits")
    for kind, each in dict(told["kinds"]).items():  # type: ignore[call-overload]
        low, high = each["interval"]
        print(
            f"{kind:14} {each['payments']:8} {each['auc']:7.3f}  {low:.3f} to {high:.3f}"
            f" {each['stopped_by_risk']:12.1%} {each['stopped']:16.1%}"
        )


if __name__ == "__main__":
    main()
