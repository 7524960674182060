"""What a user's folder can hold, and what becomes of it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import DocumentsError, UnreadableDocument
from chimera.swarm.evidence import documents
from chimera.swarm.evidence.documents import (
    DocumentRef,
    list_documents,
    read_document,
    resolve_folder,
    shard_documents,
)


def write_pdf(*pages: str) -> bytes:
    """A PDF with one line of text a page, written by hand: a font, pages, and their contents."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        content = f"BT /F1 12 Tf 14 TL 72 700 Td {lines} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def ref_of(path: Path) -> DocumentRef:
    return DocumentRef(str(path), path.name, path.stat().st_size)


def lines_of(path: Path) -> list[tuple[int, str]]:
    return [(line.number, line.text) for line in read_document(ref_of(path)).lines]


def test_lists_files_of_every_kind_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.TXT", "a.md", "sub/deep/c.rst", "d.html", "e.htm", "f.pdf", "g.csv", ".hidden.txt", ".git/h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    refs, left_out = list_documents(str(tmp_path))
    assert [ref.name for ref in refs] == ["a.md", "b.TXT", "d.html", "e.htm", "f.pdf", "sub/deep/c.rst"]
    assert all(Path(ref.path).is_absolute() and ref.size_bytes == 4 for ref in refs)
    assert left_out == []


def test_finds_the_documents_of_an_installed_package() -> None:
    refs, _ = list_documents("package:sklearn/datasets/descr")
    assert "diabetes.rst" in [ref.name for ref in refs]


@pytest.mark.parametrize(
    "docs",
    [
        "",
        "/no/such/folder",
        "package:",
        "package:no_such_package/docs",
        "package:sklearn/no/such",
        "package:sklearn/../x",
    ],
)
def test_a_folder_that_is_not_there_is_an_input_error(docs: str) -> None:
    with pytest.raises(DocumentsError):
        resolve_folder(docs)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DocumentsError, match="is a file"):
        list_documents(str(tmp_path / "a.txt"))


def test_an_empty_folder_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(DocumentsError, match=r"\.txt, \.md, \.rst, \.html, \.htm, \.pdf"):
        list_documents(str(tmp_path))


def test_naming_a_package_does_not_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loud_package"
    (package / "docs").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was run')")
    (package / "docs" / "a.txt").write_text("text")
    monkeypatch.syspath_prepend(tmp_path)
    assert [ref.name for ref in list_documents("package:loud_package/docs")[0]] == ["a.txt"]


def test_links_never_lead_out_nor_round_in_circles(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (inside / "a.txt").write_text("text")
    (inside / "again.txt").symlink_to(inside / "a.txt")
    (inside / "out.txt").symlink_to(outside / "secret.txt")
    (inside / "round").symlink_to(inside)
    (inside / "folder").symlink_to(outside)
    (inside / "self.txt").symlink_to(inside / "self.txt")
    refs, left_out = list_documents(str(inside))
    assert [ref.name for ref in refs] == ["a.txt"]
    assert [error.file for error in left_out] == ["out.txt", "self.txt"]
    assert "leads out" in left_out[0].cause


def test_a_link_to_a_hidden_file_inside_counts(tmp_path: Path) -> None:
    (tmp_path / ".versions").mkdir()
    (tmp_path / ".versions" / "a.txt").write_text("text")
    (tmp_path / "a.txt").symlink_to(tmp_path / ".versions" / "a.txt")
    assert [ref.name for ref in list_documents(str(tmp_path))[0]] == ["a.txt"]


def test_a_pipe_is_left_out_and_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    os.mkfifo(tmp_path / "pipe.txt")
    refs, left_out = list_documents(str(tmp_path))
    assert [ref.name for ref in refs] == ["a.txt"]
    assert [(error.file, error.cause) for error in left_out] == [("pipe.txt", "it is not a regular file")]


def test_a_file_that_is_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with open(tmp_path / "huge.txt", "wb") as file:
        file.truncate(documents.MAX_FILE_BYTES + 1)
    refs, left_out = list_documents(str(tmp_path))
    assert [ref.name for ref in refs] == ["a.txt"]
    assert [error.file for error in left_out] == ["huge.txt"]


def test_more_files_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FILES", 2)
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("text")
    with pytest.raises(DocumentsError, match="too many files"):
        list_documents(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "caf\u00e9"),
        (b"caf\xe9 \x93quoted\x94", "caf\u00e9 \u201cquoted\u201d"),
        ("caf\u00e9".encode("utf-16"), "caf\u00e9"),
    ],
    ids=["utf-8", "utf-8 with a mark", "windows-1252", "utf-16"],
)
def test_reads_the_common_encodings(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert lines_of(tmp_path / "a.txt") == [(1, text)]


@pytest.mark.parametrize("data", [b"a\x00b", b"\x81\x8d\x8f\xff", b"\xff\xfe\x00"])
def test_junk_is_unreadable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UnreadableDocument) as caught:
        read_document(ref_of(tmp_path / "a.txt"))
    assert caught.value.file == "a.txt"


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\u2028still two\x0cand still\rthree\n\nfive".encode())
    assert lines_of(tmp_path / "a.txt") == [
        (1, "one"),
        (2, "two\u2028still two\x0cand still"),
        (3, "three"),
        (4, ""),
        (5, "five"),
    ]


