"""Rows and tables of a benchmark."""

from typing import Any

import numpy as np

from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation.speed.ahead import ARITHMETIC, LAUNCH, TRAFFIC, Counts
from jax_kdpr.evaluation.speed.cases import Case
from jax_kdpr.evaluation.speed.counts import Limits
from jax_kdpr.evaluation.speed.timing import Timing

Row = dict[str, Any]


def row(
    case: Case,
    timing: Timing | None,
    limits: Limits | None,
    facts: Row,
    *,
    peak_bytes: int | None = None,
) -> Row:
    """Returns all that is known of one case, without times if it was not timed.

    Times are per batch or per step, in ms, and memory is in MB (10^6 bytes). `of_limit` is the
    shortest time that the device's measured limits allow, over the time taken. `peak_bytes` is the
    peak memory of this process, if the device reports it.
    """
    made: Row = {
        "case": case.name,
        "compile_seconds": _digits(case.compile_seconds),
        **({} if case.memory_bytes is None else {"memory_mb": _digits(case.memory_bytes / 1e6)}),
        "gflop": _digits(case.work.flops / 1e9),
        "gbyte": _digits(case.work.bytes / 1e9),
    }
    if timing is not None and limits is not None:
        low, high = timing.quartiles
        made |= {
            "median_ms": _digits(1e3 * timing.median),
            "low_ms": _digits(1e3 * low),
            "high_ms": _digits(1e3 * high),
            "least_ms": _digits(1e3 * float(timing.seconds.min())),
            "calls": len(timing.seconds),
            # This is the peak of all cases together; --only selects a single one.
            "process_peak_mb": None if peak_bytes is None else _digits(peak_bytes / 1e6),
            "of_limit": _digits(limits.seconds(case.work) / timing.median),
            "limit_gflops": _digits(limits.flops / 1e9),
            "limit_gbytes": _digits(limits.bytes / 1e9),
        }
    return made | facts


def counted_row(
    name: str, counts: Counts, compile_seconds: float, memory_bytes: int, facts: Row
) -> Row:
    """Returns what was counted in one case's program for a GPU that is not present."""
    return {
        "case": name,
        "kernels": counts.kernels,
        "kernels_in_loops": counts.in_loops,
        "gbyte": _digits(counts.bytes / 1e9),
        "gbyte_in_loops": _digits(counts.bytes_in_loops / 1e9),
        "memory_mb": _digits(memory_bytes / 1e6),
        "loops": list(counts.trips),
        "windows": sorted(set(counts.convolutions)),
        "modelled_ms": _digits(1e3 * counts.seconds),
        "compile_seconds": _digits(compile_seconds),
    } | facts


def counted_table(rows: list[Row]) -> str:
    """Lays out the cases of one config, compiled for a GPU that is not present."""
    header = ["case", "kernels", "in loops", "GB", "in loops", "memory (MB)", "loops"]
    header += ["modelled (ms)", "compile (s)"]
    cells = [
        [
            r["case"],
            f"{r['kernels']:,}",
            f"{r['kernels_in_loops']:,}",
            f"{r['gbyte']:.2f}",
            f"{r['gbyte_in_loops']:.2f}",
            f"{r['memory_mb']:,.0f}",
            " + ".join("?" if trips is None else str(trips) for trips in r["loops"]),
            f"{r['modelled_ms']:.2f}",
            f"{r['compile_seconds']:.0f}",
        ]
        for r in rows
    ]
    r = rows[0]
    where = r["provenance"]
    note = (
        f"Compiled for one {r['target']} that was not there: nothing has run. {_sizes(r)}, network "
        f"{r['precision']}; jax {where['versions']['jax']}, commit {where['commit']}, "
        f"{where['time']}. GB are what the kernels read and write; a loop counts as often as it "
        "runs. Memory is arguments, results and temporaries, without cuFFT's own. The "
        f"modelled time is a guess from these counts, good to 40 %: {1e6 * LAUNCH:.1f} us a kernel "
        f"at least, {TRAFFIC / 1e12:.1f} TB/s, and in convolutions "
        f"{ARITHMETIC[r['precision']] / 1e12:.0f} TFLOP/s."
    )
    return f"{markdown_table(header, cells)}\n\n{note}"


