"""The token in a file: made once, read by its owner alone, refused where that is not so."""

import stat

import pytest

from edgenet.errors import NotWritable, UsageError
from edgenet.stream.viewer.token import kept_token


def test_it_stays_the_same(tmp_path):
    path = tmp_path / "page-token"
    token = kept_token(path)
    assert len(token) >= 22
    assert kept_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["page-token"]
    assert kept_token(tmp_path / "another") != token


def test_one_of_ones_own(tmp_path):
    path = tmp_path / "page-token"
    path.write_text("a-token-of-my-own\n")
    path.chmod(0o640)
    assert kept_token(path) == "a-token-of-my-own"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short\n",
        b"with a space in it 123",
        b"a-token-of-my-own\nand-another-one",
        b"\xff" * 30,
    ],
)
def test_what_is_none(tmp_path, content):
    path = tmp_path / "page-token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="page-token: ") as refused:
        kept_token(path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_one_that_everybody_can_read(tmp_path):
    path = tmp_path / "page-token"
    path.write_text("a-token-of-my-own\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="everybody can read it; run: chmod o-r"):
        kept_token(path)


def test_where_none_can_be(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        kept_token(tmp_path)
    with pytest.raises(NotWritable, match=r"cannot be written .* with --token-file$"):
        kept_token(tmp_path / "missing" / "page-token")
