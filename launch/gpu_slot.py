"""What gpu_slot.sh does: a plan of stages, each a process with a time limit of its own.

    gpu_slot.py check [STAGE ...] | train [EPOCHS [SEED]]      the plan, or some of its stages
    gpu_slot.py stage NAME [ARGUMENT]                          one of them, in this process

A stage appends rows to one file of JSON lines in $OUT as soon as it has them. A stage that fails or
takes too long leaves a row there too, and the next one begins. KDPR_SLOT_SECONDS says how long the
call may take.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

OUT = Path(os.environ.get("OUT", "out"))
RUNS = Path(os.environ.get("KDPR_WORK", "work")) / "runs"
EARLIER = Path(os.environ.get("KDPR_EARLIER", "earlier"))
LIMITS = {"check": 240, "train": 540}  # seconds that a call may take
INSTALL = 10  # of these seconds, before the first stage
BRING = 15  # of these seconds, to bring the last run to $OUT
EPOCHS = 9  # as many as are likely to fit into the first call
STEPS, TORCH_STEPS, CALLS = 20, 5, 10  # steps in a call, ours and PyTorch's, and timed calls
PROFILED = "step, student, cached targets"
# PyTorch takes a minute or so to compile one: these two are a recovery and a training step.
COMPILED = ("inference, student", PROFILED)
# {run: (a file of configs/paper, further options)}: the paper's systems, then ours.
RUNS_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "teacher": ("teacher", {}),
    "student": ("student", {"distill.teacher": RUNS / "teacher"}),
    "random": ("random", {}),
    "e2e": ("e2e", {}),
    "consistent": ("e2e", {"spectral.consistency_steps": 10}),
    "gated": ("e2e", {"spectral.consistency_steps": 10, "net.refine_steps": 10}),
}
KERNELS = 60  # how many kernels of a profile are told: those that take the most time
LARGEST = 15 * 2**20  # the most bytes of a file that comes back
# With KDPR_SLOT_SIZE there is only a rehearsal: the same programs with little work.
SMALL: dict[str, Any] = {
    "data.size": int(os.environ.get("KDPR_SLOT_SIZE", 0)),
    "data.train_images": 64,
    "data.validation_images": 32,
    "data.test_images": 32,
    "net.widths": (8, 16),
    "spectral.iterations": 5,
    "train.batch_size": 16,
    "train.devices": 1,  # as on a GPU
}
SMALL = SMALL if SMALL["data.size"] else {}
PATIENCE = 4 if SMALL else 1  # factor on the limits: two cores compile more slowly than sixteen
TEACHER = 3 if SMALL else 9  # shots


class Stage(NamedTuple):
    """One stage, which is one process."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds
    saving: float = 1.0  # of these seconds, the last ones, in which it is to end by itself
    after: float = 0.0  # seconds of the call that it leaves to other stages
    least: float = 0.0  # it does not begin with fewer seconds than this
    environment: dict[str, str] = {}  # noqa: RUF012


Lane = list[Stage]  # stages that run one after the other


