"""What docs/guide/new_method.md promises: a method that is written from it passes the tests of every method."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/guide/new_method.md"
NEWCOMERS = ("trusted", "bridged", "blended")  # the two of the page, and tests/methods/blended.py


@pytest.fixture(scope="module")
def common_tests():
    """The common tests of the methods in `newcomers`: outcomes by outcome, test and method; and the text."""
    # one process for all: pytest and the lists of methods take longer to load than most of these tests to run
    which = " or ".join(NEWCOMERS) + " or (unseeded and (same_seed or seed_and_method))"
    paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "newcomers", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["-rA", "--tb=short", "-k", which, "tests/common/test_methods.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S+\[(?:\w+-)?(\w+)\]", done.stdout, flags=re.MULTILINE)
    return Counter(outcomes), done.stdout + done.stderr


def test_methods_of_the_guide_pass_the_common_tests(common_tests):
    outcomes, text = common_tests

    counts = {name: outcomes["PASSED", name] for name in NEWCOMERS}
    assert len(set(counts.values())) == 1 and counts["bridged"] >= 18, text
    assert not any(outcomes[failed, name] for failed in ("FAILED", "ERROR") for name in NEWCOMERS), text


def test_a_layer_with_a_seed_of_its_own_fails_there_as_the_guide_says(common_tests):
    outcomes, text = common_tests

    assert {outcome: count for (outcome, name), count in outcomes.items() if name == "unseeded"} == {"FAILED": 2}, text


def test_the_second_teacher_of_the_page_is_a_finished_stage(make_bench):
    (code,) = (
        block for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if "second_" in block
    )
    names = {}
    exec(compile(code, PAGE.name, "exec"), names)
    bench = make_bench(epochs=1)

    network = names["second_teacher"](bench, ("faint",))

    trained = bench.stages["teacher of faint"].students["faint"].module.state_dict()
    fresh = bench.network(("faint",), side="teacher").module.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
    assert not all(torch.equal(value, fresh[name]) for name, value in network.state_dict().items())
