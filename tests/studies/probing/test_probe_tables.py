"""The command that writes the tables of docs/probe.md, on probes of two toy tokenizers."""

import json
from pathlib import Path

import pytest
import tiny_run
from refusals import refusal_of
from test_probe_claims import probe

from sphere_jax.studies.probing.probe_page import write

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def command():
    return tiny_run.benchmark("probe_tables")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of decoders that read directions, and norms, alone."""
    root = tmp_path_factory.mktemp("tables")
    for kind in ("direction", "norm"):
        probed = probe(kind)
        (root / kind).mkdir()
        protocol = {
            "tokenizer": {"name": "toy", "kind": kind}, "latents": (8, 8, 3),
            "data fingerprint": "f", "images": "20 held-out images of 8x8x3", "seed": 0,
            "LPIPS": "left out", "semantic distance": "left out", "device": "1 x cpu",
            "seconds": 3,
        }  # fmt: skip
        write(root / kind, probed, protocol)
    return root


def test_the_tables_hold_the_results_of_the_probes(command, folders, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Above\n{command.BEGIN}\nold\n{command.END}\n\nBelow\n")
    for _ in range(2):  # the second time in the place of the first
        command.main([str(folders / "direction"), str(folders / "norm"), f"--page={page}"])
    printed = capsys.readouterr().out.strip()
    text = page.read_text()
    assert text.startswith(f"# Above\n{command.BEGIN}\n20 held-out images of 8x8x3 (finger")
    assert text.endswith(f"\n{command.END}\n\nBelow\n") and "old" not in text
    assert printed.count("| claim |") == 2 and text.count("| claim |") == 1
    assert "seed 0, on 1 x cpu; DIRECTION 3 s, NORM 3 s." in text
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    both = [json.loads((folders / k / "probe.json").read_text()) for k in ("direction", "norm")]
    for i, claim in enumerate(both[0]["claims"]):
        shown = " | ".join(p["claims"][i]["shown"] for p in both)
        assert rows[f"| {claim['statement']}"].endswith(f" | {claim['source']} | {shown} |")
    swapped = [p["swap"]["r_b u_a (radius swapped)"] for p in both]
    cells = " | ".join(
        f"{s['to a']['psnr']['value']:.1f}; {s['to b']['psnr']['value']:.1f}" for s in swapped
    )
    assert rows["| radius swapped, PSNR in dB to a; to b"].endswith(f"b | {cells} |")
    assert rows["| images with a neighbour to swap with"].endswith("| 20 | 20 |")
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| eta")}
    assert widths == {2}


def test_refusals(command, folders, tmp_path):
    def refusal(*argv) -> str:
        return refusal_of(command.main, [str(a) for a in argv])

    own = folders / "direction"
    assert "is not what sphere_jax.probe writes" in refusal(tmp_path)
    page = tmp_path / "page.md"
    assert "There is no page" in refusal(own, f"--page={page}")
    page.write_text(f"{command.END}\n{command.BEGIN}\n")
    assert "must have the lines" in refusal(own, f"--page={page}")
    other = json.loads((folders / "norm" / "probe.json").read_text())
    other["protocol"]["seed"] = 1
    (tmp_path / "probe.json").write_text(json.dumps(other))
    assert "differ in 'seed': 0 and 1" in refusal(own, tmp_path)


def test_the_page_has_markers_for_the_tables(command):
    text = (ROOT / "docs" / "probe.md").read_text()
    assert text.count(command.BEGIN) == text.count(command.END) == 1
