"""Digests of files are made once: unchanged files are not read again; changed ones are found."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from pathlib import Path

import pytest

from pipelines.storage import fingerprint, known_files
from pipelines.storage.fingerprint import FileDigests, examples_digest, representatives

DAY = 86_400_000_000_000  # in nanoseconds


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data").mkdir()
    made = []
    for number in range(4):
        path = tmp_path / "data" / f"file-{number}"
        path.write_bytes(bytes([number]) * (100 + number))
        os.utime(path, ns=(DAY, DAY))
        made.append(str(path))
    return made


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Returns a function that digests files as a new process does: (digest, files that it read)."""
    monkeypatch.setattr(known_files, "_SETTLED", 0)
    real, read = fingerprint._read, []

    def counted(path, *rest):
        read.append(os.path.basename(path))
        return real(path, *rest)

    monkeypatch.setattr(fingerprint, "_read", counted)

    def start(paths, all_bytes=False, cache_dir=str(tmp_path / "cache")):
        fingerprint._known.clear()
        read.clear()
        ranges = [(path, 0, 7) for path in paths]
        return examples_digest(ranges, "recipe", all_bytes, cache_dir), list(read)

    return start


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_digest_is_as_ever(files):
    """Checkpoints hold these digests: SHA-256 of all bytes, or of the size and all or samples."""
    whole = hashlib.sha256(b"recipe\n")
    for path in files:
        file_digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        whole.update(f"0 7 {file_digest}\n".encode())
    expected = whole.hexdigest()[:32]
    assert examples_digest([(path, 0, 7) for path in files], "recipe") == expected


def test_sampled_digest_is_as_ever(files, monkeypatch):
    monkeypatch.setattr(fingerprint, "_WHOLE", 100)
    monkeypatch.setattr(fingerprint, "_known", {})
    content = Path(files[2]).read_bytes()
    file_digest = hashlib.sha256(f"{len(content)}\n".encode() + content).hexdigest()
    expected = hashlib.sha256(f"recipe\n0 7 {file_digest}\n".encode()).hexdigest()[:32]
    assert examples_digest([(files[2], 0, 7)], "recipe") == expected


def test_second_start_reads_nothing(files, start):
    first, read = start(files)
    assert read == names(files)
    assert start(files) == (first, [])
    assert start(files[:2])[1] == []
    assert start(files)[1] == []


def test_without_cache_directory(files, start):
    first, _ = start(files)
    assert start(files, cache_dir=None) == (first, names(files))


def test_links_are_read_once(files, start, tmp_path):
    """Hard and symbolic links, in any folder, count as the files that they lead to."""
    links = []
    for number, path in enumerate(files[:1] * 5 + files[1:2] * 5):
        link = tmp_path / f"link-{number}"
        (os.symlink if number % 2 else os.link)(path, link)
        links.append(str(link))
    digest, read = start(links)
    assert len(read) == 2
    fingerprint._known.clear()
    alike = [(path, 0, 7) for path in files[:1] * 5 + files[1:2] * 5]
    assert examples_digest(alike, "recipe") == digest
    assert start(links) == (digest, [])
    assert [links.index(each) for each in representatives(links)] == [0] * 5 + [5] * 5
    assert representatives([*links, "nowhere"])[-1] == "nowhere"


@pytest.mark.parametrize("set_back", [False, True], ids=["modified", "set back"])
def test_replaced_file_of_equal_size(files, start, set_back):
    """Its time of modification tells; where that is set back, the time of the change does."""
    first, _ = start(files)
    time.sleep(0.05)  # longer than a tick of the file system's clock
    with open(files[1], "r+b") as file:
        file.write(b"changed")
    if set_back:
        os.utime(files[1], ns=(DAY, DAY))
    digest, read = start(files)
    assert digest != first and read == names(files[1:2])
    assert start(files) == (digest, [])


def test_touched_file_is_read_again_alone(files, start):
    first, _ = start(files)
    os.utime(files[3], ns=(1, 1))
    assert start(files) == (first, names(files[3:]))
    assert start(files) == (first, [])


def test_file_that_changed_just_now(files, start, monkeypatch):
    """Such a file could change again within the clock's resolution, so it is read again."""
    monkeypatch.setattr(known_files, "_SETTLED", DAY)
    for path in files[:2]:
        os.utime(path, ns=(1, 1))
    assert start(files)[1] == start(files)[1] == names(files)
    monkeypatch.setattr(known_files, "_SETTLED", 0)
    assert start(files)[1] == names(files)
    assert start(files)[1] == []


def test_damaged_entry_is_made_again(files, start, tmp_path):
    first, _ = start(files)
    (entry,) = (tmp_path / "cache").glob("*.files")
    content = entry.read_bytes()
    for at in range(0, len(content), 23):
        damaged = bytearray(content)
        damaged[at] ^= 4
        entry.write_bytes(damaged)
        assert start(files) == (first, names(files)), at
        assert start(files) == (first, [])
    for wrong in (b"", content[:-1], content[:70], b"[]", b"0\n[]"):
        entry.write_bytes(wrong)
        assert start(files) == (first, names(files))


def test_both_kinds_are_kept(files, start, monkeypatch):
    monkeypatch.setattr(fingerprint, "_WHOLE", 100)
    sampled, whole = start(files), start(files, all_bytes=True)
    assert sampled[0] != whole[0] and sampled[1] == whole[1] == names(files)
    assert start(files) == (sampled[0], []) and start(files, all_bytes=True) == (whole[0], [])


def test_data_folder_is_not_written(files, start):
    folder = os.path.dirname(files[0])
    os.chmod(folder, 0o555)
    before = os.stat(folder).st_mtime_ns
    start(files)
    assert os.stat(folder).st_mtime_ns == before and len(os.listdir(folder)) == len(files)
    os.chmod(folder, 0o755)


def test_unwritable_cache(files, start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    first, _ = start(files)
    assert start(files, cache_dir=str(tmp_path / "file" / "cache")) == (first, names(files))


def test_interrupted_start_keeps_digests(files, start, monkeypatch, tmp_path):
    real = fingerprint._read

    def stops(path, *rest):
        if path == files[2]:
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(fingerprint, "_read", stops)
    with pytest.raises(KeyboardInterrupt):
        start(files)
    monkeypatch.setattr(fingerprint, "_read", real)
    assert start(files)[1] == names(files[2:])


def test_digests_are_saved_from_time_to_time(files, start, monkeypatch, tmp_path):
    """A process that is killed while it reads loses at most half a minute."""
    monkeypatch.setattr(fingerprint, "_SAVE_EVERY", -1.0)
    fingerprint._known.clear()
    digests = FileDigests(str(tmp_path / "cache"))
    for path in files[:3]:
        digests.digest(path, True)
    del digests  # without the end of a `with` block
    assert start(files)[1] == names(files[3:])


def test_two_processes_at_once(files, start, tmp_path):
    expected, _ = start(files, cache_dir=None)
    fingerprint._known.clear()
    children = []
    for number in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child runs no other thread
            child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(20):
                    found, _ = start([*files[number:], *files])
                    status = int(not found)
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert start(files)[0] == expected
    assert start(files) == (expected, [])
