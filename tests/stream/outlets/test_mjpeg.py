"""A real server and real clients: OpenCV's, and sockets that misbehave."""

import http.client
import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edgenet.errors import AddressUnavailable
from edgenet.stream.listening import Address
from edgenet.stream.outlets.mjpeg import MOST_CLIENTS, MjpegServer

ANY_PORT = Address(host="127.0.0.1", port=0)


@pytest.fixture
def server():
    with MjpegServer(ANY_PORT, quality=90) as running:
        yield running


@pytest.fixture
def playing(server):
    """A server that shows frames whose grey counts up."""
    stop = threading.Event()

    def show():
        value = 0
        while not stop.wait(0.01):
            value = (value + 1) % 250
            server.show(np.full((240, 320, 3), value, np.uint8))

    thread = threading.Thread(target=show)
    thread.start()
    yield server
    stop.set()
    thread.join()


def get(server, path, method="GET"):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    connection.request(method, path)
    return connection, connection.getresponse()


def test_opencv_reads_it(playing):
    capture = cv2.VideoCapture(playing.url, cv2.CAP_FFMPEG)
    means = []
    for _ in range(10):
        there, frame = capture.read()
        assert there
        assert frame.shape == (240, 320, 3)
        means.append(frame.mean())
    capture.release()
    assert np.all(np.diff(means) > 0)


def test_waits_until_somebody_watches(server):
    seen = threading.Event()
    waiting = threading.Thread(target=lambda: (server.wait(), seen.set()))
    waiting.start()
    connection, response = get(server, "/")
    assert response.status == 404
    connection.close()
    assert not seen.wait(0.5)
    connection, response = get(server, "/stream.mjpg")
    assert seen.wait(5)
    connection.close()
    waiting.join()


@pytest.mark.parametrize("path", ["/", "/../../etc/passwd", "/stream.mjpg/..", "/stream.mjpg?x=1"])
def test_there_is_nothing_else(playing, path):
    connection, response = get(playing, path)
    assert response.status == 404
    assert b"root:" not in response.read()
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_put_there(playing, method):
    connection, response = get(playing, "/stream.mjpg", method)
    assert response.status == 501
    connection.close()


def test_a_limited_number_of_clients(playing):
    clients = [get(playing, "/stream.mjpg") for _ in range(MOST_CLIENTS)]
    assert {response.status for _, response in clients} == {200}
    refused, response = get(playing, "/stream.mjpg")
    assert response.status == 503
    refused.close()
    for connection, response in clients:
        response.close()
        connection.close()
    deadline = time.monotonic() + 10
    while True:  # their places come free when the next frame cannot be sent
        connection, response = get(playing, "/stream.mjpg")
        response.close()
        connection.close()
        if response.status == 200:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_that_takes_nothing_does_not_hold_up_the_others(playing):
    address = urlsplit(playing.url)
    slow = socket.create_connection((address.hostname, address.port))
    slow.sendall(b"GET /stream.mjpg HTTP/1.0\r\n\r\n")
    capture = cv2.VideoCapture(playing.url, cv2.CAP_FFMPEG)
    began, values = time.monotonic(), []
    for _ in range(50):
        values.append(capture.read()[1].mean())
    capture.release()
    slow.close()
    assert time.monotonic() - began < 5
    assert np.all(np.diff(values) > 0)


def test_a_port_in_use_is_one_clear_error(server):
    port = urlsplit(server.url).port
    with pytest.raises(AddressUnavailable, match=rf"port {port} on 127.* in use .*--listen"):
        MjpegServer(Address(host="127.0.0.1", port=port), quality=90)


def test_an_address_of_another_machine_is_one_clear_error():
    with pytest.raises(AddressUnavailable, match=r"192\.0\.2\.1 is no address of this machine"):
        MjpegServer(Address(host="192.0.2.1", port=0), quality=90)


def test_nothing_is_left_behind():
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with MjpegServer(ANY_PORT, quality=90) as server:
            connection, response = get(server, "/stream.mjpg")
            server.show(np.zeros((240, 320, 3), np.uint8))
        response.close()
        connection.close()
    deadline = time.monotonic() + 5
    while (
        threading.active_count() > threads or len(os.listdir("/proc/self/fd")) > descriptors  # noqa: PTH208
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
