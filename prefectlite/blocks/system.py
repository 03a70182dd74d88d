"""Single values as blocks: a secret, a text, a time, any JSON. The types are Prefect 2.8's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import SecretStr

from prefectlite.blocks import Block


class Secret(Block):
    """A text that nobody is to see.

    Attributes:
        value: The text.
    """

    value: SecretStr

    def get(self) -> str:
        """Return the text, in clear."""
        return self.value.get_secret_value()


class JSON(Block):
    """Anything that JSON can say.

    Attributes:
        value: The value.
    """

    value: Any


class String(Block):
    """A text.

    Attributes:
        value: The text.
    """

    value: str


class DateTime(Block):
    """A moment.

    Attributes:
        value: The moment; aware, if it was saved with a zone.
    """

    value: datetime
