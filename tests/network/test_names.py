"""Names are told over the cluster; one that means two models is an error that lists both."""

from __future__ import annotations

import pytest
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import AccelError
from striking import wait_until


def test_a_name_is_known_everywhere_and_one_for_two_models_is_refused(tmp_path):
    with NodeProcess("one", tmp_path / "one", "--backends", "echo") as one:
        token = one.wait_ready()["token"]
        with (
            NodeProcess("other", tmp_path / "other", "--backends", "echo", "--join", token) as other,
            one.client() as at_one,
            other.client() as at_other,
        ):
            first = at_one.add_model(make_echo_model(tmp_path / "first", work_ms=1), "shared")["cid"]
            other.wait_known(first)
            assert at_other.model_info("shared")["cid"] == first
            assert at_other.submit("shared", "echo", "x").result(20)["echo"] == "x"
            second = at_other.add_model(make_echo_model(tmp_path / "second", work_ms=2), "shared")["cid"]
            one.wait_known(second)
            for client in (at_one, at_other):
                for ask in (
                    lambda client=client: client.submit("shared", "echo", "x").result(20),
                    lambda client=client: client.model_info("shared"),
                ):
                    with pytest.raises(AccelError) as refused:
                        ask()
                    assert refused.value.code == "ambiguous-model"
                    assert first in refused.value.message
                    assert second in refused.value.message
            assert at_one.submit(second, "echo", "by its CID").result(20)["echo"] == "by its CID"
            at_other.remove_model(second)
            wait_until(lambda: len({m["cid"] for m in at_one.models()}) == 1, what="one model left")
            assert at_one.model_info("shared")["cid"] == first