def plan(what: str, epochs: int = EPOCHS, seed: int = 0) -> list[list[Lane]]:
    """Returns groups of lanes: groups run one after the other, the lanes of one side by side."""
    if what == "check":
        tests = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        }
        if not SMALL:
            tests["JAX_PLATFORMS"] = "cuda,cpu"  # tests/conftest.py then sets nothing for a CPU
        to_the_bit = tests | {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
        share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.3"}  # others take memory at the same time
        # Together they take longer than a call may: the last ones wait for another call.
        return [
            # Nothing is timed here, so all may run at once.
            [
                [_stage("machine", limit=12), _stage("agreement", limit=60, environment=share)],
                [_stage("tests", "numbers", limit=75, environment=tests)],
                [_stage("tests", "resume", limit=75, environment=to_the_bit)],
            ],
            [[_stage("speed", "tf32", limit=120, environment=share)]],
            [[_stage("speed", "bfloat16", limit=80, environment=share)]],
            [[_stage("speed", "compiled", limit=150, environment=share)]],
        ]
    on_cpu = {"JAX_PLATFORMS": "cpu"}

    def runs(*names: str) -> Lane:
        lane = []
        for name in names:
            lane.append(_training(name, epochs, seed))
            lane.append(_stage("bring", name, limit=BRING, environment=on_cpu))
        return lane

    # Runs go side by side: each compiles for half a minute, which leaves the GPU to the other.
    return [
        [[_stage("earlier", str(epochs), limit=25, environment=on_cpu)]],
        [runs("teacher", "student", "random"), runs("gated", "e2e", "consistent")],
    ]


def only(groups: list[list[Lane]], names: tuple[str, ...]) -> list[list[Lane]]:
    """Returns the stages of these names, or all stages if no name is given."""
    known = [stage.name for lanes in groups for lane in lanes for stage in lane]
    if unknown := set(names) - set(known):
        sys.exit(f"error: expected stages of {known}, got {sorted(unknown)}")
    wanted = names or known
    kept = [[[stage for stage in lane if stage.name in wanted] for lane in g] for g in groups]
    return [lanes for group in kept if (lanes := [lane for lane in group if lane])]


def _stage(*words: str, limit: float, environment: dict[str, str] | None = None) -> Stage:
    command = (sys.executable, __file__, "stage", *words)
    return Stage(" ".join(words), command, limit, least=limit / 2, environment=environment or {})


def _training(name: str, epochs: int, seed: int) -> Stage:
    file, own = RUNS_OF[name]
    config = {"train.epochs": epochs, "seed": seed, "data.validation_images": 3000, **own, **SMALL}
    if name == "teacher":
        config["masks.snapshots"] = TEACHER
    command = [sys.executable, "-m", "jax_kdpr.train", "--config", f"configs/paper/{file}.py"]
    command += ["--workdir", str(RUNS / name)]
    for path, value in config.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        command.append(f"--config.{path}={text}")
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}
    most = LIMITS["train"]  # all the time of the call, less what `bring` takes
    return Stage(f"train {name}", tuple(command), most, 10, after=BRING, environment=share)


def run(groups: list[list[Lane]], rows: Path, seconds: float = math.inf) -> bool:
    """Runs the stages of a plan in at most `seconds`; returns whether all ended well."""
    fine = []
    end = time.monotonic() + seconds

    def run_lane(lane: Lane) -> None:
        for stage in lane:
            saving, after = PATIENCE * stage.saving, PATIENCE * stage.after
            limit = min(PATIENCE * stage.limit, end - time.monotonic() - after)
            if limit < max(2 * saving, PATIENCE * stage.least):
                note(rows, {"stage": stage.name, "left": "the call has no time for it"})
                fine.append(False)
            else:
                fine.append(run_stage(stage._replace(limit=limit, saving=saving), rows))

    for lanes in groups:
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(run_lane, lanes))
    return all(fine)


def run_stage(stage: Stage, rows: Path) -> bool:
    """Runs one stage within its limit, and adds its row; returns whether it ended well."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:  # its own file: another lane may be writing too
        process = subprocess.Popen(
            stage.command,
            env=os.environ | stage.environment | {"KDPR_ROWS": str(rows)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for waiting, end in (
            (stage.limit - stage.saving, process.terminate),
            (stage.saving, process.kill),
        ):
            with suppress(subprocess.TimeoutExpired):
                process.wait(waiting)
                break
            end()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the processes that it started
        code = process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    seconds = round(time.monotonic() - started, 1)
    with rows.with_name(f"{rows.stem}-log.txt").open("a") as log:
        log.write(f"== {stage.name}\n{text}\n")
    said = text.splitlines()[-3:]
    row = {"stage": stage.name, "code": code, "seconds": seconds, "limit": round(stage.limit, 1)}
    note(rows, row | {"said": said} if code else row)
    print(f"{stage.name}: {'done' if not code else f'code {code}'}, {seconds} s", flush=True)
    return not code


def note(rows: Path, row: dict[str, Any]) -> None:
    """Adds a row."""
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\n")


# Below are the stages. They import what they need, so that the plan does not wait for it.


def tell(**row: Any) -> None:
    """Adds a row of a stage."""
    note(Path(os.environ["KDPR_ROWS"]), row)


def paper_config(precision: str) -> Any:
    """Returns the config of the paper's student, or of the small one of a rehearsal."""
    from jax_kdpr.config import presets

    config = presets.student(presets.paper())
    config.net.precision = precision
    config.train.devices = 1
    for path, value in SMALL.items():
        section, name = path.split(".")
        setattr(getattr(config, section), name, value)
    return config


