"""What stands in a man page is what was said, whatever roff would make of it."""

import re
import subprocess

import pytest

from prefectlite.roff import ManPage, bold, italic, marked


@pytest.fixture
def page():
    return ManPage(
        "my-tool", 1, summary="do it", source="my-tool 1.0", date="2024-02-29", volume="Commands"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-b", r"a\-b"),
        (r"a\n", r"a\(rsn"),
        ("it's", r"it\(aqs"),
        ('say "no"', r"say \(dqno\(dq"),
        ("~/x^y", r"\(ti/x\(hay"),
        ("Zoë", r"Zo\[u00EB]"),
        ("give --all, or -n", r"give \fB\-\-all\fR, or \fB\-n\fR"),
        ("see cron(8).", r"see \fBcron\fR(8)."),
        ("2024-02-29 and flow-run", r"2024\-02\-29 and flow\-run"),
        ("the `a-b c` of it", r"the \fBa\-b c\fR of it"),
        ("- for stdin", r"\- for stdin"),
    ],
)
def test_prose_is_escaped_and_what_people_type_is_bold(text, expected):
    assert marked(text) == expected


def test_a_line_that_begins_with_a_full_stop_is_a_text(page):
    page.paragraphs(".TH is a macro")
    page.literal([".SH", "", "'x"])
    lines = page.text().splitlines()
    assert r"\%.TH is a macro" in lines
    assert lines[lines.index(".EX") + 1 : lines.index(".EE")] == [r"\&.SH", r"\&", r"\(aqx"]


def test_a_paragraph_after_a_heading_begins_without_a_macro(page):
    page.heading("See also")
    page.paragraphs("One.", "Two.")
    assert page.text().endswith(".SH SEE ALSO\nOne.\n.PP\nTwo.\n")


def test_each_sentence_has_a_line_of_its_own_and_none_is_long(page):
    page.paragraphs("It is over. Then it " + "goes on and " * 20 + "ends.")
    lines = page.text().splitlines()
    assert "It is over." in lines
    assert max(map(len, lines)) <= 80


def test_the_name_is_as_the_index_of_pages_reads_it(page):
    assert ".SH NAME\nmy\\-tool \\- do it\n" in page.text()


def test_a_part_of_a_synopsis_is_never_broken(page):
    page.synopsis("my-tool", [f"[{bold('-n')} {italic('N')}]..."] * 30)
    source = page.text().partition(".SY")[2]
    assert source.count(r"\%[\fB\-n\fR\~\fIN\fR]...\&") == 30


@pytest.mark.needs("groff")
def test_what_a_reader_sees_can_be_copied_into_a_shell(page):
    line = r"""my-tool --all ~/x 'a "b" \n' `c` ^d $e .f"""
    page.literal([line])
    page.paragraphs(f"It is `{line.replace('`c` ', '')}` indeed.")
    shown = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c", "-rLL=200n"],
        input=page.text(),
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert shown.stderr == ""
    plain = re.sub(".\x08", "", shown.stdout)  # what is bold is printed twice
    assert line in plain
    assert f"It is {line.replace('`c` ', '')} indeed." in plain
