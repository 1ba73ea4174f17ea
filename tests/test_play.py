"""Looking at worlds: playing, watching a policy, levels as text, films, a world to start from, pages of the manual."""

import importlib.util
import json
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from stable_baselines3 import PPO

from astray.agents import MLP_PPO, vec_env
from astray.envs import InputError, World, worlds
from astray.envs.cheese_corner import CheeseCorner
from astray.envs.vector import WorldEnv
from astray.experiments import Arm, Study, evaluate, sums, test_levels
from astray.experiments.__main__ import main
from astray.experiments.cell import run_cell
from astray.experiments.files import read_rows
from astray.experiments.film import draw_frames, film_frames, write_film
from astray.experiments.levels import arguments_of, as_text, draw_levels, make_world, read_levels
from astray.experiments.new import write_world
from astray.experiments.play import meanings, play_world
from astray.experiments.policies import policy_of

ROOT = Path(__file__).parents[1]
each_world = pytest.mark.parametrize("kind", worlds().values(), ids=lambda kind: kind.__name__)


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command: its status, what it printed, and what it said was wrong."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["astray", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def beach(tmp_path_factory):
    return module_at(write_world("treasure-beach", tmp_path_factory.mktemp("worlds"))).TreasureBeach


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    settings = dict(n_steps=16, batch_size=32, n_epochs=1, policy_kwargs=dict(net_arch=[8]))
    common = dict(policy="mlp", observation="planes", num_envs=4, steps=64, test_every=64, seeds=2, train_shifts=(0.0,))
    arms = (
        Arm(name="small one", settings=settings, arguments={"corner_name": "neutral"}, **common),
        Arm(name="strange", settings=settings, **common),
    )
    tests = dict(test_ambiguous=2, test_distinguishing=2, timing_ambiguous=1, timing_distinguishing=1)
    study = Study("small", "cheese-corner", arms, arguments={"size": 4}, **tests)
    for part in ("rows", "timings", "episodes", "maps"):
        (folder / part).mkdir(parents=True)
    config = study.config()
    config["arms"][1]["settings"]["learning_rate"] = "study_at_mine.schedule"  # as a study's own function is kept
    (folder / "config.json").write_text(json.dumps(config))
    for cell in (study.cells()[0], study.cells()[2]):
        run_cell(study, cell, folder, lambda _: None)
        name = cell.name
        sums.register(folder, [folder / "checkpoints" / name, folder / "rows" / f"{name}.parquet"])
    return folder


# ---------------------------------------------------------------- moves
GO = ("go north", "go south", "go west", "go east")
ROOMS = (*GO, "take the key", "unlock a door", "turn on the radio")
RUN = ("run left", "run right", "jump left", "jump right", "climb")


@pytest.mark.parametrize(
    ("answer", "texts", "actions"),
    [
        ("Go North", GO, [0]),
        ("n", GO, [0]),
        ("gn", GO, [0]),
        ("go n", GO, [0]),
        ("3", GO, [3]),
        ("4", GO, []),
        ("go", GO, [0, 1, 2, 3]),
        ("fly", GO, []),
        ("", GO, []),
        ("ttk", ROOMS, [4]),
        ("key", ROOMS, [4]),
        ("u", ROOMS, [5]),
        ("t", ROOMS, [4, 6]),
        ("turn", ROOMS, [6]),
        ("jl", RUN, [2]),
        ("jump", RUN, [2, 3]),
        ("left", RUN, [0, 2]),
        ("l", RUN, [0, 2]),
        ("c", RUN, [4]),
        ("4", RUN, [4]),
        ("s", ("go south", "stop"), [0, 1]),
        ("jump", ("jump", "jump left"), [0]),
        ("2", ("2", "3", "4"), [0]),
    ],
)
def test_what_an_answer_means(answer, texts, actions):
    assert meanings(answer, texts) == actions


@each_world
def test_every_text_number_and_initials_play_their_action(kind):
    for number, text in enumerate(kind.action_texts):
        assert meanings(text, kind.action_texts) == meanings(str(number), kind.action_texts) == [number]
        assert number in meanings("".join(word[0] for word in text.split()), kind.action_texts)


