"""Trains one run: `python -m jax_kdpr.train --config configs/cpu/e2e.py --workdir runs/e2e`.

The same command resumes a run that was interrupted. Single options are overridden by
`--config.section.field=value`; docs/reference has them all.

--bench sets the options of device and noise, and in the near field the lengths, to what bench.toml
says. Options that the command line sets are kept.

Several processes, each with its own devices, can train one run: start the same command in each,
with --coordinator HOST:PORT --processes N --process I. The first process writes the run folder; a
run that was interrupted goes on with any number of processes.
"""

import sys
from pathlib import Path

from absl import flags

from jax_kdpr.config import Config, checks
from jax_kdpr.core import processes
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import rms_unit
from jax_kdpr.core.options import foreign_names
from jax_kdpr.core.registry import package
from jax_kdpr.interface import bench_flags, cli, process_flags
from jax_kdpr.interface.bench_flags import BENCH
from jax_kdpr.lab.bench_options import in_words, on_bench
from jax_kdpr.training import loop

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or that of this very run.")
flags.adopt_module_key_flags(bench_flags)
flags.adopt_module_key_flags(process_flags)


def main(positional: list[str]) -> int:
    """Runs the training."""
    cli.require_no_more(positional)
    config = checks.ready(_on_bench(cli.load_config(CONFIG, Config)))
    if not WORKDIR.value:
        raise InputError("--workdir: a run folder is needed, such as runs/e2e")
    scores = loop.train(config, Path(WORKDIR.value))
    if not processes.is_first():
        return 0
    print(
        f"done: validation {scores['validation_psnr']:.2f} dB (pooled "
        f"{scores['validation_psnr_pooled']:.2f} dB), rms {scores['validation_rms']:.3f}"
        f"{rms_unit(config.scene.kind)}, SSIM {scores['validation_ssim']:.3f}"
    )
    packages = ",".join(sorted(set(map(package, foreign_names(config).values()))))
    trust = f" --allow_code {packages}" if packages else ""
    print(f"next: python -m jax_kdpr.evaluate --workdir {WORKDIR.value}{trust}")
    return 0


def _on_bench(config: Config) -> Config:
    """Returns the config with what --bench says; options on the command line go before it."""
    if not BENCH.value:
        return config
    said = [name.removeprefix("config.") for name in flags.FLAGS if flags.FLAGS[name].present]
    config, options, notes = on_bench(config, bench_flags.read(), kept=said)
    if processes.is_first():
        print(f"{BENCH.value}: {in_words(options)}")
        for note in notes:
            print(f"warning: --bench: {note}", file=sys.stderr)
    return config


if __name__ == "__main__":
    cli.run(main, first=process_flags.join)
