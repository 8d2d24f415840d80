"""Settings that nobody would write: a configuration comes out, or one line that says which setting."""

from __future__ import annotations

from fuzzing import targets
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.config import _SETTINGS

KEYS = st.sampled_from([setting.key for setting in _SETTINGS.values()] + ["threadz", "node.name", '"a b"', "data_dir"])
VALUES = st.sampled_from(
    ["1", "0", "-1", "1e400", "inf", "nan", "true", "1979-05-27T07:32:00Z", "07:32:00", "[]", "[[]]", "{}", "{a = 1}",
     '""', '"none"', '"8G"', '"999999999999999999999999T"', '"\\u0000"', '"\\n"', '"ian1x"', "'''\nx\n'''", "0xff",
     "9" * 400, '["/ip4/1.2.3.4/tcp/1/p2p/x"]', '"' + "x" * 3000 + '"']
)  # fmt: skip
LINES = st.lists(st.builds("{} = {}".format, KEYS, VALUES) | st.sampled_from(["[node]", "[[threads]]", "# x", "= ="]))
VARIABLES = st.lists(
    st.builds(
        "{}={}".format,
        KEYS.map(str.upper),
        st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=("Cs",)), max_size=12),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(LINES, VARIABLES)
def test_settings_of_any_kind(lines, variables):
    targets.config("\n".join(lines).encode() + b"\0" + "\n".join(variables).encode())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_file_with_anything_in_it(content):
    targets.config(content)


def test_a_file_nested_deep():
    for opening in (b"a = " + b"[" * 3000, b"a" + b".a" * 5000 + b" = 1", b"a = " + b"{a = " * 3000):
        targets.config(opening)
