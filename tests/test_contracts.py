"""Every item of every registry, and those of docs/extend/own_code.md, held to one contract."""

import os
import re
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from helpers import free_space, tiny_config

import jax_kdpr as kdpr
from jax_kdpr.config.schema import TASK_LOSSES
from jax_kdpr.core import registry
from jax_kdpr.core.errors import InputError
from jax_kdpr.data import sources
from jax_kdpr.data.sources import SOURCES, DataOptions
from jax_kdpr.optics.cdp import Optics, cdp_adjoint, cdp_forward, measure_intensity
from jax_kdpr.optics.masks import REGULARISERS
from jax_kdpr.optics.noise import NOISES, NoiseOptions, add_noise
from jax_kdpr.optics.propagation import PROPAGATORS, PropagationOptions, sensor_pixel
from jax_kdpr.recovery.networks.network import NETWORKS, NetOptions, pure_network
from jax_kdpr.recovery.solvers import SOLVERS, amplitude_misfit, solve
from jax_kdpr.recovery.spectral import WEIGHTS, SpectralOptions, spectral_weights
from jax_kdpr.runs import folder as run_folder

PAGE = Path(__file__).parents[1] / "docs" / "extend" / "own_code.md"
LENGTHS = {"wavelength": 0.5e-6, "pitch": 8e-6, "distance": 2e-3}
K, H, W = 3, 8, 8


@pytest.fixture(scope="module", autouse=True)
def my_lab(tmp_path_factory):
    """The module that the page writes, on the path; as for the user who wrote it, it may run."""
    folder = tmp_path_factory.mktemp("lab")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (folder / "my_lab.py").write_text("\n\n".join(blocks))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(registry, "_allowed", {"my_lab"})
        yield folder
        sys.modules.pop("my_lab", None)


def items(found, *own: str):
    return pytest.mark.parametrize("name", [*found, *(f"my_lab:{name}" for name in own)])


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 2.0, shape), jnp.float32)


def check(function, batch, *, gradient=True):
    """A batch is the loop over its members, compiled or not, in either precision.

    All within rounding; gradients by the floating-point leaves are finite.
    """
    batched = jax.jit(jax.vmap(function))(batch)
    count = jax.tree.leaves(batch)[0].shape[0]
    loop = [function(jax.tree.map(lambda leaf, i=i: leaf[i], batch)) for i in range(count)]
    chex.assert_trees_all_close(
        batched, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop), rtol=2e-3, atol=2e-4
    )
    chex.assert_tree_all_finite(batched)
    if gradient:
        first = jax.tree.map(lambda leaf: leaf[0], batch)
        total = lambda one: sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(function(one)))  # noqa: E731
        chex.assert_tree_all_finite(jax.grad(total)(first))
    return batched


