"""A port that listens on every address answers this machine alone."""

from __future__ import annotations

import os
import socket

import pytest

from msst_keras.pipeline.loopback import keep_to_this_machine


def find_own_address():
    """An address of this machine that is not its loopback's; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            return None


def can_connect(address, port):
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not os.path.isdir("/proc/self/net"), reason="filters of sockets are Linux's")
@pytest.mark.parametrize("family, loopback", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_other_addresses_get_no_answer(family, loopback):
    own = find_own_address()
    if own is None:
        pytest.skip("this machine has no address but its loopback's")
    try:
        listener = socket.create_server(("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except (OSError, ValueError):
        pytest.skip("this machine has no such addresses")
    with listener:
        port = listener.getsockname()[1]
        assert can_connect(own, port)
        keep_to_this_machine(port)
        assert can_connect("127.0.0.1", port) and not can_connect(own, port)
        if family == socket.AF_INET6:
            assert can_connect(loopback, port)


def test_a_port_of_nobody_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="no socket of this process was found that listens there"):
            keep_to_this_machine(free.getsockname()[1])
