"""Drawings are checked as SVG: what stands in them, that nothing is lost and that nothing runs over anything."""

import itertools
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import autograd as ag
from autograd.engine import Tensor, describe, reachable
from tinyllm.models import Decoder, gpt2, llama

IDS = np.random.default_rng(0).integers(0, 50, (2, 8))
SVG = "{http://www.w3.org/2000/svg}"


def leaf(*shape):
    return Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


class Picture:
    """What a reader sees: boxes, frames and arrows, read back from the SVG."""

    def __init__(self, drawing):
        self.root = ElementTree.fromstring(drawing.svg)
        groups = [group for group in self.root.iter(f"{SVG}g") if group.get("class")]
        self.boxes = {g.get("data-id"): g for g in groups if g.get("data-id")}
        self.frames = [g for g in groups if g.get("class") == "frame"]
        self.arrows = [g for g in groups if g.get("data-from")]
        assert len(self.boxes) == sum(1 for g in groups if g.get("data-id")), "two boxes have one id"

    def texts(self, group):
        return [text.text for text in group.iter(f"{SVG}text")]

    def of_kind(self, kind):
        return [box for box in self.boxes.values() if box.get("class") == kind]

    def ops(self):
        return sum(int(box.get("data-ops")) for box in self.boxes.values())

    def parameters(self):
        return sum(int(box.get("data-parameters")) for box in self.boxes.values())

    def pairs(self):
        """How many arrows lead from the box that says one thing to the box that says another."""
        return [(self.name(a.get("data-from")), self.name(a.get("data-to"))) for a in self.arrows]

    def name(self, box):
        return next(text.text for text in self.boxes[box].iter(f"{SVG}text") if text.get("class") == "name")


def rectangle(group):
    rect = group.find(f"{SVG}rect")
    x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def overlap(a, b, margin=0.0):
    return a[0] < b[2] - margin and b[0] < a[2] - margin and a[1] < b[3] - margin and b[1] < a[3] - margin


STEPS = np.linspace(0, 1, 40)[:, None]


def points(arrow):
    """Points (N, 2) along an arrow's line, curves sampled."""
    here, found = None, []
    for command, numbers in re.findall(r"([MVC])([^MVC]*)", arrow.find(f"{SVG}path").get("d")):
        values = [float(number) for number in numbers.split()]
        if command == "M":
            here = tuple(values)
        elif command == "V":
            assert values[0] >= here[1] - 0.2, "an arrow goes up"
            end = here[0], values[0]
            found.append((1 - STEPS) * here + STEPS * end)
            here = end
        else:
            assert values[5] > here[1] + 1, "an arrow jumps sideways"
            p, t = np.array([here, values[0:2], values[2:4], values[4:6]]), STEPS
            found.append(np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]) @ p)
            here = values[4], values[5]
    return np.concatenate(found)


def block(family, **options):
    config = family.config(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8, **options
    )
    x = leaf(2, 8, 16)
    x.data = x.data.astype(np.float32)
    return Decoder(config).blocks[0](x, np.arange(8), None, lambda x, place: x)


def loss(family, layers, **options):
    config = family.config(
        vocab_size=50, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=8
    )
    model = Decoder(config)
    return model.loss(IDS, IDS, **options), model


def polynomial():
    x = Tensor(3.0, requires_grad=True)
    return x * x + x


def attention():
    q, k, v = leaf(2, 4, 8, 16), leaf(2, 4, 8, 16), leaf(2, 4, 8, 16)
    with ag.scope("attention"):
        scores = ag.matmul(q, ag.transpose(k, axes=(0, 1, 3, 2))) / math.sqrt(16)
        return ag.matmul(ag.softmax(scores), v)


def recomputed():
    w, x = leaf(4, 4), leaf(3, 4)
    y = ag.recompute(lambda x: ag.tanh(x @ w), x * 2)
    return (y @ w).sum()


def tangle():
    """Many arrows past many rows: every result is used by all later ones."""
    results = [leaf(2) for _ in range(3)]
    for i in range(12):
        with ag.scope(f"part{i % 5}"), ag.scope("inner" if i % 2 else "other"):
            results.append(ag.stack(*results).sum(axis=0))
            results.append(ag.tanh(results[-1]) * results[i])
    return results[-1]


