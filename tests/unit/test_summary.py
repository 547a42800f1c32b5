from tapeline import models
from tapeline.models import LayerSummary


def test_rows_of_seed_003():
    model = models.build("seed_003", input_shape=(28, 28, 1), output_shape=(10,), seed=0)
    assert models.rows(model) == [
        LayerSummary("convolution 3x3x32 relu", (26, 26, 32), 320),
        LayerSummary("max pool 2x2", (13, 13, 32), 0),
        LayerSummary("convolution 3x3x64 relu", (11, 11, 64), 18_496),
        LayerSummary("max pool 2x2", (5, 5, 64), 0),
        LayerSummary("flatten, dropout 0.5", (1600,), 0),
        LayerSummary("dense", (10,), 16_010),
    ]
    header, *body, total = models.table(model).splitlines()
    assert header.split() == ["layer", "output", "shape", "parameters"]
    assert len(body) == 6
    assert body[2].split()[-1] == "18,496"
    assert total.split() == ["total", "trainable", "34,826"]


def test_columns_are_aligned():
    model = models.build("seed_001", input_shape=(28, 28, 1), output_shape=(10,), seed=0)
    lines = models.table(model).splitlines()
    assert len({len(line) for line in lines}) == 1
    shape_column = lines[0].index("output shape")
    assert all(line[shape_column] == "(" for line in lines[1:-1])


def test_joined_rows():
    """Activations and dropout are appended to the row before, and all parameters are counted."""
    layers = [
        models.Activation("relu"),
        models.Convolution(8, size=5, stride=2, padding="SAME"),
        models.BatchNorm(),
        models.Activation("relu"),
        models.Dropout(0.1),
        models.GlobalAveragePool(),
        models.Dense(8),
    ]
    model = models.Sequential("joined", layers, (9, 9, 2), seed=0)
    assert models.rows(model) == [
        LayerSummary("relu", (9, 9, 2), 0),
        LayerSummary("convolution 5x5x8 stride 2", (5, 5, 8), 400),  # the bias is in the batch norm
        LayerSummary("batch norm, relu, dropout 0.1", (5, 5, 8), 32),
        LayerSummary("global average pool", (8,), 0),
        LayerSummary("dense", (8,), 72),
    ]
    assert models.table(model).splitlines()[-1].endswith("488 and 16 non-trainable")
