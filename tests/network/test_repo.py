"""The care of a store, as a user takes it: damage is mended from a peer, what is over goes, what is used stays."""

from __future__ import annotations

from pathlib import Path

from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node.node.content.importer import import_folder
from striking import Held

MIB = 1 << 20


def make_model(folder: Path, name: str, size: int = 2 * MIB) -> Path:
    path = make_echo_model(folder / name)
    (path / "weights.safetensors.txt").write_bytes(name[0].encode() * size)
    return path


def damage(path: str) -> None:
    with (Path(path) / "weights.safetensors.txt").open("r+b") as file:
        file.seek(MIB + 7)
        file.write(b"!")


def test_damage_is_found_without_a_node_and_mended_from_a_peer(tmp_path):
    model = make_model(tmp_path, "shared")
    with NodeProcess("holder", tmp_path / "holder", "--backends", "none") as holder, holder.client() as at_holder:
        cid = at_holder.add_model(model, "shared")["cid"]
        join = ("--backends", "none", "--join", holder.wait_ready()["token"])
        with NodeProcess("desk", tmp_path / "desk", *join) as desk:
            desk.wait_for("the holder's model", lambda: has_holder(desk), 30)
            with desk.client() as client:
                client.get_model(cid)
                damage(client.model_info(cid)["path"])
        found = run_json("repo", "verify", data_dir=tmp_path / "desk", status=1)
        assert [each["damaged"] for each in found] == [["weights.safetensors.txt"]]
        assert "--repair" in run("repo", "verify", "shared", data_dir=tmp_path / "desk").stdout

        with NodeProcess("desk", tmp_path / "desk", "--backends", "none") as desk, desk.client() as client:
            desk.wait_ready()
            states: list[str] = []
            told = client.repo_verify("shared", on_progress=lambda state, *_: states.append(state))
            assert told[0]["damaged"] == ["weights.safetensors.txt"]
            assert "repaired" not in told[0]
            assert "verifying" in states
            assert client.model_info("shared")["damaged"] == ["weights.safetensors.txt"]
            checks = run_json("doctor", data_dir=desk.data_dir, status=1)["checks"]
            assert [each["name"] for each in checks if each["code"] == "corrupt-content"] == ["model shared"]
            desk.wait_for("the holder's model", lambda: has_holder(desk), 30)
            mended = client.repo_verify("shared", repair=True)
            assert mended[0]["repaired"] is True
            assert client.repo_verify()[0]["damaged"] == []
            assert import_folder(Path(client.model_info(cid)["path"])).size == told[0]["size"]


def test_what_nobody_has_cannot_be_mended_and_stays(tmp_path):
    with NodeProcess("desk", tmp_path / "desk", "--backends", "none") as desk, desk.client() as client:
        client.add_model(make_model(tmp_path, "alone"), "alone")
        damage(client.model_info("alone")["path"])
        told = run_json("repo", "verify", "alone", "--repair", data_dir=desk.data_dir, status=1)
        assert told[0]["repaired"] is False
        assert told[0]["error"]["code"] == "content-not-found"
        assert client.model_info("alone")["here"] is True
        assert "could not be repaired" in run("repo", "verify", "alone", "--repair", data_dir=desk.data_dir).stdout


def test_over_the_limit_the_oldest_unpinned_goes(tmp_path):
    folders = [make_model(tmp_path, name) for name in ("kept", "oldest", "later", "newest")]
    limit = ("--disk-limit", "7M")
    with NodeProcess("desk", tmp_path / "desk", "--backends", "none", *limit) as desk, desk.client() as client:
        for folder in folders[:3]:
            client.add_model(folder, folder.name)
        client.pin_model("kept")
        client.add_model(folders[3], "newest")
        assert names(client) == {"kept", "later", "newest"}
        assert client.repo_stat()["limit"] == 7 * MIB
        assert "limit" in run("repo", "stat", data_dir=desk.data_dir).stdout
        huge = make_model(tmp_path, "huge", 8 * MIB)
        refused = run_json("model", "add", huge, data_dir=desk.data_dir, status=1)["error"]
        assert refused["code"] == "disk-full"
        assert "disk_limit" in refused["hint"]
        assert names(client) == {"kept", "later", "newest"}, "nothing goes where that would not be enough"


def test_a_fetch_makes_room_as_well(tmp_path):
    with NodeProcess("holder", tmp_path / "holder", "--backends", "none") as holder, holder.client() as at_holder:
        cid = at_holder.add_model(make_model(tmp_path, "wanted"), "wanted")["cid"]
        join = ("--backends", "none", "--disk-limit", "3M", "--join", holder.wait_ready()["token"])
        with NodeProcess("desk", tmp_path / "desk", *join) as desk, desk.client() as client:
            client.add_model(make_model(tmp_path, "mine"), "mine")
            desk.wait_for("the holder's model", lambda: has_holder(desk), 30)
            client.get_model(cid)
            assert {model["name"] for model in client.models() if model["here"]} == {"wanted"}


def test_collecting_leaves_what_is_pinned_and_what_a_job_uses(tmp_path):
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk, desk.client() as client:
        for name in ("pinned", "running", "idle"):
            folder = make_model(tmp_path, name)
            if name == "idle":  # nothing of it is loaded, so nothing waits for the job of the other
                (folder / "config.json").write_text('{"model_type": "unheard-of"}')
            client.add_model(folder, name)
        client.pin_model("pinned")
        desk.wait_ready()
        held = Held(tmp_path, "compute")
        job = client.submit("running", "echo", ["slow"], timeout=60, **held.params)
        held.wait()
        planned = run_json("repo", "gc", "--unpinned", "--dry-run", data_dir=desk.data_dir)
        assert {model["name"] for model in planned["models"]} == {"running", "idle"}
        assert planned["dry_run"] is True
        assert names(client) == {"pinned", "running", "idle"}
        collected = client.repo_gc(unpinned=True)
        assert [model["name"] for model in collected["models"]] == ["idle"]
        assert collected["freed"] > 2 * MIB
        assert names(client) == {"pinned", "running"}
        held.release()
        assert job.result(20)["echo"] == ["slow"]


def test_without_a_node(tmp_path):
    data = tmp_path / "data"
    for name in ("one", "two"):
        run_json("model", "add", make_model(tmp_path, name), "--name", name, data_dir=data)
    run_json("pin", "add", "one", data_dir=data)
    assert "Nothing would go" in run("repo", "gc", "--dry-run", data_dir=data).stdout
    assert [model["name"] for model in run_json("repo", "gc", "--unpinned", data_dir=data)["models"]] == ["two"]
    assert run_json("repo", "stat", data_dir=data)["pinned"] > 2 * MIB
    assert run_json("repo", "verify", data_dir=data)[0]["damaged"] == []
    assert run_json("repo", "verify", "two", data_dir=data, status=2)["error"]["code"] == "unknown-model"


def has_holder(node: NodeProcess) -> bool:
    """Whether it is linked with a peer that says it has a model."""
    with node.client() as client:
        return any(peer["models"] and peer["linked"] for peer in client.peers())


def names(client) -> set[str]:
    return {model["name"] for model in client.models()}
