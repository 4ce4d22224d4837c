"""The PyTorch twin in a process of its own, which answers questions over a pipe.

Two frameworks in one process would compete for the cores with two pools of threads. In two
processes, the one that is not being timed sleeps.
"""

import contextlib
import copy
import math
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jax_kdpr.core.errors import InputError

EAGER, COMPILED = "eager", "compiled"
AGREEMENT = 1e-4  # of the largest value: the largest difference at which PyTorch is timed
TWIN = {  # the only values of these options that the twin knows
    "scene.kind": ("phase",),
    "masks.oversample": (1,),
    "masks.regulariser": ("range",),
    "masks.trained": (True,),
    "device.phase_range": (math.tau,),
    "device.table": ((),),
    **{f"device.{name}": (0,) for name in ("levels", "crosstalk", "zero_order")},
    **{f"device.{name}": (1,) for name in ("superpixel", "fill_factor", "gain")},
    **{f"mount.{name}": (0,) for name in ("shift_y", "shift_x", "rotation", "scale")},
    **{f"sensor.{name}": (0,) for name in ("step", "rows", "columns")},
    "illumination.kind": ("even",),
    "aberrations.zernike": ((),),
    "aberrations.file": ("",),
    "propagation.kind": ("far",),
    "propagation.gap": (0,),
    **{f"jitter.{name}": (0,) for name in ("shift", "rotation", "scale", "defocus")},
    **{f"jitter.{name}": (0,) for name in ("wavelength", "gain", "beam", "waist", "wavefront")},
    "noise.kind": ("none",),
    "spectral.weights": ("soft",),
    "spectral.consistency_steps": (0,),
    "spectral.gauge": ("start",),
    "net.kind": ("unet",),
    "net.norm": ("batch",),
    "net.refine_steps": (0,),
    "net.precision": ("tf32", "float32"),
}


def require_twin(options: dict[str, Any]) -> None:
    """Raises `InputError` unless the twin knows these options, {dotted path: value}."""
    for path, values in TWIN.items():
        if options[path] not in values:
            needed = " or ".join(map(str, values))
            raise InputError(
                f"--against: PyTorch's system has {path} = {needed}, got {options[path]}; leave it"
            )


class TorchWorker:
    """Builds systems of the twin and times them; use it as a context manager."""

    def __init__(self, *, threads: int, mode: str = EAGER):
        """Starts the process.

        Args:
            threads: CPU threads it may use.
            mode: "eager" or "compiled" (torch.compile).
        """
        self.mode = mode
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads, mode), daemon=True)
        self._process.start()

    def __enter__(self) -> "TorchWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):  # it may have died
            self._pipe.send(None)
        self._process.join(timeout=10)
        self._process.terminate()

    def build(self, role: str, variables: Any, images: np.ndarray, **options: Any) -> None:
        """Makes the system of a role ("student", "teacher") with our parameters, and its inputs."""
        self._ask("build", role, variables, images, options)

    def outputs(self, role: str) -> dict[str, np.ndarray]:
        """Returns CDP, estimate and image of the inputs, to compare with ours."""
        return self._ask("outputs", role)

    def clock(self, case: str, units: int) -> float:
        """Runs a case `units` times, waits once, and returns the seconds measured over there."""
        return self._ask("clock", case, units)

    def describe(self) -> str:
        """Returns PyTorch's version and device."""
        return self._ask("describe")

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((question, arguments))
            answer, failure = self._pipe.recv()
        except (EOFError, OSError) as gone:
            raise InputError(f"--against: the PyTorch process died at {question}") from gone
        if failure:
            raise InputError(f"--against: PyTorch: {failure}")
        return answer


