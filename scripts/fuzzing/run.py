"""Fuzzes one target, or all in turn, guided by coverage. Needs atheris: .venv/bin/pip install atheris

example:
  ./scripts/fuzz frames 600
  ./scripts/fuzz all 60 --json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzzing.corpus import CORPUS
from fuzzing.targets import TARGETS

#: One input that takes longer, in seconds, or with which memory passes this, in MiB, is a finding as well.
_INPUT_S: Final = 10
_MEMORY_MIB: Final = 1024
_LARGEST: Final = 8192
_ENDING_S: Final = 60
_STATUS: Final = re.compile(r"#(\d+)\s+\w+.*?cov: (\d+)")
_FOUND: Final = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True)
class Outcome:
    """`coverage` counts the places of the program that were reached; `findings` are files, each an input that fails."""

    target: str
    seconds: int
    executions: int
    coverage: int
    findings: list[str]
    log: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("seconds", type=int, help="for each target")
    parser.add_argument("--keep", type=Path, help="a folder for what is learnt, to go on from the next time")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    asked = parser.parse_args()
    if find_spec("atheris") is None:
        print("error: atheris is not installed. Install it: .venv/bin/pip install atheris", file=sys.stderr)
        return 2
    with TemporaryDirectory(prefix="ian-fuzz-corpus-") as temporary:
        folder = asked.keep or Path(temporary)
        names = list(TARGETS) if asked.target == "all" else [asked.target]
        outcomes = [fuzz(name, asked.seconds, folder.absolute(), quiet=asked.json) for name in names]
    if asked.json:
        print(json.dumps({"outcomes": [asdict(each) for each in outcomes]}))
    return 1 if any(each.findings for each in outcomes) else 0


def fuzz(target: str, seconds: int, folder: Path, *, quiet: bool) -> Outcome:
    """One run of libFuzzer in a process of its own. What it found stays under `build/fuzz`."""
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(CORPUS[target]()):
        (corpus / f"seed-{place}").write_bytes(seed)
    found = Path(__file__).resolve().parents[2] / "build" / "fuzz" / target
    found.mkdir(parents=True, exist_ok=True)
    bounds = [f"-max_total_time={seconds}", f"-timeout={_INPUT_S}", f"-rss_limit_mb={_MEMORY_MIB}"]
    places = [f"-max_len={_LARGEST}", f"-artifact_prefix={found}/", str(corpus)]
    log = found / "log"
    with log.open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "fuzzing.engine", target, *bounds, *places],
            stdout=file,
            stderr=file,
            timeout=seconds + _ENDING_S,
            check=False,
        )
    outcome = read_outcome(target, seconds, log)
    if not quiet:
        print(f"{target}: {outcome.executions} executions, {outcome.coverage} places, {len(outcome.findings)} findings")
        print("\n".join(f"  {each}, see {outcome.log}" for each in outcome.findings), end="")
    return outcome


def read_outcome(target: str, seconds: int, log: Path) -> Outcome:
    text = log.read_text(errors="replace")
    statuses = _STATUS.findall(text)
    executions, coverage = (int(number) for number in statuses[-1]) if statuses else (0, 0)
    return Outcome(target, seconds, executions, coverage, _FOUND.findall(text), str(log))


if __name__ == "__main__":
    sys.exit(main())
