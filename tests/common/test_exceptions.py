import pytest

from autopeft.common.exceptions import SHOWN, printable, shorten


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("soon", "'soon'"),
        (3, "3"),
        (0.1, "0.1"),
        (True, "True"),
        ([1, 2, 3], "[1, 2, 3]"),
        ("it's", '"it\'s"'),
        ("x" * 100_000, f"'{'x' * SHOWN}…'"),
        (-(10**400), "a number of about 401 digits"),
        ("\x1b[31mred\u202e", "'\\x1b[31mred\\u202e'"),
        ("\ud800", "'\\ud800'"),
        ("http://me:secret@host/x y", "'http://… y'"),
        (["sqlite:///x?password=secret"], "['sqlite://…']"),
    ],
)
def test_a_value_is_repeated_in_short(value, expected):
    assert shorten(value) == expected


@pytest.mark.parametrize("value", [deep(100_000), {"a": 10**6000}, list(range(10**6)), {"x" * 9999: 1}, b"y" * 9999])
def test_no_value_is_too_large_to_be_repeated(value):
    assert len(shorten(value)) <= SHOWN + 1


def test_what_a_terminal_obeys_is_written_out_and_other_text_is_left():
    assert printable("a\x1b]0;b\x07c\x9b1m\u202ed\n") == "a\\x1b]0;b\\x07c\\x9b1m\\u202ed\n"
    assert printable("a\tb\r\n", keep="") == "a\\tb\\r\\n"
    for text in ("naïve 日本 👩\u200d🚀 10\xa0%", "\u0634\u0643\u0631\u0627"):
        assert printable(text) == text
