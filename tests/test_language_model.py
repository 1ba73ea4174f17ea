"""Scores are exact: they equal sums of token log-probabilities of whole sequences, computed one by one."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from tiny_llama import save_tiny_llama
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig

from astray.agents.language_model import LanguageModel
from astray.agents.scoring import Scorer, make_scorer
from astray.agents.weights import ModelNotFoundError
from astray.envs import InputError

INSTRUCTION = "You are in a square room. You want to eat the cheese. Each turn you choose one move."
OBSERVATIONS = [
    "South-west corner: 1 south, 2 west. Cheese: 1 south, 2 west.",
    "North-east corner: here. Cheese: 1 south.",
    "South-west corner: 1 south, 2 west. Cheese: 1 south, 2 west.",
    "Cheese: 3 north, 1 east. South-east corner: 1 north, 2 west. A door is open.",
]
MOVES = ["go north", "go south", "go west", "go east"]
CANDIDATES = [MOVES, ["go", "go north", "stay where you are"], MOVES, ["wait"]]


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    torch.set_num_threads(1)
    return LanguageModel.load("smollm2-135m", dtype=torch.float32)


@pytest.fixture(scope="module", params=["smollm2", "llama", "gpt2"])
def language_model(request, smollm2, tmp_path_factory) -> LanguageModel:
    if request.param == "smollm2":
        return smollm2
    vocabulary = smollm2.model.config.vocab_size
    # a wide initialisation, so that random models have opinions and a wrong mask or position shows
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    else:
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=256,
            n_embd=32,
            n_layer=3,
            n_head=4,
            initializer_range=0.3,
            bos_token_id=1,
            eos_token_id=2,
        )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings(action="ignore"):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    smollm2.tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder), dtype=torch.float32)


def plain_scores(language_model: LanguageModel, prompt: str, candidates: list[str]) -> torch.Tensor:
    start, rests = language_model.encode(prompt, candidates)
    scores = []
    for rest in rests:
        log_probs = language_model.model(torch.tensor([start + rest])).logits[0].log_softmax(-1)
        scores.append(sum(log_probs[len(start) - 1 + i, token] for i, token in enumerate(rest)))
    return torch.stack(scores)


@torch.no_grad()
def test_scores_equal_whole_sequences(language_model):
    prompts = [language_model.prompt(INSTRUCTION, text) for text in OBSERVATIONS]
    assert len(set(map(len, language_model.tokens(prompts)))) > 2, "prompts of unequal length"
    scores = language_model.score(prompts, CANDIDATES)
    for prompt, candidates, score in zip(prompts, CANDIDATES, scores, strict=True):
        torch.testing.assert_close(score, plain_scores(language_model, prompt, candidates), atol=1e-4, rtol=0)


@torch.no_grad()
def test_scores_without_anything_shared(language_model):
    prompts = ["Cheese is north.\n", "A room\n"]
    scores = language_model.score(prompts, [["eat", "wait"], ["go north"]])
    torch.testing.assert_close(scores[0], plain_scores(language_model, prompts[0], ["eat", "wait"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[1], plain_scores(language_model, prompts[1], ["go north"]), atol=1e-4, rtol=0)


def test_gradients_equal_those_of_whole_sequences(language_model):
    weights = [weight for name, weight in language_model.model.named_parameters() if "2." in name and weight.dim() == 2]
    for weight in weights:
        weight.requires_grad_()
    prompts = [language_model.prompt(INSTRUCTION, text) for text in OBSERVATIONS]
    packed = language_model.score(prompts, CANDIDATES)
    whole = [plain_scores(language_model, *pair) for pair in zip(prompts, CANDIDATES, strict=True)]
    gradients = []
    for scores in (packed, whole):
        loss = sum((row.softmax(-1) * torch.arange(len(row))).sum() for row in scores[:3]) + scores[3].sum()
        gradients.append(torch.autograd.grad(loss, weights))
    language_model.model.requires_grad_(False)
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-3)


@torch.no_grad()
def test_a_trunk_changes_nothing(language_model):
    prompts = [language_model.prompt(INSTRUCTION, text) for text in OBSERVATIONS]
    starts, rests = zip(*(language_model.encode(*pair) for pair in zip(prompts, CANDIDATES, strict=True)), strict=True)
    prefix = language_model.shared_tokens(INSTRUCTION)
    plain = Scorer(language_model.model)(starts, rests, prefix)
    depth = language_model.model.config.num_hidden_layers
    for layers in (1, depth):
        scorer = Scorer(language_model.model, trunk_layers=layers)
        for _ in range(2):  # the second time from what the first kept
            cached = scorer(starts, rests, prefix)
            torch.testing.assert_close(cached.hidden, plain.hidden, atol=1e-3, rtol=1e-4)
            for ours, theirs in zip(cached.edges, plain.edges, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    # a prompt that does not begin with the prefix is scored all the same
    other = Scorer(language_model.model, trunk_layers=1)(starts, rests, (5, *prefix))
    for ours, theirs in zip(other.edges, plain.edges, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_a_trunk_keeps_is_independent_of_the_batch():
    language_model = LanguageModel.load(dtype=torch.bfloat16)
    prefix = language_model.shared_tokens(INSTRUCTION)
    pairs = [language_model.encode(language_model.prompt(INSTRUCTION, text), MOVES) for text in OBSERVATIONS]

    def kept(*numbers: int) -> dict:
        scorer = Scorer(language_model.model, trunk_layers=10)
        scorer([pairs[i][0] for i in numbers], [pairs[i][1] for i in numbers], prefix)
        assert scorer._trunk is not None
        return scorer._trunk._rows

    alone, together = kept(1), kept(3, 0, 1)
    for key, states in alone.items():
        assert torch.equal(states, together[key])


@torch.no_grad()
def test_a_trunk_forgets_the_least_recently_used(smollm2):
    starts = [(5, 6, 7), (5, 6, 8), (5, 6, 9)]
    candidates = [((10,), (11,))] * 3
    one_row = 3 * smollm2.model.config.hidden_size * 4
    scorer = Scorer(smollm2.model, trunk_layers=1, trunk_bytes=2 * one_row)
    assert scorer._trunk is not None
    scorer(starts[:2], candidates[:2])
    scorer(starts[:1], candidates[:1])
    scorer(starts[2:], candidates[2:])
    assert [key[0] for key in scorer._trunk._rows] == [starts[0], starts[2]]


@torch.no_grad()
def test_normalizations(language_model):
    prompt = language_model.prompt(INSTRUCTION, OBSERVATIONS[0])
    candidates = ["go north", "go far south", "wait"]
    by = {name: language_model.score([prompt], [candidates], name)[0] for name in ("sum", "token", "word", "trie")}
    _, rests = language_model.encode(prompt, candidates)
    torch.testing.assert_close(by["token"], by["sum"] / torch.tensor([len(rest) for rest in rests]))
    torch.testing.assert_close(by["word"], by["sum"] / torch.tensor([2.0, 3.0, 1.0]))

    def next_tokens(*texts: str) -> torch.Tensor:
        """Log-probabilities of the next token: of the first of ``texts``, among all of them."""
        start = language_model.tokens([prompt])[0]
        before = next(rest for rest in rests if language_model.tokenizer.decode(rest).startswith(texts[0]))
        depth = next(d for d in range(len(before)) if language_model.tokenizer.decode(before[: d + 1]) == texts[0])
        logits = language_model.model(torch.tensor([start + before[:depth]])).logits[0, -1]
        tokens = [language_model.tokens([prompt + text])[0][len(start) + depth] for text in texts]
        return logits[tokens].log_softmax(-1)[0]

    expected = [
        next_tokens("go", "wait") + next_tokens("go north", "go far"),
        next_tokens("go", "wait") + next_tokens("go far", "go north"),
        next_tokens("wait", "go"),
    ]
    torch.testing.assert_close(by["trie"], torch.stack(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(by["trie"].exp().sum(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="'words' is not one of 'sum', 'token', 'word', 'trie'; did you mean 'word'"):
        language_model.score([prompt], [candidates], "words")


def test_a_candidate_that_begins_another_ends_the_text(smollm2):
    _, (short, long) = smollm2.encode("A\n", ["go", "go north"])
    assert short[-1] == long[-1] == smollm2.tokenizer.eos_token_id
    _, (alone,) = smollm2.encode("A\n", ["go"])
    assert alone == short[:-1]


def test_errors_say_what_is_wrong(smollm2):
    with pytest.raises(ValueError, match="joins the end of the prompt"):
        smollm2.encode("go nor", ["th"])
    with pytest.raises(ValueError, match="'go' is there twice"):
        smollm2.encode("A\n", ["go", "go"])
    with pytest.raises(ValueError, match="at least one is needed"):
        smollm2.encode("A\n", [])
    with pytest.raises(ValueError, match="candidate '' has no tokens"):
        smollm2.encode("A\n", ["go", ""])
    with pytest.raises(ValueError, match="prompt='' has no tokens"):
        smollm2.encode("", ["go"])
    with pytest.raises(ValueError, match=r"a prompt of 9\d\d\d tokens does not fit into the 8192"):
        smollm2.encode("cheese " * 9000 + "A\n", ["go"])
    with pytest.raises(ModelNotFoundError, match="not a folder"):
        LanguageModel.load("no such model")
    with pytest.raises(ValueError, match="candidates='gouda' must be a list"):
        smollm2.score(["A\n"], ["gouda"])
    with pytest.raises(ValueError, match="prompts='A' must be a list"):
        smollm2.score("A", [["go"]])
    with pytest.raises(ValueError, match="2 prompts and 1 lists of candidates"):
        smollm2.score(["A\n", "B\n"], [["go"]])
    with pytest.raises(ValueError, match=r"dtype='float32' must be a torch\.dtype"):
        LanguageModel.load(dtype="float32")


def test_a_folder_that_lacks_something_is_refused(tmp_path):
    folder = Path(save_tiny_llama(tmp_path / "tiny"))
    whole = AutoModelForCausalLM.from_pretrained(folder)
    whole.base_model.save_pretrained(folder)  # without its head
    with pytest.raises(ModelNotFoundError, match=r"lm_head.*at random"):
        LanguageModel.load(str(folder))
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelNotFoundError, match="a pointer that Git LFS"):
        LanguageModel.load(str(folder))
    whole.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelNotFoundError, match="no causal language model"):
        LanguageModel.load(str(folder))


def test_a_model_that_looks_ahead_is_refused():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    config = BertConfig(vocab_size=99, initializer_range=0.3, **sizes)
    with warnings.catch_warnings(action="ignore"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with pytest.raises(InputError, match="looks at what comes after a token"):
        make_scorer(model)


def test_a_prompt_does_not_depend_on_the_day(smollm2):
    tokenizer = copy.copy(smollm2.tokenizer)
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }} {{ messages[1].content }}"
    )
    model = LanguageModel(smollm2.model, tokenizer, "dated", "")
    assert model.prompt("", "A") == "26 Jul 2024 A"


def test_a_text_that_has_its_first_token_gets_no_second(smollm2):
    bare = copy.deepcopy(smollm2.tokenizer)
    bos, number = bare.bos_token, bare.bos_token_id
    bare.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    model = LanguageModel(smollm2.model, bare, "with BOS", "")
    texts = ["plain", f"{bos}chat"]
    for order in (texts, texts[::-1]):
        assert [tokens.count(number) for tokens in model.tokens(order)] == [1, 1]
        assert [tokens[0] for tokens in model.tokens(order)] == [number, number]


def test_the_prompt_holds_the_instruction_and_no_other_system_message(smollm2):
    prompt = smollm2.prompt(INSTRUCTION, "Cheese: here.")
    assert INSTRUCTION in prompt and "Hugging Face" not in prompt and prompt.endswith("assistant\n")
    assert "Hugging Face" not in smollm2.prompt("", "Cheese: here.")
    shared = smollm2.shared_tokens(INSTRUCTION)
    assert smollm2.tokenizer.decode(shared).endswith("user\n")
    assert all(tokens[: len(shared)] == shared for tokens in smollm2.tokens([prompt]))


def test_generate_and_embed(language_model):
    prompts = [language_model.prompt(INSTRUCTION, text) for text in OBSERVATIONS[:2]]
    together = language_model.generate(prompts, max_new_tokens=4, temperature=0)
    assert together == [language_model.generate([p], max_new_tokens=4, temperature=0)[0] for p in prompts]
    torch.manual_seed(0)
    assert len(language_model.generate(prompts, max_new_tokens=4)) == 2
    embedded = language_model.embed(prompts)
    scored = Scorer(language_model.model)(language_model.tokens(prompts), [((1,),), ((1,),)])
    torch.testing.assert_close(embedded, scored.hidden, atol=1e-3, rtol=1e-4)


def test_the_fingerprint_is_that_of_the_weights(smollm2, language_model):
    assert len(language_model.fingerprint) == 16
    assert (language_model.fingerprint == smollm2.fingerprint) == (language_model.name == smollm2.name)
