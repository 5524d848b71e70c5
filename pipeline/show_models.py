"""Show backtests and trainings: how good each target is on dates that its model had not seen, with intervals, beside the rules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from features.catalogue import how_many
from models.bands import odds_range
from models.intervals import Interval
from pipeline.show import plain_table
from pipeline.wording import from_to, number, unit, with_interval

if TYPE_CHECKING:
    from models.personas import Personas
    from models.report import Report
    from pipeline.backtest import Tested
    from pipeline.train import Training

_SHOWN_SLICES = 3
_FEW = 100
# Odds that moved by more leave hardly anything out of what is stated.
_FAR = 3.0


def tell_backtest(tested: Sequence["Tested"]) -> dict[str, Any]:
    """Gather what a backtest found, in plain values: everything that is printed, and the measures by origin, bands and slices."""
    return {"targets": [_told(made) for made in tested]}


def tell_training(training: "Training") -> dict[str, Any]:
    """Gather what came of a training in plain values: the backtest of every target, its version, and what the gates said."""
    return {
        "run_id": training.run_id,
        "targets": [
            {
                **_told(made.tested),
                "version": made.version,
                "method": made.bundle.method,
                "is_champion": made.is_champion,
                "gates": [asdict(verdict) for verdict in made.verdicts],
            }
            for made in training.trained
        ],
        "personas": _told_personas(training.personas),
        "persona_changes": [] if training.matching is None else [asdict(change) for change in training.matching.changes],
        "persona_kept": None if training.matching is None else training.matching.kept,
    }


def print_backtest(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_backtest` gathered: a line per target, then for each its ladder, origins, bands, and where it is wrong."""
    _print_summary(told, console, currency)
    for row in told["targets"]:
        _print_ladder(row, console)
        _print_origins(row, console, currency)
        if row["bands"]:
            _print_bands(row, console, currency)
        _print_slices(row, console, currency, most=None)


def print_training(told: Mapping[str, Any], console: Console, *, currency: str) -> None:
    """Print what `tell_training` gathered: a line per target, where each is most wrong, and who is in charge now."""
    _print_summary(told, console, currency)
    table = plain_table("Models")
    for name in ("target", "model", "in charge", "why"):
        table.add_column(name)
    for row in told["targets"]:
        said = [gate["said"] for gate in row["gates"] if not gate["passed"]] or [row["gates"][0]["said"]]
        version = f"v{row['version']} {row['method']}"
        table.add_row(row["target"], version, "yes" if row["is_champion"] else "no, stays a challenger", "; ".join(said))
    console.print(table)
    _print_personas(told, console)
    console.print(
        f"MLflow run {told['run_id']}: model cards, figures and every measure; look with `beforehand ui`, or `beforehand backtest` "
        "for the tests in full",
        highlight=False,
        soft_wrap=True,
    )


def _told_personas(personas: "Personas") -> list[dict[str, Any]]:
    found = zip(personas.ids, personas.names, personas.descriptions, personas.shares, strict=True)
    return [{"persona": number, "name": name, "description": line, "share": share} for number, name, line, share in found]


def _print_personas(told: Mapping[str, Any], console: Console) -> None:
    title = "Personas" if told["persona_kept"] is None else f"Personas: {told['persona_kept']:.1%} of the users keep theirs"
    table = plain_table(title)
    for name in ("persona", "name", "users", "what sets it apart"):
        table.add_column(name, justify="right" if name in ("persona", "users") else "left")
    for row in told["personas"]:
        table.add_row(str(row["persona"]), row["name"], f"{row['share']:.1%}", row["description"])
    console.print(table)


