"""A real Redis of a test's own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

__all__ = ["RedisServer"]


class RedisServer:
    """A real redis-server of the test's own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        binary = shutil.which("redis-server")
        assert binary is not None
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    async def stop(self) -> None:
        """Killed, as a crash would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None
