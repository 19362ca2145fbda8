"""Runs Python where the machine's real resolver asks a name server that never answers. Linux, no root needed:

    unshare --map-root-user --mount --net python silent_dns.py DIRECTORY program.py …

In a network of its own, port 53 belongs to whoever runs this; in a mount namespace of its own, so does resolv.conf.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

FILES = {
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n",
    "nsswitch.conf": "hosts: files dns\n",
}
_SIOCSIFFLAGS, _UP = 0x8914, 0x1


def main() -> None:
    directory, *program = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))
    for name, text in FILES.items():
        file = Path(directory, name)
        file.write_text(text, encoding="utf-8")
        subprocess.run(["mount", "--bind", str(file), f"/etc/{name}"], check=True)
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 53))
    silent.set_inheritable(True)  # open as long as the program runs; nobody ever reads from it
    os.execv(sys.executable, [sys.executable, *program])


if __name__ == "__main__":
    main()
