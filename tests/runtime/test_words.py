import pytest

from astarpo.runtime.words import closest, did_you_mean, printable, shown


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("learning_rte", "learning_rate"),
        ("--Max-New-Tokns", "max_new_tokens"),
        ("MAX-NEW-TOKENS", "max_new_tokens"),
        ("frobnicate", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_spelling(word, meant):
    known = ["learning_rate", "max_new_tokens", "seed"]
    assert closest(word, known) == meant
    assert did_you_mean(word, known) == (f"; did you mean {meant}?" if meant else "")


def test_long_texts_are_cut_and_say_by_how_much():
    assert shown("abc", 3) == "abc"
    assert shown("abcd" * 1000, 4) == "abcd [... 3,996 more characters]"


def test_nothing_that_moves_a_cursor_is_shown():
    assert shown("a\x1b[2Jb\r\x07c\u202ed\te\nf é ±") == "a\ufffd[2Jb\ufffd\ufffdc\ufffdd\te\nf é ±"


def test_where_a_text_has_to_stay_in_its_line_no_control_character_is_kept():
    text = "run\n1\t\x1b[2J\u3000\u00a0end"
    assert (
        printable(text) == "run\n1\t\ufffd[2J\u3000\u00a0end"
    )  # spaces of other scripts are shown
    assert printable(text, kept="") == "run\ufffd1\ufffd\ufffd[2J\u3000\u00a0end"
    assert printable(text, kept="", instead=" ") == "run 1  [2J\u3000\u00a0end"
    assert printable("plain") == "plain"