def _serve(pipe: Any, threads: int, mode: str) -> None:
    try:
        server = _Server(threads, mode)
    except ImportError as missing:
        pipe.recv()
        pipe.send((None, f"{missing}; install it here: pip install torch"))
        return
    while (message := pipe.recv()) is not None:
        question, arguments = message
        try:
            pipe.send((getattr(server, question)(*arguments), ""))
        except Exception as failure:  # the other side reports it in one line
            pipe.send((None, f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"))


class _Server:
    """The other side of the pipe: everything here runs in the PyTorch process."""

    def __init__(self, threads: int, mode: str):
        import torch  # pyright: ignore[reportMissingImports]

        from jax_kdpr.evaluation.speed import torch_twin

        self.torch, self.twin, self.mode = torch, torch_twin, mode
        torch.set_num_threads(threads)
        self.tf32 = False
        torch.backends.cudnn.benchmark = True
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.systems: dict[str, Any] = {}
        self.images: Any = None
        self.cases: dict[str, Callable[[], Any]] = {}

    def describe(self) -> str:
        device = self.torch.cuda.get_device_name() if self.device == "cuda" else "cpu"
        return f"PyTorch {self.torch.__version__}, {device}, {self.mode}"

    def build(self, role: str, variables: Any, images: np.ndarray, options: dict) -> None:
        weights, rates = options.pop("weights"), options.pop("rates")
        self.tf32 = options.pop("tf32")
        system = self.twin.System(*variables, **options).to(self.device)
        system.eval()
        self.systems[role] = system
        self.images = self.torch.from_numpy(images).to(self.device)
        with self.torch.no_grad():
            cdps = system.measure(self.images)
            estimates = system.estimate(cdps)
        no_grad = self.torch.inference_mode()
        recover, estimate, run_net = (
            self._compiled(fn) for fn in (system.recover, system.estimate, system.run_net)
        )
        self.cases[f"inference, {role}"] = no_grad(lambda: recover(cdps))
        self.cases[f"spectral initialisation, {role}"] = no_grad(lambda: estimate(cdps))
        self.cases[f"spectral value and gradient, {role}"] = self._spectral_gradient(system)
        if role == "student":
            self.cases["U-Net"] = no_grad(lambda: run_net(estimates))
            self.cases["U-Net value and gradient"] = self._network_gradient(system, estimates)
        self._add_steps(role, weights, rates)

    def outputs(self, role: str) -> dict[str, np.ndarray]:
        system = self.systems[role].eval()
        self._allow_tf32(False)
        with self.torch.no_grad():
            cdp = system.measure(self.images)
            estimate = system.estimate(cdp)
            image = system.run_net(estimate)[0]
        self._allow_tf32(self.tf32)
        made = {"CDP": cdp, "spectral estimate": estimate, "image": image[:, 0]}
        return {name: value.cpu().numpy() for name, value in made.items()}

    def clock(self, case: str, units: int) -> float:
        call = self.cases[case]
        started = time.perf_counter()
        for _ in range(units):
            call()
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return time.perf_counter() - started

    def _allow_tf32(self, allowed: bool) -> None:
        backends = self.torch.backends
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed

    def _compiled(self, fn: Callable) -> Callable:
        return self.torch.compile(fn) if self.mode == COMPILED else fn

    def _spectral_gradient(self, system: Any) -> Callable[[], Any]:
        fn = self._compiled(lambda images: system.estimate(system.measure(images)).real.sum())
        optics = [system.phases, system.filter]
        return lambda: self.torch.autograd.grad(fn(self.images), optics)

    def _network_gradient(self, system: Any, estimates: Any) -> Callable[[], Any]:
        fn = self._compiled(lambda z: system.run_net(z)[0].square().mean())
        leaf = estimates.detach().clone().requires_grad_()
        parameters = [leaf, *system.net.parameters()]

        def call():
            system.train()
            return self.torch.autograd.grad(fn(leaf), parameters)

        return call

    def _add_steps(self, role: str, weights: dict, rates: dict) -> None:
        """Adds the training steps; each changes its system, and so has a copy of its own."""

        def step_of(role: str, weights: dict):
            system = copy.deepcopy(self.systems[role]).train()
            return self.twin.make_step(system, weights=weights, rates=rates, wrap=self._compiled)

        alone = {**weights, "task": 1.0, "cdp": 0.0, "feature": 0.0}
        images = self.images
        if role == "teacher":
            teacher_step = step_of("teacher", alone)
            self.cases["step, teacher"] = lambda: teacher_step(images)
            teacher = self.systems["teacher"].eval()
            targets = self.twin.teach(teacher, images)
            live, cached = step_of("student", weights), step_of("student", weights)
            teach = self._compiled(lambda x: self.twin.teach(teacher, x))
            self.cases["step, student, live teacher"] = lambda: live(images, teach(images))
            self.cases["step, student, cached targets"] = lambda: cached(images, targets)
        else:
            e2e_step = step_of("student", alone)
            self.cases["step, e2e"] = lambda: e2e_step(images)