def in_double(function, batch, found, rtol=1e-3):
    """Double precision gives the same, and stays double."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), batch)
        result = jax.vmap(function)(double)
        chex.assert_trees_all_close(
            jax.tree.map(np.asarray, result), jax.tree.map(np.asarray, found), rtol=rtol, atol=1e-3
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} <= {jnp.dtype("float64")}


@items(NOISES, "speckle")
def test_a_noise_keeps_the_unit_and_the_mean_of_a_cdp(name):
    options = NoiseOptions(kind=name, full_well=1e7)
    y, key = draw(2, K, H, W), jax.random.key(0)
    noisy = check(lambda one: add_noise(key, one, options), y)
    chex.assert_equal_shape([noisy, y])
    assert noisy.dtype == y.dtype
    keys = jax.random.split(key, 400)
    mean = jnp.mean(jax.vmap(lambda key: add_noise(key, y[0], options))(keys), axis=0)
    np.testing.assert_allclose(jnp.mean(mean), jnp.mean(y[0]), rtol=0.01)
    np.testing.assert_allclose(mean, y[0], rtol=0.15, atol=0.05)
    with jax.enable_x64(True):
        assert add_noise(key, jnp.ones((1, H, W), jnp.float64), options).dtype == jnp.float64


@items(PROPAGATORS, "defocused")
@pytest.mark.parametrize("oversample", [1, 2])
def test_a_propagator_keeps_the_light_and_has_an_exact_adjoint(name, oversample):
    reads = PROPAGATORS[name].reads_lengths
    options = PropagationOptions(kind=name, **(LENGTHS if reads else {}))
    space = free_space((H, W), oversample=oversample, kind=name, **(LENGTHS if reads else {}))
    phases = 3 * draw(K, H, W)
    optics = Optics(space.through(phases), space.transfer)
    rng = np.random.default_rng(1)
    fields = jnp.asarray(oracles.random_complex(rng, (2, H, W)), jnp.complex64)
    through = lambda field: cdp_forward(  # noqa: E731
        field, optics.masks, oversample=oversample, path=optics.path
    )
    spectra = check(through, fields, gradient=False)
    chex.assert_shape(spectra, (2, K, oversample * H, oversample * W))
    energy = jnp.sum(jnp.abs(spectra) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(energy, K * jnp.sum(jnp.abs(fields) ** 2, axis=(1, 2)), rtol=1e-4)
    other = jnp.asarray(oracles.random_complex(rng, spectra.shape[1:]), jnp.complex64)
    back = cdp_adjoint(other, optics.masks, path=optics.path)
    np.testing.assert_allclose(
        jnp.vdot(spectra[0], other), jnp.vdot(fields[0], back), rtol=1e-4, atol=1e-3
    )
    assert sensor_pixel(H, PropagationOptions(kind=name, **LENGTHS), oversample=oversample) > 0
    assert isinstance(options.propagator.warnings(H, oversample, options), list)


@items(WEIGHTS, "bright_half")
def test_weights_have_the_shape_of_the_cdp_and_no_unit(name):
    y = draw(2, K, H, W)
    weigh = lambda one: spectral_weights(one, SpectralOptions(weights=name))  # noqa: E731
    weights = check(weigh, y)
    chex.assert_equal_shape([weights, y])
    assert float(jnp.min(weights)) >= 0 and float(jnp.max(weights)) > 0
    np.testing.assert_allclose(jax.vmap(weigh)(1024 * y), weights, rtol=1e-5)
    in_double(weigh, y, weights)


@items(TASK_LOSSES, "edges")
def test_a_task_loss_is_a_mean_over_images_and_smallest_for_the_true_ones(name):
    images = draw(2, 5, H, W, 1) / 2
    loss = lambda pair: TASK_LOSSES[name](*pair)  # noqa: E731
    pairs = (images[::-1], images)
    found = check(loss, pairs)
    chex.assert_shape(found, (2,))
    assert float(jnp.min(found)) > 0 and not np.any(jax.vmap(loss)((images, images)))
    twice = jax.tree.map(lambda part: jnp.concatenate([part, part], axis=1), pairs)
    np.testing.assert_allclose(jax.vmap(loss)(twice), found, rtol=1e-5)
    in_double(loss, pairs, found)


@items(REGULARISERS, "flat")
def test_a_regulariser_is_a_mean_over_masks(name):
    phases = 8 * draw(2, K, H, W) - 4
    penalty = check(REGULARISERS[name], phases)
    chex.assert_shape(penalty, (2,))
    assert float(jnp.min(penalty)) >= 0
    twice = jnp.concatenate([phases, phases], axis=1)
    np.testing.assert_allclose(jax.vmap(REGULARISERS[name])(twice), penalty, rtol=1e-5)
    in_double(REGULARISERS[name], phases, penalty)


@items(SOLVERS, "landweber")
def test_a_solver_comes_closer_to_the_data_and_turns_with_its_start(name):
    rng = np.random.default_rng(2)
    phases = jnp.asarray(rng.uniform(0, 2 * np.pi, (K, H, W)), jnp.float32)
    truth = jnp.exp(1j * draw(H, W))
    noise = jnp.asarray(oracles.random_complex(rng, (2, H, W)), jnp.complex64)
    start = truth[None] + 0.3 * noise
    optics, y = Optics(phases), measure_intensity(truth, phases)

    def run(start):
        return solve(y, optics, start, solver=name, steps=20, scene="phase")[0]

    fields = check(run, start, gradient=False)
    chex.assert_equal_shape([fields, start])
    misfit = jax.vmap(lambda field: amplitude_misfit(field, y, optics))
    assert np.all(np.asarray(misfit(fields)) < 0.5 * np.asarray(misfit(start)))
    turn = jnp.exp(0.7j)
    np.testing.assert_allclose(jax.vmap(run)(turn * start), turn * fields, atol=2e-3)
    slope = jax.grad(lambda a: jnp.abs(jnp.sum(run(a * start[0]) * truth)))(1.1)
    assert np.isfinite(slope)


@items(NETWORKS, "Plain")
@pytest.mark.parametrize("refine_steps", [0, 2])
def test_a_network_returns_images_its_bottleneck_and_a_gate_if_asked_for(name, refine_steps):
    net = NetOptions(kind=name, widths=(8, 16), refine_steps=refine_steps)
    network = pure_network(net, in_channels=2, out_channels=1)
    params, stats = network.init(jax.random.key(0))
    again, _ = network.init(jax.random.key(0))
    chex.assert_trees_all_equal(params, again)
    inputs = 2 * draw(3, 16, 16, 2) - 2
    run = lambda params, x: network.run({"net": params}, {"net": stats}, x)[0]  # noqa: E731
    output = run(params, inputs)
    chex.assert_trees_all_close(jax.jit(run)(params, inputs), output, rtol=1e-3, atol=1e-4)
    chex.assert_shape(output.image, (3, 16, 16, 1))
    assert 0 < float(jnp.min(output.image)) and float(jnp.max(output.image)) < 1
    assert (output.gate is None) == (refine_steps == 0)
    assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {jnp.dtype("float32")}
    # Scenes do not see each other once the network is trained, and each has a bottleneck.
    for i in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], output),
            run(params, inputs[i : i + 1]),
            rtol=1e-3,
            atol=1e-4,
        )

    def loss(params, x):
        output, _ = network.run({"net": params}, {"net": stats}, x, train=True)
        return jnp.sum(output.image**2) + jnp.sum(output.bottleneck**2)

    by_params, by_input = jax.grad(loss, argnums=(0, 1))(params, inputs)
    chex.assert_tree_all_finite((by_params, by_input))
    chex.assert_trees_all_equal_shapes(by_params, params)
    assert float(jnp.max(jnp.abs(by_input))) > 0


@items([name for name in SOURCES if name != "images"], "gratings")
def test_a_source_makes_the_same_images_of_the_same_options(name):
    if name == "fashion_mnist" and not os.environ.get("KDPR_DATA_DIR"):
        pytest.skip("KDPR_DATA_DIR is not set")
    options = DataOptions(
        source=name, size=16, train_images=8, validation_images=6, test_images=4, seed=3
    )
    one, other = sources.load(options), sources.load(options)
    assert (one.digest, one.held_back_digest) == (other.digest, other.held_back_digest)
    assert one.train_size == len(one.train(0)) == 8
    assert (len(one.validation), len(one.test)) == (6, 4)
    np.testing.assert_array_equal(one.test, other.test)
    top = jnp.iinfo(one.test.dtype).max if jnp.issubdtype(one.test.dtype, jnp.integer) else 1.0
    assert float(jnp.min(one.test)) >= 0 and float(jnp.max(one.test)) <= top
    options.seed = 4
    assert sources.load(options).digest != one.digest


@pytest.mark.slow
def test_a_run_of_the_pages_code_trains_and_opens_only_where_it_is_allowed(
    tmp_path, monkeypatch, capsys
):
    """A training with one of each, which the page's own loop goes on with."""
    import my_lab

    config = tiny_config(
        noise__kind="my_lab:speckle",
        propagation__kind="my_lab:defocused",
        net__kind="my_lab:Plain",
        data__source="my_lab:gratings",
        spectral__weights="my_lab:bright_half",
        masks__regulariser="my_lab:flat",
        loss__task="my_lab:edges",
        train__epochs=1,
    )
    monkeypatch.setattr(registry, "_allowed", set())
    (row,) = kdpr.train(config, tmp_path / "run")  # the user's own config may run what it names
    assert row["train_task"] > 0 and row["train_mask"] > 0
    monkeypatch.setattr(registry, "_allowed", set())
    with pytest.raises(InputError, match="--allow_code my_lab"):
        kdpr.load(tmp_path / "run")
    run = kdpr.load(tmp_path / "run", allow_code="my_lab")
    assert "has changed" not in capsys.readouterr().err
    page = Path(my_lab.__file__)
    page.write_text(page.read_text() + "# another line\n")
    assert kdpr.train(config, tmp_path / "run") == [row]
    kdpr.load(tmp_path / "run")
    assert capsys.readouterr().err.count("my_lab has changed since") == 2
    assert run.config == run_folder.read_config(tmp_path / "run") and run.scenes(2).shape[0] == 2
    images = run.scenes(4)
    tuned = my_lab.fine_tune(run, images, steps=60, rate=1e-3)
    errors = [
        float(jnp.mean(jnp.abs(output.image - images)))
        for output, _ in (
            one.system.apply(*one.variables, images, jax.random.key(1), train=True)
            for one in (run, tuned)
        )
    ]
    assert errors[1] < 0.9 * errors[0], errors
    assert tuned.reconstruct(tuned.measure(images), gain=1.0).image.shape == images.shape