def _told(made: "Tested") -> dict[str, Any]:
    report = made.report
    return {
        "target": made.target.name,
        "meaning": made.target.meaning,
        "is_amount": made.target.is_amount,
        "rung": made.backtest.rung,
        "recipe": {
            "features": len(made.recipe.features),
            "within_dates": made.recipe.within_dates,
            "rounds": made.recipe.rounds,
            "season": bool(made.season.levels),
            **made.recipe.settings,
        },
        "calibrator": asdict(made.backtest.calibrator),
        "measure": report.measure,
        "rows": report.rows,
        "positives": report.positives,
        "test_origins": [origin.date().isoformat() for origin in report.by_origin],
        "measures": _plain(report.measures),
        "pooled": _plain(report.pooled),
        "baseline": report.baseline,
        "baselines": {rung: _plain(found) for rung, found in report.baselines.items()},
        "ladder": _plain(report.ladder),
        "ahead": None if report.ahead is None else asdict(report.ahead),
        "unseen_users": None if report.memory is None else asdict(report.memory),
        "over_origins": {name: list(bounds) for name, bounds in report.over_origins.items()},
        "by_origin": {origin.date().isoformat(): _at_origin(report, origin) for origin in report.by_origin},
        "bands": [asdict(band) for band in report.bands],
        "bands_as_stated": report.coverage if report.bands else None,
        "odds_moved": odds_range(report.bands),
        "slices": [asdict(part) for part in report.slices],
        "warnings": list(report.warnings),
        "champion": made.incomparable,
    }


def _at_origin(report: "Report", origin: datetime) -> dict[str, Any]:
    counts = {name: int(report.by_origin[origin][name]) for name in ("users", "positives") if name in report.by_origin[origin]}
    rules = {rung: _plain(found[origin]) for rung, found in report.rules_at_origins.items()}
    return {**counts, "measures": _plain(report.at_origins[origin]), "baselines": rules}


def _plain(found: Mapping[Any, Interval]) -> dict[str, dict[str, float]]:
    return {str(name): asdict(interval) for name, interval in found.items()}


def _print_summary(told: Mapping[str, Any], console: Console, currency: str) -> None:
    table = plain_table(
        "Means over test origins that each model had not seen, with 95 % intervals over users; below, the lowest and highest origin"
    )
    columns = ("target", "tested on", "AUC", "average precision", "ahead of the rule", "calibration error", "absolute error", "by")
    for name in columns:
        table.add_column(name, justify="left" if name in ("target", "by") else "right")
    for row in told["targets"]:
        pooled = row["pooled"]
        rows = f"{row['rows']:,} rows, {len(row['test_origins'])} origins"
        if row["positives"] is not None:
            rows += f"\n{row['positives']:,} positive"
        ahead = "is the rule" if row["rung"] == row["baseline"] else "–"
        if row["ahead"] is not None:
            ahead = _said(row["ahead"], sign=True)
        table.add_row(
            row["target"],
            rows,
            _with_origins(row, "auc", currency),
            _with_origins(row, "average_precision", currency),
            f"{ahead}\n{row['baseline']}",
            "–" if row["is_amount"] else _said(pooled.get("expected_calibration_error")),
            _with_origins(row, "mean_absolute_error", currency),
            row["rung"],
            end_section=True,
        )
    console.print(table)
    for row in told["targets"]:
        for line in _warnings(row):
            console.print(f"  {row['target']}: {line}", highlight=False, soft_wrap=True)


def _warnings(row: Mapping[str, Any]) -> Iterator[str]:
    if row["positives"] is not None and min(row["positives"], row["rows"] - row["positives"]) < _FEW:
        some = row["positives"]
        said = "nothing could be compared" if some in (0, row["rows"]) else "the intervals are wide"
        yield f"small: {how_many(some, 'positive')} in {row['rows']:,} test rows, so {said}"
    if row["ahead"] is not None and row["ahead"]["low"] <= 0 <= row["ahead"]["high"]:
        yield f"not clearly ahead of the rule {row['baseline']}: the interval of the difference holds zero"
    if row["champion"] is not None:
        yield f"the champion could not be tested beside it: {row['champion']}"
    if row["unseen_users"] is not None:
        moved = _said(row["unseen_users"], sign=True)
        yield f"{row['measure'].replace('_', ' ')} on users whom the model never saw: {moved} (it learns from fewer users there)"
    yield from row["warnings"]


def _print_ladder(row: Mapping[str, Any], console: Console) -> None:
    table = plain_table(f"{row['target']}: the ladder, by {row['measure'].replace('_', ' ')}")
    for name in ("rung", "mean over origins", ""):
        table.add_column(name, justify="right" if name == "mean over origins" else "left")
    for rung, found in row["ladder"].items():
        table.add_row(rung, _said(found), "chosen" if rung == row["rung"] else "")
    console.print(table)


