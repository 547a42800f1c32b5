import numpy as np
import pytest
import tensorflow as tf

from engine.models.stateless_random import MAX_DROPOUT_RATE, stream_key
from tapeline.models import ForwardContext, StatelessRNG

ROWS, FEATURES = 64, 100


def draw(seed=7, step=3, row=0, stream=0, rows=ROWS, features=FEATURES):
    step, row = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
    return StatelessRNG(seed, step, row).uniform(stream, rows, features).numpy()


@pytest.mark.parametrize("features", [1, 3, 4, 10, 1600])
@pytest.mark.parametrize("row", [1, 17, 63])
def test_replica_draws_its_rows(features, row):
    """A draw that starts at a later row is bitwise equal to those rows of a whole draw."""
    whole = draw(features=features)
    part = draw(row=row, rows=ROWS - row, features=features)
    np.testing.assert_array_equal(whole[row:], part)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_draws_its_rows(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def both(step, row):
        whole = StatelessRNG(7, step, 0, compiled=jit_compile).uniform(5, ROWS, 10)
        return whole[16:], StatelessRNG(7, step, row, compiled=jit_compile).uniform(
            5, ROWS - 16, 10
        )

    whole, part = both(tf.constant(9, tf.int64), tf.constant(16, tf.int64))
    np.testing.assert_array_equal(whole, part)
    np.testing.assert_array_equal(whole, draw(step=9, stream=5, features=10)[16:])


@pytest.mark.parametrize("features", [1, 10, 64])
def test_xla_draws_same_bits(features):
    @tf.function(
        input_signature=[tf.TensorSpec([], tf.int64)] * 2 + [tf.TensorSpec([None])],
        jit_compile=True,
    )
    def compiled(step, row, examples):
        rows = tf.shape(examples)[0]
        drawn = StatelessRNG(7, step, row, compiled=True).uniform(2, rows, features)
        assert drawn.shape[1:] == [features]
        return drawn

    # Rows whose first block is beyond 32 bits, and one before it.
    edge = 2**32 // -(-features // 4)
    for step, row in [(0, 0), (3, 17), (2**40 + 1, 5), (1, edge - 2), (2**62, edge + 1)]:
        args = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
        expected = draw(step=step, row=row, stream=2, rows=6, features=features)
        np.testing.assert_array_equal(compiled(*args, tf.zeros([6])), expected)
        eager = StatelessRNG(7, *args, compiled=True).uniform(2, 6, features)
        np.testing.assert_array_equal(eager, expected)


# These take 1, 2, 4, 8 or 16 bits a draw; those of RARE take 32.
RATES = [0.5, 0.25, 0.75, 15 / 16, 3 / 256, 0.1, 0.3]
RARE = [0.0001, 0.9999]


def dropout(rate, step=3, row=0, rows=ROWS, features=FEATURES, dtype=tf.float32, **kwargs):
    step, row = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
    return StatelessRNG(7, step, row, **kwargs).dropout(2, rows, features, rate, dtype)


@pytest.mark.parametrize("features", [1, 3, 8, 13, 1600])
@pytest.mark.parametrize("rate", [*RATES, *RARE])
def test_dropout_on_replica(rate, features):
    whole = dropout(rate, features=features)
    assert whole.shape == (ROWS, features)
    for row in (1, 17, 63):
        part = dropout(rate, row=row, rows=ROWS - row, features=features)
        np.testing.assert_array_equal(whole[row:], part)


@pytest.mark.parametrize("rate", [*RATES, *RARE])
def test_dropout_xla_same_bits(rate):
    @tf.function(
        input_signature=[tf.TensorSpec([], tf.int64)] * 2 + [tf.TensorSpec([None])],
        jit_compile=True,
    )
    def compiled(step, row, examples):
        noise = StatelessRNG(7, step, row, compiled=True)
        drawn = noise.dropout(2, tf.shape(examples)[0], 70, rate, tf.float32)
        assert drawn.shape[1:] == [70]
        return drawn

    for step, row in [(0, 0), (3, 17), (2**40 + 1, 5), (2**62, 2**32 - 2)]:
        args = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
        expected = dropout(rate, step=step, row=row, rows=6, features=70)
        np.testing.assert_array_equal(compiled(*args, tf.zeros([6])), expected)
        eager = dropout(rate, step=step, row=row, rows=6, features=70, compiled=True)
        np.testing.assert_array_equal(eager, expected)


@pytest.mark.parametrize("rate", [*RATES, 1e-5, 0.9999, MAX_DROPOUT_RATE])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_dropout_rate_and_expectation(rate, dtype):
    rows, features = 2000, 96
    drawn = dropout(rate, rows=rows, features=features, dtype=dtype)
    assert drawn.dtype == dtype
    drawn = tf.cast(drawn, tf.float64).numpy()
    taken = np.mean(drawn == 0)
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(taken - rate) <= 5 * deviation / np.sqrt(rows * features)
    places = np.mean(drawn == 0, axis=0)
    assert np.abs(places - rate).max() <= 5 * deviation / np.sqrt(rows) + 2 / rows
    for kept in np.unique(drawn[drawn != 0]):
        # A rate is rounded to within 1% of itself and of the share that is kept.
        rounded = 1 - 1 / kept
        assert abs(rounded - rate) <= 0.01 * min(rate, 1 - rate) + 2 * dtype_epsilon(dtype)


@pytest.mark.parametrize("rate", [1e-5, 0.0001, 0.9999, MAX_DROPOUT_RATE])
def test_dropout_rare_elements(rate):
    """Rates near 0 and 1, for which 16 random bits are too few, are met within the error."""
    rare = min(rate, 1 - rate)
    drawn = dropout(rate, rows=100_000, features=400).numpy()
    found = np.count_nonzero(drawn == 0 if rate < 0.5 else drawn)
    expected = rare * drawn.size
    assert abs(found - expected) <= 5 * np.sqrt(expected)
    np.testing.assert_allclose(drawn.max(), 1 / (1 - rate), rtol=1e-5)


def dtype_epsilon(dtype):
    return {tf.float32: 2.0**-24, tf.bfloat16: 2.0**-9, tf.float16: 2.0**-12}[dtype]


@pytest.mark.parametrize("rate", RATES)
def test_dropout_is_uncorrelated(rate):
    rows = 4000
    drawn = dropout(rate, rows=rows, features=64).numpy() == 0
    between = np.corrcoef(drawn, rowvar=False) - np.eye(64)
    assert np.abs(between).max() < 6 / np.sqrt(rows)  # 2,016 pairs
    steps = [dropout(rate, step=step, rows=rows).numpy() == 0 for step in (3, 4)]
    assert abs(np.corrcoef(*(each.ravel() for each in steps))[0, 1]) < 0.01


def test_draw_is_pure_function():
    first = draw()
    draw(step=4)
    tf.random.set_seed(123)
    np.testing.assert_array_equal(first, draw())


def test_draws_are_uniform():
    drawn = draw(rows=1000)
    assert drawn.dtype == np.float32
    assert drawn.shape == (1000, FEATURES)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    # 100,000 draws: a bin of 10,000 has a standard deviation of 95.
    np.testing.assert_allclose(counts, 10_000, atol=450)


@pytest.mark.parametrize(
    "other", [{"step": 4}, {"stream": 1}, {"seed": 8}, {"row": ROWS}, {"seed": 3, "step": 7}]
)
def test_other_arguments_other_draw(other):
    one, two = draw().ravel(), draw(**other).ravel()
    # The correlation of 6,400 independent pairs has a standard deviation of 0.0125.
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06
    assert np.mean(one == two) < 0.01


def test_stream_key_is_stable():
    assert stream_key(0, 0) == 5857645148978988075
    assert stream_key(-1, 12) != stream_key(-11, 2)


def test_steps_and_rows_beyond_32_bits():
    assert np.mean(draw(step=1) == draw(step=1 + 2**32)) < 0.01
    assert np.mean(draw(row=1) == draw(row=1 + 2**32)) < 0.01


def seed(name="a", seed=7, step=3, row=0, compiled=False):
    step, row = tf.constant(step, tf.int64), tf.constant(row, tf.int64)
    return StatelessRNG(seed, step, row, compiled=compiled).seed(name)


def test_seed():
    """A seed is a function of seed, step, row and name, and the same in a graph and under XLA."""
    first = seed()
    assert first.dtype == tf.int32 and first.shape == [2]
    np.testing.assert_array_equal(first, seed())
    np.testing.assert_array_equal(first, tf.function(lambda: seed(compiled=True))())
    np.testing.assert_array_equal(
        first, tf.function(lambda: seed(compiled=True), jit_compile=True)()
    )
    for other in ({"name": "b"}, {"seed": 8}, {"step": 4}, {"row": 1}):
        assert not np.array_equal(first, seed(**other))


def test_seed_of_context():
    step = tf.constant(3, tf.int64)
    context = ForwardContext(training=True, noise=StatelessRNG(7, step))
    np.testing.assert_array_equal(context.seed("a"), seed())
    assert not np.array_equal(ForwardContext().seed("a"), ForwardContext().seed("b"))
    np.testing.assert_array_equal(ForwardContext().seed("a"), ForwardContext().seed("a"))
    with pytest.raises(ValueError, match=r"the seed of a in training needs ForwardContext\.noise"):
        ForwardContext(training=True).seed("a")
