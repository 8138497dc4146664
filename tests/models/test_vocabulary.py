import json
import shutil

import pytest
from transformers import AutoModelForCausalLM

from astarpo.models.vocabulary import load_vocabulary, make_vocabulary
from astarpo.stages.warm_start import byte_tokenizer
from astarpo.types import UserError
from tests.conftest import digit_problems
from tests.support.families import FAMILIES, family_model


@pytest.mark.parametrize(
    "text", ["plain", " spaces  ", "∑ ünïcode 漢字 🙂", "\x00\n\t\\boxed{}", "line\r\nline", ""]
)
def test_byte_tokenizer_keeps_every_text(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_a_vocabulary_needs_no_weights(policy, policy_path, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(policy_path, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    loaded, made = load_vocabulary(str(folder)), policy.vocabulary
    assert (loaded.stop_ids, loaded.pad_id, loaded.context) == ({256}, 257, 4096)
    assert (made.stop_ids, made.pad_id, made.context) == ({256}, 257, 4096)
    problem = digit_problems(1)[0]
    for prompt_format in ("raw", "chat"):
        ids = loaded.render(problem, prompt_format)
        assert ids == made.render(problem, prompt_format)
        assert loaded.decode(ids) == made.decode(ids)
    assert loaded.decode([65, 256]) == made.decode([65])  # without special tokens


def test_stop_ids_are_the_union_of_all_that_are_named(policy, policy_path, tmp_path):
    config, tokenizer = policy.model.config, policy.vocabulary.tokenizer
    generation_config = type(policy.model.generation_config)(eos_token_id=[7, 9])
    assert make_vocabulary(tokenizer, config, generation_config).stop_ids == {7, 9, 256}
    folder = tmp_path / "model"
    shutil.copytree(policy_path, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert load_vocabulary(str(folder)).stop_ids == {7, 9, 256}


def test_a_model_without_any_stop_id_is_refused(policy):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-text id"):
        make_vocabulary(tokenizer, policy.model.config, None)


@pytest.mark.parametrize("with_file", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_stop_ids_are_those_of_the_loaded_model(name, with_file, policy, tmp_path):
    model = family_model(name)
    model.generation_config.eos_token_id = [3, 5]
    model.save_pretrained(tmp_path)
    policy.vocabulary.tokenizer.save_pretrained(tmp_path)
    if not with_file:
        (tmp_path / "generation_config.json").unlink()
    configured = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id
    assert configured == ([3, 5] if with_file else 256)
    assert load_vocabulary(str(tmp_path)).stop_ids == {256, *([3, 5] if with_file else [])}


def test_raw_prompts_are_the_text_itself(policy):
    problem = digit_problems(1)[0]
    ids = policy.vocabulary.tokenizer(problem.prompt[0]["content"])["input_ids"]
    assert policy.vocabulary.render(problem, "raw") == ids


def test_chat_prompts_end_with_the_assistants_turn(policy):
    ids = policy.vocabulary.render(digit_problems(1)[0], "chat")
    assert policy.vocabulary.tokenizer.decode(ids) == "user: Item 0:\nassistant: "