def _print_origins(row: Mapping[str, Any], console: Console, currency: str) -> None:
    names = (
        *("poisson_deviance", "mean_absolute_error", "root_mean_squared_error", "rmsle"),
        *("decile_total_error", "gini", "total_error"),
    ) if row["is_amount"] else (
        *("auc", "average_precision", "log_loss", "brier", "expected_calibration_error", "calibration_slope"),
        *("lift_10pct", "captured_10pct", "precision_at_capacity", "expected_profit", "base_rate"),
    )  # fmt: skip
    origins = row["by_origin"].values()
    shown = [name for name in names if any(name in found["measures"] for found in origins)]
    rule = row["baseline"] if row["baseline"] != row["rung"] else None
    table = plain_table(f"{row['target']}: by origin" + (f", beside the rule {rule}" if rule else ""))
    table.add_column("measure")
    for origin in row["by_origin"]:
        table.add_column(origin, justify="right")
    table.add_row("rows", *(f"{found['users']:,.0f}" for found in origins))
    if row["positives"] is not None:
        table.add_row("positives", *(f"{found['positives']:,.0f}" for found in origins))
    for name in shown:
        cells = [_of_measure(name, found["measures"], currency) for found in origins]
        if rule is not None and name != "base_rate":
            beside = [_of_measure(name, found["baselines"][rule], currency) for found in origins]
            cells = [f"{own}\n{rule_said}" for own, rule_said in zip(cells, beside, strict=True)]
        table.add_row(name.replace("_", " "), *cells, end_section=True)
    console.print(table)


def _print_bands(row: Mapping[str, Any], console: Console, currency: str) -> None:
    scale = currency if row["is_amount"] else "%"
    table = plain_table(f"{row['target']}: what scores said and what happened; {row['bands_as_stated']:.0%} of the bands as stated")
    for name in ("scores", "rows", "mean score", "stated", "happened", "its interval"):
        table.add_column(name, justify="right")
    for band in row["bands"]:
        table.add_row(
            from_to(band["low"], band["high"], scale),
            f"{band['users']:,}",
            number(band["mean_score"], scale),
            from_to(band["stated_low"], band["stated_high"], scale),
            number(band["rate"], scale),
            from_to(band["rate_low"], band["rate_high"], scale),
        )
    console.print(table)
    low, high = row["odds_moved"]
    if high > 1:
        little = "; so far that what is stated says little" if high > _FAR else ""
        console.print(f"stated: chance, and odds that moved between dates by factors of {low:.2f} to {high:.2f} (95 %){little}\n")


def _print_slices(row: Mapping[str, Any], console: Console, currency: str, *, most: int | None = _SHOWN_SLICES) -> None:
    if not row["slices"]:
        return
    table = plain_table(f"{row['target']}: for whom")
    is_rate = not row["is_amount"]
    measure = "average_precision" if is_rate else "mean_absolute_error"
    for name in ("users with", "", "rows", "mean score", "happened", measure.replace("_", " ")):
        table.add_column(name, justify="left" if name in ("users with", "") else "right")
    for part in row["slices"][:most]:
        mean = f"{part['mean_score']:.1%}" if is_rate else f"{currency}{part['mean_score']:,.2f}"
        happened = _share(part["rate"]) if is_rate else _said(part["rate"], currency)
        found = _said(part["measures"].get(measure), None if is_rate else currency)
        table.add_row(part["column"].replace("_", " "), part["value"], f"{part['users']:,}", mean, happened, found)
    console.print(table)


def _with_origins(row: Mapping[str, Any], name: str, currency: str) -> str:
    said = _of_measure(name, row["measures"], currency)
    if name not in row["over_origins"]:
        return said
    low, high = row["over_origins"][name]
    return f"{said}\n{from_to(low, high, unit(name, currency))}"


def _of_measure(name: str, found: Mapping[str, Mapping[str, float]], currency: str) -> str:
    return with_interval(Interval(**found[name]) if name in found else None, unit(name, currency))


def _said(found: Mapping[str, float] | None, currency: str | None = None, *, sign: bool = False) -> str:
    if found is None:
        return "–"
    plus = "+" if sign else ""
    if currency is not None:
        before = ("-" if found["value"] < 0 else plus) + currency
        return f"{before}{abs(found['value']):,.2f} ({found['low']:{plus},.2f} to {found['high']:{plus},.2f})"
    return f"{found['value']:{plus}.3f} ({found['low']:{plus}.3f} to {found['high']:{plus}.3f})"


def _share(found: Mapping[str, float]) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
