"""Labels on a real broker, Mosquitto: published, found by Home Assistant, back after a restart."""

import json
import queue
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import paho.mqtt.client as paho
import pytest

from edgenet.errors import DeviceUnavailable, UsageError
from edgenet.stream.delivery import Delivery
from edgenet.stream.mqtt import Mqtt, parse_broker, shown_broker
from tests.stream.test_delivery import make_event, settle

MOSQUITTO = "/usr/sbin/mosquitto"
PASSWORD = "s3cr/et@:#word"
QUOTED = "s3cr%2Fet%40%3A%23word"


def free_port():
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Broker:
    """A broker that lets in one user, and what it was told."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"mqtt://door:{QUOTED}@127.0.0.1:{self.port}"
        self._users = folder / "users"
        subprocess.run(
            ["mosquitto_passwd", "-b", "-c", self._users, "door", PASSWORD],
            check=True,
            capture_output=True,
        )
        self._users.chmod(0o644)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {self._users}\nuser root\n"
        )
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < until
                assert self._process.poll() is None
                time.sleep(0.02)

    def stop(self):
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def broker(tmp_path):
    found = Broker(tmp_path)
    found.start()
    yield found
    found.stop()


class Listener:
    """Everything that is published, in order."""

    def __init__(self, broker, user="door", password=PASSWORD):
        self.messages = queue.Queue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_message = lambda _client, _data, message: self.messages.put(
            (message.topic, message.payload.decode(), message.retain)
        )
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def until(self, topic, timeout_s=10):
        """Return the next payload on a topic."""
        end = time.monotonic() + timeout_s
        while True:
            found, payload, _ = self.messages.get(timeout=end - time.monotonic())
            if found == topic:
                return payload

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(broker):
    found = Listener(broker)
    yield found
    found.close()


def test_a_label_is_published_and_kept_by_the_broker(broker, listener):
    with Delivery(Mqtt(parse_broker(f"{broker.url}/home/door"), model="mobilenet")) as way:
        assert listener.until("home/door/availability") == "online"
        event = make_event("Äpfel", 3)
        way.offer(event)
        assert json.loads(listener.until("home/door/state")) == event.fields()
        late = Listener(broker)
        assert json.loads(late.until("home/door/state")) == event.fields()
        late.close()
    assert listener.until("home/door/availability") == "offline"
    assert (way.delivered, way.lost, way.fault) == (1, 0, None)


def test_home_assistant_is_told_what_there_is(broker, listener):
    mqtt = Mqtt(parse_broker(f"{broker.url}/home/door"), model="mobilenet")
    for name in ("label", "probability", "age"):
        told = json.loads(listener.until(f"homeassistant/sensor/home_door/{name}/config"))
        assert told["state_topic"] == "home/door/state"
        assert told["availability_topic"] == "home/door/availability"
        assert told["unique_id"] == f"home_door_{name}"
        assert told["device"]["identifiers"] == ["home_door"]
        assert "value_json" in told["value_template"]
        assert set(told["value_template"].split("value_json.")[1].split()[0]) - set(")[]:}|") <= (
            set("abcdefghijklmnopqrstuvwxyz_0123456789")
        )
    mqtt.close()


def test_the_broker_says_that_we_are_gone_when_we_die(broker, listener):
    code = (
        "import sys, time\n"
        "from edgenet.stream.mqtt import Mqtt, parse_broker\n"
        "Mqtt(parse_broker(sys.argv[1]), model='m')\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, f"{broker.url}/door"])
    assert listener.until("door/availability") == "online"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert listener.until("door/availability") == "offline"


def test_a_restarted_broker_is_told_everything_again(broker):
    """It has kept nothing: this one does not write its memory to disk."""
    mqtt = Mqtt(parse_broker(f"{broker.url}/door"), model="m")
    with Delivery(mqtt) as way:
        way.offer(make_event("cat"))
        settle(lambda: way.delivered == 1)
        broker.stop()
        settle(lambda: not mqtt._client.is_connected())
        way.offer(make_event("dog"))
        settle(lambda: way.lost == 1)
        assert "gone for now" in way.fault
        broker.start()
        listener = Listener(broker)
        assert json.loads(listener.until("door/state", 20))["label"] == "dog"
        listener.close()
        way.offer(make_event("boat"))
        settle(lambda: way.delivered == 2)


@pytest.mark.parametrize("user", ["door:wrong", "", "nobody:x"])
def test_who_is_not_let_in_is_told_at_once(broker, user):
    url = f"mqtt://{user}@127.0.0.1:{broker.port}"
    started = time.monotonic()
    with pytest.raises(DeviceUnavailable, match="does not let us in") as refused:
        Mqtt(parse_broker(url), model="m")
    assert time.monotonic() - started < 5
    assert "wrong" not in str(refused.value)


def test_no_broker_at_all():
    url = f"mqtt://door:{QUOTED}@127.0.0.1:{free_port()}"
    with pytest.raises(DeviceUnavailable, match="no MQTT broker answers") as refused:
        Mqtt(parse_broker(url), model="m")
    assert "s3cr" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["broker", "http://broker/x", "mqtt://", "mqtt://b:x/", "mqtt://b/a/+/b", "mqtt://b/#"]
)
def test_no_urls(url):
    with pytest.raises(UsageError, match="--mqtt"):
        parse_broker(url)


def test_a_password_is_never_shown():
    broker = parse_broker(f"mqtts://u:{QUOTED}@host/a")
    assert (broker.host, broker.port, broker.password) == ("host", 8883, PASSWORD)
    assert "s3cr" not in f"{broker!r} {broker} {broker.address}"
    for password in (PASSWORD, "s3cr", "12/s3cr", "s3cr#", "s3cr?x", "[s3cr"):
        url = f"mqtt://u:{password}@host:1883/a?x"
        assert shown_broker(url) == "mqtt://host:1883/a?x"
        with pytest.raises(UsageError) as refused:
            parse_broker(url)
        assert "s3cr" not in str(refused.value)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert shown_broker("rtsp://x") == "rtsp://x"
