"""The process that renders chat templates; see `templates.py`. It ends when its standard input does.

Templates run in Jinja's immutable sandbox with what transformers gives them (`raise_exception`, `strftime_now`,
`tojson`, loop controls, `generation` around what an assistant said), so that those written for it render the same.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MEMORY = 768 << 20
_LONGEST = 4 << 20
#: Longer than anybody waits: a process that nobody is left to kill ends by itself.
_GIVE_UP_S = 60


class RefusedError(TemplateError):
    """The template itself says that it does not take these messages."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which transformers' training looks at: what is inside is rendered."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for line in sys.stdin.buffer:
        signal.alarm(_GIVE_UP_S)
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()
        signal.alarm(0)


def _answer(question: dict[str, Any]) -> dict[str, str]:
    try:
        text = _compiled(question["template"]).render(**question["variables"])
    except MemoryError:
        return {"code": "unsafe-model", "error": "takes too much memory"}
    except Exception as error:
        return {"code": "bad-input", "error": f"refuses these messages: {str(error)[:200]}"}
    if len(text) > _LONGEST:
        return {"code": "too-large", "error": "makes a prompt that is too long"}
    return {"text": text}


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise RefusedError(message)


if __name__ == "__main__":
    main()
