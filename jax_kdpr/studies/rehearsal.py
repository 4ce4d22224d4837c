"""Rehearses a study: what it would do, how long that takes, and whether it compiles.

The time is counted arithmetic over a measured rate. The rate is that of the runs already finished
in the study's folder. Before the first one, it is a share of the rate that a matrix product
reaches on this device.
"""

from functools import cache

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import shallow
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation.speed.counts import measure_limits, measure_work, spectral_work, unet_work
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.declaration import Study, difference_from_base
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.programs import trace_step
from jax_kdpr.studies.results import training_seconds
from jax_kdpr.training.losses import guides, loss_weights

# On two cores of an AMD EPYC an operation of the FFTs took as long as five of the convolutions.
FFT_COST = 5.0
# Share of a matrix product's rate that whole runs of `configs/cpu` reached on the same machine.
EFFICIENCY = 0.35

Counts = tuple[int, int, int]  # images of training, validation and test


def count_operations(runs: list[PlannedRun]) -> dict[str, float]:
    """Returns the operations of each run, by name; reads, and so checks, their data."""
    counts: dict[str, Counts] = {}
    operations = {}
    for run in runs:
        key = str(shallow(run.config.data))
        if key not in counts:
            dataset = schema.load_data(run.config)
            counts[key] = dataset.train_size, len(dataset.validation), len(dataset.test)
        teacher = run.teacher and run.teacher.config
        operations[run.name] = run_operations(run.config, teacher, counts[key])
    return operations


def run_operations(config: Config, teacher: Config | None, images: Counts) -> float:
    """Returns the operations of one training, its validations and its test.

    Operations of FFTs are weighted by `FFT_COST`. A gradient counts twice its forward pass, and a
    teacher's targets count as made once.
    """
    train, validation, test = images
    optics, network = _pass_operations(config)
    gradient = network * 3 + (optics if config.regime == "random" else optics * 3)
    per_epoch = gradient * train + (optics + network) * validation
    total = per_epoch * config.train.epochs + (optics + network) * test
    if teacher is not None and guides(loss_weights(config)):
        total += sum(_pass_operations(teacher)) * train
    return total


def _pass_operations(config: Config) -> tuple[float, float]:
    """Returns the operations (optics, network) of one scene, forward."""
    shape = {
        "size": config.data.size,
        "snapshots": config.masks.snapshots,
        "oversample": config.masks.oversample,
    }
    # A step of error reduction is one iteration without the filter.
    consistency = config.spectral.consistency_steps + config.net.refine_steps
    iterations = config.spectral.iterations + consistency
    optics = spectral_work(**shape, iterations=iterations) + measure_work(**shape)
    network = unet_work(
        size=config.data.size, widths=config.net.widths, channels=config.scene.channels
    )
    return FFT_COST * optics.flops, network.flops


@cache  # it takes a second or more
def expected_rate() -> float:
    """Returns how many operations a second this device can be expected to do."""
    return EFFICIENCY * measure_limits(seconds=0.5).flops


class Remaining:
    """Estimates the time that runs still take; it reads each finished run only once."""

    def __init__(self, runs: list[PlannedRun], operations: dict[str, float]):
        self._runs, self._operations = runs, operations
        self._seconds: dict[str, float] = {}  # of the runs that are trained
        self._done: set[str] = set()

    def minutes(self) -> dict[str, float]:
        """Returns the estimated minutes that each run still takes, by name."""
        rate = self.measured_rate() or expected_rate()
        minutes = {}
        for run in self._runs:
            if run.name not in self._done and run.is_done:
                self._done.add(run.name)
            is_left = run.name not in self._done
            done = run_folder.epochs_done(run.workdir) / run.config.train.epochs if is_left else 1.0
            minutes[run.name] = max(0.0, 1.0 - done) * self._operations[run.name] / rate / 60
        return minutes

    def measured_rate(self) -> float | None:
        """Returns the operations a second of the trained runs; None if no run is trained."""
        for run in self._runs:
            if run.name not in self._seconds and run.is_trained:
                self._seconds[run.name] = training_seconds(run_folder.read_metrics(run.workdir))
        seconds = sum(self._seconds.values())
        return sum(self._operations[name] for name in self._seconds) / seconds if seconds else None


def plan_table(study: Study, runs: list[PlannedRun]) -> str:
    """Lists the runs by entry, with their state and the estimated minutes left."""
    minutes: dict[str, float] = {}
    done = sum(run.is_done for run in runs)
    try:
        minutes = Remaining(runs, count_operations(runs)).minutes()
        total = sum(minutes.values())
        source = "the finished runs" if done else "the speed of a matrix product, roughly"
        estimate = f"about {total:.0f} minutes left ({total / 60:.1f} h), by {source}"
    except InputError as missing:
        estimate = f"no estimate without their data: {missing}"
    rows = []
    for name, entry in study.entries.items():
        own = [run for run in runs if run.entry == name]
        if own:
            states = "; ".join(f"{run.seed}: {run.state}" for run in own)
            left = f"{sum(minutes[run.name] for run in own):.1f}" if minutes else ""
            rows.append([name, states, left, entry.teacher, difference_from_base(study, name)])
    table = markdown_table(["entry", "seeds", "minutes left", "teacher", "what it changes"], rows)
    return f"{table}\n\n{len(runs)} runs, {done} done; {estimate}"


def compile_steps(runs: list[PlannedRun]) -> None:
    """Compiles every distinct training step of a study, from shapes alone."""
    seen: dict[str, str] = {}
    for run in runs:
        if run.seed != runs[0].seed:
            continue
        program = trace_step(run.config, run.teacher and run.teacher.config)
        if program.digest in seen:
            print(f"{run.entry}: the step of {seen[program.digest]}", flush=True)
            continue
        seen[program.digest] = run.entry
        print(f"{run.entry}: {program.compile_bytes() / 2**20:,.0f} MB", flush=True)
    print(f"{len(seen)} distinct steps compiled")
