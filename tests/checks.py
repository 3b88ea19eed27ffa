"""Checks that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inverse.errors import InputError


def check_one_line(call: Callable[[], Any], *words: str, error: type[Exception] = InputError) -> str:
    """The call is refused by one line that holds the words; returns the line."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message
