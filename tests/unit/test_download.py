"""Looking on disk before the network, and saying what to do when neither has the data."""

import http.server
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pipelines import builders, download


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Six bare images; claims a file on the network if `url_infos` is set on it."""

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
    monkeypatch.setattr(download, "is_reachable", lambda url: False)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A data_dir with `tiny` 1.2.0, and a second and a tenth version of it."""
    root = tmp_path_factory.mktemp("shelf")
    download.prepare(Tiny(data_dir=str(root)))
    for version in ("1.9.0", "1.10.0"):
        place = root / "tiny" / version
        shutil.copytree(root / "tiny" / "1.2.0", place)
        info = place / "dataset_info.json"
        info.write_text(info.read_text().replace('"1.2.0"', f'"{version}"'))
    return root


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_network_is_told_with_the_three_things_to_do(tmp_path, no_network):
    with pytest.raises(ValueError) as error:
        download.prepare(Fetched(data_dir=str(tmp_path)))
    said = message(error)
    for needed in (str(tmp_path), "connect", "another machine", "--data_dir", "--dataset=digits"):
        assert needed in said
    assert list(tmp_path.iterdir()) == []


def test_a_tfds_data_set_that_is_not_there_asks_the_network_and_nothing_else(tmp_path, no_network):
    with pytest.raises(ValueError, match="network cannot be reached"):
        builders.open_builder("mnist", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_drops_packets_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(30))
    start = time.monotonic()
    assert not download.is_reachable("https://data.example/file", seconds=0.3)
    assert time.monotonic() - start < 2
    assert download.PROBE_SECONDS <= 8


def test_a_refused_connection_is_no_network(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not download.is_reachable("http://127.0.0.1:9/file")


def test_any_answer_is_a_network_even_an_error_status(monkeypatch):
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
        assert download.is_reachable(f"http://127.0.0.1:{server.server_address[1]}/file")
        thread.join(5)


def test_a_builder_without_downloads_never_asks_the_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "is_reachable", lambda url: pytest.fail("asked the network"))
    builder = Tiny(data_dir=str(tmp_path))
    download.prepare(builder)
    assert builder.info.splits["train"].num_examples == 6
    assert builder.info.file_format.value == "tfrecord"
    assert capsys.readouterr().out == ""


def test_a_failing_download_is_one_line_and_leaves_no_data_set(tmp_path):
    builder = Broken(data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="the server closed the connection") as error:
        download.prepare(builder)
    message(error)
    assert not builder.data_path.exists()


def test_an_empty_version_directory_is_not_taken_for_the_data(tmp_path):
    builder = Tiny(data_dir=str(tmp_path))
    builder.data_path.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no dataset_info\.json: remove"):
        download.prepare(builder)


def test_prepared_data_is_opened_without_its_code_highest_version_first(shelf):
    for name, version in (
        ("tiny", "1.10.0"),
        ("tiny:1.2.0", "1.2.0"),
        ("tiny:1.*.*", "1.10.0"),
        (str(shelf / "tiny" / "1.9.0"), "1.9.0"),
    ):
        assert str(builders.open_builder(name, str(shelf)).version) == version


def test_a_config_is_found_by_name_or_as_the_only_one(shelf, tmp_path):
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
        ("two words", "no data set name"),
        ("", "no data set name"),
        ("/nowhere/mnist/3.0.1", "no prepared data set in /nowhere"),
    ],
)
def test_an_unknown_name_is_one_line_with_a_way_out(shelf, name, said):
    start = time.monotonic()
    with pytest.raises(ValueError, match=said) as error:
        builders.open_builder(name, str(shelf))
    message(error)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_garbled_metadata_is_one_line_that_names_the_directory(shelf, tmp_path, file):
    place = tmp_path / "tiny" / "1.2.0"
    shutil.copytree(shelf / "tiny" / "1.2.0", place)
    (place / file).write_text('{"name": ')
    with pytest.raises(ValueError, match="cannot read the data set in") as error:
        builders.open_builder("tiny", str(tmp_path))
    assert str(place) in message(error)


def test_a_remote_data_dir_is_refused():
    with pytest.raises(ValueError, match="only local directories"):
        builders.open_builder("mnist", "gs://bucket/data")
