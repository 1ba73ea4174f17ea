"""Scores are exact for one family of language models after the other: they equal those of whole sequences."""

import functools
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from families import DEPTH, IN_ROWS, ONE_BY_ONE, QUESTIONS, SHAPE, build, whole_sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from astray.agents.adapters import unfreeze
from astray.agents.body import layers_of, run, train_layers
from astray.agents.scoring import PlainScorer, Scorer, make_scorer
from astray.agents.trie import Row, Tokens, trie
from astray.envs import InputError


def loss(edges: list[Tensor], hidden: Tensor) -> Tensor:
    """A number that depends on every edge and state, on each in another way."""
    parts = torch.cat([*edges, 0.3 * hidden.flatten()])
    return (parts * torch.linspace(-1, 1.7, len(parts))).sum()


def gradients(value: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True))


def assert_same_scores(found: Any, expected: Any) -> None:
    edges, hidden = expected
    assert len(found.edges) == len(edges)
    for ours, theirs in zip(found.edges, edges, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.hidden, hidden.detach(), atol=1e-4, rtol=1e-4)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    largest = max(gradient.norm() for gradient in expected.values())
    assert largest > 0.1
    for name, ours in found.items():
        theirs = expected[name]
        # a key's bias moves no softmax: its gradient is 0 up to rounding
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-5 * largest, name


class Family(NamedTuple):
    model: PreTrainedModel
    scores: tuple[list[Tensor], Tensor]
    gradients: dict[str, Tensor]


@functools.cache
def family(name: str) -> Family:
    model = build(*IN_ROWS[name])
    model.requires_grad_(True)
    edges, hidden = whole_sequences(model, QUESTIONS.prompts, QUESTIONS.candidates)
    found = torch.autograd.grad(loss(edges, hidden), list(model.parameters()), allow_unused=True)  # eyes see nothing
    model.requires_grad_(False)
    named = zip(model.named_parameters(), found, strict=True)
    return Family(model, (edges, hidden), {name: gradient for (name, _), gradient in named if gradient is not None})


every_family = pytest.mark.parametrize("name", IN_ROWS)


