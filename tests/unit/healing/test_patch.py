"""A patch is read strictly, fits in exactly one way, and says why it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import JsonValue

from chimera.core.errors import PatchInvalid
from chimera.healing import patch as patch_module
from chimera.healing.blocks import parse_blocks
from chimera.healing.patch import Append, CodePatch, Edit, Replace, TestFile, Whole, edited, parse_patch
from chimera.healing.paths import check_path

letters = st.text(alphabet="ab\n", max_size=12)


def patch(*edits: Edit, **fields: Any) -> CodePatch:
    return CodePatch(summary="s", edits=edits, **fields)


def one(old: str | None, edit: Edit) -> str:
    """The text of `a.py` after the edit."""
    files = {} if old is None else {"a.py": old}
    return edited(files, patch(edit))["a.py"]


def replaced(old: str, search: str, replace: str) -> str:
    return one(old, Replace(path="a.py", search=search, replace=replace))


def overlapping_count(text: str, search: str) -> int:
    return sum(text.startswith(search, at) for at in range(len(text)))


# -- one edit


@given(letters, letters.filter(bool), letters)
def test_a_text_is_replaced_if_it_is_there_exactly_once_counting_overlaps(text: str, search: str, new: str) -> None:
    assume(search != new)
    assume(not (text + "\n").endswith(search) or text.endswith("\n") or not search.endswith("\n"))
    if overlapping_count(text, search) == 1:
        assert replaced(text, search, new) == text.replace(search, new)
    else:
        with pytest.raises(PatchInvalid, match="not in the file" if search not in text else "more than once"):
            replaced(text, search, new)


@given(letters, letters, letters, letters.filter(bool), st.booleans())
def test_an_edit_and_its_inverse_give_the_file_back(head: str, search: str, tail: str, new: str, crlf: bool) -> None:
    assume(not crlf or "\n" in head + new + tail)  # a file of one line does not say how its lines end
    new = f"<{new}>"
    old = head + f"[{search}]" + tail
    old = old.replace("\n", "\r\n") if crlf else old
    changed = replaced(old, f"[{search}]", new)
    assert changed != old
    assert replaced(changed, new, f"[{search}]") == old


def test_the_second_of_two_overlapping_places_counts() -> None:
    with pytest.raises(PatchInvalid, match="more than once"):
        replaced("aXaXa", "aXa", "b")


def test_a_text_that_is_there_twice_is_refused_with_its_lines() -> None:
    with pytest.raises(PatchInvalid, match=r"edit 1 of a\.py: .*lines 1 and 3"):
        replaced("x = 1\ny = 2\nx = 1\n", "x = 1", "x = 3")


def test_a_text_that_is_not_there_is_shown_what_is_nearest_to_it() -> None:
    text = "import os\n\ndef total(items):\n    return sum(items)\n"
    with pytest.raises(PatchInvalid) as refused:
        replaced(text, "def total(item):\n    return sum(item)\n", "pass\n")
    assert "    3  def total(items):\n    4      return sum(items)" in str(refused.value)


def test_the_nearest_lines_are_looked_for_within_bounds() -> None:
    with pytest.raises(PatchInvalid, match="read the file again"):
        replaced("\n".join("b" * 10 for _ in range(90_000)), "z" * 50_000, "y")


def test_a_search_of_blank_lines_that_is_not_there_is_refused() -> None:
    with pytest.raises(PatchInvalid, match="not in the file"):
        replaced("a\n", "\n\n\n", "b")


@given(letters, letters.filter(bool))
def test_crlf_files_stay_crlf(head: str, added: str) -> None:
    old = f"{head}\nend\n".replace("\n", "\r\n")
    for edit in (
        Append(path="a.py", append=f"x{added}"),
        Append(path="a.py", append=f"x{added}".replace("\n", "\r\n")),
        Whole(path="a.py", whole=f"x{added}\n"),
        Replace(path="a.py", search="end\n", replace=f"x{added}"),
    ):
        new = one(old, edit)
        assert "\r" not in new.replace("\r\n", "") and "\n" not in new.replace("\r\n", "")


def test_a_patch_with_crlf_fits_a_file_without_and_leaves_it_so() -> None:
    assert replaced("a\nb\n", "a\r\nb\r\n", "c\r\nd\r\n") == "c\nd\n"
    with pytest.raises(PatchInvalid, match="line ends only"):
        replaced("a\nb\n", "a\r\n", "a\n")


def test_a_mixed_file_is_taken_as_it_is() -> None:
    assert replaced("a\r\nb\nc\n", "b\n", "d\n") == "a\r\nd\nc\n"
    with pytest.raises(PatchInvalid, match="not in the file"):
        replaced("a\r\nb\nc\n", "a\nb\n", "d\n")


@given(letters.filter(bool), letters.filter(bool))
def test_appending_and_whole_texts_keep_how_the_file_ends(old: str, new: str) -> None:
    for edit in (Append(path="a.py", append=f"x{new}"), Whole(path="a.py", whole=f"x{new}")):
        assert one(old, edit).endswith("\n") == old.endswith("\n")


def test_what_is_appended_begins_a_line_of_its_own() -> None:
    assert one("a = 1", Append(path="a.py", append="b = 2\n")) == "a = 1\nb = 2"
    assert one("a = 1\n", Append(path="a.py", append="b = 2")) == "a = 1\nb = 2\n"
    assert one(None, Append(path="a.py", append="b = 2\n")) == "b = 2\n"


def test_a_whole_last_line_is_found_where_the_file_does_not_end_it() -> None:
    assert replaced("a\nb", "b\n", "c\n") == "a\nc"
    assert replaced("a\nc", "c\n", "b\n") == "a\nb"


def test_an_empty_search_and_a_replacement_by_itself_are_refused() -> None:
    with pytest.raises(PatchInvalid, match="edit 1"):
        parse_patch({"summary": "s", "edits": [{"path": "a.py", "search": "", "replace": "x"}]})
    with pytest.raises(PatchInvalid, match="same text"):
        Replace(path="a.py", search="x", replace="x")


# -- several edits


def test_edits_apply_in_order_and_leave_what_they_were_given() -> None:
    files = {"a.py": "one\n", "b.py": "b\n"}
    steps = patch(
        Replace(path="a.py", search="one", replace="two"),
        Append(path="a.py", append="three\n"),
        Replace(path="a.py", search="two\nthree", replace="four"),
        Whole(path="new/c.py", whole="c\n"),
    )
    assert edited(files, steps) == {"a.py": "four\n", "new/c.py": "c\n"}
    assert files == {"a.py": "one\n", "b.py": "b\n"}


def test_edits_that_come_to_nothing_are_refused() -> None:
    back = patch(Replace(path="a.py", search="1", replace="2"), Replace(path="a.py", search="2", replace="1"))
    with pytest.raises(PatchInvalid, match="same after the patch"):
        edited({"a.py": "x = 1\n"}, back)
    with pytest.raises(PatchInvalid, match="same after the patch"):
        one("x\n", Whole(path="a.py", whole="x"))


def test_a_file_that_is_not_there_cannot_be_searched() -> None:
    with pytest.raises(PatchInvalid, match="no such file"):
        one(None, Replace(path="a.py", search="x", replace="y"))


@pytest.mark.parametrize("path", ["a.py/b.py", "pkg"])
def test_a_file_is_not_a_folder_too(path: str) -> None:
    with pytest.raises(PatchInvalid, match="folder of another"):
        edited({"a.py": "", "pkg/c.py": ""}, patch(Whole(path=path, whole="x")))


def test_sizes_are_bounded() -> None:
    with pytest.raises(PatchInvalid, match="too large"):
        Whole(path="a.py", whole="ü" * 500_001)
    with pytest.raises(PatchInvalid, match=r"edit 2 of a\.py: .*too large"):
        edited({}, patch(Append(path="a.py", append="x" * 900_000), Append(path="a.py", append="x" * 200_000)))
    with pytest.raises(PatchInvalid, match="4,000,000"):
        patch(*(Whole(path=f"a{n}.py", whole="x" * 900_000) for n in range(5)))
    with pytest.raises(PatchInvalid, match="too large"):
        parse_patch(" " * 9_000_000)
    with pytest.raises(PatchInvalid, match="1 to 64"):
        parse_patch({"summary": "s", "edits": [{"path": f"a{n}.py", "whole": "x"} for n in range(65)]})


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(PatchInvalid, match="UTF-8"):
        parse_patch('{"summary": "s", "edits": [{"path": "a.py", "whole": "\\ud800"}]}')


# -- paths


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "../a.py", "a/../b.py", "a/./b.py", "a//b.py", "a/", ".git/config", "a/.env", ".", "~\\a"),
        *("a\\b.py", "a\0.py", "a\n.py", "a\u202e.py", "\ud800.py", " a.py", "a /b.py", "a" * 201, "ü" * 101),
        *("/".join("a" * 17), "/".join(["a" * 190] * 3)),
    ],
)
def test_paths_that_hide_or_lead_out_are_refused(path: str) -> None:
    with pytest.raises(PatchInvalid, match="no path for a patch"):
        check_path(path)
    for kind in ({"search": "a", "replace": "b"}, {"append": "a"}, {"whole": "a"}):
        with pytest.raises(PatchInvalid):
            parse_patch({"summary": "s", "edits": [{"path": path, **kind}]})


@pytest.mark.parametrize("path", ["a.py", "a/b-c/d e.py", "käse.py", "_x.py", "a..b/c...py", "/".join("a" * 16)])
def test_plain_paths_are_taken(path: str) -> None:
    assert check_path(path) == path


# -- JSON


def test_the_three_forms_are_read() -> None:
    given: dict[str, JsonValue] = {
        "summary": "s",
        "edits": [
            {"path": "a.py", "search": "x", "replace": ""},
            {"path": "a.py", "append": "y"},
            {"path": "b.py", "whole": ""},
        ],
    }
    read = parse_patch(json.dumps(given))
    assert read == parse_patch(given) == parse_patch(json.dumps(given).encode())
    assert read.edits == (
        Replace(path="a.py", search="x", replace=""),
        Append(path="a.py", append="y"),
        Whole(path="b.py", whole=""),
    )
    assert read.paths == ("a.py", "b.py") and read.cost_usd is None


@pytest.mark.parametrize(
    "edit",
    [
        {"path": "a.py"},
        {"path": "a.py", "search": "x"},
        {"path": "a.py", "search": "x", "replace": "y", "whole": "z"},
        {"path": "a.py", "append": "x", "whole": "y"},
        {"path": "a.py", "append": "x", "mode": 1},
        {"path": "a.py", "append": ""},
        {"path": "a.py", "append": 1},
        {"path": 1, "append": "x"},
        "a.py",
        None,
    ],
)
def test_a_wrong_edit_is_refused_with_its_number(edit: object) -> None:
    with pytest.raises(PatchInvalid, match=r"^edit 2"):
        parse_patch(json.dumps({"summary": "s", "edits": [{"path": "a.py", "append": "x"}, edit]}))


@pytest.mark.parametrize(
    "given",
    [
        *("", "[]", "null", "{", '{"summary": "s"}', '{"summary": "s", "edits": []}', "[" * 100_000, b"\xff"),
        '{"summary": "", "edits": [{"path": "a.py", "append": "x"}]}',
        '{"edits": [{"path": "a.py", "append": "x"}]}',
        '{"summary": "s", "edits": [{"path": "a.py", "append": "x"}], "run": "rm"}',
        '{"summary": "s", "edits": [{"path": "a.py", "append": "x"}], "cost_usd": -1}',
        '{"summary": "s", "edits": [{"path": "a.py", "append": "x"}], "tests": [{"path": "a.py", "text": "x"}]}',
    ],
)
def test_what_is_no_patch_is_refused(given: str | bytes) -> None:
    with pytest.raises(PatchInvalid):
        parse_patch(given)


KEYS = st.sampled_from(["path", "search", "replace", "append", "whole", "x"])
VALUES = st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["a.py", "a"]) | st.lists(st.text())


@given(
    st.fixed_dictionaries(
        {"summary": st.text() | VALUES, "edits": st.lists(VALUES | st.dictionaries(KEYS, VALUES)) | VALUES},
        optional={"tests": VALUES | st.lists(st.dictionaries(KEYS, VALUES)), "cost_usd": VALUES, "x": VALUES},
    )
)
def test_no_json_gets_any_other_error(value: Any) -> None:
    try:
        parse_patch(json.dumps(value))
    except PatchInvalid:
        return


def test_a_file_of_tests_is_not_edited_too() -> None:
    test = TestFile(path="test_a.py", text="x")
    with pytest.raises(PatchInvalid, match="must be given once"):
        patch(Append(path="test_a.py", append="x"), tests=(test,))
    with pytest.raises(PatchInvalid, match="must be given once"):
        patch(Append(path="a.py", append="x"), tests=(test, test))


def test_a_patch_is_known_by_what_it_does() -> None:
    edit = Append(path="a.py", append="x")
    assert patch(edit).id == CodePatch(summary="other", edits=(edit,), provider="p", cost_usd=1.0).id
    assert patch(edit).id != patch(Append(path="a.py", append="y")).id
    assert patch(edit).id != patch(Whole(path="a.py", whole="x")).id
    assert patch(edit).id != patch(edit, tests=(TestFile(path="test_a.py", text="x"),)).id
    again = CodePatch.model_validate_json(patch(edit, cost_usd=0.1).model_dump_json())
    assert again == patch(edit, cost_usd=0.1)
    assert parse_patch(again.model_dump_json()) == again


# -- what a model writes

ANSWER = """The sum leaves out the last item.

