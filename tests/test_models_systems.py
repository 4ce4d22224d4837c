"""The U-Net, the system of masks, filter and network, and its spread over four devices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from helpers import assert_equal_trees, same
from jax.sharding import NamedSharding, PartitionSpec

from jax_kdpr.core.sharding import AXIS, make_mesh
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.noise import NoiseOptions
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.networks.unet import ConvBlock, UNet, make_norm
from jax_kdpr.recovery.spectral import SpectralOptions
from jax_kdpr.recovery.system import System, network_input

SMALL = {
    "snapshots": 2,
    "spectral": SpectralOptions(iterations=3),
    "net": NetOptions(widths=(4, 8)),
}
KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 16, 16, 1)), jnp.float32)
NON_SQUARE = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 12, 2)), jnp.float32)


def small_camera(**options) -> Camera:
    return Camera(size=16, **options)


def build_unet(widths=(8, 16), norm="batch") -> UNet:
    """A network of random kernels; drawing them with NumPy spares compiling the initialisers."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) == 1:  # biases, scales, running statistics
            return jnp.ones(leaf.shape)
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))

    shapes = nnx.eval_shape(lambda: UNet(2, 1, NetOptions(widths=widths, norm=norm), nnx.Rngs(0)))
    graph, state = nnx.split(shapes)
    return nnx.merge(graph, jax.tree.map(draw, state))


@pytest.fixture(scope="module")
def small():
    """A small system with its start and its two jitted passes, compiled once for this file."""
    system = System(small_camera(), **SMALL)
    params, state = jax.jit(system.init)(KEY)
    evaluate = jax.jit(system.apply)
    train = jax.jit(lambda *args: system.apply(*args, train=True))
    return system, params, state, evaluate, train


def test_parameter_count_of_the_paper_network():
    """Convolutions without biases; a batch norm has 2 numbers a feature, twice a block.

    encoder    2 ->  32:   9 *   2 *  32 + 9 *  32 *  32 + 4 *  32 =   9,920
              32 ->  64:   9 *  32 *  64 + 9 *  64 *  64 + 4 *  64 =  55,552
              64 -> 128:   9 *  64 * 128 + 9 * 128 * 128 + 4 * 128 = 221,696
             128 -> 256:   9 * 128 * 256 + 9 * 256 * 256 + 4 * 256 = 885,760
    decoder  384 -> 128:   9 * 384 * 128 + 9 * 128 * 128 + 4 * 128 = 590,336
             192 ->  64:   9 * 192 *  64 + 9 *  64 *  64 + 4 *  64 = 147,712
              96 ->  32:   9 *  96 *  32 + 9 *  32 *  32 + 4 *  32 =  36,992
    head      32 ->   1:  32 + 1                                   =      33
    """
    params, _ = jax.eval_shape(System(Camera(size=96), snapshots=9).init, KEY)
    counts = {
        part: sum(leaf.size for leaf in jax.tree.leaves(leaves)) for part, leaves in params.items()
    }
    assert counts == {
        "phases": 9 * 96 * 96,
        "filter": 25,
        "net": 1_948_001,
    }


class Replaced(nnx.Module):
    """Stands for the deepest block and gives what it is told."""

    def __init__(self, value):
        self.value = nnx.Variable(value)

    def __call__(self, x, *, train):
        return self.value[...]


@pytest.mark.gpu
def test_bottleneck_is_the_tensor_that_the_decoder_consumes():
    @jax.jit
    def change_bottleneck(x, change):
        net = build_unet(norm="none")
        output = net(x, train=False)
        net.encoder[-1] = Replaced(output.bottleneck + change)
        return output, net(x, train=False)

    output, same = change_bottleneck(NON_SQUARE, 0.0)
    np.testing.assert_allclose(same.image, output.image, rtol=1e-6)
    output, other = change_bottleneck(NON_SQUARE, 1.0)
    np.testing.assert_array_equal(other.bottleneck, output.bottleneck + 1.0)
    assert np.abs(other.image - output.image).min() > 1e-6


@pytest.mark.gpu
def test_skips_carry_details_past_the_bottleneck():
    @jax.jit
    def recover(x):
        net = build_unet(norm="none")
        net.encoder[-1] = Replaced(jnp.zeros((2, 4, 6, 16)))
        return net(x, train=False).image

    change = abs(recover(NON_SQUARE.at[:, 4, 6].add(5.0)) - recover(NON_SQUARE))
    assert change[:, 4, 6].min() > 1e-4
    np.testing.assert_array_equal(change[:, :, [0, 1, 11]], 0.0)  # four 3x3 convolutions: 4 pixels


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_norm_on_non_square_images(norm):
    @jax.jit
    def recover(x):
        net = build_unet(norm=norm)
        assert (net.encoder[0].first.bias is not None) == (norm == "none")
        return net(x, train=True)

    output, other = recover(NON_SQUARE), recover(NON_SQUARE.at[1].multiply(5.0))
    assert output.image.shape == (2, 8, 12, 1) and output.bottleneck.shape == (2, 4, 6, 16)
    # only the statistics of a batch join its samples
    assert np.allclose(other.image[0], output.image[0], rtol=1e-5) == (norm != "batch")


def test_sizes_norms_and_widths_that_do_not_fit_raise():
    with pytest.raises(ValueError, match=r"divisible by 4 \(2 poolings\), got \(8, 10\)"):
        jax.eval_shape(
            lambda x: build_unet(widths=(4, 4, 4))(x, train=False), jnp.ones((1, 8, 10, 2))
        )
    with pytest.raises(ValueError, match=r"norm: expected batch, .* got 'layer'"):
        make_norm("layer", 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="widths: a group norm wants multiples of 8, got 12"):
        make_norm("group", 12, rngs=nnx.Rngs(0))