GRAPHS = {
    "polynomial": polynomial,
    "attention": attention,
    "recompute": recomputed,
    "tangle": tangle,
    "GPT-2 block": lambda: block(gpt2),
    "Llama block": lambda: block(llama),
    "GPT-2 loss": lambda: loss(gpt2, 4)[0],
    "Llama loss": lambda: loss(llama, 12)[0],
    "dropout": lambda: loss(gpt2, 2, dropout_seed=1)[0],
}
every_graph = pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS.keys())
every_depth = pytest.mark.parametrize("depth", [None, 1, 2, 99])


@every_graph
@every_depth
def test_every_op_and_every_leaf_is_in_exactly_one_box(make, depth):
    y = make()
    nodes, leaves = reachable(y.node)
    picture = Picture(ag.debug.draw(y, depth=depth))
    assert picture.ops() == len(nodes)
    assert picture.parameters() == sum(leaf.size for leaf in leaves)
    for box in picture.boxes.values():
        assert (box.get("class") == "leaf") == (box.get("data-ops") == "0")
        assert (box.get("class") == "layer") == (int(box.get("data-ops")) > 1)


@every_graph
def test_drawn_op_by_op_the_boxes_say_name_and_shape_of_every_op(make):
    y = make()
    nodes, _ = reachable(y.node)
    picture = Picture(ag.debug.draw(y, depth=99))
    drawn = [
        [t for t in box.iter(f"{SVG}text") if t.get("class") in ("name", "shape")] for box in picture.of_kind("op")
    ]
    assert sorted((name.text, shape.text) for name, shape in drawn) == sorted((n.name, describe(n)) for n in nodes)


@every_graph
def test_drawn_op_by_op_the_arrows_and_leaves_in_boxes_are_the_arguments_with_gradient(make):
    y = make()
    nodes, _ = reachable(y.node)
    wanted = sorted((node.name, sum(parent is not None for parent in node.parents)) for node in nodes)
    picture = Picture(ag.debug.draw(y, depth=99))
    drawn = []
    for name, box in picture.boxes.items():
        if box.get("class") == "op":
            arriving = sum(arrow.get("data-to") == name for arrow in picture.arrows)
            inside = [text.text for text in box.iter(f"{SVG}text") if text.get("class") == "leaf"]
            drawn.append((picture.name(name), arriving + len(inside)))
    assert sorted(drawn) == wanted


def test_arrows_lead_from_what_was_computed_to_what_used_it():
    assert sorted(Picture(ag.debug.draw(polynomial())).pairs()) == [
        ("a, b", "add"), ("a, b", "multiply"), ("a, b", "multiply"), ("multiply", "add"),
    ]  # fmt: skip
    assert sorted(Picture(ag.debug.draw(attention())).pairs()) == [
        ("a", "matmul"), ("attention.b", "matmul"), ("attention.x", "transpose"), ("divide", "softmax"),
        ("matmul", "divide"), ("softmax", "matmul"), ("transpose", "matmul"),
    ]  # fmt: skip
    arguments = [a.get("data-argument") for a in Picture(ag.debug.draw(polynomial())).arrows]
    assert sorted(arguments) == ["a", "a", "b", "b"]


def test_layers_are_joined_as_their_ops_are():
    y, _ = loss(gpt2, 2)
    picture = Picture(ag.debug.draw(y, depth=1))
    assert sorted(picture.pairs()) == [
        ("add", "blocks.0"), ("blocks.0", "blocks.1"), ("blocks.1", "layer_norm"), ("embedding", "add"),
        ("embedding", "add"), ("embedding.weight", "embedding"), ("embedding.weight", "linear"),
        ("layer_norm", "reshape"), ("linear", "cross_entropy"), ("reshape", "linear"),
    ]  # fmt: skip
    assert [g.get("data-path") for g in picture.of_kind("layer")] == ["blocks.0", "blocks.1"]


