"""Generated text is the model's: what it would say of each prompt alone, and of what is allowed, in proportion."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import regex
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from astray.agents.answers import make_rules
from astray.agents.generation import UnfinishedError, Vocabulary
from astray.agents.language_model import LanguageModel
from astray.agents.scoring import PlainScorer

END = 0
INSTRUCTION = "You are in a room. Each turn you go somewhere."
OBSERVATIONS = ["Cheese: 3 north.", "A door is open, and the cheese is behind it, 2 west.", "Nothing."]
SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
LLAMA = dict(intermediate_size=48, num_key_value_heads=2, head_dim=8)
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, with few merges, so that most texts can be spelled in several ways."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<end>", "<other>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bare.train_from_iterator(["go north", "go south", "stay here", "öde Öfen, 😀", INSTRUCTION, *OBSERVATIONS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", additional_special_tokens=["<other>"])


def build(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").requires_grad_(False).eval()
        language_model = LanguageModel(model, tokenizer, "tiny", "")
        language_model.embed(["öde"])  # the first question, at which it is tried
        return language_model


def config(name: str, size: int) -> PreTrainedConfig:
    # a wide initialisation, so that random models have opinions and a wrong mask or position shows
    common = dict(vocab_size=size, initializer_range=0.3, bos_token_id=END, eos_token_id=END, pad_token_id=END)
    match name:
        case "llama":
            return LlamaConfig(**common, **SIZES, **LLAMA, max_position_embeddings=256)
        case "mistral":
            return MistralConfig(**common, **SIZES, **LLAMA, sliding_window=8, max_position_embeddings=256)
        case "gemma3":
            kinds = dict(sliding_window=8, layer_types=KINDS, query_pre_attn_scalar=8, tie_word_embeddings=False)
            return Gemma3TextConfig(**common, **SIZES, **LLAMA, **kinds, max_position_embeddings=256)
        case "gpt2":
            return GPT2Config(**common, n_embd=32, n_layer=3, n_head=4, n_positions=256)
        case "opt":
            return OPTConfig(
                **common | dict(pad_token_id=1, init_std=0.3),
                **SIZES,
                ffn_dim=48,
                word_embed_proj_dim=32,
                max_position_embeddings=256,
            )
        case _:  # no positions that could be given: scored plainly
            return BloomConfig(**common, hidden_size=32, n_layer=3, n_head=4)


@pytest.fixture(scope="module")
def llama(tokenizer) -> LanguageModel:
    return build(config("llama", len(tokenizer)), tokenizer)


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma3", "gpt2", "opt", "bloom"])
def language_model(request, tokenizer) -> LanguageModel:
    language_model = build(config(request.param, len(tokenizer)), tokenizer)
    assert isinstance(language_model._scorer, PlainScorer) == (request.param == "bloom"), "with a cache where it can be"
    return language_model


def prompts(language_model: LanguageModel) -> list[str]:
    texts = [language_model.prompt(INSTRUCTION, text) for text in OBSERVATIONS]
    assert len(set(map(len, language_model.tokens(texts)))) == 3, "prompts of unequal length"
    return texts


@torch.no_grad()
def log_probs(language_model: LanguageModel, tokens: Sequence[int]) -> torch.Tensor:
    return language_model.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)


def by_whole_sequences(language_model: LanguageModel, prompt: str, count: int) -> list[int]:
    """The likeliest tokens, each from the whole sequence before it."""
    tokens = list(language_model.tokens([prompt])[0])
    start = len(tokens)
    while len(tokens) < start + count and END not in tokens[start:]:
        tokens.append(int(log_probs(language_model, tokens).argmax()))
    return tokens[start:]


def test_a_batch_is_what_each_prompt_gives_alone(language_model):
    texts = prompts(language_model)
    expected = [
        language_model.tokenizer.decode(by_whole_sequences(language_model, text, 12), skip_special_tokens=True)
        for text in texts
    ]
    assert len(set(expected)) > 1, "prompts matter"
    assert language_model.generate(texts, max_new_tokens=12, temperature=0) == expected
    assert language_model.generate(texts[1:2], max_new_tokens=12, temperature=0) == expected[1:2]
    # nothing shared in front, and the others in another order
    other = ["North of here\n", texts[2], texts[0]]
    assert language_model.generate(other, max_new_tokens=12, temperature=0)[1:] == [expected[2], expected[0]]


def test_sampling_depends_on_the_seed_and_not_on_the_batch(language_model):
    texts = prompts(language_model)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    together = language_model.generate([*texts, texts[0]], 8, rng=np.random.default_rng(3))
    assert together == language_model.generate([*texts, texts[0]], 8, rng=np.random.default_rng(3))
    assert together[:1] == language_model.generate(texts[:1], 8, rng=np.random.default_rng(3))
    assert together[0] != together[3], "each of identical prompts draws its own"
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()
    torch.manual_seed(5)
    first = language_model.generate(texts, 8)
    torch.manual_seed(5)
    assert first == language_model.generate(texts, 8)
    assert language_model.generate(texts, 8) != first


def test_an_answer_ends_where_the_model_ends_it_while_others_go_on(tokenizer, llama):
    texts = prompts(llama)
    tokens = [by_whole_sequences(llama, text, 12) for text in texts]
    end = next(token for token in tokens[0] if token not in tokens[1])
    endings = build(config("llama", len(tokenizer)), tokenizer)
    endings.model.generation_config.eos_token_id = [end]
    answers = endings.generate(texts, 12, temperature=0)
    assert answers[0] == tokenizer.decode(tokens[0][: tokens[0].index(end)])
    assert answers[1] == tokenizer.decode(tokens[1])


def test_an_answer_ends_before_a_stop_string(llama):
    text = prompts(llama)[0]
    free = llama.generate([text], 12, temperature=0)[0]
    for length in (1, 2, 4):
        for start in range(len(free) - length):
            stop = free[start : start + length]
            assert llama.generate([text], 12, 0, stop=["not there", stop]) == [free[: free.index(stop)]]


def count_fed(language_model: LanguageModel, ask: Callable[[], object]) -> list[tuple[int, ...]]:
    """Shapes of the token ids that the model was fed."""
    shapes = []
    embeddings = language_model.model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    ask()
    hook.remove()
    return shapes


def test_what_is_shared_is_computed_once(tokenizer):
    language_model = build(config("llama", len(tokenizer)), tokenizer)
    texts = prompts(language_model)
    starts = language_model.tokens(texts)
    shared = next(n for n in range(99) if len({start[n] for start in starts}) > 1)
    longest = max(map(len, starts)) - shared

    def ask() -> list[str]:
        return language_model.generate([*texts, texts[0]], 2, temperature=0)

    assert count_fed(language_model, ask) == [(1, shared), (3, longest), (3, 1)]
    assert count_fed(language_model, ask) == [(3, longest), (3, 1)]
    before = ask()
    assert count_fed(language_model, lambda: language_model.embed([*texts, texts[0]])) == [(3, longest)]
    # of identical prompts too, though each has an answer of its own
    same = count_fed(language_model, lambda: language_model.generate([texts[0]] * 5, 2, constraint="a[bc]+"))
    assert same == [(1, len(starts[0])), (5, 1)]
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight.mul_(-1)
    assert ask() != before
    expected = by_whole_sequences(language_model, texts[1], 2)
    assert ask()[1] == tokenizer.decode(expected, skip_special_tokens=True)


def test_embeddings_are_the_last_hidden_states(language_model):
    texts = prompts(language_model)
    embedded = language_model.embed([*texts, texts[0]])
    for text, row in zip([*texts, texts[0]], embedded, strict=True):
        with torch.no_grad():
            states = language_model.model.base_model(torch.tensor(language_model.tokens([text])))
        torch.testing.assert_close(row, states.last_hidden_state[0, -1], atol=1e-4, rtol=1e-4)
    assert language_model.embed([]).shape == (0, 32)
    assert language_model.generate([]) == []


def exact(language_model: LanguageModel, prompt: str, answers: Sequence[str], greedy: bool = False) -> dict[str, float]:
    """Probabilities of answers, spelled in whatever tokens: in each step, those with which none can begin are left out.

    With ``greedy``, the likeliest has all of it.
    """
    pieces = Vocabulary(language_model.tokenizer, language_model.model).pieces
    goals = [answer.encode() for answer in answers]
    found: Counter[str] = Counter()

    def visit(tokens: tuple[int, ...], data: bytes, probability: float) -> None:
        allowed = [
            token
            for token, piece in enumerate(pieces)
            if (piece and any(goal.startswith(data + piece) for goal in goals)) or (token == END and data in goals)
        ]
        scores = log_probs(language_model, tokens)[allowed].double()
        shares = (scores == scores.max()).double() if greedy else scores.softmax(-1)
        for token, share in zip(allowed, shares.tolist(), strict=True):
            if share and token == END:
                found[data.decode()] += probability * share
            elif share:
                visit((*tokens, token), data + pieces[token], probability * share)

    visit(language_model.tokens([prompt])[0], b"", 1.0)
    assert math.isclose(sum(found.values()), 1)
    return dict(found)


def assert_frequencies(answers: Sequence[str], expected: dict[str, float]) -> None:
    counts, size = Counter(answers), len(answers)
    assert set(counts) <= set(expected)
    for text, share in expected.items():
        assert abs(counts[text] - size * share) <= 4 * math.sqrt(size * share * (1 - share)) + 1, text


ANSWERS = ["go north", "go", "go south", "öde", "ö", "😀", "😁"]


def test_constrained_answers_have_the_models_probabilities_over_what_is_allowed(llama):
    constraint = "|".join(map(regex.escape, ANSWERS))
    for text in prompts(llama)[:2]:
        expected = exact(llama, text, ANSWERS)
        assert sum(share > 0.01 for share in expected.values()) > 2, "several answers are likely"
        answers = llama.generate([text] * 1000, 16, constraint=constraint, rng=np.random.default_rng(0))
        assert_frequencies(answers, expected)
        likeliest = exact(llama, text, ANSWERS, greedy=True)
        assert llama.generate([text], 16, 0, constraint=constraint) == list(likeliest)


def test_a_choice_of_single_tokens_is_that_of_trie_scores(llama):
    text, letters = prompts(llama)[0], ["a", "b", "c", "d"]
    scores = llama.score([text], [letters], "trie")[0].exp().tolist()
    answers = llama.generate([text] * 1000, 4, constraint="a|b|c|d", rng=np.random.default_rng(0))
    assert_frequencies(answers, dict(zip(letters, scores, strict=True)))


def test_the_temperature_divides_logits(llama):
    text = prompts(llama)[0]
    pieces = Vocabulary(llama.tokenizer, llama.model).pieces
    shares = (log_probs(llama, llama.tokens([text])[0]) / 2).softmax(-1).tolist()
    expected: Counter[str] = Counter()
    for piece, share in zip(pieces, shares, strict=True):
        expected[piece.decode(errors="replace")] += share
    assert_frequencies(llama.generate([text] * 2000, 1, 2.0, rng=np.random.default_rng(0)), expected)


def test_answers_match_the_constraint(llama):
    texts = prompts(llama)
    for constraint in ("[ä€😀]{2}", r"\d{1,3}(,\d{3})*", "(?i)yes|no", r"\p{Lu}.{2,4}[^\n]"):
        answers = llama.generate(texts, 40, constraint=constraint, rng=np.random.default_rng(1))
        assert all(regex.fullmatch(constraint, answer) for answer in answers), (constraint, answers)


def test_rules_know_what_can_become_an_answer():
    answers = ["go on", "go", "ö", "öde", "😀", "😁"]
    goals = [answer.encode() for answer in answers]
    rules = make_rules(constraint="|".join(map(regex.escape, answers)))
    beginnings = {goal[:length] for goal in goals for length in range(len(goal) + 1)}
    for data in beginnings:
        assert rules.is_answer(data) == (data in goals)
        for byte in range(256):
            piece = bytes([byte])
            assert (rules.impossible(data, piece) is None) == (data + piece in beginnings)
    assert rules.impossible(b"go", b" on") is None
    # as short as shows it, for all tokens that begin alike are left out at once
    assert rules.impossible(b"go", b"ne") == b"n"
    assert rules.impossible(b"go", b" old") == b" ol"
    assert rules.impossible(b"go", " ö".encode()) == " ö".encode()


def test_stop_strings_by_hand():
    rules = make_rules(stop=["abcd", "bc", "\n\n"])
    assert rules.before_stop(b"ab\n") is None
    assert rules.before_stop(b"xab\n\ny") == "xab"
    # "bc" is complete before "abcd": it does not matter whether a token brings one character or four
    assert rules.before_stop(b"xabc") == rules.before_stop(b"xabcd") == "xa"
    assert make_rules(stop=["c", "bc"]).before_stop(b"abc") == "a"
    assert make_rules(stop=["é"]).before_stop("aé".encode()[:2]) is None
    both = make_rules(stop=["\n\n"], constraint="[a-z]{2}")
    assert both.impossible(b"ab", b"\n") is None, "the stop string may begin where the answer could end"
    assert both.impossible(b"a", b"\n") == b"\n"
    assert both.impossible(b"ab\n", b"c") == b"c"
    assert both.impossible(b"ab\n", b"\nwhatever") is None
    assert not both.is_answer(b"ab\n")


def test_answers_that_are_not_finished_are_not_passed_off_as_answers(llama):
    texts = prompts(llama)
    with pytest.raises(UnfinishedError, match=r"max_new_tokens=4 did not suffice for 3 of 3 .*'\(ab\)\{20\}'") as error:
        llama.generate(texts, 4, constraint="(ab){20}")
    assert error.value.answers == [None] * 3
    with pytest.raises(UnfinishedError) as error:
        llama.generate([texts[0]] * 50, 4, constraint="a|b{20}")
    assert set(error.value.answers) == {"a", None}
    # cut, and it matches
    assert len(llama.generate(texts, 4, constraint="a+")[0]) <= 4 * max(map(len, llama.tokenizer.get_vocab()))


def test_the_bytes_of_tokens(tokenizer, llama):
    language_model = LanguageModel.load(dtype=torch.float32)
    texts = ["The cheese: 3 north, é 😀\n\t", "  A  b", "日本 «x»"]
    for tokens, model in ((language_model.tokenizer, language_model.model), (tokenizer, llama.model)):
        pieces = Vocabulary(tokens, model).pieces
        for text in texts:
            assert b"".join(pieces[token] for token in tokens(text).input_ids).decode() == text
        assert not any(pieces[token] for token in tokens.all_special_ids)


def test_the_bytes_of_tokens_of_sentencepieces_kind(llama):
    vocabulary = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁go", "g", "o", "▁g", "ne", "n"]
    bare = Tokenizer(
        models.BPE(
            {name: number for number, name in enumerate(vocabulary)},
            [("g", "o"), ("▁", "g")][1:],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    bare.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>")
    pieces = Vocabulary(tokenizer, llama.model).pieces
    assert b"".join(pieces[token] for token in tokenizer("go né").input_ids) == " go né".encode()
    words = Tokenizer(models.WordLevel({"go": 0, "north": 1, ",": 2, "south": 3, "?": 4}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="neither byte-level nor of SentencePiece's kind"):
        Vocabulary(PreTrainedTokenizerFast(tokenizer_object=words), llama.model)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(prompts=["a" * 250], max_new_tokens=64), "250 tokens and max_new_tokens=64 do not fit into the 256"),
        (dict(prompts=["A\n", ""]), "prompt='' has no tokens"),
        (dict(prompts="A\n"), "must be a list of texts"),
        (dict(stop="."), r"stop='.' must be a list of texts, as in stop=\['.'\]"),
        (dict(stop=[".", " ", ""]), "a stop string must not be empty"),
        (dict(constraint="(a"), r"constraint='\(a' is not a regular expression: missing \)"),
        (dict(constraint="(?=b)a"), "no token after '' with which an answer can still match"),
        (dict(temperature=-1.0), "temperature=-1.0 must be a number from 0 on"),
        (dict(temperature=float("nan")), "temperature=nan must be a number from 0 on"),
        (dict(max_new_tokens=0), "max_new_tokens=0 must be at least 1"),
    ],
)
def test_errors_say_what_is_wrong(llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        llama.generate(**dict(prompts=["A\n"]) | arguments)


def test_a_broken_model_is_named_with_the_prompt(tokenizer):
    language_model = build(config("llama", len(tokenizer)), tokenizer)
    bad = tokenizer.convert_tokens_to_ids("?")
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight[bad] = torch.nan
    for ask in (language_model.generate, language_model.embed):
        with pytest.raises(ValueError, match=r"after the prompt 'Where\?\\n' are NaN"):
            ask(["Here.\n", "Where?\n"])
    with pytest.raises(ValueError, match="300 tokens does not fit into the 256"):
        language_model.embed(["a" * 300])
