"""Answers to servers that ask for a password, against the examples of their standards."""

import re

import pytest

from edgenet.stream.credentials import Login, authorization, login_of

MUFASA = Login(user="Mufasa", password="Circle of Life")
CHALLENGE = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


def test_login_of_a_url():
    login = login_of("rtsp://us%40er:p%2Fw%40@h/x")
    assert (login.user, login.password) == ("us@er", "p/w@")
    assert "p/w" not in repr(login)
    assert login_of("rtsp://h/x") is None


def test_basic():
    answer = authorization(["Basic realm=x"], Login(user="Aladdin", password="open sesame"), "", "")
    assert answer == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest(monkeypatch, algorithm, response):
    """RFC 7616, section 3.9.1, whose client's nonce is given."""
    once = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr("edgenet.stream.credentials.secrets.token_hex", lambda _: once)
    asked = ["Basic realm=x", CHALLENGE.format(algorithm)]
    answer = authorization(asked, MUFASA, "GET", "/dir/index.html")
    assert answer.startswith("Digest ")
    assert re.search(r'response="(\w+)"', answer)[1] == response
    assert "Circle" not in answer


def test_digest_without_qop():
    """RFC 2069, as old cameras have it; the example of its errata."""
    asked = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    login = Login(user="Mufasa", password="CircleOfLife")
    answer = authorization([asked], login, "GET", "/dir/index.html")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in answer


def test_what_cannot_be_answered():
    assert authorization(["Bearer x"], MUFASA, "GET", "/") is None
    assert authorization([CHALLENGE.format("SHA-512-256")], MUFASA, "GET", "/") is None
    assert authorization([], MUFASA, "GET", "/") is None
    assert authorization(["Digest realm, nonce=, qop"], MUFASA, "GET", "/") is None