@every_graph
@every_depth
def test_nothing_lies_on_anything(make, depth):
    picture = Picture(ag.debug.draw(make(), depth=depth))
    rectangles = {name: rectangle(box) for name, box in picture.boxes.items()}
    for a, b in itertools.combinations(rectangles.values(), 2):
        assert not overlap(a, b)
    for frame in picture.frames:
        outer = rectangle(frame)
        for inner in [*rectangles.values(), *(rectangle(other) for other in picture.frames if other is not frame)]:
            inside = outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]
            around = inner[0] <= outer[0] and inner[1] <= outer[1] and outer[2] <= inner[2] and outer[3] <= inner[3]
            assert inside or around or not overlap(outer, inner)


@every_graph
@every_depth
def test_arrows_go_down_and_past_boxes(make, depth):
    picture = Picture(ag.debug.draw(make(), depth=depth))
    for arrow in picture.arrows:
        source, target = (picture.boxes[arrow.get(end)] for end in ("data-from", "data-to"))
        assert rectangle(source)[3] < rectangle(target)[1]
        way = points(arrow)
        assert way[0][1] == pytest.approx(rectangle(source)[3], abs=0.2)
        assert rectangle(target)[0] < way[-1][0] < rectangle(target)[2]
        for box in picture.boxes.values():
            x0, y0, x1, y1 = rectangle(box)
            assert not ((way > (x0 + 0.5, y0 + 0.5)) & (way < (x1 - 0.5, y1 - 0.5))).all(axis=1).any()


@every_graph
@every_depth
def test_boxes_lie_in_the_frames_of_their_layers_and_in_no_others(make, depth):
    picture = Picture(ag.debug.draw(make(), depth=depth))
    for box in [*picture.of_kind("op"), *picture.of_kind("layer")]:
        for frame in picture.frames:
            ours = f"{box.get('data-path')}.".startswith(f"{frame.get('data-path')}.")
            if overlap(rectangle(box), rectangle(frame)):
                assert ours
    paths = [frame.get("data-path") for frame in picture.frames]
    assert depth is None or all(len(path.replace("blocks.", "blocks").split(".")) < depth for path in paths)


@every_graph
@every_depth
def test_text_stays_in_its_box_and_arrow_names_stay_apart(make, depth):
    picture = Picture(ag.debug.draw(make(), depth=depth))
    for box in picture.boxes.values():
        x0, y0, x1, y1 = rectangle(box)
        spans = []
        for text in box.iter(f"{SVG}text"):
            half = 0.61 * float(text.get("font-size")) * len(text.text) / 2
            x, y = float(text.get("x")), float(text.get("y"))
            assert x0 < x - half
            assert x + half < x1
            assert y0 < y - 0.7 * float(text.get("font-size"))
            assert y < y1
            spans += [(x - half, x + half)] if text.get("class") == "arguments" else []
        assert all(a[1] < b[0] for a, b in itertools.pairwise(sorted(spans)))


@every_graph
def test_the_same_graph_gives_the_same_picture(make):
    y = make()
    assert ag.debug.draw(y).svg == ag.debug.draw(y).svg == ag.debug.draw(make()).svg


def test_the_picture_does_not_depend_on_the_hash_seed():
    script = "import autograd as ag\nx = ag.Tensor([1.0], requires_grad=True)\nprint(ag.debug.draw(x * x + x).svg)"
    results = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(results) == 1


def test_shortcuts_are_the_residual_connections():
    picture = Picture(ag.debug.draw(block(gpt2)))
    shortcuts = [a for a in picture.arrows if a.get("class") == "arrow shortcut"]
    assert [(picture.name(a.get("data-from")), picture.name(a.get("data-to"))) for a in shortcuts] == [
        ("x, a", "add"), ("add", "add"),
    ]  # fmt: skip
    assert not [a for a in Picture(ag.debug.draw(attention())).arrows if a.get("class") == "arrow shortcut"]


def test_an_arrow_is_no_shortcut_because_another_way_leads_to_its_target_from_elsewhere():
    y, z = ag.tanh(leaf(2)), ag.exp(leaf(2))
    picture = Picture(ag.debug.draw(ag.exp(y) * (y * z)))
    assert {arrow.get("class") for arrow in picture.arrows} == {"arrow"}


