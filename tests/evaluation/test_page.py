import json
import re
from html.parser import HTMLParser

import numpy as np

from sphere_jax.common.files import write_json
from sphere_jax.evaluation import figures, page, score_tables
from sphere_jax.evaluation.score import Score

VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Fails on a tag that closes another than the last opened; keeps text and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def write(path):
    metrics = {"frechet_distance_small_classifier": 1.23456, "class_agreement": 0.5}
    score = Score(metrics, metrics | {"class_agreement": 0.97}, [0.5, None], 40)
    picture = figures.norm_histogram({"a": np.ones(9)})
    page.write_report(
        path,
        "A <b>title</b>",
        'x & "y"',
        [page.Headline("agreement", "50%", "<held-out>: 97%")],
        [
            page.Section("Scores", [score_tables.metrics_table(score)]),
            page.Section("Classes", [score_tables.agreement_table(score, ["cat", "<dog>"])]),
            page.Section("Norms", [page.Picture(picture, 'of "tokens"'), page.Text("a < b")]),
            page.Section(
                "Protocol", [score_tables.protocol_table({"image_shape": [8, 8, 1], "n": 3})]
            ),
            page.Section("Again", [page.Code("python -m x --a='<1>'")]),
        ],
    )
    html = path.read_text(encoding="utf-8")
    parsed = Balanced()
    parsed.feed(html)
    assert parsed.open == []
    return html, parsed


def test_the_page_as_markdown(tmp_path):
    picture = figures.norm_histogram({"a": np.ones(9)})
    table = page.Table(["arm", "score"], [["a | b", 0.123456], ["c", None]])
    blocks = [table, page.Picture(picture, "Norms."), page.Text("Words."), page.Code("x")]
    for name in ("page-2.png", "page-3.png", "page-5.png"):  # two of an earlier, longer page
        (tmp_path / name).touch()
    page.write_markdown(tmp_path / "page.md", "T", "About.", [page.Section("S", blocks)])
    assert (tmp_path / "page.md").read_text() == (
        "# T\n\nAbout.\n\n## S\n\n| arm | score |\n| --- | --- |\n| a \\| b | 0.1235 |\n| c | – |\n"
        "\n![Norms.](page-1.png)\n\n*Norms.*\n\nWords.\n\n```\nx\n```\n"
    )
    assert (tmp_path / "page-1.png").read_bytes() == picture
    assert {p.name for p in tmp_path.iterdir()} == {"page.md", "page-1.png", "page-5.png"}


def test_the_page_is_whole_escaped_and_needs_no_other_file(tmp_path):
    html, parsed = write(tmp_path / "run" / "report.html")
    text = parsed.text
    for piece in ("A <b>title</b>", 'x & "y"', "<held-out>: 97%", "<dog>", "a < b"):
        assert piece in text
    assert "python -m x --a='<1>'" in text
    assert "<b>title</b>" not in html and "<dog>" not in html
    inside = [s for s in parsed.sources if s.startswith(("#section", "data:image/png;base64,"))]
    assert inside == parsed.sources and len(inside) == 6
    assert not re.search(r"https?:|@import|url\(|<script|<link", html)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["report.html"]


def test_tables_name_metrics_and_real_data_and_never_say_fid(tmp_path):
    html, parsed = write(tmp_path / "report.html")
    cells = parsed.text
    row = cells.index("Fréchet distance, small classifier features")
    assert cells[row + 1 : row + 4] == ["1.235", "1.235", "lower"]
    assert "40 samples" in cells and "real images" in cells
    assert "–" in cells  # the class without samples
    assert "8, 8, 1" in cells and "image shape" in cells
    assert "FID" not in html


def test_precision_and_recall_are_qualified_where_they_say_little():
    def stamp(accuracy, images):
        features = {"name": "a", "held_out_accuracy": accuracy}
        return {"features": features, "precision_recall": {"images_on_each_side": images}}

    remark_of, reading = score_tables.remark_of, score_tables.reading
    assert remark_of(stamp(0.9, 1000)) == remark_of(stamp(None, 1000)) == remark_of({}) == ""
    weak = remark_of(stamp(0.951, 5000), stamp(0.62, 144))
    assert weak == "weak features (held-out accuracy 62 %), few images (144)"
    assert reading("precision_a", weak) == f"higher; {weak}" == reading("recall_a", weak)
    assert reading("frechet_distance_a", weak) == "lower"
    table = score_tables.metrics_table(Score({"recall_a": 1.0}, {"recall_a": 0.9}, None, 4), weak)
    assert table.rows[0][-1] == f"higher; {weak}"


def test_json_is_standard_whatever_the_numbers(tmp_path):
    content = {"a": float("nan"), "b": [np.float32(0.5), np.inf], "c": np.arange(2), "d": None}
    write_json(tmp_path / "results.json", content)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "results.json").read_text()
    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": None, "b": [0.5, None], "c": [0, 1], "d": None}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
