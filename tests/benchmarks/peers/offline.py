"""No network but 127.0.0.1 for this process and all that it starts.

By a network namespace of its own (network_namespaces(7)), in which only ``lo`` is. Someone who is not
root has it with a user namespace around it, where the system lets him.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from fcntl import ioctl
from pathlib import Path

# Of unshare(2), as <linux/sched.h> has them.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# From netdevice(7): set the flags of an interface.
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def go_offline() -> bool:
    """Leave the network for good; return whether that was possible. Not after a thread was started."""
    if sys.platform != "linux":
        return False
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER) != 0:
        return False
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _raise_loopback()
    return True


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP, b""))
