"""OpenAI answers: whole ones, and the chunks of a stream.

The last one carries an object of our own, `thunderserve`, that clients ignore: ttft_s, tpot_s,
prefill_group, decode_group, plan_epoch, kv_raw_bytes, kv_wire_bytes, kv_exposed_s,
kv_exposed_bytes and retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thunderserve.core.request import FinishReason, GenerationReport

__all__ = ["Bodies", "chat_bodies", "completion_bodies"]

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of one answer, of one of the two kinds."""

    chat: bool
    id: str
    model: str
    created_unix_s: int
    include_usage: bool

    def whole(self, text: str, reason: FinishReason, report: GenerationReport) -> Body:
        """The answer in one piece."""
        text_of = (
            {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        )
        body = self._body(self._choice(text_of, reason), streamed=False)
        return body | {"usage": _usage(report), "thunderserve": _figures(report)}

    def first(self) -> Body | None:
        """What opens a stream: a chat begins with its role."""
        return self._piece({"role": "assistant", "content": ""}) if self.chat else None

    def piece(self, text: str) -> Body:
        """Some more text."""
        return self._piece({"content": text})

    def last(self, reason: FinishReason, report: GenerationReport) -> tuple[Body, ...]:
        """What closes a stream: the finish reason, then the usage if it was asked for."""
        text_of: Body = {"delta": {}} if self.chat else {"text": ""}
        end = self._body(self._choice(text_of, reason), streamed=True)
        if not self.include_usage:
            return (end | {"thunderserve": _figures(report)},)
        closing = {"choices": [], "usage": _usage(report), "thunderserve": _figures(report)}
        return end, end | closing

    def _piece(self, delta: Body) -> Body:
        text_of = {"delta": delta} if self.chat else {"text": delta["content"]}
        return self._body(self._choice(text_of, None), streamed=True)

    def _choice(self, text_of: Body, reason: FinishReason | None) -> Body:
        finish = None if reason is None else reason.value
        return {"index": 0, **text_of, "logprobs": None, "finish_reason": finish}

    def _body(self, choice: Body, *, streamed: bool) -> Body:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        body: Body = {
            "id": self.id,
            "object": kind,
            "created": self.created_unix_s,
            "model": self.model,
            "choices": [choice],
        }
        return body | {"usage": None} if streamed and self.include_usage else body


def chat_bodies(request_id: str, model: str, created_unix_s: int, *, include_usage: bool) -> Bodies:
    """For `/v1/chat/completions`."""
    return Bodies(True, f"chatcmpl-{request_id}", model, created_unix_s, include_usage)  # noqa: FBT003 - the class's own maker


def completion_bodies(
    request_id: str, model: str, created_unix_s: int, *, include_usage: bool
) -> Bodies:
    """For `/v1/completions`."""
    return Bodies(False, f"cmpl-{request_id}", model, created_unix_s, include_usage)  # noqa: FBT003 - the class's own maker


def _usage(report: GenerationReport) -> Body:
    usage = report.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _figures(report: GenerationReport) -> Body:
    transfer = report.transfer
    return {
        "ttft_s": round(report.ttft_s, 6),
        "tpot_s": round(report.tpot_s, 6),
        "prefill_group": report.prefill_group,
        "decode_group": report.decode_group,
        "plan_epoch": report.plan_epoch,
        "kv_raw_bytes": None if transfer is None else transfer.raw_bytes,
        "kv_wire_bytes": None if transfer is None else transfer.wire_bytes,
        "kv_exposed_s": None if transfer is None else round(transfer.exposed_s, 6),
        "kv_exposed_bytes": None if transfer is None else transfer.exposed_bytes,
        "retries": report.retries,
    }
