"""What goes wrong around the clients under test: connections are cut at random, brokers are killed and restarted."""

import random
import socket
import threading
import time

# How many bytes a connection has in the direction in which it is cut: between these, evenly by their logarithm.
REQUEST_BYTES, ANSWER_BYTES = (150, 300_000), (60, 20_000)


class Proxy:
    """Stands before a broker, which must advertise `address`; `target` is the broker's own. It cuts none of the
    connections that begin while it is `calm`, as it is at first."""

    def __init__(self, seed):
        self.random, self.target, self.calm, self.connections = random.Random(seed), None, True, 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host, port = self.target.split(":")
            try:
                broker = socket.create_connection((host, int(port)))
            except OSError:
                client.close()
                continue
            self.connections += 1
            requests = answers = float("inf")
            if not self.calm and self.random.random() < 0.5:
                requests = self.between(*REQUEST_BYTES)
            elif not self.calm:
                answers = self.between(*ANSWER_BYTES)
            pause = self.random.uniform(0, 0.2)
            threading.Thread(target=pump, args=(client, broker, requests, 0), daemon=True).start()
            threading.Thread(target=pump, args=(broker, client, answers, pause), daemon=True).start()

    def between(self, low, high):
        return int(low * (high / low) ** self.random.random())

    def close(self):
        self.listener.close()


def pump(source, sink, left, pause):
    """Hands on so many bytes; then, after a pause in which the other direction goes on, cuts both."""
    try:
        while left > 0:
            data = source.recv(1 << 16)
            if not data:
                break
            data = data[: min(len(data), left)]
            sink.sendall(data)
            left -= len(data)
        if left == 0:
            time.sleep(pause)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def burn(broker, rng, seconds, pauses=(0.5, 3)):
    """Kills the broker again and again, or now and then stops it, and restarts it; gives what was wrong, as texts."""
    problems, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(*pauses))
        if rng.random() < 0.25:
            code = broker.stop()
            if code != 0:
                problems.append(f"start {broker.starts} ended with {code}")
        else:
            broker.kill()
        time.sleep(rng.uniform(0, 0.4))
        broker.start()
    return problems