def machine() -> None:
    """Tells GPU, driver and versions."""
    from jax_kdpr.core.provenance import provenance

    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    try:
        card = subprocess.check_output(["nvidia-smi", query, "--format=csv,noheader"], text=True)
    except OSError as missing:
        card = str(missing)
    tell(card=card.strip(), provenance=provenance())


def agreement() -> None:
    """Compares the default device with the CPU."""
    from jax_kdpr.evaluation.speed.agreement import AGREEMENT, differences

    apart = {}
    for what, difference in differences(paper_config("float32")):
        apart[what] = difference
        tell(agreement=what, difference=difference, fine=difference < AGREEMENT)
    if not all(difference < AGREEMENT for difference in apart.values()):
        sys.exit(f"apart by more than {AGREEMENT:g}: {apart}")


def speed(what: str) -> None:
    """Times every step and inference, by `what`.

    "tf32" does so in turn with eager PyTorch, and makes a profile; "bfloat16" times ours alone.
    "compiled" times a few of them in TF32, in turn with compiled PyTorch.
    """
    from jax_kdpr.core import runtime
    from jax_kdpr.core.errors import InputError
    from jax_kdpr.evaluation.speed import against_torch, report, session
    from jax_kdpr.evaluation.speed.counts import measure_limits

    time_in_turn = against_torch.time_in_turn
    config = paper_config("bfloat16" if what == "bfloat16" else "tf32")
    config.train.scan_steps = 0 if runtime.on_cpu() else STEPS
    calls = 2 if SMALL else CALLS
    wanted = session.Wanted(calls=calls, teacher_snapshots=TEACHER)
    names = COMPILED if what == "compiled" else ("step", "inference")
    plans = [plan for plan in session.plans(config, wanted) if plan.name.startswith(names)]
    mode = {"tf32": "torch", "compiled": "torch-compile"}.get(what)
    with ThreadPoolExecutor() as pool:  # compiling takes a core or two each
        building = {plan.name: pool.submit(plan.compile) for plan in plans}
        starting = pool.submit(against_torch.start, config, wanted, mode) if mode else None
    failed = {name: future.exception() for name, future in building.items()}
    worker = None
    if mode and starting is not None:
        failed[mode] = starting.exception()
        worker = None if failed[mode] else starting.result()
    for name, failure in failed.items():
        if failure:
            tell(failed=name, said=str(failure)[:500])
    made = [future.result() for name, future in building.items() if not failed[name]]
    built = sorted(made, key=lambda case: case.memory_bytes)
    limits, facts = measure_limits(), session.facts(config, wanted)
    for case in built:
        try:
            timing, theirs = time_in_turn(case, worker, calls=calls, steps=TORCH_STEPS)
        except InputError as failure:  # PyTorch's; ours are timed all the same
            tell(failed=f"{mode}, {case.name}", said=str(failure)[:500])
            worker = None
            timing, theirs = time_in_turn(case, None, calls=calls, steps=TORCH_STEPS)
        row = report.row(case, timing, limits, facts)
        tell(**row, **theirs, against=mode if theirs else None)
    for case in built:
        if what == "tf32" and case.name == PROFILED:
            profile(case.name, case.call, case.units)
    if worker is not None:
        worker.close()


