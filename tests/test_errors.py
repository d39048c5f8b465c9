import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.errors import InputError, Interrupted, MissingExtra, NonFinite, did_you_mean


def test_one_problem_is_one_sentence():
    error = InputError("The label is missing.")

    assert error.problems == ["The label is missing."] and str(error) == "The label is missing."


def test_several_problems_are_told_together():
    error = InputError(("First.", "Second."))

    assert error.problems == ["First.", "Second."] and str(error) == "First.\nSecond."


def test_wrong_input_is_a_value_error_for_those_who_do_not_know_us():
    with pytest.raises(ValueError, match="wrong"):
        raise InputError("wrong")
    assert issubclass(MissingExtra, InputError) and issubclass(NonFinite, ArithmeticError)


def test_a_missing_package_comes_with_the_command_that_installs_it():
    error = MissingExtra("Export to ONNX", "onnx", "export")

    assert "needs the package 'onnx', which is not installed" in str(error)
    assert 'pip install -c constraints.txt "xmodal[export]"' in str(error)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_the_status_that_shells_expect(number, status):
    assert Interrupted(number).exit_status == status


def test_no_handler_of_ordinary_errors_holds_an_interruption():
    def careless():
        try:
            raise Interrupted(signal.SIGTERM, saved="runs/kd-001")
        except Exception:
            return "held"

    with pytest.raises(Interrupted) as caught:
        careless()
    assert caught.value.saved == "runs/kd-001"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("superviced", "Did you mean 'supervised'? Known: kd, supervised."),
        ("kdd", "Did you mean 'kd'? Known: kd, supervised."),
        ("xyz", "Known: kd, supervised."),
        ("", "Known: kd, supervised."),
    ],
)
def test_the_closest_name_is_suggested_and_only_if_it_is_close(name, expected):
    assert did_you_mean(name, ["supervised", "kd"]) == expected


def test_where_nothing_is_known_it_says_so():
    assert did_you_mean("kd", []) == "Known: none."


@given(st.text(max_size=12), st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=8), min_size=1))
def test_every_known_name_is_listed_whatever_was_asked(name, known):
    sentence = did_you_mean(name, known)

    assert all(word in sentence for word in known) and sentence.endswith(".")
