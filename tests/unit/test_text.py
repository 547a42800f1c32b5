"""Data sets of text: tokens, windows, splits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapeline as tl
from pipelines import SourceOptions, open_dataset, read_examples, source_from_json, source_to_json
from pipelines.vocabulary import BYTES, UNKNOWN, code_points, vocabulary_of
from tests.prepared import data_dir

ALPHABET = "abcdefghij\n"
TEXT = "".join(ALPHABET[i % 7 + i % 5] for i in range(500))


def opened(described, **options):
    return open_dataset("mine", SourceOptions(cache_dir="unused", **options), lambda: described)


def source_of(text=TEXT, *, context=8, **arguments):
    options = {name: arguments.pop(name) for name in list(arguments) if name in FIELDS}
    return opened(tl.text(train=text.encode(), context=context, **arguments), **options)


FIELDS = SourceOptions.__dataclass_fields__


def windows(source, split):
    """Returns the texts of the inputs and of the targets of all windows of a split."""
    found = read_examples(source, split, np.arange(len(split)))
    decode = source.vocabulary.decode
    return [decode(row) for row in found.inputs], [decode(row) for row in found.targets]


def said(call):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# Tokens


@given(st.text(min_size=1))
def test_characters_round_trip(text):
    text = text.encode("utf-8", "replace").decode("utf-8")
    vocabulary = vocabulary_of(code_points(text), unknown=False)
    assert list(vocabulary.tokens) == sorted(set(text))
    ids = vocabulary.encode(text, "here")
    assert ids.max() < len(vocabulary.tokens) and vocabulary.decode(ids) == text


@given(st.text())
def test_bytes_round_trip(text):
    text = text.encode("utf-8", "replace").decode("utf-8")
    ids = BYTES.encode(text, "here")
    assert ids.tobytes() == text.encode() and BYTES.decode(ids) == text


def test_invalid_utf_8_of_a_model():
    assert BYTES.decode(np.array([0xC3, 65])) == UNKNOWN + "A"


def test_unknown_character():
    points = code_points("abc")
    message = said(lambda: vocabulary_of(points, unknown=False).encode("caf\xe9\xe9 b", "here"))
    assert message.startswith("here has characters") and "'\xe9' (2 times) and 2 others" in message
    ids = vocabulary_of(points, unknown=True).encode("a\xe9", "here")
    assert ids.tolist() == [0, 3]


def test_large_vocabulary():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    source = source_of(text, validation_split="0")
    assert source.classes == 400 and source.decoded[0].dtype.name == "int32"
    assert windows(source, source.train)[0][5] == text[5:13]


# Windows


@given(st.integers(10, 200), st.integers(1, 12), st.integers(0, 9))
def test_windows(tokens, context, tenths):
    """Each token starts a training window; held-out windows follow each other."""
    text = TEXT[:tokens]
    try:
        source = source_of(text, context=context, tokens="bytes", validation_split=f"{tenths / 10}")
    except ValueError as error:
        assert "a window takes" in str(error)
        return
    cut = int(np.floor(tokens * (1 - tenths / 10)))
    train, held = text[:cut], text[cut:]
    inputs, targets = windows(source, source.train)
    assert inputs == [train[i : i + context] for i in range(len(train) - context)]
    assert targets == [train[i + 1 : i + context + 1] for i in range(len(train) - context)]
    if not tenths:
        assert not source.validation_sets
        return
    inputs, targets = windows(source, source.validation)
    whole = (len(held) - 1) // context * context
    assert "".join(inputs) == held[:whole] and "".join(targets) == held[1 : whole + 1]


def test_vocabulary_is_that_of_train():
    source = source_of("abcabcabcabc" * 4 + "ab" * 30, validation_split="0.1")
    assert source.class_names == ("a", "b", "c")
    message = said(lambda: source_of("ab" * 30 + "c" * 10, validation_split="0.2"))
    assert message.startswith("--validation_split=0.2: validation of mine has characters")
    assert "'c'" in message and "--tokens=bytes" in message


def test_bytes():
    source = source_of("h\xe9llo w\xf6rld " * 20, tokens="bytes", validation_split="0")
    assert source.classes == 256 and source.tokens == "bytes"
    found = read_examples(source, source.train, np.array([0])).inputs[0]
    assert found.tobytes() == "h\xe9llo w\xf6rld".encode()[:8]
    assert opened(tl.text(train=b"\xff\xfe" * 50), tokens="bytes", context=3).classes == 256


def test_digest_depends_on_the_windows():
    digests = {
        source_of(text, context=context, validation_split=validation).train.digest()
        for text in (TEXT, TEXT[1:] + "a")
        for context in (4, 8)
        for validation in ("0", "0.1")
    }
    assert len(digests) == 8


def test_saved_source():
    source = source_of()
    again = source_from_json(source_to_json(source))
    assert again.vocabulary == source.vocabulary and again.decoded == source.decoded
    plain = opened(tl.arrays(inputs=np.zeros([9, 2]), targets=np.zeros([9])))
    assert "tokens" not in source_to_json(plain)
    assert "is not a text" in said(lambda: plain.vocabulary)


# Splits


def test_parts_and_joined_splits():
    described = tl.text(train=b"a" * 50 + b"b" * 50, validation=b"ab" * 20, test=b"ba" * 30)
    source = opened(described, context=4)
    assert {key: len(split) for key, split in source.splits.items()} == {
        "train": 96,
        "validation": 9,
        "test": 14,
    }
    part = opened(described, context=4, train_split="train[25%:75%]", validation_split="0")
    assert windows(part, part.train)[0][0] == "aaaa" and len(part.train) == 46
    message = said(lambda: opened(described, context=4, train_split="train[:50%]"))
    assert message.startswith("--validation_split=validation: validation of mine has characters")


def test_joined_held_out():
    described = tl.text(train=b"ab" * 50, validation=b"aabb" * 10, test=b"bbaa" * 10)
    source = opened(described, context=4, validation_split="validation+test", test_split="")
    inputs, _ = windows(source, source.validation)
    assert "".join(inputs) == ("aabb" * 10 + "bbaa" * 10)[:76] and source.test is None


def test_several_sets():
    described = tl.text(train=b"ab" * 50, validation={"one": b"ab" * 9, "other": b"ba" * 9})
    assert list(opened(described, context=4).validation_sets) == ["one", "other"]
    source = source_of(validation_split={"a": "0.1", "b": "0.2"})
    sets = {key: windows(source, each)[0][0] for key, each in source.validation_sets.items()}
    assert sets == {"a": TEXT[450:458], "b": TEXT[360:368]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": "train[90%:]"}, "shares 50 tokens with --train_split=train"),
        ({"train_split": "train+train", "validation_split": "0"}, "shares 500 tokens"),
        ({"train_split": "trian"}, "--train_split=trian: mine has train; give one"),
        ({"train_split": "train[500:]"}, "holds nothing of mine"),
        ({"validation_split": "1.5"}, "between 0 and 1"),
        ({"validation_split": "0.01"}, "has 5 characters, and a window takes 8"),
        ({"image_size": (8, 8)}, "--image_size"),
        ({"input_features": "text"}, "--input_features"),
        ({"tokens": "words"}, "tokens='words' has to be one of characters, bytes"),
    ],
)
def test_refused(options, message):
    assert message in said(lambda: source_of(**options))


def test_allowed_overlap():
    source = source_of(validation_split="train[90%:]", allow_overlap=True)
    assert len(source.train) == 492 and len(source.validation) == 6


def test_context_of_no_text():
    described = tl.arrays(inputs=np.zeros([9, 2]), targets=np.zeros([9]))
    assert (
        said(lambda: opened(described, context=4)) == "--context=4: is for texts, and mine is none"
    )
    assert "--tokens=bytes: is for texts" in said(lambda: opened(described, tokens="bytes"))


# Files


def test_file_and_folder(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT)
    options = SourceOptions(cache_dir="unused", context=8)
    alone = open_dataset(f"text:{tmp_path}/train.txt", options, None)
    assert alone.name == "train.txt" and len(alone.validation) == 6
    (tmp_path / "val.txt").write_text(TEXT[:100])
    source = open_dataset(f"text:{tmp_path}", options, None)
    assert (len(source.train), len(source.validation), source.test) == (492, 12, None)
    (tmp_path / "validation.txt").write_text(TEXT[:100])
    assert "has both" in said(lambda: open_dataset(f"text:{tmp_path}", options, None))


def test_missing_and_damaged_files(tmp_path):
    options = SourceOptions(cache_dir="unused")

    def at(name):
        return said(lambda: open_dataset(f"text:{tmp_path}/{name}", options, None))

    assert "there is no such file or folder" in at("none")
    (tmp_path / "folder").mkdir()
    assert "has no file train.txt" in at("folder")
    (tmp_path / "latin").write_bytes(b"caf\xe9 " * 100)
    assert "is not in UTF-8: byte 3 is 0xe9; convert it, or give --tokens=bytes" in at("latin")
    (tmp_path / "empty").write_bytes(b"")
    assert "holds nothing" in at("empty")
    assert "give a path or train=" in said(lambda: tl.text(validation=b"abc"))


@pytest.mark.skipif(data_dir() is None, reason="the prepared data sets are not here")
def test_tiny_shakespeare(tmp_path):
    options = SourceOptions(cache_dir=str(tmp_path), data_dir=data_dir())
    source = open_dataset("tiny_shakespeare", options, None)
    assert source.classes == 65 and len(source.train) == 1_003_854 - 64
    first = read_examples(source, source.train, np.array([0])).inputs[0]
    assert source.vocabulary.decode(first).startswith("First Citizen:\nBefore we proceed")
    joined = open_dataset(
        "tiny_shakespeare",
        SourceOptions(
            cache_dir=str(tmp_path),
            data_dir=data_dir(),
            validation_split="validation+test",
            test_split="",
        ),
        None,
    )
    assert len(joined.validation) == (1_115_394 - 1_003_854 - 1) // 64
