"""Shapes of published models from their configs alone."""

import json
from pathlib import Path

import pytest

from astarpo.planning.shape import read_shape
from astarpo.types import UserError

SHAPES = Path(__file__).parents[1] / "support" / "shapes"

# Billions of parameters in all, and without embedding and head, as the models' own pages say.
PUBLISHED = {
    "Qwen2.5-1.5B": (1.54, 1.31),
    "Qwen2.5-3B": (3.09, 2.77),
    "Qwen2.5-7B": (7.61, 6.53),
    "Qwen2.5-72B": (72.7, 70.0),
    "Qwen3-0.6B-Base": (0.6, 0.44),
    "Qwen3-1.7B-Base": (1.72, 1.41),
    "Qwen3-4B-Base": (4.0, 3.6),
    "Qwen3-8B-Base": (8.2, 6.95),
    "Qwen3-14B-Base": (14.8, 13.2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    shape, (whole, body) = read_shape(str(SHAPES / name)), PUBLISHED[name]
    assert shape.num_parameters / 1e9 == pytest.approx(whole, rel=0.01)
    assert shape.num_body / 1e9 == pytest.approx(body, rel=0.015)


@pytest.mark.parametrize(
    ("name", "bytes_a_token"),
    [("Qwen2.5-1.5B", 28_672), ("Qwen2.5-3B", 36_864), ("Qwen2.5-7B", 57_344),
     ("Qwen3-0.6B-Base", 112 * 1024)],
)  # fmt: skip
def test_keys_and_values_of_a_token(name, bytes_a_token):
    assert 2 * read_shape(str(SHAPES / name)).cached_numbers == bytes_a_token


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json in this folder"):
        read_shape(str(tmp_path))
    config = json.loads((SHAPES / "Qwen2.5-1.5B" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 0}))
    with pytest.raises(UserError, match="its config makes no language model"):
        read_shape(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(UserError, match="its config makes no language model"):
        read_shape(str(tmp_path))
