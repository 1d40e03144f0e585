"""A client's driver as a process that says what happens, one JSON object a line (see members.py)."""

import json
import subprocess
import threading

END_SECONDS_MAX = 60


class Process:
    """Runs at once; what it says is collected as it comes. It ends when its standard input does."""

    def __init__(self, name, command):
        self.name, self.events, self.errors = name, [], ""
        # Whether its end is wanted, and whether it had to be forced.
        self.wanted, self.hung = False, False
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(list(map(str, command)), **pipes, text=True)
        self.readers = [threading.Thread(target=self.listen), threading.Thread(target=self.gather)]
        for reader in self.readers:
            reader.start()

    def listen(self):
        for line in self.process.stdout:
            # The last line of a killed process may be torn.
            if line.endswith("}\n"):
                self.events.append(json.loads(line))

    def gather(self):
        self.errors = self.process.stderr.read()

    def end(self, seconds=END_SECONDS_MAX):
        """Waits until it has ended and everything that it said was read."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.hung = True
        for reader in self.readers:
            reader.join()

    def kill(self):
        self.wanted = True
        self.process.kill()
        self.end()

    def leave(self):
        """Asks it to leave; end() waits for that."""
        self.wanted = True
        self.process.stdin.close()

    def lives(self):
        return self.process.poll() is None

    def said(self, kind):
        """Its events of a kind."""
        return [event for event in list(self.events) if event["e"] == kind]

    def failure(self):
        """How it ended if nobody wanted that, else None. Call it after end()."""
        said = [event["why"] for event in self.said("fatal")]
        if self.hung:
            return f"{self.name} had to be ended by force"
        if self.wanted and self.process.returncode in (0, -9) and not said:
            return None
        return f"{self.name}: exit code {self.process.returncode}; {said} {self.errors[-800:]}"