def first_features(params, x) -> np.ndarray:
    """Output of the first convolution: zero padding, NHWC."""
    kernel = np.asarray(params["net"]["encoder"][0]["first"]["kernel"])
    height, width = x.shape[1:3]
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in np.ndindex(3, 3))


@pytest.mark.gpu
def test_training_pass_records_the_statistics_of_the_batch(small):
    _, params, state, evaluate, train = small
    output, after = train(params, state, IMAGES, KEY)
    features = first_features(params, network_input(output.estimate))
    recorded = after["net"]["encoder"][0]["first_norm"]
    np.testing.assert_allclose(recorded["mean"], 0.1 * features.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(recorded["var"], 0.9 + 0.1 * features.var(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(after["start"], state["start"])
    evaluated, unchanged = evaluate(params, state, IMAGES, KEY)
    assert np.abs(evaluated.image - output.image).max() > 1e-2  # running statistics
    assert_equal_trees(unchanged, state)


@pytest.mark.gpu
def test_optics_of_a_system_equal_the_oracle(small):
    _, params, state, evaluate, _ = small
    output, _ = evaluate(params, state, IMAGES, KEY)
    scene = np.exp(1j * np.pi * np.asarray(IMAGES[2, ..., 0], float))
    matrix = oracles.cdp_matrix(np.asarray(params["phases"], float))
    y = (np.abs(matrix @ scene.ravel()) ** 2).reshape(2, 16, 16)
    kernel, start = np.asarray(params["filter"], float), np.asarray(state["start"], complex)
    z, residual = oracles.spectral_estimate(matrix, y, kernel, start, iterations=3, kind="soft")
    np.testing.assert_allclose(output.intensity[2], y, atol=1e-4)
    np.testing.assert_allclose(output.estimate[2], z, atol=1e-4)
    np.testing.assert_allclose(output.residual[2], residual, atol=1e-4)


@pytest.mark.gpu
def test_every_sample_has_its_own_noise_from_the_key():
    system = System(small_camera(noise=NoiseOptions(kind="gaussian", snr_db=10.0)), **SMALL)
    phases = jax.random.uniform(KEY, (2, 16, 16))
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    measure = jax.jit(system.measure)
    y = measure({"phases": phases}, same, KEY)
    assert not np.allclose(y[0], y[1])
    np.testing.assert_array_equal(measure({"phases": phases}, same, KEY), y)
    assert not np.allclose(measure({"phases": phases}, same, jax.random.key(1)), y)


def test_complex_scenes_and_padding_have_their_shapes():
    system = System(small_camera(scene=SceneOptions(kind="complex"), oversample=2), **SMALL)
    params, state = jax.eval_shape(system.init, KEY)
    images = jax.ShapeDtypeStruct((4, 16, 16, 2), jnp.float32)
    output, _ = jax.eval_shape(system.apply, params, state, images, KEY)
    assert output.image.shape == (4, 16, 16, 2)
    assert output.intensity.shape == (4, 2, 32, 32)
    assert output.estimate.shape == (4, 16, 16)


def test_init_depends_on_the_key_alone(small):
    system, params, state, *_ = small
    init = jax.jit(system.init)
    assert_equal_trees(init(KEY), (params, state))
    other, other_state = init(jax.random.key(1))
    kernel = lambda params: params["net"]["encoder"][0]["first"]["kernel"]  # noqa: E731
    assert not same(other["phases"], params["phases"]) and not same(kernel(other), kernel(params))
    assert not same(other_state["start"], state["start"])
    assert same(other["filter"], params["filter"])


def test_network_input_values():
    estimate = jnp.array([[[3 + 4j, -2 + 0j, -1j, 0j]]])
    np.testing.assert_array_equal(network_input(estimate)[0, 0], [[3, 4], [-2, 0], [0, -1], [0, 0]])


@pytest.fixture(scope="module")
def spread():
    """The small system on four devices, and the images spread over them."""
    mesh = make_mesh(4)
    images = jax.device_put(IMAGES, NamedSharding(mesh, PartitionSpec(AXIS)))
    return System(small_camera(mesh=mesh), **SMALL), images


@pytest.mark.slow
def test_four_devices_give_the_result_and_gradient_of_one(small, spread):
    alone, params, state, *_ = small

    def loss_and_output(system, images):
        def loss(params, images):
            output, after = system.apply(params, state, images, KEY, train=True)
            error = jnp.mean((output.image - images) ** 2) + jnp.mean(output.intensity**2)
            return error, (output, after)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, images)

    one, four = loss_and_output(alone, IMAGES), loss_and_output(*spread)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, four)
    assert np.abs(one[1]["phases"]).max() > 1e-4


def test_physics_on_four_devices_gathers_no_batch(small, spread):
    (_, params, state, *_), (system, images) = small, spread

    def estimate(images):
        return system.apply(params, state, images, KEY)[0].estimate  # the network is cut away

    compiled = jax.jit(estimate).lower(images).compile()
    assert "fft" in compiled.as_text()
    assert "all-gather" not in compiled.as_text()


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_a_batch_norm_folded_into_its_convolution_is_both_in_turn(precision, within):
    block = ConvBlock(3, 8, NetOptions(precision=precision), nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for norm in (block.first_norm, block.second_norm):
        for numbers in (norm.scale, norm.bias, norm.mean, norm.var):
            numbers[...] = jnp.asarray(rng.uniform(0.5, 1.5, size=8), jnp.float32)
    x = expected = jnp.asarray(rng.normal(size=(2, 6, 8, 3)), jnp.float32)
    for conv, norm in ((block.first, block.first_norm), (block.second, block.second_norm)):
        expected = nnx.relu(norm(conv(expected), use_running_average=True))
    np.testing.assert_allclose(block(x, train=False), expected, atol=within)
