from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_answers_that_differ_are_counted_for_each_method(done, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import precision

    read, runs = precision.answers, iter([0, 1])

    def answers(name, results):
        found = read(name, results)
        if next(runs):
            of_clip = (k for k, key in enumerate(found.index) if key[1] == "clip")
            found.iloc[next(of_clip)] += 1
        return found

    monkeypatch.setattr(precision, "answers", answers)
    precision.main(done.name, done.name, done.config.results)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert [line.split(": ")[1][:5] for line in lines if ", clip: " in line] == ["1 of "]
    assert sum(": 0 of " in line for line in lines) == len(lines) - 1