It ran to len - 1.

src/total.py
```python
<<<<<<< SEARCH
for i in range(len(items) - 1):
=======
for i in range(len(items)):
>>>>>>> REPLACE
```
<<<<<<< SEARCH
total = 1
=======
>>>>>>> REPLACE

### `src/new.py`:
````python
text = '''
```
'''
````

**tests/test_total.py**

```python
def test_total():
    assert total([1]) == 1
```

Run it so:
```
pytest
```
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blocks_and_whole_files_are_read_from_an_answer(end: str) -> None:
    read = parse_blocks(ANSWER.replace("\n", end))
    assert read.edits == (
        Replace(
            path="src/total.py",
            search="for i in range(len(items) - 1):\n",
            replace="for i in range(len(items)):\n",
        ),
        Replace(path="src/total.py", search="total = 1\n", replace=""),
        Whole(path="src/new.py", whole="text = '''\n```\n'''\n"),
    )
    test = "def test_total():\n    assert total([1]) == 1\n"
    assert read.tests == (TestFile(path="tests/test_total.py", text=test),)
    assert read.summary == "The sum leaves out the last item."
    assert read.rationale == "It ran to len - 1.\nRun it so:\npytest"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("I cannot help.", "there is no edit"),
        ("```\nx = 1\n```", "there is no edit"),
        ("<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE", "block 1 has no path"),
        ("a.py\n<<<<<<< SEARCH\na\n=======\nb\n", "block 1 has no line >>>>>>> REPLACE"),
        ("a.py\n<<<<<<< SEARCH\na\n", "block 1 has no line ======="),
        ("a.py\n<<<<<<< SEARCH\na\n=======\nb\n=======\nc\n>>>>>>> REPLACE", "too many"),
        ("a.py\n<<<<<<< SEARCH\n=======\nb\n>>>>>>> REPLACE", "edit 1"),
        ("a.py\n<<<<<<< SEARCH\na\n=======\na\n>>>>>>> REPLACE", "edit 1: .*same text"),
        ("../a.py\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE", "edit 1: .*dot"),
        ("/etc/cron.py\n```\nx\n```", "edit 1: .*relative"),
        ("a.py\n```\nx = 1\n", "no end"),
        ("a.py\n" + "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n" * 65, "1 to 64"),
        ("x" * 9_000_000, "too long"),
    ],
)
def test_an_answer_that_is_cut_off_or_unclear_is_refused(answer: str, why: str) -> None:
    with pytest.raises(PatchInvalid, match=why):
        parse_blocks(answer)


@given(st.lists(st.sampled_from(["a.py", "```", "````", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "x", ""])))
def test_no_answer_gets_any_other_error(lines: list[str]) -> None:
    try:
        read = parse_blocks("\n".join(lines))
    except PatchInvalid:
        return
    assert 1 <= len(read.edits) <= patch_module.MAX_EDITS