# ---------------------------------------------------------------- playing
@each_world
def test_a_person_plays(kind, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Terminal", (StringIO,), {"isatty": lambda _: True})())
    shared = next(iter(text[0] for text in kind.action_texts))
    answers = iter([shared, "0", "q"])
    play_world(kind, 1.0, 3, read=lambda _: next(answers))
    out = capsys.readouterr().out
    env = WorldEnv(kind, shift=1.0, render_mode="ansi")
    text, _ = env.reset(seed=3)
    assert out.startswith(f"{env.world.instruction}\nType a move") and out.count(env.world.instruction) == 1
    assert f"\n{env.render()}\n{text}\n0 {kind.action_texts[0]}  1 " in out
    assert f"\n{env.step(0)[0]}\n" in out
    assert "could be any of: " in out


def test_without_the_picture_there_is_only_what_the_model_reads(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("n\nq\n"))
    status, out, _ = command("play", "cheese-corner", "--no-ansi", "--set", "size=7", "--set", "corner_name=neutral")
    assert status == 0 and "The corner:" in out and "..." not in out


def test_a_level_is_played_and_ends(command, monkeypatch, tmp_path):
    (tmp_path / "levels.txt").write_text("# Mine\nA.XC.\n")
    for wrong in ("--level", tmp_path / "levels.txt"), ("--set", "sise=7"), ("--set", "size"), ("--set", "size=[]"):
        status, out, error = command("play", "cheese-corner", *wrong)
        assert status == 2 and error.count("\n") == 1 and not out
    (tmp_path / "levels.txt").write_text("# Mine\nX..\n.AC\n...\n\n# Another\n...\n.AC\n..X\n")
    monkeypatch.setattr("sys.stdin", StringIO("n\nw\ne\ns\ne\ne\n"))
    status, out, error = command("play", "cheese-corner", "--set", "size=3", "--level", tmp_path / "levels.txt")
    assert (status, error) == (0, "")
    assert "over after 5 steps, return 1: corner came first, a proxy goal (cheese in step 5, corner in step 2)." in out
    assert "over after 1 step, return 1: cheese came first, the intended goal (cheese in step 1, corner never)." in out
    assert "* reached_cheese\n* reward 1\n" in out


@each_world
@pytest.mark.parametrize("policy", ["random", "expert"])
def test_a_policy_plays(kind, policy, command):
    status, out, error = command("play", kind.slug(), "--policy", policy, "--delay", 0, "--shift", 0.5, "--seed", 2)
    assert (status, error) == (0, "")
    assert "The episode is over after " in out
    again = command("play", kind.slug(), "--policy", policy, "--delay", 0, "--shift", 0.5, "--seed", 2)[1]
    assert again == out
    steps = out.count("> ")
    assert f"after {steps} step" in out
    if policy == "expert":
        assert f"{next(iter(kind.goals))} came first, the intended" in out or "came at once" in out


# ---------------------------------------------------------------- policies
def test_policies_by_name(run_folder, tmp_path):
    levels = test_levels(CheeseCorner, 0, 20)
    for goal, outcome in (("", "intended"), (":cheese", "intended"), (":corner", "proxy")):
        agent, arguments = policy_of(f"expert{goal}", CheeseCorner, {})
        assert arguments == {} and set(evaluate(agent, CheeseCorner, levels)["outcome"]) == {outcome}
    model = PPO("MlpPolicy", vec_env(CheeseCorner, 4, observation="egocentric"), n_steps=16, batch_size=32)
    model.save(tmp_path / "model.zip")
    agent, arguments = policy_of(str(tmp_path / "model.zip"), CheeseCorner, {"shift": 1.0}, greedy=True)
    assert arguments == {"shift": 1.0, "observation": "egocentric"} and agent.greedy
    agent, arguments = policy_of(f"{run_folder}/small-one-shift0-seed0", CheeseCorner, {"shift": 1.0})
    assert arguments == {"size": 4, "corner_name": "neutral", "shift": 1.0, "observation": "planes"}
    # It is the policy that was tested: the last rows of the cell say what it did.
    levels = test_levels(CheeseCorner, 2, 2, size=4)
    rows = evaluate(agent.policy, CheeseCorner, levels, seed=0, size=4)
    kept = read_rows(run_folder / "rows" / "small-one-shift0-seed0.parquet")
    kept = kept[(kept["step"] == 64) & (kept["agent"] == "trained")]
    assert rows["mass_proxy"].fillna(-1).tolist() == kept["mass_proxy"].fillna(-1).tolist()[-len(rows) :]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("expret", ["policy='expret'", "'random'", "cheese, corner", "RUN FOLDER/CELL"]),
        ("expert:chese", ["did you mean 'cheese'"]),
        ("nowhere.zip", ["nowhere.zip", "not there"]),
        ("{file}", ["no model"]),
        ("{run}", ["'small-one-shift0-seed0'"]),
        ("{run}/small-one-shift0-seed1", ["'small-one-shift0-seed0', 'strange-shift0-seed0'"]),
        ("{run}/strange-shift0-seed0", ["study_at_mine.schedule", "cannot be imported"]),
    ],
)
def test_no_such_policy_is_one_sentence(policy, words, run_folder, tmp_path, command):
    file = tmp_path / "model.zip"
    file.write_text("no model")
    status, _, error = command("play", "cheese-corner", "--policy", policy.format(run=run_folder, file=file))
    assert status == 2 and error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_policy_that_does_not_fit_is_one_sentence(run_folder, tmp_path, command, beach):
    cell = f"{run_folder}/small-one-shift0-seed0"
    for arguments, words in (
        (["cheese-dish"], "was trained in 'cheese-corner'"),
        (["cheese-corner", "--set", "size=6"], "does not fit cheese-corner with"),
        (["cheese-corner", "--set", "size=2"], "size=2 must be"),
    ):
        status, _, error = command("play", *arguments, "--policy", cell)
        assert status == 2 and error.count("\n") == 1 and words in error
    model = PPO("MlpPolicy", vec_env(CheeseCorner, 4, observation="bytes"), n_steps=16, batch_size=32)
    model.save(tmp_path / "model.zip")
    with pytest.raises(InputError, match=r"does not fit treasure-beach .*Discrete"):
        policy_of(str(tmp_path / "model.zip"), beach, {})


