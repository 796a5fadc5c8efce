"""Lists of corpora: whatever a file holds, it is read or refused with one message that names it."""

import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from downstream_tasks import lengths
from downstream_tasks.ks.dataset import split_of
from tests.fuzz.corpora import CORPORA, write_corpus
from tests.fuzz.helpers import contents, files_in, outcome


@pytest.fixture(scope="module", params=list(CORPORA))
def corpus(request, tmp_path_factory):
    """A corpus of a few files, and its readers."""
    files, readers = CORPORA[request.param]
    root = tmp_path_factory.mktemp(request.param)
    write_corpus(root, files)
    return root, files, readers


LONG = b"a" * 300
BROKEN_ONCE = {
    "ic": [(b"lights", b"x" * 140_000)],  # longer than Python's csv takes
    "ic-prepare": [(b"wavs/a/1.wav", b"/nowhere/1.wav"), (b"wavs/a", LONG)],
    "sv": [(b"id10001/video_1/", b"a//"), (b"id10001/video_1/", b"/nowhere/b/"), (b"video_1", LONG)],
    "sv-prepare": [(b"id10001/video_1/", b"/nowhere/b/"), (b"video_1", LONG)],
    "asr-table": [(b"1600", b"9" * 5000), (b"1600", "²".encode()), (b"train", b"\0"), (b"19/198", LONG)],
    "er": [(b'"neu"', b"[" * 100_000), (b"Session1/", LONG), (b"Session1/", b"\\ud800"), (b"Session1/", b"\\u0000")],
}
"""What led to a traceback: in a valid file, this instead of that."""
READERS = [(corpus, reader) for corpus, (_, readers) in CORPORA.items() for reader in readers]


@pytest.mark.parametrize(("corpus", "name"), READERS, indirect=["corpus"], ids=[name for _, name in READERS])
def test_lists(tried, corpus, name):
    root, files, readers = corpus
    reader = readers[name]
    path = root / reader.file
    valid = files[reader.file].encode()
    write_corpus(root, files)
    reader.read(root)

    @given(contents(valid))
    def holds(content):
        path.write_bytes(content)
        outcome(lambda: reader.read(root), path.name, str(root), "corpus.lexicon")
        left = files_in(root) - set(files)
        assert not [file for file in left if not file.startswith(reader.written)]
        assert not [file for file in left if file.endswith((".partial", ".unfinished", ".tmp"))]

    for old, new in BROKEN_ONCE.get(name, ()):
        holds = example(valid.replace(old, new, 1))(holds)
    try:
        tried(holds)
    finally:
        write_corpus(root, files)


def test_kept_lengths(tried, tmp_path):
    """Whatever the file of lengths holds: the lengths are right, and it is whole afterwards."""
    files = ["a.wav", "b.wav"]
    write_corpus(tmp_path, dict.fromkeys(files, ""))
    assert lengths.audio_lengths(tmp_path, files) == [1600, 1600]
    (path,) = (tmp_path / lengths.FOLDER).iterdir()
    valid = path.read_bytes()
    kept = json.loads(valid)

    @given(contents(valid))
    @example(json.dumps({**kept, "lengths": [0, 1600]}).encode())
    @example(json.dumps({**kept, "key": "x", "lengths": [1, 2]}).encode())
    def holds(content):
        path.write_bytes(content)
        found = outcome(lambda: lengths.audio_lengths(tmp_path, files))
        assert len(found) == 2
        assert all(type(length) is int and length > 0 for length in found)
        assert json.loads(path.read_bytes())["lengths"] == found
        if content != path.read_bytes():  # it was measured anew
            assert path.read_bytes() == valid
        assert files_in(tmp_path) == {*files, path.relative_to(tmp_path).as_posix()}

    tried(holds)


def test_split_of_any_name(tried):
    @given(st.binary(max_size=20).map(os.fsdecode))
    def holds(name):
        assert split_of(name) in ("train", "dev", "unused")

    tried(holds)