WRONG = """
import numpy as np
from my_lab import Plain

def arity(key, intensity):
    return intensity

def host(key, intensity, options):
    return np.asarray(intensity)

def array(options, phase_range):
    return np.zeros((8, 16, 16))

def gap(options, phase_range):
    from jax_kdpr.data.sources import from_arrays
    images = np.full((8, 16, 16), 0.5, np.float32)
    images[3, 4, 5] = np.nan
    return from_arrays(dict.fromkeys(("train", "validation", "test"), images), options)

class NoGate(Plain):
    def __call__(self, x, *, train):
        return super().__call__(x, train=train)._replace(gate=None)
"""


@pytest.mark.parametrize(
    ("option", "item", "said"),
    [
        ("noise__kind", "arity", "TypeError"),
        ("noise__kind", "host", "TracerArrayConversionError"),
        ("noise__kind", "hots", "did you mean wrong_lab:host?"),
        ("net__kind", "arity", "TypeError"),
        ("net__kind", "NoGate", "gate"),
        ("data__source", "array", "expected a Dataset"),
        ("data__source", "gap", "floats in [0, 1]"),
        ("propagation__kind", "arity", "Propagator"),
    ],
)
def test_code_that_breaks_the_contract_is_one_line_and_writes_nothing(
    my_lab, tmp_path, option, item, said
):
    (my_lab / "wrong_lab.py").write_text(WRONG)
    config = tiny_config(net__refine_steps=2, **{option: f"wrong_lab:{item}"})
    with pytest.raises(InputError) as refused:
        kdpr.train(config, tmp_path / "run")
    message = str(refused.value)
    assert f"wrong_lab:{item}" in message and said in message and "\n" not in message
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_imported_is_said_in_one_line():
    registry.allow(("my_lab", "no_such_lab"))
    for name in ("my_lab:nothing", "no_such_lab:Net"):
        with pytest.raises(InputError, match=name):
            NETWORKS[name]
    with pytest.raises(ValueError, match=r"network: expected one of unet, .* got 'vnet'"):
        NETWORKS["vnet"]
    assert issubclass(NETWORKS["unet"], nnx.Module)