def test_a_block_stands_in_straight_columns():
    """What the eye follows down a block, from its input to its output, has one x; so has each of its three heads."""
    for family in (gpt2, llama):
        picture = Picture(ag.debug.draw(block(family)))
        middles = {}
        for box in picture.boxes.values():
            x0, _, x1, _ = rectangle(box)
            middles.setdefault(box.get("data-path"), set()).add(round((x0 + x1) / 2))
        column = {
            path: middles[f"blocks.0.{path}"] for path in ("attention_norm", "attention.key", "feed_forward.down")
        }
        assert len(set.union(*column.values(), middles["blocks.0"])) == 1
        assert len(middles["blocks.0.attention"]) == 3


def test_a_small_graph_is_drawn_op_by_op_and_a_model_by_layers():
    assert not Picture(ag.debug.draw(block(gpt2))).of_kind("layer")
    for y, layers in ((loss(gpt2, 4)[0], 8), (loss(llama, 12)[0], 12), (loss(gpt2, 40)[0], 40)):
        picture = Picture(ag.debug.draw(y))
        assert len(picture.boxes) <= 60
        assert len(picture.of_kind("layer")) == layers


def test_a_collapsed_layer_counts_its_ops_and_parameters():
    y, model = loss(gpt2, 2)
    [first, _] = Picture(ag.debug.draw(y, depth=1)).of_kind("layer")
    nodes = [node for node in reachable(y.node)[0] if node.path[:1] == ("blocks.0",)]
    numbers = model.blocks[0].num_parameters()
    assert first.get("data-ops") == str(len(nodes))
    assert first.get("data-parameters") == str(numbers)
    texts = [text.text for text in first.iter(f"{SVG}text")]
    assert texts == ["blocks.0", f"{len(nodes)} ops, {numbers:,} parameters", "float32[2, 8, 16]"]
    assert Picture(ag.debug.draw(y, depth=1)).parameters() == model.num_parameters()


def test_a_tied_weight_is_one_box_with_two_arrows():
    y, model = loss(gpt2, 1)
    assert model.tied()
    picture = Picture(ag.debug.draw(y))
    [weight] = picture.of_kind("leaf")
    assert picture.texts(weight) == ["embedding.weight", "float32[50, 16]"]
    assert [pair for pair in picture.pairs() if pair[0] == "embedding.weight"] == [
        ("embedding.weight", "embedding"), ("embedding.weight", "linear"),
    ]  # fmt: skip


def test_a_weight_that_two_layers_share_is_in_neither():
    w, x = leaf(3, 3), leaf(2, 3)
    y = x
    for name in ("first", "second"):
        with ag.scope(name):
            y = ag.tanh(y @ w)
    picture = Picture(ag.debug.draw(y, depth=1))
    assert sorted(picture.pairs()) == [("first", "second"), ("first.b", "first"), ("first.b", "second")]


def test_where_a_leaf_is_drawn():
    """In a graph with many leaves the parameters of layers stand in their ops; inputs and what is used twice do not."""
    square, twice, weights = leaf(4), leaf(4), [leaf(4, 4) for _ in range(7)]
    with ag.scope("outer"):
        y = ag.tanh(leaf(2, 4) * 2)
        with ag.scope("inner"):
            y = ag.tanh(ag.linear(leaf(2, 4), weights[0])) + y
            y = y + square * square
            y = y + ag.where(np.array([True]), twice, twice)
        for w in weights[1:]:
            y = ag.linear(y, w)
    picture = Picture(ag.debug.draw(y))
    boxes = {picture.texts(box)[0]: rectangle(box) for box in picture.of_kind("leaf")}
    assert set(boxes) == {"x", "a, b", "outer.inner.a"}
    frames = {frame.get("data-path"): rectangle(frame) for frame in picture.frames}
    for box in boxes.values():
        assert overlap(box, frames["outer"])
        assert not overlap(box, frames["outer.inner"])
    inside = [text.text for box in picture.of_kind("op") for text in box.iter() if text.get("class") == "leaf"]
    assert inside.count("weight float64[4, 4]") == 7


