"""How bash reads a line up to the cursor, and how a word is written for it."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefectlite.bash_words import quoted, read_line

_BREAKS = " \t\n\"'@><=;|&(:"
_TEXTS = st.text(st.characters(blacklist_categories=("C", "Z"), whitelist_characters=" "))


@pytest.mark.parametrize(
    ("line", "words", "kept", "quote"),
    [
        ("p ", [""], 0, ""),
        ("p one", ["one"], 0, ""),
        ("p  one\ttwo ", ["one", "two", ""], 0, ""),
        (r"p a\ b", ["a b"], 0, ""),
        ("p 'a b' c", ["a b", "c"], 0, ""),
        ("p 'a b'", ["a b"], 0, ""),
        ("p '' x", ["", "x"], 0, ""),
        ("p 'a b", ["a b"], 0, "'"),
        ('p "a $b', ["a $b"], 0, '"'),
        (r'p "a \" \x', [r'a " \x'], 0, '"'),
        (r"p 'a \' x", ["a \\", "x"], 0, ""),
        ("p x'a b", ["xa b"], 1, "'"),
        ("p --state=Fa", ["--state=Fa"], 8, ""),
        ("p --state='Fa", ["--state=Fa"], 8, "'"),
        ("p --state='F'a", ["--state=Fa"], 8, ""),
        ("p f.py:et", ["f.py:et"], 5, ""),
        (r"p f.py\:et", ["f.py:et"], 0, ""),
        ("p 'f.py:et", ["f.py:et"], 0, "'"),
        ("p a\\\nb", ["ab"], 0, ""),
        ("p a\\", ["a"], 0, ""),
    ],
)
def test_a_line_is_read_as_bash_reads_it(line, words, kept, quote):
    found = read_line(line, _BREAKS)
    assert (found.words, found.kept, found.quote) == (words, kept, quote)


@pytest.mark.parametrize(
    ("line", "words", "is_redirected"),
    [
        ("p a > b", ["a", "b"], True),
        ("p a >b c", ["a", "c"], False),
        ("p a 2> b c", ["a", "c"], False),
        ("p a 2>&1 c", ["a", "c"], False),
        ("p a '>b", ["a", ">b"], False),
    ],
)
def test_what_a_stream_is_redirected_to_is_no_argument(line, words, is_redirected):
    found = read_line(line, _BREAKS)
    assert (found.words, found.is_redirected) == (words, is_redirected)


@settings(deadline=None, max_examples=25)
@given(st.lists(_TEXTS, min_size=1, max_size=40), st.sampled_from(["", "'", '"']))
def test_bash_takes_a_word_that_was_quoted_for_what_it_is(texts, quote):
    written = [(text, quoted(text, quote)) for text in texts]
    said = [(text, one) for text, one in written if one is not None]
    assert quote == '"' or len(said) == len(texts)
    lines = [f"printf '%s\\0' {quote}{one}{quote or '_'}" for _, one in said]
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        capture_output=True,
        check=True,
        timeout=60,
        env={"LC_ALL": "C.UTF-8"},
    )
    expected = [text + ("" if quote else "_") for text, _ in said]
    assert done.stdout.decode().split("\0")[:-1] == expected
    assert done.stderr == b""


@given(_TEXTS.filter(bool), st.sampled_from(["", "'", '"']))
def test_a_word_that_was_quoted_is_read_back(text, quote):
    written = quoted(text, quote)
    if written is not None:
        assert read_line(f"p {quote}{written}", _BREAKS).words == [text]