def trained(model: nn.Module, part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a part of the model, unfrozen, by their names in the model."""
    part.requires_grad_(True)
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


@every_family
@pytest.mark.parametrize("prefix", [(), QUESTIONS.prefix, (5, *QUESTIONS.prefix)], ids=["alone", "shared", "of-none"])
def test_scores_equal_whole_sequences(name, prefix):
    model, scores, _ = family(name)
    scorer = make_scorer(model)
    assert isinstance(scorer, Scorer)
    with torch.no_grad():
        for _ in range(2):
            assert_same_scores(scorer(QUESTIONS.prompts, QUESTIONS.candidates, prefix), scores)


@every_family
def test_gradients_equal_those_of_whole_sequences(name):
    model, _, expected = family(name)
    weights = {key: weight for key, weight in trained(model, model) if key in expected}
    found = gradients(loss(*Scorer(model)(*QUESTIONS[1:], QUESTIONS.prefix)), weights)
    model.requires_grad_(False)
    assert_same_gradients(found, expected)


@every_family
@pytest.mark.parametrize("layers", [1, DEPTH - 1])
def test_a_trunk_is_cut_and_changes_nothing(name, layers):
    model, scores, expected = family(name)
    scorer = make_scorer(model, layers)
    assert isinstance(scorer, Scorer) and scorer._trunk is not None
    with torch.no_grad():
        for _ in range(2):  # the second time from what the first kept
            assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix), scores)
    _, stack = layers_of(model, DEPTH)
    weights = dict(trained(model, stack[layers:]))
    found = gradients(loss(*scorer(*QUESTIONS[1:], QUESTIONS.prefix)), weights)
    model.requires_grad_(False)
    assert_same_gradients(found, expected)


@torch.no_grad()
def test_a_model_that_does_something_to_embeddings_is_not_cut():
    model = build("granite", SHAPE | dict(embedding_multiplier=3.0))
    expected = whole_sequences(model, QUESTIONS.prompts, QUESTIONS.candidates)
    scorer = make_scorer(model, 1)
    assert isinstance(scorer, Scorer) and scorer._trunk is None
    assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix), expected)


@every_family
def test_adapters_are_on_every_linear_map_of_the_highest_layers(name):
    model = build(*IN_ROWS[name])
    _, stack = layers_of(model, DEPTH)
    maps = {id(part) for part in stack[1:].modules() if isinstance(part, nn.Linear | Conv1D)}
    everywhere = [part for part in model.modules() if isinstance(part, nn.Linear | Conv1D)]
    network = unfreeze(model, layers=DEPTH - 1, rank=2, alpha=4)
    layers = [part for part in network.modules() if hasattr(part, "lora_A")]
    assert {id(part.base_layer) for part in layers} == maps and len(layers) == len(maps) < len(everywhere)
    assert all("lora" in key for key, weight in network.named_parameters() if weight.requires_grad)


@every_family
def test_the_width_is_that_of_a_hidden_state(name):
    model, (_, hidden), _ = family(name)
    assert model.get_output_embeddings().weight.shape[1] == hidden.shape[1]


def with_adapters(name: str, layers: int) -> tuple[PreTrainedModel, nn.Module]:
    """A model, and around it one with adapters that do something."""
    model = build(*IN_ROWS[name])
    network = unfreeze(model, layers, rank=4, alpha=8)
    for key, weight in network.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(weight, std=0.2)
    return model, network


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "gpt-neox", "opt-projected"])
def test_gradients_of_adapters(name):
    model, network = with_adapters(name, layers=2)
    weights = {key: weight for key, weight in network.named_parameters() if weight.requires_grad}
    plain = whole_sequences(model, QUESTIONS.prompts, QUESTIONS.candidates)
    expected = gradients(loss(*plain), weights)
    assert all(gradient.norm() > 0 for gradient in expected.values())
    for trunk_layers in (0, DEPTH - 2):
        scores = make_scorer(model, trunk_layers)(*QUESTIONS[1:], QUESTIONS.prefix)
        assert_same_scores(scores, plain)
        assert_same_gradients(gradients(loss(*scores), weights), expected)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "opt"])
def test_gradients_of_layers_that_compute_their_activations_again(name):
    _, scores, expected = family(name)
    model = build(*IN_ROWS[name])
    with warnings.catch_warnings(action="ignore"):  # its name changes within transformers 5
        model.gradient_checkpointing_enable({"use_reentrant": False})
    _, stack = layers_of(model, DEPTH)
    train_layers(model, True)
    norms = [part for part in stack[-1].modules() if "norm" in type(part).__name__.lower()]
    calls = []
    norms[0].register_forward_hook(lambda *_: calls.append(1))
    weights = dict(trained(model, stack[1:]))
    for trunk_layers in (0, 1):
        scorer = make_scorer(model, trunk_layers)
        with torch.no_grad():
            assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix), scores)
        calls.clear()
        value = loss(*scorer(*QUESTIONS[1:], QUESTIONS.prefix))
        forward = len(calls)
        assert_same_gradients(gradients(value, weights), expected)
        assert len(calls) == 2 * forward > 0


@torch.no_grad()
def test_what_is_kept_of_a_prefix_is_used_again_until_a_weight_changes():
    model, network = with_adapters("llama", layers=2)
    lengths = []
    layers_of(model, DEPTH)[1][-1].register_forward_hook(lambda *parts: lengths.append(parts[2].shape[1]))
    for trunk_layers in (0, 1):
        scorer = Scorer(model, trunk_layers)

        def check(scorer=scorer) -> int:
            """Compares with whole sequences; how often the prefix was computed."""
            expected = whole_sequences(model, QUESTIONS.prompts, QUESTIONS.candidates)
            lengths.clear()
            assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix), expected)
            return lengths.count(len(QUESTIONS.prefix))

        assert [check(), check()] == [1, 0]
        weight = next(weight for key, weight in network.named_parameters() if "layers.2.mlp.up_proj.lora_B" in key)
        weight += 0.3  # as an optimiser does, in place
        assert [check(), check()] == [1, 0]
        halved = {key: 0.5 * value for key, value in network.state_dict().items() if "lora" in key}
        network.load_state_dict(halved, strict=False)
        assert [check(), check()] == [1, 0]
        with network.disable_adapter():
            assert [check(), check()] == [1, 0]
        assert [check(), check()] == [1, 0]


@torch.no_grad()
def test_another_prefix_is_not_mistaken_for_the_one_that_is_kept():
    model, scores, _ = family("llama")
    scorer = Scorer(model, trunk_layers=1)
    for length in (len(QUESTIONS.prefix), 3, 0, 5):
        assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix[:length]), scores)


few_tokens = st.integers(3, 6)


@st.composite
def candidate_sets(draw) -> tuple[Tokens, ...]:
    """Of few different tokens, so that many begin alike; none begins with another."""
    option = st.lists(few_tokens, min_size=1, max_size=4).map(tuple)
    options = draw(st.lists(option, min_size=1, max_size=6, unique=True))
    return tuple(a for a in options if not any(b != a and b[: len(a)] == a for b in options))


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.lists(few_tokens, min_size=1, max_size=9).map(tuple), candidate_sets()), min_size=1, max_size=4
    ),
    prefix_length=st.integers(0, 8),
    data=st.data(),
)
def test_any_prompts_and_candidates(pairs, prefix_length, data):
    model, _, _ = family("llama")
    prompts, candidates = map(list, zip(*pairs, strict=True))
    prefix = prompts[0][: min(prefix_length, len(prompts[0]) - 1)]
    scorer = Scorer(model, trunk_layers=1)
    with torch.no_grad():
        scores = scorer(prompts, candidates, prefix)
        assert_same_scores(scores, whole_sequences(model, prompts, candidates))
        # a prompt's scores depend neither on what else is asked nor on the order
        for number, pair in enumerate(pairs):
            alone = Scorer(model)([pair[0]], [pair[1]])
            torch.testing.assert_close(alone.edges[0], scores.edges[number], atol=1e-4, rtol=0)
        order = data.draw(st.permutations(range(len(pairs))))
        moved = scorer([prompts[i] for i in order], [candidates[i] for i in order], prefix)
        for i, edges in zip(order, moved.edges, strict=True):
            torch.testing.assert_close(edges, scores.edges[i], atol=1e-5, rtol=0)
        other = data.draw(st.permutations(candidates[0]))
        by_edge = dict(zip(edges_of(candidates[0]), scores.edges[0], strict=True))
        found = scorer(prompts[:1], [tuple(other)], prefix).edges[0]
        expected = torch.stack([by_edge[edge] for edge in edges_of(tuple(other))])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def edges_of(candidates: tuple[Tokens, ...]) -> list[Tokens]:
    return list(dict.fromkeys(option[: depth + 1] for option in candidates for depth in range(len(option))))


@pytest.mark.parametrize("name", ONE_BY_ONE)
@pytest.mark.parametrize("trunk_layers", [0, 1])
def test_a_model_that_takes_no_tree_is_scored_one_candidate_at_a_time(name, trunk_layers):
    model = build(*ONE_BY_ONE[name])
    with pytest.warns(UserWarning, match="cannot take several candidates in one row"):
        scorer = make_scorer(model, trunk_layers)
    assert isinstance(scorer, PlainScorer)
    with torch.no_grad():
        expected = whole_sequences(model, QUESTIONS.prompts, QUESTIONS.candidates)
        assert_same_scores(scorer(*QUESTIONS[1:], QUESTIONS.prefix), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids", "cache"])
def test_a_model_that_ignores_what_it_is_told_is_caught(ignored, dtype):
    model = build(*IN_ROWS["llama"]).to(dtype)
    forward = model.model.forward
    name = "past_key_values" if ignored == "cache" and "cache" not in inspect.signature(forward).parameters else ignored

    @functools.wraps(forward)
    def ignores(**inputs: Any) -> Any:
        if inputs.get("attention_mask") is not None and inputs["attention_mask"].dim() == 2:
            return forward(**inputs)  # plain rows it does well
        return forward(**inputs | {name: None})

    model.model.forward = ignores
    with pytest.warns(UserWarning, match="cannot take several candidates in one row"):
        assert isinstance(make_scorer(model), PlainScorer)


def test_layers_that_look_at_pieces_of_a_text_take_no_tree():
    with warnings.catch_warnings(action="ignore"):
        config = AutoConfig.for_model(
            "llama4_text", **SHAPE, head_dim=8, num_local_experts=2, intermediate_size_mlp=48, attention_chunk_size=8
        )
        body = AutoModel.from_config(config, attn_implementation="eager")
    with pytest.raises(ValueError, match="a model with layers of chunked_attention takes no mask of its rows"):
        run(body, [Row((3, 4), (), trie(()), 0)], torch.tensor([[3, 4]]), None)


@torch.no_grad()
def test_a_text_beyond_which_rotary_embeddings_change_is_refused():
    factors = dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0, 1.5, 2.0, 3.0], long_factor=[4.0] * 4)
    with warnings.catch_warnings(action="ignore"):
        model = build("phi3", SHAPE | dict(original_max_position_embeddings=32, rope_parameters=factors))
    scorer, candidates = make_scorer(model, 1), (((3, 4, 5, 6), (3, 4, 7), (8,)),)
    prompts = [tuple(range(3, 3 + length)) for length in (28, 30)]
    assert_same_scores(scorer(prompts[:1], candidates, prompts[0][:9]), whole_sequences(model, prompts[:1], candidates))
    with pytest.raises(InputError, match="a text of 33 tokens is too long: beyond 32, a Phi3Model computes"):
        scorer(prompts[1:], candidates, prompts[0][:9])


def test_a_model_whose_body_is_not_known_is_refused():
    model = build(*IN_ROWS["llama"])
    model.base_model_prefix = "language_model"
    with pytest.raises(InputError, match="LlamaForCausalLM has no base_model apart from its head"):
        make_scorer(model)
