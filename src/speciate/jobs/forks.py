"""What asks a zygote for a fork that becomes a program, and waits for its end. Standard library only."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence

from speciate.jobs.zygote import Program
from speciate.sandbox import warm


class ForkedProgram:
    """A fork of a zygote, over the connection on which it was asked for."""

    def __init__(self, connection: socket.socket, told: warm.Message) -> None:
        self.pid, self._watch, self._asked = told["pid"], told["watch"], connection

    def wait(self) -> int | None:
        """Its status, as of os.waitstatus_to_exitcode; None where its zygote died before it."""
        with self._asked:
            message = warm.receive(self._asked, None)
            if not message:
                select.select([self._watch], [], [])
            os.close(self._watch)
        return message.get("status") if message else None


def start(address: str, program: Program, descriptors: Sequence[int]) -> ForkedProgram | None:
    """Once its zygote has made the imports; None where there is none, or it died over them."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(address)
        warm.ask(connection, program, descriptors)
        told = warm.receive(connection, None)
        if told and "pid" in told:
            return ForkedProgram(connection, told)
    except OSError:
        pass
    connection.close()
    return None
