"""The output of one job as its caller has it, whichever attempts gave it: nothing twice, nothing left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocols.errors import AccelError, ErrorCode
from ..protocols.resumption import MOST_CHARACTERS, MOST_TOKENS


class Delivered:
    """Token ids in their order, and how many characters of their text were given out."""

    def __init__(self, token_ids: Sequence[int] = (), characters: int = 0) -> None:
        self.token_ids = list(token_ids)
        self.characters = characters

    def __bool__(self) -> bool:
        return bool(self.token_ids or self.characters)

    def copy(self) -> Delivered:
        return Delivered(self.token_ids, self.characters)

    def take(self, offset: int, token_ids: Sequence[int], text: str) -> bool:
        """Whether a chunk is new, and so goes to the caller; one that was given out already does not.

        Raises:
            AccelError: protocol-error when tokens are missing before it, or it is partly new; when there is no end
                of it.
        """
        have = len(self.token_ids)
        if offset + len(token_ids) <= have and (offset < have or not text):
            return False
        if offset != have:
            raise AccelError(
                ErrorCode.PROTOCOL_ERROR, f"the node gave out token {offset} when {have} were there", "It was left."
            )
        if have + len(token_ids) > MOST_TOKENS or self.characters + len(text) > MOST_CHARACTERS:
            raise AccelError(ErrorCode.PROTOCOL_ERROR, "the node gives out more than any job asks for", "It was left.")
        self.token_ids += token_ids
        self.characters += len(text)
        return True