def profile(name: str, call: Callable[[], Any], steps: int) -> None:
    """Profiles one call of a case, kernel by kernel."""
    import gzip

    import jax

    folder = tempfile.mkdtemp()
    with jax.profiler.trace(folder):
        call()
    (trace,) = Path(folder).rglob("*.xplane.pb")
    packed = gzip.compress(trace.read_bytes())
    if len(packed) < LARGEST:
        (OUT / "profile.xplane.pb.gz").write_bytes(packed)
    spent: dict[str, list[float]] = {}
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        if plane.name.startswith("/device:GPU"):
            for line in plane.lines:
                if line.name.startswith("Stream"):
                    for event in line.events:
                        total = spent.setdefault(event.name, [0.0, 0])
                        total[0] += event.duration_ns / 1e6
                        total[1] += 1
    most = sorted(spent.items(), key=lambda item: -item[1][0])
    tell(
        profile=name,
        steps=steps,
        kernels=sum(count for _, count in spent.values()),
        milliseconds=sum(time for time, _ in spent.values()),
        most=[[kernel, round(ms, 3), count] for kernel, (ms, count) in most[:KERNELS]],
    )


def tests(what: str) -> None:
    """Runs the numerical tests, or the "resume" ones: a run in pieces is the run in one piece.

    Each test has a row.
    """
    import pytest

    class Rows:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.failed:
                said = str(report.longrepr)[-500:] if report.failed else ""
                tell(test=report.nodeid, outcome=report.outcome, said=said)

    # If pytest-benchmark is installed, it warns about -n, and warnings are errors.
    options = ["-p", "no:cacheprovider", "-p", "no:benchmark", "--durations=0"]
    if what == "resume":
        options += ["tests/test_loop.py", "-k", "resuming", "-n", "0"]
    else:
        options += ["-m", "gpu", "-n", "2" if SMALL else "10"]
        # No other files: even their collection may read what is not packed.
        options += [
            str(p) for p in sorted(Path("tests").glob("test_*.py")) if ".gpu" in p.read_text()
        ]
    sys.exit(pytest.main(options, plugins=[Rows()]))


def earlier(epochs: str) -> None:
    """Unpacks the runs of earlier calls, a student only if its teacher needs no more epochs."""
    from jax_kdpr.runs import folder as run_folder
    from jax_kdpr.runs import reduced

    for name in RUNS_OF:
        file = EARLIER / f"{name}.tar.gz"
        if not file.exists():
            continue
        if name == "student" and run_folder.epochs_done(RUNS / "teacher") < int(epochs):
            tell(earlier=name, left="its teacher goes on, and its student then begins anew")
            continue
        reduced.unpack(file, RUNS / name, epochs=int(epochs))
        tell(earlier=name, epochs=run_folder.epochs_done(RUNS / name))


def bring(name: str) -> None:
    """Brings a run's reduced folder to $OUT, and its metrics into the rows."""
    from jax_kdpr.runs import folder as run_folder
    from jax_kdpr.runs import reduced

    if not (RUNS / name / run_folder.RUN_FILE).exists():
        tell(run=name, left="it has not begun")
        return
    file = OUT / f"{name}.tar.gz"
    reduced.pack(RUNS / name, file)
    # Unpacked, its checkpoint is that of a later call: a student records its teacher's digest.
    reduced.unpack(file, RUNS / name)
    tell(run=name, bytes=file.stat().st_size, epochs=run_folder.read_metrics(RUNS / name))


STAGES: dict[str, Callable[..., None]] = {
    stage.__name__: stage for stage in (machine, agreement, speed, tests, earlier, bring)
}


def main(what: str, *words: str) -> int:
    """Runs what the command line asks for."""
    if what == "stage":
        name, *arguments = words
        STAGES[name](*arguments)
        return 0
    if what not in LIMITS:
        sys.exit(f"error: expected {' or '.join(LIMITS)}, got {what!r}")
    seconds = float(os.environ.get("KDPR_SLOT_SECONDS", PATIENCE * LIMITS[what])) - INSTALL
    groups = plan(what, *map(int, words)) if what == "train" else only(plan(what), words)
    return int(not run(groups, OUT / f"{what}.jsonl", seconds))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
