"""A supervisor with workers, in processes of their own, for tests."""

from __future__ import annotations

from pathlib import Path

from live import ServerProcess, eventually

APP = """
import asyncio, os, time

PID = str(os.getpid()).encode()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": PID.decode()})
        return
    await answer(scope, receive, send)

async def answer(scope, receive, send):
    path, body = scope["path"], PID
    if path == "/leader":
        body = b"%d %d" % (os.getpid(), bool(scope["state"]["headrace.leader"]))
    elif path == "/slow":
        await asyncio.sleep(1)
    elif path == "/held":
        await asyncio.sleep(60)
    elif path == "/block":
        block_the_loop()
    elif path == "/exit":
        os._exit(7)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def block_the_loop():
    print("blocking", flush=True)
    time.sleep(120)
"""


class Supervised(ServerProcess):
    """``headrace run`` with workers."""

    def workers(self) -> list[int]:
        """Process numbers of all workers that live."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except OSError:
            return []

    def answering(self) -> int:
        """The process number that one request on a new connection is answered by."""
        return int(self.connect().request("/", headers=["connection: close"]).body)

    def wait_ready(self, count: int) -> list[int]:
        """Wait until so many workers, and no others, have said that they serve."""

        def are_there() -> bool:
            living = self.workers()
            return len(living) == count and all(f"[{pid}] is ready" in self.text for pid in living)

        eventually(are_there, f"{count} workers")
        return self.workers()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
