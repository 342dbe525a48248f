"""A relay that answers by a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.demo.relay import Relay
from outbox.testing.draining import HANG_UP
from outbox.testing.mails import Received


class Scripted(Relay):
    """`answers` maps a stage (``mail``, ``rcpt``, ``dot``; ``mail:ADDRESS`` and ``rcpt:ADDRESS`` win over the first
    two) to a reply, or to a list of them: for the first time, the second …, and after its end yes.
    """

    def __init__(self, answers: Mapping[str, str | Sequence[str]]) -> None:
        super().__init__()
        self.mails: list[Received] = []
        self._answers = {key.lower(): [each] if isinstance(each, str) else list(each) for key, each in answers.items()}
        self._once = {key.lower() for key, each in answers.items() if not isinstance(each, str)}

    def answer_to_sender(self, address: str) -> str:
        return self._answer("mail", address) or super().answer_to_sender(address)

    def answer_to(self, address: str) -> str:
        return self._answer("rcpt", address) or super().answer_to(address)

    def accept(self, sender: str, recipients: list[str], content: bytes) -> str:
        scripted = self._answer("dot")
        if scripted and not scripted.startswith("250"):
            return scripted
        self.mails.append(Received(sender, tuple(recipients), content))
        honest = super().accept(sender, recipients, content)
        return scripted or honest

    def _answer(self, stage: str, address: str = "") -> str:
        key = f"{stage}:{address.lower()}"
        key = key if address and key in self._answers else stage
        left = self._answers.get(key)
        if not left:
            return ""
        answer = left.pop(0) if key in self._once else left[0]
        if answer == HANG_UP:
            raise EOFError
        return answer
