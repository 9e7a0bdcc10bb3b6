"""TLS as the uplink wants it: 1.2 or newer, host name and certificate checked, files read at each connect."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from edge_agent.config.models import MqttSettings
from edge_agent.contract import ConfigError


class _Context(ssl.SSLContext):
    """Shakes hands while it wraps, so that a failed handshake closes its socket; and tells what it wrapped."""

    sockets: list[socket.socket]

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(*args, **{**kwargs, "do_handshake_on_connect": True})
        self.sockets.append(wrapped)
        return wrapped


def tls_context(settings: MqttSettings, sockets: list[socket.socket]) -> ssl.SSLContext:
    """TLS 1.2 or newer, host name and certificate checked; made anew so that replaced files are seen.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sockets = sockets
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=settings.ca)
        except OSError as error:
            raise ConfigError(f"mqtt.ca: {settings.ca} cannot be used: {error.strerror or error}") from error
    if settings.certificate is not None and settings.key is not None:
        key = settings.key.path()
        try:
            # A password is never asked for: a daemon has nobody to ask.
            context.load_cert_chain(settings.certificate, key, password=lambda: "")
        except OSError as error:
            raise ConfigError(
                f"mqtt.certificate {settings.certificate} with mqtt.key {key} cannot be used: {error.strerror or error}"
            ) from error
    return context
