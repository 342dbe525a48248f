"""A command that prints an access token, for everything that no grant of ours covers.

    eyJ0eXAiOiJKV1QiLCJhbGciOi…        the token
    3600                                for how many seconds it is good; may be left out

or one JSON object as a token endpoint has it: ``{"access_token": "…", "expires_in": 3600}``. The command is run without
a shell, and without our own OUTBOX_… variables, which hold keys. What it says on standard error is not kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress

from outbox.core.secret import Secret
from outbox.oauth.answer import Granted, GrantError, is_token, life_of, read_grant

DEADLINE = 30.0
"""Seconds for the command; then it is killed, with everything it has started."""
MAX_OUTPUT = 64 * 1024


async def run(command: tuple[str, ...], *, deadline: float = DEADLINE) -> Granted:
    """The token that the command prints. Raises GrantError; the command's arguments and output are in no error."""
    outcome = await _run(command, deadline)
    if isinstance(outcome, GrantError):
        raise outcome
    return outcome


async def _run(command: tuple[str, ...], deadline: float) -> Granted | GrantError:
    name = f"the token command {command[0]}"
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith("OUTBOX_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return GrantError(f"{name} cannot be run: {getattr(error, 'strerror', '') or error}", permanent=True)
    assert process.stdout is not None
    ended = False
    try:
        async with asyncio.timeout(deadline):
            output = await _all_of(process.stdout)
            if len(output) > MAX_OUTPUT:
                return GrantError(f"{name} prints more than {MAX_OUTPUT // 1024} KiB", permanent=False)
            status = await process.wait()
            ended = True
    except TimeoutError:
        return GrantError(f"{name} has not ended within {deadline:g} s", permanent=False)
    finally:
        if not ended:
            await _kill(process)
    if status != 0:
        return GrantError(f"{name} ends with {status}; run it yourself to see what it says", permanent=False)
    return read(output, name)


async def _all_of(stream: asyncio.StreamReader) -> bytes:
    """Everything, or one byte more than it may be."""
    content = b""
    while len(content) <= MAX_OUTPUT and (part := await stream.read(MAX_OUTPUT + 1 - len(content))):
        content += part
    return content


async def _kill(process: asyncio.subprocess.Process) -> None:
    """It and, where there are process groups, everything it has started."""
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def read(output: bytes, name: str) -> Granted | GrantError:
    """The token in what a command printed. `name` says what has printed it."""
    try:
        lines = output.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return GrantError(f"{name} prints letters that no token has", permanent=False)
    if lines[0].lstrip().startswith("{"):
        try:
            answer = json.loads(output)
        except (ValueError, RecursionError):
            return GrantError(f"{name} prints JSON that is none", permanent=False)
        return read_grant(answer, name)
    token = lines[0].removesuffix("\r")
    if not token:
        return GrantError(f"{name} prints no token in its first line", permanent=False)
    if not is_token(token):
        return GrantError(f"{name} prints a first line that is no token", permanent=False)
    return Granted(Secret(token), life_of(lines[1].strip() if len(lines) > 1 else None))