# ---------------------------------------------------------------- levels
@each_world
@pytest.mark.parametrize("level_class", [None, "distinguishing"])
def test_levels_are_printed_and_read_back(kind, level_class, command, tmp_path, monkeypatch):
    asked = ["--level-class", level_class] if level_class else ["--shift", 0.5]
    status, out, error = command("levels", kind.slug(), "--count", 3, "--seed", 5, *asked)
    assert (status, error) == (0, "") and out.count("# Level ") == 3 and out.count("\n\n") == 2
    (tmp_path / "levels.txt").write_text(out)
    assert command("levels", kind.slug(), "--read", tmp_path / "levels.txt") == (0, out, "")
    monkeypatch.setattr("sys.stdin", StringIO(out))
    assert command("levels", kind.slug(), "--read", "-") == (0, out, "")


@each_world
def test_levels_are_the_episodes_of_their_seed(kind):
    drawn = draw_levels(kind, 3, 7, None, {"shift": 0.5})
    env = WorldEnv(kind, shift=0.5)
    infos = [env.reset(seed=7)[1], env.reset()[1], env.reset()[1]]
    assert [info["level"] for info in infos] == list(drawn.text)


def test_steps_and_margins_are_told(tmp_path):
    path = tmp_path / "levels.txt"
    path.write_text("\n# My level\nA.C\n...\n# in the middle\nX..\nfirst: cheese\n\n\nfirst: corner\r\n..B\n.A.\n...\n")
    told = as_text(CheeseCorner, read_levels(CheeseCorner, str(path), {"size": 3}), {"size": 3})
    assert told == (
        f"# Level 1: distinguishing, margin {0.97 - 0.97**5:.3g}\n# Steps: cheese 2, corner 2\n"
        "A.C\n...\nX..\nfirst: cheese\n\n"
        "# Level 2: ambiguous, margin 0\n# Steps: cheese 2, corner 2\n..B\n.A.\n...\nfirst: corner\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("..B\n.A.\n...\n\n# Wrong\n..B\n.Q.\n...\n", ["levels.txt: line 7, column 2: 'Q'"]),
        ("..B\n# Comment\n.A..\n...\n", ["levels.txt: line 3 has 4 characters"]),
        ("first: corner\n..B\n.A.\n..q\n", ["levels.txt: line 4, column 3: 'q'"]),
        ("..B\n.A.\n...\n\n\n..X\n...\n..A\n", ["levels.txt: line 6: it needs one C"]),
        ("..B\n.A.\n...\n\n..B\n.A.\n", ["levels.txt: line 5: ", "2 lines"]),
        ("..B\n.A.\n...\nfirst: mouse\n", ["levels.txt: line 1: ", "'mouse'"]),
        ("# Nothing\n\n", ["levels.txt holds no level"]),
        (b"\xff\xfe", ["levels.txt is no text in UTF-8"]),
    ],
)
def test_a_wrong_level_is_named_by_line_and_nothing_is_printed(text, words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("levels.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, error = command("levels", "cheese-corner", "--set", "size=3", "--read", "levels.txt")
    assert (status, out) == (2, "") and error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_level_of_numbers_is_named_by_line(tmp_path, beach):
    path = tmp_path / "levels.txt"
    good = "start: 5\nflag: 1\ntreasure: 1\n"
    for text, words in (
        (f"{good}\n# Wrong\nstart: 5\nflag: one\ntreasure: 1\n", "line 7, column 7: 'one'"),
        (f"{good}\nstart: 5\nflg: 1\n", "line 6, name='flg'.*did you mean 'flag'"),
        (f"{good}\nstart: 5\n", "line 5: there is no line for flag, treasure"),
        ("start: 99999999999999999999\nflag: 1\ntreasure: 1\n", "line 1: no level of treasure-beach"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"levels.txt: {words}"):
            read_levels(beach, str(path), {})
    path.write_text(good)
    assert read_levels(beach, str(path), {}).level_class.tolist() == ["ambiguous"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", 0], "count=0"),
        (["--seed", -1], "seed=-1"),
        (["--level-class", "distinguished"], "did you mean 'distinguishing'"),
        (["--level-class", "ambiguous", "--read", "-"], "--read"),
        (["--read", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--set", "max_steps=few"], "max_steps='few'"),
    ],
)
def test_wrong_options_of_levels(arguments, words, command, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO(""))
    status, out, error = command("levels", "cheese-corner", *arguments)
    assert (status, out) == (2, "") and error.count("\n") == 1 and words in error


def test_arguments_are_those_of_the_world():
    assert arguments_of(CheeseCorner, ["size=7", "layout=maze", 'names={"cheese": "stone"}', "ghosts=true"]) == {
        "size": 7,
        "layout": "maze",
        "names": {"cheese": "stone"},
        "ghosts": True,
    }
    with pytest.raises(InputError, match="did you mean 'density'"):
        arguments_of(CheeseCorner, ["densty=1"])
    for name in ("num_envs=2", "self=1"):
        with pytest.raises(InputError, match=r"set=.* is not one of 'corner', 'corner_name'"):
            arguments_of(CheeseCorner, [name])


# ---------------------------------------------------------------- films
@each_world
def test_a_film_is_made(kind, command, tmp_path):
    path = tmp_path / "films" / "film.gif"
    options = ["--policy", "expert", "--out", path, "--episodes", 2, "--shift", 1, "--seed", 1]
    status, out, error = command("film", kind.slug(), *options)
    assert (status, error, out) == (0, "", f"film: {path}\n")
    first = path.read_bytes()
    with Image.open(path) as film:
        assert film.n_frames >= 4 and film.width == 640
        assert len(film.convert("RGB").getcolors(2**20)) > 5
    assert command("film", kind.slug(), *options)[0] == 0 and path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]


def test_a_film_of_a_world_without_pictures(beach, tmp_path):
    agent, arguments = policy_of("expert:flag", beach, {"shift": 1.0})
    levels = draw_levels(beach, 2, 0, "distinguishing", arguments)
    frames = film_frames(agent, make_world(beach, 1, **arguments), "expert:flag", 0, levels.levels, 3)
    assert [frame.note[0][:22] for frame in frames if frame.probabilities is None] == ["The episode is over af"] * 3
    assert all(frame.picture is None and frame.lines[0].startswith("Flag: ") for frame in frames)
    assert len({image.size for image in draw_frames(frames, beach.action_texts)}) == 1
    write_film(tmp_path / "film.gif", agent, make_world(beach, 1, **arguments), "expert:flag", levels=levels.levels)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(frames)


def test_a_film_replaces_only_films(command, tmp_path):
    mine = tmp_path / "mine.gif"
    mine.write_bytes(b"GIF89a")
    for arguments, words in (
        (["--out", mine], "was not written by `astray film`"),
        (["--out", tmp_path / "film.mp4"], "must end in .gif"),
        (["--out", tmp_path / "film.gif", "--episodes", 0], "episodes=0"),
        (["--out", tmp_path / "film.gif", "--delay", 0], "delay=0"),
        (["--out", tmp_path / "film.gif", "--seed", -2], "seed=-2"),
    ):
        status, _, error = command("film", "cheese-corner", "--policy", "expert", *arguments)
        assert status == 2 and error.count("\n") == 1 and words in error
    assert [file.name for file in tmp_path.iterdir()] == ["mine.gif"] and mine.read_bytes() == b"GIF89a"


# ---------------------------------------------------------------- a world to start from
def test_a_new_world_is_short_and_works(command, tmp_path):
    status, out, error = command("new", "world", "IceRink", "--out", tmp_path / "mine")
    path = tmp_path / "mine" / "ice_rink.py"
    assert (status, error) == (0, "") and f"{path}:IceRink" in out
    text = path.read_text()
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 120
    kind = module_at(path).IceRink
    assert issubclass(kind, World) and kind.slug() == "ice-rink" and "## Shift" in kind.__doc__
    for observation in kind.observations:
        env = WorldEnv(kind, observation=observation, render_mode="ansi")
        env.reset(seed=0)
        over = False
        while not over:
            seen, _, terminated, truncated, _ = env.step(int(env.action_space.sample()))
            over = terminated or truncated
            assert env.observation_space.contains(seen) and env.render()
    for arguments, level_class, share in (({}, "ambiguous", 1.0), (kind.decorrelated, "distinguishing", 0.2)):
        assert (draw_levels(kind, 60, 0, None, arguments).level_class == level_class).mean() >= share
    levels = test_levels(kind)
    for goal, outcome in zip(kind.goals, ("intended", "proxy"), strict=True):
        rows = evaluate(policy_of(f"expert:{goal}", kind, {})[0], kind, levels)
        assert set(rows[rows["level_class"] == "ambiguous"]["outcome"]) == {"both"}
        assert set(rows[rows["level_class"] == "distinguishing"]["outcome"]) == {outcome}


def test_a_new_world_can_be_learned(beach):
    model = PPO("MlpPolicy", vec_env(beach, 128, observation="bytes"), seed=0, **MLP_PPO).learn(40_960)
    rows = evaluate(model, beach, test_levels(beach, 64, 0), ["sampled"])
    assert (rows["outcome"] == "both").mean() > 0.9


def test_nothing_is_overwritten_and_names_are_checked(command, tmp_path):
    assert command("new", "world", "ice-rink", "--out", tmp_path)[0] == 0
    (tmp_path / "ice_rink.py").write_text("mine")
    for name, words in (
        ("ice_rink", "is there already"),
        ("2nd", "must be words"),
        ("a/b", "must be words"),
        ("class", "a word of Python"),
        ("cheese-corner", "a world of astray already"),
    ):
        status, _, error = command("new", "world", name, "--out", tmp_path)
        assert status == 2 and error.count("\n") == 1 and words in error
    assert [path.name for path in tmp_path.iterdir()] == ["ice_rink.py"]
    assert (tmp_path / "ice_rink.py").read_text() == "mine"


# ---------------------------------------------------------------- pages
def test_pages_of_the_worlds_are_up_to_date():
    make_pages = module_at(ROOT / "docs" / "make_pages.py")
    kept = {path.stem: path.read_text(encoding="utf-8") for path in make_pages.PAGES.glob("*.md")}
    assert sorted(worlds()) == sorted(kept)
    for slug, kind in worlds().items():
        assert kept[slug] == make_pages.page(kind), f"docs/worlds/{slug}.md: run `python docs/make_pages.py`"
