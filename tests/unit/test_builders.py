"""Opening and preparing TFDS data sets: from disk if possible, else the network; errors."""

import http.server
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pipelines.sources import builders, preparation


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS data set of six plain images; needs the network if `url_infos` is set."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(6):
            yield index, {"image": np.full((2, 2, 1), index, np.uint8), "label": index % 2}


class Fetched(Tiny, skip_registration=True):
    url_infos = {"https://data.example/tiny.gz": None}  # noqa: RUF012


class Broken(Tiny, skip_registration=True):
    def _generate_examples(self):
        raise OSError("the server\nclosed the connection")
        yield


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(preparation, "is_reachable", lambda url: False)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Returns a data_dir with versions 1.2.0, 1.9.0 and 1.10.0 of `tiny`."""
    root = tmp_path_factory.mktemp("shelf")
    preparation.prepare(Tiny(data_dir=str(root)))
    for version in ("1.9.0", "1.10.0"):
        place = root / "tiny" / version
        shutil.copytree(root / "tiny" / "1.2.0", place)
        info = place / "dataset_info.json"
        info.write_text(info.read_text().replace('"1.2.0"', f'"{version}"'))
    return root


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_network_advice(tmp_path, no_network):
    with pytest.raises(ValueError) as error:
        preparation.prepare(Fetched(data_dir=str(tmp_path)))
    said = message(error)
    for needed in (str(tmp_path), "connect", "another machine", "--data_dir", "--dataset=digits"):
        assert needed in said
    assert list(tmp_path.iterdir()) == []


def test_missing_tfds_data_set(tmp_path, no_network):
    with pytest.raises(ValueError, match="network cannot be reached"):
        builders.open_builder("mnist", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_dropped_packets_time_out(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(30))
    start = time.monotonic()
    assert not preparation.is_reachable("https://data.example/file", seconds=0.3)
    assert time.monotonic() - start < 2
    assert preparation.PROBE_TIMEOUT_SECONDS <= 8


def test_refused_connection(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not preparation.is_reachable("http://127.0.0.1:9/file")


def test_error_status_is_reachable(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        assert preparation.is_reachable(f"http://127.0.0.1:{server.server_address[1]}/file")
        thread.join(5)


def test_no_download_no_network(tmp_path, monkeypatch, capsys):
    """A builder without downloads does not probe the network."""
    monkeypatch.setattr(preparation, "is_reachable", lambda url: pytest.fail("asked the network"))
    builder = Tiny(data_dir=str(tmp_path))
    preparation.prepare(builder)
    assert builder.info.splits["train"].num_examples == 6
    assert builder.info.file_format.value == "tfrecord"
    assert capsys.readouterr().out == ""


def test_failed_download(tmp_path):
    builder = Broken(data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="the server closed the connection") as error:
        preparation.prepare(builder)
    message(error)
    assert not builder.data_path.exists()


def test_empty_version_directory(tmp_path):
    builder = Tiny(data_dir=str(tmp_path))
    builder.data_path.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no dataset_info\.json: remove"):
        preparation.prepare(builder)


def test_opens_highest_version(shelf):
    """Prepared data is opened without its code, at the highest version."""
    for name, version in (
        ("tiny", "1.10.0"),
        ("tiny:1.2.0", "1.2.0"),
        ("tiny:1.*.*", "1.10.0"),
        (str(shelf / "tiny" / "1.9.0"), "1.9.0"),
    ):
        assert str(builders.open_builder(name, str(shelf)).version) == version


def test_finds_config(shelf, tmp_path):
    shutil.copytree(shelf / "tiny" / "1.2.0", tmp_path / "other" / "small" / "1.2.0")
    for name in ("other", "other/small", "other/small:1.2.0"):
        assert builders.open_builder(name, str(tmp_path)).data_dir.endswith("other/small/1.2.0")
    shutil.copytree(shelf / "tiny" / "1.2.0", tmp_path / "other" / "large" / "1.2.0")
    with pytest.raises(ValueError, match=r"other/large:1\.2\.0, other/small:1\.2\.0"):
        builders.open_builder("other", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnsit", "did you mean mnist"),
        ("tinny", "did you mean tiny"),
        ("digts:1.0.0", "digits"),
        ("qqqqqq", "has tiny"),
        ("tiny:7.0.0", r"which has tiny:1\.10\.0"),
        ("mnist:9.9.9", r"only: 3\.0\.1"),
        ("mnist/large", "no config 'large'"),
        ("imdb_reviews/plain", "it has plain_text"),
        ("someone:mnist", "community"),
        ("two words", "is not a data set name"),
        ("", "is not a data set name"),
        ("/nowhere/mnist/3.0.1", "no prepared data set in /nowhere"),
    ],
)
def test_unknown_name(shelf, name, said):
    start = time.monotonic()
    with pytest.raises(ValueError, match=said) as error:
        builders.open_builder(name, str(shelf))
    message(error)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_garbled_metadata(shelf, tmp_path, file):
    place = tmp_path / "tiny" / "1.2.0"
    shutil.copytree(shelf / "tiny" / "1.2.0", place)
    (place / file).write_text('{"name": ')
    with pytest.raises(ValueError, match="cannot read the data set in") as error:
        builders.open_builder("tiny", str(tmp_path))
    assert str(place) in message(error)


def test_refuses_remote_data_dir():
    with pytest.raises(ValueError, match="only local directories"):
        builders.open_builder("mnist", "gs://bucket/data")