def test_html_keeps_what_is_seen_and_where_it_stands(tmp_path: Path) -> None:
    page = (
        "<html><head><title>Trees</title><style>p {color: red}</style></head>\n<body><script>\nlet x = '<p>no</p>';\n"
        "</script><p>An <b>oak</b> &amp; an\nelm.</p><ul><li>one</li><li>two</li></ul>a<br>b</body></html>"
    )
    (tmp_path / "a.html").write_text(page)
    seen = [(number, text) for number, text in lines_of(tmp_path / "a.html") if text.strip()]
    assert seen == [(1, "Trees"), (4, "An oak & an"), (5, "elm."), (5, "one"), (5, "two"), (5, "a b")]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("a<!-- <p>no -->b", "ab"),
        ('<a title="x > y" href=z>link</a>', "link"),
        ("1 < 2 and 3 > 2 &lt;p&gt;", "1 < 2 and 3 > 2 <p>"),
        ("shown<script>let never = 1", "shown"),
        ("cut <b", "cut <b"),
        ("&notanentity; &#65;", "\u00acanentity; A"),
        ("<!DOCTYPE html><HTML>up", "up"),
    ],
)
def test_html_is_read_as_it_is_shown(tmp_path: Path, page: str, text: str) -> None:
    (tmp_path / "a.html").write_text(page)
    assert "".join(shown for _, shown in lines_of(tmp_path / "a.html")) == text


@pytest.mark.parametrize(
    "piece",
    ["<", "<!--", "<a ", '<a b="', "<a b='\"", "&", "<p>x", "<b>x", "<script></scrip", "<![CDATA[", "<!", '<a "x"'],
)
@pytest.mark.timeout(20)
def test_broken_html_takes_no_longer_than_other(tmp_path: Path, piece: str) -> None:
    (tmp_path / "a.html").write_text(piece * 100_000)
    assert len(read_document(ref_of(tmp_path / "a.html")).lines) <= 200_000


def test_pdf_has_pages_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(write_pdf("Oaks are trees.\nElms too.", "Cats are not."))
    lines = read_document(ref_of(tmp_path / "a.pdf")).lines
    assert [(line.page, line.number, line.text.strip()) for line in lines if line.text.strip()] == [
        (1, 1, "Oaks are trees."),
        (1, 2, "Elms too."),
        (2, 1, "Cats are not."),
    ]


def test_a_locked_pdf_is_unreadable(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(write_pdf("Secret.")))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    with pytest.raises(UnreadableDocument, match="locked"):
        read_document(ref_of(tmp_path / "a.pdf"))


@pytest.mark.parametrize("data", [b"", b"not a PDF", write_pdf("Cut short.")[:200]], ids=["empty", "text", "cut"])
def test_a_broken_pdf_is_unreadable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(data)
    with pytest.raises(UnreadableDocument):
        read_document(ref_of(tmp_path / "a.pdf"))


def test_a_file_that_has_gone_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="No such file"):
        read_document(DocumentRef(str(tmp_path / "gone.txt"), "gone.txt", 1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(UnreadableDocument, match="Permission denied"):
        read_document(ref_of(path))


def test_a_shard_is_filled_to_the_byte() -> None:
    refs = [
        DocumentRef(f"/docs/{name}", name, size) for name, size in (("a", 4), ("b", 6), ("c", 1), ("d", 10), ("e", 99))
    ]
    assert [[ref.name for ref in shard] for shard in shard_documents(refs, 10)] == [["a", "b"], ["c"], ["d"], ["e"]]


@given(sizes=st.lists(st.integers(0, 2_000), max_size=60), shard_bytes=st.integers(1, 1_000))
def test_shards_hold_every_file_once_and_no_more_than_fits(sizes: list[int], shard_bytes: int) -> None:
    refs = [DocumentRef(f"/docs/{i:03d}", f"{i:03d}", size) for i, size in enumerate(sizes)]
    shards = shard_documents(refs, shard_bytes)
    assert [ref for shard in shards for ref in shard] == refs
    assert all(len(shard) == 1 or sum(ref.size_bytes for ref in shard) <= shard_bytes for shard in shards)
    assert all(shards)
    assert shard_documents(refs[::-1], shard_bytes) == shards


def test_half_characters_from_a_pdfs_font_do_not_silence_its_neighbours(tmp_path: Path) -> None:
    """A ToUnicode map may give a lone surrogate, which is no text and in no JSON."""
    cmap = b"begincmap\n1 begincodespacerange <00> <FF> endcodespacerange\n1 beginbfchar <41> <D800> endbfchar\nendcmap"
    content = b"BT /F1 12 Tf 50 700 Td (A wine) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(cmap), cmap),
    ]
    body = b"%PDF-1.4\n"
    offsets = []
    for number, item in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    body += b"xref\n0 7\n0000000000 65535 f \n%strailer\n<</Size 7/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(body),
    )
    (tmp_path / "odd.pdf").write_bytes(body)
    [ref], _ = list_documents(str(tmp_path))
    text = "".join(line.text for line in read_document(ref).lines)
    assert "wine" in text
    text.encode()
