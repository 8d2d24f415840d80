"""Messages to a prompt, by the chat template that the model's folder brings.

A template is a program in Jinja's language, and somebody else's: it runs in a process apart (`backends/templates.py`),
bounded in time and memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..interface import BackendError
from ..loading import inside, read_json
from ..templates import TemplateProcess

MAX_MESSAGES: Final = 4096
_MAX_TEMPLATE: Final = 1 << 20
_SPECIALS: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplate:
    """The template of one folder; `exists` is false where it brings none."""

    def __init__(self, folder: Path) -> None:
        settings = read_json(folder, "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        self._source = _source(folder, settings)
        self._specials = {name: text for name in _SPECIALS if (text := _token(settings.get(name)))}
        self._process = TemplateProcess()

    @property
    def exists(self) -> bool:
        return self._source is not None

    @property
    def begins(self) -> str:
        """The token that texts begin with, empty where there is none."""
        return self._specials.get("bos_token", "")

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The prompt that asks for the assistant's next message.

        Raises:
            BackendError: bad-input where there is no template or it refuses the messages; unsafe-model where it
                takes too much time or memory.
        """
        if self._source is None:
            raise BackendError("bad-input", "this model has no chat template", "Give it a text instead of messages.")
        return self._process.render(
            self._source, {"messages": messages, "add_generation_prompt": True, **self._specials}
        )

    def close(self) -> None:
        self._process.close()


def read_messages(inputs: Any) -> list[dict[str, str]]:
    """Raises BackendError bad-input for anything but a list of `{"role": …, "content": …}`."""
    sound = isinstance(inputs, list) and inputs and all(map(_is_message, inputs))
    if not sound or len(inputs) > MAX_MESSAGES:
        raise BackendError(
            "bad-input",
            "the input is neither a text nor a list of messages",
            'A message is {"role": "user", "content": "a text"}.',
        )
    return [{"role": each["role"], "content": each["content"]} for each in inputs]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _source(folder: Path, settings: dict[str, Any]) -> str | None:
    """`chat_template.jinja`, `chat_template.json`, or what `tokenizer_config.json` says; the one called default."""
    path = inside(folder, "chat_template.jinja")
    if path.exists():
        try:
            return path.read_bytes()[:_MAX_TEMPLATE].decode()
        except (OSError, ValueError):
            raise BackendError("not-a-model", "its chat_template.jinja cannot be read") from None
    named_so = (folder / "chat_template.json").exists()
    given = (read_json(folder, "chat_template.json") if named_so else settings).get("chat_template")
    if isinstance(given, list):
        named = {each.get("name"): each.get("template") for each in given if isinstance(each, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _token(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""
