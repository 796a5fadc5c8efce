import csv
import io
import json
import subprocess
import sys

import pytest

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import build_leaderboard, render_leaderboard

INTERFACES = {
    "weighted_sum": 13,
    "grouped_weighted_sum": 1_181_184,
    "concat": 7_668_480,
    "hconv": 4_424_832,
    "cls_pooling": 7_088_640,
    "pca_concat": 0,
    "last_layer": 0,
    "single_layer": 0,
}


@pytest.fixture
def small(make_result):
    """Accuracy of three interfaces over two seeds, and a word error rate that one of them lacks."""
    wer = {"task": "asr", "metric": "wer", "higher_is_better": False, "split": "test-clean"}
    scores = {"weighted_sum": (0.96, 0.98), "hconv": (0.97, 0.98), "concat": (0.94, 0.95)}
    results = [
        make_result(value, interface=name, seed=seed, trained=INTERFACES[name])
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    results += [
        make_result(6.5, **wer),
        make_result(6.25, interface="hconv", trained=INTERFACES["hconv"], **wer),
    ]
    return build_leaderboard(results)


@pytest.fixture
def full(make_result):
    """Eight interfaces, two tasks, three seeds; some with options."""
    results = []
    for place, (name, trained) in enumerate(INTERFACES.items()):
        options = {"hconv": {"kernel_size": 3}, "single_layer": {"layer": 12}}.get(name, {})
        for seed in (1, 2, 3):
            fields = {
                "interface": name,
                "interface_options": options,
                "seed": seed,
                "trained": trained,
            }
            results.append(make_result(0.9 + place / 100 + seed / 1000, **fields))
            wer = 12.5 - place / 10 + seed / 100
            results.append(make_result(wer, task="asr", metric="wer", higher_is_better=False, **fields))
    return build_leaderboard(results)


def test_table(small):
    assert render_leaderboard(small, "table", width=80) == (
        """\
upstream: tiny
              asr test-clean         ic test
interface     wer ↓               Δ  acc (%) ↑         Δ  params  seeds
───────────────────────────────────────────────────────────────────────
weighted_sum  6.50                   97.00  ±1.41             13    1/2
concat           -                   94.50  ±0.71  -2.50   7.67M      2
hconv         6.25*           -0.25  97.50* ±0.71  +0.50   4.42M    1/2

Mean ± sample standard deviation over seeds. Δ: difference to weighted_sum. ↑
higher, ↓ lower is better. *: best of the column, ties at the shown precision
included. params: trained parameters of the interface. seeds: how many, for each
column where they differ.
"""
    )


@pytest.mark.parametrize("width", [80, 120])
def test_full_table_shows_everything(full, width):
    text = render_leaderboard(full, "table", width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert "\x1b" not in text
    # Both tasks stand beside each other, in one block.
    assert text.count("interface  ") == 1
    (row,) = [line for line in lines if line.startswith("grouped_weighted_sum")]
    assert row.split() == [
        "grouped_weighted_sum",
        "12.42",
        "±0.01",
        "-0.10",
        "91.20",
        "±0.10",
        "+1.00",
        "1.18M",
        "3",
    ]
    for name in INTERFACES:
        (row,) = [line for line in lines if line.startswith(name)]
        expected = 6 if name == "weighted_sum" else 8
        assert len(row.removeprefix("hconv(kernel_size=3)").removeprefix(name).split()) == expected, row
    assert "(layer=12)" in text


def test_tasks_that_do_not_fit_go_below(full):
    text = render_leaderboard(full, "table", width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("interface  ") == 2
    assert text.count("grouped_weighted_sum") == 2
    assert "12.42  ±0.01" in text
    assert "91.20  ±0.10" in text


def test_a_line_too_short_for_one_task_cuts_nothing(full):
    text = render_leaderboard(full, "table", width=20)
    assert "grouped_weighted_sum  12.42  ±0.01  -0.10   1.18M      3" in text
    assert "…" not in text


def test_color_marks_the_best_in_bold(small):
    text = render_leaderboard(small, "table", width=80, color=True)
    assert "\x1b[1m97.50* ±0.71\x1b[0m" in text
    assert "\x1b[1m97.00" not in text


def test_brackets_in_options_are_not_styles(make_result):
    options = {"layers": [1, 2], "mode": "[bold]"}
    board = build_leaderboard([make_result(interface="x", interface_options=options)])
    text = " ".join(render_leaderboard(board, "table", width=80).split())
    assert "[1, 2]" in text
    assert 'mode="[bold]")' in text


def test_notes_are_shown(make_result):
    board = build_leaderboard([make_result(), make_result(interface="hconv", config_sha256="b" * 64)])
    (note,) = board.tables[0].notes
    assert f"! {note}" in render_leaderboard(board, "table", width=300)
    assert "- ic: not all of these are comparable" in render_leaderboard(board, "markdown")
    assert json.loads(render_leaderboard(board, "json"))["tables"][0]["notes"] == [note]


def test_small_fractions_keep_four_digits(make_result):
    kind = {"metric": "eer", "higher_is_better": False}
    board = build_leaderboard([make_result(0.0512, **kind), make_result(0.0498, interface="hconv", **kind)])
    text = render_leaderboard(board, "table", width=80)
    assert "eer ↓" in text
    assert "0.0498*  -0.0014" in text


def test_a_difference_that_rounds_to_zero_has_no_sign(make_result):
    board = build_leaderboard([make_result(0.97004), make_result(0.97001, interface="hconv")])
    assert "| `hconv` | **97.00** | 0.00 |" in render_leaderboard(board, "markdown")


def test_markdown(small):
    assert render_leaderboard(small, "markdown") == (
        """\
### upstream: tiny

| interface | asr test-clean wer ↓ | Δ | ic test acc (%) ↑ | Δ | params | seeds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| `weighted_sum` | 6.50 |  | 97.00 ± 1.41 |  | 13 | 1/2 |
| `concat` | - |  | 94.50 ± 0.71 | -2.50 | 7,668,480 | 2 |
| `hconv` | **6.25** | -0.25 | **97.50 ± 0.71** | +0.50 | 4,424,832 | 1/2 |

Mean ± sample standard deviation over seeds. Δ: difference to weighted_sum. ↑ higher, ↓ lower is better. \
**bold**: best of the column, ties at the shown precision included. params: trained parameters \
of the interface. seeds: how many, for each column where they differ.
"""
    )


def test_markdown_escapes_what_would_break_it(make_result):
    options = {"mode": "a|b"}
    board = build_leaderboard([make_result(interface_options=options, upstream="my_*model*")])
    text = render_leaderboard(board, "markdown")
    assert '| `weighted_sum(mode="a\\|b")` |' in text
    assert "### upstream: my\\_\\*model\\*" in text


def test_json_round_trip(small):
    data = json.loads(render_leaderboard(small, "json"))
    assert data["baseline"] == "weighted_sum"
    (table,) = data["tables"]
    assert table["upstream"] == "tiny"
    assert table["columns"] == [
        {"task": "asr", "split": "test-clean", "metric": "wer", "higher_is_better": False, "protocol": {}},
        {"task": "ic", "split": "test", "metric": "acc", "higher_is_better": True, "protocol": {}},
    ]
    concat, hconv = table["rows"][1:]
    assert concat["cells"][0] is None
    assert hconv["interface_options"] == {}
    cell = small.tables[0].rows[2].cells[1]
    assert hconv["cells"][1] == {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": [0, 1],
        "difference": cell.difference,
        "best": True,
        "parameters": [4_424_832],
        "config_sha256": ["a" * 64],
    }


def test_csv_round_trip(make_result):
    value = 0.1 + 0.2
    results = [
        make_result(0.25, seed=1),
        make_result(0.5, seed=2),
        make_result(value, interface="hconv", interface_options={"layers": [1, 2]}),
        make_result(0.5, task="er", interface="hconv", interface_options={"layers": [1, 2]}),
    ]
    lines = list(csv.DictReader(io.StringIO(render_leaderboard(build_leaderboard(results), "csv"))))
    assert [(line["task"], line["interface"]) for line in lines] == [
        ("er", "hconv"),
        ("ic", "weighted_sum"),
        ("ic", "hconv"),
    ]
    assert lines[1] == {
        "upstream": "tiny",
        "task": "ic",
        "split": "test",
        "metric": "acc",
        "higher_is_better": "true",
        "protocol": "{}",
        "label": "weighted_sum",
        "interface": "weighted_sum",
        "interface_options": "{}",
        "mean": "0.375",
        "std": "0.1767766952966369",
        "seeds": "1 2",
        "difference": "",
        "best": "true",
        "parameters": "13",
        "config_sha256": "a" * 64,
    }
    assert lines[2]["label"] == "hconv(layers=[1, 2])"
    assert json.loads(lines[2]["interface_options"]) == {"layers": [1, 2]}
    assert float(lines[2]["mean"]) == value
    assert float(lines[2]["difference"]) == value - 0.375
    assert lines[2]["std"] == ""


def test_unknown_format(small):
    with pytest.raises(ConfigError, match=r"Unknown format 'markdwn'\. Did you mean 'markdown'\?"):
        render_leaderboard(small, "markdwn")


def test_no_torch_is_needed():
    code = "import sys, s3prl_interfaces.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
