"""Keeps a port that a library has opened to every machine to this machine alone.

TensorFlow's data service listens on all addresses and has no option to do otherwise. Linux lets a process put a filter
on its own sockets: here one that drops every packet which does not come from this machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_NETWORK_HEADER = 0xFFF00000  # of an address: what follows counts from the IP header (SKF_NET_OFF)
_BYTE, _WORD, _SHIFT, _EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 0x06
_SO_ATTACH_FILTER = 26
# (code, jump if true, jump if false, operand): IPv4 from 127.0.0.0/8, IPv6 from ::1.
_FROM_LOOPBACK = (
    (_BYTE, 0, 0, _NETWORK_HEADER), (_SHIFT, 0, 0, 4),
    (_EQUAL, 0, 2, 4), (_BYTE, 0, 0, _NETWORK_HEADER + 12), (_EQUAL, 9, 10, 127),
    (_EQUAL, 0, 9, 6),
    (_WORD, 0, 0, _NETWORK_HEADER + 8), (_EQUAL, 0, 7, 0),
    (_WORD, 0, 0, _NETWORK_HEADER + 12), (_EQUAL, 0, 5, 0),
    (_WORD, 0, 0, _NETWORK_HEADER + 16), (_EQUAL, 0, 3, 0),
    (_WORD, 0, 0, _NETWORK_HEADER + 20), (_EQUAL, 0, 1, 1),
    (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0),
)  # fmt: skip
_LISTENS, _CONNECTED = "0A", "01"


def keep_to_this_machine(port: int) -> None:
    """Makes the sockets of this process that listen on a port deaf to other machines.

    Raises:
      OSError: this system has no such filters; or another machine has connected before the filter was there.
    """
    inodes = {inode for state, _, inode in _list_sockets(port) if state == _LISTENS}
    found = 0
    for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{descriptor}") in {f"socket:[{inode}]" for inode in inodes}:
                _attach(int(descriptor))
                found += 1
    if not found:
        raise OSError("no socket of this process was found that listens there")
    if any(state == _CONNECTED and not is_local for state, is_local, _ in _list_sockets(port)):
        raise OSError("another machine has connected already; start it again")


def _attach(descriptor: int) -> None:
    content = b"".join(struct.pack("HBBI", *line) for line in _FROM_LOOPBACK)
    buffer = ctypes.create_string_buffer(content)
    program = struct.pack("HL", len(_FROM_LOOPBACK), ctypes.addressof(buffer))
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _list_sockets(port: int) -> Iterator[tuple[str, bool, str]]:
    """Yields (state, whether the other end is this machine's, inode) of each TCP socket whose local port this is."""
    for name in ("tcp", "tcp6"):
        path = Path("/proc/self/net") / name
        for line in path.read_text().splitlines()[1:] if path.is_file() else ():
            fields = line.split()
            address = fields[2].rpartition(":")[0]
            # Words in the processor's order: 127.x.x.x ends with 7F, ::1 and IPv4 in IPv6 likewise.
            is_local = address[-2:] == "7F" or address == "00000000000000000000000001000000"
            if int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[3], is_local, fields[9]
