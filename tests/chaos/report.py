"""A run's figures, for people and for programs."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, Final

from chaos.run import RATE_MIN, Record, fault_names

RECOVERY_GOAL_S: Final = 3.0


def figures(record: Record) -> dict[str, Any]:
    """Everything that was measured and found, as JSON."""
    options = record.options
    outcomes = Counter((operation.kind, operation.outcome) for operation in record.history)
    rates = [made.rate for made in record.made]
    return {
        "store": options.store,
        "seed": options.seed,
        "planned": options.planned,
        "plant": options.plant,
        "workers": options.workers,
        "clients": options.clients,
        "asked_per_s": options.rate,
        "seconds": round(record.seconds, 1),
        "verdict": verdict(record),
        "wrong": record.wrong,
        "invalid": record.invalid,
        "operations": len(record.history),
        "outcomes": {f"{kind} {outcome}": count for (kind, outcome), count in sorted(outcomes.items())},
        "answers": {f"{kind} {said}": count for (kind, said), count in sorted(record.answers.items())},
        "faults": dict(sorted(Counter(fault_names(record.made)).items())),
        "faults_made": len(record.made),
        "impossible": record.impossible,
        "requests_hit_by_the_proxy": record.hits,
        "rate_before_a_fault_min": round(min(rates), 1) if rates else None,
        "recovery_s": {
            "count": len(record.recoveries_s),
            "median": _rounded(statistics.median(record.recoveries_s)) if record.recoveries_s else None,
            "max": _rounded(max(record.recoveries_s)) if record.recoveries_s else None,
            "goal": RECOVERY_GOAL_S,
        },
        "failed_during_planned_moves": record.planned_failures,
        "violations": len(record.violations),
        "lost": len(record.lost),
        "unreadable": len(record.unreadable),
        "exits": record.exits,
        "stack_traces": record.traces,
        "found_after_s": _rounded(record.found_after_s),
        "made": [
            {
                "kind": made.kind,
                "at_s": round(made.begun_s, 1),
                "seconds": round(made.seconds, 1),
                "rate_before": round(made.rate, 1),
                "failed": made.failed,
            }
            for made in record.made
        ],
    }


def verdict(record: Record) -> str:
    """``passed``, ``failed`` or ``INVALID``."""
    if record.wrong:
        return "failed"
    return "INVALID" if record.invalid or not record.made else "passed"


def table(record: Record) -> str:
    """The same for a person."""
    told = figures(record)
    recovery = told["recovery_s"]
    if recovery["count"]:
        recovered = (
            f"{recovery['median']} s median, {recovery['max']} s at most in {recovery['count']} kills "
            f"(goal: under {RECOVERY_GOAL_S:.0f} s)"
        )
    else:
        recovered = "no worker was killed without a fault beside it"
    rows = [
        ("operations", f"{told['operations']} in {told['seconds']} s"),
        ("outcomes", _listed(told["outcomes"])),
        ("answers", _listed(told["answers"])),
        ("faults", f"{told['faults_made']}: {_listed(told['faults'])}"),
        ("requests hit by the proxy", _listed(told["requests_hit_by_the_proxy"])),
        ("not possible here", "; ".join(record.impossible)),
        ("operations/s before a fault", f"{told['rate_before_a_fault_min']} at least (bar: {RATE_MIN:.0f})"),
        ("every sampled key answers after a kill", recovered),
        ("failed during planned moves", str(told["failed_during_planned_moves"])),
        ("violations", str(told["violations"])),
        ("lost acknowledgements", str(told["lost"])),
        ("logs with a stack trace", ", ".join(record.traces)),
        ("bug found after", "" if record.found_after_s is None else f"{record.found_after_s:.1f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {value}" for name, value in rows if value]
    lines += ["", *(f"wrong: {reason}" for reason in record.wrong)]
    if record.invalid:
        lines.append(f"INVALID: {record.invalid}")
    lines.append(f"{told['verdict']} (seed {record.options.seed}, {record.options.store})")
    return "\n".join(lines)


def write_evidence(record: Record, folder: Path) -> None:
    """Keep what was found, and all that clients saw, beside the logs."""
    (folder / "result.json").write_text(json.dumps(figures(record), indent=2) + "\n")
    (folder / "violations.txt").write_text("\n".join([*record.violations, *record.lost, *record.exits, ""]))
    keys = {operation.key for operation in record.history}
    guilty = [key for key in sorted(keys) if any(text.startswith(f"{key}:") for text in record.violations)]
    with (folder / "history.txt").open("w") as file:
        for operation in record.history:
            if not guilty or operation.key in guilty or operation.key in record.lost:
                file.write(f"{operation}\n")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
