"""What was measured, as a table, a plot and JSON, and whether it clears the bars."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

OURS, BARE, LITELLM = "Flywheel, capture on", "bare ASGI + aiohttp", "LiteLLM proxy"
_SHARE_OF_BARE, _TIMES_LITELLM, _JUDGED_AT = 0.6, 30.0, 32


def write(found: dict[str, Any], folder: Path) -> int:
    """Print, plot and save. Returns 1 when a bar is missed."""
    for row in found["rows"]:
        direct, bare = _row(found, row, "direct"), _row(found, row, BARE)
        for figure in ("p50_ms", "p99_ms"):
            row[f"added_{figure}"] = (
                None if None in (row[figure], direct[figure]) else row[figure] - direct[figure]
            )
        row["of_bare"] = row["per_second"] / bare["per_second"] if bare["per_second"] else None
    found["bars"] = _bars(found)
    folder.mkdir(exist_ok=True)
    (folder / "gateway.json").write_text(json.dumps(found, indent=2) + "\n")
    _plot(found, folder / "gateway.png")
    console = Console(width=120)
    for stream in (False, True):
        console.print(_table(found, stream=stream))
    for name, reason in found["skipped"].items():
        console.print(f"skipped: {name}: {reason}", highlight=False)
    cores = found["cores"]
    console.print(f"cores: gateway {cores['gateway']}, upstream {cores['upstream']}, load {cores['load']}")
    for bar in found["bars"]:
        verdict = "not measured" if bar["value"] is None else f"{bar['value']:.2f}"
        console.print(f"{bar['what']}: {verdict} (bar: {bar['bar']:g})", highlight=False)
    console.print(f"written: {folder / 'gateway.json'}, {folder / 'gateway.png'}", highlight=False)
    return 1 if any(bar["value"] is not None and bar["value"] < bar["bar"] for bar in found["bars"]) else 0


def _row(found: dict[str, Any], like: dict[str, Any], name: str) -> dict[str, Any]:
    keys = ("stream", "at_once")
    rows = (
        row for row in found["rows"] if row["name"] == name and all(row[key] == like[key] for key in keys)
    )
    return next(rows, {"per_second": 0.0, "p50_ms": None, "p99_ms": None})


def _bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    like = {"stream": False, "at_once": _JUDGED_AT}
    ours, bare, litellm = (_row(found, like, name)["per_second"] for name in (OURS, BARE, LITELLM))
    where = f"small JSON at {_JUDGED_AT}, capture on"
    return [
        {
            "what": f"{where}: share of the bare passthrough",
            "bar": _SHARE_OF_BARE,
            "value": ours / bare if bare else None,
        },
        {
            "what": f"{where}: times LiteLLM",
            "bar": _TIMES_LITELLM,
            "value": ours / litellm if litellm else None,
        },
    ]


def _table(found: dict[str, Any], *, stream: bool) -> Table:
    what = "streams of 50 chunks, 5 ms apart" if stream else "small JSON"
    table = Table(title=what, title_justify="left")
    heads = (
        "at once",
        "gateway",
        "per s",
        "of bare",
        "added p50 ms",
        "added p99 ms",
        "CPU µs",
        "beside µs",
        "MiB",
        "errors",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "gateway" else "right")
    rows = [row for row in found["rows"] if row["stream"] == stream]
    for row in sorted(rows, key=lambda row: row["at_once"]):
        table.add_row(
            str(row["at_once"]),
            row["name"],
            f"{row['per_second']:.0f}",
            _number(row["of_bare"], 2),
            _number(row["added_p50_ms"], 2),
            _number(row["added_p99_ms"], 2),
            _number(row["cpu_us"], 0),
            _number(row["beside_us"], 0),
            _number(row["mebibytes"], 0),
            str(row["errors"]),
            end_section=row is rows[-1],
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _plot(found: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the choice of a back end

    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for axis, stream in zip(axes, (False, True), strict=True):
        rows = [row for row in found["rows"] if row["stream"] == stream]
        for name in dict.fromkeys(row["name"] for row in rows):
            points = sorted((row["at_once"], row["per_second"]) for row in rows if row["name"] == name)
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="requests at once", ylabel="answers per second")
        axis.set_title("streams of 50 chunks" if stream else "small JSON")
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
