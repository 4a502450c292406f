"""Lines of an OBJ counted all at once, as a regular expression finds them one by one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.forms.obj import declared

_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+\S")
_FACE = re.compile(rb"(?m)^[ \t]*f[ \t]+([^\r\n#]*)")
_PIECES = (
    b"v 1 2 3", b" v 1 2", b"v", b"v ", b"vn 1 2 3", b"f 1 2 3", b"f 1/2 2/3 3//4 4", b"\tf 1 2 3 4", b"f", b"f ",
    b"f\t-1 -2 -3", b"f 1 2 # 3 4", b"# v 1", b"usemtl f 1 2", b"", b"\0",
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from((b"\n", b"\r\n", b"\n\n"))), max_size=9))
def test_vertices_and_triangles_are_those_of_the_lines(lines: list[tuple[bytes, bytes]]) -> None:
    text = b"".join(piece + end for piece, end in lines)
    triangles = sum(max(len(face.split()) - 2, 0) for face in _FACE.findall(text))
    said = declared(text)
    assert (said.vertices, said.faces) == (len(_VERTEX.findall(text)), triangles)
