"""The label on an MQTT broker, found by Home Assistant by itself.

Topics below PREFIX, by default `edgenet/HOSTNAME`: `state`, the last event as JSON, retained, and
`availability`, "online" or, by the broker's own doing, "offline". Below `homeassistant/` stand the
retained descriptions that its MQTT integration reads. Needs paho-mqtt, the extra `mqtt`; the
password of the URL goes to the broker and nowhere else.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edgenet import __version__
from edgenet.errors import DeviceUnavailable, UsageError, needs_extra
from edgenet.stream.events import Event

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}
CONNECT_S = 5.0
KEEPALIVE_S = 15
"""The broker says "offline" after one and a half of these without a word from us."""
ONLINE, OFFLINE = "online", "offline"
DISCOVERY = "homeassistant"
AT_LEAST_ONCE = 1
ENCODE = "in user and password write / as %2F, @ as %40, # as %23"
EXAMPLE = "mqtt://user:password@broker/edgenet/door"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where to publish."""

    host: str
    port: int
    encrypted: bool
    prefix: str
    """Of all topics of ours."""
    user: str | None
    password: str | None

    def __repr__(self) -> str:
        """Return the address without the password."""
        return f"Broker({self.address}/{self.prefix})"

    @property
    def address(self) -> str:
        """Return what may be shown."""
        return f"{'mqtts' if self.encrypted else 'mqtt'}://{self.host}:{self.port}"

    @property
    def identity(self) -> str:
        """Return the prefix as one word, as Home Assistant wants identities to be."""
        return re.sub(r"[^a-zA-Z0-9_-]+", "_", self.prefix)


def parse_broker(url: str) -> Broker:
    """Return the broker in a URL; raises `UsageError`, which does not repeat its password."""
    shown = shown_broker(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"--mqtt {shown}: is no address; {ENCODE}; such as {EXAMPLE}") from None
    if "@" in parts.path:  # a slash in the password has ended it, and the rest is not what it seems
        raise UsageError(f"--mqtt {shown}: {ENCODE}; such as {EXAMPLE}")
    if parts.scheme not in PORTS or not parts.hostname:
        raise UsageError(f"--mqtt {shown}: give mqtt:// or mqtts://, such as {EXAMPLE}")
    prefix = unquote(parts.path).strip("/") or f"edgenet/{socket.gethostname()}"
    if {"+", "#", "?", "\0"} & {*prefix, *url.rpartition("@")[2]}:
        raise UsageError(f"--mqtt {shown}: the path is the topics' prefix, without + # and ?")
    return Broker(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        encrypted=parts.scheme == "mqtts",
        prefix=prefix,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def shown_broker(url: str) -> str:
    """Return a broker's URL without its user and password; any other text as it is."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in PORTS:
        return url
    return f"{scheme}://{rest.rpartition('@')[2]}"


class Mqtt:
    """A connection to a broker that comes back by itself; a sink of `Delivery`."""

    def __init__(self, broker: Broker, *, model: str) -> None:
        """Connect; `model` is what Home Assistant shows of the device.

        Raises `MissingExtra` without paho-mqtt, `DeviceUnavailable` when the broker is not there
        or does not let us in.
        """
        with needs_extra("mqtt"):
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        self.name = "mqtt"
        self._broker, self._model = broker, model
        self._answered = threading.Event()
        self._refusal: str | None = None
        self._state: str | None = None
        self._client: Client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(100)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if broker.encrypted:
            self._client.tls_set()
        self._client.will_set(self._topic("availability"), OFFLINE, AT_LEAST_ONCE, retain=True)
        self._client.on_connect = self._connected
        self._client.connect_timeout = CONNECT_S
        try:
            self._client.connect(broker.host, broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise DeviceUnavailable(
                f"{broker.address}: no MQTT broker answers ({error}); start it or give another URL"
            ) from None
        self._client.loop_start()
        if not self._answered.wait(CONNECT_S):
            self._refusal = f"no answer in {CONNECT_S:g} s"
        if self._refusal is not None:
            self._client.loop_stop()
            raise DeviceUnavailable(
                f"{broker.address}: the broker does not let us in ({self._refusal}); "
                "check user and password in the URL"
            )

    def deliver(self, event: Event) -> None:
        """Publish an event as the state.

        Raises `DeviceUnavailable` while there is no connection; the last state is published when
        it is back.
        """
        self._state = json.dumps(event.fields(), ensure_ascii=False)
        if not self._client.is_connected():
            raise DeviceUnavailable(f"{self._broker.address}: the connection is gone for now")
        self._publish("state", self._state)

    def close(self) -> None:
        """Say "offline" and leave."""
        if self._client.is_connected():
            self._publish("availability", OFFLINE).wait_for_publish(CONNECT_S)
            self._client.disconnect()
        self._client.loop_stop()

    def _connected(
        self, client: Client, _data: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        """Tell everything anew: a broker that was restarted may have forgotten it."""
        if reason.is_failure:
            self._refusal = str(reason)
            self._answered.set()
            return
        for name, description in self._descriptions().items():
            topic = f"{DISCOVERY}/sensor/{self._broker.identity}/{name}/config"
            client.publish(topic, json.dumps(description), AT_LEAST_ONCE, retain=True)
        self._publish("availability", ONLINE)
        if self._state is not None:
            self._publish("state", self._state)
        self._answered.set()

    def _publish(self, name: str, text: str) -> Any:
        return self._client.publish(self._topic(name), text, AT_LEAST_ONCE, retain=True)

    def _topic(self, name: str) -> str:
        return f"{self._broker.prefix}/{name}"

    def _descriptions(self) -> dict[str, dict[str, Any]]:
        """Return what Home Assistant is told of each of our sensors.

        https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
        """
        identity = self._broker.identity
        shared = {
            "state_topic": self._topic("state"),
            "availability_topic": self._topic("availability"),
            "device": {
                "identifiers": [identity],
                "name": self._broker.prefix,
                "manufacturer": "edgenet",
                "model": self._model,
                "sw_version": __version__,
            },
        }
        return {
            "label": {
                **shared,
                "name": "Label",
                "unique_id": f"{identity}_label",
                "icon": "mdi:tag",
                # A state is at most 255 characters long.
                "value_template": "{{ value_json.label[:255] }}",
                "json_attributes_topic": self._topic("state"),
            },
            "probability": {
                **shared,
                "name": "Probability",
                "unique_id": f"{identity}_probability",
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "value_template": "{{ (100 * value_json.probability) | round(1) }}",
            },
            "age": {
                **shared,
                "name": "Frame age at label",
                "unique_id": f"{identity}_age",
                "unit_of_measurement": "ms",
                "device_class": "duration",
                "entity_category": "diagnostic",
                "value_template": "{{ value_json.age_ms }}",
            },
        }
