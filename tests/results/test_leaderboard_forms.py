import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import Problem, render_leaderboard
from s3prl_interfaces.results.published import Published
from s3prl_interfaces.results.significance import Comparison

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
def small(make_result, board):
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
    return board(results)


@pytest.fixture
def full(make_result, board):
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
    return board(results)


NOT_OVERALL = "There is no superb_s: the rows have fewer than two of SUPERB's tasks in common."


def test_table(small):
    assert render_leaderboard(small, "table", width=80) == (
        f"""\
upstream: tiny
              asr test-clean         ic test
interface     wer ↓               Δ  acc (%) ↑         Δ  params  seeds
───────────────────────────────────────────────────────────────────────
weighted_sum  6.50                   97.00  ±1.41             13    1/2
concat           -                   94.50  ±0.71  -2.50   7.67M      2
hconv         6.25*           -0.25  97.50* ±0.71  +0.50   4.42M    1/2

! {NOT_OVERALL[:-8]}
common.

Mean ± sample standard deviation over seeds. ↑ higher, ↓ lower is better. Δ:
difference to weighted_sum. *: best of the column, ties at the shown precision
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
    assert "grouped_weighted_sum  12.42  ±0.01  -0.10      3" in text
    assert "grouped_weighted_sum   1.18M" in text
    assert "…" not in text


def test_color_marks_the_best_in_bold(small):
    text = render_leaderboard(small, "table", width=80, color=True)
    assert "\x1b[1m97.50* ±0.71\x1b[0m" in text
    assert "\x1b[1m97.00" not in text


def test_brackets_in_options_are_not_styles(make_result, board):
    options = {"layers": [1, 2], "mode": "[bold]"}
    built = board([make_result(interface="x", interface_options=options)])
    text = " ".join(render_leaderboard(built, "table", width=80).split())
    assert "[1, 2]" in text
    assert 'mode="[bold]")' in text


def test_notes_are_shown(make_result, board):
    built = board([make_result(), make_result(interface="hconv", config_sha256="b" * 64)])
    (note,) = built.tables[0].notes
    assert f"! {note}" in render_leaderboard(built, "table", width=300)
    assert "- ic: not all of these are comparable" in render_leaderboard(built, "markdown")
    assert json.loads(render_leaderboard(built, "json"))["tables"][0]["notes"] == [note]


def test_small_fractions_keep_four_digits(make_result, board):
    kind = {"metric": "eer", "higher_is_better": False}
    built = board([make_result(0.0512, **kind), make_result(0.0498, interface="hconv", **kind)])
    text = render_leaderboard(built, "table", width=80)
    assert "eer ↓" in text
    assert "0.0498*  -0.0014" in text


def test_a_difference_that_rounds_to_zero_has_no_sign(make_result, board):
    built = board([make_result(0.97004), make_result(0.97001, interface="hconv")])
    assert "| `hconv` | **97.00** | 0.00 |" in render_leaderboard(built, "markdown")


def test_markdown(small):
    assert render_leaderboard(small, "markdown") == (
        """\
### upstream: tiny

| interface | asr test-clean wer ↓ | Δ | ic test acc (%) ↑ | Δ | params | seeds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| `weighted_sum` | 6.50 |  | 97.00 ± 1.41 |  | 13 | 1/2 |
| `concat` | - |  | 94.50 ± 0.71 | -2.50 | 7,668,480 | 2 |
| `hconv` | **6.25** | -0.25 | **97.50 ± 0.71** | +0.50 | 4,424,832 | 1/2 |

- There is no superb\\_s: the rows have fewer than two of SUPERB's tasks in common.

Mean ± sample standard deviation over seeds. ↑ higher, ↓ lower is better. Δ: difference to weighted_sum. \
**bold**: best of the column, ties at the shown precision included. params: trained parameters \
of the interface. seeds: how many, for each column where they differ.
"""
    )


def test_markdown_escapes_what_would_break_it(make_result, board):
    options = {"mode": "a|b"}
    built = board([make_result(interface_options=options, upstream="my_*model*")])
    text = render_leaderboard(built, "markdown")
    assert '| `weighted_sum(mode="a\\|b")` |' in text
    assert "### upstream: my\\_\\*model\\*" in text


def test_json_round_trip(small):
    data = json.loads(render_leaderboard(small, "json"))
    assert data["baseline"] == "weighted_sum"
    (table,) = data["tables"]
    assert table["upstream"] == "tiny"
    rest = {"protocol": {}, "folds": []}
    assert table["columns"] == [
        {"task": "asr", "split": "test-clean", "metric": "wer", "higher_is_better": False, **rest},
        {"task": "ic", "split": "test", "metric": "acc", "higher_is_better": True, **rest},
    ]
    assert (table["superb_tasks"], table["published"], table["notes"]) == ([], [], [NOT_OVERALL])
    assert data["problems"] == []
    concat, hconv = table["rows"][1:]
    assert concat["cells"][0] is None
    assert hconv["interface_options"] == {}
    cell = small.tables[0].rows[2].cells[1]
    assert hconv["cells"][1] == {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": [0, 1],
        "data_seeds": [None, None],
        "learning_rate": None,
        "learning_rates_tried": [None],
        "difference": cell.difference,
        "comparison": None,
        "best": True,
        "parameters": [4_424_832],
        "macs_per_second": [],
        "config_sha256": ["a" * 64],
    }


def test_csv_round_trip(make_result, board):
    value = 0.1 + 0.2
    results = [
        make_result(0.25, seed=1, data_seed=7, learning_rate=1e-3, macs_per_second=650),
        make_result(0.5, seed=2, learning_rate=1e-3, macs_per_second=650),
        make_result(value, interface="hconv", interface_options={"layers": [1, 2]}),
        make_result(0.5, task="er", interface="hconv", interface_options={"layers": [1, 2]}),
    ]
    lines = list(csv.DictReader(io.StringIO(render_leaderboard(board(results), "csv"))))
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
        "folds": "",
        "label": "weighted_sum",
        "interface": "weighted_sum",
        "interface_options": "{}",
        "published_by": "",
        "mean": "0.375",
        "std": "0.1767766952966369",
        "seeds": "1 2",
        "data_seeds": "7 -",
        "learning_rate": "0.001",
        "learning_rates_tried": "0.001",
        "difference": "",
        "low": "",
        "high": "",
        "p_value": "",
        "p_corrected": "",
        "significant": "",
        "best": "true",
        "parameters": "13",
        "macs_per_second": "650",
        "config_sha256": "a" * 64,
        "superb_s": "",
    }
    assert lines[2]["label"] == "hconv(layers=[1, 2])"
    assert json.loads(lines[2]["interface_options"]) == {"layers": [1, 2]}
    assert float(lines[2]["mean"]) == value
    assert float(lines[2]["difference"]) == value - 0.375
    assert (lines[2]["std"], lines[2]["data_seeds"], lines[2]["learning_rate"]) == ("", "", "")


def test_unknown_format(small):
    with pytest.raises(ConfigError, match=r"Unknown format 'markdwn'\. Did you mean 'markdown'\?"):
        render_leaderboard(small, "markdwn")


def test_no_torch_is_needed():
    code = "import sys, s3prl_interfaces.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def rich(make_result, board):
    """Everything there can be: two tasks, a tested difference, an overall score, MACs, published rows, a problem."""
    results = []
    for interface, acc, wer in (("weighted_sum", 0.9, 8.0), ("hconv", 0.95, 7.0), ("concat", 0.91, 7.5)):
        for task, value in (("ic", acc), ("asr", wer)):
            kind = {} if task == "ic" else {"metric": "wer", "higher_is_better": False, "split": "test-clean"}
            trained = INTERFACES[interface]
            result = make_result(
                value,
                task=task,
                interface=interface,
                trained=trained,
                macs_per_second=trained * 50,
                upstream="hubert",
                **kind,
            )
            results.append(result)
    published = [
        Published("HuBERT Base", ("hubert",), "hconv", "Somebody, 2024", {("ic", "acc"): 99.45}),
        Published(
            "HuBERT Base", ("hubert",), "weighted_sum", "Somebody, 2024", {("ic", "acc"): 98.34, ("asr", "wer"): 6.42}
        ),
        Published("FBANK", ("*",), None, "SUPERB_1 & 2", {("asr", "wer"): 23.18}),
    ]
    built = board(results, published=published)
    (table,) = built.tables
    rows = list(table.rows)
    assert [row.label for row in rows] == ["weighted_sum", "concat", "hconv"]
    for place, p_corrected in ((1, 0.05), (2, 0.002)):
        comparison = Comparison(rows[place].cells[1].difference, 0.004, 0.0951, 0.001, 0.95, 100, 5000)
        cell = replace(rows[place].cells[1], comparison=comparison, p_corrected=p_corrected)
        rows[place] = replace(rows[place], cells=(rows[place].cells[0], cell))
    problem = Problem(Path("runs/ic_1"), "not finished, step 10 of 20: continue it with `-a`.")
    return replace(built, tables=(replace(table, rows=tuple(rows)),), problems=(problem,))


def test_rich_table(rich):
    """The overall score of hconv is the mean of 1000 * (7 - 23.18) / (3.62 - 23.18) and
    1000 * (95 - 9.649354219) / (98.76 - 9.649354219).
    """
    assert render_leaderboard(rich, "table", width=100) == (
        """\
upstream: hubert
                  asr test-clean         ic test
interface         wer ↓               Δ  acc (%) ↑       Δ  superb_s ↑  params  MACs/s  seeds
─────────────────────────────────────────────────────────────────────────────────────────────
weighted_sum       8.00                  90.00                     839      13     650      1
concat             7.50           -0.50  91.00       +1.00         857   7.67M    383M      1
hconv              7.00*          -1.00  95.00*     +5.00†        893*   4.42M    221M      1

published:
hconv [1]             -                  99.45
weighted_sum [1]   6.42                  98.34
FBANK [2]         23.18                      -

[1] HuBERT Base: Somebody, 2024.
[2] FBANK: SUPERB_1 & 2.
superb_s: SUPERB's overall score, partial: over asr, ic only. On SUPERB's data, 0 is FBANK and 1000
the best of 2021.

Not counted:
! runs/ic_1: not finished, step 10 of 20: continue it with `-a`.

Mean ± sample standard deviation over seeds. ↑ higher, ↓ lower is better. Δ: difference to
weighted_sum. *: best of the column, ties at the shown precision included. †: p < 0.05 in a paired
bootstrap over utterances (5000 resamples), Holm's correction within the column; it says nothing of
other seeds. params: trained parameters of the interface. MACs/s: multiply-accumulate operations of
the interface for a second of audio. seeds: how many, for each column where they differ. Published
figures were not measured here and are not compared.
"""
    )


def test_rich_table_in_narrow_blocks(rich):
    """What is of all tasks comes last, and published rows only where they have a figure."""
    text = render_leaderboard(rich, "table", width=50)
    blocks = text.split("[1] HuBERT")[0].split("\n\n")
    assert max(map(len, text.splitlines())) <= 50
    assert ["FBANK" in block for block in blocks if "weighted_sum [1]" in block] == [True, False]
    assert "\n\n\n" not in text  # only tasks have headings of two lines
    assert (
        """
interface     superb_s ↑  params  MACs/s
────────────────────────────────────────
weighted_sum         839      13     650
concat               857   7.67M    383M
hconv               893*   4.42M    221M
"""
        in text
    )


def test_published_rows_are_never_bold(rich):
    text = render_leaderboard(rich, "table", width=100, color=True)
    (line,) = [line for line in text.splitlines() if "99.45" in line]
    assert "\x1b[2;3m99.45" in line
    assert "\x1b[1" not in line
    (line,) = [line for line in text.splitlines() if line.startswith("hconv  ")]
    assert re.search(r"\x1b\[1m +893\*", line)


def test_rich_markdown(rich):
    lines = render_leaderboard(rich, "markdown").splitlines()
    assert lines[2:10] == [
        "| interface | asr test-clean wer ↓ | Δ | ic test acc (%) ↑ | Δ (95% interval) "
        "| superb_s ↑ | params | MACs/s | seeds |",
        "| --- " + "| ---: " * 8 + "|",
        "| `weighted_sum` | 8.00 |  | 90.00 |  | 839 | 13 | 650 | 1 |",
        "| `concat` | 7.50 | -0.50 | 91.00 | +1.00 (+0.40 to +9.51) | 857 | 7,668,480 | 383M | 1 |",
        "| `hconv` | **7.00** | -1.00 | **95.00** | +5.00† (+0.40 to +9.51) | **893** | 4,424,832 | 221M | 1 |",
        "| *published: hconv* \\[1\\] |  |  | *99.45* |  |  |  |  |  |",
        "| *published: weighted\\_sum* \\[1\\] | *6.42* |  | *98.34* |  |  |  |  |  |",
        "| *published: FBANK* \\[2\\] | *23.18* |  |  |  |  |  |  |  |",
    ]
    assert "- \\[2] FBANK: SUPERB\\_1 & 2." in lines
    assert "- superb\\_s: SUPERB's overall score, partial: over asr, ic only. On SUPERB's data" in "\n".join(lines)
    assert "- runs/ic\\_1: not finished, step 10 of 20: continue it with \\`-a\\`." in lines


def test_rich_json(rich):
    data = json.loads(render_leaderboard(rich, "json"))
    assert data["problems"] == [{"folder": "runs/ic_1", "problem": rich.problems[0].text}]
    (table,) = data["tables"]
    assert table["superb_tasks"] == ["asr", "ic"]
    assert [round(row["superb_s"], 1) for row in table["rows"]] == [838.9, 857.3, 892.5]
    # In the unit of the metrics, and nowhere else than here.
    assert table["published"] == [
        {"label": "hconv", "upstream": "HuBERT Base", "source": "Somebody, 2024", "values": [None, 0.9945]},
        {"label": "weighted_sum", "upstream": "HuBERT Base", "source": "Somebody, 2024", "values": [6.42, 0.9834]},
        {"label": "FBANK", "upstream": "FBANK", "source": "SUPERB_1 & 2", "values": [23.18, None]},
    ]
    assert [row["label"] for row in table["rows"]] == ["weighted_sum", "concat", "hconv"]
    assert table["rows"][2]["cells"][0]["comparison"] is None
    assert table["rows"][2]["cells"][1]["comparison"] == {
        "low": 0.004,
        "high": 0.0951,
        "level": 0.95,
        "p_value": 0.001,
        "p_corrected": 0.002,
        "significant": True,
        "units": 100,
        "resamples": 5000,
    }
    assert table["rows"][1]["cells"][1]["comparison"]["significant"] is False


def test_rich_csv(rich):
    lines = list(csv.DictReader(io.StringIO(render_leaderboard(rich, "csv"))))
    assert [line["published_by"] for line in lines] == [""] * 6 + ["Somebody, 2024", "SUPERB_1 & 2"] + [
        "Somebody, 2024"
    ] * 2
    tested = lines[5]
    assert (tested["task"], tested["label"]) == ("ic", "hconv")
    names = ("low", "high", "p_value", "p_corrected", "significant", "macs_per_second")
    assert [tested[name] for name in names] == ["0.004", "0.0951", "0.001", "0.002", "true", "221241600"]
    assert float(tested["superb_s"]) == pytest.approx(892.50181)
    published = lines[7]
    assert (published["upstream"], published["label"], published["mean"]) == ("FBANK", "FBANK", "23.18")
    assert (published["interface"], published["best"], published["superb_s"]) == ("", "", "")


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999, "999"), (999_499, "999k"), (999_600, "1M"), (1_240_000_000, "1.24G"), (2 * 10**12, "2T")],
)
def test_macs_have_three_digits(number, shown, make_result, board):
    text = render_leaderboard(board([make_result(macs_per_second=number)]), "markdown")
    assert f"| 13 | {shown} | 1 |" in text


def test_macs_that_only_some_tell(make_result, board):
    results = [
        make_result(seed=1, macs_per_second=500),
        make_result(seed=2, macs_per_second=600),
        make_result(interface="hconv"),
    ]
    text = render_leaderboard(board(results), "markdown")
    assert "| 13 | 500 to 600 | 2 |" in text
    assert "| 13 | - | 1 |" in text