def test_the_leaves_of_a_recomputed_block_are_counted_in_its_box():
    _, model = loss(gpt2, 1)
    x = model.embedding(IDS)
    y = ag.recompute(lambda x: model.blocks[0](x, np.arange(8), None, lambda x, place: x), x)
    picture = Picture(ag.debug.draw(y))
    assert picture.texts(picture.of_kind("op")[-1]) == [
        "recompute(<lambda>)", "float32[2, 8, 16]", f"16 leaves, {model.blocks[0].num_parameters():,} parameters",
    ]  # fmt: skip


def test_tooltips_say_what_the_boxes_do_not():
    x = leaf(3)
    with ag.scope("here"):
        y = ag.exp(x * 2.0)
    boxes = Picture(ag.debug.draw(y)).boxes.values()
    titles = [box.find(f"{SVG}title").text for box in boxes]
    assert "multiply -> float64[3]\nlayer here\na: a leaf, float64[3]\nb: no gradient\nkeeps 0 bytes" in "".join(titles)
    weighted = Picture(ag.debug.draw(ag.linear(leaf(2, 3), leaf(4, 3)))).of_kind("op")[0].find(f"{SVG}title").text
    assert weighted.endswith("keeps 0 bytes for backward")  # but for the leaves, which live anyway
    assert "exp -> float64[3]\nlayer here\nx: multiply, float64[3]\nkeeps 24 bytes for backward (y)" in titles


def test_a_leaf_is_one_box():
    picture = Picture(ag.debug.draw(leaf(2, 3)))
    [box] = picture.boxes.values()
    assert picture.texts(box) == ["leaf", "float64[2, 3]"]


def test_names_are_escaped():
    op = ag.primitive(lambda x: (x * 1, lambda dy: (dy,)))
    with ag.scope('a<b>&"c"\x00'):
        y = ag.exp(op(leaf(2)))
    picture = Picture(ag.debug.draw(y))
    assert "<lambda>" in picture.texts(picture.of_kind("op")[0])
    assert 'a<b>&"c"?' in picture.texts(picture.frames[0])


def test_a_long_or_wide_name_is_cut_and_stays_in_its_box():
    for name in ("n" * 200, "層" * 30):
        with ag.scope(name):
            y = ag.exp(leaf(2))
        picture = Picture(ag.debug.draw(y))
        [op] = picture.of_kind("op")
        x0, _, x1, _ = rectangle(op)
        text = next(text for text in op.iter(f"{SVG}text") if text.get("class") == "layer")
        assert x1 - x0 > 0.61 * 10.5 * sum(1 if c in "n…" else 2 for c in text.text)
        assert name in op.find(f"{SVG}title").text
        assert x1 - x0 < 500


def test_a_drawing_is_an_accessible_picture_with_a_background_of_its_own():
    root = Picture(ag.debug.draw(polynomial())).root
    assert root.get("role") == "img"
    assert str(ag.debug.draw(polynomial())) == "<drawing of add float64[]: 2 ops, 1 leaf (1 number)>"
    assert ": 281 ops in 17 boxes, 111 leaves (" in str(ag.debug.draw(loss(llama, 12)[0]))
    assert root.get("aria-label") == root.find(f"{SVG}title").text == "add float64[]: 2 ops, 1 leaf (1 number)"
    assert root.find(f"{SVG}rect").get("class") == "paper"
    assert all(rule.startswith(".autograd-graph") for rule in root.find(f"{SVG}style").text.strip().splitlines())


def test_the_legend_explains_what_is_there_and_nothing_else():
    def legend(y):
        root = Picture(ag.debug.draw(y)).root
        return [text.text.partition(":")[0] for text in root.iter(f"{SVG}text") if text.get("class") == "legend"]

    assert legend(attention()) == ["op", "leaf"]
    assert legend(polynomial()) == ["op", "leaf", "shortcut past other ops"]
    assert legend(loss(llama, 12)[0]) == ["op", "layer of several ops", "leaf"]


def test_a_graph_thousands_of_ops_deep_is_drawn_without_recursion():
    y = leaf()
    for _ in range(3000):
        y = ag.tanh(y)
    picture = Picture(ag.debug.draw(y))
    assert len(picture.boxes) == 3001
    assert len({rectangle(box)[0] + rectangle(box)[2] for box in picture.of_kind("op")}) == 1


