"""Objects that a call hands over, and the digest by which their code is known again."""

import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from astarpo.runtime.code import code_digest
from astarpo.runtime.given import Given, given, hand_over, is_given_only, reference_of
from astarpo.types import UserError


def made(source: str, name: str = "f", file: str = "<cell>", **names):
    """What a name stands for once source has run, as in a cell of a notebook."""
    space = {"__name__": "__main__", **names}
    exec(compile(source, file, "exec"), space)
    return space[name]


USES_A_HELPER = "BONUS = {bonus}\ndef g(x): return x + {step}\ndef f(x): return g(x) * BONUS\n"


def test_digest_is_of_what_is_computed():
    plain = code_digest(made("def f(x): return x + 1"))
    assert len(plain) == 24
    assert plain == code_digest(
        made("\n\n# a comment\ndef f(x):\n    return x + 1", file="<other>")
    )
    assert plain != code_digest(made("def f(x): return x + 2"))
    assert plain != code_digest(made("def f(x, y=1): return x + 1"))
    helped = code_digest(made(USES_A_HELPER.format(bonus=2, step=1)))
    assert helped == code_digest(made("UNUSED = 5\n" + USES_A_HELPER.format(bonus=2, step=1)))
    assert helped != code_digest(made(USES_A_HELPER.format(bonus=3, step=1)))
    assert helped != code_digest(made(USES_A_HELPER.format(bonus=2, step=2)))


def test_digest_is_of_closures_classes_and_instances():
    def maker(weight):
        return lambda x: weight * x

    assert code_digest(maker(1)) == code_digest(maker(1)) != code_digest(maker(2))
    source = "class C:\n    def __init__(self, a): self.a = a\n    def __call__(self): return {}\n"
    first, second = (made(source.format(n), "C") for n in (1, 2))
    assert code_digest(first) == code_digest(made(source.format(1), "C")) != code_digest(second)
    assert code_digest(first(1)) == code_digest(first(1)) != code_digest(first(2))
    assert code_digest(first(1)) != code_digest(second(1))


def test_digest_goes_through_circles():
    loop = made("def f(x): return g(x)\ndef g(x): return f(x - 1) if x else 0")
    assert code_digest(loop) == code_digest(loop)


def test_digest_does_not_depend_on_the_process():
    program = (
        "from astarpo.runtime.code import code_digest\n"
        "words = {'a', 'b', 'c', 'd'}\n"
        "def f(x): return x in words or x in {'e', 'f', 'g'}\n"
        "print(code_digest(f))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in "123"
        for path in [":".join(sys.path)]
    }  # fmt: skip
    assert len(found) == 1


def test_an_object_is_found_while_the_call_lasts_and_no_longer():
    function = made("def f(x): return x")
    with hand_over({"reward:a": function}), hand_over({"reward:a": function}):
        assert given("reward:a").value is function
        other = hand_over({"reward:a": made("def f(x): return 2 * x")})
        with pytest.raises(UserError, match="reward:a: a call that is still going on uses another"):
            other.__enter__()
    assert given("reward:a") is None


def test_an_object_that_cannot_be_sent_is_refused_in_one_line():
    lock = threading.Lock()
    with pytest.raises(UserError, match="cannot be sent to the processes that judge answers"):
        _ = Given.of("reward:a", lambda x: lock).pickled
    assert Given.of("reward:a", lambda x: threading.Lock()).pickled  # as the message says


@dataclass
class Thing:
    size: int


def test_names():
    assert reference_of(made("def f(x): return x")) == "__main__:f"
    assert reference_of(Thing) == reference_of(Thing(1)) == f"{__name__}:Thing"
    assert is_given_only("__main__:f")
    assert is_given_only("module:make.<locals>.f")
    assert not is_given_only("module:f")
    assert not is_given_only("rewards.py:f")
