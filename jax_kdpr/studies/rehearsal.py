"""A study before its first run: what it would do, how long that takes, whether it compiles."""

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.studies.declaration import Study, difference_from_base
from jax_kdpr.studies.plan import PlannedRun
from jax_kdpr.studies.programs import trace_step
from jax_kdpr.studies.runner import count_operations, remaining_minutes


def plan_table(study: Study, runs: list[PlannedRun]) -> str:
    """Lists the runs by entry, with their state and the estimated minutes left."""
    operations, minutes, missing = {}, {}, ""
    try:
        operations = count_operations(runs)
        minutes = remaining_minutes(runs, operations)
    except InputError as failure:
        missing = str(failure)
    rows = []
    for name in dict.fromkeys(run.entry for run in runs):
        own = [run for run in runs if run.entry == name]
        rows.append(
            [
                name,
                "; ".join(f"{run.seed}: {run.state}" for run in own),
                f"{operations[own[0].name] / 1e12:.1f}" if operations else "",
                f"{sum(minutes[run.name] for run in own):.1f}" if minutes else "",
                study.entries[name].teacher,
                difference_from_base(study, name),
            ]
        )
    header = ["entry", "seeds", "Tflop a run", "minutes left", "teacher", "what it changes"]
    total = sum(minutes.values())
    done = sum(run.is_done for run in runs)
    text = f"{markdown_table(header, rows)}\n\n{len(runs)} runs, {done} done; "
    if missing:
        return f"{text}no estimate without their data: {missing}"
    source = "by the finished runs" if done else "a rough guess by the speed of a matrix product"
    return f"{text}about {total:.0f} minutes left ({total / 60:.1f} h), {source}"


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