def test_a_graph_that_would_be_all_lines_is_refused_with_a_way_out():
    def everything_used_at_the_end():
        results = [leaf()]
        for _ in range(300):
            results.append(ag.tanh(results[-1]))
        return ag.stack(*results)

    with pytest.raises(ValueError, match=r"too tangled .* ag\.scope .* depth=1"):
        ag.debug.draw(everything_used_at_the_end())
    with ag.scope("all"):
        y = everything_used_at_the_end()
    assert len(Picture(ag.debug.draw(y, depth=1)).boxes) == 1


def test_what_cannot_be_drawn_says_why():
    y = polynomial()
    y.backward()
    with pytest.raises(RuntimeError, match="draw before backward"):
        ag.debug.draw(y)
    with pytest.raises(ValueError, match="no graph; nothing it was computed from requires a gradient"):
        ag.debug.draw(Tensor(1.0))
    with pytest.raises(TypeError, match="draw takes a Tensor, not float64"):
        ag.debug.draw(np.zeros(3))
    with pytest.raises(ValueError, match="depth counts levels of layers from 1, not 0"):
        ag.debug.draw(polynomial(), depth=0)


def test_drawing_changes_nothing():
    y, model = loss(gpt2, 1)
    again, same = loss(gpt2, 1)
    ag.debug.draw(y)
    y.backward()
    again.backward()
    for a, b in zip(model.parameters().values(), same.parameters().values(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)


def test_saving_writes_the_whole_file_or_nothing(tmp_path, monkeypatch):
    drawing = ag.debug.draw(polynomial(), save=tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == drawing.svg == str(drawing._repr_svg_())
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        ag.debug.draw(attention()).save(tmp_path / "graph.svg")
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == drawing.svg
    assert [path.name for path in tmp_path.iterdir()] == ["graph.svg"]


def test_the_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    ag.debug.draw(polynomial()).save(tmp_path / "graph.svg")
    assert done == ["fsync", "replace"]


def test_a_tensor_shows_what_it_is_in_a_notebook():
    x = leaf(2, 3)
    with ag.scope("blocks.0"), ag.scope("a<b"):
        y = x * 2
    html = y._repr_html_()
    for fact in ("float64[2, 3]", "from multiply", "layer blocks.0.a&lt;b", "requires_grad"):
        assert fact in html
    assert f"{y.data[1, 2]:.4f}"[:5] in html
    assert "leaf" in x._repr_html_()
    assert "has a gradient" not in x._repr_html_()
    y.sum().backward()
    assert "has a gradient" in x._repr_html_()
    assert "constant" in Tensor(np.arange(3))._repr_html_()
    assert "requires_grad" not in Tensor(np.arange(3))._repr_html_()


def test_a_large_tensor_shows_its_corners_only():
    assert len(Tensor(np.zeros((1000, 1000)))._repr_html_()) < 1000


def test_a_tensor_on_a_device_shows_its_values():
    class OnDevice:
        dtype, shape, nbytes = np.dtype("float32"), (2,), 8

        def get(self):
            return np.array([1.5, 2.5], np.float32)

    assert "[1.5 2.5]" in Tensor(OnDevice())._repr_html_()


def test_a_node_shows_its_graph_in_a_notebook_while_there_is_one():
    y = polynomial()
    node = y.node
    assert node._repr_svg_() == ag.debug.draw(y).svg == ag.debug.draw(node).svg
    y.backward()
    assert node._repr_svg_() is None
    long = leaf()
    for _ in range(300):
        long = ag.tanh(long)
    assert long.node._repr_svg_() is None


def test_the_picture_in_the_docs_is_what_its_page_draws():
    """If a drawing changed on purpose: the command in docs/debugging.md makes the picture again."""
    picture = Path(__file__).parents[2] / "docs" / "images" / "block.svg"
    config = gpt2.config(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    x = Tensor(np.zeros((2, 8, 16), np.float32), requires_grad=True)
    y = Decoder(config).blocks[0](x, np.arange(8), None, lambda x, place: x)
    assert ag.debug.draw(y).svg == picture.read_text(encoding="utf-8")
