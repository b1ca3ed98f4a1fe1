"""One answer out of two legs: the first token from prefill, the rest from decode, none twice."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.errors import LegsDisagreeError

__all__ = ["Splice"]


@dataclass(slots=True)
class Splice:
    """Both legs give the first token; whichever comes first is shown, the other is compared.

    ::

        prefill  7
        decode      7 8   9 ...
        shown    7  8     9 ...
    """

    first_token_id: int | None = None
    _decode_seen: bool = False

    def prefill(self, token_id: int) -> tuple[int, ...]:
        """What to show when the prefill leg gives its token.

        Raises:
            LegsDisagreeError: The decode leg began with another token.
        """
        return self._first(token_id)

    def decode(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """What to show when the decode leg gives tokens.

        Raises:
            LegsDisagreeError: The prefill leg gave another first token.
        """
        if self._decode_seen or not token_ids:
            return token_ids
        self._decode_seen = True
        return self._first(token_ids[0]) + token_ids[1:]

    def _first(self, token_id: int) -> tuple[int, ...]:
        if self.first_token_id is None:
            self.first_token_id = token_id
            return (token_id,)
        if self.first_token_id != token_id:
            raise LegsDisagreeError(
                f"one leg's first token is {self.first_token_id}, the other's {token_id}: "
                "the KV cache is suspect"
            )
        return ()
