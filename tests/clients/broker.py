"""A broker process under test: its own data directory, a free port, its log in a file."""

import atexit
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


def free_port():
    """One that no outgoing connection is given: while a broker is down, its clients' own attempts could take its port."""
    try:
        given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        given = 32768
    for _ in range(100):
        port = random.SystemRandom().randrange(min(10_000, given - 1), given)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    return 0


class Broker:
    """Started at once, with its defaults but for `settings`, under the command `wrapper` (strace) if there is one."""

    def __init__(self, binary, directory, settings=(), wrapper=()):
        self.directory = Path(directory)
        self.data = self.directory / "data"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.wrapper = list(wrapper)
        self.command = [binary, "serve", "--data", str(self.data)]
        for setting in settings:
            self.command += ["--set", setting]
        # A restart keeps the port, so that clients find it again.
        self.address = f"127.0.0.1:{free_port()}"
        self.starts = 0
        self.start()
        # A part that fails leaves none behind.
        atexit.register(self.kill)

    def start(self):
        self.starts += 1
        self.log = self.directory / f"broker-{self.starts}.log"
        with self.log.open("wb") as log:
            command = [*self.wrapper, *self.command, "--listen", self.address]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            found = re.search(r"listening on (\S+)\n", self.log.read_text(errors="replace"))
            if found:
                self.address = found[1]
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"the broker did not start:\n{self.log_tail()}")

    def kill(self):
        """kill -9, as the out-of-memory killer would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; gives the exit code."""
        if self.process.poll() is None:
            # Under a wrapper the broker is the wrapper's child; the wrapper then ends with its exit code.
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            os.kill(int(children[0]) if self.wrapper and children else self.process.pid, signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return "none: it had to be killed"

    def log_tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
