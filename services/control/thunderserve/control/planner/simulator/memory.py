"""A group's KV memory: tokens set aside and given back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KvMemory"]


@dataclass(slots=True, eq=False)
class KvMemory:
    """Tokens of KV cache that a group can hold."""

    capacity_tokens: int
    used_tokens: int = 0
    peak_tokens: int = 0

    @property
    def peak_ratio(self) -> float:
        """The most that was set aside at once."""
        return self.peak_tokens / self.capacity_tokens if self.capacity_tokens else 0.0

    def try_take(self, tokens: int) -> bool:
        """Set so many aside, if there is room."""
        if self.used_tokens + tokens > self.capacity_tokens:
            return False
        self.used_tokens += tokens
        self.peak_tokens = max(self.peak_tokens, self.used_tokens)
        return True

    def give_back(self, tokens: int) -> None:
        """They can be used again."""
        self.used_tokens -= tokens