def table(rows: list[Row]) -> str:
    """Lays out the cases of one config, with the share of each part in its inference."""
    times = {r["case"]: r["median_ms"] for r in rows if "median_ms" in r}
    header = ["case", "ms", "quartiles", "share", "of the limit", "memory (MB)", "GFLOP", "GB"]
    header += ["compile (s)"]
    cells = []
    for r in rows:
        whole = times.get(_whole_of(r["case"]))
        share = f"{100 * r['median_ms'] / whole:.0f} %" if whole and "median_ms" in r else ""
        cells.append(
            [
                r["case"],
                *_timed(r),
                share,
                f"{100 * r['of_limit']:.0f} %" if "of_limit" in r else "",
                f"{r['memory_mb']:,.0f}" if "memory_mb" in r else "",
                f"{r['gflop']:.2f}",
                f"{r['gbyte']:.3f}",
                f"{r['compile_seconds']:.1f}",
            ]
        )
    note = _conditions(rows[0]) + (
        " Times are per batch or step: median and quartiles. Share: of the inference that a part "
        "belongs to. Memory: arguments, results and temporaries of the program. GFLOP and GB are "
        "counted; the limit is the shortest time for them at the device's measured rates"
    )
    if "limit_gflops" in rows[0]:
        note += (
            f" ({rows[0]['limit_gflops']:,.0f} GFLOP/s, {rows[0]['limit_gbytes']:,.0f} GB/s from "
            "main memory: above 100 %, the data stayed in the cache)"
        )
    return f"{markdown_table(header, cells)}\n\n{note}."


def comparison_table(rows: list[Row]) -> str:
    """Lays out our times beside PyTorch's."""
    header = ["case", "ms", "quartiles", "PyTorch (ms)", "PyTorch / ours", "quartiles"]
    cells = [
        [
            r["case"],
            *_timed(r),
            f"{r['torch_ms']:.1f}",
            f"{r['ratio']:.2f}",
            f"{r['ratio_low']:.2f} to {r['ratio_high']:.2f}",
        ]
        for r in rows
    ]
    worst = max(rows[0]["agreement"].values())
    note = (
        f"{_conditions(rows[0])} Against {rows[0]['against']}, in turn, call by call; a ratio "
        f"above 1 says that ours is faster. CDPs, estimates and images agree to {worst:.0e} of "
        "their largest value."
    )
    return f"{markdown_table(header, cells)}\n\n{note}"


def sweep_table(name: str, rows: list[Row]) -> str:
    """Lays out time and memory over one quantity, and the slope of a line through the times."""
    values = list(dict.fromkeys(r[name] for r in rows))
    header = ["case", *[f"{name} = {value}" for value in values], f"slope (ms per {name})"]
    cells = []
    for case in dict.fromkeys(r["case"] for r in rows):
        of_case = [r for r in rows if r["case"] == case]
        slope = ""
        if len(values) > 1 and all("median_ms" in r for r in of_case):
            line = np.polyfit(values, [r["median_ms"] for r in of_case], 1)
            slope = f"{line[0]:.3g}"
        entries = [
            (f"{r['median_ms']:.1f} ms, " if "median_ms" in r else "") + f"{r['memory_mb']:,.0f} MB"
            for r in of_case
        ]
        cells.append([case, *entries, slope])
    return f"{markdown_table(header, cells)}\n\n{_conditions(rows[0], leave_out=name)}"


def _digits(value: float) -> float:
    """Rounds to four significant digits."""
    return float(f"{value:.4g}")


def _whole_of(case: str) -> str:
    """Returns the inference that a case is a part of; empty for any other case."""
    if case == "U-Net":
        return "inference, student"
    before, part, role = case.partition("spectral initialisation")
    return f"inference{role}" if part and not before else ""


def _timed(r: Row) -> list[str]:
    if "median_ms" not in r:
        return ["", ""]
    return [f"{r['median_ms']:.1f}", f"{r['low_ms']:.1f} to {r['high_ms']:.1f}"]


def _conditions(r: Row, leave_out: str = "") -> str:
    where = r["provenance"]
    calls = f"; {r['calls']} calls" if "calls" in r else ""
    return (
        f"{_sizes(r, leave_out)}, network {r['precision']}; {r['devices']} x "
        f"{where['devices'][0]} of {where['cpu_count']} core(s), jax {where['versions']['jax']}, "
        f"commit {where['commit']}, {where['time']}{calls}."
    )


def _sizes(r: Row, leave_out: str = "") -> str:
    facts = {
        "size": f"{r['size']} x {r['size']} pixels",
        "batch": f"batch {r['batch']}",
        "snapshots": f"student L = {r['snapshots']}, teacher L = {r['teacher_snapshots']}",
        "iterations": f"T = {r['iterations']}",
    }
    return ", ".join(text for name, text in facts.items() if name != leave_out)
