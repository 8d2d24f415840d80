"""Chat templates render as transformers renders them, and a hostile one harms nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from ipfs_accel_node.backends.interface import BackendError
from ipfs_accel_node.backends.templates import TemplateProcess

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Say "ü" & <b>'}]
TEMPLATES = {
    "plain": "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}{{ bos_token }}",
    "trimmed blocks": "{% for m in messages %}\n {% if loop.first %}\n a\n {% endif %}\n{{ m.role }}\n{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "to json": "{{ messages | tojson }} {{ messages | tojson(indent=2) }}",
    "the day": "{{ strftime_now('%Y') }}",
}  # fmt: skip


@pytest.fixture
def process():
    made = TemplateProcess(deadline_s=3.0)
    yield made
    made.close()


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_renders_as_transformers_does(process, name):
    from transformers.utils.chat_template_utils import render_jinja_template

    variables = {"messages": MESSAGES, "add_generation_prompt": True, "bos_token": "<s>"}
    rendered = process.render(TEMPLATES[name], variables)
    expected, _ = render_jinja_template(
        conversations=[MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=True, bos_token="<s>"
    )
    assert rendered == expected[0]


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ raise_exception('roles must alternate') }}", "bad-input"),
        ("{{ ''.__class__.__mro__ }}", "bad-input"),
        ("{{ messages.append(1) }}", "bad-input"),
        ("{% if %}", "bad-input"),
        ("{{ 'a' * (10 ** 9) }}", "unsafe-model"),
        ("{{ 'a' * (10 ** 7) }}", "too-large"),
        ("{{ '日' * (10 ** 7) }}", "too-large"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "unsafe-model"),
    ],
)
def test_a_hostile_template_is_an_error_with_a_code_and_the_next_one_renders(process, template, code):
    with pytest.raises(BackendError) as failed:
        process.render(template, {"messages": MESSAGES})
    assert failed.value.code == code
    assert process.render("{{ messages | length }}", {"messages": MESSAGES}) == "2"


def test_a_process_that_died_is_started_again(process):
    assert process.render("a", {}) == "a"
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert process.render("b", {}) == "b"


def test_closing_leaves_no_process(process):
    process.render("a", {})
    pid = process._process.pid
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_million_characters_go_in_and_come_out(process):
    text = "日本" * 1_000_000
    assert process.render("{{ messages[0].content }}", {"messages": [{"content": text}]}) == text


def test_it_ends_by_itself_when_nobody_is_left_to_kill_it():
    from ipfs_accel_node.backends import render_templates

    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    code = f"import {render_templates.__name__} as it; it._GIVE_UP_S = 1; it.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps({"template": endless, "variables": {}}).encode(), timeout=60
    )
    assert done.returncode == -signal.SIGALRM
